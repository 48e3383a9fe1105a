//! The form of a symfile that every debugger reads: DWARF with run-time addresses.
//!
//! It is one ELF file: all sections at their run-time addresses, and the debug sections beside them, with the
//! load bias added wherever DWARF states an address ([`crate::dwarf::addresses`]). It is made from the
//! other form ([`super::parts`]), which has the sections, already moved, and the DWARF as it came. Compressed
//! sections are unpacked first. It has the segments, too: when lldb saves a core it takes a library's base
//! address from the first.
//!
//! Instances of a template share what has no addresses: the DWARF is read once, and each later instance adds its load
//! bias to a copy of the sections that have some ([`super::shared_portable`]).
//!
//! If any part of the DWARF cannot be moved with certainty there is no such file: DWARF with half of its
//! addresses moved shows wrong values.

#![forbid(unsafe_code)]

use std::ops::Range;

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
use super::instance::Instance;
use super::parts::{DebugSection, Parts};
use super::shared_portable::{PortableTemplate, SharedSection};
use super::source::SourceSegment;
use super::storage::Storage;
use super::template::MIN_SHARED;
use crate::base::addr::LoadBias;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_collect, try_copy, try_vec};
use crate::base::filler::Filler;
use crate::dwarf::addresses::{Addresses, DwarfSection, NotRelocated, Why, is_index};
use crate::list::StableBytes;

/// The file.
pub struct PortableSymfile<S: Storage> {
    memory: PortableMemory<S>,
    len: usize,
}

enum PortableMemory<S: Storage> {
    Heap(Vec<u8>),
    /// Its own bytes come first.
    View(S::View),
}

impl<S: Storage> PortableSymfile<S> {
    fn on_heap(bytes: Vec<u8>) -> PortableSymfile<S> {
        PortableSymfile { len: bytes.len(), memory: PortableMemory::Heap(bytes) }
    }

    /// The file's bytes, which do not move when the value moves.
    pub fn contents(&self) -> &[u8] {
        let bytes = match &self.memory {
            PortableMemory::Heap(bytes) => bytes,
            PortableMemory::View(view) => &view[..],
        };
        bytes.get(..self.len).unwrap_or(bytes)
    }

    /// Whether these bytes are this file's own.
    #[cfg(test)]
    pub(super) fn owns(&mut self, range: Range<usize>) -> bool {
        self.get_mut(range).is_some()
    }

    /// The file's bytes.
    pub(crate) fn into_contents(self) -> Result<Vec<u8>, OutOfMemory> {
        match self.memory {
            PortableMemory::Heap(bytes) => Ok(bytes),
            PortableMemory::View(_) => try_copy(self.contents()),
        }
    }

    fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        match &mut self.memory {
            PortableMemory::Heap(bytes) => bytes.get_mut(range),
            PortableMemory::View(view) => S::get_mut(view, range),
        }
    }

    /// Makes the symbols of IFUNCs, whose run-time addresses these are, those of the functions that were chosen.
    /// `code` is the image's, as [`Symfile::to_amend`](super::instance::Symfile::to_amend) returns it: this file has
    /// the same sections.
    pub fn amend(&mut self, ifuncs: &Ifuncs, code: &CodeSections) {
        let bytes = self.contents();
        let Some(header) = bytes.get(..HEADER_SIZE).map(get::<Header>) else { return };
        let len = u64::from(header.e_shnum).saturating_mul(SECTION_SIZE as u64);
        let sections = file_range(bytes, header.e_shoff, len).unwrap_or_default();
        let mut sections = sections.chunks_exact(SECTION_SIZE).map(get::<SectionHeader>);
        let Some(table) = sections.find(|section| section.sh_type == SHT_SYMTAB) else { return };
        let (start, len) = (table.sh_offset as usize, table.sh_size as usize);
        if let Some(entries) = self.get_mut(start..start.saturating_add(len)) {
            ifuncs.amend(entries, code);
        }
    }
}

impl<S: Storage> StableBytes for PortableSymfile<S> {
    fn bytes(&self) -> &[u8] {
        self.contents()
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

/// An ELF file to be written, the section whose contents come first, and its length.
type LaidOut<'a> = (Elf<'a>, u16, usize);

impl<S: Storage> Parts<S> {
    /// The symfile of this instance in the other form.
    pub fn portable(mut self, instance: &Instance) -> Result<PortableSymfile<S>, NotPortable> {
        let Some(cell) = self.shared_portable.take() else {
            return self.unshared_portable(instance.load_bias);
        };
        let made = match cell.get() {
            Some(_) => None,
            None => Some(self.portable_template(instance.load_bias)?),
        };
        if let Some(made) = made {
            // Another thread's is as good.
            let _ = cell.set(made);
        }
        let template = cell.get().ok_or(NotPortable::Unreadable)?;
        self.portable_view(template, instance)
    }

    fn unshared_portable(mut self, load_bias: LoadBias) -> Result<PortableSymfile<S>, NotPortable> {
        let mut debug_sections = self.portable_sections()?;
        let addresses = self.addresses(&debug_sections)?;
        for (index, (_, section)) in debug_sections.iter_mut().enumerate() {
            addresses.relocate(index, &mut section.contents, load_bias);
        }
        let mut names = Names(try_copy(&self.names)?);
        let mut headers = try_vec(debug_sections.len())?;
        for (_, section) in &debug_sections {
            headers.push((debug_header(&mut names, section)?, &section.contents[..]));
        }
        let (file, symtab, len) =
            self.laid_out(&names, &headers, load_bias)?.ok_or(NotPortable::Unreadable)?;
        let bytes = Filler::filled(len, |out| file.write(symtab, 1, out))?;
        Ok(PortableSymfile::on_heap(bytes))
    }

    /// The debug sections that this form has, each with its index among the inner file's.
    fn portable_sections(&mut self) -> Result<Vec<(usize, DebugSection)>, SymfileError> {
        let sections = self.take_debug_sections()?;
        let mut kept = try_vec(sections.len())?;
        kept.extend(sections.into_iter().enumerate().filter(|(_, it)| !is_index(&it.name)));
        Ok(kept)
    }

    fn addresses(&self, sections: &[(usize, DebugSection)]) -> Result<Addresses, NotPortable> {
        let mut read = try_vec(sections.len())?;
        read.extend(
            sections.iter().map(|(_, section)| DwarfSection {
                name: &section.name,
                contents: &section.contents,
            }),
        );
        Ok(Addresses::find(&read, &self.budget())?)
    }

    fn portable_template(
        &mut self,
        load_bias: LoadBias,
    ) -> Result<PortableTemplate<S>, NotPortable> {
        let sections = self.portable_sections()?;
        let addresses = self.addresses(&sections)?;
        let is_own = |read: usize, inner: usize| {
            addresses.has_any(read) || !self.layout.thread_locals_of(inner).is_empty()
        };
        let mut order: Vec<(bool, usize)> = try_vec(sections.len())?;
        let all = sections.iter().enumerate();
        order.extend(all.map(|(read, (inner, _))| (!is_own(read, *inner), read)));
        order.sort_unstable();
        let mut names = Names(try_copy(&self.names)?);
        let (mut headers, mut debug) = (try_vec(order.len())?, try_vec(order.len())?);
        for (_, read) in &order {
            let Some((inner, section)) = sections.get(*read) else { continue };
            let header = debug_header(&mut names, section)?;
            headers.push((header, &section.contents[..]));
            debug.push(SharedSection { header, place: 0..0, read: *read, inner: *inner });
        }
        let (file, symtab, len) =
            self.laid_out(&names, &headers, load_bias)?.ok_or(NotPortable::Unreadable)?;
        // They are the last.
        let first = file.sections.len().saturating_sub(debug.len());
        for (section, (header, _)) in debug.iter_mut().zip(file.sections.iter().skip(first)) {
            let start = header.sh_offset as usize;
            section.place = start..start.saturating_add(header.sh_size as usize);
        }
        let table = file.sections.get(usize::from(symtab)).map(|(header, _)| header);
        let table_end = table.map_or(0, |it| it.sh_offset.saturating_add(it.sh_size) as usize);
        let beginning = table_end.max(file.headers_len()).min(len);
        let own = debug.iter().zip(&order).filter(|(_, (is_shared, _))| !is_shared);
        let own = own.map(|(section, _)| section.place.clone());
        let own = own.reduce(|all, one| all.start..one.end).unwrap_or(beginning..beginning);
        let page = S::page_size();
        let whole = |len: usize| len.checked_next_multiple_of(page).ok_or(NotPortable::Unreadable);
        let pages =
            own_pages(whole(beginning)?, own.start & !page.saturating_sub(1)..whole(own.end)?)?;
        let shared = S::shared(whole(len)?, pages, |memory| {
            file.write(symtab, 1, &mut Filler::new(memory));
        });
        let shared = shared.map_err(SymfileError::from)?;
        drop(file);
        Ok(PortableTemplate { shared, len, beginning, names: names.0, debug, addresses })
    }

    /// The file of an instance that shares the template's pages. Of these parts it takes all but the debug sections.
    fn portable_view(
        &self,
        template: &PortableTemplate<S>,
        instance: &Instance,
    ) -> Result<PortableSymfile<S>, NotPortable> {
        let PortableTemplate { shared, len, beginning, names, debug, addresses } = template;
        let memory = match S::view(shared) {
            Ok(view) => PortableMemory::View(view),
            // There are too many mappings. A copy is the same, and larger.
            Err(_) => PortableMemory::Heap(try_copy(shared)?),
        };
        let mut symfile = PortableSymfile { memory, len: *len };
        for section in debug {
            let Some(contents) = symfile.get_mut(section.place.clone()) else { continue };
            for location in self.layout.thread_locals_of(section.inner) {
                let bytes = location.bytes(instance.thread_locals);
                let end = location.at.saturating_add(bytes.len());
                if let Some(place) = contents.get_mut(location.at..end) {
                    place.copy_from_slice(&bytes);
                }
            }
            addresses.relocate(section.read, contents, instance.load_bias);
        }
        let names = Names(try_copy(names)?);
        let mut headers = try_vec(debug.len())?;
        let contents = |section: &SharedSection| shared.get(section.place.clone());
        headers.extend(debug.iter().map(|it| (it.header, contents(it).unwrap_or_default())));
        let (file, symtab, _) = self
            .laid_out(&names, &headers, instance.load_bias)?
            .filter(|laid_out| laid_out.2 == *len)
            .ok_or(NotPortable::Unreadable)?;
        // What follows is there.
        if let Some(beginning) = symfile.get_mut(0..*beginning) {
            file.write(symtab, 1, &mut Filler::new(beginning));
        }
        Ok(symfile)
    }

    /// This symfile with these debug sections in the place of its inner file.
    fn laid_out<'a>(
        &'a self,
        names: &'a Names,
        debug_sections: &[(SectionHeader, &'a [u8])],
        load_bias: LoadBias,
    ) -> Result<Option<LaidOut<'a>>, OutOfMemory> {
        let (header, sections) = (&self.header, &self.outer);
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
            file.push(*section, Contents::Bytes(contents))?;
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
        Ok(Some((file, symtab, len)))
    }
}

/// The pages that each instance has for itself: those of the beginning, and these of debug sections.
fn own_pages(beginning: usize, own: Range<usize>) -> Result<Vec<Range<usize>>, OutOfMemory> {
    let mut pages = try_vec(2)?;
    let between = own.start.saturating_sub(beginning);
    if own.is_empty() {
        pages.push(0..beginning);
    } else if between < MIN_SHARED {
        pages.push(0..own.end.max(beginning));
    } else {
        pages.push(0..beginning);
        pages.push(own);
    }
    Ok(pages)
}

/// The header of a debug section, whose name is added.
fn debug_header(names: &mut Names, section: &DebugSection) -> Result<SectionHeader, OutOfMemory> {
    Ok(SectionHeader {
        sh_name: names.add(&section.name)?,
        sh_type: SHT_PROGBITS,
        sh_flags: section.sh_flags,
        sh_addralign: 1,
        sh_entsize: section.sh_entsize,
        ..SectionHeader::default()
    })
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
