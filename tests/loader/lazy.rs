//! Lazy binding: calls that are bound when they are first made.

use std::ffi::{c_int, c_void};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::common::{
    AnyWay, Opened, build, call_run, isolated, isolated_output, linkers, load_and_run, machine,
};
use crate::helpers::read;
use goblin::elf::Elf;
use goblin::elf::dynamic::{DT_BIND_NOW, DT_FLAGS, DT_FLAGS_1, DT_PLTGOT};
use goblin::elf::program_header::{PT_DYNAMIC, PT_LOAD};
use libc::{RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use memdl::{Binding, Error, Library, Loader, SymbolRequest};

fn gcc(source: &str, flags: &[&str]) -> PathBuf {
    // Distributions differ in what they make of no flag.
    let flags = [&["-O1", "-Wl,-z,lazy"], flags].concat();
    build("gcc", &format!("lazy/{source}"), &flags)
}

fn lazy() -> Loader {
    Loader::new().binding(Binding::Lazy)
}

fn load(loader: &Loader, path: &Path) -> Result<Library, Error> {
    // SAFETY: a library of `testlibs/`, which may be loaded anywhere.
    unsafe { loader.load_any_way(&read(path)) }
}

extern "C" fn add_one(x: c_int) -> c_int {
    x + 1
}

/// A resolver that knows the functions `late*`, and counts how often it is asked for them.
fn late(request: &SymbolRequest<'_>, count: &AtomicUsize) -> Option<*const c_void> {
    request.name().starts_with("late").then(|| {
        count.fetch_add(1, Ordering::Relaxed);
        add_one as *const c_void
    })
}

/// The relocated PLT is what these tests are about.
fn has_lazy_plt(path: &Path) -> bool {
    let file = read(path);
    !Elf::parse(&file).unwrap().pltrelocs.is_empty()
}

#[test]
fn arguments_arrive_and_results_return() {
    isolated(|| {
        let callee = gcc("callee.c", &["-Wl,-soname,libcallee.so"]);
        for linker in linkers() {
            let linker = format!("-fuse-ld={linker}");
            let path = gcc("calls.c", &[&linker, callee.to_str().unwrap()]);
            assert!(has_lazy_plt(&path));
            let provider = load(&Loader::new(), &callee).unwrap();
            for loader in
                [lazy().depends_on(&provider), lazy().provide("libcallee.so", read(&callee))]
            {
                let library = load_and_run(&loader, &read(&path), &linker);
                assert_eq!(call_run(&library), 42, "{linker}: the second time");
            }
            drop(provider);
            let _callee = Opened::new(&callee, RTLD_NOW | RTLD_LOCAL);
            let opened = Opened::new(&path, RTLD_LAZY | RTLD_LOCAL);
            assert_eq!((opened.run(), opened.run()), (42, 42), "dlopen, {linker}");
        }
    });
}

#[test]
fn vectors_of_every_width_arrive() {
    isolated(|| {
        let widths = [
            ("16", "-fPIC", true),
            #[cfg(target_arch = "x86_64")]
            ("32", "-mavx", std::arch::is_x86_feature_detected!("avx")),
            #[cfg(target_arch = "x86_64")]
            ("64", "-mavx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ];
        let widths = widths.into_iter().filter(|(_, _, is_here)| *is_here);
        for (width, feature, _) in widths {
            let width = format!("-DWIDTH={width}");
            let soname = format!("-Wl,-soname,lib{width}.so");
            let callee = gcc("vectors.c", &["-DDEFINE", &width, feature, &soname]);
            let path = gcc("vectors.c", &[&width, feature, callee.to_str().unwrap()]);
            let loader = lazy().provide(&soname["-Wl,-soname,".len()..], read(&callee));
            // A slot that is filled does not come through the resolver: one load for each try.
            for _ in 0..3 {
                let library = load_and_run(&loader, &read(&path), &width);
                assert_eq!(call_run(&library), 42, "{width}: the second time");
            }
            let _callee = Opened::new(&callee, RTLD_NOW | RTLD_LOCAL);
            assert_eq!(Opened::new(&path, RTLD_LAZY).run(), 42, "dlopen, {width}");
        }
    });
}

/// Status 127 and the name on standard error, as the system's loader.
fn ended_for_want_of(output: &Output, name: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.status.signal()), (Some(127), None), "{text}");
    assert!(text.contains("symbol lookup error") && text.contains(name), "{text}");
}

#[test]
fn a_missing_function_is_missed_when_it_is_called() {
    let callee = gcc("callee.c", &["-Wl,-soname,libcallee.so"]);
    let path = gcc("calls.c", &[callee.to_str().unwrap()]);
    let output = isolated_output(|| {
        let loader = Loader::new().provide("libcallee.so", read(&callee));
        let error = load(&loader, &path).expect_err("bound at load");
        assert!(error.to_string().contains("missing_for_good"), "{error}");
        let library = load(&loader.binding(Binding::Lazy), &path).unwrap();
        assert_eq!(call_run(&library), 42);
        // SAFETY: `int call_missing(int)`.
        let call = unsafe { library.get::<extern "C" fn(c_int) -> c_int>("call_missing") }.unwrap();
        println!("{}", call(1));
        std::process::exit(3);
    });
    ended_for_want_of(&output.expect("the child does not come back"), "missing_for_good");
}

/// What `dlopen` does, for the test above.
#[test]
fn dlopen_misses_a_function_when_it_is_called() {
    let path = gcc("one.c", &[]);
    let output = isolated_output(|| {
        let opened = Opened::new(&path, RTLD_LAZY);
        opened.run();
        std::process::exit(3);
    });
    ended_for_want_of(&output.expect("the child does not come back"), "late");
}

/// The resolver of the caller is asked once for each function, however many threads call it.
#[test]
fn first_calls_from_many_threads() {
    const THREADS: usize = 16;
    const FUNCTIONS: usize = 20;
    let path = gcc("many.c", &[]);
    assert!(has_lazy_plt(&path));
    for round in 0..20 {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let loader = lazy().resolver(move |request| late(request, &count));
        let library = load(&loader, &path).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 0, "asked at the load");
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    assert_eq!(call_run(&library), 42, "round {round}");
                });
            }
        });
        let after_first = asked.load(Ordering::Relaxed);
        // Threads that come at once may each ask.
        assert!((FUNCTIONS..=FUNCTIONS * THREADS).contains(&after_first), "{after_first}");
        assert_eq!(call_run(&library), 42);
        assert_eq!(asked.load(Ordering::Relaxed), after_first, "asked again");
    }
}

#[test]
fn the_second_call_goes_straight_there() {
    let path = gcc("one.c", &[]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let loader = lazy().resolver(move |request| late(request, &count));
    let template = loader.template(&read(&path)).unwrap();
    for instances in 1..=3 {
        // SAFETY: a library of `testlibs/`.
        let library = unsafe { template.instantiate() }.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), instances - 1);
        for _ in 0..5 {
            assert_eq!(call_run(&library), 42);
            assert_eq!(asked.load(Ordering::Relaxed), instances);
        }
    }
}

#[test]
fn an_image_that_asks_to_be_bound_at_load_is() {
    for flags in [&["-Wl,-z,now"], &["-Wl,-z,now,-z,relro"]] {
        let path = gcc("one.c", flags);
        let error = load(&lazy(), &path).expect_err("it is bound");
        assert!(error.to_string().contains("late"), "{error}");
        assert!(Opened::refusal(&path, RTLD_LAZY).contains("late"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let loader = lazy().resolver(move |request| late(request, &count));
        let library = load(&loader, &path).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(call_run(&library), 42);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}

/// `DT_BIND_NOW`, as linkers wrote it before there were flags.
#[test]
fn the_old_way_to_ask_to_be_bound_at_load() {
    let path = gcc("one.c", &["-Wl,-z,now,--disable-new-dtags"]);
    let mut file = read(&path);
    let elf = Elf::parse(&file).unwrap();
    let dynamic = elf.dynamic.as_ref().unwrap();
    let at = |tag| dynamic.dyns.iter().position(|entry| entry.d_tag == tag);
    assert!(at(DT_BIND_NOW).is_some() && at(DT_FLAGS).is_none());
    let header = elf.program_headers.iter().find(|header| header.p_type == PT_DYNAMIC).unwrap();
    let flags = header.p_offset as usize + at(DT_FLAGS_1).unwrap() * 16 + 8;
    file[flags..][..8].fill(0);
    let old = path.with_extension("old.so");
    fs::write(&old, &file).unwrap();
    let error = load(&lazy(), &old).expect_err("it is bound");
    assert!(error.to_string().contains("late"), "{error}");
    assert!(Opened::refusal(&old, RTLD_LAZY).contains("late"));
}

/// The slots of an image are read-only where it asks for that, and are written while it is lazy.
#[test]
fn lazy_slots_behind_relro() {
    let path = gcc("one.c", &["-Wl,-z,relro"]);
    let loader = lazy().define("late", add_one as *const c_void);
    let library = load_and_run(&loader, &read(&path), "relro");
    assert_eq!(call_run(&library), 42);
}

#[test]
fn a_definition_that_comes_later_is_found() {
    isolated(|| {
        let (user, definer) = (gcc("one.c", &[]), gcc("late.c", &[]));
        let library = load(&lazy(), &user).unwrap();
        // Seen by nobody.
        let local = load(&Loader::new(), &definer).unwrap();
        drop(local);
        let global = load(&Loader::new().global(true), &definer).unwrap();
        assert_eq!(call_run(&library), 42);
        // It is kept, since it is called without asking now.
        drop(global);
        assert_eq!((call_run(&library), call_run(&library)), (42, 42));
        drop(library);

        // The same through the system's loader.
        let library = load(&lazy(), &user).unwrap();
        let opened = Opened::new(&definer, RTLD_NOW | RTLD_GLOBAL);
        assert_eq!((call_run(&library), call_run(&library)), (42, 42));
        drop(library);
        drop(opened);

        let opened = Opened::new(&user, RTLD_LAZY);
        let global = Opened::new(&definer, RTLD_NOW | RTLD_GLOBAL);
        assert_eq!(opened.run(), 42, "dlopen");
        drop((opened, global));
    });
}

/// A word of a call that is not in the PLT's table leads to no PLT entry, so it is bound at once; and so
/// are all if the words behind `DT_PLTGOT` are not the image's.
#[test]
fn what_has_no_plt_entry_is_bound_at_once() {
    let path = gcc("one.c", &["-fno-plt"]);
    let file = read(&path);
    let elf = Elf::parse(&file).unwrap();
    let name = |symbol: usize| elf.dynstrtab.get_at(elf.dynsyms.get(symbol).unwrap().st_name);
    let index = elf.dynrelas.iter().position(|rela| name(rela.r_sym) == Some("late")).unwrap();
    let dynamic = elf.dynamic.as_ref().unwrap();
    let mut changed = file.clone();
    // GLOB_DAT becomes JUMP_SLOT.
    changed[dynamic.info.rela + index * 24 + 8..][..4]
        .copy_from_slice(&machine::JUMP_SLOT.number.to_le_bytes());
    let loader = lazy().define("late", add_one as *const c_void);
    load_and_run(&loader, &changed, "a call outside the PLT's table");

    let path = gcc("one.c", &[]);
    let mut changed = read(&path);
    let file = changed.clone();
    let elf = Elf::parse(&file).unwrap();
    let headers = &elf.program_headers;
    let section = headers.iter().find(|it| it.p_type == PT_DYNAMIC).unwrap().p_offset as usize;
    let entries = &elf.dynamic.as_ref().unwrap().dyns;
    let index = entries.iter().position(|entry| entry.d_tag == DT_PLTGOT).unwrap();
    let last = headers.iter().rfind(|it| it.p_type == PT_LOAD).unwrap();
    let at = section + index * 16 + 8;
    changed[at..at + 8].copy_from_slice(&(last.p_vaddr + last.p_memsz - 8).to_le_bytes());
    load_and_run(&loader, &changed, "DT_PLTGOT at the end of the image");
}
