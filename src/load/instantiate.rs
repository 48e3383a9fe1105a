//! From a prepared load group to images in place: the straight path.
//!
//! Map every member, relocate every member, run the IFUNC resolvers, seal, register, then run the
//! constructors. Registrations come before constructors (a constructor may throw, and may carry a
//! breakpoint). Each stage owns what it made, so a failure at any point is plain `Drop` and leaves
//! nothing behind.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use crate::arch::{self, MACHINE};
use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::fallible::{require_memory_for_next, try_collect, try_copy, try_vec};
use crate::base::promise::MayRun;
use crate::debug::read_lines::ReadLines;
use crate::debug::{DebugRegistration, Instance, ThreadLocals};
use crate::host::link_map::LinkMap;
use crate::images::group::{self, KeptTable, LoadGroup, LoadedImage, Plt, Provider};
use crate::images::members::{member, member_mut};
use crate::images::unique;
use crate::link::relocate::{Applier, Indirect, Memory, Placement};
use crate::load::debugger_commands;
use crate::load::prepare::{Member, Prepared};
use crate::memory::map::{InPlaceFile, Mapping, Open, Source, Writable};
use crate::profile;
use crate::tls::{self, BlockPlace, TlsModule};
use crate::unwind;

/// Tells debuggers of the instance of a member, by its index and name.
pub(crate) type Register<'a> = dyn FnMut(usize, Arc<str>, Instance) -> DebugRegistration + 'a;

/// The only instance there will be of what is prepared, its constructors run.
///
/// # Safety
/// The code of the images may run.
pub(crate) unsafe fn run_once(prepared: Prepared<'_>) -> Result<Arc<LoadGroup>, Error> {
    // SAFETY: the caller's promise.
    let may_run = unsafe { MayRun::promised() };
    let group = place_once(prepared, Some(may_run))?;
    // SAFETY: it is in place, and no constructor has run; the rest is the caller's promise.
    unsafe { group.initialise() };
    Ok(group)
}

/// As [`run_once`], up to the constructors. IFUNC resolvers run if they may.
pub(crate) fn place_once(
    mut prepared: Prepared<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    let received = prepared.take_received();
    let mut symfiles = std::mem::take(&mut prepared.symfiles);
    let mut register = |index: usize, name: Arc<str>, instance| match symfiles
        .get_mut(index)
        .and_then(Option::take)
    {
        Some(symfile) => symfile.into_registration(name, instance),
        None => DebugRegistration::none(name, instance),
    };
    uninitialised(&prepared, received, &mut register, may_run)
}

/// Puts an instance of the group in place where it can be found; its constructors are still to run.
/// The caller has seen to the spare memory.
/// `received` is the memory that the root was received into, if it is to stay there. IFUNC resolvers
/// run if they may; else what refers to one gets its address.
pub(crate) fn uninitialised(
    prepared: &Prepared<'_>,
    received: Option<InPlaceFile>,
    register: &mut Register<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    debugger_commands::keep();
    let group = place(prepared, received, register, may_run)?;
    group.check()?;
    for needed in prepared.members.iter().flat_map(|member| &member.needed) {
        if let Provider::Host(library) = needed {
            library.stay_loaded();
        }
    }
    if prepared.policy.seal {
        group.seal()?;
    }
    unique::enter(&group, &prepared.first_uses)?;
    group::enter(&group, prepared.global)?;
    Ok(group)
}

/// Everything up to the constructors.
fn place(
    prepared: &Prepared<'_>,
    mut received: Option<InPlaceFile>,
    register: &mut Register<'_>,
    may_run: Option<MayRun>,
) -> Result<Arc<LoadGroup>, Error> {
    let count = prepared.members.len();
    let mut placed = try_vec(count)?;
    for (index, member) in prepared.members.iter().enumerate() {
        require_memory_for_next(index)?;
        let static_tls = prepared.static_tls.contains(&index);
        placed.push(
            Placed::new(member, index, received.take(), static_tls)
                .map_err(|error| error.in_image(&member.name))?,
        );
    }
    let placements = try_collect(placed.iter().map(Placed::placement))?;

    let mut indirect = try_vec(count)?;
    for (index, placed) in placed.iter_mut().enumerate() {
        let words = placed.relocate(index, &placements);
        indirect.push(words.map_err(|error| error.in_image(&placed.member.name))?);
    }
    // Resolvers are code of the images: only now is everything that they can see relocated.
    if indirect.iter().any(|words| !words.is_empty()) {
        for placed in &mut placed {
            placed.mapping.protect().map_err(|error| error.in_image(&placed.member.name))?;
        }
    }
    for &index in &prepared.init_order {
        for word in member(&indirect, index) {
            resolve_indirect(&mut placed, index, word, may_run)?;
        }
    }

    let mut members = try_vec(count)?;
    for (index, placed) in placed.into_iter().enumerate() {
        require_memory_for_next(index)?;
        let name = placed.member.name.clone();
        let loaded = placed.seal(&mut |name, instance| register(index, name, instance));
        members.push(loaded.map_err(|error| error.in_image(&name))?);
    }
    Ok(LoadGroup::new(
        members,
        try_copy(&prepared.init_order)?,
        try_collect(prepared.keep.iter().cloned())?,
        prepared.call_binder.clone(),
        prepared.opener.clone(),
        prepared.policy.clone(),
    ))
}

/// A member of a group while it is put in place.
struct Placed<'p, 'd> {
    member: &'p Member<'d>,
    plt: Option<Box<Plt>>,
    tls: Option<TlsModule>,
    /// The image is where its file was received.
    is_received: bool,
    mapping: Mapping<Open>,
}

impl Memory for Writable<'_> {
    #[inline]
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        Writable::store(self, at, bytes)
    }

    #[inline]
    fn word(&mut self, at: Vaddr) -> Option<u64> {
        self.stored_word(at)
    }
}

impl<'p, 'd> Placed<'p, 'd> {
    fn new(
        member: &'p Member<'d>,
        index: usize,
        received: Option<InPlaceFile>,
        static_tls: bool,
    ) -> Result<Placed<'p, 'd>, Error> {
        let name = member.profile.allows_memory_names().then_some(&*member.name);
        let bytes = member.image.bytes();
        let is_received = received.is_some();
        let source = match (received, &member.shared_text) {
            (Some(received), _) => Source::InPlaceFile(received),
            (None, Some(text)) => Source::Shared(bytes, text),
            (None, None) => Source::Copied(bytes),
        };
        let mapping = Mapping::new(&member.plan, source, name)?;
        let segment = member.image.decoded.tls.as_ref();
        let tls =
            segment.map(|segment| TlsModule::new(segment, &mapping, static_tls)).transpose()?;
        let plt = member.lazy.then(|| Plt::new(index));
        Ok(Placed { member, plt, tls, is_received, mapping })
    }

    fn placement(&self) -> Placement {
        Placement { load_bias: self.mapping.load_bias(), tls: self.tls.as_ref().map(TlsModule::id) }
    }

    fn relocate(&mut self, index: usize, placements: &[Placement]) -> Result<Vec<Indirect>, Error> {
        let Member { image, bound, .. } = self.member;
        let applier = Applier {
            relocations: &image.decoded.relocations,
            bound,
            member: index,
            machine: &MACHINE,
            placements,
        };
        let indirect = if let Some(prelinked) = &self.member.prelinked {
            prelinked.apply(&applier, &mut self.mapping)
        } else if let Some((tables, mut memory)) = self.mapping.split().filter(|_| self.is_received)
        {
            // The received bytes are nowhere but in the image in place.
            applier.all(&tables, &mut memory)
        } else {
            applier.all(image, &mut self.mapping.writable())
        }?;
        for (at, value) in image.decoded.moved_dynamic_entries(&self.mapping)? {
            // Where the dynamic section is read-only, `ld.so` leaves it alone too.
            let moved = self.mapping.load_bias().apply(value) as u64;
            let _ = self.mapping.store(at, moved.to_le_bytes());
        }
        if let (Some(plt), Some(at)) = (&self.plt, image.decoded.plt_got) {
            // The PLT's first entry pushes the first of the two words and jumps to the second.
            let words = [ptr::from_ref(&**plt).addr(), arch::bind_call as *const () as usize];
            for (word, skip) in words.into_iter().zip([8, 16]) {
                let stored = at
                    .checked_add(skip)
                    .and_then(|at| self.mapping.store(at, (word as u64).to_le_bytes()));
                let what = "DT_PLTGOT is not in writable memory";
                stored.ok_or_else(|| Error::malformed(what, Place::Address(at)))?;
            }
        }
        if let Some(tls) = &self.tls {
            tls.fill_pool()?;
        }
        Ok(indirect)
    }

    fn seal(
        self,
        register: &mut dyn FnMut(Arc<str>, Instance) -> DebugRegistration,
    ) -> Result<LoadedImage, Error> {
        let mapping = self.mapping.seal()?;
        let Member { name, image, profile, debug_info, .. } = self.member;
        let decoded = &image.decoded;
        let load_bias = mapping.load_bias();
        let link_map = LinkMap::new(name, load_bias, decoded.dynamic.start);
        let thread_locals = self.tls.as_ref().map_or(ThreadLocals::Elsewhere, thread_locals);
        let unwind = unwind::Registration::new(decoded, &mapping, &*link_map)?;
        // SAFETY: both are in the same struct, behind it.
        let table = unsafe { KeptTable::new(decoded, &mapping)? };
        let needed = try_collect(self.member.needed.iter().cloned())?;
        // Nothing fails from here on: a mapping that debuggers know of goes by way of `LoadedImage`.
        let debug = register(name.clone(), Instance { load_bias, thread_locals });
        Ok(LoadedImage {
            name: name.clone(),
            table,
            decoded: decoded.clone(),
            needed,
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
            of_system: self.member.of_system,
            mapping,
        })
    }
}

/// Where debuggers, who start from the first module's block, find a module's.
fn thread_locals(tls: &TlsModule) -> ThreadLocals {
    let distance = |offset: isize| offset.wrapping_sub(tls::first_module_offset()) as i64;
    match tls.place() {
        BlockPlace::At(offset) => ThreadLocals::AtDistance(distance(offset)),
        BlockPlace::BehindPointerAt(offset) => ThreadLocals::BehindPointerAt(distance(offset)),
        BlockPlace::Elsewhere => ThreadLocals::Elsewhere,
    }
}

/// Stores what an IFUNC resolver of one of the members returns.
fn resolve_indirect(
    placed: &mut [Placed<'_, '_>],
    index: usize,
    word: &Indirect,
    may_run: Option<MayRun>,
) -> Result<(), Error> {
    let name = member(placed, index).member.name.clone();
    let malformed =
        |what: &'static str| Error::malformed(what, Place::Relocation(word.place)).in_image(&name);
    let mapping = &member(placed, word.member).mapping;
    let resolver = mapping.load_bias().apply(word.resolver);
    if !mapping.is_code(resolver) {
        return Err(malformed("an IFUNC resolver lies outside executable memory"));
    }
    let function = match may_run {
        // SAFETY: in executable memory of an image of the group, all of which are relocated; that it
        // may run was promised.
        Some(_) => unsafe { arch::call_ifunc_resolver(resolver) },
        None => resolver,
    };
    let value = (function as u64).wrapping_add_signed(word.r_addend);
    let stored = member_mut(placed, index).mapping.store(word.place, value.to_le_bytes());
    stored.ok_or_else(|| malformed("an IFUNC's address goes to memory that is not writable"))
}
