//! What the symfiles of all instances of an image have in common, made once.
//!
//! It reads the image ([`super::sections`]), builds the outer file ([`super::outer`]) around the inner one
//! ([`super::inner`]), and keeps the result at the addresses that the image states. An instance gets a copy, or
//! a view that shares the pages that do not depend on where it lies. Nothing is logged here:
//! [`SymfileTemplate::fault`] and [`SymfileTemplate::distrusted`] say what debuggers will not see.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use goblin::elf::header::{
    EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, ELFMAG, EV_CURRENT,
};
use goblin::elf::section_header::{SHF_ALLOC, SHT_SYMTAB};
use goblin::elf64::header::Header;

use super::elf_writer::Contents;
use super::error::{NotOpened, SymfileError};
use super::headers::{HEADER_SIZE, Names, image_header};
use super::inner::{self, Inner};
use super::instance::{Instance, InstanceMemory, Symfile};
use super::layout::{DwarfState, Layout, move_section, move_symbols};
use super::outer::{AddedNames, Outer};
use super::parts::Parts;
use super::sections::{Role, Section, Sections};
use super::shared_portable::PortableCell;
use super::source::{Policy, Source};
use super::storage::Storage;
use super::symbols::Symbols;
use super::xz::StoredXz;
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::fallible::{TryGrow, try_collect, try_copy, try_vec};
use crate::base::filler::Filler;
use crate::builder::source::ReadAt;
use crate::dwarf::budget::Allowance;
use crate::dwarf::tls_locations::TlsLocation;

/// Whether debug sections are made ready to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dwarf {
    /// They are: [`Symfile::show_dwarf`] can show them.
    Opened,
    /// They are kept as they are, for [`SymfileTemplate::opened`].
    Kept,
}

/// For how many instances of an image a symfile is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instances {
    /// For one: it takes over the template's memory.
    One,
    /// For several: they share pages, if the symfile is large enough.
    Many,
}

/// From this size on, in bytes, instances share pages. Two system calls and two mappings for each
/// instance cost as much as copying this.
pub(super) const MIN_SHARED: usize = 1 << 16;

/// The symfile of an image, at the addresses that the image states.
pub struct SymfileTemplate<S: Storage> {
    memory: TemplateMemory<S>,
    layout: Arc<Layout>,
    /// Where instances share the other form, if they share this one.
    shared_portable: Option<Arc<PortableCell<S>>>,
    /// Why debug sections were left out.
    fault: Option<NotOpened>,
    /// What is wrong with the image's section headers.
    distrusted: Option<&'static str>,
}

/// The bytes of a template.
enum TemplateMemory<S: Storage> {
    Own(S::Own),
    Shared(S::Shared),
}

/// What [`decide`] finds.
struct Decision {
    shown: DwarfState,
    /// Why debug sections were left out.
    fault: Option<NotOpened>,
    /// Of each debug section, the locations of thread-local variables.
    thread_locals: Vec<Vec<TlsLocation>>,
}

impl<S: Storage> SymfileTemplate<S> {
    /// Makes the template of an image. Copies its debug sections once.
    pub fn new(
        source: &Source<'_>,
        instances: Instances,
        allowance: Allowance,
        dwarf: Dwarf,
    ) -> Result<SymfileTemplate<S>, SymfileError> {
        let budget = allowance.budget();
        let mut distrusted = None;
        let (header, sections) = match source.file {
            Some(file) => {
                let header = image_header(file)?;
                let sections = match Sections::stated(&header, file, source, budget) {
                    Ok(sections) => sections,
                    Err((fault, budget)) => {
                        distrusted = Some(fault);
                        Sections::made_up(source, budget)?
                    }
                };
                (header, sections)
            }
            None => (header_of_memory(source.e_machine), Sections::made_up(source, budget)?),
        };
        let made = Self::from_sections(&header, sections, source, instances, allowance, dwarf)?;
        Ok(SymfileTemplate { distrusted, ..made })
    }

    /// A template from the symfile of an instance that kept its debug sections as they were. In this one they
    /// are ready to be shown.
    pub fn opened(
        parts: Parts<S>,
        instance: &Instance,
        policy: Policy,
    ) -> Result<SymfileTemplate<S>, SymfileError> {
        let Parts { layout, header, outer, names, debug, .. } = parts;
        let malformed = || layout.malformed();
        let DwarfState::Kept { sections: count, thread_locals } = &layout.dwarf else {
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
            e_machine: header.e_machine,
        };
        Self::from_sections(
            &header,
            sections,
            &source,
            Instances::One,
            layout.allowance,
            Dwarf::Opened,
        )
    }

    /// Why the image's debug sections cannot be shown.
    pub fn fault(&self) -> Option<&NotOpened> {
        self.fault.as_ref()
    }

    /// Why the image's section headers were not used, if it has a file.
    pub fn distrusted(&self) -> Option<&'static str> {
        self.distrusted
    }

    fn from_sections(
        header: &Header,
        mut sections: Sections<'_>,
        source: &Source<'_>,
        instances: Instances,
        allowance: Allowance,
        dwarf: Dwarf,
    ) -> Result<SymfileTemplate<S>, SymfileError> {
        let too_large = || SymfileError::TooLarge { len: source.len() };
        sections.provide_text()?;
        let Decision { shown, fault, thread_locals } = decide(&mut sections, source, dwarf);
        let symbols = match sections.symbols {
            Some((entries, strings)) => Symbols::stated(entries, strings)?,
            None => Symbols::from_dynamic(source, &sections)?,
        };
        let added = AddedNames::add_to(&mut sections.names)?;
        let beginning = match sections.has_dwarf() {
            true => Some(inner::beginning(header, &sections)?.ok_or_else(too_large)?),
            false => None,
        };
        let debugdata = match &beginning {
            Some((head, contents)) => {
                let pieces = [&head[..]].into_iter().chain(contents.iter().copied());
                Contents::Xz(StoredXz::new(try_collect(pieces)?).ok_or_else(too_large)?)
            }
            None => Contents::Bytes(sections.debugdata.unwrap_or_default()),
        };
        let mut outer = Outer::new(header, &sections, &symbols, &added, debugdata)?;
        let own_len = outer.elf.headers_len().saturating_add(symbols.entries.len());
        let (len, align) =
            lay_out(&mut outer, own_len, instances, S::page_size()).ok_or_else(too_large)?;
        let layout = Layout {
            sections: HEADER_SIZE..outer.elf.headers_len(),
            symbols: outer.place(outer.symtab),
            names: outer.place(outer.shstrtab),
            inner: match outer.elf.sections.last() {
                Some((header, Contents::Xz(xz))) => {
                    Some(Inner::new(&sections, xz, header.sh_offset as usize, thread_locals)?)
                }
                _ => None,
            },
            len,
            segments: try_collect(source.segments.iter().cloned())?,
            tls_size: source.tls_size,
            allowance,
            dwarf: shown,
        };
        let memory = TemplateMemory::filled(&outer, &layout, align, symbols.strings.len())?
            .ok_or_else(too_large)?;
        let shares = matches!(memory, TemplateMemory::Shared(_)) && !layout.is_to_be_opened();
        let shared_portable = shares.then(Arc::default);
        let layout = Arc::new(layout);
        Ok(SymfileTemplate { memory, layout, shared_portable, fault, distrusted: None })
    }

    /// The symfile of this instance.
    pub fn at(&self, instance: &Instance) -> Result<Symfile<S>, SymfileError> {
        let memory = match &self.memory {
            TemplateMemory::Own(bytes) => InstanceMemory::Heap(try_copy(bytes)?),
            TemplateMemory::Shared(shared) => match S::view(shared) {
                Ok(view) => InstanceMemory::View(view),
                // There are too many mappings. A copy is the same, and larger.
                Err(_) => {
                    let bytes = shared.get(..self.layout.len).unwrap_or_default();
                    InstanceMemory::Heap(try_copy(bytes)?)
                }
            },
        };
        Symfile::new(memory, self.layout.clone(), self.shared_portable.clone(), instance)
    }

    /// As [`SymfileTemplate::at`], for the only instance: copies nothing.
    pub fn into_symfile(self, instance: &Instance) -> Result<Symfile<S>, SymfileError> {
        match self.memory {
            TemplateMemory::Own(bytes) => {
                Symfile::new(InstanceMemory::Own(bytes), self.layout, None, instance)
            }
            TemplateMemory::Shared(_) => self.at(instance),
        }
    }
}

/// What becomes of the debug sections.
fn decide(sections: &mut Sections<'_>, source: &Source<'_>, dwarf: Dwarf) -> Decision {
    if dwarf == Dwarf::Kept && sections.has_dwarf() {
        let shown = DwarfState::Kept {
            sections: sections.list.len(),
            thread_locals: sections.note_thread_locals(source.tls_size),
        };
        return Decision { shown, fault: None, thread_locals: Vec::new() };
    }
    let opened = sections
        .open(source.tls_size, source.policy)
        .and_then(|()| sections.all_thread_locals(source.tls_size));
    match opened {
        Ok(thread_locals) => Decision { shown: DwarfState::Opened, fault: None, thread_locals },
        Err(error) => {
            sections.leave_dwarf();
            Decision { shown: DwarfState::Refused, fault: Some(error), thread_locals: Vec::new() }
        }
    }
}

/// Lays the file out. What depends on the instance, `own_len` bytes, comes first. Returns the length of the
/// file, and the alignment of what follows: the size of a page where that is worth sharing.
fn lay_out(
    outer: &mut Outer<'_>,
    own_len: usize,
    instances: Instances,
    page: usize,
) -> Option<(usize, usize)> {
    let len = outer.elf.lay_out(outer.symtab, 1)?;
    if instances == Instances::Many && len.saturating_sub(own_len) >= MIN_SHARED {
        return Some((outer.elf.lay_out(outer.symtab, page)?, page));
    }
    Some((len, 1))
}

impl<S: Storage> TemplateMemory<S> {
    /// The file, which was laid out with this alignment; `None` if it would be too large.
    fn filled(
        outer: &Outer<'_>,
        layout: &Layout,
        align: usize,
        strings_len: usize,
    ) -> Result<Option<TemplateMemory<S>>, SymfileError> {
        let page = S::page_size();
        let fill = |out: &mut Filler<'_>| outer.elf.write(outer.symtab, align, out);
        let amend = |memory: &mut [u8]| {
            let entries = memory.get_mut(layout.symbols.clone()).unwrap_or_default();
            Symbols::amend(entries, strings_len);
        };
        let own = if align == page { layout.own_pages(page)? } else { None };
        Ok(Some(match own {
            Some(own) => {
                let Some(padded) = layout.len.checked_next_multiple_of(page) else {
                    return Ok(None);
                };
                let shared = S::shared(padded, own, |memory| {
                    fill(&mut Filler::new(memory));
                    amend(memory);
                })?;
                TemplateMemory::Shared(shared)
            }
            None => {
                let mut memory = S::own(layout.len, fill)?;
                amend(&mut memory);
                TemplateMemory::Own(memory)
            }
        }))
    }
}

/// An image of which no memory is known.
struct NoMemory;

impl ReadAt for NoMemory {
    fn read(&self, _: Range<Vaddr>) -> Option<&[u8]> {
        None
    }

    fn read_to_end(&self, _: Vaddr) -> Option<&[u8]> {
        None
    }
}

/// The header for an image without a file.
fn header_of_memory(e_machine: u16) -> Header {
    let mut header = Header { e_machine, e_version: 1, ..Header::default() };
    let ident = [(EI_CLASS, ELFCLASS64), (EI_DATA, ELFDATA2LSB), (EI_VERSION, EV_CURRENT)];
    for (at, &byte) in ELFMAG.iter().enumerate().chain(ident.iter().map(|(at, byte)| (*at, byte))) {
        if let Some(place) = header.e_ident.get_mut(at) {
            *place = byte;
        }
    }
    header
}
