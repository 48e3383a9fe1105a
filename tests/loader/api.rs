//! The public API, name by name.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::{
    AnyWay, Opened, build, bytes, call_run, glibc, isolated, load_and_run, maps, notes, repository,
    system_library,
};
use goblin::elf::Elf;
use libc::{RTLD_LOCAL, RTLD_NOW};
use memdl::{
    Binding, DebugLevel, Error, ImageBuffer, Library, Limits, Loader, Scope, Symbol, SymbolKind,
    SymbolRequest, Template,
};

type Number = unsafe extern "C" fn() -> c_int;
type Function = unsafe extern "C" fn(c_int) -> c_int;

fn load(loader: &Loader, bytes: &[u8]) -> Library {
    // SAFETY: the libraries of `testlibs/` may be loaded anywhere.
    unsafe { loader.load(bytes) }.unwrap_or_else(|error| panic!("{error}"))
}

fn load_error(loader: &Loader, bytes: &[u8]) -> Error {
    // SAFETY: as above.
    unsafe { loader.load(bytes) }.expect_err("it was loaded")
}

/// Calls an `int name(int)`, or an `int name(void)`, which ignores what it is passed.
fn call(library: &Library, name: &str, argument: c_int) -> c_int {
    // SAFETY: the tests name only functions of these types that have no preconditions.
    unsafe { library.get::<Function>(name).unwrap()(argument) }
}

fn basics() -> Vec<u8> {
    bytes("gcc", "api/basics.c", &["-Wl,-soname,libbasics.so"])
}

/// A node of a graph of libraries, `lib<name>.so`, that needs others (see `testlibs/api/node.c`).
fn node(name: &str, needs: &[&str], flags: &[&str]) -> PathBuf {
    let stubs: Vec<PathBuf> = needs.iter().map(|needed| node(needed, &[], &[])).collect();
    let mut all = vec![
        format!("-DSELF={name}"),
        format!("-DSELF_CALLS={name}_calls"),
        format!("-Wl,-soname,lib{name}.so"),
        "-Wl,--no-as-needed".into(),
    ];
    for index in 0..3 {
        all.push(match needs.get(index) {
            Some(needed) => format!("-DNEED_{}={needed}", index + 1),
            None => continue,
        });
    }
    all.extend(stubs.iter().map(|stub| stub.to_str().unwrap().to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    build("gcc", "api/node.c", &all)
}

fn node_bytes(name: &str, needs: &[&str]) -> Vec<u8> {
    fs::read(node(name, needs, &["-DCOMMON"])).unwrap()
}

#[test]
fn from_bytes() {
    let file = basics();
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { Library::from_bytes(&file) }.unwrap();
    drop(file); // the bytes need not outlive the call
    assert_eq!(call(&library, "add", 36), 42);
    // SAFETY: it is not loaded.
    assert!(matches!(unsafe { Library::from_bytes(b"x") }, Err(Error::Malformed { .. })));
}

#[test]
fn get_functions_and_data() {
    let library = load(&Loader::new(), &basics());
    // SAFETY: the types are those of basics.c; nothing else uses the library.
    unsafe {
        let add: Symbol<'_, Function> = library.get("add").unwrap();
        assert_eq!(add(1), 7);
        let number: Symbol<'_, *mut c_int> = library.get("number").unwrap();
        assert_eq!(**number, 5);
        **number = 50;
        assert_eq!(add(1), 52);
        assert_eq!(number.as_raw_ptr(), number.clone().cast());
        let text = library.get::<*const c_char>("text").unwrap();
        assert_eq!(CStr::from_ptr(*text), c"twenty bytes");
        // Names are bytes as well as strings.
        assert_eq!(library.get::<Function>(b"add").unwrap().as_raw_ptr(), add.as_raw_ptr());
        assert_eq!(format!("{add:?}"), format!("Symbol({:p})", add.as_raw_ptr()));
    }
    for absent in ["ad", "addd", "more", "first", "", "add\0d", "_init "] {
        // SAFETY: not called.
        let error = unsafe { library.get::<Function>(absent) }.unwrap_err();
        let Error::SymbolNotFound { image, symbol, version: None, .. } = &error else {
            panic!("{absent:?}: {error}")
        };
        assert_eq!((&**image, &**symbol), ("libbasics.so", absent));
        let shown = absent.replace('\0', "\\u{0}");
        assert!(error.to_string().contains(&shown), "{error}");
    }
}

#[test]
fn get_a_thread_local() {
    let library = load(&Loader::new(), &basics());
    let address = || {
        // SAFETY: the calling thread's variable, read in that thread.
        let pointer = unsafe { *library.get::<*mut c_int>("per_thread").unwrap() };
        // SAFETY: as above.
        (pointer.addr(), unsafe { *pointer })
    };
    let (here, value) = address();
    assert_eq!(value, 7);
    assert_eq!(call(&library, "next_per_thread", 0), 8);
    assert_eq!(address(), (here, 8), "the same variable that the library's own code uses");
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            let first = address();
            assert_eq!(call(&library, "next_per_thread", 0), 8);
            assert_eq!(address(), (first.0, 8));
            first
        });
        let (there, value) = there.join().unwrap();
        assert_ne!(there, here);
        assert_eq!(value, 7);
    });
    assert_eq!(address(), (here, 8));
}

#[test]
fn get_an_ifunc() {
    let path = build("gcc", "api/basics.c", &["-Wl,-soname,libbasics.so"]);
    let library = load(&Loader::new(), &fs::read(&path).unwrap());
    // SAFETY: `int (void)`.
    let chosen = unsafe { library.get::<Number>("chosen").unwrap() };
    // SAFETY: as above.
    assert_eq!(unsafe { chosen() }, 2);
    let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
    assert_eq!(
        chosen.as_raw_ptr().addr() - library.load_bias(),
        opened.symbol("chosen", None).addr() - opened.load_bias(),
        "dlsym gives another function"
    );
    // SAFETY: `int (*(void))(void)`.
    let address_of = unsafe { library.get::<unsafe extern "C" fn() -> usize>("address_of_chosen") };
    // SAFETY: as above.
    assert_eq!(unsafe { address_of.unwrap()() }, chosen.as_raw_ptr().addr());
}

/// As `dlsym` with a handle: in the library, then in what it needs.
#[test]
fn get_looks_into_needed_libraries() {
    let loader = Loader::new().provide("libb.so", node_bytes("b", &["c"]));
    let loader = loader.provide("libc.so", node_bytes("c", &[]));
    let library = load(&loader, &node_bytes("a", &["b"]));
    for (name, expected) in [("a", 3), ("b", 2), ("c", 1)] {
        assert_eq!(call(&library, name, 2), expected, "{name}");
    }
    assert_eq!(call(&library, "common_name", 0), c_int::from(b'a'));
    // The C library is needed too.
    // SAFETY: only the addresses are looked at.
    let (ours, theirs) = unsafe {
        let theirs = libc::dlsym(libc::RTLD_DEFAULT, c"strlen".as_ptr());
        (library.get::<*mut c_void>("strlen").unwrap().as_raw_ptr(), theirs)
    };
    assert_eq!(ours, theirs);
}

#[test]
fn get_versioned() {
    let script =
        format!("-Wl,--version-script={}", repository("testlibs/loading/versions.map").display());
    let library = load(&Loader::new(), &bytes("gcc", "loading/versions.c", &[&script]));
    // SAFETY: `int (void)`.
    let number = |version| unsafe { library.get_versioned::<Number>("number", version) };
    // SAFETY: as above.
    unsafe {
        assert_eq!(number("TEST_1").unwrap()(), 1);
        assert_eq!(number("TEST_2").unwrap()(), 2);
        assert_eq!(library.get::<Number>("number").unwrap()(), 2);
    }
    let error = number("TEST_9").unwrap_err();
    assert!(matches!(&error, Error::SymbolNotFound { version: Some(v), .. } if v == "TEST_9"));
    assert!(
        error.to_string().contains("number") && error.to_string().contains("TEST_9"),
        "{error}"
    );
}

#[test]
fn close_and_drop() {
    isolated(|| {
        let file = node_bytes("a", &[]);
        let range = Cell::new(0..0);
        let noted = notes(|| {
            let library = load(&Loader::new(), &file);
            range.set(library.address_range());
            library.close().unwrap();
        });
        assert_eq!(noted, "+a -a ");
        let range = range.take();
        assert!(!maps().iter().any(|line| range.contains(&line.range.start)), "still mapped");
        assert_eq!(notes(|| drop(load(&Loader::new(), &file))), "+a -a ");
    });
}

#[test]
fn name_and_soname() {
    let (named, nameless) = (basics(), bytes("gcc", "api/basics.c", &[]));
    let loader = Loader::new().name("thumbnailer-7f3a");
    for (loader, file, name, soname) in [
        (&loader, &named, "thumbnailer-7f3a", Some("libbasics.so")),
        (&loader, &nameless, "thumbnailer-7f3a", None),
        (&Loader::new(), &named, "libbasics.so", Some("libbasics.so")),
        (&Loader::new(), &nameless, "image", None),
    ] {
        let library = load(loader, file);
        assert_eq!((library.name(), library.soname()), (name, soname));
        assert_eq!(loader.template(file).unwrap().name(), name);
        assert!(format!("{library:?}").contains(name));
    }
    let error = load_error(&loader, b"nothing");
    assert!(error.to_string().starts_with("thumbnailer-7f3a: "), "{error}");
}

#[test]
fn load_bias_and_address_range() {
    for flag in ["-Wl,-Ttext-segment=0", "-Wl,-Ttext-segment=0x400000"] {
        let file = bytes("gcc", "api/basics.c", &[flag]);
        let elf = Elf::parse(&file).unwrap();
        let loads = || elf.program_headers.iter().filter(|ph| ph.p_type == 1);
        let start = loads().map(|ph| ph.p_vaddr).min().unwrap() as usize;
        let end = loads().map(|ph| ph.p_vaddr + ph.p_memsz).max().unwrap() as usize;
        let library = load(&Loader::new(), &file);
        let (bias, range) = (library.load_bias(), library.address_range());
        assert_eq!(range.start, bias.wrapping_add(start) & !4095);
        assert_eq!(range.end, bias.wrapping_add(end).next_multiple_of(4096));
        let stated = elf.dynsyms.iter().find(|symbol| {
            elf.dynstrtab.get_at(symbol.st_name) == Some("add") && symbol.st_value != 0
        });
        // SAFETY: only the address is looked at.
        let add = unsafe { library.get::<Function>("add").unwrap().as_raw_ptr().addr() };
        assert_eq!(add.wrapping_sub(bias), stated.unwrap().st_value as usize);
        assert!(range.contains(&add));
        // Two loads of one file lie apart.
        assert_ne!(load(&Loader::new(), &file).load_bias(), bias);
    }
}

#[test]
fn symbols() {
    for hash in ["gnu", "sysv"] {
        let script = repository("testlibs/loading/versions.map");
        let script = format!("-Wl,--version-script={}", script.display());
        let hash = format!("-Wl,--hash-style={hash}");
        let versions = bytes("gcc", "loading/versions.c", &[&hash, &script]);
        let library = load(&Loader::new(), &versions);
        let listed: BTreeSet<_> = library
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Function)
            .map(|symbol| {
                let version = symbol.version().map(str::to_owned);
                (symbol.name().to_owned(), version, symbol.is_default_version())
            })
            .collect();
        let symbol = |name: &str, version: &str, default| {
            (name.to_owned(), Some(version.to_owned()), default)
        };
        let expected = [
            symbol("hidden_old", "TEST_1", false),
            symbol("number", "TEST_1", false),
            symbol("number", "TEST_2", true),
            symbol("run", "TEST_2", true),
        ];
        assert_eq!(listed, BTreeSet::from(expected), "{hash}");

        let file = bytes("gcc", "api/basics.c", &[&hash]);
        let library = load(&Loader::new(), &file);
        let elf = Elf::parse(&file).unwrap();
        let mut stated: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for symbol in
            elf.dynsyms.iter().filter(|symbol| symbol.st_shndx != 0 && symbol.st_name != 0)
        {
            let name = elf.dynstrtab.get_at(symbol.st_name).unwrap();
            stated.insert(name, (symbol.st_value as usize, symbol.st_size));
        }
        let mut kinds = HashMap::new();
        for symbol in library.symbols() {
            let (value, size) = stated.remove(symbol.name()).expect("a symbol of the file, once");
            let moved = match symbol.kind() {
                SymbolKind::ThreadLocal => value,
                _ => library.load_bias() + value,
            };
            assert_eq!((symbol.address(), symbol.size()), (moved, size), "{}", symbol.name());
            assert_eq!((symbol.version(), symbol.is_default_version()), (None, true));
            kinds.insert(symbol.name().to_owned(), symbol.kind());
        }
        assert!(stated.is_empty(), "not listed: {stated:?}");
        for (name, kind) in [
            ("add", SymbolKind::Function),
            ("number", SymbolKind::Object),
            ("text", SymbolKind::Object),
            ("per_thread", SymbolKind::ThreadLocal),
            ("chosen", SymbolKind::IndirectFunction),
        ] {
            assert_eq!(kinds[name], kind, "{name}");
        }
        for absent in ["first", "second", "more", "printf"] {
            assert!(!kinds.contains_key(absent), "{absent}");
        }
    }
}

#[test]
fn symbol_at() {
    let path = build("gcc", "api/basics.c", &["-Wl,--build-id=none"]);
    let library = load(&Loader::new(), &fs::read(&path).unwrap());
    let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
    let range = library.address_range();
    let mut named = BTreeSet::new();
    for address in range.clone() {
        let ours = library.symbol_at(address).map(|symbol| {
            named.insert(symbol.name().to_owned());
            symbol.address() - library.load_bias()
        });
        // `dladdr` of the same place is the reference.
        // SAFETY: writes one record.
        let theirs = unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            let there = address - library.load_bias() + opened.load_bias();
            let known = libc::dladdr(there as *const c_void, &mut info) != 0;
            (known && !info.dli_saddr.is_null()).then(|| info.dli_saddr.addr() - opened.load_bias())
        };
        assert_eq!(ours, theirs, "at {:#x}", address - library.load_bias());
    }
    for name in ["add", "number", "text", "next_per_thread"] {
        assert!(named.contains(name), "{name} is not in {named:?}");
    }
    for outside in [0, range.start - 1, range.end, usize::MAX] {
        assert!(library.symbol_at(outside).is_none(), "{outside:#x}");
    }
}

extern "C" fn host_function(value: c_int) -> c_int {
    value + 2
}
extern "C" fn no_parent() -> c_int {
    -7
}
static HOST_DATA: c_int = 40;

fn asks() -> Vec<u8> {
    bytes("gcc", "api/asks.c", &[])
}

fn with_host_symbols() -> Loader {
    Loader::new()
        .define("host_function", host_function as *const c_void)
        .define("host_data", (&raw const HOST_DATA).cast())
}

#[test]
fn define() {
    let library = load_and_run(&with_host_symbols(), &asks(), "define");
    assert_eq!(call(&library, "weak", 0), -1);
    // SAFETY: no preconditions.
    assert_eq!(call(&library, "parent", 0), unsafe { libc::getppid() });
    // It takes precedence over what the host exports itself, and satisfies weak references.
    let loader = with_host_symbols()
        .define("getppid", no_parent as *const c_void)
        .define("weak_function", host_function as *const c_void);
    let library = load_and_run(&loader, &asks(), "define");
    assert_eq!(call(&library, "parent", 0), -7);
    assert_eq!(call(&library, "weak", 0), 3);
    // A later definition replaces an earlier one.
    let loader = loader.define("getppid", host_function as *const c_void);
    assert_ne!(call(&load(&loader, &asks()), "parent", 0), -7);
    assert!(matches!(load_error(&Loader::new(), &asks()), Error::Missing { .. }));
}

#[test]
fn resolver() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let loader = Loader::new().name("asking").resolver(move |request: &SymbolRequest<'_>| {
        let entry = (request.name().to_owned(), request.version().map(str::to_owned));
        log.lock().unwrap().push((entry, request.is_weak(), request.requested_by().to_owned()));
        match request.name() {
            "host_function" | "weak_function" => Some(host_function as *const c_void),
            "host_data" => Some((&raw const HOST_DATA).cast()),
            _ => None,
        }
    });
    let library = load_and_run(&loader, &asks(), "resolver");
    assert_eq!((call(&library, "weak", 0), call(&library, "other_weak", 0)), (3, -1));
    let asked: BTreeSet<_> = asked.lock().unwrap().drain(..).collect();
    let request = |name: &str, weak| ((name.to_owned(), None::<String>), weak, "asking".to_owned());
    for expected in [
        request("host_function", false),
        request("host_data", false),
        request("weak_function", true),
        request("other_weak_function", true),
    ] {
        assert!(asked.contains(&expected), "{expected:?} is not in {asked:?}");
    }
    assert!(!asked.iter().any(|((name, _), ..)| name == "getppid"), "asked for what the host has");

    // What is defined is not asked for; what the resolver does not know is missing.
    let loader = Loader::new().resolver(|request| {
        assert_ne!(request.name(), "host_function");
        None
    });
    let error = load_error(&loader.define("host_function", host_function as _), &asks());
    let Error::Missing { symbols, .. } = &error else { panic!("{error}") };
    let names: Vec<&str> = symbols.iter().map(|symbol| &*symbol.name).collect();
    assert_eq!(names, ["host_data"]);
}

#[test]
fn depends_on() {
    isolated(|| {
        let (file, needed) = (node_bytes("a", &["b"]), node_bytes("b", &[]));
        let nameless = {
            // Without a DT_SONAME it goes by the name that it was given.
            let b = node("b", &[], &["-Wl,-soname,libother.so"]);
            fs::read(b).unwrap()
        };
        for (what, name, needed, found) in [
            ("by DT_SONAME", "whatever", &needed, true),
            ("by name", "libb.so", &nameless, true),
            ("neither", "whatever", &nameless, false),
        ] {
            let noted = notes(|| {
                let provider = load(&Loader::new().name(name), needed);
                let loader = Loader::new().depends_on(&provider);
                if !found {
                    let error = load_error(&loader, &file);
                    assert!(
                        matches!(&error, Error::Missing { libraries, .. } if libraries.len() == 1)
                    );
                    return;
                }
                let library = load(&loader, &file);
                drop((loader, provider));
                // Kept alive by what was bound to it.
                assert_eq!(call(&library, "a", 5), 2, "{what}");
                assert_eq!(call(&library, "b_calls", 0), 1, "{what}");
            });
            assert_eq!(noted, if found { "+b +a -a -b " } else { "+b -b " }, "{what}");
        }
        // What nothing needs is not kept, and does not join the scope.
        let noted = notes(|| {
            let unneeded = load(&Loader::new(), &node_bytes("u", &[]));
            let loader = Loader::new().depends_on(&unneeded);
            let library = load(&loader, &node_bytes("a", &[]));
            // SAFETY: not called.
            assert!(unsafe { library.get::<Function>("u") }.is_err());
            drop(loader);
            drop(unneeded);
            assert_eq!(call(&library, "a", 0), 1);
        });
        assert_eq!(noted, "+u +a -u -a ");
        // Two dependents share one provider.
        let provider = load(&Loader::new(), &needed);
        let loader = Loader::new().depends_on(&provider);
        let (one, two) = (load(&loader, &file), load(&loader, &file));
        assert_eq!((call(&one, "a", 1), call(&two, "a", 1)), (2, 2));
        assert_eq!(call(&provider, "b_calls", 0), 2);
        assert_eq!((call(&one, "a_calls", 0), call(&two, "a_calls", 0)), (1, 1));
    });
}

/// A graph of libraries: each with what it needs; the first is the one that is loaded.
type Graph = &'static [(&'static str, &'static [&'static str])];
const GRAPHS: &[(&str, Graph)] = &[
    ("chain", &[("a", &["b"]), ("b", &["d"]), ("d", &[])]),
    ("diamond", &[("a", &["b", "d"]), ("b", &["e"]), ("d", &["e"]), ("e", &[])]),
    ("circle", &[("a", &["b"]), ("b", &["d"]), ("d", &["a"])]),
    ("circle below", &[("a", &["b", "d"]), ("b", &["e"]), ("d", &["e"]), ("e", &["b"])]),
    ("two circles", &[("a", &["b", "d"]), ("b", &["a", "d"]), ("d", &["b", "e"]), ("e", &["e"])]),
    ("uneven", &[("a", &["b", "d", "e"]), ("b", &[]), ("d", &["f"]), ("e", &["b"]), ("f", &["e"])]),
    ("shared last", &[("a", &["b", "d"]), ("b", &["d", "e"]), ("d", &["e"]), ("e", &[])]),
];

/// Provided libraries are loaded once each, in the order, and with the bindings, of `dlopen`.
#[test]
fn provide() {
    isolated(|| {
        for (what, graph) in GRAPHS {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("api-provide").join(what);
            fs::create_dir_all(&folder).unwrap();
            let rpath = format!("-Wl,--disable-new-dtags,-rpath,{}", folder.display());
            let mut loader = Loader::new();
            let mut files = Vec::new();
            for (name, needs) in *graph {
                let file = fs::read(node(name, needs, &[&rpath])).unwrap();
                fs::write(folder.join(format!("lib{name}.so")), &file).unwrap();
                files.push(file);
            }
            for ((name, _), file) in graph.iter().zip(&files).skip(1) {
                loader = loader.provide(format!("lib{name}.so"), file.clone());
            }
            loader = loader.provide("libunneeded.so", b"never looked at".to_vec());

            let ours = Cell::new(0);
            let our_notes = notes(|| {
                let library = load(&loader, &files[0]);
                ours.set(call(&library, "a", 4));
                let calls = |name: &str| call(&library, &format!("{name}_calls"), 0);
                // Were one of them there twice, some of its calls would be in the other.
                assert_eq!(graph.iter().map(|(name, _)| calls(name)).sum::<c_int>(), ours.get());
            });
            let theirs = Cell::new(0);
            let their_notes = notes(|| {
                let opened = Opened::new(&folder.join("liba.so"), RTLD_NOW | RTLD_LOCAL);
                let function = opened.symbol("a", None);
                // SAFETY: `int (int)`.
                let function: Function = unsafe { std::mem::transmute(function) };
                // SAFETY: as above.
                theirs.set(unsafe { function(4) });
            });
            // In circles `dlclose` has an order of its own, which nothing prescribes; here it is
            // the reverse of the constructors' order, always.
            let (begins, ends) = our_notes.split_at(our_notes.find('-').unwrap());
            // So has `dlopen` before glibc 2.35, which sorts anew.
            assert!(
                their_notes.starts_with(begins) || glibc() < (2, 35) && what.contains("circle"),
                "{what}: {our_notes}, dlopen {their_notes}"
            );
            if !what.contains("circle") {
                assert_eq!(our_notes, their_notes, "{what}: the order");
            }
            let mut reversed: Vec<&str> = begins.split_terminator(' ').collect();
            reversed.reverse();
            assert_eq!(reversed.join(" ").replace('+', "-"), ends.trim_end(), "{what}");
            assert_eq!(ours, theirs, "{what}: the calls");
            assert_eq!(our_notes.matches('+').count(), graph.len(), "{what}: {our_notes}");
        }
    });
}

/// "Once per load group": a second load has its own.
#[test]
fn provided_libraries_are_not_shared_between_loads() {
    let loader = Loader::new().provide("libb.so", node_bytes("b", &[]));
    let file = node_bytes("a", &["b"]);
    let (one, two) = (load(&loader, &file), load(&loader, &file));
    assert_eq!((call(&one, "a", 1), call(&one, "a", 1), call(&two, "a", 1)), (2, 2, 2));
    assert_eq!((call(&one, "b_calls", 0), call(&two, "b_calls", 0)), (2, 1));
    // A dependent of the first finds its provided library through it.
    let dependent = load(&Loader::new().depends_on(&one), &node_bytes("x", &["b"]));
    assert_eq!(call(&dependent, "x", 1), 2);
    assert_eq!((call(&one, "b_calls", 0), call(&two, "b_calls", 0)), (3, 1));
}

#[test]
fn global() {
    isolated(|| {
        // It refers to `b`, but needs no library that has it.
        let user = bytes(
            "gcc",
            "api/node.c",
            &["-DCOMMON", "-DSELF=a", "-DSELF_CALLS=a_calls", "-DNEED_1=b"],
        );
        let file = node_bytes("b", &[]);
        let missing = |error: Error| {
            assert!(
                matches!(&error, Error::Missing { symbols, .. } if symbols.len() == 1),
                "{error}"
            );
        };
        let local = load(&Loader::new(), &file);
        missing(load_error(&Loader::new(), &user));
        let global = load(&Loader::new().global(true), &file);
        let library = load(&Loader::new(), &user);
        assert_eq!(call(&library, "a", 1), 2);
        assert_eq!((call(&global, "b_calls", 0), call(&local, "b_calls", 0)), (1, 0));
        // Global names come before the image's own, as with RTLD_GLOBAL.
        assert_eq!(call(&library, "whose_common_name", 0), c_int::from(b'b'));
        assert_eq!(
            call(&load(&Loader::new().scope(Scope::SelfFirst), &user), "whose_common_name", 0),
            c_int::from(b'a')
        );
        // It satisfies a DT_NEEDED entry too.
        let needs = load(&Loader::new(), &node_bytes("x", &["b"]));
        assert_eq!(call(&needs, "x", 1), 2);
        assert_eq!(call(&global, "b_calls", 0), 2);
        drop(needs);
        // What was bound to it keeps it, and then it is gone.
        let range = global.address_range();
        drop(global);
        assert_eq!(call(&library, "a", 1), 2);
        drop(library);
        assert!(!maps().iter().any(|line| range.contains(&line.range.start)), "it stays for ever");
        missing(load_error(&Loader::new(), &user));
    });
}

#[test]
fn system_libraries() {
    isolated(|| {
        let zlib = system_library("libz.so.1");
        let file = bytes("gcc", "api/uses_zlib.c", &["-Wl,--no-as-needed", zlib.to_str().unwrap()]);
        let is_open = || maps().iter().any(|line| line.name.contains("libz.so"));
        assert!(!is_open());
        let hardened = Loader::new().system_libraries(false);
        let error = load_error(&hardened, &file);
        let Error::Missing { libraries, .. } = &error else { panic!("{error}") };
        assert_eq!(libraries[0].name, "libz.so.1");
        assert!(error.to_string().contains("system_libraries(false) was chosen"), "{error}");
        assert!(!is_open());
        // What somebody has opened is in the process, and may be used.
        let opened = Opened::new(&zlib, RTLD_NOW | RTLD_LOCAL);
        let library = load_and_run(&hardened, &file, "opened before");
        drop(opened);
        assert_eq!(call_run(&library), 42, "it is kept as long as it is used");
        drop(library);
        assert!(!is_open());
        // Bytes for that name come before the system.
        let provided = Loader::new().provide("libz.so.1", fs::read(&zlib).unwrap());
        let library = load_and_run(&provided, &file, "provided");
        assert!(!is_open());
        drop(library);
        // Opened for an image it stays: it may have threads and handlers of its own.
        let library = load_and_run(&Loader::new(), &file, "the default");
        assert!(is_open());
        library.close().unwrap();
        assert!(is_open());
    });
}

#[test]
fn scope() {
    // `common_name` is in both; the host has none of that name, but for what is defined for it.
    let b = load(&Loader::new(), &node_bytes("b", &[]));
    // SAFETY: only the address is looked at.
    let b_common_name = unsafe { library_address(&b, "common_name") };
    let loader = Loader::new().define("common_name", b_common_name);
    let file = node_bytes("a", &[]);
    let whose = |scope| call(&load(&loader.clone().scope(scope), &file), "whose_common_name", 0);
    assert_eq!(whose(Scope::HostFirst), c_int::from(b'b'));
    assert_eq!(whose(Scope::SelfFirst), c_int::from(b'a'));
    assert_eq!(Scope::default(), Scope::HostFirst);
}

/// # Safety
/// The address must not be used once the library is gone.
unsafe fn library_address(library: &Library, name: &str) -> *const c_void {
    // SAFETY: the caller's promise.
    unsafe { library.get::<*mut c_void>(name).unwrap().as_raw_ptr() }
}

#[test]
fn binding() {
    for binding in [Binding::Now, Binding::Lazy] {
        let file = bytes("gcc", "loading/everything.c", &["-Wl,-z,lazy"]);
        load_and_run(&Loader::new().binding(binding), &file, &format!("{binding:?}"));
    }
    assert_eq!(Binding::default(), Binding::Now);
}

/// How many entries the list for debuggers has, and the size of the last.
fn debug_entries() -> (usize, u64) {
    let sizes = crate::common::debug_entries();
    (sizes.len(), sizes.last().copied().unwrap_or(0))
}

#[test]
fn debug() {
    isolated(|| {
        let file = bytes("gcc", "api/basics.c", &["-g3"]);
        let size = |debug| {
            assert_eq!(debug_entries().0, 0);
            let library = load(&Loader::new().debug(debug), &file);
            let (count, size) = debug_entries();
            assert_eq!(count, usize::from(debug != DebugLevel::Off), "{debug:?}");
            library.close().unwrap();
            assert_eq!(debug_entries().0, 0, "{debug:?}: an entry of an unloaded image");
            size
        };
        let (off, symbols, full) =
            (size(DebugLevel::Off), size(DebugLevel::Symbols), size(DebugLevel::Full));
        assert!(off == 0 && symbols > 0 && full > 2 * symbols, "{off} {symbols} {full}");
        assert_eq!(DebugLevel::default(), DebugLevel::Full);
        let two = (load(&Loader::new(), &file), load(&Loader::new(), &file));
        assert_eq!(debug_entries().0, 2);
        drop(two);
        // The operator's word counts more than the program's.
        // SAFETY: no other thread of this process looks at the environment.
        unsafe { std::env::set_var("MEMDL_DEBUG", "off") };
        let library = load(&Loader::new().debug(DebugLevel::Full), &file);
        assert_eq!(debug_entries().0, 0);
        drop(library);
    });
}

#[test]
fn limits() {
    let file = basics();
    let mut limits = Limits::default();
    limits.image_bytes = file.len() as u64;
    load(&Loader::new().limits(limits.clone()), &file);
    limits.image_bytes -= 1;
    let error = load_error(&Loader::new().limits(limits.clone()), &file);
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    // Provided images are images.
    let loader = Loader::new().limits(limits);
    let error =
        load_error(&loader.provide("libb.so", vec![0; file.len()]), &node_bytes("a", &["b"]));
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

/// A reader that gives a few bytes at a time, and is interrupted now and then.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = (self.1 + 1) % 5;
        if self.1 == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(self.0.len()).min(997);
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

#[test]
fn image_buffer_and_load_buffer() {
    let file = basics();
    let mut received = ImageBuffer::new(file.len()).unwrap();
    assert!(received.iter().all(|&byte| byte == 0), "not zero");
    assert_eq!((received.len(), received.as_ptr().addr() % 4096), (file.len(), 0));
    received.copy_from_slice(&file);
    let mut buffers = vec![received];
    for size_hint in [0, 1, file.len() - 1, file.len(), file.len() + 1, 10 * file.len()] {
        buffers.push(ImageBuffer::read_from(Slow(&file, 0), size_hint).unwrap());
    }
    for buffer in buffers {
        assert!(buffer[..] == file[..], "other bytes");
        // Filled here, loaded there.
        let library = thread::spawn(move || {
            // SAFETY: a library of `testlibs/`.
            unsafe { Loader::new().load_buffer(buffer) }.unwrap()
        });
        let library = library.join().unwrap();
        assert_eq!(call(&library, "add", 36), 42);
        // SAFETY: `number` is an int.
        unsafe { **library.get::<*mut c_int>("number").unwrap() = 6 };
        assert_eq!(call(&library, "add", 35), 42);
    }
    assert_eq!(ImageBuffer::new(0).unwrap().len(), 0);
    assert_eq!(ImageBuffer::read_from(&b""[..], 100).unwrap().len(), 0);
    // SAFETY: it is not loaded.
    let empty = unsafe { Loader::new().load_buffer(ImageBuffer::new(0).unwrap()) };
    assert!(matches!(empty, Err(Error::Malformed { .. })));
    assert!(matches!(ImageBuffer::new(usize::MAX), Err(Error::System { .. })));
    assert!(matches!(ImageBuffer::new(1 << 60), Err(Error::System { .. })));

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line is dead"))
        }
    }
    // A reader that lies is safe code.
    struct Lying(usize);
    impl Read for Lying {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len().wrapping_add(self.0))
        }
    }
    for more in [1, 5000, usize::MAX - 200] {
        let error = ImageBuffer::read_from(Lying(more), 100).unwrap_err();
        assert!(error.to_string().contains("more than there was room for"), "{error}");
    }
    let error = ImageBuffer::read_from(Broken, 100).unwrap_err();
    assert!(matches!(error, Error::System { .. }), "{error}");
    assert!(error.to_string().contains("the line is dead"), "{error}");
}

#[test]
fn prepare_and_instantiate() {
    isolated(|| {
        let template = {
            let file = node_bytes("a", &["b"]);
            let loader = Loader::new().name("many").provide("libb.so", node_bytes("b", &[]));
            let prepared = Cell::new(None);
            assert_eq!(notes(|| prepared.set(loader.template(&file).ok())), "", "code has run");
            prepared.take().unwrap()
            // Bytes and loader go here.
        };
        // SAFETY: libraries of `testlibs/`.
        let instantiate = |template: &Template| unsafe { template.instantiate() }.unwrap();
        assert_eq!((template.name(), instantiate(&template).name()), ("many", "many"));
        let noted = notes(|| {
            let one = instantiate(&template);
            let two = instantiate(&template.clone());
            assert_ne!(one.load_bias(), two.load_bias());
            assert_eq!((call(&one, "a", 1), call(&one, "a", 1), call(&two, "a", 1)), (2, 2, 2));
            assert_eq!((call(&one, "a_calls", 0), call(&two, "a_calls", 0)), (2, 1));
            assert_eq!((call(&one, "b_calls", 0), call(&two, "b_calls", 0)), (2, 1));
            drop(one);
            assert_eq!(call(&two, "a", 1), 2);
        });
        assert_eq!(noted, "+b +a +b +a -a -b -a -b ");

        // Data and thread-local variables are as the file has them, in each, whatever ran before.
        let template = Loader::new().template(&bytes("gcc", "loading/everything.c", &[])).unwrap();
        let libraries: Vec<Library> = (0..5).map(|_| instantiate(&template)).collect();
        libraries.iter().for_each(|library| assert_eq!(call_run(library), 42));
        drop(libraries);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..20).for_each(|_| assert_eq!(call_run(&instantiate(&template)), 42))
                });
            }
        });
    });
}

#[test]
fn a_loader_can_be_cloned_and_used_again() {
    let loader = with_host_symbols().name("first");
    let other = loader.clone().name("second").define("host_function", no_parent as *const c_void);
    let (one, two) = (load(&loader, &asks()), load(&other, &asks()));
    assert_eq!((one.name(), call_run(&one)), ("first", 42));
    assert_eq!((two.name(), call_run(&two)), ("second", -7));
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(call_run(&load(&loader, &asks())), 42));
    });
    assert!(format!("{loader:?}").contains("first"));
}

/// Pinned: programs rely on it.
#[test]
fn markers() {
    const fn send_and_sync<T: Send + Sync>() {}
    const fn send<T: Send>() {}
    const {
        send_and_sync::<Library>();
        send_and_sync::<Loader>();
        send_and_sync::<Template>();
        send_and_sync::<Error>();
        send_and_sync::<Limits>();
        send_and_sync::<Symbol<'static, Function>>();
        send::<ImageBuffer>();
    }
    const fn clone_and_debug<T: Clone + std::fmt::Debug>() {}
    const {
        clone_and_debug::<Loader>();
        clone_and_debug::<Template>();
        clone_and_debug::<Symbol<'static, Function>>();
    }
    fn is_error<T: std::error::Error + 'static>() {}
    is_error::<Error>();
}

/// As libloading's users write it.
#[test]
fn a_name_may_be_text_bytes_or_a_c_string_with_or_without_its_nul() {
    let library = load(&Loader::new(), &node_bytes("b", &[]));
    // SAFETY: only the addresses are compared.
    let addresses = unsafe {
        [
            library.get::<*mut c_void>("common_name").map(Symbol::into_raw),
            library.get::<*mut c_void>("common_name\0").map(Symbol::into_raw),
            library.get::<*mut c_void>(b"common_name").map(Symbol::into_raw),
            library.get::<*mut c_void>(b"common_name\0").map(Symbol::into_raw),
            library.get::<*mut c_void>(b"common_name\0".as_slice()).map(Symbol::into_raw),
            library.get::<*mut c_void>(c"common_name").map(Symbol::into_raw),
            library.get::<*mut c_void>(c"common_name".to_owned()).map(Symbol::into_raw),
            library.get::<*mut c_void>(String::from("common_name")).map(Symbol::into_raw),
        ]
    };
    let first = *addresses[0].as_ref().unwrap();
    for (index, address) in addresses.into_iter().enumerate() {
        assert_eq!(address.unwrap(), first, "{index}");
    }
    // A NUL elsewhere, and a second one, are part of the name.
    for name in [&b"common_name\0\0"[..], b"common\0name"] {
        // SAFETY: not used.
        assert!(unsafe { library.get::<*mut c_void>(name) }.is_err());
    }
}
