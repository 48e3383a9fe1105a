//! Memory from the kernel: the only file that maps and unmaps.
//!
//! Sources: `mmap(2)`, `prctl(2)` `PR_SET_VMA_ANON_NAME`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Deref;
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
    fn the_kernel_takes_every_name() {
        assert_eq!(printable("memdl:lib$[x] \u{e9}.so"), "memdl:lib__x___.so");
        assert_eq!(printable(&"x".repeat(200)).len(), 79);
    }
}
