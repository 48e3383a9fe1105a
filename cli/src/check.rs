//! `memdl check`.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use memdl::{Error, Report};
use serde_json::{Value, json};

use crate::arguments::CheckOptions;
use crate::failure::{ERROR, Failure, GOOD, REFUSED, USAGE, complain};
use crate::host::Host;
use crate::inspect::{loader, read, with_folders};
use crate::json;

/// What would come of a load of one file.
struct Checked {
    report: Report,
    /// Imports that only this program has, not the host.
    lacking: Vec<String>,
    /// It is for another machine, and so is the host.
    is_elsewhere: bool,
}

impl Checked {
    fn loads(&self) -> bool {
        self.refusals().is_empty() && self.lacking.is_empty()
    }

    /// In a host for another machine, that machine counts.
    fn refusals(&self) -> Vec<&Error> {
        match self.is_elsewhere {
            true => self.report.refusals_on_its_machine().collect(),
            false => self.report.refusals().iter().collect(),
        }
    }

    /// Each reason for a refusal, as text.
    fn reasons(&self, host: Option<&Host>) -> Vec<String> {
        let mut reasons: Vec<String> = self.refusals().iter().map(ToString::to_string).collect();
        if let (Some(host), false) = (host, self.lacking.is_empty()) {
            reasons.push(format!(
                "{}: {} does not have: {}; link it with their libraries, or provide these (--provide)",
                self.report.name().escape_debug(),
                host.path().display(),
                self.lacking.join(", ")
            ));
        }
        reasons
    }
}

pub fn check(options: &CheckOptions) -> Result<ExitCode, Failure> {
    let folders = &options.foreign.libraries;
    let host = options.host.as_deref().map(|host| Host::read(host, folders)).transpose()?;
    let (mut values, mut code) = (Vec::new(), 0);
    for file in &options.files {
        let checked = match checked(file, options, host.as_ref()) {
            Ok(checked) => checked,
            // The other files are checked all the same.
            Err(failure) => {
                failure.print();
                code = USAGE;
                continue;
            }
        };
        if !checked.loads() {
            code = code.max(REFUSED);
        }
        match options.json {
            true => values.push(value(file, &checked)),
            false => print(file, &checked, host.as_ref()),
        }
    }
    if options.json {
        let host = options.host.as_ref().map(|host| host.to_string_lossy());
        println!("{:#}", json!({ "host": host, "files": values }));
    }
    Ok(ExitCode::from(code))
}

fn checked(file: &Path, options: &CheckOptions, host: Option<&Host>) -> Result<Checked, Failure> {
    let bytes = read(file)?;
    let mut loader = with_folders(loader(file, &options.load)?, &bytes, &options.foreign.libraries);
    let report = loader.inspect(&bytes);
    let unhosted = |report| Ok(Checked { report, lacking: Vec::new(), is_elsewhere: false });
    let Some(host) = host else { return unhosted(report) };
    if report.machine_number().is_some() && !host.is_for(&report) {
        if !report.is_for_this_machine() {
            return unhosted(report);
        }
        return Err(Failure::usage(format!(
            "{}: {} is for another machine",
            file.display(),
            host.path().display()
        )));
    }
    let is_elsewhere = report.machine_number().is_some() && !report.is_for_this_machine();
    if is_elsewhere {
        // What the host does not have, it would open from these folders.
        loader = loader.system_libraries(false);
    }
    let (loader, lacking) = host.lend(loader, &report)?;
    Ok(Checked { report: loader.inspect(&bytes), lacking, is_elsewhere })
}

fn print(file: &Path, checked: &Checked, host: Option<&Host>) {
    let file = file.display();
    match checked.loads() {
        true => anstream::println!("{file}: {GOOD}loads{GOOD:#}"),
        false => anstream::println!("{file}: {ERROR}refused{ERROR:#}"),
    }
    for reason in checked.reasons(host) {
        complain(&reason);
    }
}

fn value(file: &Path, checked: &Checked) -> Value {
    let refusals: Vec<Value> = checked.refusals().into_iter().map(json::of_error).collect();
    json!({
        "file": file.to_string_lossy(),
        "loads": checked.loads(),
        "refusals": refusals,
        "not_in_host": checked.lacking,
    })
}
