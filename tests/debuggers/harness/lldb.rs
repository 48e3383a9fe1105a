//! Running lldb, under the same rules as gdb, and what it says in the same [`Replies`].
//!
//! One session is compared with the same session on a host that loaded the library by `dlopen`, as
//! in [`super::compare`]. What lldb says to both must be the same but for [`comparable`].
//!
//! There are two lldbs, 14 and 19: `tests/debuggers.sh` unpacks them beside each other.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{self, Loader};
use super::libraries::{Copy, steps};
use super::{MARK, Replies, Running, choose_form, choose_steps, host_program, normal, scratch};

/// Names the lldb that is tested, if not those that are unpacked.
const LLDB: &str = "MEMDL_TEST_LLDB";

/// Set before all else: nothing is read that is a user's, nothing asks, nothing is coloured.
const SETTINGS: &[&str] = &[
    "settings set auto-confirm true",
    "settings set use-color false",
    "settings set target.disable-aslr false",
    "settings set target.input-path /dev/null",
    // Of this machine's Rust, for this machine's Python: lldb 14 has another one.
    "settings set target.load-script-from-symbol-file false",
    "settings set symbols.enable-external-lookup false",
];

/// A version of lldb.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V14,
    V19,
}

impl Version {
    pub fn number(self) -> u32 {
        match self {
            Version::V14 => 14,
            Version::V19 => 19,
        }
    }

    /// As tests are called.
    pub fn name(self) -> String {
        format!("lldb_{}", self.number())
    }

    /// The command that runs it.
    fn command(self) -> PathBuf {
        if let Some(lldb) = env::var_os(LLDB) {
            return lldb.into();
        }
        let name = format!("lldb-{}", self.number());
        let command = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("debuggers").join(name);
        assert!(
            command.exists(),
            "no {}; `sh tests/setup.sh` installs what tests need",
            command.display()
        );
        command
    }
}

/// lldb, and what it debugs.
pub struct Lldb {
    command: Command,
    /// The words after all options.
    program: Vec<String>,
}

impl Lldb {
    fn new(version: Version, program: Vec<String>) -> Lldb {
        let mut command = Command::new(version.command());
        command
            .args(["--no-lldbinit", "--batch"])
            .args(SETTINGS.iter().flat_map(|setting| ["-O", setting]))
            .env(host::LOADER, Loader::Memdl.name())
            .env_remove("DEBUGINFOD_URLS")
            .env("RUST_BACKTRACE", "0")
            // cargo's, for this binary; lldb would look for its own libraries there.
            .env_remove("LD_LIBRARY_PATH")
            .env("LC_ALL", "C");
        choose_form(&mut command);
        Lldb { command, program }
    }

    /// For the host, which is to do these steps.
    pub fn of_host(version: Version, steps: &[String]) -> Lldb {
        let mut lldb = Lldb::new(version, vec![host_program()]);
        choose_steps(&mut lldb.command, steps);
        lldb
    }

    /// For a program that takes everything from its command line.
    pub fn of_program(version: Version, program: &Path, arguments: &[String]) -> Lldb {
        let program = program.to_str().unwrap().to_owned();
        Lldb::new(version, [&[program], arguments].concat())
    }

    /// Attached to what runs.
    pub fn attached(version: Version, to: &Running) -> Lldb {
        let mut lldb = Lldb::new(version, vec![]);
        lldb.command.args(["-p", &to.id().to_string()]);
        lldb
    }

    /// For a core file of the host.
    pub fn of_core(version: Version, core: &Path) -> Lldb {
        let mut lldb = Lldb::new(version, vec![host_program()]);
        lldb.command.arg("-c").arg(core);
        lldb
    }

    pub fn loader(self, loader: Loader) -> Lldb {
        self.env(host::LOADER, loader.name())
    }

    pub fn env(mut self, name: &str, value: &str) -> Lldb {
        self.command.env(name, value);
        self
    }

    /// Runs the commands; fails if lldb does not end by itself. The last reply is to `host`: what
    /// the host printed, which comes on a way of its own and would be anywhere.
    pub fn run(mut self, commands: &[&str]) -> Replies {
        let (script, output) = (Copy(scratch("lldb")), Copy(scratch("host")));
        fs::write(&script.0, commands.join("\n") + "\n").unwrap();
        // An error is a reply like others. Left to itself, lldb ends at the first.
        let run_script = format!("command source -e false -c false {}", script.path());
        let to_output = format!("settings set target.output-path {}", output.path());
        self.command.args(["-O", &to_output, "-o", &run_script, "--"]).args(self.program);
        let run = Running::start(self.command).finish();
        assert!(!run.was_ended, "lldb hangs: ended after {:?}:\n{}", run.took, run.transcript);
        let said = fs::read_to_string(&output.0).unwrap_or_default();

        let (_, session) = run.transcript.split_once(&run_script).unwrap_or_default();
        let marked =
            format!("{}\n{MARK}host\n{said}", session.replace("\n(lldb) ", &format!("\n{MARK}")));
        let replies = Replies::parse_with(&marked, |reply| plain(&normal(reply)));
        assert_eq!(
            replies.list().len(),
            commands.len() + 1,
            "lldb ended early:\n{}",
            run.transcript
        );
        for line in run.transcript.lines() {
            let complains = COMPLAINTS.iter().any(|complaint| line.contains(complaint));
            assert!(!complains, "lldb complains: {line}\nin\n{replies}");
        }
        replies
    }
}

/// Texts that a debugger prints only if its input is wrong.
const COMPLAINTS: &[&str] =
    &["Assertion", "PLEASE submit a bug report", "unable to locate", "malformed", "parsing failed"];

/// A reply without what differs between runs, beyond what [`normal`] takes out: numbers of
/// processes, and lines that come when they come.
fn plain(reply: &str) -> String {
    let mut out = String::new();
    for line in reply.lines() {
        let added = line.contains("location added to breakpoint")
            || line.contains("locations added to breakpoint");
        let of_language = line.contains("This version of LLDB has no plugin for the language");
        if added || of_language || line.starts_with("Process ") && line.contains(" launched: ") {
            continue;
        }
        let line = super::without_number(&super::without_number(line, "Process "), "tid = ");
        writeln!(out, "{line}").unwrap();
    }
    out
}

/// A difference that is allowed in any session: why, and a line without what differs. `None`
/// leaves the line out.
type Allowed = (&'static str, fn(&str) -> Option<String>);

const ALLOWED: &[Allowed] = &[
    (
        "lldb finds fault with the debug information of a std::string, once, whenever it comes to \
         read that: in no order.",
        |line| {
            let is_that =
                line.contains("'_M_local_buf' refers to type 0xADDRESS which extends beyond");
            (!is_that).then(|| line.to_owned())
        },
    ),
    (
        "lldb makes up names for the entries of the procedure linkage table from relocations: a \
         symfile has none. And lldb 14 does not always name variables behind what is not mapped \
         from the file.",
        |line| match line.split_once("; ") {
            Some((before, _)) if before.contains(" <+") => Some(before.trim_end().to_owned()),
            _ => Some(line.trim_end().to_owned()),
        },
    ),
    ("lldb 19 does not tell which file a variable is in.", |line| {
        Some(line.replace("Summary: LIBRARY`", "Summary: "))
    }),
    (
        "Loaded again, a library without a file is a new one to lldb: a breakpoint's location in it \
         has a new number.",
        |line| match line.split_once("stop reason = breakpoint ") {
            Some((before, number)) => {
                let number = number.split('.').next().unwrap_or_default();
                Some(format!("{before}stop reason = breakpoint {number}"))
            }
            None => Some(line.to_owned()),
        },
    ),
];

/// The lines of a reply that must be the same with either loader: lldb calls a library by where its
/// symfile is in memory, or by the name of its file.
fn comparable(reply: &str, library: &Path) -> Vec<String> {
    let name = library.file_name().unwrap().to_str().unwrap();
    let folder = library.parent().unwrap().to_str().unwrap();
    let allowed = |line: &str| {
        let line = line.replace(&format!("{folder}/"), "").replace(name, "LIBRARY");
        // In an error it is called twice.
        let line = line.replace("JIT(0xADDRESS)(0xADDRESS)", "LIBRARY");
        let line = line.replace("JIT(0xADDRESS)", "LIBRARY");
        ALLOWED.iter().try_fold(line, |line, (_, rule)| rule(&line))
    };
    reply.lines().filter_map(allowed).collect()
}

/// The steps of a host that loads the library, to be seen by lldb, and calls `entry(5)`.
pub fn load_and_call(library: &Path) -> Vec<String> {
    steps(&[&format!("load a {} portable", library.display()), "call a entry 5"])
}

/// Fails unless lldb said the same in both sessions.
pub fn assert_same(of_memory: &Replies, of_file: &Replies, library: &Path) {
    let mut different = String::new();
    for ((command, ours), (_, theirs)) in of_memory.list().iter().zip(of_file.list()) {
        let (ours, theirs) = (comparable(ours, library), comparable(theirs, library));
        if ours != theirs {
            let (ours, theirs) = (ours.join("\n"), theirs.join("\n"));
            write!(different, "---- {command}\n{ours}\n---- with dlopen\n{theirs}\n").unwrap();
        }
    }
    assert!(different.is_empty(), "lldb says different things:\n{different}\nin\n{of_memory}");
}
