//! `memdl_version`: which version runs.

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ffi::c_uint;

/// The version as a text. It ends with a NUL.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// `MEMDL_VERSION` of the version that runs.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_version() -> c_uint {
    let part = |text: &str| text.parse().unwrap_or(0);
    let [major, minor, patch]: [c_uint; 3] = [
        part(env!("CARGO_PKG_VERSION_MAJOR")),
        part(env!("CARGO_PKG_VERSION_MINOR")),
        part(env!("CARGO_PKG_VERSION_PATCH")),
    ];
    // No part has more than three digits.
    major
        .saturating_mul(1_000_000)
        .saturating_add(minor.saturating_mul(1_000))
        .saturating_add(patch)
}

/// The version as a text.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_version_text() -> *const c_char {
    VERSION.as_ptr().cast()
}
