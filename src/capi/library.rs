//! `memdl_library`: opening, closing and describing a library.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use super::buffers::BufferHandle;
use super::errors::{Failure, c_string, caught, noted, pointer, status, transparent};
use super::options::{Options, debug_of, loader_of, number_of, set};
use super::pointers::{bytes_of, give, handle, take};
use crate::Closed;
use crate::Library;
use crate::Pooled;
use crate::api::startup;
use crate::base::fallible::require_memory;
use crate::base::promise::MayRun;
use crate::debug::Instances;
use crate::load::prepare::Prepared;
use crate::memory::bytes::Bytes;

/// `memdl_library`.
pub struct LibraryHandle {
    pub(super) library: Held,
    name: CString,
    soname: Option<CString>,
}

/// A library, and what closing it does: unload it, or return it to its pool.
pub(super) enum Held {
    Own(Library),
    OfPool(Pooled),
}

impl Deref for Held {
    type Target = Library;

    fn deref(&self) -> &Library {
        match self {
            Held::Own(library) => library,
            Held::OfPool(library) => library,
        }
    }
}

impl LibraryHandle {
    pub(super) fn new(library: Held) -> Result<LibraryHandle, Failure> {
        require_memory()?;
        let name = c_string(library.name())?;
        let soname = library.soname().map(c_string).transpose()?;
        Ok(LibraryHandle { library, name, soname })
    }
}

/// The result of a load, as a handle.
pub(super) fn loaded(result: Result<Library, crate::Error>) -> *mut LibraryHandle {
    give(caught(|| LibraryHandle::new(Held::Own(result?))))
}

/// The second half of a load, which runs code of the library.
///
/// # Safety
/// As [`Library::from_bytes`].
pub(super) unsafe fn instantiated(prepared: Option<Prepared<'_>>) -> *mut LibraryHandle {
    let Some(prepared) = prepared else { return ptr::null_mut() };
    // SAFETY: the caller's promise.
    loaded(transparent(|| unsafe { Library::single_instance(prepared) }))
}

/// Loads a library from its bytes.
///
/// # Safety
/// The header's contract: runs constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_open(
    bytes: *const c_void,
    len: usize,
    options: *const Options,
) -> *mut LibraryHandle {
    let prepared = caught(|| {
        // SAFETY: the header's contract.
        let (bytes, loader) = unsafe { (bytes_of(bytes, len)?, loader_of(options)) };
        // SAFETY: the header's contract: the library may be run.
        let may_run = unsafe { MayRun::promised() };
        Ok(startup::prepare(
            &loader.settings,
            Bytes::Borrowed(bytes),
            Instances::One,
            Some(may_run),
        )?)
    });
    // SAFETY: the header's contract: the library may be run.
    unsafe { instantiated(prepared) }
}

/// Loads a library from a buffer. Takes the buffer, even if the load fails.
///
/// # Safety
/// The header's contract: runs constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_open_buffer(
    buffer: *mut BufferHandle,
    options: *const Options,
) -> *mut LibraryHandle {
    let prepared = caught(|| {
        // SAFETY: the header's contract.
        let (buffer, loader) = unsafe { (take(buffer, "buffer")?.buffer, loader_of(options)) };
        // SAFETY: the header's contract: the library may be run.
        let may_run = unsafe { MayRun::promised() };
        let bytes = Bytes::Buffer(Arc::new(buffer));
        Ok(startup::prepare(&loader.settings, bytes, Instances::One, Some(may_run))?)
    });
    // SAFETY: the header's contract: the library may be run.
    unsafe { instantiated(prepared) }
}

/// Unloads a library.
///
/// # Safety
/// The header's contract: runs destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_close(library: *mut LibraryHandle) -> c_int {
    // SAFETY: the header's contract.
    let Some(handle) = caught(|| unsafe { take(library, "library") }) else { return -1 };
    status_of(transparent(|| match handle.library {
        Held::Own(library) => library.close(),
        Held::OfPool(library) => Ok(library.release()),
    }))
}

/// [`Library::close_with_thread_locals`]. An instance of a pool is released, which is the same.
///
/// # Safety
/// The header's contract: runs destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_close_with_thread_locals(
    library: *mut LibraryHandle,
) -> c_int {
    // SAFETY: the header's contract.
    let Some(handle) = caught(|| unsafe { take(library, "library") }) else { return -1 };
    status_of(transparent(|| match handle.library {
        // SAFETY: the header's contract.
        Held::Own(library) => unsafe { library.close_with_thread_locals() },
        // SAFETY: as above.
        Held::OfPool(library) => unsafe { library.leave_thread().map(|()| library.release()) },
    }))
}

/// [`Library::leave_thread`].
///
/// # Safety
/// The header's contract: runs destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_leave_thread(library: *const LibraryHandle) -> c_int {
    // SAFETY: the header's contract.
    let Some(handle) = caught(|| unsafe { handle(library, "library") }) else { return -1 };
    // SAFETY: the header's contract.
    let left = transparent(|| unsafe { handle.library.leave_thread() });
    status(noted(left.map_err(Failure::from)))
}

/// `memdl_kept`.
#[repr(C)]
pub struct CKept {
    text: *const c_char,
    threads: usize,
    this_thread: c_int,
    is_open: c_int,
    never_unloaded: c_int,
    libraries: usize,
    others: usize,
}

/// What kept a library that was closed, with the text that it points to.
struct LastKept {
    c: CKept,
    _text: Option<CString>,
}

thread_local! {
    /// What kept the library that the thread closed last. In a box, since
    /// each byte here is one of static thread-local storage, of which `dlopen` has little.
    static KEPT: RefCell<Option<Box<LastKept>>> = const { RefCell::new(None) };
}

/// What a close returns; what keeps the library is noted.
fn status_of(closed: Result<Closed, crate::Error>) -> c_int {
    let kept = match noted(closed.map_err(Failure::from)) {
        Some(Closed::Kept(kept)) => kept,
        Some(_) => return 0,
        None => return -1,
    };
    let text = require_memory().map_err(Failure::from).and_then(|()| c_string(&kept.to_string()));
    let text = text.ok();
    let kept = CKept {
        text: text.as_ref().map_or(c"it stays loaded".as_ptr(), |text| text.as_ptr()),
        threads: kept.threads,
        this_thread: kept.this_thread.into(),
        is_open: kept.is_open.into(),
        never_unloaded: kept.never_unloaded.into(),
        libraries: kept.libraries.len(),
        others: kept.others,
    };
    // In a thread so far gone that it has none, nothing is noted.
    let _ = KEPT.try_with(|noted| noted.replace(Some(Box::new(LastKept { c: kept, _text: text }))));
    1
}

/// What kept the library that the calling thread closed last with the result 1.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_last_kept() -> *const CKept {
    let kept = KEPT.try_with(|noted| {
        noted.try_borrow().ok().and_then(|noted| noted.as_ref().map(|noted| &raw const noted.c))
    });
    kept.ok().flatten().unwrap_or(ptr::null())
}

/// [`release_memory`](crate::release_memory).
#[unsafe(no_mangle)]
pub extern "C" fn memdl_release_memory() {
    transparent(crate::release_memory);
}

/// [`wipe_kept_memory`](crate::wipe_kept_memory).
#[unsafe(no_mangle)]
pub extern "C" fn memdl_wipe_kept_memory(wipe: c_int) {
    transparent(|| crate::wipe_kept_memory(wipe != 0));
}

/// [`Library::set_debug`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_set_debug(library: *const LibraryHandle, debug: c_int) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract.
        let library = unsafe { &handle(library, "library")?.library };
        Ok(library.set_debug(debug_of(debug)?)?)
    }))
}

/// [`Library::debug`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_get_debug(library: *const LibraryHandle) -> c_int {
    // SAFETY: the header's contract.
    let debug = caught(|| Ok(unsafe { handle(library, "library")? }.library.debug()));
    debug.map_or(-1, number_of)
}

/// [`Library::set_debug_info`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_set_debug_info(
    library: *const LibraryHandle,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract.
        let (library, bytes) =
            unsafe { (&handle(library, "library")?.library, bytes_of(bytes, len)?) };
        Ok(library.set_debug_info(bytes)?)
    }))
}

/// The library's name.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_name(library: *const LibraryHandle) -> *const c_char {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(ptr::null(), |library| library.name.as_ptr())
}

/// Its `DT_SONAME`, or null.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_soname(library: *const LibraryHandle) -> *const c_char {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(ptr::null(), |library| pointer(&library.soname))
}

/// [`Library::load_bias`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_load_bias(library: *const LibraryHandle) -> usize {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(0, |library| library.library.load_bias())
}

/// [`Library::address_range`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_address_range(
    library: *const LibraryHandle,
    start: *mut usize,
    end: *mut usize,
) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract: each is null, or may be written to.
        unsafe {
            let range = handle(library, "library")?.library.address_range();
            if let Some(start) = start.as_mut() {
                *start = range.start;
            }
            if let Some(end) = end.as_mut() {
                *end = range.end;
            }
        }
        Ok(())
    }))
}

/// [`Library::is_sealed`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_is_sealed(library: *const LibraryHandle) -> c_int {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(-1, |library| library.library.is_sealed().into())
}

/// [`Loader::depends_on`](crate::Loader::depends_on).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_depends_on(
    options: *mut Options,
    library: *const LibraryHandle,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let library = &handle(library, "library")?.library;
            options.change(|loader| loader.depends_on(library))
        })
    }
}
