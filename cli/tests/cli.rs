//! The program as people type it: what it prints, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const MEMDL: &str = env!("CARGO_BIN_EXE_memdl");

/// As long as a command may take, on a slow and busy machine.
const LIMIT: &str = "120";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A file in the folder of the tests, built by gcc from this source.
fn built(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let [file, source_file] = ["", ".c"].map(|end| folder().join(format!("{name}{end}")));
    fs::write(&source_file, source).unwrap();
    let mut command = Command::new("gcc");
    command.arg("-g").arg("-o").arg(&file).arg(&source_file).args(flags);
    assert!(command.status().unwrap().success(), "gcc builds {name}");
    file
}

fn library(name: &str, source: &str) -> PathBuf {
    built(name, source, &["-shared", "-fPIC", "-Wl,--build-id=sha1"])
}

const FOO: &str =
    "int foo(int a, int b) {\n    return 2 * a + b;\n}\nlong wide(long a) { return a; }\n";

/// `memdl` with these arguments, which is killed when it takes too long.
fn memdl(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", LIMIT, MEMDL]).args(arguments).current_dir(folder());
    command.env_remove("NO_COLOR").output().unwrap()
}

/// The exit code, standard output, standard error.
fn said(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = memdl(arguments);
    let code = status.code().unwrap_or_else(|| panic!("{arguments:?}: {status}"));
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    // Not a terminal.
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "{stdout}{stderr}");
    (code, stdout, stderr)
}

fn json(arguments: &[&str]) -> Value {
    let (_, stdout, stderr) = said(arguments);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

#[test]
fn check_says_what_loads() {
    let good = library("check_good.so", FOO);
    let bad = library("check_bad.so", "int absent(void); int foo(void) { return absent(); }");
    let [good, bad] = [&good, &bad].map(|path| path.to_str().unwrap());
    assert_eq!(said(&["check", good]), (0, format!("{good}: loads\n"), String::new()));
    let (code, stdout, stderr) = said(&["check", good, bad]);
    assert_eq!((code, stdout), (1, format!("{good}: loads\n{bad}: refused\n")));
    assert!(stderr.starts_with("memdl: check_bad.so: undefined symbols: absent; "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // The other file is checked all the same.
    let (code, stdout, stderr) = said(&["check", "not-there.so", bad]);
    assert_eq!((code, stdout), (2, format!("{bad}: refused\n")));
    assert!(stderr.contains("cannot read not-there.so: "), "{stderr}");
    let value = json(&["check", "--json", good, bad]);
    let files = value["files"].as_array().unwrap();
    assert_eq!((&files[0]["loads"], &files[1]["loads"]), (&Value::from(true), &Value::from(false)));
    let refusal = &files[1]["refusals"][0];
    assert_eq!(
        (&refusal["kind"], &refusal["symbols"][0]["name"]),
        (&"missing".into(), &"absent".into())
    );
    // Not a library at all, nor for this machine.
    let text = folder().join("check_text.so");
    fs::write(&text, "text").unwrap();
    assert_eq!(said(&["check", text.to_str().unwrap()]).0, 1);
}

#[test]
fn check_takes_what_is_provided() {
    let inner = library("provided_inner.so", "int inner(void) { return 7; }");
    // Its name in the needing library is that of the file that it was linked with.
    let outer = built(
        "provided_outer.so",
        "int inner(void); int outer(void) { return inner(); }",
        &["-shared", "-fPIC", "-L", folder().to_str().unwrap(), "-l:provided_inner.so"],
    );
    let [inner, outer] = [&inner, &outer].map(|path| path.to_str().unwrap());
    let (code, _, stderr) = said(&["check", outer]);
    assert!(code == 1 && stderr.contains("provided_inner.so"), "{stderr}");
    let provide = format!("provided_inner.so={inner}");
    assert_eq!(said(&["check", outer, "--provide", &provide]).0, 0);
    assert_eq!(said(&["run", outer, "outer", "--provide", &provide]).1, "7\n");
    let (code, _, stderr) = said(&["check", outer, "--provide", "nothing"]);
    assert!(code == 2 && stderr.contains("NAME=FILE") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn check_looks_into_another_host() {
    let plugin = library(
        "host_plugin.so",
        "int of_host(int); double cos(double); int foo(int a) { return of_host(a) + (int)cos(a); }",
    );
    let source = "int of_host(int a) { return a; } double cos(double);\n\
                  int main(int count, char **words) { (void)words; return (int)cos(count); }";
    let host = built("host_with", source, &["-rdynamic", "-fno-builtin", "-lm"]);
    let hidden = built("host_hidden", source, &["-fno-builtin", "-lm"]);
    let [plugin, host, hidden] = [&plugin, &host, &hidden].map(|path| path.to_str().unwrap());
    let (code, _, stderr) = said(&["check", plugin]);
    assert!(code == 1 && stderr.contains("of_host") && stderr.contains("--host EXE"), "{stderr}");
    assert_eq!(
        said(&["check", plugin, "--host", host]),
        (0, format!("{plugin}: loads\n"), String::new())
    );
    let (code, _, stderr) = said(&["check", plugin, "--host", hidden]);
    assert!(code == 1 && stderr.contains("of_host") && !stderr.contains("cos"), "{stderr}");
    // What only this program has: it is linked with libgcc_s, the host is not.
    let walks = built(
        "host_walks.so",
        "void _Unwind_Resume(void *); void foo(void *at) { _Unwind_Resume(at); }",
        // It would say itself that it needs the library.
        &["-shared", "-fPIC", "-nostdlib"],
    );
    let walks = walks.to_str().unwrap();
    assert_eq!(said(&["check", walks]).0, 0);
    let (code, _, stderr) = said(&["check", walks, "--host", host]);
    assert!(code == 1 && stderr.contains("does not have: _Unwind_Resume"), "{stderr}");
    let value = json(&["check", walks, "--host", host, "--json"]);
    assert_eq!(value["files"][0]["not_in_host"][0], "_Unwind_Resume");
    let fixed = built("host_static", "int main(void) { return 0; }", &["-static"]);
    let (code, _, stderr) = said(&["check", plugin, "--host", fixed.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("not linked dynamically"), "{stderr}");
    assert_eq!(said(&["check", plugin, "--host", "not-there"]).0, 2);
}

/// Builds for the other one of the two machines that memdl runs on, of whose headers and libraries none are here.
fn built_elsewhere(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let target = match cfg!(target_arch = "x86_64") {
        true => "aarch64-linux-gnu",
        false => "x86_64-linux-gnu",
    };
    let [file, source_file] = ["", ".c"].map(|end| folder().join(format!("{name}{end}")));
    fs::write(&source_file, source).unwrap();
    let mut command = Command::new("clang");
    command.arg(format!("--target={target}")).args(["-nostdlib", "-fuse-ld=lld", "-g", "-o"]);
    command.arg(&file).arg(&source_file).args(flags);
    assert!(command.status().unwrap().success(), "clang builds {name}");
    file
}

#[test]
fn what_is_for_another_machine_is_shown_and_checked_in_a_host_of_it() {
    let shared = ["-shared", "-fPIC"];
    let root = folder().join("elsewhere");
    fs::create_dir_all(&root).unwrap();
    let inner = built_elsewhere(
        "elsewhere/libinner.so",
        "int inner(void) { return 7; }",
        &[&shared[..], &["-Wl,-soname,libinner.so"]].concat(),
    );
    let inner = inner.to_str().unwrap();
    let source =
        "int inner(void); int of_host(int); int foo(int a) { return of_host(a) + inner(); }";
    let foo = built_elsewhere("elsewhere_foo.so", source, &[&shared[..], &[inner]].concat());
    let program = |name: &str, source: &str| {
        let linker = "-Wl,--dynamic-linker=/lib/ld.so";
        built_elsewhere(name, source, &["-fPIE", "-pie", "-rdynamic", linker, inner])
    };
    let start = "int inner(void); void _start(void) { inner(); }";
    let host = program("elsewhere_host", &format!("int of_host(int a) {{ return a; }} {start}"));
    let lacking = program("elsewhere_lacking", start);
    let own = library("elsewhere_own.so", FOO);
    let paths = [&foo, &host, &lacking, &own, &root].map(|path| path.to_str().unwrap());
    let [foo, host, lacking, own, root] = paths;

    let (code, stdout, _) = said(&["inspect", foo]);
    assert_eq!(code, 1);
    let last = stdout.lines().last().unwrap();
    assert!(last.starts_with("cannot be loaded in this process: an image for "), "{stdout}");
    assert!(stdout.contains("needs libinner.so: not searched"), "{stdout}");
    assert!(stdout.contains("\nrelocations: ") && !stdout.contains("refused"), "{stdout}");
    let (_, stdout, _) = said(&["inspect", foo, "--libraries", root]);
    assert!(stdout.contains("needs libinner.so: provided: libinner.so"), "{stdout}");
    let inspected = ["inspect", foo, "--libraries", root, "--no-system-libraries"];
    let (_, stdout, _) = said(&inspected);
    assert!(stdout.contains("import of_host: missing\nrefused: "), "{stdout}");
    let value = json(&[&inspected[..], &["--json"]].concat());
    assert_eq!((&value["for_this_machine"], &value["loads"]), (&false.into(), &false.into()));
    assert!(value["relocation_types"][0]["name"].as_str().unwrap().starts_with("R_"), "{value}");

    // Without a host, it is this process that counts.
    let (code, stdout, stderr) = said(&["check", foo]);
    assert_eq!((code, stdout), (1, format!("{foo}: refused\n")));
    assert!(stderr.contains("an image for ") && stderr.lines().count() == 1, "{stderr}");
    let loads = (0, format!("{foo}: loads\n"), String::new());
    assert_eq!(said(&["check", foo, "--host", host, "--libraries", root]), loads);
    let (code, _, stderr) = said(&["check", foo, "--host", host]);
    assert!(code == 2 && stderr.contains("--libraries FOLDER"), "{stderr}");
    let (code, _, stderr) = said(&["check", foo, "--host", lacking, "--libraries", root]);
    assert!(code == 1 && stderr.contains("undefined symbols: of_host"), "{stderr}");
    let (code, _, stderr) = said(&["check", own, "--host", host, "--libraries", root]);
    assert!(code == 2 && stderr.contains("is for another machine"), "{stderr}");
    // Those of this machine come from where a load would take them.
    assert_eq!(said(&["check", own, "--libraries", root]).0, 0);
    let (code, _, stderr) = said(&["run", foo, "foo", "1"]);
    assert!(code == 1 && stderr.contains("; this process is "), "{stderr}");
}

#[test]
fn inspect_shows_the_library() {
    let file = library("inspect.so", FOO);
    let file = file.to_str().unwrap();
    let (code, stdout, stderr) = said(&["inspect", file, "--symbols"]);
    assert!(code == 0 && stderr.is_empty(), "{stderr}");
    for part in [
        "inspect.so: ",
        "build-id: ",
        "debug information: DWARF",
        "can be loaded",
        "export foo at 0x",
    ] {
        assert!(stdout.contains(part), "no {part}: {stdout}");
    }
    let value = json(&["inspect", file, "--json"]);
    let names = |list: &str| -> Vec<String> {
        let names = value[list].as_array().unwrap().iter();
        names.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        names("exports").contains(&"foo".into()) && names("functions").contains(&"wide".into())
    );
    assert_eq!((&value["loads"], &value["machine"]), (&true.into(), &"x86-64".into()));
    assert_eq!(value["build_id"].as_str().unwrap().len(), 40);
}

#[test]
fn run_calls_a_function() {
    let file = library("run.so", FOO);
    let file = file.to_str().unwrap();
    assert_eq!(said(&["run", file, "foo", "20", "2"]), (0, "42\n".into(), String::new()));
    assert_eq!(said(&["run", file, "foo", "-1", "0x10"]).1, "14\n");
    assert_eq!(said(&["run", file, "wide", "0x123456789a", "--long"]).1, "78187493530\n");
    let (code, _, stderr) = said(&["run", file, "fo"]);
    assert!(code == 1 && stderr.contains("exports no function fo; it exports 2: "), "{stderr}");
    assert_eq!(said(&["run", file, "foo", "forty"]).0, 2);
    assert_eq!(said(&["run", file, "foo", "1", "2", "3", "4", "5", "6", "7"]).0, 2);
    let bad = library("run_bad.so", "int absent(void); int foo(void) { return absent(); }");
    let (code, stdout, stderr) = said(&["run", bad.to_str().unwrap(), "foo"]);
    assert!(
        (code, stdout.as_str()) == (1, "") && stderr.starts_with("memdl: run_bad.so: "),
        "{stderr}"
    );
}

/// A program that is ended with the test.
struct Waiting(Child);

impl Waiting {
    /// `memdl run --wait`, when it has loaded the file.
    fn new(program: &Path, file: &Path) -> Waiting {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "--foreground", LIMIT]).arg(program);
        command.arg("run").arg(file).args(["foo", "20", "2", "--wait"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(" waits for a debugger: gdb -p "), "{line}");
        Waiting(child)
    }

    /// The process of `memdl`.
    fn pid(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        fs::read_to_string(children).unwrap().trim().to_owned()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            // `timeout` ends when this one does.
            let _ = Command::new("kill").args(["-KILL", &self.pid()]).status();
        }
        let _ = self.0.wait();
    }
}

fn gdb(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", LIMIT, "gdb", "-nx", "-batch"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn run_waits_for_a_debugger() {
    let file = library("wait.so", FOO);
    let mut waiting = Waiting::new(Path::new(MEMDL), &file);
    let session = gdb(&[
        "-p",
        &waiting.pid(),
        "-ex",
        "break foo",
        "-ex",
        "continue",
        "-ex",
        "bt 1",
        "-ex",
        "detach",
    ]);
    assert!(session.contains("foo (a=20, b=2) at "), "{session}");
    let start = Instant::now();
    while waiting.0.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "it goes on: {session}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut line = String::new();
    BufReader::new(waiting.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "42\n");
}

#[test]
fn ps_lists_the_images_of_processes_and_cores() {
    let file = library("listed.so", FOO);
    let id = json(&["inspect", file.to_str().unwrap(), "--json"])["build_id"].clone();
    let waiting = Waiting::new(Path::new(MEMDL), &file);
    let pid = waiting.pid();
    let image = |value: &Value| {
        let process = &value["processes"][0];
        assert_eq!(process["objects"][0]["stripped"], false, "{value}");
        process["objects"][0]["images"][0].clone()
    };
    let live = image(&json(&["ps", &pid, "--json"]));
    assert_eq!(
        (&live["name"], &live["build_id"], &live["debug"]),
        (&"listed.so".into(), &id, &"full".into())
    );
    let (code, stdout, _) = said(&["ps"]);
    assert!(code == 0 && stdout.contains(&format!("{pid} memdl ")), "{stdout}");
    let line = stdout.lines().find(|line| line.ends_with("  listed.so")).unwrap();
    assert!(line.contains(id.as_str().unwrap()) && line.contains("  full  "), "{line}");
    let core = folder().join("ps.core");
    let save = format!("gcore {}", core.display());
    let session = gdb(&["-p", &pid, "-ex", &save]);
    let of_core = image(&json(&["ps", core.to_str().unwrap(), "--json"]));
    assert_eq!(of_core, live, "{session}");
    fs::remove_file(core).unwrap();
}

#[test]
fn ps_says_that_a_program_was_stripped() {
    let file = library("unseen.so", FOO);
    let program = folder().join("stripped-memdl");
    fs::copy(MEMDL, &program).unwrap();
    assert!(Command::new("strip").arg(&program).status().unwrap().success());
    let waiting = Waiting::new(&program, &file);
    let (code, stdout, _) = said(&["ps", &waiting.pid()]);
    assert!(
        code == 0 && stdout.contains("  unseen  ") && stdout.contains("  unseen.so\n"),
        "{stdout}"
    );
    assert!(
        stdout.contains("debuggers see no image: ") && stdout.contains("-K __jit_debug_"),
        "{stdout}"
    );
    drop(waiting);
    // A program with its symbols in a file of its own would be seen by gdb, and so would what is stripped of others only.
    let kept = ["-K", "__jit_debug_descriptor", "-K", "__jit_debug_register_code"];
    let program = folder().join("stripped-memdl-with-the-pair");
    fs::copy(MEMDL, &program).unwrap();
    assert!(Command::new("strip").args(kept).arg(&program).status().unwrap().success());
    let waiting = Waiting::new(&program, &file);
    let (_, stdout, _) = said(&["ps", &waiting.pid()]);
    assert!(stdout.contains("  full  ") && !stdout.contains("debuggers see no image"), "{stdout}");
}

#[test]
fn ps_says_why_it_lists_nothing() {
    let mut other = Command::new("sleep").arg("100").spawn().unwrap();
    let (code, _, stderr) = said(&["ps", &other.id().to_string()]);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(code == 1 && stderr.contains("memdl is not in "), "{stderr}");
    assert_eq!(said(&["ps", "999999999"]).0, 1);
    let (code, _, stderr) = said(&["ps", "/etc/passwd"]);
    assert!(code == 2 && stderr.contains("neither a process's number nor a core file"), "{stderr}");
    // Files that are cores as far as they go.
    let file = library("no_core.so", FOO);
    let mut bytes = fs::read(file).unwrap();
    bytes[16] = 4;
    for len in [64, 100, 1000, bytes.len()] {
        let path = folder().join("no.core");
        fs::write(&path, &bytes[..len]).unwrap();
        let (code, _, stderr) = said(&["ps", path.to_str().unwrap()]);
        assert!(code != 0 && stderr.lines().count() == 1, "{len}: {stderr}");
    }
}

#[test]
fn bench_compares_all_ways() {
    let file = library("bench.so", FOO);
    let file = file.to_str().unwrap();
    let value = json(&["bench", file, "--seconds", "0.01", "--json"]);
    let ways = value["ways"].as_array().unwrap();
    let words: Vec<&str> = ways.iter().map(|way| way["way"].as_str().unwrap()).collect();
    assert_eq!(words, ["dlopen", "memfd", "load", "load-off", "buffer", "instance"]);
    assert!(
        ways.iter()
            .all(|way| way["first_ns"].as_u64() > Some(0) && way["next_ns"].as_u64() > Some(0))
    );
    let (code, stdout, _) = said(&["bench", file, "--seconds", "0.01"]);
    assert!(code == 0 && stdout.contains("dlopen of the file") && stdout.contains('█'), "{stdout}");
    assert_eq!(said(&["bench", file, "--seconds", "-1"]).0, 2);
    assert_eq!(said(&["bench", "not-there.so"]).0, 2);
}

#[test]
fn help_pages_and_completions_are_there() {
    for command in ["check", "inspect", "run", "ps", "bench", "completions", "man"] {
        let (code, stdout, _) = said(&[command, "--help"]);
        assert!(code == 0 && stdout.contains("Example"), "{command}: {stdout}");
        let (code, page, _) = said(&["man", command]);
        assert!(code == 0 && page.contains(&format!(".TH memdl-{command} 1")), "{command}: {page}");
    }
    assert!(said(&["man"]).1.contains(".TH memdl 1"));
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = said(&["completions", shell]);
        assert!(code == 0 && stdout.contains("inspect"), "{shell}");
    }
    for wrong in [&["frob"][..], &["check"], &["man", "frob"], &["check", "--frob", "x"]] {
        let (code, stdout, stderr) = said(wrong);
        assert!(
            code == 2 && stdout.is_empty() && stderr.lines().count() == 1,
            "{wrong:?}: {stderr}"
        );
    }
    // Without a command: all of the help.
    assert_eq!(said(&[]).0, 2);
}

#[test]
fn colour_is_for_terminals() {
    let file = library("colour.so", FOO);
    let with = |variable: &str| {
        let line = format!("{MEMDL} check {}", file.display());
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm");
        let output = command.env_remove("NO_COLOR").env(variable, "1").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(with("ANOTHER").contains("\x1b[32mloads"), "{}", with("ANOTHER"));
    assert!(!with("NO_COLOR").contains('\x1b'));
}
