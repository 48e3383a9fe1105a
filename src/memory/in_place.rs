//! An image that runs where its file was received: its segments move apart, to where they have to be.
//!
//! Where they have to be, and whether there is enough memory, [`Plan::in_place`] has decided before.
//!
//! Source: gABI "Program Loading".

#![allow(unsafe_code)]

use std::ptr;

use crate::base::addr::len_of;
use crate::elf::plan::{InPlace, Plan, PlannedSegment};
use crate::memory::buffer::{HEADROOM, ImageBuffer};
use crate::memory::reservation::zero;

/// An image's file, and how the image is to run where it was received.
pub(crate) struct InPlaceFile {
    /// With the room that `place` requires.
    pub buffer: ImageBuffer,
    pub place: InPlace,
}

/// Moves the segments of a received file to where they have to be, and zeroes the parts that the file has
/// no bytes for. The image's first page will be at `start` of the memory. Everything behind `touched` is
/// zero before and after.
///
/// # Safety
/// The file is at [`HEADROOM`] in `memory`, with the room behind it that [`Plan::in_place`] requires, and
/// `start` follows from its result. The memory can be written, and nothing else refers to it.
pub(super) unsafe fn spread_segments(plan: &Plan, memory: *mut u8, start: usize, touched: usize) {
    let Some(first) = plan.segments.first() else { return };
    // Neither sum wraps: both places lie in the memory (`Plan::in_place`).
    let places = |segment: &PlannedSegment| {
        let skip = len_of(&(first.pages.start..segment.pages.start)) as usize;
        (HEADROOM.wrapping_add(segment.file.start), start.wrapping_add(skip))
    };
    let moves_down = |segment: &&PlannedSegment| {
        let (from, to) = places(segment);
        to < from
    };
    let move_segment = |segment: &PlannedSegment| {
        let (from, to) = places(segment);
        let len = segment.file.len().min(segment.len());
        // SAFETY: both places lie in the memory (`Plan::in_place`). They may overlap each other, which
        // `copy` allows.
        unsafe {
            if to != from {
                ptr::copy(memory.add(from), memory.add(to), len);
            }
            let (filled, end) = (to.wrapping_add(len), to.wrapping_add(segment.len()));
            zero(memory.add(filled), (filled..end.min(touched)).len());
        }
    };
    // No segment may overwrite one that has not moved yet. Segments that move down go first, in ascending
    // order: if there are any, segments have the same order in the file as in memory (`Plan::in_place`), so
    // those that have not moved yet lie behind. Segments that move up go in descending order: those that
    // have not moved yet end, in the file, before their end in memory, and so before the ones behind them.
    plan.segments.iter().filter(moves_down).for_each(move_segment);
    plan.segments.iter().rev().filter(|segment| !moves_down(segment)).for_each(move_segment);
    // The bytes of the file in front of the first segment are not part of the image.
    // SAFETY: between the start of the file and that of the image.
    unsafe { zero(memory.add(HEADROOM), (HEADROOM..start).len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::Vaddr;
    use crate::elf::read::ReadAt;
    use crate::elf::segment::Access;
    use crate::memory::mapping::{Mapping, Source};
    use crate::memory::stage::Open;
    use std::ops::Range;

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
        Plan {
            span,
            align,
            segments,
            relro: vec![],
            text_relocations: false,
            branch_targets: false,
        }
    }

    fn contents(mapping: &Mapping<Open>, plan: &Plan) -> Vec<Vec<u8>> {
        let segments = plan.segments.iter();
        segments.map(|segment| mapping.read(segment.pages.clone()).unwrap().to_vec()).collect()
    }

    /// The image is the same whether its file was received or is copied.
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
                    // Usually in order, and sometimes with a shared page, as linkers write it.
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
