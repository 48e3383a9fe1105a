//! The libraries that are debugged: built from `testlibs/debug`, with marks in their sources for
//! where a debugger is to stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::scratch;
use crate::common;

/// Two tests may want the same one at the same time.
static BUILDING: Mutex<()> = Mutex::new(());

pub fn library(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    common::build(compiler, &format!("debug/{source}"), flags)
}

pub fn program(source: &str) -> PathBuf {
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    common::build_program("gcc", source, &["-g", "-O0"])
}

/// A file that nobody else has, removed when dropped.
pub struct Copy(pub PathBuf);

impl Copy {
    pub fn of(library: &Path) -> Copy {
        let copy = scratch("library.so");
        fs::copy(library, &copy).unwrap();
        Copy(copy)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Where a source in `testlibs/debug` says `MARK name`, as gdb wants it: `clib.c:12`.
pub fn mark(source: &str, name: &str) -> String {
    let marks = marks(&format!("testlibs/debug/{source}"));
    let found = marks.into_iter().find(|(mark, _)| mark == name);
    found.unwrap_or_else(|| panic!("no MARK {name} in {source}")).1
}

/// All marks of a source, by name: where each is.
pub fn marks(source: &str) -> Vec<(String, String)> {
    let path = common::repository(source);
    // memdl has a file of the host's name, too.
    let file = match path.file_name().unwrap().to_str().unwrap() {
        "host.rs" => "harness/host.rs",
        name => name,
    };
    let text = fs::read_to_string(&path).unwrap();
    let mark = |(number, line): (usize, &str)| {
        let (_, name) = line.rsplit_once(" MARK ")?;
        Some((name.to_owned(), format!("{file}:{}", number + 1)))
    };
    text.lines().enumerate().filter_map(mark).collect()
}

pub fn steps(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|&step| step.to_owned()).collect()
}

/// The steps of a host that loads the library and calls `entry(5)`.
pub fn load_and_call(library: &Path) -> Vec<String> {
    steps(&[&format!("load a {}", library.display()), "call a entry 5"])
}
