//! What the section headers of a file state. They are not needed to run an image, so they may be missing or false.
//!
//! Source: gABI chapter 4, "ELF Header" and "Sections".

#![forbid(unsafe_code)]

use goblin::elf::section_header::{SHT_NOBITS, SHT_STRTAB};
use goblin::elf64::header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG};
use goblin::elf64::section_header::{SHN_LORESERVE, SIZEOF_SHDR};

use crate::elf::read::{string_at, u16_at, u32_at, u64_at};

/// A section of a file.
pub(crate) struct Section<'a> {
    pub name: &'a [u8],
    pub sh_type: u32,
    pub sh_flags: u64,
    /// `None` if it does not lie in the file.
    pub contents: Option<&'a [u8]>,
}

/// The sections of a little-endian ELF file of 64 bits. None, if their headers or names do not lie in it.
pub(crate) fn sections(file: &[u8]) -> impl Iterator<Item = Section<'_>> + Clone {
    let (table, names) = table(file).unwrap_or_default();
    table.chunks_exact(SIZEOF_SHDR).filter_map(move |header| {
        Some(Section {
            name: string_at(names, u32_at(header, 0)?.into()).unwrap_or_default(),
            sh_type: u32_at(header, 4)?,
            sh_flags: u64_at(header, 8)?,
            contents: contents(file, header),
        })
    })
}

/// The headers of all sections, and the strings with their names.
fn table(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_known = file.starts_with(ELFMAG)
        && file.get(EI_CLASS) == Some(&ELFCLASS64)
        && file.get(EI_DATA) == Some(&ELFDATA2LSB);
    // `e_shoff`, `e_shentsize`, `e_shnum`, `e_shstrndx`.
    let start = u64_at(file, 40).filter(|&start| is_known && start != 0)?;
    let [size, count, names] = [58, 60, 62].map(|at| u16_at(file, at).map(usize::from));
    let (count, names) = (count?, names?);
    if size? != SIZEOF_SHDR || count >= SHN_LORESERVE as usize {
        return None;
    }
    let len = (count as u64).checked_mul(SIZEOF_SHDR as u64)?;
    let table = part(file, start, len)?;
    let names = table.chunks_exact(SIZEOF_SHDR).nth(names)?;
    let is_strings = u32_at(names, 4) == Some(SHT_STRTAB);
    Some((table, contents(file, names).filter(|_| is_strings)?))
}

/// The contents of the section with this header.
fn contents<'a>(file: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    if u32_at(header, 4)? == SHT_NOBITS {
        return None;
    }
    part(file, u64_at(header, 24)?, u64_at(header, 32)?)
}

/// `len` bytes of the file from `start` on.
fn part(file: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    file.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_those_that_others_find() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let elf = goblin::elf::Elf::parse(&file).unwrap();
        let found: Vec<Section<'_>> = sections(&file).collect();
        assert_eq!(found.len(), elf.section_headers.len());
        for (found, expected) in found.iter().zip(&elf.section_headers) {
            let name = elf.shdr_strtab.get_at(expected.sh_name).unwrap();
            let contents = expected.file_range().map(|range| &file[range]);
            assert_eq!((found.name, found.contents), (name.as_bytes(), contents), "{name}");
            assert_eq!(
                (found.sh_type, found.sh_flags),
                (expected.sh_type, expected.sh_flags),
                "{name}"
            );
        }
    }

    #[test]
    fn a_file_whose_headers_are_cut_off_or_damaged_has_no_sections() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        // The headers are the last in it.
        assert_eq!(sections(&file[..file.len() - 1]).count(), 0);
        for len in 0..64 {
            assert_eq!(sections(&file[..len]).count(), 0);
        }
        for at in [0, EI_CLASS, EI_DATA, 40, 47, 58, 61, 63] {
            let mut damaged = file[..].to_vec();
            damaged[at] = 0xff;
            assert_eq!(sections(&damaged).count(), 0, "{at}");
        }
    }
}
