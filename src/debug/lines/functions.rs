//! The functions of a unit, and the calls that are inlined in them (DWARF 5, 3.3).
//!
//! The tree of entries can be as deep as the section is long, so walking it does not recurse.

#![forbid(unsafe_code)]

use std::sync::Arc;

use gimli::constants::*;

use super::budget::{Budget, MAX_OVERLAPS, Result, Stop};
use super::sections::{PcRanges, Sections, StringRef, Value};
use super::units::{Unit, Units};
use crate::base::fallible::{TryGrow, try_vec};

/// The name of a function, which is resolved at the first query.
#[derive(Clone, Copy, Debug)]
enum Name {
    /// Not resolved yet: the offset of the function's entry.
    Unresolved(usize),
    Resolved(Option<StringRef>),
}

/// The functions of a unit.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// Ascending by `begin`.
    ranges: Vec<FunctionRange>,
    list: Vec<Function>,
}

#[derive(Clone, Copy, Debug)]
struct FunctionRange {
    begin: u64,
    end: u64,
    function: u32,
}

#[derive(Debug)]
struct Function {
    at: usize,
    name: Name,
    /// `None` before the first query.
    inlined: Option<Inlined>,
}

/// The calls that are inlined in a function.
#[derive(Debug, Default)]
struct Inlined {
    /// Ascending by `depth`, then by `begin`.
    ranges: Vec<InlinedRange>,
    list: Vec<Call>,
}

#[derive(Clone, Copy, Debug)]
struct InlinedRange {
    depth: u32,
    call: u32,
    begin: u64,
    end: u64,
}

/// An inlined call: the function's name and the call site.
#[derive(Clone, Copy, Debug)]
struct Call {
    name: Name,
    file: Option<u64>,
    line: u32,
    column: u32,
}

/// A function that an address lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) name: Option<StringRef>,
    /// The call site of an inlined function: file, line and column. Line and column are 0 if they are
    /// unknown.
    pub(super) call: Option<(Option<u64>, u32, u32)>,
}

impl Functions {
    /// The functions of a unit that have code, up to the first malformed entry or the end of the budget.
    pub(super) fn read(sections: &Sections, unit: &Unit, budget: &mut Budget) -> Functions {
        let mut functions = Functions::default();
        // After an error, the functions that were read before it count.
        let _ = functions.read_all(sections, unit, budget);
        // In place: a stable sort would take memory.
        functions.ranges.sort_unstable_by_key(|range| (range.begin, range.function));
        functions
    }

    fn read_all(&mut self, sections: &Sections, unit: &Unit, budget: &mut Budget) -> Result<()> {
        let mut entries = unit.entries(sections, unit.root())?;
        while let Some(entry) = entries.next(budget)? {
            if entry.tag != DW_TAG_subprogram {
                entries.skip(&entry, budget)?;
                continue;
            }
            let mut code = PcRanges::default();
            entries.attributes(&entry, budget, |name, value| code.take(name, value))?;
            let function = u32::try_from(self.list.len()).map_err(|_| Stop::Malformed)?;
            let ranges = &mut self.ranges;
            let has_code = code.each(sections, &unit.bases, budget, |budget, begin, end| {
                budget.push(ranges, FunctionRange { begin, end, function })
            })?;
            if has_code {
                let name = Name::Unresolved(entry.at);
                budget.push(&mut self.list, Function { at: entry.at, name, inlined: None })?;
            }
        }
        Ok(())
    }

    /// The functions that `address` lies in, the innermost first, at most `max`. Empty if the address lies
    /// in no function of the unit.
    pub(super) fn at(
        &mut self,
        sections: &Sections,
        unit: &Unit,
        units: &mut Units,
        address: u64,
        max: usize,
        budget: &mut Budget,
    ) -> Vec<Found> {
        let after = self.ranges.partition_point(|range| range.begin <= address);
        let mut before = self.ranges.get(..after).unwrap_or_default().iter().rev();
        let range = before.by_ref().take(MAX_OVERLAPS).find(|it| address < it.end);
        let function = range.and_then(|range| self.list.get_mut(range.function as usize));
        let Some(function) = function else { return Vec::new() };
        let at = function.at;
        let inlined = function.inlined.get_or_insert_with(|| {
            budget.share(|budget| Inlined::read(sections, unit, at, budget))
        });
        let Ok(mut calls) = inlined.at(address, budget) else { return Vec::new() };
        // Of too many, the outermost inlined calls are left out: the innermost say where the code is from.
        calls.drain(..calls.len().saturating_sub(max.saturating_sub(1)));
        let mut found = match try_vec(calls.len().saturating_add(1)) {
            Ok(found) => found,
            Err(error) => {
                budget.without_memory(error);
                return Vec::new();
            }
        };
        for index in calls.into_iter().rev() {
            let Some(call) = inlined.list.get_mut(index as usize) else { continue };
            let name = call.name.resolve(sections, unit, units, budget);
            found.push(Found { name, call: Some((call.file, call.line, call.column)) });
        }
        let name = function.name.resolve(sections, unit, units, budget);
        found.push(Found { name, call: None });
        found
    }
}

impl Inlined {
    /// The calls that are inlined in the function whose entry is at `at`, up to the first malformed entry or
    /// the end of the budget.
    fn read(sections: &Sections, unit: &Unit, at: usize, budget: &mut Budget) -> Inlined {
        let mut inlined = Inlined::default();
        let _ = inlined.read_all(sections, unit, at, budget);
        inlined.ranges.sort_unstable_by_key(|range| (range.depth, range.begin, range.call));
        inlined
    }

    fn read_all(
        &mut self,
        sections: &Sections,
        unit: &Unit,
        at: usize,
        budget: &mut Budget,
    ) -> Result<()> {
        let mut entries = unit.entries(sections, at)?;
        let function = entries.next(budget)?.ok_or(Stop::Malformed)?;
        entries.skip(&function, budget)?;
        // The depths of the inlined calls that contain the next entry.
        let mut around: Vec<isize> = Vec::new();
        // The depth of a nested function, which has code of its own: its calls are not this function's.
        let mut nested = None;
        let version = unit.bases.encoding.version;
        while let Some(entry) = entries.next(budget)? {
            if entry.depth <= 0 {
                break;
            }
            if nested.is_some_and(|nested| entry.depth > nested) {
                entries.skip(&entry, budget)?;
                continue;
            }
            nested = None;
            while around.last().is_some_and(|&around| around >= entry.depth) {
                around.pop();
            }
            if entry.tag == DW_TAG_subprogram {
                nested = Some(entry.depth);
            }
            if entry.tag != DW_TAG_inlined_subroutine {
                entries.skip(&entry, budget)?;
                continue;
            }
            let mut code = PcRanges::default();
            let mut call =
                Call { name: Name::Unresolved(entry.at), file: None, line: 0, column: 0 };
            entries.attributes(&entry, budget, |name, value| match name {
                // Up to DWARF 4, files are numbered from 1, and 0 means none.
                DW_AT_call_file => {
                    call.file = value.constant().filter(|&file| file > 0 || version >= 5);
                }
                DW_AT_call_line => call.line = value.constant().unwrap_or(0) as u32,
                DW_AT_call_column => call.column = value.constant().unwrap_or(0) as u32,
                name => code.take(name, value),
            })?;
            let narrow = |count: usize| u32::try_from(count).map_err(|_| Stop::Malformed);
            let (depth, number) = (narrow(around.len())?, narrow(self.list.len())?);
            budget.push(&mut self.list, call)?;
            budget.push(&mut around, entry.depth)?;
            let ranges = &mut self.ranges;
            code.each(sections, &unit.bases, budget, |budget, begin, end| {
                budget.push(ranges, InlinedRange { depth, call: number, begin, end })
            })?;
        }
        Ok(())
    }

    /// The calls that `address` lies in, the outermost first.
    fn at(&self, address: u64, budget: &mut Budget) -> Result<Vec<u32>> {
        let mut calls = Vec::new();
        let mut rest = self.ranges.as_slice();
        for depth in 0.. {
            let start = rest.partition_point(|range| range.depth < depth);
            let after =
                rest.partition_point(|range| (range.depth, range.begin) <= (depth, address));
            let at_depth = rest.get(start..after).unwrap_or_default().iter().rev();
            let found = at_depth.take(MAX_OVERLAPS).find(|range| address < range.end);
            let Some(found) = found else { break };
            calls.try_push(found.call).map_err(|error| budget.without_memory(error))?;
            rest = rest.get(after..).unwrap_or_default();
        }
        Ok(calls)
    }
}

impl Name {
    /// The longest chain of origins and specifications that is followed for a name.
    const MAX_ENTRIES: usize = 16;

    /// The name. The search runs once.
    fn resolve(
        &mut self,
        sections: &Sections,
        unit: &Unit,
        units: &mut Units,
        budget: &mut Budget,
    ) -> Option<StringRef> {
        match *self {
            Name::Resolved(name) => name,
            Name::Unresolved(at) => {
                let name = budget.share(|budget| Name::search(sections, unit, units, at, budget));
                let name = name.unwrap_or(None);
                *self = Name::Resolved(name);
                name
            }
        }
    }

    /// The linkage name, or else the name, of an entry, or of the entries that its
    /// `DW_AT_abstract_origin` or `DW_AT_specification` leads to.
    fn search(
        sections: &Sections,
        unit: &Unit,
        units: &mut Units,
        mut at: usize,
        budget: &mut Budget,
    ) -> Result<Option<StringRef>> {
        let first = unit;
        let mut other: Option<Arc<Unit>> = None;
        for _ in 0..Name::MAX_ENTRIES {
            let unit = other.as_deref().unwrap_or(first);
            let mut entries = unit.entries(sections, at)?;
            let Some(entry) = entries.next(budget)? else { break };
            let (mut linkage, mut plain, mut next) = (None, None, None);
            entries.attributes(&entry, budget, |name, value| match name {
                DW_AT_linkage_name | DW_AT_MIPS_linkage_name => {
                    linkage = unit.bases.string(sections, value).or(linkage);
                }
                DW_AT_name => plain = unit.bases.string(sections, value).or(plain),
                DW_AT_abstract_origin | DW_AT_specification => next = Some(value),
                _ => {}
            })?;
            if let Some(name) = linkage.or(plain) {
                return Ok(Some(name));
            }
            match next {
                Some(Value::UnitReference(offset)) => {
                    at = unit.section_offset(offset).ok_or(Stop::Malformed)?;
                }
                Some(Value::InfoReference(offset)) => {
                    at = usize::try_from(offset).map_err(|_| Stop::Malformed)?;
                    let number = units.holding(at).ok_or(Stop::Malformed)?;
                    other = Some(units.get(sections, number, budget).ok_or(Stop::Malformed)?);
                }
                _ => break,
            }
        }
        Ok(None)
    }
}
