//! Symfiles in mapped memory.
//!
//! This is the [`Storage`] that the library gives to the symfile builder: instances of a template share the
//! pages of its symfile that do not depend on where they lie. It never looks into a symfile.

#![forbid(unsafe_code)]

use std::iter;
use std::ops::Range;

use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::base::filler::Filler;
use crate::memory::cow_image::{CowImage, CowView, SharedPages};
use crate::memory::scratch::ScratchMemory;
use memdl_symfile::builder::error::SymfileError;
use memdl_symfile::builder::storage::{Storage, StorageError};
use memdl_symfile::builder::{instance, parts, portable, template};

/// Mapped memory.
pub(crate) struct Mapped;

/// The symfile of an instance.
pub(crate) type Symfile = instance::Symfile<Mapped>;
/// The same in the form that every debugger reads.
pub(crate) type Portable = portable::PortableSymfile<Mapped>;
/// What another form of an instance's symfile is made from.
pub(crate) type Parts = parts::Parts<Mapped>;
/// What the symfiles of an image have in common.
pub(crate) type SymfileTemplate = template::SymfileTemplate<Mapped>;

#[cold]
fn refused(error: Error) -> StorageError {
    StorageError(Box::new(error))
}

/// The error of a symfile for which there is no memory.
pub(crate) fn refused_memory(error: Error) -> SymfileError {
    refused(error).into()
}

/// The error of an image for which there is no symfile.
pub(crate) fn memory_error(error: SymfileError) -> Error {
    match error {
        SymfileError::Memory(error) => error.into(),
        SymfileError::Storage(StorageError(error)) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => Error::unsupported(format!("memory for a symfile: {other}")),
        },
        other => Error::unsupported(format!("telling debuggers of it: {other}")),
    }
}

impl Storage for Mapped {
    type Own = ScratchMemory;
    type Shared = CowImage;
    type View = CowView;

    fn page_size() -> usize {
        page_size()
    }

    fn own(len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> Result<ScratchMemory, StorageError> {
        ScratchMemory::filled(len, fill).map_err(refused)
    }

    fn shared(
        len: usize,
        own: Vec<Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<CowImage, StorageError> {
        let pages = SharedPages::filled(len, iter::once(0..len), fill).map_err(refused)?;
        Ok(CowImage::new(pages, own))
    }

    fn view(shared: &CowImage) -> Result<CowView, StorageError> {
        shared.view().map_err(refused)
    }

    fn get_mut(view: &mut CowView, range: Range<usize>) -> Option<&mut [u8]> {
        view.get_mut(range)
    }
}
