//! Instances that come back where a former one was: nothing of that one is left, whatever it has done, and nothing is
//! asked of the system.

use std::ffi::{c_int, c_void};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{
    build, call_run, exit_status, in_child, is_mapped, isolated, maps, system_library,
};
use crate::helpers::{Number, OldThread, function, read};
use goblin::elf::Elf;
use goblin::elf::dynamic::{DT_GNU_HASH, DT_STRTAB, DT_SYMTAB};
use libc::sock_filter;
use memdl::{Binding, Closed, DebugLevel, Library, Loader, Template};

const PAGE: usize = 4096;

/// Small, and with enough to be shared between instances.
const PADS: [&str; 2] = ["-DPAD=100", "-DPAD=200000"];
const LEVELS: [DebugLevel; 2] = [DebugLevel::Off, DebugLevel::Full];

fn changes(flags: &[&str]) -> PathBuf {
    build("gcc", "recycled/changes.c", &[&["-O1"], flags].concat())
}

fn loader(debug: DebugLevel) -> Loader {
    Loader::new().debug(debug).system_libraries(true)
}

fn prepare(loader: &Loader, bytes: &[u8]) -> Template {
    // SAFETY: libraries of `testlibs/` and of the system.
    unsafe { loader.prepare(bytes) }.unwrap()
}

fn instance(template: &Template) -> Library {
    // SAFETY: as above.
    unsafe { template.instantiate() }.unwrap()
}

fn call(library: &Library, name: &str) -> c_int {
    function::<Number>(library, name)()
}

fn start(library: &Library) -> usize {
    library.address_range().start
}

/// Checks that an instance is as new, and leaves its traces in it.
fn spoil(template: &Template) -> Library {
    let library = instance(template);
    assert_eq!(call(&library, "fresh"), 42);
    function::<extern "C" fn()>(&library, "spoil")();
    assert_ne!(call(&library, "fresh"), 42);
    library
}

/// From here on every system call but the end of the process is fatal.
fn forbid_system_calls() {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        sock_filter {
            code: (libc::BPF_JMP | libc::BPF_K | libc::BPF_JEQ) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_exit_group as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a program of `len` instructions, which the kernel copies.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, 0, 0), 0);
    }
}

#[test]
fn an_instance_in_place_of_another_makes_no_system_call() {
    isolated(|| {
        let tiny = read(&build("gcc", "bench/tiny.c", &["-O2", "-g"]));
        let sqlite = read(&system_library("libsqlite3.so.0"));
        let changes = read(&changes(&[PADS[0]]));
        for (what, bytes) in [("tiny", tiny), ("sqlite", sqlite), ("changes", changes)] {
            for pooled in [false, true] {
                let status = in_child(60, || {
                    let template = prepare(&loader(DebugLevel::Off), &bytes);
                    let pool = template.pool(1);
                    let turn = || match pooled {
                        false => start(&instance(&template)),
                        // SAFETY: as above; none of its code runs when it is released.
                        true => start(&unsafe { pool.acquire() }.unwrap()),
                    };
                    // What instances share is made with the second; what is worked out once, when it is unloaded.
                    turn();
                    let place = turn();
                    turn();
                    forbid_system_calls();
                    let is_there = (0..100).all(|_| turn() == place);
                    std::mem::forget((pool, template));
                    if is_there { 42 } else { 1 }
                });
                assert_eq!(exit_status(status), Some(42), "{what} {pooled}: {status:#x}");
            }
        }
    });
}

#[test]
fn nothing_of_a_former_instance_is_left() {
    isolated(|| {
        for (pad, level) in PADS.into_iter().flat_map(|pad| LEVELS.map(|level| (pad, level))) {
            for flags in [["-Wl,-z,now", pad], ["-Wl,-z,lazy", pad], ["-Wl,-z,norelro", pad]] {
                let loaders = [loader(level), loader(level).binding(Binding::Lazy)];
                for loader in loaders {
                    let template = prepare(&loader, &read(&changes(&flags)));
                    let other = OldThread::start();
                    // What instances share is made with the second.
                    drop(spoil(&template));
                    let place = start(&spoil(&template));
                    for round in 0..5 {
                        let library = spoil(&template);
                        assert_eq!(start(&library), place, "{flags:?} {level:?} {round}");
                        // This thread has spoilt the data, that one its own variables.
                        assert_eq!(other.call(function(&library, "fresh")), 2);
                    }
                    // Two at once are apart.
                    let (one, two) = (spoil(&template), spoil(&template));
                    assert!(start(&one) != start(&two));
                    assert_eq!(call(&one, "fresh"), 2);
                }
            }
        }
    });
}

#[test]
fn protections_are_those_of_a_new_instance() {
    isolated(|| {
        for (pad, level) in PADS.into_iter().flat_map(|pad| LEVELS.map(|level| (pad, level))) {
            let template = prepare(&loader(level), &read(&changes(&["-Wl,-z,now", pad])));
            let access = |library: &Library| {
                let inside = library.address_range();
                let mut pages: Vec<(usize, String)> = Vec::new();
                for line in maps() {
                    let from = line.range.start.max(inside.start);
                    let pages_of = (from..line.range.end.min(inside.end)).step_by(PAGE);
                    pages.extend(pages_of.map(|page| (page - inside.start, line.access.clone())));
                }
                pages
            };
            drop(spoil(&template));
            let first = spoil(&template);
            let (expected, place) = (access(&first), start(&first));
            drop(first);
            let next = spoil(&template);
            assert_eq!((start(&next), access(&next)), (place, expected.clone()));
            assert!(!expected.iter().any(|(_, access)| access.contains("wx")));
            assert!(expected.iter().any(|(_, access)| access.starts_with("r-x")));
        }
    });
}

#[test]
fn entries_of_the_dynamic_section_are_moved_once() {
    isolated(|| {
        for flags in [["-Wl,-z,now", PADS[0]], ["-Wl,-z,norelro", PADS[0]]] {
            let bytes = read(&changes(&flags));
            let elf = Elf::parse(&bytes).unwrap();
            let dynamic = elf.dynamic.as_ref().unwrap();
            let section = elf
                .program_headers
                .iter()
                .find(|it| it.p_type == goblin::elf64::program_header::PT_DYNAMIC);
            let section = section.unwrap().p_vaddr as usize;
            let template = prepare(&loader(DebugLevel::Off), &bytes);
            for _ in 0..4 {
                let library = instance(&template);
                for tag in [DT_STRTAB, DT_SYMTAB, DT_GNU_HASH] {
                    let at = dynamic.dyns.iter().position(|entry| entry.d_tag == tag).unwrap();
                    let word = (library.load_bias() + section + 16 * at + 8) as *const usize;
                    // SAFETY: the value of an entry of the section.
                    let moved = unsafe { word.read() };
                    assert_eq!(moved, library.load_bias() + dynamic.dyns[at].d_val as usize);
                }
            }
        }
    });
}

/// Makes the page of an address writable, as a debugger or a tool that hooks functions does, writes a byte, and brings
/// the protection back.
fn write_through(address: usize, protection: c_int) {
    let page = (address & !(PAGE - 1)) as *mut c_void;
    // SAFETY: a page of the test's library, none of whose code runs meanwhile.
    unsafe {
        assert_eq!(libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE), 0);
        let byte = address as *mut u8;
        byte.write(byte.read() ^ 0x22);
        assert_eq!(libc::mprotect(page, PAGE, protection), 0);
    }
}

#[test]
fn what_the_host_has_written_to_read_only_pages_is_gone() {
    isolated(|| {
        let read_only = libc::PROT_READ;
        for level in LEVELS {
            // Pages that instances share are those of all.
            let bytes = read(&changes(&["-Wl,-z,now", PADS[0]]));
            let template = prepare(&loader(level), &bytes);
            for _ in 0..3 {
                for name in ["plain_word", "relocated_word"] {
                    let library = spoil(&template);
                    let word = function::<extern "C" fn() -> *const c_void>(&library, name)();
                    write_through(word.addr(), read_only);
                }
                let library = spoil(&template);
                let code = function::<Number>(&library, "answer") as usize;
                let word = |skip: usize| {
                    // SAFETY: code of the library.
                    unsafe { ((code + skip) as *const u32).read_unaligned() }
                };
                let skip = (0..16).find(|skip| word(*skip) == 0x1111_1111);
                write_through(code + skip.unwrap(), read_only | libc::PROT_EXEC);
                assert_ne!(call(&library, "answer"), 0x1111_1111);
                drop(library);
                drop(spoil(&template));
                // Nothing is lost for those that come later.
                let place = start(&spoil(&template));
                assert_eq!(start(&spoil(&template)), place);
            }
        }
    });
}

#[test]
fn an_image_that_changes_its_own_pages_is_not_used_again() {
    isolated(|| {
        for (pad, level) in PADS.into_iter().flat_map(|pad| LEVELS.map(|level| (pad, level))) {
            let template = prepare(&loader(level), &read(&changes(&["-Wl,-z,now", pad])));
            for way in [
                "by_function",
                "by_system_call",
                "by_default_handle",
                "by_handle",
                "freezes",
                "unmaps",
                "unmaps_from_before",
                "maps_over",
                "moves_away",
            ] {
                for _ in 0..2 {
                    let library = instance(&template);
                    assert_eq!(call(&library, "fresh"), 42, "{way}");
                    let place = start(&library);
                    assert_eq!(call(&library, way), 0, "{way}");
                    drop(library);
                    assert!(!is_mapped(place), "{way} {pad} {level:?}");
                }
                drop(spoil(&template));
            }
        }
    });
}

#[test]
fn an_instance_that_waits_is_not_there() {
    isolated(|| {
        let path = changes(&[PADS[0]]);
        for level in LEVELS {
            memdl::release_memory();
            let template = prepare(&loader(level), &read(&path));
            let before = memdl::statistics();
            let library = spoil(&template);
            let (place, load) = (start(&library), memdl::images()[0].load());
            assert_eq!(library.close().unwrap(), Closed::Unloaded);
            assert!(is_mapped(place), "it waits");
            assert_eq!(memdl::images().len(), 0);
            let after = memdl::statistics();
            assert_eq!((after.images, after.mapped_bytes), (0, 0));
            assert_eq!((after.loads, after.unloads), (before.loads + 1, before.unloads + 1));
            assert!(after.kept_bytes > 0);
            let next = spoil(&template);
            let images = memdl::images();
            assert_eq!((images.len(), images[0].load()), (1, load + 1));
            assert_eq!(images[0].address_range(), next.address_range());
            assert_eq!(memdl::statistics().kept_bytes, 0);
        }
    });
}

#[test]
fn what_waits_goes_with_its_template_or_on_demand_and_is_limited() {
    isolated(|| {
        let bytes = read(&changes(&[PADS[0]]));
        let template = prepare(&loader(DebugLevel::Off), &bytes);
        let clone = template.clone();
        let place = start(&instance(&template));
        drop(template);
        assert!(is_mapped(place), "a clone can use it");
        assert_eq!(start(&instance(&clone)), place);
        memdl::release_memory();
        assert!(!is_mapped(place));
        let outlives = spoil(&clone);
        let place = start(&outlives);
        drop(clone);
        assert_eq!(call(&outlives, "fresh"), 2);
        drop(outlives);
        memdl::release_memory();
        assert!(!is_mapped(place), "nobody can use it any more");

        // All templates of a process together. Those that were used last have room.
        let large = build("gcc", "recycled/changes.c", &["-O1", "-DPAD=900000", "-g"]);
        let large = read(&large);
        let templates: Vec<Template> =
            (0..100).map(|_| prepare(&loader(DebugLevel::Full), &large)).collect();
        for template in &templates {
            drop(spoil(template));
        }
        let kept = memdl::statistics().kept_bytes;
        assert!((16 << 20..=32 << 20).contains(&kept), "{kept}");
        let last = &templates[99];
        let place = start(&instance(last));
        assert_eq!(start(&instance(last)), place);
        drop(templates);
        memdl::release_memory();
        assert_eq!(memdl::statistics().kept_bytes, 0);
    });
}

/// The constructors and destructors of `testlibs/pool/handlers.cpp` have told these, in order.
static EVENTS: Mutex<String> = Mutex::new(String::new());

extern "C-unwind" fn event(letter: c_int) {
    EVENTS.lock().unwrap().push(letter as u8 as char);
}

#[test]
fn constructors_and_destructors_run_in_each_life() {
    isolated(|| {
        let path = build("g++", "pool/handlers.cpp", &["-O1", "-fexceptions"]);
        let events = || std::mem::take(&mut *EVENTS.lock().unwrap());
        let define = |loader: Loader| loader.define("event", event as *const c_void);
        for level in LEVELS {
            let template = prepare(&define(loader(level)), &read(&path));
            let mut told = Vec::new();
            for _ in 0..4 {
                let library = instance(&template);
                assert_eq!(call(&library, "of_thread"), 1);
                told.push((library.close().unwrap(), events()));
            }
            assert!(told.iter().all(|it| *it == told[0]), "{told:?}");
            assert!(!told[0].1.is_empty());
        }
    });
}

#[test]
fn exceptions_and_thread_locals_work_in_each_life() {
    isolated(|| {
        let path = build("g++", "unload/everything.cpp", &[]);
        for level in LEVELS {
            let template = prepare(&loader(level), &read(&path));
            for _ in 0..4 {
                let library = instance(&template);
                assert_eq!(call_run(&library), 42);
                let in_thread = thread::scope(|scope| scope.spawn(|| call_run(&library)).join());
                assert!(in_thread.is_ok());
            }
        }
    });
}

#[test]
fn threads_that_make_and_unload_instances_share_nothing_else() {
    isolated(|| {
        let bytes = read(&changes(&[PADS[0]]));
        let template = prepare(&loader(DebugLevel::Off), &bytes);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|number| {
                    let template = &template;
                    scope.spawn(move || {
                        let mut kept = Vec::new();
                        for round in 0..2000 {
                            let library = spoil(template);
                            if round % (number + 2) == 0 {
                                kept.push(library);
                            }
                            if kept.len() > number {
                                kept.clear();
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let images = memdl::images();
                    assert!(images.windows(2).all(|pair| pair[0].load() < pair[1].load()));
                    memdl::release_memory();
                    let status = in_child(20, || {
                        // A child has no thread that could be in the middle of something.
                        c_int::from(call(&spoil(&template), "fresh") != 2)
                    });
                    assert_eq!(exit_status(status), Some(0), "{status:#x}");
                }
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(memdl::images().len(), 0);
    });
}

fn load(loader: &Loader, bytes: &[u8]) -> Library {
    // SAFETY: libraries of `testlibs/` and of the system.
    unsafe { loader.load(bytes) }.unwrap()
}

#[test]
fn the_third_image_with_the_same_bytes_is_where_the_second_was() {
    isolated(|| {
        for (pad, level) in PADS.into_iter().flat_map(|pad| LEVELS.map(|level| (pad, level))) {
            for flags in [["-Wl,-z,now", pad], ["-Wl,-z,lazy", pad], ["-Wl,-z,norelro", pad]] {
                let bytes = read(&changes(&flags));
                for loader in [loader(level), loader(level).binding(Binding::Lazy)] {
                    memdl::release_memory();
                    let mut places = Vec::new();
                    for _ in 0..6 {
                        let library = load(&loader, &bytes);
                        assert_eq!(call(&library, "fresh"), 42, "{flags:?} {level:?} {places:?}");
                        function::<extern "C" fn()>(&library, "spoil")();
                        assert_eq!(call(&library, "fresh"), 2);
                        places.push(start(&library));
                    }
                    assert!(places[2..].iter().all(|place| *place == places[1]), "{places:x?}");
                    // After a single load nothing is there.
                    assert_ne!(places[0], places[1]);
                }
            }
        }
    });
}

#[test]
fn a_load_of_the_same_bytes_makes_no_system_call() {
    isolated(|| {
        let tiny = read(&build("gcc", "bench/tiny.c", &["-O2", "-g"]));
        for (what, bytes) in [("tiny", tiny), ("changes", read(&changes(&[PADS[1]])))] {
            let status = in_child(60, || {
                let loader = loader(DebugLevel::Off);
                let turn = || start(&load(&loader, &bytes));
                // The allocator has all that it needs, too.
                let mut place = 0;
                (0..50).for_each(|_| place = turn());
                forbid_system_calls();
                if (0..100).all(|_| turn() == place) { 42 } else { 1 }
            });
            assert_eq!(exit_status(status), Some(42), "{what}: {status:#x}");
        }
    });
}

#[test]
fn memory_of_the_same_layout_gets_the_bytes_of_each_image() {
    isolated(|| {
        let original = read(&changes(&["-Wl,-z,now", PADS[0]]));
        let elf = Elf::parse(&original).unwrap();
        let symbol = |name: &str| {
            let found =
                elf.dynsyms.iter().find(|it| elf.dynstrtab.get_at(it.st_name) == Some(name));
            found.unwrap().st_value as usize
        };
        // Read-only data: the file has it at its address.
        let filler = symbol("filler");
        let mut other = original.clone();
        other[filler + 1] = 9;
        let byte = |library: &Library| {
            // SAFETY: a byte of the library's data.
            unsafe { function::<*const u8>(library, "filler").add(1).read() }
        };
        let loader = loader(DebugLevel::Off);
        for round in 0..12 {
            let (bytes, expected) = if round % 4 < 2 { (&original, 0) } else { (&other, 9) };
            let library = load(&loader, bytes);
            assert_eq!((byte(&library), call(&library, "fresh")), (expected, 42), "{round}");
            function::<extern "C" fn()>(&library, "spoil")();
        }
    });
}

#[test]
fn memory_that_was_written_through_a_hole_is_mended_or_given_up() {
    isolated(|| {
        let bytes = read(&changes(&["-Wl,-z,now", PADS[0]]));
        for level in LEVELS {
            let loader = loader(level);
            for round in 0..12 {
                let library = load(&loader, &bytes);
                assert_eq!(call(&library, "fresh"), 42, "{round}");
                if round % 3 == 2 {
                    let name = ["plain_word", "relocated_word"][round / 3 % 2];
                    let word = function::<extern "C" fn() -> *const c_void>(&library, name)();
                    write_through(word.addr(), libc::PROT_READ);
                    let code = function::<Number>(&library, "answer") as usize;
                    if round > 5 {
                        write_through(code + 1, libc::PROT_READ | libc::PROT_EXEC);
                    }
                }
                let access = maps().into_iter().find(|line| {
                    let word =
                        function::<extern "C" fn() -> *const c_void>(&library, "plain_word")();
                    line.range.contains(&word.addr())
                });
                assert_eq!(&access.unwrap().access[..3], "r--", "{round}: RELRO");
            }
        }
    });
}

extern "C" fn one() -> c_int {
    1
}

extern "C" fn two() -> c_int {
    2
}

#[test]
fn references_are_those_of_each_load() {
    isolated(|| {
        let path = build("gcc", "recycled/calls.c", &["-O1", "-Wl,-z,now"]);
        let bytes = read(&path);
        for round in 0..12 {
            let (function, expected) =
                if round % 4 < 2 { (one as *const c_void, 1) } else { (two as *const c_void, 2) };
            let library = load(&loader(DebugLevel::Off).define("number", function), &bytes);
            assert_eq!(call(&library, "calls"), expected, "{round}");
        }
    });
}
