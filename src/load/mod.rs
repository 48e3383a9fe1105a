//! Loading: from bytes and options to a prepared group, and from that to an initialised one.

mod admission;
pub(crate) mod collect;
pub(crate) mod debug_source;
pub(crate) mod debugger_commands;
pub(crate) mod instantiate;
mod lazy_calls;
pub(crate) mod prepare;
pub(crate) mod settings;
pub(crate) mod survey;
