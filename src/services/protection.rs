//! Functions that change the protection or the mappings of memory, for callers in images: a library that patches its
//! code or its constants, or that unmaps a part of itself. What instances share must not change in all of them, and
//! changed pages are not used again, neither by a pool nor for the next image.
//!
//! Never changes a mapping itself: the C library does. Code that makes the system call without the C library is not
//! seen.
//!
//! Sources: `mprotect(2)`, `pkey_mprotect(2)`, `munmap(2)`, `mremap(2)`, `mmap(2)`, `syscall(2)`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};

use crate::base::error::Error;
use crate::images::group::LoadedImage;
use crate::images::registry;
use crate::memory::protect::{self, Changed};

/// What an image's import of `name` is bound to instead of the C library's function. So is what it looks up, in
/// whatever library.
pub(super) fn replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"mprotect" => Some(protect as *const () as usize),
        b"pkey_mprotect" => Some(protect_with_key as *const () as usize),
        b"munmap" => Some(unmap as *const () as usize),
        b"mremap" => Some(remap as *const () as usize),
        b"mmap" | b"mmap64" => Some(map as *const () as usize),
        b"syscall" => Some(system_call as *const () as usize),
        _ => None,
    }
}

/// `mprotect`.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn protect(start: *mut c_void, len: usize, protection: c_int) -> c_int {
    match before_protection(start.addr(), len) {
        // SAFETY: the caller's promise, passed on.
        true => unsafe { protect::on_behalf(start, len, protection) },
        false => no_memory(),
    }
}

/// `pkey_mprotect`.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn protect_with_key(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    key: c_int,
) -> c_int {
    match before_protection(start.addr(), len) {
        // SAFETY: the caller's promise, passed on.
        true => unsafe { protect::with_key_on_behalf(start, len, protection, key) },
        false => no_memory(),
    }
}

/// `munmap`.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn unmap(start: *mut c_void, len: usize) -> c_int {
    before_mapping(start.addr(), len);
    // SAFETY: the caller's promise, passed on.
    unsafe { protect::unmap_on_behalf(start, len) }
}

/// `mremap`. The fifth argument is there only with a flag that says so; it is passed on as it is.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn remap(
    start: *mut c_void,
    len: usize,
    new_len: usize,
    flags: c_int,
    target: *mut c_void,
) -> *mut c_void {
    before_mapping(start.addr(), len);
    if flags & libc::MREMAP_FIXED != 0 {
        before_mapping(target.addr(), new_len);
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { protect::remap_on_behalf(start, len, new_len, flags, target) }
}

/// `mmap`, and `mmap64`, which is the same.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn map(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    if flags & libc::MAP_FIXED != 0 {
        before_mapping(start.addr(), len);
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { protect::map_on_behalf(start, len, protection, flags, file, offset) }
}

/// `syscall`. Arguments that the caller did not give are passed on as they are.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn system_call(
    number: c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
    sixth: usize,
) -> c_long {
    let arguments = [first, second, third, fourth, fifth, sixth];
    match protect::changed_by_call(number, arguments) {
        None => {}
        Some(Changed::Protection { start, len }) if !before_protection(start, len) => {
            return no_memory().into();
        }
        Some(Changed::Protection { .. }) => {}
        Some(Changed::Mappings(ranges)) => {
            ranges.into_iter().for_each(|(start, len)| before_mapping(start, len));
        }
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) }
}

/// Whether the protection of this memory may change now: pages of an image are its own then.
fn before_protection(start: usize, len: usize) -> bool {
    of_images(start, len, |image| image.mapping.before_change())
}

/// The mappings of this memory are about to change.
fn before_mapping(start: usize, len: usize) {
    let note = |image: &LoadedImage| {
        image.mapping.note_change();
        Ok(())
    };
    of_images(start, len, note);
}

/// Calls `act` for each image that has any of this memory. False if it has failed for one.
fn of_images(start: usize, len: usize, act: impl Fn(&LoadedImage) -> Result<(), Error>) -> bool {
    let end = start.saturating_add(len);
    let mut at = start;
    while let Some(image) = registry::image_in(at..end) {
        if let Err(error) = act(image.image()) {
            logged!(warn, "mprotect by {}: {error}", image.image().name);
            return false;
        }
        at = image.image().mapping.address_range().end;
    }
    true
}

fn no_memory() -> c_int {
    // SAFETY: the calling thread's variable.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    -1
}
