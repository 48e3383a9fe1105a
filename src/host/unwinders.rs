//! Which objects of the process have an unwinder in them: libraries for it, and objects that one is statically
//! linked into.
//!
//! An unwinder for others exports its functions. One that is linked into an object may be hidden, and leaves only
//! what it asks the C library for. `_dl_find_object` is for unwinders alone. `dl_iterate_phdr` is for others, too:
//! it counts where the object has code with handlers of exceptions, and gets none of the functions that such code
//! calls (`_Unwind_Resume` and others) from elsewhere; or where memdl is in the same object, and the linker has
//! bound memdl's references to an unwinder there.
//!
//! Reads symbols only; `unwind` leads unwinders to images.
//!
//! Sources: LSB Core "Exception Handling"; `libunwind(3)`; glibc manual "Dynamic Linker Introspection".

#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock};

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_collect};
use crate::elf::lookup::VersionMatch;
use crate::elf::symbol::SymbolName;
use crate::host::library::HostLibrary;
use crate::host::opened::opened_that;
use crate::host::startup_set::startup_set;

/// The objects that have an unwinder, held.
pub(crate) fn unwinders() -> Result<Vec<Arc<HostLibrary>>, Error> {
    let exported = exported();
    if AT_START.get().is_none() {
        let _ = AT_START.set(at_start(&exported)?);
    }
    let mut found = try_collect(AT_START.get().into_iter().flatten().cloned())?;
    for library in opened_that(&|library| has_unwinder(library, &exported))? {
        found.try_push(library)?;
    }
    Ok(found)
}

/// Those of the start-up set, which never changes. To find them takes as long as a load.
static AT_START: OnceLock<Vec<Arc<HostLibrary>>> = OnceLock::new();

fn at_start(exported: &[SymbolName<'_>]) -> Result<Vec<Arc<HostLibrary>>, Error> {
    let mut found = Vec::new();
    for (index, library) in startup_set().iter().enumerate() {
        require_memory_for_next(index)?;
        if has_unwinder(library, exported) {
            found.try_push(library.clone())?;
        }
    }
    Ok(found)
}

/// Functions of which each unwinder for others has one. `_Unwind_RaiseException` is none of them: libraries that
/// only watch exceptions define it, too.
fn exported() -> [SymbolName<'static>; 4] {
    let [step, step_anywhere] = arch::LIBUNWIND_STEPS;
    [b"_Unwind_SetGR".as_slice(), b"unw_step", step, step_anywhere].map(SymbolName::new)
}

fn has_unwinder(library: &HostLibrary, exported: &[SymbolName<'_>]) -> bool {
    if exported.iter().any(|name| library.defines(name, VersionMatch::Default)) {
        return true;
    }
    let (mut asks, mut gets) = (false, false);
    let table = library.table();
    let starts = [b"_dl_find", b"dl_itera", b"_Unwind_"];
    for name in table.undefined_starting_with(starts, library.is_executable()) {
        if table.is_string(name, b"_dl_find_object") {
            return true;
        }
        asks |= table.is_string(name, b"dl_iterate_phdr");
        gets |= table.strings_from(name).starts_with(b"_Unwind_");
    }
    let is_linked =
        || arch::linked_unwinders().iter().any(|&it| it != 0 && library.has_code_at(it));
    asks && (!gets && library.has_personality() || is_linked())
}

/// Whether nongnu libunwind is in the object, for all that can be seen.
pub(crate) fn has_steps(unwinder: &HostLibrary) -> bool {
    let is_linked = |address: usize| address != 0 && unwinder.has_code_at(address);
    arch::LIBUNWIND_STEPS.iter().any(|name| unwinder.exported(name).is_some())
        || arch::linked_unwinders().iter().take(2).any(|&it| is_linked(it))
}

/// The addresses of nongnu libunwind's function that empties its caches, and of the pointer to the address space of
/// the process, if an unwinder has both.
pub(crate) fn caches(unwinder: &HostLibrary) -> Option<[usize; 2]> {
    match arch::LIBUNWIND_CACHES.map(|name| unwinder.exported(name)) {
        [Some(flush), Some(space)] => Some([flush, space]),
        _ => Some(arch::linked_caches())
            .filter(|it| it.iter().all(|&it| it != 0 && unwinder.has_code_at(it))),
    }
}
