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

use goblin::elf64::dynamic::{DT_GNU_HASH, DT_NULL};

use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::try_collect;
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
pub(crate) struct Dynamic {
    entries: Vec<(u64, u64)>,
    /// The values of the usual tags, by [`slot`]: a lookup takes no search.
    values: [u64; SLOTS],
    /// A bit for each slot that has a value.
    present: u64,
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

impl Dynamic {
    /// Reads entries until `DT_NULL` or the end of `section`.
    pub(crate) fn parse(section: &[u8]) -> Result<Dynamic, Error> {
        let (all, _) = section.as_chunks::<DYN_SIZE>();
        let tag = |entry: &[u8; DYN_SIZE]| u64_at(entry, 0).unwrap_or(DT_NULL);
        // Counted first, so that the vector need not grow.
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
                Some((slot, current)) => {
                    *current = value;
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

    /// The tags and values of all entries with a tag that `wanted` accepts, in order.
    pub(crate) fn all_with(
        &self,
        wanted: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().filter(move |entry| wanted(entry.0)).copied()
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

    /// Subtracts `bias` from the values of `tags` that are not less than it. `ld.so` adds the load bias to
    /// these entries in the memory of some libraries, and not of others.
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
        // No two tags share a slot, and tags without a slot are found too.
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
    fn a_table_that_wraps_differs_from_one_that_is_absent() {
        let dynamic =
            Dynamic::parse(&section(&[(7, u64::MAX), (8, 24), (25, 16), (27, 0)])).unwrap();
        assert_eq!(dynamic.table(7, 8), Some(None));
        assert_eq!(dynamic.table(25, 27), None);
    }
}
