//! `_dl_find_object` with images, for unwinders that call it: libgcc since 12, and LLVM's since 17, where they were
//! built for glibc 2.35 or newer.
//!
//! Runs inside of throws, in signal handlers, and when a debugger calls it, so it takes no lock.
//!
//! Source: glibc manual "Dynamic Linker Introspection".

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ring::Link;
use super::table;
use crate::arch;
use crate::host::got::Reference;
use crate::host::link_map::LinkMap;

/// `struct dl_find_object` (`<dlfcn.h>`).
#[repr(C)]
pub(crate) struct FoundObject {
    dlfo_flags: u64,
    dlfo_map_start: *mut c_void,
    dlfo_map_end: *mut c_void,
    dlfo_link_map: *const LinkMap,
    dlfo_eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// What other copies ask: [`find_own_object`].
type Find = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

/// This copy.
static RING: Link<Find> = Link::new(&raw const RING, find_own_object);

arch::define_marked!(finder, "_find_object", "memdl finder v1", find_object, RING);

/// What an unwinder's reference to `_dl_find_object` must become. If it leads to the finder of another copy of
/// memdl, it keeps that, and the rings are joined.
pub(super) fn lead(now: usize) -> Reference {
    match Link::of_function(now, b"memdl finder v1\0") {
        Some(other) => {
            RING.join(other);
            Reference::Right
        }
        None => Reference::To(finder()),
    }
}

/// [`find_object`] of this copy's images: -1 if the address is in none.
///
/// # Safety
/// `result` can be written to.
unsafe extern "C" fn find_own_object(address: *mut c_void, result: *mut FoundObject) -> c_int {
    let found = table::read(|table| {
        let entry = table.up_to(address.addr())?;
        (entry.start..entry.end).contains(&address.addr()).then_some(FoundObject {
            dlfo_flags: 0,
            dlfo_map_start: entry.start as *mut c_void,
            dlfo_map_end: entry.end as *mut c_void,
            dlfo_link_map: entry.link_map,
            dlfo_eh_frame: entry.eh_frame_hdr as *mut c_void,
            reserved: [0; 7],
        })
    });
    let Some(found) = found else { return -1 };
    // SAFETY: the caller's promise.
    unsafe { result.write(found) };
    0
}

/// `_dl_find_object`, for unwinders and for images that call it.
///
/// # Safety
/// As the C library's function: `result` can be written to.
pub(crate) unsafe extern "C" fn find_object(
    address: *mut c_void,
    result: *mut FoundObject,
) -> c_int {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if find_own_object(address, result) == 0
            || RING.others().any(|other| (other.ask)(address, result) == 0)
        {
            return 0;
        }
        host_find_object(address, result)
    }
}

/// The C library's own function.
///
/// # Safety
/// As [`find_object`].
unsafe fn host_find_object(address: *mut c_void, result: *mut FoundObject) -> c_int {
    type Function = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;
    /// Its address, or 1 if there is none. Signal handlers cannot look it up.
    static FUNCTION: AtomicUsize = AtomicUsize::new(0);
    let mut function = FUNCTION.load(Ordering::Relaxed);
    if function == 0 {
        // SAFETY: a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        function = found.addr().max(1);
        FUNCTION.store(function, Ordering::Relaxed);
    }
    if function == 1 {
        return -1;
    }
    // SAFETY: the function has this type by its documentation; the rest is the caller's promise.
    unsafe {
        let function: Function = std::mem::transmute(ptr::without_provenance::<c_void>(function));
        function(address, result)
    }
}
