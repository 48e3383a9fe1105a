//! What gdb shows of a library that is in memory only. Each test runs gdb for real; the harness
//! in `gdb` gives every run a time limit and fails on any complaint of gdb's.

mod common;
mod gdb;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gdb::compare::as_with_dlopen;
use gdb::libraries::{Copy, library, load_and_call, mark, program, steps};
use gdb::{Gdb, Replies, Run, Running, scratch, start_host};

#[test]
#[ignore = "the program that the other tests debug: they start it"]
fn the_program_that_is_debugged() {
    gdb::host::main();
}

/// `clib.c` as most tests want it.
fn clib() -> PathBuf {
    library("gcc", "clib.c", &["-g", "-O0"])
}

// ---- The same as if it had come from a file ----

/// All that is asked of a library in C.
fn c_session(library: &Path) -> Replies {
    let in_compare = format!("break {}", mark("clib.c", "compare"));
    as_with_dlopen(
        library,
        &[
            "break lib_constructor",
            &in_compare,
            "break leaf",
            "info breakpoints",
            "run",
            "print lib_constructed",
            "info symbol $pc",
            "continue",
            "info breakpoints",
            "bt",
            "info args",
            "info locals",
            "delete 2",
            "continue",
            "bt",
            "info args",
            "next",
            "next",
            "next",
            "info locals",
            "up",
            "info locals",
            "down",
            "print both",
            "print shade",
            "print lib_global",
            "print &lib_global",
            "ptype both",
            "ptype enum color",
            "ptype leaf",
            "list leaf",
            "info source",
            "info line leaf",
            "info symbol leaf",
            "info symbol &lib_global",
            "info scope leaf",
            "info functions ^leaf$",
            "info variables ^lib_",
            "info types ^color$",
            "disassemble /s leaf",
            "x/3i $pc",
            "delete 3",
            "watch lib_global",
            "continue",
            "continue",
            "bt",
            "delete 4",
            "finish",
            "step",
            "step",
            "tbreak leaf",
            "continue",
            "finish",
            "delete",
            "continue",
        ],
    )
}

/// What must be there however it was compiled: a session that is the same as with `dlopen` could
/// still be without any use.
fn assert_c_session(session: &Replies, optimised: bool) {
    let compare = mark("clib.c", "compare");
    session.to("info breakpoints").has(&[
        "<PENDING>  lib_constructor",
        &format!("<PENDING>  {compare}"),
        "<PENDING>  leaf",
    ]);
    session.to("run").has(&["Breakpoint 1, lib_constructor () at clib.c:"]);
    session.to("continue").has(&["Breakpoint 2, compare (", &format!(" at {compare}\n")]);
    session
        .to("info breakpoints")
        .has(&[
            // By clang's optimised code, its line or that of its body.
            "in lib_constructor at clib.c:",
            "in compare at",
            "in leaf at clib.c:",
        ])
        .has_not("PENDING");
    session.to("bt").has(&[
        "#0  compare (",
        "qsort",
        " in entry (n=5",
        " at clib.c:",
        "host_calls (",
        ", number=5) at tests/gdb/host.rs:",
        "the_program_that_is_debugged",
    ]);
    session.to("info args").has(&["a = 0xADDRESS\nb = 0xADDRESS\n"]);
    session.to("info locals").has(&["left = ", "right = "]);
    session.to("continue").has(&["Breakpoint 3, leaf (a=", "b=1) at clib.c:"]);
    session.to("bt").has(&[
        "#0  leaf (a=",
        "b=1) at clib.c:",
        " in middle (n=",
        "5, values=",
        "0xADDRESS) at clib.c:",
        "in entry (n=5",
        "host_calls (",
    ]);
    session.to("info args").has(&["a = 0\nb = 1\n"]);
    session.to("info locals").has(if optimised { &["local = "] } else { &["local = 1\n"] });
    session.to("up").has(&["in middle (n="]);
    session.to("info locals").has(if optimised { &["sum = "] } else { &["sum = 0\n"] });
    session.to("print lib_global").has(&["$"]);
    session.to("print &lib_global").has(&["(int *) 0xADDRESS <lib_global>"]);
    session.to("ptype enum color").has(&["type = enum color {", "RED", "GREEN = 5", "BLUE"]);
    session.to("ptype leaf").has(&["type = int (int, int)"]);
    session.to("list leaf").has(&["int leaf(int a, int b) {", "int local = a * 3 + b;"]);
    session.to("info source").has(&["Located in ", "Compiled with DWARF"]);
    session.to("info symbol leaf").has(&["leaf in section .text of <in-memory@0xADDRESS>"]);
    session.to("info symbol &lib_global").has(&["lib_global in section .data of"]);
    session.to("info functions ^leaf$").has(&["File clib.c:", "int leaf(int, int);"]);
    session.to("disassemble /s leaf").has(&[
        "Dump of assembler code for function leaf:\nclib.c:\n",
        "int leaf(int a, int b) {",
        "<+0>:",
        "// MARK leaf",
        "ret",
    ]);
    session.to("x/3i $pc").has(&["=> 0xADDRESS <leaf+"]);
    session.to("watch lib_global").has(&["watchpoint 4: lib_global"]);
    session.to("continue").has(&["watchpoint 4: lib_global", "Old value = ", "New value = "]);
    session.to("finish").has(&["Value returned is $"]);
    session.to("continue").has(&["Temporary breakpoint 5, leaf (a="]);
    session.to("finish").has(&["Value returned is $"]);
    session.to("continue").has(&["exited normally"]);
}

macro_rules! c_library_is_debugged_as_with_dlopen {
    ($($name:ident: $compiler:literal $($flag:literal)*;)*) => {$(
        #[test]
        fn $name() {
            let flags = [$($flag),*];
            let session = c_session(&library($compiler, "clib.c", &flags));
            assert_c_session(&session, flags.contains(&"-O2"));
        }
    )*};
}

c_library_is_debugged_as_with_dlopen! {
    c_by_gcc_unoptimised_dwarf4_is_debugged_as_with_dlopen: "gcc" "-O0" "-gdwarf-4";
    c_by_gcc_unoptimised_dwarf5_is_debugged_as_with_dlopen: "gcc" "-O0" "-gdwarf-5";
    c_by_gcc_optimised_dwarf4_is_debugged_as_with_dlopen: "gcc" "-O2" "-gdwarf-4";
    c_by_gcc_optimised_dwarf5_is_debugged_as_with_dlopen: "gcc" "-O2" "-gdwarf-5";
    c_by_clang_unoptimised_dwarf4_is_debugged_as_with_dlopen: "clang" "-O0" "-gdwarf-4";
    c_by_clang_unoptimised_dwarf5_is_debugged_as_with_dlopen: "clang" "-O0" "-gdwarf-5";
    c_by_clang_optimised_dwarf4_is_debugged_as_with_dlopen: "clang" "-O2" "-gdwarf-4";
    c_by_clang_optimised_dwarf5_is_debugged_as_with_dlopen: "clang" "-O2" "-gdwarf-5";
}

fn cpp_session(flags: &[&str]) {
    let area = mark("cpplib.cc", "area");
    let library = library("g++", "cpplib.cc", flags);
    let by_line = format!("tbreak {area}");
    // Optimised, gcc marks no beginning of a statement in that function, and gdb asks for one.
    let optimised = flags.contains(&"-O2");
    let before: &[&str] = if optimised { &[] } else { &[&by_line] };
    let after: &[&str] =
        if optimised { &[] } else { &["continue", "info locals", "print unit", "print sizes"] };
    let commands = [
        before,
        &["break shapes::Square<long>::area", "run", "bt"],
        after,
        &[
            "info args",
            "print *this",
            "ptype this",
            "info vtbl this",
            "info symbol $pc",
            "up",
            "ptype base",
            "print *base",
            "down",
            "finish",
            "delete",
            "continue",
        ],
    ];
    let session = as_with_dlopen(&library, &commands.concat());
    session.to("run").has(&["reakpoint ", ", shapes::Square<long>::area (this=", "=5) at "]);
    session.to("bt").has(&[
        "#0  shapes::Square<long>::area (this=",
        " in entry (n=5) at cpplib.cc:",
        "host_calls (",
        ", number=5) at tests/gdb/host.rs:",
    ]);
    if !optimised {
        session
            .to("continue")
            .has(&["Temporary breakpoint 1, shapes::Square<long>::area (this=", &area]);
        session.to("info locals").has(&["unit = ", "squared = 9\n"]);
    }
    session.to("info args").has(&["scale = 5\n"]);
    session.to("print *this").has(&[
        "<shapes::Base> = {_vptr.Base = 0xADDRESS <vtable for shapes::Square<long>+16>}, side = 3",
    ]);
    session.to("ptype this").has(&[
        "struct shapes::Square<long> [with T = long] : public shapes::Base",
        "std::vector<int",
    ]);
    session.to("info vtbl this").has(&[
        "vtable for 'shapes::Square<long>'",
        "[2]: 0xADDRESS <shapes::Square<long>::area(int)>",
    ]);
    session.to("info symbol $pc").has(&["shapes::Square<long>::area(int)", " in section .text"]);
    session.to("ptype base").has(&["virtual int area(int);"]);
    session.to("finish").has(&["Value returned is $", " = 48\n"]);
    session.to("continue").has(&["exited normally"]);
}

macro_rules! session_test {
    ($($name:ident: $session:ident $($flag:literal)*;)*) => {$(
        #[test]
        fn $name() {
            $session(&[$($flag),*]);
        }
    )*};
}

session_test! {
    cpp_unoptimised_dwarf4_is_debugged_as_with_dlopen: cpp_session "-O0" "-gdwarf-4";
    cpp_unoptimised_dwarf5_is_debugged_as_with_dlopen: cpp_session "-O0" "-gdwarf-5";
    cpp_optimised_dwarf4_is_debugged_as_with_dlopen: cpp_session "-O2" "-gdwarf-4";
    cpp_optimised_dwarf5_is_debugged_as_with_dlopen: cpp_session "-O2" "-gdwarf-5";
    rust_unoptimised_is_debugged_as_with_dlopen: rust_session "-g" "-Copt-level=0";
    rust_optimised_is_debugged_as_with_dlopen: rust_session "-g" "-Copt-level=2";
}

fn rust_session(flags: &[&str]) {
    let area = mark("rustlib.rs", "area");
    let library = library("rustc", "rustlib.rs", flags);
    let session = as_with_dlopen(
        &library,
        &[
            "break rustlib::shapes::area",
            &format!("tbreak {area}"),
            "run",
            "bt",
            "continue",
            "info args",
            "info locals",
            "print *shape",
            "ptype shape",
            "info symbol $pc",
            "next",
            "up",
            "info locals",
            "down",
            "finish",
            "continue",
            "delete",
            "continue",
        ],
    );
    session
        .to("run")
        .has(&["Breakpoint 1, rustlib::shapes::area (shape=0xADDRESS, scale=5) at rustlib.rs:"]);
    session.to("bt").has(&[
        "#0  rustlib::shapes::area (",
        " in rustlib::entry (n=5) at rustlib.rs:",
        "host_calls (",
        ", number=5) at tests/gdb/host.rs:",
    ]);
    session.to("continue").has(&["Temporary breakpoint 2, rustlib::shapes::area (shape="]);
    session.to("info args").has(&["shape = 0xADDRESS\nscale = 5\n"]);
    session.to("info locals").has(&["factors = alloc::vec::Vec<i32, "]);
    session.to("print *shape").has(&["rustlib::shapes::Shape::Rectangle{width: 3, height: 4}"]);
    session.to("ptype shape").has(&["*mut rustlib::shapes::Shape"]);
    session
        .to("info symbol $pc")
        .has(&["rustlib::shapes::area", " in section .text of <in-memory@"]);
    session.to("info locals").has(&["circle = rustlib::shapes::Shape::Circle(1)\n"]);
    session.to("finish").has(&["Value returned is $", " = 60\n"]);
    session.to("continue").has(&["Breakpoint 1, rustlib::shapes::area ("]);
    session.to("continue").has(&["exited normally"]);
}

// ---- What has no debug sections ----

#[test]
fn a_stripped_library_has_its_dynamic_names_and_right_backtraces() {
    let library = Copy::of(&library("gcc", "clib.c", &["-O2"]));
    common::run(Command::new("strip").arg("-s").arg(&library.0), "binutils");
    assert_names_and_backtraces(&as_with_dlopen(&library.0, NAMES));
}

#[test]
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
        ", number=5) at tests/gdb/host.rs:",
        "the_program_that_is_debugged",
    ]);
    session.to("info symbol $pc").has(&["leaf"]);
    session.to("x/2i $pc").has(&["=> 0xADDRESS <leaf"]);
    session.to("info symbol &lib_global").has(&["lib_global in section "]);
    session.to("x/i $pc").has(&["<middle+"]);
    session.to("continue").has(&["exited normally"]);
}

// ---- How much is told ----

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

#[test]
fn the_program_chooses_how_much_gdb_is_told() {
    for choice in ["off", "symbols", "full"] {
        assert_eq!(seen_with(choice, None), choice);
    }
}

#[test]
fn the_environment_overrides_how_much_gdb_is_told() {
    for (program, operator) in [("full", "off"), ("off", "symbols"), ("off", "full")] {
        assert_eq!(seen_with(program, Some(operator)), operator);
    }
    assert_eq!(seen_with("symbols", Some("everything")), "symbols");
}

// ---- Unloading, loading again, two at a time ----

#[test]
fn breakpoints_stay_and_values_are_fresh_in_an_instance_that_is_used_again() {
    let acquire = |name: &str| format!("acquire {name} {}", clib().display());
    let (a, b) = (acquire("a"), acquire("b"));
    let host = steps(&[&a, "call a entry 5", "unload a", "pause", &b, "call b entry 5"]);
    // A thread-local has no place before the thread's first use of it: the second call of `leaf`.
    let session = Gdb::of_host(&host).run(&[
        "break host_pauses",
        "break leaf",
        "ignore 2 1",
        "run",
        "print lib_global",
        "print lib_thread",
        "set variable lib_static = 1234",
        "set variable lib_thread = 4321",
        "set $there = $pc",
        "ignore 2 100",
        "watch -location lib_global",
        "continue",
        "delete 3",
        "continue",
        "with language c -- print lib_global",
        "with language c -- print lib_static",
        "with language c -- print lib_constructed",
        "info breakpoints",
        "ignore 2 1",
        "continue",
        "print $pc == $there",
        "print lib_global",
        "print lib_thread",
        "bt",
        "watch -location lib_global",
        "continue",
        "delete",
        "continue",
    ]);
    session.to("run").has(&["Breakpoint 2, leaf (a=1, b=2) at clib.c:"]);
    session.to("print lib_global").has(&["= 8\n"]);
    session.to("print lib_thread").has(&["= 100\n"]);
    session.to("continue").has(&["watchpoint 3: -location lib_global", "Old value = 8\n"]);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    session.to("with language c -- print lib_global").has(&["= 7\n"]);
    session.to("with language c -- print lib_static").has(&["= 9\n"]);
    session.to("with language c -- print lib_constructed").has(&["= 1\n"]);
    session.to("info breakpoints").has(&["in leaf at clib.c:"]).has_not("PENDING");
    session.to("continue").has(&["acquired b", "Breakpoint 2, leaf (a=1, b=2) at clib.c:"]);
    session.to("print $pc == $there").has(&["= 1\n"]);
    session.to("print lib_global").has(&["= 8\n"]);
    session.to("print lib_thread").has(&["= 100\n"]);
    session.to("bt").has(&["#0  leaf (", " in middle (", " in entry (", "host_calls ("]);
    session.to("continue").has(&["watchpoint 4: -location lib_global", "Old value = 8\n"]);
    session.to("continue").has(&["done", "exited normally"]);
}

#[test]
fn after_unloading_nothing_is_stale_and_a_load_elsewhere_is_seen() {
    let load = format!("load a {}", clib().display());
    let again = format!("load b {}", clib().display());
    let middle = mark("clib.c", "middle");
    let by_line = format!("break {middle}");
    let session = Gdb::of_host(&steps(&[
        &load,
        "call a entry 5",
        "unload a",
        "bury a",
        "pause",
        "check",
        &again,
        "call b entry 5",
        "check",
        "unload b",
        "bury b",
        "pause",
        "check",
    ]))
    .run(&[
        "break host_pauses",
        "break leaf",
        &by_line,
        "run",
        "set $there = $pc",
        "continue",
        "ignore 2 10",
        "ignore 3 10",
        "info breakpoints",
        "maintenance print objfiles in-memory",
        "continue",
        "info breakpoints",
        "maintenance print objfiles in-memory",
        "info symbol $there",
        "x/2xb $there",
        "ignore 2 0",
        "ignore 3 0",
        "continue",
        "print $pc != $there",
        "continue",
        "bt",
        "info breakpoints",
        "ignore 2 10",
        "ignore 3 10",
        "continue",
        "info breakpoints",
        "maintenance print objfiles in-memory",
        "continue",
    ]);
    let at_middle = format!("Breakpoint 3, middle (n=5, values=0xADDRESS) at {middle}\n");
    session.to("run").has(&[&at_middle]);
    session.to("continue").has(&["Breakpoint 2, leaf (a=0, b=1) at clib.c:"]);
    session
        .to("info breakpoints")
        .has(&["in leaf at clib.c:", &format!("in middle at {middle}")])
        .has_not("PENDING");
    session.to("maintenance print objfiles in-memory").has(&["<in-memory@"]);

    session.to("continue").has(&["unloaded a", "host_pauses ()"]).has_not("leaf");
    session
        .to("info breakpoints")
        .has(&["<PENDING>  ", "leaf\n", "<PENDING>  ", &middle])
        .has_not("in leaf at");
    session.to("maintenance print objfiles in-memory").has_not("in-memory");
    session.to("info symbol $there").has(&["No symbol matches $there."]);
    // What was put there is text of nobody's, in which gdb sees no breakpoint of its own.
    session.to("x/2xb $there").has(&["0x1"]).has_not("0xcc");

    session.to("continue").has(&["0 bytes differ", "loaded b", &at_middle]);
    session.to("print $pc != $there").has(&["= 1\n"]);
    session.to("continue").has(&["Breakpoint 2, leaf (a=0, b=1) at clib.c:"]);
    session.to("bt").has(&["#0  leaf (", " in middle (", " in entry (", "host_calls ("]);
    session.to("info breakpoints").has(&["in leaf at clib.c:"]).has_not("PENDING");

    session.to("continue").has(&["0 bytes differ", "unloaded b", "host_pauses ()"]);
    session.to("info breakpoints").has(&["<PENDING>  ", "leaf\n"]).has_not("in leaf at");
    session.to("maintenance print objfiles in-memory").has_not("in-memory");
    session.to("continue").has(&[
        "0 bytes differ\n",
        "0 bytes differ\n",
        "done",
        "exited normally",
    ]);
}

/// After a `dlclose`, gdb 13.1 crashes here, which is why `tests/parity.rs` does not compare it.
#[test]
fn a_watchpoint_on_a_variable_is_there_again_when_the_library_is() {
    let load = format!("load a {}", clib().display());
    let session = Gdb::of_host(&steps(&[
        &load,
        "call a entry 5",
        "unload a",
        "pause",
        &load,
        "call a entry 5",
    ]))
    .run(&[
        "break host_pauses",
        "tbreak leaf",
        "run",
        "watch lib_global",
        "continue",
        "ignore 3 10",
        "continue",
        "info watchpoints",
        "ignore 3 0",
        "continue",
        "delete",
        "continue",
    ]);
    session.to("watch lib_global").has(&["Hardware watchpoint 3: lib_global"]);
    session.to("continue").has(&["Old value = 7\nNew value = 8\n"]);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    session.to("info watchpoints").has(&["hw watchpoint  keep y", "lib_global"]);
    session.to("continue").has(&[
        "loaded a",
        "watchpoint 3: lib_global",
        "New value = 8\nleaf (a=0",
    ]);
    session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
}

/// The session of a host whose library goes, in this way, while there are breakpoints in it, and
/// whose memory is used again before anything else is loaded.
fn unloaded_under_breakpoints(way: &str) -> Replies {
    let load = format!("load a {}", clib().display());
    let by_line = format!("break {}", mark("clib.c", "middle"));
    Gdb::of_host(&steps(&[&load, "call a entry 5", way, "bury a", "pause", "check", "pause"]))
        .run_unchecked(&[
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
    session.to("run").has(&["Breakpoint 3, middle ("]);
    let byte = || session.to("output/x *(unsigned char *) $pc").text().trim().to_owned();
    let bytes = [byte(), byte()];
    assert!(bytes.iter().all(|byte| byte.starts_with("0x")), "{bytes:?} in\n{session}");
    bytes
}

/// What memdl's second event under a debugger is for: without it, gdb writes bytes of a library that
/// is gone into what has taken its place.
#[test]
fn without_the_cure_gdb_writes_into_what_takes_the_place_of_a_library() {
    let session = unloaded_under_breakpoints("unload a uncured");
    let bytes = bytes_under_breakpoints(&session);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    let check = session.to("continue");
    check.has(&["2 bytes differ\n"]);
    for byte in bytes {
        check.has(&[&format!(" is {byte}\n")]);
    }
}

#[test]
fn with_the_cure_gdb_leaves_alone_what_takes_the_place_of_a_library() {
    let session = unloaded_under_breakpoints("unload a");
    session.assert_no_complaint();
    bytes_under_breakpoints(&session);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    session.to("continue").has(&["0 bytes differ\n", "host_pauses ()"]);
}

/// A breakpoint at a bare address stays when there are no symbols any more. (With `dlopen` gdb knows
/// that its library went, by the dynamic linker's list.)
#[test]
fn gdb_leaves_alone_what_follows_a_library_with_a_breakpoint_at_an_address() {
    let load = format!("load a {}", clib().display());
    let host =
        steps(&[&load, "call a entry 5", "unload a", "bury a if-free", "pause", "check", "pause"]);
    let session = Gdb::of_host(&host).run(&[
        "break host_pauses",
        "tbreak leaf",
        "run",
        "eval \"break *%p\", $pc",
        "ignore 3 10",
        "continue",
        "delete 3",
        "continue",
        "kill",
    ]);
    session.to("continue").has(&["unloaded a", "host_pauses ()"]);
    session.to("continue").has(&["host_pauses ()"]).has_not(" is 0x");
}

/// gdb looks for the block of a library that has no file in the wrong place, and writes there: the
/// locations have to lead it to the right one, wherever the block lies.
#[test]
fn thread_locals_are_printed_and_set_where_they_are() {
    for model in ["global-dynamic", "local-dynamic", "initial-exec"] {
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            let model = format!("-ftls-model={model}");
            let path = library("gcc", "clib.c", &[dwarf, "-O0", &model]);
            let session = Gdb::of_host(&steps(&[
                &format!("load a {}", path.display()),
                "call a entry 5",
                "call a entry 5",
            ]))
            .run(&[
                "break leaf",
                "run",
                "next",
                "next",
                "next",
                "next",
                "next",
                "print lib_thread",
                "set var lib_thread = 5",
                "print lib_thread",
                "print *&lib_thread",
                "print lib_global",
                "delete",
                "continue",
            ]);
            session.to("print lib_thread").has(&["$1 = 100\n"]);
            session.to("print *&lib_thread").has(&["$3 = 5\n"]);
            // What the library computes with it says that it was set, and set there: 514 without.
            session.to("continue").has(&["entry(5) = 704"]);
        }
    }
}

/// Where a block is reached by no constant way, nothing is better than another variable's value.
#[test]
fn a_thread_local_that_cannot_be_found_is_not_shown() {
    let path = clib();
    let mut all: Vec<String> =
        (0..40).map(|number| format!("load a{number} {}", path.display())).collect();
    all.push("call a39 entry 5".to_owned());
    let session =
        Gdb::of_host(&all).run(&["break leaf", "run", "print lib_thread", "print lib_global"]);
    session.to("print lib_thread").has(&["stack only has 0 elements"]).has_not("$1");
    session.to("print lib_global").has(&["$1 = 7\n"]);
}

/// As README.md says: gdb is not told that a library went as it is of a file.
#[test]
fn a_breakpoint_set_in_a_library_that_is_there_is_enabled_again_when_it_is_back() {
    let path = clib();
    let load = |name: &str| format!("load {name} {}", path.display());
    let (a, b, again) = (load("a"), load("b"), load("a"));
    let together = [&*a, &b, "pause", "unload b", "call a entry 1"];
    let apart = ["unload a", "pause", &again, "pause", "call a entry 1"];
    let commands = ["break host_pauses", "run", "break leaf", "continue", "info breakpoints"];
    // Gone with the last of the library: at the first and the second pause.
    let rest = ["continue", "info breakpoints", "continue", "enable 2", "continue", "bt 1"];
    let session = Gdb::of_host(&steps(&[&together[..], &apart].concat()))
        .run_unchecked(&[&commands[..], &rest, &["delete", "continue"]].concat());
    session.to("break leaf").has(&["Breakpoint 2 at ", "2 locations"]);
    session.to("continue").has(&["leaf (a=0, b=1) at clib.c:24"]);
    session.to("info breakpoints").has(&["keep y   0xADDRESS", "in leaf at clib.c:24"]);
    session.to("continue").has(&["host_pauses ()"]);
    session.to("info breakpoints").has(&["breakpoint     keep n"]);
    session.to("continue").has(&["host_pauses ()"]);
    session.to("continue").has(&["leaf (a=0, b=1) at clib.c:24"]);
    session.to("continue").has(&["exited normally"]);
}

/// What is not there yet is not at an address, that far from which something else could be.
#[test]
fn a_thread_local_that_the_thread_has_not_used_yet_has_no_address() {
    let commands = ["break leaf", "run", "print lib_thread", "set var lib_thread = 5"];
    let rest = ["print (long)&lib_thread < 0", "next 5", "print lib_thread", "delete", "continue"];
    let session =
        Gdb::of_host(&load_and_call(&clib())).run_unchecked(&[&commands[..], &rest].concat());
    for command in &commands[2..] {
        session.to(command).has(&["Cannot access memory at address"]);
    }
    session.to("print (long)&lib_thread < 0").has(&["$1 = 1\n"]);
    session.to("print lib_thread").has(&["$2 = 100\n"]);
    session.to("continue").has(&["entry(5) = 514\n"]);
}

#[test]
fn two_libraries_with_the_same_names_are_both_seen() {
    let (first, second) = (clib(), library("gcc", "twin.c", &["-g", "-O0"]));
    let session = Gdb::of_host(&steps(&[
        &format!("load a {}", first.display()),
        &format!("load b {}", second.display()),
        "call b entry 5",
        "call a entry 1",
        "unload b",
        "pause",
        "call a entry 1",
    ]))
    .run(&[
        "break host_pauses",
        "break leaf",
        "run",
        "next",
        "info locals",
        "bt",
        "info breakpoints",
        "continue",
        "next",
        "info locals",
        "bt",
        "continue",
        "info breakpoints",
        "continue",
        "continue",
    ]);
    session.to("run").has(&["Breakpoint 2", ", leaf (a=5, b=1) at twin.c:"]);
    session.to("info locals").has(&["twin_local = 4\n"]);
    session.to("bt").has(&[
        "#0  leaf (a=5, b=1) at twin.c:",
        " in entry (n=5) at twin.c:",
        "host_calls (",
    ]);
    session
        .to("info breakpoints")
        .has(&["<MULTIPLE>", "2.1 "])
        .has(&["2.2 "])
        .has(&["in leaf at clib.c:"])
        .has(&["in leaf at twin.c:"]);
    session.to("continue").has(&["entry(5) = 5\n", "Breakpoint 2", ", leaf (a=0, b=1) at clib.c:"]);
    session.to("info locals").has(&["local = 1\n"]);
    session.to("bt").has(&["#0  leaf (a=0, b=1) at clib.c:", " in entry (n=1) at clib.c:"]);
    session.to("continue").has(&["unloaded b", "host_pauses ()"]);
    session.to("info breakpoints").has(&["in leaf at clib.c:"]).has_not("twin.c");
    session.to("continue").has(&["Breakpoint 2, leaf (a=0, b=1) at clib.c:"]);
    session.to("continue").has(&["exited normally"]);
}

/// gdb looks at all instances for each event: so of those beyond `Limits::instances_in_full` it is told
/// names, and breakpoints are hit all the same.
#[test]
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
    session.to("info breakpoints").has(&["<PENDING>  ", "leaf\n"]).has_not("<leaf+");
    session.to("continue").has(&["exited normally"]);
}

// ---- Coming late ----

#[test]
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

#[test]
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
        ", number=5) at tests/gdb/host.rs:",
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

#[test]
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
    strace.args(["-qq", "-s", "4096", "-e", "trace=%file", "-o", trace.path(), &gdb::gdb()]);
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

#[test]
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

#[test]
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
