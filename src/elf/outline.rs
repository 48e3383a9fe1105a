//! What a file says of itself, as far as it can be read without trusting it: for a report on a file that may be
//! malformed, or for another machine.
//!
//! Nothing is refused here. What does not lie in the file is left out.
//!
//! Sources: gABI "ELF Header", "Program Header", "Note Section".

#![forbid(unsafe_code)]

use goblin::elf64::header::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, ELFMAG, SIZEOF_EHDR,
};
use goblin::elf64::program_header::{PT_NOTE, SIZEOF_PHDR};

use crate::elf::properties;
use crate::elf::read::{u16_at, u32_at, u64_at};

/// The outline of an ELF file.
pub(crate) struct Outline<'a> {
    bytes: &'a [u8],
    /// `e_machine`.
    pub e_machine: u16,
    /// Whether its class is `ELFCLASS64`.
    pub is_64_bit: bool,
    /// Whether its data is `ELFDATA2LSB`.
    pub is_little_endian: bool,
}

/// A note.
pub(crate) struct Note<'a> {
    /// The name of its owner, without its NUL.
    pub owner: &'a [u8],
    pub n_type: u32,
    pub desc: &'a [u8],
}

impl<'a> Outline<'a> {
    /// `None` for what is no ELF file.
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Outline<'a>> {
        if !bytes.starts_with(ELFMAG) {
            return None;
        }
        let (class, data) = (*bytes.get(EI_CLASS)?, *bytes.get(EI_DATA)?);
        let e_machine = u16_at(bytes, 18)?;
        Some(Outline {
            bytes,
            e_machine: if data == ELFDATA2MSB { e_machine.swap_bytes() } else { e_machine },
            is_64_bit: class == ELFCLASS64,
            is_little_endian: data == ELFDATA2LSB,
        })
    }

    /// The notes in the `PT_NOTE`s. All of them together are at most as long as the file, however many headers
    /// name the same bytes.
    pub(crate) fn notes(&self) -> impl Iterator<Item = Note<'a>> {
        let mut left = self.bytes.len();
        let notes = self.note_segments().flat_map(|(bytes, align)| Notes { bytes, align });
        notes.take_while(move |note| {
            let len = note.owner.len().saturating_add(note.desc.len()).saturating_add(1);
            left.checked_sub(len).map(|rest| left = rest).is_some()
        })
    }

    /// The bytes of each `PT_NOTE`, and the alignment of the parts of its notes.
    fn note_segments(&self) -> impl Iterator<Item = (&'a [u8], usize)> {
        let bytes = self.bytes;
        let is_readable = self.is_64_bit && self.is_little_endian && bytes.len() >= SIZEOF_EHDR;
        let start = u64_at(bytes, 32).and_then(|start| usize::try_from(start).ok());
        let table = start.filter(|_| is_readable).and_then(|start| bytes.get(start..));
        let count = usize::from(u16_at(bytes, 56).unwrap_or(0));
        let headers = table.unwrap_or_default().chunks_exact(SIZEOF_PHDR).take(count);
        headers.filter_map(move |header| {
            if u32_at(header, 0)? != PT_NOTE {
                return None;
            }
            let start = usize::try_from(u64_at(header, 8)?).ok()?;
            let len = usize::try_from(u64_at(header, 32)?).ok()?;
            let align = if u64_at(header, 48)? == properties::ALIGN { 8 } else { 4 };
            Some((bytes.get(start..)?.get(..len)?, align))
        })
    }
}

/// The notes in some bytes.
struct Notes<'a> {
    bytes: &'a [u8],
    align: usize,
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        /// `n_namesz`, `n_descsz`, `n_type`.
        const HEADER: usize = 12;
        let bytes = std::mem::take(&mut self.bytes);
        let [name_len, len, n_type] = [0, 4, 8].map(|at| u32_at(bytes, at));
        let (name_len, len, n_type) = (name_len? as usize, len? as usize, n_type?);
        let name_end = HEADER.checked_add(name_len)?;
        let start = name_end.checked_next_multiple_of(self.align)?;
        let end = start.checked_add(len)?;
        let owner = bytes.get(HEADER..name_end)?;
        let desc = bytes.get(start..end)?;
        let next = end.checked_next_multiple_of(self.align)?;
        self.bytes = bytes.get(next..).unwrap_or_default();
        Some(Note { owner: owner.strip_suffix(b"\0").unwrap_or(owner), n_type, desc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::{Library, P_FILESZ, P_OFFSET, P_TYPE, STACK_HEADER, TEXT};

    fn with_notes(notes: &[u8]) -> Library {
        let mut library = Library::new();
        library.set_header(STACK_HEADER, P_TYPE, PT_NOTE.into());
        library.set_header(STACK_HEADER, P_OFFSET, TEXT);
        library.set_header(STACK_HEADER, P_FILESZ, notes.len() as u64);
        library.bytes[TEXT as usize..][..notes.len()].copy_from_slice(notes);
        library
    }

    #[test]
    fn notes_are_read_until_one_does_not_fit() {
        let mut notes = Vec::new();
        for (name, desc) in [(&b"GNU\0"[..], &[1u8, 2, 3][..]), (b"ab\0", &[])] {
            notes.extend([name.len() as u32, desc.len() as u32, 7].map(u32::to_le_bytes).concat());
            for part in [name, desc] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        }
        notes.extend([4u32, 1000, 1].map(u32::to_le_bytes).concat());
        let library = with_notes(&notes);
        let outline = Outline::of(&library.bytes).unwrap();
        let found: Vec<_> = outline.notes().map(|it| (it.owner, it.n_type, it.desc)).collect();
        assert_eq!(found, [(&b"GNU"[..], 7, &[1u8, 2, 3][..]), (b"ab", 7, &[])]);
        assert!(outline.is_64_bit && outline.is_little_endian);
    }

    #[test]
    fn a_file_of_another_byte_order_still_names_its_machine() {
        let mut library = Library::new();
        library.bytes[EI_DATA] = ELFDATA2MSB;
        library.bytes[18..20].copy_from_slice(&22u16.to_be_bytes());
        let outline = Outline::of(&library.bytes).unwrap();
        assert_eq!((outline.e_machine, outline.is_little_endian), (22, false));
        assert_eq!(outline.notes().count(), 0);
        assert!(Outline::of(b"\x7fELF").is_none() && Outline::of(b"#!/bin/sh").is_none());
    }
}
