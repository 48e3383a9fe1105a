//! Files with the bytes of images, for profilers that read names and unwind tables from the files of
//! `/proc/PID/maps`.
//!
//! An instance maps its code from the file ([`ImageFile`]), so to such programs it is as a library that `ld.so`
//! has loaded. The file must be there when a report is made, so it stays. Loads of the same bytes by the same
//! name have one file. They are `FOLDER/NUMBER/NAME`, since profilers show the last part of the path.
//!
//! A forked child writes into a folder of its own: the two would not see each other's lock.

#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use super::folder;
use super::named_code::no_memory;
use crate::base::fallible::require_memory;
use crate::memory::mapped_file::ImageFile;

/// How many images of one name have files of their own.
const MAX_OF_NAME: usize = 10_000;

/// This process's files.
pub(super) struct ImageFiles {
    folder: PathBuf,
    process: u32,
}

impl ImageFiles {
    /// The files in `slot` if they are this process's, or else none yet.
    pub(super) fn of_this_process(slot: &mut Option<ImageFiles>) -> io::Result<&mut ImageFiles> {
        let process = process::id();
        if slot.as_ref().is_none_or(|files| files.process != process) {
            require_memory().map_err(no_memory)?;
            return Ok(slot.insert(ImageFiles { folder: folder::new()?, process }));
        }
        slot.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file of an image with this name and these bytes.
    pub(super) fn of_image(&self, name: &str, bytes: &[u8]) -> io::Result<ImageFile> {
        let name = file_name(name);
        for number in 0..MAX_OF_NAME {
            require_memory().map_err(no_memory)?;
            let folder = self.folder.join(number.to_string());
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let path = folder.join(&name);
            match write_new(&path, bytes) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                written => return ImageFile::new(written?),
            }
            let mut file = File::open(&path)?;
            if has(&mut file, bytes)? {
                return ImageFile::new(file);
            }
        }
        Err(io::Error::other("too many images of this name"))
    }
}

/// The last part of an image's name, as a file can be called.
fn file_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@');
    let last = name.rsplit('/').next().unwrap_or_default();
    let name: String = last.chars().map(|c| if allowed(c) { c } else { '_' }).take(200).collect();
    if name.trim_matches('.').is_empty() { "image".into() } else { name }
}

/// Writes a file that was not there, or leaves none.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(bytes).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })?;
    Ok(file)
}

/// Whether the file has these bytes and no others.
fn has(file: &mut File, mut bytes: &[u8]) -> io::Result<bool> {
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut buffer = [0; 1 << 14];
    loop {
        let len = file.read(&mut buffer)?;
        let part = buffer.get(..len).unwrap_or_default();
        if part.is_empty() {
            return Ok(bytes.is_empty());
        }
        match bytes.strip_prefix(part) {
            Some(rest) => bytes = rest,
            None => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        for (name, expected) in [
            ("libfoo.so.1", "libfoo.so.1"),
            ("/opt/plug ins/lib\n$x.so", "lib__x.so"),
            ("..", "image"),
            ("a/..", "image"),
            ("a/", "image"),
            ("", "image"),
        ] {
            assert_eq!(file_name(name), expected, "{name}");
        }
        assert_eq!(file_name(&"x".repeat(1000)).len(), 200);
    }
}
