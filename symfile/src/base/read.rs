//! Reading the bytes of an image by stated address.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::Vaddr;

/// The bytes of an image by stated address: of a file, or of a mapped image.
pub trait ReadAt {
    /// The bytes of `range`; `None` unless all of them lie in the file-backed part of one segment.
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]>;

    /// The bytes from `start` to the end of the file-backed part of its segment.
    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]>;
}
