//! Thread-local storage: every model, in every kind of thread, through loads, unloads and forks.
//! `dlopen` of the same file is the reference wherever it can do it at all.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    AnyWay, Opened, build, call_run, glibc, is_over, isolated, isolated_with, load_and_run,
    machine, run, system_library,
};
use crate::helpers::{Number, OldThread, function, opened_function, read};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_TLS;
use libc::{RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use memdl::{Error, Library, Loader};

type Address = extern "C" fn() -> *mut c_int;

const GENERAL: &[&str] = &[machine::CALLS, "-ftls-model=global-dynamic"];
const LOCAL: &[&str] = &[machine::CALLS, "-ftls-model=local-dynamic"];
const DESCRIPTORS: &[&str] = &[machine::DESCRIPTORS];
const INITIAL_EXEC: &[&str] = &["-ftls-model=initial-exec"];
const MODELS: [&[&str]; 4] = [GENERAL, LOCAL, DESCRIPTORS, INITIAL_EXEC];

fn gcc(source: &str, flags: &[&str]) -> PathBuf {
    build("gcc", &format!("tls/{source}"), &[&["-O1"], flags].concat())
}

fn load(path: &Path) -> Library {
    // SAFETY: a library of `testlibs/`, which may be loaded anywhere.
    unsafe { Loader::new().load_any_way(&read(path)) }
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An `int name(void)`, by the convention of `testlibs/tls`, called while the library is there.
fn number(library: &Library, name: &str) -> Number {
    function(library, name)
}

fn address(library: &Library, name: &str) -> Address {
    function(library, name)
}

fn in_new_thread(function: Number) -> c_int {
    thread::spawn(move || function()).join().unwrap()
}

/// `fresh` in the main, an older and new threads, then `used`.
fn check_threads(fresh: Number, used: Number, old: &OldThread, what: &str) {
    assert_eq!((fresh(), used()), (42, 42), "{what}: this thread");
    assert_eq!((old.call(fresh), old.call(used)), (42, 42), "{what}: an older thread");
    for _ in 0..3 {
        let in_new = thread::spawn(move || (fresh(), used())).join().unwrap();
        assert_eq!(in_new, (42, 42), "{what}: a new thread");
    }
    assert_eq!((used(), old.call(used)), (42, 42), "{what}: afterwards");
}

#[test]
fn every_model_alignment_and_size_in_every_thread() {
    isolated(|| {
        let old = OldThread::start();
        for model in MODELS {
            // The pool of initial exec has no room for more.
            let sizes: &[(usize, usize)] = match model {
                INITIAL_EXEC => &[(16, 8), (64, 100)],
                _ => &[(16, 64), (64, 2), (4096, 100), (65536, 10_000), (64, 8 << 20)],
            };
            for (alignment, room) in sizes {
                let sizes = [format!("-DALIGNMENT={alignment}"), format!("-DROOM={room}")];
                let flags: Vec<&str> =
                    model.iter().copied().chain(sizes.iter().map(|it| &**it)).collect();
                let what = format!("{flags:?}");
                let path = gcc("variables.c", &flags);
                let library = load(&path);
                check_threads(number(&library, "fresh"), number(&library, "used"), &old, &what);
                drop(library);
                // What comes after it in the same threads has initial values again.
                let library = load(&path);
                check_threads(number(&library, "fresh"), number(&library, "used"), &old, &what);
                drop(library);
                let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
                let (fresh, used) =
                    (opened_function(&opened, "fresh"), opened_function(&opened, "used"));
                check_threads(fresh, used, &old, &format!("dlopen, {what}"));
            }
        }
    });
}

#[test]
fn initial_values_that_end_at_an_odd_place() {
    let path = build("gcc", "tls/gap.S", &[]);
    let file = read(&path);
    let elf = Elf::parse(&file).unwrap();
    let tls = elf.program_headers.iter().find(|header| header.p_type == PT_TLS).unwrap();
    assert!(tls.p_filesz % 16 != 0 && tls.p_memsz > tls.p_filesz + 32, "{tls:?}");
    let library = load(&path);
    let run = number(&library, "run");
    assert_eq!((run(), in_new_thread(run)), (42, 42));
    let opened = Opened::new(&path, RTLD_NOW);
    assert_eq!(opened.run(), 42, "dlopen");
}

/// More images than there are quick slots for; each thread has a block of each.
#[test]
fn more_modules_than_slots() {
    for model in [GENERAL, LOCAL, DESCRIPTORS] {
        let file = read(&gcc("variables.c", model));
        let template = Loader::new().template(&file).unwrap();
        // SAFETY: a library of `testlibs/`.
        let instantiate = || unsafe { template.instantiate() }.unwrap();
        let mut libraries: Vec<Library> = (0..60).map(|_| instantiate()).collect();
        let visit = |libraries: &[Library]| {
            let mut places = BTreeSet::new();
            for library in libraries {
                assert_eq!(number(library, "fresh")(), 42, "{model:?}");
                places.insert(address(library, "address_of_exported")().addr());
            }
            for library in libraries {
                assert_eq!(number(library, "used")(), 42, "{model:?}");
            }
            assert_eq!(places.len(), libraries.len(), "{model:?}: blocks are shared");
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| visit(&libraries));
            }
        });
        visit(&libraries);
        // Those that stay keep their values while others come and go.
        let stay = libraries.split_off(40);
        drop(libraries);
        let again: Vec<Library> = (0..50).map(|_| instantiate()).collect();
        visit(&again);
        for library in &stay {
            assert_eq!(number(library, "used")(), 42, "{model:?}: of one that stayed");
        }
    }
}

#[test]
fn variables_shared_between_images() {
    isolated(|| {
        let soname: &[&str] = &["-Wl,-soname,libprovider.so"];
        let mut checked = 0;
        for of_provider in MODELS {
            let provider = gcc("provider.c", &[of_provider, soname].concat());
            for of_user in [GENERAL, DESCRIPTORS, INITIAL_EXEC] {
                let what = format!("{of_provider:?} used by {of_user:?}");
                let link = provider.to_str().unwrap();
                let user = gcc("user.c", &[of_user, &[link]].concat());
                let in_threads = |run: Number, what: &str| {
                    assert_eq!((run(), run()), (42, 42), "{what}");
                    let new = thread::spawn(move || (run(), run())).join().unwrap();
                    assert_eq!(new, (42, 42), "{what}: a new thread");
                };
                // Together, so that the provider can be given a fixed place.
                let loader = Loader::new().provide("libprovider.so", read(&provider));
                // SAFETY: libraries of `testlibs/`.
                let both = unsafe { loader.load_any_way(&read(&user)) };
                let both = both.unwrap_or_else(|error| panic!("{what}: {error}"));
                in_threads(number(&both, "run"), &what);
                // The other models have no way to say so.
                if of_user == DESCRIPTORS {
                    assert!(address(&both, "weak_address")().is_null(), "{what}");
                }
                drop(both);
                // One after the other: without a fixed place, the provider's cannot be moved.
                let first = load(&provider);
                let loader = Loader::new().depends_on(&first);
                // SAFETY: as above.
                let second = unsafe { loader.load_any_way(&read(&user)) };
                match second {
                    Ok(second) => {
                        in_threads(number(&second, "run"), &what);
                        let seen = address(&second, "seen_address")();
                        assert_eq!(seen, address(&first, "address_of_shared")(), "{what}");
                        checked += 1;
                    }
                    Err(error) => {
                        assert!(of_user == INITIAL_EXEC && of_provider != INITIAL_EXEC, "{error}");
                        assert!(error.to_string().contains("initial-exec"), "{error}");
                    }
                }
            }
        }
        assert!(checked >= 9, "{checked}");
    });
}

#[test]
fn variables_of_the_host() {
    isolated(|| {
        // As one that the host was started with, or opened for all to see.
        for of_provider in MODELS {
            let soname = format!("-Wl,-soname,libhost{}.so", of_provider[0].len());
            let provider = gcc("provider.c", &[of_provider, &[&soname]].concat());
            let opened = Opened::new(&provider, RTLD_NOW | RTLD_GLOBAL);
            for of_user in [GENERAL, DESCRIPTORS, INITIAL_EXEC] {
                let what = format!("{of_provider:?} used by {of_user:?}");
                let user = gcc("user.c", &[of_user, &[provider.to_str().unwrap()]].concat());
                let loader = Loader::new();
                // SAFETY: a library of `testlibs/`.
                match unsafe { loader.load_any_way(&read(&user)) } {
                    Ok(library) => {
                        let run = number(&library, "run");
                        assert_eq!((run(), run()), (42, 42), "{what}");
                        assert_eq!(in_new_thread(run), 42, "{what}");
                    }
                    // The host's loader has given it no fixed place.
                    Err(error) => {
                        let impossible = of_user == INITIAL_EXEC && of_provider != INITIAL_EXEC;
                        assert!(impossible, "{what}: {error}");
                        assert!(error.to_string().contains("initial-exec"), "{error}");
                    }
                }
            }
            drop(opened);
        }
        // And of the C++ runtime.
        let path = build("g++", "tls/call_once.cpp", &["-O1"]);
        Opened::new(&path, RTLD_NOW);
        load_and_run(&Loader::new().system_libraries(true), &read(&path), "std::call_once");
    });
}

/// For AArch64: `aarch64.rs`.
#[cfg(target_arch = "x86_64")]
#[test]
fn descriptors_change_no_register() {
    isolated(|| {
        let mut widths = vec![(16, "-msse2")];
        if std::arch::is_x86_feature_detected!("avx2") {
            widths.push((32, "-mavx2"));
        }
        if std::arch::is_x86_feature_detected!("avx512bw") {
            widths.push((64, "-mavx512bw"));
        }
        for (width, feature) in widths {
            for shift in [0, 8, 16, 24] {
                let what = format!("{width} bytes, the stack at {shift}");
                let flags = [
                    "-mtls-dialect=gnu2",
                    feature,
                    &format!("-DWIDE={width}"),
                    &format!("-DSHIFT=\"{shift}\""),
                ];
                let path = gcc("registers.c", &flags);
                let library = load(&path);
                // The first access in a thread, and later ones.
                let run = number(&library, "run");
                for _ in 0..2 {
                    assert_eq!((run(), run()), (42, 42), "{what}");
                    let new = thread::spawn(move || (run(), run())).join().unwrap();
                    assert_eq!(new, (42, 42), "{what}: a new thread");
                }
                let opened = Opened::new(&path, RTLD_NOW);
                // glibc's own resolver forgets wide registers before 2.39.
                assert_eq!(if width == 16 { opened.run() } else { 42 }, 42, "dlopen, {what}");
            }
        }
        // The slow way, beyond the quick slots.
        let filler = Loader::new().template(&read(&gcc("variables.c", GENERAL))).unwrap();
        // SAFETY: a library of `testlibs/`.
        let _fill: Vec<_> = (0..40).map(|_| unsafe { filler.instantiate() }.unwrap()).collect();
        let flags = ["-mtls-dialect=gnu2", "-DWIDE=16", "-DSHIFT=\"0\""];
        let library = load(&gcc("registers.c", &flags));
        assert_eq!((call_run(&library), call_run(&library)), (42, 42), "beyond the slots");
    });
}

/// Elsewhere, compilers have kept the stack aligned, or the machine insists on it.
#[cfg(target_arch = "x86_64")]
#[test]
fn general_dynamic_with_a_misaligned_stack() {
    let path = gcc("misaligned.c", &[]);
    let library = load(&path);
    let run = number(&library, "run");
    assert_eq!((run(), in_new_thread(run)), (42, 42));
    assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen");
}

/// Kilobytes of memory that the process has resident.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn hundreds_of_threads_at_once_and_thousands_in_turn() {
    isolated(|| {
        let library = load(&gcc("variables.c", &["-DROOM=100000"]));
        let small = load(&gcc("variables.c", DESCRIPTORS));
        let fixed = load(&gcc("variables.c", INITIAL_EXEC));
        let all = || {
            for library in [&library, &small, &fixed] {
                assert_eq!((number(library, "fresh")(), number(library, "used")()), (42, 42));
            }
        };
        const AT_ONCE: usize = 300;
        let barrier = Barrier::new(AT_ONCE);
        let places = thread::scope(|scope| {
            let body = || {
                all();
                let place = address(&library, "address_of_exported")().addr();
                // No thread ends before all have their blocks.
                barrier.wait();
                assert_eq!(number(&library, "used")(), 42);
                place
            };
            let spawn =
                |_| thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, body).unwrap();
            let threads: Vec<_> = (0..AT_ONCE).map(spawn).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(places.len(), AT_ONCE, "threads share a block");

        let in_turn = |count| (0..count).for_each(|_| thread::scope(|it| drop(it.spawn(all))));
        in_turn(200);
        let before = resident();
        in_turn(4000);
        // Kept blocks would be 400 MB.
        let after = resident();
        assert!(after < before + 20_000, "{before} kB became {after} kB");
    });
}

/// An unload frees what threads have of it, and they go on and end in peace.
#[test]
fn an_unload_frees_the_blocks_of_threads_that_live() {
    isolated(|| {
        let file = read(&gcc("variables.c", &["-DROOM=1000000"]));
        let template = Loader::new().template(&file).unwrap();
        let threads: Vec<OldThread> = (0..8).map(|_| OldThread::start()).collect();
        let mut after_some = 0;
        for round in 0..60 {
            // SAFETY: a library of `testlibs/`.
            let library = unsafe { template.instantiate() }.unwrap();
            for thread in &threads {
                assert_eq!(thread.call(number(&library, "fresh")), 42, "round {round}");
                assert_eq!(thread.call(number(&library, "used")), 42, "round {round}");
            }
            drop(library);
            if round == 20 {
                after_some = resident();
            }
        }
        let after = resident();
        // 40 rounds of 8 blocks of a megabyte, of which every second page or so was touched.
        assert!(after < after_some + 30_000, "{after_some} kB became {after} kB");
    });
}

/// `fresh` in threads that start at any moment while an image with a fixed place comes and goes.
#[test]
fn initial_exec_while_threads_start_and_end() {
    isolated(|| {
        let file = read(&gcc("variables.c", INITIAL_EXEC));
        let template = Loader::new().template(&file).unwrap();
        let done = AtomicBool::new(false);
        let started = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        thread::spawn(|| ()).join().unwrap();
                        started.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for round in 0..150 {
                // SAFETY: a library of `testlibs/`.
                let library = unsafe { template.instantiate() }
                    .unwrap_or_else(|error| panic!("round {round}: {error}"));
                let run = number(&library, "run");
                assert_eq!(run(), 42, "round {round}");
                assert_eq!(in_new_thread(run), 42, "round {round}");
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(started.into_inner() > 100);
    });
}

/// The initial values of new threads lie in RELRO: one load must not find it read-only again after another.
#[test]
fn initial_exec_in_several_threads_at_once() {
    isolated(|| {
        let file = read(&gcc("variables.c", &["-ftls-model=initial-exec", "-DROOM=20"]));
        let template = Loader::new().template(&file).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..200 {
                        // SAFETY: a library of `testlibs/`.
                        let library = unsafe { template.instantiate() }
                            .unwrap_or_else(|error| panic!("round {round}: {error}"));
                        assert_eq!(number(&library, "run")(), 42, "round {round}");
                    }
                });
            }
        });
    });
}

/// Where glibc's list of threads is: since 2.34 in `ld.so`, before in libpthread, by symbols that its file has.
#[test]
fn the_list_of_threads_needs_no_symbols_of_a_file_or_says_which() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tls-stripped");
    fs::create_dir_all(&folder).unwrap();
    let stripped = folder.join(format!("new-{}", std::process::id()));
    let mut strip = Command::new("strip");
    run(strip.arg("-o").arg(&stripped).arg(system_library("libpthread.so.0")), "binutils");
    fs::rename(stripped, folder.join("libpthread.so.0")).unwrap();
    let file = read(&gcc("variables.c", INITIAL_EXEC));
    isolated_with(&[("LD_LIBRARY_PATH", folder.to_str().unwrap())], || {
        let old = OldThread::start();
        // SAFETY: a library of `testlibs/`.
        let result = unsafe { Loader::new().name("fixed.so").load_any_way(&file) };
        if glibc() >= (2, 34) {
            assert_eq!(old.call(number(&result.unwrap(), "fresh")), 42);
            return;
        }
        let text = result.unwrap_err().to_string();
        for part in ["fixed.so", "glibc before 2.34", "libpthread.so.0", ".symtab"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    });
}

#[test]
fn the_pool_of_initial_exec_fills_and_is_used_again() {
    isolated(|| {
        let file = read(&gcc("variables.c", &["-ftls-model=initial-exec", "-DROOM=20"]));
        // Many rounds in the same room; threads that were there see initial values each time.
        let old = OldThread::start();
        for round in 0..100 {
            // SAFETY: a library of `testlibs/`.
            let library = unsafe { Loader::new().load_any_way(&file) }
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            let (fresh, used) = (number(&library, "fresh"), number(&library, "used"));
            assert_eq!((fresh(), used()), (42, 42), "round {round}");
            assert_eq!((old.call(fresh), old.call(used)), (42, 42), "round {round}");
        }
        let mut libraries = Vec::new();
        let error = loop {
            // SAFETY: as above.
            match unsafe { Loader::new().name("one-more").load_any_way(&file) } {
                Ok(library) => libraries.push(library),
                Err(error) => break error,
            }
            assert!(libraries.len() < 10_000);
        };
        assert!(matches!(error, Error::Limit { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("one-more") && text.contains("initial-exec"), "{text}");
        assert!(libraries.len() >= 2, "{}", libraries.len());
        for library in &libraries {
            assert_eq!((number(library, "fresh")(), number(library, "used")()), (42, 42));
        }
        // General dynamic needs none of it.
        let general = load(&gcc("variables.c", GENERAL));
        let (fresh, used) = (number(&general, "fresh"), number(&general, "used"));
        check_threads(fresh, used, &old, "general dynamic while the pool is full");
    });
}

/// `tests/run.sh` runs these tests with the feature too.
#[cfg(feature = "large-static-tls")]
#[test]
fn large_blocks_of_initial_exec() {
    isolated(|| {
        let old = OldThread::start();
        let file = |alignment: usize, room: usize| {
            let sizes = [format!("-DALIGNMENT={alignment}"), format!("-DROOM={room}")];
            gcc("variables.c", &["-ftls-model=initial-exec", &sizes[0], &sizes[1]])
        };
        let check = |library: &Library, what: &str| {
            check_threads(number(library, "fresh"), number(library, "used"), &old, what);
        };
        for (alignment, room) in [(16, 2_000), (64, 20_000), (64, 60_000), (16, 64_000)] {
            let what = format!("{alignment} {room}");
            for _ in 0..3 {
                check(&load(&file(alignment, room)), &what);
            }
        }
        // More than `ld.so` has for a library that comes late.
        let refusal = Opened::refusal(&file(16, 64_000), RTLD_NOW);
        assert!(refusal.contains("static TLS block"), "{refusal}");
        // Several beside each other, until there is no more; what goes leaves its room.
        let path = file(64, 10_000);
        let fill = || {
            let mut libraries = Vec::new();
            loop {
                // SAFETY: a library of `testlibs/`.
                match unsafe { Loader::new().load_any_way(&read(&path)) } {
                    Ok(library) => libraries.push(library),
                    Err(Error::Limit { .. }) => return libraries,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let mut libraries = fill();
        assert_eq!(libraries.len(), 6);
        libraries.iter().for_each(|library| check(library, "one of six"));
        libraries.remove(2);
        check(&load(&path), "in the place of another");
        libraries.iter().for_each(|library| assert_eq!(number(library, "used")(), 42));
        drop(libraries);
        // SAFETY: as above.
        let refused = unsafe { Loader::new().load_any_way(&read(&file(16, 70_000))) }.unwrap_err();
        assert!(refused.to_string().contains("initial-exec"), "{refused}");
        assert_eq!(fill().len(), 6);
    });
}

#[test]
fn variables_in_use_while_their_thread_ends() {
    isolated(|| {
        let path = build("g++", "tls/at_exit.cpp", &["-O1"]);
        let loader = Loader::new().system_libraries(true);
        // SAFETY: a library of `testlibs/`.
        let library = unsafe { loader.load_any_way(&read(&path)) }.unwrap();
        let opened = Opened::new(&path, RTLD_NOW);
        type Prepare = extern "C" fn(*const AtomicI32) -> c_int;
        // SAFETY: the types of the functions in the source.
        let prepares = unsafe {
            let opened = opened.symbol("prepare", None);
            let opened = std::mem::transmute::<*mut std::ffi::c_void, Prepare>(opened);
            [opened, *library.get::<Prepare>("prepare").unwrap()]
        };
        let runs = [opened_function(&opened, "run"), number(&library, "run")];
        for (prepare, run) in prepares.into_iter().zip(runs) {
            for _ in 0..20 {
                let report: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
                assert_eq!(prepare(report), 0);
                assert_eq!(in_new_thread(run), 42);
                assert_eq!(report.load(Ordering::Relaxed), 42);
            }
        }
        assert_eq!(
            (number(&library, "finish")(), opened_function::<Number>(&opened, "finish")()),
            (0, 0)
        );
    });
}

/// Waits for a forked child, which must end with this status in time.
fn wait_for(child: libc::pid_t, what: &str) {
    let start = Instant::now();
    let mut status = 0;
    // SAFETY: a child of this process; the status is a local.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if is_over(start, Duration::from_secs(6)) {
            // SAFETY: the child is not waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("{what}: the child hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "{what}: {status:#x}");
}

/// What a panic must not keep from being done is done after this.
fn catch(body: impl FnOnce()) -> thread::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
}

/// Forks; the child ends with what `body` gives.
fn in_child(body: impl FnOnce() -> c_int) -> libc::pid_t {
    // SAFETY: the child runs `body` alone, which allocates (glibc allows that after a fork), and
    // ends without running anything of the test harness.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            // Should this hang: whoever waits for the pipes of this process must not.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::_exit(body());
        }
        assert!(child > 0);
        child
    }
}

/// What a child does: an image that it inherited, and one that it loads.
fn use_in_child(inherited: &Library, file: &[u8]) -> c_int {
    if number(inherited, "used")() != 42 {
        return 1;
    }
    // SAFETY: a library of `testlibs/`.
    let Ok(library) = (unsafe { Loader::new().load_any_way(file) }) else { return 2 };
    let run = number(&library, "run");
    if run() != 42 || in_new_thread(run) != 42 {
        return 3;
    }
    42
}

#[test]
fn forks_while_other_threads_load() {
    isolated(|| {
        let file = read(&gcc("variables.c", GENERAL));
        let fixed = read(&gcc("variables.c", INITIAL_EXEC));
        let inherited = load(&gcc("variables.c", DESCRIPTORS));
        assert_eq!(number(&inherited, "fresh")(), 42);
        let done = AtomicBool::new(false);
        // Not while a thread is being made: glibc (2.36) holds a lock of its thread-local storage then
        // (`dl_load_tls_lock`), which stays locked in the child, where the next thread waits for it.
        let making = Mutex::new(());
        thread::scope(|scope| {
            for file in [&file, &fixed] {
                let (done, making) = (&done, &making);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        // SAFETY: a library of `testlibs/`.
                        let library = unsafe { Loader::new().load_any_way(file) }.unwrap();
                        assert_eq!(call_run(&library), 42);
                        let run = number(&library, "run");
                        let _making = making.lock().unwrap();
                        assert_eq!(in_new_thread(run), 42);
                    }
                });
            }
            let outcome = catch(|| {
                for round in 0..150 {
                    let making = making.lock().unwrap();
                    let child = in_child(|| use_in_child(&inherited, &file));
                    drop(making);
                    wait_for(child, &format!("round {round}"));
                }
            });
            done.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
        assert_eq!(number(&inherited, "used")(), 42);
    });
}

/// Whatever a process finds out once, at its first load, may be just being found out.
#[test]
fn forks_during_the_first_load() {
    const DELAYS: [u64; 12] = [0, 30, 60, 100, 150, 200, 300, 400, 600, 800, 1200, 2000];
    let file: Arc<[u8]> = read(&gcc("variables.c", GENERAL)).into();
    isolated(|| {
        for round in 0..8 {
            for delay in DELAYS {
                let what = format!("round {round}, {delay} us");
                // A process that has loaded nothing yet.
                let first = in_child(|| {
                    let (start, wait) = (Arc::new(Barrier::new(2)), file.clone());
                    let other = start.clone();
                    thread::spawn(move || {
                        other.wait();
                        // SAFETY: a library of `testlibs/`.
                        let library = unsafe { Loader::new().load_any_way(&wait) }.unwrap();
                        assert_eq!(call_run(&library), 42);
                    });
                    start.wait();
                    let end = Instant::now() + Duration::from_micros(delay);
                    while Instant::now() < end {
                        std::hint::spin_loop();
                    }
                    let child = in_child(|| {
                        // SAFETY: as above.
                        let library = unsafe { Loader::new().load_any_way(&file) };
                        library.map_or(2, |library| call_run(&library))
                    });
                    catch(|| wait_for(child, &what)).map_or(9, |()| 42)
                });
                wait_for(first, &what);
            }
        }
    });
}

/// A library with thread-local variables names them, each thread its own.
#[test]
fn a_variable_is_looked_up_for_the_calling_thread() {
    let library = load(&gcc("provider.c", &[]));
    let look = || {
        // SAFETY: `_Thread_local int shared`.
        let found = unsafe { library.get::<*mut c_int>("shared") }.unwrap().as_raw_ptr();
        assert_eq!(found.cast(), address(&library, "address_of_shared")());
        // SAFETY: as above.
        assert_eq!(unsafe { *found.cast::<c_int>() }, 1000);
        found.addr()
    };
    let here = look();
    let (once, twice) = thread::scope(|scope| scope.spawn(|| (look(), look())).join().unwrap());
    assert_eq!(once, twice);
    assert_ne!(once, here);
}
