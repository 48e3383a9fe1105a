//! `memdl inspect`.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use memdl::{Loader, Provided, Report};

use crate::arguments::{InspectOptions, LoadOptions};
use crate::failure::{DIM, ERROR, Failure, GOOD, REFUSED, advise};
use crate::host::in_folders;
use crate::json;

/// The contents of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::unreadable(path, &error))
}

/// The name that an image of this file gets.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A loader with these options, for the file.
pub fn loader(path: &Path, options: &LoadOptions) -> Result<Loader, Failure> {
    let mut loader =
        Loader::new().name(name_of(path)).system_libraries(!options.no_system_libraries);
    for (name, file) in &options.provide {
        loader = loader.provide(name, read(file)?);
    }
    Ok(loader)
}

/// The same loader. For bytes for another machine, it also takes what they need from these folders: those of this
/// machine have libraries that would be in the process a second time.
pub fn with_folders(loader: Loader, bytes: &[u8], folders: &[PathBuf]) -> Loader {
    if folders.is_empty() || loader.inspect(bytes).is_for_this_machine() {
        return loader;
    }
    let folders = folders.to_owned();
    loader.provider(move |request| {
        let file = in_folders(&folders, request.name())?;
        Some(match fs::read(&file) {
            Ok(bytes) => Provided::from(bytes),
            Err(error) => Provided::failed(format!("cannot read {}: {error}", file.display())),
        })
    })
}

pub fn inspect(options: &InspectOptions) -> Result<ExitCode, Failure> {
    let bytes = read(&options.file)?;
    let loader = loader(&options.file, &options.load)?;
    let report = with_folders(loader, &bytes, &options.foreign.libraries).inspect(&bytes);
    match options.json {
        true => println!("{:#}", json::of_report(&report)),
        false => print(&report, options.symbols),
    }
    Ok(ExitCode::from(if report.is_refused() { REFUSED } else { 0 }))
}

fn print(report: &Report, with_symbols: bool) {
    for line in report.to_string().lines() {
        match line.split_once(": ") {
            Some((verdict @ ("refused" | "cannot be loaded in this process"), reason)) => {
                anstream::println!("{ERROR}{verdict}:{ERROR:#} {}", advise(reason));
            }
            _ if line == "can be loaded" => anstream::println!("{GOOD}{line}{GOOD:#}"),
            _ => println!("{line}"),
        }
    }
    if with_symbols {
        for import in report.imports() {
            anstream::println!("{DIM}import{DIM:#} {import}");
        }
        for export in report.exports() {
            let version = match (export.version(), export.is_default_version()) {
                (Some(version), true) => format!("@@{}", version.escape_debug()),
                (Some(version), false) => format!("@{}", version.escape_debug()),
                (None, _) => String::new(),
            };
            let (name, value) = (export.name().escape_debug(), export.value());
            anstream::println!("{DIM}export{DIM:#} {name}{version} at {value:#x}");
        }
    }
}
