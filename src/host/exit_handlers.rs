//! The C library's list of functions that run at the exit, by the handle of the library that they are of.
//!
//! Source: Itanium C++ ABI, "DSO Object Destruction API".

#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::ptr;

use crate::base::sync;

unsafe extern "C-unwind" {
    fn __cxa_finalize(dso_handle: *const c_void);
}

/// Whether the C library's `fork` calls what `pthread_atfork` has noted without holding the lock of
/// that list, which `__cxa_finalize` takes as well: since 2.36. Before, a fork that waits for
/// `__cxa_finalize` would be waited for by it, so there a child may find that lock locked.
fn fork_calls_handlers_unlocked() -> bool {
    // SAFETY: gives a constant C string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let minor = version.to_str().ok().and_then(|it| it.strip_prefix("2.")?.parse::<u32>().ok());
    minor.is_none_or(|minor| minor >= 36)
}

/// Has the C library call, and forget, what is noted under the handle of an image.
///
/// # Safety
/// The functions may be called now, for the last time.
pub(crate) unsafe fn finalize(dso_handle: usize) {
    let _no_fork = fork_calls_handlers_unlocked().then(sync::hold_off_fork);
    // SAFETY: the caller's promise. The handle is compared, not followed.
    unsafe { __cxa_finalize(ptr::without_provenance(dso_handle)) }
}
