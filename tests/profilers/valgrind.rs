//! Valgrind, run for real: memcheck has nothing to say of memdl and finds what is wrong in an image. It
//! reads names from files only, so an image's frames are numbers there; but gdb, attached through
//! valgrind's own server when an error is found, names them as ever. It maps no pages a second time, so
//! instances share none there.

use std::env;
use std::ffi::c_int;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{build, is_over, limited, name_of, own_test, repository, run};
use memdl::{DebugLevel, Loader, statistics};

const SOURCE: &str = "valgrind/errs.c";
const SHARES: &str = "bench/shares.c";
/// Names the function that is called, in the process that valgrind runs.
const CALL: &str = "MEMDL_TEST_VALGRIND";

#[test]
fn the_program_that_valgrind_runs() {
    let Ok(function) = env::var(CALL) else { return };
    let bytes =
        fs::read(build("gcc", SOURCE, &["-g", "-O1", "-fno-optimize-sibling-calls"])).unwrap();
    // SAFETY: a test library.
    let library = unsafe { Loader::new().name("liberrs.so").load(&bytes) }.unwrap();
    // SAFETY: the type of both functions; it is valgrind's job to see what they do.
    unsafe { library.get::<unsafe extern "C" fn(c_int) -> c_int>(function).unwrap()(5) };
    library.close().unwrap();
}

/// Instances, at all levels of debugging, of a library of which they can share the most.
#[test]
fn the_instances_that_valgrind_runs() {
    let Ok(function) = env::var(CALL) else { return };
    let bytes = fs::read(build("gcc", SHARES, &["-g", "-O1"])).unwrap();
    for level in [DebugLevel::Off, DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable] {
        // SAFETY: a test library.
        let template = unsafe { Loader::new().debug(level).prepare(&bytes) }.unwrap();
        let instance = || {
            // SAFETY: a test library, and the type of its function.
            unsafe {
                let library = template.instantiate().unwrap();
                let counts = library.get::<unsafe extern "C" fn(c_int) -> c_int>(&*function);
                let counts = counts.unwrap();
                assert_eq!([counts(0), counts(0), counts(1)], [42, 43, 4], "{level:?}");
                library
            }
        };
        let all = [instance(), instance(), instance()];
        if level == DebugLevel::Off {
            println!("{SHARED}{}", statistics().shared_bytes);
        }
        all.into_iter().for_each(|library| drop(library.close().unwrap()));
        // It may be where one of them was.
        instance().close().unwrap();
    }
}

/// What that test says of the bytes of an instance that can be shared.
const SHARED: &str = "shared bytes: ";

/// valgrind, with a hard time limit, running one of the tests above.
fn valgrind(options: &[&str], test: &str, function: &str) -> Command {
    // Built here, so that valgrind has no compiler to run.
    build("gcc", SOURCE, &["-g", "-O1", "-fno-optimize-sibling-calls"]);
    build("gcc", SHARES, &["-g", "-O1"]);
    let mut command = limited(120, "valgrind");
    let own = own_test(test);
    command.args(options).arg(own.get_program()).args(own.get_args()).env(CALL, function);
    command
}

/// What that test and memcheck say.
fn memcheck(test: &str, function: &str) -> String {
    // libtest has a block that is only "possibly lost".
    let leaks =
        ["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"];
    let command = &mut valgrind(&leaks, test, function);
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run valgrind: {error}; `sh tests/setup.sh` installs what tests need")
    });
    let [said, report] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    let all = format!("{said}{report}");
    assert!(output.status.success(), "{all}");
    all
}

#[test]
fn memcheck_finds_nothing_wrong_in_instances_that_cannot_share() {
    let test = name_of(&the_instances_that_valgrind_runs);
    let report = memcheck(test, "counts");
    assert!(report.contains(&format!("{SHARED}0\n")), "{report}");
    assert!(report.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{report}");
    assert!(!report.contains("definitely lost in"), "{report}");
    // Elsewhere they do share.
    let said = run(own_test(test).env(CALL, "counts"), "");
    let shared = said.lines().find_map(|line| Some(line.split_once(SHARED)?.1)).unwrap();
    assert!(shared.parse::<usize>().unwrap() >= 1 << 17, "{said}");
}

#[test]
fn memcheck_finds_nothing_wrong_in_memdl() {
    let report = memcheck(name_of(&the_program_that_valgrind_runs), "does_right");
    assert!(report.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{report}");
    assert!(!report.contains("definitely lost in"), "{report}");
}

#[test]
fn memcheck_finds_what_is_wrong_in_an_image() {
    let report = memcheck(name_of(&the_program_that_valgrind_runs), "errs");
    for part in [
        "Invalid read of size 4",
        "is 0 bytes after a block of size 20 alloc'd",
        "5,000 bytes in 1 blocks are definitely lost",
        "ERROR SUMMARY: 2 errors from 2 contexts",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

/// The number of the line that ends with a comment.
fn line(comment: &str) -> String {
    let text = fs::read_to_string(repository("testlibs").join(SOURCE)).unwrap();
    let line = text.lines().position(|line| line.ends_with(comment)).unwrap();
    format!("errs.c:{}", line + 1)
}

#[test]
fn gdb_names_the_frames_where_memcheck_found_an_error() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let output = folder.join(format!("vgdb-{}", process::id()));
    let test = name_of(&the_program_that_valgrind_runs);
    let mut command = valgrind(&["--vgdb=yes", "--vgdb-error=1"], test, "errs");
    let file = fs::File::create(&output).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let server = loop {
        let text = fs::read_to_string(&output).unwrap();
        let (is_there, words) = (text.contains("(action on error)"), text.split_whitespace());
        let server = words.filter_map(|word| word.strip_prefix("--pid=")).next();
        if let (true, Some(server)) = (is_there, server) {
            break server.to_owned();
        }
        let in_time = !is_over(start, Duration::from_secs(100));
        assert!(in_time && child.try_wait().unwrap().is_none(), "{text}");
        thread::sleep(Duration::from_millis(20));
    };
    let mut gdb = limited(60, "gdb");
    gdb.args(["-nx", "--batch"]);
    for setting in ["set debuginfod enabled off", "set confirm off", "set width 0"] {
        gdb.args(["-iex", setting]);
    }
    for step in
        [&format!("target remote | vgdb --pid={server}"), "backtrace 2", "info locals", "kill"]
    {
        gdb.args(["-ex", step]);
    }
    let transcript = run(gdb.arg(env::current_exe().unwrap()).env("LC_ALL", "C"), "gdb");
    child.wait().unwrap();
    fs::remove_file(&output).unwrap();
    let frames: Vec<&str> = transcript.lines().filter(|line| line.starts_with('#')).collect();
    let [reads, calls] = frames[..] else { panic!("{transcript}") };
    assert!(reads.contains("reads_behind (") && reads.contains("=5)"), "{transcript}");
    assert!(reads.ends_with(&line("/* the read */")), "{transcript}");
    assert!(
        calls.contains("errs (count=5)") && calls.ends_with(&line("/* the call */")),
        "{transcript}"
    );
    assert!(transcript.contains("block = 0x"), "{transcript}");
}
