//! The state that several copies of memdl share when they are linked into one object.
//!
//! A program may contain several versions of memdl. Where they are linked into one object, they share
//! the list that debuggers read, which has a fixed name, and the functions for a debugger's prompt.
//! [`Shared`] is a weak variable, so all copies use the same one. **Its name and layout never change**:
//! state that a later version adds gets another name.
//!
//! Copies in different objects share nothing here. Each has its own list, and debuggers find them all.
//! The list itself is in `debug/gdb_jit.rs`. Its lock, with which the variable begins, and the variable's definition are
//! in `symfile/src/list_lock.rs`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use memdl_symfile::list_lock::ListLock;

/// The shared variable.
#[repr(C)]
struct Shared {
    /// Guards the list that debuggers read.
    _list_lock: ListLock,
    /// The first of the registered copies.
    copies: AtomicPtr<Copy>,
}

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

unsafe extern "C" {
    #[link_name = "memdl_shared_v1"]
    safe static SHARED: Shared;
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
