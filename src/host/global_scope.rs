//! The global scope of the host: what a reference is bound to that `ld.so` would search there.
//!
//! `dlsym(RTLD_DEFAULT, ..)` is the reference for what the scope defines, but it is not enough
//! ([`crate::host::library`]). So the start-up set, which comes first in the scope, is searched here. `dlsym` is
//! called only for a name that is not found there, and only if a library that was opened since may define it:
//! libraries that were opened with `RTLD_GLOBAL` are nowhere listed. Few such names are asked for at once, which
//! is quicker than finding out which names these libraries define.
//!
//! Never opens a library. Holds a library outside the start-up set that an answer is about.
//!
//! Sources: `dlopen(3)`, `dlsym(3)`; the search order: gABI "Shared Object Dependencies".

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_c_string, try_collect};
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::symbol::SymbolName;
use crate::elf::symbol_table::SymbolTable;
use crate::host::dl::Handle;
use crate::host::library::{HostLibrary, HostSymbol, Resolvers, SymbolValue};
use crate::host::opened::{
    GlobalVisibility, OpenedLibraries, OpenedLibrary, is_ifunc, names_are_known, opened,
    opened_defining, startup_names,
};
use crate::host::process;
use crate::host::startup_set::startup_set;

/// The host's global scope, as `dlsym(RTLD_DEFAULT, ..)` searches it for the executable.
pub(crate) struct GlobalScope {
    startup: Vec<(&'static HostLibrary, SymbolTable<'static>)>,
    /// The names that the start-up set defines, once it is worth collecting them.
    startup_names: OnceCell<Arc<NameFilter>>,
    /// Whether a name was searched.
    is_used: Cell<bool>,
    /// The libraries that were opened since the process started, and what is known of each.
    opened: OnceCell<(Arc<OpenedLibraries>, Vec<Known>)>,
    /// Of these, the libraries that defined a name, the last first: they usually define further names.
    found_in: RefCell<Vec<Arc<HostLibrary>>>,
    /// The number of names that [`GlobalScope::is_nowhere`] may still ask for, once it was called.
    left_to_ask: Cell<Option<u8>>,
    /// The number of opened libraries that are known not to be visible.
    hidden: Cell<usize>,
    /// A search had no memory, so answers may be wrong.
    failed: RefCell<Option<Error>>,
    resolvers: Resolvers,
}

/// What was found out about an opened library, once it mattered.
#[derive(Default)]
struct Known {
    visibility: OnceCell<GlobalVisibility>,
    /// `None` if it was unloaded meanwhile.
    held: OnceCell<Option<Arc<HostLibrary>>>,
}

/// After this many searches, the names of the start-up set are collected. That takes as long as some hundred
/// searches, which the first load in a process should not wait for.
const MIN_SEARCHES: usize = 100;
/// The weak references of the files that compilers link each library with (`crti.o`, `crtbegin.o`).
const OF_START_FILES: [&[u8]; 3] =
    [b"__gmon_start__", b"_ITM_registerTMCloneTable", b"_ITM_deregisterTMCloneTable"];

/// The number of searches without the names.
static SEARCHES: AtomicUsize = AtomicUsize::new(0);

/// As many names that the start-up set does not define are asked for before the names of the other libraries are
/// collected. Most images have three, which nothing defines (`__gmon_start__`); a host with plug-ins has many
/// libraries.
const MAX_ASKED: u8 = 16;

/// A definition in the global scope, and the owner that keeps it loaded.
pub(crate) struct GlobalSymbol {
    pub symbol: HostSymbol,
    /// The library that defines it, unless that is never unloaded.
    pub library: Option<Arc<HostLibrary>>,
}

impl GlobalScope {
    /// The scope as it is now.
    pub(crate) fn new(resolvers: Resolvers) -> Result<GlobalScope, Error> {
        let startup =
            try_collect(startup_set().iter().map(|library| (&**library, library.table())))?;
        Ok(GlobalScope {
            startup,
            startup_names: OnceCell::new(),
            is_used: Cell::new(false),
            opened: OnceCell::new(),
            found_in: RefCell::default(),
            left_to_ask: Cell::new(None),
            hidden: Cell::new(0),
            failed: RefCell::default(),
            resolvers,
        })
    }

    /// A scope that defines nothing: that of a process elsewhere, of which nothing is known.
    pub(crate) fn nothing() -> GlobalScope {
        let none = OpenedLibraries { names: NameFilter::none(), libraries: Vec::new() };
        GlobalScope {
            startup: Vec::new(),
            startup_names: OnceCell::from(Arc::new(NameFilter::none())),
            is_used: Cell::new(true),
            opened: OnceCell::from((Arc::new(none), Vec::new())),
            found_in: RefCell::default(),
            left_to_ask: Cell::new(Some(0)),
            hidden: Cell::new(0),
            failed: RefCell::default(),
            resolvers: Resolvers::Rest,
        }
    }

    /// Whether look-ups call IFUNC resolvers.
    pub(crate) fn resolvers(&self) -> Resolvers {
        self.resolvers
    }

    /// The library of the start-up set that defines `name` first.
    pub(crate) fn startup_library(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<&'static HostLibrary> {
        let found = self.startup.iter().find(|(_, it)| it.lookup(name, wanted, class).is_some());
        found.map(|(library, _)| *library)
    }

    /// Fails if a search had no memory. To be called after the last search: until then answers can be wrong.
    pub(crate) fn check_memory(&self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The result, or a substitute, with the error noted for [`GlobalScope::check_memory`].
    fn noting<T>(&self, found: Result<T, Error>, otherwise: impl FnOnce() -> T) -> T {
        found.unwrap_or_else(|error| {
            self.failed.replace(Some(error));
            otherwise()
        })
    }

    /// The names that the start-up set and all other libraries define, whether visible or not. `None` if those
    /// of the start-up set have not been collected yet.
    pub(crate) fn names(&self) -> Option<[&NameFilter; 2]> {
        if self.startup_names.get().is_none()
            && let Some(names) = startup_names(false)
        {
            let _ = self.startup_names.set(names);
        }
        Some([self.startup_names.get()?, &self.opened().0.names])
    }

    /// Whether a library in the scope may define a name with this hash ([`SymbolName::gnu_hash_31`]).
    #[inline]
    pub(crate) fn may_define(&self, gnu_hash_31: u32) -> bool {
        self.startup_may_have(gnu_hash_31) || self.visible_with(gnu_hash_31).next().is_some()
    }

    /// Whether no library in the scope defines a name with this hash, as far as that is known already.
    #[inline]
    pub(crate) fn surely_lacks(&self, gnu_hash_31: u32) -> bool {
        let Some((_, opened)) = self.opened.get() else { return false };
        self.startup_names.get().is_some_and(|names| !names.may_have(gnu_hash_31))
            // Usually all are hidden.
            && (opened.len() <= self.hidden.get() || self.is_visible_nowhere(gnu_hash_31))
    }

    #[inline]
    fn startup_may_have(&self, gnu_hash_31: u32) -> bool {
        match self.startup_names.get() {
            Some(names) => names.may_have(gnu_hash_31),
            None => self.unfiltered(gnu_hash_31),
        }
    }

    /// As [`GlobalScope::startup_may_have`], while this scope has no filter.
    fn unfiltered(&self, gnu_hash_31: u32) -> bool {
        let is_first = !self.is_used.replace(true);
        let is_time = SEARCHES.fetch_add(1, Ordering::Relaxed) == MIN_SEARCHES;
        if (is_first || is_time)
            && let Some(names) = startup_names(is_time)
        {
            let _ = self.startup_names.set(names);
        }
        self.startup_names.get().is_none_or(|names| names.may_have(gnu_hash_31))
    }

    #[inline]
    fn opened(&self) -> &(Arc<OpenedLibraries>, Vec<Known>) {
        self.opened.get_or_init(|| {
            let found = opened().and_then(|opened| {
                let known = try_collect(opened.libraries.iter().map(|_| Known::default()))?;
                Ok((opened, known))
            });
            let none = || OpenedLibraries { names: NameFilter::none(), libraries: Vec::new() };
            self.noting(found, || (Arc::new(none()), Vec::new()))
        })
    }

    /// The visibility of the opened libraries that may define such a name, except for those that are not
    /// visible.
    fn visible_with(&self, gnu_hash_31: u32) -> impl Iterator<Item = &GlobalVisibility> {
        // An image with references to many libraries soon knows all of them.
        let is_any = self.opened().1.len() > self.hidden.get();
        let libraries = is_any.then(|| self.opened_with(gnu_hash_31));
        libraries.into_iter().flatten().filter_map(|(library, known)| {
            let found = || {
                let visible = match self.resolvers {
                    Resolvers::Rest if library.is_ifunc_elsewhere() => GlobalVisibility::Perhaps,
                    _ => self.noting(library.visibility(), || GlobalVisibility::Perhaps),
                };
                let is_hidden = matches!(visible, GlobalVisibility::No);
                self.hidden.set(self.hidden.get().saturating_add(usize::from(is_hidden)));
                visible
            };
            let visible = known.visibility.get_or_init(found);
            (!matches!(visible, GlobalVisibility::No)).then_some(visible)
        })
    }

    /// Whether no opened library that is visible may define such a name.
    #[inline(never)]
    fn is_visible_nowhere(&self, gnu_hash_31: u32) -> bool {
        self.visible_with(gnu_hash_31).next().is_none()
    }

    /// The opened libraries that may define such a name.
    fn opened_with(&self, gnu_hash_31: u32) -> impl Iterator<Item = (&OpenedLibrary, &Known)> {
        let (opened, known) = self.opened();
        // Usually none of them defines the name.
        let any = opened.names.may_have(gnu_hash_31);
        let libraries = any.then(|| opened.libraries.iter().zip(known));
        libraries.into_iter().flatten().filter(move |it| it.0.names.may_have(gnu_hash_31))
    }

    /// The process's definition of a unique symbol, if a library that was opened since the process started
    /// defines it. The visibility of that library does not matter: `ld.so` has one table for all.
    pub(crate) fn unique(&self, name: &SymbolName<'_>) -> Option<(HostSymbol, Arc<HostLibrary>)> {
        // The ELF header says nothing of it: some linkers and tools do not mark such libraries as GNU's.
        let mut libraries = self.opened_with(name.gnu_hash_31()).filter_map(|(library, known)| {
            let held = || self.noting(library.hold(), || None);
            known.held.get_or_init(held).as_ref()
        });
        // A definition is in that table once a reference was bound to it; most libraries have one. Asking
        // `dlsym` for another definition would add that.
        libraries.find_map(|library| {
            let found = library.has_bound(name).then(|| library.unique(name)).flatten()?;
            Some((found, library.clone()))
        })
    }

    /// The definition that `name` is bound to.
    pub(crate) fn lookup(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<GlobalSymbol> {
        if self.startup_may_have(name.gnu_hash_31()) {
            let found = self.startup.iter().find_map(|(library, table)| {
                let (_, symbol) = table.lookup(name, wanted, class)?;
                Some(library.host_symbol(&symbol, self.resolvers))
            });
            if let Some(symbol) = found {
                return Some(GlobalSymbol { symbol, library: None });
            }
        }
        if self.is_nowhere(name, wanted) {
            return None;
        }
        let mut libraries = self.visible_with(name.gnu_hash_31());
        match (libraries.next()?, libraries.next()) {
            // No other library can define it.
            (GlobalVisibility::Yes(library), None) => {
                let (_, symbol) = library.table().lookup(name, wanted, class)?;
                if symbol.is_unique() {
                    return self.lookup_opened(name, wanted, class);
                }
                let symbol = library.host_symbol(&symbol, self.resolvers);
                Some(GlobalSymbol { symbol, library: Some(library.clone()) })
            }
            _ => self.lookup_opened(name, wanted, class),
        }
    }

    /// What `dlsym` finds in the global scope.
    fn by_dlsym(&self, name: &SymbolName<'_>, wanted: VersionMatch<'_>) -> Option<usize> {
        let c_string =
            |bytes: &[u8]| self.noting(try_c_string(bytes).map_err(Error::from), || None);
        let c_name = c_string(name.bytes())?;
        let version = match wanted {
            VersionMatch::Version(version) => Some(c_string(version.name())?),
            VersionMatch::Unversioned | VersionMatch::Default | VersionMatch::Any => None,
        };
        Handle::global_scope().symbol(&c_name, version.as_deref())
    }

    /// Whether `dlsym` does not find a name that the start-up set does not define. It is asked for the first such names
    /// while those of the other libraries are not known. If it finds none, they are never read. It may call an IFUNC's
    /// resolver.
    ///
    /// An unversioned reference can be bound to a definition of the first version, which `dlsym` does not find if
    /// another is the default. No library has such a definition of what start files refer to.
    fn is_nowhere(&self, name: &SymbolName<'_>, wanted: VersionMatch<'_>) -> bool {
        if self.opened.get().is_some() || self.resolvers == Resolvers::Rest {
            return false;
        }
        let is_certain = match wanted {
            VersionMatch::Version(_) | VersionMatch::Default => true,
            VersionMatch::Unversioned => OF_START_FILES.contains(&name.bytes()),
            VersionMatch::Any => false,
        };
        if !is_certain {
            return false;
        }
        let most = || if names_are_known() { 0 } else { MAX_ASKED };
        let left = self.left_to_ask.get().unwrap_or_else(most).checked_sub(1);
        self.left_to_ask.set(Some(left.unwrap_or(0)));
        left.is_some() && self.by_dlsym(name, wanted).is_none()
    }

    /// A symbol of a library that was opened with `RTLD_GLOBAL` after the process started. `dlsym` tells
    /// whether there is one; the library that defines it must be searched.
    fn lookup_opened(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<GlobalSymbol> {
        if self.resolvers == Resolvers::Rest && is_ifunc(name) {
            return self.lookup_at_rest(name, wanted, class);
        }
        let address = self.by_dlsym(name, wanted)?;
        // For an unversioned name `dlsym` finds the default version. That tells the library; the rules for
        // the reference tell which of that library's definitions it means.
        let is_versioned = matches!(wanted, VersionMatch::Version(_));
        let as_dlsym = if is_versioned { wanted } else { VersionMatch::Default };
        let of_library = |library: Arc<HostLibrary>| {
            let found = library.lookup(name, as_dlsym, TypeClass::Address, self.resolvers);
            let is_it = found.is_some_and(|symbol| {
                match symbol.definition {
                    SymbolValue::Address(found) => found == address,
                    // SAFETY: the library is held, and the offset is its own symbol's.
                    SymbolValue::ThreadLocal { module, offset } => unsafe {
                        process::tls_address(module, offset).addr() == address
                    },
                }
            });
            let symbol = || library.lookup(name, wanted, class, self.resolvers);
            let symbol = is_it.then(symbol).flatten()?;
            Some(GlobalSymbol { symbol, library: Some(library) })
        };
        let known = self.found_in.borrow().iter().cloned().find_map(of_library);
        if known.is_some() {
            return known;
        }
        let defining = opened_defining(slice::from_ref(name), VersionMatch::Any);
        for library in self.noting(defining, Vec::new) {
            if let Some(found) = of_library(library.clone()) {
                let mut found_in = self.found_in.borrow_mut();
                if found_in.try_room(1).is_ok() {
                    found_in.insert(0, library);
                }
                return Some(found);
            }
        }
        // `dlsym` found it, so it exists, in whatever form.
        let symbol = HostSymbol {
            definition: SymbolValue::Address(address),
            st_size: 0,
            is_canonical_plt: false,
        };
        Some(GlobalSymbol { symbol, library: None })
    }

    /// As [`GlobalScope::lookup_opened`], for an IFUNC whose resolver must not run. `dlsym` would call it; so
    /// each library that may be visible counts as visible.
    fn lookup_at_rest(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<GlobalSymbol> {
        let libraries = self.noting(opened_defining(slice::from_ref(name), wanted), Vec::new);
        libraries.into_iter().find_map(|library| {
            let symbol = library.lookup(name, wanted, class, Resolvers::Rest)?;
            Some(GlobalSymbol { symbol, library: Some(library) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::versions::Version;
    use std::ffi::CString;

    /// `dlsym` is the reference: every name that libc exports must be found at the same address.
    #[test]
    fn every_symbol_of_libc_is_what_dlsym_says() {
        let scope = GlobalScope::new(Resolvers::Run).unwrap();
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
    fn a_scope_of_nothing_defines_nothing_and_asks_nothing() {
        let scope = GlobalScope::nothing();
        let name = SymbolName::new(b"realpath");
        let hash = name.gnu_hash_31();
        assert!(scope.surely_lacks(hash) && !scope.may_define(hash));
        for wanted in [VersionMatch::Default, VersionMatch::Unversioned, VersionMatch::Any] {
            assert!(scope.lookup(&name, wanted, TypeClass::Address).is_none());
            assert!(scope.startup_library(&name, wanted, TypeClass::Address).is_none());
        }
        assert!(scope.unique(&name).is_none());
        assert!(scope.names().unwrap().iter().all(|names| !names.may_have(hash)));
        scope.check_memory().unwrap();
    }

    #[test]
    fn an_old_version_is_told_from_the_default_one() {
        // The C library's first release for the machine.
        let first: &[u8] =
            if cfg!(target_arch = "x86_64") { b"GLIBC_2.2.5" } else { b"GLIBC_2.17" };
        let scope = GlobalScope::new(Resolvers::Run).unwrap();
        let name = SymbolName::new(b"fmemopen");
        let address = |wanted| {
            scope.lookup(&name, wanted, TypeClass::Address).map(|found| found.symbol.definition)
        };
        let old = address(VersionMatch::Version(Version::exact(first)));
        let new = address(VersionMatch::Version(Version::exact(b"GLIBC_2.22")));
        assert!(old.is_some() && new.is_some() && old != new);
        assert_eq!(address(VersionMatch::Default), new);
        assert_eq!(address(VersionMatch::Unversioned), old);
        assert!(address(VersionMatch::Version(Version::exact(b"GLIBC_0.0"))).is_none());
    }
}
