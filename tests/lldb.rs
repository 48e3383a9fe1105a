//! What lldb shows of a library that is in memory only, in the form that lldb reads. Each test runs
//! lldb for real, every version of it that the set-up brings: [`gdb::lldb`] starts it. Where
//! nothing else is said, lldb says the same of a library that `dlopen` loaded from its file.

mod common;
mod gdb;

use std::path::{Path, PathBuf};
use std::process::Command;

use gdb::host::Loader;
use gdb::libraries::{Copy, library, mark, steps};
use gdb::lldb::{Lldb, Version, as_with_dlopen, as_with_dlopen_in, assert_same, load_and_call};
use gdb::{Gdb, Replies, scratch, start_host};

#[test]
#[ignore = "the program that the other tests debug: they start it"]
fn the_program_that_is_debugged() {
    gdb::host::main();
}

/// Each test, with each lldb.
macro_rules! with_lldb {
    ($($name:ident: $test:ident $(($($argument:expr),*))?;)*) => {
        mod lldb_14 {
            use super::*;
            $(#[test] fn $name() { super::$test(Version::V14 $($(, $argument)*)?); })*
        }
        mod lldb_19 {
            use super::*;
            $(#[test] fn $name() { super::$test(Version::V19 $($(, $argument)*)?); })*
        }
    };
}

with_lldb! {
    c_by_gcc_unoptimised_dwarf4: c_session("gcc", &["-O0", "-gdwarf-4"]);
    c_by_gcc_unoptimised_dwarf5: c_session("gcc", &["-O0", "-gdwarf-5"]);
    c_by_gcc_optimised_dwarf4: c_session("gcc", &["-O2", "-gdwarf-4"]);
    c_by_gcc_optimised_dwarf5: c_session("gcc", &["-O2", "-gdwarf-5"]);
    c_by_clang_unoptimised_dwarf4: c_session("clang", &["-O0", "-gdwarf-4"]);
    c_by_clang_unoptimised_dwarf5: c_session("clang", &["-O0", "-gdwarf-5"]);
    c_by_clang_optimised_dwarf4: c_session("clang", &["-O2", "-gdwarf-4"]);
    c_by_clang_optimised_dwarf5: c_session("clang", &["-O2", "-gdwarf-5"]);
    cpp_by_gcc_dwarf4: cpp_session("g++", &["-O0", "-gdwarf-4"]);
    cpp_by_gcc_optimised_dwarf4: optimised_cpp_session("g++", &["-O2", "-gdwarf-4"]);
    cpp_by_gcc_optimised_dwarf5: optimised_cpp_session("g++", &["-O2", "-gdwarf-5"]);
    cpp_by_clang_dwarf5: cpp_session("clang++", &["-O0", "-gdwarf-5", "-fstandalone-debug"]);
    containers_of_the_standard_library_are_shown: containers;
    exceptions_are_caught_where_they_are_thrown: exceptions;
    rust_unoptimised: rust_session(&["-g", "-Copt-level=0"]);
    rust_optimised: rust_session(&["-g", "-Copt-level=2"]);
    compressed_debug_sections_are_read: compressed;
    what_dwz_shared_is_not_read: shared_by_dwz;
    split_dwarf_in_a_package_is_read: packed;
    breakpoints_outlive_the_library: unloading;
    a_reload_elsewhere_is_as_with_dlopen: reloading;
    nothing_is_stale_after_unloading_and_a_load_elsewhere_is_seen: unloading_for_another;
    two_libraries_with_the_same_names_are_both_seen: two_libraries;
    all_instances_of_a_template_are_seen: instances;
    lldb_attaches_to_a_running_process_and_leaves_it_running: attaching;
    a_core_by_gdb_shows_names_lines_and_variables: core_by_gdb;
    a_core_by_lldb_shows_the_host_and_with_the_file_all: core_by_lldb;
    the_program_chooses_how_much_lldb_is_told: choices;
    the_environment_overrides_how_much_lldb_is_told: overrides;
    a_person_at_the_prompt_asks_for_all: asking_for_all;
    a_person_at_the_prompt_gives_the_debug_file: giving_the_debug_file;
    the_program_tells_all_later: telling_later;
    a_thread_local_is_never_shown_wrong: thread_locals;
}

/// `clib.c` as most tests want it.
fn clib() -> PathBuf {
    library("gcc", "clib.c", &["-g", "-O0"])
}

/// As lldb sets a breakpoint at a mark.
fn at_mark(source: &str, name: &str) -> String {
    let mark = mark(source, name);
    let (file, line) = mark.split_once(':').unwrap();
    format!("breakpoint set -f {file} -l {line}")
}

fn c_session(lldb: Version, compiler: &str, flags: &[&str]) {
    let library = library(compiler, "clib.c", flags);
    let session = as_with_dlopen(
        lldb,
        &library,
        &[
            "breakpoint set -n lib_constructor",
            &at_mark("clib.c", "compare"),
            "breakpoint set -n leaf -c 'a == 2'",
            "breakpoint list",
            "run",
            "target variable lib_constructed",
            "continue",
            "breakpoint list",
            "bt",
            "frame variable",
            "breakpoint disable 2",
            "continue",
            "bt 4",
            "frame variable --no-locals",
            "thread step-over",
            "thread step-over",
            "thread step-over",
            "frame variable",
            "expression both",
            "expression shade",
            "up",
            "frame variable",
            "down",
            "target variable lib_global",
            "expression lib_global + 1",
            "expression lib_static",
            "expression &lib_global",
            "expression leaf(3, 4)",
            "source list -n leaf",
            "image lookup -a $pc",
            "image lookup -v -n leaf",
            "image lookup -t pair",
            "image lookup -s lib_global",
            "disassemble -n leaf",
            "watchpoint set variable lib_global",
            "breakpoint disable 3",
            "continue",
            "bt 3",
            "watchpoint delete",
            "thread step-out",
            "thread step-in",
            "thread step-in",
            "breakpoint delete",
            "thread step-out",
            "thread step-out",
            "continue",
        ],
    );
    // What must be there however it was compiled: sessions that are the same may be both useless.
    let optimised = flags.contains(&"-O2");
    session.to("breakpoint list").has(&[
        "1: name = 'lib_constructor', locations = 0 (pending)",
        "2: file = 'clib.c'",
        "locations = 0 (pending)",
        "3: name = 'leaf', locations = 0 (pending)",
    ]);
    session.to("run").has(&["stop reason = breakpoint 1.1", "`lib_constructor at clib.c:"]);
    session.to("target variable lib_constructed").has(&["(int) lib_constructed = 0\n"]);
    session.to("continue").has(&[
        "stop reason = breakpoint 2.1",
        "`compare(a=0xADDRESS",
        " at clib.c:42",
    ]);
    session
        .to("breakpoint list")
        .has(&["`lib_constructor", " at clib.c:"])
        .has(&["`compare", " at clib.c:42"])
        .has(&["leaf", " at clib.c:2"])
        .has_not("pending");
    session.to("bt").has(&[
        "* frame #0: 0xADDRESS JIT(0xADDRESS)`compare(a=0xADDRESS",
        " libc.so.6`",
        "JIT(0xADDRESS)`entry(n=5) at clib.c:47",
        "::host_calls::",
        ", number=5) at host.rs:",
    ]);
    session.to("frame variable").has(&["(int) left = 7\n", "(int) right = "]);
    session
        .to("continue")
        .has(&["stop reason = breakpoint 3.1", "JIT(0xADDRESS)`leaf(a=2, b=3) at clib.c:2"]);
    session.to("bt 4").has(&[
        "`leaf(a=2, b=3) at clib.c:2",
        "`middle(n=",
        " at clib.c:35",
        "`entry(n=5) at clib.c:48",
        "::host_calls::",
    ]);
    session.to("frame variable --no-locals").has(&["(int) a = 2\n(int) b = 3\n"]);
    session.to("frame variable").has(&["(int) local = "]);
    if !optimised {
        session.to("expression both").has(&["(first = 9, name = \"pair\", ratio = 1.5)"]);
        session.to("expression shade").has(&["= GREEN\n"]);
        session.to("frame variable").has(&["(int) n = 5\n", "(int) i = 2\n"]);
    }
    session.to("target variable lib_global").has(&["(int) lib_global = "]);
    session.to("expression &lib_global").has(&["(int *) $", " = 0xADDRESS\n"]);
    session.to("expression leaf(3, 4)").has(&["(int) $", " = "]);
    session
        .to("source list -n leaf")
        .has(&["23  \t__attribute__((noinline)) int leaf(int a, int b) {"]);
    session.to("image lookup -a $pc").has(&["..text + ", "`leaf + ", " at clib.c:2"]);
    session.to("image lookup -v -n leaf").has(&[
        "1 match found in JIT(0xADDRESS)",
        "name = \"leaf\"",
        "compiler_type = \"int (int, int)\"",
        "LineEntry: ",
    ]);
    session.to("image lookup -t pair").has(&["byte-size = 24", "const char *name;"]);
    session.to("disassemble -n leaf").has(&["`leaf:\n", " <+0>:", "->  0xADDRESS <+", "retq"]);
    session.to("watchpoint set variable lib_global").has(&["Watchpoint created: Watchpoint 1: "]);
    session.to("continue").has(&["new value: ", "stop reason = watchpoint 1", "`leaf("]);
    session.to("thread step-out").has(&["stop reason = step out", "`middle("]);
    session.to("thread step-in").has(&["stop reason = step in"]);
    session.to("continue").has(&["exited with status = 0"]);
    session.to("host").has(&["[host] loaded a\n", "[host] entry(5) = ", "[host] done\n"]);
}

fn cpp_session(lldb: Version, compiler: &str, flags: &[&str]) {
    let library = library(compiler, "cpplib.cc", flags);
    let session = as_with_dlopen(
        lldb,
        &library,
        &[
            "breakpoint set -n area",
            &at_mark("cpplib.cc", "area"),
            "run",
            "bt 3",
            "breakpoint disable 1",
            "continue",
            "breakpoint list",
            "frame variable",
            "expression *this",
            "expression side + scale",
            "expression squared",
            "up",
            "expression *base",
            "frame variable -d run-target base",
            "expression base->area(2)",
            "image lookup -n shapes::Square<long>::area",
            "image lookup -t Base",
            "down",
            "breakpoint delete",
            "thread step-out",
            "continue",
        ],
    );
    session.to("run").has(&["stop reason = breakpoint 1.1", "`shapes::Square<long>::area("]);
    session.to("breakpoint list").has(&[
        "1.1: where = JIT(0xADDRESS)`shapes::Square<long>::area(int)",
        "2.1: where = JIT(0xADDRESS)`shapes::Square<long>::area(int)",
        " at cpplib.cc:2",
    ]);
    session.to("frame variable").has(&["this = 0xADDRESS\n", "scale = 5\n"]);
    session.to("expression *this").has(&["side = 3\n", "sizes = size=4 {\n  ", "[3] = 5\n"]);
    session.to("expression side + scale").has(&["(long) $", " = 8\n"]);
    session.to("expression squared").has(&[" = 9\n"]);
    session.to("frame variable -d run-target base").has(&[" base = 0xADDRESS\n"]);
    session.to("expression base->area(2)").has(&["(int) $", " = 21\n"]);
    let base = session.to("image lookup -t Base");
    base.has(&["qualified = \"shapes::Base\"", "virtual int area(int)"]);
    session.to("thread step-out").has(&["Return value: (int) $", " = 48\n"]);
    session.to("continue").has(&["exited with status = 0"]);
}

/// Optimised, the function begins with what was inlined into it, and no line of it begins a
/// statement.
fn optimised_cpp_session(lldb: Version, compiler: &str, flags: &[&str]) {
    let library = library(compiler, "cpplib.cc", flags);
    let session = as_with_dlopen(
        lldb,
        &library,
        &[
            "breakpoint set -n area",
            "run",
            "bt 8",
            "breakpoint list",
            "thread step-over",
            "thread step-in",
            "bt 2",
            "breakpoint delete",
            "image lookup -n shapes::Square<long>::area",
            "thread step-out",
            "continue",
        ],
    );
    session.to("run").has(&["stop reason = breakpoint 1.1", "`shapes::Square<long>::area("]);
    session.to("bt 8").has(&[
        "JIT(0xADDRESS)`shapes::Square<long>::area(",
        "[inlined]",
        "this=0xADDRESS, scale=5) at cpplib.cc:20",
        "entry",
        " at cpplib.cc:32",
    ]);
    session.to("breakpoint list").has(&["1.1: where = JIT(0xADDRESS)`shapes::Square<long>::area("]);
    session.to("bt 2").has(&[
        "this=0xADDRESS, scale=5) at cpplib.cc:2",
        "entry",
        " at cpplib.cc:32",
    ]);
    session.to("continue").has(&["exited with status = 0"]);
    session.to("host").has(&["entry(5) = 48\n"]);
}

fn containers(lldb: Version) {
    let library = library("g++", "containers.cc", &["-g", "-O0", "-std=c++17"]);
    let session = as_with_dlopen(
        lldb,
        &library,
        &[
            &at_mark("containers.cc", "entry"),
            "run",
            "frame variable text numbers items line owner shared",
            "frame variable flags pair bag second",
            "expression numbers",
            "expression text.size()",
            "breakpoint delete",
            "continue",
        ],
    );
    session.to("frame variable text numbers items line owner shared").has(&[
        "text = \"text\"\n",
        "numbers = size=3 {\n  [0] = 1\n  [1] = 2\n  [2] = 5\n}\n",
        "items = size=2 {\n  [0] = (id = 1, label = \"first\")\n",
        "line = size=2 {\n  [0] = 0.5\n",
        "shared = 12",
    ]);
    session
        .to("frame variable flags pair bag second")
        .has(&["flags = size=3 {\n", "[0] = 7, [1] = 8"]);
    session.to("expression numbers").has(&["size=3 {\n  [0] = 1\n"]);
    // lldb 14 cannot say, of a library on disk neither.
    if lldb == Version::V19 {
        session.to("expression text.size()").has(&[" = 4\n"]);
    }
}

fn exceptions(lldb: Version) {
    let library = library("g++", "exceptions.cc", &["-g", "-O0"]);
    let session = as_with_dlopen(
        lldb,
        &library,
        &[
            "breakpoint set -E c++",
            "run",
            "bt 3",
            "up",
            "frame variable",
            "continue",
            "bt 3",
            &at_mark("exceptions.cc", "caught"),
            "continue",
            "thread step-over",
            "frame variable result refused",
            "breakpoint delete",
            "continue",
        ],
    );
    session.to("run").has(&["stop reason = breakpoint 1.1", "`__cxa_throw"]);
    session.to("bt 3").has(&[
        "`__cxa_throw",
        "JIT(0xADDRESS)`refuses(n=5) at exceptions.cc:11",
        "JIT(0xADDRESS)`passes_on(n=5) at exceptions.cc:16",
    ]);
    session.to("frame variable").has(&["(int) n = 5\n"]);
    session.to("bt 3").has(&["`__cxa_rethrow", "`passes_on(n=5) at exceptions.cc:20"]);
    session.to("continue").has(&["stop reason = breakpoint 2.1", " at exceptions.cc:33"]);
    session.to("frame variable result refused").has(&[
        "(int) result = 5\n",
        "(const Refused &) refused = 0xADDRESS",
        "code = 5",
    ]);
    session.to("continue").has(&["exited with status = 0"]);
}

fn rust_session(lldb: Version, flags: &[&str]) {
    let library = library("rustc", "rustlib.rs", flags);
    let session = as_with_dlopen(
        lldb,
        &library,
        &[
            "breakpoint set -n area",
            &at_mark("rustlib.rs", "area"),
            "run",
            "bt 3",
            "breakpoint disable 1",
            "continue",
            "breakpoint list",
            "frame variable scale",
            "thread step-over",
            "frame variable scale factor",
            "up",
            "frame variable n",
            "down",
            "image lookup -a $pc",
            "thread step-out",
            "breakpoint delete",
            "continue",
        ],
    );
    session.to("run").has(&["stop reason = breakpoint 1.1", "rustlib::shapes::area"]);
    session.to("bt 3").has(&["rustlib::shapes::area"]);
    session.to("continue").has(&["stop reason = breakpoint 2.1", " at rustlib.rs:1"]);
    session
        .to("breakpoint list")
        .has(&["1.1: where = JIT(0xADDRESS)`rustlib::shapes::area"])
        .has(&["2.1: where = JIT(0xADDRESS)`rustlib::shapes::area", " at rustlib.rs:1"]);
    session.to("frame variable scale").has(&["(int) scale = 5\n"]);
    session.to("frame variable scale factor").has(&["(int) scale = 5\n", "(int) factor = "]);
    session.to("up").has(&["JIT(0xADDRESS)`entry(n=5) at rustlib.rs:26"]);
    session.to("frame variable n").has(&["(int) n = 5\n"]);
    session.to("image lookup -a $pc").has(&["rustlib::shapes::area", " at rustlib.rs:1"]);
    session.to("thread step-out").has(&["Return value: (int) $", " = 60\n"]);
    session.to("continue").has(&["exited with status = 0"]);
}

/// Steps of lldb that show all kinds of debug information at work, and what they must show.
const ALL: &[&str] = &["bt 4", "thread step-over", "frame variable", "target variable lib_global"];

fn assert_all(session: &Replies) {
    session.to("bt 4").has(&[
        "JIT(0xADDRESS)`leaf(a=0, b=1) at clib.c:24",
        "JIT(0xADDRESS)`middle(n=5, values=0xADDRESS) at clib.c:35",
        "JIT(0xADDRESS)`entry(n=5) at clib.c:48",
        "::host_calls::",
    ]);
    session.to("thread step-over").has(&["stop reason = step over", " at clib.c:25"]);
    session.to("frame variable").has(&["(int) a = 0\n(int) b = 1\n(int) local = 1\n"]);
    session.to("target variable lib_global").has(&["(int) lib_global = "]);
}

/// A session that stops in `leaf` and looks at everything.
fn of_leaf(lldb: Lldb) -> Replies {
    let commands = [&["breakpoint set -n leaf", "run"], ALL, &["breakpoint delete", "continue"]];
    lldb.run(&commands.concat())
}

fn compressed(lldb: Version) {
    for (compiler, flags) in [
        ("gcc", &["-gdwarf-5", "-O0", "-gz=zlib"][..]),
        ("gcc", &["-gdwarf-4", "-O0", "-gz=zlib-gnu"]),
        ("clang", &["-gdwarf-5", "-O0", "-gz=zlib"]),
    ] {
        assert_all(&of_leaf(Lldb::of_host(
            lldb,
            &load_and_call(&library(compiler, "clib.c", flags)),
        )));
    }
    let zstd = Copy::of(&clib());
    common::run(
        Command::new("objcopy").args(["--compress-debug-sections=zstd", zstd.path()]),
        "binutils",
    );
    assert_all(&of_leaf(Lldb::of_host(lldb, &load_and_call(&zstd.0))));
}

/// Split DWARF and its `.dwp`, which the host hands over.
fn packed(lldb: Version) {
    for (compiler, version, tool) in
        [("gcc", "4", "dwp"), ("clang", "4", "dwp"), ("clang", "5", "llvm-dwp")]
    {
        let folder = scratch("packed");
        std::fs::create_dir(&folder).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            common::run(Command::new(program).args(arguments).current_dir(&folder), program);
        };
        let source = common::repository("testlibs/debug/clib.c");
        let version = format!("-gdwarf-{version}");
        let flags = [&version, "-gsplit-dwarf", "-shared", "-fPIC", "-o", "lib.so"];
        run(compiler, &[&[source.to_str().unwrap()], &flags[..]].concat());
        run(tool, &["-e", "lib.so", "-o", "package"]);
        let path = |name| folder.join(name).display().to_string();
        let load = format!("load a {} with {}", path("lib.so"), path("package"));
        for dwo in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if dwo.extension().is_some_and(|extension| extension == "dwo") {
                std::fs::remove_file(dwo).unwrap();
            }
        }
        let lldb = Lldb::of_host(lldb, &steps(&[&load, "call a entry 5"]));
        assert_all(&of_leaf(lldb.env("MEMDL_DEBUG", "portable")));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// lldb does not know the forms that refer to a third file (`dwz -m`), in a library on disk either:
/// there are names and backtraces, and nothing wrong.
fn shared_by_dwz(lldb: Version) {
    let bare = |flags: &[&str]| Copy::of(&library("gcc", "bare.c", flags));
    let (library, twin) = (bare(&["-g", "-O0"]), bare(&["-g", "-O0", "-DTWIN"]));
    let common = Copy(scratch("common"));
    let dwz = ["-m", common.path(), library.path(), twin.path()];
    common::run(Command::new("dwz").args(dwz), "dwz");
    let commands = [
        "breakpoint set -n leaf",
        "run",
        "bt",
        "frame variable",
        "target variable lib_global",
        "expression *(int *)&lib_global",
        "breakpoint delete",
        "continue",
    ];
    for loader in [Loader::Memdl, Loader::Dlopen] {
        let steps = load_and_call(&library.0);
        let session = Lldb::of_host(lldb, &steps).loader(loader).run(&commands);
        session.to("bt").has(&["`leaf", "`entry + ", "host_calls"]).has_not("bare.c");
        let frame = session.to("frame variable");
        assert!(!frame.text().contains('='), "{session}");
        session.to("target variable lib_global").has(&["can't find global variable 'lib_global'"]);
        session.to("expression *(int *)&lib_global").has(&["= 7\n"]);
        session.to("host").has(&["entry(5) = 135\n", "done"]);
    }
}

/// No comparison: a library on disk that is loaded again where it was before lldb does not notice.
fn unloading(lldb: Version) {
    let path = clib();
    let load = |name| format!("load {name} {} portable", path.display());
    let session = Lldb::of_host(
        lldb,
        &steps(&[
            &load("a"),
            "call a entry 5",
            "unload a",
            "pause",
            &load("b"),
            "call b entry 5",
            "unload b",
            "pause",
        ]),
    )
    .run(&[
        "breakpoint set -n host_pauses",
        "breakpoint set -n leaf -c 'a == 4'",
        &at_mark("clib.c", "entry"),
        "run",
        "continue",
        "frame variable --no-locals",
        "continue",
        "image lookup -n leaf",
        "target variable lib_global",
        "continue",
        "bt 2",
        "continue",
        "frame variable --no-locals",
        "continue",
        "image lookup -n leaf",
        "continue",
    ]);
    session.to("run").has(&["stop reason = breakpoint 3.1", "`entry(n=5) at clib.c:48"]);
    session.to("continue").has(&["stop reason = breakpoint 2.1", "`leaf(a=4, b=5) at clib.c:24"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("image lookup -n leaf").has_not("leaf");
    session.to("target variable lib_global").has(&["can't find global variable 'lib_global'"]);
    session.to("continue").has(&["stop reason = breakpoint 3.", "`entry(n=5) at clib.c:48"]);
    session.to("bt 2").has(&["`entry(n=5) at clib.c:48", "::host_calls::"]);
    session.to("continue").has(&["stop reason = breakpoint 2.", "`leaf(a=4, b=5) at clib.c:24"]);
    session.to("frame variable --no-locals").has(&["(int) a = 4\n(int) b = 5\n"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("image lookup -n leaf").has_not("leaf");
    session.to("continue").has(&["exited with status = 0"]);
}

/// A second library takes the place of the first, in a process with `dlopen` too.
fn reloading(lldb: Version) {
    let (path, twin) = (clib(), library("gcc", "twin.c", &["-g", "-O0"]));
    let load = |name, path: &Path| format!("load {name} {} portable", path.display());
    let session = as_with_dlopen_in(
        lldb,
        &path,
        &steps(&[
            &load("a", &path),
            "call a entry 5",
            "unload a",
            "pause",
            &load("twin", &twin),
            &load("b", &path),
            "call b entry 5",
            "unload b",
            "pause",
        ]),
        &[
            "breakpoint set -n host_pauses",
            "breakpoint set -n leaf -c 'a == 4'",
            &at_mark("clib.c", "entry"),
            "run",
            "continue",
            "frame variable --no-locals",
            "continue",
            "bt 2",
            "image lookup -n leaf",
            "target variable lib_global",
            "continue",
            "bt 2",
            "target variable lib_global",
            "continue",
            "bt 4",
            "thread step-over",
            "frame variable",
            "expression leaf(3, 4)",
            "source list -n middle",
            "disassemble -n middle",
            "continue",
            "bt 2",
            "image lookup -n middle",
            "target variable lib_global",
            "continue",
        ],
    );
    session.to("run").has(&["stop reason = breakpoint 3.", "`entry(n=5) at clib.c:48"]);
    session.to("continue").has(&["stop reason = breakpoint 2.", "`leaf(a=4, b=5) at clib.c:24"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("image lookup -n leaf").has_not("leaf");
    session.to("continue").has(&["stop reason = breakpoint 3.", "`entry(n=5) at clib.c:48"]);
    session.to("target variable lib_global").has(&["(int) lib_global = 7\n"]);
    session.to("continue").has(&["stop reason = breakpoint 2.", "`leaf(a=4, b=5) at clib.c:24"]);
    session.to("frame variable").has(&["(int) a = 4\n(int) b = 5\n(int) local = 17\n"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("image lookup -n middle").has_not("middle");
    session.to("continue").has(&["exited with status = 0"]);
}

/// What is where the library was is neither read nor written as if it were the library still.
fn unloading_for_another(lldb: Version) {
    let path = clib();
    let load = |name| format!("load {name} {} portable", path.display());
    let session = Lldb::of_host(
        lldb,
        &steps(&[
            &load("a"),
            "call a entry 5",
            "unload a",
            "bury a",
            "pause",
            "check",
            &load("b"),
            "call b entry 5",
            "check",
            "unload b",
            "bury b",
            "pause",
            "check",
        ]),
    )
    .run(&[
        "breakpoint set -n host_pauses",
        "breakpoint set -n leaf",
        &at_mark("clib.c", "middle"),
        "breakpoint list 2",
        "run",
        "breakpoint disable 3",
        "continue",
        "breakpoint list 2",
        "breakpoint modify -i 10 2",
        "continue",
        "breakpoint list 2",
        "image list",
        "breakpoint modify -i 0 2",
        "breakpoint enable 3",
        "continue",
        "continue",
        "breakpoint list 2",
        "bt 4",
        "frame variable --no-locals",
        "breakpoint modify -i 10 2",
        "breakpoint modify -i 10 3",
        "continue",
        "image list",
        "continue",
    ]);
    let in_middle = "`middle(n=5, values=0xADDRESS) at clib.c:35";
    session.to("breakpoint list 2").has(&["locations = 0 (pending)"]);
    session.to("run").has(&["stop reason = breakpoint 3.1", in_middle]);
    session.to("continue").has(&["stop reason = breakpoint 2.1", "`leaf(a=0, b=1) at clib.c:24"]);
    session.to("breakpoint list 2").has(&["resolved = 1", "2.1: where = JIT(0xADDRESS)`leaf + 15"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("breakpoint list 2").has(&["unresolved"]).has_not("resolved = 1");
    session.to("image list").has(&["libc.so.6"]).has_not("JIT");
    session.to("continue").has(&["stop reason = breakpoint 3.", in_middle]);
    session.to("continue").has(&["stop reason = breakpoint 2.", "`leaf(a=0, b=1) at clib.c:24"]);
    session
        .to("breakpoint list 2")
        .has(&["locations = 1, resolved = 1", "`leaf + 15 at clib.c:24"]);
    session.to("bt 4").has(&["`leaf(a=0, b=1) at", in_middle, "`entry(n=5) at", "::host_calls::"]);
    session.to("frame variable --no-locals").has(&["(int) a = 0\n(int) b = 1\n"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("image list").has(&["libc.so.6"]).has_not("JIT");
    session.to("continue").has(&["exited with status = 0"]);
    session.to("host").has(&[
        "0 bytes differ\n",
        "[host] loaded b\n",
        "0 bytes differ\n",
        "[host] unloaded b\n",
        "0 bytes differ\n[host] 0 bytes differ\n",
    ]);
}

fn two_libraries(lldb: Version) {
    let (first, second) = (clib(), library("gcc", "twin.c", &["-g", "-O0"]));
    let session = Lldb::of_host(
        lldb,
        &steps(&[
            &format!("load a {} portable", first.display()),
            &format!("load b {} portable", second.display()),
            "call b entry 5",
            "call a entry 1",
            "unload b",
            "pause",
            "call a entry 1",
        ]),
    )
    .run(&[
        "breakpoint set -n host_pauses",
        "breakpoint set -n leaf",
        "run",
        "thread step-over",
        "frame variable",
        "bt 3",
        "breakpoint list 2",
        "continue",
        "thread step-over",
        "frame variable",
        "bt 3",
        "continue",
        "breakpoint list 2",
        "continue",
        "continue",
    ]);
    session.to("run").has(&["stop reason = breakpoint 2.", "`leaf(a=5, b=1) at twin.c:3"]);
    session.to("frame variable").has(&["(int) twin_local = 4\n"]);
    session.to("bt 3").has(&[
        "`leaf(a=5, b=1) at twin.c",
        "`entry(n=5) at twin.c",
        "::host_calls::",
    ]);
    session
        .to("breakpoint list 2")
        .has(&["locations = 2, resolved = 2"])
        .has(&["JIT(0xADDRESS)`leaf + ", " at clib.c:24"])
        .has(&["JIT(0xADDRESS)`leaf + ", " at twin.c:3"]);
    session.to("continue").has(&["stop reason = breakpoint 2.", "`leaf(a=0, b=1) at clib.c:24"]);
    session.to("frame variable").has(&["(int) local = 1\n"]);
    session.to("bt 3").has(&["`leaf(a=0, b=1) at clib.c", "`middle(n=1", "`entry(n=1) at clib.c"]);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session
        .to("breakpoint list 2")
        .has(&["locations = 1, resolved = 1", " at clib.c:24"])
        .has_not("twin.c");
    session.to("continue").has(&["stop reason = breakpoint 2.", "`leaf(a=0, b=1) at clib.c:24"]);
    session.to("continue").has(&["exited with status = 0"]);
}

fn instances(lldb: Version) {
    const COUNT: usize = 20;
    let mut all = vec![format!("instantiate a {COUNT} {} portable", clib().display())];
    all.extend((0..COUNT).map(|number| format!("call a{number} entry {number}")));
    let by_line = at_mark("clib.c", "entry");
    let mut commands = vec![&*by_line, "run"];
    commands.extend(vec!["continue"; COUNT - 1]);
    commands.extend(["breakpoint list", "frame variable n", "continue"]);
    let session = Lldb::of_host(lldb, &all).run(&commands);
    session.to("run").has(&["stop reason = breakpoint 1.", "`entry(n=0) at clib.c:48"]);
    for number in 1..COUNT {
        let stop = format!("`entry(n={number}) at clib.c:48");
        session.to("continue").has(&["stop reason = breakpoint 1.", &stop]);
    }
    let list = session.to("breakpoint list");
    list.has(&["locations = 20, resolved = 20, hit count = 20"]);
    assert_eq!(list.text().matches("resolved, hit count = 1 ").count(), COUNT, "{session}");
    session.to("frame variable n").has(&["(int) n = 19\n"]);
    session.to("continue").has(&["exited with status = 0"]);
}

fn attaching(lldb: Version) {
    let load = format!("load a {} portable", clib().display());
    let mut host = start_host(&steps(&[&load, "repeat a entry 5"]));
    host.await_output("entry(5) = ", 2);
    let commands = [
        &["breakpoint set -n leaf", "continue"],
        ALL,
        &["breakpoint delete", "thread step-out", "detach"],
    ];
    let session = Lldb::attached(lldb, &host).run(&commands.concat());
    assert_all(&session);
    let so_far = host.output().matches("entry(5) = ").count();
    host.await_output("entry(5) = ", so_far + 2);
}

fn core_by_gdb(lldb: Version) {
    let core = Copy(scratch("core"));
    let save = format!("gcore {}", core.path());
    let live =
        Gdb::of_host(&load_and_call(&clib())).run(&["break leaf", "run", "next", &save, "kill"]);
    live.to(&save).has(&["Saved corefile"]);
    let session = Lldb::of_core(lldb, &core.0).run(&[
        "bt 4",
        "frame variable",
        "target variable lib_global",
        "image lookup -a $pc",
        "source list -n leaf",
        "up",
        "frame variable",
    ]);
    session.to("bt 4").has(&[
        "JIT(0xADDRESS)`leaf(a=0, b=1) at clib.c:25",
        "JIT(0xADDRESS)`middle(n=5, values=0xADDRESS) at clib.c:35",
        "JIT(0xADDRESS)`entry(n=5) at clib.c:48",
        "::host_calls::",
    ]);
    session.to("frame variable").has(&["(int) a = 0\n(int) b = 1\n(int) local = 1\n"]);
    session.to("target variable lib_global").has(&["(int) lib_global = 7\n"]);
    session.to("image lookup -a $pc").has(&["`leaf + ", " at clib.c:25"]);
    session.to("source list -n leaf").has(&["int leaf(int a, int b) {"]);
    session.to("frame variable").has(&["(int) n = 5\n", "(int) sum = 0\n"]);
}

/// lldb reads a core of its own, a minidump, without looking for libraries of this kind
/// (`ProcessMinidump::GetJITLoaders` gives none): it shows the host, and an unnamed place where the
/// library was. Told which file that was, it shows the same as of a library that `dlopen` loaded.
fn core_by_lldb(lldb: Version) {
    let library = clib();
    // Stacks are all that lldb 14 saves; lldb 19 puts the thread first that it has stopped.
    let (style, thread) = match lldb {
        Version::V14 => ("stack", 2),
        Version::V19 => ("full", 1),
    };
    // Unlike the command, says nothing, and so not at any time.
    let select = format!("script selected = lldb.process.SetSelectedThreadByIndexID({thread})");
    let core = [Copy(scratch("core")), Copy(scratch("core"))];
    for (loader, core) in [Loader::Memdl, Loader::Dlopen].into_iter().zip(&core) {
        let save =
            format!("process save-core --plugin-name=minidump --style={style} {}", core.path());
        let live = Lldb::of_host(lldb, &load_and_call(&library)).loader(loader).run(&[
            "breakpoint set -n leaf",
            "run",
            "thread step-over",
            &save,
            "breakpoint delete",
            "continue",
        ]);
        live.to("run").has(&["`leaf(a=0, b=1) at clib.c:24"]);
        live.to(&save).has_not("error");
        live.to("continue").has(&["exited with status = 0"]);
    }
    let bare = Lldb::of_core(lldb, &core[0].0).run(&[&select, "bt 5", "image list"]);
    bare.to("bt 5").has(&["frame #0: 0xADDRESS\n", "::host_calls::", "number=5) at host.rs:"]);
    bare.to("image list").has(&[" JIT(0xADDRESS)"]);

    let tell = format!(
        "script errors = [lldb.target.SetModuleLoadAddress(lldb.target.AddModule('{}', None, None), \
         at.GetObjectFileHeaderAddress().GetLoadAddress(lldb.target)) \
         for at in list(lldb.target.modules) if at.file.basename.startswith('JIT')]",
        library.display()
    );
    let [of_memory, of_file] = core.each_ref().map(|core| {
        Lldb::of_core(lldb, &core.0).run(&[
            &tell,
            &select,
            "bt 5",
            "frame variable a b local",
            "target variable lib_global",
            "source list -n leaf",
            "disassemble -n middle",
            "up",
            "frame variable",
        ])
    });
    assert_same(&of_memory, &of_file, &library);
    of_memory.to("bt 5").has(&[
        "`leaf(a=0, b=1) at clib.c:25",
        "`middle(n=5, values=0xADDRESS) at clib.c:35",
        "`entry(n=5) at clib.c:48",
        "::host_calls::",
    ]);
    of_memory.to("frame variable a b local").has(&["(int) a = 0\n(int) b = 1\n(int) local = 1\n"]);
    if lldb == Version::V19 {
        of_memory.to("target variable lib_global").has(&["(int) lib_global = 7\n"]);
    }
    of_memory.to("frame variable").has(&["(int) n = 5\n", "(int) sum = 0\n"]);
}

/// What lldb sees of a library loaded with this choice of the program's, and of the operator's.
fn seen_with(lldb: Version, program: &str, operator: Option<&str>) -> &'static str {
    let load = format!("load a {} {program}", clib().display());
    let mut lldb = Lldb::of_host(lldb, &steps(&[&load, "call a entry 5", "pause"]));
    if let Some(value) = operator {
        lldb = lldb.env("MEMDL_DEBUG", value);
    }
    let session = lldb.run(&[
        "breakpoint set -n host_pauses",
        "breakpoint set -n leaf",
        "run",
        "bt",
        "frame variable",
        "breakpoint delete",
        "continue",
    ]);
    let bt = session.to("bt").text().to_owned();
    let locals = session.to("frame variable").text().to_owned();
    session.to("continue").has(&["exited with status = 0"]);
    session.to("host").has(&["entry(5) = 514"]);
    if bt.contains("`leaf(a=0, b=1) at clib.c:") && locals.contains("(int) a = 0\n") {
        "all"
    } else if bt.contains("`leaf\n") && bt.contains("`middle +") && bt.contains("`entry +") {
        assert!(bt.contains("::host_calls::"), "{session}");
        assert!(!locals.contains('='), "{session}");
        "names"
    } else {
        assert!(bt.contains("`host_pauses"), "{session}");
        "nothing"
    }
}

fn choices(lldb: Version) {
    for (choice, seen) in
        [("off", "nothing"), ("symbols", "names"), ("full", "names"), ("portable", "all")]
    {
        assert_eq!(seen_with(lldb, choice, None), seen, "{choice}");
    }
}

fn overrides(lldb: Version) {
    for (program, operator, seen) in [
        ("off", "portable", "all"),
        ("full", "portable", "all"),
        ("portable", "symbols", "names"),
        ("portable", "off", "nothing"),
    ] {
        assert_eq!(seen_with(lldb, program, Some(operator)), seen, "{program}, {operator}");
    }
}

fn asking_for_all(lldb: Version) {
    for choice in ["symbols", "full"] {
        let load = format!("load a {} {choice}", clib().display());
        let commands = [
            &[
                "breakpoint set -n leaf",
                "breakpoint set -n host_pauses",
                "run",
                "expression memdl_debug_portable()",
                "breakpoint list 1",
                "continue",
            ],
            ALL,
            &["breakpoint delete", "continue"],
        ];
        let session = Lldb::of_host(lldb, &steps(&[&load, "pause", "call a entry 5"]))
            .run(&commands.concat());
        session.to("expression memdl_debug_portable()").has(&["(int) $0 = 1\n"]);
        session
            .to("breakpoint list 1")
            .has(&["locations = 1, resolved = 1", "`leaf + 15 at clib.c:24"]);
        session.to("continue").has(&["stop reason = breakpoint 1."]);
        assert_all(&session);
    }
}

fn giving_the_debug_file(lldb: Version) {
    let whole = clib();
    let image = Copy::of(&whole);
    common::run(Command::new("strip").arg(image.path()), "binutils");
    let load = format!("load a {}", image.path());
    // An unstripped library has all that would be split off it.
    let give = format!("expression memdl_debug_file(\"{}\")", whole.display());
    let [nowhere, other] =
        ["/nowhere", "/bin/sh"].map(|path| format!("expression memdl_debug_file(\"{path}\")"));
    let asking = [&*nowhere, &other, &give, "expression memdl_debug_portable()", "continue"];
    let commands = [
        &["breakpoint set -n leaf", "breakpoint set -n host_pauses", "run"],
        &asking[..],
        ALL,
        &["breakpoint delete", "continue"],
    ];
    let session =
        Lldb::of_host(lldb, &steps(&[&load, "pause", "call a entry 5"])).run(&commands.concat());
    for (command, answer) in [(&*nowhere, -2), (&other, 0), (&give, 1)] {
        session.to(command).has(&[&format!(" = {answer}\n")]);
    }
    session.to("continue").has(&["stop reason = breakpoint 1."]);
    assert_all(&session);
}

fn telling_later(lldb: Version) {
    let load = format!("load a {} symbols", clib().display());
    let all = steps(&[
        &load,
        "pause",
        "set-debug a portable",
        "call a entry 5",
        "set-debug a symbols",
        "pause",
    ]);
    let commands = [
        &[
            "breakpoint set -n leaf",
            "breakpoint set -n host_pauses",
            "run",
            "breakpoint list 1",
            "continue",
        ],
        ALL,
        &[
            "breakpoint disable 1",
            "continue",
            "breakpoint list 1",
            "image lookup -n leaf",
            "continue",
        ],
    ];
    let session = Lldb::of_host(lldb, &all).run(&commands.concat());
    session
        .to("breakpoint list 1")
        .has(&["locations = 1, resolved = 1", "`leaf, address = "])
        .has_not("clib.c");
    session.to("continue").has(&["stop reason = breakpoint 1."]);
    assert_all(&session);
    session.to("continue").has(&["`host_pauses at host.rs"]);
    session.to("breakpoint list 1").has(&["`leaf, address = "]).has_not("clib.c");
    session.to("image lookup -n leaf").has(&["Summary: JIT(0xADDRESS)`leaf\n"]);
    session.to("continue").has(&["exited with status = 0"]);
}

/// lldb asks the dynamic linker where a library's block is, which does not know of this one.
fn thread_locals(lldb: Version) {
    for model in ["global-dynamic", "local-dynamic", "initial-exec"] {
        for flags in [["-gdwarf-4", "-gz=none"], ["-gdwarf-5", "-gz=zlib"]] {
            let model = format!("-ftls-model={model}");
            let path = library("gcc", "clib.c", &[flags[0], flags[1], "-O0", &model]);
            let session = Lldb::of_host(lldb, &load_and_call(&path)).run(&[
                "breakpoint set -n leaf",
                "run",
                "target variable lib_thread",
                "expression lib_thread",
                "expression lib_thread = 5",
                "expression &lib_thread",
                "target variable lib_global",
                "breakpoint delete",
                "continue",
            ]);
            for command in [
                "target variable lib_thread",
                "expression lib_thread",
                "expression lib_thread = 5",
                "expression &lib_thread",
            ] {
                let text = session.to(command).text().to_lowercase();
                assert!(text.contains("no tls data currently exists for this thread"), "{session}");
                assert!(!text.contains("= 0x") && !text.contains('$'), "{session}");
            }
            session.to("target variable lib_global").has(&["(int) lib_global = 7\n"]);
            // Nothing was written anywhere.
            session.to("host").has(&["entry(5) = 514\n"]);
        }
    }
}
