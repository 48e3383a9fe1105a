//! Relocating, in two steps that must not be mixed: decide, then store.
//!
//! [`bind`] decides what every symbol that a relocation names is bound to. It is pure but for the
//! look-ups: no memory of the image exists yet, so a failure costs nothing, every missing symbol
//! can be listed, and the result ([`Bound`]) serves any number of instances. [`Applier`] streams the
//! relocation tables once more and stores; it looks nothing up and knows memory only as
//! [`Memory`], by stated address, so it can be run on plain bytes. IFUNCs come out of it as a
//! list ([`Indirect`]), since their resolvers are code of the images and must run when all images
//! of the group are relocated.
//!
//! Sources: psABI "Relocation Types" (the formulas stand at [`RelocKind`]); which symbols bind
//! locally: glibc `elf/dl-reloc.c`, `RESOLVE_MAP`, and `elf/dl-lookup.c` for `STV_PROTECTED`.

#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::arch::{self, MACHINE, Machine, RelocKind};
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::{Error, MissingSymbol, Place, RefusedImport};
use crate::base::fallible::{TryGrow, lossy, try_copy, try_filled, try_lossy, try_string};
use crate::base::tls_index::ModuleId;
use crate::elf::lookup::{PlainDefinitions, TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::relocation_tables::RelocationTables;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::ld_so::HostLibrary;
use crate::images::group::Dependency;
use crate::images::members;
use crate::images::policy::SymbolRequest;
use crate::images::unique::FirstUse;
use crate::link::scope::{Definition, LookupScope, Resolver, Target};
use crate::memory::bytes::Image;
use crate::tls::{self, Descriptor};

/// What an image's references are bound to.
pub(crate) struct Bound {
    /// By symbol index; `None` where no relocation names the symbol.
    symbols: Vec<Option<Target>>,
    /// By symbol index, what calls are bound to, where that is not what addresses are bound to:
    /// functions whose address is the executable's PLT entry. Mostly empty.
    calls: Vec<Option<Target>>,
    /// Calls are bound when they are first made.
    lazy_calls: bool,
    /// `st_size` by symbol index, for the rare relocations that store it. Mostly empty.
    sizes: Vec<Option<u64>>,
}

impl Bound {
    /// Notes something of the symbol of this index, of which there may be as many as symbols.
    fn note<T: Clone>(list: &mut Vec<Option<T>>, index: usize, item: T) -> Result<(), Error> {
        if list.len() <= index {
            list.try_lengthen(index.saturating_add(1), None)?;
        }
        if let Some(place) = list.get_mut(index) {
            *place = Some(item);
        }
        Ok(())
    }
}

/// What binding a group's members adds up to.
#[derive(Default)]
pub(crate) struct Outcome {
    /// All symbols that nothing defines.
    pub missing: Vec<MissingSymbol>,
    /// All symbols of the host that the image may not bind to, and that nothing else defines.
    pub refused: Vec<RefusedImport>,
    /// What must be kept because something was bound to it.
    pub keep: Vec<Dependency>,
    /// Members whose thread-local storage must lie at a fixed distance from the thread pointer.
    pub static_tls: BTreeSet<usize>,
    /// Libraries that were opened for the group, and have no room in every thread for thread-locals
    /// that it reaches by initial exec.
    pub without_static_tls: Vec<Arc<HostLibrary>>,
    /// Definitions of the group's own that are to be the only ones in the process.
    pub first_uses: Vec<FirstUse>,
}

impl Outcome {
    /// Notes what must be kept; mostly it is what the last one was.
    fn keep(&mut self, keep: Option<Dependency>) -> Result<(), Error> {
        match keep {
            Some(keep) if !self.keep.last().is_some_and(|last| last.is(&keep)) => {
                self.keep.try_push(keep)
            }
            _ => Ok(()),
        }
    }
}

/// Binds all symbols that the relocations of `image`, the group's member of index `member`, name.
pub(crate) fn bind(
    image: &Image<'_>,
    member: usize,
    name: &str,
    machine: &Machine,
    order: &LookupScope<'_>,
    lazy_calls: bool,
    outcome: &mut Outcome,
) -> Result<Bound, Error> {
    let symbolic = image.decoded.symbolic;
    let binder = Binder::new(machine, symbolic, member, name, order);
    let table = binder.table;
    let mut bound = Bound {
        symbols: try_filled(None, table.len() as usize)?,
        calls: Vec::new(),
        lazy_calls,
        sizes: Vec::new(),
    };
    let mut own = None;
    image.decoded.relocations.visit(image, |entries| {
        for rela in Rela::entries(entries) {
            // Nothing to bind, in most.
            if rela.r_type == machine.relative && rela.symbol == 0 {
                continue;
            }
            let kind = checked_kind(&rela, machine)?;
            // Bound already, or the image's own, in most others.
            if kind.is_plain()
                && let Some(symbol) = bound.symbols.get_mut(rela.symbol as usize)
            {
                if symbol.is_none() {
                    let own = own.get_or_insert_with(|| binder.own()).as_ref();
                    *symbol = own.and_then(|own| own.get(rela.symbol));
                }
                if symbol.is_some() {
                    continue;
                }
            }
            binder.bind(kind, &rela, &mut bound, outcome)?;
        }
        Ok(())
    })?;
    order.host.check_memory()?;
    Ok(bound)
}

/// What is done with one relocation. A failure is boxed: what is returned thousands of times is no
/// larger than a pointer.
type Done<T> = Result<T, Box<Error>>;

/// The kind of a relocation that memdl applies.
#[inline]
fn checked_kind(rela: &Rela, machine: &Machine) -> Done<RelocKind> {
    match machine.reloc_kind(rela.r_type) {
        None | Some(RelocKind::Copy) => Err(no_kind(rela, machine)),
        Some(kind) => Ok(kind),
    }
}

#[cold]
fn no_kind(rela: &Rela, machine: &Machine) -> Box<Error> {
    let Rela { r_type, r_offset, .. } = rela;
    let name = (machine.reloc_name)(*r_type);
    Box::new(Error::unsupported(match machine.reloc_kind(*r_type) {
        None => {
            format!("relocation type {r_type} ({name}) at {r_offset} is not a dynamic relocation")
        }
        Some(_) => format!("{name} at {r_offset}: only executables have copy relocations"),
    }))
}

/// What a symbol is bound to.
struct Found {
    definition: Definition,
    /// What calls are bound to, if that is something else.
    call: Option<Target>,
}

/// Binds the function of one call: the symbol of index `symbol` of a member. What is missing is
/// noted in `outcome`.
pub(crate) fn bind_call(
    member: usize,
    name: &str,
    symbolic: bool,
    symbol: u32,
    order: &LookupScope<'_>,
    outcome: &mut Outcome,
) -> Result<Target, Error> {
    let binder = Binder::new(&MACHINE, symbolic, member, name, order);
    let entry = binder.table.symbol(symbol).ok_or_else(|| {
        Error::malformed("a call names a symbol that does not exist", Place::Symbol(symbol))
    })?;
    let Found { definition, call } = binder.resolve(symbol, &entry, outcome)?;
    order.host.check_memory()?;
    outcome.keep(definition.keep)?;
    Ok(call.unwrap_or(definition.target))
}

/// An image's own definitions, where references to them need no search: what most references are to.
struct Own<'a> {
    definitions: PlainDefinitions<'a>,
    /// What others define.
    others: [&'a NameFilter; 2],
    member: usize,
}

impl Own<'_> {
    /// What references to the symbol of this index are bound to, as [`Binder::surely_own`] would say.
    #[inline(always)]
    fn get(&self, index: u32) -> Option<Target> {
        let (st_value, gnu_hash_31) = self.definitions.get(index)?;
        let [startup, opened] = self.others;
        let is_only = !startup.may_have(gnu_hash_31) && !opened.may_have(gnu_hash_31);
        is_only.then_some(Target::Member { member: self.member, st_value })
    }
}

struct Binder<'a> {
    machine: &'a Machine,
    symbolic: bool,
    member: usize,
    name: &'a str,
    table: &'a SymbolTable<'a>,
    order: &'a LookupScope<'a>,
    /// Nobody but the host comes before the member.
    only_host_before: bool,
}

impl<'a> Binder<'a> {
    fn new(
        machine: &'a Machine,
        symbolic: bool,
        member: usize,
        name: &'a str,
        order: &'a LookupScope<'a>,
    ) -> Binder<'a> {
        let table = members::member(&order.members, member);
        let only_host_before = order.only_host_before(member);
        Binder { machine, symbolic, member, name, table, order, only_host_before }
    }

    /// Binds the symbol that a relocation names.
    fn bind(
        &self,
        kind: RelocKind,
        rela: &Rela,
        bound: &mut Bound,
        outcome: &mut Outcome,
    ) -> Done<()> {
        let index = rela.symbol as usize;
        if index == 0 {
            if kind == RelocKind::TpOff {
                outcome.static_tls.insert(self.member);
            }
            if kind.is_plain() {
                Bound::note(&mut bound.symbols, index, Target::start_of(self.member))?;
            }
            return Ok(());
        }
        // Also where it means nothing: `ld.so` looks at its version.
        let symbol = self.table.symbol(rela.symbol).ok_or_else(|| self.no_symbol(rela))?;
        if matches!(kind, RelocKind::None | RelocKind::IRelative | RelocKind::Relative) {
            return Ok(());
        }
        if kind == RelocKind::JumpSlot && bound.lazy_calls {
            // What is refused is told at the load, whenever the call is made.
            if self.order.imports.is_restricted() {
                let mut told = Outcome::default();
                self.resolve_with(rela.symbol, &symbol, None, &mut told)?;
                if !told.refused.is_empty() && self.order.resolver.is_some() {
                    told = Outcome::default();
                    self.resolve(rela.symbol, &symbol, &mut told)?;
                }
                for refused in told.refused {
                    outcome.refused.try_push(refused)?;
                }
                self.table.check_work()?;
            }
            return Ok(());
        }
        let wants_size = matches!(kind, RelocKind::Size | RelocKind::Size32);
        let known = bound.symbols.get(index).copied().flatten();
        if kind == RelocKind::TpOff
            && let Some(Target::MemberTls { member, .. }) = known
        {
            outcome.static_tls.insert(member);
        }
        let has_size = || bound.sizes.get(index).is_some_and(Option::is_some);
        if known.is_some() && (!wants_size || has_size()) {
            return Ok(());
        }
        let found = match kind {
            // gold names the section (`.tdata`, `.tbss`) of a variable that it keeps local.
            _ if kind.is_thread_local() && symbol.is_section() => {
                let target = Target::MemberTls { member: self.member, offset: symbol.st_value };
                Found { definition: Definition::to(target), call: None }
            }
            _ => self.resolve(rela.symbol, &symbol, outcome)?,
        };
        Bound::note(&mut bound.symbols, index, found.definition.target)?;
        if kind == RelocKind::TpOff
            && let Target::MemberTls { member, .. } = found.definition.target
        {
            outcome.static_tls.insert(member);
        }
        if kind == RelocKind::TpOff
            && let Target::Tls { module, .. } = found.definition.target
            && let Some(Dependency::Host(library)) = &found.definition.keep
            && module.static_offset().is_none()
        {
            outcome.without_static_tls.try_push(library.clone())?;
        }
        if let Some(call) = found.call {
            Bound::note(&mut bound.calls, index, call)?;
        }
        if wants_size {
            Bound::note(&mut bound.sizes, index, found.definition.st_size)?;
        }
        outcome.keep(found.definition.keep)?;
        Ok(self.table.check_work()?)
    }

    #[cold]
    fn no_symbol(&self, rela: &Rela) -> Error {
        let name = (self.machine.reloc_name)(rela.r_type);
        let what = format!("{name} names symbol {}, which does not exist", rela.symbol);
        Error::malformed(what, Place::Relocation(rela.r_offset))
    }

    /// The image's own definitions, if nobody but the host could have others.
    fn own(&self) -> Option<Own<'a>> {
        let definitions = self.only_host_before.then(|| self.table.plain_definitions())??;
        Some(Own { definitions, others: self.order.host.names()?, member: self.member })
    }

    /// What the symbol of this index is bound to, if that is the image's own definition and it can be
    /// told without a search.
    fn surely_own(&self, index: u32, symbol: &Sym) -> Option<Target> {
        if symbol.is_undefined() {
            return None;
        }
        // Nobody else may define it. A value of 0 is no definition to any lookup.
        let is_own = symbol.is_local()
            || self.only_host_before
                && !symbol.is_unique()
                && symbol.st_value != 0
                && self
                    .table
                    .gnu_hash_31(index)
                    .is_some_and(|hash| !self.order.host.may_define(hash));
        is_own.then(|| Target::of_member(self.member, symbol))
    }

    /// What the symbol of this index is bound to; a missing one is noted, and 0 for now.
    fn resolve(&self, index: u32, symbol: &Sym, outcome: &mut Outcome) -> Result<Found, Error> {
        self.resolve_with(index, symbol, self.order.resolver, outcome)
    }

    fn resolve_with(
        &self,
        index: u32,
        symbol: &Sym,
        resolver: Option<&Resolver>,
        outcome: &mut Outcome,
    ) -> Result<Found, Error> {
        let own = || Definition::of_member(self.member, symbol);
        if let Some(target) = self.surely_own(index, symbol) {
            let definition = Definition { st_size: symbol.st_size, ..Definition::to(target) };
            return Ok(Found { definition, call: None });
        }
        let name = self.table.name(symbol).ok_or_else(|| {
            Error::malformed("a symbol's name lies outside the string table", Place::Symbol(index))
        })?;
        let version = self.table.version(index);
        let wanted = version.map_or(VersionMatch::Unversioned, VersionMatch::Version);
        let request = |ask: &mut dyn FnMut(&SymbolRequest<'_>)| {
            let (name, version) = (lossy(name.bytes()), version.map(|it| lossy(it.name())));
            ask(&SymbolRequest {
                name: &name,
                version: version.as_deref(),
                weak: symbol.is_weak(),
                requested_by: self.name,
            });
        };
        // The policy is asked once, and only if the host has such a symbol.
        let allowed = OnceCell::new();
        let may_use_host = || {
            *allowed.get_or_init(|| {
                let imports = self.order.imports;
                let mut may = !imports.is_restricted() || self.order.is_of_system(self.member);
                if !may {
                    request(&mut |request| may = imports.allows(request));
                }
                may
            })
        };
        let find = |class| {
            self.order.find(self.member, self.symbolic, &name, wanted, class, &may_use_host)
        };

        let class =
            if symbol.is_thread_local() { TypeClass::Definition } else { TypeClass::Address };
        let found = if symbol.is_local() { None } else { find(class) };
        let is_own = symbol.is_protected() && !symbol.is_undefined();
        match found {
            // Where the executable's PLT entry stands for a function's address, the whole process
            // must agree on that; calls go to the function itself.
            Some(definition) if definition.is_canonical_plt => {
                let call = if is_own { Some(own()) } else { find(TypeClass::Definition) };
                if let Some(call) = &call {
                    outcome.keep(call.keep.clone())?;
                }
                return Ok(Found { definition, call: call.map(|call| call.target) });
            }
            _ if is_own => return Ok(Found { definition: own(), call: None }),
            Some(definition) => {
                self.note_first_use(&name, &definition, outcome)?;
                return Ok(Found { definition, call: None });
            }
            None => {}
        }

        let supplied = resolver.and_then(|resolver| {
            let mut supplied = None;
            request(&mut |request| supplied = resolver(request));
            supplied
        });
        if supplied.is_none() && !symbol.is_weak() && allowed.get() == Some(&false) {
            let refused = RefusedImport {
                name: try_lossy(name.bytes())?,
                version: version.map(|version| try_lossy(version.name())).transpose()?,
                requested_by: try_string(self.name)?,
            };
            outcome.refused.try_push(refused)?;
        } else if supplied.is_none() && !symbol.is_weak() {
            outcome.missing.try_push(MissingSymbol {
                name: try_lossy(name.bytes())?,
                version: version.map(|version| try_lossy(version.name())).transpose()?,
                needed_by: try_string(self.name)?,
            })?;
        }
        let address = supplied.map_or(0, |address| address.addr());
        Ok(Found { definition: Definition::at(address), call: None })
    }

    /// Notes a unique definition of the group's own, unless that of another image is used.
    fn note_first_use(
        &self,
        name: &SymbolName<'_>,
        found: &Definition,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        if let Some(symbol) = found.unique
            && let Target::Member { member, .. } | Target::MemberTls { member, .. } = found.target
        {
            let name = try_copy(name.bytes())?.into_boxed_slice();
            outcome.first_uses.try_push(FirstUse { name, member, symbol })?;
        }
        Ok(())
    }
}

/// Where a member of the group lies in this instance.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    pub load_bias: LoadBias,
    /// Its thread-local storage, if it has any.
    pub tls: Option<ModuleId>,
}

/// Memory that relocations are stored to, by stated address.
pub(crate) trait Memory {
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

/// A word that gets what an IFUNC resolver of the group returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Indirect {
    pub place: Vaddr,
    /// The member that holds the resolver, and where.
    pub member: usize,
    pub resolver: Vaddr,
    pub r_addend: i64,
}

#[cold]
fn misplaced(rela: &Rela, machine: &Machine) -> Box<Error> {
    let what =
        format!("{} applies to memory that is not writable", (machine.reloc_name)(rela.r_type));
    Box::new(Error::malformed(what, Place::Relocation(rela.r_offset)))
}

/// What stores the relocations of an image, in one instance of its group.
pub(crate) struct Applier<'a> {
    pub relocations: &'a RelocationTables,
    pub bound: &'a Bound,
    /// The image's index in the group.
    pub member: usize,
    pub machine: &'a Machine,
    pub placements: &'a [Placement],
}

impl Applier<'_> {
    /// Stores all but the indirect ones, which are returned in order. `tables` has the relocation
    /// tables, and is not what is stored to.
    pub(crate) fn all(
        &self,
        tables: &impl ReadAt,
        memory: &mut impl Memory,
    ) -> Result<Vec<Indirect>, Error> {
        self.apply_relr(self.relocations.relr_words(tables), memory)?;
        let mut indirect = Vec::new();
        self.relocations.visit(tables, |entries| {
            for rela in Rela::entries(entries) {
                // Most relocations are relative: nothing to look at but the entry.
                if rela.r_type == self.machine.relative {
                    self.apply_relative(&rela, memory)?;
                } else {
                    let kind = checked_kind(&rela, self.machine)?;
                    self.apply(kind, &rela, memory, &mut indirect)?;
                }
            }
            Ok(())
        })?;
        Ok(indirect)
    }

    /// Of [`Applier::all`], what is alike in all instances but for where the group's members lie.
    /// `rest` is given the others, in order, each with how many bytes it may store.
    pub(crate) fn alike(
        &self,
        tables: &impl ReadAt,
        memory: &mut impl Memory,
        mut rest: impl FnMut(Rela, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.apply_relr(self.relocations.relr_words(tables), memory)?;
        self.relocations.visit(tables, |entries| {
            for rela in Rela::entries(entries) {
                let kind = checked_kind(&rela, self.machine)?;
                if kind == RelocKind::Relative {
                    self.apply_relative(&rela, memory)?;
                } else if self.is_alike(kind, &rela)? {
                    self.apply(kind, &rela, memory, &mut Vec::new())?;
                } else {
                    rest(rela, kind.stored_len())?;
                }
            }
            Ok(())
        })
    }

    /// As [`Applier::all`], for what [`Applier::alike`] has left.
    pub(crate) fn rest(
        &self,
        rest: &[Rela],
        memory: &mut impl Memory,
    ) -> Result<Vec<Indirect>, Error> {
        let mut indirect = Vec::new();
        let done = rest.iter().try_for_each(|rela| {
            self.apply(checked_kind(rela, self.machine)?, rela, memory, &mut indirect)
        });
        done.map_err(|error| *error)?;
        Ok(indirect)
    }

    fn load_bias(&self) -> LoadBias {
        self.placement(self.member).load_bias
    }

    #[inline]
    fn placement(&self, member: usize) -> &Placement {
        members::member(self.placements, member)
    }

    /// `DT_RELR`: an even word is an address, whose word is moved; an odd one says which of the next
    /// 63 words are.
    fn apply_relr(
        &self,
        words: impl Iterator<Item = u64>,
        memory: &mut impl Memory,
    ) -> Result<(), Error> {
        let mut at = Vaddr(0);
        for entry in words {
            let (start, bits, step) =
                if entry & 1 == 0 { (Vaddr(entry), 1, 8) } else { (at, entry >> 1, 63 * 8) };
            let mut bits = bits;
            while bits != 0 {
                let index = u64::from(bits.trailing_zeros());
                // Without the lowest.
                bits &= bits.wrapping_sub(1);
                let place = Vaddr(start.0.wrapping_add(index.wrapping_mul(8)));
                self.move_word(place, memory).ok_or_else(|| {
                    let what = "DT_RELR applies to memory that is not writable";
                    Error::malformed(what, Place::Relocation(place))
                })?;
            }
            at = Vaddr(start.0.wrapping_add(step));
        }
        Ok(())
    }

    /// Turns the address that stands at `place` into a run-time address.
    #[inline]
    fn move_word(&self, place: Vaddr, memory: &mut impl Memory) -> Option<()> {
        let word = memory.word(place)?;
        memory.store_address(place, Vaddr(word), self.member, self.load_bias())
    }

    #[inline]
    fn apply_relative(&self, rela: &Rela, memory: &mut impl Memory) -> Done<()> {
        let address = Vaddr(rela.r_addend as u64);
        memory
            .store_address(rela.r_offset, address, self.member, self.load_bias())
            .ok_or_else(|| misplaced(rela, self.machine))
    }

    /// Whether all that instances differ in is where the group's members lie.
    fn is_alike(&self, kind: RelocKind, rela: &Rela) -> Done<bool> {
        Ok(match kind {
            RelocKind::None => true,
            RelocKind::JumpSlot if self.bound.lazy_calls => true,
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
        memory: &mut impl Memory,
        indirect: &mut Vec<Indirect>,
    ) -> Done<()> {
        // Most others are words that a symbol's address goes to.
        let Bound { symbols, calls, lazy_calls, .. } = self.bound;
        let calls_differ = *lazy_calls || !calls.is_empty();
        let is_plain = kind.is_plain() && !(kind == RelocKind::JumpSlot && calls_differ);
        let addend = if kind == RelocKind::Absolute { rela.r_addend } else { 0 };
        let stored = match symbols.get(rela.symbol as usize) {
            Some(&Some(Target::Address(address))) if is_plain => {
                let value = (address as u64).wrapping_add_signed(addend);
                memory.store(rela.r_offset, value.to_le_bytes())
            }
            Some(&Some(Target::Member { member, st_value })) if is_plain => {
                let address = Vaddr(st_value.0.wrapping_add_signed(addend));
                let load_bias = self.placement(member).load_bias;
                memory.store_address(rela.r_offset, address, member, load_bias)
            }
            _ => return self.apply_any(kind, rela, memory, indirect),
        };
        stored.ok_or_else(|| misplaced(rela, self.machine))
    }

    #[inline(never)]
    fn apply_any(
        &self,
        kind: RelocKind,
        rela: &Rela,
        memory: &mut impl Memory,
        indirect: &mut Vec<Indirect>,
    ) -> Done<()> {
        let place = rela.r_offset;
        if kind == RelocKind::JumpSlot && self.bound.lazy_calls {
            // The word leads to the second half of the PLT entry, which asks for the function.
            return self.move_word(place, memory).ok_or_else(|| misplaced(rela, self.machine));
        }
        let target = self.target(kind, rela)?;
        let mut no_room = None;
        let mut defer = |member, resolver, r_addend| {
            // The place is checked now, so that nothing can fail once code has run.
            memory.word(place)?;
            let item = Indirect { place, member, resolver, r_addend };
            indirect.try_push(item).map_err(|error| no_room = Some(error)).ok()
        };
        let plus = |value: u64| value.wrapping_add_signed(rela.r_addend);
        let stored = match (kind, target) {
            (RelocKind::None, _) => Some(()),
            (RelocKind::IRelative, _) => defer(self.member, Vaddr(rela.r_addend as u64), 0),
            (
                RelocKind::GlobDat | RelocKind::JumpSlot,
                Target::MemberIfunc { member, st_value },
            ) => defer(member, st_value, 0),
            (RelocKind::Absolute, Target::MemberIfunc { member, st_value }) => {
                defer(member, st_value, rela.r_addend)
            }
            (RelocKind::GlobDat | RelocKind::JumpSlot, _) => {
                memory.store(place, self.address(target, rela)?.to_le_bytes())
            }
            (RelocKind::Absolute, _) => {
                memory.store(place, plus(self.address(target, rela)?).to_le_bytes())
            }
            (RelocKind::Absolute32, _) => {
                let value = u32::try_from(plus(self.address(target, rela)?))
                    .map_err(|_| self.overflow(rela))?;
                memory.store(place, value.to_le_bytes())
            }
            (RelocKind::PcRelative | RelocKind::PcRelative32, _) => {
                let at = self.load_bias().apply(place) as u64;
                let distance = plus(self.address(target, rela)?).wrapping_sub(at);
                if kind == RelocKind::PcRelative {
                    memory.store(place, distance.to_le_bytes())
                } else {
                    let distance =
                        i32::try_from(distance as i64).map_err(|_| self.overflow(rela))?;
                    memory.store(place, distance.to_le_bytes())
                }
            }
            (RelocKind::Size | RelocKind::Size32, _) => {
                let size = self.bound.sizes.get(rela.symbol as usize).copied().flatten();
                let size = plus(size.unwrap_or(0));
                if kind == RelocKind::Size {
                    memory.store(place, size.to_le_bytes())
                } else {
                    memory.store(
                        place,
                        u32::try_from(size).map_err(|_| self.overflow(rela))?.to_le_bytes(),
                    )
                }
            }
            (RelocKind::DtpMod, _) => {
                // 0 for a weak reference to a thread-local that does not exist.
                let module = self.tls_place(target, rela)?.map_or(0, |(module, _)| module.0);
                memory.store(place, module.to_le_bytes())
            }
            (RelocKind::DtpOff, _) => {
                let offset = self.tls_place(target, rela)?.map_or(0, |(_, offset)| offset);
                memory.store(place, plus(offset).to_le_bytes())
            }
            (RelocKind::TpOff, _) => {
                let offset = match self.tls_place(target, rela)? {
                    None => 0,
                    Some((module, offset)) => {
                        let start = module.static_offset().ok_or_else(|| self.not_static(rela))?;
                        plus(offset).wrapping_add_signed(start as i64)
                    }
                };
                memory.store(place, offset.to_le_bytes())
            }
            (RelocKind::TlsDesc, _) => {
                arch::detect_xsave();
                let (resolver, argument) = self.descriptor(self.tls_place(target, rela)?, rela)?;
                let words = u128::from(argument) << 64 | resolver as u128;
                memory.store(place, words.to_le_bytes())
            }
            (RelocKind::Relative | RelocKind::Copy, _) => {
                return Err(Error::unsupported(format!("{} at {place}", self.name(rela))).into());
            }
        };
        if let Some(error) = no_room {
            return Err(error.into());
        }
        stored.ok_or_else(|| misplaced(rela, self.machine))
    }

    /// What the relocation's symbol is bound to.
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

    /// The module and offset of a thread-local; `None` for one that does not exist.
    fn tls_place(&self, target: Target, rela: &Rela) -> Result<Option<(ModuleId, u64)>, Error> {
        let malformed = |what: &str| {
            let what = format!("{} {what}", self.name(rela));
            Error::malformed(what, Place::Relocation(rela.r_offset))
        };
        match target {
            Target::MemberTls { member, offset } => match self.placement(member).tls {
                Some(module) => Ok(Some((module, offset))),
                None => Err(malformed("in an image without thread-local storage (PT_TLS)")),
            },
            Target::Tls { module, offset } => Ok(Some((module, offset))),
            Target::Address(0) => Ok(None),
            _ => Err(malformed("names a symbol that is not thread-local")),
        }
    }

    /// The resolver and the argument of a TLS descriptor.
    fn descriptor(
        &self,
        place: Option<(ModuleId, u64)>,
        rela: &Rela,
    ) -> Result<(usize, u64), Error> {
        let Some((module, offset)) = place else {
            return Ok((tls::tlsdesc_undefined as *const () as usize, rela.r_addend as u64));
        };
        let offset = offset.wrapping_add_signed(rela.r_addend);
        if let Some(start) = module.static_offset() {
            let argument = offset.wrapping_add_signed(start as i64);
            return Ok((tls::tlsdesc_static as *const () as usize, argument));
        }
        let descriptor = Descriptor::new(module, offset as i64).ok_or_else(|| {
            let what = format!("{} at {}", self.name(rela), rela.r_offset);
            Error::unsupported(format!("{what}: more modules, or larger ones, than it can name"))
        })?;
        Ok((tls::tlsdesc_dynamic as *const () as usize, descriptor.0))
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

    fn overflow(&self, rela: &Rela) -> Error {
        let what = format!("{} overflows: its value does not fit into 32 bits", self.name(rela));
        Error::unsupported(format!("{what} (at {})", rela.r_offset))
    }
}
