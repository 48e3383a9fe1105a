//! Hosts with sanitizers: what their reports say of an image's frames, beside `dlopen`, and that what
//! docs/sanitizers.md advises gives names.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::capi::forms;
use crate::common::{build, limited, repository, run};

const SOURCE: &str = "sanitizers/errs.c";
const COMPILERS: [&str; 2] = ["gcc", "clang"];

/// `tests/hosts/sanitized.c` with memdl inside, and the library, both built with the sanitizers.
fn built(compiler: &str, sanitizers: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let flag = format!("-fsanitize={sanitizers}");
    // They walk the stacks of allocations by frame pointers.
    let common = [&flag, "-O1", "-g", "-pthread", "-fno-omit-frame-pointer"];
    let name = format!("sanitized-{compiler}-{sanitizers}-{}", more.len()).replace(',', "-");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = limited(120, compiler);
    command
        .args(common)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror"])
        .args(more)
        .arg("-I")
        .args([repository("include"), repository("tests/hosts/sanitized.c")])
        .arg(&forms().fixed)
        .args(["-lgcc_s", "-ldl", "-lm", "-o"])
        .arg(&program);
    run(&mut command, "libclang-rt-dev");
    // As linkers other than GNU ld must be told.
    let linked = ["-fuse-ld=lld", "-Wl,-z,separate-loadable-segments"];
    let linked = if compiler == "clang" { &linked[..] } else { &[] };
    (program, build(compiler, SOURCE, &[&common, linked].concat()))
}

/// The report of a host in which `function` was called, through `asan_symbolize` if so.
fn report(
    (host, library): &(PathBuf, PathBuf),
    way: &str,
    function: &str,
    profile: &str,
    symbolized: bool,
) -> String {
    let folder = host.with_extension(format!("{way}-{function}-{profile}"));
    fs::create_dir_all(&folder).unwrap();
    let mut command = limited(60, host);
    command.args([way.as_ref(), library.as_os_str(), function.as_ref()]);
    command.env("MEMDL_PERF", profile).env("JITDUMPDIR", &folder);
    command.env("UBSAN_OPTIONS", "print_stacktrace=1").env("ASAN_OPTIONS", "exitcode=0");
    if symbolized {
        command.env("TSAN_OPTIONS", "stack_trace_format='    #%n %p (%m+%o)'");
    }
    let output = command.output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("errs.c") || text.contains("Sanitizer"), "{}: {text}", output.status);
    if symbolized {
        let mut command = limited(60, "asan_symbolize");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        text = String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned();
    }
    fs::remove_dir_all(folder).unwrap();
    text
}

/// `errs.c:LINE` of the line with this comment.
fn line(comment: &str) -> String {
    let text = fs::read_to_string(repository("testlibs").join(SOURCE)).unwrap();
    let end = format!("/* {comment} */");
    let line = text.lines().position(|line| line.ends_with(&end)).unwrap();
    format!("errs.c:{}", line + 1)
}

/// Whether a frame has this function and the line with this comment.
fn names(report: &str, function: &str, comment: &str) -> bool {
    let (function, line) = (format!(" {function} "), line(comment));
    report.lines().any(|it| it.contains(" #") && it.contains(&function) && it.contains(&line))
}

/// The sanitizers, the function, and what a report of it names: functions, and the comments of their lines.
type Expected = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const ERRORS: [Expected; 4] = [
    (
        "address,undefined",
        "overflow",
        &[("reads", "overflows the block"), ("overflow", "calls what overflows")],
    ),
    ("address,undefined", "leak", &[("leak", "is leaked")]),
    ("address,undefined", "undefined", &[("undefined", "is undefined")]),
    ("thread", "race", &[("races", "races"), ("race", "races, too")]),
];

#[test]
fn reports_name_frames_of_images_that_have_a_file() {
    for compiler in COMPILERS {
        for (sanitizers, function, expected) in ERRORS {
            let built = built(compiler, sanitizers, &[]);
            // Clang's find the names themselves.
            let symbolized = compiler == "gcc";
            for (way, profile) in [("dlopen", "off"), ("load", "file")] {
                let report = report(&built, way, function, profile, symbolized);
                for (name, comment) in expected {
                    assert!(names(&report, name, comment), "{compiler}, {way}, {name}: {report}");
                }
                assert!(report.contains("calls_the_image"), "{compiler}, {way}: {report}");
            }
            // Without a file they have found it, and walked on, but have no name.
            let plain = report(&built, "load", function, "off", false);
            assert!(plain.contains("calls_the_image"), "{compiler}: {plain}");
            for (name, comment) in expected {
                assert!(!names(&plain, name, comment), "{compiler}: say so in the docs: {plain}");
            }
        }
    }
}

#[test]
fn a_callback_names_the_frames_of_a_report() {
    let text = fs::read_to_string(repository("docs/sanitizers.md")).unwrap();
    let code = text.split("```c\n").nth(1).unwrap().split("```").next().unwrap();
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("name_frames.c");
    fs::write(&source, code).unwrap();
    for compiler in COMPILERS {
        let built = built(compiler, "address", &["-DNAMED", source.to_str().unwrap()]);
        let report = report(&built, "load", "overflow", "off", false);
        let frames: Vec<&str> =
            report.lines().filter(|line| line.ends_with("[liberrs.so]")).collect();
        assert!(frames[0].contains("#0 in reads ") && frames[1].contains("#1 in overflow "));
        for (name, comment) in ERRORS[0].2 {
            assert!(names(&frames.join("\n"), name, comment), "{compiler}, {name}: {report}");
        }
    }
}
