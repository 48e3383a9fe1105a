//! What the portable forms of all instances of an image have in common ([`super::portable`] makes and reads it).

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::OnceLock;

use goblin::elf64::section_header::SectionHeader;

use super::storage::Storage;
use crate::dwarf::addresses::Addresses;

/// A file for all instances, made by the first that needs one.
///
/// Each instance has its own headers, symbols, and debug sections with addresses in them. The others, names above all,
/// are shared.
pub(super) struct PortableTemplate<S: Storage> {
    /// A file in which no address of the DWARF is moved yet.
    pub(super) shared: S::Shared,
    pub(super) len: usize,
    /// Where the headers and the symbols end, which come first.
    pub(super) beginning: usize,
    /// The names of all sections.
    pub(super) names: Vec<u8>,
    pub(super) debug: Vec<SharedSection>,
    pub(super) addresses: Addresses,
}

/// A debug section of a [`PortableTemplate`].
pub(super) struct SharedSection {
    pub(super) header: SectionHeader,
    /// Where it is in the file.
    pub(super) place: Range<usize>,
    /// Its index among those that were read for addresses.
    pub(super) read: usize,
    /// Where it comes from: its index among the inner file's sections.
    pub(super) inner: usize,
}

/// Where the instances of an image find it.
pub(super) type PortableCell<S> = OnceLock<PortableTemplate<S>>;
