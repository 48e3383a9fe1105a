//! Abbreviations (DWARF 5, 7.5.3): how to read an entry.
//!
//! An abbreviation is kept as a list of steps: skip some bytes, read a value. Values that take no bytes
//! and that nobody reads have no step. So the cost of an entry follows its size in bytes, however many
//! attributes its abbreviation lists.

#![forbid(unsafe_code)]

use gimli::constants::*;
use gimli::{Encoding, Reader};

use super::budget::{Budget, Result, Stop};
use super::sections::{Input, fixed_size};

/// The attributes that are read.
const READ: [DwAt; 20] = [
    DW_AT_name,
    DW_AT_linkage_name,
    DW_AT_MIPS_linkage_name,
    DW_AT_abstract_origin,
    DW_AT_specification,
    DW_AT_low_pc,
    DW_AT_high_pc,
    DW_AT_ranges,
    DW_AT_call_file,
    DW_AT_call_line,
    DW_AT_call_column,
    DW_AT_comp_dir,
    DW_AT_stmt_list,
    DW_AT_str_offsets_base,
    DW_AT_addr_base,
    DW_AT_GNU_addr_base,
    DW_AT_rnglists_base,
    DW_AT_GNU_ranges_base,
    DW_AT_dwo_name,
    DW_AT_GNU_dwo_name,
];

/// A step of reading an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Skip this many bytes.
    Skip(u32),
    /// Skip a value whose size is known only from the entry.
    SkipValue(DwForm),
    /// Read an attribute.
    Read(DwAt, DwForm),
    /// The value of an attribute that the abbreviation itself states (`DW_FORM_implicit_const`).
    ImplicitConst(DwAt, i64),
}

/// The abbreviation of one code. Its steps are `start..end` of the table's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abbreviation {
    code: u64,
    pub(super) tag: DwTag,
    pub(super) has_children: bool,
    start: u32,
    end: u32,
}

/// An abbreviation table, for units of one encoding.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Ascending by code.
    abbreviations: Vec<Abbreviation>,
    steps: Vec<Step>,
}

impl Table {
    /// The table at the start of `input`, up to the first abbreviation that is malformed.
    pub(super) fn read(
        mut input: Input<'_>,
        encoding: Encoding,
        budget: &mut Budget,
    ) -> Result<Table> {
        let mut table = Table::default();
        loop {
            match table.read_one(&mut input, encoding, budget) {
                Ok(true) => {}
                Ok(false) | Err(Stop::Malformed) => break,
                Err(Stop::Spent) => return Err(Stop::Spent),
            }
        }
        // Of two with the same code, the first one counts; if both have no steps, either.
        table.abbreviations.sort_unstable_by_key(|it| (it.code, it.start, it.end));
        table.abbreviations.dedup_by_key(|abbreviation| abbreviation.code);
        Ok(table)
    }

    fn read_one(
        &mut self,
        input: &mut Input<'_>,
        encoding: Encoding,
        budget: &mut Budget,
    ) -> Result<bool> {
        budget.work(4)?;
        if input.is_empty() {
            return Ok(false);
        }
        let code = input.read_uleb128()?;
        if code == 0 {
            return Ok(false);
        }
        let tag = DwTag(input.read_uleb128_u16()?);
        let has_children = input.read_u8()? != 0;
        let start = self.steps.len();
        // A bit for each attribute of `READ` that has an implicit constant.
        let mut known = 0u32;
        loop {
            budget.work(1)?;
            let name = DwAt(input.read_uleb128_u16()?);
            let form = DwForm(input.read_uleb128_u16()?);
            if (name.0, form.0) == (0, 0) {
                break;
            }
            let implicit = match form {
                DW_FORM_implicit_const => Some(input.read_sleb128()?),
                _ => None,
            };
            let index = READ.iter().position(|&read| read == name);
            match (index, implicit) {
                (Some(index), Some(value)) => {
                    let bit = 1u32.checked_shl(index as u32).unwrap_or(0);
                    if known & bit == 0 {
                        known |= bit;
                        self.push(Step::ImplicitConst(name, value), budget)?;
                    }
                }
                (Some(_), None) if fixed_size(form, encoding) != Some(0) => {
                    self.push(Step::Read(name, form), budget)?;
                }
                _ => self.push_skipped(start, form, encoding, budget)?,
            }
        }
        let narrow = |at: usize| u32::try_from(at).map_err(|_| Stop::Malformed);
        let (start, end) = (narrow(start)?, narrow(self.steps.len())?);
        let abbreviation = Abbreviation { code, tag, has_children, start, end };
        budget.push(&mut self.abbreviations, abbreviation)?;
        Ok(true)
    }

    fn push(&mut self, step: Step, budget: &mut Budget) -> Result<()> {
        budget.push(&mut self.steps, step)?;
        Ok(())
    }

    /// Adds a step that skips a value, or extends the last step if it skips bytes, too. The steps from
    /// `start` on belong to this abbreviation.
    fn push_skipped(
        &mut self,
        start: usize,
        form: DwForm,
        encoding: Encoding,
        budget: &mut Budget,
    ) -> Result<()> {
        let size = fixed_size(form, encoding).and_then(|size| u32::try_from(size).ok());
        let Some(size) = size else { return self.push(Step::SkipValue(form), budget) };
        if size == 0 {
            return Ok(());
        }
        let last = self.steps.get_mut(start..).and_then(<[Step]>::last_mut);
        if let Some(Step::Skip(bytes)) = last
            && let Some(sum) = bytes.checked_add(size)
        {
            *bytes = sum;
            return Ok(());
        }
        self.push(Step::Skip(size), budget)
    }

    pub(super) fn get(&self, code: u64) -> Option<&Abbreviation> {
        // Compilers number abbreviations from 1 without gaps.
        let guess = usize::try_from(code).ok()?.checked_sub(1)?;
        if let Some(found) = self.abbreviations.get(guess)
            && found.code == code
        {
            return Some(found);
        }
        let index = self.abbreviations.binary_search_by_key(&code, |it| it.code).ok()?;
        self.abbreviations.get(index)
    }

    pub(super) fn steps(&self, abbreviation: &Abbreviation) -> &[Step] {
        self.steps.get(abbreviation.start as usize..abbreviation.end as usize).unwrap_or_default()
    }
}
