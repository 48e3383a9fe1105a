//! What perf and valgrind make of images. Both are run for real, on this executable.

#[path = "../common/mod.rs"]
mod common;

mod profile;
mod valgrind;
