//! The dynamic section as tags and values (gABI, "Dynamic Section").
//!
//! Read from the received bytes for an image of ours, and from memory for a library of `ld.so`'s;
//! both go through [`Dynamic`] and [`ReadAt`], so that the symbol code exists once. Values stay as
//! the file states them. (goblin's `DynamicInfo` is not used: it turns addresses into file offsets
//! and silently into 0 where that fails.)

#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::ops::Range;

use goblin::elf64::dynamic::{DT_GNU_HASH, DT_NULL};

use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::try_collect;

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
    /// The values of most tags, for they are asked for again and again; by [`slot`].
    values: [u64; SLOTS],
    /// Which of them there are, as bits.
    present: u64,
    /// There are tags without a slot.
    has_others: bool,
    /// There is a `DT_NULL`.
    is_terminated: bool,
}

const SLOTS: usize = 64;
/// Of these, where the 16 of GNU's that lie together begin.
const GNU_SLOTS: usize = 48;

/// Where [`Dynamic`] keeps the value of a tag: of those of the gABI, and of GNU's. At most 64.
#[inline]
fn slot(tag: u64) -> Option<usize> {
    const DT_RELRENT: u64 = 37;
    match tag {
        0..=DT_RELRENT => Some(tag as usize),
        // The versions' tags, and `DT_FLAGS_1`.
        0x6fff_fff0..=0x6fff_ffff => Some(GNU_SLOTS | (tag & 15) as usize),
        DT_GNU_HASH => Some(38),
        _ => None,
    }
}

impl Dynamic {
    /// Reads entries until `DT_NULL` or the end of `section`.
    pub(crate) fn parse(section: &[u8]) -> Result<Dynamic, Error> {
        let (all, _) = section.as_chunks::<DYN_SIZE>();
        let tag = |entry: &[u8; DYN_SIZE]| u64_at(entry, 0).unwrap_or(DT_NULL);
        // Counted first: a vector that grows is copied again and again.
        let count = all.iter().position(|entry| tag(entry) == DT_NULL);
        let is_terminated = count.is_some();
        let stated = all.iter().take(count.unwrap_or(all.len()));
        let entries = try_collect(stated.map(|it| (tag(it), u64_at(it, 8).unwrap_or(0))))?;
        let (values, present, has_others) = ([0; SLOTS], 0, false);
        let mut dynamic = Dynamic { entries, values, present, has_others, is_terminated };
        dynamic.fill_slots();
        Ok(dynamic)
    }

    fn fill_slots(&mut self) {
        for &(tag, value) in &self.entries {
            match slot(tag).and_then(|slot| Some((slot, self.values.get_mut(slot)?))) {
                Some((slot, place)) => {
                    *place = value;
                    self.present |= 1 << slot;
                }
                None => self.has_others = true,
            }
        }
    }

    /// Whether `DT_NULL` ends the section.
    pub(crate) fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    /// The value of `tag`; of the last entry if there are several, as `ld.so` takes it.
    #[inline]
    pub(crate) fn get(&self, tag: u64) -> Option<u64> {
        match slot(tag) {
            Some(slot) if self.present >> slot & 1 != 0 => self.values.get(slot).copied(),
            Some(_) => None,
            None if self.has_others => self.find(tag),
            None => None,
        }
    }

    #[cold]
    fn find(&self, tag: u64) -> Option<u64> {
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
            if tags.contains(tag) {
                *value = value.checked_sub(bias).unwrap_or(*value);
            }
        }
        self.fill_slots();
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
        let dynamic =
            Dynamic::parse(&section(&[(1, 10), (5, 7), (1, 11), (5, 8), (0, 0), (5, 9)])).unwrap();
        assert_eq!(dynamic.get(5), Some(8));
        assert_eq!(dynamic.all(1).collect::<Vec<_>>(), [10, 11]);
        assert_eq!(dynamic.get(9), None);
        assert!(dynamic.is_terminated());
        // Each tag has a place of its own, and those without are found too.
        let tags: Vec<u64> = (1..=40)
            .chain(0x6fff_ffe0..=0x6fff_ffff)
            .chain([DT_GNU_HASH, 0x6000_000f, u64::MAX])
            .collect();
        let entries: Vec<_> = tags.iter().map(|&tag| (tag, !tag)).collect();
        let dynamic = Dynamic::parse(&section(&entries)).unwrap();
        assert!(tags.iter().all(|&tag| dynamic.get(tag) == Some(!tag)));
        assert!(!dynamic.is_terminated());
        let moved = Dynamic::parse(&section(&[(5, 70), (6, 3)])).unwrap().unrelocated(&[5, 6], 60);
        assert_eq!((moved.get(5), moved.get(6)), (Some(10), Some(3)));
    }

    #[test]
    fn a_table_that_wraps_is_told_from_one_that_is_absent() {
        let dynamic =
            Dynamic::parse(&section(&[(7, u64::MAX), (8, 24), (25, 16), (27, 0)])).unwrap();
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
