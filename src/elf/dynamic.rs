//! The dynamic section as tags and values.
//!
//! It is read from the received bytes of an image, and from memory for a library that `ld.so` has
//! loaded. Values stay as they are in the section: this file does not check them, and follows no
//! address. (goblin's `DynamicInfo` is not used: it turns addresses into file offsets, and into 0
//! where that fails.)
//!
//! Source: gABI "Dynamic Section".

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf64::dynamic::{DT_GNU_HASH, DT_NEEDED, DT_NULL};

use crate::base::addr::Vaddr;
use crate::elf::read::u64_at;

/// Size of one `Elf64_Dyn`.
const DYN_SIZE: usize = 16;

// The tags that goblin has no names for.

/// `DT_RELR` and its companions: packed relative relocations (gABI proposal, in glibc since 2.36).
pub(super) const DT_RELRSZ: u64 = 35;
pub(super) const DT_RELR: u64 = 36;
pub(super) const DT_RELRENT: u64 = 37;
/// Libraries that this one is a filter for (gABI of Solaris, in glibc too).
pub(crate) const DT_AUXILIARY: u64 = 0x7fff_fffd;
pub(crate) const DT_FILTER: u64 = 0x7fff_ffff;
/// Android's packed tables, with and without addends, and its own tags for `DT_RELR`.
pub(super) const DT_ANDROID_REL: u64 = 0x6000_000f;
pub(super) const DT_ANDROID_RELA: u64 = 0x6000_0011;
pub(super) const DT_ANDROID_RELASZ: u64 = 0x6000_0012;
pub(super) const DT_ANDROID_RELR: u64 = 0x6fff_e000;
pub(super) const DT_ANDROID_RELRSZ: u64 = 0x6fff_e001;
pub(super) const DT_ANDROID_RELRENT: u64 = 0x6fff_e003;

/// The entries up to `DT_NULL`.
#[derive(Debug)]
pub(crate) struct Dynamic<'a> {
    entries: &'a [[u8; DYN_SIZE]],
    /// The values of the usual tags, by [`slot`]: a lookup takes no search.
    values: [u64; SLOTS],
    /// A bit for each slot that has a value.
    present: u64,
    /// The number of `DT_NEEDED` entries.
    needed_count: usize,
    /// Whether there are tags without a slot.
    has_others: bool,
    /// Whether there is a `DT_NULL`.
    is_terminated: bool,
}

const SLOTS: usize = 64;
/// The first slot of the 16 consecutive GNU tags.
const GNU_SLOTS: usize = 48;

/// The slot of a tag: the tags of the gABI and those of GNU have one. Less than [`SLOTS`].
#[inline]
fn slot(tag: u64) -> Option<usize> {
    match tag {
        0..=DT_RELRENT => Some(tag as usize),
        // The tags of versions, and `DT_FLAGS_1`.
        0x6fff_fff0..=0x6fff_ffff => Some(GNU_SLOTS | (tag & 15) as usize),
        DT_GNU_HASH => Some(38),
        _ => None,
    }
}

/// The tag and the value of an entry.
#[inline]
fn parts(entry: &[u8; DYN_SIZE]) -> (u64, u64) {
    (u64_at(entry, 0).unwrap_or(DT_NULL), u64_at(entry, 8).unwrap_or(0))
}

impl<'a> Dynamic<'a> {
    /// Reads entries until `DT_NULL` or the end of `section`.
    #[inline]
    pub(crate) fn parse(section: &'a [u8]) -> Dynamic<'a> {
        let (entries, _) = section.as_chunks::<DYN_SIZE>();
        let mut dynamic = Dynamic {
            entries,
            values: [0; SLOTS],
            present: 0,
            needed_count: 0,
            has_others: false,
            is_terminated: false,
        };
        for (index, (tag, value)) in entries.iter().map(parts).enumerate() {
            if tag == DT_NULL {
                dynamic.is_terminated = true;
                dynamic.entries = entries.get(..index).unwrap_or_default();
                break;
            }
            dynamic.needed_count = dynamic.needed_count.wrapping_add(usize::from(tag == DT_NEEDED));
            match slot(tag).and_then(|slot| Some((slot, dynamic.values.get_mut(slot)?))) {
                Some((slot, current)) => {
                    *current = value;
                    dynamic.present |= 1 << slot;
                }
                None => dynamic.has_others = true,
            }
        }
        dynamic
    }

    /// The entries of a section, up to `DT_NULL`.
    pub(crate) fn entries(section: &'a [u8]) -> impl Iterator<Item = (u64, u64)> + 'a {
        let (entries, _) = section.as_chunks::<DYN_SIZE>();
        entries.iter().map(parts).take_while(|(tag, _)| *tag != DT_NULL)
    }

    /// Whether `DT_NULL` ends the section.
    pub(crate) fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    /// The value of `tag`. Where several entries have it, the last counts, as in `ld.so`.
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
        self.entries.iter().rev().map(parts).find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// The value of `tag` as an address.
    pub(crate) fn address(&self, tag: u64) -> Option<Vaddr> {
        self.get(tag).map(Vaddr)
    }

    /// The tags and values of all entries with a tag that `wanted` accepts, in order.
    pub(crate) fn all_with(
        &self,
        wanted: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().map(parts).filter(move |entry| wanted(entry.0))
    }

    /// The number of `DT_NEEDED` entries.
    pub(crate) fn needed_count(&self) -> usize {
        self.needed_count
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The table that starts at tag `start` and is `size` (another tag) bytes long: `None` if it
    /// is absent or empty, `Some(None)` if it wraps around the address space.
    pub(crate) fn table(&self, start: u64, size: u64) -> Option<Option<Range<Vaddr>>> {
        let size = self.get(size).filter(|&size| size != 0)?;
        Some(self.address(start)?.range(size))
    }

    /// Subtracts `bias` from the values of `tags` that are not less than it, as [`Dynamic::get`] gives them.
    /// `ld.so` adds the load bias to these entries in the memory of some libraries, and not of others.
    pub(crate) fn unrelocate(&mut self, tags: &[u64], bias: u64) {
        for &tag in tags {
            if let Some(value) = slot(tag).and_then(|slot| self.values.get_mut(slot)) {
                *value = value.checked_sub(bias).unwrap_or(*value);
            }
        }
    }
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
        let bytes = section(&[(1, 10), (5, 7), (1, 11), (5, 8), (0, 0), (5, 9)]);
        let dynamic = Dynamic::parse(&bytes);
        assert_eq!(dynamic.get(5), Some(8));
        let ones = dynamic.all_with(|tag| tag == 1).map(|it| it.1);
        assert_eq!(ones.collect::<Vec<_>>(), [10, 11]);
        assert_eq!(Dynamic::entries(&bytes).count(), 4);
        assert_eq!(dynamic.get(9), None);
        assert!(dynamic.is_terminated());
        // No two tags share a slot, and tags without a slot are found too.
        let tags: Vec<u64> = (1..=40)
            .chain(0x6fff_ffe0..=0x6fff_ffff)
            .chain([DT_GNU_HASH, 0x6000_000f, u64::MAX])
            .collect();
        let entries: Vec<_> = tags.iter().map(|&tag| (tag, !tag)).collect();
        let bytes = section(&entries);
        let dynamic = Dynamic::parse(&bytes);
        assert!(tags.iter().all(|&tag| dynamic.get(tag) == Some(!tag)));
        assert!(!dynamic.is_terminated());
        let bytes = section(&[(5, 70), (6, 3)]);
        let mut moved = Dynamic::parse(&bytes);
        moved.unrelocate(&[5, 6], 60);
        assert_eq!((moved.get(5), moved.get(6)), (Some(10), Some(3)));
    }

    #[test]
    fn a_table_that_wraps_differs_from_one_that_is_absent() {
        let bytes = section(&[(7, u64::MAX), (8, 24), (25, 16), (27, 0)]);
        let dynamic = Dynamic::parse(&bytes);
        assert_eq!(dynamic.table(7, 8), Some(None));
        assert_eq!(dynamic.table(25, 27), None);
    }
}
