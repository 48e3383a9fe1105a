//! Memory made for receiving an image into.

#![allow(unsafe_code)]

use std::io::{self, Read};
use std::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::reserve::Reservation;

/// Owned, page-aligned, zeroed memory for the bytes of an image.
///
/// Receive the image into it and give it to [`Loader::load_buffer`](crate::Loader::load_buffer).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut buffer = memdl::ImageBuffer::new(4)?;
/// buffer.copy_from_slice(b"\x7fELF");
/// assert_eq!(&buffer[1..], b"ELF");
///
/// let buffer = memdl::ImageBuffer::read_from(&b"any reader"[..], 10)?;
/// assert_eq!(&buffer[..], b"any reader");
/// # Ok(()) }
/// ```
pub struct ImageBuffer {
    memory: Reservation,
    len: usize,
}

impl ImageBuffer {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// [`Error::System`] if the system has no memory to give.
    pub fn new(len: usize) -> Result<ImageBuffer, Error> {
        let page = region::page::size();
        let rounded = len.max(1).checked_next_multiple_of(page);
        let rounded = rounded
            .ok_or_else(|| Error::system("reserving memory", io::ErrorKind::OutOfMemory.into()))?;
        Ok(ImageBuffer { memory: Reservation::new(rounded, page, 0)?, len })
    }

    /// All that `reader` gives up to its end. `size_hint` is the expected number of bytes; a
    /// right one saves copying.
    ///
    /// # Errors
    /// [`Error::System`] if reading fails or the system has no memory to give.
    pub fn read_from(mut reader: impl Read, size_hint: usize) -> Result<ImageBuffer, Error> {
        // One byte more than expected, so that the end of the data is met without growing.
        let mut buffer = ImageBuffer::new(size_hint.saturating_add(1))?;
        let mut filled = 0;
        loop {
            if filled == buffer.len {
                let mut larger = ImageBuffer::new(buffer.len.saturating_mul(2))?;
                larger[..filled].copy_from_slice(&buffer);
                buffer = larger;
            }
            match reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system("reading an image", error)),
            }
        }
        buffer.len = filled;
        Ok(buffer)
    }
}

impl Deref for ImageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes of the reservation, mapped and zeroed or written since, owned by
        // `self` and changed only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for ImageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` says that nobody else looks.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for ImageBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}
