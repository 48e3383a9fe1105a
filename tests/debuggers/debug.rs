//! What gdb shows of a library that is in memory only. Each test runs gdb for real; the harness
//! in `gdb` gives every run a time limit and fails on any complaint of gdb's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::limited;
use crate::harness::compare::as_with_dlopen;
use crate::harness::host::Loader;
use crate::harness::libraries::{Copy, library, load_and_call, mark, program, steps};
use crate::harness::scenario::Folder;
use crate::harness::{Gdb, Replies, Run, Running, bare_host, gdb, scratch, start_host};

tests! { pub fn tests:
    a_stripped_library_has_its_dynamic_names_and_right_backtraces
    a_library_without_section_headers_has_its_dynamic_names_and_right_backtraces
    the_program_chooses_how_much_gdb_sees
    the_environment_overrides_how_much_gdb_sees
    without_the_cure_gdb_writes_into_what_takes_the_place_of_a_library
    with_the_cure_gdb_leaves_alone_what_takes_the_place_of_a_library
    a_breakpoint_is_hit_in_each_of_a_hundred_instances
    a_breakpoint_in_each_of_forty_images_costs_what_it_costs_with_dlopen
    an_unloaded_library_has_no_contents_where_memory_is_wiped
    gdb_attaches_to_a_running_process_and_leaves_it_running
    a_core_file_shows_names_lines_and_variables
    a_core_of_an_image_that_is_shown_to_nobody_is_read_with_its_file
    gdb_opens_no_file_for_a_library
    gdb_hangs_on_a_memfd_that_was_dlopened_and_not_on_memdl
    gdb_hangs_when_attached_to_a_dlopened_memfd_and_not_to_memdl
}

/// `clib.c` as most tests want it.
fn clib() -> PathBuf {
    library("gcc", "clib.c", &["-g", "-O0"])
}

// ---- What has no debug sections ----

fn a_stripped_library_has_its_dynamic_names_and_right_backtraces() {
    let library = Copy::of(&library("gcc", "clib.c", &["-O2"]));
    crate::common::run(Command::new("strip").arg("-s").arg(&library.0), "binutils");
    assert_names_and_backtraces(&as_with_dlopen(&library.0, NAMES));
}

fn a_library_without_section_headers_has_its_dynamic_names_and_right_backtraces() {
    let library = Copy::of(&library("gcc", "clib.c", &["-O2", "-g"]));
    let mut bytes = fs::read(&library.0).unwrap();
    // e_shoff; then e_shnum and e_shstrndx.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    fs::write(&library.0, bytes).unwrap();
    assert_names_and_backtraces(&Gdb::of_host(&load_and_call(&library.0)).run(NAMES));
}

const NAMES: &[&str] = &[
    // Where no line is known gdb takes the language of `main`, and in Rust finds no such names.
    "set language c",
    "break leaf",
    "run",
    "bt",
    "info symbol $pc",
    "x/2i $pc",
    "info symbol &lib_global",
    "up",
    "x/i $pc",
    "finish",
    "break getppid",
    "delete",
    "continue",
];

fn assert_names_and_backtraces(session: &Replies) {
    session.to("break leaf").has(&["Breakpoint 1 (leaf) pending."]);
    session.to("run").has(&["Breakpoint 1, 0xADDRESS in leaf ()"]);
    session.to("bt").has(&[
        "#0  0xADDRESS in leaf ()\n#1  0xADDRESS in middle ()\n#2  0xADDRESS in entry ()\n#3  ",
        "host_calls (",
        ", number=5) at tests/debuggers/harness/host.rs:",
        "the_program_that_is_debugged",
    ]);
    session.to("info symbol $pc").has(&["leaf"]);
    session.to("x/2i $pc").has(&["=> 0xADDRESS <leaf"]);
    session.to("info symbol &lib_global").has(&["lib_global in section "]);
    session.to("x/i $pc").has(&["<middle+"]);
    session.to("continue").has(&["exited normally"]);
}

// ---- The level ----

/// What gdb sees of a library loaded with this choice of the program's, and of the operator's.
fn seen_with(program: &str, operator: Option<&str>) -> &'static str {
    let load = format!("load a {} {program}", clib().display());
    let mut gdb = Gdb::of_host(&steps(&[&load, "call a entry 5", "pause"]));
    if let Some(value) = operator {
        gdb = gdb.env("MEMDL_DEBUG", value);
    }
    let session = gdb.run(&[
        "break host_pauses",
        "break leaf",
        "run",
        "bt",
        "info locals",
        "delete",
        "continue",
    ]);
    let bt = session.to("bt").text().to_owned();
    let locals = session.to("info locals").text().to_owned();
    session.to("continue").has(&["exited normally"]);
    assert!(session.host().contains(&"entry(5) = 514"), "{session}");
    if bt.contains("#0  leaf (a=0, b=1) at clib.c:") && locals.contains("local = ") {
        "full"
    } else if bt.contains("in leaf ()\n")
        && bt.contains(" in middle ()\n")
        && bt.contains("host_calls (")
    {
        assert!(locals.contains("No symbol table info available."), "{session}");
        "symbols"
    } else {
        assert!(bt.contains("host_pauses ()"), "{session}");
        "off"
    }
}

fn the_program_chooses_how_much_gdb_sees() {
    for choice in ["off", "symbols", "full"] {
        assert_eq!(seen_with(choice, None), choice);
    }
}

fn the_environment_overrides_how_much_gdb_sees() {
    for (program, operator) in [("full", "off"), ("off", "symbols"), ("off", "full")] {
        assert_eq!(seen_with(program, Some(operator)), operator);
    }
    assert_eq!(seen_with("symbols", Some("everything")), "symbols");
}

// ---- Unloading, loading again, two at a time ----

/// The session of a host whose library `a` goes, in this way, while there are breakpoints in it, and
/// whose memory is used again before anything else is loaded. Libraries may be loaded before.
fn unloaded_under_breakpoints(loads: &[&str], way: &str) -> Replies {
    let by_line = format!("break {}", mark("clib.c", "middle"));
    let rest = ["call a entry 5", way, "bury a", "pause", "check", "pause"];
    let load = |name: &&str| format!("load {name} {}", clib().display());
    let all: Vec<_> =
        loads.iter().map(load).chain(rest.iter().map(|step| (*step).to_owned())).collect();
    Gdb::of_host(&all).run_unchecked(&[
        "break host_pauses",
        "break leaf",
        &by_line,
        "run",
        "set language c",
        "output/x *(unsigned char *) $pc",
        "continue",
        "output/x *(unsigned char *) $pc",
        "ignore 2 10",
        "ignore 3 10",
        "continue",
        // Not a breakpoint's byte is to be found, but what it leaves behind.
        "delete 2 3",
        "continue",
        "kill",
    ])
}

/// The bytes of code that were under the breakpoints.
fn bytes_under_breakpoints(session: &Replies) -> [String; 2] {
    session.to("run").has(&[", middle (n=5"]);
    let byte = || session.to("output/x *(unsigned char *) $pc").text().trim().to_owned();
    let bytes = [byte(), byte()];
    assert!(bytes.iter().all(|byte| byte.starts_with("0x")), "{bytes:?} in\n{session}");
    bytes
}

/// What memdl's second event under a debugger is for: without it, gdb writes bytes of a library that
/// is gone into what has taken its place.
fn without_the_cure_gdb_writes_into_what_takes_the_place_of_a_library() {
    let session = unloaded_under_breakpoints(&["a"], "unload a uncured");
    let bytes = bytes_under_breakpoints(&session);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    let check = session.to("continue");
    check.has(&["2 bytes differ\n"]);
    for byte in bytes {
        check.has(&[&format!(" is {byte}\n")]);
    }
}

fn with_the_cure_gdb_leaves_alone_what_takes_the_place_of_a_library() {
    // With another instance there, nothing of `a` stays: see `parity/late`.
    let session = unloaded_under_breakpoints(&["other", "a"], "unload a");
    session.assert_no_complaint();
    bytes_under_breakpoints(&session);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    session.to("continue").has(&["0 bytes differ\n", "host_pauses ()"]);
}

/// What gdb sees of a library until it is loaded again is what it left, unless memory that is kept is wiped.
fn an_unloaded_library_has_no_contents_where_memory_is_wiped() {
    let load = format!("load a {}", clib().display());
    for (wipe, value) in [("off", "= 52\n"), ("on", "= 0\n")] {
        let host = Gdb::of_host(&steps(&[&load, "call a entry 5", "unload a", "pause"]));
        let print = "with language c -- print lib_global";
        let commands = ["break host_pauses", "run", print, "continue"];
        let session = host.env("MEMDL_WIPE", wipe).run(&commands);
        session.to(print).has(&[value]);
    }
}

/// gdb looks at all instances for each event: so of those beyond `Limits::instances_in_full` it sees
/// only symbols, and still hits breakpoints.
fn a_breakpoint_is_hit_in_each_of_a_hundred_instances() {
    let path = clib();
    let session = Gdb::of_host(&steps(&[
        &format!("instantiate a 100 {} full", path.display()),
        "call-all leaf 5",
        "pause",
        "unload-all",
        "pause",
    ]))
    .run(&[
        "break host_pauses",
        "break leaf",
        "run",
        "info breakpoints",
        "ignore 2 1000",
        "continue",
        "info breakpoints",
        "continue",
        "info breakpoints",
        "continue",
    ]);
    session.to("run").has(&["Breakpoint 2", "leaf ("]);
    let places = session.to("info breakpoints");
    assert_eq!(places.text().matches(" in leaf at clib.c:").count(), 64, "{session}");
    assert_eq!(places.text().matches(" <leaf+").count(), 36, "{session}");
    session.to("continue").has(&["host_pauses ()"]);
    session.to("info breakpoints").has(&["breakpoint already hit 100 times"]);
    session.to("continue").has(&["host_pauses ()"]);
    // The last one is seen until it is loaded again, with lines or without.
    let after = session.to("info breakpoints");
    assert_eq!(after.text().matches("leaf").count(), 1, "{session}");
    after.has_not("PENDING").has_not("MULTIPLE");
    session.to("continue").has(&["exited normally"]);
}

/// gdb looks for the places of all breakpoints at each load. It must not do so more often than with `dlopen`.
fn a_breakpoint_in_each_of_forty_images_costs_what_it_costs_with_dlopen() {
    let copies: Vec<Copy> = (0..40).map(|_| Copy::of(&clib())).collect();
    let load = |(number, copy): (usize, &Copy)| format!("load a{number} {}", copy.path());
    let all: Vec<String> = copies.iter().enumerate().map(load).collect();
    let by_line = format!("break {}", mark("clib.c", "middle"));
    let time = |loader| {
        let gdb = Gdb::timed(&all).loader(loader);
        let run = gdb.run_to_limit(&["break leaf", &by_line, "run", "info breakpoints"]);
        assert!(run.transcript.contains("exited normally"), "{}", run.transcript);
        run.processor_time()
    };
    // The least of some, since other processes slow it down.
    let least = |loader| (0..3).map(|_| time(loader)).fold(f64::INFINITY, f64::min);
    let (dlopen, memdl) = (least(Loader::Dlopen), least(Loader::Memdl));
    println!("gdb with 40 images: {memdl:.2} s, by dlopen {dlopen:.2} s");
    assert!(memdl <= 1.25 * dlopen, "{memdl:.2} s instead of {dlopen:.2} s");
}

// ---- Coming late ----

fn gdb_attaches_to_a_running_process_and_leaves_it_running() {
    let library = Copy::of(&clib());
    let erase = format!("erase {}", library.path());
    let mut host =
        start_host(&steps(&[&format!("load a {}", library.path()), &erase, "repeat a entry 5"]));
    host.await_output("entry(5) = ", 2);
    let session = Gdb::attached(&host).run(&[
        "break leaf",
        "continue",
        "bt",
        "info args",
        "next",
        "info locals",
        "finish",
        "delete",
        "detach",
    ]);
    assert_attached(&session);
    let so_far = host.output().matches("entry(5) = ").count();
    host.await_output("entry(5) = ", so_far + 2);
}

fn a_core_file_shows_names_lines_and_variables() {
    let core = Copy(scratch("core"));
    let save = format!("gcore {}", core.path());
    let live =
        Gdb::of_host(&load_and_call(&clib())).run(&["break leaf", "run", "next", &save, "kill"]);
    live.to(&save).has(&["Saved corefile"]);
    let session = Gdb::of_core(&core.0).run(&[
        "bt",
        "info args",
        "info locals",
        "print lib_global",
        "info symbol $pc",
        "info line leaf",
        "disassemble /s leaf",
        "up",
        "info locals",
    ]);
    session.to("bt").has(&[
        "#0  leaf (a=0, b=1) at clib.c:",
        " in middle (n=5, values=0xADDRESS) at clib.c:",
        " in entry (n=5) at clib.c:",
        "host_calls (",
        ", number=5) at tests/debuggers/harness/host.rs:",
    ]);
    session.to("info args").has(&["a = 0\nb = 1\n"]);
    session.to("info locals").has(&["local = 1\n"]);
    session.to("print lib_global").has(&["= 7\n"]);
    session.to("info symbol $pc").has(&["leaf + ", " in section .text of <in-memory@"]);
    session.to("info line leaf").has(&["of \"clib.c\" starts at address 0xADDRESS <leaf>"]);
    session.to("disassemble /s leaf").has(&["int leaf(int a, int b) {", "=> 0xADDRESS <+", "ret"]);
    session.to("up").has(&["in middle ("]);
    session.to("info locals").has(&["sum = 0\n"]);
}

/// As docs/how-to/debug-a-stripped-fleet.md says, with a core that the kernel left.
fn a_core_of_an_image_that_is_shown_to_nobody_is_read_with_its_file() {
    let library = library("gcc", "signals.c", &["-g", "-O0", "-Wl,--build-id"]);
    let load = format!("load a {}", library.display());
    let mut host = bare_host(&steps(&[&load, "call a give_up 1"]), Loader::Memdl);
    host.env("MEMDL_DEBUG", "off");
    let folder = Folder(scratch("cores"));
    let core = folder.core_of(host);

    let eu_unstrip = |arguments: &[&str], file: &Path| {
        let mut command = limited(60, "eu-unstrip");
        crate::common::run(command.args(arguments).arg(file), "elfutils")
    };
    // ADDRESS+SIZE BUILD-ID@ADDRESS FILE DEBUG-FILE NAME
    let of_file = eu_unstrip(&["-n", "-e"], &library);
    let build_id = of_file.split(' ').nth(1).unwrap().split('@').next().unwrap();
    assert_eq!(build_id.len(), 40, "{of_file}");
    let list = eu_unstrip(&["-n", "--core"], &core);
    let row = list.lines().find(|row| row.contains(build_id));
    let row = row.unwrap_or_else(|| panic!("no {build_id}:\n{list}"));
    assert!(row.ends_with(" . - [dso]"), "{row}");
    let (address, _) = row.split_once('+').unwrap();

    let add = format!("add-symbol-file {} -o {address}", library.display());
    let session =
        Gdb::of_core(&core).run(&["bt", &add, "bt", "frame function give_up", "print handled"]);
    session.to("bt").has(&["abort", "?? ()"]).has_not("give_up");
    session.to(&add).has(&["add symbol table from file"]);
    session.to("bt").has(&["abort", "in give_up (n=1) at signals.c:", "host_calls ("]);
    session.to("frame function give_up").has(&["MARK aborts"]);
    session.to("print handled").has(&["= 0"]);
}

fn assert_attached(session: &Replies) {
    session.to("break leaf").has(&["Breakpoint 1 at 0xADDRESS: file clib.c, line "]);
    session.to("continue").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:"]);
    session.to("bt").has(&[
        "#0  leaf (a=0, b=1) at clib.c:",
        " in middle (n=5, values=0xADDRESS) at clib.c:",
        " in entry (n=5) at clib.c:",
        "host_calls (",
    ]);
    session.to("info args").has(&["a = 0\nb = 1\n"]);
    session.to("info locals").has(&["local = 1\n"]);
    session.to("finish").has(&["Value returned is $"]);
    session.to("detach").has(&["detached"]);
}

// ---- Files that gdb opens ----

fn gdb_opens_no_file_for_a_library() {
    let library = Copy::of(&clib());
    let (load, erase) = (format!("load a {}", library.path()), format!("erase {}", library.path()));
    let mut host =
        start_host(&steps(&["await-debugger", &load, &erase, "call a entry 5", "unload a"]));
    host.await_output("awaits a debugger", 1);
    let trace = Copy(scratch("strace"));
    // Without `-f`: gdb tries out `ptrace` on a child of its own, and would wait for it forever.
    // All of gdb that opens files is in its first thread, as the harness sets it up.
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-s", "4096", "-e", "trace=%file", "-o", trace.path(), &gdb()]);
    let session = Gdb::attached_by(strace, &host).run(&[
        "break leaf",
        "set language c",
        "set var *(char *) &HOST_GOES = 1",
        "set language auto",
        "continue",
        "bt",
        "info locals",
        "list leaf",
        "info symbol $pc",
        "disassemble /s leaf",
        "finish",
        "delete",
        "continue",
    ]);
    // It did see the library.
    session.to("continue").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:"]);
    session.to("bt").has(&["#0  leaf (a=0, b=1) at clib.c:", "host_calls ("]);
    session.to("continue").has(&["exited normally"]);

    let trace = fs::read_to_string(&trace.0).unwrap();
    let opened: Vec<&str> = trace.lines().filter(|line| line.starts_with("open")).collect();
    let of = |what: &str| opened.iter().filter(|line| line.contains(what)).count();
    // It shows what gdb does open: the host, the source.
    assert!(of(std::env::current_exe().unwrap().to_str().unwrap()) > 0, "{trace}");
    assert!(of("clib.c\"") > 0, "{trace}");
    for file in [library.path(), "in-memory", "/proc/self/fd/", "memfd", "memdl:", "library.so"] {
        assert_eq!(of(file), 0, "gdb opens {file}:\n{}", opened.join("\n"));
    }
    let fds = format!("/proc/{}/fd/", host.id());
    assert_eq!(of(&fds), 0, "gdb opens {fds}:\n{}", opened.join("\n"));
    // Nor does it look for the file in any other way.
    assert!(!trace.contains(library.path()), "{trace}");
}

// ---- The seed: why memdl exists ----

/// Many times what gdb needs, and longer than the seed runs if gdb lets it.
const HANG: Duration = Duration::from_secs(15);
const SEED: &[&str] = &["break leaf", "run", "bt", "info locals", "kill"];
const SEED_ATTACHED: &[&str] = &["break leaf", "continue", "bt", "info locals", "delete", "detach"];

/// It was the time limit that ended gdb, which was waiting for something from one of its own
/// pipes, and had told nothing of the library.
fn assert_hung(run: &Run) {
    let transcript = &run.transcript;
    assert!(run.was_ended && run.took >= HANG, "gdb ended by itself:\n{transcript}");
    let pipe = run.reads.as_ref().and_then(|path| path.to_str());
    assert!(
        pipe.is_some_and(|pipe| pipe.starts_with("pipe:")),
        "gdb waits for {pipe:?}:\n{transcript}"
    );
    assert!(!transcript.contains("#0 ") && !transcript.contains("Breakpoint 1, "), "{transcript}");
}

fn gdb_hangs_on_a_memfd_that_was_dlopened_and_not_on_memdl() {
    let library = clib();
    let seed = program("tests/seed/memfd_dlopen.c");
    let arguments = [library.to_str().unwrap(), "entry", "5"];
    let run = Gdb::of_program(&seed, &arguments).limit(HANG).run_to_limit(SEED);
    assert_hung(&run);

    let session = Gdb::of_host(&load_and_call(&library)).limit(HANG).run(SEED);
    session.to("run").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:"]);
    session.to("bt").has(&["#0  leaf (a=0, b=1) at clib.c:", "host_calls ("]);
    session.to("info locals").has(&["local = "]);
}

fn gdb_hangs_when_attached_to_a_dlopened_memfd_and_not_to_memdl() {
    let library = clib();
    let mut seed = Command::new(program("tests/seed/memfd_dlopen.c"));
    seed.args([library.to_str().unwrap(), "entry", "5"]);
    let mut seed = Running::start(seed);
    seed.await_output("entry(5) = ", 2);
    let run = Gdb::attached(&seed).limit(HANG).run_to_limit(SEED_ATTACHED);
    assert_hung(&run);

    let load = format!("load a {}", library.display());
    let mut host = start_host(&steps(&[&load, "repeat a entry 5"]));
    host.await_output("entry(5) = ", 2);
    let session = Gdb::attached(&host).limit(HANG).run(SEED_ATTACHED);
    session.to("continue").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:"]);
    session.to("bt").has(&["#0  leaf (a=0, b=1) at clib.c:", "host_calls ("]);
    session.to("detach").has(&["detached"]);
}
