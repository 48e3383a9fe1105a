//! `dlopen` and `dlclose`, for callers in images, and for libraries that call `dlopen` for images.
//!
//! What is opened is searched for as `ld.so` would for the image: among the images of its namespace, by name
//! and by file, then in its search path. A library that must be bound to images becomes one, in the same
//! namespace. `ld.so` opens all others, so that the process has one copy of them.
//!
//! Which libraries must be bound to images is decided in `link/needed.rs`, as at a load.
//!
//! Source: `dlopen(3)`; glibc `elf/dl-open.c`, `elf/dl-load.c`.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::{OutOfMemory, has_spare_memory, lossy, require_memory};
use crate::base::promise::MayRun;
use crate::debug::Instances;
use crate::host::library::HostLibrary;
use crate::host::open::c_path;
use crate::host::search::{self, FileId, Searcher};
use crate::images::dl_handles;
use crate::images::dlsym;
use crate::images::global;
use crate::images::group::{ImageRef, LoadGroup, LoadedImage, Provided, Provider, Source};
use crate::images::named;
use crate::images::namespace::Claim;
use crate::images::policy;
use crate::images::provider::LibraryRequest;
use crate::images::registry;
use crate::images::roots;
use crate::images::scope::Scope;
use crate::link::needed::Supply;
use crate::load::collect::no_such_file;
use crate::load::instantiate;
use crate::load::settings::Settings;
use crate::memory::bytes::Bytes;
use crate::services::callers;
use crate::services::dlfcn::{fail, forget_error, no_memory};

arch::with_return_address! {
    /// `dlopen`, with its return address.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlopen(path: *const c_char, flags: c_int) => dlopen_for;
}

arch::with_return_address! {
    /// `dlopen` for images whose policy may refuse libraries.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlopen_restricted(path: *const c_char, flags: c_int) => dlopen_restricted_for;
}

/// # Safety
/// As [`dlopen_for`].
unsafe extern "C-unwind" fn dlopen_restricted_for(
    path: *const c_char,
    flags: c_int,
    caller: usize,
) -> *mut c_void {
    let is_known = registry::image_at(caller).is_some_and(|it| it.group().policy().is_restricted());
    // SAFETY: the caller's promise.
    let name = (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) });
    // The caller is some restricted image, which one is unknown.
    if !is_known
        && flags & libc::RTLD_NOLOAD == 0
        && let Some(name) = name.filter(|name| name.to_bytes().contains(&b'/'))
        && let Ok(bytes) = std::fs::read(OsStr::from_bytes(name.to_bytes()))
        && let Err(error) = policy::all_verify(&lossy(name.to_bytes()), &bytes)
    {
        return fail(error);
    }
    // SAFETY: the caller's promise.
    unsafe { dlopen_for(path, flags, caller) }
}

/// # Safety
/// `path` is null or a C string. Runs the library's constructors.
unsafe extern "C-unwind" fn dlopen_for(
    path: *const c_char,
    flags: c_int,
    caller: usize,
) -> *mut c_void {
    forget_error();
    let caller = if path.is_null() { None } else { callers::image(caller) };
    let Some(caller) = caller else {
        // SAFETY: the caller's promise, passed on. Null asks for the executable.
        return unsafe { libc::dlopen(path, flags) };
    };
    // SAFETY: the caller's promise.
    let (name, may_run) = unsafe { (CStr::from_ptr(path), MayRun::promised()) };
    match (Call { caller, flags, may_run }).open(name) {
        Ok(handle) => handle,
        Err(Failure::Text(text)) => fail(text),
        Err(Failure::Memory) => no_memory(),
    }
}

/// Why nothing was opened.
pub(super) enum Failure {
    Text(String),
    Memory,
}

impl From<OutOfMemory> for Failure {
    fn from(_: OutOfMemory) -> Failure {
        Failure::Memory
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::OutOfMemory { .. } => Failure::Memory,
            error => Failure::Text(error.to_string()),
        }
    }
}

/// A call of `dlopen`.
pub(super) struct Call {
    pub caller: ImageRef,
    pub flags: c_int,
    /// The caller of `dlopen` asks for constructors to run.
    pub may_run: MayRun,
}

impl Call {
    fn open(&self, name: &CStr) -> Result<*mut c_void, Failure> {
        if !has_spare_memory() {
            return Err(Failure::Memory);
        }
        let name = search::expand_name(name, &self.caller.image().name);
        let is_path = name.to_bytes().contains(&b'/');
        if let Some(image) = self.image_of_name(&name)? {
            return Ok(self.handle_of(image)?);
        }
        if let Some(handle) = self.provided(&name)? {
            return Ok(handle);
        }
        let namespace = self.caller.group().namespace();
        if let Some(library) = named::host_library(namespace, name.to_bytes())?
            && let Some(handle) = self.system_handle(library.path(), libc::RTLD_NOLOAD)
        {
            return Ok(handle);
        }
        if !is_path && let Some(handle) = self.system_handle(&name, libc::RTLD_NOLOAD) {
            return Ok(handle);
        }
        let file = if is_path {
            PathBuf::from(OsStr::from_bytes(name.to_bytes()))
        } else {
            let found = Searcher::new().find(&name, &self.caller.image().search_path)?;
            found.ok_or_else(|| Failure::Text(no_such_file(&name)))?.path
        };
        let alias = (!is_path).then(|| name.to_bytes().into());
        match self.open_image(&file, alias)? {
            Opened::Image(image) => Ok(self.handle_of(image)?),
            Opened::Not => Ok(std::ptr::null_mut()),
            Opened::OfSystem(files) => self.open_system(&file, &files),
        }
    }

    /// The image that the caller means by a name: of its namespace, of its scope, or a global one.
    pub(super) fn image_of_name(&self, name: &CStr) -> Result<Option<ImageRef>, Error> {
        let group = self.caller.group();
        if let Some(image) = named::named(group.namespace(), name.to_bytes())? {
            return Ok(Some(image));
        }
        let mut in_scope = dlsym::images_in_scope(group)?.into_iter();
        let found = in_scope.find(|it| it.image().is_called(name.to_bytes()));
        Ok(found.or_else(|| registry::global_named(name.to_bytes())))
    }

    /// What the provider of the caller's load has for a name.
    pub(super) fn provided(&self, name: &CStr) -> Result<Option<*mut c_void>, Failure> {
        let Some(provider) = &self.caller.group().context().provider else { return Ok(None) };
        if self.flags & libc::RTLD_NOLOAD != 0 {
            return Ok(None);
        }
        let text = lossy(name.to_bytes());
        let LoadedImage { name: needed_by, search_path, .. } = self.caller.image();
        let image = match provider(&LibraryRequest { name: &text, needed_by, search_path }) {
            None => return Ok(None),
            Some(Provided(Source::Group(group))) => ImageRef::new(group, 0),
            Some(Provided(Source::Failed(reason))) => {
                return Err(Failure::Text(format!("{text}: {reason}")));
            }
            Some(Provided(Source::Bytes(bytes, None))) => {
                self.load(self.settings(&text, None), bytes, None)?
            }
            Some(Provided(Source::Bytes(bytes, Some(own_name)))) => {
                let namespace = self.caller.group().namespace();
                match named::named(namespace, own_name.as_bytes())? {
                    Some(image) => image,
                    None => {
                        let alias = Some(name.to_bytes().into());
                        let settings = Settings { alias, ..self.settings(&own_name, None) };
                        self.load(settings, bytes, None)?
                    }
                }
            }
        };
        Ok(Some(self.handle_of(image)?))
    }

    /// Opens a file, which was searched by `alias` if it was named without a slash, unless `ld.so` is to do
    /// so.
    pub(super) fn open_image(
        &self,
        file: &Path,
        alias: Option<Arc<[u8]>>,
    ) -> Result<Opened, Failure> {
        require_memory()?;
        // `ld.so` says what is wrong with it.
        if !file.is_file() {
            return Ok(Opened::OfSystem(Vec::new()));
        }
        let namespace = self.caller.group().namespace();
        let id = FileId::of(file);
        let claim = id.map(|id| namespace.claim(id)).transpose()?;
        if let Some(id) = id
            && let Some(image) = named::of_file(namespace, id)?
        {
            return Ok(Opened::Image(image));
        }
        let path = c_path(file).ok_or_else(|| no_path(file))?;
        if HostLibrary::is_open_file(&path) {
            return Ok(Opened::OfSystem(Vec::new()));
        }
        if self.flags & libc::RTLD_NOLOAD != 0 {
            return Ok(Opened::Not);
        }
        let settings = Settings { alias, ..self.settings(&file.to_string_lossy(), id) };
        // The system does not open bytes that the verifier refuses.
        if settings.policy.verifier.is_some()
            && let Ok(bytes) = std::fs::read(file)
        {
            settings.policy.verify(&file.to_string_lossy(), &bytes)?;
        }
        match settings.supply(&path)? {
            Some(Supply::Member(_)) => Ok(Opened::Image(self.load_file(settings, file, claim)?)),
            Some(Supply::System(files)) => Ok(Opened::OfSystem(files)),
            None => Ok(Opened::OfSystem(Vec::new())),
        }
    }

    /// Lets `ld.so` open a file, after those that it needs and would not find.
    fn open_system(&self, file: &Path, files: &[PathBuf]) -> Result<*mut c_void, Failure> {
        let needed = files.split_last().map_or(&[][..], |(_, needed)| needed);
        let _needed = HostLibrary::open_all(needed, self.may_run);
        // Bound at once, so that a failure shows here.
        let path = c_path(file).ok_or_else(|| no_path(file))?;
        if let Some(handle) = self.system_handle(&path, libc::RTLD_NOW) {
            roots::register_if_opened();
            // Without memory it calls `ld.so`, as it would without memdl.
            if let Ok(Some(library)) = HostLibrary::loaded(&path) {
                let _ = (self.caller.group().context().cover)(&[Provider::Host(library)]);
            }
            return Ok(handle);
        }
        // SAFETY: no preconditions. There is an error, whose text is valid until the next call in this
        // thread.
        let refusal = unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned();
        if !refusal.contains("undefined symbol") {
            return Err(Failure::Text(refusal));
        }
        // It may be bound with the images in the caller's scope.
        let settings = self.settings(&file.to_string_lossy(), FileId::of(file));
        match self.load_file(settings, file, None) {
            Ok(image) => Ok(self.handle_of(image)?),
            Err(Failure::Memory) => Err(Failure::Memory),
            Err(Failure::Text(ours)) => Err(Failure::Text(format!("{refusal}; {ours}"))),
        }
    }

    /// `ld.so`'s handle of a library. It leaves the error for `dlerror` if `more` asks for a load.
    fn system_handle(&self, name: &CStr, more: c_int) -> Option<*mut c_void> {
        let flags = match more {
            libc::RTLD_NOLOAD => self.flags | libc::RTLD_NOLOAD,
            _ => self.flags & !libc::RTLD_LAZY | more,
        };
        // SAFETY: a C string; constructors run only as the caller of `dlopen` asks for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        if handle.is_null() && more == libc::RTLD_NOLOAD {
            // SAFETY: no preconditions. Discards the text.
            unsafe { libc::dlerror() };
        }
        (!handle.is_null()).then_some(handle)
    }

    /// The settings with which the caller's load goes on.
    fn settings(&self, name: &str, file: Option<FileId>) -> Settings {
        let group = self.caller.group();
        let context = group.context();
        let is_deep = self.flags & libc::RTLD_DEEPBIND != 0;
        Settings {
            name: Some(name.into()),
            file,
            lazy: self.flags & libc::RTLD_LAZY != 0,
            scope: if is_deep { Scope::SelfFirst } else { context.scope },
            system_libraries: true,
            opener: Some(self.caller.clone()),
            namespace: Some(group.namespace().clone()),
            provider: context.provider.clone(),
            // Inherit the opener's debug level.
            debug: self.caller.image().debug.debug(),
            policy: group.policy().without_panics(),
            ..Settings::new(context.services, context.cover)
        }
    }

    fn load_file(
        &self,
        settings: Settings,
        file: &Path,
        claim: Option<Claim<'_, LoadGroup>>,
    ) -> Result<ImageRef, Failure> {
        let unreadable = |error| Error::system("reading a library's file", error);
        let bytes = std::fs::read(file).map_err(unreadable)?;
        Ok(self.load(settings, Bytes::Borrowed(&bytes), claim)?)
    }

    fn load(
        &self,
        settings: Settings,
        bytes: Bytes<'_>,
        claim: Option<Claim<'_, LoadGroup>>,
    ) -> Result<ImageRef, Error> {
        load(settings, bytes, claim, self.may_run)
    }

    /// A handle of an image, with what the flags ask for.
    pub(super) fn handle_of(&self, image: ImageRef) -> Result<*mut c_void, Error> {
        handle_of(image, self.flags)
    }
}

/// Loads an image. Other threads find it before its constructors run, when `claim` ends: two constructors that
/// open each other's libraries must not wait for each other.
pub(super) fn load(
    settings: Settings,
    bytes: Bytes<'_>,
    claim: Option<Claim<'_, LoadGroup>>,
    may_run: MayRun,
) -> Result<ImageRef, Error> {
    let prepared = settings.prepare(bytes, Instances::One, Some(may_run))?;
    let group = instantiate::single_instance_uninitialised(prepared, Some(may_run))?;
    drop(claim);
    // SAFETY: no constructor has run; `dlopen`'s caller asks for them to run.
    unsafe { group.initialise() };
    Ok(ImageRef::new(group, 0))
}

/// A handle of an image, with what the flags ask for.
pub(super) fn handle_of(image: ImageRef, flags: c_int) -> Result<*mut c_void, Error> {
    if flags & libc::RTLD_GLOBAL != 0 {
        global::promote(&image)?;
    }
    if flags & libc::RTLD_NODELETE != 0 {
        registry::pin(&image)?;
    }
    dl_handles::open(image)
}

fn no_path(file: &Path) -> Failure {
    Failure::Text(format!("{}: not a path", file.display()))
}

/// What a file became.
pub(super) enum Opened {
    Image(ImageRef),
    /// It is not loaded, and `RTLD_NOLOAD` was given.
    Not,
    /// `ld.so` has it, or opens it after the others of these files.
    OfSystem(Vec<PathBuf>),
}

/// `dlclose`.
///
/// # Safety
/// As the C library's function. Runs the library's destructors if the handle was the last.
pub(super) unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    forget_error();
    match dl_handles::close(handle) {
        // Its destructors may open and close: no lock is held.
        Some(closed) => drop(closed),
        // SAFETY: the caller's promise, passed on.
        None => return unsafe { libc::dlclose(handle) },
    }
    0
}
