//! A pair of symbols for programs that have no other, and its lock.
//!
//! The lock is the one that memdl takes where it is in the same object. A fork waits for it.

#![allow(unsafe_code)]

use std::sync::Once;

use crate::list::{self, Descriptor, Pair, StableBytes};
use crate::list_lock::ListGuard;
use crate::symfile::Symfile;

crate::define_pair!();

unsafe extern "C" {
    /// Does nothing. A debugger stops here.
    safe fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
}

/// The pair above.
pub(crate) struct Own;

// SAFETY: the symbols live as long as the object, and no code of an object runs after its end. `lock` is taken by all
// that change the list in this object; another runtime with the same pair has a lock of its own, which is a limit of the
// interface. The function is defined in assembly.
unsafe impl Pair for Own {
    type Guard = ListGuard;

    fn lock() -> ListGuard {
        prepare_forks();
        ListGuard::lock()
    }

    fn descriptor() -> *mut Descriptor {
        &raw mut __jit_debug_descriptor
    }

    fn register_code() -> extern "C" fn() {
        __jit_debug_register_code
    }
}

/// Makes forks wait for the lock, so that a child finds the list whole and the lock free.
pub(crate) fn prepare_forks() {
    extern "C" fn take() {
        std::mem::forget(ListGuard::lock());
    }
    extern "C" fn leave() {
        // SAFETY: `take` of this thread, or of the one that it is the copy of, has locked it.
        unsafe { ListGuard::unlock_forgotten() };
    }
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        // SAFETY: functions of this object, which glibc forgets when it is unloaded. They run in the thread that forks, in
        // the parent and in the child. Without memory for them, a child of a fork amid a change must not register.
        unsafe { libc::pthread_atfork(Some(take), Some(leave), Some(leave)) };
    });
}

impl StableBytes for Symfile {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

/// A symfile that debuggers see, until this is dropped.
///
/// The entry is in the process's list from [`Registration::new`] on. Without a debugger that costs a function call; with
/// one it takes as long as the debugger takes to read the file. A debugger that comes later, and one that reads a core
/// file, find the list.
///
/// gdb keeps breakpoints in code whose entry is gone, and would later write an old byte into what is there then. So
/// the drop makes it look for their places once more.
///
/// Any thread may make and drop one. A child of `fork` may, too.
pub struct Registration(list::Registration<Own, Symfile>);

impl Registration {
    /// Puts a symfile into the list that debuggers read.
    ///
    /// # Safety
    /// The code that the symfile describes is in memory at the addresses that it states, and stays there, unchanged,
    /// until this is dropped: a debugger writes breakpoints there.
    pub unsafe fn new(symfile: Symfile) -> Registration {
        Registration(list::Registration::new(symfile))
    }

    /// The symfile.
    pub fn symfile(&self) -> &Symfile {
        self.0.symfile()
    }

    /// Takes the symfile out of the list and returns it.
    pub fn withdraw(self) -> Symfile {
        self.0.withdraw()
    }
}

/// Whether a debugger watches the list now. It costs a read of memory, so it can decide what is worth making.
pub fn debugger_listens() -> bool {
    list::debugger_listens::<Own>()
}
