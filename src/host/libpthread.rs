//! Private symbols of libpthread, which is a library of its own before glibc 2.34.
//!
//! That libpthread exports nothing that leads to its list of threads. The names for debuggers are in its
//! `.symtab`, which distributions keep for `libthread_db`. It is not mapped, so the file is read. The file may
//! have been replaced since the process started: it counts only if it has the build-id of what is mapped.
//!
//! Gives addresses, and reads nothing there.
//!
//! Source: glibc 2.31 `nptl_db/structs.def` (`DB_SYMBOL`), `nptl_db/td_symbol_list.c`.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use crate::base::fallible::try_zeroed;
use crate::elf::static_symbols::{StaticSymbols, notes};
use crate::host::library::HostLibrary;

/// The largest file that is read. Versions with all symbols are smaller than 200 KiB.
const MAX_FILE: u64 = 16 << 20;

/// The addresses of these symbols in this process.
pub(super) fn addresses<const N: usize>(names: [&[u8]; N]) -> io::Result<[usize; N]> {
    let library = HostLibrary::loaded(c"libpthread.so.0").map_err(|_| no_memory())?;
    let library = library.ok_or_else(|| refused("libpthread.so.0 is not loaded"))?;
    let file = read(OsStr::from_bytes(library.name.to_bytes()))?;
    if !notes(&file).any(|(at, note)| is_build_id(note) && library.has_bytes(at, note)) {
        return Err(refused("its file is another one by now, or has no build-id"));
    }
    let symbols = StaticSymbols::of_file(&file);
    let symbols = symbols.ok_or_else(|| refused("its file has no .symtab"))?;
    let mut addresses = [0; N];
    for (address, name) in addresses.iter_mut().zip(names) {
        let stated = symbols.address(name);
        *address = library.address(stated.ok_or_else(|| refused("its file does not name it"))?);
    }
    Ok(addresses)
}

fn read(path: &OsStr) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    if len > MAX_FILE {
        return Err(refused("its file is too large"));
    }
    let mut bytes = try_zeroed(len as usize).map_err(|_| no_memory())?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Whether notes have one of GNU's build-ids: its type, 3, and its name.
fn is_build_id(notes: &[u8]) -> bool {
    notes.windows(8).any(|it| it == b"\x03\0\0\0GNU\0")
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

fn no_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}
