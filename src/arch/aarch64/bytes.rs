//! Searches with what every processor of the machine has.

#![forbid(unsafe_code)]

use memchr::arch::aarch64::neon::memchr::One;

/// The offset of the first NUL.
#[inline]
pub(crate) fn first_nul(bytes: &[u8]) -> Option<usize> {
    One::new(0)?.find(bytes)
}
