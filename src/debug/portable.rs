//! The form of a symfile that every debugger reads: DWARF with run-time addresses.
//!
//! One ELF file, all sections at their run-time addresses, and the debug sections beside them,
//! with the load bias added wherever DWARF states an address ([`super::dwarf`]). It is made from
//! the other form ([`super::symfile`]), which has all that it takes: the sections, moved already,
//! and the DWARF, as it came. Compressed sections are inflated first.
//!
//! If any part of the DWARF cannot be moved with certainty there is no such file: half-moved DWARF
//! shows wrong things.

#![forbid(unsafe_code)]

use goblin::elf::header::ET_DYN;
use goblin::elf::section_header::{SHT_NOBITS, SHT_NULL, SHT_PROGBITS, SHT_SYMTAB};
use goblin::elf64::section_header::SectionHeader;

use super::dwarf::{Addresses, DwarfSection, NotRelocated, is_index};
use super::elf::{Contents, Elf, NOTHING};
use super::jit::StableBytes;
use super::sections::Names;
use super::symfile::{DebugSection, Symfile, SymfileError};
use crate::addr::LoadBias;

/// The file.
pub(super) struct PortableSymfile(Vec<u8>);

impl StableBytes for PortableSymfile {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPortable {
    #[error(transparent)]
    NotRelocated(#[from] NotRelocated),
    #[error(transparent)]
    Unread(#[from] SymfileError),
    #[error("the symfile is not what it was")]
    Unreadable,
}

impl Symfile {
    /// The same in the other form.
    pub(super) fn portable(&self, load_bias: LoadBias) -> Result<PortableSymfile, NotPortable> {
        let mut debug_sections = self.debug_sections()?;
        debug_sections.retain(|section| !is_index(&section.name));
        let read: Vec<DwarfSection<'_>> = debug_sections
            .iter()
            .map(|section| DwarfSection { name: &section.name, contents: &section.contents })
            .collect();
        let addresses = Addresses::find(&read)?;
        for (index, section) in debug_sections.iter_mut().enumerate() {
            addresses.relocate(index, &mut section.contents, load_bias);
        }
        self.with_sections(&debug_sections).ok_or(NotPortable::Unreadable).map(PortableSymfile)
    }

    /// This symfile with these debug sections in the place of its inner file.
    fn with_sections(&self, debug_sections: &[DebugSection]) -> Option<Vec<u8>> {
        let (header, sections) = self.outer_sections()?;
        let mut names = Names(self.names()?.to_vec());
        let debug_sections: Vec<(SectionHeader, &[u8])> = debug_sections
            .iter()
            .map(|section| {
                let header = SectionHeader {
                    sh_name: names.add(&section.name),
                    sh_type: SHT_PROGBITS,
                    sh_flags: section.sh_flags,
                    sh_addralign: 1,
                    sh_entsize: section.sh_entsize,
                    ..SectionHeader::default()
                };
                (header, &section.contents[..])
            })
            .collect();

        let mut file = Elf::new(&header, ET_DYN);
        let mut symtab = 0;
        for (index, (section, contents)) in (0..).zip(&sections) {
            let contents = match section.sh_type {
                SHT_NULL | SHT_NOBITS => NOTHING,
                _ if index == header.e_shstrndx => Contents::Bytes(&names.0),
                _ => Contents::Bytes(contents),
            };
            if section.sh_type == SHT_SYMTAB {
                symtab = index;
            }
            file.push(*section, contents);
        }
        file.header.e_shstrndx = header.e_shstrndx;
        for (section, contents) in debug_sections {
            file.push(section, Contents::Bytes(contents));
        }
        let mut bytes = vec![0; file.lay_out(symtab, 1)?];
        file.write(symtab, 1, &mut bytes);
        Some(bytes)
    }
}
