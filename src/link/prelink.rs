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

use crate::arch::MACHINE;
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_collect, try_filled};
use crate::elf::plan::Plan;
use crate::elf::read::u64_at;
use crate::elf::rela::Rela;
use crate::link::relocate::{Applier, Bound, Indirect, Memory, Placement};
use crate::memory::bytes::Image;
use crate::memory::map::{Mapping, Open};

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
            no_memory: None,
        };
        let nowhere = LoadBias::between(Vaddr(0), 0);
        let placements = try_filled(Placement { load_bias: nowhere, tls: None }, members)?;
        // A few bytes of a packed table can stand for very many relocations.
        let most = image.bytes().len() / 8;
        let mut rest = Vec::new();
        let applier = Applier {
            relocations: &image.decoded.relocations,
            bound,
            member,
            machine: &MACHINE,
            placements: &placements,
        };
        applier.alike(image, &mut record, |rela, len| {
            if rest.len() <= most { rest.try_push((rela, len)) } else { Ok(()) }
        })?;
        let Record { words, mut stored, gives_up, no_memory, .. } = record;
        if let Some(error) = no_memory {
            return Err(error);
        }
        if gives_up || rest.len() > most {
            return Ok(None);
        }
        for (rela, len) in &rest {
            match rela.r_offset.range(*len) {
                Some(place) => stored.try_push(place)?,
                None => return Ok(None),
            }
        }
        stored.sort_unstable_by_key(|place| place.start);
        let is_apart = stored.is_sorted_by(|before, place| before.end <= place.start);
        let rest = try_collect(rest.into_iter().map(|(rela, _)| rela))?;
        Ok(is_apart.then_some(Prelinked { words, rest }))
    }

    /// As [`Applier::all`].
    pub(crate) fn apply(
        &self,
        applier: &Applier<'_>,
        mapping: &mut Mapping<Open>,
    ) -> Result<Vec<Indirect>, Error> {
        for words in &self.words {
            let placement = words.member.and_then(|member| applier.placements.get(member));
            let added = placement.map_or(0, |placement| placement.load_bias.get() as u64);
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
    /// There was none for the words.
    no_memory: Option<Error>,
}

impl Record<'_> {
    /// The segment that holds so many bytes and is written, and where in it they are.
    fn place(&self, at: Vaddr, len: u64) -> Option<(usize, u64)> {
        let end = at.checked_add(len)?;
        let (index, segment) = self.plan.segments.iter().enumerate().find(|(_, segment)| {
            segment.access.write && segment.stated.start <= at && end <= segment.stated.end
        })?;
        Some((index, at.checked_sub(segment.pages.start)?))
    }

    fn add(&mut self, at: Vaddr, value: u64, member: Option<usize>) -> Option<()> {
        let (segment, offset) = self.place(at, 8)?;
        // Each takes 8 bytes of the file, or else of nothing.
        self.gives_up |= self.stored.len() > self.bytes.len() / 8;
        let Ok(offset) = u32::try_from(offset).map_err(|_| self.gives_up = true) else {
            return Some(());
        };
        if self.gives_up || self.no_memory.is_some() {
            return Some(());
        }
        let place = at.range(8)?;
        self.no_memory = self.note(place, segment, offset, value, member).err();
        Some(())
    }

    fn note(
        &mut self,
        place: Range<Vaddr>,
        segment: usize,
        offset: u32,
        value: u64,
        member: Option<usize>,
    ) -> Result<(), Error> {
        self.stored.try_push(place)?;
        let is_it = |words: &Words| words.segment == segment && words.member == member;
        if !self.words.get(self.last).is_some_and(is_it) {
            self.last = self.words.iter().position(is_it).unwrap_or(self.words.len());
            if self.last == self.words.len() {
                let (offsets, values) = (Vec::new(), Vec::new());
                self.words.try_push(Words { segment, member, offsets, values })?;
            }
        }
        if let Some(words) = self.words.get_mut(self.last) {
            words.offsets.try_push(offset)?;
            words.values.try_push(value)?;
        }
        Ok(())
    }
}

impl Memory for Record<'_> {
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        self.add(at, u64::from_le_bytes(*bytes.first_chunk()?), None)
    }

    fn word(&mut self, at: Vaddr) -> Option<u64> {
        let (segment, offset) = self.place(at, 8)?;
        let file = self.bytes.get(self.plan.segments.get(segment)?.file.clone())?;
        let offset = usize::try_from(offset).ok()?;
        // What is behind the file's bytes is zero.
        let mut word = [0; 8];
        let there = file.get(offset..).unwrap_or_default();
        word.iter_mut().zip(there).for_each(|(byte, there)| *byte = *there);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Debug;
    use crate::base::promise::MayRun;
    use crate::debug::Instances;
    use crate::load::prepare::{Member, Settings};
    use crate::memory::bytes::Bytes;
    use crate::memory::map::Source;
    use std::path::{Path, PathBuf};

    /// The segments of an instance of the only member, as `relocate` leaves them, and the instance: two
    /// that are there at once lie at different addresses.
    fn relocated(
        member: &Member<'_>,
        relocate: impl FnOnce(&Applier<'_>, &mut Mapping<Open>) -> Vec<Indirect>,
    ) -> (u64, Vec<Vec<u8>>, Mapping<Open>) {
        let source = Source::Copied(member.image.bytes());
        let mut mapping = Mapping::new(&member.plan, source, None).unwrap();
        let applier = Applier {
            relocations: &member.image.decoded.relocations,
            bound: &member.bound,
            member: 0,
            machine: &MACHINE,
            placements: &[Placement { load_bias: mapping.load_bias(), tls: None }],
        };
        relocate(&applier, &mut mapping);
        let segments = 0..member.plan.segments.len();
        let bytes = segments.filter_map(|index| mapping.segment_mut(index).map(|it| it.to_vec()));
        let bytes = bytes.collect();
        (mapping.load_bias().get() as u64, bytes, mapping)
    }

    /// How many words of this library move; `None` if it is none for this test.
    fn moved_words(file: &Path) -> Option<usize> {
        let bytes = std::fs::read(file).ok()?;
        let mut settings = Settings::new(|_| None);
        settings.debug = Debug::Off;
        settings.system_libraries = true;
        let prepared =
            settings.prepare(Bytes::Borrowed(&bytes), Instances::Many, Some(MayRun::in_tests()));
        let prepared = prepared.ok()?;
        let [member] = &prepared.members[..] else { return None };
        // What is left to be applied needs a block of thread-local variables.
        let prelinked = member.prelinked.as_ref()?;
        if member.image.decoded.tls.is_some() {
            return None;
        }
        let (bias, words, _first) =
            relocated(member, |it, mapping| prelinked.apply(it, mapping).unwrap());
        let (other_bias, others, _second) = relocated(member, |it, mapping| {
            it.all(&member.image, &mut mapping.writable()).unwrap()
        });
        let mut moved = 0;
        for (words, others) in words.iter().zip(&others) {
            assert_eq!(words.len(), others.len());
            for (word, other) in words.as_chunks().0.iter().zip(others.as_chunks().0) {
                let (word, other) = (u64::from_le_bytes(*word), u64::from_le_bytes(*other));
                let is_moved = word.wrapping_sub(bias) == other.wrapping_sub(other_bias);
                assert!(word == other || is_moved, "{}: {word:#x}, {other:#x}", file.display());
                moved += usize::from(word != other);
            }
        }
        Some(moved)
    }

    /// `MEMDL_TEST_FOLDER` names another folder.
    #[test]
    fn words_are_those_that_relocations_store_one_by_one() {
        let folder = std::env::var_os("MEMDL_TEST_FOLDER")
            .map_or("/usr/lib/x86_64-linux-gnu".into(), PathBuf::from);
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let is_library = |path: &PathBuf| path.to_string_lossy().contains(".so");
        let mut files: Vec<PathBuf> = files.filter(is_library).collect();
        files.sort();
        // Needed libraries are opened and stay: not all in one process.
        files.truncate(150);
        let moved: Vec<usize> = files.iter().filter_map(|file| moved_words(file)).collect();
        let (libraries, words) = (moved.len(), moved.iter().sum::<usize>());
        assert!(libraries > 20 && words > 10_000, "{libraries} libraries, {words} words");
    }
}
