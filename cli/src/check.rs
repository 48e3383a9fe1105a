//! `memdl check`.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use memdl::Report;
use serde_json::{Value, json};

use crate::arguments::CheckOptions;
use crate::failure::{ERROR, Failure, GOOD, REFUSED, USAGE, complain};
use crate::host::Host;
use crate::inspect::{loader, read};
use crate::json;

/// What would come of a load of one file.
struct Checked {
    report: Report,
    /// Imports that only this program has, not the host.
    lacking: Vec<String>,
}

impl Checked {
    fn loads(&self) -> bool {
        !self.report.is_refused() && self.lacking.is_empty()
    }

    /// Each reason for a refusal, as text.
    fn reasons(&self, host: Option<&Host>) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.report.refusals().iter().map(ToString::to_string).collect();
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
    let host = options.host.as_deref().map(Host::read).transpose()?;
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
    let loader = loader(file, &options.load)?;
    let report = loader.inspect(&bytes);
    let Some(host) = host else { return Ok(Checked { report, lacking: Vec::new() }) };
    let (loader, lacking) = host.lend(loader, &report)?;
    Ok(Checked { report: loader.inspect(&bytes), lacking })
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
    let refusals: Vec<Value> = checked.report.refusals().iter().map(json::of_error).collect();
    json!({
        "file": file.to_string_lossy(),
        "loads": checked.loads(),
        "refusals": refusals,
        "not_in_host": checked.lacking,
    })
}
