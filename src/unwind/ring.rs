//! The ring of all copies of memdl in the process.
//!
//! An unwinder's word leads to a function of one copy. That one asks all others. The first copy that finds a word
//! unchanged changes it; each later copy recognizes the function by its mark, and joins the ring.
//!
//! Knows nothing of what is asked.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::arch;

/// A copy of memdl, in a ring. **Its layout never changes**: copies of other versions, and in other objects, read
/// it.
#[repr(C)]
pub(super) struct Link<F: 'static> {
    next: AtomicPtr<Link<F>>,
    /// What other copies call.
    pub ask: F,
}

/// More copies than any process has. It bounds a walk through a ring that is being joined.
const MAX_COPIES: usize = 64;

impl<F> Link<F> {
    /// The link at `this`, alone in its ring.
    pub(super) const fn new(this: *const Link<F>, ask: F) -> Link<F> {
        Link { next: AtomicPtr::new(this.cast_mut()), ask }
    }

    /// The copy whose function with this mark starts at this address, if there is one.
    pub(super) fn of_function(address: usize, mark: &[u8; 16]) -> Option<&'static Link<F>> {
        // A marked function, aligned to 64 bytes, is in one page, so its bytes can be read if its first byte can.
        if address == 0 || !address.is_multiple_of(64) {
            return None;
        }
        // SAFETY: a function that an unwinder calls starts here, and code can be read, up to the end of the
        // page. In a marked function, the mark is followed by the distance of its copy's link from that word;
        // that copy is never unloaded.
        unsafe {
            let found = (address as *const u8).add(arch::MARK_DISTANCE).cast::<[u8; 16]>();
            let distance = found.add(1).cast::<isize>();
            let is_marked = found.read() == *mark;
            is_marked.then(|| &*distance.cast::<Link<F>>().byte_offset(distance.read()))
        }
    }

    /// The other copies in the ring.
    pub(super) fn others(&'static self) -> impl Iterator<Item = &'static Link<F>> {
        let mut at = self;
        let next = move || {
            // SAFETY: never null, and copies are never unloaded.
            at = unsafe { &*at.next.load(Ordering::SeqCst) };
            (!ptr::eq(at, self)).then_some(at)
        };
        std::iter::from_fn(next).take(MAX_COPIES)
    }

    /// Joins the rings of the two. Only one thread may do that at a time.
    pub(super) fn join(&'static self, other: &'static Link<F>) {
        if !ptr::eq(self, other) && !self.others().any(|it| ptr::eq(it, other)) {
            let next = self.next.load(Ordering::SeqCst);
            self.next.store(other.next.swap(next, Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}
