//! Other people's programs as tests: they run with all that they open by `dlopen` loaded by memdl, and print
//! what they print in a plain run. `sh tools/shim/programs.sh` runs more of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{limited, repository, run};

/// Builds the preload library.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Shared with tests/capi, which builds the same dependencies.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
        let mut command = limited(900, env!("CARGO"));
        command
            .args(["build", "--quiet", "--package", "memdl-shim", "--target-dir"])
            .arg(&target)
            .current_dir(repository(""));
        run(&mut command, "cargo");
        target.join("debug/libmemdl_shim.so")
    })
}

/// Runs a program of `tools/shim/programs` plainly and with the preload library. Its libraries are at least
/// `least`.
fn check(program: &str, least: u32) {
    let mut command: Command = limited(120, "sh");
    command
        .arg(repository("tools/shim/programs.sh"))
        .arg(program)
        .env("MEMDL_SHIM_LIBRARY", library());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let loaded = text.split("memdl loaded ").nth(1).and_then(|it| it.split(' ').next());
    let loaded: u32 = loaded.unwrap().parse().unwrap();
    assert!(
        loaded >= least,
        "memdl loaded {loaded} libraries, at least {least} were expected\n{errors}"
    );
}

#[test]
fn calls_of_a_c_program() {
    check("calls", 5);
}

#[test]
fn cpython_with_all_extension_modules() {
    check("cpython", 30);
}

#[test]
fn perl_with_all_xs_modules() {
    check("perl", 30);
}

#[test]
fn openssl_with_its_legacy_provider() {
    check("openssl", 1);
}
