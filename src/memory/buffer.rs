//! Memory made for receiving an image into.
//!
//! The bytes are received where the image will run: most of it stays where it arrived, and the rest
//! moves to where its pages have to be ([`crate::memory::map`]).

#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};

use crate::base::error::Error;
use crate::memory::reserve::{self, HUGE_PAGE, Reservation, TRIM_THRESHOLD};

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
    /// The bytes are at [`HEADROOM`].
    memory: Reservation,
    len: usize,
    /// All behind this is zero, and was never touched.
    touched: usize,
    /// The last page of the memory cannot be accessed.
    is_closed: bool,
}

/// Address space behind the bytes of a large image: in place it may need more than its file has
/// (`.bss`), and to be moved it would have to give up its large pages. It is no memory until it is
/// used.
const TAILROOM: usize = 128 << 20;

/// Address space in front of the bytes, for what has to move down.
pub(crate) const HEADROOM: usize = 1 << 16;

impl ImageBuffer {
    /// `len` zero bytes. The caller has seen to the spare memory, and to what a process sets up once.
    pub(crate) fn zeroed(len: usize) -> Result<ImageBuffer, Error> {
        reserve::give_back_now();
        let page = region::page::size();
        let out_of_memory = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        let rounded = len.max(1).checked_next_multiple_of(page).ok_or_else(out_of_memory)?;
        let huge = reserve::in_huge_pages(rounded);
        let with = |room: usize| {
            let len = rounded.max(huge).checked_add(HEADROOM)?;
            len.checked_add(room)
        };
        let memory = if huge > 0 {
            let reserve = |room| {
                let len = with(room).ok_or_else(out_of_memory)?;
                Reservation::new(len, HUGE_PAGE, HUGE_PAGE - HEADROOM)
            };
            // A system that counts address space may not give so much.
            let memory = reserve(TAILROOM).or_else(|_| reserve(page))?;
            memory.advise_huge(HEADROOM..HEADROOM.saturating_add(huge));
            memory
        } else {
            // As above, in small; and what is written moves up a little, into pages that are there.
            let memory =
                Reservation::new(with(TRIM_THRESHOLD).ok_or_else(out_of_memory)?, page, 0)?;
            let written = rounded.saturating_add(page.saturating_mul(4));
            memory.populate(HEADROOM..HEADROOM.saturating_add(written));
            memory
        };
        memory.close_last_page()?;
        Ok(ImageBuffer { memory, len, touched: len, is_closed: true })
    }

    /// Makes it `len` bytes long, where it is shorter; what is added is zero. No byte is copied.
    ///
    /// # Errors
    /// [`Error::System`] if the system has no memory to give.
    pub fn grow(&mut self, len: usize) -> Result<(), Error> {
        self.make_room(len)?;
        if len > self.len {
            let before = std::mem::replace(&mut self.len, len);
            let touched = self.touched;
            self.touched = touched.max(len);
            // There is no such part if none of what is added was ever touched.
            if let Some(used) = self.get_mut(before..touched.min(len)) {
                used.fill(0);
            }
        }
        Ok(())
    }

    /// Makes it `len` bytes long, where it is longer.
    pub(crate) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Sees to it that the memory, which may move for that, has `len` bytes, and a guard behind them.
    pub(crate) fn make_room(&mut self, len: usize) -> Result<(), Error> {
        if len > self.room() {
            let page = region::page::size();
            let with_both = len.checked_add(HEADROOM).and_then(|len| len.checked_add(page));
            let rounded = with_both.and_then(|len| len.checked_next_multiple_of(page));
            let rounded = rounded.ok_or_else(|| {
                Error::system("reserving memory", io::ErrorKind::OutOfMemory.into())
            })?;
            // All of one protection it is one mapping, which can grow.
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

    /// Makes it `len` bytes long, where it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The memory, with the bytes at [`HEADROOM`], and how many of these may be other than zero.
    pub(crate) fn into_memory(self) -> (Reservation, usize) {
        (self.memory, self.touched)
    }

    /// Where the bytes start.
    pub(crate) fn address(&self) -> usize {
        self.start().addr()
    }

    /// How many bytes an image in place can take without moving. The last page is a guard behind it.
    pub(crate) fn room(&self) -> usize {
        self.memory.len().saturating_sub(HEADROOM).saturating_sub(region::page::size())
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the reservation is longer than that, always.
        unsafe { self.memory.as_ptr().add(HEADROOM) }
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
        // SAFETY: as above, and `&mut self` says that nobody else looks.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl std::fmt::Debug for ImageBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}
