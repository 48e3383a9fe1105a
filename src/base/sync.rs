//! The locks of memdl: one type, with a rank, and one gate for `fork`.
//!
//! A thread takes locks in ascending order of their ranks, and at most one of each rank. So no two
//! threads can wait for each other. A build with debug assertions panics where a thread breaks the
//! rule.
//!
//! A child of `fork` has one thread. A lock that another thread of the parent held would stay locked in
//! the child forever. So every thread enters a gate with its first lock, and leaves it with its last.
//! [`close_for_fork`] closes the gate and waits until no other thread is inside: at the moment of the
//! fork only the forking thread can hold locks of this type, in the parent and in the child.
//!
//! No foreign code runs under a lock: no code of images, no callback of the caller, no logger. It could
//! fork, or load. This file does not check that.
//!
//! The gate is split into cells, so that threads do not all write to one cache line.
//!
//! Sources: `pthread_atfork(3)`; jemalloc's `witness.h` for the ranks.

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{
    Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::Duration;

use crate::base::cells::{Apart, CELLS, Cells};

/// The order of locks. A thread that holds one may take only later ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Rank {
    /// Facts about the process that are determined once.
    SetUp,
    /// The idle instances of one pool.
    Pool,
    /// The stands of templates, and what room they have.
    Stands,
    /// The unloaded instances of one template that wait for the next.
    Idle,
    /// The names that libraries of the process define.
    HostNames,
    /// The libraries whose calls of `dlopen` lead to memdl.
    Hosted,
    /// The handles that images got from their `dlopen`.
    Handles,
    /// The images of one namespace.
    Namespace,
    /// The registry of images.
    Images,
    /// The group that is at some places of the registry.
    Tenant,
    /// The restrictions of groups' imports.
    Restrictions,
    /// The dependencies of the images of one group.
    Dependencies,
    /// Finding memdl's own words in each thread.
    Words,
    /// The registry of thread-local storage.
    Tls,
    /// The unique definitions (`STB_GNU_UNIQUE`).
    Unique,
    /// Writers of the table of ranges that libgc asks for.
    Roots,
    /// Writers of the unwinders' table.
    Unwind,
    /// The debug registration of one image.
    Debug,
    /// The number of instances of an image that are registered in full.
    InFull,
    /// The files for profilers.
    Profile,
    /// The images that were unloaded under a debugger.
    Retired,
    /// The list that debuggers read.
    DebugList,
    /// Which instances still share pages.
    Sharing,
    /// Memory for the next image.
    Memory,
    /// The quarantined addresses.
    Quarantine,
    /// The libraries that were found by their names.
    KnownLibraries,
    /// Writers of read-only data of libraries that `ld.so` loaded.
    Relro,
    /// Memory that the system has refused to unmap or to protect.
    Refused,
    /// Where the log of a C host goes.
    #[cfg(feature = "capi")]
    Log,
}

/// A mutual exclusion lock with a rank. A panic of its holder does not poison it.
pub(crate) struct Lock<T> {
    rank: Rank,
    inner: Mutex<T>,
}

/// A [`Lock`] that is held.
pub(crate) struct Guard<'l, T> {
    guard: MutexGuard<'l, T>,
    _held: Held,
}

/// A reader-writer lock with a rank.
pub(crate) struct SharedLock<T> {
    rank: Rank,
    inner: RwLock<T>,
}

/// A [`SharedLock`] that is held for reading.
pub(crate) struct ReadGuard<'l, T> {
    guard: RwLockReadGuard<'l, T>,
    _held: Held,
}

/// A [`SharedLock`] that is held for writing.
pub(crate) struct WriteGuard<'l, T> {
    guard: RwLockWriteGuard<'l, T>,
    _held: Held,
}

impl<T> Lock<T> {
    pub(crate) const fn new(rank: Rank, value: T) -> Lock<T> {
        Lock { rank, inner: Mutex::new(value) }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let held = Held::new(self.rank);
        Guard { guard: self.inner.lock().unwrap_or_else(PoisonError::into_inner), _held: held }
    }

    /// The value, to an owner whom nobody shares the lock with.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if a thread holds it, perhaps the calling one.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let held = Held::try_new(self.rank)?;
        match self.inner.try_lock() {
            Ok(guard) => Some(Guard { guard, _held: held }),
            Err(TryLockError::Poisoned(error)) => {
                Some(Guard { guard: error.into_inner(), _held: held })
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> SharedLock<T> {
    pub(crate) const fn new(rank: Rank, value: T) -> SharedLock<T> {
        SharedLock { rank, inner: RwLock::new(value) }
    }

    #[inline]
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        let held = Held::new(self.rank);
        ReadGuard { guard: self.inner.read().unwrap_or_else(PoisonError::into_inner), _held: held }
    }

    #[inline]
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        let held = Held::new(self.rank);
        WriteGuard {
            guard: self.inner.write().unwrap_or_else(PoisonError::into_inner),
            _held: held,
        }
    }

    /// `None` if a thread holds it for writing, perhaps the calling one.
    pub(crate) fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let held = Held::try_new(self.rank)?;
        match self.inner.try_read() {
            Ok(guard) => Some(ReadGuard { guard, _held: held }),
            Err(TryLockError::Poisoned(error)) => {
                Some(ReadGuard { guard: error.into_inner(), _held: held })
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

thread_local! {
    /// One bit for each rank that the thread holds, [`NO_FORK`] and [`FORKING`].
    static RANKS: Cell<u32> = const { Cell::new(0) };
}

/// The bit of [`hold_off_fork`]: no lock is held, and forks wait.
const NO_FORK: u32 = 1 << 31;
/// The bit of the thread that has closed the gate. A signal handler that interrupts it may take locks.
const FORKING: u32 = 1 << 30;
/// The bits that stand for locks.
const LOCKS: u32 = FORKING - 1;

/// A rank that this thread holds. It is dropped after the lock is released.
struct Held {
    bit: u32,
    /// A guard stays in its thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Held {
    #[inline]
    fn new(rank: Rank) -> Held {
        let bit = 1 << rank as u32;
        let ranks = RANKS.get();
        if cfg!(debug_assertions) && ranks & LOCKS >= bit {
            out_of_order(rank, ranks);
        }
        Held::enter(bit, ranks)
    }

    /// `None` if this thread holds that rank or a later one: to wait could be a deadlock.
    fn try_new(rank: Rank) -> Option<Held> {
        let bit = 1 << rank as u32;
        let ranks = RANKS.get();
        (ranks & LOCKS < bit).then(|| Held::enter(bit, ranks))
    }

    #[inline]
    fn enter(bit: u32, ranks: u32) -> Held {
        if ranks == 0 {
            GATE.enter();
        }
        RANKS.set(ranks | bit);
        Held { bit, _thread: std::marker::PhantomData }
    }
}

#[expect(clippy::panic, reason = "a fault of memdl, for which only debug builds check")]
#[cold]
#[inline(never)]
fn out_of_order(rank: Rank, ranks: u32) {
    panic!(
        "a thread takes the lock {rank:?} ({}) while it holds ranks {ranks:#b}: take locks in \
         ascending order, see `Rank`",
        rank as u32
    );
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        let ranks = RANKS.get() & !self.bit;
        RANKS.set(ranks);
        if ranks == 0 {
            GATE.leave();
        }
    }
}

/// Holds off forks until the result is dropped: for calls that take locks of the C library, which a
/// forked child would find locked.
pub(crate) fn hold_off_fork() -> impl Sized {
    let ranks = RANKS.get();
    (ranks & NO_FORK == 0).then(|| Held::enter(NO_FORK, ranks))
}

/// Calls foreign code under [`hold_off_fork`], at a moment when the C library's lock is free: forks are
/// possible until `call` returns.
pub(crate) fn with_forks_possible<R>(call: impl FnOnce() -> R) -> R {
    let ranks = RANKS.get();
    // Where this thread holds a ranked lock too, forks stay held off.
    if ranks != NO_FORK {
        return call();
    }
    RANKS.set(0);
    GATE.leave();
    let result = call();
    GATE.enter();
    RANKS.set(NO_FORK);
    result
}

/// The gate: which threads are inside.
struct Gate {
    /// The number of threads inside, of those that have the cell.
    cells: Cells<AtomicUsize>,
    /// Whether threads must wait to enter.
    is_closed: AtomicBool,
    /// Held by the thread that has closed the gate.
    closing: Mutex<()>,
}

static GATE: Gate = Gate {
    cells: Cells::new([const { Apart(AtomicUsize::new(0)) }; CELLS]),
    is_closed: AtomicBool::new(false),
    closing: Mutex::new(()),
};

impl Gate {
    #[inline]
    fn enter(&self) {
        self.cells.own().fetch_add(1, Ordering::SeqCst);
        // Either this thread sees that the gate is closed, or the closing thread sees its count.
        if self.is_closed.load(Ordering::SeqCst) {
            self.enter_slowly();
        }
    }

    #[cold]
    fn enter_slowly(&self) {
        loop {
            self.leave();
            drop(self.closing.lock().unwrap_or_else(PoisonError::into_inner));
            self.cells.own().fetch_add(1, Ordering::SeqCst);
            if !self.is_closed.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    #[inline]
    fn leave(&self) {
        self.cells.own().fetch_sub(1, Ordering::SeqCst);
    }

    fn inside(&self) -> usize {
        self.cells.iter().map(|cell| cell.load(Ordering::SeqCst)).sum()
    }
}

/// The guard of `GATE.closing` while the gate is closed.
struct Closed(UnsafeCell<Option<MutexGuard<'static, ()>>>);

// SAFETY: filled and emptied only by the thread that holds `GATE.closing`.
unsafe impl Sync for Closed {}

static CLOSED: Closed = Closed(UnsafeCell::new(None));

/// Waits until no other thread holds a lock. None can take one until [`open_after_fork_in_parent`] or
/// [`open_after_fork_in_child`].
pub(crate) fn close_for_fork() {
    let closing = GATE.closing.lock().unwrap_or_else(PoisonError::into_inner);
    GATE.is_closed.store(true, Ordering::SeqCst);
    // This thread may hold a lock itself, and does not wait for that.
    let own = usize::from(RANKS.get() != 0);
    RANKS.set(RANKS.get() | FORKING);
    let mut turns = 0u32;
    while GATE.inside() > own {
        // Most locks are held for less than a microsecond; a debugger may take seconds.
        turns = turns.saturating_add(1);
        if turns < 100 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    // SAFETY: this thread holds `closing`.
    unsafe { *CLOSED.0.get() = Some(closing) };
}

/// Lets threads take locks again. It must follow [`close_for_fork`], in the same thread.
pub(crate) fn open_after_fork_in_parent() {
    RANKS.set(RANKS.get() & !FORKING);
    GATE.is_closed.store(false, Ordering::SeqCst);
    // SAFETY: this thread holds `closing`; `close_for_fork` stored the guard.
    drop(unsafe { (*CLOSED.0.get()).take() });
}

/// As [`open_after_fork_in_parent`], in the child, where only the thread that forked exists.
pub(crate) fn open_after_fork_in_child() {
    // Threads that do not exist in the child may have been counted while they tried to enter.
    GATE.cells.iter().for_each(|cell| cell.store(0, Ordering::SeqCst));
    GATE.cells.own().store(usize::from(RANKS.get() & !FORKING != 0), Ordering::SeqCst);
    open_after_fork_in_parent();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{self, AssertUnwindSafe};
    use std::sync::atomic::AtomicU32;

    #[test]
    fn locks_are_taken_in_ascending_order_only() {
        let (first, second) = (Lock::new(Rank::Tls, 1), Lock::new(Rank::Memory, 2));
        let same = Lock::new(Rank::Memory, 3);
        {
            let held = first.lock();
            assert_eq!(*held + *second.lock(), 3);
        }
        let _held = second.lock();
        for other in [&first, &same] {
            assert!(other.try_lock().is_none());
            let taken = panic::catch_unwind(AssertUnwindSafe(|| *other.lock()));
            assert_eq!(taken.is_err(), cfg!(debug_assertions), "only with debug assertions");
        }
    }

    #[test]
    fn ranks_are_free_again_in_any_order() {
        let (first, second) = (Lock::new(Rank::Tls, 1), SharedLock::new(Rank::Memory, 2));
        let held = first.lock();
        let read = second.read();
        drop(held);
        assert!(first.try_lock().is_none(), "a later rank is held");
        drop(read);
        assert_eq!(*first.lock(), 1);
        *second.write() += 1;
        assert_eq!(second.try_read().map(|it| *it), Some(3));
    }

    #[test]
    fn children_of_a_fork_find_every_lock_free() {
        static LOW: Lock<u32> = Lock::new(Rank::Dependencies, 0);
        static HIGH: SharedLock<u32> = SharedLock::new(Rank::Quarantine, 0);
        let stop = AtomicBool::new(false);
        let rounds = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let mut low = LOW.lock();
                        *HIGH.write() += 1;
                        *low += 1;
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..200 {
                // memdl's own handlers of `fork` close and open the gate.
                // SAFETY: the child takes locks, allocates nothing, and leaves by `_exit`.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: async-signal-safe; `alarm` ends a child that hangs.
                    unsafe { libc::alarm(20) };
                    let both_equal = *LOW.lock() == *HIGH.read();
                    // SAFETY: async-signal-safe, and the child is done.
                    unsafe { libc::_exit(if both_equal { 42 } else { 1 }) };
                }
                let mut status = 0;
                // SAFETY: `child` is our child, `status` a local.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "{status:#x}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(*LOW.lock(), rounds.load(Ordering::Relaxed));
    }
}
