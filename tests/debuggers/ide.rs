//! Debuggers as development environments drive them: gdb's machine interface as Visual Studio Code uses it, and
//! the Debug Adapter Protocol of gdb (since 14) and of lldb. Each session loads the library, unloads it, and
//! loads it again, and is compared with the same session by `dlopen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::repository;
use crate::harness::dialogue::{Adapter, Mi};
use crate::harness::gdb;
use crate::harness::host::Loader;
use crate::harness::libraries::{library, mark, steps};

tests! { pub fn tests:
    breakpoints_are_hit_in_each_load_by_gdb_mi
    breakpoints_are_hit_in_each_load_by_gdbs_debug_adapter
    breakpoints_are_hit_in_each_load_by_lldb_dap
}

/// The source of the library, and a line of it.
fn place(name: &str) -> (String, u64) {
    let (_, line) =
        mark("clib.c", name).rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    (repository("testlibs/debug/clib.c").to_str().unwrap().to_owned(), line.parse().unwrap())
}

/// Twice the same library; `how` is a debug level, or empty.
fn reloads(how: &str) -> Vec<String> {
    let library = library("gcc", "clib.c", &["-g", "-O0"]);
    let load = format!("load a {} {how}", library.display());
    let load = load.trim_end();
    steps(&[load, "call a entry 3", "unload a", "pause", load, "call a entry 2", "unload a"])
}

fn breakpoints_are_hit_in_each_load_by_gdb_mi() {
    let [dlopen, memdl] = [Loader::Dlopen, Loader::Memdl].map(mi_session);
    assert_eq!(dlopen, memdl);
    let stops: Vec<_> = memdl.iter().filter(|line| line.starts_with("stop")).collect();
    let leaf = "stop breakpoint-hit leaf";
    let (_, entry) = place("entry");
    let entry = format!("stop breakpoint-hit entry {entry}");
    // Of the two calls, the second with a condition.
    assert!(stops.iter().filter(|stop| stop.starts_with(leaf)).count() == 2, "{memdl:#?}");
    assert!(stops.iter().filter(|stop| ***stop == entry).count() == 2, "{memdl:#?}");
}

/// What a session says, but for addresses and numbers.
fn mi_session(loader: Loader) -> Vec<String> {
    let mut said = vec![];
    let mut mi = Mi::of_host(&gdb(), &reloads(""), loader);
    let (source, line) = place("entry");
    // Before the load.
    mi.ask(&format!("-break-insert -f {source}:{line}"));
    mi.ask("-break-insert -f -c \"a == 1\" leaf");
    said.push(mi_stop(&mi.run("-exec-run")));
    said.push(field(&mi.ask("-stack-list-frames 0 0"), "func"));
    said.push(mi.ask("-stack-list-variables --simple-values").replace("\\n", ""));
    said.push(mi_stop(&mi.run("-exec-continue")));
    said.push(mi.ask("-stack-list-arguments 1 0 0"));
    said.push(field(&mi.ask("-stack-info-frame"), "line"));
    said.push(mi.ask("-data-evaluate-expression a+b"));
    said.push(mi_stop(&mi.run("-exec-next")));
    said.push(mi_stop(&mi.run("-exec-finish")));
    // While the library is there: these must be hit in the second load.
    mi.ask("-break-delete");
    mi.ask(&format!("-break-insert {source}:{line}"));
    mi.ask("-break-insert -c \"a == 1 && b == 2\" leaf");
    said.push(mi_stop(&mi.run("-exec-continue")));
    said.push(mi.ask("-stack-list-arguments 1 0 0"));
    said.push(mi_stop(&mi.run("-exec-continue")));
    said.push(mi.ask("-stack-list-arguments 1 0 0"));
    said.push(mi_stop(&mi.run("-exec-continue")));
    said
}

/// Why, in which function and line a program stopped.
fn mi_stop(record: &str) -> String {
    let [reason, function, line] = ["reason", "func", "line"].map(|name| field(record, name));
    format!("stop {reason} {function} {line}").trim_end().to_owned()
}

/// The value of a field of a record, or nothing.
fn field(record: &str, name: &str) -> String {
    let value = record.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
    value.map(|(value, _)| value.to_owned()).unwrap_or_default()
}

fn breakpoints_are_hit_in_each_load_by_gdbs_debug_adapter() {
    let gdbs: Vec<PathBuf> = unpacked("gdb-").filter(|gdb| has_adapter(gdb)).collect();
    assert!(!gdbs.is_empty(), "no gdb with a debug adapter; `sh tests/setup.sh` unpacks one");
    for gdb in gdbs {
        let command = || {
            let mut command = Command::new(&gdb);
            command.args(["-nx", "-q", "-iex", "set startup-with-shell off", "-i=dap"]);
            command
        };
        assert_dap_sessions(&gdb, command, "", &json!({}));
    }
}

fn breakpoints_are_hit_in_each_load_by_lldb_dap() {
    let lldb = unpacked("lldb-dap-19").next();
    let lldb = lldb.expect("no lldb-dap-19; `sh tests/setup.sh` unpacks it");
    let settings = [
        "settings set target.unset-env-vars LLDB_DEBUGSERVER_PATH PYTHONHOME PYTHONPATH",
        "settings set target.disable-aslr false",
        "settings set target.load-script-from-symbol-file false",
        "settings set symbols.enable-external-lookup false",
    ];
    let command = || Command::new(&lldb);
    assert_dap_sessions(&lldb, command, "portable", &json!({"initCommands": settings}));
}

/// The unpacked debuggers whose commands begin so.
fn unpacked(prefix: &str) -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("debuggers");
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().path());
    names.filter(move |path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
}

/// Since version 14, unless it is a build without Python.
fn has_adapter(gdb: &Path) -> bool {
    let name = gdb.file_name().unwrap().to_string_lossy().into_owned();
    let version = name.strip_prefix("gdb-").and_then(|version| version.split('.').next());
    let version = version.and_then(|number| number.parse::<u32>().ok());
    version.is_some_and(|version| version >= 14 && version != 17)
}

fn assert_dap_sessions(debugger: &Path, command: impl Fn() -> Command, how: &str, launch: &Value) {
    let session = |loader| dap_session(command(), &reloads(how), loader, launch);
    let [dlopen, memdl] = [Loader::Dlopen, Loader::Memdl].map(session);
    // lldb loses the breakpoints in the second `dlopen`.
    let same = dlopen.len() - usize::from(dlopen.len() < memdl.len());
    assert_eq!(dlopen[..same], memdl[..same], "{}", debugger.display());
    let (_, line) = place("entry");
    let entry = format!("stop breakpoint entry {line}");
    assert_eq!(memdl.iter().filter(|said| **said == entry).count(), 2, "{memdl:#?}");
    let leaf = memdl.iter().filter(|said| said.starts_with("stop breakpoint leaf ")).count();
    assert_eq!(leaf, 3, "{memdl:#?}");
}

fn dap_session(command: Command, steps: &[String], loader: Loader, launch: &Value) -> Vec<String> {
    let mut said = vec![];
    let mut dap = Adapter::of_host(command, steps, loader, launch.clone());
    let (source, line) = place("entry");
    let source = json!({"name": "clib.c", "path": source});
    let by_line = json!({"source": source, "breakpoints": [{"line": line}]});
    // Before the load.
    dap.ask("setBreakpoints", by_line.clone());
    let by_name = json!({"breakpoints": [{"name": "leaf"}]});
    dap.ask("setFunctionBreakpoints", by_name);
    dap.ask("setExceptionBreakpoints", json!({"filters": []}));
    dap.ask("configurationDone", json!({}));
    let thread = dap_stop(&mut dap, &mut said);
    dap.ask("continue", json!({"threadId": thread}));
    dap_stop(&mut dap, &mut said);
    let frames = dap.ask("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 3}));
    let frames = frames["stackFrames"].as_array().unwrap().clone();
    said.push(
        frames.iter().map(|frame| frame["name"].as_str().unwrap()).collect::<Vec<_>>().join(" "),
    );
    said.extend(variables(&mut dap, &frames[0]));
    let sum = json!({"expression": "a+b", "frameId": frames[0]["id"], "context": "watch"});
    said.push(dap.ask("evaluate", sum)["result"].to_string());
    dap.ask("next", json!({"threadId": thread}));
    dap_stop(&mut dap, &mut said);
    // While the library is there: these must be hit in the second load.
    dap.ask("setBreakpoints", json!({"source": source, "breakpoints": []}));
    let set = dap.ask("setBreakpoints", by_line);
    said.push(format!("verified {}", set["breakpoints"][0]["verified"]));
    let by_name = json!({"breakpoints": [{"name": "leaf", "condition": "a == 1 && b == 2"}]});
    dap.ask("setFunctionBreakpoints", by_name);
    for _ in 0..3 {
        dap.ask("continue", json!({"threadId": thread}));
        if dap_stop(&mut dap, &mut said) == 0 {
            break;
        }
    }
    said
}

/// Waits until the program stops or ends, and notes where. The thread that stopped, or 0.
fn dap_stop(dap: &mut Adapter, said: &mut Vec<String>) -> u64 {
    let event = dap.await_event(&["stopped", "terminated", "exited"]);
    if event["event"] != "stopped" {
        said.push("end".to_owned());
        return 0;
    }
    let thread = event["body"]["threadId"].as_u64().unwrap();
    let top = dap.ask("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 1}));
    let frame = &top["stackFrames"][0];
    let reason = event["body"]["reason"].as_str().unwrap();
    // lldb knows a kind of its own.
    let reason = reason.replace("function ", "");
    said.push(format!("stop {reason} {} {}", frame["name"].as_str().unwrap(), frame["line"]));
    thread
}

/// The arguments and locals of a frame.
fn variables(dap: &mut Adapter, frame: &Value) -> Vec<String> {
    let scopes = dap.ask("scopes", json!({"frameId": frame["id"]}));
    let is_shown =
        |scope: &&Value| ["Arguments", "Locals"].iter().any(|name| scope["name"] == *name);
    let mut said = vec![];
    for scope in scopes["scopes"].as_array().unwrap().iter().filter(is_shown) {
        let reference = json!({"variablesReference": scope["variablesReference"]});
        let list = dap.ask("variables", reference);
        for variable in list["variables"].as_array().unwrap() {
            if ["a", "b"].iter().any(|name| variable["name"] == *name) {
                said.push(format!("{} = {}", variable["name"], variable["value"]));
            }
        }
    }
    said
}
