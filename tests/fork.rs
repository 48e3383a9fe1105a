//! Threads that change debug information, read it and fork at the same time: nobody waits for ever,
//! neither a thread of the parent nor a child.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::bytes;

fn library() -> (Vec<u8>, memdl::Library, usize) {
    let bytes = bytes("gcc", "foo.c", &["-g", "-O0", "-Wl,--build-id"]);
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { memdl::Loader::new().load(&bytes) }.unwrap();
    // SAFETY: only its address is used.
    let address = unsafe { library.get::<*const u8>("foo") }.unwrap().as_raw_ptr().addr();
    (bytes, library, address)
}

/// Forks, has the child do `child` with a limit, and gives its exit status.
fn in_child(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child does what memdl promises to work there, and leaves by `_exit`.
    let process = unsafe { libc::fork() };
    if process == 0 {
        // SAFETY: ends a child that hangs.
        unsafe { libc::alarm(60) };
        let is_right = child();
        // SAFETY: the child is done.
        unsafe { libc::_exit(if is_right { 42 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child of this thread, a local.
    assert_eq!(unsafe { libc::waitpid(process, &mut status, 0) }, process);
    status
}

fn is_right(status: i32) -> bool {
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42
}

#[test]
fn reading_changing_and_forking_do_not_wait_for_each_other_in_a_circle() {
    let (bytes, library, address) = library();
    let [reads, changes, forks] = [const { AtomicU64::new(0) }; 3];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let until_stop = move |turns: &AtomicU64, turn: &dyn Fn()| {
            while !stop.load(Ordering::Relaxed) {
                turn();
                turns.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (library, bytes) = (&library, &bytes);
        let (read, changed, forked) = (&reads, &changes, &forks);
        scope.spawn(move || until_stop(read, &|| assert!(!memdl::symbolize(address).is_empty())));
        scope.spawn(move || {
            until_stop(changed, &|| {
                library.set_debug(memdl::Debug::Symbols).unwrap();
                library.set_debug(memdl::Debug::Full).unwrap();
                library.set_debug_info(bytes.as_slice()).unwrap();
            });
        });
        scope.spawn(move || {
            until_stop(forked, &|| {
                assert!(is_right(in_child(|| true)));
            });
        });
        // Each takes some turns in every stretch of time: a thread that hangs takes none.
        let all = [read, changed, forked];
        for _ in 0..4 {
            let before = all.map(|turns| turns.load(Ordering::Relaxed));
            let since = Instant::now();
            while all.iter().zip(before).any(|(turns, it)| turns.load(Ordering::Relaxed) < it + 20)
            {
                if since.elapsed() > Duration::from_secs(120) {
                    // The threads that hang would keep the test from failing.
                    eprintln!("stuck: {all:?}");
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_child_goes_on_whatever_threads_of_its_parent_were_doing() {
    let (bytes, library, address) = library();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, library, bytes) = (&stop, &library, &bytes);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                library.set_debug(memdl::Debug::Portable).unwrap();
                library.set_debug(memdl::Debug::Full).unwrap();
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                library.set_debug_info(bytes.as_slice()).unwrap();
                memdl::symbolize(address);
            }
        });
        scope.spawn(move || {
            // SAFETY: a library of `testlibs/`.
            let pool = unsafe { memdl::Loader::new().prepare(bytes) }.unwrap().pool(2);
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: as above; nothing of it runs when it is released.
                drop(unsafe { pool.acquire() }.unwrap());
            }
        });
        for _ in 0..150 {
            let status = in_child(|| {
                let known = memdl::symbolize(address);
                library.set_debug(memdl::Debug::Symbols).unwrap();
                // SAFETY: as above.
                let another = unsafe { memdl::Loader::new().load(bytes) };
                !known.is_empty() && another.is_ok_and(|it| it.close().is_ok())
            });
            if !is_right(status) {
                stop.store(true, Ordering::Relaxed);
                panic!("a child ended with {status:#x}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The C library has one lock for the functions that `atexit` and `at_quick_exit` note, and does not free
/// it in a child.
#[test]
fn a_child_notes_functions_for_the_exit_whatever_threads_of_its_parent_were_noting() {
    let bytes = bytes("gcc", "unload/many_at_exit.c", &["-O1"]);
    let load_and_unload = || {
        // SAFETY: a library of `testlibs/`.
        let library = unsafe { memdl::Loader::new().system_libraries(true).load(&bytes) }.unwrap();
        common::call_run(&library) == 42
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(load_and_unload());
                }
            });
        }
        for _ in 0..300 {
            let status = in_child(load_and_unload);
            if !is_right(status) {
                stop.store(true, Ordering::Relaxed);
                panic!("a child ended with {status:#x}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The C library locks the list of libraries while an image's function looks at it, and does not free that
/// lock in a child.
#[test]
fn a_child_loads_whatever_images_of_its_parent_were_walking_the_list_of_libraries() {
    let bytes = bytes("gcc", "services/walks.c", &["-O1"]);
    let loader = memdl::Loader::new().system_libraries(true);
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { loader.load(&bytes) }.unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(common::call_run(&library), 42);
                }
            });
        }
        for _ in 0..100 {
            let status = in_child(|| {
                // SAFETY: as above.
                let library = unsafe { loader.load(&bytes) }.unwrap();
                common::call_run(&library) == 42
            });
            if !is_right(status) {
                stop.store(true, Ordering::Relaxed);
                panic!("a child ended with {status:#x}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A logger is foreign code: it may come back to memdl.
struct Logger;

static MESSAGES: AtomicU64 = AtomicU64::new(0);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        MESSAGES.fetch_add(1, Ordering::Relaxed);
        let (_, library, address) = library();
        library.set_debug(memdl::Debug::Off).unwrap();
        memdl::symbolize(address);
        assert!(is_right(in_child(|| true)));
    }

    fn flush(&self) {}
}

/// In a process of its own, since there is one logger.
#[test]
fn the_logger_is_called_without_a_lock() {
    const CHILD: &str = "MEMDL_TEST_LOGGER";
    if std::env::var_os(CHILD).is_none() {
        let mut command = std::process::Command::new("timeout");
        command.args(["-s", "KILL", "300"]).arg(std::env::current_exe().unwrap());
        command.args(["the_logger_is_called_without_a_lock", "--exact", "--test-threads=1"]);
        let output = command.env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    // Debug information that lldb cannot be given: names of sections whose contents are broken.
    let bytes = bytes("gcc", "foo.c", &["-g", "-gdwarf-5"]);
    let mut broken = bytes.clone();
    let info = section(&bytes, ".debug_info");
    broken[info.start + 4] = 0x77;
    // SAFETY: a library of `testlibs/`; its code is as it was.
    let library = unsafe { memdl::Loader::new().load(&broken) }.unwrap();
    library.set_debug(memdl::Debug::Portable).unwrap();
    assert!(MESSAGES.load(Ordering::Relaxed) > 0);
}

/// Where a section's contents are in the file.
fn section(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    let elf = goblin::elf::Elf::parse(bytes).unwrap();
    let header = elf
        .section_headers
        .iter()
        .find(|header| elf.shdr_strtab.get_at(header.sh_name).is_some_and(|it| it == name));
    header.unwrap_or_else(|| panic!("no {name}")).file_range().unwrap()
}
