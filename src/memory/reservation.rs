//! A mapping that memdl owns: made, cut, protected, moved, named, and unmapped when it is dropped.
//!
//! Knows nothing of images, and keeps nothing for later use: [`crate::memory::cache`] does.
//!
//! Sources: `mmap(2)`, `mremap(2)`, `mprotect(2)`, `madvise(2)`, `prctl(2)` `PR_SET_VMA_ANON_NAME`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::addr::{distance_to, page_size};
use crate::base::error::Error;
use crate::memory::retry;

/// Memory that is unmapped when dropped: anonymous and private, unless its constructor says otherwise.
pub(crate) struct Reservation {
    start: NonNull<u8>,
    len: usize,
}

pub(super) const NO_ACCESS: i32 = libc::PROT_NONE;
pub(super) const READ: i32 = libc::PROT_READ;
pub(super) const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
pub(super) const READ_EXECUTE: i32 = libc::PROT_READ | libc::PROT_EXEC;

/// The size of a large page. The system provides, protects and unmaps one as quickly as a few small pages.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// The part of `len` bytes, from the start on, that large pages should hold: every large page of which
/// two thirds are filled.
pub(crate) fn in_huge_pages(len: usize) -> usize {
    len.saturating_add(HUGE_PAGE / 3) & !(HUGE_PAGE - 1)
}

/// From this many pages on, `MADV_DONTNEED` is faster than `memset`.
pub(crate) const MANY_PAGES: usize = 64;

/// [`MANY_PAGES`] in bytes.
pub(crate) fn many_pages() -> usize {
    MANY_PAGES.saturating_mul(page_size())
}

/// The system has refused to map pages a second time.
static CANNOT_SHARE: AtomicBool = AtomicBool::new(false);

/// It has done so once.
static HAS_SHARED: AtomicBool = AtomicBool::new(false);

/// Whether pages are mapped a second time, as far as is known. valgrind 3.19 does not pass such a call to the
/// kernel, nor does qemu-user 7.2.
pub(super) fn can_share() -> bool {
    !CANNOT_SHARE.load(Ordering::Relaxed)
}

/// Zeroes `len` bytes at `start`.
///
/// # Safety
/// The bytes are anonymous memory that can be written, and nothing else refers to them.
pub(crate) unsafe fn zero(start: *mut u8, len: usize) {
    let page = page_size();
    let head = distance_to(0, page, start.addr());
    let Some(rest) = len.checked_sub(head).filter(|&rest| rest >= many_pages()) else {
        // SAFETY: the caller's promise.
        unsafe { ptr::write_bytes(start, 0, len) };
        return;
    };
    // The bytes behind the last whole page.
    let tail = rest & page.wrapping_sub(1);
    let whole = rest.wrapping_sub(tail);
    // SAFETY: the caller's promise, for three adjacent parts. The pages of private anonymous memory are
    // zero when they are touched again. If the kernel refuses the advice, they are filled.
    unsafe {
        ptr::write_bytes(start, 0, head);
        let pages = start.add(head);
        if libc::madvise(pages.cast(), whole, libc::MADV_DONTNEED) != 0 {
            ptr::write_bytes(pages, 0, whole);
        }
        ptr::write_bytes(pages.add(whole), 0, tail);
    }
}

/// Fills pages with zeroes. Pages that are zero are not written, so untouched pages take no memory.
///
/// # Safety
/// `len` bytes at `start`, whole pages, are writable, and nothing else refers to them.
pub(crate) unsafe fn zero_touched(start: *mut u8, len: usize, page: usize) {
    for offset in (0..len).step_by(page) {
        // SAFETY: the caller's promise.
        unsafe {
            let start = start.add(offset);
            if !is_zero(std::slice::from_raw_parts(start, page)) {
                ptr::write_bytes(start, 0, page);
            }
        }
    }
}

/// Whether `len` bytes of memory are these, and zeroes behind them.
///
/// # Safety
/// The memory can be read, and nothing writes to it.
pub(super) unsafe fn is_same(start: usize, len: usize, bytes: &[u8]) -> bool {
    // SAFETY: the caller's promise.
    let memory = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
    memory
        .split_at_checked(bytes.len())
        .is_some_and(|(filled, rest)| filled == bytes && rest.iter().all(|&byte| byte == 0))
}

/// Gives whole pages this protection, a combination of `PROT_*`.
///
/// # Safety
/// They are mapped, and nothing needs access that this takes away, nor relies on its being refused.
pub(super) unsafe fn protect(start: usize, len: usize, protection: i32) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    match unsafe { libc::mprotect(ptr::without_provenance_mut(start), len, protection) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error(format!("mprotect of {len:#x} bytes"))),
    }
}

/// Whether all bytes of a page are zero.
pub(crate) fn is_zero(page: &[u8]) -> bool {
    static ZEROES: [u8; 4096] = [0; 4096];
    page.chunks(ZEROES.len()).all(|part| ZEROES.starts_with(part))
}

// SAFETY: a reservation is owned memory, bound to no thread. Each use of its pointer has its own proof.
unsafe impl Send for Reservation {}
// SAFETY: as above; a shared reference gives only the address, the length, and changes of protection.
unsafe impl Sync for Reservation {}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the mapping is owned by `self`, which nothing uses any more.
        if unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) } != 0 {
            self.refused();
        }
    }
}

impl Reservation {
    /// Zeroed, readable and writable memory of `len` bytes (a multiple of the page, not 0) whose
    /// start is congruent to `residue` modulo `align` (a power of two, at least a page).
    pub(crate) fn new(len: usize, align: usize, residue: usize) -> Result<Reservation, Error> {
        Reservation::with_protection(len, align, residue, READ_WRITE)
    }

    /// As [`Reservation::new`], with this protection, a combination of `PROT_*`.
    pub(super) fn with_protection(
        len: usize,
        align: usize,
        residue: usize,
        protection: i32,
    ) -> Result<Reservation, Error> {
        let too_large = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        // The kernel aligns to a page. For more than that, map enough to cut an aligned part out.
        let page = page_size();
        let padded = if align > page { len.checked_add(align).ok_or_else(too_large)? } else { len };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mut reservation = Reservation::map(padded, protection, flags, -1)
            .map_err(|error| Error::system(format!("mmap of {padded:#x} bytes"), error))?;
        let address = reservation.start.addr().get();
        let head = distance_to(residue, align, address);
        reservation.trim(if padded == len { 0 } else { head }, len);
        Ok(reservation)
    }

    /// Zeroed memory of pages that can be mapped at several addresses at once, with this protection.
    pub(super) fn shared(len: usize, protection: i32) -> Result<Reservation, Error> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Reservation::map(len, protection, flags, -1)
            .map_err(|error| Error::system(format!("mmap of {len:#x} shared bytes"), error))
    }

    /// The first `len` bytes of a file, with this protection. The kernel refuses a length of 0.
    pub(super) fn of_file(file: &File, len: usize, protection: i32) -> io::Result<Reservation> {
        Reservation::map(len, protection, libc::MAP_PRIVATE, file.as_raw_fd())
    }

    fn map(len: usize, protection: i32, flags: i32, file: i32) -> io::Result<Reservation> {
        // SAFETY: a new mapping at an address of the kernel's choice changes nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file, 0) };
        match NonNull::new(start.cast()) {
            Some(first) if start != libc::MAP_FAILED => Ok(Reservation { start: first, len }),
            _ => Err(io::Error::last_os_error()),
        }
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

    /// Cuts off the memory behind the first `len` bytes (a multiple of the page), if there are more than
    /// `at_least` bytes of it.
    pub(super) fn split_off(&mut self, len: usize, at_least: usize) -> Option<Reservation> {
        let behind = self.len.checked_sub(len).filter(|&behind| behind > at_least)?;
        // SAFETY: inside the mapping.
        let start = unsafe { self.start.add(len) };
        self.len = len;
        Some(Reservation { start, len: behind })
    }

    /// `munmap` has failed: the process has as many mappings as it can have, and this call would have cut
    /// one in two. The contents go now, the addresses when it is tried again.
    #[cold]
    fn refused(&self) {
        self.empty();
        // SAFETY: `self` is being dropped, and the addresses stay mapped.
        unsafe { retry::unmap_later(self.address(), self.len) };
    }

    /// Drops the contents, and takes all access away, as far as the system permits.
    pub(super) fn empty(&self) {
        // SAFETY: all of an owned mapping that nothing refers to any more.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
        self.protect(0..self.len, libc::PROT_NONE);
    }

    /// Takes all access away. The contents stay. False if the system refused.
    pub(super) fn close(&self) -> bool {
        self.protect(0..self.len, libc::PROT_NONE)
    }

    /// Replaces the mapping by one without contents and access. Its addresses stay taken.
    pub(crate) fn blank(&self) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: replaces all of an owned mapping that nothing refers to any more.
        let blank = unsafe {
            libc::mmap(self.start.as_ptr().cast(), self.len, libc::PROT_NONE, flags, -1, 0)
        };
        if blank == libc::MAP_FAILED {
            self.empty();
        }
    }

    /// Replaces a part, whole pages, by zeroed memory with this protection. False if the part is not inside, or if
    /// the system refused.
    ///
    /// # Safety
    /// Nothing refers to the part.
    pub(super) unsafe fn renew(&self, part: Range<usize>, protection: i32) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: a part of this reservation; the rest is the caller's promise.
        part.start <= part.end
            && part.end <= self.len
            && unsafe {
                let start = self.as_ptr().add(part.start);
                libc::mmap(start.cast(), part.len(), protection, flags, -1, 0) != libc::MAP_FAILED
            }
    }

    /// Replaces a part, whole pages, by pages of a file, from `offset` on, with this protection. Writes to them, as
    /// a debugger's, stay in this process.
    ///
    /// # Safety
    /// The part is inside, and nothing refers to it.
    pub(super) unsafe fn map_file_over(
        &self,
        part: Range<usize>,
        file: &File,
        offset: usize,
        protection: i32,
    ) -> io::Result<()> {
        let offset = offset.try_into().map_err(io::Error::other)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: a part of this reservation; the rest is the caller's promise.
        let mapped = unsafe {
            let start = self.as_ptr().add(part.start);
            libc::mmap(start.cast(), part.len(), protection, flags, file.as_raw_fd(), offset)
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives a part, whole pages, this protection, a combination of `PROT_*`. False if the part is not
    /// inside, or if the system refused.
    pub(super) fn protect(&self, part: Range<usize>, protection: i32) -> bool {
        if part.is_empty() {
            return part.end <= self.len;
        }
        // SAFETY: a part of this reservation, which nothing refers to while memdl works on it.
        part.end <= self.len
            && unsafe { protect(self.address().saturating_add(part.start), part.len(), protection) }
                .is_ok()
    }

    /// The same pages at other addresses, readable and writable, which are the same modulo `align` (a power of two) if
    /// the kernel can do it. `None`, with the pages dropped, if the system refuses.
    ///
    /// The kernel chooses the address. Moving onto a mapping made for the pages would be unsafe: a move that
    /// fails half-way (the image may have changed its memory) can leave a hole there, which another
    /// thread's mapping may fill.
    pub(super) fn moved(self, align: usize) -> Option<Reservation> {
        let len = self.len;
        // Large pages move as such to an address with the same offset in a large page. This is a hint; the
        // kernel follows it if it can.
        let align = if len >= HUGE_PAGE { align.max(HUGE_PAGE) } else { align };
        let hint = if align > page_size() { self.similar_place(align)? } else { 0 };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        // With one protection it is one mapping again; `mremap` refuses several. It is the protection that
        // the next image needs, since each change goes through all pages that are mapped.
        if !self.protect(0..len, READ_WRITE) {
            return None;
        }
        // SAFETY: this reservation is owned, and nothing refers into it any more. Its pages move to
        // addresses where nothing was. The old mapping stays, without pages, and is dropped here.
        let start = unsafe {
            let hint = ptr::without_provenance_mut::<libc::c_void>(hint);
            libc::mremap(self.start.as_ptr().cast(), len, len, flags, hint)
        };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => {
                Some(Reservation { start, len })
            }
            _ => None,
        }
    }

    /// An address that was free a moment ago, with this one's length behind it, and the same as this one's modulo
    /// `align`.
    fn similar_place(&self, align: usize) -> Option<usize> {
        let free = Reservation::new(self.len.checked_add(align)?, page_size(), 0).ok()?;
        free.address().checked_add(distance_to(self.address(), align, free.address()))
    }

    /// Ends the ownership without unmapping: another mapping is at these addresses, or none, or one that
    /// cannot be unmapped.
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
        let start = self.len.saturating_sub(page_size());
        if self.protect(start..self.len, protection) {
            return Ok(());
        }
        Err(Error::last_os_error("mprotect of a guard page"))
    }

    /// Makes it longer. It may move; the added memory is zero.
    pub(crate) fn grow(&mut self, len: usize) -> Result<(), Error> {
        // SAFETY: the whole of an owned mapping, which nothing refers into while it is borrowed
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

    /// Moves all of it over memory at `target`, which it replaces at once, with its contents and protection.
    ///
    /// # Safety
    /// As much memory there, whole pages, has an owner, and what refers to it expects these contents. `self` is
    /// one mapping.
    pub(super) unsafe fn move_over(self, target: *mut u8) -> Result<(), Error> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: `self` is owned, and nothing refers to it; the rest is the caller's promise.
        let moved =
            unsafe { libc::mremap(self.as_ptr().cast(), self.len, self.len, flags, target) };
        if moved == libc::MAP_FAILED {
            return Err(Error::last_os_error("mremap of an image's pages"));
        }
        self.forget();
        Ok(())
    }

    /// The pages of shared memory mapped once more, with the same protection.
    pub(super) fn mapped_again(&self) -> Result<Reservation, Error> {
        // SAFETY: with an old length of 0 shared pages stay where they are and are mapped once more, at an
        // address of the kernel's choice. It refuses that of private memory.
        let start =
            unsafe { libc::mremap(self.as_ptr().cast(), 0, self.len, libc::MREMAP_MAYMOVE) };
        match NonNull::new(start.cast()) {
            Some(first) if start != libc::MAP_FAILED => {
                Ok(Reservation { start: first, len: self.len })
            }
            _ => Err(Error::last_os_error("mremap of shared memory")),
        }
    }

    /// Maps a part of these pages once more, over `target` from `at` on. Both see the same contents. Where the
    /// system maps no pages a second time ([`can_share`]), copies them.
    ///
    /// # Safety
    /// `self` is shared memory, `part` is whole pages of one mapping in it, and nothing refers to the
    /// part of `target`, which is inside it and can be written.
    pub(super) unsafe fn map_again_over(
        &self,
        part: Range<usize>,
        target: &Reservation,
        at: usize,
    ) -> Result<(), Error> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: with an old length of 0 shared pages stay where they are and are mapped once more,
        // over a part of `target` that the caller vouches for. The pages are one mapping, so the kernel
        // refuses nothing once it has unmapped that part.
        let mapped = unsafe {
            let source = self.as_ptr().add(part.start);
            libc::mremap(source.cast(), 0, part.len(), flags, target.as_ptr().add(at))
        };
        if mapped != libc::MAP_FAILED {
            if !HAS_SHARED.load(Ordering::Relaxed) {
                HAS_SHARED.store(true, Ordering::Relaxed);
            }
            return Ok(());
        }
        let error = io::Error::last_os_error();
        let is_refusal = match error.raw_os_error() {
            // The kernel's own reasons do not apply: all is whole pages, nothing overlaps, and the memory is shared.
            Some(libc::EINVAL) => true,
            // The kernel may lack room for a mapping. qemu-user says so, too, of the old length.
            Some(libc::ENOMEM) => {
                let has_room = || Reservation::new(part.len(), page_size(), 0).is_ok();
                !HAS_SHARED.load(Ordering::Relaxed) && has_room()
            }
            _ => false,
        };
        if !is_refusal {
            return Err(Error::system("mremap of shared memory", error));
        }
        CANNOT_SHARE.store(true, Ordering::Relaxed);
        // SAFETY: both parts are inside, and the caller vouches for that of `target`.
        unsafe {
            let source = self.as_ptr().add(part.start);
            ptr::copy_nonoverlapping(source, target.as_ptr().add(at), part.len());
        }
        Ok(())
    }

    /// Asks for large pages in this part, whole pages. A system without them ignores it.
    pub(crate) fn advise_huge(&self, part: Range<usize>) {
        if part.start < part.end && part.end <= self.len {
            // SAFETY: a part of this reservation; the advice changes no contents.
            unsafe {
                let start = self.start.as_ptr().add(part.start);
                libc::madvise(start.cast(), part.len(), libc::MADV_HUGEPAGE);
            }
        }
    }

    /// Lets children of `fork` have this memory, if it was hidden from them (`MADV_DONTFORK`).
    pub(super) fn give_to_children(&self) {
        // SAFETY: all of this reservation; the advice changes no contents.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DOFORK) };
    }

    /// Makes the kernel provide all pages of this part, whole pages, in one call. One by one, the page
    /// faults take longer than filling the pages. A kernel before 5.14 refuses the advice, and provides
    /// them one by one.
    pub(crate) fn populate(&self, part: Range<usize>) {
        if part.start < part.end && part.end <= self.len {
            // SAFETY: a part of this reservation. The advice provides pages, and changes no contents.
            unsafe {
                let start = self.start.as_ptr().add(part.start);
                libc::madvise(start.cast(), part.len(), libc::MADV_POPULATE_WRITE);
            }
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start.addr().get()
    }

    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Names the memory of an image in `/proc/self/maps`, if the kernel supports names.
    pub(crate) fn set_name(&self, image: &str) {
        /// The kernel does not support names.
        static UNSUPPORTED: AtomicBool = AtomicBool::new(false);
        if UNSUPPORTED.load(Ordering::Relaxed) {
            return;
        }
        let name = memory_name(image);
        let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: the range is this reservation's, and the name a C string, which the kernel copies.
        // A kernel without the feature returns EINVAL; a name is only a convenience.
        let result = unsafe { libc::prctl(option, what, self.address(), self.len, name.as_ptr()) };
        if result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            UNSUPPORTED.store(true, Ordering::Relaxed);
        }
    }

    /// Removes the name that a former owner may have set.
    pub(crate) fn clear_name(&self) {
        let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: as above; a null pointer removes the name.
        unsafe { libc::prctl(option, what, self.address(), self.len, ptr::null::<u8>()) };
    }
}

/// The name of an image's memory in the form that the kernel accepts: up to 79 printable bytes, without a few
/// punctuation marks, and a zero.
fn memory_name(image: &str) -> [u8; 80] {
    let allowed = |c: &char| c.is_ascii_graphic() && !matches!(c, '\\' | '`' | '$' | '[' | ']');
    let printable = |c: char| Some(c).filter(allowed).map_or(b'_', |c| c as u8);
    let mut name = [0; 80];
    for (place, byte) in
        name.iter_mut().take(79).zip("memdl:".bytes().chain(image.chars().map(printable)))
    {
        *place = byte;
    }
    name
}

/// Whether something is mapped at this address, a multiple of the page.
#[cfg(test)]
pub(super) fn is_taken(address: usize) -> bool {
    let page = page_size();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: maps nothing over another mapping; a new one is unmapped at once.
    unsafe {
        let start = libc::mmap(address as *mut _, page, libc::PROT_READ, flags, -1, 0);
        start == libc::MAP_FAILED || libc::munmap(start, page) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn memory_that_grows_keeps_its_contents() {
        let page = page_size();
        let mut memory = Reservation::new(page, page, 0).unwrap();
        // SAFETY: the test's own memory.
        unsafe { memory.as_ptr().add(5).write(5) };
        memory.grow(1000 * page).unwrap();
        // SAFETY: as above; the memory has 1,000 pages.
        unsafe {
            assert_eq!(memory.as_ptr().add(5).read(), 5);
            assert_eq!(memory.as_ptr().add(999 * page).read(), 0);
        }
    }

    #[test]
    fn the_kernel_takes_every_name() {
        let text = |image| {
            let name = memory_name(image);
            CStr::from_bytes_until_nul(&name).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(text("lib$[x] \u{e9}.so"), "memdl:lib__x___.so");
        assert_eq!(text(&"x".repeat(200)), format!("memdl:{}", "x".repeat(73)));
    }
}
