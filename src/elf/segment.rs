//! The segments of an image (`PT_LOAD`, `PT_TLS`), and the file's bytes by their stated address.
//!
//! The values come from `elf/program_headers.rs`, which checks them. Pages are the business of
//! `elf/plan.rs`.
//!
//! Source: gABI "Program Header".

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::Vaddr;
use crate::elf::read::ReadAt;

/// A `PT_LOAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// `p_vaddr .. p_vaddr + p_memsz`; not empty.
    pub addresses: Range<Vaddr>,
    /// `p_offset .. p_offset + p_filesz`; lies in the bytes, no longer than `addresses`.
    pub file: Range<usize>,
    pub access: Access,
    /// `p_align`: a power of two, at least a page.
    pub align: u64,
}

/// The access that a segment's flags allow. Never both `write` and `execute` in an image that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

/// `PT_TLS`: a thread's copy of the image's thread-local variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSegment {
    /// Initial values (`p_filesz` bytes); may be empty.
    pub template: Range<Vaddr>,
    /// Size of a block (`p_memsz`); the bytes behind the template are zero.
    pub size: u64,
    /// A power of two; the block's address is congruent to `template.start` modulo this.
    pub align: u64,
}

impl Segment {
    /// The end of the segment's file-backed part, if `address` lies in that part.
    pub(super) fn file_end_behind(&self, address: Vaddr) -> Option<Vaddr> {
        let end = self.addresses.start.checked_add(self.file.len() as u64)?;
        (self.addresses.start <= address && address < end).then_some(end)
    }

    /// The segment's part from `start` on, which lies in it.
    pub(super) fn from(&self, start: Vaddr) -> Option<Segment> {
        let skip = usize::try_from(start.checked_sub(self.addresses.start)?).ok()?;
        let file_start = self.file.start.checked_add(skip)?;
        let file = if file_start < self.file.end { file_start..self.file.end } else { 0..0 };
        Some(Segment { addresses: start..self.addresses.end, file, ..*self })
    }

    /// Whether `range` lies in this segment.
    pub(crate) fn contains(&self, range: &Range<Vaddr>) -> bool {
        self.addresses.start <= range.start
            && range.start <= range.end
            && range.end <= self.addresses.end
    }
}

/// A file's bytes by stated address. A segment that is not readable in memory is not readable here: a
/// loader needs nothing of an image that the mapped image does not give.
pub(super) struct FileView<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) segments: &'a [Segment],
}

impl<'a> FileView<'a> {
    /// The bytes from `start` to `end`, or to the end of the segment's file-backed part.
    pub(super) fn find(&self, start: Vaddr, end: Option<Vaddr>) -> Option<&'a [u8]> {
        let holds = |segment: &&Segment| segment.access.read && segment.addresses.contains(&start);
        let segment = self.segments.iter().find(holds)?;
        let skip = usize::try_from(start.checked_sub(segment.addresses.start)?).ok()?;
        let tail = self.bytes.get(segment.file.clone())?.get(skip..)?;
        match end {
            None => Some(tail),
            Some(end) => tail.get(..usize::try_from(end.checked_sub(start)?).ok()?),
        }
    }
}

impl ReadAt for FileView<'_> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        self.find(range.start, Some(range.end))
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        self.find(start, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(addresses: Range<u64>, file: Range<usize>, read: bool) -> Segment {
        let access = Access { read, write: false, execute: false };
        let addresses = Vaddr(addresses.start)..Vaddr(addresses.end);
        Segment { addresses, file, access, align: 0x1000 }
    }

    #[test]
    fn only_the_file_backed_part_of_a_readable_segment_is_read() {
        let bytes: Vec<u8> = (0..16).collect();
        let segments = [segment(0x1000..0x1010, 4..8, true), segment(0x2000..0x2004, 8..12, false)];
        let view = FileView { bytes: &bytes, segments: &segments };
        let read = |range: Range<u64>| view.read(Vaddr(range.start)..Vaddr(range.end));
        assert_eq!(read(0x1001..0x1003), Some(&[5, 6][..]));
        assert_eq!(read(0x1004..0x1004), Some(&[][..]));
        assert_eq!(read(0x1003..0x1005), None, "behind p_filesz");
        assert_eq!(read(Range { start: 0x1003, end: 0x1002 }), None, "ends before it starts");
        assert_eq!(read(0xfff..0x1001), None, "starts before the segment");
        assert_eq!(read(0x2000..0x2001), None, "not readable");
        assert_eq!(view.read_to_end(Vaddr(0x1002)), Some(&[6, 7][..]));
        assert_eq!(view.read_to_end(Vaddr(0x1005)), None);
    }

    #[test]
    fn the_file_backed_part_ends_behind_its_last_byte() {
        let it = segment(0x1000..0x1010, 4..8, true);
        assert_eq!(it.file_end_behind(Vaddr(0x1003)), Some(Vaddr(0x1004)));
        assert_eq!(it.file_end_behind(Vaddr(0x1004)), None);
        assert_eq!(it.file_end_behind(Vaddr(0xfff)), None);
        assert!(it.contains(&(Vaddr(0x1000)..Vaddr(0x1010))));
        assert!(!it.contains(&(Vaddr(0x1000)..Vaddr(0x1011))));
        assert!(!it.contains(&(Vaddr(0x1004)..Vaddr(0x1003))));
    }
}
