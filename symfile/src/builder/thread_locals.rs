//! Which locations of thread-local variables must be rewritten before a debugger may see an image's DWARF.
//!
//! A location of a thread-local variable that is not rewritten shows wrong memory ([`tls_locations`]). So the
//! debug sections that have such locations are unpacked, the locations are found, and with split DWARF
//! ([`skeleton`]) the slots of `.debug_addr`. Where that cannot be done with certainty, debuggers do not get
//! the DWARF at all. It never changes a location: that is done for each instance.
//!
//! [`skeleton`]: crate::dwarf::skeleton

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashSet;

use goblin::elf::section_header::{SHF_EXECINSTR, SHF_TLS, SHF_WRITE};
use goblin::elf::sym::{STT_TLS, st_type};
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;

use super::error::NotOpened;
use super::headers::{SYMBOL_SIZE, get};
use super::sections::{Role, SHARED, Section, Sections};
use super::source::Policy;
use crate::base::fallible::{TryGrow, try_copy, try_insert, try_vec};
use crate::dwarf::skeleton::{Abbreviations, SplitSections, SplitUnit};
use crate::dwarf::tls_locations::{self, Owner, TlsLocation};

/// The cost of noting a location, in steps: it takes memory, and each instance rewrites it.
const STEPS_PER_LOCATION: usize = 32;

/// The sections that may have locations of thread-local variables, or slots for them.
const WITH_LOCATIONS: [&str; 3] = [".debug_info", ".debug_types", ".debug_addr"];

impl<'a> Sections<'a> {
    /// Makes the debug sections ready to be shown. An error means that debuggers would see wrong values, or
    /// that it costs too much.
    pub fn open(&mut self, tls_size: u64, policy: Policy) -> Result<(), NotOpened> {
        // A skeleton has its addresses in `.debug_addr`.
        let at = self.debug(".debug_abbrev").filter(|_| self.debug(".debug_addr").is_some());
        if let Some(at) = at {
            match self.unpacked(at) {
                Ok(contents) => self.open_split_units(at, contents, tls_size)?,
                // No debugger can read it.
                Err(error) if tls_size == 0 && !error.is_over_budget() => {}
                Err(error) => return Err(error),
            }
        }
        self.open_thread_locals(tls_size, policy)
    }

    /// Lets gdb show lines of split units whose file it does not find (see
    /// [`skeleton`](crate::dwarf::skeleton)), and finds which of their addresses may be offsets of
    /// thread-local variables. `contents` are those of `.debug_abbrev`, the section at `at`.
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

    /// Unpacks the sections with locations of thread-local variables, so that these can be rewritten.
    /// Otherwise a debugger would show wrong memory.
    fn open_thread_locals(&mut self, tls_size: u64, policy: Policy) -> Result<(), NotOpened> {
        // Without a block only variables that the linker discarded have locations. To unpack everything
        // for these would take ten times as long as the rest of a load, but little beside the time that an
        // attached debugger needs to read it. A section that cannot be unpacked here is not read there.
        if tls_size == 0 {
            if policy.debugger_listens {
                let open = |name| self.open_where_changed(name, tls_size);
                let _ = WITH_LOCATIONS.into_iter().try_for_each(open);
            }
            return Ok(());
        }
        WITH_LOCATIONS.into_iter().try_for_each(|name| self.open_where_changed(name, tls_size))?;
        if self.debug(SHARED).is_some() && !self.has_all_thread_locals(tls_size)? {
            let what = "the file named in .gnu_debugaltlink may have thread-local variables";
            return Err(NotOpened::Unknown(what));
        }
        Ok(())
    }

    /// Unpacks the compressed debug sections of this name that have locations of thread-local variables.
    fn open_where_changed(&mut self, wanted: &str, tls_size: u64) -> Result<(), NotOpened> {
        for at in 0..self.list.len() {
            if !self.is_debug(at, wanted) {
                continue;
            }
            if let Cow::Owned(contents) = self.unpacked(at)?
                && !self.locations(wanted, &contents, tls_size)?.is_empty()
            {
                self.replace(at, wanted, contents)?;
            }
        }
        Ok(())
    }

    /// Whether the DWARF here has all thread-local variables that the symbol table has.
    fn has_all_thread_locals(&self, tls_size: u64) -> Result<bool, NotOpened> {
        let Some(stated) = self.stated_thread_locals()? else { return Ok(false) };
        let mut told = HashSet::new();
        for section in self.list.iter().filter(|section| section.role == Role::Debug) {
            for location in self.thread_locals(section, tls_size)? {
                try_insert(&mut told, location.offset)?;
            }
        }
        Ok(stated.iter().all(|offset| told.contains(offset)))
    }

    /// The offsets of all thread-local variables, by a symbol table that has all symbols.
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

    /// What a later [`Sections::open`] needs of the image's symbol table, which will not be there then.
    pub fn note_thread_locals(&self, tls_size: u64) -> Option<Vec<u64>> {
        self.debug(SHARED).filter(|_| tls_size != 0)?;
        match self.stated_thread_locals().ok()?? {
            Cow::Owned(offsets) => Some(offsets),
            Cow::Borrowed(offsets) => try_copy(offsets).ok(),
        }
    }

    /// Finds the parts of `.debug_addr` that may have offsets of thread-local variables.
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
        // No address of a variable or function lies below the first section with variables or code.
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

    /// The locations of thread-local variables in each debug section.
    pub fn all_thread_locals(&self, tls_size: u64) -> Result<Vec<Vec<TlsLocation>>, NotOpened> {
        let mut found = try_vec(self.list.len())?;
        for section in self.list.iter().filter(|section| section.role == Role::Debug) {
            found.push(self.thread_locals(section, tls_size)?);
        }
        Ok(found)
    }

    /// The locations of thread-local variables in this debug section.
    fn thread_locals(
        &self,
        section: &Section<'_>,
        tls_size: u64,
    ) -> Result<Vec<TlsLocation>, NotOpened> {
        let mut names = WITH_LOCATIONS.into_iter();
        match names.find(|name| self.names.is(section.header.sh_name, name)) {
            Some(name) => self.locations(name, &section.contents, tls_size),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Sections::thread_locals`], of the section of this name with these contents.
    fn locations(
        &self,
        name: &str,
        contents: &[u8],
        tls_size: u64,
    ) -> Result<Vec<TlsLocation>, NotOpened> {
        let mut found = Vec::new();
        match name {
            ".debug_info" | ".debug_types" => {
                tls_locations::locations(contents, tls_size, &mut |location| {
                    self.budget.step(STEPS_PER_LOCATION)?;
                    Ok::<_, NotOpened>(found.try_push(location)?)
                })?;
            }
            // There is one such section, see `find_split_units`.
            ".debug_addr" if !self.split.is_empty() => {
                let owner = self.owners(tls_size)?;
                let entries =
                    |unit: &SplitUnit| contents.get(unit.addresses.clone()).unwrap_or_default();
                // A variable is described once.
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
                        &mut |location| {
                            self.budget.step(STEPS_PER_LOCATION)?;
                            Ok::<_, NotOpened>(found.try_push(location.moved(start))?)
                        },
                    )?;
                }
            }
            _ => {}
        }
        Ok(found)
    }

    /// Says to what an address belongs, in an image whose block has `tls_size` bytes.
    fn owners(&self, tls_size: u64) -> Result<impl Fn(u64) -> Owner + use<>, NotOpened> {
        const POINTERS: [&str; 3] = [".init_array", ".fini_array", ".preinit_array"];
        let has = |header: &SectionHeader, flag| header.sh_flags & u64::from(flag) != 0;
        let headers = || self.loaded().map(|section| &section.header);
        let block = headers().filter(|it| has(it, SHF_TLS)).map(|it| it.sh_addr).min();
        // They do not overlap. If they did, only this image would show wrong values.
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
                // `.tbss` takes no addresses: the next section has the same ones.
                (Some(_), Some(_)) => Owner::Doubtful,
                (None, Some(&(.., owner))) => owner,
                (None, None) => Owner::Other,
            }
        })
    }
}
