//! The symfile of one instance: the bytes that a debugger reads.
//!
//! It is a copy or a view of the template's bytes, with the addresses of the outer file and the locations of
//! thread-local variables adapted to where the instance lies. It shows its DWARF or not: the file without
//! DWARF is the beginning of the one with it. It never registers itself with debuggers.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use goblin::elf::section_header::{SHT_NOBITS, SHT_SYMTAB};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;

use super::error::SymfileError;
use super::headers::{HEADER_SIZE, SECTION_SIZE, file_range, get, put};
use super::ifuncs::{CodeSections, Ifuncs};
use super::layout::{DwarfState, Layout, move_section, move_symbols};
use super::parts::{Origin, OuterSections, PackedSection, Parts, WithContents};
use super::shared_portable::PortableCell;
use super::storage::Storage;
use super::symbols;
use crate::base::addr::LoadBias;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{try_copy, try_vec};
use crate::dwarf::budget::Allowance;
use crate::dwarf::tls_locations::ThreadLocals;
use crate::list::StableBytes;

/// Where an instance of an image is, and which functions its IFUNC resolvers have chosen.
#[derive(Debug)]
pub struct Instance {
    pub load_bias: LoadBias,
    pub thread_locals: ThreadLocals,
    pub ifuncs: Ifuncs,
}

/// The symfile of an instance.
pub struct Symfile<S: Storage> {
    memory: InstanceMemory<S>,
    layout: Arc<Layout>,
    /// Where instances of the image share the other form.
    shared_portable: Option<Arc<PortableCell<S>>>,
    shows_dwarf: bool,
}

/// The bytes of an instance's symfile.
pub(super) enum InstanceMemory<S: Storage> {
    Heap(Vec<u8>),
    Own(S::Own),
    View(S::View),
}

impl<S: Storage> Symfile<S> {
    /// All of it, adapted to the instance, from a template's bytes.
    pub(super) fn new(
        memory: InstanceMemory<S>,
        layout: Arc<Layout>,
        shared_portable: Option<Arc<PortableCell<S>>>,
        instance: &Instance,
    ) -> Result<Symfile<S>, SymfileError> {
        let mut symfile = Symfile { memory, layout, shared_portable, shows_dwarf: true };
        symfile.adapt_to(instance)?;
        if !symfile.can_show_dwarf() {
            symfile.show_dwarf(false);
        }
        Ok(symfile)
    }

    /// Whether a debugger may see the DWARF, or `.gnu_debugdata` of an image without DWARF.
    pub fn can_show_dwarf(&self) -> bool {
        matches!(self.layout.dwarf, DwarfState::Opened)
    }

    /// Whether the debug sections must be made ready before they can be shown.
    pub fn is_to_be_opened(&self) -> bool {
        self.layout.is_to_be_opened()
    }

    /// Copies the parts from which another form is made. Unpacks nothing.
    pub fn parts(&self) -> Result<Parts<S>, SymfileError> {
        let malformed = || self.layout.malformed();
        let (header, filled) = self.outer_sections()?.ok_or_else(malformed)?;
        let mut outer = try_vec(filled.len())?;
        for (header, contents) in filled {
            outer.push((header, try_copy(contents)?));
        }
        let is_read = self.shared_portable.as_ref().is_some_and(|cell| cell.get().is_some());
        Ok(Parts {
            layout: self.layout.clone(),
            shared_portable: self.shared_portable.clone(),
            header,
            outer,
            names: try_copy(self.names().ok_or_else(malformed)?)?,
            debug: if is_read { Vec::new() } else { self.raw_sections()? },
        })
    }

    pub fn origin(&self) -> Origin {
        Origin(self.layout.clone())
    }

    /// Whether `origin` is its identity.
    pub fn is(&self, origin: &Origin) -> bool {
        Arc::ptr_eq(&self.layout, &origin.0)
    }

    /// Whether a debugger sees the DWARF.
    pub fn shows_dwarf(&self) -> bool {
        self.shows_dwarf
    }

    /// Shows the DWARF, or hides it: its section is the last, and so are its contents.
    pub fn show_dwarf(&mut self, shown: bool) {
        let shown = shown && self.can_show_dwarf();
        let count = (self.layout.sections.len() / SECTION_SIZE) as u16;
        let hidden = u16::from(!shown && self.layout.inner.is_some());
        let at = std::mem::offset_of!(Header, e_shnum);
        // There are fewer than 2^16, see `Elf::lay_out`.
        self.write(at, &count.saturating_sub(hidden).to_le_bytes());
        self.shows_dwarf = shown;
    }

    /// The debug sections as they are in the inner file.
    fn raw_sections(&self) -> Result<Vec<WithContents<Vec<u8>>>, SymfileError> {
        let Some(inner) = &self.layout.inner else { return Ok(Vec::new()) };
        let malformed = || self.layout.malformed();
        let file = self.bytes().get(inner.start..).ok_or_else(malformed)?;
        let mut sections = try_vec(inner.debug_sections.len())?;
        for (header, piece) in &inner.debug_sections {
            sections.push((*header, piece.read(file)?.ok_or_else(malformed)?));
        }
        Ok(sections)
    }

    /// What may be spent on reading the debug sections.
    pub fn allowance(&self) -> Allowance {
        self.layout.allowance
    }

    /// The debug sections of these names, as the image has them; of several with one name the last. The names
    /// are those of sections that are not compressed.
    pub fn packed_sections(&self, names: &[&'static str]) -> Vec<PackedSection> {
        let Some(inner) = &self.layout.inner else { return Vec::new() };
        let file = self.bytes().get(inner.start..).unwrap_or_default();
        let all_names = self.names().unwrap_or_default();
        let mut sections: Vec<PackedSection> = Vec::new();
        for (header, piece) in &inner.debug_sections {
            let start = all_names.get(header.sh_name as usize..).unwrap_or_default();
            let is = |name: &str, start: &[u8]| {
                start.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
            };
            let has_z = start.starts_with(b".z");
            let is_it = |name: &&&'static str| match name.strip_prefix('.') {
                Some(rest) if has_z => is(rest, start.get(2..).unwrap_or_default()),
                _ => is(name, start),
            };
            let Some(name) = names.iter().find(is_it) else { continue };
            sections.retain(|section| section.name != *name);
            if let Ok(Some(contents)) = piece.read(file) {
                sections.push(PackedSection { name, has_z, header: *header, contents });
            }
        }
        sections
    }

    /// The header and the sections of the outer file with their contents, without `.gnu_debugdata`.
    fn outer_sections(&self) -> Result<Option<OuterSections<&[u8]>>, OutOfMemory> {
        let bytes = self.bytes();
        let (Some(header), Some(table)) =
            (bytes.get(..HEADER_SIZE), bytes.get(self.layout.sections.clone()))
        else {
            return Ok(None);
        };
        let mut sections = try_vec(table.len() / SECTION_SIZE)?;
        for place in table.chunks_exact(SECTION_SIZE) {
            let section: SectionHeader = get(place);
            let contents = match section.sh_type {
                SHT_NOBITS => Some(&[][..]),
                _ => file_range(bytes, section.sh_offset, section.sh_size),
            };
            let Some(contents) = contents else { return Ok(None) };
            sections.push((section, contents));
        }
        if self.layout.inner.is_some() {
            sections.pop();
        }
        Ok(Some((get(header), sections)))
    }

    /// The name of the function that the run-time `address` lies in, by the symbol table.
    pub fn function_at(&self, address: usize) -> Option<&[u8]> {
        let (_, sections) = self.outer_sections().ok()??;
        let (table, entries) = sections.iter().find(|(header, _)| header.sh_type == SHT_SYMTAB)?;
        let (_, strings) = sections.get(table.sh_link as usize)?;
        symbols::function_at(entries, strings, address as u64)
    }

    /// The names of all sections.
    fn names(&self) -> Option<&[u8]> {
        self.bytes().get(self.layout.names.clone())
    }

    fn adapt_to(&mut self, instance: &Instance) -> Result<(), SymfileError> {
        let Instance { load_bias, thread_locals, ref ifuncs } = *instance;
        let layout = self.layout.clone();
        if let Some(inner) = &layout.inner {
            for (piece, locations) in &inner.thread_locals {
                for location in locations {
                    // A chunk may begin between two of its bytes.
                    for (offset, byte) in (location.at..).zip(location.bytes(thread_locals)) {
                        self.write(inner.place(piece, offset), &[byte]);
                    }
                }
            }
        }
        if !ifuncs.is_empty() {
            let code = self.code_sections()?;
            ifuncs.amend(self.get_mut(layout.symbols.clone()), &code);
        }
        for place in self.get_mut(layout.sections.clone()).chunks_exact_mut(SECTION_SIZE) {
            let mut section: SectionHeader = get(place);
            if move_section(&mut section, load_bias) {
                put(place, section);
            }
        }
        move_symbols(self.get_mut(layout.symbols.clone()), load_bias);
        Ok(())
    }

    fn code_sections(&self) -> Result<CodeSections, OutOfMemory> {
        let sections = self.bytes().get(self.layout.sections.clone()).unwrap_or_default();
        CodeSections::new(sections.chunks_exact(SECTION_SIZE).map(get))
    }

    /// Whether [`Symfile::amend`] would change anything, with the sections of code for it.
    pub fn to_amend(&self, ifuncs: &Ifuncs) -> Option<CodeSections> {
        let symbols = self.bytes().get(self.layout.symbols.clone())?;
        self.code_sections().ok().filter(|code| ifuncs.concern(symbols, code))
    }

    /// Makes the symbols of IFUNCs, whose run-time addresses these are, those of the functions that were chosen.
    pub fn amend(&mut self, ifuncs: &Ifuncs, code: &CodeSections) {
        ifuncs.amend(self.get_mut(self.layout.symbols.clone()), code);
    }

    /// The length with all debug sections.
    pub fn len_in_full(&self) -> usize {
        self.layout.len
    }

    /// What a debugger is shown.
    pub fn shown(&self) -> &[u8] {
        let shown = match &self.layout.inner {
            Some(inner) if !self.shows_dwarf => inner.start,
            _ => self.layout.len,
        };
        self.bytes().get(..shown).unwrap_or_default()
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        // Empty, if it is no part of the file.
        let place = self.get_mut(at..at.saturating_add(bytes.len()));
        if place.len() == bytes.len() {
            place.copy_from_slice(bytes);
        }
    }

    fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let place = match &mut self.memory {
            InstanceMemory::Heap(bytes) => bytes.get_mut(range),
            InstanceMemory::Own(bytes) => bytes.get_mut(range),
            InstanceMemory::View(view) => S::get_mut(view, range),
        };
        place.unwrap_or_default()
    }

    /// The whole file, shown or not.
    fn bytes(&self) -> &[u8] {
        match &self.memory {
            InstanceMemory::Heap(bytes) => bytes,
            InstanceMemory::Own(bytes) => bytes,
            InstanceMemory::View(view) => view,
        }
    }
}

/// What a debugger is shown.
impl<S: Storage> StableBytes for Symfile<S> {
    fn bytes(&self) -> &[u8] {
        self.shown()
    }
}
