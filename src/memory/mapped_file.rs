//! Files that are mapped: to be read without reading all of them, and as a marker for perf.
//!
//! Never writes to a file.
//!
//! Source: `mmap(2)`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use crate::memory::reservation::Reservation;

/// A library's file, to be read in part. If another process truncates it meanwhile, this process gets
/// `SIGBUS`, as it does with `ld.so`.
pub(crate) struct MappedFile {
    memory: Reservation,
}

impl MappedFile {
    /// The file at this path.
    pub(crate) fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        Ok(MappedFile { memory: Reservation::of_file(&file, len, libc::PROT_READ)? })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: all of the mapping, which `self` owns and this process does not write to. It is a
        // library of the system, whose file is not changed in place: that would change every process
        // that runs it.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.memory.len()) }
    }
}

/// An executable mapping of a file's first page. Nothing reads it: the kernel reports it to perf, which so
/// finds the file.
pub(crate) struct ExecutableMarker {
    _memory: Reservation,
}

impl ExecutableMarker {
    pub(crate) fn new(file: &File) -> io::Result<ExecutableMarker> {
        let access = libc::PROT_READ | libc::PROT_EXEC;
        let memory = Reservation::of_file(file, region::page::size(), access)?;
        Ok(ExecutableMarker { _memory: memory })
    }
}
