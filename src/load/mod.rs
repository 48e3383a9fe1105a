//!

pub(crate) mod debugger_commands;
pub(crate) mod instantiate;
pub(crate) mod prepare;
