//! The input of the builder: an image as plain values.
//!
//! The caller of the builder fills in a [`Source`]; the builder asks the process for nothing. It never
//! interprets a section header.
//!
//! Source: gABI chapter 5, "Program Header".

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::Vaddr;
pub use crate::base::read::ReadAt;

/// What a symfile is made from.
pub struct Source<'a> {
    /// The file with its section headers and debug sections, if there is one: the image as received, or the
    /// file that was split off it.
    pub file: Option<&'a [u8]>,
    /// The image's memory, from the file or from its mapping.
    pub memory: &'a dyn ReadAt,
    /// Its `PT_LOAD`s, ascending.
    pub segments: &'a [SourceSegment],
    /// Its `.eh_frame`, with its terminator. It is called only if no
    /// section header states it, since finding its end reads all of it.
    pub eh_frame: &'a dyn Fn() -> Option<Range<Vaddr>>,
    /// The size of a thread's block of its thread-local variables; 0 if it has none.
    pub tls_size: u64,
    /// Of the machine, for an image without a file.
    pub e_machine: u16,
    /// Calls a function with each symbol of the dynamic symbol table. It is called only if no section header
    /// states a symbol table.
    pub dynamic_symbols: &'a DynamicSymbols<'a>,
    pub policy: Policy,
}

/// How the process and its operator want a symfile to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Debuggers see the build-id of an image that has no debug information, and so may find its debug file
    /// by themselves.
    pub publishes_build_id: bool,
    /// A debugger is attached.
    pub debugger_listens: bool,
}

/// Calls a function with each symbol of a table.
pub type DynamicSymbols<'a> = dyn Fn(&mut dyn FnMut(DynamicSymbol<'_>)) + 'a;

/// A `PT_LOAD` as the image states it; nothing is rounded to pages.
#[derive(Clone, Debug)]
pub struct SourceSegment {
    /// `p_vaddr` and `p_memsz`.
    pub addresses: Range<Vaddr>,
    /// `PF_X`.
    pub executable: bool,
    /// `PF_W`.
    pub writable: bool,
}

/// A symbol of the dynamic symbol table.
#[derive(Clone, Copy, Debug)]
pub struct DynamicSymbol<'a> {
    pub name: &'a [u8],
    pub st_value: u64,
    pub st_size: u64,
    pub st_info: u8,
    pub st_other: u8,
    pub st_shndx: u16,
}

impl<'a> Source<'a> {
    /// How many bytes the symfile is made from. Its size is limited by a multiple of this.
    pub fn len(&self) -> usize {
        let in_memory = |segment: &SourceSegment| {
            segment.addresses.end.checked_sub(segment.addresses.start).unwrap_or_default()
        };
        let memory = self.segments.iter().map(in_memory).fold(0, u64::saturating_add);
        self.file.map_or(memory as usize, <[u8]>::len)
    }

    /// The last segment that starts at or before `address`, if it contains the address.
    fn segment_at(&self, address: Vaddr) -> Option<&'a SourceSegment> {
        let after = self.segments.partition_point(|segment| segment.addresses.start <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (address <= segment.addresses.end).then_some(segment)
    }

    /// Whether the range lies in one segment.
    pub(super) fn has(&self, range: &Range<Vaddr>) -> bool {
        self.segment_at(range.start).is_some_and(|segment| range.end <= segment.addresses.end)
    }

    /// The bytes of the image at the range.
    pub(super) fn contents(&self, range: &Range<Vaddr>) -> Option<&'a [u8]> {
        self.memory.read(range.clone())
    }
}
