//! `memdl run`: loads a file and calls one of its functions.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use memdl::{Library, SymbolKind};

use crate::arguments::RunOptions;
use crate::failure::Failure;
use crate::inspect::{loader, read};

/// As many arguments as the psABI passes in registers: a function that takes fewer does not see the rest.
const MOST_ARGUMENTS: usize = 6;

type Int = unsafe extern "C-unwind" fn(i64, i64, i64, i64, i64, i64) -> c_int;
type Long = unsafe extern "C-unwind" fn(i64, i64, i64, i64, i64, i64) -> i64;

pub fn run(options: &RunOptions) -> Result<ExitCode, Failure> {
    if options.arguments.len() > MOST_ARGUMENTS {
        let count = options.arguments.len();
        return Err(Failure::usage(format!("{count} arguments: a function gets at most six")));
    }
    let loader = loader(&options.file, &options.load)?;
    let bytes = read(&options.file)?;
    // SAFETY: to run the file is what the user has typed.
    let library = unsafe { loader.load(&bytes) }.map_err(Failure::refused)?;
    check(&library, &options.symbol)?;
    if options.wait {
        wait();
    }
    let mut arguments = [0; MOST_ARGUMENTS];
    arguments[..options.arguments.len()].copy_from_slice(&options.arguments);
    let [a, b, c, d, e, f] = arguments;
    let refused = |error: memdl::Error| Failure::refused(error);
    let result = match options.long {
        true => {
            // SAFETY: that the function takes integers and returns one is what the user has typed.
            let function = unsafe { library.get::<Long>(options.symbol.as_str()) };
            let function = function.map_err(refused)?;
            // SAFETY: as above.
            unsafe { function(a, b, c, d, e, f) }
        }
        false => {
            // SAFETY: as above.
            let function = unsafe { library.get::<Int>(options.symbol.as_str()) };
            let function = function.map_err(refused)?;
            // SAFETY: as above.
            i64::from(unsafe { function(a, b, c, d, e, f) })
        }
    };
    println!("{result}");
    library.close().map_err(refused)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the symbol can be called.
fn check(library: &Library, name: &str) -> Result<(), Failure> {
    let is_callable = |kind| !matches!(kind, SymbolKind::Object | SymbolKind::ThreadLocal);
    let mut functions = Vec::new();
    for symbol in library.symbols().filter(|symbol| is_callable(symbol.kind())) {
        if symbol.name() == name {
            return Ok(());
        }
        functions.push(symbol.name().escape_debug().to_string());
    }
    let count = functions.len();
    functions.truncate(8);
    let more = if count > functions.len() { ", ..." } else { "" };
    Err(Failure::refused(format!(
        "{} exports no function {name}; it exports {count}: {}{more}",
        library.name().escape_debug(),
        functions.join(", ")
    )))
}

/// Waits until a debugger is there. It stops the process, so the call comes after its `continue`.
fn wait() {
    eprintln!(
        "memdl: process {0} waits for a debugger: gdb -p {0}, then `break FUNCTION`, `continue`",
        std::process::id()
    );
    while !is_traced() {
        thread::sleep(Duration::from_millis(50));
    }
}

fn is_traced() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}
