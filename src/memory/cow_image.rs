//! Pages that are mapped at several addresses at once, and views of them with a few private pages.
//!
//! A [`CowImage`] is memory that many views have in common. Each [`CowView`] has private copies of the same
//! few ranges, and shares all other pages. The copies are made when the view is, not on the first write: the
//! name is that of the idea. Memory of a dropped view stays in the mapping cache until its image is dropped.
//!
//! Knows nothing of the contents.
//!
//! Source: `mremap(2)`, with an old size of zero.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::ptr;
use std::sync::{Arc, Weak};

use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::memory::cache::{self, CacheKey, CachedMapping, User};
use crate::memory::executable;
use crate::memory::reservation::{READ_WRITE, Reservation, can_share};
use crate::memory::wipe;

/// Anonymous memory whose pages can be mapped at several addresses at once. Read-only once it is filled.
pub(crate) struct SharedPages(Reservation);

impl SharedPages {
    /// `len` bytes (a multiple of the page, not 0), zeroed, then filled by `fill`, which writes to all
    /// of `parts` (whole pages).
    pub(crate) fn filled(
        len: usize,
        parts: impl IntoIterator<Item = Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<SharedPages, Error> {
        let memory = Reservation::shared(len, READ_WRITE)?;
        parts.into_iter().for_each(|part| memory.populate(part));
        // SAFETY: `len` bytes that were just mapped, zeroed, and that nothing else refers to.
        fill(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) });
        // Each further mapping of the pages starts with the protection of this one.
        if !memory.protect(0..len, libc::PROT_READ) {
            return Err(Error::last_os_error(format!("mprotect of {len:#x} shared bytes")));
        }
        Ok(SharedPages(memory))
    }

    /// Pages with the same contents that can be executed wherever they are mapped: for a process that may not
    /// make memory executable.
    pub(super) fn executable(&self) -> Result<SharedPages, Error> {
        Ok(SharedPages(executable::shared(self.len(), self)?))
    }

    /// Maps these pages over a part of `target`, readable, or copies them there
    /// ([`can_share`](crate::memory::reservation::can_share)).
    ///
    /// # Safety
    /// The part of `target`, from `at` on and as long as these pages, is inside it, is whole pages that can
    /// be written, and nothing refers to it.
    pub(crate) unsafe fn map_over(&self, target: &Reservation, at: usize) -> Result<(), Error> {
        // SAFETY: all of one shared mapping; the rest is the caller's promise.
        unsafe { self.0.map_again_over(0..self.0.len(), target, at) }
    }
}

impl Deref for SharedPages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives, filled, and read-only since.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

/// Pages that all views share, but for a few that each view has for itself.
pub(crate) struct CowImage {
    pages: SharedPages,
    /// Each view's private pages: whole pages, ascending, none overlapping another.
    own: Arc<[Range<usize>]>,
    /// For memory in the cache that maps these pages.
    key: Arc<CacheKey>,
}

impl CowImage {
    /// `own` are the ranges that each view has for itself: whole pages, ascending, none overlapping
    /// another.
    pub(crate) fn new(pages: SharedPages, own: Vec<Range<usize>>) -> CowImage {
        CowImage { pages, own: own.into(), key: Arc::default() }
    }

    /// Memory of the same length and contents. Its own ranges can be written; all the rest is the shared
    /// pages.
    pub(crate) fn view(&self) -> Result<CowView, Error> {
        let memory = match cache::take_parked(&self.key) {
            Some(memory) => memory,
            None => self.map()?,
        };
        for range in &*self.own {
            // SAFETY: the range is inside both, where `memory` is writable, and nothing else refers to
            // `memory`.
            unsafe {
                ptr::copy_nonoverlapping(
                    self.pages.0.as_ptr().add(range.start),
                    memory.as_ptr().add(range.start),
                    range.len(),
                );
            }
        }
        let (own, key) = (self.own.clone(), Arc::downgrade(&self.key));
        Ok(CowView { memory: ManuallyDrop::new(memory), own, key })
    }

    /// New memory that maps these pages everywhere but in the own ranges.
    fn map(&self) -> Result<Reservation, Error> {
        let len = self.pages.0.len();
        let memory = Reservation::new(len, page_size(), 0)?;
        let mut shared = 0;
        for range in self.own.iter().chain([&(len..len)]) {
            assert!(shared <= range.start && range.start <= range.end && range.end <= len);
            if shared < range.start {
                // SAFETY: a part of the shared mapping, over the same part of `memory`, which nothing
                // refers to yet.
                unsafe { self.pages.0.map_again_over(shared..range.start, &memory, shared)? };
            }
            memory.populate(range.clone());
            shared = range.end;
        }
        Ok(memory)
    }
}

impl Deref for CowImage {
    type Target = [u8];

    /// The shared contents.
    fn deref(&self) -> &[u8] {
        &self.pages
    }
}

impl Drop for CowImage {
    fn drop(&mut self) {
        cache::forget_key(&self.key);
    }
}

/// The result of [`CowImage::view`].
pub(crate) struct CowView {
    memory: ManuallyDrop<Reservation>,
    /// The ranges that can be written.
    own: Arc<[Range<usize>]>,
    key: Weak<CacheKey>,
}

impl CowView {
    /// These bytes, if they can be written.
    pub(crate) fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        let holds = |own: &Range<usize>| own.start <= range.start && range.end <= own.end;
        if range.start > range.end || !self.own.iter().any(holds) {
            return None;
        }
        // SAFETY: inside a part of the mapping that is private and writable, borrowed as `self` is.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.memory.as_ptr().add(range.start), range.len())
        })
    }
}

impl Deref for CowView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, readable, and changed through `get_mut` only.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.memory.len()) }
    }
}

impl Drop for CowView {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if self.key.strong_count() > 0 {
            let own =
                if can_share() { self.own.iter().map(Range::len).sum() } else { memory.len() };
            if wipe::make_fit_to_keep(&memory, &self.own) {
                CachedMapping { memory, own, user: User::Owner(self.key.clone()) }.keep();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_private_copies_of_its_own_pages_and_shares_the_others() {
        let page = page_size();
        let pages = SharedPages::filled(6 * page, None, |bytes| {
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / page) as u8 + 1);
        })
        .unwrap();
        let image = CowImage::new(pages, vec![0..page, 3 * page..4 * page]);
        let [mut a, mut b] = [(); 2].map(|()| image.view().unwrap());
        a.get_mut(3 * page..3 * page + 1).unwrap().fill(77);
        assert_eq!(b[..], image[..]);
        let mut expected = image.to_vec();
        expected[3 * page] = 77;
        assert_eq!(a[..], expected);
        for not_own in [page..page + 1, 4 * page - 1..4 * page + 1] {
            assert_eq!(b.get_mut(not_own), None);
        }
        // The memory of a dropped view is that of the next, without what was written to it.
        let before = a.as_ptr();
        drop(a);
        let mut again = image.view().unwrap();
        assert_eq!((again.as_ptr(), &again[..]), (before, &image[..]));
        again.get_mut(0..page).unwrap().fill(78);
        drop(again);
        let key = image.key.clone();
        drop(image);
        assert_eq!(b[5 * page], 6);
        assert!(cache::take_parked(&key).is_none());
    }
}
