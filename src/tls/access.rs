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

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory};
use crate::base::tls_index::{DESCRIPTOR_OFFSET_BITS, OURS, TlsDescArgument, TlsIndex};
use crate::host::collectors;
use crate::tls::layout::POOL;
use crate::tls::registry::registry;
use crate::tls::thread::{Block, STARTS, STARTS_LEN, Thread};
use crate::tls::words::{RECORD_AT, SLOT_COUNT, SLOTS_AT, Words, find_words, known_words};

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
        former = Thread::set(thread, &registry.words, module, start, block);
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

/// memdl's words in each thread, found at the first call.
pub(super) fn words() -> Result<&'static Words, Error> {
    find_words(thread_exit)
}

/// The calling thread's record, if it has one.
fn record(words: &Words) -> Option<NonNull<Thread>> {
    NonNull::new(words.record().cast())
}

/// The calling thread's record, made at its first use.
pub(super) fn current_thread() -> Result<NonNull<Thread>, Error> {
    let words = words()?;
    if let Some(thread) = record(words) {
        return Ok(thread);
    }
    require_memory()?;
    registry().threads.try_room(1)?;
    let mut thread = Box::new(Thread::new(arch::thread_pointer()));
    // First, since a thread that has other words must have this one.
    words.set_record((&raw mut *thread).cast())?;
    let thread = NonNull::from(Box::leak(thread));
    registry().threads.push(thread);
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
    if let Some(thread) = known_words().and_then(record) {
        let registry = registry();
        // SAFETY: the calling thread's own record, and the lock is held.
        let block = unsafe { Thread::set(thread, &registry.words, index, ptr::null_mut(), None) };
        drop(registry);
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
    // The other parts of the pool are left out: they come when threads have registered already.
    let Some(distance) = words()?.pool() else { return Ok(()) };
    let start = arch::thread_pointer().wrapping_add_signed(distance);
    // SAFETY: the calling thread's own record, and a field that no other thread reaches.
    let roots = unsafe { &(*thread.as_ptr()).pool_roots };
    roots.register_on_stack(collectors, start..start.wrapping_add(POOL))
}

/// As [`register_pool`], for a thread that may have no record, and in the first load.
pub(super) fn register_own_pool() -> Result<(), Error> {
    if collectors::present_now().is_none() { Ok(()) } else { register_pool(current_thread()?) }
}

/// In a child just after the fork: forgets the records of threads that do not exist here, since glibc uses the
/// memory of their words for other threads. Their blocks are leaked.
pub(crate) fn after_fork_in_child() {
    let own = arch::thread_pointer();
    // SAFETY: records in the registry are alive, and the lock is held.
    registry().threads.retain(|thread| unsafe {
        let exists = (*thread.as_ptr()).thread_pointer == own;
        if !exists {
            (*thread.as_ptr()).pool_roots.forget_in_child();
        }
        exists
    });
}

/// How often a key's destructor is called, that POSIX guarantees (`PTHREAD_DESTRUCTOR_ITERATIONS`).
/// ThreadSanitizer has a key, too. In the last round it frees what each function that is built with it needs:
/// memdl's functions, if it is built so, have to end before.
const EXIT_ROUNDS: u32 = if cfg!(thread_sanitizer) { 3 } else { 4 };

/// Frees the record of the thread that is ending.
unsafe extern "C" fn thread_exit(thread: *mut c_void) {
    let (Some(thread), Some(words)) = (NonNull::new(thread.cast::<Thread>()), known_words()) else {
        return;
    };
    // Other keys' destructors may still use thread-local variables. So this one asks to be called in the next
    // round, and frees in the last.
    // SAFETY: the ending thread's own record, freed nowhere but below.
    let exit_rounds = unsafe {
        let thread = thread.as_ptr();
        (*thread).exit_rounds = (*thread).exit_rounds.saturating_add(1);
        (*thread).exit_rounds
    };
    if exit_rounds < EXIT_ROUNDS && words.set_record(thread.as_ptr().cast()).is_ok() {
        return;
    }
    free_record(thread, words);
    // A kept value may be an image, whose destructors access variables: they get a new record, which no key's
    // destructor will free.
    while let Some(thread) = record(words) {
        free_record(thread, words);
    }
}

/// Frees the calling thread's record and its blocks.
fn free_record(thread: NonNull<Thread>, words: &Words) {
    let mut registry = registry();
    registry.threads.retain(|&other| other != thread);
    registry.words.clear(arch::thread_pointer());
    drop(registry);
    // A null value needs no memory.
    let _ = words.set_record(ptr::null_mut());
    // SAFETY: the record was leaked by `current_thread` in this thread. Now that it has left the registry no other
    // thread can reach it, and with the words cleared nor can this thread.
    drop(unsafe { Box::from_raw(thread.as_ptr()) });
}
