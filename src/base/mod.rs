//! Code that every other folder may use: addresses, errors, limits, events, environment variables, fallible
//! allocation, memory being filled, escaped text, readable names, ranked locks. It imports no other folder,
//! and reads no image.

#[macro_use]
pub(crate) mod escape;
pub(crate) mod cells;
#[cfg_attr(not(feature = "symbolize"), path = "without_demangle.rs")]
pub(crate) mod demangle;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod left_right;
pub(crate) mod limits;
pub(crate) mod mappings;
pub(crate) mod members;
pub(crate) mod promise;
#[cfg(feature = "debug")]
pub(crate) mod shared;
pub(crate) mod stack;
pub(crate) mod sync;
pub(crate) mod tls_index;
pub(crate) mod words;

/// Shared with the builder of symfiles: addresses, build-ids, fallible allocation.
pub(crate) use memdl_symfile::base::{addr, build_id, fallible, filler, room};
