//! The types that callers hold: a loaded [`Library`], its [`Symbol`]s, and a [`Template`] of instances.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::api::closed::Closed;
use crate::api::function_symbol::{FunctionSymbol, function_symbols};
use crate::api::symbol_name::AsSymbolName;
use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::events;
use crate::base::fallible::{lossy, require_memory, try_lossy, try_string};
use crate::base::promise::MayRun;
use crate::debug::{DebugLevel, DebugRegistration};
use crate::elf::constants::{STT_FUNC, STT_GNU_IFUNC, STT_OBJECT, STT_TLS};
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::elf::versions::Version;
use crate::images::dlsym;
use crate::images::global;
use crate::images::group::{ImageRef, LoadGroup, LoadedImage, Parts, Provided, Source};
use crate::images::idle::Stand;
use crate::images::thread_exit;
use crate::load::debugger_commands;
use crate::load::instantiate::{self, instance_again, instance_uninitialised, stand};
use crate::load::prepare::{Prepared, ReceivedFiles};

/// A shared library that runs from memory.
///
/// Dropping or [closing](Library::close) it runs its destructors and unmaps it, unless another loaded library
/// depends on it, or a thread [has destructors](Library::leave_thread) of its thread-local objects to run.
///
/// ```
/// use std::ffi::c_int;
///
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// // SAFETY: we trust the library's constructors. `bytes` may come from a file or from the network.
/// let library = unsafe { memdl::Library::from_bytes(&bytes)? };
/// // SAFETY: this is the type of `foo`.
/// let foo = unsafe { library.get::<unsafe extern "C" fn(c_int) -> c_int>("foo")? };
/// // SAFETY: `foo` has no preconditions.
/// assert_eq!(unsafe { foo(42) }, 84);
/// library.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Library {
    group: Arc<LoadGroup>,
}

// A panic in a callback leaves a library as it was.
impl UnwindSafe for Library {}
impl RefUnwindSafe for Library {}

impl From<&Library> for Provided {
    fn from(library: &Library) -> Provided {
        Provided(Source::Group(library.group.clone()))
    }
}

impl Library {
    /// The only instance of a prepared group.
    ///
    /// # Safety
    /// As [`Library::from_bytes`].
    pub(crate) unsafe fn single_instance(prepared: Prepared<'_>) -> Result<Library, Error> {
        // SAFETY: the caller's promise.
        Ok(Library { group: unsafe { instantiate::single_instance(prepared)? } })
    }

    #[cfg(any(test, feature = "internals"))]
    /// The only instance, mapped and relocated. Its constructors have not run. IFUNC resolvers run if
    /// `may_run` allows it.
    pub(crate) fn single_instance_uninitialised(
        prepared: Prepared<'_>,
        may_run: Option<MayRun>,
    ) -> Result<Library, Error> {
        Ok(Library { group: instantiate::single_instance_uninitialised(prepared, may_run)? })
    }

    pub(crate) fn group(&self) -> &Arc<LoadGroup> {
        &self.group
    }

    fn loaded(&self) -> &LoadedImage {
        self.group.member(0)
    }

    /// Looks a symbol up as `dlsym` does with a handle: in the library, then in the libraries that it needs.
    ///
    /// For a thread-local symbol this is the calling thread's address; for an IFUNC, the function that its
    /// resolver chose. `T` is a pointer or a function pointer; `get::<*mut U>` gives the symbol's address.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// // SAFETY: this is the type of `foo`.
    /// let foo = unsafe { library.get::<unsafe extern "C" fn(i32) -> i32>("foo")? };
    /// // SAFETY: `foo` has no preconditions.
    /// assert_eq!(unsafe { foo(21) }, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SymbolNotFound`], also for a symbol at address 0.
    ///
    /// # Safety
    /// `T` is the type of the symbol. The result, and copies of it, must not be used once the library is
    /// unloaded; the address of a thread-local variable, not once its thread has ended.
    pub unsafe fn get<T>(&self, name: impl AsSymbolName) -> Result<Symbol<'_, T>, Error> {
        self.look_up(name.as_symbol_name(), None)
    }

    /// As [`Library::get`], for a symbol of this version, like `dlvsym`.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// type Foo = unsafe extern "C" fn(i32) -> i32;
    ///
    /// // SAFETY: this is the type of `foo`, in each version.
    /// unsafe {
    ///     assert!(library.get_versioned::<Foo>("foo", "EXAMPLE_1").is_ok());
    ///     assert!(library.get_versioned::<Foo>("foo", "EXAMPLE_2").is_err());
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::SymbolNotFound`].
    ///
    /// # Safety
    /// As [`Library::get`].
    pub unsafe fn get_versioned<T>(
        &self,
        name: impl AsSymbolName,
        version: impl AsSymbolName,
    ) -> Result<Symbol<'_, T>, Error> {
        self.look_up(name.as_symbol_name(), Some(version.as_symbol_name()))
    }

    fn look_up<T>(&self, name: &[u8], version: Option<&[u8]>) -> Result<Symbol<'_, T>, Error> {
        const {
            assert!(
                size_of::<T>() == size_of::<*const c_void>(),
                "a symbol is a pointer or function pointer"
            )
        };
        // One NUL at the end does not count.
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let version = version.map(|version| version.strip_suffix(b"\0").unwrap_or(version));
        let wanted = version.map_or(VersionMatch::Default, |version| {
            VersionMatch::Version(Version::exact(version))
        });
        // A symbol at address 0 counts as missing: a function pointer cannot be null.
        let address = dlsym::in_library(&self.group, 0, &SymbolName::new(name), wanted)?;
        match address.filter(|at| !at.is_null()) {
            Some(address) => Ok(Symbol { address, library: PhantomData, kind: PhantomData }),
            None => Err(self.not_found(name, version)?),
        }
    }

    #[cold]
    fn not_found(&self, name: &[u8], version: Option<&[u8]>) -> Result<Error, Error> {
        Ok(Error::SymbolNotFound {
            image: try_string(self.name())?,
            symbol: try_lossy(name)?,
            version: version.map(try_lossy).transpose()?,
        })
    }

    /// The name of the library in errors, debuggers and `/proc/self/maps`.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().name("thumbnailer");
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes)? };
    /// assert_eq!(library.name(), "thumbnailer");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.loaded().name
    }

    /// Its `DT_SONAME`.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// assert_eq!(library.soname(), Some("libexample.so"));
    /// ```
    #[must_use]
    pub fn soname(&self) -> Option<&str> {
        self.loaded().decoded.soname.as_deref().and_then(|soname| soname.to_str().ok())
    }

    /// Run-time address minus the address that the file states.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// let symbol = library.symbols().find(|it| it.name() == "foo").unwrap();
    /// // `report` is the result of `memdl::inspect`.
    /// let stated = report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(symbol.address(), library.load_bias() + stated.value() as usize);
    /// ```
    #[must_use]
    pub fn load_bias(&self) -> usize {
        self.loaded().mapping.load_bias().get()
    }

    /// The addresses from the image's first page to the end of its last one.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// let addresses = library.address_range();
    /// assert!(library.symbol_at(addresses.end).is_none());
    /// assert!(library.symbols().any(|it| it.name() == "foo" && addresses.contains(&it.address())));
    /// ```
    #[must_use]
    pub fn address_range(&self) -> Range<usize> {
        self.loaded().mapping.address_range()
    }

    /// All symbols that the library exports, in the order of its symbol table.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// let names: Vec<String> = library.symbols().map(|symbol| symbol.name().to_owned()).collect();
    /// assert!(names.contains(&"foo".to_owned()));
    /// ```
    pub fn symbols(&self) -> impl Iterator<Item = ExportedSymbol<'_>> + '_ {
        let loaded = self.loaded();
        // The iterator cannot own the table and borrow from it, so each step makes the table anew.
        (0..loaded.symbols().len()).filter_map(move |index| {
            let table = loaded.symbols();
            let symbol = table.export(index)?;
            Some(ExportedSymbol::new(loaded, &table, index, &symbol))
        })
    }

    /// The exported symbol of this name: what [`Library::get`] finds if the library itself has it, and not another that it
    /// needs. It takes no longer than a look-up, and runs no code.
    ///
    /// A name that comes from elsewhere is checked so: it is a function, and the library's own.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// use memdl::SymbolKind;
    ///
    /// assert_eq!(library.symbol("foo").unwrap().kind(), SymbolKind::Function);
    /// assert_eq!(library.symbol("foo_calls").unwrap().kind(), SymbolKind::Object);
    /// assert!(library.symbol("getpid").is_none()); // it is the C library's
    /// ```
    #[must_use]
    pub fn symbol(&self, name: impl AsSymbolName) -> Option<ExportedSymbol<'_>> {
        let loaded = self.loaded();
        let (name, table) = (name.as_symbol_name(), loaded.symbols());
        let name = SymbolName::new(name.strip_suffix(b"\0").unwrap_or(name));
        let (index, symbol) = table.lookup(&name, VersionMatch::Default, TypeClass::Definition)?;
        Some(ExportedSymbol::new(loaded, &table, index, &symbol))
    }

    /// All symbols of type `STT_FUNC` in the order of the dynamic symbol table, those that the library imports
    /// included, as [`Report::functions`](crate::Report::functions) lists them before the load.
    ///
    /// Protocols that call functions by number count them so; rFaaS sorts them by name first. The functions
    /// themselves, imported ones too, are what [`Library::get`] finds for the names.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// let functions = library.functions()?;
    /// let defined = functions.iter().filter(|it| it.is_defined());
    /// assert!(defined.map(|it| it.name()).eq(["play", "foo", "process"]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and [`Error::Limit`] for a symbol table that was made to be slow.
    pub fn functions(&self) -> Result<Vec<FunctionSymbol>, Error> {
        function_symbols(&self.loaded().symbols())
    }

    /// The exported symbol that `address` lies in, as `dladdr` reports it. A symbol without a size is found
    /// only at its exact address.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// // SAFETY: nothing is done with it.
    /// let foo = unsafe { library.get::<*const u8>("foo")? }.as_raw_ptr();
    /// assert_eq!(library.symbol_at(foo.addr() + 1).unwrap().name(), "foo");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn symbol_at(&self, address: usize) -> Option<ExportedSymbol<'_>> {
        let loaded = self.loaded();
        let (index, symbol) = loaded.symbol_at(address)?;
        Some(ExportedSymbol::new(loaded, &loaded.symbols(), index, &symbol))
    }

    /// Makes the exports of the library, and of all libraries that it needs, visible to images that are loaded
    /// later, as [`Loader::global`](crate::Loader::global) does at the load. It cannot be undone.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let dice_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/dice.rs"));
    /// // SAFETY: we trust the constructors of both.
    /// let dice = unsafe { memdl::Library::from_bytes(&dice_bytes)? };
    /// dice.make_global()?; // it exports `roll`
    /// // SAFETY: as above.
    /// let library = unsafe { memdl::Library::from_bytes(&bytes)? };
    /// // SAFETY: this is the type of `play`, which calls `roll`.
    /// assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("play")?() }, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn make_global(&self) -> Result<(), Error> {
        global::promote(&ImageRef::new(self.group.clone(), 0))
    }

    /// How much debuggers see of the library now. If [`DebugLevel::Portable`] was asked for and could not be made,
    /// this is [`DebugLevel::Full`].
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// assert_eq!(library.debug(), memdl::DebugLevel::Full);
    /// ```
    #[must_use]
    pub fn debug(&self) -> DebugLevel {
        self.loaded().debug.debug()
    }

    /// Changes how much debuggers see of the library, and of the images that were loaded with it.
    ///
    /// So a fleet can run with [`DebugLevel::Symbols`], or its idle instances with [`DebugLevel::Off`], and be shown in
    /// full when someone attaches: breakpoints of an attached debugger move to source lines. At a debugger's
    /// prompt, this changes all libraries at once: `print memdl_debug_full()`, or in lldb `expression
    /// memdl_debug_portable()`.
    ///
    /// The environment variable `MEMDL_DEBUG` overrides `debug`, as it does for
    /// [`Loader::debug`](crate::Loader::debug).
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// library.set_debug(memdl::DebugLevel::Symbols)?;
    /// assert_eq!(library.debug(), memdl::DebugLevel::Symbols);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the library was loaded with [`DebugLevel::Off`], so that its debug sections were
    /// not kept: then [`DebugLevel::Symbols`] is the most that can be shown, until [`Library::set_debug_info`]
    /// supplies them. For all but [`DebugLevel::Off`] if memdl was built without the feature `debug`.
    pub fn set_debug(&self, debug: DebugLevel) -> Result<(), Error> {
        let debug = debug.requested();
        let members = (0..self.group.len()).map(|index| self.group.member(index));
        members.into_iter().try_for_each(|loaded| debugger_commands::set_debug(loaded, debug))
    }

    /// Supplies debug information after the load: as [`Loader::debug_info`](crate::Loader::debug_info), but
    /// for this library alone, identified by its build-id only, and not as a package of split DWARF. How much
    /// debuggers see does not change; the source that they see it from does, and so do the answers of
    /// [`symbolize`](crate::symbolize()). A library that was not stripped is its own debug information. What
    /// profilers saw at the load stays.
    ///
    /// At a debugger's prompt, for all images that the file belongs to, and shown in full: `print
    /// memdl_debug_file("/tmp/libfoo.debug")`, a path on this machine.
    ///
    /// ```
    /// # let stripped = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/stripped.rs"));
    /// # let debug_file = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { memdl::Library::from_bytes(&stripped)? };
    /// let foo = library.symbols().find(|symbol| symbol.name() == "foo").unwrap().address();
    /// assert_eq!(memdl::symbolize(foo)[0].line(), None);
    /// library.set_debug_info(&debug_file)?;
    /// assert_eq!(memdl::symbolize(foo)[0].line(), Some(11));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::DebugInfo`] if the file does not belong to the library, or cannot be read; nothing changes
    /// then. [`Error::Unsupported`] if memdl was built without the feature `debug`.
    pub fn set_debug_info(&self, bytes: &[u8]) -> Result<(), Error> {
        debugger_commands::set_debug_info(self.loaded(), bytes)
    }

    /// Unloads the library: runs its destructors and frees its memory. Returns whether it is gone, or what
    /// keeps it loaded.
    ///
    /// While other libraries depend on it, it stays loaded. It also stays while threads have destructors of
    /// its thread-local objects to run (C++'s `thread_local`, Rust's `thread_local!`; the standard library in a
    /// Rust plug-in has such objects in each thread that calls `std::thread::spawn` there). The last of these
    /// threads unloads the library when it ends. A thread that lives on can let the library go earlier:
    /// [`Library::leave_thread`], and [`Library::close_with_thread_locals`] for the thread that closes it. A
    /// host that reloads a plug-in in such threads needs these. Otherwise every version of the plug-in stays
    /// loaded, as under `dlopen`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a [sealed](crate::Loader::seal) library: it stays for the life of the
    /// process.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// let closed = library.close()?;
    /// // If something keeps it: "it stays loaded: 2 threads have destructors ..."
    /// assert!(closed.is_unloaded(), "{closed}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(self) -> Result<Closed, Error> {
        self.refuse_if_sealed()?;
        Ok(self.let_go())
    }

    /// As [`Library::close`], but the calling thread leaves the library first ([`Library::leave_thread`]), so
    /// that this thread does not keep it loaded.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let versions = [bytes.clone(), bytes];
    /// for version in &versions {
    ///     // SAFETY: we trust the plug-in's constructors.
    ///     let plugin = unsafe { memdl::Library::from_bytes(version)? };
    ///     // SAFETY: this is its type.
    ///     let foo = unsafe { plugin.get::<extern "C" fn(i32) -> i32>("foo")? };
    ///     foo(42);
    ///     // SAFETY: it has returned, and left nothing that refers to its thread-local variables.
    ///     assert!(unsafe { plugin.close_with_thread_locals()? }.is_unloaded());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Library::close`], before any destructor runs, and as [`Library::leave_thread`]. The library is
    /// closed all the same.
    ///
    /// # Safety
    /// As [`Library::leave_thread`].
    pub unsafe fn close_with_thread_locals(self) -> Result<Closed, Error> {
        self.refuse_if_sealed()?;
        // SAFETY: the caller's promise.
        unsafe { self.leave_thread()? };
        Ok(self.let_go())
    }

    /// Does for this library what happens when the calling thread ends: runs the destructors of the thread's
    /// thread-local objects, then those of its values of `pthread` keys whose destructor is the library's code, and frees its
    /// thread-local variables. Then the thread does not keep the library loaded any more. If the thread calls the library again, it
    /// finds initial values, as a new thread does.
    ///
    /// The same happens for the libraries that were loaded with this one, and for those that it opened by
    /// `dlopen` if memdl loaded them.
    ///
    /// Before a host closes a plug-in, each of its workers leaves it:
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # struct Workers;
    /// # impl Workers {
    /// #     fn each(&self, job: impl Fn() + Sync) {
    /// #         std::thread::scope(|scope| scope.spawn(|| job()).join()).unwrap()
    /// #     }
    /// # }
    /// # let workers = Workers;
    /// // SAFETY: we trust the plug-in's constructors.
    /// let plugin = unsafe { memdl::Library::from_bytes(&bytes)? };
    /// // ... the workers call it ...
    /// // SAFETY: no worker is in its code, and nobody refers to a worker's thread-local variables.
    /// workers.each(|| unsafe { plugin.leave_thread() }.expect("memory"));
    /// // SAFETY: the same for this thread.
    /// assert!(unsafe { plugin.close_with_thread_locals()? }.is_unloaded());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]. Destructors may have run then; the variables are not freed.
    ///
    /// # Safety
    /// * These destructors may run now, in this thread.
    /// * No code of these libraries is running in this thread: do not call it from a callback or a destructor
    ///   of theirs.
    /// * Nothing uses this thread's thread-local variables of these libraries any more, or what the destructors
    ///   free: not this thread, not another (a scoped thread that borrowed one), and not a library that is bound
    ///   to one of these.
    pub unsafe fn leave_thread(&self) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { thread_exit::leave(&self.group) }.map_err(|error| error.in_image(self.name()))
    }

    /// Drops it, and returns what became of it.
    pub(crate) fn let_go(self) -> Closed {
        Closed::release(self.group)
    }

    fn refuse_if_sealed(&self) -> Result<(), Error> {
        if self.is_sealed() {
            let what = "unloading a sealed library: it stays for the life of the process";
            return Err(Error::unsupported(what).in_image(self.name()));
        }
        Ok(())
    }

    /// Whether it was made immutable when it was loaded ([`Loader::seal`](crate::Loader::seal)).
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// assert!(!library.is_sealed()); // as `Loader::seal` was not called
    /// ```
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.loaded().mapping.is_immutable()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("name", &self.name())
            .field("addresses", &self.address_range())
            .finish()
    }
}

/// A symbol of a [`Library`], which it borrows. Dereferences to `T`, a pointer or function pointer.
pub struct Symbol<'lib, T> {
    address: *mut c_void,
    library: PhantomData<&'lib Library>,
    kind: PhantomData<T>,
}

// SAFETY: a symbol is an address in a library that is Sync; `T` says what may be done with it.
unsafe impl<T: Send> Send for Symbol<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Symbol<'_, T> {}

impl<T> Symbol<'_, T> {
    /// The symbol's address.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// // SAFETY: `foo_calls` is an `int`.
    /// let calls = unsafe { library.get::<*const i32>("foo_calls")? };
    /// assert_eq!(*calls, calls.as_raw_ptr().cast::<i32>().cast_const());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn as_raw_ptr(&self) -> *mut c_void {
        self.address
    }

    /// The symbol's address, without the borrow of the library. It must not be used once the library is
    /// unloaded.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// // SAFETY: `foo_calls` is an `int`.
    /// let calls = unsafe { library.get::<*const i32>("foo_calls")? }.into_raw();
    /// assert_eq!(library.symbol_at(calls.addr()).unwrap().name(), "foo_calls");
    /// library.close()?; // `calls` does not borrow it. Nothing may use it from here on.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_raw(self) -> *mut c_void {
        self.address
    }
}

impl<T> Deref for Symbol<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `T` has the size of a pointer (asserted where symbols are made) and is the
        // symbol's type, as the caller of `get` promised.
        unsafe { &*(&raw const self.address).cast::<T>() }
    }
}

impl<T> Clone for Symbol<'_, T> {
    fn clone(&self) -> Self {
        Symbol { address: self.address, library: PhantomData, kind: PhantomData }
    }
}

impl<T> fmt::Debug for Symbol<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Symbol({:p})", self.address)
    }
}

/// The type of a symbol (gABI `STT_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SymbolKind {
    /// `STT_FUNC`.
    Function,
    /// `STT_OBJECT`.
    Object,
    /// `STT_TLS`.
    ThreadLocal,
    /// `STT_GNU_IFUNC`: its address is that of the resolver.
    IndirectFunction,
    /// `STT_NOTYPE` and all others.
    Other,
}

impl SymbolKind {
    pub(crate) fn of(symbol: &Sym) -> SymbolKind {
        match symbol.kind() {
            STT_FUNC => SymbolKind::Function,
            STT_OBJECT => SymbolKind::Object,
            STT_TLS => SymbolKind::ThreadLocal,
            STT_GNU_IFUNC => SymbolKind::IndirectFunction,
            _ => SymbolKind::Other,
        }
    }
}

/// A symbol that a [`Library`] exports.
#[derive(Clone, Debug)]
pub struct ExportedSymbol<'lib> {
    name: Cow<'lib, str>,
    version: Option<Cow<'lib, str>>,
    is_default_version: bool,
    kind: SymbolKind,
    size: u64,
    address: usize,
}

impl<'lib> ExportedSymbol<'lib> {
    fn new(
        loaded: &'lib LoadedImage,
        table: &SymbolTable<'lib>,
        index: u32,
        symbol: &Sym,
    ) -> ExportedSymbol<'lib> {
        ExportedSymbol {
            name: lossy(table.string(symbol.st_name).unwrap_or(b"")),
            version: table.version(index).map(|version| lossy(version.name())),
            is_default_version: table.is_default_version(index),
            kind: SymbolKind::of(symbol),
            size: symbol.st_size,
            address: if symbol.is_absolute() || symbol.is_thread_local() {
                symbol.st_value as usize
            } else {
                loaded.mapping.load_bias().apply(Vaddr(symbol.st_value))
            },
        }
    }

    /// Its name, not demangled.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let symbol = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// assert_eq!(symbol.name(), "foo");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, if the library versions its symbols.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let symbol = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// assert_eq!(symbol.version(), Some("EXAMPLE_1"));
    /// ```
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether [`Library::get`] finds this version under its name.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let symbol = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// assert!(symbol.is_default_version()); // `foo@@EXAMPLE_1`, not `foo@EXAMPLE_1`
    /// ```
    #[must_use]
    pub fn is_default_version(&self) -> bool {
        self.is_default_version
    }

    /// Its type.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let symbol = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// assert_eq!(symbol.kind(), memdl::SymbolKind::Function);
    /// ```
    #[must_use]
    pub fn kind(&self) -> SymbolKind {
        self.kind
    }

    /// Its size in bytes; 0 if the library does not state it.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let symbol = library.symbols().find(|symbol| symbol.name() == "foo_calls").unwrap();
    /// assert_eq!(symbol.name(), "foo_calls");
    /// assert_eq!(symbol.size(), 4); // it is an `int`
    /// ```
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its run-time address; of a thread-local symbol, the offset in the library's block; of an
    /// IFUNC, the address of the resolver.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let symbol = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// // SAFETY: nothing is done with it.
    /// let foo = unsafe { library.get::<*const u8>("foo")? };
    /// assert_eq!(symbol.address(), foo.as_raw_ptr().addr());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> usize {
        self.address
    }
}

/// A library that is parsed and bound, from which any number of instances can be made.
///
/// Every instance has its own data and thread-local storage, and its constructors run.
///
/// ```
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// // SAFETY: we trust the constructors of the library, and of what it needs.
/// let template = unsafe { memdl::Loader::new().prepare(&bytes)? };
/// // SAFETY: as above.
/// let (a, b) = unsafe { (template.instantiate()?, template.instantiate()?) };
/// assert_ne!(a.load_bias(), b.load_bias());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Template {
    prepared: Arc<Prepared<'static>>,
    /// Where unloaded instances wait for the next, if they can.
    stand: Option<Arc<TemplateStand>>,
}

/// Closed when the last clone of its template is dropped.
struct TemplateStand(Arc<Stand<Parts>>);

impl Drop for TemplateStand {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Template {
    pub(crate) fn new(prepared: Prepared<'static>) -> Template {
        let prepared = Arc::new(prepared);
        let stand = stand(&prepared).map(|stand| Arc::new(TemplateStand(stand)));
        Template { prepared, stand }
    }

    /// Makes one more instance and runs its constructors.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// // SAFETY: we trust the constructors of the library, and of what it needs.
    /// let template = unsafe { memdl::Loader::new().prepare(&bytes)? };
    /// // SAFETY: as above.
    /// let (one, other) = unsafe { (template.instantiate()?, template.instantiate()?) };
    /// assert_ne!(one.load_bias(), other.load_bias());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`Error`]. A failure leaves the process as it was.
    ///
    /// # Safety
    /// As [`Library::from_bytes`].
    pub unsafe fn instantiate(&self) -> Result<Library, Error> {
        // SAFETY: the caller's promise.
        let library = self.instance_uninitialised(Some(unsafe { MayRun::promised() }))?;
        // SAFETY: it is mapped and relocated, and no constructor has run; the rest is the caller's promise.
        unsafe { library.group.initialise() };
        Ok(library)
    }

    /// Makes one more instance. Its constructors have not run. IFUNC resolvers run if `may_run` allows it.
    pub(crate) fn instance_uninitialised(&self, may_run: Option<MayRun>) -> Result<Library, Error> {
        require_memory()
            .map_err(Error::from)
            .inspect_err(|error| events::failed(error, events::start()))?;
        let symfiles = &self.prepared.symfiles;
        let mut register = |index: usize, name: Arc<str>, instance| match symfiles
            .get(index)
            .and_then(Option::as_ref)
        {
            Some(symfile) => symfile.register(name, instance),
            None => DebugRegistration::none(name, instance),
        };
        let stand = self.stand.as_ref().map(|stand| &stand.0);
        if let Some(stand) = stand
            && let Some(group) = instance_again(&self.prepared, stand, &mut register)
        {
            return Ok(Library { group });
        }
        let mut received = ReceivedFiles::default();
        let group =
            instance_uninitialised(&self.prepared, &mut received, stand, &mut register, may_run)?;
        Ok(Library { group })
    }

    /// The name of an image of the group that can never be unloaded, if there is one.
    pub(crate) fn permanent_member(&self) -> Option<&str> {
        let members = &self.prepared.members;
        if self.prepared.policy.seal {
            return Some(self.name());
        }
        members.iter().find(|member| member.image.decoded.nodelete).map(|member| &*member.name)
    }

    /// The name of its instances.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let template = unsafe { memdl::Loader::new().prepare(&bytes)? };
    /// assert_eq!(template.name(), "libexample.so");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.prepared.root().name
    }

    /// Its number, which no other template of the process has or had: [`ImageInfo::template`] of its instances.
    ///
    /// [`ImageInfo::template`]: crate::ImageInfo::template
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let template = unsafe { memdl::Loader::new().prepare(&bytes)? };
    /// // SAFETY: we trust the library's constructors.
    /// let instance = unsafe { template.instantiate()? };
    /// assert_eq!(memdl::images()[0].template(), Some(template.id()));
    /// # drop(instance);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> u64 {
        // What was prepared for many instances has one.
        self.prepared.origin.template.unwrap_or_default()
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("name", &self.name()).finish_non_exhaustive()
    }
}
