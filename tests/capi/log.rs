//! What a C host hears of memdl: by its callback, and by `MEMDL_LOG` on standard error.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;

use crate::capi::forms;
use crate::common::{assert_success, build, isolated_with, limited, repository, run};
// It has the functions below.
use memdl as _;

/// `log.c`, linked with memdl as a static library, with these flags for the linker.
fn host(name: &str, flags: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi-log-{name}"));
    let mut command = limited(120, "gcc");
    command.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"]).arg(repository("include"));
    command.arg(repository("tests/capi/log.c")).arg(&forms().fixed);
    command.args(["-lgcc_s", "-ldl", "-lm", "-pthread"]).args(flags).arg("-o").arg(&program);
    run(&mut command, "gcc");
    program
}

/// What the host writes: to standard output, and to standard error.
fn said(host: &Path, level: Option<u32>, operator: Option<&str>) -> (Vec<String>, Vec<String>) {
    let library = build("gcc", "capi/plain.c", &["-O1", "-Wl,-soname,lib\x1bplain.so"]);
    let mut command = limited(60, host);
    command.args(level.map(|level| level.to_string())).arg(library);
    command.env_remove("MEMDL_LOG").envs(operator.map(|word| ("MEMDL_LOG", word)));
    let output: Output = command.output().unwrap();
    assert_success(&output, "the host");
    let lines = |text: &[u8]| String::from_utf8_lossy(text).lines().map(str::to_owned).collect();
    let (out, err): (Vec<String>, Vec<String>) = (lines(&output.stdout), lines(&output.stderr));
    assert_eq!(out.last().map(String::as_str), Some("done"), "{out:?} {err:?}");
    (out[..out.len() - 1].to_vec(), err)
}

/// How the events of `log.c` begin, at the level `debug`: it loads, it unloads, it fails.
const EVENTS: [&str; 3] = [
    r"lib\u{1b}plain.so: loaded at 0x",
    r"lib\u{1b}plain.so: unloaded at 0x",
    "a load failed after ",
];

#[track_caller]
fn assert_events(lines: &[String], before: &str) {
    assert_eq!(lines.len(), EVENTS.len(), "{lines:#?}");
    for (line, event) in lines.iter().zip(EVENTS) {
        // A number of a process may stand in between.
        let start = line.split_once(']').map_or(line.as_str(), |(_, rest)| rest);
        assert!(start.starts_with(&format!("{before}{event}")), "{lines:#?}");
        assert!(line.contains(" ms"), "{lines:#?}");
    }
}

#[test]
fn a_c_host_hears_what_it_asks_for_and_operators_what_they_ask_for() {
    let host = host("plain", &[]);
    let nothing = (vec![], vec![]);
    // By itself it hears nothing.
    assert_eq!(said(&host, None, None), nothing);
    // The host's callback, by its level: DEBUG, TRACE; not INFO.
    for level in [4, 5] {
        let (heard, errors) = said(&host, Some(level), None);
        assert_events(&heard, "heard 4: ");
        assert_eq!(errors, nothing.1);
    }
    assert_eq!(said(&host, Some(3), None), nothing);

    // The operator, without a callback.
    for word in ["debug", "trace"] {
        let (heard, errors) = said(&host, None, Some(word));
        assert_eq!(heard, nothing.0);
        assert_events(&errors, " debug: ");
        assert!(errors.iter().all(|line| line.starts_with("memdl[")), "{errors:#?}");
    }
    for word in ["off", "error", "warn", "info"] {
        assert_eq!(said(&host, None, Some(word)), nothing, "{word}");
    }
    // The operator's level, with the host's callback.
    let (heard, errors) = said(&host, Some(2), Some("debug"));
    assert_events(&heard, "heard 4: ");
    assert_eq!(errors, nothing.1);
    assert_eq!(said(&host, Some(4), Some("off")), nothing);

    // A word that does not exist is not passed over in silence.
    let (_, errors) = said(&host, None, Some("loud"));
    let [error] = &errors[..] else { panic!("{errors:?}") };
    let text = " warn: MEMDL_LOG=\"loud\" is none of off, error, warn, info, debug, trace: ignored";
    assert!(error.ends_with(text), "{error}");
}

/// The warning that nobody heard in C: debuggers cannot find images.
#[test]
fn a_stripped_c_host_hears_that_debuggers_see_nothing() {
    let host = host("stripped", &["-s"]);
    assert_eq!(said(&host, None, None), (vec![], vec![]));
    let is_warning = |line: &str| {
        line.contains("debuggers cannot see images") && line.contains("-K __jit_debug_descriptor")
    };
    let (heard, errors) = said(&host, Some(2), None);
    assert!(heard.len() == 1 && heard[0].starts_with("heard 2: ") && is_warning(&heard[0]));
    assert!(errors.is_empty(), "{errors:?}");
    let (heard, errors) = said(&host, None, Some("warn"));
    assert!(heard.is_empty() && errors.len() == 1 && is_warning(&errors[0]), "{errors:?}");
}

unsafe extern "C" {
    fn memdl_set_log(
        level: c_int,
        logger: Option<extern "C" fn(c_int, *const c_char, *mut c_void)>,
        user: *mut c_void,
        free_user: Option<extern "C" fn(*mut c_void)>,
    ) -> c_int;
    fn memdl_error() -> *const c_char;
    fn memdl_open(bytes: *const c_void, len: usize, options: *const c_void) -> *mut c_void;
}

extern "C" fn hear(_: c_int, _: *const c_char, _: *mut c_void) {
    panic!("the host's own logger is there");
}

extern "C" fn free(user: *mut c_void) {
    // SAFETY: the test passes a number of its own.
    unsafe { *user.cast::<c_int>() += 1 };
}

/// The logger of a host in Rust.
struct Host;

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl log::Log for Host {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        HEARD.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// The operator's variable is for C hosts. A host in Rust says itself what it hears.
#[test]
fn the_logger_of_a_host_in_rust_stays() {
    isolated_with(&[("MEMDL_LOG", "off")], || {
        log::set_logger(&Host).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
        let mut freed: c_int = 0;
        // SAFETY: the functions have the types of memdl.h; nothing is loaded.
        unsafe {
            let user = (&raw mut freed).cast();
            assert_eq!(memdl_set_log(5, Some(hear), user, Some(free)), -1);
            let error = CStr::from_ptr(memdl_error()).to_str().unwrap();
            assert!(error.starts_with("the process has a logger"), "{error}");
            assert!(memdl_open(c"?".as_ptr().cast(), 1, std::ptr::null()).is_null());
        }
        assert_eq!((freed, log::max_level()), (1, log::LevelFilter::Debug));
        let heard = HEARD.lock().unwrap();
        assert!(heard.len() == 1 && heard[0].starts_with("a load failed after "), "{heard:?}");
    });
}
