//! What a level stands for, and what an operator can override.
//!
//! With `level.rs` this is the one place of `debug/` that reads the words of environment variables and asks whether a
//! debugger is attached. The symfile builder gets the answers as a [`Policy`]. It never makes a symfile.

#![forbid(unsafe_code)]

use super::gdb_jit::debugger_listens;
use super::level::DebugLevel;
use crate::base::environment;
use crate::base::limits::Limits;
use memdl_symfile::Limits as Maximum;
use memdl_symfile::builder::source::Policy;
use memdl_symfile::builder::template::Dwarf;

/// The environment variable that says of which images debuggers see the build-id, see
/// [`publishes_build_id`].
const BUILD_ID_ENVIRONMENT: &str = "MEMDL_DEBUG_BUILD_ID";
const BUILD_ID_WORDS: [(&str, bool); 2] = [("always", true), ("safe", false)];

impl DebugLevel {
    /// The level of an image that is loaded with this one.
    pub(crate) fn effective(self) -> DebugLevel {
        self.requested()
    }

    /// Whether debug sections are made ready to be shown, for which some must be unpacked.
    pub(crate) fn dwarf(self) -> Dwarf {
        match self {
            DebugLevel::Off | DebugLevel::Symbols => Dwarf::Kept,
            DebugLevel::Full | DebugLevel::Portable => Dwarf::Opened,
        }
    }
}

/// How the process and its operator want a symfile to be made, at this moment.
pub(crate) fn policy(has_thread_locals: bool) -> Policy {
    Policy {
        publishes_build_id: publishes_build_id(has_thread_locals),
        debugger_listens: debugger_listens(),
    }
}

/// Whether debuggers see the build-id of an image that has no debug information, and so may find its debug
/// file by themselves. They would take the thread-local variables in that file for the executable's.
/// Nothing makes them read the file without these variables, so the operator chooses.
pub(crate) fn publishes_build_id(has_thread_locals: bool) -> bool {
    !has_thread_locals || environment::overridden(BUILD_ID_ENVIRONMENT, &BUILD_ID_WORDS, true)
}

/// What may be spent on debug information.
pub(crate) fn maximum(limits: &Limits) -> Maximum {
    let mut maximum = Maximum::default();
    maximum.unpacked_debug_info = limits.unpacked_debug_info;
    maximum.debug_info_steps = limits.debug_info_steps;
    maximum
}
