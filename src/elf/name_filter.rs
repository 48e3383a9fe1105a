//! A Bloom filter over the names that a set of libraries defines.
//!
//! Most references of an image are to names that only the image defines. Without a filter, every
//! library of the process would be searched for each of them. Hash tables store the hashes of all
//! names, so one pass over them fills the filter. It then answers in a few instructions: "no library
//! defines this name", or "perhaps one does". The first answer is never wrong.
//!
//! The hash is the upper 31 bits of the GNU hash, which hash tables store
//! ([`SymbolTable::gnu_hash_31`](crate::elf::symbol_table::SymbolTable::gnu_hash_31)). The filter knows
//! neither names nor libraries.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::{try_copy, try_filled};

/// A set of names, by hash.
#[derive(Debug)]
pub(crate) struct NameFilter {
    /// Two bits for each hash. The length is a power of two.
    bits: Vec<u64>,
}

impl NameFilter {
    /// The names with these hashes.
    pub(crate) fn new(hashes: &[u32]) -> Result<NameFilter, Error> {
        // At least 32 bits for each name: less than 1 % of the other names pass.
        let mut filter = NameFilter::with_room(hashes.len())?;
        hashes.iter().for_each(|&hash| filter.insert(hash));
        Ok(filter)
    }

    /// An empty set with room for so many names.
    fn with_room(names: usize) -> Result<NameFilter, Error> {
        let bits = try_filled(0, ((names / 2).saturating_add(1)).next_power_of_two())?;
        Ok(NameFilter { bits })
    }

    fn insert(&mut self, hash: u32) {
        for (word, bit) in self.bits_of(hash) {
            if let Some(word) = self.bits.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// The empty set.
    pub(crate) fn none() -> NameFilter {
        NameFilter { bits: vec![0] }
    }

    /// The two bits of a hash: the index of a word, and a mask.
    #[inline(always)]
    fn bits_of(&self, hash: u32) -> [(usize, u64); 2] {
        let bit =
            |hash: u32| ((hash as usize / 64) & self.bits.len().wrapping_sub(1), 1 << (hash % 64));
        [bit(hash), bit(hash.wrapping_mul(0x9e37_79b1).rotate_left(16))]
    }

    /// Whether a name with this hash may be in the set.
    #[inline(always)]
    pub(crate) fn may_have(&self, hash: u32) -> bool {
        let [(first, bit), (second, other_bit)] = self.bits_of(hash);
        let is_set = |word: usize, bit: u64| self.bits.get(word).is_some_and(|it| it & bit != 0);
        is_set(first, bit) && is_set(second, other_bit)
    }
}

/// A [`NameFilter`] that names are added to and taken out of.
///
/// A bit may stand for several names, so it stays when a name is taken out. Once more names were added than there is
/// room for, the filter is made anew from those that are left, with room for as many again. So a name costs a few
/// instructions on average, however many there are.
#[derive(Debug)]
pub(crate) struct ChangingFilter {
    /// Whoever searches has a share, and holds no lock meanwhile.
    names: Arc<NameFilter>,
    room: usize,
    /// Since it was made; those that are gone count.
    added: usize,
}

impl ChangingFilter {
    /// An empty set with room for twice so many names.
    pub(crate) fn new(names: usize) -> Result<ChangingFilter, Error> {
        let room = names.saturating_mul(2).max(64);
        Ok(ChangingFilter { names: Arc::new(NameFilter::with_room(room)?), room, added: 0 })
    }

    /// The names as they are now.
    pub(crate) fn names(&self) -> &Arc<NameFilter> {
        &self.names
    }

    /// Whether there is room for so many more names. If not, it has to be made anew.
    pub(crate) fn has_room(&self, names: usize) -> bool {
        self.added.saturating_add(names) <= self.room
    }

    /// Adds names.
    pub(crate) fn add(&mut self, hashes: &[u32]) -> Result<(), Error> {
        if Arc::get_mut(&mut self.names).is_none() {
            self.names = Arc::new(NameFilter { bits: try_copy(&self.names.bits)? });
        }
        if let Some(names) = Arc::get_mut(&mut self.names) {
            hashes.iter().for_each(|&hash| names.insert(hash));
        }
        self.added = self.added.saturating_add(hashes.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_missed_and_few_others_pass() {
        let hash = |number: u32| number.wrapping_mul(0x9e37_79b9) >> 1;
        let names = NameFilter::new(&(0..10_000).map(hash).collect::<Vec<_>>()).unwrap();
        assert!((0..10_000).all(|number| names.may_have(hash(number))));
        let wrong = (10_000..110_000).filter(|&number| names.may_have(hash(number))).count();
        assert!(wrong < 1_000, "{wrong} of 100,000");
        let none = NameFilter::new(&[]).unwrap();
        assert!(!(0..1000).any(|number| none.may_have(hash(number))));
    }

    #[test]
    fn names_are_added_while_somebody_searches() {
        let hash = |number: u32| number.wrapping_mul(0x9e37_79b9) >> 1;
        let mut names = ChangingFilter::new(0).unwrap();
        names.add(&[hash(1)]).unwrap();
        let before = names.names().clone();
        names.add(&[hash(2)]).unwrap();
        assert!(before.may_have(hash(1)) && !before.may_have(hash(2)));
        assert!([1, 2].iter().all(|&number| names.names().may_have(hash(number))));
        assert!(names.has_room(62) && !names.has_room(63));
        assert!(ChangingFilter::new(100).unwrap().has_room(200));
    }
}
