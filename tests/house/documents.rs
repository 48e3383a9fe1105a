//! Tests, test files and test binaries that documents and scripts name must exist.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::repository;

#[test]
fn documents_name_tests_that_exist() {
    let mut documents = Vec::new();
    for folder in ["docs/adr", "docs/facts"] {
        documents.extend(fs::read_dir(repository(folder)).unwrap().map(|it| it.unwrap().path()));
    }
    documents.extend(["CONTRIBUTING.md", "SECURITY.md"].map(repository));
    for document in documents.iter().filter(|it| it.is_file()) {
        let text = fs::read_to_string(document).unwrap();
        // Names of tests belong to the file before them: `tests/a.rs`: `one`, `another`.
        let mut file = None;
        for word in text.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") && (word.starts_with("tests/") || word.starts_with("src/")) {
                let path = repository(word);
                assert!(path.is_file(), "{}: there is no {word}", document.display());
                file = Some((word, fs::read_to_string(path).unwrap()));
            } else if let Some((name, text)) = &file
                && word.matches('_').count() >= 2
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && !word.starts_with("__")
            {
                assert!(
                    text.contains(&format!("fn {word}(")) || text.contains(&format!("{word}!")),
                    "{}: {name} has no test {word}",
                    document.display()
                );
            }
        }
    }
}

/// Collects the files of a folder and its subfolders that have this extension.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// All documents and scripts. The published package lacks some of them.
fn documents_and_scripts() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&repository("docs"), "md", &mut found);
    files(&repository("tests"), "sh", &mut found);
    for name in fs::read_dir(repository("")).unwrap().map(|it| it.unwrap().path()) {
        found.extend(name.extension().is_some_and(|it| it == "md").then_some(name));
    }
    found.extend(["benches/README.md", "fuzz/README.md", ".ci/run"].map(repository));
    found.retain(|it| it.is_file());
    found
}

#[test]
fn documents_and_scripts_name_test_files_that_exist() {
    let mut count = 0;
    for document in documents_and_scripts() {
        let text = fs::read_to_string(&document).unwrap();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
        for word in text.split(|c| !is_part(c)).filter(|it| it.starts_with("tests/")) {
            let word = word.trim_end_matches(['.', '/']);
            if [".rs", ".sh", ".gdb", ".lldb"].iter().any(|end| word.ends_with(end)) {
                count += 1;
                let path = repository(word);
                assert!(path.is_file(), "{}: there is no {word}", document.display());
            }
        }
    }
    assert!(count > 50, "only {count} were found: the check itself is wrong");
}

#[test]
fn documents_and_scripts_name_test_binaries_that_exist() {
    let mut count = 0;
    for document in documents_and_scripts() {
        let text = fs::read_to_string(&document).unwrap();
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        for name in words.windows(2).filter(|it| it[0].ends_with("--test")).map(|it| it[1]) {
            let name = name.trim_end_matches(['`', '"', '.', ',', ')']);
            if !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                continue; // a variable of a script
            }
            count += 1;
            let is_there = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")]
                .iter()
                .any(|path| repository(path).is_file());
            assert!(is_there, "{}: there is no test binary {name}", document.display());
        }
    }
    assert!(count > 5, "only {count} were found: the check itself is wrong");
}
