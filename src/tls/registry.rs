//! The registry: modules by index, threads with a record, and the static pool, under one lock.
//!
//! The lock is held for bookkeeping only, never while memory is allocated for a block or foreign code runs.

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use crate::base::sync::{Guard, Lock, Rank};
use crate::tls::static_pool::StaticPool;
use crate::tls::thread::{Initial, Thread};

#[derive(Default)]
pub(super) struct Registry {
    /// By module index; slot 0 is never used.
    pub modules: Vec<Option<Initial>>,
    /// All threads that have a record.
    pub threads: Vec<NonNull<Thread>>,
    pub pool: StaticPool,
}

// SAFETY: other threads reach the records only under the registry's lock, and a record lives until its thread
// removes it under that lock.
unsafe impl Send for Registry {}

static REGISTRY: Lock<Registry> = Lock::new(
    Rank::Tls,
    Registry { modules: Vec::new(), threads: Vec::new(), pool: StaticPool::new() },
);

pub(super) fn registry() -> Guard<'static, Registry> {
    REGISTRY.lock()
}

impl Registry {
    /// The entry of a registered module.
    #[expect(clippy::indexing_slicing, reason = "modules are numbered by memdl, not by bytes")]
    pub(super) fn module(&mut self, index: usize) -> &mut Option<Initial> {
        &mut self.modules[index]
    }

    /// Frees all threads' blocks of a module.
    pub(super) fn free_blocks(&self, index: usize) {
        for &thread in &self.threads {
            // SAFETY: records in the registry are alive, and the lock is held.
            unsafe { Thread::set(thread, index, ptr::null_mut(), None) };
        }
    }
}
