//! Reloading: what keeps a library that is closed, and how threads that live on let it go.

use std::ffi::{CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use crate::common::{
    self, AnyWay, Opened, build, call_run, debug_entries, is_sanitized, isolated,
    isolated_without_caches, machine, maps, resident,
};
use crate::helpers::{Number, function, opened_function, read};
use libc::RTLD_NOW;
use memdl::{Closed, Error, ImageBuffer, Kept, Library, Loader, Pool, Reset};

/// Whether an image is there: memory that waits for the next one is given back first.
fn is_mapped(address: usize) -> bool {
    memdl::release_memory();
    common::is_mapped(address)
}

/// What images have told, in order. Tests that use it run in processes of their own.
static EVENTS: Mutex<String> = Mutex::new(String::new());

type ReportTo = extern "C" fn(extern "C" fn(c_int));

extern "C" fn event(letter: c_int) {
    EVENTS.lock().unwrap().push(letter as u8 as char);
}

/// What was told since it was last asked.
fn events() -> String {
    std::mem::take(&mut EVENTS.lock().unwrap())
}

fn gcc(source: &str, flags: &[&str]) -> PathBuf {
    let compiler = if source.ends_with(".cpp") { "g++" } else { "gcc" };
    build(compiler, source, &[&["-O1"], flags].concat())
}

fn leaves(flags: &[&str]) -> PathBuf {
    gcc("unload/leaves.cpp", flags)
}

fn loader() -> Loader {
    Loader::new().system_libraries(true)
}

fn load(path: &Path) -> Library {
    // SAFETY: a library of `testlibs/`.
    unsafe { loader().load_any_way(&read(path)) }.unwrap_or_else(|error| panic!("{error}"))
}

/// `leaves.cpp`, which tells events.
fn load_leaves(path: &Path) -> Library {
    let library = load(path);
    function::<ReportTo>(&library, "report_to")(event);
    library
}

fn call(library: &Library, name: &str) -> c_int {
    function::<Number>(library, name)()
}

/// # Safety
/// As [`Library::leave_thread`].
unsafe fn close_here(library: Library) -> Closed {
    // SAFETY: the caller's promise.
    unsafe { library.close_with_thread_locals() }.unwrap_or_else(|error| panic!("{error}"))
}

fn kept(closed: Closed) -> Kept {
    match closed {
        Closed::Kept(kept) => kept,
        other => panic!("it is {other}"),
    }
}

/// A thread that lives on.
struct Worker {
    jobs: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    fn start() -> Worker {
        let (jobs, to_do) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = thread::spawn(move || to_do.into_iter().for_each(|job| job()));
        Worker { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Has it done there.
    fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let (done, result) = mpsc::channel();
        let job: Box<dyn FnOnce() + Send + '_> = Box::new(move || done.send(job()).unwrap());
        // SAFETY: the job ends, or is dropped, before this returns; so it is not used for longer.
        let job = unsafe {
            std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Box<dyn FnOnce() + Send>>(job)
        };
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Three workers use a library and leave it; each may enter again, and finds what a new thread finds. By all
/// models of thread-local storage. What is told is what a thread tells that ends, by `dlopen` as well.
#[test]
fn workers_leave_a_library() {
    isolated(|| {
        for model in [
            &[machine::CALLS, "-ftls-model=global-dynamic"][..],
            &[machine::DESCRIPTORS],
            &["-ftls-model=initial-exec"],
            &[machine::CALLS, "-ftls-model=local-dynamic"],
        ] {
            let path = leaves(model);
            let opened = Opened::new(&path, RTLD_NOW);
            opened_function::<ReportTo>(&opened, "report_to")(event);
            let use_opened: Number = opened_function(&opened, "use");
            thread::spawn(move || assert_eq!(use_opened(), 6)).join().unwrap();
            let at_end_of_thread = events();
            assert_eq!(at_end_of_thread, "21k", "{model:?}");

            let library = load_leaves(&path);
            let inside = library.address_range().start;
            let workers = [Worker::start(), Worker::start(), Worker::start()];
            for round in 0..3 {
                for worker in &workers {
                    assert_eq!(worker.run(|| call(&library, "use")), 6, "{model:?} {round}");
                    assert_eq!(worker.run(|| call(&library, "use")), 7, "{model:?} {round}");
                }
                let leave = |worker: &Worker| {
                    // SAFETY: nothing refers to the worker's variables.
                    worker.run(|| unsafe { library.leave_thread() }).unwrap();
                };
                leave(&workers[0]);
                assert_eq!(events(), at_end_of_thread, "{model:?} {round}");
                leave(&workers[0]);
                assert_eq!(events(), "", "a second time: {model:?} {round}");
                // The others are not disturbed.
                assert_eq!(workers[1].run(|| call(&library, "use")), 8, "{model:?} {round}");
                assert_eq!(workers[0].run(|| call(&library, "use")), 6, "{model:?} {round}");
                workers.iter().for_each(leave);
                assert_eq!(events(), at_end_of_thread.repeat(3), "{model:?} {round}");
            }
            // This thread never used it.
            assert_eq!(library.close().unwrap(), Closed::Unloaded, "{model:?}");
            assert!(!is_mapped(inside), "{model:?}");
            drop(workers);
            assert_eq!(events(), "", "nothing is left for the end of the threads: {model:?}");
        }
    });
}

#[test]
fn a_close_destroys_the_objects_of_its_thread() {
    isolated(|| {
        let path = leaves(&[]);
        let library = load_leaves(&path);
        let inside = library.address_range().start;
        assert_eq!(call(&library, "use"), 6);
        // SAFETY: nothing refers to this thread's variables.
        assert_eq!(unsafe { close_here(library) }, Closed::Unloaded);
        assert_eq!((events().as_str(), is_mapped(inside)), ("21k", false));

        // Those of other threads keep it, until these end.
        let library = load_leaves(&path);
        let inside = library.address_range().start;
        let worker = Worker::start();
        assert_eq!(worker.run(|| call(&library, "use")), 6);
        assert_eq!(call(&library, "use"), 6);
        // SAFETY: as above.
        let kept = kept(unsafe { close_here(library) });
        assert_eq!((kept.threads, kept.this_thread, kept.others), (1, false, 0));
        assert_eq!((events().as_str(), is_mapped(inside)), ("21k", true));
        drop(worker);
        // Keys go with the image, and their values with the thread.
        assert_eq!((events().as_str(), is_mapped(inside)), ("21k", false));
    });
}

#[test]
fn a_close_says_what_keeps_the_library() {
    isolated(|| {
        let path = leaves(&[]);
        assert_eq!(load_leaves(&path).close().unwrap(), Closed::Unloaded);

        // Threads.
        let library = load_leaves(&path);
        let workers = [Worker::start(), Worker::start(), Worker::start()];
        for worker in &workers {
            worker.run(|| call(&library, "use"));
        }
        call(&library, "use");
        let closed = library.close().unwrap();
        assert_eq!(
            closed.to_string(),
            "it stays loaded: 4 threads have destructors of its thread-local objects to run, this \
             thread among them"
        );
        let kept = kept(closed);
        assert_eq!((kept.threads, kept.this_thread), (4, true));
        assert_eq!((kept.libraries.len(), kept.is_open, kept.others), (0, false, 0));
        drop(workers);

        // Libraries that are bound to it, and options to bind more.
        let plain = gcc("capi/plain.c", &["-Wl,-soname,libplain.so"]);
        let flags = ["-Wl,--no-as-needed", plain.to_str().unwrap()];
        let dependent = gcc("capi/dependent.c", &flags);
        let needed = load(&plain);
        let inside = needed.address_range().start;
        let options = loader().name("the user").depends_on(&needed);
        // SAFETY: a library of `testlibs/`.
        let user = unsafe { options.load(&read(&dependent)) }.unwrap();
        let closed = needed.close().unwrap();
        assert_eq!(
            closed.to_string(),
            "it stays loaded: the user is bound to it or was opened by it; a loader, template or \
             lookup holds it"
        );
        assert_eq!(user.close().unwrap(), Closed::Unloaded);
        assert!(is_mapped(inside));
        drop(options);
        assert!(!is_mapped(inside));

        // What is never unloaded.
        let stays = gcc("unload/noisy.c", &["-DNAME=kept", "-Wl,-z,nodelete"]);
        // SAFETY: nobody's descriptor here: what it notes goes there.
        assert_eq!(unsafe { libc::dup2(2, 199) }, 199);
        let closed = load(&stays).close().unwrap();
        let text = "it stays loaded: it is never to be unloaded (DF_1_NODELETE)";
        assert_eq!(closed.to_string(), text);
    });
}

/// An extension that a library has opened lives in the scope of that library, and holds it.
#[test]
fn a_thread_leaves_what_a_library_has_opened_too() {
    isolated(|| {
        type Opens = extern "C" fn(*const c_char) -> c_int;
        let extension = gcc("unload/leaves_extension.cpp", &[]);
        let name = CString::new(extension.to_str().unwrap()).unwrap();
        let path = leaves(&[]);
        for closes in [true, false] {
            let library = load_leaves(&path);
            let inside = library.address_range().start;
            assert_eq!(function::<Opens>(&library, "opens")(name.as_ptr()), 7);
            if closes {
                assert_eq!(call(&library, "closes"), 0);
            }
            assert_eq!(events(), "");
            let worker = Worker::start();
            worker.run(|| call(&library, "use"));
            // SAFETY: nothing refers to the worker's variables.
            worker.run(|| unsafe { library.leave_thread() }).unwrap();
            assert_eq!(events(), "21k", "the extension has no objects there");
            // SAFETY: nothing refers to this thread's variables.
            let closed = unsafe { close_here(library) };
            assert_eq!(events(), "x");
            if closes {
                assert_eq!((closed, is_mapped(inside)), (Closed::Unloaded, false));
            } else {
                let kept = kept(closed);
                assert_eq!(kept.libraries, [extension.to_str().unwrap()]);
                assert_eq!((kept.threads, kept.this_thread, kept.others), (0, false, 0));
                assert!(is_mapped(inside));
            }
        }
        // What keeps it is this thread's use of the extension.
        let library = load_leaves(&path);
        assert_eq!(function::<Opens>(&library, "opens")(name.as_ptr()), 7);
        assert_eq!(call(&library, "closes"), 0);
        let kept = kept(library.close().unwrap());
        assert_eq!((kept.threads, kept.this_thread, kept.libraries.len()), (0, true, 1));
    });
}

/// The last thread that keeps a closed library unloads it when it ends, without another call of memdl; under
/// `dlopen` it stays until the next `dlclose`. Destructors that run then may use thread-local variables, and
/// leave nothing that a later unload trips over.
#[test]
fn the_end_of_the_last_thread_unloads_a_closed_library() {
    isolated_without_caches(|| {
        let path = leaves(&["-DAT_UNLOAD"]);
        let others: Vec<_> = (0..20).map(|_| load(&leaves(&[]))).collect();
        for round in 0..50 {
            let library = load_leaves(&path);
            let inside = library.address_range().start;
            let workers = [Worker::start(), Worker::start()];
            for worker in &workers {
                assert_eq!(worker.run(|| call(&library, "use")), 6);
            }
            let kept = kept(library.close().unwrap());
            assert_eq!((kept.threads, kept.this_thread), (2, false));
            let [one, other] = workers;
            drop(one);
            assert_eq!((events().as_str(), is_mapped(inside)), ("21k", true), "{round}");
            drop(other);
            // Its static objects are destroyed in that thread, whose variables are initial again.
            assert_eq!((events().as_str(), is_mapped(inside)), ("21ksl", false), "{round}");
        }
        // The stacks of those threads are gone, with their thread-local variables.
        others.into_iter().for_each(|other| assert!(other.close().unwrap().is_unloaded()));
    });
}

/// A static object's destructor uses a thread-local object for the first time: its destructor runs before the
/// code is gone. (After `dlclose` the thread would call it where nothing is mapped.)
#[test]
fn objects_that_an_unload_makes_are_destroyed_in_it() {
    isolated(|| {
        let path = leaves(&["-DAT_UNLOAD"]);
        let end = thread::spawn(move || {
            for _ in 0..3 {
                let library = load_leaves(&path);
                assert_eq!(library.close().unwrap(), Closed::Unloaded);
                assert_eq!(events(), "sl");
            }
            let library = load_leaves(&path);
            assert_eq!(call(&library, "use"), 6);
            // SAFETY: nothing refers to this thread's variables.
            assert_eq!(unsafe { close_here(library) }, Closed::Unloaded);
            assert_eq!(events(), "21ksl");
        });
        end.join().unwrap();
        assert_eq!(events(), "");
    });
}

#[test]
fn a_pool_says_what_becomes_of_an_instance() {
    isolated(|| {
        let pool = loader().template(&read(&leaves(&[]))).unwrap().pool(1);
        // It makes a key, whose values in all threads cannot be brought back.
        let pool = pool.reset_to(Reset::BeforeConstructors);
        // SAFETY: a library of `testlibs/`, none of whose code runs when it is released.
        let acquire = || unsafe { pool.acquire() }.unwrap();
        let acquire = || {
            let instance = acquire();
            function::<ReportTo>(&instance, "report_to")(event);
            instance
        };
        let (instance, surplus) = (acquire(), acquire());
        let worker = Worker::start();
        // One that a worker has objects of is used again if the worker leaves first.
        assert_eq!((worker.run(|| call(&instance, "use")), call(&instance, "use")), (6, 6));
        // SAFETY: nothing refers to the worker's variables.
        worker.run(|| unsafe { instance.leave_thread() }).unwrap();
        assert_eq!(events(), "21k");
        assert_eq!(instance.release(), Closed::Parked);
        assert!(events().starts_with("21"));
        assert_eq!(surplus.release(), Closed::Unloaded);

        // If it does not, the instance goes when the worker ends: this thread's objects are destroyed.
        let instance = acquire();
        let inside = instance.address_range().start;
        assert_eq!((worker.run(|| call(&instance, "use")), call(&instance, "use")), (6, 6));
        let kept = kept(instance.release());
        assert_eq!((kept.threads, kept.this_thread), (1, false));
        drop(worker);
        assert!(!is_mapped(inside));
    });
}

#[test]
fn a_sealed_library_is_left_but_not_closed() {
    isolated(|| {
        // SAFETY: a library of `testlibs/`.
        let library = match unsafe { loader().seal(true).load(&read(&leaves(&["-Wl,-z,now"]))) } {
            Ok(library) => library,
            Err(error) => {
                assert!(error.to_string().contains("mseal needs Linux 6.10"), "{error}");
                return;
            }
        };
        function::<ReportTo>(&library, "report_to")(event);
        assert_eq!(call(&library, "use"), 6);
        // SAFETY: nothing refers to this thread's variables.
        unsafe { library.leave_thread() }.unwrap();
        assert_eq!((events().as_str(), call(&library, "use")), ("21k", 6));
        // SAFETY: as above.
        let error = unsafe { library.close_with_thread_locals() }.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert_eq!(events(), "", "it stays, and so do the objects");
    });
}

/// What a reload must leave as it was.
#[derive(PartialEq, Eq, Debug)]
struct Left {
    mappings_of_code: usize,
    descriptors: usize,
    debug_entries: usize,
    /// The lowest key that is free.
    key: libc::pthread_key_t,
}

impl Left {
    fn now() -> Left {
        let is_code = |it: &&common::MapsLine| it.access.contains('x');
        let mut key = 0;
        // SAFETY: creates a key, and deletes it.
        unsafe {
            assert_eq!(libc::pthread_key_create(&mut key, None), 0);
            libc::pthread_key_delete(key);
        }
        Left {
            mappings_of_code: maps().iter().filter(is_code).count(),
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            debug_entries: debug_entries().len(),
            key,
        }
    }
}

/// A plug-in by Rust, with its own standard library, as a host reloads it: it has thread-local objects in the
/// thread that calls it, spawns threads, and panics.
#[test]
fn a_thousand_reloads_are_flat() {
    isolated_without_caches(|| {
        let versions = ["one", "two"].map(|version| {
            let name = format!("-Cmetadata={version}");
            read(&build("rustc", "unload/library.rs", &["-O", "-Cstrip=debuginfo", &name]))
        });
        let pools = versions.each_ref().map(|it| loader().template(it).unwrap().pool(1));
        let worker = Worker::start();
        let here = |library: &Library| assert_eq!(call_run(library), 42);
        let in_worker = |library: &Library| {
            worker.run(|| here(library));
            // SAFETY: nothing refers to the worker's variables.
            worker.run(|| unsafe { library.leave_thread() }).unwrap();
        };
        let in_new_thread = |library: &Library| {
            thread::scope(|scope| scope.spawn(|| here(library)).join()).unwrap();
        };
        type User<'a> = (&'a str, &'a dyn Fn(&Library));
        let users: [User<'_>; 3] =
            [("main", &here), ("worker", &in_worker), ("new thread", &in_new_thread)];
        let load = |number: usize| {
            // SAFETY: a library of `testlibs/`.
            unsafe { loader().name("plug-in").load(&versions[number % 2]) }.unwrap()
        };
        let buffer = |number: usize| {
            let bytes = &versions[number % 2];
            let mut buffer = ImageBuffer::new(bytes.len()).unwrap();
            buffer.copy_from_slice(bytes);
            // SAFETY: as above.
            unsafe { loader().name("plug-in").load_buffer(buffer) }.unwrap()
        };
        let pooled = |pool: &Pool, using: &dyn Fn(&Library)| {
            // SAFETY: as above; none of its code runs when it is released.
            let instance = unsafe { pool.acquire() }.unwrap();
            using(&instance);
            assert_eq!(instance.release(), Closed::Parked);
        };
        let close = |library: Library| {
            // SAFETY: nothing refers to this thread's variables.
            assert_eq!(unsafe { close_here(library) }, Closed::Unloaded);
        };
        for (user, using) in users {
            let rounds = |count: usize| {
                for number in 0..count {
                    let library = load(number);
                    using(&library);
                    close(library);
                    if number % 4 == 0 {
                        let library = buffer(number / 4);
                        using(&library);
                        close(library);
                        pooled(&pools[number / 4 % 2], using);
                    }
                }
            };
            rounds(20);
            let (left, mappings, memory) = (Left::now(), maps().len(), resident());
            rounds(1000);
            assert_eq!(Left::now(), left, "{user}");
            let (mappings_after, memory_after) = (maps().len(), resident());
            if is_sanitized() {
                continue;
            }
            assert!(
                mappings_after <= mappings + 8,
                "{user}: {mappings} mappings, {mappings_after}"
            );
            // The plug-in's own statics keep some 300 bytes each time.
            assert!(memory_after < memory + 3_000, "{user}: {memory} kB, {memory_after} kB");
        }
    });
}
