//! The libraries that `ld.so` loaded, and what they define.
//!
//! `dlsym(RTLD_DEFAULT, ..)` is the reference for what the host's global scope defines, but it is
//! not enough: it cannot say which module a thread-local belongs to, what an unversioned
//! reference of an image binds to, or what a *definition* (not a PLT entry) is. So the libraries
//! of the process's start-up set, which are never unloaded and come first in the global scope,
//! are searched here through their own hash tables, with the same code that searches images.
//! Only for a miss, and only if a library that was opened since defines such a name, `dlsym` is
//! asked, for those that were opened with `RTLD_GLOBAL` are nowhere listed.
//!
//! The start-up set is a prefix of `dl_iterate_phdr`'s list, in the order of the search: the
//! executable, preloaded libraries, then dependencies breadth first; it ends with the last
//! library that the executable's `DT_NEEDED` closure names. Should the prefix be taken too
//! short, `dlsym` finds the rest; it is never too long.
//!
//! A library outside the start-up set is looked at only while a handle to it is held, since
//! another thread could `dlclose` it.
//!
//! Sources: `dl_iterate_phdr(3)`, `dlopen(3)`, `dlinfo(3)`; the search order: gABI "Shared Object
//! Dependencies".

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, OsString, c_int, c_void};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::arch::{self, RelocKind};
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::Error;
use crate::base::fallible::{
    TryGrow, require_memory, try_c_string, try_collect, try_collect_ok, try_vec,
};
use crate::base::promise::MayRun;
use crate::base::sync::{Guard, Lock, Rank};
use crate::base::tls_index::ModuleId;
use crate::elf::constants::{
    DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_SONAME, EI_OSABI, ELFOSABI_GNU, PF_R,
    PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, SIZEOF_EHDR,
};
use crate::elf::dynamic::Dynamic;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::{ADDRESS_TAGS, SymbolLayout, SymbolTable};
use crate::elf::versions::Version;
use crate::host::process;

/// A library that `ld.so` loaded, the executable included.
pub(crate) struct HostLibrary {
    name: CString,
    soname: Option<CString>,
    needed: Vec<CString>,
    memory: HostMemory,
    symbols: SymbolLayout,
    tls_module: ModuleId,
    /// Keeps the library loaded; `None` for the start-up set, which always is.
    handle: Option<Handle>,
    relocations: [Option<Range<Vaddr>>; 2],
    relro: Range<usize>,
    /// It was not in the process before an image needed it.
    opened_for_image: bool,
}

/// What a symbol of a library that is in place comes to, in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SymbolValue {
    Address(usize),
    ThreadLocal { module: ModuleId, offset: u64 },
}

/// A handle of `dlopen`.
pub(crate) struct Handle(*mut c_void);

// SAFETY: `ld.so`'s handles may be used and closed by any thread.
unsafe impl Send for Handle {}
// SAFETY: as above; its functions lock what they need.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: a handle from `dlopen`, closed once.
        unsafe { libc::dlclose(self.0) };
    }
}

impl Handle {
    /// A library that the process has loaded already.
    fn loaded(name: &CStr) -> Option<Handle> {
        // `ld.so` opens a file of this name to compare it with those that it has loaded. It would
        // wait there for the writer of a pipe; and to open a device can change its state.
        let path = Path::new(OsStr::from_bytes(name.to_bytes()));
        if name.to_bytes().contains(&b'/') && path.metadata().is_ok_and(|file| !file.is_file()) {
            return None;
        }
        Handle::try_open(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD)
    }

    fn open(name: &CStr, flags: c_int) -> Option<Handle> {
        // SAFETY: a C string. Opening may run constructors of system libraries, which the caller
        // allowed; with RTLD_NOLOAD it does not.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        (!handle.is_null()).then(|| Handle(handle))
    }

    /// As [`Handle::open`]; a failure leaves no error behind that somebody else would be told.
    fn try_open(name: &CStr, flags: c_int) -> Option<Handle> {
        let handle = Handle::open(name, flags);
        if handle.is_none() {
            forget_dl_error();
        }
        handle
    }

    /// The executable, whose scope is the global one.
    fn global_scope() -> &'static Handle {
        static MAIN: OnceLock<Handle> = OnceLock::new();
        // SAFETY: a null name asks for the executable.
        MAIN.get_or_init(|| Handle(unsafe { libc::dlopen(ptr::null(), libc::RTLD_LAZY) }))
    }

    /// `dlsym` or `dlvsym`. A missing symbol and one at address 0 are both `None`.
    fn symbol(&self, name: &CStr, version: Option<&CStr>) -> Option<usize> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: an open handle and C strings.
        let address = unsafe {
            match version {
                Some(version) => libc::dlvsym(self.0, name.as_ptr(), version.as_ptr()),
                None => libc::dlsym(self.0, name.as_ptr()),
            }
        };
        if address.is_null() {
            forget_dl_error();
        }
        (!address.is_null()).then_some(address.addr())
    }

    /// The head of glibc's `struct link_map` of this library: load bias and name.
    fn link_map(&self) -> Option<(usize, CString)> {
        #[repr(C)]
        struct LinkMap {
            l_addr: usize,
            l_name: *const libc::c_char,
        }
        const RTLD_DI_LINKMAP: c_int = 2;
        let mut map: *const LinkMap = ptr::null();
        // SAFETY: an open handle; the request writes one pointer. The map and its name live as
        // long as the library, which the handle keeps.
        unsafe {
            if libc::dlinfo(self.0, RTLD_DI_LINKMAP, (&raw mut map).cast()) != 0 || map.is_null() {
                return None;
            }
            Some(((*map).l_addr, CStr::from_ptr((*map).l_name).to_owned()))
        }
    }
}

/// Leaves nothing of the system's loader for the next who asks it for an error, in this thread.
fn forget_dl_error() {
    // SAFETY: no preconditions; the text is not looked at.
    unsafe { libc::dlerror() };
}

/// What the system's loader said last, in this thread.
fn last_dl_error() -> Option<String> {
    // SAFETY: returns null or a C string that is valid until the next call in this thread.
    unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// A library's readable segments in this process.
struct HostMemory {
    load_bias: LoadBias,
    readable: Vec<Range<Vaddr>>,
}

impl HostMemory {
    fn slice(&self, start: Vaddr, end: Option<Vaddr>) -> Option<&[u8]> {
        let segment = self.readable.iter().find(|segment| segment.contains(&start))?;
        let end = end.unwrap_or(segment.end);
        if end > segment.end {
            return None;
        }
        let len = end.checked_sub(start)? as usize;
        // SAFETY: part of a readable segment that `ld.so` mapped and that stays mapped while this
        // library is held (`HostLibrary`); symbol tables are not written once it is loaded.
        Some(unsafe { std::slice::from_raw_parts(self.load_bias.apply(start) as *const u8, len) })
    }
}

impl ReadAt for HostMemory {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        self.slice(range.start, Some(range.end))
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        self.slice(start, None)
    }
}

/// One entry of `dl_iterate_phdr`'s list.
#[derive(Clone)]
struct PhdrEntry {
    name: CString,
    load_bias: usize,
    readable: Vec<Range<Vaddr>>,
    dynamic: Option<Range<Vaddr>>,
    relro: Range<usize>,
    tls_module: usize,
}

impl PhdrEntry {
    /// # Safety
    /// The record's name and program headers can be read.
    unsafe fn new(info: &libc::dl_phdr_info) -> PhdrEntry {
        let mut entry = PhdrEntry {
            // SAFETY: the caller's promise.
            name: unsafe { CStr::from_ptr(info.dlpi_name) }.to_owned(),
            load_bias: info.dlpi_addr as usize,
            readable: Vec::new(),
            dynamic: None,
            relro: 0..0,
            tls_module: info.dlpi_tls_modid,
        };
        if !info.dlpi_phdr.is_null() {
            // SAFETY: as above.
            let headers =
                unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            for header in headers {
                let range = Vaddr(header.p_vaddr).range(header.p_memsz);
                match header.p_type {
                    PT_LOAD if header.p_flags & PF_R != 0 => entry.readable.extend(range),
                    PT_DYNAMIC => entry.dynamic = range,
                    PT_GNU_RELRO => {
                        let start = entry.load_bias.wrapping_add(header.p_vaddr as usize);
                        entry.relro = start..start.wrapping_add(header.p_memsz as usize);
                    }
                    _ => {}
                }
            }
        }
        entry
    }

    /// Whether it was opened since the process started.
    fn is_opened(&self) -> bool {
        let is_it = |it: &Arc<HostLibrary>| {
            it.memory.load_bias.get() == self.load_bias && it.name == self.name
        };
        self.has_path() && !startup().iter().any(is_it)
    }

    /// Whether it came from a file: not the executable, which has no name, nor the kernel's vdso,
    /// which is not searched.
    fn has_path(&self) -> bool {
        self.name.to_bytes().contains(&b'/')
    }

    /// That library, if it is still there.
    fn held(self) -> Result<Option<Arc<HostLibrary>>, Error> {
        let Some(handle) = Handle::loaded(&self.name) else { return Ok(None) };
        // It may have gone, and another come in its place, before it was held.
        let is_it = handle.link_map().is_some_and(|map| map.0 == self.load_bias);
        let library = if is_it { HostLibrary::new(self, Some(handle))? } else { None };
        Ok(library.map(Arc::new))
    }

    /// Those of these libraries that are still there.
    fn all_held(listed: Vec<PhdrEntry>) -> Result<Vec<Arc<HostLibrary>>, Error> {
        let held = listed.into_iter().map(PhdrEntry::held);
        try_collect_ok(held.filter_map(Result::transpose))
    }
}

/// All libraries of the process, in `ld.so`'s order.
fn listed() -> Result<Vec<PhdrEntry>, Error> {
    listed_if(&mut |_| Ok(true))
}

/// The libraries that were opened since the process started and define `name`.
///
/// They are looked into while `ld.so` keeps them where they are: taking a handle of each would, for
/// that moment, keep others from unloading what they close.
fn opened_defining(
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
) -> Result<Vec<PhdrEntry>, Error> {
    opened_if(&mut |listed| {
        let library = HostLibrary::new(listed.clone(), None)?;
        Ok(library.is_some_and(|library| library.defines(name, wanted)))
    })
}

/// The libraries that were opened since the process started and that may have unique definitions:
/// linkers note in the ELF header that they need GNU's extensions.
fn libraries_with_unique() -> Result<Vec<Arc<HostLibrary>>, Error> {
    let has_some = |listed: &PhdrEntry| {
        let header = listed.readable.iter().find(|segment| segment.contains(&Vaddr(0)));
        header.is_some_and(|segment| segment.end > Vaddr(SIZEOF_EHDR as u64))
            // SAFETY: the start of the image of a listed library, while it is kept where it is.
            && unsafe { *(listed.load_bias as *const u8).add(EI_OSABI) } == ELFOSABI_GNU
    };
    PhdrEntry::all_held(opened_if(&mut |listed| Ok(has_some(listed)))?)
}

/// Those of the libraries that were opened since the process started that `keep` says, as
/// [`listed_if`].
fn opened_if(keep: &mut Filter<'_>) -> Result<Vec<PhdrEntry>, Error> {
    if start().alone_at == Some(loads()) {
        return Ok(Vec::new());
    }
    listed_if(&mut |listed| Ok(listed.is_opened() && keep(listed)?))
}

/// Whether a library is one of those that are looked for.
type Filter<'a> = dyn FnMut(&PhdrEntry) -> Result<bool, Error> + 'a;

/// Those that `keep` says, which must not come back to `ld.so`: its list is locked.
fn listed_if(keep: &mut Filter<'_>) -> Result<Vec<PhdrEntry>, Error> {
    struct Visit<'a, 'b> {
        keep: &'a mut Filter<'b>,
        list: Vec<PhdrEntry>,
        done: Result<(), Error>,
    }
    impl Visit<'_, '_> {
        /// # Safety
        /// The record is valid during the call.
        unsafe fn add(&mut self, info: &libc::dl_phdr_info) -> Result<(), Error> {
            // There can be many of them.
            require_memory()?;
            // SAFETY: the caller's promise.
            let listed = unsafe { PhdrEntry::new(info) };
            if (self.keep)(&listed)? { self.list.try_push(listed) } else { Ok(()) }
        }
    }
    unsafe extern "C" fn add(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        visit: *mut c_void,
    ) -> c_int {
        // SAFETY: `dl_iterate_phdr` gives a valid record, whose name and program headers live
        // during the call; `visit` is the local below, which nobody else uses meanwhile.
        unsafe {
            let visit = &mut *visit.cast::<Visit<'_, '_>>();
            visit.done = visit.add(&*info);
            c_int::from(visit.done.is_err())
        }
    }
    let mut visit = Visit { keep, list: Vec::new(), done: Ok(()) };
    // SAFETY: the callback has the signature that is asked for and does not unwind.
    unsafe { process::visit_libraries(add, (&raw mut visit).cast()) };
    visit.done.map(|()| visit.list)
}

impl HostLibrary {
    /// `None` for what has no symbols.
    fn new(listed: PhdrEntry, handle: Option<Handle>) -> Result<Option<HostLibrary>, Error> {
        let memory = HostMemory {
            load_bias: LoadBias::between(Vaddr(0), listed.load_bias),
            readable: listed.readable,
        };
        let Some(section) = listed.dynamic.and_then(|section| memory.read(section)) else {
            return Ok(None);
        };
        let dynamic = Dynamic::parse(section)?
            .unrelocated(ADDRESS_TAGS, listed.load_bias as u64)
            .unrelocated(&[DT_RELA, DT_JMPREL], listed.load_bias as u64);
        let symbols = match SymbolLayout::new(&dynamic, &memory) {
            Ok(symbols) => symbols,
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(_) => return Ok(None),
        };
        let Some(table) = SymbolTable::over(&symbols, &memory) else { return Ok(None) };
        let string = |offset: u64| CString::new(table.string(u32::try_from(offset).ok()?)?).ok();
        let soname = dynamic.get(DT_SONAME).and_then(string);
        let needed = dynamic.all(DT_NEEDED).filter_map(string).collect();
        let tls_module = ModuleId(listed.tls_module);
        Ok(Some(HostLibrary {
            name: listed.name,
            soname,
            needed,
            memory,
            symbols,
            tls_module,
            handle,
            relocations: [
                dynamic.table(DT_JMPREL, DT_PLTRELSZ).flatten(),
                dynamic.table(DT_RELA, DT_RELASZ).flatten(),
            ],
            relro: listed.relro,
            opened_for_image: false,
        }))
    }

    /// The library behind an open handle.
    fn held(handle: Handle) -> Result<Option<HostLibrary>, Error> {
        let Some((load_bias, name)) = handle.link_map() else { return Ok(None) };
        let is_it = |listed: &PhdrEntry| listed.load_bias == load_bias && listed.name == name;
        let known = made_names().opened_now().and_then(|opened| {
            let mut listed = opened.libraries.iter().map(|library| &library.listed);
            listed.find(|listed| is_it(listed)).cloned()
        });
        let listed = match known {
            Some(listed) => Some(listed),
            None => listed_if(&mut |listed| Ok(is_it(listed)))?.pop(),
        };
        listed.map_or(Ok(None), |listed| HostLibrary::new(listed, Some(handle)))
    }

    /// The library of this name, if the process has loaded it.
    pub(crate) fn loaded(name: &CStr) -> Result<Option<Arc<HostLibrary>>, Error> {
        if let Some(library) = startup().iter().find(|library| library.is_called(name)) {
            return Ok(Some(library.clone()));
        }
        let Some(handle) = Handle::loaded(name) else { return Ok(None) };
        Ok(HostLibrary::held(handle)?.map(Arc::new))
    }

    /// The library of this name, opened by the system's loader: from one of these folders, or
    /// else from where it searches. Its constructors run.
    pub(crate) fn open(
        name: &CStr,
        folders: &[PathBuf],
        _: MayRun,
    ) -> Result<Arc<HostLibrary>, OpenError> {
        let file = find_file(name, folders);
        let path = file.as_ref().and_then(|file| CString::new(file.as_os_str().as_bytes()).ok());
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
        // What it needs itself may lie in these folders too (`DT_RPATH` holds for all that is
        // loaded on behalf of an image): then that is opened first.
        let mut needed = Vec::new();
        let mut text = String::new();
        let handle = (0..MAX_NEEDED).find_map(|_| {
            let handle = Handle::open(path.as_deref().unwrap_or(name), flags);
            if handle.is_none() {
                text = last_dl_error().unwrap_or_default();
                let missing = text.split_once(": cannot open shared object file");
                let missing = missing.and_then(|(missing, _)| CString::new(missing).ok());
                let file = missing.and_then(|missing| find_file(&missing, folders));
                let file = file.and_then(|it| CString::new(it.as_os_str().as_bytes()).ok());
                match file.and_then(|file| Handle::try_open(&file, flags)) {
                    Some(opened) => needed.push(opened),
                    None => return Some(None),
                }
            }
            handle.map(Some)
        });
        let Some(handle) = handle.flatten() else {
            // No other way tells why. The message is not translated (it would be in glibc's
            // catalogue, and there is none for `ld.so`).
            let unbound = text.contains("undefined symbol");
            let file = file.or_else(|| find_file(name, &search_folders()));
            return Err(OpenError { file: file.filter(|_| unbound), text });
        };
        let refused = |text: String| OpenError { text, file: None };
        let library = HostLibrary::held(handle).map_err(|error| refused(error.to_string()))?;
        let library = library.ok_or_else(|| refused("it has no symbol table".into()))?;
        Ok(Arc::new(HostLibrary { opened_for_image: true, ..library }))
    }

    /// The name that a `DT_NEEDED` entry has for it, and its file, if it was opened for an image.
    pub(crate) fn opened_file(&self) -> Option<(String, PathBuf)> {
        let path = PathBuf::from(OsStr::from_bytes(self.name.to_bytes()));
        let name = match &self.soname {
            Some(soname) => soname.to_string_lossy().into_owned(),
            None => path.file_name()?.to_string_lossy().into_owned(),
        };
        self.opened_for_image.then_some((name, path))
    }

    /// Keeps a library that was opened for an image, now that the image is in place. Such a
    /// library may have threads of its own that outlive every call into it (libgomp's pool does),
    /// and the next load of the image finds it there.
    pub(crate) fn stay_loaded(&self) {
        if self.opened_for_image {
            let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            drop(Handle::try_open(&self.name, flags));
        }
    }

    /// Whether a `DT_NEEDED` entry of this name means this library.
    fn is_called(&self, name: &CStr) -> bool {
        self.soname.as_deref() == Some(name) || !name.is_empty() && self.name.as_c_str() == name
    }

    /// Whether its `DT_SONAME` is this.
    pub(crate) fn has_soname(&self, name: &[u8]) -> bool {
        self.soname.as_deref().is_some_and(|soname| soname.to_bytes() == name)
    }

    /// Whether it is one and the same as `other`.
    pub(crate) fn is(&self, other: &HostLibrary) -> bool {
        self.memory.load_bias == other.memory.load_bias && self.name == other.name
    }

    /// Whether it belongs to the start-up set, and so to the global scope.
    pub(crate) fn is_startup(&self) -> bool {
        self.handle.is_none()
    }

    /// The libraries that it needs, directly, as far as they are loaded.
    pub(crate) fn dependencies(&self) -> Result<Vec<Arc<HostLibrary>>, Error> {
        let loaded = self.needed.iter().map(|name| HostLibrary::loaded(name));
        try_collect_ok(loaded.filter_map(Result::transpose))
    }

    #[expect(clippy::expect_used, reason = "`new` has made a table of the same memory")]
    fn table(&self) -> SymbolTable<'_> {
        SymbolTable::over(&self.symbols, &self.memory)
            .expect("the layout was made from this memory")
    }

    /// Whether it defines this name.
    fn defines(&self, name: &SymbolName<'_>, wanted: VersionMatch<'_>) -> bool {
        self.table().lookup(name, wanted, TypeClass::Definition).is_some()
    }

    /// Whether it defines this version.
    pub(crate) fn defines_version(&self, version: &Version<'_>) -> bool {
        self.table().defines_version(version)
    }

    /// What `name` is bound to in this library.
    pub(crate) fn lookup(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<HostSymbol> {
        let (_, symbol) = self.table().lookup(name, wanted, class)?;
        Some(self.host_symbol(&symbol))
    }

    /// Points this library's references to `name` at `address`; tells whether there are any.
    fn patch_got(&self, name: &[u8], change: &dyn Fn(usize) -> Option<usize>) -> bool {
        let table = self.table();
        let mut found = false;
        for rela in self.relas() {
            let is_reference = matches!(
                arch::MACHINE.reloc_kind(rela.r_type),
                Some(RelocKind::JumpSlot | RelocKind::GlobDat)
            );
            let symbol = if is_reference { table.symbol(rela.symbol) } else { None };
            if symbol.is_some_and(|symbol| table.string(symbol.st_name) == Some(name)) {
                let word = self.memory.load_bias.apply(rela.r_offset);
                // SAFETY: a word of the global offset table of a library that is held, or
                // always there, which `ld.so` has filled in; its code reads it whole.
                found |= unsafe {
                    match change((*(word as *const AtomicUsize)).load(Ordering::SeqCst)) {
                        Some(to) => {
                            process::write_relro(word, &to.to_ne_bytes(), &self.relro).is_ok()
                        }
                        None => true,
                    }
                };
            }
        }
        found
    }

    /// The one definition of a unique symbol (`STB_GNU_UNIQUE`) that this library has one of: what
    /// `ld.so`'s own table says, which `dlsym` looks into.
    pub(crate) fn unique(&self, name: &SymbolName<'_>) -> Option<HostSymbol> {
        let table = self.table();
        let (index, symbol) = table.lookup(name, VersionMatch::Any, TypeClass::Definition)?;
        if !symbol.is_unique() || symbol.is_thread_local() {
            return None;
        }
        let handle = self.handle.as_ref().unwrap_or_else(|| Handle::global_scope());
        let c_name = CString::new(name.bytes()).ok()?;
        let version = table.version(index).and_then(|it| CString::new(it.name()).ok());
        let address = handle.symbol(&c_name, version.as_deref())?;
        Some(HostSymbol { definition: SymbolValue::Address(address), ..self.host_symbol(&symbol) })
    }

    /// Whether it defines this name, and its own references to it were bound.
    fn has_bound(&self, name: &SymbolName<'_>) -> bool {
        let found = self.table().lookup(name, VersionMatch::Any, TypeClass::Definition);
        found.is_some_and(|(index, _)| self.relas().any(|rela| rela.symbol == index))
    }

    /// Its relocations with symbols.
    fn relas(&self) -> impl Iterator<Item = Rela> + '_ {
        let tables = self.relocations.iter().flatten();
        tables.flat_map(|range| Rela::entries(self.memory.read(range.clone()).unwrap_or(&[])))
    }

    fn host_symbol(&self, symbol: &Sym) -> HostSymbol {
        let definition = if symbol.is_thread_local() {
            SymbolValue::ThreadLocal { module: self.tls_module, offset: symbol.st_value }
        } else if symbol.is_absolute() {
            SymbolValue::Address(symbol.st_value as usize)
        } else {
            let address = self.memory.load_bias.apply(Vaddr(symbol.st_value));
            if symbol.is_ifunc() && !symbol.is_undefined() {
                // SAFETY: an IFUNC of a library that `ld.so` has relocated; `dlsym` does the same.
                SymbolValue::Address(unsafe { arch::call_ifunc_resolver(address) })
            } else {
                SymbolValue::Address(address)
            }
        };
        HostSymbol { definition, st_size: symbol.st_size, is_canonical_plt: symbol.is_undefined() }
    }
}

/// Whether a library of `ld.so`'s, or the executable, lies at this address.
pub(crate) fn has_address(address: usize) -> bool {
    // SAFETY: `Dl_info` is plain data that `dladdr` fills in; any address may be asked for.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        libc::dladdr(address as *const c_void, &mut info) != 0
    }
}

/// The names, without folders, of the files that the process's libraries came from.
pub(crate) fn loaded_files() -> Result<HashSet<Vec<u8>>, Error> {
    let file_name = |it: PhdrEntry| Some(Path::new(it.name.to_str().ok()?).file_name()?.to_owned());
    let files = listed()?;
    // As many as the list, which is there.
    require_memory()?;
    Ok(files.into_iter().filter_map(file_name).map(OsString::into_vec).collect())
}

/// Whether the process has loaded a library of this name.
pub(crate) fn is_loaded(name: &CStr) -> bool {
    startup().iter().any(|library| library.is_called(name)) || Handle::loaded(name).is_some()
}

/// Whether this is the handle that `dlopen(NULL)` gives.
pub(crate) fn is_executable(handle: *mut c_void) -> bool {
    handle == Handle::global_scope().0
}

/// How many libraries are opened first because another needs them.
const MAX_NEEDED: usize = 64;

/// Why the system's loader did not open a library.
pub(crate) struct OpenError {
    pub text: String,
    /// The library's file, if it is there and only could not be bound.
    pub file: Option<PathBuf>,
}

/// The file of this name in the first of these folders that has one.
pub(crate) fn find_file(name: &CStr, folders: &[PathBuf]) -> Option<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
    if name.components().nth(1).is_some() {
        return name.is_file().then(|| name.to_owned());
    }
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Where the system's loader searches for libraries of the executable (`LD_LIBRARY_PATH` and the
/// standard folders).
pub(crate) fn search_folders() -> Vec<PathBuf> {
    const RTLD_DI_SERINFO: c_int = 4;
    const RTLD_DI_SERINFOSIZE: c_int = 5;
    /// `Dl_serinfo` (`<dlfcn.h>`), up to its array of `Dl_serpath`.
    #[repr(C)]
    struct SearchInfo {
        dls_size: usize,
        dls_cnt: u32,
    }
    #[repr(C)]
    struct SearchPath {
        dls_name: *const libc::c_char,
        dls_flags: u32,
    }
    let executable = Handle::global_scope().0;
    let mut size = SearchInfo { dls_size: 0, dls_cnt: 0 };
    // SAFETY: an open handle; the first request fills the size in, the second the room of that size,
    // which begins with the size. Names point into the same room, or to strings of `ld.so`'s.
    unsafe {
        if executable.is_null()
            || libc::dlinfo(executable, RTLD_DI_SERINFOSIZE, (&raw mut size).cast()) != 0
        {
            return Vec::new();
        }
        let mut room = vec![0u64; size.dls_size.div_ceil(8)];
        let info = room.as_mut_ptr().cast::<SearchInfo>();
        info.write(SearchInfo { dls_size: size.dls_size, dls_cnt: size.dls_cnt });
        if libc::dlinfo(executable, RTLD_DI_SERINFO, info.cast()) != 0 {
            return Vec::new();
        }
        let paths = info.add(1).cast::<SearchPath>();
        let names = (0..(*info).dls_cnt as usize).map(|index| (*paths.add(index)).dls_name);
        names
            .map(|name| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())))
            .collect()
    }
}

/// How many libraries `ld.so` has loaded so far.
pub(crate) fn loads() -> u64 {
    Changes::now().loads
}

/// How often `ld.so`'s list of libraries has changed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Changes {
    loads: u64,
    unloads: u64,
}

impl Changes {
    fn now() -> Changes {
        unsafe extern "C" fn first(
            info: *mut libc::dl_phdr_info,
            _: usize,
            changes: *mut c_void,
        ) -> c_int {
            // SAFETY: a valid record during the call, and the local below.
            unsafe {
                let (loads, unloads) = ((*info).dlpi_adds, (*info).dlpi_subs);
                *changes.cast::<Changes>() = Changes { loads, unloads };
            }
            1
        }
        let mut changes = Changes::default();
        // SAFETY: the callback has the signature that is asked for and does not unwind.
        unsafe { process::visit_libraries(first, (&raw mut changes).cast()) };
        changes
    }
}

/// In every library that defines `definer`, has `change` choose where the reference to `name` points: it
/// is given where that does now; `None` is to leave it. Tells how many libraries there are whose reference
/// was found.
///
/// One thread of the process does so at a time, whichever copy of memdl it is in.
pub(crate) fn patch_got(
    definer: &[u8],
    name: &[u8],
    change: &dyn Fn(usize) -> Option<usize>,
) -> usize {
    let (definer, wanted) = (SymbolName::new(definer), VersionMatch::Default);
    // The executable is without a name.
    let defines = |it: &&Arc<HostLibrary>| !it.name.is_empty() && it.defines(&definer, wanted);
    let startup = startup().iter().filter(defines).cloned();
    // What cannot be had is looked for again when the next library is loaded.
    let opened =
        opened_defining(&definer, wanted).and_then(PhdrEntry::all_held).unwrap_or_default();
    let libraries: Vec<Arc<HostLibrary>> = startup.chain(opened).collect();
    let mut found = 0;
    let count = || libraries.iter().filter(|library| library.patch_got(name, change)).count();
    process::alone(&mut || found = count());
    found
}

/// A symbol found in a host library.
#[derive(Clone, Copy)]
pub(crate) struct HostSymbol {
    pub definition: SymbolValue,
    pub st_size: u64,
    /// The executable's PLT entry for a function that is defined elsewhere.
    pub is_canonical_plt: bool,
}

/// Finds out what is found out once in a process.
pub(crate) fn set_up() -> Result<(), Error> {
    if START.get().is_none() {
        let _ = START.set(Start::find()?);
    }
    Handle::global_scope();
    Ok(())
}

/// What the process started with.
#[derive(Default)]
struct Start {
    /// The start-up set in search order.
    set: Vec<Arc<HostLibrary>>,
    /// As long as `ld.so` has loaded so many libraries, there are no others.
    alone_at: Option<u64>,
}

/// The start-up set in search order.
fn startup() -> &'static [Arc<HostLibrary>] {
    &start().set
}

/// Every load has found it out before ([`set_up`]).
fn start() -> &'static Start {
    START.get_or_init(|| Start::find().unwrap_or_default())
}

static START: OnceLock<Start> = OnceLock::new();

impl Start {
    fn find() -> Result<Start, Error> {
        // Before the list: what is opened in between counts as opened.
        let loads = loads();
        let list = listed()?;
        let file_name = |path: &CStr| {
            path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or(&[]).to_vec()
        };
        // Breadth first from the executable, by file name: a needed library that was found under
        // another name only makes the prefix shorter.
        let mut last = 0;
        let mut names: Vec<Vec<u8>> = try_vec(list.len())?;
        for listed in &list {
            require_memory()?;
            names.push(file_name(&listed.name));
        }
        // Each as it is listed until it is looked into, and what was found then.
        let mut entries: Vec<(Option<PhdrEntry>, Option<Arc<HostLibrary>>)> =
            try_collect(list.into_iter().map(|listed| (Some(listed), None)))?;
        let mut queue = vec![0];
        while let Some(index) = queue.pop() {
            require_memory()?;
            let Some((listed, found)) = entries.get_mut(index) else { continue };
            let Some(listed) = listed.take() else { continue };
            let Some(library) = HostLibrary::new(listed, None)? else { continue };
            last = last.max(index);
            for needed in &library.needed {
                let wanted = file_name(needed);
                queue.try_extend(names.iter().position(|name| *name == wanted))?;
            }
            *found = Some(Arc::new(library));
        }
        // What lies before the last of them was there at start-up too: preloaded libraries and
        // what they need.
        let mut alone = true;
        for (index, (listed, found)) in entries.iter_mut().enumerate() {
            if let Some(listed) = listed.take().filter(PhdrEntry::has_path) {
                require_memory()?;
                if index < last {
                    *found = HostLibrary::new(listed, None)?.map(Arc::new);
                }
                alone &= found.is_some();
            }
        }
        let set = try_collect(entries.into_iter().filter_map(|(_, found)| found))?;
        Ok(Start { set, alone_at: alone.then_some(loads) })
    }
}

/// What the host's global scope defines, as `dlsym(RTLD_DEFAULT, ..)` sees it from the executable.
pub(crate) struct GlobalScope {
    startup: Vec<(&'static HostLibrary, SymbolTable<'static>)>,
    /// What the start-up set defines, once that is worth knowing.
    startup_names: OnceCell<Arc<NameFilter>>,
    /// Whether it was asked for a name.
    asked: Cell<bool>,
    /// The libraries that were opened since the process started, for others to see or not; and, where
    /// it was asked, whether this one is for others to see.
    opened: OnceCell<(Arc<Opened>, Vec<OnceCell<GlobalVisibility>>)>,
    /// Of these, those that may have unique definitions.
    with_unique: OnceCell<Vec<Arc<HostLibrary>>>,
    /// Of these, those that something was found in, the last first: mostly there is more in them.
    found_in: RefCell<Vec<Arc<HostLibrary>>>,
    /// There was no memory to find something out, so what was found may be wrong.
    failed: RefCell<Option<Error>>,
}

/// When so many names were asked for they are worth being made: it takes as long as searching for some
/// hundred, which the first load in a process should not wait for.
const WORTH_NAMES: usize = 100;
/// How many were asked for without them.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// The names that libraries define, as far as they were wanted.
struct MadeNames {
    /// Those of the start-up set.
    startup: Option<Arc<NameFilter>>,
    /// Those of all others, and when that was so.
    opened: Option<(Changes, Arc<Opened>)>,
}

impl MadeNames {
    /// Those of the others, if they are as they were.
    fn opened_now(&self) -> Option<Arc<Opened>> {
        let now = Changes::now();
        let (_, opened) = self.opened.as_ref().filter(|(changes, _)| *changes == now)?;
        Some(opened.clone())
    }
}

/// What libraries define that were opened since the process started.
struct Opened {
    names: NameFilter,
    libraries: Vec<OpenedLibrary>,
}

struct OpenedLibrary {
    listed: PhdrEntry,
    names: NameFilter,
    /// A name that it defines for whoever can see it, and the address.
    defined: Option<(CString, usize)>,
}

/// Whether a library was opened for others to see (`RTLD_GLOBAL`). That can change while it is there,
/// without a sign, so it holds for one load.
enum GlobalVisibility {
    No,
    /// Held, since it may be unloaded by others.
    Yes(Arc<HostLibrary>),
    Perhaps,
}

impl OpenedLibrary {
    fn new(
        library: &HostLibrary,
        listed: &PhdrEntry,
        hashes: &[u32],
    ) -> Result<OpenedLibrary, Error> {
        let table = library.table();
        // `dlsym` would call the resolver of an IFUNC, and is not to find another version.
        let is_plain = |index: u32, symbol: &Sym| {
            !symbol.is_ifunc()
                && !symbol.is_thread_local()
                && !symbol.is_absolute()
                && table.is_default_version(index)
        };
        let found = table.exports().find(|(index, symbol)| is_plain(*index, symbol));
        let defined = found.and_then(|(_, symbol)| {
            let name = CString::new(table.string(symbol.st_name)?).ok()?;
            Some((name, library.memory.load_bias.apply(Vaddr(symbol.st_value))))
        });
        Ok(OpenedLibrary { listed: listed.clone(), names: NameFilter::new(hashes)?, defined })
    }

    fn seen(&self) -> Result<GlobalVisibility, Error> {
        let Some((name, address)) = &self.defined else { return Ok(GlobalVisibility::Perhaps) };
        require_memory()?;
        Ok(match Handle::global_scope().symbol(name, None) {
            // If `dlsym` finds nobody who defines the name, then this library is none that it sees.
            None => GlobalVisibility::No,
            Some(found) if found == *address => {
                self.listed.clone().held()?.map_or(GlobalVisibility::Perhaps, GlobalVisibility::Yes)
            }
            Some(_) => GlobalVisibility::Perhaps,
        })
    }
}

static NAMES: Lock<MadeNames> =
    Lock::new(Rank::HostNames, MadeNames { startup: None, opened: None });

fn made_names() -> Guard<'static, MadeNames> {
    NAMES.lock()
}

/// The names that the start-up set defines; `None` if nobody has made them yet.
fn startup_names(make: bool) -> Option<Arc<NameFilter>> {
    let mut made = made_names();
    if made.startup.is_none() && make {
        // Without memory for them it goes on without.
        let mut hashes = Vec::new();
        let mut libraries = startup().iter();
        libraries.try_for_each(|it| hashes.try_extend(it.table().gnu_hashes_31())).ok()?;
        made.startup = Some(Arc::new(NameFilter::new(&hashes).ok()?));
    }
    made.startup.clone()
}

/// What all other libraries define now.
fn opened() -> Result<Arc<Opened>, Error> {
    let now = Changes::now();
    let mut made = made_names();
    if let Some(opened) = made.opened_now() {
        return Ok(opened);
    }
    let (mut hashes, mut libraries) = (Vec::new(), Vec::new());
    // They are looked into while `ld.so` keeps them where they are.
    opened_if(&mut |listed| {
        if let Some(library) = HostLibrary::new(listed.clone(), None)? {
            let own = try_collect(library.table().gnu_hashes_31())?;
            libraries.try_push(OpenedLibrary::new(&library, listed, &own)?)?;
            hashes.try_append(&own)?;
        }
        Ok(false)
    })?;
    let opened = Arc::new(Opened { names: NameFilter::new(&hashes)?, libraries });
    made.opened = Some((now, opened.clone()));
    Ok(opened)
}

/// A definition in the global scope, with what keeps it there.
pub(crate) struct GlobalSymbol {
    pub symbol: HostSymbol,
    /// The library that defines it, unless it is always there.
    pub library: Option<Arc<HostLibrary>>,
}

impl GlobalScope {
    /// The scope as it is now.
    pub(crate) fn new() -> Result<GlobalScope, Error> {
        let startup = try_collect(startup().iter().map(|library| (&**library, library.table())))?;
        Ok(GlobalScope {
            startup,
            startup_names: OnceCell::new(),
            asked: Cell::new(false),
            opened: OnceCell::new(),
            with_unique: OnceCell::new(),
            found_in: RefCell::default(),
            failed: RefCell::default(),
        })
    }

    /// Fails if there was no memory to answer what was asked. To be called once all was asked: until
    /// then answers can be wrong.
    pub(crate) fn check_memory(&self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// What was found out, or else what stands for it until [`GlobalScope::check_memory`] is called.
    fn noting<T>(&self, found: Result<T, Error>, otherwise: impl FnOnce() -> T) -> T {
        found.unwrap_or_else(|error| {
            self.failed.replace(Some(error));
            otherwise()
        })
    }

    /// The names that libraries define, for others to see or not; `None` if those of the start-up set
    /// were not worth making so far.
    pub(crate) fn names(&self) -> Option<[&NameFilter; 2]> {
        if self.startup_names.get().is_none()
            && let Some(names) = startup_names(false)
        {
            let _ = self.startup_names.set(names);
        }
        Some([self.startup_names.get()?, &self.opened().0.names])
    }

    /// Whether a library may define, for others to see, a name with this hash
    /// ([`SymbolName::gnu_hash_31`]).
    #[inline]
    pub(crate) fn may_define(&self, gnu_hash_31: u32) -> bool {
        self.startup_may_have(gnu_hash_31) || self.that_may_show(gnu_hash_31).next().is_some()
    }

    #[inline]
    fn startup_may_have(&self, gnu_hash_31: u32) -> bool {
        match self.startup_names.get() {
            Some(names) => names.may_have(gnu_hash_31),
            None => self.unfiltered(gnu_hash_31),
        }
    }

    /// As [`GlobalScope::startup_may_have`], while this scope does not have the names.
    fn unfiltered(&self, gnu_hash_31: u32) -> bool {
        let is_first = !self.asked.replace(true);
        let is_time = ASKED.fetch_add(1, Ordering::Relaxed) == WORTH_NAMES;
        if (is_first || is_time)
            && let Some(names) = startup_names(is_time)
        {
            let _ = self.startup_names.set(names);
        }
        self.startup_names.get().is_none_or(|names| names.may_have(gnu_hash_31))
    }

    #[inline]
    fn opened(&self) -> &(Arc<Opened>, Vec<OnceCell<GlobalVisibility>>) {
        self.opened.get_or_init(|| {
            let found = opened().and_then(|opened| {
                let seen = try_collect(opened.libraries.iter().map(|_| OnceCell::new()))?;
                Ok((opened, seen))
            });
            let none = || Opened { names: NameFilter::none(), libraries: Vec::new() };
            self.noting(found, || (Arc::new(none()), Vec::new()))
        })
    }

    /// The libraries that were opened, may define such a name, and may be seen.
    fn that_may_show(&self, gnu_hash_31: u32) -> impl Iterator<Item = &GlobalVisibility> {
        let (opened, seen) = self.opened();
        // Mostly it is none that any of them defines.
        let any = opened.names.may_have(gnu_hash_31);
        let libraries = any.then(|| opened.libraries.iter().zip(seen));
        libraries.into_iter().flatten().filter_map(move |(library, seen)| {
            let found = || self.noting(library.seen(), || GlobalVisibility::Perhaps);
            let seen = || seen.get_or_init(found);
            library
                .names
                .may_have(gnu_hash_31)
                .then(seen)
                .filter(|seen| !matches!(seen, GlobalVisibility::No))
        })
    }

    /// The one definition of a unique symbol, if a library that was opened since the process started
    /// has one of it: whoever can see that library, `ld.so` keeps one table for all.
    pub(crate) fn unique(&self, name: &SymbolName<'_>) -> Option<(HostSymbol, Arc<HostLibrary>)> {
        if !self.opened().0.names.may_have(name.gnu_hash_31()) {
            return None;
        }
        let find = || self.noting(libraries_with_unique(), Vec::new);
        let libraries = self.with_unique.get_or_init(find);
        // It is in that table once a reference was bound to it, as most libraries' own are; asking
        // for another would put it there.
        let mut libraries = libraries.iter().filter(|library| library.has_bound(name));
        libraries.find_map(|library| Some((library.unique(name)?, library.clone())))
    }

    /// What `name` is bound to.
    pub(crate) fn lookup(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<GlobalSymbol> {
        if self.startup_may_have(name.gnu_hash_31()) {
            let found = self.startup.iter().find_map(|(library, table)| {
                let (_, symbol) = table.lookup(name, wanted, class)?;
                Some(library.host_symbol(&symbol))
            });
            if let Some(symbol) = found {
                return Some(GlobalSymbol { symbol, library: None });
            }
        }
        let mut libraries = self.that_may_show(name.gnu_hash_31());
        match (libraries.next()?, libraries.next()) {
            // Nobody else can have it.
            (GlobalVisibility::Yes(library), None) => {
                let (_, symbol) = library.table().lookup(name, wanted, class)?;
                if symbol.is_unique() {
                    return self.lookup_opened(name, wanted, class);
                }
                let symbol = library.host_symbol(&symbol);
                Some(GlobalSymbol { symbol, library: Some(library.clone()) })
            }
            _ => self.lookup_opened(name, wanted, class),
        }
    }

    /// A symbol of a library that was opened with `RTLD_GLOBAL` after the process started: `dlsym`
    /// says whether there is one; which library has it must be searched.
    fn lookup_opened(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<GlobalSymbol> {
        let c_string = |bytes: &[u8]| self.noting(try_c_string(bytes), || None);
        let c_name = c_string(name.bytes())?;
        let version = match wanted {
            VersionMatch::Version(version) => Some(c_string(version.name())?),
            VersionMatch::Unversioned | VersionMatch::Default | VersionMatch::Any => None,
        };
        let address = Handle::global_scope().symbol(&c_name, version.as_deref())?;
        // `dlsym` has its own idea of which definition an unversioned name means: it tells which
        // library, and the reference's rules which of that library's definitions.
        let told = if version.is_some() { wanted } else { VersionMatch::Default };
        let of_library = |library: Arc<HostLibrary>| {
            let is_it = library.lookup(name, told, TypeClass::Address).is_some_and(|symbol| {
                match symbol.definition {
                    SymbolValue::Address(found) => found == address,
                    // SAFETY: the library is held, and the offset is its own symbol's.
                    SymbolValue::ThreadLocal { module, offset } => unsafe {
                        module.address(offset).addr() == address
                    },
                }
            });
            let symbol = is_it.then(|| library.lookup(name, wanted, class)).flatten()?;
            Some(GlobalSymbol { symbol, library: Some(library) })
        };
        let known = self.found_in.borrow().iter().cloned().find_map(of_library);
        if known.is_some() {
            return known;
        }
        let defining = opened_defining(name, VersionMatch::Any).and_then(PhdrEntry::all_held);
        for library in self.noting(defining, Vec::new) {
            if let Some(found) = of_library(library.clone()) {
                let mut found_in = self.found_in.borrow_mut();
                if found_in.try_room(1).is_ok() {
                    found_in.insert(0, library);
                }
                return Some(found);
            }
        }
        // `dlsym` found it, so it is there, in whatever form.
        let symbol = HostSymbol {
            definition: SymbolValue::Address(address),
            st_size: 0,
            is_canonical_plt: false,
        };
        Some(GlobalSymbol { symbol, library: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `dlsym` is the reference: every name that libc exports must be found at the same address.
    #[test]
    fn every_symbol_of_libc_is_what_dlsym_says() {
        let scope = GlobalScope::new().unwrap();
        let libc = HostLibrary::loaded(c"libc.so.6").unwrap().expect("every test binary has libc");
        assert!(libc.is_startup());
        let table = libc.table();
        let mut compared = 0;
        for (_, symbol) in table.exports().filter(|(_, symbol)| !symbol.is_thread_local()) {
            let name = SymbolName::new(table.string(symbol.st_name).unwrap());
            let Some(reference) =
                Handle::global_scope().symbol(&CString::new(name.bytes()).unwrap(), None)
            else {
                continue;
            };
            let found = scope
                .lookup(&name, VersionMatch::Default, TypeClass::Address)
                .map(|found| found.symbol.definition);
            assert_eq!(
                found,
                Some(SymbolValue::Address(reference)),
                "{}",
                String::from_utf8_lossy(name.bytes())
            );
            compared += 1;
        }
        assert!(compared > 2000, "only {compared}");
    }

    #[test]
    fn an_old_version_is_told_from_the_default_one() {
        let scope = GlobalScope::new().unwrap();
        let name = SymbolName::new(b"realpath");
        let address = |wanted| {
            scope.lookup(&name, wanted, TypeClass::Address).map(|found| found.symbol.definition)
        };
        let old = address(VersionMatch::Version(Version::exact(b"GLIBC_2.2.5")));
        let new = address(VersionMatch::Version(Version::exact(b"GLIBC_2.3")));
        assert!(old.is_some() && new.is_some() && old != new);
        assert_eq!(address(VersionMatch::Default), new);
        assert_eq!(address(VersionMatch::Unversioned), old);
        assert!(address(VersionMatch::Version(Version::exact(b"GLIBC_0.0"))).is_none());
    }
}
