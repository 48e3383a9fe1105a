//! Pointers and strings from C, and handles for C.
//!
//! Each function checks what it can; its `# Safety` section has the rest.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Arc;

use super::errors::Failure;
use crate::base::fallible::require_memory;
use crate::base::fallible::try_copy;
use crate::memory::bytes::Bytes;

/// A string from C.
///
/// # Safety
/// `text` is null, or a C string that lives for `'a`.
pub(super) unsafe fn c_str<'a>(text: *const c_char) -> Result<&'a CStr, Failure> {
    if text.is_null() {
        return Err("a string is null".into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// A string from C, in UTF-8.
///
/// # Safety
/// As [`c_str`].
pub(super) unsafe fn utf8<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let text = unsafe { c_str(text)? };
    text.to_str().map_err(|_| format!("the name {text:?} is not UTF-8").into())
}

/// Bytes from C.
///
/// # Safety
/// `bytes` is null, or points to `len` bytes that live and are not written to for `'a`.
pub(super) unsafe fn bytes_of<'a>(bytes: *const c_void, len: usize) -> Result<&'a [u8], Failure> {
    if bytes.is_null() {
        return Err("the bytes are null".into());
    }
    if isize::try_from(len).is_err() {
        return Err("more bytes than there is memory".into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(bytes.cast(), len) })
}

/// A copy of bytes from C.
///
/// # Safety
/// As [`bytes_of`].
pub(super) unsafe fn copied(bytes: *const c_void, len: usize) -> Result<Bytes<'static>, Failure> {
    require_memory()?;
    // SAFETY: the caller's promise.
    Ok(Bytes::Read(Arc::new(try_copy(unsafe { bytes_of(bytes, len)? })?)))
}

/// A handle that C passes. `what` names it in the error.
///
/// # Safety
/// `handle` is null, or a live handle of this type.
pub(super) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise. All references to a handle that others may use are shared.
    unsafe { handle.as_ref() }.ok_or_else(|| format!("the {what} is null").into())
}

/// A handle that C passes, to change it. `what` names it in the error.
///
/// # Safety
/// As [`handle`], and nobody else uses it for `'a`.
pub(super) unsafe fn handle_mut<'a, T>(handle: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_mut() }.ok_or_else(|| format!("the {what} is null").into())
}

/// Takes a handle back from C.
///
/// # Safety
/// `handle` is null, or a handle that came from [`give`] and is not used any more.
pub(super) unsafe fn take<T>(handle: *mut T, what: &str) -> Result<Box<T>, Failure> {
    if handle.is_null() {
        return Err(format!("the {what} is null").into());
    }
    // SAFETY: the caller's promise: it came from `Box::into_raw`, and this is the only taker.
    Ok(unsafe { Box::from_raw(handle) })
}

/// Gives a handle to C; null for `None`.
pub(super) fn give<T>(value: Option<T>) -> *mut T {
    value.map_or(ptr::null_mut(), |value| Box::into_raw(Box::new(value)))
}
