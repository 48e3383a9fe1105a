//! What memory that an image left is like, but for its bytes: by this it is found for the next one.
//!
//! Never reads the memory.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::{Vaddr, len_of};
use crate::base::fallible::{OutOfMemory, try_collect, try_string};
use crate::elf::plan::PlannedSegment;

/// The layout of an image in memory, whose pages have their final protection.
pub(super) struct Layout {
    segments: Vec<PlannedSegment>,
    relro: Vec<Range<Vaddr>>,
    align: usize,
    name: Option<Box<str>>,
}

impl Layout {
    pub(super) fn new(
        segments: &[PlannedSegment],
        relro: &[Range<Vaddr>],
        align: usize,
        name: Option<&str>,
    ) -> Result<Layout, OutOfMemory> {
        Ok(Layout {
            segments: try_collect(segments.iter().cloned())?,
            relro: try_collect(relro.iter().cloned())?,
            align,
            name: name.map(try_string).transpose()?.map(String::into_boxed_str),
        })
    }

    /// What the memory is aligned to.
    pub(super) fn align(&self) -> usize {
        self.align
    }

    /// Whether memory with this layout can be that of an image with these segments.
    pub(super) fn is_of(
        &self,
        segments: &[PlannedSegment],
        relro: &[Range<Vaddr>],
        align: usize,
        name: Option<&str>,
    ) -> bool {
        self.segments == segments
            && self.relro == relro
            && self.align >= align
            && self.name.as_deref() == name
    }

    /// The length of the image, from its first page to its last.
    pub(super) fn span_len(&self) -> usize {
        let (first, last) = (self.segments.first(), self.segments.last());
        let span = first.zip(last).map(|(first, last)| first.pages.start..last.pages.end);
        span.map_or(0, |span| len_of(&span) as usize)
    }
}
