//! What perf, eu-stack and valgrind make of images. All are run for real, on this executable.

#[path = "../common/mod.rs"]
mod common;

mod profile;
mod unwinding;
mod valgrind;
