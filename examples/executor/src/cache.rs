//! Libraries that are ready to be called, by digest, within a limit of bytes and of their number.
//!
//! Room is reserved before a library is received, so that clients who all send at once stay within the limit, too.
//! What has not been used for longest makes room. What is in use stays.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::{Digest, Failure, FailureKind};

/// The libraries. `T` is one that is ready to be called.
pub(crate) struct Cache<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    most_bytes: usize,
    most_libraries: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    entries: HashMap<Digest, Slot<T>>,
    /// The bytes of all reservations.
    bytes: usize,
    /// The number of all reservations.
    libraries: usize,
    /// Counts uses.
    clock: u64,
}

struct Slot<T> {
    entry: Arc<Entry<T>>,
    last_used: u64,
}

/// A library in the cache, or one that has just left it and is still in use.
pub(crate) struct Entry<T> {
    pub(crate) value: T,
    // Dropped after the value, which it stands for.
    _room: Room<T>,
}

/// Room for a library.
pub(crate) struct Room<T> {
    cache: Arc<Shared<T>>,
    bytes: usize,
}

impl<T> Cache<T> {
    /// A cache for this many bytes of libraries, and this many libraries.
    pub(crate) fn new(most_bytes: usize, most_libraries: usize) -> Cache<T> {
        let state = State { entries: HashMap::new(), bytes: 0, libraries: 0, clock: 0 };
        Cache { shared: Arc::new(Shared { most_bytes, most_libraries, state: Mutex::new(state) }) }
    }

    /// The library with this digest.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Entry<T>>> {
        let mut state = self.shared.lock();
        let now = state.tick();
        let slot = state.entries.get_mut(digest)?;
        slot.last_used = now;
        Some(slot.entry.clone())
    }

    /// Makes room for a library of this many bytes.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Room<T>, Failure> {
        loop {
            let mut state = self.shared.lock();
            let bytes_then = state.bytes.checked_add(bytes);
            let libraries_then = state.libraries.checked_add(1);
            let bytes_then = bytes_then.filter(|sum| *sum <= self.shared.most_bytes);
            let libraries_then = libraries_then.filter(|sum| *sum <= self.shared.most_libraries);
            if let (Some(bytes_then), Some(libraries_then)) = (bytes_then, libraries_then) {
                (state.bytes, state.libraries) = (bytes_then, libraries_then);
                return Ok(Room { cache: self.shared.clone(), bytes });
            }
            let evicted = state.evict();
            // Its destructors run, and its room is given back, while the lock is free.
            drop(state);
            if evicted.is_none() {
                let Shared { most_bytes, most_libraries, .. } = &*self.shared;
                let message = format!(
                    "no room for {bytes} bytes: libraries in use need the server's {most_bytes} bytes, or are \
                     {most_libraries}"
                );
                return Err(Failure::new(FailureKind::Memory, message));
            }
        }
    }

    /// Adds a library. Where another client was faster, its library stays.
    pub(crate) fn insert(&self, digest: Digest, room: Room<T>, value: T) -> Arc<Entry<T>> {
        let entry = Arc::new(Entry { value, _room: room });
        let mut state = self.shared.lock();
        let last_used = state.tick();
        let slot =
            state.entries.entry(digest).or_insert_with(|| Slot { entry: entry.clone(), last_used });
        slot.last_used = last_used;
        let kept = slot.entry.clone();
        drop(state);
        kept
    }

    /// Forgets a library that can no longer be called.
    pub(crate) fn remove(&self, digest: &Digest, entry: &Arc<Entry<T>>) {
        let mut state = self.shared.lock();
        let is_it = state.entries.get(digest).is_some_and(|slot| Arc::ptr_eq(&slot.entry, entry));
        let removed = is_it.then(|| state.entries.remove(digest));
        drop(state);
        drop(removed);
    }

    /// Forgets all libraries.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut self.shared.lock().entries);
        drop(entries);
    }

    /// The number of libraries, and the bytes that are reserved.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.entries.len(), state.bytes)
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No foreign code runs under the lock, and no step leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn tick(&mut self) -> u64 {
        self.clock = self.clock.wrapping_add(1);
        self.clock
    }

    /// Takes out the library that has not been used for longest, of those that nobody uses now.
    fn evict(&mut self) -> Option<Slot<T>> {
        let idle = self.entries.iter().filter(|(_, slot)| Arc::strong_count(&slot.entry) == 1);
        let (digest, _) = idle.min_by_key(|(_, slot)| slot.last_used)?;
        let digest = *digest;
        self.entries.remove(&digest)
    }
}

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.bytes = state.bytes.saturating_sub(self.bytes);
        state.libraries = state.libraries.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn add(cache: &Cache<u8>, number: u8, bytes: usize) -> Arc<Entry<u8>> {
        cache.insert(digest(number), cache.reserve(bytes).unwrap(), number)
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let cache = Cache::new(100, 10);
        (0..4).for_each(|number| drop(add(&cache, number, 25)));
        assert!(cache.get(&digest(0)).is_some());
        add(&cache, 4, 50);
        let left: Vec<u8> = (0..5).filter(|it| cache.get(&digest(*it)).is_some()).collect();
        assert_eq!(left, [0, 3, 4]);
        assert_eq!(cache.size(), (3, 100));
    }

    #[test]
    fn what_is_in_use_stays() {
        let cache = Cache::new(100, 10);
        let used = add(&cache, 0, 60);
        assert_eq!(cache.reserve(50).err().unwrap().kind, FailureKind::Memory);
        assert_eq!(cache.get(&digest(0)).unwrap().value, 0);
        drop(used);
        assert!(cache.reserve(50).is_ok());
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn the_first_of_two_equal_libraries_is_kept_and_room_is_given_back() {
        let cache = Cache::new(100, 10);
        let (first, second) = (cache.reserve(40).unwrap(), cache.reserve(40).unwrap());
        cache.insert(digest(1), first, 10);
        assert_eq!(cache.insert(digest(1), second, 20).value, 10);
        assert_eq!(cache.size(), (1, 40));
        let entry = cache.get(&digest(1)).unwrap();
        cache.remove(&digest(1), &entry);
        assert_eq!(cache.size(), (0, 40)); // still in use
        drop(entry);
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn there_are_no_more_libraries_than_allowed() {
        let cache = Cache::new(100, 2);
        (0..3).for_each(|number| drop(add(&cache, number, 1)));
        assert!(cache.get(&digest(0)).is_none());
        assert_eq!(cache.size(), (2, 2));
        let _used = (cache.get(&digest(1)), cache.get(&digest(2)));
        assert!(cache.reserve(1).is_err());
    }

    #[test]
    fn no_length_overflows() {
        let cache = Cache::<u8>::new(usize::MAX, usize::MAX);
        let _room = cache.reserve(usize::MAX).unwrap();
        assert!(cache.reserve(1).is_err());
    }
}
