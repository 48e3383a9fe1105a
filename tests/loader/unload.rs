//! Unloading: what is left, what must wait, and in which order it goes.

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;

use crate::common::{
    AnyWay, Opened, build, call_run, debug_entries, glibc, is_mapped, isolated, isolated_output,
    isolated_output_as, load_and_run, machine, maps, name_of, notes, resident,
};
use crate::helpers::{function, read};
use libc::RTLD_NOW;
use memdl::{DebugLevel, ImageBuffer, Library, Loader, Template};

type Number = extern "C" fn() -> c_int;

fn gcc(source: &str, flags: &[&str]) -> PathBuf {
    let compiler = if source.ends_with(".cpp") { "g++" } else { "gcc" };
    build(compiler, &format!("unload/{source}"), &[&["-O1"], flags].concat())
}

/// `name` keeps compilers that run at once from each other's files.
fn rust_library(name: &str) -> PathBuf {
    build("rustc", "unload/library.rs", &["-O", &format!("-Cmetadata={name}")])
}

fn loader() -> Loader {
    Loader::new().system_libraries(true)
}

fn load(path: &Path) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { loader().load_any_way(&read(path)) }.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_thousand_rounds_leave_nothing() {
    isolated(|| {
        let everything = read(&gcc("everything.cpp", &["-g"]));
        let rust = read(&rust_library("rounds"));
        let plain = read(&gcc("noisy.c", &["-DNAME=plain"]));
        let threads = read(&gcc("threads.c", &[]));
        // Nobody reads what the plain one notes.
        // SAFETY: a descriptor that is nobody's in this process.
        unsafe {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY);
            assert_eq!(libc::dup2(null, 199), 199);
        }
        let round = |number: usize| {
            let debug = if number.is_multiple_of(2) { DebugLevel::Full } else { DebugLevel::Off };
            for (file, every) in [(&everything, 1), (&plain, 1), (&threads, 5), (&rust, 20)] {
                // In a thread of its own: what thread-local objects keep goes with that.
                let body = || {
                    load_and_run(&loader().debug(debug), file, "round").close().unwrap();
                };
                if number.is_multiple_of(every) {
                    thread::scope(|scope| scope.spawn(body).join()).unwrap();
                }
            }
        };
        let stays = load(&gcc("everything.cpp", &["-g"]));
        (0..100).for_each(round);
        let (mappings, before) = (maps().len(), resident());
        let entries = usize::from(stays.debug() != DebugLevel::Off);
        assert_eq!(debug_entries().len(), entries);
        (0..1000).for_each(round);
        assert_eq!(debug_entries().len(), entries, "entries for debuggers");
        drop(stays);
        memdl::release_memory();
        let (mappings_after, after) = (maps().len(), resident());
        // Heaps and stacks of threads take and keep some more, whichever threads come first. An
        // image that stayed behind in one of the rounds shows as code that has no file.
        assert!(mappings_after <= mappings + 24, "{mappings} mappings became {mappings_after}");
        let code = maps().into_iter().filter(|it| it.access.contains('x') && it.name.is_empty());
        assert_eq!(code.collect::<Vec<_>>(), []);
        assert!(after < before + 4_000, "{before} kB became {after} kB");
        let of_images = maps().into_iter().filter(|line| line.name.contains("memdl:"));
        assert_eq!(of_images.map(|line| line.name).collect::<Vec<_>>(), [""; 0]);
    });
}

/// As glibc keeps a library for destructors of threads that have not ended.
#[test]
fn pending_destructors_of_threads_keep_an_image() {
    isolated(|| {
        let path = gcc("pending.cpp", &[]);
        let library = load(&path);
        let inside = library.address_range().start;
        type Tell = extern "C" fn(*const AtomicI32);
        let tell: Tell = function(&library, "tell");
        let report: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
        let (told, is_told) = mpsc::channel();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let told = told.clone();
                let thread = thread::spawn(move || {
                    tell(report);
                    told.send(()).unwrap();
                    let _ = ended.recv();
                });
                is_told.recv().unwrap();
                (end, thread)
            })
            .collect();
        library.close().unwrap();
        for (number, (end, thread)) in threads.into_iter().enumerate() {
            assert!(is_mapped(inside), "gone before thread {number} ended");
            assert_eq!(report.load(Ordering::SeqCst), 2 * number as i32);
            drop(end);
            thread.join().unwrap();
        }
        assert_eq!(report.load(Ordering::SeqCst), 6);
        assert!(!is_mapped(inside), "it stays");
    });
}

/// The main thread's run at the end of the process.
#[test]
fn pending_destructors_of_the_main_thread_run_at_exit() {
    let output = isolated_output(|| {
        let library = load(&gcc("pending.cpp", &[]));
        type Tell = extern "C" fn(*const AtomicI32);
        static REPORT: AtomicI32 = AtomicI32::new(0);
        function::<Tell>(&library, "tell")(&REPORT);
        extern "C" fn last() {
            // SAFETY: ends the process.
            unsafe { libc::_exit(40 + REPORT.load(Ordering::SeqCst)) };
        }
        // SAFETY: a function of this program. Handlers run after the thread's destructors.
        unsafe { libc::atexit(last) };
        drop(library);
        std::process::exit(1);
    });
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{text}");
}

/// A thread's value of a key, whose destructor is in the image, when the image goes first. (Under
/// `dlopen` that thread would call code that is gone.)
#[test]
fn keys_of_threads_go_with_the_image() {
    isolated(|| {
        type Keeps = extern "C" fn(*const AtomicI32) -> c_int;
        for (round, creates) in
            ["creates_key", "creates_tss"].into_iter().cycle().take(20).enumerate()
        {
            let library = load(&gcc("keys.c", &[]));
            let inside = library.address_range().start;
            let key = function::<Number>(&library, creates)();
            assert!(key >= 0, "{creates}: {key}");
            let keeps: Keeps = function(&library, "keeps");
            let report: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
            // The destructor runs as long as it can.
            let early = thread::spawn(move || assert_eq!(keeps(report), 0));
            early.join().unwrap();
            assert_eq!(report.load(Ordering::SeqCst), 1, "round {round}");
            let (end, ended) = mpsc::channel::<libc::pthread_key_t>();
            let (kept, is_kept) = mpsc::channel();
            let late = thread::spawn(move || {
                kept.send(keeps(report)).unwrap();
                let key = ended.recv().unwrap();
                // SAFETY: a key that exists.
                unsafe { libc::pthread_getspecific(key) }.is_null()
            });
            assert_eq!(is_kept.recv().unwrap(), 0);
            library.close().unwrap();
            memdl::release_memory();
            assert!(!is_mapped(inside));
            // It is free: glibc gives out the lowest that is.
            let mut new = 0;
            // SAFETY: a new key without a destructor.
            assert_eq!(unsafe { libc::pthread_key_create(&mut new, None) }, 0);
            assert_eq!(new, key as libc::pthread_key_t, "round {round}");
            end.send(new).unwrap();
            assert!(late.join().unwrap(), "round {round}: the old value is the new key's");
            assert_eq!(report.load(Ordering::SeqCst), 1, "round {round}");
            // SAFETY: created above.
            assert_eq!(unsafe { libc::pthread_key_delete(new) }, 0);
        }
    });
}

#[test]
fn constructors_that_start_threads() {
    isolated(|| {
        let path = gcc("threads.c", &[]);
        for _ in 0..50 {
            load_and_run(&loader(), &read(&path), "threads.c").close().unwrap();
        }
        // Before, a thread's first use of a thread-local variable waits for the end of `dlopen`.
        if glibc() >= (2, 35) {
            assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen");
        }
    });
}

static FILE: OnceLock<Vec<u8>> = OnceLock::new();
static WORKS: AtomicUsize = AtomicUsize::new(0);

/// Loads and unloads.
extern "C" fn host_works() {
    let file = FILE.get().unwrap();
    load_and_run(&loader(), file, "from a constructor").close().unwrap();
    WORKS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn constructors_and_destructors_that_load_and_unload() {
    isolated(|| {
        FILE.set(read(&gcc("everything.cpp", &[]))).unwrap();
        let loader = loader().define("host_works", host_works as *const c_void);
        let file = read(&gcc("loads.c", &[]));
        for _ in 0..10 {
            load_and_run(&loader, &file, "loads.c").close().unwrap();
        }
        assert_eq!(WORKS.load(Ordering::SeqCst), 40);
        // From many threads. They are joined, since a scope alone does not wait for the destructors of their
        // thread-local objects, which unload.
        thread::scope(|scope| {
            let work = || (0..5).for_each(|_| drop(load_and_run(&loader, &file, "loads.c")));
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(WORKS.load(Ordering::SeqCst), 40 + 4 * 5 * 4);
    });
}

#[test]
fn a_rust_library_survives_load_use_and_unload() {
    isolated(|| {
        let path = rust_library("threads");
        for round in 0..5 {
            let library = load(&path);
            assert_eq!((call_run(&library), call_run(&library)), (42, 42), "round {round}");
            let report: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
            function::<extern "C" fn(*const AtomicI32)>(&library, "report_to")(report);
            // A thread of ours that outlives it, whose thread-locals of the library do not.
            let touch: Number = function(&library, "touch");
            let (end, ended) = mpsc::channel::<()>();
            let (to_main, touched) = mpsc::channel();
            let thread = thread::spawn(move || {
                to_main.send(touch()).unwrap();
                let _ = ended.recv();
            });
            assert_eq!(touched.recv().unwrap(), 10);
            library.close().unwrap();
            assert_eq!(report.load(Ordering::SeqCst), 0, "round {round}");
            drop(end);
            thread.join().unwrap();
            assert_eq!(report.load(Ordering::SeqCst), 10, "round {round}");
        }
        assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen");
    });
}

/// Loads the Rust library, and ends the process with it in place, or closed but for what is
/// pending in this thread.
fn ends_with_a_rust_library(test: &str, keep: bool) {
    let output = isolated_output_as(test, || {
        let library = load(&rust_library(test));
        assert_eq!(call_run(&library), 42);
        // A thread that never ends has destructors pending too.
        let touch: Number = function(&library, "touch");
        let (touched, is_touched) = mpsc::channel();
        thread::spawn(move || {
            touched.send(touch()).unwrap();
            loop {
                thread::park();
            }
        });
        assert_eq!(is_touched.recv().unwrap(), 10);
        if keep {
            std::mem::forget(library);
        } else {
            drop(library);
        }
        std::process::exit(42);
    });
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{}: {text}", output.status);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("printed by the library"), "{out}");
}

#[test]
fn a_rust_library_in_place_when_the_process_ends() {
    ends_with_a_rust_library(name_of(&a_rust_library_in_place_when_the_process_ends), true);
}

#[test]
fn a_closed_rust_library_when_the_process_ends() {
    ends_with_a_rust_library(name_of(&a_closed_rust_library_when_the_process_ends), false);
}

/// The end of one thread lets many images go, while their destructors are running.
#[test]
fn many_images_wait_for_one_thread() {
    isolated(|| {
        let everything = loader().template(&read(&gcc("everything.cpp", &[]))).unwrap();
        let rust = loader().template(&read(&rust_library("many"))).unwrap();
        // Their code: threads and their heaps come and go with mappings of other kinds.
        let code =
            || maps().iter().filter(|it| it.access.contains('x') && it.name.is_empty()).count();
        let before = code();
        let body = || {
            for number in 0..200 {
                let template = if usize::is_multiple_of(number, 20) { &rust } else { &everything };
                // SAFETY: a library of `testlibs/`.
                let library = unsafe { template.instantiate() }.unwrap();
                assert_eq!(call_run(&library), 42);
            }
            code()
        };
        let meanwhile = thread::scope(|scope| scope.spawn(body).join()).unwrap();
        assert_eq!(meanwhile, before + 200, "they did not wait");
        memdl::release_memory();
        assert_eq!(code(), before);
    });
}

#[test]
fn nodelete_stays() {
    isolated(|| {
        let path = gcc("noisy.c", &["-DNAME=stays", "-Wl,-z,nodelete"]);
        let mut inside = 0;
        let noted = notes(|| {
            let library = load(&path);
            inside = library.address_range().start;
            let run: Number = function(&library, "run");
            library.close().unwrap();
            assert_eq!(run(), 42);
        });
        assert!(is_mapped(inside));
        assert_eq!(noted, "+stays ");
        // What it notes at the end of the process.
        // SAFETY: descriptors of this process.
        assert_eq!(unsafe { libc::dup2(2, 199) }, 199);
    });
}

/// What is needed is there before and goes after what needs it, and once.
/// Where an image's destructors do not have the C library forget its functions (`__cxa_finalize` is
/// bound to nothing, or the image was linked without a C runtime), `dlclose` leaves their addresses,
/// and the process dies of them when it forks or exits.
#[test]
fn functions_that_an_image_leaves_are_called_and_forgotten() {
    let output = isolated_output(|| {
        let library = load(&gcc("no_finalize.c", &["-nostartfiles", "-fno-builtin"]));
        let leave: extern "C" fn(*mut c_int) -> c_int = function(&library, "leave");
        let mut number = 0;
        assert_eq!(leave(&raw mut number), 3, "null pointers");
        let address = leave as usize;
        drop(library);
        assert_eq!(number, 1);
        assert!(!is_mapped(address));
        // SAFETY: the child does nothing but end.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::exit(7);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
        }
        assert_eq!(number, 1);
        println!("all there is");
    });
    let Some(output) = output else { return };
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("all there is"), "{output:?}");
}

#[test]
fn groups_go_in_reverse_order() {
    isolated(|| {
        let noisy = |name: &str, more: &[&str]| {
            let soname = format!("-Wl,-soname,lib{name}.so");
            let name = format!("-DNAME={name}");
            gcc("noisy.c", &[&[&*name, &soname], more].concat())
        };
        // A diamond: top needs left and right, both need base.
        let base = noisy("base", &[]);
        let left = noisy("left", &["-DNEEDS=base", base.to_str().unwrap()]);
        let right = noisy("right", &["-DNEEDS=base", base.to_str().unwrap()]);
        let (l, r) = (left.to_str().unwrap(), right.to_str().unwrap());
        let top = noisy("top", &["-DNEEDS=left", "-DNEEDS_TOO=right", "-Wl,--no-as-needed", l, r]);
        let together = loader()
            .provide("libbase.so", read(&base))
            .provide("libleft.so", read(&left))
            .provide("libright.so", read(&right));
        let noted = notes(|| {
            load_and_run(&together, &read(&top), "top").close().unwrap();
        });
        // dlopen's, of the same files.
        let reference = notes(|| {
            let opened: Vec<Opened> =
                [&base, &left, &right, &top].map(|path| Opened::new(path, RTLD_NOW)).into();
            assert_eq!(opened[3].run(), 42);
            // The last handle of each but the top goes first: all stay until the top does.
            let mut opened = opened;
            let top = opened.pop();
            drop(opened);
            drop(top);
        });
        let (up, down) = (noted.find('-').unwrap(), reference.find('-').unwrap());
        assert!(noted.starts_with("+base ") && noted[..up].ends_with("+top "), "{noted}");
        assert!(noted[up..].starts_with("-top ") && noted.ends_with("-base "), "{noted}");
        assert_eq!(noted.split(' ').count(), reference.split(' ').count(), "{noted}; {reference}");
        assert!(reference[down..].starts_with("-top ") && reference.ends_with("-base "));

        // One after the other: dependents keep their providers.
        let noted = notes(|| {
            let base = load(&base);
            // SAFETY: as in `load`.
            let left = unsafe { loader().depends_on(&base).load_any_way(&read(&left)) }.unwrap();
            // SAFETY: as above.
            let right = unsafe { loader().depends_on(&base).load_any_way(&read(&right)) }.unwrap();
            base.close().unwrap();
            let both = loader().depends_on(&left).depends_on(&right);
            // SAFETY: as above.
            let top = unsafe { both.load_any_way(&read(&top)) }.unwrap();
            left.close().unwrap();
            assert_eq!(call_run(&top), 42);
            top.close().unwrap();
            assert_eq!(call_run(&right), 42);
            right.close().unwrap();
        });
        assert_eq!(noted, "+base +left +right +top -top -left -right -base ");
    });
}

/// What is left at the end of the process is finalised then, the last loaded first.
#[test]
fn what_is_left_goes_at_the_end_of_the_process() {
    let output = isolated_output(|| {
        // SAFETY: descriptors of this process: what is noted goes to standard error.
        assert_eq!(unsafe { libc::dup2(2, 199) }, 199);
        for name in ["first", "second", "third"] {
            let library = load(&gcc("noisy.c", &[&format!("-DNAME={name}")]));
            static KEEP: Mutex<Vec<Library>> = Mutex::new(Vec::new());
            if name != "second" {
                KEEP.lock().unwrap().push(library);
            }
        }
        std::process::exit(0);
    });
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("+first +second -second +third -third -first "), "{text}");
}

/// A template whose instances debuggers are not told of, and so share what they do not write.
fn shared_template() -> Template {
    // As linkers do for x86-64 without being asked: constants are in a segment of their own.
    let file = read(&gcc("again.c", &["-Wl,-z,now", "-Wl,-z,separate-code"]));
    loader().debug(DebugLevel::Off).template(&file).unwrap()
}

fn instance(template: &Template) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { template.instantiate() }.unwrap()
}

#[test]
fn an_instance_where_another_was_is_as_new() {
    isolated(|| {
        let template = shared_template();
        let spoiled = || {
            let library = instance(&template);
            assert_eq!(function::<Number>(&library, "fresh")(), 42);
            function::<extern "C" fn()>(&library, "spoil")();
            library.address_range()
        };
        // What instances share is made with the second.
        spoiled();
        let place = spoiled();
        for round in 0..10 {
            assert_eq!(spoiled(), place, "round {round} is not where the one before was");
        }
        // Two at once have nothing in common that they write.
        let (library, other) = (instance(&template), instance(&template));
        assert_ne!(library.address_range(), other.address_range());
        function::<extern "C" fn()>(&other, "spoil")();
        assert_eq!(function::<Number>(&library, "fresh")(), 42);
        let access = |address: usize| {
            let lines = maps();
            lines.into_iter().find(|line| line.range.contains(&address)).unwrap().access
        };
        let at = |name: &str| function::<*const c_void>(&library, name).addr();
        assert_eq!(&access(at("fresh"))[..3], "r-x");
        assert_eq!(&access(at("filler"))[..3], "r--");
        assert_eq!(&access(at("data"))[..3], "rw-");
        let read_only = function::<extern "C" fn() -> *const c_void>(&library, "read_only")();
        assert_eq!(&access(read_only.addr())[..3], "r--", "RELRO");
    });
}

#[test]
fn memory_for_the_next_instance_is_given_back_with_the_template_and_on_demand() {
    isolated(|| {
        // What instances share is made with the second.
        let shared_template = || {
            let template = shared_template();
            drop(instance(&template));
            template
        };
        let template = shared_template();
        let place = |library: Library| library.address_range().start;
        let parked = place(instance(&template));
        assert!(is_mapped(parked), "kept for the next");
        memdl::release_memory();
        assert!(!is_mapped(parked), "given back on demand");

        let parked = place(instance(&template));
        assert!(is_mapped(parked));
        drop(template);
        assert!(!is_mapped(parked), "given back with the template");

        let template = shared_template();
        let outlives = instance(&template);
        drop(template);
        let start = place(outlives);
        assert!(!is_mapped(start), "nobody can use it any more");

        // What debuggers were told of may have breakpoints in it.
        let template = shared_template();
        let told = instance(&template);
        told.set_debug(DebugLevel::Symbols).unwrap();
        let start = place(told);
        assert!(!is_mapped(start), "it has pages of its own");
        let many: Vec<Library> = (0..40).map(|_| instance(&template)).collect();
        let places: Vec<usize> = many.into_iter().map(place).collect();
        let kept = places.iter().filter(|&&start| is_mapped(start)).count();
        // 16 as a whole, and the memory of 16.
        assert!((1..=32).contains(&kept), "{kept} of 40 are kept");
    });
}

#[test]
fn what_lies_behind_a_received_image_is_given_back_when_nobody_waits() {
    isolated(|| {
        let path = gcc("again.c", &["-Wl,-z,now"]);
        let mut file = read(&path);
        file.resize(file.len() + (4 << 20), 7);
        let received = || {
            let mut buffer = ImageBuffer::new(file.len()).unwrap();
            buffer.copy_from_slice(&file);
            // SAFETY: a library of `testlibs/`.
            unsafe { loader().debug(DebugLevel::Off).load_buffer(buffer) }.unwrap()
        };
        let behind = |library: &Library| library.address_range().end + (1 << 20);
        let first = received();
        assert!(is_mapped(behind(&first)));
        let _buffer = ImageBuffer::new(1).unwrap();
        assert!(!is_mapped(behind(&first)), "another buffer is made");
        let second = received();
        drop(load(&path));
        assert!(!is_mapped(behind(&second)), "an image is unloaded");
        let third = received();
        memdl::release_memory();
        assert!(!is_mapped(behind(&third)), "on demand");
        for library in [first, second, third] {
            assert_eq!(function::<Number>(&library, "fresh")(), 42);
        }
    });
}

#[test]
fn relocations_that_meet_are_applied_to_instances_in_order() {
    isolated(|| {
        // An import and a symbol of the library's own, one behind the other, go to the same word.
        let mut file = read(&gcc("again.c", &["-Wl,-z,now"]));
        let relocation = |place: u64, info: u64| [place.to_le_bytes(), info.to_le_bytes()].concat();
        let elf = goblin::elf::Elf::parse(&file).unwrap();
        let named = |name: &str| {
            let found = elf
                .dynsyms
                .iter()
                .enumerate()
                .find(|(_, symbol)| elf.dynstrtab.get_at(symbol.st_name) == Some(name));
            let (index, symbol) = found.unwrap();
            (index as u64, symbol.st_value)
        };
        let (strstr, imported) = (named("strstr").0, named("imported").1);
        let (data, pointer) = (named("data").0, named("pointer").1);
        let entry = |place: u64, symbol: u64| {
            let wanted = relocation(place, symbol << 32 | u64::from(machine::ABSOLUTE.number));
            file.windows(16).position(|window| *window == *wanted).expect(machine::ABSOLUTE.name)
        };
        let entries = [entry(pointer, data), entry(imported, strstr)];
        let symbols = [strstr, data];
        for (at, symbol) in [entries.iter().min(), entries.iter().max()].into_iter().zip(symbols) {
            let changed = relocation(pointer, symbol << 32 | u64::from(machine::ABSOLUTE.number));
            file[*at.unwrap()..][..16].copy_from_slice(&changed);
        }

        let template = loader().debug(DebugLevel::Off).template(&file).unwrap();
        // SAFETY: a library of `testlibs/`, of which nothing is called.
        let loaded = unsafe { loader().load(&file) }.unwrap();
        let instance = instance(&template);
        let words = |library: &Library| {
            ["pointer", "imported"].map(|name| {
                let word = function::<*const usize>(library, name);
                // SAFETY: a word of the library's data.
                let word = unsafe { word.read() };
                let inside = library.address_range().contains(&word);
                if inside { word - library.load_bias() } else { word }
            })
        };
        assert_eq!(words(&instance), words(&loaded));
    });
}
