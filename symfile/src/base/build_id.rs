//! The build-id of a file: what tells two builds of a library apart.
//!
//! Sources: gABI chapter 5 "Note Section"; gdb manual "Separate Debug Files".

#![forbid(unsafe_code)]

use std::fmt;

/// The type of the note (`NT_GNU_BUILD_ID`).
const NT_GNU_BUILD_ID: u32 = 3;

/// The most notes that are searched for a build-id: thousands of headers may refer to the same million.
const MAX_NOTES: usize = 1 << 20;

/// The longest build-id, in bytes. The longest that linkers make has 20.
const MAX_BUILD_ID: usize = 256;

/// The identity of a build, by its linker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The build-id among the notes in these segments or sections.
pub fn build_id<'a>(mut all: impl Iterator<Item = &'a [u8]>) -> Option<BuildId> {
    let mut left = MAX_NOTES;
    all.find_map(|notes| build_id_in(notes, &mut left))
}

/// The little-endian word at `at`.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The build-id among these notes. At most `left` notes are looked at.
fn build_id_in(mut notes: &[u8], left: &mut usize) -> Option<BuildId> {
    // Every turn takes the note's header, 12 bytes.
    loop {
        *left = left.checked_sub(1)?;
        let [name_len, len, kind] = [0, 4, 8].map(|at| u32_at(notes, at));
        let (name_len, len, kind) = (name_len? as usize, len? as usize, kind?);
        let name = notes.get(12..12usize.checked_add(name_len)?)?;
        let start = name_len.checked_next_multiple_of(4)?.checked_add(12)?;
        let end = start.checked_add(len)?;
        let contents = notes.get(start..end)?;
        let is_long = contents.len() > MAX_BUILD_ID;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && !contents.is_empty() && !is_long {
            return Some(BuildId(contents.to_vec()));
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}
