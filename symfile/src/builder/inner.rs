//! The inner file of a symfile: the DWARF as it came, and the sections at the addresses that the image states.
//!
//! It is what gdb unpacks from `.gnu_debugdata`. Loaded sections have no contents in it: gdb compares their
//! addresses with those of the outer file and slides the DWARF by the difference. Nothing here depends on
//! where an instance lies; [`Inner`] says where the locations of thread-local variables are, which do.

#![forbid(unsafe_code)]

use goblin::elf::section_header::{SHT_NOBITS, SHT_STRTAB};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;

use super::elf_writer::{Contents, Elf, NOTHING};
use super::error::SymfileError;
use super::sections::{Role, Sections};
use super::xz::{Piece, StoredXz};
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_collect};
use crate::base::filler::Filler;
use crate::dwarf::tls_locations::TlsLocation;

/// The beginning of an inner file, and the contents that follow it.
pub(super) type Beginning<'s> = (Vec<u8>, Vec<&'s [u8]>);

/// The inner file; `None` if it would be too large.
pub(super) fn beginning<'s>(
    header: &Header,
    sections: &'s Sections<'_>,
) -> Result<Option<Beginning<'s>>, SymfileError> {
    let mut inner = Elf::new(header, header.e_type);
    inner.push(SectionHeader::default(), NOTHING)?;
    inner.header.e_shstrndx = inner.push(
        SectionHeader {
            // As in the outer file, it was added last.
            sh_name: sections.names.0.len().saturating_sub(".shstrtab\0".len()) as u32,
            sh_type: SHT_STRTAB,
            sh_addralign: 1,
            ..SectionHeader::default()
        },
        Contents::Bytes(&sections.names.0),
    )?;
    let mut contents = Vec::new();
    for section in &sections.list {
        match section.role {
            Role::Loaded => {
                let sh_type = SHT_NOBITS;
                let header = SectionHeader { sh_type, ..section.header };
                inner.push(header, NOTHING)?;
            }
            Role::Debug => {
                inner.push(section.header, Contents::Bytes(&section.contents))?;
                contents.try_push(&*section.contents)?;
            }
            Role::LeftOut => {}
        }
    }
    // Its names, the first contents, are a part of the beginning.
    let names = inner.header.e_shstrndx;
    if inner.lay_out(names, 1).is_none() {
        return Ok(None);
    }
    let len = inner.headers_len().saturating_add(sections.names.0.len());
    let head = Filler::filled(len, |out| inner.write(names, 1, out))?;
    Ok(Some((head, contents)))
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) start: usize,
    /// Those of its sections that have contents, each with its place in the .xz file.
    pub(super) debug_sections: Vec<(SectionHeader, Piece)>,
    /// The locations of thread-local variables, for each debug section that has any.
    pub(super) thread_locals: Vec<(Piece, Vec<TlsLocation>)>,
}

impl Inner {
    /// Describes an inner file that starts at `start`. The first piece of the .xz file is the inner file's
    /// beginning, the others are its debug sections, which have these locations.
    pub(super) fn new(
        sections: &Sections<'_>,
        xz: &StoredXz<'_>,
        start: usize,
        thread_locals: Vec<Vec<TlsLocation>>,
    ) -> Result<Inner, OutOfMemory> {
        let debug = sections.list.iter().filter(|section| section.role == Role::Debug);
        let pieces = || xz.places().skip(1);
        let thread_locals =
            pieces().zip(thread_locals).filter(|(_, locations)| !locations.is_empty());
        Ok(Inner {
            start,
            debug_sections: try_collect(debug.map(|section| section.header).zip(pieces()))?,
            thread_locals: try_collect(thread_locals)?,
        })
    }

    /// The place and the length in the file of each location. The length covers the head of a chunk that
    /// begins inside.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        self.thread_locals.iter().flat_map(move |(piece, locations)| {
            locations.iter().map(move |location| {
                let first = self.place(piece, location.at);
                let last =
                    self.place(piece, location.at.saturating_add(location.len()).saturating_sub(1));
                (first, last.saturating_sub(first).saturating_add(1))
            })
        })
    }

    /// The locations in the debug section of this index.
    pub(super) fn thread_locals_of(&self, section: usize) -> &[TlsLocation] {
        let piece = self.debug_sections.get(section).map(|(_, piece)| piece.position(0));
        let is_it = |(of, _): &&(Piece, Vec<TlsLocation>)| Some(of.position(0)) == piece;
        self.thread_locals.iter().find(is_it).map_or(&[], |(_, locations)| locations)
    }

    /// Where in the file the byte at `offset` of a debug section is.
    pub(super) fn place(&self, piece: &Piece, offset: usize) -> usize {
        self.start.saturating_add(piece.position(offset))
    }
}
