//! The relocation tables of an image: where they are, and their entries in order.
//!
//! [`RelocationTables::parse`] checks the ranges and sizes, and that packed tables can be read to
//! their end. It does not look at what an entry relocates: `link/apply.rs` does.
//!
//! Sources: gABI "Relocation", "Dynamic Section"; `DT_RELR`: the gABI proposal "SHT_RELR"; bionic's
//! `linker.cpp` for the `DT_ANDROID_*` tags.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf64::dynamic::{
    DT_JMPREL, DT_PLTREL, DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELAENT, DT_RELASZ,
};

use crate::base::addr::{Vaddr, len_of};
use crate::base::error::{Error, Place};
use crate::base::limits::{self, Limits};
use crate::elf::dynamic::{
    DT_ANDROID_REL, DT_ANDROID_RELA, DT_ANDROID_RELASZ, DT_ANDROID_RELR, DT_ANDROID_RELRENT,
    DT_ANDROID_RELRSZ, DT_RELR, DT_RELRENT, DT_RELRSZ, Dynamic,
};
use crate::elf::read::{ReadAt, u64_at};
use crate::elf::rela::{Packed, RELA_SIZE, Rela};

/// The relocation tables. Each is a whole number of entries in one segment's file-backed part.
#[derive(Clone, Debug, Default)]
pub(crate) struct RelocationTables {
    /// `DT_RELR`: words of 8 bytes.
    pub relr: Option<Range<Vaddr>>,
    /// `DT_RELA`.
    pub rela: Option<Range<Vaddr>>,
    /// `DT_ANDROID_RELA`: a packed table that can be read to its end.
    pub packed: Option<Range<Vaddr>>,
    /// `DT_JMPREL`, the PLT's.
    pub jmprel: Option<Range<Vaddr>>,
}

/// The bytes of a table; no bytes if there is no such table.
fn table<'m>(range: &Option<Range<Vaddr>>, memory: &'m impl ReadAt) -> &'m [u8] {
    range.as_ref().and_then(|range| memory.read(range.clone())).unwrap_or(&[])
}

impl RelocationTables {
    /// The relocations of all tables but `DT_RELR`, the PLT's last, read from `memory`.
    pub(crate) fn relas<'m>(&self, memory: &'m impl ReadAt) -> impl Iterator<Item = Rela> + 'm {
        self.relas_outside_plt(memory).chain(Rela::entries(table(&self.jmprel, memory)))
    }

    /// The relocations of [`RelocationTables::relas`] without the PLT's.
    pub(crate) fn relas_outside_plt<'m>(
        &self,
        memory: &'m impl ReadAt,
    ) -> impl Iterator<Item = Rela> + 'm {
        let packed = Packed::new(table(&self.packed, memory));
        let packed = packed.into_iter().flatten().map_while(Result::ok);
        Rela::entries(table(&self.rela, memory)).chain(packed)
    }

    /// Passes the same relocations to `visit`, as tables for [`Rela::entries`], up to the first error.
    /// Most of the time of a load goes into the work for each entry, and a loop over a plain table is
    /// the fastest way to it.
    pub(crate) fn visit(
        &self,
        memory: &impl ReadAt,
        mut visit: impl FnMut(&[u8]) -> Result<(), Box<Error>>,
    ) -> Result<(), Error> {
        /// Packed entries are unpacked in tables of this length.
        const BATCH: usize = 256;
        let mut visit = |entries: &[u8]| visit(entries).map_err(|error| *error);
        visit(table(&self.rela, memory))?;
        let packed = Packed::new(table(&self.packed, memory));
        let mut packed = packed.into_iter().flatten().map_while(Result::ok);
        let mut unpacked = Vec::new();
        loop {
            unpacked.clear();
            unpacked.extend(packed.by_ref().take(BATCH).flat_map(Rela::to_bytes));
            if unpacked.is_empty() {
                break;
            }
            visit(&unpacked)?;
        }
        visit(table(&self.jmprel, memory))
    }

    /// The words of the `DT_RELR` table, read from `memory`.
    pub(crate) fn relr_words<'m>(&self, memory: &'m impl ReadAt) -> impl Iterator<Item = u64> + 'm {
        table(&self.relr, memory).chunks_exact(8).map(|word| u64_at(word, 0).unwrap_or(0))
    }

    /// The ranges of all tables.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range<Vaddr>> {
        [&self.relr, &self.rela, &self.packed, &self.jmprel].into_iter().flatten()
    }

    /// Finds the tables that `dynamic` names in `memory`.
    pub(super) fn parse(
        dynamic: &Dynamic<'_>,
        memory: &impl ReadAt,
        limits: &Limits,
    ) -> Result<RelocationTables, Error> {
        refuse_missing_addends(dynamic)?;
        let find = |start, size, entry, want| find(dynamic, memory, start, size, entry, want);
        let mut rela = find(DT_RELA, DT_RELASZ, Some(DT_RELAENT), RELA_SIZE)?;
        let jmprel = find(DT_JMPREL, DT_PLTRELSZ, None, RELA_SIZE)?;
        let relr = match find(DT_RELR, DT_RELRSZ, Some(DT_RELRENT), 8)? {
            Some(relr) => Some(relr),
            None => find(DT_ANDROID_RELR, DT_ANDROID_RELRSZ, Some(DT_ANDROID_RELRENT), 8)?,
        };
        let packed = find(DT_ANDROID_RELA, DT_ANDROID_RELASZ, None, 1)?;
        // Some linkers count the PLT's entries in DT_RELASZ too. To apply them twice would give the same
        // values, but IFUNC resolvers would run twice.
        if let (Some(all), Some(plt)) = (&mut rela, &jmprel)
            && all.end == plt.end
            && all.start <= plt.start
        {
            all.end = plt.start;
        }
        if let Some(words) = relr.clone().and_then(|range| memory.read(range))
            && u64_at(words, 0).is_some_and(|first| first & 1 != 0)
        {
            let what = "DT_RELR begins with a bitmap, which has no address to begin at";
            return Err(Error::malformed(what, Place::Dynamic(DT_RELR)));
        }
        let tables = RelocationTables { relr, rela, packed, jmprel };
        tables.check_number(memory, limits)?;
        Ok(tables)
    }

    /// Checks the number of relocations, and that the packed table can be read to its end.
    fn check_number(&self, memory: &impl ReadAt, limits: &Limits) -> Result<(), Error> {
        // All tables lie in the file, so their sum is far below what a u64 holds.
        let mut total = 0u64;
        for (range, size) in [(&self.rela, RELA_SIZE), (&self.jmprel, RELA_SIZE), (&self.relr, 8)] {
            let entries = range.as_ref().map_or(0, len_of).checked_div(size);
            total = total.saturating_add(entries.unwrap_or(0));
        }
        if let Some(packed) = self.packed.clone().and_then(|range| memory.read(range)) {
            let malformed = |_| {
                let what = "the packed relocations contradict themselves";
                Error::malformed(what, Place::Dynamic(DT_ANDROID_RELA))
            };
            let packed = Packed::new(packed).map_err(malformed)?;
            total = total.saturating_add(packed.len());
            limits::check("the number of relocations", total, limits.relocations)?;
            for rela in packed {
                rela.map_err(malformed)?;
            }
        }
        limits::check("the number of relocations", total, limits.relocations)
    }
}

/// Refuses tables whose entries have no addends.
fn refuse_missing_addends(dynamic: &Dynamic<'_>) -> Result<(), Error> {
    if dynamic.get(DT_REL).is_some() {
        return Err(Error::unsupported(
            "relocations without addends (DT_REL), which this machine does not use",
        ));
    }
    if dynamic.get(DT_ANDROID_REL).is_some() {
        return Err(Error::unsupported("packed relocations without addends (DT_ANDROID_REL)"));
    }
    let jmprel_is_rela = dynamic.get(DT_PLTREL).is_none_or(|kind| kind == DT_RELA);
    if dynamic.get(DT_JMPREL).is_some() && !jmprel_is_rela {
        return Err(Error::unsupported("PLT relocations without addends (DT_PLTREL is DT_REL)"));
    }
    Ok(())
}

/// The table at tag `start` with the length of tag `size`. Its entries are `entry_len` bytes long; the
/// tag `entry`, where there is one, must say the same.
fn find(
    dynamic: &Dynamic<'_>,
    memory: &impl ReadAt,
    start: u64,
    size: u64,
    entry: Option<u64>,
    entry_len: u64,
) -> Result<Option<Range<Vaddr>>, Error> {
    let malformed = |what: &'static str| Error::malformed(what, Place::Dynamic(start));
    if entry.and_then(|tag| dynamic.get(tag)).is_some_and(|stated| stated != entry_len) {
        return Err(malformed("relocations of an unknown size"));
    }
    let stated_len = dynamic.get(size);
    if dynamic.get(start).is_some() != stated_len.is_some() && stated_len != Some(0) {
        return Err(malformed("a relocation table without its size, or a size without a table"));
    }
    let Some(range) = dynamic.table(start, size) else {
        return Ok(None);
    };
    range
        .filter(|_| stated_len.is_some_and(|len| len.is_multiple_of(entry_len)))
        .filter(|range| memory.read(range.clone()).is_some())
        .map(Some)
        .ok_or_else(|| malformed("a relocation table lies outside the image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::{Flat, dynamic};

    /// Three plain entries, of which the last is the PLT's, and a `DT_RELR` of two words; with `more`
    /// tags, which replace earlier ones.
    fn parse(more: &[(u64, u64)]) -> Result<(RelocationTables, Flat), Error> {
        let mut memory = Flat(vec![0; 0x40]);
        let entries = [(0x100u64, 8u64, 1u64), (0x108, 8, 2), (0x110, 1 << 32 | 7, 0)];
        let bytes =
            entries.map(|(at, info, addend)| [at, info, addend].map(u64::to_le_bytes).concat());
        let rela = memory.add(&bytes.concat());
        let relr = memory.add(&[0x200u64, 3].map(u64::to_le_bytes).concat());
        let tags = [
            (DT_RELA, rela),
            (DT_RELASZ, 72),
            (DT_RELAENT, 24),
            (DT_JMPREL, rela + 48),
            (DT_PLTRELSZ, 24),
            (DT_PLTREL, DT_RELA),
            (DT_RELR, relr),
            (DT_RELRSZ, 16),
            (DT_RELRENT, 8),
        ];
        let dynamic = dynamic(&[&tags, more].concat());
        Ok((RelocationTables::parse(&dynamic, &memory, &Limits::default())?, memory))
    }

    #[test]
    fn each_entry_is_given_once_and_the_plts_last() {
        let (tables, memory) = parse(&[]).unwrap();
        let offsets: Vec<u64> = tables.relas(&memory).map(|it| it.r_offset.0).collect();
        assert_eq!(offsets, [0x100, 0x108, 0x110], "DT_RELASZ counts the PLT's entry too");
        assert_eq!(tables.relas_outside_plt(&memory).count(), 2);
        assert_eq!(tables.relr_words(&memory).collect::<Vec<_>>(), [0x200, 3]);
        assert_eq!(tables.ranges().count(), 3);
        let mut visited = Vec::new();
        let visit = |entries: &[u8]| {
            visited.extend(Rela::entries(entries).map(|it| it.r_offset.0));
            Ok(())
        };
        tables.visit(&memory, visit).unwrap();
        assert_eq!(visited, offsets);
    }

    #[test]
    fn packed_entries_come_between_the_plain_ones_and_the_plts() {
        let packed = b"APS2\x02\x80\x10\x02\x0b\x08\x08\x05\x7e";
        let mut memory = Flat(vec![0; 0x40]);
        let rela = memory.add(&[0x100u64, 8, 1].map(u64::to_le_bytes).concat());
        let at = memory.add(packed);
        let tags = |len: usize| {
            let len = len as u64;
            dynamic(&[
                (DT_RELA, rela),
                (DT_RELASZ, 24),
                (DT_ANDROID_RELA, at),
                (DT_ANDROID_RELASZ, len),
            ])
        };
        let limits = Limits::default();
        let tables = RelocationTables::parse(&tags(packed.len()), &memory, &limits).unwrap();
        let offsets: Vec<u64> = tables.relas(&memory).map(|it| it.r_offset.0).collect();
        assert_eq!(offsets, [0x100, 0x808, 0x810]);
        let error = RelocationTables::parse(&tags(packed.len() - 1), &memory, &limits).unwrap_err();
        assert!(error.to_string().contains("the packed relocations contradict themselves"));
        let limits = Limits { relocations: 2, ..limits };
        let error = RelocationTables::parse(&tags(packed.len()), &memory, &limits).unwrap_err();
        assert!(matches!(error, Error::Limit { needed: 3, limit: 2, .. }));
    }

    #[test]
    fn a_bitmap_without_an_address_is_refused() {
        let mut memory = Flat(vec![]);
        let relr = memory.add(&[3u64, 0x200].map(u64::to_le_bytes).concat());
        let dynamic = dynamic(&[(DT_RELR, relr), (DT_RELRSZ, 16)]);
        let error = RelocationTables::parse(&dynamic, &memory, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("DT_RELR begins with a bitmap"), "{error}");
    }

    #[test]
    fn tables_that_cannot_be_read_are_refused() {
        for (tag, value, expected) in [
            (DT_RELASZ, 71, "outside the image"),
            (DT_RELASZ, 24 * 1000, "outside the image"),
            (DT_RELA, u64::MAX - 7, "outside the image"),
            (DT_RELAENT, 16, "of an unknown size"),
            (DT_RELRENT, 4, "of an unknown size"),
            (DT_RELRSZ, 12, "outside the image"),
            (DT_REL, 0x40, "without addends (DT_REL)"),
            (DT_ANDROID_REL, 0x40, "DT_ANDROID_REL"),
            (DT_PLTREL, DT_REL, "DT_PLTREL is DT_REL"),
            (DT_ANDROID_RELA, 0x40, "a relocation table without its size"),
        ] {
            let error = parse(&[(tag, value)]).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{tag:#x} {value:#x}: {error}");
        }
    }
}
