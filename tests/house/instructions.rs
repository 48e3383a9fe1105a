//! Limits the instructions that a load and unload of a library take, counted by valgrind's callgrind.
//! The number does not depend on how busy the machine is, so it shows a load that became slower. It does not
//! count the kernel's instructions, or the cost of cache misses.
//!
//! The count is the difference between two runs of one program, of which one does twice as many loads. So it
//! has nothing of the program's start. The library's source and flags and the build profile of memdl are
//! fixed. The compiler, the C library, and the copy functions that it chooses for the processor are those of
//! the machine. When these change, or a load does more for a good reason, measure again and change the numbers
//! below: `cargo test --test house instructions:: -- --nocapture` prints them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{build, limited, repository, run};

/// A program of `tools/bench-programs/`, built for this test alone.
fn program(name: &str) -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
        let mut command = limited(900, env!("CARGO"));
        command
            .args(["build", "--quiet"])
            .args(["--profile", "release", "-p", "bench-programs", "--bins"])
            // Ignores flags that are set for other builds.
            .env("CARGO_ENCODED_RUSTFLAGS", "")
            .args(["--config", "profile.release.opt-level=3"])
            .args(["--config", "profile.release.lto=false"])
            .args(["--config", "profile.release.codegen-units=16"])
            .args(["--config", "profile.release.debug-assertions=false"])
            .args(["--config", "profile.release.overflow-checks=false"])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(repository(""));
        run(&mut command, "cargo");
        target.join("release")
    });
    programs.join(name)
}

/// The instructions of a whole run of a program with these arguments.
fn instructions<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> u64 {
    counted(&[], name, arguments)
}

/// The instructions of a program that callgrind counts with these options.
fn counted<A: AsRef<OsStr>>(options: &[&str], name: &str, arguments: &[A]) -> u64 {
    let mut command = limited(300, "valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(options)
        .arg(program(name))
        .args(arguments)
        // An operator's settings change what a load does, and other variables how long they are searched for.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run valgrind: {error}; `sh tests/setup.sh` installs what tests need")
    });
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let collected = report.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.unwrap_or_else(|| panic!("no count: {report}"));
    count.trim().parse().unwrap()
}

/// Small, plain, and with debug information.
const TINY: &str = "bench/tiny.c";
/// Instances share its read-only data, and each has 1,024 relocations.
const SHARES: &str = "bench/shares.c";

/// Fails if a load and unload takes over 2 % more instructions than `known`.
fn takes_no_more_than(way: &str, source: &str, known: u64) {
    const LOADS: u64 = 200;
    let library = build("gcc", source, &["-O2", "-g"]).into_os_string();
    let run = |loads: u64| {
        instructions("loads", &[way.into(), library.clone(), loads.to_string().into()])
    };
    let count = (run(2 * LOADS) - run(LOADS)) / LOADS;
    is_no_more_than(&format!("{way} of {source}"), count, known);
}

fn is_no_more_than(what: &str, count: u64, known: u64) {
    println!("{what}: {count} instructions; known: {known}");
    assert!(
        count * 100 <= known * 102,
        "{what} takes {count} instructions, {:.1} % more than {known}",
        (count as f64 / known as f64 - 1.0) * 100.0
    );
}

#[test]
fn a_first_load_takes_no_more_instructions_than_it_did() {
    let library = build("gcc", TINY, &["-O2", "-g"]);
    let first = |way: &str| {
        counted(&["--toggle-collect=measured"], "first", &[way.as_ref(), library.as_os_str()])
    };
    let load = first("load");
    is_no_more_than("first load", load, 85_348);
    is_no_more_than("first buffer and its load", first("load_buffer"), 85_395);
    is_no_more_than("first load with debug information", first("load_full"), 130_440);
    // The bytes are copied once more.
    let template = first("instantiate");
    assert!(
        template * 2 <= load * 3,
        "first template and instance: {template}, first load: {load}"
    );
}

#[test]
fn a_load_takes_no_more_instructions_than_it_did() {
    takes_no_more_than("load", TINY, 40_250);
}

#[test]
fn a_load_with_debug_information_takes_no_more_instructions_than_it_did() {
    takes_no_more_than("load_full", TINY, 84_900);
}

#[test]
fn a_load_of_a_buffer_takes_no_more_instructions_than_it_did() {
    takes_no_more_than("load_buffer", TINY, 56_711);
}

#[test]
fn an_instance_takes_no_more_instructions_than_it_did() {
    takes_no_more_than("instantiate", TINY, 9_071);
}

/// valgrind copies what instances share. But the next instance finds the copy, as it finds shared pages
/// elsewhere.
#[test]
fn an_instance_that_shares_pages_takes_no_more_instructions_than_it_did() {
    takes_no_more_than("instantiate", SHARES, 37_885);
}

/// The instructions of one operation of `tools/bench-programs/src/bin/fleets.rs`, while so many images are there.
fn in_fleet(by: &str, what: &str, live: u64) -> u64 {
    const TIMES: u64 = 20;
    let member = build("gcc", "bench/tiny.c", &["-O2", "-Wl,-Bsymbolic"]);
    let others = ["fleets/asks.c", "fleets/uses.c"].map(|source| build("gcc", source, &["-O2"]));
    let [asks, uses] = others.map(PathBuf::into_os_string);
    let run = |times: u64| {
        let numbers = [live, times].map(|it| it.to_string().into());
        let [live, times] = numbers;
        let libraries = [member.clone().into(), asks.clone(), uses.clone()];
        instructions("fleets", &[&[by.into(), what.into(), live, times][..], &libraries].concat())
    };
    let count = (run(2 * TIMES) - run(TIMES)) / TIMES;
    println!("{by}: {what} with {live} images: {count} instructions");
    count
}

#[test]
fn a_load_takes_no_more_instructions_with_more_images() {
    for by in ["memdl", "local"] {
        let [few, many] = [10, 2_000].map(|live| in_fleet(by, "load", live));
        // Binary searches take eight more steps.
        assert!(many <= few + 2_700, "{by}: {many} with 2,000 images, {few} with 10");
    }
}

#[test]
fn a_fleet_is_searched_in_fewer_instructions_than_by_the_system() {
    for what in ["ask", "miss", "walk"] {
        let [ours, of_system] = ["memdl", "dlopen"].map(|by| in_fleet(by, what, 1_000));
        assert!(ours <= of_system, "{what}: {ours} instructions, {of_system} by ld.so");
    }
}

/// The instructions of a load and unload of a library that refers to all functions of some others, so many of each.
fn of_imports(by: &str, libraries: usize, functions: usize) -> u64 {
    const LOADS: u64 = 2;
    let note = ".section .note.GNU-stack,\"\",@progbits\n";
    let built = |name: String, text: String, flags: &[&str]| {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&source, text + note).unwrap();
        build("gcc", source.to_str().unwrap(), &[&["-nostdlib"], flags].concat())
    };
    let defined = |library: usize| {
        let function = |at| {
            format!(
                ".globl f{library}_{at}\n.type f{library}_{at},@function\nf{library}_{at}: ret\n"
            )
        };
        let text: String = (0..functions).map(function).collect();
        built(format!("defines-{library}-{functions}.S"), format!(".text\n{text}"), &[])
    };
    let needed: Vec<PathBuf> = (0..libraries).map(defined).collect();
    // One of each library after the other, so that none is found where the last one was.
    let reference = |at| (0..libraries).map(move |library| format!(".quad f{library}_{at}\n"));
    let text: String = (0..functions).flat_map(reference).collect();
    let mut flags = vec!["-Wl,--no-as-needed"];
    flags.extend(needed.iter().map(|path| path.to_str().unwrap()));
    let text = format!(".section .data.rel,\"aw\"\n{text}");
    let library = built(format!("imports-{libraries}-{functions}.S"), text, &flags);
    let run = |loads: u64| {
        let mut arguments =
            vec![by.into(), library.clone().into_os_string(), loads.to_string().into()];
        arguments.extend(needed.iter().map(|path| path.clone().into_os_string()));
        instructions("imports", &arguments)
    };
    let count = (run(2 * LOADS) - run(LOADS)) / LOADS;
    println!("{by}: {functions} imports from each of {libraries} libraries: {count} instructions");
    count
}

#[test]
fn imports_from_many_libraries_take_no_more_instructions_than_the_system_takes() {
    let [ours, of_system] = ["memdl", "dlopen"].map(|by| of_imports(by, 50, 200));
    assert!(ours <= of_system, "{ours} instructions, {of_system} by ld.so");
}

#[test]
fn imports_from_one_library_take_no_more_instructions_than_the_system_takes() {
    // Beside few imports the rest of a load counts.
    for (functions, percent) in [(10_000, 95), (1_000, 100)] {
        let [ours, of_system] = ["memdl", "dlopen"].map(|by| of_imports(by, 1, functions));
        assert!(
            ours * 100 <= of_system * percent,
            "{functions} imports: {ours} instructions, {of_system} by ld.so"
        );
    }
}
