//! What `ld.so` does for its own libraries and memdl for its images.
//!
//! Some functions of the C library know about loaded libraries and so are wrong for images that
//! `ld.so` has never heard of. Imports of these are bound to memdl's versions, which know memdl's
//! images and pass everything else on. Only images see them: nothing is interposed in the host,
//! and an image or a caller that defines such a name itself keeps its own.

#![allow(unsafe_code)]

mod find;
mod open;

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use crate::arch;
use crate::group::{self, Group};
use crate::tls;
use crate::unwind;

/// The address that an image's import of `name` is bound to instead of the host's.
pub(crate) fn replacement(name: &[u8]) -> Option<usize> {
    match name {
        b"__tls_get_addr" => Some(arch::tls_get_addr as *const () as usize),
        // What C's runtime offers, and the C++ runtime's cover of it.
        b"__cxa_thread_atexit_impl" | b"__cxa_thread_atexit" => {
            Some(thread_atexit as *const () as usize)
        }
        b"__cxa_atexit" => Some(at_exit as *const () as usize),
        b"__cxa_at_quick_exit" => Some(at_quick_exit as *const () as usize),
        b"__register_atfork" => Some(at_fork as *const () as usize),
        b"pthread_key_create" | b"tss_create" => Some(key_create as *const () as usize),
        b"pthread_key_delete" | b"tss_delete" => Some(key_delete as *const () as usize),
        b"dladdr" => Some(find::dladdr as *const () as usize),
        b"dladdr1" => Some(find::dladdr1_of_images as *const () as usize),
        b"dl_iterate_phdr" => Some(find::dl_iterate_phdr as *const () as usize),
        b"_dl_find_object" => Some(unwind::find_object as *const () as usize),
        b"dlopen" => Some(open::dlopen as *const () as usize),
        b"dlclose" => Some(open::dlclose as *const () as usize),
        b"dlsym" => Some(open::dlsym as *const () as usize),
        b"dlvsym" => Some(open::dlvsym as *const () as usize),
        b"dlinfo" => Some(open::dlinfo as *const () as usize),
        b"dlerror" => Some(open::dlerror as *const () as usize),
        _ => None,
    }
}

type Destructor = unsafe extern "C-unwind" fn(*mut c_void);

unsafe extern "C" {
    /// The address that tells libraries apart; each has its own.
    static __dso_handle: c_void;

    fn __cxa_thread_atexit_impl(
        destructor: Destructor,
        object: *mut c_void,
        dso_handle: *const c_void,
    ) -> c_int;

    fn __cxa_atexit(
        function: Destructor,
        argument: *mut c_void,
        dso_handle: *const c_void,
    ) -> c_int;

    fn __cxa_at_quick_exit(function: Destructor, dso_handle: *const c_void) -> c_int;

    fn __register_atfork(
        prepare: Option<AtFork>,
        parent: Option<AtFork>,
        child: Option<AtFork>,
        dso_handle: *const c_void,
    ) -> c_int;
}

type AtFork = unsafe extern "C" fn();

/// `__cxa_atexit` (Itanium C++ ABI, "DSO object destruction"), which C's `atexit` goes to as well:
/// notes that there is something to be called. The C library does not need memdl for it: images'
/// destructors have it call what is registered under their handle.
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn at_exit(
    function: Destructor,
    argument: *mut c_void,
    dso_handle: *const c_void,
) -> c_int {
    group::note_handler(dso_handle.addr());
    // SAFETY: the caller's promise, passed on.
    unsafe { __cxa_atexit(function, argument, dso_handle) }
}

/// What `at_quick_exit` goes to; as [`at_exit`].
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn at_quick_exit(function: Destructor, dso_handle: *const c_void) -> c_int {
    group::note_handler(dso_handle.addr());
    // SAFETY: the caller's promise, passed on.
    unsafe { __cxa_at_quick_exit(function, dso_handle) }
}

/// What `pthread_atfork` goes to; as [`at_exit`].
///
/// # Safety
/// As the C library's function.
unsafe extern "C" fn at_fork(
    prepare: Option<AtFork>,
    parent: Option<AtFork>,
    child: Option<AtFork>,
    dso_handle: *const c_void,
) -> c_int {
    group::note_handler(dso_handle.addr());
    // SAFETY: the caller's promise, passed on.
    unsafe { __register_atfork(prepare, parent, child, dso_handle) }
}

/// A thread-local object's destructor that is to run when the thread ends.
struct AtThreadExit {
    destructor: Destructor,
    object: *mut c_void,
    /// Its code, and what the object consists of, must be there until then.
    _image: Arc<Group>,
}

/// `__cxa_thread_atexit_impl` (Itanium C++ ABI, "DSO object destruction", as glibc extends it to
/// threads) as images see it. glibc keeps a library until its threads' destructors have run; of an
/// image it would not know, and call into memory that is gone.
///
/// # Safety
/// As the C library's function: `destructor` may be called with `object` when the thread ends.
unsafe extern "C" fn thread_atexit(
    destructor: Destructor,
    object: *mut c_void,
    dso_handle: *const c_void,
) -> c_int {
    let Some((image, _)) = group::image_at(dso_handle.addr()) else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { __cxa_thread_atexit_impl(destructor, object, dso_handle) };
    };
    let pending = Box::into_raw(Box::new(AtThreadExit { destructor, object, _image: image }));
    // SAFETY: `run_at_thread_exit` takes what is in `pending`, once, on this thread. It is code of
    // ours, so ours is the library that must stay.
    unsafe {
        let result =
            __cxa_thread_atexit_impl(run_at_thread_exit, pending.cast(), &raw const __dso_handle);
        if result != 0 {
            drop(Box::from_raw(pending));
        }
        result
    }
}

/// # Safety
/// `pending` is an [`AtThreadExit`] that [`thread_atexit`] gave away.
unsafe extern "C-unwind" fn run_at_thread_exit(pending: *mut c_void) {
    // SAFETY: the caller's promise; the image is held until the end of this function, which is
    // not the image's code.
    unsafe {
        let pending = Box::from_raw(pending.cast::<AtThreadExit>());
        (pending.destructor)(pending.object);
        // Destructors of the thread's keys come after this, and may be the image's.
        tls::keep_until_thread_ends(pending);
    }
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
        group::note_key(destructor as *const () as usize, unsafe { *key });
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
