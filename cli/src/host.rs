//! Another program as the host: what an image finds in it.
//!
//! Nothing of the program runs. The system's dynamic linker lists its libraries (`--list`, as `ldd` does it), and
//! their symbol tables say what they export. For a program for another machine, they are those of these names in folders
//! that the command line names.

#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use goblin::elf::Elf;
use goblin::elf::program_header::PT_INTERP;
use memdl::{ImportBinding, LibraryOrigin, Loader, Report};

use crate::failure::Failure;
use crate::inspect::read;

/// Where the address of a symbol would be that the host has. It is never read.
const SOMEWHERE: usize = 0x1000;

/// A program, with the libraries that it is linked with.
pub struct Host {
    path: PathBuf,
    /// `e_machine`.
    machine: u16,
    /// Its libraries, by the names that `DT_NEEDED` has for them.
    libraries: HashMap<String, PathBuf>,
    /// The files of these, as the system names them.
    files: HashSet<PathBuf>,
    /// What it exports, and its libraries do: names, with their versions. None in an object without versions.
    exports: HashMap<String, HashSet<Option<String>>>,
}

impl Host {
    /// Reads a program. If it is for another machine, its libraries are in these folders.
    pub fn read(path: &Path, folders: &[PathBuf]) -> Result<Host, Failure> {
        let bytes = read(path)?;
        let elf = parsed(path, &bytes)?;
        if !elf.program_headers.iter().any(|header| header.p_type == PT_INTERP) {
            return Err(Failure::usage(format!(
                "{} is not linked dynamically, and memdl works in dynamically linked programs only",
                path.display()
            )));
        }
        let mut host = Host {
            path: path.to_owned(),
            machine: elf.header.e_machine,
            libraries: HashMap::new(),
            files: HashSet::new(),
            exports: HashMap::new(),
        };
        host.add(&elf);
        let linked = match memdl::inspect(&bytes).is_for_this_machine() {
            true => linked(path)?,
            false => linked_elsewhere(path, &bytes, folders)?,
        };
        for (name, file) in linked {
            let bytes = read(&file)?;
            host.add(&parsed(&file, &bytes)?);
            host.files.insert(real(&file));
            host.libraries.insert(name, file);
        }
        Ok(host)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the library of this report is for the host's machine.
    pub fn is_for(&self, report: &Report) -> bool {
        report.machine_number() == Some(self.machine)
    }

    fn add(&mut self, elf: &Elf<'_>) {
        let versions = versions(elf);
        for (index, symbol) in elf.dynsyms.iter().enumerate() {
            // STB_LOCAL, and what the object only refers to.
            if symbol.st_bind() == 0 || symbol.st_shndx == 0 {
                continue;
            }
            let Some(name) = elf.dynstrtab.get_at(symbol.st_name) else { continue };
            let version = elf.versym.as_ref().and_then(|it| it.get_at(index)).and_then(|version| {
                let number = version.vs_val & 0x7fff;
                versions.get(&number).map(|&name| name.to_owned())
            });
            self.exports.entry(name.to_owned()).or_default().insert(version);
        }
    }

    fn exports(&self, name: &str, version: Option<&str>) -> bool {
        self.exports.get(name).is_some_and(|versions| match version {
            None => true,
            // A definition without a version is one for all.
            Some(version) => versions.iter().any(|it| it.as_deref().is_none_or(|it| it == version)),
        })
    }

    /// The loader with what the host has. `report` is the one without it. Returns also the imports that only this
    /// program would supply.
    pub fn lend(
        &self,
        mut loader: Loader,
        report: &Report,
    ) -> Result<(Loader, Vec<String>), Failure> {
        let mut lacking = Vec::new();
        // What the image brings, by `DT_NEEDED`.
        let brings: HashSet<PathBuf> = report
            .needed()
            .iter()
            .filter_map(|library| match library.origin() {
                LibraryOrigin::InProcess { path, .. }
                | LibraryOrigin::File { path, .. }
                | LibraryOrigin::Copy { path, .. } => Some(real(Path::new(&**path))),
                _ => None,
            })
            .collect();
        let is_there = |path: &str| {
            let file = real(Path::new(path));
            self.files.contains(&file) || brings.contains(&file)
        };
        for import in report.imports() {
            let is_found = match import.binding() {
                ImportBinding::Missing | ImportBinding::Unknown => false,
                ImportBinding::Executable | ImportBinding::Process => false,
                ImportBinding::Library { path, .. } | ImportBinding::Replaced { path, .. } => {
                    is_there(path)
                }
                _ => true,
            };
            if is_found {
                continue;
            }
            let is_exported = self.exports(import.name(), import.version());
            if is_exported {
                let somewhere: *const c_void = ptr::without_provenance(SOMEWHERE);
                loader = loader.define(import.name(), somewhere);
            } else if !import.is_weak()
                && !matches!(import.binding(), ImportBinding::Missing | ImportBinding::Unknown)
            {
                lacking.push(import.name().escape_debug().to_string());
            }
        }
        for library in report.needed() {
            let is_missing =
                matches!(library.origin(), LibraryOrigin::Missing { .. } | LibraryOrigin::Unknown);
            if let Some(file) = self.libraries.get(library.name()).filter(|_| is_missing) {
                loader = loader.provide(library.name(), read(file)?);
            }
        }
        Ok((loader, lacking))
    }
}

/// The file that a path leads to.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn parsed<'a>(path: &Path, bytes: &'a [u8]) -> Result<Elf<'a>, Failure> {
    Elf::parse(bytes)
        .map_err(|error| Failure::usage(format!("{} is no program: {error}", path.display())))
}

/// The names of the versions that an object defines, by their numbers.
fn versions<'a>(elf: &Elf<'a>) -> HashMap<u16, &'a str> {
    let Some(section) = &elf.verdef else { return HashMap::new() };
    let name = |definition: goblin::elf::symver::Verdef<'_>| {
        let name = definition.iter().next()?.vda_name;
        Some((definition.vd_ndx, elf.dynstrtab.get_at(name)?))
    };
    // The version of the object itself is no version of a symbol.
    section.iter().filter_map(name).filter(|(number, _)| *number > 1).collect()
}

/// The libraries that a program for another machine is linked with: their names, and their files in these folders.
fn linked_elsewhere(
    path: &Path,
    bytes: &[u8],
    folders: &[PathBuf],
) -> Result<Vec<(String, PathBuf)>, Failure> {
    let needed = |bytes: &[u8], path: &Path| -> Result<Vec<String>, Failure> {
        Ok(parsed(path, bytes)?.libraries.iter().map(|name| (*name).to_owned()).collect())
    };
    let mut names = needed(bytes, path)?;
    let mut libraries: Vec<(String, PathBuf)> = Vec::new();
    while let Some(name) = names.pop() {
        if libraries.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let found = in_folders(folders, &name).ok_or_else(|| {
            Failure::usage(format!(
                "{} is for another machine, and {} is in none of the folders of its libraries; name them \
                 (--libraries FOLDER)",
                path.display(),
                name.escape_debug()
            ))
        })?;
        names.extend(needed(&read(&found)?, &found)?);
        libraries.push((name, found));
    }
    Ok(libraries)
}

/// The file of the library of this name in the first of the folders that has one. A path is one on another machine.
pub fn in_folders(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let name = Path::new(name).file_name()?;
    folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The libraries that the program is linked with: their names, and their files.
fn linked(path: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let cannot = |why: String| {
        Failure::usage(format!("cannot list the libraries of {}: {why}", path.display()))
    };
    // Our own interpreter: the one that the file names would run as a program of the file's choice.
    let own = fs::read("/proc/self/exe").map_err(|error| cannot(error.to_string()))?;
    let own = Elf::parse(&own).map_err(|error| cannot(error.to_string()))?;
    let interpreter = own.interpreter.ok_or_else(|| cannot("no dynamic linker".into()))?;
    let output = Command::new(interpreter).arg("--list").arg(real(path)).output();
    let output = output.map_err(|error| cannot(error.to_string()))?;
    if !output.status.success() {
        return Err(cannot(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // Lines `NAME => PATH (ADDRESS)`; the dynamic linker itself without a name, the vDSO without a path.
    let mut libraries = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((line, _)) = line.trim().rsplit_once(" (") else { continue };
        let (name, file) = line.split_once(" => ").unwrap_or((line, line));
        if file.starts_with('/') {
            let name = name.rsplit('/').next().unwrap_or(name);
            libraries.push((name.to_owned(), PathBuf::from(file)));
        }
    }
    Ok(libraries)
}
