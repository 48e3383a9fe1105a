//! The debug sections that tell functions and lines, and the strings, addresses and lists in them.

#![forbid(unsafe_code)]

use gimli::constants::*;
use gimli::{Encoding, EndianSlice, Format, LittleEndian, Reader};

use super::budget::{Budget, Result, Stop};

pub(super) type Input<'a> = EndianSlice<'a, LittleEndian>;

/// A section that is read; its number is that of its name.
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
    /// What each is called.
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

/// The contents of the sections, not compressed.
#[derive(Debug, Default)]
pub(super) struct Sections([Vec<u8>; Section::NAMES.len()]);

/// A string: where it begins. It ends with a zero byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    section: Section,
    start: usize,
}

impl Sections {
    pub(super) fn set(&mut self, name: &str, contents: Vec<u8>) {
        let index = Section::NAMES.iter().position(|&known| known == name);
        if let Some(place) = index.and_then(|index| self.0.get_mut(index)) {
            *place = contents;
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

    /// The text, unless it has more than `most` bytes or no end.
    pub(super) fn text(&self, text: Text, most: usize) -> Option<&[u8]> {
        let bytes = self.bytes(text.section).get(text.start..)?;
        let within = bytes.get(..bytes.len().min(most.saturating_add(1)))?;
        within.get(..memchr::memchr(0, within)?)
    }

    /// The entry of this index in a table of offsets that begins at `base`.
    fn offset_at(
        &self,
        section: Section,
        base: usize,
        index: u64,
        format: Format,
    ) -> Result<usize> {
        let place = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(format.word_size().into())?.checked_add(base))
            .ok_or(Stop::Malformed)?;
        Ok(self.from(section, place)?.read_offset(format)?)
    }
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Address(u64),
    AddressIndex(u64),
    /// Of any form; a negative one is none of ours.
    Constant(u64),
    /// `DW_FORM_sec_offset`.
    Offset(usize),
    ListIndex(u64),
    Text(Text),
    TextIndex(u64),
    /// To an entry of the unit, from the unit's start.
    UnitReference(u64),
    /// To an entry of any unit.
    InfoReference(u64),
    /// Of no use here.
    Other,
}

impl Value {
    pub(super) fn constant(self) -> Option<u64> {
        match self {
            Value::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The place in another section; up to DWARF 3 it looks like a constant.
    pub(super) fn offset(self, version: u16) -> Option<usize> {
        match self {
            Value::Offset(offset) => Some(offset),
            Value::Constant(value) if version < 4 => usize::try_from(value).ok(),
            _ => None,
        }
    }

    /// Reads the value of an attribute of an entry, or of a field in the header of a line program.
    /// `section` is that of `input`, and `implicit` what the abbreviation says.
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
            DW_FORM_strx | DW_FORM_GNU_str_index => Value::TextIndex(input.read_uleb128()?),
            DW_FORM_strx1 => Value::TextIndex(input.read_u8()?.into()),
            DW_FORM_strx2 => Value::TextIndex(input.read_u16()?.into()),
            DW_FORM_strx3 => Value::TextIndex(input.read_uint(3)?),
            DW_FORM_strx4 => Value::TextIndex(input.read_u32()?.into()),
            DW_FORM_strp => Value::Text(Text {
                section: Section::Str,
                start: input.read_offset(encoding.format)?,
            }),
            DW_FORM_line_strp => Value::Text(Text {
                section: Section::LineStr,
                start: input.read_offset(encoding.format)?,
            }),
            DW_FORM_string => {
                let start = place(sections, section, input);
                skip_text(input, budget)?;
                Value::Text(Text { section, start })
            }
            DW_FORM_ref1 => Value::UnitReference(input.read_u8()?.into()),
            DW_FORM_ref2 => Value::UnitReference(input.read_u16()?.into()),
            DW_FORM_ref4 => Value::UnitReference(input.read_u32()?.into()),
            DW_FORM_ref8 => Value::UnitReference(input.read_u64()?),
            DW_FORM_ref_udata => Value::UnitReference(input.read_uleb128()?),
            // DWARF 2 made it as large as an address.
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

/// The size of all values of a form, if they have one.
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

/// Skips a string that ends with a zero byte. Whether it is empty.
pub(super) fn skip_text(input: &mut Input<'_>, budget: &mut Budget) -> Result<bool> {
    let len = len_to(memchr::memchr(0, input.slice()), 16, input, budget)?;
    input.skip(len.saturating_add(1))?;
    Ok(len == 0)
}

/// Skips a number in LEB128, which may be as long as the section is.
pub(super) fn skip_leb(input: &mut Input<'_>, budget: &mut Budget) -> Result<()> {
    let end = input.slice().iter().position(|byte| byte & 0x80 == 0);
    let len = len_to(end, 8, input, budget)?;
    Ok(input.skip(len.saturating_add(1))?)
}

/// Where what was searched in `input` was found. To look at `a_step` bytes is a step: thousands of
/// entries, or programs that overlap, can have the same end, or none.
fn len_to(
    found: Option<usize>,
    a_step: u64,
    input: &Input<'_>,
    budget: &mut Budget,
) -> Result<usize> {
    let looked_at = found.unwrap_or(input.len()) as u64;
    budget.work(looked_at.checked_div(a_step).unwrap_or(looked_at).saturating_add(1))?;
    found.ok_or(Stop::Malformed)
}

/// Where `input` is in `section`: at the end of both is the same byte, or the caller knows the end.
pub(super) fn place(sections: &Sections, section: Section, input: &Input<'_>) -> usize {
    let all = EndianSlice::new(sections.bytes(section), LittleEndian);
    input.offset_from(all)
}

/// Where a unit's share of the other sections is, as its root entry says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bases {
    pub(super) encoding: Encoding,
    pub(super) str_offsets: usize,
    pub(super) addr: usize,
    pub(super) rnglists: usize,
    pub(super) low_pc: u64,
}

impl Bases {
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

    pub(super) fn text(&self, sections: &Sections, value: Value) -> Option<Text> {
        match value {
            Value::Text(text) => Some(text),
            Value::TextIndex(index) => {
                let format = self.encoding.format;
                let table = Section::StrOffsets;
                let start = sections.offset_at(table, self.str_offsets, index, format).ok()?;
                Some(Text { section: Section::Str, start })
            }
            _ => None,
        }
    }

    /// Shows each range of a list to `each`; what cannot be read of it is left out.
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
                self.tagged(sections, &mut input, &mut base)?
            } else {
                self.pair(&mut input, &mut base)?
            };
            match entry {
                Entry::End => break,
                // Linkers mark with the largest addresses what they have thrown away.
                Entry::Range(begin, end) if begin < end && begin < TOMBSTONE => {
                    each(budget, begin, end)?;
                }
                Entry::Range(..) | Entry::Base => {}
            }
        }
        Ok(())
    }

    /// DWARF 4, 2.17.3.
    fn pair(&self, input: &mut Input<'_>, base: &mut u64) -> Result<Entry> {
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

    /// DWARF 5, 7.25.
    fn tagged(&self, sections: &Sections, input: &mut Input<'_>, base: &mut u64) -> Result<Entry> {
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

/// From here on addresses stand for what a linker has thrown away.
pub(super) const TOMBSTONE: u64 = u64::MAX - 1;

/// An entry of a list of ranges.
enum Entry {
    Range(u64, u64),
    Base,
    End,
}

impl Entry {
    fn relative(base: u64, begin: u64, end: u64) -> Entry {
        if base >= TOMBSTONE {
            return Entry::Base;
        }
        Entry::Range(base.wrapping_add(begin), base.wrapping_add(end))
    }
}

/// The attributes of an entry that say where its code is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Code {
    low: Option<Value>,
    high: Option<Value>,
    ranges: Option<Value>,
}

impl Code {
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

    /// Shows each range to `each`. Whether there was any.
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
