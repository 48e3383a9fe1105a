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
use crate::base::fallible::{OutOfMemory, require_memory_for_next, try_collect, try_vec};
use crate::host::library::HostLibrary;
use crate::host::phdr;
use crate::host::process;

/// Finds the set, once in a process.
pub(crate) fn set_up() -> Result<(), Error> {
    if START.get().is_none() {
        let _ = START.set(Start::find()?);
    }
    Ok(())
}

/// Keeps the object that memdl is linked into from being unloaded: images, the ends of threads, and debuggers
/// refer to its code.
pub(crate) fn stay_loaded() {
    let is_own = |library: &HostLibrary| library.has_code_at(set_up as *const () as usize);
    // Those of the start-up set stay.
    if !startup_set().iter().any(|library| is_own(library)) {
        process::stay_loaded();
    }
}

#[derive(Default)]
struct Start {
    /// In search order.
    set: Vec<Arc<HostLibrary>>,
    /// While `ld.so` has loaded this number of libraries, there are no others than the set.
    alone_at: Option<u64>,
}

/// The start-up set in search order.
pub(crate) fn startup_set() -> &'static [Arc<HostLibrary>] {
    &start().set
}

/// Whether memdl is linked into the executable, and not into a library.
pub(crate) fn is_in_executable() -> bool {
    let has_code = |library: &Arc<HostLibrary>| library.has_code_at(set_up as *const () as usize);
    startup_set().first().is_some_and(has_code)
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

fn file_name(path: &CStr) -> Option<&[u8]> {
    let path = path.to_bytes();
    path.rsplit(|&byte| byte == b'/').next()
}

/// One more than the highest index of the libraries that the first one needs, directly or not, found by the names of
/// their files. A needed library that was found under another name only makes the number smaller.
fn closure_end<'a>(libraries: &'a [Option<Arc<HostLibrary>>]) -> Result<usize, OutOfMemory> {
    let library = |index: usize| libraries.get(index)?.as_deref();
    let path = |it: &'a Option<Arc<HostLibrary>>| it.as_deref().map(HostLibrary::path);
    let names = try_collect(libraries.iter().map(|it| path(it).and_then(file_name)))?;
    let mut reached: Vec<usize> = try_vec(libraries.len())?;
    reached.push(0);
    let mut next = 0;
    'all: while let Some(&index) = reached.get(next) {
        next = next.saturating_add(1);
        let needed = library(index).into_iter().flat_map(HostLibrary::needed);
        for wanted in needed.filter_map(file_name) {
            let found = names.iter().position(|name| *name == Some(wanted));
            // As many as there are libraries at most.
            reached.extend(found.filter(|index| !reached.contains(index)));
            // Usually it is `ld.so`, which the executable needs itself.
            let is_last = |found: usize| found.saturating_add(1) >= libraries.len();
            if found.is_some_and(is_last) {
                break 'all;
            }
        }
    }
    Ok(reached.into_iter().max().map_or(0, |last| last.saturating_add(1)))
}

impl Start {
    fn find() -> Result<Start, Error> {
        // Before the list, so that a library that is opened in between counts as opened later.
        let loads = phdr::loads();
        let list = phdr::listed()?;
        let mut alone = true;
        let mut libraries: Vec<Option<Arc<HostLibrary>>> = try_vec(list.len())?;
        for (index, listed) in list.into_iter().enumerate() {
            require_memory_for_next(index)?;
            let is_searched = index == 0 || listed.has_path();
            let library = if is_searched { HostLibrary::new(listed, None)? } else { None };
            alone &= library.is_some() || !is_searched;
            libraries.push(library.map(Arc::new));
        }
        let count = closure_end(&libraries)?;
        // Libraries before the last one belong to the set, too: preloaded libraries and their
        // dependencies.
        alone &= libraries.iter().skip(count).all(Option::is_none);
        let set = try_collect(libraries.into_iter().take(count).flatten())?;
        Ok(Start { set, alone_at: alone.then_some(loads) })
    }
}
