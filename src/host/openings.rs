//! Sees each `dlopen` of the process once it is done.
//!
//! The C library's `dlopen` and its own openings call `ld.so` through a word of `_rtld_global_ro`, with the caller as
//! an argument. That word is changed to [`open`], which passes the call on. The structure is private. It has the
//! same four functions in a row in all versions since 2.3: the second is `_dl_mcount`, which `ld.so` exports, the
//! fourth opens. Where they are not found so, and in versions that were not tried, nothing is changed, and openings
//! are not seen.
//!
//! Decides nothing: what is done then, the caller says.
//!
//! Sources: glibc `sysdeps/generic/ldsodefs.h` (`struct rtld_global_ro`), `dlfcn/dlopen.c`, `elf/dl-libc.c`.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::symbol::SymbolName;
use crate::host::library::{HostLibrary, Resolvers, SymbolValue};
use crate::host::process;
use crate::host::startup_set::startup_set;
use crate::memory::relro::write_relro;

/// `_dl_open`: file, mode, caller, namespace, and the arguments of the process.
type Open = unsafe extern "C" fn(
    *const c_char,
    c_int,
    *const c_void,
    c_long,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> *mut c_void;

/// `ld.so`'s function, and what is called after it.
static WATCH: OnceLock<(Open, fn())> = OnceLock::new();

/// Calls `then` after each `dlopen` that may have loaded something from now on, also after those of memdl: with
/// whatever locks the caller of `dlopen` holds. The first call counts.
pub(crate) fn watch(then: fn()) {
    if WATCH.get().is_some() {
        return;
    }
    let Some(loader) = startup_set().iter().find(|it| it.exported(b"_dl_mcount").is_some()) else {
        return;
    };
    process::alone(&mut || _ = install(loader, then));
}

/// Whether they are seen.
pub(crate) fn are_watched() -> bool {
    WATCH.get().is_some()
}

fn install(loader: &HostLibrary, then: fn()) -> Option<()> {
    if WATCH.get().is_some() {
        // Another thread's came first.
        return None;
    }
    let word = find(loader)?;
    // SAFETY: a word of a structure of `ld.so`'s that holds the address of a function of this type.
    let real = unsafe { (*(word as *const AtomicUsize)).load(Ordering::SeqCst) };
    // SAFETY: as above.
    let real = unsafe { std::mem::transmute::<usize, Open>(real) };
    WATCH.set((real, then)).ok()?;
    let to = (open as *const () as usize).to_ne_bytes();
    // SAFETY: data of `ld.so`, which stays loaded. Whoever reads the word reads all of it.
    unsafe { write_relro(word, &to, &loader.relro) }.ok()
}

/// The first minor version of glibc 2 that was not tried (seen with 2.31, 2.36, 2.41, 2.43).
const UNKNOWN_FROM: u32 = 44;

/// The address of the word that leads to `_dl_open`.
fn find(loader: &HostLibrary) -> Option<usize> {
    if process::is_glibc_since(UNKNOWN_FROM) {
        return None;
    }
    let mcount = loader.exported(b"_dl_mcount")?;
    let name = SymbolName::new(b"_rtld_global_ro");
    let found = loader.lookup(&name, VersionMatch::Any, TypeClass::Definition, Resolvers::Run)?;
    let SymbolValue::Address(start) = found.definition else { return None };
    if found.st_size == 0 || found.st_size > 64 << 10 || !start.is_multiple_of(8) {
        return None;
    }
    // SAFETY: a variable of `ld.so`'s of this size. It is not written any more, but by a copy of memdl: not now
    // (`process::alone`).
    let words =
        unsafe { std::slice::from_raw_parts(start as *const usize, (found.st_size / 8) as usize) };
    let mut places = (0..words.len()).filter(|&at| words.get(at) == Some(&mcount));
    let (second, None) = (places.next()?, places.next()) else { return None };
    // Another copy of memdl may have changed the fourth.
    let others = [second.checked_sub(1)?, second.checked_add(1)?, second.checked_add(3)?];
    let are_functions =
        others.iter().all(|&at| words.get(at).is_some_and(|&it| loader.has_code_at(it)));
    let at = second.checked_add(2)?;
    (are_functions && *words.get(at)? != 0).then_some(())?;
    start.checked_add(at.checked_mul(8)?)
}

/// What the word leads to. If `ld.so` fails, it does not return here.
unsafe extern "C" fn open(
    file: *const c_char,
    mode: c_int,
    caller: *const c_void,
    namespace: c_long,
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> *mut c_void {
    // It was set before the word was changed.
    let Some(&(real, then)) = WATCH.get() else { return std::ptr::null_mut() };
    // SAFETY: the call is passed on as it came. `ld.so` may leave by a jump over this frame, which owns nothing.
    let handle = unsafe { real(file, mode, caller, namespace, argc, argv, envp) };
    if mode & libc::RTLD_NOLOAD == 0 {
        then();
    }
    handle
}
