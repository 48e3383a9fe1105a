//! All orders in which the steps of a few threads can come, and all values that a load may then give,
//! by loom: for `src/base/left_right.rs`, which unwinders read in signal handlers.
#![cfg(all(loom, test))]

#[path = "../../../src/base/left_right.rs"]
mod left_right;
mod shim;

mod models;
