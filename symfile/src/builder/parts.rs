//! Copies of parts of a symfile, to be read while other threads change it.
//!
//! Reading DWARF takes its time, and the symfile is behind a lock. So what is read is copied first, as it is
//! in the file, and unpacked without the lock. Nothing here writes to a symfile.

#![forbid(unsafe_code)]

use std::sync::Arc;

use goblin::elf::section_header::SHF_COMPRESSED;
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;

use super::compression::{self, NotInflated};
use super::error::SymfileError;
use super::layout::Layout;
use super::shared_portable::PortableCell;
use super::source::SourceSegment;
use super::storage::Storage;
use crate::base::fallible::{require_memory_for_next, try_vec};
use crate::dwarf::budget::Budget;

/// A debug section of the image, not compressed.
pub struct DebugSection {
    /// `.debug_info`, ...
    pub name: String,
    pub sh_flags: u64,
    pub sh_entsize: u64,
    pub contents: Vec<u8>,
}

/// A debug section of the image, perhaps compressed.
pub struct PackedSection {
    /// `.debug_info`, ...
    pub name: &'static str,
    /// Whether it is called `.zdebug_info`, ...
    pub(super) has_z: bool,
    pub(super) header: SectionHeader,
    pub contents: Vec<u8>,
}

impl PackedSection {
    /// The contents, not compressed.
    pub fn unpacked(self, budget: &Budget) -> Result<Vec<u8>, NotInflated> {
        let name = if self.has_z { ".zdebug_" } else { ".debug_" };
        compression::section(name, &self.header, &self.contents, budget)
            .unwrap_or(Ok(self.contents))
    }
}

/// A section with its contents.
pub(super) type WithContents<C> = (SectionHeader, C);
/// The outer file.
pub(super) type OuterSections<C> = (Header, Vec<WithContents<C>>);

/// The identity of a symfile, of which something was copied.
pub struct Origin(pub(super) Arc<Layout>);

/// Copies of the parts from which another form of a symfile is made. Reading them may take long; other
/// threads can change the symfile meanwhile.
pub struct Parts<S: Storage> {
    pub(super) layout: Arc<Layout>,
    /// Where instances of the image share the other form. Once it is there, no debug sections are copied.
    pub(super) shared_portable: Option<Arc<PortableCell<S>>>,
    /// Of the outer file.
    pub header: Header,
    /// The sections of the outer file, without `.gnu_debugdata`.
    pub outer: Vec<WithContents<Vec<u8>>>,
    /// The names of all sections.
    pub names: Vec<u8>,
    /// The debug sections as they are in the inner file.
    pub(super) debug: Vec<WithContents<Vec<u8>>>,
}

impl<S: Storage> Parts<S> {
    /// Whether the debug sections must be made ready before they can be shown.
    pub fn is_to_be_opened(&self) -> bool {
        self.layout.is_to_be_opened()
    }

    /// Whether the image has thread-local variables.
    pub fn has_thread_locals(&self) -> bool {
        self.layout.tls_size != 0
    }

    /// Takes the debug sections out, unpacked. They are the image's, but for the locations of thread-local
    /// variables.
    pub fn take_debug_sections(&mut self) -> Result<Vec<DebugSection>, SymfileError> {
        let budget = self.budget();
        let packed = std::mem::take(&mut self.debug);
        let mut sections = try_vec(packed.len())?;
        for (index, (header, contents)) in packed.into_iter().enumerate() {
            require_memory_for_next(index)?;
            let name = self.names.get(header.sh_name as usize..);
            let name = name.ok_or_else(|| self.layout.malformed())?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let mut section = DebugSection {
                name: String::from_utf8_lossy(name).into_owned(),
                sh_flags: header.sh_flags,
                sh_entsize: header.sh_entsize,
                contents,
            };
            let unpacked = compression::section(&section.name, &header, &section.contents, &budget);
            if let Some(unpacked) = unpacked {
                let of = |error| SymfileError::Compressed { section: section.name.clone(), error };
                section.contents = unpacked.map_err(of)?;
                section.name = section.name.replacen(".zdebug_", ".debug_", 1);
                section.sh_flags &= !u64::from(SHF_COMPRESSED);
            }
            sections.push(section);
        }
        Ok(sections)
    }

    /// What may be spent on reading the debug sections.
    pub fn budget(&self) -> Budget {
        self.layout.allowance.budget()
    }

    /// The image's segments, as it states them.
    pub fn segments(&self) -> &[SourceSegment] {
        &self.layout.segments
    }
}
