//! `dladdr`, `dladdr1` and `dl_iterate_phdr`, for callers in images. Unwinders that are linked into an image
//! call them, too.
//!
//! Sources: `dladdr(3)`, `dl_iterate_phdr(3)`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

use crate::base::sync;
use crate::host::process::{self, RTLD_DL_LINKMAP, dladdr1};
use crate::images::group::LoadedImage;
use crate::images::registry;

/// A request of `dladdr1` (`<dlfcn.h>`).
const RTLD_DL_SYMENT: c_int = 1;

/// `dladdr`.
///
/// # Safety
/// As the C library's function: `info` can be written to.
pub(super) unsafe extern "C" fn dladdr(address: *const c_void, info: *mut libc::Dl_info) -> c_int {
    let Some(image) = registry::image_at(address.addr()) else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::dladdr(address, info) };
    };
    // SAFETY: the caller's promise.
    unsafe { describe(image.image(), address.addr(), info) };
    1
}

/// `dladdr1`.
///
/// # Safety
/// As the C library's function: `info` can be written to, and `extra` if `flags` asks for it.
pub(super) unsafe extern "C" fn dladdr1_of_images(
    address: *const c_void,
    info: *mut libc::Dl_info,
    extra: *mut *mut c_void,
    flags: c_int,
) -> c_int {
    let Some(image) = registry::image_at(address.addr()) else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { dladdr1(address, info, extra, flags) };
    };
    let loaded = image.image();
    // SAFETY: the caller's promise.
    unsafe {
        let entry = describe(loaded, address.addr(), info);
        match flags {
            RTLD_DL_SYMENT => *extra = entry.cast_mut(),
            RTLD_DL_LINKMAP => *extra = ptr::from_ref(&*loaded.link_map).cast_mut().cast(),
            _ => {}
        }
    }
    1
}

/// Fills `info`, and returns the symbol's entry in the image's table, or null.
///
/// # Safety
/// `info` can be written to.
unsafe fn describe(
    loaded: &LoadedImage,
    address: usize,
    info: *mut libc::Dl_info,
) -> *const c_void {
    let table = loaded.symbols();
    let symbol = loaded.symbol_at(address);
    let name = symbol.and_then(|(_, symbol)| table.string(symbol.st_name));
    let value = symbol.map(|(_, symbol)| loaded.mapping.load_bias().apply(symbol.address()));
    // SAFETY: the caller's promise. The names live as long as the image: one is its link map's, the other
    // is in its string table, where a NUL follows.
    unsafe {
        (*info).dli_fname = loaded.link_map.l_name;
        (*info).dli_fbase = loaded.mapping.address_range().start as *mut c_void;
        (*info).dli_sname = name.map_or(ptr::null(), |name| name.as_ptr().cast());
        (*info).dli_saddr = value.map_or(ptr::null_mut(), |value| value as *mut c_void);
    }
    symbol
        .and_then(|(index, _)| table.entry(index))
        .map_or(ptr::null(), |entry| entry.as_ptr().cast())
}

type Visitor = unsafe extern "C-unwind" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;

/// `dl_iterate_phdr`: the libraries of `ld.so`, then images, in load order.
///
/// # Safety
/// As the C library's function: `visit` can be called with `data`.
pub(super) unsafe extern "C-unwind" fn dl_iterate_phdr(visit: Visitor, data: *mut c_void) -> c_int {
    let result = {
        // glibc locks the list while it calls `visit`, and does not unlock it in a forked child.
        let _no_fork = sync::hold_off_fork();
        // SAFETY: the same function pointer under the type that `libc` gives it; the caller's
        // promise.
        unsafe {
            type Plain = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;
            process::iterate_phdr(std::mem::transmute::<Visitor, Plain>(visit), data)
        }
    };
    if result != 0 {
        return result;
    }
    // SAFETY: the caller's promise; the record and the data that it points to live during the call.
    let mut show = |info: &mut libc::dl_phdr_info| unsafe { visit(info, size_of_val(info), data) };
    // The function has no way to report lack of memory.
    registry::walk().map_or(0, |walk| walk.visit(&mut show))
}
