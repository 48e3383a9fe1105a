//! What nongnu libunwind keeps.
//!
//! Frames, by program counter. It never forgets them by itself: a throw through code at addresses where other code
//! was before would take the frames of that one.
//!
//! And since 1.7 the address of `dl_iterate_phdr`, from its first use on. A program can set another function there
//! (`unw_set_iterate_phdr_function`), which stays.
//!
//! Sources: `unw_flush_cache(3)`; libunwind `src/x86_64/Ginit.c`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::host::library::HostLibrary;
use crate::host::unwinders;

/// The first libunwind that was found. It stays loaded.
static CACHES: OnceLock<Caches> = OnceLock::new();

struct Caches {
    flush: unsafe extern "C" fn(*mut c_void, usize, usize),
    space: &'static AtomicPtr<c_void>,
    /// Both are its.
    _held: Arc<HostLibrary>,
}

/// Remembers an unwinder, if it is libunwind, and leads the function that it keeps from `real`, the C library's, to
/// `walker`.
pub(super) fn note(unwinder: &Arc<HostLibrary>, real: Option<usize>, walker: usize) {
    let Some([flush, space]) = unwinders::caches(unwinder) else { return };
    // SAFETY: libunwind's variable, a pointer, which is set before any code of it runs.
    let start = unsafe { (*(space as *const AtomicUsize)).load(Ordering::Relaxed) };
    /// More than there are before the pointer.
    const WORDS: usize = 64;
    for at in (start..start.saturating_add(WORDS.saturating_mul(8))).step_by(8) {
        if !at.is_multiple_of(8) || !unwinder.has_code_at(at) {
            break;
        }
        // SAFETY: a word of the address space, which is a variable of libunwind, in its memory.
        let word = unsafe { &*(at as *const AtomicUsize) };
        if Some(word.load(Ordering::Relaxed)) == real {
            word.store(walker, Ordering::Relaxed);
        }
    }
    if CACHES.get().is_some() {
        return;
    }
    // SAFETY: libunwind's function of this name has this type, and its variable is a pointer, which libunwind sets
    // once. Both stay, since the library is held forever.
    let caches = unsafe {
        Caches {
            flush: std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void, usize, usize)>(
                flush,
            ),
            space: &*(space as *const AtomicPtr<c_void>),
            _held: unwinder.clone(),
        }
    };
    let _ = CACHES.set(caches);
}

/// Empties them. Takes no lock, and does not wait.
#[inline]
pub(super) fn empty() {
    if let Some(caches) = CACHES.get() {
        // SAFETY: the address space of the process; 0 and 0 stand for all addresses. It may be called at any time.
        unsafe { (caches.flush)(caches.space.load(Ordering::Relaxed), 0, 0) };
    }
}
