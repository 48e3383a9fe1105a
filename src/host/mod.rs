//! The process that memdl is linked into: its libraries, their symbols, its threads.
//!
//! * `ld.so`: [`dl`] (handles), [`phdr`] (the list of libraries), [`library`] (one of them), [`startup_set`],
//!   [`opened`] (the others), [`known`] (those that are held), [`search`] and [`ld_cache`] (finding files), [`open`]
//!   (opening), [`openings`] (seeing others' openings), [`global_scope`], [`got`] (changing references),
//!   [`link_map`], [`unwinders`] (those that have one).
//! * The process: [`process`], [`threads`], [`thread_keys`], [`static_tls`], [`exit_handlers`], [`collectors`] (of
//!   memory); [`libpthread`] (private symbols of old versions).

pub(crate) mod collectors;
pub(crate) mod dl;
pub(crate) mod exit_handlers;
pub(crate) mod global_scope;
pub(crate) mod got;
mod known;
mod ld_cache;
mod libpthread;
pub(crate) mod library;
pub(crate) mod link_map;
pub(crate) mod open;
pub(crate) mod opened;
pub(crate) mod openings;
pub(crate) mod phdr;
pub(crate) mod process;
pub(crate) mod search;
pub(crate) mod startup_set;
pub(crate) mod static_tls;
pub(crate) mod thread_keys;
pub(crate) mod threads;
pub(crate) mod unwinders;
