//! Which sections of an image a symfile has.
//!
//! Section headers are not needed to run an image, so they may be absent or false. They are trusted as a
//! whole or not at all. If they are, each section is *loaded* (and lies in a segment), *debug*, or left out.
//! If not, sections are made up from the segments, which the loader has validated. The contents of memory are
//! taken from where the segments state them, never from `sh_offset`.
//!
//! It never takes a section that makes gdb run a script, or look for a file that it does not need: see
//! [`is_dwarf`].
//!
//! Source: gABI chapter 4, "Sections" and "Special Sections".

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use goblin::elf::section_header::{
    SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, SHF_TLS, SHF_WRITE, SHN_ABS,
    SHN_UNDEF, SHT_DYNSYM, SHT_NOBITS, SHT_NOTE, SHT_NULL, SHT_PROGBITS, SHT_SYMTAB,
};
use goblin::elf::sym::{STT_TLS, st_type};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;

use super::compression;
use super::error::NotOpened;
use super::headers::{Headers, MAX_SECTIONS, Names, file_range, image_header, symbol_table};
use super::source::{DynamicSymbol, Source};
use crate::base::addr::Vaddr;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_copy, try_vec};
use crate::dwarf::budget::Budget;
use crate::dwarf::skeleton::SplitUnit;

/// The use of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A part of the image in memory. It is in the outer file, and without contents in the inner one.
    Loaded,
    /// DWARF. It is in the inner file.
    Debug,
    /// Neither file has it.
    LeftOut,
}

/// A section of the symfile.
pub struct Section<'a> {
    pub role: Role,
    pub header: SectionHeader,
    pub contents: Cow<'a, [u8]>,
}

/// The sections of a symfile, stated by the image or made up from its segments.
pub struct Sections<'a> {
    pub names: Names,
    pub list: Vec<Section<'a>>,
    /// The best symbol table that a section header states, and its strings.
    pub symbols: Option<(&'a [u8], &'a [u8])>,
    /// Whether that table has local symbols too.
    pub(super) has_all_symbols: bool,
    /// The image's own `.gnu_debugdata`.
    pub debugdata: Option<&'a [u8]>,
    /// Whether the indices in `list` are the image's, to which its symbols refer.
    stated: bool,
    /// The parts of `.debug_addr` that belong to split units, if the image has thread-local variables.
    pub(super) split: Vec<SplitUnit>,
    /// The offsets of thread-local variables by the image's symbol table, if that is no longer there.
    pub(super) noted_thread_locals: Option<Vec<u64>>,
    /// What may be spent on reading the debug sections.
    pub(super) budget: Budget,
}

impl<'a> Sections<'a> {
    /// From the section headers, or what is wrong with them.
    pub fn stated(
        header: &Header,
        file: &'a [u8],
        source: &Source<'a>,
        budget: Budget,
    ) -> Result<Sections<'a>, (&'static str, Budget)> {
        let Headers { list: headers, names } = match Headers::parse(header, file) {
            Ok(headers) => headers,
            Err(fault) => return Err((fault, budget)),
        };
        // One may be added.
        let room = headers.len().saturating_add(1);
        let Ok(list) = try_vec(room) else { return Err(("there is no memory for them", budget)) };
        let mut sections = Sections {
            list,
            symbols: symbol_table(SHT_SYMTAB, &headers, file)
                .or_else(|| symbol_table(SHT_DYNSYM, &headers, file)),
            has_all_symbols: symbol_table(SHT_SYMTAB, &headers, file).is_some(),
            debugdata: None,
            names,
            stated: true,
            split: vec![],
            noted_thread_locals: None,
            budget,
        };
        match sections.classify_all(&headers, file, source) {
            Ok(()) => {
                sections.find_contents(source);
                Ok(sections)
            }
            Err(fault) => Err((fault, sections.budget)),
        }
    }

    fn classify_all(
        &mut self,
        headers: &[SectionHeader],
        file: &'a [u8],
        source: &Source<'a>,
    ) -> Result<(), &'static str> {
        let (mut debug_len, mut has_code) = (0u64, false);
        for header in headers {
            let section = self.classify(header, file, source)?;
            if section.role == Role::Debug {
                debug_len = debug_len.saturating_add(section.header.sh_size);
            }
            has_code |= section.header.sh_flags & u64::from(SHF_EXECINSTR) != 0;
            self.list.push(section);
        }
        // Sections do not overlap in a file. If they did, a small file could ask for much memory.
        if debug_len > file.len() as u64 {
            return Err("debug sections overlap");
        }
        if !has_code && source.segments.iter().any(|segment| segment.executable) {
            return Err("they do not tell where the code is");
        }
        Ok(())
    }

    /// From the parts of a symfile.
    pub fn noted(
        names: Names,
        list: Vec<Section<'a>>,
        symbols: (&'a [u8], &'a [u8]),
        thread_locals: Option<Vec<u64>>,
        budget: Budget,
    ) -> Sections<'a> {
        Sections {
            names,
            list,
            symbols: Some(symbols),
            has_all_symbols: false,
            debugdata: None,
            stated: true,
            split: vec![],
            noted_thread_locals: thread_locals,
            budget,
        }
    }

    /// Decides on the section with this header.
    fn classify(
        &mut self,
        stated: &SectionHeader,
        file: &'a [u8],
        source: &Source<'a>,
    ) -> Result<Section<'a>, &'static str> {
        const OF_LOADED: u32 = SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR | SHF_TLS;
        const OF_DEBUG: u32 = SHF_COMPRESSED | SHF_MERGE | SHF_STRINGS;

        let mut section = Section {
            role: Role::LeftOut,
            header: SectionHeader::default(),
            contents: Cow::default(),
        };
        let in_file = stated.sh_type != SHT_NULL && stated.sh_type != SHT_NOBITS;
        if stated.sh_type == SHT_NULL {
            return Ok(section);
        }
        if stated.sh_name as usize >= self.names.0.len() {
            return Err("a name is not in the file");
        }
        let header = SectionHeader {
            sh_name: stated.sh_name,
            sh_addr: stated.sh_addr,
            sh_size: stated.sh_size,
            sh_addralign: match stated.sh_addralign {
                align if align.is_power_of_two() => align,
                _ => 1,
            },
            ..SectionHeader::default()
        };
        if stated.sh_flags & u64::from(SHF_ALLOC) != 0 {
            // `.tbss` takes no addresses, and a section of no bytes none either.
            let is_tbss = !in_file && stated.sh_flags & u64::from(SHF_TLS) != 0;
            let nowhere = is_tbss || stated.sh_size == 0;
            let inside =
                Vaddr(stated.sh_addr).range(stated.sh_size).is_some_and(|range| source.has(&range));
            if nowhere || inside {
                section.role = Role::Loaded;
                section.header = SectionHeader {
                    sh_type: SHT_NOBITS,
                    sh_flags: stated.sh_flags & u64::from(OF_LOADED),
                    ..header
                };
            }
            return Ok(section);
        }
        let is_debugdata = self.names.is(stated.sh_name, ".gnu_debugdata");
        if in_file && (is_debugdata || is_dwarf(&self.names, stated.sh_name)) {
            let contents = file_range(file, stated.sh_offset, stated.sh_size)
                .ok_or("a debug section lies outside the file")?;
            if is_debugdata {
                self.debugdata = Some(contents);
                return Ok(section);
            }
            section.role = Role::Debug;
            section.contents = contents.into();
            section.header = SectionHeader {
                sh_type: SHT_PROGBITS,
                sh_flags: stated.sh_flags & u64::from(OF_DEBUG),
                sh_addr: 0,
                sh_entsize: stated.sh_entsize,
                ..header
            };
        }
        Ok(section)
    }

    pub fn leave_dwarf(&mut self) {
        for section in &mut self.list {
            if section.role == Role::Debug {
                section.role = Role::LeftOut;
            }
        }
    }

    /// Gives contents to the loaded sections that need them.
    fn find_contents(&mut self, source: &Source<'a>) {
        let has_dwarf = self.has_dwarf();
        let hides_build_id = has_dwarf || !source.policy.publishes_build_id;
        let (mut eh_frame, mut build_id) = (false, hides_build_id);
        for section in &mut self.list {
            if section.role != Role::Loaded {
                continue;
            }
            let name = section.header.sh_name;
            // Only the first of a name, so that the same bytes are not copied a thousand times.
            let (done, sh_type) = if self.names.is(name, ".eh_frame") {
                // gdb does not take it from the inner file.
                (&mut eh_frame, SHT_PROGBITS)
            } else if self.names.is(name, ".note.gnu.build-id") {
                // With it gdb finds the DWARF that a distribution split off, and slides that too.
                // It must not be visible beside DWARF: gdb would search in vain, and may ask a server.
                (&mut build_id, SHT_NOTE)
            } else {
                continue;
            };
            if std::mem::replace(done, true) {
                continue;
            }
            let range = Vaddr(section.header.sh_addr).range(section.header.sh_size);
            if let Some(contents) = range.and_then(|range| source.contents(&range)) {
                section.contents = contents.into();
                section.header.sh_type = sh_type;
            }
        }
    }

    /// From the segments, as if each were a section; `.eh_frame` is cut out of the one it is in.
    pub fn made_up(source: &Source<'a>, budget: Budget) -> Result<Sections<'a>, OutOfMemory> {
        let mut names = Names(vec![0]);
        let mut name = |name| names.add(name);
        let (text, data) = (name(".text")?, name(".data")?);
        let (rodata, eh_frame_name) = (name(".rodata")?, name(".eh_frame")?);
        let eh_frame = (source.eh_frame)().and_then(|range| {
            let contents = source.contents(&range)?;
            Some((range, contents))
        });
        let mut list = vec![Section {
            role: Role::LeftOut,
            header: SectionHeader::default(),
            contents: Cow::default(),
        }];
        let mut push = |name, flags, addresses: Range<Vaddr>, contents: &'a [u8]| {
            let Some(size) = addresses.end.checked_sub(addresses.start) else {
                return Ok(());
            };
            if size == 0 {
                return Ok(());
            }
            list.try_push(Section {
                role: Role::Loaded,
                header: SectionHeader {
                    sh_name: name,
                    sh_type: if contents.is_empty() { SHT_NOBITS } else { SHT_PROGBITS },
                    sh_flags: u64::from(SHF_ALLOC | flags),
                    sh_addr: addresses.start.0,
                    sh_size: size,
                    sh_addralign: 1,
                    ..SectionHeader::default()
                },
                contents: contents.into(),
            })
        };
        for segment in source.segments {
            let (name, flags) = match (segment.executable, segment.writable) {
                (true, false) => (text, SHF_EXECINSTR),
                (true, true) => (text, SHF_EXECINSTR | SHF_WRITE),
                (false, true) => (data, SHF_WRITE),
                (false, false) => (rodata, 0),
            };
            let addresses = segment.addresses.clone();
            match &eh_frame {
                Some((range, contents)) if addresses.contains(&range.start) => {
                    push(name, flags, addresses.start..range.start, &[])?;
                    push(eh_frame_name, 0, range.clone(), contents)?;
                    push(name, flags, range.end..addresses.end, &[])?;
                }
                _ => push(name, flags, addresses, &[])?,
            }
        }
        // The number of headers is a `u16`. No compiler makes an image with so many segments.
        list.truncate(usize::from(MAX_SECTIONS));
        Ok(Sections {
            names,
            list,
            symbols: None,
            has_all_symbols: false,
            debugdata: None,
            stated: false,
            split: vec![],
            noted_thread_locals: None,
            budget,
        })
    }

    /// Ensures that a section is called `.text`. Without one in both files, gdb (8.1 to 18.1) stops with an
    /// internal error as soon as it needs the distance by which the DWARF moved.
    pub fn provide_text(&mut self) -> Result<(), OutOfMemory> {
        let mut loaded = (self.list.iter_mut()).filter(|section| section.role == Role::Loaded);
        if loaded.any(|section| self.names.is(section.header.sh_name, ".text")) {
            return Ok(());
        }
        let name = self.names.add(".text")?;
        let code = self
            .list
            .iter_mut()
            .find(|section| section.header.sh_flags & u64::from(SHF_EXECINSTR) != 0);
        match code {
            Some(section) => section.header.sh_name = name,
            // No code at all: an empty section, where the other sections are.
            None => {
                let loaded = (self.list.iter()).find(|section| section.role == Role::Loaded);
                let header = SectionHeader {
                    sh_name: name,
                    sh_type: SHT_NOBITS,
                    sh_flags: u64::from(SHF_ALLOC | SHF_EXECINSTR),
                    sh_addr: loaded.map_or(0, |section| section.header.sh_addr),
                    sh_addralign: 1,
                    ..SectionHeader::default()
                };
                let contents = Cow::default();
                self.list.try_push(Section { role: Role::Loaded, header, contents })?;
            }
        }
        Ok(())
    }

    pub(super) fn loaded(&self) -> impl Iterator<Item = &Section<'a>> {
        self.list.iter().filter(|section| section.role == Role::Loaded)
    }

    /// Whether this is a debug section of this name, or of its name when compressed.
    pub(super) fn is_debug(&self, at: usize, name: &str) -> bool {
        self.list.get(at).is_some_and(|section| {
            section.role == Role::Debug
                && self.names.is_perhaps_compressed(section.header.sh_name, name)
        })
    }

    /// Where the first debug section of this name is.
    pub(super) fn debug(&self, name: &str) -> Option<usize> {
        self.all_debug(name).next()
    }

    pub(super) fn all_debug(&self, name: &str) -> impl Iterator<Item = usize> {
        (0..self.list.len()).filter(move |&at| self.is_debug(at, name))
    }

    /// The contents of a debug section; owned, if it is compressed.
    pub(super) fn unpacked(&self, at: usize) -> Result<Cow<'a, [u8]>, NotOpened> {
        let Some(section) = self.list.get(at) else { return Ok(Cow::default()) };
        let name = self.names.get(section.header.sh_name);
        match compression::section(&name, &section.header, &section.contents, &self.budget) {
            Some(Ok(contents)) => Ok(Cow::Owned(contents)),
            Some(Err(error)) => Err(NotOpened::Compressed { section: name, error }),
            None => match &section.contents {
                Cow::Borrowed(contents) => Ok(Cow::Borrowed(contents)),
                Cow::Owned(contents) => Ok(Cow::Owned(try_copy(contents)?)),
            },
        }
    }

    /// Replaces the contents of a debug section, not compressed.
    pub(super) fn replace(
        &mut self,
        at: usize,
        name: &str,
        contents: Vec<u8>,
    ) -> Result<(), OutOfMemory> {
        let sh_name = self.names.add(name)?;
        if let Some(section) = self.list.get_mut(at) {
            section.header.sh_name = sh_name;
            section.header.sh_flags &= !u64::from(SHF_COMPRESSED);
            section.contents = contents.into();
        }
        Ok(())
    }

    pub fn has_dwarf(&self) -> bool {
        self.list.iter().any(|section| section.role == Role::Debug)
    }

    /// The index in the symfile of the section that `symbol` is defined in, if it is defined.
    pub fn index_of(&self, symbol: &DynamicSymbol<'_>) -> Option<u16> {
        let stated = u32::from(symbol.st_shndx);
        if stated == SHN_UNDEF || st_type(symbol.st_info) == STT_TLS {
            return None;
        }
        if self.stated || stated == SHN_ABS {
            return Some(symbol.st_shndx);
        }
        let starts_before = |section: &Section<'_>| section.header.sh_addr <= symbol.st_value;
        let index = self.list.partition_point(starts_before).checked_sub(1)?;
        let header = self.list.get(index)?.header;
        // Up to and with the end: `_end` and its like are there.
        let inside = symbol.st_value.checked_sub(header.sh_addr)? <= header.sh_size;
        inside.then_some(u16::try_from(index).ok()?)
    }
}

/// Names a file with DWARF that several images share (`dwz -m`). gdb finds it by that path, or by the
/// build-id that is in this section too. If it does not find it, it says so and reads no DWARF: there are
/// names and backtraces, as without DWARF.
pub(super) const SHARED: &str = ".gnu_debugaltlink";

/// Whether gdb reads DWARF from a section of this name that is not loaded.
///
/// `.debug_gdb_scripts` is not: it has gdb run scripts. Nor is `.gnu_debuglink`, which names a
/// file that gdb looks for beside the image, and an image that came from memory is beside
/// whatever gdb's working directory is.
fn is_dwarf(names: &Names, name: u32) -> bool {
    (names.is_debug(name) && !names.is(name, ".debug_gdb_scripts"))
        || names.is(name, ".gdb_index")
        || names.is(name, SHARED)
}

/// Whether a file has DWARF, as [`is_dwarf`] knows it.
pub fn has_dwarf(file: &[u8]) -> bool {
    let Ok(header) = image_header(file) else { return false };
    let is_dwarf = |names: &Names, header: &SectionHeader| {
        let is_loaded = header.sh_flags & u64::from(SHF_ALLOC) != 0;
        !is_loaded && header.sh_type != SHT_NOBITS && is_dwarf(names, header.sh_name)
    };
    Headers::parse(&header, file)
        .is_ok_and(|headers| headers.list.iter().any(|it| is_dwarf(&headers.names, it)))
}
