//! The results that images get from the functions of the C library that describe loaded libraries. The
//! reference is `dlopen` of the same file.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use crate::common::{
    AnyWay, Opened, build, call_run, exit_status, glibc, in_child, isolated, load_and_run, machine,
    maps,
};
use crate::helpers::{function, opened_function, read};
use libc::{RTLD_GLOBAL, RTLD_LAZY, RTLD_NOW};
use memdl::{Library, Loader};

type Number = extern "C" fn() -> c_int;
type Listed = extern "C" fn(*mut *const u8, *mut c_int) -> c_int;
type Forks = extern "C" fn(*mut [c_int; 3]) -> c_int;
type Extend = extern "C" fn(*const c_char) -> c_int;

/// (The system's `dl_iterate_phdr` does not tell of a block that only descriptors have led to.)
fn gcc(source: &str) -> PathBuf {
    build("gcc", &format!("services/{source}"), &["-O1", machine::CALLS])
}

fn load(path: &Path) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { Loader::new().system_libraries(true).load_any_way(&read(path)) }
        .unwrap_or_else(|error| panic!("{error}"))
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn an_image_asks_about_itself() {
    isolated(|| {
        let path = gcc("asks.c");
        // One by one, for the number of the line.
        let mut names = vec!["own_addresses", "looks_up", "opens"];
        if glibc() >= (2, 35) {
            names.push("finds");
        }
        for name in names {
            let library = load(&path);
            assert_eq!(function::<Number>(&library, name)(), 42, "{name}");
            drop(library);
            let opened = Opened::new(&path, RTLD_NOW);
            assert_eq!(opened_function::<Number>(&opened, name)(), 42, "dlopen, {name}");
        }
        // Two of them do not take one for the other, nor for the file's.
        let (one, two) = (load(&path), load(&path));
        let opened = Opened::new(&path, RTLD_NOW);
        assert_eq!([call_run(&one), call_run(&two), opened.run()], [42; 3]);
    });
}

#[test]
fn an_image_is_listed_once_with_its_headers() {
    isolated(|| {
        let path = gcc("asks.c");
        let file = read(&path);
        let header = goblin::elf::Elf::parse(&file).unwrap().header;
        let (one, _two) = (load(&path), load(&path));
        let opened = Opened::new(&path, RTLD_NOW);
        for listed in [function::<Listed>(&one, "listed"), opened_function(&opened, "listed")] {
            let (mut headers, mut count) = (ptr::null(), 0);
            assert_eq!(listed(&mut headers, &mut count), 42);
            assert_eq!(count, c_int::from(header.e_phnum));
            let length = count as usize * usize::from(header.e_phentsize);
            // SAFETY: the image's listed headers, while it is loaded.
            let listed = unsafe { std::slice::from_raw_parts(headers, length) };
            assert_eq!(listed, &file[header.e_phoff as usize..][..length]);
        }
        // The host's own view knows the file only.
        unsafe extern "C" fn count(
            info: *mut libc::dl_phdr_info,
            _: usize,
            data: *mut c_void,
        ) -> c_int {
            // SAFETY: a record during the call, and the vector below.
            unsafe { (*data.cast::<Vec<u64>>()).push((*info).dlpi_addr) };
            0
        }
        let mut addresses = Vec::<u64>::new();
        // SAFETY: a callback of the type that is asked for.
        unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut addresses).cast()) };
        assert!(addresses.contains(&(opened.load_bias() as u64)));
        assert!(!addresses.contains(&(one.load_bias() as u64)));
    });
}

#[test]
fn an_image_finds_what_it_wraps() {
    isolated(|| {
        let library = |source: &str, flags: &[&str]| {
            build("gcc", &format!("services/{source}"), &[&["-O1"], flags].concat())
        };
        let named = |name: &str| format!("-Wl,-soname,lib{name}.so");
        let last = library("wrapped.c", &["-DLAST", &named("last")]);
        let middle =
            library("wrapped.c", &[&named("middle"), "-Wl,--no-as-needed", last.to_str().unwrap()]);
        let needs = ["-Wl,--no-as-needed", middle.to_str().unwrap()];
        let top = library("next.c", &needs);
        let check = |value: c_int, one: c_int| assert_eq!((value, one), (50, 13));
        type Reads = extern "C" fn(*const c_char) -> c_int;
        // All in one load, then one after the other.
        let provided = [("libmiddle.so", &middle), ("liblast.so", &last)]
            .into_iter()
            .fold(Loader::new(), |loader, (name, path)| loader.provide(name, read(path)));
        // SAFETY: libraries of `testlibs/`.
        let together = unsafe { provided.load_any_way(&read(&top)) }.unwrap();
        check(call_run(&together), function::<Reads>(&together, "atoi")(c"12".as_ptr()));
        let last_alone = load(&last);
        // SAFETY: as above.
        let (middle_alone, top_alone) = unsafe {
            let middle =
                Loader::new().depends_on(&last_alone).load_any_way(&read(&middle)).unwrap();
            let top = Loader::new().depends_on(&middle).load_any_way(&read(&top)).unwrap();
            (middle, top)
        };
        check(call_run(&top_alone), function::<Reads>(&top_alone, "atoi")(c"12".as_ptr()));
        drop(middle_alone);

        let opened = [&last, &middle, &top].map(|path| Opened::new(path, RTLD_NOW));
        check(opened[2].run(), opened_function::<Reads>(&opened[2], "atoi")(c"12".as_ptr()));
    });
}

/// Forks, and waits for the child, which tells the third count by its status.
fn fork(counts: *mut [c_int; 3]) -> c_int {
    // SAFETY: reads the counts, which are there as long as the process.
    let status = in_child(60, || unsafe { (*counts)[2] });
    exit_status(status).unwrap_or_else(|| panic!("{status:#x}"))
}

#[test]
fn handlers_of_forks_go_with_the_image() {
    isolated(|| {
        let path = gcc("asks.c");
        for round in 0..3 {
            let counts: *mut [c_int; 3] = Box::leak(Box::new([0; 3]));
            let library = load(&path);
            assert_eq!(function::<Forks>(&library, "handles_forks")(counts), 0);
            assert_eq!(fork(counts), 1, "round {round}");
            // SAFETY: leaked above.
            assert_eq!(unsafe { *counts }, [1, 1, 0], "round {round}");
            drop(library);
            assert_eq!(fork(counts), 0, "round {round}");
            // SAFETY: as above.
            assert_eq!(unsafe { *counts }, [1, 1, 0], "round {round}: after the unload");
        }
    });
}

#[test]
fn an_extension_sees_the_image_that_opens_it() {
    isolated(|| {
        let (application, extension) = (gcc("application.c"), c_path(&gcc("extension.c")));
        // The host cannot open it.
        Opened::refusal(&gcc("extension.c"), RTLD_NOW);
        let template = Loader::new().system_libraries(true).template(&read(&application)).unwrap();
        // SAFETY: a library of `testlibs/`.
        let (one, two) =
            unsafe { (template.instantiate().unwrap(), template.instantiate().unwrap()) };
        let before = maps().len();
        for round in 0..3 {
            for library in [&one, &two] {
                let extend: Extend = function(library, "extend");
                assert_eq!(extend(extension.as_ptr()), 42, "round {round}");
            }
            // Each has its own, bound to itself.
            for library in [&one, &two] {
                // SAFETY: an `int`.
                let value = unsafe { **library.get::<*mut c_int>("application_value").unwrap() };
                assert_eq!(value, 105, "round {round}");
            }
            for library in [&one, &two] {
                assert_eq!(function::<Number>(library, "withdraw")(), 42, "round {round}");
            }
        }
        memdl::release_memory();
        assert!(maps().len() <= before + 4, "extensions stay: {before} became {}", maps().len());

        // Of an application that others see, the system's loader opens it.
        let opened = Opened::new(&application, RTLD_NOW | RTLD_GLOBAL);
        assert_eq!(opened_function::<Extend>(&opened, "extend")(extension.as_ptr()), 42);
        assert_eq!(opened_function::<Number>(&opened, "withdraw")(), 42);
    });
}

/// An extension that is still open goes with, or after, the image that opened it.
#[test]
fn an_extension_that_is_never_closed() {
    isolated(|| {
        let (application, extension) = (gcc("application.c"), c_path(&gcc("extension.c")));
        for _ in 0..3 {
            let library = load(&application);
            assert_eq!(function::<Extend>(&library, "extend")(extension.as_ptr()), 42);
            library.close().unwrap();
        }
        // The next does not get a handle that the last one opened.
        let library = load(&application);
        assert_eq!(function::<Extend>(&library, "extend")(extension.as_ptr()), 42);
        assert_eq!(function::<Number>(&library, "withdraw")(), 42);
    });
}

#[test]
fn what_cannot_be_opened_is_told_why() {
    isolated(|| {
        type Open = extern "C" fn(*const c_char, c_int) -> *mut c_void;
        type LastError = extern "C" fn() -> *const c_char;
        let library = load(&gcc("application.c"));
        let open: Open = function(&library, "open_it");
        let error: LastError = function(&library, "last_error");
        let last = || {
            let text = error();
            assert!(!text.is_null(), "no error");
            // SAFETY: the text of this thread's last error.
            let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            assert!(error().is_null(), "told twice");
            text
        };
        // What neither can bind.
        let path = build("gcc", "lazy/one.c", &["-O1", "-Wl,-z,now"]);
        assert!(open(c_path(&path).as_ptr(), RTLD_NOW).is_null());
        let text = last();
        assert!(text.contains("late") && text.contains(path.to_str().unwrap()), "{text}");
        // What is no library.
        let path = std::env::temp_dir().join(format!("memdl-no-library-{}", std::process::id()));
        fs::write(&path, "no library").unwrap();
        assert!(open(c_path(&path).as_ptr(), RTLD_LAZY).is_null());
        let text = last();
        fs::remove_file(&path).unwrap();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        // What is not opened already is not opened now.
        let path = c_path(&gcc("extension.c"));
        assert!(open(path.as_ptr(), RTLD_NOW | libc::RTLD_NOLOAD).is_null());
        // And what can be bound later may be: a lazy call to nobody is nobody's business.
        let path = build("gcc", "lazy/one.c", &["-O1", "-Wl,-z,lazy"]);
        let handle = open(c_path(&path).as_ptr(), RTLD_LAZY);
        assert!(!handle.is_null(), "{}", last());
        type Close = extern "C" fn(*mut c_void) -> c_int;
        assert_eq!(function::<Close>(&library, "close_it")(handle), 0);
    });
}

/// The names that images see versions of are images' only.
#[test]
fn the_host_is_not_interposed() {
    let library = load_and_run(&Loader::new().system_libraries(true), &read(&gcc("asks.c")), "");
    let inside = library.address_range();
    let mut info = libc::Dl_info {
        dli_fname: ptr::null(),
        dli_fbase: ptr::null_mut(),
        dli_sname: ptr::null(),
        dli_saddr: ptr::null_mut(),
    };
    // SAFETY: any address may be asked for.
    let known = unsafe { libc::dladdr(inside.start as *const c_void, &mut info) };
    assert_eq!(known, 0, "the host's loader knows of the image");
    // SAFETY: C strings.
    unsafe {
        assert!(libc::dlsym(libc::RTLD_DEFAULT, c"exported_data".as_ptr()).is_null());
        libc::dlerror();
    }
}

/// As in the C library: a block of thread-local variables is made when it is used, not when somebody looks.
#[test]
fn who_walks_the_list_is_given_no_blocks() {
    let name = "who_walks_the_list";
    let variables = crate::common::bytes("gcc", "tls/variables.c", &["-O1"]);
    // SAFETY: libraries of `testlibs/`.
    let (used, walker) = unsafe {
        let loader = Loader::new().system_libraries(true);
        let used = loader.clone().name(name).load(&variables).unwrap();
        (used, loader.load(&crate::common::bytes("gcc", "services/walks.c", &["-O1"])).unwrap())
    };
    let name = CString::new(name).unwrap();
    // SAFETY: the function of that type, with a C string.
    let has_block = || unsafe {
        let has_block = walker.get::<unsafe extern "C" fn(*const c_char) -> c_int>("has_block");
        has_block.unwrap()(name.as_ptr())
    };
    assert_eq!(has_block(), 0);
    assert_eq!(call_run(&used), 42);
    assert_eq!(has_block(), 1);
}
