//! Relocations of a template's member, worked out once for all instances.
//!
//! Nearly all words that relocations store are alike in all instances but for where the group's
//! members lie. [`Prelinked`] lists these words with their values, so that an instance takes an
//! addition for each, and no look at the relocation tables. The rest (IFUNCs, thread-local
//! storage, distances) is kept as relocations, and applied to each instance as to any image.
//!
//! The order in which relocations are applied means nothing as long as no two of them touch the
//! same bytes. Linkers write no others; tables that have such are not prelinked.
//!
//! After the `prelink` of old, which did this to files.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::addr::{LoadBias, Vaddr};
use crate::arch::MACHINE;
use crate::dynamic::u64_at;
use crate::error::Error;
use crate::image::Image;
use crate::map::{Mapping, Open};
use crate::plan::Plan;
use crate::rela::Rela;
use crate::relocate::{Applier, Bound, Indirect, Memory, Placement};

/// The relocations of one member.
pub(crate) struct Prelinked {
    words: Vec<Words>,
    rest: Vec<Rela>,
}

/// Words of one segment to which the load bias of one member is added, or nothing.
struct Words {
    /// By its index in the plan.
    segment: usize,
    /// By its index in the group; of words that are final, none.
    member: Option<usize>,
    /// From the segment's first page on, and what stands there with a load bias of 0.
    offsets: Vec<u32>,
    values: Vec<u64>,
}

impl Prelinked {
    /// Of the group's member of index `member`; the group has `members`. `None` if the order of the
    /// relocations matters, or they are none that a linker writes.
    pub(crate) fn new(
        image: &Image<'_>,
        plan: &Plan,
        bound: &Bound,
        member: usize,
        members: usize,
    ) -> Result<Option<Prelinked>, Error> {
        if plan.text_relocations {
            return Ok(None);
        }
        let mut record = Record {
            bytes: image.bytes(),
            plan,
            last: 0,
            words: Vec::new(),
            stored: Vec::new(),
            gives_up: false,
        };
        let nowhere = LoadBias::between(Vaddr(0), 0);
        let placements = vec![Placement { load_bias: nowhere, tls: None }; members];
        // A few bytes of a packed table can stand for very many relocations.
        let most = image.bytes().len() / 8;
        let mut rest = Vec::new();
        let applier = Applier {
            relocations: &image.facts.relocations,
            bound,
            member,
            machine: &MACHINE,
            placements: &placements,
        };
        applier.alike(image, &mut record, |rela, len| {
            if rest.len() <= most {
                rest.push((rela, len));
            }
        })?;
        let Record { words, mut stored, gives_up, .. } = record;
        if gives_up || rest.len() > most {
            return Ok(None);
        }
        for (rela, len) in &rest {
            match rela.r_offset.range(*len) {
                Some(place) => stored.push(place),
                None => return Ok(None),
            }
        }
        stored.sort_unstable_by_key(|place| place.start);
        let is_apart = stored.is_sorted_by(|before, place| before.end <= place.start);
        let rest = rest.into_iter().map(|(rela, _)| rela).collect();
        Ok(is_apart.then_some(Prelinked { words, rest }))
    }

    /// As [`Applier::all`].
    pub(crate) fn apply(
        &self,
        applier: &Applier<'_>,
        mapping: &mut Mapping<Open>,
    ) -> Result<Vec<Indirect>, Error> {
        for words in &self.words {
            let load_bias = |member: usize| applier.placements[member].load_bias.get() as u64;
            let added = words.member.map_or(0, load_bias);
            let segment = mapping.segment_mut(words.segment).unwrap_or_default();
            for (&offset, &value) in words.offsets.iter().zip(&words.values) {
                let place = segment.get_mut(offset as usize..).and_then(<[u8]>::first_chunk_mut);
                // Each was found to lie there when it was recorded.
                if let Some(place) = place {
                    *place = value.wrapping_add(added).to_le_bytes();
                }
            }
        }
        applier.rest(&self.rest, &mut mapping.writable())
    }
}

/// Takes note of what is stored.
struct Record<'a> {
    /// The image's.
    bytes: &'a [u8],
    plan: &'a Plan,
    /// The list that was last added to: mostly the next word belongs there, too.
    last: usize,
    words: Vec<Words>,
    stored: Vec<Range<Vaddr>>,
    /// They are too many, or too far from each other.
    gives_up: bool,
}

impl Record<'_> {
    /// The segment that holds so many bytes and is written, and where in it they are.
    fn place(&self, at: Vaddr, len: u64) -> Option<(usize, u64)> {
        let end = at.checked_add(len)?;
        let index = self.plan.segments.iter().position(|segment| {
            segment.access.write && segment.pages.start <= at && end <= segment.pages.end
        })?;
        Some((index, at.checked_sub(self.plan.segments[index].pages.start)?))
    }

    fn add(&mut self, at: Vaddr, value: u64, member: Option<usize>) -> Option<()> {
        let (segment, offset) = self.place(at, 8)?;
        // Each takes 8 bytes of the file, or else of nothing.
        self.gives_up |= self.stored.len() > self.bytes.len() / 8;
        let Ok(offset) = u32::try_from(offset).map_err(|_| self.gives_up = true) else {
            return Some(());
        };
        if self.gives_up {
            return Some(());
        }
        self.stored.push(at.range(8)?);
        let is_it = |words: &Words| words.segment == segment && words.member == member;
        if !self.words.get(self.last).is_some_and(is_it) {
            self.last = self.words.iter().position(is_it).unwrap_or(self.words.len());
            if self.last == self.words.len() {
                let (offsets, values) = (Vec::new(), Vec::new());
                self.words.push(Words { segment, member, offsets, values });
            }
        }
        let words = self.words.get_mut(self.last)?;
        words.offsets.push(offset);
        words.values.push(value);
        Some(())
    }
}

impl Memory for Record<'_> {
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        self.add(at, u64::from_le_bytes(*bytes.first_chunk()?), None)
    }

    fn word(&mut self, at: Vaddr) -> Option<u64> {
        let (segment, offset) = self.place(at, 8)?;
        let file = self.bytes.get(self.plan.segments[segment].file.clone())?;
        let offset = usize::try_from(offset).ok()?;
        // What is behind the file's bytes is zero.
        let mut word = [0; 8];
        let there = file.get(offset..).unwrap_or_default();
        let len = there.len().min(8);
        word[..len].copy_from_slice(&there[..len]);
        u64_at(&word, 0)
    }

    fn store_address(
        &mut self,
        at: Vaddr,
        address: Vaddr,
        member: usize,
        _load_bias: LoadBias,
    ) -> Option<()> {
        self.add(at, address.0, Some(member))
    }
}
