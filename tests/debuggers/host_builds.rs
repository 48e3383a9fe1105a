//! Whatever way a host was built, gdb finds its images; or, where a host has no symbols left, it is
//! known what helps. Hosts in Rust and in C are built as their authors would, and debugged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::common::{limited, repository, run};
use crate::harness::libraries::{Copy, library};
use crate::harness::{Gdb, Replies, scratch};

tests! { pub fn tests:
    images_are_seen_in_a_host_in_rust
    images_are_seen_in_a_stripped_host_that_keeps_the_pair
    images_are_not_seen_in_a_host_without_any_symbol
    images_are_seen_in_a_host_without_any_symbol_that_exports_the_pair
    images_are_seen_in_a_host_in_c
    images_are_seen_with_a_stripped_libmemdl
    images_are_seen_in_a_host_in_c_without_any_symbol_that_exports_the_pair
    images_are_not_seen_in_a_host_in_c_without_any_symbol
    images_and_thread_locals_are_seen_where_memdl_was_opened
    images_are_seen_beside_another_runtime_and_hide_none
    a_breakpoint_by_name_lands_in_the_image_alone
    gdb_reads_no_debug_information_of_memdl
    two_versions_in_one_program
}

/// Where all are built, with one folder for cargo: what memdl needs is compiled once for each
/// profile.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosts");
        fs::create_dir_all(&folder).unwrap();
        let write = |name, text: String| {
            let path = folder.join(name);
            if fs::read_to_string(&path).is_ok_and(|old| old == text) {
                return;
            }
            fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            format!(
                "[package]\nname = \"host\"\nedition = \"2024\"\n\n[workspace]\n\n\
                 [features]\nexported = [\"memdl/exported-debug-symbols\"]\n\n\
                 [dependencies]\nlog = \"0.4\"\nmemdl.path = {:?}\n\n\
                 [[bin]]\nname = \"host\"\npath = {:?}\n",
                repository(""),
                repository("tests/hosts/host.rs"),
            ),
        );
        if !folder.join("Cargo.lock").exists() {
            fs::copy(repository("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        }
        folder
    })
}

/// One at a time: they have the same name until they are copied.
static BUILDING: Mutex<()> = Mutex::new(());

/// Cargo, with bitcode in all that it compiles, so that one build of what memdl needs serves hosts
/// with and without link-time optimisation.
fn cargo() -> Command {
    let mut command = limited(900, env!("CARGO"));
    command
        .args(["rustc", "--quiet", "--offline"])
        // Optimised enough to be what a release is, and compiled in less time.
        .args(["--config", "profile.release.opt-level=1", "--config", "profile.release.debug=1"])
        .arg("--target-dir")
        .arg(folder().join("target"))
        .env("RUSTFLAGS", "-Cembed-bitcode=yes");
    command
}

/// A host in Rust.
fn rust_host(name: &str, profile: &str, cargo_flags: &[&str], rustc_flags: &[&str]) -> PathBuf {
    let folder = folder();
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = cargo();
    command.args(["--profile", profile]).args(cargo_flags).arg("--").args(rustc_flags);
    run(command.current_dir(folder), "cargo");
    let built = match profile {
        "dev" => "target/debug/host",
        _ => "target/release/host",
    };
    let host = folder.join(format!("host-{name}"));
    fs::copy(folder.join(built), &host).unwrap();
    host
}

/// memdl as a static and a shared library; cargo gives them the same names whatever the features.
fn libraries_for_c(features: &'static str) -> PathBuf {
    static BUILT: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let kept = folder().join(features.replace(',', "-"));
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.contains(&features) {
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = cargo();
        command
            .args(["--release", "--lib", "--features", features])
            .args(["--crate-type", "cdylib,staticlib"])
            .current_dir(repository(""));
        run(&mut command, "cargo");
        fs::create_dir_all(&kept).unwrap();
        for name in ["libmemdl.a", "libmemdl.so"] {
            fs::copy(folder().join("target/release").join(name), kept.join(name)).unwrap();
        }
        built.push(features);
    }
    kept
}

/// A host in C, with memdl as a library of this kind.
fn c_host(name: &str, form: &str, features: &'static str, flags: &[&str]) -> PathBuf {
    let built = libraries_for_c(features).join(format!("libmemdl.{form}"));
    let folder = folder();
    let memdl = folder.join(format!("lib-{name}.{form}"));
    fs::copy(built, &memdl).unwrap();
    let host = folder.join(format!("host-{name}"));
    let mut command = Command::new("gcc");
    command.arg("-I").args([repository("include"), repository("tests/hosts/host.c"), memdl]);
    command.args(flags).args(["-pthread", "-lgcc_s", "-ldl", "-lm", "-o"]).arg(&host);
    if form == "so" {
        command.arg(format!("-Wl,-rpath,{}", folder.display()));
    }
    run(&mut command, "gcc");
    host
}

fn strip(arguments: &[&str], host: &Path) {
    run(Command::new("strip").args(arguments).arg(host), "binutils");
}

// What is typed at the prompt, where gdb stands in an image in C, and in the host.
const BARE: &str = "print memdl_debug_full()";
const IN_C: &str = "with language c -- print memdl_debug_full()";
/// This works in every host that has symbols.
const IN_C_WITH_TYPE: &str = "with language c -- print (int)memdl_debug_full()";
/// One that is given something.
const FILE: &str = "with language c -- print (int)memdl_debug_file(\"/nowhere\")";

fn session(host: &Path) -> Replies {
    let library = library("gcc", "clib.c", &["-g", "-O0"]);
    Gdb::of_program(host, &[library.to_str().unwrap()]).run(&[
        "break leaf",
        "break lib_constructor",
        "run",
        "continue",
        "bt",
        "next",
        "info locals",
        BARE,
        IN_C_WITH_TYPE,
        "up 3",
        IN_C,
        IN_C_WITH_TYPE,
        FILE,
        "delete",
        "continue",
    ])
}

/// A breakpoint in an image stops, and there are lines and variables.
fn assert_seen(session: &Replies) {
    session.to("run").has(&["Breakpoint 2, lib_constructor () at clib.c:20"]);
    session.to("continue").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:24\n"]);
    session.to("bt").has(&["#0  leaf (a=0, b=1) at clib.c:24\n", " in entry (n=5) at clib.c:48\n"]);
    session.to("info locals").has(&["local = 1\n"]);
}

/// The functions for the prompt work, with or without telling gdb what they return.
fn assert_called(session: &Replies, has_debug_info: bool) {
    for command in [BARE, IN_C_WITH_TYPE, IN_C, IN_C_WITH_TYPE] {
        let says = if has_debug_info || command == IN_C_WITH_TYPE {
            " = 1\n"
        } else {
            "'memdl_debug_full' has unknown return type"
        };
        session.to(command).has(&[says]);
    }
    session.to(FILE).has(&[" = -2\n"]);
    session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
}

fn images_are_seen_in_a_host_in_rust() {
    for (name, profile, flags, has_debug_info) in [
        ("dev", "dev", &[][..], true),
        ("release", "release", &[], true),
        ("lto", "release", &["-Clto=fat"], true),
        ("strip-debuginfo", "release", &["-Cstrip=debuginfo"], false),
    ] {
        let host = rust_host(name, profile, &[], flags);
        let session = session(&host);
        assert_seen(&session);
        assert_warns(0, name, &host, &[]);
        assert_called(&session, has_debug_info);
    }
}

fn images_are_seen_in_a_stripped_host_that_keeps_the_pair() {
    let host = rust_host("kept", "release", &[], &[]);
    strip(&["-K", "__jit_debug_descriptor", "-K", "__jit_debug_register_code"], &host);
    assert_seen(&session(&host));
    assert_warns(0, "kept", &host, &[]);
    strip(&[], &host);
    assert_warns(1, "stripped later", &host, &[]);
    // Nobody wants to debug.
    assert_warns(0, "off", &host, &[("MEMDL_DEBUG", "off")]);
}

/// docs/explanation/how-debuggers-find-images.md says so. The feature alone does not help an executable: nothing is exported from one.
fn images_are_not_seen_in_a_host_without_any_symbol() {
    for (name, flags) in [("stripped", &[][..]), ("not-exported", &["--features", "exported"])] {
        let host = rust_host(name, "release", flags, &["-Cstrip=symbols"]);
        let session = session(&host);
        session.to("run").has(&["entry(5) = 514\n", "exited normally"]).has_not("Breakpoint");
        session.to(IN_C_WITH_TYPE).has(&["No symbol \"memdl_debug_full\" in current context."]);
        assert_warns(1, name, &host, &[]);
    }
}

/// The first of two loads says that debuggers will not see images, and how they would; or none does.
fn assert_warns(times: usize, name: &str, host: &Path, environment: &[(&str, &str)]) {
    let library = library("gcc", "clib.c", &["-g", "-O0"]);
    let mut command = limited(60, host);
    let output = command.arg(library).arg("twice").envs(environment.iter().copied()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let warnings = said.lines().filter(|line| line.starts_with("WARN: "));
    assert_eq!(warnings.count(), times, "{name}: {said}");
    for part in ["debuggers cannot see images", &*host.to_string_lossy(), "-K __jit_debug_", "`-g`"]
    {
        assert_eq!(said.matches(part).count().min(1), times, "{name}: {part:?} in {said}");
    }
}

fn images_are_seen_in_a_host_without_any_symbol_that_exports_the_pair() {
    let flags = ["-Cstrip=symbols", "-Clink-arg=-rdynamic"];
    let host = rust_host("exported", "release", &["--features", "exported"], &flags);
    let session = session(&host);
    assert_seen(&session);
    assert_warns(0, "exported", &host, &[]);
    assert_called(&session, false);
}

fn images_are_seen_in_a_host_in_c() {
    for form in ["a", "so"] {
        for (name, flags) in [("debug", "-g"), ("plain", "-O2"), ("stripped-of-debug", "-Wl,-S")] {
            let session = session(&c_host(&format!("{form}-{name}"), form, "capi", &[flags]));
            assert_seen(&session);
            assert_called(&session, form == "so" || name != "stripped-of-debug");
        }
    }
}

/// What distributions do to a shared library, and more.
fn images_are_seen_with_a_stripped_libmemdl() {
    for (name, arguments) in
        [("unneeded", &["--strip-unneeded"][..]), ("debug", &["-g"]), ("all", &["-s", "-x"])]
    {
        let name = format!("so-strip-{name}");
        let host = c_host(&name, "so", "capi", &["-s"]);
        let memdl = folder().join(format!("lib-{name}.so"));
        strip(arguments, &memdl);
        let exported = run(Command::new("nm").arg("-D").arg(&memdl), "binutils");
        for symbol in ["T __jit_debug_register_code", "D __jit_debug_descriptor"] {
            // With a version of their own: no other library's references are bound to them.
            assert!(exported.contains(&format!(" {symbol}@@MEMDL_DEBUG\n")), "{exported}");
        }
        assert_seen(&session(&host));
    }
}

fn images_are_seen_in_a_host_in_c_without_any_symbol_that_exports_the_pair() {
    let features = "capi,exported-debug-symbols";
    let host = c_host("a-exported", "a", features, &["-s", "-rdynamic"]);
    let session_of_static = session(&host);
    assert_seen(&session_of_static);
    assert_called(&session_of_static, false);

    let host = c_host("so-exported", "so", features, &["-s"]);
    strip(&[], &folder().join("lib-so-exported.so"));
    let session_of_shared = session(&host);
    assert_seen(&session_of_shared);
    assert_called(&session_of_shared, false);
}

fn images_are_not_seen_in_a_host_in_c_without_any_symbol() {
    let session = session(&c_host("a-stripped", "a", "capi", &["-s"]));
    session.to("run").has(&["entry(5) = 514\n", "exited normally"]).has_not("Breakpoint");
}

/// A runtime that registers code with debuggers, as a library, and the arguments of a host that has it, too.
pub fn another_runtime() -> &'static (PathBuf, [String; 2]) {
    static BUILT: OnceLock<(PathBuf, [String; 2])> = OnceLock::new();
    BUILT.get_or_init(build_another_runtime)
}

fn build_another_runtime() -> (PathBuf, [String; 2]) {
    let folder = folder();
    let jitted = folder.join("jitted.elf");
    let mut command = Command::new("gcc");
    command.args(["-g", "-O0", "-fcf-protection=none", "-static", "-nostdlib", "-no-pie"]);
    command.args(["-Wl,-Ttext-segment=0x30000000", "-Wl,-e,jitted", "-o"]).arg(&jitted);
    run(command.arg(repository("tests/hosts/jitted.c")), "gcc");
    let other = folder.join("libother.so");
    let mut command = Command::new("gcc");
    command.args(["-O0", "-shared", "-fPIC", "-o"]).arg(&other);
    run(command.arg(repository("tests/hosts/other_jit.c")), "gcc");
    let library = library("gcc", "clib.c", &["-g", "-O0"]);
    (other, [&library, &jitted].map(|path| path.to_str().unwrap().to_owned()))
}

/// A host with memdl in this form, and `other`, a part or a library with another runtime.
pub fn host_with_another_runtime(
    linker: &str,
    form: &str,
    other: &Path,
    is_first: bool,
    flags: &[&str],
) -> Copy {
    let folder = folder();
    let memdl = libraries_for_c("capi").join(format!("libmemdl.{form}"));
    let [first, last] = if is_first { [&*memdl, other] } else { [other, &*memdl] };
    let host = Copy(scratch("host"));
    let mut command = Command::new("gcc");
    command.arg("-I").args([repository("include"), repository("tests/hosts/two_runtimes.c")]);
    command.args(flags).arg(format!("-fuse-ld={linker}")).args([first, last]);
    for folder in [folder, memdl.parent().unwrap()] {
        command.arg(format!("-Wl,-rpath,{}", folder.display()));
    }
    command.args(["-pthread", "-lgcc_s", "-ldl", "-lm", "-o"]).arg(&host.0);
    run(&mut command, "gcc");
    host
}

/// Another runtime has a global pair of its own, in a library or in the program itself. Whatever the linker,
/// gdb sees what both register.
fn images_are_seen_beside_another_runtime_and_hide_none() {
    let (other, arguments) = another_runtime();
    let arguments = arguments.each_ref().map(String::as_str);
    let part = repository("tests/hosts/other_jit.c");
    for linker in crate::common::linkers() {
        for (form, other, is_first, flags) in [
            ("a", other, true, &["-pie"][..]),
            ("a", other, false, &["-pie"]),
            ("so", other, true, &["-pie"]),
            ("a", &part, true, &["-pie"]),
            // By GNU ld the pair is global without the second.
            ("a", other, true, &["-no-pie"]),
            ("a", other, true, &["-no-pie", "-rdynamic"]),
        ] {
            let host = host_with_another_runtime(linker, form, other, is_first, flags);
            let session = Gdb::of_program(&host.0, &arguments).run(&[
                "break jitted",
                "break leaf",
                "run",
                "continue",
                "bt",
                "delete",
                "continue",
            ]);
            println!("{linker} {form} {} {is_first} {flags:?}", other.display());
            if linker == "bfd" && flags == ["-no-pie"] {
                session.to("run").has(&["Breakpoint 2, leaf (a=0, b=1) at clib.c:24\n"]);
                continue;
            }
            session.to("run").has(&["Breakpoint 1, jitted (called="]);
            session.to("continue").has(&["Breakpoint 2, leaf (a=0, b=1) at clib.c:24\n"]);
            session.to("bt").has(&[
                " in entry (n=5) at clib.c:48\n",
                " in jitted (called=",
                " in main (",
            ]);
            session.to("continue").has(&["jitted = 515\n", "exited normally"]);
        }
    }
}

/// At each event it reads what it needs for the frame that announces it. memdl's would take as long as three images.
fn gdb_reads_no_debug_information_of_memdl() {
    let memdl = libraries_for_c("capi").join("libmemdl.a");
    let host = Copy(scratch("host"));
    let mut command = Command::new("gcc");
    command.arg("-I").args([&repository("include"), &repository("tests/hosts/host.c"), &memdl]);
    command.args(["-g", "-pthread", "-lgcc_s", "-ldl", "-lm", "-o"]).arg(&host.0);
    run(&mut command, "gcc");
    let clib = library("gcc", "clib.c", &["-g", "-O0"]);
    let statistics = "maint print statistics";
    let session = Gdb::of_program(&host.0, &[clib.to_str().unwrap()]).run(&[
        "break leaf",
        "run",
        statistics,
        "delete",
        "continue",
    ]);
    session.to("run").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:24\n"]);
    let start = format!("Statistics for '{}'", host.0.display());
    // The host's own unit, and none of memdl's hundreds.
    session.to(statistics).has(&[&start, "Number of read CUs: 1\n"]);
    session.to("continue").has(&["exited normally"]);
}

/// Functions of Rust are called `entry`, too. docs/how-to/use-from-c.md says how a host in C keeps breakpoints out of
/// them.
fn a_breakpoint_by_name_lands_in_the_image_alone() {
    let folder = folder();
    let built = libraries_for_c("capi");
    let [archive, library] = ["a", "so"].map(|form| folder.join(format!("libquiet.{form}")));
    for (kept, form) in [(&archive, "a"), (&library, "so")] {
        fs::copy(built.join(format!("libmemdl.{form}")), kept).unwrap();
    }
    let script = repository("tools/finish-archive.sh");
    run(Command::new("sh").arg(script).arg(&archive), "tools/finish-archive.sh");
    strip(&["-w", "-K", "memdl_*", "-K", "__jit_debug_*"], &library);
    let clib = self::library("gcc", "clib.c", &["-g", "-O0"]);
    for (name, memdl, options) in [
        ("quiet-a", &archive, ""),
        ("quiet-so", &library, ""),
        ("loud-a", &built.join("libmemdl.a"), "-qualified "),
    ] {
        let host = folder.join(format!("host-{name}"));
        let mut command = Command::new("gcc");
        command.arg("-I").args([&repository("include"), &repository("tests/hosts/host.c"), memdl]);
        command.args(["-pthread", "-lgcc_s", "-ldl", "-lm"]);
        command.arg(format!("-Wl,-rpath,{}", folder.display())).arg("-o").arg(&host);
        run(&mut command, "gcc");
        let before = format!("break {options}entry");
        let after = format!("break {options}middle");
        let session = Gdb::of_program(&host, &[clib.to_str().unwrap()]).run(&[
            &before,
            "run",
            &after,
            "info breakpoints",
            IN_C_WITH_TYPE,
            "continue",
            "delete",
            "continue",
        ]);
        session.to(&before).has(&["Function \"entry\" not defined."]);
        session.to("run").has(&["Breakpoint 1, entry (n=5) at clib.c:"]);
        session
            .to("info breakpoints")
            .has(&[" in entry at ", " in middle at "])
            .has_not("MULTIPLE");
        session.to(IN_C_WITH_TYPE).has(&[" = 1\n"]);
        session.to("continue").has(&["Breakpoint 2, middle (n=5"]);
        session.to("continue").has(&["entry(5) = 514\n", "exited normally"]);
    }
}

/// memdl in a library that `dlopen` opened, beside an image that takes static thread-local storage from `ld.so`.
fn images_and_thread_locals_are_seen_where_memdl_was_opened() {
    let memdl = libraries_for_c("capi").join("libmemdl.so");
    let host = folder().join("host-opens");
    let mut command = Command::new("gcc");
    command.arg("-I").args([repository("include"), repository("tests/hosts/opens.c")]);
    run(command.args(["-g", "-ldl", "-o"]).arg(&host), "gcc");
    let fixed = crate::common::build("gcc", "tls/variables.c", &["-ftls-model=initial-exec", "-g"]);
    let library = library("gcc", "clib.c", &["-g", "-O0"]);
    let arguments = [&memdl, &fixed, &library].map(|path| path.to_str().unwrap());
    let session = Gdb::of_program(&host, &arguments).run(&[
        "break leaf",
        "run",
        "print lib_thread",
        "continue",
        "bt",
        "print lib_thread",
        "print lib_thread = 99",
        "print exported",
        "info sharedlibrary",
        "delete",
        "continue",
    ]);
    session.to("run").has(&["Breakpoint 1, leaf (a=0, b=1) at clib.c:24\n"]);
    // Before the thread's first access there is none.
    session.to("print lib_thread").has(&["Cannot access memory at address 0x0\n"]);
    session.to("continue").has(&["Breakpoint 1, leaf (a=1, b=2) at clib.c:24\n"]);
    session.to("bt").has(&[" in entry (n=5) at clib.c:48\n", " in main ("]);
    session.to("print lib_thread").has(&[" = 100\n"]);
    session.to("print lib_thread = 99").has(&[" = 99\n"]);
    session.to("print exported").has(&[" = 7\n"]);
    session.to("continue").has(&["entry(5) = 516\n", "exited normally"]);
}

/// Two versions of the crate in one program, which cargo allows where they are not compatible, and a
/// third copy in a library that the program opens.
fn two_versions_in_one_program() {
    let folder = folder().join("copies");
    let other = folder.join("memdl");
    fs::create_dir_all(other.join("symfile")).unwrap();
    for name in ["src", "build.rs", "symfile/src"] {
        let _ = std::os::unix::fs::symlink(repository(name), other.join(name));
    }
    let ours = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    // The crate that makes symfiles has another version with it.
    for name in ["Cargo.toml", "symfile/Cargo.toml"] {
        let manifest = fs::read_to_string(repository(name)).unwrap();
        assert!(manifest.contains(&ours));
        let manifest = manifest.replace(&ours, "version = \"99.0.0\"");
        // Without the tests, benchmarks and tools that it lists.
        let kept = manifest
            .split("\n\n")
            .filter(|part| !part.contains("[[") && !part.contains("[workspace]"));
        fs::write(other.join(name), kept.collect::<Vec<_>>().join("\n\n")).unwrap();
    }
    let manifest = format!(
        "[package]\nname = \"copies\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nlibc = \"0.2\"\none = {{ package = \"memdl\", path = {:?} }}\n\
         two = {{ package = \"memdl\", path = \"memdl\" }}\n\n\
         [lib]\nname = \"third\"\ncrate-type = [\"cdylib\"]\npath = {:?}\n\n\
         [[bin]]\nname = \"copies\"\npath = {:?}\n",
        repository(""),
        repository("tests/hosts/third.rs"),
        repository("tests/hosts/copies.rs"),
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    if !folder.join("Cargo.lock").exists() {
        fs::copy(repository("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    }
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let build = |what: &[&str], flags: &[&str]| {
        let mut command = cargo();
        command.args(["--profile", "release"]).args(what).arg("--").args(flags);
        run(command.current_dir(&folder), "cargo");
    };
    let built = self::folder().join("target/release");
    build(&["--lib"], &[]);
    // The assembly of both, one behind the other. Not optimised: it is done sooner.
    for flags in [&[][..], &["-Clto=fat", "-Copt-level=0"]] {
        build(&["--bin", "copies"], flags);
        let image = crate::common::build("g++", "unwind/throws.cpp", &["-O1", "-pthread"]);
        // libunwind asks for objects in another way than libgcc does.
        for unwinder in ["", "libunwind.so.8"] {
            let mut command = limited(300, "env");
            command.arg(format!("LD_PRELOAD={unwinder}")).arg(built.join("copies"));
            let arguments = [&image, &built.join("libthird.so")];
            let output = run(command.args(arguments), "what it is made of");
            assert_eq!(output, "all copies at work\n", "{flags:?}, {unwinder:?}");
        }
    }
}
