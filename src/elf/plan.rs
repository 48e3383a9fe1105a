//! Which pages a loaded image takes: pure arithmetic, done once, so that no later stage rounds.
//!
//! An ELF segment starts and ends at any byte; protection works by whole pages. [`Plan::new`]
//! turns the stated segments into page-exact ones and says which file bytes fill them. The edges
//! are filled as `mmap` of the file would fill them (the file's bytes before `p_vaddr` and behind
//! `p_filesz` on the same page), except that a segment with a zero-filled part (`.bss`) is zero
//! right behind its file bytes.
//!
//! Sources: gABI "Program Loading"; RELRO's rounding: glibc `_dl_protect_relro`.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::{PageSize, Vaddr};
use crate::base::error::{Error, Place};
use crate::base::fallible::{try_collect, try_vec};
use crate::elf::image::{Access, Decoded};

/// The pages of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// From the first page to the last; every segment lies in it.
    pub span: Range<Vaddr>,
    /// The span's first byte lies at a multiple of this, a power of two and at least a page,
    /// modulo the stated address.
    pub align: u64,
    /// Ascending; they share no page.
    pub segments: Vec<PlannedSegment>,
    /// Page-exact, each inside one writable segment's pages, none empty.
    pub relro: Vec<Range<Vaddr>>,
    /// Segments that are not writable in the end have to be written while relocating.
    pub text_relocations: bool,
}

/// How an image runs where its file was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InPlace {
    /// So many bytes its first segment moves down; all others move that much less up.
    pub down: usize,
    /// How much memory it takes from the start of the file on, in bytes.
    pub room: usize,
}

/// A segment's whole pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedSegment {
    /// The segment as it is stated, in `pages`: what else is on these is not the image's to change.
    pub stated: Range<Vaddr>,
    /// Whole pages, not empty.
    pub pages: Range<Vaddr>,
    /// These bytes of the file go to the start of `pages`; all else in it is zero.
    pub file: Range<usize>,
    /// What holds once the image is relocated.
    pub access: Access,
}

impl PlannedSegment {
    /// Whether `at` is in executable memory that the image states and its file has: what else is on
    /// the pages is zeros, or another's.
    pub(crate) fn is_code(&self, at: Vaddr) -> bool {
        let in_file =
            at.checked_sub(self.pages.start).is_some_and(|skip| skip < self.file.len() as u64);
        self.access.execute && in_file && self.stated.contains(&at)
    }
}

impl Plan {
    /// Plans the pages of an image whose file is `file_len` bytes long.
    pub(crate) fn new(decoded: &Decoded, file_len: usize, page: PageSize) -> Result<Plan, Error> {
        let mut segments = try_vec(decoded.segments.len())?;
        let mut align = page.get();
        for segment in &decoded.segments {
            let wraps = || {
                Error::malformed("a segment wraps around", Place::Address(segment.addresses.start))
            };
            let start = segment.addresses.start.page_floor(page);
            let pages = start..segment.addresses.end.page_ceil(page).ok_or_else(wraps)?;
            let pages_len = pages.end.checked_sub(pages.start).ok_or_else(wraps)?;

            // Offset and address agree modulo the page, so the file has these bytes.
            let head = segment.addresses.start.checked_sub(start).ok_or_else(wraps)?;
            let head = usize::try_from(head).map_err(|_| wraps())?;
            let len = segment.addresses.end.checked_sub(segment.addresses.start);
            let has_zero_part = len.ok_or_else(wraps)? > segment.file.len() as u64;
            let file_start = if segment.file.is_empty() {
                // Nothing, where the next bytes would be.
                segments.last().map_or(0, |last: &PlannedSegment| last.file.end)
            } else {
                segment.file.start.checked_sub(head).ok_or_else(wraps)?
            };
            let file_end = if segment.file.is_empty() {
                file_start
            } else if has_zero_part {
                segment.file.end
            } else {
                let page_end =
                    usize::try_from(pages_len).ok().and_then(|len| file_start.checked_add(len));
                page_end.ok_or_else(wraps)?.min(file_len)
            };
            align = align.max(segment.align);
            segments.push(PlannedSegment {
                stated: segment.addresses.clone(),
                pages,
                file: file_start..file_end,
                access: segment.access,
            });
        }
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(Error::malformed("no segments", Place::Header));
        };
        let span = first.pages.start..last.pages.end;
        // Both ends are rounded down: what shares its page with data that stays writable cannot
        // be protected. It may span several segments and the gaps between them, and linkers pad
        // it up to a page boundary of theirs: only the segments' own pages are protected.
        let relro = decoded.relro.as_ref().map_or(Ok(Vec::new()), |stated| {
            let (start, end) = (stated.start.page_floor(page), stated.end.page_floor(page));
            let writable = segments.iter().filter(|segment| segment.access.write);
            let pages = writable
                .map(|segment| segment.pages.start.max(start)..segment.pages.end.min(end))
                .filter(|pages| pages.start < pages.end);
            try_collect(pages)
        })?;
        Ok(Plan { span, align, segments, relro, text_relocations: decoded.text_relocations })
    }

    /// How the image can run where its file was received, at `address`, with `lead` bytes of memory in
    /// front of it; `None` if it cannot.
    ///
    /// Linkers leave out of the file what is empty between segments, so these lie further apart in
    /// memory than in the file. The largest, or the first, stays where it is, by which is less to move: those
    /// before it move down, those behind it move up.
    pub(crate) fn in_place(&self, address: usize, lead: usize) -> Option<InPlace> {
        /// To use memory in front of the file takes as long as to move so many bytes.
        const WORTH: usize = 1 << 18;
        let first = self.segments.first()?;
        let moves = self.segments.iter().map(|segment| {
            let in_memory = segment.pages.start.checked_sub(first.pages.start)?;
            let in_file = segment.file.start.checked_sub(first.file.start)?;
            usize::try_from(in_memory).ok()?.checked_sub(in_file)
        });
        let mut by = try_vec(self.segments.len()).ok()?;
        for moved in moves {
            by.push(moved?);
        }
        let moves: Vec<usize> = by;
        // Else a segment might move over what has yet to move.
        let is_ascending =
            moves.is_sorted() && self.segments.is_sorted_by_key(|segment| segment.file.start);
        let sizes = || self.segments.iter().map(|segment| segment.file.len()).zip(&moves);
        let largest = sizes().filter(|(_, moves)| **moves <= lead).max_by_key(|(len, _)| *len);
        let moved = |down: usize| -> usize {
            sizes().filter(|(_, moves)| **moves != down).map(|(len, _)| len).sum()
        };
        let down = match largest {
            Some((_, &down)) if is_ascending && moved(down).saturating_add(WORTH) < moved(0) => {
                down
            }
            _ => 0,
        };

        let start = address.checked_add(first.file.start)?;
        let span_len = usize::try_from(self.span_len()).ok()?;
        let at = |down: usize| {
            let misaligned = (start.wrapping_sub(down) as u64).wrapping_sub(self.span.start.0)
                & self.align.wrapping_sub(1);
            let room = first.file.start.checked_add(span_len)?.checked_sub(down)?;
            (misaligned == 0).then_some(InPlace { down, room })
        };
        if self.text_relocations { None } else { at(down).or_else(|| at(0)) }
    }

    /// Whether `range` lies in a segment that is not written.
    pub(crate) fn is_read_only(&self, range: &Range<Vaddr>) -> bool {
        self.segments.iter().any(|segment| {
            let Range { start, end } = segment.pages;
            !segment.access.write && start <= range.start && range.end <= end
        })
    }

    /// The length of the span in bytes.
    pub(crate) fn span_len(&self) -> u64 {
        // The segments ascend.
        self.span.end.checked_sub(self.span.start).unwrap_or(0)
    }
}
