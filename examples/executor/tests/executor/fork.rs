//! Functions that run in processes of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use memdl_executor::client::Library;
use memdl_executor::protocol::{Failure, FailureKind};

use crate::common::{
    EXECUTOR, Server, assert_failure, call, compile, failure, folder, limited, wait_until, work,
    work_with,
};

fn forking(options: &[&str]) -> Server {
    Server::start(&[&["--mode", "fork"], options].concat())
}

/// The line of `functions/work.c` that has this text.
fn line(text: &str) -> usize {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/work.c");
    let source = fs::read_to_string(source).unwrap();
    1 + source.lines().position(|line| line.contains(text)).unwrap()
}

/// The processes that a process has forked.
pub fn children(pid: u32) -> Vec<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(|it| it.parse().unwrap()).collect()
}

/// The worker of the only call that runs.
pub fn worker(server: &Server) -> u32 {
    let mut found = None;
    wait_until("a worker runs", || {
        let [nursery] = children(server.pid())[..] else { return false };
        found = children(nursery).into_iter().flat_map(children).next();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn calls_do_not_see_each_other() {
    let server = forking(&[]);
    thread::scope(|scope| {
        for number in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let (mut client, other) = (server.client(), work_with(&[number % 2]));
                for _ in 0..20 {
                    assert_eq!(call(&mut client, &other, "count", "").unwrap(), "1");
                }
                let input = "x".repeat(300_000);
                let output = client.call(&other, "upper", input.as_bytes(), 300_000, &mut |_| {});
                assert_eq!(output.unwrap(), input.to_uppercase().into_bytes());
            });
        }
    });
    assert_eq!(server.metric("executor_libraries"), 2.0);
}

#[test]
fn a_crash_costs_its_worker_only_and_names_the_line() {
    let server = forking(&[]);
    let mut client = server.client();
    let crashes = [
        ("divide", "1 0", "SIGFPE in quotient", line("return dividend / divisor")),
        ("store", "", "SIGSEGV in store", line("*nowhere = 1")),
        ("jump", "", "SIGSEGV in jump", line("nothing(in, in_len")),
        ("give_up", "", "SIGABRT in give_up", line("abort();")),
        ("dig", "", "SIGSEGV in dig", line("size_t dig(")),
    ];
    for (function, input, place, line) in crashes {
        let failed = failure(&mut client, work(), function, input);
        let first = failed.message.lines().next().unwrap();
        assert_eq!(first, format!("{place} (work.c:{line})"));
        assert_eq!(failed.kind, FailureKind::Crash);
        assert_eq!(call(&mut client, work(), "upper", "next").unwrap(), "NEXT");
    }
    // All frames are named, not only the innermost.
    let failed = failure(&mut client, work(), "divide", "1 0");
    let frames: Vec<&str> = failed.message.lines().skip(1).collect();
    assert!(frames[0].contains("quotient at") && frames[1].contains("divide at"), "{failed}");
    let caller = format!("work.c:{}", line("int result = quotient"));
    assert!(frames[1].contains(&caller), "{failed}");
    assert_eq!(server.metric("executor_crashes_total"), 6.0);
}

/// The path in the last line of a failure.
fn core_of(failure: &Failure) -> PathBuf {
    let last = failure.message.lines().last().unwrap();
    PathBuf::from(last.trim().strip_prefix("core: ").unwrap_or_else(|| panic!("{failure:?}")))
}

fn gdb(arguments: &[&str], commands: &[&str]) -> String {
    let mut gdb = limited(40, "gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn gdb_opens_the_core_of_a_crash_with_lines() {
    let folder = folder();
    let cores = folder.join("cores").to_str().unwrap().to_owned();
    let options = ["--allow-any", "--mode", "fork", "--cores", &cores, "--keep-cores", "2"];
    let server = Server::start_in(folder, &options);
    let mut client = server.client();
    let failed = failure(&mut client, work(), "divide", "1 0");
    assert_failure(&failed, FailureKind::Crash, "SIGFPE in quotient (work.c:");
    let core = core_of(&failed);
    let text =
        gdb(&[EXECUTOR, core.to_str().unwrap()], &["bt", "frame function divide", "info locals"]);
    let at = format!("work.c:{}", line("return dividend / divisor"));
    for part in ["SIGFPE", "quotient (dividend=1, divisor=0)", &at, "divide (in=0x", "divisor = 0"]
    {
        assert!(text.contains(part), "no `{part}` in gdb's answer:\n{text}");
    }
    // Two cores are kept, of which this is no longer one.
    for _ in 0..2 {
        failure(&mut client, work(), "store", "");
    }
    assert!(!core.exists());
    assert_eq!(fs::read_dir(&cores).unwrap().count(), 2);
}

#[test]
fn without_a_folder_for_cores_there_are_none() {
    let server = forking(&[]);
    let failed = failure(&mut server.client(), work(), "store", "");
    assert!(!failed.message.contains("core"), "{failed}");
    let files = fs::read_dir(&server.folder).unwrap().map(|it| it.unwrap().file_name());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(files, ["key", "log", "socket"]);
}

#[test]
fn a_call_that_takes_too_long_ends_and_says_where_it_was() {
    let server = forking(&["--time-limit", "0.3"]);
    let mut client = server.client();
    let start = Instant::now();
    let failed = failure(&mut client, work(), "spin", "");
    assert_failure(&failed, FailureKind::TimeLimit, "the time limit of 300ms ended spin (work.c:");
    // In the C library, on this function's behalf.
    let failed = failure(&mut client, work(), "nap", "30000");
    let at = format!("nap (work.c:{})", line("usleep("));
    assert_failure(&failed, FailureKind::TimeLimit, &at);
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(call(&mut client, work(), "upper", "next").unwrap(), "NEXT");
    // No process is left.
    let [nursery] = children(server.pid())[..] else { panic!() };
    let [host] = children(nursery)[..] else { panic!() };
    assert_eq!(children(host), []);
}

#[test]
fn a_function_that_fails_or_ends_its_process_is_told_apart() {
    let server = forking(&[]);
    let mut client = server.client();
    assert_failure(&failure(&mut client, work(), "fail", ""), FailureKind::Function, "fail failed");
    let left = failure(&mut client, work(), "leave", "");
    assert_failure(&left, FailureKind::Function, "exit code 3");
    assert_failure(&failure(&mut client, work(), "none", ""), FailureKind::NoFunction, "`none`");
    let malformed = Library::new(&b"not a library"[..]);
    let failed = failure(&mut client, &malformed, "f", "");
    assert_failure(&failed, FailureKind::NotLoaded, "not an ELF file");
    assert_eq!(call(&mut client, work(), "upper", "next").unwrap(), "NEXT");
}

#[test]
fn code_that_is_not_allowed_is_refused() {
    let folder = folder();
    let list = folder.join("list").to_str().unwrap().to_owned();
    fs::write(&list, work().digest().to_string()).unwrap();
    let server = Server::start_in(folder, &["--mode", "fork", "--allow-digests", &list]);
    let mut client = server.client();
    assert_eq!(call(&mut client, work(), "upper", "listed").unwrap(), "LISTED");
    let refused = failure(&mut client, &work_with(b"x"), "upper", "");
    assert_failure(&refused, FailureKind::Refused, "is not on the server's list");
}

#[test]
fn a_constructor_that_crashes_or_hangs_costs_its_library_only() {
    let folder = folder();
    let cores = folder.join("cores").to_str().unwrap().to_owned();
    let options = ["--allow-any", "--mode", "fork", "--time-limit", "0.5", "--cores", &cores];
    let server = Server::start_in(folder, &options);
    let mut client = server.client();
    assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
    for (body, kind, part) in [
        ("*(volatile int *)16 = 1;", FailureKind::Crash, "SIGSEGV in the load of the library"),
        ("for (;;) {}", FailureKind::TimeLimit, "the load of the library"),
    ] {
        let source = server.folder.join("constructor.c");
        let text = format!("__attribute__((constructor)) static void start(void) {{ {body} }}\n");
        fs::write(&source, text).unwrap();
        let file = compile(&source, &server.folder.join("constructor.so"));
        let library = Library::new(fs::read(file).unwrap());
        let failed = failure(&mut client, &library, "f", "");
        assert_failure(&failed, kind, part);
        let text = gdb(&[EXECUTOR, core_of(&failed).to_str().unwrap()], &["bt"]);
        let frame = format!("start () at {}:1", source.display());
        assert!(text.contains(&frame), "no `{frame}` in gdb's answer:\n{text}");
    }
    assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
    assert_eq!(server.metric("executor_libraries"), 1.0);
}

#[test]
fn a_library_whose_process_has_ended_is_sent_again() {
    let server = forking(&[]);
    let mut client = server.client();
    assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
    let [nursery] = children(server.pid())[..] else { panic!() };
    let [host] = children(nursery)[..] else { panic!() };
    // SAFETY: a process that our server has started, and has not waited for.
    assert_eq!(unsafe { libc::kill(host.cast_signed(), libc::SIGKILL) }, 0);
    let failed = failure(&mut client, work(), "count", "");
    assert_failure(&failed, FailureKind::Internal, "forking a process");
    assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
}

#[test]
fn a_server_that_cannot_fork_any_more_ends() {
    let mut server = forking(&[]);
    assert_eq!(call(&mut server.client(), work(), "count", "").unwrap(), "1");
    let [nursery] = children(server.pid())[..] else { panic!() };
    // SAFETY: a process that our server has started, and has not waited for.
    assert_eq!(unsafe { libc::kill(nursery.cast_signed(), libc::SIGKILL) }, 0);
    assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(1));
    assert!(server.log().contains("are forked has ended"), "{}", server.log());
}

#[test]
fn evicted_libraries_have_no_process() {
    let server = forking(&["--max-libraries", "1"]);
    let mut client = server.client();
    for number in 0..5 {
        assert_eq!(call(&mut client, &work_with(&[number]), "count", "").unwrap(), "1");
    }
    let [nursery] = children(server.pid())[..] else { panic!() };
    wait_until("one host is left", || children(nursery).len() == 1);
}

#[test]
fn a_stop_leaves_no_process() {
    let mut server = forking(&["--grace", "1"]);
    let mut client = server.client();
    assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
    let napping = thread::spawn(move || call(&mut client, work(), "nap", "60000"));
    let worker = worker(&server);
    let [nursery] = children(server.pid())[..] else { panic!() };
    let [host] = children(nursery)[..] else { panic!() };
    server.signal(libc::SIGTERM);
    assert!(server.wait(Duration::from_secs(20)).success());
    assert!(napping.join().unwrap().is_err());
    let is_there = |pid: &u32| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    };
    wait_until("all have ended", || ![nursery, host, worker].iter().any(is_there));
}

#[test]
fn a_memfd_is_forked_as_well() {
    let server = forking(&["--loader", "memfd"]);
    let mut client = server.client();
    assert_eq!(call(&mut client, work(), "divide", "84 2").unwrap(), "42");
    let failed = failure(&mut client, work(), "divide", "1 0");
    assert_failure(&failed, FailureKind::Crash, "SIGFPE in divide (at 0x");
}

/// gdb, attached to the process in which a function runs, sees where it is and with which arguments.
fn sees_the_function(pid: u32) {
    let text = gdb(
        &["-p", &pid.to_string()],
        &["thread apply all -s -q frame function nap", "thread apply all -s -q bt"],
    );
    let at = format!("work.c:{}", line("usleep("));
    for part in ["nap (in=0x", "in_len=5, out=0x", "out_capacity=1000)", &at, "usleep(10 * 1000);"]
    {
        assert!(text.contains(part), "no `{part}` in gdb's answer:\n{text}");
    }
}

#[test]
fn gdb_attached_to_the_server_sees_the_line_and_the_arguments() {
    let server = Server::start(&[]);
    let mut client = server.client();
    // It ends with the server.
    thread::spawn(move || call(&mut client, work(), "nap", "60000"));
    wait_until("a call runs", || server.metric("executor_running_calls") == 1.0);
    sees_the_function(server.pid());
    // gdb has let go of it.
    server.assert_lives();
}

#[test]
fn gdb_attached_to_a_worker_sees_the_line_and_the_arguments() {
    let server = forking(&["--time-limit", "60"]);
    let mut client = server.client();
    thread::spawn(move || call(&mut client, work(), "nap", "60000"));
    sees_the_function(worker(&server));
    server.assert_lives();
}
