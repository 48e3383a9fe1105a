//! The ranges of the static pool that are taken: memory at the same distance from the thread pointer in every
//! thread, for images that need initial exec.
//!
//! Bookkeeping only: the memory itself is [`crate::tls::access`]'s, and is filled by [`crate::tls::module`].

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::distance_to;
use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::tls::layout::{POOL, POOL_ALIGN};

/// The taken ranges, ascending.
#[derive(Default)]
pub(super) struct StaticPool {
    taken: Vec<Range<usize>>,
}

impl StaticPool {
    pub(super) const fn new() -> StaticPool {
        StaticPool { taken: Vec::new() }
    }

    /// Makes room for one more entry, so that [`StaticPool::take`] cannot fail for that.
    pub(super) fn reserve_entry(&mut self) -> Result<(), Error> {
        self.taken.try_room(1)
    }

    /// Takes the lowest range for a block of this size, whose start is congruent to `residue` modulo `align`.
    pub(super) fn take(
        &mut self,
        size: usize,
        align: usize,
        residue: usize,
    ) -> Result<Range<usize>, Error> {
        if align > POOL_ALIGN {
            let what = "the alignment of initial-exec thread-local storage, in bytes";
            return Err(Error::limit(what, align as u64, POOL_ALIGN as u64));
        }
        // The start of the pool is aligned to `POOL_ALIGN`.
        let next_start = |from: usize| from.saturating_add(distance_to(residue, align, from));
        let (mut start, mut position) = (next_start(0), 0);
        for (index, taken) in self.taken.iter().enumerate() {
            if start.saturating_add(size) <= taken.start {
                break;
            }
            (start, position) = (next_start(taken.end), index.saturating_add(1));
        }
        let end = start.saturating_add(size);
        if end > POOL {
            let what = "the initial-exec thread-local storage of all images in place, in bytes \
                        (memdl's feature `large-static-tls` makes room in executables)";
            return Err(Error::limit(what, end as u64, POOL as u64));
        }
        self.taken.insert(position, start..end);
        Ok(start..end)
    }

    pub(super) fn free(&mut self, range: &Range<usize>) {
        self.taken.retain(|taken| taken != range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_range_that_fits_is_taken() {
        let mut pool = StaticPool::new();
        assert_eq!(pool.take(16, 16, 0).unwrap(), 0..16);
        assert_eq!(pool.take(8, 32, 8).unwrap(), 40..48);
        assert_eq!(pool.take(24, 8, 0).unwrap(), 16..40);
        pool.free(&(0..16));
        assert_eq!(pool.take(16, 16, 0).unwrap(), 0..16);
        assert!(pool.take(8, 2 * POOL_ALIGN, 0).is_err());
        assert!(pool.take(POOL - 47, 1, 0).is_err());
        assert_eq!(pool.take(POOL - 48, 1, 0).unwrap(), 48..POOL);
    }
}
