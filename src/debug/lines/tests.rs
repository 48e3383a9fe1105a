//! Compares the results with those of the crate addr2line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use addr2line::gimli::{self as reference, EndianArcSlice, LittleEndian as Little};

use super::*;

/// The debug sections of a file. They must not be compressed.
fn debug_sections(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let elf = goblin::elf::Elf::parse(bytes).unwrap();
    let sections = elf.section_headers.iter().filter_map(|header| {
        let name = elf.shdr_strtab.get_at(header.sh_name)?;
        let name = Dwarf::SECTIONS.into_iter().find(|&it| it == name)?;
        assert_eq!(header.sh_flags & 0x800, 0, "compressed");
        Some((name, bytes[header.file_range()?].to_vec()))
    });
    sections.collect()
}

/// The ranges of a file's code.
fn code(bytes: &[u8]) -> Vec<Range<u64>> {
    let elf = goblin::elf::Elf::parse(bytes).unwrap();
    let code = elf.section_headers.iter().filter(|header| header.is_executable());
    code.map(|header| header.sh_addr..header.sh_addr + header.sh_size).collect()
}

fn dwarf(bytes: &[u8]) -> Dwarf {
    let sections = debug_sections(bytes);
    let stored = sections.iter().map(|(_, contents)| contents.len() as u64).sum();
    Dwarf::new(sections, stored)
}

struct Reference(addr2line::Context<EndianArcSlice<Little>>);

impl Reference {
    fn new(bytes: &[u8]) -> Reference {
        let mut sections: BTreeMap<_, _> = debug_sections(bytes).into_iter().collect();
        let dwarf = reference::Dwarf::load(|id| {
            let contents = sections.remove(id.name()).unwrap_or_default();
            Ok::<_, reference::Error>(EndianArcSlice::new(contents.into(), Little))
        });
        Reference(addr2line::Context::from_dwarf(dwarf.unwrap()).unwrap())
    }

    fn frames(&self, address: u64) -> Vec<SourceFrame> {
        let mut expected = Vec::new();
        let Ok(mut frames) = self.0.find_frames(address).skip_all_loads() else { return expected };
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            let numbers = location.map(|it| [it.line, it.column]).unwrap_or_default();
            let [line, column] = numbers.map(|number| number.filter(|&number| number > 0));
            let function = frame.function.and_then(|it| Some(it.raw_name().ok()?.into_owned()));
            expected.push(SourceFrame {
                function: function.filter(|name| !name.is_empty()),
                file: location.and_then(|location| location.file).map(str::to_owned),
                line,
                column,
            });
        }
        expected
    }

    fn lines(&self, range: Range<u64>) -> Vec<Line> {
        let locations = self.0.find_location_range(range.start, range.end).unwrap();
        let line = |(address, _, location): (u64, u64, addr2line::Location<'_>)| {
            let (file, line) = (location.file?.to_owned(), location.line?);
            Some(Line { address: Vaddr(address.max(range.start)), file, line })
        };
        locations.filter_map(line).collect()
    }
}

/// Compares the results for about `count` addresses of a file. Returns how many have a function, and how
/// many an inlined one.
fn compare(name: &str, bytes: &[u8], count: u64) -> (u64, u64) {
    let (start, reference) = (Instant::now(), Reference::new(bytes));
    let total: u64 = code(bytes).iter().map(|range| range.end - range.start).sum();
    let step = total / count + 1;
    let addresses: Vec<u64> =
        code(bytes).into_iter().flat_map(|range| range.step_by(step as usize)).collect();
    let expected: Vec<_> = addresses.iter().map(|&address| reference.frames(address)).collect();
    let (theirs, start, mut dwarf) = (start.elapsed(), Instant::now(), dwarf(bytes));
    let found: Vec<_> = addresses.iter().map(|&address| dwarf.frames(Vaddr(address))).collect();
    let first = start.elapsed();
    let start = Instant::now();
    let again: Vec<_> = addresses.iter().map(|&address| dwarf.frames(Vaddr(address))).collect();
    println!(
        "{name}: {} addresses, {theirs:?} by addr2line, {first:?}, again {:?}; {:?}",
        addresses.len(),
        start.elapsed(),
        dwarf.budget
    );
    assert!(found == again && !dwarf.is_cut_short(), "{name}");
    let differ: Vec<_> = addresses
        .iter()
        .zip(found.iter().zip(&expected))
        .filter(|(_, (found, expected))| found != expected)
        .collect();
    assert!(differ.is_empty(), "{name}: {}: {:#x?}", differ.len(), &differ[..1]);
    for address in addresses.iter().step_by(addresses.len() / 50 + 1) {
        let range = *address..address + 3000;
        let found = dwarf.lines(Vaddr(range.start)..Vaddr(range.end));
        assert_eq!(found, reference.lines(range), "{name}");
    }
    let with = |functions: usize| found.iter().filter(|it| it.len() >= functions).count() as u64;
    (with(1), with(2))
}

/// A built library, in a temporary folder of its own.
struct Built(PathBuf);

impl Built {
    fn new(tool: &str, source: &str, flags: &[&str]) -> Built {
        let unique = format!("memdl-lines-{}-{:p}", std::process::id(), &source);
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        let output = folder.join("built.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testlibs").join(source);
        let shared: &[&str] = match tool {
            "rustc" => &["--crate-type", "cdylib", "--edition", "2024"],
            "go" => &["build", "-buildmode=c-shared"],
            _ => &["-shared", "-fPIC"],
        };
        let mut command = Command::new(tool);
        command.args(shared).args(flags).arg("-o").arg(&output);
        command.env("GO111MODULE", "off").env("GOFLAGS", "").env("CGO_ENABLED", "1");
        run(command.arg(source).current_dir(&folder));
        Built(output)
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        let tool: &OsStr = command.get_program();
        panic!("cannot run {tool:?}: {error}; `sh tests/setup.sh` installs what tests need")
    });
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn results_equal_those_of_addr2line() {
    let libraries: [(&str, &str, &[&str]); 17] = [
        ("gcc", "debug/clib.c", &["-g", "-O0", "-gdwarf-2", "-gstrict-dwarf"]),
        ("gcc", "debug/clib.c", &["-g", "-O2", "-gdwarf-3"]),
        ("gcc", "debug/clib.c", &["-g", "-O2", "-gdwarf-4", "-ffunction-sections"]),
        ("gcc", "debug/clib.c", &["-g", "-O2", "-gdwarf-5", "-gdwarf64"]),
        ("gcc", "debug/clib.c", &["-g", "-O2", "-gsplit-dwarf"]),
        ("clang", "debug/clib.c", &["-g", "-O1", "-gdwarf-5"]),
        ("clang", "debug/clib.c", &["-g", "-O2", "-gdwarf-4", "-gsplit-dwarf"]),
        ("g++", "debug/cpplib.cc", &["-g", "-O2", "-gdwarf-4", "-fdebug-types-section"]),
        ("g++", "debug/containers.cc", &["-g", "-O2", "-gdwarf-5"]),
        ("g++", "debug/containers.cc", &["-g", "-O3", "-flto", "-gdwarf-3"]),
        ("clang++", "debug/containers.cc", &["-std=c++17", "-g", "-O2", "-flto", "-fuse-ld=lld"]),
        ("clang++", "debug/inline.cc", &["-g", "-O2", "-gdwarf-4"]),
        ("g++", "debug/places.cc", &["-g", "-O1", "-Wl,--gc-sections", "-ffunction-sections"]),
        ("gcc", "debug/places.S", &["-g"]),
        ("gfortran", "debug/geometry.f90", &["-g", "-O2"]),
        ("rustc", "debug/rustlib.rs", &["-g", "-O"]),
        ("rustc", "debug/rusttypes.rs", &["-g"]),
    ];
    let mut all_inlined = 0;
    for (tool, source, flags) in libraries {
        let built = Built::new(tool, source, flags);
        let (known, inlined) = compare(&format!("{source} {flags:?}"), &built.bytes(), 1000);
        assert!(known > 0, "{source} {flags:?}");
        all_inlined += inlined;
    }
    assert!(all_inlined > 1000, "{all_inlined}");
}

#[test]
fn results_equal_those_of_addr2line_after_dwz() {
    let built = Built::new("g++", "debug/containers.cc", &["-g", "-O2"]);
    run(Command::new("dwz").arg(&built.0));
    let (known, inlined) = compare("dwz", &built.bytes(), 1000);
    assert!(known > 100 && inlined > 100, "{known} {inlined}");
}

#[test]
fn results_equal_those_of_addr2line_for_a_program_of_go() {
    let flags: &[&str] = &["-ldflags=-compressdwarf=false"];
    let built = Built::new("go", "debug/golib.go", flags);
    let (known, inlined) = compare("go", &built.bytes(), 1000);
    assert!(known > 100 && inlined > 10, "{known} {inlined}");
}

/// The environment variable `MEMDL_LINES_FILES` adds files, separated by colons.
#[test]
fn results_equal_those_of_addr2line_for_this_program() {
    let more = std::env::var("MEMDL_LINES_FILES").unwrap_or_default();
    let more = more.split(':').filter(|file| !file.is_empty()).map(PathBuf::from);
    for file in more.chain(std::env::current_exe()) {
        let bytes = std::fs::read(&file).unwrap();
        let (known, inlined) = compare(&file.display().to_string(), &bytes, 400);
        assert!(known > 10, "{known} {inlined}");
    }
}
