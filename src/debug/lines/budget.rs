//! The budget of work and memory for reading one image's debug information.

#![forbid(unsafe_code)]

use crate::base::fallible::{OutOfMemory, TryGrow, require_memory};

/// The most overlapping functions or line sequences that one query checks. Those of compilers do not
/// overlap.
pub(super) const MAX_OVERLAPS: usize = 32;

/// Why reading stops early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes are malformed, or an encoding that is not supported.
    Malformed,
    /// The budget, or the share of it for this part, is spent; or memory ran out.
    Spent,
}

impl From<gimli::Error> for Stop {
    fn from(_: gimli::Error) -> Stop {
        Stop::Malformed
    }
}

pub(super) type Result<T> = std::result::Result<T, Stop>;

/// The work and the memory that reading an image's debug information may still take.
///
/// The budget belongs to the image, not to a query. Results are kept, so the queries together read a file
/// that a compiler wrote at most twice. The budget is several times that, and grows with the file: only
/// bytes that were made to be slow exceed it. Each part (a unit, a line program, a name) gets at most half
/// of what is left ([`Budget::share`]), so that a slow part does not prevent reading the others.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u64,
    room: u64,
    is_spent: bool,
    is_without_memory: bool,
}

impl Budget {
    /// A step reads about one attribute, one row, or one entry of a list, in about 5 ns.
    const STEPS: u64 = 12 << 20;
    const STEPS_PER_BYTE: u64 = 16;
    const ROOM: u64 = 32 << 20;
    const ROOM_PER_BYTE: u64 = 4;

    /// For debug sections that take `stored` bytes in the file.
    pub(super) fn new(stored: u64) -> Budget {
        Budget {
            steps: stored.saturating_mul(Budget::STEPS_PER_BYTE).saturating_add(Budget::STEPS),
            room: stored.saturating_mul(Budget::ROOM_PER_BYTE).saturating_add(Budget::ROOM),
            is_spent: false,
            is_without_memory: false,
        }
    }

    /// Calls `read` with a budget of half of what is left, and takes back what it did not spend.
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

    /// Charges for work.
    pub(super) fn work(&mut self, steps: u64) -> Result<()> {
        match self.steps.checked_sub(steps) {
            Some(left) => self.steps = left,
            None => return self.spend(),
        }
        Ok(())
    }

    /// Charges for the memory of a value, and appends it.
    pub(super) fn push<T>(&mut self, list: &mut Vec<T>, value: T) -> Result<()> {
        self.keep::<T>(1)?;
        list.try_push(value).map_err(|error| self.without_memory(error))
    }

    /// Makes sure that small allocations, which cannot fail with an error, will succeed.
    pub(super) fn require_memory(&mut self) -> Result<()> {
        require_memory().map_err(|error| self.without_memory(error))
    }

    /// Notes that memory ran out. Reading stops, and results may be incomplete.
    pub(super) fn without_memory(&mut self, _: OutOfMemory) -> Stop {
        self.is_without_memory = true;
        Stop::Spent
    }

    /// Whether memory ran out.
    pub(super) fn is_without_memory(&self) -> bool {
        self.is_without_memory
    }

    /// Charges for the memory of `count` values.
    pub(super) fn keep<T>(&mut self, count: usize) -> Result<()> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        match self.room.checked_sub(bytes) {
            Some(left) => self.room = left,
            None => return self.spend(),
        }
        Ok(())
    }

    /// Whether the budget, or a share of it, was spent.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    fn spend(&mut self) -> Result<()> {
        (self.steps, self.room, self.is_spent) = (0, 0, true);
        Err(Stop::Spent)
    }
}
