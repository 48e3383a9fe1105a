//! Writing an ELF file: header, program and section headers, contents.
//!
//! It knows what every ELF file must have and nothing about symfiles. It never pads for a reader: none maps a
//! symfile, and the alignment that a section states is that of its address.
//!
//! Source: gABI chapter 4, "ELF Header" and "Sections".

#![forbid(unsafe_code)]

use goblin::elf::section_header::{SHT_NOBITS, SHT_NULL};
use goblin::elf64::header::Header;
use goblin::elf64::program_header::ProgramHeader;
use goblin::elf64::section_header::SectionHeader;

use super::headers::{HEADER_SIZE, SECTION_SIZE, SEGMENT_SIZE, put};
use super::xz::StoredXz;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::TryGrow;
use crate::base::filler::Filler;

/// The contents of a section.
pub enum Contents<'a> {
    Bytes(&'a [u8]),
    Xz(StoredXz<'a>),
}

pub const NOTHING: Contents<'static> = Contents::Bytes(&[]);

impl Contents<'_> {
    pub fn len(&self) -> usize {
        match self {
            Contents::Bytes(bytes) => bytes.len(),
            Contents::Xz(xz) => xz.len(),
        }
    }

    fn write(&self, out: &mut Filler<'_>) {
        match self {
            Contents::Bytes(bytes) => out.put(bytes),
            Contents::Xz(xz) => xz.write(out),
        }
    }
}

/// An ELF file to be written: its header, program headers, section headers, then the contents in the order
/// of these, but for one section whose contents come first.
pub struct Elf<'a> {
    pub header: Header,
    pub segments: Vec<ProgramHeader>,
    pub sections: Vec<(SectionHeader, Contents<'a>)>,
}

impl<'a> Elf<'a> {
    /// For the machine that the image is for. Without an entry point, by which gdb would guess how
    /// far the file has moved.
    pub fn new(image: &Header, e_type: u16) -> Elf<'a> {
        let header = Header {
            e_ident: image.e_ident,
            e_type,
            e_machine: image.e_machine,
            e_version: image.e_version,
            e_flags: image.e_flags,
            e_ehsize: HEADER_SIZE as u16,
            e_shentsize: SECTION_SIZE as u16,
            ..Header::default()
        };
        // An image with all kinds of debug sections has fewer.
        Elf { header, segments: vec![], sections: Vec::with_capacity(64) }
    }

    /// Adds a section and returns its index. The callers add fewer than 2^16.
    pub fn push(
        &mut self,
        header: SectionHeader,
        contents: Contents<'a>,
    ) -> Result<u16, OutOfMemory> {
        let index = self.sections.len() as u16;
        self.sections.try_push((header, contents))?;
        Ok(index)
    }

    /// Gives each section with contents its place, and returns the length of the file. `first` is the index of
    /// the section whose contents come first; the place of the second is a multiple of `align`.
    pub fn lay_out(&mut self, first: u16, align: usize) -> Option<usize> {
        self.header.e_shnum = u16::try_from(self.sections.len()).ok()?;
        let segments_len = self.segments.len().checked_mul(SEGMENT_SIZE)?;
        self.header.e_shoff = HEADER_SIZE.checked_add(segments_len)? as u64;
        if !self.segments.is_empty() {
            self.header.e_phnum = u16::try_from(self.segments.len()).ok()?;
            self.header.e_phoff = HEADER_SIZE as u64;
            self.header.e_phentsize = SEGMENT_SIZE as u16;
        }
        let mut end = self.headers_len();
        for index in in_order(first, self.sections.len()) {
            let (header, contents) = self.sections.get_mut(index)?;
            // No section without contents may have an offset: BFD warns if it is past the end.
            if header.sh_type != SHT_NULL && header.sh_type != SHT_NOBITS {
                header.sh_offset = end as u64;
                header.sh_size = contents.len() as u64;
                end = end.checked_add(contents.len())?;
            }
            if index == usize::from(first) {
                end = end.checked_next_multiple_of(align)?;
            }
        }
        Some(end)
    }

    /// The length of the headers, which come before all contents.
    pub fn headers_len(&self) -> usize {
        HEADER_SIZE
            .saturating_add(self.segments.len().saturating_mul(SEGMENT_SIZE))
            .saturating_add(self.sections.len().saturating_mul(SECTION_SIZE))
    }

    /// Writes the file, laid out with these arguments.
    pub fn write(&self, first: u16, align: usize, out: &mut Filler<'_>) {
        self.write_headers(out);
        let mut end = self.headers_len();
        for index in in_order(first, self.sections.len()) {
            let Some((_, contents)) = self.sections.get(index) else { continue };
            contents.write(out);
            end = end.saturating_add(contents.len());
            if index == usize::from(first) {
                // As in `lay_out`.
                let padded = end.checked_next_multiple_of(align).unwrap_or(end);
                out.skip(padded.saturating_sub(end));
                end = padded;
            }
        }
    }

    fn write_headers(&self, out: &mut Filler<'_>) {
        let mut bytes = [0; HEADER_SIZE];
        put(&mut bytes, self.header);
        out.put(&bytes);
        for segment in &self.segments {
            let mut bytes = [0; SEGMENT_SIZE];
            put(&mut bytes, *segment);
            out.put(&bytes);
        }
        for (section, _) in &self.sections {
            let mut bytes = [0; SECTION_SIZE];
            put(&mut bytes, *section);
            out.put(&bytes);
        }
    }
}

/// The indices below `count`, `first` first.
fn in_order(first: u16, count: usize) -> impl Iterator<Item = usize> {
    let first = usize::from(first);
    std::iter::once(first).chain((0..count).filter(move |&index| index != first))
}
