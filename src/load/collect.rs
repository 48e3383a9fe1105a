//! Collecting: parses the root image and, breadth first, the libraries that it needs.
//!
//! A `DT_NEEDED` entry is satisfied by an image in memory, by provided bytes, or by a library of the
//! process; else the system opens the library, which runs its constructors, if the caller allows that.
//! Nothing is bound or mapped here. Which libraries become members though the system could open them,
//! is decided in [`needed`]. A filtee (`DT_FILTER`, `DT_AUXILIARY`) is a needed library that stands before
//! its filter in every searchlist; an auxiliary one may be absent.
//!
//! Sources: gABI "Shared Object Dependencies"; filters: glibc `elf/dl-deps.c`.

#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::arch::MACHINE;
use crate::base::addr::PageSize;
use crate::base::error::{Error, MissingLibrary, MissingSymbol, MissingVersion};
use crate::base::fallible::{
    TryGrow, require_memory, require_memory_for_next, try_collect, try_vec,
};
use crate::base::limits;
use crate::base::members::member_mut;
use crate::base::promise::MayRun;
use crate::elf::decoded::Filtee;
use crate::host::global_scope::GlobalScope;
use crate::host::library::HostLibrary;
use crate::images::dlsym;
use crate::images::group::{ImageRef, LoadGroup, Provider};
use crate::images::registry;
use crate::link::needed::{self, Surroundings};
use crate::load::admission;
use crate::load::settings::Settings;
use crate::memory::bytes::{Bytes, Image};

/// A member whose references are not bound yet.
pub(super) struct Parsed<'d> {
    pub name: Arc<str>,
    pub image: Image<'d>,
    /// Filtees included.
    pub needed: Vec<Provider>,
    /// The libraries whose definitions come before its own.
    pub filtees: Vec<Provider>,
    /// It is a copy of a library of the system.
    pub of_system: bool,
}

/// A library of the system as bytes, by the name that it is needed by.
pub(super) type SystemCopy = (Arc<str>, Bytes<'static>);

/// The root image and the libraries that it needs that are not loaded. `system_copies` are libraries of
/// the system that become members.
pub(super) fn collect<'d>(
    settings: &Settings,
    bytes: Bytes<'d>,
    system_copies: &[SystemCopy],
    may_run: Option<MayRun>,
) -> Result<Vec<Parsed<'d>>, Error> {
    let root = settings.name.as_deref().unwrap_or("image");
    settings.policy.verify(root, &bytes)?;
    let parsed = vec![settings.parse(settings.name.clone(), bytes)?];
    let (opener_images, global_images) = (settings.opener_images()?, registry::global_images()?);
    Collector { settings, system_copies, may_run, opener_images, global_images, parsed }.collect()
}

/// A load group that is being collected.
struct Collector<'s, 'd> {
    settings: &'s Settings,
    system_copies: &'s [SystemCopy],
    may_run: Option<MayRun>,
    /// Loaded images that the group sees before the host.
    opener_images: Vec<ImageRef>,
    /// Loaded images that every group sees.
    global_images: Vec<ImageRef>,
    parsed: Vec<Parsed<'d>>,
}

/// An image or bytes in memory that satisfy a `DT_NEEDED` entry.
enum InMemory<'a> {
    Loaded(Provider),
    /// Provided, and not parsed yet; and whether it is a copy of a library of the system.
    Bytes(&'a Arc<str>, &'a Bytes<'static>, bool),
}

/// Why a needed library cannot be used.
enum NotFound {
    /// Nothing supplies it.
    Missing(Option<String>),
    /// It exists, and is refused.
    Bad(Error),
}

impl NotFound {
    /// Whether it is the library of this name itself that is absent or no library, and not one that it needs.
    /// `ld.so` does then without it, if it is `DT_AUXILIARY`.
    fn is_of(&self, name: &CStr) -> bool {
        let file_name =
            |path: &[u8]| Path::new(OsStr::from_bytes(path)).file_name().map(OsStr::to_owned);
        match self {
            NotFound::Missing(None) => true,
            // Checked once all libraries are there.
            NotFound::Missing(Some(reason))
                if reason.ends_with("CPU ISA level is lower than required") =>
            {
                false
            }
            NotFound::Missing(Some(reason)) => {
                let subject = reason.split_once(": ").map(|(subject, _)| subject);
                subject.is_some_and(|it| file_name(it.as_bytes()) == file_name(name.to_bytes()))
            }
            NotFound::Bad(error) => is_no_library(error),
        }
    }
}

/// Whether it is an error of bytes that are no library that memdl can load.
fn is_no_library(error: &Error) -> bool {
    matches!(error, Error::Malformed { .. } | Error::Unsupported { .. })
}

impl<'s, 'd> Collector<'s, 'd> {
    /// Collects the libraries that the members need, breadth first.
    fn collect(mut self) -> Result<Vec<Parsed<'d>>, Error> {
        let mut missing_libraries = Vec::new();
        for index in 0.. {
            let Some(member) = self.parsed.get(index) else { break };
            let (needed_by, decoded) = (member.name.clone(), member.image.decoded.clone());
            let folders = needed::folders(&decoded, &needed_by)?;
            let needed = needed::names(&decoded, &needed_by)?;
            let mut providers = try_vec(needed.len())?;
            let filtees = &decoded.filtees;
            let is_optional =
                |index: usize| filtees.iter().any(|it| it.index == index && it.is_optional);
            for (at, name) in needed.iter().enumerate() {
                require_memory_for_next(at)?;
                providers.push(match self.find_needed(name) {
                    Err(error) if is_optional(at) && is_no_library(&error) => None,
                    found => found?,
                });
            }
            self.add_members(&needed, &folders, &mut providers)?;
            // The system opens the rest, from the last to the first, which is how `ld.so` relocates them:
            // the last ones are those that the others use.
            for (at, (name, provider)) in needed.iter().zip(&mut providers).enumerate().rev() {
                if provider.is_some() {
                    continue;
                }
                require_memory()?;
                match self.open_needed(name, &folders) {
                    Ok(opened) => *provider = Some(opened),
                    Err(refusal) if is_optional(at) && refusal.is_of(name) => {}
                    Err(NotFound::Missing(reason)) => {
                        missing_libraries.try_push(MissingLibrary {
                            name: name.to_string_lossy().into_owned(),
                            needed_by: needed_by.to_string(),
                            reason,
                        })?
                    }
                    Err(NotFound::Bad(error)) => return Err(error),
                }
            }
            let of_filtee = |it: &Filtee| providers.get(it.index).cloned().flatten();
            let member = member_mut(&mut self.parsed, index);
            if !filtees.is_empty() {
                member.filtees = try_collect(filtees.iter().filter_map(of_filtee))?;
            }
            member.needed = try_collect(providers.into_iter().flatten())?;
        }
        missing_libraries.reverse();
        if missing_libraries.is_empty() {
            Ok(self.parsed)
        } else {
            Err(missing(&self.parsed, missing_libraries, vec![], vec![]))
        }
    }

    /// The library that satisfies a `DT_NEEDED` entry, unless it must be opened first. Provided bytes
    /// become a member.
    fn find_needed(&mut self, needed: &CStr) -> Result<Option<Provider>, Error> {
        match self.in_memory(needed.to_bytes()) {
            Some(InMemory::Loaded(provider)) => Ok(Some(provider)),
            Some(InMemory::Bytes(name, bytes, of_system)) => {
                self.add_member(name.clone(), bytes.clone(), of_system).map(Some)
            }
            None => Ok(HostLibrary::loaded(needed)?.map(Provider::Host)),
        }
    }

    /// The image or the bytes in memory that satisfy a `DT_NEEDED` entry of this name.
    fn in_memory(&self, name: &[u8]) -> Option<InMemory<'s>> {
        let settings = self.settings;
        let is_it = |member: &Parsed<'_>| member.image.decoded.is_called(&member.name, name);
        if let Some(index) = self.parsed.iter().position(is_it) {
            return Some(InMemory::Loaded(Provider::Member(index)));
        }
        let in_group = |group: &Arc<LoadGroup>| {
            let index = (0..group.len()).find(|&index| group.member(index).is_called(name))?;
            Some(Provider::Image(ImageRef::new(group.clone(), index)))
        };
        if let Some(loaded) = settings.depends_on.iter().find_map(in_group) {
            return Some(InMemory::Loaded(loaded));
        }
        let in_images = |images: &[ImageRef]| {
            let found = images.iter().find(|it| it.image().is_called(name));
            found.map(|it| InMemory::Loaded(Provider::Image(it.clone())))
        };
        let provided = settings.provided.iter().map(|it| (it, false));
        let mut provided = provided.chain(self.system_copies.iter().map(|it| (it, true)));
        in_images(&self.opener_images)
            .or_else(|| {
                let is_it = |it: &(&(Arc<str>, Bytes<'_>), bool)| it.0.0.as_bytes() == name;
                let ((name, bytes), of_system) = provided.find(is_it)?;
                Some(InMemory::Bytes(name, bytes, of_system))
            })
            .or_else(|| in_images(&self.global_images))
    }

    /// Makes members of the needed libraries that the system could open, but that must see the
    /// group's images.
    fn add_members(
        &mut self,
        needed: &[CString],
        folders: &[PathBuf],
        providers: &mut [Option<Provider>],
    ) -> Result<(), Error> {
        let to_open = needed.iter().zip(&*providers).filter(|(_, provider)| provider.is_none());
        let count = to_open.clone().count();
        if !self.settings.system_libraries || count == 0 {
            return Ok(());
        }
        let mut names = try_vec(count)?;
        for (name, _) in to_open {
            require_memory()?;
            names.push(name.clone());
        }
        let mut loaded =
            try_collect(self.opener_images.iter().chain(&self.global_images).cloned())?;
        let provided = self.parsed.iter().flat_map(|member| &member.needed);
        for provider in provided.chain(providers.iter().flatten()) {
            if matches!(provider, Provider::Image(_)) {
                loaded.try_extend(dlsym::images_needed(provider.clone())?)?;
            }
        }
        let images = || {
            let loaded = loaded.iter().map(|it| it.image().symbols());
            let members = self.parsed.iter().flat_map(|member| member.image.symbols());
            try_collect(members.chain(loaded))
        };
        let surroundings = Surroundings {
            images: &images,
            is_in_memory: &|name| self.in_memory(name).is_some(),
            defined: &self.settings.defined,
            host: &GlobalScope::new()?,
            limits: &self.settings.limits,
        };
        let files = surroundings.members(names, folders)?;
        for (name, provider) in needed.iter().zip(providers) {
            let Some(file) = files.get(name) else { continue };
            // It may have become a member by now, under another name.
            *provider = self.find_needed(name)?;
            if provider.is_none()
                && let Some(bytes) = read_file(file)?
            {
                *provider = match self.add_member(file.to_string_lossy().into(), bytes, true) {
                    // Left to the system, which has its own reasons to refuse it.
                    Err(error) if is_no_library(&error) => None,
                    Err(Error::Processor { .. }) => None,
                    member => Some(member?),
                };
            }
        }
        Ok(())
    }

    /// Lets the system open a needed library, if the caller allows that.
    fn open_needed(&mut self, needed: &CStr, folders: &[PathBuf]) -> Result<Provider, NotFound> {
        let Some(may_run) = self.may_run.filter(|_| self.settings.system_libraries) else {
            return Err(NotFound::Missing(None));
        };
        let refusal = match HostLibrary::open(needed, folders, may_run) {
            Ok(library) => return Ok(Provider::Host(library)),
            Err(refusal) => refusal,
        };
        // A library that needs symbols of the images that it is needed with cannot be opened alone: it
        // becomes a member, and shares their scope.
        let Some(file) = refusal.file else { return Err(NotFound::Missing(Some(refusal.text))) };
        let bytes = read_file(&file).map_err(NotFound::Bad)?;
        let bytes = bytes.ok_or(NotFound::Missing(Some(refusal.text)))?;
        self.add_member(file.to_string_lossy().into(), bytes, true).map_err(NotFound::Bad)
    }

    fn add_member(
        &mut self,
        name: Arc<str>,
        bytes: Bytes<'static>,
        of_system: bool,
    ) -> Result<Provider, Error> {
        let index = self.parsed.len();
        let count = (index as u64).saturating_add(1);
        limits::check("the number of images in one load", count, self.settings.limits.images)?;
        require_memory()?;
        self.settings.policy.verify(&name, &bytes)?;
        let member = self.settings.parse(Some(name), bytes)?;
        self.parsed.try_push(Parsed { of_system, ..member })?;
        Ok(Provider::Member(index))
    }
}

impl Settings {
    /// Whether these bytes are a library with a `DT_NEEDED` entry that an image in the opener's scope
    /// satisfies.
    pub(crate) fn needs_opener(&self, bytes: &[u8]) -> Result<bool, Error> {
        let images = self.opener_images()?;
        let parsed = match self.parse(None, Bytes::Borrowed(bytes)) {
            Ok(parsed) => parsed,
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(_) => return Ok(false),
        };
        Ok(parsed.image.decoded.needed.iter().any(|name| {
            let name = name.to_bytes();
            images.iter().any(|it| it.image().is_called(name))
        }))
    }

    fn parse<'d>(&self, name: Option<Arc<str>>, bytes: Bytes<'d>) -> Result<Parsed<'d>, Error> {
        let shown = name.as_deref().unwrap_or("image");
        let image = Image::parse(bytes, &MACHINE, PageSize::current(), &self.limits);
        let image = image.and_then(|image| admission::check(&image.decoded).map(|()| image));
        let image = image.map_err(|error| error.in_image(shown))?;
        let name = name.unwrap_or_else(|| match &image.decoded.soname {
            Some(soname) => soname.to_string_lossy().into(),
            None => "image".into(),
        });
        Ok(Parsed { name, image, needed: Vec::new(), filtees: Vec::new(), of_system: false })
    }
}

/// The error that lists what a group lacks.
pub(super) fn missing(
    parsed: &[Parsed<'_>],
    libraries: Vec<MissingLibrary>,
    versions: Vec<MissingVersion>,
    symbols: Vec<MissingSymbol>,
) -> Error {
    let image = parsed.first().map_or(String::new(), |root| root.name.to_string());
    Error::Missing { image, libraries, versions, symbols }
}

/// A file's contents; `None` if the file cannot be read. Only lack of memory is an error.
pub(super) fn read_file(path: &Path) -> Result<Option<Bytes<'static>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Bytes::Read(Arc::new(bytes)))),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
            Err(Error::system("reading a library's file", error))
        }
        Err(_) => Ok(None),
    }
}
