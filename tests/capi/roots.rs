//! Hosts with LeakSanitizer, or with libgc: what only an image points to is neither reported nor freed, for as
//! long as the image is loaded.

use std::path::{Path, PathBuf};

use crate::capi::forms;
use crate::common::{build, limited, repository, run};

/// `tests/hosts/` + `source`, with memdl inside.
fn host(source: &str, flags: &[&str]) -> PathBuf {
    let name = format!("{source}{}", flags.concat()).replace(['.', '=', ','], "-");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = limited(120, "gcc");
    command
        .args(flags)
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-rdynamic",
            "-pthread",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
        ])
        .args([repository("include"), repository("tests/hosts").join(source)])
        .arg(&forms().fixed)
        .args(["-lgcc_s", "-ldl", "-lm", "-o"])
        .arg(&program);
    run(&mut command, "gcc");
    program
}

/// Libraries that keep pointers in all kinds of thread-local variables, and one that opens such a library.
fn libraries() -> Vec<(PathBuf, PathBuf)> {
    let models = ["-ftls-model=global-dynamic", "-mtls-dialect=gnu2", "-ftls-model=initial-exec"];
    let keeps = |flag| build("gcc", "roots/keeps.c", &["-O1", flag]);
    let opened = keeps("-DOF_OPENER");
    let mut libraries: Vec<_> = models.map(|model| (keeps(model), opened.clone())).into();
    libraries.push((build("gcc", "roots/opens.c", &["-O1"]), opened));
    libraries
}

const WAYS: [&str; 5] = ["load", "buffer", "instance", "shared", "pool"];

/// All that a host says, of its output and its errors.
fn said(host: &Path, arguments: &[&str], library: &Path, opened: &Path) -> String {
    let mut command = limited(60, host);
    command.args(arguments).arg(library).env("OPENED", opened);
    let output = command.output().unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// How many objects LeakSanitizer reports.
fn leaks(report: &str) -> usize {
    let direct = report.lines().filter(|line| line.contains("irect leak of"));
    let count =
        |line: &str| line.split(" byte(s) in ").nth(1)?.split(' ').next()?.parse::<usize>().ok();
    direct.filter_map(count).sum()
}

#[test]
fn leak_sanitizer_follows_the_pointers_of_images() {
    for sanitizer in ["-fsanitize=address", "-fsanitize=leak"] {
        let host = host("roots.c", &[sanitizer]);
        for (index, (library, opened)) in libraries().iter().enumerate() {
            // The last needs `RTLD_GLOBAL` before its constructor runs, which `dlopen` does not give.
            let reference = if index < 3 { &["dlopen"][..] } else { &[] };
            for way in WAYS.iter().chain(reference) {
                let report = said(&host, &["lsan", way, "dbtx"], library, opened);
                assert_eq!(report, "", "{sanitizer}, {way}, {library:?}");
            }
        }
        // What only a closed library pointed to is leaked, as with `dlopen`.
        let (library, opened) = &libraries()[0];
        for way in ["dlopen", "load", "buffer", "instance", "shared"] {
            let report = said(&host, &["lsan-closed", way, "db"], library, opened);
            assert_eq!(leaks(&report), 100, "{sanitizer}, {way}: {report}");
        }
    }
}

#[test]
fn libgc_follows_the_pointers_of_images() {
    let host = host("roots.c", &[]);
    for (index, (library, opened)) in libraries().iter().enumerate() {
        for when in ["initialised", "initialised-later"] {
            for way in WAYS {
                let text = said(&host, &[when, way, "dbtx"], library, opened);
                // The library that another opened stays.
                let freed = u8::from(index < 3);
                let expected = format!("kept: 0 freed\nclosed: {freed} freed\n");
                assert_eq!(text, expected, "{when}, {way}, {library:?}");
            }
        }
    }
    // The reference: libgc does not look for thread-local variables itself.
    let (library, opened) = &libraries()[0];
    let text = said(&host, &["initialised", "dlopen", "db"], library, opened);
    assert_eq!(text, "kept: 0 freed\nclosed: 1 freed\n");
}

#[test]
fn libgc_follows_what_threads_snapshots_and_many_images_have() {
    let host = host("roots.c", &[]);
    let libraries = libraries();
    let [(library, opened), _, (initial_exec, _), _] = &libraries[..] else { unreachable!() };
    let constructed = build("gcc", "roots/keeps.c", &["-O1", "-DCONSTRUCTED"]);
    for when in ["initialised", "initialised-later"] {
        // A child frees what only a thread's stack had that is gone there.
        for (library, in_child) in [(library, 0), (initial_exec, 1)] {
            let text = said(&host, &[when, "thread", "tx"], library, opened);
            let child = format!("in a child: {in_child} freed");
            let expected = format!("of a thread: 0 freed\n{child}\nof an ended thread: 1 freed\n");
            assert_eq!(text, expected, "{when}, {library:?}");
        }
        let text = said(&host, &[when, "reset", "-"], &constructed, opened);
        let turn = "in the snapshot: 0 freed\nreset: 0 freed\n".repeat(3);
        assert_eq!(text, format!("constructed: 0 freed\n{turn}"), "{when}");
        // More than libgc's own table takes.
        let text = said(&host, &[when, "many", "2200"], library, opened);
        let expected = "2200 libraries: 0 freed\nclosed: 1 freed\nthen one: 0 freed\n";
        assert_eq!(text, expected, "{when}");
    }
}

#[test]
fn a_libgc_that_is_opened_later_gets_the_images_that_are_there() {
    let host = host("roots.c", &[]);
    for way in WAYS {
        let (library, opened) = &libraries()[0];
        let text = said(&host, &["opened-later", way, "dbtx"], library, opened);
        assert_eq!(text, "kept: 0 freed\nclosed: 1 freed\n", "{way}");
    }
}

#[test]
fn roots_are_removed_as_they_were_registered() {
    let host = host("roots_noted.c", &[]);
    let library = build("gcc", "roots/keeps.c", &["-O1"]);
    let broken = build("gcc", "roots/keeps.c", &["-O1", "-DMISSING"]);
    let text = said(&host, &[library.to_str().unwrap()], &broken, &library);
    assert_eq!(text, "all was removed\n");
}
