//! The public Rust API.

pub(crate) mod backtrace;
pub(crate) mod closed;
mod image_buffer;
pub(crate) mod images;
pub(crate) mod library;
pub(crate) mod loader;
pub(crate) mod namespace;
pub(crate) mod pool;
pub(crate) mod startup;
pub(crate) mod symbol_name;
