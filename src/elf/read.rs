//! Reading an image's bytes: by stated address ([`ReadAt`]), and little-endian words and strings by
//! offset. Every function gives `None` where the bytes end; none panics.
//!
//! Sources: gABI "Data Representation" (`ELFDATA2LSB`), "String Table".

#![forbid(unsafe_code)]

pub(crate) use memdl_symfile::base::read::ReadAt;

use crate::arch;

/// The little-endian word at `offset`.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

/// The little-endian 32-bit word at `offset`.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

/// The little-endian half word at `offset`.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*word))
}

/// The string at the start of `bytes`, up to its NUL.
#[inline]
pub(super) fn terminated(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..arch::first_nul(bytes)?)
}

/// The NUL-terminated string at `offset` of a string table, without its NUL.
pub(crate) fn string_at(strtab: &[u8], offset: u64) -> Option<&[u8]> {
    let tail = strtab.get(usize::try_from(offset).ok()?..)?;
    terminated(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_little_endian_and_end_with_the_bytes() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(u16_at(&bytes, 7), Some(0x0908));
        assert_eq!(u32_at(&bytes, 1), Some(0x0504_0302));
        assert_eq!(u64_at(&bytes, 1), Some(0x0908_0706_0504_0302));
        assert_eq!((u16_at(&bytes, 8), u32_at(&bytes, 6), u64_at(&bytes, 2)), (None, None, None));
        assert_eq!(u16_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn a_string_without_its_nul_is_none() {
        assert_eq!(string_at(b"\0ab\0c", 1), Some(&b"ab"[..]));
        assert_eq!(string_at(b"\0ab\0c", 4), None);
        assert_eq!(string_at(b"\0ab\0c", u64::MAX), None);
    }
}
