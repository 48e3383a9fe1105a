//! What operators see: the list of images, the counters, and what is logged, beside what was loaded.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::common::{
    AnyWay, Opened, build, bytes, call_run, exit_status, in_child, is_mapped, isolated, limited,
    maps, run, system_library,
};
use memdl::{DebugLevel, Error, ImageInfo, Library, Loader, Statistics, images, statistics};

const ID: &str = "-Wl,--build-id=sha1";

fn load(loader: &Loader, bytes: &[u8]) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { loader.load(bytes) }.unwrap_or_else(|error| panic!("{error}"))
}

/// The element of the list for a library.
fn info(library: &Library) -> ImageInfo {
    let all = images();
    let found = all.iter().find(|it| it.address_range() == library.address_range());
    found.unwrap_or_else(|| panic!("{library:?} is not in {all:?}")).clone()
}

/// The build-id that `readelf` finds in a file.
fn build_id_of(path: &Path) -> Option<String> {
    let notes = run(limited(60, "readelf").args(["-nW"]).arg(path), "binutils");
    Some(notes.split_once("Build ID: ")?.1.split_whitespace().next()?.to_owned())
}

fn hex(id: Option<&[u8]>) -> Option<String> {
    id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_covered(range: &Range<usize>) -> bool {
    let mut at = range.start;
    for line in maps() {
        if line.range.contains(&at) {
            at = line.range.end;
        }
    }
    at >= range.end
}

#[test]
fn the_list_says_of_an_image_what_its_file_and_the_process_say() {
    isolated(|| {
        let path = build("gcc", "foo.c", &["-g", ID]);
        let bytes = std::fs::read(&path).unwrap();
        for way in ["load", "load_buffer"] {
            assert!(images().is_empty());
            let loader = Loader::new().name(way).debug(DebugLevel::Symbols);
            let library = match way {
                "load" => load(&loader, &bytes),
                _ => {
                    let mut buffer = memdl::ImageBuffer::new(bytes.len()).unwrap();
                    buffer.copy_from_slice(&bytes);
                    // SAFETY: a library of `testlibs/`.
                    unsafe { loader.load_buffer(buffer) }.unwrap()
                }
            };
            let [image] = &images()[..] else { panic!("{:?}", images()) };
            assert_eq!(image.name(), way);
            assert_eq!(image.address_range(), library.address_range());
            assert_eq!(image.load_bias(), library.load_bias());
            assert_eq!(hex(image.build_id()), build_id_of(&path));
            assert!(image.build_id().is_some_and(|id| id.len() == 20));
            assert_eq!((image.debug(), image.template()), (DebugLevel::Symbols, None));
            assert_eq!(image.holders(), 1);
            assert!(is_covered(&image.address_range()), "{:#x?}\n{:#x?}", image, maps());
            let named = format!("[anon:memdl:{way}]");
            let is_named =
                |at: usize| maps().iter().any(|it| it.range.contains(&at) && it.name == named);
            // Where the kernel can name memory at all.
            if maps().iter().any(|it| it.name.starts_with("[anon:memdl:")) {
                assert!(is_named(image.address_range().start));
            }
            let text = image.to_string();
            let Range { start, end } = library.address_range();
            let id = build_id_of(&path).unwrap();
            assert_eq!(text, format!("{start:#x}..{end:#x} {way} {id}"));

            library.set_debug(DebugLevel::Full).unwrap();
            assert_eq!(info(&library).debug(), DebugLevel::Full);
            assert_eq!(image.debug(), DebugLevel::Symbols, "a snapshot does not change");
            library.close().unwrap();
            assert!(images().is_empty());
        }
    });
}

#[test]
fn the_build_id_is_that_of_the_file_or_none() {
    let none = build("gcc", "foo.c", &["-g", "-Wl,--build-id=none"]);
    let long = build("gcc", "foo.c", &["-g", "-Wl,--build-id=0x0102030405060708090a0b0c"]);
    for (path, len) in [(none, None), (long, Some(12))] {
        let library = load(&Loader::new(), &std::fs::read(&path).unwrap());
        let image = info(&library);
        assert_eq!(image.build_id().map(<[u8]>::len), len);
        assert_eq!(hex(image.build_id()), build_id_of(&path));
        assert_eq!(image.to_string().split(' ').count(), 2 + usize::from(len.is_some()));
    }
}

#[test]
fn a_name_from_the_bytes_cannot_forge_a_line() {
    let bytes = bytes("gcc", "foo.c", &["-Wl,-soname,a\x1b[2J\nb.so"]);
    let library = load(&Loader::new(), &bytes);
    let image = info(&library);
    assert_eq!(image.name(), "a\x1b[2J\nb.so");
    assert!(image.to_string().contains(r"a\u{1b}[2J\nb.so"), "{image}");
}

#[test]
fn instances_are_of_their_template_and_members_of_their_load() {
    isolated(|| {
        let bytes = bytes("gcc", "pool/counter.c", &[ID]);
        let [one, other] = [0, 1].map(|_| Loader::new().template(&bytes).unwrap());
        assert!(one.id() != other.id() && one.id() == one.clone().id());
        assert!(images().is_empty(), "a template is no image");
        // SAFETY: a library of `testlibs/`.
        let instance = |template: &memdl::Template| unsafe { template.instantiate() }.unwrap();
        let all = [instance(&one), instance(&one), instance(&other)];
        let single = load(&Loader::new(), &bytes);
        let templates: Vec<_> = images().iter().map(ImageInfo::template).collect();
        assert_eq!(templates, [Some(one.id()), Some(one.id()), Some(other.id()), None]);
        let loads: Vec<_> = images().iter().map(ImageInfo::load).collect();
        assert_eq!(loads, [0, 1, 2, 3]);
        let id = info(&single).build_id().map(<[u8]>::to_vec);
        assert!(images().iter().all(|it| it.build_id() == id.as_deref()));
        // The number outlives the template.
        let number = one.id();
        drop(one);
        assert_eq!(info(&all[0]).template(), Some(number));
        // Idle instances of a pool are there.
        let pool = other.pool(1);
        // SAFETY: as above; none of its code runs when it is released.
        drop(unsafe { pool.acquire() }.unwrap());
        assert_eq!((pool.parked(), images().len()), (1, 5));
        drop(pool);
        drop((all, single));
        assert!(images().is_empty());

        // What was loaded together, in the order of its members.
        let plain = crate::common::bytes("gcc", "capi/plain.c", &[]);
        let stand_in = build("gcc", "capi/plain.c", &["-Wl,-soname,libplain.so"]);
        let flags = ["-Wl,--no-as-needed", stand_in.to_str().unwrap()];
        let dependent = crate::common::bytes("gcc", "capi/dependent.c", &flags);
        let library = load(
            &Loader::new().name("dependent").provide("libplain.so", plain.clone()),
            &dependent,
        );
        let names: Vec<_> = images().iter().map(|it| (it.name().to_owned(), it.load())).collect();
        assert_eq!(names, [("dependent".to_owned(), 5), ("libplain.so".to_owned(), 5)]);
        drop(library);
        // A library that is bound to another holds it.
        let needed = load(&Loader::new().name("libplain.so"), &plain);
        let library = load(&Loader::new().depends_on(&needed), &dependent);
        assert!(info(&needed).holders() > 1, "{:?}", info(&needed));
        assert_eq!(info(&library).holders(), 1);
        assert!(!needed.close().unwrap().is_unloaded());
        assert_eq!(images().len(), 2);
        drop(library);
        assert!(images().is_empty());
    });
}

#[test]
fn counters_count_loads_and_failures() {
    isolated(|| {
        assert_eq!(statistics(), Statistics::default());
        let bytes = bytes("gcc", "foo.c", &["-g"]);
        let library = load(&Loader::new(), &bytes);
        let one = statistics();
        assert_eq!((one.images, one.loads, one.unloads, one.failures), (1, 1, 0, 0));
        assert_eq!(one.mapped_bytes, library.address_range().len());
        assert_eq!(one.shared_bytes, 0);
        let second = load(&Loader::new(), &bytes);
        let two = statistics();
        assert_eq!((two.images, two.mapped_bytes), (2, 2 * one.mapped_bytes));
        drop((library, second));
        let none = statistics();
        assert_eq!((none.images, none.mapped_bytes, none.loads, none.unloads), (0, 0, 2, 2));

        // Failures: of the bytes, of a reference, of a template, of a verifier.
        let refused = Loader::new().verify(|_| Err("no".into()));
        let missing = crate::common::bytes("gcc", "api/asks_host.c", &[]);
        for (loader, bytes) in
            [(Loader::new(), &bytes[..100]), (Loader::new(), &missing[..]), (refused, &bytes[..])]
        {
            let before = statistics();
            // SAFETY: nothing is loaded.
            unsafe { loader.load(bytes) }.unwrap_err();
            assert_eq!(statistics().failures, before.failures + 1);
            loader.template(bytes).unwrap_err();
            let after = statistics();
            assert_eq!(after.failures, before.failures + 2);
            assert_eq!((after.images, after.loads), (0, 2));
        }
        // One more that is not this process's.
        let status = in_child(60, || {
            // SAFETY: nothing is loaded.
            assert!(unsafe { Loader::new().load(b"?") }.is_err());
            (statistics().failures as c_int) * 10 + images().len() as c_int
        });
        assert_eq!(exit_status(status), Some(70), "{status:#x}");
        assert_eq!(statistics().failures, 6);
    });
}

#[test]
fn kept_and_shared_memory_is_counted() {
    isolated(|| {
        // Small ones share nothing.
        let bytes = std::fs::read(system_library("libz.so.1")).unwrap();
        let template = Loader::new().debug(DebugLevel::Off).template(&bytes).unwrap();
        memdl::release_memory();
        assert_eq!(statistics().kept_bytes, 0);
        // SAFETY: a library of `testlibs/`.
        let instance = || unsafe { template.instantiate() }.unwrap();
        // The first has all for itself.
        let [_first, one, other] = [(); 3].map(|()| instance());
        let Statistics { mapped_bytes, shared_bytes, .. } = statistics();
        assert_eq!(mapped_bytes, 3 * one.address_range().len());
        let shared = maps().into_iter().filter(|line| {
            let at = line.range.start;
            line.access.ends_with('s')
                && [&one, &other].iter().any(|it| it.address_range().contains(&at))
        });
        assert_eq!(shared_bytes, shared.map(|line| line.range.len()).sum::<usize>());
        assert!(0 < shared_bytes && shared_bytes < mapped_bytes);
        // A debugger's view gives it pages of its own.
        one.set_debug(DebugLevel::Symbols).unwrap();
        assert_eq!(statistics().shared_bytes, shared_bytes / 2);

        // Parked for the next instance: the pages that it does not share.
        let len = other.address_range().len();
        drop(other);
        assert_eq!(statistics().kept_bytes, len - shared_bytes / 2);
        let other = instance();
        assert_eq!(statistics().kept_bytes, 0);
        drop(other);
        memdl::release_memory();
        assert_eq!(statistics().kept_bytes, 0);

        // Plain memory, for any image: with the guard behind it.
        let library = load(&Loader::new().debug(DebugLevel::Off), &bytes);
        let len = library.address_range().len();
        drop(library);
        assert!(statistics().kept_bytes > len, "{:?}", statistics());
        memdl::release_memory();
        assert_eq!(statistics().kept_bytes, 0);
    });
}

/// What the list said when an image asked: the number of images, and the holders of the first.
static ASKED: Mutex<Vec<(c_int, usize, usize)>> = Mutex::new(Vec::new());

extern "C" fn ask(when: c_int) {
    let all = images();
    assert_eq!(all.len(), statistics().images);
    ASKED.lock().unwrap().push((when, all.len(), all[0].holders()));
}

#[test]
fn code_of_an_image_finds_it_in_the_list() {
    isolated(|| {
        let bytes = bytes("gcc", "api/asks_host.c", &[]);
        let loader = Loader::new().define("ask", ask as *const c_void);
        let library = load(&loader, &bytes);
        assert_eq!(call_run(&library), 42);
        drop(library);
        // Nothing holds an image whose destructors run.
        assert_eq!(*ASKED.lock().unwrap(), [(0, 1, 1), (1, 1, 1), (2, 1, 0)]);
        assert!(images().is_empty());
    });
}

#[test]
fn the_list_holds_nothing_while_others_load_and_unload() {
    isolated(|| {
        let bytes = bytes("gcc", "pool/counter.c", &["-g", ID]);
        let template = Loader::new().debug(DebugLevel::Off).template(&bytes).unwrap();
        let id = build_id_of(&build("gcc", "pool/counter.c", &["-g", ID]));
        let (done, kept) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let loaders: Vec<_> = (0..3)
                .map(|part| {
                    let (template, bytes, kept) = (&template, &bytes, &kept);
                    scope.spawn(move || {
                        for round in 0..300 {
                            let library = match (part + round) % 2 {
                                0 => load(&Loader::new().name(format!("of {part}")), bytes),
                                // SAFETY: a library of `testlibs/`.
                                _ => unsafe { template.instantiate() }.unwrap(),
                            };
                            if !library.close().unwrap().is_unloaded() {
                                kept.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            let asks = || {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    let all = images();
                    most = most.max(all.len());
                    assert!(all.len() <= 3, "{all:?}");
                    assert!(all.is_sorted_by_key(ImageInfo::load));
                    for image in &all {
                        assert_eq!(hex(image.build_id()), id);
                        let is_instance = image.template() == Some(template.id());
                        assert!(is_instance || image.name().starts_with("of "));
                    }
                    assert!(statistics().images <= 3);
                }
                most
            };
            let askers = [scope.spawn(asks), scope.spawn(asks)];
            for loader in loaders {
                loader.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            for asker in askers {
                assert!(asker.join().unwrap() > 0);
            }
        });
        assert_eq!(kept.into_inner(), 0, "a list never keeps an image loaded");
        assert_eq!((statistics().loads, statistics().unloads), (900, 900));
        assert!(images().is_empty());
    });
}

#[test]
fn children_of_a_fork_have_the_list() {
    isolated(|| {
        let bytes = bytes("gcc", "pool/counter.c", &[ID]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    load(&Loader::new(), &bytes);
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = images();
                }
            });
            let library = load(&Loader::new().name("kept"), &bytes);
            for _ in 0..50 {
                let status = in_child(60, || {
                    let is_there = images().iter().any(|it| it.name() == "kept");
                    let count = images().len();
                    c_int::from(!(is_there && count <= 2 && statistics().images == count))
                });
                assert_eq!(exit_status(status), Some(0), "{status:#x}");
            }
            stop.store(true, Ordering::Relaxed);
            drop(library);
        });
    });
}

#[test]
fn what_the_system_loaded_is_not_in_the_list() {
    let path = build("gcc", "pool/counter.c", &["-DOF_SYSTEM"]);
    let opened = Opened::new(&path, libc::RTLD_NOW);
    let at = opened.load_bias();
    assert!(is_mapped(at) && images().iter().all(|it| !it.address_range().contains(&at)));
}

/// Keeps what is logged, at the level `debug` and above.
struct Log;

static LOGGED: Mutex<Vec<(log::Level, String)>> = Mutex::new(Vec::new());

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        assert!(record.target().starts_with("memdl"), "{}", record.target());
        // A logger is foreign code: no lock is held.
        let _ = images();
        let _ = statistics();
        LOGGED.lock().unwrap().push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// What was logged since the last call, without addresses and times.
fn logged() -> Vec<String> {
    let events = std::mem::take(&mut *LOGGED.lock().unwrap());
    let texts = events.into_iter().map(|(level, text)| {
        assert_eq!(level, log::Level::Debug, "{text}");
        let words = text.split(' ').map(|word| {
            let number = word.trim_end_matches([':', ',']);
            let is_time = number.split_once('.').is_some_and(|(whole, rest)| {
                rest.len() == 3 && [whole, rest].iter().all(|it| it.parse::<u32>().is_ok())
            });
            match () {
                () if is_time => word.replace(number, "T"),
                () if word.starts_with("0x") => word.replace(number, "A"),
                () => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    });
    texts.collect()
}

#[test]
fn the_log_has_loads_and_unloads_with_times() {
    isolated(|| {
        log::set_logger(&Log).unwrap();
        let bytes = bytes("gcc", "pool/counter.c", &[]);
        let loader = Loader::new().name("counter");
        log::set_max_level(log::LevelFilter::Info);
        drop(load(&loader, &bytes));
        assert!(logged().is_empty(), "the level is info");
        log::set_max_level(log::LevelFilter::Debug);

        let library = load(&loader, &bytes);
        assert_eq!(logged(), ["counter: loaded at A in T ms, constructors T ms"]);
        drop(library);
        assert_eq!(logged(), ["counter: unloaded at A in T ms"]);

        let template = loader.template(&bytes).unwrap();
        let id = template.id();
        assert_eq!(logged(), [format!("counter: prepared as template {id} in T ms")]);
        let of = format!("counter: an instance of template {id} at A in T ms, constructors T ms");
        // SAFETY: a library of `testlibs/`.
        drop(unsafe { template.instantiate() }.unwrap());
        assert_eq!(logged(), [&of, "counter: unloaded at A in T ms"]);
        let pool = template.pool(1).reset_to(memdl::Reset::BeforeConstructors);
        for round in 0..2 {
            // SAFETY: as above; none of its code runs when it is released.
            drop(unsafe { pool.acquire() }.unwrap());
            let expected = [&*of, "counter: reset in T ms"];
            assert_eq!(logged(), expected[round..], "an instance is loaded once");
        }
        drop((pool, template));
        assert_eq!(logged(), ["counter: unloaded at A in T ms"]);

        // SAFETY: nothing is loaded.
        let error: Error = unsafe { loader.load(b"?") }.unwrap_err();
        assert_eq!(logged(), [format!("a load failed after T ms: {error}")]);

        let plain = crate::common::bytes("gcc", "capi/plain.c", &[]);
        let stand_in = build("gcc", "capi/plain.c", &["-Wl,-soname,libplain.so"]);
        let flags = ["-Wl,--no-as-needed", stand_in.to_str().unwrap()];
        let dependent = crate::common::bytes("gcc", "capi/dependent.c", &flags);
        let loader = Loader::new().name("a\nb").provide("libplain.so", plain);
        drop(load(&loader, &dependent));
        let expected = [
            r"a\nb: loaded at A, with 1 that it needs, in T ms, constructors T ms",
            r"a\nb: unloaded at A in T ms",
        ];
        assert_eq!(logged(), expected);
    });
}
