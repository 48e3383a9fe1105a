//! The outer file of a symfile: the image's sections at their addresses, its symbols, and the inner file.
//!
//! It has no segments: gdb would only compare the sections with them. It is built at the addresses that the
//! image states; [`super::layout`] says what moves for an instance.
//!
//! Source: gABI chapter 4, "Sections".

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf::header::ET_DYN;
use goblin::elf::section_header::{SHT_PROGBITS, SHT_STRTAB, SHT_SYMTAB};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;

use super::elf_writer::{Contents, Elf, NOTHING};
use super::headers::{Names, SYMBOL_SIZE};
use super::sections::{Role, Sections};
use super::symbols::Symbols;
use crate::base::fallible::OutOfMemory;

/// The names of the sections that the outer file has and the image may not have.
pub(super) struct AddedNames {
    symtab: u32,
    strtab: u32,
    debugdata: u32,
    shstrtab: u32,
}

impl AddedNames {
    /// Adds them to the image's; `.shstrtab` last.
    pub(super) fn add_to(names: &mut Names) -> Result<AddedNames, OutOfMemory> {
        Ok(AddedNames {
            symtab: names.add(".symtab")?,
            strtab: names.add(".strtab")?,
            debugdata: names.add(".gnu_debugdata")?,
            shstrtab: names.add(".shstrtab")?,
        })
    }
}

/// The outer file to be.
pub(super) struct Outer<'s> {
    pub(super) elf: Elf<'s>,
    /// The index of `.symtab`.
    pub(super) symtab: u16,
    /// The index of `.shstrtab`.
    pub(super) shstrtab: u16,
}

impl<'s> Outer<'s> {
    /// Of an image with this header, these sections and symbols; `debugdata` becomes `.gnu_debugdata`, unless
    /// it is empty.
    pub(super) fn new(
        header: &Header,
        sections: &'s Sections<'_>,
        symbols: &'s Symbols<'_>,
        added: &AddedNames,
        debugdata: Contents<'s>,
    ) -> Result<Outer<'s>, OutOfMemory> {
        let mut elf = Elf::new(header, ET_DYN);
        for section in &sections.list {
            match section.role {
                Role::Loaded => elf.push(section.header, Contents::Bytes(&section.contents))?,
                // The index stays taken, for the sake of the symbols' `st_shndx`.
                Role::LeftOut | Role::Debug => elf.push(SectionHeader::default(), NOTHING)?,
            };
        }
        let section = |name, sh_type| SectionHeader {
            sh_name: name,
            sh_type,
            sh_addralign: 1,
            ..SectionHeader::default()
        };
        let strings = Contents::Bytes(&symbols.strings);
        let strtab = elf.push(section(added.strtab, SHT_STRTAB), strings)?;
        let symtab = elf.push(
            SectionHeader {
                sh_link: u32::from(strtab),
                sh_info: symbols.locals,
                sh_entsize: SYMBOL_SIZE as u64,
                sh_addralign: 8,
                ..section(added.symtab, SHT_SYMTAB)
            },
            Contents::Bytes(&symbols.entries),
        )?;
        let names = Contents::Bytes(&sections.names.0);
        let shstrtab = elf.push(section(added.shstrtab, SHT_STRTAB), names)?;
        elf.header.e_shstrndx = shstrtab;
        if debugdata.len() != 0 {
            elf.push(section(added.debugdata, SHT_PROGBITS), debugdata)?;
        }
        Ok(Outer { elf, symtab, shstrtab })
    }

    /// Where the contents of a section are, once the file is laid out.
    pub(super) fn place(&self, index: u16) -> Range<usize> {
        let header = self.elf.sections.get(usize::from(index)).map(|(header, _)| *header);
        let SectionHeader { sh_offset, sh_size, .. } = header.unwrap_or_default();
        sh_offset as usize..sh_offset.saturating_add(sh_size) as usize
    }
}
