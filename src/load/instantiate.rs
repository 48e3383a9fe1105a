//! From a prepared load group to a loaded one: the straight path.
//!
//! Map every member, relocate every member, run the IFUNC resolvers, seal, register, then run the
//! constructors. Registrations come before constructors (a constructor may throw, and may carry a
//! breakpoint). Each stage owns what it made, so a failure at any point is plain `Drop` and leaves
//! nothing behind.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use crate::arch::{self, MACHINE};
use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::{Error, Place};
use crate::base::events;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_collect, try_copy, try_vec};
use crate::base::members;
use crate::base::promise::MayRun;
use crate::debug::read_lines::ReadLines;
use crate::debug::retired::{self, Identity};
use crate::debug::{DebugLevel, DebugRegistration, Ifuncs, Instance, ThreadLocals};
use crate::host::collectors::{self, Roots};
use crate::host::link_map::LinkMap;
use crate::images::global;
use crate::images::group::{Common, ImageRef, KeptTable, LoadGroup, LoadedImage, Parts, Provider};
use crate::images::idle::{Renew, Stand};
use crate::images::lifecycle;
use crate::images::plt::Plt;
use crate::images::roots;
use crate::images::unique;
use crate::link::apply::{
    Applier, IfuncWord, Placement, TlsBlock, TlsDescResolvers, WritableMemory,
};
use crate::link::bound::Bound;
use crate::load::debugger_commands;
use crate::load::prepare::{Member, Prepared, ReceivedFiles};
use crate::memory::bytes::Image;
use crate::memory::contents::Contents;
use crate::memory::in_place::InPlaceFile;
use crate::memory::mapping::{Mapping, Source, Writable};
use crate::memory::shared_text::SharedText;
use crate::memory::stage::Open;
use crate::profile::{self, Profile};
use crate::tls::{self, BlockPlace, TlsModule};
use crate::unwind;

/// Registers the instance of a member with debuggers, by its index and name.
pub(crate) type Register<'a> = dyn FnMut(usize, Arc<str>, Instance) -> DebugRegistration + 'a;

/// Makes the only instance of a prepared group, and runs its constructors.
///
/// # Safety
/// The code of the images may run.
pub(crate) unsafe fn single_instance(prepared: Prepared<'_>) -> Result<Arc<LoadGroup>, Error> {
    // SAFETY: the caller's promise.
    let may_run = unsafe { MayRun::promised() };
    let group = single_instance_uninitialised(prepared, Some(may_run))?;
    // SAFETY: the group is loaded, and no constructor has run; the rest is the caller's promise.
    unsafe { group.initialise() };
    Ok(group)
}

/// As [`single_instance`], without the constructors. IFUNC resolvers run if `may_run`.
pub(crate) fn single_instance_uninitialised(
    mut prepared: Prepared<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    let mut received = prepared.take_received()?;
    let mut symfiles = std::mem::take(&mut prepared.symfiles);
    let mut register = |index: usize, name: Arc<str>, instance| match symfiles
        .get_mut(index)
        .and_then(Option::take)
    {
        Some(symfile) => symfile.into_registration(name, instance),
        None => DebugRegistration::none(name, instance),
    };
    instance_uninitialised(&prepared, &mut received, None, &mut register, may_run)
}

/// Makes an instance of the group and enters it in the registry; its constructors do not run yet. The caller
/// has checked for spare memory ([`require_memory`](crate::base::fallible::require_memory)).
/// IFUNC resolvers run if `may_run`; else references are bound to the resolvers. It can wait at `stand` when it is
/// unloaded.
pub(crate) fn instance_uninitialised(
    prepared: &Prepared<'_>,
    received: &mut ReceivedFiles,
    stand: Option<&Arc<Stand<Parts>>>,
    register: &mut Register<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    // A single instance is the second half of a load.
    let start = prepared.origin.start.or_else(events::start);
    let group = entered(prepared, received, stand, register, may_run)
        .inspect_err(|error| events::failed(error, start))?;
    group.events().set_start(start);
    Ok(group)
}

/// As [`instance_uninitialised`].
fn entered(
    prepared: &Prepared<'_>,
    received: &mut ReceivedFiles,
    stand: Option<&Arc<Stand<Parts>>>,
    register: &mut Register<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    debugger_commands::keep();
    prepared.begin_instance()?;
    let group = map_and_relocate(prepared, received, stand, register, may_run)?;
    group.check()?;
    for needed in prepared.members.iter().flat_map(|member| &member.needed) {
        if let Provider::Host(library) = needed {
            library.stay_loaded()?;
        }
    }
    if prepared.policy.seal {
        group.seal()?;
    }
    unique::enter(&group, &prepared.first_uses)?;
    lifecycle::enter(&group)?;
    roots::register(&group)?;
    if let Some(namespace) = &prepared.namespace {
        namespace.enter(&group)?;
    }
    if prepared.global {
        global::promote(&ImageRef::new(group.clone(), 0))?;
    }
    Ok(group)
}

/// Maps, relocates and seals all members, and registers them with debuggers, profilers and the unwinder.
fn map_and_relocate(
    prepared: &Prepared<'_>,
    received: &mut ReceivedFiles,
    stand: Option<&Arc<Stand<Parts>>>,
    register: &mut Register<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    let count = prepared.members.len();
    let (mut mapped, is_single) = (try_vec(count)?, prepared.origin.template.is_none());
    for (index, member) in prepared.members.iter().enumerate() {
        require_memory_for_next(index)?;
        let received = received.take(index);
        let static_tls = prepared.static_tls.contains(&index);
        mapped.push(
            MappedMember::new(member, index, received, static_tls, is_single)
                .map_err(|error| error.in_image(&member.name))?,
        );
    }
    // Usually there is one, which needs no list.
    let (one, all);
    let placements = match &mapped[..] {
        [only] => {
            one = only.placement();
            std::slice::from_ref(&one)
        }
        _ => {
            all = try_collect(mapped.iter().map(MappedMember::placement))?;
            &all[..]
        }
    };
    for (index, member) in mapped.iter_mut().enumerate() {
        let words = member.relocate(index, placements);
        member.ifuncs = words.map_err(|error| error.in_image(&member.prepared.name))?;
    }
    // Resolvers are code of the images: all that they can reach must be relocated first.
    let has_ifuncs = mapped.iter().any(|member| !member.ifuncs.is_empty());
    if has_ifuncs {
        for member in &mut mapped {
            let prepared = member.prepared;
            let protected = member.mapping.protect(prepared.memory_name());
            protected.map_err(|error| error.in_image(&prepared.name))?;
        }
        for &index in &prepared.init_order {
            let words = std::mem::take(&mut members::member_mut(&mut mapped, index).ifuncs);
            for word in &words {
                resolve_ifunc(&mut mapped, index, word, may_run)?;
            }
        }
    }

    let mut members = try_vec(count)?;
    for (index, member) in mapped.into_iter().enumerate() {
        require_memory_for_next(index)?;
        let name = member.prepared.name.clone();
        let mut register = |name, instance| register(index, name, instance);
        let loaded = member.seal(prepared.origin.template, &mut register);
        members.push(loaded.map_err(|error| error.in_image(&name))?);
    }
    let common = Common {
        call_binder: prepared.call_binder.clone(),
        context: prepared.context.clone(),
        namespace: prepared.namespace.clone(),
        policy: prepared.policy.clone(),
        // What resolvers choose may be another function the next time.
        stand: stand.filter(|_| !has_ifuncs).cloned(),
    };
    let init_order = try_copy(&prepared.init_order)?;
    let dependencies = try_collect(prepared.dependencies.iter().cloned())?;
    Ok(LoadGroup::new(members, init_order, dependencies, common))
}

/// A member of a group that is mapped, and not yet sealed.
struct MappedMember<'p, 'd> {
    prepared: &'p Member<'d>,
    plt: Option<Box<Plt<LoadGroup>>>,
    tls: Option<TlsModule>,
    /// The image runs in the buffer that its file was received into.
    is_received: bool,
    /// The words that IFUNC resolvers fill, until they have.
    ifuncs: Vec<IfuncWord>,
    /// What its resolvers have chosen: the stated addresses of both.
    chosen: Vec<(Vaddr, Vaddr)>,
    mapping: Mapping<Open>,
}

impl WritableMemory for Writable<'_> {
    #[inline]
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        Writable::store(self, at, bytes)
    }

    #[inline]
    fn word(&mut self, at: Vaddr) -> Option<u64> {
        self.stored_word(at)
    }
}

impl<'p, 'd> MappedMember<'p, 'd> {
    fn new(
        prepared: &'p Member<'d>,
        index: usize,
        received: Option<InPlaceFile>,
        static_tls: bool,
        is_single: bool,
    ) -> Result<MappedMember<'p, 'd>, Error> {
        let name = prepared.memory_name();
        let bytes = prepared.image.bytes();
        let is_received = received.is_some();
        let shared_text = prepared.shared.get().and_then(|it| it.text.as_ref());
        let source = match (received, &prepared.image_file, shared_text) {
            (Some(received), ..) => Source::InPlaceFile(received),
            (None, Some(file), _) => Source::File(bytes, file),
            (None, None, Some(text)) => Source::Shared(bytes, text),
            (None, None, None) if is_single => Source::Single(bytes),
            (None, None, None) => Source::Copied(bytes),
        };
        let mapping = Mapping::new(&prepared.plan, source, name)?;
        let segment = prepared.image.decoded.tls.as_ref();
        let tls =
            segment.map(|segment| TlsModule::new(segment, &mapping, static_tls)).transpose()?;
        let plt = prepared.lazy.then(|| Plt::new(index));
        let (ifuncs, chosen) = (Vec::new(), Vec::new());
        Ok(MappedMember { prepared, plt, tls, is_received, ifuncs, chosen, mapping })
    }

    fn placement(&self) -> Placement {
        Placement::of(self.tls.as_ref(), self.mapping.load_bias())
    }

    fn relocate(
        &mut self,
        index: usize,
        placements: &[Placement],
    ) -> Result<Vec<IfuncWord>, Error> {
        let Member { image, bound, .. } = self.prepared;
        let foreign_tls = foreign_tls(bound)?;
        if bound.has_tls_descriptors() {
            // The resolvers save registers.
            arch::detect_registers();
        }
        let applier = applier(self.prepared, index, placements, &foreign_tls);
        if self.mapping.is_unsettled() {
            return self.settle(&applier);
        }
        let prelinked = self.prepared.shared.get().and_then(|it| it.prelinked.as_ref());
        let ifuncs = if let Some(prelinked) = prelinked {
            prelinked.apply(&applier, &mut self.mapping)
        } else if let Some((tables, mut memory)) = self.mapping.split().filter(|_| self.is_received)
        {
            // The received bytes exist only in the mapped image.
            applier.apply_all(&tables, &mut memory)
        } else {
            applier.apply_all(image, &mut self.mapping.writable())
        }?;
        let moved = image.decoded.moved_dynamic_entries(&self.mapping)?;
        let load_bias = self.mapping.load_bias();
        store_late(image, self.plt.as_deref(), load_bias, &moved, &mut self.mapping.writable())?;
        if let Some(tls) = &self.tls {
            tls.fill_pool()?;
        }
        Ok(ifuncs)
    }

    /// Relocates in the memory of an image that had the same bytes.
    fn settle(&mut self, applier: &Applier<'_>) -> Result<Vec<IfuncWord>, Error> {
        let Member { image, plan, .. } = self.prepared;
        let load_bias = self.mapping.load_bias();
        let mut contents = Contents::of_file(plan, image.bytes())?;
        let ifuncs = store_all(image, applier, self.plt.as_deref(), load_bias, &mut contents)?;
        self.mapping.settle(&contents)?;
        if !ifuncs.is_empty() {
            self.mapping.open_relro()?;
        }
        if let Some(tls) = &self.tls {
            tls.fill_pool()?;
        }
        Ok(ifuncs)
    }

    fn seal(
        self,
        template: Option<u64>,
        register: &mut dyn FnMut(Arc<str>, Instance) -> DebugRegistration,
    ) -> Result<LoadedImage, Error> {
        let mapping = self.mapping.seal(self.prepared.memory_name())?;
        let Member { name, image, profile, debug_info, .. } = self.prepared;
        let decoded = &image.decoded;
        let load_bias = mapping.load_bias();
        let link_map = LinkMap::new(name, load_bias, decoded.dynamic.start);
        let thread_locals = self.tls.as_ref().map_or(ThreadLocals::Elsewhere, thread_locals);
        let unwind = unwind::Registration::new(decoded, &mapping, &link_map)?;
        // SAFETY: both are in the same struct, behind it.
        let table = unsafe { KeptTable::new(decoded, &mapping)? };
        let needed = try_collect(self.prepared.needed.iter().cloned())?;
        let filtees = match self.prepared.filtees.as_slice() {
            [] => Vec::new(),
            filtees => try_collect(filtees.iter().cloned())?,
        };
        let ifuncs = Ifuncs::new(self.chosen);
        // Nothing fails from here on: the drop of `LoadedImage` must see each mapping that debuggers know.
        let debug = register(name.clone(), Instance { load_bias, thread_locals, ifuncs });
        if debug.debug() != DebugLevel::Off {
            retired::replaced_by(|| Identity::new(decoded, &mapping, table.strings()));
        }
        Ok(LoadedImage {
            name: name.clone(),
            template,
            table,
            decoded: decoded.clone(),
            needed,
            filtees,
            search_path: self.prepared.search_path.clone(),
            file: self.prepared.file,
            alias: self.prepared.alias.clone(),
            link_map,
            _profile: profile::Registration::new(
                *profile,
                name,
                image,
                debug_info.as_deref(),
                &mapping,
                &debug,
            ),
            read: ReadLines::default(),
            debug,
            _unwind: unwind,
            plt: self.plt,
            tls: self.tls,
            of_system: self.prepared.of_system,
            roots: Roots::none(),
            mapping,
        })
    }
}

impl Placement {
    fn of(tls: Option<&TlsModule>, load_bias: LoadBias) -> Placement {
        let tls = tls.map(|tls| TlsBlock {
            module: tls.id(),
            static_offset: match tls.block_place() {
                BlockPlace::At(offset) => Some(offset),
                BlockPlace::BehindPointerAt(_) | BlockPlace::Elsewhere => None,
            },
        });
        Placement { load_bias, tls }
    }
}

/// The modules of [`Bound::foreign_tls`].
fn foreign_tls(bound: &Bound) -> Result<Vec<TlsBlock>, Error> {
    let block = |&module| TlsBlock { module, static_offset: tls::static_offset(module) };
    Ok(try_collect(bound.foreign_tls().iter().map(block))?)
}

/// Stores the relocations of the group's member of this index.
fn applier<'a>(
    prepared: &'a Member<'_>,
    member: usize,
    placements: &'a [Placement],
    foreign_tls: &'a [TlsBlock],
) -> Applier<'a> {
    Applier {
        relocations: &prepared.image.decoded.relocations,
        bound: &prepared.bound,
        member,
        machine: &MACHINE,
        placements,
        foreign_tls,
        tlsdesc_resolvers: TlsDescResolvers {
            static_block: tls::tlsdesc_static as *const () as usize,
            dynamic_block: tls::tlsdesc_dynamic as *const () as usize,
            undefined_weak: tls::tlsdesc_undefined as *const () as usize,
        },
    }
}

/// Stores all words of an image that differ from its file, but for those of IFUNCs, which are returned.
fn store_all(
    image: &Image<'_>,
    applier: &Applier<'_>,
    plt: Option<&Plt<LoadGroup>>,
    load_bias: LoadBias,
    contents: &mut Contents,
) -> Result<Vec<IfuncWord>, Error> {
    let ifuncs = applier.apply_all(image, contents)?;
    let moved = image.decoded.moved_dynamic_entries(contents)?;
    store_late(image, plt, load_bias, &moved, contents)?;
    Ok(ifuncs)
}

/// Stores what follows the relocations: the moved entries of the dynamic section, and the words of a lazy PLT.
fn store_late(
    image: &Image<'_>,
    plt: Option<&Plt<LoadGroup>>,
    load_bias: LoadBias,
    moved: &[(Vaddr, Vaddr)],
    memory: &mut impl WritableMemory,
) -> Result<(), Error> {
    for &(at, value) in moved {
        // `ld.so` leaves a read-only dynamic section alone, too.
        let _ = memory.store(at, (load_bias.apply(value) as u64).to_le_bytes());
    }
    if let (Some(plt), Some(at)) = (plt, image.decoded.plt_got) {
        // The PLT's first entry pushes the first of the two words and jumps to the second.
        let words = [ptr::from_ref(plt).addr(), arch::bind_call as *const () as usize];
        for (word, skip) in words.into_iter().zip([8, 16]) {
            let stored =
                at.checked_add(skip).and_then(|at| memory.store(at, (word as u64).to_le_bytes()));
            let what = "DT_PLTGOT is not in writable memory";
            stored.ok_or_else(|| Error::malformed(what, Place::Address(at)))?;
        }
    }
    Ok(())
}

/// Where debuggers find a module's block: they start from the first module's.
fn thread_locals(tls: &TlsModule) -> ThreadLocals {
    let distance = |offset: isize| offset.wrapping_sub(tls::first_module_offset()) as i64;
    match tls.block_place() {
        BlockPlace::At(offset) => ThreadLocals::AtDistance(distance(offset)),
        BlockPlace::BehindPointerAt(offset) => ThreadLocals::BehindPointerAt(distance(offset)),
        BlockPlace::Elsewhere => ThreadLocals::Elsewhere,
    }
}

/// Stores the result of an IFUNC resolver of one of the members.
fn resolve_ifunc(
    mapped: &mut [MappedMember<'_, '_>],
    index: usize,
    word: &IfuncWord,
    may_run: Option<MayRun>,
) -> Result<(), Error> {
    let name = members::member(mapped, index).prepared.name.clone();
    let malformed = |what: &'static str| {
        Error::malformed(what, Place::Relocation(word.r_offset)).in_image(&name)
    };
    let mapping = &members::member(mapped, word.member).mapping;
    let resolver = mapping.load_bias().apply(word.resolver);
    if !mapping.is_code(resolver) {
        return Err(malformed("an IFUNC resolver lies outside executable memory"));
    }
    let function = match may_run {
        // SAFETY: in executable memory of an image of the group, all of which are relocated; `may_run`
        // is the promise that it may run.
        Some(_) => unsafe { arch::call_ifunc_resolver(resolver) },
        None => resolver,
    };
    if may_run.is_some() && mapping.is_code(function) {
        let function = mapping.load_bias().remove(function);
        let chosen = &mut members::member_mut(mapped, word.member).chosen;
        // Without memory for it, debuggers stop in the resolver.
        let _ = chosen.try_push((word.resolver, function));
    }
    let value = (function as u64).wrapping_add_signed(word.r_addend);
    let stored =
        members::member_mut(mapped, index).mapping.store(word.r_offset, value.to_le_bytes());
    stored.ok_or_else(|| malformed("an IFUNC's address goes to memory that is not writable"))
}

/// Whether an unloaded instance can wait for the next. Else something of it is the process's: a name, a definition, a
/// place in every thread, an entry in files.
fn can_wait(prepared: &Prepared<'_>) -> bool {
    let Prepared { members, static_tls, first_uses, namespace, policy, .. } = prepared;
    let is_plain = |member: &Member<'_>| {
        !member.plan.text_relocations
            && !member.image.decoded.nodelete
            && member.image_file.is_none()
            && member.profile == Profile::Off
    };
    !prepared.global
        && !policy.seal
        && namespace.is_none()
        && static_tls.is_empty()
        && first_uses.is_empty()
        && members.iter().all(is_plain)
}

/// Where unloaded instances of this group wait for the next, if they can.
pub(crate) fn stand(prepared: &Arc<Prepared<'static>>) -> Option<Arc<Stand<Parts>>> {
    let of_template = prepared.clone();
    let renew: Arc<Renew<Parts>> = Arc::new(move |parts: &mut Parts| renew(&of_template, parts));
    can_wait(prepared).then(|| Stand::new(&renew))
}

/// Brings the memory of an instance that nothing refers to back to the state before its constructors.
fn renew(prepared: &Prepared<'_>, parts: &mut Parts) -> bool {
    // The first instance has all pages for itself. The next ones share them, and so take less time to compare.
    let mut pairs = prepared.members.iter().zip(&parts.members);
    let would_share = |(member, loaded): (&Member<'_>, &LoadedImage)| {
        member.shares_text && SharedText::is_worth(&member.plan) && loaded.mapping.could_share()
    };
    if pairs.any(would_share) {
        return false;
    }
    if parts.contents.is_empty() {
        match contents(prepared, parts) {
            Ok(contents) => parts.contents = contents,
            // For lack of memory, usually.
            Err(_) => return false,
        }
    }
    let members = prepared.members.iter().zip(&parts.members);
    members.zip(&parts.contents).all(|((member, loaded), contents)| {
        // SAFETY: the instance was unloaded, so none of its code runs, and nothing refers to its memory. It has not
        // changed its protections (`LoadGroup::can_wait`).
        unsafe { loaded.mapping.renew(contents, member.image.bytes()) }
    })
}

/// What the members of an instance write, as it was before the constructors.
fn contents(prepared: &Prepared<'_>, parts: &Parts) -> Result<Vec<Contents>, Error> {
    let placement =
        |loaded: &LoadedImage| Placement::of(loaded.tls.as_ref(), loaded.mapping.load_bias());
    let placements = try_collect(parts.members.iter().map(placement))?;
    let mut all = try_vec(parts.members.len())?;
    for (index, (member, loaded)) in prepared.members.iter().zip(&parts.members).enumerate() {
        let foreign_tls = foreign_tls(&member.bound)?;
        let mut contents = Contents::of_file(&member.plan, member.image.bytes())?;
        let applier = applier(member, index, &placements, &foreign_tls);
        let (plt, load_bias) = (loaded.plt.as_deref(), loaded.mapping.load_bias());
        // Instances with IFUNCs do not wait.
        let _none = store_all(&member.image, &applier, plt, load_bias, &mut contents)?;
        all.push(contents);
    }
    Ok(all)
}

/// An instance in place of a former one, if one waits. Its constructors do not run yet.
pub(crate) fn instance_again(
    prepared: &Prepared<'_>,
    stand: &Stand<Parts>,
    register: &mut Register<'_>,
) -> Option<Arc<LoadGroup>> {
    let start = events::start();
    // What came into the process since then may have to know of it.
    if !collectors::present().is_none() || !unwind::serve::is_up_to_date() {
        return None;
    }
    let mut parts = stand.take()?;
    for (index, (member, loaded)) in prepared.members.iter().zip(&mut parts.members).enumerate() {
        if prepared.symfiles.get(index).is_some_and(Option::is_some) {
            let thread_locals = loaded.tls.as_ref().map_or(ThreadLocals::Elsewhere, thread_locals);
            let load_bias = loaded.mapping.load_bias();
            let ifuncs = Ifuncs::new(Vec::new());
            let instance = Instance { load_bias, thread_locals, ifuncs };
            loaded.debug = register(index, member.name.clone(), instance);
            if loaded.debug.debug() != DebugLevel::Off {
                retired::replaced_by(|| loaded.identity());
            }
        }
    }
    let group = LoadGroup::again(parts);
    group.events().set_start(start);
    Some(group)
}

impl WritableMemory for Contents {
    #[inline]
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        Contents::store(self, at, bytes)
    }

    fn word(&mut self, at: Vaddr) -> Option<u64> {
        Contents::word(self, at)
    }
}
