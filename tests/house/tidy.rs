//! Rules of memdl's source text. The message of each failure says how to mend it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::repository;

/// The source files: the path from `src/`, and the text.
pub(crate) fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    let root = repository("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The code before the unit tests, without comments.
fn code(text: &str) -> String {
    let text = text.split("\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn locks_have_a_rank_and_forks_one_handler() {
    let forbidden = [
        ("Mutex", "a lock is `sync::Lock`, which has a rank and which `fork` waits for"),
        ("RwLock", "a lock is `sync::SharedLock`, which has a rank and which `fork` waits for"),
        ("Condvar", "a thread that waits would hold up `fork`: wait in a loop, without a lock"),
        ("pthread_mutex", "a lock is `sync::Lock`, which has a rank"),
        ("pthread_atfork(", "there is one handler: add to `api/startup.rs`"),
    ];
    for (file, text) in sources() {
        let code = code(&text);
        for (word, cure) in forbidden {
            let is_owner = match word {
                // The version of the function that images call.
                "pthread_atfork(" => file == "api/startup.rs" || file == "services/atexit.rs",
                // Copies of memdl in one object share this lock. Each takes it under a `Lock` of its own.
                "pthread_mutex" => file == "base/shared.rs",
                // Nothing blocks on it: a child of `fork` that finds it taken reads on its own.
                "Mutex" if file == "debug/read_lines.rs" => !code.contains(".lock()"),
                _ => file == "base/sync.rs",
            };
            assert!(is_owner || !code.contains(word), "src/{file} has `{word}`: {cure}");
        }
    }
}

/// The locks in the code: the rank's number, and the first three columns of the table.
fn locks_in_code() -> Vec<(usize, String)> {
    let ranks = fs::read_to_string(repository("src/base/sync.rs")).unwrap();
    let ranks = ranks.split("pub(crate) enum Rank {").nth(1).unwrap().split("\n}").next().unwrap();
    let ranks: Vec<String> = ranks
        .lines()
        .filter(|line| line.ends_with(',') && !line.trim_start().starts_with("//"))
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .collect();
    let mut rows = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| file != "base/sync.rs") {
        let code = code(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        for (at, _) in
            code.match_indices("Lock::new( Rank::").chain(code.match_indices("Lock::new(Rank::"))
        {
            let rank = code[at..].split("Rank::").nth(1).unwrap();
            let rank = rank.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            let number = ranks.iter().position(|it| it == rank).unwrap();
            rows.push((number, format!("| {} | `{rank}` | `{file}` |", number + 1)));
        }
    }
    rows.sort();
    rows.dedup();
    rows
}

#[test]
fn the_table_of_locks_is_that_of_the_code() {
    let text = fs::read_to_string(repository("ARCHITECTURE.md")).unwrap();
    let stated: Vec<String> = text
        .lines()
        .skip_while(|line| !line.starts_with("| rank | lock | file |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').take(4).collect::<Vec<_>>().join("|") + "|")
        .collect();
    let is: Vec<String> = locks_in_code().into_iter().map(|(_, row)| row).collect();
    assert_eq!(
        stated,
        is,
        "the table \"Locks\" of ARCHITECTURE.md: make its first three columns\n{}",
        is.join("\n")
    );
}

#[test]
fn only_arch_names_a_machine() {
    let words =
        ["x86_64", "X86_64", "x86-64", "amd64", "AMD64", "aarch64", "AARCH64", "target_arch"];
    for (file, text) in sources().into_iter().filter(|(file, _)| !file.starts_with("arch/")) {
        for word in words {
            assert!(
                // A name of DWARF's, for an instruction of unwind tables.
                !code(&text).replace("DW_CFA_AARCH64", "").contains(word),
                "src/{file} has `{word}`: put what depends on the machine into `arch/`, under a name that \
                 every machine has"
            );
        }
    }
}

/// Whether the code names a function of the system, or its number: `name(`, `libc::name`, `name as`, `SYS_name`.
fn names_call(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + call.len()..]);
        let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
        if before.ends_with("SYS_") {
            return !after.starts_with(is_in_word);
        }
        !before.ends_with(is_in_word)
            && !after.starts_with(is_in_word)
            && (before.ends_with("::") || after.starts_with('(') || after.starts_with(" as "))
    })
}

#[test]
fn mapping_calls_only_in_memory() {
    let calls = [
        "mmap",
        "mmap64",
        "munmap",
        "mremap",
        "remap_file_pages",
        "mprotect",
        "pkey_mprotect",
        "madvise",
        "mseal",
    ];
    for (file, text) in sources().into_iter().filter(|(file, _)| !file.starts_with("memory/")) {
        let code = code(&text);
        let call = calls.into_iter().find(|call| names_call(&code, call));
        // `region` maps memory, too.
        let call = call.or_else(|| code.contains("region::").then_some("region"));
        assert!(
            call.is_none(),
            "src/{file} uses `{}`: only `memory/` maps, unmaps and protects memory. Use a `Reservation` or \
             a `MappedFile`, or add a function there",
            call.unwrap_or_default()
        );
    }
}

#[test]
fn only_parsers_know_goblin() {
    for (file, text) in sources() {
        let is_parser = file.starts_with("elf/") || file.starts_with("debug/");
        assert!(
            is_parser || !code(&text).contains("goblin"),
            "src/{file} uses goblin: parse in `elf/` or `debug/`, and take numbers from `elf::constants`"
        );
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for (file, text) in sources() {
        let head = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(
            head > 0,
            "src/{file} has no head: say in `//!` what it owns, and what it never does"
        );
    }
}

/// The functions of a file: name, index of the first line, number of lines. Relies on rustfmt's indentation.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.split("\nmod tests {").next().unwrap().lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let name = code.split_once("fn ").filter(|(before, _)| {
            let words = ["pub", "pub(crate)", "pub(super)", "const", "unsafe", "extern"];
            before.split(' ').all(|it| it.is_empty() || it.starts_with('"') || words.contains(&it))
        });
        let Some((_, name)) = name else { continue };
        let name = name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap();
        let end = format!("{indent}}}");
        // A declaration without a body ends with a semicolon.
        let until = lines[at..].iter().position(|it| {
            *it == end
                || it.ends_with(';')
                    && it.starts_with(indent)
                    && !it[indent.len()..].starts_with(' ')
        });
        if let Some(len) = until.filter(|len| lines[at + len] == end) {
            found.push((name.to_owned(), at, len + 1));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    const MAX_LINES: usize = 70;
    let is_test = |file: &str| file.ends_with("/tests.rs") || file.ends_with("/hostile.rs");
    let mut long = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test(file)) {
        let lines: Vec<&str> = text.lines().collect();
        for (name, at, len) in functions(&text).into_iter().filter(|(.., len)| *len > MAX_LINES) {
            let mut above = lines[..at].iter().rev().take_while(|it| !it.trim().is_empty());
            if !above.any(|it| it.contains("// Long because: ")) {
                long.push(format!("src/{file}: `{name}` has {len} lines"));
            }
        }
    }
    assert!(
        long.is_empty(),
        "{long:#?}: {MAX_LINES} are allowed. Split it, or say above it `// Long because: …`"
    );
}

/// The string literals in a file's code.
fn literals(text: &str) -> Vec<String> {
    let code = code(text);
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find('"') {
        let body = &rest[start + 1..];
        let mut end = 0;
        let bytes = body.as_bytes();
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let literal = &body[..end.min(body.len())];
        // A backslash at the end of a line continues it.
        let lines = literal.split("\\\n").map(str::trim_start);
        found.push(lines.collect::<String>());
        rest = body.get(end + 1..).unwrap_or_default();
    }
    found
}

#[test]
fn the_c_api_translates_each_name_of_the_rust_api_in_a_text() {
    let types = ["Loader", "Library", "Limits", "Template", "ImageBuffer", "DebugLevel", "Pool"];
    let names = fs::read_to_string(repository("src/capi/c_names.rs")).unwrap();
    let known = literals(&names);
    let mut count = 0;
    for (file, text) in sources() {
        let is_own = file.starts_with("capi/") || file.ends_with("internals.rs");
        for literal in literals(&text).iter().filter(|_| !is_own) {
            for word in types {
                for (at, _) in literal.match_indices(&format!("{word}::")) {
                    let name = &literal[at..];
                    count += 1;
                    assert!(
                        known.iter().any(|known| name.starts_with(known)),
                        "src/{file}: `{name}` needs a line in src/capi/c_names.rs"
                    );
                }
            }
        }
    }
    assert!(count > 10, "{count}");
}
