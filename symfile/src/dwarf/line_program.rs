//! Converting line programs row by row, for packages of split DWARF (`symfile/src/builder/dwp.rs`).
//!
//! gimli converts the header. The rows it would convert too, but trusts them: it panics where addresses of
//! a sequence do not ascend, or a file without a name is defined, and loses the rest of a sequence that
//! states an address again, as assemblers write for code that linkers change. So the rows are read and
//! written here, as what they say. Special opcodes are encoded as LLVM does: gimli panics at some encodings
//! that it would not choose, though assemblers do.
//!
//! Source: DWARF 5, 6.2.

#![forbid(unsafe_code)]

use gimli::write::{Address, ConvertError, ConvertLineProgram, FileId, LineProgram};
use gimli::{ColumnType, IncompleteLineProgram, LineEncoding, LineRow, Reader};

/// The encoding of a converted program: LLVM's.
pub fn encoding() -> LineEncoding {
    LineEncoding::default()
}

/// The program and its files, in the order of their old numbers. `header` has been read from it, and no row.
pub fn convert<R: Reader<Offset = usize>>(
    from: IncompleteLineProgram<R>,
    header: ConvertLineProgram<'_, R>,
) -> Result<(LineProgram, Vec<FileId>), ConvertError> {
    /// The largest distance from a row to the next one. No image has more code.
    const MAX_ADVANCE: u64 = 1 << 32;
    // For machines that have several operations in an instruction: addresses are pairs there.
    if from.header().line_encoding().maximum_operations_per_instruction != 1 {
        return Err(ConvertError::UnsupportedLineInstruction);
    }
    let numbers_start_at = u64::from(from.header().version() <= 4);
    let (mut program, files) = header.program();
    // The address of the sequence, and the distance of the last row from it.
    let mut sequence: Option<(u64, u64)> = None;
    let mut rows = from.rows();
    while let Some((_, row)) = rows.next_row()? {
        let (start, last) = sequence.unwrap_or((row.address(), 0));
        let distance = row.address().checked_sub(start);
        let is_near = |&it: &u64| it.checked_sub(last).is_some_and(|it| it < MAX_ADVANCE);
        let distance = distance.filter(is_near).ok_or(ConvertError::InvalidAddress)?;
        if sequence.is_none() {
            program.set_address(Address::Constant(start));
        }
        if row.end_sequence() {
            program.end_sequence(distance);
            sequence = None;
            continue;
        }
        sequence = Some((start, distance));
        let file = usize::try_from(row.file_index()).ok().and_then(|file| files.get(file));
        let file = file.filter(|_| row.file_index() >= numbers_start_at);
        *program.row() = converted(row, distance, *file.ok_or(ConvertError::InvalidFileIndex)?)?;
        program.generate_row();
    }
    if sequence.is_some() {
        return Err(ConvertError::MissingLineEndSequence);
    }
    Ok((program, files))
}

fn converted(
    row: &LineRow,
    address_offset: u64,
    file: FileId,
) -> Result<gimli::write::LineRow, ConvertError> {
    let line = row.line().map_or(0, |line| line.get());
    if u32::try_from(line).is_err() {
        return Err(ConvertError::UnsupportedLineInstruction);
    }
    Ok(gimli::write::LineRow {
        address_offset,
        op_index: 0,
        file,
        line,
        column: match row.column() {
            ColumnType::LeftEdge => 0,
            ColumnType::Column(column) => column.get(),
        },
        discriminator: row.discriminator(),
        is_statement: row.is_stmt(),
        basic_block: row.basic_block(),
        prologue_end: row.prologue_end(),
        epilogue_begin: row.epilogue_begin(),
        isa: row.isa(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::write::{DebugLine, EndianVec, LineStringTable, StringTable};
    use gimli::{DebugLineOffset, Dwarf, EndianSlice, LittleEndian};

    type Input<'a> = EndianSlice<'a, LittleEndian>;

    /// A program of DWARF 4 with these instructions.
    fn program(line_base: i8, line_range: u8, instructions: &[u8]) -> Vec<u8> {
        let mut header = vec![1, 1, 1, line_base as u8, line_range, 13];
        header.extend([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]);
        // One folder, one file in it.
        header.extend(b"src\0\0a.c\0\x01\0\0\0");
        let len = 2 + 4 + header.len() + instructions.len();
        let mut section = (len as u32).to_le_bytes().to_vec();
        section.extend([4, 0]);
        section.extend((header.len() as u32).to_le_bytes());
        section.extend(header);
        section.extend(instructions);
        section
    }

    fn set_address(address: u64) -> Vec<u8> {
        [&[0, 9, 2][..], &address.to_le_bytes()].concat()
    }

    fn incomplete(section: &[u8]) -> IncompleteLineProgram<Input<'_>> {
        let lines = gimli::DebugLine::new(section, LittleEndian);
        lines.program(DebugLineOffset(0), 8, None, None).unwrap()
    }

    /// Address and line of each row, and whether a sequence ends there.
    fn rows(section: &[u8]) -> Vec<(u64, u64, bool)> {
        let mut rows = incomplete(section).rows();
        let mut all = Vec::new();
        while let Some((_, row)) = rows.next_row().unwrap() {
            let line = row.line().map_or(0, |line| line.get());
            all.push((row.address(), line, row.end_sequence()));
        }
        all
    }

    fn through(section: &[u8]) -> Result<Vec<u8>, ConvertError> {
        let from = Dwarf::<Input<'_>>::default();
        let incomplete = incomplete(section);
        let mut to = gimli::write::Dwarf::new();
        let header = to.read_line_program(&from, incomplete.clone(), None, Some(encoding()))?;
        let (program, _) = convert(incomplete, header)?;
        let mut lines = DebugLine(EndianVec::new(LittleEndian));
        let (mut line_strings, mut strings) = (LineStringTable::default(), StringTable::default());
        program.write(&mut lines, program.encoding(), &mut line_strings, &mut strings)?;
        Ok(lines.0.into_vec())
    }

    const COPY: u8 = 1;
    const END: [u8; 3] = [0, 1, 1];

    #[test]
    fn rows_stay_what_they_were_whatever_the_encoding() {
        // 242 is what assemblers for machines whose code the linker changes have.
        for (line_base, line_range) in
            [(-5, 14), (-5, 242), (-3, 12), (0, 1), (-128, 255), (-10, 9)]
        {
            let special = [200, 13, 30, 255, 100];
            let instructions = [
                // Line 1000, so that none is less than 0.
                &set_address(0x1000)[..],
                &[3, 0xe7, 7, COPY],
                &special,
                // An address again, as far away as no advance.
                &set_address(0x20_1010),
                &special,
                &[2, 0x80, 0x10],
                &END,
                &set_address(0x800),
                &[COPY, 2, 4],
                &END,
            ];
            let section = program(line_base, line_range, &instructions.concat());
            let before = rows(&section);
            assert_eq!(before.len(), 14);
            let after = through(&section).unwrap();
            assert_eq!(rows(&after), before, "{line_base} {line_range}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_an_error_and_no_panic() {
        let uleb = |value: u64| {
            let mut bytes = Vec::new();
            super::super::leb128::push_uleb(&mut bytes, value);
            bytes
        };
        let far = [&set_address(0x1000)[..], &[COPY, 2], &uleb(1 << 40), &[COPY], &END].concat();
        let line = [&set_address(0x1000)[..], &[3], &uleb(1 << 40), &[COPY], &END].concat();
        let file = [&set_address(0x1000)[..], &[4, 2, COPY], &END].concat();
        let back = [&set_address(0x1000)[..], &[COPY], &set_address(0xfff), &[COPY], &END].concat();
        let open = [&set_address(0x1000)[..], &[COPY]].concat();
        for (what, instructions) in
            [("far", far), ("back", back), ("line", line), ("file", file), ("open", open)]
        {
            assert!(through(&program(-5, 14, &instructions)).is_err(), "{what}");
        }
        // A file that is defined here, without a name, and not used.
        let define = [&set_address(0x1000)[..], &[0, 5, 3, 0, 0, 0, 0, COPY], &END].concat();
        assert_eq!(rows(&through(&program(-5, 14, &define)).unwrap()).len(), 2);
        let end = [&set_address(0x1000)[..], &[COPY], &END].concat();
        assert!(through(&program(1, 14, &end)).is_err());
        let mut several = program(-5, 14, &end);
        assert!(through(&several).is_ok());
        // `maximum_operations_per_instruction`.
        several[11] = 2;
        assert!(through(&several).is_err());
    }
}
