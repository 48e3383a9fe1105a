//! memdl in programs in C and C++, through its C API.

#[path = "../common/mod.rs"]
mod common;

mod capi;
mod installed;
mod log;
mod roots;
mod sanitizers;
mod snippets;
mod unwinders;
