//! What may be spent on the debug information of one image. [`crate::dwarf::budget`] spends it.

#![forbid(unsafe_code)]

/// What may be spent on the debug information of one image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Total size of the compressed debug sections when they are unpacked, in bytes. Small files have a smaller limit.
    /// Default 1 GiB.
    pub unpacked_debug_info: u64,
    /// Steps to read the debug information: an entry, an attribute, a row of a table. Small files have a smaller limit.
    /// Default 1 billion, about 10 s.
    pub debug_info_steps: u64,
}

impl Limits {
    /// Far above what compilers and linkers make.
    #[doc(hidden)]
    pub const DEFAULT: Limits =
        Limits { unpacked_debug_info: 1 << 30, debug_info_steps: 1_000_000_000 };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
