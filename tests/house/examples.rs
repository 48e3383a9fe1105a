//! Each public function and method of the Rust API has an example, which `cargo test --doc` runs.

use std::collections::BTreeSet;
use std::fs;

use crate::common::repository;
use crate::tidy::sources;

/// The names that `src/lib.rs` re-exports.
fn exported_names() -> BTreeSet<String> {
    let text = fs::read_to_string(repository("src/lib.rs")).unwrap();
    let uses = text.split("\npub use ").skip(1).map(|it| it.split(';').next().unwrap());
    let names = uses.flat_map(|it| it.rsplit("::").next().unwrap().split(','));
    names.map(|it| it.trim_matches(['{', '}', ' ', '\n']).to_owned()).collect()
}

/// The name that a declaration starts with.
fn name(declaration: &str) -> String {
    declaration.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The public functions of a file, in the way of rustfmt: the name, and the lines before it.
fn public_functions<'a>(text: &'a str, exported: &BTreeSet<String>) -> Vec<(String, Vec<&'a str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    // The exported type whose functions these are, and whether they are a trait's.
    let mut owner: Option<(String, bool)> = None;
    for (at, line) in lines.iter().enumerate() {
        if !line.is_empty() && !line.starts_with(' ') {
            let declared = match line.strip_prefix("impl") {
                // `impl<'a> Type<'a> {`. A method of a trait has the trait's documentation.
                Some(rest) if !line.contains(" for ") => {
                    let generic = rest.starts_with('<');
                    let rest = if generic { rest.split_once("> ").unwrap().1 } else { rest };
                    Some((name(rest.trim_start()), false))
                }
                _ => line.strip_prefix("pub trait ").map(|rest| (name(rest), true)),
            };
            owner = declared.filter(|(name, _)| exported.contains(name));
        }
        let code = line.trim_start();
        let code = match (&owner, code.strip_prefix("pub ")) {
            (_, Some(code)) => code,
            (Some((_, true)), None) => code,
            _ => continue,
        };
        let declaration = ["fn ", "unsafe fn ", "const fn ", "const unsafe fn "];
        let Some(rest) = declaration.iter().find_map(|it| code.strip_prefix(it)) else { continue };
        let function = name(rest);
        match (&owner, line.starts_with(' ')) {
            (Some((owner, _)), true) => found.push((format!("{owner}::{function}"), at)),
            (None, false) if exported.contains(&function) => found.push((function, at)),
            _ => {}
        }
    }
    found.into_iter().map(|(name, at)| (name, lines[..at].to_vec())).collect()
}

/// Whether the documentation at the end of these lines has a block of Rust that runs.
fn has_example(lines: &[&str]) -> bool {
    let lines = lines.iter().rev().map(|it| it.trim_start());
    let documentation: Vec<&str> = lines
        .skip_while(|it| it.starts_with("#["))
        .map_while(|it| it.strip_prefix("///"))
        .collect();
    let fences = documentation.iter().rev().filter_map(|it| it.trim_start().strip_prefix("```"));
    fences.step_by(2).any(|words| words.is_empty())
}

#[test]
fn each_public_function_has_an_example_that_runs() {
    let exported = exported_names();
    let (mut count, mut without) = (0, Vec::new());
    let is_rust_api = |file: &str| !file.starts_with("capi/") && !file.ends_with("internals.rs");
    let mut sources = sources();
    sources.retain(|(file, _)| is_rust_api(file));
    // The addresses, which memdl exports too.
    let shared = "../symfile/src/base/addr.rs";
    sources.push((shared.to_owned(), fs::read_to_string(repository("src").join(shared)).unwrap()));
    for (file, text) in &sources {
        for (function, before) in public_functions(text, &exported) {
            if before.last().is_some_and(|it| it.contains("#[doc(hidden)]")) {
                continue;
            }
            count += 1;
            if !has_example(&before) {
                without.push(format!("src/{file}: {function}"));
            }
        }
    }
    assert!(count > 150, "{count} public functions were found: the search is wrong");
    assert!(
        without.is_empty(),
        "{without:#?}: add an example with an assertion to each. The files in docs/example/ load a library for it"
    );
}
