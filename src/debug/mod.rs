//! How a debugger comes to see an image that has no file.
//!
//! A debugger learns of a library from the dynamic linker's list, then opens the file of that name.
//! An image has neither. What gdb and lldb offer instead is the GDB JIT interface ([`jit`]): the
//! process keeps a list of ELF files in its own memory, *symfiles*, and calls an empty function,
//! on which the debugger has a breakpoint, when the list changes. It costs a function call when
//! nobody listens, and a debugger that comes later, or reads a core file, finds the list.
//!
//! **The form.** A symfile must tell run-time addresses, but DWARF has link-time addresses in tens
//! of thousands of places. gdb cannot be told a distance, except in one case: it slides an ELF file
//! that it finds in the section `.gnu_debugdata` of another by the distance between their sections.
//! So [`symfile`] puts the debug sections there, untouched, in a stored .xz ([`xz`]), and only the
//! few addresses outside depend on where the image lies. All gdbs from 8.1 on can read this; any
//! DWARF that they know works; it costs one copy of the debug sections for each symfile.
//!
//! **lldb** does not read `.gnu_debugdata` as built by the distributions: it sees names and backtraces.
//! For it there is a second form ([`portable`]), made from the first one: all of the DWARF read, and
//! the distance added to each address in it ([`dwarf`]). It costs that reading, and a copy for each
//! instance.
//!
//! **Late wishes.** Both forms, and the one without DWARF, come from the same bytes, which are kept for
//! as long as the image is there, so how much is told can change at any time ([`DebugRegistration`]). The form
//! without DWARF is the beginning of the one with it: to change between the two nothing is built.
//!
//! **Unloading** is where this interface is weak: gdb keeps its breakpoints in an image whose entry
//! is gone, and would write into whatever is mapped there next. See [`Registration`]'s drop. So a
//! registration is dropped while the image is still mapped. And it is made when the image is
//! relocated and before its first constructor runs, so that breakpoints in those are hit.
//!
//! A load never fails because of all this: what cannot be told is logged and left out. So is what
//! would cost more than the file is worth ([`budget`]): then debuggers are told names only. Nothing is
//! unpacked and nothing read before somebody wishes for a form that needs it.

mod budget;
pub(crate) mod demangle;
mod dwarf;
mod dwp;
mod elf;
mod filler;
mod gdb_jit;
mod inflate;
mod instance;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod internals;
mod leb128;
mod line_program;
pub(crate) mod lines;
mod not_opened;
mod portable;
pub(crate) mod read_lines;
mod sections;
mod separate;
mod skeleton;
mod symfile;
mod tls_locations;
mod xz;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

pub(crate) use budget::{Allowance, Maximum};
pub(crate) use dwp::{is_package, join};
pub(crate) use gdb_jit::{debugger_listens, is_busy};
pub(crate) use instance::{Instance, ThreadLocals};
pub(crate) use sections::full_symbol_table as symbol_table;
pub(crate) use sections::{DynamicSymbol, Policy, Source, SourceSegment, has_dwarf};
pub(crate) use separate::{
    check as check_separate, installed as installed_separate, read as read_separate,
};
pub(crate) use symfile::{Dwarf, Instances, SymfileError, SymfileTemplate};

use crate::base::environment;
use crate::base::error::Error;
use crate::base::fallible::try_copy;
use crate::base::limits::Limits;
use crate::base::sync::{Guard, Lock, Rank};
use gdb_jit::Registration;
use portable::{NotPortable, PortableSymfile};
use separate::is_build_id_told;
use symfile::{Origin, Parts, Symfile};

/// The environment variable that an operator can set, see [`Debug::effective`].
const ENVIRONMENT: &str = "MEMDL_DEBUG";
const WORDS: [(&str, Debug); 4] = [
    ("off", Debug::Off),
    ("symbols", Debug::Symbols),
    ("full", Debug::Full),
    ("portable", Debug::Portable),
];

/// How much a debugger is told about an image.
///
/// The environment variable `MEMDL_DEBUG` (`off`, `symbols`, `full`, `portable`) overrides what
/// the program has chosen, so that a process can be made more or less visible without a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Debug {
    /// Nothing: no entry is made, no byte is copied.
    Off,
    /// Names of functions and variables, and how to walk the stack through the image. Less for a
    /// debugger to read; the image's debug sections are kept all the same, so that
    /// [`Library::set_debug`](crate::Library::set_debug) can tell more later.
    Symbols,
    /// All that the image has: lines, types, variables. gdb 8.1 or newer sees it as if the image
    /// had come from a file; lldb sees names and backtraces. Needs a copy of the image's debug
    /// sections.
    #[default]
    Full,
    /// As [`Debug::Full`], for lldb as well as gdb. Reads all debug information at load, about 1 ms
    /// for each MB, and keeps it twice. If it cannot all be read with certainty (split DWARF, or
    /// damaged), this is [`Debug::Full`], and a warning is logged.
    ///
    /// Neither this nor [`Debug::Full`] unpacks or reads more than [`Limits::unpacked_debug_info`] and
    /// [`Limits::debug_info_steps`] allow: beyond that it is [`Debug::Symbols`], and a warning is logged.
    Portable,
}

impl Debug {
    /// What the environment says, and if it says nothing that we know, `self`.
    pub(crate) fn effective(self) -> Debug {
        environment::overridden(ENVIRONMENT, &WORDS, self)
    }

    /// Whether debug sections are made fit to be shown, which may take to unpack them.
    pub(crate) fn dwarf(self) -> Dwarf {
        match self {
            Debug::Off | Debug::Symbols => Dwarf::Kept,
            Debug::Full | Debug::Portable => Dwarf::Opened,
        }
    }
}

/// What the process and its operator say at this moment about how a symfile is made.
pub(crate) fn policy(has_thread_locals: bool) -> Policy {
    Policy {
        is_build_id_told: is_build_id_told(has_thread_locals),
        debugger_listens: debugger_listens(),
    }
}

/// What debuggers can be told of each instance of an image.
pub(crate) struct DebugTemplate {
    symfile: SymfileTemplate,
    wanted: Debug,
    /// [`Limits::instances_in_full`].
    most_in_full: u64,
    most: Maximum,
}

impl DebugTemplate {
    /// Of an image that is called `image` in the log; `None` if debuggers are to be told nothing, or
    /// nothing can be had. `wanted` is [`Debug::effective`] already.
    pub(crate) fn new(
        image: &str,
        source: &Source<'_>,
        wanted: Debug,
        limits: &Limits,
        instances: Instances,
    ) -> Option<DebugTemplate> {
        if wanted == Debug::Off {
            return None;
        }
        let most = Maximum::from(limits);
        let allowance = Allowance::new(most, source.len());
        match SymfileTemplate::new(source, instances, allowance, wanted.dwarf()) {
            Ok(symfile) => {
                if let Some(fault) = symfile.fault() {
                    warn_of_names_only(image, fault);
                }
                let most_in_full = limits.instances_in_full;
                Some(DebugTemplate { symfile, wanted, most_in_full, most })
            }
            Err(error) => {
                warn_of_nothing(image, &error);
                None
            }
        }
    }

    /// Tells debuggers of this instance: it is mapped, relocated, and outlives the result.
    pub(crate) fn register(&self, image: Arc<str>, instance: Instance) -> DebugRegistration {
        let wanted = self.wanted_for(&image);
        DebugRegistration::new(image, instance, self.symfile.at(instance), wanted, self.most)
    }

    /// As [`DebugTemplate::register`], for the only instance: copies nothing.
    pub(crate) fn into_registration(
        self,
        image: Arc<str>,
        instance: Instance,
    ) -> DebugRegistration {
        let wanted = self.wanted_for(&image);
        DebugRegistration::new(
            image,
            instance,
            self.symfile.into_symfile(instance),
            wanted,
            self.most,
        )
    }

    /// How much is told of one more instance. A debugger that listens looks at all instances for
    /// each event, and for all breakpoints, so a fleet of those that have source lines makes it ever
    /// slower: names, which breakpoints work with too, cost it a fraction.
    fn wanted_for(&self, image: &str) -> Debug {
        let has_lines = matches!(self.wanted, Debug::Full | Debug::Portable);
        if has_lines && debugger_listens() && InFull::count(image) >= self.most_in_full {
            logged!(
                info,
                "{image}: {} instances are told in full: names of one more",
                self.most_in_full
            );
            return Debug::Symbols;
        }
        self.wanted
    }
}

/// Says that an image is told by name only though more was wished for.
pub(crate) fn warn_of_names_only(image: &str, fault: &dyn Display) {
    warn_of(image, Some(Fault::names_only(fault)));
}

fn warn_of_nothing(image: &str, fault: &dyn Display) {
    logged!(warn, "{image}: debuggers will not see it: {fault}");
}

/// What debuggers are told of an instance, from when it is relocated until it goes.
pub(crate) struct DebugRegistration {
    image: Arc<str>,
    instance: Instance,
    most: Maximum,
    state: Lock<State>,
}

struct State {
    told: Published,
    /// Whether the image's debug sections, if it has any, were kept.
    has_all: bool,
    in_full: Option<InFull>,
}

/// The form, and what it needs.
enum Published {
    /// [`Debug::Off`]: nothing. The symfile, if it was made, is kept.
    Nothing(Option<Symfile>),
    /// [`Debug::Symbols`] or [`Debug::Full`], by what the symfile shows.
    Wrapped(Registration<Symfile>),
    /// [`Debug::Portable`]; the other form is kept, for whoever wants that again.
    Portable { portable: Registration<PortableSymfile>, wrapped: Symfile },
}

/// An instance that debuggers are told all of, counted among those of its name.
struct InFull(Arc<str>);

static IN_FULL: Lock<BTreeMap<Arc<str>, u64>> = Lock::new(Rank::InFull, BTreeMap::new());

fn in_full() -> Guard<'static, BTreeMap<Arc<str>, u64>> {
    IN_FULL.lock()
}

impl InFull {
    fn new(image: &Arc<str>) -> InFull {
        let mut counts = in_full();
        let count = counts.entry(image.clone()).or_default();
        *count = count.saturating_add(1);
        InFull(image.clone())
    }

    /// How many of this name there are.
    fn count(image: &str) -> u64 {
        in_full().get(image).copied().unwrap_or(0)
    }
}

impl Drop for InFull {
    fn drop(&mut self) {
        let mut counts = in_full();
        if let Some(count) = counts.get_mut(&self.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.0);
            }
        }
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

/// Why backtraces tell less than an image's debug information has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebugFault {
    /// A section that cannot be unpacked.
    #[error("{0}: {1}")]
    Packed(&'static str, inflate::NotInflated),
    /// It was made to be slow.
    #[error("its debug information takes more work to read than is allowed for its size")]
    Costly,
}

impl DebugRegistration {
    /// Of an instance that debuggers are told nothing of.
    pub(crate) fn none(image: Arc<str>, instance: Instance) -> DebugRegistration {
        let state = State { told: Published::Nothing(None), has_all: false, in_full: None };
        let state = Lock::new(Rank::Debug, state);
        DebugRegistration { image, instance, most: Maximum::default(), state }
    }

    fn new(
        image: Arc<str>,
        instance: Instance,
        symfile: Result<Symfile, SymfileError>,
        wanted: Debug,
        most: Maximum,
    ) -> DebugRegistration {
        let symfile = match symfile {
            Ok(symfile) => symfile,
            Err(error) => {
                warn_of_nothing(&image, &error);
                return DebugRegistration::none(image, instance);
            }
        };
        let told = Published::Nothing(Some(symfile));
        let made = told.unread(wanted, None).map(|symfile| Made::from(symfile, wanted, instance));
        let (told, fault) = told.changed_to(wanted, made);
        warn_of(&image, fault);
        let in_full = told.in_full(&image);
        let state = Lock::new(Rank::Debug, State { told, has_all: true, in_full });
        DebugRegistration { image, instance, most, state }
    }

    /// What may be spent on the debug information in a file of `len` bytes.
    pub(crate) fn allowance(&self, len: usize) -> Allowance {
        Allowance::new(self.most, len)
    }

    /// How much debuggers are told now.
    pub(crate) fn debug(&self) -> Debug {
        self.lock().told.debug()
    }

    /// Tells debuggers this much from now on. `symfile` is asked where nothing was kept to tell from.
    ///
    /// Whatever takes its time is done without the lock, which a fork and an unload wait for: with the
    /// lock it is seen what is still to be made, or what was made is told. It is made again where another
    /// thread has changed what it was made from, and only then.
    pub(crate) fn set(
        &self,
        wanted: Debug,
        symfile: impl Fn() -> Result<SymfileTemplate, SymfileError>,
    ) -> Result<(), Error> {
        let (mut from_memory, mut made) = (None, None);
        loop {
            let mut state = self.lock();
            self.check(&state, wanted)?;
            if matches!(state.told, Published::Nothing(None)) && wanted != Debug::Off {
                let Some(symfile) = from_memory.take() else {
                    drop(state);
                    from_memory = Some(self.symfile_from(symfile())?);
                    continue;
                };
                state.told = Published::Nothing(Some(symfile));
            }
            let unread = state.told.unread(wanted, made.as_ref());
            let Some((origin, parts)) = unread.map(|symfile| (symfile.origin(), symfile.parts()))
            else {
                let fault = self.change(&mut state, wanted, made);
                drop(state);
                warn_of(&self.image, fault);
                return Ok(());
            };
            drop(state);
            made = Some(Made::new(origin, parts, wanted, self.instance));
        }
    }

    /// The symfile of this instance, made from what is in its memory.
    fn symfile_from(&self, made: Result<SymfileTemplate, SymfileError>) -> Result<Symfile, Error> {
        made.and_then(|made| made.into_symfile(self.instance)).map_err(|error| {
            let error = match error {
                SymfileError::Memory(error) => error,
                other => Error::unsupported(format!("telling debuggers of it: {other}")),
            };
            error.in_image(&self.image)
        })
    }

    /// Whether debuggers can be told this much.
    fn check(&self, state: &State, wanted: Debug) -> Result<(), Error> {
        if !state.has_all && matches!(wanted, Debug::Full | Debug::Portable) {
            let what = "its debug sections were not kept, since it was loaded with Debug::Off; \
                        Debug::Symbols tells what is in memory. Load it with Debug::Symbols to be \
                        able to tell more later, or give its file to set_debug_info";
            return Err(Error::unsupported(what).in_image(&self.image));
        }
        Ok(())
    }

    /// Tells as much as before, but from `symfile`, which was made with debug information that came
    /// later.
    pub(crate) fn replace(&self, symfile: SymfileTemplate) -> Result<(), SymfileError> {
        let told = Published::Nothing(Some(symfile.into_symfile(self.instance)?));
        loop {
            // Without the lock, as in `set`; again, if another thread tells more or less meanwhile.
            let wanted = self.debug();
            let unread = told.unread(wanted, None);
            let made = unread.map(|symfile| Made::from(symfile, wanted, self.instance));
            let mut state = self.lock();
            if state.told.debug() != wanted {
                continue;
            }
            let _ = self.change(&mut state, Debug::Off, None);
            state.told = told;
            state.has_all = true;
            let fault = self.change(&mut state, wanted, made);
            drop(state);
            warn_of(&self.image, fault);
            return Ok(());
        }
    }

    /// What comes back is for the log, which must wait for the end of the lock.
    fn change(&self, state: &mut State, wanted: Debug, made: Option<Made>) -> Option<Fault> {
        let before = std::mem::replace(&mut state.told, Published::Nothing(None));
        let (told, fault) = before.changed_to(wanted, made);
        state.told = told;
        state.in_full = state.told.in_full(&self.image);
        fault
    }

    /// The debug sections of these names; `None` if they were not kept.
    pub(crate) fn debug_sections(&self, names: &[&'static str]) -> Option<DebugSections> {
        // They are unpacked without the lock, since that may take its time.
        let (packed, budget) = {
            let state = self.lock();
            let symfile = state.told.symfile()?;
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

    /// Logs that backtraces will tell less. No lock may be held.
    pub(crate) fn warn_of(&self, fault: &DebugFault) {
        logged!(warn, "{}: backtraces will tell less than there is: {fault}", self.image);
    }

    /// The linkage name of the function that `address` lies in, by the symbol table that is kept.
    pub(crate) fn function_at(&self, address: usize) -> Option<Vec<u8>> {
        self.lock().told.symfile()?.function_at(address).and_then(|name| try_copy(name).ok())
    }

    /// Whether some thread is changing it just now.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.try_lock().is_none()
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

impl Published {
    /// What is kept, told or not.
    fn symfile(&self) -> Option<&Symfile> {
        match self {
            Published::Nothing(symfile) => symfile.as_ref(),
            Published::Wrapped(registration) => Some(registration.symfile()),
            Published::Portable { wrapped, .. } => Some(wrapped),
        }
    }

    /// Counts it, if all is told.
    fn in_full(&self, image: &Arc<str>) -> Option<InFull> {
        matches!(self.debug(), Debug::Full | Debug::Portable).then(|| InFull::new(image))
    }

    fn debug(&self) -> Debug {
        match self {
            Published::Nothing(_) => Debug::Off,
            Published::Wrapped(registration) if registration.symfile().shows_dwarf() => Debug::Full,
            Published::Wrapped(_) => Debug::Symbols,
            Published::Portable { .. } => Debug::Portable,
        }
    }

    /// The symfile, if its debug sections must be read before it can be told as wanted, and `made` is
    /// not what comes of that.
    fn unread(&self, wanted: Debug, made: Option<&Made>) -> Option<&Symfile> {
        let is_read = |symfile: &&Symfile| match wanted {
            Debug::Off | Debug::Symbols => false,
            Debug::Full => symfile.is_to_be_opened(),
            Debug::Portable => symfile.is_to_be_opened() || symfile.can_show_dwarf(),
        };
        let symfile = self.symfile().filter(is_read).filter(|_| self.debug() != wanted)?;
        let is_made = made.is_some_and(|made| symfile.is(&made.origin));
        (!is_made).then_some(symfile)
    }

    /// The same symfile, told as wanted, with what was made for that. Where there is none, nothing is
    /// told. With the reason why it is not told as wanted.
    fn changed_to(self, wanted: Debug, made: Option<Made>) -> (Published, Option<Fault>) {
        if self.debug() == wanted {
            return (self, None);
        }
        let made = made.filter(|made| self.symfile().is_some_and(|it| it.is(&made.origin)));
        let made = made.map(|made| (made.opened, made.portable, made.fault));
        let (opened, portable, mut fault) = made.unwrap_or_default();
        let with_dwarf = wanted == Debug::Full;
        let mut symfile = match (self, wanted) {
            (Published::Wrapped(mut registration), Debug::Symbols | Debug::Full)
                if opened.is_none() && (!with_dwarf || registration.symfile().can_show_dwarf()) =>
            {
                registration.change(|symfile| symfile.show_dwarf(with_dwarf));
                return (Published::Wrapped(registration), None);
            }
            (Published::Nothing(None), _) => return (Published::Nothing(None), None),
            (Published::Nothing(Some(symfile)), _) => symfile,
            (Published::Wrapped(registration), _) => registration.withdraw(),
            (Published::Portable { portable, wrapped }, _) => {
                portable.withdraw();
                wrapped
            }
        };
        if let Some(opened) = opened {
            symfile = opened;
        }
        let told = match (wanted, portable) {
            (Debug::Off, _) => Published::Nothing(Some(symfile)),
            (Debug::Portable, Some(Ok(portable))) => {
                let portable = Registration::new(portable);
                Published::Portable { portable, wrapped: symfile }
            }
            // Half of the addresses moved would be worse than what lldb does not read.
            (Debug::Portable, Some(Err(error))) if !error.is_for_want_of_means() => {
                let told = "lldb will see names and backtraces only";
                fault = Some(Fault { told, why: error.to_string() });
                symfile.show_dwarf(true);
                Published::Wrapped(Registration::new(symfile))
            }
            (_, portable) => {
                let error = portable.and_then(Result::err);
                fault = fault.or(error.map(|error| Fault::names_only(&error)));
                symfile.show_dwarf(with_dwarf);
                Published::Wrapped(Registration::new(symfile))
            }
        };
        (told, fault)
    }
}

/// What reading the debug sections of a symfile has come to. It is made without a lock.
struct Made {
    origin: Origin,
    /// The same symfile, fit to show its DWARF, where it was not.
    opened: Option<Symfile>,
    /// And in the other form, if that was wanted.
    portable: Option<Result<PortableSymfile, NotPortable>>,
    /// Why it cannot be made fit.
    fault: Option<Fault>,
}

impl Made {
    /// From a symfile that no other thread can change.
    fn from(symfile: &Symfile, wanted: Debug, instance: Instance) -> Made {
        Made::new(symfile.origin(), symfile.parts(), wanted, instance)
    }

    fn new(
        origin: Origin,
        parts: Result<Parts, SymfileError>,
        wanted: Debug,
        instance: Instance,
    ) -> Made {
        let mut made = Made { origin, opened: None, portable: None, fault: None };
        let parts = parts.map_err(|error| Fault::names_only(&error));
        made.fault = parts.and_then(|parts| made.read(parts, wanted, instance)).err();
        made
    }

    fn read(&mut self, mut parts: Parts, wanted: Debug, instance: Instance) -> Result<(), Fault> {
        let names_only = |error: SymfileError| Fault::names_only(&error);
        if parts.is_to_be_opened() {
            let policy = policy(parts.has_thread_locals());
            let opened = parts.opened(instance, policy).map_err(names_only)?;
            if let Some(fault) = opened.fault() {
                return Err(Fault::names_only(fault));
            }
            let opened = self.opened.insert(opened.into_symfile(instance).map_err(names_only)?);
            if wanted != Debug::Portable {
                return Ok(());
            }
            parts = opened.parts().map_err(names_only)?;
        }
        if wanted == Debug::Portable {
            self.portable = Some(parts.portable(instance.load_bias));
        }
        Ok(())
    }
}

/// Why an image is not told as was wished.
struct Fault {
    /// What is told instead.
    told: &'static str,
    why: String,
}

impl Fault {
    fn names_only(why: &dyn Display) -> Fault {
        Fault { told: "debuggers will see names and backtraces only", why: why.to_string() }
    }
}

/// Says why an image is not told as was wished. No lock may be held.
fn warn_of(image: &str, fault: Option<Fault>) {
    if let Some(Fault { told, why }) = fault {
        logged!(warn, "{image}: {told}: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_the_environment_are_those_documented() {
        let named = ["off", "symbols", "full", "portable", "Full", ""]
            .map(|word| environment::named(word, &WORDS));
        assert_eq!(
            named,
            [
                Some(Debug::Off),
                Some(Debug::Symbols),
                Some(Debug::Full),
                Some(Debug::Portable),
                None,
                None
            ]
        );
        assert_eq!(Debug::default(), Debug::Full);
    }
}
