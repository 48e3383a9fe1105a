//! Symbols: an entry of the dynamic symbol table, and a name with its hash.
//!
//! This file knows no table. Tables are in `elf/symbol_table.rs`, lookups in `elf/lookup.rs`.
//!
//! Source: gABI "Symbol Table".

#![forbid(unsafe_code)]

use goblin::elf::sym::{
    STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STT_COMMON, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
    STT_OBJECT, STT_SECTION, STT_TLS, STV_DEFAULT, STV_HIDDEN, STV_INTERNAL, STV_PROTECTED,
};
use goblin::elf64::section_header::{SHN_ABS, SHN_UNDEF};

use crate::base::addr::Vaddr;
use crate::elf::gnu_hash::{gnu_hash, gnu_hash_of_terminated};

/// Size of one `Elf64_Sym`.
pub(crate) const SYM_SIZE: u64 = 24;

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
    pub(super) fn of_entry(entry: &[u8; SYM_SIZE as usize]) -> Sym {
        let &[a, b, c, d, st_info, st_other, e, f, ref values @ ..] = entry;
        // `values` is two words.
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

    /// Its value is no address in the image: the load bias does not apply.
    pub(crate) fn is_absolute(&self) -> bool {
        u32::from(self.st_shndx) == SHN_ABS
    }

    /// Its binding and type are those of most symbols: other libraries may see it and define it before, and its value is
    /// an address.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        IS_PLAIN.get(usize::from(self.st_info)).is_some_and(|is_plain| *is_plain)
    }

    /// It is a plain reference to another library.
    #[inline]
    pub(crate) fn is_plain_reference(&self) -> bool {
        self.is_undefined() && self.is_plain() && self.visibility() == STV_DEFAULT
    }

    /// It is a plain definition: neither unique nor chosen by a resolver. Its value is an address in the image.
    #[inline]
    pub(crate) fn is_plain_definition(&self) -> bool {
        self.is_plain() && !self.is_undefined() && !self.is_absolute()
    }

    /// There must be one definition in the process.
    pub(crate) fn is_unique(&self) -> bool {
        self.binding() == STB_GNU_UNIQUE
    }

    pub(crate) fn is_weak(&self) -> bool {
        self.binding() == STB_WEAK
    }

    pub(crate) fn is_function(&self) -> bool {
        matches!(self.kind(), STT_FUNC | STT_GNU_IFUNC)
    }

    /// It has a type: it is a function or a variable.
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

    /// A reference to it binds to the definition in the same image.
    pub(crate) fn is_local(&self) -> bool {
        !(self.binding() == STB_GLOBAL
            || self.binding() == STB_WEAK
            || self.binding() == STB_GNU_UNIQUE)
            || matches!(self.visibility(), STV_HIDDEN | STV_INTERNAL)
    }

    /// Other libraries can bind to it.
    #[inline]
    pub(super) fn is_export(&self) -> bool {
        let has_kind = || {
            matches!(
                self.kind(),
                STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC
            )
        };
        matches!(self.visibility(), STV_DEFAULT | STV_PROTECTED)
            && (self.is_plain() || !self.is_local() && has_kind())
    }
}

/// By `st_info`: [`Sym::is_plain`].
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
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

/// A symbol's name, with its GNU hash.
#[derive(Clone, Copy)]
pub(crate) struct SymbolName<'a> {
    bytes: &'a [u8],
    pub(super) gnu_hash: u32,
}

impl<'a> SymbolName<'a> {
    /// The upper 31 bits of the hash: a hash table stores no more of it.
    pub(crate) fn gnu_hash_31(&self) -> u32 {
        self.gnu_hash >> 1
    }

    pub(crate) fn new(bytes: &'a [u8]) -> SymbolName<'a> {
        SymbolName { bytes, gnu_hash: gnu_hash(bytes) }
    }

    /// The name at the start of `bytes`, up to its NUL.
    #[inline]
    pub(super) fn terminated(bytes: &'a [u8]) -> Option<SymbolName<'a>> {
        let (len, gnu_hash) = gnu_hash_of_terminated(bytes)?;
        Some(SymbolName { bytes: bytes.get(..len)?, gnu_hash })
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(st_info: u8, st_other: u8, st_shndx: u16) -> Sym {
        Sym { st_name: 0, st_info, st_other, st_shndx, st_value: 0, st_size: 0 }
    }

    #[test]
    fn an_entry_is_read_field_by_field() {
        let mut bytes: Vec<u8> = (1..=SYM_SIZE as u8).collect();
        let expected = Sym {
            st_name: 0x0403_0201,
            st_info: 5,
            st_other: 6,
            st_shndx: 0x0807,
            st_value: 0x100f_0e0d_0c0b_0a09,
            st_size: 0x1817_1615_1413_1211,
        };
        assert_eq!(Sym::parse(&bytes), Some(expected));
        bytes.pop();
        assert_eq!(Sym::parse(&bytes), None);
    }

    #[test]
    fn only_visible_symbols_of_a_known_type_are_exports() {
        let global = |kind| STB_GLOBAL << 4 | kind;
        assert!(symbol(global(STT_FUNC), STV_DEFAULT, 1).is_export());
        assert!(symbol(STB_GNU_UNIQUE << 4 | STT_OBJECT, STV_PROTECTED, 1).is_export());
        assert!(!symbol(global(STT_SECTION), STV_DEFAULT, 1).is_export());
        assert!(!symbol(global(STT_FUNC), STV_HIDDEN, 1).is_export());
        assert!(!symbol(STT_FUNC, STV_DEFAULT, 1).is_export(), "STB_LOCAL");
        assert!(symbol(0, 0, 0).is_undefined() && !symbol(0, 0, 0xfff1).is_undefined());
        assert!(symbol(0, 0, 0xfff1).is_absolute());
    }

    #[test]
    fn a_name_ends_with_its_nul() {
        let name = SymbolName::terminated(b"ab\0c").unwrap();
        assert_eq!((name.bytes(), name.gnu_hash), (&b"ab"[..], gnu_hash(b"ab")));
        assert!(SymbolName::terminated(b"ab").is_none());
    }
}
