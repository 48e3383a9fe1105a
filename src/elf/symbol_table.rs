//! The dynamic symbol table of a library, with its strings, hash tables and versions.
//!
//! [`SymbolLayout`] holds the ranges of the tables, and is made once. [`SymbolTable`] is a view of
//! them in some memory: the received bytes, a mapped image, or a library that `ld.so` loaded. None of
//! the three is trusted: nothing here indexes unchecked or loops without bound. Chains end with their
//! table, and [`SymbolTable::check_work`] sets a budget, against tables that were made to be slow.
//!
//! How a name is looked up is in `elf/lookup.rs`.
//!
//! Sources: gABI "Symbol Table", "String Table", "Hash Table".

#![forbid(unsafe_code)]

use std::alloc::{self, Layout};
use std::cell::Cell;
use std::ops::{Deref, Range};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use goblin::elf64::dynamic::{
    DT_GNU_HASH, DT_HASH, DT_STRSZ, DT_STRTAB, DT_SYMENT, DT_SYMTAB, DT_VERDEF, DT_VERNEED,
    DT_VERSYM,
};

use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::limits;
use crate::elf::dynamic::Dynamic;
use crate::elf::gnu_hash::GnuHashTable;
use crate::elf::read::{ReadAt, string_at};
use crate::elf::symbol::{SYM_SIZE, Sym, SymbolName};
use crate::elf::sysv_hash::SysvHashTable;
use crate::elf::versions::{
    Origin, VERSYM_HIDDEN, Version, VersionEntry, VersionRanges, VersionTables, Versions,
};

/// Of a table whose symbols were not counted.
const NOT_COUNTED: u32 = u32::MAX;
const CONTRADICTORY_HASH: &str = "the hash table contradicts itself";
/// The tags of the tables of this file, whose values are addresses.
pub(crate) const ADDRESS_TAGS: &[u64] =
    &[DT_STRTAB, DT_SYMTAB, DT_GNU_HASH, DT_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED];

/// The ranges of a library's symbol tables. Made once per library.
#[derive(Debug)]
pub(crate) struct SymbolLayout {
    symtab: Range<Vaddr>,
    strtab: Range<Vaddr>,
    versym: Option<Range<Vaddr>>,
    hash: Option<HashRange>,
    /// The number of symbols that a lookup can reach: one more than the highest index in the hash
    /// table. [`NOT_COUNTED`] until that is asked for.
    hashed: AtomicU32,
    version_ranges: VersionRanges,
    /// Read when they are asked for often: of most libraries of a process, nothing here asks.
    versions: OnceLock<Versions>,
    /// How often they were asked for before they were read.
    asked: AtomicU32,
}

/// The range of the hash table that lookups use.
#[derive(Debug, Clone)]
enum HashRange {
    Gnu(Range<Vaddr>),
    Sysv(Range<Vaddr>),
}

impl HashRange {
    /// The table, read from `memory`; `None` if it lies outside, `Some(None)` if it contradicts itself.
    fn table<'a>(&self, memory: &'a impl ReadAt) -> Option<Option<HashTable<'a>>> {
        Some(match self {
            HashRange::Gnu(range) => {
                GnuHashTable::parse(memory.read(range.clone())?).map(HashTable::Gnu)
            }
            HashRange::Sysv(range) => {
                SysvHashTable::parse(memory.read(range.clone())?).map(HashTable::Sysv)
            }
        })
    }
}

impl SymbolLayout {
    /// Finds the tables of an image that is to be loaded, and checks them as a whole: each name lies in
    /// the string table, each version index is defined, and the hash tables agree.
    ///
    /// `behind` are the addresses where other tables begin.
    pub(super) fn of_image(
        dynamic: &Dynamic<'_>,
        memory: &impl ReadAt,
        behind: impl Iterator<Item = Vaddr>,
    ) -> Result<SymbolLayout, Error> {
        let mut layout = SymbolLayout::new(dynamic, memory)?;
        layout.check(dynamic, memory, behind)?;
        Ok(layout)
    }

    /// Cuts the symbol table to its length, and checks the references between the tables.
    fn check(
        &mut self,
        dynamic: &Dynamic<'_>,
        memory: &impl ReadAt,
        behind: impl Iterator<Item = Vaddr>,
    ) -> Result<(), Error> {
        let bad = |what: &'static str, tag: u64| Error::malformed(what, Place::Dynamic(tag));
        // The table ends where the next one begins.
        let next = behind.filter(|&at| at > self.symtab.start).min();
        let room = next.unwrap_or(self.symtab.end).min(self.symtab.end);
        let room = room.checked_sub(self.symtab.start).unwrap_or(0) / SYM_SIZE;
        let by_hash = self.count_symbols(dynamic, memory)?;
        let count = by_hash.map_or(room, u64::from);
        let len = count.checked_mul(SYM_SIZE).filter(|_| count > 0 && count <= room);
        let symtab = len.and_then(|len| self.symtab.start.range(len));
        self.symtab =
            symtab.ok_or_else(|| bad("the symbol table reaches into another table", DT_SYMTAB))?;

        let table = SymbolTable::over(self, memory)
            .ok_or_else(|| bad("symbol tables lie outside the image", DT_SYMTAB))?;
        let strings = table.strtab;
        if strings.last() != Some(&0) {
            return Err(bad("the string table does not end with a NUL", DT_STRSZ));
        }
        if by_hash.is_some() {
            let names = table.symtab.as_chunks::<{ SYM_SIZE as usize }>().0.iter();
            let names = names.map(|entry| Sym::of_entry(entry).st_name);
            let last = names.clone().max().unwrap_or(0);
            if last as usize >= strings.len() {
                let index = names.zip(0..).find(|(name, _)| *name == last).map_or(0, |it| it.1);
                let what = "a symbol's name lies outside the string table";
                return Err(Error::malformed(what, Place::Symbol(index)));
            }
        }
        let versions = Versions::parse(&table.version_tables)?;
        versions.check(strings.len())?;
        if let (Some(versym), Some(_)) = (table.versym, by_hash) {
            let versyms = versym.as_chunks::<2>().0.get(..count as usize).ok_or_else(|| {
                bad("the version table is shorter than the symbol table", DT_VERSYM)
            })?;
            versions.check_indices(versyms)?;
        }
        let _ = self.versions.set(versions);
        Ok(())
    }

    /// The number of symbols by the hash tables, if they give one.
    fn count_symbols(
        &self,
        dynamic: &Dynamic<'_>,
        memory: &impl ReadAt,
    ) -> Result<Option<u32>, Error> {
        let capacity = self.symtab.end.checked_sub(self.symtab.start).unwrap_or(0) / SYM_SIZE;
        let count = |tag: u64| {
            let Some(start) = dynamic.address(tag) else { return Ok(None) };
            let bytes = memory.read_to_end(start);
            let count = bytes.and_then(|bytes| match tag {
                DT_GNU_HASH => GnuHashTable::parse(bytes)?.checked_count(),
                _ => SysvHashTable::parse(bytes)?.checked_count(),
            });
            let is_wrong = || Error::malformed(CONTRADICTORY_HASH, Place::Dynamic(tag));
            count.filter(|&count| u64::from(count) <= capacity).map(Some).ok_or_else(is_wrong)
        };
        // A GNU table without a number is not wrong.
        let gnu = count(DT_GNU_HASH)?.filter(|&count| count > 0);
        let sysv = count(DT_HASH)?;
        match (gnu, sysv) {
            (Some(gnu), Some(sysv)) if gnu != sysv => {
                let what = format!(
                    "the hash tables contradict each other: one has {sysv} symbols, the other {gnu}"
                );
                Err(Error::malformed(what, Place::Dynamic(DT_HASH)))
            }
            (gnu, sysv) => Ok(gnu.or(sysv)),
        }
    }

    /// Finds the tables that `dynamic` names in `memory`, with no more checks than `ld.so` makes: for a
    /// library that `ld.so` has loaded.
    pub(crate) fn new(dynamic: &Dynamic<'_>, memory: &impl ReadAt) -> Result<SymbolLayout, Error> {
        let required = |tag: u64, what: &'static str| {
            dynamic.address(tag).ok_or_else(|| Error::malformed(what, Place::Dynamic(tag)))
        };
        let strtab = required(DT_STRTAB, "no string table")?;
        let strsz = dynamic.get(DT_STRSZ).unwrap_or(0);
        let strtab = strtab
            .range(strsz)
            .filter(|range| memory.read(range.clone()).is_some())
            .ok_or_else(|| {
                Error::malformed(
                    "the string table lies outside the image",
                    Place::Dynamic(DT_STRTAB),
                )
            })?;

        if dynamic.get(DT_SYMENT).is_some_and(|size| size != SYM_SIZE) {
            return Err(Error::malformed("symbols of an unknown size", Place::Dynamic(DT_SYMENT)));
        }
        // No tag gives the number of symbols: the table may extend to the end of the segment. Only a
        // hash table says which of them can be found.
        let symtab = required(DT_SYMTAB, "no symbol table")?;
        let symtab_len = memory
            .read_to_end(symtab)
            .map(|bytes| (bytes.len() as u64 / SYM_SIZE).saturating_mul(SYM_SIZE))
            .filter(|&len| len >= SYM_SIZE)
            .ok_or_else(|| {
                Error::malformed(
                    "the symbol table lies outside the image",
                    Place::Dynamic(DT_SYMTAB),
                )
            })?;

        let to_end = |tag: u64, what: &'static str| match dynamic.address(tag) {
            None => Ok(None),
            Some(start) => memory
                .read_to_end(start)
                .and_then(|bytes| start.range(bytes.len() as u64))
                .map(Some)
                .ok_or_else(|| Error::malformed(what, Place::Dynamic(tag))),
        };
        let outside = "the hash table lies outside the image";
        let hash = match to_end(DT_GNU_HASH, outside)? {
            Some(range) => Some(HashRange::Gnu(range)),
            None => to_end(DT_HASH, outside)?.map(HashRange::Sysv),
        };
        let layout = SymbolLayout {
            symtab: symtab.range(symtab_len).unwrap_or(symtab..symtab),
            strtab,
            versym: to_end(DT_VERSYM, "the version table lies outside the image")?,
            hash,
            hashed: AtomicU32::new(NOT_COUNTED),
            version_ranges: VersionRanges::new(dynamic, memory)?,
            versions: OnceLock::new(),
            asked: AtomicU32::new(0),
        };
        layout.check_hash(memory)?;
        Ok(layout)
    }

    /// Checks the header of the hash table that lookups use.
    fn check_hash(&self, memory: &impl ReadAt) -> Result<(), Error> {
        let malformed = |what: &'static str, tag| Error::malformed(what, Place::Dynamic(tag));
        let Some(hash) = &self.hash else { return Ok(()) };
        let table = hash
            .table(memory)
            .ok_or_else(|| malformed("symbol tables lie outside the image", DT_SYMTAB))?;
        match (hash, table) {
            (_, Some(_)) => Ok(()),
            (HashRange::Gnu(_), None) => Err(malformed(CONTRADICTORY_HASH, DT_GNU_HASH)),
            (HashRange::Sysv(_), None) => Err(malformed(CONTRADICTORY_HASH, DT_HASH)),
        }
    }
}

/// The tables of a library's symbols, found in some memory. Threads can share them.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    layout: &'a SymbolLayout,
    pub(super) symtab: &'a [u8],
    strtab: &'a [u8],
    versym: Option<&'a [u8]>,
    version_tables: VersionTables<'a>,
    pub(super) hash: Option<HashTable<'a>>,
}

impl<'a> Tables<'a> {
    /// A view of them, with a budget of its own.
    #[inline]
    pub(crate) fn view(&self) -> SymbolTable<'a> {
        SymbolTable { tables: *self, work: Work::default() }
    }

    /// Whether `string` is the string at `offset`.
    #[inline]
    pub(crate) fn is_string(&self, offset: u32, string: &[u8]) -> bool {
        let tail = self.strtab.get(offset as usize..).unwrap_or(&[]);
        tail.get(string.len()) == Some(&0) && tail.starts_with(string)
    }

    /// The symbol of this index.
    #[inline]
    pub(crate) fn symbol(&self, index: u32) -> Option<Sym> {
        self.symtab.as_chunks().0.get(index as usize).map(Sym::of_entry)
    }

    /// The versions that the library defines and needs.
    #[inline]
    fn versions(&self) -> &'a Versions {
        let known = self.layout.versions.get();
        known.unwrap_or_else(|| self.read_versions())
    }

    /// Reads them, of a library that `ld.so` has loaded and checked; those of an image were read when it was checked.
    #[cold]
    fn read_versions(&self) -> &'a Versions {
        let versions = match Versions::parse(&self.version_tables) {
            // As for all small memory. Without the versions, references would be bound to others.
            Err(Error::OutOfMemory { .. }) => alloc::handle_alloc_error(Layout::new::<Versions>()),
            versions => versions.unwrap_or_default(),
        };
        // Not read inside: a child of a fork in between would wait for a thread that it lacks.
        self.layout.versions.get_or_init(|| versions)
    }

    /// The `.gnu.version` entry of the symbol of this index.
    #[inline]
    pub(super) fn versym(&self, index: u32) -> Option<u16> {
        self.versym?.as_chunks().0.get(index as usize).map(|versym| u16::from_le_bytes(*versym))
    }

    #[inline]
    pub(super) fn version_entry(&self, versym: u16) -> Option<VersionEntry> {
        if self.layout.versions.get().is_none()
            && self.is_asked_rarely()
            && let Some(entry) = self.version_tables.defined(versym)
        {
            return Some(entry).filter(VersionEntry::is_version);
        }
        self.versions().of(versym).copied()
    }

    /// Whether the versions were asked for so seldom that to read all of them would take longer than to walk along their
    /// table each time.
    fn is_asked_rarely(&self) -> bool {
        const FEW: u32 = 8;
        self.layout.asked.fetch_add(1, Ordering::Relaxed) < FEW
    }

    #[inline]
    pub(super) fn is_version(&self, entry: &VersionEntry, version: &Version<'_>) -> bool {
        entry.hash == version.hash && self.is_string(entry.name, version.name)
    }

    /// The string table from `offset` on.
    pub(crate) fn strings_from(&self, offset: u32) -> &'a [u8] {
        self.strtab.get(offset as usize..).unwrap_or_default()
    }
}

/// A library's symbols, seen in some memory.
pub(crate) struct SymbolTable<'a> {
    tables: Tables<'a>,
    /// See [`SymbolTable::check_work`].
    pub(super) work: Work,
}

/// Bytes compared and links followed.
#[derive(Default)]
pub(super) struct Work(Cell<u64>);

impl Work {
    #[inline]
    pub(super) fn add(&self, amount: usize) {
        self.0.set(self.0.get().wrapping_add(amount as u64));
    }
}

/// The hash table that lookups use.
#[derive(Clone, Copy)]
pub(super) enum HashTable<'a> {
    Gnu(GnuHashTable<'a>),
    Sysv(SysvHashTable<'a>),
}

impl HashTable<'_> {
    /// One more than the highest index that a lookup can reach.
    fn symbol_count(&self) -> u32 {
        match self {
            HashTable::Gnu(table) => table.symbol_count(),
            HashTable::Sysv(table) => table.len(),
        }
    }
}

impl<'a> Deref for SymbolTable<'a> {
    type Target = Tables<'a>;

    #[inline]
    fn deref(&self) -> &Tables<'a> {
        &self.tables
    }
}

impl<'a> SymbolTable<'a> {
    /// The tables of `layout`, read from `memory`.
    pub(crate) fn over(
        layout: &'a SymbolLayout,
        memory: &'a impl ReadAt,
    ) -> Option<SymbolTable<'a>> {
        let hash = match &layout.hash {
            None => None,
            Some(hash) => hash.table(memory)?,
        };
        let versym = match &layout.versym {
            Some(range) => Some(memory.read(range.clone())?),
            None => None,
        };
        let tables = Tables {
            layout,
            symtab: memory.read(layout.symtab.clone())?,
            strtab: memory.read(layout.strtab.clone())?,
            versym,
            version_tables: layout.version_ranges.tables(memory)?,
            hash,
        };
        Some(tables.view())
    }

    /// Fails if this view has compared and read more than the table of any linker can need for one
    /// lookup of each of its symbols: the table was made to be slow.
    #[inline]
    pub(crate) fn check_work(&self) -> Result<(), Error> {
        const OF_ANY_TABLE: u64 = 1 << 24;
        let work = self.work.0.get();
        if work <= OF_ANY_TABLE {
            return Ok(());
        }
        let tables = self.symtab.len().saturating_add(self.strtab.len()) as u64;
        let limit = tables.saturating_mul(16).saturating_add(OF_ANY_TABLE);
        limits::check("the work to look up its symbols", work, limit)
    }

    #[inline]
    fn add_work(&self, amount: usize) {
        self.work.add(amount);
    }

    /// The bytes of the symbol of this index.
    #[inline]
    pub(crate) fn entry(&self, index: u32) -> Option<&'a [u8]> {
        let start = (index as usize).checked_mul(SYM_SIZE as usize)?;
        self.symtab.get(start..)?.get(..SYM_SIZE as usize)
    }

    /// The number of symbols that the table has room for; relocations may name any of them.
    pub(crate) fn capacity(&self) -> u32 {
        self.symtab.as_chunks::<{ SYM_SIZE as usize }>().0.len() as u32
    }

    /// The number of symbols by the hash table. They are the first ones of the table.
    pub(crate) fn len(&self) -> u32 {
        let mut hashed = self.layout.hashed.load(Ordering::Relaxed);
        if hashed == NOT_COUNTED {
            hashed = self.hash.map_or(0, |table| table.symbol_count());
            self.layout.hashed.store(hashed, Ordering::Relaxed);
        }
        hashed.min(self.capacity())
    }

    /// The name of a symbol of this table.
    #[inline]
    pub(crate) fn name(&self, symbol: &Sym) -> Option<SymbolName<'a>> {
        let name = SymbolName::terminated(self.strings_from(symbol.st_name));
        self.add_work(name.map_or(self.strtab.len(), |name| name.bytes().len()));
        name
    }

    /// The string at `offset` of the string table.
    pub(crate) fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let string = string_at(self.strtab, u64::from(offset));
        self.add_work(string.map_or(self.strtab.len(), <[u8]>::len));
        string
    }

    /// The version of the symbol of this index: of a reference, the one that it asks for; of a
    /// definition, its own. `None`: unversioned.
    #[inline]
    pub(crate) fn version(&self, index: u32) -> Option<Version<'a>> {
        let versym = self.versym(index)?;
        self.version_of(versym)
    }

    fn version_of(&self, versym: u16) -> Option<Version<'a>> {
        let entry = self.version_entry(versym)?;
        Some(Version { name: self.string(entry.name)?, hash: entry.hash, exact: entry.exact })
    }

    /// Whether the symbol of this index is the default definition of its name.
    pub(crate) fn is_default_version(&self, index: u32) -> bool {
        self.versym(index).is_none_or(|versym| versym & VERSYM_HIDDEN == 0)
    }

    /// The versions that the library needs: library, version, and whether it may be missing.
    pub(crate) fn needed_versions(
        &self,
    ) -> impl Iterator<Item = (&'a [u8], Version<'a>, bool)> + '_ {
        self.versions().needed().iter().filter_map(|needed| {
            let version =
                Version { name: self.string(needed.name)?, hash: needed.hash, exact: true };
            Some((self.string(needed.file)?, version, needed.weak))
        })
    }

    /// Whether the library defines this version. A library without definitions satisfies any.
    pub(crate) fn defines_version(&self, version: &Version<'_>) -> bool {
        let is_it = |entry: &VersionEntry| {
            self.add_work(version.name.len());
            self.is_version(entry, version)
        };
        if self.layout.versions.get().is_none() && self.is_asked_rarely() {
            let mut defined = self.version_tables.definitions();
            // If it is not among them, all are read: a library without definitions has to be told from one that lacks it.
            if defined.any(|(_, entry)| is_it(&entry)) {
                return true;
            }
        }
        let mut defined = self.versions().defined();
        match defined.next() {
            None => true,
            Some(first) => is_it(first) || defined.any(is_it),
        }
    }

    /// The symbols that other libraries can bind to, with index; in table order.
    pub(crate) fn exports(&self) -> impl Iterator<Item = (u32, Sym)> + '_ {
        (1..self.len()).filter_map(|index| Some((index, self.export(index)?)))
    }

    /// The symbol of this index, if other libraries can bind to it.
    pub(crate) fn export(&self, index: u32) -> Option<Sym> {
        self.symbol(index).filter(|symbol| {
            index != 0
                && !symbol.is_undefined()
                && symbol.is_export()
                && (symbol.st_value != 0 || symbol.is_absolute() || symbol.is_thread_local())
        })
    }

    /// The upper 31 bits of the GNU hash of a symbol's name: those that a hash table stores. Where the
    /// table has them, the name is not read.
    #[inline]
    pub(crate) fn gnu_hash_31(&self, index: u32) -> Option<u32> {
        let stored = match self.hash {
            Some(HashTable::Gnu(table)) => table.stored_hash(index),
            _ => None,
        };
        let hash = stored.or_else(|| Some(self.name(&self.symbol(index)?)?.gnu_hash))?;
        Some(hash >> 1)
    }

    /// [`SymbolTable::gnu_hash_31`] of all names that a lookup can find.
    pub(crate) fn gnu_hashes_31(&self) -> impl Iterator<Item = u32> + '_ {
        let first = match self.hash {
            Some(HashTable::Gnu(table)) => table.symoffset(),
            _ => 1,
        };
        (first..self.len()).filter_map(|index| self.gnu_hash_31(index))
    }

    /// Whether the table has an undefined symbol of this name.
    pub(crate) fn refers_to(&self, name: &SymbolName<'_>) -> bool {
        (1..self.capacity())
            .filter_map(|index| self.symbol(index))
            .any(|symbol| symbol.is_undefined() && self.is_string(symbol.st_name, name.bytes()))
    }

    /// The names of the symbols that the library refers to and does not define.
    pub(crate) fn undefined_names(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let undefined = self.all().filter(|(_, symbol)| symbol.is_undefined());
        undefined.filter_map(|(_, symbol)| self.string(symbol.st_name))
    }

    /// The names, as offsets, of the symbols that a library refers to and does not define, if one of `starts` is the
    /// beginning of the name.
    ///
    /// They come first, before the symbols of the hash table. But in an executable that is not PIC, some of them are in
    /// the hash table: those are there with `in_hash_table`.
    pub(crate) fn undefined_starting_with<const N: usize>(
        &self,
        starts: [&[u8; 8]; N],
        in_hash_table: bool,
    ) -> impl Iterator<Item = u32> + use<'a, N> {
        let end = match self.hash {
            Some(HashTable::Gnu(table)) if !in_hash_table && !table.is_empty() => table.symoffset(),
            _ => self.end(),
        };
        let starts = starts.map(|start| u64::from_ne_bytes(*start));
        let strtab = self.strtab;
        let symbols = self.symtab.as_chunks().0.iter().take(end as usize).skip(1);
        symbols.filter_map(move |entry: &[u8; SYM_SIZE as usize]| {
            // Not all of a symbol is read: there are many.
            let [a, b, c, d, _, _, section, page, ..] = *entry;
            if section | page != 0 {
                return None;
            }
            let name = u32::from_le_bytes([a, b, c, d]);
            let start = u64::from_ne_bytes(*strtab.get(name as usize..)?.first_chunk()?);
            starts.contains(&start).then_some(name)
        })
    }

    /// All symbols, with index, in table order: also those that the hash table does not count.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, Sym)> + '_ {
        (1..self.end()).filter_map(|index| Some((index, self.symbol(index)?)))
    }

    /// One more than the index of the last symbol.
    fn end(&self) -> u32 {
        match self.hash {
            // The symbols of the hash table, if there are any, are the last ones. ld enters undefined ones, too.
            Some(HashTable::Gnu(table)) if table.symoffset() < self.len() => self.len(),
            Some(HashTable::Sysv(_)) => self.len(),
            // Usually the strings follow.
            _ => match self.layout.strtab.start.checked_sub(self.layout.symtab.start) {
                Some(len) if len > 0 => self.capacity().min((len / SYM_SIZE) as u32),
                _ => self.capacity(),
            },
        }
    }

    /// The names of the versions that the library defines, without its own name.
    pub(crate) fn defined_versions(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let defined = self.versions().defined().filter(|it| it.origin == Origin::Defined);
        defined.filter_map(|entry| self.string(entry.name))
    }

    /// The symbols that the hash table counts, with index; in table order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Sym)> + '_ {
        (1..self.len()).filter_map(|index| Some((index, self.symbol(index)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::{Flat, HashKind, TestSymbol, dynamic, symbol_tables};

    const SYMBOLS: &[TestSymbol] =
        &[("needed", 0, 0, 5), ("first", 1, 0x100, 2), ("second", 1, 0x200, 1)];
    const KINDS: [HashKind; 2] = [HashKind::Gnu, HashKind::Sysv];

    fn layout(memory: &Flat, tags: &[(u64, u64)]) -> Result<SymbolLayout, Error> {
        SymbolLayout::of_image(&dynamic(tags), memory, tags.iter().map(|tag| Vaddr(tag.1)))
    }

    #[test]
    fn symbols_names_and_versions_are_read_through_either_hash_table() {
        for kind in KINDS {
            let (memory, tags) = symbol_tables(SYMBOLS, kind);
            let layout = layout(&memory, &tags).unwrap();
            let table = SymbolTable::over(&layout, &memory).unwrap();
            assert_eq!((table.len(), table.capacity()), (4, 4), "{kind:?}");
            let names: Vec<_> =
                table.iter().map(|(_, symbol)| table.name(&symbol).unwrap().bytes()).collect();
            assert_eq!(names, [&b"needed"[..], b"first", b"second"]);
            assert_eq!(table.exports().map(|it| it.0).collect::<Vec<_>>(), [2, 3]);
            let version = |index| table.version(index).map(|it| it.name());
            assert_eq!([1, 2, 3].map(version), [Some(&b"N"[..]), Some(b"V1"), None]);
            let needed: Vec<_> =
                table.needed_versions().map(|it| (it.0, it.1.name(), it.2)).collect();
            assert_eq!(needed, [(&b"libn.so"[..], &b"N"[..], false)]);
            assert!(table.defines_version(&Version::exact(b"V3")));
            assert!(!table.defines_version(&Version::exact(b"V4")));
            assert!(table.refers_to(&SymbolName::new(b"needed")));
            assert!(table.undefined_names().any(|name| name == b"needed"));
            assert!(!table.refers_to(&SymbolName::new(b"first")));
            let hash = SymbolName::new(b"second").gnu_hash_31();
            assert_eq!(table.gnu_hash_31(3), Some(hash));
            assert!(table.gnu_hashes_31().any(|it| it == hash));
        }
    }

    #[test]
    fn tables_that_contradict_each_other_are_refused() {
        for (tag, value, expected) in [
            (DT_SYMENT, 16, "symbols of an unknown size"),
            (DT_STRSZ, 0x25, "a symbol's name lies outside the string table"),
            (DT_STRSZ, 0x1000, "the string table lies outside"),
            (DT_VERSYM, 0x1000, "the version table lies outside"),
            (DT_GNU_HASH, 0x1000, "the hash table lies outside"),
            (DT_GNU_HASH, 0, "the hash table contradicts itself"),
        ] {
            let (memory, mut tags) = symbol_tables(SYMBOLS, HashKind::Gnu);
            tags.push((tag, value));
            let error = layout(&memory, &tags).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{tag:#x} {value:#x}: {error}");
        }
    }

    #[test]
    fn hash_tables_that_count_differently_are_refused() {
        let (mut memory, mut tags) = symbol_tables(SYMBOLS, HashKind::Gnu);
        let sysv = [1u32, 3, 1, 0, 0, 0].map(u32::to_le_bytes).concat();
        tags.push((DT_HASH, memory.add(&sysv)));
        let error = layout(&memory, &tags).map(drop).unwrap_err().to_string();
        assert!(error.contains("one has 3 symbols, the other 4"), "{error}");
    }

    #[test]
    fn an_index_of_no_version_is_refused() {
        let (memory, tags) = symbol_tables(&[("a", 1, 1, 2), ("b", 1, 2, 9)], HashKind::Gnu);
        let error = layout(&memory, &tags).map(drop).unwrap_err().to_string();
        assert!(error.contains("its version index 9 is that of no version"), "{error}");
        assert!(error.contains("symbol 2"), "{error}");
    }

    #[test]
    fn a_table_that_was_made_to_be_slow_runs_out_of_its_budget() {
        let (memory, tags) = symbol_tables(SYMBOLS, HashKind::Gnu);
        let layout = layout(&memory, &tags).unwrap();
        let table = SymbolTable::over(&layout, &memory).unwrap();
        table.add_work(1 << 24);
        table.check_work().unwrap();
        table.add_work(1 << 20);
        assert!(matches!(table.check_work(), Err(Error::Limit { .. })));
        table.view().check_work().unwrap();
    }
}
