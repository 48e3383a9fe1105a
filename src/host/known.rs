//! The libraries outside the start-up set that were found by their names, for as long as they are held.
//!
//! Each is looked up and read once. Otherwise every load of an image would ask `ld.so` for each library that it needs,
//! directly or not, and each `dlclose` sorts all libraries of the process: with 140 libraries that is most of a load.
//! Those that images need stay loaded, and so does what these need; they are held for good.
//!
//! A name means the same library while that is loaded: `ld.so` takes the first of its list, and appends to the list.
//!
//! Sources: glibc `elf/dl-load.c` (`_dl_map_object`), `elf/dl-close.c` (`_dl_close_worker`: what a library with
//! `RTLD_NODELETE` needs stays, too).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Weak};

use crate::base::fallible::{OutOfMemory, TryGrow, require_memory};
use crate::base::sync::{Lock, Rank};
use crate::host::library::HostLibrary;

struct Known {
    by_name: BTreeMap<CString, Weak<HostLibrary>>,
    /// The load biases and names of those that `ld.so` was asked never to unload.
    marked: Vec<(usize, CString)>,
    /// Those that are never unloaded and were found.
    permanent: Vec<Arc<HostLibrary>>,
}

static KNOWN: Lock<Known> = Lock::new(
    Rank::KnownLibraries,
    Known { by_name: BTreeMap::new(), marked: Vec::new(), permanent: Vec::new() },
);

/// The library that was found by this name before and is held.
pub(super) fn named(name: &CStr) -> Option<Arc<HostLibrary>> {
    KNOWN.lock().by_name.get(name)?.upgrade()
}

/// Notes that a library was found by this name. One that is never unloaded is held from now on.
pub(super) fn remember(name: &CStr, library: &Arc<HostLibrary>) -> Result<(), OutOfMemory> {
    // An image can state any number of paths of one file.
    if name.to_bytes().contains(&b'/') {
        return Ok(());
    }
    require_memory()?;
    let name = name.to_owned();
    let mut known = KNOWN.lock();
    known.by_name.insert(name, Arc::downgrade(library));
    if library.is_permanent { known.permanent.try_push(library.clone()) } else { Ok(()) }
}

/// Notes that `ld.so` was asked never to unload a library.
pub(super) fn mark(library: &HostLibrary) -> Result<(), OutOfMemory> {
    require_memory()?;
    let entry = (library.load_bias(), library.path().to_owned());
    let mut known = KNOWN.lock();
    if known.marked.contains(&entry) { Ok(()) } else { known.marked.try_push(entry) }
}

/// Whether `ld.so` was asked never to unload this library.
pub(super) fn is_marked(library: &HostLibrary) -> bool {
    let is_it = |(load_bias, name): &(usize, CString)| {
        *load_bias == library.load_bias() && name.as_c_str() == library.path()
    };
    KNOWN.lock().marked.iter().any(is_it)
}
