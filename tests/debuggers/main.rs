//! What debuggers show of libraries that are in memory only. gdb and lldb are started for real; the
//! harness gives every run a time limit.
//!
//! Most tests are scenarios: text files in the folders here, which README.md explains. What needs more than
//! text is in the other files. The program that is debugged is this one, started again.

#[path = "../common/mod.rs"]
mod common;

/// A list of tests by name. A test that no list names is dead code, which clippy refuses.
macro_rules! tests {
    ($visible:vis fn $list:ident: $($name:ident)*) => {
        $visible fn $list() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::harness::trial(stringify!($name), module_path!(), $name)),*]
        }
    };
}

mod debug;
mod debug_info;
mod harness;
mod host_builds;
mod ide;
mod lldb;
mod tutorial;

use std::process::ExitCode;

use libtest_mimic::Trial;

fn main() -> ExitCode {
    if harness::host::is_asked_for() {
        let host = std::thread::spawn(the_program_that_is_debugged);
        return if host.join().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let folder = common::repository("tests/debuggers");
    let tests: Vec<Trial> = [
        harness::tests(),
        harness::scenario::tests(&folder),
        debug::tests(),
        debug_info::tests(),
        host_builds::tests(),
        ide::tests(),
        lldb::tests(),
        tutorial::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (arguments, tests) = harness::arguments::chosen(std::env::args(), tests);
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// The other end of every session: the frame that backtraces end with.
#[inline(never)]
fn the_program_that_is_debugged() {
    harness::host::main();
}
