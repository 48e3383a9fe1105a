//! Destructors of thread-local objects of images: which of them each thread still has to run, and what
//! keeps the images until then.
//!
//! Each thread has a stack of destructors of all images, in the order in which they were registered. For each
//! element the C library has one registration of memdl's, which pops the top when the thread ends
//! (`services/atexit.rs`). So destructors can also run early, for one image: when a thread leaves it
//! ([`leave`]), or when a pool resets it ([`destroy`]).
//!
//! A thread that has, or had, destructors of a group to run *stays* in it: it holds the group until its
//! `pthread` keys' destructors have run as well, since these may be code of the image. Then the group is
//! unloaded, in that thread, if nothing else holds it. (glibc waits for the next `dlclose`.)
//!
//! No lock is held, and nothing of a list is borrowed, while code of images runs: it may register more.
//!
//! Sources: Itanium C++ ABI, "DSO Object Destruction API"; glibc `stdlib/cxa_thread_atexit_impl.c`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory};
use crate::images::group::LoadGroup;
use crate::images::libc_registrations;
use crate::tls::{self, TlsModule};

pub(crate) type Destructor = unsafe extern "C-unwind" fn(*mut c_void);

/// A thread-local object's destructor that runs when the thread ends.
struct AtThreadExit {
    destructor: Destructor,
    object: *mut c_void,
    /// The group of the image that registered it.
    stay: *mut Stay,
    /// The one below it.
    next: *mut AtThreadExit,
}

/// A thread's stay in a group.
struct Stay {
    /// Identifies the group.
    group: *const LoadGroup,
    /// The destructors' code, and the objects' memory. None for a group that the thread is unloading.
    keeps: Option<Arc<LoadGroup>>,
    /// The one before it.
    next: *mut Stay,
}

/// A group whose destructors the thread runs for its unload, on the stack of that call.
struct Unloading {
    group: *const LoadGroup,
    /// Whether a destructor was registered meanwhile.
    has_pushed: Cell<bool>,
    /// The unload that this one interrupts.
    outer: *const Unloading,
}

thread_local! {
    // Types without destructors of their own: they are used until the very end of the thread.

    /// The top of the thread's stack of destructors.
    static TOP: Cell<*mut AtThreadExit> = const { Cell::new(ptr::null_mut()) };
    /// The number of destructors that have run, and that the C library will still call for.
    static SPARE: Cell<usize> = const { Cell::new(0) };
    /// The thread's stays, the last first. Each was leaked by `stay`.
    static STAYS: Cell<*mut Stay> = const { Cell::new(ptr::null_mut()) };
    /// [`EndOfThread`] waits for the thread's end.
    static END_IS_KNOWN: Cell<bool> = const { Cell::new(false) };
    /// The innermost unload.
    static UNLOADING: Cell<*const Unloading> = const { Cell::new(ptr::null()) };
}

/// Ends the thread's stays, when it is dropped after the destructors of the thread's keys.
struct EndOfThread;

impl Drop for EndOfThread {
    fn drop(&mut self) {
        END_IS_KNOWN.set(false);
        // Registered by a key's destructor: as in the C library, that is too late to be called.
        while take(|_| true).is_some() {}
        SPARE.set(0);
        end_stays(|_| true);
    }
}

/// Takes a registration with the C library whose destructor ran early, for another one. The C library has no
/// way to remove it, and a thread that lives on would collect them without end. The price: the destructor comes
/// later, after those of the host's thread-local objects that were made since that registration.
pub(crate) fn take_spare() -> bool {
    let less = SPARE.get().checked_sub(1);
    SPARE.set(less.unwrap_or(0));
    less.is_some()
}

/// The C library will call once more than there are destructors.
pub(crate) fn add_spare() {
    SPARE.set(SPARE.get().saturating_add(1));
}

/// Pushes a destructor of an image of this group, for which the C library will call.
pub(crate) fn push(
    group: Arc<LoadGroup>,
    destructor: Destructor,
    object: *mut c_void,
) -> Result<(), Error> {
    let id = Arc::as_ptr(&group);
    push_of(id, Some(group), destructor, object)
}

/// As [`push`], of a group that the thread is unloading, whose image `address` lies in. It runs before the
/// unload ends. False if there is none.
pub(crate) fn push_of_unloading(
    address: usize,
    destructor: Destructor,
    object: *mut c_void,
) -> Result<bool, Error> {
    let pushed = with_unloading(address, |unloading| {
        push_of(unloading.group, None, destructor, object)?;
        unloading.has_pushed.set(true);
        Ok(())
    });
    pushed.transpose().map(|pushed| pushed.is_some())
}

/// Whether the address lies in an image that the calling thread is unloading.
pub(crate) fn is_unloading(address: usize) -> bool {
    with_unloading(address, |_| ()).is_some()
}

/// Calls `act` with the unload, in the calling thread, of the image that `address` lies in.
fn with_unloading<R>(address: usize, act: impl FnOnce(&Unloading) -> R) -> Option<R> {
    let mut at = UNLOADING.get();
    // SAFETY: records of the calling thread's stack, of calls that have not returned; their groups are being
    // dropped by these calls, so they are in place.
    while let Some(unloading) = unsafe { at.as_ref() } {
        // SAFETY: as above.
        let group = unsafe { &*unloading.group };
        let mut members = (0..group.len()).map(|index| group.member(index));
        if members.any(|loaded| loaded.mapping.address_range().contains(&address)) {
            return Some(act(unloading));
        }
        at = unloading.outer;
    }
    None
}

fn push_of(
    id: *const LoadGroup,
    keeps: Option<Arc<LoadGroup>>,
    destructor: Destructor,
    object: *mut c_void,
) -> Result<(), Error> {
    let stay = stay(id, keeps)?;
    let next = TOP.get();
    TOP.set(Box::into_raw(Box::new(AtThreadExit { destructor, object, stay, next })));
    Ok(())
}

/// The thread's stay in a group, made if there is none.
fn stay(id: *const LoadGroup, keeps: Option<Arc<LoadGroup>>) -> Result<*mut Stay, Error> {
    let mut at = STAYS.get();
    // SAFETY: elements of the calling thread's list, which nothing changes meanwhile.
    while let Some(known) = unsafe { at.as_ref() } {
        if ptr::eq(known.group, id) {
            return Ok(at);
        }
        at = known.next;
    }
    require_memory()?;
    if !END_IS_KNOWN.get() {
        tls::keep_until_thread_ends(Box::new(EndOfThread))?;
        END_IS_KNOWN.set(true);
    }
    if let Some(group) = &keeps {
        group.begin_stay();
    }
    let new = Box::into_raw(Box::new(Stay { group: id, keeps, next: STAYS.get() }));
    STAYS.set(new);
    Ok(new)
}

/// Whether the calling thread stays in the group, or in one that it has opened.
pub(crate) fn is_here(group: &Arc<LoadGroup>) -> bool {
    let mut at = STAYS.get();
    // SAFETY: elements of the calling thread's list, which nothing changes meanwhile.
    while let Some(stay) = unsafe { at.as_ref() } {
        if stay.is_of(group) {
            return true;
        }
        at = stay.next;
    }
    false
}

/// Runs the destructor that was registered last, because the thread ends.
///
/// # Safety
/// Called by the C library, once for each registration.
pub(crate) unsafe fn run_top() {
    match take(|_| true) {
        // SAFETY: registered for this moment. The thread's stay keeps the image.
        Some(pending) => unsafe { (pending.destructor)(pending.object) },
        None => SPARE.set(SPARE.get().saturating_sub(1)),
    }
}

/// Runs the calling thread's destructors of the images of this group, and of what they have opened, the last
/// first, and ends the thread's stay in them.
///
/// # Safety
/// They may run now, and their objects are not used any more.
pub(crate) unsafe fn destroy(group: &Arc<LoadGroup>) {
    // SAFETY: the caller's promise.
    unsafe { run(|stay| stay.is_of(group)) };
    end_stays(|stay| stay.is_of(group));
}

/// Does for the images of this group, and for what they have opened where the thread stays in that, what the
/// end of the calling thread does: runs the destructors of thread-local objects, then those of `pthread` keys,
/// then frees the thread's blocks.
///
/// # Safety
/// As for [`destroy`], of all thread-local variables and of the keys' values; and no code of the images runs
/// in this thread.
pub(crate) unsafe fn leave(group: &Arc<LoadGroup>) -> Result<(), Error> {
    // As often as the C library does when a thread ends.
    const ROUNDS: usize = 4;
    for _ in 0..ROUNDS {
        // SAFETY: the caller's promise.
        unsafe { run(|stay| stay.is_of(group)) };
        let groups = groups_of(group)?;
        // SAFETY: the caller's promise.
        let ran_any = groups.iter().filter(|group| unsafe { run_keys(group) }).count() > 0;
        if !ran_any {
            break;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { run(|stay| stay.is_of(group)) };
    let groups = groups_of(group)?;
    // May unload what was opened, and closed since: later, with the list.
    end_stays(|stay| stay.is_of(group));
    groups.iter().try_for_each(|group| {
        let modules = (0..group.len()).filter_map(|index| group.member(index).tls.as_ref());
        modules.into_iter().try_for_each(TlsModule::leave_thread)
    })
}

/// Runs the calling thread's destructors of these groups.
///
/// # Safety
/// As for [`destroy`].
unsafe fn run(is_theirs: impl Fn(&Stay) -> bool) {
    while let Some(pending) = take(&is_theirs) {
        add_spare();
        // SAFETY: the caller's promise. The thread's stay, which nothing has ended, keeps the image.
        unsafe { (pending.destructor)(pending.object) };
    }
}

/// The group, and those that it opened and the calling thread stays in.
fn groups_of(group: &Arc<LoadGroup>) -> Result<Vec<Arc<LoadGroup>>, Error> {
    let mut groups = vec![group.clone()];
    let mut at = STAYS.get();
    // SAFETY: elements of the calling thread's list, which nothing changes meanwhile.
    while let Some(stay) = unsafe { at.as_ref() } {
        let opened = stay.keeps.as_ref().filter(|it| stay.is_of(group) && !Arc::ptr_eq(it, group));
        groups.try_extend(opened.cloned())?;
        at = stay.next;
    }
    Ok(groups)
}

/// Runs the destructors of the values that the calling thread has of keys of this group. Whether there was any.
///
/// # Safety
/// As for [`leave`].
unsafe fn run_keys(group: &Arc<LoadGroup>) -> bool {
    let mut ran_any = false;
    let mut after = None;
    while let Some((key, destructor)) = libc_registrations::next_key(group, after) {
        after = Some(key);
        // SAFETY: a key that exists; if the image deletes it meanwhile, the calls fail.
        let value = unsafe { libc::pthread_getspecific(key) };
        if value.is_null() {
            continue;
        }
        ran_any = true;
        // SAFETY: as above; a function that the image gave as the key's destructor, which has this type. The
        // rest is the caller's promise.
        unsafe {
            libc::pthread_setspecific(key, ptr::null());
            std::mem::transmute::<usize, Destructor>(destructor)(value);
        }
    }
    ran_any
}

/// Runs a group's destructors for its unload, and then those of thread-local objects that they made in the
/// calling thread: their code is gone when the thread ends.
pub(super) fn during_unload(group: &LoadGroup, finalise: impl FnOnce()) {
    struct Leave<'a>(&'a Unloading);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            UNLOADING.set(self.0.outer);
            if !self.0.has_pushed.get() {
                return;
            }
            let is_its = |stay: &Stay| ptr::eq(stay.group, self.0.group);
            // None is left, unless one of them has unwound.
            while take(is_its).is_some() {
                add_spare();
            }
            end_stays(is_its);
        }
    }
    let unloading = Unloading { group, has_pushed: Cell::new(false), outer: UNLOADING.get() };
    UNLOADING.set(&raw const unloading);
    let _leave = Leave(&unloading);
    finalise();
    if unloading.has_pushed.get() {
        // SAFETY: the image is still mapped. Who loaded the group promised that its destructors may run, and
        // it is gone for everyone else.
        unsafe { run(|stay| ptr::eq(stay.group, unloading.group)) };
    }
}

impl Stay {
    /// Whether it is a stay in this group, or in one that this group's images have opened.
    fn is_of(&self, group: &Arc<LoadGroup>) -> bool {
        let Some(keeps) = &self.keeps else { return false };
        let mut at = keeps;
        while !Arc::ptr_eq(at, group) {
            match at.opener() {
                Some(opener) => at = opener.group(),
                None => return false,
            }
        }
        true
    }
}

/// Takes the topmost element of these groups out of the calling thread's stack.
fn take(is_theirs: impl Fn(&Stay) -> bool) -> Option<Box<AtThreadExit>> {
    let mut above: *mut AtThreadExit = ptr::null_mut();
    let mut at = TOP.get();
    // SAFETY: elements of the calling thread's stack, which nothing changes meanwhile, and the stays that
    // they refer to, which end later; each was leaked by `push`, and an element that is taken leaves the
    // stack.
    unsafe {
        while !at.is_null() && !is_theirs(&*(*at).stay) {
            (above, at) = (at, (*at).next);
        }
        let next = at.as_ref()?.next;
        match above.as_mut() {
            Some(above) => above.next = next,
            None => TOP.set(next),
        }
        Some(Box::from_raw(at))
    }
}

/// Ends the calling thread's stays in these groups, whose destructors have been taken. May unload them.
fn end_stays(is_theirs: impl Fn(&Stay) -> bool) {
    while let Some(stay) = take_stay(&is_theirs) {
        if let Some(group) = &stay.keeps {
            group.end_stay();
        }
        drop(stay);
    }
}

/// Takes the last stay in these groups out of the calling thread's list.
fn take_stay(is_theirs: impl Fn(&Stay) -> bool) -> Option<Box<Stay>> {
    let mut before: *mut Stay = ptr::null_mut();
    let mut at = STAYS.get();
    // SAFETY: elements of the calling thread's list, which nothing changes meanwhile; each was leaked by
    // `stay`, and an element that is taken leaves the list.
    unsafe {
        while !at.is_null() && !is_theirs(&*at) {
            (before, at) = (at, (*at).next);
        }
        let next = at.as_ref()?.next;
        match before.as_mut() {
            Some(before) => before.next = next,
            None => STAYS.set(next),
        }
        Some(Box::from_raw(at))
    }
}
