//! The hash function and the hash table of `DT_HASH`. Version names use the same function.
//!
//! A table is a header, buckets, and a chain entry for each symbol: the index of the next symbol in
//! its chain, 0 at the end. The bytes are hostile: nothing is indexed unchecked, and a chain may be a
//! circle, so callers make at most [`SysvHashTable::len`] steps.
//!
//! Source: gABI "Hash Table".

#![forbid(unsafe_code)]

use crate::elf::read::u32_at;

/// The contents of a table.
#[derive(Clone, Copy)]
pub(super) struct SysvHashTable<'a> {
    /// Not empty.
    buckets: &'a [[u8; 4]],
    chain: &'a [[u8; 4]],
}

impl<'a> SysvHashTable<'a> {
    /// The table at the start of `bytes`. Its header is `nbucket, nchain`.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<SysvHashTable<'a>> {
        let nbucket = u32_at(bytes, 0)? as usize;
        let nchain = u32_at(bytes, 4)? as usize;
        if nbucket == 0 {
            return None;
        }
        let (buckets, rest) = bytes.get(8..)?.split_at_checked(nbucket.checked_mul(4)?)?;
        let chain = rest.get(..nchain.checked_mul(4)?)?;
        Some(SysvHashTable { buckets: buckets.as_chunks().0, chain: chain.as_chunks().0 })
    }

    /// The first symbol in the chain of this hash, 0 if there is none.
    pub(super) fn first(&self, hash: u32) -> Option<u32> {
        let bucket = (hash as usize).checked_rem(self.buckets.len())?;
        Some(u32::from_le_bytes(*self.buckets.get(bucket)?))
    }

    /// The symbol behind `index` in its chain, 0 if there is none.
    pub(super) fn next(&self, index: u32) -> Option<u32> {
        Some(u32::from_le_bytes(*self.chain.get(index as usize)?))
    }

    /// The number of symbols by this table.
    pub(super) fn len(&self) -> u32 {
        self.chain.len() as u32
    }

    /// The number of symbols by this table; `None` if it contradicts itself.
    pub(super) fn checked_count(&self) -> Option<u32> {
        let count = u32::try_from(self.chain.len()).ok().filter(|&count| count > 0)?;
        // Each symbol is in one chain: more steps than symbols are a circle.
        let mut steps_left = count;
        for bucket in self.buckets {
            let mut index = u32::from_le_bytes(*bucket);
            while index != 0 {
                steps_left = steps_left.checked_sub(1)?;
                index = self.next(index)?;
            }
        }
        Some(count)
    }
}

/// The hash of a name.
pub(super) fn sysv_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, &byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let top = hash & 0xf000_0000;
        (hash ^ top >> 24) & !top
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn hashes_are_those_of_glibc() {
        assert_eq!(sysv_hash(b"printf"), 0x077905a6);
        assert_eq!(sysv_hash(b"GLIBC_2.2.5"), 0x09691a75);
    }

    #[test]
    fn a_table_larger_than_its_bytes_is_refused() {
        assert!(SysvHashTable::parse(&bytes(&[1, 9, 0])).is_none());
        assert!(SysvHashTable::parse(&bytes(&[u32::MAX, 0, 0])).is_none());
        assert!(SysvHashTable::parse(&bytes(&[0, 0, 0])).is_none(), "no buckets");
        assert!(SysvHashTable::parse(&[1, 0, 0, 0, 0, 0, 0]).is_none());
    }

    #[test]
    fn a_circle_and_a_link_that_leads_out_are_contradictions() {
        // Two buckets; symbols 1 and 2 are in the first chain, 3 is in the second.
        let good = bytes(&[2, 4, 1, 3, 0, 2, 0, 0]);
        let table = SysvHashTable::parse(&good).unwrap();
        assert_eq!(table.checked_count(), Some(4));
        assert_eq!((table.first(4), table.next(1), table.next(2)), (Some(1), Some(2), Some(0)));
        assert_eq!((table.first(7), table.next(4)), (Some(3), None));
        let circle = bytes(&[2, 4, 1, 3, 0, 2, 1, 0]);
        assert_eq!(SysvHashTable::parse(&circle).unwrap().checked_count(), None);
        let out = bytes(&[2, 4, 1, 3, 0, 4, 0, 0]);
        assert_eq!(SysvHashTable::parse(&out).unwrap().checked_count(), None);
        let empty = bytes(&[1, 0, 0]);
        assert_eq!(SysvHashTable::parse(&empty).unwrap().checked_count(), None);
    }
}
