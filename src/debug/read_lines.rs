//! Keeps the DWARF of an image that was read for backtraces, until the image is unloaded.
//!
//! Reading hostile bytes may use all of the budget of [`crate::debug::lines`]. Only threads that ask about the
//! same image wait for it. It never blocks a load, an unload or a fork.

#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use crate::base::addr::Vaddr;
use crate::debug::lines::{Dwarf, SourceFrame};
use crate::debug::{DebugFault, DebugRegistration};

/// How many forks lie between this process and the first one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Tells the child of a fork that a lock which was taken before has no holder in it.
pub(crate) fn after_fork_in_child() {
    FORKS.fetch_add(1, Relaxed);
}

/// The DWARF of one image, as it was read.
///
/// Reading takes time, and only threads that ask about the same image wait for it. No load, unload or fork
/// takes the lock. So the child of a fork may find it held by a thread that only its parent has. Then the
/// child reads on its own, each time.
#[derive(Default)]
pub(crate) struct ReadLines {
    /// `None` before the first backtrace.
    dwarf: Mutex<Option<Kept>>,
    /// The value of [`FORKS`] when the lock was last taken.
    taken_after: AtomicU32,
    /// How many times the debug information has changed.
    changes: AtomicU32,
}

/// The DWARF, if there is any, and the value of [`ReadLines::changes`] when it was read.
type Kept = (u32, Option<Dwarf>);

impl ReadLines {
    /// Forgets the DWARF: the debug information has changed.
    pub(crate) fn forget(&self) {
        // The next backtrace drops it. Nothing waits here.
        self.changes.fetch_add(1, Release);
    }

    /// The functions that an address lies in, by the DWARF. The address is relative to the image's load bias.
    pub(crate) fn frames(&self, debug: &DebugRegistration, address: Vaddr) -> Vec<SourceFrame> {
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
        let mut frames = Vec::new();
        if let Some(dwarf) = dwarf {
            let was_cut_short = dwarf.is_cut_short();
            frames = dwarf.frames(address);
            if dwarf.is_cut_short() && !was_cut_short {
                fault = Some(DebugFault::Costly);
            }
            if dwarf.is_without_memory() {
                // There may be memory at the next backtrace.
                *read = None;
            }
        }
        // A logger is foreign code.
        drop(guard);
        if let Some(fault) = fault {
            debug.warn_of(&fault);
        }
        frames
    }

    /// Takes the lock; `None` if its holder does not exist in this process.
    fn take(&self) -> Option<MutexGuard<'_, Option<Kept>>> {
        for round in 0_u32.. {
            let forks = FORKS.load(Relaxed);
            match self.dwarf.try_lock() {
                Ok(guard) => {
                    self.taken_after.store(forks, Relaxed);
                    return Some(guard);
                }
                // A thread has panicked while it read: its result cannot be relied on.
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
    /// From the sections that are kept for debuggers. `None` if there are none, or none can be read; the fault
    /// says why sections cannot be read.
    pub(crate) fn of(debug: &DebugRegistration) -> (Option<Dwarf>, Option<DebugFault>) {
        let Some(kept) = debug.debug_sections(&Dwarf::SECTIONS) else { return (None, None) };
        let dwarf = (!kept.sections.is_empty()).then(|| Dwarf::new(kept.sections, kept.stored));
        (dwarf, kept.fault)
    }
}
