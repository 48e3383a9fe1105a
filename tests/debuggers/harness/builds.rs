//! The builds that scenarios name, `gcc_o2_dwarf5` and the like: a compiler, and a word for each of its
//! flags.

use std::path::PathBuf;

use super::libraries::library;

const COMPILERS: &[&str] = &["gcc", "clang", "rustc", "gfortran", "go"];

/// A word, and the flags that it stands for.
type Word = (&'static str, &'static [&'static str]);

const OF_RUSTC: &[Word] = &[
    ("o0", &["-g", "-Copt-level=0"]),
    ("o2", &["-g", "-Copt-level=2"]),
    ("dwarf5", &["-Cdwarf-version=5"]),
    ("dwarf4", &["-Cdwarf-version=4"]),
];

const OF_GO: &[Word] = &[("o0", &["-gcflags=-N -l"])];

/// Of gcc, clang and gfortran.
const OF_OTHERS: &[Word] = &[
    ("o0", &["-O0"]),
    ("o2", &["-O2"]),
    // The version of DWARF that the compiler chooses.
    ("g", &["-g"]),
    ("dwarf2", &["-gdwarf-2"]),
    ("dwarf3", &["-gdwarf-3"]),
    ("dwarf4", &["-gdwarf-4"]),
    ("dwarf5", &["-gdwarf-5"]),
    // Macros too.
    ("g3", &["-g3"]),
    // Type units.
    ("types", &["-g", "-fdebug-types-section"]),
    // Functions of the library are called without a way through its linkage table.
    ("symbolic", &["-Wl,-Bsymbolic-functions"]),
    // No debug information.
    ("bare", &[]),
    // Models of thread-local storage.
    ("globaldynamic", &["-ftls-model=global-dynamic"]),
    ("localdynamic", &["-ftls-model=local-dynamic"]),
    ("initialexec", &["-ftls-model=initial-exec"]),
];

fn words_of(compiler: &str) -> &'static [Word] {
    match compiler {
        "rustc" => OF_RUSTC,
        "go" => OF_GO,
        _ => OF_OTHERS,
    }
}

fn flags(compiler: &str, word: &str) -> Option<&'static [&'static str]> {
    let found = words_of(compiler).iter().find(|(name, _)| *name == word);
    found.map(|(_, flags)| *flags)
}

/// Whether there is such a build.
pub fn is_build(build: &str) -> Result<(), String> {
    let mut words = build.split('_');
    let is_known = words.next().is_some_and(|compiler| {
        COMPILERS.contains(&compiler) && words.all(|word| flags(compiler, word).is_some())
    });
    let is_known = is_known.then_some(());
    is_known.ok_or_else(|| format!("no such build: {build} (tests/debuggers/harness/builds.rs)"))
}

/// Whether a build may have this word.
pub fn is_word(word: &str) -> Result<(), String> {
    let is_known =
        COMPILERS.iter().any(|compiler| *compiler == word || flags(compiler, word).is_some());
    is_known.then_some(()).ok_or_else(|| format!("no such word of a build: {word}"))
}

/// The library of a source.
pub fn built(source: &str, build: &str) -> PathBuf {
    let mut words = build.split('_');
    let plus = source.ends_with(".cc");
    let named = words.next().unwrap_or_default();
    let compiler = match named {
        "gcc" if plus => "g++",
        "clang" if plus => "clang++",
        compiler => compiler,
    };
    // Without the second, clang leaves out of one library what it takes to be in another.
    let standard: &[&str] = match compiler {
        "g++" => &["-std=c++17"],
        "clang++" => &["-std=c++17", "-fstandalone-debug"],
        _ => &[],
    };
    let words = words.flat_map(|word| {
        flags(named, word).unwrap_or_else(|| panic!("no such build: {build}")).iter().copied()
    });
    let flags: Vec<&str> = standard.iter().copied().chain(words).collect();
    library(compiler, source, &flags)
}
