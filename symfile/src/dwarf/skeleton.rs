//! Split DWARF: units whose entries are in a file that only a debugger has (`.dwo`, `-gsplit-dwarf`).
//!
//! The image has a *skeleton* of such a unit: where its lines are, and the name of the file. Two things are
//! done about skeletons:
//!
//! * In DWARF 5 they have a tag of their own. When the file is missing gdb (13.1) refuses it, "unexpected
//!   tag 'DW_TAG_skeleton_unit'", and then sets none of its breakpoints, in no library. DWARF 4, and
//!   so gdb, knows a skeleton by its attributes: with the tag of an ordinary unit gdb shows functions'
//!   names and lines without the file, and all with it.
//! * Locations in the file take addresses from `.debug_addr`. Which of its entries belong to
//!   split units, and what skeletons say about them, is found here; [`super::tls_locations`] finds what the
//!   entries are.
//!
//! It reads only the first entry of each unit, each table of abbreviations once, each byte of the lists of
//! ranges once, and never more than the [`Budget`] allows.
//!
//! Sources: DWARF 5, 3.1.2 (skeleton units), 7.5.3 (abbreviations), 7.25 (ranges), 7.27
//! (`.debug_addr`); gdb `dwarf2/read.c` (`cutu_reader`).

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use gimli::{
    AttributeValue, DW_AT_GNU_addr_base, DW_AT_GNU_dwo_name, DW_AT_addr_base, DW_AT_dwo_name,
    DW_AT_high_pc, DW_AT_low_pc, DW_AT_ranges, DW_AT_rnglists_base, DW_AT_stmt_list,
    DW_FORM_implicit_const, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugInfoOffset,
    DebugRanges, DebugRngLists, DebugRngListsBase, DebuggingInformationEntry, Encoding,
    EndianSlice, LittleEndian, RangeLists, RangeListsOffset, RawRngListEntry, Reader,
};

use super::budget::{Budget, OverBudget};
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{
    TryGrow, check_room, require_memory, require_memory_for_next, try_collect, try_filled,
    try_insert,
};

/// The cost of noting something, in steps: it takes memory.
const NOTED: usize = 8;

/// The cost of reading an attribute of a skeleton, in steps.
const ATTRIBUTE: usize = 8;

/// The tag of an ordinary unit.
const DW_TAG_COMPILE_UNIT: u8 = 0x11;

type Input<'a> = EndianSlice<'a, LittleEndian>;

/// The largest table of abbreviations that belongs to split units, in bytes. gimli's has thirty times
/// that; compilers' have some thousand bytes.
const MAX_TABLE: usize = 1 << 20;

/// The most memory that gimli's table takes for each of these bytes, while it grows.
const OF_TABLE: usize = 96;

/// Why split units cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SkeletonError {
    #[error("{0}")]
    Unreadable(#[from] gimli::Error),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("{0}")]
    Memory(#[from] OutOfMemory),
}

/// Sections that refer to each other, not compressed; empty where there is none.
#[derive(Default)]
pub struct SplitSections<'a> {
    /// `.debug_abbrev`, which the [`Abbreviations`] were read from.
    pub abbreviations: &'a [u8],
    /// `.debug_info`.
    pub entries: &'a [u8],
    /// `.debug_ranges`, up to DWARF 4.
    pub ranges: &'a [u8],
    /// `.debug_rnglists`, from DWARF 5 on.
    pub lists: &'a [u8],
}

/// What a skeleton says about the addresses that its unit refers to.
#[derive(Debug, PartialEq, Eq)]
pub struct SplitUnit {
    /// Its part of `.debug_addr`.
    pub addresses: Range<usize>,
    /// The entries at which its code begins, counted from 0, as far as the skeleton refers to them.
    pub code: BTreeSet<usize>,
    /// How many parts of its code the linker discarded, of those that the skeleton states itself.
    pub discarded: usize,
    /// Whether the entries of variables come before those of code.
    pub variables_first: bool,
}

/// All tables of `.debug_abbrev`.
pub struct Abbreviations {
    /// For each byte of the section a bit: whether a table begins there. Each zero may be an empty
    /// table.
    starts: Vec<u64>,
    /// The table and the code of each abbreviation that names a file.
    split: HashSet<(usize, u64)>,
    /// Where the tags of skeletons are, each a byte.
    skeletons: Vec<usize>,
}

impl Abbreviations {
    /// `DW_TAG_skeleton_unit`; a section without this byte has none.
    pub const SKELETON: u8 = 0x4a;

    /// Reads the tables one after the other, up to the first that is malformed.
    pub fn read(section: &[u8], budget: &Budget) -> Result<Abbreviations, SkeletonError> {
        let starts = try_filled(0, (section.len() / 64).saturating_add(1))?;
        let mut all = Abbreviations { starts, split: HashSet::new(), skeletons: vec![] };
        let mut input = EndianSlice::new(section, LittleEndian);
        let mut table = 0;
        all.begin(table);
        while !input.is_empty() {
            match all.read_one(section.len(), table, &mut input, budget) {
                Ok(false) => {}
                Ok(true) => {
                    table = section.len().saturating_sub(input.len());
                    all.begin(table);
                }
                // A truncated one is no abbreviation.
                Err(SkeletonError::Unreadable(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Notes that a table begins here.
    fn begin(&mut self, at: usize) {
        if let Some(bits) = self.starts.get_mut(at / 64) {
            *bits |= 1 << (at % 64);
        }
    }

    pub fn begins(&self, at: usize) -> bool {
        self.starts.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 != 0)
    }

    /// The length of the table that begins here, in a section of this length.
    pub fn table_len(&self, table: usize, section: usize) -> usize {
        let next = (table..section).skip(1).take(MAX_TABLE).find(|&at| self.begins(at));
        next.unwrap_or(section).saturating_sub(table)
    }

    /// Whether it was the end of a table.
    fn read_one(
        &mut self,
        len: usize,
        table: usize,
        input: &mut EndianSlice<'_, LittleEndian>,
        budget: &Budget,
    ) -> Result<bool, SkeletonError> {
        budget.step(1)?;
        let code = input.read_uleb128()?;
        if code == 0 {
            return Ok(true);
        }
        let at = len.saturating_sub(input.len());
        if input.read_uleb128()? == u64::from(Abbreviations::SKELETON)
            && len.saturating_sub(input.len()) == at.saturating_add(1)
        {
            budget.step(NOTED)?;
            self.skeletons.try_push(at)?;
        }
        input.read_u8()?;
        loop {
            budget.step(1)?;
            let (name, form) = (input.read_uleb128()?, input.read_uleb128()?);
            if name == 0 && form == 0 {
                return Ok(false);
            }
            if form == u64::from(DW_FORM_implicit_const.0) {
                input.read_sleb128()?;
            }
            if [DW_AT_dwo_name, DW_AT_GNU_dwo_name].iter().any(|it| u64::from(it.0) == name) {
                budget.step(NOTED)?;
                try_insert(&mut self.split, (table, code))?;
            }
        }
    }

    /// Whether there is a unit whose entries are in another file.
    pub fn has_split(&self) -> bool {
        !self.split.is_empty()
    }

    /// Whether there is a skeleton with the tag of one.
    pub fn has_skeletons(&self) -> bool {
        !self.skeletons.is_empty()
    }

    /// Gives skeletons the tag of an ordinary unit.
    pub fn make_ordinary(&self, section: &mut [u8]) {
        for &at in &self.skeletons {
            if let Some(tag) = section.get_mut(at) {
                *tag = DW_TAG_COMPILE_UNIT;
            }
        }
    }

    /// The parts of a `.debug_addr` of `len` bytes that belong to split units, ascending.
    pub fn units(
        &self,
        sections: &SplitSections<'_>,
        len: usize,
        budget: &Budget,
    ) -> Result<Vec<SplitUnit>, SkeletonError> {
        let section = DebugAbbrev::new(sections.abbreviations, LittleEndian);
        let entries = DebugInfo::new(sections.entries, LittleEndian);
        // Units that share a table come together, so that one table is kept at a time and read once.
        let mut split: Vec<(usize, usize)> = Vec::new();
        let mut units = entries.units();
        while let Some(unit) = units.next()? {
            budget.step(4)?;
            let table = unit.debug_abbrev_offset().0;
            if !self.begins(table) {
                return Err(gimli::Error::InvalidAbbreviationCode(0).into());
            }
            let id = unit.range_from(unit.root_offset()..)?.read_uleb128()?;
            if self.split.contains(&(table, id))
                && let Some(offset) = unit.debug_info_offset()
            {
                budget.step(NOTED)?;
                split.try_push((table, offset.0))?;
            }
        }
        split.sort_unstable();
        let mut found = BTreeMap::new();
        let mut code = Code::new(sections, budget);
        for units in split.chunk_by(|(one, _), (other, _)| one == other) {
            let table = units.first().map_or(0, |&(table, _)| table);
            let table_len = self.table_len(table, sections.abbreviations.len());
            if table_len > MAX_TABLE {
                return Err(gimli::Error::UnsupportedOffset.into());
            }
            check_room(table_len.saturating_mul(OF_TABLE))?;
            let abbreviations = section.abbreviations(DebugAbbrevOffset(table))?;
            for (index, &(_, offset)) in units.iter().enumerate() {
                require_memory_for_next(index)?;
                let unit = entries.header_from_offset(DebugInfoOffset(offset))?;
                // Attributes that take no room may be many.
                let id = unit.range_from(unit.root_offset()..)?.read_uleb128()?;
                let attributes = abbreviations.get(id).map_or(0, |it| it.attributes().len());
                budget.step(attributes.saturating_mul(ATTRIBUTE))?;
                let mut entries = unit.entries(&abbreviations);
                let Some(root) = entries.next_dfs()? else { continue };
                for name in [DW_AT_addr_base, DW_AT_GNU_addr_base] {
                    let Some(AttributeValue::DebugAddrBase(base)) = root.attr_value(name) else {
                        continue;
                    };
                    if base.0 < len {
                        let unit_here = found.entry(base.0).or_insert_with(|| SplitUnit {
                            addresses: base.0..len,
                            code: BTreeSet::new(),
                            discarded: 0,
                            variables_first: true,
                        });
                        code.read(root, unit.encoding(), unit_here)?;
                    }
                }
            }
        }
        let mut found: Vec<SplitUnit> = try_collect(found.into_values())?;
        let starts: Vec<usize> = try_collect(found.iter().map(|unit| unit.addresses.start))?;
        for (unit, &next) in found.iter_mut().zip(starts.iter().skip(1)) {
            unit.addresses.end = next;
        }
        Ok(found)
    }
}

/// Reads where skeletons state their code.
struct Code<'a, 'b> {
    lists: RangeLists<Input<'a>>,
    /// How many entries of lists may still be read: units share no lists, unless they lie.
    left: usize,
    budget: &'b Budget,
}

impl<'a, 'b> Code<'a, 'b> {
    fn new(sections: &SplitSections<'a>, budget: &'b Budget) -> Code<'a, 'b> {
        let ranges = DebugRanges::new(sections.ranges, LittleEndian);
        let lists = DebugRngLists::new(sections.lists, LittleEndian);
        let left = sections.ranges.len().saturating_add(sections.lists.len());
        Code { lists: RangeLists::new(ranges, lists), left, budget }
    }

    /// Adds the code of this skeleton to `unit`.
    fn read(
        &mut self,
        root: &DebuggingInformationEntry<Input<'a>>,
        encoding: Encoding,
        unit: &mut SplitUnit,
    ) -> Result<(), SkeletonError> {
        // LLVM's begin with that, gcc's with where the code is.
        unit.variables_first &=
            root.attrs().first().is_some_and(|first| first.name() == DW_AT_stmt_list);
        let ranges = root.attr_value(DW_AT_ranges);
        if ranges.is_none()
            && let Some(AttributeValue::DebugAddrIndex(index)) = root.attr_value(DW_AT_low_pc)
        {
            unit.add_code(index.0)?;
        }
        let offset = match ranges {
            Some(AttributeValue::RangeListsRef(offset)) => RangeListsOffset(offset.0),
            Some(AttributeValue::DebugRngListsIndex(index)) => {
                let base = match root.attr_value(DW_AT_rnglists_base) {
                    Some(AttributeValue::DebugRngListsBase(base)) => base,
                    _ => DebugRngListsBase(0),
                };
                self.lists.get_offset(encoding, base, index)?
            }
            _ => {
                if let Some(AttributeValue::Addr(start)) = root.attr_value(DW_AT_low_pc)
                    && root.attr_value(DW_AT_high_pc).is_some()
                {
                    unit.count_discarded(start);
                }
                return Ok(());
            }
        };
        let mut ranges = self.lists.raw_ranges(offset, encoding)?;
        while let Some(range) = ranges.next()? {
            self.budget.step(NOTED)?;
            self.left =
                self.left.checked_sub(1).ok_or(gimli::Error::OffsetOutOfBounds(offset.0 as u64))?;
            match range {
                RawRngListEntry::StartxLength { begin, .. }
                | RawRngListEntry::StartxEndx { begin, .. }
                | RawRngListEntry::BaseAddressx { addr: begin } => {
                    unit.add_code(begin.0)?;
                }
                RawRngListEntry::AddressOrOffsetPair { begin, .. }
                | RawRngListEntry::StartEnd { begin, .. }
                | RawRngListEntry::StartLength { begin, .. } => {
                    unit.count_discarded(begin);
                }
                RawRngListEntry::BaseAddress { .. } | RawRngListEntry::OffsetPair { .. } => {}
            }
        }
        Ok(())
    }
}

impl SplitUnit {
    fn add_code(&mut self, index: usize) -> Result<(), OutOfMemory> {
        /// This many take a small part of the spare memory.
        const AT_ONCE: usize = 64;
        if self.code.len() % AT_ONCE == AT_ONCE - 1 {
            require_memory()?;
        }
        self.code.insert(index);
        Ok(())
    }

    fn count_discarded(&mut self, address: u64) {
        self.discarded = self.discarded.saturating_add(usize::from(is_discarded(address)));
    }
}

/// Whether a linker states this address for discarded code: 0, or 1 where 0 would end a list of DWARF 4.
fn is_discarded(address: u64) -> bool {
    address <= 1 || address >= u64::MAX - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::dwarf::budget::Allowance;

    fn budget() -> Budget {
        Allowance::new(Limits::default(), 0).budget()
    }

    fn read(section: &[u8]) -> Abbreviations {
        Abbreviations::read(section, &budget()).unwrap()
    }

    /// Two tables: a skeleton of DWARF 5 that refers to a file, with an attribute of each sort; and
    /// a unit that does not. Then one more skeleton.
    const TABLES: &[u8] = &[
        1, 0x4a, 0, 0x76, 0x25, 0x73, 0x17, 0x3b, 0x21, 0xff, 0x7e, 0, 0, // code 1
        2, 0x34, 0, 0x4a, 0x0b, 0, 0, 0, // code 2, and the end
        1, 0x11, 1, 0x03, 0x08, 0, 0, 0, // the second table
        0x81, 1, 0x4a, 1, 0x76, 0x25, 0, 0, 0, // the third
    ];

    #[test]
    fn tags_of_skeletons_are_found_and_nothing_else() {
        let all = read(TABLES);
        assert_eq!(all.skeletons, [1, 31]);
        let tables = (0..=TABLES.len()).filter(|&at| all.begins(at));
        assert_eq!(tables.collect::<Vec<_>>(), [0, 21, 29, 38]);
        assert_eq!([0, 21, 29].map(|table| all.table_len(table, TABLES.len())), [21, 8, 9]);
        assert_eq!(all.split, HashSet::from([(0, 1), (29, 129)]));
        let mut changed = TABLES.to_vec();
        all.make_ordinary(&mut changed);
        let differ = (0..TABLES.len()).filter(|&at| TABLES[at] != changed[at]);
        assert_eq!(differ.collect::<Vec<_>>(), [1, 31]);
        assert!(!read(&changed).has_skeletons());
        assert!(read(&changed).has_split());
    }

    #[test]
    fn tables_that_are_cut_off_are_read_up_to_there() {
        for end in 0..TABLES.len() {
            let all = read(&TABLES[..end]);
            assert!(all.skeletons.len() <= 2);
        }
        assert!(read(&[0xff; 64]).skeletons.is_empty());
    }

    /// The skeleton units of these offsets in `.debug_addr`, of the first table.
    fn entries(bases: &[u32], code: u8, table: u32) -> Vec<u8> {
        let unit = |base: &u32| {
            let mut unit = vec![5, 0, 4, 8];
            unit.extend(table.to_le_bytes());
            unit.extend([0; 8]);
            unit.extend([code, 0]);
            unit.extend(base.to_le_bytes());
            [&(unit.len() as u32).to_le_bytes()[..], &unit].concat()
        };
        bases.iter().flat_map(unit).collect()
    }

    /// The split units in these sections.
    fn told(
        all: &Abbreviations,
        entries: &[u8],
        ranges: &[u8],
        lists: &[u8],
    ) -> Result<Vec<SplitUnit>, SkeletonError> {
        all.units(&SplitSections { abbreviations: TABLES, entries, ranges, lists }, 100, &budget())
    }

    #[test]
    fn each_split_unit_has_its_part_of_the_addresses() {
        let all = read(TABLES);
        let of = |entries: &[u8]| {
            let units = told(&all, entries, &[], &[])?.into_iter();
            Ok::<_, SkeletonError>(units.map(|unit| unit.addresses).collect::<Vec<_>>())
        };
        assert_eq!(of(&entries(&[48, 8], 1, 0)).unwrap(), [8..48, 48..100]);
        assert_eq!(of(&entries(&[8, 8, 16, 200], 1, 0)).unwrap(), [8..16, 16..100]);
        assert!(of(&entries(&[8], 2, 0)).unwrap().is_empty());
        assert!(of(&entries(&[8], 1, 1)).is_err());
        assert!(of(&entries(&[8], 1, 0)[..20]).is_err());
    }

    /// A skeleton of this version, of these attributes besides the file's name: the name, the form
    /// and the value.
    fn skeleton(version: u8, attributes: &[(u16, u8, &[u8])]) -> (Vec<u8>, Vec<u8>) {
        let mut table = vec![1, 0x11, 0];
        let mut unit = vec![version, 0];
        match version {
            4 => unit.extend([0, 0, 0, 0, 8]),
            _ => unit.extend([4, 8, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        }
        unit.push(1);
        for &(name, form, value) in attributes {
            // The names of GNU's take two bytes.
            table.extend(match name {
                0..0x80 => vec![name as u8],
                _ => vec![name as u8 | 0x80, (name >> 7) as u8],
            });
            table.push(form);
            unit.extend(value);
        }
        table.extend([0x76, 0x08, 0, 0, 0]);
        unit.extend(b"a.dwo\0");
        (table, [&(unit.len() as u32).to_le_bytes()[..], &unit].concat())
    }

    const RANGES: u16 = 0x55;
    const STMT_LIST: u16 = 0x10;
    const ADDR_BASE: u16 = 0x73;
    const GNU_ADDR_BASE: u16 = 0x2133;
    const OFFSET: u8 = 0x17;

    fn told_of(
        skeleton: &(Vec<u8>, Vec<u8>),
        ranges: &[u8],
        lists: &[u8],
    ) -> Result<Vec<SplitUnit>, SkeletonError> {
        let (table, entries) = skeleton;
        let all = read(table);
        all.units(&SplitSections { abbreviations: table, entries, ranges, lists }, 100, &budget())
    }

    #[test]
    fn what_is_stated_of_code_that_was_thrown_away_is_counted() {
        let gcc =
            skeleton(4, &[(RANGES, OFFSET, &[16, 0, 0, 0]), (GNU_ADDR_BASE, OFFSET, &[0; 4])]);
        let pairs = [9, 9, 0x1000, 0x1010, 1, 1, 0x1010, 0x1020, 1, 1, 0, 0, 1, 1];
        let ranges = pairs.map(|it: u64| it.to_le_bytes());
        let units = told_of(&gcc, ranges.as_flattened(), &[]).unwrap();
        let code = BTreeSet::new();
        let of = SplitUnit { addresses: 0..100, code, discarded: 2, variables_first: false };
        assert_eq!(units, [of]);
    }

    #[test]
    fn entries_that_ranges_refer_to_are_code() {
        let attributes: [(u16, u8, &[u8]); 3] = [
            (STMT_LIST, OFFSET, &[0; 4]),
            (RANGES, OFFSET, &[12, 0, 0, 0]),
            (ADDR_BASE, OFFSET, &[8, 0, 0, 0]),
        ];
        let llvm = skeleton(5, &attributes);
        // `startx_length`, `base_addressx`, an offset pair, and the end.
        let list = [3, 5, 16, 1, 2, 4, 0, 9, 0];
        let header = [4 + 2 + 2 + list.len() as u8 - 2, 0, 0, 0, 5, 0, 8, 0, 0, 0, 0, 0];
        let lists = [&header[..], &list].concat();
        let units = told_of(&llvm, &[], &lists).unwrap();
        let code = BTreeSet::from([2, 5]);
        let of = SplitUnit { addresses: 8..100, code, discarded: 0, variables_first: true };
        assert_eq!(units, [of]);
        assert!(told_of(&llvm, &[], &lists[..lists.len() - 2]).is_err());
    }

    #[test]
    fn units_that_share_a_list_do_not_have_it_read_again_and_again() {
        let unit = skeleton(4, &[(RANGES, OFFSET, &[0; 4]), (GNU_ADDR_BASE, OFFSET, &[0; 4])]);
        let ranges = [1_u64; 2000].map(u64::to_le_bytes);
        let many = (unit.0, unit.1.repeat(1000));
        assert!(told_of(&many, ranges.as_flattened(), &[]).is_err());
    }
}
