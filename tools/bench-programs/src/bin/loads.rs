//! Loads a library from its bytes many times, for tools that count or sample.
//!
//! ```console
//! $ perf record target/release/loads load libfoo.so 10000
//! $ valgrind --tool=callgrind target/release/loads instantiate libfoo.so 100
//! ```
//!
//! Each load is followed by an unload. The ways: `load`, `load_full` (with debug information),
//! `load_buffer`, `instantiate`.

use std::error::Error;

use memdl::{DebugLevel, ImageBuffer, Loader};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, path, count] = &arguments[..] else {
        return Err("usage: loads load|load_full|load_buffer|instantiate LIBRARY COUNT".into());
    };
    let (bytes, count) = (std::fs::read(path)?, count.parse::<u64>()?);
    let loader = Loader::new().debug(DebugLevel::Off).system_libraries(true);
    let full = loader.clone().debug(DebugLevel::Full);
    // SAFETY: whoever runs this named the library, and so trusts it and what it needs.
    let template = unsafe { loader.prepare(&bytes)? };
    for _ in 0..count {
        // SAFETY: whoever runs this named the library, and so trusts its constructors.
        let library = unsafe {
            match &**way {
                "load" => loader.load(&bytes)?,
                "load_full" => full.load(&bytes)?,
                "load_buffer" => {
                    let mut buffer = ImageBuffer::new(bytes.len())?;
                    buffer.copy_from_slice(&bytes);
                    loader.load_buffer(buffer)?
                }
                "instantiate" => template.instantiate()?,
                other => return Err(format!("{other} is no way to load").into()),
            }
        };
        library.close()?;
    }
    Ok(())
}
