//! How much may be spent on the debug information of one image.
//!
//! A small file can state much: compressed sections of zeroes, tables that thousands of units share,
//! lists that thousands of entries refer to. Code that unpacks or reads takes the cost from a [`Budget`] first.
//! The budget grows with the size of the file, up to [`Limits`]: files of compilers and linkers never reach it,
//! and nothing costs more than a multiple of the bytes that were received. It never measures time.

#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::base::limits::Limits;

/// How many bytes may be unpacked for each byte of the file, and in addition.
const UNPACKED_PER_BYTE: u64 = 16;
const UNPACKED_BASE: u64 = 16 << 20;
/// The limit of one section: for each of its bytes, and at least. DWARF is compressed to a fifth.
const SECTION_PER_BYTE: u64 = 64;
const MIN_SECTION: u64 = 256 << 10;
/// How many steps may be taken for each byte of the file, and in addition.
const STEPS_PER_BYTE: u64 = 8;
const STEPS_BASE: u64 = 16_000_000;

/// The most that one reading of an image's debug information may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    unpacked: u64,
    steps: u64,
}

impl Allowance {
    /// For a file of `len` bytes.
    pub fn new(most: Limits, len: usize) -> Allowance {
        let fair = |for_each: u64, besides: u64| {
            for_each.saturating_mul(len as u64).saturating_add(besides)
        };
        Allowance {
            unpacked: fair(UNPACKED_PER_BYTE, UNPACKED_BASE).min(most.unpacked_debug_info),
            steps: fair(STEPS_PER_BYTE, STEPS_BASE).min(most.debug_info_steps),
        }
    }

    pub fn budget(self) -> Budget {
        let Allowance { unpacked, steps } = self;
        Budget { allowance: self, unpacked: Cell::new(unpacked), steps: Cell::new(steps) }
    }
}

/// What is left of an [`Allowance`].
#[derive(Debug)]
pub struct Budget {
    allowance: Allowance,
    unpacked: Cell<u64>,
    steps: Cell<u64>,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// The stated size of one section is too large.
    #[error("unpacked it has {size} bytes, and {limit} are allowed for one of its size")]
    Section { size: u64, limit: u64 },
    /// The stated sizes of all sections are too large together.
    #[error(
        "unpacked, the debug sections have more than {limit} bytes (Limits::unpacked_debug_info, \
         which small files get a part of)"
    )]
    Unpacked { limit: u64 },
    /// They take too long to read.
    #[error(
        "it takes more than {limit} steps to read (Limits::debug_info_steps, which small files get \
         a part of)"
    )]
    Steps { limit: u64 },
}

impl Budget {
    /// Pays for unpacking a section of `packed` bytes to the `size` that it states.
    pub fn unpack(&self, packed: usize, size: u64) -> Result<(), OverBudget> {
        let limit = (packed as u64).saturating_mul(SECTION_PER_BYTE).max(MIN_SECTION);
        if size > limit {
            return Err(OverBudget::Section { size, limit });
        }
        let left = self.unpacked.get().checked_sub(size);
        self.unpacked.set(left.ok_or(OverBudget::Unpacked { limit: self.allowance.unpacked })?);
        Ok(())
    }

    /// Pays for this many steps.
    #[inline]
    pub fn step(&self, steps: usize) -> Result<(), OverBudget> {
        match self.steps.get().checked_sub(steps as u64) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => Err(OverBudget::Steps { limit: self.allowance.steps }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_get_less_than_the_limits() {
        let small = Allowance::new(Limits::default(), 1 << 20);
        assert_eq!(small, Allowance { unpacked: 32 << 20, steps: 8 * (1 << 20) + 16_000_000 });
        let large = Allowance::new(Limits::default(), usize::MAX);
        assert_eq!(large, Allowance { unpacked: 1 << 30, steps: 1_000_000_000 });
    }

    #[test]
    fn what_is_taken_is_gone() {
        let budget = Allowance { unpacked: 1 << 20, steps: 3 }.budget();
        let too_large = OverBudget::Section { size: (256 << 10) + 1, limit: 256 << 10 };
        assert_eq!(budget.unpack(4096, (256 << 10) + 1), Err(too_large));
        assert_eq!(budget.unpack(1 << 14, 1 << 20), Ok(()));
        assert_eq!(budget.unpack(1, 1), Err(OverBudget::Unpacked { limit: 1 << 20 }));
        assert_eq!(budget.step(3), Ok(()));
        assert_eq!(budget.step(1), Err(OverBudget::Steps { limit: 3 }));
    }
}
