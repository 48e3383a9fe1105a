//! The form of a symfile that every debugger reads: DWARF with run-time addresses.
//!
//! It is one ELF file: all sections at their run-time addresses, and the debug sections beside them, with the
//! load bias added wherever DWARF states an address ([`crate::dwarf::addresses`]). It is made from the
//! other form ([`super::parts`]), which has the sections, already moved, and the DWARF as it came. Compressed
//! sections are unpacked first. It has the segments, too: when lldb saves a core it takes a library's base
//! address from the first.
//!
//! If any part of the DWARF cannot be moved with certainty there is no such file: DWARF with half of its
//! addresses moved shows wrong values.

#![forbid(unsafe_code)]

use goblin::elf::header::ET_DYN;
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD};
use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS, SHT_NULL, SHT_PROGBITS, SHT_SYMTAB};
use goblin::elf64::header::Header;
use goblin::elf64::program_header::ProgramHeader;
use goblin::elf64::section_header::SectionHeader;

use super::elf_writer::{Contents, Elf, NOTHING};
use super::error::SymfileError;
use super::headers::{HEADER_SIZE, Names, SECTION_SIZE, file_range, get};
use super::ifuncs::{CodeSections, Ifuncs};
use super::parts::{DebugSection, Parts};
use super::source::SourceSegment;
use crate::base::addr::LoadBias;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_collect, try_collect_ok, try_copy, try_vec};
use crate::base::filler::Filler;
use crate::dwarf::addresses::{Addresses, DwarfSection, NotRelocated, Why, is_index};
use crate::list::StableBytes;

/// The file.
pub struct PortableSymfile(Vec<u8>);

impl PortableSymfile {
    /// The file's bytes, which do not move when the value moves.
    pub fn contents(&self) -> &[u8] {
        &self.0
    }

    /// The file's bytes.
    pub(crate) fn into_contents(self) -> Vec<u8> {
        self.0
    }

    /// Makes the symbols of IFUNCs, whose run-time addresses these are, those of the functions that were chosen.
    /// `code` is the image's, as [`Symfile::to_amend`](super::instance::Symfile::to_amend) returns it: this file has
    /// the same sections.
    pub fn amend(&mut self, ifuncs: &Ifuncs, code: &CodeSections) {
        let Some(header) = self.0.get(..HEADER_SIZE).map(get::<Header>) else { return };
        let len = u64::from(header.e_shnum).saturating_mul(SECTION_SIZE as u64);
        let sections = file_range(&self.0, header.e_shoff, len).unwrap_or_default();
        let mut sections = sections.chunks_exact(SECTION_SIZE).map(get::<SectionHeader>);
        let Some(table) = sections.find(|section| section.sh_type == SHT_SYMTAB) else { return };
        let (start, len) = (table.sh_offset as usize, table.sh_size as usize);
        if let Some(entries) = self.0.get_mut(start..start.saturating_add(len)) {
            ifuncs.amend(entries, code);
        }
    }
}

impl StableBytes for PortableSymfile {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NotPortable {
    #[error(transparent)]
    NotRelocated(#[from] NotRelocated),
    #[error(transparent)]
    Unread(#[from] SymfileError),
    #[error("{0}")]
    Memory(#[from] OutOfMemory),
    #[error("the symfile is not what it was")]
    Unreadable,
}

impl NotPortable {
    /// Whether a budget or the memory was not enough.
    pub fn is_over_budget(&self) -> bool {
        match self {
            NotPortable::NotRelocated(error) => {
                matches!(error.why, Why::OverBudget(_) | Why::Memory(_))
            }
            NotPortable::Unread(error) => error.is_over_budget(),
            NotPortable::Memory(_) => true,
            NotPortable::Unreadable => false,
        }
    }
}

impl Parts {
    /// The symfile in the other form.
    pub fn portable(mut self, load_bias: LoadBias) -> Result<PortableSymfile, NotPortable> {
        let mut debug_sections = self.take_debug_sections()?;
        debug_sections.retain(|section| !is_index(&section.name));
        let mut read = try_vec(debug_sections.len())?;
        read.extend(
            debug_sections
                .iter()
                .map(|section| DwarfSection { name: &section.name, contents: &section.contents }),
        );
        let addresses = Addresses::find(&read, &self.budget())?;
        for (index, section) in debug_sections.iter_mut().enumerate() {
            addresses.relocate(index, &mut section.contents, load_bias);
        }
        self.with_sections(&debug_sections, load_bias)?
            .ok_or(NotPortable::Unreadable)
            .map(PortableSymfile)
    }

    /// This symfile with these debug sections in the place of its inner file.
    fn with_sections(
        &self,
        debug_sections: &[DebugSection],
        load_bias: LoadBias,
    ) -> Result<Option<Vec<u8>>, OutOfMemory> {
        let (header, sections) = (&self.header, &self.outer);
        let mut names = Names(try_copy(&self.names)?);
        let debug_sections = debug_sections.iter().map(|section| {
            let header = SectionHeader {
                sh_name: names.add(&section.name)?,
                sh_type: SHT_PROGBITS,
                sh_flags: section.sh_flags,
                sh_addralign: 1,
                sh_entsize: section.sh_entsize,
                ..SectionHeader::default()
            };
            Ok((header, &section.contents[..]))
        });
        let debug_sections: Vec<(SectionHeader, &[u8])> =
            try_collect_ok::<_, OutOfMemory>(debug_sections)?;

        let mut file = Elf::new(header, ET_DYN);
        let segments = self.segments().iter().map(|segment| program_header(segment, load_bias));
        file.segments.try_extend(segments)?;
        let mut symtab = 0;
        for (index, (section, contents)) in (0..).zip(sections) {
            let contents = match section.sh_type {
                SHT_NULL | SHT_NOBITS => NOTHING,
                _ if index == header.e_shstrndx => Contents::Bytes(&names.0),
                _ => Contents::Bytes(contents),
            };
            if section.sh_type == SHT_SYMTAB {
                symtab = index;
            }
            file.push(*section, contents)?;
        }
        file.header.e_shstrndx = header.e_shstrndx;
        for (section, contents) in debug_sections {
            file.push(section, Contents::Bytes(contents))?;
        }
        let Some(len) = file.lay_out(symtab, 1) else { return Ok(None) };
        // There are few: see `Sections::find_contents`.
        let with_contents = file
            .sections
            .iter()
            .map(|(section, _)| *section)
            .filter(|it| it.sh_type != SHT_NOBITS && it.sh_flags & u64::from(SHF_ALLOC) != 0);
        let with_contents: Vec<SectionHeader> = try_collect(with_contents)?;
        for segment in &mut file.segments {
            contain_contents(segment, &with_contents);
        }
        Ok(Some(Filler::filled(len, |out| file.write(symtab, 1, out))?))
    }
}

/// The program header of a segment, still without contents.
fn program_header(segment: &SourceSegment, load_bias: LoadBias) -> ProgramHeader {
    let SourceSegment { addresses, executable, writable } = segment;
    let address = load_bias.apply(addresses.start) as u64;
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    ProgramHeader {
        p_type: PT_LOAD,
        p_flags: PF_R | flag(*executable, PF_X) | flag(*writable, PF_W),
        p_vaddr: address,
        p_paddr: address,
        p_memsz: addresses.end.checked_sub(addresses.start).unwrap_or_default(),
        p_align: 1,
        ..ProgramHeader::default()
    }
}

/// Gives a segment the part of the file with the contents of its sections: gdb warns of contents outside of
/// segments. The segment is never mapped from there.
pub(crate) fn contain_contents(segment: &mut ProgramHeader, with_contents: &[SectionHeader]) {
    let addresses = segment.p_vaddr..segment.p_vaddr.saturating_add(segment.p_memsz);
    let within = with_contents.iter().filter(|section| addresses.contains(&section.sh_addr));
    let contents = within
        .map(|section| (section.sh_offset, section.sh_offset.saturating_add(section.sh_size)))
        .reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
    if let Some((start, end)) = contents {
        segment.p_offset = start;
        segment.p_filesz = end.saturating_sub(start);
    }
}
