//! A warning where debuggers cannot find images at all: the object that memdl is linked into has been stripped
//! of the two symbols that [`super::gdb_jit`] describes.
//!
//! It is looked at once in a process, with the first instance that debuggers should see while somebody listens
//! to the log. Only the head of the object's file is read, a few microseconds; where that does not tell, nothing
//! is logged.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memmem;

use super::separate;
use crate::base::fallible::{has_spare_memory, try_zeroed};
use crate::host::library::HostLibrary;

const SYMBOLS: [&[u8]; 2] = [b"__jit_debug_register_code", b"__jit_debug_descriptor"];

/// Logs the warning, if there is reason for it, and the first time. No lock is held.
#[inline]
pub(super) fn warn_once() {
    static IS_CHECKED: AtomicBool = AtomicBool::new(false);
    if !IS_CHECKED.load(Ordering::Relaxed)
        && log::log_enabled!(log::Level::Warn)
        && !IS_CHECKED.swap(true, Ordering::Relaxed)
    {
        warn();
    }
}

#[cold]
fn warn() {
    if !has_spare_memory() {
        return;
    }
    let Ok(Some(library)) = HostLibrary::of_this_code() else { return };
    if SYMBOLS.iter().all(|name| library.exports(name)) {
        return;
    }
    let path = match library.is_executable() {
        true => Path::new("/proc/self/exe"),
        false => Path::new(OsStr::from_bytes(library.path().to_bytes())),
    };
    if File::open(path).is_ok_and(|file| has_symbols(&file) == Some(false)) {
        let shown = path.read_link().unwrap_or_else(|_| path.to_owned());
        logged!(
            warn,
            "debuggers cannot see images: __jit_debug_descriptor and __jit_debug_register_code were stripped \
             from {}. Strip it with `-K __jit_debug_descriptor -K __jit_debug_register_code`, or with `-g` \
             only (Cargo: strip = \"debuginfo\"), or build memdl with the feature exported-debug-symbols and \
             link with -rdynamic",
            shown.display()
        );
    }
}

/// Whether the symbol table of this file, or of its installed debug file, has the pair. `None` if it cannot be
/// read.
fn has_symbols(file: &File) -> Option<bool> {
    /// A table of names that is longer is not read: a file that has so many names was not stripped.
    const MAX_NAMES: usize = 1 << 18;
    let read = |offset: u64, len: usize| {
        let mut bytes = try_zeroed(len).ok()?;
        file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
    };
    // gABI: `e_shoff`, `e_shnum`.
    let header = read(0, 64)?;
    let count = u16::from_le_bytes(*header.get(60..)?.first_chunk()?);
    let headers = read(word(&header, 40)?, usize::from(count).checked_mul(SectionHeader::LEN)?)?;
    let sections = || headers.chunks_exact(SectionHeader::LEN).filter_map(SectionHeader::new);
    if let Some(table) = sections().find(|it| it.kind == SectionHeader::SYMTAB) {
        let names = sections().nth(table.link as usize)?;
        let len = usize::try_from(names.len).ok()?;
        if len > MAX_NAMES {
            return Some(true);
        }
        let names = read(names.offset, len)?;
        return Some(SYMBOLS.iter().all(|name| memmem::find(&names, name).is_some()));
    }
    let notes = sections().filter(|it| it.kind == SectionHeader::NOTE);
    let notes = notes.filter_map(|it| read(it.offset, usize::try_from(it.len).ok()?));
    let notes: Vec<Vec<u8>> = notes.take(8).collect();
    Some(separate::is_installed(notes.iter().map(Vec::as_slice)))
}

/// What counts of a section header.
struct SectionHeader {
    kind: u32,
    offset: u64,
    len: u64,
    link: u32,
}

impl SectionHeader {
    const LEN: usize = 64;
    /// `SHT_SYMTAB`.
    const SYMTAB: u32 = 2;
    /// `SHT_NOTE`.
    const NOTE: u32 = 7;

    fn new(header: &[u8]) -> Option<SectionHeader> {
        let half = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
        Some(SectionHeader {
            kind: half(4)?,
            offset: word(header, 24)?,
            len: word(header, 32)?,
            link: half(40)?,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_symbols_is_told_from_one_without() {
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(has_symbols(&own), Some(true));
        // Not an ELF file, and shorter than a header.
        let text = File::open("/proc/self/comm").unwrap();
        assert_eq!(has_symbols(&text), None);
    }
}
