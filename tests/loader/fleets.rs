//! Many images at once: each finds what it finds among few.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::{AnyWay, bytes, in_child, is_mapped, isolated};
use memdl::{DebugLevel, Library, Loader};

fn loader() -> Loader {
    Loader::new().debug(DebugLevel::Off).system_libraries(true)
}

fn load(loader: &Loader, bytes: &[u8]) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { loader.load_any_way(bytes) }.unwrap_or_else(|error| panic!("{error}"))
}

fn asks() -> Vec<u8> {
    bytes("gcc", "fleets/asks.c", &["-O1"])
}

/// Bound to its own variable. Else all would keep the first of them.
fn tiny() -> Vec<u8> {
    bytes("gcc", "bench/tiny.c", &["-O2", "-Wl,-Bsymbolic"])
}

/// What `dlsym(RTLD_DEFAULT, ..)` finds for an image.
fn ask(asks: &Library, name: &CStr) -> usize {
    // SAFETY: its type.
    let ask = unsafe { asks.get::<extern "C" fn(*const c_char) -> *mut c_void>("ask") }.unwrap();
    ask(name.as_ptr()).addr()
}

fn address(library: &Library, name: &str) -> usize {
    library.symbol(name).unwrap().address()
}

#[test]
fn the_first_of_many_global_images_that_defines_a_name_is_found() {
    isolated(|| {
        let global = loader().global(true);
        // Those that all see, with those that they do not see between them.
        let mut fleet: Vec<Library> = Vec::new();
        for count in 0..300 {
            let loader = if count % 3 == 0 { loader() } else { global.clone() };
            fleet.push(load(&loader.name(format!("tiny-{count}")), &tiny()));
        }
        let asks = load(&global, &asks());
        assert_eq!(ask(&asks, c"in_none"), 0);
        assert_eq!(ask(&asks, c"in_the_last"), address(&asks, "in_the_last"));
        assert_eq!(ask(&asks, c"foo"), address(&fleet[1], "foo"));

        // A reference of a new image, too, which keeps what it is bound to.
        let uses = load(&loader(), &bytes("gcc", "fleets/uses.c", &["-O1"]));
        // SAFETY: its type.
        assert_eq!(unsafe { uses.get::<extern "C" fn() -> c_int>("use") }.unwrap()(), 1);

        // The first ones go, then every second one.
        drop(fleet.drain(..90));
        assert_eq!(ask(&asks, c"foo"), address(&fleet[1], "foo"));
        let mut count = 0;
        fleet.retain(|_| {
            count += 1;
            count % 2 == 0
        });
        let first = fleet.iter().find(|it| it.name() != "tiny-90").unwrap();
        assert_eq!(ask(&asks, c"foo"), address(first, "foo"));

        // One that becomes global later comes behind all others, and once only.
        let late = load(&loader(), &tiny());
        late.make_global().unwrap();
        late.make_global().unwrap();
        assert_eq!(ask(&asks, c"foo"), address(first, "foo"));
        fleet.clear();
        assert_eq!(ask(&asks, c"foo"), address(&late, "foo"));
        drop(late);
        assert_eq!(ask(&asks, c"foo"), 0);

        // As if there had been none.
        let again = load(&global, &tiny());
        assert_eq!(ask(&asks, c"foo"), address(&again, "foo"));
    });
}

#[test]
fn a_needed_library_is_found_among_many_global_images() {
    isolated(|| {
        let global = loader().global(true);
        let fleet: Vec<Library> = (0..100).map(|_| load(&global, &tiny())).collect();
        let flags = ["-O1", "-Wl,-soname,libneeded-by-fleets.so"];
        let needed = crate::common::build("gcc", "fleets/asks.c", &flags);
        let by_soname = load(&global, &std::fs::read(&needed).unwrap());
        let flags = ["-O1", "-Wl,--no-as-needed", needed.to_str().unwrap()];
        let uses = bytes("gcc", "fleets/uses.c", &flags);
        // SAFETY: libraries of `testlibs/`.
        let found = unsafe { loader().system_libraries(false).load_any_way(&uses) }.unwrap();
        drop(fleet);
        let memory = by_soname.address_range().start;
        drop(by_soname);
        assert!(is_mapped(memory), "what is needed stays");
        drop(found);
        // SAFETY: as above.
        let error = unsafe { loader().system_libraries(false).load_any_way(&uses) }.unwrap_err();
        assert!(error.to_string().contains("libneeded-by-fleets.so"), "{error}");
    });
}

type Visitor = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;

/// Walks through all libraries, called from an image.
fn show(asks: &Library, visit: Visitor, data: *mut c_void) -> c_int {
    // SAFETY: its type.
    let show = unsafe { asks.get::<extern "C" fn(Visitor, *mut c_void) -> c_int>("show") };
    show.unwrap()(visit, data)
}

/// The name of a record, and the first bytes of the program headers that it leads to.
///
/// # Safety
/// A record of a walk that is under way.
unsafe fn read(info: *const libc::dl_phdr_info) -> (String, u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let name = CStr::from_ptr((*info).dlpi_name).to_string_lossy().into_owned();
        let header = &*(*info).dlpi_phdr;
        // Memory of the image itself, too.
        let start = ((*info).dlpi_addr + header.p_vaddr) as *const u8;
        std::hint::black_box(start.read_volatile());
        (name, header.p_type)
    }
}

static CLOSED_BY_A_VISITOR: Mutex<Vec<Library>> = Mutex::new(Vec::new());

#[test]
fn a_visitor_can_unload_what_it_is_shown() {
    isolated(|| {
        /// Closes all at its first call; then reads what it is shown.
        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _: usize,
            seen: *mut c_void,
        ) -> c_int {
            drop(std::mem::take(&mut *CLOSED_BY_A_VISITOR.lock().unwrap()));
            // SAFETY: a record of this walk, and the local below.
            unsafe {
                let name = CStr::from_ptr((*info).dlpi_name).to_string_lossy();
                if name.starts_with("closed-") {
                    read(info);
                    *seen.cast::<usize>() += 1;
                }
            }
            0
        }
        let asks = load(&loader(), &asks());
        let closed = |number| load(&loader().name(format!("closed-{number}")), &tiny());
        let libraries: Vec<Library> = (0..10).map(closed).collect();
        let memory: Vec<usize> = libraries.iter().map(|it| it.address_range().start).collect();
        *CLOSED_BY_A_VISITOR.lock().unwrap() = libraries;
        // The libraries of the process are shown first: so they are gone when images come.
        let mut seen = 0usize;
        assert_eq!(show(&asks, visit, (&raw mut seen).cast()), 0);
        assert_eq!(seen, 0);
        assert!(
            !memory
                .iter()
                .any(|&at| memdl::images().iter().any(|it| it.address_range().start == at))
        );

        // The same, from the first image on.
        unsafe extern "C" fn from_the_first(
            info: *mut libc::dl_phdr_info,
            size: usize,
            seen: *mut c_void,
        ) -> c_int {
            // SAFETY: a record of this walk; the rest is as above.
            unsafe {
                let is_image = CStr::from_ptr((*info).dlpi_name).to_bytes().starts_with(b"closed-");
                if is_image || *seen.cast::<usize>() > 0 { visit(info, size, seen) } else { 0 }
            }
        }
        let libraries: Vec<Library> = (0..10).map(closed).collect();
        let memory: Vec<usize> = libraries.iter().map(|it| it.address_range().start).collect();
        *CLOSED_BY_A_VISITOR.lock().unwrap() = libraries;
        assert_eq!(show(&asks, from_the_first, (&raw mut seen).cast()), 0);
        assert_eq!(seen, 10, "what was there when the images were reached is shown");
        let images = memdl::images();
        assert!(memory.iter().all(|at| images.iter().all(|it| it.address_range().start != *at)));
        assert_eq!(images.len(), 1);
    });
}

#[test]
fn what_walks_show_stays_while_other_threads_unload() {
    isolated(|| {
        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _: usize,
            _: *mut c_void,
        ) -> c_int {
            // SAFETY: a record of this walk.
            let (_, header) = unsafe { read(info) };
            c_int::from(header == u32::MAX)
        }
        let asks = load(&loader(), &asks());
        let (is_over, walks) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        assert_eq!(show(&asks, visit, std::ptr::null_mut()), 0);
                        walks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for round in 0..300 {
                let few: Vec<Library> = (0..5).map(|_| load(&loader(), &tiny())).collect();
                drop(few);
                if round % 100 == 50 {
                    // A child has no other thread: its walks end with it.
                    let left = in_child(30, || {
                        let library = load(&loader(), &tiny());
                        let memory = library.address_range().start;
                        assert_eq!(show(&asks, visit, std::ptr::null_mut()), 0);
                        drop(library);
                        c_int::from(
                            memdl::images().iter().any(|it| it.address_range().start == memory),
                        )
                    });
                    assert_eq!(crate::common::exit_status(left), Some(0));
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(walks.load(Ordering::Relaxed) > 10);
        assert_eq!(memdl::images().len(), 1);
    });
}

/// The number of mappings that the process has, and may have.
fn mappings() -> (usize, usize) {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (maps.lines().count(), limit.trim().parse().unwrap())
}

#[test]
fn the_limit_of_mappings_is_named_where_it_is_reached() {
    isolated(|| {
        let bytes = asks();
        let first = load(&loader(), &bytes);
        let (now, limit) = mappings();
        // Pages that can be accessed in turns with such that cannot: as many mappings as are left, but for 100.
        let pages = limit - now - 100;
        // SAFETY: memory of this test alone.
        let (start, page) = unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let none = libc::PROT_NONE;
            let start = libc::mmap(std::ptr::null_mut(), pages * page, none, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            for at in (1..pages).step_by(2) {
                assert_eq!(libc::mprotect(start.add(at * page), page, libc::PROT_READ), 0);
            }
            (start, page)
        };
        let mut fleet: Vec<Library> = Vec::new();
        let error = loop {
            assert!(fleet.len() < 100, "{:?}", mappings());
            // SAFETY: a library of `testlibs/`.
            match unsafe { loader().load_any_way(&bytes) } {
                Ok(library) => fleet.push(library),
                Err(error) => break error,
            }
        };
        assert!(fleet.len() > 5, "{} with 100 mappings", fleet.len());
        assert_eq!(error.kind(), memdl::ErrorKind::System);
        let text = error.to_string();
        for part in
            [&format!("vm.max_map_count permits {limit}"), "sysctl -w vm.max_map_count=", "pool"]
        {
            assert!(text.contains(part), "{text}");
        }
        // All others work, and go.
        for library in fleet.iter().chain([&first]) {
            assert_eq!(ask(library, c"in_the_last"), address(library, "in_the_last"));
        }
        drop(fleet);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::munmap(start, pages * page) }, 0);
        drop(load(&loader(), &bytes));
        // SAFETY: as above.
        let refused = unsafe { loader().load_any_way(&bytes[..100]) }.unwrap_err().to_string();
        assert!(!refused.contains("max_map_count"), "{refused}");
    });
}

/// The mappings of an instance, as their protections, in order.
fn protections(library: &Library) -> Vec<String> {
    let range = library.address_range();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let (addresses, protection) = (words.next().unwrap(), words.next().unwrap());
        let start = usize::from_str_radix(addresses.split_once('-').unwrap().0, 16).unwrap();
        range.contains(&start).then(|| protection.to_owned())
    };
    maps.lines().filter_map(of_line).collect()
}

#[test]
fn an_instance_takes_a_mapping_for_each_change_of_protection_or_of_sharing() {
    isolated(|| {
        let sqlite = std::fs::read(crate::common::system_library("libsqlite3.so.0")).unwrap();
        for (name, bytes) in [("tiny", tiny()), ("libsqlite3", sqlite)] {
            let template = loader().template(&bytes).unwrap();
            // SAFETY: a library of `testlibs/`, and one of the distribution.
            let fleet: Vec<Library> =
                (0..3).map(|_| unsafe { template.instantiate() }.unwrap()).collect();
            for library in &fleet {
                let found = protections(library);
                println!("{name}: {found:?}");
                assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "{name}: {found:?}");
                assert!(found.len() <= if name == "tiny" { 4 } else { 5 }, "{name}: {found:?}");
            }
        }
    });
}

#[test]
fn ten_thousand_instances_load_work_and_unload_in_times_that_stay_flat() {
    const BATCH: usize = 500;
    /// The least microseconds of some batches: others use the processors, too.
    fn least(batches: &[u128]) -> u128 {
        *batches.iter().min().unwrap()
    }
    isolated(|| {
        let template = loader().template(&tiny()).unwrap();
        let mut fleet: Vec<Library> = Vec::new();
        let mut times: [Vec<u128>; 3] = Default::default();
        for _ in 0..10_000 / BATCH {
            let start = std::time::Instant::now();
            // SAFETY: a library of `testlibs/`.
            fleet.extend((0..BATCH).map(|_| unsafe { template.instantiate() }.unwrap()));
            times[0].push(start.elapsed().as_micros());
            let start = std::time::Instant::now();
            for library in &fleet[fleet.len() - BATCH..] {
                // SAFETY: its type.
                let foo = unsafe { library.get::<extern "C" fn(c_int) -> c_int>("foo") }.unwrap();
                assert_eq!(foo(1), foo(1));
            }
            times[1].push(start.elapsed().as_micros());
        }
        assert_eq!(memdl::images().len(), 10_000);
        while !fleet.is_empty() {
            let start = std::time::Instant::now();
            fleet.truncate(fleet.len() - BATCH);
            times[2].push(start.elapsed().as_micros());
        }
        assert!(memdl::images().is_empty());
        for (what, times) in ["load", "work", "unload"].iter().zip(&times) {
            let (first, last) = (least(&times[..7]), least(&times[times.len() - 7..]));
            let (few, many) = if *what == "unload" { (last, first) } else { (first, last) };
            println!("{what}: {few} us with few, {many} with many");
            assert!(many <= few * 4 + 2_000, "{what}: {few} us with few, {many} with many");
        }
    });
}
