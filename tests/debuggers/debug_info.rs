//! Debug information of every kind, in gdb for real: compressed, split, shared, separate, in all
//! versions of DWARF, by all linkers. Each session is that of a library on disk with the very same
//! debug information, opened by `dlopen`, and says what it must: a session that is the same could
//! still be without any use.

use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{AnyWay, limited};
use crate::harness::compare::assert_same;
use crate::harness::host::Loader;
use crate::harness::libraries::{library, mark, steps};
use crate::harness::{Gdb, Replies, gdb, scratch, start_host};
use libtest_mimic::Trial;
use memdl::DebugLevel;

pub fn tests() -> Vec<Trial> {
    [others(), kinds(), separate_files()].into_iter().flatten().collect()
}

tests! { fn others:
    several_files_optimised_at_link_time
    macros_are_expanded_where_they_are_defined
    split_dwarf_has_lines_and_variables_and_thread_locals_at_a_constant_distance
    split_dwarf_shows_no_thread_local_behind_a_pointer
    split_dwarf5_by_gcc_shows_no_thread_local
    without_its_dwo_split_dwarf_has_lines
    packed_in_a_dwp_split_dwarf_has_lines_until_there_is_a_file_of_the_name_gdb_wants
    packed_bytes_are_shown_as_if_nothing_had_been_split
    packed_type_units_are_not_joined
    packed_bytes_of_optimised_code_are_shown_as_if_nothing_had_been_split
    packed_bytes_of_a_rust_library_are_shown
    functions_of_split_units_that_were_thrown_away_stay_so
    the_first_thread_local_is_told_from_functions_that_were_thrown_away
    what_dwz_shared_is_found_by_path_and_by_build_id
    without_what_dwz_shared_there_are_names_and_backtraces
    a_thread_local_that_dwz_shared_is_not_shown
    separate_bytes_that_dwz_shared_are_shown_with_the_third_file
    a_stripped_library_has_the_debug_file_that_is_installed_by_its_build_id
    a_stripped_library_with_thread_locals_has_the_debug_file_that_is_installed_here
    a_stripped_library_with_thread_locals_has_the_debug_file_that_only_gdb_finds
    a_stripped_library_with_thread_locals_has_the_debug_file_that_a_server_sent
    a_stripped_library_with_thread_locals_is_safe_from_the_debug_file_that_only_gdb_finds
    a_person_at_the_prompt_gives_the_debug_file
    a_program_gives_debug_information_late
    a_thread_local_that_was_thrown_away_is_shown_as_from_disk
    the_wrong_debug_information_is_an_error_that_names_both
    fortran_shows_and_sets_what_is_private_to_a_thread
    a_breakpoint_follows_the_level
    what_was_loaded_untold_can_be_told_of_by_name_and_not_in_full
    a_person_at_the_prompt_has_all_told_or_one
    instances_of_a_template_share_their_debug_information
    debug_information_is_copied_once
    each_instance_of_a_template_is_seen_with_its_own_variables
    without_debug_information_a_thread_local_is_not_shown
}

/// A folder for one test, in which tools are run; removed when dropped.
struct Workshop(PathBuf);

impl Workshop {
    fn new() -> Workshop {
        let folder = scratch("workshop");
        fs::create_dir(&folder).unwrap();
        Workshop(folder)
    }

    /// Runs a recipe: commands, apart by `;`. `{c}`, `{inline}` and their like are sources, `{here}` is the folder. Some tools of these hang on what they do not know.
    fn run(&self, recipe: &str) {
        for command in recipe.split(';') {
            let mut words = command.split_whitespace().map(|word| {
                let source = |name| crate::common::repository(name).display().to_string();
                word.replace("{c}", &source("testlibs/debug/clib.c"))
                    .replace("{inline}", &source("testlibs/debug/inline.cc"))
                    .replace("{bare}", &source("testlibs/debug/bare.c"))
                    .replace("{gone}", &source("testlibs/debug/gone.c"))
                    .replace("{macros}", &source("testlibs/debug/macros.c"))
                    .replace("{rust}", &source("testlibs/debug/rustlib.rs"))
                    .replace("{f90}", &source("testlibs/debug/threadprivate.f90"))
                    .replace("{here}", &self.0.display().to_string())
            });
            let mut tool = limited(60, words.next().unwrap());
            tool.args(words).current_dir(&self.0);
            crate::common::run(&mut tool, command);
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
];

/// What is asked after that.
const OF_THREAD: &[&str] = &[
    "print lib_thread",
    "set var lib_thread = 5",
    "print lib_thread",
    "print &lib_thread",
    "delete",
    "continue",
];

/// What it must say where all is there.
fn assert_all(session: &Replies) {
    session.assert_no_complaint();
    assert_lines_and_variables(session);
    assert_thread_local(session);
}

fn assert_lines_and_variables(session: &Replies) {
    session.to("run").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:24\n"]);
    session.to("bt").has(&[
        "#0  leaf (a=0, b=1) at clib.c:24\n",
        " in middle (n=5, values=0xADDRESS) at clib.c:35\n",
        " in entry (n=5) at clib.c:48\n",
        "host_calls (",
    ]);
    session.to("info args").has(&["a = 0\nb = 1\n"]);
    session.to("info locals").has(&["local = 1\n", "name = 0xADDRESS \"pair\"", "shade = GREEN"]);
    session.to("print lib_global").has(&["$1 = 8\n"]);
    session.to("print lib_static").has(&["$2 = 99\n"]);
    session.to("ptype both").has(&["int first;", "const char *name;", "double ratio;"]);
    session.to("info line leaf").has(&["Line 23 of \"clib.c\" starts at address"]);
    session.to("info symbol $pc").has(&["leaf + ", " in section .text"]);
    session.to("info locals").has(&["i = 0\n", "sum = 0\n"]);
}

fn assert_thread_local(session: &Replies) {
    assert_thread_local_is_set(session);
    // What the library computes says that the variable was set: 514 without.
    session.to("continue").has(&["entry(5) = 704\n", "exited normally"]);
}

fn assert_thread_local_is_set(session: &Replies) {
    session.to("print lib_thread").has(&["$3 = 100\n"]);
    session.to("print lib_thread").has(&["$4 = 5\n"]);
}

/// gdb says this, and neither shows nor sets anything.
fn assert_no_thread_local(session: &Replies, says: &str) {
    for command in &OF_THREAD[..3] {
        session.to(command).has(&[says]).has_not("$");
    }
    session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
}

/// The session with the library that `load` brings in, after other commands.
fn session(load: &str, debug: &str, loader: Loader, first: &[&str]) -> Replies {
    let gdb = Gdb::of_host(&steps(&[load, "call a entry 5"])).loader(loader);
    gdb.env("MEMDL_DEBUG", debug).run_unchecked(&[first, SESSION, OF_THREAD].concat())
}

/// Fails unless both forms of symfile are shown as the file is with `dlopen`, and in the portable
/// form what is expected.
fn is_as_with_dlopen(library: &Path, portable: DebugLevel, first: &[&str]) -> [Replies; 2] {
    let load = format!("load a {}", library.display());
    let of_file = session(&load, "full", Loader::Dlopen, first);
    let sessions = ["full", "portable"].map(|form| {
        let of_memory = session(&load, form, Loader::Memdl, first);
        assert_same(&of_memory, &of_file, library, &[]);
        of_memory
    });
    assert_eq!(level(&fs::read(library).unwrap(), None), portable);
    sessions
}

/// The session of a library's function says the same of the library in memory, in both forms, as of the
/// file with `dlopen`; `check` sees what.
fn same_in_both_forms(library: &Path, commands: &[&str], check: impl Fn(&Replies)) {
    let load = format!("load a {}", library.display());
    let session = |form, loader| {
        let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader);
        gdb.env("MEMDL_DEBUG", form).run(commands)
    };
    let of_file = session("full", Loader::Dlopen);
    for form in ["full", "portable"] {
        let of_memory = session(form, Loader::Memdl);
        assert_same(&of_memory, &of_file, library, &[]);
        check(&of_memory);
    }
}

/// The debug level of these bytes when [`DebugLevel::Portable`] is requested.
fn level(bytes: &[u8], info: Option<&[u8]>) -> DebugLevel {
    let mut loader = memdl::Loader::new().system_libraries(true).debug(DebugLevel::Portable);
    if let Some(info) = info {
        loader = loader.debug_info(info);
    }
    // SAFETY: the test's own library.
    unsafe { loader.load(bytes) }.unwrap().debug()
}

macro_rules! kinds {
    ($($name:ident $portable:ident: $recipe:literal;)*) => {
        tests! { fn kinds: $($name)* }

        $(fn $name() {
            let workshop = Workshop::new();
            workshop.run($recipe);
            let library = workshop.file("lib.so");
            for session in is_as_with_dlopen(&library, DebugLevel::$portable, &[]) {
                assert_all(&session);
            }
        }
    )*};
}

// The second column is the level when `DebugLevel::Portable` is requested: that, or `Full` if it is impossible.
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

/// Whose units refer to each other; then stripped, with what was split off.
fn several_files_optimised_at_link_time() {
    for compiler in ["g++", "clang++ -fuse-ld=lld"] {
        let workshop = Workshop::new();
        let compile = format!("{compiler} -g -O2 -flto -fPIC -c {{inline}}");
        workshop.run(&format!(
            "{compile} -o a.o; {compile} -DOTHER -o b.o; \
             {compiler} -g -O2 -flto -shared -Wl,-Bsymbolic-functions a.o b.o -o lib.so; {BY_OBJCOPY}"
        ));
        let [library, image, info] =
            ["lib.so", "image.so", "image.debug"].map(|name| workshop.file(name));
        let whole = format!("load a {}", library.display());
        let split_off = format!("load a {} with {}", image.display(), info.display());
        let commands = [
            "break twice",
            "run",
            "bt",
            "info args",
            "up",
            "info args",
            "info scope entry",
            "info scope other",
            "info line other",
            "delete",
            "continue",
        ];
        let session = |load: &str, form, loader| {
            let gdb = Gdb::of_host(&steps(&[load, "call a entry 5"])).loader(loader);
            gdb.env("MEMDL_DEBUG", form).run(&commands)
        };
        let of_file = session(&whole, "full", Loader::Dlopen);
        for load in [&whole, &split_off] {
            for form in ["full", "portable"] {
                let of_memory = session(load, form, Loader::Memdl);
                assert_same(&of_memory, &of_file, &library, &[]);
                of_memory.to("run").has(&["twice (n=", "5) at inline.cc:4\n"]);
                of_memory.to("bt").has(&[" in entry (n=5) at inline.cc:16\n"]);
                of_memory.to("info scope other").has(&["Symbol n is"]);
                of_memory
                    .to("info line other")
                    .has(&[" of \"inline.cc\" starts at address 0xADDRESS <_Z5otheri> "]);
                of_memory.to("continue").has(&["entry(5) = 24\n", "exited normally"]);
            }
        }
        assert_eq!(level(&workshop.read("lib.so"), None), DebugLevel::Portable);
    }
}

/// In DWARF 4 and 5 they are in three sections, one of them GNU's own.
fn macros_are_expanded_where_they_are_defined() {
    for compile in [
        "gcc -gdwarf-4 -g3",
        "gcc -gdwarf-5 -g3",
        "gcc -gdwarf-5 -g3 -gz=zlib",
        "clang -gdwarf-4 -fdebug-macro",
        "clang -gdwarf-5 -fdebug-macro -fuse-ld=lld",
    ] {
        let workshop = Workshop::new();
        workshop.run(&format!("{compile} -shared -fPIC {{macros}} -o lib.so"));
        let library = workshop.file("lib.so");
        let commands = [
            "break leaf",
            "run",
            "macro expand TRIPLE(STATE)",
            "print TRIPLE(n)",
            "print JOIN(lib_, global)",
            "info macro STATE",
            "print STATE",
            "up",
            "info macro STATE",
            "info macro -all STATE",
            "delete",
            "print TRIPLE(STATE)",
            "macro expand-once TRIPLE(STATE)",
            "continue",
        ];
        same_in_both_forms(&library, &commands, |of_memory| {
            of_memory.to("macro expand TRIPLE(STATE)").has(&["expands to: ((1) * 3)\n"]);
            of_memory.to("print TRIPLE(n)").has(&["$1 = 15\n"]);
            of_memory.to("print JOIN(lib_, global)").has(&["$2 = 7\n"]);
            of_memory.to("info macro STATE").has(&["Defined at ", "#define STATE 1\n"]);
            of_memory.to("print STATE").has(&["$3 = 1\n"]);
            of_memory.to("info macro STATE").has(&["#define STATE leaf(2)\n"]);
            of_memory.to("print TRIPLE(STATE)").has(&["$4 = 21\n"]);
            of_memory.to("continue").has(&["entry(5) = 23\n", "exited normally"]);
        });
        assert_eq!(level(&workshop.read("lib.so"), None), DebugLevel::Portable);
    }
}

// ---- Split DWARF ----

/// A library whose entries are in a `.dwo` file, beside itself with `dlopen`: all is the same, but for
/// its thread-local variable.
fn split(workshop: &Workshop, compiler: &str, version: u32, flags: &str) -> Replies {
    workshop.run(&format!(
        "{compiler} -gdwarf-{version} -gsplit-dwarf {flags} -shared -fPIC {{c}} -o lib.so"
    ));
    let library = workshop.file("lib.so");
    let load = format!("load a {}", library.display());
    let of_memory = session(&load, "full", Loader::Memdl, &[]);
    of_memory.assert_no_complaint();
    let of_file = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(Loader::Dlopen);
    assert_same(&of_memory, &of_file.run(SESSION), &library, &[]);
    assert_lines_and_variables(&of_memory);
    // The file cannot be changed, and so no form has all that it says moved.
    assert_eq!(level(&workshop.read("lib.so"), None), DebugLevel::Full);
    of_memory
}

const STATIC: &str = "-ftls-model=initial-exec";

fn split_dwarf_has_lines_and_variables_and_thread_locals_at_a_constant_distance() {
    // gcc (12) states an address for the offset, so that with `dlopen` gdb shows other memory. We do not.
    for (compiler, version) in [("gcc", 4), ("clang", 4), ("clang", 5)] {
        for packed in ["", " -gz=zlib"] {
            let flags = format!("{STATIC}{packed}");
            assert_thread_local(&split(&Workshop::new(), compiler, version, &flags));
        }
    }
}

/// The file has the location, and no pointer can be followed there.
fn split_dwarf_shows_no_thread_local_behind_a_pointer() {
    for (compiler, version) in [("gcc", 4), ("clang", 4), ("clang", 5)] {
        let session = split(&Workshop::new(), compiler, version, "");
        assert_no_thread_local(&session, "Cannot access memory at address 0xADDRESS");
    }
}

/// gcc 12 writes an operation that gdb 13 does not know, with a file too.
fn split_dwarf5_by_gcc_shows_no_thread_local() {
    for flags in ["", STATIC] {
        let session = split(&Workshop::new(), "gcc", 5, flags);
        assert_no_thread_local(&session, "Unhandled DWARF expression opcode 0xa2");
    }
}

/// With `dlopen` gdb sets no breakpoint in any library then, if it is DWARF 5.
fn without_its_dwo_split_dwarf_has_lines() {
    for (compiler, version) in [("gcc", 4), ("gcc", 5), ("clang", 4), ("clang", 5)] {
        for flags in ["", "-gz=zlib"] {
            let workshop = Workshop::new();
            split_off(&workshop, compiler, version, flags);
            let load = format!("load a {}", workshop.file("lib.so").display());
            let line = "break clib.c:42";
            let session = Gdb::of_host(&steps(&[&load, "call a entry 5"])).run_unchecked(&[
                line,
                "break leaf",
                "run",
                "continue",
                "bt",
                "info locals",
                "print lib_global",
                "print (int)lib_global",
                "next",
                "delete",
                "continue",
            ]);
            session.to("run").has(&["Could not find DWO", "Breakpoint 1, compare () at clib.c:42"]);
            session.to("bt").has(&["compare () at clib.c:42\n", "in entry () at clib.c:47\n"]);
            session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
        }
    }
}

/// All `.dwo` files in one, `lib.so.dwp`, beside which they are lost.
fn packed(workshop: &Workshop, compiler: &str, version: u32, tool: &str) {
    workshop.run(&format!(
        "{compiler} -gdwarf-{version} {UNRECORDED} -gsplit-dwarf -shared -fPIC {{c}} -o lib.so; \
         {tool} -e lib.so -o lib.so.dwp; find -name *.dwo -delete"
    ));
}

/// gcc does not tell how it was called.
const UNRECORDED: &str = "-gno-record-gcc-switches";

/// binutils' `dwp` (2.40) makes nothing of DWARF 5, and llvm-dwp (14) hangs on what gcc writes.
const PACKED: [(&str, u32, &str); 3] =
    [("gcc", 4, "dwp"), ("clang", 4, "dwp"), ("clang", 5, "llvm-dwp")];

/// gdb looks for a file that is called as the library is, which in memory has a name of gdb's making.
fn packed_in_a_dwp_split_dwarf_has_lines_until_there_is_a_file_of_the_name_gdb_wants() {
    for (compiler, version, tool) in PACKED {
        let workshop = Workshop::new();
        packed(&workshop, compiler, version, tool);
        let load = format!("load a {}", workshop.file("lib.so").display());
        let mut host = start_host(&steps(&[&load, "repeat a entry 5"]));
        host.await_output("entry(5) = ", 1);
        let folder = workshop.file("names");
        fs::create_dir(&folder).unwrap();
        let attached = || {
            let mut command = Command::new(gdb());
            command.arg("-iex").arg(format!("set debug-file-directory {}", folder.display()));
            Gdb::attached_by(command, &host).run_to_limit(&[
                "set language c",
                "break leaf",
                "continue",
                "bt",
                "info args",
                "info locals",
                "print &lib_global",
                "print lib_thread",
                "delete",
                "detach",
            ])
        };
        let run = attached();
        let (_, module) = run.transcript.split_once("[in module .gnu_debugdata for ").unwrap();
        let name = module.split_once(']').unwrap().0;
        let session = Replies::of(&run);
        session.to("continue").has(&["leaf () at clib.c:24\n"]);
        session.to("bt").has(&[
            "#0  leaf () at clib.c:24\n",
            " in middle () at clib.c:35\n",
            " in entry () at clib.c:48\n",
            "host_calls (",
        ]);
        session.to("info args").has(&["No symbol table info available.\n"]);
        session.to("info locals").has(&["No locals.\n"]);
        session.to("print lib_thread").has(&["No symbol \"lib_thread\" in current context.\n"]);

        let link = folder.join(format!("{name}.dwp"));
        std::os::unix::fs::symlink(workshop.file("lib.so.dwp"), link).unwrap();
        let run = attached();
        // gdb 13.1 crashes on one of DWARF 5, with a library on disk too.
        if version == 5 && !run.transcript.contains("Breakpoint 1, ") {
            // The signal's handler crashes in its turn at times: then only its first line is there.
            assert!(
                run.transcript.contains("Fatal signal: Segmentation fault"),
                "{}",
                run.transcript
            );
            assert!(host.is_running());
            continue;
        }
        let session = Replies::of(&run);
        session.assert_no_complaint();
        session.to("continue").has(&["leaf (a=", ") at clib.c:24\n"]);
        session.to("bt").has(&[" in middle (n=5, values=0xADDRESS) at clib.c:35\n"]);
        session.to("info locals").has(&["local = ", "both = {first = ", "shade = "]);
        session.to("print &lib_global").has(&["(int *) 0xADDRESS <lib_global>\n"]);
        session.to("print lib_thread").has(&["Cannot access memory at address 0xADDRESS\n"]);
    }
}

/// With the package's bytes it is as the library that was never split, in both forms.
fn packed_bytes_are_shown_as_if_nothing_had_been_split() {
    for (compiler, version, tool) in PACKED {
        let workshop = Workshop::new();
        packed(&workshop, compiler, version, tool);
        workshop.run(&format!(
            "{compiler} -gdwarf-{version} {UNRECORDED} -shared -fPIC {{c}} -o whole.so"
        ));
        let [image, package, whole] =
            ["lib.so", "lib.so.dwp", "whole.so"].map(|name| workshop.file(name));
        let of_file = session(&format!("load a {}", whole.display()), "full", Loader::Dlopen, &[]);
        let load = format!("load a {} with {}", image.display(), package.display());
        for form in ["full", "portable"] {
            let of_memory = session(&load, form, Loader::Memdl, &[]);
            assert_same(&of_memory, &of_file, &whole, &[]);
            assert_all(&of_memory);
        }
        let package = workshop.read("lib.so.dwp");
        assert_eq!(level(&workshop.read("lib.so"), Some(&package)), DebugLevel::Portable);
        assert_symbolized(&workshop.read("lib.so"), &package);
    }
}

/// It is no error, since the package is the right one: all is as without it.
fn packed_type_units_are_not_joined() {
    let workshop = Workshop::new();
    workshop.run(
        "gcc -gdwarf-4 -gsplit-dwarf -fdebug-types-section -shared -fPIC {c} -o lib.so; \
         dwp -e lib.so -o package; find -name *.dwo -delete",
    );
    assert_eq!(level(&workshop.read("lib.so"), Some(&workshop.read("package"))), DebugLevel::Full);
    let [image, package] = ["lib.so", "package"].map(|name| workshop.file(name));
    let load = format!("load a {} with {}", image.display(), package.display());
    let commands = ["break leaf", "run", "bt", "delete", "continue"];
    let session = Gdb::of_host(&steps(&[&load, "call a entry 5"])).run_unchecked(&commands);
    session.to("bt").has(&["#0  leaf () at clib.c:24\n", " in entry () at clib.c:48\n"]);
    session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
}

/// Lists of locations and of ranges, inlined functions, and in one of two files a function that the
/// linker threw away.
fn packed_bytes_of_optimised_code_are_shown_as_if_nothing_had_been_split() {
    for (compiler, version, tool) in
        [("g++", 4, "dwp"), ("clang++", 4, "dwp"), ("clang++", 5, "llvm-dwp")]
    {
        for objects in ["a.o b.o", "b.o a.o"] {
            let workshop = Workshop::new();
            let flags = format!("-O2 {UNRECORDED}");
            two_objects(&workshop, compiler, version, "-fuse-ld=lld", objects, &flags);
            workshop.run(&format!(
                "{tool} -e lib.so -o package; mv lib.so image.so; find -name *.dwo -delete"
            ));
            let compile = format!("{compiler} -gdwarf-{version} {flags} -fPIC -c {{inline}}");
            workshop.run(&format!(
                "{compile} -o a.o; {compile} -DOTHER -o b.o; \
                 {compiler} -fuse-ld=lld -shared -Wl,-Bsymbolic-functions {objects} -o lib.so"
            ));
            let [image, package, whole] =
                ["image.so", "package", "lib.so"].map(|name| workshop.file(name));
            let line = format!("break {}", mark("inline.cc", "inline_entry"));
            let commands = [
                "break twice",
                "run",
                "bt",
                "info args",
                "info breakpoints",
                "info line other",
                "up",
                "info args",
                "print n",
                "print &n",
                "delete",
                &line,
                "info breakpoints",
                "continue",
            ];
            let session = |load: &str, form, loader| {
                let gdb = Gdb::of_host(&steps(&[load, "call a entry 5"])).loader(loader);
                gdb.env("MEMDL_DEBUG", form).run(&commands)
            };
            let of_file = session(&format!("load a {}", whole.display()), "full", Loader::Dlopen);
            let load = format!("load a {} with {}", image.display(), package.display());
            for form in ["full", "portable"] {
                let of_memory = session(&load, form, Loader::Memdl);
                assert_same(&of_memory, &of_file, &whole, &[]);
                of_memory.to("bt").has(&["#0  twice (n=", " in entry (n="]);
                of_memory.to("print n").has(&["$1 = "]);
            }
        }
    }
}

/// Backtraces are made from the same.
fn assert_symbolized(image: &[u8], package: &[u8]) {
    let loader = memdl::Loader::new().debug_info(package);
    // SAFETY: the test's own library.
    let library = unsafe { loader.load(image) }.unwrap();
    // SAFETY: as above; it is not called.
    let middle = unsafe { library.get::<*const u8>("middle") }.unwrap();
    let frames = memdl::symbolize(middle.addr() + 1);
    let [frame] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((frame.function().as_deref(), frame.line()), (Some("middle"), Some(32)));
    assert!(frame.file().is_some_and(|file| file.ends_with("clib.c")), "{frame:?}");
}

/// Besides its own unit, which is split, it has those of the standard library, which are not.
fn packed_bytes_of_a_rust_library_are_shown() {
    let workshop = Workshop::new();
    let compile = "rustc -g -Copt-level=0 --crate-type cdylib {rust}";
    workshop.run(&format!(
        "{compile} -o whole.so; {compile} -Csplit-debuginfo=packed -o lib.so; mv lib.so.dwp package"
    ));
    let [image, package, whole] = ["lib.so", "package", "whole.so"].map(|name| workshop.file(name));
    let commands = [
        "break rustlib::shapes::area",
        &format!("tbreak {}", mark("rustlib.rs", "area")),
        "run",
        "bt",
        "info args",
        "continue",
        "info locals",
        "print *shape",
        "ptype shape",
        "up",
        "info locals",
        "delete",
        "continue",
    ];
    let session = |load: &str, form, loader| {
        let gdb = Gdb::of_host(&steps(&[load, "call a entry 5"])).loader(loader);
        gdb.env("MEMDL_DEBUG", form).run(&commands)
    };
    let of_file = session(&format!("load a {}", whole.display()), "full", Loader::Dlopen);
    let load = format!("load a {} with {}", image.display(), package.display());
    for form in ["full", "portable"] {
        let of_memory = session(&load, form, Loader::Memdl);
        assert_same(&of_memory, &of_file, &whole, &[]);
        of_memory.to("bt").has(&["#0  rustlib::shapes::area ("]);
        of_memory.to("info locals").has(&["factors = "]);
        of_memory.to("print *shape").has(&["Rectangle{width: 3, height: 4}"]);
    }
}

/// Builds it, and loses the file.
fn split_off(workshop: &Workshop, compiler: &str, version: u32, flags: &str) {
    workshop.run(&format!(
        "{compiler} -gdwarf-{version} -gsplit-dwarf {flags} -shared -fPIC {{c}} -o lib.so; \
         find -name *.dwo -delete"
    ));
}

/// Of a function that two files have, the linker throws one away, and states 0 for where it is. That
/// is no offset of a thread-local variable; moved, it would be a place where no breakpoint can be.
fn functions_of_split_units_that_were_thrown_away_stay_so() {
    let bfd = "-fuse-ld=bfd";
    let lld = "-fuse-ld=lld";
    let (kept, thrown_away) = ("a.o b.o", "b.o a.o");
    for (compiler, version, linker, objects) in [
        ("g++", 4, bfd, kept),
        ("g++", 5, bfd, kept),
        ("g++", 4, lld, kept),
        ("g++", 5, lld, kept),
        ("g++", 5, lld, thrown_away),
        ("clang++", 4, lld, kept),
        ("clang++", 4, lld, thrown_away),
        ("clang++", 5, lld, kept),
        ("clang++", 5, lld, thrown_away),
    ] {
        let workshop = Workshop::new();
        two_objects(&workshop, compiler, version, linker, objects, "");
        let load = format!("load a {}", workshop.file("lib.so").display());
        let commands = ["break twice", "run", "bt", "info breakpoints", "delete", "continue"];
        let [of_memory, of_file] = [Loader::Memdl, Loader::Dlopen].map(|loader| {
            Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader).run(&commands)
        });
        assert_same(&of_memory, &of_file, &workshop.file("lib.so"), &[]);
        of_memory.to("bt").has(&["#0  twice (n=5) at inline.cc:", " in entry (n=5) at inline.cc:"]);
        of_memory.to("continue").has(&["entry(5) = 24\n", "exited normally"]);
    }
}

/// Two objects by split DWARF that have a function in common; one has a thread-local variable.
fn two_objects(
    workshop: &Workshop,
    compiler: &str,
    version: u32,
    linker: &str,
    objects: &str,
    flags: &str,
) {
    let compile = format!("{compiler} -gdwarf-{version} -gsplit-dwarf {flags} -fPIC -c {{inline}}");
    workshop.run(&format!(
        "{compile} -o a.o; {compile} -DOTHER -o b.o; \
         {compiler} {linker} -shared -Wl,-Bsymbolic-functions {objects} -o lib.so"
    ));
}

/// Its offset is 0 as well, wherever it is described: before code, after code, in the file whose
/// function was thrown away or in the other one.
fn the_first_thread_local_is_told_from_functions_that_were_thrown_away() {
    let line = format!("break {}", mark("inline.cc", "inline_entry"));
    for (compiler, version) in [("g++", 4), ("clang++", 4), ("clang++", 5)] {
        for objects in ["a.o b.o", "b.o a.o"] {
            let workshop = Workshop::new();
            two_objects(&workshop, compiler, version, "-fuse-ld=lld", objects, STATIC);
            // The place at offset 0 is taken by another library.
            workshop.run(&format!("gcc {STATIC} -shared -fPIC {{c}} -o other.so"));
            let load = |name, file| format!("load {name} {}", workshop.file(file).display());
            let doing = [&*load("other", "other.so"), &load("a", "lib.so"), "call a entry 5"];
            let session = Gdb::of_host(&steps(&doing)).run(&[
                &line,
                "run",
                "print first",
                "set var first = 7",
                "print first",
                "continue",
            ]);
            session.to("print first").has(&["$1 = 3\n"]);
            session.to("print first").has(&["$2 = 7\n"]);
            session.to("continue").has(&["entry(5) = 28\n", "exited normally"]);
        }
    }
}

// ---- What several files have in common (`dwz -m`) ----

/// Two libraries, `lib.so` and another, and `common`, which has what their DWARF have in common.
/// `{c}` has a thread-local variable, which is described there then; `{bare}` has none.
fn shared(workshop: &Workshop, source: &str) -> String {
    workshop.run(&format!(
        "gcc -g -shared -fPIC {source} -o lib.so; gcc -g -DTWIN -shared -fPIC {source} -o twin.so; \
         dwz -m {{here}}/common lib.so twin.so"
    ));
    format!("load a {}", workshop.file("lib.so").display())
}

const IN_FUNCTION: &[&str] = &[
    "break leaf",
    "run",
    "bt",
    "next",
    "info locals",
    "ptype both",
    "print lib_global",
    "continue",
];

fn what_dwz_shared_is_found_by_path_and_by_build_id() {
    let workshop = Workshop::new();
    let load = shared(&workshop, "{bare}");
    let folder = workshop.file("debug");
    let setting = format!("set debug-file-directory {}", folder.display());
    for moved in [false, true] {
        if moved {
            let id = build_id(&workshop.file("common"));
            let to = folder.join(".build-id").join(&id[..2]);
            fs::create_dir_all(&to).unwrap();
            let to = to.join(format!("{}.debug", &id[2..]));
            fs::rename(workshop.file("common"), to).unwrap();
        }
        let session = |form, loader| {
            let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader);
            gdb.env("MEMDL_DEBUG", form).run(&[&[&*setting], IN_FUNCTION].concat())
        };
        let of_file = session("full", Loader::Dlopen);
        for form in ["full", "portable"] {
            let of_memory = session(form, Loader::Memdl);
            assert_same(&of_memory, &of_file, &workshop.file("lib.so"), &[]);
            of_memory.to("bt").has(&["#0  leaf (n=5) at bare.c:"]);
            of_memory.to("info locals").has(&["both = {first = 15, name = 0xADDRESS \"pair\""]);
            of_memory.to("ptype both").has(&["const char *name;"]);
        }
    }
    // What is in the third file cannot be moved, and so this is the other form.
    assert_eq!(level(&workshop.read("lib.so"), None), DebugLevel::Full);
}

fn without_what_dwz_shared_there_are_names_and_backtraces() {
    let workshop = Workshop::new();
    let load = shared(&workshop, "{bare}");
    fs::remove_file(workshop.file("common")).unwrap();
    let [of_memory, of_file] = [Loader::Memdl, Loader::Dlopen].map(|loader| {
        let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader);
        gdb.run(IN_FUNCTION)
    });
    assert_same(&of_memory, &of_file, &workshop.file("lib.so"), &[]);
    of_memory
        .to("run")
        .has(&["could not find '.gnu_debugaltlink' file", "Breakpoint 1, 0xADDRESS in leaf"]);
    of_memory.to("bt").has(&["in leaf ()\n", "in entry ()\n", "host_calls ("]);
    of_memory.to("continue").has(&["exited normally"]);
}

/// The location would be in a file that only gdb has, and lead it to other memory.
fn a_thread_local_that_dwz_shared_is_not_shown() {
    let workshop = Workshop::new();
    let load = shared(&workshop, "{c}");
    for form in ["full", "portable"] {
        let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).env("MEMDL_DEBUG", form);
        let session = gdb.run(&[
            "break leaf",
            "run",
            "bt",
            "set language c",
            "print (int)lib_thread",
            "continue",
        ]);
        session.to("bt").has(&["in leaf ()\n", "in middle ()\n", "host_calls ("]);
        session.to("print (int)lib_thread").has_not("$1");
    }
}

fn build_id(file: &Path) -> String {
    let notes = crate::common::run(Command::new("readelf").arg("-n").arg(file), "binutils");
    let (_, id) = notes.split_once("Build ID: ").unwrap();
    id.split_whitespace().next().unwrap().to_owned()
}

// ---- Debug information in a file of its own ----

/// `lib.so` as it was built, stripped as `image.so`, and `image.debug`, which was split off it.
fn stripped(workshop: &Workshop, compiler: &str, split_off: &str) {
    workshop.run(&format!("{compiler} -g -shared -fPIC {{c}} -o lib.so; {split_off}"));
}

const BY_OBJCOPY: &str = "objcopy --only-keep-debug lib.so image.debug; strip -o image.so lib.so";

/// Loaded with that file's bytes it is as the library that was never stripped, in both forms.
fn separate(compiler: &str, split_off: &str, portable: DebugLevel) {
    let workshop = Workshop::new();
    stripped(&workshop, compiler, split_off);
    let library = workshop.file("lib.so");
    let [image, info] = ["image.so", "image.debug"].map(|name| workshop.file(name));
    let of_file = session(&format!("load a {}", library.display()), "full", Loader::Dlopen, &[]);
    let load = format!("load a {} with {}", image.display(), info.display());
    for form in ["full", "portable"] {
        let of_memory = session(&load, form, Loader::Memdl, &[]);
        assert_same(&of_memory, &of_file, &library, &[]);
        assert_all(&of_memory);
    }
    assert_eq!(level(&workshop.read("image.so"), Some(&workshop.read("image.debug"))), portable);
}

macro_rules! separate {
    ($($name:ident $portable:ident: $compiler:literal, $split_off:expr;)*) => {
        tests! { fn separate_files: $($name)* }

        $(fn $name() {
            separate($compiler, $split_off, DebugLevel::$portable);
        }
    )*};
}

separate! {
    separate_bytes_by_objcopy Portable: "gcc", BY_OBJCOPY;
    separate_bytes_by_eu_strip Portable: "gcc", "eu-strip -f image.debug -o image.so lib.so";
    separate_bytes_compressed Portable: "gcc -gz=zlib", BY_OBJCOPY;
    separate_bytes_compressed_by_objcopy Portable: "gcc",
        "objcopy --only-keep-debug --compress-debug-sections=zstd lib.so image.debug; \
         strip -o image.so lib.so";
    separate_bytes_after_dwz Portable: "gcc",
        "dwz lib.so; objcopy --only-keep-debug lib.so image.debug; strip -o image.so lib.so";
    separate_bytes_after_lto_by_gcc Portable: "gcc -O0 -flto", BY_OBJCOPY;
    separate_bytes_after_lto_by_clang Portable: "clang -O0 -flto -fuse-ld=lld", BY_OBJCOPY;
    separate_bytes_known_by_their_checksum Portable: "gcc -Wl,--build-id=none",
        "objcopy --only-keep-debug lib.so image.debug; strip -o image.so lib.so; \
         objcopy --add-gnu-debuglink=image.debug image.so";
}

/// As a distribution has it: two libraries' files, with what they have in common in a third.
fn separate_bytes_that_dwz_shared_are_shown_with_the_third_file() {
    let workshop = Workshop::new();
    shared(&workshop, "{bare}");
    workshop.run(BY_OBJCOPY);
    let [image, info] = ["image.so", "image.debug"].map(|name| workshop.file(name));
    let load = format!("load a {} with {}", image.display(), info.display());
    let session = Gdb::of_host(&steps(&[&load, "call a entry 5"])).run(IN_FUNCTION);
    session.to("bt").has(&["#0  leaf (n=5) at bare.c:"]);
    session.to("info locals").has(&["both = {first = 15, name = 0xADDRESS \"pair\""]);
}

/// Moves `image.debug` to where a debugger finds it by the build-id, in a folder that is set as
/// `debug-file-directory`; and gives that folder.
fn install(workshop: &Workshop) -> String {
    let id = build_id(&workshop.file("image.so"));
    let folder = workshop.file("debug");
    let to = folder.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&to).unwrap();
    fs::rename(workshop.file("image.debug"), to.join(format!("{}.debug", &id[2..]))).unwrap();
    folder.display().to_string()
}

/// The file that is installed on the debugger's machine, for a library that was stripped.
fn a_stripped_library_has_the_debug_file_that_is_installed_by_its_build_id() {
    let workshop = Workshop::new();
    workshop.run(&format!("gcc -g -shared -fPIC {{bare}} -o lib.so; {BY_OBJCOPY}"));
    let setting = format!("set debug-file-directory {}", install(&workshop));
    let load = format!("load a {}", workshop.file("image.so").display());
    for form in ["full", "symbols", "portable"] {
        let [of_memory, of_file] = [Loader::Memdl, Loader::Dlopen].map(|loader| {
            let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader);
            gdb.env("MEMDL_DEBUG", form).run(&[&[&*setting], IN_FUNCTION].concat())
        });
        assert_same(&of_memory, &of_file, &workshop.file("image.so"), &[]);
        of_memory.to("bt").has(&["#0  leaf (n=5) at bare.c:", " in entry (n=5) at bare.c:"]);
        of_memory.to("info locals").has(&["both = {first = 15, name = 0xADDRESS \"pair\""]);
    }
}

const INSTALLED: &str = "MEMDL_DEBUG_FILE_DIRECTORY";

/// memdl finds it as well, if it must change what is said of thread-local variables there.
fn a_stripped_library_with_thread_locals_has_the_debug_file_that_is_installed_here() {
    for compiler in ["gcc", "gcc -gz=zlib", "clang -ftls-model=initial-exec"] {
        let workshop = Workshop::new();
        stripped(&workshop, compiler, BY_OBJCOPY);
        let folder = install(&workshop);
        let library = workshop.file("lib.so");
        let of_file = format!("load a {}", library.display());
        // gdb finds it too, if it looks: it must not.
        let setting = format!("set debug-file-directory {folder}");
        let of_file = session(&of_file, "full", Loader::Dlopen, &[&setting]);
        let load = format!("load a {}", workshop.file("image.so").display());
        for form in ["full", "portable"] {
            let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).env("MEMDL_DEBUG", form);
            let folders = format!("/nowhere:{folder}:relative");
            let of_memory = gdb
                .env(INSTALLED, &folders)
                .run_unchecked(&[&[&*setting], SESSION, OF_THREAD].concat());
            assert_same(&of_memory, &of_file, &library, &[]);
            assert_all(&of_memory);
        }
    }
}

/// Where memdl does not find it, but gdb does, all but thread-local variables is as from disk. Another
/// library's file in its place, or a folder, is none.
fn a_stripped_library_with_thread_locals_has_the_debug_file_that_only_gdb_finds() {
    let workshop = Workshop::new();
    stripped(&workshop, "gcc", BY_OBJCOPY);
    let setting = format!("set debug-file-directory {}", install(&workshop));
    let id = build_id(&workshop.file("image.so"));
    let [other, folder] = ["other", "folder"].map(|name| workshop.file(name));
    let place = |folder: &Path| {
        let to = folder.join(".build-id").join(&id[..2]);
        fs::create_dir_all(&to).unwrap();
        to.join(format!("{}.debug", &id[2..]))
    };
    workshop.run("gcc -g -O2 -shared -fPIC {c} -o other.so");
    fs::copy(workshop.file("other.so"), place(&other)).unwrap();
    fs::create_dir(place(&folder)).unwrap();
    let library = workshop.file("image.so");
    let load = format!("load a {}", library.display());
    let session = |loader, form, installed: &Path| {
        let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader);
        let gdb = gdb.env("MEMDL_DEBUG", form).env(INSTALLED, installed.to_str().unwrap());
        let commands = ["info args", "print lib_global", "print lib_static", "info line leaf"];
        gdb.run(&[&[&*setting, "break leaf", "run", "bt"], &commands[..]].concat())
    };
    let of_file = session(Loader::Dlopen, "full", &other);
    for installed in [Path::new(""), &other, &folder] {
        for form in ["full", "symbols", "portable"] {
            let of_memory = session(Loader::Memdl, form, installed);
            assert_same(&of_memory, &of_file, &library, &[]);
            of_memory
                .to("bt")
                .has(&["#0  leaf (a=0, b=1) at clib.c:", " in entry (n=5) at clib.c:"]);
            of_memory.to("info args").has(&["a = 0\nb = 1\n"]);
            of_memory.to("print lib_static").has(&["$2 = 9\n"]);
        }
    }
}

/// What tells where a server's files are kept, the first that is set.
const CACHES: [&str; 3] = ["DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME", "HOME"];

/// Where a debugger of the same user has had it sent to.
fn a_stripped_library_with_thread_locals_has_the_debug_file_that_a_server_sent() {
    let workshop = Workshop::new();
    stripped(&workshop, "gcc", BY_OBJCOPY);
    let id = build_id(&workshop.file("image.so"));
    let load = format!("load a {}", workshop.file("image.so").display());
    for (variable, below) in
        CACHES.iter().zip(["", "debuginfod_client", ".cache/debuginfod_client"])
    {
        let folder = workshop.file(variable);
        let cache = folder.join(below).join(&id);
        fs::create_dir_all(&cache).unwrap();
        // No server has it.
        fs::write(cache.join("debuginfo"), "").unwrap();
        let session = || {
            let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).env(INSTALLED, "");
            let before = CACHES.iter().take_while(|other| *other != variable);
            let gdb = before.fold(gdb, |gdb, unset| gdb.env(unset, ""));
            let gdb = gdb.env(variable, folder.to_str().unwrap());
            gdb.run_unchecked(&[SESSION, OF_THREAD].concat())
        };
        session().to("bt").has(&["#0  0xADDRESS in leaf ()\n"]);
        fs::copy(workshop.file("image.debug"), cache.join("debuginfo")).unwrap();
        assert_all(&session());
    }
}

/// An operator may want no variable shown wrongly more than lines from a file that only gdb has.
fn a_stripped_library_with_thread_locals_is_safe_from_the_debug_file_that_only_gdb_finds() {
    let workshop = Workshop::new();
    stripped(&workshop, "gcc", BY_OBJCOPY);
    let setting = format!("set debug-file-directory {}", install(&workshop));
    let load = format!("load a {}", workshop.file("image.so").display());
    let session = |word| {
        let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).env(INSTALLED, "");
        let gdb = gdb.env("MEMDL_DEBUG_BUILD_ID", word);
        let commands = ["break leaf", "run", "bt", "print (int)lib_thread", "continue"];
        gdb.run_unchecked(&[&[&*setting], &commands[..]].concat())
    };
    let safe = session("safe");
    safe.to("bt").has(&["#0  0xADDRESS in leaf ()\n"]);
    safe.to("print (int)lib_thread").has_not("$");
    for word in ["always", "no-such-word"] {
        session(word).to("bt").has(&["#0  leaf (a=0, b=1) at clib.c:"]);
    }
    // One without any has nothing to be wrong about.
    let workshop = Workshop::new();
    workshop.run(&format!("gcc -g -shared -fPIC {{bare}} -o lib.so; {BY_OBJCOPY}"));
    let setting = format!("set debug-file-directory {}", install(&workshop));
    let load = format!("load a {}", workshop.file("image.so").display());
    let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).env("MEMDL_DEBUG_BUILD_ID", "safe");
    let session = gdb.run(&[&[&*setting], IN_FUNCTION].concat());
    session.to("bt").has(&["#0  leaf (n=5) at bare.c:"]);
}

/// What is asked once a person has said where the debug file is.
const LATE: &[&str] = &[
    "break leaf",
    "continue",
    "bt",
    "info args",
    "next",
    "next",
    "next",
    "next",
    "next",
    "info locals",
    "print lib_global",
    "print lib_static",
];

/// The file that only the debugger's machine has, brought to the process's by the person at the prompt:
/// whether gdb found it by itself or not, all is there then, and right.
fn a_person_at_the_prompt_gives_the_debug_file() {
    for compiler in ["gcc", "clang -ftls-model=initial-exec", "gcc -gz=zlib"] {
        let workshop = Workshop::new();
        stripped(&workshop, compiler, BY_OBJCOPY);
        let [image, copy, brought] =
            ["image.so", "copy.debug", "brought.debug"].map(|name| workshop.file(name));
        let load = format!("load a {}", image.display());
        fs::copy(workshop.file("image.debug"), &copy).unwrap();
        let setting = format!("set debug-file-directory {}", install(&workshop));
        let doing = steps(&[&load, "pause", "call a entry 5"]);
        for (form, setting, is_remote) in [
            ("full", "set language c", false),
            ("full", &setting, true),
            ("symbols", &setting, false),
            ("portable", "set language c", false),
        ] {
            println!("{compiler}, {form}, {setting}, {is_remote}");
            let gdb = if is_remote { Gdb::of_served_host(&doing) } else { Gdb::of_host(&doing) };
            let give = |path: &Path| format!("output memdl_debug_file(\"{}\")", path.display());
            let (nowhere, other) = (give(Path::new("/nowhere")), give(&clib()));
            // gdb finds the file itself by another name, if it does.
            let (run, bring, right) = if is_remote {
                let bring = format!("remote put {} {}", copy.display(), brought.display());
                ("continue", bring, give(&brought))
            } else {
                ("run", "echo".to_owned(), give(&copy))
            };
            let commands = ["break host_pauses", setting, run, "set language c", &bring];
            let give = [&*nowhere, &*other, &*right, "delete"];
            let session = gdb
                .env("MEMDL_DEBUG", form)
                .env(INSTALLED, "")
                .run_unchecked(&[&commands[..], &give, LATE, OF_THREAD].concat());
            session.to(&nowhere).has(&["-2"]);
            session.to(&other).has(&["0"]);
            session.to(&right).has(&["1"]);
            session.to("continue").has(&["leaf (a=0, b=1) at clib.c:24\n"]);
            session
                .to("bt")
                .has(&["#0  leaf (a=0, b=1) at clib.c:24\n", " in entry (n=5) at clib.c:48\n"]);
            session.to("info args").has(&["a = 0\nb = 1\n"]);
            session.to("info locals").has(&["local = 1\n"]);
            session.to("print lib_static").has(&["$2 = 99\n"]);
            // What the library computes comes by another way there.
            match is_remote {
                true => assert_thread_local_is_set(&session),
                false => assert_thread_local(&session),
            }
        }
    }
}

/// The same by the program: the level stays, and debuggers see more at that level.
fn a_program_gives_debug_information_late() {
    let workshop = Workshop::new();
    stripped(&workshop, "gcc", BY_OBJCOPY);
    let [image, info] = ["image.so", "image.debug"].map(|name| workshop.read(name));
    let other = fs::read(clib()).unwrap();
    let whole = workshop.read("lib.so");
    for (debug, info) in [
        (DebugLevel::Off, &info),
        (DebugLevel::Symbols, &info),
        (DebugLevel::Full, &info),
        (DebugLevel::Portable, &info),
        (DebugLevel::Off, &whole),
    ] {
        let loader = memdl::Loader::new().system_libraries(true).debug(debug);
        // SAFETY: the test's own library.
        let library = unsafe { loader.load(&image) }.unwrap();
        // SAFETY: its address is all that is asked for.
        let leaf = unsafe { library.get::<unsafe extern "C" fn()>("leaf") }.unwrap();
        let address = *leaf as *const c_void as usize;
        let line = || memdl::symbolize(address).last().and_then(|frame| frame.line());
        let level = library.debug();
        let wrong = library.set_debug_info(&other).unwrap_err();
        assert!(matches!(wrong, memdl::Error::DebugInfo { .. }), "{wrong}");
        assert_eq!((library.debug(), line()), (level, None));
        library.set_debug_info(info).unwrap();
        assert_eq!((library.debug(), line()), (level, Some(23)));
        library.set_debug(DebugLevel::Portable).unwrap();
        assert_eq!((library.debug(), line()), (DebugLevel::Portable, Some(23)));
    }
}

/// Of a variable that the linker threw away the offset is 0, which is no place of its own: in a
/// library that has no block gdb must not show another's.
fn a_thread_local_that_was_thrown_away_is_shown_as_from_disk() {
    let collect = "-O0 -shared -fPIC -fdata-sections -Wl,--gc-sections {gone} -o lib.so";
    for (compiler, linker) in [
        ("gcc -g", "bfd"),
        ("gcc -g", "lld"),
        ("gcc -gdwarf-3", "bfd"),
        ("clang -g", "bfd"),
        ("clang -g", "lld"),
        ("clang -g", "mold"),
        ("gcc -g -gz=zlib", "bfd"),
        ("clang -g -gz=zlib", "lld"),
        ("gcc -g -DWITH_ANOTHER", "bfd"),
        ("gcc -g -gz=zlib -DWITH_ANOTHER", "bfd"),
        ("clang -g -DWITH_ANOTHER", "lld"),
    ] {
        let workshop = Workshop::new();
        workshop.run(&format!("{compiler} -fuse-ld={linker} {collect}"));
        let library = workshop.file("lib.so");
        let load = format!("load a {}", library.display());
        let session = |loader, form| {
            let gdb = Gdb::of_host(&steps(&[&load, "call a entry 5"])).loader(loader);
            gdb.env("MEMDL_DEBUG", form).run(&[
                "break leaf",
                "run",
                "info args",
                "print another",
                "print gone",
                "set var gone = 6",
                "continue",
            ])
        };
        let of_file = session(Loader::Dlopen, "full");
        let has_another = compiler.contains("WITH_ANOTHER");
        if !has_another {
            of_file.to("print gone").has_not("$2");
        }
        for form in ["full", "portable"] {
            println!("{compiler}, {linker}, {form}");
            let of_memory = session(Loader::Memdl, form);
            of_memory.to("info args").has(&["n = 5\n"]);
            of_memory.to("print another").has(&["$1 = 78\n"]);
            if has_another {
                // It seems to be where the first one is.
                assert_same(&of_memory, &of_file, &library, &[]);
            } else {
                of_memory.to("print gone").has_not("$2");
                of_memory.to("set var gone = 6").has(&["Asked for position 0 of stack"]);
                of_memory.to("continue").has(&["entry(5) = 83\n", "exited normally"]);
            }
        }
    }
}

/// What is refused, and why, names both.
fn the_wrong_debug_information_is_an_error_that_names_both() {
    let workshop = Workshop::new();
    stripped(&workshop, "gcc", BY_OBJCOPY);
    let (image, id) = (workshop.read("image.so"), build_id(&workshop.file("image.so")));
    workshop.run("gcc -g -O2 -shared -fPIC {c} -o lib.so; objcopy --only-keep-debug lib.so other");
    let other = build_id(&workshop.file("other"));
    assert_ne!(id, other);
    assert_refused(&image, &workshop.read("other"), &[&id, &other]);
    workshop.run("objcopy --remove-section=.note.gnu.build-id lib.so none");
    assert_refused(&image, &workshop.read("none"), &[&id, "none"]);
    assert_refused(&image, b"no ELF file", &["not an ELF file"]);

    packed(&workshop, "gcc", 4, "dwp");
    let package = workshop.read("lib.so.dwp");
    workshop.run("gcc -O2 -gdwarf-4 -gsplit-dwarf -shared -fPIC {c} -o lib.so");
    assert_refused(&workshop.read("lib.so"), &package, &["the package has no unit 0x"]);
    assert_refused(&image, &package, &["no split DWARF"]);

    stripped(&workshop, "gcc -Wl,--build-id=none", BY_OBJCOPY);
    let info = workshop.read("image.debug");
    assert_refused(&workshop.read("image.so"), &info, &["neither a build-id nor"]);
    workshop.run("objcopy --add-gnu-debuglink=image.debug image.so");
    let mut changed = info.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_refused(&workshop.read("image.so"), &changed, &["checksum", ".gnu_debuglink"]);
    assert_eq!(level(&workshop.read("image.so"), Some(&info)), DebugLevel::Portable);
}

fn assert_refused(image: &[u8], info: &[u8], texts: &[&str]) {
    let loader = memdl::Loader::new().debug_info(info);
    // SAFETY: the test's own library.
    let error = unsafe { loader.load(image) }.unwrap_err();
    assert!(matches!(error, memdl::Error::DebugInfo { .. }), "{error:?}");
    for text in texts {
        assert!(error.to_string().contains(text), "no {text} in: {error}");
    }
}

// ---- Fortran ----

/// Parts of a common block: each has the location of the whole, and then a distance.
fn fortran_shows_and_sets_what_is_private_to_a_thread() {
    for model in ["global-dynamic", "initial-exec"] {
        for version in [4, 5] {
            let workshop = Workshop::new();
            workshop.run(&format!(
                "gfortran -gdwarf-{version} -fopenmp -ftls-model={model} -shared -fPIC {{f90}} -o lib.so"
            ));
            let library = workshop.file("lib.so");
            let line = format!("break {}", mark("threadprivate.f90", "common"));
            let commands = [
                &*line,
                "run",
                "print first",
                "print second",
                "print seen",
                "info common",
                "set var second = 7",
                "print second",
                "continue",
            ];
            same_in_both_forms(&library, &commands, |of_memory| {
                of_memory.to("print first").has(&["$1 = 5\n"]);
                of_memory.to("print second").has(&["$2 = 50\n"]);
                of_memory.to("print seen").has(&["$3 = 4\n"]);
                of_memory.to("print second").has(&["$4 = 7\n"]);
                of_memory.to("continue").has(&["entry(5) = 17\n", "exited normally"]);
            });
            assert_eq!(level(&workshop.read("lib.so"), None), DebugLevel::Portable);
        }
    }
}

// ---- The level changes ----

fn a_breakpoint_follows_the_level() {
    let library = clib();
    let load = format!("load a {} symbols", library.display());
    let all = ["full", "off", "full", "symbols"].map(|how| format!("set-debug a {how}"));
    let mut doing = vec![load.as_str(), "call a entry 5"];
    for how in &all {
        doing.extend([how.as_str(), "call a entry 5"]);
    }
    // A call of `entry` hits the breakpoint five times. After `ignore 1 4`, a `continue` goes on to the next
    // call that gdb sees.
    let session = Gdb::of_host(&steps(&doing)).run(&[
        "set language c",
        "break leaf",
        "run",
        "bt 1",
        "ignore 1 4",
        "continue",
        "bt 1",
        "info locals",
        "ignore 1 4",
        "continue",
        "bt 1",
        "info locals",
        "ignore 1 4",
        "continue",
        "bt 1",
        "delete",
        "continue",
    ]);
    session.to("run").has(&["Breakpoint 1, 0xADDRESS in leaf ()"]);
    // With `DebugLevel::Full` the stop is at a line, past the prologue.
    session
        .to("continue")
        .has(&["a is shown as Full", "Breakpoint 1, leaf (a=0, b=1) at clib.c:24"]);
    session.to("info locals").has(&["local = "]);
    // With `DebugLevel::Off` gdb does not see the call; after that it does.
    session.to("continue").has(&[
        "a is shown as Off",
        "entry(5) = ",
        "a is shown as Full",
        "Breakpoint 1, leaf (a=0, b=1) at clib.c:24",
    ]);
    session.to("info locals").has(&["local = "]);
    session.to("continue").has(&["a is shown as Symbols", "Breakpoint 1, 0xADDRESS in leaf ()"]);
    session.to("continue").has(&["exited normally"]);
}

fn what_was_loaded_untold_can_be_told_of_by_name_and_not_in_full() {
    let library = clib();
    let load = format!("load a {} off", library.display());
    let doing = [&load, "set-debug a full", "set-debug a symbols", "call a entry 5"];
    let session =
        Gdb::of_host(&steps(&doing)).run(&["break leaf", "run", "bt", "delete", "continue"]);
    session.to("run").has(&[
        "a: ",
        "its debug sections were not kept, since it was loaded with DebugLevel::Off",
        "a is shown as Symbols",
        "Breakpoint 1, 0xADDRESS in leaf ()",
    ]);
    session.to("bt").has(&["in leaf ()\n", "in middle ()\n", "in entry ()\n", "host_calls ("]);
    session.to("continue").has(&["exited normally"]);
}

fn a_person_at_the_prompt_has_all_told_or_one() {
    let library = clib();
    let load = |name| format!("load {name} {} symbols", library.display());
    let doing = [&*load("a"), &load("b"), "call a entry 5", "call b entry 5"];
    // Of a breakpoint in several places that moves while gdb stands at it, gdb says that the place has no
    // number.
    let session = Gdb::of_host(&steps(&doing)).run_unchecked(&[
        "set language c",
        "break leaf",
        "run",
        "bt 1",
        "print memdl_debug_full_at($pc)",
        "bt 1",
        "info args",
        "info breakpoints",
        "print memdl_debug_symbols()",
        "bt 1",
        "with language rust -- with language c -- print memdl_debug_full()",
        "bt 1",
        "info breakpoints",
        "delete",
        "continue",
    ]);
    session.to("bt 1").has(&["in leaf ()\n"]);
    session.to("print memdl_debug_full_at($pc)").has(&["$1 = 1\n"]);
    session.to("bt 1").has(&["leaf (a=", ") at clib.c:23\n"]);
    session.to("info args").has(&["a = ", "b = "]);
    session.to("info breakpoints").has(&["in leaf at clib.c:24"]).has(&["<leaf+"]);
    session.to("print memdl_debug_symbols()").has(&["$2 = 2\n"]);
    session.to("bt 1").has(&["in leaf ()\n"]);
    session
        .to("with language rust -- with language c -- print memdl_debug_full()")
        .has(&["$3 = 2\n"]);
    session.to("bt 1").has(&["leaf (a=", ") at clib.c:23\n"]);
    session.to("info breakpoints").has(&["in leaf at clib.c:24", "in leaf at clib.c:24"]);
    session.to("continue").has(&["exited normally"]);
}

// ---- Instances ----

fn instances_of_a_template_share_their_debug_information() {
    crate::common::isolated(|| {
        let workshop = Workshop::new();
        // Some megabytes that no compiler would make so fast.
        workshop.run(
            "gcc -g -shared -fPIC {c} -o lib.so; truncate -s 8M more; \
             objcopy --add-section=.debug_more=more lib.so",
        );
        let bytes = workshop.read("lib.so");
        let kib = |debug, count: usize| {
            let template = memdl::Loader::new().debug(debug).template(&bytes).unwrap();
            let mut instances = vec![];
            // SAFETY: the test's own library.
            let one = || unsafe { template.instantiate() }.unwrap();
            instances.push(one());
            let before = private_kib();
            instances.extend((0..count).map(|_| one()));
            (private_kib() - before) / count as i64
        };
        let [full, symbols] = [DebugLevel::Full, DebugLevel::Symbols].map(|debug| kib(debug, 50));
        let off = kib(DebugLevel::Off, 50);
        eprintln!("KiB for each instance: {full} full, {symbols} symbols, {off} off");
        assert!(full - off < 64, "{full} KiB for each instance, {off} without debug information");
    });
}

/// The symfile takes the memory of one copy of the debug sections, and making it takes no more.
fn debug_information_is_copied_once() {
    crate::common::isolated(|| {
        let bytes = fs::read(library("rustc", "rustlib.rs", &["-g"])).unwrap();
        let elf = goblin::elf::Elf::parse(&bytes).unwrap();
        let name = |name| elf.shdr_strtab.get_at(name).unwrap();
        let sections = || elf.section_headers.iter().map(|it| (name(it.sh_name), it.sh_size));
        let sum = |is_one: fn(&str) -> bool| -> u64 {
            sections().filter(|(name, _)| is_one(name)).map(|(_, size)| size).sum()
        };
        let debug_sections = sum(|name| name.starts_with(".debug_"));
        let others = sum(|name| [".symtab", ".strtab", ".eh_frame"].contains(&name));
        let peak = |debug| {
            let loader = memdl::Loader::new().system_libraries(true).debug(debug);
            // SAFETY: the test's own library.
            crate::common::peak_of(|| drop(unsafe { loader.load(&bytes) }.unwrap())) as u64
        };
        // What is needed once, and the memory of the image, which is used again.
        peak(DebugLevel::Off);
        let full = peak(DebugLevel::Full) - peak(DebugLevel::Off);
        eprintln!("{full} bytes; {debug_sections} of debug sections, {others} of others");
        assert!(debug_sections > 2 << 20 && full > debug_sections / 2);
        // A large page may be more than is needed of it.
        let room = (2 << 20) + (512 << 10);
        assert!(full < debug_sections + others + room && room < debug_sections, "{full}");
    });
}

/// Memory that this process has for itself.
fn private_kib() -> i64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap()).sum()
}

fn each_instance_of_a_template_is_seen_with_its_own_variables() {
    let workshop = Workshop::new();
    workshop.run(
        "gcc -g -gz=zlib -shared -fPIC {c} -o lib.so; truncate -s 1M more; \
         objcopy --add-section=.debug_more=more lib.so",
    );
    let prepare = format!("prepare t {}", workshop.file("lib.so").display());
    let doing =
        [&*prepare, "instantiate t a", "instantiate t b", "call a entry 5", "call b entry 5"];
    for form in ["full", "portable"] {
        let session = Gdb::of_host(&steps(&doing)).env("MEMDL_DEBUG", form).run(&[
            "break clib.c:29",
            "run",
            "print lib_thread",
            "set var lib_thread = 5",
            "ignore 1 4",
            "continue",
            "print lib_thread",
            // Of a variable that is not static gdb reads the first one of that name, with files too.
            "print lib_static",
            "delete",
            "continue",
        ]);
        session.to("run").has(&["Breakpoint 1.", "leaf (a=0, b=1) at clib.c:29\n"]);
        session.to("print lib_thread").has(&["$1 = 100\n"]);
        session.to("continue").has(&["entry(5) = 704\n", "leaf (a=0, b=1) at clib.c:29\n"]);
        session.to("print lib_thread").has(&["$2 = 100\n"]);
        session.to("print lib_static").has(&["$3 = 99\n"]);
        session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
    }
}

/// Of a name alone gdb would take the offset for one in the executable's block.
fn without_debug_information_a_thread_local_is_not_shown() {
    let library = clib();
    for load in ["symbols", "full"] {
        let mut path = library.clone();
        if load == "full" {
            path = crate::common::build("gcc", "debug/clib.c", &["-O0"]);
        }
        let load = format!("load a {} {load}", path.display());
        let session = Gdb::of_host(&steps(&[&load, "call a entry 5"])).run(&[
            "set language c",
            "break leaf",
            "run",
            "print (int)lib_thread",
            "print (int)lib_global",
            "bt",
            "continue",
        ]);
        let says = "No symbol \"lib_thread\" in current context.";
        session.to("print (int)lib_thread").has(&[says]);
        session.to("print (int)lib_global").has(&["$1 = 7\n"]);
        session.to("bt").has(&["in leaf ()\n", "in middle ()\n"]);
    }
}

fn clib() -> PathBuf {
    library("gcc", "clib.c", &["-g", "-O0"])
}
