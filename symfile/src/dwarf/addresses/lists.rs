//! Lists of ranges and of locations: pairs (DWARF 4, 2.6.2 and 2.17.3) and tagged entries (DWARF 5,
//! 7.25 and 7.29).
//!
//! It never reads a list that no entry refers to: gcc puts numbers of another kind between lists
//! (`DW_AT_GNU_locviews`).

#![forbid(unsafe_code)]
// The names are those of DWARF.
#![allow(non_upper_case_globals)]

use gimli::Reader;
use gimli::constants::*;

use super::{Input, List, PerSection, SECTIONS, Section, Walk, Why, split};

impl<'a> Walk<'a, '_> {
    /// Each list that entries refer to, once.
    pub(super) fn lists(&mut self) -> Result<(), Why> {
        let mut lists = std::mem::take(&mut self.lists);
        // It allocates nothing.
        lists.sort_unstable_by_key(|list| {
            (u64::from(list.offset) | (list.section as u64) << 32, list.has_base)
        });
        lists.dedup();
        let mut read = PerSection([0usize; SECTIONS]);
        for list in lists {
            let section = list.section;
            let offset = list.offset as usize;
            self.at = (section, offset);
            let mut input = self.sections[section];
            input.skip(offset)?;
            match section {
                Section::Ranges | Section::Loc => self.pairs(list, &mut input)?,
                _ => self.tagged(list, &mut input)?,
            }
            // Compilers' lists do not overlap. A thousand that end in the same million entries
            // would take forever.
            let len = self.place(section, input).saturating_sub(offset);
            self.budget.step(len)?;
            read[section] = read[section].saturating_add(len);
            if read[section] > self.sections[section].len().saturating_mul(4) {
                return Err(Why::Unknown("lists overlap"));
            }
        }
        Ok(())
    }

    /// A list of DWARF 2 to 4: pairs of addresses, relative to a base.
    fn pairs(&mut self, list: List, input: &mut Input<'a>) -> Result<(), Why> {
        let section = list.section;
        let mut has_base = list.has_base;
        loop {
            let mut entry = *input;
            let first = input.read_u64()?;
            if first == u64::MAX {
                self.base(section, input)?;
                has_base = true;
                continue;
            }
            let second = input.read_u64()?;
            if (first, second) == (0, 0) {
                return Ok(());
            }
            if !has_base {
                // No base moves in their stead.
                self.address(section, &mut entry)?;
                self.address(section, &mut entry)?;
            }
            if section == Section::Loc {
                let len = input.read_u16()?;
                let expression = input.split(len.into())?;
                self.expression(section, expression, list.encoding)?;
            }
        }
    }

    /// A list of DWARF 5: entries that begin with their kind. Kinds up to 4 are the same for ranges
    /// and locations; then locations have one more.
    fn tagged(&mut self, list: List, input: &mut Input<'a>) -> Result<(), Why> {
        let section = list.section;
        let of_locations = section == Section::LocLists;
        loop {
            let kind = input.read_u8()?;
            let mut has_expression = of_locations;
            if of_locations {
                match DwLle(kind) {
                    DW_LLE_end_of_list => return Ok(()),
                    DW_LLE_base_addressx => {
                        input.skip_leb128()?;
                        has_expression = false;
                    }
                    DW_LLE_startx_endx | DW_LLE_startx_length | DW_LLE_offset_pair => {
                        input.skip_leb128()?;
                        input.skip_leb128()?;
                    }
                    DW_LLE_default_location => {}
                    DW_LLE_base_address => {
                        self.address(section, input)?;
                        has_expression = false;
                    }
                    DW_LLE_start_end => {
                        self.address(section, input)?;
                        self.address(section, input)?;
                    }
                    DW_LLE_start_length => {
                        self.address(section, input)?;
                        input.skip_leb128()?;
                    }
                    DW_LLE_GNU_view_pair => {
                        input.skip_leb128()?;
                        input.skip_leb128()?;
                        has_expression = false;
                    }
                    kind => return Err(gimli::Error::UnknownLocListsEntry(kind).into()),
                }
            } else {
                match DwRle(kind) {
                    DW_RLE_end_of_list => return Ok(()),
                    DW_RLE_base_addressx => input.skip_leb128()?,
                    DW_RLE_startx_endx | DW_RLE_startx_length | DW_RLE_offset_pair => {
                        input.skip_leb128()?;
                        input.skip_leb128()?;
                    }
                    DW_RLE_base_address => self.address(section, input)?,
                    DW_RLE_start_end => {
                        self.address(section, input)?;
                        self.address(section, input)?;
                    }
                    DW_RLE_start_length => {
                        self.address(section, input)?;
                        input.skip_leb128()?;
                    }
                    kind => return Err(gimli::Error::UnknownRangeListsEntry(kind).into()),
                }
            }
            if has_expression {
                let len = input.read_uleb128()?;
                let expression = split(input, len)?;
                self.expression(section, expression, list.encoding)?;
            }
        }
    }
}
