//! The sections that consist of records, one after the other: programs of line tables, address ranges of
//! units, tables of addresses, call frames. It reads no entry of a unit.

#![forbid(unsafe_code)]
// The names are those of DWARF.
#![allow(non_upper_case_globals)]

use gimli::constants::*;
use gimli::{Encoding, Format, Reader};

use super::{ADDRESS, Input, Section, Walk, Why, split};

/// How many operands the standard opcodes have.
pub(super) const STANDARD_OPERANDS: [u8; 12] = [0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];

impl<'a> Walk<'a, '_> {
    /// Each record of a section, which begins with its length.
    pub(super) fn records(
        &mut self,
        section: Section,
        read: fn(&mut Self, Input<'a>, Format) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let mut rest = self.sections[section];
        while !rest.is_empty() {
            self.begin(section, rest);
            let (len, format) = rest.read_initial_length()?;
            self.budget.step(len.saturating_add(1))?;
            read(self, rest.split(len)?, format)?;
        }
        Ok(())
    }

    /// Of `.debug_line` (DWARF 5, 6.2).
    pub(super) fn line_program(&mut self, mut input: Input<'a>, format: Format) -> Result<(), Why> {
        let version = input.read_u16()?;
        match version {
            2..=4 => {}
            5 => read_address_size(&mut input)?,
            _ => return Err(gimli::Error::UnknownVersion(version.into()).into()),
        }
        let header_len = input.read_length(format)?;
        let mut header = input.split(header_len)?;
        let mut program = input;
        // Lengths of an instruction, and from version 4 on of a bundle; `default_is_stmt`,
        // `line_base`, `line_range`.
        header.skip(if version < 4 { 4 } else { 5 })?;
        let opcode_base = header.read_u8()?;
        let operands = header.split(opcode_base.saturating_sub(1).into())?.slice();
        if opcode_base == 0 || operands.iter().zip(STANDARD_OPERANDS).any(|(&a, b)| a != b) {
            return Err(Why::Unknown("standard opcodes with other operands"));
        }
        while !program.is_empty() {
            let opcode = program.read_u8()?;
            if opcode == 0 {
                let len = program.read_uleb128()?;
                let mut operation = split(&mut program, len)?;
                if DwLne(operation.read_u8()?) == DW_LNE_set_address {
                    if operation.len() != ADDRESS {
                        return Err(Why::Unknown("addresses are not of eight bytes"));
                    }
                    self.address(Section::Line, &mut operation)?;
                }
            } else if opcode >= opcode_base {
                // A special opcode: all in one byte.
            } else if DwLns(opcode) == DW_LNS_fixed_advance_pc {
                program.skip(2)?;
            } else {
                let operands = operands.get(usize::from(opcode).wrapping_sub(1));
                for _ in 0..operands.copied().unwrap_or_default() {
                    program.skip_leb128()?;
                }
            }
        }
        Ok(())
    }

    /// Of `.debug_aranges` (DWARF 5, 6.1.2): pairs of address and length, aligned to their size.
    pub(super) fn aranges(&mut self, mut input: Input<'a>, format: Format) -> Result<(), Why> {
        let version = input.read_u16()?;
        if version != 2 {
            return Err(gimli::Error::UnknownVersion(version.into()).into());
        }
        input.read_offset(format)?;
        read_address_size(&mut input)?;
        let header = format.initial_length_size().saturating_add(format.word_size());
        input.skip(usize::from(header.saturating_add(4).wrapping_neg() % 16))?;
        // gdb counts from the end, others from the start.
        if !input.len().is_multiple_of(2 * ADDRESS) {
            return Err(Why::Unknown("the pairs are not aligned"));
        }
        while !input.is_empty() {
            self.address(Section::Aranges, &mut input)?;
            input.skip(ADDRESS)?;
        }
        Ok(())
    }

    /// A table of `.debug_addr` (DWARF 5, 7.27). Older tables have no header, and only split units.
    pub(super) fn addr_table(&mut self, mut input: Input<'a>, _: Format) -> Result<(), Why> {
        let version = input.read_u16()?;
        if version != 5 {
            return Err(gimli::Error::UnknownVersion(version.into()).into());
        }
        read_address_size(&mut input)?;
        while !input.is_empty() {
            self.address(Section::Addr, &mut input)?;
        }
        Ok(())
    }

    /// Of `.debug_frame` (DWARF 5, 6.4.1).
    pub(super) fn frame_entry(&mut self, mut input: Input<'a>, format: Format) -> Result<(), Why> {
        let section = Section::Frame;
        let (id, id_of_cie) = match format {
            Format::Dwarf32 => (input.read_u32()?.into(), u32::MAX.into()),
            Format::Dwarf64 => (input.read_u64()?, u64::MAX),
        };
        let mut version = 4;
        if id == id_of_cie {
            version = input.read_u8()?.into();
            // Other letters mean more data, in FDEs too, and pointers that may be relative.
            let augmentation = input.read_null_terminated_slice()?.slice();
            if augmentation.iter().any(|letter| !b"SB".contains(letter)) {
                return Err(Why::Unknown("an augmentation of a CIE"));
            }
            match version {
                1 | 3 => {}
                4 => read_address_size(&mut input)?,
                _ => return Err(gimli::Error::UnknownVersion(version.into()).into()),
            }
            input.skip_leb128()?;
            input.skip_leb128()?;
            match version {
                1 => input.skip(1)?,
                _ => input.skip_leb128()?,
            }
        } else {
            self.address(section, &mut input)?;
            input.skip(ADDRESS)?;
        }
        let encoding = Encoding { address_size: ADDRESS as u8, format, version };
        while !input.is_empty() {
            self.frame_instruction(&mut input, encoding)?;
        }
        Ok(())
    }

    fn frame_instruction(&mut self, input: &mut Input<'a>, encoding: Encoding) -> Result<(), Why> {
        let opcode = DwCfa(input.read_u8()?);
        // Three have an operand in the opcode.
        let (numbers, has_expression) = match DwCfa(opcode.0 & 0xc0) {
            DW_CFA_advance_loc | DW_CFA_restore => (0, false),
            DW_CFA_offset => (1, false),
            _ => match opcode {
                DW_CFA_set_loc => return self.address(Section::Frame, input),
                DW_CFA_advance_loc1 => return Ok(input.skip(1)?),
                DW_CFA_advance_loc2 => return Ok(input.skip(2)?),
                DW_CFA_advance_loc4 => return Ok(input.skip(4)?),
                DW_CFA_nop
                | DW_CFA_remember_state
                | DW_CFA_restore_state
                | DW_CFA_AARCH64_negate_ra_state => (0, false),
                DW_CFA_restore_extended
                | DW_CFA_undefined
                | DW_CFA_same_value
                | DW_CFA_def_cfa_register
                | DW_CFA_def_cfa_offset
                | DW_CFA_def_cfa_offset_sf
                | DW_CFA_GNU_args_size => (1, false),
                DW_CFA_offset_extended
                | DW_CFA_register
                | DW_CFA_def_cfa
                | DW_CFA_offset_extended_sf
                | DW_CFA_def_cfa_sf
                | DW_CFA_val_offset
                | DW_CFA_val_offset_sf
                | DW_CFA_GNU_negative_offset_extended => (2, false),
                DW_CFA_def_cfa_expression => (0, true),
                DW_CFA_expression | DW_CFA_val_expression => (1, true),
                _ => return Err(gimli::Error::UnknownCallFrameInstruction(opcode).into()),
            },
        };
        for _ in 0..numbers {
            input.skip_leb128()?;
        }
        if has_expression {
            let len = input.read_uleb128()?;
            let expression = split(input, len)?;
            self.expression(Section::Frame, expression, encoding)?;
        }
        Ok(())
    }
}

/// The sizes of an address and of a segment selector are next.
fn read_address_size(input: &mut Input<'_>) -> Result<(), Why> {
    let address = usize::from(input.read_u8()?);
    if address != ADDRESS || input.read_u8()? != 0 {
        return Err(Why::Unknown("addresses are not of eight bytes"));
    }
    Ok(())
}
