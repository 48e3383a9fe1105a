//! `memdl_template` and `memdl_pool`: many instances of one library.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use super::buffers::BufferHandle;
use super::errors::{caught, transparent};
use super::library::{Held, LibraryHandle, loaded};
use super::options::{Options, loader_of};
use super::pointers::{bytes_of, give, handle, take};
use crate::Pool;
use crate::Reset;
use crate::Template;

/// `memdl_template`.
pub struct TemplateHandle(Template);

/// `memdl_pool`.
pub struct PoolHandle(Pool);

/// [`Loader::prepare`](crate::Loader::prepare).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_prepare(
    bytes: *const c_void,
    len: usize,
    options: *const Options,
) -> *mut TemplateHandle {
    give(caught(|| {
        // SAFETY: the header's contract.
        let (bytes, loader) = unsafe { (bytes_of(bytes, len)?, loader_of(options)) };
        // SAFETY: the header's contract: libraries that the library needs may be run.
        Ok(TemplateHandle(unsafe { loader.prepare(bytes)? }))
    }))
}

/// [`Loader::prepare_buffer`](crate::Loader::prepare_buffer). Takes the buffer, even if it fails.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_prepare_buffer(
    buffer: *mut BufferHandle,
    options: *const Options,
) -> *mut TemplateHandle {
    give(caught(|| {
        // SAFETY: the header's contract.
        let (buffer, loader) = unsafe { (take(buffer, "buffer")?.buffer, loader_of(options)) };
        // SAFETY: the header's contract: libraries that the library needs may be run.
        Ok(TemplateHandle(unsafe { loader.prepare_buffer(buffer)? }))
    }))
}

/// [`Template::instantiate`].
///
/// # Safety
/// The header's contract: runs constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_instantiate(
    template: *const TemplateHandle,
) -> *mut LibraryHandle {
    // SAFETY: the header's contract.
    let template = caught(|| unsafe { handle(template, "template") });
    let Some(TemplateHandle(template)) = template else { return ptr::null_mut() };
    // SAFETY: the header's contract: the library may be run.
    loaded(transparent(|| unsafe { template.instantiate() }))
}

/// [`Template::id`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_template_id(template: *const TemplateHandle) -> u64 {
    // SAFETY: the header's contract.
    let template = caught(|| unsafe { handle(template, "template") });
    template.map_or(0, |TemplateHandle(template)| template.id())
}

/// Frees a template. Its instances stay.
///
/// # Safety
/// The header's contract. This may drop the last reference to a library, whose destructors then run.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_template_free(template: *mut TemplateHandle) {
    if !template.is_null() {
        // SAFETY: the header's contract.
        let template = caught(|| unsafe { take(template, "template") });
        transparent(|| drop(template));
    }
}

/// [`Template::pool`] with [`Pool::reset_to`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_pool_new(
    template: *const TemplateHandle,
    capacity: usize,
    reset: c_int,
) -> *mut PoolHandle {
    give(caught(|| {
        // SAFETY: the header's contract.
        let TemplateHandle(template) = unsafe { handle(template, "template")? };
        let reset = match reset {
            0 => Reset::AfterConstructors,
            1 => Reset::BeforeConstructors,
            other => return Err(format!("there is no memdl_reset {other}").into()),
        };
        Ok(PoolHandle(template.pool(capacity).reset_to(reset)))
    }))
}

/// [`Pool::acquire`].
///
/// # Safety
/// The header's contract: runs constructors, and destructors when the library is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_pool_acquire(pool: *const PoolHandle) -> *mut LibraryHandle {
    // SAFETY: the header's contract.
    let pool = caught(|| unsafe { handle(pool, "pool") });
    let Some(PoolHandle(pool)) = pool else { return ptr::null_mut() };
    // SAFETY: the header's contract: the library may be run, and is not running when it is closed.
    let acquired = transparent(|| unsafe { pool.acquire() });
    give(caught(|| LibraryHandle::new(Held::OfPool(acquired?))))
}

/// [`Pool::parked`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_pool_parked(pool: *const PoolHandle) -> usize {
    caught(|| {
        // SAFETY: the header's contract.
        let PoolHandle(pool) = unsafe { handle(pool, "pool")? };
        Ok(pool.parked())
    })
    .unwrap_or(0)
}

/// Frees a pool and unloads its idle instances.
///
/// # Safety
/// The header's contract: runs destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_pool_free(pool: *mut PoolHandle) {
    if !pool.is_null() {
        // SAFETY: the header's contract.
        let pool = caught(|| unsafe { take(pool, "pool") });
        transparent(|| drop(pool));
    }
}
