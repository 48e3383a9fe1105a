//! Namespaces and the provider of needed libraries.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use super::buffers::BufferHandle;
use super::callbacks::{FreeUser, OwnedUser};
use super::errors::{c_string, caught, status};
use super::library::LibraryHandle;
use super::options::{Options, set};
use super::pointers::{give, handle, take};
use crate::LibraryRequest;
use crate::Namespace;
use crate::Provided;
use crate::base::fallible::{require_memory, try_c_string, try_collect, try_collect_ok};

/// `memdl_namespace`.
pub struct NamespaceHandle(Namespace);

/// A namespace without libraries.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_namespace_new() -> *mut NamespaceHandle {
    give(caught(|| {
        require_memory()?;
        Ok(NamespaceHandle(Namespace::new()))
    }))
}

/// Frees the handle.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_namespace_free(space: *mut NamespaceHandle) {
    if !space.is_null() {
        // SAFETY: the header's contract. A namespace owns no library.
        drop(caught(|| unsafe { take(space, "namespace") }));
    }
}

/// [`Loader::namespace`](crate::Loader::namespace).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_namespace(
    options: *mut Options,
    space: *const NamespaceHandle,
) -> c_int {
    // SAFETY: the header's contract.
    let space = unsafe { space.as_ref() };
    // SAFETY: as above.
    unsafe {
        set(options, |options| {
            options.change(|mut loader| match space {
                Some(NamespaceHandle(space)) => loader.namespace(space),
                None => {
                    loader.settings.namespace = None;
                    loader
                }
            })
        })
    }
}

/// `memdl_library_request`.
#[repr(C)]
pub struct CLibraryRequest {
    name: *const c_char,
    needed_by: *const c_char,
    folders: *const *const c_char,
    folder_count: usize,
}

/// `memdl_provided`.
#[repr(C)]
pub struct CProvided {
    bytes: *const c_void,
    len: usize,
    library: *const LibraryHandle,
    name: *const c_char,
    error: *const c_char,
    buffer: *mut BufferHandle,
}

/// `memdl_provider`.
pub type Provider = unsafe extern "C" fn(
    request: *const CLibraryRequest,
    provided: *mut CProvided,
    user: *mut c_void,
) -> c_int;

/// Asks a provider.
///
/// # Safety
/// The header's contract.
unsafe fn ask(
    provider: Provider,
    user: *mut c_void,
    request: &LibraryRequest<'_>,
) -> Option<Provided> {
    // A library that there is no memory for is not provided.
    let (name, needed_by) = (c_string(request.name()).ok()?, c_string(request.needed_by()).ok()?);
    let folder = |it: &Path| try_c_string(it.as_os_str().as_bytes()).transpose();
    let owned = try_collect_ok(request.folders().filter_map(folder)).ok()?;
    let folders = try_collect(owned.iter().map(|it| it.as_ptr())).ok()?;
    let request = CLibraryRequest {
        name: name.as_ptr(),
        needed_by: needed_by.as_ptr(),
        folders: folders.as_ptr(),
        folder_count: folders.len(),
    };
    let mut provided = CProvided {
        bytes: ptr::null(),
        len: 0,
        library: ptr::null(),
        name: ptr::null(),
        error: ptr::null(),
        buffer: ptr::null_mut(),
    };
    // SAFETY: the caller's promise; request and answer live during the call.
    let answer = unsafe { provider(&request, &mut provided, user) };
    // SAFETY: the caller's promise: null, or a buffer that nothing else has taken.
    let buffer =
        (!provided.buffer.is_null()).then(|| caught(|| unsafe { take(provided.buffer, "buffer") }));
    if answer == 0 {
        return None;
    }
    let text = |it: *const c_char| {
        // SAFETY: the caller's promise: null, or a string that lives until the next call.
        (!it.is_null()).then(|| unsafe { CStr::from_ptr(it) }.to_string_lossy().into_owned())
    };
    if let Some(reason) = text(provided.error) {
        return Some(Provided::failed(reason));
    }
    // SAFETY: the caller's promise: null, or a library that is not closed meanwhile.
    if let Some(library) = unsafe { provided.library.as_ref() } {
        return Some(Provided::from(&*library.library));
    }
    let provided_bytes = match buffer {
        Some(taken) => Provided::from(taken?.buffer),
        // SAFETY: the caller's promise: these bytes can be read.
        None => caught(|| unsafe { super::pointers::copied(provided.bytes, provided.len) })
            .map(Provided::from_bytes)?,
    };
    Some(match text(provided.name) {
        Some(name) => provided_bytes.named(name),
        None => provided_bytes,
    })
}

/// [`Loader::provider`](crate::Loader::provider).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_provider(
    options: *mut Options,
    provider: Option<Provider>,
    user: *mut c_void,
    free_user: Option<FreeUser>,
) -> c_int {
    let user = Arc::new(OwnedUser::new(user, free_user));
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            options.change(|mut loader| match provider {
                // SAFETY: the header's contract.
                Some(provider) => loader.provider(move |it| ask(provider, user.get(), it)),
                None => {
                    loader.settings.provider = None;
                    loader
                }
            })
        })
    }
}

/// [`Library::make_global`](crate::Library::make_global).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_make_global(library: *const LibraryHandle) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract.
        let library = unsafe { &handle(library, "library")?.library };
        Ok(library.make_global()?)
    }))
}
