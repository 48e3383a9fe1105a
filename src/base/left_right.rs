//! A value that readers read without a lock while writers change it.
//!
//! There are two copies of the value. A reader adds itself to the reader count of the active copy. A
//! writer changes the other copy when it has no readers, makes it the active one, and then does the
//! same with the copy that was active before. So a reader never waits for a writer: it may be a signal
//! handler that interrupts one. Writers take turns, and wait for readers.
//!
//! Every step that orders a reader and a writer is a read-modify-write of one reader count. Such
//! operations see the newest value, so one of the two comes first: either the writer sees the reader's
//! count and waits, or the reader sees that the writer has switched and tries again. No step needs
//! sequential consistency, which loom does not model, so loom checks all of them (`tests/loom/`
//! includes this file; it uses nothing of the crate but the lock).
//!
//! This file knows nothing about the value.
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
    /// Held during a change. `fork` waits for it, so no change is under way in a child.
    writer: Lock<()>,
}

// SAFETY: `copies` are the only fields that are not `Sync` by themselves. References to one copy
// exist in several threads at once while it is read, hence `T: Sync`. A writer changes and drops
// values that another thread may have stored, hence `T: Send`. A copy is changed only with `writer`
// held and while it has no readers.
unsafe impl<T: Send + Sync> Sync for LeftRight<T> {}

impl<T> LeftRight<T> {
    /// `left` and `right` must be equal. `writer` must guard nothing else.
    #[cfg(not(loom))]
    pub(crate) const fn new(left: T, right: T, writer: Lock<()>) -> LeftRight<T> {
        LeftRight {
            copies: [UnsafeCell::new(left), UnsafeCell::new(right)],
            active: AtomicUsize::new(0),
            readers: [AtomicUsize::new(0), AtomicUsize::new(0)],
            writer,
        }
    }

    /// As above, but not `const`: loom's types have no `const` constructors.
    #[cfg(loom)]
    pub(crate) fn new(left: T, right: T, writer: Lock<()>) -> LeftRight<T> {
        LeftRight {
            copies: [UnsafeCell::new(left), UnsafeCell::new(right)],
            active: AtomicUsize::new(0),
            readers: [AtomicUsize::new(0), AtomicUsize::new(0)],
            writer,
        }
    }

    /// Calls `read` with the value. It takes no lock, allocates nothing, and does not wait for a writer,
    /// not even in a signal handler that interrupts one. `read` must not call
    /// [`write`](LeftRight::write) of the same value, which would wait for `read` to end.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        loop {
            let copy = self.active.load(Ordering::Relaxed);
            let reader = Reader::new(of(copy, &self.readers));
            // If a writer found no reader of this copy before this one was counted, this load sees
            // that the writer had switched to the other copy.
            if self.active.load(Ordering::Acquire) == copy {
                // SAFETY: this copy was active after this reader was counted. A writer changes a copy
                // only after it has made the other one active and has then found a reader count of 0.
                // The count includes this reader until `reader` is dropped.
                let result = of(copy, &self.copies).with(|value| read(unsafe { &*value }));
                drop(reader);
                return result;
            }
        }
    }

    /// Changes the value by `change`, which is called once for each copy and must do the same to both.
    /// When this function returns, no reader uses the former value any more.
    ///
    /// If `change` panics, the copies may differ until the next change.
    pub(crate) fn write(&self, change: impl Fn(&mut T)) {
        let _writer = self.writer.lock();
        for _ in 0..2 {
            // Only writers store it, and this is the only one.
            let unread = self.active.load(Ordering::Relaxed) ^ 1;
            // An addition of 0 instead of a load, which may give an older value.
            while of(unread, &self.readers).fetch_add(0, Ordering::AcqRel) != 0 {
                sync::yield_now();
            }
            // SAFETY: the lock is held, so there is no other writer. `unread` is not active, and its
            // reader count was 0 after it ceased to be: a reader that is counted from now on sees that
            // it is not active, and does not read it.
            of(unread, &self.copies).with_mut(|value| change(unsafe { &mut *value }));
            self.active.store(unread, Ordering::Release);
        }
    }

    /// Resets the reader counts, in the child of a fork: the other threads, which may have been readers,
    /// do not exist there.
    ///
    /// The thread that forked must not have been inside [`read`](LeftRight::read): neither in the
    /// closure nor in a signal handler that interrupted it.
    pub(crate) fn forget_readers(&self) {
        for readers in &self.readers {
            readers.store(0, Ordering::Relaxed);
        }
    }
}

/// The element for the copy of this index, 0 or 1.
fn of<T>(copy: usize, [left, right]: &[T; 2]) -> &T {
    if copy == 0 { left } else { right }
}

/// A reader. It is counted until it is dropped.
struct Reader<'a>(&'a AtomicUsize);

impl<'a> Reader<'a> {
    fn new(count: &'a AtomicUsize) -> Reader<'a> {
        // Synchronizes with the release of the writer that read this count before.
        count.fetch_add(1, Ordering::Acquire);
        Reader(count)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // The reads happen before the change of a writer that sees this.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// The standard library's types with loom's names and functions.
#[cfg(not(loom))]
mod sync {
    pub use std::sync::atomic::{AtomicUsize, Ordering};
    pub use std::thread::yield_now;

    pub(crate) use crate::base::sync::Lock;

    /// loom's type records each access to the contents, hence the closures.
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
        // Called with both copies.
        pairs.write(|pairs| assert!(pairs.is_empty()));
    }

    #[test]
    fn a_reader_that_panics_is_no_longer_counted() {
        let number = LeftRight::new(0, 0, Lock::new(Rank::Unwind, ()));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            number.read(|_| panic!("while reading"));
        }));
        assert!(result.is_err());
        // This would never return if the reader were still counted.
        number.write(|number| *number = 1);
        assert_eq!(number.read(|number| *number), 1);
    }
}

#[cfg(all(test, loom))]
impl<T: Copy> LeftRight<T> {
    /// The copy that the child of a fork at this moment has. `fork` waits until no thread holds a lock
    /// (`base/sync.rs`).
    pub(crate) fn forked(&self) -> LeftRight<T> {
        let _writer = self.writer.lock();
        // SAFETY: the lock is held, so no writer changes a copy.
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
