//! The memory that symfiles are kept in, as the builder asks for it.
//!
//! The builder knows no mappings. Its caller chooses an implementation of [`Storage`]: the library
//! maps pages that instances share (`debug/storage.rs`), a test takes vectors.

#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut, Range};

use crate::base::filler::Filler;

/// Why there is no memory from a [`Storage`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Memory for the symfiles of an image.
pub trait Storage {
    /// Memory for one file. Its bytes do not move when the value moves.
    type Own: DerefMut<Target = [u8]>;
    /// A file in pages that all instances share, but for some.
    type Shared: Deref<Target = [u8]>;
    /// What one instance has of it: the shared pages, and its own copy of the others. Its bytes do not move
    /// when the value moves.
    type View: Deref<Target = [u8]>;

    /// The size of a page, a power of two.
    fn page_size() -> usize;

    /// Memory of `len` bytes, filled by `fill`.
    fn own(len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> Result<Self::Own, StorageError>;

    /// `len` bytes, a multiple of the page size, that are zero and then filled by `fill`. Each instance gets
    /// its own copy of the ranges in `own`: whole pages, ascending, none overlapping another.
    fn shared(
        len: usize,
        own: Vec<Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Self::Shared, StorageError>;

    /// A view for one more instance.
    fn view(shared: &Self::Shared) -> Result<Self::View, StorageError>;

    /// These bytes of a view, if they are in one of its own ranges.
    fn get_mut(view: &mut Self::View, range: Range<usize>) -> Option<&mut [u8]>;
}
