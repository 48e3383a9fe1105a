//! The public buffer that the bytes of an image are received into.
//!
//! The image runs where it was received: most of it stays there, and the rest moves to where its pages have
//! to be ([`crate::memory::in_place`]). So the buffer has room in front of the bytes and behind them. Never
//! looks at the bytes.
//!
//! Sources: `mmap(2)`, `mremap(2)`.

#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};

use crate::arch::MACHINE;
use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::memory::cache::{self, TRIM_THRESHOLD};
use crate::memory::reservation::{HUGE_PAGE, Reservation, in_huge_pages};

/// Owned, page-aligned, zeroed memory for the bytes of an image.
///
/// Receive the image into it and give it to [`Loader::load_buffer`](crate::Loader::load_buffer).
///
/// # Memory that a device writes to
/// A network card may write into the buffer: an RDMA memory region, or a registered buffer of io_uring.
/// Deregister it before the load (`ibv_dereg_mr`). The image runs in this memory, so a late or a wrong write
/// of the device would change its code and data. The registration would not even follow the bytes: the load
/// moves some of them, and unmaps the rest of the buffer. And the pages stay pinned for as long as it lasts.
///
/// A registration may also hide the memory from children of `fork` (`ibv_fork_init`, `MADV_DONTFORK`). A load
/// undoes that, deregistered or not: a child can run the image, as it can run any library.
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
    /// The bytes start at [`HEADROOM`].
    memory: Reservation,
    len: usize,
    /// The bytes from here on are zero, and were never touched.
    touched: usize,
    /// The last page of the memory is inaccessible.
    is_closed: bool,
}

/// Address space behind the bytes of a large image. The image may need more memory than its file has bytes
/// (`.bss`), and would lose its large pages if it had to move. It takes no memory until it is touched.
const TAILROOM: usize = 128 << 20;

/// Address space in front of the bytes, for segments that have to move down.
pub(crate) const HEADROOM: usize = 1 << 16;

impl ImageBuffer {
    /// `len` zero bytes. The caller has checked for spare memory, and has set the process up.
    pub(crate) fn zeroed(len: usize) -> Result<ImageBuffer, Error> {
        cache::unmap_deferred();
        let page = page_size();
        let out_of_memory = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        let rounded = len.max(1).checked_next_multiple_of(page).ok_or_else(out_of_memory)?;
        let huge = in_huge_pages(rounded);
        let with = |room: usize| {
            let len = rounded.max(huge).checked_add(HEADROOM)?;
            len.checked_add(room)
        };
        let memory = if huge > 0 {
            let reserve = |room| {
                let len = with(room).ok_or_else(out_of_memory)?;
                Reservation::new(len, HUGE_PAGE, HUGE_PAGE - HEADROOM)
            };
            // A system that counts address space may refuse the tailroom.
            let memory = reserve(TAILROOM).or_else(|_| reserve(page))?;
            memory.advise_huge(HEADROOM..HEADROOM.saturating_add(huge));
            memory
        } else {
            // As above, but smaller. Segments move up by a few pages, into pages that are provided here.
            let len = with(TRIM_THRESHOLD).ok_or_else(out_of_memory)?;
            // So that the file's first byte is where the segments that it begins with may stay.
            let memory = Reservation::new(len, MACHINE.segment_align.max(page), 0)?;
            let written = rounded.saturating_add(page.saturating_mul(4));
            memory.populate(HEADROOM..HEADROOM.saturating_add(written));
            memory
        };
        memory.close_last_page()?;
        Ok(ImageBuffer { memory, len, touched: len, is_closed: true })
    }

    /// Makes the buffer `len` bytes long if it is shorter. The added bytes are zero. No byte is copied.
    ///
    /// ```
    /// let mut buffer = memdl::ImageBuffer::new(2)?;
    /// buffer.copy_from_slice(b"ab");
    /// buffer.grow(4)?;
    /// assert_eq!(&buffer[..], b"ab\0\0");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no memory.
    pub fn grow(&mut self, len: usize) -> Result<(), Error> {
        self.make_room(len)?;
        if len > self.len {
            let before = std::mem::replace(&mut self.len, len);
            let touched = self.touched;
            self.touched = touched.max(len);
            // `None` if none of the added bytes was ever touched.
            if let Some(used) = self.get_mut(before..touched.min(len)) {
                used.fill(0);
            }
        }
        Ok(())
    }

    /// Makes the buffer `len` bytes long if it is longer.
    pub(crate) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `len` bytes, with a guard page behind them. The memory may move.
    pub(crate) fn make_room(&mut self, len: usize) -> Result<(), Error> {
        if len > self.room() {
            let page = page_size();
            let with_both = len.checked_add(HEADROOM).and_then(|len| len.checked_add(page));
            let rounded = with_both.and_then(|len| len.checked_next_multiple_of(page));
            let rounded = rounded.ok_or_else(|| {
                Error::system("reserving memory", io::ErrorKind::OutOfMemory.into())
            })?;
            // With one protection it is one mapping, which can grow.
            self.is_closed = false;
            self.memory.open_last_page()?;
            self.memory.grow(rounded)?;
        }
        if !self.is_closed {
            self.memory.close_last_page()?;
            self.is_closed = true;
        }
        Ok(())
    }

    /// Children of `fork` get the memory, whatever a driver has marked: code of the image may run in them.
    /// Called before the memory grows, since a part that is marked is a mapping of its own.
    pub(crate) fn give_to_children(&self) {
        self.memory.give_to_children();
    }

    /// Makes the buffer `len` bytes long if it is longer.
    ///
    /// ```
    /// let mut buffer = memdl::ImageBuffer::read_from(&b"received"[..], 8)?;
    /// buffer.truncate(2);
    /// assert_eq!(&buffer[..], b"re");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The memory, with the bytes at [`HEADROOM`], and the number of bytes that may be other than zero.
    pub(crate) fn into_memory(self) -> (Reservation, usize) {
        (self.memory, self.touched)
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start().addr()
    }

    /// The number of bytes that an image in this memory can have. The last page is a guard behind it.
    pub(crate) fn room(&self) -> usize {
        self.memory.len().saturating_sub(HEADROOM).saturating_sub(page_size())
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: every reservation of a buffer is longer than `HEADROOM`.
        unsafe { self.memory.as_ptr().add(HEADROOM) }
    }
}

/// Appends bytes, so that an image of unknown length can be received: `std::io::copy(&mut stream, &mut buffer)`.
///
/// ```
/// let mut buffer = memdl::ImageBuffer::new(0)?;
/// std::io::copy(&mut &b"received"[..], &mut buffer)?;
/// assert_eq!(&buffer[..], b"received");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl io::Write for ImageBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let no_memory = |error| io::Error::new(io::ErrorKind::OutOfMemory, error);
        let before = self.len;
        let len = before.checked_add(bytes.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        if len > self.room() {
            // In growing steps, since each may move the memory.
            let more = self.room().saturating_add(self.room() / 2);
            self.make_room(more.max(len)).or_else(|_| self.make_room(len)).map_err(no_memory)?;
        }
        self.grow(len).map_err(no_memory)?;
        self.get_mut(before..len).unwrap_or_default().copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Deref for ImageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes of the reservation, mapped and zeroed or written since, owned by
        // `self` and changed only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for ImageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` excludes all other references.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl std::fmt::Debug for ImageBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}
