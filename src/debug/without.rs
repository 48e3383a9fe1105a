//! Takes the place of `mod.rs` in a build without the feature `debug`: debuggers see no image.
//!
//! It has what the other folders name of the real one, and does nothing. So their code is the same in both builds.
//! The level of each image is [`DebugLevel::Off`].

#![forbid(unsafe_code)]

mod kinds;
mod level;
#[path = "without_lines.rs"]
pub(crate) mod read_lines;

use std::sync::Arc;

use crate::base::addr::{LoadBias, Vaddr};
use crate::memory::quarantine::quarantine;
use crate::memory::stage::Keeper;

pub use kinds::DebugInformation;
pub use level::DebugLevel;

pub(crate) use kinds::kinds;

impl DebugLevel {
    /// The level of an image that is loaded with this one. The default is more than can be had, so only what an
    /// operator requests is worth a warning.
    pub(crate) fn effective(self) -> DebugLevel {
        let requested = DebugLevel::Off.requested();
        if requested != DebugLevel::Off {
            logged!(
                warn,
                "MEMDL_DEBUG={requested} is ignored: memdl was built without its feature `debug`"
            );
        }
        DebugLevel::Off
    }
}

/// How many instances are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instances {
    One,
    Many,
}

/// What no image has.
pub(crate) enum DebugTemplate {}

impl DebugTemplate {
    pub(crate) fn register(&self, _: Arc<str>, _: Instance) -> DebugRegistration {
        match *self {}
    }

    pub(crate) fn into_registration(self, _: Arc<str>, _: Instance) -> DebugRegistration {
        match self {}
    }
}

/// The registration of an instance that debuggers do not see.
pub(crate) struct DebugRegistration;

impl DebugRegistration {
    pub(crate) fn none(_: Arc<str>, _: Instance) -> DebugRegistration {
        DebugRegistration
    }

    pub(crate) fn debug(&self) -> DebugLevel {
        DebugLevel::Off
    }

    pub(crate) fn note_ifunc(&self, _resolver: usize, _function: usize) {}

    pub(crate) fn withdraw(&mut self) {}

    pub(crate) fn retire(&self, _: retired::Identity) -> Keeper {
        Box::new(quarantine)
    }
}

/// What the registration of an instance would need.
pub(crate) struct Instance {
    pub load_bias: LoadBias,
    pub thread_locals: ThreadLocals,
    pub ifuncs: Ifuncs,
}

pub(crate) enum ThreadLocals {
    AtDistance(i64),
    BehindPointerAt(i64),
    Elsewhere,
}

pub(crate) struct Ifuncs;

impl Ifuncs {
    pub(crate) fn new(_: Vec<(Vaddr, Vaddr)>) -> Ifuncs {
        Ifuncs
    }
}

/// Without entries there is no function that a debugger has its breakpoint on.
pub(crate) fn debugger_listens() -> bool {
    false
}

pub(crate) mod retired {
    use crate::elf::decoded::Decoded;
    use crate::elf::read::ReadAt;

    #[derive(PartialEq, Eq)]
    pub(crate) struct Identity;

    impl Identity {
        pub(crate) fn new(_: &Decoded, _: &impl ReadAt, _strings: &[u8]) -> Identity {
            Identity
        }
    }

    pub(crate) fn replaced_by(_: impl FnOnce() -> Identity) {}

    pub(crate) fn is_traced_by_lldb() -> bool {
        false
    }
}
