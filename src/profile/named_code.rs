//! A function of an image as profilers are to see it.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;

use crate::base::error::Error;
use crate::debug::lines::Line;

/// A function of an image in place.
pub(super) struct NamedCode<'a> {
    pub(super) addresses: Range<usize>,
    /// As linkage has it; without control characters.
    pub(super) name: String,
    /// Empty where code cannot be read.
    pub(super) code: &'a [u8],
    /// Its lines, by run-time addresses; ascending. Empty where nobody asks.
    pub(super) lines: Vec<(usize, Line)>,
}

/// What has become of a file that there was no memory for.
pub(super) fn no_memory(_: Error) -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}
