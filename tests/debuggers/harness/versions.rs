//! What gdb says differently from version to version, of the same thing: here it becomes what 13.1
//! says, so that tests need not know which gdb is tested.
//!
//! Only words. Where versions *do* something else, that is a test's own business. Seen with gdb 10.1,
//! 13.1, 16.3, 17.2 and 18.1; `tests/debuggers.sh` fetches those.

use std::process::Command;
use std::sync::OnceLock;

use super::{Running, gdb};

/// The first number of the version of the gdb that is tested.
pub fn major() -> u32 {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        let mut command = Command::new(gdb());
        command.arg("--version");
        let said = Running::start(command).finish().transcript;
        // GNU gdb (Debian 13.1-3) 13.1
        let version = said.lines().next().and_then(|line| line.split_whitespace().last());
        let first = version.and_then(|version| version.split('.').next());
        first.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("of gdb: {said}"))
    })
}

/// A line of a reply, with addresses already made equal, in the words of gdb 13.1.
pub fn usual(line: &str) -> String {
    // Versions before 11 see the machine's libraries through copies: see tests/debuggers.sh.
    let line = line.replace(&format!("{}.machine/", gdb()), "/");
    // How a file is called that is in memory only: before 11, and since 16 at the latest.
    let line = line
        .replace("<in-memory>", IN_MEMORY)
        .replace("<in-memory@0xADDRESS-0xADDRESS>", IN_MEMORY);
    let line = line.replace(
        "No breakpoints, watchpoints, tracepoints, or catchpoints.",
        "No breakpoints or watchpoints.",
    );
    let line = line.replace("/* offset    |  size */", "/* offset      |    size */");
    without_unused(&line)
}

/// Without what is in the unused part of a `std::string`, that nobody has written: a gdb without
/// Python shows the string as it is in memory.
fn without_unused(line: &str) -> String {
    let mut parts = line.split("{_M_local_buf = ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, capacity) = part.split_once("_M_allocated_capacity = ").unwrap_or_default();
        out.push_str("{...}");
        out.push_str(capacity.split_once('}').map_or("", |(_, rest)| rest));
    }
    out
}

/// How gdb 13.1 calls a library without a file.
pub const IN_MEMORY: &str = "<in-memory@0xADDRESS>";
