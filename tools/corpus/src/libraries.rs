//! Finds the shared libraries of a folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use goblin::elf::dynamic::{DF_1_PIE, DT_FLAGS_1, DT_SYMTAB};
use goblin::elf::header::{ELFCLASS64, EM_X86_64, ET_DYN};
use goblin::elf::program_header::PT_DYNAMIC;

use crate::{Options, Result};

/// All shared libraries of a folder, symbolic links aside.
pub fn collect(
    folder: &Path,
    options: &Options,
    recursive: bool,
    found: &mut Vec<PathBuf>,
) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() && recursive {
            collect(&entry.path(), options, recursive, found)?;
        } else if kind.is_file()
            && options
                .only
                .as_deref()
                .is_none_or(|only| entry.file_name().to_string_lossy().contains(only))
            && is_shared_library(&entry.path())
        {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Whether a file is an ELF shared library for this machine: not an executable that says so
/// (`DF_1_PIE`), and not what is left of a library in a file of debug information.
fn is_shared_library(path: &Path) -> bool {
    let mut header = [0; 64];
    let Ok(file) = File::open(path) else { return false };
    if file.read_exact_at(&mut header, 0).is_err() {
        return false;
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if !header.starts_with(b"\x7fELF")
        || header[4] != ELFCLASS64
        || half(16) != ET_DYN
        || half(18) != EM_X86_64
    {
        return false;
    }
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
    };
    // Anywhere in the file: tools that rewrite search paths move it.
    let mut table = vec![0; usize::from(half(56)) * 56];
    if file.read_exact_at(&mut table, word(&header, 32).unwrap_or(0)).is_err() {
        return false;
    }
    let dynamic = table.chunks_exact(56).find(|entry| entry.starts_with(&PT_DYNAMIC.to_le_bytes()));
    let Some((offset, size)) = dynamic.and_then(|entry| Some((word(entry, 8)?, word(entry, 32)?)))
    else {
        return false;
    };
    let mut entries = vec![0; size.min(1 << 16) as usize];
    if file.read_exact_at(&mut entries, offset).is_err() {
        return false;
    }
    let value = |tag| {
        let mut entries = entries.chunks_exact(16);
        entries.find(|entry| word(entry, 0) == Some(tag)).and_then(|entry| word(entry, 8))
    };
    value(DT_SYMTAB).is_some() && value(DT_FLAGS_1).unwrap_or(0) & DF_1_PIE == 0
}
