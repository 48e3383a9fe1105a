//! A value that readers read without a lock while writers change it.
//!
//! The value exists twice. Readers count themselves at the copy that is active; a writer changes the
//! other copy when nobody reads it, makes it the active one, and then does the same with the copy that
//! was active before. So a reader never waits for a writer: it may be a signal handler that interrupts
//! one. Writers take turns, and wait for readers.
//!
//! Every step that orders a reader and a writer is a read-modify-write of one reader count. Such
//! operations see the newest value, so of the two one comes first: either the writer sees the
//! reader's count and waits, or the reader sees that the writer has switched and tries again. No step
//! needs sequential consistency, so loom, which does not model it, checks all of them
//! (`tests/loom/`, which includes this file: of the crate it uses the lock).
//!
//! This file knows nothing of what the value is.
//!
//! Source: P. Ramalhete, A. Correia, "Left-Right: A Concurrency Control Technique with Wait-Free
//! Population Oblivious Reads" (2015).

#![allow(unsafe_code)]

#[cfg(loom)]
use crate::shim as sync;
use sync::{AtomicUsize, Lock, Ordering, UnsafeCell};

/// The value. See the head of the file.
pub(crate) struct LeftRight<T> {
    copies: [UnsafeCell<T>; 2],
    /// The index of the copy that new readers take.
    active: AtomicUsize,
    /// The number of readers of each copy.
    readers: [AtomicUsize; 2],
    /// Held while the value is changed. So nobody changes it while the process forks.
    writer: Lock<()>,
}

// SAFETY: `copies` are the only fields that are not `Sync` by themselves. References to one copy
// exist in several threads at once while it is read, hence `T: Sync`. A writer changes and drops
// what another thread may have stored, hence `T: Send`. A copy is changed only with `writer` held and
// while nobody reads it.
unsafe impl<T: Send + Sync> Sync for LeftRight<T> {}

impl<T> LeftRight<T> {
    /// Takes the value twice: the two must be equal. `writer` is the lock of nothing else.
    #[cfg(not(loom))]
    pub(crate) const fn new(left: T, right: T, writer: Lock<()>) -> LeftRight<T> {
        LeftRight {
            copies: [UnsafeCell::new(left), UnsafeCell::new(right)],
            active: AtomicUsize::new(0),
            readers: [AtomicUsize::new(0), AtomicUsize::new(0)],
            writer,
        }
    }

    /// As in the crate, but loom's types cannot be made in a constant.
    #[cfg(loom)]
    pub(crate) fn new(left: T, right: T, writer: Lock<()>) -> LeftRight<T> {
        LeftRight {
            copies: [UnsafeCell::new(left), UnsafeCell::new(right)],
            active: AtomicUsize::new(0),
            readers: [AtomicUsize::new(0), AtomicUsize::new(0)],
            writer,
        }
    }

    /// Calls `read` with the value. Takes no lock and allocates nothing, and a writer that it
    /// interrupts does not hold it up. `read` must not call [`write`](LeftRight::write) of the same
    /// value, which would wait for `read` to end.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        loop {
            let copy = self.active.load(Ordering::Relaxed);
            let reader = Reader::new(of(copy, &self.readers));
            // If a writer has found no reader here before this one was counted, this load sees that
            // it had switched to the other copy.
            if self.active.load(Ordering::Acquire) == copy {
                // SAFETY: this copy was active after this reader was counted. A writer changes a
                // copy only after it has made the other one active and has then found no reader
                // here; it finds this one until `reader` is dropped.
                let result = of(copy, &self.copies).with(|value| read(unsafe { &*value }));
                drop(reader);
                return result;
            }
        }
    }

    /// Changes the value by `change`, which is called once for each copy and must do the same to both.
    /// When this returns, nobody reads the former value any more.
    ///
    /// If `change` panics, the copies may differ until the next change.
    pub(crate) fn write(&self, change: impl Fn(&mut T)) {
        let _writer = self.writer.lock();
        for _ in 0..2 {
            // Only writers store it, and this is the only one.
            let unread = self.active.load(Ordering::Relaxed) ^ 1;
            // An addition, though of nothing, since a load may give an older value.
            while of(unread, &self.readers).fetch_add(0, Ordering::AcqRel) != 0 {
                sync::yield_now();
            }
            // SAFETY: the lock is held, so no writer is here. `unread` is not active, and had no
            // reader after that became so: one that counts itself from now on sees that, and does not
            // read.
            of(unread, &self.copies).with_mut(|value| change(unsafe { &mut *value }));
            self.active.store(unread, Ordering::Release);
        }
    }

    /// In the child of a fork, whose threads, but for the one that forked, do not exist: nobody reads.
    ///
    /// The thread that forked must not have been inside of [`read`](LeftRight::read): neither in the
    /// closure nor in a signal handler that interrupted it.
    pub(crate) fn forget_readers(&self) {
        for readers in &self.readers {
            readers.store(0, Ordering::Relaxed);
        }
    }
}

/// What belongs to the copy of this index, 0 or 1.
fn of<T>(copy: usize, [left, right]: &[T; 2]) -> &T {
    if copy == 0 { left } else { right }
}

/// A reader that is counted until it is dropped.
struct Reader<'a>(&'a AtomicUsize);

impl<'a> Reader<'a> {
    fn new(count: &'a AtomicUsize) -> Reader<'a> {
        // Acquires what the writer has released that looked at this count before.
        count.fetch_add(1, Ordering::Acquire);
        Reader(count)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // What was read comes before a change by the writer that sees this.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// The standard library's types, by the names and with the functions of loom's.
#[cfg(not(loom))]
mod sync {
    pub use std::sync::atomic::{AtomicUsize, Ordering};
    pub use std::thread::yield_now;

    pub(crate) use crate::base::sync::Lock;

    /// loom's notes who uses the contents when, hence the closures.
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::LeftRight;
    use crate::base::sync::{Lock, Rank};

    #[test]
    fn readers_see_a_whole_value_while_it_changes() {
        let pairs: LeftRight<Vec<[usize; 2]>> =
            LeftRight::new(Vec::new(), Vec::new(), Lock::new(Rank::Unwind, ()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        pairs.read(|pairs| {
                            assert!(pairs.len() <= 2);
                            assert!(pairs.iter().all(|[one, other]| one == other));
                        });
                    }
                });
            }
            for number in 0..2_000 {
                pairs.write(|pairs| pairs.push([number; 2]));
                pairs.write(|pairs| pairs.push([number + 1; 2]));
                pairs.write(Vec::clear);
            }
        });
        // Looks at both copies.
        pairs.write(|pairs| assert!(pairs.is_empty()));
    }

    #[test]
    fn a_reader_that_panics_is_no_longer_counted() {
        let number = LeftRight::new(0, 0, Lock::new(Rank::Unwind, ()));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            number.read(|_| panic!("while reading"));
        }));
        assert!(result.is_err());
        // Would wait for ever.
        number.write(|number| *number = 1);
        assert_eq!(number.read(|number| *number), 1);
    }
}

#[cfg(all(test, loom))]
impl<T: Copy> LeftRight<T> {
    /// What the child of a fork at this moment has: all as it is now. Whoever forks waits until nobody
    /// holds a lock (`base/sync.rs`).
    pub(crate) fn forked(&self) -> LeftRight<T> {
        let _writer = self.writer.lock();
        // SAFETY: the lock is held, so nobody changes a copy.
        let copy = |index: usize| self.copies[index].with(|value| unsafe { *value });
        LeftRight {
            copies: [UnsafeCell::new(copy(0)), UnsafeCell::new(copy(1))],
            active: AtomicUsize::new(self.active.load(Ordering::Relaxed)),
            readers: [0, 1]
                .map(|index: usize| AtomicUsize::new(self.readers[index].load(Ordering::Relaxed))),
            writer: Lock::new(()),
        }
    }
}
