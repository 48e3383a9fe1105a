//! Changes the references of loaded libraries to a function, in their global offset tables.
//!
//! Decides nothing: the caller chooses the new address.
//!
//! Source: psABI "Global Offset Table".

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::{self, RelocKind};
use crate::elf::lookup::VersionMatch;
use crate::elf::symbol::SymbolName;
use crate::host::dl::Handle;
use crate::host::library::HostLibrary;
use crate::host::opened::opened_defining;
use crate::host::process;
use crate::host::startup_set::startup_set;
use crate::memory::relro::write_relro;

/// Changes the references to `name` in every library that defines `definer`. `change` gets the address that
/// a reference has now, and returns the new one, or `None` to leave it. Returns the number of libraries that
/// have such a reference.
///
/// One thread of the process does so at a time, whichever copy of memdl it is in.
pub(crate) fn patch_got(
    definer: &[u8],
    name: &[u8],
    change: &dyn Fn(usize) -> Option<usize>,
) -> usize {
    let libraries = defining(definer);
    let mut found = 0;
    let count = || libraries.iter().filter(|library| patch_library(library, name, change)).count();
    process::alone(&mut || found = count());
    found
}

/// Leads the references to a function of the C library in every library that defines `definer` to `to`. Returns
/// the number of libraries in which they lead there. A reference that leads elsewhere stays.
pub(crate) fn redirect_where_defined(definer: &[u8], name: &CStr, to: usize) -> usize {
    let libraries = defining(definer);
    let real = Handle::global_scope().symbol(name, None);
    let leads_there = |library: &HostLibrary| {
        let leads = Cell::new(false);
        let change = |now: usize| {
            // A call that was not made yet leads to the library's own PLT.
            let is_plain = library.has_code_at(now) || Some(now) == real;
            leads.set(is_plain || now == to);
            is_plain.then_some(to)
        };
        patch_library(library, name.to_bytes(), &change) && leads.get()
    };
    let mut found = 0;
    process::alone(&mut || found = libraries.iter().filter(|it| leads_there(it)).count());
    found
}

/// The libraries that define a symbol, without the executable.
fn defining(definer: &[u8]) -> Vec<Arc<HostLibrary>> {
    let (definer, wanted) = (SymbolName::new(definer), VersionMatch::Default);
    // The executable has no name.
    let defines = |it: &&Arc<HostLibrary>| !it.name.is_empty() && it.defines(&definer, wanted);
    let startup = startup_set().iter().filter(defines).cloned();
    // Without memory for them, they are searched again when the next library is loaded.
    let opened = opened_defining(&definer, wanted).unwrap_or_default();
    startup.chain(opened).collect()
}

/// Leads a library's references to functions of the C library to their replacements. A reference that leads
/// elsewhere, to a function that a preloaded library puts in its place, stays.
pub(crate) fn redirect(library: &HostLibrary, replacement: &dyn Fn(&[u8]) -> Option<usize>) {
    let table = library.table();
    let mut names: Vec<&[u8]> = Vec::new();
    for rela in library.relas() {
        let Some(symbol) = table.symbol(rela.symbol) else { continue };
        let Some(name) = table.string(symbol.st_name) else { continue };
        if symbol.is_undefined() && replacement(name).is_some() && !names.contains(&name) {
            names.push(name);
        }
    }
    if !names.contains(&&b"dlopen"[..]) {
        return;
    }
    for name in names {
        let Some(to) = replacement(name) else { continue };
        let real =
            CString::new(name).ok().and_then(|name| Handle::global_scope().symbol(&name, None));
        let change = |now: usize| {
            // A call that was not made yet leads to the library's own PLT.
            let is_unbound = library.has_code_at(now);
            (is_unbound || Some(now) == real).then_some(to)
        };
        process::alone(&mut || _ = patch_library(library, name, &change));
    }
}

/// Changes the references of one library. Returns whether there are any.
fn patch_library(
    library: &HostLibrary,
    name: &[u8],
    change: &dyn Fn(usize) -> Option<usize>,
) -> bool {
    let table = library.table();
    let mut found = false;
    for rela in library.relas() {
        let is_reference = matches!(
            arch::MACHINE.reloc_kind(rela.r_type),
            Some(RelocKind::JumpSlot | RelocKind::GlobDat)
        );
        let symbol = if is_reference { table.symbol(rela.symbol) } else { None };
        if symbol.is_some_and(|symbol| table.string(symbol.st_name) == Some(name)) {
            let word = library.address(rela.r_offset);
            // SAFETY: a word of the global offset table of a library that stays loaded, which `ld.so` has
            // filled in. Its code reads the whole word.
            found |= unsafe {
                match change((*(word as *const AtomicUsize)).load(Ordering::SeqCst)) {
                    Some(to) => write_relro(word, &to.to_ne_bytes(), &library.relro).is_ok(),
                    None => true,
                }
            };
        }
    }
    found
}
