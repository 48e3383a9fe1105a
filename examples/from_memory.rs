//! The story in one command: a shared library is compiled, read into memory, loaded from those
//! bytes, called and unloaded. No descriptor and no path of it is left for anyone to open.
//!
//! ```text
//! cargo run --release --example from_memory
//! cargo run --release --example from_memory -- --wait
//! cargo run --release --example from_memory -- path/to/any.so symbol 1 2 3
//! ```

use std::env;
use std::error::Error;
use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use memdl::Library;

/// What `--wait` and no arguments load.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testlibs/foo.c");
/// The most arguments that are passed in registers to a C function of ints.
const MOST_ARGUMENTS: usize = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => call(&compile_foo()?, "foo", &[42]),
        [flag] if flag == "--wait" => wait(&compile_foo()?),
        [path, symbol, numbers @ ..] if numbers.len() <= MOST_ARGUMENTS => {
            let numbers = numbers.iter().map(|number| number.parse());
            call(&fs::read(path)?, symbol, &numbers.collect::<Result<Vec<c_int>, _>>()?)
        }
        _ => Err(format!(
            "usage: from_memory [--wait | LIBRARY SYMBOL [up to {MOST_ARGUMENTS} INTEGERS]]"
        )
        .into()),
    }
}

/// Compiles `testlibs/foo.c`, and gives its bytes; no file is left behind.
fn compile_foo() -> Result<Vec<u8>, Box<dyn Error>> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let output: PathBuf = env::temp_dir().join(format!("memdl-foo-{}.so", process::id()));
    let status = Command::new(&compiler)
        .args(["-g", "-O0", "-fPIC", "-shared", "-Wl,-soname,libfoo.so", "-o"])
        .args([output.as_path(), Path::new(SOURCE)])
        .status()
        .map_err(|error| format!("cannot run the C compiler `{compiler}`: {error}"))?;
    if !status.success() {
        return Err(format!("`{compiler}` failed on {SOURCE}").into());
    }
    let bytes = fs::read(&output)?;
    fs::remove_file(&output)?;
    println!("compiled {SOURCE}: {} bytes, now only in memory", bytes.len());
    Ok(bytes)
}

/// Loads a library, calls one function of it and unloads it.
fn call(bytes: &[u8], symbol: &str, numbers: &[c_int]) -> Result<(), Box<dyn Error>> {
    // SAFETY: whoever runs this example named the library, and so trusts its constructors.
    let library = unsafe { memdl::Loader::new().load(bytes)? };
    println!("loaded `{}` at {:#x}", library.name(), library.address_range().start);
    let result = call_with(&library, symbol, numbers)?;
    println!("{symbol}({}) = {result}", join(numbers));
    library.close()?;
    println!("unloaded");
    Ok(())
}

/// Calls `int symbol(int...)`.
fn call_with(library: &Library, symbol: &str, numbers: &[c_int]) -> Result<c_int, memdl::Error> {
    type Function = unsafe extern "C" fn(c_int, c_int, c_int, c_int, c_int, c_int) -> c_int;
    let mut all = [0; MOST_ARGUMENTS];
    all[..numbers.len()].copy_from_slice(numbers);
    let [a, b, c, d, e, f] = all;
    // SAFETY: whoever runs this example says that the symbol is a function of ints. Six of them
    // travel in registers, and a C function ignores those that it has no parameter for.
    Ok(unsafe { library.get::<Function>(symbol)?(a, b, c, d, e, f) })
}

fn join(numbers: &[c_int]) -> String {
    numbers.iter().map(c_int::to_string).collect::<Vec<_>>().join(", ")
}

/// Calls `foo` once a second, to be attached to.
fn wait(bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    // SAFETY: foo.c has no constructors of its own.
    let library = unsafe { Library::from_bytes(bytes)? };
    let pid = process::id();
    println!(
        "this is process {pid}; in another terminal: gdb -p {pid} -ex 'break foo' -ex continue"
    );
    for number in 1.. {
        call_with(&library, "foo", &[number])?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
