//! The registry: modules by index, threads with a record, and the static pool, under one lock.
//!
//! The lock is held for bookkeeping only, never while memory is allocated for a block or foreign code runs.

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::sync::{Guard, Lock, Rank};
use crate::tls::block_words::BlockWords;
use crate::tls::layout::THREAD_SLOT;
use crate::tls::static_pool::StaticPool;
use crate::tls::thread::{Block, Initial, Thread};
use crate::tls::words::Words;

pub(super) struct Registry {
    /// By module index; slot 0 is never used.
    pub modules: Vec<Option<Initial>>,
    /// All threads that have a record.
    pub threads: Vec<NonNull<Thread>>,
    pub pool: StaticPool,
    pub words: BlockWords,
}

// SAFETY: other threads reach the records only under the registry's lock, and a record lives until its thread
// removes it under that lock.
unsafe impl Send for Registry {}

static REGISTRY: Lock<Registry> = Lock::new(
    Rank::Tls,
    Registry {
        modules: Vec::new(),
        threads: Vec::new(),
        pool: StaticPool::new(),
        words: BlockWords::new(),
    },
);

pub(super) fn registry() -> Guard<'static, Registry> {
    REGISTRY.lock()
}

/// The number of blocks that are taken out of threads' records at once.
const AT_ONCE: usize = 16;

/// Frees all threads' blocks of a module. The lock is released before: a collector may hear of it.
pub(super) fn free_blocks(index: usize) {
    loop {
        let taken = registry().take_blocks(index);
        if taken.last().is_none_or(Option::is_none) {
            break;
        }
    }
}

impl Registry {
    /// The entry of a registered module.
    #[expect(clippy::indexing_slicing, reason = "modules are numbered by memdl, not by bytes")]
    pub(super) fn module(&mut self, index: usize) -> &mut Option<Initial> {
        &mut self.modules[index]
    }

    /// Registers a module: its index.
    pub(super) fn add(&mut self, initial: Initial, words: &Words) -> Result<usize, Error> {
        let modules = &mut self.modules;
        let free = modules.iter().enumerate().skip(THREAD_SLOT + 1).find(|(_, it)| it.is_none());
        let index = free.map_or(modules.len().max(THREAD_SLOT + 1), |(index, _)| index);
        modules.try_lengthen(index.saturating_add(1), None)?;
        self.words.make(index, words)?;
        *self.module(index) = Some(initial);
        Ok(index)
    }

    /// Takes blocks of a module out of threads' records. If the last element is one, there may be more.
    fn take_blocks(&self, index: usize) -> [Option<Block>; AT_ONCE] {
        let mut taken = [const { None }; AT_ONCE];
        let mut places = taken.iter_mut();
        let mut place = places.next();
        for &thread in &self.threads {
            let Some(free) = place.take() else { break };
            // SAFETY: records in the registry are alive, and the lock is held.
            *free = unsafe { Thread::set(thread, &self.words, index, ptr::null_mut(), None) };
            place = if free.is_some() { places.next() } else { Some(free) };
        }
        taken
    }
}
