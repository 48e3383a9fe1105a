//! How much work, and how much memory, the reading of one image's debug information may take.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory};

/// Functions, or sequences of lines, that are looked at for one address. Compilers' do not overlap.
pub(super) const MAX_OVERLAPS: usize = 32;

/// Why reading ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes are no DWARF, or none that is known here.
    Malformed,
    /// The budget, or the part that reading this may take, is spent, or there is no memory.
    Spent,
}

impl From<gimli::Error> for Stop {
    fn from(_: gimli::Error) -> Stop {
        Stop::Malformed
    }
}

pub(super) type Result<T> = std::result::Result<T, Stop>;

/// What is left of the work and the memory that an image's debug information may take.
///
/// It covers the image and not a call: everything that costs is kept, so that a file that compilers
/// wrote is read at most twice, whatever is asked. The budget is several times that, and grows with
/// the file. Only bytes that were made to be slow exceed it. No one part of them takes more than half of
/// what is left ([`Budget::share`]), so that the rest can be read beside it.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u64,
    room: u64,
    is_spent: bool,
    is_without_memory: bool,
}

impl Budget {
    /// A step is about one attribute, row, or entry of a list; some 5 ns.
    const STEPS: u64 = 12 << 20;
    const STEPS_FOR_BYTE: u64 = 16;
    const ROOM: u64 = 32 << 20;
    const ROOM_FOR_BYTE: u64 = 4;

    /// For debug sections that take this much in the file.
    pub(super) fn new(stored: u64) -> Budget {
        Budget {
            steps: stored.saturating_mul(Budget::STEPS_FOR_BYTE).saturating_add(Budget::STEPS),
            room: stored.saturating_mul(Budget::ROOM_FOR_BYTE).saturating_add(Budget::ROOM),
            is_spent: false,
            is_without_memory: false,
        }
    }

    /// Has `read` read with half of what is left: what it finds too costly leaves the other half to
    /// what comes next.
    pub(super) fn share<T>(&mut self, read: impl FnOnce(&mut Budget) -> T) -> T {
        let (steps, room) = (self.steps / 2, self.room / 2);
        let mut half = Budget { steps, room, is_spent: false, is_without_memory: false };
        let result = read(&mut half);
        self.steps = self.steps.saturating_sub(steps).saturating_add(half.steps);
        self.room = self.room.saturating_sub(room).saturating_add(half.room);
        self.is_spent |= half.is_spent;
        self.is_without_memory |= half.is_without_memory;
        result
    }

    /// Takes this much work off.
    pub(super) fn work(&mut self, steps: u64) -> Result<()> {
        match self.steps.checked_sub(steps) {
            Some(left) => self.steps = left,
            None => return self.spend(),
        }
        Ok(())
    }

    /// Keeps one more value.
    pub(super) fn push<T>(&mut self, list: &mut Vec<T>, value: T) -> Result<()> {
        self.keep::<T>(1)?;
        list.try_push(value).map_err(|error| self.without_memory(error))
    }

    /// Sees to it that there is memory for what is small.
    pub(super) fn small(&mut self) -> Result<()> {
        require_memory().map_err(|error| self.without_memory(error))
    }

    /// Notes that there is no memory: reading ends, and what was read is not to be relied on.
    pub(super) fn without_memory(&mut self, _: Error) -> Stop {
        self.is_without_memory = true;
        Stop::Spent
    }

    /// Whether there was no memory for something.
    pub(super) fn is_without_memory(&self) -> bool {
        self.is_without_memory
    }

    /// Takes room for this many values off, which will be kept.
    pub(super) fn keep<T>(&mut self, count: usize) -> Result<()> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        match self.room.checked_sub(bytes) {
            Some(left) => self.room = left,
            None => return self.spend(),
        }
        Ok(())
    }

    /// Whether there was more to read than there was budget for.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    fn spend(&mut self) -> Result<()> {
        (self.steps, self.room, self.is_spent) = (0, 0, true);
        Err(Stop::Spent)
    }
}
