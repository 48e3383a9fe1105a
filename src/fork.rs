//! Forking: a child has one thread, and would find locks held that threads of its parent held.
//!
//! So a fork waits until nobody holds a lock of memdl's, and parent and child go on with all of
//! them free. Source: `pthread_atfork(3)`.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    debug, group, handles, host, pool, process, profile, reserve, symbolize, tls, unique, unwind,
};

/// The locks, held from just before a fork until just after.
struct Held(UnsafeCell<Vec<Box<dyn Any>>>);

// SAFETY: filled and emptied only by the thread that forks, which holds all of the locks meanwhile.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(Vec::new()));

/// Registered when the program starts, so that not even the first load is interrupted by a fork.
unsafe extern "C" fn survive() {
    // SAFETY: three functions of the type that is asked for. Should there be no memory to note
    // them, forks are as dangerous as without.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static SURVIVE: unsafe extern "C" fn() = survive;

/// What is found out or made once, here, since a thread that is forked away in the middle of it
/// would leave the child waiting.
static SET_UP: Mutex<bool> = Mutex::new(false);

fn lock_set_up() -> MutexGuard<'static, bool> {
    SET_UP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets up all that memdl needs once in a process. The first thing that a load does.
pub(crate) fn set_up() {
    let mut done = lock_set_up();
    if !*done {
        // The static is reached by the linker only through this object file; a look at it makes
        // sure that it is part of the link.
        std::hint::black_box(&SURVIVE);
        process::stay_loaded();
        tls::set_up();
        host::set_up();
        *done = true;
    }
}

unsafe extern "C" fn before() {
    // In the order in which they are taken together: the list of libraries is walked while the names
    // that they define are noted. All others are taken alone.
    let held: Vec<Box<dyn Any>> = vec![
        Box::new(lock_set_up()),
        Box::new(pool::lock_for_fork()),
        Box::new(host::lock_for_fork()),
        Box::new(process::lock_for_fork()),
        Box::new(handles::lock_for_fork()),
        Box::new(group::lock_for_fork()),
        Box::new(tls::lock_for_fork()),
        Box::new(unique::lock_for_fork()),
        Box::new(unwind::lock_for_fork()),
        Box::new(debug::lock_for_fork()),
        Box::new(profile::lock_for_fork()),
        Box::new(reserve::lock_for_fork()),
        Box::new(symbolize::lock_for_fork()),
    ];
    // SAFETY: this thread holds all of the locks, so no other is between here and the end.
    unsafe { *HELD.0.get() = held };
}

unsafe extern "C" fn after_in_parent() {
    // SAFETY: this thread has put them there, and gives them back.
    drop(unsafe { std::mem::take(&mut *HELD.0.get()) });
}

unsafe extern "C" fn after_in_child() {
    unwind::after_fork_in_child();
    // SAFETY: the child's only thread is the one that forked: as above.
    drop(unsafe { std::mem::take(&mut *HELD.0.get()) });
    tls::after_fork_in_child();
}
