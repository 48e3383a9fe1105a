//! The registration of an instance with debuggers, from its relocation to its end.
//!
//! A [`DebugTemplate`] makes one [`DebugRegistration`] for each instance. Its lock guards the form that
//! debuggers see ([`super::published`]). Debug sections are unpacked and read without the lock, which a fork
//! and an unload wait for. Warnings are logged after the lock is released. A load never fails here.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::sync::Arc;

use super::gdb_jit::debugger_listens;
use super::in_full::InFull;
use super::level::DebugLevel;
use super::policy::maximum;
use super::published::{Fault, NextForm, Published};
use super::retired::{self, Identity};
use super::storage::{Symfile, SymfileTemplate, memory_error};
use super::stripped;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_copy};
use crate::base::limits::Limits;
use crate::base::sync::{Guard, Lock, Rank};
use crate::memory::stage::Keeper;
use memdl_symfile::Limits as Maximum;
use memdl_symfile::builder::compression::NotInflated;
use memdl_symfile::builder::error::SymfileError;
use memdl_symfile::builder::ifuncs::Ifuncs;
use memdl_symfile::builder::instance::Instance;
use memdl_symfile::builder::source::Source;
use memdl_symfile::builder::template::{Dwarf, Instances};
use memdl_symfile::dwarf::budget::Allowance;

/// What the registrations of all instances of an image are made from.
pub(crate) struct DebugTemplate {
    symfile: SymfileTemplate,
    wanted: DebugLevel,
    /// [`Limits::instances_in_full`].
    max_in_full: u64,
    most: Maximum,
}

impl DebugTemplate {
    /// `image` is the image's name in the log. `wanted` comes from [`DebugLevel::effective`]. `None` if it is
    /// [`DebugLevel::Off`], or no symfile can be made.
    pub(crate) fn new(
        image: &str,
        source: &Source<'_>,
        wanted: DebugLevel,
        limits: &Limits,
        instances: Instances,
    ) -> Option<DebugTemplate> {
        if wanted == DebugLevel::Off {
            return None;
        }
        let most = maximum(limits);
        let allowance = Allowance::new(most, source.len());
        match symfile_template(source, instances, allowance, wanted.dwarf()) {
            Ok(symfile) => {
                if let Some(fault) = symfile.fault() {
                    warn_of_names_only(image, fault);
                }
                let max_in_full = limits.instances_in_full;
                Some(DebugTemplate { symfile, wanted, max_in_full, most })
            }
            Err(error) => {
                warn_of_nothing(image, &error);
                None
            }
        }
    }

    /// Registers an instance with debuggers. It is mapped and relocated, and outlives the result.
    pub(crate) fn register(&self, image: Arc<str>, instance: Instance) -> DebugRegistration {
        let wanted = self.wanted_for(&image);
        let symfile = self.symfile.at(&instance);
        DebugRegistration::new(image, instance, symfile, wanted, self.most)
    }

    /// As [`DebugTemplate::register`], for the only instance: copies nothing.
    pub(crate) fn into_registration(
        self,
        image: Arc<str>,
        instance: Instance,
    ) -> DebugRegistration {
        let wanted = self.wanted_for(&image);
        let most = self.most;
        let symfile = self.symfile.into_symfile(&instance);
        DebugRegistration::new(image, instance, symfile, wanted, most)
    }

    /// The level of one more instance. An attached debugger reads all instances at each event and for each
    /// breakpoint, so every instance with source lines makes it slower. Symbols cost it a fraction of that, and
    /// breakpoints work with them, too.
    fn wanted_for(&self, image: &str) -> DebugLevel {
        let has_lines = matches!(self.wanted, DebugLevel::Full | DebugLevel::Portable);
        if has_lines && debugger_listens() && InFull::count(image) >= self.max_in_full {
            logged!(
                info,
                "{image}: debuggers see {} instances in full, and only the symbols of this one",
                self.max_in_full
            );
            return DebugLevel::Symbols;
        }
        self.wanted
    }
}

/// Makes the template of an image's symfiles.
pub(crate) fn symfile_template(
    source: &Source<'_>,
    instances: Instances,
    allowance: Allowance,
    dwarf: Dwarf,
) -> Result<SymfileTemplate, SymfileError> {
    let template = SymfileTemplate::new(source, instances, allowance, dwarf)?;
    if let Some(fault) = template.distrusted() {
        logged!(debug, "section headers of an image are disregarded: {fault}");
    }
    Ok(template)
}

/// Logs that debuggers see only names of an image for which more was requested.
pub(crate) fn warn_of_names_only(image: &str, fault: &dyn Display) {
    warn_of(image, Some(Fault::names_only(fault)));
}

fn warn_of_nothing(image: &str, fault: &dyn Display) {
    logged!(warn, "{image}: debuggers will not see it: {fault}");
}

/// The registration of an instance with debuggers, from its relocation until it is unmapped.
pub(crate) struct DebugRegistration {
    image: Arc<str>,
    instance: Instance,
    most: Maximum,
    state: Lock<State>,
}

struct State {
    published: Published,
    /// Whether the image's debug sections, if it has any, were kept.
    has_debug_sections: bool,
    in_full: Option<InFull>,
    /// The functions that IFUNC resolvers chose after the registration, for forms that are made later.
    chosen: Vec<Ifuncs>,
}

impl State {
    fn new(published: Published, has_debug_sections: bool, in_full: Option<InFull>) -> State {
        State { published, has_debug_sections, in_full, chosen: Vec::new() }
    }
}

/// Debug sections of an image, not compressed.
pub(crate) struct DebugSections {
    /// By their names when they are not compressed. Those that cannot be unpacked are left out.
    pub(crate) sections: Vec<(&'static str, Vec<u8>)>,
    /// How many bytes they take in the file.
    pub(crate) stored: u64,
    /// Why one of them cannot be unpacked.
    pub(crate) fault: Option<DebugFault>,
}

/// Why backtraces show less than an image's debug information has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebugFault {
    /// A section that cannot be unpacked.
    #[error("{0}: {1}")]
    Packed(&'static str, NotInflated),
    /// Reading it takes too much work for its size.
    #[error("its debug information takes more work to read than is allowed for its size")]
    Costly,
}

impl DebugRegistration {
    /// Of an instance that debuggers do not see.
    pub(crate) fn none(image: Arc<str>, instance: Instance) -> DebugRegistration {
        let state = Lock::new(Rank::Debug, State::new(Published::Nothing(None), false, None));
        DebugRegistration { image, instance, most: Maximum::default(), state }
    }

    fn new(
        image: Arc<str>,
        instance: Instance,
        symfile: Result<Symfile, SymfileError>,
        wanted: DebugLevel,
        most: Maximum,
    ) -> DebugRegistration {
        let symfile = match symfile {
            Ok(symfile) => symfile,
            Err(error) => {
                warn_of_nothing(&image, &error);
                return DebugRegistration::none(image, instance);
            }
        };
        let (published, fault) = Published::first(symfile, wanted, &instance);
        warn_of(&image, fault);
        if wanted != DebugLevel::Off {
            stripped::warn_once();
        }
        let in_full = published.in_full(&image);
        let state = Lock::new(Rank::Debug, State::new(published, true, in_full));
        DebugRegistration { image, instance, most, state }
    }

    /// What may be spent on the debug information in a file of `len` bytes.
    pub(crate) fn allowance(&self, len: usize) -> Allowance {
        Allowance::new(self.most, len)
    }

    /// The current level.
    pub(crate) fn debug(&self) -> DebugLevel {
        self.lock().published.debug()
    }

    /// Changes the level. `symfile` makes a symfile where none was kept.
    ///
    /// Work that takes time is done without the lock, since a fork and an unload wait for the lock. With the
    /// lock held this only finds out which form is still to be made, or publishes the form that was made. A
    /// form is made again only if another thread has replaced the symfile that it was made from.
    pub(crate) fn set(
        &self,
        wanted: DebugLevel,
        symfile: impl Fn() -> Result<SymfileTemplate, SymfileError>,
    ) -> Result<(), Error> {
        let (mut from_memory, mut made) = (None, None);
        loop {
            let mut state = self.lock();
            self.check(&state, wanted)?;
            if matches!(state.published, Published::Nothing(None)) && wanted != DebugLevel::Off {
                let Some(symfile) = from_memory.take() else {
                    drop(state);
                    from_memory = Some(self.symfile_from(symfile())?);
                    continue;
                };
                state.published = Published::Nothing(Some(symfile));
            }
            let unread = state.published.unread(wanted, made.as_ref());
            let Some((origin, parts)) = unread.map(|symfile| (symfile.origin(), symfile.parts()))
            else {
                let fault = self.change(&mut state, wanted, made);
                drop(state);
                warn_of(&self.image, fault);
                return Ok(());
            };
            drop(state);
            made = Some(NextForm::new(origin, parts, wanted, &self.instance));
        }
    }

    /// The symfile of this instance, made from what is in its memory.
    fn symfile_from(&self, made: Result<SymfileTemplate, SymfileError>) -> Result<Symfile, Error> {
        made.and_then(|made| made.into_symfile(&self.instance))
            .map_err(|error| memory_error(error).in_image(&self.image))
    }

    /// Whether this level is possible.
    fn check(&self, state: &State, wanted: DebugLevel) -> Result<(), Error> {
        if !state.has_debug_sections && matches!(wanted, DebugLevel::Full | DebugLevel::Portable) {
            let what = "its debug sections were not kept, since it was loaded with DebugLevel::Off; \
                        DebugLevel::Symbols shows what is in memory. To show more later, load it with \
                        DebugLevel::Symbols, or pass its file to Library::set_debug_info";
            return Err(Error::unsupported(what).in_image(&self.image));
        }
        Ok(())
    }

    /// Replaces the symfile by one made with debug information that came later. The level stays.
    pub(crate) fn replace(&self, symfile: SymfileTemplate) -> Result<(), SymfileError> {
        let published = Published::Nothing(Some(symfile.into_symfile(&self.instance)?));
        loop {
            // Without the lock, as in `set`; again, if another thread changes the level meanwhile.
            let wanted = self.debug();
            let unread = published.unread(wanted, None);
            let made = unread.map(|symfile| NextForm::from(symfile, wanted, &self.instance));
            let mut state = self.lock();
            if state.published.debug() != wanted {
                continue;
            }
            let _ = self.change(&mut state, DebugLevel::Off, None);
            state.published = published;
            state.has_debug_sections = true;
            let fault = self.change(&mut state, wanted, made);
            drop(state);
            warn_of(&self.image, fault);
            return Ok(());
        }
    }

    /// The caller logs the result after it has released the lock.
    fn change(
        &self,
        state: &mut State,
        wanted: DebugLevel,
        made: Option<NextForm>,
    ) -> Option<Fault> {
        let before = std::mem::replace(&mut state.published, Published::Nothing(None));
        let (published, fault) = before.changed_to(wanted, made);
        state.published = published;
        state.chosen.iter().for_each(|ifuncs| state.published.amend(ifuncs));
        state.in_full = state.published.in_full(&self.image);
        fault
    }

    /// Shows debuggers which function an IFUNC resolver of the image has chosen after the registration, so that a
    /// breakpoint by its name goes to that function. Both are run-time addresses. In a GOT, where gdb finds what is
    /// bound late in a library on disk, it cannot look: a symfile has none.
    pub(crate) fn note_ifunc(&self, resolver: usize, function: usize) {
        let mut state = self.lock();
        if !state.chosen.iter().any(|ifuncs| ifuncs.has(resolver)) {
            let ifuncs = Ifuncs::in_place(resolver, function);
            state.published.amend(&ifuncs);
            // Without memory, only what is registered shows it.
            let _ = state.chosen.try_push(ifuncs);
        }
    }

    /// The debug sections of these names; `None` if they were not kept.
    pub(crate) fn debug_sections(&self, names: &[&'static str]) -> Option<DebugSections> {
        // They are unpacked without the lock, since that may take long.
        let (packed, budget) = {
            let state = self.lock();
            let symfile = state.published.symfile()?;
            (symfile.packed_sections(names), symfile.allowance().budget())
        };
        let stored = packed.iter().map(|section| section.contents.len() as u64).sum();
        let mut kept = DebugSections { sections: Vec::new(), stored, fault: None };
        for section in packed {
            let name = section.name;
            match section.unpacked(&budget) {
                Ok(contents) => kept.sections.push((name, contents)),
                Err(error) => kept.fault = Some(DebugFault::Packed(name, error)),
            }
        }
        Some(kept)
    }

    /// Logs that backtraces will show less. No lock may be held.
    pub(crate) fn warn_of(&self, fault: &DebugFault) {
        logged!(
            warn,
            "{}: backtraces will show less than the debug information has: {fault}",
            self.image
        );
    }

    /// The linkage name of the function that `address` lies in, by the symfile's symbol table.
    pub(crate) fn function_at(&self, address: usize) -> Option<Vec<u8>> {
        self.lock().published.symfile()?.function_at(address).and_then(|name| try_copy(name).ok())
    }

    /// Takes the registration away. What is returned keeps it, with the memory of the image.
    pub(crate) fn retire(&self, identity: Identity) -> Keeper {
        let mut state = self.lock();
        let published = std::mem::replace(&mut state.published, Published::Nothing(None));
        state.in_full = None;
        Box::new(move |memory| retired::keep(identity, published, memory))
    }

    /// Takes the registration away, and all that came after it. The image stays, for the next instance.
    pub(crate) fn withdraw(&mut self) {
        *self.state.get_mut() = State::new(Published::Nothing(None), false, None);
    }

    /// Whether a thread holds the lock.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.try_lock().is_none()
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

/// Logs why debuggers see less of an image than was requested. No lock may be held.
fn warn_of(image: &str, fault: Option<Fault>) {
    if let Some(Fault { instead, why }) = fault {
        logged!(warn, "{image}: {instead}: {why}");
    }
}
