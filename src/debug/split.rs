//! Split DWARF: units whose entries are in a file that only a debugger has (`.dwo`, `-gsplit-dwarf`).
//!
//! What the image has of such a unit is a *skeleton*: where its lines are, and the name of the file.
//! Two things are done about skeletons:
//!
//! * In DWARF 5 they have a tag of their own. When the file is missing gdb (13.1) refuses it, "unexpected
//!   tag 'DW_TAG_skeleton_unit'", and then sets none of its breakpoints, in no library. DWARF 4, and
//!   so gdb, knows a skeleton by its attributes: with the tag of an ordinary unit gdb shows functions'
//!   names and lines without the file, and all with it.
//! * Locations in the file take addresses from `.debug_addr`. Which of the entries there belong to
//!   split units is told here; [`super::thread_local`] tells what they are.
//!
//! It reads no entries but the first of each unit, and each table of abbreviations once.
//!
//! Sources: DWARF 5, 3.1.2 (skeleton units), 7.5.3 (abbreviations), 7.27 (`.debug_addr`); gdb
//! `dwarf2/read.c` (`cutu_reader`).

#![forbid(unsafe_code)]

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use gimli::{
    AttributeValue, DW_AT_GNU_addr_base, DW_AT_GNU_dwo_name, DW_AT_addr_base, DW_AT_dwo_name,
    DW_FORM_implicit_const, DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, Reader,
};

/// The tag of an ordinary unit.
const DW_TAG_COMPILE_UNIT: u8 = 0x11;

/// All tables of `.debug_abbrev`.
pub(super) struct Abbreviations {
    /// Where each table begins.
    tables: HashSet<usize>,
    /// The table and the code of each that names a file.
    split: HashSet<(usize, u64)>,
    /// Where the tags of skeletons are, each a byte.
    skeletons: Vec<usize>,
}

impl Abbreviations {
    /// `DW_TAG_skeleton_unit`; a section without this byte has none.
    pub(super) const SKELETON: u8 = 0x4a;

    /// Reads them one after the other; up to where they cannot be read.
    pub(super) fn read(section: &[u8]) -> Abbreviations {
        let mut all =
            Abbreviations { tables: HashSet::new(), split: HashSet::new(), skeletons: vec![] };
        let mut input = EndianSlice::new(section, LittleEndian);
        let mut table = 0;
        all.tables.insert(table);
        while !input.is_empty() {
            // What is cut off is no abbreviation.
            let Ok(end) = all.read_one(section.len(), table, &mut input) else { break };
            if end {
                table = section.len() - input.len();
                all.tables.insert(table);
            }
        }
        all
    }

    /// Whether it was the end of a table.
    fn read_one(
        &mut self,
        len: usize,
        table: usize,
        input: &mut EndianSlice<'_, LittleEndian>,
    ) -> gimli::Result<bool> {
        let code = input.read_uleb128()?;
        if code == 0 {
            return Ok(true);
        }
        let at = len - input.len();
        if input.read_uleb128()? == u64::from(Abbreviations::SKELETON)
            && len - input.len() == at + 1
        {
            self.skeletons.push(at);
        }
        input.read_u8()?;
        loop {
            let (name, form) = (input.read_uleb128()?, input.read_uleb128()?);
            if name == 0 && form == 0 {
                return Ok(false);
            }
            if form == u64::from(DW_FORM_implicit_const.0) {
                input.read_sleb128()?;
            }
            if [DW_AT_dwo_name, DW_AT_GNU_dwo_name].iter().any(|it| u64::from(it.0) == name) {
                self.split.insert((table, code));
            }
        }
    }

    /// Whether there is a unit whose entries are in another file.
    pub(super) fn has_split(&self) -> bool {
        !self.split.is_empty()
    }

    /// Whether there is a skeleton that says so by its tag.
    pub(super) fn has_skeletons(&self) -> bool {
        !self.skeletons.is_empty()
    }

    /// Makes skeletons known by their attributes only.
    pub(super) fn make_ordinary(&self, section: &mut [u8]) {
        for &at in &self.skeletons {
            if let Some(tag) = section.get_mut(at) {
                *tag = DW_TAG_COMPILE_UNIT;
            }
        }
    }

    /// The parts of a `.debug_addr` of `len` bytes that belong to split units. `abbreviations` and
    /// `entries` are the sections that these were read from, and that refers to them.
    pub(super) fn addresses(
        &self,
        abbreviations: &[u8],
        entries: &[u8],
        len: usize,
    ) -> gimli::Result<Vec<Range<usize>>> {
        let section = DebugAbbrev::new(abbreviations, LittleEndian);
        let mut read = HashMap::new();
        let mut starts = BTreeSet::new();
        let mut units = DebugInfo::new(entries, LittleEndian).units();
        while let Some(unit) = units.next()? {
            let table = unit.debug_abbrev_offset().0;
            if !self.tables.contains(&table) {
                return Err(gimli::Error::InvalidAbbreviationCode(0));
            }
            let code = unit.range_from(unit.root_offset()..)?.read_uleb128()?;
            if !self.split.contains(&(table, code)) {
                continue;
            }
            let abbreviations = match read.entry(table) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(unit.abbreviations(&section)?),
            };
            let mut entries = unit.entries(abbreviations);
            let Some(root) = entries.next_dfs()? else { continue };
            for name in [DW_AT_addr_base, DW_AT_GNU_addr_base] {
                if let Some(AttributeValue::DebugAddrBase(base)) = root.attr_value(name) {
                    starts.insert(base.0);
                }
            }
        }
        let starts: Vec<usize> = starts.into_iter().filter(|&start| start < len).collect();
        let ends = starts.iter().skip(1).copied().chain([len]);
        Ok(starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let all = Abbreviations::read(TABLES);
        assert_eq!(all.skeletons, [1, 31]);
        assert_eq!(all.tables, HashSet::from([0, 21, 29, 38]));
        assert_eq!(all.split, HashSet::from([(0, 1), (29, 129)]));
        let mut changed = TABLES.to_vec();
        all.make_ordinary(&mut changed);
        let differ = (0..TABLES.len()).filter(|&at| TABLES[at] != changed[at]);
        assert_eq!(differ.collect::<Vec<_>>(), [1, 31]);
        assert!(!Abbreviations::read(&changed).has_skeletons());
        assert!(Abbreviations::read(&changed).has_split());
    }

    #[test]
    fn tables_that_are_cut_off_are_read_up_to_there() {
        for end in 0..TABLES.len() {
            let all = Abbreviations::read(&TABLES[..end]);
            assert!(all.skeletons.len() <= 2);
        }
        assert!(Abbreviations::read(&[0xff; 64]).skeletons.is_empty());
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

    #[test]
    fn each_split_unit_has_its_part_of_the_addresses() {
        let all = Abbreviations::read(TABLES);
        let of = |entries: &[u8]| all.addresses(TABLES, entries, 100);
        assert_eq!(of(&entries(&[48, 8], 1, 0)).unwrap(), [8..48, 48..100]);
        assert_eq!(of(&entries(&[8, 8, 16, 200], 1, 0)).unwrap(), [8..16, 16..100]);
        assert!(of(&entries(&[8], 2, 0)).unwrap().is_empty());
        assert!(of(&entries(&[8], 1, 1)).is_err());
        assert!(of(&entries(&[8], 1, 0)[..20]).is_err());
    }
}
