//! The functions of an image by address, by which profilers name samples.
//!
//! They come from the fullest symbol table: the `.symtab` that the section headers state, of the image or of
//! the file that was split off it, or else the dynamic symbols, which every image has. Section headers are
//! not needed to run an image, so they may be false: then names are missing or wrong, and nothing else
//! happens. The functions never overlap, and lie in executable segments. This file writes nothing.
//!
//! Source: gABI "Section Header", "Symbol Table". Which of several names of one address is shown:
//! as perf chooses (`symbol.c`, `choose_best_symbol`).

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;

use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_vec};
use crate::debug::symbol_table;
use crate::elf::constants::{STB_GLOBAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use crate::elf::read::string_at;
use crate::elf::segment::Segment;
use crate::elf::symbol::{SYM_SIZE, Sym};
use crate::memory::bytes::Image;

/// The most that is shown of a name, in bytes.
const MAX_NAME: usize = 4096;

/// A function, or a part of one in which no other lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    /// The addresses that the image states; not empty.
    pub addresses: Range<Vaddr>,
    /// Its linkage name; not empty.
    pub name: &'a [u8],
}

/// The functions of `image`, ascending; `debug_info` is a file that was split off it. Their names
/// together are no longer than twice the bytes that they come from.
pub(crate) fn of_image<'a>(
    image: &'a Image<'_>,
    debug_info: Option<&'a [u8]>,
) -> Result<Vec<Function<'a>>, Error> {
    let bytes = image.bytes().len().max(debug_info.map_or(0, <[u8]>::len));
    let mut candidates = Candidates { image, room: bytes.saturating_mul(2), list: Vec::new() };
    match debug_info.and_then(symbol_table).or_else(|| symbol_table(image.bytes())) {
        Some((entries, strings)) => {
            for entry in entries.chunks_exact(SYM_SIZE as usize) {
                let Some(symbol) = Sym::parse(entry) else { break };
                let from_name = strings.get(symbol.st_name as usize..).unwrap_or_default();
                candidates.add(&symbol, from_name)?;
            }
        }
        None => {
            if let Ok(table) = image.symbols() {
                for (_, symbol) in table.iter() {
                    candidates.add(&symbol, table.strings_from(symbol.st_name))?;
                }
            }
        }
    }
    disjoint(candidates.sorted())
}

/// A symbol that can name code.
struct Candidate<'a> {
    start: Vaddr,
    /// Behind its last byte; `start` if its size is not stated.
    end: Vaddr,
    /// Where the segment ends.
    limit: Vaddr,
    name: &'a [u8],
    /// The greater, the better a name for this address; of equals, the first in the table.
    merit: (bool, bool, u8, Reverse<usize>, Reverse<usize>),
}

struct Candidates<'a, 'd> {
    image: &'a Image<'d>,
    /// The bytes that are left for names: many entries can refer to one long name.
    room: usize,
    list: Vec<Candidate<'a>>,
}

impl<'a> Candidates<'a, '_> {
    /// Adds a symbol, if it names code; its name is at the start of `from_name`.
    fn add(&mut self, symbol: &Sym, from_name: &'a [u8]) -> Result<(), Error> {
        let is_function = matches!(symbol.kind(), STT_FUNC | STT_GNU_IFUNC);
        if !(is_function || symbol.kind() == STT_NOTYPE)
            || symbol.is_undefined()
            || symbol.is_absolute()
        {
            return Ok(());
        }
        let start = symbol.address();
        let segments = &self.image.decoded.segments;
        let after = segments.partition_point(|segment| segment.addresses.start <= start);
        let segment = after.checked_sub(1).and_then(|index| segments.get(index));
        let is_code = |it: &&Segment| it.access.execute && it.addresses.contains(&start);
        let Some(segment) = segment.filter(is_code) else { return Ok(()) };
        let from_name = from_name.get(..from_name.len().min(MAX_NAME)).unwrap_or_default();
        let name = string_at(from_name, 0).unwrap_or(from_name);
        let room = self.room.checked_sub(name.len());
        if let (Some(room), false) = (room, name.is_empty()) {
            self.room = room;
            let limit = segment.addresses.end;
            let end = start.checked_add(symbol.st_size).map_or(limit, |end| end.min(limit));
            let binding = match symbol.binding() {
                STB_GLOBAL => 2,
                STB_WEAK => 0,
                _ => 1,
            };
            let underscores = name.iter().take_while(|&&byte| byte == b'_').count();
            let order = Reverse(self.list.len());
            let merit = (symbol.st_size != 0, is_function, binding, Reverse(underscores), order);
            self.list.try_push(Candidate { start, end, limit, name, merit })?;
        }
        Ok(())
    }

    /// The best for each address, ascending.
    fn sorted(mut self) -> Vec<Candidate<'a>> {
        // A stable sort would allocate.
        self.list.sort_unstable_by_key(|candidate| (candidate.start, Reverse(candidate.merit)));
        self.list.dedup_by_key(|candidate| candidate.start);
        self.list
    }
}

/// The parts of each candidate that no later one covers. A candidate without a size extends to the next one,
/// and only outside of others.
fn disjoint<'a>(candidates: Vec<Candidate<'a>>) -> Result<Vec<Function<'a>>, Error> {
    let mut functions = try_vec(candidates.len())?;
    let mut emit = |start: Vaddr, end: Vaddr, name: &'a [u8]| {
        let function = Function { addresses: start..end, name };
        if start < end { functions.try_push(function) } else { Ok(()) }
    };
    let mut candidates = VecDeque::from(candidates);
    // Those that have begun and not ended, the innermost last. Everything before `at` is done.
    let mut open: Vec<(Vaddr, &[u8])> = Vec::new();
    let mut at = Vaddr(0);
    while let Some(next) = candidates.pop_front() {
        while let Some(&(end, name)) = open.last()
            && end <= next.start
        {
            emit(at, end, name)?;
            at = at.max(end);
            open.pop();
        }
        let is_label = next.end == next.start;
        let following = candidates.front().map_or(next.limit, |it| it.start.min(next.limit));
        match open.last() {
            Some(_) if is_label => continue,
            Some(&(_, name)) => emit(at, next.start, name)?,
            None => {}
        }
        at = next.start;
        open.try_push((if is_label { following } else { next.end }, next.name))?;
    }
    while let Some((end, name)) = open.pop() {
        emit(at, end, name)?;
        at = at.max(end);
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(start: u64, size: u64, name: &'static str) -> Candidate<'static> {
        let [start, end, limit] = [start, start + size, 100].map(Vaddr);
        let merit = (size != 0, true, 2, Reverse(0), Reverse(0));
        Candidate { start, end, limit, name: name.as_bytes(), merit }
    }

    fn rows(candidates: Vec<Candidate<'static>>) -> Vec<(u64, u64, String)> {
        let rows = disjoint(candidates).unwrap().into_iter().map(|function| {
            let Range { start, end } = function.addresses;
            (start.0, end.0, String::from_utf8_lossy(function.name).into_owned())
        });
        rows.collect()
    }

    #[test]
    fn functions_that_lie_in_another_cut_it_into_parts() {
        let candidates = vec![
            candidate(10, 30, "outer"),
            candidate(20, 10, "inner"),
            candidate(25, 2, "innermost"),
            candidate(50, 10, "next"),
            candidate(55, 10, "overlaps"),
        ];
        let expected = [
            (10, 20, "outer"),
            (20, 25, "inner"),
            (25, 27, "innermost"),
            (27, 30, "inner"),
            (30, 40, "outer"),
            (50, 55, "next"),
            (55, 65, "overlaps"),
        ];
        assert_eq!(rows(candidates), expected.map(|(start, end, name)| (start, end, name.into())));
    }

    #[test]
    fn a_label_goes_on_to_the_next_symbol_and_cuts_nothing() {
        let candidates = vec![
            candidate(10, 0, "label"),
            candidate(20, 20, "function"),
            candidate(30, 0, "inside"),
            candidate(40, 0, "last"),
        ];
        let expected = [(10, 20, "label"), (20, 40, "function"), (40, 100, "last")];
        assert_eq!(rows(candidates), expected.map(|(start, end, name)| (start, end, name.into())));
    }
}
