//! Which names are surely not among those that some libraries define.
//!
//! Most names that an image refers to are its own, and nobody else defines them; to find that out,
//! every library of the process would have to be searched, for each. Hash tables hold the hashes of
//! all names, so a filter over those (a Bloom filter of two functions) is made by reading them once
//! and tells of most names, in a few instructions, that no library has them. It never errs the other
//! way.
//!
//! The hash is the GNU one without its lowest bit, as tables hold it
//! ([`SymbolTable::gnu_hash_31`](crate::elf::symbol::SymbolTable::gnu_hash_31)).

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::base::fallible::try_filled;

/// Names, by their hashes.
#[derive(Debug)]
pub(crate) struct NameFilter {
    /// A bit for each hash, modulo their number, which is a power of two.
    bits: Vec<u64>,
}

impl NameFilter {
    /// Those with these hashes.
    pub(crate) fn new(hashes: &[u32]) -> Result<NameFilter, Error> {
        // At least 32 bits for each: less than 1 of 100 other names passes.
        let bits = try_filled(0, ((hashes.len() / 2).saturating_add(1)).next_power_of_two())?;
        let mut names = NameFilter { bits };
        for &hash in hashes {
            for (word, bit) in names.places(hash) {
                if let Some(word) = names.bits.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        Ok(names)
    }

    /// Of no names.
    pub(crate) fn none() -> NameFilter {
        NameFilter { bits: vec![0] }
    }

    #[inline(always)]
    fn places(&self, hash: u32) -> [(usize, u64); 2] {
        let place =
            |hash: u32| ((hash as usize / 64) & self.bits.len().wrapping_sub(1), 1 << (hash % 64));
        [place(hash), place(hash.wrapping_mul(0x9e37_79b1).rotate_left(16))]
    }

    /// Whether a name with this hash may be among them.
    #[inline(always)]
    pub(crate) fn may_have(&self, hash: u32) -> bool {
        let [(first, bit), (second, other_bit)] = self.places(hash);
        let is_set = |word: usize, bit: u64| self.bits.get(word).is_some_and(|it| it & bit != 0);
        is_set(first, bit) && is_set(second, other_bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_missed_and_most_others_are_told_apart() {
        let hash = |number: u32| number.wrapping_mul(0x9e37_79b9) >> 1;
        let names = NameFilter::new(&(0..10_000).map(hash).collect::<Vec<_>>()).unwrap();
        assert!((0..10_000).all(|number| names.may_have(hash(number))));
        let wrong = (10_000..110_000).filter(|&number| names.may_have(hash(number))).count();
        assert!(wrong < 1_000, "{wrong} of 100,000");
        let none = NameFilter::new(&[]).unwrap();
        assert!(!(0..1000).any(|number| none.may_have(hash(number))));
    }
}
