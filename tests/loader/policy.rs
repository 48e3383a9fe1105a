//! What a host can demand of images: that their bytes are verified, that they bind to no symbols but
//! these, that nobody can change them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{fs, ptr};

use crate::common::{
    AnyWay, build, call_run, debug_entries, isolated, limited, machine, maps, name_of, own_test,
    run,
};
use crate::helpers::function;
use memdl::{Binding, DebugLevel, Error, Imports, Library, Loader};

type Find = unsafe extern "C" fn(*const c_char) -> *mut c_void;
type Number = unsafe extern "C" fn() -> c_int;

fn imports(flags: &[&str]) -> Vec<u8> {
    let path = build("gcc", "policy/imports.c", &[&["-O2"], flags].concat());
    fs::read(path).unwrap()
}

fn load(loader: &Loader, bytes: &[u8]) -> Result<Library, Error> {
    // SAFETY: the libraries of `testlibs/` may be loaded anywhere.
    unsafe { loader.load_any_way(bytes) }
}

/// What one of the functions of `imports.c` finds under a name.
fn found(library: &Library, way: &str, name: &str) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: a function that takes a name.
    unsafe { function::<Find>(library, way)(name.as_ptr()) }
}

/// What `dlerror` says inside.
fn why(library: &Library) -> String {
    // SAFETY: it returns null or a C string.
    unsafe {
        let text = function::<unsafe extern "C" fn() -> *const c_char>(library, "why")();
        assert!(!text.is_null());
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

fn system() -> *mut c_void {
    // SAFETY: a C string.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"system".as_ptr()) }
}

/// By its version: glibc before 2.34 has another one in libpthread.
fn old_system() -> *mut c_void {
    let version = CString::new(machine::FIRST_GLIBC).unwrap();
    // SAFETY: C strings.
    unsafe { libc::dlvsym(libc::RTLD_DEFAULT, c"system".as_ptr(), version.as_ptr()) }
}

/// All that `imports.c` needs of the host to be loaded and to look up, but `system`.
const ALLOWED: [&str; 7] =
    ["dlsym", "dlvsym", "dlopen", "dlerror", "strlen", "__cxa_finalize", "__gmon_start__"];

// ------------------------------------------------------------------------------------------------
// Bytes

#[test]
fn the_verifier_sees_every_image_before_anything_else_does() {
    isolated(|| {
        let b = fs::read(build("gcc", "policy/sealed.c", &["-Wl,-soname,libb.so"])).unwrap();
        let stub = build("gcc", "policy/sealed.c", &["-Wl,-soname,libb.so"]);
        let needs = ["-Wl,--no-as-needed", stub.to_str().unwrap()];
        let a = imports(&needs);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let refuses = Arc::new(Mutex::new(String::new()));
        let which = refuses.clone();
        let loader = Loader::new()
            .name("a")
            .provide("libb.so", b.clone())
            .provide("libunneeded.so", &b"nothing"[..])
            .verify(move |image| {
                note.lock().unwrap().push((image.name().to_owned(), image.bytes().to_vec()));
                if *which.lock().unwrap() == image.name() {
                    Err("not on the list".into())
                } else {
                    Ok(())
                }
            });
        drop(load(&loader, &a).unwrap());
        assert_eq!(
            seen.lock().unwrap().drain(..).collect::<Vec<_>>(),
            [("a".to_owned(), a.clone()), ("libb.so".to_owned(), b)]
        );

        let before = (maps().len(), debug_entries());
        for (name, text) in [
            ("a", "a: refused by the verifier: not on the list"),
            ("libb.so", "libb.so: refused by the verifier: not on the list"),
        ] {
            *refuses.lock().unwrap() = name.to_owned();
            let error = load(&loader, &a).unwrap_err();
            assert!(matches!(&error, Error::Refused { image, .. } if image == name), "{error:?}");
            assert_eq!(error.to_string(), text);
        }
        // Nothing has looked at what it refuses.
        *refuses.lock().unwrap() = "a".to_owned();
        for bytes in [&b"no image"[..], b""] {
            let error = load(&loader, bytes).unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
            let buffer = memdl::ImageBuffer::new(bytes.len());
            // SAFETY: it is refused.
            let error =
                buffer.and_then(|buffer| unsafe { loader.load_buffer(buffer) }).unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
        }
        assert_eq!((maps().len(), debug_entries()), before);
    });
}

#[test]
fn a_panic_of_the_verifier_leaves_nothing() {
    isolated(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let b = fs::read(build("gcc", "policy/sealed.c", &["-Wl,-soname,libb.so"])).unwrap();
        let stub = build("gcc", "policy/sealed.c", &["-Wl,-soname,libb.so"]);
        let a = imports(&["-Wl,--no-as-needed", stub.to_str().unwrap()]);
        let panics = |image: &memdl::VerifyRequest<'_>| match image.name() {
            "libb.so" => panic!("the verifier's own"),
            _ => Ok(()),
        };
        let loader = Loader::new().provide("libb.so", b).verify(panics);
        drop(load(&Loader::new().provide("libb.so", &b""[..]), &imports(&[])).unwrap());
        let before = (maps().len(), debug_entries());
        for _ in 0..3 {
            let panic = catch_unwind(AssertUnwindSafe(|| load(&loader, &a)));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the verifier's own"));
        }
        assert_eq!((maps().len(), debug_entries()), before);
        drop(load(&Loader::new(), &imports(&[])).unwrap());
    });
}

#[test]
fn the_verifier_sees_what_an_image_opens() {
    isolated(|| {
        let opened = build("gcc", "policy/sealed.c", &[]);
        let path = opened.to_str().unwrap();
        for (says, expected) in [("no", false), ("panic", false), ("yes", true)] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let note = seen.clone();
            let loader = Loader::new().name("imports").verify(move |image| {
                note.lock().unwrap().push(image.name().to_owned());
                match says {
                    _ if image.name() == "imports" => Ok(()),
                    "no" => Err("not here".into()),
                    "panic" => panic!("not here either"),
                    _ => Ok(()),
                }
            });
            let library = load(&loader, &imports(&[])).unwrap();
            for way in ["opens", "passes_on"] {
                assert_eq!(!found(&library, way, path).is_null(), expected, "{says}, {way}");
            }
            assert_eq!(seen.lock().unwrap()[..2], ["imports", path], "{says}");
            if !expected {
                let text = why(&library);
                let reason = if says == "no" { "not here" } else { "the verifier has panicked" };
                assert_eq!(text, format!("{path}: refused by the verifier: {reason}"));
                // Nor did anybody else open it.
                assert!(!maps().iter().any(|line| line.name == path), "{says}");
            }
        }
    });
}

// ------------------------------------------------------------------------------------------------
// Symbols

fn refused(error: &Error) -> Vec<String> {
    let Error::RefusedImports { symbols, .. } = error else { panic!("{error}") };
    let mut names: Vec<String> = symbols.iter().map(|symbol| symbol.name.clone()).collect();
    names.sort();
    names
}

#[test]
fn all_imports_that_are_refused_are_listed_at_once() {
    let bytes = imports(&["-DMORE"]);
    for binding in [Binding::Now, Binding::Lazy] {
        let loader = Loader::new().name("image").binding(binding);
        let error = load(&loader.clone().imports(Imports::allow(ALLOWED)), &bytes).unwrap_err();
        assert_eq!(refused(&error), ["chdir", "chroot", "system"], "{binding:?}");
        let text = error.to_string();
        let chroot = format!(" chroot@{}", machine::FIRST_GLIBC);
        for part in ["image: the host", &chroot, "Loader::imports", "Loader::define"] {
            assert!(text.contains(part), "{text}");
        }
        let deny = Imports::deny(["chroot", "system", "socket"]);
        let error = load(&loader.clone().imports(deny), &bytes).unwrap_err();
        assert_eq!(refused(&error), ["chroot", "system"], "{binding:?}");

        let asked = Arc::new(Mutex::new(Vec::new()));
        let note = asked.clone();
        let filter = Imports::filter(move |request| {
            note.lock().unwrap().push((
                request.name().to_owned(),
                request.version().map(str::to_owned),
                request.requested_by().to_owned(),
            ));
            request.name() != "system"
        });
        let error = load(&loader.clone().imports(filter), &bytes).unwrap_err();
        assert_eq!(refused(&error), ["system"], "{binding:?}");
        let asked = asked.lock().unwrap();
        let system = ("system".into(), Some(machine::FIRST_GLIBC.into()), "image".into());
        assert!(asked.contains(&system), "{asked:?}");
        // Nobody else's: the host has none of that name.
        assert!(!asked.iter().any(|(name, ..)| name == "supplied"), "{asked:?}");
    }
    let error = load(&Loader::new().imports(Imports::all()), &bytes).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

extern "C" fn no_system(_: *const c_char) -> c_int {
    55
}

#[test]
fn what_the_caller_supplies_is_not_restricted() {
    let loader = Loader::new().imports(Imports::allow(ALLOWED));
    let call = |library: &Library| {
        type Calls = unsafe extern "C" fn(*const c_char) -> c_int;
        // SAFETY: null or a command that nothing runs.
        unsafe { function::<Calls>(library, "calls_system")(ptr::null()) }
    };
    let plain = imports(&[]);
    let defined = loader.clone().define("system", no_system as *const c_void);
    assert_eq!(call(&load(&defined, &plain).unwrap()), 55);
    let resolver = loader
        .clone()
        .resolver(|request| (request.name() == "system").then_some(no_system as *const c_void));
    for binding in [Binding::Now, Binding::Lazy] {
        assert_eq!(call(&load(&resolver.clone().binding(binding), &plain).unwrap()), 55);
    }
    // The image's own, though the host's comes first otherwise.
    let own = imports(&["-DOWN"]);
    for binding in [Binding::Now, Binding::Lazy] {
        assert_eq!(call(&load(&loader.clone().binding(binding), &own).unwrap()), 78);
    }
    assert_eq!(call(&load(&Loader::new(), &own).unwrap()), 1, "is there a shell?");
    // A weak one is null.
    for (imports_of_host, expected) in [(Imports::deny(["getppid"]), 0), (Imports::all(), 1)] {
        let library = load(&Loader::new().imports(imports_of_host), &imports(&["-DWEAK"])).unwrap();
        // SAFETY: no preconditions.
        assert_eq!(unsafe { function::<Number>(&library, "has_getppid")() }, expected);
    }
}

#[test]
fn dlsym_finds_no_more_than_relocations_do() {
    isolated(|| {
        let bytes = imports(&["-DOWN", "-Wl,-Bsymbolic"]);
        let without_own = imports(&["-Wl,-z,lazy"]);
        let open = load(&Loader::new().name("imports"), &without_own).unwrap();
        let allowed = Imports::allow(ALLOWED.into_iter().chain(["getpid"]));
        let loader = Loader::new().name("imports").imports(allowed);
        let supplied = loader.clone().define("system", no_system as *const c_void);
        let library = load(&supplied, &without_own).unwrap();
        for way in [
            "by_default",
            "by_next",
            "by_scope",
            "by_library",
            "by_executable",
            "by_itself",
            "by_version",
            "by_found",
        ] {
            let theirs = found(&open, way, "system");
            if way != "by_itself" || !theirs.is_null() {
                let expected = if way == "by_version" { old_system() } else { system() };
                assert_eq!(theirs, expected, "{way}, without a restriction");
            }
            assert_eq!(found(&library, way, "system"), ptr::null_mut(), "{way}");
            let text = why(&library);
            let expected = if way == "by_itself" && theirs.is_null() {
                "undefined symbol: system"
            } else {
                "the host does not allow this import: system"
            };
            assert!(text.contains(expected), "{way}: {text}");
            if way != "by_itself" {
                assert!(!found(&library, way, "getpid").is_null(), "{way}");
            }
            assert_eq!(found(&library, way, "no such function"), ptr::null_mut(), "{way}");
            assert!(why(&library).contains("undefined symbol"), "{way}");
        }
        // Its own is found where the host's is not there for it.
        let own = load(&loader, &bytes).unwrap();
        let address = found(&own, "by_scope", "system");
        assert!(own.address_range().contains(&address.addr()));
        assert_eq!(found(&own, "by_itself", "system"), address);

        // While it goes; this one has not opened itself.
        let library = load(&supplied, &without_own).unwrap();
        let mut at_end = ptr::dangling_mut();
        // SAFETY: a variable of the image's, and a local that outlives it.
        unsafe { **library.get::<*mut *mut *mut c_void>("at_end").unwrap() = &raw mut at_end };
        library.close().unwrap();
        assert_eq!(at_end, ptr::null_mut());
    });
}

/// What stands in the place of a function of the C library goes by that function's name.
#[test]
fn services_count_by_name() {
    let without = ALLOWED.into_iter().filter(|name| *name != "dlsym").chain(["system"]);
    let error = load(&Loader::new().imports(Imports::allow(without)), &imports(&[])).unwrap_err();
    assert_eq!(refused(&error), ["dlsym"]);
}

#[test]
fn a_panic_of_the_filter_leaves_nothing() {
    isolated(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let bytes = imports(&[]);
        drop(load(&Loader::new(), &bytes).unwrap());
        let before = (maps().len(), debug_entries());
        let filter = Imports::filter(|request| match request.name() {
            "system" => panic!("the filter's own"),
            _ => true,
        });
        let panic = catch_unwind(AssertUnwindSafe(|| load(&Loader::new().imports(filter), &bytes)));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the filter's own"));
        assert_eq!((maps().len(), debug_entries()), before);
    });
}

// ------------------------------------------------------------------------------------------------
// Memory

/// Linux 6.10 and later.
fn can_seal() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 10)
}

fn sealed() -> PathBuf {
    build("gcc", "policy/sealed.c", &["-g", "-O0", "-Wl,-z,now"])
}

#[test]
fn nobody_can_change_a_sealed_image() {
    isolated(|| {
        let bytes = fs::read(sealed()).unwrap();
        for debug in [DebugLevel::Full, DebugLevel::Off] {
            let loader = Loader::new().debug(debug).seal(true);
            let result = load(&loader, &bytes);
            if !can_seal() {
                let text = result.unwrap_err().to_string();
                assert!(text.contains("mseal needs Linux 6.10"), "{text}");
                return;
            }
            let library = result.unwrap();
            assert!(library.is_sealed());
            // SAFETY: it tries, and tells.
            assert_eq!(unsafe { function::<Number>(&library, "attempts")() }, 0, "{debug:?}");
            assert_eq!(call_run(&library), 42);
            // Debuggers can be told as much as of any.
            library.set_debug(DebugLevel::Symbols).unwrap();
            library.set_debug(DebugLevel::Off).unwrap();
            assert_eq!(library.debug(), DebugLevel::Off);

            let range = library.address_range();
            let run: Number = function(&library, "run");
            let error = library.close().unwrap_err();
            assert!(error.to_string().contains("stays for the life of the process"), "{error}");
            // SAFETY: it is still there.
            assert_eq!(unsafe { run() }, 42);
            // Nor is it another's place now.
            memdl::release_memory();
            let other = load(&Loader::new(), &bytes).unwrap();
            assert!(!other.is_sealed() && !range.contains(&other.load_bias()));
            // SAFETY: as above, and it is not sealed: the first thing that it tries succeeds.
            assert_eq!(unsafe { run() }, 42);
            other.close().unwrap();

            // SAFETY: libraries of `testlibs/`.
            let template = unsafe { loader.prepare(&bytes) }.unwrap();
            // SAFETY: as above.
            let (one, two) =
                unsafe { (template.instantiate().unwrap(), template.instantiate().unwrap()) };
            assert!(one.is_sealed() && two.is_sealed() && one.load_bias() != two.load_bias());
            // SAFETY: as above.
            assert_eq!(unsafe { function::<Number>(&two, "attempts")() }, 0, "{debug:?}");
            // SAFETY: as above.
            let error = unsafe { template.pool(1).acquire() }.unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
        // SAFETY: the child ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let library = load(&Loader::new().seal(true), &bytes).unwrap();
            // SAFETY: no preconditions.
            unsafe { libc::_exit(call_run(&library)) };
        }
        let mut status = 0;
        // SAFETY: the child, and a local.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 42);
    });
}

/// What a system without `mseal` says: here one whose filter of system calls knows none of that number.
#[test]
fn without_mseal_a_sealed_load_says_so() {
    isolated(|| {
        let bytes = fs::read(sealed()).unwrap();
        let filter = [
            // The number of the call; 462 is mseal.
            libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: 462 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::ENOSYS as u32 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 },
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
        // SAFETY: a filter for this process alone, which a test of its own runs in.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
        }
        drop(load(&Loader::new(), &bytes).unwrap());
        let before = maps().len();
        let error = load(&Loader::new().name("it").seal(true), &bytes).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("it: not supported: sealing"), "{error}");
        assert!(error.to_string().contains("mseal needs Linux 6.10"), "{error}");
        assert_eq!(maps().len(), before);
    });
}

/// The debugged program: loads it sealed, and calls it.
#[test]
#[ignore = "the program that another test debugs: it starts it"]
fn a_sealed_image_to_debug() {
    let Ok(path) = std::env::var("MEMDL_TEST_SEALED") else { return };
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { Loader::new().seal(true).load(&fs::read(path).unwrap()) }.unwrap();
    assert_eq!(call_run(&library), 42);
    println!("called");
}

#[test]
fn breakpoints_work_in_a_sealed_image() {
    if !can_seal() {
        return;
    }
    let mut gdb = limited(120, "gdb");
    gdb.args(["--batch", "-nx"]);
    for command in [
        "set confirm off",
        "set breakpoint pending on",
        "set debuginfod enabled off",
        "set startup-with-shell off",
        "break -qualified count",
        "run",
        "backtrace 2",
        "print counter",
        "finish",
        "delete",
        "continue",
    ] {
        gdb.args(["-ex", command]);
    }
    let own = own_test(name_of(&a_sealed_image_to_debug));
    gdb.arg("--args").arg(own.get_program()).args(own.get_args()).arg("--ignored");
    let session = run(gdb.env("MEMDL_TEST_SEALED", sealed()), "gdb");
    for part in
        ["#0  count () at ", "run () at ", "$1 = 1\n", "Value returned is $2 = 2\n", "called\n"]
    {
        assert!(session.contains(part), "no {part:?} in\n{session}");
    }
}

#[test]
fn the_example_takes_what_is_signed_and_nothing_else() {
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().parent().unwrap().join("examples/verify");
    // All of `cargo test` has built it; of one test that is asked for, it has not.
    if !example.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--example", "verify"]);
        run(cargo.arg("--target-dir").arg(example.ancestors().nth(3).unwrap()), "cargo");
    }
    let said = run(&mut limited(60, example), "cargo build");
    // But for what the library says.
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains("call 1")).collect();
    assert_eq!(
        lines,
        [
            "on the list: foo(42) = 84",
            "changed: image: refused by the verifier: its digest is not on the list",
            "signed: foo(42) = 84",
            "signed by somebody else: image: refused by the verifier: signature error: Verification equation was not satisfied",
        ]
    );
}
