//! Many instances of one library in a process, to be looked at with a debugger.
//!
//! ```console
//! $ gdb -ex 'break foo' --args target/release/fleet 100
//! ```
//!
//! Loads N instances (default 100) of `testlibs/fleet.c`, or of the library named behind N, calls `foo`
//! in each, unloads them all, and prints how long each of the three took, per instance. With `all` as
//! the last argument debuggers are told all of each of them, however many
//! (`Limits::instances_in_full`).

use std::error::Error;
use std::ffi::c_int;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use memdl::{Library, Limits, Loader};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut limits = Limits::default();
    if arguments.pop_if(|last| last == "all").is_some() {
        limits.instances_in_full = u64::MAX;
    }
    let mut arguments = arguments.into_iter();
    let count: usize = arguments.next().map_or(Ok(100), |count| count.parse())?;
    let bytes = match arguments.next() {
        Some(path) => std::fs::read(path)?,
        None => compiled()?,
    };
    let loader = Loader::new().name("fleet").system_libraries(true).limits(limits);
    // SAFETY: whoever runs this named the library, and so trusts it and what it needs.
    let template = unsafe { loader.prepare(&bytes)? };

    let start = Instant::now();
    let mut fleet: Vec<Library> = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: whoever runs this named the library, and so trusts its constructors.
        fleet.push(unsafe { template.instantiate()? });
    }
    let loaded = start.elapsed();

    let start = Instant::now();
    for library in &fleet {
        // SAFETY: the library is one that has such a function.
        unsafe {
            let function = library.get::<unsafe extern "C" fn(c_int) -> c_int>("foo")?;
            function(1);
        }
    }
    let called = start.elapsed();

    let start = Instant::now();
    drop(fleet);
    let unloaded = start.elapsed();
    let each = |took: Duration| took / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    println!(
        "[fleet] {count} instances, each: load {:?}, call {:?}, unload {:?}",
        each(loaded),
        each(called),
        each(unloaded)
    );
    Ok(())
}

/// `testlibs/fleet.c`.
fn compiled() -> Result<Vec<u8>, Box<dyn Error>> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testlibs/fleet.c");
    let library = std::env::temp_dir().join(format!("memdl-fleet-{}.so", std::process::id()));
    let flags = ["-shared", "-fPIC", "-g", "-o"];
    let done = Command::new("cc").args(flags).arg(&library).arg(Path::new(source)).status()?;
    if !done.success() {
        return Err("cc failed".into());
    }
    let bytes = std::fs::read(&library)?;
    std::fs::remove_file(&library)?;
    Ok(bytes)
}
