//! What the process has: the libraries that `ld.so` loaded, their symbols, its threads.

pub(crate) mod exit_handlers;
pub(crate) mod ld_so;
pub(crate) mod link_map;
pub(crate) mod process;
pub(crate) mod threads;
