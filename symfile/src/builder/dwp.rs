//! Joining a package of split DWARF (`.dwp`) with the skeletons of an image.
//!
//! gdb looks for a package under the name of the library, which an image does not have; lldb and backtraces
//! do not look at all. A caller that has the package can give it to memdl. The result is a file as if the
//! image had been built without splitting, and it is used like debug information that was split off
//! (memdl's `debug/separate.rs`).
//!
//! gimli reads and writes units one after the other. It does not convert macros and indexes, which debuggers
//! do not need: they are left out. A package without a unit of the image is refused, since it belongs to
//! another build. So are type units, which cannot be put into another unit.
//!
//! **Thread-local variables.** Their locations become what [`crate::dwarf::tls_locations`] knows:
//! compilers refer to an entry of `.debug_addr`, which has the offset in the block or, by gcc with GNU ld,
//! the address of the initial value.
//!
//! The bytes are hostile: a small file can refer to the same long list, string or line table again and
//! again, and gimli keeps a unit's entries at many times their size. So each unit is surveyed before
//! gimli reads it, reading and writing is paid from the [`Budget`], and gimli's memory is estimated
//! ([`GimliMemory`]). gimli goes down the tree of entries by calling itself, and its writer has
//! assertions: the caller provides a stack of [`STACK`] bytes, and catches a panic (`debug/package.rs`).
//!
//! Sources: DWARF 5, 3.1.2 and 3.1.3 (skeleton and split units), 7.3.5 (packages).

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use gimli::constants::{
    DW_AT_GNU_locviews, DW_AT_GNU_macros, DW_AT_GNU_pubnames, DW_AT_macro_info, DW_AT_macros,
    DW_AT_stmt_list, DW_FORM_implicit_const, DW_OP_GNU_push_tls_address, DW_OP_const8u,
    DW_OP_form_tls_address, DW_OP_nop, DW_OP_plus_uconst,
};
use gimli::write::{
    Address, ConvertError, ConvertUnit, ConvertUnitEntry, EndianVec, Expression, Location,
    LocationList, Range, RangeList, Sections,
};
use gimli::{
    Abbreviations, AbbreviationsCacheStrategy, Attribute, AttributeValue, DebugTuIndex,
    DwarfPackage, EndianSlice, Format, LittleEndian, LocationListsOffset, Operation,
    RangeListsOffset, Reader, Section as _, SectionId, UnitHeader, UnitRef,
};
use goblin::elf::section_header::{
    SHF_ALLOC, SHF_TLS, SHT_DYNSYM, SHT_NOBITS, SHT_NULL, SHT_PROGBITS, SHT_STRTAB, SHT_SYMTAB,
};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;

use super::compression::{self, NotInflated};
use super::elf_writer::{Contents, Elf, NOTHING};
use super::headers::{Headers, file_range, image_header};
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{
    TryGrow, check_room, require_memory, require_memory_for_next, try_collect_ok, try_insert,
};
use crate::base::filler::Filler;
use crate::base::limits::Limits;
use crate::dwarf::budget::{Allowance, Budget, OverBudget};
use crate::dwarf::leb128::push_uleb;
use crate::dwarf::line_program;
use crate::dwarf::skeleton::{self, SkeletonError};

type Input<'a> = EndianSlice<'a, LittleEndian>;

/// How many times the parts of a package may be read, together.
const MAX_PARTS: u64 = 2;

/// How many attributes an entry may have: gimli compares each with all before it.
const MAX_ATTRIBUTES: usize = 512;

/// How deep expressions may be nested. Compilers nest at most one in another.
const MAX_EXPRESSION_DEPTH: usize = 8;

/// The stack that [`join`] needs, in bytes, for entries as deep as [`MAX_DEPTH`].
pub const STACK: usize = 4 << 20;

/// The cost of converting an entry, and an attribute, in steps.
const CONVERTED: usize = 8;

/// Why a package is not accepted as an image's.
#[derive(Debug, thiserror::Error)]
pub enum NotJoined {
    #[error("the image has no section headers: {0}")]
    NoSections(String),
    #[error("the image has no split DWARF that a package could complete")]
    NotSplit,
    #[error("the package has no unit {id:#018x}, of which the image has the skeleton")]
    Missing { id: u64 },
    #[error("it has type units, which are not joined")]
    TypeUnits,
    #[error("it refers to the same things too often")]
    TooMuch,
    #[error("units share a line table")]
    SharedLines,
    #[error("{0}")]
    Unpacked(String),
    #[error("debug sections overlap")]
    Overlap,
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("{0}")]
    Memory(#[from] OutOfMemory),
    #[error("no thread to do it: {0}")]
    NoThread(io::Error),
    #[error("it cannot be read: {0}")]
    Unread(#[from] gimli::Error),
    #[error("it cannot be joined: {0}")]
    Unwritten(#[from] ConvertError),
    #[error("the result would be too large")]
    TooLarge,
}

impl NotJoined {
    /// Whether the caller has passed a wrong package, no package, or one for an image without skeletons.
    /// Otherwise debuggers see what they would see without the package.
    pub fn is_refusal(&self) -> bool {
        match self {
            NotJoined::NoSections(_)
            | NotJoined::NotSplit
            | NotJoined::Missing { .. }
            | NotJoined::Unpacked(_)
            | NotJoined::Overlap
            | NotJoined::Unread(_) => true,
            NotJoined::TypeUnits
            | NotJoined::OverBudget(_)
            | NotJoined::Memory(_)
            | NotJoined::NoThread(_)
            | NotJoined::TooMuch
            | NotJoined::SharedLines
            | NotJoined::Unwritten(_)
            | NotJoined::TooLarge => false,
        }
    }
}

impl From<gimli::write::Error> for NotJoined {
    fn from(error: gimli::write::Error) -> NotJoined {
        NotJoined::Unwritten(error.into())
    }
}

/// Whether these bytes are a package of split DWARF.
pub fn is_package(file: &[u8]) -> bool {
    let Ok(header) = image_header(file) else { return false };
    let index = SectionId::DebugCuIndex.dwo_name().unwrap_or_default();
    Headers::parse(&header, file)
        .is_ok_and(|it| it.list.iter().any(|section| it.names.is(section.sh_name, index)))
}

/// The image's file with the DWARF of `package` in the place of its skeletons, like a file that was split off
/// the image.
pub fn join(image: &[u8], package: &[u8], most: Limits) -> Result<Vec<u8>, NotJoined> {
    let no_sections = |fault: &dyn std::fmt::Display| NotJoined::NoSections(fault.to_string());
    let header = image_header(image).map_err(|fault| no_sections(&fault))?;
    let headers = Headers::parse(&header, image).map_err(|fault| no_sections(&fault))?;
    let len = image.len().saturating_add(package.len());
    let budget = Allowance::new(most, len).budget();
    let ours = unpacked(&headers, image, &budget)?;
    let theirs = {
        let header = image_header(package).map_err(|fault| no_sections(&fault))?;
        let headers = Headers::parse(&header, package).map_err(|fault| no_sections(&fault))?;
        unpacked(&headers, package, &budget)?
    };
    let tls = thread_local_addresses(&headers);
    let joined = joined(&ours, &theirs, tls, len, budget)?;
    file(&header, headers, image, &joined)?.ok_or(NotJoined::TooLarge)
}

/// The debug sections of a file by name, not compressed.
fn unpacked<'a>(
    headers: &Headers,
    file: &'a [u8],
    budget: &Budget,
) -> Result<BTreeMap<String, Cow<'a, [u8]>>, NotJoined> {
    let mut found = BTreeMap::new();
    let mut left = file.len();
    for (index, header) in headers.list.iter().enumerate() {
        require_memory_for_next(index)?;
        if header.sh_type == SHT_NOBITS
            || header.sh_flags & u64::from(SHF_ALLOC) != 0
            || !headers.names.is_debug(header.sh_name)
        {
            continue;
        }
        let name = headers.names.get(header.sh_name);
        let contents = file_range(file, header.sh_offset, header.sh_size).unwrap_or_default();
        // Sections do not overlap in a file. If they did, thousands could be unpacked from one.
        left = left.checked_sub(contents.len()).ok_or(NotJoined::Overlap)?;
        let contents = match compression::section(&name, header, contents, budget) {
            Some(Ok(contents)) => Cow::Owned(contents),
            Some(Err(NotInflated::OverBudget(error))) => return Err(error.into()),
            Some(Err(error)) => return Err(NotJoined::Unpacked(format!("{name}: {error}"))),
            None => Cow::Borrowed(contents),
        };
        found.entry(name.replacen(".zdebug_", ".debug_", 1)).or_insert(contents);
    }
    Ok(found)
}

/// Where the initial values of thread-local variables are: the first address, and their size.
fn thread_local_addresses(headers: &Headers) -> (u64, u64) {
    let tls = || headers.list.iter().filter(|it| it.sh_flags & u64::from(SHF_TLS) != 0);
    let start = tls().map(|it| it.sh_addr).min().unwrap_or(0);
    let end = tls().map(|it| it.sh_addr.saturating_add(it.sh_size)).max().unwrap_or(0);
    (start, end.saturating_sub(start))
}

/// The joined debug sections; both files together have `len` bytes.
// Long because: gimli's reader, its writer and the loop over units borrow from each other.
fn joined(
    ours: &BTreeMap<String, Cow<'_, [u8]>>,
    theirs: &BTreeMap<String, Cow<'_, [u8]>>,
    tls: (u64, u64),
    len: usize,
    budget: Budget,
) -> Result<BTreeMap<&'static str, Vec<u8>>, NotJoined> {
    fn load<'s>(
        sections: &'s BTreeMap<String, Cow<'_, [u8]>>,
        name: Option<&'static str>,
    ) -> Result<Input<'s>, gimli::Error> {
        let contents = name.and_then(|name| sections.get(name));
        Ok(EndianSlice::new(contents.map_or(&[], |it| &**it), LittleEndian))
    }
    let mut image = gimli::Dwarf::load(|id| load(ours, Some(id.name())))?;
    let empty = EndianSlice::new(&[], LittleEndian);
    let package = DwarfPackage::load(|id| load(theirs, id.dwo_name()), empty)?;
    let index = load(theirs, SectionId::DebugCuIndex.dwo_name())?;
    let types = DebugTuIndex::from(load(theirs, SectionId::DebugTuIndex.dwo_name())?).index()?;
    if image.type_units().next()?.is_some() || types.unit_count() != 0 {
        return Err(NotJoined::TypeUnits);
    }
    let parts = theirs.values().map(|contents| contents.len() as u64).fold(0, u64::saturating_add);
    let mut joiner = Joiner {
        budget,
        memory: GimliMemory::new(len),
        parts: parts.saturating_mul(MAX_PARTS),
        tls,
    };
    joiner.survey_all(&image)?;
    image.populate_abbreviations_cache(AbbreviationsCacheStrategy::All);
    let rows = joiner.rows(index, package.cu_index.version())?;

    let mut written = gimli::write::Dwarf::new();
    let mut sections = Sections::new(EndianVec::new(LittleEndian));
    let mut units = written.convert(&image)?;
    let mut has_split = false;
    while let Some((mut unit, root)) = units.read_unit()? {
        joiner.memory.end_unit();
        let Some(id) = unit.read_unit.dwo_id else {
            joiner.convert(&mut unit, None, root)?;
            unit.write(&mut sections)?;
            continue;
        };
        has_split = true;
        let row = *rows.get(&id.0).ok_or(NotJoined::Missing { id: id.0 })?;
        joiner.take_parts(&package, row)?;
        let split = package.cu_sections(row, &image)?;
        if let Some(header) = split.units().next()? {
            let abbreviations = split.abbreviations(&header)?;
            let entries = joiner.survey(&header, &abbreviations)?;
            joiner.memory.keep_here(entries, ENTRY)?;
        }
        let mut split = unit.convert_split(&split)?;
        let (mut unit, split_root) = split.read_unit()?;
        joiner.convert(&mut unit, Some(&root), split_root)?;
        unit.write(&mut sections)?;
    }
    if !has_split {
        return Err(NotJoined::NotSplit);
    }
    written.write(&mut sections)?;
    let mut found = BTreeMap::new();
    sections.for_each_mut(|id, section| {
        if !section.slice().is_empty() {
            found.insert(id.name(), section.take());
        }
        Ok::<_, gimli::Error>(())
    })?;
    Ok(found)
}

/// gimli's memory, in bytes, roughly: for each unit; for an entry and an attribute to be written; for an
/// entry of a list; for a string.
const UNIT: usize = 2048;
const ENTRY: usize = 200;
const ATTRIBUTE: usize = 48;
const OF_LIST: usize = 100;
const STRING: usize = 64;
/// For each byte in the section: of a table of abbreviations, of the header of a line table, of its
/// program, of an expression.
const OF_ABBREVIATIONS: usize = 32;
const OF_LINE_HEADER: usize = 128;
const OF_LINE_PROGRAM: usize = 64;
const OF_EXPRESSION: usize = 48;

/// An estimate of gimli's memory.
struct GimliMemory {
    /// GimliMemory to the end, and kept for the unit that is being converted.
    all: usize,
    here: usize,
    most: usize,
    /// Up to this sum the system had memory at the last check.
    checked: usize,
}

impl GimliMemory {
    /// For files of `len` bytes together.
    fn new(len: usize) -> GimliMemory {
        let most = len.saturating_mul(32).saturating_add(48 << 20);
        GimliMemory { all: 0, here: 0, most, checked: 0 }
    }

    /// Checks the estimate against the limit and the system's memory, since gimli does not reserve fallibly.
    /// The check is for more than gimli takes until the next one, with copies where a vector grows.
    fn check(&mut self) -> Result<(), NotJoined> {
        /// From one check to the next, in bytes; or a quarter of the sum.
        const STEP: usize = 256 << 10;
        let sum = self.all.saturating_add(self.here);
        if sum > self.most {
            return Err(NotJoined::TooMuch);
        }
        if sum >= self.checked {
            let step = STEP.max(sum / 4);
            check_room(sum.saturating_add(step).saturating_mul(2))?;
            self.checked = sum.saturating_add(step);
        }
        Ok(())
    }

    fn keep(&mut self, count: usize, bytes: usize) -> Result<(), NotJoined> {
        self.all = self.all.saturating_add(count.saturating_mul(bytes));
        self.check()
    }

    /// Counts memory that gimli keeps until the end of the unit.
    fn keep_here(&mut self, count: usize, bytes: usize) -> Result<(), NotJoined> {
        self.here = self.here.saturating_add(count.saturating_mul(bytes));
        self.check()
    }

    fn end_unit(&mut self) {
        self.here = 0;
        // Memory that is free now may be used otherwise when it is needed again.
        self.checked = self.all;
    }
}

/// Converts units, and counts the cost.
struct Joiner {
    budget: Budget,
    memory: GimliMemory,
    /// How many bytes of parts of the package may still be read.
    parts: u64,
    /// See [`thread_local_addresses`].
    tls: (u64, u64),
}

impl Joiner {
    fn take(&mut self, amount: usize) -> Result<(), NotJoined> {
        Ok(self.budget.step(amount)?)
    }

    /// Checks that gimli can read the units of the image. Tables of abbreviations and of lines must neither
    /// overlap nor be shared: gimli keeps the header of a line table for each unit that refers to it, and
    /// reads all units before it converts one.
    fn survey_all(&mut self, image: &gimli::Dwarf<Input<'_>>) -> Result<(), NotJoined> {
        let section = image.debug_abbrev.reader().slice();
        let tables =
            skeleton::Abbreviations::read(section, &self.budget).map_err(|error| match error {
                SkeletonError::Unreadable(error) => NotJoined::Unread(error),
                SkeletonError::OverBudget(error) => error.into(),
                SkeletonError::Memory(error) => error.into(),
            })?;
        let mut by_table = Vec::new();
        let mut units = image.units();
        while let Some(unit) = units.next()? {
            self.take(CONVERTED)?;
            self.memory.keep(1, UNIT)?;
            let table = unit.debug_abbrev_offset().0;
            if !tables.begins(table) {
                return Err(gimli::Error::InvalidAbbreviationCode(0).into());
            }
            by_table.try_push((table, unit))?;
        }
        by_table.sort_unstable_by_key(|(table, _)| *table);
        let mut lines = HashSet::new();
        let mut lines_len = 0_usize;
        for units in by_table.chunk_by(|(one, _), (other, _)| one == other) {
            let table = units.first().map_or(0, |(table, _)| *table);
            self.memory.keep(tables.table_len(table, section.len()), OF_ABBREVIATIONS)?;
            let abbreviations =
                image.debug_abbrev.abbreviations(gimli::DebugAbbrevOffset(table))?;
            for (_, unit) in units {
                let entries = self.survey(unit, &abbreviations)?;
                self.memory.keep(entries, ENTRY)?;
                let mut entries = unit.entries(&abbreviations);
                let stated = entries.next_dfs()?.and_then(|root| root.attr_value(DW_AT_stmt_list));
                let Some(AttributeValue::DebugLineRef(offset)) = stated else { continue };
                if !try_insert(&mut lines, offset.0)? {
                    return Err(NotJoined::SharedLines);
                }
                let section = *image.debug_line.reader();
                let (len, header) = line_table_len(section, offset.0)?;
                lines_len = lines_len.saturating_add(len);
                if lines_len > section.len() {
                    return Err(NotJoined::SharedLines);
                }
                self.memory.keep(header, OF_LINE_HEADER)?;
            }
        }
        Ok(())
    }

    /// Checks that gimli can read and write the entries of a unit. Returns their number.
    fn survey(
        &mut self,
        unit: &UnitHeader<Input<'_>>,
        abbreviations: &Abbreviations,
    ) -> Result<usize, NotJoined> {
        let mut count = 0_usize;
        let mut entries = unit.entries_raw(abbreviations, None)?;
        while !entries.is_empty() {
            self.take(1)?;
            if entries.next_depth() > MAX_DEPTH {
                return Err(NotJoined::TooMuch);
            }
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let attributes = abbreviation.attributes();
            if attributes.len() > MAX_ATTRIBUTES {
                return Err(NotJoined::TooMuch);
            }
            self.take(attributes.len())?;
            entries.skip_attributes(attributes)?;
            count = count.saturating_add(1);
        }
        Ok(count)
    }

    /// The units in the index of a package of this version, and their rows. gimli looks each up with
    /// as many steps as the table has slots, if it is full.
    fn rows(&mut self, mut index: Input<'_>, version: u16) -> Result<HashMap<u64, u32>, NotJoined> {
        let mut rows = HashMap::new();
        if version == 0 {
            return Ok(rows);
        }
        // Version, columns and units.
        index.skip(12)?;
        let slots = index.read_u32()? as usize;
        self.take(slots)?;
        let ids = index.split(slots.saturating_mul(8))?;
        let numbers = index.split(slots.saturating_mul(4))?;
        let ids = ids.slice().as_chunks().0.iter().map(|id| u64::from_le_bytes(*id));
        let numbers = numbers.slice().as_chunks().0.iter().map(|row| u32::from_le_bytes(*row));
        rows.try_reserve(slots).map_err(|_| OutOfMemory { bytes: slots as u64 })?;
        require_memory()?;
        for (id, row) in ids.zip(numbers).filter(|(_, row)| *row != 0) {
            rows.entry(id).or_insert(row);
        }
        Ok(rows)
    }

    /// Counts the parts of the package that a unit has. Those that gimli keeps at many times their
    /// size are kept as long as the unit.
    fn take_parts(&mut self, package: &DwarfPackage<Input<'_>>, row: u32) -> Result<(), NotJoined> {
        for part in package.cu_index.sections(row)? {
            let left = self.parts.checked_sub(part.size.into());
            self.parts = left.ok_or(NotJoined::TooMuch)?;
            let kept = match part.section {
                gimli::IndexSectionId::DebugAbbrev => OF_ABBREVIATIONS,
                gimli::IndexSectionId::DebugLine => OF_LINE_HEADER,
                _ => continue,
            };
            self.memory.keep_here(part.size as usize, kept)?;
        }
        Ok(())
    }

    /// Converts a whole unit; `skeleton` is its root in the image, if the unit is in the package.
    fn convert<'a, 'd>(
        &mut self,
        unit: &mut ConvertUnit<'a, Input<'d>>,
        skeleton: Option<&ConvertUnitEntry<'_, Input<'d>>>,
        root: ConvertUnitEntry<'a, Input<'d>>,
    ) -> Result<(), NotJoined> {
        let lines = unit.read_skeleton_unit.unwrap_or(unit.read_unit);
        if let Some(program) = &lines.line_program {
            let len = program.header().raw_program_buf().len();
            self.take(len)?;
            self.memory.keep_here(len, OF_LINE_PROGRAM)?;
            let from = program.clone();
            let header = unit.read_line_program(None, Some(line_program::encoding()))?;
            if let Some(header) = header {
                let (program, files) = line_program::convert(from, header)?;
                unit.set_line_program(program, files);
            }
        }
        let id = unit.unit.root();
        if let Some(skeleton) = skeleton {
            self.attributes(unit, id, skeleton)?;
        }
        self.attributes(unit, id, &root)?;
        let mut entry = root;
        while let Some(id) = unit.read_entry(&mut entry)? {
            let id = unit.add_entry(id, &entry);
            self.attributes(unit, id, &entry)?;
        }
        Ok(())
    }

    fn attributes<'d>(
        &mut self,
        unit: &mut ConvertUnit<'_, Input<'d>>,
        id: gimli::write::UnitEntryId,
        entry: &ConvertUnitEntry<'_, Input<'d>>,
    ) -> Result<(), NotJoined> {
        self.take(CONVERTED)?;
        entry.attrs.iter().try_for_each(|it| self.attribute(unit, entry.read_unit, id, it))
    }

    /// Converts an attribute of an entry of the unit `of`.
    fn attribute<'d>(
        &mut self,
        unit: &mut ConvertUnit<'_, Input<'d>>,
        of: UnitRef<'_, Input<'d>>,
        id: gimli::write::UnitEntryId,
        attribute: &Attribute<Input<'d>>,
    ) -> Result<(), NotJoined> {
        if LEFT_OUT.contains(&attribute.name()) {
            return Ok(());
        }
        let value = match self.referred(of, attribute)? {
            Referred::Locations(offset) => {
                let list = unit.convert_location_list(of, offset, &constant)?;
                let list = locations(list, of);
                gimli::write::AttributeValue::LocationListRef(unit.unit.locations.add(list))
            }
            Referred::Ranges(offset) => {
                let list = ranges(unit.convert_range_list(of, offset, &constant)?, of);
                gimli::write::AttributeValue::RangeListRef(unit.unit.ranges.add(list))
            }
            Referred::ThreadLocal(location) => gimli::write::AttributeValue::Exprloc(location),
            Referred::Other => unit.convert_attribute_value(of, attribute, &constant)?,
        };
        unit.unit.get_mut(id).set(attribute.name(), value);
        Ok(())
    }

    /// What an attribute refers to, counted; and whether it needs more than gimli's conversion.
    fn referred<'d>(
        &mut self,
        of: UnitRef<'_, Input<'d>>,
        attribute: &Attribute<Input<'d>>,
    ) -> Result<Referred, NotJoined> {
        self.take(CONVERTED)?;
        self.memory.keep_here(1, ATTRIBUTE)?;
        if attribute.form() == DW_FORM_implicit_const {
            return Ok(Referred::Other);
        }
        let referred = match attribute.value() {
            AttributeValue::LocationListsRef(offset) => Referred::Locations(offset),
            AttributeValue::DebugLocListsIndex(index) => {
                Referred::Locations(of.locations_offset(index)?)
            }
            AttributeValue::RangeListsRef(offset) => {
                Referred::Ranges(of.ranges_offset_from_raw(offset))
            }
            AttributeValue::DebugRngListsIndex(index) => Referred::Ranges(of.ranges_offset(index)?),
            AttributeValue::Exprloc(expression) => {
                self.expression(of, expression.0)?;
                match self.thread_local(of, expression)? {
                    Some(location) => Referred::ThreadLocal(location),
                    None => Referred::Other,
                }
            }
            value @ (AttributeValue::DebugStrRef(_)
            | AttributeValue::DebugStrOffsetsIndex(_)
            | AttributeValue::DebugLineStrRef(_)) => {
                let len = of.attr_string(value)?.len();
                self.take(len / 8)?;
                self.memory.keep(1, STRING.saturating_add(len))?;
                Referred::Other
            }
            _ => Referred::Other,
        };
        match referred {
            Referred::Locations(offset) => {
                let mut list = of.raw_locations(offset)?;
                while let Some(location) = list.next()? {
                    self.take(CONVERTED)?;
                    self.memory.keep_here(1, OF_LIST)?;
                    if let Some(expression) = expression(&location) {
                        self.expression(of, expression)?;
                    }
                }
            }
            Referred::Ranges(offset) => {
                let mut list = of.raw_ranges(offset)?;
                while list.next()?.is_some() {
                    self.take(CONVERTED)?;
                    self.memory.keep_here(1, OF_LIST)?;
                }
            }
            Referred::ThreadLocal(_) | Referred::Other => {}
        }
        Ok(referred)
    }

    /// Counts an expression and those nested in it. gimli converts them by recursion, each with everything in
    /// it.
    fn expression<'d>(
        &mut self,
        of: UnitRef<'_, Input<'d>>,
        expression: Input<'d>,
    ) -> Result<(), NotJoined> {
        let mut left = vec![(expression, 0_usize)];
        while let Some((bytes, depth)) = left.pop() {
            self.take(bytes.len())?;
            self.memory.keep_here(bytes.len(), OF_EXPRESSION)?;
            let inside = depth.saturating_add(1);
            let mut operations = gimli::Expression(bytes).operations(of.encoding());
            // gimli does not convert an expression that it cannot read.
            while let Ok(Some(operation)) = operations.next() {
                if let Operation::EntryValue { expression } = operation {
                    if inside > MAX_EXPRESSION_DEPTH {
                        return Err(NotJoined::TooMuch);
                    }
                    left.try_push((expression, inside))?;
                }
            }
        }
        Ok(())
    }

    /// The location in the form that is rewritten later, if this is one of a thread-local variable.
    fn thread_local(
        &self,
        of: UnitRef<'_, Input<'_>>,
        expression: gimli::Expression<Input<'_>>,
    ) -> Result<Option<Expression>, NotJoined> {
        let mut operations = expression.operations(of.encoding());
        let first = operations.next()?;
        if !matches!(operations.next()?, Some(Operation::TLS)) {
            let mut asks = matches!(first, Some(Operation::TLS));
            while let Some(operation) = operations.next()? {
                asks |= matches!(operation, Operation::TLS);
            }
            return Ok(asks.then(|| Expression::raw(NOWHERE.to_vec())));
        }
        let value = match first {
            Some(Operation::ConstantIndex { index } | Operation::AddressIndex { index }) => {
                of.address(index)?
            }
            Some(Operation::UnsignedConstant { value }) => value,
            _ => return Ok(Some(Expression::raw(NOWHERE.to_vec()))),
        };
        let (start, size) = self.tls;
        let offset = if value < size { value } else { value.wrapping_sub(start) };
        if offset >= size {
            return Ok(Some(Expression::raw(NOWHERE.to_vec())));
        }
        let ask = match of.encoding().version {
            0..5 => DW_OP_GNU_push_tls_address,
            _ => DW_OP_form_tls_address,
        };
        let mut location = vec![DW_OP_const8u.0];
        location.extend(offset.to_le_bytes());
        location.push(ask.0);
        // A part of a common block of Fortran.
        match (operations.next()?, operations.next()?) {
            (None, _) => {}
            (Some(Operation::PlusConstant { value }), None) => {
                location.push(DW_OP_plus_uconst.0);
                push_uleb(&mut location, value);
            }
            _ => return Ok(Some(Expression::raw(NOWHERE.to_vec()))),
        }
        Ok(Some(Expression::raw(location)))
    }
}

/// The length of a line table, and of its header.
fn line_table_len(mut section: Input<'_>, offset: usize) -> Result<(usize, usize), gimli::Error> {
    let before = section.len();
    section.skip(offset)?;
    let (len, format) = section.read_initial_length()?;
    let mut table = section.split(len)?;
    let whole = before.saturating_sub(section.len()).saturating_sub(offset);
    if table.read_u16()? >= 5 {
        table.skip(2)?;
    }
    let header = match format {
        Format::Dwarf32 => table.read_u32()?.into(),
        Format::Dwarf64 => table.read_u64()?,
    };
    Ok((whole, usize::try_from(header).unwrap_or(usize::MAX).min(whole)))
}

/// The expression of a location in a list.
fn expression<'d>(location: &gimli::RawLocListEntry<Input<'d>>) -> Option<Input<'d>> {
    use gimli::RawLocListEntry::*;
    match location {
        AddressOrOffsetPair { data, .. }
        | StartxEndx { data, .. }
        | StartxLength { data, .. }
        | OffsetPair { data, .. }
        | DefaultLocation { data }
        | StartEnd { data, .. }
        | StartLength { data, .. } => Some(data.0),
        BaseAddress { .. } | BaseAddressx { .. } => None,
    }
}

enum Referred {
    Locations(LocationListsOffset),
    Ranges(RangeListsOffset),
    ThreadLocal(Expression),
    Other,
}

/// The base of the pairs of addresses in a list that does not state it.
struct Base(Option<u64>);

impl Base {
    /// Up to DWARF 4 it is the unit's first address, if it has one, and all pairs are relative to it.
    fn of(unit: UnitRef<'_, Input<'_>>) -> Base {
        Base((unit.encoding().version < 5 && unit.low_pc != 0).then_some(unit.low_pc))
    }

    /// These addresses relative to the base. `None` for a range that the linker discarded, or an empty one.
    fn relative(&self, begin: Address, end: Option<u64>) -> Option<(u64, u64)> {
        let (Address::Constant(begin), Some(end)) = (begin, end) else { return None };
        let base = self.0.unwrap_or(0);
        (begin < end).then_some((begin.checked_sub(base)?, end.checked_sub(base)?))
    }
}

/// Where a range ends.
fn end(begin: Address, length: u64) -> Option<u64> {
    match begin {
        Address::Constant(begin) => begin.checked_add(length),
        Address::Symbol { .. } => None,
    }
}

fn value(address: Address) -> Option<u64> {
    end(address, 0)
}

/// The list in the form that gimli can write: up to DWARF 4 it does not mix addresses with relative pairs, and
/// writes no empty range.
fn locations(list: LocationList, of: UnitRef<'_, Input<'_>>) -> LocationList {
    let mut base = Base::of(of);
    let one = |location| {
        let (begin, last, data) = match location {
            Location::BaseAddress { address } => {
                if of.encoding().version < 5 {
                    base = Base(value(address));
                }
                return Some(location);
            }
            Location::OffsetPair { begin, end, .. } => return (begin < end).then_some(location),
            Location::StartEnd { begin, end, data } => (begin, value(end), data),
            Location::StartLength { begin, length, data } => (begin, end(begin, length), data),
            Location::DefaultLocation { .. } => return Some(location),
        };
        let (first, last) = base.relative(begin, last)?;
        Some(match base.0 {
            Some(_) => Location::OffsetPair { begin: first, end: last, data },
            None => Location::StartEnd { begin, end: Address::Constant(last), data },
        })
    };
    LocationList(list.0.into_iter().filter_map(one).collect())
}

/// As [`locations`].
fn ranges(list: RangeList, of: UnitRef<'_, Input<'_>>) -> RangeList {
    let mut base = Base::of(of);
    let one = |range| {
        let (begin, last) = match range {
            Range::BaseAddress { address } => {
                if of.encoding().version < 5 {
                    base = Base(value(address));
                }
                return Some(range);
            }
            Range::OffsetPair { begin, end } => return (begin < end).then_some(range),
            Range::StartEnd { begin, end } => (begin, value(end)),
            Range::StartLength { begin, length } => (begin, end(begin, length)),
        };
        let (first, last) = base.relative(begin, last)?;
        Some(match base.0 {
            Some(_) => Range::OffsetPair { begin: first, end: last },
            None => Range::StartEnd { begin, end: Address::Constant(last) },
        })
    };
    RangeList(list.0.into_iter().filter_map(one).collect())
}

/// How deep entries may be nested: gimli writes them by recursion.
const MAX_DEPTH: isize = 256;

/// A location that debuggers cannot evaluate, and say so.
const NOWHERE: [u8; 1] = [DW_OP_nop.0];

/// The attributes that refer to sections that are not written.
const LEFT_OUT: [gimli::DwAt; 5] =
    [DW_AT_GNU_locviews, DW_AT_GNU_macros, DW_AT_GNU_pubnames, DW_AT_macro_info, DW_AT_macros];

/// The addresses stay as the image states them.
fn constant(address: u64) -> Option<Address> {
    Some(Address::Constant(address))
}

/// The file: the image's sections under their old indices, those with symbols as they are, and the joined
/// debug sections.
fn file(
    header: &Header,
    headers: Headers,
    image: &[u8],
    joined: &BTreeMap<&'static str, Vec<u8>>,
) -> Result<Option<Vec<u8>>, OutOfMemory> {
    let Headers { list, mut names } = headers;
    let joined = joined.iter().map(|(name, contents)| Ok((names.add(name)?, &contents[..])));
    let joined: Vec<(u32, &[u8])> = try_collect_ok::<_, OutOfMemory>(joined)?;
    let mut file = Elf::new(header, header.e_type);
    for (index, section) in (0..).zip(&list) {
        let is_text = matches!(section.sh_type, SHT_SYMTAB | SHT_DYNSYM | SHT_STRTAB);
        if index == header.e_shstrndx {
            file.push(*section, Contents::Bytes(&names.0))?;
        } else if is_text
            && let Some(contents) = file_range(image, section.sh_offset, section.sh_size)
        {
            file.push(*section, Contents::Bytes(contents))?;
        } else if section.sh_flags & u64::from(SHF_ALLOC) != 0 {
            file.push(SectionHeader { sh_type: SHT_NOBITS, ..*section }, NOTHING)?;
        } else {
            file.push(SectionHeader { sh_type: SHT_NULL, ..SectionHeader::default() }, NOTHING)?;
        }
    }
    for (sh_name, contents) in joined {
        let section = SectionHeader {
            sh_name,
            sh_type: SHT_PROGBITS,
            sh_addralign: 1,
            ..SectionHeader::default()
        };
        file.push(section, Contents::Bytes(contents))?;
    }
    file.header.e_shstrndx = header.e_shstrndx;
    let Some(len) = file.lay_out(header.e_shstrndx, 1) else { return Ok(None) };
    Ok(Some(Filler::filled(len, |out| file.write(header.e_shstrndx, 1, out))?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn joins(image: &[u8], package: &[u8]) -> Result<Vec<u8>, NotJoined> {
        let joined = || join(image, package, Limits::default());
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK);
            thread.spawn_scoped(scope, joined).unwrap().join().unwrap()
        })
    }

    fn budget() -> Budget {
        Allowance::new(Limits::default(), 0).budget()
    }

    /// What compilers can make of it: all sorts of references between sections.
    const CODE: &str = "
        struct node { struct node *next; int value; } list;
        enum color { RED, GREEN } shade;
        static _Thread_local int counter = 5;
        static inline int twice(int n) { int m = n; for (int i = 0; i < n; i++) m += i; return m; }
        int other(int (*call)(int), int n) { { int k = call(n); list.value += k; } return n; }
        int entry(int n) { counter += twice(n); return other(twice, n) + twice(counter) + shade; }
    ";

    /// The image and its package, in a folder that is gone.
    fn built(test: &str, compile: &[&str], pack: &str) -> (Vec<u8>, Vec<u8>) {
        let folder = std::env::temp_dir().join(format!("memdl-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("code.c"), CODE).unwrap();
        let run = |command: &[&str]| {
            let mut tool = Command::new("timeout");
            let status =
                tool.args(["-s", "KILL", "60"]).args(command).current_dir(&folder).status();
            assert!(status.is_ok_and(|status| status.success()), "{command:?}");
        };
        run(&[compile, &["-gsplit-dwarf", "-shared", "-fPIC", "code.c", "-o", "image"]].concat());
        run(&[pack, "-e", "image", "-o", "package"]);
        let read = |name| std::fs::read(Path::new(&folder).join(name)).unwrap();
        let both = (read("image"), read("package"));
        std::fs::remove_dir_all(&folder).unwrap();
        both
    }

    fn all(test: &str) -> [(Vec<u8>, Vec<u8>); 3] {
        [
            built(test, &["gcc", "-O2", "-gdwarf-4"], "dwp"),
            built(test, &["clang", "-O2", "-gdwarf-4"], "dwp"),
            built(test, &["clang", "-O2", "-gdwarf-5"], "llvm-dwp"),
        ]
    }

    #[test]
    fn what_is_joined_has_all_entries_and_refers_to_nothing_elsewhere() {
        for (image, package) in all("joined") {
            assert!(is_package(&package) && !is_package(&image));
            let whole = joins(&image, &package).unwrap();
            let headers = Headers::parse(&image_header(&whole).unwrap(), &whole).unwrap();
            let sections = unpacked(&headers, &whole, &budget()).unwrap();
            let load = |id: SectionId| {
                let contents = sections.get(id.name()).map_or(&[][..], |it| &**it);
                Ok::<_, gimli::Error>(EndianSlice::new(contents, LittleEndian))
            };
            let dwarf = gimli::Dwarf::load(load).unwrap();
            let unit = dwarf.unit(dwarf.units().next().unwrap().unwrap()).unwrap();
            assert_eq!(unit.dwo_id, None);
            let mut names = HashSet::new();
            let mut entries = unit.entries();
            while let Some(entry) = entries.next_dfs().unwrap() {
                for attribute in entry.attrs() {
                    let value = attribute.value();
                    let form = attribute.form();
                    assert!(!matches!(value, AttributeValue::DebugAddrIndex(_)), "{form}");
                    if attribute.name() == gimli::DW_AT_name {
                        let name = dwarf.attr_string(&unit, value).unwrap();
                        names.insert(name.to_string_lossy().into_owned());
                    }
                }
            }
            for name in ["node", "value", "GREEN", "counter", "twice", "call", "entry"] {
                assert!(names.contains(name), "no {name} in {names:?}");
            }
        }
    }

    #[test]
    fn the_package_of_another_build_is_refused() {
        let [by_gcc, by_clang, _] = all("another");
        let refused = joins(&by_gcc.0, &by_clang.1).unwrap_err();
        assert!(matches!(refused, NotJoined::Missing { .. }), "{refused}");
        assert!(matches!(joins(&by_gcc.1, &by_gcc.1), Err(NotJoined::NotSplit)));
    }

    /// What becomes of one unit in a package with these entries after its root, and this string.
    fn of_entries(table: &[u8], entries: &[u8], string: usize) -> Result<usize, NotJoined> {
        let unit = |entries: &[u8]| {
            let unit = [&[4, 0, 0, 0, 0, 0, 8][..], entries].concat();
            [&(unit.len() as u32).to_le_bytes()[..], &unit].concat()
        };
        let id = 7_u64.to_le_bytes();
        let skeleton = unit(&[&[1][..], &id].concat());
        let split = unit(&[&[1][..], entries].concat());
        let table = [&[1, 0x11, 1, 0, 0][..], table, &[0]].concat();
        let text = [vec![b'a'; string], vec![0]].concat();
        // Version, columns, units and slots; the slots; the columns' sections, starts and sizes.
        let sizes = [split.len() as u32, table.len() as u32, 4];
        let words = [&[2, 3, 1, 2, 0, 0, 7, 0, 0, 1, 1, 3, 6, 0, 0, 0][..], &sizes].concat();
        let index: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let ours = [
            (".debug_abbrev", vec![1, 0x11, 0, 0xb1, 0x42, 0x07, 0, 0, 0]),
            (".debug_info", skeleton),
        ];
        let theirs = [
            (".debug_abbrev.dwo", table),
            (".debug_info.dwo", split),
            (".debug_str_offsets.dwo", vec![0; 4]),
            (".debug_str.dwo", text),
            (".debug_cu_index", index),
        ];
        let map = |list: &[(&str, Vec<u8>)]| {
            list.iter().map(|(name, it)| ((*name).to_owned(), Cow::Owned(it.clone()))).collect()
        };
        let sections = joined(&map(&ours), &map(&theirs), (0, 0), 0, budget())?;
        Ok(sections.values().map(Vec::len).sum())
    }

    #[test]
    fn entries_may_not_lie_in_each_other_without_end() {
        // A block, which has children.
        let nested = |depth| [vec![2; depth], vec![0; depth + 1]].concat();
        let blocks = |depth| of_entries(&[2, 0x0b, 1, 0, 0], &nested(depth), 0);
        assert!(blocks(200).is_ok_and(|len| len > 400));
        assert!(matches!(blocks(300_000), Err(NotJoined::TooMuch)));
    }

    /// An expression with `count` others nested in it.
    fn expressions(count: usize) -> Vec<u8> {
        // Back to front.
        let mut expression = vec![0x30];
        for _ in 0..count {
            let mut len = vec![];
            push_uleb(&mut len, expression.len() as u64);
            expression.extend(len.into_iter().rev());
            expression.push(0xa3);
        }
        expression.reverse();
        expression
    }

    #[test]
    fn expressions_may_not_lie_in_each_other_without_end() {
        // A variable, and where it is.
        let inside = |count| {
            let expression = expressions(count);
            let mut entry = vec![2];
            push_uleb(&mut entry, expression.len() as u64);
            of_entries(&[2, 0x34, 0, 0x02, 0x18, 0, 0], &[entry, expression, vec![0]].concat(), 0)
        };
        assert!(inside(1).is_ok_and(|len| len > 0));
        assert!(inside(8).is_ok());
        for count in [9, 1000, 100_000] {
            assert!(matches!(inside(count), Err(NotJoined::TooMuch)), "{count}");
        }
    }

    #[test]
    fn sections_that_overlap_are_not_unpacked() {
        let zeroes = vec![0; 200_000];
        let data = miniz_oxide::deflate::compress_to_vec_zlib(&zeroes, 6);
        let size = (zeroes.len() as u64).to_le_bytes();
        let packed = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &size, &[1, 0, 0, 0, 0, 0, 0, 0], &data];
        let file = packed.concat();
        let names = super::super::headers::Names(b"\0.debug_x\0".to_vec());
        let header = SectionHeader {
            sh_name: 1,
            sh_type: SHT_PROGBITS,
            sh_flags: u64::from(goblin::elf::section_header::SHF_COMPRESSED),
            sh_size: file.len() as u64,
            ..SectionHeader::default()
        };
        let mut headers = Headers { list: vec![header], names };
        assert_eq!(unpacked(&headers, &file, &budget()).unwrap()[".debug_x"].len(), 200_000);
        headers.list.push(header);
        let refused = unpacked(&headers, &file, &budget()).unwrap_err();
        assert!(matches!(refused, NotJoined::Overlap), "{refused}");
    }

    #[test]
    fn entries_may_not_refer_to_the_same_again_and_again() {
        // A variable, named by the first string.
        let table = [2, 0x34, 0, 0x03, 0x82, 0x3e, 0, 0];
        let named =
            |count: usize| of_entries(&table, &[[2, 0].repeat(count), vec![0]].concat(), 9999);
        assert!(named(10).is_ok());
        assert!(matches!(named(50_000), Err(NotJoined::TooMuch)));
        // Attributes that take no room.
        let flags = [&[2, 0x34, 0][..], &[0x3f, 0x19].repeat(5000), &[0, 0]].concat();
        let flagged = |count| of_entries(&flags, &[vec![2; count], vec![0]].concat(), 0);
        assert!(matches!(flagged(1000), Err(NotJoined::TooMuch)));
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let values = [0, 1, 0x7f, 0x80, 0xff];
        let pairs = all("mutated").map(|(image, package)| {
            let header = image_header(&image).unwrap();
            let headers = Headers::parse(&header, &image).unwrap();
            let debug = headers.list.iter().filter(|it| headers.names.is_debug(it.sh_name));
            let start = debug.map(|it| it.sh_offset).min().unwrap() as usize;
            (image, start, package)
        });
        let mut joined = 0;
        for round in 0..6000 {
            let (image, start, package) = &pairs[round % 3];
            let (mut image, mut package) = (image.clone(), package.clone());
            for _ in 0..1 + random(6) {
                let (bytes, from) = match random(3) {
                    0 => (&mut image, *start),
                    _ => (&mut package, 64),
                };
                let at = from + random(bytes.len() - from);
                bytes[at] = match random(2) {
                    0 => values[random(values.len())],
                    _ => random(256) as u8,
                };
            }
            if let Ok(whole) = joins(&image, &package) {
                joined += 1;
                assert!(whole.len() < 64 * (image.len() + package.len()), "round {round}");
            }
        }
        assert!(joined > 600, "most damage is not noticed: {joined}");
    }
}
