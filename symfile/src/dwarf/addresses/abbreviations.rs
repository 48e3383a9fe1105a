//! Abbreviations (DWARF 5, 7.5.3): how to go through an entry.
//!
//! gimli's table keeps everything that an abbreviation says, in thirty times the size of the section. This
//! one keeps only how many bytes to skip to the next attribute that may have an address.

#![forbid(unsafe_code)]
// The names are those of DWARF.
#![allow(non_upper_case_globals)]

use gimli::constants::*;
use gimli::{Encoding, Reader};

use super::{Budget, Input, Why};
use crate::base::fallible::TryGrow;

/// Whether a value of this form in this attribute is the offset of a list, or of a table of those.
pub(super) fn refers_to_section(name: DwAt, form: DwForm, version: u16) -> bool {
    match name {
        DW_AT_location
        | DW_AT_string_length
        | DW_AT_return_addr
        | DW_AT_frame_base
        | DW_AT_segment
        | DW_AT_static_link
        | DW_AT_use_location
        | DW_AT_vtable_elem_location
        | DW_AT_ranges => form == DW_FORM_sec_offset || version < 4,
        // Up to DWARF 3 a constant and an offset look alike; debuggers read a constant.
        DW_AT_start_scope
        | DW_AT_data_member_location
        | DW_AT_rnglists_base
        | DW_AT_loclists_base => form == DW_FORM_sec_offset,
        _ => false,
    }
}

/// The size of all values of a form, if they have one.
pub(super) fn fixed_size(form: DwForm, encoding: Encoding) -> Option<usize> {
    let offset = usize::from(encoding.format.word_size());
    Some(match form {
        DW_FORM_flag_present | DW_FORM_implicit_const => 0,
        DW_FORM_data1 | DW_FORM_flag | DW_FORM_ref1 | DW_FORM_strx1 | DW_FORM_addrx1 => 1,
        DW_FORM_data2 | DW_FORM_ref2 | DW_FORM_strx2 | DW_FORM_addrx2 => 2,
        DW_FORM_strx3 | DW_FORM_addrx3 => 3,
        DW_FORM_data4 | DW_FORM_ref4 | DW_FORM_strx4 | DW_FORM_addrx4 => 4,
        DW_FORM_data8 | DW_FORM_ref8 | DW_FORM_ref_sig8 => 8,
        DW_FORM_data16 => 16,
        DW_FORM_strp | DW_FORM_line_strp | DW_FORM_sec_offset => offset,
        // DWARF 2 made it as large as an address.
        DW_FORM_ref_addr if encoding.version == 2 => encoding.address_size.into(),
        DW_FORM_ref_addr => offset,
        _ => return None,
    })
}

/// A table of abbreviations: for each code, how to go through an entry.
#[derive(Default)]
pub(super) struct Table {
    /// Codes, ascending, and where their steps begin and end.
    codes: Vec<(u64, u32, u32)>,
    steps: Vec<Step>,
}

/// A part of an entry. Each consumes input or ends the walk. An attribute without bytes has no step, since
/// otherwise entries of one byte could have a million attributes each.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// This many bytes without an address.
    Skip(u32),
    Read(DwAt, DwForm),
    /// The rest of the unit is in another file.
    Split,
}

impl Table {
    /// Reads the table at the start of `input`, for units of this encoding.
    pub(super) fn read(
        &mut self,
        mut input: Input<'_>,
        encoding: Encoding,
        budget: &Budget,
    ) -> Result<(), Why> {
        self.codes.clear();
        self.steps.clear();
        let mut before = input.len();
        // A table also ends where the section ends: so do gimli and debuggers.
        while !input.is_empty() {
            budget.step(before.saturating_sub(input.len()))?;
            before = input.len();
            let code = input.read_uleb128()?;
            if code == 0 {
                break;
            }
            input.skip_leb128()?; // the tag
            input.read_u8()?; // whether there are children
            let start = self.steps.len();
            loop {
                let name = DwAt(input.read_uleb128_u16()?);
                let form = DwForm(input.read_uleb128_u16()?);
                if (name.0, form.0) == (0, 0) {
                    break;
                }
                if form == DW_FORM_implicit_const {
                    input.skip_leb128()?;
                }
                self.push(start, name, form, encoding)?;
            }
            self.codes.try_push((code, start as u32, self.steps.len() as u32))?;
        }
        self.codes.sort_unstable();
        let mut pairs = self.codes.iter().zip(self.codes.iter().skip(1));
        if let Some(((code, ..), _)) = pairs.find(|(one, next)| one.0 == next.0) {
            return Err(gimli::Error::DuplicateAbbreviationCode(*code).into());
        }
        Ok(())
    }

    /// Adds an attribute to the steps from `start` on.
    fn push(
        &mut self,
        start: usize,
        name: DwAt,
        form: DwForm,
        encoding: Encoding,
    ) -> Result<(), Why> {
        if matches!(name, DW_AT_dwo_name | DW_AT_GNU_dwo_name) {
            return Ok(self.steps.try_push(Step::Split)?);
        }
        let size = fixed_size(form, encoding);
        if size == Some(0) {
            return Ok(());
        }
        let skipped = size
            .filter(|_| !refers_to_section(name, form, encoding.version))
            .and_then(|size| u32::try_from(size).ok());
        match (skipped, self.steps.get_mut(start..).and_then(<[Step]>::last_mut)) {
            // A table has fewer attributes than 2^32 / 16: it would be larger than 4 GiB.
            (Some(size), Some(Step::Skip(bytes))) => *bytes = bytes.saturating_add(size),
            (Some(size), _) => self.steps.try_push(Step::Skip(size))?,
            (None, _) => self.steps.try_push(Step::Read(name, form))?,
        }
        Ok(())
    }

    pub(super) fn steps(&self, code: u64) -> Option<&[Step]> {
        // Compilers number them from 1.
        let guess =
            usize::try_from(code).ok().and_then(|code| self.codes.get(code.checked_sub(1)?));
        let &(_, start, end) = match guess {
            Some(found) if found.0 == code => found,
            _ => self.codes.get(self.codes.binary_search_by_key(&code, |entry| entry.0).ok()?)?,
        };
        self.steps.get(start as usize..end as usize)
    }
}
