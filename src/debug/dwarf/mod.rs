//! Reads and rewrites DWARF for debuggers.
//!
//! [`addresses`] finds the run-time addresses and adds the load bias to them. [`tls_locations`] rewrites the
//! locations of thread-local variables. [`skeleton`] knows split units, [`line_program`] converts line tables.
//! [`budget`] limits the work and memory of all of them.
//!
//! Everything here takes bytes and plain values, and knows no ELF file, image in memory or debugger.

#![forbid(unsafe_code)]

pub(super) mod addresses;
pub(super) mod budget;
pub(super) mod leb128;
pub(super) mod line_program;
pub(super) mod skeleton;
pub(super) mod tls_locations;
