//! DWARF as far as it must be rewritten for debuggers.
//!
//! [`addresses`] finds the run-time addresses and adds the load bias to them. [`tls_locations`] rewrites the
//! locations of thread-local variables. [`skeleton`] knows split units, [`line_program`] converts line tables.
//! What all of them may spend is in [`budget`].
//!
//! All of it takes bytes and plain values. It knows no ELF file, no image in memory, no debugger's presence.

#![forbid(unsafe_code)]

pub(super) mod addresses;
pub(super) mod budget;
pub(super) mod leb128;
pub(super) mod line_program;
pub(super) mod skeleton;
pub(super) mod tls_locations;
