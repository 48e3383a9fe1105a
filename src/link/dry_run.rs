//! Applies the relocations of an image to no memory, to find out whether they can be applied.
//!
//! Places are checked, and values are computed as if the image lay near the process's libraries; nothing is
//! stored. What depends on where the image really lies may be judged otherwise by a load: whether a 32-bit
//! distance reaches a function of another library.

#![forbid(unsafe_code)]

use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::elf::plan::Plan;
use crate::elf::read::u64_at;
use crate::link::apply::{Applier, Placement, TlsBlock, TlsDescResolvers, WritableMemory};
use crate::link::bound::Bound;
use crate::memory::bytes::Image;

/// Checks that the relocations of the group's member of this index can be applied.
pub(crate) fn check(
    image: &Image<'_>,
    plan: &Plan,
    bound: &Bound,
    member: usize,
    placements: &[Placement],
    foreign_tls: &[TlsBlock],
) -> Result<(), Error> {
    let applier = Applier {
        relocations: &image.decoded.relocations,
        bound,
        member,
        machine: image.decoded.machine,
        placements,
        foreign_tls,
        tlsdesc_resolvers: TlsDescResolvers::default(),
    };
    let ifuncs = applier.apply_all(image, &mut NoMemory { plan, bytes: image.bytes() })?;
    let is_code = |at: Vaddr| plan.segments.iter().any(|segment| segment.is_code(at));
    let own = || ifuncs.iter().filter(|word| word.member == member);
    match own().find(|word| !is_code(word.resolver)) {
        Some(word) => {
            let what = "an IFUNC resolver lies outside executable memory";
            Err(Error::malformed(what, Place::Relocation(word.r_offset)))
        }
        None => Ok(()),
    }
}

/// Checks the places of what the instances of a template have in common, but for their load biases. The rest is found out
/// when an instance is made.
pub(crate) fn check_common(
    image: &Image<'_>,
    plan: &Plan,
    bound: &Bound,
    member: usize,
    members: usize,
) -> Result<(), Error> {
    if plan.text_relocations {
        return Ok(());
    }
    let placements = Placement::all_nowhere(members)?;
    let applier = Applier::for_common(&image.decoded.relocations, bound, member, &placements);
    applier.apply_common(image, &mut NoMemory { plan, bytes: image.bytes() }, |_, _| Ok(()))
}

/// The memory that an image would have.
struct NoMemory<'a> {
    plan: &'a Plan,
    bytes: &'a [u8],
}

impl WritableMemory for NoMemory<'_> {
    fn store<const N: usize>(&mut self, at: Vaddr, _bytes: [u8; N]) -> Option<()> {
        self.place(at, N as u64).map(drop)
    }

    fn word(&mut self, at: Vaddr) -> Option<u64> {
        let (segment, offset) = self.place(at, 8)?;
        let file = self.bytes.get(self.plan.segments.get(segment)?.file.clone())?;
        // Memory behind the file's bytes is zero.
        let mut word = [0; 8];
        let there = usize::try_from(offset).ok().and_then(|offset| file.get(offset..));
        word.iter_mut().zip(there.unwrap_or_default()).for_each(|(byte, there)| *byte = *there);
        u64_at(&word, 0)
    }
}

impl NoMemory<'_> {
    /// The segment that holds `len` writable bytes at `at`, and their offset in its pages.
    fn place(&self, at: Vaddr, len: u64) -> Option<(usize, u64)> {
        let end = at.checked_add(len)?;
        let (index, segment) = self.plan.segments.iter().enumerate().find(|(_, segment)| {
            (segment.access.write || self.plan.text_relocations)
                && segment.stated.start <= at
                && end <= segment.stated.end
        })?;
        Some((index, at.checked_sub(segment.pages.start)?))
    }
}
