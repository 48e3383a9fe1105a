//! Exceptions, panics and backtraces inside, out of and through images. `dlopen` of the same file
//! is the reference.

use std::ffi::{CStr, c_int, c_void};
use std::hint::black_box;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    AnyWay, Opened, build, call_run, can_link, in_child, isolated, isolated_with, library_folder,
    load_and_run, maps, system_library,
};
use crate::helpers::{function, opened_function, read};
use goblin::elf::program_header::PT_GNU_EH_FRAME;
use libc::RTLD_NOW;
use memdl::{DebugLevel, Library, Loader};

type Number = extern "C-unwind" fn() -> c_int;
type Times = extern "C-unwind" fn(c_int) -> c_int;
type Callback = extern "C-unwind" fn(*mut c_void);
type Catches = extern "C-unwind" fn(Callback, *mut c_void) -> c_int;
type Passes = extern "C-unwind" fn(Callback, *mut c_void);
type Throws = extern "C-unwind" fn(c_int);

fn throws(flags: &[&str]) -> PathBuf {
    build("g++", "unwind/throws.cpp", &[&["-O1", "-pthread"], flags].concat())
}

fn loader() -> Loader {
    Loader::new().system_libraries(true)
}

fn load(path: &Path) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { loader().load_any_way(&read(path)) }.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn exceptions_inside_an_image() {
    isolated(|| {
        let variants: [&[&str]; 7] = [
            &[],
            &["-fuse-ld=lld"],
            &["-fuse-ld=mold"],
            &["-fuse-ld=gold"],
            // The image's own unwinder and C++ runtime.
            &["-static-libgcc"],
            &["-static-libgcc", "-static-libstdc++"],
            &["-static-libgcc", "-static-libstdc++", "-Wl,--exclude-libs,ALL"],
        ];
        for flags in variants.into_iter().filter(|flags| can_link(flags)) {
            let path = throws(flags);
            let what = format!("{flags:?}");
            let library = load_and_run(&loader(), &read(&path), &what);
            assert_eq!(call_run(&library), 42, "{what}: again");
            assert_eq!(function::<Number>(&library, "forced")(), 42, "{what}: forced unwinding");
            drop(library);
            let opened = Opened::new(&path, RTLD_NOW);
            assert_eq!(opened.run(), 42, "dlopen, {what}");
            assert_eq!(opened_function::<Number>(&opened, "forced")(), 42, "dlopen, {what}");
        }
    });
}

/// How a child that runs `body` ends: the status of `waitpid`, 0 if it comes back from it.
fn end_of<R>(body: impl FnOnce() -> R) -> c_int {
    // In a process that runs one test and has no other threads that hold locks.
    in_child(20, || {
        // SAFETY: reads a local. Crashes are expected: no core file.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
        let _ = body();
        0
    })
}

/// Nothing leads unwinders to its frames, neither `ld.so`'s nor ours.
#[test]
fn an_image_without_a_table() {
    isolated(|| {
        let no_table = "-Wl,--no-eh-frame-hdr";
        for flags in [&[no_table][..], &["-fno-asynchronous-unwind-tables", no_table]] {
            let flags = [flags, &["-fno-optimize-sibling-calls"]].concat();
            let path = build("gcc", "unwind/plain.c", &flags);
            let file = read(&path);
            let headers = goblin::elf::Elf::parse(&file).unwrap().program_headers;
            assert!(headers.iter().all(|header| header.p_type != PT_GNU_EH_FRAME));
            let library = load_and_run(&Loader::new(), &file, "plain.c");
            let opened = Opened::new(&path, RTLD_NOW);
            assert_eq!(opened.run(), 42, "dlopen");
            // Backtraces end in it.
            let (range, bias) = (library.address_range(), opened.load_bias());
            let ours = trace(function(&library, "calls_back"));
            let theirs = trace(opened_function(&opened, "calls_back"));
            let inside = |frames: &[usize], start: usize| {
                let offsets = frames.iter().map(|frame| frame.wrapping_sub(start));
                offsets.filter(|&offset| offset < range.len()).collect::<Vec<_>>()
            };
            let found = [inside(&ours, range.start), inside(&theirs, bias)];
            assert_eq!(found[0], found[1], "{flags:?}");
            assert_eq!((found[0].len(), ours.len()), (1, theirs.len()), "{ours:x?}, {theirs:x?}");
        }

        let path = throws(&[no_table]);
        let (library, opened) = (load(&path), Opened::new(&path, RTLD_NOW));
        // What is thrown inside of it, or by the host through it, has nowhere to go.
        let throwers: [Throws; 2] =
            [function(&library, "throws"), opened_function(&opened, "throws")];
        let passes: [Passes; 2] =
            [function(&library, "passes"), opened_function(&opened, "passes")];
        let runs: [Number; 2] = [function(&library, "run"), opened_function(&opened, "run")];
        let whole = load(&throws(&[]));
        let catches: Catches = function(&whole, "catches");
        for (what, ends) in [
            ("thrown and caught in it", runs.map(|run| end_of(|| run()))),
            (
                "thrown in it, caught elsewhere",
                throwers.map(|mut it| end_of(|| catches(call_throws, (&raw mut it).cast()))),
            ),
            (
                "a panic of the host through it",
                passes.map(|passes| end_of(|| catch_unwind(|| passes(panics, ptr::null_mut())))),
            ),
        ] {
            assert_eq!(ends[0], ends[1], "{what}");
            assert!(libc::WIFSIGNALED(ends[0]), "{what}: {:#x}", ends[0]);
            assert_eq!(libc::WTERMSIG(ends[0]), libc::SIGABRT, "{what}");
        }
        // It is in nobody's way elsewhere.
        assert_eq!(call_run(&whole), 42);
        assert_eq!(Opened::new(&throws(&["-O2"]), RTLD_NOW).run(), 42, "dlopen");
        let panic = catch_unwind(|| std::panic::resume_unwind(Box::new(5)));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&5));
        drop((library, opened));
        assert_eq!(call_run(&whole), 42, "once it is gone");
    });
}

/// crtend.o has what ends `.eh_frame`; without it, only the table says where frames are.
#[test]
fn an_image_without_a_terminator() {
    isolated(|| {
        let terminators = |path: &Path| {
            let mut readelf = Command::new("readelf");
            let text = crate::common::run(readelf.arg("--debug-dump=frames").arg(path), "binutils");
            assert!(text.contains("FDE"), "{text}");
            text.matches("ZERO terminator").count()
        };
        assert_eq!(terminators(&throws(&[])), 1);
        for linker in ["-fuse-ld=bfd", "-fuse-ld=gold"] {
            if !can_link(&[linker]) {
                continue;
            }
            let path = throws(&["-nostartfiles", linker]);
            assert_eq!(terminators(&path), 0, "{linker}");
            let library = load_and_run(&loader(), &read(&path), linker);
            assert_eq!(call_run(&library), 42, "{linker}: again");
            assert_eq!(function::<Number>(&library, "forced")(), 42, "{linker}");
            let opened = Opened::new(&path, RTLD_NOW);
            assert_eq!(opened.run(), 42, "dlopen, {linker}");
            // Out of it and through it.
            let mut throwing: Throws = function(&library, "throws");
            let catches: Catches = opened_function(&opened, "catches");
            assert_eq!(catches(call_throws, (&raw mut throwing).cast()), 31, "{linker}");
            let passes: Passes = function(&library, "passes");
            let panic = catch_unwind(AssertUnwindSafe(|| passes(panics, ptr::null_mut())));
            assert!(panic.is_err(), "{linker}");
        }
    });
}

/// Calls a `Throws` with 31.
extern "C-unwind" fn call_throws(throws: *mut c_void) {
    // SAFETY: the tests pass a pointer to one.
    unsafe { (*throws.cast::<Throws>())(31) }
}

extern "C-unwind" fn panics(_: *mut c_void) {
    std::panic::resume_unwind(Box::new("a panic of the host"));
}

#[test]
fn exceptions_cross_borders() {
    isolated(|| {
        cross_borders();
    });
}

/// Between images, libraries of `ld.so` and the host.
fn cross_borders() {
    let path = throws(&[]);
    let (one, two) = (load(&path), load(&path));
    let opened = Opened::new(&path, RTLD_NOW);
    let throwers: [Throws; 3] =
        [function(&one, "throws"), function(&two, "throws"), opened_function(&opened, "throws")];
    let catchers: [Catches; 3] =
        [function(&one, "catches"), function(&two, "catches"), opened_function(&opened, "catches")];
    for mut throws in throwers {
        for catches in catchers {
            // The frames of `call_throws`, which are the host's, are between the two.
            let caught = catches(call_throws, (&raw mut throws).cast());
            assert_eq!(caught, 31);
        }
    }
    // A panic of the host through an image, whose destructors run.
    let passes: [Passes; 2] = [function(&one, "passes"), opened_function(&opened, "passes")];
    let destroyed: [Number; 2] =
        [function(&one, "destroyed_so_far"), opened_function(&opened, "destroyed_so_far")];
    for (passes, destroyed) in passes.into_iter().zip(destroyed) {
        let before = destroyed();
        let panic = catch_unwind(AssertUnwindSafe(|| passes(panics, ptr::null_mut())));
        let text = *panic.expect_err("it panics").downcast::<&str>().unwrap();
        assert_eq!((text, destroyed() - before), ("a panic of the host", 1));
    }
}

#[test]
fn panics_inside_a_rust_library() {
    isolated(|| {
        for flags in [&["-O"][..], &["-g"]] {
            let path = build("rustc", "unwind/panics.rs", flags);
            let library = load_and_run(&loader(), &read(&path), &format!("{flags:?}"));
            assert_eq!(call_run(&library), 42, "again");
            assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen");
        }
    });
}

/// nongnu libunwind, and LLVM's where this release of the system has one (`tests/llvm.sh`).
fn other_unwinders() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("llvm");
    assert!(folder.exists(), "`sh tests/setup.sh` installs what tests need (LLVM's libunwind)");
    let all = [system_library("libunwind.so.8"), folder.join("libunwind.so.1")];
    all.into_iter().filter(|path| path.exists()).collect()
}

/// This executable is a host in Rust. Its panics and its backtraces are those of a preloaded unwinder.
#[test]
fn a_rust_host_with_another_unwinder() {
    for unwinder in other_unwinders() {
        isolated_with(&[("LD_PRELOAD", unwinder.to_str().unwrap())], || {
            let at = |name: &CStr| {
                // SAFETY: a C string, and a record that is filled in.
                unsafe {
                    let mut info: libc::Dl_info = std::mem::zeroed();
                    let function = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
                    assert!(libc::dladdr(function, &mut info) != 0, "{name:?}");
                    CStr::from_ptr(info.dli_fname).to_str().unwrap().to_owned()
                }
            };
            assert_eq!(at(c"_Unwind_RaiseException"), std::env::var("LD_PRELOAD").unwrap());
            cross_borders();
            let path = throws(&[]);
            assert_eq!(call_run(&load(&path)), 42);
            let panics = build("rustc", "unwind/panics.rs", &["-O"]);
            for _ in 0..3 {
                assert_eq!(call_run(&load_and_run(&loader(), &read(&panics), "panics.rs")), 42);
            }
            // Sees the frames of the image, and those below.
            let plain = build("gcc", "unwind/plain.c", &["-O1", "-fno-optimize-sibling-calls"]);
            let library = load(&plain);
            let frames = trace(function(&library, "calls_back"));
            let range = library.address_range();
            let last = frames.iter().rposition(|frame| range.contains(frame)).unwrap();
            assert!(frames.len() > last + 3, "{frames:x?}");
        });
    }
}

/// Loads the file whose path it is given.
extern "C-unwind" fn load_it(path: *mut c_void) {
    // SAFETY: the test passes a `PathBuf`.
    drop(load(unsafe { &*path.cast::<PathBuf>() }));
}

#[test]
fn a_constructor_that_throws_out_of_the_load() {
    isolated(|| {
        let mut path = build("g++", "unwind/constructor.cpp", &["-O1"]);
        let catcher = load(&throws(&[]));
        let catches: Catches = function(&catcher, "catches");
        let mut first = 0;
        for round in 0..30 {
            assert_eq!(catches(load_it, (&raw mut path).cast()), 77, "round {round}");
            if round == 3 {
                first = maps().len();
            }
        }
        assert!(maps().len() <= first + 3, "images stay: {first} became {}", maps().len());
        assert_eq!(call_run(&catcher), 42);
    });
}

unsafe extern "C" {
    fn backtrace(buffer: *mut *mut c_void, size: c_int) -> c_int;
}

extern "C-unwind" fn take_backtrace(to: *mut c_void) {
    let mut frames = [ptr::null_mut(); 200];
    // SAFETY: room for so many frames; the test passes a vector.
    unsafe {
        let count = backtrace(frames.as_mut_ptr(), 200) as usize;
        *to.cast::<Vec<usize>>() = frames[..count].iter().map(|frame| frame.addr()).collect();
    }
}

/// The frames that a callback of `calls_back` sees.
fn trace(calls_back: Catches) -> Vec<usize> {
    let mut frames = Vec::<usize>::new();
    assert_eq!(calls_back(take_backtrace, (&raw mut frames).cast()), 42);
    frames
}

#[test]
fn backtraces_through_an_image() {
    for flags in [&["-O1"][..], &["-O2", "-fomit-frame-pointer"], &["-O0"]] {
        // Tail calls would leave nothing to see.
        let flags = [flags, &["-fno-optimize-sibling-calls"]].concat();
        let path = build("gcc", "unwind/plain.c", &flags);
        let library = load(&path);
        let opened = Opened::new(&path, RTLD_NOW);
        let bias = opened.load_bias();
        let range = library.address_range();
        let length = range.len();
        let inside = |frames: &[usize], range: Range<usize>| {
            let offset = |frame: &usize| range.contains(frame).then(|| frame - range.start);
            let found: Vec<usize> = frames.iter().filter_map(offset).collect();
            let last = frames.iter().rposition(|frame| range.contains(frame)).unwrap();
            // The frames below are the test's and the harness's.
            assert!(frames.len() > last + 3, "{flags:?}: {frames:x?}");
            found
        };
        let ours = inside(&trace(function(&library, "calls_back")), range);
        let theirs = inside(&trace(opened_function(&opened, "calls_back")), bias..bias + length);
        assert_eq!(ours.len(), 3, "{flags:?}: {ours:x?}");
        assert_eq!(ours, theirs, "{flags:?}");
    }
}

/// The best of some runs.
fn best(mut run: impl FnMut()) -> Duration {
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..7).map(once).min().unwrap()
}

#[test]
fn live_images_do_not_slow_throws() {
    isolated(|| {
        let path = throws(&[]);
        let opened = Opened::new(&path, RTLD_NOW);
        let elsewhere: Times = opened_function(&opened, "throws_often");
        let file = read(&path);
        let template = loader().debug(DebugLevel::Off).template(&file).unwrap();
        // SAFETY: a library of `testlibs/`.
        let instantiate = || unsafe { template.instantiate() }.unwrap();
        let one = instantiate();
        let inside: Times = function(&one, "throws_often");
        let measure = |times: Times| best(|| assert_eq!(times(300), 300));
        let mut ratios = Vec::new();
        // Other tests have the processors too: the best of some attempts counts.
        for _ in 0..5 {
            let (inside_alone, elsewhere_alone) = (measure(inside), measure(elsewhere));
            let many: Vec<Library> = (0..100).map(|_| instantiate()).collect();
            let of_last: Times = function(&many[99], "throws_often");
            let worst = measure(inside).max(measure(of_last));
            let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
            let found = [ratio(worst, inside_alone), ratio(measure(elsewhere), elsewhere_alone)];
            ratios.push(found);
            drop(many);
            if found.iter().all(|&ratio| ratio < 2.0) {
                return;
            }
        }
        panic!("throws with 100 images to throws with one, in an image and elsewhere: {ratios:?}");
    });
}

#[test]
fn the_first_throw_after_a_large_load_is_not_slow() {
    isolated(|| {
        let large = [
            "libLLVM-14.so.1",
            "libLLVM-15.so.1",
            "libLLVM-16.so.1",
            "libLLVM-19.so.1",
            "libLLVM.so.19.1",
            "libLLVM.so.21.1",
        ]
        .into_iter()
        .map(|name| library_folder().join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| system_library("libsqlite3.so.0"));
        let library = load(&throws(&[]));
        let throws_often: Times = function(&library, "throws_often");
        let once = || {
            let start = Instant::now();
            assert_eq!(throws_often(1), 1);
            start.elapsed()
        };
        once();
        let before = (0..20).map(|_| once()).max().unwrap();
        let file = read(&large);
        let mut found = Vec::new();
        for _ in 0..3 {
            // SAFETY: a library of the distribution.
            let loaded = unsafe { loader().debug(DebugLevel::Off).load_any_way(&file) }.unwrap();
            let after = once();
            black_box(&loaded);
            found.push(after);
            // It cannot be unloaded, perhaps; what the throw costs is known.
            std::mem::forget(loaded);
            // Sorting its frames takes tens of milliseconds.
            if after < before * 5 + Duration::from_millis(1) {
                return;
            }
        }
        panic!("{before:?} before {}, then {found:?}", large.display());
    });
}

/// Images come and go while other threads throw.
#[test]
fn throws_while_images_come_and_go() {
    isolated(|| {
        let path = throws(&[]);
        let library = load(&path);
        let throws_often: Times = function(&library, "throws_often");
        let thrown = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        let template = loader().template(&read(&path)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while done.load(Ordering::Relaxed) == 0 {
                        assert_eq!(throws_often(50), 50);
                        thrown.fetch_add(50, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..150 {
                // SAFETY: a library of `testlibs/`.
                let other = unsafe { template.instantiate() }.unwrap();
                assert_eq!(function::<Times>(&other, "throws_often")(3), 3);
            }
            done.store(1, Ordering::Relaxed);
        });
        assert!(thrown.into_inner() > 100);
    });
}
