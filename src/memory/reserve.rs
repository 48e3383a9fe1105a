//! Memory from the kernel: the only file that maps and unmaps.
//!
//! Sources: `mmap(2)`, `prctl(2)` `PR_SET_VMA_ANON_NAME`.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use crate::base::addr::distance_to;
use crate::base::environment;
use crate::base::error::Error;
use crate::base::fallible::try_zeroed;
use crate::base::sync::{Guard, Lock, Rank};

/// Anonymous private memory that is unmapped when dropped.
pub(crate) struct Reservation {
    start: NonNull<u8>,
    len: usize,
}

/// What is in memory that was just reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// Zeroes, in pages that the kernel provides when they are touched. All can be read and written.
    Zeroed,
    /// Anything. What was not asked for cannot be accessed.
    Stale,
}

/// Memory that was given back, and is still there.
struct MappingCache {
    /// For whoever wants the same next; the oldest first.
    free: Vec<CachedMapping>,
    /// For the system, at the next occasion when nobody waits for it; with how much of it was touched.
    later: Vec<(Reservation, usize)>,
    /// What the system has refused to take back, for the next occasion to ask again.
    refused: Vec<Reservation>,
    /// What the system has refused to make read-only again: addresses and lengths of memory that is
    /// always there.
    writable: Vec<(usize, usize)>,
}

/// Memory for whoever wants the same next.
struct CachedMapping {
    memory: Reservation,
    /// How much of it is there for it alone, in bytes.
    own: usize,
    whose: Whose,
}

/// Who can use kept memory, and what it is like.
enum Whose {
    /// Any image that wants as much, and of that so many bytes, which can be read and written. All behind
    /// them, at least a page, cannot be accessed.
    Images { used: usize },
    /// A [`ScratchMemory`] of this length, which is filled from its first to its last byte.
    Spaces,
    /// Only who it was set up for: what it shares is in place.
    Owner(Weak<CacheKey>),
}

/// What memory was set up for: only its owner can use it again.
#[derive(Default)]
pub(crate) struct CacheKey(());

impl CachedMapping {
    fn is_for(&self, purpose: &Arc<CacheKey>) -> bool {
        matches!(&self.whose, Whose::Owner(it) if ptr::eq(it.as_ptr(), Arc::as_ptr(purpose)))
    }

    fn is_of_use(&self) -> bool {
        !matches!(&self.whose, Whose::Owner(purpose) if purpose.strong_count() == 0)
    }

    /// Keeps it for whoever wants it next; gives back what there is no room for.
    fn keep(self) {
        if self.own <= MAX_BYTES {
            let gone = kept().keep(self);
            // Not while the lock is held.
            drop(gone);
        }
    }
}

/// No memory that is dropped is dropped while this is held: it may come here.
static CACHE: Lock<MappingCache> = Lock::new(Rank::Memory, MappingCache::new());

fn kept() -> Guard<'static, MappingCache> {
    CACHE.lock()
}

/// Whether there may be something in `later`, `refused` or `writable`: so that who looks need not take
/// the lock. Written under the lock; who reads an old value leaves it to the next occasion.
static PUT_OFF: AtomicBool = AtomicBool::new(false);

/// As much memory is kept for images to come, in bytes and in pieces.
const MAX_BYTES: usize = 32 << 20;
const MAX: usize = 16;

impl MappingCache {
    const fn new() -> MappingCache {
        MappingCache {
            free: Vec::new(),
            later: Vec::new(),
            refused: Vec::new(),
            writable: Vec::new(),
        }
    }

    /// Keeps one more, and returns what there is no room for.
    fn keep(&mut self, free: CachedMapping) -> Vec<CachedMapping> {
        self.free.push(free);
        let mut gone: Vec<CachedMapping> = Vec::new();
        gone.extend(self.free.extract_if(.., |free| !free.is_of_use()));
        while self.free.len() > MAX
            || self.free.iter().map(|free| free.own).sum::<usize>() > MAX_BYTES
        {
            gone.push(self.free.remove(0));
        }
        gone
    }
}

/// Takes out what was kept last of what is wanted.
fn take(is_wanted: impl Fn(&CachedMapping) -> bool) -> Option<CachedMapping> {
    let mut kept = kept();
    let index = kept.free.iter().rposition(is_wanted)?;
    Some(kept.free.remove(index))
}

/// Addresses that are kept from being used again.
static QUARANTINE: Lock<VecDeque<Reservation>> = Lock::new(Rank::Quarantine, VecDeque::new());

fn quarantined_memory() -> Guard<'static, VecDeque<Reservation>> {
    QUARANTINE.lock()
}

/// Gives the system the memory that is kept for images to come.
///
/// memdl keeps up to 32 MiB of what unloaded images had, since memory that is there already is what
/// makes the next load of the same image, or the next instance of a template, fast. Besides, what an
/// image that stays where it was received leaves of its [`ImageBuffer`](crate::ImageBuffer) (debug
/// sections that nobody is told of), up to 32 MiB, is given back only when the next buffer is made or an
/// image is unloaded, since nobody is to wait for that.
pub fn release_memory() {
    let kept = std::mem::replace(&mut *kept(), MappingCache::new());
    drop((kept.free, kept.later, kept.refused));
    kept.writable.into_iter().for_each(|(start, len)| make_read_only(start, len));
}

/// Gives the system what was put off, and what it has refused to take before.
pub(crate) fn give_back_now() {
    if !PUT_OFF.load(Ordering::Relaxed) {
        return;
    }
    let mut kept = kept();
    PUT_OFF.store(false, Ordering::Relaxed);
    let (later, refused) = (std::mem::take(&mut kept.later), std::mem::take(&mut kept.refused));
    let writable = std::mem::take(&mut kept.writable);
    drop(kept);
    drop((later, refused));
    writable.into_iter().for_each(|(start, len)| make_read_only(start, len));
}

/// Makes memory that is always there read-only: now, or when memory is given back next, if the system
/// refuses it.
pub(crate) fn make_read_only(start: usize, len: usize) {
    // SAFETY: takes write access away only; whoever names the memory vouches that it is not needed.
    if unsafe { libc::mprotect(start as *mut _, len, libc::PROT_READ) } != 0 {
        let mut kept = kept();
        // Without memory to note it, it stays as it is.
        if kept.writable.try_reserve(1).is_ok() {
            kept.writable.push((start, len));
            PUT_OFF.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether kept memory is wiped: one of the three below.
static WIPES: AtomicU8 = AtomicU8::new(UNKNOWN);
/// Nobody has said yet.
const UNKNOWN: u8 = 0;
const KEEPS: u8 = 1;
const WIPES_IT: u8 = 2;

/// Whether memory that is kept for images to come is wiped first. Default false.
///
/// No image ever finds what another has left: memory that is used again is filled anew, and cannot be
/// accessed while nobody uses it. But until then what an unloaded image had in its data is still in the
/// process's memory, and so in a core file, and for whoever can read `/proc/PID/mem`. Where that must
/// not be (an image handles keys), true wipes what an image can write, and debug information, when it
/// is unloaded; pieces of 256 KiB and more are given back to the system, which takes less time than
/// wiping them. What is kept at the moment is given back.
///
/// It costs a small image some 1.4 microseconds for each unload, 5 % of load and unload; a large
/// one loses what is gained by using memory again. It does not concern what the image has allocated,
/// stacks, and thread-local variables, whose memory is the C library's.
///
/// The environment variable `MEMDL_WIPE=off|on` overrides it.
///
/// ```
/// memdl::wipe_kept_memory(true);
/// ```
pub fn wipe_kept_memory(wipe: bool) {
    let wipe = effective_wipe(wipe);
    WIPES.store(if wipe { WIPES_IT } else { KEEPS }, Ordering::Relaxed);
    if wipe {
        release_memory();
    }
}

fn effective_wipe(chosen: bool) -> bool {
    environment::overridden("MEMDL_WIPE", &[("off", false), ("on", true)], chosen)
}

fn wipes() -> bool {
    #[cold]
    fn find_out() -> u8 {
        let found = if effective_wipe(false) { WIPES_IT } else { KEEPS };
        // Whatever the program has said meanwhile stays.
        let known = WIPES.compare_exchange(UNKNOWN, found, Ordering::Relaxed, Ordering::Relaxed);
        known.map_or_else(|known| known, |_| found)
    }
    let known = WIPES.load(Ordering::Relaxed);
    (if known == UNKNOWN { find_out() } else { known }) == WIPES_IT
}

/// Whether `memory` may be kept: where it is to be wiped, these parts of it, which can be written, are
/// zero now. Not if that would take longer than to have new memory.
fn is_fit_to_keep(memory: &Reservation, parts: &[Range<usize>]) -> bool {
    if !wipes() {
        return true;
    }
    let most = many_pages();
    if parts.iter().any(|part| part.end > memory.len || part.len() >= most) {
        return false;
    }
    for part in parts {
        // SAFETY: inside memory that is owned, and nobody refers to; the caller says that it can be
        // written.
        unsafe { zero(memory.as_ptr().add(part.start), part.len()) };
    }
    true
}

/// Gives the system what only this owner could use.
pub(crate) fn forget_purpose(purpose: &Arc<CacheKey>) {
    let gone: Vec<CachedMapping> =
        kept().free.extract_if(.., |free| free.is_for(purpose)).collect();
    drop(gone);
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// So much memory, in bytes, may as well be had as not.
pub(crate) const TRIM_THRESHOLD: usize = 1 << 16;

/// A large page, which a system provides, protects and takes back as quickly as a few small ones.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// How much of memory that will be filled with `len` bytes is to be in large pages: all that are filled
/// to two thirds.
pub(crate) fn in_huge_pages(len: usize) -> usize {
    len.saturating_add(HUGE_PAGE / 3) & !(HUGE_PAGE - 1)
}

/// From here on it is cheaper not to have pages than to fill them with zeroes.
pub(crate) const MANY_PAGES: usize = 64;

/// So many pages in bytes.
pub(crate) fn many_pages() -> usize {
    MANY_PAGES.saturating_mul(region::page::size())
}

/// # Safety
/// `len` bytes at `start` can be written, and nobody else refers to them. They are anonymous memory.
pub(crate) unsafe fn zero(start: *mut u8, len: usize) {
    let page = region::page::size();
    let head = distance_to(0, page, start.addr());
    let Some(rest) = len.checked_sub(head).filter(|&rest| rest >= many_pages()) else {
        // SAFETY: the caller's promise.
        unsafe { ptr::write_bytes(start, 0, len) };
        return;
    };
    // What is behind the last whole page.
    let tail = rest & page.wrapping_sub(1);
    let whole = rest.wrapping_sub(tail);
    // SAFETY: as above, in three parts; the pages of private anonymous memory are zero when they come
    // back. Should the advice be refused, they are filled.
    unsafe {
        ptr::write_bytes(start, 0, head);
        let pages = start.add(head);
        if libc::madvise(pages.cast(), whole, libc::MADV_DONTNEED) != 0 {
            ptr::write_bytes(pages, 0, whole);
        }
        ptr::write_bytes(pages.add(whole), 0, tail);
    }
}

// SAFETY: a reservation is just owned memory; nothing about it is bound to a thread. What is done
// through its pointer is the business of whoever does it.
unsafe impl Send for Reservation {}
// SAFETY: as above; a shared reference gives nothing but the address and the length.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Zeroed, readable and writable memory of `len` bytes (a multiple of the page, not 0) whose
    /// start is congruent to `residue` modulo `align` (a power of two, at least a page).
    pub(crate) fn new(len: usize, align: usize, residue: usize) -> Result<Reservation, Error> {
        let too_large = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        // Memory comes page-aligned: for more than that, take enough to cut a fitting part out.
        let page = region::page::size();
        let padded = if align > page { len.checked_add(align).ok_or_else(too_large)? } else { len };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), padded, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error(format!("mmap of {padded:#x} bytes")));
        }
        let mut reservation =
            Reservation { start: NonNull::new(start.cast()).ok_or_else(too_large)?, len: padded };
        let address = reservation.start.addr().get();
        let head = distance_to(residue, align, address);
        reservation.trim(if padded == len { 0 } else { head }, len);
        Ok(reservation)
    }

    /// Keeps `len` bytes from `head` on and unmaps the rest.
    fn trim(&mut self, head: usize, len: usize) {
        let tail = self.len.saturating_sub(head).saturating_sub(len);
        // SAFETY: `head` and `len` are whole pages within the reservation, one behind the other.
        let start = unsafe { self.start.add(head) };
        // SAFETY: as above.
        let end = unsafe { start.add(len) };
        let before = Reservation { start: self.start, len: head };
        let behind = Reservation { start: end, len: tail };
        (self.start, self.len) = (start, len);
        for rest in [before, behind] {
            if rest.len == 0 { rest.forget() } else { drop(rest) }
        }
    }

    /// As [`Reservation::new`], or memory that [`Reservation::recycle`] was given: then it has bytes
    /// of its former owner in it, and its pages are there already, which is what takes the time. Of such
    /// only the first `used` bytes (a multiple of the page) can be accessed.
    pub(crate) fn taken(
        len: usize,
        used: usize,
        align: usize,
        residue: usize,
    ) -> Result<(Reservation, Pages), Error> {
        let fits = |free: &CachedMapping| {
            matches!(free.whose, Whose::Images { .. })
                && free.memory.len == len
                && distance_to(residue, align, free.memory.address()) == 0
        };
        if let Some(CachedMapping { memory, whose: Whose::Images { used: before }, .. }) =
            take(fits)
            && (used <= before || memory.protect(before..used, READ_WRITE))
            && (before <= used || memory.protect(used..before, libc::PROT_NONE))
        {
            return Ok((memory, Pages::Stale));
        }
        Ok((Reservation::new(len, align, residue)?, Pages::Zeroed))
    }

    /// Gives the memory back, or keeps it for the next image that wants as much. Either way nothing is
    /// left at its addresses. All of the image lies in the first `used` bytes (a multiple of the page).
    pub(crate) fn recycle(self, used: usize) {
        let own = self.len;
        // What the next image is spared, when somebody waits for it, is done now.
        if own <= MAX_BYTES
            && (!wipes() || self.protect(0..used, READ_WRITE))
            && is_fit_to_keep(&self, std::slice::from_ref(&(0..used)))
            && let Some(memory) = self.moved()
            && memory.protect(used..own, libc::PROT_NONE)
        {
            CachedMapping { memory, own, whose: Whose::Images { used } }.keep();
        }
    }

    /// Gives the memory back, or keeps it as it is for [`Reservation::parked`], but for the parts that
    /// are `written` (whole pages): these can be written by whoever gets it.
    ///
    /// All else is used again as it is: it must have its contents and its protection for good.
    pub(crate) fn park(self, purpose: Weak<CacheKey>, written: &[Range<usize>]) {
        let own = written.iter().map(Range::len).sum();
        // It fails where the image has taken its memory apart.
        if own <= MAX_BYTES
            && purpose.strong_count() > 0
            && written.iter().all(|part| self.protect(part.clone(), READ_WRITE))
            && is_fit_to_keep(&self, written)
        {
            CachedMapping { memory: self, own, whose: Whose::Owner(purpose) }.keep();
        }
    }

    /// Memory that was [parked](Reservation::park) for this purpose, the last first.
    pub(crate) fn parked(purpose: &Arc<CacheKey>) -> Option<Reservation> {
        take(|free| free.is_for(purpose)).map(|free| free.memory)
    }

    /// Gives a part, whole pages, this protection, a combination of `PROT_*`; whether it has it all.
    fn protect(&self, part: Range<usize>, protection: i32) -> bool {
        // SAFETY: a part of this reservation, which nobody refers to while it is with memdl.
        part.start <= part.end
            && part.end <= self.len
            && unsafe {
                let start = self.as_ptr().add(part.start);
                libc::mprotect(start.cast(), part.len(), protection) == 0
            }
    }

    /// Gives the memory, of which the first `touched` bytes are there, back when the next buffer is made
    /// or image unloaded; now, if that is much.
    fn give_back_later(self, touched: usize) {
        let mut kept = kept();
        let waiting: usize = kept.later.iter().map(|(_, touched)| touched).sum();
        if waiting.saturating_add(touched) <= MAX_BYTES && kept.later.try_reserve(1).is_ok() {
            kept.later.push((self, touched));
            PUT_OFF.store(true, Ordering::Relaxed);
        }
    }

    /// Gives the memory back, but not its addresses, lest something else come to lie there: a debugger
    /// keeps breakpoints at addresses that it was given as such, and would write an old byte into
    /// whatever comes next. The oldest such addresses are given back when there are too many.
    pub(crate) fn quarantine(self) {
        const MAX: usize = 1024;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: replaces all of an owned mapping that nobody refers to any more.
        let quarantined = unsafe {
            libc::mmap(self.start.as_ptr().cast(), self.len, libc::PROT_NONE, flags, -1, 0)
        };
        if quarantined == libc::MAP_FAILED {
            // What matters is that the addresses stay taken.
            self.empty();
        }
        let mut all = quarantined_memory();
        all.push_back(self);
        let oldest = if all.len() > MAX { all.pop_front() } else { None };
        // Not while the lock is held.
        drop(all);
        drop(oldest);
    }

    /// Takes the contents away, and all access, as far as the system does that.
    fn empty(&self) {
        // SAFETY: all of an owned mapping that nobody refers to any more.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
        self.protect(0..self.len, libc::PROT_NONE);
    }

    /// The same pages at other addresses, where they can be read and written; `None`, with the pages gone,
    /// if the system does not do that.
    ///
    /// The kernel chooses the place. Were the pages to take that of a mapping made for them, a move that
    /// is refused half-way (where an image has changed its memory) might leave a hole there, for another
    /// thread's mapping.
    fn moved(self) -> Option<Reservation> {
        let len = self.len;
        // Large pages can be moved as such to where they fit: a wish, which the kernel grants if it can.
        let wish = if len >= HUGE_PAGE { self.similar_place()? } else { 0 };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        // Made all of one protection it is one mapping again. If it is not, `mremap` refuses. It is the
        // one that the next image wants: each change goes through all pages that are there.
        if !self.protect(0..len, READ_WRITE) {
            return None;
        }
        // SAFETY: this reservation is owned, and nobody refers into it any more. Its pages go to where
        // nothing was; it stays, without any, and is given back here.
        let start = unsafe {
            let wish = ptr::without_provenance_mut::<libc::c_void>(wish);
            libc::mremap(self.start.as_ptr().cast(), len, len, flags, wish)
        };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => {
                Some(Reservation { start, len })
            }
            _ => None,
        }
    }

    /// An address where as much memory could be now, in the same place of a large page.
    fn similar_place(&self) -> Option<usize> {
        let free =
            Reservation::new(self.len.checked_add(HUGE_PAGE)?, region::page::size(), 0).ok()?;
        free.address().checked_add(distance_to(self.address(), HUGE_PAGE, free.address()))
    }

    /// Its pages are elsewhere: nothing is mapped at its addresses any more, or something of others'.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }

    /// Makes the last page inaccessible: a guard.
    pub(crate) fn close_last_page(&self) -> Result<(), Error> {
        self.protect_last_page(libc::PROT_NONE)
    }

    /// Makes the last page readable and writable.
    pub(crate) fn open_last_page(&self) -> Result<(), Error> {
        self.protect_last_page(READ_WRITE)
    }

    fn protect_last_page(&self, protection: i32) -> Result<(), Error> {
        let start = self.len.saturating_sub(region::page::size());
        if self.protect(start..self.len, protection) {
            return Ok(());
        }
        Err(Error::last_os_error("mprotect of a guard page"))
    }

    /// Makes it longer, moving it where it must; what is added is zeroed.
    pub(crate) fn grow(&mut self, len: usize) -> Result<(), Error> {
        // SAFETY: the whole of an owned mapping, which nobody refers into while it is borrowed
        // mutably; the kernel keeps its pages.
        let start = unsafe {
            libc::mremap(self.start.as_ptr().cast(), self.len, len, libc::MREMAP_MAYMOVE)
        };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => {
                (self.start, self.len) = (start, len);
                Ok(())
            }
            _ => Err(Error::last_os_error(format!("mremap to {len:#x} bytes"))),
        }
    }

    /// Asks for large pages in this part, whole pages. A system that has none says so to nobody.
    pub(crate) fn advise_huge(&self, part: Range<usize>) {
        if part.start < part.end && part.end <= self.len {
            // SAFETY: a part of this reservation; the advice changes no contents.
            unsafe {
                let start = self.start.as_ptr().add(part.start);
                libc::madvise(start.cast(), part.len(), libc::MADV_HUGEPAGE);
            }
        }
    }

    /// Has the kernel provide the pages of this part, whole pages, all at once: met one by one, the page
    /// faults take longer than filling them. A kernel before 5.14 does not know the advice, and then
    /// they come one by one.
    pub(crate) fn populate(&self, part: Range<usize>) {
        if part.start < part.end && part.end <= self.len {
            // SAFETY: a part of this reservation, in which zero pages appear where there would be zero
            // pages.
            unsafe {
                let start = self.start.as_ptr().add(part.start);
                libc::madvise(start.cast(), part.len(), libc::MADV_POPULATE_WRITE);
            }
        }
    }

    /// Makes do with `len` bytes, a multiple of the page, of which there are `touched`: gives back what
    /// is behind, soon, unless that is so little that it may as well stay. Whether it has done so.
    ///
    /// # Safety
    /// Nobody refers to that part.
    pub(crate) unsafe fn shrink(&mut self, len: usize, touched: usize) -> bool {
        let Some(behind) = self.len.checked_sub(len).filter(|&behind| behind > TRIM_THRESHOLD)
        else {
            return false;
        };
        // SAFETY: inside the mapping.
        let start = unsafe { self.start.add(len) };
        let rest = Reservation { start, len: behind };
        self.len = len;
        rest.give_back_later(touched.saturating_sub(len));
        true
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Where it starts.
    pub(crate) fn address(&self) -> usize {
        self.start.addr().get()
    }

    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Gives the memory a name in `/proc/self/maps`, where the kernel can do that.
    pub(crate) fn set_name(&self, name: &str) {
        /// The kernel has no names for memory.
        static UNKNOWN: AtomicBool = AtomicBool::new(false);
        if UNKNOWN.load(Ordering::Relaxed) {
            return;
        }
        let Ok(name) = CString::new(printable(name)) else { return };
        let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: the range is this reservation's and the name a C string, which the kernel copies.
        // A kernel without the feature says EINVAL, and the name is only a convenience.
        let result = unsafe { libc::prctl(option, what, self.address(), self.len, name.as_ptr()) };
        if result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            UNKNOWN.store(true, Ordering::Relaxed);
        }
    }

    /// Takes the name away that it may have from its former owner.
    pub(crate) fn clear_name(&self) {
        let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: as above; without a name the memory has none.
        unsafe { libc::prctl(option, what, self.address(), self.len, ptr::null::<u8>()) };
    }
}

/// As much of a name as the kernel takes: up to 79 bytes, printable and without a few.
fn printable(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '`' | '$' | '[' | ']');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(79).collect()
}

/// Memory to be filled, with anything in it.
pub(crate) enum ScratchMemory {
    /// Of the allocator's.
    Small(Vec<u8>),
    /// So many bytes of memory that whoever wants as much gets next.
    Large(ManuallyDrop<Reservation>, usize),
}

impl ScratchMemory {
    /// `len` bytes.
    pub(crate) fn new(len: usize) -> Result<ScratchMemory, Error> {
        /// From here on it is the pages that take the time.
        const FROM: usize = 1 << 16;
        if len < FROM {
            return Ok(ScratchMemory::Small(try_zeroed(len)?));
        }
        let page = region::page::size();
        let too_large = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        let rounded = len.checked_next_multiple_of(page).ok_or_else(too_large)?;
        let huge = in_huge_pages(rounded).min(rounded);
        let align = if huge > 0 { HUGE_PAGE } else { page };
        let fits = |free: &CachedMapping| {
            matches!(free.whose, Whose::Spaces) && free.memory.len == rounded
        };
        let memory = match take(fits) {
            Some(free) => free.memory,
            None => {
                let memory = Reservation::new(rounded, align, 0)?;
                memory.advise_huge(0..huge);
                memory.populate(0..rounded);
                memory
            }
        };
        Ok(ScratchMemory::Large(ManuallyDrop::new(memory), len))
    }
}

impl Deref for ScratchMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ScratchMemory::Small(bytes) => bytes,
            // SAFETY: so many bytes of memory of ours, zero or written before, changed only through
            // `&mut self`.
            ScratchMemory::Large(memory, len) => unsafe {
                std::slice::from_raw_parts(memory.as_ptr(), *len)
            },
        }
    }
}

impl DerefMut for ScratchMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            ScratchMemory::Small(bytes) => bytes,
            // SAFETY: as above, and nobody else looks.
            ScratchMemory::Large(memory, len) => unsafe {
                std::slice::from_raw_parts_mut(memory.as_ptr(), *len)
            },
        }
    }
}

impl Drop for ScratchMemory {
    fn drop(&mut self) {
        if let ScratchMemory::Large(memory, _) = self {
            // SAFETY: taken once, here.
            let memory = unsafe { ManuallyDrop::take(memory) };
            let own = memory.len;
            if is_fit_to_keep(&memory, std::slice::from_ref(&(0..own))) {
                CachedMapping { memory, own, whose: Whose::Spaces }.keep();
            }
        }
    }
}

/// Anonymous memory whose pages can be at several places at once. Read-only once it is filled.
pub(crate) struct SharedPages(Reservation);

impl SharedPages {
    /// `len` bytes (a multiple of the page, not 0), zeroed, then filled by `fill`, which writes to all
    /// of `parts` (whole pages).
    pub(crate) fn filled(
        len: usize,
        parts: impl IntoIterator<Item = Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<SharedPages, Error> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error(format!("mmap of {len:#x} shared bytes")));
        }
        let start = NonNull::new(start.cast())
            .ok_or_else(|| Error::system("mmap", io::ErrorKind::OutOfMemory.into()))?;
        let memory = Reservation { start, len };
        parts.into_iter().for_each(|part| memory.populate(part));
        // SAFETY: `len` bytes that were just mapped, zeroed, and are known to nobody else.
        fill(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) });
        // What is mapped once more has the protection of this.
        if !memory.protect(0..len, libc::PROT_READ) {
            return Err(Error::last_os_error(format!("mprotect of {len:#x} shared bytes")));
        }
        Ok(SharedPages(memory))
    }

    /// Maps these pages over a part of `target`, readable.
    ///
    /// # Safety
    /// `target` has as much from `at` on, whole pages, that nobody refers to.
    pub(crate) unsafe fn map_over(&self, target: &Reservation, at: usize) -> Result<(), Error> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: an old length of 0 leaves the shared pages where they are and maps them once more,
        // over a part of `target` that the caller vouches for. They are one mapping, so that nothing is
        // refused once that part is gone.
        let mapped = unsafe {
            let place = target.as_ptr().add(at);
            libc::mremap(self.0.as_ptr().cast(), 0, self.0.len(), flags, place)
        };
        if mapped == libc::MAP_FAILED {
            return Err(Error::last_os_error("mremap of shared memory"));
        }
        Ok(())
    }
}

/// Pages that many have in common, but for some that each has for itself.
pub(crate) struct CowImage {
    pages: SharedPages,
    /// Whole pages, ascending, none overlapping another.
    own: Arc<[Range<usize>]>,
    /// What memory is kept for that has these pages in place.
    purpose: Arc<CacheKey>,
}

impl CowImage {
    /// Of pages of which everybody will have these ranges (whole pages, ascending, none overlapping
    /// another) for himself.
    pub(crate) fn new(pages: SharedPages, own: Vec<Range<usize>>) -> CowImage {
        CowImage { pages, own: own.into(), purpose: Arc::default() }
    }

    /// Memory of the same length and contents, of which the own ranges can be written, and all the rest
    /// is these very pages.
    pub(crate) fn view(&self) -> Result<CowView, Error> {
        let memory = match Reservation::parked(&self.purpose) {
            Some(memory) => memory,
            None => self.map()?,
        };
        for range in &*self.own {
            // SAFETY: the range is inside both, where `memory` is writable and known to nobody else.
            unsafe {
                ptr::copy_nonoverlapping(
                    self.pages.0.as_ptr().add(range.start),
                    memory.as_ptr().add(range.start),
                    range.len(),
                );
            }
        }
        let (own, purpose) = (self.own.clone(), Arc::downgrade(&self.purpose));
        Ok(CowView { memory: ManuallyDrop::new(memory), own, purpose })
    }

    /// New memory with these pages in place, but for what is everybody's own.
    fn map(&self) -> Result<Reservation, Error> {
        let len = self.pages.0.len();
        let memory = Reservation::new(len, region::page::size(), 0)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let mut shared = 0;
        for range in self.own.iter().chain([&(len..len)]) {
            assert!(shared <= range.start && range.start <= range.end && range.end <= len);
            if shared < range.start {
                // SAFETY: an old length of 0 leaves the shared pages where they are and maps them
                // once more, over a part of `memory`, which nobody else knows yet.
                let mapped = unsafe {
                    libc::mremap(
                        self.pages.0.as_ptr().add(shared).cast(),
                        0,
                        (shared..range.start).len(),
                        flags,
                        memory.as_ptr().add(shared),
                    )
                };
                if mapped == libc::MAP_FAILED {
                    return Err(Error::last_os_error("mremap of shared memory"));
                }
            }
            memory.populate(range.clone());
            shared = range.end;
        }
        Ok(memory)
    }
}

impl Deref for CowImage {
    type Target = [u8];

    /// The common contents.
    fn deref(&self) -> &[u8] {
        &self.pages
    }
}

impl Drop for CowImage {
    fn drop(&mut self) {
        forget_purpose(&self.purpose);
    }
}

/// What [`CowImage::view`] gives.
pub(crate) struct CowView {
    memory: ManuallyDrop<Reservation>,
    /// What can be written.
    own: Arc<[Range<usize>]>,
    purpose: Weak<CacheKey>,
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
        if self.purpose.strong_count() > 0 {
            let own = self.own.iter().map(Range::len).sum();
            if is_fit_to_keep(&memory, &self.own) {
                CachedMapping { memory, own, whose: Whose::Owner(self.purpose.clone()) }.keep();
            }
        }
    }
}

impl Deref for SharedPages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self` is, filled, and written by nobody since.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is owned by `self`, which is going away.
        if unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) } != 0 {
            self.refused();
        }
    }
}

impl Reservation {
    /// The system does not take the memory back: it may have as many mappings as it can have, and would
    /// have to cut one in two. Nothing is left in it, and the next occasion asks again.
    #[cold]
    fn refused(&self) {
        let Reservation { start, len } = *self;
        self.empty();
        let mut kept = kept();
        // Without memory to note it, the addresses are lost.
        if kept.refused.try_reserve(1).is_ok() {
            kept.refused.push(Reservation { start, len });
            PUT_OFF.store(true, Ordering::Relaxed);
        }
    }
}

/// A library's file, to look into without reading all of it. Whoever cuts it short meanwhile ends
/// this process, as with `ld.so`.
pub(crate) struct MappedFile {
    memory: Reservation,
}

impl MappedFile {
    /// The file at this path.
    pub(crate) fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // SAFETY: a fresh mapping of an open file, at an address of the kernel's choice, touches
        // nothing that exists. (One of 0 bytes is refused.)
        let start = unsafe {
            let (access, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
            libc::mmap(ptr::null_mut(), len, access, flags, file.as_raw_fd(), 0)
        };
        match NonNull::new(start.cast()) {
            Some(first) if start != libc::MAP_FAILED => {
                Ok(MappedFile { memory: Reservation { start: first, len } })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of the mapping, which `self` owns and nobody here writes to. It is
        // a library of the system's, which nobody changes in place: whatever runs from it would
        // change as well.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.memory.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_its_own_pages_where_it_is_to_and_the_same_pages_elsewhere() {
        let page = region::page::size();
        let pages = SharedPages::filled(6 * page, None, |bytes| {
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / page) as u8 + 1);
        })
        .unwrap();
        let views = CowImage::new(pages, vec![0..page, 3 * page..4 * page]);
        let [mut a, mut b] = [(); 2].map(|()| views.view().unwrap());
        a.get_mut(3 * page..3 * page + 1).unwrap().fill(77);
        assert_eq!(b[..], views[..]);
        let mut expected = views.to_vec();
        expected[3 * page] = 77;
        assert_eq!(a[..], expected);
        for not_own in [page..page + 1, 4 * page - 1..4 * page + 1] {
            assert_eq!(b.get_mut(not_own), None);
        }
        // What is given back is the next, and says nothing of what was written to it.
        let before = a.as_ptr();
        drop(a);
        let mut again = views.view().unwrap();
        assert_eq!((again.as_ptr(), &again[..]), (before, &views[..]));
        again.get_mut(0..page).unwrap().fill(78);
        drop(again);
        drop(views);
        assert_eq!(b[5 * page], 6);
        assert!(!kept().free.iter().any(|free| free.memory.as_ptr().cast_const() == before));
    }

    #[test]
    fn memory_that_is_given_back_is_used_again_elsewhere() {
        let page = region::page::size();
        // As much as no other test wants.
        let len = 77 * page;
        let (memory, pages) = Reservation::taken(len, len, page, 0).unwrap();
        assert_eq!(pages, Pages::Zeroed);
        let before = memory.address();
        // SAFETY: the test's own pages; the second is made one that cannot be written.
        unsafe {
            memory.as_ptr().write(7);
            libc::mprotect(memory.as_ptr().add(page).cast(), page, libc::PROT_READ);
        }
        memory.recycle(len);
        let (memory, pages) = Reservation::taken(len, len, page, 0).unwrap();
        assert_eq!(pages, Pages::Stale);
        assert_ne!(memory.address(), before);
        // SAFETY: as above; all of it can be read and written again.
        unsafe {
            assert_eq!(memory.as_ptr().read(), 7);
            memory.as_ptr().add(page).write(1);
            // Nothing is mapped at the old addresses.
            assert_eq!(libc::msync(before as *mut _, page, libc::MS_ASYNC), -1);
        }
        memory.recycle(len);
        release_memory();
        assert_eq!(Reservation::taken(len, len, page, 0).unwrap().1, Pages::Zeroed);
    }

    #[test]
    fn addresses_that_are_vacated_are_not_given_to_others() {
        let page = region::page::size();
        let memory = Reservation::new(3 * page, page, 0).unwrap();
        let before = memory.address();
        memory.quarantine();
        // SAFETY: maps nothing where there is something.
        let others = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            libc::mmap(before as *mut _, page, libc::PROT_READ, flags, -1, 0)
        };
        assert_eq!(others, libc::MAP_FAILED);
    }

    #[test]
    fn memory_that_grows_keeps_its_contents() {
        let page = region::page::size();
        let mut memory = Reservation::new(page, page, 0).unwrap();
        // SAFETY: the test's own memory.
        unsafe { memory.as_ptr().add(5).write(5) };
        memory.grow(1000 * page).unwrap();
        // SAFETY: as above, and so long.
        unsafe {
            assert_eq!(memory.as_ptr().add(5).read(), 5);
            assert_eq!(memory.as_ptr().add(999 * page).read(), 0);
        }
    }

    #[test]
    fn the_kernel_takes_every_name() {
        assert_eq!(printable("memdl:lib$[x] \u{e9}.so"), "memdl:lib__x___.so");
        assert_eq!(printable(&"x".repeat(200)).len(), 79);
    }
}
