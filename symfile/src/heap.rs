//! Symfiles on the heap: each has all of its bytes for itself.

#![forbid(unsafe_code)]

use std::ops::{Deref, Range};

use crate::base::filler::Filler;
use crate::builder::storage::{Storage, StorageError};

/// Memory of Rust's global allocator.
pub(crate) struct Heap;

/// What nobody shares.
pub(crate) struct Unshared(Vec<u8>);

impl Deref for Unshared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Storage for Heap {
    type Own = Vec<u8>;
    type Shared = Unshared;
    type View = Unshared;

    fn page_size() -> usize {
        4096
    }

    fn own(len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> Result<Vec<u8>, StorageError> {
        Filler::filled(len, fill).map_err(|error| StorageError(Box::new(error)))
    }

    fn shared(
        len: usize,
        _: Vec<Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Unshared, StorageError> {
        let mut bytes = Self::own(len, |_| {})?;
        fill(&mut bytes);
        Ok(Unshared(bytes))
    }

    fn view(shared: &Unshared) -> Result<Unshared, StorageError> {
        Self::own(shared.len(), |out| out.put(shared)).map(Unshared)
    }

    fn get_mut(view: &mut Unshared, range: Range<usize>) -> Option<&mut [u8]> {
        view.0.get_mut(range)
    }
}
