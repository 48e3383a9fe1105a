//! Files that are mapped: to be read without reading all of them, as a marker for perf, and in place of an
//! image's read-only pages.
//!
//! Never writes to a file.
//!
//! Source: `mmap(2)`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::elf::plan::PlannedSegment;
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
        let memory = Reservation::of_file(file, page_size(), access)?;
        Ok(ExecutableMarker { _memory: memory })
    }
}

/// A file with the bytes of an image, from which instances map what they do not write. So programs that look
/// for code in the files of `/proc/PID/maps` find it.
pub(crate) struct ImageFile(File);

impl ImageFile {
    /// Fails where the system lets no code of the file run, as on a file system that is mounted `noexec`.
    pub(crate) fn new(file: File) -> io::Result<ImageFile> {
        ExecutableMarker::new(&file)?;
        Ok(ImageFile(file))
    }

    /// Whether all pages of this segment come from the file.
    pub(super) fn has_pages_of(segment: &PlannedSegment) -> bool {
        let page = page_size();
        let Range { start, end } = segment.file;
        !segment.access.write
            && (segment.access.read || segment.access.execute)
            && start.is_multiple_of(page)
            && end.saturating_sub(start).next_multiple_of(page) == segment.len()
    }

    /// Maps a segment's pages over `target` from `at` on, as they are protected in the end.
    ///
    /// # Safety
    /// The file has the image's bytes, [`ImageFile::has_pages_of`] the segment, and nothing refers to the part of
    /// `target`, which is inside it.
    pub(super) unsafe fn map_over(
        &self,
        segment: &PlannedSegment,
        target: &Reservation,
        at: usize,
    ) -> Result<(), Error> {
        let access = if segment.access.execute { libc::PROT_EXEC } else { 0 } | libc::PROT_READ;
        let part = at..at.saturating_add(segment.len());
        // SAFETY: the caller's promise.
        unsafe { target.map_file_over(part, &self.0, segment.file.start, access) }
            .map_err(|error| Error::system("mmap of an image's file", error))
    }
}
