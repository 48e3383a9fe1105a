//! The lock of the list of symfiles, which all copies of this crate and of memdl that are linked into one object share.
//!
//! It is in a weak variable, whose **name and layout never change**. memdl keeps what else its copies share behind it.
//! Copies in different objects have lists, and locks, of their own.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;

// All zeros: an unlocked mutex, and nothing behind it. Link-time optimisation puts the assembly of all copies into
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
    safe static LOCK: ListLock;
}

/// The C library's mutex: the layout of `std`'s differs between versions of Rust.
#[repr(transparent)]
pub struct ListLock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex may be used by many threads at once.
unsafe impl Sync for ListLock {}

/// The lock, held.
///
/// Whoever takes it sees to it that no fork happens meanwhile.
pub struct ListGuard {
    /// A guard stays in its thread.
    _thread: PhantomData<*const ()>,
}

impl ListGuard {
    pub fn lock() -> ListGuard {
        // SAFETY: the mutex is in its initial state from the start, never moves and is never destroyed.
        let result = unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
        debug_assert_eq!(result, 0);
        ListGuard { _thread: PhantomData }
    }

    /// `None` if a thread holds it, perhaps the calling one.
    pub fn try_lock() -> Option<ListGuard> {
        // SAFETY: as above.
        let result = unsafe { libc::pthread_mutex_trylock(LOCK.0.get()) };
        (result == 0).then_some(ListGuard { _thread: PhantomData })
    }

    /// Unlocks what a guard has locked that was forgotten.
    ///
    /// # Safety
    /// This thread forgot such a guard, or is the copy of one that did, in a child of `fork`.
    pub unsafe fn unlock_forgotten() {
        drop(ListGuard { _thread: PhantomData });
    }
}

impl Drop for ListGuard {
    fn drop(&mut self) {
        // SAFETY: as above; this thread has locked it.
        let result = unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
        debug_assert_eq!(result, 0);
    }
}
