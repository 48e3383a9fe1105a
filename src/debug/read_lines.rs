//! What was read of an image's DWARF for backtraces, kept until the image goes.
//!
//! The bytes may be made to take long. Reading them has a budget ([`crate::debug::lines`]), and meanwhile
//! nobody waits but those who ask about the same image.

#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use crate::base::addr::Vaddr;
use crate::debug::lines::{Dwarf, Place};
use crate::debug::{DebugFault, DebugRegistration};

/// How often the process was forked away from its parents.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The child of a fork does not wait for threads that it does not have.
pub(crate) fn after_fork_in_child() {
    FORKS.fetch_add(1, Relaxed);
}

/// What was read of an image's DWARF, for as long as the image is there.
///
/// Reading takes its time, and nobody but who asks about the same image waits for it: there is one
/// for each image, and neither a load nor an unload takes it, nor does a fork. So the child of a fork
/// may find it taken by a thread that only its parent has. Then it reads on its own, each time.
#[derive(Default)]
pub(crate) struct ReadLines {
    /// `None` before anybody asks.
    dwarf: Mutex<Option<Kept>>,
    /// What [`FORKS`] was when it was taken the last time.
    taken_after: AtomicU32,
    /// How often there was other debug information.
    changes: AtomicU32,
}

/// The DWARF, if there is any, and what [`ReadLines::changes`] was when it was read.
type Kept = (u32, Option<Dwarf>);

impl ReadLines {
    /// Forgets what was read: there is other debug information now.
    pub(crate) fn forget(&self) {
        // What is there goes when the next one asks. Nobody waits here.
        self.changes.fetch_add(1, Release);
    }

    /// What DWARF says of an address that the image states.
    pub(crate) fn places(&self, debug: &DebugRegistration, address: Vaddr) -> Vec<Place> {
        let mut guard = self.take();
        let mut of_its_own = None;
        let read = guard.as_deref_mut().unwrap_or(&mut of_its_own);
        let changes = self.changes.load(Acquire);
        if read.as_ref().is_some_and(|read| read.0 != changes) {
            *read = None;
        }
        let mut fault = None;
        let (_, dwarf) = read.get_or_insert_with(|| {
            let (dwarf, why) = Dwarf::of(debug);
            fault = why;
            (changes, dwarf)
        });
        let mut places = Vec::new();
        if let Some(dwarf) = dwarf {
            let was_cut_short = dwarf.is_cut_short();
            places = dwarf.places(address);
            if dwarf.is_cut_short() && !was_cut_short {
                fault = Some(DebugFault::Costly);
            }
            if dwarf.is_without_memory() {
                // There may be some for the next who asks.
                *read = None;
            }
        }
        // A logger is foreign code.
        drop(guard);
        if let Some(fault) = fault {
            debug.warn_of(&fault);
        }
        places
    }

    /// Waits for its turn; `None` if that would never come.
    fn take(&self) -> Option<MutexGuard<'_, Option<Kept>>> {
        for round in 0_u32.. {
            let forks = FORKS.load(Relaxed);
            match self.dwarf.try_lock() {
                Ok(guard) => {
                    self.taken_after.store(forks, Relaxed);
                    return Some(guard);
                }
                // A thread has panicked while it read: what it left is not to be relied on.
                Err(TryLockError::Poisoned(guard)) => {
                    self.taken_after.store(forks, Relaxed);
                    let mut guard = guard.into_inner();
                    *guard = None;
                    self.dwarf.clear_poison();
                    return Some(guard);
                }
                Err(TryLockError::WouldBlock) if self.taken_after.load(Relaxed) != forks => {
                    return None;
                }
                Err(TryLockError::WouldBlock) if round < 100 => thread::yield_now(),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_micros(500)),
            }
        }
        None
    }
}

impl Dwarf {
    /// What is kept for debuggers; `None` if that is nothing, or cannot be read. And why some of it
    /// cannot.
    pub(crate) fn of(presence: &DebugRegistration) -> (Option<Dwarf>, Option<DebugFault>) {
        let Some(kept) = presence.debug_sections(&Dwarf::SECTIONS) else { return (None, None) };
        let dwarf = (!kept.sections.is_empty()).then(|| Dwarf::new(kept.sections, kept.stored));
        (dwarf, kept.fault)
    }
}
