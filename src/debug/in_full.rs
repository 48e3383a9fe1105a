//! How many instances of an image debuggers see in full.
//!
//! A debugger that is attached becomes slower with each instance that has lines, so there is a limit
//! ([`Limits::instances_in_full`](crate::Limits::instances_in_full)). This file counts and decides nothing.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::sync::{Guard, Lock, Rank};

/// An instance that debuggers see in full. It counts among those of its name until it is dropped.
pub(super) struct InFull(Arc<str>);

static IN_FULL: Lock<BTreeMap<Arc<str>, u64>> = Lock::new(Rank::InFull, BTreeMap::new());

fn in_full() -> Guard<'static, BTreeMap<Arc<str>, u64>> {
    IN_FULL.lock()
}

impl InFull {
    pub(super) fn new(image: &Arc<str>) -> InFull {
        let mut counts = in_full();
        let count = counts.entry(image.clone()).or_default();
        *count = count.saturating_add(1);
        InFull(image.clone())
    }

    /// How many instances of this name there are.
    pub(super) fn count(image: &str) -> u64 {
        in_full().get(image).copied().unwrap_or(0)
    }
}

impl Drop for InFull {
    fn drop(&mut self) {
        let mut counts = in_full();
        if let Some(count) = counts.get_mut(&self.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.0);
            }
        }
    }
}
