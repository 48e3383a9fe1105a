//! A scenario: a session with gdb, written as it reads, that is run twice, on the host that loads
//! a library by memdl and on the same host that loads it by `dlopen`. gdb must say the same, but
//! for [`super::compare`]; and it must say what the scenario expects, since two sessions that are
//! equally broken are the same too.
//!
//! ```text
//! (host) call a entry 5            a step of the host; without any: it loads `a`, calls `entry(5)`
//! (gdb) break leaf                 a command; `{leaf}` is where the source says `MARK leaf`
//! Breakpoint 1                     a text in the reply to it, after those before it
//! (not) warning                    a text that is not in the reply
//! (dlopen) from LIBRARY            a text in the reply with this loader: the two are not
//! (memdl) from nowhere             compared then, and it is an error if they do not differ
//! (full) a file inside             as (memdl); not in the portable form, where they are compared
//! (dlopen<16) at leaf@plt          with a gdb before 16; (memdl>=16) and (<16) are understood too
//! ```

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use super::host::Loader;
use super::libraries::{Copy, library, load_and_call, marks};
use super::versions;
use super::{Gdb, LIMIT, Replies, Reply, Running, bare_host, compare, is_portable, scratch};

/// How gdb comes by the host.
#[derive(Clone, Copy)]
pub enum Start {
    /// gdb starts it, by the session's `run`.
    Run,
    /// gdb attaches; the host says `await-debugger` where it waits for that.
    Attach,
    /// gdbserver starts it, at the other end of a pipe.
    Server,
    /// It is dead; the kernel has left its core.
    KernelCore,
}

struct Command {
    text: String,
    expected: Vec<Expected>,
}

enum Expected {
    Has(String),
    HasNot(String),
    /// With one of the loaders only.
    With(Loader, String),
}

/// The library of a source, by compiler and flags: `gcc_o2_dwarf5` and the like.
fn build(source: &str, words: &str) -> PathBuf {
    let mut words = words.split('_');
    let plus = source.ends_with(".cc");
    let compiler = match words.next().unwrap() {
        "gcc" if plus => "g++",
        "clang" if plus => "clang++",
        compiler => compiler,
    };
    // Without the second, clang leaves out of one library what it takes to be in another.
    let standard: &[&str] = match compiler {
        "g++" => &["-std=c++17"],
        "clang++" => &["-std=c++17", "-fstandalone-debug"],
        _ => &[],
    };
    let words = words
        .flat_map(|word| match (compiler, word) {
            ("rustc", "o0") => &["-g", "-Copt-level=0"][..],
            ("rustc", "o2") => &["-g", "-Copt-level=2"],
            ("rustc", "dwarf5") => &["-Cdwarf-version=5"],
            ("rustc", "dwarf4") => &["-Cdwarf-version=4"],
            ("go", "o0") => &["-gcflags=-N -l"],
            (_, "o0") => &["-O0"],
            (_, "o2") => &["-O2"],
            (_, "dwarf2") => &["-gdwarf-2"],
            (_, "dwarf3") => &["-gdwarf-3"],
            (_, "dwarf4") => &["-gdwarf-4"],
            (_, "dwarf5") => &["-gdwarf-5"],
            // Macros too.
            (_, "g3") => &["-g3"],
            // Type units.
            (_, "types") => &["-g", "-fdebug-types-section"],
            // Functions of the library are called without a way through its linkage table.
            (_, "symbolic") => &["-Wl,-Bsymbolic-functions"],
            // No debug information.
            (_, "bare") => &[],
            _ => panic!("no such build: {word}"),
        })
        .copied();
    let flags: Vec<&str> = standard.iter().copied().chain(words).collect();
    library(compiler, source, &flags)
}

/// Runs a scenario on the library that is built from `source` as `words` say.
pub fn run(source: &str, words: &str, start: Start, text: &str) {
    let library = &*build(source, words);
    let core = Copy(scratch("core"));
    let mut places = marks(&format!("testlibs/debug/{source}"));
    places.extend(marks("tests/gdb/host.rs"));
    places.push(("LIBRARY".to_owned(), library.display().to_string()));
    places.push(("CORE".to_owned(), core.path().to_owned()));
    let text = places
        .iter()
        .fold(text.to_owned(), |text, (name, place)| text.replace(&format!("{{{name}}}"), place));
    let (mut steps, commands) = parse(&text);
    if steps.is_empty() {
        steps = load_and_call(library);
    }
    assert!(commands.iter().any(|command| !command.expected.is_empty()), "nothing is expected");

    let of_memory = session(Loader::Memdl, start, &steps, &commands);
    let of_file = session(Loader::Dlopen, start, &steps, &commands);
    let differs: Vec<usize> = (0..commands.len()).filter(|&at| commands[at].differs()).collect();
    compare::assert_same(&of_memory, &of_file, library, &differs);
    for (loader, session) in [(Loader::Memdl, &of_memory), (Loader::Dlopen, &of_file)] {
        for (at, command) in commands.iter().enumerate() {
            command.assert_reply(loader, &session.at(at));
        }
    }
}

fn parse(text: &str) -> (Vec<String>, Vec<Command>) {
    let (mut steps, mut commands) = (vec![], Vec::<Command>::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut expect = |expected| {
            let command = commands.last_mut().unwrap_or_else(|| panic!("no command before {line}"));
            command.expected.push(expected);
        };
        let (word, text) = line.split_once(' ').unwrap_or_default();
        let (word, is_of_version) = of_version(word);
        let text = text.to_owned();
        match word {
            _ if !is_of_version => {}
            "(host" => steps.push(text),
            "(not" => expect(Expected::HasNot(text)),
            "(memdl" => expect(Expected::With(Loader::Memdl, text)),
            "(dlopen" => expect(Expected::With(Loader::Dlopen, text)),
            "(full" if is_portable() => {}
            "(full" => expect(Expected::With(Loader::Memdl, text)),
            "(gdb" => commands.push(Command { text, expected: vec![] }),
            "(" => expect(Expected::Has(text)),
            _ => expect(Expected::Has(line.to_owned())),
        }
    }
    (steps, commands)
}

/// `(dlopen<16)` is `(dlopen`, and whether this is a gdb before 16.
fn of_version(word: &str) -> (&str, bool) {
    let Some(inside) = word.strip_suffix(')') else {
        return ("", true);
    };
    let number = |text: &str| text.parse::<u32>().ok();
    if let Some((word, Some(version))) = inside.split_once("<").map(|(w, v)| (w, number(v))) {
        (word, versions::major() < version)
    } else if let Some((word, Some(version))) = inside.split_once(">=").map(|(w, v)| (w, number(v)))
    {
        (word, versions::major() >= version)
    } else {
        (inside, true)
    }
}

impl Command {
    fn differs(&self) -> bool {
        self.expected.iter().any(|expected| matches!(expected, Expected::With(..)))
    }

    fn assert_reply(&self, loader: Loader, reply: &Reply<'_>) {
        let texts = self.expected.iter().filter_map(|expected| match expected {
            Expected::Has(text) => Some(&**text),
            Expected::With(with, text) if *with == loader => Some(text),
            _ => None,
        });
        reply.has(&texts.collect::<Vec<_>>());
        for expected in &self.expected {
            if let Expected::HasNot(text) = expected {
                reply.has_not(text);
            }
        }
    }
}

fn session(loader: Loader, start: Start, steps: &[String], commands: &[Command]) -> Replies {
    let commands: Vec<&str> = commands.iter().map(|command| &*command.text).collect();
    match start {
        Start::Run => Gdb::of_host(steps).loader(loader).run_unchecked(&commands),
        Start::Server => Gdb::of_served_host(steps).loader(loader).run_unchecked(&commands),
        Start::Attach => {
            let mut host = Running::start(bare_host(steps, loader));
            host.await_output("awaits a debugger", 1);
            Gdb::attached(&host).run_unchecked(&commands)
        }
        Start::KernelCore => {
            let folder = Folder(scratch("cores"));
            Gdb::of_core(&folder.core_of(bare_host(steps, loader))).run_unchecked(&commands)
        }
    }
}

/// Removed when dropped, with what is in it.
struct Folder(PathBuf);

impl Folder {
    /// The core that the kernel leaves of a host that dies.
    fn core_of(&self, mut host: std::process::Command) -> PathBuf {
        fs::create_dir(&self.0).unwrap();
        host.current_dir(&self.0);
        let unlimited = || {
            let limit =
                libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a plain system call, with a local.
            match unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: a system call is all that the child makes of it.
        unsafe { host.pre_exec(unlimited) };
        let run = Running::start(host).finish(LIMIT);
        let core = fs::read_dir(&self.0).unwrap().next().unwrap_or_else(|| {
            let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
            panic!(
                "no core; kernel.core_pattern is {pattern:?}, and has to name a file in the \
                 working folder: `sysctl kernel.core_pattern=core`. The host said:\n{}",
                run.transcript
            )
        });
        core.unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
