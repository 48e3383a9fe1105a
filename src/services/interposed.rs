//! `dlopen` for a library that stands between a program and the C library's `dlopen` (`tools/shim`).
//!
//! The program and libraries of `ld.so` call it. The file that `ld.so` would have found for them becomes an
//! image, and they get a handle like those that images get from their own `dlopen`.
//!
//! Source: `dlopen(3)`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};

use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::base::promise::MayRun;
use crate::host::dl;
use crate::host::search::{FileId, Searcher};
use crate::images::dl_handles;
use crate::images::named;
use crate::images::registry;
use crate::images::scope::Scope;
use crate::load::settings::Settings;
use crate::memory::bytes::Bytes;
use crate::services::dlopen::{handle_of, load};

/// Whether it is a handle of an image.
pub(crate) fn is_handle(handle: *mut c_void) -> bool {
    dl_handles::image(handle).is_some()
}

/// Whether an image lies at this address.
pub(crate) fn is_of_image(address: usize) -> bool {
    registry::has_address(address)
}

/// A handle of the image in the namespace of the settings that is called `name`, if there is one.
pub(crate) fn open_named(
    settings: &Settings,
    name: &CStr,
    flags: c_int,
) -> Result<Option<*mut c_void>, Error> {
    let Some(namespace) = &settings.namespace else { return Ok(None) };
    let image = named::named(namespace, name.to_bytes())?;
    image.map(|image| handle_of(image, flags)).transpose()
}

/// A handle of the image in the namespace of the settings that was read from this file, if there is one.
pub(crate) fn open_loaded(
    settings: &Settings,
    file: &Path,
    flags: c_int,
) -> Result<Option<*mut c_void>, Error> {
    let (Some(namespace), Some(id)) = (&settings.namespace, FileId::of(file)) else {
        return Ok(None);
    };
    let image = named::of_file(namespace, id)?;
    image.map(|image| handle_of(image, flags)).transpose()
}

/// The file that `ld.so` finds for a name without a slash, for a library of its own that this address lies in.
pub(crate) fn find(name: &CStr, caller: usize) -> Result<Option<PathBuf>, Error> {
    let Some(folders) = dl::folders_of(caller) else { return Ok(None) };
    Searcher::new().find_in(name, &folders)
}

/// A handle of an image of this file. It is loaded, unless it is in the namespace of the settings.
pub(crate) fn open(
    settings: Settings,
    file: &Path,
    flags: c_int,
    may_run: MayRun,
) -> Result<*mut c_void, Error> {
    require_memory()?;
    let namespace = settings.namespace.clone();
    let id = FileId::of(file);
    let claim = match (&namespace, id) {
        (Some(namespace), Some(id)) => Some(namespace.claim(id)?),
        _ => None,
    };
    if let Some(handle) = open_loaded(&settings, file, flags)? {
        return Ok(handle);
    }
    let is_deep = flags & libc::RTLD_DEEPBIND != 0;
    let settings = Settings {
        name: Some(file.to_string_lossy().into()),
        file: id,
        lazy: flags & libc::RTLD_LAZY != 0,
        global: flags & libc::RTLD_GLOBAL != 0,
        scope: if is_deep { Scope::SelfFirst } else { settings.scope },
        // All calls of `dlopen` by libraries of `ld.so` come here anyway.
        cover: |_| Ok(()),
        ..settings
    };
    let unreadable = |error| Error::system("reading a library's file", error);
    let bytes = std::fs::read(file).map_err(unreadable)?;
    let image = load(settings, Bytes::Borrowed(&bytes), claim, may_run)?;
    handle_of(image, flags)
}
