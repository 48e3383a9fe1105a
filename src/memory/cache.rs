//! The mapping cache: memory that unloaded images left, for the next image.
//!
//! Providing pages is what takes the time of a load. So memory is kept, up to 32 MiB: plain memory for any
//! image of the same size, memory that shares pages for the owner of these pages, and scratch memory.
//! Memory that only a `munmap` waits for is kept until the next load or unload. Whether contents are wiped
//! is decided in [`crate::memory::wipe`].
//!
//! Never hands out memory of an image that was not sealed: [`crate::memory::stage`] holds that.
//!
//! Sources: `mprotect(2)`, `mremap(2)`.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::base::addr::distance_to;
use crate::base::error::Error;
use crate::base::sync::{Guard, Lock, Rank};
use crate::memory::layout::Layout;
use crate::memory::reservation::{READ_WRITE, Reservation, can_share};
use crate::memory::{retry, wipe};

/// The contents of memory that was just taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// Zeroes, in pages that the kernel provides when they are touched. All can be read and written.
    Zeroed,
    /// Anything. What was not asked for cannot be accessed.
    Stale,
}

struct MappingCache {
    /// Oldest first.
    free: Vec<CachedMapping>,
    /// To be unmapped when no load waits for it, with the number of bytes that were touched.
    later: Vec<(Reservation, usize)>,
}

/// A mapping that can be used again.
pub(super) struct CachedMapping {
    pub memory: Reservation,
    /// The bytes whose pages no other mapping shares.
    pub own: usize,
    pub user: User,
}

/// Who can use a cached mapping, and its state.
pub(super) enum User {
    /// Any image that needs the same length. The first `used` bytes can be read and written. All behind
    /// them, at least a page, cannot be accessed.
    AnyImage { used: usize },
    /// A [`ScratchMemory`](crate::memory::scratch::ScratchMemory) of this length, which is filled from its
    /// first to its last byte.
    Scratch,
    /// An image with the same segments, and the same bytes in those that are not written. The memory is as it was.
    SameImage(Box<Layout>),
    /// The owner of this key: the pages that it shares are mapped.
    Owner(Weak<CacheKey>),
}

/// Identifies the owner of shared pages. Only the owner can use memory again that maps them.
#[derive(Default)]
pub(crate) struct CacheKey(());

impl CachedMapping {
    fn is_for(&self, key: &Arc<CacheKey>) -> bool {
        matches!(&self.user, User::Owner(it) if ptr::eq(it.as_ptr(), Arc::as_ptr(key)))
    }

    fn has_user(&self) -> bool {
        !matches!(&self.user, User::Owner(key) if key.strong_count() == 0)
    }

    /// Adds it to the cache, and unmaps what the cache has no room for.
    pub(super) fn keep(self) {
        if self.own <= MAX_BYTES {
            let evicted = cache().add(self);
            // Not while the lock is held.
            drop(evicted);
        }
    }

    /// Takes the mapping out of the cache that was added last of those that fit.
    pub(super) fn take(fits: impl Fn(&CachedMapping) -> bool) -> Option<CachedMapping> {
        let mut cache = cache();
        let index = cache.free.iter().rposition(fits)?;
        Some(cache.free.remove(index))
    }
}

static CACHE: Lock<MappingCache> = Lock::new(Rank::Memory, MappingCache::new());

fn cache() -> Guard<'static, MappingCache> {
    CACHE.lock()
}

/// Whether `later` may have entries. Written under the lock. A thread that reads an old value leaves the
/// work to the next one.
static HAS_LATER: AtomicBool = AtomicBool::new(false);

/// Limits of the cache: bytes, and mappings.
pub(crate) const MAX_BYTES: usize = 32 << 20;
const MAX_MAPPINGS: usize = 16;

/// The part of [`MAX_BYTES`] that instances which wait as a whole have.
static SET_ASIDE: AtomicUsize = AtomicUsize::new(0);

/// Leaves so many bytes less for the cache.
pub(crate) fn set_aside(bytes: usize) {
    SET_ASIDE.store(bytes, Ordering::Relaxed);
}

impl MappingCache {
    const fn new() -> MappingCache {
        MappingCache { free: Vec::new(), later: Vec::new() }
    }

    /// Adds a mapping, and returns those that there is no room for.
    fn add(&mut self, free: CachedMapping) -> Vec<CachedMapping> {
        self.free.push(free);
        let mut evicted: Vec<CachedMapping> = Vec::new();
        evicted.extend(self.free.extract_if(.., |free| !free.has_user()));
        let most = MAX_BYTES.saturating_sub(SET_ASIDE.load(Ordering::Relaxed));
        while self.free.len() > MAX_MAPPINGS
            || self.free.iter().map(|free| free.own).sum::<usize>() > most
        {
            evicted.push(self.free.remove(0));
        }
        evicted
    }
}

/// Returns all that is kept to the system.
pub(crate) fn release() {
    let all = std::mem::replace(&mut *cache(), MappingCache::new());
    drop(all);
    retry::all();
}

/// The number of bytes that are kept: what [`release`] gives back.
pub(crate) fn kept_bytes() -> usize {
    let cache = cache();
    let free = cache.free.iter().map(|free| free.own);
    free.chain(cache.later.iter().map(|(_, touched)| *touched)).fold(0, usize::saturating_add)
}

/// Unmaps the memory that a load did not wait for, and repeats the calls that the system refused.
pub(crate) fn unmap_deferred() {
    if HAS_LATER.load(Ordering::Relaxed) {
        let mut cache = cache();
        HAS_LATER.store(false, Ordering::Relaxed);
        let later = std::mem::take(&mut cache.later);
        drop(cache);
        drop(later);
    }
    retry::all();
}

/// Chooses whether memory that is kept is wiped first, and returns whether it is.
pub(crate) fn wipe(wipe: bool) -> bool {
    wipe::choose(wipe)
}

/// Unmaps the memory that only the owner of this key could use.
pub(crate) fn forget_key(key: &Arc<CacheKey>) {
    let unused: Vec<CachedMapping> = cache().free.extract_if(.., |free| free.is_for(key)).collect();
    drop(unused);
}

/// As [`Reservation::new`], or memory that was [recycled](recycle). That has bytes of its former owner in it,
/// and its pages exist already, which saves the time. Only its first `used` bytes (a multiple of the page)
/// can be accessed.
pub(crate) fn take(
    len: usize,
    used: usize,
    align: usize,
    residue: usize,
) -> Result<(Reservation, Pages), Error> {
    let fits = |free: &CachedMapping| {
        matches!(free.user, User::AnyImage { .. })
            && free.memory.len() == len
            && distance_to(residue, align, free.memory.address()) == 0
    };
    if let Some(CachedMapping { memory, user: User::AnyImage { used: before }, .. }) =
        CachedMapping::take(fits)
        && (used <= before || memory.protect(before..used, READ_WRITE))
        && (before <= used || memory.protect(used..before, libc::PROT_NONE))
    {
        return Ok((memory, Pages::Stale));
    }
    Ok((Reservation::new(len, align, residue)?, Pages::Zeroed))
}

/// Keeps the memory for the next image of the same length, or unmaps it. In both cases nothing stays mapped
/// at its addresses. The image lies in the first `used` bytes (a multiple of the page). The next one needs memory that
/// lies as this does modulo `align`.
pub(crate) fn recycle(memory: Reservation, used: usize, align: usize) {
    let own = memory.len();
    // The protections that the next load needs are set now, when nothing waits.
    if own <= MAX_BYTES
        && (!wipe::is_on() || memory.protect(0..used, READ_WRITE))
        && wipe::make_fit_to_keep(&memory, std::slice::from_ref(&(0..used)))
        && let Some(memory) = memory.moved(align)
        && memory.protect(used..own, libc::PROT_NONE)
    {
        CachedMapping { memory, own, user: User::AnyImage { used } }.keep();
    }
}

/// Keeps the memory as it is for [`take_in_place`], or unmaps it.
pub(super) fn keep_in_place(memory: Reservation, layout: Box<Layout>) {
    if wipe::is_on() {
        return recycle(memory, layout.span_len(), layout.align());
    }
    CachedMapping { own: memory.len(), memory, user: User::SameImage(layout) }.keep();
}

/// Memory of an unloaded image whose layout is the one. Segments that are not written, and RELRO, may have been
/// changed through a hole; the others have anything in them.
pub(super) fn take_in_place(
    is_this: impl Fn(&Layout) -> bool,
) -> Option<(Reservation, Box<Layout>)> {
    let fits = |free: &CachedMapping| matches!(&free.user, User::SameImage(it) if is_this(it));
    match CachedMapping::take(fits)? {
        CachedMapping { memory, user: User::SameImage(layout), .. } => Some((memory, layout)),
        _ => None,
    }
}

/// Keeps the memory as it is for [`take_parked`], or unmaps it. Only the parts that are `written` (whole
/// pages) are made writable.
///
/// All other parts are used again unchanged: their contents and protection must be final.
pub(crate) fn park(memory: Reservation, key: Weak<CacheKey>, written: &[Range<usize>]) {
    let own = if can_share() { written.iter().map(Range::len).sum() } else { memory.len() };
    // `protect` fails if the image has unmapped a part of its memory.
    if own <= MAX_BYTES
        && key.strong_count() > 0
        && written.iter().all(|part| memory.protect(part.clone(), READ_WRITE))
        && wipe::make_fit_to_keep(&memory, written)
    {
        CachedMapping { memory, own, user: User::Owner(key) }.keep();
    }
}

/// The memory that was [parked](park) last for this key.
pub(crate) fn take_parked(key: &Arc<CacheKey>) -> Option<Reservation> {
    CachedMapping::take(|free| free.is_for(key)).map(|free| free.memory)
}

/// From this many bytes on, unmapping is worth the call.
pub(crate) const TRIM_THRESHOLD: usize = 1 << 16;

/// Cuts off the memory behind the first `len` bytes (a multiple of the page), and unmaps it later, if that
/// is more than [`TRIM_THRESHOLD`]. The first `touched` bytes have been touched. Returns whether it was cut.
///
/// # Safety
/// Nothing refers to that part.
pub(crate) unsafe fn shrink(memory: &mut Reservation, len: usize, touched: usize) -> bool {
    let Some(rest) = memory.split_off(len, TRIM_THRESHOLD) else { return false };
    let touched = touched.saturating_sub(len);
    let mut cache = cache();
    let waiting: usize = cache.later.iter().map(|(_, touched)| touched).sum();
    if waiting.saturating_add(touched) <= MAX_BYTES && cache.later.try_reserve(1).is_ok() {
        cache.later.push((rest, touched));
        HAS_LATER.store(true, Ordering::Relaxed);
    } else {
        // Not while the lock is held.
        drop(cache);
        drop(rest);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::page_size;

    #[test]
    fn memory_that_is_given_back_is_used_again_elsewhere() {
        let page = page_size();
        // A length that no other test uses.
        let len = 77 * page;
        let (memory, pages) = take(len, len, page, 0).unwrap();
        assert_eq!(pages, Pages::Zeroed);
        let before = memory.address();
        // SAFETY: the test's own pages; the second is made read-only.
        unsafe {
            memory.as_ptr().write(7);
            libc::mprotect(memory.as_ptr().add(page).cast(), page, libc::PROT_READ);
        }
        recycle(memory, len, page);
        let (memory, pages) = take(len, len, page, 0).unwrap();
        assert_eq!(pages, Pages::Stale);
        assert_ne!(memory.address(), before);
        // SAFETY: as above; all of it can be read and written again.
        unsafe {
            assert_eq!(memory.as_ptr().read(), 7);
            memory.as_ptr().add(page).write(1);
            // Nothing is mapped at the old addresses.
            assert_eq!(libc::msync(before as *mut _, page, libc::MS_ASYNC), -1);
        }
        recycle(memory, len, page);
        release();
        assert_eq!(take(len, len, page, 0).unwrap().1, Pages::Zeroed);
    }

    /// As for images of machines with large pages, whose segments are apart by their size.
    #[test]
    fn memory_of_a_larger_alignment_is_used_again() {
        let page = page_size();
        let (len, align, residue) = (79 * page, 16 * page, 3 * page);
        let mut last = 0;
        for round in 0..20 {
            let (memory, pages) = take(len, len, align, residue).unwrap();
            assert_eq!(memory.address() % align, residue);
            assert!(round == 0 || pages == Pages::Stale, "round {round}");
            assert_ne!(memory.address(), last);
            last = memory.address();
            recycle(memory, len, align);
        }
    }

    #[test]
    fn memory_whose_owner_is_gone_is_not_kept() {
        let page = page_size();
        let key = Arc::new(CacheKey::default());
        let parked = |key: &Arc<CacheKey>| {
            let memory = Reservation::new(3 * page, page, 0).unwrap();
            let address = memory.address();
            park(memory, Arc::downgrade(key), &[0..page, 2 * page..3 * page]);
            address
        };
        let first = parked(&key);
        assert_eq!(take_parked(&key).map(|it| it.address()), Some(first));
        let second = parked(&key);
        forget_key(&key);
        assert!(!cache().free.iter().any(|free| free.memory.address() == second));
    }
}
