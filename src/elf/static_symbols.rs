//! The symbols that a file names for debuggers only: `.symtab`, which is no part of what is loaded, found by the
//! section headers.
//!
//! Source: gABI "Section Header", "Symbol Table".

#![forbid(unsafe_code)]

use goblin::elf::section_header::SHT_SYMTAB;

use crate::base::addr::Vaddr;
use crate::elf::constants::PT_NOTE;
use crate::elf::read::{string_at, u16_at, u32_at, u64_at};
use crate::elf::symbol::{SYM_SIZE, Sym};

/// Sizes of an `Elf64_Shdr` and of an `Elf64_Phdr`.
const SHDR: usize = 64;
const PHDR: usize = 56;

/// The `.symtab` of a file, with its strings.
pub(crate) struct StaticSymbols<'a> {
    entries: &'a [u8],
    strings: &'a [u8],
}

impl<'a> StaticSymbols<'a> {
    /// That of the bytes of an ELF file of 64 bits; `None` if it has none.
    pub(crate) fn of_file(file: &'a [u8]) -> Option<StaticSymbols<'a>> {
        let headers = file.get(usize::try_from(u64_at(file, 40)?).ok()?..)?;
        let count = usize::from(u16_at(file, 60)?);
        let header = |index: usize| headers.chunks_exact(SHDR).take(count).nth(index);
        let section = |header: &[u8]| part(file, u64_at(header, 24)?, u64_at(header, 32)?);
        let is_symtab = |it: &&[u8]| u32_at(it, 4) == Some(SHT_SYMTAB);
        let symtab = headers.chunks_exact(SHDR).take(count).find(is_symtab)?;
        let strings = section(header(u32_at(symtab, 40)? as usize)?)?;
        Some(StaticSymbols { entries: section(symtab)?, strings })
    }

    /// The stated address of the symbol of this name.
    pub(crate) fn address(&self, name: &[u8]) -> Option<Vaddr> {
        let mut symbols = self.entries.chunks_exact(SYM_SIZE as usize).filter_map(Sym::parse);
        let is_it = |it: &Sym| {
            !it.is_undefined() && string_at(self.strings, it.st_name.into()) == Some(name)
        };
        symbols.find(is_it).map(|it| it.address())
    }
}

/// The notes of a file (`PT_NOTE`): the stated address of each segment of them, and its bytes.
pub(crate) fn notes(file: &[u8]) -> impl Iterator<Item = (Vaddr, &[u8])> {
    let start = u64_at(file, 32).and_then(|at| usize::try_from(at).ok());
    let headers = start.and_then(|start| file.get(start..)).unwrap_or_default();
    let count = u16_at(file, 56).unwrap_or_default().into();
    headers.chunks_exact(PHDR).take(count).filter_map(move |header| {
        let is_note = u32_at(header, 0)? == PT_NOTE;
        let bytes = part(file, u64_at(header, 8)?, u64_at(header, 32)?)?;
        is_note.then_some((Vaddr(u64_at(header, 16)?), bytes))
    })
}

/// So many bytes of a file from an offset on.
fn part(file: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a symbol `here` at 0x1234, and an undefined one `there`.
    fn file() -> Vec<u8> {
        let mut file = vec![0; 64];
        let strings = b"\0here\0there\0";
        let symbol = |name: u32, section: u16, value: u64| {
            let head = [&name.to_le_bytes()[..], &[0x11, 0], &section.to_le_bytes()].concat();
            [&head[..], &value.to_le_bytes(), &[0; 8]].concat()
        };
        let symbols = [symbol(6, 0, 7), symbol(1, 3, 0x1234)].concat();
        let section = |kind: u32, at: usize, len: usize, link: u32| {
            let mut header = vec![0; SHDR];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
            header[40..44].copy_from_slice(&link.to_le_bytes());
            header
        };
        let at = file.len();
        file.extend([&symbols[..], strings].concat());
        let headers = file.len() as u64;
        file.extend(section(3, at + symbols.len(), strings.len(), 0));
        file.extend(section(SHT_SYMTAB, at, symbols.len(), 0));
        file[40..48].copy_from_slice(&headers.to_le_bytes());
        file[60..62].copy_from_slice(&2_u16.to_le_bytes());
        file
    }

    #[test]
    fn a_symbol_is_found_by_its_name() {
        let file = file();
        let symbols = StaticSymbols::of_file(&file).unwrap();
        assert_eq!(symbols.address(b"here"), Some(Vaddr(0x1234)));
        assert_eq!((symbols.address(b"there"), symbols.address(b"her")), (None, None));
    }

    #[test]
    fn a_file_that_is_cut_off_has_no_symbols() {
        let file = file();
        for len in 0..file.len() {
            let _ = notes(&file[..len]).count();
            assert!(StaticSymbols::of_file(&file[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn notes_are_those_that_this_program_has_mapped() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(notes(&own).any(|(_, note)| note.windows(4).any(|it| it == b"GNU\0")));
    }
}
