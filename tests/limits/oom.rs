//! Without memory: a failed allocation is an error, never ends the process, and leaves everything as it was.
//!
//! The allocator of this executable refuses on demand. So each test tells which it was that was refused.

use std::ffi::c_int;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::Ordering;

use crate::allocator::{IDLE, LAST, Mode, STATE, State};
use crate::common::{
    build, debug_entries, exit_status, in_child, is_sanitized, isolated, limited_own_test, maps,
    name_of, run, small_stack, zstd,
};
use memdl::{DebugLevel, Error, ImageBuffer, Library, Loader, Pool, Reset, Template};

/// A single allocation of memdl's that is larger than this can fail: what lib.rs promises.
const LARGEST: usize = 16 << 10;

/// What the next [`armed`] call does.
static NEXT: std::sync::Mutex<Option<Mode>> = std::sync::Mutex::new(None);

/// Runs `body` with what was refused counted. Only in a test that is alone in its process.
fn armed<R>(body: impl FnOnce() -> R) -> (R, State) {
    let mode = *NEXT.lock().unwrap();
    STATE.set(State { mode, ..IDLE });
    let result = body();
    let state = STATE.replace(IDLE);
    (result, state)
}

/// An image, and how it is loaded.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    loader: Loader,
    /// Its debug information, in a file of its own.
    separate: Option<Vec<u8>>,
    /// How often each thing is done with it at most, since it takes its time.
    most: usize,
    /// With this many bytes there is no error, but a smaller result.
    not_enough: u64,
}

impl Case {
    fn new(name: &'static str, most: usize, bytes: Vec<u8>) -> Case {
        let loader = Loader::new().name(name).system_libraries(true);
        Case { name, bytes, loader, separate: None, most, not_enough: 1 << 19 }
    }

    /// Whether this is done with it: what is large takes its time.
    fn wants(&self, action: &str) -> bool {
        match self.name {
            "rust" => ["load", "load portable", "symbols to full", "symbolize"].contains(&action),
            "zlib" | "zstd" => ["load portable", "symbols to full"].contains(&action),
            _ => true,
        }
    }

    fn load(&self) -> Result<Library, Error> {
        // SAFETY: a test library.
        unsafe { self.loader.load(&self.bytes) }
    }

    fn prepare(&self, debug: DebugLevel) -> Result<Template, Error> {
        // SAFETY: a test library, that needs none but the system's.
        unsafe { self.loader.clone().debug(debug).prepare(&self.bytes) }
    }
}

fn file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The image with its debug sections compressed, and what can be split off it.
fn objcopy(library: &std::path::Path, name: &str, flags: &[&str]) -> Vec<u8> {
    let output = file(&format!("{name}-{}.so", std::process::id()));
    run(Command::new("objcopy").args(flags).arg(library).arg(&output), "binutils");
    let bytes = fs::read(&output).unwrap();
    fs::remove_file(output).unwrap();
    bytes
}

/// An image whose entries are in a package (of DWARF 4: GNU `dwp` knows no other), with that: joining them is gimli's work.
fn packaged() -> Case {
    let folder = file(&format!("packaged-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let source = crate::common::repository("testlibs/tls/variables.c");
    let mut compile = Command::new("gcc");
    compile
        .args(["-O1", "-gdwarf-4", "-gsplit-dwarf", "-shared", "-fPIC", "-o", "image"])
        .arg(source);
    run(compile.current_dir(&folder), "gcc");
    run(
        Command::new("dwp").args(["-e", "image", "-o", "package"]).current_dir(&folder),
        "binutils",
    );
    let [image, package] = ["image", "package"].map(|name| fs::read(folder.join(name)).unwrap());
    fs::remove_dir_all(folder).unwrap();
    let mut case = Case::new("packaged", 8, image);
    case.loader = case.loader.debug_info(package);
    // The thread that does it has a stack of 4 MiB.
    case.not_enough = 4 << 20;
    case
}

/// One of each kind of what costs memory.
fn cases() -> Vec<Case> {
    let tiny = build("gcc", "bench/tiny.c", &["-O2", "-g"]);
    let classes = build("g++", "debug/classes.cc", &["-g", "-O1"]);
    let tls = build("gcc", "tls/variables.c", &["-O1", "-g"]);
    let bss = build("gcc", "oom/bss.c", &["-O1", "-g"]);
    let needed: Vec<(String, Vec<u8>)> = (0..40)
        .map(|number| {
            let name = format!("libneeded{number}.so");
            let flag = format!("-Wl,-soname,{name}");
            (name, fs::read(build("gcc", "bench/tiny.c", &["-O2", "-g", &flag])).unwrap())
        })
        .collect();
    let mut case = Case::new("needs", 6, {
        let libraries: Vec<String> = (0..40)
            .map(|number| {
                let flag = format!("-Wl,-soname,libneeded{number}.so");
                build("gcc", "bench/tiny.c", &["-O2", "-g", &flag]).to_str().unwrap().to_owned()
            })
            .collect();
        let mut flags = vec!["-O2", "-Wl,--no-as-needed"];
        flags.extend(libraries.iter().map(|it| &**it));
        fs::read(build("gcc", "foo.c", &flags)).unwrap()
    });
    for (name, bytes) in needed {
        case.loader = case.loader.provide(name, bytes);
    }
    let mut stripped = Case::new("stripped", 10, objcopy(&classes, "stripped", &["--strip-debug"]));
    stripped.separate = Some(objcopy(&classes, "separate", &["--only-keep-debug"]));
    // Some MB of DWARF: the standard library's.
    let rust = build("rustc", "debug/rustlib.rs", &["-g"]);
    let compressed = |kind: &'static str, most| {
        let flag = format!("--compress-debug-sections={kind}");
        Case::new(kind, most, objcopy(&rust, kind, &[&flag]))
    };
    // Entries in a file of their own, with thread-local variables: tables that gimli reads.
    let split = build("gcc", "tls/variables.c", &["-O1", "-gsplit-dwarf", "-gdwarf-4"]);
    vec![
        Case::new("tiny", 20, fs::read(tiny).unwrap()),
        Case::new("rust", 2, fs::read(&rust).unwrap()),
        compressed("zlib", 1),
        compressed(zstd(), 1),
        Case::new("split", 12, fs::read(split).unwrap()),
        packaged(),
        Case::new("many", 5, fs::read(build("gcc", "oom/many.S", &[])).unwrap()),
        Case::new("bss", 12, fs::read(bss).unwrap()),
        Case::new("tls", 20, fs::read(tls).unwrap()),
        stripped,
        case,
    ]
}

/// How it went, and how often memory was refused.
struct Outcome {
    state: State,
    error: Option<Error>,
}

/// Takes an instance and gives it back, so that the second time it is used again.
fn use_twice(pool: &Pool) -> Result<(), Error> {
    for _ in 0..2 {
        // SAFETY: a test library.
        drop(unsafe { pool.acquire() }?);
    }
    Ok(())
}

fn outcome<T>((result, state): (Result<T, Error>, State)) -> Outcome {
    Outcome { state, error: result.err() }
}

/// All that can be done with an image; in each, what [`armed`] runs may be refused memory.
type Action = (&'static str, fn(&Case) -> Outcome);

const FORMS: [DebugLevel; 4] =
    [DebugLevel::Symbols, DebugLevel::Portable, DebugLevel::Off, DebugLevel::Full];

fn set_debug(case: &Case, from: DebugLevel, to: DebugLevel) -> Outcome {
    // SAFETY: a test library.
    let library = unsafe { case.loader.clone().debug(from).load(&case.bytes) }.unwrap();
    let (result, state) = armed(|| library.set_debug(to));
    if result.is_err() {
        // It can be told again.
        library.set_debug(to).unwrap();
    }
    outcome((result, state))
}

const ACTIONS: &[Action] = &[
    ("load", |case| outcome(armed(|| case.load()))),
    ("load portable", |case| {
        let loader = case.loader.clone().debug(DebugLevel::Portable);
        // SAFETY: a test library.
        outcome(armed(|| unsafe { loader.load(&case.bytes) }))
    }),
    ("load lazily", |case| {
        let loader = case.loader.clone().binding(memdl::Binding::Lazy).debug(DebugLevel::Off);
        // SAFETY: a test library.
        outcome(armed(|| unsafe { loader.load(&case.bytes) }))
    }),
    ("load of a buffer", |case| {
        let load = || {
            let mut buffer = ImageBuffer::new(case.bytes.len())?;
            buffer.copy_from_slice(&case.bytes);
            // SAFETY: a test library.
            unsafe { case.loader.load_buffer(buffer) }
        };
        outcome(armed(load))
    }),
    ("prepare", |case| {
        let loader = case.loader.clone();
        // SAFETY: a test library, that needs none but the system's.
        outcome(armed(|| unsafe { loader.prepare(&case.bytes) }))
    }),
    ("prepare to share", |case| {
        let loader = case.loader.clone().debug(DebugLevel::Off);
        // SAFETY: as above.
        outcome(armed(|| unsafe { loader.prepare(&case.bytes) }))
    }),
    ("instantiate", |case| {
        let template = case.prepare(DebugLevel::Full).unwrap();
        // SAFETY: a test library.
        outcome(armed(|| unsafe { template.instantiate() }))
    }),
    ("instantiate to share", |case| {
        let template = case.prepare(DebugLevel::Off).unwrap();
        // SAFETY: a test library.
        outcome(armed(|| unsafe { template.instantiate() }))
    }),
    ("pool", |case| {
        let template = case.prepare(DebugLevel::Off).unwrap();
        let pool = template.pool(2);
        outcome(armed(|| use_twice(&pool)))
    }),
    ("pool before constructors", |case| {
        let template = case.prepare(DebugLevel::Full).unwrap();
        let pool = template.pool(2).reset_to(Reset::BeforeConstructors);
        outcome(armed(|| use_twice(&pool)))
    }),
    ("unload", |case| {
        let library = case.load().unwrap();
        outcome(armed(|| library.close()))
    }),
    ("off to symbols", |case| set_debug(case, DebugLevel::Off, DebugLevel::Symbols)),
    ("symbols to full", |case| set_debug(case, DebugLevel::Symbols, DebugLevel::Full)),
    ("full to portable", |case| set_debug(case, DebugLevel::Full, DebugLevel::Portable)),
    ("full to off", |case| set_debug(case, DebugLevel::Full, DebugLevel::Off)),
    ("debug information", |case| {
        let library = case.load().unwrap();
        let file = case.separate.as_ref().unwrap_or(&case.bytes);
        let (result, state) = armed(|| library.set_debug_info(file));
        match result {
            Err(Error::DebugInfo { .. }) => Outcome { state, error: None },
            other => outcome((other, state)),
        }
    }),
    ("symbolize", |case| {
        let library = case.load().unwrap();
        let at = some_function(&library);
        let (frames, state) = armed(|| memdl::symbolize(at));
        // There is no error: without memory it says less, or nothing.
        assert!(state.refused > 0 || !frames.is_empty(), "{}", case.name);
        Outcome { state, error: None }
    }),
    ("look up", |case| {
        let library = case.load().unwrap();
        // SAFETY: only its address is looked at.
        let find = || unsafe { library.get::<*const u8>("no such name").is_ok() };
        let (found, state) = armed(find);
        assert!(!found);
        Outcome { state, error: None }
    }),
    ("list", |case| {
        let library = case.load().unwrap();
        let (images, state) = armed(memdl::images);
        // There is no error: it is whole, or empty.
        let is_there = |it: &memdl::ImageInfo| it.address_range() == library.address_range();
        assert_eq!(images.iter().any(is_there), !images.is_empty(), "{}", case.name);
        assert!(state.refused > 0 || !images.is_empty(), "{}", case.name);
        Outcome { state, error: None }
    }),
    ("symbols", |case| {
        let library = case.load().unwrap();
        let (count, state) = armed(|| library.symbols().count());
        assert!(count > 0);
        Outcome { state, error: None }
    }),
];

fn some_function(library: &Library) -> usize {
    let mut functions = library.symbols();
    functions.find(|it| it.kind() == memdl::SymbolKind::Function).unwrap().address()
}

static ACTION: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

/// Tells what was going on when the process ended.
extern "C" fn at_abort(_: c_int) {
    STATE.set(IDLE);
    if let Ok(action) = ACTION.try_lock() {
        eprintln!("aborted: {action}, refused: {} bytes", LAST.load(Ordering::Relaxed));
    }
    // SAFETY: as it would have ended.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        libc::abort();
    }
}

/// Does it, with memory refused as `mode` says. How it went, or `None` if nothing was refused.
fn refuse(case: &Case, action: &Action, mode: Mode) -> Option<Outcome> {
    *ACTION.lock().unwrap() = format!("{} of {}, {mode:?}", action.0, case.name);
    *NEXT.lock().unwrap() = Some(mode);
    let result = catch_unwind(AssertUnwindSafe(|| (action.1)(case)));
    STATE.set(IDLE);
    *NEXT.lock().unwrap() = None;
    let what = || format!("{} of {}, {mode:?}", action.0, case.name);
    let result = result.unwrap_or_else(|_| panic!("panicked: {}", what()));
    if result.state.refused == 0 {
        if let Some(error) = result.error {
            panic!("{}: nothing was refused, but: {error}", what());
        }
        return None;
    }
    if let Some(error) = &result.error {
        let is_clean = match error {
            Error::OutOfMemory { .. } => true,
            Error::System { error, .. } => error.kind() == std::io::ErrorKind::OutOfMemory,
            _ => false,
        };
        assert!(is_clean, "{}: {error}", what());
    }
    Some(result)
}

fn set_up() {
    // SAFETY: the handler ends the process.
    unsafe { libc::signal(libc::SIGABRT, at_abort as *const () as usize) };
}

/// Which of them are wanted, by the beginning of what it is called: `load of tiny`.
fn only() -> Option<String> {
    std::env::var("MEMDL_TEST_ONLY").ok()
}

/// Every case and action.
fn for_each(mut body: impl FnMut(&Case, &Action)) {
    set_up();
    let only = only().unwrap_or_default();
    for case in cases() {
        for action in ACTIONS.iter().filter(|it| case.wants(it.0)) {
            let name = format!("{} of {}", action.0, case.name);
            if name.starts_with(&only) {
                // What is made once in a process is there, and stays. The third load of the same bytes leaves memory
                // for the next.
                for _ in 0..3 {
                    refuse(&case, action, Mode::Budget { bytes: usize::MAX >> 1 });
                }
                let (before, entries) = (maps().len(), debug_entries());
                body(&case, action);
                refuse(&case, action, Mode::Budget { bytes: usize::MAX >> 1 });
                let after = maps().len();
                assert!(
                    after <= before + 4 || is_sanitized(),
                    "{} of {}: {before}, {after}",
                    action.0,
                    case.name
                );
                assert_eq!(debug_entries(), entries, "{} of {}", action.0, case.name);
            }
        }
    }
}

#[test]
fn each_large_allocation_can_fail() {
    isolated(|| {
        let (mut refused, mut failed) = (0, 0);
        for_each(|case, action| {
            *NEXT.lock().unwrap() = Some(Mode::One { above: LARGEST, number: usize::MAX });
            let count = (action.1)(case).state.seen;
            for number in (0..count).step_by(count.div_ceil(case.most).max(1)) {
                let one = Mode::One { above: LARGEST, number };
                let Some(result) = refuse(case, action, one) else { break };
                refused += 1;
                failed += usize::from(result.error.is_some());
                refuse(case, action, Mode::From { above: LARGEST, number });
            }
        });
        println!("{refused} refused, {failed} failed");
        assert!(failed > 100 || only().is_some(), "{failed} of {refused}");
    });
}

#[test]
fn whatever_the_budget_it_is_an_error() {
    isolated(|| {
        let mut failed = 0;
        for_each(|case, action| {
            let all = Mode::Budget { bytes: usize::MAX >> 1 };
            *NEXT.lock().unwrap() = Some(all);
            let most = (action.1)(case).state.most.max(0) as usize;
            let steps = 2 * case.most;
            for step in 0..steps {
                let bytes = most * step / steps;
                failed += usize::from(refuse(case, action, Mode::Budget { bytes }).is_some());
            }
        });
        println!("{failed} failed");
        assert!(failed > 400 || only().is_some(), "{failed}");
    });
}

/// How much of a process's address space is in use.
fn address_space() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

/// In a child that is limited to `more` bytes of address space than this process has in use, does all
/// with an image, one thing after the other. Whether all of it was done; a signal is a failure.
fn under_limit(case: &Case, more: u64) -> bool {
    let limit = address_space() + more;
    // This process has one thread that does anything.
    let status = in_child(60, || {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: reads a local.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
        match catch_unwind(AssertUnwindSafe(|| everything(case))) {
            Ok(Ok(())) => 0,
            Ok(Err(_)) => 1,
            Err(_) => 2,
        }
    });
    let code = exit_status(status);
    assert!(
        matches!(code, Some(0 | 1)),
        "{} with {more} bytes: signal {}, exit {code:?}",
        case.name,
        libc::WTERMSIG(status)
    );
    code == Some(0)
}

/// All that can be done with an image.
fn everything(case: &Case) -> Result<(), Error> {
    let library = case.load()?;
    let at = some_function(&library);
    let frames = memdl::symbolize(at);
    // SAFETY: only its address is looked at.
    let found = unsafe { library.get::<*const u8>("no such name") }.map(drop);
    let count = library.symbols().count();
    let told = FORMS.map(|form| library.set_debug(form));
    let file = case.separate.as_ref().unwrap_or(&case.bytes);
    let given = library.set_debug_info(file);
    library.close()?;
    let template = case.prepare(DebugLevel::Off)?;
    // SAFETY: a test library.
    let instance = unsafe { template.instantiate()? };
    let pool = template.pool(2);
    for _ in 0..2 {
        // SAFETY: a test library.
        unsafe { pool.acquire()? }.release();
    }
    drop((instance, pool, template));
    let mut buffer = ImageBuffer::new(case.bytes.len())?;
    buffer.copy_from_slice(&case.bytes);
    // SAFETY: a test library.
    let library = unsafe { case.loader.load_buffer(buffer)? };
    drop(library);
    told.into_iter().collect::<Result<Vec<()>, _>>()?;
    assert!(count > 0);
    if !matches!(given, Err(Error::DebugInfo { .. })) {
        given?;
    }
    // What has no way to tell that there is no memory says less.
    assert!(frames.iter().all(|frame| frame.image() == case.name));
    match found {
        Err(Error::SymbolNotFound { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => panic!("found"),
    }
}

#[test]
fn whatever_the_limit_of_address_space_nothing_aborts() {
    const STEPS: u64 = 160;
    // One heap for all threads, which the limit counts as it grows; other heaps reserve 64 MiB.
    if std::env::var("MALLOC_ARENA_MAX").is_err() {
        let test = name_of(&whatever_the_limit_of_address_space_nothing_aborts);
        // Its children have limits of their own.
        let out = run(limited_own_test(1200, test).env("MALLOC_ARENA_MAX", "1"), "coreutils");
        assert!(out.contains("running 1 test"), "{out}");
        println!("{out}");
        return;
    }
    set_up();
    for case in cases() {
        // With this much all works. Nothing was loaded in this process: each child finds out all
        // that is found out once.
        let mut enough = 2 * case.not_enough;
        while !under_limit(&case, enough) {
            enough *= 2;
            assert!(enough < 4 << 30, "{}", case.name);
        }
        let steps = match case.name {
            "tiny" | "stripped" | "packaged" => STEPS,
            "rust" | "zlib" | "zstd" => STEPS / 10,
            _ => STEPS / 4,
        };
        let worked = (0..steps).filter(|step| under_limit(&case, enough * step / steps)).count();
        println!("{}: {enough} bytes are enough, {worked} of {steps} worked", case.name);
        assert!(worked < steps as usize);
    }
}

#[test]
fn a_small_stack_is_enough() {
    isolated(|| {
        for case in cases() {
            let done = std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().stack_size(small_stack());
                thread.spawn_scoped(scope, || everything(&case)).unwrap().join()
            });
            done.unwrap().unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    });
}
