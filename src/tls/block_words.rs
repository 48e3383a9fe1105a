//! The words in which each thread has a pointer to its block of a module, for debuggers: which module has which
//! word. What the words are, and the record of a thread, [`crate::tls::words`] knows.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::Ordering;

use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::host::thread_keys;
use crate::tls::layout::{NO_BLOCK, SLOTS, THREAD_SLOT};
use crate::tls::words::{SLOT_COUNT, Storage, Words, known_words, word};

/// The number of modules that get a key, if the words are values of keys. Small, since a process has few keys at a
/// constant distance.
const MAX_KEYS: usize = 12;

/// The words of modules. Under the registry's lock.
pub(super) struct BlockWords {
    /// The distances of keys' values, by the module's index minus one.
    keys: Vec<Option<isize>>,
}

impl BlockWords {
    pub(super) const fn new() -> BlockWords {
        BlockWords { keys: Vec::new() }
    }

    /// Makes the word of a module's index, if it can have one and has none.
    pub(super) fn make(&mut self, index: usize, words: &Words) -> Result<(), Error> {
        if let Storage::Static { .. } = words.storage {
            return Ok(());
        }
        while self.keys.len() < index.min(MAX_KEYS) {
            self.keys.try_room(1)?;
            // SAFETY: no destructor. The key is never deleted: a later module has its word.
            let key = unsafe { thread_keys::create(None) };
            self.keys.push(key.and_then(|(_, distance)| distance));
        }
        Ok(())
    }

    /// The distance of a module's word from the thread pointer, if it has one.
    pub(super) fn distance(&self, index: usize) -> Option<isize> {
        match known_words()?.storage {
            Storage::Static { slots, .. } => {
                let offset = index.wrapping_mul(size_of::<usize>());
                (index < SLOTS).then(|| slots.wrapping_add_unsigned(offset))
            }
            Storage::Keys => self.keys.get(index.checked_sub(1)?).copied().flatten(),
        }
    }

    /// Sets a module's word in a thread that has a record; null for no block.
    pub(super) fn set(&self, thread_pointer: usize, index: usize, start: *mut u8) {
        let Some(distance) = self.distance(index) else { return };
        let is_slot = SLOT_COUNT.load(Ordering::Relaxed) > 0;
        let value = match start.is_null() && is_slot {
            true => ptr::without_provenance_mut(NO_BLOCK),
            false => start,
        };
        word(thread_pointer, distance).store(value, Ordering::Release);
    }

    /// Sets the words of all modules to no block.
    pub(super) fn clear(&self, thread_pointer: usize) {
        let last = SLOTS.max(self.keys.len().saturating_add(1));
        for index in THREAD_SLOT + 1..last {
            self.set(thread_pointer, index, ptr::null_mut());
        }
    }
}
