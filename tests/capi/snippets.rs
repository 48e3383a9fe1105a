//! The C and C++ in the documents: all of it compiles without a warning, and what the README and the first page for
//! C and C++ show works.

use std::fs;
use std::path::{Path, PathBuf};

use crate::capi::forms;
use crate::common::{build, limited, repository, run};

/// The folders and files that have C or C++.
const DOCUMENTS: [&str; 5] =
    ["README.md", "docs/sanitizers.md", "docs/how-to", "docs/tutorial", "docs/reference"];

/// The blocks of code in this language.
fn blocks(document: &Path, language: &str) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    let mut rest = text.as_str();
    let mut found = Vec::new();
    while let Some((_, block)) = rest.split_once(&format!("\n```{language}\n")) {
        let (code, after) = block.split_once("\n```\n").expect("a block has an end");
        found.push(format!("{code}\n"));
        rest = after;
    }
    found
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("snippets");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The compiler, its flags, and the ending of a source in this language.
fn compiler(language: &str) -> (&'static str, &'static str) {
    match language {
        "c" => ("gcc", "-std=gnu11"),
        _ => ("g++", "-std=c++17"),
    }
}

#[test]
fn all_c_and_cpp_in_the_documents_compiles() {
    let mut documents = Vec::new();
    for name in DOCUMENTS {
        let path = repository(name);
        match fs::read_dir(&path) {
            Ok(entries) => documents.extend(entries.map(|it| it.unwrap().path())),
            Err(_) => documents.push(path),
        }
    }
    let mut counts = [0, 0];
    for document in documents {
        for (language, count) in ["c", "cpp"].into_iter().zip(&mut counts) {
            for (at, code) in blocks(&document, language).into_iter().enumerate() {
                *count += 1;
                let stem = document.file_stem().unwrap().to_str().unwrap();
                let source = folder().join(format!("{stem}-{at}.{language}"));
                fs::write(&source, code).unwrap();
                let (compiler, standard) = compiler(language);
                let mut command = limited(60, compiler);
                command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
                command.args(["-fsyntax-only", "-I"]).arg(repository("include")).arg(source);
                run(&mut command, compiler);
            }
        }
    }
    assert!(counts[0] >= 7 && counts[1] >= 1, "{counts:?}: the check itself is wrong");
}

/// What a program prints that calls the snippet with the bytes of a library, and prints the result.
fn result(document: &str, language: &str, call: &str) -> String {
    let code = blocks(&repository(document), language).remove(0);
    let read = "
        #include <stdlib.h>
        #include <stdio.h>
        int main(int argc, char **argv) {
            static unsigned char bytes[1 << 20];
            FILE *file = fopen(argv[argc - 1], \"rb\");
            size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
            printf(\"result %d\\n\", CALL);
            return 0;
        }
    ";
    let name = Path::new(document).file_stem().unwrap().to_str().unwrap();
    let source = folder().join(format!("{name}-runs.{language}"));
    fs::write(&source, code + &read.replace("CALL", call)).unwrap();
    let program = source.with_extension("program");
    let (compiler, standard) = compiler(language);
    let library = &forms().shared;
    let mut command = limited(60, compiler);
    command.args([standard, "-I"]).arg(repository("include")).arg(source).arg(library);
    command.arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()));
    run(command.arg("-o").arg(&program), compiler);
    run(limited(60, program).arg(build("gcc", "foo.c", &[])), "the snippet")
}

#[test]
fn the_snippets_that_newcomers_see_work() {
    let c = "call_foo(bytes, len)";
    assert!(result("README.md", "c", c).ends_with("result 84\n"));
    let page = "docs/how-to/use-from-c.md";
    assert!(result(page, "c", "run(bytes, len)").ends_with("result 84\n"));
    let cpp = "run(std::vector<unsigned char>(bytes, bytes + len))";
    assert!(result(page, "cpp", cpp).ends_with("result 84\n"));
}
