//! `memdl inspect`.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use memdl::{Loader, Report};

use crate::arguments::{InspectOptions, LoadOptions};
use crate::failure::{DIM, ERROR, Failure, GOOD, REFUSED, advise};
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

pub fn inspect(options: &InspectOptions) -> Result<ExitCode, Failure> {
    let report = loader(&options.file, &options.load)?.inspect(&read(&options.file)?);
    match options.json {
        true => println!("{:#}", json::of_report(&report)),
        false => print(&report, options.symbols),
    }
    Ok(ExitCode::from(if report.is_refused() { REFUSED } else { 0 }))
}

fn print(report: &Report, with_symbols: bool) {
    for line in report.to_string().lines() {
        match line.split_once(": ") {
            Some(("refused", reason)) => {
                anstream::println!("{ERROR}refused:{ERROR:#} {}", advise(reason));
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
