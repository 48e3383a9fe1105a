//! The functions of a unit, and what is inlined in them (DWARF 5, 3.3).
//!
//! Entries are a tree that may be as deep as there are bytes. It is walked with a stack of its own.

#![forbid(unsafe_code)]

use std::sync::Arc;

use gimli::constants::*;

use super::budget::{Budget, MAX_OVERLAPS, Result, Stop};
use super::sections::{Code, Sections, Text, Value};
use super::units::{Unit, Units};
use crate::base::fallible::{TryGrow, try_vec};

/// A name, or where to look for it.
#[derive(Clone, Copy, Debug)]
enum Name {
    /// At the entry at this place.
    At(usize),
    Known(Option<Text>),
}

/// The functions of a unit.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// Ascending by their beginnings.
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
    /// Read when it is asked for.
    inlined: Option<Inlined>,
}

/// What is inlined in a function.
#[derive(Debug, Default)]
struct Inlined {
    /// Ascending by their depth, then by their beginnings.
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

/// An inlined function, and from where it is called.
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
    pub(super) name: Option<Text>,
    /// If it is inlined, from where it is called: file, line and column, those 0 if they are not
    /// known.
    pub(super) call: Option<(Option<u64>, u32, u32)>,
}

impl Functions {
    /// Those of a unit, as far as the budget goes.
    pub(super) fn read(sections: &Sections, unit: &Unit, budget: &mut Budget) -> Functions {
        let mut functions = Functions::default();
        // What cannot be read ends it; what was read before counts.
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
            let mut code = Code::default();
            entries.attributes(&entry, budget, |name, value| code.take(name, value))?;
            let function = u32::try_from(self.list.len()).map_err(|_| Stop::Malformed)?;
            let ranges = &mut self.ranges;
            let has_code = code.each(sections, &unit.bases, budget, |budget, begin, end| {
                budget.push(ranges, FunctionRange { begin, end, function })
            })?;
            if has_code {
                let name = Name::At(entry.at);
                budget.push(&mut self.list, Function { at: entry.at, name, inlined: None })?;
            }
        }
        Ok(())
    }

    /// The functions that `address` lies in, the innermost first, and `most` at most; none if it is
    /// in none of the unit's.
    pub(super) fn at(
        &mut self,
        sections: &Sections,
        unit: &Unit,
        units: &mut Units,
        address: u64,
        most: usize,
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
        // The innermost tell where the code is from.
        calls.drain(..calls.len().saturating_sub(most.saturating_sub(1)));
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
    /// What is inlined in the function whose entry is at `at`, as far as the budget goes.
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
        // The depths of the entries that the next one is in: inlined functions, and a function that
        // has code of its own.
        let mut around: Vec<isize> = Vec::new();
        let mut other = None;
        let version = unit.bases.encoding.version;
        while let Some(entry) = entries.next(budget)? {
            if entry.depth <= 0 {
                break;
            }
            if other.is_some_and(|other| entry.depth > other) {
                entries.skip(&entry, budget)?;
                continue;
            }
            other = None;
            while around.last().is_some_and(|&around| around >= entry.depth) {
                around.pop();
            }
            if entry.tag == DW_TAG_subprogram {
                other = Some(entry.depth);
            }
            if entry.tag != DW_TAG_inlined_subroutine {
                entries.skip(&entry, budget)?;
                continue;
            }
            let mut code = Code::default();
            let mut call = Call { name: Name::At(entry.at), file: None, line: 0, column: 0 };
            entries.attributes(&entry, budget, |name, value| match name {
                // Up to DWARF 4 files are counted from 1.
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
    /// How many entries are looked at for one name.
    const MAX_ENTRIES: usize = 16;

    /// The name; looked for once.
    fn resolve(
        &mut self,
        sections: &Sections,
        unit: &Unit,
        units: &mut Units,
        budget: &mut Budget,
    ) -> Option<Text> {
        match *self {
            Name::Known(name) => name,
            Name::At(at) => {
                let name = budget.share(|budget| Name::search(sections, unit, units, at, budget));
                let name = name.unwrap_or(None);
                *self = Name::Known(name);
                name
            }
        }
    }

    /// The linkage name, or else the name, of an entry or of those that it refers to.
    fn search(
        sections: &Sections,
        unit: &Unit,
        units: &mut Units,
        mut at: usize,
        budget: &mut Budget,
    ) -> Result<Option<Text>> {
        let first = unit;
        let mut other: Option<Arc<Unit>> = None;
        for _ in 0..Name::MAX_ENTRIES {
            let unit = other.as_deref().unwrap_or(first);
            let mut entries = unit.entries(sections, at)?;
            let Some(entry) = entries.next(budget)? else { break };
            let (mut linkage, mut plain, mut next) = (None, None, None);
            entries.attributes(&entry, budget, |name, value| match name {
                DW_AT_linkage_name | DW_AT_MIPS_linkage_name => {
                    linkage = unit.bases.text(sections, value).or(linkage);
                }
                DW_AT_name => plain = unit.bases.text(sections, value).or(plain),
                DW_AT_abstract_origin | DW_AT_specification => next = Some(value),
                _ => {}
            })?;
            if let Some(name) = linkage.or(plain) {
                return Ok(Some(name));
            }
            match next {
                Some(Value::UnitReference(offset)) => {
                    at = unit.place(offset).ok_or(Stop::Malformed)?;
                }
                Some(Value::InfoReference(place)) => {
                    at = usize::try_from(place).map_err(|_| Stop::Malformed)?;
                    let number = units.holding(at).ok_or(Stop::Malformed)?;
                    other = Some(units.get(sections, number, budget).ok_or(Stop::Malformed)?);
                }
                _ => break,
            }
        }
        Ok(None)
    }
}
