//! What several copies of memdl, of whatever versions, have in common where they are linked into one
//! object: the list that debuggers read, which has one name, and the functions for their prompts.
//!
//! [`Shared`] is a weak variable, so that all copies use the same one. **Its name and layout never
//! change**: what a later version needs beside it gets another name.
//!
//! Copies in different objects share nothing here; each has a list of its own, which debuggers find.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What is shared.
#[repr(C)]
struct Shared {
    /// Guards the list that debuggers read. A mutex of the C library, since those of `std` have no layout
    /// that all versions of Rust agree on.
    list_lock: UnsafeCell<libc::pthread_mutex_t>,
    /// The copies.
    copies: AtomicPtr<Copy>,
}

// SAFETY: a pthread mutex is there to be used by many threads at once.
unsafe impl Sync for Shared {}

const _: () = assert!(size_of::<Shared>() <= 64 && align_of::<Shared>() <= 8);

/// A copy of memdl, in the list of them.
#[repr(C)]
pub(crate) struct Copy {
    next: AtomicPtr<Copy>,
    /// Has the copy do for its images what the function with this number at a debugger's prompt is for.
    tell: extern "C" fn(function: c_int, argument: *const c_void) -> c_int,
}

impl Copy {
    pub(crate) const fn new(tell: extern "C" fn(c_int, *const c_void) -> c_int) -> Copy {
        Copy { next: AtomicPtr::new(ptr::null_mut()), tell }
    }
}

// All zeros is a mutex that nobody holds, no copies. Link-time optimisation puts the assembly of all
// copies one behind the other: hence `.ifndef`.
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

/// The lock of the list that debuggers read, held.
///
/// Nobody forks meanwhile: each copy takes it under a lock of its own that a fork waits for
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

    /// `None` if some thread holds it, perhaps the one that asks.
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

/// Enters a copy that is in no list, for good.
pub(crate) fn enter(copy: &'static Copy) {
    let mut first = SHARED.copies.load(Ordering::SeqCst);
    loop {
        copy.next.store(first, Ordering::SeqCst);
        let entered = ptr::from_ref(copy).cast_mut();
        match SHARED.copies.compare_exchange(first, entered, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

/// Has each copy that has loaded anything do what the function with this number is for: of how many
/// images together; or the first negative answer.
pub(crate) fn tell(function: c_int, argument: *const c_void) -> c_int {
    let mut told: c_int = 0;
    let mut next = SHARED.copies.load(Ordering::SeqCst);
    // SAFETY: entered by `enter` of some copy, as a static of its; all are in this object.
    while let Some(copy) = unsafe { next.as_ref() } {
        let answer = (copy.tell)(function, argument);
        if answer < 0 {
            return answer;
        }
        told = told.saturating_add(answer);
        next = copy.next.load(Ordering::SeqCst);
    }
    told
}
