//! What operators learn of loads: how long they took, in the log, and how many have failed.
//!
//! The time is read only if the log takes events of the level `debug`. Where it does not, an event costs the
//! comparison of one word that nobody writes.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::LevelFilter;

use crate::base::error::Error;

/// The number of loads that ended with an error.
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// The moment at which something begins that will be logged; `None` if it will not.
#[inline]
pub(crate) fn start() -> Option<Instant> {
    (log::max_level() >= LevelFilter::Debug).then(Instant::now)
}

/// The time since `start`, as text.
pub(crate) struct Took(Instant);

impl Took {
    pub(crate) fn since(start: Instant) -> Took {
        Took(start)
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.elapsed().as_micros();
        // Milliseconds, with three decimals.
        write!(f, "{}.{:03} ms", micros / 1000, micros % 1000)
    }
}

/// Counts and logs a load that has failed, which began at `start`. No lock may be held.
#[cold]
pub(crate) fn failed(error: &Error, start: Option<Instant>) {
    FAILURES.fetch_add(1, Ordering::Relaxed);
    if let Some(start) = start {
        logged!(debug, "a load failed after {}: {error}", Took::since(start));
    }
}

/// The number of loads that ended with an error.
pub(crate) fn failures() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}
