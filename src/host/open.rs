//! Opening libraries through `ld.so`, and finding those that it has loaded.
//!
//! Never binds a reference.
//!
//! Sources: `dlopen(3)`; gABI "Shared Object Dependencies".

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::{require_memory, try_collect_ok};
use crate::base::promise::MayRun;
use crate::host::dl::{Handle, find_file, last_dl_error, search_folders};
use crate::host::library::HostLibrary;
use crate::host::opened::known_entry;
use crate::host::phdr::{PhdrEntry, listed, listed_if};
use crate::host::startup_set::startup_set;

/// The number of dependencies that are opened before a library.
const MAX_NEEDED: usize = 64;

/// Why `ld.so` did not open a library.
pub(crate) struct OpenError {
    pub text: String,
    /// The library's file, if it exists and only a reference of it could not be bound.
    pub file: Option<PathBuf>,
}

impl HostLibrary {
    /// The library behind an open handle.
    fn held(handle: Handle) -> Result<Option<HostLibrary>, Error> {
        let Some((load_bias, name)) = handle.link_map() else { return Ok(None) };
        let is_it = |listed: &PhdrEntry| listed.load_bias == load_bias && listed.name == name;
        let listed = match known_entry(is_it) {
            Some(listed) => Some(listed),
            None => listed_if(&mut |listed| Ok(is_it(listed)))?.pop(),
        };
        listed.map_or(Ok(None), |listed| HostLibrary::new(listed, Some(handle)))
    }

    /// The library of this name, if the process has loaded it.
    pub(crate) fn loaded(name: &CStr) -> Result<Option<Arc<HostLibrary>>, Error> {
        if let Some(library) = startup_set().iter().find(|library| library.is_called(name)) {
            return Ok(Some(library.clone()));
        }
        let Some(handle) = Handle::loaded(name) else { return Ok(None) };
        Ok(HostLibrary::held(handle)?.map(Arc::new))
    }

    /// The library of this name, opened by `ld.so`: from one of these folders, or from those that `ld.so`
    /// searches. Its constructors run.
    pub(crate) fn open(
        name: &CStr,
        folders: &[PathBuf],
        _: MayRun,
    ) -> Result<Arc<HostLibrary>, OpenError> {
        let file = find_file(name, folders);
        let path = file.as_ref().and_then(|file| CString::new(file.as_os_str().as_bytes()).ok());
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
        // Its dependencies may lie in these folders, too (`DT_RPATH` holds for all that is loaded on behalf
        // of an image): they are opened first.
        let mut needed = Vec::new();
        let mut text = String::new();
        let handle = (0..MAX_NEEDED).find_map(|_| {
            let handle = Handle::open(path.as_deref().unwrap_or(name), flags);
            if handle.is_none() {
                text = last_dl_error().unwrap_or_else(|| "the name is longer than any path".into());
                let missing = text.split_once(": cannot open shared object file");
                let missing = missing.and_then(|(missing, _)| CString::new(missing).ok());
                let file = missing.and_then(|missing| find_file(&missing, folders));
                let file = file.and_then(|it| CString::new(it.as_os_str().as_bytes()).ok());
                match file.and_then(|file| Handle::try_open(&file, flags)) {
                    Some(opened) => needed.push(opened),
                    None => return Some(None),
                }
            }
            handle.map(Some)
        });
        let Some(handle) = handle.flatten() else {
            // Only the message tells the reason. It is never translated: there is no catalogue of messages
            // for `ld.so`.
            let unbound = text.contains("undefined symbol");
            let file = file.or_else(|| find_file(name, &search_folders()));
            return Err(OpenError { file: file.filter(|_| unbound), text });
        };
        let refused = |text: String| OpenError { text, file: None };
        let library = HostLibrary::held(handle).map_err(|error| refused(error.to_string()))?;
        let mut library = library.ok_or_else(|| refused("it has no symbol table".into()))?;
        library.opened_for_image = true;
        Ok(Arc::new(library))
    }

    /// Its direct dependencies that are loaded, filtees included.
    pub(crate) fn dependencies(&self) -> Result<Vec<Arc<HostLibrary>>, Error> {
        loaded(&self.needed)
    }

    /// The libraries whose definitions come before its own, and that are loaded.
    pub(crate) fn filtees(&self) -> Result<Vec<Arc<HostLibrary>>, Error> {
        loaded(&self.filtees)
    }
}

/// The libraries of these names that are loaded.
fn loaded(names: &[CString]) -> Result<Vec<Arc<HostLibrary>>, Error> {
    let loaded = names.iter().map(|name| HostLibrary::loaded(name));
    try_collect_ok(loaded.filter_map(Result::transpose))
}

/// The file names, without folders, of the process's libraries.
pub(crate) fn loaded_files() -> Result<HashSet<Vec<u8>>, Error> {
    let file_name = |it: PhdrEntry| Some(Path::new(it.name.to_str().ok()?).file_name()?.to_owned());
    let files = listed()?;
    // The set has no more entries than the list.
    require_memory()?;
    Ok(files.into_iter().filter_map(file_name).map(OsString::into_vec).collect())
}

/// Whether the process has loaded a library of this name.
pub(crate) fn is_loaded(name: &CStr) -> bool {
    startup_set().iter().any(|library| library.is_called(name)) || Handle::loaded(name).is_some()
}
