//! Loads a library many times that imports from libraries which are open, for tools that count.
//!
//! ```console
//! $ valgrind --tool=callgrind target/release/imports memdl libimports.so 10 libone.so libtwo.so
//! ```
//!
//! With memdl or with `dlopen`. Each load is followed by an unload; the libraries that are named last stay open.

use std::error::Error;
use std::ffi::{CStr, CString, c_int, c_void};

use memdl::{DebugLevel, Loader};

fn open(path: &str) -> Result<*mut c_void, Box<dyn Error>> {
    const FLAGS: c_int = libc::RTLD_NOW | libc::RTLD_LOCAL;
    let path = CString::new(path)?;
    // SAFETY: a C string; whoever runs this named the library, and so trusts it and what it needs.
    let handle = unsafe { libc::dlopen(path.as_ptr(), FLAGS) };
    if handle.is_null() {
        // SAFETY: a call of this thread has just failed, so there is a text.
        let text = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(text.to_string_lossy().into());
    }
    Ok(handle)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [by, library, count, needed @ ..] = &arguments[..] else {
        return Err("usage: imports memdl|dlopen LIBRARY COUNT NEEDED..".into());
    };
    for path in needed {
        open(path)?;
    }
    let bytes = std::fs::read(library)?;
    let loader = Loader::new().debug(DebugLevel::Off).system_libraries(true);
    for _ in 0..count.parse::<u64>()? {
        if by == "memdl" {
            // SAFETY: as above.
            unsafe { loader.load(&bytes)? }.close()?;
        } else {
            // SAFETY: an open handle, closed once.
            unsafe { libc::dlclose(open(library)?) };
        }
    }
    Ok(())
}
