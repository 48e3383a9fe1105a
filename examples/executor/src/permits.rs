//! A number of things that may happen at once.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many more may happen. Nobody waits for one: who finds none is refused, and may try later.
#[derive(Clone)]
pub(crate) struct Permits {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// One of them. It is given back when it is dropped.
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Permits {
    pub(crate) fn new(most: usize) -> Permits {
        Permits { taken: Arc::default(), most }
    }

    pub(crate) fn take(&self) -> Option<Permit> {
        let more = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= self.most);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Permit(self.taken.clone()))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Each permit added one.
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
