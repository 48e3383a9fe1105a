//! Constructors of [`ImageBuffer`] that set the process up.

#![forbid(unsafe_code)]

use std::io::{self, Read};

use crate::api::startup;
use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::memory::buffer::ImageBuffer;

impl ImageBuffer {
    /// `len` zero bytes.
    ///
    /// The first buffer of a process also sets memdl up, which takes about 20 microseconds. Otherwise the
    /// first load does it. So make the buffer before the bytes arrive.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let mut buffer = memdl::ImageBuffer::new(bytes.len())?;
    /// buffer.copy_from_slice(&bytes);
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { memdl::Loader::new().load_buffer(buffer)? };
    /// # assert_eq!(library.name(), "libexample.so");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if the system has no memory to give.
    pub fn new(len: usize) -> Result<ImageBuffer, Error> {
        // The caller still waits for the bytes, so this costs the first load less.
        startup::set_up()?;
        require_memory()?;
        ImageBuffer::zeroed(len)
    }

    /// Reads `reader` to its end. `size_hint` is the expected number of bytes; an exact hint saves work.
    ///
    /// ```
    /// let buffer = memdl::ImageBuffer::read_from(&b"any reader"[..], 10)?;
    /// assert_eq!(&buffer[..], b"any reader");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if reading fails or the system has no memory to give.
    pub fn read_from(mut reader: impl Read, size_hint: usize) -> Result<ImageBuffer, Error> {
        // One byte more than expected: the read that finds the end needs room, too.
        let mut buffer = ImageBuffer::new(size_hint.saturating_add(1))?;
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                buffer.grow(filled.saturating_mul(2))?;
            }
            let Some(room) = buffer.get_mut(filled..) else { break };
            let most = room.len();
            match reader.read(room) {
                Ok(0) => break,
                // An implementation of `Read` may return a wrong count.
                Ok(count) if count > most => {
                    let what = "the reader says that it has read more than there was room for";
                    return Err(Error::system("reading an image", io::Error::other(what)));
                }
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system("reading an image", error)),
            }
        }
        buffer.shorten(filled);
        Ok(buffer)
    }
}
