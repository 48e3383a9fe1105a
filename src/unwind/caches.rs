//! What nongnu libunwind keeps of frames, by program counter. It never forgets that by itself: a throw through code
//! at addresses where other code was before would take the frames of that one.
//!
//! Source: `unw_flush_cache(3)`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use crate::host::library::HostLibrary;
use crate::host::unwinders;

/// The first libunwind that was found. It stays loaded.
static CACHES: OnceLock<Caches> = OnceLock::new();

struct Caches {
    flush: unsafe extern "C" fn(*mut c_void, usize, usize),
    space: &'static AtomicPtr<c_void>,
}

/// Remembers an unwinder, if it is libunwind.
pub(super) fn note(unwinder: &Arc<HostLibrary>) {
    if CACHES.get().is_some() {
        return;
    }
    let Some([flush, space]) = unwinders::caches(unwinder) else { return };
    std::mem::forget(unwinder.clone());
    // SAFETY: libunwind's function of this name has this type, and its variable is a pointer, which libunwind sets
    // once. Both stay, since the library is held forever.
    let caches = unsafe {
        Caches {
            flush: std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void, usize, usize)>(
                flush,
            ),
            space: &*(space as *const AtomicPtr<c_void>),
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
