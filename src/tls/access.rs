//! Access to thread-local variables of images: the functions that compiled code calls, the first access of a
//! thread to a module, and the end of a thread.
//!
//! The assembly is in `arch/`. It is invoked here, as it calls the slow paths of this file.
//!
//! Sources: U. Drepper, "ELF Handling For Thread-Local Storage", 3.4; `pthread_key_create(3)`.

#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory};
use crate::base::tls_index::{DESCRIPTOR_OFFSET_BITS, OURS, TlsDescArgument, TlsIndex};
use crate::host::collectors;
use crate::tls::layout::{NO_BLOCK, POOL, POOL_ALIGN, SLOTS, THREAD_SLOT};
use crate::tls::registry::registry;
use crate::tls::thread::{Block, STARTS, STARTS_LEN, Thread};

arch::define_tls!(address_slow, descriptor_slow);

/// The slow path of a TLS descriptor: the variable's address.
pub(crate) extern "C" fn descriptor_slow(descriptor: u64) -> *mut c_void {
    // SAFETY: a pair as relocations store it, of a module that the descriptor's image is bound to and so
    // keeps.
    unsafe { tls_get_addr(&TlsDescArgument(descriptor).index()) }
}

/// The thread's first access to a module's variable. Called by [`tls_get_addr`] for memdl's ids.
pub(crate) extern "C" fn address_slow(index: &TlsIndex) -> *mut c_void {
    // An access to a variable cannot report an error.
    try_address(index).unwrap_or_else(|_| abort("memdl: no memory for thread-local variables\n"))
}

pub(super) fn try_address(index: &TlsIndex) -> Result<*mut c_void, Error> {
    let module = index.ti_module & !OURS;
    let thread = current_thread()?;
    // SAFETY: the calling thread's own record.
    let mut start = unsafe { Thread::start(thread, module) };
    if start.is_null() {
        start = first_access(thread, module)?;
    }
    Ok(start.wrapping_add(index.ti_offset).cast())
}

/// Makes the calling thread's block of a module, and returns its start.
fn first_access(thread: NonNull<Thread>, module: usize) -> Result<*mut u8, Error> {
    let initial = registry().modules.get(module).copied().flatten();
    let Some(initial) = initial else {
        abort("memdl: access to a thread-local variable of an unloaded image\n")
    };
    let (block, start) = match initial.static_offset {
        Some(offset) => (None, arch::thread_pointer().wrapping_add_signed(offset) as *mut u8),
        None => {
            let (block, start) = Block::new(&initial)?;
            (Some(block), start)
        }
    };
    register_pool(thread)?;
    let former;
    let mut registry = registry();
    if let Some(Some(initial)) = registry.modules.get_mut(module) {
        initial.is_used = true;
    }
    // SAFETY: the calling thread's own record, and the lock is held.
    unsafe {
        Thread::grow(thread, module)?;
        former = Thread::set(thread, module, start, block);
    }
    drop(registry);
    drop(former);
    Ok(start)
}

fn abort(text: &str) -> ! {
    // SAFETY: writes a string that is alive to standard error.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    std::process::abort()
}

/// The slot of the calling thread's record.
fn thread_slot<'a>(slots: *mut *mut u8) -> &'a AtomicPtr<Thread> {
    // SAFETY: slot 0 of the calling thread's own slots, which are there as long as the thread.
    unsafe { &*slots.add(THREAD_SLOT).cast::<AtomicPtr<Thread>>() }
}

/// The calling thread's record, if it has one.
fn known_thread(slots: *mut *mut u8) -> Option<NonNull<Thread>> {
    NonNull::new(thread_slot(slots).load(Ordering::Relaxed))
}

/// The calling thread's record, made at its first use.
pub(super) fn current_thread() -> Result<NonNull<Thread>, Error> {
    let slots = tls_slots();
    if let Some(thread) = known_thread(slots) {
        return Ok(thread);
    }
    require_memory()?;
    registry().threads.try_room(1)?;
    let thread = NonNull::from(Box::leak(Box::new(Thread::new(slots))));
    registry().threads.push(thread);
    thread_slot(slots).store(thread.as_ptr(), Ordering::Relaxed);
    set_thread_exit(thread.as_ptr());
    Ok(thread)
}

/// Keeps a value until the calling thread has ended, after the destructors of its keys (for the number of
/// rounds that POSIX guarantees). In the main thread: never dropped.
pub(crate) fn keep_until_thread_ends(what: Box<dyn Any>) -> Result<(), Error> {
    let thread = current_thread()?;
    // SAFETY: the calling thread's own record, and a field that no other thread reaches.
    let kept = unsafe { &mut (*thread.as_ptr()).kept };
    kept.try_room(1)?;
    kept.push(what);
    Ok(())
}

/// Frees the calling thread's block of a module, if it has one.
pub(super) fn free_own_block(index: usize) {
    if let Some(thread) = known_thread(tls_slots()) {
        let lock = registry();
        // SAFETY: the calling thread's own record, and the lock is held.
        let block = unsafe { Thread::set(thread, index, ptr::null_mut(), None) };
        drop(lock);
        drop(block);
    }
}

/// Registers the calling thread's static pool with the collectors that the process has, until the thread ends.
/// libgc scans no static thread-local storage.
fn register_pool(thread: NonNull<Thread>) -> Result<(), Error> {
    let collectors = collectors::known();
    if collectors.is_none() {
        return Ok(());
    }
    let start = arch::thread_pointer().wrapping_add_signed(static_pool_offset());
    // SAFETY: the calling thread's own record, and a field that no other thread reaches.
    let roots = unsafe { &(*thread.as_ptr()).pool_roots };
    roots.register_on_stack(collectors, start..start.wrapping_add(POOL))
}

/// As [`register_pool`], for a thread that may have no record, and in the first load.
pub(super) fn register_own_pool() -> Result<(), Error> {
    if collectors::present_now().is_none() { Ok(()) } else { register_pool(current_thread()?) }
}

/// In a child just after the fork: forgets the records of threads that do not exist here, since glibc uses the
/// memory of their slots for other threads. Their blocks are leaked.
pub(crate) fn after_fork_in_child() {
    let slots = tls_slots();
    // SAFETY: records in the registry are alive, and the lock is held.
    registry().threads.retain(|thread| unsafe {
        let exists = (*thread.as_ptr()).slots == slots;
        if !exists {
            (*thread.as_ptr()).pool_roots.forget_in_child();
        }
        exists
    });
}

/// The key whose destructor frees a thread's blocks when it ends.
pub(super) fn thread_exit_key() -> Result<libc::pthread_key_t, Error> {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: writes one key; the destructor has the required signature.
        (unsafe { libc::pthread_key_create(&mut key, Some(thread_exit)) } == 0).then_some(key)
    })
    .ok_or_else(|| {
        Error::system("pthread_key_create", std::io::Error::from_raw_os_error(libc::EAGAIN))
    })
}

fn set_thread_exit(thread: *mut Thread) {
    if let Ok(key) = thread_exit_key() {
        // SAFETY: the key exists. If the value cannot be stored, the blocks are leaked.
        unsafe { libc::pthread_setspecific(key, thread.cast()) };
    }
}

/// Frees the record of the thread that is ending.
unsafe extern "C" fn thread_exit(thread: *mut c_void) {
    let thread = thread.cast::<Thread>();
    // Other keys' destructors may still use thread-local variables. So this one asks to be called in the next
    // round, and frees in the last that POSIX guarantees (PTHREAD_DESTRUCTOR_ITERATIONS, 4).
    // SAFETY: the ending thread's own record, freed nowhere but below.
    let exit_rounds = unsafe {
        (*thread).exit_rounds = (*thread).exit_rounds.saturating_add(1);
        (*thread).exit_rounds
    };
    if exit_rounds < 4 {
        set_thread_exit(thread);
        return;
    }
    // A kept value may be an image, whose destructors access variables: they get a new record, which no key's
    // destructor will free.
    let slots = tls_slots();
    while let Some(thread) = known_thread(slots) {
        free_record(thread, slots);
    }
}

/// Frees the calling thread's record and its blocks.
fn free_record(thread: NonNull<Thread>, slots: *mut *mut u8) {
    registry().threads.retain(|&other| other != thread);
    // SAFETY: the record was leaked by `current_thread` in this thread. Once it has left the registry no other
    // thread can reach it, and with the slots cleared nor can this thread.
    unsafe {
        slots.add(THREAD_SLOT).write(ptr::null_mut());
        for index in THREAD_SLOT + 1..SLOTS {
            slots.add(index).write(ptr::without_provenance_mut(NO_BLOCK));
        }
        drop(Box::from_raw(thread.as_ptr()));
    }
}
