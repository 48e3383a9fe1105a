//! What gdb says differently from version to version, of the same thing: here it becomes what 13.1
//! says, so that tests need not know which gdb is tested.
//!
//! Only words. Where versions *do* something else, that is a test's own business. Seen with gdb 10.1,
//! 13.1, 16.3, 17.2 and 18.1; `tests/debuggers.sh` fetches those.

use super::gdb;

/// A line of a reply, with addresses already made equal, in the words of gdb 13.1.
pub fn usual(line: &str) -> String {
    // Versions before 11 see the machine's libraries through copies: see tests/debuggers.sh.
    let line = line.replace(&format!("{}.machine/", gdb()), "/");
    // How a file is called that is in memory only: before 11, and since 16 at the latest.
    let line = line
        .replace("<in-memory>", IN_MEMORY)
        .replace("<in-memory@0xADDRESS-0xADDRESS>", IN_MEMORY);
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
