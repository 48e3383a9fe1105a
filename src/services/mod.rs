//! What `ld.so` does for its own libraries and memdl for its images.
//!
//! Some functions of the C library know about loaded libraries and so are wrong for images that
//! `ld.so` has never heard of. Imports of these are bound to memdl's versions, which know memdl's
//! images and pass everything else on. Only images see them: nothing is interposed in the host,
//! and an image or a caller that defines such a name itself keeps its own.

#![allow(unsafe_code)]

pub(crate) mod atexit;
mod dladdr;
mod dlfcn;

use std::ffi::{c_int, c_void};

use crate::images::group;
use crate::images::policy::Policy;
use crate::tls;
use crate::unwind;

/// The address that an image's import of `name` is bound to instead of the host's.
pub(crate) fn replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"__tls_get_addr" => Some(tls::tls_get_addr as *const () as usize),
        // What C's runtime offers, and the C++ runtime's cover of it.
        b"__cxa_thread_atexit_impl" | b"__cxa_thread_atexit" => {
            Some(atexit::at_thread_exit as *const () as usize)
        }
        b"__cxa_atexit" => Some(atexit::at_exit as *const () as usize),
        b"__cxa_finalize" => Some(atexit::finalize as *const () as usize),
        b"__cxa_at_quick_exit" => Some(atexit::at_quick_exit as *const () as usize),
        b"__register_atfork" => Some(atexit::at_fork as *const () as usize),
        b"pthread_key_create" | b"tss_create" => Some(key_create as *const () as usize),
        b"pthread_key_delete" | b"tss_delete" => Some(key_delete as *const () as usize),
        b"dladdr" => Some(dladdr::dladdr as *const () as usize),
        b"dladdr1" => Some(dladdr::dladdr1_of_images as *const () as usize),
        b"dl_iterate_phdr" => Some(dladdr::dl_iterate_phdr as *const () as usize),
        b"_dl_find_object" => Some(unwind::find_object as *const () as usize),
        b"dlopen" => Some(dlfcn::dlopen as *const () as usize),
        b"dlclose" => Some(dlfcn::dlclose as *const () as usize),
        b"dlsym" => Some(dlfcn::dlsym as *const () as usize),
        b"dlvsym" => Some(dlfcn::dlvsym as *const () as usize),
        b"dlinfo" => Some(dlfcn::dlinfo as *const () as usize),
        b"dlerror" => Some(dlfcn::dlerror as *const () as usize),
        _ => None,
    }
}

/// As [`replacement`], for images that may be refused what they ask for.
pub(crate) fn restricted_replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"dlopen" => Some(dlfcn::dlopen_restricted as *const () as usize),
        b"dlsym" => Some(dlfcn::dlsym_restricted as *const () as usize),
        b"dlvsym" => Some(dlfcn::dlvsym_restricted as *const () as usize),
        _ => replacement(name),
    }
}

/// The one or the other.
pub(crate) fn replacements_for(policy: &Policy) -> fn(&[u8]) -> Option<usize> {
    if policy.is_restricted() { restricted_replacement } else { replacement }
}

/// `pthread_key_create`, and `tss_create`, which differ by the names of their types: notes whose
/// destructor it is, so that no thread calls it once the image is gone.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn key_create(
    key: *mut libc::pthread_key_t,
    destructor: Option<unsafe extern "C" fn(*mut c_void)>,
) -> c_int {
    // SAFETY: the caller's promise, passed on.
    let result = unsafe { libc::pthread_key_create(key, destructor) };
    if let (0, Some(destructor)) = (result, destructor) {
        // SAFETY: it was just written.
        let noted = group::note_key(destructor as *const () as usize, unsafe { *key });
        if noted.is_err() {
            // SAFETY: created just now, and nobody's yet.
            unsafe { libc::pthread_key_delete(*key) };
            return libc::ENOMEM;
        }
    }
    result
}

/// `pthread_key_delete`, and `tss_delete`.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn key_delete(key: libc::pthread_key_t) -> c_int {
    group::forget_key(key);
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::pthread_key_delete(key) }
}
