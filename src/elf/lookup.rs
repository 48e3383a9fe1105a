//! From a name and a version to a definition in one library.
//!
//! A hash table gives the candidates; which of them matches is `ld.so`'s decision of many years, not
//! the specification's. [`SymbolTable::lookup`] follows glibc's `check_match` rule by rule, because
//! users rely on "the same symbol as `dlopen` would have bound". In which libraries to look, and in
//! which order, is decided in `link/scope.rs`.
//!
//! Sources: glibc `elf/dl-lookup.c` (`check_match`, `do_lookup_x`); gABI "Hash Table"; LSB Core "Symbol
//! Versioning".

#![forbid(unsafe_code)]

use goblin::elf::sym::{
    STT_COMMON, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, STT_TLS, STV_DEFAULT,
};

use crate::base::addr::Vaddr;
use crate::elf::gnu_hash::GnuHashTable;
use crate::elf::symbol::{SYM_SIZE, Sym, SymbolName};
use crate::elf::symbol_table::{HashTable, SymbolTable, Tables, Work};
use crate::elf::sysv_hash::{SysvHashTable, sysv_hash};
use crate::elf::versions::{VERSYM_HIDDEN, Version};

/// The version that a lookup asks for.
#[derive(Clone, Copy)]
pub(crate) enum VersionMatch<'a> {
    /// As an unversioned reference of an image: the oldest definition.
    Unversioned,
    /// As `dlsym`: the default definition.
    Default,
    /// This version.
    Version(Version<'a>),
    /// Any definition, whatever its version.
    Any,
}

/// What the result of a lookup is for (glibc's `type_class`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeClass {
    /// An address that may be compared. A PLT entry of a non-PIC executable (an undefined symbol with a
    /// value) matches: it is the function's address for the whole process.
    Address,
    /// A call (`R_*_JUMP_SLOT`) or a thread-local: only a definition matches.
    Definition,
}

/// A walk along one hash chain: what it looks for, and the candidates that it has passed.
struct Walk<'a> {
    name: &'a SymbolName<'a>,
    wanted: &'a VersionMatch<'a>,
    class: TypeClass,
    work: &'a Work,
    /// The first definition of a later version that is not hidden, and the number of these.
    versioned: Option<u32>,
    versioned_count: usize,
}

impl Walk<'_> {
    /// The candidate that an unversioned reference binds to: a later version only if there is a single one.
    fn only(&self) -> Option<u32> {
        self.versioned.filter(|_| self.versioned_count == 1)
    }
}

impl<'a> SymbolTable<'a> {
    /// The definition that a reference to `name` binds to in this library.
    #[inline(always)]
    pub(crate) fn lookup(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<(u32, Sym)> {
        self.find(name, &wanted, class, &self.work)
    }

    /// The plain definitions; `None` where the table stores no hashes.
    pub(crate) fn plain_definitions(&self) -> Option<PlainDefinitions<'a>> {
        match self.hash? {
            HashTable::Gnu(hash) => {
                Some(PlainDefinitions { symtab: self.symtab.as_chunks().0, hash })
            }
            HashTable::Sysv(_) => None,
        }
    }
}

impl Tables<'_> {
    /// As [`SymbolTable::lookup`], without a budget.
    #[inline]
    pub(crate) fn lookup_uncounted(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<(u32, Sym)> {
        self.find(name, &wanted, class, &Work::default())
    }

    #[inline(always)]
    fn find(
        &self,
        name: &SymbolName<'_>,
        wanted: &VersionMatch<'_>,
        class: TypeClass,
        work: &Work,
    ) -> Option<(u32, Sym)> {
        let walk = || Walk { name, wanted, class, work, versioned: None, versioned_count: 0 };
        let index = match &self.hash {
            Some(HashTable::Gnu(table)) => {
                // Most libraries do not have most names.
                let (first, links) = table.chain_of(name.gnu_hash)?;
                self.find_in_chain(first, links, &mut walk())
            }
            Some(HashTable::Sysv(table)) => self.find_by_sysv_hash(table, &mut walk()),
            None => None,
        }?;
        let symbol = self.symbol(index)?;
        symbol.is_export().then_some((index, symbol))
    }

    /// The index of [`Tables::find`], in this chain of the GNU hash table. A function of its own: to pass the symbol on
    /// takes longer than to read it again.
    #[inline(never)]
    fn find_in_chain(&self, first: u32, links: &[[u8; 4]], walk: &mut Walk<'_>) -> Option<u32> {
        let hash = walk.name.gnu_hash;
        let mut index = first;
        for link in links {
            let entry = u32::from_le_bytes(*link);
            walk.work.add(1);
            if (entry ^ hash) >> 1 == 0 && self.check_match(index, walk) {
                return Some(index);
            }
            if entry & 1 != 0 {
                break;
            }
            index = index.wrapping_add(1);
        }
        walk.only()
    }

    fn find_by_sysv_hash(&self, table: &SysvHashTable<'_>, walk: &mut Walk<'_>) -> Option<u32> {
        let mut index = table.first(sysv_hash(walk.name.bytes()))?;
        // A chain may be a circle: it can have no more links than the table has entries.
        for _ in 0..table.len() {
            if index == 0 {
                break;
            }
            walk.work.add(1);
            if self.check_match(index, walk) {
                return Some(index);
            }
            index = table.next(index)?;
        }
        walk.only()
    }

    /// glibc's `check_match` (`elf/dl-lookup.c`).
    #[inline(never)]
    fn check_match(&self, index: u32, walk: &mut Walk<'_>) -> bool {
        let Some(symbol) = self.symbol(index) else { return false };
        if symbol.st_value == 0 && !symbol.is_absolute() && !symbol.is_thread_local() {
            return false;
        }
        if symbol.is_undefined() && walk.class == TypeClass::Definition {
            return false;
        }
        if !matches!(
            symbol.kind(),
            STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC
        ) {
            return false;
        }
        let name = walk.name.bytes();
        walk.work.add(name.len());
        if !self.is_string(symbol.st_name, name) {
            return false;
        }
        let Some(versym) = self.versym(index) else {
            return true;
        };
        let visible = versym & VERSYM_HIDDEN == 0;
        let first_later_version = match walk.wanted {
            VersionMatch::Version(version) => {
                let entry = self.version_entry(versym);
                walk.work.add(version.name.len());
                return entry.is_some_and(|entry| self.is_version(&entry, version))
                    // An unversioned definition matches any version, but not an exact one.
                    || !version.exact && entry.is_none() && visible;
            }
            VersionMatch::Any => return true,
            VersionMatch::Default => 2,
            VersionMatch::Unversioned => 3,
        };
        if versym & !VERSYM_HIDDEN < first_later_version {
            return true;
        }
        if visible {
            walk.versioned_count = walk.versioned_count.saturating_add(1);
            walk.versioned.get_or_insert(index);
        }
        false
    }
}

/// The definitions that most relocations name, for a fast path.
#[derive(Clone, Copy)]
pub(crate) struct PlainDefinitions<'a> {
    symtab: &'a [[u8; SYM_SIZE as usize]],
    hash: GnuHashTable<'a>,
}

impl PlainDefinitions<'_> {
    /// The address of the symbol of this index, and its name's hash (as
    /// [`SymbolTable::gnu_hash_31`]). `None` for a symbol that is not plain.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<(Vaddr, u32)> {
        let symbol = Sym::of_entry(self.symtab.get(index as usize)?);
        let hash = self.hash.stored_hash(index)?;
        let is_plain = symbol.is_plain_definition()
            && symbol.visibility() == STV_DEFAULT
            && symbol.st_value != 0;
        is_plain.then_some((symbol.address(), hash >> 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::symbol_table::SymbolLayout;
    use crate::elf::test_image::{HashKind, TestSymbol, dynamic, symbol_tables};

    const HIDDEN: u16 = VERSYM_HIDDEN;

    /// The value of the definition that a lookup of `name` gives, through either hash table.
    fn find(
        symbols: &[TestSymbol],
        name: &str,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<u64> {
        let [gnu, sysv] = [HashKind::Gnu, HashKind::Sysv].map(|kind| {
            let (memory, tags) = symbol_tables(symbols, kind);
            let layout = SymbolLayout::new(&dynamic(&tags), &memory).unwrap();
            let table = SymbolTable::over(&layout, &memory).unwrap();
            let found = table.lookup(&SymbolName::new(name.as_bytes()), wanted, class);
            found.map(|(_, symbol)| symbol.st_value)
        });
        assert_eq!(gnu, sysv, "{name}");
        gnu
    }

    fn version(name: &str) -> VersionMatch<'_> {
        VersionMatch::Version(Version { exact: false, ..Version::exact(name.as_bytes()) })
    }

    #[test]
    fn a_version_selects_its_definition() {
        let symbols = [("f", 1, 0x10, 2 | HIDDEN), ("f", 1, 0x20, 3), ("g", 1, 0x30, 1)];
        let of = |name, wanted| find(&symbols, name, wanted, TypeClass::Definition);
        assert_eq!(of("f", version("V1")), Some(0x10));
        assert_eq!(of("f", version("V2")), Some(0x20));
        assert_eq!(of("f", version("V3")), None);
        assert_eq!(of("f", VersionMatch::Default), Some(0x20), "as dlsym");
        assert_eq!(of("f", VersionMatch::Unversioned), Some(0x10), "the oldest");
        assert_eq!(of("f", VersionMatch::Any), Some(0x10), "the first");
        assert_eq!(of("h", VersionMatch::Any), None);
        // An unversioned definition matches a version, unless that must be exact.
        assert_eq!(of("g", version("V1")), Some(0x30));
        let exact = Version::exact(b"V1");
        assert_eq!(of("g", VersionMatch::Version(exact)), None);
    }

    #[test]
    fn a_later_version_is_taken_only_where_it_is_the_only_one() {
        let one = [("f", 1, 0x10, 4)];
        let two = [("f", 1, 0x10, 3), ("f", 1, 0x20, 4)];
        let hidden = [("f", 1, 0x10, 4 | HIDDEN)];
        let unversioned = |symbols: &[TestSymbol]| {
            find(symbols, "f", VersionMatch::Unversioned, TypeClass::Address)
        };
        assert_eq!(unversioned(&one), Some(0x10));
        assert_eq!(unversioned(&two), None);
        assert_eq!(unversioned(&hidden), None);
    }

    #[test]
    fn an_undefined_symbol_with_a_value_is_an_address_and_no_definition() {
        // In the hash table, as the linker of a non-PIC executable has it.
        let symbols = [("d", 1, 0x10, 1), ("f", 0, 0x20, 1)];
        let of = |class| find(&symbols, "f", VersionMatch::Any, class);
        assert_eq!(of(TypeClass::Address), Some(0x20));
        assert_eq!(of(TypeClass::Definition), None);
    }

    #[test]
    fn plain_definitions_are_given_with_their_hashes() {
        let symbols = [("u", 0, 0, 1), ("f", 1, 0x10, 1), ("abs", 0xfff1, 0x20, 1), ("z", 1, 0, 1)];
        let (memory, tags) = symbol_tables(&symbols, HashKind::Gnu);
        let layout = SymbolLayout::new(&dynamic(&tags), &memory).unwrap();
        let plain = SymbolTable::over(&layout, &memory).unwrap().plain_definitions().unwrap();
        let hash = SymbolName::new(b"f").gnu_hash_31();
        assert_eq!(plain.get(2), Some((Vaddr(0x10), hash)));
        assert_eq!([1, 3, 4, 5].map(|index| plain.get(index)), [None; 4]);
        let (memory, tags) = symbol_tables(&symbols, HashKind::Sysv);
        let layout = SymbolLayout::new(&dynamic(&tags), &memory).unwrap();
        assert!(SymbolTable::over(&layout, &memory).unwrap().plain_definitions().is_none());
    }
}
