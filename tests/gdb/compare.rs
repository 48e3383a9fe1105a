//! One session with a library loaded by memdl beside the same session with that library loaded by
//! `dlopen`, from its file: the host is the same, and so must be what gdb says.
//!
//! What differs in any two runs, addresses and the numbers of processes and threads, is gone from
//! [`Replies`]. What a library is called that has no file is made equal here. All else that may
//! differ is [`ALLOWED`], and what a scenario says with its own reason.

use std::path::Path;

use super::host::LOADER;
use super::libraries::load_and_call;
use super::versions::IN_MEMORY;
use super::{Gdb, Replies};

/// A difference that is allowed in any session: why, and a line without what differs. `None`
/// leaves the line out.
type Allowed = (&'static str, fn(&str) -> Option<String>);

const ALLOWED: &[Allowed] = &[
    (
        "Of a frame without lines gdb tells the file, which it takes from the dynamic linker's \
         list of files, and not from its own list of symbol files.",
        |line| Some(line.replace(" from LIBRARY", "")),
    ),
    (
        "gdb makes up names for the entries of the procedure linkage table from relocations. A \
         symfile has none, and so no breakpoint is set in such an entry by mistake.",
        |line| match line.rsplit_once(" <") {
            _ if line.ends_with("@plt") => None,
            Some((before, name)) if name.ends_with("@plt>") => Some(before.to_owned()),
            _ => Some(line.to_owned()),
        },
    ),
];

/// The lines of a session that must be the same with either loader.
pub fn comparable(replies: &Replies, library: &Path) -> Vec<String> {
    let file = library.to_str().unwrap();
    let mut lines = vec![];
    for (command, reply) in replies.list() {
        lines.push(format!("(gdb) {command}"));
        lines.extend(comparable_reply(reply, file));
    }
    lines
}

fn comparable_reply(reply: &str, file: &str) -> Vec<String> {
    let allowed = |line: &str| {
        let line = line.replace(IN_MEMORY, "LIBRARY").replace(file, "LIBRARY");
        ALLOWED.iter().try_fold(line, |line, (_, rule)| rule(&line))
    };
    reply.lines().filter_map(allowed).collect()
}

/// Fails unless gdb said the same in both sessions.
pub fn assert_same(of_memory: &Replies, of_file: &Replies, library: &Path) {
    let (ours, theirs) = (comparable(of_memory, library), comparable(of_file, library));
    let end = "(the end)".to_owned();
    for at in 0..ours.len().max(theirs.len()) {
        let (ours, theirs) = (ours.get(at).unwrap_or(&end), theirs.get(at).unwrap_or(&end));
        assert!(
            ours == theirs,
            "line {at} is\n{ours}\nand with dlopen\n{theirs}\nin\n{of_memory}\nWith dlopen:\n{of_file}"
        );
    }
}

/// Runs the script on the library loaded by memdl, and fails unless gdb says the same when the
/// library was loaded by `dlopen`. Gives the session with memdl.
pub fn as_with_dlopen(library: &Path, commands: &[&str]) -> Replies {
    let of_memory = Gdb::of_host(&load_and_call(library)).run(commands);
    let of_file = Gdb::of_host(&load_and_call(library)).env(LOADER, "dlopen").run(commands);
    assert_same(&of_memory, &of_file, library);
    of_memory
}
