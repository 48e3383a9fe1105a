//! The debug sections for functions and lines, and the attribute values, strings, addresses and range lists
//! in them.

#![forbid(unsafe_code)]

use gimli::constants::*;
use gimli::{Encoding, EndianSlice, Format, LittleEndian, Reader};

use super::budget::{Budget, Result, Stop};

pub(super) type Input<'a> = EndianSlice<'a, LittleEndian>;

/// A section that is read: an index of [`Section::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Info,
    Abbrev,
    Aranges,
    Line,
    LineStr,
    Str,
    StrOffsets,
    Addr,
    Ranges,
    RngLists,
}

impl Section {
    /// The name of each section.
    pub(super) const NAMES: [&'static str; 10] = [
        ".debug_info",
        ".debug_abbrev",
        ".debug_aranges",
        ".debug_line",
        ".debug_line_str",
        ".debug_str",
        ".debug_str_offsets",
        ".debug_addr",
        ".debug_ranges",
        ".debug_rnglists",
    ];
}

/// The uncompressed contents of the sections.
#[derive(Debug, Default)]
pub(super) struct Sections([Vec<u8>; Section::NAMES.len()]);

/// A reference to a string that ends with a zero byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct StringRef {
    section: Section,
    start: usize,
}

impl Sections {
    pub(super) fn set(&mut self, name: &str, contents: Vec<u8>) {
        let index = Section::NAMES.iter().position(|&known| known == name);
        if let Some(section) = index.and_then(|index| self.0.get_mut(index)) {
            *section = contents;
        }
    }

    pub(super) fn bytes(&self, section: Section) -> &[u8] {
        self.0.get(section as usize).map_or(&[], Vec::as_slice)
    }

    /// A section from `start` on.
    pub(super) fn from(&self, section: Section, start: usize) -> Result<Input<'_>> {
        let bytes = self.bytes(section).get(start..).ok_or(Stop::Malformed)?;
        Ok(EndianSlice::new(bytes, LittleEndian))
    }

    /// The string; `None` if it has more than `max` bytes or no end.
    pub(super) fn string(&self, string: StringRef, max: usize) -> Option<&[u8]> {
        let bytes = self.bytes(string.section).get(string.start..)?;
        let within = bytes.get(..bytes.len().min(max.saturating_add(1)))?;
        within.get(..memchr::memchr(0, within)?)
    }

    /// The entry of this index in the table of offsets at `base`.
    fn offset_at(
        &self,
        section: Section,
        base: usize,
        index: u64,
        format: Format,
    ) -> Result<usize> {
        let at = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(format.word_size().into())?.checked_add(base))
            .ok_or(Stop::Malformed)?;
        Ok(self.from(section, at)?.read_offset(format)?)
    }
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Address(u64),
    AddressIndex(u64),
    /// A constant of any form that is not negative. No attribute that is read is ever negative.
    Constant(u64),
    /// `DW_FORM_sec_offset`.
    Offset(usize),
    ListIndex(u64),
    String(StringRef),
    StringIndex(u64),
    /// A reference to an entry of the same unit: the offset from the unit's start.
    UnitReference(u64),
    /// A reference to an entry of any unit: the offset in `.debug_info`.
    InfoReference(u64),
    /// A value that no attribute that is read has.
    Other,
}

impl Value {
    pub(super) fn constant(self) -> Option<u64> {
        match self {
            Value::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// An offset in another section. Up to DWARF 3 it has the form of a constant.
    pub(super) fn offset(self, version: u16) -> Option<usize> {
        match self {
            Value::Offset(offset) => Some(offset),
            Value::Constant(value) if version < 4 => usize::try_from(value).ok(),
            _ => None,
        }
    }

    /// Reads a value of an entry, or of the header of a line program. `section` is the section of `input`,
    /// and `implicit` is the constant in the abbreviation.
    // Long because: it has a row for each form of DWARF.
    pub(super) fn read<'a>(
        sections: &'a Sections,
        section: Section,
        input: &mut Input<'a>,
        mut form: DwForm,
        implicit: Option<i64>,
        encoding: Encoding,
        budget: &mut Budget,
    ) -> Result<Value> {
        budget.work(1)?;
        let mut is_direct = true;
        while form == DW_FORM_indirect {
            budget.work(1)?;
            form = DwForm(input.read_uleb128_u16()?);
            is_direct = false;
        }
        Ok(match form {
            DW_FORM_addr => Value::Address(input.read_address(encoding.address_size)?),
            DW_FORM_addrx | DW_FORM_GNU_addr_index => Value::AddressIndex(input.read_uleb128()?),
            DW_FORM_addrx1 => Value::AddressIndex(input.read_u8()?.into()),
            DW_FORM_addrx2 => Value::AddressIndex(input.read_u16()?.into()),
            DW_FORM_addrx3 => Value::AddressIndex(input.read_uint(3)?),
            DW_FORM_addrx4 => Value::AddressIndex(input.read_u32()?.into()),
            DW_FORM_data1 => Value::Constant(input.read_u8()?.into()),
            DW_FORM_data2 => Value::Constant(input.read_u16()?.into()),
            DW_FORM_data4 => Value::Constant(input.read_u32()?.into()),
            DW_FORM_data8 => Value::Constant(input.read_u64()?),
            DW_FORM_udata => Value::Constant(input.read_uleb128()?),
            DW_FORM_sdata => Value::signed(input.read_sleb128()?),
            DW_FORM_implicit_const if is_direct => implicit.map_or(Value::Other, Value::signed),
            DW_FORM_sec_offset => Value::Offset(input.read_offset(encoding.format)?),
            DW_FORM_rnglistx => Value::ListIndex(input.read_uleb128()?),
            DW_FORM_strx | DW_FORM_GNU_str_index => Value::StringIndex(input.read_uleb128()?),
            DW_FORM_strx1 => Value::StringIndex(input.read_u8()?.into()),
            DW_FORM_strx2 => Value::StringIndex(input.read_u16()?.into()),
            DW_FORM_strx3 => Value::StringIndex(input.read_uint(3)?),
            DW_FORM_strx4 => Value::StringIndex(input.read_u32()?.into()),
            DW_FORM_strp => Value::String(StringRef {
                section: Section::Str,
                start: input.read_offset(encoding.format)?,
            }),
            DW_FORM_line_strp => Value::String(StringRef {
                section: Section::LineStr,
                start: input.read_offset(encoding.format)?,
            }),
            DW_FORM_string => {
                let start = section_offset(sections, section, input);
                skip_string(input, budget)?;
                Value::String(StringRef { section, start })
            }
            DW_FORM_ref1 => Value::UnitReference(input.read_u8()?.into()),
            DW_FORM_ref2 => Value::UnitReference(input.read_u16()?.into()),
            DW_FORM_ref4 => Value::UnitReference(input.read_u32()?.into()),
            DW_FORM_ref8 => Value::UnitReference(input.read_u64()?),
            DW_FORM_ref_udata => Value::UnitReference(input.read_uleb128()?),
            // In DWARF 2 it has the size of an address.
            DW_FORM_ref_addr if encoding.version == 2 => {
                Value::InfoReference(input.read_address(encoding.address_size)?)
            }
            DW_FORM_ref_addr => Value::InfoReference(input.read_offset(encoding.format)? as u64),
            DW_FORM_exprloc | DW_FORM_block => {
                let len = input.read_uleb128()?;
                skip(input, len)?;
                Value::Other
            }
            DW_FORM_block1 => {
                let len = input.read_u8()?;
                skip(input, len.into())?;
                Value::Other
            }
            DW_FORM_block2 => {
                let len = input.read_u16()?;
                skip(input, len.into())?;
                Value::Other
            }
            DW_FORM_block4 => {
                let len = input.read_u32()?;
                skip(input, len.into())?;
                Value::Other
            }
            DW_FORM_loclistx => {
                skip_leb(input, budget)?;
                Value::Other
            }
            _ => {
                let size = fixed_size(form, encoding).filter(|_| form != DW_FORM_implicit_const);
                skip(input, size.ok_or(Stop::Malformed)?)?;
                Value::Other
            }
        })
    }

    fn signed(value: i64) -> Value {
        u64::try_from(value).map_or(Value::Other, Value::Constant)
    }
}

/// The size of the values of a form, if they all have the same one.
pub(super) fn fixed_size(form: DwForm, encoding: Encoding) -> Option<u64> {
    let word = u64::from(encoding.format.word_size());
    Some(match form {
        DW_FORM_flag_present | DW_FORM_implicit_const => 0,
        DW_FORM_data1 | DW_FORM_flag | DW_FORM_ref1 | DW_FORM_strx1 | DW_FORM_addrx1 => 1,
        DW_FORM_data2 | DW_FORM_ref2 | DW_FORM_strx2 | DW_FORM_addrx2 => 2,
        DW_FORM_strx3 | DW_FORM_addrx3 => 3,
        DW_FORM_data4 | DW_FORM_ref4 | DW_FORM_strx4 | DW_FORM_addrx4 | DW_FORM_ref_sup4 => 4,
        DW_FORM_data8 | DW_FORM_ref8 | DW_FORM_ref_sig8 | DW_FORM_ref_sup8 => 8,
        DW_FORM_data16 => 16,
        DW_FORM_addr => encoding.address_size.into(),
        DW_FORM_ref_addr if encoding.version == 2 => encoding.address_size.into(),
        DW_FORM_strp | DW_FORM_line_strp | DW_FORM_sec_offset | DW_FORM_ref_addr
        | DW_FORM_GNU_ref_alt | DW_FORM_GNU_strp_alt | DW_FORM_strp_sup => word,
        _ => return None,
    })
}

pub(super) fn skip(input: &mut Input<'_>, len: u64) -> Result<()> {
    Ok(input.skip(usize::try_from(len).map_err(|_| Stop::Malformed)?)?)
}

/// Skips a string and its zero byte. Returns whether it is empty.
pub(super) fn skip_string(input: &mut Input<'_>, budget: &mut Budget) -> Result<bool> {
    let len = charge_search(memchr::memchr(0, input.slice()), 16, input, budget)?;
    input.skip(len.saturating_add(1))?;
    Ok(len == 0)
}

/// Skips a LEB128 number, which can be as long as the section.
pub(super) fn skip_leb(input: &mut Input<'_>, budget: &mut Budget) -> Result<()> {
    let end = input.slice().iter().position(|byte| byte & 0x80 == 0);
    let len = charge_search(end, 8, input, budget)?;
    Ok(input.skip(len.saturating_add(1))?)
}

/// Charges for a search in `input`, one step for `bytes_per_step` bytes, and returns what it found. Without
/// a charge, thousands of entries or overlapping programs could each search the same long end.
fn charge_search(
    found: Option<usize>,
    bytes_per_step: u64,
    input: &Input<'_>,
    budget: &mut Budget,
) -> Result<usize> {
    let searched = found.unwrap_or(input.len()) as u64;
    budget.work(searched.checked_div(bytes_per_step).unwrap_or(searched).saturating_add(1))?;
    found.ok_or(Stop::Malformed)
}

/// The offset of `input` in `section`, which it is a part of.
pub(super) fn section_offset(sections: &Sections, section: Section, input: &Input<'_>) -> usize {
    let all = EndianSlice::new(sections.bytes(section), LittleEndian);
    input.offset_from(all)
}

/// The bases of a unit: where its contributions to the other sections begin, and the base address of its
/// range lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bases {
    pub(super) encoding: Encoding,
    pub(super) str_offsets: usize,
    pub(super) addr: usize,
    pub(super) rnglists: usize,
    pub(super) low_pc: u64,
}

impl Bases {
    /// The address that a value states.
    pub(super) fn address(&self, sections: &Sections, value: Value) -> Option<u64> {
        match value {
            Value::Address(address) => Some(address),
            Value::AddressIndex(index) => {
                let size = self.encoding.address_size;
                let at = usize::try_from(index).ok()?.checked_mul(size.into())?;
                let mut input = sections.from(Section::Addr, at.checked_add(self.addr)?).ok()?;
                input.read_address(size).ok()
            }
            _ => None,
        }
    }

    /// The string that a value refers to.
    pub(super) fn string(&self, sections: &Sections, value: Value) -> Option<StringRef> {
        match value {
            Value::String(string) => Some(string),
            Value::StringIndex(index) => {
                let format = self.encoding.format;
                let table = Section::StrOffsets;
                let start = sections.offset_at(table, self.str_offsets, index, format).ok()?;
                Some(StringRef { section: Section::Str, start })
            }
            _ => None,
        }
    }

    /// Calls `each` with the ranges of a range list, up to its end or the first malformed entry.
    fn list(
        &self,
        sections: &Sections,
        value: Value,
        budget: &mut Budget,
        each: &mut dyn FnMut(&mut Budget, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let version = self.encoding.version;
        let section = if version >= 5 { Section::RngLists } else { Section::Ranges };
        let offset = match value {
            Value::ListIndex(index) => {
                let format = self.encoding.format;
                let offset = sections.offset_at(section, self.rnglists, index, format)?;
                offset.checked_add(self.rnglists)
            }
            value => value.offset(version),
        };
        let mut input = sections.from(section, offset.ok_or(Stop::Malformed)?)?;
        let mut base = self.low_pc;
        while !input.is_empty() {
            budget.work(1)?;
            let entry = if version >= 5 {
                self.rnglists_entry(sections, &mut input, &mut base)?
            } else {
                self.ranges_entry(&mut input, &mut base)?
            };
            match entry {
                Entry::End => break,
                // Linkers give discarded code the largest addresses.
                Entry::Range(begin, end) if begin < end && begin < TOMBSTONE => {
                    each(budget, begin, end)?;
                }
                Entry::Range(..) | Entry::Base => {}
            }
        }
        Ok(())
    }

    /// An entry of `.debug_ranges` (DWARF 4, 2.17.3).
    fn ranges_entry(&self, input: &mut Input<'_>, base: &mut u64) -> Result<Entry> {
        let size = self.encoding.address_size;
        let (begin, end) = (input.read_address(size)?, input.read_address(size)?);
        Ok(match (begin, end) {
            (0, 0) => Entry::End,
            (u64::MAX, end) => {
                *base = end;
                Entry::Base
            }
            (begin, end) => Entry::relative(*base, begin, end),
        })
    }

    /// An entry of `.debug_rnglists` (DWARF 5, 7.25).
    fn rnglists_entry(
        &self,
        sections: &Sections,
        input: &mut Input<'_>,
        base: &mut u64,
    ) -> Result<Entry> {
        let size = self.encoding.address_size;
        let indexed =
            |index| self.address(sections, Value::AddressIndex(index)).ok_or(Stop::Malformed);
        Ok(match DwRle(input.read_u8()?) {
            DW_RLE_end_of_list => Entry::End,
            DW_RLE_base_addressx => {
                *base = indexed(input.read_uleb128()?)?;
                Entry::Base
            }
            DW_RLE_base_address => {
                *base = input.read_address(size)?;
                Entry::Base
            }
            DW_RLE_startx_endx => {
                let (begin, end) = (input.read_uleb128()?, input.read_uleb128()?);
                Entry::Range(indexed(begin)?, indexed(end)?)
            }
            DW_RLE_startx_length => {
                let (begin, len) = (indexed(input.read_uleb128()?)?, input.read_uleb128()?);
                Entry::Range(begin, begin.wrapping_add(len))
            }
            DW_RLE_offset_pair => {
                Entry::relative(*base, input.read_uleb128()?, input.read_uleb128()?)
            }
            DW_RLE_start_end => Entry::Range(input.read_address(size)?, input.read_address(size)?),
            DW_RLE_start_length => {
                let begin = input.read_address(size)?;
                Entry::Range(begin, begin.wrapping_add(input.read_uleb128()?))
            }
            _ => return Err(Stop::Malformed),
        })
    }
}

/// The lowest tombstone: linkers write this address or the next one for discarded code.
pub(super) const TOMBSTONE: u64 = u64::MAX - 1;

/// An entry of a range list.
enum Entry {
    Range(u64, u64),
    Base,
    End,
}

impl Entry {
    /// A range of offsets from `base`. No range for discarded code.
    fn relative(base: u64, begin: u64, end: u64) -> Entry {
        if base >= TOMBSTONE {
            return Entry::Base;
        }
        Entry::Range(base.wrapping_add(begin), base.wrapping_add(end))
    }
}

/// The attributes that state the code of an entry (DWARF 5, 2.17).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PcRanges {
    low: Option<Value>,
    high: Option<Value>,
    ranges: Option<Value>,
}

impl PcRanges {
    /// Keeps the attribute, if it is one of these.
    pub(super) fn take(&mut self, name: DwAt, value: Value) {
        match name {
            DW_AT_low_pc => self.low = Some(value),
            DW_AT_high_pc => self.high = Some(value),
            DW_AT_ranges => self.ranges = Some(value),
            _ => {}
        }
    }

    pub(super) fn has_list(&self) -> bool {
        self.ranges.is_some()
    }

    pub(super) fn low(&self) -> Option<Value> {
        self.low
    }

    /// Calls `each` with every range of the code. Returns whether there was any.
    pub(super) fn each(
        &self,
        sections: &Sections,
        bases: &Bases,
        budget: &mut Budget,
        mut each: impl FnMut(&mut Budget, u64, u64) -> Result<()>,
    ) -> Result<bool> {
        let mut any = false;
        if let Some(list) = self.ranges {
            let mut each = |budget: &mut Budget, begin, end| {
                any = true;
                each(budget, begin, end)
            };
            match bases.list(sections, list, budget, &mut each) {
                Err(Stop::Malformed) | Ok(()) => return Ok(any),
                Err(Stop::Spent) => return Err(Stop::Spent),
            }
        }
        let begin = self.low.and_then(|low| bases.address(sections, low));
        let end = begin.zip(self.high).and_then(|(begin, high)| match high {
            Value::Constant(size) => Some(begin.wrapping_add(size)),
            high => bases.address(sections, high),
        });
        if let (Some(begin), Some(end)) = (begin, end)
            && begin < end
        {
            each(budget, begin, end)?;
            any = true;
        }
        Ok(any)
    }
}
