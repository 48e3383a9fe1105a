//! Loads a library from its bytes once, in a process in which memdl has done nothing yet, for tools that count
//! or sample. Prints the page faults and the nanoseconds of the load.
//!
//! ```console
//! $ valgrind --tool=callgrind --toggle-collect=measured target/release/first load libfoo.so
//! ```
//!
//! The ways: `load`, `load_full` (with debug information), `load_buffer` (the buffer and the load of it; the copy
//! into it is not measured), `instantiate` (the template and one instance of it), `dlopen` (of the file).

use std::error::Error;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use memdl::{DebugLevel, ImageBuffer, Loader};

/// What is counted. Valgrind finds it by its name.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured(act: &mut dyn FnMut()) {
    act();
}

/// The page faults of this process so far.
fn page_faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call fills the structure.
    unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init().ru_minflt
    }
}

/// Does `act`, and prints what it took.
fn measure(act: &mut dyn FnMut()) {
    // The code of these is there before.
    let (mut faults, mut start) = (page_faults(), Instant::now());
    for _ in 0..2 {
        faults = page_faults();
        start = Instant::now();
    }
    measured(act);
    let took = start.elapsed();
    println!("{} page faults, {} ns", page_faults() - faults, took.as_nanos());
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [way, path] = &arguments[..] else {
        return Err("usage: first load|load_full|load_buffer|instantiate|dlopen LIBRARY".into());
    };
    let bytes = std::fs::read(path)?;
    let loader = Loader::new().debug(DebugLevel::Off).system_libraries(true);
    let mut result = None;
    match way.to_str().unwrap_or_default() {
        "load" | "load_full" => {
            let full = loader.clone().debug(DebugLevel::Full);
            let loader = if way == "load" { loader } else { full };
            // SAFETY: whoever runs this named the library, and so trusts its constructors.
            measure(&mut || result = Some(unsafe { loader.load(&bytes) }));
        }
        "load_buffer" => {
            let mut buffer = None;
            measure(&mut || buffer = Some(ImageBuffer::new(bytes.len())));
            let mut buffer = buffer.ok_or("not called")??;
            buffer.copy_from_slice(&bytes);
            let mut buffer = Some(buffer);
            // SAFETY: as above.
            measure(&mut || result = buffer.take().map(|it| unsafe { loader.load_buffer(it) }));
        }
        "instantiate" => measure(&mut || {
            // SAFETY: as above.
            result = Some(unsafe { loader.prepare(&bytes).and_then(|it| it.instantiate()) });
        }),
        "dlopen" => {
            let path = CString::new(path.as_bytes())?;
            let mut handle = std::ptr::null_mut();
            // SAFETY: as above.
            measure(&mut || handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) });
            assert!(!handle.is_null());
        }
        other => return Err(format!("{other} is no way to load").into()),
    }
    if let Some(result) = result {
        result?.close()?;
    }
    Ok(())
}
