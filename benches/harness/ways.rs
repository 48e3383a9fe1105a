//! The ways to load a library that are compared, each with what it has ready beforehand.

#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_int, c_void};
use std::hint::black_box;
use std::time::Instant;

use memdl::{DebugLevel, ImageBuffer, Library, Loader, Pool, Pooled, Template};

use super::floor::{Layout, Mapped};
use super::libraries::Subject;
use super::peers::{Imported, Peer, PeerLibrary};

/// One way to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What executors do today: `memfd_create`, `ftruncate`, a shared mapping, a copy into it,
    /// `dlopen("/proc/self/fd/N", RTLD_NOW)`.
    Seed,
    /// The same with `write(2)` instead of the mapping.
    Write,
    /// The same with bytes that were received into the `memfd`, so that nothing is copied: what
    /// [`Way::Buffer`] is for memdl.
    Received,
    /// `dlopen` of a file in the page cache, `RTLD_NOW`.
    File,
    /// The same, `RTLD_LAZY`.
    FileLazy,
    /// elf_loader from bytes, its import of the process's libraries counted.
    ElfLoader,
    /// The same with an import that was made before.
    ElfLoaderImported,
    /// dlopen-rs from bytes.
    DlopenRs,
    /// `Loader::load`.
    Load(DebugLevel),
    /// The same where memory of former images was given back.
    LoadInNewMemory,
    /// `Loader::load_buffer` of bytes that were received into an `ImageBuffer`: the copy into it
    /// is not counted.
    Buffer(DebugLevel),
    /// `Template::instantiate`, of a template that was prepared before.
    Instance(DebugLevel),
    /// The same where memory of former instances was given back.
    InstanceInNewMemory,
    /// An instance of a pool: it is released, which resets it, and acquired again.
    Reset,
    /// The system calls, page faults and copies of [`Way::LoadInNewMemory`], without memdl.
    Floor,
}

pub const WAYS: &[Way] = &[
    Way::Seed,
    Way::Write,
    Way::Received,
    Way::File,
    Way::FileLazy,
    Way::ElfLoader,
    Way::ElfLoaderImported,
    Way::DlopenRs,
    Way::Load(DebugLevel::Off),
    Way::Load(DebugLevel::Symbols),
    Way::Load(DebugLevel::Full),
    Way::LoadInNewMemory,
    Way::Buffer(DebugLevel::Off),
    Way::Buffer(DebugLevel::Full),
    Way::Instance(DebugLevel::Off),
    Way::Instance(DebugLevel::Full),
    Way::InstanceInNewMemory,
    Way::Reset,
    Way::Floor,
];

/// Ways of which only the memory is told.
pub const MEMORY_ONLY: [Way; 2] =
    [Way::Instance(DebugLevel::Symbols), Way::Instance(DebugLevel::Portable)];

impl Way {
    /// Its name in tables, and between processes.
    pub fn name(self) -> String {
        let debug = |way: &str, debug| match debug {
            DebugLevel::Off => way.to_owned(),
            other => format!("{way}, {}", format!("{other:?}").to_lowercase()),
        };
        match self {
            Way::Seed => "memfd, mapped".to_owned(),
            Way::Write => "memfd, written".to_owned(),
            Way::Received => "memfd, received into".to_owned(),
            Way::File => "dlopen of a file".to_owned(),
            Way::FileLazy => "dlopen, lazy".to_owned(),
            Way::ElfLoader => "elf_loader".to_owned(),
            Way::ElfLoaderImported => "elf_loader, imported before".to_owned(),
            Way::DlopenRs => "dlopen-rs".to_owned(),
            Way::Load(of) => debug("load", of),
            Way::LoadInNewMemory => "load, new memory".to_owned(),
            Way::Buffer(of) => debug("load_buffer", of),
            Way::Instance(of) => debug("instantiate", of),
            Way::InstanceInNewMemory => "instantiate, new memory".to_owned(),
            Way::Reset => "pool: release, acquire".to_owned(),
            Way::Floor => "system calls of new memory".to_owned(),
        }
    }

    pub fn named(name: &str) -> Way {
        let found = WAYS.iter().chain(&MEMORY_ONLY).find(|way| way.name() == name);
        *found.unwrap_or_else(|| panic!("no such way: {name}"))
    }

    pub fn is_memdl(self) -> bool {
        matches!(
            self,
            Way::Load(_)
                | Way::LoadInNewMemory
                | Way::Buffer(_)
                | Way::Instance(_)
                | Way::InstanceInNewMemory
                | Way::Reset
        )
    }

    pub fn is_peer(self) -> bool {
        matches!(self, Way::ElfLoader | Way::ElfLoaderImported | Way::DlopenRs)
    }
}

/// What is loaded. Dropping it unloads.
pub enum Loaded {
    Memdl(Library),
    Pooled(Pooled),
    Handle(Handle),
    Peer(PeerLibrary),
    /// Nothing in it can be called.
    Floor(Mapped),
}

impl Loaded {
    pub fn symbol(&self, name: &CStr) -> *mut c_void {
        match self {
            // SAFETY: an address, of whatever it is.
            Loaded::Memdl(library) => unsafe {
                library.get::<*mut c_void>(name.to_bytes()).unwrap().as_raw_ptr()
            },
            // SAFETY: as above.
            Loaded::Pooled(instance) => unsafe {
                instance.get::<*mut c_void>(name.to_bytes()).unwrap().as_raw_ptr()
            },
            Loaded::Handle(handle) => dlsym(handle.0, name),
            Loaded::Peer(library) => library.symbol(name),
            Loaded::Floor(_) => panic!("it is not relocated"),
        }
    }
}

/// A handle of `dlopen`, and the descriptor of its library if that must stay open.
pub struct Handle(*mut c_void, Option<c_int>);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: from `dlopen`, once; the descriptor is ours.
        unsafe {
            libc::dlclose(self.0);
            if let Some(descriptor) = self.1 {
                libc::close(descriptor);
            }
        }
    }
}

pub fn dlopen(path: &CStr, flags: c_int) -> *mut c_void {
    // SAFETY: a C string; whoever names the library vouches for its constructors.
    let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
    // SAFETY: after a failure there is a message.
    assert!(!handle.is_null(), "{}", unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy());
    handle
}

pub fn dlsym(handle: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: an open handle and a C string.
    unsafe { libc::dlsym(handle, name.as_ptr()) }
}

/// A new `memfd` of this length.
fn memfd(len: usize) -> c_int {
    // SAFETY: a new descriptor.
    unsafe {
        let descriptor = libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC);
        assert!(descriptor >= 0);
        assert_eq!(libc::ftruncate(descriptor, len as libc::off_t), 0);
        descriptor
    }
}

/// Copies into a `memfd` through a shared mapping.
fn fill(descriptor: c_int, bytes: &[u8]) {
    // SAFETY: the mapping is as long as the file, and gone when this returns.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let map =
            libc::mmap(std::ptr::null_mut(), bytes.len(), access, libc::MAP_SHARED, descriptor, 0);
        assert_ne!(map, libc::MAP_FAILED);
        map.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        libc::munmap(map, bytes.len());
    }
}

fn write(descriptor: c_int, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: reads within `rest`.
        let wrote = unsafe { libc::write(descriptor, rest.as_ptr().cast(), rest.len()) };
        assert!(wrote > 0);
        rest = &rest[wrote as usize..];
    }
}

/// `dlopen` of a descriptor, which is closed then or with the library. `ld.so` knows libraries by
/// the path that it was given, so while one is open its number must not be used for another.
fn open_descriptor(descriptor: c_int, keep: bool) -> Loaded {
    let path = CString::new(format!("/proc/self/fd/{descriptor}")).unwrap();
    let handle = dlopen(&path, libc::RTLD_NOW);
    if keep {
        return Loaded::Handle(Handle(handle, Some(descriptor)));
    }
    // SAFETY: ours.
    unsafe { libc::close(descriptor) };
    Loaded::Handle(Handle(handle, None))
}

/// What is there before the clock starts.
pub enum Ready {
    Nothing,
    Buffer(ImageBuffer),
    Descriptor(c_int),
    Instance(Pooled),
}

/// A library, with what the ways keep between samples.
pub struct Bench<'s> {
    pub subject: &'s Subject,
    /// Leaves descriptors open as long as their libraries, for libraries that are loaded at the same time.
    pub keep: bool,
    off: Kept,
    symbols: Kept,
    full: Kept,
    portable: Kept,
    pool: OnceCell<Pool>,
    elf_loader: OnceCell<(Peer, Imported)>,
    dlopen_rs: OnceCell<Imported>,
    layout: OnceCell<Layout>,
}

struct Kept {
    loader: Loader,
    template: OnceCell<Template>,
}

impl Kept {
    fn new(debug: DebugLevel) -> Kept {
        // What is needed is in the process already.
        let loader = Loader::new().debug(debug).system_libraries(true);
        Kept { loader, template: OnceCell::new() }
    }
}

/// Nanoseconds.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Until the library is loaded.
    pub load: f64,
    /// Until it has been loaded, a function looked up and called, and unloaded.
    pub whole: f64,
}

impl<'s> Bench<'s> {
    pub fn new(subject: &'s Subject) -> Bench<'s> {
        Bench {
            subject,
            keep: false,
            off: Kept::new(DebugLevel::Off),
            symbols: Kept::new(DebugLevel::Symbols),
            full: Kept::new(DebugLevel::Full),
            portable: Kept::new(DebugLevel::Portable),
            pool: OnceCell::new(),
            elf_loader: OnceCell::new(),
            dlopen_rs: OnceCell::new(),
            layout: OnceCell::new(),
        }
    }

    fn kept(&self, debug: DebugLevel) -> &Kept {
        match debug {
            DebugLevel::Off => &self.off,
            DebugLevel::Symbols => &self.symbols,
            DebugLevel::Full => &self.full,
            DebugLevel::Portable => &self.portable,
            other => panic!("{other:?} is not measured"),
        }
    }

    fn template(&self, debug: DebugLevel) -> &Template {
        let kept = self.kept(debug);
        // SAFETY: what is measured may run here.
        let prepare = || unsafe { kept.loader.prepare(&self.subject.bytes) }.unwrap();
        kept.template.get_or_init(prepare)
    }

    fn elf_loader(&self) -> &(Peer, Imported) {
        self.elf_loader.get_or_init(|| {
            let peer = Peer::open("elf_loader");
            (peer, peer.import(&self.importable()))
        })
    }

    /// What the subject needs, but for `ld.so`, which elf_loader 0.18 cannot import.
    fn importable(&self) -> Vec<CString> {
        let is_loader = |path: &&CString| path.to_string_lossy().contains("/ld-linux");
        self.subject.needed.iter().filter(|path| !is_loader(path)).cloned().collect()
    }

    fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Layout::new(&self.subject.bytes))
    }

    fn dlopen_rs(&self) -> &Imported {
        self.dlopen_rs.get_or_init(|| Peer::open("dlopen_rs").import(&[]))
    }

    /// What `way` has before the clock starts: bytes that have arrived, a template, an opened peer.
    pub fn ready(&self, way: Way) -> Ready {
        let bytes = &self.subject.bytes;
        match way {
            Way::Buffer(_) => {
                let mut buffer = ImageBuffer::new(bytes.len()).unwrap();
                buffer.copy_from_slice(bytes);
                Ready::Buffer(buffer)
            }
            Way::Received => {
                let descriptor = memfd(bytes.len());
                fill(descriptor, bytes);
                Ready::Descriptor(descriptor)
            }
            Way::Instance(debug) => {
                self.template(debug);
                Ready::Nothing
            }
            Way::LoadInNewMemory => {
                memdl::release_memory();
                Ready::Nothing
            }
            Way::InstanceInNewMemory => {
                self.template(DebugLevel::Off);
                memdl::release_memory();
                Ready::Nothing
            }
            Way::Reset => Ready::Instance(self.acquire()),
            Way::ElfLoader | Way::ElfLoaderImported => {
                self.elf_loader();
                Ready::Nothing
            }
            Way::DlopenRs => {
                self.dlopen_rs();
                Ready::Nothing
            }
            Way::Floor => {
                self.layout();
                Ready::Nothing
            }
            _ => Ready::Nothing,
        }
    }

    fn acquire(&self) -> Pooled {
        let pool = self.pool.get_or_init(|| self.template(DebugLevel::Off).pool(1));
        // SAFETY: whoever named the library vouches for its constructors; nothing of it is used when
        // it is released.
        unsafe { pool.acquire() }.unwrap()
    }

    pub fn load(&self, way: Way, ready: Ready) -> Loaded {
        let Subject { bytes, path, .. } = self.subject;
        // SAFETY: whoever named the library vouches for its constructors.
        unsafe {
            match (way, ready) {
                (Way::Seed, _) => {
                    let descriptor = memfd(bytes.len());
                    fill(descriptor, bytes);
                    open_descriptor(descriptor, self.keep)
                }
                (Way::Write, _) => {
                    let descriptor = memfd(0);
                    write(descriptor, bytes);
                    open_descriptor(descriptor, self.keep)
                }
                (_, Ready::Descriptor(descriptor)) => open_descriptor(descriptor, self.keep),
                (Way::File, _) => Loaded::Handle(Handle(dlopen(path, libc::RTLD_NOW), None)),
                (Way::FileLazy, _) => Loaded::Handle(Handle(dlopen(path, libc::RTLD_LAZY), None)),
                (Way::ElfLoader, _) => {
                    let imported = self.elf_loader().0.import(&self.importable());
                    Loaded::Peer(imported.load(bytes))
                }
                (Way::ElfLoaderImported, _) => Loaded::Peer(self.elf_loader().1.load(bytes)),
                (Way::Floor, _) => Loaded::Floor(self.layout().map(bytes)),
                (Way::DlopenRs, _) => Loaded::Peer(self.dlopen_rs().load(bytes)),
                (Way::Load(debug), _) => {
                    Loaded::Memdl(self.kept(debug).loader.load(bytes).unwrap())
                }
                (Way::LoadInNewMemory, _) => Loaded::Memdl(self.off.loader.load(bytes).unwrap()),
                (Way::Buffer(debug), Ready::Buffer(buffer)) => {
                    Loaded::Memdl(self.kept(debug).loader.load_buffer(buffer).unwrap())
                }
                (Way::Instance(debug), _) => {
                    Loaded::Memdl(self.template(debug).instantiate().unwrap())
                }
                (Way::InstanceInNewMemory, _) => {
                    Loaded::Memdl(self.template(DebugLevel::Off).instantiate().unwrap())
                }
                (Way::Reset, ready) => {
                    drop(ready);
                    Loaded::Pooled(self.acquire())
                }
                (Way::Buffer(_) | Way::Received, _) => unreachable!("not ready"),
            }
        }
    }

    /// Looks the subject's function up and calls it.
    pub fn call(&self, loaded: &Loaded) {
        if matches!(loaded, Loaded::Floor(_)) {
            return;
        }
        let symbol = loaded.symbol(self.subject.symbol);
        assert!(!symbol.is_null());
        // SAFETY: the subject's function takes a small number or nothing, and returns a number.
        let function: extern "C" fn(c_int) -> usize = unsafe { std::mem::transmute(symbol) };
        black_box(function(3));
    }

    /// Loads, calls and unloads once.
    pub fn sample(&self, way: Way) -> Sample {
        let ready = self.ready(way);
        let start = Instant::now();
        let loaded = self.load(way, ready);
        let load = start.elapsed();
        self.call(&loaded);
        drop(loaded);
        let whole = start.elapsed();
        let nanoseconds = |time: std::time::Duration| time.as_secs_f64() * 1e9;
        Sample { load: nanoseconds(load), whole: nanoseconds(whole) }
    }
}
