//! Symbol versions: the tables of definitions (`DT_VERDEF`) and of needs (`DT_VERNEED`).
//!
//! [`Versions::parse`] reads both tables into one list by version index, the number that an entry of
//! `.gnu.version` holds. It follows the chains as `ld.so` does; [`Versions::check`] refuses what
//! `ld.so` would follow out of the tables. Which version a reference binds to is decided in
//! `elf/lookup.rs`.
//!
//! Sources: LSB Core "Symbol Versioning" (`Elf64_Verdef`, `Elf64_Verneed`); glibc `elf/dl-version.c`.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf64::dynamic::{DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM};

use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::fallible::TryGrow;
use crate::elf::dynamic::Dynamic;
use crate::elf::read::{ReadAt, u16_at, u32_at};
use crate::elf::sysv_hash::sysv_hash;

/// The bit of a `.gnu.version` entry that hides a definition from unversioned references.
pub(super) const VERSYM_HIDDEN: u16 = 0x8000;
/// `VER_NDX_GLOBAL`: the version index of an unversioned symbol. (0 is that of local symbols.)
const VER_NDX_GLOBAL: u16 = 1;
/// `VER_DEF_CURRENT` and `VER_NEED_CURRENT`.
const VERSION_CURRENT: u16 = 1;
/// Sizes of an `Elf64_Verdef`, and of an `Elf64_Verneed` or `Elf64_Vernaux`.
const VERDEF_SIZE: u32 = 20;
const VERNEED_SIZE: u32 = 16;
/// Size of an `Elf64_Verdaux`.
const VERDAUX_SIZE: usize = 8;
/// `VER_FLG_BASE`: the definition that names the library itself.
const VER_FLG_BASE: u16 = 1;
/// `VER_FLG_WEAK`: a version that may be missing.
const VER_FLG_WEAK: u16 = 2;

/// A version that a reference asks for.
#[derive(Clone, Copy)]
pub(crate) struct Version<'a> {
    pub(super) name: &'a [u8],
    pub(super) hash: u32,
    /// An unversioned definition does not match (`dlvsym`; `vna_other` with its top bit set).
    pub(super) exact: bool,
}

impl<'a> Version<'a> {
    /// As `dlvsym` asks for it.
    pub(crate) fn exact(name: &'a [u8]) -> Version<'a> {
        Version { name, hash: sysv_hash(name), exact: true }
    }

    pub(crate) fn name(&self) -> &'a [u8] {
        self.name
    }
}

/// The version of an index.
#[derive(Debug, Clone, Copy)]
pub(super) struct VersionEntry {
    pub hash: u32,
    /// Offset in the string table.
    pub name: u32,
    pub exact: bool,
    pub origin: Origin,
}

impl VersionEntry {
    /// Whether a symbol can have it.
    pub(super) fn is_version(&self) -> bool {
        self.hash != 0 && self.origin != Origin::Base
    }
}

/// The table that a version index comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// `DT_VERNEED`: another library should define it.
    Needed,
    /// `DT_VERDEF`: this library defines it.
    Defined,
    /// `DT_VERDEF` with `VER_FLG_BASE`: the library's own name, which is no version of a symbol.
    Base,
}

/// A version that the image needs of one library.
#[derive(Debug, Clone)]
pub(super) struct NeededVersion {
    /// Offset of the library's name in the string table (`vn_file`).
    pub file: u32,
    /// Offset of the version's name in the string table (`vna_name`).
    pub name: u32,
    pub hash: u32,
    /// It may be missing.
    pub weak: bool,
}

/// One of the two tables of versions, and the number of its entries.
#[derive(Debug, Clone, Copy)]
struct Table<'a> {
    bytes: &'a [u8],
    count: u64,
}

/// Where the two tables are: where each starts, with the number of its entries.
#[derive(Debug, Clone)]
pub(super) struct VersionRanges {
    definitions: Option<(Range<Vaddr>, u64)>,
    needs: Option<(Range<Vaddr>, u64)>,
}

/// The tables of versions in some memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct VersionTables<'a> {
    definitions: Option<Table<'a>>,
    needs: Option<Table<'a>>,
}

impl VersionRanges {
    /// The tables that `dynamic` names in `memory`.
    pub(super) fn new(dynamic: &Dynamic<'_>, memory: &impl ReadAt) -> Result<VersionRanges, Error> {
        let range = |tag: u64, number: u64, bad: fn() -> Error| match dynamic.address(tag) {
            None => Ok::<_, Error>(None),
            Some(start) => {
                let len = memory.read_to_end(start).map(|bytes| bytes.len() as u64);
                let range = len.and_then(|len| start.range(len)).ok_or_else(bad)?;
                Ok(Some((range, dynamic.get(number).unwrap_or(0))))
            }
        };
        Ok(VersionRanges {
            definitions: range(DT_VERDEF, DT_VERDEFNUM, bad_definitions)?,
            needs: range(DT_VERNEED, DT_VERNEEDNUM, bad_needs)?,
        })
    }

    /// The tables in `memory`.
    pub(super) fn tables<'a>(&self, memory: &'a impl ReadAt) -> Option<VersionTables<'a>> {
        let table = |range: &Option<(Range<Vaddr>, u64)>| match range {
            None => Some(None),
            Some((range, count)) => {
                Some(Some(Table { bytes: memory.read(range.clone())?, count: *count }))
            }
        };
        Some(VersionTables { definitions: table(&self.definitions)?, needs: table(&self.needs)? })
    }
}

/// An `Elf64_Verdef`.
struct Verdef {
    version: u16,
    flags: u16,
    index: u16,
    count: u16,
    hash: u32,
    aux: u32,
    next: u32,
}

impl Verdef {
    /// The entry at the start of `bytes`, read at once: the C library has many.
    #[inline]
    fn read(bytes: &[u8]) -> Option<Verdef> {
        let entry = bytes.first_chunk::<{ VERDEF_SIZE as usize }>()?;
        let &[v0, v1, f0, f1, i0, i1, c0, c1, ref words @ ..] = entry;
        let &[h0, h1, h2, h3, a0, a1, a2, a3, n0, n1, n2, n3] = words;
        Some(Verdef {
            version: u16::from_le_bytes([v0, v1]),
            flags: u16::from_le_bytes([f0, f1]),
            index: u16::from_le_bytes([i0, i1]),
            count: u16::from_le_bytes([c0, c1]),
            hash: u32::from_le_bytes([h0, h1, h2, h3]),
            aux: u32::from_le_bytes([a0, a1, a2, a3]),
            next: u32::from_le_bytes([n0, n1, n2, n3]),
        })
    }
}

impl<'a> VersionTables<'a> {
    /// The versions that the library defines, its own name included, without a list of them: up to an entry that
    /// contradicts itself.
    pub(super) fn definitions(&self) -> impl Iterator<Item = (u16, VersionEntry)> + use<'a> {
        let table = self.definitions.unwrap_or(Table { bytes: &[], count: 0 });
        let mut rest = Some(table.bytes);
        // Offsets only grow, so this ends with the bytes.
        (0..table.count).map_while(move |_| {
            let bytes = rest?;
            let Verdef { flags, index, hash, aux, next, .. } = Verdef::read(bytes)?;
            let name = u32_at(bytes, aux as usize)?;
            rest = if next == 0 { None } else { bytes.get(next as usize..) };
            let origin = if flags & VER_FLG_BASE != 0 { Origin::Base } else { Origin::Defined };
            Some((index & !VERSYM_HIDDEN, VersionEntry { hash, name, exact: false, origin }))
        })
    }

    /// As [`Versions::of`], for an index that the library defines.
    pub(super) fn defined(&self, versym: u16) -> Option<VersionEntry> {
        let index = versym & !VERSYM_HIDDEN;
        let (_, entry) = self.definitions().find(|(of, _)| *of == index)?;
        Some(entry)
    }
}

fn bad_definitions() -> Error {
    let what = "the version definitions contradict themselves";
    Error::malformed(what, Place::Dynamic(DT_VERDEF))
}

fn bad_needs() -> Error {
    let what = "the version needs contradict themselves";
    Error::malformed(what, Place::Dynamic(DT_VERNEED))
}

/// The versions that a library defines and needs.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// By version index (`.gnu.version` entry without its top bit).
    by_index: Vec<Option<VersionEntry>>,
    needed: Vec<NeededVersion>,
    /// The largest offsets of names in `DT_VERDEF` and in `DT_VERNEED`.
    last_names: [u32; 2],
    /// Whether the entries of these overlap, or there are more of them than `DT_VERDEFNUM` and
    /// `DT_VERNEEDNUM` say.
    is_broken: [bool; 2],
}

impl Versions {
    pub(super) fn parse(tables: &VersionTables<'_>) -> Result<Versions, Error> {
        /// Few libraries have more than one, and need versions of more.
        const USUAL: usize = 16;
        /// The C library has 43.
        const MANY: u64 = 64;
        let room = |table: Option<Table<'_>>| table.map_or(0, |it| it.count.min(MANY) as usize);
        let (defined, needed) = (room(tables.definitions), room(tables.needs));
        let needed = if needed == 0 { 0 } else { USUAL };
        let mut versions = Versions {
            // Their indices begin with 1.
            by_index: Vec::with_capacity(defined.saturating_add(needed).saturating_add(1)),
            needed: Vec::with_capacity(needed),
            ..Versions::default()
        };
        versions
            .by_index
            .try_lengthen(defined.saturating_add(1).min(versions.by_index.capacity()), None)?;
        if let Some(definitions) = tables.definitions {
            versions.read_definitions(definitions)?;
        }
        if let Some(needs) = tables.needs {
            versions.read_needs(needs)?;
        }
        Ok(versions)
    }

    /// `DT_VERDEF`: a chain of `Elf64_Verdef`, each with its name in its first `Elf64_Verdaux`.
    fn read_definitions(&mut self, Table { bytes, count }: Table<'_>) -> Result<(), Error> {
        let bad = bad_definitions;
        // Offsets only grow, so the loop ends with the bytes. Each `Elf64_Verdaux` takes 8 bytes of the
        // table, unless chains overlap: this bounds those.
        let mut entries_left = bytes.len() / 8;
        let mut last_name = 0;
        let (mut has_more, mut overlaps) = (true, false);
        let mut rest = bytes;
        for _ in 0..count {
            let verdef = Verdef::read(rest).ok_or_else(bad)?;
            let Verdef { version, flags, index, count, hash, aux, next } = verdef;
            if version != VERSION_CURRENT {
                return Err(bad());
            }
            let mut parent = rest.get(aux as usize..).ok_or_else(bad)?;
            let name = u32_at(parent, 0).ok_or_else(bad)?;
            last_name = last_name.max(name);
            for _ in 1..count {
                entries_left = entries_left.checked_sub(1).ok_or_else(bad)?;
                let skip = u32_at(parent, 4).ok_or_else(bad)? as usize;
                if skip == 0 {
                    break;
                }
                overlaps |= skip < VERDAUX_SIZE;
                parent = parent.get(skip..).ok_or_else(bad)?;
                last_name = last_name.max(u32_at(parent, 0).ok_or_else(bad)?);
            }
            let origin = if flags & VER_FLG_BASE != 0 { Origin::Base } else { Origin::Defined };
            self.set(index, VersionEntry { hash, name, exact: false, origin })?;
            if next == 0 {
                has_more = false;
                break;
            }
            overlaps |= next < VERDEF_SIZE;
            rest = rest.get(next as usize..).ok_or_else(bad)?;
        }
        self.last_names = [last_name, 0];
        self.is_broken = [has_more || overlaps, false];
        Ok(())
    }

    /// `DT_VERNEED`: a chain of `Elf64_Verneed`, one per library, each with a chain of
    /// `Elf64_Vernaux`, one per version.
    fn read_needs(&mut self, Table { bytes, count }: Table<'_>) -> Result<(), Error> {
        let bad = bad_needs;
        // Every entry of the inner chains takes 16 bytes of the table, unless chains overlap. The bound
        // is the number that fits, so overlapping chains cost no more than honest ones.
        let mut entries_left = bytes.len() / 16;
        let [of_definitions, mut last_name] = self.last_names;
        let (mut has_more, mut is_broken) = (true, false);
        let mut rest = bytes;
        for _ in 0..count {
            if u16_at(rest, 0).ok_or_else(bad)? != VERSION_CURRENT {
                return Err(bad());
            }
            let count = u16_at(rest, 2).ok_or_else(bad)?;
            let file = u32_at(rest, 4).ok_or_else(bad)?;
            let aux = u32_at(rest, 8).ok_or_else(bad)?;
            let next = u32_at(rest, 12).ok_or_else(bad)?;
            let mut entry = rest.get(aux as usize..).ok_or_else(bad)?;
            let mut aux_has_more = true;
            for _ in 0..count {
                entries_left = entries_left.checked_sub(1).ok_or_else(bad)?;
                let hash = u32_at(entry, 0).ok_or_else(bad)?;
                let flags = u16_at(entry, 4).ok_or_else(bad)?;
                let other = u16_at(entry, 6).ok_or_else(bad)?;
                let name = u32_at(entry, 8).ok_or_else(bad)?;
                let aux_next = u32_at(entry, 12).ok_or_else(bad)?;
                last_name = last_name.max(name).max(file);
                let exact = other & VERSYM_HIDDEN != 0;
                let origin = Origin::Needed;
                self.set(other, VersionEntry { hash, name, exact, origin })?;
                let weak = flags & VER_FLG_WEAK != 0;
                self.needed.try_push(NeededVersion { file, name, hash, weak })?;
                if aux_next == 0 {
                    aux_has_more = false;
                    break;
                }
                is_broken |= aux_next < VERNEED_SIZE;
                entry = entry.get(aux_next as usize..).ok_or_else(bad)?;
            }
            is_broken |= aux_has_more;
            if next == 0 {
                has_more = false;
                break;
            }
            is_broken |= next < VERNEED_SIZE;
            rest = rest.get(next as usize..).ok_or_else(bad)?;
        }
        self.last_names = [of_definitions, last_name];
        let [of_definitions, _] = self.is_broken;
        self.is_broken = [of_definitions, has_more || is_broken];
        Ok(())
    }

    /// Sets the version of an index.
    fn set(&mut self, index: u16, entry: VersionEntry) -> Result<(), Error> {
        // At most 15 bits.
        let index = usize::from(index & !VERSYM_HIDDEN);
        if self.by_index.len() <= index {
            self.by_index.try_lengthen(index.saturating_add(1), None)?;
        }
        // A definition takes precedence over a need, as in `ld.so`.
        let is_defined = |it: &VersionEntry| it.origin != Origin::Needed;
        if let Some(current) = self.by_index.get_mut(index)
            && (is_defined(&entry) || !current.as_ref().is_some_and(is_defined))
        {
            *current = Some(entry);
        }
        Ok(())
    }

    /// Checks that the tables are whole, and that each name lies in a string table of `strsz` bytes.
    pub(super) fn check(&self, strsz: usize) -> Result<(), Error> {
        let bad = |what: &'static str, tag: u64| Error::malformed(what, Place::Dynamic(tag));
        // `ld.so` ignores the numbers of entries, and follows the chains to their ends.
        for (is_broken, tag) in self.is_broken.into_iter().zip([DT_VERDEF, DT_VERNEED]) {
            if is_broken {
                return Err(bad("entries of versions overlap, or are more than their number", tag));
            }
        }
        for (last, tag) in self.last_names.into_iter().zip([DT_VERDEF, DT_VERNEED]) {
            if last as usize >= strsz {
                return Err(bad("a version's name lies outside the string table", tag));
            }
        }
        Ok(())
    }

    /// Checks that each entry of `.gnu.version` is local, global, or the index of a version.
    pub(super) fn check_indices(&self, versyms: &[[u8; 2]]) -> Result<(), Error> {
        let index = |versym: &[u8; 2]| u16::from_le_bytes(*versym) & !VERSYM_HIDDEN;
        let is_known = |index: u16| index <= VER_NDX_GLOBAL || self.entry(index).is_some();
        // Indices usually have no gap: then the largest decides.
        let largest = versyms.iter().map(index).max().unwrap_or(0);
        if (0..=largest).all(is_known) {
            return Ok(());
        }
        match versyms.iter().map(index).zip(0..).find(|(index, _)| !is_known(*index)) {
            None => Ok(()),
            Some((index, symbol)) => {
                let what = format!("its version index {index} is that of no version");
                Err(Error::malformed(what, Place::Symbol(symbol)))
            }
        }
    }

    /// The entry of an index, which may have [`VERSYM_HIDDEN`] set.
    #[inline]
    fn entry(&self, versym: u16) -> Option<&VersionEntry> {
        self.by_index.get(usize::from(versym & !VERSYM_HIDDEN))?.as_ref()
    }

    /// The version that a `.gnu.version` entry means; `None` if that is no version.
    #[inline]
    pub(super) fn of(&self, versym: u16) -> Option<&VersionEntry> {
        self.entry(versym).filter(|entry| entry.is_version())
    }

    /// The versions that the library needs.
    pub(super) fn needed(&self) -> &[NeededVersion] {
        &self.needed
    }

    /// The versions that the library defines, its own name included.
    pub(super) fn defined(&self) -> impl Iterator<Item = &VersionEntry> {
        self.by_index.iter().flatten().filter(|entry| entry.origin != Origin::Needed)
    }
}

#[cfg(test)]
mod tests {
    use goblin::elf64::dynamic::DT_STRSZ;

    use super::*;
    use crate::elf::test_image::{Flat, HashKind, dynamic, symbol_tables};

    /// The versions `V1` to `V3` with the indices 2 to 4, and the need `N` with the index 5; `change`
    /// gets the tables' bytes, from `Verdef` and from `Verneed` on.
    fn parse(change: impl FnOnce(&mut Flat, usize, usize)) -> Result<Versions, Error> {
        let (mut memory, tags) = symbol_tables(&[], HashKind::Gnu);
        let dynamic = dynamic(&tags);
        let [verdef, verneed, strsz] =
            [DT_VERDEF, DT_VERNEED, DT_STRSZ].map(|tag| dynamic.get(tag).unwrap() as usize);
        change(&mut memory, verdef, verneed);
        let tables = VersionRanges::new(&dynamic, &memory)?.tables(&memory).unwrap();
        let versions = Versions::parse(&tables)?;
        versions.check(strsz)?;
        Ok(versions)
    }

    fn refusal(change: impl FnOnce(&mut Flat, usize, usize)) -> String {
        parse(change).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn definitions_and_needs_are_found_by_index() {
        let versions = parse(|_, _, _| {}).unwrap();
        assert_eq!(versions.of(2).map(|it| it.hash), Some(sysv_hash(b"V1")));
        assert_eq!(versions.of(2 | VERSYM_HIDDEN).map(|it| it.origin), Some(Origin::Defined));
        assert_eq!(versions.of(5).map(|it| it.origin), Some(Origin::Needed));
        // The library's own name, and indices of nothing.
        assert!([0, 1, 6, 0x7fff].iter().all(|&index| versions.of(index).is_none()));
        assert_eq!(versions.defined().count(), 4);
        let needed: Vec<_> =
            versions.needed().iter().map(|it| (it.file, it.name, it.weak)).collect();
        assert_eq!(needed, [(16, 14, false)]);
        versions.check_indices(&[[0, 0], [1, 0], [5, 0x80]]).unwrap();
        let error = versions.check_indices(&[[0, 0], [6, 0]]).unwrap_err().to_string();
        assert!(error.contains("version index 6"), "{error}");
    }

    #[test]
    fn a_walk_along_the_table_finds_what_the_list_has() {
        let (memory, tags) = symbol_tables(&[], HashKind::Gnu);
        let tables = VersionRanges::new(&dynamic(&tags), &memory).unwrap().tables(&memory).unwrap();
        let versions = Versions::parse(&tables).unwrap();
        let what = |entry: &VersionEntry| (entry.hash, entry.name, entry.origin);
        let walked: Vec<_> = tables.definitions().map(|(_, entry)| what(&entry)).collect();
        assert_eq!(walked, versions.defined().map(what).collect::<Vec<_>>());
        assert_eq!(walked.len(), 4);
        for index in 0..8 {
            let found = tables.defined(index).filter(VersionEntry::is_version);
            let listed = versions.of(index).filter(|it| it.origin == Origin::Defined);
            assert_eq!(found.as_ref().map(what), listed.map(what), "{index}");
        }
    }

    #[test]
    fn a_definition_takes_precedence_over_a_need_of_the_same_index() {
        let versions = parse(|memory, _, verneed| memory.0[verneed + 16 + 6] = 3).unwrap();
        assert_eq!(
            versions.of(3).map(|it| (it.hash, it.origin)),
            Some((sysv_hash(b"V2"), Origin::Defined))
        );
        assert_eq!(versions.needed().len(), 1);
    }

    #[test]
    fn a_chain_may_end_before_its_number() {
        let versions = parse(|memory, verdef, _| memory.0[verdef + 16] = 0).unwrap();
        assert_eq!(versions.defined().count(), 1);
        let versions = parse(|memory, _, verneed| memory.0[verneed + 2] = 0xff).unwrap();
        assert_eq!(versions.needed().len(), 1);
    }

    #[test]
    fn chains_that_overlap_lead_out_or_have_no_end_are_refused() {
        let overlap = "entries of versions overlap, or are more than their number";
        let outside = "a version's name lies outside the string table";
        for (at, value, expected) in [
            (0, 2, "the version definitions contradict themselves"),
            (12, 0xff, "the version definitions contradict themselves"),
            (15, 0xff, "the version definitions contradict themselves"),
            (19, 0xff, "the version definitions contradict themselves"),
            (28 * 3 + 16, 28, overlap),
            (20, 0xff, outside),
        ] {
            let error = refusal(|memory, verdef, _| memory.0[verdef + at] = value);
            assert!(error.contains(expected), "{at}: {error}");
        }
        for (at, value, expected) in [
            (0, 2, "the version needs contradict themselves"),
            (11, 0xff, "the version needs contradict themselves"),
            (12, 8, overlap),
            (16 + 8, 0xff, outside),
            (16 + 12, 4, overlap),
        ] {
            let error = refusal(|memory, _, verneed| memory.0[verneed + at] = value);
            assert!(error.contains(expected), "{at}: {error}");
        }
    }
}
