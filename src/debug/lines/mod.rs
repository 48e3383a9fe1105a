//! From an address to functions, files and lines, by an image's DWARF.
//!
//! **Whatever the bytes are**, an answer comes soon: reading has a budget for each image
//! ([`Budget`]), of work and of memory, and stops where it is spent, with what it has found. There is
//! no recursion. What can be shared is read once: tables of abbreviations, and line programs. What was
//! read is kept, so that a second question costs little.
//!
//! **Nothing is read before it is asked for**, but for the root entries of all units, which tell
//! where their code is. Then of the units that have the address the functions and the line program,
//! and of the function that has it what is inlined there.
//!
//! Answers are those of the crate addr2line, which the tests compare. It is not used, since what it
//! does cannot be bounded. Where functions or sequences of lines overlap, which is what linkers leave
//! of code that they have thrown away, the one that begins last is taken.
//!
//! Not read: split DWARF in other files (of that, lines only), supplementary files (dwz -m).
//!
//! Sources: DWARF 2 to 5.

#![forbid(unsafe_code)]
// What is read here is hostile.
// The names are those of DWARF.
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
use sections::{Section, Sections, Text};
use units::{Unit, Units};

/// Units that are looked at for one address.
const MAX_UNITS: usize = 256;
/// Functions that are told of for one address: the innermost, and the outermost.
const MAX_FUNCTIONS: usize = 256;
/// Names and files that are told for one address, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// The path of a file where each line has it, in bytes.
const MAX_PATH: usize = 4096;

/// What DWARF says of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The linkage name.
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

/// A line of the source, and from where on the code is its.
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
    /// By the numbers of units.
    functions: BTreeMap<u32, Functions>,
    programs: Programs,
}

/// The line programs that were read, by where they are.
#[derive(Debug, Default)]
struct Programs(BTreeMap<usize, Option<Arc<Program>>>);

impl Programs {
    fn get(&mut self, sections: &Sections, at: usize, budget: &mut Budget) -> Option<Arc<Program>> {
        if let Some(program) = self.0.get(&at) {
            return program.clone();
        }
        budget.keep::<[usize; 8]>(1).ok()?;
        budget.small().ok()?;
        let program = budget.share(|budget| Program::read(sections, at, budget));
        let program = program.ok().map(Arc::new);
        self.0.insert(at, program.clone());
        program
    }
}

impl Dwarf {
    /// The names of the sections that are read.
    pub(crate) const SECTIONS: [&'static str; Section::NAMES.len()] = Section::NAMES;

    /// That in `contents`, whose sections take `stored` bytes in the file.
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

    /// Whether there was more to read than the budget allows: what is missing in answers may be in
    /// what was not read.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.budget.is_spent()
    }

    /// Whether there was no memory for something: what was read is not to be kept.
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

    /// The functions that an address lies in, the innermost first.
    pub(crate) fn places(&mut self, address: Vaddr) -> Vec<Place> {
        let Some(end) = address.0.checked_add(1) else { return Vec::new() };
        let mut seen = HashSet::new();
        let candidates = self.units().at(address.0, end).map(|(unit, ..)| unit);
        let candidates: Vec<u32> =
            candidates.filter(|&unit| seen.insert(unit)).take(MAX_UNITS).collect();
        for number in candidates {
            if self.budget.small().is_err() {
                break;
            }
            let places = self.places_in(number, address.0);
            if !places.is_empty() {
                return places;
            }
        }
        Vec::new()
    }

    /// As [`Dwarf::places`], in one unit.
    fn places_in(&mut self, number: u32, address: u64) -> Vec<Place> {
        let Dwarf { sections, budget, units: Some(units), functions, programs } = self else {
            return Vec::new();
        };
        let Some(unit) = units.get(sections, number, budget) else { return Vec::new() };
        // Before hundreds of names each take a half of what is left.
        let program = unit.lines.and_then(|at| programs.get(sections, at, budget));
        let functions = functions
            .entry(number)
            .or_insert_with(|| budget.share(|budget| Functions::read(sections, &unit, budget)));
        let found = functions.at(sections, &unit, units, address, MAX_FUNCTIONS, budget);
        let row = program.as_ref().and_then(|program| program.row(sections, address));
        let mut texts = Texts { sections, room: MAX_TEXT };
        let mut place = row.map(|row| {
            let file = program.as_ref().and_then(|it| texts.path(&unit, it, row.file.into()));
            let known = Some(row.line).filter(|&line| line > 0);
            let column = known.and(Some(row.column).filter(|&column| column > 0));
            Place { function: None, file, line: known, column }
        });
        if found.is_empty() {
            return place.into_iter().collect();
        }
        let Ok(mut places) = try_vec(found.len()) else { return Vec::new() };
        for function in found {
            let mut this = place.take().unwrap_or_default();
            this.function = function.name.and_then(|name| texts.get(name));
            places.push(this);
            place = function.call.map(|(file, line, column)| Place {
                function: None,
                file: file
                    .zip(program.as_ref())
                    .and_then(|(file, program)| texts.path(&unit, program, file)),
                line: Some(line).filter(|&line| line > 0),
                column: Some(column).filter(|&column| column > 0),
            });
        }
        places
    }

    /// The lines of a range of code, ascending.
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
                    let mut texts = Texts { sections, room: MAX_PATH };
                    last = Some((row.file, texts.path(&unit, &program, row.file.into())));
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

/// The texts of an answer, which together have a limit: many names can be one long one.
struct Texts<'a> {
    sections: &'a Sections,
    room: usize,
}

impl Texts<'_> {
    /// A text that is not empty.
    fn get(&mut self, text: Text) -> Option<String> {
        let bytes = self.sections.text(text, self.room)?;
        let text = try_lossy(bytes).ok()?;
        self.room = self.room.saturating_sub(text.len());
        (!text.is_empty()).then_some(text)
    }

    /// The path of a file of a unit's line program.
    fn path(&mut self, unit: &Unit, program: &Program, file: u64) -> Option<String> {
        let [folder, name] = program.path(file, unit.name)?;
        let mut path = String::new();
        for part in [unit.folder, folder, name].into_iter().flatten() {
            let room = self.room.saturating_sub(path.len());
            let part = lossy(self.sections.text(part, room)?);
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
