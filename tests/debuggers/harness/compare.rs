//! One session with a library loaded by memdl beside the same session with that library loaded by
//! `dlopen`, from its file: the host is the same, and so must be what gdb says.
//!
//! What differs in any two runs, addresses and the numbers of processes and threads, is gone from
//! [`Replies`]. What a library is called that has no file is made equal here. All else that may
//! differ is [`ALLOWED`], and what a scenario says with its own reason.

use std::path::Path;

use super::host::Loader;
use super::libraries::load_and_call;
use super::versions::IN_MEMORY;
use super::{Gdb, Replies, is_portable};

/// How gdb calls the file in it that has the debug information.
const INNER: &str = ".gnu_debugdata for ";

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
        "gdb tells that breakpoints in an unloaded library are pending again, if it was a file.",
        |line| {
            const UNLOADED: &str = "warning: Temporarily disabling breakpoints for unloaded shared";
            (!line.starts_with(UNLOADED)).then(|| line.to_owned())
        },
    ),
    (
        "gdb shows what a list of locations is relative to as DWARF states it: in the portable \
         form that is a run-time address.",
        |line| match line.split_once("Base address ") {
            Some((before, rest)) => {
                let (_, rest) = rest.split_once(' ').unwrap_or_default();
                Some(format!("{before}Base address {rest}"))
            }
            None => Some(line.to_owned()),
        },
    ),
    (
        "gdb warns of a `.debug_names` that it has not made itself: gdb 13 takes it for an index of all \
         units, which rustc's is not, and finds no names by it; later ones ignore it. The portable \
         form has no indexes.",
        |line| {
            let incomplete = line
                .starts_with("warning: Section .debug_aranges in LIBRARY entry at")
                && line.ends_with(" does not exists, ignoring .debug_aranges.");
            let foreign = line == "warning: .debug_names not created by gdb; ignoring";
            let is_left_out = is_portable() && (incomplete || foreign);
            (!is_left_out).then(|| line.to_owned())
        },
    ),
    ("gdb says which files it reads symbols from.", |line| {
        (!line.starts_with("Reading symbols")).then(|| line.to_owned())
    }),
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

/// The lines of a reply that must be the same with either loader.
fn comparable(reply: &str, file: &str) -> Vec<String> {
    let allowed = |line: &str| {
        let line = line.replace(INNER, "").replace(IN_MEMORY, "LIBRARY").replace(file, "LIBRARY");
        ALLOWED.iter().try_fold(line, |line, (_, rule)| rule(&line))
    };
    reply.lines().filter_map(allowed).collect()
}

/// Fails unless gdb said the same in both sessions, and something else in reply to each of the
/// commands that `differ`, by their places in the sessions.
pub fn assert_same(of_memory: &Replies, of_file: &Replies, library: &Path, differ: &[usize]) {
    let file = library.to_str().unwrap();
    let both = of_memory.list().iter().zip(of_file.list());
    for (at, ((command, ours), (_, theirs))) in both.enumerate() {
        let (ours, theirs) = (comparable(ours, file), comparable(theirs, file));
        if differ.contains(&at) {
            assert!(ours != theirs, "the replies to `{command}` do not differ:\n{of_memory}");
            continue;
        }
        let end = "(the end)".to_owned();
        for line in 0..ours.len().max(theirs.len()) {
            let (ours, theirs) = (ours.get(line).unwrap_or(&end), theirs.get(line).unwrap_or(&end));
            assert!(
                ours == theirs,
                "The reply to `{command}` is\n{ours}\nand with dlopen\n{theirs}\nin\n{of_memory}\n\
                 With dlopen:\n{of_file}"
            );
        }
    }
}

/// Runs the script on the library loaded by memdl, in each form that has all of it, and fails
/// unless gdb says the same as when the library was loaded by `dlopen`. Gives the session with
/// [`memdl::DebugLevel::Full`].
pub fn as_with_dlopen(library: &Path, commands: &[&str]) -> Replies {
    let of_file = Gdb::of_host(&load_and_call(library)).loader(Loader::Dlopen).run(commands);
    let [full, _wrapped] = ["full", "wrapped"].map(|form| {
        let gdb = Gdb::of_host(&load_and_call(library)).form(form);
        let of_memory = gdb.run(commands);
        assert_same(&of_memory, &of_file, library, &[]);
        of_memory
    });
    full
}
