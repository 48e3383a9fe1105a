//! Memory from the kernel: the only file that maps and unmaps.
//!
//! Sources: `mmap(2)`, `prctl(2)` `PR_SET_VMA_ANON_NAME`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{self, NonNull};

use crate::error::Error;

/// Anonymous private memory that is unmapped when dropped.
pub(crate) struct Reservation {
    start: NonNull<u8>,
    len: usize,
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
        let head = residue.wrapping_sub(address) & (align - 1);
        reservation.trim(if padded == len { 0 } else { head }, len);
        Ok(reservation)
    }

    /// Keeps `len` bytes from `head` on and unmaps the rest.
    fn trim(&mut self, head: usize, len: usize) {
        let tail = self.len - head - len;
        // SAFETY: both parts lie in this reservation, and nobody has been given their addresses.
        // `head` and `len` are whole pages within it, so `start` stays inside the mapping.
        unsafe {
            if head > 0 {
                libc::munmap(self.start.as_ptr().cast(), head);
            }
            if tail > 0 {
                libc::munmap(self.start.as_ptr().add(head + len).cast(), tail);
            }
            self.start = self.start.add(head);
        }
        self.len = len;
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
        let Ok(name) = CString::new(printable(name)) else { return };
        // SAFETY: the range is this reservation's and the name a C string, which the kernel copies.
        // A kernel without the feature says EINVAL, and the name is only a convenience.
        unsafe {
            libc::prctl(
                libc::PR_SET_VMA,
                libc::PR_SET_VMA_ANON_NAME,
                self.address(),
                self.len,
                name.as_ptr(),
            );
        }
    }
}

/// As much of a name as the kernel takes: up to 79 bytes, printable and without a few.
fn printable(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '`' | '$' | '[' | ']');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(79).collect()
}

/// Anonymous memory whose pages can be at several places at once. Read-only once it is filled.
pub(crate) struct SharedPages(Reservation);

impl SharedPages {
    /// `len` bytes (a multiple of the page, not 0), zeroed, then filled by `fill`.
    pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<SharedPages, Error> {
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
        // SAFETY: `len` bytes that were just mapped, zeroed, and are known to nobody else.
        fill(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) });
        // SAFETY: the whole of a mapping that nobody else knows, no reference into which is left.
        // Should it fail, the pages stay writable, and nobody writes to them all the same.
        unsafe { libc::mprotect(memory.as_ptr().cast(), len, libc::PROT_READ) };
        Ok(SharedPages(memory))
    }

    /// Memory of the same length and contents, of which the `own` ranges (whole pages, ascending,
    /// none overlapping another) can be written, and all the rest is these very pages.
    pub(crate) fn view(&self, own: Vec<Range<usize>>) -> Result<View, Error> {
        let len = self.0.len();
        let view = Reservation::new(len, region::page::size(), 0)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let mut shared = 0;
        for range in own.iter().chain([&(len..len)]) {
            assert!(shared <= range.start && range.start <= range.end && range.end <= len);
            if shared < range.start {
                // SAFETY: an old length of 0 leaves the shared pages where they are and maps them
                // once more, over a part of `view`, which nobody else knows yet.
                let mapped = unsafe {
                    libc::mremap(
                        self.0.as_ptr().add(shared).cast(),
                        0,
                        range.start - shared,
                        flags,
                        view.as_ptr().add(shared),
                    )
                };
                if mapped == libc::MAP_FAILED {
                    return Err(Error::last_os_error("mremap of shared memory"));
                }
            }
            // SAFETY: the range is inside both, and here `view` is still its own writable memory.
            unsafe {
                ptr::copy_nonoverlapping(
                    self.0.as_ptr().add(range.start),
                    view.as_ptr().add(range.start),
                    range.len(),
                );
            }
            shared = range.end;
        }
        Ok(View { memory: view, own })
    }
}

/// What [`SharedPages::view`] gives.
pub(crate) struct View {
    memory: Reservation,
    /// What can be written.
    own: Vec<Range<usize>>,
}

impl View {
    /// These bytes, if they can be written.
    pub(crate) fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        let holds = |own: &Range<usize>| own.start <= range.start && range.end <= own.end;
        if range.start > range.end || !self.own.iter().any(holds) {
            return None;
        }
        // SAFETY: inside a part of the mapping that is private and writable, borrowed as `self` is.
        Some(unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.as_ptr().add(range.start),
                range.end - range.start,
            )
        })
    }
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, readable, and changed through `get_mut` only.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.memory.len()) }
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
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
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
        let pages = SharedPages::filled(6 * page, |bytes| {
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / page) as u8 + 1);
        })
        .unwrap();
        let own = vec![0..page, 3 * page..4 * page];
        let [mut a, mut b] = [(); 2].map(|()| pages.view(own.clone()).unwrap());
        a.get_mut(3 * page..3 * page + 1).unwrap().fill(77);
        assert_eq!(b[..], pages[..]);
        let mut expected = pages.to_vec();
        expected[3 * page] = 77;
        assert_eq!(a[..], expected);
        for not_own in [page..page + 1, 4 * page - 1..4 * page + 1] {
            assert_eq!(b.get_mut(not_own), None);
        }
        drop(pages);
        assert_eq!(b[5 * page], 6);
    }

    #[test]
    fn the_kernel_takes_every_name() {
        assert_eq!(printable("memdl:lib$[x] \u{e9}.so"), "memdl:lib__x___.so");
        assert_eq!(printable(&"x".repeat(200)).len(), 79);
    }
}
