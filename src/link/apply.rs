//! Applying: stores the relocations of an image, as they were bound.
//!
//! [`Applier`] streams the relocation tables and computes the formulas that stand at [`RelocKind`]. It
//! looks nothing up. It knows memory only as [`WritableMemory`], by stated address, and takes all else
//! as values: load biases, ids and offsets of thread-local modules, addresses of resolvers. So it
//! runs on plain bytes. IFUNCs come out of it as a list ([`IfuncWord`]), since their resolvers are code of
//! the images and must not run before all images of the group are relocated.
//!
//! Sources: psABI "Relocation Types"; gABI "Relative Relocation Table" (`DT_RELR`).

#![forbid(unsafe_code)]

use crate::arch::{MACHINE, Machine, RelocKind};
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::{Error, Place};
use crate::base::fallible::{OutOfMemory, TryGrow, try_filled};
use crate::base::members;
use crate::base::tls_index::{ModuleId, TlsDescArgument};
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::relocation_tables::RelocationTables;
use crate::link::bound::{Bound, Done, Target, checked_kind, no_kind};

/// Where a member of the group lies in this instance.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    pub load_bias: LoadBias,
    /// Its thread-local storage, if it has any.
    pub tls: Option<TlsBlock>,
}

impl Placement {
    /// The members of a group that is nowhere yet.
    pub(crate) fn all_nowhere(members: usize) -> Result<Vec<Placement>, OutOfMemory> {
        try_filled(Placement { load_bias: LoadBias::between(Vaddr(0), 0), tls: None }, members)
    }
}

/// The thread-local storage of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TlsBlock {
    pub module: ModuleId,
    /// The distance of the block from the thread pointer, if it is the same in every thread.
    pub static_offset: Option<isize>,
}

/// The functions that TLS descriptors name, by address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TlsDescResolvers {
    /// For a block at a static offset.
    pub static_block: usize,
    /// For a block that each thread allocates.
    pub dynamic_block: usize,
    /// For a weak reference that nothing defines.
    pub undefined_weak: usize,
}

/// Memory that relocations are stored to, by stated address.
pub(crate) trait WritableMemory {
    /// Stores at `at`; `None`, with nothing stored, where the image has no writable memory.
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()>;

    /// The word at `at`, where it could be stored to.
    fn word(&mut self, at: Vaddr) -> Option<u64>;

    /// Stores the run-time address of `address`, in `member` of the group.
    #[inline]
    fn store_address(
        &mut self,
        at: Vaddr,
        address: Vaddr,
        _member: usize,
        load_bias: LoadBias,
    ) -> Option<()> {
        self.store(at, (load_bias.apply(address) as u64).to_le_bytes())
    }
}

/// A word that the result of an IFUNC resolver is stored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IfuncWord {
    pub r_offset: Vaddr,
    /// The member that holds the resolver, and the resolver's stated address.
    pub member: usize,
    pub resolver: Vaddr,
    pub r_addend: i64,
}

/// The bit of a kind, of which there are fewer than 32.
#[inline]
fn bit(kind: RelocKind) -> u32 {
    1u32.wrapping_shl(kind as u32)
}

#[cold]
fn misplaced(r_type: u32, r_offset: Vaddr, machine: &Machine) -> Box<Error> {
    let what = format!("{} applies to memory that is not writable", (machine.reloc_name)(r_type));
    Box::new(Error::malformed(what, Place::Relocation(r_offset)))
}

/// Stores the relocations of an image, in one instance of its group.
pub(crate) struct Applier<'a> {
    pub relocations: &'a RelocationTables,
    pub bound: &'a Bound,
    /// The image's index in the group.
    pub member: usize,
    pub machine: &'a Machine,
    /// Of the group's members, by index.
    pub placements: &'a [Placement],
    /// The modules of [`Bound::foreign_tls`].
    pub foreign_tls: &'a [TlsBlock],
    pub tlsdesc_resolvers: TlsDescResolvers,
}

impl<'a> Applier<'a> {
    /// For [`Applier::apply_common`] of an image whose group is nowhere yet.
    pub(crate) fn for_common(
        relocations: &'a RelocationTables,
        bound: &'a Bound,
        member: usize,
        placements: &'a [Placement],
    ) -> Applier<'a> {
        Applier {
            relocations,
            bound,
            member,
            machine: &MACHINE,
            placements,
            // Only words that no instance changes but by load biases are stored.
            foreign_tls: &[],
            tlsdesc_resolvers: TlsDescResolvers::default(),
        }
    }

    /// Stores all but the words of IFUNCs, which are returned in order. `tables` holds the relocation
    /// tables; it is not the memory that is stored to.
    pub(crate) fn apply_all(
        &self,
        tables: &impl ReadAt,
        memory: &mut impl WritableMemory,
    ) -> Result<Vec<IfuncWord>, Error> {
        self.apply_relr(self.relocations.relr_words(tables), memory)?;
        let mut ifuncs = Vec::new();
        let (load_bias, plain) = (self.load_bias(), self.plain_kinds());
        self.relocations.visit(tables, |entries| {
            for rela in Rela::entries(entries) {
                // Most relocations are relative, and need nothing but the entry.
                if rela.r_type == self.machine.relative {
                    self.apply_relative(&rela, load_bias, memory)?;
                } else {
                    let kind = checked_kind(&rela, self.machine)?;
                    self.apply(kind, &rela, plain, memory, &mut ifuncs)?;
                }
            }
            Ok(())
        })?;
        Ok(ifuncs)
    }

    /// Stores the relocations whose values differ between instances by load biases only. Calls `rest`
    /// for each of the others, in order, with the number of bytes that it may store.
    pub(crate) fn apply_common(
        &self,
        tables: &impl ReadAt,
        memory: &mut impl WritableMemory,
        mut rest: impl FnMut(Rela, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.apply_relr(self.relocations.relr_words(tables), memory)?;
        let (load_bias, plain) = (self.load_bias(), self.plain_kinds());
        self.relocations.visit(tables, |entries| {
            for rela in Rela::entries(entries) {
                let kind = checked_kind(&rela, self.machine)?;
                if kind == RelocKind::Relative {
                    self.apply_relative(&rela, load_bias, memory)?;
                } else if self.is_common(kind, &rela)? {
                    self.apply(kind, &rela, plain, memory, &mut Vec::new())?;
                } else {
                    rest(rela, kind.stored_len())?;
                }
            }
            Ok(())
        })
    }

    /// As [`Applier::apply_all`], for the relocations that [`Applier::apply_common`] left.
    pub(crate) fn apply_rest(
        &self,
        rest: &[Rela],
        memory: &mut impl WritableMemory,
    ) -> Result<Vec<IfuncWord>, Error> {
        let mut ifuncs = Vec::new();
        let plain = self.plain_kinds();
        let done = rest.iter().try_for_each(|rela| {
            self.apply(checked_kind(rela, self.machine)?, rela, plain, memory, &mut ifuncs)
        });
        done.map_err(|error| *error)?;
        Ok(ifuncs)
    }

    fn load_bias(&self) -> LoadBias {
        self.placement(self.member).load_bias
    }

    #[inline]
    fn placement(&self, member: usize) -> &Placement {
        members::member(self.placements, member)
    }

    /// `DT_RELR`: an even entry is the address of a word to relocate; an odd one is a bitmap of the next
    /// 63 words.
    fn apply_relr(
        &self,
        words: impl Iterator<Item = u64>,
        memory: &mut impl WritableMemory,
    ) -> Result<(), Error> {
        let mut at = Vaddr(0);
        for entry in words {
            let (start, bits, step) =
                if entry & 1 == 0 { (Vaddr(entry), 1, 8) } else { (at, entry >> 1, 63 * 8) };
            let mut bits = bits;
            while bits != 0 {
                let index = u64::from(bits.trailing_zeros());
                // Clears the lowest.
                bits &= bits.wrapping_sub(1);
                let place = Vaddr(start.0.wrapping_add(index.wrapping_mul(8)));
                self.relocate_word(place, memory).ok_or_else(|| {
                    let what = "DT_RELR applies to memory that is not writable";
                    Error::malformed(what, Place::Relocation(place))
                })?;
            }
            at = Vaddr(start.0.wrapping_add(step));
        }
        Ok(())
    }

    /// Replaces the stated address at `place` by the run-time address.
    #[inline]
    fn relocate_word(&self, place: Vaddr, memory: &mut impl WritableMemory) -> Option<()> {
        let word = memory.word(place)?;
        memory.store_address(place, Vaddr(word), self.member, self.load_bias())
    }

    #[inline]
    fn apply_relative(
        &self,
        rela: &Rela,
        load_bias: LoadBias,
        memory: &mut impl WritableMemory,
    ) -> Done<()> {
        let address = Vaddr(rela.r_addend as u64);
        memory
            .store_address(rela.r_offset, address, self.member, load_bias)
            .ok_or_else(|| self.misplaced(rela))
    }

    /// The kinds that store a symbol's address in a word, as bits.
    fn plain_kinds(&self) -> u32 {
        let calls_differ = self.bound.lazy_calls || !self.bound.calls.is_empty();
        let calls = if calls_differ { 0 } else { bit(RelocKind::JumpSlot) };
        bit(RelocKind::Absolute) | bit(RelocKind::GlobDat) | calls
    }

    fn misplaced(&self, rela: &Rela) -> Box<Error> {
        misplaced(rela.r_type, rela.r_offset, self.machine)
    }

    /// Whether the value differs between instances by a load bias only.
    fn is_common(&self, kind: RelocKind, rela: &Rela) -> Done<bool> {
        Ok(match kind {
            RelocKind::None => true,
            _ if self.bound.is_lazy_call(kind, rela.symbol) => true,
            _ if kind.is_plain() => {
                matches!(self.target(kind, rela)?, Target::Address(_) | Target::Member { .. })
            }
            _ => false,
        })
    }

    #[inline(always)]
    fn apply(
        &self,
        kind: RelocKind,
        rela: &Rela,
        plain: u32,
        memory: &mut impl WritableMemory,
        ifuncs: &mut Vec<IfuncWord>,
    ) -> Done<()> {
        // Most others store a symbol's address in a word.
        let is_plain = plain & bit(kind) != 0;
        let addend = if kind == RelocKind::Absolute { rela.r_addend } else { 0 };
        let stored = match self.bound.symbols.get(rela.symbol as usize) {
            Some(&Some(Target::Address(address))) if is_plain => {
                let value = (address as u64).wrapping_add_signed(addend);
                memory.store(rela.r_offset, value.to_le_bytes())
            }
            Some(&Some(Target::Member { member, st_value })) if is_plain => {
                let address = Vaddr(st_value.0.wrapping_add_signed(addend));
                let load_bias = self.placement(member).load_bias;
                memory.store_address(rela.r_offset, address, member, load_bias)
            }
            _ => {
                let Rela { r_offset, symbol, r_type, r_addend } = *rela;
                let r_info = Rela::info(symbol, r_type);
                return self.apply_parts(kind, r_offset, r_info, r_addend, memory, ifuncs);
            }
        };
        stored.ok_or_else(|| self.misplaced(rela))
    }

    /// As [`Applier::apply_any`]. Takes the entry in parts, so that those that the usual path handles stay in
    /// registers.
    #[inline(never)]
    fn apply_parts(
        &self,
        kind: RelocKind,
        r_offset: Vaddr,
        r_info: u64,
        r_addend: i64,
        memory: &mut impl WritableMemory,
        ifuncs: &mut Vec<IfuncWord>,
    ) -> Done<()> {
        self.apply_any(kind, &Rela::new(r_offset, r_info, r_addend), memory, ifuncs)
    }

    fn apply_any(
        &self,
        kind: RelocKind,
        rela: &Rela,
        memory: &mut impl WritableMemory,
        ifuncs: &mut Vec<IfuncWord>,
    ) -> Done<()> {
        let place = rela.r_offset;
        if self.bound.is_lazy_call(kind, rela.symbol) {
            // The word leads to the second half of the PLT entry, which calls the lazy binder.
            return self.relocate_word(place, memory).ok_or_else(|| self.misplaced(rela));
        }
        let target = self.target(kind, rela)?;
        let mut no_room = None;
        let mut defer = |member, resolver, r_addend| {
            // Checked now, so that nothing can fail once resolvers have run.
            memory.word(place)?;
            let item = IfuncWord { r_offset: place, member, resolver, r_addend };
            ifuncs.try_push(item).map_err(|error| no_room = Some(error)).ok()
        };
        let plus = |value: u64| value.wrapping_add_signed(rela.r_addend);
        let stored = match (kind, target) {
            (RelocKind::None, _) => Some(()),
            (RelocKind::IRelative, _) => defer(self.member, Vaddr(rela.r_addend as u64), 0),
            (RelocKind::Absolute, Target::MemberIfunc { member, st_value }) => {
                defer(member, st_value, rela.r_addend)
            }
            (_, Target::MemberIfunc { member, st_value }) if kind.is_plain() => {
                defer(member, st_value, 0)
            }
            (RelocKind::GlobDat | RelocKind::JumpSlot, _) => {
                memory.store(place, self.address(target, rela)?.to_le_bytes())
            }
            (RelocKind::Absolute, _) => {
                memory.store(place, plus(self.address(target, rela)?).to_le_bytes())
            }
            (RelocKind::Absolute32, _) => {
                let value = self.to_u32(plus(self.address(target, rela)?), rela)?;
                memory.store(place, value.to_le_bytes())
            }
            (RelocKind::PcRelative | RelocKind::PcRelative32, _) => {
                let at = self.load_bias().apply(place) as u64;
                let distance = plus(self.address(target, rela)?).wrapping_sub(at);
                if kind == RelocKind::PcRelative {
                    memory.store(place, distance.to_le_bytes())
                } else {
                    memory.store(place, self.to_i32(distance, rela)?.to_le_bytes())
                }
            }
            (RelocKind::Size | RelocKind::Size32, _) => {
                let size = self.bound.sizes.get(rela.symbol as usize).copied().flatten();
                let size = plus(size.unwrap_or(0));
                if kind == RelocKind::Size {
                    memory.store(place, size.to_le_bytes())
                } else {
                    memory.store(place, self.to_u32(size, rela)?.to_le_bytes())
                }
            }
            (RelocKind::DtpMod | RelocKind::DtpOff | RelocKind::TpOff | RelocKind::TlsDesc, _) => {
                self.apply_tls(kind, target, rela, memory)?
            }
            (RelocKind::Relative | RelocKind::Copy, _) => {
                return Err(Error::unsupported(format!("{} at {place}", self.name(rela))).into());
            }
        };
        if let Some(error) = no_room {
            return Err(Error::from(error).into());
        }
        stored.ok_or_else(|| self.misplaced(rela))
    }

    /// Stores a relocation of a thread-local; `None` where the memory is not writable.
    fn apply_tls(
        &self,
        kind: RelocKind,
        target: Target,
        rela: &Rela,
        memory: &mut impl WritableMemory,
    ) -> Done<Option<()>> {
        let place = rela.r_offset;
        let plus = |value: u64| value.wrapping_add_signed(rela.r_addend);
        Ok(match kind {
            RelocKind::DtpMod => {
                // 0 for an undefined weak reference.
                let module = self.tls_variable(target, rela)?.map_or(0, |(tls, _)| tls.module.0);
                memory.store(place, module.to_le_bytes())
            }
            RelocKind::DtpOff => {
                let offset = self.tls_variable(target, rela)?.map_or(0, |(_, offset)| offset);
                memory.store(place, plus(offset).to_le_bytes())
            }
            RelocKind::TpOff => {
                let offset = match self.tls_variable(target, rela)? {
                    None => 0,
                    Some((tls, offset)) => {
                        let start = tls.static_offset.ok_or_else(|| self.not_static(rela))?;
                        plus(offset).wrapping_add_signed(start as i64)
                    }
                };
                memory.store(place, offset.to_le_bytes())
            }
            RelocKind::TlsDesc => {
                let (resolver, argument) =
                    self.descriptor(self.tls_variable(target, rela)?, rela)?;
                let words = u128::from(argument) << 64 | resolver as u128;
                memory.store(place, words.to_le_bytes())
            }
            _ => return Err(no_kind(rela.r_type, rela.r_offset, self.machine)),
        })
    }

    /// The target that the relocation's symbol is bound to.
    fn target(&self, kind: RelocKind, rela: &Rela) -> Done<Target> {
        if rela.symbol == 0 {
            let own = Target::MemberTls { member: self.member, offset: 0 };
            let start = Target::start_of(self.member);
            return Ok(if kind.is_thread_local() { own } else { start });
        }
        if matches!(kind, RelocKind::IRelative | RelocKind::None) {
            return Ok(Target::Address(0));
        }
        if kind == RelocKind::JumpSlot
            && let Some(Some(call)) = self.bound.calls.get(rela.symbol as usize)
        {
            return Ok(*call);
        }
        let bound = self.bound.symbols.get(rela.symbol as usize).copied().flatten();
        bound.ok_or_else(|| {
            let at = Place::Relocation(rela.r_offset);
            Error::malformed("a symbol that was never bound", at).into()
        })
    }

    /// `S` of the formulas.
    fn address(&self, target: Target, rela: &Rela) -> Done<u64> {
        match target {
            Target::Address(address) => Ok(address as u64),
            Target::Member { member, st_value } => {
                Ok(self.placement(member).load_bias.apply(st_value) as u64)
            }
            Target::MemberIfunc { .. } => Err(Error::unsupported(format!(
                "{} at {} with an IFUNC symbol",
                self.name(rela),
                rela.r_offset
            ))
            .into()),
            Target::MemberTls { .. } | Target::Tls { .. } => {
                let what = format!("{} names a thread-local symbol", self.name(rela));
                Err(Error::malformed(what, Place::Relocation(rela.r_offset)).into())
            }
        }
    }

    /// The module of a thread-local variable, and the offset in its block; `None` for an undefined weak
    /// one.
    fn tls_variable(&self, target: Target, rela: &Rela) -> Result<Option<(TlsBlock, u64)>, Error> {
        let malformed = |what: &str| {
            let what = format!("{} {what}", self.name(rela));
            Error::malformed(what, Place::Relocation(rela.r_offset))
        };
        match target {
            Target::MemberTls { member, offset } => match self.placement(member).tls {
                Some(tls) => Ok(Some((tls, offset))),
                None => Err(malformed("in an image without thread-local storage (PT_TLS)")),
            },
            Target::Tls { module, offset } => {
                let known = self.foreign_tls.iter().find(|tls| tls.module == module);
                let tls = known.copied().unwrap_or(TlsBlock { module, static_offset: None });
                Ok(Some((tls, offset)))
            }
            Target::Address(0) => Ok(None),
            _ => Err(malformed("names a symbol that is not thread-local")),
        }
    }

    /// The resolver and the argument of a TLS descriptor.
    fn descriptor(
        &self,
        variable: Option<(TlsBlock, u64)>,
        rela: &Rela,
    ) -> Result<(usize, u64), Error> {
        let resolvers = &self.tlsdesc_resolvers;
        let Some((tls, offset)) = variable else {
            return Ok((resolvers.undefined_weak, rela.r_addend as u64));
        };
        let offset = offset.wrapping_add_signed(rela.r_addend);
        if let Some(start) = tls.static_offset {
            let argument = offset.wrapping_add_signed(start as i64);
            return Ok((resolvers.static_block, argument));
        }
        let descriptor = TlsDescArgument::new(tls.module, offset as i64).ok_or_else(|| {
            let what = format!("{} at {}", self.name(rela), rela.r_offset);
            Error::unsupported(format!("{what}: more modules, or larger ones, than it can name"))
        })?;
        Ok((resolvers.dynamic_block, descriptor.0))
    }

    fn not_static(&self, rela: &Rela) -> Error {
        Error::unsupported(format!(
            "{} at {}: initial-exec access to a thread-local of a library that was loaded without \
             room for it in every thread",
            self.name(rela),
            rela.r_offset
        ))
    }

    fn name(&self, rela: &Rela) -> &'static str {
        (self.machine.reloc_name)(rela.r_type)
    }

    fn to_u32(&self, value: u64, rela: &Rela) -> Result<u32, Error> {
        u32::try_from(value).map_err(|_| self.overflow(rela))
    }

    fn to_i32(&self, distance: u64, rela: &Rela) -> Result<i32, Error> {
        i32::try_from(distance as i64).map_err(|_| self.overflow(rela))
    }

    fn overflow(&self, rela: &Rela) -> Error {
        let what = format!("{} overflows: its value does not fit into 32 bits", self.name(rela));
        Error::unsupported(format!("{what} (at {})", rela.r_offset))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    // The machine with the most kinds of relocations.
    use crate::arch::x86_64::MACHINE;
    use crate::base::tls_index::OURS;

    const START: u64 = 0x1000;
    const LEN: usize = 0x100;
    /// Where most tests store.
    const AT: Vaddr = Vaddr(0x1010);
    const FILL: u8 = 0xa5;

    const BIAS: u64 = 0x7f12_3456_7000;
    const OTHER_BIAS: u64 = 0x5500_0000_0000;

    // The symbols of the group that is relocated, by index.
    const ADDRESS: u32 = 1;
    const OWN: u32 = 2;
    const OTHER: u32 = 3;
    const IFUNC: u32 = 4;
    const OWN_TLS: u32 = 5;
    const STATIC_TLS: u32 = 6;
    const FOREIGN_STATIC_TLS: u32 = 7;
    const FOREIGN_TLS: u32 = 8;
    const UNDEFINED_WEAK: u32 = 9;
    const UNBOUND: u32 = 10;

    const OWN_MODULE: ModuleId = ModuleId(OURS | 1);
    const STATIC_MODULE: ModuleId = ModuleId(OURS | 2);
    const RESOLVERS: TlsDescResolvers =
        TlsDescResolvers { static_block: 0x111, dynamic_block: 0x222, undefined_weak: 0x333 };

    /// Memory as plain bytes, from [`START`].
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Bytes(Vec<u8>);

    impl Bytes {
        fn filled() -> Bytes {
            Bytes(vec![FILL; LEN])
        }

        /// Filled, but for these bytes.
        fn with(at: Vaddr, bytes: &[u8]) -> Bytes {
            let mut memory = Bytes::filled();
            memory.range_mut(at, bytes.len()).unwrap().copy_from_slice(bytes);
            memory
        }

        fn range_mut(&mut self, at: Vaddr, len: usize) -> Option<&mut [u8]> {
            let start = usize::try_from(at.0.checked_sub(START)?).ok()?;
            self.0.get_mut(start..start.checked_add(len)?)
        }
    }

    impl WritableMemory for Bytes {
        fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
            self.range_mut(at, N).map(|place| place.copy_from_slice(&bytes))
        }

        fn word(&mut self, at: Vaddr) -> Option<u64> {
            let word = self.range_mut(at, 8)?;
            Some(u64::from_le_bytes((&*word).try_into().unwrap()))
        }
    }

    /// The relocation tables, which start at the stated address 0.
    struct Tables(Vec<u8>);

    impl ReadAt for Tables {
        fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
            self.0.get(range.start.0 as usize..range.end.0 as usize)
        }

        fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
            self.0.get(start.0 as usize..)
        }
    }

    fn number(kind: RelocKind) -> u32 {
        MACHINE.reloc_kinds.iter().position(|it| *it == Some(kind)).unwrap() as u32
    }

    fn rela(kind: RelocKind, symbol: u32, r_addend: i64) -> Rela {
        Rela { r_offset: AT, symbol, r_type: number(kind), r_addend }
    }

    fn bound(lazy_calls: bool) -> Bound {
        let mut bound = Bound::new(11, lazy_calls).unwrap();
        for (index, target) in [
            (ADDRESS, Target::Address(0x1234_5678)),
            (OWN, Target::Member { member: 0, st_value: Vaddr(0x2000) }),
            (OTHER, Target::Member { member: 1, st_value: Vaddr(0x3000) }),
            (IFUNC, Target::MemberIfunc { member: 1, st_value: Vaddr(0x4000) }),
            (OWN_TLS, Target::MemberTls { member: 0, offset: 0x18 }),
            (STATIC_TLS, Target::MemberTls { member: 1, offset: 0x20 }),
            (FOREIGN_STATIC_TLS, Target::Tls { module: ModuleId(5), offset: 0x30 }),
            (FOREIGN_TLS, Target::Tls { module: ModuleId(6), offset: 0x40 }),
            (UNDEFINED_WEAK, Target::Address(0)),
        ] {
            Bound::note(&mut bound.symbols, index as usize, target).unwrap();
        }
        Bound::note(&mut bound.sizes, OWN as usize, 40).unwrap();
        Bound::note(&mut bound.sizes, OTHER as usize, u64::MAX).unwrap();
        bound
    }

    /// Calls `use_applier` with the applier of the group's first member, whose tables are `relocations`.
    fn with_applier<T>(
        bound: &Bound,
        relocations: &RelocationTables,
        use_applier: impl FnOnce(&Applier<'_>) -> T,
    ) -> T {
        let bias = |bias: u64| LoadBias::between(Vaddr(0), bias as usize);
        let tls = |module, static_offset| Some(TlsBlock { module, static_offset });
        use_applier(&Applier {
            relocations,
            bound,
            member: 0,
            machine: &MACHINE,
            placements: &[
                Placement { load_bias: bias(BIAS), tls: tls(OWN_MODULE, None) },
                Placement { load_bias: bias(OTHER_BIAS), tls: tls(STATIC_MODULE, Some(-64)) },
            ],
            foreign_tls: &[
                TlsBlock { module: ModuleId(5), static_offset: Some(-256) },
                TlsBlock { module: ModuleId(6), static_offset: None },
            ],
            tlsdesc_resolvers: RESOLVERS,
        })
    }

    fn rela_tables(relas: &[Rela]) -> (Tables, RelocationTables) {
        let bytes: Vec<u8> = relas.iter().flat_map(|rela| rela.to_bytes()).collect();
        let rela = Some(Vaddr(0)..Vaddr(bytes.len() as u64));
        (Tables(bytes), RelocationTables { rela, ..RelocationTables::default() })
    }

    /// Applies the relocations to filled memory.
    fn apply(relas: &[Rela], bound: &Bound) -> (Result<Vec<IfuncWord>, Error>, Bytes) {
        let mut memory = Bytes::filled();
        let (tables, relocations) = rela_tables(relas);
        let applied = with_applier(bound, &relocations, |it| it.apply_all(&tables, &mut memory));
        (applied, memory)
    }

    #[test]
    fn each_kind_stores_the_value_of_its_formula() {
        use RelocKind::*;
        let word = |value: u64| value.to_le_bytes().to_vec();
        let half = |value: u32| value.to_le_bytes().to_vec();
        let pair = |first: u64, second: u64| [first.to_le_bytes(), second.to_le_bytes()].concat();
        let argument = |module, offset| TlsDescArgument::new(module, offset).unwrap().0;
        let place = BIAS + AT.0;
        for (kind, symbol, addend, stored) in [
            (None, 0, 7, vec![]),
            (Relative, 0, 0x2010, word(BIAS + 0x2010)),
            (Absolute, ADDRESS, -8, word(0x1234_5670)),
            (Absolute, OTHER, 4, word(OTHER_BIAS + 0x3004)),
            (Absolute, 0, 0x28, word(BIAS + 0x28)),
            (Absolute, UNDEFINED_WEAK, 0, word(0)),
            (GlobDat, OWN, 16, word(BIAS + 0x2000)),
            (GlobDat, ADDRESS, 16, word(0x1234_5678)),
            (JumpSlot, OTHER, 16, word(OTHER_BIAS + 0x3000)),
            (Absolute32, ADDRESS, 1, half(0x1234_5679)),
            (PcRelative, OWN, 8, word(0x2008 - AT.0)),
            (PcRelative, OTHER, 0, word((OTHER_BIAS + 0x3000).wrapping_sub(place))),
            (PcRelative32, OWN, -4, half(0x1ffc - AT.0 as u32)),
            (Size, OWN, 2, word(42)),
            (Size32, OWN, -40, half(0)),
            (DtpMod, OWN_TLS, 0, word(OWN_MODULE.0 as u64)),
            (DtpMod, FOREIGN_TLS, 0, word(6)),
            (DtpMod, 0, 0, word(OWN_MODULE.0 as u64)),
            (DtpMod, UNDEFINED_WEAK, 0, word(0)),
            (DtpOff, OWN_TLS, 4, word(0x1c)),
            (DtpOff, UNDEFINED_WEAK, 4, word(4)),
            (TpOff, STATIC_TLS, 2, word(0x22_i64.wrapping_sub(64) as u64)),
            (TpOff, FOREIGN_STATIC_TLS, 0, word(0x30_i64.wrapping_sub(256) as u64)),
            (TpOff, UNDEFINED_WEAK, 9, word(0)),
            (TlsDesc, STATIC_TLS, 1, pair(0x111, 0x21_i64.wrapping_sub(64) as u64)),
            (TlsDesc, OWN_TLS, 1, pair(0x222, argument(OWN_MODULE, 0x19))),
            (TlsDesc, FOREIGN_TLS, -1, pair(0x222, argument(ModuleId(6), 0x3f))),
            (TlsDesc, UNDEFINED_WEAK, 5, pair(0x333, 5)),
        ] {
            let (applied, memory) = apply(&[rela(kind, symbol, addend)], &bound(false));
            assert_eq!(applied.unwrap(), [], "{kind:?} {symbol}");
            assert_eq!(memory, Bytes::with(AT, &stored), "{kind:?}, symbol {symbol}");
            assert_eq!(kind.stored_len(), stored.len() as u64, "{kind:?}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused() {
        use RelocKind::*;
        let largest = i64::from(u32::MAX) - 0x1234_5678;
        // Relative to the place, `OWN` is at 0xff0.
        let farthest = i64::from(i32::MAX) - 0xff0;
        let nearest = i64::from(i32::MIN) - 0xff0;
        for (kind, symbol, addend, fits) in [
            (Absolute32, ADDRESS, largest, true),
            (Absolute32, ADDRESS, largest + 1, false),
            (Absolute32, ADDRESS, -0x1234_5679, false),
            (Absolute32, OWN, 0, false),
            (PcRelative32, OWN, farthest, true),
            (PcRelative32, OWN, farthest + 1, false),
            (PcRelative32, OWN, nearest, true),
            (PcRelative32, OWN, nearest - 1, false),
            (PcRelative32, OTHER, 0, false),
            (Size32, OWN, i64::from(u32::MAX) - 40, true),
            (Size32, OWN, i64::from(u32::MAX) - 39, false),
            (Size32, OTHER, 0, false),
        ] {
            let (applied, memory) = apply(&[rela(kind, symbol, addend)], &bound(false));
            let text = applied.as_ref().map_or_else(Error::to_string, |_| String::new());
            assert_eq!(applied.is_ok(), fits, "{kind:?} {symbol} {addend}: {text}");
            if !fits {
                assert!(matches!(applied, Err(Error::Unsupported { .. })), "{text}");
                assert!(text.contains("overflows"), "{text}");
                assert_eq!(memory, Bytes::filled(), "{kind:?} {symbol} {addend}");
            }
        }
    }

    #[test]
    fn an_offset_beyond_the_memory_is_refused() {
        use RelocKind::*;
        for (kind, symbol) in [
            (Relative, 0),
            (Absolute, ADDRESS),
            (Absolute, OWN),
            (Absolute, IFUNC),
            (GlobDat, OTHER),
            (GlobDat, IFUNC),
            (JumpSlot, OWN),
            (Absolute32, ADDRESS),
            (PcRelative, OWN),
            (PcRelative32, OWN),
            (Size, OWN),
            (Size32, OWN),
            (DtpMod, OWN_TLS),
            (DtpOff, OWN_TLS),
            (TpOff, STATIC_TLS),
            (TlsDesc, OWN_TLS),
            (IRelative, 0),
        ] {
            let end = START + LEN as u64;
            let last = end - kind.stored_len();
            // The offset of 32-bit distances moves with the place.
            let is_distance = kind == PcRelative32;
            for at in [START - 1, last + 1, end, 0, u64::MAX] {
                let at = Vaddr(at);
                let far = is_distance && at.0 > i32::MAX as u64;
                let (applied, memory) =
                    apply(&[Rela { r_offset: at, ..rela(kind, symbol, 0) }], &bound(false));
                match applied {
                    Err(Error::Malformed { at: Place::Relocation(found), .. }) => {
                        assert_eq!(found, at, "{kind:?}");
                    }
                    Err(Error::Unsupported { .. }) if far => {}
                    other => panic!("{kind:?} at {at}: {other:?}"),
                }
                assert_eq!(memory, Bytes::filled(), "{kind:?} at {at}");
            }
            let (applied, _) =
                apply(&[Rela { r_offset: Vaddr(last), ..rela(kind, symbol, 0) }], &bound(false));
            applied.unwrap();
        }
        // Stores nothing.
        let none = Rela { r_offset: Vaddr(u64::MAX), ..rela(None, 0, 0) };
        assert_eq!(apply(&[none], &bound(false)).0.unwrap(), []);
    }

    #[test]
    fn words_of_ifuncs_are_listed_in_order_and_not_stored() {
        use RelocKind::*;
        let relas = [
            rela(IRelative, 0, 0x5000),
            rela(Absolute, IFUNC, 3),
            rela(GlobDat, IFUNC, 3),
            rela(JumpSlot, IFUNC, 3),
        ];
        let (applied, memory) = apply(&relas, &bound(false));
        let word = |member, resolver, r_addend| IfuncWord {
            r_offset: AT,
            member,
            resolver: Vaddr(resolver),
            r_addend,
        };
        let own = word(0, 0x5000, 0);
        let other = word(1, 0x4000, 0);
        assert_eq!(applied.unwrap(), [own, word(1, 0x4000, 3), other, other]);
        assert_eq!(memory, Bytes::filled());
    }

    #[test]
    fn a_symbol_of_the_wrong_type_is_refused() {
        use RelocKind::*;
        for (kind, symbol) in [
            (GlobDat, OWN_TLS),
            (Absolute, FOREIGN_TLS),
            (PcRelative, STATIC_TLS),
            (DtpMod, OWN),
            (DtpOff, ADDRESS),
            (TpOff, OWN),
            (TlsDesc, IFUNC),
            (GlobDat, UNBOUND),
            (DtpMod, UNBOUND),
            (GlobDat, 11),
            (Absolute, u32::MAX),
        ] {
            let (applied, memory) = apply(&[rela(kind, symbol, 0)], &bound(false));
            assert!(matches!(applied, Err(Error::Malformed { .. })), "{kind:?} {symbol}");
            assert_eq!(memory, Bytes::filled(), "{kind:?} {symbol}");
        }
        for (kind, symbol) in [
            // Their blocks have no static offset.
            (TpOff, OWN_TLS),
            (TpOff, FOREIGN_TLS),
            (PcRelative, IFUNC),
            (Absolute32, IFUNC),
            (Copy, ADDRESS),
        ] {
            let (applied, memory) = apply(&[rela(kind, symbol, 0)], &bound(false));
            assert!(matches!(applied, Err(Error::Unsupported { .. })), "{kind:?} {symbol}");
            assert_eq!(memory, Bytes::filled(), "{kind:?} {symbol}");
        }
        let unknown = Rela { r_type: u32::MAX, ..rela(GlobDat, OWN, 0) };
        assert!(matches!(apply(&[unknown], &bound(false)).0, Err(Error::Unsupported { .. })));
    }

    #[test]
    fn relr_relocates_words_and_bitmaps_of_words() {
        let words = [START, 0b1011, START + 0x80];
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let relr = Some(Vaddr(0)..Vaddr(bytes.len() as u64));
        let relocations = RelocationTables { relr, ..RelocationTables::default() };
        let mut memory = Bytes(vec![0; LEN]);
        for offset in (0..LEN).step_by(8) {
            memory.0[offset..offset + 8].copy_from_slice(&(offset as u64).to_le_bytes());
        }
        let before = memory.clone();
        let tables = Tables(bytes);
        let applied =
            with_applier(&bound(false), &relocations, |it| it.apply_all(&tables, &mut memory));
        assert_eq!(applied.unwrap(), []);
        // The bitmap begins behind the first word: bits 1 and 3 are its words 0 and 2.
        let moved = [0, 8, 0x18, 0x80];
        for offset in (0..LEN).step_by(8) {
            let added = if moved.contains(&offset) { BIAS } else { 0 };
            let at = Vaddr(START + offset as u64);
            let word = before.clone().word(at).unwrap() + added;
            assert_eq!(memory.word(at), Some(word), "{at}");
        }
    }

    #[test]
    fn a_relr_word_beyond_the_memory_is_refused() {
        for words in
            [&[START - 8][..], &[START + LEN as u64], &[START + LEN as u64 - 8, 3], &[1, 3]]
        {
            let bytes: Vec<u8> = words.iter().copied().flat_map(u64::to_le_bytes).collect();
            let relr = Some(Vaddr(0)..Vaddr(bytes.len() as u64));
            let relocations = RelocationTables { relr, ..RelocationTables::default() };
            let tables = Tables(bytes);
            let mut memory = Bytes::filled();
            let applied =
                with_applier(&bound(false), &relocations, |it| it.apply_all(&tables, &mut memory));
            assert!(matches!(applied, Err(Error::Malformed { .. })), "{words:x?}: {applied:?}");
        }
    }

    #[test]
    fn a_lazy_call_keeps_its_word_and_gets_the_load_bias() {
        let mut memory = Bytes::with(AT, &0x1036_u64.to_le_bytes());
        let (tables, relocations) = rela_tables(&[rela(RelocKind::JumpSlot, UNBOUND, 0)]);
        let bound = bound(true);
        with_applier(&bound, &relocations, |it| it.apply_all(&tables, &mut memory)).unwrap();
        assert_eq!(memory, Bytes::with(AT, &(BIAS + 0x1036).to_le_bytes()));
    }

    #[test]
    fn a_call_goes_to_the_function_and_not_to_the_executables_plt_entry() {
        let mut bound = bound(false);
        let function = Target::Address(0x9999);
        Bound::note(&mut bound.calls, ADDRESS as usize, function).unwrap();
        let (_, memory) = apply(&[rela(RelocKind::JumpSlot, ADDRESS, 0)], &bound);
        assert_eq!(memory, Bytes::with(AT, &0x9999_u64.to_le_bytes()));
        let (_, memory) = apply(&[rela(RelocKind::GlobDat, ADDRESS, 0)], &bound);
        assert_eq!(memory, Bytes::with(AT, &0x1234_5678_u64.to_le_bytes()));
    }

    #[test]
    fn common_relocations_and_the_rest_are_all() {
        use RelocKind::*;
        let kinds = [(Relative, 0), (GlobDat, OWN), (Absolute, ADDRESS), (PcRelative, OWN)];
        let more = [(TlsDesc, OWN_TLS), (GlobDat, IFUNC), (Size32, OWN), (None, 0), (DtpMod, 0)];
        let relas = kinds.iter().chain(&more).zip(0..).map(|(&(kind, symbol), index)| Rela {
            r_offset: Vaddr(START + 16 * index),
            ..rela(kind, symbol, 8)
        });
        let relas: Vec<Rela> = relas.collect();
        let (tables, relocations) = rela_tables(&relas);
        let bound = bound(false);
        let (mut at_once, mut in_two) = (Bytes::filled(), Bytes::filled());
        with_applier(&bound, &relocations, |applier| {
            let all = applier.apply_all(&tables, &mut at_once).unwrap();
            let mut rest = Vec::new();
            let note = |rela: Rela, len: u64| {
                rest.push((rela, len));
                Ok(())
            };
            applier.apply_common(&tables, &mut in_two, note).unwrap();
            let lens: Vec<u64> = rest.iter().map(|(_, len)| *len).collect();
            assert_eq!(lens, [8, 16, 8, 4, 8]);
            let rest: Vec<Rela> = rest.into_iter().map(|(rela, _)| rela).collect();
            assert_eq!(applier.apply_rest(&rest, &mut in_two).unwrap(), all);
            assert_eq!(all.len(), 1);
        });
        assert_eq!(at_once, in_two);
    }
}
