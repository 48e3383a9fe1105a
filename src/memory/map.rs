//! An image's memory: filled, protected, and the only way to its bytes.
//!
//! One reservation holds the whole image, so that nothing else can come to lie between its
//! segments and one call unmaps it. The stages are types: a [`Mapping<Open>`] can be stored to,
//! by stated address and only where the image is writable; [`Mapping::seal`] protects it and gives a
//! [`Mapping<Sealed>`], the only form that hands out code. The reservation starts readable and
//! writable, is filled, and is then cut to each segment's protection, gaps to none: no page is ever
//! writable and executable at once.
//!
//! What takes the time is not copying but that the kernel provides a page for what is touched first.
//! So there are three ways to fill it ([`Source`]):
//!
//! * the bytes are **copied**, into pages that are provided in bulk, or that an unloaded image left;
//! * they were **received** into memory that was made for it: the largest segment stays where it
//!   arrived, and the others move apart from it to where they have to be (up to 64 KiB of that memory
//!   may stay in front of the image, zeroed);
//! * read-only segments are **shared** with other instances, as the same pages mapped once more; or
//!   they are still where another instance had them, and only what is written is filled anew.
//!
//! Behind every image is a page that nobody can access. What a large page has more than the image needs
//! cannot be accessed either. Of memory that the image was received into, up to 64 KiB may come before that
//! page: they are zero. So nobody who leaves an image by its end meets what was there before.
//!
//! Shared pages cannot get a debugger's breakpoints (the kernel refuses to write to them), so an image
//! that debuggers are told of has its own: [`Mapping::make_private`].
//!
//! Sources: gABI "Program Loading"; `mprotect(2)`, `madvise(2)`, `mremap(2)`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use region::Protection;

use crate::base::addr::{LoadBias, PageSize, Vaddr, len_of};
use crate::base::error::Error;
use crate::base::fallible::{
    TryGrow, require_memory_for_next, try_collect, try_collect_ok, try_vec,
};
use crate::elf::plan::{InPlace, Plan, PlannedSegment};
use crate::elf::read::ReadAt;
use crate::elf::segment::Access;
use crate::memory::buffer::{HEADROOM, ImageBuffer};
use crate::memory::reserve::{self, CacheKey, HUGE_PAGE, Pages, Reservation, SharedPages, zero};

/// Segments are filled; relocations may be stored.
pub(crate) enum Open {}
/// All is as the image's code will find it.
pub(crate) enum Sealed {}

/// How far an image in place is, and what becomes of its memory at that stage.
pub(crate) trait Stage {
    type Memory: Deref<Target = Reservation>;
}

impl Stage for Open {
    type Memory = OpenMemory;
}

impl Stage for Sealed {
    type Memory = SealedMemory;
}

/// Where an image's contents come from.
pub(crate) enum Source<'a> {
    /// From the file's bytes.
    Copied(&'a [u8]),
    /// From where they were received.
    InPlaceFile(InPlaceFile),
    /// What is written, from the file's bytes; the rest is these pages.
    Shared(&'a [u8], &'a SharedText),
}

/// An image's file, and how the image is to run where that was received.
pub(crate) struct InPlaceFile {
    /// With the room that `place` asks for.
    pub buffer: ImageBuffer,
    pub place: InPlace,
}

/// An image in place.
pub(crate) struct Mapping<State: Stage> {
    memory: State::Memory,
    load_bias: LoadBias,
    /// In bytes, from the first page on.
    span_len: usize,
    segments: Vec<PlannedSegment>,
    relro: Vec<Range<Vaddr>>,
    /// Relocations may be stored into segments that are not writable in the end.
    text_relocations: bool,
    /// Segments have their final protection, but for RELRO.
    is_protected: bool,
    /// At least a page behind the image cannot be accessed; what is before that, and no part of the image,
    /// is zero.
    is_closed: bool,
    /// Most of its pages are large ones, which nothing has cut yet.
    is_huge: bool,
    state: PhantomData<State>,
}

/// The memory of an image that is not finished: not all of it is protected. If the image comes to
/// nothing, the system gets it back.
pub(crate) struct OpenMemory {
    reservation: Reservation,
    /// How it can be of use to the next image once it is finished.
    reuse: Reuse,
}

/// The memory of an image that is, or was, finished. Only such can be of use again, since whoever gets it
/// relies on what is in place. Made by [`Mapping::seal`] alone.
pub(crate) struct SealedMemory {
    reservation: ManuallyDrop<Reservation>,
    reuse: Reuse,
    /// Read-only segments are no longer those of other instances.
    is_private: AtomicBool,
    /// It can never be unmapped.
    is_sealed: AtomicBool,
    /// Its addresses are not to be used again soon.
    is_quarantined: bool,
}

/// How memory can be of use again.
enum Reuse {
    None,
    /// To any image of the same size: it is plain memory, of which the image has so many bytes.
    Plain(usize),
    /// To the next instance that shares the same pages, but for these, which are written; from the
    /// start of the memory on.
    Parked {
        purpose: Weak<CacheKey>,
        written: Vec<Range<usize>>,
    },
}

impl Deref for OpenMemory {
    type Target = Reservation;

    fn deref(&self) -> &Reservation {
        &self.reservation
    }
}

impl Deref for SealedMemory {
    type Target = Reservation;

    fn deref(&self) -> &Reservation {
        &self.reservation
    }
}

impl Drop for SealedMemory {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and `self` is not used any more.
        let reservation = unsafe { ManuallyDrop::take(&mut self.reservation) };
        if *self.is_sealed.get_mut() {
            // Nobody can unmap it.
            return reservation.forget();
        }
        if self.is_quarantined {
            reservation.quarantine();
        } else {
            match std::mem::replace(&mut self.reuse, Reuse::None) {
                Reuse::Plain(used) => reservation.recycle(used),
                Reuse::Parked { purpose, written } if !*self.is_private.get_mut() => {
                    reservation.park(purpose, &written);
                }
                Reuse::Parked { .. } | Reuse::None => drop(reservation),
            }
        }
        reserve::give_back_now();
    }
}

impl Mapping<Open> {
    /// Reserves the plan's span and fills it. `name` is what `/proc/self/maps` shows.
    pub(crate) fn new(
        plan: &Plan,
        source: Source<'_>,
        name: Option<&str>,
    ) -> Result<Mapping<Open>, Error> {
        /// Up to so many bytes of the file behind the image it takes less time to zero them than to have
        /// their pages protected: the buffer has a guard at its end.
        const CLEARED: usize = 1 << 14;
        let too_large = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        let span_len = usize::try_from(plan.span_len()).map_err(|_| too_large())?;
        let align = usize::try_from(plan.align).map_err(|_| too_large())?;
        let residue = plan.span.start.0 as usize;
        let page = region::page::size();
        let with_guard = |len: usize| len.checked_add(page).ok_or_else(too_large);
        let segments = try_collect(plan.segments.iter().cloned())?;
        let relro = try_collect(plan.relro.iter().cloned())?;
        let over = |reservation: Reservation, first: usize, reuse: Reuse| {
            let load_bias = LoadBias::between(plan.span.start, first);
            Mapping {
                memory: OpenMemory { reservation, reuse },
                load_bias,
                span_len,
                segments,
                relro,
                text_relocations: plan.text_relocations,
                is_protected: false,
                is_closed: false,
                is_huge: false,
                state: PhantomData,
            }
        };
        let is_written = |segment: &PlannedSegment| segment.access.write;
        let mapping = match source {
            Source::Copied(bytes) => {
                // Large pages start at a multiple of their size, and are whole.
                let huge = reserve::in_huge_pages(span_len);
                let huge_align = if huge > 0 { HUGE_PAGE } else { 1 };
                let len = with_guard(span_len.max(huge))?;
                let align = align.max(huge_align);
                let (reservation, pages) = Reservation::taken(len, span_len, align, residue)?;
                if pages == Pages::Stale && name.is_none() {
                    reservation.clear_name();
                }
                let first = reservation.address();
                let mut mapping = over(reservation, first, Reuse::Plain(span_len));
                mapping.is_huge = pages == Pages::Zeroed && huge > 0;
                mapping.is_closed = pages == Pages::Stale;
                mapping.fill(bytes, |_| true, pages);
                mapping
            }
            Source::InPlaceFile(InPlaceFile { buffer, place }) => {
                let (mut reservation, len) = buffer.into_memory();
                let first_file = plan.segments.first().map_or(0, |segment| segment.file.start);
                let start =
                    HEADROOM.checked_add(first_file).and_then(|it| it.checked_sub(place.down));
                let start = start.ok_or_else(too_large)?;
                let end = start.checked_add(span_len).ok_or_else(too_large)?;
                // SAFETY: the buffer was owned, so nobody refers to its memory; the file is at `HEADROOM`
                // in it, and it has the room that `place` asks for (`InPlaceFile`).
                let (first, is_closed) = unsafe {
                    let touched = HEADROOM.saturating_add(len).min(reservation.len());
                    spread_segments(plan, reservation.as_ptr(), start, touched);
                    let is_cut = reservation.shrink(with_guard(end)?, touched);
                    let behind = touched.saturating_sub(end);
                    let is_closed = !is_cut && behind <= CLEARED;
                    if is_closed {
                        zero(reservation.as_ptr().add(end), behind);
                    }
                    (reservation.as_ptr().add(start).addr(), is_closed)
                };
                let mut mapping = over(reservation, first, Reuse::None);
                mapping.is_closed = is_closed;
                mapping.is_huge = reserve::in_huge_pages(len) > 0;
                mapping
            }
            Source::Shared(bytes, text) => {
                if let Some(reservation) = Reservation::parked(&text.purpose) {
                    let first = reservation.address();
                    let mut mapping = over(reservation, first, text.reuse(plan)?);
                    // It was sealed (`SealedMemory`), and what is written was made writable since.
                    mapping.is_protected = true;
                    mapping.is_closed = true;
                    mapping.fill(bytes, is_written, Pages::Stale);
                    return Ok(mapping);
                }
                let reservation = Reservation::new(with_guard(span_len)?, align, residue)?;
                for (at, pages) in &text.runs {
                    // SAFETY: the run was cut from this plan's segments, so it lies in the span,
                    // which nobody refers to yet.
                    unsafe { pages.map_over(&reservation, *at)? };
                }
                let first = reservation.address();
                let mapping = over(reservation, first, text.reuse(plan)?);
                mapping.fill(bytes, is_written, Pages::Zeroed);
                mapping
            }
        };
        if let Some(name) = name {
            mapping.memory.set_name(&format!("memdl:{name}"));
        }
        Ok(mapping)
    }

    /// Copies those segments that are `wanted` from the file's bytes; the rest of their pages is zero.
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
            // SAFETY: `pages` lies in the reservation (`Plan`: every segment lies in the span),
            // which is writable and known to nobody else yet; `len` is no more than either side
            // has, and memory of our own does not overlap the received bytes.
            unsafe {
                ptr::copy_nonoverlapping(source.as_ptr(), target, len);
                if pages == Pages::Stale {
                    zero(target.add(len), room.saturating_sub(len));
                }
            }
        }
    }

    /// Has the pages that will be filled provided. Pages of zeroes (`.bss`) are left alone.
    fn populate<'s>(&self, segments: impl Iterator<Item = &'s PlannedSegment>) {
        let page = PageSize::current();
        // It saves time; without memory that is not saved.
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
        let place = |at: Vaddr| self.load_bias.apply(at).saturating_sub(reservation.address());
        if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
            let (start, end) = (place(first.start), place(last.end));
            let huge = reserve::in_huge_pages((start..end).len());
            let end = start.saturating_add(huge).min(reservation.len());
            // What is advised is another mapping than what is not, and only one can be moved when it is
            // used again. A rest of less than a large page is not changed by the advice.
            let is_last = huge > 0 && reservation.len().saturating_sub(end) < HUGE_PAGE;
            reservation.advise_huge(start..if is_last { reservation.len() } else { end });
        }
        runs.iter().for_each(|run| reservation.populate(place(run.start)..place(run.end)));
    }

    /// Gives the segments their final protection, but for RELRO: code of the image is to run while it
    /// is still relocated. Text relocations are over.
    pub(crate) fn protect(&mut self) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_protected, true) {
            self.protect_all(&[])?;
        }
        Ok(())
    }

    /// Makes RELRO read-only, and all else as it has to be: relocating is over.
    pub(crate) fn seal(self) -> Result<Mapping<Sealed>, Error> {
        if self.is_protected {
            for relro in &self.relro {
                self.protect_pages(relro, Protection::READ)?;
            }
        } else {
            self.protect_all(&self.relro)?;
        }
        let OpenMemory { reservation, reuse } = self.memory;
        Ok(Mapping {
            memory: SealedMemory {
                reservation: ManuallyDrop::new(reservation),
                reuse,
                is_quarantined: false,
                is_private: AtomicBool::new(false),
                is_sealed: AtomicBool::new(false),
            },
            load_bias: self.load_bias,
            span_len: self.span_len,
            segments: self.segments,
            relro: self.relro,
            text_relocations: false,
            is_protected: true,
            is_closed: true,
            is_huge: false,
            state: PhantomData,
        })
    }

    /// Protects the segments that are not writable, the gaps between segments, and `relro`; each
    /// stretch of pages that are to have the same protection by one call.
    fn protect_all(&self, relro: &[Range<Vaddr>]) -> Result<(), Error> {
        let segments = self.segments.iter().filter(|segment| !segment.access.write);
        let segments = segments.map(|segment| (segment.pages.clone(), segment.protection()));
        let gaps = self.segments.windows(2).filter_map(|pair| match pair {
            [before, after] if before.pages.end < after.pages.start => {
                Some((before.pages.end..after.pages.start, Protection::NONE))
            }
            _ => None,
        });
        let relro_pages = relro.iter().map(|pages| (pages.clone(), Protection::READ));
        // The room is known, though not to the iterator: a segment and a gap, or RELRO.
        let with_gaps = self.segments.len().saturating_mul(2);
        let mut all = try_vec(with_gaps.saturating_add(relro.len()))?;
        all.extend(segments.chain(gaps).chain(relro_pages));
        all.sort_unstable_by_key(|(pages, _)| pages.start);
        all.dedup_by(|(pages, protection), (last, of_last)| {
            let joins = last.end == pages.start && of_last == protection;
            if joins {
                last.end = pages.end;
            }
            joins
        });
        for run in all.chunk_by(|(before, _), (pages, _)| before.end == pages.start) {
            self.protect_run(run)?;
        }
        if self.is_closed { Ok(()) } else { self.close_behind() }
    }

    /// Makes what is behind the image inaccessible: at least a page, so that whoever writes beyond the
    /// image meets that and nothing else.
    fn close_behind(&self) -> Result<(), Error> {
        let start = self.address_range().end;
        let in_image = start.saturating_sub(self.memory.address());
        let len = self.memory.len().saturating_sub(in_image);
        // SAFETY: the end of the reservation, in which nothing of the image is.
        unsafe { region::protect(start as *const u8, len, Protection::NONE) }.map_err(refused(len))
    }

    /// Protects stretches without a gap between them.
    fn protect_run(&self, run: &[(Range<Vaddr>, Protection)]) -> Result<(), Error> {
        /// Up to so many bytes it takes less time to protect pages twice than to ask once more.
        const FEW: u64 = 1 << 17;
        /// And from so many on if they are large pages, for those that are not cut are quick.
        const UNCUT: u64 = 2 * HUGE_PAGE as u64;
        let ([(first, outer), .., (last, of_last)], [_, inner @ .., _]) = (run, run) else {
            return run.iter().try_for_each(|(pages, access)| self.protect_pages(pages, *access));
        };
        let is_uncut = self.is_huge && len_of(&(first.start..last.end)) >= UNCUT;
        let inside: u64 = inner.iter().map(|(pages, _)| len_of(pages)).sum();
        // Mostly code is between what is only read: all of it is made so, then the code is protected.
        if outer == of_last && (inside <= FEW || is_uncut) {
            self.protect_pages(&(first.start..last.end), *outer)?;
            return inner
                .iter()
                .filter(|(_, access)| access != outer)
                .try_for_each(|(pages, access)| self.protect_pages(pages, *access));
        }
        run.iter().try_for_each(|(pages, access)| self.protect_pages(pages, *access))
    }

    /// The segments that are not written, to be read while the others are stored to.
    ///
    /// `None` while relocations may be stored into the former.
    pub(crate) fn split(&mut self) -> Option<(Unwritten<'_>, Writable<'_>)> {
        let unwritten = Unwritten { segments: &self.segments, load_bias: self.load_bias };
        (!self.text_relocations).then(|| (unwritten, self.parts_written()))
    }

    /// What can be stored to while nothing is read.
    pub(crate) fn writable(&mut self) -> Writable<'_> {
        self.parts_written()
    }

    fn parts_written(&self) -> Writable<'_> {
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

    /// All of a segment that is written; the segment is one of the plan's, by its index.
    pub(crate) fn segment_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        let segment = self.segments.get(index).filter(|segment| segment.access.write)?;
        let start = self.load_bias.apply(segment.pages.start) as *mut u8;
        // SAFETY: a segment of an open mapping that can be written, mapped and filled, borrowed as
        // `self` is.
        Some(unsafe { std::slice::from_raw_parts_mut(start, segment.len()) })
    }
}

/// Moves the segments of a received file to where they have to be, and zeroes what the file has no bytes
/// for. The first page of the image comes to be at `start` of the memory; all behind `touched` is zero.
///
/// # Safety
/// The file is at [`HEADROOM`] in `memory`, with as much there as [`Plan::in_place`] said, and `start` is what
/// it said; it can be written, and nobody else refers to it.
unsafe fn spread_segments(plan: &Plan, memory: *mut u8, start: usize, touched: usize) {
    let Some(first) = plan.segments.first() else { return };
    // Neither sum wraps: both places lie in the memory (`Plan::in_place`).
    let place = |segment: &PlannedSegment| {
        let skip = len_of(&(first.pages.start..segment.pages.start)) as usize;
        (HEADROOM.wrapping_add(segment.file.start), start.wrapping_add(skip))
    };
    let moves_down = |segment: &&PlannedSegment| {
        let (from, at) = place(segment);
        at < from
    };
    let put = |segment: &PlannedSegment| {
        let (from, at) = place(segment);
        let len = segment.file.len().min(segment.len());
        // SAFETY: both places lie in the memory (`Plan::in_place`). They may overlap each other, which
        // `copy` allows.
        unsafe {
            if at != from {
                ptr::copy(memory.add(from), memory.add(at), len);
            }
            let (filled, end) = (at.wrapping_add(len), at.wrapping_add(segment.len()));
            zero(memory.add(filled), (filled..end.min(touched)).len());
        }
    };
    // None comes to lie on what is yet to move. What moves down goes first, from the first on: if any
    // does, segments are in the file as they are in memory (`Plan::in_place`), so what has not moved yet
    // lies behind. What moves up goes from the last on: what has not moved yet ends, in the file, before
    // where it is to end in memory, and so before the ones behind it.
    plan.segments.iter().filter(moves_down).for_each(put);
    plan.segments.iter().rev().filter(|segment| !moves_down(segment)).for_each(put);
    // What the file has in front of its first segment is no part of the image.
    // SAFETY: between the start of the file and that of the image.
    unsafe { zero(memory.add(HEADROOM), (HEADROOM..start).len()) };
}

/// Those segments of an open mapping that are not written.
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
        // SAFETY: `len` bytes of a segment that nobody writes to: `Writable`, which alone is there
        // besides while the mapping is borrowed, stores into others only. A mapping that is open can
        // be read everywhere.
        Some(unsafe { std::slice::from_raw_parts(start, len as usize) })
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|segment| segment.pages.contains(&start))?;
        self.read(start..segment.pages.end)
    }
}

/// What can be stored to of an open mapping: the segments that are written, or all while text
/// relocations are applied.
pub(crate) struct Writable<'m> {
    segments: &'m [PlannedSegment],
    load_bias: LoadBias,
    all: bool,
    /// The segment that was last stored to, as it is stated: mostly the next is there, too.
    last: Range<Vaddr>,
}

impl Writable<'_> {
    /// A pointer to `len` bytes at `at`, if they can be written.
    #[inline]
    fn place(&mut self, at: Vaddr, len: u64) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        if at < self.last.start || self.last.end < end {
            self.last = self.segment_around(at, end)?;
        }
        Some(self.load_bias.apply(at) as *mut u8)
    }

    /// A segment that can be written and holds all of this.
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
        let target = self.place(at, N as u64)?;
        // SAFETY: N bytes inside one segment of an open mapping that can be written, and which is
        // borrowed mutably: only `Unwritten` may be there besides, and then reads others. The place
        // need not be aligned.
        unsafe { ptr::write_unaligned(target.cast(), bytes) };
        Some(())
    }

    /// The word at `at`, where it could be stored to.
    #[inline]
    pub(crate) fn stored_word(&mut self, at: Vaddr) -> Option<u64> {
        let source = self.place(at, 8)?;
        // SAFETY: as above; what can be written can be read.
        Some(unsafe { ptr::read_unaligned(source.cast()) })
    }
}

/// The segments of an image that are not written, for all instances that are not debugged.
pub(crate) struct SharedText {
    /// Each run of such segments without a gap: where it is in the span, and its pages.
    runs: Vec<(usize, SharedPages)>,
    /// What memory is parked for that has these pages in place.
    purpose: Arc<CacheKey>,
}

impl Drop for SharedText {
    fn drop(&mut self) {
        reserve::forget_purpose(&self.purpose);
    }
}

impl SharedText {
    /// What becomes of an instance's memory.
    fn reuse(&self, plan: &Plan) -> Result<Reuse, Error> {
        let place = |at: Vaddr| len_of(&(plan.span.start..at)) as usize;
        let written = plan.segments.iter().filter(|segment| segment.access.write);
        let written = written.map(|segment| place(segment.pages.start)..place(segment.pages.end));
        let written = try_collect(written)?;
        Ok(Reuse::Parked { purpose: Arc::downgrade(&self.purpose), written })
    }

    /// Of the image with these bytes; `None` if they are too few to be worth it.
    pub(crate) fn new(plan: &Plan, bytes: &[u8]) -> Result<Option<SharedText>, Error> {
        /// A mapping more for each instance costs as much as copying so many bytes.
        const WORTH: usize = 1 << 16;
        let mut runs: Vec<Vec<&PlannedSegment>> = Vec::new();
        for segment in plan.segments.iter().filter(|segment| !segment.access.write) {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|it| it.pages.end == segment.pages.start) => {
                    run.try_push(segment)?;
                }
                _ => {
                    require_memory_for_next(runs.len())?;
                    runs.try_push(vec![segment])?;
                }
            }
        }
        let len = |run: &[&PlannedSegment]| run.iter().map(|segment| segment.len()).sum::<usize>();
        if runs.iter().map(|run| len(run)).sum::<usize>() < WORTH {
            return Ok(None);
        }
        let pages = |run: Vec<&PlannedSegment>| {
            let start = run.first().map_or(plan.span.start, |segment| segment.pages.start);
            let filled = |segment: &PlannedSegment| {
                let at = len_of(&(start..segment.pages.start)) as usize;
                let source = bytes.get(segment.file.clone()).unwrap_or(&[]);
                (at, source.get(..segment.len()).unwrap_or(source))
            };
            let page = region::page::size();
            let parts = run.iter().map(|segment| {
                let (at, source) = filled(segment);
                at..at.saturating_add(source.len().next_multiple_of(page))
            });
            let pages = SharedPages::filled(len(&run), parts, |memory| {
                for segment in &run {
                    let (at, source) = filled(segment);
                    if let Some(place) = memory.get_mut(at..at.saturating_add(source.len())) {
                        place.copy_from_slice(source);
                    }
                }
            })?;
            Ok((len_of(&(plan.span.start..start)) as usize, pages))
        };
        let runs = try_collect_ok::<_, Error>(runs.into_iter().map(pages))?;
        Ok(Some(SharedText { runs, purpose: Arc::default() }))
    }
}

impl PlannedSegment {
    fn len(&self) -> usize {
        len_of(&self.pages) as usize
    }

    /// In the end.
    fn protection(&self) -> Protection {
        let Access { read, write, execute } = self.access;
        match (read, write, execute) {
            (_, true, _) => Protection::READ_WRITE,
            (_, false, true) => Protection::READ_EXECUTE,
            (true, false, false) => Protection::READ,
            (false, false, false) => Protection::NONE,
        }
    }
}

impl<State: Stage> Mapping<State> {
    fn protect_pages(&self, pages: &Range<Vaddr>, protection: Protection) -> Result<(), Error> {
        // What is in front of the image, and never used, goes with its first pages: one mapping less.
        let is_first = self.segments.first().is_some_and(|first| first.pages.start == pages.start);
        let first = if is_first { None } else { Some(self.load_bias.apply(pages.start)) };
        let start = first.unwrap_or_else(|| self.memory.address());
        let len = (start..self.load_bias.apply(pages.end)).len();
        // SAFETY: whole pages of the reservation, which is ours; no reference into them is alive
        // while the mapping is open, but for ones made and dropped inside `store`.
        unsafe { region::protect(start as *const u8, len, protection) }.map_err(refused(len))
    }
}

/// What the system said of protecting `len` bytes.
fn refused(len: usize) -> impl Fn(region::Error) -> Error {
    move |error| match error {
        region::Error::SystemCall(source) => Error::system(
            format!("mprotect of {len:#x} bytes"),
            io::Error::from_raw_os_error(source),
        ),
        other => Error::system("mprotect", io::Error::other(other)),
    }
}

/// Whether the system can make memory immutable.
pub(crate) fn can_seal() -> bool {
    // SAFETY: no memory at all is to be sealed.
    unsafe { libc::syscall(SYS_MSEAL, 0usize, 0usize, 0usize) == 0 }
}

/// The number of `mseal(2)`, the same on all machines.
const SYS_MSEAL: libc::c_long = 462;

impl Mapping<Sealed> {
    /// Makes the image immutable, as far as it is not written: see [`Loader::seal`](crate::Loader::seal).
    /// It stays for good then.
    pub(crate) fn seal_for_good(&self) -> Result<(), Error> {
        let addresses = self.address_range();
        let (start, len) = (addresses.start, addresses.len());
        // SAFETY: whole pages of this image's, with nobody else's between; that they cannot be unmapped,
        // `Memory` knows from here on.
        if unsafe { libc::syscall(SYS_MSEAL, start, len, 0usize) } != 0 {
            return Err(Error::last_os_error("mseal of an image"));
        }
        self.memory.is_sealed.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.memory.is_sealed.load(Ordering::Relaxed)
    }

    /// Keeps other mappings off these addresses for a while, once the image is gone: a debugger may
    /// still write breakpoints there.
    pub(crate) fn quarantine(&mut self) {
        self.memory.is_quarantined = true;
    }

    /// Gives the image pages of its own where it shared them with other instances. Threads may run in
    /// it meanwhile: each segment changes at once, to what looks the same.
    pub(crate) fn make_private(&self) -> Result<(), Error> {
        // A sealed image never shares any.
        if self.is_sealed() {
            return Ok(());
        }
        self.memory.is_private.store(true, Ordering::Relaxed);
        for segment in self.segments.iter().filter(|segment| !segment.access.write) {
            let len = segment.len();
            let target = self.load_bias.apply(segment.pages.start) as *mut u8;
            let own = Reservation::new(len, region::page::size(), 0)?;
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: both are whole pages, one of this image, which can be read or is without any
            // access and then has no contents to anyone; the other owned and known to nobody. The
            // second takes the place of the first, with its contents and protection.
            unsafe {
                if segment.access.read {
                    ptr::copy_nonoverlapping(target, own.as_ptr(), len);
                }
                region::protect(own.as_ptr(), len, segment.protection()).map_err(refused(len))?;
                let moved =
                    libc::mremap(own.as_ptr().cast(), len, len, flags, target.cast::<c_void>());
                if moved == libc::MAP_FAILED {
                    return Err(Error::last_os_error("mremap of an image's pages"));
                }
                own.forget();
            }
        }
        Ok(())
    }

    /// The addresses of what the image can write, by whole pages, ascending.
    pub(crate) fn written(&self) -> impl Iterator<Item = Range<usize>> {
        let written = self.segments.iter().filter(|segment| segment.access.write);
        // RELRO splits a segment into what is before it and what is behind it.
        let outside_relro = written.flat_map(|segment| {
            let Range { start, end } = segment.pages;
            let inside = |relro: &&Range<Vaddr>| start <= relro.start && relro.end <= end;
            let relro = self.relro.iter().find(inside).map_or(end..end, Range::clone);
            [start..relro.start, relro.end..end]
        });
        let parts = outside_relro.filter(|part| part.start < part.end);
        parts.map(|part| self.load_bias.apply(part.start)..self.load_bias.apply(part.end))
    }

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

impl<State: Stage> Mapping<State> {
    pub(crate) fn load_bias(&self) -> LoadBias {
        self.load_bias
    }

    /// All addresses of the image, from its first page to its last.
    pub(crate) fn address_range(&self) -> Range<usize> {
        let start =
            self.load_bias.apply(self.segments.first().map_or(Vaddr(0), |it| it.pages.start));
        // It is mapped there, so it does not wrap.
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
        self.segments.iter().any(|segment| segment.is_code(at))
    }
}

/// The symbol and string tables of an image in place. They stand in memory that the image's code
/// does not write: an image that does breaks the terms of
/// [`Library::from_bytes`](crate::Library::from_bytes).
impl<State: Stage> ReadAt for Mapping<State> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::plan::InPlace;
    use crate::elf::segment::Access;

    const PAGE: usize = 4096;

    fn plan(segments: &[(usize, Range<usize>, bool)]) -> Plan {
        let page = |number: usize| Vaddr((number * PAGE) as u64);
        let segments: Vec<_> = segments
            .iter()
            .map(|(first, file, write)| {
                let pages = file.len().div_ceil(PAGE).max(1);
                let access = Access { read: true, write: *write, execute: false };
                let pages = page(*first)..page(first + pages);
                PlannedSegment { stated: pages.clone(), pages, file: file.clone(), access }
            })
            .collect();
        let span = segments[0].pages.start..segments[segments.len() - 1].pages.end;
        let align = PAGE as u64;
        Plan { span, align, segments, relro: vec![], text_relocations: false }
    }

    fn contents(mapping: &Mapping<Open>, plan: &Plan) -> Vec<Vec<u8>> {
        let segments = plan.segments.iter();
        segments.map(|segment| mapping.read(segment.pages.clone()).unwrap().to_vec()).collect()
    }

    /// The image where this file was received is as it is when it is copied.
    fn assert_same(plan: &Plan, file: &[u8]) -> Option<InPlace> {
        let mut buffer = ImageBuffer::new(file.len()).unwrap();
        buffer.copy_from_slice(file);
        let place = plan.in_place(buffer.address(), HEADROOM)?;
        buffer.make_room(place.room).unwrap();
        let received = Source::InPlaceFile(InPlaceFile { buffer, place });
        let [received, copied] = [received, Source::Copied(file)]
            .map(|source| Mapping::new(plan, source, None).unwrap());
        assert!(contents(&received, plan) == contents(&copied, plan), "{plan:?}");
        Some(place)
    }

    #[test]
    fn the_largest_segment_stays_where_it_was_received() {
        let file: Vec<u8> = (0..256 * PAGE).map(|at| (at / 16 % 251) as u8).collect();
        let bytes = |pages: Range<usize>| pages.start * PAGE..pages.end * PAGE - 100;
        // As lld lays out: each segment one page further apart than in the file.
        let text = (9, bytes(8..140), false);
        let lld = [(0, bytes(0..8), false), text.clone(), (142, bytes(140..150), true)];
        let place = assert_same(&plan(&lld), &file).unwrap();
        assert_eq!(place, InPlace { down: PAGE, room: 151 * PAGE });
        // Nothing is as far in front as it would have to move down: then the first stays.
        let far = [(0, bytes(0..8), false), (100, bytes(8..240), false)];
        assert_eq!(assert_same(&plan(&far), &file).unwrap().down, 0);
        // In another order in the file.
        let mixed = [(0, bytes(0..1), false), (20, bytes(9..15), true), (42, bytes(2..240), false)];
        assert_eq!(assert_same(&plan(&mixed), &file).unwrap().down, 0);
        // One would have to move down further than the first.
        let down = [(0, bytes(0..8), false), (9, bytes(20..240), false)];
        assert_eq!(assert_same(&plan(&down), &file), None);
    }

    #[test]
    fn received_images_are_as_copied_ones_however_they_lie_in_the_file() {
        let mut state = 0x9e37_79b9_u64;
        let mut below = |most: usize| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) as usize % most
        };
        let file: Vec<u8> = (0..400 * PAGE).map(|at| (at / 8 % 253) as u8).collect();
        let (mut in_place, mut moved_down) = (0, 0);
        for round in 0..300 {
            let (mut at, mut from) = (0, 0);
            let segments: Vec<_> = (0..2 + below(4))
                .map(|_| {
                    // Mostly in order, and sometimes with a page in common, as linkers have it.
                    if round % 4 == 0 {
                        from = below(300);
                    }
                    let pages = 1 + below(90);
                    let start = from.min(399);
                    let end = ((start + pages) * PAGE).min(file.len()) - below(PAGE);
                    let segment = (at, start * PAGE..end, below(2) == 0);
                    at += pages + below(4);
                    from += pages - below(2);
                    segment
                })
                .collect();
            if let Some(place) = assert_same(&plan(&segments), &file) {
                in_place += 1;
                moved_down += usize::from(place.down > 0);
            }
        }
        assert!(in_place > 100 && moved_down > 30, "{in_place}, {moved_down}");
    }
}
