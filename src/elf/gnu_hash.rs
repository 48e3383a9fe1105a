//! The hash function and the hash table of `DT_GNU_HASH`.
//!
//! A table is a header, a Bloom filter, buckets, and chains. Symbols in it are sorted by bucket, so a
//! chain is a run of consecutive symbols; the lowest bit of a stored hash marks the last of a run. The
//! bytes are hostile: nothing is indexed unchecked, and a chain ends with the table.
//!
//! This file compares no names. `elf/lookup.rs` does.
//!
//! Sources: binutils `bfd/elflink.c`, `elf_gnu_hash_process_symidx`; glibc `elf/dl-lookup.c`,
//! `elf/dl-setup_hash.c`.

#![forbid(unsafe_code)]

use crate::elf::read::u32_at;

/// The contents of a table.
#[derive(Clone, Copy)]
pub(super) struct GnuHashTable<'a> {
    /// The index of the first symbol in the table.
    symoffset: u32,
    bloom_shift: u32,
    /// Its length is a power of two.
    bloom: &'a [[u8; 8]],
    /// Not empty.
    buckets: &'a [[u8; 4]],
    /// From the symbol `symoffset` on: a hash for each symbol.
    chain: &'a [[u8; 4]],
}

impl<'a> GnuHashTable<'a> {
    /// The table at the start of `bytes`. Its header is `nbuckets, symoffset, bloom_size,
    /// bloom_shift`.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<GnuHashTable<'a>> {
        let nbuckets = u32_at(bytes, 0)? as usize;
        let symoffset = u32_at(bytes, 4)?;
        let bloom_size = u32_at(bytes, 8)? as usize;
        let bloom_shift = u32_at(bytes, 12)?;
        if nbuckets == 0 || !bloom_size.is_power_of_two() {
            return None;
        }
        let (bloom, rest) = bytes.get(16..)?.split_at_checked(bloom_size.checked_mul(8)?)?;
        let (buckets, chain) = rest.split_at_checked(nbuckets.checked_mul(4)?)?;
        let (bloom, _) = bloom.as_chunks();
        let ((buckets, _), (chain, _)) = (buckets.as_chunks(), chain.as_chunks());
        Some(GnuHashTable { symoffset, bloom_shift, bloom, buckets, chain })
    }

    /// The symbols whose names may have this hash: the index of the first, and the chain from there on.
    /// `None` if the table has none.
    #[inline]
    pub(super) fn chain_of(&self, hash: u32) -> Option<(u32, &'a [[u8; 4]])> {
        let index = (hash as usize / 64) & self.bloom.len().wrapping_sub(1);
        let word = u64::from_le_bytes(*self.bloom.get(index)?);
        let bits = 1u64 << (hash % 64) | 1u64 << (hash.wrapping_shr(self.bloom_shift) % 64);
        if word & bits != bits {
            return None;
        }
        // Dividing takes a fraction of the time in 32 bits.
        let bucket = self.buckets.get(hash.checked_rem(self.buckets.len() as u32)? as usize)?;
        // Indices below `symoffset` (an empty bucket holds 0) are not in the table.
        let first = u32::from_le_bytes(*bucket);
        Some((first, self.chain.get(first.checked_sub(self.symoffset)? as usize..)?))
    }

    /// The stored hash of the symbol of this index; its lowest bit is not the name's.
    #[inline(always)]
    pub(super) fn stored_hash(&self, index: u32) -> Option<u32> {
        let link = self.chain.get(index.checked_sub(self.symoffset)? as usize)?;
        Some(u32::from_le_bytes(*link))
    }

    /// Whether no symbol is in the table.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| *bucket == [0; 4])
    }

    /// The index of the first symbol in the table.
    pub(super) fn symoffset(&self) -> u32 {
        self.symoffset
    }

    /// The number of symbols by this table, 0 if it does not give one; `None` if it contradicts itself.
    pub(super) fn checked_count(&self) -> Option<u32> {
        let (mut before_first, mut last) = (u32::MAX, 0);
        for bucket in self.buckets {
            let bucket = u32::from_le_bytes(*bucket);
            // An empty one holds 0.
            before_first = before_first.min(bucket.wrapping_sub(1));
            last = last.max(bucket);
        }
        // GNU ld writes such a table for an image that exports nothing, whatever it imports.
        if last == 0 {
            return Some(0);
        }
        if before_first.wrapping_add(1) < self.symoffset {
            return None;
        }
        let links = self.chain.get(last.checked_sub(self.symoffset)? as usize..)?.iter();
        let is_end = |link: &[u8; 4]| u32::from_le_bytes(*link) & 1 != 0;
        let end = links.enumerate().find(|(_, link)| is_end(link)).map(|(index, _)| index)?;
        last.checked_add(u32::try_from(end).ok()?)?.checked_add(1)
    }

    /// One more than the highest index that a lookup can reach.
    pub(super) fn symbol_count(&self) -> u32 {
        let last_bucket = self.buckets.iter().map(|it| u32::from_le_bytes(*it)).max().unwrap_or(0);
        let Some(first) = last_bucket.checked_sub(self.symoffset) else {
            return self.symoffset;
        };
        let links = self.chain.get(first as usize..).unwrap_or_default().iter();
        let links = links.take_while(|entry| u32::from_le_bytes(**entry) & 1 == 0).count();
        last_bucket.saturating_add(links as u32).saturating_add(1)
    }
}

// The hash of a name is Bernstein's: from 5381 on, times 33, plus the next byte. Each step has to wait for the one
// before, so eight bytes are taken at a time.

/// The hash of no bytes.
const START: u32 = 5381;

/// The powers of 33: what so many further bytes multiply a hash by.
const POWERS: [u32; 9] = [
    1,
    33,
    33u32.wrapping_pow(2),
    33u32.wrapping_pow(3),
    33u32.wrapping_pow(4),
    33u32.wrapping_pow(5),
    33u32.wrapping_pow(6),
    33u32.wrapping_pow(7),
    33u32.wrapping_pow(8),
];

/// The hash after eight more bytes, the first of which is the lowest of the word.
#[inline(always)]
fn add_eight(hash: u32, word: u64) -> u32 {
    const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    const HALVES: u64 = 0x0000_ffff_0000_ffff;
    let [_, once, twice, _, four_times, .., eight_times] = POWERS;
    // Neighbours are added in all parts of the word at once. Each sum fits into the space of both: it is at most
    // 255 * 34, then times 1,090.
    let pairs = (word & BYTES).wrapping_mul(u64::from(once)).wrapping_add((word >> 8) & BYTES);
    let fours = (pairs & HALVES).wrapping_mul(u64::from(twice));
    let fours = fours.wrapping_add((pairs >> 16) & HALVES);
    let eight = (fours as u32).wrapping_mul(four_times).wrapping_add((fours >> 32) as u32);
    hash.wrapping_mul(eight_times).wrapping_add(eight)
}

fn add_one(hash: u32, byte: u8) -> u32 {
    hash.wrapping_mul(33).wrapping_add(u32::from(byte))
}

/// The hash of a name.
pub(super) fn gnu_hash(name: &[u8]) -> u32 {
    let (eights, rest) = name.as_chunks();
    let hash = eights.iter().fold(START, |hash, it| add_eight(hash, u64::from_le_bytes(*it)));
    rest.iter().fold(hash, |hash, &byte| add_one(hash, byte))
}

/// The length of the name at the start of `bytes`, up to its NUL, and its hash: both are found in one pass, since names are
/// short.
#[inline]
pub(super) fn gnu_hash_of_terminated(bytes: &[u8]) -> Option<(usize, u32)> {
    const LOWEST: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    let (eights, rest) = bytes.as_chunks();
    let (mut hash, mut len) = (START, 0usize);
    for eight in eights {
        let word = u64::from_le_bytes(*eight);
        // The lowest bit that is set is that of the first NUL: nothing was borrowed before it.
        let nuls = word.wrapping_sub(LOWEST) & !word & HIGHEST;
        if nuls == 0 {
            hash = add_eight(hash, word);
            len = len.wrapping_add(8);
            continue;
        }
        // Zeros come before the bytes that are left: they add nothing.
        let left = nuls.trailing_zeros() / 8;
        let word = word.checked_shl(64u32.wrapping_sub(8u32.wrapping_mul(left))).unwrap_or(0);
        let power = POWERS.get(left as usize)?;
        let hash = hash.wrapping_mul(*power).wrapping_add(add_eight(0, word));
        return Some((len.wrapping_add(left as usize), hash));
    }
    let left = rest.iter().position(|&byte| byte == 0)?;
    let hash = rest.iter().take(left).fold(hash, |hash, &byte| add_one(hash, byte));
    Some((len.wrapping_add(left), hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with one bucket, whose chain starts at symbol `symoffset` and has these links.
    fn table(symoffset: u32, bucket: u32, links: &[u32]) -> Vec<u8> {
        let header = [1, symoffset, 1, 6];
        let words = header.into_iter().chain([u32::MAX, u32::MAX, bucket]).chain(links.to_vec());
        words.flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn hashes_are_those_of_binutils() {
        assert_eq!(gnu_hash(b""), 5381);
        assert_eq!(gnu_hash(b"printf"), 0x156b2bb8);
        let one_by_one = |name: &[u8]| {
            name.iter()
                .fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
        };
        let bytes: Vec<u8> = (0..99).map(|at: u8| if at < 33 { 0xff } else { at }).collect();
        for (start, len) in (0..40).flat_map(|start| (0..40).map(move |len| (start, len))) {
            let name = &bytes[start..start + len];
            assert_eq!(gnu_hash(name), one_by_one(name));
            for behind in [&[][..], &[0], &[1; 20], &[0, 0xff, 0, 1, 0, 0, 0, 0, 0]] {
                let terminated = [name, &[0], behind].concat();
                let found = gnu_hash_of_terminated(&terminated);
                assert_eq!(found, Some((len, one_by_one(name))), "{terminated:?}");
            }
            assert_eq!(gnu_hash_of_terminated(name), None);
        }
    }

    #[test]
    fn a_table_larger_than_its_bytes_is_refused() {
        let mut bytes = table(1, 1, &[1]);
        assert!(GnuHashTable::parse(&bytes).is_some());
        bytes[11] = 0x80;
        assert!(GnuHashTable::parse(&bytes).is_none(), "a filter of 2 GiB words");
        bytes[11] = 0;
        bytes[8] = 3;
        assert!(GnuHashTable::parse(&bytes).is_none(), "a filter of 3 words");
        bytes[8] = 1;
        bytes[3] = 0xff;
        assert!(GnuHashTable::parse(&bytes).is_none(), "too many buckets");
        assert!(GnuHashTable::parse(&table(1, 1, &[1])[..15]).is_none());
    }

    #[test]
    fn the_count_ends_with_the_last_chain() {
        let bytes = table(2, 2, &[8, 10, 13, 8]);
        let whole = GnuHashTable::parse(&bytes).unwrap();
        assert_eq!((whole.checked_count(), whole.symbol_count()), (Some(5), 5));
        assert_eq!((whole.stored_hash(3), whole.stored_hash(1)), (Some(10), None));
        let (first, chain) = whole.chain_of(12).unwrap();
        assert_eq!((first, chain.len()), (2, 4));

        let bytes = table(2, 0, &[]);
        assert_eq!(GnuHashTable::parse(&bytes).unwrap().checked_count(), Some(0));
        let bytes = table(2, 1, &[1]);
        let before = GnuHashTable::parse(&bytes).unwrap();
        assert_eq!(before.checked_count(), None, "a bucket before `symoffset`");
        assert!(before.chain_of(12).is_none());
        let bytes = table(2, 2, &[8, 10]);
        assert_eq!(GnuHashTable::parse(&bytes).unwrap().checked_count(), None, "no end of a chain");
    }
}
