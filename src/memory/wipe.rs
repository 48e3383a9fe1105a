//! Whether kept memory is wiped, and the wiping.
//!
//! Which memory is kept, [`crate::memory::cache`] decides.

#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::base::environment;
use crate::memory::reservation::{Reservation, many_pages, zero};

/// One of the three values below.
static WIPES: AtomicU8 = AtomicU8::new(UNKNOWN);
/// Neither the program has chosen, nor has the environment been read.
const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// The program's choice. Returns the choice in effect, which the environment can override.
pub(super) fn choose(wipe: bool) -> bool {
    let wipe = effective(wipe);
    WIPES.store(if wipe { ON } else { OFF }, Ordering::Relaxed);
    wipe
}

fn effective(chosen: bool) -> bool {
    environment::overridden("MEMDL_WIPE", &[("off", false), ("on", true)], chosen)
}

/// Whether kept memory is wiped.
pub(super) fn is_on() -> bool {
    #[cold]
    fn read_environment() -> u8 {
        let found = if effective(false) { ON } else { OFF };
        // A choice that the program has made meanwhile stays.
        let known = WIPES.compare_exchange(UNKNOWN, found, Ordering::Relaxed, Ordering::Relaxed);
        known.map_or_else(|known| known, |_| found)
    }
    let known = WIPES.load(Ordering::Relaxed);
    (if known == UNKNOWN { read_environment() } else { known }) == ON
}

/// Wipes these parts of `memory`, which are writable, if kept memory is wiped. False if the memory should
/// be unmapped instead, because that is faster.
pub(super) fn make_fit_to_keep(memory: &Reservation, parts: &[Range<usize>]) -> bool {
    if !is_on() {
        return true;
    }
    let most = many_pages();
    if parts.iter().any(|part| part.end > memory.len() || part.len() >= most) {
        return false;
    }
    for part in parts {
        // SAFETY: inside owned memory that nothing refers to; the caller vouches that it is writable.
        unsafe { zero(memory.as_ptr().add(part.start), part.len()) };
    }
    true
}
