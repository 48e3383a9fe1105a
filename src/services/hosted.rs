//! `dlopen` and its companions for libraries of the system that open plug-ins for images.
//!
//! libgmodule and libopen-pal call `dlopen` for whoever uses them. What they open may need the image that
//! called them, by a name that `ld.so` would search for on disk: it would load a second copy. So in the
//! libraries that images need, references to these functions lead here. A call that comes from an image, by
//! the stack, is answered as if the image had made it, where images are at stake. All other calls go on to
//! the C library, with the return address that they had.
//!
//! Source: `dlopen(3)`.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, has_spare_memory, require_memory};
use crate::base::promise::MayRun;
use crate::base::sync::{Lock, Rank};
use crate::host::got;
use crate::host::library::HostLibrary;
use crate::host::phdr;
use crate::host::search::{SearchPath, Searcher};
use crate::images::dl_handles;
use crate::images::group::Provider;
use crate::services::callers;
use crate::services::dlfcn;
use crate::services::dlinfo;
use crate::services::dlopen::{self, Call, Failure, Opened};

/// The answer to a call, in two registers.
#[repr(C)]
struct Answer {
    value: *mut c_void,
    /// 0: the C library answers.
    is_answered: usize,
}

impl Answer {
    const PASS_ON: Answer = Answer { value: std::ptr::null_mut(), is_answered: 0 };

    fn of(value: *mut c_void) -> Answer {
        Answer { value, is_answered: 1 }
    }
}

arch::unless_answered! {
    /// `dlopen`.
    fn dlopen_hosted => answer_dlopen, else dlopen;
}

arch::unless_answered! {
    /// `dlsym`.
    fn dlsym_hosted => answer_dlsym, else dlsym;
}

arch::unless_answered! {
    /// `dlvsym`.
    fn dlvsym_hosted => answer_dlvsym, else dlvsym;
}

/// The function that a reference to `name` leads to.
fn replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"dlopen" => Some(dlopen_hosted as *const () as usize),
        b"dlsym" => Some(dlsym_hosted as *const () as usize),
        b"dlvsym" => Some(dlvsym_hosted as *const () as usize),
        b"dlclose" => Some(dlopen::dlclose as *const () as usize),
        b"dlerror" => Some(dlfcn::dlerror as *const () as usize),
        b"dlinfo" => Some(dlinfo::dlinfo as *const () as usize),
        _ => None,
    }
}

/// # Safety
/// `path` is null or a C string.
unsafe extern "C-unwind" fn answer_dlopen(path: *const c_char, flags: c_int) -> Answer {
    if path.is_null() || !has_spare_memory() {
        return Answer::PASS_ON;
    }
    let Some(caller) = callers::on_stack() else { return Answer::PASS_ON };
    // SAFETY: the caller's promise: it asks for the library's constructors to run.
    let (name, may_run) = unsafe { (CStr::from_ptr(path), MayRun::promised()) };
    match for_image(&(Call { caller, flags, may_run }), name) {
        Ok(Some(handle)) => Answer::of(handle),
        Ok(None) => Answer::PASS_ON,
        Err(Failure::Text(text)) => Answer::of(dlfcn::fail(text)),
        Err(Failure::Memory) => Answer::of(dlfcn::no_memory()),
    }
}

/// The handle of an image, if the name means one or the file must become one.
fn for_image(call: &Call, name: &CStr) -> Result<Option<*mut c_void>, Failure> {
    if let Some(image) = call.image_of_name(name)? {
        return Ok(Some(call.handle_of(image)?));
    }
    if let Some(handle) = call.provided(name)? {
        return Ok(Some(handle));
    }
    // Where the library that calls searches, `ld.so` knows.
    let found = Searcher::new().find(name, &SearchPath::default())?;
    let Some(found) = found else { return Ok(None) };
    let alias = (!name.to_bytes().contains(&b'/')).then(|| name.to_bytes().into());
    match call.open_image(&found.path, alias)? {
        Opened::Image(image) => Ok(Some(call.handle_of(image)?)),
        Opened::Not | Opened::OfSystem(_) => Ok(None),
    }
}

/// # Safety
/// As the C library's `dlsym`.
unsafe extern "C-unwind" fn answer_dlsym(handle: *mut c_void, name: *const c_char) -> Answer {
    match dl_handles::image(handle) {
        // SAFETY: the caller's promise. No caller is needed for a handle.
        Some(_) => Answer::of(unsafe { dlfcn::dlsym_for(handle, name, 0) }),
        None => Answer::PASS_ON,
    }
}

/// # Safety
/// As the C library's `dlvsym`.
unsafe extern "C-unwind" fn answer_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> Answer {
    match dl_handles::image(handle) {
        // SAFETY: as above.
        Some(_) => Answer::of(unsafe { dlfcn::dlvsym_for(handle, name, version, 0) }),
        None => Answer::PASS_ON,
    }
}

/// The load biases of libraries that were looked at, and the number of unloads then.
struct Covered {
    unloads: u64,
    libraries: BTreeSet<usize>,
}

static COVERED: Lock<Covered> =
    Lock::new(Rank::Hosted, Covered { unloads: 0, libraries: BTreeSet::new() });

/// Leads the references of the libraries among `needed`, and of those that they need, here.
pub(crate) fn cover(needed: &[Provider]) -> Result<(), Error> {
    needed.iter().try_for_each(|provider| match provider {
        Provider::Host(library) => cover_library(library),
        Provider::Member(_) | Provider::Image(_) => Ok(()),
    })
}

fn cover_library(library: &Arc<HostLibrary>) -> Result<(), Error> {
    if library.is_covered() {
        return Ok(());
    }
    // What most images need, and no more: the loop would find that there is nothing to do.
    if library.is_of_the_c_library() {
        library.set_covered();
        return Ok(());
    }
    let unloads = phdr::unloads();
    let (mut left, mut seen) = (vec![library.clone()], BTreeSet::new());
    while let Some(needed) = left.pop() {
        require_memory()?;
        if is_known(&needed, unloads) || !seen.insert(needed.load_bias()) {
            continue;
        }
        // What memdl itself calls, and the executable, which is the host's, stay as they are.
        let is_own = needed.has_code_at(cover as *const () as usize);
        if !is_own && !needed.is_executable() && !needed.is_of_the_c_library() {
            got::redirect(&needed, &replacement);
            left.try_extend(needed.dependencies()?)?;
        }
    }
    // Only now: if memory runs out before, the next load looks at all of them again.
    COVERED.lock().libraries.append(&mut seen);
    library.set_covered();
    Ok(())
}

/// Whether a library was looked at. An unload frees load biases for others.
fn is_known(library: &HostLibrary, unloads: u64) -> bool {
    let mut covered = COVERED.lock();
    if covered.unloads != unloads {
        covered.libraries.clear();
        covered.unloads = unloads;
    }
    covered.libraries.contains(&library.load_bias())
}
