//! What an image's writable segments hold when it is relocated and none of its code has run; and memory that is brought
//! back to that.
//!
//! Memory that an image cannot write is compared, not written: read-only data after relocation (RELRO), and read-only
//! segments that the instance has for itself. A byte that differs there was changed through a hole, by a debugger or by
//! a hook. Then the memory is not for another instance.
//!
//! Knows nothing of relocations: they are stored here as into an image.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr;

use crate::base::addr::{Vaddr, len_of, page_size};
use crate::base::error::Error;
use crate::base::fallible::{OutOfMemory, TryGrow, try_copy, try_vec, try_zeroed};
use crate::elf::plan::Plan;
use crate::elf::read::{ReadAt, u64_at};
use crate::memory::mapping::Mapping;
use crate::memory::process_memory;
use crate::memory::reservation::{can_share, is_same, many_pages, zero, zero_touched};
use crate::memory::stage::{Open, Sealed, Stage};

/// The contents of the segments that an image writes.
pub(crate) struct Contents(Vec<Written>);

/// The contents of one segment.
struct Written {
    /// Where it may be stored to, as stated.
    stated: Range<Vaddr>,
    pages: Range<Vaddr>,
    /// From the first page on. What follows is zero.
    bytes: Vec<u8>,
}

impl Written {
    /// The length of a part of the pages, and the bytes in it. What follows them is zero.
    fn part(&self, part: &Range<Vaddr>) -> (usize, &[u8]) {
        let skip = len_of(&(self.pages.start..part.start)) as usize;
        let len = len_of(part) as usize;
        (len, part_of(&self.bytes, skip, len))
    }
}

impl Contents {
    /// Those that the file with these bytes has, before any relocation.
    pub(crate) fn of_file(plan: &Plan, file: &[u8]) -> Result<Contents, OutOfMemory> {
        let mut all = try_vec(plan.segments.len())?;
        for segment in plan.segments.iter().filter(|segment| segment.access.write) {
            let (stated, pages) = (segment.stated.clone(), segment.pages.clone());
            all.push(Written { stated, pages, bytes: try_copy(segment.filled(file))? });
        }
        Ok(Contents(all))
    }

    /// The segment that `len` bytes at `at` may be stored into, and where in it.
    #[inline]
    fn place(&mut self, at: Vaddr, len: u64) -> Option<(&mut Written, usize)> {
        let end = at.checked_add(len)?;
        let holds = |it: &&mut Written| it.stated.start <= at && end <= it.stated.end;
        let written = self.0.iter_mut().find(holds)?;
        let offset = at.checked_sub(written.pages.start)?;
        Some((written, usize::try_from(offset).ok()?))
    }

    /// Stores bytes; `None` where the image does not write, or without memory.
    #[inline]
    pub(crate) fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        let (written, offset) = self.place(at, N as u64)?;
        let end = offset.checked_add(N)?;
        if written.bytes.len() < end {
            written.bytes.try_lengthen(end, 0).ok()?;
        }
        written.bytes.get_mut(offset..end)?.copy_from_slice(&bytes);
        Some(())
    }

    /// The word at `at`, where it could be stored.
    pub(crate) fn word(&mut self, at: Vaddr) -> Option<u64> {
        let (written, offset) = self.place(at, 8)?;
        let mut word = [0; 8];
        let there = written.bytes.get(offset..).unwrap_or_default();
        word.iter_mut().zip(there).for_each(|(byte, there)| *byte = *there);
        u64_at(&word, 0)
    }
}

impl ReadAt for Contents {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        let holds = |it: &&Written| it.pages.start <= range.start && range.end <= it.pages.end;
        let written = self.0.iter().find(holds)?;
        let [start, end] = [range.start, range.end].map(|at| at.checked_sub(written.pages.start));
        written.bytes.get(usize::try_from(start?).ok()?..usize::try_from(end?).ok()?)
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let written = self.0.iter().find(|it| it.pages.contains(&start))?;
        let from = start.checked_sub(written.pages.start)?;
        written.bytes.get(usize::try_from(from).ok()?..)
    }
}

impl Mapping<Sealed> {
    /// Brings the image back to these contents, which are its own, of the file with these bytes. False, with some of
    /// the memory written, if memory differs that the image cannot write.
    ///
    /// # Safety
    /// No code of the image runs, and nothing refers to its memory. What it can write is writable.
    pub(crate) unsafe fn renew(&self, contents: &Contents, file: &[u8]) -> bool {
        let unwritten = self.segments.iter().filter(|segment| !segment.access.write);
        // Shared pages belong to all instances.
        let own = unwritten.filter(|_| !self.memory.shares);
        let mut own = own.filter(|segment| segment.access.read);
        let start = |pages: &Range<Vaddr>| self.load_bias.apply(pages.start);
        // SAFETY: readable segments of this image, which nothing writes now.
        if !own.all(|it| unsafe { is_same(start(&it.pages), it.len(), it.filled(file)) }) {
            return false;
        }
        for written in &contents.0 {
            for (part, is_relro) in self.parts(&written.pages) {
                let (len, bytes) = written.part(&part);
                // SAFETY: pages of a writable segment of this image, of which RELRO can be read and the rest be
                // written; the rest is the caller's promise.
                unsafe {
                    if !is_relro {
                        fill(start(&part), len, bytes);
                    } else if !is_same(start(&part), len, bytes) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Whether the memory can be used again in place: the image has changed no protection, and shares what it shared.
    pub(crate) fn can_come_back(&self) -> bool {
        self.memory.can_come_back()
    }

    /// Whether it has pages of its own where instances could share them.
    pub(crate) fn could_share(&self) -> bool {
        !self.memory.shares && can_share()
    }

    /// The bytes of its memory that no other mapping shares.
    pub(crate) fn own_bytes(&self) -> usize {
        self.span_len.saturating_sub(self.shared_bytes())
    }
}

impl<State: Stage> Mapping<State> {
    /// A writable segment in parts: before RELRO, RELRO, and behind it. Some may be empty.
    fn parts(&self, pages: &Range<Vaddr>) -> [(Range<Vaddr>, bool); 3] {
        let Range { start, end } = *pages;
        let inside = |relro: &&Range<Vaddr>| start <= relro.start && relro.end <= end;
        let relro = self.relro.iter().find(inside).map_or(end..end, Range::clone);
        [(start..relro.start, false), (relro.clone(), true), (relro.end..end, false)]
    }
}

impl Mapping<Open> {
    /// Whether its writable segments have the contents of a former image. Then nothing is stored to it before it is
    /// [settled](Mapping::settle).
    pub(crate) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }

    /// Gives the writable segments these contents, which are the image's own. RELRO, which is read-only, usually has
    /// them: then nothing is asked of the system.
    pub(crate) fn settle(&mut self, contents: &Contents) -> Result<(), Error> {
        for written in &contents.0 {
            for (part, is_relro) in self.parts(&written.pages) {
                let (len, bytes) = written.part(&part);
                let start = self.load_bias.apply(part.start);
                if is_relro {
                    self.settle_relro(start, len, bytes)?;
                } else {
                    // SAFETY: pages of a writable segment of an open mapping, which nothing else refers to.
                    unsafe { fill(start, len, bytes) };
                }
            }
        }
        self.is_unsettled = false;
        Ok(())
    }

    /// Gives a part of RELRO these bytes.
    fn settle_relro(&mut self, start: usize, len: usize, bytes: &[u8]) -> Result<(), Error> {
        /// Up to this many pages, the kernel writes them. It does so without changing a protection, for which threads
        /// would wait.
        const FEW: usize = 4;
        let page = page_size();
        let mut differing = 0_usize;
        for offset in (0..len).step_by(page) {
            let of_page = part_of(bytes, offset, page);
            // SAFETY: a page of RELRO of an open mapping, which can be read.
            if unsafe { is_same(start.saturating_add(offset), page, of_page) } {
                continue;
            }
            differing = differing.saturating_add(1);
            let is_written = differing <= FEW && self.is_relro_closed && {
                let mut whole = try_zeroed(page)?;
                whole.iter_mut().zip(of_page).for_each(|(byte, there)| *byte = *there);
                // SAFETY: as above; nothing else refers to it.
                unsafe { process_memory::write_protected(start.saturating_add(offset), &whole) }
                    .is_ok()
            };
            if !is_written {
                self.open_relro()?;
                // SAFETY: as above, and it can be written now.
                unsafe { fill(start, len, bytes) };
                break;
            }
        }
        Ok(())
    }
}

/// Up to `len` bytes from `offset` on.
fn part_of(bytes: &[u8], offset: usize, len: usize) -> &[u8] {
    let bytes = bytes.get(offset..).unwrap_or_default();
    bytes.get(..len).unwrap_or(bytes)
}

/// Copies these bytes to memory of `len` bytes, and zeroes the rest.
///
/// # Safety
/// The memory can be written, and nothing refers to it.
unsafe fn fill(start: usize, len: usize, bytes: &[u8]) {
    let count = bytes.len().min(len);
    let start = start as *mut u8;
    let page = page_size();
    let touched = count.next_multiple_of(page).min(len);
    let (tail, rest) = (touched.saturating_sub(count), len.saturating_sub(touched));
    // SAFETY: the caller's promise. `touched` is a multiple of the page, or all.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), start, count);
        ptr::write_bytes(start.add(count), 0, tail);
        let rest_start = start.add(touched);
        match rest >= many_pages() {
            true => zero(rest_start, rest),
            false => zero_touched(rest_start, rest, page),
        }
    }
}
