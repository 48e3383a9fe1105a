//! Which folder of `src/` may import which, and that no file imports itself through others.
//!
//! An import is a path: in a `use` declaration, or in the code. A call of a method names no path. So an
//! `impl` of a type stands in the type's folder; in another one it may only add functions without `self`,
//! since their callers name the type, and count as importers of the file ([`extensions`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::repository;

/// The folders, from the lowest to the highest, and what each may import besides itself. The files `unwind`
/// and `internals` count as folders.
const MAY_IMPORT: [(&str, &str); 16] = [
    ("base", ""),
    ("arch", ""),
    ("elf", "base arch"),
    ("memory", "base arch elf"),
    ("host", "base arch elf memory"),
    ("tls", "base arch elf memory host"),
    ("debug", "base arch elf memory host"),
    ("unwind", "base arch elf memory host"),
    ("profile", "base arch elf memory debug"),
    ("images", "base arch elf memory host tls debug unwind profile"),
    ("link", "base arch elf memory host tls images"),
    ("load", "base arch elf memory host tls debug unwind profile images link"),
    ("services", "base arch elf memory host tls debug unwind images link load"),
    ("api", "base arch elf memory host tls debug unwind profile images load services"),
    ("capi", "base memory debug load services api"),
    ("internals", "base elf memory tls debug profile load services api"),
];

/// The crate that makes symfiles: its folders take bytes and plain values and know nothing of the process. What each
/// may import besides itself.
const SYMFILE: &str = "symfile/src";
const PURE: [(&str, &str); 3] =
    [("dwarf", "base"), ("builder", "base dwarf list"), ("object", "base builder dwarf error")];

/// Words that the code of a pure folder does not have, and what to do instead.
const OF_THE_PROCESS: [(&str, &str); 8] = [
    ("unsafe {", "the code around it must prove it: do it there, and pass the result in"),
    ("static ", "pass the value in"),
    ("logged!", "return the reason, and let the caller log it"),
    ("env::", "read the variable in `debug/policy.rs`, and pass the value in"),
    ("fs::", "read the file in `debug/separate.rs`, and pass its bytes in"),
    ("thread::", "let the caller choose the thread, as `debug/package.rs` does"),
    ("addr::page_size", "memory and the size of its pages come from the type parameter `Storage`"),
    ("libc::", "pass the value in"),
];

/// The code of each module, by its path from the root, as `src`: `elf/image`; that of `folder/mod.rs` is `folder`.
/// Without comments, unit tests and `lib.rs`.
fn modules(root: &str) -> BTreeMap<String, String> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, files),
                false => files.push(path),
            }
        }
    }
    let root = repository(root);
    let mut files = Vec::new();
    walk(&root, &mut files);
    let module = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().strip_suffix(".rs")?;
        let name = name.strip_suffix("/mod").unwrap_or(name);
        let is_test = ["lib", "debug/lines/hostile"].contains(&name) || name.ends_with("/tests");
        (!is_test).then(|| (name.to_owned(), code(&fs::read_to_string(&path).unwrap())))
    };
    files.into_iter().filter_map(module).collect()
}

fn code(text: &str) -> String {
    let text = text.split("\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// All paths that a tree of `use` stands for: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let steps = |text: &str| -> Vec<String> {
        let text = text.split(" as ").next().unwrap();
        text.split("::").map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
    };
    let Some((start, rest)) = tree.split_once('{') else {
        paths.push([prefix, &steps(tree)].concat());
        return;
    };
    let prefix = [prefix, &steps(start)].concat();
    let inner = &rest[..rest.rfind('}').unwrap()];
    let (mut depth, mut from) = (0, 0);
    for (at, byte) in inner.bytes().chain([b',']).enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                let part = &inner[from..at];
                if !part.trim().is_empty() {
                    expand(part, &prefix, paths);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths in a module's code: those of `use` declarations, and all others that start with `crate` or
/// `super`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    let is_start = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    while let Some(at) = rest.find("use ") {
        let (before, after) = rest.split_at(at);
        rest = &after["use ".len()..];
        if is_start(before)
            && let Some(end) = rest.find(';')
        {
            expand(&rest[..end], &[], &mut paths);
        }
    }
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if is_start(&code[..at]) {
                let end = code[at..].find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
                let path = &code[at..end.map_or(code.len(), |end| at + end)];
                expand(path, &[], &mut paths);
            }
        }
    }
    paths
}

/// The module that a path leads to. What follows the module in the path is an item of it.
fn target(modules: &BTreeMap<String, String>, from: &str, path: &[String]) -> Option<String> {
    let mut steps = path.iter().peekable();
    let mut at: Vec<&str> = from.split('/').collect();
    match path.first()?.as_str() {
        "crate" => at.clear(),
        "self" | "super" => {}
        child if modules.contains_key(&format!("{from}/{child}")) => {}
        _ => return None,
    }
    while let Some(step) = steps.next_if(|it| ["crate", "self", "super"].contains(&it.as_str())) {
        if step == "super" {
            at.pop();
        }
    }
    for step in steps {
        let deeper = [&at[..], &[step]].concat().join("/");
        if !modules.contains_key(&deeper) {
            break;
        }
        at.push(step);
    }
    let target = at.join("/");
    (modules.contains_key(&target) && target != from).then_some(target)
}

/// The folder of a module.
fn folder(module: &str) -> &str {
    module.split('/').next().unwrap()
}

/// The first word of a declaration after `before`, where `line` has one.
fn declared<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let (visibility, rest) = line.split_once(before)?;
    let is_visibility = ["", "pub ", "pub(crate) ", "pub(super) "].contains(&visibility);
    let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()?;
    (is_visibility && !name.is_empty()).then_some(name)
}

/// An inherent `impl` outside the folder of its type.
struct Extension {
    module: String,
    type_name: String,
    /// Its functions, with their declarations up to the parameters' end.
    functions: Vec<(String, String)>,
}

/// All extensions. Relies on rustfmt's indentation.
fn extensions(modules: &BTreeMap<String, String>) -> Vec<Extension> {
    let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, code) in modules {
        for line in code.lines() {
            let name = ["struct ", "enum ", "union "].iter().find_map(|it| declared(line, it));
            if let Some(name) = name {
                types.entry(name).or_default().insert(folder(module));
            }
        }
    }
    let mut found = Vec::new();
    for (module, code) in modules {
        for (at, _) in code.match_indices("\nimpl") {
            let block = &code[at + "\nimpl".len()..];
            let block = &block[..block.find("\n}").unwrap_or(block.len())];
            let Some((head, body)) = block.split_once('{') else { continue };
            if head.contains(" for ") {
                continue;
            }
            // `<T: Trait<U>> path::Name<T> where ..`: the first name outside the angle brackets.
            let mut depth = 0;
            let head: String = head
                .chars()
                .filter(|&c| {
                    depth += i32::from(c == '<') - i32::from(c == '>');
                    depth == 0 && c != '>'
                })
                .collect();
            let path = head.split_whitespace().next().unwrap();
            let type_name = path.rsplit("::").next().unwrap();
            if types.get(type_name).is_none_or(|it| it.contains(folder(module))) {
                continue;
            }
            let functions = body.match_indices("fn ").filter_map(|(at, _)| {
                let declaration = &body[at..at + body[at..].find(')')?];
                Some((declared(declaration, "fn ")?.to_owned(), declaration.to_owned()))
            });
            found.push(Extension {
                module: module.clone(),
                type_name: type_name.to_owned(),
                functions: functions.collect(),
            });
        }
    }
    found
}

fn imports(root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules(root);
    let extensions = extensions(&modules);
    let of = |(name, code): (&String, &String)| {
        let paths = paths(code);
        let mut targets: BTreeSet<String> =
            paths.iter().filter_map(|path| target(&modules, name, path)).collect();
        for extension in extensions.iter().filter(|it| it.module != *name) {
            let calls = |(function, _): &(String, String)| {
                code.contains(&format!("{}::{function}(", extension.type_name))
            };
            if extension.functions.iter().any(calls) {
                targets.insert(extension.module.clone());
            }
        }
        (name.clone(), targets)
    };
    modules.iter().map(of).collect()
}

#[test]
fn methods_stand_in_the_folder_of_their_type() {
    let extensions = extensions(&modules("src"));
    for Extension { module, type_name, functions } in &extensions {
        for (function, declaration) in functions {
            assert!(
                !declaration.contains("self"),
                "src/{module}.rs adds the method `{function}` to `{type_name}`, a type of another folder: \
                 callers would not import src/{module}.rs, and this test would not see that they know \
                 `{}`. Make it a free function that takes a `{type_name}`",
                folder(module)
            );
        }
    }
    let known = extensions.iter().any(|it| it.module == "api/image_buffer");
    assert!(
        known,
        "the constructors of `ImageBuffer` in `api/` were not found: the check is wrong"
    );
}

#[test]
fn folders_import_only_what_is_below_them() {
    let may: BTreeMap<&str, Vec<&str>> =
        MAY_IMPORT.iter().map(|(folder, below)| (*folder, below.split(' ').collect())).collect();
    for (at, (folder, below)) in MAY_IMPORT.iter().enumerate() {
        let is_below = |it: &&str| MAY_IMPORT[..at].iter().any(|(lower, _)| lower == it);
        let other = below.split(' ').filter(|it| !it.is_empty()).find(|it| !is_below(it));
        assert_eq!(
            other, None,
            "`{folder}` comes before it in MAY_IMPORT, whose order is that of the layers: move one of them, \
             or take the pair out"
        );
    }
    let mut used = BTreeSet::new();
    for (module, targets) in imports("src") {
        for target in targets {
            let (from, to) = (folder(&module), folder(&target));
            let allowed = may.get(from).unwrap_or_else(|| {
                panic!("src/{from} is not in MAY_IMPORT: give it a place among the layers")
            });
            assert!(
                from == to || allowed.contains(&to),
                "src/{module}.rs imports `{target}`, and `{from}` must know nothing of `{to}`. Pass in what \
                 it needs as a value, a closure or a type parameter; or move the code to the folder \
                 that may know both; or, if `{to}` lies below `{from}`, allow the pair in MAY_IMPORT"
            );
            used.insert((from.to_owned(), to.to_owned()));
        }
    }
    for (from, below) in &may {
        for to in below.iter().filter(|it| !it.is_empty()) {
            assert!(
                used.contains(&((*from).to_owned(), (*to).to_owned())),
                "nothing in src/{from} imports `{to}` any more: take the pair out of MAY_IMPORT"
            );
        }
    }
}

#[test]
fn pure_folders_know_nothing_of_the_process() {
    let is_in = |module: &str, folder: &str| {
        module == folder || module.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    };
    let modules = modules(SYMFILE);
    for (module, targets) in imports(SYMFILE) {
        let Some((pure, below)) = PURE.iter().find(|(folder, _)| is_in(&module, folder)) else {
            continue;
        };
        for target in targets {
            let allowed = is_in(&target, pure) || below.split(' ').any(|it| is_in(&target, it));
            assert!(
                allowed,
                "{SYMFILE}/{module}.rs imports `{target}`: code in `{pure}` takes bytes and plain values and may \
                 import {below} only. Pass in what it needs as a value or a closure, or implement a trait of \
                 `{pure}` one layer up, as memdl's `debug/storage.rs` does"
            );
        }
        let code = &modules[&module];
        assert!(
            code.contains("#![forbid(unsafe_code)]"),
            "{SYMFILE}/{module}.rs is in `{pure}`: say `#![forbid(unsafe_code)]` at its head"
        );
        for (word, cure) in OF_THE_PROCESS {
            let says = code.match_indices(word).any(|(at, _)| {
                !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_'".contains(c))
            });
            assert!(!says, "{SYMFILE}/{module}.rs has `{word}`, and `{pure}` is pure: {cure}");
        }
    }
}

#[test]
fn no_file_imports_itself_through_others() {
    for root in ["src", SYMFILE] {
        assert_no_circle(imports(root));
    }
}

fn assert_no_circle(mut left: BTreeMap<String, BTreeSet<String>>) {
    // A file that imports none of those left is in no circle.
    loop {
        let done: Vec<String> = left
            .iter()
            .filter(|(_, targets)| !targets.iter().any(|it| left.contains_key(it)))
            .map(|(module, _)| module.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        left.retain(|module, _| !done.contains(module));
    }
    // Nor is a file that none of those left imports.
    loop {
        let used: BTreeSet<String> = left.values().flatten().cloned().collect();
        let before = left.len();
        left.retain(|module, _| used.contains(module));
        if left.len() == before {
            break;
        }
    }
    assert!(
        left.is_empty(),
        "these files import each other in a circle: {:?}. Move what two of them share to a third, which \
         imports neither",
        left.keys().collect::<Vec<_>>()
    );
}
