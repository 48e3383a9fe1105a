//! Replacements for functions of the C library that depend on the list of loaded libraries, or on whose pages
//! they change.
//!
//! Such functions are wrong for images, which `ld.so` does not know. Images' imports of them are bound to
//! memdl's versions, which handle images and pass all other calls on. Only images see them: nothing is
//! interposed in the host, and an image or a caller that defines such a name keeps its own.

#![allow(unsafe_code)]

mod atexit;
mod callers;
mod dladdr;
mod dlfcn;
mod dlinfo;
mod dlopen;
pub(crate) mod hosted;
#[cfg(feature = "internals")]
pub(crate) mod interposed;
mod protection;

use std::ffi::{c_int, c_void};

use crate::images::libc_registrations;
use crate::images::policy::Policy;
use crate::tls;
use crate::unwind;

/// The address that an image's import of `name` is bound to instead of the host's.
pub(crate) fn replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"__tls_get_addr" => Some(tls::tls_get_addr as *const () as usize),
        // The C library's function, and the C++ runtime's wrapper.
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
        b"dlopen" => Some(dlopen::dlopen as *const () as usize),
        b"dlclose" => Some(dlopen::dlclose as *const () as usize),
        b"dlsym" => Some(dlfcn::dlsym as *const () as usize),
        b"dlvsym" => Some(dlfcn::dlvsym as *const () as usize),
        b"dlinfo" => Some(dlinfo::dlinfo as *const () as usize),
        b"dlerror" => Some(dlfcn::dlerror as *const () as usize),
        _ => protection::replacement(name),
    }
}

/// As [`replacement`], for images whose policy restricts them.
pub(crate) fn restricted_replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"dlopen" => Some(dlopen::dlopen_restricted as *const () as usize),
        b"dlsym" => Some(dlfcn::dlsym_restricted as *const () as usize),
        b"dlvsym" => Some(dlfcn::dlvsym_restricted as *const () as usize),
        _ => replacement(name),
    }
}

/// The replacements for images with this policy.
pub(crate) fn replacements_for(policy: &Policy) -> fn(&[u8]) -> Option<usize> {
    if policy.is_restricted() { restricted_replacement } else { replacement }
}

/// `pthread_key_create` and `tss_create`, which differ only in the names of types. Records keys whose
/// destructors are code of images, so that no thread calls one after the unload.
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
        let recorded =
            libc_registrations::note_key(destructor as *const () as usize, unsafe { *key });
        if recorded.is_err() {
            // SAFETY: created just now, and not handed out yet.
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
    libc_registrations::forget_key(key);
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::pthread_key_delete(key) }
}
