//! `mprotect` and `pkey_mprotect`, for callers in images: a library that changes the protection of its own pages, to
//! patch its code or its constants. What instances share must not change in all of them, and changed pages are
//! not used again, neither by a pool nor for the next image.
//!
//! Never changes a protection itself: the C library does.
//!
//! Sources: `mprotect(2)`, `pkey_mprotect(2)`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use crate::images::registry;
use crate::memory::protect;

/// `mprotect`.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn protect(
    start: *mut c_void,
    len: usize,
    protection: c_int,
) -> c_int {
    match before_change(start) {
        // SAFETY: the caller's promise, passed on.
        true => unsafe { protect::on_behalf(start, len, protection) },
        false => no_memory(),
    }
}

/// `pkey_mprotect`.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn protect_with_key(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    key: c_int,
) -> c_int {
    match before_change(start) {
        // SAFETY: the caller's promise, passed on.
        true => unsafe { protect::with_key_on_behalf(start, len, protection, key) },
        false => no_memory(),
    }
}

/// Whether the pages may change now: pages of an image are its own then.
fn before_change(start: *mut c_void) -> bool {
    let image = registry::image_at(start.addr());
    image.is_none_or(|image| match image.image().mapping.before_change() {
        Ok(()) => true,
        Err(error) => {
            logged!(warn, "mprotect by {}: {error}", image.image().name);
            false
        }
    })
}

fn no_memory() -> c_int {
    // SAFETY: the calling thread's variable.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    -1
}
