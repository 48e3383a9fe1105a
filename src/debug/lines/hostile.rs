//! Bytes that were made to be slow: every loop over them must be charged to the budget.

use super::*;

const FUNCTION: (u64, u64) = (0x1000, 0x10);

/// A unit of DWARF 4.
fn unit(entries: &[u8]) -> Vec<u8> {
    let unit = [&[4, 0, 0, 0, 0, 0, 8], entries].concat();
    [&(unit.len() as u32).to_le_bytes()[..], &unit].concat()
}

/// `DW_AT_low_pc` and `DW_AT_high_pc` of `FUNCTION`, as `DW_FORM_addr` and `DW_FORM_data8`.
fn code() -> Vec<u8> {
    [FUNCTION.0.to_le_bytes(), FUNCTION.1.to_le_bytes()].concat()
}

/// Abbreviations: the root of a unit (1), a function (2), an inlined call with an origin (3), a function
/// with an origin and a location list (4), a unit without code (5).
fn abbreviations() -> Vec<u8> {
    [
        &[1, 0x11, 1, 0x11, 1, 0x12, 7, 0x10, 0x17, 0, 0][..],
        &[2, 0x2e, 1, 3, 8, 0x11, 1, 0x12, 7, 0, 0],
        &[3, 0x1d, 1, 0x31, 0x13, 0x11, 1, 0x12, 7, 0, 0],
        &[4, 0x2e, 0, 0x31, 0x13, 2, 0x22, 0, 0],
        &[5, 0x11, 0, 0x10, 0x17, 0, 0, 0],
    ]
    .concat()
}

/// The root entry of a unit, and a function, whose children follow.
fn function() -> Vec<u8> {
    [&[1][..], &code(), &[0; 4], b"\x02found\0", &code()].concat()
}

/// A line program of DWARF 4 with one file.
fn line_program(instructions: &[u8]) -> Vec<u8> {
    let header =
        [&[1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1][..], b"\0file.c\0\0\0\0\0"];
    let header = header.concat();
    let len = (header.len() as u32).to_le_bytes();
    let program = [&[4, 0][..], &len, &header, instructions].concat();
    [&(program.len() as u32).to_le_bytes()[..], &program].concat()
}

/// Line 7, for all of `FUNCTION`.
fn line_seven() -> Vec<u8> {
    let address = FUNCTION.0.to_le_bytes();
    line_program(&[&[0, 9, 2][..], &address, &[3, 6, 1, 2, FUNCTION.1 as u8, 0, 1, 1]].concat())
}

/// The frames of `FUNCTION`, which a second query must find, too.
fn query(info: Vec<u8>, line: Vec<u8>) -> (Vec<SourceFrame>, Dwarf) {
    let stored = (info.len() + line.len()) as u64;
    let sections =
        vec![(".debug_info", info), (".debug_abbrev", abbreviations()), (".debug_line", line)];
    let mut dwarf = Dwarf::new(sections, stored);
    let frames = dwarf.frames(Vaddr(FUNCTION.0));
    assert_eq!(dwarf.frames(Vaddr(FUNCTION.0)), frames);
    (frames, dwarf)
}

fn found() -> Vec<SourceFrame> {
    let (function, file) = (Some("found".into()), Some("file.c".into()));
    vec![SourceFrame { function, file, line: Some(7), column: None }]
}

#[test]
fn harmless_bytes_are_read_to_their_end() {
    let (frames, dwarf) = query(unit(&[&function()[..], &[0, 0]].concat()), line_seven());
    assert_eq!(frames, found());
    assert!(!dwarf.is_cut_short());
}

/// The origin of hundreds of inlined calls is its own origin. Each step of a chain skips a number of 900 KB.
#[test]
fn a_long_number_in_an_origin_is_charged_for_every_name() {
    let calls = 255;
    let start = 11 + function().len() + calls * 21 + calls + 2;
    let origin = (start as u32).to_le_bytes();
    let inlined = [&[3][..], &origin, &code()].concat().repeat(calls);
    let behind = vec![0; calls + 2];
    let number = [&[0x80].repeat(900_000)[..], &[0]].concat();
    let entries = [&function()[..], &inlined, &behind, &[4], &origin, &number].concat();
    let (frames, dwarf) = query(unit(&entries), line_seven());
    assert_eq!((frames.len(), frames[0].line), (calls + 1, Some(7)));
    assert!(dwarf.is_cut_short());
}

/// Thousands of units have a line program each, and all of these end in the same number or string.
#[test]
fn a_long_end_that_programs_share_is_charged_for_every_program() {
    let number = [&[0x0c][..], &[0x80].repeat(300_000), &[0]].concat();
    for (version, end) in [(4, number), (5, vec![b'x'; 600_000])] {
        let mut line = line_seven();
        let mut info = unit(&[&function()[..], &[0, 0]].concat());
        let fields = [1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
        // No directories and no files; or one directory, with a block before its name.
        let names: &[u8] = if version == 4 { &[0, 0] } else { &[2, 5, 4, 1, 8, 1, 0, 0, 0, 0] };
        let fixed = if version == 4 { 10 } else { 12 };
        let (count, one) = (4_000, fixed + fields.len() + names.len());
        let shared = line.len() + count * one;
        for _ in 0..count {
            let at = line.len();
            info.extend(unit(&[&[5][..], &(at as u32).to_le_bytes()].concat()));
            let to = |target: usize, from: usize| ((target - from) as u32).to_le_bytes();
            line.extend(to(shared + end.len(), at + 4));
            line.extend([version, 0]);
            if version == 5 {
                line.extend([8, 0]);
                line.extend(to(shared + end.len(), at + fixed));
            } else {
                line.extend(to(shared, at + fixed));
            }
            line.extend(fields);
            line.extend(names);
            if version == 5 {
                let len = line.len();
                line[len - 4..].copy_from_slice(&to(shared, at + one));
            }
        }
        line.extend(end);
        let (frames, dwarf) = query(info, line);
        assert_eq!(frames, found());
        assert!(dwarf.is_cut_short(), "{version}");
    }
}

/// All rows have the same address, so a query would run through all of them.
#[test]
fn a_query_runs_no_further_than_the_program_was_read() {
    let count = 20 << 20;
    let start = [&[0, 9, 2][..], &FUNCTION.0.to_le_bytes()].concat();
    // Each instruction adds a row, of the next line.
    let line = line_program(&[&start[..], &vec![0x13; count]].concat());
    let info = unit(&[&function()[..], &[0, 0]].concat());
    let sections =
        vec![(".debug_info", info), (".debug_abbrev", abbreviations()), (".debug_line", line)];
    let mut dwarf = Dwarf::new(sections, 0);
    let frames = dwarf.frames(Vaddr(FUNCTION.0));
    assert!(dwarf.is_cut_short());
    assert_eq!((frames.len(), &frames[0].function), (1, &found()[0].function));
    let line = frames[0].line.unwrap();
    // A quarter of the 12 million steps, or more where other parts left some of theirs.
    assert!((1 << 20..12 << 20).contains(&line), "{line}");
}

/// A unit that states the same code again and again is found once.
#[test]
fn ranges_of_one_unit_that_overlap_are_one() {
    let abbrev = vec![1, 0x11, 0, 0x55, 0x17, 0, 0, 0];
    let pair = |begin: u64, end: u64| [begin.to_le_bytes(), end.to_le_bytes()].concat();
    let all: Vec<u8> = (0..10_000).flat_map(|end| pair(1, 0x2000 + end)).collect();
    let ranges = [all, pair(0x10_000, 0x20_000), pair(0, 0)].concat();
    let sections = vec![
        (".debug_info", unit(&[1, 0, 0, 0, 0])),
        (".debug_abbrev", abbrev),
        (".debug_ranges", ranges),
    ];
    let mut dwarf = Dwarf::new(sections, 0);
    let units: Vec<_> = dwarf.units().at(0x1000, 0x100_000).collect();
    assert_eq!(units, [(0, 1, 0x2000 + 9_999), (0, 0x10_000, 0x20_000)]);
    assert_eq!(dwarf.units().at(0x8000, 0x8001).count(), 0);
}
