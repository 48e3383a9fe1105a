//! Which sections a symfile is to have, read from an image that may lie.
//!
//! Section headers are not needed to run an image, so they may be absent, or false. They are
//! believed as a whole or not at all: if they are, each is *loaded* (and lies in a segment),
//! *debug*, or left out; if not, sections are made up from the segments, which the loader has
//! checked. What is in memory is taken from where the segments say, never from `sh_offset`.
//!
//! No section is taken that would have gdb run a script, or look for a file that it needs not: see
//! [`is_dwarf`].
//!
//! Source: gABI chapter 4, "Sections" and "Special Sections".

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use goblin::elf::section_header::{
    SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, SHF_TLS, SHF_WRITE, SHN_ABS,
    SHN_UNDEF, SHT_DYNSYM, SHT_NOBITS, SHT_NOTE, SHT_NULL, SHT_PROGBITS, SHT_STRTAB, SHT_SYMTAB,
};
use goblin::elf::sym::{STT_TLS, st_type};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;

use super::budget::Budget;
use super::elf::{SECTION_SIZE, SYMBOL_SIZE, get, image_header};
use super::inflate::{self};
use super::not_opened::NotOpened;
use super::skeleton::{Abbreviations, SplitSections, SplitUnit};
use super::tls_locations::{self, Owner, TlsLocation};
use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_copy, try_insert, try_vec};
use crate::elf::read::ReadAt;

/// The most section headers an image may have. Far fewer than where ELF begins to count them
/// elsewhere (`SHN_LORESERVE`), so that ours can follow.
const MAX_SECTIONS: u16 = 0xf000;

/// The longest name that a debug section may have, in bytes: thousands may have the same.
const LONGEST_NAME: usize = 64;

/// What a symfile is made from.
pub(crate) struct Source<'a> {
    /// The file that has its section headers and debug sections, if there is one at hand: the
    /// image as received, or what was split off it.
    pub file: Option<&'a [u8]>,
    /// The image's memory, as the file states it or as it is in place.
    pub memory: &'a dyn ReadAt,
    /// Its `PT_LOAD`s, ascending.
    pub segments: &'a [SourceSegment],
    /// Its `.eh_frame`, as [`EhFrame`](crate::elf::eh_frame::EhFrame) finds it. It is called only where no
    /// section header tells, since the way to the end leads through all of it.
    pub eh_frame: &'a dyn Fn() -> Option<Range<Vaddr>>,
    /// The size of a thread's block of its thread-local variables; 0 if it has none.
    pub tls_size: u64,
    /// Shows each symbol of the dynamic symbol table to the function it is given. It is called
    /// only where no section header tells of a symbol table.
    pub dynamic_symbols: &'a DynamicSymbols<'a>,
    pub policy: Policy,
}

/// What the process and its operator say about how a symfile is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    /// Debuggers get the build-id of an image that has no debug information, and so may find its debug
    /// file by themselves.
    pub is_build_id_told: bool,
    /// A debugger is attached.
    pub debugger_listens: bool,
}

/// Shows each symbol of a table to a function.
pub(crate) type DynamicSymbols<'a> = dyn Fn(&mut dyn FnMut(DynamicSymbol<'_>)) + 'a;

/// A `PT_LOAD` as the image states it; nothing is rounded to pages.
#[derive(Clone, Debug)]
pub(crate) struct SourceSegment {
    /// `p_vaddr` and `p_memsz`.
    pub addresses: Range<Vaddr>,
    /// `PF_X`.
    pub executable: bool,
    /// `PF_W`.
    pub writable: bool,
}

/// A symbol of the dynamic symbol table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DynamicSymbol<'a> {
    pub name: &'a [u8],
    pub st_value: u64,
    pub st_size: u64,
    pub st_info: u8,
    pub st_other: u8,
    pub st_shndx: u16,
}

/// What becomes of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// A part of the image in memory: in the outer file, and without contents in the inner one.
    Loaded,
    /// DWARF: in the inner file.
    Debug,
    /// In neither.
    LeftOut,
}

/// A section as the symfile will have it.
pub(super) struct Section<'a> {
    pub(super) role: Role,
    pub(super) header: SectionHeader,
    pub(super) contents: Cow<'a, [u8]>,
}

/// What to make a symfile from: sections, stated by the image or made up from its segments.
pub(super) struct Sections<'a> {
    pub(super) names: Names,
    pub(super) list: Vec<Section<'a>>,
    /// The best symbol table that a section header tells of, and its strings.
    pub(super) symbols: Option<(&'a [u8], &'a [u8])>,
    /// Whether that has local symbols too.
    has_all_symbols: bool,
    /// The image's own `.gnu_debugdata`.
    pub(super) debugdata: Option<&'a [u8]>,
    /// Whether `list` has the image's numbering, which is that of its symbols.
    stated: bool,
    /// What is known of the parts of `.debug_addr` of units whose entries are in another file, if
    /// that matters.
    split: Vec<SplitUnit>,
    /// The offsets of thread-local variables by the symbol table, where that is gone.
    noted_thread_locals: Option<Vec<u64>>,
    /// What may be spent on reading the debug sections.
    budget: Budget,
}

/// The contents of `.shstrtab`, in both files: the image's own, so that its names need no copying
/// one by one (thousands may share one long text), then what is added.
pub(super) struct Names(pub(super) Vec<u8>);

impl Names {
    pub(super) fn add(&mut self, name: &str) -> Result<u32, Error> {
        let at = self.0.len();
        self.0.try_room(name.len().saturating_add(1))?;
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        Ok(at as u32)
    }

    /// One name.
    pub(super) fn get(&self, name: u32) -> String {
        let text = self.0.get(name as usize..).unwrap_or_default();
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn starts_with(&self, name: u32, prefix: &str) -> bool {
        let name = self.0.get(name as usize..).unwrap_or_default();
        name.starts_with(prefix.as_bytes())
    }

    /// Whether it is one of those that debug sections have.
    pub(super) fn is_debug(&self, name: u32) -> bool {
        let is_short = || {
            let rest = self.0.get(name as usize..).unwrap_or_default();
            rest.iter().take(LONGEST_NAME).any(|&byte| byte == 0)
        };
        (self.starts_with(name, ".debug_") || self.starts_with(name, ".zdebug_")) && is_short()
    }

    pub(super) fn is(&self, name: u32, whole: &str) -> bool {
        let rest = self.0.get(name as usize..).unwrap_or_default();
        rest.strip_prefix(whole.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Whether it is this name of a debug section, or what such a section is called when it is compressed:
    /// `.zdebug_info` for `.debug_info`.
    fn is_perhaps_compressed(&self, name: u32, whole: &str) -> bool {
        let compressed =
            |rest| self.starts_with(name, ".z") && self.is(name.saturating_add(2), rest);
        self.is(name, whole) || whole.strip_prefix('.').is_some_and(compressed)
    }
}

/// The section headers of a file, and the names that they refer to.
pub(super) struct Headers {
    pub(super) list: Vec<SectionHeader>,
    pub(super) names: Names,
}

impl Headers {
    /// Those of `file`, which has this header; or what is wrong with them.
    pub(super) fn parse(header: &Header, file: &[u8]) -> Result<Headers, &'static str> {
        let count = header.e_shnum;
        if header.e_shoff == 0 || count == 0 {
            return Err("there are none");
        }
        if usize::from(header.e_shentsize) != SECTION_SIZE || count > MAX_SECTIONS {
            return Err("their size or number is none that we know");
        }
        let len = u64::from(count).saturating_mul(SECTION_SIZE as u64);
        let table = file_range(file, header.e_shoff, len).ok_or("they lie outside the file")?;
        let no_memory = |_| "there is no memory for them";
        let mut list: Vec<SectionHeader> = try_vec(count.into()).map_err(no_memory)?;
        list.extend(table.chunks_exact(SECTION_SIZE).map(get::<SectionHeader>));
        let names = list
            .get(usize::from(header.e_shstrndx))
            .filter(|names| names.sh_type == SHT_STRTAB)
            .and_then(|names| file_range(file, names.sh_offset, names.sh_size))
            .filter(|names| u32::try_from(names.len()).is_ok_and(|len| len < u32::MAX / 2))
            .ok_or("their names are not in the file")?;
        let mut names = Names(try_copy(names).map_err(no_memory)?);
        names.0.try_push(0).map_err(no_memory)?;
        Ok(Headers { list, names })
    }
}

impl<'a> Sections<'a> {
    /// As the section headers say, or what is wrong with those.
    pub(super) fn stated(
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

    /// Those that a symfile has noted.
    pub(super) fn noted(
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

    /// What becomes of the section with this header.
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
            // The room of `.tbss` is nowhere; its address is no promise. Nor is one of no bytes.
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

    pub(super) fn leave_dwarf(&mut self) {
        for section in &mut self.list {
            if section.role == Role::Debug {
                section.role = Role::LeftOut;
            }
        }
    }

    /// Gives contents to the loaded sections that must have some.
    fn find_contents(&mut self, source: &Source<'a>) {
        let has_dwarf = self.has_dwarf();
        let hides_build_id = has_dwarf || !source.policy.is_build_id_told;
        let (mut eh_frame, mut build_id) = (false, hides_build_id);
        for section in &mut self.list {
            if section.role != Role::Loaded {
                continue;
            }
            let name = section.header.sh_name;
            // The first of a name only, lest the same bytes be copied a thousand times.
            let (done, sh_type) = if self.names.is(name, ".eh_frame") {
                // gdb does not take it from the inner file.
                (&mut eh_frame, SHT_PROGBITS)
            } else if self.names.is(name, ".note.gnu.build-id") {
                // With it gdb finds the DWARF that a distribution split off, and slides that too.
                // It must not be seen where there is DWARF: then gdb looks in vain, and may ask
                // a server.
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
    pub(super) fn made_up(source: &Source<'a>, budget: Budget) -> Result<Sections<'a>, Error> {
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
        // The headers' number is a `u16`; such an image has nothing that is worth a look.
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

    /// Sees to it that some section is called `.text`: without one in both files, gdb (8.1 to
    /// 18.1) stops with an internal error as soon as it needs to know how far the DWARF moved.
    pub(super) fn provide_text(&mut self) -> Result<(), Error> {
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

    /// Sees to it that debuggers can be shown the debug sections; or why they cannot. Then what they
    /// are shown would be wrong, or cost too much.
    pub(super) fn open(&mut self, tls_size: u64, policy: Policy) -> Result<(), NotOpened> {
        // A skeleton has its addresses in `.debug_addr`.
        let at = self.debug(".debug_abbrev").filter(|_| self.debug(".debug_addr").is_some());
        if let Some(at) = at {
            match self.unpacked(at) {
                Ok(contents) => self.open_split_units(at, contents, tls_size)?,
                // Nobody can read it.
                Err(error) if tls_size == 0 && !error.is_for_want_of_means() => {}
                Err(error) => return Err(error),
            }
        }
        self.open_thread_locals(tls_size, policy)
    }

    /// Has gdb show lines of split units whose file it does not find, see [`super::skeleton`], and finds
    /// what of their addresses may be offsets of thread-local variables. `contents` are those of
    /// `.debug_abbrev`, which is the section at `at`.
    fn open_split_units(
        &mut self,
        at: usize,
        contents: Cow<'a, [u8]>,
        tls_size: u64,
    ) -> Result<(), NotOpened> {
        if tls_size == 0 && !contents.contains(&Abbreviations::SKELETON) {
            return Ok(());
        }
        let abbreviations = Abbreviations::read(&contents, &self.budget)?;
        if tls_size != 0 && abbreviations.has_split() {
            self.find_split_units(&abbreviations, &contents, tls_size)?;
        }
        if abbreviations.has_skeletons() {
            let mut contents = match contents {
                Cow::Borrowed(contents) => try_copy(contents)?,
                Cow::Owned(contents) => contents,
            };
            abbreviations.make_ordinary(&mut contents);
            self.replace(at, ".debug_abbrev", contents)?;
        }
        Ok(())
    }

    /// Sees to it that what tells where the thread-local variables of an image are can be found and
    /// changed: unpacks it. If it cannot be found, a debugger would show wrong memory.
    fn open_thread_locals(&mut self, tls_size: u64, policy: Policy) -> Result<(), NotOpened> {
        // Without a block there is nothing to be told but variables that were thrown away. To unpack
        // all for these would take ten times as long as the rest of a load; but nothing beside what a
        // debugger takes to read it. What cannot be unpacked here is not read there.
        if tls_size == 0 {
            if policy.debugger_listens {
                let open = |name| self.open_where_changed(name, tls_size);
                let _ = TELL_PLACES.into_iter().try_for_each(open);
            }
            return Ok(());
        }
        TELL_PLACES.into_iter().try_for_each(|name| self.open_where_changed(name, tls_size))?;
        if self.debug(SHARED).is_some() && !self.has_all_thread_locals(tls_size)? {
            let what = "the file named in .gnu_debugaltlink may have thread-local variables";
            return Err(NotOpened::Unknown(what));
        }
        Ok(())
    }

    /// Unpacks all debug sections of this name that tell where thread-local variables are, if they
    /// are compressed.
    fn open_where_changed(&mut self, wanted: &str, tls_size: u64) -> Result<(), NotOpened> {
        for at in 0..self.list.len() {
            if !self.is_debug(at, wanted) {
                continue;
            }
            if let Cow::Owned(contents) = self.unpacked(at)?
                && !self.sites(wanted, &contents, tls_size)?.is_empty()
            {
                self.replace(at, wanted, contents)?;
            }
        }
        Ok(())
    }

    /// Whether the DWARF here tells of all thread-local variables that the symbols tell of.
    fn has_all_thread_locals(&self, tls_size: u64) -> Result<bool, NotOpened> {
        let Some(stated) = self.stated_thread_locals()? else { return Ok(false) };
        let mut told = HashSet::new();
        for section in self.list.iter().filter(|section| section.role == Role::Debug) {
            for site in self.thread_locals(section, tls_size)? {
                try_insert(&mut told, site.offset)?;
            }
        }
        Ok(stated.iter().all(|offset| told.contains(offset)))
    }

    /// The offsets of all thread-local variables by the symbol table, if that has all.
    fn stated_thread_locals(&self) -> Result<Option<Cow<'_, [u64]>>, NotOpened> {
        if let Some(noted) = &self.noted_thread_locals {
            return Ok(Some(noted.into()));
        }
        let Some((symbols, _)) = self.symbols.filter(|_| self.has_all_symbols) else {
            return Ok(None);
        };
        let mut offsets = Vec::new();
        for symbol in symbols.chunks_exact(SYMBOL_SIZE).map(get::<Sym>) {
            if st_type(symbol.st_info) == STT_TLS {
                offsets.try_push(symbol.st_value)?;
            }
        }
        Ok(Some(offsets.into()))
    }

    /// What [`Sections::open`] needs to know later of the symbol table, which will be another then.
    pub(super) fn note_thread_locals(&self, tls_size: u64) -> Option<Vec<u64>> {
        self.debug(SHARED).filter(|_| tls_size != 0)?;
        match self.stated_thread_locals().ok()?? {
            Cow::Owned(offsets) => Some(offsets),
            Cow::Borrowed(offsets) => try_copy(offsets).ok(),
        }
    }

    /// Finds which part of `.debug_addr` may have offsets of thread-local variables.
    fn find_split_units(
        &mut self,
        all: &Abbreviations,
        abbreviations: &[u8],
        tls_size: u64,
    ) -> Result<(), NotOpened> {
        let [Some(entries), Some(addresses)] =
            [".debug_info", ".debug_addr"].map(|name| self.debug(name))
        else {
            return Ok(());
        };
        let mut names = [".debug_abbrev", ".debug_info", ".debug_addr"].into_iter();
        if names.any(|name| self.all_debug(name).nth(1).is_some()) {
            return Err(NotOpened::Unknown("split units with more than one section of a name"));
        }
        let [entries, addresses] = [self.unpacked(entries)?, self.unpacked(addresses)?];
        let unpacked = |name| self.debug(name).map_or(Ok(Cow::default()), |at| self.unpacked(at));
        let [ranges, lists] = [unpacked(".debug_ranges")?, unpacked(".debug_rnglists")?];
        let sections =
            SplitSections { abbreviations, entries: &entries, ranges: &ranges, lists: &lists };
        let split = all.units(&sections, addresses.len(), &self.budget)?;
        // Addresses of variables and functions, none of which lies in front of the first section
        // that has such.
        let has_some =
            |it: &&Section<'_>| it.header.sh_flags & u64::from(SHF_WRITE | SHF_EXECINSTR) != 0;
        let is_rodata = |it: &&Section<'_>| self.names.starts_with(it.header.sh_name, ".rodata");
        let first = self.loaded().filter(|it| has_some(it) || is_rodata(it));
        if first.map(|it| it.header.sh_addr).min().is_some_and(|first| first < tls_size) {
            let what = "offsets in .debug_addr cannot be told from addresses";
            return Err(NotOpened::Unknown(what));
        }
        self.split = split;
        Ok(())
    }

    /// What in each debug section tells where thread-local variables are.
    pub(super) fn all_thread_locals(
        &self,
        tls_size: u64,
    ) -> Result<Vec<Vec<TlsLocation>>, NotOpened> {
        let mut found = try_vec(self.list.len())?;
        for section in self.list.iter().filter(|section| section.role == Role::Debug) {
            found.push(self.thread_locals(section, tls_size)?);
        }
        Ok(found)
    }

    /// What in this debug section tells where thread-local variables are.
    fn thread_locals(
        &self,
        section: &Section<'_>,
        tls_size: u64,
    ) -> Result<Vec<TlsLocation>, NotOpened> {
        let mut names = TELL_PLACES.into_iter();
        match names.find(|name| self.names.is(section.header.sh_name, name)) {
            Some(name) => self.sites(name, &section.contents, tls_size),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Sections::thread_locals`], of the section of this name with these contents.
    fn sites(
        &self,
        name: &str,
        contents: &[u8],
        tls_size: u64,
    ) -> Result<Vec<TlsLocation>, NotOpened> {
        let mut found = Vec::new();
        match name {
            ".debug_info" | ".debug_types" => {
                tls_locations::locations(contents, tls_size, &mut |site| {
                    self.budget.step(SITE)?;
                    Ok(found.try_push(site)?)
                })?;
            }
            // There is one such section then, see `find_split_units`.
            ".debug_addr" if !self.split.is_empty() => {
                let owner = self.owners(tls_size)?;
                let entries =
                    |unit: &SplitUnit| contents.get(unit.addresses.clone()).unwrap_or_default();
                // It is described once.
                let has_first = !(self.split.iter())
                    .any(|unit| tls_locations::states_first(entries(unit), &owner));
                for unit in &self.split {
                    let start = unit.addresses.start;
                    let entries = entries(unit);
                    self.budget.step(entries.len())?;
                    tls_locations::slots(
                        entries,
                        unit,
                        tls_size,
                        has_first,
                        &owner,
                        &mut |site| {
                            self.budget.step(SITE)?;
                            Ok(found.try_push(site.moved(start))?)
                        },
                    )?;
                }
            }
            _ => {}
        }
        Ok(found)
    }

    /// Tells whose an address is, of an image whose block has this many bytes.
    fn owners(&self, tls_size: u64) -> Result<impl Fn(u64) -> Owner + use<>, NotOpened> {
        const POINTERS: [&str; 3] = [".init_array", ".fini_array", ".preinit_array"];
        let has = |header: &SectionHeader, flag| header.sh_flags & u64::from(flag) != 0;
        let headers = || self.loaded().map(|section| &section.header);
        let block = headers().filter(|it| has(it, SHF_TLS)).map(|it| it.sh_addr).min();
        // They do not overlap; if they did, only what this image shows would be wrong.
        let mut others: Vec<(u64, u64, Owner)> = try_vec(self.list.len())?;
        let of_sections = headers()
            .filter(|it| !has(it, SHF_TLS) && it.sh_size != 0)
            .filter(|it| !POINTERS.iter().any(|name| self.names.is(it.sh_name, name)))
            .map(|it| {
                let owner = if has(it, SHF_EXECINSTR) { Owner::Code } else { Owner::Other };
                (it.sh_addr, it.sh_size, owner)
            });
        others.extend(of_sections);
        others.sort_unstable_by_key(|&(start, ..)| start);
        Ok(move |address: u64| {
            let after = others.partition_point(|&(start, ..)| start <= address);
            let before = after.checked_sub(1).and_then(|index| others.get(index));
            let other = before.filter(|(start, size, _)| address.wrapping_sub(*start) < *size);
            let offset = block.and_then(|block| address.checked_sub(block));
            match (offset.filter(|&offset| offset < tls_size), other) {
                (Some(offset), None) => Owner::ThreadLocal { offset },
                // `.tbss` takes no room: what follows it has the same addresses.
                (Some(_), Some(_)) => Owner::Doubtful,
                (None, Some(&(.., owner))) => owner,
                (None, None) => Owner::Other,
            }
        })
    }

    fn loaded(&self) -> impl Iterator<Item = &Section<'a>> {
        self.list.iter().filter(|section| section.role == Role::Loaded)
    }

    /// Whether this is a debug section of this name, or of what it is called when compressed.
    fn is_debug(&self, at: usize, name: &str) -> bool {
        self.list.get(at).is_some_and(|section| {
            section.role == Role::Debug
                && self.names.is_perhaps_compressed(section.header.sh_name, name)
        })
    }

    /// Where the first debug section of this name is.
    fn debug(&self, name: &str) -> Option<usize> {
        self.all_debug(name).next()
    }

    fn all_debug(&self, name: &str) -> impl Iterator<Item = usize> {
        (0..self.list.len()).filter(move |&at| self.is_debug(at, name))
    }

    /// What a debug section has; owned, if it is compressed.
    fn unpacked(&self, at: usize) -> Result<Cow<'a, [u8]>, NotOpened> {
        let Some(section) = self.list.get(at) else { return Ok(Cow::default()) };
        let name = self.names.get(section.header.sh_name);
        match inflate::section(&name, &section.header, &section.contents, &self.budget) {
            Some(Ok(contents)) => Ok(Cow::Owned(contents)),
            Some(Err(error)) => Err(NotOpened::Compressed { section: name, error }),
            None => match &section.contents {
                Cow::Borrowed(contents) => Ok(Cow::Borrowed(contents)),
                Cow::Owned(contents) => Ok(Cow::Owned(try_copy(contents)?)),
            },
        }
    }

    /// Gives a debug section other contents, not compressed.
    fn replace(&mut self, at: usize, name: &str, contents: Vec<u8>) -> Result<(), Error> {
        let sh_name = self.names.add(name)?;
        if let Some(section) = self.list.get_mut(at) {
            section.header.sh_name = sh_name;
            section.header.sh_flags &= !u64::from(SHF_COMPRESSED);
            section.contents = contents.into();
        }
        Ok(())
    }

    pub(super) fn has_dwarf(&self) -> bool {
        self.list.iter().any(|section| section.role == Role::Debug)
    }

    /// The index in the symfile of the section that `symbol` is defined in, if it is defined.
    pub(super) fn index_of(&self, symbol: &DynamicSymbol<'_>) -> Option<u16> {
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

/// What it takes to note where a thread-local variable is, in steps: it is memory, too, and each
/// instance has a place of its own.
const SITE: usize = 32;

/// The sections that tell where variables are.
const TELL_PLACES: [&str; 3] = [".debug_info", ".debug_types", ".debug_addr"];

/// Names a file that has what DWARF of several images have in common (`dwz -m`). gdb finds it by that
/// path, or by the build-id that is here too. If it does not, it says so and reads no DWARF: there are
/// names and backtraces, as if the DWARF had been left out.
const SHARED: &str = ".gnu_debugaltlink";

/// Whether a section of this name, not loaded, is one of those that gdb reads DWARF from.
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
pub(crate) fn has_dwarf(file: &[u8]) -> bool {
    let Ok(header) = image_header(file) else { return false };
    let is_dwarf = |names: &Names, header: &SectionHeader| {
        let is_loaded = header.sh_flags & u64::from(SHF_ALLOC) != 0;
        !is_loaded && header.sh_type != SHT_NOBITS && is_dwarf(names, header.sh_name)
    };
    Headers::parse(&header, file)
        .is_ok_and(|headers| headers.list.iter().any(|it| is_dwarf(&headers.names, it)))
}

/// The entries and strings of a file's `.symtab`, if section headers tell of one.
pub(crate) fn full_symbol_table(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let headers = Headers::parse(&image_header(file).ok()?, file).ok()?;
    symbol_table(SHT_SYMTAB, &headers.list, file)
}

/// The entries and strings of the first symbol table of the kind that lies in the file.
fn symbol_table<'a>(
    kind: u32,
    headers: &[SectionHeader],
    bytes: &'a [u8],
) -> Option<(&'a [u8], &'a [u8])> {
    let table = headers.iter().find(|header| header.sh_type == kind)?;
    let strings = headers.get(table.sh_link as usize)?;
    if table.sh_entsize != SYMBOL_SIZE as u64 || strings.sh_type != SHT_STRTAB {
        return None;
    }
    Some((
        file_range(bytes, table.sh_offset, table.sh_size)?,
        file_range(bytes, strings.sh_offset, strings.sh_size)?,
    ))
}

impl<'a> Source<'a> {
    /// How many bytes there are to make a symfile from: a measure of what it may be as large as.
    pub(crate) fn len(&self) -> usize {
        let in_memory = |segment: &SourceSegment| {
            segment.addresses.end.checked_sub(segment.addresses.start).unwrap_or_default()
        };
        let memory = self.segments.iter().map(in_memory).fold(0, u64::saturating_add);
        self.file.map_or(memory as usize, <[u8]>::len)
    }

    /// The last segment that starts at or before `address`, if that is inside.
    fn segment_at(&self, address: Vaddr) -> Option<&'a SourceSegment> {
        let after = self.segments.partition_point(|segment| segment.addresses.start <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (address <= segment.addresses.end).then_some(segment)
    }

    /// Whether the range lies in one segment.
    fn has(&self, range: &Range<Vaddr>) -> bool {
        self.segment_at(range.start).is_some_and(|segment| range.end <= segment.addresses.end)
    }

    /// The bytes of the image at the range.
    fn contents(&self, range: &Range<Vaddr>) -> Option<&'a [u8]> {
        self.memory.read(range.clone())
    }
}

/// `len` bytes at `offset` of the file.
pub(super) fn file_range(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(offset.checked_add(len)?).ok()?;
    bytes.get(usize::try_from(offset).ok()?..end)
}
