//! Why there is no symfile.

#![forbid(unsafe_code)]

use std::fmt::Display;

use crate::base::addr::FileOffset;
use crate::base::fallible::OutOfMemory;
use crate::builder::error::SymfileError;
use crate::builder::portable::NotPortable;

/// Why there is no symfile. Each text names the part of the file that is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not what they should be.
    #[error("malformed {what} at offset {at}")]
    #[non_exhaustive]
    Malformed {
        /// The part of the file.
        what: &'static str,
        /// Its place.
        at: FileOffset,
    },
    /// A section of the object has a relocation that this crate does not know.
    #[error("{section}: unknown relocation of type {kind}")]
    #[non_exhaustive]
    Relocation {
        /// The table of relocations.
        section: String,
        /// `ELF64_R_TYPE`.
        kind: u32,
    },
    /// The debug information cannot be shown in the requested form. [`Form::Wrapped`](crate::Form::Wrapped) needs less
    /// of it.
    #[error("the debug information cannot be shown: {why}")]
    #[non_exhaustive]
    DebugInformation {
        /// The reason.
        why: String,
    },
    /// The separate file belongs to another image: the build-ids differ.
    #[error("the separate debug information belongs to another image: its build-id differs")]
    OtherImage,
    /// There is not enough memory.
    #[error("out of memory: cannot allocate {bytes} bytes")]
    #[non_exhaustive]
    OutOfMemory {
        /// The size of the allocation that failed, in bytes.
        bytes: u64,
    },
}

impl Error {
    pub(crate) fn malformed(what: &'static str, at: FileOffset) -> Error {
        Error::Malformed { what, at }
    }

    pub(crate) fn debug_information(why: &dyn Display) -> Error {
        Error::DebugInformation { why: why.to_string() }
    }

    pub(crate) fn packed(section: &str, why: &dyn Display) -> Error {
        Error::DebugInformation { why: format!("{section}: {why}") }
    }
}

impl From<OutOfMemory> for Error {
    #[cold]
    fn from(OutOfMemory { bytes }: OutOfMemory) -> Error {
        Error::OutOfMemory { bytes }
    }
}

impl From<SymfileError> for Error {
    fn from(error: SymfileError) -> Error {
        match error {
            SymfileError::Malformed { what, at } => Error::Malformed { what, at },
            SymfileError::Memory(error) => error.into(),
            other => Error::debug_information(&other),
        }
    }
}

impl From<NotPortable> for Error {
    fn from(error: NotPortable) -> Error {
        match error {
            NotPortable::Memory(error) => error.into(),
            other => Error::debug_information(&other),
        }
    }
}
