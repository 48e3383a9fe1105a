//! Forking: a child has one thread, and would find locks held that threads of its parent held.
//!
//! So a fork waits until nobody holds a lock of memdl's, and parent and child go on with all of
//! them free. Source: `pthread_atfork(3)`.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::sync::Once;

use crate::{group, tls, unique, unwind};

/// The locks, held from just before a fork until just after.
struct Held(UnsafeCell<Vec<Box<dyn Any>>>);

// SAFETY: filled and emptied only by the thread that forks, which holds all of the locks meanwhile.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(Vec::new()));

/// Sees to it that memdl works in children.
pub(crate) fn survive() {
    static ONCE: Once = Once::new();
    // SAFETY: three functions of the type that is asked for. Should there be no memory to note
    // them, forks are as dangerous as without.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child));
    });
}

unsafe extern "C" fn before() {
    // In the order in which they are taken together anywhere: none is, so any order will do.
    let held: Vec<Box<dyn Any>> = vec![
        Box::new(group::lock_for_fork()),
        Box::new(tls::lock_for_fork()),
        Box::new(unique::lock_for_fork()),
        Box::new(unwind::lock_for_fork()),
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
}
