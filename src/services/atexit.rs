//! What images want called later: at the end of a thread, at the exit, on a fork.
//!
//! Of the last two memdl only notes that there are any. The C library has them by a handle that every
//! library brings along, and libraries' destructors have it call, and forget, those of theirs.
//!
//! The destructors of thread-local objects need more. glibc keeps a library until those of all threads
//! have run; of an image it would not know, and call into memory that is gone. And a [`Pool`] has those
//! of one image and thread called early. So each thread has a stack of them here, and for each of
//! them the C library calls a function that takes the uppermost.
//!
//! Source: Itanium C++ ABI, "DSO Object Destruction API", as glibc extends it to threads.
//!
//! [`Pool`]: crate::Pool

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use crate::base::fallible::has_spare_memory;
use crate::base::sync;
use crate::host::exit_handlers;
use crate::images::group::{self, LoadGroup};
use crate::tls;

type Destructor = unsafe extern "C-unwind" fn(*mut c_void);
type AtFork = unsafe extern "C" fn();

unsafe extern "C-unwind" {
    /// The address that tells libraries apart; each has its own.
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

/// A function that an image has had noted for its end, or the exit.
struct AtExit {
    function: Destructor,
    argument: *mut c_void,
}

/// What is said to an image that wants nothing called: a null pointer, which the C library ends the
/// process for, or calls in the end.
const REFUSED: c_int = -1;

/// `__cxa_atexit`, which C's `atexit` goes to as well.
///
/// The C library's lock of these functions stays locked in a forked child if another thread of its
/// parent held it. So forks wait.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn at_exit(
    function: Option<Destructor>,
    argument: *mut c_void,
    dso_handle: *const c_void,
) -> c_int {
    let Some(function) = function else { return REFUSED };
    group::note_handler(dso_handle.addr());
    let noted = Box::into_raw(Box::new(AtExit { function, argument }));
    let _no_fork = sync::hold_off_fork();
    // SAFETY: the function takes what is passed along, and is called once; the rest is the caller's
    // promise, passed on.
    let result = unsafe { __cxa_atexit(Some(run_at_exit), noted.cast(), dso_handle) };
    if result != 0 {
        // SAFETY: from `into_raw`, and nobody else has it.
        drop(unsafe { Box::from_raw(noted) });
    }
    result
}

/// What the C library calls for each, with its lock free.
unsafe extern "C-unwind" fn run_at_exit(noted: *mut c_void) {
    // SAFETY: `at_exit` has leaked it for this one call.
    let AtExit { function, argument } = *unsafe { Box::from_raw(noted.cast::<AtExit>()) };
    // SAFETY: the promise of who has had it noted.
    sync::with_forks_possible(|| unsafe { function(argument) });
}

/// `__cxa_finalize`, which every image's destructors call. For an image that has had nothing noted
/// the C library is not asked: it looks through all that the process has.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C-unwind" fn finalize(dso_handle: *const c_void) {
    if group::take_handle(dso_handle.addr()) {
        // SAFETY: the caller's promise, passed on.
        unsafe { exit_handlers::finalize(dso_handle.addr()) }
    }
}

/// What `at_quick_exit` goes to.
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
    group::note_handler(dso_handle.addr());
    let _no_fork = sync::hold_off_fork();
    // SAFETY: the caller's promise, passed on.
    unsafe { __cxa_at_quick_exit(function, dso_handle) }
}

/// What `pthread_atfork` goes to.
///
/// # Safety
/// As the C library's function.
pub(super) unsafe extern "C" fn at_fork(
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
    image: Arc<LoadGroup>,
    /// The one below it.
    next: *mut AtThreadExit,
}

thread_local! {
    /// The uppermost of the thread's destructors. Nothing that would have to be dropped itself: it is
    /// needed until the very end.
    static UPPERMOST: Cell<*mut AtThreadExit> = const { Cell::new(ptr::null_mut()) };
    /// For how many the C library will call though they have run.
    static SPARE: Cell<usize> = const { Cell::new(0) };
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
    let Some(image) = group::image_at(dso_handle.addr()) else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { __cxa_thread_atexit_impl(destructor, object, dso_handle) };
    };
    if !has_spare_memory() {
        return -1;
    }
    if let Some(less) = SPARE.get().checked_sub(1) {
        SPARE.set(less);
    } else {
        // SAFETY: code of ours, so ours is the library that must stay.
        let result = unsafe {
            __cxa_thread_atexit_impl(Some(run_uppermost), ptr::null_mut(), &raw const __dso_handle)
        };
        if result != 0 {
            return result;
        }
    }
    let next = UPPERMOST.get();
    UPPERMOST.set(Box::into_raw(Box::new(AtThreadExit {
        destructor: function,
        object,
        image: image.into_group(),
        next,
    })));
    0
}

/// What the C library calls for each destructor when the thread ends.
unsafe extern "C-unwind" fn run_uppermost(_: *mut c_void) {
    // SAFETY: the calling thread's stack, of which each element was leaked by `at_thread_exit` and is
    // taken once.
    unsafe {
        let uppermost = UPPERMOST.get();
        if uppermost.is_null() {
            SPARE.set(SPARE.get().saturating_sub(1));
            return;
        }
        let pending = Box::from_raw(uppermost);
        UPPERMOST.set(pending.next);
        // The image is held until the end of this function, which is not the image's code.
        (pending.destructor)(pending.object);
        // Destructors of the thread's keys come after this, and may be the image's.
        tls::keep_until_thread_ends(pending);
    }
}

/// How many destructors of the images of this group the calling thread has yet to run. Each holds the
/// group.
pub(crate) fn pending(group: &Arc<LoadGroup>) -> usize {
    let mut count: usize = 0;
    let mut at = UPPERMOST.get();
    // SAFETY: elements of the calling thread's stack, which nobody changes meanwhile.
    while let Some(pending) = unsafe { at.as_ref() } {
        count = count.saturating_add(Arc::ptr_eq(&pending.image, group).into());
        at = pending.next;
    }
    count
}

/// Runs the calling thread's destructors of the images of this group now, the last first.
///
/// # Safety
/// They may run now, and the objects are not used any more.
pub(crate) unsafe fn run_pending(group: &Arc<LoadGroup>) {
    while let Some(pending) = take_pending(group) {
        SPARE.set(SPARE.get().saturating_add(1));
        // SAFETY: the caller's promise.
        unsafe { (pending.destructor)(pending.object) };
    }
}

/// Takes the uppermost of the group's out of the calling thread's stack.
fn take_pending(group: &Arc<LoadGroup>) -> Option<Box<AtThreadExit>> {
    let mut above: *mut AtThreadExit = ptr::null_mut();
    let mut at = UPPERMOST.get();
    // SAFETY: elements of the calling thread's stack, which nobody changes meanwhile; each was leaked
    // by `at_thread_exit`, and whatever is taken is not in it any more.
    unsafe {
        while !at.is_null() && !Arc::ptr_eq(&(*at).image, group) {
            (above, at) = (at, (*at).next);
        }
        let next = at.as_ref()?.next;
        match above.as_mut() {
            Some(above) => above.next = next,
            None => UPPERMOST.set(next),
        }
        Some(Box::from_raw(at))
    }
}
