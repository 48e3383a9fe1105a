//! dlopen-rs behind four C functions, as `benches/harness/peers.rs` wants them. It finds the
//! process's libraries by itself, once, so there is nothing to import.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use dlopen_rs::{ElfLibrary, OpenFlags};

/// Nothing: dlopen-rs knows the process's libraries.
#[unsafe(no_mangle)]
pub extern "C" fn peer_import(_paths: *const *const c_char, _count: usize) -> *mut c_void {
    ptr::dangling_mut()
}

/// Nothing.
#[unsafe(no_mangle)]
pub extern "C" fn peer_forget(_imported: *mut c_void) {}

/// Loads a library from its bytes. Null if it cannot.
///
/// # Safety
/// `len` bytes of a library whose constructors may run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_load(
    _imported: *const c_void,
    bytes: *const u8,
    len: usize,
) -> *mut ElfLibrary {
    // Libraries are told apart by name.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("/image-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice::from_raw_parts(bytes, len) };
    match ElfLibrary::dlopen_from_binary(bytes, &name, OpenFlags::RTLD_NOW) {
        Ok(library) => Box::into_raw(Box::new(library)),
        Err(error) => {
            eprintln!("dlopen-rs: {error}");
            ptr::null_mut()
        }
    }
}

/// A symbol's address, or null.
///
/// # Safety
/// From `peer_load`; a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_symbol(
    loaded: *const ElfLibrary,
    name: *const c_char,
) -> *mut c_void {
    // SAFETY: the caller's promise; the type is a pointer's.
    let found =
        unsafe { (*loaded).get::<*mut c_void>(CStr::from_ptr(name).to_str().unwrap_or_default()) };
    found.map_or(ptr::null_mut(), |symbol| symbol.into_raw().cast_mut().cast())
}

/// Unloads.
///
/// # Safety
/// From `peer_load`, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_close(loaded: *mut ElfLibrary) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(loaded) });
}
