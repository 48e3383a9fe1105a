//! Units and their entries (DWARF 5, 7.5), and the units whose code contains an address.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use gimli::constants::*;
use gimli::{DebugAranges, Encoding, EndianSlice, Format, LittleEndian, Reader};

use super::abbreviations::{Abbreviation, Step, Table};
use super::budget::{Budget, Result, Stop};
use super::sections::{
    Bases, Input, PcRanges, Section, Sections, StringRef, Value, section_offset, skip,
};
use crate::base::fallible::TryGrow;

/// The only `address_size` that is read: memdl loads 64-bit images.
const ADDRESS_SIZE: u8 = 8;

/// The abbreviation tables that were read, by offset, DWARF version, and whether the format is 64-bit: a
/// table says what to skip, which depends on these.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<(usize, u16, bool), Arc<Table>>);

impl Tables {
    fn get(
        &mut self,
        sections: &Sections,
        offset: usize,
        encoding: Encoding,
        budget: &mut Budget,
    ) -> Result<Arc<Table>> {
        let key = (offset, encoding.version, encoding.format == Format::Dwarf64);
        if let Some(table) = self.0.get(&key) {
            return Ok(table.clone());
        }
        budget.work(16)?;
        // About the size of an entry of the map.
        budget.keep::<[u64; 16]>(1)?;
        budget.require_memory()?;
        let table = Table::read(sections.from(Section::Abbrev, offset)?, encoding, budget)?;
        let table = Arc::new(table);
        self.0.insert(key, table.clone());
        Ok(table)
    }
}

/// The header of a unit.
struct Header {
    /// The offset of the next unit.
    end: usize,
    /// The offset of the root entry.
    entries: usize,
    abbreviations: usize,
    encoding: Encoding,
    kind: DwUt,
}

impl Header {
    fn parse(sections: &Sections, start: usize) -> Result<Header> {
        let mut input = sections.from(Section::Info, start)?;
        let (len, format) = input.read_initial_length()?;
        let mut unit = input.split(len)?;
        let version = unit.read_u16()?;
        let (kind, address_size, abbreviations);
        match version {
            2..=4 => {
                kind = DW_UT_compile;
                abbreviations = unit.read_offset(format)?;
                address_size = unit.read_u8()?;
            }
            5 => {
                kind = DwUt(unit.read_u8()?);
                address_size = unit.read_u8()?;
                abbreviations = unit.read_offset(format)?;
                match kind {
                    DW_UT_compile | DW_UT_partial => {}
                    DW_UT_skeleton | DW_UT_split_compile => skip(&mut unit, 8)?,
                    DW_UT_type | DW_UT_split_type => {
                        skip(&mut unit, 8)?;
                        unit.read_offset(format)?;
                    }
                    _ => return Err(Stop::Malformed),
                }
            }
            _ => return Err(Stop::Malformed),
        }
        if address_size != ADDRESS_SIZE {
            return Err(Stop::Malformed);
        }
        Ok(Header {
            end: section_offset(sections, Section::Info, &input),
            entries: section_offset(sections, Section::Info, &unit),
            abbreviations,
            encoding: Encoding { address_size, format, version },
            kind,
        })
    }
}

/// The offset of the next unit; `None` if the section ends before this one does.
fn end_of_unit(sections: &Sections, start: usize) -> Option<usize> {
    let mut input = sections.from(Section::Info, start).ok()?;
    let (len, _) = input.read_initial_length().ok()?;
    skip(&mut input, len as u64).ok()?;
    Some(section_offset(sections, Section::Info, &input))
}

/// A unit: what its header and its root entry say.
#[derive(Debug)]
pub(super) struct Unit {
    start: usize,
    end: usize,
    entries: usize,
    table: Arc<Table>,
    pub(super) bases: Bases,
    pub(super) name: Option<StringRef>,
    pub(super) directory: Option<StringRef>,
    /// The offset of its line program.
    pub(super) lines: Option<usize>,
    code: PcRanges,
}

impl Unit {
    fn read(
        sections: &Sections,
        tables: &mut Tables,
        start: usize,
        header: &Header,
        budget: &mut Budget,
    ) -> Result<Unit> {
        let encoding = header.encoding;
        let table = tables.get(sections, header.abbreviations, encoding, budget)?;
        let bases = Bases { encoding, str_offsets: 0, addr: 0, rnglists: 0, low_pc: 0 };
        let (end, entries) = (header.end, header.entries);
        let code = PcRanges::default();
        let (name, directory, lines) = (None, None, None);
        let mut unit = Unit { start, end, entries, table, bases, name, directory, lines, code };
        let (mut name, mut directory, mut bases) = (None, None, bases);
        let version = encoding.version;
        let mut entries = unit.entries(sections, unit.entries)?;
        let root = entries.next(budget)?.ok_or(Stop::Malformed)?;
        let (mut code, mut lines) = (PcRanges::default(), None);
        entries.attributes(&root, budget, |attribute, value| match attribute {
            DW_AT_name => name = Some(value),
            DW_AT_comp_dir => directory = Some(value),
            DW_AT_stmt_list => lines = value.offset(version),
            DW_AT_str_offsets_base => {
                bases.str_offsets = value.offset(version).unwrap_or(bases.str_offsets);
            }
            DW_AT_addr_base | DW_AT_GNU_addr_base => {
                bases.addr = value.offset(version).unwrap_or(bases.addr);
            }
            DW_AT_rnglists_base => {
                bases.rnglists = value.offset(version).unwrap_or(bases.rnglists);
            }
            attribute => code.take(attribute, value),
        })?;
        // Only now: an attribute may come before the base that it needs.
        bases.low_pc = code.low().and_then(|low| bases.address(sections, low)).unwrap_or(0);
        unit.name = name.and_then(|name| bases.string(sections, name));
        unit.directory = directory.and_then(|directory| bases.string(sections, directory));
        (unit.bases, unit.code, unit.lines) = (bases, code, lines);
        Ok(unit)
    }

    /// The entries from the offset `from` in the section on.
    pub(super) fn entries<'a>(
        &'a self,
        sections: &'a Sections,
        from: usize,
    ) -> Result<Entries<'a>> {
        if from < self.entries {
            return Err(Stop::Malformed);
        }
        let bytes = sections.bytes(Section::Info).get(from..self.end).ok_or(Stop::Malformed)?;
        let input = EndianSlice::new(bytes, LittleEndian);
        let encoding = self.bases.encoding;
        Ok(Entries { sections, table: &self.table, encoding, input, depth: 0 })
    }

    /// The offset of the root entry.
    pub(super) fn root(&self) -> usize {
        self.entries
    }

    /// The offset in the section of an `offset` in the unit.
    pub(super) fn section_offset(&self, offset: u64) -> Option<usize> {
        self.start.checked_add(usize::try_from(offset).ok()?).filter(|&at| at < self.end)
    }
}

/// An entry (DIE) whose attributes were not read yet.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Its offset in the section.
    pub(super) at: usize,
    pub(super) tag: DwTag,
    /// Its depth in the tree, relative to the first entry that was read.
    pub(super) depth: isize,
    steps: &'a [Step],
}

/// Reads entries in the order of the section, which is that of a walk through their tree.
pub(super) struct Entries<'a> {
    sections: &'a Sections,
    table: &'a Table,
    encoding: Encoding,
    input: Input<'a>,
    depth: isize,
}

impl<'a> Entries<'a> {
    /// The next entry; `None` at the end of the unit. Call [`Entries::attributes`] or [`Entries::skip`]
    /// before the next call.
    pub(super) fn next(&mut self, budget: &mut Budget) -> Result<Option<Entry<'a>>> {
        while !self.input.is_empty() {
            budget.work(1)?;
            let at = section_offset(self.sections, Section::Info, &self.input);
            let code = self.input.read_uleb128()?;
            if code == 0 {
                self.depth = self.depth.saturating_sub(1);
                continue;
            }
            let abbreviation: &Abbreviation = self.table.get(code).ok_or(Stop::Malformed)?;
            let depth = self.depth;
            if abbreviation.has_children {
                self.depth = depth.saturating_add(1);
            }
            let steps = self.table.steps(abbreviation);
            return Ok(Some(Entry { at, tag: abbreviation.tag, depth, steps }));
        }
        Ok(None)
    }

    /// Calls `each` with the attributes of the entry that was read last.
    pub(super) fn attributes(
        &mut self,
        entry: &Entry<'a>,
        budget: &mut Budget,
        mut each: impl FnMut(DwAt, Value),
    ) -> Result<()> {
        for step in entry.steps {
            match *step {
                Step::Skip(bytes) => skip(&mut self.input, bytes.into())?,
                Step::SkipValue(form) => {
                    self.value(form, None, budget)?;
                }
                Step::Read(name, form) => each(name, self.value(form, None, budget)?),
                Step::ImplicitConst(name, value) => {
                    each(name, self.value(DW_FORM_implicit_const, Some(value), budget)?);
                }
            }
        }
        Ok(())
    }

    /// Skips the attributes of the entry that was read last.
    pub(super) fn skip(&mut self, entry: &Entry<'a>, budget: &mut Budget) -> Result<()> {
        for step in entry.steps {
            match *step {
                Step::Skip(bytes) => skip(&mut self.input, bytes.into())?,
                Step::SkipValue(form) | Step::Read(_, form) => {
                    self.value(form, None, budget)?;
                }
                Step::ImplicitConst(..) => {}
            }
        }
        Ok(())
    }

    fn value(&mut self, form: DwForm, known: Option<i64>, budget: &mut Budget) -> Result<Value> {
        let (input, section) = (&mut self.input, Section::Info);
        Value::read(self.sections, section, input, form, known, self.encoding, budget)
    }
}

/// A range of a unit's code.
#[derive(Clone, Copy, Debug)]
struct UnitRange {
    begin: u64,
    end: u64,
    /// The least `begin` of this range and all after it.
    min_begin: u64,
    unit: u32,
}

/// Adds a range of addresses.
type AddRange<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;
/// Calls back with the address ranges of the line program at an offset.
type LineRanges<'a> = dyn FnMut(&mut Budget, usize, &mut AddRange<'_>) -> Result<()> + 'a;

/// All units of an image.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// The offset of each, ascending. A unit's number is its index here.
    starts: Vec<usize>,
    /// Ascending by their ends.
    ranges: Vec<UnitRange>,
    tables: Tables,
    read: BTreeMap<u32, Option<Arc<Unit>>>,
}

impl Units {
    /// Reads the root entries of all units, until the budget is spent. `lines` gives the ranges of a line
    /// program, for units that do not state where their code is.
    pub(super) fn find(
        sections: &Sections,
        budget: &mut Budget,
        mut lines: impl FnMut(&mut Budget, usize, &mut AddRange<'_>) -> Result<()>,
    ) -> Units {
        let mut units = Units::default();
        // When the budget is spent, the units that were found count.
        let _ = units.find_all(sections, budget, &mut lines);
        // Merged, so that a unit that states the same code a million times is found once.
        units.ranges.sort_unstable_by_key(|range| (range.unit, range.begin));
        units.ranges.dedup_by(|next, before| {
            let is_one = next.unit == before.unit && next.begin < before.end;
            if is_one {
                before.end = before.end.max(next.end);
            }
            is_one
        });
        units.ranges.sort_unstable_by_key(|range| (range.end, range.unit, range.begin));
        let mut min = u64::MAX;
        for range in units.ranges.iter_mut().rev() {
            min = min.min(range.begin);
            range.min_begin = min;
        }
        units
    }

    fn find_all(
        &mut self,
        sections: &Sections,
        budget: &mut Budget,
        lines: &mut LineRanges<'_>,
    ) -> Result<()> {
        let sets = address_sets(sections, budget)?;
        let mut start = 0;
        while let Some(end) = end_of_unit(sections, start) {
            budget.work(8)?;
            let number = u32::try_from(self.starts.len()).map_err(|_| Stop::Malformed)?;
            budget.push(&mut self.starts, start)?;
            match self.find_ranges(sections, budget, start, number, &sets, lines) {
                Ok(()) | Err(Stop::Malformed) => {}
                Err(Stop::Spent) => return Err(Stop::Spent),
            }
            start = end;
        }
        Ok(())
    }

    /// Finds the ranges of a unit's code. The source is the first of these that has any:
    /// `.debug_aranges`, unless the unit has `DW_AT_ranges`; `DW_AT_ranges`, or `DW_AT_low_pc` with
    /// `DW_AT_high_pc`; the line program.
    fn find_ranges(
        &mut self,
        sections: &Sections,
        budget: &mut Budget,
        start: usize,
        number: u32,
        sets: &[(usize, usize)],
        lines: &mut LineRanges<'_>,
    ) -> Result<()> {
        let header = Header::parse(sections, start)?;
        // Type units and partial units have no code.
        if !matches!(header.kind, DW_UT_compile | DW_UT_skeleton | DW_UT_split_compile) {
            return Ok(());
        }
        let unit = Unit::read(sections, &mut self.tables, start, &header, budget)?;
        let ranges = &mut self.ranges;
        let mut add = |budget: &mut Budget, begin, end| {
            budget.push(ranges, UnitRange { begin, end, min_begin: 0, unit: number })
        };
        let mut any = false;
        if !unit.code.has_list() {
            let first = sets.partition_point(|&(info, _)| info < start);
            let sets = sets.get(first..).unwrap_or_default();
            for &(_, set) in sets.iter().take_while(|&&(info, _)| info == start) {
                any |= each_range_of_set(sections, set, budget, &mut add)?;
            }
        }
        if !any {
            any = unit.code.each(sections, &unit.bases, budget, &mut add)?;
        }
        if let (false, Some(program)) = (any, unit.lines) {
            let mut own = Vec::new();
            let mut refused = None;
            let found = lines(budget, program, &mut |begin, end| {
                own.try_push((begin, end)).map_err(|error| {
                    refused = Some(error);
                    Stop::Spent
                })
            });
            if let Some(error) = refused {
                return Err(budget.without_memory(error));
            }
            for (begin, end) in own {
                add(budget, begin, end)?;
            }
            found?;
        }
        Ok(())
    }

    /// The ranges of units that overlap these addresses: the unit's number, the range's begin and end.
    pub(super) fn at(&self, begin: u64, end: u64) -> impl Iterator<Item = (u32, u64, u64)> + '_ {
        let first = self.ranges.partition_point(|range| range.end <= begin);
        let ranges = self.ranges.get(first..).unwrap_or_default().iter();
        ranges
            .take_while(move |range| range.min_begin < end)
            .filter(move |range| range.begin < end)
            .map(|range| (range.unit, range.begin, range.end))
    }

    /// The unit of this number, with its root entry. It is read once.
    pub(super) fn get(
        &mut self,
        sections: &Sections,
        number: u32,
        budget: &mut Budget,
    ) -> Option<Arc<Unit>> {
        if let Some(unit) = self.read.get(&number) {
            return unit.clone();
        }
        let start = *self.starts.get(number as usize)?;
        budget.work(16).ok()?;
        budget.keep::<[Unit; 2]>(1).ok()?;
        budget.require_memory().ok()?;
        let tables = &mut self.tables;
        let unit = budget.share(|budget| {
            let header = Header::parse(sections, start)?;
            Unit::read(sections, tables, start, &header, budget)
        });
        let unit = unit.ok().map(Arc::new);
        self.read.insert(number, unit.clone());
        unit
    }

    /// The number of the unit that contains this offset in the section.
    pub(super) fn holding(&self, at: usize) -> Option<u32> {
        let after = self.starts.partition_point(|&start| start <= at);
        u32::try_from(after.checked_sub(1)?).ok()
    }
}

/// The sets of `.debug_aranges`: the offsets of the unit and of the set, ascending.
fn address_sets(sections: &Sections, budget: &mut Budget) -> Result<Vec<(usize, usize)>> {
    let aranges =
        DebugAranges::from(EndianSlice::new(sections.bytes(Section::Aranges), LittleEndian));
    let mut sets = Vec::new();
    let mut headers = aranges.headers();
    while let Ok(Some(header)) = headers.next() {
        budget.work(4)?;
        budget.push(&mut sets, (header.debug_info_offset().0, header.offset().0))?;
    }
    sets.sort_unstable();
    Ok(sets)
}

/// Calls `add` with the ranges of a set of `.debug_aranges`. Returns whether there was any.
fn each_range_of_set(
    sections: &Sections,
    set: usize,
    budget: &mut Budget,
    add: &mut dyn FnMut(&mut Budget, u64, u64) -> Result<()>,
) -> Result<bool> {
    let aranges =
        DebugAranges::from(EndianSlice::new(sections.bytes(Section::Aranges), LittleEndian));
    let mut any = false;
    let Ok(header) = aranges.header(gimli::DebugArangesOffset(set)) else { return Ok(false) };
    let mut entries = header.entries();
    while let Ok(Some(entry)) = entries.next_raw() {
        budget.work(1)?;
        let (begin, len) = (entry.address(), entry.length());
        if let Some(end) = begin.checked_add(len)
            && len != 0
            && begin < super::sections::TOMBSTONE
        {
            add(budget, begin, end)?;
            any = true;
        }
    }
    Ok(any)
}
