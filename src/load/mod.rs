//! Loading: from bytes and options to a prepared group, and from that to an initialised one.

mod admission;
pub(crate) mod collect;
#[cfg_attr(not(feature = "debug"), path = "without_debug_source.rs")]
pub(crate) mod debug_source;
#[cfg_attr(not(feature = "debug"), path = "without_debugger_commands.rs")]
pub(crate) mod debugger_commands;
pub(crate) mod instantiate;
mod lazy_calls;
pub(crate) mod prepare;
pub(crate) mod settings;
pub(crate) mod survey;
