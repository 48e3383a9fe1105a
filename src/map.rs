//! An image's memory: filled, protected, and the only way to its bytes.
//!
//! One reservation holds the whole image, so that nothing else can come to lie between its
//! segments and one call unmaps it. The stages are types: a [`Mapping<Open>`] can be stored to,
//! by stated address and only where the image is writable; [`Mapping::seal`] makes RELRO
//! read-only and gives a [`Mapping<Sealed>`], the only form that hands out code. The reservation
//! starts readable and writable, is filled, and is then cut to each segment's protection, gaps to
//! none: no page is ever writable and executable at once.
//!
//! Sources: gABI "Program Loading"; `mprotect(2)`, `madvise(2)`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use region::Protection;

use crate::addr::{LoadBias, PageSize, Vaddr};
use crate::dynamic::ReadAt;
use crate::error::Error;
use crate::image::Access;
use crate::plan::{Plan, PlannedSegment};
use crate::reserve::Reservation;

/// Segments are filled and protected; relocations may be stored, RELRO is still writable.
pub(crate) enum Open {}
/// All is as the image's code will find it.
pub(crate) enum Sealed {}

/// An image in place.
pub(crate) struct Mapping<State> {
    reservation: Reservation,
    load_bias: LoadBias,
    segments: Vec<PlannedSegment>,
    relro: Vec<Range<Vaddr>>,
    /// Segments that are not writable in the end are writable still (and not yet executable).
    text_open: bool,
    state: PhantomData<State>,
}

impl Mapping<Open> {
    /// Reserves the plan's span, copies the segments from `bytes` and protects them. `name` is what
    /// `/proc/self/maps` shows.
    pub(crate) fn new(
        plan: &Plan,
        bytes: &[u8],
        name: Option<&str>,
    ) -> Result<Mapping<Open>, Error> {
        let too_large = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        let len = usize::try_from(plan.span_len()).map_err(|_| too_large())?;
        let align = usize::try_from(plan.align).map_err(|_| too_large())?;
        let reservation = Reservation::new(len, align, plan.span.start.0 as usize)?;
        if let Some(name) = name {
            reservation.set_name(&format!("memdl:{name}"));
        }
        let load_bias = LoadBias::between(plan.span.start, reservation.address());
        let mut mapping = Mapping {
            reservation,
            load_bias,
            segments: plan.segments.clone(),
            relro: plan.relro.clone(),
            text_open: plan.text_relocations,
            state: PhantomData,
        };
        mapping.fill(bytes);
        mapping.protect_gaps()?;
        if !mapping.text_open {
            mapping.protect_text()?;
        }
        Ok(mapping)
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.populate();
        for segment in &self.segments {
            let source = bytes.get(segment.file.clone()).unwrap_or(&[]);
            let room = (segment.pages.end.0 - segment.pages.start.0) as usize;
            let len = source.len().min(room);
            let target = self.load_bias.apply(segment.pages.start) as *mut u8;
            // SAFETY: `pages` lies in the reservation (`Plan`: every segment lies in the span),
            // which is writable and known to nobody else yet; `len` is no more than either side
            // has, and fresh anonymous memory does not overlap the received bytes.
            unsafe { ptr::copy_nonoverlapping(source.as_ptr(), target, len) };
        }
    }

    /// Has the kernel provide the pages that will be filled all at once: met one by one, the page
    /// faults take longer than the copying. Pages of zeroes (`.bss`) are left alone.
    fn populate(&self) {
        let page = PageSize::current();
        let mut runs: Vec<Range<Vaddr>> = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let start = segment.pages.start;
            let filled = start.checked_add(segment.file.len() as u64);
            let Some(end) = filled.and_then(|end| end.page_ceil(page)) else { continue };
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        for run in runs {
            let start = self.load_bias.apply(run.start) as *mut c_void;
            let len = (run.end.0 - run.start.0) as usize;
            // SAFETY: pages of the reservation, since the file's part of a segment is no longer
            // than its pages; zero pages appear where there would be zero pages. A kernel before
            // 5.14 does not know the advice, and then the pages come one by one.
            unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) };
        }
    }

    /// What lies between segments can be touched by nobody.
    fn protect_gaps(&self) -> Result<(), Error> {
        for pair in self.segments.windows(2) {
            if let [before, after] = pair
                && before.pages.end < after.pages.start
            {
                self.protect(&(before.pages.end..after.pages.start), Protection::NONE)?;
            }
        }
        Ok(())
    }

    /// Gives the segments that are not writable their protection.
    fn protect_text(&self) -> Result<(), Error> {
        for segment in self.segments.iter().filter(|segment| !segment.access.write) {
            let Access { read, execute, .. } = segment.access;
            let protection = match (read, execute) {
                (_, true) => Protection::READ_EXECUTE,
                (true, false) => Protection::READ,
                (false, false) => Protection::NONE,
            };
            self.protect(&segment.pages, protection)?;
        }
        Ok(())
    }

    /// Ends the time in which text relocations can be stored. Nothing to do for other images.
    pub(crate) fn close_text(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.text_open) {
            self.protect_text()?;
        }
        Ok(())
    }

    /// Makes RELRO read-only: relocating is over.
    pub(crate) fn seal(mut self) -> Result<Mapping<Sealed>, Error> {
        self.close_text()?;
        for relro in &self.relro {
            self.protect(relro, Protection::READ)?;
        }
        Ok(Mapping {
            reservation: self.reservation,
            load_bias: self.load_bias,
            segments: self.segments,
            relro: self.relro,
            text_open: false,
            state: PhantomData,
        })
    }

    fn protect(&self, pages: &Range<Vaddr>, protection: Protection) -> Result<(), Error> {
        let start = self.load_bias.apply(pages.start) as *const u8;
        let len = (pages.end.0 - pages.start.0) as usize;
        // SAFETY: whole pages of the reservation, which is ours; no reference into them is alive
        // while the mapping is open, but for ones made and dropped inside `store`.
        unsafe { region::protect(start, len, protection) }.map_err(|error| match error {
            region::Error::SystemCall(source) => Error::system(
                format!("mprotect of {len:#x} bytes"),
                io::Error::from_raw_os_error(source),
            ),
            other => Error::system("mprotect", io::Error::other(other)),
        })
    }

    /// A pointer to `len` bytes at `at`, if they can be written.
    #[inline]
    fn writable(&self, at: Vaddr, len: u64) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        let fits = |segment: &PlannedSegment| {
            (segment.access.write || self.text_open)
                && segment.pages.start <= at
                && end <= segment.pages.end
        };
        // Relocations go to writable segments, which come last.
        self.segments.iter().rev().any(fits).then(|| self.load_bias.apply(at) as *mut u8)
    }

    /// Stores `bytes` at `at`. `None`, and nothing is stored, unless all of it is writable.
    #[inline]
    pub(crate) fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        let target = self.writable(at, N as u64)?;
        // SAFETY: `writable`: N bytes inside one segment of the reservation that can be written,
        // and nothing but this mapping refers to it yet. The place need not be aligned.
        unsafe { ptr::write_unaligned(target.cast(), bytes) };
        Some(())
    }

    /// The word at `at`, where it could be stored to.
    #[inline]
    pub(crate) fn stored_word(&self, at: Vaddr) -> Option<u64> {
        let source = self.writable(at, 8)?;
        // SAFETY: as in `store`; what can be written can be read.
        Some(unsafe { ptr::read_unaligned(source.cast()) })
    }
}

impl Mapping<Sealed> {
    /// Stores a word that the image's code may read at the same time, if it lies where the image
    /// can write and is aligned; else does nothing.
    pub(crate) fn store_shared(&self, at: Vaddr, word: usize) {
        let Some(range) = at.range(8) else { return };
        let in_relro = |relro: &Range<Vaddr>| relro.start < range.end && range.start < relro.end;
        let holds = |segment: &PlannedSegment| {
            let Range { start, end } = segment.pages;
            segment.access.write && start <= range.start && range.end <= end
        };
        let address = self.load_bias.apply(at);
        if self.segments.iter().any(holds)
            && !self.relro.iter().any(in_relro)
            && address.is_multiple_of(8)
        {
            // SAFETY: 8 aligned bytes inside a writable segment that is mapped as long as `self`
            // is, and not in RELRO. One store, so that readers see the old word or the new one.
            unsafe { (*(address as *const AtomicUsize)).store(word, Ordering::Release) };
        }
    }
}

impl<State> Mapping<State> {
    pub(crate) fn load_bias(&self) -> LoadBias {
        self.load_bias
    }

    /// All addresses of the image, from its first page to its last.
    pub(crate) fn address_range(&self) -> Range<usize> {
        self.reservation.address()..self.reservation.address() + self.reservation.len()
    }

    /// A pointer to `range`, if it lies in one segment that can be read.
    fn readable(&self, range: &Range<Vaddr>) -> Option<*const u8> {
        self.segments
            .iter()
            .any(|segment| {
                segment.access.read
                    && segment.pages.start <= range.start
                    && range.start <= range.end
                    && range.end <= segment.pages.end
            })
            .then(|| self.load_bias.apply(range.start) as *const u8)
    }

    /// The word at `at`, read anew each time: it may be data that the image writes.
    pub(crate) fn word(&self, at: Vaddr) -> Option<usize> {
        let source = self.readable(&at.range(8)?)?;
        // SAFETY: `readable`: 8 bytes in a segment that is mapped and readable for as long as
        // `self` lives. The image may write there at the same time, as it may in any loader; a
        // volatile byte-wise read of plain memory is the least that can be assumed.
        Some(unsafe { ptr::read_unaligned(source.cast::<usize>()) })
    }

    /// Whether `address` is in memory that can be executed.
    pub(crate) fn is_code(&self, address: usize) -> bool {
        let at = self.load_bias.remove(address);
        self.segments.iter().any(|segment| segment.access.execute && segment.pages.contains(&at))
    }
}

/// The symbol and string tables of an image in place. They stand in memory that the image's code
/// does not write: an image that does breaks the terms of
/// [`Library::from_bytes`](crate::Library::from_bytes).
impl<State> ReadAt for Mapping<State> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let source = self.readable(&range)?;
        // SAFETY: `readable`: `len` bytes of mapped, readable, initialised (file or zero) memory
        // that lives as long as `self`; not written while borrowed, see above.
        Some(unsafe { std::slice::from_raw_parts(source, len) })
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|segment| segment.pages.contains(&start))?;
        self.read(start..segment.pages.end)
    }
}
