//! An access to a thread-local variable of an image, beside the same of a library that `dlopen`
//! opened from the same file: through general dynamic, and through TLS descriptors.
//!
//! `cargo bench --bench tls`. Both run in turns in one process; the ratio of their medians counts,
//! and must not be more than 2.

use std::ffi::{CString, c_long};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use memdl::{Library, Loader};

type Accesses = unsafe extern "C" fn(c_long) -> c_long;

const ACCESSES: c_long = 200_000;
const ROUNDS: usize = 101;
const MOST: f64 = 2.0;

fn build(name: &str, flag: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-tls-{name}.so"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testlibs/tls/cost.c");
    let status = Command::new("gcc")
        .args(["-O2", "-shared", "-fPIC", flag, "-o"])
        .arg(&path)
        .arg(source)
        .status()
        .expect("a C compiler: `sh tests/setup.sh` installs one");
    assert!(status.success());
    path
}

/// The library's function, from `dlopen`, for good.
fn opened(path: &Path) -> Accesses {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: C strings; the library has no constructors. `accesses` is of this type.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        let symbol = libc::dlsym(handle, c"accesses".as_ptr());
        assert!(!symbol.is_null());
        std::mem::transmute(symbol)
    }
}

/// Nanoseconds for each access.
fn measure(accesses: Accesses) -> f64 {
    let start = Instant::now();
    // SAFETY: it has no preconditions, and its library is loaded.
    black_box(unsafe { accesses(ACCESSES) });
    start.elapsed().as_secs_f64() * 1e9 / ACCESSES as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Compares the two, and tells whether the ratio is good.
fn compare(what: &str, ours: Accesses, theirs: Accesses) -> bool {
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_theirs.push(measure(theirs));
        of_ours.push(measure(ours));
    }
    let (ours, theirs) = (median(of_ours), median(of_theirs));
    let ratio = ours / theirs;
    println!("{what:45} {ours:6.2} ns {theirs:6.2} ns   {ratio:4.2}");
    ratio <= MOST
}

fn main() -> ExitCode {
    println!("{:45} {:>9} {:>9}   ratio", "", "memdl", "dlopen");
    let mut good = true;
    for (name, flag) in [
        ("general dynamic", "-ftls-model=global-dynamic"),
        ("descriptors", "-mtls-dialect=gnu2"),
        ("initial exec", "-ftls-model=initial-exec"),
    ] {
        let path = build(&name.replace(' ', "-"), flag);
        let file = std::fs::read(&path).unwrap();
        // SAFETY: it has no constructors.
        let load = || unsafe { Loader::new().load(&file) }.unwrap();
        // SAFETY: `accesses` is of this type; it is not called after its library goes.
        let function = |library: &Library| unsafe { *library.get::<Accesses>("accesses").unwrap() };
        let library = load();
        let (ours, theirs) = (function(&library), opened(&path));
        good &= compare(name, ours, theirs);
        if name == "initial exec" {
            continue;
        }
        let in_thread = move || compare(&format!("{name}, in a new thread"), ours, theirs);
        good &= std::thread::spawn(in_thread).join().unwrap();
        // Beyond the quick slots, which images that are loaded early have: told, and not held to
        // the limit.
        let many: Vec<Library> = (0..40).map(|_| load()).collect();
        compare(&format!("({name}, the 41st image)"), function(&many[39]), theirs);
    }
    if good {
        return ExitCode::SUCCESS;
    }
    println!("more than {MOST} times as much as `dlopen`");
    ExitCode::FAILURE
}
