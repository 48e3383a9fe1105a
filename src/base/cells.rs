//! One value for each of a few groups of threads, so that threads do not all write to one cache line.
//!
//! A thread always has the same cell. Two threads may share one: what is in it is still shared data, with a lock or
//! atomic operations.

#![forbid(unsafe_code)]

use std::cell::Cell;

/// The number of cells.
pub(crate) const CELLS: usize = 16;

/// The values.
pub(crate) struct Cells<T>([Apart<T>; CELLS]);

/// A value with cache lines of its own.
#[repr(align(128))]
pub(crate) struct Apart<T>(pub T);

thread_local! {
    /// Its address tells threads apart.
    static HERE: Cell<u8> = const { Cell::new(0) };
}

/// The number of the calling thread's cell.
#[inline]
fn of_thread() -> usize {
    // The address of a thread-local spreads threads over cells: it lies on another page in each thread, and a
    // stack with its guard page has an odd number of pages.
    let address = HERE.with(|here| std::ptr::from_ref(here).addr());
    (address >> 12) % CELLS
}

impl<T> Cells<T> {
    pub(crate) const fn new(cells: [Apart<T>; CELLS]) -> Cells<T> {
        Cells(cells)
    }

    /// The calling thread's.
    #[expect(clippy::indexing_slicing, reason = "a remainder is less than what it is divided by")]
    #[inline]
    pub(crate) fn own(&self) -> &T {
        &self.0[of_thread()].0
    }

    /// All, the calling thread's first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (before, from) = self.0.split_at(of_thread());
        from.iter().chain(before).map(|Apart(value)| value)
    }
}
