//! Wheels: fetches packages with pip, and unpacks what it fetched.
//!
//! Nothing of a package is executed here: `pip download --only-binary :all:` builds nothing, and a wheel
//! is a zip archive, which Python's `zipfile` unpacks. Each wheel gets a folder of its own and keeps its
//! own layout in it: the search paths of its libraries say `$ORIGIN/../NAME.libs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// Where wheels are, packed and unpacked.
pub struct Wheels {
    folder: PathBuf,
    /// Where each wheel was unpacked, in the order in which they came.
    pub unpacked: Vec<PathBuf>,
    /// What could not be had, and why.
    pub failures: Vec<String>,
}

impl Wheels {
    pub fn new(folder: PathBuf) -> Wheels {
        Wheels { folder, unpacked: Vec::new(), failures: Vec::new() }
    }

    /// Downloads a package's wheel for this Python and this machine, and unpacks it.
    pub fn fetch(&mut self, package: &str) -> Result<()> {
        // A folder for each, so that what is in it is the package.
        let folder = self.folder.join("packages").join(package.replace('/', "_"));
        fs::create_dir_all(&folder)?;
        let mut found = files(&folder)?;
        if found.is_empty() {
            eprintln!("fetching {package}");
            let mut pip = python(&["-m", "pip", "download", "--quiet", "--no-input"]);
            pip.args(["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
            pip.arg("--dest").arg(&folder).arg("--").arg(package);
            if let Err(error) = run(&mut pip) {
                self.failures.push(format!("{package}: pip: {error}"));
                return Ok(());
            }
            found = files(&folder)?;
        }
        found.iter().try_for_each(|wheel| self.unpack(wheel))
    }

    /// Unpacks a wheel, unless an earlier run did.
    pub fn unpack(&mut self, wheel: &Path) -> Result<()> {
        let name = wheel.file_stem().ok_or("a wheel without a name")?;
        let folder = self.folder.join("unpacked").join(name);
        if self.unpacked.contains(&folder) {
            return Ok(());
        }
        if !folder.is_dir() {
            // Renamed once it is complete.
            let part = self.folder.join("unpacking");
            let _ = fs::remove_dir_all(&part);
            fs::create_dir_all(&part)?;
            fs::create_dir_all(self.folder.join("unpacked"))?;
            let mut zipfile = python(&["-m", "zipfile", "-e"]);
            if let Err(error) = run(zipfile.arg(wheel).arg(&part)) {
                self.failures.push(format!("{}: {error}", wheel.display()));
                return Ok(());
            }
            fs::rename(&part, &folder)?;
        }
        self.unpacked.push(folder);
        Ok(())
    }
}

/// Whether a path names a wheel.
pub fn is_wheel(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "whl") && path.is_file()
}

/// The wheels that lie in a folder.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    let mut found: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    found.retain(|path| is_wheel(path));
    found.sort();
    Ok(found)
}

fn python(args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a command to its end. The error is the last line that it wrote.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stderr(Stdio::piped()).output().map_err(|error| {
        format!("cannot start {}: {error}", command.get_program().to_string_lossy())
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Err(format!("{}: {}", output.status, last.unwrap_or("no message")).into())
}
