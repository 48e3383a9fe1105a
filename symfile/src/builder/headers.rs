//! Reading an ELF file's header, its section headers and their names.
//!
//! The bytes are hostile: no offset, size or count in them is trusted. It never decides what a section is
//! for ([`super::sections`]), and reads no program header.
//!
//! Source: gABI chapter 4, "ELF Header" and "Sections".

#![forbid(unsafe_code)]

use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, SELFMAG};
use goblin::elf::section_header::{SHT_STRTAB, SHT_SYMTAB};
use goblin::elf64::header::Header;
use goblin::elf64::program_header::ProgramHeader;
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;

use crate::base::addr::FileOffset;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_copy, try_vec};

pub const HEADER_SIZE: usize = goblin::elf64::header::SIZEOF_EHDR;
pub(super) const SEGMENT_SIZE: usize = goblin::elf64::program_header::SIZEOF_PHDR;
pub const SECTION_SIZE: usize = goblin::elf64::section_header::SIZEOF_SHDR;
pub const SYMBOL_SIZE: usize = goblin::elf64::sym::SIZEOF_SYM;

/// The most section headers that an image may have. There is room for more below `SHN_LORESERVE`, where
/// ELF keeps the number elsewhere.
pub(super) const MAX_SECTIONS: u16 = 0xf000;

/// The longest name of a debug section, in bytes: thousands may have the same.
const MAX_NAME: usize = 64;

/// What is wrong with a file header, and at which offset.
#[derive(Debug, thiserror::Error)]
#[error("malformed {what} at offset {at} of the image")]
pub struct NotElf {
    pub what: &'static str,
    pub at: FileOffset,
}

/// The file header, if it is that of a little-endian ELF file of 64 bits.
pub fn image_header(bytes: &[u8]) -> Result<Header, NotElf> {
    let malformed = |what, at| NotElf { what, at: FileOffset(at) };
    let header = Header::read(bytes).ok_or_else(|| malformed("file header", 0))?;
    if header.e_ident.get(..SELFMAG) != Some(&ELFMAG[..]) {
        return Err(malformed("file header", 0));
    }
    for (at, ours, what) in [
        (EI_CLASS, ELFCLASS64, "class: not 64 bits"),
        (EI_DATA, ELFDATA2LSB, "byte order: not little-endian"),
    ] {
        if header.e_ident.get(at) != Some(&ours) {
            return Err(malformed(what, at as u64));
        }
    }
    Ok(header)
}

/// The contents of `.shstrtab`, in both files: the image's own, so that its names need no copying
/// one by one (thousands may share one long text), then what is added.
pub struct Names(pub Vec<u8>);

impl Names {
    pub fn add(&mut self, name: &str) -> Result<u32, OutOfMemory> {
        let at = self.0.len();
        self.0.try_room(name.len().saturating_add(1))?;
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        Ok(at as u32)
    }

    /// One name.
    pub fn get(&self, name: u32) -> String {
        let text = self.0.get(name as usize..).unwrap_or_default();
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    pub(super) fn starts_with(&self, name: u32, prefix: &str) -> bool {
        let name = self.0.get(name as usize..).unwrap_or_default();
        name.starts_with(prefix.as_bytes())
    }

    /// Whether debug sections have such a name.
    pub fn is_debug(&self, name: u32) -> bool {
        let is_short = || {
            let rest = self.0.get(name as usize..).unwrap_or_default();
            rest.iter().take(MAX_NAME).any(|&byte| byte == 0)
        };
        (self.starts_with(name, ".debug_") || self.starts_with(name, ".zdebug_")) && is_short()
    }

    pub fn is(&self, name: u32, whole: &str) -> bool {
        let rest = self.0.get(name as usize..).unwrap_or_default();
        rest.strip_prefix(whole.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Whether it is this name of a debug section, or its name when compressed: `.zdebug_info` for
    /// `.debug_info`.
    pub fn is_perhaps_compressed(&self, name: u32, whole: &str) -> bool {
        let compressed =
            |rest| self.starts_with(name, ".z") && self.is(name.saturating_add(2), rest);
        self.is(name, whole) || whole.strip_prefix('.').is_some_and(compressed)
    }
}

/// The section headers of a file, and the names that they refer to.
pub struct Headers {
    pub list: Vec<SectionHeader>,
    pub names: Names,
}

impl Headers {
    /// The section headers of `file`, which has this file header; or what is wrong with them.
    pub fn parse(header: &Header, file: &[u8]) -> Result<Headers, &'static str> {
        let count = header.e_shnum;
        if header.e_shoff == 0 || count == 0 {
            return Err("there are none");
        }
        if usize::from(header.e_shentsize) != SECTION_SIZE || count > MAX_SECTIONS {
            return Err("their size or number is none that we know");
        }
        let len = u64::from(count).saturating_mul(SECTION_SIZE as u64);
        let table = file_range(file, header.e_shoff, len).ok_or("they lie outside the file")?;
        let no_memory = |_| "there is no memory for them";
        let mut list: Vec<SectionHeader> = try_vec(count.into()).map_err(no_memory)?;
        list.extend(table.chunks_exact(SECTION_SIZE).map(get::<SectionHeader>));
        let names = list
            .get(usize::from(header.e_shstrndx))
            .filter(|names| names.sh_type == SHT_STRTAB)
            .and_then(|names| file_range(file, names.sh_offset, names.sh_size))
            .filter(|names| u32::try_from(names.len()).is_ok_and(|len| len < u32::MAX / 2))
            .ok_or("their names are not in the file")?;
        let mut names = Names(try_copy(names).map_err(no_memory)?);
        names.0.try_push(0).map_err(no_memory)?;
        Ok(Headers { list, names })
    }
}

/// The entries and strings of a file's `.symtab`, if section headers state one.
pub fn full_symbol_table(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let headers = Headers::parse(&image_header(file).ok()?, file).ok()?;
    symbol_table(SHT_SYMTAB, &headers.list, file)
}

/// The entries and strings of the first symbol table of the kind that lies in the file.
pub(super) fn symbol_table<'a>(
    kind: u32,
    headers: &[SectionHeader],
    bytes: &'a [u8],
) -> Option<(&'a [u8], &'a [u8])> {
    let table = headers.iter().find(|header| header.sh_type == kind)?;
    let strings = headers.get(table.sh_link as usize)?;
    if table.sh_entsize != SYMBOL_SIZE as u64 || strings.sh_type != SHT_STRTAB {
        return None;
    }
    Some((
        file_range(bytes, table.sh_offset, table.sh_size)?,
        file_range(bytes, strings.sh_offset, strings.sh_size)?,
    ))
}

/// `len` bytes at `offset` of the file.
pub fn file_range(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(offset.checked_add(len)?).ok()?;
    bytes.get(usize::try_from(offset).ok()?..end)
}

/// The structure that fills `place`, which is of its size.
#[inline]
pub fn get<T: Stored>(place: &[u8]) -> T {
    T::read(place).unwrap_or_default()
}

/// Fills `place`, which is of its size, with the structure.
#[inline]
pub fn put<T: Stored>(place: &mut [u8], structure: T) {
    let written = structure.write(place);
    debug_assert!(written.is_some(), "the place is of the structure's size");
}

/// A structure of a little-endian ELF file of 64 bits. Each consists of whole words of 8 bytes, which are read
/// and written at once: a symfile has many of them.
pub trait Stored: Default {
    /// From the first bytes of `place`; `None` if it is shorter.
    fn read(place: &[u8]) -> Option<Self>;
    /// To the first bytes of `place`; `None` if it is shorter.
    fn write(self, place: &mut [u8]) -> Option<()>;
}

#[inline]
fn words<const N: usize>(place: &[u8]) -> Option<[u64; N]> {
    let words: &[[u8; 8]; N] = place.as_chunks().0.first_chunk()?;
    Some(words.map(u64::from_le_bytes))
}

#[inline]
fn put_words<const N: usize>(place: &mut [u8], words: [u64; N]) -> Option<()> {
    let place: &mut [[u8; 8]; N] = place.as_chunks_mut().0.first_chunk_mut()?;
    *place = words.map(u64::to_le_bytes);
    Some(())
}

/// The word of these two halves, the one at the lower address first.
#[inline]
fn of_halves(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The halves of a word.
#[inline]
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// The word of these four quarters, the one at the lowest address first.
#[inline]
fn of_quarters([a, b, c, d]: [u16; 4]) -> u64 {
    of_halves(u32::from(a) | u32::from(b) << 16, u32::from(c) | u32::from(d) << 16)
}

/// The quarters of a word.
#[inline]
fn quarters(word: u64) -> [u16; 4] {
    [word as u16, (word >> 16) as u16, (word >> 32) as u16, (word >> 48) as u16]
}

impl Stored for Header {
    fn read(place: &[u8]) -> Option<Header> {
        let [_, _, kind, e_entry, e_phoff, e_shoff, sizes, counts] = words(place)?;
        let [e_type, e_machine, ..] = quarters(kind);
        let [.., e_ehsize, e_phentsize] = quarters(sizes);
        let [e_phnum, e_shentsize, e_shnum, e_shstrndx] = quarters(counts);
        Some(Header {
            e_ident: *place.first_chunk()?,
            e_type,
            e_machine,
            e_version: halves(kind).1,
            e_entry,
            e_phoff,
            e_shoff,
            e_flags: halves(sizes).0,
            e_ehsize,
            e_phentsize,
            e_phnum,
            e_shentsize,
            e_shnum,
            e_shstrndx,
        })
    }

    fn write(self, place: &mut [u8]) -> Option<()> {
        let [first, second] = words(&self.e_ident)?;
        let kind =
            of_halves(u32::from(self.e_type) | u32::from(self.e_machine) << 16, self.e_version);
        let sizes =
            of_halves(self.e_flags, u32::from(self.e_ehsize) | u32::from(self.e_phentsize) << 16);
        let counts = [self.e_phnum, self.e_shentsize, self.e_shnum, self.e_shstrndx];
        let Header { e_entry, e_phoff, e_shoff, .. } = self;
        let counts = of_quarters(counts);
        put_words(place, [first, second, kind, e_entry, e_phoff, e_shoff, sizes, counts])
    }
}

impl Stored for ProgramHeader {
    fn read(place: &[u8]) -> Option<ProgramHeader> {
        let [kind, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align] = words(place)?;
        let (p_type, p_flags) = halves(kind);
        Some(ProgramHeader {
            p_type,
            p_flags,
            p_offset,
            p_vaddr,
            p_paddr,
            p_filesz,
            p_memsz,
            p_align,
        })
    }

    fn write(self, place: &mut [u8]) -> Option<()> {
        let kind = of_halves(self.p_type, self.p_flags);
        let ProgramHeader { p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align, .. } = self;
        put_words(place, [kind, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align])
    }
}

impl Stored for SectionHeader {
    #[inline]
    fn read(place: &[u8]) -> Option<SectionHeader> {
        let [kind, sh_flags, sh_addr, sh_offset, sh_size, more, sh_addralign, sh_entsize] =
            words(place)?;
        let (sh_name, sh_type) = halves(kind);
        let (sh_link, sh_info) = halves(more);
        Some(SectionHeader {
            sh_name,
            sh_type,
            sh_flags,
            sh_addr,
            sh_offset,
            sh_size,
            sh_link,
            sh_info,
            sh_addralign,
            sh_entsize,
        })
    }

    #[inline]
    fn write(self, place: &mut [u8]) -> Option<()> {
        let SectionHeader {
            sh_name,
            sh_type,
            sh_flags,
            sh_addr,
            sh_offset,
            sh_size,
            sh_link,
            sh_info,
            sh_addralign,
            sh_entsize,
        } = self;
        let (kind, more) = (of_halves(sh_name, sh_type), of_halves(sh_link, sh_info));
        put_words(
            place,
            [kind, sh_flags, sh_addr, sh_offset, sh_size, more, sh_addralign, sh_entsize],
        )
    }
}

impl Stored for Sym {
    #[inline]
    fn read(place: &[u8]) -> Option<Sym> {
        let [kind, st_value, st_size] = words(place)?;
        let [.., kinds, st_shndx] = quarters(kind);
        let [st_info, st_other] = kinds.to_le_bytes();
        Some(Sym { st_name: halves(kind).0, st_info, st_other, st_shndx, st_value, st_size })
    }

    #[inline]
    fn write(self, place: &mut [u8]) -> Option<()> {
        let kinds = u16::from_le_bytes([self.st_info, self.st_other]);
        let kind = of_halves(self.st_name, u32::from(kinds) | u32::from(self.st_shndx) << 16);
        put_words(place, [kind, self.st_value, self.st_size])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scroll::{LE, Pread};

    /// Bytes that differ, so that each field has a value of its own. goblin asks one of them for the order of the
    /// others.
    const BYTES: [u8; HEADER_SIZE] = {
        let mut bytes = [0; HEADER_SIZE];
        let mut at = 0;
        while at < HEADER_SIZE {
            bytes[at] = 0xff - at as u8;
            at += 1;
        }
        bytes[EI_DATA] = ELFDATA2LSB;
        bytes
    };

    /// Compares with goblin's description of the format.
    fn is_stored<T, E>(size: usize)
    where
        T: Stored + Copy + PartialEq + std::fmt::Debug,
        T: for<'a> scroll::ctx::TryFromCtx<'a, scroll::Endian, Error = E>,
        E: From<scroll::Error> + std::fmt::Debug,
    {
        let bytes = &BYTES[..size];
        let expected: T = bytes.pread_with(0, LE).unwrap();
        assert_eq!(get::<T>(bytes), expected);
        assert_eq!(T::read(&bytes[1..]), None);
        let mut place = vec![0; size];
        put(&mut place, expected);
        assert_eq!(place, bytes);
        assert_eq!(expected.write(&mut place[1..]), None);
    }

    #[test]
    fn structures_are_stored_as_the_format_has_them() {
        is_stored::<Header, _>(HEADER_SIZE);
        is_stored::<ProgramHeader, _>(SEGMENT_SIZE);
        is_stored::<SectionHeader, _>(SECTION_SIZE);
        is_stored::<Sym, _>(SYMBOL_SIZE);
    }
}
