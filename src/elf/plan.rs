//! The pages of a loaded image. The arithmetic is done here, once: no later stage rounds.
//!
//! An ELF segment starts and ends at any byte, but a protection covers whole pages. [`Plan::new`]
//! turns the stated segments into whole pages and gives the file's bytes that fill them. The edges
//! are filled as `mmap` of the file fills them (with the file's bytes before `p_vaddr` and behind
//! `p_filesz` on the same page), except that a segment with a zero-filled part (`.bss`) is zero
//! behind its file bytes.
//!
//! This file maps nothing: `memory/` does.
//!
//! Sources: gABI "Program Loading"; RELRO's rounding: glibc `_dl_protect_relro`.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::{PageSize, Vaddr, len_of};
use crate::base::error::{Error, Place};
use crate::base::fallible::{try_collect, try_vec};
use crate::elf::decoded::Decoded;
use crate::elf::segment::Access;

/// The pages of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// From the first page to the last. Every segment lies in it.
    pub span: Range<Vaddr>,
    /// The run-time address of the span is congruent to its stated address modulo this: a power of two,
    /// at least a page.
    pub align: u64,
    /// Ascending; they share no page.
    pub segments: Vec<PlannedSegment>,
    /// Whole pages, each range inside one writable segment's pages, none empty.
    pub relro: Vec<Range<Vaddr>>,
    /// Relocations write to segments that are not writable afterwards.
    pub text_relocations: bool,
    /// The code marks the targets of its indirect branches.
    pub branch_targets: bool,
}

/// The layout of an image that runs where its file was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InPlace {
    /// How far the first segment moves down, in bytes. The others move up by that much less.
    pub down: usize,
    /// The memory that the image takes from the start of the file on, in bytes.
    pub room: usize,
}

/// A segment's whole pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedSegment {
    /// The stated segment, inside `pages`. The image must not change the rest of the pages.
    pub stated: Range<Vaddr>,
    /// Whole pages, not empty.
    pub pages: Range<Vaddr>,
    /// The file's bytes at the start of `pages`. The rest of `pages` is zero.
    pub file: Range<usize>,
    /// The access after relocation.
    pub access: Access,
}

impl PlannedSegment {
    /// The length of its pages, in bytes.
    pub(crate) fn len(&self) -> usize {
        len_of(&self.pages) as usize
    }

    /// The bytes at the start of its pages, of this file. The rest is zero.
    pub(crate) fn filled<'f>(&self, file: &'f [u8]) -> &'f [u8] {
        let bytes = file.get(self.file.clone()).unwrap_or_default();
        bytes.get(..self.len()).unwrap_or(bytes)
    }

    /// Whether `at` is in the file-backed part of a stated, executable segment. The rest of the pages
    /// holds zeros, or bytes of another part of the file.
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

            // Offset and address are congruent modulo the page, so the file has these bytes.
            let head = segment.addresses.start.checked_sub(start).ok_or_else(wraps)?;
            let head = usize::try_from(head).map_err(|_| wraps())?;
            let len = segment.addresses.end.checked_sub(segment.addresses.start);
            let has_zero_part = len.ok_or_else(wraps)? > segment.file.len() as u64;
            let file_start = if segment.file.is_empty() {
                // Empty, behind the bytes of the last segment.
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
        // Both ends are rounded down: a page that also holds data which stays writable cannot be
        // protected. RELRO may span several segments and the gaps between them, and linkers pad it to
        // a boundary of their own page size: only the segments' own pages are protected.
        let relro = decoded.relro.as_ref().map_or(Ok(Vec::new()), |stated| {
            let (start, end) = (stated.start.page_floor(page), stated.end.page_floor(page));
            let writable = segments.iter().filter(|segment| segment.access.write);
            let pages = writable
                .map(|segment| segment.pages.start.max(start)..segment.pages.end.min(end))
                .filter(|pages| pages.start < pages.end);
            try_collect(pages)
        })?;
        let Decoded { text_relocations, branch_targets, .. } = *decoded;
        Ok(Plan { span, align, segments, relro, text_relocations, branch_targets })
    }

    /// The layout for an image whose file was received at `address`, with `headroom` bytes of memory in
    /// front of it; `None` if the image cannot run there.
    ///
    /// Linkers leave the gaps between segments out of the file, so segments lie further apart in memory
    /// than in the file. Either the largest or the first segment stays where it is, whichever moves fewer
    /// bytes. The segments before it move down, those behind it move up.
    pub(crate) fn in_place(&self, address: usize, headroom: usize) -> Option<InPlace> {
        /// The use of memory in front of the file costs as much time as to move this number of bytes.
        const HEADROOM_COST: usize = 1 << 18;
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
        // Otherwise a segment could move over another that has not moved yet.
        let is_ascending =
            moves.is_sorted() && self.segments.is_sorted_by_key(|segment| segment.file.start);
        let sizes = || self.segments.iter().map(|segment| segment.file.len()).zip(&moves);
        let largest = sizes().filter(|(_, moves)| **moves <= headroom).max_by_key(|(len, _)| *len);
        let moved = |down: usize| -> usize {
            sizes().filter(|(_, moves)| **moves != down).map(|(len, _)| len).sum()
        };
        let down = match largest {
            Some((_, &down))
                if is_ascending && moved(down).saturating_add(HEADROOM_COST) < moved(0) =>
            {
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

    /// Whether `range` lies in a segment that is not writable.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::elf::image::Image;
    use crate::elf::test_image::{Library, P_FILESZ, P_MEMSZ, RELRO_HEADER, TEXT_HEADER};

    fn plan(library: &Library) -> Result<Plan, Error> {
        let page = PageSize::new(0x1000).unwrap();
        let image = Image::parse(&library.bytes[..], page, &Limits::default())?;
        Plan::new(&image.decoded, library.bytes.len(), page)
    }

    fn range(range: &Range<Vaddr>) -> Range<u64> {
        range.start.0..range.end.0
    }

    #[test]
    fn segments_take_whole_pages_and_the_files_bytes_on_them() {
        let plan = plan(&Library::new()).unwrap();
        assert_eq!(range(&plan.span), 0..0x4000);
        assert_eq!((plan.span_len(), plan.align), (0x4000, 0x1000));
        let [first, text, data] = &plan.segments[..] else { panic!("{:?}", plan.segments) };
        assert_eq!((range(&first.pages), first.file.clone()), (0..0x1000, 0..0x1000));
        assert_eq!((range(&text.pages), text.file.clone()), (0x1000..0x2000, 0x1000..0x2000));
        // Zeros follow the file's bytes.
        assert_eq!((range(&data.pages), data.file.clone()), (0x2000..0x4000, 0x2000..0x2310));
        assert_eq!(plan.relro, vec![Vaddr(0x2000)..Vaddr(0x3000)]);
        assert!(text.is_code(Vaddr(0x1008)) && !text.is_code(Vaddr(0x1010)));
        assert!(!data.is_code(Vaddr(0x2000)));
        assert!(plan.is_read_only(&(Vaddr(0x1000)..Vaddr(0x1010))));
        assert!(!plan.is_read_only(&(Vaddr(0x1ff8)..Vaddr(0x2008))));
    }

    #[test]
    fn a_page_that_stays_writable_is_not_in_relro() {
        let mut library = Library::new();
        library.set_header(RELRO_HEADER, P_MEMSZ, 0xfff);
        assert_eq!(plan(&library).unwrap().relro, []);
        library.set_header(RELRO_HEADER, P_MEMSZ, 0x1fff);
        assert_eq!(plan(&library).unwrap().relro, vec![Vaddr(0x2000)..Vaddr(0x3000)]);
    }

    #[test]
    fn an_image_runs_in_place_where_its_alignment_allows_it() {
        let plan_as_is = plan(&Library::new()).unwrap();
        assert_eq!(plan_as_is.in_place(0x10_0000, 0), Some(InPlace { down: 0, room: 0x4000 }));
        assert_eq!(plan_as_is.in_place(0x10_0008, 0), None);
        let with_relocated_text = Plan { text_relocations: true, ..plan_as_is };
        assert_eq!(with_relocated_text.in_place(0x10_0000, 0), None);
    }

    #[test]
    fn zeros_follow_a_segment_that_is_shorter_in_the_file() {
        let mut library = Library::new();
        library.set_header(TEXT_HEADER, P_FILESZ, 8);
        assert_eq!(plan(&library).unwrap().segments[TEXT_HEADER].file, 0x1000..0x1008);
    }

    #[test]
    fn the_largest_segment_stays_where_it_is_if_there_is_headroom() {
        let segment = |pages: Range<u64>, file: Range<usize>| PlannedSegment {
            stated: Vaddr(pages.start)..Vaddr(pages.end),
            pages: Vaddr(pages.start)..Vaddr(pages.end),
            file,
            access: Access { read: true, write: false, execute: false },
        };
        // 2 MiB of data, which lies one page further up in memory than in the file.
        let plan = Plan {
            span: Vaddr(0)..Vaddr(0x20_2000),
            align: 0x1000,
            segments: vec![
                segment(0..0x1000, 0..0x1000),
                segment(0x2000..0x20_2000, 0x1000..0x20_1000),
            ],
            relro: vec![],
            text_relocations: false,
            branch_targets: false,
        };
        let at = 0x10_0000;
        assert_eq!(plan.in_place(at, 0x1000), Some(InPlace { down: 0x1000, room: 0x20_1000 }));
        assert_eq!(plan.in_place(at, 0), Some(InPlace { down: 0, room: 0x20_2000 }));
    }
}
