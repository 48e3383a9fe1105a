//! Loading is right: segments and protections, linkers, symbols, relocations, thread-local storage,
//! initialisation and what is left when an image goes. `dlopen` of the same file is the reference
//! wherever it can be asked the same question.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;

use crate::common::{
    AnyWay, MapsLine, Opened, build, bytes, call_run, can_link, has_linker, is_sanitized, isolated,
    isolated_output, linkers, load_and_run, machine, maps, notes, repository, system_library,
};
use goblin::elf::Elf;
use goblin::elf::header::{EI_OSABI, ELFOSABI_GNU, ELFOSABI_NONE};
use goblin::elf::program_header::{PT_GNU_RELRO, PT_LOAD};
use goblin::elf::sym::STB_GNU_UNIQUE;
use libc::{RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use memdl::{Binding, Error, Library, Loader, Scope};

const PAGE: usize = 4096;
type Number = unsafe extern "C" fn() -> c_int;

/// gold has one way to lay code out, and no flag for it.
fn knows(linker: &str, flag: &str) -> bool {
    linker != "gold" || !flag.contains("separate-code")
}

/// Calls an `int name(void)`.
fn number(library: &Library, name: &str) -> c_int {
    // SAFETY: the tests name only functions of this type that have no preconditions.
    unsafe { library.get::<Number>(name).unwrap()() }
}

fn load(bytes: &[u8]) -> Library {
    load_and_run(&Loader::new(), bytes, "load")
}

fn gcc(source: &str, flags: &[&str]) -> Vec<u8> {
    bytes("gcc", &format!("loading/{source}"), flags)
}

/// The protection of every page of `range`, from a listing of the process's mappings.
fn page_access(range: &Range<usize>, maps: &[MapsLine]) -> Vec<String> {
    let of_page = |page: usize| {
        let line = maps.iter().find(|line| line.range.contains(&page));
        line.map_or("unmapped".to_owned(), |line| line.access[..3].to_owned())
    };
    range.clone().step_by(PAGE).map(of_page).collect()
}

/// The protection of every page of an image, from its program headers.
fn stated_access(elf: &Elf<'_>) -> Vec<String> {
    let loads: Vec<_> = elf.program_headers.iter().filter(|ph| ph.p_type == PT_LOAD).collect();
    let start = loads[0].p_vaddr as usize / PAGE * PAGE;
    let last = loads.last().unwrap();
    let end = (last.p_vaddr + last.p_memsz) as usize;
    let relro = elf.program_headers.iter().find(|ph| ph.p_type == PT_GNU_RELRO);
    let relro = relro.map_or(0..0, |ph| {
        ph.p_vaddr as usize / PAGE * PAGE..(ph.p_vaddr + ph.p_memsz) as usize / PAGE * PAGE
    });
    let of_page = |page: usize| {
        if relro.contains(&page) {
            return "r--".to_owned();
        }
        let holds = |ph: &&&goblin::elf::ProgramHeader| {
            page + PAGE > ph.p_vaddr as usize && page < (ph.p_vaddr + ph.p_memsz) as usize
        };
        let Some(ph) = loads.iter().find(holds) else { return "---".to_owned() };
        let letter = |yes: bool, letter: char| if yes { letter } else { '-' };
        let letters = [
            letter(ph.is_read(), 'r'),
            letter(ph.is_write(), 'w'),
            letter(ph.is_executable(), 'x'),
        ];
        letters.iter().collect()
    };
    (start..end).step_by(PAGE).map(of_page).collect()
}

#[test]
fn pages_have_the_protection_that_dlopen_gives_them() {
    let variants: [&[&str]; 6] = [
        &["-Wl,-z,separate-code", "-Wl,-z,relro", "-DRELRO"],
        &["-Wl,-z,noseparate-code", "-Wl,-z,relro", "-DRELRO"],
        &["-Wl,-z,norelro"],
        &["-Wl,-z,relro", "-Wl,-z,now", "-DRELRO"],
        &["-Wl,-z,relro", "-Wl,-z,max-page-size=65536", "-DRELRO"],
        &["-Wl,-z,relro", "-Wl,-z,max-page-size=0x200000", "-DRELRO"],
    ];
    for linker in linkers() {
        for flags in variants {
            if !flags.iter().all(|flag| knows(linker, flag)) {
                continue;
            }
            let what = format!("{linker} {flags:?}");
            let linker = format!("-fuse-ld={linker}");
            let path = build("gcc", "loading/protections.c", &[&[&*linker], flags].concat());
            let file = fs::read(&path).unwrap();
            let library = load_and_run(&Loader::new(), &file, &what);
            let range = library.address_range();
            let maps = maps();
            let ours = page_access(&range, &maps);
            assert_eq!(ours, stated_access(&Elf::parse(&file).unwrap()), "{what}");
            assert!(maps.iter().all(|line| !line.access.contains("wx")), "{what}: {maps:#?}");

            let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
            let start = range.start - library.load_bias() + opened.load_bias();
            let theirs = page_access(&(start..start + range.len()), &crate::common::maps());
            assert_eq!(ours, theirs, "{what}");
        }
    }
}

#[test]
fn no_page_is_writable_and_executable_at_any_moment() {
    isolated(|| {
        let text_relocation = gcc("text_relocation.S", &["-Wl,-z,notext"]);
        let plain = gcc("protections.c", &["-Wl,-z,relro", "-DRELRO"]);
        let done = AtomicBool::new(false);
        let looks = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    for line in maps() {
                        assert!(!line.access.contains("wx"), "{line:?}");
                    }
                    looks += 1;
                }
                looks
            });
            for _ in 0..200 {
                drop(load(&text_relocation));
                drop(load(&plain));
            }
            done.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        assert!(looks > 20, "the mappings were looked at {looks} times only");
    });
}

/// Whether this kernel names anonymous memory.
fn kernel_names_memory() -> bool {
    // SAFETY: a fresh page of our own, named with a C string and unmapped.
    unsafe {
        let access = libc::PROT_READ;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), PAGE, access, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        let name = c"probe".as_ptr();
        let result = libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, page, PAGE, name);
        libc::munmap(page, PAGE);
        result == 0
    }
}

#[test]
fn mappings_carry_the_name() {
    let file = gcc("everything.c", &[]);
    let names = [("plain-name.so", "plain-name.so"), ("a b[c]$`\\é", "a_b_c_____")];
    for (name, shown) in names {
        let library = load_and_run(&Loader::new().name(name), &file, name);
        let range = library.address_range();
        let maps = maps();
        let lines: Vec<&MapsLine> =
            maps.iter().filter(|line| range.contains(&line.range.start)).collect();
        assert!(lines.len() >= 3, "{lines:?}");
        // A kernel without the feature shows anonymous memory, with no name and no file.
        let expected = match kernel_names_memory() {
            true => format!("[anon:memdl:{shown}]"),
            false => String::new(),
        };
        for line in lines {
            assert_eq!(line.name, expected, "{line:?}");
            // Where it was received, up to 64 KiB more may stay.
            let more = if crate::common::way() == "buffer" { 1 << 16 } else { 0 };
            assert!(line.range.end <= range.end + more, "{line:?} reaches out of {range:x?}");
        }
    }
}

#[test]
fn large_alignments_are_honoured() {
    for alignment in [0x10000_usize, 0x20_0000, 0x40_0000] {
        for linker in linkers() {
            let what = format!("{linker} {alignment:#x}");
            let flags = [
                &*format!("-fuse-ld={linker}"),
                &format!("-Wl,-z,max-page-size={alignment}"),
                &format!("-DALIGNMENT={alignment}"),
            ];
            let file = gcc("aligned.c", &flags);
            let headers = Elf::parse(&file).unwrap().program_headers;
            let stated =
                headers.iter().filter(|ph| ph.p_type == PT_LOAD).map(|ph| ph.p_align).max();
            assert_eq!(stated, Some(alignment as u64), "{what}: the linker did not align");
            // Several, so that none is aligned by chance.
            let libraries: Vec<Library> =
                (0..4).map(|_| load_and_run(&Loader::new(), &file, &what)).collect();
            for library in &libraries {
                assert_eq!(library.load_bias() % alignment, 0, "{what}");
            }
        }
    }
}

#[test]
fn bss_is_zero_to_the_end_of_its_pages() {
    for linker in linkers() {
        let path = build("gcc", "loading/bss.c", &[&*format!("-fuse-ld={linker}")]);
        assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen, {linker}");
        let mut file = fs::read(path).unwrap();
        load_and_run(&Loader::new(), &file, linker);
        // Whatever lies in the file behind the data, and behind the file.
        let end = Elf::parse(&file)
            .unwrap()
            .program_headers
            .iter()
            .filter(|ph| ph.p_type == PT_LOAD)
            .map(|ph| (ph.p_offset + ph.p_filesz) as usize)
            .max();
        let end = end.unwrap();
        without_section_headers(&mut file);
        file.truncate(end);
        file.resize(end + 8192, 0xaa);
        load_and_run(&Loader::new(), &file, linker);
    }
}

#[test]
fn an_image_base_other_than_zero() {
    for (linker, flag) in [
        ("bfd", "-Wl,-Ttext-segment=0x7200000"),
        ("gold", "-Wl,-Ttext=0x7201000"),
        ("lld", "-Wl,--image-base=0x7200000"),
    ] {
        if !has_linker(linker) {
            continue;
        }
        let path = build("gcc", "loading/everything.c", &[&*format!("-fuse-ld={linker}"), flag]);
        let library = load_and_run(&Loader::new(), &fs::read(&path).unwrap(), linker);
        let base = library.address_range().start.wrapping_sub(library.load_bias());
        if linker != "gold" {
            assert_eq!(base, 0x7200000, "{linker}");
        }
        // SAFETY: `twice` is `int (int)`.
        let twice = unsafe { library.get::<extern "C" fn(c_int) -> c_int>("twice").unwrap() };
        assert_eq!(twice(4), 8);
        let opened = Opened::new(&path, RTLD_NOW);
        let theirs = (opened.symbol("twice", None).addr()).wrapping_sub(opened.load_bias());
        assert_eq!(twice.as_raw_ptr().addr().wrapping_sub(library.load_bias()), theirs);
    }
}

#[test]
fn every_linker_and_layout() {
    let mut loaded = 0;
    for linker in linkers() {
        for hash in ["gnu", "sysv", "both"] {
            let codes: &[&str] = match linker {
                "gold" => &["-Wl,--gc-sections"],
                _ => &["-Wl,-z,separate-code", "-Wl,-z,noseparate-code"],
            };
            for code in codes {
                for relro in [&["-Wl,-z,norelro"][..], &["-Wl,-z,relro"], &["-Wl,-z,relro,-z,now"]]
                {
                    let flags =
                        [&*format!("-fuse-ld={linker}"), &format!("-Wl,--hash-style={hash}"), code];
                    let flags = [&flags, relro].concat();
                    let path = build("gcc", "loading/everything.c", &flags);
                    let what = format!("{flags:?}");
                    let file = fs::read(&path).unwrap();
                    let library = load_and_run(&Loader::new(), &file, &what);
                    same_exports(&library, &path, &what);
                    loaded += 1;
                }
            }
        }
    }
    let all: usize = linkers().iter().map(|it| if *it == "gold" { 9 } else { 18 }).sum();
    assert_eq!(loaded, all);
}

#[test]
fn other_compilers_and_languages() {
    let variants: [(&str, &[&str]); 6] = [
        ("gcc", &["-O2"]),
        ("gcc", &["-O2", "-flto", "-ffunction-sections", "-Wl,--gc-sections", "-Wl,-u,run"]),
        ("gcc", &["-fno-plt", "-O1"]),
        ("clang", &["-O0"]),
        ("clang", &["-O2"]),
        ("clang", &["-O2", "-fuse-ld=lld", "-Wl,--no-rosegment"]),
    ];
    for (compiler, flags) in variants {
        let path = build(compiler, "loading/everything.c", flags);
        let what = format!("{compiler} {flags:?}");
        let library = load_and_run(&Loader::new(), &fs::read(&path).unwrap(), &what);
        same_exports(&library, &path, &what);
    }
}

/// All that the library exports is where `dlopen` has it, and is called the same.
fn same_exports(library: &Library, path: &Path, what: &str) {
    let opened = Opened::new(path, RTLD_NOW | RTLD_LOCAL);
    assert_eq!(opened.run(), 42, "dlopen, {what}");
    let mut names = BTreeSet::new();
    for symbol in library.symbols().filter(|symbol| symbol.kind() != memdl::SymbolKind::ThreadLocal)
    {
        let theirs = opened.symbol(symbol.name(), symbol.version()).addr();
        let theirs = theirs.wrapping_sub(opened.load_bias());
        let ours = symbol.address().wrapping_sub(library.load_bias());
        assert_eq!(ours, theirs, "{what}: {}", symbol.name());
        names.insert(symbol.name().to_owned());
    }
    let expected = [
        "exported_number",
        "exported_pointer",
        "protected_number",
        "run",
        "twice",
        "weakly_defined",
    ];
    for name in expected {
        assert!(names.contains(name), "{what}: {name} is not listed in {names:?}");
    }
}

/// As a tool that strips section headers leaves it (`e_shoff`, `e_shnum`, `e_shstrndx`).
fn without_section_headers(file: &mut [u8]) {
    file[40..48].fill(0);
    file[60..64].fill(0);
}

#[test]
fn stripped_images_and_images_without_section_headers() {
    for linker in linkers() {
        let linker = format!("-fuse-ld={linker}");
        let mut file = gcc("everything.c", &[&linker, "-s"]);
        assert_eq!(Elf::parse(&file).unwrap().syms.len(), 0);
        load(&file);
        let headers = Elf::parse(&file).unwrap().header.e_shoff as usize;
        without_section_headers(&mut file);
        file.truncate(headers);
        let library = load_and_run(&Loader::new(), &file, &linker);
        assert!(library.symbols().any(|symbol| symbol.name() == "twice"));
        // And with ones that lie: a loader has no use for them.
        let mut lying = gcc("everything.c", &[&linker]);
        let headers = Elf::parse(&lying).unwrap().header.e_shoff as usize;
        lying[headers..].fill(0xff);
        load_and_run(&Loader::new(), &lying, &linker);
    }
}

#[test]
fn an_old_version_of_a_libc_function_is_imported_when_asked_for() {
    let path = build("gcc", "loading/old_realpath.c", &[]);
    load(&fs::read(&path).unwrap());
    assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen");
}

fn version_script() -> String {
    format!("-Wl,--version-script={}", repository("testlibs/loading/versions.map").display())
}

#[test]
fn versions_of_exports_are_told_apart() {
    let script = version_script();
    for linker in linkers() {
        for hash in ["gnu", "sysv"] {
            let flags =
                [&*format!("-fuse-ld={linker}"), &format!("-Wl,--hash-style={hash}"), &script];
            let path = build("gcc", "loading/versions.c", &flags);
            let library = load(&fs::read(&path).unwrap());
            let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
            let cases = [
                ("number", None),
                ("number", Some("TEST_1")),
                ("number", Some("TEST_2")),
                ("number", Some("TEST_3")),
                ("number", Some("")),
                ("hidden_old", None),
                ("hidden_old", Some("TEST_1")),
                ("hidden_old", Some("TEST_2")),
                ("run", Some("TEST_2")),
            ];
            for (name, version) in cases {
                let what = format!("{linker} {hash} {name}@{version:?}");
                // SAFETY: only the address is looked at.
                let ours = unsafe {
                    match version {
                        None => library.get::<*mut c_void>(name),
                        Some(version) => library.get_versioned::<*mut c_void>(name, version),
                    }
                };
                let theirs = opened.symbol(name, version);
                match ours {
                    Ok(symbol) => assert_eq!(
                        symbol.as_raw_ptr().addr().wrapping_sub(library.load_bias()),
                        theirs.addr().wrapping_sub(opened.load_bias()),
                        "{what}"
                    ),
                    Err(Error::SymbolNotFound { symbol, version: of_error, .. }) => {
                        assert!(theirs.is_null(), "{what}: dlvsym finds it");
                        assert_eq!((&*symbol, of_error.as_deref()), (name, version));
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            assert_eq!(number(&library, "number"), 2);
            // SAFETY: `int (void)`.
            let old = unsafe { library.get_versioned::<Number>("number", "TEST_1").unwrap()() };
            assert_eq!(old, 1);
        }
    }
}

#[test]
fn references_between_images_ask_for_versions() {
    let script = version_script();
    let provided = build("gcc", "loading/versions.c", &[&script, "-Wl,-soname,libversions.so"]);
    let needs = gcc("uses_versions.c", &[provided.to_str().unwrap()]);
    let loader = Loader::new().provide("libversions.so", fs::read(provided).unwrap());
    load_and_run(&loader, &needs, "versions across images");
}

/// As when a library was linked before the one that it needs began to version its symbols.
#[test]
fn references_without_a_version_get_the_oldest_definition() {
    let soname = "-Wl,-soname,libversions.so";
    let unversioned = build("gcc", "loading/needs_much.c", &["-DSTUB=number", soname]);
    let versioned = build("gcc", "loading/versions.c", &[&version_script(), soname]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unversioned");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&versioned, folder.join("libversions.so")).unwrap();
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    let user = build("gcc", "loading/unversioned.c", &[unversioned.to_str().unwrap(), &rpath]);

    let opened = Opened::new(&user, RTLD_NOW | RTLD_LOCAL);
    let which = opened.symbol("which", None);
    assert!(!which.is_null());
    // SAFETY: `int (void)`.
    let theirs = unsafe { std::mem::transmute::<*mut c_void, Number>(which)() };
    let loader = Loader::new().provide("libversions.so", fs::read(versioned).unwrap());
    // SAFETY: libraries of `testlibs/`.
    let library = unsafe { loader.load_any_way(&fs::read(&user).unwrap()) }.unwrap();
    assert_eq!((number(&library, "which"), theirs), (1, 1));
}

#[test]
fn symbols_of_all_bindings_and_visibilities() {
    for linker in linkers() {
        let flags = [&*format!("-fuse-ld={linker}"), "-Wl,--defsym=absolute=0x1234"];
        let path = build("gcc", "loading/symbols.c", &flags);
        let library = load_and_run(&Loader::new(), &fs::read(&path).unwrap(), linker);
        let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
        assert_eq!(opened.run(), 42);
        // SAFETY: only the addresses are looked at.
        let address = |name: &str| unsafe {
            library.get::<*mut c_void>(name).ok().map(|symbol| symbol.as_raw_ptr().addr())
        };
        assert_eq!(address("absolute"), Some(0x1234), "{linker}: absolute symbols are not moved");
        assert_eq!(opened.symbol("absolute", None).addr(), 0x1234, "{linker}");
        for name in ["weak_function", "protected_function", "default_function"] {
            assert_eq!(
                address(name).map(|address| address - library.load_bias()),
                Some(opened.symbol(name, None).addr() - opened.load_bias()),
                "{linker} {name}"
            );
        }
        for name in ["hidden_function", "local_function", "undefined_function", "undefined_data"] {
            assert_eq!(address(name), None, "{linker} {name}");
            assert!(opened.symbol(name, None).is_null(), "{linker} {name}");
        }
    }
}

/// Linkers leave hidden symbols out of the table; one that is in it all the same is not found.
#[test]
fn a_hidden_symbol_in_the_table_is_not_found() {
    let mut file = gcc("symbols.c", &["-Wl,--defsym=absolute=0x1234", "-Wl,-soname,libhidden.so"]);
    let at = {
        let elf = Elf::parse(&file).unwrap();
        let named = |name: &str| {
            let symbols = elf.dynsyms.iter();
            symbols
                .map(|symbol| elf.dynstrtab.get_at(symbol.st_name))
                .position(|is| is == Some(name))
        };
        // The first segment's addresses are offsets.
        elf.dynamic.as_ref().unwrap().info.symtab + named("default_function").unwrap() * 24 + 5
    };
    const STV_HIDDEN: u8 = 2;
    assert_eq!(std::mem::replace(&mut file[at], STV_HIDDEN), 0);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libhidden.so");
    fs::write(&path, &file).unwrap();
    let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
    assert!(opened.symbol("default_function", None).is_null(), "dlsym finds it");
    let library = load(&file);
    // SAFETY: not called.
    assert!(unsafe { library.get::<Number>("default_function") }.is_err());
    assert!(!library.symbols().any(|symbol| symbol.name() == "default_function"));
    // References of its own reach it.
    assert_eq!(opened.run(), 42);
}

#[test]
fn the_host_comes_first_unless_the_image_or_the_caller_says_otherwise() {
    let plain = build("gcc", "loading/interposed.c", &["-O0", "-fno-builtin"]);
    let symbolic = build("gcc", "loading/interposed.c", &["-O0", "-fno-builtin", "-Wl,-Bsymbolic"]);
    let file = |path| fs::read(path).unwrap();
    let called = |loader: &Loader, file: &[u8]| {
        let library = load_and_run(loader, file, "interposed");
        number(&library, "called")
    };
    let deep = Loader::new().scope(Scope::SelfFirst);
    assert_eq!(called(&Loader::new(), &file(&plain)), 0, "the C library's");
    assert_eq!(called(&deep, &file(&plain)), 777, "its own, with Scope::SelfFirst");
    assert_eq!(called(&Loader::new(), &file(&symbolic)), 777, "its own, with -Bsymbolic");

    let dlopened = |path: &Path, flags| {
        let opened = Opened::new(path, RTLD_NOW | RTLD_LOCAL | flags);
        let called = opened.symbol("called", None);
        assert!(!called.is_null());
        // SAFETY: `int (void)`.
        unsafe { std::mem::transmute::<*mut c_void, Number>(called)() }
    };
    assert_eq!(dlopened(&plain, 0), 0);
    assert_eq!(dlopened(&plain, RTLD_DEEPBIND), 777);
    assert_eq!(dlopened(&symbolic, 0), 777);
}

/// The dynamic relocation types of a file, packed relative ones as `RELR`.
fn relocation_types(file: &[u8]) -> BTreeSet<String> {
    let elf = Elf::parse(file).unwrap();
    let mut types: BTreeSet<String> = (elf.dynrelas.iter().chain(elf.pltrelocs.iter()))
        .map(|rela| {
            format!("R_{}", goblin::elf::reloc::r_to_str(rela.r_type, elf.header.e_machine))
        })
        .collect();
    const DT_RELR: u64 = 36;
    const DT_ANDROID_RELA: u64 = 0x6000_0011;
    const DT_ANDROID_RELR: u64 = 0x6fff_e000;
    let dynamic = elf.dynamic.unwrap();
    for (tag, name) in [(DT_RELR, "RELR"), (DT_ANDROID_RELA, "ANDROID"), (DT_ANDROID_RELR, "RELR")]
    {
        if dynamic.dyns.iter().any(|entry| entry.d_tag == tag) {
            types.insert(name.to_owned());
        }
    }
    types
}

#[test]
fn every_relocation_type_that_linkers_emit() {
    let everything = [machine::RELATIVE, machine::ABSOLUTE, machine::GLOB_DAT, machine::JUMP_SLOT];
    let everything = everything.map(|it| it.name);
    let tls = [machine::DTPMOD.name, machine::DTPOFF.name];
    let absolute = [machine::ABSOLUTE.name];
    let irelative = [machine::IRELATIVE.name];
    let is_x86 = cfg!(target_arch = "x86_64");
    let cases: &[(&str, &[&str], &[&str])] = &[
        #[cfg(target_arch = "x86_64")]
        (
            "relocations.S",
            &["-fuse-ld=bfd", "-Wl,-z,notext"],
            &[
                "R_X86_64_64",
                "R_X86_64_PC64",
                "R_X86_64_PC32",
                "R_X86_64_SIZE32",
                "R_X86_64_SIZE64",
            ],
        ),
        ("everything.c", &["-fuse-ld=bfd"], &everything),
        ("everything.c", &["-fuse-ld=gold"], &everything),
        ("everything.c", &["-fuse-ld=lld"], &everything),
        ("everything.c", &["-fuse-ld=mold"], &everything),
        ("everything.c", &["-fuse-ld=bfd", "-Wl,-z,pack-relative-relocs"], &["RELR"]),
        ("everything.c", &["-fuse-ld=lld", "-Wl,--pack-dyn-relocs=relr"], &["RELR"]),
        ("everything.c", &["-fuse-ld=mold", "-Wl,-z,pack-relative-relocs"], &["RELR"]),
        ("everything.c", &["-fuse-ld=lld", "-Wl,--pack-dyn-relocs=android"], &["ANDROID"]),
        (
            "everything.c",
            &["-fuse-ld=lld", "-Wl,--pack-dyn-relocs=android+relr", "-Wl,--use-android-relr-tags"],
            &["ANDROID", "RELR"],
        ),
        ("tls.c", &["-fuse-ld=bfd", machine::CALLS], &tls),
        ("tls.c", &["-fuse-ld=gold", machine::CALLS, "-ftls-model=local-dynamic"], &tls[..1]),
        ("tls.c", &["-fuse-ld=lld", machine::CALLS], &tls),
        ("tls.c", &["-fuse-ld=mold", machine::CALLS], &tls),
        ("text_relocation.S", &["-fuse-ld=bfd", "-Wl,-z,notext"], &absolute),
        ("text_relocation.S", &["-fuse-ld=lld", "-Wl,-z,notext"], &absolute),
        ("ifunc.c", &["-fuse-ld=bfd"], &irelative),
        ("ifunc.c", &["-fuse-ld=lld"], &irelative),
    ];
    // binutils before 2.38 do not know the flag, and say so in a warning.
    let help = crate::common::run(Command::new("ld").arg("--help"), "binutils");
    // It knows the flag for all machines, and packs for x86 only until 2.42.
    let knows_relr = help.contains("pack-relative-relocs") && is_x86;
    let can_emit = |flags: &[&str]| {
        let by_bfd = flags.contains(&"-fuse-ld=bfd") && flags.concat().contains("relative-relocs");
        let calls = flags.contains(&machine::CALLS);
        can_link(flags) && (knows_relr || !by_bfd) && (!calls || machine::links_calls(flags[0]))
    };
    for (source, flags, expected) in cases.iter().filter(|(_, flags, _)| can_emit(flags)) {
        let path = build("gcc", &format!("loading/{source}"), flags);
        let file = fs::read(&path).unwrap();
        let types = relocation_types(&file);
        let what = format!("{source} {flags:?}: {types:?}");
        for expected in *expected {
            assert!(types.contains(*expected), "{what}: the linker did not emit {expected}");
        }
        let library = load_and_run(&Loader::new(), &file, &what);
        // `ld.so` insists on a version that only newer linkers ask for with packed relocations,
        // and does not know R_X86_64_PC64, nor Android's packed relocations.
        let has_unasked_relr = types.contains("RELR") && !flags.contains(&"-fuse-ld=bfd");
        let is_foreign = types.contains("R_X86_64_PC64") || types.contains("ANDROID");
        if !has_unasked_relr && !is_foreign {
            assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen, {what}");
        }
        drop(library);
    }
}

/// A resolver runs when all that it can see is relocated, and all agree on what it chose.
/// A relocation may name symbol 0. glibc takes it for the image's own address 0.
#[test]
fn symbol_0_is_the_start_of_the_image() {
    let path = build("gcc", "loading/symbol_0.c", &["-O1", "-Wl,-z,norelro"]);
    let mut bytes = fs::read(&path).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let is_target = |name: &str| name == "target";
    let relocations: Vec<u64> = elf
        .dynrelas
        .iter()
        .filter(|it| {
            let symbol = elf.dynsyms.get(it.r_sym).unwrap();
            is_target(elf.dynstrtab.get_at(symbol.st_name).unwrap_or_default())
        })
        .map(|it| it.r_offset)
        .collect();
    assert_eq!(relocations.len(), 2, "an absolute one, and one of the global offset table");
    // `r_info` of these entries: the type in the low half, the symbol in the high one.
    let table = elf.dynamic.as_ref().unwrap().info.rela;
    let table = elf.program_headers.iter().find(|it| it.vm_range().contains(&table)).map(|it| {
        let skip = table - it.p_vaddr as usize;
        it.p_offset as usize + skip
    });
    let (table, count) = (table.unwrap(), elf.dynrelas.len());
    for entry in 0..count {
        let at = table + entry * 24;
        let r_offset = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        if relocations.contains(&r_offset) {
            bytes[at + 12..at + 16].fill(0);
        }
    }
    let file = path.with_extension("patched.so");
    fs::write(&file, &bytes).unwrap();
    let reference = Opened::new(&file, RTLD_NOW | RTLD_LOCAL);
    let words: extern "C" fn(*mut usize) = {
        // SAFETY: the test library's function of this type.
        unsafe { std::mem::transmute(reference.symbol("words", None)) }
    };
    let mut of_dlopen = [0; 3];
    words(of_dlopen.as_mut_ptr());
    let template = {
        // SAFETY: a library of `testlibs/`.
        unsafe { Loader::new().debug(memdl::DebugLevel::Off).prepare(&bytes) }.unwrap()
    };
    // SAFETY: as above.
    let instance = || unsafe { template.instantiate() }.unwrap();
    for library in [load_and_run(&Loader::new(), &bytes, "load"), instance(), instance()] {
        // SAFETY: as above.
        let words = unsafe { library.get::<extern "C" fn(*mut usize)>("words") }.unwrap();
        let mut here = [0; 3];
        words(here.as_mut_ptr());
        // The first is the address of a function of the image: by it the two can be compared.
        let distances = |it: [usize; 3]| [it[1].wrapping_sub(it[0]), it[2].wrapping_sub(it[0])];
        assert_eq!(distances(here), distances(of_dlopen));
        assert_eq!(here[1], library.load_bias() + 16);
    }
}

#[test]
fn ifuncs_of_another_image() {
    isolated(|| {
        for linker in linkers() {
            let linker = format!("-fuse-ld={linker}");
            let library = |source: &str, flags: &[&str]| {
                build("gcc", &format!("loading/{source}"), &[&["-O1", &linker], flags].concat())
            };
            let limit = library("limit.c", &["-Wl,-soname,liblimit.so"]);
            let flags = ["-Wl,-soname,libchosen.so", "-Wl,--no-as-needed", limit.to_str().unwrap()];
            let chosen = library("chosen.c", &flags);
            let user = library("chooses.c", &["-Wl,--no-as-needed", chosen.to_str().unwrap()]);
            let bytes = |path: &Path| fs::read(path).unwrap();
            let provided = Loader::new()
                .provide("libchosen.so", bytes(&chosen))
                .provide("liblimit.so", bytes(&limit));
            for loader in [provided.clone(), provided.clone().binding(Binding::Lazy)] {
                drop(load_and_run(&loader, &bytes(&user), &format!("together, {linker}")));
            }
            // SAFETY: libraries of `testlibs/`.
            let first = unsafe { provided.load_any_way(&bytes(&chosen)) }.unwrap();
            let loader = Loader::new().depends_on(&first);
            load_and_run(&loader, &bytes(&user), &format!("one by one, {linker}"));
            let opened = [&limit, &chosen, &user].map(|path| Opened::new(path, RTLD_NOW));
            assert_eq!(opened[2].run(), 42, "dlopen, {linker}");
        }
    });
}

#[test]
fn unique_definitions_are_one_in_the_process() {
    isolated(|| {
        let path = build("g++", "loading/unique.cpp", &["-O1"]);
        let file = fs::read(&path).unwrap();
        let elf = Elf::parse(&file).unwrap();
        let is_unique = |it: &goblin::elf::Sym| it.st_bind() == STB_GNU_UNIQUE;
        assert!(elf.dynsyms.iter().filter(is_unique).count() >= 2, "the compiler made none");
        type Place = extern "C" fn() -> *mut c_int;
        let places = |library: &Library| {
            ["holder", "counted"].map(|name| {
                // SAFETY: `int *(void)`, and what it points to is an `int`.
                unsafe { library.get::<Place>(name).unwrap()() }
            })
        };
        let one = load_and_run(&Loader::new(), &file, "one");
        let found = places(&one);
        // Another build of the same, loaded for itself: the first definition stays with its users.
        let other = fs::read(build("g++", "loading/unique.cpp", &["-O2"])).unwrap();
        let two = load_and_run(&Loader::new(), &other, "two");
        assert_eq!(places(&two), found);
        // SAFETY: as above.
        unsafe { *found[0] = 6 };
        drop(one);
        assert_eq!((places(&two), call_run(&two)), (found, 6));
        drop(two);
        // When all are gone, the next is the first again.
        let next = load_and_run(&Loader::new(), &other, "next");
        let inside = next.address_range();
        assert!(places(&next).iter().all(|place| inside.contains(&place.addr())));
        drop(next);
        // `dlopen`, which never unloads them.
        let opened = [&path, &build("g++", "loading/unique.cpp", &["-O2"])]
            .map(|path| Opened::new(path, RTLD_NOW));
        assert_eq!(
            opened[0].symbol("_ZN6HolderILi1EE5valueE", None),
            opened[1].symbol("_ZN6HolderILi1EE5valueE", None)
        );
        assert_eq!(opened[1].run(), 42, "dlopen");
        // Which image and host cannot see does not matter.
        let theirs = ["holder", "counted"].map(|name| {
            // SAFETY: as above.
            unsafe { std::mem::transmute::<*mut c_void, Place>(opened[0].symbol(name, None))() }
        });
        let with_theirs = load_and_run(&Loader::new(), &file, "with dlopen's");
        assert_eq!(places(&with_theirs), theirs);
        let name = "_ZN6HolderILi1EE5valueE";
        // SAFETY: an `int`.
        let looked_up = unsafe { with_theirs.get::<*mut c_int>(name) }.unwrap().as_raw_ptr();
        assert_eq!(looked_up.cast(), theirs[0]);
    });
}

/// A `DT_SYMBOLIC` library finds its own definition first, those that need it find theirs. `ld.so` relocates what
/// is needed first, so its definition is everybody's.
#[test]
fn unique_definitions_are_one_in_a_group_with_a_symbolic_member() {
    isolated(|| {
        let flags = ["-O2", "-Wl,-Bsymbolic", "-Dholder=inner", "-Dcounted=inner_counted"];
        let needed = build("g++", "loading/unique.cpp", &flags);
        let path = needed.to_str().unwrap();
        let linked = ["-O1", "-Wl,--push-state,--no-as-needed", path, "-Wl,--pop-state"];
        let root = build("g++", "loading/unique.cpp", &linked);
        let file = fs::read(&needed).unwrap();
        let elf = Elf::parse(&file).unwrap();
        let is_bound = |index: usize| elf.dynrelas.iter().any(|rela| rela.r_sym == index);
        let mut symbols = elf.dynsyms.iter().enumerate();
        assert!(symbols.any(|(index, it)| it.st_bind() == STB_GNU_UNIQUE && is_bound(index)));
        // SAFETY: `int *(void)`, in both.
        let place = |function: *mut c_void| unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_int>(function)()
        };
        let names = [("holder", "inner"), ("counted", "inner_counted")];
        let loader = Loader::new().provide(path, file.clone());
        let library = load_and_run(&loader, &fs::read(&root).unwrap(), "a symbolic member");
        for (outer, inner) in names {
            // SAFETY: only called as above.
            let of = |name| unsafe { library.get::<*mut c_void>(name) }.unwrap().as_raw_ptr();
            assert_eq!(place(of(outer)), place(of(inner)), "{outer}");
            let own = library.address_range();
            assert!(!own.contains(&place(of(outer)).addr()), "{outer}: the root's");
        }
        drop(library);
        let opened = Opened::new(&root, RTLD_NOW);
        for (outer, inner) in names {
            let places = [outer, inner].map(|name| place(opened.symbol(name, None)));
            assert_eq!(places[0], places[1], "dlopen: {outer}");
        }
        let theirs = Opened::new(&needed, RTLD_NOW);
        let bias = theirs.load_bias();
        let holder = elf
            .dynsyms
            .iter()
            .find(|it| elf.dynstrtab.get_at(it.st_name) == Some("_ZN6HolderILi1EE5valueE"));
        let expected = bias + holder.unwrap().st_value as usize;
        assert_eq!(place(opened.symbol("holder", None)).addr(), expected, "dlopen");
    });
}

/// GNU's `ld` notes in the ELF header that a library has unique definitions; what rewrites a library, as wheels
/// are, may lose that, and `ld.so` does not look there.
#[test]
fn unique_definitions_of_opened_libraries_count_whatever_their_elf_header_says() {
    isolated(|| {
        let mut file = fs::read(build("g++", "loading/unique.cpp", &["-O1"])).unwrap();
        assert_eq!(file[EI_OSABI], ELFOSABI_GNU);
        file[EI_OSABI] = ELFOSABI_NONE;
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unmarked-unique.so");
        fs::write(&path, file).unwrap();
        let opened = Opened::new(&path, RTLD_NOW);
        let other = fs::read(build("g++", "loading/unique.cpp", &["-O2"])).unwrap();
        let library = load_and_run(&Loader::new(), &other, "beside the one without a mark");
        for name in ["holder", "counted"] {
            type Place = extern "C" fn() -> *mut c_int;
            // SAFETY: `int *(void)`, in both.
            let (theirs, ours) = unsafe {
                let theirs = std::mem::transmute::<*mut c_void, Place>(opened.symbol(name, None));
                (theirs(), library.get::<Place>(name).unwrap()())
            };
            assert_eq!(ours, theirs, "{name}");
        }
    });
}

#[cfg(target_arch = "x86_64")]
/// `R_X86_64_32`, which no linker emits for a shared library, made from an `R_X86_64_64`.
#[test]
fn a_32_bit_relocation_fits_or_is_refused() {
    let flags = ["-Wl,-z,notext"];
    let mut file = gcc("relocations.S", &flags);
    let elf = Elf::parse(&file).unwrap();
    let rela = elf.dynrelas.iter().find(|rela| rela.r_type == 1).unwrap();
    let (at, symbol) = (rela.r_offset as usize, elf.dynsyms.get(rela.r_sym).unwrap());
    assert_eq!(elf.dynstrtab.get_at(symbol.st_name), Some("object"));
    let entry: Vec<u8> = [rela.r_offset, (rela.r_sym as u64) << 32 | 1]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let place = file.windows(16).position(|bytes| bytes == entry).unwrap();
    file[place + 8] = 10;
    // SAFETY: no code of the image has a say in this.
    let error = unsafe { Loader::new().load_any_way(&file) }.expect_err("an image below 4 GiB?");
    let text = error.to_string();
    assert!(matches!(error, Error::Unsupported { .. }), "{text}");
    for part in ["R_X86_64_32", "overflow", &format!("{at:#x}")] {
        assert!(text.contains(part), "{text}");
    }

    let low = Loader::new().define("object", std::ptr::without_provenance(0x7fff_0000));
    // The only use of `object` elsewhere is by 64 bits and from `run`, which is not called.
    file[place + 8] = 1;
    // R_X86_64_PC32 and others cannot reach that low: they become R_X86_64_NONE.
    for rela in Elf::parse(&file.clone()).unwrap().dynrelas.iter().filter(|rela| rela.r_type == 2) {
        let start = rela.r_offset.to_le_bytes();
        let all = file.windows(8).position(|bytes| bytes == start).unwrap();
        file[all + 8] = 0;
    }
    file[place + 8] = 10;
    // SAFETY: the constructors of the C library's start-up files only.
    let library = unsafe { low.load_any_way(&file) }.unwrap();
    let word = (library.load_bias() + at) as *const u32;
    // SAFETY: the relocated word, in the library's data.
    assert_eq!(unsafe { word.read_unaligned() }, 0x7fff_0008);
}

/// All four models, in three kinds of thread.
#[test]
fn thread_local_variables_in_main_new_and_older_threads() {
    let models: [(&str, &[&str], &str); 5] = [
        ("tls.c", &[machine::CALLS, "-ftls-model=global-dynamic"], machine::DTPMOD.name),
        ("tls.c", &[machine::CALLS, "-ftls-model=local-dynamic"], machine::DTPMOD.name),
        ("tls.c", &[machine::DESCRIPTORS], machine::TLSDESC.name),
        ("small_tls.c", &[machine::DESCRIPTORS, "-O2"], machine::TLSDESC.name),
        ("small_tls.c", &["-ftls-model=initial-exec"], machine::TPOFF.name),
    ];
    for (linker, (source, flags, relocation)) in
        linkers().into_iter().flat_map(|linker| models.map(|model| (linker, model)))
    {
        if flags.contains(&machine::CALLS) && !machine::links_calls(linker) {
            continue;
        }
        let linker = format!("-fuse-ld={linker}");
        let path = build("gcc", &format!("loading/{source}"), &[&[&*linker], flags].concat());
        let what = format!("{source} {linker} {flags:?}");
        let file = fs::read(&path).unwrap();
        assert!(relocation_types(&file).contains(relocation), "{what}: not emitted");
        let (to_older, from_main) = mpsc::channel::<extern "C" fn() -> c_int>();
        let older = thread::spawn(move || from_main.iter().map(|run| run()).collect::<Vec<_>>());

        let library = load_and_run(&Loader::new(), &file, &what);
        // SAFETY: `int (void)`; the threads that call it end before the library goes.
        let run = unsafe { *library.get::<extern "C" fn() -> c_int>("run").unwrap() };
        assert_eq!(run(), 42, "{what}: the second time in a thread");
        for _ in 0..3 {
            to_older.send(run).unwrap();
        }
        drop(to_older);
        assert_eq!(older.join().unwrap(), [42; 3], "{what}: a thread that was there before");
        let newer: Vec<_> = (0..4).map(|_| thread::spawn(move || (run(), run()))).collect();
        for thread in newer {
            assert_eq!(thread.join().unwrap(), (42, 42), "{what}: a new thread");
        }
        assert_eq!(number(&library, "runs_of_this_thread"), 2, "{what}");
        assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen, {what}");
    }
}

/// More images with thread-local variables than there are quick slots; each has its own.
#[test]
fn many_modules_with_thread_local_variables() {
    let template = Loader::new().template(&gcc("tls.c", &[])).unwrap();
    // SAFETY: as in `load_and_run`.
    let mut libraries: Vec<Library> =
        (0..150).map(|_| unsafe { template.instantiate() }.unwrap()).collect();
    for round in 1..=2 {
        for library in &libraries {
            assert_eq!(call_run(library), 42);
            assert_eq!(number(library, "runs_of_this_thread"), round);
        }
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| libraries.iter().for_each(|library| assert_eq!(call_run(library), 42)));
        }
    });
    // A module that goes leaves its number, and no data, to the next.
    libraries.drain(..100);
    // SAFETY: as above.
    libraries.extend((0..100).map(|_| unsafe { template.instantiate() }.unwrap()));
    for library in &libraries[50..] {
        assert_eq!(number(library, "runs_of_this_thread"), 0);
        assert_eq!(call_run(library), 42);
    }
}

/// Initial exec needs static thread-local storage, which is limited.
#[test]
fn initial_exec_is_refused_by_name_when_there_is_no_room() {
    isolated(|| {
        let refused = |file: &[u8]| {
            // SAFETY: a library of `testlibs/`.
            let error =
                unsafe { Loader::new().name("it").load_any_way(file) }.expect_err("there is room");
            assert!(matches!(&error, Error::Limit { image, .. } if image == "it"), "{error}");
            assert!(error.to_string().contains("initial-exec"), "{error}");
        };
        refused(&gcc("tls.c", &["-ftls-model=initial-exec"]));
        refused(&gcc("small_tls.c", &["-ftls-model=initial-exec", "-DMORE=1000000"]));

        let file = gcc("small_tls.c", &["-ftls-model=initial-exec", "-DMORE=100"]);
        let fill = || {
            let mut libraries = Vec::new();
            // SAFETY: as above.
            while let Ok(library) = unsafe { Loader::new().load_any_way(&file) } {
                assert_eq!(call_run(&library), 42);
                libraries.push(library);
                assert!(libraries.len() < 10_000);
            }
            refused(&file);
            libraries
        };
        let mut libraries = fill();
        let room = libraries.len();
        assert!(room >= 3, "room for {room}");
        for library in &libraries {
            assert_eq!((call_run(library), number(library, "runs_of_this_thread")), (42, 2));
        }
        // What goes leaves its place, in which the next finds its initial values, in all threads.
        libraries.remove(0);
        libraries.push(load(&file));
        for library in &libraries {
            assert_eq!(call_run(library), 42);
        }
        drop(libraries);
        let libraries = fill();
        assert_eq!(libraries.len(), room, "places are lost");
        thread::scope(|scope| {
            scope.spawn(|| libraries.iter().for_each(|library| assert_eq!(call_run(library), 42)));
        });
    });
}

#[test]
fn constructors_and_destructors_run_in_order_with_the_arguments_of_the_process() {
    isolated(|| {
        let expected = "DT_INIT early late argv envp run ";
        let at_end = "first last DT_FINI";
        for linker in linkers() {
            let linker = format!("-fuse-ld={linker}");
            let flags = [&*linker, "-Wl,-init,init", "-Wl,-fini,fini"];
            let path = build("gcc", "loading/order.c", &flags);
            let file = fs::read(&path).unwrap();
            let ours = notes(|| drop(load(&file).close().unwrap()));
            let theirs = notes(|| assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42));
            assert_eq!(ours, theirs, "{linker}");
            assert!(!ours.contains("wrong"), "{ours}");
            assert!(ours.contains("atexit-2 atexit-1 "), "{ours}");
            let sorted = |text: &str| {
                let mut words: Vec<&str> = text.split(' ').collect();
                words.sort_unstable();
                words.join(" ")
            };
            let all = format!("{expected}atexit-2 atexit-1 {at_end}");
            assert_eq!(sorted(&ours), sorted(&all), "{linker}: {ours}");
            assert!(ours.starts_with("DT_INIT early ") && ours.ends_with("last DT_FINI"), "{ours}");
        }
    });
}

#[test]
fn destructors_run_when_the_process_ends_without_an_unload() {
    let named = |name: &str| gcc("prints_at_exit.c", &[&*format!("-DNAME=\"{name}\"")]);
    let output = isolated_output(|| {
        println!(); // ends the line of the test harness
        let forgotten = load(&named("forgotten"));
        let closed = load(&named("closed"));
        closed.close().unwrap();
        std::mem::forget(forgotten);
        std::mem::forget(load(&named("last")));
        println!("main ends");
        std::io::stdout().flush().unwrap();
        std::process::exit(7);
    });
    let Some(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{text}");
    let said: Vec<&str> = text
        .lines()
        .filter(|line| {
            ["handler", "destructor", "main ends"].iter().any(|word| line.starts_with(word))
        })
        .collect();
    let expected = [
        "handler of closed",
        "destructor of closed",
        "main ends",
        // exit() runs all handlers, the last registered first; then libraries end.
        "handler of last",
        "handler of forgotten",
        "destructor of last",
        "destructor of forgotten",
    ];
    let (mut a, mut b) = (said[..3].to_vec(), expected[..3].to_vec());
    a.sort_unstable();
    b.sort_unstable();
    assert_eq!((a, &said[3..]), (b, &expected[3..]), "{text}");
}

#[test]
fn unloading_unmaps() {
    let output = isolated_output(|| {
        let file = gcc("everything.c", &[]);
        drop(load(&file));
        // What is loaded for the second time in a row stays for the third.
        memdl::release_memory();
        let before = maps().len();
        let library = load(&file);
        let range = library.address_range();
        assert!(maps().len() > before);
        library.close().unwrap();
        let maps = maps();
        let overlaps =
            |line: &&MapsLine| line.range.start < range.end && range.start < line.range.end;
        let left: Vec<&MapsLine> = maps.iter().filter(overlaps).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(maps.len() <= before + 2 || is_sanitized(), "{before} mappings, {}", maps.len());
        println!("all gone");
        // SAFETY: not safe at all: the memory is gone, and that is what is to be seen.
        unsafe { std::ptr::read_volatile(range.start as *const u8) };
        println!("still there");
    });
    let Some(output) = output else { return };
    use std::os::unix::process::ExitStatusExt;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{text}");
    assert!(text.contains("all gone") && !text.contains("still there"), "{text}");
}

fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn many_rounds_of_loading_leave_nothing() {
    isolated(|| {
        let files = [
            gcc("everything.c", &["-g"]),
            gcc("tls.c", &["-g"]),
            gcc("ifunc.c", &["-Wl,-z,max-page-size=0x200000"]),
            fs::read(system_library("libz.so.1")).unwrap(),
        ];
        let round = || {
            for (index, file) in files.iter().enumerate() {
                let loader = Loader::new();
                if index < 3 {
                    drop(load_and_run(&loader, file, "round"));
                } else {
                    // SAFETY: libz has no constructors that do anything.
                    drop(unsafe { loader.load_any_way(file) }.unwrap());
                }
            }
            thread::spawn(|| ()).join().unwrap();
        };
        for _ in 0..30 {
            round();
        }
        let (maps_before, resident_before) = (maps().len(), resident_bytes());
        for _ in 0..200 {
            round();
        }
        let (maps_after, resident_after) = (maps().len(), resident_bytes());
        assert!(maps_after <= maps_before + 1, "{maps_before} mappings, then {maps_after}");
        let more = resident_after.saturating_sub(resident_before);
        assert!(more < 512 << 10, "{more} bytes more are resident after 200 rounds");
    });
}

thread_local! {
    static NESTED: RefCell<Option<Library>> = const { RefCell::new(None) };
}
static NESTED_BYTES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static DESTRUCTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn host_constructs() -> c_int {
    let library = load(&NESTED_BYTES.lock().unwrap());
    let result = call_run(&library);
    NESTED.with(|nested| *nested.borrow_mut() = Some(library));
    result
}

extern "C" fn host_destructs() -> c_int {
    DESTRUCTED.fetch_add(1, Ordering::Relaxed);
    NESTED.with(|nested| drop(nested.borrow_mut().take()));
    0
}

#[test]
fn constructors_and_destructors_may_load_and_unload() {
    isolated(|| {
        *NESTED_BYTES.lock().unwrap() = gcc("tls.c", &[]);
        let loader = Loader::new()
            .define("host_constructs", host_constructs as *const c_void)
            .define("host_destructs", host_destructs as *const c_void);
        let file = gcc("loads_another.c", &[]);
        for round in 1..=10 {
            let library = load_and_run(&loader, &file, "loads another");
            NESTED.with(|nested| assert!(nested.borrow().is_some()));
            library.close().unwrap();
            NESTED.with(|nested| assert!(nested.borrow().is_none()));
            assert_eq!(DESTRUCTED.load(Ordering::Relaxed), round);
        }
    });
}

/// What `dlopen` binds the reference of `whose.c` to, or `None` if it refuses it, is what memdl does,
/// after these libraries that define it were opened.
fn whose(opened: &[(&Path, c_int)]) -> Option<c_int> {
    let opened: Vec<Opened> =
        opened.iter().map(|&(path, flags)| Opened::new(path, RTLD_NOW | flags)).collect();
    let user = build("gcc", "loading/whose.c", &[]);
    let reference = Opened::try_new(&user, RTLD_NOW).map(|opened| opened.run());
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { Loader::new().load_any_way(&fs::read(&user).unwrap()) };
    match &library {
        Ok(library) => assert_eq!(Some(number(library, "run")), reference),
        Err(error) => {
            assert!(matches!(error, Error::Missing { .. }), "{error}");
            assert_eq!(None, reference);
        }
    }
    // What it is bound to stays with it.
    drop(opened);
    if let Ok(library) = &library {
        assert_eq!(Some(number(library, "run")), reference);
    }
    reference
}

#[test]
fn libraries_that_were_opened_define_for_whoever_sees_them() {
    isolated(|| {
        let [one, two] = ["1", "2"]
            .map(|number| build("gcc", "loading/whose.c", &[&format!("-DNUMBER={number}")]));
        let (one, two) = (&*one, &*two);
        for _ in 0..2 {
            assert_eq!(whose(&[]), None);
            assert_eq!(whose(&[(one, RTLD_LOCAL)]), None);
            assert_eq!(whose(&[(one, RTLD_GLOBAL)]), Some(1));
            assert_eq!(whose(&[(one, RTLD_LOCAL), (two, RTLD_GLOBAL)]), Some(2));
            assert_eq!(whose(&[(one, RTLD_GLOBAL), (two, RTLD_GLOBAL)]), Some(1));
            // Opened first, and seen second.
            let later = [(one, RTLD_LOCAL), (two, RTLD_GLOBAL), (one, RTLD_GLOBAL)];
            assert_eq!(whose(&later), Some(2));
        }
    });
}

#[test]
fn eight_threads_load_and_unload_at_once() {
    isolated(|| {
        let path = build("gcc", "loading/everything.c", &[]);
        let files = [gcc("everything.c", &["-g"]), gcc("tls.c", &[]), gcc("ifunc.c", &[])];
        let before = {
            files.iter().for_each(|file| drop(load(file)));
            maps().len()
        };
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for number in 0..8 {
                let (start, files, path) = (&start, &files, &path);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..40 {
                        let library = load(&files[(number + round) % files.len()]);
                        if number == 0 {
                            // `ld.so` at the same time.
                            assert_eq!(Opened::new(path, RTLD_NOW | RTLD_LOCAL).run(), 42);
                        }
                        drop(library);
                    }
                });
            }
        });
        // Stacks and heaps of threads may be kept for later: no image's mapping is, once memdl has
        // given back what it keeps for the next.
        memdl::release_memory();
        let after = maps();
        let is_little = after.len() <= before + 40 || is_sanitized();
        assert!(is_little, "{before} mappings, then {}: {after:#?}", after.len());
    });
}
