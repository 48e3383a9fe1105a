//! All that a host does with images, in many threads, for long, while signals come that unwind: nothing
//! hangs, nothing crashes, and afterwards the process has what it had before.
//!
//! ```console
//! $ MEMDL_SOAK_ROUNDS=100000 cargo test --release --features internals --test hostile soak:: -- --nocapture
//! ```
//!
//! A round is one thing that one of the worker threads does. Beside the workers there are threads that
//! fork, that walk the list of libraries, that open and close a library on disk. At the start, in the middle,
//! and so on no worker exists and nothing is loaded; then memory, mappings, descriptors and so on are
//! counted, and must not have grown. A watchdog ends the process, after printing all stacks, if a thread
//! stands still.
//!
//! `MEMDL_SOAK_ROUNDS`: how many rounds; otherwise as many as go in some seconds. `MEMDL_SOAK_THREADS`: how
//! many workers. `MEMDL_SOAK_SEED`: another order. `MEMDL_SOAK_WITHOUT`: what is left out, as names of
//! [`WORK`] and of roles with commas between.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    MapsLine, Opened, build, debug_entries, is_sanitized, limit, limited, maps, name_of, own_test,
    resident,
};
use memdl::{Binding, DebugLevel, ImageBuffer, Library, Loader, Pool, Template};

type Callback = extern "C-unwind" fn(*mut c_void);
type Through = unsafe extern "C-unwind" fn(Callback, *mut c_void, c_int);
type Catches = unsafe extern "C-unwind" fn(Callback, *mut c_void) -> c_int;
type Number = unsafe extern "C-unwind" fn() -> c_int;

const CHILD: &str = "MEMDL_SOAK_CHILD";

/// The test: the soak, in a process of its own.
#[test]
fn a_process_that_does_everything_for_long_stays_as_it_is() {
    let me = name_of(&a_process_that_does_everything_for_long_stays_as_it_is);
    if std::env::var_os(CHILD).is_some() {
        return soak();
    }
    let is_long = std::env::var_os("MEMDL_SOAK_ROUNDS").is_some();
    let stdio = || if is_long { Stdio::inherit() } else { Stdio::piped() };
    let child = own_test(me)
        .env(CHILD, "1")
        .env_remove("MEMDL_DEBUG")
        .env_remove("MEMDL_PERF")
        // So that what the heap has in use is what was allocated and not freed.
        .env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=4")
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    // The watchdog in the child has the time; this is for a child whose watchdog hangs.
    let id = child.id() as libc::pid_t;
    let done = Arc::new(AtomicBool::new(false));
    if !is_long {
        let done = done.clone();
        thread::spawn(move || {
            thread::sleep(limit(Duration::from_secs(600)));
            if !done.load(Relaxed) {
                // SAFETY: a signal to a child that is not waited for yet.
                unsafe { libc::kill(id, libc::SIGKILL) };
            }
        });
    }
    let output = child.wait_with_output().unwrap();
    done.store(true, Relaxed);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    assert!(is_long || text.contains("running 1 test"), "{text}");
}

/// What this process does: settings, and what its threads share.
struct Soak {
    seed: u64,
    without: String,
    /// Bytes of the test libraries, and whether they have the functions of `soak/all.cpp`.
    images: Vec<Image>,
    slots: Vec<RwLock<Arc<Library>>>,
    templates: Vec<Template>,
    pools: Vec<Pool>,
    on_disk: PathBuf,
    /// How often each work was done.
    done: Vec<AtomicU64>,
    /// Workers stop when so many rounds are done, or when this time has come.
    rounds: AtomicU64,
    until_rounds: u64,
    until: Option<Instant>,
    workers_are_done: AtomicBool,
    time_scale: u32,
}

struct Image {
    bytes: Vec<u8>,
    has_all: bool,
}

/// xorshift64*: the orders are the same in every run, as far as one thread goes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

type Work = fn(&Soak, &mut Random);

/// What workers do; how often of 100 rounds, about.
const WORK: &[(&str, u32, Work)] = &[
    ("load", 14, load),
    ("load_buffer", 10, load_buffer),
    ("instantiate", 14, instantiate),
    ("pool", 16, pool),
    ("prepare", 3, prepare),
    ("exceptions", 8, exceptions),
    ("panics", 4, panics),
    ("backtraces", 2, backtraces),
    ("symbolize", 8, symbolize),
    ("set_debug", 4, set_debug),
    ("replace", 5, replace),
    ("threads", 4, threads),
    ("failures", 6, failures),
    ("release_memory", 2, release_memory),
];

// ---- Work ----------------------------------------------------------------------------------------

fn loader(random: &mut Random) -> Loader {
    let debug = *random.of(&[
        DebugLevel::Off,
        DebugLevel::Off,
        DebugLevel::Symbols,
        DebugLevel::Full,
        DebugLevel::Portable,
    ]);
    let binding = *random.of(&[Binding::Lazy, Binding::Now]);
    Loader::new().system_libraries(true).debug(debug).binding(binding)
}

/// A function of `soak/all.cpp`.
fn function<T: Copy>(library: &Library, name: &str) -> T {
    // SAFETY: `name` has the type that the callers name.
    unsafe { *library.get::<T>(name).unwrap() }
}

fn run(library: &Library) {
    let run: Number = function(library, "run");
    // SAFETY: without preconditions.
    assert_eq!(unsafe { run() }, 42);
}

fn load(soak: &Soak, random: &mut Random) {
    let image = random.of(&soak.images);
    // SAFETY: a library of `testlibs/`, as all here.
    let library = unsafe { loader(random).load(&image.bytes) }.unwrap();
    run(&library);
    assert!(library.symbols().any(|symbol| symbol.name() == "run"));
    library.close().unwrap();
}

fn load_buffer(soak: &Soak, random: &mut Random) {
    let image = random.of(&soak.images);
    let mut buffer = ImageBuffer::new(image.bytes.len()).unwrap();
    buffer.copy_from_slice(&image.bytes);
    if random.below(10) == 0 {
        return; // Received, and not loaded.
    }
    // SAFETY: as above.
    run(&unsafe { loader(random).load_buffer(buffer) }.unwrap());
}

fn instantiate(soak: &Soak, random: &mut Random) {
    // SAFETY: as above.
    run(&unsafe { random.of(&soak.templates).instantiate() }.unwrap());
}

fn pool(soak: &Soak, random: &mut Random) {
    let pool = random.of(&soak.pools);
    // SAFETY: as above; nothing of an instance is used after it was released.
    let (first, second) = unsafe { (pool.acquire().unwrap(), pool.acquire().unwrap()) };
    run(&first);
    run(&second);
    match random.below(4) {
        0 => drop(second.into_library()),
        _ => drop(second.release()),
    }
    first.release();
}

fn prepare(soak: &Soak, random: &mut Random) {
    let image = random.of(&soak.images);
    // SAFETY: as above.
    let template = unsafe { loader(random).prepare(&image.bytes) }.unwrap();
    // SAFETY: as above.
    let instances = [(); 2].map(|()| unsafe { template.instantiate() }.unwrap());
    drop(template);
    instances.iter().for_each(run);
}

/// A library that stays for some time, in which others are at work.
fn shared(soak: &Soak, random: &mut Random) -> Arc<Library> {
    random.of(&soak.slots).read().unwrap().clone()
}

/// One that is this thread's, with all functions, and about which debuggers can be told all later.
fn own(soak: &Soak, random: &mut Random) -> Library {
    let image = soak.images.iter().find(|image| image.has_all).unwrap();
    let kept = *random.of(&[DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable]);
    // SAFETY: as above.
    unsafe { loader(random).debug(kept).load(&image.bytes) }.unwrap()
}

/// One image throws, through a second, and a third catches.
fn exceptions(soak: &Soak, random: &mut Random) {
    let (thrower, passer, catcher) = (own(soak, random), shared(soak, random), own(soak, random));
    struct Path {
        throws: Callback,
        through: Through,
        number: c_int,
    }
    extern "C-unwind" fn passes(path: *mut c_void) {
        // SAFETY: it is the `path` below.
        unsafe {
            let path = path.cast::<Path>();
            ((*path).through)((*path).throws, (&raw mut (*path).number).cast(), 4);
        }
    }
    let mut path = Path {
        throws: function(&thrower, "throws"),
        through: function(&passer, "through"),
        number: 1 + random.below(1000) as c_int,
    };
    let catches: Catches = function(&catcher, "catches");
    // SAFETY: the functions have these types, and `path` outlives the call.
    let caught = unsafe { catches(passes, (&raw mut path).cast()) };
    // By name it is the same type, so libstdc++ compares names.
    assert_eq!(caught, path.number);
    // And to its own.
    let catches: Catches = function(&thrower, "catches");
    // SAFETY: as above.
    assert_eq!(unsafe { catches(path.throws, (&raw mut path.number).cast()) }, path.number);
}

/// A panic of the host's, through the frames of an image.
fn panics(soak: &Soak, random: &mut Random) {
    extern "C-unwind" fn panics(number: *mut c_void) {
        // Without the hook, which would print.
        resume_unwind(Box::new(number.addr()));
    }
    let library = shared(soak, random);
    let through: Through = function(&library, "through");
    let number = random.below(1000);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `with` is only passed on.
        unsafe { through(panics, ptr::without_provenance_mut(number), 3) };
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<usize>(), Some(&number));
}

/// A backtrace in the host, called by an image: by the standard library, by `backtrace(3)`, by the image.
fn backtraces(soak: &Soak, random: &mut Random) {
    thread_local! {
        static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    }
    extern "C-unwind" fn looks(_: *mut c_void) {
        let mut addresses = [ptr::null_mut::<c_void>(); 64];
        // SAFETY: room for so many.
        let count = unsafe { libc::backtrace(addresses.as_mut_ptr(), 64) };
        let count = usize::try_from(count).unwrap();
        let named = addresses[1..count].iter().flat_map(|it| memdl::symbolize(it.addr() - 1));
        assert_eq!(named.filter(|it| it.function().as_deref() == Some("through")).count(), 5);
        let text = {
            // It asks for the list of libraries: see `forks`.
            let _no_fork = FORK.read().unwrap();
            memdl::symbolize_backtrace(&Backtrace::force_capture())
        };
        TEXT.set(text);
    }
    let library = shared(soak, random);
    let through: Through = function(&library, "through");
    // SAFETY: as above.
    unsafe { through(looks, ptr::null_mut(), 4) };
    let text = TEXT.take();
    assert!(text.matches("through").count() >= 5, "{text}");
    let frames: Number = function(&library, "frames");
    // SAFETY: as above.
    assert!(unsafe { frames() } > 3);
}

fn symbolize(soak: &Soak, random: &mut Random) {
    let library = shared(soak, random);
    let address = function::<*const u8>(&library, "through").addr();
    let frames = memdl::symbolize(address);
    assert_eq!(frames.last().unwrap().function().as_deref(), Some("through"));
    assert_eq!(library.symbol_at(address + 1).unwrap().name(), "through");
}

fn set_debug(soak: &Soak, random: &mut Random) {
    let library = shared(soak, random);
    let to = [DebugLevel::Off, DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable];
    library.set_debug(*random.of(&to)).unwrap();
    if random.below(4) == 0 {
        let image = soak.images.iter().find(|image| image.has_all).unwrap();
        library.set_debug_info(&image.bytes).unwrap();
    }
    library.set_debug(*random.of(&to)).unwrap();
}

fn replace(soak: &Soak, random: &mut Random) {
    let library = Arc::new(own(soak, random));
    let former = std::mem::replace(&mut *random.of(&soak.slots).write().unwrap(), library);
    // Here, or where it is in use.
    drop(former);
}

/// Threads that end while an image is there, which has thread-local variables in them, and one that ends
/// after the image was unloaded.
fn threads(soak: &Soak, random: &mut Random) {
    let library = shared(soak, random);
    let (first, second) = (own(soak, random), own(soak, random));
    thread::scope(|scope| {
        scope.spawn(|| (run(&library), run(&first)));
        scope.spawn(move || {
            run(&second);
            drop(second);
        });
    });
    run(&first);
}

/// Loads that fail.
fn failures(soak: &Soak, random: &mut Random) {
    let image = random.of(&soak.images);
    let end = random.below(image.bytes.len());
    // SAFETY: as above; nothing runs of what is not whole.
    let result = unsafe { loader(random).load(&image.bytes[..end]) };
    if let Ok(library) = result {
        // Nothing was behind but what no load needs.
        run(&library);
    }
    // SAFETY: as above.
    let result = unsafe { loader(random).system_libraries(false).load(&image.bytes) };
    if let Ok(library) = result {
        run(&library);
    }
    let library = shared(soak, random);
    // SAFETY: it has no such symbol.
    assert!(unsafe { library.get::<*const u8>("not_there") }.is_err());
}

fn release_memory(_: &Soak, _: &mut Random) {
    memdl::release_memory();
}

// ---- Roles ---------------------------------------------------------------------------------------

/// A child of `fork` finds glibc's lock of the list of libraries as it was, for ever if another thread of
/// the parent held it. memdl holds off forks while it walks the list; the other walkers here do it with
/// this.
static FORK: RwLock<()> = RwLock::new(());

fn walks(soak: &Soak, me: &Progress) {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: usize,
        count: *mut c_void,
    ) -> c_int {
        // SAFETY: what `dl_iterate_phdr` gives, and the number below.
        unsafe {
            assert!(!(*info).dlpi_name.is_null());
            *count.cast::<usize>() += 1;
        }
        0
    }
    until_done(soak, me, || {
        let mut count = 0usize;
        let _no_fork = FORK.read().unwrap();
        // SAFETY: a callback of this type.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut count).cast()) };
        assert!(count > 3);
    });
}

fn opens(soak: &Soak, me: &Progress) {
    until_done(soak, me, || {
        let _no_fork = FORK.read().unwrap();
        let opened = Opened::new(&soak.on_disk, libc::RTLD_NOW);
        assert_eq!(opened.run(), 42);
        drop(opened);
    });
}

fn forks(soak: &Soak, me: &Progress) {
    let mut random = Random(soak.seed ^ 0x5eed);
    let plain = soak.images.iter().find(|image| !image.has_all).unwrap();
    let all = soak.images.iter().find(|image| image.has_all).unwrap();
    until_done(soak, me, || {
        let library = shared(soak, &mut random);
        let loader = loader(&mut random);
        let (pool, template) = (random.of(&soak.pools), random.of(&soak.templates));
        let address = function::<*const u8>(&library, "through").addr();
        let kind = random.below(6);
        let limit = 10 * soak.time_scale;
        let no_walker = FORK.write().unwrap();
        // SAFETY: the child does what memdl promises to work there, and leaves by `_exit` or `execv`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                libc::alarm(limit + 5);
                start_timer(true);
                if kind != 0 {
                    run(&loader.load(&plain.bytes).unwrap());
                }
                match kind {
                    1 => run(&loader.load(&all.bytes).unwrap()),
                    2 => {
                        assert_eq!(
                            memdl::symbolize(address).last().map(|it| it.is_inlined()),
                            Some(false)
                        );
                        run(&library);
                    }
                    3 => {
                        run(&pool.acquire().unwrap());
                        run(&template.instantiate().unwrap());
                    }
                    4 => {
                        if soak.has("set_debug") {
                            library.set_debug(DebugLevel::Symbols).unwrap();
                            library.set_debug(DebugLevel::Full).unwrap();
                        }
                        drop(library);
                        memdl::release_memory();
                    }
                    _ => {
                        // It would outlive the `exec`, and there end the program.
                        start_timer(false);
                        let arguments: [*const c_char; 2] = [c"true".as_ptr(), ptr::null()];
                        libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr());
                    }
                }
                libc::_exit(0)
            }
        }
        drop(no_walker);
        assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
        let start = Instant::now();
        let mut status = 0;
        // SAFETY: our child, a local.
        while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
            if start.elapsed() > Duration::from_secs(limit.into()) {
                eprintln!("a child of fork (kind {kind}) hangs:");
                print_stacks(child as u32);
                // SAFETY: our child.
                unsafe { libc::kill(child, libc::SIGKILL) };
                exit_at_once();
            }
            thread::sleep(Duration::from_micros(500));
        }
        if status != 0 {
            eprintln!("a child of fork (kind {kind}) ended with status {status:#x}");
            exit_at_once();
        }
    });
}

type Role = fn(&Soak, &Progress);

/// What threads beside the workers do.
const ROLES: &[(&str, Role)] =
    &[("fork", forks), ("fork", forks), ("walk", walks), ("open", opens)];

fn until_done(soak: &Soak, me: &Progress, mut turn: impl FnMut()) {
    while !soak.workers_are_done.load(Relaxed) {
        turn();
        me.moves();
        // The workers are to have most of the processor.
        thread::sleep(Duration::from_millis(2));
    }
}

// ---- Signals -------------------------------------------------------------------------------------

static SIGNALS: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        each: extern "C-unwind" fn(*mut c_void, *mut c_void) -> c_int,
        with: *mut c_void,
    ) -> c_int;
}

extern "C-unwind" fn count_frame(_: *mut c_void, count: *mut c_void) -> c_int {
    // SAFETY: the number in `on_signal`.
    unsafe { *count.cast::<u64>() += 1 };
    0
}

extern "C" fn on_signal(_: c_int) {
    let mut count = 0u64;
    // SAFETY: the handler leaves `errno` as it was; the unwinder takes no lock.
    unsafe {
        let errno = *libc::__errno_location();
        _Unwind_Backtrace(count_frame, (&raw mut count).cast());
        *libc::__errno_location() = errno;
    }
    SIGNALS.fetch_add(1, Relaxed);
    FRAMES.fetch_add(count, Relaxed);
}

fn start_signals() {
    // What the unwinder finds out once is not for a handler.
    on_signal(0);
    // SAFETY: a handler of this type, that does what handlers may.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()), 0);
    }
    start_timer(true);
}

/// SIGPROF for every two milliseconds of processor time, or no more.
fn start_timer(on: bool) {
    let time = libc::timeval { tv_sec: 0, tv_usec: if on { 2000 } else { 0 } };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: a whole structure.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, ptr::null_mut()) }, 0);
}

// ---- Watching ------------------------------------------------------------------------------------

/// The threads that must move.
static WATCHED: Mutex<Vec<Arc<Progress>>> = Mutex::new(Vec::new());

struct Progress {
    name: String,
    moves: AtomicU64,
    what: Mutex<&'static str>,
}

impl Progress {
    fn new(name: String) -> Arc<Progress> {
        let progress = Arc::new(Progress { name, moves: AtomicU64::new(0), what: Mutex::new("") });
        WATCHED.lock().unwrap().push(progress.clone());
        progress
    }

    fn moves(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    fn ends(self: Arc<Progress>) {
        WATCHED.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &self));
    }
}

/// Ends the process if a thread does not move for `limit`.
fn watch(limit: Duration) {
    let mut seen: Vec<(Arc<Progress>, u64, Instant)> = Vec::new();
    loop {
        thread::sleep(Duration::from_millis(500));
        let watched = WATCHED.lock().unwrap().clone();
        seen.retain(|(progress, ..)| watched.iter().any(|other| Arc::ptr_eq(other, progress)));
        for progress in watched {
            let moves = progress.moves.load(Relaxed);
            match seen.iter_mut().find(|(other, ..)| Arc::ptr_eq(other, &progress)) {
                None => seen.push((progress, moves, Instant::now())),
                Some((_, before, _)) if *before == moves => {}
                Some((_, before, since)) => (*before, *since) = (moves, Instant::now()),
            }
        }
        let stuck = seen.iter().find(|(.., since)| since.elapsed() > limit);
        if let Some((progress, moves, since)) = stuck {
            start_timer(false);
            let what = progress.what.try_lock().map_or("?", |what| *what);
            let since = since.elapsed();
            eprintln!("{} stands still in {what} for {since:?} after {moves} moves", progress.name);
            print_stacks(process::id());
            exit_at_once();
        }
    }
}

fn print_stacks(process: u32) {
    let gdb = limited(120, "gdb")
        .args(["--batch", "-nx", "-iex", "set debuginfod enabled off"])
        .args(["-ex", "set print frame-arguments none", "-ex", "thread apply all bt 15"])
        .args(["-p", &process.to_string()])
        .stdin(Stdio::null())
        .output();
    match gdb {
        Ok(output) if output.status.success() => {
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                eprintln!("{}", line.chars().take(160).collect::<String>());
            }
        }
        result => {
            eprintln!("no gdb: {result:?}");
            for task in
                fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten()
            {
                let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                eprintln!(
                    "{:?} {} {} {}",
                    task.path(),
                    read("comm"),
                    read("wchan"),
                    read("syscall")
                );
            }
        }
    }
}

/// Without destructors: threads are at work, or hang.
fn exit_at_once() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(3) }
}

// ---- Counting ------------------------------------------------------------------------------------

/// What the process has while nothing is loaded.
#[derive(Clone, Debug)]
struct Counts {
    after_rounds: u64,
    resident_kb: usize,
    heap_bytes: usize,
    mappings: usize,
    /// Anonymous memory that is neither the heap's nor a stack.
    other_kb: usize,
    descriptors: usize,
    debug_entries: usize,
    keys: usize,
    threads: usize,
    libraries: usize,
}

/// Bytes that are allocated in heaps, and in mappings of their own.
fn allocated() -> [usize; 2] {
    // glibc 2.33
    type Mallinfo2 = unsafe extern "C" fn() -> libc::mallinfo2;
    // SAFETY: a C string; plain data.
    unsafe {
        let new = libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr());
        if !new.is_null() {
            let all = std::mem::transmute::<*mut c_void, Mallinfo2>(new)();
            return [all.uordblks, all.hblkhd];
        }
        let all = libc::mallinfo();
        [all.uordblks, all.hblkhd].map(|bytes| bytes as u32 as usize)
    }
}

impl Counts {
    fn now(after_rounds: u64, on_disk: &Path) -> Counts {
        memdl::release_memory();
        // The C library's loader unloads what a thread's objects have kept when it closes the next.
        drop(Opened::new(on_disk, libc::RTLD_NOW));
        // SAFETY: gives memory back to the system.
        unsafe { libc::malloc_trim(0) };
        let entries = |path: &str| fs::read_dir(path).unwrap().count();
        let [in_heaps, mapped] = allocated();
        let mappings = maps();
        let counts = Counts {
            after_rounds,
            resident_kb: resident(),
            heap_bytes: in_heaps + mapped,
            other_kb: (others(&mappings) - mapped) / 1024,
            mappings: mappings.len(),
            descriptors: entries("/proc/self/fd"),
            debug_entries: debug_entries().len(),
            keys: keys(),
            threads: entries("/proc/self/task"),
            libraries: libraries(),
        };
        // SAFETY: no child is expected.
        assert_eq!(unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) }, -1, "a child");
        counts
    }

    /// What has grown since `start` by more than it may.
    fn grown_since(&self, start: &Counts) -> Vec<String> {
        let all = [
            // Pages of the heap that holes are in, of stacks, of the C library's.
            ("memory", self.resident_kb, start.resident_kb + 8 * 1024),
            // The standard library keeps the debug information that it read for backtraces. See `leak` as well.
            ("heap", self.heap_bytes, start.heap_bytes + 4 * 1024 * 1024),
            // Stacks that the C library keeps, and its arenas.
            ("mappings", self.mappings, start.mappings + 24),
            ("other memory", self.other_kb, start.other_kb + 64),
            ("descriptors", self.descriptors, start.descriptors),
            ("debug entries", self.debug_entries, 0),
            ("keys", self.keys, start.keys),
            ("threads", self.threads, start.threads),
            ("libraries", self.libraries, start.libraries),
        ];
        // A sanitizer's own allocator takes more of these now and then.
        let sizes = ["memory", "mappings", "other memory"];
        let counts = |what: &str| !is_sanitized() || !sizes.contains(&what);
        let grown = all.iter().filter(|(what, now, limit)| now > limit && counts(what));
        grown.map(|(what, now, limit)| format!("{what}: {now}, more than {limit}")).collect()
    }
}

/// What leaks grows in every stretch; what is kept for later grows in some.
fn leak(counts: &[Counts]) -> Option<String> {
    let grown = |pair: &[Counts]| pair[1].heap_bytes.saturating_sub(pair[0].heap_bytes);
    let least = counts.windows(2).map(grown).min().unwrap_or(0);
    // What is kept for later may still grow a little in a long stretch: less than a byte in two rounds.
    let rounds = counts.last().map_or(0, |counts| counts.after_rounds) as usize / 4;
    (least > (rounds / 2).max(2048))
        .then(|| format!("heap: at least {least} bytes more in every stretch"))
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8} {:>9} {:>10} {:>8} {:>9} {:>11} {:>13} {:>5} {:>7} {:>9}",
            self.after_rounds,
            self.resident_kb,
            self.heap_bytes,
            self.mappings,
            self.other_kb,
            self.descriptors,
            self.debug_entries,
            self.keys,
            self.threads,
            self.libraries
        )
    }
}

const HEAD: &str = "  rounds    RSS kB     heap B mappings  other kB descriptors debug entries  keys threads libraries";

/// Anonymous memory, in bytes, but for the heap, stacks, and arenas of the heap; with large blocks of
/// the heap, which have mappings of their own.
fn others(mappings: &[MapsLine]) -> usize {
    const ARENA: usize = 64 << 20; // HEAP_MAX_SIZE: arenas are aligned to it
    const STACKS: [usize; 2] = [2 << 20, 8 << 20]; // of Rust's and of C++'s threads
    let is_arena = |at: usize| {
        mappings.iter().any(|it| it.range.start == at / ARENA * ARENA && it.name.is_empty())
    };
    mappings
        .iter()
        .filter(|it| it.name.is_empty() || it.name.starts_with("[anon:"))
        .filter(|it| !is_arena(it.range.start) && !STACKS.contains(&it.range.len()))
        .map(|it| it.range.len())
        .sum()
}

/// The number of `pthread` keys in use: those that cannot be created.
fn keys() -> usize {
    const MOST: usize = 1024; // PTHREAD_KEYS_MAX
    let mut free = Vec::new();
    let mut key = 0;
    // SAFETY: keys without destructors, deleted again.
    unsafe {
        while free.len() < MOST && libc::pthread_key_create(&mut key, None) == 0 {
            free.push(key);
        }
        free.iter().for_each(|key| assert_eq!(libc::pthread_key_delete(*key), 0));
    }
    MOST - free.len()
}

fn libraries() -> usize {
    unsafe extern "C" fn count(_: *mut libc::dl_phdr_info, _: usize, to: *mut c_void) -> c_int {
        // SAFETY: the number below.
        unsafe { *to.cast::<usize>() += 1 };
        0
    }
    let mut number = 0usize;
    // SAFETY: a callback of this type.
    unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut number).cast()) };
    number
}

// ---- The whole -----------------------------------------------------------------------------------

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// A thread that is watched.
fn start<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: String,
    body: impl FnOnce(&Progress) + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, ()> {
    let progress = Progress::new(name.clone());
    let thread = thread::Builder::new().name(name.clone());
    let body = move || {
        // One failure is enough, and nothing would stop the others.
        if catch_unwind(AssertUnwindSafe(|| body(&progress))).is_err() {
            start_timer(false);
            eprintln!("{name} failed in {}", *progress.what.lock().unwrap());
            exit_at_once();
        }
        progress.ends();
    };
    thread.spawn_scoped(scope, body).unwrap()
}

/// A thread-local object that an image has made keeps the image until the thread ends, as `dlopen` does
/// it. So workers are threads that end now and then.
const ROUNDS_OF_A_THREAD: u32 = 100;

impl Soak {
    fn has(&self, what: &str) -> bool {
        !self.without.split(',').any(|other| other == what)
    }

    fn next_round(&self) -> bool {
        self.rounds.fetch_add(1, Relaxed) < self.until_rounds
            && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Some rounds, after which nothing is loaded.
    fn stretch(mut self, rounds: u64, until: Option<Instant>, threads: u64) -> u64 {
        let work: Vec<usize> = (0..WORK.len()).filter(|index| self.has(WORK[*index].0)).collect();
        let weight = |index: &usize| std::iter::repeat_n(*index, WORK[*index].1 as usize);
        let weighted: Vec<usize> = work.iter().flat_map(weight).collect();
        (self.until_rounds, self.until) = (rounds, until);
        let soak = &self;
        thread::scope(|scope| {
            let roles = ROLES.iter().filter(|(name, _)| soak.has(name));
            let roles: Vec<_> = roles
                .map(|(name, role)| start(scope, (*name).to_owned(), |me| role(soak, me)))
                .collect();
            let workers: Vec<_> = (0..threads)
                .map(|number| {
                    let (work, weighted) = (&work, &weighted);
                    let body = move |me: &Progress| {
                        let mut random = Random(soak.seed.wrapping_add(number * 7919) | 1);
                        let mut order = work.iter().copied();
                        let mut some_rounds = || {
                            for _ in 0..ROUNDS_OF_A_THREAD {
                                if !soak.next_round() {
                                    return false;
                                }
                                // Each at least once, then any.
                                let index = order.next().unwrap_or_else(|| *random.of(weighted));
                                *me.what.lock().unwrap() = WORK[index].0;
                                WORK[index].2(soak, &mut random);
                                soak.done[index].fetch_add(1, Relaxed);
                                me.moves();
                            }
                            true
                        };
                        while thread::scope(|scope| scope.spawn(&mut some_rounds).join().unwrap()) {
                        }
                    };
                    start(scope, format!("worker {number}"), body)
                })
                .collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            soak.workers_are_done.store(true, Relaxed);
            // To the end of the threads, not only of what they do: their objects keep images.
            roles.into_iter().for_each(|role| role.join().unwrap());
        });
        if until.is_none() {
            work.iter().for_each(|index| assert!(soak.done[*index].load(Relaxed) > 0));
        }
        soak.done.iter().map(|done| done.load(Relaxed)).sum()
    }
}

fn soak() {
    let rounds = setting("MEMDL_SOAK_ROUNDS");
    let threads = setting("MEMDL_SOAK_THREADS").unwrap_or(4);
    let seed = setting("MEMDL_SOAK_SEED").unwrap_or(1);
    let without = std::env::var("MEMDL_SOAK_WITHOUT").unwrap_or_default();
    let cxx: &[&str] = &["-O1", "-g", "-pthread", "-fno-optimize-sibling-calls"];
    let all = build("g++", "soak/all.cpp", cxx);
    let on_disk = build("g++", "soak/all.cpp", &["-O1", "-pthread", "-fno-optimize-sibling-calls"]);
    let own_unwinder = build("g++", "soak/all.cpp", &[cxx, &["-static-libgcc"]].concat());
    let others = [
        build("gcc", "unwind/plain.c", &["-O1", "-g"]),
        build("gcc", "bench/tiny.c", &["-O2", "-g"]),
        build("g++", "unload/everything.cpp", &["-O1", "-g", "-pthread"]),
    ];
    // The yardstick: what takes some 50 ms on an idle machine.
    let bytes = fs::read(&all).unwrap();
    // In a thread that ends: until then its thread-local objects keep the images.
    let loads = thread::spawn(move || {
        let start = Instant::now();
        for _ in 0..20 {
            // SAFETY: a library of `testlibs/`.
            run(&unsafe { Loader::new().system_libraries(true).load(&bytes) }.unwrap());
        }
        start.elapsed()
    });
    let time_scale = (loads.join().unwrap().as_millis() / 50).clamp(1, 20) as u32;
    let limit = Duration::from_secs(20) * time_scale;
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(limit)).unwrap();
    start_signals();

    let make = || {
        let mut images: Vec<Image> = Vec::new();
        for path in [&all, &own_unwinder] {
            images.push(Image { bytes: fs::read(path).unwrap(), has_all: true });
        }
        for path in &others {
            images.push(Image { bytes: fs::read(path).unwrap(), has_all: false });
        }
        images.retain(|image| {
            // SAFETY: as above.
            let library =
                unsafe { Loader::new().system_libraries(true).load(&image.bytes) }.unwrap();
            // SAFETY: only looked for.
            unsafe { library.get::<*const u8>("run") }.is_ok()
        });
        let mut random = Random(seed | 1);
        let mut templates = Vec::new();
        for image in &images {
            for debug in [DebugLevel::Off, DebugLevel::Full] {
                let loader = Loader::new().system_libraries(true).debug(debug);
                // SAFETY: as above.
                templates.push(unsafe { loader.prepare(&image.bytes) }.unwrap());
            }
        }
        let pools = templates.iter().map(|template| template.pool(2)).collect();
        let mut soak = Soak {
            seed,
            without: without.clone(),
            images,
            slots: Vec::new(),
            templates,
            pools,
            on_disk: on_disk.clone(),
            done: WORK.iter().map(|_| AtomicU64::new(0)).collect(),
            rounds: AtomicU64::new(0),
            until_rounds: 0,
            until: None,
            workers_are_done: AtomicBool::new(false),
            time_scale,
        };
        for _ in 0..3 {
            let library = Arc::new(own(&soak, &mut random));
            soak.slots.push(RwLock::new(library));
        }
        soak
    };

    // First what is done once in a process, and what the C library and the standard library keep.
    let in_time =
        |seconds: f64| rounds.is_none().then(|| Instant::now() + Duration::from_secs_f64(seconds));
    let some = (rounds.unwrap_or(0) / 40).max(30 * threads);
    make().stretch(some, None, threads);
    make().stretch(rounds.map_or(u64::MAX, |rounds| rounds / 10), in_time(2.0), threads);
    println!("{HEAD}");
    let mut counts = vec![Counts::now(0, &on_disk)];
    println!("{}   start", counts[0]);
    let began = Instant::now();
    let mut all_rounds = 0;
    let stretches = ["", "middle", "", "end"];
    for name in stretches {
        let (now_rounds, until) =
            rounds.map_or((u64::MAX, in_time(1.5)), |rounds| (rounds / 4, None));
        all_rounds += make().stretch(now_rounds, until, threads);
        let now = Counts::now(all_rounds, &on_disk);
        println!("{now}   {name}");
        counts.push(now);
    }
    start_timer(false);
    println!(
        "{:?}; {} signals, {} frames in each; limit {limit:?}",
        began.elapsed(),
        SIGNALS.load(Relaxed),
        FRAMES.load(Relaxed) / SIGNALS.load(Relaxed).max(1)
    );
    let mut grown = counts[counts.len() - 1].grown_since(&counts[0]);
    grown.extend(leak(&counts));
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
