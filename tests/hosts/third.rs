//! A library with a copy of memdl of its own in it.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

/// The address of a symbol of an image that is loaded once.
///
/// # Safety
/// A library's bytes, and a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn third_loads(
    bytes: *const u8,
    len: usize,
    symbol: *const c_char,
) -> *mut c_void {
    static LIBRARY: OnceLock<two::Library> = OnceLock::new();
    // SAFETY: the caller's promise.
    let (bytes, symbol) =
        unsafe { (std::slice::from_raw_parts(bytes, len), CStr::from_ptr(symbol)) };
    let loader = two::Loader::new().system_libraries(true);
    // SAFETY: the test's own library.
    let library = LIBRARY.get_or_init(|| unsafe { loader.load(bytes) }.unwrap());
    // SAFETY: nothing is done with it here.
    unsafe { library.get::<*mut c_void>(symbol.to_bytes()) }.unwrap().as_raw_ptr()
}
