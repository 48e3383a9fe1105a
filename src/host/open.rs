//! Opening libraries through `ld.so`, and finding those that it has loaded.
//!
//! Never binds a reference, and searches for no file ([`crate::host::search`] does).
//!
//! Sources: `dlopen(3)`; gABI "Shared Object Dependencies".

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsString, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::{require_memory, try_collect, try_collect_ok};
use crate::base::promise::MayRun;
use crate::host::dl::{Handle, last_dl_error};
use crate::host::known;
use crate::host::library::HostLibrary;
use crate::host::opened::known_entry;
use crate::host::phdr::{PhdrEntry, listed, listed_if};
use crate::host::process;
use crate::host::startup_set::startup_set;

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
        HostLibrary::find(name, known::is_marked)
    }

    /// As [`HostLibrary::loaded`]. `is_permanent` says whether a library outside the start-up set is never unloaded.
    fn find(
        name: &CStr,
        is_permanent: impl Fn(&HostLibrary) -> bool,
    ) -> Result<Option<Arc<HostLibrary>>, Error> {
        if let Some(library) = startup_set().iter().find(|library| library.is_called(name)) {
            return Ok(Some(library.clone()));
        }
        if let Some(library) = known::named(name) {
            return Ok(Some(library));
        }
        let Some(handle) = Handle::loaded(name) else { return Ok(None) };
        let Some(mut library) = HostLibrary::held(handle)? else { return Ok(None) };
        library.is_permanent = is_permanent(&library);
        let library = Arc::new(library);
        known::remember(name, &library)?;
        Ok(Some(library))
    }

    /// The one that memdl is linked into.
    pub(crate) fn of_this_code() -> Result<Option<Arc<HostLibrary>>, Error> {
        match process::own_name() {
            Some(name) if name.is_empty() => Ok(startup_set().first().cloned()),
            Some(name) => HostLibrary::loaded(&name),
            None => Ok(None),
        }
    }

    /// The library of the last of these files, opened by `ld.so`. The others are opened before and closed
    /// afterwards: libraries that it needs and that `ld.so` would not find on its own. Their constructors
    /// run. The scope of a library that `binds_itself_first` begins with itself (`RTLD_DEEPBIND`).
    pub(crate) fn open(
        files: &[PathBuf],
        binds_itself_first: bool,
        may_run: MayRun,
    ) -> Result<Arc<HostLibrary>, OpenError> {
        let deep = if binds_itself_first { libc::RTLD_DEEPBIND } else { 0 };
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | deep;
        let refused = |text: String| OpenError { text, file: None };
        let Some((file, needed)) = files.split_last() else {
            return Err(refused("no file".into()));
        };
        let _needed = HostLibrary::open_all(needed, may_run);
        let Some(handle) = open_file(file, flags) else {
            // Only the message tells the reason. It is never translated: there is no catalogue of messages
            // for `ld.so`.
            let text = last_dl_error().unwrap_or_else(|| "the name is longer than any path".into());
            let is_unbound = text.contains("undefined symbol")
                || !needed.is_empty() && text.contains("cannot open shared object file");
            return Err(OpenError { text, file: is_unbound.then(|| file.clone()) });
        };
        let library = HostLibrary::held(handle).map_err(|error| refused(error.to_string()))?;
        let mut library = library.ok_or_else(|| refused("it has no symbol table".into()))?;
        library.opened_for_image = true;
        Ok(Arc::new(library))
    }

    /// Keeps a library that was opened for an image loaded, once the load has succeeded. Such a library may
    /// have threads of its own that outlive every call into it (libgomp's pool does), and the next load of
    /// the image needs it again.
    pub(crate) fn stay_loaded(&self) -> Result<(), Error> {
        if self.opened_for_image {
            let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            if Handle::try_open(&self.name, flags).is_some() {
                known::mark(self)?;
            }
        }
        Ok(())
    }

    /// Opens libraries that another needs. One that cannot be bound alone may be bound with that one.
    pub(crate) fn open_all(files: &[PathBuf], _: MayRun) -> Vec<Handle> {
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
        files.iter().filter_map(|file| open_file(file, flags)).collect()
    }

    /// Whether the process has loaded the library at this path.
    pub(crate) fn is_open_file(path: &CStr) -> bool {
        Handle::loaded(path).is_some()
    }

    /// Its direct dependencies that are loaded, filtees included.
    pub(crate) fn dependencies(&self) -> Result<Vec<Arc<HostLibrary>>, Error> {
        // Filtees may be loaded later than their filter.
        if !self.is_permanent || self.is_filter {
            return loaded(self.needed());
        }
        if self.known_dependencies.get().is_none() {
            // They stay as long as this library does.
            let found = self.needed().map(|name| HostLibrary::find(name, |_| true));
            let found = try_collect_ok(found.filter_map(Result::transpose))?;
            let _ = self.known_dependencies.set(found);
        }
        Ok(try_collect(self.known_dependencies.get().into_iter().flatten().cloned())?)
    }

    /// The libraries whose definitions come before its own, and that are loaded.
    pub(crate) fn filtees(&self) -> Result<Vec<Arc<HostLibrary>>, Error> {
        loaded(self.filtee_names())
    }
}

/// The libraries of these names that are loaded.
fn loaded<'a>(names: impl Iterator<Item = &'a CStr>) -> Result<Vec<Arc<HostLibrary>>, Error> {
    let loaded = names.map(HostLibrary::loaded);
    try_collect_ok(loaded.filter_map(Result::transpose))
}

fn open_file(file: &Path, flags: c_int) -> Option<Handle> {
    Handle::open(&c_path(file)?, flags)
}

/// A path for `ld.so`, which searches for one without a slash. `None` for a path with a NUL.
pub(crate) fn c_path(file: &Path) -> Option<CString> {
    let is_name = file.components().nth(1).is_none();
    let path = if is_name { Path::new(".").join(file) } else { file.to_owned() };
    CString::new(path.into_os_string().into_vec()).ok()
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
