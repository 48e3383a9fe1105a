//! What `ld.so` does for its own libraries and memdl for its images.
//!
//! Some functions of the C library know about loaded libraries and so are wrong for images that
//! `ld.so` has never heard of. Imports of these are bound to memdl's versions, which know memdl's
//! images and pass everything else on. Only images see them: nothing is interposed in the host,
//! and an image or a caller that defines such a name itself keeps its own.

#![forbid(unsafe_code)]

use crate::arch;

/// The address that an image's import of `name` is bound to instead of the host's.
pub(crate) fn replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"__tls_get_addr" => Some(arch::tls_get_addr as *const () as usize),
        _ => None,
    }
}
