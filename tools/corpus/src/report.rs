//! What is printed, and what `--json` writes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::compare::Outcome;
use crate::verdict::Reason;
use crate::wheels::Wheels;

/// What is printed.
pub struct Report {
    pub text: String,
    pub json: String,
    pub is_clean: bool,
}

impl Report {
    pub fn new(outcomes: &[Outcome], wheels: &Wheels) -> Report {
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
        let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
        for (reason, count) in outcomes.iter().flat_map(|outcome| &outcome.reasons) {
            *reasons.entry(*reason).or_default() += count;
        }
        let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
        let only_system = count(|o| o.system.is_ok() && o.memdl.is_err());
        let symbol_differences = sum(|o| o.symbol_differences.len());
        let word_differences = sum(|o| o.word_differences.len());

        let mut rows: Vec<(String, usize)> = Vec::new();
        if !wheels.unpacked.is_empty() {
            let of = |wheel: &&PathBuf| outcomes.iter().any(|o| o.path.starts_with(wheel));
            rows.push(("wheels".into(), wheels.unpacked.len()));
            rows.push(("with shared libraries".into(), wheels.unpacked.iter().filter(of).count()));
        }
        rows.extend([
            ("shared libraries".into(), outcomes.len()),
            ("`dlopen` loads".into(), count(|o| o.system.is_ok())),
            ("memdl loads".into(), count(|o| o.memdl.is_ok())),
            ("with its folder as `LD_LIBRARY_PATH`".into(), count(|o| o.in_its_folder)),
            ("both".into(), count(|o| o.system.is_ok() && o.memdl.is_ok())),
            ("only `dlopen`".into(), only_system),
            ("only memdl".into(), count(|o| o.system.is_err() && o.memdl.is_ok())),
            ("neither".into(), count(|o| o.system.is_err() && o.memdl.is_err())),
            ("end differs (close, exit)".into(), count(|o| o.exit.is_some())),
            ("reports that disagree".into(), count(|o| o.report.is_some())),
            ("symbols compared".into(), sum(|o| o.symbols)),
            ("symbols different".into(), symbol_differences),
            ("relocated words compared".into(), sum(|o| o.words)),
        ]);
        for (reason, count) in &reasons {
            rows.push((format!("explained: {reason}"), *count));
        }
        rows.push(("words different, unexplained".into(), word_differences));
        let mut text = String::from("| | |\n|---|---:|\n");
        for (what, count) in &rows {
            let _ = writeln!(text, "| {what} | {} |", grouped(*count));
        }

        text += &lists(outcomes, wheels);
        let is_clean = only_system == 0
            && symbol_differences == 0
            && outcomes.iter().all(|o| o.report.is_none())
            && word_differences == 0
            && wheels.failures.is_empty();
        Report { text, json: format!("{:#}\n", json(&rows, outcomes)), is_clean }
    }
}

/// The libraries that are not the same with both, by what differs.
fn lists(outcomes: &[Outcome], wheels: &Wheels) -> String {
    let mut text = String::new();
    let mut list = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(text, "\n{title}\n\n");
            for line in lines {
                let _ = writeln!(text, "* {line}");
            }
        }
    };
    list("Wheels that could not be had:", wheels.failures.clone());
    let name = |outcome: &Outcome| outcome.path.display().to_string();
    let of = |line: fn(&Outcome) -> Option<String>| -> Vec<String> {
        let lines = outcomes.iter().filter_map(|o| Some(format!("{}: {}", name(o), line(o)?)));
        lines.collect()
    };
    list("Only dlopen loads:", of(|o| o.memdl.clone().err().filter(|_| o.system.is_ok())));
    list(
        "Only memdl loads; dlopen says:",
        of(|o| o.system.clone().err().filter(|_| o.memdl.is_ok())),
    );
    list(
        "The end differs:",
        of(|o| o.exit.as_ref().map(|(a, b)| format!("dlopen {a}, memdl {b}"))),
    );
    let differing = |of: fn(&Outcome) -> &Vec<String>| -> Vec<String> {
        let some = |outcome: &Outcome| {
            let lines = of(outcome);
            let shown = lines.iter().take(20).map(|line| format!("{}: {line}", name(outcome)));
            let rest = lines.len().saturating_sub(20);
            let more = (rest > 0).then(|| format!("{}: and {rest} more", name(outcome)));
            shown.chain(more).collect::<Vec<_>>()
        };
        outcomes.iter().flat_map(some).collect()
    };
    list("Symbols that differ:", differing(|o| &o.symbol_differences));
    list("Words that differ:", differing(|o| &o.word_differences));
    list("Reports that disagree with the load:", of(|o| o.report.clone()));
    list("In the process before:", of(|o| o.resident.then(|| "resident".into())));
    text
}

/// 1234567 as 1,234,567.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn json(rows: &[(String, usize)], outcomes: &[Outcome]) -> Value {
    let side = |result: &Result<(), String>| match result {
        Ok(()) => Value::Bool(true),
        Err(reason) => json!(reason),
    };
    let library = |outcome: &Outcome| {
        let reasons: BTreeMap<String, usize> =
            outcome.reasons.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        json!({
            "path": outcome.path.to_string_lossy(),
            "dlopen": side(&outcome.system),
            "memdl": side(&outcome.memdl),
            "resident": outcome.resident,
            "in_its_folder": outcome.in_its_folder,
            "symbols": outcome.symbols,
            "words": outcome.words,
            "reasons": reasons,
            "symbol_differences": outcome.symbol_differences,
            "word_differences": outcome.word_differences,
            "report": outcome.report,
            "end": outcome.exit,
            "milliseconds": outcome.time.as_millis() as u64,
        })
    };
    let table: BTreeMap<&str, usize> = rows.iter().map(|(row, count)| (&**row, *count)).collect();
    json!({ "table": table, "libraries": outcomes.iter().map(library).collect::<Vec<_>>() })
}
