//! memdl as `dist/install.sh` installs it. Hosts are built and run from the installed prefix alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{build, limited, repository, run};

/// The prefix.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let prefix = target.join("installed-prefix");
        let _ = fs::remove_dir_all(&prefix);
        let script = repository("dist/install.sh");
        let mut command = limited(900, "sh");
        command
            .arg(script)
            .arg(format!("--prefix={}", prefix.display()))
            .arg("--profile=dev")
            .env("CARGO", env!("CARGO"))
            // Of its own, since another list of crate types makes cargo build memdl again.
            .env("CARGO_TARGET_DIR", target.join("installed"))
            .current_dir("/");
        run(&mut command, "dist/install.sh");
        prefix
    })
}

/// A folder outside of the repository with the sources of the hosts.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("memdl-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for file in ["host.c", "host.cpp", "CMakeLists.txt"] {
        fs::copy(repository("tests/capi/installed").join(file), folder.join(file)).unwrap();
    }
    folder
}

/// Runs a host without any help to find libraries.
fn assert_works(program: &Path) {
    let library = build("gcc", "capi/plain.c", &["-O1", "-Wl,--build-id=sha1"]);
    let output = run(limited(60, program).arg(library).env_remove("LD_LIBRARY_PATH"), "the host");
    assert_eq!(output.trim_end(), concat!("memdl ", env!("CARGO_PKG_VERSION"), ": 41"));
}

/// pkg-config's answer, as words.
fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = limited(60, "pkg-config");
    command.args(arguments).arg("memdl").env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    let output = run(&mut command, "pkg-config");
    output.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_c_host_finds_it_by_pkg_config() {
    let folder = folder("pkg-config");
    let shared = folder.join("shared");
    let mut command = limited(60, "cc");
    command.args(["host.c", "-o"]).arg(&shared).args(pkg_config(&["--cflags", "--libs"]));
    command.arg(format!("-Wl,-rpath,{}", prefix().join("lib").display())).current_dir(&folder);
    run(&mut command, "cc");
    assert_works(&shared);

    let archive = prefix().join("lib/libmemdl.a");
    let fixed = folder.join("static");
    let mut command = limited(60, "cc");
    command.args(["host.c", "-o"]).arg(&fixed).args(pkg_config(&["--cflags"])).arg(archive);
    let private = pkg_config(&["--static", "--libs"]);
    let private = private.into_iter().filter(|word| word != "-lmemdl" && !word.starts_with("-L"));
    command.args(private).current_dir(&folder);
    run(&mut command, "cc");
    assert_works(&fixed);
    assert_eq!(pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_cpp_host_finds_it_by_cmake() {
    let folder = folder("cmake");
    let mut command = limited(120, "cmake");
    command.args(["-S", ".", "-B", "build"]).current_dir(&folder);
    command.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix().display()));
    run(&mut command, "cmake");
    run(limited(120, "cmake").args(["--build", "build"]).current_dir(&folder), "cmake");
    for program in ["shared", "static"] {
        assert_works(&folder.join("build").join(program));
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_headers_are_clean_under_strict_warnings_in_each_language() {
    let folder = folder("strict");
    let warnings =
        ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-fsyntax-only"];
    let languages = [
        ("host.c", ["gcc", "clang"], ["-std=c11", "-std=c17"]),
        ("host.cpp", ["g++", "clang++"], ["-std=c++17", "-std=c++20"]),
    ];
    for (source, compilers, standards) in languages {
        for compiler in compilers {
            for standard in standards {
                let mut command = limited(60, compiler);
                // Not `-isystem`, where warnings would be silent.
                command.args(warnings).args([standard, source, "-I"]);
                command.arg(prefix().join("include")).current_dir(&folder);
                run(&mut command, compiler);
            }
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(prefix().join("include/memdl.h")).unwrap();
    let mut names = BTreeSet::new();
    let mut in_comment = false;
    for line in header.lines() {
        in_comment |= line.trim_start().starts_with("/*");
        let is_comment = in_comment;
        in_comment &= !line.contains("*/");
        let is_code =
            !is_comment && !line.starts_with([' ', '#', '}']) && !line.starts_with("typedef");
        if let (true, Some((before, _))) = (is_code, line.split_once('(')) {
            let start = before.rfind(|letter: char| !letter.is_alphanumeric() && letter != '_');
            names.insert(before[start.map_or(0, |start| start + 1)..].to_owned());
        }
    }
    assert!(names.len() > 60 && names.iter().all(|name| name.starts_with("memdl_")), "{names:?}");
    names
}

#[test]
fn the_shared_library_has_a_soname_and_versions() {
    let library = prefix().join("lib/libmemdl.so");
    let dynamic = run(limited(60, "readelf").arg("-dW").arg(&library), "readelf");
    assert!(dynamic.contains("Library soname: [libmemdl.so.0]"), "{dynamic}");
    assert!(!dynamic.contains("STATIC_TLS"), "{dynamic}");
    let symbols = run(limited(60, "nm").args(["-D", "--defined-only"]).arg(&library), "nm");
    let names: BTreeSet<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    for function in declared() {
        assert!(names.contains(&*format!("{function}@@MEMDL_0.1")), "no {function} in {names:?}");
    }
    for pair in ["__jit_debug_register_code", "__jit_debug_descriptor"] {
        assert!(names.contains(&*format!("{pair}@@MEMDL_DEBUG")), "no {pair} in {names:?}");
    }
    let is_known = |name: &&str| {
        name.starts_with("memdl_") || name.starts_with("__jit_debug_") || name.starts_with("MEMDL_")
    };
    assert!(names.iter().all(is_known), "{names:?}");
    // What a person calls at gdb's prompt, and the pair beside it, where gdb then looks for it.
    let kept = run(limited(60, "nm").arg(&library), "nm");
    for name in ["memdl_debug_full", "memdl_debug_file", "__jit_debug_descriptor"] {
        assert!(kept.lines().any(|line| line.ends_with(&format!(" {name}"))), "no {name}: {kept}");
    }
    for name in ["libmemdl.so", "libmemdl.so.0"] {
        let target = fs::read_link(prefix().join("lib").join(name)).unwrap();
        assert!(target.to_str().unwrap().starts_with("libmemdl.so.0"), "{target:?}");
    }
}

#[test]
fn the_archive_has_no_debug_information() {
    let archive = prefix().join("lib/libmemdl.a");
    let sections = run(limited(60, "readelf").arg("-SW").arg(archive), "readelf");
    let left = sections.lines().find(|line| line.contains(" .debug_info"));
    assert!(left.is_none(), "{left:?}");
}

#[test]
fn each_function_has_a_manual_page() {
    let pages = prefix().join("share/man/man3");
    for function in declared() {
        let text = fs::read_to_string(pages.join(format!("{function}.3")));
        let mut text = text.unwrap_or_else(|error| panic!("{function}: {error}"));
        if let Some(other) = text.strip_prefix(".so man3/") {
            text = fs::read_to_string(pages.join(other.trim_end())).unwrap();
        }
        assert!(text.contains(&format!("{function}(")), "{function}: {text}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(text.contains(section), "{function}: {text}");
        }
    }
    let page = pages.join("memdl_open.3");
    let mut man = limited(60, "man");
    man.args(["-E", "ascii", "-l"]).arg(page).env("MANWIDTH", "200");
    let text = run(&mut man, "man").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("memdl_open - Loads a library from its `len` bytes"), "{text}");
}

#[test]
fn wrong_options_are_refused() {
    let script = repository("dist/install.sh");
    for option in ["--prefix=relative", "--nonsense", "--libdir=/elsewhere"] {
        let output = Command::new("sh").arg(&script).arg(option).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}: {output:?}");
        assert!(output.stderr.starts_with(b"dist/install.sh: "), "{output:?}");
    }
    let output = Command::new("sh").arg(&script).arg("--help").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"Builds memdl for C and C++"));
}
