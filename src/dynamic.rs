//! The dynamic section as tags and values (gABI, "Dynamic Section").
//!
//! Read from the received bytes for an image of ours, and from memory for a library of `ld.so`'s;
//! both go through [`Dynamic`] and [`ReadAt`], so that the symbol code exists once. Values stay as
//! the file states them. (goblin's `DynamicInfo` is not used: it turns addresses into file offsets
//! and silently into 0 where that fails.)

#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::ops::Range;

use goblin::elf64::dynamic::DT_NULL;

use crate::addr::Vaddr;

/// Size of one `Elf64_Dyn`.
const DYN_SIZE: usize = 16;

/// Bytes of an image by their stated address, whether it is still a file or already mapped.
pub(crate) trait ReadAt {
    /// Exactly these bytes; `None` unless all lie in one segment's file-backed part.
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]>;

    /// All from `start` to the end of its segment's file-backed part.
    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]>;
}

/// The entries up to `DT_NULL`.
#[derive(Debug)]
pub(crate) struct Dynamic {
    entries: Vec<(u64, u64)>,
}

impl Dynamic {
    /// Reads entries until `DT_NULL` or the end of `section`.
    pub(crate) fn parse(section: &[u8]) -> Dynamic {
        let (entries, _) = section.as_chunks::<DYN_SIZE>();
        let tag = |entry: &[u8; DYN_SIZE]| u64_at(entry, 0).unwrap_or(DT_NULL);
        let end = entries.iter().position(|entry| tag(entry) == DT_NULL).unwrap_or(entries.len());
        let entries = entries[..end].iter();
        Dynamic { entries: entries.map(|it| (tag(it), u64_at(it, 8).unwrap_or(0))).collect() }
    }

    /// The value of `tag`; of the last entry if there are several, as `ld.so` takes it.
    pub(crate) fn get(&self, tag: u64) -> Option<u64> {
        self.entries.iter().rev().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// The value of `tag` as an address.
    pub(crate) fn address(&self, tag: u64) -> Option<Vaddr> {
        self.get(tag).map(Vaddr)
    }

    /// The values of all entries with `tag`, in order.
    pub(crate) fn all(&self, tag: u64) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().filter(move |entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// The table that starts at tag `start` and is `size` (another tag) bytes long: `None` if it
    /// is absent or empty, `Some(None)` if it wraps around the address space.
    pub(crate) fn table(&self, start: u64, size: u64) -> Option<Option<Range<Vaddr>>> {
        let size = self.get(size).filter(|&size| size != 0)?;
        Some(self.address(start)?.range(size))
    }

    /// With each value of the given tags moved down by `bias`, where it lies above it: `ld.so`
    /// relocates some of its libraries' entries in place and leaves those of others alone.
    pub(crate) fn unrelocated(mut self, tags: &[u64], bias: u64) -> Dynamic {
        for (tag, value) in &mut self.entries {
            if tags.contains(tag) && *value >= bias {
                *value -= bias;
            }
        }
        self
    }
}

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

/// The NUL-terminated string at `offset` of a string table, without its NUL.
pub(crate) fn string_at(strtab: &[u8], offset: u64) -> Option<&[u8]> {
    let tail = strtab.get(usize::try_from(offset).ok()?..)?;
    CStr::from_bytes_until_nul(tail).ok().map(CStr::to_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(entries: &[(u64, u64)]) -> Vec<u8> {
        entries
            .iter()
            .flat_map(|&(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
            .collect()
    }

    #[test]
    fn nothing_behind_the_null_entry_is_read_and_the_last_entry_of_a_tag_counts() {
        let dynamic = Dynamic::parse(&section(&[(1, 10), (5, 7), (1, 11), (5, 8), (0, 0), (5, 9)]));
        assert_eq!(dynamic.get(5), Some(8));
        assert_eq!(dynamic.all(1).collect::<Vec<_>>(), [10, 11]);
        assert_eq!(dynamic.get(9), None);
    }

    #[test]
    fn a_table_that_wraps_is_told_from_one_that_is_absent() {
        let dynamic = Dynamic::parse(&section(&[(7, u64::MAX), (8, 24), (25, 16), (27, 0)]));
        assert_eq!(dynamic.table(7, 8), Some(None));
        assert_eq!(dynamic.table(25, 27), None);
    }

    #[test]
    fn a_string_without_its_nul_is_none() {
        assert_eq!(string_at(b"\0ab\0c", 1), Some(&b"ab"[..]));
        assert_eq!(string_at(b"\0ab\0c", 4), None);
        assert_eq!(string_at(b"\0ab\0c", u64::MAX), None);
    }
}
