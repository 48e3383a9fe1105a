//! The way of a load: from options to a prepared image, and from that to an initialised load group.

pub(crate) mod debugger_commands;
pub(crate) mod instantiate;
pub(crate) mod prepare;
