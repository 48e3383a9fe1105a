//! Systems that refuse: each call by which memdl asks the kernel for memory, or for its protection,
//! fails once, and from there on. Whatever a load, an unload or a change of what debuggers see makes of
//! it, the process is as it was, and the next load works.
//!
//! The calls are interposed in this executable, for the thread that wants it: the kernel is asked by
//! `syscall(2)`. Each round is one fault, so that the first one that leaves something behind is named.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_ulong, c_void};
use std::fs;
use std::sync::Arc;

use crate::common::{
    MapsLine, build, call_run, debug_entries, is_sanitized, isolated, maps_without_heaps,
};
use memdl::{DebugLevel, Error, ImageBuffer, Library, Loader};

/// The faults of one thread.
#[derive(Clone, Copy)]
struct Plan {
    /// Calls that count.
    which: Which,
    /// The first that fails, counted from 1.
    first: usize,
    /// So do all that follow.
    and_all_after: bool,
    errno: c_int,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    All,
    /// Those that only advise the kernel, or name memory for whoever looks.
    Advice,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    /// How many calls that count were made under the plan.
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// No memory can become executable, whatever the plan says.
    static MAY_NOT_EXECUTE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a policy refuses this call; `errno` is set then.
fn is_denied(name: &'static str, arguments: &[usize]) -> bool {
    let denied =
        MAY_NOT_EXECUTE.get() && name == "mprotect" && arguments[2] as c_int & libc::PROT_EXEC != 0;
    if denied {
        // SAFETY: this thread's `errno`.
        unsafe { *libc::__errno_location() = libc::EACCES };
    }
    denied
}

/// Whether this call fails; `errno` is set then.
fn fails(name: &'static str) -> bool {
    let Some(plan) = PLAN.get() else { return false };
    let counts = match plan.which {
        Which::All => true,
        Which::Advice => matches!(name, "madvise" | "prctl"),
    };
    if !counts {
        return false;
    }
    let count = CALLS.get() + 1;
    CALLS.set(count);
    let fails = count == plan.first || plan.and_all_after && count > plan.first;
    if fails {
        // Other errors of `mprotect` mean a policy, which is remembered.
        let errno = if name == "mprotect" { libc::ENOMEM } else { plan.errno };
        // SAFETY: this thread's `errno`.
        unsafe { *libc::__errno_location() = errno };
    }
    fails
}

/// Under a plan until it is dropped, also by a panic.
struct Armed;

impl Armed {
    fn new(plan: Plan) -> Armed {
        CALLS.set(0);
        PLAN.set(Some(plan));
        Armed
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        PLAN.set(None);
    }
}

// In C `mremap` and `prctl` take what they are given from wherever arguments are, as these do.
macro_rules! interposed {
    ($($name:ident($number:ident) -> $result:ty, $failed:expr; $($argument:ident: $type:ty),*;)*) => {
        $(
            /// The C library's, unless it is to fail.
            ///
            /// # Safety
            /// As that.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                let name = stringify!($name);
                if is_denied(name, &[$($argument as usize),*]) || fails(name) {
                    return $failed;
                }
                // SAFETY: the caller's promise; the kernel's arguments are the C library's.
                unsafe { libc::syscall(libc::$number, $($argument),*) as $result }
            }
        )*
    };
}

interposed! {
    mmap(SYS_mmap) -> *mut c_void, libc::MAP_FAILED;
        start: *mut c_void, len: usize, access: c_int, flags: c_int, file: c_int, offset: i64;
    munmap(SYS_munmap) -> c_int, -1; start: *mut c_void, len: usize;
    mprotect(SYS_mprotect) -> c_int, -1; start: *mut c_void, len: usize, access: c_int;
    mremap(SYS_mremap) -> *mut c_void, libc::MAP_FAILED;
        start: *mut c_void, len: usize, new_len: usize, flags: c_int, place: *mut c_void;
    madvise(SYS_madvise) -> c_int, -1; start: *mut c_void, len: usize, advice: c_int;
    prctl(SYS_prctl) -> c_int, -1;
        option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong;
    pwrite64(SYS_pwrite64) -> isize, -1;
        file: c_int, bytes: *const c_void, len: usize, offset: i64;
    process_vm_readv(SYS_process_vm_readv) -> isize, -1;
        id: libc::pid_t, local: *const libc::iovec, count: c_ulong, remote: *const libc::iovec,
        remote_count: c_ulong, flags: c_ulong;
    process_vm_writev(SYS_process_vm_writev) -> isize, -1;
        id: libc::pid_t, local: *const libc::iovec, count: c_ulong, remote: *const libc::iovec,
        remote_count: c_ulong, flags: c_ulong;
}

/// What a load starts with.
struct Image {
    name: &'static str,
    bytes: Vec<u8>,
    /// What it needs.
    dependency: Option<Arc<[u8]>>,
    /// Its instances share pages.
    shares: bool,
}

impl Image {
    fn new(name: &'static str, source: &str, flags: &[&str]) -> Image {
        let bytes = fs::read(build("gcc", source, flags)).unwrap();
        let shares = flags.iter().any(|flag| flag.starts_with("-DLARGE"));
        Image { name, bytes, dependency: None, shares }
    }

    fn loader(&self, debug: DebugLevel) -> Loader {
        let loader = Loader::new().debug(debug).system_libraries(true);
        match &self.dependency {
            Some(bytes) => loader.provide("libdependency.so", bytes.clone()),
            None => loader,
        }
    }

    fn load(&self, debug: DebugLevel) -> Result<Library, Error> {
        // SAFETY: a library of `testlibs/`.
        unsafe { self.loader(debug).load(&self.bytes) }
    }

    fn buffer(&self) -> Result<ImageBuffer, Error> {
        let mut buffer = ImageBuffer::new(self.bytes.len())?;
        buffer.copy_from_slice(&self.bytes);
        Ok(buffer)
    }

    fn template(&self) -> Result<memdl::Template, Error> {
        // SAFETY: as above.
        unsafe { self.loader(DebugLevel::Off).prepare(&self.bytes) }
    }
}

/// What is done under faults, with what comes of it. Whatever is made before is made without.
type Operation = fn(&Image, Plan) -> Result<Option<Library>, Error>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("load", |image, plan| {
        let _armed = Armed::new(plan);
        image.load(DebugLevel::Off).map(Some)
    }),
    ("load with debug information", |image, plan| {
        let _armed = Armed::new(plan);
        image.load(DebugLevel::Full).map(Some)
    }),
    ("load into memory of another", |image, plan| {
        // From the third on, images with the same bytes ask for nothing.
        memdl::release_memory();
        let library = image.load(DebugLevel::Off).unwrap();
        spoil(&library);
        drop(library);
        let _armed = Armed::new(plan);
        image.load(DebugLevel::Off).map(Some)
    }),
    ("load_buffer", |image, plan| {
        let _armed = Armed::new(plan);
        // SAFETY: a library of `testlibs/`.
        unsafe { image.loader(DebugLevel::Off).load_buffer(image.buffer()?).map(Some) }
    }),
    ("ImageBuffer::grow", |image, plan| {
        let mut buffer = ImageBuffer::new(1).unwrap();
        let grown = {
            let _armed = Armed::new(plan);
            buffer.grow(1 << 20)
        };
        buffer.grow(image.bytes.len()).unwrap();
        buffer[..image.bytes.len()].copy_from_slice(&image.bytes);
        // SAFETY: as above.
        let library = unsafe { image.loader(DebugLevel::Off).load_buffer(buffer) }.unwrap();
        grown.map(|()| Some(library))
    }),
    ("prepare and instantiate", |image, plan| {
        let _armed = Armed::new(plan);
        // SAFETY: as above.
        unsafe { image.template()?.instantiate().map(Some) }
    }),
    ("instantiate", |image, plan| {
        let template = image.template().unwrap();
        let _armed = Armed::new(plan);
        // SAFETY: as above.
        unsafe { template.instantiate().map(Some) }
    }),
    ("instantiate after a fault", |image, plan| {
        let template = image.template().unwrap();
        let result = {
            let _armed = Armed::new(plan);
            // SAFETY: as above.
            unsafe { template.instantiate() }
        };
        // Whatever the fault has left for the next.
        drop(result?);
        // SAFETY: as above.
        unsafe { template.instantiate().map(Some) }
    }),
    ("instantiate where another was", |image, plan| {
        let template = image.template().unwrap();
        // SAFETY: as above.
        let library = unsafe { template.instantiate() }.unwrap();
        spoil(&library);
        drop(library);
        let _armed = Armed::new(plan);
        // SAFETY: as above.
        unsafe { template.instantiate().map(Some) }
    }),
    ("load where another was", |image, plan| {
        memdl::release_memory();
        for _ in 0..2 {
            let library = image.load(DebugLevel::Off).unwrap();
            spoil(&library);
        }
        let _armed = Armed::new(plan);
        image.load(DebugLevel::Off).map(Some)
    }),
    ("unload", |image, plan| {
        memdl::release_memory();
        let library = image.load(DebugLevel::Full).unwrap();
        let _armed = Armed::new(plan);
        drop(library);
        Ok(None)
    }),
    ("unload an instance", |image, plan| {
        let template = image.template().unwrap();
        // SAFETY: as above.
        let library = unsafe { template.instantiate() }.unwrap();
        spoil(&library);
        {
            let _armed = Armed::new(plan);
            drop(library);
        }
        // SAFETY: as above.
        unsafe { template.instantiate().map(Some) }
    }),
    ("unload what was received", |image, plan| {
        // SAFETY: as above.
        let buffer = image.buffer().unwrap();
        // SAFETY: as above.
        let library = unsafe { image.loader(DebugLevel::Off).load_buffer(buffer) }.unwrap();
        let _armed = Armed::new(plan);
        drop(library);
        Ok(None)
    }),
    ("a second instance", |image, plan| {
        let template = image.template().unwrap();
        // SAFETY: as above.
        let _first = unsafe { template.instantiate() }.unwrap();
        let _armed = Armed::new(plan);
        // It makes what both and all later ones share.
        // SAFETY: as above.
        unsafe { template.instantiate().map(Some) }
    }),
    ("set_debug", |image, plan| {
        let template = image.template().unwrap();
        // The first shares nothing.
        // SAFETY: as above.
        let _first = unsafe { template.instantiate() }.unwrap();
        // SAFETY: as above.
        let library = unsafe { template.instantiate() }.unwrap();
        let _armed = Armed::new(plan);
        let told = library.set_debug(DebugLevel::Symbols);
        // Refused, it is as it was and runs on.
        PLAN.set(None);
        assert_eq!(call_run(&library), 42);
        told.map(|()| Some(library))
    }),
    ("pool", |image, plan| {
        let pool = image.template().unwrap().pool(1);
        let _armed = Armed::new(plan);
        // SAFETY: as above; nothing of it runs when it is released.
        unsafe {
            let first = pool.acquire()?;
            spoil(&first);
            first.release();
            pool.acquire().map(|pooled| Some(pooled.into_library()))
        }
    }),
];

/// Changes all that the image can write.
fn spoil(library: &Library) {
    // SAFETY: the convention of `faults/image.c`; not every image has it.
    unsafe {
        if let Ok(spoil) = library.get::<unsafe extern "C" fn()>("spoil") {
            spoil();
        }
    }
}

/// What must be as before, once kept memory is given back.
#[derive(PartialEq, Eq, Debug)]
struct State {
    maps: Vec<MapsLine>,
    debug_entries: usize,
    descriptors: usize,
}

impl State {
    fn now() -> State {
        memdl::release_memory();
        let maps = if is_sanitized() { Vec::new() } else { maps_without_heaps() };
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
        State { maps, debug_entries: debug_entries().len(), descriptors }
    }
}

/// Every fault of every operation.
fn sweep(image: &Image) {
    // What the allocator has shall be in its heap, which is not looked at.
    // SAFETY: sets a parameter of the allocator's.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30) };
    let never = Plan { which: Which::All, first: usize::MAX, and_all_after: false, errno: 0 };
    // The environment's wishes, the first use of everything.
    for (what, operation) in OPERATIONS.iter().chain(OPERATIONS) {
        operation(image, never).unwrap_or_else(|error| panic!("{}: {what}: {error}", image.name));
    }
    let before = State::now();
    let mut faults = 0;
    for (name, operation) in OPERATIONS {
        let what = name;
        let mut calls = 0;
        for first in 1.. {
            let mut is_reached = false;
            for and_all_after in [false, true] {
                let errno = [libc::ENOMEM, libc::EPERM, libc::EACCES][first % 3];
                let plan = Plan { which: Which::All, first, and_all_after, errno };
                let what =
                    format!("{}: {what}: {first} and all after: {and_all_after}", image.name);
                is_reached |= fault(image, *operation, plan, &before, &what).1;
                faults += 1;
            }
            calls = first;
            if !is_reached {
                break;
            }
        }
        // Those that only advise change nothing but time.
        let plan = Plan { which: Which::Advice, first: 1, and_all_after: true, errno: libc::EPERM };
        let what = format!("{}: {what}: without advice", image.name);
        let (result, _) = fault(image, *operation, plan, &before, &what);
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
        // Changes of memory: each operation has some. An image that shares no pages needs none to be seen.
        let needs_none = match *name {
            "set_debug" => !image.shares,
            // An instance that waits for the next stays as it is.
            "unload an instance" | "instantiate where another was" | "load where another was" => {
                true
            }
            _ => false,
        };
        assert!(needs_none || calls > 1, "{what}: no call was counted");
    }
    println!("{}: {faults} faults", image.name);
}

/// One fault; what came of it, and whether it was met.
fn fault(
    image: &Image,
    operation: Operation,
    plan: Plan,
    before: &State,
    what: &str,
) -> (Result<(), Error>, bool) {
    CALLS.set(0);
    let result = operation(image, plan);
    let is_reached = CALLS.get() >= plan.first;
    let result = result.map(|library| {
        if let Some(library) = library {
            assert_eq!(call_run(&library), 42, "{what}");
            spoil(&library);
        }
    });
    let after = State::now();
    assert_eq!(after.debug_entries, before.debug_entries, "{what}: {result:?}");
    assert_eq!(after.descriptors, before.descriptors, "{what}: {result:?}");
    let gone: Vec<_> = before.maps.iter().filter(|line| !after.maps.contains(line)).collect();
    let new: Vec<_> = after.maps.iter().filter(|line| !before.maps.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "{what}: {result:?}: {gone:#x?} became {new:#x?}");
    let library =
        image.load(DebugLevel::Full).unwrap_or_else(|error| panic!("{what}: then {error}"));
    assert_eq!(call_run(&library), 42, "{what}");
    (result, is_reached)
}

/// [`sweep`], in a process in which memory cannot become executable.
fn sweep_denied(image: &Image) {
    MAY_NOT_EXECUTE.set(true);
    sweep(image);
}

#[test]
fn a_small_image_survives_every_fault() {
    isolated(|| {
        sweep(&Image::new("small", "faults/image.c", &["-g", "-Wl,-z,now"]));
    });
}

#[test]
fn an_image_with_shared_text_survives_every_fault() {
    isolated(|| {
        let flags = ["-g", "-Wl,-z,now", "-DLARGE=(1<<17)", "-DIFUNC", "-DINITIAL_EXEC"];
        sweep(&Image::new("shared text", "faults/image.c", &flags));
    });
}

#[test]
fn an_image_in_large_pages_survives_every_fault() {
    isolated(|| {
        let flags = ["-Wl,-z,now", "-DLARGE=(3<<19)"];
        sweep(&Image::new("large pages", "faults/image.c", &flags));
    });
}

#[test]
fn a_group_survives_every_fault() {
    isolated(|| {
        let flags = ["-Wl,-soname,libdependency.so", "-Dof_image=of_dependency", "-DIFUNC"];
        let dependency = build("gcc", "faults/image.c", &flags);
        let link = dependency.to_str().unwrap();
        let flags = ["-g", "-DNEEDS", "-DLARGE=(1<<17)", "-DIFUNC", "-DINITIAL_EXEC", link];
        let mut group = Image::new("group", "faults/image.c", &flags);
        group.dependency = Some(fs::read(&dependency).unwrap().into());
        sweep(&group);
    });
}

#[test]
fn an_image_with_text_relocations_survives_every_fault() {
    isolated(|| {
        let flags = ["-Wl,-z,notext"];
        sweep(&Image::new("text relocations", "loading/text_relocation.S", &flags));
    });
}

#[test]
fn a_small_image_that_may_not_become_executable_survives_every_fault() {
    isolated(|| {
        sweep_denied(&Image::new("small", "faults/image.c", &["-g", "-Wl,-z,now"]));
    });
}

#[test]
fn shared_text_that_may_not_become_executable_survives_every_fault() {
    isolated(|| {
        let flags = ["-g", "-Wl,-z,now", "-DLARGE=(1<<17)", "-DIFUNC", "-DINITIAL_EXEC"];
        sweep_denied(&Image::new("shared text", "faults/image.c", &flags));
    });
}

#[test]
fn large_pages_that_may_not_become_executable_survive_every_fault() {
    isolated(|| {
        let flags = ["-Wl,-z,now,-z,noseparate-code", "-DLARGE=(3<<19)"];
        sweep_denied(&Image::new("large pages", "faults/image.c", &flags));
    });
}

#[test]
fn text_relocations_that_may_not_become_executable_survive_every_fault() {
    isolated(|| {
        let flags = ["-Wl,-z,notext"];
        sweep_denied(&Image::new("text relocations", "loading/text_relocation.S", &flags));
    });
}
