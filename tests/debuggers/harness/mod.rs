//! Running debuggers: the only place that starts one, so that every run has a time limit, is ended
//! with all that it started, sees no configuration of the user's, and is checked for complaints.

pub mod arguments;
mod builds;
mod calls;
pub mod compare;
pub mod dialogue;
pub mod host;
pub mod libraries;
pub mod lldb;
pub mod scenario;
mod scenario_file;
mod uncured;
pub mod versions;

use std::cell::Cell;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::time::is_over;
use crate::common::{limit, program, repository};
use host::Loader;

/// Names the gdb that is tested, if not that of the system.
const GDB: &str = "MEMDL_TEST_GDB";

/// The environment variable with the debug level of libraries, which overrides the choice of each test.
const FORM: &str = "MEMDL_TEST_FORM";

/// The command that starts a host and talks gdb's remote protocol on its standard input and output, where hosts
/// cannot be started by gdb itself: an emulator's (tests/aarch64/run.sh).
const STUB: &str = "MEMDL_TEST_STUB";

/// The gdb that is tested.
pub fn gdb() -> String {
    env::var(GDB).unwrap_or_else(|_| "gdb".to_owned())
}

/// What a debugger that works never needs on an idle machine; all limits are longer on a busy one.
const LIMIT: Duration = Duration::from_secs(60);

/// What must be true of the harness itself.
pub fn tests() -> Vec<Trial> {
    vec![
        trial(
            "what_is_not_understood_is_an_error",
            "harness",
            scenario_file::what_is_not_understood_is_an_error,
        ),
        trial("words_choose_tests", "harness", arguments::words_choose_tests),
    ]
}

/// A test of a file's, which fails by a panic. `module` is where it is.
pub fn trial(name: &str, module: &str, test: fn()) -> Trial {
    let module = module.strip_prefix("debuggers::").unwrap_or(module);
    Trial::test(format!("{module}::{name}"), move || {
        test();
        Ok(())
    })
}

/// Set before all else: nothing asks, nothing is fetched, nothing is cut or coloured.
const SETTINGS: &[&str] = &[
    "set debuginfod enabled off",
    "set confirm off",
    "set pagination off",
    "set width 0",
    "set height 0",
    "set style enabled off",
    "set breakpoint pending on",
    "set print thread-events off",
    "set startup-with-shell off",
    "set disable-randomization off",
    // What is read is read by the thread that strace looks at.
    "maintenance set worker-threads 0",
];

/// Lines that would be complaints, and are none about us.
const HARMLESS: &[&str] = &[
    // gdb's `gcore`, of any process at all.
    "warning: target file /proc/",
    "warning: Memory read failed for corefile section",
    // A test says in which language an expression is.
    "Warning: the current language does not match this frame.",
];

/// Precedes each command in a transcript.
const MARK: &str = "@@@@ ";

/// Something started by a test, and all that it starts; ended with all of that when dropped.
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Starts `command` in a process group of its own, without an input, its output in a file:
    /// unlike a pipe, that can be read to its end even while somebody still holds it open.
    pub fn start(mut command: Command) -> Running {
        let output = scratch("transcript");
        let file = File::options().create(true).append(true).open(&output).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot run {command:?}: {error}; `sh tests/setup.sh` installs what tests need"
                )
            });
        Running { child, output }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap()).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `text` is in the output, for the `count`th time.
    pub fn await_output(&mut self, text: &str, count: usize) {
        let start = Instant::now();
        while self.output().matches(text).count() < count {
            assert!(self.is_running(), "ended without `{text}`:\n{}", self.output());
            assert!(!is_over(start, LIMIT), "no `{text}` in time:\n{}", self.output());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, or ends it at the limit.
    pub fn finish(self) -> Run {
        self.finish_within(LIMIT)
    }

    /// Waits for its end, or ends it at this limit.
    fn finish_within(mut self, limit: Duration) -> Run {
        let start = Instant::now();
        while self.is_running() && !is_over(start, limit) {
            thread::sleep(Duration::from_millis(5));
        }
        let was_ended = self.is_running();
        let reads = if was_ended { self.reads() } else { None };
        self.end();
        Run { was_ended, reads, took: start.elapsed(), transcript: self.output() }
    }

    /// What it waits in `read` for.
    fn reads(&self) -> Option<PathBuf> {
        let process = PathBuf::from(format!("/proc/{}", self.id()));
        let call = fs::read_to_string(process.join("syscall")).ok()?;
        let mut words = call.split_whitespace();
        let is_read = words.next()? == libc::SYS_read.to_string();
        let descriptor = u32::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        let of = process.join("fd").join(descriptor.to_string());
        is_read.then(|| fs::read_link(of).ok())?
    }

    fn end(&mut self) {
        if self.is_running() {
            let group = -self.child.id().cast_signed();
            // SAFETY: a plain system call. The leader of the group has not been waited for, so
            // the number is still its own.
            unsafe { libc::kill(group, libc::SIGKILL) };
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_file(&self.output);
    }
}

/// Precedes the processor time of a timed session.
const TOOK: &str = "processor time: ";

/// A run that is over.
pub struct Run {
    /// Whether it had to be ended at its time limit.
    pub was_ended: bool,
    /// What it waited in `read` for then.
    pub reads: Option<PathBuf>,
    pub took: Duration,
    pub transcript: String,
}

impl Run {
    /// The processor time of a timed session, in seconds.
    pub fn processor_time(&self) -> f64 {
        let (_, times) = self.transcript.rsplit_once(TOOK).unwrap();
        times.split_whitespace().map(|time| time.parse::<f64>().unwrap()).sum()
    }
}

/// A debugger, a script of commands for it, and what is debugged.
pub struct Gdb {
    command: Command,
    program: Vec<String>,
    limit: Duration,
}

impl Gdb {
    fn new(command: Command, program: Vec<String>) -> Gdb {
        let mut gdb = Gdb { command, program, limit: LIMIT };
        gdb.command
            .args(["-nx", "--batch"])
            .args(SETTINGS.iter().flat_map(|setting| ["-iex", setting]))
            .env(host::LOADER, Loader::Memdl.name())
            .env_remove("DEBUGINFOD_URLS")
            .env("RUST_BACKTRACE", "0")
            // cargo's, for this binary; gdb would look for its own libraries there.
            .env_remove("LD_LIBRARY_PATH")
            .env("LC_ALL", "C");
        choose_form(&mut gdb.command);
        gdb
    }

    /// For the host, which is to do these steps.
    pub fn of_host(steps: &[String]) -> Gdb {
        if env::var_os(STUB).is_some() {
            return Gdb::of_served_host(steps);
        }
        let mut gdb = Gdb::new(Command::new(gdb()), vec![host_program()]);
        choose_steps(&mut gdb.command, steps);
        gdb
    }

    /// For the host, which is to do these steps; the transcript ends with the processor time of both.
    pub fn timed(steps: &[String]) -> Gdb {
        let mut command = Command::new("bash");
        let script = format!("TIMEFORMAT='{TOOK}%U %S'; time \"$@\"");
        command.args(["-c", &script, "bash", &gdb()]);
        let mut gdb = Gdb::new(command, vec![host_program()]);
        choose_steps(&mut gdb.command, steps);
        gdb
    }

    /// For the host, which gdbserver starts and runs to its first instruction.
    pub fn of_served_host(steps: &[String]) -> Gdb {
        let program = host_program();
        let mut gdb = Gdb::new(Command::new(gdb()), vec![]);
        choose_steps(&mut gdb.command, steps);
        gdb.command.args(["-iex", "set sysroot /", &program, "-ex"]);
        // Its standard input and output are the connection. What the host prints comes through the third.
        if let Ok(stub) = env::var(STUB) {
            gdb.command.arg(format!("target remote | exec {stub} {program}"));
            return gdb;
        }
        // From gdbserver it comes at any time, and is left out, so that a session is the same in each run.
        gdb.command.arg(format!("target remote | exec gdbserver --once - {program} 2>/dev/null"));
        gdb
    }

    /// For a program that takes everything from its command line.
    pub fn of_program(program: &Path, arguments: &[&str]) -> Gdb {
        let words = [program.to_str().unwrap()].into_iter().chain(arguments.iter().copied());
        Gdb::new(Command::new(gdb()), words.map(str::to_owned).collect())
    }

    /// Attached to what runs.
    pub fn attached(to: &Running) -> Gdb {
        Gdb::attached_by(Command::new(gdb()), to)
    }

    /// As [`Gdb::attached`]; `command` runs the debugger.
    pub fn attached_by(command: Command, to: &Running) -> Gdb {
        let mut gdb = Gdb::new(command, vec![]);
        gdb.command.args(["-p", &to.id().to_string()]);
        gdb
    }

    /// For a core file of the host.
    pub fn of_core(core: &Path) -> Gdb {
        let mut gdb = Gdb::new(Command::new(gdb()), vec![]);
        gdb.command.arg(env::current_exe().unwrap()).arg(core);
        gdb
    }

    pub fn loader(self, loader: Loader) -> Gdb {
        self.env(host::LOADER, loader.name())
    }

    pub fn env(mut self, name: &str, value: &str) -> Gdb {
        self.command.env(name, value);
        self
    }

    /// The folder where the debugger starts.
    pub fn folder(mut self, folder: &Path) -> Gdb {
        self.command.current_dir(folder);
        self
    }

    /// The form of debug entries, whatever the operator of the tests says.
    pub fn form(mut self, form: &str) -> Gdb {
        set_form(&mut self.command, form);
        self
    }

    /// Another limit than the usual one.
    pub fn limit(mut self, limit: Duration) -> Gdb {
        self.limit = limit;
        self
    }

    /// Runs the commands, and the debugger to its end or to the limit.
    pub fn run_to_limit(mut self, commands: &[&str]) -> Run {
        for &command in commands {
            // A stub has started the host before.
            let is_started = command == "run" && env::var_os(STUB).is_some();
            let command = if is_started { "continue" } else { command };
            let mark = format!("echo \\n{MARK}{command}\\n");
            self.command.args(["-ex", &mark, "-ex", command]);
        }
        if let [program, arguments @ ..] = self.program.as_slice() {
            self.command.arg("--args").arg(program).args(arguments);
        }
        Running::start(self.command).finish_within(self.limit)
    }

    /// Runs the commands; fails if the debugger does not end by itself, or complains.
    pub fn run(self, commands: &[&str]) -> Replies {
        let replies = self.run_unchecked(commands);
        replies.assert_no_complaint();
        replies
    }

    /// Runs the commands; fails if the debugger does not end by itself. Its complaints are for the
    /// caller to judge.
    pub fn run_unchecked(self, commands: &[&str]) -> Replies {
        let run = self.run_to_limit(commands);
        assert!(!run.was_ended, "gdb hangs: ended after {:?}:\n{}", run.took, run.transcript);
        let replies = Replies::parse(&run.transcript);
        assert_eq!(replies.list.len(), commands.len(), "gdb ended early:\n{}", run.transcript);
        replies
    }
}

/// This program, which is the host where its environment says so.
fn host_program() -> String {
    env::current_exe().unwrap().to_str().unwrap().to_owned()
}

/// What the host needs in its environment, to do these steps.
fn choose_steps(command: &mut Command, steps: &[String]) {
    command.env(host::STEPS, steps.join("\n"));
    // It ends itself where nobody does.
    command.env(host::SECONDS, (3 * limit(LIMIT).as_secs()).to_string());
}

/// Starts the host, not debugged.
pub fn start_host(steps: &[String]) -> Running {
    Running::start(bare_host(steps, Loader::Memdl))
}

/// The host, not debugged.
pub fn bare_host(steps: &[String], loader: Loader) -> Command {
    let mut command = program(host_program());
    choose_steps(&mut command, steps);
    command.env(host::LOADER, loader.name());
    choose_form(&mut command);
    command
}

/// Unless a test says otherwise, an operator says what [`FORM`] says, or nothing.
fn choose_form(command: &mut Command) {
    match env::var_os(FORM) {
        Some(form) => set_form(command, form.to_str().unwrap()),
        None => {
            command.env_remove("MEMDL_DEBUG").env_remove(host::WRAPPED);
        }
    }
}

/// `wrapped` is `full` as a debugger sees it that comes after the load.
fn set_form(command: &mut Command, form: &str) {
    command.env_remove(host::WRAPPED);
    match form {
        "wrapped" => command.env("MEMDL_DEBUG", "full").env(host::WRAPPED, "1"),
        form => command.env("MEMDL_DEBUG", form),
    };
}

/// Whether debuggers see the form that one sees which comes after the load.
pub fn is_wrapped() -> bool {
    env::var_os(FORM).is_some_and(|form| form == "wrapped")
}

/// Whether the debug level is `portable`.
pub fn is_portable() -> bool {
    env::var_os(FORM).is_some_and(|form| form == "portable")
}

/// What a debugger answered to each command, in their order.
pub struct Replies {
    list: Vec<(String, String)>,
    next: Cell<usize>,
}

impl Replies {
    /// Those of a run that may have ended in any way.
    pub fn of(run: &Run) -> Replies {
        Replies::parse(&run.transcript)
    }

    fn parse(transcript: &str) -> Replies {
        Replies::parse_with(transcript, normal)
    }

    /// `normal` makes a reply what it is in all runs.
    fn parse_with(transcript: &str, normal: impl Fn(&str) -> String) -> Replies {
        let mark = format!("\n{MARK}");
        let list = transcript.split(&mark).skip(1).map(|part| {
            let (command, reply) = part.split_once('\n').unwrap_or((part, ""));
            (command.to_owned(), normal(reply))
        });
        Replies { list: list.collect(), next: Cell::new(0) }
    }

    /// The reply to the next `command`; those before it are passed over.
    pub fn to(&self, command: &str) -> Reply<'_> {
        let from = self.next.get();
        let found = self.list[from..].iter().position(|(given, _)| given == command);
        let at = from + found.unwrap_or_else(|| panic!("no further `{command}` in\n{self}"));
        self.next.set(at + 1);
        Reply { at, whole: self }
    }

    /// The reply to the command at this place in the session.
    pub fn at(&self, at: usize) -> Reply<'_> {
        Reply { at, whole: self }
    }

    /// What the host printed, a line each.
    pub fn host(&self) -> Vec<&str> {
        let lines = self.list.iter().flat_map(|(_, reply)| reply.lines());
        lines.filter_map(|line| line.strip_prefix("[host] ")).collect()
    }

    /// All pairs of commands and replies.
    pub fn list(&self) -> &[(String, String)] {
        &self.list
    }

    pub fn assert_no_complaint(&self) {
        for line in self.list.iter().flat_map(|(_, reply)| reply.lines()) {
            let lower = line.to_lowercase();
            let complaint =
                ["internal error", "internal-error", "warning:", "cannot insert", "cannot remove"]
                    .iter()
                    .any(|text| lower.contains(text));
            let harmless = HARMLESS.iter().any(|harmless| line.contains(harmless));
            assert!(!complaint || harmless, "gdb complains: {line}\nin\n{self}");
        }
    }
}

impl std::fmt::Display for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.list.iter().try_for_each(|(command, reply)| writeln!(f, "> {command}\n{reply}"))
    }
}

/// One reply. Where it says that it is not as expected, it shows the whole session.
pub struct Reply<'r> {
    at: usize,
    whole: &'r Replies,
}

impl Reply<'_> {
    pub fn text(&self) -> &str {
        &self.whole.list[self.at].1
    }

    /// Fails unless all `texts` are there, one after the other.
    #[track_caller]
    pub fn has(&self, texts: &[&str]) -> &Self {
        let mut rest = self.text();
        for text in texts {
            let Some((_, after)) = rest.split_once(text) else {
                if calls::are_impossible_in(self.whole) {
                    return self;
                }
                panic!("no `{text}` {}", self.place());
            };
            rest = after;
        }
        self
    }

    #[track_caller]
    pub fn has_not(&self, text: &str) -> &Self {
        if self.text().contains(text) && !calls::are_impossible_in(self.whole) {
            panic!("`{text}` is {}", self.place());
        }
        self
    }

    fn place(&self) -> String {
        let (command, reply) = &self.whole.list[self.at];
        format!("in the reply to `{command}`:\n{reply}\nThe whole session:\n{}", self.whole)
    }
}

/// `text` without what differs between runs: addresses, process and thread numbers, folders, and
/// how the library is called that something is in.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if line.is_empty() || NOISE.iter().any(|noise| line.starts_with(noise)) {
            continue;
        }
        let line = versions::usual(&without_addresses(line));
        let line = without_folders(&without_thread(&without_process(&without_history(&line))));
        writeln!(out, "{line}").unwrap();
    }
    out
}

/// Beginnings of lines that tell of threads, of how gdb came by them, and of files' times: a source
/// that was checked out again is newer than what an earlier run compiled from the same text.
const NOISE: &[&str] = &[
    "[New Thread",
    "[New LWP",
    // The first thread, when the process ends from another one.
    "[New process ",
    "[Thread ",
    "[Switching to ",
    "Using host libthread_db",
    "warning: Source file is more recent than executable.",
];

fn without_addresses(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("0x") {
        let digits = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (number, after) = after.split_at(digits);
        out.push_str(before);
        // Smaller numbers are offsets and constants, and do not differ.
        out.push_str("0x");
        out.push_str(if digits > 6 { "ADDRESS" } else { number });
        rest = after;
    }
    out + rest
}

/// What is before the number of a process or a thread.
const PROCESS: &[&str] = &[
    "process ",
    "LWP ",
    "pid ",
    "/proc/",
    // Of a core.
    ".reg-xstate/",
    // An argument of the C library's, for whom `pthread_join` waits.
    "expected=",
    // An argument in `processes.c`.
    "child=",
    // Rust, of a thread that panics.
    "thread '<unnamed>' (",
];

fn without_process(line: &str) -> String {
    PROCESS.iter().fold(line.to_owned(), |line, word| without_number(&line, word))
}

/// Decimal numbers after `word` are all the same.
fn without_number(line: &str, word: &str) -> String {
    let mut parts = line.split(word);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = if rest.len() < part.len() { "PID" } else { "" };
        out + word + number + rest
    })
}

/// That a source is not there is said in other words from the second time on; and the columns of a
/// table are as wide as the numbers of processes.
fn without_history(line: &str) -> String {
    if line.starts_with("  Id   Target Id ") {
        return line.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let missing = line.trim_end_matches('.').strip_suffix(": No such file or directory");
    match missing.and_then(|line| line.trim_start_matches("warning: ").split_once('\t')) {
        Some((number, source)) => format!("{number}\tin {source}"),
        None => line.to_owned(),
    }
}

/// `Thread 2 "name" hit Breakpoint 1, ...` is said where there is more than one thread.
fn without_thread(line: &str) -> String {
    match line.split_once("\" hit ") {
        Some((thread, rest)) if thread.starts_with("Thread ") => rest.to_owned(),
        _ => line.to_owned(),
    }
}

fn without_folders(line: &str) -> String {
    line.replace(&format!("{}/", repository("testlibs/debug").display()), "")
        .replace(&format!("{}/", repository("tests").display()), "")
}

/// A path that nobody else uses, in the folder for the output of tests.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("debug-{}-{number}.{name}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
