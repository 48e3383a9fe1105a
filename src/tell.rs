//! How much debuggers are told of images that are in place: changed by the program, or by a person
//! at a debugger's prompt.
//!
//! The latter calls a C function in the process: `print memdl_debug_full()`. The functions are found
//! by their names, so they are never mangled, and never left out by a linker ([`keep`]). They carry
//! a description of their own in DWARF, since a debugger does not call a function of which it does
//! not know what it returns, and hosts are built without debug information. A thread that is stopped
//! may hold any lock: memdl's own are not waited for.
//!
//! Source: DWARF 5, 3.1.1 (compilation units), 3.3 (subroutines), 7.5 (their encoding).

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::sync::Arc;

use crate::debug::{self, Debug, Instances, Source, SymfileTemplate};
use crate::error::Error;
use crate::group::{self, Group, Loaded};
use crate::prepare::with_debug_source;

/// Tells debuggers this much of an image.
pub(crate) fn set_debug(loaded: &Loaded, debug: Debug) -> Result<(), Error> {
    loaded.debug.set(debug, || {
        let make = |source: &Source<'_>| SymfileTemplate::new(source, Instances::One);
        with_debug_source(&loaded.facts, None, &loaded.mapping, &loaded.symbols(), make)
    })
}

/// Sees to it that the functions are in whatever memdl is linked into.
pub(crate) fn keep() {
    let functions = [memdl_debug_full, memdl_debug_portable, memdl_debug_symbols];
    black_box(functions as [extern "C" fn() -> c_int; 3]);
    black_box(memdl_debug_full_at as extern "C" fn(*const c_void) -> c_int);
}

/// What the functions return if a thread is in the middle of a load or an unload.
const BUSY: c_int = -1;

/// Tells debuggers all of every image, as [`Debug::Full`]. Returns of how many, or -1 if a thread is
/// in the middle of a load or an unload: let the process go on and try again.
#[unsafe(no_mangle)]
extern "C" fn memdl_debug_full() -> c_int {
    tell(Debug::Full, |_, _| true)
}

/// As [`memdl_debug_full`], in the form that lldb reads ([`Debug::Portable`]).
#[unsafe(no_mangle)]
extern "C" fn memdl_debug_portable() -> c_int {
    tell(Debug::Portable, |_, _| true)
}

/// As [`memdl_debug_full`], but names only ([`Debug::Symbols`]): to make a debugger that reads much
/// for each event quick again.
#[unsafe(no_mangle)]
extern "C" fn memdl_debug_symbols() -> c_int {
    tell(Debug::Symbols, |_, _| true)
}

/// As [`memdl_debug_full`], of the one image that `address` lies in: `print memdl_debug_full_at($pc)`.
#[unsafe(no_mangle)]
extern "C" fn memdl_debug_full_at(address: *const c_void) -> c_int {
    let address = address.addr();
    tell(Debug::Full, |group, index| group.member(index).mapping.address_range().contains(&address))
}

/// Tells this much, or what there is, of those images that are `wanted`.
fn tell(debug: Debug, wanted: impl Fn(&Group, usize) -> bool) -> c_int {
    let Some(images) = group::all_images_if_free().filter(|_| !debug::is_busy()) else {
        return BUSY;
    };
    let mut told = 0;
    for (group, index) in images.iter().filter(|(group, index)| wanted(group, *index)) {
        let loaded = Arc::as_ref(group).member(*index);
        if loaded.debug.is_busy() {
            return BUSY;
        }
        let all = set_debug(loaded, debug);
        told += c_int::from(all.or_else(|_| set_debug(loaded, Debug::Symbols)).is_ok());
    }
    told
}
