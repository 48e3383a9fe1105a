//! The differential corpus: every shared library of a folder, loaded by `dlopen` from its file and
//! by memdl from its bytes, and compared.
//!
//! ```text
//! cargo run --release --example corpus -- FOLDER... [--recursive] [--only NAME] [--json FILE]
//!                                         [--jobs N] [--seconds N] [--with LIBRARY]
//! ```
//!
//! `--with LIBRARY`, which may be repeated, has `dlopen` open that library with `RTLD_GLOBAL` in both
//! processes first: extension modules need the symbols of their interpreter.
//!
//! Each library is loaded in two child processes (this program again; nothing else is in them):
//! one calls `dlopen(path, RTLD_NOW | RTLD_LOCAL)`, the other
//! `Loader::new().name(path).system_libraries(true).debug(Debug::Off).load(bytes)`. Both write down
//!
//! * whether it loads, or why not;
//! * what every exported name resolves to, by `dlsym`/`dlvsym` and by `get`/`get_versioned`, and in
//!   the child of memdl whether `Library::symbols` agrees with the file's dynamic symbol table;
//! * every word that a dynamic relocation writes (`DT_RELA`, `DT_JMPREL`, `DT_RELR`; decoded here,
//!   from the file, not by memdl);
//! * whether closing it and leaving the process end alike.
//!
//! Addresses are told as a library and an offset into it, so that bases do not matter. A word that
//! is not the same is accepted for one of these reasons only, which the table counts:
//!
//! | reason | what is accepted |
//! |---|---|
//! | service | the relocation names one of the C library's functions that memdl replaces for its images, `dlopen` bound it to a library, and memdl to itself |
//! | thread-local storage | both lie in the image's own block, and the distance between the two loaders' offsets is the same for all of the image |
//! | TLS descriptor | as above; the descriptor was called in both processes to learn its place |
//! | copy in the process | the same offset, in the copy of the same library that the process had before, or that a library which needs it in turn brought in |
//! | member | the same offset, in a needed library that memdl had to load itself, since it cannot be opened alone or must see the image (found in memory by its ELF header, known by its `DT_SONAME`) |
//! | anonymous memory | both point to memory that belongs to no library (heap, stacks) |
//! | constructors | equal, once both load a copy of the library without `DT_INIT` and `DT_INIT_ARRAY` |
//! | needed libraries first | equal to a third process, where `dlopen` opens the libraries that this one needs before it opens the library itself: memdl must do so, and `ld.so` gives unique symbols (`STB_GNU_UNIQUE`) to whoever comes first |
//! | another unique definition | memdl took a definition (`STB_GNU_UNIQUE`, checked in that library's table) which `ld.so` passed over, since no reference had been bound to it; there is no way to ask it |
//! | unsteady | two runs of `dlopen` differ from each other in this place |
//!
//! Everything else is listed. The exit status is 1 if something is, or if `dlopen` loads a library
//! that memdl does not.
//!
//! This tool loads what it is given: constructors run, each in a process of its own that is killed
//! after a time limit.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use goblin::elf::Elf;
use goblin::elf::dynamic::{
    DF_1_PIE, DT_FINI, DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS_1, DT_INIT, DT_INIT_ARRAY,
    DT_INIT_ARRAYSZ, DT_SONAME, DT_STRTAB, DT_SYMTAB,
};
use goblin::elf::header::{ELFCLASS64, EM_X86_64, ET_DYN};
use goblin::elf::program_header::{PT_DYNAMIC, PT_LOAD, PT_TLS};
use goblin::elf::reloc::{
    R_X86_64_32, R_X86_64_64, R_X86_64_COPY, R_X86_64_DTPMOD64, R_X86_64_GLOB_DAT,
    R_X86_64_JUMP_SLOT, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_RELATIVE, R_X86_64_SIZE32,
    R_X86_64_TLSDESC, R_X86_64_TPOFF64,
};
use goblin::elf::sym::{STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STT_TLS, STV_HIDDEN, STV_INTERNAL};
use memdl::{Debug, Library, Loader, SymbolKind};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What memdl gives images instead of the C library's (ARCHITECTURE.md, "Services").
const SERVICES: &[&str] = &[
    "__register_atfork",
    "__tls_get_addr",
    "__cxa_at_quick_exit",
    "__cxa_finalize",
    "__cxa_atexit",
    "__cxa_thread_atexit",
    "__cxa_thread_atexit_impl",
    "_dl_find_object",
    "dl_iterate_phdr",
    "dladdr",
    "dladdr1",
    "dlclose",
    "dlerror",
    "dlinfo",
    "dlopen",
    "dlsym",
    "dlvsym",
    "pthread_key_create",
    "pthread_key_delete",
    "tss_create",
    "tss_delete",
];

const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
/// A tag that says nothing to any loader.
const DT_IGNORED: u64 = 0x6000_0000;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = env::args_os().skip(1).collect();
    let result = match args.first().and_then(|first| first.to_str()) {
        Some("--child") => child(&args[1..]).map(|()| ExitCode::SUCCESS),
        _ => Options::parse(args).and_then(|options| run(&options)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("corpus: {error}");
        ExitCode::from(2)
    })
}

// ------------------------------------------------------------------------------- what to compare

/// What this tool knows of a library, from its file alone.
struct Facts {
    exports: Vec<Export>,
    places: Vec<Place>,
    /// Stated addresses, from the first segment to the last.
    span: Range<u64>,
    has_tls: bool,
    sections: Vec<(String, Range<u64>)>,
    needed: Vec<String>,
    /// `DT_RUNPATH`, or else `DT_RPATH`.
    folders: Vec<String>,
}

/// A symbol that other libraries can bind to.
struct Export {
    name: String,
    version: Option<String>,
    kind: u8,
    size: u64,
    value: u64,
    is_absolute: bool,
}

/// What a dynamic relocation writes.
struct Place {
    at: u64,
    r_type: u32,
    addend: i64,
    symbol: Option<String>,
}

impl Facts {
    fn read(bytes: &[u8]) -> Result<Facts> {
        let elf = Elf::parse(bytes)?;
        let segments = || elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
        let start = segments().map(|segment| segment.p_vaddr).min().ok_or("no segment")?;
        let end = segments().map(|segment| segment.p_vaddr.saturating_add(segment.p_memsz)).max();
        let sections = elf.section_headers.iter().filter(|section| section.sh_addr != 0);
        let sections = sections.filter_map(|section| {
            let name = elf.shdr_strtab.get_at(section.sh_name)?.to_owned();
            Some((name, section.sh_addr..section.sh_addr.checked_add(section.sh_size)?))
        });
        let paths = if elf.runpaths.is_empty() { &elf.rpaths } else { &elf.runpaths };
        let folders = paths.iter().flat_map(|paths| paths.split(':')).map(str::to_owned);
        Ok(Facts {
            needed: elf.libraries.iter().map(|&name| name.to_owned()).collect(),
            folders: folders.collect(),
            exports: exports(&elf),
            places: places(&elf, bytes),
            span: (start & !0xfff)..(end.unwrap_or(start).saturating_add(0xfff) & !0xfff),
            has_tls: elf.program_headers.iter().any(|header| header.p_type == PT_TLS),
            sections: sections.collect(),
        })
    }

    fn section(&self, at: u64) -> &str {
        let found = self.sections.iter().find(|(_, range)| range.contains(&at));
        found.map_or("?", |(name, _)| name)
    }
}

/// The defined dynamic symbols that are visible, in table order.
fn exports(elf: &Elf<'_>) -> Vec<Export> {
    let mut versions: HashMap<u16, String> = HashMap::new();
    for definition in elf.verdef.iter().flat_map(|verdef| verdef.iter()) {
        let name = definition.iter().next().and_then(|aux| elf.dynstrtab.get_at(aux.vda_name));
        if let Some(name) = name
            && definition.vd_ndx > 1
        {
            versions.insert(definition.vd_ndx, name.to_owned());
        }
    }
    let is_export = |symbol: &goblin::elf::Sym| {
        symbol.st_shndx != 0
            && matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE)
            && !matches!(symbol.st_visibility(), STV_HIDDEN | STV_INTERNAL)
    };
    let table = elf.dynsyms.iter().enumerate().filter(|(_, symbol)| is_export(symbol));
    table
        .filter_map(|(index, symbol)| {
            let versym = elf.versym.as_ref().and_then(|versym| versym.get_at(index));
            // Index 0 is local, whatever the binding says.
            if versym.as_ref().is_some_and(|versym| versym.version() == 0) {
                return None;
            }
            Some(Export {
                name: elf.dynstrtab.get_at(symbol.st_name)?.to_owned(),
                version: versym.and_then(|versym| versions.get(&versym.version()).cloned()),
                kind: symbol.st_type(),
                size: symbol.st_size,
                value: symbol.st_value,
                is_absolute: symbol.st_shndx == 0xfff1,
            })
        })
        .collect()
}

/// All places that dynamic relocations write to, in table order.
fn places(elf: &Elf<'_>, bytes: &[u8]) -> Vec<Place> {
    let tables = elf.dynrelas.iter().chain(elf.pltrelocs.iter());
    let mut places: Vec<Place> = tables
        .filter(|rela| !matches!(rela.r_type, R_X86_64_NONE | R_X86_64_COPY))
        .map(|rela| {
            let symbol = (rela.r_sym != 0).then(|| elf.dynsyms.get(rela.r_sym)).flatten();
            Place {
                at: rela.r_offset,
                r_type: rela.r_type,
                addend: rela.r_addend.unwrap_or(0),
                symbol: symbol
                    .and_then(|symbol| Some(elf.dynstrtab.get_at(symbol.st_name)?.into())),
            }
        })
        .collect();
    let tags = || elf.dynamic.iter().flat_map(|dynamic| dynamic.dyns.iter());
    let value = |tag| tags().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
    let word = |at: u64| {
        let offset = usize::try_from(file_offset(elf, at)?).ok()?;
        bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_le_bytes)
    };
    if let (Some(table), Some(size)) = (value(DT_RELR), value(DT_RELRSZ)) {
        let mut next = 0;
        for entry in (0..size / 8).filter_map(|index| word(table + index * 8)) {
            let (start, bits, step) =
                if entry & 1 == 0 { (entry, 1, 8) } else { (next, entry >> 1, 63 * 8) };
            for at in (0..63).filter(|bit| bits >> bit & 1 == 1).map(|bit| start + bit * 8) {
                let addend = word(at).unwrap_or(0) as i64;
                places.push(Place { at, r_type: R_X86_64_RELATIVE, addend, symbol: None });
            }
            next = start + step;
        }
    }
    places
}

fn file_offset(elf: &Elf<'_>, at: u64) -> Option<u64> {
    let segment = elf
        .program_headers
        .iter()
        .find(|header| header.p_type == PT_LOAD && header.vm_range().contains(&(at as usize)))?;
    Some(at - segment.p_vaddr + segment.p_offset)
}

/// The library without what runs when it is loaded or unloaded.
fn without_constructors(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let table = {
        let elf = Elf::parse(&bytes)?;
        let header = elf.program_headers.iter().find(|header| header.p_type == PT_DYNAMIC);
        header.ok_or("no dynamic section")?.file_range()
    };
    for entry in
        bytes.get_mut(table).ok_or("dynamic section outside the file")?.chunks_exact_mut(16)
    {
        let tag = u64::from_le_bytes(entry[..8].try_into()?);
        if let DT_INIT | DT_INIT_ARRAY | DT_INIT_ARRAYSZ | DT_FINI | DT_FINI_ARRAY
        | DT_FINI_ARRAYSZ = tag
        {
            entry[..8].copy_from_slice(&DT_IGNORED.to_le_bytes());
        }
        if tag == 0 {
            break;
        }
    }
    Ok(bytes)
}

// ---------------------------------------------------------------------------------------- values

/// A word, or what a symbol resolved to, in terms that do not depend on where things lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    /// There is no such symbol, or it is null.
    Missing,
    /// Points nowhere.
    Number(u64),
    /// Stated address in the library itself.
    Own(u64),
    /// Another library and an offset from its base.
    Library(u32, u64),
    Anonymous,
    /// The module number of the library itself.
    OwnModule,
    LibraryModule(u32),
    /// In the library's own thread-local block. `dlopen`'s child knows the offset in the block;
    /// in memdl's child it is an address.
    OwnThreadLocal(u64),
    LibraryThreadLocal(u32, u64),
}

impl Value {
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        let (tag, object, value) = match self {
            Value::Missing => (0, 0, 0),
            Value::Number(value) => (1, 0, value),
            Value::Own(at) => (2, 0, at),
            Value::Library(object, offset) => (3, object, offset),
            Value::Anonymous => (4, 0, 0),
            Value::OwnModule => (5, 0, 0),
            Value::LibraryModule(object) => (6, object, 0),
            Value::OwnThreadLocal(value) => (7, 0, value),
            Value::LibraryThreadLocal(object, offset) => (8, object, offset),
        };
        let mut record = [0; 13];
        record[0] = tag;
        record[1..5].copy_from_slice(&u32::to_le_bytes(object));
        record[5..].copy_from_slice(&u64::to_le_bytes(value));
        out.write_all(&record)
    }

    fn read(record: &[u8]) -> Option<Value> {
        let object = u32::from_le_bytes(record.get(1..5)?.try_into().ok()?);
        let value = u64::from_le_bytes(record.get(5..13)?.try_into().ok()?);
        Some(match record[0] {
            0 => Value::Missing,
            1 => Value::Number(value),
            2 => Value::Own(value),
            3 => Value::Library(object, value),
            4 => Value::Anonymous,
            5 => Value::OwnModule,
            6 => Value::LibraryModule(object),
            7 => Value::OwnThreadLocal(value),
            _ => Value::LibraryThreadLocal(object, value),
        })
    }
}

/// What a child wrote.
#[derive(Default)]
struct Dump {
    /// Paths of libraries, by the numbers in values; 0 is this program.
    objects: Vec<String>,
    /// Two for each export: by name, and by name and version.
    symbols: Vec<Value>,
    words: Vec<Value>,
    /// How `Library::symbols` differs from the file's table.
    listing: Vec<String>,
}

impl Dump {
    fn read(path: &Path) -> Option<Dump> {
        let bytes = fs::read(path).ok()?;
        let mut rest = &bytes[..];
        let mut strings = Vec::new();
        for _ in 0..2 {
            let (len, tail) = rest.split_first_chunk::<8>()?;
            let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*len) as usize)?;
            strings.push(String::from_utf8_lossy(text).lines().map(str::to_owned).collect());
            rest = tail;
        }
        let mut values = Vec::new();
        for _ in 0..2 {
            let (len, tail) = rest.split_first_chunk::<8>()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?.checked_mul(13)?;
            let (records, tail) = tail.split_at_checked(len)?;
            values.push(records.chunks_exact(13).filter_map(Value::read).collect());
            rest = tail;
        }
        let (words, symbols) = (values.pop()?, values.pop()?);
        let (listing, objects) = (strings.pop()?, strings.pop()?);
        Some(Dump { objects, symbols, words, listing })
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for strings in [&self.objects, &self.listing] {
            let text: String = strings
                .iter()
                .flat_map(|line| [&line.replace('\n', " "), "\n"].map(String::from))
                .collect();
            out.write_all(&(text.len() as u64).to_le_bytes())?;
            out.write_all(text.as_bytes())?;
        }
        for values in [&self.symbols, &self.words] {
            out.write_all(&(values.len() as u64).to_le_bytes())?;
            values.iter().try_for_each(|value| value.write(&mut out))?;
        }
        Ok(out.flush()?)
    }

    /// A value in words.
    fn tell(&self, value: Value) -> String {
        let name = |object: u32| {
            let path = self.objects.get(object as usize).map_or("?", String::as_str);
            path.rsplit('/').next().unwrap_or(path).to_owned()
        };
        match value {
            Value::Missing => "nothing".into(),
            Value::Number(value) => format!("{value:#x}"),
            Value::Own(at) => format!("own+{at:#x}"),
            Value::Library(object, offset) => format!("{}+{offset:#x}", name(object)),
            Value::Anonymous => "anonymous".into(),
            Value::OwnModule => "own module".into(),
            Value::LibraryModule(object) => format!("module of {}", name(object)),
            Value::OwnThreadLocal(at) => format!("own thread-local {at:#x}"),
            Value::LibraryThreadLocal(object, offset) => {
                format!("thread-local of {}+{offset:#x}", name(object))
            }
        }
    }
}

// -------------------------------------------------------------------------------------- children

/// Arguments: how (`dlopen` or `memdl`), the library, the path that it is called by, and where to
/// write what is found.
fn child(args: &[std::ffi::OsString]) -> Result<()> {
    let [how, path, out, global @ ..] = args else {
        return Err("not meant to be called by hand".into());
    };
    let (path, out) = (Path::new(path), Path::new(out));
    let mut progress = File::create(out.with_extension("progress"))?;
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid record; crashes are expected here and need no core file.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &no_core) };
    for global in global {
        let global = CString::new(global.as_bytes())?;
        // SAFETY: a C string; never closed. The constructors are what this process is for.
        let handle = unsafe { libc::dlopen(global.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            return Err(dl_error().into());
        }
    }
    let bytes = fs::read(path)?;
    let facts = Facts::read(&bytes)?;
    if how != "memdl" {
        if how == "needed-first" {
            open_needed(&facts, path);
        }
        let before = objects();
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a C string. The constructors are what this process is for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Ok(write!(progress, "refused\n{}", dl_error())?);
        }
        let system = System { handle };
        if before.iter().any(|object| object.load_bias == system.load_bias() && object.index != 0) {
            progress.write_all(b"resident\n")?;
        }
        progress.write_all(b"loaded\n")?;
        dump(&system, &facts, path).write(out)?;
        progress.write_all(b"dumped\n")?;
        // SAFETY: an open handle, closed once.
        unsafe { libc::dlclose(handle) };
    } else {
        let name = path.to_str().ok_or("the path is not UTF-8")?;
        let loader = Loader::new().name(name).system_libraries(true).debug(Debug::Off);
        // SAFETY: the constructors are what this process is for.
        let library = match unsafe { loader.load(&bytes) } {
            Ok(library) => library,
            Err(error) => return Ok(write!(progress, "refused\n{error}")?),
        };
        progress.write_all(b"loaded\n")?;
        let mut found = dump(&library, &facts, path);
        found.listing = listing(&library, &facts);
        found.write(out)?;
        progress.write_all(b"dumped\n")?;
        library.close()?;
    }
    progress.write_all(b"closed\n")?;
    Ok(())
}

/// Opens what the library needs, one after the other, from the last to the first, as memdl does.
fn open_needed(facts: &Facts, path: &Path) {
    let origin = path.parent().and_then(Path::to_str).unwrap_or("/");
    for name in facts.needed.iter().rev() {
        let folders = facts.folders.iter().map(|folder| folder.replace("$ORIGIN", origin));
        let found =
            folders.map(|folder| format!("{folder}/{name}")).find(|at| Path::new(at).exists());
        let Ok(name) = CString::new(found.unwrap_or_else(|| name.clone())) else { continue };
        // SAFETY: a C string; never closed. The constructors are what this process is for.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    }
}

fn dl_error() -> String {
    // SAFETY: the message lives until the next call of this family on this thread.
    unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            String::from("no message")
        } else {
            CStr::from_ptr(message).to_string_lossy().into_owned()
        }
    }
}

/// A library that is loaded, by either loader.
trait Loaded {
    fn load_bias(&self) -> u64;
    fn symbol(&self, name: &str, version: Option<&str>) -> Option<u64>;
    fn is_memdl(&self) -> bool;
    /// The number of its thread-local module, if `ld.so` knows it.
    fn system_module(&self) -> Option<u64>;
}

struct System {
    handle: *mut c_void,
}

/// The public beginning of `<link.h>`'s `struct link_map`.
#[repr(C)]
struct LinkMap {
    l_addr: usize,
    l_name: *const c_char,
}

impl System {
    fn ask<T: Copy>(&self, request: c_int, initial: T) -> T {
        let mut answer = initial;
        // SAFETY: an open handle, and `T` is what this request writes (the callers below).
        unsafe { libc::dlinfo(self.handle, request, (&raw mut answer).cast()) };
        answer
    }
}

impl Loaded for System {
    fn load_bias(&self) -> u64 {
        let map: *const LinkMap = self.ask(libc::RTLD_DI_LINKMAP, std::ptr::null());
        // SAFETY: `ld.so`'s record of an open library.
        unsafe { (*map).l_addr as u64 }
    }

    fn symbol(&self, name: &str, version: Option<&str>) -> Option<u64> {
        let name = CString::new(name).ok()?;
        let version = version.map(CString::new).transpose().ok()?;
        // SAFETY: an open handle and C strings.
        let address = unsafe {
            match &version {
                None => libc::dlsym(self.handle, name.as_ptr()),
                Some(version) => libc::dlvsym(self.handle, name.as_ptr(), version.as_ptr()),
            }
        };
        (!address.is_null()).then_some(address as u64)
    }

    fn is_memdl(&self) -> bool {
        false
    }

    fn system_module(&self) -> Option<u64> {
        let module = self.ask(libc::RTLD_DI_TLS_MODID, 0_usize);
        (module != 0).then_some(module as u64)
    }
}

impl Loaded for Library {
    fn load_bias(&self) -> u64 {
        Library::load_bias(self) as u64
    }

    fn symbol(&self, name: &str, version: Option<&str>) -> Option<u64> {
        // SAFETY: only the address is looked at.
        let symbol = unsafe {
            match version {
                None => self.get::<*mut c_void>(name),
                Some(version) => self.get_versioned::<*mut c_void>(name, version),
            }
        };
        symbol.ok().map(|symbol| symbol.as_raw_ptr() as u64)
    }

    fn is_memdl(&self) -> bool {
        true
    }

    fn system_module(&self) -> Option<u64> {
        None
    }
}

/// A library that `ld.so` knows.
struct Object {
    index: u32,
    path: String,
    load_bias: u64,
    segments: Vec<Range<u64>>,
    tls_module: u64,
    /// This thread's block.
    tls_block: Range<u64>,
}

fn objects() -> Vec<Object> {
    unsafe extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, list: *mut c_void) -> c_int {
        // SAFETY: a valid record of `dl_iterate_phdr`'s, and the vector below.
        let (info, list) = unsafe { (&*info, &mut *list.cast::<Vec<Object>>()) };
        // SAFETY: as above.
        let (path, headers) = unsafe {
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            (CStr::from_ptr(info.dlpi_name).to_string_lossy().into_owned(), headers)
        };
        let block = info.dlpi_tls_data as u64;
        let tls = headers.iter().find(|header| header.p_type == PT_TLS && block != 0);
        list.push(Object {
            index: list.len() as u32,
            path,
            load_bias: info.dlpi_addr,
            segments: headers
                .iter()
                .filter(|header| header.p_type == PT_LOAD)
                .map(|header| {
                    let start = info.dlpi_addr + header.p_vaddr;
                    start..start + header.p_memsz
                })
                .collect(),
            tls_module: info.dlpi_tls_modid as u64,
            tls_block: tls.map_or(0..0, |header| block..block + header.p_memsz),
        });
        0
    }
    let mut list: Vec<Object> = Vec::new();
    // SAFETY: the callback has the wanted signature and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut list).cast()) };
    list
}

/// Tells what addresses of this process mean.
struct Places<'a> {
    load_bias: u64,
    span: Range<u64>,
    objects: &'a [Object],
    /// Ascending segments, with their object.
    segments: Vec<(Range<u64>, u32)>,
    mapped: Vec<Range<u64>>,
    own_module: Option<u64>,
    own_block: Option<u64>,
}

impl Places<'_> {
    fn pointer(&self, value: u64) -> Value {
        let own = value.wrapping_sub(self.load_bias);
        // Its end counts (`_end`); by chance it is where the next library starts.
        if self.span.contains(&own) || own == self.span.end {
            return Value::Own(own);
        }
        let next = self.segments.partition_point(|(range, _)| range.start <= value);
        let found = next.checked_sub(1).and_then(|index| self.segments.get(index));
        if let Some((range, object)) = found
            && range.contains(&value)
        {
            let base = self.objects[*object as usize].load_bias;
            return Value::Library(*object, value.wrapping_sub(base));
        }
        if self.mapped.iter().any(|range| range.contains(&value)) {
            Value::Anonymous
        } else {
            Value::Number(value)
        }
    }

    /// The address of a thread-local variable.
    fn thread_local(&self, address: u64) -> Value {
        // An undefined weak variable's, give or take an addend.
        if address.wrapping_add(0x10000) < 0x20000 {
            return Value::Number(address);
        }
        let own_module = self.own_module;
        // The executable's block is where memdl keeps initial-exec blocks.
        for object in self.objects.iter().skip(1) {
            if object.tls_block.contains(&address) && Some(object.tls_module) != own_module {
                let offset = address - object.tls_block.start;
                return Value::LibraryThreadLocal(object.index, offset);
            }
        }
        Value::OwnThreadLocal(address.wrapping_sub(self.own_block.unwrap_or(0)))
    }

    fn module(&self, module: u64) -> Value {
        if module == 0 {
            return Value::Number(0);
        }
        let found = self.objects.iter().skip(1).find(|object| object.tls_module == module);
        match found {
            Some(object) if self.own_module != Some(module) => Value::LibraryModule(object.index),
            _ => Value::OwnModule,
        }
    }

    /// The word at a place that a relocation wrote.
    fn word(&self, place: &Place) -> Value {
        let at = self.load_bias.wrapping_add(place.at);
        if !self.span.contains(&place.at) {
            return Value::Missing;
        }
        let width =
            if let R_X86_64_32 | R_X86_64_PC32 | R_X86_64_SIZE32 = place.r_type { 4 } else { 8 };
        let mut bytes = [0; 8];
        // SAFETY: the place lies in the image, which is loaded, where the loader wrote a moment ago.
        unsafe {
            std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), width);
        }
        let word = u64::from_le_bytes(bytes);
        match place.r_type {
            R_X86_64_RELATIVE | R_X86_64_64 => {
                // The addend may lead out of the object.
                let addend = place.addend as u64;
                if place.symbol.is_none() {
                    if word == self.load_bias.wrapping_add(addend) {
                        return Value::Own(addend);
                    }
                    return self.pointer(word);
                }
                match self.pointer(word.wrapping_sub(addend)) {
                    Value::Own(base) => Value::Own(base.wrapping_add(addend)),
                    Value::Library(object, base) => {
                        Value::Library(object, base.wrapping_add(addend))
                    }
                    _ => self.pointer(word),
                }
            }
            R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => self.pointer(word),
            R_X86_64_PC32 => {
                let distance = i64::from(word as u32 as i32).wrapping_sub(place.addend);
                self.pointer(at.wrapping_add_signed(distance))
            }
            R_X86_64_DTPMOD64 => self.module(word),
            R_X86_64_TPOFF64 if word == 0 => Value::Number(0),
            R_X86_64_TPOFF64 => self.thread_local(thread_pointer().wrapping_add(word)),
            R_X86_64_TLSDESC => {
                // SAFETY: the loader stored a descriptor there.
                self.thread_local(unsafe { called_descriptor(at) })
            }
            // Offsets and sizes are what they are; IRELATIVE and the rest are pointers.
            _ => self.pointer(word),
        }
    }
}

fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: the psABI keeps the thread pointer at offset 0 of its segment.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags));
    }
    pointer
}

/// The address that a TLS descriptor stands for.
///
/// # Safety
/// There is a descriptor at `at`.
unsafe fn called_descriptor(at: u64) -> u64 {
    let offset: u64;
    // SAFETY: the calling convention of descriptors: address in rax, distance from the thread
    // pointer back in rax, all else kept. The default options let it use the stack.
    unsafe {
        std::arch::asm!("call [rax]", inout("rax") at => offset, clobber_abi("C"));
    }
    thread_pointer().wrapping_add(offset)
}

/// All that is mapped, and whether it is readable and of no file.
fn mappings() -> Vec<(Range<u64>, bool)> {
    let text = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapping = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let is_readable = fields.next()?.starts_with('r');
        let file = fields.nth(3);
        let is_anonymous = file.is_none_or(|file| file.starts_with("[anon"));
        Some((range, is_readable && is_anonymous))
    };
    text.lines().filter_map(mapping).collect()
}

/// What a library that memdl loaded is called here, before its `DT_SONAME`.
const MEMBER: &str = "memdl:";

/// The libraries that memdl loaded itself, but for the one that starts at `own`.
fn members(own: u64, first_index: u32) -> Vec<Object> {
    let Ok(memory) = File::open("/proc/self/mem") else { return Vec::new() };
    let starts =
        mappings().into_iter().filter(|(range, is_candidate)| *is_candidate && range.start != own);
    let found = starts.filter_map(|(range, _)| member(&memory, range.start));
    let number = |(index, object)| Object { index: first_index + index as u32, ..object };
    found.enumerate().map(number).collect()
}

/// The library whose ELF header is at `start`.
fn member(memory: &File, start: u64) -> Option<Object> {
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        memory.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
    };
    let header = read(start, 64).filter(|header| header.starts_with(b"\x7fELF"))?;
    let count = usize::from(u16::from_le_bytes([header[56], header[57]]));
    let table = read(start.checked_add(word(&header, 32)?)?, count * 56)?;
    let headers = || table.chunks_exact(56);
    let of_kind = |header: &&[u8], kind: u32| header.starts_with(&kind.to_le_bytes());
    let spans = headers().filter(|header| of_kind(header, PT_LOAD)).filter_map(|header| {
        let from = word(header, 16)?;
        Some(from..from.checked_add(word(header, 40)?)?)
    });
    let spans: Vec<Range<u64>> = spans.collect();
    let load_bias = start.wrapping_sub(spans.first()?.start & !0xfff);
    let dynamic = headers().find(|header| of_kind(header, PT_DYNAMIC))?;
    let dynamic = read(load_bias.wrapping_add(word(dynamic, 16)?), word(dynamic, 40)? as usize)?;
    let value = |tag| {
        let mut entries = dynamic.chunks_exact(16);
        entries.find(|entry| word(entry, 0) == Some(tag)).and_then(|entry| word(entry, 8))
    };
    // The entry may or may not be relocated.
    let strings = value(DT_STRTAB)?;
    let strings = if strings < load_bias { strings.wrapping_add(load_bias) } else { strings };
    let soname = (0..256).map_while(|index| {
        let byte = read(strings.wrapping_add(value(DT_SONAME)? + index), 1)?[0];
        (byte != 0).then_some(byte)
    });
    let soname: Vec<u8> = soname.collect();
    Some(Object {
        index: 0,
        path: format!("{MEMBER}{}", String::from_utf8_lossy(&soname)),
        load_bias,
        segments: spans
            .iter()
            .map(|span| load_bias.wrapping_add(span.start)..load_bias.wrapping_add(span.end))
            .collect(),
        tls_module: 0,
        tls_block: 0..0,
    })
}

unsafe extern "C" {
    fn __tls_get_addr(index: *const [u64; 2]) -> *mut c_void;
}

fn dump(library: &impl Loaded, facts: &Facts, path: &Path) -> Dump {
    let own_module = library.system_module().filter(|_| facts.has_tls);
    // SAFETY: a module of `ld.so`'s that is loaded; offset 0 is in its block.
    let own_block = own_module.map(|module| unsafe { __tls_get_addr(&[module, 0]) } as u64);
    for module in objects().iter().map(|object| object.tls_module).filter(|&module| module != 0) {
        // SAFETY: as above. Blocks are listed once this thread has asked for them.
        unsafe { __tls_get_addr(&[module, 0]) };
    }
    let load_bias = library.load_bias();
    let mut objects = objects();
    if library.is_memdl() {
        let own = load_bias.wrapping_add(facts.span.start);
        objects.extend(members(own, objects.len() as u32));
    }
    let objects = objects;
    let mut segments: Vec<(Range<u64>, u32)> = objects
        .iter()
        .flat_map(|object| object.segments.iter().map(|range| (range.clone(), object.index)))
        .collect();
    segments.sort_by_key(|(range, _)| range.start);
    let places = Places {
        load_bias,
        span: facts.span.clone(),
        objects: &objects,
        segments,
        mapped: mappings().into_iter().map(|(range, _)| range).collect(),
        own_module,
        own_block,
    };
    // Words first: looking symbols up runs IFUNC resolvers.
    let words = facts.places.iter().map(|place| places.word(place)).collect();
    let value = |export: &Export, version: Option<&str>| match library.symbol(&export.name, version)
    {
        None => Value::Missing,
        Some(address) if export.kind == STT_TLS => places.thread_local(address),
        Some(address) if address == load_bias.wrapping_add(export.value) && !export.is_absolute => {
            Value::Own(export.value)
        }
        Some(address) => places.pointer(address),
    };
    let symbols = facts.exports.iter().flat_map(|export| {
        let versioned = export.version.as_deref().map(|version| value(export, Some(version)));
        [value(export, None), versioned.unwrap_or(Value::Missing)]
    });
    let symbols = symbols.collect();
    // The same file may be there twice.
    let real = |path: &str| fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let own_path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let name = |object: &Object| match object.index {
        0 => String::from("memdl"),
        _ if real(&object.path) == own_path => String::from("the copy in the process"),
        _ => object.path.clone(),
    };
    Dump { objects: objects.iter().map(name).collect(), symbols, words, listing: Vec::new() }
}

/// How `Library::symbols` differs from what the file says.
fn listing(library: &Library, facts: &Facts) -> Vec<String> {
    type Key = (String, Option<String>, u8, u64, u64);
    let key = |kind: u8| match kind {
        0..=2 => kind,
        STT_TLS | 10 => kind,
        _ => 0,
    };
    let mut counts: BTreeMap<Key, i64> = BTreeMap::new();
    for export in &facts.exports {
        // What is at address 0 and is not absolute cannot be had.
        if export.value == 0 && !export.is_absolute && export.kind != STT_TLS {
            continue;
        }
        let fields = (export.name.clone(), export.version.clone(), key(export.kind));
        *counts.entry((fields.0, fields.1, fields.2, export.size, export.value)).or_default() += 1;
    }
    let absolute: std::collections::HashSet<&str> = facts
        .exports
        .iter()
        .filter(|export| export.is_absolute)
        .map(|export| export.name.as_str())
        .collect();
    for symbol in library.symbols() {
        let kind = match symbol.kind() {
            SymbolKind::Function => 2,
            SymbolKind::Object => 1,
            SymbolKind::ThreadLocal => STT_TLS,
            SymbolKind::IndirectFunction => 10,
            _ => 0,
        };
        let moved = kind != STT_TLS && !absolute.contains(symbol.name());
        let value = if moved {
            (symbol.address() as u64).wrapping_sub(library.load_bias() as u64)
        } else {
            symbol.address() as u64
        };
        let version = symbol.version().map(str::to_owned);
        let found = (symbol.name().to_owned(), version, kind, symbol.size(), value);
        *counts.entry(found).or_default() -= 1;
    }
    let differing = counts.into_iter().filter(|(_, count)| *count != 0);
    let told = differing.map(|((name, version, kind, size, value), count)| {
        let side = if count > 0 { "only in the file" } else { "only in symbols()" };
        let version = version.unwrap_or_default();
        format!("{name}@{version} kind {kind} size {size} at {value:#x}: {side}")
    });
    told.collect()
}

// ---------------------------------------------------------------------------------------- parent

struct Options {
    folders: Vec<PathBuf>,
    recursive: bool,
    only: Option<String>,
    json: Option<PathBuf>,
    jobs: usize,
    limit: Duration,
    with: Vec<std::ffi::OsString>,
}

impl Options {
    fn parse(args: Vec<std::ffi::OsString>) -> Result<Options> {
        let mut options = Options {
            folders: Vec::new(),
            recursive: false,
            only: None,
            json: None,
            jobs: thread::available_parallelism().map_or(1, usize::from),
            limit: Duration::from_secs(20),
            with: Vec::new(),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg:?} wants a value"));
            let number = |text: std::ffi::OsString| -> Result<u64> {
                Ok(text.to_str().ok_or("not a number")?.parse()?)
            };
            match arg.to_str() {
                Some("--recursive") => options.recursive = true,
                Some("--only") => options.only = Some(value()?.to_string_lossy().into_owned()),
                Some("--json") => options.json = Some(value()?.into()),
                Some("--jobs") => options.jobs = number(value()?)?.max(1) as usize,
                Some("--with") => options.with.push(value()?),
                Some("--seconds") => options.limit = Duration::from_secs(number(value()?)?),
                Some(flag) if flag.starts_with('-') => {
                    return Err(format!("no such option: {flag}").into());
                }
                _ => options.folders.push(arg.into()),
            }
        }
        if options.folders.is_empty() {
            return Err("which folder? see the top of examples/corpus.rs".into());
        }
        Ok(options)
    }
}

/// All shared libraries of a folder, symbolic links aside.
fn collect(folder: &Path, options: &Options, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() && options.recursive {
            collect(&entry.path(), options, found)?;
        } else if kind.is_file()
            && options
                .only
                .as_deref()
                .is_none_or(|only| entry.file_name().to_string_lossy().contains(only))
            && is_shared_library(&entry.path())
        {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Whether a file is an ELF shared library for this machine: not an executable that says so
/// (`DF_1_PIE`), and not what is left of a library in a file of debug information.
fn is_shared_library(path: &Path) -> bool {
    let mut start = [0; 4096];
    let Ok(file) = File::open(path) else { return false };
    let Ok(len) = file.read_at(&mut start, 0) else { return false };
    let Some(header) = start[..len].first_chunk::<64>() else { return false };
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if !header.starts_with(b"\x7fELF")
        || header[4] != ELFCLASS64
        || half(16) != ET_DYN
        || half(18) != EM_X86_64
    {
        return false;
    }
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
    };
    let table = word(header, 32).unwrap_or(0) as usize;
    let dynamic = (0..usize::from(half(56)))
        .filter_map(|index| start[..len].get(table + index * usize::from(half(54))..)?.get(..56))
        .find(|entry| entry.starts_with(&PT_DYNAMIC.to_le_bytes()));
    let Some((offset, size)) = dynamic.and_then(|entry| Some((word(entry, 8)?, word(entry, 32)?)))
    else {
        return false;
    };
    let mut entries = vec![0; size.min(1 << 16) as usize];
    if file.read_exact_at(&mut entries, offset).is_err() {
        return false;
    }
    let value = |tag| {
        let mut entries = entries.chunks_exact(16);
        entries.find(|entry| word(entry, 0) == Some(tag)).and_then(|entry| word(entry, 8))
    };
    value(DT_SYMTAB).is_some() && value(DT_FLAGS_1).unwrap_or(0) & DF_1_PIE == 0
}

/// How a child ended.
struct Ended {
    /// `refused`, `loaded`, `dumped`, `closed`, as far as it came.
    loaded: bool,
    dumped: bool,
    closed: bool,
    /// The process had it already.
    resident: bool,
    refusal: Option<String>,
    status: Option<ExitStatus>,
    stderr: String,
    dump: Option<Dump>,
}

impl Ended {
    /// Why it did not load.
    fn reason(&self) -> String {
        match &self.refusal {
            Some(refusal) => refusal.clone(),
            None => format!("{} while loading: {}", self.end(), self.stderr),
        }
    }

    fn end(&self) -> String {
        match self.status {
            None => "out of time".into(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "?".into(),
            },
        }
    }
}

fn spawn(how: &str, path: &Path, folder: &Path, options: &Options) -> Result<Ended> {
    fs::create_dir_all(folder)?;
    let (out, stderr) = (folder.join("found"), folder.join("stderr"));
    let progress = out.with_extension("progress");
    let _ = fs::remove_file(&out);
    let _ = fs::remove_file(&progress);
    let mut child = Command::new(env::current_exe()?)
        .arg("--child")
        .args([how.as_ref(), path.as_os_str(), out.as_os_str()])
        .args(&options.with)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .env("LC_ALL", "C")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&stderr)?)
        .process_group(0)
        .spawn()?;
    let group = child.id() as libc::pid_t;
    let started = Instant::now();
    let mut pause = Duration::from_micros(500);
    let mut in_time = true;
    // The child is waited for without being reaped, so that its number, which is its group's,
    // cannot be anyone else's when the group is killed.
    loop {
        // SAFETY: plain data; all zero is a value of it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: a child of ours, and a record to write to.
        let waited = unsafe { libc::waitid(libc::P_PID, child.id(), &mut info, flags) };
        // SAFETY: `waitid` filled it in, or left the zeroes.
        if waited != 0 || unsafe { info.si_pid() } != 0 {
            break;
        }
        if started.elapsed() > options.limit {
            in_time = false;
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    // SAFETY: the group of our own child, with what that may have left running.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    let status = child.wait()?;
    let text = String::from_utf8_lossy(&fs::read(&progress).unwrap_or_default()).into_owned();
    let stderr = fs::read(&stderr).unwrap_or_default();
    let tail = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(300)..]).into_owned();
    let reached = |what: &str| text.lines().any(|line| line == what);
    Ok(Ended {
        loaded: reached("loaded"),
        dumped: reached("dumped"),
        closed: reached("closed"),
        resident: reached("resident"),
        refusal: text.strip_prefix("refused\n").map(|text| text.trim().replace('\n', "; ")),
        status: in_time.then_some(status),
        stderr: tail.trim().replace('\n', " | "),
        dump: if reached("dumped") { Dump::read(&out) } else { None },
    })
}

/// Why a difference is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Service,
    ThreadLocal,
    Descriptor,
    Copy,
    Member,
    Anonymous,
    Constructors,
    NeededFirst,
    Unique,
    Unsteady,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Service => "service",
            Reason::ThreadLocal => "thread-local storage",
            Reason::Descriptor => "TLS descriptor",
            Reason::Copy => "copy in the process",
            Reason::Member => "member",
            Reason::Anonymous => "anonymous memory",
            Reason::Constructors => "constructors",
            Reason::NeededFirst => "needed libraries first",
            Reason::Unique => "another unique definition",
            Reason::Unsteady => "unsteady",
        })
    }
}

enum Verdict {
    Equal,
    Explained(Reason),
    Different,
}

/// What two loads of one library found.
struct Pair<'a> {
    system: &'a Dump,
    memdl: &'a Dump,
    /// memdl's address of the block minus nothing: learned from the first thread-local met.
    block: Option<u64>,
    /// The same of members, by `dlopen`'s number of the library.
    member_blocks: HashMap<u32, u64>,
}

impl<'a> Pair<'a> {
    fn new(system: &'a Dump, memdl: &'a Dump) -> Pair<'a> {
        Pair { system, memdl, block: None, member_blocks: HashMap::new() }
    }

    fn object(dump: &Dump, index: u32) -> &str {
        dump.objects.get(index as usize).map_or("?", String::as_str)
    }

    fn verdict(
        &mut self,
        a: Value,
        b: Value,
        symbol: Option<&str>,
        r_type: Option<u32>,
    ) -> Verdict {
        let same_object = |a, b| Pair::object(self.system, a) == Pair::object(self.memdl, b);
        let is_copy = |dump: &Dump, index| Pair::object(dump, index) == "the copy in the process";
        let is_member = |system: &str, memdl: &str| {
            memdl.strip_prefix(MEMBER).is_some_and(|name| system.rsplit('/').next() == Some(name))
        };
        let has_member = |index| {
            let system = Pair::object(self.system, index);
            self.memdl.objects.iter().any(|memdl| is_member(system, memdl))
        };
        match (a, b) {
            (Value::LibraryThreadLocal(library, offset), Value::OwnThreadLocal(address))
                if has_member(library) =>
            {
                let block = address.wrapping_sub(offset);
                if *self.member_blocks.entry(library).or_insert(block) == block {
                    Verdict::Explained(Reason::Member)
                } else {
                    Verdict::Different
                }
            }
            (Value::LibraryModule(library), Value::OwnModule) if has_member(library) => {
                Verdict::Explained(Reason::Member)
            }
            (Value::Anonymous, Value::Anonymous) => Verdict::Explained(Reason::Anonymous),
            (Value::Library(a, x), Value::Library(b, y)) if same_object(a, b) && x == y => {
                Verdict::Equal
            }
            (Value::LibraryThreadLocal(a, x), Value::LibraryThreadLocal(b, y))
                if same_object(a, b) && x == y =>
            {
                Verdict::Equal
            }
            (Value::LibraryModule(a), Value::LibraryModule(b)) if same_object(a, b) => {
                Verdict::Equal
            }
            (Value::OwnModule, Value::OwnModule) => Verdict::Explained(Reason::ThreadLocal),
            (Value::OwnThreadLocal(offset), Value::OwnThreadLocal(address)) => {
                let block = address.wrapping_sub(offset);
                if *self.block.get_or_insert(block) != block {
                    Verdict::Different
                } else if r_type == Some(R_X86_64_TLSDESC) {
                    Verdict::Explained(Reason::Descriptor)
                } else {
                    Verdict::Explained(Reason::ThreadLocal)
                }
            }
            (Value::Library(a, x), Value::Library(b, y))
                if x == y
                    && is_member(Pair::object(self.system, a), Pair::object(self.memdl, b)) =>
            {
                Verdict::Explained(Reason::Member)
            }
            (Value::Own(x), Value::Library(copy, y)) if x == y && is_copy(self.memdl, copy) => {
                Verdict::Explained(Reason::Copy)
            }
            (Value::OwnThreadLocal(x), Value::LibraryThreadLocal(copy, y))
                if x == y && is_copy(self.memdl, copy) =>
            {
                Verdict::Explained(Reason::Copy)
            }
            (Value::OwnModule, Value::LibraryModule(copy)) if is_copy(self.memdl, copy) => {
                Verdict::Explained(Reason::Copy)
            }
            (Value::Library(..), Value::Library(0, _))
                if symbol.is_some_and(|name| SERVICES.contains(&name)) =>
            {
                Verdict::Explained(Reason::Service)
            }
            _ if a == b
                && !matches!(
                    a,
                    Value::Library(..) | Value::LibraryModule(_) | Value::LibraryThreadLocal(..)
                ) =>
            {
                Verdict::Equal
            }
            _ => Verdict::Different,
        }
    }
}

/// What became of one library.
struct Outcome {
    path: PathBuf,
    system: Result<(), String>,
    memdl: Result<(), String>,
    resident: bool,
    symbols: usize,
    words: usize,
    reasons: BTreeMap<Reason, usize>,
    /// Where symbols differ.
    symbol_differences: Vec<String>,
    word_differences: Vec<String>,
    /// How closing and leaving differ: `dlopen`'s side, memdl's.
    exit: Option<(String, String)>,
    time: Duration,
}

fn compare(path: &Path, folder: &Path, options: &Options) -> Result<Outcome> {
    let started = Instant::now();
    let system = spawn("dlopen", path, &folder.join("dlopen"), options)?;
    let memdl = spawn("memdl", path, &folder.join("memdl"), options)?;
    let side = |ended: &Ended| if ended.loaded { Ok(()) } else { Err(ended.reason()) };
    let mut outcome = Outcome {
        path: path.to_owned(),
        system: side(&system),
        memdl: side(&memdl),
        resident: system.resident,
        symbols: 0,
        words: 0,
        reasons: BTreeMap::new(),
        symbol_differences: Vec::new(),
        word_differences: Vec::new(),
        exit: None,
        time: started.elapsed(),
    };
    if !(system.loaded && memdl.loaded) {
        if system.loaded {
            let ordered = spawn("needed-first", path, &folder.join("needed-first"), options)?;
            if !ordered.loaded {
                let told =
                    format!("; so fails dlopen, needed libraries first: {}", ordered.reason());
                outcome.memdl = outcome.memdl.map_err(|reason| reason + &told);
            }
        }
        return Ok(outcome);
    }
    if system.dumped != memdl.dumped {
        let told =
            format!("dumping: dlopen {}, memdl {} {}", system.end(), memdl.end(), memdl.stderr);
        outcome.symbol_differences.push(told);
    }
    if system.end() != memdl.end() || system.closed != memdl.closed {
        let tell = |ended: &Ended| {
            let when = if ended.closed { "after close" } else { "in close" };
            let stderr = if ended.end() == "exit 0" { "" } else { &ended.stderr };
            format!("{} {when} {stderr}", ended.end())
        };
        outcome.exit = Some((tell(&system), tell(&memdl)));
    }
    if let (Some(system), Some(memdl)) = (&system.dump, &memdl.dump) {
        let facts = Facts::read(&fs::read(path)?)?;
        differences(path, folder, options, &facts, system, memdl, &mut outcome)?;
    }
    outcome.time = started.elapsed();
    Ok(outcome)
}

/// Whether a value is where another library defines this symbol as `STB_GNU_UNIQUE`.
fn is_unique(dump: &Dump, value: Value, name: Option<&str>) -> bool {
    let (Value::Library(object, offset), Some(name)) = (value, name) else { return false };
    let Ok(bytes) = fs::read(Pair::object(dump, object)) else { return false };
    let Ok(elf) = Elf::parse(&bytes) else { return false };
    elf.dynsyms.iter().any(|symbol| {
        symbol.st_bind() == STB_GNU_UNIQUE
            && symbol.st_value == offset
            && elf.dynstrtab.get_at(symbol.st_name) == Some(name)
    })
}

fn differences(
    path: &Path,
    folder: &Path,
    options: &Options,
    facts: &Facts,
    system: &Dump,
    memdl: &Dump,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut pair = Pair::new(system, memdl);
    let (mut open, mut open_symbols) = (Vec::new(), Vec::new());
    for (index, place) in facts.places.iter().enumerate() {
        let (Some(&a), Some(&b)) = (system.words.get(index), memdl.words.get(index)) else {
            outcome.word_differences.push(format!("word {index} is not there"));
            break;
        };
        outcome.words += 1;
        match pair.verdict(a, b, place.symbol.as_deref(), Some(place.r_type)) {
            Verdict::Equal => {}
            Verdict::Explained(reason) => *outcome.reasons.entry(reason).or_default() += 1,
            Verdict::Different => open.push(index),
        }
    }
    for (index, export) in facts.exports.iter().enumerate() {
        for (exact, version) in [(0, None), (1, export.version.as_deref())] {
            if exact == 1 && version.is_none() {
                continue;
            }
            let at = index * 2 + exact;
            let (Some(&a), Some(&b)) = (system.symbols.get(at), memdl.symbols.get(at)) else {
                continue;
            };
            outcome.symbols += 1;
            match pair.verdict(a, b, Some(&export.name), None) {
                Verdict::Equal => {}
                Verdict::Explained(reason) => *outcome.reasons.entry(reason).or_default() += 1,
                Verdict::Different => {
                    let told = format!(
                        "{}{}: dlsym {}, get {}",
                        export.name,
                        version.map_or(String::new(), |version| format!("@{version}")),
                        system.tell(a),
                        memdl.tell(b)
                    );
                    open_symbols.push((at, export.name.as_str(), told));
                }
            }
        }
    }
    outcome.symbol_differences.extend(memdl.listing.iter().cloned());
    if open.is_empty() && open_symbols.is_empty() {
        return Ok(());
    }

    // Written by constructors? Then there is no difference without them. Decided by the order in
    // which libraries came? Then there is none to a `dlopen` with that order.
    let bare = folder.join("bare").join(path.file_name().ok_or("no file name")?);
    fs::create_dir_all(folder.join("bare"))?;
    fs::write(&bare, without_constructors(fs::read(path)?)?)?;
    let dump = |how: &str, path: &Path| {
        spawn(how, path, &folder.join(how), options).map(|ended| ended.dump)
    };
    let bare_pair = (dump("dlopen", &bare)?, dump("memdl", &bare)?);
    let bare_ordered = dump("needed-first", &bare)?;
    fs::remove_file(&bare)?;
    let (again, ordered) = (dump("dlopen", path)?, dump("needed-first", path)?);
    let settles = |system: &Option<Dump>, memdl: &Option<Dump>, index: usize| {
        let (Some(system), Some(memdl)) = (system, memdl) else { return false };
        let (Some(&a), Some(&b)) = (system.words.get(index), memdl.words.get(index)) else {
            return false;
        };
        let place = &facts.places[index];
        let mut pair = Pair::new(system, memdl);
        let verdict = pair.verdict(a, b, place.symbol.as_deref(), Some(place.r_type));
        !matches!(verdict, Verdict::Different)
    };
    let same_order = |values: fn(&Dump) -> &Vec<Value>, index: usize, name: Option<&str>| {
        let Some(ordered) = &ordered else { return false };
        let (Some(&a), Some(&b)) = (values(ordered).get(index), values(memdl).get(index)) else {
            return false;
        };
        let mut pair = Pair::new(ordered, memdl);
        !matches!(pair.verdict(a, b, name, None), Verdict::Different)
    };
    // One thread-local alone says nothing about its block: what was not consistent stays so.
    let (inconsistent, open): (Vec<usize>, Vec<usize>) =
        open.into_iter().partition(|&index| matches!(memdl.words[index], Value::OwnThreadLocal(_)));
    for index in inconsistent {
        outcome.word_differences.push(format!(
            "{:#x} ({}) {}: dlopen {}, memdl {}",
            facts.places[index].at,
            facts.section(facts.places[index].at),
            facts.places[index].symbol.as_deref().unwrap_or(""),
            system.tell(system.words[index]),
            memdl.tell(memdl.words[index])
        ));
    }
    for index in open {
        let place = &facts.places[index];
        let is_steady = again.as_ref().is_none_or(|again| {
            system.words.get(index).map(|value| system.tell(*value))
                == again.words.get(index).map(|value| again.tell(*value))
        });
        let reason = if settles(&bare_pair.0, &bare_pair.1, index) {
            Reason::Constructors
        } else if same_order(|dump| &dump.words, index, place.symbol.as_deref())
            || settles(&bare_ordered, &bare_pair.1, index)
        {
            Reason::NeededFirst
        } else if is_unique(memdl, memdl.words[index], place.symbol.as_deref()) {
            Reason::Unique
        } else if !is_steady {
            Reason::Unsteady
        } else {
            outcome.word_differences.push(format!(
                "{:#x} ({}) {} {}: dlopen {} (needed libraries first {}), memdl {}",
                place.at,
                facts.section(place.at),
                goblin::elf::reloc::r_to_str(place.r_type, EM_X86_64),
                place.symbol.as_deref().unwrap_or(""),
                system.tell(system.words[index]),
                ordered
                    .as_ref()
                    .and_then(|ordered| Some(ordered.tell(*ordered.words.get(index)?)))
                    .unwrap_or_else(|| "?".into()),
                memdl.tell(memdl.words[index])
            ));
            continue;
        };
        *outcome.reasons.entry(reason).or_default() += 1;
    }
    for (index, name, told) in open_symbols {
        let is_thread_local = matches!(memdl.symbols[index], Value::OwnThreadLocal(_));
        if !is_thread_local && same_order(|dump| &dump.symbols, index, Some(name)) {
            *outcome.reasons.entry(Reason::NeededFirst).or_default() += 1;
        } else if is_unique(memdl, memdl.symbols[index], Some(name)) {
            *outcome.reasons.entry(Reason::Unique).or_default() += 1;
        } else {
            outcome.symbol_differences.push(told);
        }
    }
    Ok(())
}

fn run(options: &Options) -> Result<ExitCode> {
    let mut paths = Vec::new();
    for folder in &options.folders {
        collect(folder, options, &mut paths)?;
    }
    let scratch = env::temp_dir().join(format!("memdl-corpus-{}", std::process::id()));
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in 0..options.jobs {
            let (next, outcomes, paths) = (&next, &outcomes, &paths);
            let folder = scratch.join(worker.to_string());
            scope.spawn(move || {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = compare(path, &folder, options);
                    let mut outcomes = outcomes.lock().expect("no worker panics");
                    outcomes.push((path.clone(), outcome));
                    if outcomes.len().is_multiple_of(100) {
                        eprintln!("{} of {}", outcomes.len(), paths.len());
                    }
                }
            });
        }
    });
    let _ = fs::remove_dir_all(&scratch);
    let mut outcomes = outcomes.into_inner()?;
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut compared = Vec::new();
    for (path, outcome) in outcomes {
        match outcome {
            Ok(outcome) => compared.push(outcome),
            Err(error) => println!("{}: not compared: {error}", path.display()),
        }
    }
    let report = Report::new(&compared);
    print!("{}", report.text);
    if let Some(json) = &options.json {
        fs::write(json, report.json)?;
    }
    Ok(if report.is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is printed.
struct Report {
    text: String,
    json: String,
    is_clean: bool,
}

impl Report {
    fn new(outcomes: &[Outcome]) -> Report {
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
        let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
        for (reason, count) in outcomes.iter().flat_map(|outcome| &outcome.reasons) {
            *reasons.entry(*reason).or_default() += count;
        }
        let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
        let only_system = count(|o| o.system.is_ok() && o.memdl.is_err());
        let symbol_differences = sum(|o| o.symbol_differences.len());
        let word_differences = sum(|o| o.word_differences.len());

        let mut rows: Vec<(String, usize)> = vec![
            ("shared libraries".into(), outcomes.len()),
            ("`dlopen` loads".into(), count(|o| o.system.is_ok())),
            ("memdl loads".into(), count(|o| o.memdl.is_ok())),
            ("both".into(), count(|o| o.system.is_ok() && o.memdl.is_ok())),
            ("only `dlopen`".into(), only_system),
            ("only memdl".into(), count(|o| o.system.is_err() && o.memdl.is_ok())),
            ("neither".into(), count(|o| o.system.is_err() && o.memdl.is_err())),
            ("end differs (close, exit)".into(), count(|o| o.exit.is_some())),
            ("symbols compared".into(), sum(|o| o.symbols)),
            ("symbols different".into(), symbol_differences),
            ("relocated words compared".into(), sum(|o| o.words)),
        ];
        for (reason, count) in &reasons {
            rows.push((format!("explained: {reason}"), *count));
        }
        rows.push(("words different, unexplained".into(), word_differences));
        let mut text = String::from("| | |\n|---|---:|\n");
        for (what, count) in &rows {
            let _ = writeln!(text, "| {what} | {} |", grouped(*count));
        }

        let mut list = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let _ = write!(text, "\n{title}\n\n");
                for line in lines {
                    let _ = writeln!(text, "* {line}");
                }
            }
        };
        let name = |outcome: &Outcome| outcome.path.display().to_string();
        let of = |line: fn(&Outcome) -> Option<String>| -> Vec<String> {
            let lines = outcomes.iter().filter_map(|o| Some(format!("{}: {}", name(o), line(o)?)));
            lines.collect()
        };
        list("Only dlopen loads:", of(|o| o.memdl.clone().err().filter(|_| o.system.is_ok())));
        list(
            "Only memdl loads; dlopen says:",
            of(|o| o.system.clone().err().filter(|_| o.memdl.is_ok())),
        );
        list(
            "The end differs:",
            of(|o| o.exit.as_ref().map(|(a, b)| format!("dlopen {a}, memdl {b}"))),
        );
        let differing = |of: fn(&Outcome) -> &Vec<String>| -> Vec<String> {
            let some = |outcome: &Outcome| {
                let lines = of(outcome);
                let shown = lines.iter().take(20).map(|line| format!("{}: {line}", name(outcome)));
                let rest = lines.len().saturating_sub(20);
                let more = (rest > 0).then(|| format!("{}: and {rest} more", name(outcome)));
                shown.chain(more).collect::<Vec<_>>()
            };
            outcomes.iter().flat_map(some).collect()
        };
        list("Symbols that differ:", differing(|o| &o.symbol_differences));
        list("Words that differ:", differing(|o| &o.word_differences));
        list("In the process before:", of(|o| o.resident.then(|| "resident".into())));

        let is_clean = only_system == 0 && symbol_differences == 0 && word_differences == 0;
        Report { text, json: json(&rows, outcomes), is_clean }
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn json(rows: &[(String, usize)], outcomes: &[Outcome]) -> String {
    let string = |text: &str| {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c < ' ' => {
                    let _ = write!(quoted, "\\u{:04x}", u32::from(c));
                }
                c => quoted.push(c),
            }
        }
        quoted + "\""
    };
    let strings = |lines: &[String]| {
        format!("[{}]", lines.iter().map(|line| string(line)).collect::<Vec<_>>().join(", "))
    };
    let side = |result: &Result<(), String>| match result {
        Ok(()) => "true".to_owned(),
        Err(reason) => string(reason),
    };
    let mut text = String::from("{\n\"table\": {");
    let table = rows.iter().map(|(what, count)| format!("{}: {count}", string(what)));
    text += &table.collect::<Vec<_>>().join(", ");
    text += "},\n\"libraries\": [\n";
    let libraries = outcomes.iter().map(|outcome| {
        let reasons = outcome.reasons.iter();
        let reasons =
            reasons.map(|(reason, count)| format!("{}: {count}", string(&reason.to_string())));
        let exit = outcome
            .exit
            .as_ref()
            .map_or("null".to_owned(), |(system, memdl)| strings(&[system.clone(), memdl.clone()]));
        format!(
            "{{\"path\": {}, \"dlopen\": {}, \"memdl\": {}, \"resident\": {}, \"symbols\": {}, \
             \"words\": {}, \"reasons\": {{{}}}, \"symbol_differences\": {}, \
             \"word_differences\": {}, \"end\": {exit}, \"milliseconds\": {}}}",
            string(&outcome.path.to_string_lossy()),
            side(&outcome.system),
            side(&outcome.memdl),
            outcome.resident,
            outcome.symbols,
            outcome.words,
            reasons.collect::<Vec<_>>().join(", "),
            strings(&outcome.symbol_differences),
            strings(&outcome.word_differences),
            outcome.time.as_millis()
        )
    });
    text += &libraries.collect::<Vec<_>>().join(",\n");
    text + "\n]\n}\n"
}
