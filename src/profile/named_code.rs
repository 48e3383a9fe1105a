//! A function of an instance, in the form that the files for profilers need. It is not written here.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use std::io;
use std::ops::Range;

use crate::debug::lines::Line;

/// A function of an instance.
pub(super) struct NamedCode<'a> {
    pub(super) addresses: Range<usize>,
    /// Its linkage name, without control characters.
    pub(super) name: String,
    /// Empty where code cannot be read.
    pub(super) code: &'a [u8],
    /// Its lines, by run-time addresses, ascending. Empty unless a jitdump is written.
    pub(super) lines: Vec<(usize, Line)>,
}

/// The error of a file for which there was no memory.
pub(super) fn no_memory(_: impl Into<Error>) -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}
