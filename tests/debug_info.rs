//! Debug information of every kind, in gdb for real: compressed, split, shared, separate, in all
//! versions of DWARF, by all linkers. Each session is that of a library on disk with the very same
//! debug information, opened by `dlopen`, and says what it must: a session that is the same could
//! still be without any use.

mod common;
mod gdb;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gdb::compare::assert_same;
use gdb::host::Loader;
use gdb::libraries::{load_and_call, steps};
use gdb::{Gdb, Replies, scratch};
use memdl::Debug;

#[test]
#[ignore = "the program that the other tests debug: they start it"]
fn the_program_that_is_debugged() {
    gdb::host::main();
}

/// A folder for one test, in which tools are run; removed when dropped.
struct Workshop(PathBuf);

impl Workshop {
    fn new() -> Workshop {
        let folder = scratch("workshop");
        fs::create_dir(&folder).unwrap();
        Workshop(folder)
    }

    /// Runs a recipe: commands, apart by `;`. `{c}` and `{f90}` are the sources of the library in C
    /// and in Fortran, `{here}` is the folder. Some tools of these hang on what they do not know.
    fn run(&self, recipe: &str) {
        for command in recipe.split(';') {
            let words = command.split_whitespace().map(|word| {
                let source = |name| common::repository(name).display().to_string();
                word.replace("{c}", &source("testlibs/debug/clib.c"))
                    .replace("{f90}", &source("testlibs/debug/threadprivate.f90"))
                    .replace("{here}", &self.0.display().to_string())
            });
            let mut tool = Command::new("timeout");
            tool.args(["-s", "KILL", "60"]).args(words).current_dir(&self.0);
            common::run(&mut tool, command);
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is asked of `clib.c`.
const SESSION: &[&str] = &[
    "break leaf",
    "run",
    "bt",
    "info args",
    "next",
    "next",
    "next",
    "next",
    "next",
    "info locals",
    "print lib_thread",
    "set var lib_thread = 5",
    "print lib_thread",
    "print &lib_thread",
    "print lib_global",
    "print lib_static",
    "ptype both",
    "info source",
    "info line leaf",
    "info scope leaf",
    "info types ^color$",
    "info symbol $pc",
    "disassemble /s leaf",
    "up",
    "info locals",
    "delete",
    "continue",
];

/// What it must say where all is there.
fn assert_all(session: &Replies) {
    assert_lines_and_locals(session);
    session.to("print lib_thread").has(&["$1 = 100\n"]);
    session.to("print lib_thread").has(&["$2 = 5\n"]);
    assert_globals(session);
    // What the library computes says that the variable was set: 514 without.
    session.to("continue").has(&["entry(5) = 704", "exited normally"]);
}

fn assert_lines_and_locals(session: &Replies) {
    session.to("run").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:24\n"]);
    session.to("bt").has(&[
        "#0  leaf (a=0, b=1) at clib.c:24\n",
        " in middle (n=5, values=0xADDRESS) at clib.c:35\n",
        " in entry (n=5) at clib.c:48\n",
        "host_calls (",
    ]);
    session.to("info args").has(&["a = 0\nb = 1\n"]);
    session.to("info locals").has(&["local = 1\n", "name = 0xADDRESS \"pair\"", "shade = GREEN"]);
}

fn assert_globals(session: &Replies) {
    session.to("print lib_global").has(&["= 8\n"]);
    session.to("ptype both").has(&["int first;", "const char *name;", "double ratio;"]);
    session.to("info line leaf").has(&["Line 23 of \"clib.c\" starts at address"]);
    session.to("info symbol $pc").has(&["leaf + ", " in section .text"]);
    session.to("info locals").has(&["i = 0\n", "sum = 0\n"]);
}

/// The session with the library that `load` brings in.
fn session(load: &str, debug: &str, loader: Loader, settings: &[&str]) -> Replies {
    let gdb = Gdb::of_host(&steps(&[load, "call a entry 5"])).loader(loader);
    gdb.env("MEMDL_DEBUG", debug).run(&[settings, SESSION].concat())
}

/// Fails unless both forms of symfile are shown as the file is with `dlopen`, and in the portable
/// form what is expected.
fn is_as_with_dlopen(library: &Path, portable: Debug, settings: &[&str]) -> [Replies; 2] {
    let load = format!("load a {}", library.display());
    let of_file = session(&load, "full", Loader::Dlopen, settings);
    let sessions = ["full", "portable"].map(|form| {
        let of_memory = session(&load, form, Loader::Memdl, settings);
        assert_same(&of_memory, &of_file, library, &[]);
        of_memory
    });
    assert_eq!(told(&fs::read(library).unwrap(), None), portable);
    sessions
}

/// What is told of these bytes where the portable form is asked for.
fn told(bytes: &[u8], info: Option<&[u8]>) -> Debug {
    let mut loader = memdl::Loader::new().debug(Debug::Portable);
    if let Some(info) = info {
        loader = loader.debug_info(info);
    }
    // SAFETY: the test's own library.
    unsafe { loader.load(bytes) }.unwrap().debug()
}

macro_rules! kinds {
    ($($name:ident $portable:ident: $recipe:literal;)*) => {$(
        #[test]
        fn $name() {
            let workshop = Workshop::new();
            workshop.run($recipe);
            let library = workshop.file("lib.so");
            for session in is_as_with_dlopen(&library, Debug::$portable, &[]) {
                assert_all(&session);
            }
        }
    )*};
}

// The second column is what `Debug::Portable` comes to: itself, or `Full` where it cannot be had.
kinds! {
    zlib_by_gcc Portable: "gcc -g -gz=zlib -shared -fPIC {c} -o lib.so";
    zlib_with_the_old_names Portable:
        "gcc -g -gz=zlib-gnu -shared -fPIC {c} -o lib.so; \
         objcopy --compress-debug-sections=zlib-gnu lib.so";
    zlib_by_lld Portable:
        "clang -g -fuse-ld=lld -Wl,--compress-debug-sections=zlib -shared -fPIC {c} -o lib.so";
    zstd_by_objcopy Portable:
        "gcc -g -shared -fPIC {c} -o lib.so; objcopy --compress-debug-sections=zstd lib.so";
    zstd_by_mold Portable:
        "gcc -g -fuse-ld=mold -Wl,--compress-debug-sections=zstd -shared -fPIC {c} -o lib.so";
    split_dwarf4_by_gcc Full: "gcc -gdwarf-4 -gsplit-dwarf -shared -fPIC {c} -o lib.so";
    split_dwarf5_by_gcc Full: "gcc -gdwarf-5 -gsplit-dwarf -shared -fPIC {c} -o lib.so";
    split_dwarf4_by_clang Full: "clang -gdwarf-4 -gsplit-dwarf -shared -fPIC {c} -o lib.so";
    split_dwarf5_by_clang Full: "clang -gdwarf-5 -gsplit-dwarf -shared -fPIC {c} -o lib.so";
    dwz_in_one_file Portable: "gcc -g -shared -fPIC {c} -o lib.so; dwz lib.so";
    dwarf2 Portable: "gcc -gdwarf-2 -shared -fPIC {c} -o lib.so";
    dwarf3 Portable: "gcc -gdwarf-3 -shared -fPIC {c} -o lib.so";
    dwarf_of_64_bits Portable: "gcc -g -gdwarf64 -shared -fPIC {c} -o lib.so";
    type_units_of_dwarf4 Portable:
        "gcc -gdwarf-4 -fdebug-types-section -shared -fPIC {c} -o lib.so";
    type_units_of_dwarf5 Portable:
        "gcc -gdwarf-5 -fdebug-types-section -shared -fPIC {c} -o lib.so";
    lto_by_gcc Portable: "gcc -g -O0 -flto -shared -fPIC {c} -o lib.so";
    lto_by_clang Portable: "clang -g -O0 -flto -fuse-ld=lld -shared -fPIC {c} -o lib.so";
    linked_by_gold Portable: "gcc -g -fuse-ld=gold -Wl,--gdb-index -shared -fPIC {c} -o lib.so";
    linked_by_lld Portable:
        "clang -g -ggnu-pubnames -fuse-ld=lld -Wl,--gdb-index -shared -fPIC {c} -o lib.so";
    linked_by_mold Portable: "gcc -g -ggnu-pubnames -fuse-ld=mold -Wl,--gdb-index -shared -fPIC {c} -o lib.so";
    sections_for_each_function Portable:
        "gcc -g -ffunction-sections -fdata-sections -Wl,--gc-sections -shared -fPIC {c} -o lib.so";
}
