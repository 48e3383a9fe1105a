//! `memdl_buffer`: memory that an image is received into.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

use super::errors::{caught, status};
use super::pointers::{give, handle, handle_mut, take};
use crate::ImageBuffer;

/// `memdl_buffer`.
pub struct BufferHandle {
    pub(super) buffer: ImageBuffer,
    /// The start of the bytes: C may write to them at any time, so no later call borrows them.
    data: *mut c_void,
}

/// [`ImageBuffer::new`].
#[unsafe(no_mangle)]
pub extern "C" fn memdl_buffer_new(len: usize) -> *mut BufferHandle {
    give(caught(|| {
        let mut buffer = ImageBuffer::new(len)?;
        let data = buffer.as_mut_ptr().cast();
        Ok(BufferHandle { buffer, data })
    }))
}

/// The buffer's bytes.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_data(buffer: *const BufferHandle) -> *mut c_void {
    // SAFETY: the header's contract.
    let buffer = caught(|| unsafe { handle(buffer, "buffer") });
    buffer.map_or(ptr::null_mut(), |buffer| buffer.data)
}

/// The buffer's size.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_size(buffer: *const BufferHandle) -> usize {
    // SAFETY: the header's contract. The length is read without a borrow of the bytes.
    let buffer = caught(|| unsafe { handle(buffer, "buffer") });
    buffer.map_or(0, |buffer| buffer.buffer.len())
}

/// [`ImageBuffer::grow`] and [`ImageBuffer::truncate`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_resize(buffer: *mut BufferHandle, len: usize) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract: nobody else uses the buffer during the call.
        let handle = unsafe { handle_mut(buffer, "buffer") }?;
        handle.buffer.truncate(len);
        handle.buffer.grow(len)?;
        handle.data = handle.buffer.as_mut_ptr().cast();
        Ok(())
    }))
}

/// Frees a buffer that was given to neither `memdl_open_buffer` nor `memdl_prepare_buffer`.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_free(buffer: *mut BufferHandle) {
    if !buffer.is_null() {
        // SAFETY: the header's contract.
        caught(|| unsafe { take(buffer, "buffer") }.map(drop));
    }
}
