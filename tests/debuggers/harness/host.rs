//! The program that is debugged: the program of the tests once more, told by an environment variable
//! what to do. So it has debug information, and memdl linked into it as any program would.

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

use memdl::{Binding, DebugLevel, Library, Pool, Pooled, Template};

use super::uncured;
use crate::common::{AnyWay, MapsLine, Opened, maps};

/// Names the steps, each a line of words.
pub const STEPS: &str = "MEMDL_TEST_HOST";
/// Names the loader.
pub const LOADER: &str = "MEMDL_TEST_LOADER";
/// After how many seconds the host ends itself.
pub const SECONDS: &str = "MEMDL_TEST_SECONDS";

/// Is set where `full` is to be the form that a debugger sees which comes after the load.
pub const WRAPPED: &str = "MEMDL_TEST_WRAPPED";

type Function = unsafe extern "C" fn(c_int) -> c_int;

/// Whether this process is to be the host.
pub fn is_asked_for() -> bool {
    env::var_os(STEPS).is_some()
}

/// Does what the environment says, and ends the process.
pub fn main() {
    let steps = env::var(STEPS).unwrap();
    let seconds = env::var(SECONDS).unwrap().parse().unwrap();
    // SAFETY: plain system calls. The first ends this process should nobody else; the second
    // lets a debugger attach that is not our parent, where the kernel is strict about that.
    unsafe {
        libc::alarm(seconds);
        libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY);
    }
    if env::var_os(WRAPPED).is_some() {
        memdl::internals::wrapped_only();
    }
    let mut host = Host::default();
    for step in steps.lines() {
        host.step(step);
    }
    say("done");
    process::exit(0);
}

/// Prints a line that the tests can tell from what the debugger prints.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    // After a newline: debuggers do not end all their lines.
    writeln!(out, "\n[host] {what}").unwrap();
    out.flush().unwrap();
}

/// What loads the libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Memory(Library),
    Pool(Pooled),
    File(Opened),
}

impl Loaded {
    fn function(&self, symbol: &str) -> Function {
        match self {
            // SAFETY: the tests name functions of this type only.
            Loaded::Memory(library) => unsafe { *library.get::<Function>(symbol).unwrap() },
            // SAFETY: as above.
            Loaded::Pool(library) => unsafe { *library.get::<Function>(symbol).unwrap() },
            Loaded::File(library) => {
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
            Loaded::Memory(library) => {
                let range = library.address_range();
                library.close().unwrap();
                range
            }
            Loaded::Pool(library) => {
                library.release();
                0..0
            }
            Loaded::File(library) => {
                drop(library);
                0..0
            }
        }
    }
}

#[derive(Default)]
struct Host {
    libraries: HashMap<String, Loaded>,
    templates: HashMap<String, Template>,
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
            ["load", name, path] => self.load(name, path, DebugLevel::default(), Binding::Now),
            ["load", name, path, "lazily"] => {
                self.load(name, path, DebugLevel::default(), Binding::Lazy);
            }
            ["load", name, path, "with", info] => self.load_with(name, path, info),
            ["load", name, path, how] => self.load(name, path, choice(how), Binding::Now),
            ["prepare", name, path] => {
                let template = template(&memdl::Loader::new().name(*name), path);
                self.templates.insert((*name).to_owned(), template);
            }
            ["instantiate", template, name] => self.instantiate(template, name),
            ["instantiate", name, count, path, how] => {
                self.instantiate_many(name, count.parse().unwrap(), path, choice(how));
            }
            ["call-all", symbol, number] => self.call_all(symbol, number),
            ["unload-all"] => self.libraries.clear(),
            ["set-debug", name, how] => self.set_debug(name, choice(how)),
            ["acquire", name, path] => self.acquire(name, path),
            ["erase", path] => fs::remove_file(path).unwrap(),
            ["call", name, symbol, number] => self.call(name, symbol, number),
            ["repeat", name, symbol, number] => loop {
                self.call(name, symbol, number);
                thread::sleep(Duration::from_millis(20));
            },
            ["unload", name] => self.unload(name),
            ["unload", name, "uncured"] => self.unload_uncured(name),
            ["bury", name] => self.bury(name),
            ["bury", name, "if-free"] => self.bury_if_free(name),
            ["check"] => self.check(),
            ["forbid-executable"] => forbid_executable(),
            ["pause"] => host_pauses(),
            ["await-debugger"] => await_debugger(),
            _ => panic!("no such step: {step}"),
        }
    }

    fn load(&mut self, name: &str, path: &str, debug: DebugLevel, binding: Binding) {
        let library = if env::var(LOADER).is_ok_and(|loader| loader == Loader::Dlopen.name()) {
            let when = if binding == Binding::Lazy { libc::RTLD_LAZY } else { libc::RTLD_NOW };
            Loaded::File(Opened::new(Path::new(path), when | libc::RTLD_LOCAL))
        } else {
            let bytes = fs::read(path).unwrap();
            let loader = memdl::Loader::new().name(name).system_libraries(true).debug(debug);
            let loader = loader.binding(binding);
            // SAFETY: these are the test's own libraries.
            Loaded::Memory(unsafe { loader.load_any_way(&bytes) }.unwrap())
        };
        say(&format!("loaded {name}"));
        self.libraries.insert(name.to_owned(), library);
    }

    /// Many of one template: `a0`, `a1`, ...
    fn instantiate_many(&mut self, name: &str, count: usize, path: &str, debug: DebugLevel) {
        let loader = memdl::Loader::new().name(name).system_libraries(true).debug(debug);
        let template = template(&loader, path);
        for number in 0..count {
            // SAFETY: these are the test's own libraries.
            let library = unsafe { template.instantiate() }.unwrap();
            self.libraries.insert(format!("{name}{number}"), Loaded::Memory(library));
        }
    }

    /// With what was split off it.
    fn load_with(&mut self, name: &str, path: &str, info: &str) {
        let loader = memdl::Loader::new().name(name).system_libraries(true);
        let loader = loader.debug_info(fs::read(info).unwrap());
        // SAFETY: these are the test's own libraries.
        let library = unsafe { loader.load_any_way(&fs::read(path).unwrap()) }.unwrap();
        say(&format!("loaded {name}"));
        self.libraries.insert(name.to_owned(), Loaded::Memory(library));
    }

    /// In every library, in no order.
    fn call_all(&self, symbol: &str, number: &str) {
        self.libraries.keys().for_each(|name| self.call(name, symbol, number));
    }

    fn instantiate(&mut self, template: &str, name: &str) {
        // SAFETY: these are the test's own libraries.
        let library = unsafe { self.templates[template].instantiate() }.unwrap();
        say(&format!("loaded {name}"));
        self.libraries.insert(name.to_owned(), Loaded::Memory(library));
    }

    fn set_debug(&self, name: &str, debug: DebugLevel) {
        let Loaded::Memory(library) = &self.libraries[name] else {
            panic!("{name} has a file");
        };
        match library.set_debug(debug) {
            Ok(()) => say(&format!("{name} is shown as {:?}", library.debug())),
            Err(error) => say(&format!("{name}: {error}")),
        }
    }

    fn acquire(&mut self, name: &str, path: &str) {
        let pool = self.pools.entry(path.to_owned()).or_insert_with(|| {
            let loader = memdl::Loader::new().name("pooled").system_libraries(true);
            template(&loader, path).pool(1)
        });
        // SAFETY: these are the test's own libraries, which run only when they are called.
        let library = unsafe { pool.acquire() }.unwrap();
        say(&format!("acquired {name}"));
        self.libraries.insert(name.to_owned(), Loaded::Pool(library));
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

    fn unload_uncured(&mut self, name: &str) {
        let Loaded::Memory(library) = self.libraries.remove(name).unwrap() else {
            panic!("{name} is not memdl's");
        };
        self.left.insert(name.to_owned(), uncured::unload(library));
        say(&format!("unloaded {name}"));
    }

    /// Puts other bytes where a library was; nothing else can go there then. Under a debugger memdl
    /// keeps the addresses, without memory; they are used all the same, as if it did not.
    fn bury(&mut self, name: &str) {
        let range = self.left.remove(name).unwrap();
        let is_there = |map: &MapsLine| map.range.start < range.end && range.start < map.range.end;
        let left: Vec<_> = maps().into_iter().filter(is_there).collect();
        assert!(left.iter().all(|map| map.access == "---p"), "the library is not gone: {left:?}");
        // SAFETY: there is nothing that anybody could use.
        let at = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(range.start),
                range.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        assert_eq!(at.addr(), range.start);
        for (i, byte) in contents(&range).iter_mut().enumerate() {
            *byte = pattern(i);
        }
        self.buried.push(range);
    }

    /// As [`Host::bury`], unless memdl keeps the place.
    fn bury_if_free(&mut self, name: &str) {
        let mapped = maps();
        let range = &self.left[name];
        if mapped.iter().any(|map| map.range.start < range.end && range.start < map.range.end) {
            say(&format!("the place of {name} is kept"));
        } else {
            self.bury(name);
        }
    }

    fn check(&self) {
        for range in &self.buried {
            let bytes = contents(range).iter().enumerate();
            let differ: Vec<_> = bytes.filter(|&(i, &byte)| byte != pattern(i)).collect();
            say(&format!("{} bytes differ", differ.len()));
            for (i, byte) in differ {
                say(&format!("at offset {i:#x} is {byte:#x}"));
            }
        }
    }
}

fn template(loader: &memdl::Loader, path: &str) -> Template {
    // SAFETY: these are the test's own libraries.
    unsafe { loader.prepare(&fs::read(path).unwrap()) }.unwrap()
}

fn choice(how: &str) -> DebugLevel {
    match how {
        "off" => DebugLevel::Off,
        "symbols" => DebugLevel::Symbols,
        "full" => DebugLevel::Full,
        "portable" => DebugLevel::Portable,
        _ => panic!("no such choice: {how}"),
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

/// From now on, memory can be executable from the start only (Linux 6.3).
fn forbid_executable() {
    const PR_SET_MDWE: c_int = 65;
    // SAFETY: a flag of this process.
    assert_eq!(unsafe { libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) }, 0);
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
