//! The state that several copies of memdl share when they are linked into one object.
//!
//! A program may contain several versions of memdl. Where they are linked into one object, they share
//! the list that debuggers read, which has a fixed name, and the functions for a debugger's prompt.
//! [`Shared`] is a weak variable, so all copies use the same one. **Its name and layout never change**:
//! state that a later version adds gets another name.
//!
//! Copies in different objects share nothing here. Each has its own list, and debuggers find them all.
//! The list itself is in `debug/gdb_jit.rs`.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The shared variable.
#[repr(C)]
struct Shared {
    /// Guards the list that debuggers read. It is the C library's mutex: the layout of `std`'s differs
    /// between versions of Rust.
    list_lock: UnsafeCell<libc::pthread_mutex_t>,
    /// The first of the registered copies.
    copies: AtomicPtr<Copy>,
}

// SAFETY: a pthread mutex may be used by many threads at once; `copies` is atomic.
unsafe impl Sync for Shared {}

const _: () = assert!(size_of::<Shared>() <= 64 && align_of::<Shared>() <= 8);

/// A copy of memdl, as an element of the list of copies.
#[repr(C)]
pub(crate) struct Copy {
    next: AtomicPtr<Copy>,
    /// Runs the debugger command of this number for the images of this copy.
    run: extern "C" fn(function: c_int, argument: *const c_void) -> c_int,
}

impl Copy {
    pub(crate) const fn new(run: extern "C" fn(c_int, *const c_void) -> c_int) -> Copy {
        Copy { next: AtomicPtr::new(ptr::null_mut()), run }
    }
}

// All zeros: an unlocked mutex, and no copies. Link-time optimisation puts the assembly of all copies into
// one file: hence `.ifndef`.
std::arch::global_asm!(
    ".ifndef memdl_shared_v1",
    ".pushsection .data.memdl_shared_v1,\"aw\",@progbits",
    ".balign 8",
    ".weak memdl_shared_v1",
    ".hidden memdl_shared_v1",
    ".type memdl_shared_v1,@object",
    ".size memdl_shared_v1, 64",
    "memdl_shared_v1:",
    ".zero 64",
    ".popsection",
    ".endif",
);

unsafe extern "C" {
    #[link_name = "memdl_shared_v1"]
    safe static SHARED: Shared;
}

/// The guard of the list that debuggers read.
///
/// No fork happens while it is held: each copy takes it under a lock of its own, for which a fork waits
/// ([`crate::base::sync`]).
pub(crate) struct ListGuard {
    /// A guard stays in its thread.
    _thread: PhantomData<*const ()>,
}

impl ListGuard {
    pub(crate) fn lock() -> ListGuard {
        // SAFETY: the mutex is in its initial state from the start, never moves and is never destroyed.
        let result = unsafe { libc::pthread_mutex_lock(SHARED.list_lock.get()) };
        debug_assert_eq!(result, 0);
        ListGuard { _thread: PhantomData }
    }

    /// `None` if a thread holds it, perhaps the calling one.
    pub(crate) fn try_lock() -> Option<ListGuard> {
        // SAFETY: as above.
        let result = unsafe { libc::pthread_mutex_trylock(SHARED.list_lock.get()) };
        (result == 0).then_some(ListGuard { _thread: PhantomData })
    }
}

impl Drop for ListGuard {
    fn drop(&mut self) {
        // SAFETY: as above; this thread has locked it.
        let result = unsafe { libc::pthread_mutex_unlock(SHARED.list_lock.get()) };
        debug_assert_eq!(result, 0);
    }
}

/// Registers a copy that is not registered yet. It stays registered.
pub(crate) fn register(copy: &'static Copy) {
    let mut first = SHARED.copies.load(Ordering::SeqCst);
    loop {
        copy.next.store(first, Ordering::SeqCst);
        let registered = ptr::from_ref(copy).cast_mut();
        match SHARED.copies.compare_exchange(first, registered, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

/// Runs the debugger command of this number in each registered copy. Gives the total number of images, or
/// the first negative result.
pub(crate) fn run_in_each(function: c_int, argument: *const c_void) -> c_int {
    let mut images: c_int = 0;
    let mut next = SHARED.copies.load(Ordering::SeqCst);
    // SAFETY: registered by a copy in this object, as a `'static` reference.
    while let Some(copy) = unsafe { next.as_ref() } {
        let result = (copy.run)(function, argument);
        if result < 0 {
            return result;
        }
        images = images.saturating_add(result);
        next = copy.next.load(Ordering::SeqCst);
    }
    images
}
