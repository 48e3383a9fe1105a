//! jemalloc from bytes, in an executable with room for its initial-exec thread-local variables:
//! memdl's feature `large-static-tls`. The only argument is jemalloc's file.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, mem, thread};

#[derive(Clone, Copy)]
struct Jemalloc {
    malloc: unsafe extern "C" fn(usize) -> *mut u8,
    realloc: unsafe extern "C" fn(*mut u8, usize) -> *mut u8,
    aligned_alloc: unsafe extern "C" fn(usize, usize) -> *mut u8,
    free: unsafe extern "C" fn(*mut u8),
    usable_size: unsafe extern "C" fn(*mut u8) -> usize,
    mallctl:
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int,
}

impl Jemalloc {
    /// A value that jemalloc tells about itself.
    fn tell<T: Default>(&self, name: &CStr) -> T {
        let (mut value, mut len) = (T::default(), size_of::<T>());
        // SAFETY: `len` bytes can be written; nothing is changed.
        let result = unsafe {
            (self.mallctl)(name.as_ptr(), (&raw mut value).cast(), &mut len, null_mut(), 0)
        };
        assert_eq!((result, len), (0, size_of::<T>()), "{name:?}");
        value
    }

    /// Allocates, grows and frees in an order of its own; all contents must stay. Gives what this
    /// thread has allocated by jemalloc's count, which is a thread-local variable.
    fn exercise(&self, seed: usize) -> u64 {
        let before = self.tell::<u64>(c"thread.allocated");
        let mut held: Vec<(*mut u8, usize, u8)> = Vec::new();
        let mut state = seed;
        let mut sum = 0;
        for round in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = 1 + (state >> 33) % if round % 100 == 0 { 1 << 20 } else { 1 << 10 };
            let mark = (state >> 40) as u8;
            // SAFETY: all blocks come from this allocator, have the sizes that are written to,
            // and are freed once.
            unsafe {
                let block = if round % 3 == 0 {
                    let block = (self.aligned_alloc)(256, size);
                    assert_eq!(block.addr() % 256, 0);
                    block
                } else {
                    (self.malloc)(size)
                };
                assert!(!block.is_null() && (self.usable_size)(block) >= size);
                sum += (self.usable_size)(block) as u64;
                block.write_bytes(mark, size);
                held.push((block, size, mark));
                if held.len() > 200 {
                    let (block, size, mark) = held.swap_remove(state % 200);
                    let grown = (self.realloc)(block, size + 100);
                    let content = std::slice::from_raw_parts(grown, size);
                    assert!(content.iter().all(|byte| *byte == mark), "round {round}");
                    (self.free)(grown);
                }
            }
        }
        for (block, size, mark) in held {
            // SAFETY: as above.
            unsafe {
                let content = std::slice::from_raw_parts(block, size);
                assert!(content.iter().all(|byte| *byte == mark));
                (self.free)(block);
            }
        }
        let counted = self.tell::<u64>(c"thread.allocated") - before;
        assert!(counted >= sum, "{counted} of {sum}");
        counted
    }
}

fn main() {
    let file = fs::read(env::args().nth(1).unwrap()).unwrap();
    // A thread that is there before the library.
    let (send, receive) = mpsc::channel::<Jemalloc>();
    let older = thread::spawn(move || receive.recv().unwrap().exercise(1));

    let loader = memdl::Loader::new().name("libjemalloc.so.2").system_libraries(true);
    // SAFETY: a library of the distribution; the types are those of its header.
    let jemalloc = unsafe {
        let library = loader.load(&file).unwrap_or_else(|error| panic!("{error}"));
        let jemalloc = Jemalloc {
            malloc: *library.get("malloc").unwrap(),
            realloc: *library.get("realloc").unwrap(),
            aligned_alloc: *library.get("aligned_alloc").unwrap(),
            free: *library.get("free").unwrap(),
            usable_size: *library.get("malloc_usable_size").unwrap(),
            mallctl: *library.get("mallctl").unwrap(),
        };
        // Its thread-specific data has a destructor in it, also for the main thread.
        mem::forget(library);
        jemalloc
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.lines().any(|line| line.contains("libjemalloc") && line.contains("/lib/")));
    send.send(jemalloc).unwrap();
    let first = jemalloc.exercise(2);
    assert!(first > 0 && older.join().unwrap() > 0);
    let several: Vec<_> =
        (0..8).map(|seed| thread::spawn(move || jemalloc.exercise(3 + seed))).collect();
    let counts: BTreeSet<u64> = several.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(counts.len() > 1, "threads have one count: {counts:?}");
    // A thread of jemalloc's own, started through `dlsym(RTLD_NEXT, "pthread_create")`.
    let mut on = true;
    // SAFETY: a `bool` is read.
    let result = unsafe {
        let name = c"background_thread".as_ptr();
        (jemalloc.mallctl)(name, null_mut(), null_mut(), (&raw mut on).cast(), 1)
    };
    assert_eq!(result, 0, "background_thread");
    assert!(jemalloc.tell::<bool>(c"background_thread"));
    // It starts more, and names them, when it runs.
    let has_named_thread = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let mut names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.any(|name| name.trim_end() == "jemalloc_bg_thd")
    };
    let in_time = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        has_named_thread()
    });
    assert!(in_time, "no background thread");
    on = false;
    // SAFETY: as above. It waits for that thread.
    unsafe {
        let name = c"background_thread".as_ptr();
        (jemalloc.mallctl)(name, null_mut(), null_mut(), (&raw mut on).cast(), 1);
    }
    println!("jemalloc is content");
}
