//! Where things are in a symfile, and what of it depends on where an instance lies.
//!
//! All instances of an image have the same layout. It never holds contents.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf::section_header::{SHF_ALLOC, SHN_LORESERVE, SHN_UNDEF};
use goblin::elf::sym::{STT_TLS, st_type};
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;

use super::error::SymfileError;
use super::headers::{SYMBOL_SIZE, get, put};
use super::inner::Inner;
use super::source::SourceSegment;
use crate::base::addr::{FileOffset, LoadBias, Vaddr};
use crate::base::fallible::TryGrow;
use crate::dwarf::budget::Allowance;
use crate::dwarf::tls_locations::TlsLocation;

/// The most ranges of pages, besides the first, that an instance may have for itself. A symfile with more
/// is copied whole.
const MAX_OWN: usize = 8;

/// Where things are in a symfile, in bytes from its start.
#[derive(Debug)]
pub(super) struct Layout {
    /// The section headers: of those with `SHF_ALLOC`, `sh_addr` moves.
    pub(super) sections: Range<usize>,
    /// The symbols: of those that [`moves`], `st_value` moves.
    pub(super) symbols: Range<usize>,
    /// The names of the sections, in both files.
    pub(super) names: Range<usize>,
    /// The inner file, if there is one: the last section's contents.
    pub(super) inner: Option<Inner>,
    /// The length of the file.
    pub(super) len: usize,
    /// The image's segments, which are not in this file.
    pub(super) segments: Vec<SourceSegment>,
    /// The size of a thread's block of its thread-local variables.
    pub(super) tls_size: u64,
    /// What may be spent on reading the debug sections.
    pub(super) allowance: Allowance,
    pub(super) dwarf: DwarfState,
}

/// The state of the debug sections.
#[derive(Debug)]
pub(super) enum DwarfState {
    /// All of them can be shown.
    Opened,
    /// They must be made ready first. `sections` is how many sections the outer file has from the image,
    /// `thread_locals` comes from `Sections::note_thread_locals`.
    Kept { sections: usize, thread_locals: Option<Vec<u64>> },
    /// They are left out.
    Refused,
}

impl Layout {
    /// The ranges of whole pages that an instance has for itself; `None` if there are too many.
    pub(super) fn own_pages(&self, page: usize) -> Result<Option<Vec<Range<usize>>>, SymfileError> {
        let mut pages: Vec<usize> = Vec::new();
        for (place, len) in self.inner.iter().flat_map(Inner::places) {
            for at in [place, place.saturating_add(len).saturating_sub(1)] {
                let start = at & !page.saturating_sub(1);
                if pages.last() != Some(&start) {
                    pages.try_push(start)?;
                }
            }
        }
        pages.sort_unstable();
        let beginning = self.symbols.end.max(self.sections.end).checked_next_multiple_of(page);
        let mut own: Vec<Range<usize>> = beginning.map(|end| 0..end).into_iter().collect();
        for start in pages {
            let end = start.saturating_add(page);
            let count = own.len();
            match own.last_mut() {
                Some(last) if start < last.end => {}
                Some(last) if start == last.end => last.end = end,
                _ if count > MAX_OWN => return Ok(None),
                _ => own.push(start..end),
            }
        }
        Ok(Some(own))
    }

    /// The locations of thread-local variables in the debug section of this index.
    pub(super) fn thread_locals_of(&self, section: usize) -> &[TlsLocation] {
        self.inner.as_ref().map_or(&[], |inner| inner.thread_locals_of(section))
    }

    pub(super) fn is_to_be_opened(&self) -> bool {
        matches!(self.dwarf, DwarfState::Kept { .. })
    }

    pub(super) fn malformed(&self) -> SymfileError {
        let start = self.inner.as_ref().map_or(0, |inner| inner.start);
        SymfileError::Malformed { what: "symfile", at: FileOffset(start as u64) }
    }
}

/// Moves the section, if it is loaded. Returns whether it is.
pub(super) fn move_section(section: &mut SectionHeader, load_bias: LoadBias) -> bool {
    let is_loaded = section.sh_flags & u64::from(SHF_ALLOC) != 0;
    if is_loaded {
        section.sh_addr = load_bias.apply(Vaddr(section.sh_addr)) as u64;
    }
    is_loaded
}

/// Moves the symbols of a table, those that [`moves`].
pub(super) fn move_symbols(entries: &mut [u8], load_bias: LoadBias) {
    for place in entries.chunks_exact_mut(SYMBOL_SIZE) {
        let mut symbol: Sym = get(place);
        if moves(&symbol) {
            symbol.st_value = load_bias.apply(Vaddr(symbol.st_value)) as u64;
            put(place, symbol);
        }
    }
}

/// Whether the value of `symbol` is an address in the image, and not an offset or a plain number.
pub(super) fn moves(symbol: &Sym) -> bool {
    let section = u32::from(symbol.st_shndx);
    section != SHN_UNDEF && section < SHN_LORESERVE && st_type(symbol.st_info) != STT_TLS
}
