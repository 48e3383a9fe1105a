//! One library that `ld.so` loaded, the executable included, and the symbols that it defines.
//!
//! Symbols are searched in the library's own hash tables, with the code that searches images. `dlsym` cannot
//! replace that: it tells neither the module of a thread-local variable, nor what an unversioned reference
//! of an image binds to, nor a definition from a PLT entry.
//!
//! Never opens a library ([`crate::host::open`] does). A library outside the start-up set is read only while
//! a handle to it is held, or while `ld.so`'s list is locked, since another thread could `dlclose` it.
//!
//! Sources: gABI "Dynamic Linking"; glibc `dl-lookup.c`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::arch;
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::Error;
use crate::base::promise::MayRun;
use crate::base::tls_index::ModuleId;
use crate::elf::constants::{
    DT_AUXILIARY, DT_FILTER, DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_RPATH,
    DT_RUNPATH, DT_SONAME,
};
use crate::elf::dynamic::Dynamic;
use crate::elf::eh_frame::EhFrame;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::{ADDRESS_TAGS, SymbolLayout, SymbolTable, Tables};
use crate::elf::versions::Version;
use crate::host::dl::Handle;
use crate::host::phdr::PhdrEntry;

/// A library that `ld.so` loaded, the executable included.
pub(crate) struct HostLibrary {
    pub(super) name: CString,
    /// The offset of `DT_SONAME` in the string table.
    soname: Option<u64>,
    needed_count: usize,
    /// It has `DT_FILTER` or `DT_AUXILIARY`.
    pub(super) is_filter: bool,
    dynamic: Range<Vaddr>,
    memory: HostMemory,
    _layout: Arc<SymbolLayout>,
    /// Of the layout, in `memory`.
    tables: Tables<'static>,
    tls_module: ModuleId,
    /// Keeps the library loaded. `None` for the start-up set, which stays loaded, and while `ld.so`'s list is
    /// locked.
    handle: Option<Handle>,
    relocations: [Option<Range<Vaddr>>; 2],
    pub(super) relro: Range<usize>,
    eh_frame_hdr: Option<Range<Vaddr>>,
    /// The process had not loaded it before an image needed it.
    pub(super) opened_for_image: bool,
    /// Its calls of `dlopen`, and those of all that it needs, were looked at.
    is_covered: AtomicBool,
    /// `ld.so` never unloads it. So what it needs stays the same.
    pub(super) is_permanent: bool,
    /// What a permanent library needs, once that was asked for.
    pub(super) known_dependencies: OnceLock<Vec<Arc<HostLibrary>>>,
}

/// The value of a symbol of a loaded library in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SymbolValue {
    Address(usize),
    ThreadLocal { module: ModuleId, offset: u64 },
}

/// Whether a look-up calls the resolver of an IFUNC that it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resolvers {
    Run,
    /// It does not: the value is the resolver's address.
    Rest,
}

impl Resolvers {
    /// They run if the caller promises that they may.
    pub(crate) fn promised(may_run: Option<MayRun>) -> Resolvers {
        if may_run.is_some() { Resolvers::Run } else { Resolvers::Rest }
    }
}

/// A symbol that a host library defines.
#[derive(Clone, Copy)]
pub(crate) struct HostSymbol {
    pub definition: SymbolValue,
    pub st_size: u64,
    /// It is the executable's PLT entry for a function that is defined elsewhere.
    pub is_canonical_plt: bool,
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
        // SAFETY: part of a readable segment that `ld.so` mapped and that stays mapped while this library is
        // held (`HostLibrary`); symbol tables are not written once it is loaded.
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

impl HostLibrary {
    /// `None` if it has no symbols.
    pub(super) fn new(
        listed: PhdrEntry,
        handle: Option<Handle>,
    ) -> Result<Option<HostLibrary>, Error> {
        let memory = HostMemory {
            load_bias: LoadBias::between(Vaddr(0), listed.load_bias),
            readable: listed.readable,
        };
        let Some(section) = listed.dynamic else { return Ok(None) };
        let Some(mut dynamic) = memory.read(section.clone()).map(Dynamic::parse) else {
            return Ok(None);
        };
        dynamic.unrelocate(ADDRESS_TAGS, listed.load_bias as u64);
        dynamic.unrelocate(&[DT_RELA, DT_JMPREL], listed.load_bias as u64);
        let symbols = match SymbolLayout::new(&dynamic, &memory) {
            Ok(symbols) => symbols,
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(_) => return Ok(None),
        };
        let layout = Arc::new(symbols);
        let Some(tables) = SymbolTable::over(&layout, &memory).map(|table| *table) else {
            return Ok(None);
        };
        // SAFETY: they refer to the layout, which the library owns and which does not move, and to memory that stays
        // mapped while the library is held (`HostMemory::slice`). `table` gives them no longer life than the
        // library's.
        let tables = unsafe { std::mem::transmute::<Tables<'_>, Tables<'static>>(tables) };
        let (soname, needed_count) = (dynamic.get(DT_SONAME), dynamic.needed_count());
        let is_filter = dynamic.get(DT_AUXILIARY).or(dynamic.get(DT_FILTER)).is_some();
        let relocations = [
            dynamic.table(DT_JMPREL, DT_PLTRELSZ).flatten(),
            dynamic.table(DT_RELA, DT_RELASZ).flatten(),
        ];
        let tls_module = ModuleId(listed.tls_module);
        Ok(Some(HostLibrary {
            name: listed.name,
            soname,
            needed_count,
            is_filter,
            dynamic: section,
            memory,
            _layout: layout,
            tables,
            tls_module,
            handle,
            relocations,
            relro: listed.relro,
            eh_frame_hdr: listed.eh_frame_hdr,
            opened_for_image: false,
            is_covered: AtomicBool::new(false),
            is_permanent: false,
            known_dependencies: OnceLock::new(),
        }))
    }

    /// The string of a dynamic entry.
    fn string(&self, offset: u64) -> Option<&CStr> {
        let strings = self.tables.strings_from(u32::try_from(offset).ok()?);
        CStr::from_bytes_until_nul(strings).ok()
    }

    /// The dynamic entries with tags that `is_wanted` accepts, as strings: the first `count`.
    fn strings_of(
        &self,
        count: usize,
        is_wanted: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = &CStr> {
        let section = if count == 0 { None } else { self.memory.read(self.dynamic.clone()) };
        let entries = Dynamic::entries(section.unwrap_or_default());
        let wanted = entries.filter(move |(tag, _)| is_wanted(*tag)).take(count);
        wanted.filter_map(|(_, offset)| self.string(offset))
    }

    fn soname(&self) -> Option<&CStr> {
        self.string(self.soname?)
    }

    /// What it needs: the strings of `DT_NEEDED`, then its filtees.
    pub(super) fn needed(&self) -> impl Iterator<Item = &CStr> {
        self.strings_of(self.needed_count, |tag| tag == DT_NEEDED).chain(self.filtee_names())
    }

    /// The strings of `DT_FILTER` and `DT_AUXILIARY`.
    pub(super) fn filtee_names(&self) -> impl Iterator<Item = &CStr> {
        let count = if self.is_filter { usize::MAX } else { 0 };
        self.strings_of(count, |tag| [DT_AUXILIARY, DT_FILTER].contains(&tag))
    }

    /// `DT_RPATH`, unless there is a `DT_RUNPATH`.
    pub(super) fn rpath(&self) -> Option<&CStr> {
        let last = |wanted: u64| self.strings_of(usize::MAX, move |tag| tag == wanted).last();
        if last(DT_RUNPATH).is_some() { None } else { last(DT_RPATH) }
    }

    /// Its name in `DT_NEEDED` entries, and its file, if it was opened for an image.
    pub(crate) fn opened_file(&self) -> Option<(String, PathBuf)> {
        let path = PathBuf::from(OsStr::from_bytes(self.name.to_bytes()));
        let name = match self.soname() {
            Some(soname) => soname.to_string_lossy().into_owned(),
            None => path.file_name()?.to_string_lossy().into_owned(),
        };
        self.opened_for_image.then_some((name, path))
    }

    /// Adds the library to the global scope, as `RTLD_GLOBAL` does.
    pub(crate) fn make_global(&self) {
        if !self.is_startup() {
            let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_GLOBAL;
            drop(Handle::try_open(&self.name, flags));
        }
    }

    /// Whether a `DT_NEEDED` entry of this name means this library.
    pub(super) fn is_called(&self, name: &CStr) -> bool {
        self.has_soname(name.to_bytes()) || !name.is_empty() && self.name.as_c_str() == name
    }

    /// Whether its calls of `dlopen`, and those of all that it needs, were looked at.
    pub(crate) fn is_covered(&self) -> bool {
        self.is_covered.load(Ordering::Relaxed)
    }

    /// Notes that they were.
    pub(crate) fn set_covered(&self) {
        self.is_covered.store(true, Ordering::Relaxed);
    }

    /// Its load bias, by which libraries that are loaded differ.
    pub(crate) fn load_bias(&self) -> usize {
        self.memory.load_bias.get()
    }

    /// Whether it is the C library, which defines `dlopen`, or `ld.so`.
    pub(crate) fn is_of_the_c_library(&self) -> bool {
        let names: [&[u8]; 2] = [b"__libc_start_main", b"_rtld_global"];
        names.iter().any(|name| self.defines(&SymbolName::new(name), VersionMatch::Any))
    }

    /// Whether it is the executable, which has no name.
    pub(crate) fn is_executable(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether this is the name of its file.
    pub(crate) fn is_file(&self, name: &[u8]) -> bool {
        let folder = self.name.to_bytes().strip_suffix(name);
        folder.is_some_and(|folder| folder.ends_with(b"/"))
    }

    /// The path of its file, as `ld.so` has it.
    pub(crate) fn path(&self) -> &CStr {
        &self.name
    }

    /// Whether its `DT_SONAME` is this.
    pub(crate) fn has_soname(&self, name: &[u8]) -> bool {
        let soname = self.soname.and_then(|offset| u32::try_from(offset).ok());
        soname.is_some_and(|offset| self.tables.is_string(offset, name))
    }

    /// Whether both are the same library.
    pub(crate) fn is(&self, other: &HostLibrary) -> bool {
        self.memory.load_bias == other.memory.load_bias && self.name == other.name
    }

    /// Whether it belongs to the start-up set, and so to the global scope.
    pub(crate) fn is_startup(&self) -> bool {
        self.handle.is_none()
    }

    /// Whether it is the library of this entry.
    pub(super) fn is_listed_as(&self, entry: &PhdrEntry) -> bool {
        self.memory.load_bias.get() == entry.load_bias && self.name == entry.name
    }

    #[inline]
    pub(super) fn table(&self) -> SymbolTable<'_> {
        self.tables.view()
    }

    /// Whether it defines this name.
    pub(super) fn defines(&self, name: &SymbolName<'_>, wanted: VersionMatch<'_>) -> bool {
        self.tables.lookup_uncounted(name, wanted, TypeClass::Definition).is_some()
    }

    /// Whether it defines this name in any version.
    pub(crate) fn exports(&self, name: &[u8]) -> bool {
        self.defines(&SymbolName::new(name), VersionMatch::Any)
    }

    /// The number of names that a look-up can find.
    pub(crate) fn name_count(&self) -> usize {
        self.table().len() as usize
    }

    /// The hashes of these names ([`SymbolTable::gnu_hashes_31`]).
    pub(crate) fn for_each_hash(&self, add: impl FnMut(u32)) {
        self.table().gnu_hashes_31().for_each(add);
    }

    /// Whether it defines this version.
    pub(crate) fn defines_version(&self, version: &Version<'_>) -> bool {
        self.table().defines_version(version)
    }

    /// The definition that `name` is bound to in this library.
    pub(crate) fn lookup(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        resolvers: Resolvers,
    ) -> Option<HostSymbol> {
        let (_, symbol) = self.tables.lookup_uncounted(name, wanted, class)?;
        Some(self.host_symbol(&symbol, resolvers))
    }

    /// The symbol that `name` is bound to in this library.
    #[inline]
    pub(crate) fn symbol(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<Sym> {
        Some(self.tables.lookup_uncounted(name, wanted, class)?.1)
    }

    /// The address of a symbol of this library that is a plain definition ([`Sym::is_plain_definition`]).
    #[inline]
    pub(crate) fn plain_address(&self, symbol: &Sym) -> usize {
        self.memory.load_bias.apply(symbol.address())
    }

    /// The process's definition of a unique symbol (`STB_GNU_UNIQUE`), if this library has a definition of
    /// it. It is in `ld.so`'s table, which `dlsym` searches.
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
        let found = self.host_symbol(&symbol, Resolvers::Rest);
        Some(HostSymbol { definition: SymbolValue::Address(address), ..found })
    }

    /// Whether it defines this name, and has references to it itself, which `ld.so` has bound.
    pub(super) fn has_bound(&self, name: &SymbolName<'_>) -> bool {
        let (any, class) = (VersionMatch::Any, TypeClass::Definition);
        let found = self.tables.lookup_uncounted(name, any, class);
        found.is_some_and(|(index, _)| self.relas().any(|rela| rela.symbol == index))
    }

    /// Its relocations with symbols.
    pub(super) fn relas(&self) -> impl Iterator<Item = Rela> + '_ {
        let tables = self.relocations.iter().flatten();
        tables.flat_map(|range| Rela::entries(self.memory.read(range.clone()).unwrap_or(&[])))
    }

    /// Whether code of it needs an unwinder to run its handlers: some of its frames name a personality routine.
    pub(super) fn has_personality(&self) -> bool {
        self.eh_frame_hdr.clone().is_some_and(|hdr| EhFrame::has_personality(hdr, &self.memory))
    }

    /// The address of a function or a variable that it defines.
    pub(crate) fn exported(&self, name: &[u8]) -> Option<usize> {
        let name = SymbolName::new(name);
        let (wanted, class) = (VersionMatch::Default, TypeClass::Definition);
        match self.lookup(&name, wanted, class, Resolvers::Run)?.definition {
            SymbolValue::Address(address) => Some(address),
            SymbolValue::ThreadLocal { .. } => None,
        }
    }

    /// Whether an address lies in one of its segments.
    pub(crate) fn has_code_at(&self, address: usize) -> bool {
        let at = self.memory.load_bias.remove(address);
        self.memory.readable.iter().any(|segment| segment.contains(&at))
    }

    /// Whether these bytes are mapped at a stated address.
    pub(super) fn has_bytes(&self, at: Vaddr, bytes: &[u8]) -> bool {
        let range = at.range(bytes.len() as u64);
        range.and_then(|range| self.memory.read(range)) == Some(bytes)
    }

    /// The address of a stated address.
    pub(super) fn address(&self, at: Vaddr) -> usize {
        self.memory.load_bias.apply(at)
    }

    pub(super) fn host_symbol(&self, symbol: &Sym, resolvers: Resolvers) -> HostSymbol {
        let definition = if symbol.is_thread_local() {
            SymbolValue::ThreadLocal { module: self.tls_module, offset: symbol.st_value }
        } else if symbol.is_absolute() {
            SymbolValue::Address(symbol.st_value as usize)
        } else {
            let address = self.memory.load_bias.apply(Vaddr(symbol.st_value));
            if symbol.is_ifunc() && !symbol.is_undefined() && resolvers == Resolvers::Run {
                // SAFETY: an IFUNC of a library that `ld.so` has relocated; `dlsym` does the same.
                SymbolValue::Address(unsafe { arch::call_ifunc_resolver(address) })
            } else {
                SymbolValue::Address(address)
            }
        };
        HostSymbol { definition, st_size: symbol.st_size, is_canonical_plt: symbol.is_undefined() }
    }
}
