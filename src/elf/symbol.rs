//! Symbol tables: from a name and a version to a definition.
//!
//! A library's dynamic symbols are found through a hash table, GNU's or the gABI's, and filtered
//! by symbol version. Which candidate matches is `ld.so`'s decision of many years, not the
//! specification's; [`SymbolTable::lookup`] follows glibc's `check_match` (`elf/dl-lookup.c`) rule
//! by rule, since "the same symbol as `dlopen` would have bound" is what users rely on.
//!
//! [`SymbolLayout`] says where the tables lie and is made once; [`SymbolTable`] is a view of them
//! in some memory: the received bytes, a mapped image, or a library that `ld.so` loaded. All
//! three are untrusted in the sense that nothing here indexes unchecked or loops without bound:
//! chains end with their table, and [`SymbolTable::check_work`] puts a budget on a table
//! that was made to be slow.
//!
//! Sources: gABI "Symbol Table" and "Hash Table"; GNU hash: binutils `bfd/elflink.c`; versions:
//! LSB "Symbol Versioning" (`Elf64_Verdef`, `Elf64_Verneed`).

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::ffi::CStr;
use std::ops::Range;

use goblin::elf::sym::{
    STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STT_COMMON, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
    STT_OBJECT, STT_SECTION, STT_TLS, STV_DEFAULT, STV_HIDDEN, STV_INTERNAL, STV_PROTECTED,
};
use goblin::elf64::dynamic::{
    DT_GNU_HASH, DT_HASH, DT_STRSZ, DT_STRTAB, DT_SYMENT, DT_SYMTAB, DT_VERDEF, DT_VERDEFNUM,
    DT_VERNEED, DT_VERNEEDNUM, DT_VERSYM,
};
use goblin::elf64::section_header::{SHN_ABS, SHN_UNDEF};

use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::fallible::TryGrow;
use crate::base::limits;
use crate::elf::dynamic::{Dynamic, ReadAt, string_at, u16_at, u32_at};

/// Size of one `Elf64_Sym`.
pub(crate) const SYM_SIZE: u64 = 24;
/// The bit of a `.gnu.version` entry that hides a definition from unversioned references.
const VERSYM_HIDDEN: u16 = 0x8000;
/// `VER_NDX_GLOBAL`: the version index of what has no version. (0 is that of local symbols.)
const VER_NDX_GLOBAL: u16 = 1;
/// `VER_DEF_CURRENT` and `VER_NEED_CURRENT`.
const VERSION_CURRENT: u16 = 1;
/// Sizes of an `Elf64_Verdef`, and of an `Elf64_Verneed` or `Elf64_Vernaux`.
const VERDEF_SIZE: u32 = 20;
const VERNEED_SIZE: u32 = 16;
/// Size of an `Elf64_Verdaux`.
const VERDAUX_SIZE: usize = 8;
const CONTRADICTORY_HASH: &str = "the hash table contradicts itself";
/// `VER_FLG_BASE`: the definition that names the library itself.
const VER_FLG_BASE: u16 = 1;
/// `VER_FLG_WEAK`: a version that may be missing.
const VER_FLG_WEAK: u16 = 2;
/// The tags of this module whose values are addresses.
pub(crate) const ADDRESS_TAGS: &[u64] =
    &[DT_STRTAB, DT_SYMTAB, DT_GNU_HASH, DT_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED];

/// One entry of the dynamic symbol table (gABI `Elf64_Sym`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sym {
    /// Offset of the name in the string table.
    pub st_name: u32,
    /// Binding and type.
    pub st_info: u8,
    /// Visibility.
    pub st_other: u8,
    /// The section that defines it, `SHN_UNDEF` or `SHN_ABS`.
    pub st_shndx: u16,
    /// An address; for a thread-local symbol, an offset in its block.
    pub st_value: u64,
    /// In bytes.
    pub st_size: u64,
}

impl Sym {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Sym> {
        bytes.first_chunk().map(Sym::of_entry)
    }

    #[inline]
    fn of_entry(entry: &[u8; SYM_SIZE as usize]) -> Sym {
        let &[a, b, c, d, st_info, st_other, e, f, ref values @ ..] = entry;
        // The rest is two words.
        let [st_value, st_size] = match values.as_chunks::<8>().0 {
            &[st_value, st_size] => [st_value, st_size].map(u64::from_le_bytes),
            _ => [0; 2],
        };
        Sym {
            st_name: u32::from_le_bytes([a, b, c, d]),
            st_info,
            st_other,
            st_shndx: u16::from_le_bytes([e, f]),
            st_value,
            st_size,
        }
    }

    /// `st_value`, where that is an address.
    pub(crate) fn address(&self) -> Vaddr {
        Vaddr(self.st_value)
    }

    pub(crate) fn binding(&self) -> u8 {
        self.st_info >> 4
    }

    pub(crate) fn kind(&self) -> u8 {
        self.st_info & 0xf
    }

    pub(crate) fn visibility(&self) -> u8 {
        self.st_other & 3
    }

    pub(crate) fn is_undefined(&self) -> bool {
        u32::from(self.st_shndx) == SHN_UNDEF
    }

    /// Not moved with the image.
    pub(crate) fn is_absolute(&self) -> bool {
        u32::from(self.st_shndx) == SHN_ABS
    }

    /// There is to be one definition in the process.
    pub(crate) fn is_unique(&self) -> bool {
        self.binding() == STB_GNU_UNIQUE
    }

    pub(crate) fn is_weak(&self) -> bool {
        self.binding() == STB_WEAK
    }

    pub(crate) fn is_function(&self) -> bool {
        matches!(self.kind(), STT_FUNC | STT_GNU_IFUNC)
    }

    /// It is known to be a function or a variable.
    pub(crate) fn has_type(&self) -> bool {
        self.kind() != STT_NOTYPE
    }

    /// Neither weak nor unique.
    pub(crate) fn is_strong(&self) -> bool {
        self.binding() == STB_GLOBAL
    }

    pub(crate) fn is_section(&self) -> bool {
        self.kind() == STT_SECTION
    }

    pub(crate) fn is_thread_local(&self) -> bool {
        self.kind() == STT_TLS
    }

    pub(crate) fn is_ifunc(&self) -> bool {
        self.kind() == STT_GNU_IFUNC
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.visibility() == STV_PROTECTED
    }

    /// A reference to it never leaves the image that it stands in.
    pub(crate) fn is_local(&self) -> bool {
        !(self.binding() == STB_GLOBAL
            || self.binding() == STB_WEAK
            || self.binding() == STB_GNU_UNIQUE)
            || matches!(self.visibility(), STV_HIDDEN | STV_INTERNAL)
    }

    /// Other libraries can bind to it.
    fn is_export(&self) -> bool {
        !self.is_local()
            && matches!(
                self.kind(),
                STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC
            )
            && matches!(self.visibility(), STV_DEFAULT | STV_PROTECTED)
    }
}

/// A name to look up, with its hash.
#[derive(Clone, Copy)]
pub(crate) struct SymbolName<'a> {
    bytes: &'a [u8],
    gnu_hash: u32,
}

impl<'a> SymbolName<'a> {
    /// As [`SymbolTable::gnu_hash_31`].
    pub(crate) fn gnu_hash_31(&self) -> u32 {
        self.gnu_hash >> 1
    }

    pub(crate) fn new(bytes: &'a [u8]) -> SymbolName<'a> {
        SymbolName { bytes, gnu_hash: gnu_hash(bytes) }
    }

    /// The one at the start of these bytes, up to its NUL.
    fn terminated(bytes: &'a [u8]) -> Option<SymbolName<'a>> {
        CStr::from_bytes_until_nul(bytes).ok().map(|name| SymbolName::new(name.to_bytes()))
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A version that a reference asks for.
#[derive(Clone, Copy)]
pub(crate) struct Version<'a> {
    name: &'a [u8],
    hash: u32,
    /// Only this very version will do (`dlvsym`; `vna_other` with its top bit set).
    exact: bool,
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

/// Which version a lookup wants.
#[derive(Clone, Copy)]
pub(crate) enum VersionMatch<'a> {
    /// What an unversioned reference of an image binds to: the oldest definition.
    Unversioned,
    /// What `dlsym` gives: the default definition.
    Default,
    /// This version.
    Version(Version<'a>),
    /// Any definition, whatever its version.
    Any,
}

/// What the result of a lookup is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeClass {
    /// An address that may be compared: a non-PIC executable's own PLT entry, an undefined symbol
    /// with a value, is where the whole process agrees that the function lies.
    Address,
    /// A call (`R_*_JUMP_SLOT`) or a thread-local: only a real definition will do.
    Definition,
}

/// Where a library's symbol tables lie. Made once per library.
#[derive(Debug)]
pub(crate) struct SymbolLayout {
    symtab: Range<Vaddr>,
    strtab: Range<Vaddr>,
    versym: Option<Range<Vaddr>>,
    hash: Option<Hash>,
    /// How many symbols a lookup can lead to: one more than the highest index in the hash table.
    hashed: u32,
    /// By version index (`.gnu.version` entry without its top bit).
    versions: Vec<Option<VersionEntry>>,
    needed_versions: Vec<NeededVersion>,
    /// The largest offsets of names in `DT_VERDEF` and in `DT_VERNEED`.
    last_version_names: [u32; 2],
    /// Whether the entries of these overlap, or are more than their number says.
    broken_versions: [bool; 2],
}

#[derive(Debug, Clone)]
enum Hash {
    Gnu(Range<Vaddr>),
    Sysv(Range<Vaddr>),
}

#[derive(Debug, Clone)]
struct VersionEntry {
    hash: u32,
    /// Offset in the string table.
    name: u32,
    exact: bool,
    origin: Origin,
}

/// Where a version index comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// `DT_VERNEED`: another library should define it.
    Needed,
    /// `DT_VERDEF`: this library defines it.
    Defined,
    /// `DT_VERDEF` with `VER_FLG_BASE`: the library's own name, which is no version of a symbol.
    Base,
}

/// A version that the image needs from the library of that name.
#[derive(Debug, Clone)]
pub(crate) struct NeededVersion {
    /// Offset of the library's name in the string table (`vn_file`).
    file: u32,
    /// Offset of the version's name in the string table (`vna_name`).
    name: u32,
    hash: u32,
    /// It may be missing.
    weak: bool,
}

impl SymbolLayout {
    /// Finds the tables of an image that is to be loaded. They are checked as a whole: each name lies
    /// in the string table, each version index is defined, and the hash tables agree.
    ///
    /// `behind` are addresses where other tables begin.
    pub(crate) fn of_image(
        dynamic: &Dynamic,
        memory: &impl ReadAt,
        behind: impl Iterator<Item = Vaddr>,
    ) -> Result<SymbolLayout, Error> {
        let mut layout = SymbolLayout::new(dynamic, memory)?;
        layout.check(dynamic, memory, behind)?;
        Ok(layout)
    }

    /// Cuts the symbol table to its length, and checks what refers to what.
    fn check(
        &mut self,
        dynamic: &Dynamic,
        memory: &impl ReadAt,
        behind: impl Iterator<Item = Vaddr>,
    ) -> Result<(), Error> {
        let bad = |what: &'static str, tag: u64| Error::malformed(what, Place::Dynamic(tag));
        // Where the next table begins, this one has ended.
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
        // `ld.so` looks at no number, and goes on to where nothing is next.
        for (broken, tag) in self.broken_versions.into_iter().zip([DT_VERDEF, DT_VERNEED]) {
            if broken {
                let what = "entries of versions overlap, or are more than their number";
                return Err(bad(what, tag));
            }
        }
        let is_name = |offset: u32| (offset as usize) < strings.len();
        for (last, tag) in self.last_version_names.into_iter().zip([DT_VERDEF, DT_VERNEED]) {
            if !is_name(last) {
                return Err(bad("a version's name lies outside the string table", tag));
            }
        }
        if let (Some(versym), Some(_)) = (table.versym, by_hash) {
            let versyms = versym.as_chunks::<2>().0.get(..count as usize).ok_or_else(|| {
                bad("the version table is shorter than the symbol table", DT_VERSYM)
            })?;
            self.check_version_indices(versyms)?;
        }
        Ok(())
    }

    /// Each index must be local, global, or that of a version.
    fn check_version_indices(&self, versyms: &[[u8; 2]]) -> Result<(), Error> {
        let index = |versym: &[u8; 2]| u16::from_le_bytes(*versym) & !VERSYM_HIDDEN;
        let is_known = |index: u16| {
            index <= VER_NDX_GLOBAL
                || self.versions.get(usize::from(index)).is_some_and(Option::is_some)
        };
        // Nearly always there is no gap, and the largest says enough.
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

    /// How many symbols there are by the hash tables, if they tell.
    fn count_symbols(&self, dynamic: &Dynamic, memory: &impl ReadAt) -> Result<Option<u32>, Error> {
        let capacity = self.symtab.end.checked_sub(self.symtab.start).unwrap_or(0) / SYM_SIZE;
        let count = |tag: u64| {
            let Some(start) = dynamic.address(tag) else { return Ok(None) };
            let bytes = memory.read_to_end(start);
            let table = bytes.and_then(|bytes| match tag {
                DT_GNU_HASH => HashTable::gnu(bytes),
                _ => HashTable::sysv(bytes),
            });
            let count = table.and_then(|table| table.checked_count());
            let is_wrong = || Error::malformed(CONTRADICTORY_HASH, Place::Dynamic(tag));
            // What the table does not tell is not wrong.
            count.filter(|&count| u64::from(count) <= capacity).map(Some).ok_or_else(is_wrong)
        };
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

    /// Finds the tables that `dynamic` names in `memory`, as a library of `ld.so`'s has them.
    pub(crate) fn new(dynamic: &Dynamic, memory: &impl ReadAt) -> Result<SymbolLayout, Error> {
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
        // No tag tells how many symbols there are: all that fit before the segment ends may be
        // meant. Only a hash table names how many can be found.
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
            Some(range) => Some(Hash::Gnu(range)),
            None => to_end(DT_HASH, outside)?.map(Hash::Sysv),
        };
        let versym = to_end(DT_VERSYM, "the version table lies outside the image")?;
        // As many as most have.
        let room = if versym.is_some() { 16 } else { 0 };
        let mut layout = SymbolLayout {
            symtab: symtab.range(symtab_len).unwrap_or(symtab..symtab),
            strtab,
            versym,
            hash,
            hashed: 0,
            versions: Vec::with_capacity(room),
            needed_versions: Vec::with_capacity(room),
            last_version_names: [0; 2],
            broken_versions: [false; 2],
        };
        layout.read_version_definitions(dynamic, memory)?;
        layout.read_version_needs(dynamic, memory)?;

        let table = SymbolTable::over(&layout, memory).ok_or_else(|| {
            Error::malformed("symbol tables lie outside the image", Place::Dynamic(DT_SYMTAB))
        })?;
        if layout.hash.is_some() && table.hash.is_none() {
            let tag = if matches!(layout.hash, Some(Hash::Gnu(_))) { DT_GNU_HASH } else { DT_HASH };
            return Err(Error::malformed(CONTRADICTORY_HASH, Place::Dynamic(tag)));
        }
        layout.hashed = table.hash.map_or(0, |hash| hash.symbol_count());
        Ok(layout)
    }

    /// `DT_VERDEF`: a chain of `Elf64_Verdef`, each with its name in its first `Elf64_Verdaux`.
    fn read_version_definitions(
        &mut self,
        dynamic: &Dynamic,
        memory: &impl ReadAt,
    ) -> Result<(), Error> {
        let bad = || {
            Error::malformed(
                "the version definitions contradict themselves",
                Place::Dynamic(DT_VERDEF),
            )
        };
        let Some(start) = dynamic.address(DT_VERDEF) else {
            return Ok(());
        };
        let bytes = memory.read_to_end(start).ok_or_else(bad)?;
        // Offsets only ever grow, so that the loop ends with the bytes; and each `Elf64_Verdaux` is 8
        // bytes of the table, unless chains overlap.
        let mut entries_left = bytes.len() / 8;
        let mut last_name = 0;
        let (mut has_more, mut overlaps) = (true, false);
        let mut rest = bytes;
        for _ in 0..dynamic.get(DT_VERDEFNUM).unwrap_or(0) {
            if u16_at(rest, 0).ok_or_else(bad)? != VERSION_CURRENT {
                return Err(bad());
            }
            let flags = u16_at(rest, 2).ok_or_else(bad)?;
            let index = u16_at(rest, 4).ok_or_else(bad)?;
            let count = u16_at(rest, 6).ok_or_else(bad)?;
            let hash = u32_at(rest, 8).ok_or_else(bad)?;
            let aux = u32_at(rest, 12).ok_or_else(bad)?;
            let next = u32_at(rest, 16).ok_or_else(bad)?;
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
            self.set_version(index, VersionEntry { hash, name, exact: false, origin })?;
            if next == 0 {
                has_more = false;
                break;
            }
            overlaps |= next < VERDEF_SIZE;
            rest = rest.get(next as usize..).ok_or_else(bad)?;
        }
        self.last_version_names = [last_name, 0];
        self.broken_versions = [has_more || overlaps, false];
        Ok(())
    }

    /// `DT_VERNEED`: a chain of `Elf64_Verneed`, one per library, each with a chain of
    /// `Elf64_Vernaux`, one per version.
    fn read_version_needs(&mut self, dynamic: &Dynamic, memory: &impl ReadAt) -> Result<(), Error> {
        let bad = || {
            Error::malformed("the version needs contradict themselves", Place::Dynamic(DT_VERNEED))
        };
        let Some(start) = dynamic.address(DT_VERNEED) else {
            return Ok(());
        };
        let bytes = memory.read_to_end(start).ok_or_else(bad)?;
        // Every entry of the inner chains is 16 bytes of the table, unless chains overlap: bound
        // the whole by what could fit, so that overlapping chains cost no more than honest ones.
        let mut entries_left = bytes.len() / 16;
        let [of_definitions, mut last_name] = self.last_version_names;
        let (mut has_more, mut is_broken) = (true, false);
        let mut rest = bytes;
        for _ in 0..dynamic.get(DT_VERNEEDNUM).unwrap_or(0) {
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
                self.set_version(other, VersionEntry { hash, name, exact, origin })?;
                self.needed_versions.try_push(NeededVersion {
                    file,
                    name,
                    hash,
                    weak: flags & VER_FLG_WEAK != 0,
                })?;
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
        self.last_version_names = [of_definitions, last_name];
        let [of_definitions, _] = self.broken_versions;
        self.broken_versions = [of_definitions, has_more || is_broken];
        Ok(())
    }

    fn set_version(&mut self, index: u16, entry: VersionEntry) -> Result<(), Error> {
        // No more than 15 bits.
        let index = usize::from(index & !VERSYM_HIDDEN);
        if self.versions.len() <= index {
            self.versions.try_lengthen(index.saturating_add(1), None)?;
        }
        // What the image defines counts for more than what it needs, as in `ld.so`.
        let is_defined = |it: &VersionEntry| it.origin != Origin::Needed;
        if let Some(place) = self.versions.get_mut(index)
            && (is_defined(&entry) || !place.as_ref().is_some_and(is_defined))
        {
            *place = Some(entry);
        }
        Ok(())
    }
}

/// A library's symbols, seen in some memory.
pub(crate) struct SymbolTable<'a> {
    layout: &'a SymbolLayout,
    symtab: &'a [u8],
    strtab: &'a [u8],
    versym: Option<&'a [u8]>,
    hash: Option<HashTable<'a>>,
    work: Cell<u64>,
}

#[derive(Clone, Copy)]
enum HashTable<'a> {
    Gnu {
        symoffset: u32,
        bloom_shift: u32,
        /// As many as a power of two.
        bloom: &'a [[u8; 8]],
        /// Not empty.
        buckets: &'a [[u8; 4]],
        chain: &'a [[u8; 4]],
    },
    Sysv {
        buckets: &'a [u8],
        chain: &'a [u8],
    },
}

/// The definitions of a table that most relocations name, to be looked at by the thousand.
#[derive(Clone, Copy)]
pub(crate) struct PlainDefinitions<'a> {
    symtab: &'a [[u8; SYM_SIZE as usize]],
    symoffset: u32,
    chain: &'a [[u8; 4]],
}

/// By `st_info`: whether others see such a symbol, and may have another of its name in its place, and
/// its value is an address.
#[expect(clippy::indexing_slicing, reason = "the compiler works it out")]
const IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let kinds = [STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_COMMON];
    let mut at = 0;
    while at < kinds.len() {
        is_plain[(STB_GLOBAL << 4 | kinds[at]) as usize] = true;
        is_plain[(STB_WEAK << 4 | kinds[at]) as usize] = true;
        at += 1;
    }
    is_plain
};

impl PlainDefinitions<'_> {
    /// The address that the symbol of this index stands for, and its name's hash (as
    /// [`SymbolTable::gnu_hash_31`]). `None` also for one that takes a closer look.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<(Vaddr, u32)> {
        let symbol = Sym::of_entry(self.symtab.get(index as usize)?);
        let link = self.chain.get(index.checked_sub(self.symoffset)? as usize)?;
        let is_plain = IS_PLAIN.get(usize::from(symbol.st_info)).is_some_and(|is_plain| *is_plain)
            && symbol.visibility() == STV_DEFAULT
            && !symbol.is_undefined()
            && !symbol.is_absolute()
            && symbol.st_value != 0;
        is_plain.then_some((symbol.address(), u32::from_le_bytes(*link) >> 1))
    }
}

/// What a walk along one hash chain has seen so far.
#[derive(Default)]
struct Candidates {
    /// The first definition of a later version that is not hidden, and how many there are.
    versioned: Option<u32>,
    versioned_count: usize,
}

impl<'a> SymbolTable<'a> {
    /// The tables of `layout` as they stand in `memory`.
    pub(crate) fn over(
        layout: &'a SymbolLayout,
        memory: &'a impl ReadAt,
    ) -> Option<SymbolTable<'a>> {
        let hash = match &layout.hash {
            None => None,
            Some(Hash::Gnu(range)) => HashTable::gnu(memory.read(range.clone())?),
            Some(Hash::Sysv(range)) => HashTable::sysv(memory.read(range.clone())?),
        };
        let versym = match &layout.versym {
            Some(range) => Some(memory.read(range.clone())?),
            None => None,
        };
        Some(SymbolTable {
            layout,
            symtab: memory.read(layout.symtab.clone())?,
            strtab: memory.read(layout.strtab.clone())?,
            versym,
            hash,
            work: Cell::new(0),
        })
    }

    /// The same view, with a budget of its own.
    #[inline]
    pub(crate) fn anew(&self) -> SymbolTable<'a> {
        SymbolTable { work: Cell::new(0), ..*self }
    }

    /// Fails if more was compared and read through this view than any table that a linker made
    /// can need for each of its symbols once: the table was made to be slow.
    pub(crate) fn check_work(&self) -> Result<(), Error> {
        let tables = self.symtab.len().saturating_add(self.strtab.len()) as u64;
        let limit = tables.saturating_mul(16).saturating_add(1 << 24);
        limits::check("the work to look up its symbols", self.work.get(), limit)
    }

    #[inline]
    fn add_work(&self, amount: usize) {
        self.work.set(self.work.get().wrapping_add(amount as u64));
    }

    /// The symbol of this index.
    #[inline]
    pub(crate) fn symbol(&self, index: u32) -> Option<Sym> {
        self.symtab.as_chunks().0.get(index as usize).map(Sym::of_entry)
    }

    /// The bytes of the symbol of this index.
    #[inline]
    pub(crate) fn entry(&self, index: u32) -> Option<&'a [u8]> {
        let start = (index as usize).checked_mul(SYM_SIZE as usize)?;
        self.symtab.get(start..)?.get(..SYM_SIZE as usize)
    }

    /// How many symbols the table has room for; relocations may name any of them.
    pub(crate) fn capacity(&self) -> u32 {
        self.symtab.as_chunks::<{ SYM_SIZE as usize }>().0.len() as u32
    }

    /// How many symbols, from the first on, the hash table knows of.
    pub(crate) fn len(&self) -> u32 {
        self.layout.hashed.min(self.capacity())
    }

    /// The name of a symbol of this table.
    pub(crate) fn name(&self, symbol: &Sym) -> Option<SymbolName<'a>> {
        let name = SymbolName::terminated(self.strings_from(symbol.st_name));
        self.add_work(name.map_or(self.strtab.len(), |name| name.bytes.len()));
        name
    }

    /// The name of a symbol of this table, unhashed.
    pub(crate) fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let string = string_at(self.strtab, u64::from(offset));
        self.add_work(string.map_or(self.strtab.len(), <[u8]>::len));
        string
    }

    /// The string table from `offset` on.
    pub(crate) fn strings_from(&self, offset: u32) -> &'a [u8] {
        self.strtab.get(offset as usize..).unwrap_or_default()
    }

    fn versym(&self, index: u32) -> Option<u16> {
        self.versym?.as_chunks().0.get(index as usize).map(|versym| u16::from_le_bytes(*versym))
    }

    /// The version that the symbol of this index has: for a reference the one it asks for, for a
    /// definition its own. `None`: unversioned.
    pub(crate) fn version(&self, index: u32) -> Option<Version<'a>> {
        let entry = self.version_entry(self.versym(index)?)?;
        Some(Version { name: self.string(entry.name)?, hash: entry.hash, exact: entry.exact })
    }

    fn version_entry(&self, versym: u16) -> Option<&'a VersionEntry> {
        let entry = self.layout.versions.get(usize::from(versym & !VERSYM_HIDDEN))?.as_ref()?;
        (entry.hash != 0 && entry.origin != Origin::Base).then_some(entry)
    }

    /// Whether the symbol of this index is what a reference without a version gets.
    pub(crate) fn is_default_version(&self, index: u32) -> bool {
        self.versym(index).is_none_or(|versym| versym & VERSYM_HIDDEN == 0)
    }

    /// The versions that the library needs: library, version, and whether it may be missing.
    pub(crate) fn needed_versions(
        &self,
    ) -> impl Iterator<Item = (&'a [u8], Version<'a>, bool)> + '_ {
        self.layout.needed_versions.iter().filter_map(|needed| {
            let version =
                Version { name: self.string(needed.name)?, hash: needed.hash, exact: true };
            Some((self.string(needed.file)?, version, needed.weak))
        })
    }

    /// Whether the library defines this version; one that defines none passes for any.
    pub(crate) fn defines_version(&self, version: &Version<'_>) -> bool {
        let mut defined =
            self.layout.versions.iter().flatten().filter(|entry| entry.origin != Origin::Needed);
        match defined.next() {
            None => true,
            Some(first) => {
                self.is_version(first, version)
                    || defined.any(|entry| self.is_version(entry, version))
            }
        }
    }

    fn is_version(&self, entry: &VersionEntry, version: &Version<'_>) -> bool {
        self.add_work(version.name.len());
        entry.hash == version.hash && self.is_string(entry.name, version.name)
    }

    /// The definition that a reference to `name` binds to in this library.
    #[inline]
    pub(crate) fn lookup(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<(u32, Sym)> {
        let index = self.find(name, wanted, class)?;
        Some((index, self.symbol(index)?))
    }

    /// The index of [`SymbolTable::lookup`]. Alone, since to hand the symbol around takes longer than to
    /// read it again.
    fn find(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<u32> {
        let mut seen = Candidates::default();
        let found = match self.hash? {
            HashTable::Gnu { symoffset, bloom_shift, bloom, buckets, chain } => {
                let hash = name.gnu_hash;
                let index = (hash as usize / 64) & bloom.len().wrapping_sub(1);
                let word = u64::from_le_bytes(*bloom.get(index)?);
                let bits = 1u64 << (hash % 64) | 1u64 << (hash.wrapping_shr(bloom_shift) % 64);
                if word & bits != bits {
                    return None;
                }
                // Dividing takes a fraction of the time in 32 bits.
                let bucket = buckets.get(hash.checked_rem(buckets.len() as u32)? as usize)?;
                // Indices below `symoffset` (an empty bucket holds 0) are not in the table.
                let first = u32::from_le_bytes(*bucket);
                let links = chain.get(first.checked_sub(symoffset)? as usize..)?;
                let mut found = None;
                for (step, link) in links.iter().enumerate() {
                    let entry = u32::from_le_bytes(*link);
                    let index = first.wrapping_add(step as u32);
                    self.add_work(1);
                    if (entry ^ hash) >> 1 == 0
                        && self.check_match(index, name, wanted, class, &mut seen)
                    {
                        found = Some(index);
                        break;
                    }
                    if entry & 1 != 0 {
                        break;
                    }
                }
                found
            }
            HashTable::Sysv { buckets, chain } => {
                let hash = sysv_hash(name.bytes);
                let (buckets, chain) = (buckets.as_chunks::<4>().0, chain.as_chunks::<4>().0);
                let bucket = (hash as usize).checked_rem(buckets.len())?;
                let mut index = u32::from_le_bytes(*buckets.get(bucket)?);
                // A chain may be a circle: it can have no more links than there are entries.
                let mut found = None;
                for _ in chain {
                    if index == 0 {
                        break;
                    }
                    self.add_work(1);
                    if self.check_match(index, name, wanted, class, &mut seen) {
                        found = Some(index);
                        break;
                    }
                    index = u32::from_le_bytes(*chain.get(index as usize)?);
                }
                found
            }
        };
        // A reference without a version takes a later version only if there is no choice.
        let index = found.or(seen.versioned.filter(|_| seen.versioned_count == 1))?;
        self.symbol(index)?.is_export().then_some(index)
    }

    /// glibc's `check_match` (`elf/dl-lookup.c`).
    #[inline]
    fn check_match(
        &self,
        index: u32,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        seen: &mut Candidates,
    ) -> bool {
        let Some(symbol) = self.symbol(index) else { return false };
        if symbol.st_value == 0 && !symbol.is_absolute() && !symbol.is_thread_local() {
            return false;
        }
        if symbol.is_undefined() && class == TypeClass::Definition {
            return false;
        }
        if !matches!(
            symbol.kind(),
            STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC
        ) {
            return false;
        }
        self.add_work(name.bytes.len());
        if !self.is_string(symbol.st_name, name.bytes) {
            return false;
        }
        let Some(versym) = self.versym(index) else {
            return true;
        };
        let visible = versym & VERSYM_HIDDEN == 0;
        let oldest_unversioned = match wanted {
            VersionMatch::Version(version) => {
                let entry = self.version_entry(versym);
                return entry.is_some_and(|entry| self.is_version(entry, &version))
                    // The base definition stands in for any version, but not for an exact one.
                    || !version.exact && entry.is_none() && visible;
            }
            VersionMatch::Any => return true,
            VersionMatch::Default => 2,
            VersionMatch::Unversioned => 3,
        };
        if versym & !VERSYM_HIDDEN < oldest_unversioned {
            return true;
        }
        if visible {
            seen.versioned_count = seen.versioned_count.saturating_add(1);
            seen.versioned.get_or_insert(index);
        }
        false
    }

    /// All that other libraries can bind to, with index; in table order.
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

    /// The GNU hash of a symbol's name, without its lowest bit: as it stands in the hash table, if it
    /// does, so that the name need not be read.
    #[inline]
    pub(crate) fn gnu_hash_31(&self, index: u32) -> Option<u32> {
        let stored = match self.hash {
            Some(HashTable::Gnu { symoffset, chain, .. }) => index
                .checked_sub(symoffset)
                .and_then(|link| chain.get(link as usize))
                .map(|hash| u32::from_le_bytes(*hash)),
            _ => None,
        };
        let hash = stored.or_else(|| Some(self.name(&self.symbol(index)?)?.gnu_hash))?;
        Some(hash >> 1)
    }

    /// Those of its definitions that are plain; `None` if their names' hashes are not at hand.
    pub(crate) fn plain_definitions(&self) -> Option<PlainDefinitions<'a>> {
        match self.hash? {
            HashTable::Gnu { symoffset, chain, .. } => {
                Some(PlainDefinitions { symtab: self.symtab.as_chunks().0, symoffset, chain })
            }
            HashTable::Sysv { .. } => None,
        }
    }

    /// The hashes of all names that a lookup can find, as [`SymbolTable::gnu_hash_31`].
    pub(crate) fn half_hashes(&self) -> impl Iterator<Item = u32> + '_ {
        let first = match self.hash {
            Some(HashTable::Gnu { symoffset, .. }) => symoffset,
            _ => 1,
        };
        (first..self.len()).filter_map(|index| self.gnu_hash_31(index))
    }

    /// Whether the string at `offset` is this one.
    #[inline]
    fn is_string(&self, offset: u32, string: &[u8]) -> bool {
        let tail = self.strtab.get(offset as usize..).unwrap_or(&[]);
        tail.get(string.len()) == Some(&0) && tail.starts_with(string)
    }

    /// Whether the table has an undefined symbol of this name.
    pub(crate) fn refers_to(&self, name: &SymbolName<'_>) -> bool {
        (1..self.capacity())
            .filter_map(|index| self.symbol(index))
            .any(|symbol| symbol.is_undefined() && self.is_string(symbol.st_name, name.bytes))
    }

    /// All symbols that the table knows of, with index; in table order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Sym)> + '_ {
        (1..self.len()).filter_map(|index| Some((index, self.symbol(index)?)))
    }
}

impl<'a> HashTable<'a> {
    /// Header: `nbuckets, symoffset, bloom_size, bloom_shift`; then bloom words, buckets, chains.
    fn gnu(bytes: &'a [u8]) -> Option<HashTable<'a>> {
        let nbuckets = u32_at(bytes, 0)? as usize;
        let symoffset = u32_at(bytes, 4)?;
        let bloom_size = u32_at(bytes, 8)? as usize;
        let bloom_shift = u32_at(bytes, 12)?;
        if nbuckets == 0 || !bloom_size.is_power_of_two() {
            return None;
        }
        let (bloom, rest) = bytes.get(16..)?.split_at_checked(bloom_size.checked_mul(8)?)?;
        let (buckets, chain) = rest.split_at_checked(nbuckets.checked_mul(4)?)?;
        let (bloom, _) = bloom.as_chunks();
        let ((buckets, _), (chain, _)) = (buckets.as_chunks(), chain.as_chunks());
        Some(HashTable::Gnu { symoffset, bloom_shift, bloom, buckets, chain })
    }

    /// Header: `nbucket, nchain`; then buckets, then chains.
    fn sysv(bytes: &'a [u8]) -> Option<HashTable<'a>> {
        let nbucket = u32_at(bytes, 0)? as usize;
        let nchain = u32_at(bytes, 4)? as usize;
        if nbucket == 0 {
            return None;
        }
        let (buckets, rest) = bytes.get(8..)?.split_at_checked(nbucket.checked_mul(4)?)?;
        Some(HashTable::Sysv { buckets, chain: rest.get(..nchain.checked_mul(4)?)? })
    }

    /// How many symbols the table says that there are, 0 if it does not tell; `None` if it
    /// contradicts itself.
    fn checked_count(&self) -> Option<u32> {
        match *self {
            HashTable::Sysv { buckets, chain } => {
                let (buckets, links) = (buckets.as_chunks::<4>().0, chain.as_chunks::<4>().0);
                let count = u32::try_from(links.len()).ok().filter(|&count| count > 0)?;
                // Each symbol is in one chain: whoever makes more steps goes in a circle.
                let mut steps_left = count;
                for bucket in buckets {
                    let mut index = u32::from_le_bytes(*bucket);
                    while index != 0 {
                        steps_left = steps_left.checked_sub(1)?;
                        index = u32::from_le_bytes(*links.get(index as usize)?);
                    }
                }
                Some(count)
            }
            HashTable::Gnu { symoffset, buckets, chain, .. } => {
                let (mut before_first, mut last) = (u32::MAX, 0);
                for bucket in buckets {
                    let bucket = u32::from_le_bytes(*bucket);
                    // An empty one holds 0.
                    before_first = before_first.min(bucket.wrapping_sub(1));
                    last = last.max(bucket);
                }
                // GNU ld writes such a table for an image that exports nothing, whatever it imports.
                if last == 0 {
                    return Some(0);
                }
                if before_first.wrapping_add(1) < symoffset {
                    return None;
                }
                let links = chain.get(last.checked_sub(symoffset)? as usize..)?.iter();
                let is_end = |link: &[u8; 4]| u32::from_le_bytes(*link) & 1 != 0;
                let end =
                    links.enumerate().find(|(_, link)| is_end(link)).map(|(index, _)| index)?;
                last.checked_add(u32::try_from(end).ok()?)?.checked_add(1)
            }
        }
    }

    /// One more than the highest index that the table can lead to.
    fn symbol_count(&self) -> u32 {
        match *self {
            HashTable::Sysv { chain, .. } => (chain.len() / 4) as u32,
            HashTable::Gnu { symoffset, buckets, chain, .. } => {
                let last_bucket =
                    buckets.iter().map(|it| u32::from_le_bytes(*it)).max().unwrap_or(0);
                let Some(first) = last_bucket.checked_sub(symoffset) else {
                    return symoffset;
                };
                let links = chain.get(first as usize..).unwrap_or_default().iter();
                let links = links.take_while(|entry| u32::from_le_bytes(**entry) & 1 == 0).count();
                last_bucket.saturating_add(links as u32).saturating_add(1)
            }
        }
    }
}

/// The hash of `DT_GNU_HASH`: Bernstein's, times 33 from 5381. Four bytes at a time, since each step
/// has to wait for the one before.
fn gnu_hash(name: &[u8]) -> u32 {
    let (fours, rest) = name.as_chunks::<4>();
    let hash = fours.iter().fold(5381u32, |hash, four| {
        let [a, b, c, d] = four.map(u32::from);
        // Far from what 32 bits hold.
        let [a, b, c] = [(a, 33 * 33 * 33), (b, 33 * 33), (c, 33)].map(|(x, y)| x.wrapping_mul(y));
        let four = a.wrapping_add(b).wrapping_add(c).wrapping_add(d);
        hash.wrapping_mul(33 * 33 * 33 * 33).wrapping_add(four)
    });
    rest.iter().fold(hash, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

/// The gABI's hash, of `DT_HASH` and of version names.
fn sysv_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, &byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let top = hash & 0xf000_0000;
        (hash ^ top >> 24) & !top
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specifications() {
        // The values that binutils and glibc compute for these names.
        assert_eq!(gnu_hash(b""), 5381);
        assert_eq!(gnu_hash(b"printf"), 0x156b2bb8);
        let one_by_one = |name: &[u8]| {
            name.iter()
                .fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
        };
        for name in [&b"\xff"[..], b"abc", b"\xff\xff\xff\xff", b"abcdefghijk", &[0xfe; 99]] {
            assert_eq!(gnu_hash(name), one_by_one(name));
        }
        assert_eq!(sysv_hash(b"printf"), 0x077905a6);
        assert_eq!(sysv_hash(b"GLIBC_2.2.5"), 0x09691a75);
    }

    #[test]
    fn a_hash_table_larger_than_its_bytes_is_none() {
        let mut gnu = vec![0u8; 64];
        gnu[0] = 1;
        gnu[8] = 1;
        assert!(HashTable::gnu(&gnu).is_some());
        gnu[11] = 0x80;
        assert!(HashTable::gnu(&gnu).is_none());
        gnu[11] = 0;
        gnu[3] = 0xff;
        assert!(HashTable::gnu(&gnu).is_none());
        assert!(HashTable::sysv(&[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(HashTable::sysv(&[0; 12]).is_none());
    }
}
