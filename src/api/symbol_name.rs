//! The types that name a symbol.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString};

/// What can name a symbol: text, bytes and C strings. One NUL at the end does not count, so `"foo"`, `b"foo\0"`
/// and `c"foo"` name the same symbol.
///
/// ```
/// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
/// // SAFETY: nothing is done with them.
/// let [one, other] = unsafe { [library.get::<*const u8>(c"foo")?, library.get(b"foo\0")?] };
/// assert_eq!(*one, *other);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AsSymbolName {
    /// The bytes of the name, perhaps with a NUL at the end.
    ///
    /// ```
    /// use memdl::AsSymbolName;
    ///
    /// assert_eq!(c"foo".as_symbol_name(), b"foo");
    /// ```
    fn as_symbol_name(&self) -> &[u8];
}

/// Implements the trait by a method that gives the bytes.
macro_rules! named_by {
    ($($type:ty: $bytes:ident),* $(,)?) => {$(
        impl AsSymbolName for $type {
            fn as_symbol_name(&self) -> &[u8] {
                self.$bytes()
            }
        }
    )*};
}
named_by! {
    str: as_bytes, String: as_bytes, Box<str>: as_bytes, Cow<'_, str>: as_bytes,
    [u8]: as_ref, Vec<u8>: as_ref, Cow<'_, [u8]>: as_ref,
    CStr: to_bytes, CString: to_bytes,
}

impl<const N: usize> AsSymbolName for [u8; N] {
    fn as_symbol_name(&self) -> &[u8] {
        self
    }
}

impl<T: AsSymbolName + ?Sized> AsSymbolName for &T {
    fn as_symbol_name(&self) -> &[u8] {
        (**self).as_symbol_name()
    }
}
