//! Debug information in a file of its own, split off an image.
//!
//! Distributions strip their libraries and keep what they stripped in a second file, with the same
//! section headers. An executor that received that file too can hand it over, and debuggers see
//! the image as if it had never been stripped. It must be the file that belongs to the image:
//! DWARF of another build shows wrong lines and wrong variables. So it is checked by the build-id,
//! which is the same in both, or, where the image has none, by the file's checksum in the image's
//! `.gnu_debuglink`.
//!
//! A debugger that finds such a file by itself, by the build-id, takes the thread-local variables in it
//! for the executable's. So for an image that has any, memdl searches for the file first ([`installed`]).
//! Whether a debugger may search where memdl found nothing is the operator's choice (`debug/policy.rs`).
//!
//! This is the one file of `debug/` that reads files. It never changes one.
//!
//! Sources: gABI chapter 5 "Note Section"; gdb manual "Separate Debug Files"; debuginfod(8) and
//! debuginfod_find_debuginfo(3), "Cache".

#![forbid(unsafe_code)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use goblin::elf::section_header::SHT_NOTE;

use crate::base::build_id::{BuildId, build_id};
use crate::base::environment;
use crate::base::fallible::TryGrow;
use crate::elf::read::u32_at;
use memdl_symfile::builder::headers::{Headers, file_range, image_header};
use memdl_symfile::builder::xz::crc32;

/// The environment variable that names the folders where such files are installed, as gdb's setting
/// `debug-file-directory` does.
const ENVIRONMENT: &str = "MEMDL_DEBUG_FILE_DIRECTORY";
/// Where distributions install them, and gdb looks.
const INSTALLED: &str = "/usr/lib/debug";

/// Why a file is not accepted as an image's debug information.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSeparate {
    #[error("it is not an ELF file with sections: {0}")]
    NoSections(String),
    #[error("it belongs to build-id {theirs}, the image has {ours}")]
    OtherBuildId { ours: BuildId, theirs: BuildId },
    #[error("the image has build-id {ours}, and it has none")]
    NoBuildId { ours: BuildId },
    #[error("its checksum is {theirs:#010x}, the image's .gnu_debuglink wants {ours:#010x}")]
    OtherChecksum { ours: u32, theirs: u32 },
    #[error("the image has neither a build-id nor, at hand, a .gnu_debuglink to know it by")]
    NothingToCheck,
}

/// Where a file with this build-id is installed, in such a folder.
fn path_below(id: &BuildId, folder: PathBuf) -> Option<PathBuf> {
    let id = id.to_string();
    let (first, rest) = id.split_at_checked(2)?;
    Some(folder.join(".build-id").join(first).join(format!("{rest}.debug")))
}

/// Where debuginfod's client keeps a file with this build-id, once a server has sent it.
fn path_in_cache(id: &BuildId) -> Option<PathBuf> {
    let folder = |variable| env::var_os(variable).filter(|it| !it.is_empty()).map(PathBuf::from);
    let user = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let cache = folder("DEBUGINFOD_CACHE_PATH")
        .or_else(|| Some(user()?.join("debuginfod_client")))
        .filter(|cache| cache.is_absolute())?;
    Some(cache.join(id.to_string()).join("debuginfo"))
}

/// Whether `file` was split off the image. `image` is the image's file, empty if it is no longer there;
/// `notes` are the contents of its `PT_NOTE`s.
pub(crate) fn check<'a>(
    image: &[u8],
    notes: impl Iterator<Item = &'a [u8]>,
    file: &[u8],
) -> Result<(), NotSeparate> {
    let no_sections = |fault: &dyn fmt::Display| NotSeparate::NoSections(fault.to_string());
    let header = image_header(file).map_err(|fault| no_sections(&fault))?;
    let headers = Headers::parse(&header, file).map_err(|fault| no_sections(&fault))?;
    if let Some(ours) = build_id(notes) {
        let notes = headers.list.iter().filter(|header| header.sh_type == SHT_NOTE);
        let contents = notes.filter_map(|note| file_range(file, note.sh_offset, note.sh_size));
        return match build_id(contents) {
            Some(theirs) if theirs == ours => Ok(()),
            Some(theirs) => Err(NotSeparate::OtherBuildId { ours, theirs }),
            None => Err(NotSeparate::NoBuildId { ours }),
        };
    }
    let ours = stated_checksum(image).ok_or(NotSeparate::NothingToCheck)?;
    match crc32(file) {
        theirs if theirs == ours => Ok(()),
        theirs => Err(NotSeparate::OtherChecksum { ours, theirs }),
    }
}

/// The installed file that was split off the image with these `PT_NOTE`s, where gdb would find it. `None`
/// if there is none of at most `most` bytes.
pub(crate) fn installed<'a>(notes: impl Iterator<Item = &'a [u8]>, most: u64) -> Option<Vec<u8>> {
    let id = build_id(notes)?;
    let folders = environment::folders(ENVIRONMENT, INSTALLED).into_iter();
    let paths = folders.filter_map(|folder| path_below(&id, folder)).chain(path_in_cache(&id));
    paths.into_iter().find_map(|path| {
        let said = |error: &io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                logged!(warn, "{}: {error}", path.display());
            }
        };
        // In the cache an empty one says that no server has it.
        read(&path, most).inspect_err(said).ok().filter(|file| !file.is_empty())
    })
}

/// Whether a debug file with this build-id is installed, where gdb would find it.
pub(super) fn is_installed<'a>(notes: impl Iterator<Item = &'a [u8]>) -> bool {
    let Some(id) = build_id(notes) else { return false };
    let folders = environment::folders(ENVIRONMENT, INSTALLED).into_iter();
    folders.filter_map(|folder| path_below(&id, folder)).any(|path| path.is_file())
}

/// The contents of a file of no more than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let data = fs::metadata(path)?;
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // Only a regular file is opened: opening a pipe waits for a writer.
    if !data.is_file() {
        return refused("not a file".to_owned());
    }
    if data.len() > most {
        return refused(format!("{} bytes are more than the limit of {most}", data.len()));
    }
    let mut contents = Vec::new();
    // It may have grown.
    let room = usize::try_from(data.len()).unwrap_or(usize::MAX);
    contents.try_room(room).map_err(|_| io::ErrorKind::OutOfMemory)?;
    fs::File::open(path)?.take(data.len()).read_to_end(&mut contents)?;
    Ok(contents)
}

/// The checksum in the image's `.gnu_debuglink`: a name, padded to a multiple of four, precedes it.
fn stated_checksum(image: &[u8]) -> Option<u32> {
    let headers = Headers::parse(&image_header(image).ok()?, image).ok()?;
    let link = headers.list.iter().find(|it| headers.names.is(it.sh_name, ".gnu_debuglink"))?;
    let contents = file_range(image, link.sh_offset, link.sh_size)?;
    let name = contents.iter().position(|&byte| byte == 0)?;
    u32_at(contents, name.checked_add(1)?.checked_next_multiple_of(4)?)
}
