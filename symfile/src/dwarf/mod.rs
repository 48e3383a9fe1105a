//! Reads and rewrites DWARF for debuggers.
//!
//! [`addresses`] finds the run-time addresses and adds the load bias to them. [`tls_locations`] rewrites the
//! locations of thread-local variables. [`skeleton`] knows split units, [`line_program`] converts line tables.
//! [`budget`] limits the work and memory of all of them.
//!
//! Everything here takes bytes and plain values, and knows no ELF file, image in memory or debugger.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod budget;
pub mod leb128;
pub mod line_program;
pub mod skeleton;
pub mod tls_locations;
