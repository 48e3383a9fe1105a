//! Which of several libraries is the first that may define a name.
//!
//! Where an image has many references to many libraries, most of a search goes through libraries that do not have the
//! name. The index leads to the first that may: by the hash of the name, as [`crate::elf::name_filter`]. No library
//! before it defines the name; one behind it may, so that is where the search begins.
//!
//! The hashes are those of hostile bytes: where too many fall together, the rest is left out, and searches begin
//! earlier.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::base::fallible::try_filled;

/// The first library for each hash.
#[derive(Debug)]
pub(crate) struct NameIndex {
    /// The hash, and the number of the library or [`FREE`]. The length is a power of two.
    slots: Vec<(u32, u32)>,
    /// The first library with a name that is left out, or [`FREE`].
    left_out: u32,
}

const FREE: u32 = u32::MAX;
/// The most slots that are looked at for a hash.
const NEAR: usize = 32;

impl NameIndex {
    /// An index with room for so many names.
    pub(crate) fn new(names: usize) -> Result<NameIndex, Error> {
        let slots = names.saturating_mul(2).max(NEAR).next_power_of_two();
        Ok(NameIndex { slots: try_filled((0, FREE), slots)?, left_out: FREE })
    }

    /// Adds a name of a library. Libraries are added in order.
    pub(crate) fn add(&mut self, hash: u32, library: u32) {
        let start = self.start(hash);
        for at in self.near(start) {
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if slot.1 == FREE {
                *slot = (hash, library);
                return;
            }
            if slot.0 == hash {
                return;
            }
        }
        self.left_out = self.left_out.min(library);
    }

    /// The first library that may define a name with this hash.
    #[inline]
    pub(crate) fn first(&self, hash: u32) -> Option<u32> {
        let start = self.start(hash);
        let mut near = self.near(start).filter_map(|at| self.slots.get(at));
        let found = near.find(|(known, of)| *of == FREE || *known == hash);
        let first = found.map_or(FREE, |(_, of)| *of).min(self.left_out);
        (first != FREE).then_some(first)
    }

    /// The first slot of a hash.
    #[inline]
    fn start(&self, hash: u32) -> usize {
        hash.wrapping_mul(0x9e37_79b1).rotate_left(16) as usize
    }

    /// The slots from there on.
    #[inline]
    fn near(&self, start: usize) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().wrapping_sub(1);
        (0..NEAR).map(move |step| start.wrapping_add(step) & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_library_that_has_a_name_is_found() {
        let hash = |number: u32| number.wrapping_mul(0x9e37_79b9) >> 1;
        let mut index = NameIndex::new(30_000).unwrap();
        for library in 0..30 {
            (0..1_000).for_each(|name| index.add(hash(library * 500 + name), library));
        }
        for name in 0..15_000 {
            assert_eq!(index.first(hash(name)), Some((name / 500).saturating_sub(1)), "{name}");
        }
        assert!((20_000..30_000).all(|name| index.first(hash(name)).is_none()));
    }

    #[test]
    fn names_that_find_no_slot_begin_a_search_earlier() {
        let mut index = NameIndex::new(0).unwrap();
        (0..200).for_each(|name| index.add(name, name / 10));
        for name in 0..200 {
            assert!(index.first(name).is_some_and(|first| first <= name / 10), "{name}");
        }
        assert!(index.first(1_000).is_some(), "any name may be one that was left out");
    }
}
