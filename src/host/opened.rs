//! The libraries that were opened since the process started, and filters over the names that the process's
//! libraries define.
//!
//! Such a library can be unloaded by its owner. It is read while `ld.so`'s list is locked, or while a handle
//! to it is held. Names that libraries define are kept, as filters over their hashes, for as long as the list
//! does not change.
//!
//! Decides nothing about bindings: [`crate::host::global_scope`] does.
//!
//! Source: `dl_iterate_phdr(3)`.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory, try_collect, try_collect_ok};
use crate::base::sync::{Guard, Lock, Rank};
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::dl::Handle;
use crate::host::library::HostLibrary;
use crate::host::phdr::{Changes, Filter, PhdrEntry, listed_if};
use crate::host::startup_set::{is_alone, startup_set};

/// Whether it was opened since the process started.
fn is_opened(entry: &PhdrEntry) -> bool {
    entry.has_path() && !startup_set().iter().any(|library| library.is_listed_as(entry))
}

/// The library of this entry, held, if it is still loaded.
fn hold(entry: PhdrEntry) -> Result<Option<Arc<HostLibrary>>, Error> {
    let Some(handle) = Handle::loaded(&entry.name) else { return Ok(None) };
    // Before it was held, it may have been unloaded, and another loaded under its name.
    let is_it = handle.link_map().is_some_and(|map| map.0 == entry.load_bias);
    let library = if is_it { HostLibrary::new(entry, Some(handle))? } else { None };
    Ok(library.map(Arc::new))
}

/// The libraries of these entries that are still loaded.
fn hold_all(entries: Vec<PhdrEntry>) -> Result<Vec<Arc<HostLibrary>>, Error> {
    let held = entries.into_iter().map(hold);
    try_collect_ok(held.filter_map(Result::transpose))
}

/// The libraries that were opened since the process started and define one of these names. Names that were collected
/// spare most libraries; this is no reason to collect them.
pub(super) fn opened_defining(
    names: &[SymbolName<'_>],
    wanted: VersionMatch<'_>,
) -> Result<Vec<Arc<HostLibrary>>, Error> {
    let defines = |library: &HostLibrary| names.iter().any(|name| library.defines(name, wanted));
    let Some(opened) = made_names().opened_now() else { return opened_that(&defines) };
    let may_have = |filter: &NameFilter| names.iter().any(|it| filter.may_have(it.gnu_hash_31()));
    if !may_have(&opened.names) {
        return Ok(Vec::new());
    }
    let libraries = opened.libraries.iter().filter(|it| may_have(&it.names));
    let held = try_collect_ok(libraries.map(OpenedLibrary::hold).filter_map(Result::transpose))?;
    Ok(try_collect(held.into_iter().filter(|library| defines(library)))?)
}

/// Whether the names of these libraries are known: they were collected since the last change, or there are none.
pub(super) fn names_are_known() -> bool {
    is_alone() || made_names().opened_now().is_some()
}

/// Whether a library of the process defines `name` as an IFUNC, or no answer can be given for lack of memory.
pub(super) fn is_ifunc(name: &SymbolName<'_>) -> bool {
    let in_table = |table: &SymbolTable<'_>| {
        let found = table.lookup(name, VersionMatch::Any, TypeClass::Definition);
        found.is_some_and(|(_, symbol)| symbol.is_ifunc())
    };
    startup_set().iter().any(|library| in_table(&library.table()))
        || opened_that(&|library| in_table(&library.table())).map_or(true, |it| !it.is_empty())
}

/// The libraries that were opened since the process started and that `is_wanted` selects.
///
/// They are read while `ld.so`'s list is locked. A handle of each would keep their owners from unloading them
/// for that moment.
pub(super) fn opened_that(
    is_wanted: &dyn Fn(&HostLibrary) -> bool,
) -> Result<Vec<Arc<HostLibrary>>, Error> {
    hold_all(opened_if(&mut |entry| {
        let library = HostLibrary::new(entry.clone(), None)?;
        Ok(library.is_some_and(|library| is_wanted(&library)))
    })?)
}

/// The libraries that were opened since the process started and that `keep` selects, as [`listed_if`].
fn opened_if(keep: &mut Filter<'_>) -> Result<Vec<PhdrEntry>, Error> {
    if is_alone() {
        return Ok(Vec::new());
    }
    listed_if(&mut |entry| Ok(is_opened(entry) && keep(entry)?))
}

/// The names that libraries define, as far as they were needed.
struct MadeNames {
    /// Those of the start-up set.
    startup: Option<Arc<NameFilter>>,
    /// Those of all others, and the state of the list at that time.
    opened: Option<(Changes, Arc<OpenedLibraries>)>,
}

impl MadeNames {
    /// Those of the others, if the list has not changed.
    fn opened_now(&self) -> Option<Arc<OpenedLibraries>> {
        let now = Changes::now();
        let (_, opened) = self.opened.as_ref().filter(|(changes, _)| *changes == now)?;
        Some(opened.clone())
    }
}

/// The libraries that were opened since the process started, with the names that they define.
pub(super) struct OpenedLibraries {
    pub names: NameFilter,
    pub libraries: Vec<OpenedLibrary>,
}

pub(super) struct OpenedLibrary {
    entry: PhdrEntry,
    pub names: NameFilter,
    /// A name that it defines, and the address: if `dlsym` finds that, the library is globally visible.
    defined: Option<(CString, usize)>,
}

/// Whether a library was opened with `RTLD_GLOBAL`. That can change without notice while it is loaded, so the
/// answer is used for one load.
pub(super) enum GlobalVisibility {
    No,
    /// Held, since its owner may unload it.
    Yes(Arc<HostLibrary>),
    Perhaps,
}

impl OpenedLibrary {
    fn new(
        library: &HostLibrary,
        entry: &PhdrEntry,
        hashes: &[u32],
    ) -> Result<OpenedLibrary, Error> {
        let table = library.table();
        // `dlsym` would call the resolver of an IFUNC, and finds the default version.
        let is_plain = |index: u32, symbol: &Sym| {
            !symbol.is_ifunc()
                && !symbol.is_thread_local()
                && !symbol.is_absolute()
                && table.is_default_version(index)
        };
        let found = table.exports().find(|(index, symbol)| is_plain(*index, symbol));
        let defined = found.and_then(|(_, symbol)| {
            let name = CString::new(table.string(symbol.st_name)?).ok()?;
            Some((name, library.address(Vaddr(symbol.st_value))))
        });
        Ok(OpenedLibrary { entry: entry.clone(), names: NameFilter::new(hashes)?, defined })
    }

    /// The library, held, if it is still loaded.
    pub(super) fn hold(&self) -> Result<Option<Arc<HostLibrary>>, Error> {
        hold(self.entry.clone())
    }

    /// Whether [`OpenedLibrary::visibility`] may call an IFUNC's resolver: another library can define the name as
    /// one.
    pub(super) fn is_ifunc_elsewhere(&self) -> bool {
        self.defined.as_ref().is_some_and(|(name, _)| is_ifunc(&SymbolName::new(name.to_bytes())))
    }

    pub(super) fn visibility(&self) -> Result<GlobalVisibility, Error> {
        let Some((name, address)) = &self.defined else { return Ok(GlobalVisibility::Perhaps) };
        require_memory()?;
        Ok(match Handle::global_scope().symbol(name, None) {
            // If `dlsym` finds no definition of the name, it does not search this library.
            None => GlobalVisibility::No,
            Some(found) if found == *address => {
                hold(self.entry.clone())?.map_or(GlobalVisibility::Perhaps, GlobalVisibility::Yes)
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

/// The entry of an opened library, if the libraries are known and the list has not changed.
pub(super) fn known_entry(is_it: impl Fn(&PhdrEntry) -> bool) -> Option<PhdrEntry> {
    let opened = made_names().opened_now()?;
    let mut entries = opened.libraries.iter().map(|library| &library.entry);
    entries.find(|entry| is_it(entry)).cloned()
}

/// The names that the start-up set defines. `None` if they have not been collected yet.
pub(super) fn startup_names(make: bool) -> Option<Arc<NameFilter>> {
    /// They were collected. Loads ask for them, and few collect them.
    static ARE_MADE: AtomicBool = AtomicBool::new(false);
    if !make && !ARE_MADE.load(Ordering::Relaxed) {
        return None;
    }
    let mut made = made_names();
    if made.startup.is_none() && make {
        // Without memory for the filter, names are searched without it.
        let mut hashes = Vec::new();
        let mut libraries = startup_set().iter();
        libraries.try_for_each(|it| hashes.try_extend(it.table().gnu_hashes_31())).ok()?;
        made.startup = Some(Arc::new(NameFilter::new(&hashes).ok()?));
        ARE_MADE.store(true, Ordering::Relaxed);
    }
    made.startup.clone()
}

/// The names that all other libraries define now.
pub(super) fn opened() -> Result<Arc<OpenedLibraries>, Error> {
    let now = Changes::now();
    let mut made = made_names();
    if let Some(opened) = made.opened_now() {
        return Ok(opened);
    }
    let (mut hashes, mut libraries) = (Vec::new(), Vec::new());
    // They are read while `ld.so`'s list is locked.
    opened_if(&mut |entry| {
        if let Some(library) = HostLibrary::new(entry.clone(), None)? {
            let own = try_collect(library.table().gnu_hashes_31())?;
            libraries.try_push(OpenedLibrary::new(&library, entry, &own)?)?;
            hashes.try_append(&own)?;
        }
        Ok(false)
    })?;
    let opened = Arc::new(OpenedLibraries { names: NameFilter::new(&hashes)?, libraries });
    made.opened = Some((now, opened.clone()));
    Ok(opened)
}
