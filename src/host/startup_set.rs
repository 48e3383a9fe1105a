//! The start-up set: the libraries that the process started with. They are never unloaded, and come first in
//! the global scope.
//!
//! The set is a prefix of `dl_iterate_phdr`'s list, in the order of the search: the executable, preloaded
//! libraries, then dependencies breadth first. It ends with the last library in the closure of the
//! executable's `DT_NEEDED` entries. The prefix may be too short, never too long: `dlsym` finds the rest.
//!
//! Found once. Never looks at libraries that were opened later.
//!
//! Sources: `dl_iterate_phdr(3)`; the search order: gABI "Shared Object Dependencies".

#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::sync::{Arc, OnceLock};

use crate::base::error::Error;
use crate::base::fallible::{OutOfMemory, TryGrow, require_memory, try_collect, try_vec};
use crate::elf::symbol_table::Tables;
use crate::host::dl::Handle;
use crate::host::library::HostLibrary;
use crate::host::phdr::{self, PhdrEntry};

/// Finds the set and opens the handle of the global scope, once in a process.
pub(crate) fn set_up() -> Result<(), Error> {
    if START.get().is_none() {
        let _ = START.set(Start::find()?);
    }
    if TABLES.get().is_none() {
        let _ = TABLES.set(find_tables()?);
    }
    Handle::global_scope();
    Ok(())
}

#[derive(Default)]
struct Start {
    /// In search order.
    set: Vec<Arc<HostLibrary>>,
    /// While `ld.so` has loaded this number of libraries, there are no others than the set.
    alone_at: Option<u64>,
}

/// The start-up set in search order.
pub(super) fn startup_set() -> &'static [Arc<HostLibrary>] {
    &start().set
}

/// The same, with the symbol tables of each.
pub(super) fn startup_tables() -> &'static [WithTables] {
    TABLES.get_or_init(|| find_tables().unwrap_or_default())
}

fn find_tables() -> Result<Vec<WithTables>, OutOfMemory> {
    try_collect(startup_set().iter().map(|library| (&**library, *library.table())))
}

/// Whether `ld.so` has loaded no library since the process started.
pub(super) fn is_alone() -> bool {
    start().alone_at == Some(phdr::loads())
}

/// Every load has called [`set_up`] before.
fn start() -> &'static Start {
    START.get_or_init(|| Start::find().unwrap_or_default())
}

static START: OnceLock<Start> = OnceLock::new();
static TABLES: OnceLock<Vec<WithTables>> = OnceLock::new();

/// A library of the set, with its symbol tables, which every load searches.
type WithTables = (&'static HostLibrary, Tables<'static>);

impl Start {
    fn find() -> Result<Start, Error> {
        // Before the list, so that a library that is opened in between counts as opened later.
        let loads = phdr::loads();
        let list = phdr::listed()?;
        let file_name = |path: &CStr| {
            path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or(&[]).to_vec()
        };
        // From the executable on, by file name. A needed library that was found under another name only
        // makes the prefix shorter.
        let mut last = 0;
        let mut names: Vec<Vec<u8>> = try_vec(list.len())?;
        for listed in &list {
            require_memory()?;
            names.push(file_name(&listed.name));
        }
        // The entry of each library until it is read, then the library.
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
        // Libraries before the last one belong to the set, too: preloaded libraries and their
        // dependencies.
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
