//! Binding: chooses the definition for each symbol that the relocations of an image name.
//!
//! [`bind`] looks everything up before any memory of the image exists. So a failure costs nothing, all
//! missing symbols can be listed, and the result ([`Bound`]) serves any number of instances. It
//! never stores: that is [`apply`](crate::link::apply). [`bind_call`] binds one function, at its first
//! call.
//!
//! Sources: which symbols bind locally: glibc `elf/dl-reloc.c`, `RESOLVE_MAP`, and `elf/dl-lookup.c` for
//! `STV_PROTECTED`.

#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::arch::{MACHINE, Machine, RelocKind};
use crate::base::error::{Error, MissingSymbol, Place, RefusedImport};
use crate::base::fallible::{TryGrow, lossy, require_memory, try_copy, try_lossy, try_string};
use crate::base::faults::Faults;
use crate::base::members;
use crate::elf::lookup::{PlainDefinitions, TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::rela::{RELA_SIZE, Rela};
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::elf::versions::Version;
use crate::host::library::HostLibrary;
use crate::images::group::Dependency;
use crate::images::policy::SymbolRequest;
use crate::images::unique::{FirstUse, FirstUses};
use crate::link::bound::{Bound, Done, Target, checked_kind};
use crate::link::scope::{Definition, LookupScope, Plainly, Resolver};
use crate::memory::bytes::Image;
use crate::tls;

/// Results of binding that concern the whole group.
#[derive(Default)]
pub(crate) struct Outcome {
    /// All symbols that nothing defines.
    pub missing: Vec<MissingSymbol>,
    /// All symbols that only the host defines, which refuses them.
    pub refused: Vec<RefusedImport>,
    /// The groups and libraries that something was bound to.
    pub dependencies: Vec<Dependency>,
    /// Some that are among them, each in the place that its address gives.
    known: Known,
    /// Members whose thread-local storage must lie at a fixed distance from the thread pointer.
    pub static_tls: BTreeSet<usize>,
    /// Libraries of the host whose thread-locals the group reaches by initial exec, though their blocks
    /// have no static offset.
    pub without_static_tls: Vec<Arc<HostLibrary>>,
    /// Unique definitions of members that become the process's.
    pub first_uses: FirstUses,
    /// Where relocations that cannot be bound go, one of each type of an image.
    pub faults: Faults,
    /// The types of those, of the image that is being bound.
    failed: BTreeSet<u32>,
}

/// The addresses of dependencies, or 0.
struct Known([usize; PLACES]);

/// As many as 8 bits of a hash tell apart.
const PLACES: usize = 1 << 8;

impl Default for Known {
    fn default() -> Known {
        Known([0; PLACES])
    }
}

/// The number of types of relocations that are noted.
const MAX_FAILED: usize = 64;

impl Outcome {
    /// An outcome without results.
    pub(crate) fn new(faults: Faults) -> Outcome {
        Outcome { faults, ..Outcome::default() }
    }

    /// Notes a relocation that cannot be bound.
    #[cold]
    fn skip(&mut self, rela: &Rela, error: Error) -> Done<()> {
        if self.faults.is_listing()
            && (self.failed.len() >= MAX_FAILED || self.failed.contains(&rela.r_type))
            && !matches!(error, Error::OutOfMemory { .. })
        {
            return Ok(());
        }
        self.faults.note(error)?;
        self.failed.insert(rela.r_type);
        Ok(())
    }

    /// Adds a dependency.
    fn depend_on(&mut self, dependency: Option<Dependency>) -> Result<(), Error> {
        match dependency {
            None => Ok(()),
            Some(new) => self.depend_on_what_is_at(new.address(), || new),
        }
    }

    /// Adds what is at this address. Usually it is there.
    #[inline]
    fn depend_on_what_is_at(
        &mut self,
        address: usize,
        new: impl FnOnce() -> Dependency,
    ) -> Result<(), Error> {
        let place = self.known.0.get_mut(address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 8));
        if place.as_ref().is_some_and(|it| **it == address) {
            return Ok(());
        }
        self.dependencies.try_push(new())?;
        // It stays, so nothing else gets this address.
        if let Some(place) = place {
            *place = address;
        }
        Ok(())
    }

    /// Notes that a thread-local is reached by initial exec.
    fn note_initial_exec(&mut self, definition: &Definition) -> Result<(), Error> {
        match (definition.target, &definition.dependency) {
            (Target::MemberTls { member, .. }, _) => {
                self.static_tls.insert(member);
                Ok(())
            }
            (Target::Tls { module, .. }, Some(Dependency::Host(library)))
                if tls::static_offset(module).is_none() =>
            {
                Ok(self.without_static_tls.try_push(library.clone())?)
            }
            _ => Ok(()),
        }
    }
}

/// Binds all symbols that the relocations of `image`, the group's member of index `member`, name. The members
/// are bound in the order of `ld.so`: unique definitions are those that the first reference is bound to.
pub(crate) fn bind(
    image: &Image<'_>,
    member: usize,
    name: &str,
    scope: &LookupScope<'_>,
    lazy_calls: bool,
    outcome: &mut Outcome,
) -> Result<Bound, Error> {
    /// Relocations that are looked at together first.
    const BLOCK: usize = 16 * RELA_SIZE as usize;
    let (symbolic, machine) = (image.decoded.symbolic, image.decoded.machine);
    let binder = Binder::new(machine, symbolic, member, name, scope);
    let table = binder.table;
    let mut bound = Bound::new(table.len() as usize, lazy_calls)?;
    let mut own = None;
    let (is_plain, variant_pcs) = (scope.is_plain(member, symbolic), image.decoded.variant_pcs);
    outcome.failed.clear();
    image.decoded.relocations.visit(image, |entries| {
        for block in entries.chunks(BLOCK) {
            // Most bind nothing.
            if Rela::all_are(block, machine.relative) {
                continue;
            }
            for rela in Rela::entries(block) {
                if rela.r_type == machine.relative && rela.symbol == 0 {
                    continue;
                }
                let kind = match checked_kind(&rela, machine) {
                    Ok(kind) => kind,
                    Err(error) => {
                        outcome.skip(&rela, *error)?;
                        continue;
                    }
                };
                // Most others are bound already, or to the image's own definition, or to a plain one.
                let is_lazy =
                    lazy_calls && binder.is_lazy_call(kind, &rela, variant_pcs, &mut bound)?;
                let mut name = None;
                if kind.is_plain()
                    && let Some(symbol) = bound.symbols.get_mut(rela.symbol as usize)
                {
                    if symbol.is_none() {
                        let own = own.get_or_insert_with(|| binder.own_definitions()).as_ref();
                        *symbol = own.and_then(|own| own.get(rela.symbol));
                    }
                    if symbol.is_none() && is_plain && !is_lazy {
                        let done = binder.bind_plainly(rela.symbol, symbol, &mut name, outcome);
                        if let Err(error) = done {
                            *symbol = None;
                            outcome.skip(&rela, *error)?;
                            continue;
                        }
                    }
                    if symbol.is_some() {
                        continue;
                    }
                }
                if let Err(error) = binder.bind(kind, &rela, name, &mut bound, outcome) {
                    outcome.skip(&rela, *error)?;
                }
            }
        }
        Ok(())
    })?;
    scope.host.check_memory()?;
    Ok(bound)
}

/// What a look-up asks for, by the version of the reference.
fn wanted(version: Option<Version<'_>>) -> VersionMatch<'_> {
    version.map_or(VersionMatch::Unversioned, VersionMatch::Version)
}

/// The definition that a symbol is bound to.
struct Resolved {
    definition: Definition,
    /// The target of calls, if it differs.
    call: Option<Target>,
}

/// Binds one call: the function that the symbol of index `symbol` of a member names. A missing symbol is
/// noted in `outcome`.
pub(crate) fn bind_call(
    member: usize,
    name: &str,
    symbolic: bool,
    symbol: u32,
    scope: &LookupScope<'_>,
    outcome: &mut Outcome,
) -> Result<Target, Error> {
    let binder = Binder::new(&MACHINE, symbolic, member, name, scope);
    let entry = binder.table.symbol(symbol).ok_or_else(|| {
        Error::malformed("a call names a symbol that does not exist", Place::Symbol(symbol))
    })?;
    let Resolved { definition, call } = binder.resolve(symbol, &entry, outcome)?;
    scope.host.check_memory()?;
    outcome.depend_on(definition.dependency)?;
    Ok(call.unwrap_or(definition.target))
}

/// What a reference is bound to, for a report.
pub(crate) enum Found {
    /// A definition in the scope.
    Defined(Definition),
    /// By the resolver of the caller.
    Resolved,
    /// Only the host defines it, which refuses it.
    Refused,
    /// By nothing. Also a weak reference that the host refuses.
    Nothing,
}

/// What the symbol of this index of a member is bound to. Nothing is noted in `outcome`, which is that of the
/// group's binding.
pub(crate) fn find(
    member: usize,
    name: &str,
    symbolic: bool,
    symbol: u32,
    scope: &LookupScope<'_>,
    outcome: &mut Outcome,
) -> Result<Found, Error> {
    let binder = Binder::new(&MACHINE, symbolic, member, name, scope);
    let Some(entry) = binder.table.symbol(symbol) else { return Ok(Found::Nothing) };
    let first_uses = std::mem::take(&mut outcome.first_uses);
    let mut trial = Outcome { first_uses, ..Outcome::default() };
    let in_scope = binder.resolve_with(symbol, &entry, None, &mut trial);
    outcome.first_uses = std::mem::take(&mut trial.first_uses);
    let definition = in_scope?.definition;
    binder.table.check_work()?;
    // A weak reference to nothing is bound to 0.
    let is_none = |it: &Definition| it.target == Target::Address(0) && it.dependency.is_none();
    if trial.refused.is_empty() && trial.missing.is_empty() && !is_none(&definition) {
        return Ok(Found::Defined(definition));
    }
    if scope.resolver.is_some() {
        let resolved = binder.resolve(symbol, &entry, &mut Outcome::default())?;
        if !is_none(&resolved.definition) {
            return Ok(Found::Resolved);
        }
    }
    Ok(if trial.refused.is_empty() { Found::Nothing } else { Found::Refused })
}

/// The definition that counts where a member's unique one was found: the first of that name that a reference of
/// the group was bound to. A `DT_SYMBOLIC` member finds another than the members before it.
fn first_use(
    name: &SymbolName<'_>,
    found: Definition,
    may_use: impl Fn(usize) -> bool,
    outcome: &mut Outcome,
) -> Result<Definition, Error> {
    if let Some(symbol) = found.unique
        && let Target::Member { member, .. } | Target::MemberTls { member, .. } = found.target
    {
        if let Some(first) = outcome.first_uses.get(name.bytes()) {
            let is_usable = may_use(first.member);
            let first = Definition::of_member(first.member, &first.symbol);
            return Ok(if is_usable { first } else { found });
        }
        require_memory()?;
        let name = try_copy(name.bytes())?.into_boxed_slice();
        outcome.first_uses.insert(name, FirstUse { member, symbol });
    }
    Ok(found)
}

/// An image's own definitions, which most of its references are bound to without a search.
struct OwnDefinitions<'a> {
    definitions: PlainDefinitions<'a>,
    /// The names that the host defines, and those of images that all images see.
    others: [&'a NameFilter; 2],
    global: Option<&'a NameFilter>,
    member: usize,
}

impl OwnDefinitions<'_> {
    /// The target of references to the symbol of this index; as [`Binder::surely_own`].
    #[inline(always)]
    fn get(&self, index: u32) -> Option<Target> {
        let (st_value, gnu_hash_31) = self.definitions.get(index)?;
        let [startup, opened] = self.others;
        let is_only = !startup.may_have(gnu_hash_31)
            && !opened.may_have(gnu_hash_31)
            && self.global.is_none_or(|names| !names.may_have(gnu_hash_31));
        is_only.then_some(Target::Member { member: self.member, st_value })
    }
}

struct Binder<'a> {
    machine: &'a Machine,
    symbolic: bool,
    member: usize,
    name: &'a str,
    table: &'a SymbolTable<'a>,
    scope: &'a LookupScope<'a>,
    /// Only the host, and images that all images see, are searched before the member.
    only_global_before: bool,
}

impl<'a> Binder<'a> {
    fn new(
        machine: &'a Machine,
        symbolic: bool,
        member: usize,
        name: &'a str,
        scope: &'a LookupScope<'a>,
    ) -> Binder<'a> {
        let table = members::member(&scope.members, member);
        let only_global_before = scope.only_global_before(member);
        Binder { machine, symbolic, member, name, table, scope, only_global_before }
    }

    /// Binds the symbol that a relocation names. Of a plain reference the name may be given.
    #[inline(never)]
    fn bind(
        &self,
        kind: RelocKind,
        rela: &Rela,
        name: Option<SymbolName<'a>>,
        bound: &mut Bound,
        outcome: &mut Outcome,
    ) -> Done<()> {
        let index = rela.symbol as usize;
        bound.has_tls_descriptors |= kind == RelocKind::TlsDesc;
        if index == 0 {
            if kind == RelocKind::TpOff {
                outcome.static_tls.insert(self.member);
            }
            if kind.is_plain() {
                Bound::note(&mut bound.symbols, index, Target::start_of(self.member))?;
            }
            return Ok(());
        }
        // `ld.so` checks the symbol's version even where the relocation does not use the symbol.
        let symbol = self.table.symbol(rela.symbol).ok_or_else(|| self.no_symbol(rela))?;
        if matches!(kind, RelocKind::None | RelocKind::IRelative | RelocKind::Relative) {
            return Ok(());
        }
        if bound.is_lazy_call(kind, rela.symbol) {
            return Ok(self.check_lazy_call(rela.symbol, &symbol, outcome)?);
        }
        let wants_size = matches!(kind, RelocKind::Size | RelocKind::Size32);
        let known = bound.symbols.get(index).copied().flatten();
        if kind == RelocKind::TpOff
            && let Some(Target::MemberTls { member, .. }) = known
        {
            outcome.static_tls.insert(member);
        }
        if let Some(known) = known {
            bound.note_tls(kind, known)?;
        }
        let has_size = || bound.sizes.get(index).is_some_and(Option::is_some);
        if known.is_some() && (!wants_size || has_size()) {
            return Ok(());
        }
        let found = match kind {
            // gold names the section (`.tdata`, `.tbss`) of a local variable.
            _ if kind.is_thread_local() && symbol.is_section() => {
                let target = Target::MemberTls { member: self.member, offset: symbol.st_value };
                Resolved { definition: Definition::to(target), call: None }
            }
            _ => match name {
                Some(name) => {
                    self.resolve_name(rela.symbol, &symbol, &name, self.scope.resolver, outcome)?
                }
                None => self.resolve(rela.symbol, &symbol, outcome)?,
            },
        };
        Bound::note(&mut bound.symbols, index, found.definition.target)?;
        bound.note_tls(kind, found.definition.target)?;
        if kind == RelocKind::TpOff {
            outcome.note_initial_exec(&found.definition)?;
        }
        if let Some(call) = found.call {
            Bound::note(&mut bound.calls, index, call)?;
        }
        if wants_size {
            Bound::note(&mut bound.sizes, index, found.definition.st_size)?;
        }
        outcome.depend_on(found.definition.dependency)?;
        Ok(self.table.check_work()?)
    }

    /// Binds the symbol of this index, if it is a plain reference to another library and what it is bound to is plain, too
    /// ([`LookupScope::find_plainly`]). Otherwise `read` becomes the name, if that was read. A function of its own: most
    /// imports need no more, and so have all registers.
    #[inline(never)]
    fn bind_plainly(
        &self,
        index: u32,
        bound: &mut Option<Target>,
        read: &mut Option<SymbolName<'a>>,
        outcome: &mut Outcome,
    ) -> Done<()> {
        let Some(symbol) = self.table.symbol(index).filter(Sym::is_plain_reference) else {
            return Ok(());
        };
        let Some(name) = self.table.name(&symbol) else { return Ok(()) };
        let target = match self.scope.find_plainly(&name, wanted(self.table.version(index))) {
            Plainly::Found(target, library) => {
                if let Some(library) = library {
                    let address = Arc::as_ptr(library).addr();
                    outcome.depend_on_what_is_at(address, || Dependency::Host(library.clone()))?;
                }
                target
            }
            Plainly::Nowhere if symbol.is_weak() && self.scope.resolver.is_none() => {
                Target::Address(0)
            }
            Plainly::Nowhere | Plainly::Unknown => {
                *read = Some(name);
                return Ok(());
            }
        };
        *bound = Some(target);
        Ok(self.table.check_work()?)
    }

    /// Whether a call of an image with lazily bound calls is bound at the first one. Notes if it is not.
    /// `variant_pcs` is the image's.
    fn is_lazy_call(
        &self,
        kind: RelocKind,
        rela: &Rela,
        variant_pcs: u8,
        bound: &mut Bound,
    ) -> Result<bool, Error> {
        let has_mark = |symbol: Sym| symbol.st_other & variant_pcs != 0;
        if kind == RelocKind::JumpSlot
            && variant_pcs != 0
            && self.table.symbol(rela.symbol).is_some_and(has_mark)
        {
            Bound::note(&mut bound.at_once, rela.symbol as usize, ())?;
        }
        Ok(bound.is_lazy_call(kind, rela.symbol))
    }

    /// Notes the refusal of a call that will be bound lazily: refused imports are errors of the load.
    fn check_lazy_call(
        &self,
        index: u32,
        symbol: &Sym,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        if !self.scope.imports.is_restricted() {
            return Ok(());
        }
        let mut trial = Outcome::default();
        self.resolve_with(index, symbol, None, &mut trial)?;
        if !trial.refused.is_empty() && self.scope.resolver.is_some() {
            trial = Outcome::default();
            self.resolve(index, symbol, &mut trial)?;
        }
        for refused in trial.refused {
            outcome.refused.try_push(refused)?;
        }
        self.table.check_work()
    }

    #[cold]
    fn no_symbol(&self, rela: &Rela) -> Error {
        let name = (self.machine.reloc_name)(rela.r_type);
        let what = format!("{name} names symbol {}, which does not exist", rela.symbol);
        Error::malformed(what, Place::Relocation(rela.r_offset))
    }

    /// The image's own definitions, if only the host and global images are searched before the image.
    fn own_definitions(&self) -> Option<OwnDefinitions<'a>> {
        let definitions = self.only_global_before.then(|| self.table.plain_definitions())??;
        let (others, global) = (self.scope.host.names()?, self.scope.global.as_deref());
        Some(OwnDefinitions { definitions, others, global, member: self.member })
    }

    /// The target of the symbol of this index, if it is surely the image's own definition.
    fn surely_own(&self, index: u32, symbol: &Sym) -> Option<Target> {
        if symbol.is_undefined() {
            return None;
        }
        // Nothing before the image may define it. Lookups take a value of 0 for no definition.
        let is_own = symbol.is_local()
            || self.only_global_before
                && !symbol.is_unique()
                && symbol.st_value != 0
                && self
                    .table
                    .gnu_hash_31(index)
                    .is_some_and(|hash| !self.scope.may_be_global(hash));
        is_own.then(|| Target::of_member(self.member, symbol))
    }

    /// The definition that the symbol of this index is bound to. A missing one is noted, and bound to 0.
    fn resolve(&self, index: u32, symbol: &Sym, outcome: &mut Outcome) -> Result<Resolved, Error> {
        self.resolve_with(index, symbol, self.scope.resolver, outcome)
    }

    fn resolve_with(
        &self,
        index: u32,
        symbol: &Sym,
        resolver: Option<&Resolver>,
        outcome: &mut Outcome,
    ) -> Result<Resolved, Error> {
        if let Some(target) = self.surely_own(index, symbol) {
            let definition = Definition { st_size: symbol.st_size, ..Definition::to(target) };
            return Ok(Resolved { definition, call: None });
        }
        let name = self.symbol_name(index, symbol)?;
        self.resolve_name(index, symbol, &name, resolver, outcome)
    }

    fn symbol_name(&self, index: u32, symbol: &Sym) -> Result<SymbolName<'a>, Error> {
        self.table.name(symbol).ok_or_else(|| {
            Error::malformed("a symbol's name lies outside the string table", Place::Symbol(index))
        })
    }

    /// As [`Binder::resolve_with`], for a symbol that need not be the image's own.
    fn resolve_name(
        &self,
        index: u32,
        symbol: &Sym,
        name: &SymbolName<'_>,
        resolver: Option<&Resolver>,
        outcome: &mut Outcome,
    ) -> Result<Resolved, Error> {
        let own = || Definition::of_member(self.member, symbol);
        let version = self.table.version(index);
        let wanted = wanted(version);
        let request = |use_request: &mut dyn FnMut(&SymbolRequest<'_>)| {
            self.with_request(symbol, name, version, use_request);
        };
        // The policy is called once, and only if the host has such a symbol.
        let allowed = OnceCell::new();
        let may_use_host = || {
            *allowed.get_or_init(|| {
                let imports = self.scope.imports;
                let mut may = !imports.is_restricted() || self.scope.is_of_system(self.member);
                if !may {
                    request(&mut |request| may = imports.allows(request));
                }
                may
            })
        };
        let find =
            |class| self.scope.find(self.member, self.symbolic, name, wanted, class, &may_use_host);

        let class =
            if symbol.is_thread_local() { TypeClass::Definition } else { TypeClass::Address };
        let found = if symbol.is_local() { None } else { find(class) };
        let is_own = symbol.is_protected() && !symbol.is_undefined();
        match found {
            // The executable's PLT entry may be a function's address for the whole process. Calls go to
            // the function itself.
            Some(definition) if definition.is_canonical_plt => {
                let call = if is_own { Some(own()) } else { find(TypeClass::Definition) };
                if let Some(call) = &call {
                    outcome.depend_on(call.dependency.clone())?;
                }
                return Ok(Resolved { definition, call: call.map(|call| call.target) });
            }
            _ if is_own => return Ok(Resolved { definition: own(), call: None }),
            Some(definition) => {
                let may_use = |member| !self.scope.is_of_system(member) || may_use_host();
                let definition = first_use(name, definition, may_use, outcome)?;
                return Ok(Resolved { definition, call: None });
            }
            None => {}
        }

        let address = resolver.and_then(|resolver| {
            let mut supplied = None;
            request(&mut |request| supplied = resolver(request));
            supplied
        });
        if address.is_none() && !symbol.is_weak() {
            self.note_undefined(name, version, allowed.get() == Some(&false), outcome)?;
        }
        let address = address.map_or(0, |address| address.addr());
        Ok(Resolved { definition: Definition::at(address), call: None })
    }

    /// Describes a reference to functions of the caller.
    fn with_request(
        &self,
        symbol: &Sym,
        name: &SymbolName<'_>,
        version: Option<Version<'_>>,
        use_request: &mut dyn FnMut(&SymbolRequest<'_>),
    ) {
        let (name, version) = (lossy(name.bytes()), version.map(|it| lossy(it.name())));
        use_request(&SymbolRequest {
            name: &name,
            version: version.as_deref(),
            weak: symbol.is_weak(),
            requested_by: self.name,
        });
    }

    /// Notes a symbol that nothing defines, or only the host, which refuses it.
    fn note_undefined(
        &self,
        name: &SymbolName<'_>,
        version: Option<Version<'_>>,
        is_refused: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let name = try_lossy(name.bytes())?;
        let version = version.map(|version| try_lossy(version.name())).transpose()?;
        let image = try_string(self.name)?;
        if is_refused {
            Ok(outcome.refused.try_push(RefusedImport { name, version, requested_by: image })?)
        } else {
            Ok(outcome.missing.try_push(MissingSymbol { name, version, needed_by: image })?)
        }
    }
}
