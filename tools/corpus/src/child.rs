//! The child process: loads one library by one loader, and writes down what it sees.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString, OsString, c_void};
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use goblin::elf::sym::STT_TLS;
use memdl::{DebugLevel, Library, Loader, SymbolKind};

use crate::Result;
use crate::agree::disagreement;
use crate::library_file::{Export, Facts};
use crate::loaded::{Loaded, System};
use crate::places::Places;
use crate::process::{MEMBER, Object, mappings, members, objects};
use crate::values::{Dump, Value};

/// Arguments: how (`dlopen` or `memdl`), the library, the path that it is called by, and where to
/// write what is found.
pub fn child(args: &[OsString]) -> Result<()> {
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
        let loader = Loader::new().name(name).system_libraries(true).debug(DebugLevel::Off);
        let report = loader.inspect(&bytes);
        // SAFETY: the constructors are what this process is for.
        let loaded = unsafe { loader.load(&bytes) };
        if let Some(difference) = disagreement(&report, &loaded) {
            fs::write(out.with_extension("report"), difference)?;
        }
        let library = match loaded {
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
    if let Some(own) = library.memdl_name() {
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
    let name = |object: &Object| match object.path.strip_prefix(MEMBER) {
        Some(path) => format!("{MEMBER}{}", real(path).display()),
        None if object.index == 0 => String::from("memdl"),
        _ if real(&object.path) == own_path => String::from("the copy in the process"),
        _ => real(&object.path).display().to_string(),
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
    let absolute: HashSet<&str> = facts
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
