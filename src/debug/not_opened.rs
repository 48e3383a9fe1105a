//! Why debug sections cannot be shown as they are.

#![forbid(unsafe_code)]

use super::budget::OverBudget;
use super::inflate::NotInflated;
use super::skeleton::NotTold;
use crate::base::error::Error;

/// Why debug sections cannot be shown as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    #[error("{section}: {error}")]
    Compressed { section: String, error: NotInflated },
    #[error("its split units: {0}")]
    Split(#[from] NotTold),
    #[error("its debug information: {0}")]
    OverBudget(#[from] OverBudget),
    #[error("{0}")]
    Memory(#[from] Error),
    #[error("{0}")]
    Unknown(&'static str),
}

impl NotOpened {
    /// Whether they could be shown if more might be spent.
    pub(super) fn is_for_want_of_means(&self) -> bool {
        match self {
            NotOpened::Compressed { error, .. } => {
                matches!(error, NotInflated::OverBudget(_) | NotInflated::Memory(_))
            }
            NotOpened::Split(error) => !matches!(error, NotTold::Unreadable(_)),
            NotOpened::OverBudget(_) | NotOpened::Memory(_) => true,
            NotOpened::Unknown(_) => false,
        }
    }
}
