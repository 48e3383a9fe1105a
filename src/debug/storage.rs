//! Symfiles in mapped memory.
//!
//! This is the [`Storage`] that the library gives to the symfile builder: instances of a template share the
//! pages of its symfile that do not depend on where they lie. It never looks into a symfile.

#![forbid(unsafe_code)]

use std::iter;
use std::ops::Range;

use super::gdb_jit::StableBytes;
use super::symfile::portable::PortableSymfile;
use super::symfile::storage::Storage;
use super::symfile::{instance, template};
use crate::base::error::Error;
use crate::base::filler::Filler;
use crate::memory::cow_image::{CowImage, CowView, SharedPages};
use crate::memory::scratch::ScratchMemory;

/// Mapped memory.
pub(crate) struct Mapped;

/// The symfile of an instance.
pub(crate) type Symfile = instance::Symfile<Mapped>;
/// What the symfiles of an image have in common.
pub(crate) type SymfileTemplate = template::SymfileTemplate<Mapped>;

impl Storage for Mapped {
    type Own = ScratchMemory;
    type Shared = CowImage;
    type View = CowView;

    fn page_size() -> usize {
        region::page::size()
    }

    fn own(len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> Result<ScratchMemory, Error> {
        ScratchMemory::filled(len, fill)
    }

    fn shared(
        len: usize,
        own: Vec<Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<CowImage, Error> {
        let pages = SharedPages::filled(len, iter::once(0..len), fill)?;
        Ok(CowImage::new(pages, own))
    }

    fn view(shared: &CowImage) -> Result<CowView, Error> {
        shared.view()
    }

    fn get_mut(view: &mut CowView, range: Range<usize>) -> Option<&mut [u8]> {
        view.get_mut(range)
    }
}

/// What a debugger is shown.
impl StableBytes for Symfile {
    fn bytes(&self) -> &[u8] {
        self.shown()
    }
}

impl StableBytes for PortableSymfile {
    fn bytes(&self) -> &[u8] {
        self.contents()
    }
}
