//! `dl_iterate_phdr` with images, for unwinders that call it: libgcc before 12, nongnu libunwind, LLVM's libunwind.
//!
//! They search the `PT_GNU_EH_FRAME` of the object whose segments have the program counter. What they keep from
//! walk to walk they forget when the number of loads (`dlpi_adds`) has changed; so that counts the changes of
//! images, too.
//!
//! Takes no lock but `ld.so`'s own, which `dl_iterate_phdr` takes, and which guards what unwinders keep.
//!
//! Sources: `dl_iterate_phdr(3)`; libgcc `unwind-dw2-fde-dip.c`; LLVM libunwind `AddressSpace.hpp`; nongnu
//! libunwind `dwarf/Gfind_proc_info-lsb.c`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

use super::ring::Link;
use super::table;
use crate::arch;
use crate::host::got::Reference;
use crate::host::process::{self, Visitor};

/// What other copies ask: [`show_own_images`].
type Show = unsafe extern "C" fn(*mut Request) -> c_int;

/// What a copy of memdl is asked for. **Its layout never changes.**
#[repr(C)]
struct Request {
    /// Called with each image. Null: only the number of changes is asked for.
    visit: Option<Visitor>,
    data: *mut c_void,
    /// An object of `ld.so`, which has the numbers that all records share.
    like: *const libc::dl_phdr_info,
    size: usize,
    /// The number of loads. Each copy that is asked for it adds its number of changes.
    adds: u64,
}

/// This copy.
static RING: Link<Show> = Link::new(&raw const RING, show_own_images);

arch::define_marked!(walker, "_visit_objects", "memdl walker v1", visit_objects, RING);

/// What an unwinder's reference to `dl_iterate_phdr` must become, if it leads to the C library's function
/// (`is_plain`). If it leads to the walker of another copy of memdl, it keeps that, and the rings are joined.
pub(super) fn lead(now: usize, is_plain: bool) -> Reference {
    if is_plain {
        return Reference::To(walker());
    }
    match Link::of_function(now, b"memdl walker v1\0") {
        Some(other) => {
            RING.join(other);
            Reference::Right
        }
        None => Reference::Elsewhere,
    }
}

/// An unwinder's walk through all objects.
struct Walk {
    visit: Visitor,
    data: *mut c_void,
    /// By how much the number of loads is higher, once images were shown.
    changes: Option<u64>,
}

/// `dl_iterate_phdr`: images come first.
///
/// # Safety
/// As the C library's function: `visit` can be called with `data`.
unsafe extern "C" fn visit_objects(visit: Visitor, data: *mut c_void) -> c_int {
    let mut walk = Walk { visit, data, changes: None };
    // SAFETY: the callback gets the local, which nothing else uses meanwhile.
    unsafe { process::iterate_phdr(visit_object, (&raw mut walk).cast()) }
}

/// Shows an object of `ld.so`, and before the first one all images.
///
/// # Safety
/// `info` is a record of `size` bytes, `walk` a [`Walk`].
unsafe extern "C" fn visit_object(
    info: *mut libc::dl_phdr_info,
    size: usize,
    walk: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise. glibc before 2.4 has shorter records.
    let (walk, mut shown) = unsafe {
        let walk = &mut *walk.cast::<Walk>();
        if size < size_of::<libc::dl_phdr_info>() {
            return (walk.visit)(info, size, walk.data);
        }
        (walk, *info)
    };
    let adds = shown.dlpi_adds;
    let changes = match walk.changes {
        Some(changes) => changes,
        None => {
            let mut request = Request { visit: None, data: walk.data, like: info, size, adds };
            // The changes come first: what a walk shows is at least as new as its number of loads.
            ask_all(&mut request);
            request.visit = Some(walk.visit);
            let result = ask_all(&mut request);
            if result != 0 {
                return result;
            }
            *walk.changes.insert(request.adds.wrapping_sub(adds))
        }
    };
    shown.dlpi_adds = adds.wrapping_add(changes);
    // SAFETY: the promise of `visit_objects`; the record lives during the call.
    unsafe { (walk.visit)(&mut shown, size, walk.data) }
}

/// Asks this copy and all others, until one answers.
fn ask_all(request: &mut Request) -> c_int {
    // SAFETY: a request that nothing else uses meanwhile; its parts are those of `visit_object`.
    let mut ask = |show: Show| unsafe { show(request) };
    match ask(show_own_images) {
        0 => RING.others().map(|other| ask(other.ask)).find(|&it| it != 0).unwrap_or(0),
        result => result,
    }
}

/// Calls the visitor of a request with each image of this copy, until it returns something else than 0; or adds
/// the number of changes.
///
/// # Safety
/// The visitor can be called with the request's data.
unsafe extern "C" fn show_own_images(request: *mut Request) -> c_int {
    // SAFETY: the caller's promise.
    let request = unsafe { &mut *request };
    let Some(visit) = request.visit else {
        request.adds = request.adds.wrapping_add(table::read(|table| table.changes));
        return 0;
    };
    // SAFETY: an object of `ld.so`, in a record of full size (`visit_object`).
    let like = unsafe { *request.like };
    table::read(|table| {
        let records = table.iter().map(|entry| libc::dl_phdr_info {
            dlpi_addr: entry.load_bias as u64,
            dlpi_name: entry.name,
            dlpi_phdr: entry.headers,
            dlpi_phnum: entry.header_count,
            dlpi_adds: request.adds,
            dlpi_tls_modid: 0,
            dlpi_tls_data: ptr::null_mut(),
            ..like
        });
        // SAFETY: the caller's promise; the record lives during the call.
        let mut show = |mut record: libc::dl_phdr_info| unsafe {
            visit(&mut record, request.size, request.data)
        };
        records.map(&mut show).find(|&result| result != 0).unwrap_or(0)
    })
}
