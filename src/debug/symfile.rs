//! From an image's bytes to the ELF file that a debugger is given in its stead: a pure function.
//!
//! That symfile is an ELF file inside another one. The *outer* file has the image's sections at
//! their run-time addresses, without contents, since a debugger reads those from the process. Only
//! `.eh_frame` and the symbol table have contents, and `.gnu_debugdata`, which is the *inner* file
//! in .xz framing: the same sections at the addresses that the image states, and its DWARF as it
//! came. gdb made that section for small symbol tables of stripped files, but reads a whole ELF
//! file from it, and slides it: the distance is that between sections of the same name outside
//! and inside. So the DWARF is never parsed here, whatever gdb can read works, compressed sections
//! included, and no byte of it depends on where the image lies, but for the locations of thread-local
//! variables ([`super::tls_locations`]).
//!
//! An image whose section headers are missing or cannot be trusted is served by its segments and
//! its dynamic symbols: names and backtraces, no lines.
//!
//! The bytes are hostile. Whatever they say, this neither panics nor takes more than a few times
//! their length of memory. How they are read is in [`super::sections`].
//!
//! Sources: gABI chapters 4 ("Sections", "Symbol Table") and 5; gdb's `symfile.c` (`read_symbols`,
//! `addr_info_make_relative`) and `minidebug.c`; LSB Core 10.6 for `.eh_frame` and its header. The
//! rules that no document states were found by experiment with gdb 8.1 to 18.1, and are named
//! where they are obeyed.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use goblin::elf::header::{
    EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_DYN, EV_CURRENT,
};
use goblin::elf::section_header::{
    SHF_ALLOC, SHF_COMPRESSED, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS, SHT_PROGBITS, SHT_STRTAB,
    SHT_SYMTAB,
};
use goblin::elf::sym::{STB_GLOBAL, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_TLS, st_bind, st_type};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;

use super::budget::{Allowance, Budget};
use super::elf::{
    Contents, Elf, HEADER_SIZE, NOTHING, NotElf, SECTION_SIZE, SYMBOL_SIZE, get, image_header, put,
};
use super::gdb_jit::StableBytes;
use super::inflate::{self, NotInflated};
use super::instance::Instance;
use super::not_opened::NotOpened;
use super::sections::{Names, Policy, Role, Section, Sections, Source, SourceSegment, file_range};
use super::tls_locations::TlsLocation;
use super::xz::{Piece, StoredXz};
use crate::arch;
use crate::base::addr::{FileOffset, LoadBias, Vaddr};
use crate::base::error::Error;
use crate::base::fallible::{
    TryGrow, require_memory_for_next, try_collect, try_copy, try_vec, try_zeroed,
};
use crate::elf::read::ReadAt;
use crate::memory::reserve::{CowImage, CowView, ScratchMemory, SharedPages};

/// Why there is no symfile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SymfileError {
    /// The bytes are not what they should be.
    #[error("malformed {what} at offset {at} of the image")]
    Malformed {
        /// What is malformed.
        what: &'static str,
        /// Where it is.
        at: FileOffset,
    },
    /// A debug section cannot be unpacked.
    #[error("{section}: {error}")]
    Compressed {
        /// Its name.
        section: String,
        /// Why.
        error: NotInflated,
    },
    /// Only from an image that is nearly as large as the address space.
    #[error("a symfile for an image of {len} bytes would be too large")]
    TooLarge {
        /// The image's length.
        len: usize,
    },
    /// The system has no memory to give.
    #[error("no memory for a symfile: {0}")]
    Memory(#[from] Error),
}

impl From<NotElf> for SymfileError {
    fn from(NotElf { what, at }: NotElf) -> SymfileError {
        SymfileError::Malformed { what, at }
    }
}

impl SymfileError {
    /// Whether there is none because it would cost too much.
    pub(super) fn is_for_want_of_means(&self) -> bool {
        match self {
            SymfileError::Compressed { error, .. } => {
                matches!(error, NotInflated::OverBudget(_) | NotInflated::Memory(_))
            }
            SymfileError::Memory(_) => true,
            SymfileError::Malformed { .. } | SymfileError::TooLarge { .. } => false,
        }
    }
}

/// Whether debug sections are made fit to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dwarf {
    /// So that [`Symfile::show_dwarf`] can show them.
    Opened,
    /// They are kept as they are, for [`Symfile::opened`].
    Kept,
}

/// For how many instances of an image a symfile is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Instances {
    /// It is made in place.
    One,
    /// What is the same for all is kept once, if it is worth a mapping.
    Many,
}

/// What is common to instances is mapped and not copied from this size on, in bytes: two system
/// calls and as many mappings for each instance cost as much as copying this.
const MIN_SHARED: usize = 1 << 16;

/// The most parts that a symfile may have pages of its own in, besides its beginning; one with
/// more is copied whole.
const MAX_OWN: usize = 8;

/// A symfile but for where the image lies.
pub(crate) struct SymfileTemplate {
    memory: Master,
    layout: Arc<Layout>,
    /// Why debug sections were left out.
    fault: Option<NotOpened>,
}

/// The outer file, with addresses as the image states them.
enum Master {
    Own(ScratchMemory),
    Shared(CowImage),
}

/// Where things are in a symfile, in bytes from its start.
#[derive(Debug)]
struct Layout {
    /// The section headers: of those with `SHF_ALLOC`, `sh_addr` moves.
    sections: Range<usize>,
    /// The symbols: of those that [`moves`], `st_value` moves.
    symbols: Range<usize>,
    /// The names of the sections, in both files.
    names: Range<usize>,
    /// The inner file, if there is one: the last section's contents.
    inner: Option<Inner>,
    /// What the file is as long as.
    len: usize,
    /// The image's, which are not in this file.
    segments: Vec<SourceSegment>,
    /// The size of a thread's block of its thread-local variables.
    tls_size: u64,
    /// What may be spent on reading the debug sections.
    allowance: Allowance,
    dwarf: Shown,
}

/// What becomes of the debug sections.
#[derive(Debug)]
enum Shown {
    /// All that there are can be shown.
    Opened,
    /// They are to be opened first: how many sections the outer file has from the image, and
    /// what [`Sections::note_thread_locals`] notes.
    Kept { sections: usize, thread_locals: Option<Vec<u64>> },
    /// They were left out.
    Refused,
}

#[derive(Debug)]
struct Inner {
    start: usize,
    /// Those of its sections that have contents, each with its place in the .xz file.
    debug_sections: Vec<(SectionHeader, Piece)>,
    /// What tells where thread-local variables are, by the debug section.
    thread_locals: Vec<(Piece, Vec<TlsLocation>)>,
}

/// A debug section of the image, not compressed.
pub(crate) struct DebugSection {
    /// `.debug_info`, ...
    pub(crate) name: String,
    pub(super) sh_flags: u64,
    pub(super) sh_entsize: u64,
    pub(crate) contents: Vec<u8>,
}

/// A debug section of the image, perhaps compressed.
pub(super) struct PackedSection {
    /// `.debug_info`, ...
    pub(super) name: &'static str,
    /// Whether it is called `.zdebug_info`, ...
    has_z: bool,
    header: SectionHeader,
    pub(super) contents: Vec<u8>,
}

impl PackedSection {
    /// What it has when it is not compressed.
    pub(super) fn unpacked(self, budget: &Budget) -> Result<Vec<u8>, NotInflated> {
        let name = if self.has_z { ".zdebug_" } else { ".debug_" };
        inflate::section(name, &self.header, &self.contents, budget).unwrap_or(Ok(self.contents))
    }
}

/// A section with its contents.
type Filled<C> = (SectionHeader, C);
/// The outer file.
type Outer<C> = (Header, Vec<Filled<C>>);

/// Which symfile something was made from.
pub(super) struct Origin(Arc<Layout>);

/// A copy of what another form of a symfile is made from, so that it can be read, which may take its
/// time, while others change the symfile.
pub(super) struct Parts {
    layout: Arc<Layout>,
    /// Of the outer file.
    pub(super) header: Header,
    /// Those of the outer file, but for what has the inner one.
    pub(super) outer: Vec<Filled<Vec<u8>>>,
    /// The names of all sections.
    pub(super) names: Vec<u8>,
    /// The debug sections as they are in the inner file.
    debug: Vec<Filled<Vec<u8>>>,
}

/// The symfile of an instance: what a debugger is given.
pub(crate) struct Symfile {
    memory: Memory,
    layout: Arc<Layout>,
    shows_dwarf: bool,
}

enum Memory {
    Heap(Vec<u8>),
    Own(ScratchMemory),
    CowView(CowView),
}

impl SymfileTemplate {
    /// What is the same for all instances of the image. Copies its debug sections once.
    pub(crate) fn new(
        source: &Source<'_>,
        instances: Instances,
        allowance: Allowance,
        dwarf: Dwarf,
    ) -> Result<SymfileTemplate, SymfileError> {
        let budget = allowance.budget();
        let (header, sections) = match source.file {
            Some(file) => {
                let header = image_header(file)?;
                let stated = Sections::stated(&header, file, source, budget);
                let sections = match stated {
                    Ok(sections) => sections,
                    Err((fault, budget)) => {
                        logged!(debug, "section headers of an image are disregarded: {fault}");
                        Sections::made_up(source, budget)?
                    }
                };
                (header, sections)
            }
            None => (header_of_memory(), Sections::made_up(source, budget)?),
        };
        Self::from_sections(&header, sections, source, instances, allowance, dwarf)
    }

    /// Why debuggers will not be shown the debug sections that the image has.
    pub(crate) fn fault(&self) -> Option<&NotOpened> {
        self.fault.as_ref()
    }

    fn from_sections(
        header: &Header,
        mut sections: Sections<'_>,
        source: &Source<'_>,
        instances: Instances,
        allowance: Allowance,
        dwarf: Dwarf,
    ) -> Result<SymfileTemplate, SymfileError> {
        let too_large = || SymfileError::TooLarge { len: source.len() };
        sections.provide_text()?;
        let (mut fault, mut thread_locals) = (None, Vec::new());
        let dwarf = match dwarf {
            Dwarf::Kept if sections.has_dwarf() => Shown::Kept {
                sections: sections.list.len(),
                thread_locals: sections.note_thread_locals(source.tls_size),
            },
            _ => match sections.open(source.tls_size, source.policy).and_then(|()| {
                thread_locals = sections.all_thread_locals(source.tls_size)?;
                Ok(())
            }) {
                Ok(()) => Shown::Opened,
                Err(error) => {
                    sections.leave_dwarf();
                    fault = Some(error);
                    Shown::Refused
                }
            },
        };
        let symbols = match sections.symbols {
            Some((entries, strings)) => Symbols::stated(entries, strings)?,
            None => Symbols::from_dynamic(source, &sections)?,
        };
        let mut name = |name| sections.names.add(name);
        let (symtab_name, strtab_name) = (name(".symtab")?, name(".strtab")?);
        let (debugdata_name, shstrtab_name) = (name(".gnu_debugdata")?, name(".shstrtab")?);

        let inner = if sections.has_dwarf() {
            Some(inner(header, &sections)?.ok_or_else(too_large)?)
        } else {
            None
        };
        let debugdata = match &inner {
            Some((head, contents)) => {
                let pieces = [&head[..]].into_iter().chain(contents.iter().copied());
                Contents::Xz(StoredXz::new(try_collect(pieces)?).ok_or_else(too_large)?)
            }
            None => Contents::Bytes(sections.debugdata.unwrap_or_default()),
        };

        // Without segments: gdb would only compare the sections with them.
        let mut outer = Elf::new(header, ET_DYN);
        for section in &sections.list {
            match section.role {
                Role::Loaded => outer.push(section.header, Contents::Bytes(&section.contents))?,
                // A slot is left where a section was, for the sake of the symbols' `st_shndx`.
                Role::LeftOut | Role::Debug => outer.push(SectionHeader::default(), NOTHING)?,
            };
        }
        let section = |name, sh_type| SectionHeader {
            sh_name: name,
            sh_type,
            sh_addralign: 1,
            ..SectionHeader::default()
        };
        let strings = Contents::Bytes(&symbols.strings);
        let strtab = outer.push(section(strtab_name, SHT_STRTAB), strings)?;
        let symtab = outer.push(
            SectionHeader {
                sh_link: u32::from(strtab),
                sh_info: symbols.locals,
                sh_entsize: SYMBOL_SIZE as u64,
                sh_addralign: 8,
                ..section(symtab_name, SHT_SYMTAB)
            },
            Contents::Bytes(&symbols.entries),
        )?;
        let names = Contents::Bytes(&sections.names.0);
        let shstrtab = outer.push(section(shstrtab_name, SHT_STRTAB), names)?;
        outer.header.e_shstrndx = shstrtab;
        if debugdata.len() != 0 {
            outer.push(section(debugdata_name, SHT_PROGBITS), debugdata)?;
        }

        // What depends on the instance comes first, then what does not.
        let page = region::page::size();
        let own_len = outer.headers_len().saturating_add(symbols.entries.len());
        let mut align = 1;
        let mut len = outer.lay_out(symtab, align).ok_or_else(too_large)?;
        let is_much = len.saturating_sub(own_len) >= MIN_SHARED;
        if instances == Instances::Many && is_much {
            align = page;
            len = outer.lay_out(symtab, align).ok_or_else(too_large)?;
        }
        let place = |index: u16| {
            let header = outer.sections.get(usize::from(index)).map(|(header, _)| *header);
            let SectionHeader { sh_offset, sh_size, .. } = header.unwrap_or_default();
            sh_offset as usize..sh_offset.saturating_add(sh_size) as usize
        };
        let layout = Arc::new(Layout {
            sections: HEADER_SIZE..outer.headers_len(),
            symbols: place(symtab),
            names: place(shstrtab),
            inner: match outer.sections.last() {
                Some((header, Contents::Xz(xz))) => {
                    Some(Inner::new(&sections, xz, header.sh_offset as usize, thread_locals)?)
                }
                _ => None,
            },
            len,
            segments: try_collect(source.segments.iter().cloned())?,
            tls_size: source.tls_size,
            allowance,
            dwarf,
        });
        let fill = |memory: &mut [u8]| {
            outer.write(symtab, align, memory);
            let entries = memory.get_mut(layout.symbols.clone()).unwrap_or_default();
            Symbols::amend(entries, symbols.strings.len());
        };
        let own = if align == page { layout.own_pages()? } else { None };
        let memory = match own {
            Some(own) => {
                let padded = len.checked_next_multiple_of(page).ok_or_else(too_large)?;
                let pages = SharedPages::filled(padded, std::iter::once(0..padded), fill)?;
                Master::Shared(CowImage::new(pages, own))
            }
            None => {
                let mut memory = ScratchMemory::new(len)?;
                fill(&mut memory);
                Master::Own(memory)
            }
        };
        Ok(SymfileTemplate { memory, layout, fault })
    }

    /// The symfile of this instance.
    pub(crate) fn at(&self, instance: Instance) -> Result<Symfile, SymfileError> {
        let memory = match &self.memory {
            Master::Own(bytes) => Memory::Heap(try_copy(bytes)?),
            Master::Shared(views) => match views.view() {
                Ok(view) => Memory::CowView(view),
                // Too many mappings: the copy is the same, and only larger.
                Err(_) => Memory::Heap(try_copy(views.get(..self.layout.len).unwrap_or_default())?),
            },
        };
        Ok(Symfile::new(memory, self.layout.clone(), instance))
    }

    /// As [`SymfileTemplate::at`], for the only instance: copies nothing.
    pub(crate) fn into_symfile(self, instance: Instance) -> Result<Symfile, SymfileError> {
        match self.memory {
            Master::Own(bytes) => Ok(Symfile::new(Memory::Own(bytes), self.layout, instance)),
            Master::Shared(_) => self.at(instance),
        }
    }
}

impl Layout {
    /// What an instance has for itself, in whole pages; `None` if it is in too many places.
    fn own_pages(&self) -> Result<Option<Vec<Range<usize>>>, SymfileError> {
        let page = region::page::size();
        let mut pages: Vec<usize> = Vec::new();
        for (place, len) in self.inner.iter().flat_map(Inner::places) {
            for at in [place, place.saturating_add(len).saturating_sub(1)] {
                let start = at & !page.saturating_sub(1);
                if pages.last() != Some(&start) {
                    pages.try_push(start)?;
                }
            }
        }
        pages.sort_unstable();
        let beginning = self.symbols.end.max(self.sections.end).checked_next_multiple_of(page);
        let mut own: Vec<Range<usize>> = beginning.map(|end| 0..end).into_iter().collect();
        for start in pages {
            let end = start.saturating_add(page);
            let count = own.len();
            match own.last_mut() {
                Some(last) if start < last.end => {}
                Some(last) if start == last.end => last.end = end,
                _ if count > MAX_OWN => return Ok(None),
                _ => own.push(start..end),
            }
        }
        Ok(Some(own))
    }

    fn is_to_be_opened(&self) -> bool {
        matches!(self.dwarf, Shown::Kept { .. })
    }

    fn malformed(&self) -> SymfileError {
        let start = self.inner.as_ref().map_or(0, |inner| inner.start);
        SymfileError::Malformed { what: "symfile", at: FileOffset(start as u64) }
    }
}

impl Parts {
    /// Whether the debug sections must be made fit before they can be shown.
    pub(super) fn is_to_be_opened(&self) -> bool {
        self.layout.is_to_be_opened()
    }

    /// Whether the image has thread-local variables.
    pub(super) fn has_thread_locals(&self) -> bool {
        self.layout.tls_size != 0
    }

    /// The symfile with its debug sections made fit to be shown, where they are to be.
    pub(super) fn opened(
        self,
        instance: Instance,
        policy: Policy,
    ) -> Result<SymfileTemplate, SymfileError> {
        let Parts { layout, header, outer, names, debug } = self;
        let malformed = || layout.malformed();
        let Shown::Kept { sections: count, thread_locals } = &layout.dwarf else {
            return Err(malformed());
        };
        // As the image states them.
        let back = LoadBias::between(Vaddr(instance.load_bias.get() as u64), 0);
        let symtab = outer.iter().find(|(header, _)| header.sh_type == SHT_SYMTAB);
        let (table, entries) = symtab.ok_or_else(malformed)?;
        let (_, strings) = outer.get(table.sh_link as usize).ok_or_else(malformed)?;
        let mut entries = try_copy(entries)?;
        move_symbols(&mut entries, back);
        let mut list = try_vec(outer.len())?;
        for (header, contents) in outer.iter().take(*count) {
            let mut header = *header;
            move_section(&mut header, back);
            let role = match header.sh_flags & u64::from(SHF_ALLOC) {
                0 => Role::LeftOut,
                _ => Role::Loaded,
            };
            list.push(Section { role, header, contents: contents.into() });
        }
        list.try_extend(debug.into_iter().map(|(header, contents)| Section {
            role: Role::Debug,
            header,
            contents: contents.into(),
        }))?;
        let sections = Sections::noted(
            Names(names),
            list,
            (&entries, strings),
            thread_locals.as_deref().map(try_copy).transpose()?,
            layout.allowance.budget(),
        );
        let source = Source {
            file: None,
            memory: &NoMemory,
            segments: &layout.segments,
            eh_frame: &|| None,
            tls_size: layout.tls_size,
            dynamic_symbols: &|_| {},
            policy,
        };
        SymfileTemplate::from_sections(
            &header,
            sections,
            &source,
            Instances::One,
            layout.allowance,
            Dwarf::Opened,
        )
    }

    /// Takes the debug sections out, as the image has them, but for the locations of thread-local
    /// variables; inflated.
    pub(super) fn take_debug_sections(&mut self) -> Result<Vec<DebugSection>, SymfileError> {
        let budget = self.budget();
        let packed = std::mem::take(&mut self.debug);
        let mut sections = try_vec(packed.len())?;
        for (index, (header, contents)) in packed.into_iter().enumerate() {
            require_memory_for_next(index)?;
            let name = self.names.get(header.sh_name as usize..);
            let name = name.ok_or_else(|| self.layout.malformed())?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let mut section = DebugSection {
                name: String::from_utf8_lossy(name).into_owned(),
                sh_flags: header.sh_flags,
                sh_entsize: header.sh_entsize,
                contents,
            };
            let unpacked = inflate::section(&section.name, &header, &section.contents, &budget);
            if let Some(unpacked) = unpacked {
                let of = |error| SymfileError::Compressed { section: section.name.clone(), error };
                section.contents = unpacked.map_err(of)?;
                section.name = section.name.replacen(".zdebug_", ".debug_", 1);
                section.sh_flags &= !u64::from(SHF_COMPRESSED);
            }
            sections.push(section);
        }
        Ok(sections)
    }

    /// What may be spent on reading the debug sections.
    pub(super) fn budget(&self) -> Budget {
        self.layout.allowance.budget()
    }

    /// The image's segments, as it states them.
    pub(super) fn segments(&self) -> &[SourceSegment] {
        &self.layout.segments
    }
}

impl Inner {
    /// What is noted of an inner file that starts at `start`. The first piece of the .xz file is the
    /// inner file's beginning, the others are its debug sections, which have these sites.
    fn new(
        sections: &Sections<'_>,
        xz: &StoredXz<'_>,
        start: usize,
        thread_locals: Vec<Vec<TlsLocation>>,
    ) -> Result<Inner, Error> {
        let debug = sections.list.iter().filter(|section| section.role == Role::Debug);
        let pieces = || xz.places().skip(1);
        let thread_locals = pieces().zip(thread_locals).filter(|(_, sites)| !sites.is_empty());
        Ok(Inner {
            start,
            debug_sections: try_collect(debug.map(|section| section.header).zip(pieces()))?,
            thread_locals: try_collect(thread_locals)?,
        })
    }

    /// Where in the file each site is: its first byte, and how many there are if no chunk begins
    /// between them; if one does, they are further apart.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        self.thread_locals.iter().flat_map(move |(piece, sites)| {
            sites.iter().map(move |site| {
                let first = self.place(piece, site.at);
                let last = self.place(piece, site.at.saturating_add(site.len()).saturating_sub(1));
                (first, last.saturating_sub(first).saturating_add(1))
            })
        })
    }

    /// Where in the file the byte at `offset` of a debug section is.
    fn place(&self, piece: &Piece, offset: usize) -> usize {
        self.start.saturating_add(piece.position(offset))
    }
}

impl Symfile {
    /// All of it, adapted to the instance, from a template's bytes.
    fn new(memory: Memory, layout: Arc<Layout>, instance: Instance) -> Symfile {
        let mut symfile = Symfile { memory, layout, shows_dwarf: true };
        symfile.adapt_to(instance);
        if !symfile.can_show_dwarf() {
            symfile.show_dwarf(false);
        }
        symfile
    }

    /// Whether a debugger may see the DWARF in it, or what it has instead where the image has none.
    pub(super) fn can_show_dwarf(&self) -> bool {
        matches!(self.layout.dwarf, Shown::Opened)
    }

    /// Whether the debug sections must be made fit before they can be shown.
    pub(super) fn is_to_be_opened(&self) -> bool {
        self.layout.is_to_be_opened()
    }

    /// Copies what another form is made from. Unpacks nothing.
    pub(super) fn parts(&self) -> Result<Parts, SymfileError> {
        let malformed = || self.layout.malformed();
        let (header, filled) = self.outer_sections()?.ok_or_else(malformed)?;
        let mut outer = try_vec(filled.len())?;
        for (header, contents) in filled {
            outer.push((header, try_copy(contents)?));
        }
        Ok(Parts {
            layout: self.layout.clone(),
            header,
            outer,
            names: try_copy(self.names().ok_or_else(malformed)?)?,
            debug: self.raw_sections()?,
        })
    }

    pub(super) fn origin(&self) -> Origin {
        Origin(self.layout.clone())
    }

    /// Whether it is the one that `origin` was asked of.
    pub(super) fn is(&self, origin: &Origin) -> bool {
        Arc::ptr_eq(&self.layout, &origin.0)
    }

    /// Whether a debugger sees the DWARF in it.
    pub(crate) fn shows_dwarf(&self) -> bool {
        self.shows_dwarf
    }

    /// Shows the DWARF in it, or no longer does: its section is the last, and so are its contents.
    pub(crate) fn show_dwarf(&mut self, shown: bool) {
        let shown = shown && self.can_show_dwarf();
        let count = (self.layout.sections.len() / SECTION_SIZE) as u16;
        let hidden = u16::from(!shown && self.layout.inner.is_some());
        let at = std::mem::offset_of!(Header, e_shnum);
        // There are fewer than 2^16, see `Elf::lay_out`.
        self.write(at, &count.saturating_sub(hidden).to_le_bytes());
        self.shows_dwarf = shown;
    }

    /// The debug sections as they are in the inner file.
    fn raw_sections(&self) -> Result<Vec<Filled<Vec<u8>>>, SymfileError> {
        let Some(inner) = &self.layout.inner else { return Ok(Vec::new()) };
        let malformed = || self.layout.malformed();
        let file = Symfile::bytes(self).get(inner.start..).ok_or_else(malformed)?;
        let mut sections = try_vec(inner.debug_sections.len())?;
        for (header, piece) in &inner.debug_sections {
            sections.push((*header, piece.read(file)?.ok_or_else(malformed)?));
        }
        Ok(sections)
    }

    /// What may be spent on reading the debug sections.
    pub(super) fn allowance(&self) -> Allowance {
        self.layout.allowance
    }

    /// Those of the debug sections, as the image has them, that have one of these names when they are
    /// not compressed. Of several of one name the last.
    pub(super) fn packed_sections(&self, names: &[&'static str]) -> Vec<PackedSection> {
        let Some(inner) = &self.layout.inner else { return Vec::new() };
        let file = Symfile::bytes(self).get(inner.start..).unwrap_or_default();
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

    /// The header and the sections of the outer file, each with its contents, but for the inner
    /// file.
    fn outer_sections(&self) -> Result<Option<Outer<&[u8]>>, Error> {
        let bytes = Symfile::bytes(self);
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

    /// The name of the function that `address` lies in, at run time, by the symbol table.
    pub(super) fn function_at(&self, address: usize) -> Option<&[u8]> {
        let (_, sections) = self.outer_sections().ok()??;
        let index = sections.iter().position(|(header, _)| header.sh_type == SHT_SYMTAB)?;
        let (table, entries) = sections.get(index)?;
        let (_, strings) = sections.get(table.sh_link as usize)?;
        let functions = entries.chunks_exact(SYMBOL_SIZE).map(get::<Sym>).filter(|symbol| {
            matches!(st_type(symbol.st_info), STT_FUNC | STT_GNU_IFUNC)
                && u32::from(symbol.st_shndx) != SHN_UNDEF
                && symbol.st_value <= address as u64
        });
        // The last that begins before, of those that do not end before. One that does not tell its
        // size goes on to the next.
        let nearest = functions.clone().map(|symbol| symbol.st_value).max()?;
        let holds = |symbol: &Sym| match symbol.st_size {
            0 => symbol.st_value == nearest,
            size => (address as u64).wrapping_sub(symbol.st_value) < size,
        };
        let merit = |symbol: &Sym| {
            (symbol.st_value, symbol.st_size != 0, st_bind(symbol.st_info) == STB_GLOBAL)
        };
        let symbol = functions.filter(holds).max_by_key(merit)?;
        let name = strings.get(symbol.st_name as usize..)?.split(|&byte| byte == 0).next()?;
        (!name.is_empty()).then_some(name)
    }

    /// The names of all sections.
    fn names(&self) -> Option<&[u8]> {
        self.bytes().get(self.layout.names.clone())
    }

    fn adapt_to(&mut self, instance: Instance) {
        let Instance { load_bias, thread_locals } = instance;
        let layout = self.layout.clone();
        if let Some(inner) = &layout.inner {
            for (piece, sites) in &inner.thread_locals {
                for site in sites {
                    // A chunk may begin between two of its bytes.
                    for (offset, byte) in (site.at..).zip(site.bytes(thread_locals)) {
                        self.write(inner.place(piece, offset), &[byte]);
                    }
                }
            }
        }
        for place in self.get_mut(layout.sections.clone()).chunks_exact_mut(SECTION_SIZE) {
            let mut section: SectionHeader = get(place);
            if move_section(&mut section, load_bias) {
                put(place, section);
            }
        }
        move_symbols(self.get_mut(layout.symbols.clone()), load_bias);
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        // Empty, where it is no part of the file.
        let place = self.get_mut(at..at.saturating_add(bytes.len()));
        if place.len() == bytes.len() {
            place.copy_from_slice(bytes);
        }
    }

    fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let place = match &mut self.memory {
            Memory::Heap(bytes) => bytes.get_mut(range),
            Memory::Own(bytes) => bytes.get_mut(range),
            Memory::CowView(view) => view.get_mut(range),
        };
        place.unwrap_or_default()
    }

    /// All of it, whatever is shown.
    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Own(bytes) => bytes,
            Memory::CowView(view) => view,
        }
    }
}

/// What a debugger is shown. The bytes stay in place when the value is moved.
impl StableBytes for Symfile {
    fn bytes(&self) -> &[u8] {
        let shown = match &self.layout.inner {
            Some(inner) if !self.shows_dwarf => inner.start,
            _ => self.layout.len,
        };
        Symfile::bytes(self).get(..shown).unwrap_or_default()
    }
}

/// Nothing of an image is in memory, as far as is known.
struct NoMemory;

impl ReadAt for NoMemory {
    fn read(&self, _: Range<Vaddr>) -> Option<&[u8]> {
        None
    }

    fn read_to_end(&self, _: Vaddr) -> Option<&[u8]> {
        None
    }
}

/// Moves the section, if it is loaded. Whether it is.
fn move_section(section: &mut SectionHeader, load_bias: LoadBias) -> bool {
    let is_loaded = section.sh_flags & u64::from(SHF_ALLOC) != 0;
    if is_loaded {
        section.sh_addr = load_bias.apply(Vaddr(section.sh_addr)) as u64;
    }
    is_loaded
}

/// Moves the symbols of a table, those that [`moves`].
fn move_symbols(entries: &mut [u8], load_bias: LoadBias) {
    for place in entries.chunks_exact_mut(SYMBOL_SIZE) {
        let mut symbol: Sym = get(place);
        if moves(&symbol) {
            symbol.st_value = load_bias.apply(Vaddr(symbol.st_value)) as u64;
            put(place, symbol);
        }
    }
}

/// Whether the value of `symbol` is an address in the image, and not an offset or a plain number.
fn moves(symbol: &Sym) -> bool {
    let section = u32::from(symbol.st_shndx);
    section != SHN_UNDEF && section < SHN_LORESERVE && st_type(symbol.st_info) != STT_TLS
}

/// The beginning of an inner file, and what follows on it.
type Beginning<'s> = (Vec<u8>, Vec<&'s [u8]>);

/// The inner file, unless it would be too large.
fn inner<'s>(
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
    let mut head = try_zeroed(inner.headers_len().saturating_add(sections.names.0.len()))?;
    inner.write(names, 1, &mut head);
    Ok(Some((head, contents)))
}

/// The contents of `.symtab` and `.strtab`.
struct Symbols<'s> {
    entries: Cow<'s, [u8]>,
    /// Ends with a zero.
    strings: Cow<'s, [u8]>,
    /// How many local symbols come first.
    locals: u32,
}

impl<'s> Symbols<'s> {
    /// As a file has them.
    fn stated(entries: &'s [u8], strings: &'s [u8]) -> Result<Symbols<'s>, SymfileError> {
        let whole = entries.len() / SYMBOL_SIZE;
        let entries = entries.get(..whole.saturating_mul(SYMBOL_SIZE)).unwrap_or_default();
        let bind = |entry: &[u8]| st_bind(get::<Sym>(entry).st_info);
        let locals = entries.chunks_exact(SYMBOL_SIZE).map(bind);
        let locals = locals.take_while(|bind| *bind == STB_LOCAL).count() as u32;
        let strings = match strings.last() {
            Some(0) => strings.into(),
            _ => {
                let mut ended = try_vec(strings.len().saturating_add(1))?;
                ended.extend_from_slice(strings);
                ended.push(0);
                ended.into()
            }
        };
        Ok(Symbols { entries: entries.into(), strings, locals })
    }

    /// Makes the best of what debuggers should not see, in a copy of the entries.
    fn amend(entries: &mut [u8], strings_len: usize) {
        for place in entries.chunks_exact_mut(SYMBOL_SIZE) {
            let mut symbol: Sym = get(place);
            if st_type(symbol.st_info) == STT_TLS {
                // gdb would take its value for an offset in the executable's block, and show that.
                let st_info = st_bind(symbol.st_info) << 4;
                put(place, Sym { st_info, ..Sym::default() });
            } else if symbol.st_name as usize >= strings_len {
                symbol.st_name = (strings_len as u32).saturating_sub(1);
                put(place, symbol);
            }
        }
    }

    fn from_dynamic(
        source: &Source<'_>,
        sections: &Sections<'_>,
    ) -> Result<Symbols<'s>, SymfileError> {
        let (mut entries, mut strings) = (vec![0; SYMBOL_SIZE], vec![0]);
        let mut result = Ok(());
        // Each has an entry of its own in the file, and names may share their ends but seldom do.
        let most = source.len();
        (source.dynamic_symbols)(&mut |dynamic| {
            let full =
                entries.len() > most || strings.len().saturating_add(dynamic.name.len()) > most;
            let Some(st_shndx) = sections.index_of(&dynamic) else {
                return;
            };
            if full || result.is_err() {
                return;
            }
            let mut entry = [0; SYMBOL_SIZE];
            put(
                &mut entry,
                Sym {
                    st_name: strings.len() as u32,
                    st_info: dynamic.st_info,
                    st_other: dynamic.st_other,
                    st_shndx,
                    st_value: dynamic.st_value,
                    st_size: dynamic.st_size,
                },
            );
            result = entries
                .try_append(&entry)
                .and_then(|()| strings.try_append(dynamic.name))
                .and_then(|()| strings.try_push(0));
        });
        result?;
        Ok(Symbols { entries: entries.into(), strings: strings.into(), locals: 1 })
    }
}

/// For an image of which nothing but its memory is at hand.
fn header_of_memory() -> Header {
    let mut header = Header { e_machine: arch::E_MACHINE, e_version: 1, ..Header::default() };
    let ident = [(EI_CLASS, ELFCLASS64), (EI_DATA, ELFDATA2LSB), (EI_VERSION, EV_CURRENT)];
    for (at, &byte) in ELFMAG.iter().enumerate().chain(ident.iter().map(|(at, byte)| (*at, byte))) {
        if let Some(place) = header.e_ident.get_mut(at) {
            *place = byte;
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::super::sections::{DynamicSymbol, SourceSegment};
    use scroll::{LE, Pread};

    use super::*;
    use crate::base::addr::LoadBias;
    use crate::debug::{Debug, Made, Published, ThreadLocals};
    use crate::elf::eh_frame::EhFrame;
    use crate::elf::read::ReadAt;
    use goblin::elf64::program_header::{PF_W, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    const CODE: &str = "
        #include <string.h>
        __thread int per_thread = 1;
        int data = 2;
        static int zero[100];
        static int hidden(const char *s) { return zero[strlen(s)]++; }
        int visible(const char *s) { return hidden(s) + data + per_thread; }";
    const DATA: &str = "struct { int a; double b; } data = { 5, 2.5 };";

    /// A directory of its own for each test; gone when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Scratch {
            let name = format!("memdl-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn compiled(&self, code: &str, flags: &[&str]) -> Vec<u8> {
            let source = self.0.join("image.c");
            let library = self.0.join("image.so");
            std::fs::write(&source, code).unwrap();
            let output = run(
                "gcc",
                "cc",
                flags
                    .iter()
                    .copied()
                    .map(Path::new)
                    .chain(["-shared", "-fPIC", "-o"].map(Path::new))
                    .chain([&*library, &*source]),
            );
            assert!(output.status.success(), "{output:?}");
            std::fs::read(library).unwrap()
        }

        fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, contents).unwrap();
            path
        }

        /// Fails if `readelf` has to say anything about `file` beyond what is in it.
        fn assert_well_formed(&self, file: &[u8]) {
            let path = self.file("symfile", file);
            let output = run("binutils", "readelf", ["-aW".as_ref(), &*path]);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(!report.contains("arning"), "{report}");
        }

        /// The inner file of `outer`.
        fn inner(&self, outer: &[u8]) -> Option<Vec<u8>> {
            let packed = section(outer, ".gnu_debugdata")?.1;
            let path = self.file("inner.xz", packed);
            let output = run("xz-utils", "xz", ["-dc".as_ref(), &*path]);
            assert!(output.status.success(), "{output:?}");
            Some(output.stdout)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn run<'a>(package: &str, tool: &str, args: impl IntoIterator<Item = &'a Path>) -> Output {
        Command::new(tool)
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("{tool}: {error}: install the package {package}"))
    }

    /// What the loader would tell of an image it trusts.
    struct Segments<'a> {
        bytes: &'a [u8],
        list: Vec<SourceSegment>,
        /// Where each is in the bytes.
        files: Vec<Range<usize>>,
        eh_frame: Option<Range<Vaddr>>,
    }

    impl ReadAt for Segments<'_> {
        fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
            let len = range.end.checked_sub(range.start)?;
            self.read_to_end(range.start)?.get(..len as usize)
        }

        fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
            let holds = |segment: &SourceSegment| segment.addresses.contains(&start);
            let index = self.list.iter().position(holds)?;
            let skipped = start.checked_sub(self.list[index].addresses.start)?;
            self.bytes.get(self.files[index].clone())?.get(skipped as usize..)
        }
    }

    fn segments(bytes: &[u8]) -> Segments<'_> {
        let header: Header = bytes.pread_with(0, LE).unwrap();
        let mut segments = Segments { bytes, list: vec![], files: vec![], eh_frame: None };
        let mut eh_frame_hdr = None;
        for i in 0..usize::from(header.e_phnum) {
            let at = header.e_phoff as usize + i * 56;
            let segment: ProgramHeader = bytes.pread_with(at, LE).unwrap();
            let addresses = Vaddr(segment.p_vaddr).range(segment.p_memsz).unwrap();
            let start = segment.p_offset as usize;
            match segment.p_type {
                PT_LOAD => {
                    segments.files.push(start..start + segment.p_filesz as usize);
                    segments.list.push(SourceSegment {
                        addresses,
                        executable: segment.p_flags & PF_X != 0,
                        writable: segment.p_flags & PF_W != 0,
                    });
                }
                PT_GNU_EH_FRAME => eh_frame_hdr = Some(addresses),
                _ => {}
            }
        }
        segments.eh_frame =
            eh_frame_hdr.and_then(|hdr| Some(EhFrame::locate(hdr, &segments)?.range));
        segments
    }

    fn template(bytes: &[u8]) -> SymfileTemplate {
        template_by(bytes, bytes).unwrap()
    }

    /// As of `bytes`, with what the dynamic section says taken from `sound`.
    fn template_by(bytes: &[u8], sound: &[u8]) -> Result<SymfileTemplate, SymfileError> {
        let memory = segments(sound);
        let visible = DynamicSymbol {
            name: b"visible",
            st_value: goblin::elf::Elf::parse(sound)
                .ok()
                .and_then(|elf| {
                    let mut symbols = elf.dynsyms.iter();
                    symbols.find(|symbol| elf.dynstrtab.get_at(symbol.st_name) == Some("visible"))
                })
                .map_or(0, |symbol| symbol.st_value),
            st_size: 7,
            st_info: 0x12,
            st_other: 0,
            st_shndx: 12,
        };
        let source = Source {
            file: Some(bytes),
            memory: &memory,
            segments: &memory.list,
            eh_frame: &|| memory.eh_frame.clone(),
            tls_size: 0,
            dynamic_symbols: &|show| (0..1000).for_each(|_| show(visible)),
            policy: Policy { is_build_id_told: true, debugger_listens: false },
        };
        made(&source)
    }

    fn made(source: &Source<'_>) -> Result<SymfileTemplate, SymfileError> {
        let allowance = Allowance::new(Default::default(), source.len());
        SymfileTemplate::new(source, Instances::One, allowance, Dwarf::Opened)
    }

    fn shown(symfile: &Symfile) -> Vec<u8> {
        StableBytes::bytes(symfile).to_vec()
    }

    fn section<'a>(bytes: &'a [u8], name: &str) -> Option<(SectionHeader, &'a [u8])> {
        let elf = goblin::elf::Elf::parse(bytes).unwrap();
        let mut sections = elf.section_headers.into_iter();
        let found = sections.find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(name));
        let header = SectionHeader::from(found?);
        let contents = match header.sh_type {
            SHT_NOBITS => &[],
            _ => &bytes[header.sh_offset as usize..][..header.sh_size as usize],
        };
        Some((header, contents))
    }

    fn without_section_headers(bytes: &[u8]) -> Vec<u8> {
        let mut header: Header = bytes.pread_with(0, LE).unwrap();
        (header.e_shoff, header.e_shnum, header.e_shstrndx) = (0, 0, 0);
        let mut bytes = bytes.to_vec();
        put(&mut bytes, header);
        bytes
    }

    fn bias(bytes: usize) -> Instance {
        let load_bias = LoadBias::between(Vaddr(0), bytes);
        Instance { load_bias, thread_locals: ThreadLocals::Elsewhere }
    }

    #[test]
    fn what_was_made_from_one_symfile_is_not_told_of_another() {
        let scratch = Scratch::new("another");
        let [one, other] = [CODE, DATA].map(|code| {
            let image = scratch.compiled(code, &["-g"]);
            Published::Nothing(Some(template(&image).into_symfile(bias(0)).unwrap()))
        });
        let made = one.unread(Debug::Portable, None).unwrap();
        let made = Made::from(made, Debug::Portable, bias(0));
        assert!(one.unread(Debug::Portable, Some(&made)).is_none());
        assert!(other.unread(Debug::Portable, Some(&made)).is_some());
        // Nothing has to be made where the wrapped form has all.
        assert!(other.unread(Debug::Full, None).is_none());
        let (told, fault) = other.changed_to(Debug::Portable, Some(made));
        assert!(told.debug() != Debug::Portable && fault.is_none());
    }

    #[test]
    fn readelf_finds_nothing_wrong_with_a_symfile() {
        let scratch = Scratch::new("well-formed");
        let images = [
            scratch.compiled(CODE, &["-g", "-O2"]),
            scratch.compiled(CODE, &["-g", "-gz=zlib"]),
            scratch.compiled(CODE, &["-s"]),
            scratch.compiled(DATA, &["-g", "-nostdlib"]),
            without_section_headers(&scratch.compiled(CODE, &["-O2"])),
        ];
        for image in &images {
            for with_dwarf in [true, false] {
                let template = template(image);
                let instance = bias(0x7f12_3456_7000);
                let symfiles =
                    [template.at(instance).unwrap(), template.into_symfile(instance).unwrap()];
                let [symfile, same] = symfiles.map(|mut symfile| {
                    symfile.show_dwarf(with_dwarf);
                    shown(&symfile)
                });
                assert_eq!(symfile, same);
                scratch.assert_well_formed(&symfile);
                assert!(section(&symfile, ".text").is_some());
                let Some(inner) = scratch.inner(&symfile) else {
                    continue;
                };
                scratch.assert_well_formed(&inner);
                assert!(section(&inner, ".text").is_some());
                assert!(section(&inner, ".symtab").is_none());
            }
        }
    }

    #[test]
    fn addresses_move_outside_and_stay_inside() {
        let scratch = Scratch::new("moves");
        let image = scratch.compiled(CODE, &["-g"]);
        let symfile = shown(&template(&image).at(bias(0x1000_0000)).unwrap());
        let inner = scratch.inner(&symfile).unwrap();
        for name in [".text", ".data", ".bss", ".eh_frame", ".tdata"] {
            let stated = section(&image, name).unwrap().0;
            let (inside, outside) = (section(&inner, name), section(&symfile, name));
            assert_eq!(inside.unwrap().0.sh_addr, stated.sh_addr, "{name}");
            let outside = outside.unwrap().0;
            assert_eq!(outside.sh_addr, stated.sh_addr + 0x1000_0000, "{name}");
        }
        for name in [".debug_info", ".debug_line", ".debug_str", ".debug_abbrev"] {
            let mut stated = section(&image, name).unwrap().1.to_vec();
            // Only the location of `per_thread` is another.
            let mut site = None;
            let found = crate::debug::tls_locations::locations(&stated, 1, &mut |it| {
                site = Some(it);
                Ok(())
            });
            assert!(found.is_ok());
            if let Some(site) = site {
                assert_eq!(name, ".debug_info");
                stated[site.at..site.at + site.len()]
                    .copy_from_slice(&site.bytes(ThreadLocals::Elsewhere));
            }
            assert_eq!(section(&inner, name).unwrap().1, stated);
            assert!(section(&symfile, name).is_none());
        }
        let [before, after] = [&image, &symfile].map(|bytes| {
            let symbols = section(bytes, ".symtab").unwrap().1;
            symbols.chunks(SYMBOL_SIZE).map(get).collect::<Vec<Sym>>()
        });
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            let distance = if moves(before) { 0x1000_0000 } else { 0 };
            assert_eq!(after.st_value, before.st_value + distance, "{before:?}");
        }
        // Its value would be taken for an offset in another block.
        assert!(before.iter().any(|symbol| st_type(symbol.st_info) == STT_TLS));
        assert!(!after.iter().any(|symbol| st_type(symbol.st_info) == STT_TLS));
    }

    #[test]
    fn the_build_id_is_told_only_where_there_is_no_dwarf() {
        let scratch = Scratch::new("build-id");
        for (flag, told) in [("-g", false), ("-g0", true)] {
            let image = scratch.compiled(CODE, &[flag, "-Wl,--build-id"]);
            let symfile = shown(&template(&image).at(bias(0)).unwrap());
            let (_, contents) = section(&symfile, ".note.gnu.build-id").unwrap();
            assert_eq!(!contents.is_empty(), told);
        }
    }

    #[test]
    fn without_section_headers_code_and_frames_and_names_are_found() {
        let scratch = Scratch::new("no-headers");
        let image = scratch.compiled(CODE, &["-O2"]);
        let bytes = without_section_headers(&image);
        let symfile = shown(&template_by(&bytes, &image).unwrap().at(bias(0x1000)).unwrap());
        let (stated, made_up) = (section(&image, ".eh_frame"), section(&symfile, ".eh_frame"));
        let (stated, made_up) = (stated.unwrap(), made_up.unwrap());
        assert_eq!(made_up.0.sh_addr, stated.0.sh_addr + 0x1000);
        assert_eq!(made_up.1, stated.1);
        let symbols = section(&symfile, ".symtab").unwrap().1;
        let symbol: Sym = get(&symbols[SYMBOL_SIZE..2 * SYMBOL_SIZE]);
        let elf = goblin::elf::Elf::parse(&symfile).unwrap();
        assert_eq!(elf.strtab.get_at(symbol.st_name as usize), Some("visible"));
        let home = &elf.section_headers[usize::from(symbol.st_shndx)];
        assert_eq!(elf.shdr_strtab.get_at(home.sh_name), Some(".text"));
        assert!((home.sh_addr..home.sh_addr + home.sh_size).contains(&symbol.st_value));
    }

    #[test]
    fn dwarf_that_needs_a_second_file_is_kept_with_the_name_of_it() {
        let scratch = Scratch::new("altlink");
        let image = scratch.compiled(CODE, &["-g"]);
        let library = scratch.file("image.so", &image);
        let note = scratch.file("note", b"/nowhere\0");
        let mut add = std::ffi::OsString::from("--add-section=.gnu_debugaltlink=");
        add.push(note);
        let output = run("binutils", "objcopy", [Path::new(&add), &library]);
        assert!(output.status.success(), "{output:?}");
        let image = std::fs::read(library).unwrap();
        let inner = scratch.inner(&shown(&template(&image).at(bias(0)).unwrap())).unwrap();
        assert_eq!(section(&inner, ".gnu_debugaltlink").unwrap().1, b"/nowhere\0");
    }

    #[test]
    fn a_small_file_cannot_ask_for_much_memory() {
        let scratch = Scratch::new("overlap");
        let mut image = scratch.compiled(CODE, &["-g"]);
        let len = image.len();
        let header: Header = image.pread_with(0, LE).unwrap();
        for i in 1..usize::from(header.e_shnum) {
            let place = &mut image[header.e_shoff as usize + i * SECTION_SIZE..][..SECTION_SIZE];
            let mut section: SectionHeader = get(place);
            if section.sh_flags & u64::from(SHF_ALLOC) == 0 && section.sh_type == SHT_PROGBITS {
                (section.sh_offset, section.sh_size) = (0, len as u64);
                put(place, section);
            }
        }
        let symfile = shown(&template(&image).into_symfile(bias(0)).unwrap());
        // There are seven or more such sections.
        assert!(symfile.len() < 3 * len);
    }

    #[test]
    fn what_is_no_elf_file_of_ours_is_an_error() {
        let scratch = Scratch::new("error");
        let image = scratch.compiled(DATA, &[]);
        let memory = segments(&image);
        for (at, value) in [(0, 0), (EI_CLASS, 1), (EI_DATA, 2)] {
            let mut bytes = image.clone();
            bytes[at] = value;
            let source = Source {
                file: Some(&bytes),
                memory: &memory,
                segments: &memory.list,
                eh_frame: &|| None,
                tls_size: 0,
                dynamic_symbols: &|_| {},
                policy: Policy::default(),
            };
            let error = made(&source).err().unwrap();
            assert!(matches!(error, SymfileError::Malformed { at: found, .. }
                if found == FileOffset(at as u64)));
        }
    }

    /// The loader has checked the program headers, and nothing else; so all else is changed here.
    #[test]
    fn no_bytes_make_it_panic_or_grow() {
        let scratch = Scratch::new("mutation");
        let image = scratch.compiled(CODE, &["-g", "-O2"]);
        let header: Header = image.pread_with(0, LE).unwrap();
        let table = header.e_shoff as usize;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let values = [0, 1, 0x7f, 0x80, 0xff];
        for round in 0..3000 {
            let mut bytes = image.clone();
            for _ in 0..1 + random(8) {
                let at = match round % 4 {
                    0 => 40 + random(24),
                    1 | 2 => table + random(image.len() - table),
                    _ => 64 + random(image.len() - 64),
                };
                bytes[at] = match random(2) {
                    0 => values[random(values.len())],
                    _ => random(256) as u8,
                };
            }
            if round % 10 == 9 {
                bytes.truncate(64 + random(image.len() - 64));
            }
            if let Ok(template) = template_by(&bytes, &image) {
                let symfile = shown(&template.into_symfile(bias(usize::MAX - 5)).unwrap());
                assert!(symfile.len() < 8 * image.len(), "round {round}");
            }
        }
    }
}
