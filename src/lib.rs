//! Run a shared library straight from bytes in memory, and debug it as if it had come from disk.
//!
//! TODO

#![deny(unsafe_code)]

mod addr;
mod arch;
mod buffer;
#[cfg(feature = "capi")]
mod capi;
mod debug;
mod dynamic;
mod eh_frame;
mod error;
mod group;
mod host;
mod image;
mod instantiate;
mod library;
mod limits;
mod loader;
mod map;
mod plan;
mod prepare;
mod process;
mod relocate;
mod reserve;
mod scope;
mod services;
mod symbol;
mod tls;
mod unique;
mod unwind;

pub use addr::{FileOffset, LoadBias, Vaddr};
pub use buffer::ImageBuffer;
pub use debug::Debug;
pub use error::{Error, MissingLibrary, MissingSymbol, MissingVersion, Place};
pub use library::{ExportedSymbol, Library, Symbol, SymbolKind, Template};
pub use limits::Limits;
pub use loader::{Binding, Loader};
pub use scope::{Scope, SymbolRequest};
