//! memdl in programs that others build: through the C API, and in hosts of every make.

#[path = "../common/mod.rs"]
mod common;
#[path = "../gdb/mod.rs"]
mod gdb;

mod capi;
mod host_builds;

#[test]
#[ignore = "the program that the other tests debug: they start it"]
fn the_program_that_is_debugged() {
    gdb::host::main();
}
