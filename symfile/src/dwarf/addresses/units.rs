//! Units and their entries (DWARF 5, 7.5): addresses in attributes, and which lists are referred to.
//!
//! Units that share a table of abbreviations are read together, so that each table is read once and
//! one is kept at a time. Entries are read one after the other; their tree does not matter, and is never
//! built. The references of the root entry need the bases that it states, in any order: they are read last.

#![forbid(unsafe_code)]
// The names are those of DWARF.
#![allow(non_upper_case_globals)]

use gimli::constants::*;
use gimli::{DebugInfo, DebugTypes, Encoding, Format, Reader, UnitHeader, UnitType};

use super::abbreviations::{Step, Table, fixed_size, refers_to_section};
use super::{ADDRESS, Input, List, NOTED, Section, Walk, Why, split};
use crate::base::fallible::TryGrow;

/// The state of a unit while its entries are read.
struct Unit {
    section: Section,
    encoding: Encoding,
    /// The root entry is being read.
    in_root: bool,
    has_ranges: bool,
    has_base: bool,
    /// Places of 0 in attributes of the root that may be the base of pairs.
    zero_bases: Vec<u32>,
    rnglists_base: Option<usize>,
    loclists_base: Option<usize>,
    /// References of the root to lists, which are read after its other attributes.
    references: Vec<Reference>,
}

/// A reference to a list.
#[derive(Clone, Copy)]
enum Reference {
    Ranges(usize),
    RangesIndex(u64),
    Locations(usize),
    LocationsIndex(u64),
}

/// A unit, by what its abbreviations depend on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnitKey {
    abbreviations: usize,
    version: u16,
    is_64_bit: bool,
    section: Section,
    offset: u32,
}

impl<'a> Walk<'a, '_> {
    /// All units, those that share abbreviations together, so that one table is kept at a time.
    pub(super) fn units(&mut self) -> Result<(), Why> {
        let mut units = Vec::new();
        for section in [Section::Info, Section::Types] {
            let mut rest = self.sections[section];
            while !rest.is_empty() {
                self.budget.step(NOTED)?;
                self.begin(section, rest);
                let header = unit_header(section, rest)?;
                units.try_push(UnitKey {
                    abbreviations: header.debug_abbrev_offset().0,
                    version: header.version(),
                    is_64_bit: header.format() == Format::Dwarf64,
                    section,
                    offset: self.at.1 as u32,
                })?;
                rest.skip(header.length_including_self())?;
            }
        }
        units.sort_unstable();

        let same_table = |a: &UnitKey, b: &UnitKey| a.abbreviations == b.abbreviations;
        let mut table = Table::default();
        let mut groups = units.chunk_by(same_table).peekable();
        while let Some(group) = groups.next() {
            // No table reaches into the next: a byte is read for one table only.
            let table_of = |group: &[UnitKey]| group.first().map_or(0, |unit| unit.abbreviations);
            let start = table_of(group);
            let end = groups.peek().map(|next| table_of(next));
            let same_forms =
                |a: &UnitKey, b: &UnitKey| (a.version, a.is_64_bit) == (b.version, b.is_64_bit);
            for group in group.chunk_by(same_forms) {
                for (number, unit) in group.iter().enumerate() {
                    let section = unit.section;
                    let mut input = self.sections[section];
                    input.skip(unit.offset as usize)?;
                    if number == 0 {
                        self.begin(section, input);
                        let encoding = unit_header(section, input)?.encoding();
                        let mut abbreviations = self.sections[Section::Abbrev];
                        if let Some(end) = end {
                            abbreviations.truncate(end.min(abbreviations.len()))?;
                        }
                        abbreviations.skip(start)?;
                        self.begin(Section::Abbrev, abbreviations);
                        table.read(abbreviations, encoding, self.budget)?;
                    }
                    self.entries(section, input, &table)?;
                }
            }
        }
        Ok(())
    }

    /// The entries of the unit at the start of `input`.
    fn entries(
        &mut self,
        section: Section,
        mut input: Input<'a>,
        table: &Table,
    ) -> Result<(), Why> {
        self.begin(section, input);
        let header = unit_header(section, input)?;
        if usize::from(header.address_size()) != ADDRESS {
            return Err(Why::Unknown("addresses are not of eight bytes"));
        }
        match header.type_() {
            UnitType::Compilation | UnitType::Partial | UnitType::Type { .. } => {}
            _ => return Err(Why::Split),
        }
        self.budget.step(header.length_including_self())?;
        input.truncate(header.length_including_self())?;
        input.skip(header.header_size())?;

        let mut unit = Unit {
            section,
            encoding: header.encoding(),
            in_root: true,
            has_ranges: false,
            has_base: false,
            zero_bases: Vec::new(),
            rnglists_base: None,
            loclists_base: None,
            references: Vec::new(),
        };
        while !input.is_empty() {
            self.begin(section, input);
            let code = input.read_uleb128()?;
            if code == 0 {
                continue;
            }
            let steps = table.steps(code).ok_or(gimli::Error::InvalidAbbreviationCode(code))?;
            for step in steps {
                match *step {
                    Step::Skip(bytes) => input.skip(bytes as usize)?,
                    Step::Read(name, form) => self.attribute(&mut unit, &mut input, name, form)?,
                    Step::Split => return Err(Why::Split),
                }
            }
            if unit.in_root {
                self.end_root(&mut unit)?;
            }
        }
        Ok(())
    }

    /// The root entry has been read.
    fn end_root(&mut self, unit: &mut Unit) -> Result<(), Why> {
        unit.in_root = false;
        // DWARF 5 has absolute entries for lists whose base is 0.
        if unit.has_ranges && unit.encoding.version < 5 {
            self.found[unit.section].try_append(&unit.zero_bases)?;
        }
        for reference in std::mem::take(&mut unit.references) {
            self.reference(unit, reference)?;
        }
        Ok(())
    }

    /// An attribute's value is next in `input`.
    // Long because: it has one arm for each form of an attribute.
    fn attribute(
        &mut self,
        unit: &mut Unit,
        input: &mut Input<'a>,
        name: DwAt,
        mut form: DwForm,
    ) -> Result<(), Why> {
        while form == DW_FORM_indirect {
            form = DwForm(input.read_uleb128_u16()?);
            if form == DW_FORM_implicit_const {
                return Err(gimli::Error::InvalidImplicitConst.into());
            }
        }
        unit.has_ranges |= unit.in_root && name == DW_AT_ranges;
        let encoding = unit.encoding;
        match form {
            DW_FORM_addr => {
                if unit.in_root && matches!(name, DW_AT_low_pc | DW_AT_entry_pc) {
                    unit.has_base = true;
                    if input.clone().read_u64()? == 0 {
                        let place = self.place(unit.section, *input);
                        unit.zero_bases.try_push(place as u32)?;
                    }
                }
                self.address(unit.section, input)?;
            }
            DW_FORM_exprloc => {
                let len = input.read_uleb128()?;
                let expression = split(input, len)?;
                self.expression(unit.section, expression, encoding)?;
            }
            DW_FORM_block | DW_FORM_block1 | DW_FORM_block2 | DW_FORM_block4 => {
                let len = match form {
                    DW_FORM_block1 => input.read_u8()?.into(),
                    DW_FORM_block2 => input.read_u16()?.into(),
                    DW_FORM_block4 => input.read_u32()?.into(),
                    _ => input.read_uleb128()?,
                };
                let block = split(input, len)?;
                if block_is_expression(name) {
                    self.expression(unit.section, block, encoding)?;
                }
            }
            DW_FORM_loclistx => {
                let index = input.read_uleb128()?;
                self.refer(unit, Reference::LocationsIndex(index))?;
            }
            DW_FORM_rnglistx => {
                let index = input.read_uleb128()?;
                self.refer(unit, Reference::RangesIndex(index))?;
            }
            DW_FORM_sec_offset | DW_FORM_data4 | DW_FORM_data8
                if refers_to_section(name, form, encoding.version) =>
            {
                let offset = match form {
                    DW_FORM_data4 => input.read_offset(Format::Dwarf32)?,
                    DW_FORM_data8 => input.read_offset(Format::Dwarf64)?,
                    _ => input.read_offset(encoding.format)?,
                };
                match name {
                    DW_AT_rnglists_base => unit.rnglists_base = Some(offset),
                    DW_AT_loclists_base => unit.loclists_base = Some(offset),
                    DW_AT_ranges | DW_AT_start_scope => {
                        self.refer(unit, Reference::Ranges(offset))?;
                    }
                    _ => self.refer(unit, Reference::Locations(offset))?,
                }
            }
            DW_FORM_GNU_ref_alt | DW_FORM_GNU_strp_alt | DW_FORM_ref_sup4 | DW_FORM_ref_sup8
            | DW_FORM_strp_sup => return Err(Why::Supplementary),
            DW_FORM_string => {
                input.read_null_terminated_slice()?;
            }
            DW_FORM_udata
            | DW_FORM_sdata
            | DW_FORM_ref_udata
            | DW_FORM_strx
            | DW_FORM_addrx
            | DW_FORM_GNU_str_index
            | DW_FORM_GNU_addr_index => input.skip_leb128()?,
            _ => input.skip(fixed_size(form, encoding).ok_or(gimli::Error::UnknownForm(form))?)?,
        }
        Ok(())
    }

    /// An entry refers to a list.
    fn refer(&mut self, unit: &mut Unit, reference: Reference) -> Result<(), Why> {
        if unit.in_root {
            self.budget.step(NOTED)?;
            return Ok(unit.references.try_push(reference)?);
        }
        self.reference(unit, reference)
    }

    fn reference(&mut self, unit: &Unit, reference: Reference) -> Result<(), Why> {
        let is_v5 = unit.encoding.version >= 5;
        let (section, offset) = match reference {
            Reference::Ranges(offset) if is_v5 => (Section::RngLists, offset),
            Reference::Ranges(offset) => (Section::Ranges, offset),
            Reference::Locations(offset) if is_v5 => (Section::LocLists, offset),
            Reference::Locations(offset) => (Section::Loc, offset),
            Reference::RangesIndex(index) => {
                let section = Section::RngLists;
                (section, self.list_offset(section, unit, unit.rnglists_base, index)?)
            }
            Reference::LocationsIndex(index) => {
                let section = Section::LocLists;
                (section, self.list_offset(section, unit, unit.loclists_base, index)?)
            }
        };
        let offset = u32::try_from(offset).map_err(|_| gimli::Error::UnsupportedOffset)?;
        let (encoding, has_base) = (unit.encoding, unit.has_base);
        self.budget.step(NOTED)?;
        Ok(self.lists.try_push(List { section, offset, encoding, has_base })?)
    }

    /// The offset of a list, from the table of offsets at `base`.
    fn list_offset(
        &self,
        section: Section,
        unit: &Unit,
        base: Option<usize>,
        index: u64,
    ) -> Result<usize, Why> {
        let overflow = gimli::Error::UnsupportedOffset;
        let base = base.ok_or(Why::Unknown("an index of a list, but no base for it"))?;
        let format = unit.encoding.format;
        let entry = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(format.word_size().into()))
            .ok_or(overflow)?;
        let mut input = self.sections[section];
        input.skip(base)?;
        input.skip(entry)?;
        Ok(base.checked_add(input.read_offset(format)?).ok_or(overflow)?)
    }
}

/// The header at the start of `input`.
fn unit_header<'a>(section: Section, input: Input<'a>) -> Result<UnitHeader<Input<'a>>, Why> {
    let header = match section {
        Section::Types => DebugTypes::from(input).units().next()?,
        _ => DebugInfo::from(input).units().next()?,
    };
    Ok(header.ok_or(gimli::Error::UnexpectedEof(input.offset_id()))?)
}

/// Whether a block in this attribute is an expression; it is up to DWARF 3, and some compilers go
/// on so. Otherwise it is a literal.
fn block_is_expression(name: DwAt) -> bool {
    matches!(
        name,
        DW_AT_location
            | DW_AT_byte_size
            | DW_AT_bit_offset
            | DW_AT_bit_size
            | DW_AT_string_length
            | DW_AT_lower_bound
            | DW_AT_return_addr
            | DW_AT_bit_stride
            | DW_AT_upper_bound
            | DW_AT_count
            | DW_AT_data_member_location
            | DW_AT_frame_base
            | DW_AT_segment
            | DW_AT_static_link
            | DW_AT_use_location
            | DW_AT_vtable_elem_location
            | DW_AT_allocated
            | DW_AT_associated
            | DW_AT_data_location
            | DW_AT_byte_stride
            | DW_AT_rank
            | DW_AT_call_value
            | DW_AT_call_target
            | DW_AT_call_target_clobbered
            | DW_AT_call_data_location
            | DW_AT_call_data_value
            | DW_AT_GNU_call_site_value
            | DW_AT_GNU_call_site_data_value
            | DW_AT_GNU_call_site_target
            | DW_AT_GNU_call_site_target_clobbered
    )
}
