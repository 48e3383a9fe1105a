//! System calls that failed while memory was given back, and that are repeated later.
//!
//! `munmap` and `mprotect` of a part of a mapping fail if the process has as many mappings as it can have.
//! Nothing waits for either, so the next load or unload repeats them. This file never maps, and decides
//! nothing about memory that an image uses.
//!
//! Sources: `munmap(2)`, `mprotect(2)`, their error `ENOMEM`.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::sync::{Guard, Lock, Rank};

/// Addresses and lengths of the memory that calls failed for.
struct Refused {
    /// By `munmap`. The memory has no contents, and no access.
    mapped: Vec<(usize, usize)>,
    /// By `mprotect` to read-only. The memory is never unmapped.
    writable: Vec<(usize, usize)>,
}

static REFUSED: Lock<Refused> =
    Lock::new(Rank::Refused, Refused { mapped: Vec::new(), writable: Vec::new() });

/// Whether [`REFUSED`] may have entries. Written under its lock. A thread that reads an old value leaves the
/// work to the next one.
static HAS_SOME: AtomicBool = AtomicBool::new(false);

fn refused() -> Guard<'static, Refused> {
    REFUSED.lock()
}

/// Unmaps a mapping when [`all`] runs. Without memory for the entry, the addresses stay taken.
///
/// # Safety
/// The mapping has no other owner, and nothing refers to it.
pub(super) unsafe fn unmap_later(start: usize, len: usize) {
    let mut refused = refused();
    if refused.mapped.try_reserve(1).is_ok() {
        refused.mapped.push((start, len));
        HAS_SOME.store(true, Ordering::Relaxed);
    }
}

/// Makes memory that is never unmapped read-only: now, or when [`all`] runs if the system refuses. Without
/// memory for the entry, it stays writable.
///
/// # Safety
/// No thread needs to write to it.
pub(crate) unsafe fn make_read_only(start: usize, len: usize) {
    // SAFETY: takes write access away, which the caller vouches is not needed.
    if unsafe { libc::mprotect(start as *mut _, len, libc::PROT_READ) } != 0 {
        let mut refused = refused();
        if refused.writable.try_reserve(1).is_ok() {
            refused.writable.push((start, len));
            HAS_SOME.store(true, Ordering::Relaxed);
        }
    }
}

/// Repeats the calls that failed.
pub(super) fn all() {
    if !HAS_SOME.load(Ordering::Relaxed) {
        return;
    }
    let mut refused = refused();
    HAS_SOME.store(false, Ordering::Relaxed);
    let (mapped, writable) =
        (std::mem::take(&mut refused.mapped), std::mem::take(&mut refused.writable));
    drop(refused);
    for (start, len) in mapped {
        // SAFETY: the promise of `unmap_later`.
        unsafe {
            if libc::munmap(start as *mut _, len) != 0 {
                unmap_later(start, len);
            }
        }
    }
    // SAFETY: the promise of `make_read_only`, given before.
    writable.into_iter().for_each(|(start, len)| unsafe { make_read_only(start, len) });
}
