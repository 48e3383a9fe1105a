//! The memory of another process, or of a core file.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use goblin::elf::header::ET_CORE;
use goblin::elf::program_header::PT_NOTE;
use goblin::elf64::header::{Header, SIZEOF_EHDR};
use goblin::elf64::program_header::{PT_LOAD, ProgramHeader, SIZEOF_PHDR};
use scroll::ctx::TryFromCtx;
use scroll::{Endian, LE, Pread};

use crate::failure::Failure;

/// `NT_FILE` of a core's notes: the files that were mapped.
const NT_FILE: u32 = 0x4649_4c45;
/// The most that is read at once.
const MOST: usize = 64 << 20;

/// A file that is mapped.
#[derive(Clone, Debug)]
pub struct Mapped {
    pub addresses: Range<u64>,
    /// The part of the file: where it begins.
    pub offset: u64,
    /// As the process named it.
    pub path: PathBuf,
}

/// A process or a core.
pub struct Target {
    memory: Memory,
    /// What files are mapped, ascending.
    pub mapped: Vec<Mapped>,
    /// The process's id, if it is one.
    pub pid: Option<u32>,
    /// The name of the program.
    pub name: String,
}

enum Memory {
    Process(File),
    Core { file: File, segments: Vec<ProgramHeader> },
}

impl Target {
    /// A process.
    pub fn process(pid: u32) -> Result<Target, Failure> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let cannot = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => Failure::refused(format!("no process {pid}")),
            io::ErrorKind::PermissionDenied => Failure::refused(format!(
                "process {pid} may not be looked into: be its user or root (kernel.yama.ptrace_scope decides, too)"
            )),
            _ => Failure::refused(format!("cannot read process {pid}: {error}")),
        };
        let maps = fs::read(folder.join("maps")).map_err(|error| cannot(&error))?;
        let memory = File::open(folder.join("mem")).map_err(|error| cannot(&error))?;
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let mapped = String::from_utf8_lossy(&maps).lines().filter_map(of_line).collect();
        Ok(Target {
            memory: Memory::Process(memory),
            mapped,
            pid: Some(pid),
            name: name.trim_end().to_owned(),
        })
    }

    /// A core file.
    pub fn core(path: &Path) -> Result<Target, Failure> {
        let file = File::open(path).map_err(|error| Failure::unreadable(path, &error))?;
        let no_core = || {
            Failure::usage(format!(
                "{} is neither a process's number nor a core file",
                path.display()
            ))
        };
        let header = at(&file, 0, SIZEOF_EHDR).ok_or_else(no_core)?;
        let header: Header = structures(&header, SIZEOF_EHDR).next().ok_or_else(no_core)?;
        if header.e_ident[..6] != *b"\x7fELF\x02\x01"
            || header.e_type != ET_CORE
            || usize::from(header.e_phentsize) != SIZEOF_PHDR
        {
            return Err(no_core());
        }
        // A core with more segments than there are numbers has the count in the first section header.
        let count = match header.e_phnum {
            0xffff => {
                let first = at(&file, header.e_shoff, 64).ok_or_else(no_core)?;
                u32_at(&first, 44).ok_or_else(no_core)? as usize
            }
            count => usize::from(count),
        };
        let len = count.checked_mul(SIZEOF_PHDR).filter(|&len| len <= MOST).ok_or_else(no_core)?;
        let segments = at(&file, header.e_phoff, len).ok_or_else(no_core)?;
        let segments: Vec<ProgramHeader> = structures(&segments, SIZEOF_PHDR).collect();
        let notes = segments.iter().filter(|it| it.p_type == PT_NOTE);
        let notes: Vec<Vec<u8>> = notes
            .filter_map(|it| at(&file, it.p_offset, usize::try_from(it.p_filesz).ok()?))
            .collect();
        let files = notes.iter().flat_map(|notes| Notes::new(notes));
        let mapped =
            files.filter(|note| note.kind == NT_FILE).find_map(|note| of_files(note.description));
        let segments = segments.into_iter().filter(|it| it.p_type == PT_LOAD).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let memory = Memory::Core { file, segments };
        Ok(Target { memory, mapped: mapped.unwrap_or_default(), pid: None, name })
    }

    /// `len` bytes of its memory. `None` if they are not all there.
    pub fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        match &self.memory {
            Memory::Process(memory) => at(memory, address, len),
            Memory::Core { file, segments } => {
                let found = segments.iter().find_map(|segment| {
                    let skip = address.checked_sub(segment.p_vaddr)?;
                    let end = skip.checked_add(len as u64)?;
                    (end <= segment.p_filesz).then_some(segment.p_offset.checked_add(skip)?)
                });
                match found {
                    Some(offset) => at(file, offset, len),
                    // Cores leave out what files have.
                    None => self.read_file(address, len),
                }
            }
        }
    }

    /// As [`Target::read`], from the file that is mapped there.
    fn read_file(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let mapped = self.mapped.iter().find(|mapped| mapped.addresses.contains(&address))?;
        let skip = address.checked_sub(mapped.addresses.start)?;
        let file = File::open(&mapped.path).ok()?;
        at(&file, mapped.offset.checked_add(skip)?, len)
    }

    /// The file of an object, whole, as the process sees it.
    pub fn open(&self, mapped: &Mapped) -> Option<Vec<u8>> {
        let path = match self.pid {
            // The file itself, also if another has its name now, or it has none any more.
            Some(pid) => {
                let Range { start, end } = mapped.addresses;
                let link = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
                match fs::read(&link) {
                    Ok(bytes) => return Some(bytes),
                    // Without the right to follow these links.
                    Err(_) => match mapped.path.strip_prefix("/") {
                        Ok(path) => PathBuf::from(format!("/proc/{pid}/root")).join(path),
                        Err(_) => mapped.path.clone(),
                    },
                }
            }
            None => mapped.path.clone(),
        };
        fs::read(path).ok()
    }
}

fn at(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    if len > MOST {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// The structures of this size that `bytes` consist of, as they are in little-endian ELF files of 64 bits.
pub fn structures<'a, T, E>(bytes: &'a [u8], size: usize) -> impl Iterator<Item = T> + 'a
where
    T: TryFromCtx<'a, Endian, Error = E> + 'a,
    E: From<scroll::Error> + 'a,
{
    bytes.chunks_exact(size).filter_map(|place| place.pread_with(0, LE).ok())
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A line of `/proc/PID/maps`, if a file is mapped (`proc(5)`).
fn of_line(line: &str) -> Option<Mapped> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let addresses = number(start)?..number(end)?;
    let offset = number(words.nth(1)?)?;
    let path = words.nth(2)?.trim_start();
    path.starts_with('/').then(|| Mapped { addresses, offset, path: path.into() })
}

/// The description of `NT_FILE`: the number of files, the size of a page; for each file start, end, page; the names.
fn of_files(description: &[u8]) -> Option<Vec<Mapped>> {
    let count = usize::try_from(u64_at(description, 0)?).ok()?;
    let page = u64_at(description, 8)?;
    let names = description.get(count.checked_mul(24)?.checked_add(16)?..)?;
    let files = description.get(16..)?.chunks_exact(24).zip(names.split(|&byte| byte == 0));
    let mapped = files.take(count).filter_map(|(words, name)| {
        Some(Mapped {
            addresses: u64_at(words, 0)?..u64_at(words, 8)?,
            offset: u64_at(words, 16)?.checked_mul(page)?,
            path: PathBuf::from(String::from_utf8_lossy(name).into_owned()),
        })
    });
    Some(mapped.collect())
}

/// A note (gABI chapter 5, "Note Section").
pub struct Note<'a> {
    pub owner: &'a [u8],
    pub kind: u32,
    pub description: &'a [u8],
    /// Where the description begins in the notes.
    pub at: usize,
}

/// Notes, one after the other, aligned to 4 bytes.
pub struct Notes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Notes<'a> {
    pub fn new(bytes: &'a [u8]) -> Notes<'a> {
        Notes { bytes, at: 0 }
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let [owner_len, len, kind] = [u32_at(rest, 0)?, u32_at(rest, 4)?, u32_at(rest, 8)?];
        let owner_end = 12usize.checked_add(owner_len as usize)?;
        let owner = rest.get(12..owner_end)?;
        let start = owner_end.checked_next_multiple_of(4)?;
        let end = start.checked_add(len as usize)?;
        let description = rest.get(start..end)?;
        let at = self.at.checked_add(start)?;
        self.at = self.at.checked_add(end.checked_next_multiple_of(4)?)?;
        let owner = owner.strip_suffix(&[0]).unwrap_or(owner);
        Some(Note { owner, kind, description, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_files_or_nothing() {
        let line = "7f0000-7f1000 r-xp 00002000 fe:01 123    /usr/lib/a b.so";
        let mapped = of_line(line).unwrap();
        assert_eq!((mapped.addresses, mapped.offset), (0x7f0000..0x7f1000, 0x2000));
        assert_eq!(mapped.path, Path::new("/usr/lib/a b.so"));
        assert!(of_line("7f0000-7f1000 rw-p 00000000 00:00 0 ").is_none());
        assert!(of_line("7f0000-7f1000 rw-p 00000000 00:00 0                [heap]").is_none());
        assert!(of_line("").is_none());
    }

    #[test]
    fn notes_end_where_the_bytes_do() {
        let mut bytes = Vec::new();
        for word in [6u32, 8, 1] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"memdl\0\0\0\x01\0\0\0\0\0\0\0");
        let note = Notes::new(&bytes).next().unwrap();
        assert_eq!((note.owner, note.kind, note.at), (&b"memdl"[..], 1, 20));
        assert_eq!(note.description, 1u64.to_le_bytes());
        for len in 0..bytes.len() {
            assert_eq!(Notes::new(&bytes[..len]).count(), 0);
        }
        bytes[4..8].fill(0xff);
        assert_eq!(Notes::new(&bytes).count(), 0);
    }
}
