//! What lldb shows of a library that is in memory only, in the form that lldb reads. Each test runs
//! lldb for real, every version of it that the set-up brings: [`crate::harness::lldb`] starts it. Where
//! nothing else is said, lldb says the same of a library that `dlopen` loaded from its file.

use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;

use crate::harness::host::Loader;
use crate::harness::libraries::{Copy, library, mark, steps};
use crate::harness::lldb::{Lldb, Version, assert_same, load_and_call};
use crate::harness::{Gdb, Replies, scratch, start_host};
use crate::host_builds::{another_runtime, host_with_another_runtime};

/// Each test, with each lldb.
macro_rules! with_lldb {
    ($($name:ident: $test:ident;)*) => {
        mod lldb_14 {
            tests! { pub fn tests: $($name)* }
            $(fn $name() { super::$test(crate::harness::lldb::Version::V14); })*
        }
        mod lldb_19 {
            tests! { pub fn tests: $($name)* }
            $(fn $name() { super::$test(crate::harness::lldb::Version::V19); })*
        }
    };
}

pub fn tests() -> Vec<Trial> {
    lldb_14::tests().into_iter().chain(lldb_19::tests()).collect()
}

with_lldb! {
    compressed_debug_sections_are_read: compressed;
    what_dwz_shared_is_not_read: shared_by_dwz;
    split_dwarf_in_a_package_is_read: packed;
    all_instances_of_a_template_are_seen: instances;
    lldb_attaches_to_a_running_process_and_leaves_it_running: attaching;
    a_core_by_gdb_shows_names_lines_and_variables: core_by_gdb;
    a_core_by_lldb_shows_the_host_and_with_the_file_all: core_by_lldb;
    the_program_chooses_how_much_lldb_is_told: choices;
    the_environment_overrides_how_much_lldb_is_told: overrides;
    a_person_at_the_prompt_gives_the_debug_file: giving_the_debug_file;
    a_thread_local_is_never_shown_wrong: thread_locals;
    of_two_jit_runtimes_one_is_seen: one_runtime;
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
    crate::common::run(
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
            crate::common::run(Command::new(program).args(arguments).current_dir(&folder), program);
        };
        let source = crate::common::repository("testlibs/debug/clib.c");
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
    crate::common::run(Command::new("dwz").args(dwz), "dwz");
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
    // One that comes after the load sees names with `full`: see `attaching`.
    for (choice, seen) in
        [("off", "nothing"), ("symbols", "names"), ("full", "all"), ("portable", "all")]
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

fn giving_the_debug_file(lldb: Version) {
    let whole = clib();
    let image = Copy::of(&whole);
    crate::common::run(Command::new("strip").arg(image.path()), "binutils");
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

/// The first whose pair it finds: see docs/facts/lldb.md.
fn one_runtime(lldb: Version) {
    let (other, arguments) = another_runtime();
    let host = host_with_another_runtime("bfd", "a", other, true, &["-pie"]);
    let session = Lldb::of_program(lldb, &host.0, arguments).run(&[
        "breakpoint set -n jitted",
        "breakpoint set -n leaf",
        "run",
        "bt 3",
        "breakpoint list",
        "breakpoint disable",
        "continue",
    ]);
    session.to("run").has(&["stop reason = breakpoint 2."]);
    session.to("bt 3").has(&["JIT(0xADDRESS)`leaf(a=0, b=1)"]);
    session.to("breakpoint list").has(&["name = 'jitted', locations = 0 (pending)"]);
}
