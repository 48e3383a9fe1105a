//! What people read: the README is short and says what is so, links lead somewhere, tables name all that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::repository;

/// All documents.
fn documents() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|it| it == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in [
        "docs",
        ".github",
        "benches",
        "fuzz",
        "tests/debuggers",
        "tools/corpus",
        "examples/dask",
        "examples/executor",
    ] {
        walk(&repository(folder), &mut found);
    }
    for entry in fs::read_dir(repository("")).unwrap() {
        let path = entry.unwrap().path();
        found.extend(path.extension().is_some_and(|it| it == "md").then_some(path));
    }
    found
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(repository("").join(path)).unwrap()
}

/// The lines that are in no block of code.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line);
        }
    }
    lines
}

/// The blocks of code in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut block) {
            (Some(name), None) => {
                block = Some((name.split(',').next() == Some(language), String::new()));
            }
            (Some(_), Some(_)) => found.extend(block.take().filter(|it| it.0).map(|it| it.1)),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    found
}

/// The cells of a row of a table, without the space around them.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_readme_is_short() {
    let text = read("README.md");
    let is_word = |word: &&str| word.chars().any(char::is_alphanumeric);
    let words: usize =
        prose(&text).iter().map(|line| line.split_whitespace().filter(is_word).count()).sum();
    assert!(words <= 600, "README.md has {words} words outside of code, at most 600 may be");
    let lines = |language| match &blocks(&text, language)[..] {
        [block] => block.lines().count(),
        others => panic!("README.md has {} blocks of {language}, not one", others.len()),
    };
    let (rust, c) = (lines("rust"), lines("c"));
    assert!(rust <= 12 && c <= 8, "README.md has {rust} lines of Rust (12) and {c} of C (8)");
    assert!(text.contains("sh tests/run.sh"), "README.md does not say how to run the tests");
}

/// The name of a heading in links.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = prose(&read(&document)).join("\n");
        for target in text.split("](").skip(1).filter_map(|it| it.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => document.clone(),
                _ => document.parent().unwrap().join(path),
            };
            // The published package lacks these.
            let left_out = ["fuzz", "tools", "examples/executor"].map(repository);
            if left_out.iter().any(|it| path.starts_with(it) && !it.exists()) {
                continue;
            }
            assert!(path.exists(), "{}: {target} is not there", document.display());
            let has_heading = || {
                let text = read(&path);
                prose(&text).iter().any(|it| it.starts_with('#') && anchor(it) == heading)
            };
            assert!(
                heading.is_empty() || has_heading(),
                "{}: {target} has no such heading",
                document.display()
            );
        }
    }
    assert!(count > 100, "only {count} were found: the check itself is wrong");
}

/// Each page is in the table of contents.
#[test]
fn the_contents_have_all_pages() {
    let contents = read("docs/README.md");
    for document in documents() {
        let Ok(name) = document.strip_prefix(repository("docs")) else { continue };
        let name = name.to_str().unwrap();
        let is_listed = name == "README.md" || name.starts_with("adr/0");
        assert!(is_listed || contents.contains(&format!("({name})")), "docs/README.md: no {name}");
    }
}

/// Times in the README's table are those of the benchmarks.
#[test]
fn the_readmes_times_were_measured() {
    let measured = read("benches/README.md");
    let time = |table: &str, library: &str, way: &str| {
        let (_, rest) = measured.split_once(&format!("**{table}")).expect("the table is there");
        let mut rows = rest.lines().filter(|it| it.starts_with('|')).map(cells);
        let column = rows.next().unwrap().iter().position(|it| *it == way).expect("a way to load");
        let row = rows.find(|it| it[0] == library).expect("a library");
        row[column].split(' ').next().unwrap().to_owned()
    };
    let text = read("README.md");
    let rows: Vec<Vec<&str>> =
        prose(&text).iter().filter(|it| it.contains(" µs |")).map(|it| cells(it)).collect();
    assert!(rows.len() >= 3, "README.md has no table of times");
    for row in rows {
        let [library, ours, file, memfd, elf_loader, dlopen_rs] = row[..] else {
            panic!("README.md: {row:?} has not six cells");
        };
        let alone = |way| time("Load alone", library, way);
        let full = time("Debug information, load alone", library, "load, full");
        let expected = [
            (ours, full),
            (file, alone("dlopen of a file")),
            (memfd, alone("memfd, mapped")),
            (elf_loader, alone("elf_loader")),
            (dlopen_rs, alone("dlopen-rs")),
        ];
        for (is, should_be) in expected {
            assert_eq!(is, format!("{should_be} µs"), "README.md, {library}");
        }
    }
    let fresh = time("Load alone", "libz", "load, new memory");
    assert!(
        text.contains(&format!("{fresh} µs")),
        "README.md: libz in new memory takes {fresh} µs"
    );
}

/// The strings of a source that are a whole literal.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[test]
fn the_table_of_environment_variables_is_that_of_the_code() {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut sources = Vec::new();
    walk(&repository("src"), &mut sources);
    // Variables, with the words that their files have in lists.
    let mut in_code = BTreeMap::new();
    for source in sources {
        let text = read(&source);
        if source.ends_with("base/environment.rs") || !text.contains("environment::") {
            continue;
        }
        let code = text.lines().filter(|it| !it.trim_start().starts_with("//"));
        let code = code.collect::<Vec<_>>().join("\n");
        let names = literals(&code).filter(|it| it.starts_with("MEMDL_")).map(str::to_owned);
        let words: BTreeSet<String> = code
            .split("(\"")
            .skip(1)
            .filter_map(|it| it.split_once("\", "))
            .map(|it| it.0.to_owned())
            .filter(|it| it.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
            .collect();
        in_code.extend(names.map(|it| (it, words.clone())));
    }
    let page = read("docs/reference/environment.md");
    let rows: BTreeMap<String, BTreeSet<String>> = prose(&page)
        .iter()
        .filter(|it| it.starts_with("| `MEMDL_"))
        .map(|it| {
            let cells = cells(it);
            let words = cells[1].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (cells[0].trim_matches('`').to_owned(), words)
        })
        .collect();
    assert_eq!(
        rows.keys().collect::<Vec<_>>(),
        in_code.keys().collect::<Vec<_>>(),
        "docs/reference/environment.md"
    );
    for (variable, words) in &rows {
        let known = &in_code[variable];
        assert!(words.is_subset(known), "{variable}: {words:?} are not all in {known:?}");
    }
    let listed: BTreeSet<&String> = rows.values().flatten().collect();
    let all: BTreeSet<&String> = in_code.values().flatten().collect();
    assert_eq!(listed, all, "docs/reference/environment.md: the values");
}

#[test]
fn documents_with_rust_are_compiled() {
    let library = read("src/lib.rs");
    let mut count = 0;
    for document in documents() {
        let Ok(name) = document.strip_prefix(repository("")) else { continue };
        if blocks(&read(&document), "rust").is_empty() {
            continue;
        }
        count += 1;
        let included = format!("include_str!(\"../{}\")", name.display());
        assert!(library.contains(&included), "src/lib.rs: `mod documents` lacks {included}");
    }
    assert!(count > 5, "only {count} were found: the check itself is wrong");
}

/// How commands on pages begin; the file that runs them, or that they name; and a text in it. (The tutorial's are run
/// as they stand.)
const COMMANDS: &[(&str, &str, &str)] = &[
    ("cargo add --path ../memdl", "tests/debuggers/tutorial.rs", "tutorial/1-first-function.md"),
    ("sh dist/install.sh ", "tests/capi/installed.rs", "dist/install.sh"),
    ("ldconfig", "docs/how-to/use-from-c.md", "--prefix=/usr/local"),
    (
        "cc host.c $(pkg-config --cflags --libs memdl)",
        "tests/capi/installed.rs",
        "[\"--cflags\", \"--libs\"]",
    ),
    (
        "cargo run --release --example from_memory",
        ".github/workflows/ci.yml",
        "--example from_memory",
    ),
    ("cargo run --example verify", ".github/workflows/ci.yml", "--example verify"),
    ("cargo run --release -p corpus", "tests/run.sh", "-p corpus"),
    (
        "cargo rustc --release --lib --features capi --crate-type",
        "tests/capi/capi.rs",
        "\"cdylib,staticlib\"",
    ),
    ("cc -Iinclude host.c -Ltarget/release -lmemdl", "tests/capi/capi.rs", "-Wl,-rpath,"),
    ("cc -Iinclude host.c target/release/libmemdl.a -lgcc_s", "tests/capi/capi.rs", "\"-lgcc_s\""),
    (
        "strip -w -K 'memdl_*' -K '__jit_debug_*'",
        "tests/debuggers/host_builds.rs",
        "\"memdl_*\", \"-K\", \"__jit_debug_*\"",
    ),
    ("sh tools/finish-archive.sh", "tests/debuggers/host_builds.rs", "tools/finish-archive.sh"),
    (
        "cc -g -O2 -shared -fPIC -Wl,--build-id",
        "tests/debuggers/tutorial.rs",
        "debug-a-stripped-fleet.md",
    ),
    (
        "objcopy --only-keep-debug libgreet.so",
        "tests/debuggers/tutorial.rs",
        "debug-a-stripped-fleet.md",
    ),
    ("strip libgreet.so", "tests/debuggers/tutorial.rs", "debug-a-stripped-fleet.md"),
    ("eu-unstrip -n", "tests/debuggers/debug.rs", "eu-unstrip"),
    ("gdb /usr/bin/host core", "tests/debuggers/debug.rs", "add-symbol-file"),
    ("MEMDL_PERF=map perf record", "tests/profilers/profile.rs", "Profile::PerfMap"),
    ("MEMDL_PERF=jitdump perf record", "tests/profilers/profile.rs", "jitdump"),
    ("perf inject --jit", "tests/profilers/profile.rs", "\"inject\", \"--jit\""),
    (
        "MEMDL_PERF=file perf record --call-graph dwarf",
        "tests/profilers/unwinding.rs",
        "--call-graph",
    ),
    ("eu-stack -p", "tests/profilers/unwinding.rs", "\"eu-stack\""),
    ("valgrind --vgdb-error=1", "tests/profilers/valgrind.rs", "--vgdb-error=1"),
    (
        "gdb ./host -ex 'target remote | vgdb'",
        "tests/profilers/valgrind.rs",
        "target remote | vgdb",
    ),
    ("MEMDL_PERF=file ./host", "tests/capi/sanitizers.rs", "asan_symbolize"),
    ("export TSAN_OPTIONS=", "tests/capi/sanitizers.rs", "stack_trace_format"),
    ("pip install ./python", "python/test.sh", "install --quiet --force-reinstall ."),
    ("cargo install --path cli", ".github/workflows/ci.yml", "cargo install --path cli"),
    ("memdl check ", "cli/tests/cli.rs", "\"check\", good, bad"),
    ("memdl inspect ", "cli/tests/cli.rs", "\"inspect\", file, \"--symbols\""),
    ("memdl run ", "cli/tests/cli.rs", "\"run\", file, \"foo\", \"20\", \"2\""),
    ("memdl ps", "cli/tests/cli.rs", "said(&[\"ps\"])"),
    ("memdl bench ", "cli/tests/cli.rs", "\"bench\", file"),
    ("memdl man ", "cli/tests/cli.rs", "said(&[\"man\", command])"),
    ("memdl completions ", "cli/tests/cli.rs", "said(&[\"completions\", shell])"),
];

#[test]
fn commands_on_pages_are_run_by_tests() {
    let mut used = BTreeSet::new();
    let pages =
        ["README.md", "docs/how-to", "docs/reference", "docs/sanitizers.md"].map(repository);
    for document in documents().iter().filter(|it| pages.iter().any(|page| it.starts_with(page))) {
        for block in blocks(&read(document), "console") {
            for command in block.lines().filter_map(|it| it.trim_start().strip_prefix("$ ")) {
                let known = COMMANDS.iter().find(|it| command.starts_with(it.0));
                let Some((beginning, file, text)) = known else {
                    panic!("{}: no test is known to run `{command}`", document.display());
                };
                used.insert(beginning);
                assert!(
                    read(file).contains(text),
                    "{file} has no `{text}`: what runs `{command}`?"
                );
            }
        }
    }
    let unused: Vec<_> = COMMANDS.iter().filter(|it| !used.contains(&it.0)).collect();
    assert!(unused.is_empty(), "no page has {unused:?}");
}
