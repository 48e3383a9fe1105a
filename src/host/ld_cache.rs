//! `ld.so`'s cache of the system's libraries, `/etc/ld.so.cache`.
//!
//! Reads the file; finds a library's path by its name. Libraries for other machines, and those in folders of
//! `glibc-hwcaps` that this processor cannot run, are left out. A file that is not as expected has no
//! entries.
//!
//! Sources: glibc `sysdeps/generic/dl-cache.h`, `elf/dl-cache.c`.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::arch::{self, MACHINE};
use crate::memory::mapped_file::MappedFile;

const PATH: &str = "/etc/ld.so.cache";
/// The magic number and the version of `struct cache_file_new`.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// The magic number of the older format, which may precede the newer.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
/// Sizes of the headers and entries of both formats.
const HEADER: usize = 48;
const ENTRY: usize = 24;
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;

/// The cache.
pub(super) struct LdCache(Option<MappedFile>);

impl LdCache {
    /// The cache as it is now.
    pub(super) fn open() -> LdCache {
        LdCache(MappedFile::open(Path::new(PATH)).ok())
    }

    /// The file of the library of this name that suits the processor best.
    pub(super) fn find(&self, name: &[u8]) -> Option<PathBuf> {
        let paths = Entries::of(self.0.as_deref()?)?.paths(name);
        let ranked = paths.filter_map(|path| Some((rank(&path)?, path)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, path)| path)
    }
}

/// How well a library suits the processor: the least is best. `None` if the processor cannot run it.
fn rank(path: &Path) -> Option<usize> {
    let mut folders = path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let supported = arch::hwcaps_folders();
    if !folders.any(|folder| folder == "glibc-hwcaps") {
        return Some(supported.len());
    }
    let folder = folders.next()?;
    supported.iter().position(|it| *it == folder)
}

/// The table of the newer format. Offsets count from its start.
struct Entries<'a> {
    bytes: &'a [u8],
    entries: &'a [[u8; ENTRY]],
}

impl<'a> Entries<'a> {
    fn of(file: &'a [u8]) -> Option<Entries<'a>> {
        let bytes = if file.starts_with(OLD_MAGIC) {
            let count = usize::try_from(u32_at(file, 12)?).ok()?;
            let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEADER)?;
            // The newer table is aligned to 8 bytes.
            file.get(end.checked_next_multiple_of(8)?..)?
        } else {
            file
        };
        let count = usize::try_from(u32_at(bytes, MAGIC.len())?).ok()?;
        let entries = bytes.strip_prefix(MAGIC).and_then(|_| bytes.get(HEADER..))?;
        let entries = entries.get(..count.checked_mul(ENTRY)?)?.as_chunks().0;
        Some(Entries { bytes, entries })
    }

    /// The paths of all libraries of this name for this machine.
    fn paths(self, name: &[u8]) -> impl Iterator<Item = PathBuf> {
        let Entries { bytes, entries } = self;
        entries.iter().filter_map(move |entry| {
            let flags = u32_at(entry, 0)?;
            if flags != MACHINE.cache_flags || string(bytes, u32_at(entry, 4)?)? != name {
                return None;
            }
            Some(PathBuf::from(OsStr::from_bytes(string(bytes, u32_at(entry, 8)?)?)))
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

fn string(bytes: &[u8], offset: u32) -> Option<&[u8]> {
    let text = bytes.get(usize::try_from(offset).ok()?..)?;
    text.split(|&byte| byte == 0).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(libraries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut file = [MAGIC, &(libraries.len() as u32).to_le_bytes(), &[0; 24]].concat();
        let mut strings = Vec::new();
        let start = HEADER + libraries.len() * ENTRY;
        for (flags, name, path) in libraries {
            let mut entry = [0; ENTRY];
            entry[..4].copy_from_slice(&flags.to_le_bytes());
            for (at, text) in [(4, name), (8, path)] {
                let offset = (start + strings.len()) as u32;
                entry[at..at + 4].copy_from_slice(&offset.to_le_bytes());
                strings.extend_from_slice(text.as_bytes());
                strings.push(0);
            }
            file.extend_from_slice(&entry);
        }
        file.extend_from_slice(&strings);
        file
    }

    fn paths(file: &[u8], name: &[u8]) -> Vec<PathBuf> {
        Entries::of(file).map(|it| it.paths(name).collect()).unwrap_or_default()
    }

    #[test]
    fn libraries_are_found_by_name_and_machine() {
        let own = MACHINE.cache_flags;
        let file = table(&[(1, "liba.so", "/lib32/liba.so"), (own, "liba.so", "/lib/liba.so")]);
        assert_eq!(paths(&file, b"liba.so"), [Path::new("/lib/liba.so")]);
        assert!(paths(&file, b"lib").is_empty());
        // Behind a table of the older format, whose 2 entries end at 16 + 24 = 40.
        let old = [OLD_MAGIC, &[0], &2u32.to_le_bytes(), &[0; 2 * OLD_ENTRY], &file].concat();
        assert_eq!(paths(&old, b"liba.so"), [Path::new("/lib/liba.so")]);
    }

    #[test]
    fn a_damaged_cache_has_no_entries() {
        let file = table(&[(MACHINE.cache_flags, "liba.so", "/lib/liba.so")]);
        for len in 0..HEADER + ENTRY {
            assert!(paths(&file[..len], b"liba.so").is_empty(), "{len}");
        }
        let mut many = file.clone();
        many[MAGIC.len()..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut far = file;
        far[HEADER + 4..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(paths(&many, b"liba.so").is_empty() && paths(&far, b"liba.so").is_empty());
    }

    #[test]
    fn the_systems_cache_has_the_c_library() {
        let found = LdCache::open().find(b"libc.so.6");
        assert!(found.is_some_and(|path| path.is_file() && path.ends_with("libc.so.6")));
    }

    #[test]
    fn folders_for_better_processors_count_only_there() {
        assert_eq!(rank(Path::new("/usr/lib/glibc-hwcaps/none/liba.so")), None);
        assert_eq!(rank(Path::new("/usr/lib/liba.so")), Some(arch::hwcaps_folders().len()));
        for (index, folder) in arch::hwcaps_folders().iter().enumerate() {
            let path = PathBuf::from(format!("/usr/lib/glibc-hwcaps/{folder}/liba.so"));
            assert_eq!(rank(&path), Some(index));
        }
    }
}
