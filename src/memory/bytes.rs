//! The bytes of an image, and their owner, for as long as they are needed.
//!
//! Never reads them: `elf/` does.

#![forbid(unsafe_code)]

use std::ops::Deref;
use std::sync::Arc;

use crate::elf::image;
use crate::memory::buffer::ImageBuffer;
use crate::memory::mapped_file::MappedFile;

/// A validated image and its bytes.
pub(crate) type Image<'d> = image::Image<Bytes<'d>>;

/// The owner of an image's bytes.
#[derive(Clone)]
pub(crate) enum Bytes<'d> {
    /// The caller's, for the length of one load.
    Borrowed(&'d [u8]),
    /// Offered by the caller as a library that images may need, under a name.
    Shared(Arc<[u8]>),
    /// Read from a file.
    Read(Arc<Vec<u8>>),
    /// A library's file, which is examined and not loaded.
    File(Arc<MappedFile>),
    /// Received into an [`ImageBuffer`], or kept in one by a template.
    Buffer(Arc<ImageBuffer>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
            Bytes::Read(bytes) => bytes,
            Bytes::File(bytes) => bytes,
            Bytes::Buffer(buffer) => buffer,
        }
    }
}

impl Bytes<'_> {
    /// Takes the memory that the bytes were received into, if it has no other owner. An image then has no
    /// bytes any more; what was decoded from them stays.
    pub(crate) fn take_buffer(&mut self) -> Option<ImageBuffer> {
        match std::mem::replace(self, Bytes::Borrowed(&[])) {
            Bytes::Buffer(buffer) => {
                Arc::try_unwrap(buffer).map_err(|shared| *self = Bytes::Buffer(shared)).ok()
            }
            bytes => {
                *self = bytes;
                None
            }
        }
    }

    /// Undoes [`Bytes::take_buffer`].
    pub(crate) fn put_back(&mut self, buffer: ImageBuffer) {
        *self = Bytes::Buffer(Arc::new(buffer));
    }

    /// The memory that the bytes were received into.
    pub(crate) fn buffer(&self) -> Option<&ImageBuffer> {
        match self {
            Bytes::Buffer(buffer) => Some(buffer),
            Bytes::Borrowed(_) | Bytes::Shared(_) | Bytes::Read(_) | Bytes::File(_) => None,
        }
    }
}
