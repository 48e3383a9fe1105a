//! What is in memory that an image does not own: nothing of anybody's. And what is left in the process
//! of an image that is gone.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;

use crate::common::{
    MapsLine, build, in_child, is_sanitized, isolated, limited_own_test, maps, maps_without_heaps,
    name_of, run,
};
use memdl::{DebugLevel, Error, ImageBuffer, Library, Loader};

const PAGE: usize = 4096;
/// What `faults/secret.c` keeps.
const SECRET: &[u8] = b"keep it a secret";

fn secret(len: usize, flags: &[&str]) -> Vec<u8> {
    let len = format!("-DN={len}");
    let flags = [&["-O1", "-g", &*len], flags].concat();
    fs::read(build("gcc", "faults/secret.c", &flags)).unwrap()
}

fn call<R>(library: &Library, name: &str) -> R {
    // SAFETY: the functions of `faults/secret.c`: no arguments, no preconditions.
    unsafe { library.get::<unsafe extern "C" fn() -> R>(name).unwrap()() }
}

type Load = fn(&[u8]) -> Result<Library, Error>;

/// All ways by which an image comes into memory.
const WAYS: &[(&str, Load)] = &[
    ("load", |bytes| load(bytes, DebugLevel::Off)),
    ("load with debug information", |bytes| load(bytes, DebugLevel::Full)),
    ("load_buffer", |bytes| {
        let mut buffer = ImageBuffer::new(bytes.len())?;
        buffer.copy_from_slice(bytes);
        // SAFETY: a library of `testlibs/`.
        unsafe { Loader::new().load_buffer(buffer) }
    }),
    ("load_buffer of a buffer that has grown", |bytes| {
        let mut buffer = ImageBuffer::read_from(bytes, 1)?;
        // What was in it before is no part of the image.
        buffer.grow(bytes.len() + 100_000)?;
        buffer[bytes.len()..].fill(0xd0);
        buffer.truncate(bytes.len());
        // SAFETY: as above.
        unsafe { Loader::new().debug(DebugLevel::Off).load_buffer(buffer) }
    }),
    ("instance", |bytes| {
        // SAFETY: as above.
        unsafe { Loader::new().prepare(bytes)?.instantiate() }
    }),
    ("instance that shares", |bytes| {
        // SAFETY: as above.
        unsafe { Loader::new().debug(DebugLevel::Off).prepare(bytes)?.instantiate() }
    }),
    ("instance where another was", |bytes| {
        // SAFETY: as above.
        unsafe {
            let template = Loader::new().debug(DebugLevel::Off).prepare(bytes)?;
            call::<()>(&template.instantiate()?, "keep_secret");
            template.instantiate()
        }
    }),
    ("pool", |bytes| {
        // SAFETY: as above; nothing of it runs when it is released.
        unsafe {
            let pool = Loader::new().debug(DebugLevel::Off).prepare(bytes)?.pool(1);
            call::<()>(&*pool.acquire()?, "keep_secret");
            Ok(pool.acquire()?.into_library())
        }
    }),
];

fn load(bytes: &[u8], debug: DebugLevel) -> Result<Library, Error> {
    // SAFETY: a library of `testlibs/`.
    unsafe { Loader::new().debug(debug).load(bytes) }
}

/// Whoever leaves the image by its end meets zeroes, and then a page that cannot be accessed; zeroes
/// too where there is something in front of it that was mapped with it.
fn assert_stands_alone(library: &Library, what: &str) {
    let range = library.address_range();
    let maps = maps();
    let at = |address: usize| maps.iter().find(|line| line.range.contains(&address));
    let mut end = range.end;
    while let Some(line) = at(end).filter(|line| line.access.starts_with('r')) {
        assert!(end - range.end <= 128 << 10, "{what}: no guard behind: {line:x?}");
        assert!(is_zero(end..line.range.end), "{what}: {line:x?}");
        end = line.range.end;
    }
    let guard = at(end).unwrap_or_else(|| panic!("{what}: others can come to lie behind it"));
    assert!(guard.access.starts_with("---"), "{what}: {guard:x?}");
    let start = at(range.start).unwrap().range.start;
    assert!(is_zero(start..range.start), "{what}: in front");
}

fn is_zero(range: Range<usize>) -> bool {
    // SAFETY: mapped and readable, as the caller has seen; nobody writes to it.
    let bytes = unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len()) };
    bytes.iter().all(|&byte| byte == 0)
}

/// How often the secret is in memory that this process can write.
fn secrets() -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let writable = |line: &MapsLine| line.access.starts_with("rw") && line.name.is_empty();
    // Reads page by page into a buffer that is cleared each time, so that the search does not find its own copy.
    let mut page = [0; PAGE];
    let mut count = |start: usize| {
        let is_read = memory.read_exact_at(&mut page, start as u64).is_ok();
        let found = if is_read { memchr::memmem::find_iter(&page, SECRET).count() } else { 0 };
        page.fill(0);
        found
    };
    let pages = maps().into_iter().filter(writable).flat_map(|line| line.range.step_by(PAGE));
    pages.map(&mut count).sum()
}

#[test]
fn nothing_of_another_image_is_behind_one() {
    isolated(|| {
        // In large pages and in small ones; of another length in as many pages, and the same.
        let pairs = [(1_950_000, 1_450_000), (1_450_000, 1_950_000), (60_000, 60_000), (10, 3_000)];
        for (first, second) in pairs {
            for text in ["-DNOTHING", "-Wl,--build-id=none"] {
                let (first, second) = (secret(first, &[]), secret(second, &[text]));
                for (what, way) in WAYS {
                    let library = load(&first, DebugLevel::Off).unwrap();
                    call::<()>(&library, "keep_secret");
                    drop(library);
                    let library = way(&second).unwrap();
                    assert_eq!(call::<i32>(&library, "looks_fresh"), 1, "{what}");
                    assert_stands_alone(&library, what);
                    call::<()>(&library, "keep_secret");
                    assert_stands_alone(&library, what);
                    library.set_debug(DebugLevel::Symbols).unwrap();
                    assert_stands_alone(&library, what);
                    // The same memory, for the same image.
                    drop(library);
                    let library = way(&second).unwrap();
                    assert_eq!(call::<i32>(&library, "looks_fresh"), 1, "{what}");
                    assert_stands_alone(&library, what);
                }
            }
        }
    });
}

#[test]
fn a_forked_child_meets_nothing_of_others_either() {
    isolated(|| {
        let bytes = secret(60_000, &[]);
        let before = load(&bytes, DebugLevel::Off).unwrap();
        let gone = load(&bytes, DebugLevel::Off).unwrap();
        call::<()>(&gone, "keep_secret");
        drop(gone);
        // The child is this thread alone.
        let inside = || {
            assert_stands_alone(&before, "loaded before");
            call::<()>(&before, "keep_secret");
            // SAFETY: the child does not use it again; the parent has its own.
            drop(unsafe { std::ptr::read(&before) });
            for (what, way) in WAYS {
                let library = way(&bytes).unwrap();
                assert_eq!(call::<i32>(&library, "looks_fresh"), 1, "{what}");
                assert_stands_alone(&library, what);
            }
        };
        let status = in_child(60, || i32::from(std::panic::catch_unwind(inside).is_err()));
        assert_eq!(status, 0);
        assert_stands_alone(&before, "in the parent");
    });
}

#[test]
fn memory_of_images_of_any_size_is_kept() {
    isolated(|| {
        let filled = ["-DFILLED=1000", "-DFILLED=1400000", "-DFILLED=2000000", "-DFILLED=4600000"];
        for (len, filled) in [3_000, 400_000].into_iter().flat_map(|len| filled.map(|it| (len, it)))
        {
            let library = load(&secret(len, &[filled]), DebugLevel::Off).unwrap();
            call::<()>(&library, "keep_secret");
            drop(library);
            assert!(secrets() > 0, "{len} {filled}");
            memdl::release_memory();
            assert_eq!(secrets(), 0, "{len} {filled}");
        }
    });
}

/// The KiB in memory of the mappings that this range reaches into, and of the one behind them.
fn resident_kib(range: &Range<usize>) -> usize {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_inside, mut kib) = (false, 0);
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap();
        if let Some((start, end)) = first.split_once('-') {
            let [start, end] = [start, end].map(|it| usize::from_str_radix(it, 16).unwrap());
            is_inside = start <= range.end && range.start < end;
        } else if is_inside && first == "Rss:" {
            kib += line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap();
        }
    }
    kib
}

#[test]
fn an_image_takes_no_more_memory_than_its_pages_and_a_single_one_than_large_pages() {
    isolated(|| {
        // Less than large pages have, and more.
        for filled in ["-DFILLED=1450000", "-DFILLED=3700000"] {
            let bytes = secret(3_000, &[filled]);
            for (what, way) in WAYS {
                memdl::release_memory();
                let library = way(&bytes).unwrap();
                let span = library.address_range().len() / 1024;
                let resident = resident_kib(&library.address_range());
                let most = match what {
                    // In front of an image in a buffer, and behind it.
                    it if it.starts_with("load_buffer") => span + 128,
                    it if it.starts_with("load") => span.next_multiple_of(2 << 10),
                    _ => span,
                };
                assert!(resident <= most, "{what}: {resident} KiB, of {span}");
            }
        }
    });
}

#[test]
fn kept_memory_is_wiped_for_who_wants_that() {
    isolated(|| {
        // With an operator who has said so, whatever the program says.
        if std::env::var_os("MEMDL_WIPE").is_some() {
            memdl::wipe_kept_memory(false);
            leave_secrets();
            assert_eq!(secrets(), 0);
            return;
        }
        leave_secrets();
        assert!(secrets() > 0, "it is kept otherwise, or this test sees nothing");
        memdl::wipe_kept_memory(true);
        assert_eq!(secrets(), 0, "what was kept is given back");
        leave_secrets();
        assert_eq!(secrets(), 0);
        // It is kept all the same, where that is worth it.
        let bytes = secret(3_000, &[]);
        memdl::release_memory();
        let before = maps().len();
        drop(load(&bytes, DebugLevel::Off).unwrap());
        assert!(maps().len() > before, "nothing is kept");
        memdl::wipe_kept_memory(false);
        leave_secrets();
        assert!(secrets() > 0);

        let test = name_of(&kept_memory_is_wiped_for_who_wants_that);
        run(limited_own_test(60, test).env("MEMDL_WIPE", "on"), "coreutils");
    });
}

/// Loads by all ways, has a secret kept, and unloads.
fn leave_secrets() {
    for len in [3_000, 60_000, 1_950_000] {
        let bytes = secret(len, &[]);
        // A template that is still there keeps an instance for the next, without its secrets.
        // SAFETY: a library of `testlibs/`.
        let template = unsafe { Loader::new().debug(DebugLevel::Off).prepare(&bytes) }.unwrap();
        // SAFETY: as above.
        call::<()>(&unsafe { template.instantiate() }.unwrap(), "keep_secret");
        std::mem::forget(template);
        for (_, way) in WAYS {
            call::<()>(&way(&bytes).unwrap(), "keep_secret");
        }
    }
}

#[test]
fn nothing_of_another_image_is_behind_thread_locals_at_a_fixed_place() {
    isolated(|| {
        type Fill = unsafe extern "C" fn(i32);
        type Behind = unsafe extern "C" fn(i32, i32) -> i32;
        let block = |size: usize, first: u8| {
            let flags = [format!("-DSIZE={size}"), format!("-DFIRST={first}")];
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            fs::read(build("gcc", "faults/block.c", &flags)).unwrap()
        };
        let (large, small) = (block(300, 0x5a), block(8, 1));
        let (to_thread, calls) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (done, is_done) = mpsc::channel();
        let thread = thread::spawn(move || {
            for call in calls {
                call();
                done.send(()).unwrap();
            }
        });
        let in_thread = |call: Box<dyn FnOnce() + Send>| {
            to_thread.send(call).unwrap();
            is_done.recv().unwrap();
        };
        let library = load(&large, DebugLevel::Off).unwrap();
        // SAFETY: the function's type; it has no preconditions.
        let fill = unsafe { *library.get::<Fill>("fill").unwrap() };
        // SAFETY: as above.
        unsafe { fill(0x5a) };
        // SAFETY: as above.
        in_thread(Box::new(move || unsafe { fill(0x5a) }));
        drop(library);

        let library = load(&small, DebugLevel::Off).unwrap();
        // SAFETY: as above; what is behind the block, in the pool, can be read.
        let behind = unsafe { *library.get::<Behind>("behind").unwrap() };
        // SAFETY: as above.
        let assert_clean = move || unsafe { assert_eq!(behind(0x5a, 280), 0) };
        assert_clean();
        in_thread(Box::new(assert_clean));
        // Nor in a thread that did not see the first.
        thread::spawn(assert_clean).join().unwrap();
        drop(to_thread);
        thread.join().unwrap();
    });
}

#[test]
fn a_process_with_all_mappings_that_it_may_have_unloads() {
    isolated(|| {
        let bytes = secret(60_000, &[]);
        let most = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let most: usize = most.trim().parse().unwrap();
        // What takes its time is a mapping more; with very many this would be a test of patience.
        let most = most.min(1 << 20);
        drop(load(&bytes, DebugLevel::Full).unwrap());
        memdl::release_memory();
        let before = maps_without_heaps();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping of the test's own.
        let filler = unsafe {
            libc::mmap(std::ptr::null_mut(), 2 * most * PAGE, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(filler, libc::MAP_FAILED);
        let loaded: Vec<Library> =
            WAYS.iter().cycle().take(40).map(|(_, way)| way(&bytes).unwrap()).collect();
        // Every second page is another mapping, until there can be no more.
        let cut = |index: usize, access| {
            // SAFETY: a page of the filler.
            unsafe { libc::mprotect(filler.byte_add(2 * index * PAGE), PAGE, access) == 0 }
        };
        let count = (0..most).take_while(|&index| cut(index, libc::PROT_READ)).count();
        assert!(count < most, "the limit is not met");
        for (what, way) in WAYS {
            assert!(way(&bytes).is_err(), "{what}: there is no room for it");
        }
        drop(loaded);
        // SAFETY: the test's own mapping, all of it.
        assert_eq!(unsafe { libc::munmap(filler, 2 * most * PAGE) }, 0);
        let library = load(&bytes, DebugLevel::Full).unwrap();
        assert_eq!(call::<i32>(&library, "looks_fresh"), 1);
        drop(library);
        memdl::release_memory();
        if !is_sanitized() {
            assert_eq!(maps_without_heaps(), before);
        }
    });
}
