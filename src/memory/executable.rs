//! Executable memory in a process that may not make memory executable.
//!
//! `PR_SET_MDWE`, the seccomp filter of systemd's `MemoryDenyWriteExecute=`, and SELinux without `execmem`
//! refuse that `mprotect` makes memory executable. The first two permit new memory that is executable from the
//! start. Nothing can write to it but the kernel:
//!
//! * Private memory is written through `/proc/self/mem`, as debuggers write breakpoints into code.
//! * Shared memory is mapped a second time, that mapping is made writable and not executable, and is gone when
//!   the contents are there. This needs no `/proc`, and several mappings can have the pages. Debuggers can
//!   set no breakpoints there: the kernel refuses to write to shared memory that is not writable.
//!
//! So no page is ever writable and executable by one mapping. This is done only once `mprotect` has been
//! refused, which [`is_denied`] remembers for the process.
//!
//! Never decides which pages are code.
//!
//! Sources: `PR_SET_MDWE(2const)`; systemd `src/shared/seccomp-util.c` (`seccomp_memory_deny_write_execute`);
//! SELinux `security/selinux/hooks.c` (`file_map_prot_check`); `proc(5)`, `/proc/pid/mem`; `mremap(2)`.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::arch;
use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::memory::process_memory;
use crate::memory::reservation::{HUGE_PAGE, READ_EXECUTE, READ_WRITE, Reservation, in_huge_pages};

/// `mprotect` was refused once, and another way was found.
static DENIED: AtomicBool = AtomicBool::new(false);

/// Whether the process is known not to make memory executable.
pub(super) fn is_denied() -> bool {
    DENIED.load(Ordering::Relaxed)
}

/// Lets pages that were filled as data be read and executed. If their code marks the targets of its indirect branches,
/// the processor checks them, where it can.
///
/// # Safety
/// Whole pages, to which nothing writes.
pub(super) unsafe fn protect(code: Range<usize>, branch_targets: bool) -> Result<(), Error> {
    let guard = if branch_targets { arch::branch_protection() } else { 0 };
    // SAFETY: the caller's promise.
    if unsafe { libc::mprotect(code.start as *mut _, code.len(), READ_EXECUTE | guard) } != 0 {
        return Err(Error::last_os_error(format!("mprotect of {:#x} bytes", code.len())));
    }
    // SAFETY: they can be read now.
    unsafe { arch::sync_instructions(code) };
    Ok(())
}

/// Whether this error of `mprotect` says that memory must not become executable.
pub(super) fn is_denial(error: &Error) -> bool {
    let Error::System { error: source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

/// Puts memory that can be read and executed, with these contents and zeroes behind them, in place of a part of
/// `memory`. Returns whether all of `memory` can be one mapping again.
///
/// # Safety
/// Whole pages that nothing refers to. They may change even on a failure.
pub(super) unsafe fn place(
    memory: &Reservation,
    part: Range<usize>,
    is_huge: bool,
    contents: &[u8],
) -> Result<bool, Error> {
    let contents = contents.get(..part.len()).unwrap_or(contents);
    // SAFETY: the caller's promise.
    let is_renewed = unsafe { memory.renew(part.clone(), READ_EXECUTE) };
    if is_renewed && is_huge {
        memory.advise_huge(part.clone());
    }
    let target = memory.as_ptr().wrapping_add(part.start);
    if is_renewed && write_code(target.addr(), contents).is_ok() {
        return Ok(true);
    }
    // SAFETY: the caller's promise.
    unsafe { replace(target, part.len(), contents)? };
    Ok(false)
}

/// Replaces `len` bytes at `target` by memory that can be read and executed, with these contents and zeroes
/// behind them. `contents` may lie at `target`. A failure leaves the memory as it was.
///
/// # Safety
/// Whole pages of a reservation. Whatever refers to them finds the same contents afterwards, or expects new ones.
pub(super) unsafe fn replace(target: *mut u8, len: usize, contents: &[u8]) -> Result<(), Error> {
    let memory = private(target.addr(), len, contents).or_else(|by_file| {
        shared(len, contents).map_err(|by_view| refused(len, by_file, by_view))
    })?;
    // SAFETY: the caller's promise.
    unsafe { memory.move_over(target)? };
    DENIED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Private memory of `len` bytes that can be read and executed, with these contents and zeroes behind them. It
/// can be moved to `target` with its large pages.
pub(super) fn private(target: usize, len: usize, contents: &[u8]) -> Result<Reservation, Error> {
    let huge = in_huge_pages(len) > 0;
    let align = if huge { HUGE_PAGE } else { page_size() };
    let memory = Reservation::with_protection(len, align, target, READ_EXECUTE)?;
    if huge {
        memory.advise_huge(0..len);
    }
    let contents = contents.get(..len).unwrap_or(contents);
    write_code(memory.address(), contents)?;
    Ok(memory)
}

/// Writes to memory that the process itself cannot write to.
fn write_code(target: usize, contents: &[u8]) -> Result<(), Error> {
    process_memory::file()
        .and_then(|file| file.write_all_at(contents, target as u64))
        .map_err(|error| Error::system("writing through /proc/self/mem", error))?;
    // SAFETY: pages that can be executed can be read.
    unsafe { arch::sync_instructions(target..target.saturating_add(contents.len())) };
    Ok(())
}

/// As [`private`], of pages that can be mapped at several addresses at once.
pub(super) fn shared(len: usize, contents: &[u8]) -> Result<Reservation, Error> {
    let memory = Reservation::shared(len, READ_EXECUTE)?;
    let view = memory.mapped_again()?;
    if !view.protect(0..len, READ_WRITE) {
        return Err(Error::last_os_error(format!("mprotect of {len:#x} shared bytes")));
    }
    let filled = contents.len().min(len);
    view.populate(0..filled.next_multiple_of(page_size()));
    // SAFETY: `view` is `len` writable bytes that nothing else refers to: `memory` is not read before `view` is
    // gone. The contents lie elsewhere, since both are new.
    unsafe { ptr::copy_nonoverlapping(contents.as_ptr(), view.as_ptr(), filled) };
    let start = memory.address();
    // SAFETY: pages that can be executed can be read.
    unsafe { arch::sync_instructions(start..start.saturating_add(filled)) };
    Ok(memory)
}

/// The error where nothing makes `len` bytes executable.
#[cold]
fn refused(len: usize, by_file: Error, by_view: Error) -> Error {
    let source = match by_view {
        Error::System { error, .. } => error,
        _ => io::ErrorKind::OutOfMemory.into(),
    };
    let policies = policies(source.raw_os_error() == Some(libc::EACCES)).join("; ");
    let what = format!(
        "making {len:#x} bytes executable: this process may not, by {policies}; else load the library \
         from its file, with dlopen [not by mprotect, nor in memory that is executable from the start: \
         {by_file}; nor through a second mapping]"
    );
    Error::system(what, source)
}

/// What may refuse that memory becomes executable, and its cure. `of_module`: the error is the one of security
/// modules.
fn policies(of_module: bool) -> Vec<String> {
    let mut found = Vec::new();
    const PR_GET_MDWE: i32 = 66;
    // SAFETY: reads a flag of the process. A kernel without it returns an error.
    let has_mdwe = unsafe { libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) } > 0;
    if has_mdwe {
        found.push("PR_SET_MDWE (start it without)".to_owned());
    }
    // Not by `prctl`, which a filter may answer with a signal.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|it| it.trim() == "2")) {
        let filter = "a seccomp filter, as systemd's MemoryDenyWriteExecute=yes makes one (permit mmap with \
                      PROT_READ|PROT_EXEC)";
        found.push(filter.to_owned());
    }
    // Other security modules have labels without colons.
    let label = fs::read_to_string("/proc/thread-self/attr/current").unwrap_or_default();
    match label.split(':').nth(2) {
        Some(domain) => found.push(format!("SELinux (allow execmem to {domain})")),
        None if of_module && !has_mdwe || found.is_empty() => {
            let module =
                "a security module, as SELinux without execmem (allow execmem to its domain)";
            found.push(module.to_owned());
        }
        None => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> usize {
        page_size()
    }

    /// The bytes of new memory.
    fn bytes(memory: &Reservation) -> &[u8] {
        // SAFETY: the test's own memory, which is readable.
        unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) }
    }

    /// The protections of all mappings that hold an address of this memory.
    fn protections(memory: &Reservation) -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let end = memory.address() + memory.len();
        let lines = maps.lines().filter_map(|line| {
            let (addresses, rest) = line.split_once(' ')?;
            let (start, to) = addresses.split_once('-')?;
            let [start, to] = [start, to].map(|it| usize::from_str_radix(it, 16).unwrap());
            (start < end && memory.address() < to).then(|| rest[..4].to_owned())
        });
        lines.collect()
    }

    #[test]
    fn both_ways_give_contents_that_can_be_executed_and_not_written() {
        let contents: Vec<u8> = (0..2 * page() + 77).map(|at| (at % 251) as u8).collect();
        let len = 4 * page();
        let mut expected = contents.clone();
        expected.resize(len, 0);
        let (private, shared) =
            (private(0, len, &contents).unwrap(), shared(len, &contents).unwrap());
        assert_eq!((bytes(&private), protections(&private)), (&*expected, vec!["r-xp".into()]));
        assert_eq!((bytes(&shared), protections(&shared)), (&*expected, vec!["r-xs".into()]));
    }

    #[test]
    fn pages_are_replaced_where_they_are() {
        for pages in [3, 3 * HUGE_PAGE / page() / 2] {
            let len = pages * page();
            let memory = Reservation::new(len + 2 * page(), page(), 0).unwrap();
            // SAFETY: the test's own memory.
            let text = unsafe {
                memory.as_ptr().write_bytes(1, memory.len());
                std::slice::from_raw_parts(memory.as_ptr().add(page()), len)
            };
            // SAFETY: whole pages of the memory, that find the same contents.
            unsafe { replace(memory.as_ptr().add(page()), len, text).unwrap() };
            assert!(bytes(&memory).iter().all(|&byte| byte == 1));
            assert_eq!(protections(&memory), ["rw-p", "r-xp", "rw-p"]);
        }
    }

    #[test]
    fn the_error_says_who_refuses_and_what_helps() {
        let error = |number| Error::system("mmap", io::Error::from_raw_os_error(number));
        let text = refused(4096, error(libc::EACCES), error(libc::EACCES)).to_string();
        for part in ["0x1000 bytes", "SELinux", "execmem", "dlopen", "mmap: Permission denied"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
