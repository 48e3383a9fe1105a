//! Bytes that mean harm: mutated and crafted files, what fuzzing has kept, and all that a host does at once and
//! for long. Nothing here loads what `tests/loader` checks for its own sake.
//!
//! A binary of its own, since it needs the feature `internals`: functions that run nothing of an image.

#[path = "../common/mod.rs"]
mod common;
// What fuzzers do with their inputs, and how they change them.
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../fuzz/src/targets.rs"]
mod targets;

mod fuzz_corpus;
mod hostile_debug;
mod internals;
mod mutations;
mod soak;
