//! Folders for files that stay: jitdumps with what perf makes of them, and files of images.
//!
//! Source: where the folder is: Linux `tools/perf/jvmti/jvmti_agent.c`.

#![allow(unsafe_code)]

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A new folder. Only this user can write to it.
pub(super) fn new() -> io::Result<PathBuf> {
    let base = ["JITDUMPDIR", "HOME"].iter().filter_map(env::var_os).find(|it| !it.is_empty());
    let folder = Path::new(base.as_deref().unwrap_or(OsStr::new("."))).join(".debug/jit");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    // perf looks for the file later, from wherever it is started.
    let template = folder.canonicalize()?.join("memdl-jit-XXXXXX");
    let template = CString::new(template.as_os_str().as_bytes())?.into_raw();
    // SAFETY: a C string that may be written to; it is taken back, of the same length.
    let (made, template) = unsafe { (libc::mkdtemp(template), CString::from_raw(template)) };
    if made.is_null() {
        return Err(io::Error::last_os_error());
    }
    Ok(OsString::from_vec(template.into_bytes()).into())
}
