//! Constructors and destructors: the life of a group from its entry in the registry to its unload.
//!
//! Unloading is `Drop`, in this order: destructors run, the registry forgets the group, then the fields
//! go in the order of their declarations. The process's exit runs the destructors of all groups. No
//! lock is held while code of images runs.
//!
//! Source: gABI "Initialization and Termination Functions".

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::events;
use crate::debug::read_lines::ReadLines;
use crate::debug::retired::{self, Identity};
use crate::debug::{DebugLevel, debugger_listens};
use crate::elf::constants::{DT_FINI_ARRAY, DT_INIT_ARRAY};
use crate::elf::read::ReadAt;
use crate::host::collectors;
use crate::host::dl;
use crate::host::exit_handlers;
use crate::host::process;
use crate::images::events::Subject;
use crate::images::group::{LoadGroup, LoadedImage, Parts};
use crate::images::libc_registrations::take_handles_of;
use crate::images::registry::{self, Entry};
use crate::images::thread_exit;
use crate::memory::quarantine::quarantine;
use crate::memory::stage::Keeper;
use crate::profile;

/// Makes a group known to the process: from just before its constructors run until after its destructors.
pub(crate) fn enter(group: &Arc<LoadGroup>) -> Result<(), Error> {
    // The linker reaches the finaliser only through this object file. A reference makes it part of the
    // link.
    std::hint::black_box(&FINI);
    registry::enter(group)
}

impl LoadGroup {
    /// Checks that constructors and destructors are code. The members are relocated, and none of their code
    /// has run.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_code = |function: usize| {
            self.members.iter().any(|loaded| loaded.mapping.is_code(function))
                || registry::image_at(function).is_some()
                || dl::has_address(function)
        };
        self.members.iter().try_for_each(|loaded| loaded.check_functions(is_code))
    }

    /// Runs all constructors, dependencies first.
    ///
    /// # Safety
    /// They may run in this process, as with `dlopen`.
    pub(crate) unsafe fn initialise(&self) {
        let start = events::start();
        let arguments = process::arguments();
        for (count, &index) in self.init_order.iter().enumerate() {
            // Counted before it runs: a constructor that unwinds is finalised like any other.
            self.initialised.store(count.saturating_add(1), Ordering::Release);
            for function in self.member(index).constructors() {
                type Constructor =
                    unsafe extern "C-unwind" fn(c_int, *const *const c_char, *const *const c_char);
                // SAFETY: a function that the image names as a constructor. What it does is covered by
                // the caller's promise.
                unsafe {
                    let function: Constructor = std::mem::transmute(function);
                    function(arguments.argc, arguments.argv, arguments.envp);
                }
            }
        }
        self.events.loaded(start, || self.subject());
    }

    /// What the log says of it.
    fn subject(&self) -> Subject {
        let root = self.member(0);
        Subject {
            name: root.name.clone(),
            addresses: root.mapping.address_range(),
            template: root.template,
            images: self.len(),
        }
    }

    /// Runs the destructors of the initialised members, in reverse. Does nothing the second time.
    pub(crate) fn finalise(&self) {
        let count = self.initialised.swap(0, Ordering::AcqRel);
        for &index in self.init_order.iter().take(count).rev() {
            for function in self.member(index).destructors() {
                // SAFETY: a function that the image names as a destructor, run once, while the
                // image is mapped. The caller of `initialise` promised that it may run.
                unsafe {
                    let function: unsafe extern "C-unwind" fn() = std::mem::transmute(function);
                    function();
                }
            }
            // Usually the image's own destructors call `__cxa_finalize`. If an image has none, or
            // its reference is bound to nothing, the C library would keep addresses of unmapped
            // functions.
            for dso_handle in take_handles_of(self, index) {
                // SAFETY: as above; that promise includes functions that the image registered.
                unsafe { exit_handlers::finalize(dso_handle) };
            }
        }
    }
}

impl Drop for LoadGroup {
    /// Destructors run, then nothing can find the group, then the fields are dropped.
    fn drop(&mut self) {
        if let Some(start) = events::start()
            && self.number().is_some()
        {
            let subject = self.subject();
            self.events.start_unload(start, subject);
        }
        thread_exit::during_unload(self, || self.finalise());
        let can_wait = self.can_wait();
        registry::vacate(self);
        // SAFETY: taken once, here, and nothing refers to the group any more.
        let parts = unsafe { ManuallyDrop::take(&mut self.parts) };
        let unused = if can_wait { parts.wait() } else { Some(parts) };
        drop(unused);
    }
}

impl Drop for Parts {
    /// Nothing leads here any more. Then the fields are dropped.
    fn drop(&mut self) {
        registry::leave(self);
    }
}

impl LoadGroup {
    /// A group in place of a former one, made of what that one left. Its constructors have not run.
    pub(crate) fn again(parts: Box<Parts>) -> Arc<LoadGroup> {
        let group = LoadGroup::of(parts, None);
        registry::enter_again(&group);
        group
    }

    /// Whether the next instance may come in its place: what outlives its life is what a new one would have.
    fn can_wait(&self) -> bool {
        self.stand.is_some()
            && self.number().is_some()
            && !self.is_pinned()
            // It may have got one for libraries that its images have opened.
            && self.shared_namespace().is_none()
            // They may come to know of it.
            && collectors::known().is_none()
            && !debugger_listens()
            && self.members.iter().all(|it| it._profile.is_none() && it.mapping.can_come_back())
    }
}

impl Parts {
    /// Waits for the next instance, without anything of the former one. Returns it if it cannot be used again.
    fn wait(mut self: Box<Parts>) -> Option<Box<Parts>> {
        // May unload other groups.
        self.shed();
        for loaded in &mut self.members {
            loaded.debug.withdraw();
            loaded.read = ReadLines::default();
            if loaded.tls.as_ref().is_some_and(|tls| tls.reset().is_err()) {
                return Some(self);
            }
        }
        let own = self.own_bytes();
        match self.stand.clone() {
            Some(stand) => stand.0.keep(self, own),
            None => Some(self),
        }
    }
}

impl Drop for LoadedImage {
    /// A debugger may write to addresses of the image later, so nothing else may be mapped there soon.
    fn drop(&mut self) {
        if debugger_listens() {
            let keeper = self.keeper();
            self.mapping.hand_over(keeper);
        }
    }
}

impl LoadedImage {
    /// What takes the memory. It keeps the entry, too, if this is the last image with this identity.
    fn keeper(&self) -> Keeper {
        if self.debug.debug() == DebugLevel::Off || retired::is_traced_by_lldb() {
            return Box::new(quarantine);
        }
        let identity = self.identity();
        let mut is_last = true;
        let visited = registry::visit(|Entry { image, .. }| {
            let is_same = image.debug.debug() != DebugLevel::Off && image.identity() == identity;
            is_last &= !is_same;
            Ok(())
        });
        match visited.is_ok() && is_last {
            true => self.debug.retire(identity),
            false => Box::new(quarantine),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::new(&self.decoded, &self.mapping, self.table.strings())
    }

    /// Checks that each word of the arrays is the address of code: nearly always the group's own, else
    /// another library's.
    fn check_functions(&self, is_code: impl Fn(usize) -> bool) -> Result<(), Error> {
        for (tag, array) in
            [(DT_INIT_ARRAY, &self.decoded.init_array), (DT_FINI_ARRAY, &self.decoded.fini_array)]
        {
            let words = array.as_ref().and_then(|range| self.mapping.read(range.clone()));
            let functions = words.unwrap_or_default().as_chunks().0.iter();
            let mut functions = functions.map(|word| usize::from_le_bytes(*word));
            if let Some(function) = functions.find(|&function| !is_code(function)) {
                let what = format!("{function:#x}, which is to be called, is in no library");
                return Err(Error::malformed(what, Place::Dynamic(tag)).in_image(&self.name));
            }
        }
        Ok(())
    }

    /// `DT_INIT`, then `DT_INIT_ARRAY`.
    fn constructors(&self) -> impl Iterator<Item = usize> + '_ {
        let init = self.decoded.init.map(|address| self.mapping.load_bias().apply(address));
        init.into_iter().chain(self.functions(&self.decoded.init_array))
    }

    /// `DT_FINI_ARRAY` in reverse, then `DT_FINI`.
    fn destructors(&self) -> impl Iterator<Item = usize> + '_ {
        let fini = self.decoded.fini.map(|address| self.mapping.load_bias().apply(address));
        self.functions(&self.decoded.fini_array).rev().chain(fini)
    }

    /// The non-null words of an array of functions, as they are in memory now.
    fn functions(
        &self,
        array: &Option<Range<Vaddr>>,
    ) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let array = array.clone().unwrap_or_default();
        let words = array.end.0.saturating_sub(array.start.0) / 8;
        (0..words)
            .filter_map(move |index| array.start.checked_add(index.checked_mul(8)?))
            .filter_map(|at| self.mapping.word(at))
            .filter(|&function| function != 0)
    }
}

/// Runs the destructors of all images, the last loaded first. Called by `ld.so` when the process exits, or
/// the library that memdl is linked into is unloaded: after `atexit` handlers, as for its own libraries.
extern "C" fn finalise_all() {
    // Destructors may load and unload: no lock is held while they run.
    if let Ok(groups) = registry::all_groups() {
        for group in groups.into_iter().rev() {
            group.finalise();
            // Code of the image may still be on some stack, or be called by libraries that end later.
            std::mem::forget(group);
        }
    }
    profile::finish();
}

#[used]
#[unsafe(link_section = ".fini_array")]
static FINI: extern "C" fn() = finalise_all;
