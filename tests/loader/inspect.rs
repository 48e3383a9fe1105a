//! Reports on libraries that are not loaded: compared with what readelf says of the file, and with what a load then
//! comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::machine::OWN;
use crate::common::{assert_agrees, build, bytes, isolated, library_folder, machine, maps, run};
use memdl::{
    DebugInformation, Error, ImportBinding, Imports, LibraryOrigin, Limits, Loader, Report, inspect,
};

/// What readelf says of a file.
fn readelf(flags: &[&str], file: &Path) -> String {
    run(Command::new("readelf").args(flags).arg(file), "binutils")
}

/// A symbol of `readelf --dyn-syms`.
struct Row {
    index: u32,
    value: u64,
    kind: String,
    section: String,
    name: String,
    version: Option<String>,
}

fn dynamic_symbols(file: &Path) -> Vec<Row> {
    let text = readelf(&["--wide", "--dyn-syms"], file);
    let row = |line: &str| {
        let mut parts = line.split_whitespace();
        let index = parts.next()?.strip_suffix(':')?.parse().ok()?;
        let value = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (_size, kind) = (parts.next()?, parts.next()?.to_owned());
        if kind.starts_with('<') {
            // `<OS specific>: 10`, an IFUNC of a file that says nothing of the system.
            parts.nth(1)?;
        }
        let (_binding, _visibility) = (parts.next()?, parts.next()?);
        let mut section = parts.next()?;
        if section.starts_with('[') {
            // `[<other>: 88]`, of another machine.
            parts.next()?;
            section = parts.next()?;
        }
        let name = parts.next().unwrap_or_default();
        let (name, version) = match name.split_once('@') {
            Some((name, version)) => (name, Some(version.trim_start_matches('@').to_owned())),
            None => (name, None),
        };
        let (section, name) = (section.to_owned(), name.to_owned());
        Some(Row { index, value, kind, section, name, version })
    };
    text.lines().filter_map(row).collect()
}

fn assert_is_what_readelf_says(file: &Path) {
    assert_is_what_readelf_says_of(file, OWN.name);
}

pub fn assert_is_what_readelf_says_of(file: &Path, machine: &str) {
    let report = inspect(&fs::read(file).unwrap());
    let what = file.display();
    let dynamic = readelf(&["--wide", "--dynamic"], file);
    let in_brackets = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)")).filter_map(in_brackets);
    let ours = report.needed().iter().filter(|it| it.is_direct()).map(|it| it.name().to_owned());
    assert_eq!(ours.collect::<Vec<_>>(), needed.collect::<Vec<_>>(), "{what}");
    let soname = dynamic.lines().find(|line| line.contains("(SONAME)")).and_then(in_brackets);
    assert_eq!(report.soname().map(str::to_owned), soname, "{what}");
    assert_eq!(report.is_nodelete(), dynamic.contains("NODELETE"), "{what}");

    let notes = readelf(&["--wide", "--notes"], file);
    let id = notes.lines().find_map(|line| Some(line.split_once("Build ID: ")?.1.trim()));
    let ours = report.build_id().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
    assert_eq!(ours, id.map(str::to_owned), "{what}");

    let rows = dynamic_symbols(file);
    let functions = rows.iter().filter(|row| row.kind == "FUNC");
    let functions = functions.map(|row| (row.index, row.value, row.section != "UND", &*row.name));
    let ours = report.functions().iter();
    let ours = ours.map(|it| (it.index(), it.value(), it.is_defined(), it.name()));
    assert_eq!(ours.collect::<Vec<_>>(), functions.collect::<Vec<_>>(), "{what}");
    let undefined = rows.iter().filter(|row| row.section == "UND" && row.index != 0);
    let undefined = undefined.map(|row| (row.index, &*row.name, row.version.as_deref()));
    let ours = report.imports().iter().map(|it| (it.index(), it.name(), it.version()));
    assert_eq!(ours.collect::<Vec<_>>(), undefined.collect::<Vec<_>>(), "{what}");
    for export in report.exports() {
        let row = rows.iter().find(|row| row.index == export.index()).unwrap();
        assert_eq!((export.name(), export.value()), (&*row.name, row.value), "{what}");
        if row.section != "ABS" {
            assert_eq!(export.version(), row.version.as_deref(), "{what}: {}", row.name);
        }
    }
    let versions = readelf(&["--wide", "--version-info"], file);
    let named =
        |line: &str| Some(line.split_once("Name: ")?.1.split_whitespace().next()?.to_owned());
    let of_needs = versions.split_once("Version needs section").map_or("", |it| it.1);
    let needed: BTreeSet<String> = of_needs.lines().filter_map(named).collect();
    let ours: BTreeSet<String> =
        report.needed_versions().iter().map(|it| it.version().to_owned()).collect();
    assert_eq!(ours, needed, "{what}");
    let sections = readelf(&["--wide", "--section-headers"], file);
    let has = |name: &str| sections.contains(name);
    let kinds = report.debug_information();
    let is_dwarf = |it: &DebugInformation| matches!(it, DebugInformation::Dwarf { .. });
    assert_eq!(kinds.iter().any(is_dwarf), has(" .debug_info "), "{what}");
    assert_eq!(kinds.contains(&DebugInformation::SymbolTable), has(" .symtab "), "{what}");
    let is_link = |it: &DebugInformation| matches!(it, DebugInformation::Link { .. });
    assert_eq!(kinds.iter().any(is_link), has(" .gnu_debuglink "), "{what}");
    assert_eq!(report.thread_local_storage().is_some(), has("WAT"), "{what}");
    assert_eq!(report.machine(), Some(machine), "{what}");
    let relocations = readelf(&["--wide", "--relocs"], file);
    let types = relocations.lines().filter_map(|line| line.split_whitespace().nth(2));
    let mut counts = BTreeMap::new();
    for name in types.filter(|name| name.starts_with("R_")) {
        *counts.entry(name).or_insert(0) += 1;
    }
    // Of the compact table readelf lists the places.
    let compact = relocations.split("'.relr.dyn'").nth(1).and_then(|it| it.split("\n\n").next());
    let count = |line: &str| line.split_whitespace().count() == 1 && !line.contains("ffset");
    let compact = compact.map_or(0, |it| it.lines().filter(|line| count(line)).count());
    let ours = report.relocation_types().iter();
    let compact_is_in = |it: &memdl::RelocationType| it.name.ends_with("_RELATIVE");
    let ours =
        ours.map(|it| (it.name, it.count - if compact_is_in(it) { compact as u64 } else { 0 }));
    assert!(
        ours.filter(|it| it.1 > 0).eq(by_number(&report, &counts)),
        "{what}: {counts:?}\n{report}"
    );
}

/// Counts of relocations by name, in the order of the report.
fn by_number<'r>(
    report: &'r Report,
    counts: &BTreeMap<&str, u64>,
) -> impl Iterator<Item = (&'static str, u64)> + use<'r> {
    let total: u64 = counts.values().sum();
    let found: Vec<_> = report
        .relocation_types()
        .iter()
        .filter_map(|it| Some((it.name, *counts.get(it.name)?)))
        .collect();
    assert_eq!(found.iter().map(|it| it.1).sum::<u64>(), total, "{counts:?}\n{report}");
    found.into_iter()
}

/// Libraries of the system: small and large, in C, C++ and Fortran, with thread-local variables and without.
const LIBRARIES: &[&str] = &[
    "libc.so.6",
    "libm.so.6",
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libz.so.1",
    "libcrypto.so.3",
    "libssl.so.3",
    "libsqlite3.so.0",
    "libpython3.11.so.1.0",
    "libgomp.so.1",
    "libasan.so.8",
];

#[test]
fn reports_say_what_readelf_says() {
    let mut count = 0;
    for name in LIBRARIES {
        let file = library_folder().join(name);
        if file.exists() {
            assert_is_what_readelf_says(&fs::canonicalize(file).unwrap());
            count += 1;
        }
    }
    assert!(count > 4, "{count}");
    for flags in [&["-g"][..], &["-g", "-gsplit-dwarf"], &["-Wl,--hash-style=sysv"], &["-s"]] {
        assert_is_what_readelf_says(&build("gcc", "testlibs/foo.c", flags));
    }
}

/// The libraries of the distribution in a folder, by name.
fn system_files(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_library = |path: &PathBuf| path.to_string_lossy().contains(".so") && path.is_file();
    let files: BTreeSet<PathBuf> =
        files.filter(is_library).filter_map(|path| fs::canonicalize(path).ok()).collect();
    files.into_iter().collect()
}

/// Libraries whose constructors do what a test process does not survive, or that run for seconds.
const LEFT_OUT: [&str; 4] = ["libasan", "libtsan", "liblsan", "libhwasan"];

/// Inspects each file, then prepares it, and compares.
fn assert_all_agree(files: &[PathBuf]) -> (usize, usize) {
    let (mut loaded, mut refused) = (0, 0);
    for file in files {
        let name = file.to_str().unwrap();
        let bytes = fs::read(file).unwrap();
        if LEFT_OUT.iter().any(|it| name.contains(it)) {
            continue;
        }
        let loader = Loader::new().name(name).debug(memdl::DebugLevel::Off);
        let report = loader.inspect(&bytes);
        // SAFETY: libraries of the distribution.
        let prepared = unsafe { loader.prepare(&bytes) };
        assert_agrees(&report, &prepared, name);
        match prepared {
            Ok(_) => loaded += 1,
            Err(_) => refused += 1,
        }
    }
    (loaded, refused)
}

/// `MEMDL_TEST_FOLDER` names another folder, all of which is compared.
#[test]
fn reports_on_the_libraries_of_the_distribution_agree_with_loads() {
    isolated(|| {
        let folder = std::env::var("MEMDL_TEST_FOLDER");
        let mut files = system_files(folder.as_deref().unwrap_or("/usr/lib/x86_64-linux-gnu"));
        if folder.is_err() {
            // What they need is opened and stays: not all in one process.
            files = files.into_iter().step_by(12).take(60).collect();
        }
        let (loaded, refused) = assert_all_agree(&files);
        println!("{loaded} load, {refused} are refused");
        assert!(folder.is_ok() || loaded > 20, "{loaded} load, {refused} are refused");
    });
}

/// The directory flags with which a library needs `dep.so` in the folder of that library.
fn linked_to(dep: &Path) -> Vec<String> {
    let folder = dep.parent().unwrap().display();
    let name = dep.file_name().unwrap().to_str().unwrap();
    vec![format!("-L{folder}"), format!("-l:{name}"), format!("-Wl,-rpath,{folder}")]
}

fn build_linked(source: &str, dep: &Path, more: &[&str]) -> PathBuf {
    let linked = linked_to(dep);
    let flags: Vec<&str> = more.iter().copied().chain(linked.iter().map(String::as_str)).collect();
    build("gcc", source, &flags)
}

pub fn binding<'r>(report: &'r Report, name: &str) -> &'r ImportBinding {
    let import = report.imports().iter().find(|it| it.name() == name);
    import.unwrap_or_else(|| panic!("no import {name}: {report}")).binding()
}

pub fn origin<'r>(report: &'r Report, name: &str) -> &'r LibraryOrigin {
    let library = report.needed().iter().find(|it| it.name() == name);
    library.unwrap_or_else(|| panic!("no library {name}: {report}")).origin()
}

extern "C" fn supplied() -> i32 {
    5
}

/// A needed library would be opened from its file, and its exports are known. Its constructor and its resolver, which
/// end the process, do not run; nothing stays.
#[test]
fn imports_are_bound_without_opening_or_running_anything() {
    isolated(|| {
        let dep = build("gcc", "testlibs/inspect/dep.c", &["-DFATAL"]);
        let file = build_linked("testlibs/inspect/reader.c", &dep, &["-Wl,--no-as-needed", "-lz"]);
        let bytes = fs::read(&file).unwrap();
        let supplied = supplied as extern "C" fn() -> i32 as *const std::ffi::c_void;
        let loader = Loader::new().name("reader").define("supplied", supplied);
        let files =
            || maps().into_iter().map(|line| line.name).filter(|name| name.starts_with('/'));
        let before: Vec<String> = files().collect();
        let report = loader.inspect(&bytes);
        assert_eq!(files().collect::<Vec<_>>(), before);
        assert!(!report.is_refused(), "{report}");

        let path: std::sync::Arc<str> = dep.to_str().unwrap().into();
        let dep_name = dep.file_name().unwrap().to_str().unwrap();
        assert!(
            matches!(origin(&report, dep_name), LibraryOrigin::File { path: found, .. } if *found == path),
            "{report}"
        );
        let is_libz = |path: &str| path.contains("libz.so.1");
        assert!(
            matches!(origin(&report, "libz.so.1"), LibraryOrigin::File { path, .. } if is_libz(path)),
            "{report}"
        );
        assert!(
            matches!(origin(&report, "libc.so.6"), LibraryOrigin::InProcess { path, .. } if path.contains("libc.so.6")),
            "{report}"
        );
        let is_of = |import: &str, library: &str| match binding(&report, import) {
            ImportBinding::Library { path, .. } => path.contains(library),
            other => panic!("{import}: {other}"),
        };
        assert!(is_of("dep", dep_name) && is_of("getenv", "libc.so.6"), "{report}");
        assert_eq!(*binding(&report, "supplied"), ImportBinding::Defined);
        assert_eq!(*binding(&report, "nowhere"), ImportBinding::Null);
        assert!(matches!(binding(&report, "dlsym"), ImportBinding::Replaced { .. }), "{report}");
        let tls = report.thread_local_storage().unwrap();
        assert_eq!((tls.size, tls.is_static), (4, false));
        assert!(report.unloads() && !report.has_unique_symbols() && report.is_complete());
        let text = report.to_string();
        assert!(text.contains("can be loaded") && text.contains(&*path), "{text}");

        // SAFETY: the constructor is that of `dep`, which is not loaded: it is forbidden.
        let refused = unsafe { loader.clone().system_libraries(false).load(&bytes) };
        let report = loader.clone().system_libraries(false).inspect(&bytes);
        assert_agrees(&report, &refused, "without system libraries");
        assert_eq!(*binding(&report, "dep"), ImportBinding::Unknown);
        assert!(
            matches!(origin(&report, dep_name), LibraryOrigin::Missing { reason, .. } if reason.contains("system_libraries(false)"))
        );
    });
}

#[test]
fn what_the_caller_supplies_counts() {
    let dep = build("gcc", "testlibs/inspect/dep.c", &[]);
    let dep_name = dep.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = fs::read(build_linked("testlibs/inspect/reader.c", &dep, &[])).unwrap();
    let host: Loader = Loader::new().name("reader").system_libraries(false);
    let missing = host.inspect(&bytes);
    assert_eq!(missing.refusals().len(), 1, "{missing}");
    assert!(
        matches!(&missing.refusals()[0], Error::Missing { libraries, .. } if libraries[0].name == dep_name)
    );

    let loader = host
        .provide(dep_name.clone(), fs::read(&dep).unwrap())
        .resolver(|request| (request.name() == "supplied").then_some(supplied as *const _))
        .imports(Imports::deny(["getenv"]));
    let report = loader.inspect(&bytes);
    assert!(matches!(origin(&report, &dep_name), LibraryOrigin::Bytes { .. }), "{report}");
    assert!(
        matches!(binding(&report, "dep"), ImportBinding::Image { name, .. } if **name == *dep_name)
    );
    assert_eq!(*binding(&report, "supplied"), ImportBinding::Resolver);
    assert_eq!(*binding(&report, "getenv"), ImportBinding::Refused);
    assert!(
        matches!(report.refusals(), [Error::RefusedImports { symbols, .. }] if symbols[0].name == "getenv")
    );
    // SAFETY: it is refused.
    assert_agrees(&report, &unsafe { loader.load(&bytes) }, "a denied import");
    let verified = loader.verify(|image| match image.name() {
        "reader" => Err("not signed".into()),
        _ => Ok(()),
    });
    let reasons: Vec<String> =
        verified.inspect(&bytes).refusals().iter().map(Error::to_string).collect();
    assert!(reasons[0].contains("not signed") && reasons[1].contains("getenv"), "{reasons:?}");
}

/// A load says the first; a report says all.
#[test]
fn every_reason_is_listed() {
    let dep = build("gcc", "testlibs/inspect/dep.c", &[]);
    let flags = ["-Wl,-z,execstack", "-Wl,-z,nodlopen", "-Wl,--no-as-needed"];
    let bytes = fs::read(build_linked("testlibs/inspect/faulty.c", &dep, &flags)).unwrap();
    let mut limits = Limits::default();
    limits.image_bytes = 100;
    let loader = Loader::new().name("faulty").limits(limits).system_libraries(false);
    let report = loader.inspect(&bytes);
    let reasons: Vec<String> = report.refusals().iter().map(Error::to_string).collect();
    let expected = ["limit exceeded", "executable stack", "nodlopen", "needs libraries"];
    assert_eq!(reasons.len(), expected.len(), "{reasons:#?}");
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.starts_with("faulty: ") && reason.contains(expected), "{reasons:#?}");
    }
    assert_eq!(*binding(&report, "missing_function"), ImportBinding::Unknown);

    let flags = ["-Wl,-z,execstack", "-Wl,-z,nodlopen"];
    let mut bytes = bytes_of_faulty(&flags);
    let report = Loader::new().name("faulty").inspect(&bytes);
    let reasons: Vec<String> = report.refusals().iter().map(Error::to_string).collect();
    assert_eq!(reasons.len(), 3, "{reasons:#?}");
    assert!(reasons[2].contains("missing_function") && reasons[2].contains("missing_variable"));
    assert_eq!(*binding(&report, "missing_function"), ImportBinding::Missing);
    // One that only executables have is one more, and the missing symbols are still there.
    let relative = relocation(&bytes, machine::RELATIVE.number);
    bytes[relative + 8..relative + 12].copy_from_slice(&machine::COPY.number.to_le_bytes());
    let report = Loader::new().name("faulty").inspect(&bytes);
    let reasons: Vec<String> = report.refusals().iter().map(Error::to_string).collect();
    assert_eq!(reasons.len(), 4, "{reasons:#?}");
    assert!(reasons[2].contains(machine::COPY.name) && reasons[3].contains("missing_function"));
}

fn bytes_of_faulty(flags: &[&str]) -> Vec<u8> {
    bytes("gcc", "testlibs/inspect/faulty.c", flags)
}

/// The offset of the first relocation of this type in the file. (Tables of small libraries lie at their addresses.)
pub fn relocation(bytes: &[u8], r_type: u32) -> usize {
    let file = goblin::elf::Elf::parse(bytes).unwrap();
    let rela = &file.dynamic.as_ref().unwrap().info;
    let table = rela.rela..rela.rela + rela.relasz;
    let is_it = |at: &usize| bytes[at + 8..at + 12] == r_type.to_le_bytes();
    table.step_by(24).find(is_it).unwrap()
}

#[test]
fn of_malformed_bytes_the_report_has_what_can_be_read() {
    let whole = bytes("gcc", "testlibs/foo.c", &["-g"]);
    let report = inspect(&whole);
    assert!(!report.is_refused() && report.build_id().is_some());
    for len in (0..whole.len()).step_by(97) {
        let cut = inspect(&whole[..len]);
        assert_eq!(cut.size(), len as u64);
        if cut.is_refused() {
            // SAFETY: it is refused.
            assert_agrees(&cut, &unsafe { Loader::new().load(&whole[..len]) }, "a part");
        }
    }
    // Without section headers, the notes are there; without a dynamic section, too.
    let mut damaged = whole.clone();
    let file = goblin::elf::Elf::parse(&whole).unwrap();
    let dynamic = file.program_headers.iter().find(|it| it.p_type == 2).unwrap();
    damaged[dynamic.p_offset as usize..][..dynamic.p_filesz as usize].fill(0);
    let damaged = inspect(&damaged);
    assert_eq!(damaged.build_id(), report.build_id());
    assert_eq!(damaged.debug_information(), report.debug_information());
    assert!(damaged.is_refused() && damaged.exports().is_empty());
}

#[test]
fn more_static_thread_local_storage_than_there_is_is_a_reason() {
    isolated(|| {
        let bytes = bytes("gcc", "testlibs/inspect/large_tls.c", &[]);
        let report = inspect(&bytes);
        assert!(report.thread_local_storage().unwrap().is_static);
        // SAFETY: a test library.
        let loaded = unsafe { Loader::new().load(&bytes) };
        assert!(loaded.is_err());
        assert_eq!(report.refusals().len(), 1, "{report}");
        // The numbers are those of the moment.
        assert!(matches!(report.refusals()[0], Error::Limit { .. }), "{report}");
    });
}

#[test]
fn marks_against_unloading_are_facts() {
    let kept = inspect(&bytes("gcc", "testlibs/foo.c", &["-Wl,-z,nodelete"]));
    assert!(kept.is_nodelete() && !kept.unloads() && !kept.is_refused());
    let text = kept.to_string();
    assert!(text.contains("DF_1_NODELETE"), "{text}");
}
