//! The C API and its C++ wrapper, as a C programmer meets them: memdl built as a shared and as a
//! static library, programs compiled against `include/` with every warning an error, and run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{build, limited, repository, run};

/// memdl in both forms.
pub struct Forms {
    pub shared: PathBuf,
    pub fixed: PathBuf,
}

/// Builds memdl for C, as docs/how-to/use-from-c.md says.
pub fn forms() -> &'static Forms {
    static FORMS: OnceLock<Forms> = OnceLock::new();
    FORMS.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
        let mut command = limited(900, env!("CARGO"));
        command
            .args(["rustc", "--quiet", "--lib", "--features", "capi"])
            .args(["--crate-type", "cdylib,staticlib", "--target-dir"])
            .arg(&target)
            .current_dir(repository(""));
        run(&mut command, "cargo");
        let folder = target.join("debug");
        Forms { shared: folder.join("libmemdl.so"), fixed: folder.join("libmemdl.a") }
    })
}

/// The test libraries, in the order in which the programs take them.
fn libraries() -> Vec<PathBuf> {
    let map = repository("testlibs/capi/plugin.map");
    let script = format!("-Wl,--version-script={}", map.display());
    // Flags are part of what `build` knows an output by; the script's text would not be.
    let text = format!("-DMAP={}", fs::read(&map).unwrap().escape_ascii());
    let flags = ["-Wl,-soname,libplugin.so", "-O1", &script, &text];
    let plugin = build("gcc", "capi/plugin.c", &flags);
    let plain = build("gcc", "capi/plain.c", &["-O1", "-Wl,--build-id=sha1"]);
    // A stand-in with the name under which it is needed: the library itself has none.
    let stand_in = build("gcc", "capi/plain.c", &["-Wl,-soname,libplain.so"]);
    let stand_in = stand_in.to_str().unwrap();
    let dependent = build("gcc", "capi/dependent.c", &["-Wl,--no-as-needed", stand_in]);
    let throws = build("g++", "capi/throws.cpp", &["-Wl,-soname,libthrows.so"]);
    let leaves = build("g++", "unload/leaves.cpp", &["-O1"]);
    vec![plugin, plain, dependent, leaves, throws]
}

/// Libraries that use thread-local variables of their host, in all ways that there are.
fn users_of_thread_locals() -> Vec<PathBuf> {
    let models = ["-ftls-model=global-dynamic", "-mtls-dialect=gnu2", "-ftls-model=initial-exec"];
    models.map(|model| build("gcc", "tls/of_host.c", &["-O1", model])).into()
}

/// Compiles a program of `tests/capi/` against one form of memdl and runs it.
fn check(compiler: &str, flags: &[&str], source: &str, form: &str, expected: &str) {
    let forms = forms();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("capi-{}-{compiler}-{form}", source.replace('.', "-")));
    let mut command = limited(120, compiler);
    command
        .args(flags)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread", "-rdynamic", "-I"])
        .args([repository("include"), repository("tests/capi").join(source)]);
    match form {
        "shared" => {
            let folder = forms.shared.parent().unwrap();
            command.arg(&forms.shared).args([&*format!("-Wl,-rpath,{}", folder.display()), "-ldl"])
        }
        "static" => command.arg(&forms.fixed).args(["-lgcc_s", "-ldl", "-lm"]),
        // By the program itself.
        _ => command.arg("-ldl"),
    };
    command.arg("-o").arg(&program);
    run(&mut command, compiler);

    let libraries = match source {
        "test.c" => libraries()[..4].to_vec(),
        "tls_host.c" => users_of_thread_locals(),
        "own_tls.c" => {
            let models =
                ["-ftls-model=global-dynamic", "-mtls-dialect=gnu2", "-ftls-model=initial-exec"];
            let copy = forms.shared.with_file_name("libmemdl-copy.so");
            fs::copy(&forms.shared, &copy).unwrap();
            let mut arguments = vec![forms.shared.clone(), "libgomp.so.1".into(), copy];
            for model in models {
                let library = build("gcc", "tls/variables.c", &[model]);
                // The program tells them apart by their names.
                let named = library.with_file_name(format!("own{model}.so"));
                fs::copy(library, &named).unwrap();
                arguments.push(named);
            }
            arguments
        }
        _ => libraries(),
    };
    let output = run(limited(60, &program).args(&libraries), "the program");
    assert_eq!(output.trim_end(), expected);
}

fn check_c(compiler: &str, form: &str) {
    check(compiler, &["-std=c99"], "test.c", form, "all of memdl.h works");
}

fn check_cpp(compiler: &str, form: &str) {
    check(compiler, &["-std=c++17"], "test.cpp", form, "all of memdl.hpp works");
}

#[test]
fn c_with_gcc_and_the_shared_library() {
    check_c("gcc", "shared");
}

#[test]
fn c_with_gcc_and_the_static_library() {
    check_c("gcc", "static");
}

#[test]
fn c_with_clang_and_the_shared_library() {
    check_c("clang", "shared");
}

#[test]
fn c_with_clang_and_the_static_library() {
    check_c("clang", "static");
}

#[test]
fn cpp_with_gcc_and_the_shared_library() {
    check_cpp("g++", "shared");
}

#[test]
fn cpp_with_gcc_and_the_static_library() {
    check_cpp("g++", "static");
}

#[test]
fn cpp_with_clang_and_the_shared_library() {
    check_cpp("clang++", "shared");
}

#[test]
fn cpp_with_clang_and_the_static_library() {
    check_cpp("clang++", "static");
}

#[test]
fn thread_local_variables_of_the_executable() {
    for form in ["shared", "static"] {
        let expected = "thread-local variables of the executable work";
        check("gcc", &["-std=gnu99"], "tls_host.c", form, expected);
    }
}

#[test]
fn thread_local_variables_where_memdl_is_opened() {
    let expected = "thread-local variables of its own work";
    check("gcc", &["-std=c99"], "own_tls.c", "opened", expected);
}

/// `dlopen` has little static thread-local storage. A library that takes none comes beside any other.
#[test]
fn the_shared_library_needs_no_static_thread_local_storage() {
    let headers = run(limited(60, "readelf").args(["-dW"]).arg(&forms().shared), "binutils");
    assert!(headers.contains("(FLAGS)") && !headers.contains("STATIC_TLS"), "{headers}");
}

/// All `memdl_...` names that are followed by an opening parenthesis.
fn calls(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices("memdl_")
        .filter(|&(at, _)| !text[..at].ends_with(is_name))
        .filter_map(|(at, _)| {
            let name: String = text[at..].chars().take_while(|&c| is_name(c)).collect();
            text[at + name.len()..].starts_with('(').then_some(name)
        })
        .collect()
}

/// The header without its comments.
fn declared() -> BTreeSet<String> {
    let text = fs::read_to_string(repository("include/memdl.h")).unwrap();
    let code = text.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code));
    calls(&code.collect::<String>())
}

#[test]
fn the_header_declares_what_the_library_exports_and_the_test_calls_all_of_it() {
    let declared = declared();
    let symbols = run(
        limited(60, "nm").args(["-D", "--defined-only", "--format=posix"]).arg(&forms().shared),
        "binutils",
    );
    let exported = symbols.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    // What debuggers look for has a version of its own, and the version is a symbol, too.
    let (versioned, exported): (BTreeSet<String>, BTreeSet<String>) =
        exported.partition(|name| name.contains("MEMDL_DEBUG"));
    assert_eq!(exported, declared);
    let of_debuggers = ["__jit_debug_descriptor", "__jit_debug_register_code"]
        .map(|it| format!("{it}@@MEMDL_DEBUG"));
    let versioned = versioned.into_iter().filter(|name| name.starts_with("__"));
    assert_eq!(versioned.collect::<Vec<_>>(), of_debuggers);

    let test = fs::read_to_string(repository("tests/capi/test.c")).unwrap();
    let uncalled: Vec<_> = declared.difference(&calls(&test)).cloned().collect();
    assert!(uncalled.is_empty(), "tests/capi/test.c does not call {uncalled:?}");
}
