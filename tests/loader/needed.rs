//! Libraries of the system's that an image needs, and that can tell whether they see the image.
//! `dlopen` of the same file is the reference.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::common::{AnyWay, Opened, build, call_run, isolated, limit, load_and_run, maps};
use libc::RTLD_NOW;
use memdl::{Error, Imports, Loader};

/// A library that needs these files. Without a `DT_SONAME`, they are needed by their paths.
fn library(compiler: &str, source: &str, flags: &[&str], needs: &[&Path]) -> PathBuf {
    let needs = needs.iter().map(|path| path.to_str().unwrap());
    let flags = ["-O1", "-Wl,--no-as-needed"].into_iter().chain(flags.iter().copied()).chain(needs);
    build(compiler, &format!("needed/{source}"), &flags.collect::<Vec<_>>())
}

fn loader() -> Loader {
    Loader::new().system_libraries(true)
}

/// Whether the system's loader has this file, or one of this name, in place.
fn is_opened(name: &str) -> bool {
    maps().iter().any(|line| line.name.contains(name))
}

/// What `run` gives, from bytes, then in `dlopen`'s hands.
fn both(path: &Path) -> [i32; 2] {
    // SAFETY: a library of `testlibs/`.
    let library =
        unsafe { loader().name(path.to_str().unwrap()).load_any_way(&fs::read(path).unwrap()) };
    let library = library.unwrap_or_else(|error| panic!("{error}"));
    let ours = call_run(&library);
    drop(library);
    [ours, Opened::new(path, RTLD_NOW).run()]
}

#[test]
fn a_needed_library_uses_what_the_image_defines() {
    isolated(|| {
        let asks = library("gcc", "asks.c", &[], &[]);
        let between = library("gcc", "between.c", &[], &[&asks]);
        assert_eq!(both(&library("gcc", "answers.c", &[], &[&asks])), [42, 42]);
        // What lies between sees it as well.
        let through = library("gcc", "answers.c", &["-DASK=ask_for"], &[&between]);
        assert_eq!(both(&through), [42, 42]);
        let also = library("gcc", "answers.c", &["-DASK=ask_for"], &[&between, &asks]);
        assert_eq!(both(&also), [42, 42]);
        // A hidden definition is nobody's business.
        let hidden = ["-DBINDING=__attribute__((visibility(\"hidden\")))"];
        assert_eq!(both(&library("gcc", "answers.c", &hidden, &[&asks])), [7, 7]);
        // Nor is any what is bound to itself.
        let bound = library("gcc", "asks.c", &["-Wl,-Bsymbolic"], &[]);
        assert_eq!(both(&library("gcc", "answers.c", &[], &[&bound])), [7, 7]);
    });
}

/// Each instance has its own, bound to it, and they go with it.
#[test]
fn such_a_library_comes_and_goes_with_the_image() {
    isolated(|| {
        let asks = library("gcc", "asks.c", &[], &[]);
        let file = fs::read(library("gcc", "answers.c", &[], &[&asks])).unwrap();
        let template = loader().template(&file).unwrap();
        // SAFETY: a library of `testlibs/`.
        let round =
            || unsafe { [template.instantiate().unwrap(), template.instantiate().unwrap()] };
        round();
        let before = maps().len();
        for _ in 0..50 {
            assert_eq!(round().map(|library| call_run(&library)), [42, 42]);
        }
        assert!(maps().len() <= before + 2, "{before} mappings became {}", maps().len());
        assert!(!is_opened(asks.to_str().unwrap()));
    });
}

/// What it defines is the system's still: an image that may not bind to it does not.
#[test]
fn restrictions_hold_for_such_a_library_too() {
    isolated(|| {
        let asks = library("gcc", "asks.c", &[], &[]);
        let file = fs::read(library("gcc", "answers.c", &[], &[&asks])).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let loader = loader().name("answers").verify(move |image| {
            note.lock().unwrap().push(image.name().to_owned());
            Ok(())
        });
        let load = |imports| {
            // SAFETY: a library of `testlibs/`.
            unsafe { loader.clone().imports(imports).load_any_way(&file) }
        };
        // Its own references are its own business: it uses `answer`.
        let library = load(Imports::allow(["ask"])).unwrap();
        assert_eq!(call_run(&library), 42);
        assert_eq!(*seen.lock().unwrap(), ["answers", asks.to_str().unwrap()]);
        match load(Imports::deny(["ask"])).unwrap_err() {
            Error::RefusedImports { symbols, .. } => {
                assert_eq!(symbols.len(), 1);
                assert_eq!((&*symbols[0].name, &*symbols[0].requested_by), ("ask", "answers"));
            }
            error => panic!("{error}"),
        }
    });
}

/// `ld.so` binds nothing anew either.
#[test]
fn a_library_that_is_in_the_process_stays_as_it_is() {
    isolated(|| {
        let asks = library("gcc", "asks.c", &[], &[]);
        let _opened = Opened::new(&asks, RTLD_NOW);
        assert_eq!(both(&library("gcc", "answers.c", &[], &[&asks])), [7, 7]);
    });
}

#[test]
fn the_cpp_runtime_uses_the_allocator_of_the_image() {
    isolated(|| {
        assert!(!is_opened("libstdc++"), "the test's own process has the runtime");
        assert_eq!(both(&library("g++", "allocates.cpp", &[], &[])), [42, 42]);
    });
}

/// An image of the usual kind, with functions and templates of its own, has no copy of its own.
#[test]
fn other_images_share_the_cpp_runtime() {
    isolated(|| {
        let path = build("g++", "unwind/throws.cpp", &["-O1", "-pthread"]);
        let before = maps().len();
        let library = load_and_run(&loader(), &fs::read(path).unwrap(), "throws.cpp");
        assert!(is_opened("libstdc++") && maps().len() > before);
        drop(library);
    });
}

#[test]
fn a_library_that_needs_the_image_in_turn() {
    isolated(|| {
        let soname = "-Wl,-soname,libmemdl-test-circle.so";
        // The second is linked to a first that is not there any more when it is needed.
        let stub = library("gcc", "circle.c", &["-DFIRST", soname], &[]);
        let second = library("gcc", "circle.c", &[], &[&stub]);
        let first = library("gcc", "circle.c", &["-DFIRST", soname], &[&second]);
        assert_eq!(both(&first), [42, 42]);
    });
}

#[test]
fn a_runtime_that_the_image_reports_itself_to() {
    isolated(|| {
        let registry = library("gcc", "registry.c", &[], &[]);
        assert_eq!(both(&library("gcc", "reports.c", &[], &[&registry])), [42, 42]);
    });
}

/// To find out whether the process has loaded it, no file is opened that may keep the opener waiting.
#[test]
fn a_needed_library_that_is_a_pipe_is_missing() {
    let pipe = std::env::temp_dir().join(format!("memdl-needed-{}.so", std::process::id()));
    let stand_in = library("gcc", "asks.c", &["-DSTANDS_IN"], &[]);
    fs::copy(stand_in, &pipe).unwrap();
    let image = fs::read(library("gcc", "asks.c", &["-DNEEDS_A_PIPE"], &[&pipe])).unwrap();
    fs::remove_file(&pipe).unwrap();
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: a library of `testlibs/`, which is not loaded.
        done.send(unsafe { Loader::new().load(&image) }.map(drop))
    });
    let result = result.recv_timeout(limit(std::time::Duration::from_secs(60)));
    fs::remove_file(&pipe).unwrap();
    let error = result.expect("the load ends").unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}
