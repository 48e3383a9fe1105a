//! What is known of a library before it is loaded: [`Report`], and how it is made.
//!
//! What a load would come to is found out by [`survey`](crate::load::survey). Here that becomes a value that owns all
//! it has, with what else the file says of itself.

#![forbid(unsafe_code)]

use std::ops::Deref;

use crate::api::function_symbol::{FunctionSymbol, function_symbols};
use crate::api::library::SymbolKind;
use crate::arch::{self, MACHINE, RelocKind};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_copy, try_lossy, try_string};
use crate::debug::{self, DebugInformation};
use crate::elf::header;
use crate::elf::image::Image;
use crate::elf::outline::Outline;
use crate::elf::symbol::Sym;
use crate::elf::symbol_table::SymbolTable;
use crate::load::settings::Settings;
use crate::load::survey::{ImportBinding, ImportedSymbol, LibraryOrigin, NeededLibrary, Survey};
use crate::memory::bytes::Bytes;

/// What a library is, needs and offers, and every reason for which a load of it would be refused here: the result
/// of [`inspect`](crate::inspect) and [`Loader::inspect`](crate::Loader::inspect).
///
/// It owns what it has, and holds no library. Names come from the bytes unchanged, except that what is no UTF-8
/// is replaced; the text (`Display`), which has several lines, escapes them.
///
/// It is a snapshot: what the process loads or unloads later can change the answers.
#[derive(Debug, Default)]
pub struct Report {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) e_machine: Option<u16>,
    pub(super) soname: Option<String>,
    pub(super) rpath: Option<String>,
    pub(super) runpath: Option<String>,
    pub(super) needed: Vec<Needed>,
    pub(super) needed_versions: Vec<NeededVersion>,
    pub(super) defined_versions: Vec<String>,
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<Export>,
    pub(super) functions: Vec<FunctionSymbol>,
    pub(super) relocation_types: Vec<RelocationType>,
    pub(super) thread_local_storage: Option<ThreadLocalStorage>,
    pub(super) notes: Vec<Note>,
    pub(super) isa_levels: Vec<&'static str>,
    pub(super) debug_information: Vec<DebugInformation>,
    pub(super) is_nodelete: bool,
    pub(super) is_sealed: bool,
    pub(super) is_incomplete: bool,
    pub(super) refusals: Vec<Error>,
}

/// A needed library: an element of [`Report::needed`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needed {
    name: String,
    needed_by: String,
    is_direct: bool,
    origin: LibraryOrigin,
}

impl Needed {
    /// The name, as `DT_NEEDED` has it, with `$ORIGIN` and other tokens replaced.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed().iter().find(|it| it.name() == "libc.so.6").unwrap();
    /// assert_eq!(needed.name(), "libc.so.6");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the image, or the path of the library, that needs it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed().iter().find(|it| it.name() == "libc.so.6").unwrap();
    /// assert_eq!(needed.needed_by(), "libexample.so");
    /// ```
    pub fn needed_by(&self) -> &str {
        &self.needed_by
    }

    /// Whether the inspected image itself needs it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed().iter().find(|it| it.name() == "libc.so.6").unwrap();
    /// assert!(needed.is_direct()); // `DT_NEEDED` of libexample.so has it
    /// ```
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Where it comes from here.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed().iter().find(|it| it.name() == "libc.so.6").unwrap();
    /// assert!(matches!(needed.origin(), memdl::LibraryOrigin::InProcess { .. }));
    /// ```
    pub fn origin(&self) -> &LibraryOrigin {
        &self.origin
    }
}

/// A version that a needed library must define: an element of [`Report::needed_versions`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeededVersion {
    library: String,
    version: String,
    is_weak: bool,
}

impl NeededVersion {
    /// The library's name.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed_versions().iter().find(|it| it.library() == "libc.so.6").unwrap();
    /// assert_eq!(needed.library(), "libc.so.6");
    /// ```
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The version's name: `GLIBC_2.34`.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed_versions().iter().find(|it| it.library() == "libc.so.6").unwrap();
    /// assert!(needed.version().starts_with("GLIBC_"));
    /// ```
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the library may lack it (`VER_FLG_WEAK`).
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let needed = &report.needed_versions().iter().find(|it| it.library() == "libc.so.6").unwrap();
    /// assert!(!needed.is_weak());
    /// ```
    pub fn is_weak(&self) -> bool {
        self.is_weak
    }
}

/// An undefined symbol: an element of [`Report::imports`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Import {
    index: u32,
    name: String,
    version: Option<String>,
    kind: SymbolKind,
    is_weak: bool,
    is_referenced: bool,
    binding: ImportBinding,
}

impl Import {
    /// Its index in the dynamic symbol table.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "getpid").unwrap();
    /// assert!(import.index() > 0); // symbol 0 is the null symbol
    /// ```
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name, not demangled.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "getpid").unwrap();
    /// assert_eq!(import.name(), "getpid");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that it asks for.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "getpid").unwrap();
    /// assert!(import.version().unwrap().starts_with("GLIBC_"));
    /// ```
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Its type, as far as the image states it: linkers often leave it out.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "roll").unwrap();
    /// assert_eq!(import.name(), "roll");
    /// assert_eq!(import.kind(), memdl::SymbolKind::Other); // not stated
    /// ```
    pub fn kind(&self) -> SymbolKind {
        self.kind
    }

    /// Whether the reference is weak: then a load succeeds without a definition.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "roll").unwrap();
    /// assert_eq!(import.name(), "roll");
    /// assert!(import.is_weak());
    /// ```
    pub fn is_weak(&self) -> bool {
        self.is_weak
    }

    /// Whether a relocation names it. A load binds no other symbol, and does not miss it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "getpid").unwrap();
    /// assert!(import.is_referenced());
    /// ```
    pub fn is_referenced(&self) -> bool {
        self.is_referenced
    }

    /// What it is bound to.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let import = &report.imports().iter().find(|it| it.name() == "getpid").unwrap();
    /// assert_eq!(import.name(), "getpid");
    /// match import.binding() {
    ///     memdl::ImportBinding::Library { path, .. } => assert!(path.ends_with("/libc.so.6")),
    ///     other => panic!("{other}"),
    /// }
    /// ```
    pub fn binding(&self) -> &ImportBinding {
        &self.binding
    }
}

/// A symbol that others can bind to: an element of [`Report::exports`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    index: u32,
    name: String,
    version: Option<String>,
    is_default_version: bool,
    kind: SymbolKind,
    is_weak: bool,
    is_unique: bool,
    value: u64,
    size: u64,
}

impl Export {
    /// Its index in the dynamic symbol table.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert!(export.index() > 0); // symbol 0 is the null symbol
    /// ```
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name, not demangled.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(export.name(), "foo");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, if the library versions its symbols.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(export.version(), Some("EXAMPLE_1"));
    /// ```
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether a look-up without a version finds it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert!(export.is_default_version()); // `foo@@EXAMPLE_1`, not `foo@EXAMPLE_1`
    /// ```
    pub fn is_default_version(&self) -> bool {
        self.is_default_version
    }

    /// Its type.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(export.kind(), memdl::SymbolKind::Function);
    /// ```
    pub fn kind(&self) -> SymbolKind {
        self.kind
    }

    /// Whether the definition is weak.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert!(!export.is_weak());
    /// ```
    pub fn is_weak(&self) -> bool {
        self.is_weak
    }

    /// Whether there is one definition of it in the process (`STB_GNU_UNIQUE`).
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert!(!export.is_unique()); // C has no such symbols
    /// ```
    pub fn is_unique(&self) -> bool {
        self.is_unique
    }

    /// `st_value`: the address that the file states, relative to the load bias; of a thread-local symbol, the
    /// offset in the block.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// let export = report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// let symbol = library.symbols().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(library.load_bias() + export.value() as usize, symbol.address());
    /// ```
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Its size in bytes; 0 if the library does not state it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let export = &report.exports().iter().find(|it| it.name() == "foo_calls").unwrap();
    /// assert_eq!(export.name(), "foo_calls");
    /// assert_eq!(export.size(), 4); // it is an `int`
    /// ```
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A type of relocation that the library has: an element of [`Report::relocation_types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelocationType {
    /// Its number, in the numbering of the library's machine.
    pub number: u32,
    /// Its name in the machine's ABI: `R_X86_64_RELATIVE`.
    pub name: &'static str,
    /// How many there are.
    pub count: u64,
    /// Whether memdl applies relocations of this type to shared libraries of that machine. If it does not, a load is
    /// refused.
    pub is_supported: bool,
}

/// The thread-local variables of a library: [`Report::thread_local_storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadLocalStorage {
    /// The size of a thread's block, in bytes.
    pub size: u64,
    /// The alignment of a block, in bytes.
    pub align: u64,
    /// Whether every thread's block must lie at the same distance from its thread pointer, since code reaches it
    /// by initial exec. Room for such blocks is scarce.
    pub is_static: bool,
}

/// A note (`PT_NOTE`): an element of [`Report::notes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    owner: String,
    kind: u32,
    description: Vec<u8>,
}

impl Note {
    /// Who defines its type: `GNU`.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let note = &report.notes().iter().find(|note| note.kind() == 3).unwrap();
    /// assert_eq!(note.owner(), "GNU");
    /// ```
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// `n_type`. Of `GNU`: 1 for the oldest kernel, 3 for the build-id, 5 for properties.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let note = &report.notes().iter().find(|note| note.kind() == 3).unwrap();
    /// assert_eq!(note.kind(), 3); // the build-id
    /// ```
    pub fn kind(&self) -> u32 {
        self.kind
    }

    /// Its contents.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let note = &report.notes().iter().find(|note| note.kind() == 3).unwrap();
    /// assert_eq!(note.description(), [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    /// ```
    pub fn description(&self) -> &[u8] {
        &self.description
    }
}

impl Report {
    /// The name of the image in errors and debuggers: [`Loader::name`](crate::Loader::name), or its `DT_SONAME`,
    /// or `image`.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.name(), "libexample.so");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of the bytes.
    ///
    /// ```
    /// let report = memdl::inspect(b"no ELF file");
    /// assert_eq!(report.size(), 11);
    /// ```
    pub fn size(&self) -> u64 {
        self.len
    }

    /// `e_machine`; `None` for bytes that are no ELF file.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.machine_number(), Some(62)); // `EM_X86_64`
    /// ```
    pub fn machine_number(&self) -> Option<u16> {
        self.e_machine
    }

    /// The name of the machine that it is for: `x86-64`. `None` for bytes that are no ELF file, and for a machine
    /// that memdl has no name for.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.machine(), Some("x86-64"));
    /// ```
    pub fn machine(&self) -> Option<&'static str> {
        self.e_machine.and_then(arch::machine_name)
    }

    /// Whether it is for the machine of this process.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.is_for_this_machine());
    /// assert!(!memdl::inspect(b"no ELF file").is_for_this_machine());
    /// ```
    pub fn is_for_this_machine(&self) -> bool {
        self.e_machine == Some(MACHINE.e_machine)
    }

    /// `DT_SONAME`.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.soname(), Some("libexample.so"));
    /// ```
    pub fn soname(&self) -> Option<&str> {
        self.soname.as_deref()
    }

    /// `DT_RPATH`, unless there is a `DT_RUNPATH`, which replaces it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.rpath(), None); // it has `DT_RUNPATH` instead
    /// ```
    pub fn rpath(&self) -> Option<&str> {
        self.rpath.as_deref()
    }

    /// `DT_RUNPATH`.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.runpath(), Some("$ORIGIN/deps"));
    /// ```
    pub fn runpath(&self) -> Option<&str> {
        self.runpath.as_deref()
    }

    /// The libraries that it needs (`DT_NEEDED`, `DT_FILTER`, `DT_AUXILIARY`), in order; then those that they need
    /// where they are not in the process yet, breadth first.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.needed().iter().any(|library| library.name() == "libc.so.6"));
    /// ```
    pub fn needed(&self) -> &[Needed] {
        &self.needed
    }

    /// The versions that needed libraries must define.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// for needed in report.needed_versions() {
    ///     println!("{} of {}", needed.version(), needed.library()); // "GLIBC_2.2.5 of libc.so.6"
    /// }
    /// # assert!(!report.needed_versions().is_empty());
    /// ```
    pub fn needed_versions(&self) -> &[NeededVersion] {
        &self.needed_versions
    }

    /// The names of the versions that it defines.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert_eq!(report.defined_versions(), ["EXAMPLE_1"]);
    /// ```
    pub fn defined_versions(&self) -> &[String] {
        &self.defined_versions
    }

    /// The symbols that it takes from others, in the order of the dynamic symbol table.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// let missing = report.imports().iter().filter(|it| *it.binding() == memdl::ImportBinding::Missing);
    /// assert_eq!(missing.count(), 0);
    /// ```
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// The symbols that others can bind to, in the order of the dynamic symbol table.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.exports().iter().any(|symbol| symbol.name() == "foo"));
    /// ```
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// All symbols of type `STT_FUNC` in the order of the dynamic symbol table, those that it imports and those
    /// that others cannot bind to included. IFUNCs have another type, and are not among them.
    ///
    /// Protocols that call functions by number count them so (rFaaS): the number is the index here.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// let defined = report.functions().iter().filter(|it| it.is_defined());
    /// assert!(defined.map(|it| it.name()).eq(["play", "foo", "process"]));
    /// ```
    pub fn functions(&self) -> &[FunctionSymbol] {
        &self.functions
    }

    /// The types of its relocations, in ascending order. Those of the compact table of relative relocations (`DT_RELR`)
    /// are counted, too. Empty for a machine whose relocations memdl does not know.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// for it in report.relocation_types() {
    ///     println!("{} of {}", it.count, it.name); // "3 of R_X86_64_RELATIVE"
    /// }
    /// assert!(report.relocation_types().iter().all(|it| it.count > 0 && it.is_supported));
    /// # assert!(!report.relocation_types().is_empty());
    /// ```
    pub fn relocation_types(&self) -> &[RelocationType] {
        &self.relocation_types
    }

    /// Its thread-local variables, if it has any.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// // `foo_thread_calls` is an `int`.
    /// assert_eq!(report.thread_local_storage().unwrap().size, 4);
    /// ```
    pub fn thread_local_storage(&self) -> Option<&ThreadLocalStorage> {
        self.thread_local_storage.as_ref()
    }

    /// Its notes, in order.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.notes().iter().any(|note| note.owner() == "GNU" && note.kind() == 3));
    /// ```
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The build-id, as `readelf -n` shows it. `None` if it has none.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// // This one was linked with `--build-id=0x0123456789abcdef`.
    /// assert_eq!(report.build_id(), Some(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef][..]));
    /// ```
    pub fn build_id(&self) -> Option<&[u8]> {
        const NT_GNU_BUILD_ID: u32 = 3;
        let is_id = |it: &&Note| {
            it.kind == NT_GNU_BUILD_ID && it.owner == "GNU" && !it.description.is_empty()
        };
        self.notes.iter().find(is_id).map(Note::description)
    }

    /// The levels of its machine's instruction set that it says it needs (`GNU_PROPERTY_X86_ISA_1_NEEDED`): `x86-64-v3`.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.isa_levels().is_empty()); // it runs on any processor of its machine
    /// ```
    pub fn isa_levels(&self) -> &[&'static str] {
        &self.isa_levels
    }

    /// The kinds of debug information in the file.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.debug_information().contains(&memdl::DebugInformation::SymbolTable));
    /// ```
    pub fn debug_information(&self) -> &[DebugInformation] {
        &self.debug_information
    }

    /// Whether [`Library::close`](crate::Library::close) unloads it. It does not if the library is marked so
    /// ([`Report::is_nodelete`]), or is to be [sealed](crate::Loader::seal).
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// assert!(memdl::Loader::new().inspect(&bytes).unloads());
    /// assert!(!memdl::Loader::new().seal(true).inspect(&bytes).unloads());
    /// ```
    pub fn unloads(&self) -> bool {
        !self.is_nodelete && !self.is_sealed
    }

    /// Whether it is marked to stay loaded (`DF_1_NODELETE`, by `-z nodelete`).
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(!report.is_nodelete());
    /// ```
    pub fn is_nodelete(&self) -> bool {
        self.is_nodelete
    }

    /// Whether it exports unique symbols (`STB_GNU_UNIQUE`). `dlopen` never unloads such a library; memdl does.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(!report.has_unique_symbols()); // C has none, C++ often has
    /// ```
    pub fn has_unique_symbols(&self) -> bool {
        self.exports.iter().any(Export::is_unique)
    }

    /// Whether all that could be read is in the report. It is not for symbol tables that were made to be slow, which
    /// no linker makes, and without memory.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// assert!(report.is_complete());
    /// ```
    pub fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    /// Every reason for which a load with the same options would be refused here and now, in the order in which a
    /// load would meet them; it would return the first, or a part of it. Empty if a load would succeed, as far as
    /// that can be known: see [`inspect`](crate::inspect).
    ///
    /// ```
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let report = memdl::inspect(&plugin_bytes);
    /// let [refusal] = report.refusals() else { panic!("{report}") };
    /// assert!(refusal.to_string().contains("needs libraries that are not there: libexample.so"));
    /// ```
    pub fn refusals(&self) -> &[Error] {
        &self.refusals
    }

    /// Those of [`Report::refusals`] that do not come from the machine of this process. For a library for this machine
    /// these are all. For one that is [for another](Report::is_for_this_machine), they are the reasons for which a
    /// process of that machine would refuse it, as far as they can be known here.
    ///
    /// ```
    /// # let mut bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs")).to_vec();
    /// bytes[18..20].copy_from_slice(&243u16.to_le_bytes()); // `EM_RISCV`
    /// let report = memdl::inspect(&bytes);
    /// assert!(report.refusals()[0].to_string().contains("an image for RISC-V; this process is "));
    /// assert_eq!(report.refusals_on_its_machine().count(), 0);
    /// ```
    pub fn refusals_on_its_machine(&self) -> impl Iterator<Item = &Error> {
        let other = self.e_machine.filter(|_| !self.is_for_this_machine());
        self.refusals.iter().filter(move |error| {
            !other.is_some_and(|e_machine| header::is_other_machine(error, e_machine))
        })
    }

    /// Whether a load would be refused.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// assert!(!memdl::inspect(&bytes).is_refused());
    /// assert!(memdl::inspect(b"no ELF file").is_refused());
    /// ```
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }
}

/// Inspects bytes. The process is set up.
pub(super) fn inspect(settings: &Settings, bytes: &[u8]) -> Report {
    inspected(settings, bytes).unwrap_or_else(|error| Report::refused(bytes, error))
}

/// As [`inspect`]. The error is lack of memory.
fn inspected(settings: &Settings, bytes: &[u8]) -> Result<Report, Error> {
    let survey = settings.survey(Bytes::Borrowed(bytes))?;
    let mut report = Report {
        name: try_string(&survey.name)?,
        len: bytes.len() as u64,
        is_sealed: settings.policy.seal,
        is_incomplete: !survey.is_complete,
        debug_information: debug::kinds(bytes)?,
        ..Report::default()
    };
    if let Some(outline) = Outline::of(bytes) {
        report.add_outline(&outline)?;
    }
    let Survey { image, name, needed, imports, needs_static_tls, refusals, .. } = survey;
    report.refusals = refusals;
    for library in needed {
        let NeededLibrary { name: library, needed_by, origin } = library;
        let is_direct = needed_by == name;
        let needed_by = try_string(&needed_by)?;
        report.needed.try_push(Needed { name: library, needed_by, is_direct, origin })?;
    }
    let Some(image) = image else { return Ok(report) };
    let decoded = &image.decoded;
    let text = |it: &Option<std::ffi::CString>| {
        it.as_ref().map(|text| try_lossy(text.to_bytes())).transpose()
    };
    report.soname = text(&decoded.soname)?;
    (report.rpath, report.runpath) = (text(&decoded.rpath)?, text(&decoded.runpath)?);
    report.is_nodelete = decoded.nodelete;
    report.isa_levels.try_extend(decoded.machine.isa_levels(decoded.isa_needed))?;
    report.thread_local_storage = decoded.tls.as_ref().map(|segment| ThreadLocalStorage {
        size: segment.size,
        align: segment.align,
        is_static: needs_static_tls,
    });
    report.add_relocation_types(&image)?;
    match report.add_symbols(&image, imports) {
        Err(Error::Limit { .. }) => report.is_incomplete = true,
        added => added?,
    }
    Ok(report)
}

impl Report {
    /// The report where nothing can be found out.
    pub(super) fn refused(bytes: &[u8], error: Error) -> Report {
        let (len, refusals) = (bytes.len() as u64, vec![error]);
        Report { len, refusals, is_incomplete: true, ..Report::default() }
    }

    fn add_outline(&mut self, outline: &Outline<'_>) -> Result<(), Error> {
        self.e_machine = Some(outline.e_machine);
        for note in outline.notes() {
            require_memory_for_next(self.notes.len())?;
            let (owner, description) = (try_lossy(note.owner)?, try_copy(note.desc)?);
            self.notes.try_push(Note { owner, kind: note.n_type, description })?;
        }
        Ok(())
    }

    fn add_relocation_types<B: Deref<Target = [u8]>>(
        &mut self,
        image: &Image<B>,
    ) -> Result<(), Error> {
        let machine = image.decoded.machine;
        if !machine.is_known() {
            return Ok(());
        }
        let is_bitmap = |word: u64| word & 1 != 0;
        let compact =
            image.decoded.relocations.relr_words(image).map(|word| match is_bitmap(word) {
                true => u64::from((word >> 1).count_ones()),
                false => 1,
            });
        let compact = (machine.relative, compact.fold(0, u64::saturating_add));
        let plain = image.relas().map(|rela| (rela.r_type, 1));
        for (number, count) in plain.chain([compact].into_iter().filter(|(_, count)| *count > 0)) {
            match self.relocation_types.binary_search_by_key(&number, |it| it.number) {
                Ok(at) => {
                    if let Some(it) = self.relocation_types.get_mut(at) {
                        it.count = it.count.saturating_add(count);
                    }
                }
                // Numbers that no linker writes are as many as the file has entries: each is a fault, and few are
                // listed.
                Err(_) if self.relocation_types.len() >= MAX_RELOCATION_TYPES => {}
                Err(at) => {
                    let kind = machine.reloc_kind(number);
                    self.relocation_types.try_push(RelocationType {
                        number,
                        name: (machine.reloc_name)(number),
                        count,
                        is_supported: kind.is_some_and(|kind| kind != RelocKind::Copy),
                    })?;
                    if let Some(rest) = self.relocation_types.get_mut(at..) {
                        rest.rotate_right(1);
                    }
                }
            }
        }
        Ok(())
    }

    fn add_symbols<B: Deref<Target = [u8]>>(
        &mut self,
        image: &Image<B>,
        imports: Vec<ImportedSymbol>,
    ) -> Result<(), Error> {
        // Thousands of symbols may share one long name. So what is copied counts as work, and the work is bounded.
        let table = image.symbols()?;
        let names = Names { table: &table };
        for (count, (library, version, is_weak)) in table.needed_versions().enumerate() {
            require_memory_for_next(count)?;
            let (library, version) = (try_lossy(library)?, try_lossy(version.name())?);
            self.needed_versions.try_push(NeededVersion { library, version, is_weak })?;
            table.check_work()?;
        }
        for (count, version) in table.defined_versions().enumerate() {
            require_memory_for_next(count)?;
            self.defined_versions.try_push(try_lossy(version)?)?;
            table.check_work()?;
        }
        for ImportedSymbol { index, is_referenced, binding } in imports {
            let Some(symbol) = table.symbol(index) else { continue };
            require_memory_for_next(self.imports.len())?;
            self.imports.try_push(Import {
                index,
                name: names.name(&symbol)?,
                version: names.version(index)?,
                kind: SymbolKind::of(&symbol),
                is_weak: symbol.is_weak(),
                is_referenced,
                binding,
            })?;
        }
        for (index, symbol) in table.exports() {
            require_memory_for_next(self.exports.len())?;
            self.exports.try_push(Export {
                index,
                name: names.name(&symbol)?,
                version: names.version(index)?,
                is_default_version: table.is_default_version(index),
                kind: SymbolKind::of(&symbol),
                is_weak: symbol.is_weak(),
                is_unique: symbol.is_unique(),
                value: symbol.st_value,
                size: symbol.st_size,
            })?;
        }
        self.functions = function_symbols(&table)?;
        Ok(())
    }
}

/// The number of types of relocations that a report tells apart. Machines have fewer.
const MAX_RELOCATION_TYPES: usize = 256;

/// Copies names out of a symbol table.
struct Names<'a> {
    table: &'a SymbolTable<'a>,
}

impl Names<'_> {
    fn name(&self, symbol: &Sym) -> Result<String, Error> {
        self.table.check_work()?;
        Ok(try_lossy(self.table.string(symbol.st_name).unwrap_or(b""))?)
    }

    fn version(&self, index: u32) -> Result<Option<String>, Error> {
        Ok(self.table.version(index).map(|version| try_lossy(version.name())).transpose()?)
    }
}
