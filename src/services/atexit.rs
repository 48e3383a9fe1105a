//! Functions that images register for later: for the end of a thread, the exit, or forks.
//!
//! Of the last two memdl records only the handles. The C library holds the functions by a handle that every
//! library has, and a library's destructors call `__cxa_finalize` with it, which calls and removes them.
//!
//! The destructors of thread-local objects need more. glibc keeps a library loaded until those of all
//! threads have run; it does not know images, and would call unmapped code. So memdl has a stack of them
//! for each thread ([`thread_exit`]), and for each of them the C library calls a function that pops one.
//!
//! Source: Itanium C++ ABI, "DSO Object Destruction API", as glibc extends it to threads.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

use crate::base::fallible::has_spare_memory;
use crate::base::sync;
use crate::host::exit_handlers;
use crate::images::libc_registrations;
use crate::images::registry;
use crate::images::thread_exit::{self, Destructor};

type AtFork = unsafe extern "C" fn();

unsafe extern "C-unwind" {
    /// An address in the library, which identifies it; each library has its own.
    static __dso_handle: c_void;

    fn __cxa_thread_atexit_impl(
        destructor: Option<Destructor>,
        object: *mut c_void,
        dso_handle: *const c_void,
    ) -> c_int;

    fn __cxa_atexit(
        function: Option<Destructor>,
        argument: *mut c_void,
        dso_handle: *const c_void,
    ) -> c_int;

    fn __cxa_at_quick_exit(function: Option<Destructor>, dso_handle: *const c_void) -> c_int;

    fn __register_atfork(
        prepare: Option<AtFork>,
        parent: Option<AtFork>,
        child: Option<AtFork>,
        dso_handle: *const c_void,
    ) -> c_int;
}

/// A function that an image registered for its unload or the exit.
struct AtExit {
    function: Destructor,
    argument: *mut c_void,
}

/// The result for a null pointer as function. The C library would end the process, or call it in the end.
const REFUSED: c_int = -1;

/// `__cxa_atexit`, which C's `atexit` goes to as well.
///
/// The C library's lock of these functions stays locked in a forked child if another thread of the parent
/// held it. So forks wait.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn at_exit(
    function: Option<Destructor>,
    argument: *mut c_void,
    dso_handle: *const c_void,
) -> c_int {
    let Some(function) = function else { return REFUSED };
    libc_registrations::note_handler(dso_handle.addr());
    let noted = Box::into_raw(Box::new(AtExit { function, argument }));
    let _no_fork = sync::hold_off_fork();
    // SAFETY: the function takes the record as its argument, and is called once; the rest is the caller's
    // promise, passed on.
    let result = unsafe { __cxa_atexit(Some(run_at_exit), noted.cast(), dso_handle) };
    if result != 0 {
        // SAFETY: from `into_raw`, and the C library did not take it.
        drop(unsafe { Box::from_raw(noted) });
    }
    result
}

/// The function that the C library calls for each, with its lock free.
unsafe extern "C-unwind" fn run_at_exit(noted: *mut c_void) {
    // SAFETY: `at_exit` leaked it for this one call.
    let AtExit { function, argument } = *unsafe { Box::from_raw(noted.cast::<AtExit>()) };
    // SAFETY: the promise of the caller that registered it.
    sync::with_forks_possible(|| unsafe { function(argument) });
}

/// `__cxa_finalize`, which every image's destructors call. For an image that registered nothing the C library
/// is not called: it would search all functions of the process.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C-unwind" fn finalize(dso_handle: *const c_void) {
    // Nearly always no image has registered anything, and the caller is being unloaded by this thread. Then nothing is
    // looked up that other threads change.
    if !libc_registrations::has_any() && thread_exit::is_unloading(dso_handle.addr()) {
        return;
    }
    if libc_registrations::take_handle(dso_handle.addr()) {
        // SAFETY: the caller's promise, passed on.
        unsafe { exit_handlers::finalize(dso_handle.addr()) }
    }
}

/// `__cxa_at_quick_exit`, which `at_quick_exit` calls.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn at_quick_exit(
    function: Option<Destructor>,
    dso_handle: *const c_void,
) -> c_int {
    if function.is_none() {
        return REFUSED;
    }
    libc_registrations::note_handler(dso_handle.addr());
    let _no_fork = sync::hold_off_fork();
    // SAFETY: the caller's promise, passed on.
    unsafe { __cxa_at_quick_exit(function, dso_handle) }
}

/// `__register_atfork`, which `pthread_atfork` calls.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn at_fork(
    prepare: Option<AtFork>,
    parent: Option<AtFork>,
    child: Option<AtFork>,
    dso_handle: *const c_void,
) -> c_int {
    libc_registrations::note_handler(dso_handle.addr());
    // SAFETY: the caller's promise, passed on.
    unsafe { __register_atfork(prepare, parent, child, dso_handle) }
}

/// `__cxa_thread_atexit_impl` as images see it.
///
/// # Safety
/// As the C library's function: `destructor` may be called with `object` when the thread ends.
pub(super) unsafe extern "C" fn at_thread_exit(
    destructor: Option<Destructor>,
    object: *mut c_void,
    dso_handle: *const c_void,
) -> c_int {
    let Some(function) = destructor else { return REFUSED };
    let image = registry::image_at(dso_handle.addr());
    if image.is_none() && !registry::has_address(dso_handle.addr()) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { __cxa_thread_atexit_impl(destructor, object, dso_handle) };
    }
    if !has_spare_memory() {
        return REFUSED;
    }
    if !thread_exit::take_spare() {
        // SAFETY: the function is memdl's, so the handle is memdl's: its library must stay.
        let result = unsafe {
            __cxa_thread_atexit_impl(Some(run_top), ptr::null_mut(), &raw const __dso_handle)
        };
        if result != 0 {
            return result;
        }
    }
    let is_pushed = match image {
        Some(image) => thread_exit::push(image.into_group(), function, object).map(|()| true),
        // It is being unloaded. In any other thread than that which unloads it: its code would be gone.
        None => thread_exit::push_of_unloading(dso_handle.addr(), function, object),
    };
    if let Ok(true) = is_pushed {
        return 0;
    }
    thread_exit::add_spare();
    REFUSED
}

/// The function that the C library calls for each destructor when the thread ends.
unsafe extern "C-unwind" fn run_top(_: *mut c_void) {
    // SAFETY: the C library calls it once for each registration.
    unsafe { thread_exit::run_top() }
}
