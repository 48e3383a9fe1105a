//! Finds the functions, files and lines of an address in an image's DWARF.
//!
//! **The cost is bounded, whatever the bytes are.** Each image has a budget of work and of memory
//! ([`Budget`]). Reading stops when it is spent, and the result is what was found until then. Nothing
//! recurses. Abbreviation tables and line programs are read once and shared by units. The results are
//! kept, so a second query costs little.
//!
//! **DWARF is read on demand.** The first query reads the root entries of all units, which say where
//! their code is. Each query then reads the functions and the line program of the units that contain the
//! address, and the inlined calls of the function that contains it.
//!
//! The results equal those of the crate addr2line; the tests compare them. That crate is not used, since
//! its work cannot be bounded. Functions and line sequences can overlap, since linkers leave the DWARF of
//! discarded sections behind. Of those that contain an address, the one that begins last counts.
//!
//! Not read: split DWARF in other files (only its line programs, which are in the image), and supplementary
//! files (`dwz -m`).
//!
//! Sources: the standards DWARF 2 to 5.

#![forbid(unsafe_code)]
// The constants have their names of the DWARF standard.
#![allow(non_upper_case_globals)]

mod abbreviations;
mod budget;
mod functions;
mod program;
mod sections;
mod units;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::base::addr::Vaddr;
use crate::base::fallible::{TryGrow, lossy, try_lossy, try_push_str, try_string, try_vec};
use budget::{Budget, Stop};
use functions::Functions;
use program::{Program, Row};
use sections::{Section, Sections, StringRef};
use units::{Unit, Units};

/// The most units that one query reads.
const MAX_UNITS: usize = 256;
/// The most functions of one result: the innermost inlined ones, and the function that is not inlined.
const MAX_FUNCTIONS: usize = 256;
/// The most bytes of names and paths in the result for one address.
const MAX_STRINGS: usize = 1 << 20;
/// The most bytes of a path in the result of [`Dwarf::lines`], where every line has one.
const MAX_PATH: usize = 4096;

/// A function that an address lies in, and the source location there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceFrame {
    /// The linkage name.
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

/// A row of the line table: a source line, and the address where its code begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) address: Vaddr,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// The DWARF of an image.
#[derive(Debug)]
pub(crate) struct Dwarf {
    sections: Sections,
    budget: Budget,
    units: Option<Units>,
    /// By unit number.
    functions: BTreeMap<u32, Functions>,
    programs: Programs,
}

/// The line programs that were read, by their offsets in `.debug_line`.
#[derive(Debug, Default)]
struct Programs(BTreeMap<usize, Option<Arc<Program>>>);

impl Programs {
    fn get(&mut self, sections: &Sections, at: usize, budget: &mut Budget) -> Option<Arc<Program>> {
        if let Some(program) = self.0.get(&at) {
            return program.clone();
        }
        budget.keep::<[usize; 8]>(1).ok()?;
        budget.require_memory().ok()?;
        let program = budget.share(|budget| Program::read(sections, at, budget));
        let program = program.ok().map(Arc::new);
        self.0.insert(at, program.clone());
        program
    }
}

impl Dwarf {
    /// The names of the sections that it reads.
    pub(crate) const SECTIONS: [&'static str; Section::NAMES.len()] = Section::NAMES;

    /// From the uncompressed `contents` of sections that take `stored` bytes in the file.
    pub(crate) fn new(contents: Vec<(&'static str, Vec<u8>)>, stored: u64) -> Dwarf {
        let mut sections = Sections::default();
        for (name, contents) in contents {
            sections.set(name, contents);
        }
        Dwarf {
            sections,
            budget: Budget::new(stored),
            units: None,
            functions: BTreeMap::new(),
            programs: Programs::default(),
        }
    }

    /// Whether the budget was too small to read all that a query needed. Results may be incomplete then.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.budget.is_spent()
    }

    /// Whether memory ran out. Results may be incomplete then, and must not be kept.
    pub(crate) fn is_without_memory(&self) -> bool {
        self.budget.is_without_memory()
    }

    fn units(&mut self) -> &mut Units {
        let Dwarf { sections, budget, programs, .. } = self;
        self.units.get_or_insert_with(|| {
            budget.share(|budget| {
                Units::find(sections, budget, |budget, at, each| {
                    let program = programs.get(sections, at, budget).ok_or(Stop::Malformed)?;
                    program.ranges().try_for_each(|(begin, end)| each(begin, end))
                })
            })
        })
    }

    /// The functions that an address lies in, the innermost inlined one first.
    pub(crate) fn frames(&mut self, address: Vaddr) -> Vec<SourceFrame> {
        let Some(end) = address.0.checked_add(1) else { return Vec::new() };
        let mut seen = HashSet::new();
        let candidates = self.units().at(address.0, end).map(|(unit, ..)| unit);
        let candidates: Vec<u32> =
            candidates.filter(|&unit| seen.insert(unit)).take(MAX_UNITS).collect();
        for number in candidates {
            if self.budget.require_memory().is_err() {
                break;
            }
            let frames = self.frames_in(number, address.0);
            if !frames.is_empty() {
                return frames;
            }
        }
        Vec::new()
    }

    /// As [`Dwarf::frames`], in one unit.
    fn frames_in(&mut self, number: u32, address: u64) -> Vec<SourceFrame> {
        let Dwarf { sections, budget, units: Some(units), functions, programs } = self else {
            return Vec::new();
        };
        let Some(unit) = units.get(sections, number, budget) else { return Vec::new() };
        // Before the names, since hundreds of names could each spend half of the budget that is left.
        let program = unit.lines.and_then(|at| programs.get(sections, at, budget));
        let functions = functions
            .entry(number)
            .or_insert_with(|| budget.share(|budget| Functions::read(sections, &unit, budget)));
        let found = functions.at(sections, &unit, units, address, MAX_FUNCTIONS, budget);
        let row = program.as_ref().and_then(|program| program.row(sections, address));
        let mut strings = BoundedStrings { sections, room: MAX_STRINGS };
        let mut frame = row.map(|row| {
            let file = program.as_ref().and_then(|it| strings.path(&unit, it, row.file.into()));
            let known = Some(row.line).filter(|&line| line > 0);
            let column = known.and(Some(row.column).filter(|&column| column > 0));
            SourceFrame { function: None, file, line: known, column }
        });
        if found.is_empty() {
            return frame.into_iter().collect();
        }
        let Ok(mut frames) = try_vec(found.len()) else { return Vec::new() };
        for function in found {
            let mut this = frame.take().unwrap_or_default();
            this.function = function.name.and_then(|name| strings.get(name));
            frames.push(this);
            frame = function.call.map(|(file, line, column)| SourceFrame {
                function: None,
                file: file
                    .zip(program.as_ref())
                    .and_then(|(file, program)| strings.path(&unit, program, file)),
                line: Some(line).filter(|&line| line > 0),
                column: Some(column).filter(|&column| column > 0),
            });
        }
        frames
    }

    /// The lines of a range of code, ascending within each unit.
    pub(crate) fn lines(&mut self, addresses: Range<Vaddr>) -> Vec<Line> {
        let (start, end) = (addresses.start.0, addresses.end.0);
        let parts: Vec<_> = self.units().at(start, end).take(MAX_UNITS).collect();
        let Dwarf { sections, budget, units: Some(units), programs, .. } = self else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for (number, begin, behind) in parts {
            let part = begin.max(start)..behind.min(end);
            let Some(unit) = units.get(sections, number, budget) else { continue };
            let program = unit.lines.and_then(|at| programs.get(sections, at, budget));
            let Some(program) = program else { continue };
            let mut last: Option<(u32, Option<String>)> = None;
            let read = program.rows(sections, part, budget, &mut |budget, row: Row| {
                if last.as_ref().is_none_or(|last| last.0 != row.file) {
                    let mut strings = BoundedStrings { sections, room: MAX_PATH };
                    last = Some((row.file, strings.path(&unit, &program, row.file.into())));
                }
                if let (Some((_, Some(file))), 1..) = (&last, row.line) {
                    budget.work(file.len() as u64)?;
                    let address = Vaddr(row.address.max(start));
                    let file = try_string(file);
                    let line = file.map(|file| Line { address, file, line: row.line });
                    let pushed = line.and_then(|line| lines.try_push(line));
                    pushed.map_err(|error| budget.without_memory(error))?;
                }
                Ok(())
            });
            if read == Err(Stop::Spent) {
                break;
            }
        }
        lines
    }
}

/// Makes the strings of a result, and bounds their total length: many entries can share one long name.
struct BoundedStrings<'a> {
    sections: &'a Sections,
    room: usize,
}

impl BoundedStrings<'_> {
    /// The string; `None` if it is empty or does not fit.
    fn get(&mut self, string: StringRef) -> Option<String> {
        let bytes = self.sections.string(string, self.room)?;
        let string = try_lossy(bytes).ok()?;
        self.room = self.room.saturating_sub(string.len());
        (!string.is_empty()).then_some(string)
    }

    /// The path of a file of a unit's line program. An absolute part replaces the parts before it.
    fn path(&mut self, unit: &Unit, program: &Program, file: u64) -> Option<String> {
        let [directory, name] = program.path(file, unit.name)?;
        let mut path = String::new();
        for part in [unit.directory, directory, name].into_iter().flatten() {
            let room = self.room.saturating_sub(path.len());
            let part = lossy(self.sections.string(part, room)?);
            if part.starts_with('/') {
                path.clear();
            } else if !path.is_empty() && !path.ends_with('/') {
                path.push('/');
            }
            try_push_str(&mut path, &part).ok()?;
        }
        self.room = self.room.saturating_sub(path.len());
        Some(path)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod hostile;
