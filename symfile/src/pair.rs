//! A pair of symbols for programs that have no other, and its lock.
//!
//! Both symbols are weak and hidden. Weak, so that another runtime that is linked into the same object may define them,
//! too: then the list is that one's as well. Hidden, so that they are local in the symbol table of what is linked: gdb
//! takes the descriptor of every library for a copy of one that is global in the executable, and does not read the
//! library's. gold, lld and mold make each hidden symbol local. GNU ld does so in a position-independent executable only
//! if a relocation asks for a PLT entry for it, so behind the function is a word that asks for one, which no linker makes
//! for a hidden symbol.
//!
//! The lock is the one that memdl takes where it is in the same object. A fork waits for it.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::Once;

use crate::list::{self, Descriptor, Pair, StableBytes};
use crate::symfile::Symfile;

#[cfg(target_arch = "x86_64")]
macro_rules! plt_word {
    () => {
        ".4byte __jit_debug_descriptor@PLT - ."
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! plt_word {
    () => {
        "b __jit_debug_descriptor"
    };
}

std::arch::global_asm!(
    ".ifndef __jit_debug_descriptor",
    ".pushsection .text.__jit_debug_register_code,\"ax\",@progbits",
    ".weak __jit_debug_register_code",
    ".hidden __jit_debug_register_code",
    ".type __jit_debug_register_code,@function",
    "__jit_debug_register_code:",
    ".cfi_startproc",
    "ret",
    ".cfi_endproc",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    // For GNU ld: see above. Nobody reads it.
    plt_word!(),
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor,\"aw\",@progbits",
    ".balign 8",
    ".weak __jit_debug_descriptor",
    ".hidden __jit_debug_descriptor",
    ".type __jit_debug_descriptor,@object",
    "__jit_debug_descriptor:",
    // `version` is 1 in all that exist; the list is empty.
    ".4byte 1, 0",
    ".8byte 0, 0",
    ".size __jit_debug_descriptor, . - __jit_debug_descriptor",
    ".popsection",
    ".endif",
    // All zeros: a mutex of the C library that is not locked, and what memdl has besides. Its name and its layout never
    // change.
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
    /// Does nothing. A debugger stops here.
    safe fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
    #[link_name = "memdl_shared_v1"]
    safe static LOCK: Lock;
}

#[repr(transparent)]
struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex may be used by many threads at once.
unsafe impl Sync for Lock {}

impl Lock {
    fn take(&self) {
        // SAFETY: the mutex is in its initial state from the start, never moves and is never destroyed.
        let result = unsafe { libc::pthread_mutex_lock(self.0.get()) };
        debug_assert_eq!(result, 0);
    }

    fn leave(&self) {
        // SAFETY: this thread has taken it.
        let result = unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        debug_assert_eq!(result, 0);
    }
}

/// The lock, held by this thread.
pub(crate) struct Guard {
    /// It stays in its thread.
    _thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        LOCK.leave();
    }
}

/// The pair above.
pub(crate) struct Own;

// SAFETY: the symbols live as long as the object, and no code of an object runs after its end. `lock` is taken by all
// that change the list in this object; another runtime with the same pair has a lock of its own, which is a limit of the
// interface. The function is defined in assembly.
unsafe impl Pair for Own {
    type Guard = Guard;

    fn lock() -> Guard {
        prepare_forks();
        LOCK.take();
        Guard { _thread: PhantomData }
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
        LOCK.take();
    }
    extern "C" fn leave() {
        LOCK.leave();
    }
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        // SAFETY: they are functions of this object; glibc forgets them when it is unloaded. They run in the forking thread, in the parent and in the child, which
        // has taken the lock. Without memory for them, a child of a fork amid a change must not register.
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
