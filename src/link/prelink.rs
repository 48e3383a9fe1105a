//! Prelinking: the relocations of a template's member, computed once for all instances.
//!
//! Nearly all words that relocations store differ between instances by a load bias only. [`Prelinked`] lists
//! these words with their values, so that an instance takes one addition for each, and does not read
//! the relocation tables. The rest (IFUNCs, thread-local storage, distances) is kept as relocations, and
//! applied to each instance as to any image.
//!
//! The order of relocations is irrelevant as long as no two of them store to the same bytes. Linkers write
//! no others; tables with such are not prelinked.
//!
//! The name is that of `prelink(8)`, which did this to files.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_collect};
use crate::elf::plan::Plan;
use crate::elf::read::u64_at;
use crate::elf::rela::Rela;
use crate::link::apply::{Applier, IfuncWord, Placement, WritableMemory};
use crate::link::bound::Bound;
use crate::memory::bytes::Image;
use crate::memory::mapping::Mapping;
use crate::memory::stage::Open;

/// The relocations of one member.
pub(crate) struct Prelinked {
    words: Vec<Words>,
    rest: Vec<Rela>,
}

/// Words of one segment that the load bias of one member is added to, or none.
struct Words {
    /// The segment's index in the plan.
    segment: usize,
    /// The member's index in the group; `None` for words that are final.
    member: Option<usize>,
    /// From the segment's first page on; and the words at a load bias of 0.
    offsets: Vec<u32>,
    values: Vec<u64>,
}

impl Prelinked {
    /// For the group's member of index `member`; the group has `members`. `None` if the order of the relocations
    /// matters, or no linker writes such tables.
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
        let placements = Placement::all_nowhere(members)?;
        // A few bytes of a packed table can encode a huge number of relocations.
        let most = image.bytes().len() / 8;
        let mut rest = Vec::new();
        let applier = Applier::for_common(&image.decoded.relocations, bound, member, &placements);
        applier.apply_common(image, &mut record, |rela, len| {
            if rest.len() <= most { Ok(rest.try_push((rela, len))?) } else { Ok(()) }
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

    /// As [`Applier::apply_all`].
    pub(crate) fn apply(
        &self,
        applier: &Applier<'_>,
        mapping: &mut Mapping<Open>,
    ) -> Result<Vec<IfuncWord>, Error> {
        for words in &self.words {
            let placement = words.member.and_then(|member| applier.placements.get(member));
            let added = placement.map_or(0, |placement| placement.load_bias.get() as u64);
            let segment = mapping.segment_mut(words.segment).unwrap_or_default();
            for (&offset, &value) in words.offsets.iter().zip(&words.values) {
                let word = segment.get_mut(offset as usize..).and_then(<[u8]>::first_chunk_mut);
                // Checked when it was recorded.
                if let Some(word) = word {
                    *word = value.wrapping_add(added).to_le_bytes();
                }
            }
        }
        applier.apply_rest(&self.rest, &mut mapping.writable())
    }
}

/// Memory that records the words that are stored.
struct Record<'a> {
    /// The image's.
    bytes: &'a [u8],
    plan: &'a Plan,
    /// The list that was last added to. Usually the next word belongs there, too.
    last: usize,
    words: Vec<Words>,
    stored: Vec<Range<Vaddr>>,
    /// The words are too many, or too far from each other.
    gives_up: bool,
    /// Memory ran out.
    no_memory: Option<Error>,
}

impl Record<'_> {
    /// The writable segment that holds `len` bytes at `at`, and their offset in it.
    fn place(&self, at: Vaddr, len: u64) -> Option<(usize, u64)> {
        let end = at.checked_add(len)?;
        let (index, segment) = self.plan.segments.iter().enumerate().find(|(_, segment)| {
            segment.access.write && segment.stated.start <= at && end <= segment.stated.end
        })?;
        Some((index, at.checked_sub(segment.pages.start)?))
    }

    fn add(&mut self, at: Vaddr, value: u64, member: Option<usize>) -> Option<()> {
        let (segment, offset) = self.place(at, 8)?;
        // Words that linkers relocate take 8 bytes of the file each.
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

impl WritableMemory for Record<'_> {
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        self.add(at, u64::from_le_bytes(*bytes.first_chunk()?), None)
    }

    fn word(&mut self, at: Vaddr) -> Option<u64> {
        let (segment, offset) = self.place(at, 8)?;
        let file = self.bytes.get(self.plan.segments.get(segment)?.file.clone())?;
        let offset = usize::try_from(offset).ok()?;
        // Memory behind the file's bytes is zero.
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
    use crate::DebugLevel;
    use crate::arch::MACHINE;
    use crate::base::promise::MayRun;
    use crate::debug::Instances;
    use crate::link::apply::{TlsBlock, TlsDescResolvers};
    use crate::load::prepare::Member;
    use crate::load::settings::Settings;
    use crate::memory::bytes::Bytes;
    use crate::memory::mapping::Source;
    use crate::tls;
    use std::path::{Path, PathBuf};

    /// The load bias and the segments of an instance of the only member, after `relocate`, and the instance: two
    /// that are mapped at once lie at different addresses.
    fn relocated(
        member: &Member<'_>,
        relocate: impl FnOnce(&Applier<'_>, &mut Mapping<Open>) -> Vec<IfuncWord>,
    ) -> (u64, Vec<Vec<u8>>, Mapping<Open>) {
        let source = Source::Copied(member.image.bytes());
        let mut mapping = Mapping::new(&member.plan, source, None).unwrap();
        let foreign_tls = member.bound.foreign_tls().iter();
        let foreign_tls = foreign_tls
            .map(|&module| TlsBlock { module, static_offset: tls::static_offset(module) })
            .collect::<Vec<_>>();
        let applier = Applier {
            relocations: &member.image.decoded.relocations,
            bound: &member.bound,
            member: 0,
            machine: &MACHINE,
            placements: &[Placement { load_bias: mapping.load_bias(), tls: None }],
            foreign_tls: &foreign_tls,
            tlsdesc_resolvers: TlsDescResolvers::default(),
        };
        relocate(&applier, &mut mapping);
        let segments = 0..member.plan.segments.len();
        let bytes = segments.filter_map(|index| mapping.segment_mut(index).map(|it| it.to_vec()));
        let bytes = bytes.collect();
        (mapping.load_bias().get() as u64, bytes, mapping)
    }

    /// The number of words of this library that move; `None` if the library does not suit the test.
    fn moved_words(file: &Path) -> Option<usize> {
        let bytes = std::fs::read(file).ok()?;
        let mut settings = Settings::new(|_| None, |_| Ok(()));
        settings.debug = DebugLevel::Off;
        settings.system_libraries = true;
        let prepared =
            settings.prepare(Bytes::Borrowed(&bytes), Instances::Many, Some(MayRun::in_tests()));
        let prepared = prepared.ok()?;
        let [member] = &prepared.members[..] else { return None };
        // The rest would need a block of thread-local variables.
        let prelinked =
            Prelinked::new(&member.image, &member.plan, &member.bound, 0, 1).unwrap()?;
        if member.image.decoded.tls.is_some() {
            return None;
        }
        let (bias, words, _first) =
            relocated(member, |it, mapping| prelinked.apply(it, mapping).unwrap());
        let (other_bias, others, _second) = relocated(member, |it, mapping| {
            it.apply_all(&member.image, &mut mapping.writable()).unwrap()
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
        let folder = std::env::var_os("MEMDL_TEST_FOLDER").map_or_else(
            || format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH).into(),
            PathBuf::from,
        );
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
