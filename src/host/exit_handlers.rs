//! The C library's list of functions that run at exit, each registered under the handle of a library.
//!
//! Runs those of one handle; registers none.
//!
//! Source: Itanium C++ ABI, "DSO Object Destruction API".

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use crate::base::sync;
use crate::host::process;

unsafe extern "C-unwind" {
    fn __cxa_finalize(dso_handle: *const c_void);
}

/// Whether the C library's `fork` calls the functions of `pthread_atfork` without holding the lock of that list:
/// since glibc 2.36. `__cxa_finalize` takes that lock, too. So before, a fork that waits for `__cxa_finalize` to
/// end would deadlock with it. There, forks are not held off, and a child may find the lock taken.
fn fork_calls_handlers_unlocked() -> bool {
    process::is_glibc_since(36)
}

/// Makes the C library call, and remove, the functions that are registered under the handle of an image.
///
/// # Safety
/// The functions may be called now, for the last time.
pub(crate) unsafe fn finalize(dso_handle: usize) {
    let _no_fork = fork_calls_handlers_unlocked().then(sync::hold_off_fork);
    // SAFETY: the caller's promise. The handle is compared, not dereferenced.
    unsafe { __cxa_finalize(ptr::without_provenance(dso_handle)) }
}
