//! The reference is the static linker: the same objects linked at another base must have, byte for
//! byte, the debug sections that [`Addresses::relocate`] makes of those linked at 0. What differs on
//! purpose, bases of pairs (see [`Walk::base`](super::Walk::base)), is computed here by other means:
//! by gimli's own readers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use gimli::{AttributeValue, Dwarf, SectionId};

use super::records::STANDARD_OPERANDS;
use super::*;
use crate::base::addr::Vaddr;

/// Where the reference is linked.
const BASE: u64 = 0x1_0000_0000;

/// All code is behind this, if linked at 0: what is before it was thrown away.
const TEXT: u64 = 0x1000;

fn bias() -> LoadBias {
    LoadBias::between(Vaddr(0), BASE as usize)
}

/// Debug sections: names and contents.
#[derive(Clone, Debug)]
struct Sections(Vec<(String, Vec<u8>)>);

impl Sections {
    fn of_file(path: &Path) -> Sections {
        let bytes = std::fs::read(path).unwrap();
        let elf = goblin::elf::Elf::parse(&bytes).unwrap();
        let section = |header: &goblin::elf::SectionHeader| {
            let name = elf.shdr_strtab.get_at(header.sh_name)?;
            let contents = bytes.get(header.file_range()?)?;
            assert_eq!(header.sh_flags & u64::from(goblin::elf::section_header::SHF_COMPRESSED), 0);
            name.starts_with(".debug_").then(|| (name.to_owned(), contents.to_owned()))
        };
        Sections(elf.section_headers.iter().filter_map(section).collect())
    }

    fn find(&self) -> Result<Addresses, NotRelocated> {
        let sections: Vec<_> =
            self.0.iter().map(|(name, contents)| DwarfSection { name, contents }).collect();
        let allowance = crate::dwarf::budget::Allowance::new(Default::default(), 0);
        Addresses::find(&sections, &allowance.budget())
    }

    fn relocated(&self) -> Sections {
        let addresses = self.find().unwrap_or_else(|error| panic!("{error}"));
        let mut sections = self.clone();
        for (index, (_, contents)) in sections.0.iter_mut().enumerate() {
            addresses.relocate(index, contents, bias());
        }
        sections
    }

    fn get(&self, name: &str) -> &[u8] {
        self.0.iter().find(|section| section.0 == name).map_or(&[], |section| &section.1)
    }

    fn dwarf(&self) -> Dwarf<EndianSlice<'_, LittleEndian>> {
        let load = |id: SectionId| {
            Ok::<_, gimli::Error>(EndianSlice::new(self.get(id.name()), LittleEndian))
        };
        Dwarf::load(load).unwrap()
    }

    fn word(&self, section: &str, at: usize) -> u64 {
        u64::from_le_bytes(self.get(section)[at..at + 8].try_into().unwrap())
    }
}

/// A section and an offset in it.
type TlsLocation = (&'static str, usize);

/// What differs on purpose.
#[derive(Default)]
struct Deliberate {
    /// Zeros that become the bias.
    bases: BTreeSet<TlsLocation>,
    /// Words of pairs that stay, since their base moves: the unit's, which is 0.
    pairs: BTreeSet<TlsLocation>,
    /// Words of pairs after a base of 0 in the list itself. They are absolute, or (GNU ld) of what
    /// was thrown away.
    selected: BTreeSet<TlsLocation>,
}

/// What differs on purpose in these sections, linked at 0.
fn deliberate(sections: &Sections) -> Deliberate {
    let mut found = Deliberate::default();
    let dwarf = sections.dwarf();
    let mut units = dwarf.units();
    while let Some(header) = units.next().unwrap() {
        if header.version() >= 5 {
            continue;
        }
        let start = header.debug_info_offset().unwrap().0;
        let abbreviations = dwarf.abbreviations(&header).unwrap();
        let mut entries = header.entries_raw(&abbreviations, None).unwrap();
        let (mut is_root, mut base_moves) = (true, false);
        while !entries.is_empty() {
            let Some(abbreviation) = entries.read_abbreviation().unwrap() else {
                continue;
            };
            let (mut zeros, mut has_ranges) = (vec![], false);
            let mut lists = vec![];
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec).unwrap();
                let end = start + entries.next_offset().0;
                match (attribute.name(), attribute.value()) {
                    (DW_AT_low_pc | DW_AT_entry_pc, AttributeValue::Addr(0)) => {
                        zeros.push((".debug_info", end - 8));
                    }
                    (name, AttributeValue::RangeListsRef(offset)) => {
                        has_ranges |= name == DW_AT_ranges;
                        lists.push((".debug_ranges", offset.0));
                    }
                    (name, AttributeValue::LocationListsRef(offset))
                        if name != DW_AT_data_member_location =>
                    {
                        lists.push((".debug_loc", offset.0));
                    }
                    _ => {}
                }
            }
            if is_root && has_ranges {
                base_moves = !zeros.is_empty();
                found.bases.extend(zeros);
            }
            is_root = false;
            for (section, offset) in lists {
                pairs(sections, section, offset, base_moves, &mut found);
            }
        }
    }
    found
}

/// The pairs of the list whose base is 0 and moves.
fn pairs(
    sections: &Sections,
    section: &'static str,
    mut at: usize,
    base_moves: bool,
    found: &mut Deliberate,
) {
    let mut stay = base_moves.then_some(&mut found.pairs);
    loop {
        let (first, second) = (sections.word(section, at), sections.word(section, at + 8));
        if first == u64::MAX {
            stay = (second == 0).then_some(&mut found.selected);
            if second == 0 {
                found.bases.insert((section, at + 8));
            }
        } else if (first, second) == (0, 0) {
            return;
        } else if let Some(stay) = &mut stay {
            stay.extend([(section, at), (section, at + 8)]);
        }
        at += 16;
        if first != u64::MAX && section == ".debug_loc" {
            let len = &sections.get(section)[at..at + 2];
            at += 2 + usize::from(u16::from_le_bytes(len.try_into().unwrap()));
        }
    }
}

/// Everything that has addresses, as a debugger would compute them: for each entry, its ranges,
/// and its locations with their expressions; and the rows of all line tables.
fn meaning(sections: &Sections) -> Vec<String> {
    let dwarf = sections.dwarf();
    let mut told = vec![];
    let mut units = dwarf.units();
    while let Some(header) = units.next().unwrap() {
        let unit = dwarf.unit(header).unwrap();
        let mut entries = unit.entries();
        while entries.next_dfs().unwrap().is_some() {
            let entry = entries.current().unwrap();
            let mut ranges = dwarf.die_ranges(&unit, entry).unwrap();
            while let Some(range) = ranges.next().unwrap() {
                if !is_dead(range.begin) {
                    told.push(format!("{:?} {range:x?}", entry.offset()));
                }
            }
            for attribute in entry.attrs() {
                if let Some(mut list) = dwarf.attr_locations(&unit, attribute.value()).unwrap() {
                    while let Some(location) = list.next().unwrap() {
                        if !is_dead(location.range.begin) {
                            told.push(format!("{:?} {location:x?}", entry.offset()));
                        }
                    }
                }
            }
        }
        if let Some(program) = unit.line_program.clone() {
            let mut rows = program.rows();
            while let Some((_, row)) = rows.next_row().unwrap() {
                told.push(format!("{:x} {:?}", row.address(), row.line()));
            }
        }
    }
    told
}

/// Whether an address, linked at [`BASE`], is of what was thrown away. If it is relative to a base
/// that is 0 for that reason, it moves, as under `dlopen`, to where no code is.
fn is_dead(address: u64) -> bool {
    address % BASE < TEXT
}

/// What was compared.
#[derive(Debug, Default, Clone, Copy)]
struct Compared {
    addresses: usize,
    bases: usize,
    pairs: usize,
}

/// `at_zero` relocated is `at_base`, byte for byte, but for what differs on purpose.
fn compare(at_zero: &Sections, at_base: &Sections, what: &str) -> Compared {
    let deliberate = deliberate(at_zero);
    let relocated = at_zero.relocated();
    let mut expected = at_base.clone();
    for (name, contents) in &mut expected.0 {
        for &(section, at) in deliberate.bases.iter().filter(|site| site.0 == *name) {
            assert_eq!(at_base.word(section, at), 0, "{what}: {section} {at:#x}");
            contents[at..at + 8].copy_from_slice(&BASE.to_le_bytes());
        }
        let pairs = deliberate.pairs.union(&deliberate.selected);
        for &(section, at) in pairs.filter(|site| site.0 == *name) {
            let (here, there) = (at_zero.word(section, at), at_base.word(section, at));
            let nothing_below = if deliberate.pairs.contains(&(section, at)) { 2 } else { TEXT };
            assert!(
                there == here + BASE || (here == there && here < nothing_below),
                "{what}: {section} {at:#x}"
            );
            contents[at..at + 8].copy_from_slice(&here.to_le_bytes());
        }
    }
    assert_eq!(relocated.0.len(), expected.0.len(), "{what}");
    for ((name, ours), (other, linked)) in relocated.0.iter().zip(&expected.0) {
        assert_eq!((name, ours.len()), (other, linked.len()), "{what}");
        if ours != linked {
            let at = ours.iter().zip(linked).position(|(a, b)| a != b).unwrap();
            let around = at.saturating_sub(16)..(at + 16).min(ours.len());
            let unlinked = &at_zero.get(name)[around.clone()];
            panic!(
                "{what}: {name} differs first at {at:#x}:\nbefore {unlinked:02x?}\nours   {:02x?}\nlinked {:02x?}",
                &ours[around.clone()],
                &linked[around]
            );
        }
    }
    Compared {
        addresses: at_zero.find().unwrap().count(),
        bases: deliberate.bases.len(),
        pairs: deliberate.pairs.len() + deliberate.selected.len(),
    }
}

/// A directory of its own for each test; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("memdl-dwarf-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn run(&self, tool: &str, arguments: &[&str]) {
        let mut command = Command::new(tool);
        let output =
            command.args(arguments).current_dir(&self.0).output().unwrap_or_else(|error| {
                panic!("cannot run {tool}: {error}; `sh tests/setup.sh` installs what tests need")
            });
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    }

    /// Compiles the sources of `testlibs/debug`, links them at 0 and at [`BASE`], and compares.
    fn check(&self, case: &Case<'_>) -> Compared {
        let what = format!("{case:?}");
        let mut objects = vec![];
        for source in case.sources {
            let object = format!("{source}.o");
            let source = source_file(source);
            let flags = [&["-fPIC", "-c", "-o", &object, &source], case.compile].concat();
            self.run(case.compiler, &flags);
            objects.push(object);
        }
        let objects: Vec<_> = objects.iter().map(|object| &**object).collect();
        let at_base = match case.linker {
            "bfd" | "gold" => format!("-Wl,-Ttext-segment={BASE:#x}"),
            _ => format!("-Wl,--image-base={BASE:#x}"),
        };
        let linker = format!("-fuse-ld={}", case.linker);
        for (output, base) in [("zero.so", "-shared"), ("base.so", &at_base)] {
            let flags = ["-shared", "-nostartfiles", &linker, base, "-o", output];
            self.run(case.compiler, &[&flags[..], &objects, case.compile, case.link].concat());
        }
        self.compare_links(&what)
    }

    fn zero(&self) -> Sections {
        Sections::of_file(&self.0.join("zero.so"))
    }

    fn compare_links(&self, what: &str) -> Compared {
        let [at_zero, at_base] =
            ["zero.so", "base.so"].map(|name| Sections::of_file(&self.0.join(name)));
        let compared = compare(&at_zero, &at_base, what);
        assert_eq!(meaning(&at_zero.relocated()), meaning(&at_base), "{what}");
        println!("{compared:?} {what}");
        compared
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn source_file(name: &str) -> String {
    format!("{}/../testlibs/debug/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    compiler: &'a str,
    sources: &'a [&'a str],
    linker: &'a str,
    /// Also given when linking.
    compile: &'a [&'a str],
    link: &'a [&'a str],
}

const C: &[&str] = &["places.c", "places_other.c"];
const CXX: &[&str] = &["places.cc", "places_other.cc"];

/// What is linked, by which compiler, in which language.
const LANGUAGES: [(&str, &[&str], &str); 4] =
    [("gcc", C, "bfd"), ("g++", CXX, "bfd"), ("clang", C, "lld"), ("clang++", CXX, "lld")];

const VERSIONS: [&str; 4] = ["-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5"];

#[test]
fn every_version_of_dwarf_is_as_the_linker_had_made_it() {
    let scratch = Scratch::new("versions");
    for (compiler, sources, linker) in LANGUAGES {
        for version in VERSIONS {
            for level in ["-O0", "-O2"] {
                let compile = &[version, level];
                let case = Case { compiler, sources, linker, compile, link: &[] };
                let compared = scratch.check(&case);
                assert!(compared.addresses > 30, "{case:?}: {compared:?}");
            }
        }
    }
}

#[test]
fn sections_of_functions_with_the_unused_ones_thrown_away_keep_their_tombstones() {
    let scratch = Scratch::new("collected");
    let link = &["-Wl,--gc-sections", "-Wl,-u,run", "-Wl,--version-script=only_run.map"];
    std::fs::write(scratch.0.join("only_run.map"), "{ global: run; local: *; };").unwrap();
    let mut pairs = 0;
    for (compiler, sources, _) in LANGUAGES {
        for linker in ["bfd", "lld"] {
            for version in ["-gdwarf-3", "-gdwarf-4", "-gdwarf-5"] {
                let compile = &[version, "-O2", "-ffunction-sections", "-fdata-sections"];
                pairs += scratch.check(&Case { compiler, sources, linker, compile, link }).pairs;
            }
        }
    }
    assert!(pairs > 0);
}

#[test]
fn dwarf_of_64_bits_is_as_the_linker_had_made_it() {
    let scratch = Scratch::new("wide");
    for (compiler, sources, linker) in LANGUAGES {
        for version in &VERSIONS[1..] {
            let compile = &[version, "-gdwarf64", "-O2"];
            scratch.check(&Case { compiler, sources, linker, compile, link: &[] });
        }
    }
}

#[test]
fn type_units_macros_and_frames_are_as_the_linker_had_made_them() {
    let scratch = Scratch::new("options");
    let frames: &[&str] = &["-O2", "-fno-asynchronous-unwind-tables", "-fno-exceptions"];
    for (compiler, sources, linker) in LANGUAGES {
        for version in ["-gdwarf-4", "-gdwarf-5"] {
            let compile = &[version, "-O1", "-fdebug-types-section", "-g3"];
            scratch.check(&Case { compiler, sources, linker, compile, link: &[] });
            assert!(
                version != "-gdwarf-4"
                    || sources == C
                    || !scratch.zero().get(".debug_types").is_empty()
            );
            let macros =
                [".debug_macro", ".debug_macinfo"].map(|name| scratch.zero().get(name).len());
            assert!(compiler.starts_with("clang") || macros != [0; 2]);
        }
        if sources == C {
            for version in VERSIONS {
                let compile = &[&[version], frames].concat();
                scratch.check(&Case { compiler, sources, linker, compile, link: &[] });
                assert_ne!(scratch.zero().get(".debug_frame").len(), 0);
            }
        }
    }
}

#[test]
fn optimisation_of_the_whole_program_is_as_the_linker_had_made_it() {
    let scratch = Scratch::new("lto");
    for (compiler, sources, linker) in LANGUAGES {
        for version in ["-gdwarf-4", "-gdwarf-5"] {
            let compile = &[version, "-O2", "-flto"];
            scratch.check(&Case { compiler, sources, linker, compile, link: &[] });
        }
    }
}

/// Newer releases of distributions have none. The harness does not hide what is left out.
fn has_gold() -> bool {
    use std::io::Write;
    let is_here = Command::new("ld.gold").arg("--version").output().is_ok();
    if !is_here {
        let _ = writeln!(std::io::stderr(), "left out: what ld.gold links, which is not installed");
    }
    is_here
}

#[test]
fn other_pairs_of_compiler_and_linker_give_what_the_linker_had_made() {
    let scratch = Scratch::new("mixed");
    for (compiler, sources, _) in LANGUAGES {
        for linker in ["bfd", "gold", "lld"] {
            if linker == "gold" && !has_gold() {
                continue;
            }
            for version in ["-gdwarf-4", "-gdwarf-5"] {
                let compile =
                    &[version, "-O3", "-ffunction-sections", "-fno-semantic-interposition"];
                scratch.check(&Case { compiler, sources, linker, compile, link: &[] });
            }
        }
    }
}

#[test]
fn a_base_of_0_that_the_assembler_selects_moves_and_its_pairs_stay() {
    let scratch = Scratch::new("assembler");
    for version in VERSIONS {
        let sources = &["places.S"];
        let link = &["-nostdlib"];
        let case = Case { compiler: "gcc", sources, linker: "bfd", compile: &[version], link };
        let compared = scratch.check(&case);
        let pairs = if version == "-gdwarf-5" { 0 } else { 4 };
        assert_eq!((compared.pairs, compared.bases), (pairs, pairs / 4), "{version}");
    }
}

#[test]
fn a_library_in_rust_is_as_the_linker_had_made_it() {
    let scratch = Scratch::new("rust");
    for version in ["2", "4", "5"] {
        for level in ["0", "2"] {
            for (output, base) in [("zero.so", 0), ("base.so", BASE)] {
                let level = format!("-Copt-level={level}");
                let base = format!("-Clink-args=-Wl,-Ttext-segment={base:#x}");
                let version = format!("-Cdwarf-version={version}");
                let source = source_file("rustlib.rs");
                let flags = ["--crate-type=cdylib", "-g", "--edition=2024", "-o", output];
                let more = [&*level, &*base, &*version, "-Clinker=gcc", &*source];
                let bfd = ["-Clink-args=-fuse-ld=bfd"];
                scratch.run("rustc", &[&flags[..], &more, &bfd].concat());
            }
            let compared = scratch.compare_links(&format!("rustc, DWARF {version}, -O{level}"));
            assert!(compared.addresses + compared.pairs > 10_000, "{compared:?}");
        }
    }
}

// By hand: what compilers on this system do not write, what cannot be relocated, and lies.

/// Attributes of one entry: name, form, value.
type Attributes<'a> = &'a [(DwAt, DwForm, &'a [u8])];

const ADDR: [u8; 8] = 0x1234u64.to_le_bytes();

fn uleb(mut value: u64) -> Vec<u8> {
    let mut out = vec![];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A record: its length, in 32-bit form, and the rest.
fn record(rest: &[u8]) -> Vec<u8> {
    [&(rest.len() as u32).to_le_bytes()[..], rest].concat()
}

/// A unit of DWARF 2 to 4 or 5, with these bytes for entries.
fn unit(version: u8, abbreviations: u32, entries: &[u8]) -> Vec<u8> {
    let offset = abbreviations.to_le_bytes();
    let header = match version {
        5 => [&[5, 0, DW_UT_compile.0, 8][..], &offset].concat(),
        _ => [&[version, 0][..], &offset, &[8]].concat(),
    };
    record(&[header, entries.to_vec()].concat())
}

/// Sections with one unit; its entries have these attributes, and an abbreviation each.
fn entries(version: u8, entries: &[Attributes<'_>]) -> Sections {
    let (mut abbreviations, mut bytes) = (vec![], vec![]);
    for (number, attributes) in entries.iter().enumerate() {
        let code = number as u8 + 1;
        let tag = if number == 0 { DW_TAG_compile_unit } else { DW_TAG_variable };
        abbreviations.extend([code, tag.0 as u8, 0]);
        bytes.push(code);
        for (name, form, value) in *attributes {
            abbreviations.extend([uleb(name.0.into()), uleb(form.0.into())].concat());
            bytes.extend_from_slice(value);
        }
        abbreviations.extend([0, 0]);
    }
    abbreviations.push(0);
    sections(&[(".debug_info", &unit(version, 0, &bytes)), (".debug_abbrev", &abbreviations)])
}

fn sections(of: &[(&str, &[u8])]) -> Sections {
    Sections(of.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect())
}

impl Sections {
    fn with(mut self, name: &str, contents: &[u8]) -> Sections {
        self.0.push((name.to_owned(), contents.to_vec()));
        self
    }

    /// Where, in the first section, the addresses are.
    fn places(&self) -> Vec<u32> {
        self.find().unwrap_or_else(|error| panic!("{error}")).sections[0].1.clone()
    }

    fn error(&self) -> (&'static str, usize, Why) {
        let error = self.find().unwrap_err();
        (error.section.name(), error.offset, error.why)
    }
}

/// Of the header of a unit of DWARF 4, and the code of the entry.
const HEADER: u32 = 11 + 1;

#[test]
fn addresses_are_found_in_expressions_inside_expressions_and_behind_indirect_forms() {
    let inner = [&[DW_OP_addr.0][..], &ADDR].concat();
    let outer = [&[DW_OP_GNU_entry_value.0, 11, DW_OP_entry_value.0, 9][..], &inner].concat();
    let root = entries(4, &[&[(DW_AT_location, DW_FORM_exprloc, &[&[13][..], &outer].concat())]]);
    assert_eq!(root.places(), [HEADER + 1 + 4 + 1]);

    let indirect = [&[DW_FORM_indirect.0 as u8, DW_FORM_addr.0 as u8][..], &ADDR].concat();
    assert_eq!(
        entries(4, &[&[(DW_AT_low_pc, DW_FORM_indirect, &indirect)]]).places(),
        [HEADER + 2]
    );

    // In a block of a location it is one; in a block of a constant it is a literal.
    let block = [&[9][..], &inner].concat();
    assert_eq!(entries(4, &[&[(DW_AT_location, DW_FORM_block1, &block)]]).places(), [HEADER + 2]);
    assert_eq!(entries(4, &[&[(DW_AT_const_value, DW_FORM_block1, &block)]]).places(), []);
    let literal = [&[10, DW_OP_implicit_value.0, 8][..], &ADDR].concat();
    assert_eq!(entries(4, &[&[(DW_AT_location, DW_FORM_exprloc, &literal)]]).places(), []);
}

#[test]
fn offsets_of_thread_locals_stay() {
    for ask in [DW_OP_GNU_push_tls_address, DW_OP_form_tls_address] {
        for push in [DW_OP_const8u, DW_OP_addr] {
            let location = [&[10, push.0][..], &ADDR, &[ask.0]].concat();
            let sections = entries(4, &[&[(DW_AT_location, DW_FORM_exprloc, &location)]]);
            assert_eq!(sections.places(), []);
        }
    }
}

#[test]
fn tombstones_stay_and_a_base_of_0_moves_only_if_there_are_ranges_before_dwarf_5() {
    let of = |version, low: u64, ranges: bool| {
        let low = low.to_le_bytes();
        let low = (DW_AT_low_pc, DW_FORM_addr, &low[..]);
        let ranges_at = (DW_AT_ranges, DW_FORM_sec_offset, &[0; 4][..]);
        let attributes = if ranges { vec![ranges_at, low] } else { vec![low] };
        entries(version, &[&attributes])
            .with(".debug_ranges", &[0; 16])
            .with(".debug_rnglists", &[0; 16])
    };
    for tombstone in [0, 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(of(4, tombstone, false).places(), []);
        assert_eq!(of(5, tombstone, true).places(), []);
        assert_eq!(of(4, tombstone, true).places().len(), usize::from(tombstone == 0));
    }
    assert_eq!(of(4, 2, false).places(), [HEADER]);
    assert_eq!(of(4, u64::MAX - 2, false).places(), [HEADER]);
    // Below the root, 0 is always a tombstone.
    let low = (DW_AT_low_pc, DW_FORM_addr, &[0; 8][..]);
    let ranges = (DW_AT_ranges, DW_FORM_sec_offset, &[0; 4][..]);
    let sections = entries(4, &[&[low], &[ranges, low]]).with(".debug_ranges", &[0; 16]);
    assert_eq!(sections.places(), []);
}

#[test]
fn pairs_without_any_base_move_themselves() {
    let pairs = [2u64, 5, u64::MAX, 0x2000, 3, 4, 0, 0].map(u64::to_le_bytes).concat();
    let ranges = (DW_AT_ranges, DW_FORM_sec_offset, &[0; 4][..]);
    let of = |attributes: Attributes<'_>| {
        let sections = entries(4, &[attributes]).with(".debug_ranges", &pairs);
        sections.find().unwrap().sections[2].1.clone()
    };
    assert_eq!(of(&[ranges]), [0, 8, 24]);
    assert_eq!(of(&[ranges, (DW_AT_low_pc, DW_FORM_addr, &ADDR)]), [24]);
}

#[test]
fn every_kind_of_entry_in_lists_of_dwarf_5_is_known() {
    let expression = [&[9, DW_OP_addr.0][..], &ADDR].concat();
    let ranges: &[(&[u8], &[u32])] = &[
        (&[DW_RLE_base_addressx.0, 0x81, 0], &[]),
        (&[DW_RLE_startx_endx.0, 1, 2], &[]),
        (&[DW_RLE_startx_length.0, 1, 2], &[]),
        (&[DW_RLE_offset_pair.0, 1, 2], &[]),
        (&[&[DW_RLE_base_address.0][..], &ADDR].concat(), &[1]),
        (&[&[DW_RLE_start_end.0][..], &ADDR, &ADDR].concat(), &[1, 9]),
        (&[&[DW_RLE_start_length.0][..], &ADDR, &[1]].concat(), &[1]),
    ];
    let locations: &[(&[u8], &[u32])] = &[
        (&[DW_LLE_base_addressx.0, 0x81, 0], &[]),
        (&[DW_LLE_GNU_view_pair.0, 1, 2], &[]),
        (&[&[DW_LLE_startx_endx.0, 1, 2][..], &expression].concat(), &[5]),
        (&[&[DW_LLE_startx_length.0, 1, 2][..], &expression].concat(), &[5]),
        (&[&[DW_LLE_offset_pair.0, 1, 2][..], &expression].concat(), &[5]),
        (&[&[DW_LLE_default_location.0][..], &expression].concat(), &[3]),
        (&[&[DW_LLE_base_address.0][..], &ADDR].concat(), &[1]),
        (&[&[DW_LLE_start_end.0][..], &ADDR, &ADDR, &expression].concat(), &[1, 9, 19]),
        (&[&[DW_LLE_start_length.0][..], &ADDR, &[1], &expression].concat(), &[1, 12]),
    ];
    for (name, section, kinds) in
        [(DW_AT_ranges, ".debug_rnglists", ranges), (DW_AT_location, ".debug_loclists", locations)]
    {
        let mut list = vec![0; 4];
        let mut expected = vec![];
        for (bytes, places) in kinds {
            expected.extend(places.iter().map(|place| list.len() as u32 + place));
            list.extend_from_slice(bytes);
        }
        list.push(0);
        let sections = entries(5, &[&[], &[(name, DW_FORM_sec_offset, &[4, 0, 0, 0])]]);
        let sections = sections.with(section, &list);
        assert_eq!(sections.find().unwrap().sections[2].1, expected, "{section}");
    }
}

#[test]
fn what_cannot_be_relocated_says_where_and_why() {
    use gimli::Error::*;
    let attribute = |version, name, form, value: &[u8]| {
        entries(version, &[&[], &[(name, form, value)]]).error()
    };
    let info = ".debug_info";
    // The second entry is behind the header and the root's code.
    let v4 = |name, form, value: &[u8]| {
        let (section, offset, why) = attribute(4, name, form, value);
        assert_eq!((section, offset), (info, 12));
        why
    };
    assert_eq!(v4(DW_AT_GNU_dwo_name, DW_FORM_strp, &[0; 4]), Why::Split);
    assert_eq!(v4(DW_AT_name, DW_FORM_GNU_strp_alt, &[0; 4]), Why::Supplementary);
    assert_eq!(v4(DW_AT_type, DW_FORM_GNU_ref_alt, &[0; 4]), Why::Supplementary);
    assert_eq!(v4(DW_AT_type, DwForm(0x77), &[0; 4]), UnknownForm(DwForm(0x77)).into());
    let unknown = InvalidExpression(DwOp(0xff)).into();
    assert_eq!(v4(DW_AT_location, DW_FORM_exprloc, &[1, 0xff]), unknown);
    let constant = [2, DW_OP_constx.0, 0];
    assert!(matches!(v4(DW_AT_location, DW_FORM_exprloc, &constant), Why::Unknown(_)));
    let implicit = [DW_FORM_implicit_const.0 as u8];
    assert_eq!(v4(DW_AT_name, DW_FORM_indirect, &implicit), InvalidImplicitConst.into());
    for (form, value) in
        [(DW_FORM_block2, &[9, 0][..]), (DW_FORM_addr, &[1]), (DW_FORM_string, b"a")]
    {
        assert!(matches!(v4(DW_AT_location, form, value), Why::Unreadable(UnexpectedEof(_))));
    }
    let index = attribute(5, DW_AT_ranges, DW_FORM_rnglistx, &[0]);
    assert!(matches!(index, (".debug_info", 13, Why::Unknown(_))), "{index:?}");
    let list = attribute(4, DW_AT_location, DW_FORM_sec_offset, &[7, 0, 0, 0]);
    assert!(matches!(list, (".debug_loc", 7, Why::Unreadable(UnexpectedEof(_)))), "{list:?}");

    // Lists.
    let of_list = |name, section, list: &[u8]| {
        let sections = entries(5, &[&[], &[(name, DW_FORM_sec_offset, &[1, 0, 0, 0])]]);
        let (found, offset, why) = sections.with(section, list).error();
        assert_eq!((found, offset), (section, 1));
        why
    };
    let why = of_list(DW_AT_ranges, ".debug_rnglists", &[0, 8]);
    assert_eq!(why, UnknownRangeListsEntry(DwRle(8)).into());
    let why = of_list(DW_AT_location, ".debug_loclists", &[0, 10]);
    assert_eq!(why, UnknownLocListsEntry(DwLle(10)).into());

    // Units.
    let error = |name: &str, bytes: &[u8]| sections(&[(name, bytes)]).error();
    assert_eq!(error(info, &unit(6, 0, &[])), (info, 0, UnknownVersion(6).into()));
    let why = InvalidAbbreviationCode(1).into();
    assert_eq!(error(info, &unit(4, 0, &[0, 1])), (info, 12, why));
    let mut narrow = unit(4, 0, &[0]);
    narrow[10] = 4;
    let why = Why::Unknown("addresses are not of eight bytes");
    assert_eq!(error(info, &narrow), (info, 0, why));
    let mut skeleton = unit(5, 0, &[0; 9]);
    skeleton[6] = DW_UT_skeleton.0;
    assert_eq!(error(info, &skeleton), (info, 0, Why::Split));
    let twice: &[u8] = &[1, 0x2e, 0, 0, 0, 1, 0x2e, 0, 0, 0, 0];
    let doubled = sections(&[(info, &unit(4, 0, &[0])), (".debug_abbrev", twice)]).error();
    assert_eq!(doubled, (".debug_abbrev", 0, DuplicateAbbreviationCode(1).into()));
    let two = sections(&[(".debug_addr", &[]), (".debug_addr", &[])]).error();
    assert!(matches!(two, (".debug_addr", 0, Why::Unknown(_))));

    // The other sections: a good record, then a bad one.
    let lines = |operands: &[u8], program: &[u8]| {
        let header = [&[1, 1, 1, 0xfb, 14, operands.len() as u8 + 1][..], operands].concat();
        let len = (header.len() as u32).to_le_bytes();
        record(&[&[4, 0][..], &len, &header, program].concat())
    };
    let good =
        lines(&STANDARD_OPERANDS, &[&[0, 9, 2][..], &ADDR, &[9, 1, 2, 0x30, 0, 1, 1]].concat());
    assert_eq!(sections(&[(".debug_line", &good)]).places(), [good.len() as u32 - 15]);
    for bad in [
        lines(&[1; 12], &[]),
        lines(&STANDARD_OPERANDS, &[0, 5, 2, 1, 2, 3, 4]),
        lines(&STANDARD_OPERANDS, &[0, 0]),
        lines(&STANDARD_OPERANDS, &[2, 0x80]),
        record(&[6, 0]),
    ] {
        let (section, offset, _) = error(".debug_line", &[&good[..], &bad].concat());
        assert_eq!((section, offset), (".debug_line", good.len()));
    }
    let tuples = [ADDR, [9, 0, 0, 0, 0, 0, 0, 0], [0; 8], [0; 8]].concat();
    let good = record(&[&[2, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0][..], &tuples].concat());
    assert_eq!(sections(&[(".debug_aranges", &good)]).places(), [16]);
    for bad in [
        record(&[&[2, 0, 0, 0, 0, 0, 8, 0][..], &tuples].concat()),
        record(&[&[2, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0][..], &tuples].concat()),
        record(&[&[3, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0][..], &tuples].concat()),
    ] {
        let (section, offset, _) = error(".debug_aranges", &[&good[..], &bad].concat());
        assert_eq!((section, offset), (".debug_aranges", good.len()));
    }
    let good = record(&[&[5, 0, 8, 0][..], &ADDR, &[0; 8], &ADDR].concat());
    assert_eq!(sections(&[(".debug_addr", &good)]).places(), [8, 24]);
    for bad in [
        record(&[&[4, 0, 8, 0][..], &ADDR].concat()),
        record(&[&[5, 0, 8, 1][..], &ADDR].concat()),
        record(&[&[5, 0, 8, 0][..], &ADDR[1..]].concat()),
    ] {
        let (section, offset, _) = error(".debug_addr", &[&good[..], &bad].concat());
        assert_eq!((section, offset), (".debug_addr", good.len()));
    }
}

#[test]
fn addresses_that_overlap_are_an_error() {
    // Two lists: the second begins inside the address that the first begins with.
    let list = [5, 5, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0];
    assert_eq!(DwRle(list[0]), DW_RLE_base_address);
    let at = |offset: &'static [u8]| [(DW_AT_ranges, DW_FORM_sec_offset, offset)];
    let (first, second) = (at(&[0; 4]), at(&[1, 0, 0, 0]));
    let one = entries(5, &[&[], &first]).with(".debug_rnglists", &list);
    assert_eq!(one.find().unwrap().sections[2].1, [1]);
    let both = entries(5, &[&[], &first, &second]).with(".debug_rnglists", &list);
    assert_eq!(both.error(), (".debug_rnglists", 2, Why::Unknown("two addresses overlap")));
}

#[test]
fn call_frames_are_read_to_their_last_instruction() {
    let cie = |letters: &[u8], instructions: &[u8]| {
        record(
            &[&[0xff, 0xff, 0xff, 0xff, 1][..], letters, &[0, 1, 0x78, 16], instructions].concat(),
        )
    };
    let fde = |instructions: &[u8]| record(&[&[0; 4][..], &ADDR, &[9; 8], instructions].concat());
    let expression = [&[DW_CFA_def_cfa_expression.0, 9, DW_OP_addr.0][..], &ADDR].concat();
    let set = [&[DW_CFA_set_loc.0][..], &ADDR].concat();
    let plain: &[u8] =
        &[0x0c, 7, 8, 0x90, 1, 0x41, 0xc3, 2, 1, 3, 1, 2, 4, 1, 2, 3, 4, 0x2e, 0x10, 0];
    let first = cie(b"S", plain);
    let start = first.len() as u32;
    let all = [first, fde(&[plain, &expression, &set, plain].concat())].concat();
    let instructions = start + 8 + 16 + plain.len() as u32;
    let places = [start + 8, instructions + 3, instructions + 12];
    assert_eq!(sections(&[(".debug_frame", &all)]).places(), places);
    for bad in [cie(b"zR", &[]), cie(b"", &[0x3f]), fde(&[0x0c, 7]), record(&[0; 11])] {
        let (section, offset, _) =
            sections(&[(".debug_frame", &[&all[..], &bad].concat())]).error();
        assert_eq!((section, offset), (".debug_frame", all.len()));
    }
}

#[test]
fn split_dwarf_is_known_as_such() {
    let scratch = Scratch::new("split");
    for (compiler, version) in [("gcc", "-gdwarf-4"), ("gcc", "-gdwarf-5"), ("clang", "-gdwarf-5")]
    {
        let source = source_file("places.c");
        scratch.run(
            compiler,
            &[version, "-gsplit-dwarf", "-fPIC", "-shared", "-o", "zero.so", &source],
        );
        assert_eq!(scratch.zero().find().unwrap_err().why, Why::Split, "{compiler} {version}");
    }
}

/// Numbers that look random and are the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn damaged_sections_are_an_error_or_have_addresses_in_them_and_never_take_long() {
    const ROUNDS: usize = 3000;
    let scratch = Scratch::new("damaged");
    let mut random = Random(1);
    let (mut errors, mut slowest) = (0, std::time::Duration::ZERO);
    for (compiler, sources, version) in
        [("gcc", C, "-gdwarf-3"), ("clang", C, "-gdwarf-4"), ("g++", CXX, "-gdwarf-5")]
    {
        let compile = &[version, "-O2", "-fdebug-types-section"];
        let compile = if compiler == "clang" { &compile[..2] } else { compile };
        scratch.check(&Case { compiler, sources, linker: "lld", compile, link: &[] });
        let mut whole = scratch.zero();
        whole.0.retain(|(name, _)| Section::named(name).is_some());
        for _ in 0..ROUNDS {
            let mut damaged = whole.clone();
            for _ in 0..=random.below(4) {
                let index = random.below(damaged.0.len());
                let contents = &mut damaged.0[index].1;
                if contents.is_empty() {
                    continue;
                }
                let at = random.below(contents.len());
                match random.below(8) {
                    0 => contents.truncate(at),
                    1 => contents[at..].fill(0xff),
                    2 => contents[at..].fill(0),
                    3 => {
                        contents.remove(at);
                    }
                    4 => contents[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
                    _ => contents[at] ^= 1 << random.below(8),
                }
            }
            let start = std::time::Instant::now();
            match damaged.find() {
                // Places outside of their section would panic.
                Ok(addresses) => {
                    for (index, (_, contents)) in damaged.0.iter_mut().enumerate() {
                        let before = contents.clone();
                        addresses.relocate(index, contents, bias());
                        let places = &addresses.sections[index].1;
                        for &place in places {
                            let place = place as usize..place as usize + 8;
                            contents[place.clone()].copy_from_slice(&before[place]);
                        }
                        assert_eq!(*contents, before);
                    }
                }
                Err(error) => {
                    errors += 1;
                    assert_ne!(error.to_string(), "");
                }
            }
            slowest = slowest.max(start.elapsed());
        }
    }
    println!("{errors} errors in {} rounds, the slowest took {slowest:?}", 3 * ROUNDS);
    assert!(errors > ROUNDS && errors < 3 * ROUNDS, "{errors}");
    assert!(slowest.as_millis() < 1000, "{slowest:?}");
}

/// Reads sections made to take forever, in little time.
fn assert_quick(sections: &Sections, what: &str) {
    let start = std::time::Instant::now();
    let result = sections.find();
    let elapsed = start.elapsed();
    let bytes: usize = sections.0.iter().map(|(_, contents)| contents.len()).sum();
    println!("{what}: {bytes} bytes, {elapsed:?}: {:?}", result.map(|found| found.count()));
    // Under a debugger's build, on a busy machine: what is quadratic takes hours.
    assert!(elapsed.as_secs() < 10, "{what}: {elapsed:?}");
}

#[test]
fn lies_do_not_take_forever() {
    const MUCH: usize = 1 << 20;
    // Attributes that take no room, on entries that are only a code.
    for name in [DW_AT_external, DW_AT_location] {
        let mut table = vec![1, 0x34, 0];
        table.extend([name.0 as u8, DW_FORM_flag_present.0 as u8].repeat(MUCH));
        table.extend([0, 0, 0]);
        let info = unit(3, 0, &vec![1; MUCH]);
        assert_quick(&sections(&[(".debug_info", &info), (".debug_abbrev", &table)]), "flags");
    }

    // A unit for each suffix of a table, which is as long as all of them.
    let (mut table, mut starts) = (vec![], vec![]);
    for code in 1..MUCH as u64 / 8 {
        starts.push(table.len() as u32);
        table.extend([uleb(code), vec![0x34, 0, 0, 0]].concat());
    }
    let info: Vec<u8> = starts.iter().flat_map(|&start| unit(4, start, &[0])).collect();
    assert_quick(&sections(&[(".debug_info", &info), (".debug_abbrev", &table)]), "suffixes");

    // A unit for each version in turn, all with one table.
    let info: Vec<u8> = (0..MUCH / 16).flat_map(|n| unit(2 + (n % 4) as u8, 0, &[0])).collect();
    assert_quick(&sections(&[(".debug_info", &info), (".debug_abbrev", &table)]), "versions");

    // Lists that all end in the same entries.
    for (version, entry) in
        [(4, 1u64.to_le_bytes().repeat(2)), (5, vec![DW_RLE_offset_pair.0, 1, 1])]
    {
        let table = [1, 0x34, 0, DW_AT_ranges.0 as u8, DW_FORM_sec_offset.0 as u8, 0, 0, 0];
        let refer = |n: u32| [&[1][..], &(n * entry.len() as u32).to_le_bytes()].concat();
        let info: Vec<u8> = (0..MUCH as u32 / 16).flat_map(refer).collect();
        let list = [entry.repeat(MUCH / 16 + 9), vec![0; 16]].concat();
        let sections =
            sections(&[(".debug_info", &unit(version, 0, &info)), (".debug_abbrev", &table)]);
        let sections = sections.with(".debug_ranges", &list).with(".debug_rnglists", &list);
        assert_quick(&sections, "lists");
        assert_eq!(sections.error().2, Why::Unknown("lists overlap"));
    }

    // Expressions inside expressions.
    let mut reversed: Vec<u8> = vec![];
    while reversed.len() < MUCH {
        let mut head = vec![DW_OP_entry_value.0];
        head.extend(uleb(reversed.len() as u64));
        reversed.extend(head.iter().rev());
    }
    reversed.reverse();
    let location = [uleb(reversed.len() as u64), reversed].concat();
    let deep = entries(4, &[&[(DW_AT_location, DW_FORM_exprloc, &location)]]);
    assert_quick(&deep, "deep");
    assert!(deep.find().is_ok());

    // Chains of forms.
    let chain = DW_FORM_indirect.0 as u8;
    let forms = entries(4, &[&[(DW_AT_location, DW_FORM_indirect, &vec![chain; MUCH])]]);
    assert_quick(&forms, "indirect");
}
