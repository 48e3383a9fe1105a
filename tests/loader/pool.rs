//! Pools: what an instance is like when it is used again, and which instances are not.

use std::ffi::{c_char, c_int, c_void};
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{
    AnyWay, build, call_run, exit_status, in_child, is_mapped, isolated, machine, maps, resident,
    system_library,
};
use crate::helpers::{Number, OldThread, function};
use memdl::{Binding, DebugLevel, Error, Library, Loader, Pool, Pooled, Reset};

const BOTH: [Reset; 2] = [Reset::AfterConstructors, Reset::BeforeConstructors];

/// What images have told, in order. Tests that use it run in processes of their own.
static EVENTS: Mutex<String> = Mutex::new(String::new());
/// The next constructor is to panic.
static PANIC: AtomicBool = AtomicBool::new(false);

extern "C-unwind" fn event(letter: c_int) {
    EVENTS.lock().unwrap().push(letter as u8 as char);
    if letter == c_int::from(b'C') && PANIC.swap(false, Ordering::SeqCst) {
        panic!("as was asked for");
    }
}

/// What was told since it was last asked.
fn events() -> String {
    std::mem::take(&mut EVENTS.lock().unwrap())
}

fn gcc(source: &str, flags: &[&str]) -> PathBuf {
    let compiler = if source.ends_with(".cpp") { "g++" } else { "gcc" };
    build(compiler, source, &[&["-O1", "-fexceptions"], flags].concat())
}

fn loader() -> Loader {
    Loader::new().system_libraries(true).define("event", event as *const c_void)
}

fn pool_of(loader: &Loader, path: &Path, capacity: usize) -> Pool {
    let bytes = fs::read(path).unwrap();
    loader.template(&bytes).unwrap_or_else(|error| panic!("{error}")).pool(capacity)
}

fn pool(source: &str, flags: &[&str]) -> Pool {
    pool_of(&loader(), &gcc(source, flags), 1)
}

fn acquire(pool: &Pool) -> Pooled {
    // SAFETY: libraries of `testlibs/`, none of whose code runs when these tests release them.
    unsafe { pool.acquire() }.unwrap_or_else(|error| panic!("{error}"))
}

fn number(library: &Library, name: &str) -> Number {
    function(library, name)
}

fn call(library: &Library, name: &str) -> c_int {
    number(library, name)()
}

#[test]
fn data_is_what_it_was_after_the_constructors() {
    isolated(|| {
        for flags in [&["-Wl,-z,now"], &["-Wl,-z,norelro"]] {
            let pool = pool("pool/state.c", flags);
            let mut places = Vec::new();
            for round in 0..5 {
                let instance = acquire(&pool);
                assert_eq!(call(&instance, "fresh"), 42, "round {round}");
                assert_ne!(call(&instance, "fresh"), 42, "it changes nothing");
                places.push(instance.load_bias());
                instance.release();
                assert_eq!(pool.parked(), 1);
            }
            places.dedup();
            assert_eq!(places.len(), 1, "not the same instance");
            assert_eq!(events(), "C", "constructors of one instance");
            drop(pool);
            assert_eq!(events(), "D");
        }
    });
}

#[test]
fn data_is_what_it_was_before_the_constructors() {
    isolated(|| {
        let pool = pool("pool/state.c", &[]).reset_to(Reset::BeforeConstructors);
        for round in 0..5 {
            let instance = acquire(&pool);
            assert_eq!(events(), "C", "round {round}");
            assert_eq!(call(&instance, "fresh"), 42, "round {round}");
            drop(instance);
            assert_eq!((&*events(), pool.parked()), ("D", 1), "round {round}");
        }
        drop(pool);
        assert_eq!(events(), "", "a parked instance is finalised already");
    });
}

#[test]
fn thread_local_variables_are_initial_again_in_all_threads() {
    isolated(|| {
        let models = [
            &[machine::CALLS, "-ftls-model=global-dynamic"][..],
            &[machine::CALLS, "-ftls-model=local-dynamic"],
            &[machine::DESCRIPTORS],
            &["-ftls-model=initial-exec", "-DROOM=20"],
        ];
        for (model, reset) in models.iter().flat_map(|model| BOTH.map(|reset| (model, reset))) {
            let pool = pool("tls/variables.c", model).reset_to(reset);
            let others = [OldThread::start(), OldThread::start()];
            for round in 0..4 {
                let instance = acquire(&pool);
                assert_eq!(call(&instance, "fresh"), 42, "{model:?} {reset:?} {round}");
                assert_eq!(call(&instance, "used"), 42, "{model:?} {reset:?} {round}");
                // One of them, so that a thread that has not been there for a while is among them.
                let other = &others[round / 2];
                assert_eq!(
                    other.call(number(&instance, "fresh")),
                    42,
                    "{model:?} {reset:?} {round}"
                );
                assert_eq!(
                    other.call(number(&instance, "used")),
                    42,
                    "{model:?} {reset:?} {round}"
                );
                // And a thread that ends.
                assert_eq!(
                    OldThread::start().call(number(&instance, "fresh")),
                    42,
                    "{model:?} {reset:?}"
                );
                instance.release();
                assert_eq!(pool.parked(), 1);
            }
            let instance = acquire(&pool);
            for other in &others {
                assert_eq!(other.call(number(&instance, "fresh")), 42, "{model:?} {reset:?}");
            }
        }
    });
}

#[test]
fn objects_are_destroyed_once_for_each_time_they_are_made() {
    isolated(|| {
        let pool = pool("pool/handlers.cpp", &[]);
        // The first time there is nothing to go back to before the constructors.
        let instance = acquire(&pool);
        assert_eq!((call(&instance, "local"), call(&instance, "local")), (1, 2));
        instance.release();
        assert_eq!((&*events(), pool.parked()), ("GLlg", 0));
        let mut places = Vec::new();
        for round in 0..3 {
            let instance = acquire(&pool);
            places.push(instance.load_bias());
            assert_eq!((call(&instance, "local"), call(&instance, "local")), (1, 2));
            instance.release();
            assert_eq!((&*events(), pool.parked()), ("GLlg", 1), "round {round}");
        }
        places.dedup();
        assert_eq!(places.len(), 1, "not the same instance");
        // Where nothing is made, nothing is to be destroyed, and constructors need not run again.
        acquire(&pool).release();
        assert_eq!(events(), "G");
        acquire(&pool).release();
        assert_eq!(events(), "");
        let instance = acquire(&pool);
        assert_eq!(call(&instance, "local"), 1);
        instance.release();
        assert_eq!(events(), "Llg");
        drop(pool);
        assert_eq!(events(), "");
    });
}

#[test]
fn functions_for_the_exit_and_for_forks_are_called_or_forgotten() {
    isolated(|| {
        let fork = || {
            // SAFETY: the child ends at once.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::_exit(0);
                }
                assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child);
            }
        };
        for reset in BOTH {
            let pool = pool("pool/handlers.cpp", &[]).reset_to(reset);
            for round in 0..4 {
                let instance = acquire(&pool);
                assert_eq!(call(&instance, "at_exit"), 0);
                assert_eq!(events(), "G", "{reset:?} {round}");
                instance.release();
                assert_eq!(events(), "21g", "{reset:?} {round}");
                let instance = acquire(&pool);
                assert_eq!(call(&instance, "at_fork"), 0);
                fork();
                assert_eq!(events(), "GP", "{reset:?} {round}");
                instance.release();
                fork();
                assert_eq!(events(), "g", "{reset:?} {round}");
            }
            assert_eq!(pool.parked(), 1);
        }
    });
}

#[test]
fn thread_local_objects_are_destroyed_by_the_thread_that_releases() {
    isolated(|| {
        for reset in BOTH {
            events();
            let pool = pool("pool/handlers.cpp", &[]).reset_to(reset);
            let thread = || {
                for round in 0..100 {
                    let instance = acquire(&pool);
                    assert_eq!(
                        (call(&instance, "of_thread"), call(&instance, "of_thread")),
                        (1, 0)
                    );
                    instance.release();
                    let constructed = if reset == BOTH[0] && round > 0 { "" } else { "G" };
                    let destroyed = if reset == BOTH[0] { "" } else { "g" };
                    assert_eq!(
                        events(),
                        format!("{constructed}Tt{destroyed}"),
                        "{reset:?} {round}"
                    );
                    assert_eq!(pool.parked(), 1);
                }
            };
            thread::scope(|scope| scope.spawn(thread).join()).unwrap();
            // Nothing is left for the end of the thread, and an image's other users are not disturbed.
            assert_eq!(events(), "", "{reset:?}");
            let (one, two) = (acquire(&pool), acquire(&pool));
            assert_eq!((call(&one, "of_thread"), call(&two, "of_thread")), (1, 1));
            drop(one);
            assert_eq!(call(&two, "of_thread"), 0, "destroyed with another's");
            drop(two);
            let told = events();
            assert_eq!(told.matches('t').count(), 2, "{told}");
            assert!(!told.contains('!'), "{told}");
        }
    });
}

#[test]
fn what_constructors_leave_in_thread_local_variables_is_destroyed() {
    isolated(|| {
        let pool = pool("pool/handlers.cpp", &["-DIN_CONSTRUCTOR"]);
        for round in 0..3 {
            let instance = acquire(&pool);
            let told = events();
            let expected = if round == 0 { "Tt" } else { "" };
            assert_eq!(told.replace('G', ""), expected, "round {round}");
            assert_eq!(call(&instance, "early_is_fresh"), 1, "round {round}");
            assert_eq!(
                OldThread::start().call(number(&instance, "early_is_fresh")),
                1,
                "round {round}"
            );
            events();
            instance.release();
            assert_eq!(pool.parked(), 1);
            events();
        }
        // They are there where constructors run for whoever acquires.
        let pool = pool.reset_to(Reset::BeforeConstructors);
        for _ in 0..3 {
            assert_eq!(call(&acquire(&pool), "early_is_fresh"), 0);
        }
    });
}

/// As glibc keeps a library for destructors of threads that have not ended.
#[test]
fn an_instance_that_another_thread_has_objects_of_is_not_used_again() {
    isolated(|| {
        for reset in BOTH {
            let pool = pool("pool/handlers.cpp", &[]).reset_to(reset);
            events();
            let other = OldThread::start();
            let instance = acquire(&pool);
            let inside = instance.address_range().start;
            assert_eq!(other.call(number(&instance, "of_thread")), 1);
            assert_eq!(call(&instance, "of_thread"), 1);
            instance.release();
            // This thread's objects are destroyed, so that only the other thread keeps the instance.
            assert_eq!((pool.parked(), &*events()), (0, "GTTt"), "{reset:?}");
            let next = acquire(&pool);
            assert!(is_mapped(inside) && next.address_range().start != inside);
            assert_eq!(call(&next, "of_thread"), 1);
            next.release();
            events();
            drop(other);
            assert_eq!(events(), "tg", "{reset:?}: at the end of the thread");
            memdl::release_memory();
            assert_eq!((pool.parked(), is_mapped(inside)), (1, false));
        }
    });
}

#[test]
fn keys_are_created_anew() {
    isolated(|| {
        for reset in BOTH {
            let pool = pool("unload/keys.c", &[]).reset_to(reset);
            let mut keys = Vec::new();
            for _ in 0..3 {
                let instance = acquire(&pool);
                keys.push(call(&instance, "creates_key"));
                instance.release();
                assert_eq!(pool.parked(), 1);
            }
            keys.dedup();
            assert_eq!(keys.len(), 1, "they are not deleted: {keys:?}");

            let pool = self::pool("pool/key.c", &[]).reset_to(reset);
            let others = [OldThread::start(), OldThread::start()];
            for round in 0..5 {
                let instance = acquire(&pool);
                for other in &others {
                    assert_eq!(other.call(number(&instance, "is_first")), 1, "{reset:?} {round}");
                    assert_eq!(other.call(number(&instance, "is_first")), 0, "{reset:?} {round}");
                }
                instance.release();
                // Before the first release it is not known that the way back is the long one.
                assert_eq!(pool.parked(), usize::from(reset == BOTH[1] || round > 0));
            }
        }
    });
}

#[test]
fn a_library_by_rust_is_used_again() {
    isolated(|| {
        let path = build("rustc", "unload/library.rs", &["-O", "-Cmetadata=pool"]);
        for reset in BOTH {
            let pool = pool_of(&loader(), &path, 1).reset_to(reset);
            for round in 0..20 {
                let instance = acquire(&pool);
                assert_eq!(call_run(&instance), 42, "{reset:?} {round}");
                instance.release();
                assert_eq!(pool.parked(), 1, "{reset:?} {round}");
            }
        }
    });
}

#[test]
fn ten_thousand_rounds_leave_nothing() {
    isolated(|| {
        let pools: Vec<Pool> = BOTH
            .iter()
            .flat_map(|&reset| {
                ["pool/state.c", "pool/handlers.cpp"]
                    .map(|source| pool(source, &["-g"]).reset_to(reset))
            })
            .collect();
        let round = || {
            for pool in &pools {
                let instance = acquire(pool);
                // SAFETY: functions of this type.
                if let Ok(fresh) = unsafe { instance.get::<Number>("fresh") } {
                    assert_eq!(fresh(), 42);
                } else {
                    assert_eq!((call(&instance, "local"), call(&instance, "of_thread")), (1, 1));
                    assert_eq!(call(&instance, "at_exit"), 0);
                }
            }
            events();
        };
        (0..200).for_each(|_| round());
        let (mappings, before) = (maps().len(), resident());
        (0..10_000).for_each(|_| round());
        let (mappings_after, after) = (maps().len(), resident());
        assert_eq!(mappings_after, mappings, "mappings");
        assert!(after < before + 500, "{before} kB became {after} kB");
        assert!(pools.iter().all(|pool| pool.parked() == 1));
    });
}

#[test]
fn untouched_pages_of_a_pool_take_no_memory() {
    isolated(|| {
        // 63 pages are filled with zeroes, not given back.
        let pool = pool("pool/state.c", &[]);
        let instances: Vec<_> = (0..50).map(|_| acquire(&pool)).collect();
        let before = resident();
        drop(instances);
        let pool = pool_of(&loader(), &gcc("pool/state.c", &[]), 50);
        let instances: Vec<_> = (0..50).map(|_| acquire(&pool)).collect();
        instances.iter().for_each(|instance| assert_eq!(call(instance, "fresh"), 42));
        drop(instances);
        assert_eq!(pool.parked(), 50);
        // Each has a megabyte of which it has touched a few pages.
        let after = resident();
        assert!(after < before + 50 * 128, "{before} kB became {after} kB");
    });
}

#[test]
fn threads_share_a_pool() {
    isolated(|| {
        let path = gcc("pool/state.c", &[]);
        let pool = pool_of(&loader(), &path, 4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2000 {
                        let instance = acquire(&pool.clone());
                        assert_eq!(call(&instance, "fresh"), 42, "round {round}");
                    }
                });
            }
        });
        let made = events();
        assert_eq!(made.len(), pool.parked(), "{made}");
        assert!((1..=4).contains(&made.len()), "{made}");
        // Acquired here, released there.
        let instance = acquire(&pool);
        assert_eq!(call(&instance, "fresh"), 42);
        thread::spawn(move || drop(instance)).join().unwrap();
        assert_eq!(call(&acquire(&pool), "fresh"), 42);
    });
}

#[test]
fn no_more_than_the_capacity_wait() {
    isolated(|| {
        let pool = pool_of(&loader(), &gcc("pool/state.c", &[]), 2);
        let instances: Vec<Pooled> = (0..3).map(|_| acquire(&pool)).collect();
        assert_eq!((&*events(), pool.parked()), ("CCC", 0));
        drop(instances);
        assert_eq!((&*events(), pool.parked()), ("D", 2));
        // One that is taken out does not come back.
        let library = acquire(&pool).into_library();
        assert_eq!((&*events(), pool.parked()), ("", 1));
        drop(library);
        assert_eq!((&*events(), pool.parked()), ("D", 1));
        // One that outlives its pool is unloaded.
        let instance = acquire(&pool);
        drop(pool);
        assert_eq!(call(&instance, "fresh"), 42);
        drop(instance);
        assert_eq!(events(), "D");
        let none = pool_of(&loader(), &gcc("pool/state.c", &[]), 0);
        drop(acquire(&none));
        assert_eq!((&*events(), none.parked()), ("CD", 0));
    });
}

#[test]
fn what_an_image_needs_is_reset_with_it() {
    isolated(|| {
        let counter = gcc("pool/counter.c", &["-Wl,-soname,libcounter.so"]);
        let lazy = ["-Wl,-z,lazy", "-Wl,--no-as-needed", counter.to_str().unwrap()];
        let counts = gcc("pool/counts.c", &lazy);
        let provides = loader().provide("libcounter.so", fs::read(&counter).unwrap());
        let loaders = [provides.clone(), provides.binding(Binding::Lazy)];
        for (loader, reset) in loaders.iter().flat_map(|loader| BOTH.map(|reset| (loader, reset))) {
            let pool = pool_of(loader, &counts, 1).reset_to(reset);
            for round in 0..3 {
                let instance = acquire(&pool);
                assert_eq!(call_run(&instance), 42, "{reset:?} {round}");
                assert_eq!(call_run(&instance), 43, "{reset:?} {round}");
                instance.release();
                assert_eq!(pool.parked(), 1);
            }
        }
        // One that others need is theirs.
        let pool = pool_of(&loader(), &counter, 1);
        let instance = acquire(&pool);
        // SAFETY: a library of `testlibs/`.
        let user = unsafe { loader().depends_on(&instance).load(&fs::read(&counts).unwrap()) };
        let user = user.unwrap();
        assert_eq!((call_run(&user), call(&instance, "count")), (42, 2));
        let inside = instance.address_range().start;
        instance.release();
        assert_eq!((pool.parked(), is_mapped(inside)), (0, true));
        drop(user);
        memdl::release_memory();
        assert!(!is_mapped(inside), "it stays");
    });
}

#[test]
fn an_instance_with_an_open_extension_is_not_used_again() {
    isolated(|| {
        type Extend = extern "C" fn(*const c_char) -> c_int;
        let extension = gcc("services/extension.c", &[]);
        let extension = std::ffi::CString::new(extension.to_str().unwrap()).unwrap();
        let pool = pool("services/application.c", &[]);
        for (closes, parked) in [(false, 0), (true, 1), (true, 1)] {
            let instance = acquire(&pool);
            // SAFETY: the function's type.
            let extend = unsafe { *instance.get::<Extend>("extend").unwrap() };
            assert_eq!(extend(extension.as_ptr()), 42);
            if closes {
                assert_eq!(call(&instance, "withdraw"), 42);
            }
            instance.release();
            assert_eq!(pool.parked(), parked, "closes: {closes}");
        }
    });
}

#[test]
fn a_constructor_that_unwinds_is_no_instance() {
    isolated(|| {
        panic::set_hook(Box::new(|_| {}));
        for reset in BOTH {
            events();
            let pool = pool("pool/state.c", &[]).reset_to(reset);
            let rounds: &[usize] = if reset == BOTH[0] { &[0] } else { &[0, 1, 2] };
            for round in rounds {
                PANIC.store(true, Ordering::SeqCst);
                let unwound = panic::catch_unwind(AssertUnwindSafe(|| drop(acquire(&pool))));
                assert!(unwound.is_err(), "{reset:?} {round}");
                assert_eq!((&*events(), pool.parked()), ("CD", 0), "{reset:?} {round}");
                assert_eq!(call(&acquire(&pool), "fresh"), 42, "{reset:?} {round}");
                assert_eq!(pool.parked(), 1);
                events();
            }
        }
    });
}

#[test]
fn a_library_that_must_stay_is_refused() {
    isolated(|| {
        let pool = pool("pool/counter.c", &["-Wl,-z,nodelete"]);
        let before = maps().len();
        // SAFETY: a library of `testlibs/`.
        let error = unsafe { pool.acquire() }.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("DF_1_NODELETE"), "{error}");
        assert!(maps().len() <= before, "it stays all the same");
    });
}

/// Resetting undoes the binding, and what was kept for it goes with it.
#[test]
fn calls_that_are_bound_again_and_again_take_no_memory() {
    isolated(|| {
        let counter = gcc("pool/counter.c", &["-Wl,-soname,libcounter.so"]);
        let lazy = ["-Wl,-z,lazy", "-Wl,--no-as-needed", counter.to_str().unwrap()];
        let counts = gcc("pool/counts.c", &lazy);
        // SAFETY: a library of `testlibs/`.
        let counter = unsafe { loader().load(&fs::read(&counter).unwrap()) }.unwrap();
        let lazy = loader().depends_on(&counter).binding(Binding::Lazy);
        let pool = pool_of(&lazy, &counts, 1);
        let rounds = |count: c_int| (0..count).for_each(|_| _ = call_run(&acquire(&pool)));
        rounds(1000);
        let before = resident();
        rounds(100_000);
        let after = resident();
        assert!(after < before + 500, "{before} kB became {after} kB");
        assert_eq!((call(&counter, "count"), pool.parked()), (101_001, 1));
    });
}

#[test]
fn a_forked_child_uses_the_pools_of_its_parent() {
    isolated(|| {
        let pool = pool_of(&loader().debug(DebugLevel::Off), &gcc("pool/counter.c", &[]), 2);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(call(&acquire(&pool), "count"), 1);
                    }
                });
            }
            for _ in 0..200 {
                // Should it find a lock held, an alarm ends it.
                let use_pool = || (0..5).map(|_| call(&acquire(&pool), "count")).sum();
                let status = in_child(10, use_pool);
                assert_eq!(exit_status(status), Some(5), "{status:#x}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn real_libraries_start_from_the_beginning() {
    for name in ["libz.so.1", "libsqlite3.so.0"] {
        for reset in BOTH {
            let pool = pool_of(&loader(), &system_library(name), 1).reset_to(reset);
            for _ in 0..3 {
                let instance = acquire(&pool);
                if name == "libz.so.1" {
                    type Checksum = extern "C" fn(u64, *const u8, u32) -> u64;
                    // SAFETY: `crc32`'s type.
                    let crc32 = unsafe { *instance.get::<Checksum>("crc32").unwrap() };
                    assert_eq!(crc32(0, b"123456789".as_ptr(), 9), 0xcbf4_3926);
                } else {
                    assert_eq!(select(&instance), 42);
                }
                instance.release();
                assert_eq!(pool.parked(), 1, "{name} {reset:?}");
            }
        }
    }
}

/// Has sqlite calculate in a new database in memory, and close it and itself.
fn select(sqlite: &Library) -> c_int {
    type Open = extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
    type Prepare = extern "C" fn(
        *mut c_void,
        *const c_char,
        c_int,
        *mut *mut c_void,
        *mut *const c_char,
    ) -> c_int;
    type Of = extern "C" fn(*mut c_void) -> c_int;
    type Column = extern "C" fn(*mut c_void, c_int) -> c_int;
    // SAFETY: sqlite's functions and their types.
    unsafe {
        let (mut database, mut statement) = (std::ptr::null_mut(), std::ptr::null_mut());
        let open = sqlite.get::<Open>("sqlite3_open").unwrap();
        assert_eq!(open(c":memory:".as_ptr(), &mut database), 0);
        let prepare = sqlite.get::<Prepare>("sqlite3_prepare_v2").unwrap();
        let text = c"with t(n) as (values(40),(2)) select sum(n) from t";
        let end = std::ptr::null_mut();
        assert_eq!(prepare(database, text.as_ptr(), -1, &mut statement, end), 0);
        assert_eq!(sqlite.get::<Of>("sqlite3_step").unwrap()(statement), 100);
        let result = sqlite.get::<Column>("sqlite3_column_int").unwrap()(statement, 0);
        assert_eq!(sqlite.get::<Of>("sqlite3_finalize").unwrap()(statement), 0);
        assert_eq!(sqlite.get::<Of>("sqlite3_close").unwrap()(database), 0);
        assert_eq!(sqlite.get::<Number>("sqlite3_shutdown").unwrap()(), 0);
        result
    }
}

/// What one instance changes in its code is not in another, and is not handed on.
#[test]
fn code_that_patched_itself_is_not_handed_out() {
    const PATCHED: [i32; 3] = [0, 0x2222_2222, 0x1111_1111];
    for pad in ["-DPAD=0", "-DPAD=200000"] {
        let path = gcc("pool/patches.c", &[pad]);
        for debug in [DebugLevel::Off, DebugLevel::Symbols, DebugLevel::Full] {
            let what = format!("{pad} {debug:?}");
            let loader = Loader::new().debug(debug);
            let bytes = fs::read(&path).unwrap();
            // SAFETY: a library of `testlibs/`, as below.
            let template = unsafe { loader.prepare(&bytes) }.unwrap();
            // SAFETY: as above.
            let instance = || unsafe { template.instantiate() }.unwrap();
            let (one, other) = (instance(), instance());
            let answers = [call(&one, "patch"), call(&one, "answer"), call(&other, "answer")];
            assert_eq!(answers, PATCHED, "{what}");
            // Its own pages stay its own when a debugger shall see it.
            one.set_debug(DebugLevel::Symbols).unwrap();
            assert_eq!(call(&one, "answer"), 0x2222_2222, "{what}");
            drop(one);
            let next: Vec<_> = (0..3).map(|_| instance()).collect();
            assert!(next.iter().all(|next| call(next, "answer") == 0x1111_1111), "{what}");

            let pool = template.pool(2);
            for step in ["patch", "freeze"] {
                let instance = acquire(&pool);
                assert_eq!(call(&instance, step), 0, "{what}");
                drop(instance);
                assert_eq!(pool.parked(), 0, "{what} {step}");
                let next = acquire(&pool);
                let values = [call(&next, "answer"), call(&next, "thaw")];
                assert_eq!(values, [0x1111_1111, 0], "{what} {step}");
                next.into_library();
            }
            drop(acquire(&pool));
            assert_eq!(pool.parked(), 1, "{what}");

            for _ in 0..3 {
                // SAFETY: as above.
                let library = unsafe { loader.load_any_way(&bytes) }.unwrap();
                assert_eq!(call(&library, "answer"), 0x1111_1111, "{what}");
                assert_eq!([call(&library, "patch"), call(&library, "freeze")], [0, 0], "{what}");
            }
        }
    }
}
