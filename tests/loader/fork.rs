//! Threads that change debug information, read it and fork at the same time: nobody waits for ever,
//! neither a thread of the parent nor a child. Each test is a process of its own: one that hangs ends
//! with it.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{bytes, call_run, exit_status, glibc, is_over, isolated};

fn library() -> (Vec<u8>, memdl::Library, usize) {
    let bytes = bytes("gcc", "foo.c", &["-g", "-O0", "-Wl,--build-id"]);
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { memdl::Loader::new().load(&bytes) }.unwrap();
    // SAFETY: only its address is used.
    let address = unsafe { library.get::<*const u8>("foo") }.unwrap().as_raw_ptr().addr();
    (bytes, library, address)
}

/// Forks, and the child must find `is_right`.
fn child_finds(is_right: impl FnOnce() -> bool) {
    let status = crate::common::in_child(60, || if is_right() { 42 } else { 1 });
    assert_eq!(exit_status(status), Some(42), "a child ended with {status:#x}");
}

/// Runs `body` while other threads take one turn after the other, each its own.
fn while_others(turns: &[&(dyn Fn() + Sync)], body: impl FnOnce()) {
    /// They stop when the body panics, too.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for turn in turns {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    turn();
                }
            });
        }
        body();
    });
}

#[test]
fn reading_changing_and_forking_do_not_wait_for_each_other_in_a_circle() {
    isolated(|| {
        let (bytes, library, address) = library();
        let turns = [const { AtomicU64::new(0) }; 3];
        let [reads, changes, forks] = [0, 1, 2].map(|thread: usize| {
            let turns = &turns[thread];
            move || turns.fetch_add(1, Ordering::Relaxed)
        });
        let read = || {
            assert!(!memdl::symbolize(address).is_empty());
            reads();
        };
        let change = || {
            library.set_debug(memdl::DebugLevel::Symbols).unwrap();
            library.set_debug(memdl::DebugLevel::Full).unwrap();
            library.set_debug_info(bytes.as_slice()).unwrap();
            changes();
        };
        let fork = || {
            child_finds(|| true);
            forks();
        };
        while_others(&[&read, &change, &fork], || {
            // Each takes some turns in every stretch of time: a thread that hangs takes none.
            let counts = || [0, 1, 2].map(|thread: usize| turns[thread].load(Ordering::Relaxed));
            for _ in 0..4 {
                let (before, since) = (counts(), Instant::now());
                while counts().iter().zip(before).any(|(count, before)| *count < before + 20) {
                    if is_over(since, Duration::from_secs(60)) {
                        // The threads that hang would keep the test from failing.
                        eprintln!("stuck: {turns:?}");
                        std::process::abort();
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
    });
}

#[test]
fn a_child_goes_on_whatever_threads_of_its_parent_were_doing() {
    isolated(|| {
        let (bytes, library, address) = library();
        // SAFETY: a library of `testlibs/`.
        let pool = unsafe { memdl::Loader::new().prepare(&bytes) }.unwrap().pool(2);
        let change_form = || {
            library.set_debug(memdl::DebugLevel::Portable).unwrap();
            library.set_debug(memdl::DebugLevel::Full).unwrap();
        };
        let change_file = || {
            library.set_debug_info(bytes.as_slice()).unwrap();
            let _ = memdl::symbolize(address);
        };
        // SAFETY: as above; nothing of it runs when it is released.
        let use_pool = || drop(unsafe { pool.acquire() }.unwrap());
        while_others(&[&change_form, &change_file, &use_pool], || {
            for _ in 0..150 {
                child_finds(|| {
                    let known = memdl::symbolize(address);
                    library.set_debug(memdl::DebugLevel::Symbols).unwrap();
                    // SAFETY: as above.
                    let another = unsafe { memdl::Loader::new().load(&bytes) };
                    !known.is_empty() && another.is_ok_and(|it| it.close().is_ok())
                });
            }
        });
    });
}

/// The C library has one lock for the functions that `atexit` and `at_quick_exit` note, and does not free
/// it in a child.
#[test]
fn a_child_notes_functions_for_the_exit_whatever_threads_of_its_parent_were_noting() {
    isolated(|| {
        let bytes = bytes("gcc", "unload/many_at_exit.c", &["-O1"]);
        let loads = || load_and_call(&bytes);
        // Before glibc 2.36 a fork cannot wait for an unload of such functions: then the other threads keep what
        // they load.
        let (rounds, keeps) = if glibc() >= (2, 36) { (300, false) } else { (30, true) };
        let kept = Mutex::new(Vec::new());
        let load = || match keeps {
            // SAFETY: a library of `testlibs/`.
            true => {
                // SAFETY: a library of `testlibs/`.
                kept.lock().unwrap().push(unsafe { memdl::Loader::new().load(&bytes) }.unwrap())
            }
            false => assert!(loads()),
        };
        while_others(&[&load, &load], || (0..rounds).for_each(|_| child_finds(loads)));
    });
}

/// The C library locks the list of libraries while an image's function looks at it, and does not free that
/// lock in a child.
#[test]
fn a_child_loads_whatever_images_of_its_parent_were_walking_the_list_of_libraries() {
    isolated(|| {
        let bytes = bytes("gcc", "services/walks.c", &["-O1"]);
        // SAFETY: a library of `testlibs/`.
        let library = unsafe { memdl::Loader::new().system_libraries(true).load(&bytes) }.unwrap();
        let walk = || assert_eq!(call_run(&library), 42);
        while_others(&[&walk, &walk], || {
            (0..100).for_each(|_| child_finds(|| load_and_call(&bytes)));
        });
    });
}

/// Loads, calls and unloads; whether the library is content.
fn load_and_call(bytes: &[u8]) -> bool {
    // SAFETY: a library of `testlibs/`.
    let library = unsafe { memdl::Loader::new().system_libraries(true).load(bytes) }.unwrap();
    call_run(&library) == 42
}

/// Marks bytes of a buffer, from the start of a page on, as a driver does that writes to them.
fn mark(buffer: &mut memdl::ImageBuffer, part: Range<usize>, advice: i32) {
    let part = part.start & !4095..part.end.next_multiple_of(4096);
    // SAFETY: whole pages of the buffer's memory, which goes on to the end of the last page.
    let result =
        unsafe { libc::madvise(buffer.as_mut_ptr().add(part.start).cast(), part.len(), advice) };
    assert_eq!(result, 0, "{part:x?}: {}", std::io::Error::last_os_error());
}

/// An RDMA driver hides memory that a card writes to from children of `fork`, and may show it again when the
/// memory is deregistered, which may be late.
#[test]
fn a_child_runs_an_image_from_a_buffer_that_a_driver_had_marked() {
    isolated(|| {
        // Small; in large pages; and with more `.bss` than the buffer has room for, so that it must move.
        let sizes: [&[&str]; 4] = [
            &["-O1"],
            &["-O1", "-DPAD=5000000"],
            &["-O1", "-DBSS=60000000"],
            &["-O1", "-DPAD=5000000", "-DBSS=60000000"],
        ];
        for flags in sizes {
            let bytes = bytes("gcc", "loading/received.c", flags);
            let len = bytes.len();
            let section = |name| section(&bytes, name);
            let parts = [0..0, 0..len, section(".text"), section(".data"), 0..1, len - 1..len];
            for (part, early) in parts.into_iter().flat_map(|it| [(it.clone(), true), (it, false)])
            {
                let what = format!("{flags:?}, {part:x?} marked, before the bytes came: {early}");
                let mut buffer = memdl::ImageBuffer::new(len).unwrap();
                if early {
                    mark(&mut buffer, part.clone(), libc::MADV_DONTFORK);
                }
                buffer.copy_from_slice(&bytes);
                if !early {
                    mark(&mut buffer, part, libc::MADV_DONTFORK);
                }
                let loader = memdl::Loader::new();
                // SAFETY: a library of `testlibs/`.
                let loaded = unsafe { [loader.load(&buffer), loader.load_buffer(buffer)] };
                for (way, library) in ["load", "load_buffer"].into_iter().zip(loaded) {
                    let library = library.unwrap();
                    assert_eq!(call_run(&library), 42, "{way}: {what}");
                    let status = crate::common::in_child(60, || call_run(&library));
                    assert_eq!(exit_status(status), Some(42), "{way}: {status:#x}: {what}");
                }
            }
        }
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
        // What it does is logged as well.
        static IS_INSIDE: AtomicBool = AtomicBool::new(false);
        if IS_INSIDE.swap(true, Ordering::Relaxed) {
            return;
        }
        let (_, library, address) = library();
        library.set_debug(memdl::DebugLevel::Off).unwrap();
        let _ = memdl::symbolize(address);
        child_finds(|| true);
        drop(library);
        IS_INSIDE.store(false, Ordering::Relaxed);
    }

    fn flush(&self) {}
}

/// There is one logger in a process.
#[test]
fn the_logger_is_called_without_a_lock() {
    isolated(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        // Debug information that lldb cannot be given: names of sections whose contents are broken.
        let bytes = bytes("gcc", "foo.c", &["-g", "-gdwarf-5"]);
        let mut broken = bytes.clone();
        let info = section(&bytes, ".debug_info");
        broken[info.start + 4] = 0x77;
        // SAFETY: a library of `testlibs/`; its code is as it was.
        let library = unsafe { memdl::Loader::new().load(&broken) }.unwrap();
        library.set_debug(memdl::DebugLevel::Portable).unwrap();
        assert!(MESSAGES.load(Ordering::Relaxed) > 0);
    });
}

/// Where a section's contents are in the file.
fn section(bytes: &[u8], name: &str) -> Range<usize> {
    let elf = goblin::elf::Elf::parse(bytes).unwrap();
    let header = elf
        .section_headers
        .iter()
        .find(|header| elf.shdr_strtab.get_at(header.sh_name).is_some_and(|it| it == name));
    header.unwrap_or_else(|| panic!("no {name}")).file_range().unwrap()
}
