//! An image in memory: filled, and the only way to its bytes.
//!
//! One reservation holds the whole image, so that no other mapping lies between its segments, and one call
//! unmaps it. The stages are types: a [`Mapping<Open>`] can be stored to, by stated address and only where
//! the image is writable. [`Mapping::seal`] protects it and gives a [`Mapping<Sealed>`], the only form that
//! hands out code. The reservation starts readable and writable, is filled, and is then protected as each
//! segment states, gaps without access ([`crate::memory::protect`]).
//!
//! Copying is cheap; what takes the time is that the kernel provides a page for each that is touched first.
//! So there are four ways to fill a mapping ([`Source`]):
//!
//! * the bytes are **copied**, into pages that are provided in bulk, or that an unloaded image left;
//! * they were **received** into memory made for them: the largest segment stays where it arrived, and the
//!   others move apart to where they have to be ([`crate::memory::in_place`]). Up to 64 KiB of that memory
//!   may stay in front of the image, zeroed;
//! * read-only segments are **shared** with other instances, as the same pages mapped once more
//!   ([`crate::memory::shared_text`]). Or an unloaded instance left its memory with these pages mapped, and
//!   only the writable segments are filled anew. Where the system maps no pages a second time, they are copied;
//! * read-only segments are pages of a **file** that was written for profilers
//!   ([`crate::memory::mapped_file::ImageFile`]), as in an image of `ld.so`'s.
//!
//! Behind every image is a page without access. Memory that rounding to large pages adds cannot be accessed
//! either. Behind an image that runs where it was received, up to 64 KiB may come before that page: they are
//! zero. So an access beyond the end of an image never meets the bytes of another.
//!
//! Sources: gABI "Program Loading"; `madvise(2)`.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::addr::{LoadBias, PageSize, Vaddr, len_of, page_size};
use crate::base::error::Error;
use crate::base::fallible::{try_collect, try_vec};
use crate::elf::plan::{Plan, PlannedSegment};
use crate::elf::read::ReadAt;
use crate::memory::buffer::HEADROOM;
use crate::memory::cache::{self, Pages};
use crate::memory::executable;
use crate::memory::in_place::{InPlaceFile, spread_segments};
use crate::memory::layout::Layout;
use crate::memory::mapped_file::ImageFile;
use crate::memory::reservation::{HUGE_PAGE, Reservation, can_share, in_huge_pages, is_same, zero};
use crate::memory::shared_text::SharedText;
use crate::memory::stage::{Keeper, Open, OpenMemory, Reuse, Sealed, Stage};

/// Where an image's contents come from.
pub(crate) enum Source<'a> {
    /// The file's bytes.
    Copied(&'a [u8]),
    /// The same, for a single image. Where that is faster, it takes a whole large page of which it needs two thirds.
    /// Instances, of which there may be thousands, do not.
    Single(&'a [u8]),
    /// The memory that the file was received into.
    InPlaceFile(InPlaceFile),
    /// The file's bytes for the writable segments, and these pages for the others.
    Shared(&'a [u8], &'a SharedText),
    /// The file's bytes, and a file with the same bytes.
    File(&'a [u8], &'a ImageFile),
}

/// An image in memory.
pub(crate) struct Mapping<State: Stage> {
    pub(super) memory: State::Memory,
    pub(super) load_bias: LoadBias,
    /// In bytes, from the first page on.
    pub(super) span_len: usize,
    pub(super) segments: Vec<PlannedSegment>,
    pub(super) relro: Vec<Range<Vaddr>>,
    /// Relocations may be stored into segments that are not writable in the end.
    pub(super) text_relocations: bool,
    /// The code marks the targets of its indirect branches.
    pub(super) branch_targets: bool,
    /// Segments have their final protection, except for RELRO.
    pub(super) is_protected: bool,
    /// Executable segments have their contents and their protection: see [`executable`].
    pub(super) has_code: bool,
    /// At least a page behind the image cannot be accessed, and memory between the image and that page is
    /// zero.
    pub(super) is_closed: bool,
    /// Most of its pages are large, and no change of protection has split one yet.
    pub(super) is_huge: bool,
    /// It takes large pages that it fills in part.
    pub(super) rounds_up: bool,
    /// Its writable segments have the contents of a former image, and its RELRO is read-only, until it is
    /// [settled](Mapping::settle).
    pub(super) is_unsettled: bool,
    /// RELRO is read-only.
    pub(super) is_relro_closed: bool,
    pub(super) state: PhantomData<State>,
}

/// A mapping without its memory.
struct Unplaced {
    span_start: Vaddr,
    span_len: usize,
    align: usize,
    segments: Vec<PlannedSegment>,
    relro: Vec<Range<Vaddr>>,
    text_relocations: bool,
    branch_targets: bool,
}

fn too_large() -> Error {
    Error::system("reserving memory", io::ErrorKind::OutOfMemory.into())
}

/// The part of `len` bytes, from the start on, that large pages shall hold. One that is not filled takes memory that the
/// image does not need.
fn large_part(len: usize, rounds_up: bool) -> usize {
    if rounds_up { in_huge_pages(len) } else { len & !(HUGE_PAGE - 1) }
}

/// The length of memory for `len` bytes and a guard page.
fn with_guard(len: usize) -> Result<usize, Error> {
    len.checked_add(page_size()).ok_or_else(too_large)
}

impl Unplaced {
    fn new(plan: &Plan) -> Result<Unplaced, Error> {
        Ok(Unplaced {
            span_start: plan.span.start,
            span_len: usize::try_from(plan.span_len()).map_err(|_| too_large())?,
            align: usize::try_from(plan.align).map_err(|_| too_large())?,
            segments: try_collect(plan.segments.iter().cloned())?,
            relro: try_collect(plan.relro.iter().cloned())?,
            text_relocations: plan.text_relocations,
            branch_targets: plan.branch_targets,
        })
    }

    /// The start of the memory modulo `align`.
    fn residue(&self) -> usize {
        self.span_start.0 as usize
    }

    /// The mapping in this memory, with its first page at the address `first`.
    fn place(self, reservation: Reservation, first: usize, reuse: Reuse) -> Mapping<Open> {
        Mapping {
            memory: OpenMemory { reservation, reuse, shares: false },
            load_bias: LoadBias::between(self.span_start, first),
            span_len: self.span_len,
            segments: self.segments,
            relro: self.relro,
            text_relocations: self.text_relocations,
            branch_targets: self.branch_targets,
            is_protected: false,
            has_code: false,
            is_closed: false,
            is_huge: false,
            rounds_up: false,
            is_unsettled: false,
            is_relro_closed: false,
            state: PhantomData,
        }
    }

    fn copied(
        mut self,
        bytes: &[u8],
        name: Option<&str>,
        rounds_up: bool,
    ) -> Result<Mapping<Open>, Error> {
        match self.in_place_of_another(bytes, name) {
            Ok(mapping) => return Ok(mapping),
            Err(unplaced) => self = unplaced,
        }
        // Large pages start at a multiple of their size.
        let (span_len, residue) = (self.span_len, self.residue());
        let huge = large_part(span_len, rounds_up);
        let huge_align = if huge > 0 { HUGE_PAGE } else { 1 };
        let len = with_guard(span_len.max(huge))?;
        let align = self.align.max(huge_align);
        let (reservation, pages) = cache::take(len, span_len, align, residue)?;
        if pages == Pages::Stale && name.is_none() {
            reservation.clear_name();
        }
        let first = reservation.address();
        let mut mapping = self.place(reservation, first, Reuse::Recycled { used: span_len, align });
        mapping.is_huge = pages == Pages::Zeroed && huge > 0;
        mapping.rounds_up = rounds_up;
        mapping.is_closed = pages == Pages::Stale;
        if executable::is_denied() && !mapping.text_relocations {
            mapping.place_code(bytes)?;
        }
        let has_code = mapping.has_code;
        // The second image with these bytes leaves its memory for the third as it is.
        let may_be_same = pages == Pages::Stale && !has_code && !mapping.text_relocations;
        // SAFETY: the memory was just taken, and nothing else refers to it.
        let is_same =
            may_be_same && unsafe { has_bytes(&mapping.segments, mapping.load_bias, bytes) };
        if is_same {
            let Mapping { segments, relro, .. } = &mapping;
            let layout = Layout::new(segments, relro, align, name)?;
            mapping.memory.reuse = Reuse::InPlace(Box::new(layout));
        }
        let is_there = |segment: &PlannedSegment| is_same && !is_written(segment);
        mapping.fill(bytes, |segment| !(has_code && is_code(segment) || is_there(segment)), pages);
        mapping.set_name(name);
        Ok(mapping)
    }

    /// In the memory of an unloaded image with the same bytes, if there is such memory.
    fn in_place_of_another(
        self,
        bytes: &[u8],
        name: Option<&str>,
    ) -> Result<Mapping<Open>, Unplaced> {
        let is_this = |layout: &Layout| {
            layout.is_of(&self.segments, &self.relro, self.align, name) && !self.text_relocations
        };
        let Some((memory, layout)) = cache::take_in_place(is_this) else { return Err(self) };
        let first = memory.address();
        let load_bias = LoadBias::between(self.span_start, first);
        // SAFETY: the memory is that of an image with the same segments. Nothing refers to it.
        if !unsafe { has_bytes(&self.segments, load_bias, bytes) } {
            // Of an image with other bytes, or changed by a debugger.
            cache::recycle(memory, self.span_len, self.align);
            return Err(self);
        }
        let mut mapping = self.place(memory, first, Reuse::InPlace(layout));
        mapping.is_protected = true;
        mapping.is_closed = true;
        mapping.has_code = true;
        mapping.is_unsettled = true;
        mapping.is_relro_closed = true;
        Ok(mapping)
    }

    fn in_place(self, plan: &Plan, file: InPlaceFile) -> Result<Mapping<Open>, Error> {
        /// Up to this many bytes of the file behind the image, zeroing them is faster than protecting their
        /// pages: the buffer has a guard at its end.
        const MAX_CLEARED: usize = 1 << 14;
        let InPlaceFile { buffer, place } = file;
        let (mut reservation, len) = buffer.into_memory();
        let first_file = plan.segments.first().map_or(0, |segment| segment.file.start);
        let start = HEADROOM.checked_add(first_file).and_then(|it| it.checked_sub(place.down));
        let start = start.ok_or_else(too_large)?;
        let end = start.checked_add(self.span_len).ok_or_else(too_large)?;
        // SAFETY: the buffer was owned, so nothing else refers to its memory. The file is at `HEADROOM` in
        // it, and it has the room that `place` requires (`InPlaceFile`).
        let (first, is_closed) = unsafe {
            let touched = HEADROOM.saturating_add(len).min(reservation.len());
            spread_segments(plan, reservation.as_ptr(), start, touched);
            let is_cut = cache::shrink(&mut reservation, with_guard(end)?, touched);
            let behind = touched.saturating_sub(end);
            let is_closed = !is_cut && behind <= MAX_CLEARED;
            if is_closed {
                zero(reservation.as_ptr().add(end), behind);
            }
            (reservation.as_ptr().add(start).addr(), is_closed)
        };
        let mut mapping = self.place(reservation, first, Reuse::None);
        mapping.is_closed = is_closed;
        mapping.is_huge = in_huge_pages(len) > 0;
        Ok(mapping)
    }

    fn shared(self, plan: &Plan, bytes: &[u8], text: &SharedText) -> Result<Mapping<Open>, Error> {
        let reservation = Reservation::new(with_guard(self.span_len)?, self.align, self.residue())?;
        let (runs, has_code) = text.runs();
        for (at, pages) in runs {
            // SAFETY: the run was made of this plan's segments, so it lies in the span, which nothing
            // refers to yet.
            unsafe { pages.map_over(&reservation, *at)? };
        }
        let first = reservation.address();
        let mut mapping = self.place(reservation, first, text.reuse(plan)?);
        mapping.has_code = has_code && can_share();
        mapping.memory.shares = can_share();
        mapping.fill(bytes, is_written, Pages::Zeroed);
        Ok(mapping)
    }

    fn mapped(self, bytes: &[u8], file: &ImageFile) -> Result<Mapping<Open>, Error> {
        let reservation = Reservation::new(with_guard(self.span_len)?, self.align, self.residue())?;
        for segment in self.segments.iter().filter(|segment| ImageFile::has_pages_of(segment)) {
            let at = len_of(&(self.span_start..segment.pages.start)) as usize;
            // SAFETY: the file has these bytes, and every segment lies in the span, which nothing refers to yet.
            unsafe { file.map_over(segment, &reservation, at)? };
        }
        let first = reservation.address();
        let mut mapping = self.place(reservation, first, Reuse::None);
        let mut code = mapping.segments.iter().filter(|segment| is_code(segment));
        mapping.has_code = code.all(ImageFile::has_pages_of);
        mapping.fill(bytes, |segment| !ImageFile::has_pages_of(segment), Pages::Zeroed);
        Ok(mapping)
    }

    /// In the memory that an unloaded instance left.
    fn parked(
        self,
        plan: &Plan,
        bytes: &[u8],
        text: &SharedText,
        memory: Reservation,
    ) -> Result<Mapping<Open>, Error> {
        let first = memory.address();
        let mut mapping = self.place(memory, first, text.reuse(plan)?);
        // The memory was sealed (`SealedMemory`), and its writable segments are writable again.
        mapping.is_protected = true;
        mapping.is_closed = true;
        mapping.memory.shares = can_share();
        mapping.fill(bytes, is_written, Pages::Stale);
        Ok(mapping)
    }
}

/// Whether the segments that are not written have these bytes of the file, and zeroes behind them.
///
/// # Safety
/// The segments lie in memory that nothing refers to; those that can be read can be read.
unsafe fn has_bytes(segments: &[PlannedSegment], load_bias: LoadBias, bytes: &[u8]) -> bool {
    let mut unwritten = segments.iter().filter(|segment| !is_written(segment));
    unwritten.all(|segment| {
        let start = load_bias.apply(segment.pages.start);
        // SAFETY: the caller's promise.
        segment.access.read && unsafe { is_same(start, segment.len(), segment.filled(bytes)) }
    })
}

fn is_written(segment: &PlannedSegment) -> bool {
    segment.access.write
}

/// Whether a segment is executable in the end.
pub(super) fn is_code(segment: &PlannedSegment) -> bool {
    segment.access.execute && !segment.access.write
}

impl Mapping<Open> {
    /// Reserves the plan's span and fills it. `/proc/self/maps` shows `name`.
    pub(crate) fn new(
        plan: &Plan,
        source: Source<'_>,
        name: Option<&str>,
    ) -> Result<Mapping<Open>, Error> {
        let unplaced = Unplaced::new(plan)?;
        let mapping = match source {
            // It has its name already.
            Source::Copied(bytes) => return unplaced.copied(bytes, name, false),
            Source::Single(bytes) => return unplaced.copied(bytes, name, true),
            Source::InPlaceFile(file) => unplaced.in_place(plan, file)?,
            Source::Shared(bytes, text) => match cache::take_parked(&text.key) {
                // It has its name already.
                Some(memory) => return unplaced.parked(plan, bytes, text, memory),
                None => unplaced.shared(plan, bytes, text)?,
            },
            Source::File(bytes, file) => unplaced.mapped(bytes, file)?,
        };
        mapping.set_name(name);
        Ok(mapping)
    }

    /// Names the memory, if there is a name.
    pub(super) fn set_name(&self, name: Option<&str>) {
        if let Some(name) = name {
            self.memory.set_name(name);
        }
    }

    /// Puts memory that can be executed, with the file's bytes, where the code will be: for a process that may not
    /// make memory executable.
    #[cold]
    fn place_code(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let OpenMemory { reservation, reuse, .. } = &mut self.memory;
        let is_huge = large_part(self.span_len, self.rounds_up) > 0;
        for segment in self.segments.iter().filter(|segment| is_code(segment)) {
            let source = bytes.get(segment.file.clone()).unwrap_or(&[]);
            let start = self.load_bias.apply(segment.pages.start);
            let start = start.saturating_sub(reservation.address());
            let part = start..start.saturating_add(segment.len());
            // SAFETY: the pages lie in the reservation (`Plan`), which nothing refers to yet.
            if !unsafe { executable::place(reservation, part, is_huge, source)? } {
                *reuse = Reuse::None;
            }
        }
        self.has_code = true;
        Ok(())
    }

    /// Copies the segments that are `wanted` from the file's bytes. The rest of their pages is zero.
    fn fill(&self, bytes: &[u8], wanted: impl Fn(&PlannedSegment) -> bool, pages: Pages) {
        let segments = || self.segments.iter().filter(|segment| wanted(segment));
        if pages == Pages::Zeroed {
            self.populate(segments());
        }
        for segment in segments() {
            let source = bytes.get(segment.file.clone()).unwrap_or(&[]);
            let room = segment.len();
            let len = source.len().min(room);
            let target = self.load_bias.apply(segment.pages.start) as *mut u8;
            // SAFETY: `pages` lies in the reservation (`Plan`: every segment lies in the span), which is
            // writable, and which nothing else refers to yet. `len` is at most the length of either side,
            // and owned memory does not overlap the received bytes.
            unsafe {
                ptr::copy_nonoverlapping(source.as_ptr(), target, len);
                if pages == Pages::Stale {
                    zero(target.add(len), room.saturating_sub(len));
                }
            }
        }
    }

    /// Makes the kernel provide the pages that will be filled. Pages of zeroes (`.bss`) are left alone.
    fn populate<'s>(&self, segments: impl Iterator<Item = &'s PlannedSegment>) {
        let page = PageSize::current();
        // Only an optimization: without memory for the list, the pages are provided one by one.
        let Ok(mut runs) = try_vec::<Range<Vaddr>>(self.segments.len()) else { return };
        for segment in segments {
            let start = segment.pages.start;
            let filled = start.checked_add(segment.file.len() as u64);
            let Some(end) = filled.and_then(|end| end.page_ceil(page)) else { continue };
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        let reservation = &*self.memory;
        let offset = |at: Vaddr| self.load_bias.apply(at).saturating_sub(reservation.address());
        if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
            let (start, end) = (offset(first.start), offset(last.end));
            let huge = large_part((start..end).len(), self.rounds_up);
            let end = start.saturating_add(huge).min(reservation.len());
            // Memory with the advice is another mapping than memory without, and only a single mapping can
            // be moved when it is used again. A rest of less than a large page is not changed by the advice.
            let is_last = huge > 0 && reservation.len().saturating_sub(end) < HUGE_PAGE;
            reservation.advise_huge(start..if is_last { reservation.len() } else { end });
        }
        runs.iter().for_each(|run| reservation.populate(offset(run.start)..offset(run.end)));
    }

    /// The segments that are not written, to be read, and the others, to be stored to at the same time.
    ///
    /// `None` while relocations may be stored into the former.
    pub(crate) fn split(&mut self) -> Option<(Unwritten<'_>, Writable<'_>)> {
        let unwritten = Unwritten { segments: &self.segments, load_bias: self.load_bias };
        (!self.text_relocations).then(|| (unwritten, self.writable_parts()))
    }

    /// The parts that can be stored to, while nothing is read.
    pub(crate) fn writable(&mut self) -> Writable<'_> {
        self.writable_parts()
    }

    fn writable_parts(&self) -> Writable<'_> {
        Writable {
            segments: &self.segments,
            load_bias: self.load_bias,
            all: self.text_relocations && !self.is_protected,
            last: Vaddr(0)..Vaddr(0),
        }
    }

    /// Stores `bytes` at `at`. `None`, and nothing is stored, unless all of it is writable.
    pub(crate) fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        self.writable().store(at, bytes)
    }

    /// All of a writable segment, by its index in the plan.
    pub(crate) fn segment_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        let segment = self.segments.get(index).filter(|segment| segment.access.write)?;
        let start = self.load_bias.apply(segment.pages.start) as *mut u8;
        // SAFETY: a writable segment of an open mapping, mapped and filled, borrowed as `self` is.
        Some(unsafe { std::slice::from_raw_parts_mut(start, segment.len()) })
    }
}

/// The segments of an open mapping that are not written.
pub(crate) struct Unwritten<'m> {
    segments: &'m [PlannedSegment],
    load_bias: LoadBias,
}

impl ReadAt for Unwritten<'_> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        let len = range.end.checked_sub(range.start)?;
        let holds = |segment: &PlannedSegment| {
            !segment.access.write
                && segment.pages.start <= range.start
                && range.end <= segment.pages.end
        };
        self.segments.iter().find(|segment| holds(segment))?;
        let start = self.load_bias.apply(range.start) as *const u8;
        // SAFETY: `len` bytes of a segment that nothing writes to. While the mapping is borrowed, only
        // `Writable` exists besides, which stores into other segments. An open mapping is readable
        // everywhere.
        Some(unsafe { std::slice::from_raw_parts(start, len as usize) })
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|segment| segment.pages.contains(&start))?;
        self.read(start..segment.pages.end)
    }
}

/// The parts of an open mapping that can be stored to: the writable segments, or all while text
/// relocations are applied.
pub(crate) struct Writable<'m> {
    segments: &'m [PlannedSegment],
    load_bias: LoadBias,
    all: bool,
    /// The segment that was last stored to, as stated: the next store usually goes there, too.
    last: Range<Vaddr>,
}

impl Writable<'_> {
    /// A pointer to `len` bytes at `at`, if they can be written.
    #[inline]
    fn pointer(&mut self, at: Vaddr, len: u64) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        if at < self.last.start || self.last.end < end {
            self.last = self.segment_around(at, end)?;
        }
        Some(self.load_bias.apply(at) as *mut u8)
    }

    /// A writable segment that holds all of `at..end`, as stated.
    #[cold]
    fn segment_around(&self, at: Vaddr, end: Vaddr) -> Option<Range<Vaddr>> {
        let fits = |segment: &&PlannedSegment| {
            let is_written = self.all || segment.access.write;
            is_written && segment.stated.start <= at && end <= segment.stated.end
        };
        Some(self.segments.iter().find(fits)?.stated.clone())
    }

    /// Stores `bytes` at `at`. `None`, and nothing is stored, unless all of it is writable.
    #[inline]
    pub(crate) fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        let target = self.pointer(at, N as u64)?;
        // SAFETY: N bytes inside one writable segment of an open mapping, which is borrowed mutably: only
        // `Unwritten` may exist besides, and then reads other segments. The store may be unaligned.
        unsafe { ptr::write_unaligned(target.cast(), bytes) };
        Some(())
    }

    /// The word at `at`, if it can be stored to.
    #[inline]
    pub(crate) fn stored_word(&mut self, at: Vaddr) -> Option<u64> {
        let source = self.pointer(at, 8)?;
        // SAFETY: as above; memory that can be written can be read.
        Some(unsafe { ptr::read_unaligned(source.cast()) })
    }
}

impl Mapping<Sealed> {
    /// Lets `keeper` take the memory when this is dropped.
    pub(crate) fn hand_over(&mut self, keeper: Keeper) {
        self.memory.keeper = Some(keeper);
    }

    /// The addresses that the image can write, whole pages, ascending.
    pub(crate) fn written(&self) -> impl Iterator<Item = Range<usize>> {
        let written = self.segments.iter().filter(|segment| segment.access.write);
        // RELRO splits a segment into the part before it and the part behind it.
        let outside_relro = written.flat_map(|segment| {
            let Range { start, end } = segment.pages;
            let inside = |relro: &&Range<Vaddr>| start <= relro.start && relro.end <= end;
            let relro = self.relro.iter().find(inside).map_or(end..end, Range::clone);
            [start..relro.start, relro.end..end]
        });
        let parts = outside_relro.filter(|part| part.start < part.end);
        parts.map(|part| self.load_bias.apply(part.start)..self.load_bias.apply(part.end))
    }

    /// Stores a word that the image's code may read at the same time. Does nothing unless the word is
    /// aligned, and the image can write there.
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
            // SAFETY: 8 aligned bytes inside a writable segment that is mapped as long as `self` lives,
            // and outside RELRO. One store, so that readers see the old word or the new one.
            unsafe { (*(address as *const AtomicUsize)).store(word, Ordering::Release) };
        }
    }
}

impl<State: Stage> Mapping<State> {
    pub(crate) fn load_bias(&self) -> LoadBias {
        self.load_bias
    }

    /// All addresses of the image, from its first page to its last.
    pub(crate) fn address_range(&self) -> Range<usize> {
        let start =
            self.load_bias.apply(self.segments.first().map_or(Vaddr(0), |it| it.pages.start));
        // The image is mapped there, so the sum does not wrap.
        start..start.wrapping_add(self.span_len)
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

    /// The word at `at`, now: it may be data that the image writes.
    pub(crate) fn word(&self, at: Vaddr) -> Option<usize> {
        let source = self.readable(&at.range(8)?)?;
        // SAFETY: `readable`: 8 bytes in a segment that is mapped and readable for as long as `self` lives.
        // The image may write there at the same time, as with any loader: the value is then the old one,
        // the new one, or a mixture.
        Some(unsafe { ptr::read_unaligned(source.cast::<usize>()) })
    }

    /// Whether `address` is in memory that can be executed.
    pub(crate) fn is_code(&self, address: usize) -> bool {
        let at = self.load_bias.remove(address);
        self.segments.iter().any(|segment| segment.is_code(at))
    }
}

/// For the symbol and string tables of an image. Its code does not write to them: an image that does breaks
/// the terms of [`Library::from_bytes`](crate::Library::from_bytes).
impl<State: Stage> ReadAt for Mapping<State> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let source = self.readable(&range)?;
        // SAFETY: `readable`: `len` bytes of mapped, readable, initialised (from the file, or zero) memory
        // that lives as long as `self`; not written while borrowed, see above.
        Some(unsafe { std::slice::from_raw_parts(source, len) })
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|segment| segment.pages.contains(&start))?;
        self.read(start..segment.pages.end)
    }
}
