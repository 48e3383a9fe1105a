//! Relocation entries: plain ones (gABI `Elf64_Rela`), and Android's packed ones
//! (`DT_ANDROID_RELA`, "APS2"), which lld writes with `--pack-dyn-relocs=android`.
//!
//! The packed form is a stream of signed LEB128 numbers: the number of relocations, the first offset,
//! then groups. By its flags, a group states once the values that its members share (the distance
//! between offsets, `r_info`, the addend). A few bytes can stand for millions of relocations: callers
//! must bound the number.
//!
//! This file gives no meaning to a type. `arch/` does.
//!
//! Sources: gABI "Relocation"; bionic `linker_reloc_iterators.h`, LLVM
//! `AndroidPackedRelocationSection`.

#![forbid(unsafe_code)]

use crate::base::addr::Vaddr;

/// Size of one `Elf64_Rela`.
pub(crate) const RELA_SIZE: u64 = 24;

/// One `Elf64_Rela`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rela {
    pub r_offset: Vaddr,
    pub symbol: u32,
    pub r_type: u32,
    pub r_addend: i64,
}

impl Rela {
    /// The entries of a table. Bytes behind the last whole entry are ignored.
    #[inline]
    pub(crate) fn entries(table: &[u8]) -> impl Iterator<Item = Rela> + '_ {
        table.as_chunks::<{ RELA_SIZE as usize }>().0.iter().map(|entry| {
            // An entry is three words.
            let &[r_offset, r_info, r_addend] = entry.as_chunks::<8>().0 else {
                return Rela::new(Vaddr(0), 0, 0);
            };
            let [r_offset, r_info, r_addend] = [r_offset, r_info, r_addend].map(u64::from_le_bytes);
            Rela::new(Vaddr(r_offset), r_info, r_addend as i64)
        })
    }

    /// Whether all entries of the table have this type and name no symbol. Usually long runs of a table do.
    #[inline]
    pub(crate) fn all_are(table: &[u8], r_type: u32) -> bool {
        let differing = table.as_chunks::<{ RELA_SIZE as usize }>().0.iter().map(|entry| {
            let r_info =
                entry.as_chunks::<8>().0.get(1).map_or(0, |word| u64::from_le_bytes(*word));
            r_info ^ u64::from(r_type)
        });
        // Without a branch for each entry.
        differing.fold(0, |all, one| all | one) == 0
    }

    /// As an entry of a table.
    pub(crate) fn to_bytes(self) -> [u8; RELA_SIZE as usize] {
        let r_info = Rela::info(self.symbol, self.r_type);
        let mut entry = [0; RELA_SIZE as usize];
        let words = [self.r_offset.0, r_info, self.r_addend as u64];
        for (bytes, word) in entry.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        entry
    }

    /// `r_info`, of which the symbol is the upper half.
    #[inline]
    pub(crate) fn info(symbol: u32, r_type: u32) -> u64 {
        u64::from(symbol) << 32 | u64::from(r_type)
    }

    #[inline]
    pub(crate) fn new(r_offset: Vaddr, r_info: u64, r_addend: i64) -> Rela {
        Rela { r_offset, symbol: (r_info >> 32) as u32, r_type: r_info as u32, r_addend }
    }
}

const MAGIC: &[u8] = b"APS2";

// The flags of a group: what its members share.
const GROUPED_BY_INFO: i64 = 1;
const GROUPED_BY_OFFSET_DELTA: i64 = 2;
const GROUPED_BY_ADDEND: i64 = 4;
/// The members have addends.
const GROUP_HAS_ADDEND: i64 = 8;

/// The relocations of a packed table. A malformed table gives one `Err`, and then ends.
pub(crate) struct Packed<'a> {
    bytes: &'a [u8],
    /// The number of relocations not yet read.
    left: u64,
    /// The number of these in the current group.
    in_group: u64,
    flags: i64,
    offset_delta: i64,
    offset: u64,
    info: u64,
    addend: i64,
}

/// The table contradicts itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Packed<'a> {
    /// The table in `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Packed<'a>, Malformed> {
        let bytes = bytes.strip_prefix(MAGIC).ok_or(Malformed)?;
        let mut packed = Packed {
            bytes,
            left: 0,
            in_group: 0,
            flags: 0,
            offset_delta: 0,
            offset: 0,
            info: 0,
            addend: 0,
        };
        packed.left = u64::try_from(packed.number()?).map_err(|_| Malformed)?;
        packed.offset = packed.number()? as u64;
        Ok(packed)
    }

    /// The number of relocations that the table states.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }

    /// The next signed LEB128 number.
    fn number(&mut self) -> Result<i64, Malformed> {
        let mut value = 0u64;
        for shift in (0u32..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(Malformed)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let used = shift.saturating_add(7);
                let sign = if byte & 0x40 != 0 && used < 64 { u64::MAX << used } else { 0 };
                return Ok((value | sign) as i64);
            }
        }
        Err(Malformed)
    }

    fn has(&self, flag: i64) -> bool {
        self.flags & flag != 0
    }

    fn begin_group(&mut self) -> Result<(), Malformed> {
        self.in_group = u64::try_from(self.number()?).map_err(|_| Malformed)?;
        if self.in_group == 0 || self.in_group > self.left {
            return Err(Malformed);
        }
        self.flags = self.number()?;
        if self.has(GROUPED_BY_OFFSET_DELTA) {
            self.offset_delta = self.number()?;
        }
        if self.has(GROUPED_BY_INFO) {
            self.info = self.number()? as u64;
        }
        if !self.has(GROUP_HAS_ADDEND) {
            self.addend = 0;
        } else if self.has(GROUPED_BY_ADDEND) {
            self.addend = self.addend.wrapping_add(self.number()?);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Rela, Malformed> {
        if self.in_group == 0 {
            self.begin_group()?;
        }
        let delta =
            if self.has(GROUPED_BY_OFFSET_DELTA) { self.offset_delta } else { self.number()? };
        self.offset = self.offset.wrapping_add_signed(delta);
        if !self.has(GROUPED_BY_INFO) {
            self.info = self.number()? as u64;
        }
        if self.has(GROUP_HAS_ADDEND) && !self.has(GROUPED_BY_ADDEND) {
            self.addend = self.addend.wrapping_add(self.number()?);
        }
        self.in_group = self.in_group.saturating_sub(1);
        Ok(Rela::new(Vaddr(self.offset), self.info, self.addend))
    }
}

impl Iterator for Packed<'_> {
    type Item = Result<Rela, Malformed>;

    fn next(&mut self) -> Option<Result<Rela, Malformed>> {
        if self.left == 0 {
            return None;
        }
        let read = self.read();
        self.left = if read.is_ok() { self.left.saturating_sub(1) } else { 0 };
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<Rela>, Malformed> {
        Packed::new(&[MAGIC, bytes].concat())?.collect()
    }

    #[test]
    fn members_of_a_group_share_the_values_that_its_flags_name() {
        // 3 relocations from 0x100: a group of two 8 apart with r_info 8 and addends 5, 5 - 2;
        // then one alone with everything stated and no addend.
        let bytes = [
            3, 0x80, 2, // count, first offset
            2, 11, 8, 8, // group of 2: info and delta shared, with addends
            5, 0x7e, // +5, -2
            1, 0, 0x10, 7, // group of 1: delta 16, info 7
        ];
        let relas = decode(&bytes).unwrap();
        let decoded: Vec<_> =
            relas.iter().map(|it| (it.r_offset.0, it.r_type, it.r_addend)).collect();
        assert_eq!(decoded, [(0x108, 8, 5), (0x110, 8, 3), (0x120, 7, 0)]);
    }

    #[test]
    fn a_table_that_ends_too_early_or_counts_wrong_is_malformed() {
        for bytes in [&[][..], &[3], &[2, 0, 3, 0], &[2, 0, 0, 0], &[1, 0, 1, 0], &[0x80; 11]] {
            assert_eq!(decode(bytes), Err(Malformed), "{bytes:?}");
        }
        assert!(Packed::new(b"APS1").is_err());
    }
}
