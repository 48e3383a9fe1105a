//! Changes the references of loaded libraries to a function, in their global offset tables.
//!
//! Decides nothing: the caller chooses the new address.
//!
//! Source: psABI "Global Offset Table".

#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::{self, RelocKind};
use crate::host::dl::Handle;
use crate::host::library::HostLibrary;
use crate::host::process;
use crate::memory::relro::write_relro;

/// What becomes of a reference.
pub(crate) enum Reference {
    /// It is changed to this address.
    To(usize),
    /// It leads where it should, and stays.
    Right,
    /// It leads elsewhere, and stays.
    Elsewhere,
}

/// Changes the references of a library to `name`. `change` gets the address that a reference has now. Returns
/// whether there is one that leads where it should then.
///
/// Only one thread of the process may do so at a time, whichever copy of memdl it is in ([`process::alone`]).
pub(crate) fn change_references(
    library: &HostLibrary,
    name: &[u8],
    change: &dyn Fn(usize) -> Reference,
) -> bool {
    let mut found = false;
    for word in references(library, name) {
        // SAFETY: a word of the global offset table of a library that stays loaded, which `ld.so` has
        // filled in. Its code reads the whole word.
        found |= unsafe {
            match change((*(word as *const AtomicUsize)).load(Ordering::SeqCst)) {
                Reference::To(to) => write_relro(word, &to.to_ne_bytes(), &library.relro).is_ok(),
                Reference::Right => true,
                Reference::Elsewhere => false,
            }
        };
    }
    found
}

/// The addresses of the words of a library's global offset table for a name.
fn references(library: &HostLibrary, name: &[u8]) -> impl Iterator<Item = usize> {
    let table = library.table();
    library.relas().filter_map(move |rela| {
        let symbol = table.symbol(rela.symbol)?;
        let is_reference = table.is_string(symbol.st_name, name)
            && matches!(
                arch::MACHINE.reloc_kind(rela.r_type),
                Some(RelocKind::JumpSlot | RelocKind::GlobDat)
            );
        is_reference.then(|| library.address(rela.r_offset))
    })
}

/// Whether a reference of a library leads to a function of the C library, whose address is `real`, or was not used
/// yet: then it leads to the library's own PLT.
pub(crate) fn is_plain(library: &HostLibrary, now: usize, real: Option<usize>) -> bool {
    library.has_code_at(now) || Some(now) == real
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
        let change = |now: usize| match is_plain(library, now, real) {
            true => Reference::To(to),
            false => Reference::Elsewhere,
        };
        process::alone(&mut || _ = change_references(library, name, &change));
    }
}
