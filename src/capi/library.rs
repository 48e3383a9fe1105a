//! `memdl_library`: opening, closing and describing a library.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use super::buffers::BufferHandle;
use super::errors::{Failure, c_string, caught, noted, pointer, status, transparent};
use super::options::{Options, debug_of, loader_of, set};
use super::pointers::{bytes_of, give, handle, take};
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
    let closed = transparent(|| match handle.library {
        Held::Own(library) => library.close(),
        Held::OfPool(library) => {
            library.release();
            Ok(())
        }
    });
    status(noted(closed.map_err(Failure::from)))
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
