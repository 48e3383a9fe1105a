//! From a prepared load group to initialised images, and back to nothing.
//!
//! A group is what one load brings in: the image that was asked for (member 0) and what it needs
//! from the bytes that the caller provided. Its members can refer to each other in circles, so
//! they live and die together.
//!
//! [`Group::instantiate`] is the straight path: map every member, relocate every member, run the
//! IFUNC resolvers, seal, register, then run constructors. Registrations come before constructors
//! (a constructor may throw, and may carry a breakpoint). No lock of memdl's is held while code of
//! images runs. Each stage owns what it made, so a failure at any point is plain `Drop`, and
//! unloading is the same in the order of [`Loaded`]'s fields.
//!
//! Sources: gABI "Initialization and Termination Functions"; order among members: glibc
//! `elf/dl-sort-maps.c`.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::addr::{LoadBias, Vaddr};
use crate::arch::{self, MACHINE};
use crate::error::{Error, Place};
use crate::image::Facts;
use crate::live;
use crate::loader::{Member, Prepared};
use crate::map::{Mapping, Open, Sealed};
use crate::process;
use crate::relocate::{self, Indirect, Memory, Placement};
use crate::scope::{Keep, Provider, Target};
use crate::symbol::{Sym, SymbolTable};
use crate::tls::TlsModule;
use crate::{debug, unique, unwind};

/// The images of one load.
pub(crate) struct Group {
    /// Indices of members, dependencies first.
    init_order: Vec<usize>,
    /// How many of them, from the front, are initialised and not yet finalised.
    initialised: AtomicUsize,
    /// It defines what is to be defined once in the process.
    has_unique: bool,
    entry: OnceLock<live::Entry>,
    members: Vec<Loaded>,
    /// What members are bound to; behind `members`, so that it goes last.
    _keep: Vec<Keep>,
}

/// Tells debuggers of the instance of a member, by its index, that lies at a bias.
pub(crate) type Register<'a> = dyn FnMut(usize, LoadBias) -> Option<debug::Registration> + 'a;

/// An image in place. The fields are in drop order: what refers to the mapping goes before it.
pub(crate) struct Loaded {
    name: Arc<str>,
    facts: Arc<Facts>,
    needed: Vec<Provider>,
    _debug: Option<debug::Registration>,
    _unwind: Option<unwind::Registration>,
    tls: Option<TlsModule>,
    mapping: Mapping<Sealed>,
}

/// A member of a group while it is put in place.
struct Placed<'p, 'd> {
    member: &'p Member<'d>,
    tls: Option<TlsModule>,
    mapping: Mapping<Open>,
}

impl Memory for Mapping<Open> {
    #[inline]
    fn store<const N: usize>(&mut self, at: Vaddr, bytes: [u8; N]) -> Option<()> {
        Mapping::store(self, at, bytes)
    }

    #[inline]
    fn word(&self, at: Vaddr) -> Option<u64> {
        self.stored_word(at)
    }
}

impl Group {
    /// Puts an instance of the group in place and runs its constructors.
    ///
    /// # Safety
    /// Runs code of the images: IFUNC resolvers and constructors. They must be right for this
    /// process, as with `dlopen`.
    pub(crate) unsafe fn instantiate(
        prepared: &Prepared<'_>,
        register: &mut Register<'_>,
    ) -> Result<Arc<Group>, Error> {
        process::stay_loaded();
        let group = Group::place(prepared, register)?;
        let pinned = prepared.members.iter().any(|member| member.image.facts.nodelete);
        unique::enter(&group, &prepared.first_uses);
        let entry = live::enter(&group, prepared.global, pinned);
        // Set once, here.
        let _ = group.entry.set(entry);
        // SAFETY: all members are relocated and sealed; the rest is the caller's promise.
        unsafe { group.initialise() };
        Ok(group)
    }

    /// Everything up to the constructors.
    fn place(prepared: &Prepared<'_>, register: &mut Register<'_>) -> Result<Arc<Group>, Error> {
        let mut placed = Vec::with_capacity(prepared.members.len());
        for member in &prepared.members {
            placed.push(Placed::new(member).map_err(|error| error.in_image(&member.name))?);
        }
        let placements: Vec<Placement> = placed.iter().map(Placed::placement).collect();

        let mut indirect = Vec::new();
        for (index, placed) in placed.iter_mut().enumerate() {
            let words = placed.relocate(index, &placements);
            indirect.push(words.map_err(|error| error.in_image(&placed.member.name))?);
        }
        // Resolvers are code of the images: only now is everything that they can see relocated.
        for &index in &prepared.init_order {
            for word in &indirect[index] {
                resolve_indirect(&mut placed, index, word)?;
            }
        }

        let mut members = Vec::with_capacity(placed.len());
        for (index, placed) in placed.into_iter().enumerate() {
            let name = placed.member.name.clone();
            let loaded = placed.seal(&mut |load_bias| register(index, load_bias));
            members.push(loaded.map_err(|error| error.in_image(&name))?);
        }
        Ok(Arc::new(Group {
            init_order: prepared.init_order.clone(),
            initialised: AtomicUsize::new(0),
            has_unique: !prepared.first_uses.is_empty(),
            entry: OnceLock::new(),
            members,
            _keep: prepared.keep.clone(),
        }))
    }

    /// How many images there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member of this index, which is one that the group or its loader gave out.
    pub(crate) fn member(&self, index: usize) -> &Loaded {
        &self.members[index]
    }

    /// Runs all constructors, dependencies first.
    ///
    /// # Safety
    /// As [`Group::instantiate`].
    unsafe fn initialise(&self) {
        let arguments = process::arguments();
        for (count, &index) in self.init_order.iter().enumerate() {
            // Counted before it runs: a constructor that unwinds is finalised like any other.
            self.initialised.store(count + 1, Ordering::Release);
            for function in self.members[index].constructors() {
                type Constructor =
                    unsafe extern "C-unwind" fn(c_int, *const *const c_char, *const *const c_char);
                // SAFETY: a function that the image names as a constructor; what it does is the
                // promise of whoever loads it.
                unsafe {
                    let function: Constructor = std::mem::transmute(function);
                    function(arguments.argc, arguments.argv, arguments.envp);
                }
            }
        }
    }

    /// Runs the destructors of what is initialised, in reverse. Does nothing the second time.
    pub(crate) fn finalise(&self) {
        let count = self.initialised.swap(0, Ordering::AcqRel);
        for &index in self.init_order.iter().take(count).rev() {
            for function in self.members[index].destructors() {
                // SAFETY: a function that the image names as a destructor, run once, while the
                // image is in place. Whoever loaded it promised that it may run.
                unsafe {
                    let function: unsafe extern "C-unwind" fn() = std::mem::transmute(function);
                    function();
                }
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.finalise();
        // Nobody may find it any more; then the fields go.
        drop(self.entry.take());
        if self.has_unique {
            unique::forget_dead();
        }
    }
}

impl<'p, 'd> Placed<'p, 'd> {
    fn new(member: &'p Member<'d>) -> Result<Placed<'p, 'd>, Error> {
        let mapping = Mapping::new(&member.plan, member.image.bytes(), &member.name)?;
        let segment = member.image.facts.tls.as_ref();
        let tls = segment.map(|segment| TlsModule::new(segment, &mapping)).transpose()?;
        Ok(Placed { member, tls, mapping })
    }

    fn placement(&self) -> Placement {
        Placement { load_bias: self.mapping.load_bias(), tls: self.tls.as_ref().map(TlsModule::id) }
    }

    fn relocate(&mut self, index: usize, placements: &[Placement]) -> Result<Vec<Indirect>, Error> {
        let Member { image, bound, .. } = self.member;
        let indirect =
            relocate::apply(image, bound, index, &MACHINE, placements, &mut self.mapping)?;
        self.mapping.close_text()?;
        Ok(indirect)
    }

    fn seal(
        self,
        register: &mut dyn FnMut(LoadBias) -> Option<debug::Registration>,
    ) -> Result<Loaded, Error> {
        let mapping = self.mapping.seal()?;
        let facts = &self.member.image.facts;
        let unwind = unwind::Registration::new(facts, &mapping);
        Ok(Loaded {
            name: self.member.name.clone(),
            facts: facts.clone(),
            needed: self.member.needed.clone(),
            _debug: register(mapping.load_bias()),
            _unwind: unwind,
            tls: self.tls,
            mapping,
        })
    }
}

/// Stores what an IFUNC resolver of one of the members returns.
fn resolve_indirect(
    placed: &mut [Placed<'_, '_>],
    index: usize,
    word: &Indirect,
) -> Result<(), Error> {
    let name = placed[index].member.name.clone();
    let malformed =
        |what: &'static str| Error::malformed(what, Place::Relocation(word.place)).in_image(&name);
    let resolver = placed[word.member].mapping.load_bias().apply(word.resolver);
    if !placed[word.member].mapping.is_code(resolver) {
        return Err(malformed("an IFUNC resolver lies outside executable memory"));
    }
    // SAFETY: in executable memory of an image of the group, all of which are relocated.
    let function = unsafe { arch::call_ifunc_resolver(resolver) };
    let value = (function as u64).wrapping_add_signed(word.r_addend);
    let stored = placed[index].mapping.store(word.place, value.to_le_bytes());
    stored.ok_or_else(|| malformed("an IFUNC's address goes to memory that is not writable"))
}

impl Loaded {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn mapping(&self) -> &Mapping<Sealed> {
        &self.mapping
    }

    /// The libraries that it needs, directly, in order.
    pub(crate) fn needed(&self) -> &[Provider] {
        &self.needed
    }

    /// Whether a `DT_NEEDED` entry of this name means this image.
    pub(crate) fn is_called(&self, name: &[u8]) -> bool {
        self.facts.is_called(&self.name, name)
    }

    pub(crate) fn symbols(&self) -> SymbolTable<'_> {
        SymbolTable::over(&self.facts.symbols, &self.mapping)
            .expect("the mapping holds what the file states")
    }

    /// What a reference to a symbol of this image is bound to.
    pub(crate) fn target(&self, symbol: &Sym) -> Target {
        let value = Vaddr(symbol.st_value);
        if symbol.is_thread_local() {
            match &self.tls {
                Some(tls) => Target::Tls { module: tls.id(), offset: symbol.st_value },
                None => Target::Address(0),
            }
        } else if symbol.is_absolute() {
            Target::Address(symbol.st_value as usize)
        } else {
            let address = self.mapping.load_bias().apply(value);
            if symbol.is_ifunc() && self.mapping.is_code(address) {
                // SAFETY: in executable memory of an image that is relocated.
                Target::Address(unsafe { arch::call_ifunc_resolver(address) })
            } else {
                Target::Address(address)
            }
        }
    }

    /// `DT_INIT`, then `DT_INIT_ARRAY`.
    fn constructors(&self) -> impl Iterator<Item = usize> + '_ {
        let init = self.facts.init.map(|address| self.mapping.load_bias().apply(address));
        init.into_iter().chain(self.functions(&self.facts.init_array))
    }

    /// `DT_FINI_ARRAY` in reverse, then `DT_FINI`.
    fn destructors(&self) -> impl Iterator<Item = usize> + '_ {
        let fini = self.facts.fini.map(|address| self.mapping.load_bias().apply(address));
        let array: Vec<usize> = self.functions(&self.facts.fini_array).collect();
        array.into_iter().rev().chain(fini)
    }

    /// The non-null words of an array of functions, as they stand in memory now.
    fn functions(&self, array: &Option<Range<Vaddr>>) -> impl Iterator<Item = usize> + '_ {
        let array = array.clone().unwrap_or_default();
        (array.start.0..array.end.0)
            .step_by(8)
            .filter_map(|at| self.mapping.word(Vaddr(at)))
            .filter(|&function| function != 0)
    }
}
