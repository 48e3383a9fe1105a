//! Which files memdl loads, and the log of what became of them: the environment's variables.
//!
//! * `MEMDL_SHIM`: patterns of the shell, separated by commas. One with a slash is compared with the file's
//!   path, others with its name. Default: all but [`OF_THE_SYSTEM`].
//! * `MEMDL_SHIM_LOG`: a file to which a line is appended for each of these files: `loaded PATH`;
//!   `refused PATH: REASON` if memdl refuses what `ld.so` opens; `neither PATH: REASONS`.

use std::ffi::CString;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Libraries that belong to the C library, or of which a process must have one copy because the C library
/// opens it, too. The beginnings of their names.
const OF_THE_SYSTEM: &[&str] = &[
    "ld-linux",
    "libc.so",
    "libpthread.so",
    "libdl.so",
    "libm.so",
    "librt.so",
    "libutil.so",
    "libanl.so",
    "libresolv.so",
    "libnss_",
    "libnsl.so",
    "libthread_db",
    "libBrokenLocale.so",
    "libmvec.so",
    "libgcc_s.so",
    "libstdc++.so",
    "libmemdl_shim",
];

struct Environment {
    patterns: Option<Vec<CString>>,
    log: Option<PathBuf>,
}

fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let patterns = std::env::var_os("MEMDL_SHIM").map(|text| {
            let text = text.into_vec();
            let patterns = text.split(|byte| *byte == b',').filter(|it| !it.is_empty());
            patterns.filter_map(|pattern| CString::new(pattern).ok()).collect()
        });
        Environment { patterns, log: std::env::var_os("MEMDL_SHIM_LOG").map(PathBuf::from) }
    })
}

/// Whether memdl is to load this file.
pub(crate) fn is_for_memdl(file: &Path) -> bool {
    let Some(name) = file.file_name() else { return false };
    let Some(patterns) = &environment().patterns else {
        return !OF_THE_SYSTEM.iter().any(|start| name.as_bytes().starts_with(start.as_bytes()));
    };
    let matches = |pattern: &CString| {
        let is_path = pattern.as_bytes().contains(&b'/');
        let subject = if is_path { file.as_os_str() } else { name };
        let Ok(subject) = CString::new(subject.as_bytes()) else { return false };
        // SAFETY: two C strings.
        unsafe { libc::fnmatch(pattern.as_ptr(), subject.as_ptr(), 0) == 0 }
    };
    patterns.iter().any(matches)
}

/// Appends a line to the log: what became of a file.
pub(crate) fn log(what: &str, file: &Path, reason: Option<&dyn Display>) {
    let Some(log) = &environment().log else { return };
    let file = file.display();
    let line = match reason {
        // A message may have several lines.
        Some(reason) => format!("{what} {file}: {}\n", reason.to_string().replace('\n', " ")),
        None => format!("{what} {file}\n"),
    };
    // A log that cannot be written is not the program's concern.
    if let Ok(mut log) = OpenOptions::new().append(true).create(true).open(log) {
        let _ = log.write_all(line.as_bytes());
    }
}
