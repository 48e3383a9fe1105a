//! The static pool: memory at the same distance from the thread pointer in every thread, for images that need
//! initial exec, and which ranges of it are taken.
//!
//! The pool has parts. The first is memdl's own, if memdl's thread-local storage is static; the others are what
//! `ld.so` had left when images needed it ([`static_tls`](crate::host::static_tls)).
//!
//! Bookkeeping only: the memory is filled by [`crate::tls::module`].

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::distance_to;
use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::tls::layout::POOL_ALIGN;

/// The parts, in the order in which they came.
pub(super) struct StaticPool {
    parts: Vec<Part>,
}

/// Memory in every thread.
pub(super) struct Part {
    /// Its distance from the thread pointer.
    distance: isize,
    /// The alignment of its start in every thread.
    align: usize,
    len: usize,
    template: Template,
    /// The taken ranges, ascending.
    taken: Vec<Range<usize>>,
}

/// What new threads get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Template {
    /// The initial values of memdl's own variables.
    Own,
    /// At this address.
    At(usize),
}

/// A block in the pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PoolBlock {
    part: usize,
    range: Range<usize>,
    /// Its distance from the thread pointer.
    pub distance: isize,
    pub template: Template,
}

impl PoolBlock {
    /// Its start in the part, and so in the part's template.
    pub(super) fn start(&self) -> usize {
        self.range.start
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }
}

impl Part {
    pub(super) fn new(distance: isize, align: usize, len: usize, template: Template) -> Part {
        Part { distance, align, len, template, taken: Vec::new() }
    }

    /// Takes the lowest range for a block of this size, whose start is congruent to `residue` modulo `align`.
    fn take(&mut self, size: usize, align: usize, residue: usize) -> Option<Range<usize>> {
        if align > self.align {
            return None;
        }
        let next_start = |from: usize| from.saturating_add(distance_to(residue, align, from));
        let (mut start, mut position) = (next_start(0), 0);
        for (index, taken) in self.taken.iter().enumerate() {
            if start.saturating_add(size) <= taken.start {
                break;
            }
            (start, position) = (next_start(taken.end), index.saturating_add(1));
        }
        let end = start.saturating_add(size);
        if end > self.len {
            return None;
        }
        self.taken.insert(position, start..end);
        Some(start..end)
    }
}

impl StaticPool {
    pub(super) const fn new() -> StaticPool {
        StaticPool { parts: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The length of all parts.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.len))
    }

    pub(super) fn add(&mut self, part: Part) -> Result<(), Error> {
        Ok(self.parts.try_push(part)?)
    }

    /// Takes a range for a block of this size, whose start is congruent to `residue` modulo `align`. `None` if no
    /// part has room.
    pub(super) fn take(
        &mut self,
        size: usize,
        align: usize,
        residue: usize,
    ) -> Result<Option<PoolBlock>, Error> {
        if align > POOL_ALIGN {
            let what = "the alignment of initial-exec thread-local storage, in bytes";
            return Err(Error::limit(what, align as u64, POOL_ALIGN as u64));
        }
        for (index, part) in self.parts.iter_mut().enumerate() {
            part.taken.try_room(1)?;
            if let Some(range) = part.take(size, align, residue) {
                let (distance, template) = (part.distance, part.template);
                let distance = distance.wrapping_add_unsigned(range.start);
                return Ok(Some(PoolBlock { part: index, range, distance, template }));
            }
        }
        Ok(None)
    }

    pub(super) fn free(&mut self, block: &PoolBlock) {
        if let Some(part) = self.parts.get_mut(block.part) {
            part.taken.retain(|taken| *taken != block.range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_range_that_fits_is_taken() {
        let mut part = Part::new(0, 64, 1024, Template::Own);
        assert_eq!(part.take(16, 16, 0).unwrap(), 0..16);
        assert_eq!(part.take(8, 32, 8).unwrap(), 40..48);
        assert_eq!(part.take(24, 8, 0).unwrap(), 16..40);
        part.taken.remove(0);
        assert_eq!(part.take(16, 16, 0).unwrap(), 0..16);
        assert!(part.take(1024 - 47, 1, 0).is_none());
        assert_eq!(part.take(1024 - 48, 1, 0).unwrap(), 48..1024);
    }

    #[test]
    fn the_next_part_is_taken_when_one_is_full() {
        let mut pool = StaticPool::new();
        assert!(pool.is_empty() && pool.take(8, 8, 0).unwrap().is_none());
        pool.add(Part::new(-128, 64, 64, Template::Own)).unwrap();
        pool.add(Part::new(-192, 16, 64, Template::Own)).unwrap();
        pool.add(Part::new(-512, 64, 192, Template::At(4096))).unwrap();
        let first = pool.take(48, 8, 0).unwrap().unwrap();
        assert_eq!((first.distance, first.template), (-128, Template::Own));
        let second = pool.take(32, 32, 16).unwrap().unwrap();
        assert_eq!((second.distance, second.start(), second.len()), (-512 + 16, 16, 32));
        assert!(pool.take(8, 2 * POOL_ALIGN, 0).is_err());
        pool.free(&first);
        assert_eq!(pool.take(64, 64, 0).unwrap().unwrap().distance, -128);
        assert_eq!(pool.len(), 320);
    }
}
