//! Memory of this process, read and written by the kernel. It reports what is not mapped, where the process
//! itself would fault.
//!
//! `process_vm_readv` and `process_vm_writev` do that. Old profiles for containers deny them, and emulators
//! lack them. Then `/proc/self/mem` does the same.
//!
//! The kernel is told this thread, not the process, whose main thread may have ended.
//!
//! Knows nothing of what lies there.
//!
//! Sources: `process_vm_readv(2)`; `proc(5)`, `/proc/pid/mem`.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// Fills `bytes` with what lies at `address`. `EFAULT` if any of it is not mapped.
pub(crate) fn read(address: usize, bytes: &mut [u8]) -> io::Result<()> {
    let len = bytes.len();
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: len };
    // SAFETY: the local side is `bytes`; the kernel checks the other side.
    let count = unsafe { libc::process_vm_readv(libc::gettid(), &local, 1, &remote, 1, 0) };
    or_by_file("process_vm_readv", whole(count, len), |memory| {
        memory.read_exact_at(bytes, address as u64)
    })
}

/// Writes `bytes` at `address`. `EFAULT` if any of that is not mapped; what comes before it may be written.
///
/// # Safety
/// Where memory is mapped there, nothing else refers to it.
pub(crate) unsafe fn write(address: usize, bytes: &[u8]) -> io::Result<()> {
    let len = bytes.len();
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: len };
    // SAFETY: the local side is only read; the rest is the caller's promise.
    let count = unsafe { libc::process_vm_writev(libc::gettid(), &local, 1, &remote, 1, 0) };
    or_by_file("process_vm_writev", whole(count, len), |memory| {
        memory.write_all_at(bytes, address as u64)
    })
}

/// As [`write()`], also where the protection forbids it, as a debugger writes.
///
/// # Safety
/// As [`write()`].
pub(super) unsafe fn write_protected(address: usize, bytes: &[u8]) -> io::Result<()> {
    file()?.write_all_at(bytes, address as u64)
}

fn whole(count: isize, wanted: usize) -> io::Result<()> {
    match usize::try_from(count) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(count) if count == wanted => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// The result of `call`, or that of `act` on [`file`] if the system refuses the call as such.
fn or_by_file(
    call: &str,
    result: io::Result<()>,
    act: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let refusal = match result {
        Err(error) if is_any(&error, &[libc::EPERM, libc::EACCES, libc::ENOSYS]) => error,
        result => return result,
    };
    match file().and_then(|memory| act(&memory)) {
        // What is not mapped is an error of input and output there, an address that is none is invalid, and
        // the end of what is mapped is the end of the file.
        Err(error)
            if error.raw_os_error().is_none() || is_any(&error, &[libc::EIO, libc::EINVAL]) =>
        {
            Err(io::Error::from_raw_os_error(libc::EFAULT))
        }
        Err(error) => Err(io::Error::other(format!("{call}: {refusal}; /proc/self/mem: {error}"))),
        Ok(()) => Ok(()),
    }
}

fn is_any(error: &io::Error, numbers: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

/// All memory of this process, by this thread: the main one, for which `/proc/self` stands, may have ended. Opened
/// each time, since a child of `fork` has memory of its own.
pub(super) fn file() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/proc/thread-self/mem")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: fn() -> io::Result<()> = || Err(io::Error::from_raw_os_error(libc::ENOSYS));

    #[test]
    fn the_file_does_what_the_calls_do() {
        let mut words = [1_u64, 2];
        let address = (&raw mut words).addr();
        let mut word = [0; 8];
        or_by_file("x", REFUSED(), |it| it.read_exact_at(&mut word, address as u64 + 8)).unwrap();
        assert_eq!(u64::from_ne_bytes(word), 2);
        or_by_file("x", REFUSED(), |it| it.write_all_at(&[7], address as u64)).unwrap();
        // SAFETY: the test's own array, which was changed from outside.
        assert_eq!(unsafe { (&raw const words).read_volatile() }[0].to_ne_bytes()[0], 7);
    }

    #[test]
    fn memory_that_is_not_mapped_is_reported() {
        let mut word = [0; 8];
        for address in [8, usize::MAX - 7, 1 << 63] {
            let by_file = or_by_file("x", REFUSED(), |memory| {
                memory.read_exact_at(&mut [0; 8], address as u64)
            });
            // SAFETY: nothing can be mapped there.
            let written = unsafe { write(address, &[0; 8]) };
            for result in [read(address, &mut word), by_file, written] {
                let error = result.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{address:#x}: {error}");
            }
        }
    }
}
