//! The program that is debugged: this test binary once more, told by an environment variable what
//! to do. So it has debug information, and memdl linked into it as any program would.

use std::collections::HashMap;
use std::env;
use std::ffi::{c_int, c_void};
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use memdl::{Debug, Library, Pool, Pooled};

use crate::common::Opened;

/// Names the steps, each a line of words.
pub const STEPS: &str = "MEMDL_TEST_HOST";
/// Names the loader.
pub const LOADER: &str = "MEMDL_TEST_LOADER";
/// Steps are read from this test; every run of it ends the process.
pub const TEST: &str = "the_program_that_is_debugged";

type Function = unsafe extern "C" fn(c_int) -> c_int;

/// Does what the environment says, and ends the process; returns if it says nothing.
pub fn main() {
    let Ok(steps) = env::var(STEPS) else {
        return;
    };
    // SAFETY: plain system calls. The first ends this process should nobody else; the second
    // lets a debugger attach that is not our parent, where the kernel is strict about that.
    unsafe {
        libc::alarm(180);
        libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY);
    }
    let mut host = Host::default();
    for step in steps.lines() {
        host.step(step);
    }
    say("done");
    process::exit(0);
}

/// Prints a line that the tests can tell from what the debugger and libtest print.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    // After a newline: libtest does not end its lines.
    writeln!(out, "\n[host] {what}").unwrap();
    out.flush().unwrap();
}

/// What loads the libraries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    Memdl,
    /// The reference: the C library, from their files.
    Dlopen,
}

impl Loader {
    /// For [`LOADER`].
    pub fn name(self) -> &'static str {
        match self {
            Loader::Memdl => "memdl",
            Loader::Dlopen => "dlopen",
        }
    }
}

/// A library, by whichever loader: all that the host does with one is the same for both.
enum Loaded {
    FromMemory(Library),
    Pooled(Pooled),
    FromFile(Opened),
}

impl Loaded {
    fn function(&self, symbol: &str) -> Function {
        match self {
            // SAFETY: the tests name functions of this type only.
            Loaded::FromMemory(library) => unsafe { *library.get::<Function>(symbol).unwrap() },
            // SAFETY: as above.
            Loaded::Pooled(library) => unsafe { *library.get::<Function>(symbol).unwrap() },
            Loaded::FromFile(library) => {
                let address = library.symbol(symbol, None);
                assert!(!address.is_null(), "no {symbol}");
                // SAFETY: as above.
                unsafe { std::mem::transmute::<*mut c_void, Function>(address) }
            }
        }
    }

    /// Nowhere for a library that only the C library knows, and for one that goes back to its pool.
    fn unload(self) -> Range<usize> {
        match self {
            Loaded::FromMemory(library) => {
                let range = library.address_range();
                library.close().unwrap();
                range
            }
            Loaded::Pooled(library) => {
                library.release();
                0..0
            }
            Loaded::FromFile(library) => {
                drop(library);
                0..0
            }
        }
    }
}

#[derive(Default)]
struct Host {
    libraries: HashMap<String, Loaded>,
    /// By path.
    pools: HashMap<String, Pool>,
    /// Where unloaded libraries were.
    left: HashMap<String, Range<usize>>,
    /// What was put there since.
    buried: Vec<Range<usize>>,
}

impl Host {
    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words.as_slice() {
            ["load", name, path] => self.load(name, path, Debug::default()),
            ["load", name, path, "off"] => self.load(name, path, Debug::Off),
            ["load", name, path, "symbols"] => self.load(name, path, Debug::Symbols),
            ["load", name, path, "full"] => self.load(name, path, Debug::Full),
            ["acquire", name, path] => self.acquire(name, path),
            ["erase", path] => fs::remove_file(path).unwrap(),
            ["call", name, symbol, number] => self.call(name, symbol, number),
            ["repeat", name, symbol, number] => loop {
                self.call(name, symbol, number);
                thread::sleep(Duration::from_millis(20));
            },
            ["unload", name] => self.unload(name),
            ["bury", name] => self.bury(name),
            ["check"] => self.check(),
            ["pause"] => host_pauses(),
            ["await-debugger"] => await_debugger(),
            _ => panic!("no such step: {step}"),
        }
    }

    fn load(&mut self, name: &str, path: &str, debug: Debug) {
        let library = if env::var(LOADER).is_ok_and(|loader| loader == Loader::Dlopen.name()) {
            Loaded::FromFile(Opened::new(Path::new(path), libc::RTLD_NOW | libc::RTLD_LOCAL))
        } else {
            let bytes = fs::read(path).unwrap();
            let loader = memdl::Loader::new().name(name).system_libraries(true).debug(debug);
            // SAFETY: these are the test's own libraries.
            Loaded::FromMemory(unsafe { loader.load(&bytes) }.unwrap())
        };
        say(&format!("loaded {name}"));
        self.libraries.insert(name.to_owned(), library);
    }

    fn acquire(&mut self, name: &str, path: &str) {
        let pool = self.pools.entry(path.to_owned()).or_insert_with(|| {
            let loader = memdl::Loader::new().name("pooled").system_libraries(true);
            loader.prepare(&fs::read(path).unwrap()).unwrap().pool(1)
        });
        // SAFETY: these are the test's own libraries, which run only when they are called.
        let library = unsafe { pool.acquire() }.unwrap();
        say(&format!("acquired {name}"));
        self.libraries.insert(name.to_owned(), Loaded::Pooled(library));
    }

    fn call(&self, name: &str, symbol: &str, number: &str) {
        let number = number.parse().unwrap();
        let function = self.libraries[name].function(symbol);
        // SAFETY: the tests name functions of this type only.
        let result = unsafe { host_calls(function, number) };
        say(&format!("{symbol}({number}) = {result}"));
    }

    fn unload(&mut self, name: &str) {
        let library = self.libraries.remove(name).unwrap();
        self.left.insert(name.to_owned(), library.unload());
        say(&format!("unloaded {name}"));
    }

    /// Puts other bytes where a library was; nothing else can go there then.
    fn bury(&mut self, name: &str) {
        let range = self.left.remove(name).unwrap();
        // SAFETY: fails rather than replace what is there.
        let at = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(range.start),
                range.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        assert_eq!(at.addr(), range.start, "the library is not gone");
        for (i, byte) in contents(&range).iter_mut().enumerate() {
            *byte = pattern(i);
        }
        self.buried.push(range);
    }

    fn check(&self) {
        assert!(!self.buried.is_empty());
        for range in &self.buried {
            let bytes = contents(range).iter().enumerate();
            let differ = bytes.filter(|&(i, &byte)| byte != pattern(i)).count();
            say(&format!("{differ} bytes differ"));
        }
    }
}

/// Never the byte of a breakpoint, nor one that is often in code.
fn pattern(i: usize) -> u8 {
    0x11 + (i % 7) as u8
}

/// What `bury` has mapped.
fn contents(range: &Range<usize>) -> &'static mut [u8] {
    // SAFETY: mapped by `bury`, never unmapped; only one caller at a time looks at it.
    unsafe {
        std::slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(range.start), range.len())
    }
}

/// The host's own frame in every backtrace.
///
/// # Safety
/// `function` can be called with any number.
#[inline(never)]
unsafe fn host_calls(function: Function, number: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let result = unsafe { function(number) }; // MARK host
    std::hint::black_box(result)
}

/// Where a test can stop the host while nothing is going on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn host_pauses() {
    say("pauses");
}

/// Set by a debugger: see `await_debugger`.
#[unsafe(no_mangle)]
static HOST_GOES: AtomicBool = AtomicBool::new(false);

/// Waits for a debugger to attach, and to say that it is ready.
fn await_debugger() {
    say("awaits a debugger");
    while !HOST_GOES.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(10));
    }
}
