//! An ELF file being written: header, section headers, contents, without gaps.
//!
//! It knows what every ELF file must have and nothing about symfiles. Nothing is padded: no
//! reader of a symfile maps it, and the alignment that a section states is that of its address.
//!
//! Source: gABI chapter 4, "ELF Header" and "Sections".

#![forbid(unsafe_code)]

use goblin::elf::section_header::{SHT_NOBITS, SHT_NULL};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;
use scroll::{LE, Pread, Pwrite};

use super::xz::StoredXz;

pub(super) const HEADER_SIZE: usize = goblin::elf64::header::SIZEOF_EHDR;
pub(super) const SECTION_SIZE: usize = goblin::elf64::section_header::SIZEOF_SHDR;
pub(super) const SYMBOL_SIZE: usize = goblin::elf64::sym::SIZEOF_SYM;

/// What a section has in the file.
pub(super) enum Contents<'a> {
    Bytes(&'a [u8]),
    Xz(StoredXz<'a>),
}

pub(super) const NOTHING: Contents<'static> = Contents::Bytes(&[]);

impl Contents<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Contents::Bytes(bytes) => bytes.len(),
            Contents::Xz(xz) => xz.len(),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Contents::Bytes(bytes) => out.extend_from_slice(bytes),
            Contents::Xz(xz) => xz.write(out),
        }
    }
}

/// An ELF file to be: its header, its section headers, then the contents in the order of these.
pub(super) struct Elf<'a> {
    pub(super) header: Header,
    pub(super) sections: Vec<(SectionHeader, Contents<'a>)>,
}

impl<'a> Elf<'a> {
    /// For the machine that the image is for. Without program headers, which would make a
    /// debugger compare the sections with them; without an entry point, by which gdb would guess
    /// how far the file has moved.
    pub(super) fn new(image: &Header, e_type: u16) -> Elf<'a> {
        let header = Header {
            e_ident: image.e_ident,
            e_type,
            e_machine: image.e_machine,
            e_version: image.e_version,
            e_shoff: HEADER_SIZE as u64,
            e_flags: image.e_flags,
            e_ehsize: HEADER_SIZE as u16,
            e_shentsize: SECTION_SIZE as u16,
            ..Header::default()
        };
        let sections = vec![];
        Elf { header, sections }
    }

    /// Adds a section and tells its index; the callers see to it that there are fewer than 2^16.
    pub(super) fn push(&mut self, header: SectionHeader, contents: Contents<'a>) -> u16 {
        let index = self.sections.len() as u16;
        self.sections.push((header, contents));
        index
    }

    /// Gives each section with contents its place, and tells the length of the file.
    pub(super) fn lay_out(&mut self) -> Option<usize> {
        self.header.e_shnum = u16::try_from(self.sections.len()).ok()?;
        let mut end = HEADER_SIZE + self.sections.len() * SECTION_SIZE;
        for (header, contents) in &mut self.sections {
            // No section without contents may have an offset: BFD warns if it is past the end.
            if header.sh_type != SHT_NULL && header.sh_type != SHT_NOBITS {
                header.sh_offset = end as u64;
                header.sh_size = contents.len() as u64;
                end = end.checked_add(contents.len())?;
            }
        }
        Some(end)
    }

    pub(super) fn write_headers(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_SIZE];
        put(&mut bytes, self.header);
        out.extend_from_slice(&bytes);
        for (section, _) in &self.sections {
            let mut bytes = [0; SECTION_SIZE];
            put(&mut bytes, *section);
            out.extend_from_slice(&bytes);
        }
    }
}

/// The structure that fills `place`.
pub(super) fn get<'a, T>(place: &'a [u8]) -> T
where
    T: scroll::ctx::TryFromCtx<'a, scroll::Endian>,
    T::Error: From<scroll::Error> + std::fmt::Debug,
{
    place.pread_with(0, LE).expect("the place is of the structure's size")
}

/// Fills `place` with the structure.
pub(super) fn put<T>(place: &mut [u8], structure: T)
where
    T: scroll::ctx::TryIntoCtx<scroll::Endian>,
    T::Error: From<scroll::Error> + std::fmt::Debug,
{
    place.pwrite_with(structure, 0, LE).expect("the place is of the structure's size");
}
