//! Why an image has no symfile, or one without DWARF.
//!
//! It never decides what becomes of the image then: a caller logs the reason, and debuggers see less.

#![forbid(unsafe_code)]

use super::compression::NotInflated;
use super::headers::NotElf;
use super::storage::StorageError;
use crate::base::addr::FileOffset;
use crate::base::fallible::OutOfMemory;
use crate::dwarf::budget::OverBudget;
use crate::dwarf::skeleton::SkeletonError;

/// Why there is no symfile.
#[derive(Debug, thiserror::Error)]
pub enum SymfileError {
    /// The bytes are not what they should be.
    #[error("malformed {what} at offset {at} of the image")]
    Malformed {
        /// What is malformed.
        what: &'static str,
        /// Where it is.
        at: FileOffset,
    },
    /// A debug section cannot be unpacked.
    #[error("{section}: {error}")]
    Compressed {
        /// Its name.
        section: String,
        /// Why.
        error: NotInflated,
    },
    /// Only from an image that is nearly as large as the address space.
    #[error("a symfile for an image of {len} bytes would be too large")]
    TooLarge {
        /// The image's length.
        len: usize,
    },
    /// The system has no memory to give.
    #[error("no memory for a symfile: {0}")]
    Memory(#[from] OutOfMemory),
    /// The storage has none.
    #[error("no memory for a symfile: {0}")]
    Storage(#[from] StorageError),
}

impl From<NotElf> for SymfileError {
    fn from(NotElf { what, at }: NotElf) -> SymfileError {
        SymfileError::Malformed { what, at }
    }
}

impl SymfileError {
    /// Whether the memory was not enough.
    pub fn is_without_memory(&self) -> bool {
        matches!(self, SymfileError::Memory(_) | SymfileError::Storage(_))
    }

    /// Whether a budget or the memory was not enough.
    pub fn is_over_budget(&self) -> bool {
        match self {
            SymfileError::Compressed { error, .. } => {
                matches!(error, NotInflated::OverBudget(_) | NotInflated::Memory(_))
            }
            SymfileError::Memory(_) | SymfileError::Storage(_) => true,
            SymfileError::Malformed { .. } | SymfileError::TooLarge { .. } => false,
        }
    }
}

/// Why debug sections cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error("{section}: {error}")]
    Compressed { section: String, error: NotInflated },
    #[error("its split units: {0}")]
    Split(#[from] SkeletonError),
    #[error("its debug information: {0}")]
    OverBudget(#[from] OverBudget),
    #[error("{0}")]
    Memory(#[from] OutOfMemory),
    #[error("{0}")]
    Unknown(&'static str),
}

impl NotOpened {
    /// Whether a budget or the memory was not enough.
    pub fn is_over_budget(&self) -> bool {
        match self {
            NotOpened::Compressed { error, .. } => {
                matches!(error, NotInflated::OverBudget(_) | NotInflated::Memory(_))
            }
            NotOpened::Split(error) => !matches!(error, SkeletonError::Unreadable(_)),
            NotOpened::OverBudget(_) | NotOpened::Memory(_) => true,
            NotOpened::Unknown(_) => false,
        }
    }
}
