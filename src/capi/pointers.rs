//! Pointers and strings that come from C, and handles that go there.
//!
//! Each function checks what can be checked, and says what the caller promises of the rest.

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

/// # Safety
/// Null, or a C string that lives for `'a`.
pub(super) unsafe fn c_str<'a>(text: *const c_char) -> Result<&'a CStr, Failure> {
    if text.is_null() {
        return Err("a string is null".into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// # Safety
/// As [`c_str`].
pub(super) unsafe fn utf8<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let text = unsafe { c_str(text)? };
    text.to_str().map_err(|_| format!("the name {text:?} is not UTF-8").into())
}

/// # Safety
/// Null, or `len` bytes that live, and that nobody writes to, for `'a`.
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

/// # Safety
/// As [`bytes_of`].
pub(super) unsafe fn copied(bytes: *const c_void, len: usize) -> Result<Bytes<'static>, Failure> {
    require_memory()?;
    // SAFETY: the caller's promise.
    Ok(Bytes::Read(Arc::new(try_copy(unsafe { bytes_of(bytes, len)? })?)))
}

/// # Safety
/// Null, or a live handle of that type.
pub(super) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise. Of a handle that others may use at the same time there are only
    // shared references.
    unsafe { handle.as_ref() }.ok_or_else(|| format!("the {what} is null").into())
}

/// Takes a handle back from C.
///
/// # Safety
/// Null, or a handle that [`give`] gave and nobody uses any more.
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
