//! The tool takes a wheel as it takes a folder, and keeps the wheel's layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds a library from a line of C.
fn build(at: &Path, source: &str, flags: &[&str]) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    let file = at.with_extension("c");
    fs::write(&file, source).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-o"]).arg(at).arg(&file).args(flags);
    let output = gcc.output().expect("gcc: `sh tests/setup.sh` installs what tests need");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(file).unwrap();
}

/// Packs folders into a wheel, as every Python can.
fn pack(wheel: &Path, root: &Path, folders: &[&str]) {
    let mut zip = Command::new("python3");
    zip.args(["-m", "zipfile", "-c"]).arg(wheel).args(folders).current_dir(root);
    let output = zip.output().expect("python3: `sh tests/setup.sh` installs what tests need");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

struct Run {
    output: Output,
    json: serde_json::Value,
}

impl Run {
    fn new(folder: &Path, places: &[&Path], more: &[&str]) -> Run {
        let json = folder.join("report.json");
        let mut corpus = Command::new(env!("CARGO_BIN_EXE_corpus"));
        corpus.args(places).arg("--json").arg(&json).args(more).current_dir(folder);
        let output = corpus.output().unwrap();
        let text = fs::read(&json).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Run { output, json: serde_json::from_slice(&text).unwrap() }
    }

    fn row(&self, row: &str) -> u64 {
        let text = String::from_utf8_lossy(&self.output.stdout);
        self.json["table"][row].as_u64().unwrap_or_else(|| panic!("no row {row} in\n{text}"))
    }
}

/// A wheel with an extension module that needs a vendored library, which needs another; only the module
/// says where they are. The module needs a symbol of its host as well.
fn wheel() -> (PathBuf, PathBuf, PathBuf) {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wheel-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let root = folder.join("root");
    let libs = root.join("demo.libs");
    let at = format!("-L{}", libs.display());
    build(&libs.join("libleaf-1a2b.so"), "int leaf(void) { return 40; }", &[]);
    let middle = "int leaf(void); int middle(void) { return leaf() + 1; }";
    build(&libs.join("libmiddle-3c4d.so"), middle, &[&at, "-l:libleaf-1a2b.so"]);
    let module = "int host(void); int middle(void); int (*table[])(void) = { host, middle };";
    let path = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../demo.libs";
    build(&root.join("demo/module.so"), module, &[&at, "-l:libmiddle-3c4d.so", path]);
    let host = folder.join("libhost.so");
    build(&host, "int host(void) { return 1; }", &[]);
    fs::write(root.join("demo/__init__.py"), "raise SystemExit('executed')\n").unwrap();
    let wheel = folder.join("demo-1.0-py3-none-any.whl");
    pack(&wheel, &root, &["demo", "demo.libs"]);
    fs::remove_dir_all(&root).unwrap();
    (folder, wheel, host)
}

#[test]
fn wheels_are_compared_as_folders_are() {
    let (folder, wheel, host) = wheel();
    let with = ["--with", host.to_str().unwrap()];

    let run = Run::new(&folder, &[&wheel], &with);
    let text = String::from_utf8_lossy(&run.output.stdout);
    assert!(run.output.status.success(), "{text}");
    let rows = ["wheels", "with shared libraries", "shared libraries", "only `dlopen`", "neither"];
    assert_eq!(rows.map(|row| run.row(row)), [1, 1, 3, 0, 0], "{text}");
    // libmiddle alone finds nothing; the module hands its search path on.
    assert_eq!(run.row("with its folder as `LD_LIBRARY_PATH`"), 1, "{text}");
    let module = run.json["libraries"].as_array().unwrap().iter();
    let mut module = module.filter(|it| it["path"].as_str().unwrap().ends_with("demo/module.so"));
    let module = module.next().unwrap();
    assert_eq!((&module["dlopen"], &module["memdl"]), (&true.into(), &true.into()));
    assert!(module["words"].as_u64().unwrap() >= 2, "{module}");

    // Without a host, the module is refused by both.
    let run = Run::new(&folder, &[&wheel], &[]);
    assert_eq!(["both", "neither"].map(|row| run.row(row)), [2, 1]);

    // A folder of wheels; kept, so that a second run finds them.
    for _ in 0..2 {
        let more = [with[0], with[1], "--keep", "kept"];
        let run = Run::new(&folder, &[Path::new(".")], &more);
        // libhost.so lies beside the wheel.
        assert_eq!(["wheels", "shared libraries"].map(|row| run.row(row)), [1, 4]);
        assert!(folder.join("kept/unpacked/demo-1.0-py3-none-any/demo.libs").is_dir());
    }

    // What is no wheel is listed, and is a failure.
    let bad = folder.join("bad-1.0-py3-none-any.whl");
    fs::write(&bad, "no archive").unwrap();
    let run = Run::new(&folder, &[&bad, &wheel], &with);
    let text = String::from_utf8_lossy(&run.output.stdout);
    assert_eq!(run.output.status.code(), Some(1), "{text}");
    assert!(text.contains("could not be had") && text.contains("bad-1.0"), "{text}");
    assert_eq!(run.row("wheels"), 1, "{text}");
    fs::remove_dir_all(&folder).unwrap();
}
