//! Line programs (DWARF 5, 6.2): the source line of an address.
//!
//! The line table is not kept: in many libraries its rows would take more memory than all else. Reading a
//! program runs it once and keeps the state of the state machine every [`INTERVAL`] instructions
//! ([`Checkpoint`]). A query runs the program again from the nearest checkpoint.

#![forbid(unsafe_code)]

use std::num::{NonZeroU8, NonZeroU64};
use std::ops::Range;

use gimli::constants::*;
use gimli::{Encoding, EndianSlice, LittleEndian, Reader};

use super::budget::{Budget, MAX_OVERLAPS, Result, Stop};
use super::sections::{
    Input, Section, Sections, StringRef, TOMBSTONE, Value, section_offset, skip_leb, skip_string,
};
use crate::base::fallible::TryGrow;

/// A row of the line table, without the flags that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: u64,
    pub(super) file: u32,
    /// 0 if the code belongs to no line.
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The registers of the state machine.
#[derive(Clone, Copy, Debug)]
struct State {
    row: Row,
    op_index: u64,
    /// The linker discarded the code of the next rows.
    is_discarded: bool,
}

impl State {
    const START: State = State {
        row: Row { address: 0, file: 1, line: 1, column: 0 },
        op_index: 0,
        is_discarded: false,
    };
}

/// A state from which a program can be run again.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    /// The offset of the next instruction in the section.
    at: usize,
    state: State,
    /// The last row before it, in the same sequence.
    last: Option<Row>,
}

/// The number of instructions between two checkpoints.
const INTERVAL: u32 = 256;

/// A sequence: rows of contiguous code.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    begin: u64,
    end: u64,
    /// The range of its checkpoints: the first, and the one after the last.
    checkpoints: (u32, u32),
}

/// A source file in the program's header.
#[derive(Clone, Copy, Debug)]
struct File {
    name: Option<StringRef>,
    directory: u64,
}

/// The parameters of the header that the instructions depend on.
#[derive(Clone, Copy, Debug)]
struct Machine {
    encoding: Encoding,
    min_instruction: u64,
    max_operations: NonZeroU64,
    line_base: i64,
    line_range: NonZeroU8,
    opcode_base: u8,
    /// The offset of `standard_opcode_lengths`.
    standard_opcode_lengths: usize,
    /// The offset of the end of the instructions that may be run.
    end: usize,
}

/// A line program: its header, sequences and checkpoints.
#[derive(Debug)]
pub(super) struct Program {
    machine: Machine,
    directories: Vec<Option<StringRef>>,
    files: Vec<File>,
    sequences: Vec<Sequence>,
    checkpoints: Vec<Checkpoint>,
}

/// The effect of an instruction outside the registers.
enum Effect {
    Nothing,
    Row,
    EndOfSequence,
    File(File),
}

impl Program {
    /// Reads the program at `offset`, up to the first malformed instruction or the end of the budget.
    pub(super) fn read(sections: &Sections, offset: usize, budget: &mut Budget) -> Result<Program> {
        budget.work(32)?;
        budget.keep::<Program>(1)?;
        budget.require_memory()?;
        let input = &mut sections.from(Section::Line, offset)?;
        let (len, format) = input.read_initial_length()?;
        let mut input = input.split(len)?;
        let end = section_offset(sections, Section::Line, &input).saturating_add(input.len());
        let version = input.read_u16()?;
        let mut address_size = 8;
        if version >= 5 {
            address_size = input.read_u8()?;
            input.read_u8()?; // segment_selector_size
        }
        if !(2..=5).contains(&version) || address_size != 8 {
            return Err(Stop::Malformed);
        }
        let header_len = input.read_offset(format)?;
        let mut header = input.split(header_len)?;
        let min_instruction = header.read_u8()?.into();
        let max_operations = if version >= 4 { header.read_u8()? } else { 1 };
        let max_operations = NonZeroU64::new(max_operations.into()).ok_or(Stop::Malformed)?;
        header.read_u8()?; // default_is_stmt
        let line_base = header.read_i8()?.into();
        let line_range = NonZeroU8::new(header.read_u8()?).ok_or(Stop::Malformed)?;
        let opcode_base = header.read_u8()?;
        let standard = opcode_base.checked_sub(1).ok_or(Stop::Malformed)?;
        let standard_opcode_lengths = section_offset(sections, Section::Line, &header);
        header.skip(standard.into())?;
        let encoding = Encoding { address_size, format, version };
        let machine = Machine {
            encoding,
            min_instruction,
            max_operations,
            line_base,
            line_range,
            opcode_base,
            standard_opcode_lengths,
            end,
        };
        let (directories, files) = (Vec::new(), Vec::new());
        let (sequences, checkpoints) = (Vec::new(), Vec::new());
        let mut program = Program { machine, directories, files, sequences, checkpoints };
        let names = if version >= 5 {
            program.names(sections, &mut header, budget)
        } else {
            program.old_names(sections, &mut header, budget)
        };
        // Also if names are malformed: a line without its file is better than nothing.
        if names != Err(Stop::Spent) {
            let _ = program.run(sections, input, budget);
        }
        // In place: a stable sort would take memory.
        program.sequences.sort_unstable_by_key(|it| (it.begin, it.checkpoints));
        Ok(program)
    }

    /// Reads the names of directories and files of DWARF 2 to 4.
    fn old_names<'a>(
        &mut self,
        sections: &'a Sections,
        header: &mut Input<'a>,
        budget: &mut Budget,
    ) -> Result<()> {
        let encoding = self.machine.encoding;
        let string = |header: &mut Input<'a>, budget: &mut Budget| -> Result<Option<StringRef>> {
            let mut rest = *header;
            if skip_string(&mut rest, budget)? {
                *header = rest;
                return Ok(None);
            }
            let value = Value::read(
                sections,
                Section::Line,
                header,
                DW_FORM_string,
                None,
                encoding,
                budget,
            )?;
            Ok(match value {
                Value::String(string) => Some(string),
                _ => None,
            })
        };
        // Directory 0 is the unit's `DW_AT_comp_dir`.
        self.directories.push(None);
        while let Some(directory) = string(header, budget)? {
            budget.push(&mut self.directories, Some(directory))?;
        }
        // Files are numbered from 1.
        self.files.push(File { name: None, directory: 0 });
        while let Some(name) = string(header, budget)? {
            let directory = header.read_uleb128()?;
            skip_leb(header, budget)?;
            skip_leb(header, budget)?;
            budget.push(&mut self.files, File { name: Some(name), directory })?;
        }
        Ok(())
    }

    /// Reads the names of directories and files of DWARF 5.
    fn names<'a>(
        &mut self,
        sections: &'a Sections,
        header: &mut Input<'a>,
        budget: &mut Budget,
    ) -> Result<()> {
        let encoding = self.machine.encoding;
        for of_files in [false, true] {
            let formats_count = header.read_u8()?;
            budget.work(formats_count.into())?;
            let mut formats = Vec::with_capacity(formats_count.into());
            for _ in 0..formats_count {
                let content = header.read_uleb128()?;
                formats.push((content, DwForm(header.read_uleb128_u16()?)));
            }
            let count = header.read_uleb128()?;
            // An entry takes at least one byte.
            if count > header.len() as u64 {
                return Err(Stop::Malformed);
            }
            for _ in 0..count {
                budget.work(1)?;
                let mut file = File { name: None, directory: 0 };
                for &(content, form) in &formats {
                    let line = Section::Line;
                    let value = Value::read(sections, line, header, form, None, encoding, budget)?;
                    match (content, value) {
                        // DW_LNCT_path. An index (`DW_FORM_strx`) would need the table of a unit.
                        (1, Value::String(text)) => file.name = Some(text),
                        // DW_LNCT_directory_index.
                        (2, Value::Constant(directory)) => file.directory = directory,
                        _ => {}
                    }
                }
                if of_files {
                    budget.push(&mut self.files, file)?;
                } else {
                    budget.push(&mut self.directories, file.name)?;
                }
            }
        }
        Ok(())
    }

    /// Runs the whole program to find the sequences and their checkpoints.
    fn run<'a>(
        &mut self,
        sections: &'a Sections,
        mut input: Input<'a>,
        budget: &mut Budget,
    ) -> Result<()> {
        let machine = self.machine;
        let mut state = State::START;
        let (mut begin, mut last, mut since) = (None, None, 0);
        let mut first = self.mark(sections, &input, state, last, budget)?;
        let result = loop {
            if input.is_empty() {
                break Ok(());
            }
            if since == INTERVAL {
                since = 0;
                if let Err(stop) = self.mark(sections, &input, state, last, budget) {
                    break Err(stop);
                }
            }
            since = since.wrapping_add(1);
            let done = match machine.step(sections, &mut input, &mut state, budget) {
                Ok(done) => done,
                Err(stop) => break Err(stop),
            };
            match done {
                Effect::Nothing => {}
                Effect::Row => {
                    begin = begin.or(Some(state.row.address));
                    last = Some(state.row);
                }
                Effect::EndOfSequence => {
                    if let Some(begin) = begin {
                        self.close(first, begin, state.row.address, budget)?;
                    }
                    // Drops the checkpoints of a sequence without code.
                    let used = self.sequences.last().map_or(0, |it| it.checkpoints.1);
                    self.checkpoints.truncate(used as usize);
                    (state, begin, last, since) = (State::START, None, None, 0);
                    first = self.mark(sections, &input, state, last, budget)?;
                }
                Effect::File(file) => {
                    if let Err(stop) = budget.push(&mut self.files, file) {
                        break Err(stop);
                    }
                }
            }
        };
        if result == Err(Stop::Spent) {
            // Queries must not run instructions that the budget did not reach.
            self.machine.end = section_offset(sections, Section::Line, &input);
        }
        // A sequence without an end counts up to its last row.
        if let (Some(begin), Some(last)) = (begin, last) {
            self.close(first, begin, last.address.saturating_add(1), budget)?;
        }
        result
    }

    /// Adds a checkpoint, and returns its index.
    fn mark(
        &mut self,
        sections: &Sections,
        input: &Input<'_>,
        state: State,
        last: Option<Row>,
        budget: &mut Budget,
    ) -> Result<u32> {
        let number = u32::try_from(self.checkpoints.len()).map_err(|_| Stop::Malformed)?;
        let at = section_offset(sections, Section::Line, input);
        budget.push(&mut self.checkpoints, Checkpoint { at, state, last })?;
        Ok(number)
    }

    /// Adds the sequence whose checkpoints begin at `first`.
    fn close(&mut self, first: u32, begin: u64, end: u64, budget: &mut Budget) -> Result<()> {
        if begin < end {
            let next = u32::try_from(self.checkpoints.len()).map_err(|_| Stop::Malformed)?;
            // If the budget is spent, this is the last sequence, which is kept all the same.
            let _ = budget.keep::<Sequence>(1);
            let sequence = Sequence { begin, end, checkpoints: (first, next) };
            let pushed = self.sequences.try_push(sequence);
            pushed.map_err(|error| budget.without_memory(error))?;
        }
        Ok(())
    }

    /// The address ranges of all sequences.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.sequences.iter().map(|sequence| (sequence.begin, sequence.end))
    }

    /// The row of the code at `address`.
    pub(super) fn row(&self, sections: &Sections, address: u64) -> Option<Row> {
        let sequence = self.sequence(address)?;
        let mut found = None;
        // `read` has charged for these instructions.
        let mut free = Budget::new(u64::MAX);
        let range = address..address.saturating_add(1);
        let _ = self.walk(sections, sequence, range, &mut free, &mut |_, row| {
            found = Some(row);
            Ok(())
        });
        found
    }

    /// The sequence that contains `address`; of several, the one that begins last.
    fn sequence(&self, address: u64) -> Option<&Sequence> {
        let after = self.sequences.partition_point(|sequence| sequence.begin <= address);
        let before = self.sequences.get(..after)?.iter().rev();
        before.take(MAX_OVERLAPS).find(|sequence| address < sequence.end)
    }

    /// Calls `each` with the rows of these addresses, one for an address, ascending within a sequence. The
    /// first is the row that contains the first address.
    pub(super) fn rows(
        &self,
        sections: &Sections,
        addresses: Range<u64>,
        budget: &mut Budget,
        each: &mut dyn FnMut(&mut Budget, Row) -> Result<()>,
    ) -> Result<()> {
        let from = match self.sequence(addresses.start) {
            Some(sequence) => sequence.begin,
            None => addresses.start,
        };
        let first = self.sequences.partition_point(|sequence| sequence.begin < from);
        for sequence in self.sequences.get(first..).unwrap_or_default() {
            budget.work(1)?;
            if sequence.begin >= addresses.end {
                break;
            }
            if sequence.end <= addresses.start {
                continue;
            }
            let mut last: Option<Row> = None;
            self.walk(sections, sequence, addresses.clone(), budget, &mut |budget, row| {
                // Of several rows with the same address, and of those up to the first address, the last
                // one counts.
                if let Some(last) = last.replace(row)
                    && last.address != row.address
                    && row.address > addresses.start
                {
                    each(budget, last)?;
                }
                Ok(())
            })?;
            if let Some(last) = last {
                each(budget, last)?;
            }
        }
        Ok(())
    }

    /// Runs a sequence from the last checkpoint before `addresses` to their end, and calls `each` with every
    /// row.
    fn walk(
        &self,
        sections: &Sections,
        sequence: &Sequence,
        addresses: Range<u64>,
        budget: &mut Budget,
        each: &mut dyn FnMut(&mut Budget, Row) -> Result<()>,
    ) -> Result<()> {
        let (first, next) = sequence.checkpoints;
        let checkpoints = self.checkpoints.get(first as usize..next as usize);
        let checkpoints = checkpoints.unwrap_or_default();
        let after = checkpoints.partition_point(|it| it.state.row.address <= addresses.start);
        let from = after.checked_sub(1).and_then(|index| checkpoints.get(index));
        let Some(from) = from.or(checkpoints.first()) else { return Ok(()) };
        if let Some(row) = from.last {
            each(budget, row)?;
        }
        let end = self.machine.end;
        let bytes = sections.bytes(Section::Line).get(from.at..end).unwrap_or_default();
        let mut input = EndianSlice::new(bytes, LittleEndian);
        let mut state = from.state;
        // Addresses never descend in a sequence.
        while !input.is_empty() && state.row.address < addresses.end {
            match self.machine.step(sections, &mut input, &mut state, budget)? {
                Effect::Row if state.row.address < addresses.end => each(budget, state.row)?,
                Effect::EndOfSequence => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// The directory and the name of a file. Up to DWARF 4, file 0 is the unit's own.
    pub(super) fn path(
        &self,
        file: u64,
        unit_name: Option<StringRef>,
    ) -> Option<[Option<StringRef>; 2]> {
        let index = usize::try_from(file).ok()?;
        if index == 0 && self.machine.encoding.version < 5 {
            return unit_name.map(|name| [None, Some(name)]);
        }
        let file = self.files.get(index)?;
        let directory = usize::try_from(file.directory).ok();
        // The caller puts the unit's directory, number 0, before every path.
        let directory = directory.filter(|&directory| directory != 0);
        let directory =
            directory.and_then(|directory| self.directories.get(directory)).copied().flatten();
        Some([directory, Some(file.name?)])
    }
}

impl Machine {
    /// Executes an instruction.
    fn step<'a>(
        &self,
        sections: &'a Sections,
        input: &mut Input<'a>,
        state: &mut State,
        budget: &mut Budget,
    ) -> Result<Effect> {
        budget.work(1)?;
        let opcode = input.read_u8()?;
        if let Some(special) = opcode.checked_sub(self.opcode_base) {
            let (line, operations) = (special % self.line_range, special / self.line_range);
            state.advance_line(self.line_base.saturating_add(line.into()));
            self.advance(state, operations.into())?;
            return Ok(self.row(state));
        }
        match DwLns(opcode) {
            // An extended opcode: its length follows.
            DwLns(0) => return self.extended(sections, input, state, budget),
            DW_LNS_copy => return Ok(self.row(state)),
            DW_LNS_advance_pc => {
                let operations = input.read_uleb128()?;
                self.advance(state, operations)?;
            }
            DW_LNS_advance_line => state.advance_line(input.read_sleb128()?),
            DW_LNS_set_file => {
                state.row.file = u32::try_from(input.read_uleb128()?).unwrap_or(u32::MAX);
            }
            // As many bits as debuggers keep.
            DW_LNS_set_column => state.row.column = input.read_uleb128()? as u32,
            DW_LNS_const_add_pc => {
                let special = 255_u8.wrapping_sub(self.opcode_base);
                self.advance(state, (special / self.line_range).into())?;
            }
            DW_LNS_fixed_advance_pc => {
                let bytes = input.read_u16()?;
                if !state.is_discarded {
                    state.add(bytes.into())?;
                    state.op_index = 0;
                }
            }
            DW_LNS_negate_stmt
            | DW_LNS_set_basic_block
            | DW_LNS_set_prologue_end
            | DW_LNS_set_epilogue_begin => {}
            DW_LNS_set_isa => skip_leb(input, budget)?,
            _ => {
                let index = usize::from(opcode)
                    .saturating_sub(1)
                    .saturating_add(self.standard_opcode_lengths);
                let count = sections.bytes(Section::Line).get(index).ok_or(Stop::Malformed)?;
                for _ in 0..*count {
                    budget.work(1)?;
                    skip_leb(input, budget)?;
                }
            }
        }
        Ok(Effect::Nothing)
    }

    fn extended<'a>(
        &self,
        sections: &'a Sections,
        input: &mut Input<'a>,
        state: &mut State,
        budget: &mut Budget,
    ) -> Result<Effect> {
        let len = input.read_uleb128()?;
        let len = usize::try_from(len).map_err(|_| Stop::Malformed)?;
        let mut rest = input.split(len)?;
        match DwLne(rest.read_u8()?) {
            DW_LNE_end_sequence => return Ok(Effect::EndOfSequence),
            DW_LNE_set_address => {
                let address = rest.read_u64()?;
                // Within a sequence, addresses ascend. A lower one is the 0 and an addend that some linkers
                // write for discarded code. Others write a tombstone.
                state.is_discarded = address < state.row.address || address >= TOMBSTONE;
                if !state.is_discarded {
                    state.row.address = address;
                    state.op_index = 0;
                }
            }
            DW_LNE_define_file => {
                let (line, form) = (Section::Line, DW_FORM_string);
                let value =
                    Value::read(sections, line, &mut rest, form, None, self.encoding, budget)?;
                let name = match value {
                    Value::String(name) => Some(name),
                    _ => None,
                };
                let directory = rest.read_uleb128()?;
                return Ok(Effect::File(File { name, directory }));
            }
            _ => {}
        }
        Ok(Effect::Nothing)
    }

    fn row(&self, state: &State) -> Effect {
        if state.is_discarded { Effect::Nothing } else { Effect::Row }
    }

    fn advance(&self, state: &mut State, operations: u64) -> Result<()> {
        if state.is_discarded {
            return Ok(());
        }
        let instructions = if self.max_operations == NonZeroU64::MIN {
            operations
        } else {
            let index = state.op_index.wrapping_add(operations);
            state.op_index = index % self.max_operations;
            index / self.max_operations
        };
        state.add(self.min_instruction.wrapping_mul(instructions))
    }
}

impl State {
    fn add(&mut self, bytes: u64) -> Result<()> {
        self.row.address = self.row.address.checked_add(bytes).ok_or(Stop::Malformed)?;
        Ok(())
    }

    fn advance_line(&mut self, by: i64) {
        // As many bits as debuggers keep.
        self.row.line = if by < 0 {
            let by = u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX);
            self.row.line.saturating_sub(by)
        } else {
            self.row.line.wrapping_add(by as u32)
        };
    }
}
