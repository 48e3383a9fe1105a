//! What the tests share: building the test libraries. A missing tool is a failure that says what
//! to install, never a test that passes by skipping.

#![allow(dead_code)] // each test binary uses its own part of this

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{self, Command};

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds a shared library from a source in `testlibs/` and gives the path of the file.
///
/// The output is keyed by everything that goes into it and renamed into place, since test
/// binaries run in parallel.
pub fn build(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let shared: &[&str] = match compiler {
        "rustc" => &["--crate-type", "cdylib", "--edition", "2024"],
        _ => &["-shared", "-fPIC"],
    };
    build_with(compiler, source, &[shared, flags].concat(), "so")
}

/// Builds an executable from a source in `tests/` or `testlibs/`.
pub fn build_program(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    build_with(compiler, source, flags, "bin")
}

fn build_with(compiler: &str, source: &str, flags: &[&str], extension: &str) -> PathBuf {
    let source = [repository("testlibs").join(source), repository(source)]
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no source {source}"));
    let text = fs::read(&source).unwrap();
    let mut hasher = DefaultHasher::new();
    (compiler, &source, &text, flags).hash(&mut hasher);
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let output = folder.join(format!("{stem}-{:016x}.{extension}", hasher.finish()));
    if output.is_file() {
        return output;
    }
    let unfinished = folder.join(format!("{stem}-{:016x}.{}.tmp", hasher.finish(), process::id()));
    let mut command = Command::new(compiler);
    command.arg("-o").arg(&unfinished).arg(&source).args(flags).current_dir(folder);
    run(&mut command, compiler);
    fs::rename(&unfinished, &output).unwrap();
    output
}

/// Builds a shared library and reads it.
pub fn bytes(compiler: &str, source: &str, flags: &[&str]) -> Vec<u8> {
    fs::read(build(compiler, source, flags)).unwrap()
}

/// Runs a tool of package-manager provenance to its successful end.
pub fn run(command: &mut Command, package: &str) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}; `sh tests/setup.sh` installs what tests need ({package})")
    });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed: {}\n{out}{err}", output.status);
    out.into_owned()
}
