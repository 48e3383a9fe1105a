//! Debug information that was made to be slow: `symbolize` ends soon, with a bounded amount of memory, on
//! a small stack, and returns what it has found until then. No other thread waits meanwhile.
//!
//! Each kind is a library of the test set, without debug information, to which made-up debug sections
//! are added: at most 1 MB. The promise is 1 s and 256 MiB in a release build on an idle machine;
//! here the time is measured against reading an ordinary line program of the same size.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::allocator::{NOW, PEAK};
use crate::common::{self, is_sanitized, isolated};
use memdl::{Frame, Library, Loader, symbolize};

/// What DWARF is made of, and the numbers of gABI.
const SHF_COMPRESSED: u64 = 0x800;
const FLAG: u8 = 0x0c;
const ADDR: u8 = 0x01;
const DATA1: u8 = 0x0b;
const DATA8: u8 = 0x07;
const STRING: u8 = 0x08;
const STRP: u8 = 0x0e;
const LINE_STRP: u8 = 0x1f;
const REF4: u8 = 0x13;
const SEC_OFFSET: u8 = 0x17;
const FLAG_PRESENT: u8 = 0x19;
const INDIRECT: u8 = 0x16;
const STRX: u8 = 0x1a;

const SIBLING: u8 = 0x01;
const NAME: u8 = 0x03;
const STMT_LIST: u8 = 0x10;
const LOW_PC: u8 = 0x11;
const HIGH_PC: u8 = 0x12;
const COMP_DIR: u8 = 0x1b;
const ORIGIN: u8 = 0x31;
const EXTERNAL: u8 = 0x3f;
const SPECIFICATION: u8 = 0x47;
const RANGES: u8 = 0x55;
const CALL_LINE: u8 = 0x59;

const COMPILE_UNIT: u8 = 0x11;
const INLINED: u8 = 0x1d;
const BLOCK: u8 = 0x0b;
const SUBPROGRAM: u8 = 0x2e;

fn uleb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// An abbreviation: its code, the tag, whether entries have children, and names with forms.
fn abbreviation(code: u64, tag: u8, children: bool, attributes: &[(u8, u8)]) -> Vec<u8> {
    let mut bytes = uleb(code);
    bytes.extend([tag, u8::from(children)]);
    for &(name, form) in attributes {
        bytes.extend([name, form]);
    }
    bytes.extend([0, 0]);
    bytes
}

/// A unit of DWARF 4.
fn unit(abbreviations: usize, entries: &[u8]) -> Vec<u8> {
    let mut bytes = (entries.len() as u32 + 7).to_le_bytes().to_vec();
    bytes.extend(4_u16.to_le_bytes());
    bytes.extend((abbreviations as u32).to_le_bytes());
    bytes.push(8);
    bytes.extend(entries);
    bytes
}

/// A line program of DWARF 4 with one file.
fn line_program(instructions: &[u8]) -> Vec<u8> {
    let mut header = vec![1, 1, 1, 0xfb, 14, 13];
    header.extend([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]);
    header.extend(b"\0file.c\0\0\0\0\0");
    let mut body = 4_u16.to_le_bytes().to_vec();
    body.extend((header.len() as u32).to_le_bytes());
    body.extend(header);
    body.extend(instructions);
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// Instructions: line 7 from an address on, of so many bytes.
fn line_seven(address: u64, len: u64) -> Vec<u8> {
    let mut code = vec![0, 9, 2];
    code.extend(address.to_le_bytes());
    code.extend([3, 6, 1, 2]);
    code.extend(uleb(len));
    code.extend([0, 1, 1]);
    code
}

type Sections = Vec<(&'static str, u64, Vec<u8>)>;

/// A library of the test set with a function `foo`, and debug sections for it.
struct Host {
    file: Vec<u8>,
    /// What the library states of `foo`.
    address: u64,
    len: u64,
}

impl Host {
    fn new() -> &'static Host {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(|| {
            let file = common::bytes("gcc", "foo.c", &["-g0", "-O1"]);
            let elf = goblin::elf::Elf::parse(&file).unwrap();
            let is_foo = |name: usize| elf.dynstrtab.get_at(name) == Some("foo");
            let function = elf.dynsyms.iter().find(|symbol| is_foo(symbol.st_name)).unwrap();
            let (address, len) = (function.st_value, function.st_size);
            Host { file, address, len }
        })
    }

    fn with(&self, sections: &Sections) -> Vec<u8> {
        let elf = goblin::elf::Elf::parse(&self.file).unwrap();
        let header = elf.header;
        let table = header.e_shoff as usize..header.e_shoff as usize + header.e_shnum as usize * 64;
        let names = &elf.section_headers[header.e_shstrndx as usize];
        let mut file = self.file.clone();
        let mut strings = file[names.file_range().unwrap()].to_vec();
        let mut headers = file[table].to_vec();
        for (name, flags, contents) in sections {
            let mut section = vec![0; 64];
            section[..4].copy_from_slice(&(strings.len() as u32).to_le_bytes());
            section[4..8].copy_from_slice(&1_u32.to_le_bytes());
            section[8..16].copy_from_slice(&flags.to_le_bytes());
            section[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(contents.len() as u64).to_le_bytes());
            section[48] = 1;
            strings.extend(name.bytes().chain([0]));
            file.extend(contents);
            headers.extend(section);
        }
        let at = header.e_shstrndx as usize * 64;
        headers[at + 24..at + 32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        headers[at + 32..at + 40].copy_from_slice(&(strings.len() as u64).to_le_bytes());
        file.extend(strings);
        file.resize(file.len().next_multiple_of(8), 0);
        let (start, count) = (file.len() as u64, headers.len() as u16 / 64);
        file.extend(headers);
        file[40..48].copy_from_slice(&start.to_le_bytes());
        file[60..62].copy_from_slice(&count.to_le_bytes());
        file
    }

    fn load(&self, sections: &Sections) -> (Library, usize) {
        let file = self.with(sections);
        assert!(file.len() <= 1 << 20 || sections[0].0 == "large", "{}", file.len());
        // SAFETY: a test library.
        let library = unsafe { Loader::new().name("libhostile.so").load(&file) }.unwrap();
        // SAFETY: only the address is wanted.
        let function = unsafe { library.get::<*const u8>("foo") }.unwrap().as_raw_ptr().addr();
        assert_eq!(function, library.load_bias() + self.address as usize);
        (library, function)
    }

    /// `DW_AT_low_pc` and `DW_AT_high_pc` of `foo`, as `ADDR` and `DATA8`.
    fn code(&self) -> Vec<u8> {
        [self.address.to_le_bytes(), self.len.to_le_bytes()].concat()
    }

    fn lines(&self) -> Vec<u8> {
        line_program(&line_seven(self.address, self.len))
    }
}

/// The abbreviations of an ordinary unit: 1 is its root, 2 a function.
fn ordinary_abbreviations() -> Vec<u8> {
    let code = [(LOW_PC, ADDR), (HIGH_PC, DATA8)];
    let root = [&code[..], &[(STMT_LIST, SEC_OFFSET)]].concat();
    let function = [&[(NAME, STRING)][..], &code].concat();
    let root = abbreviation(1, COMPILE_UNIT, true, &root);
    [root, abbreviation(2, SUBPROGRAM, true, &function)].concat()
}

/// The entries of an ordinary unit, up to the children of its function `found`.
fn ordinary_entries(host: &Host) -> Vec<u8> {
    let mut entries = [&[1][..], &host.code(), &[0; 4]].concat();
    entries.push(2);
    entries.extend(b"found\0");
    entries.extend(host.code());
    entries
}

fn ordinary_unit(host: &Host, abbreviations: usize) -> Vec<u8> {
    unit(abbreviations, &[&ordinary_entries(host)[..], &[0, 0]].concat())
}

fn plain(info: Vec<u8>, abbrev: Vec<u8>, line: Vec<u8>) -> Sections {
    vec![(".debug_info", 0, info), (".debug_abbrev", 0, abbrev), (".debug_line", 0, line)]
}

/// Tests of time and memory come one after the other.
fn alone<T>(run: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    run()
}

/// What `symbolize` says, twice, on a thread with a small stack; in how much time the first time, and
/// with how much memory.
fn ask(address: usize) -> (Vec<Frame>, Duration, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = Instant::now();
    let ask = move || {
        let frames = symbolize(address);
        let elapsed = start.elapsed();
        // Names are made readable, and shown.
        let shown: usize = frames.iter().map(|frame| frame.to_string().len()).sum();
        assert!(shown > 0);
        let start = Instant::now();
        assert_eq!(symbolize(address), frames);
        (frames, elapsed, start.elapsed())
    };
    let stack = if is_sanitized() { 1 << 20 } else { 64 << 10 };
    let thread = thread::Builder::new().stack_size(stack).spawn(ask).unwrap();
    let (frames, first, again) = thread.join().unwrap();
    let memory = PEAK.load(Relaxed).saturating_sub(before);
    println!("{first:?}, again {again:?}, {} KiB, {} frames", memory >> 10, frames.len());
    // A machine that is busy just then is no fault.
    let most = 2 * first + common::limit(Duration::from_secs(2));
    assert!(again <= most, "{again:?} again, {first:?} first");
    (frames, first, memory)
}

/// How long it may take: several times what an ordinary line program of 1 MB takes, of which a row
/// is a step, as the whole budget is some 28 million.
fn limit() -> Duration {
    static LIMIT: OnceLock<Duration> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let host = Host::new();
        let mut rows = vec![0, 9, 2];
        rows.extend(host.address.to_le_bytes());
        rows.resize(900_000, 0x20);
        rows.extend([0, 1, 1]);
        let line = line_program(&rows);
        let sections = plain(ordinary_unit(host, 0), ordinary_abbreviations(), line);
        let (library, function) = host.load(&sections);
        let (_, elapsed, _) = ask(function);
        library.close().unwrap();
        elapsed * 30 * 5 + common::limit(Duration::from_secs(1))
    })
}

/// What is said of `foo`, within the limits: functions with their lines.
fn bounded(what: &str, sections: &Sections) -> Vec<(Option<String>, Option<u32>)> {
    alone(|| {
        let limit = limit();
        let (library, function) = Host::new().load(sections);
        print!("{what}: ");
        let (frames, elapsed, memory) = ask(function);
        assert!(elapsed < limit, "{what}: {elapsed:?} of {limit:?}");
        assert!(memory < 256 << 20, "{what}: {memory} bytes");
        library.close().unwrap();
        assert!(frames.iter().rev().skip(1).all(Frame::is_inlined));
        let named = |frame: &Frame| (frame.linkage_name().map(str::to_owned), frame.line());
        frames.iter().map(named).collect()
    })
}

fn found(name: &str, line: impl Into<Option<u32>>) -> Vec<(Option<String>, Option<u32>)> {
    vec![(Some(name.to_owned()), line.into())]
}

#[test]
fn ordinary_debug_information_is_read() {
    let host = Host::new();
    let sections = plain(ordinary_unit(host, 0), ordinary_abbreviations(), host.lines());
    assert_eq!(bounded("ordinary", &sections), found("found", 7));
}

/// 5,000 units share a table of 80 KB.
#[test]
fn a_table_that_many_units_share_is_read_once() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    for code in 10..20_000 {
        abbrev.extend(abbreviation(code, COMPILE_UNIT, false, &[]));
    }
    abbrev.push(0);
    let mut info: Vec<u8> = (0..5_000).flat_map(|_| unit(0, &uleb(19_000))).collect();
    info.extend(ordinary_unit(host, 0));
    let sections = plain(info, abbrev, host.lines());
    assert_eq!(bounded("shared", &sections), found("found", 7));
}

/// Entries of one byte that have a hundred thousand attributes each.
#[test]
fn an_abbreviation_may_have_any_number_of_attributes() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    // Of no interest; and of interest.
    for name in [SIBLING, EXTERNAL, LOW_PC, HIGH_PC] {
        let attributes = vec![(name, FLAG_PRESENT); 60_000];
        abbrev.extend(abbreviation(10 + u64::from(name), SUBPROGRAM, false, &attributes));
    }
    // DW_AT_call_line with DW_FORM_implicit_const 1.
    abbrev.extend([100, INLINED, 0]);
    abbrev.extend([CALL_LINE, 0x21, 1].repeat(60_000));
    abbrev.extend([0, 0, 0]);
    let mut entries = ordinary_entries(host);
    for code in [10 + SIBLING, 10 + EXTERNAL, 10 + LOW_PC, 10 + HIGH_PC, 100] {
        entries.extend([code].repeat(50_000));
    }
    let sections = plain(unit(0, &entries), abbrev, host.lines());
    let places = bounded("attributes", &sections);
    assert_eq!(places.last(), found("found", 7).last());
}

/// Each unit has its own table, which begins in the middle of all others.
#[test]
fn tables_that_overlap_stop_at_the_budget() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    abbrev.push(0);
    let start = abbrev.len();
    for code in 1..60_000 {
        abbrev.extend(abbreviation(code, COMPILE_UNIT, false, &[(SIBLING, FLAG)]));
    }
    let mut info = ordinary_unit(host, 0);
    info.extend((0..35_000).flat_map(|number| unit(start + 7 * number, &[1, 1])));
    let sections = plain(info, abbrev, host.lines());
    assert_eq!(bounded("overlapping tables", &sections), found("found", 7));
}

#[test]
fn hundreds_of_thousands_of_units_are_looked_through() {
    let host = Host::new();
    let abbrev = [ordinary_abbreviations(), abbreviation(3, COMPILE_UNIT, false, &[])].concat();
    let mut info: Vec<u8> = unit(0, &[3]).repeat(80_000);
    info.extend(ordinary_unit(host, 0));
    let sections = plain(info, abbrev, host.lines());
    assert_eq!(bounded("tiny units", &sections), found("found", 7));
    // Of those that are not even a header.
    let info = [ordinary_unit(host, 0), vec![0; 900_000]].concat();
    let sections = plain(info, ordinary_abbreviations(), host.lines());
    assert_eq!(bounded("no units", &sections), found("found", 7));
}

/// All units say that all addresses are theirs, and none has a function there.
#[test]
fn ranges_that_overlap_are_not_all_looked_at() {
    let host = Host::new();
    let range = [(LOW_PC, ADDR), (HIGH_PC, DATA8)];
    let abbrev = [ordinary_abbreviations(), abbreviation(3, COMPILE_UNIT, false, &range)].concat();
    let all = [&[3][..], &1_u64.to_le_bytes(), &(1_u64 << 40).to_le_bytes()].concat();
    let mut info = ordinary_unit(host, 0);
    info.extend(unit(0, &all).repeat(30_000));
    // The one that ends first is looked at first.
    let sections = plain(info, abbrev.clone(), host.lines());
    assert_eq!(bounded("overlapping units", &sections), found("found", 7));
    let info = unit(0, &all).repeat(30_000);
    let sections = plain(info, abbrev, host.lines());
    assert_eq!(bounded("overlapping units only", &sections), found("foo", None));
}

#[test]
fn a_line_program_may_have_any_number_of_rows() {
    let host = Host::new();
    let mut rows = vec![0, 9, 2];
    rows.extend(host.address.to_le_bytes());
    rows.extend([3, 6]);
    // Rows that go on by no address, and no row for long.
    rows.extend([0x12].repeat(200_000));
    rows.extend([6].repeat(200_000));
    // Unknown instructions, to which the header gives 255 operands, come to an end.
    rows.extend([2, 0xff, 0xff, 0xff, 0x7f, 1].repeat(20_000));
    rows.extend([0, 1, 1]);
    let line = line_program(&rows);
    let sections = plain(ordinary_unit(host, 0), ordinary_abbreviations(), line);
    assert_eq!(bounded("rows", &sections), found("found", 7));
}

/// Each unit has a line program of its own, which goes on through those of all others.
#[test]
fn line_programs_that_overlap_stop_at_the_budget() {
    let host = Host::new();
    let abbrev = [
        ordinary_abbreviations(),
        abbreviation(3, COMPILE_UNIT, false, &[(STMT_LIST, SEC_OFFSET)]),
    ]
    .concat();
    let mut line = host.lines();
    let (mut info, count) = (ordinary_unit(host, 0), 10_000);
    let one = line_program(&[]).len();
    for number in 0..count {
        info.extend(unit(0, &[&[3][..], &(line.len() as u32).to_le_bytes()].concat()));
        let mut program = line_program(&[]);
        let len = (one * (count - number) - 4) as u32;
        program[..4].copy_from_slice(&len.to_le_bytes());
        line.extend(program);
    }
    let sections = plain(info, abbrev, line);
    assert_eq!(bounded("overlapping programs", &sections), found("found", 7));
}

/// Functions that all have the same long list of ranges.
#[test]
fn a_list_of_ranges_that_many_share_stops_at_the_budget() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    abbrev.extend(abbreviation(3, SUBPROGRAM, false, &[(RANGES, SEC_OFFSET)]));
    abbrev.extend(abbreviation(4, INLINED, true, &[(RANGES, SEC_OFFSET)]));
    let mut ranges = Vec::new();
    for number in 0..30_000_u64 {
        let begin = 1 + 2 * number;
        ranges.extend([begin.to_le_bytes(), (begin + 1).to_le_bytes()].concat());
    }
    let mut entries = ordinary_entries(host);
    entries.push(0);
    entries.extend([3, 0, 0, 0, 0].repeat(40_000));
    let sections = plain(unit(0, &entries), abbrev.clone(), host.lines());
    let sections = [sections, vec![(".debug_ranges", 0, ranges.clone())]].concat();
    assert_eq!(bounded("ranges", &sections), found("found", 7));
    let mut entries = ordinary_entries(host);
    entries.extend([4, 0, 0, 0, 0].repeat(40_000));
    let sections = plain(unit(0, &entries), abbrev, host.lines());
    let sections = [sections, vec![(".debug_ranges", 0, ranges)]].concat();
    assert_eq!(bounded("ranges of inlined ones", &sections), found("found", 7));
}

#[test]
fn forms_that_name_forms_come_to_an_end() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    abbrev.extend(abbreviation(3, BLOCK, false, &[(NAME, INDIRECT)]));
    let mut entries = ordinary_entries(host);
    entries.push(3);
    entries.extend([INDIRECT].repeat(900_000));
    entries.extend([DATA1, 0, 0, 0]);
    let sections = plain(unit(0, &entries), abbrev, host.lines());
    assert_eq!(bounded("indirect", &sections), found("found", 7));
}

#[test]
fn origins_in_a_circle_have_no_name() {
    let host = Host::new();
    let code = [(LOW_PC, ADDR), (HIGH_PC, DATA8)];
    for name in [ORIGIN, SPECIFICATION] {
        let mut abbrev = ordinary_abbreviations();
        let function = [&[(name, REF4)][..], &code].concat();
        abbrev.extend(abbreviation(3, SUBPROGRAM, false, &function));
        let mut entries = [&[1][..], &host.code(), &[0; 4]].concat();
        let first = 11 + entries.len() as u32;
        for other in [first + 21, first] {
            entries.push(3);
            entries.extend(other.to_le_bytes());
            entries.extend(host.code());
        }
        let sections = plain(unit(0, &entries), abbrev, host.lines());
        assert_eq!(bounded("circle", &sections), found("foo", 7));
    }
}

#[test]
fn entries_may_be_nested_any_number_of_times() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    let code = [(LOW_PC, ADDR), (HIGH_PC, DATA8)];
    let call = [&code[..], &[(NAME, STRING), (CALL_LINE, DATA1)]].concat();
    abbrev.extend(abbreviation(3, BLOCK, true, &[]));
    abbrev.extend(abbreviation(4, INLINED, true, &call));
    abbrev.extend(abbreviation(5, SUBPROGRAM, true, &code));
    let of = |entries: Vec<u8>| plain(unit(0, &entries), abbrev.clone(), host.lines());

    let mut entries = ordinary_entries(host);
    entries.extend([3].repeat(900_000));
    assert_eq!(bounded("nested blocks", &of(entries)), found("found", 7));

    let mut entries = ordinary_entries(host);
    let inlined = [&[4][..], &host.code(), b"in\0", &[9]].concat();
    entries.extend(inlined.repeat(40_000));
    let places = bounded("nested inlined functions", &of(entries));
    assert_eq!(places.len(), 256);
    assert_eq!(places[0], (Some("in".into()), Some(7)));
    assert_eq!(places[1..255], vec![(Some("in".into()), Some(9)); 254]);
    assert_eq!(places[255], (Some("found".into()), Some(9)));

    let mut entries = ordinary_entries(host);
    let elsewhere = [[5].as_slice(), &[1; 8], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    entries.extend(elsewhere.repeat(50_000));
    assert_eq!(bounded("nested functions", &of(entries)), found("found", 7));
}

#[test]
fn a_name_may_be_of_any_length_and_told_any_number_of_times() {
    let host = Host::new();
    let mut abbrev = ordinary_abbreviations();
    let call = [(NAME, STRP), (LOW_PC, ADDR), (HIGH_PC, DATA8)];
    abbrev.extend(abbreviation(3, INLINED, true, &call));
    let mut entries = ordinary_entries(host);
    let inlined = [&[3][..], &[0; 4], &host.code()].concat();
    entries.extend(inlined.repeat(1_000));
    let mut sections = plain(unit(0, &entries), abbrev, host.lines());
    sections.push((".debug_str", 0, [vec![b'x'; 900_000], vec![0]].concat()));
    let places = bounded("long names", &sections);
    assert_eq!(places.len(), 256);
    assert_eq!(places[0].0.as_ref().unwrap().len(), 900_000);
    assert_eq!(places[255], (Some("found".into()), None));
    let text: usize = places.iter().filter_map(|place| place.0.as_ref()).map(String::len).sum();
    assert!(text <= 1 << 20, "{text}");
}

/// A file table that states more files than there are bytes, and strings that are nowhere.
#[test]
fn dwarf_5_may_lie_about_its_tables() {
    let host = Host::new();
    let code = [(LOW_PC, ADDR), (HIGH_PC, DATA8)];
    let root = [&code[..], &[(STMT_LIST, SEC_OFFSET), (COMP_DIR, LINE_STRP)]].concat();
    let function = [&[(NAME, STRX)][..], &code].concat();
    let mut abbrev = abbreviation(1, COMPILE_UNIT, true, &root);
    abbrev.extend(abbreviation(2, SUBPROGRAM, false, &function));
    let mut entries = [&[1][..], &host.code(), &[0; 4], &[0xff; 4]].concat();
    entries.push(2);
    entries.extend(uleb(u64::MAX));
    entries.extend(host.code());
    // A type unit before it, and a skeleton behind it.
    let v5 = |kind: u8, extra: usize, entries: &[u8]| {
        let mut unit = (entries.len() as u32 + 8 + extra as u32).to_le_bytes().to_vec();
        unit.extend([5, 0, kind, 8, 0, 0, 0, 0]);
        unit.extend(vec![0; extra]);
        unit.extend(entries);
        unit
    };
    let info = [v5(2, 12, &[0]), v5(1, 0, &entries), v5(4, 8, &[0])].concat();
    for (formats, count) in [(vec![0], uleb(u64::MAX)), (vec![1, 1, STRING], uleb(1 << 40))] {
        let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
        header.extend(formats.iter().chain(&count).copied());
        let mut body = vec![5, 0, 8, 0];
        body.extend((header.len() as u32).to_le_bytes());
        body.extend(header);
        body.extend(line_seven(host.address, host.len));
        let line = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        let mut sections = plain(info.clone(), abbrev.clone(), line);
        sections.push((".debug_line_str", 0, vec![b'x'; 100]));
        assert_eq!(bounded("DWARF 5", &sections), found("foo", 7));
    }
}

/// So many zeroes, compressed with zlib (1) or Zstandard (2), and as large as what may unpack to them.
fn zeroes(algorithm: u32, size: usize) -> Vec<u8> {
    let mut data = match algorithm {
        1 => miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; size], 1),
        _ => {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
            frame.extend((size as u32).to_le_bytes());
            // Blocks of one byte again and again.
            for start in (0..size).step_by(128 << 10) {
                let len = (size - start).min(128 << 10);
                let header = (len as u32) << 3 | 2 | u32::from(start + len == size);
                frame.extend(&header.to_le_bytes()[..3]);
                frame.push(0);
            }
            frame
        }
    };
    // What follows on the stream, or a frame that is skipped.
    let room = (size / 64).saturating_sub(data.len());
    if algorithm == 2 {
        data.extend([0x50, 0x2a, 0x4d, 0x18]);
        data.extend((room as u32).to_le_bytes());
    }
    data.resize(data.len() + room, 0);
    let mut packed = algorithm.to_le_bytes().to_vec();
    packed.extend([0; 4]);
    packed.extend((size as u64).to_le_bytes());
    packed.extend(1_u64.to_le_bytes());
    packed.extend(data);
    packed
}

/// A few bytes that unpack to as many as they may, or say that they do.
#[test]
fn what_unpacks_to_very_much_is_bounded() {
    let host = Host::new();
    for algorithm in [1, 2] {
        let fair = zeroes(algorithm, 4 << 20);
        // That of a section that has too few bytes for it.
        let mut bomb = fair.clone();
        bomb[8..16].copy_from_slice(&(64_u64 << 20).to_le_bytes());
        for name in [".debug_info", ".debug_abbrev", ".debug_line", ".debug_str"] {
            for packed in [&fair, &bomb] {
                let unit = ordinary_unit(host, 0);
                let mut sections = plain(unit, ordinary_abbreviations(), host.lines());
                sections.retain(|section| section.0 != name);
                sections.push((name, SHF_COMPRESSED, packed.clone()));
                let places = bounded(&format!("{name} {algorithm}"), &sections);
                let is_str = name == ".debug_str";
                let name = if is_str || name == ".debug_line" { "found" } else { "foo" };
                assert_eq!(places, found(name, is_str.then_some(7)));
            }
        }
    }
}

/// Each section may be as large as it says, but not all of them together.
#[test]
fn what_unpacks_to_very_much_together_is_bounded() {
    const OTHERS: [&str; 7] = [
        ".debug_aranges",
        ".debug_line_str",
        ".debug_str",
        ".debug_str_offsets",
        ".debug_addr",
        ".debug_ranges",
        ".debug_rnglists",
    ];
    let host = Host::new();
    let packed = zeroes(2, 6 << 20);
    let others = || OTHERS.map(|name| (name, SHF_COMPRESSED, packed.clone()));
    let mut sections = plain(ordinary_unit(host, 0), ordinary_abbreviations(), host.lines());
    sections.extend(others());
    assert_eq!(bounded("others together", &sections), found("found", 7));
    let all = [".debug_info", ".debug_abbrev", ".debug_line"];
    let mut sections = all.map(|name| (name, SHF_COMPRESSED, packed.clone())).to_vec();
    sections.extend(others());
    assert_eq!(bounded("all together", &sections), found("foo", None));
}

/// What takes as long as it may: 16 steps for each byte.
fn bomb(host: &Host, len: usize) -> Sections {
    let mut abbrev = ordinary_abbreviations();
    abbrev.push(0);
    let start = abbrev.len();
    for code in 1..60_000 {
        abbrev.extend(abbreviation(code, COMPILE_UNIT, false, &[(SIBLING, FLAG)]));
    }
    let mut info = ordinary_unit(host, 0);
    info.extend((0..35_000).flat_map(|number| unit(start + 7 * number, &[1, 1])));
    let mut sections = plain(info, abbrev, host.lines());
    sections.push((".debug_str", 0, vec![0; len]));
    sections.insert(0, ("large", 0, vec![]));
    sections
}

#[test]
fn nobody_waits_while_debug_information_is_read() {
    isolated(|| {
        let host = Host::new();
        let limit = common::limit(Duration::from_secs(100)).as_secs() as u32;
        let (library, function) = host.load(&bomb(host, 1 << 20));
        let small = common::bytes("gcc", "debug/clib.c", &["-g", "-O2"]);
        // Before, so that what is found out once has been.
        // SAFETY: a test library.
        drop(unsafe { Loader::new().load(&small) }.unwrap());
        let (is_reading, is_read) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                is_reading.store(true, Relaxed);
                let start = Instant::now();
                let frames = symbolize(function);
                println!("read in {:?}", start.elapsed());
                is_read.store(true, Relaxed);
                assert_eq!(frames[0].linkage_name(), Some("found"));
            });
            while !is_reading.load(Relaxed) {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            // SAFETY: a test library.
            let other = unsafe { Loader::new().load(&small) }.unwrap();
            // SAFETY: only the address is wanted.
            let entry = unsafe { other.get::<*const u8>("entry") }.unwrap().as_raw_ptr().addr();
            assert!(symbolize(entry)[0].line().is_some());
            other.set_debug(memdl::DebugLevel::Symbols).unwrap();
            other.close().unwrap();
            library.set_debug(memdl::DebugLevel::Symbols).unwrap();
            library.set_debug(memdl::DebugLevel::Full).unwrap();
            library.set_debug_info(&small).unwrap_err();
            // SAFETY: the child does what children of threads may do here, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends the process, in any case.
                unsafe { libc::alarm(limit) };
                let known = symbolize(function)[0].linkage_name() == Some("found");
                library.set_debug(memdl::DebugLevel::Symbols).unwrap();
                // SAFETY: ends the process.
                unsafe { libc::_exit(if known { 7 } else { 8 }) };
            }
            let waited = start.elapsed();
            assert!(!is_read.load(Relaxed), "all of it has waited: {waited:?}");
            println!("load, unload, changes and fork took {waited:?}");
            let mut status = 0;
            // SAFETY: the child that was made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
        });
        library.close().unwrap();
    });
}

/// Whoever reads keeps what it reads from; the image goes when it is done.
#[test]
fn an_image_may_be_unloaded_while_it_is_read() {
    isolated(|| {
        let host = Host::new();
        for wait in [1, 30] {
            let (library, function) = host.load(&bomb(host, 0));
            thread::scope(|scope| {
                let reader = scope.spawn(|| symbolize(function));
                thread::sleep(Duration::from_millis(wait));
                let start = Instant::now();
                let _ = library.close();
                println!("closed in {:?}", start.elapsed());
                let frames = reader.join().unwrap();
                assert!(frames.first().is_none_or(|it| it.linkage_name() == Some("found")));
            });
            assert_eq!(symbolize(function), []);
        }
    });
}

#[test]
fn threads_that_ask_about_one_image_share_what_is_read() {
    let host = Host::new();
    alone(|| {
        let limit = limit();
        let (library, function) = host.load(&bomb(host, 0));
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(symbolize(function)[0].linkage_name(), Some("found")));
            }
        });
        assert!(start.elapsed() < limit, "{:?}", start.elapsed());
        let memory = PEAK.load(Relaxed).saturating_sub(before);
        assert!(memory < 256 << 20, "{memory}");
        library.close().unwrap();
    });
}
