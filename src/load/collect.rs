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

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::arch::{MACHINE, Machine};
use crate::base::error::{Error, MissingLibrary, MissingSymbol, MissingVersion};
use crate::base::fallible::{
    TryGrow, lossy, require_memory, require_memory_for_next, try_collect, try_vec,
};
use crate::base::faults::Faults;
use crate::base::limits;
use crate::base::members::{member, member_mut};
use crate::base::promise::MayRun;
use crate::elf::decoded::{Decoded, Filtee};
use crate::host::global_scope::GlobalScope;
use crate::host::library::{HostLibrary, Resolvers};
use crate::host::open;
use crate::host::search::{self, FileId, SearchPath, Searcher};
use crate::images::dlsym;
use crate::images::group::{ImageRef, LoadGroup, Provided, Provider, Source};
use crate::images::named;
use crate::images::provider::LibraryRequest;
use crate::images::registry;
use crate::images::scope::Scope;
use crate::link::needed::{Supply, Surroundings};
use crate::load::admission;
use crate::load::settings::Settings;
use crate::memory::bytes::{Bytes, Image};
use crate::memory::mapped_file::MappedFile;

/// A member whose references are not bound yet.
pub(super) struct Parsed<'d> {
    pub name: Arc<str>,
    pub image: Image<'d>,
    /// Filtees included.
    pub needed: Vec<Provider>,
    /// The libraries whose definitions come before its own.
    pub filtees: Vec<Provider>,
    /// Where what it needs is searched for.
    pub search_path: SearchPath,
    /// The file that it was read from.
    pub file: Option<FileId>,
    /// The name that it was searched by.
    pub alias: Option<Arc<[u8]>>,
    /// It is a copy of a library of the system.
    pub of_system: bool,
    /// A load would let the system open it: a report examines its file instead.
    pub unopened: Option<Box<Unopened>>,
}

/// What a load would let the system open.
#[derive(Clone)]
pub(super) struct Unopened {
    /// The library that it is opened for, or with: the name that a member needs it by, and that member.
    pub name: String,
    pub needed_by: Arc<str>,
}

/// A needed library, as a report has it.
pub(super) struct Needed {
    pub name: CString,
    /// The index of the member that needs it.
    pub needed_by: usize,
    /// What satisfies it, or why nothing does.
    pub found: Result<Provider, Absence>,
}

/// Why nothing satisfies a needed library, for a report.
pub(super) enum Absence {
    /// The image does without it.
    Optional,
    /// Nothing supplies it, for this reason.
    Missing(String),
    /// It was not searched: the image is for another machine, whose libraries are elsewhere.
    NotSearched,
}

/// What a report has of the collection of a group.
#[derive(Default)]
pub(super) struct Survey {
    pub needed: Vec<Needed>,
    pub faults: Faults,
}

impl Parsed<'_> {
    /// Whether a `DT_NEEDED` entry of this name means this member.
    pub(super) fn is_called(&self, name: &[u8]) -> bool {
        self.image.decoded.is_called(&self.name, name) || self.alias.as_deref() == Some(name)
    }
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
    let mut collector = Collector::new(settings, system_copies, may_run)?;
    collector.add_root(bytes)?;
    collector.collect()?;
    Ok(collector.parsed)
}

/// As [`collect`], for a report: opens nothing, and notes all faults. The error is one that ends the survey;
/// what was found before is kept.
pub(super) fn survey<'d>(
    settings: &Settings,
    bytes: Bytes<'d>,
) -> Result<(Vec<Parsed<'d>>, Survey), Error> {
    let mut collector = Collector::new(settings, &[], None)?;
    collector.survey.faults = Faults::listed();
    let surveyed = collector.add_root(bytes).and_then(|()| collector.collect_surveyed());
    surveyed.or_else(|error| collector.survey.faults.note(error))?;
    Ok((collector.parsed, collector.survey))
}

/// A load group that is being collected.
struct Collector<'s, 'd> {
    settings: &'s Settings,
    system_copies: &'s [SystemCopy],
    may_run: Option<MayRun>,
    /// Loaded images that the group finds by name, too.
    opener_images: Vec<ImageRef>,
    /// What the caller's provider has answered, by name.
    answers: RefCell<BTreeMap<Box<[u8]>, Option<Provided>>>,
    searcher: OnceCell<Searcher>,
    parsed: Vec<Parsed<'d>>,
    /// The root is for another machine, which only a report examines. Nothing of this process satisfies what it needs,
    /// and no file that is searched for here; what the caller supplies does.
    is_foreign: bool,
    /// Its faults end a load.
    survey: Survey,
}

/// What satisfies a `DT_NEEDED` entry without a file.
enum InMemory {
    Loaded(Provider),
    /// Bytes that are not parsed yet.
    Bytes(Unparsed),
}

/// What becomes a member.
struct Unparsed {
    name: Arc<str>,
    bytes: Bytes<'static>,
    /// The name that it is needed by, if that is not `name`.
    alias: Option<Arc<[u8]>>,
    /// It is a copy of a library of the system.
    of_system: bool,
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
            NotFound::Missing(Some(reason)) if reason == FORBIDDEN => true,
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
    fn new(
        settings: &'s Settings,
        system_copies: &'s [SystemCopy],
        may_run: Option<MayRun>,
    ) -> Result<Collector<'s, 'd>, Error> {
        Ok(Collector {
            settings,
            system_copies,
            may_run,
            opener_images: settings.opener_images()?,
            answers: RefCell::default(),
            searcher: OnceCell::new(),
            parsed: Vec::new(),
            is_foreign: false,
            survey: Survey::default(),
        })
    }

    /// Adds the first member.
    fn add_root(&mut self, bytes: Bytes<'d>) -> Result<(), Error> {
        let settings = self.settings;
        let root = settings.name.as_deref().unwrap_or("image");
        let faults = &mut self.survey.faults;
        settings.policy.verify(root, &bytes).or_else(|error| faults.note(error))?;
        let path = settings.opener.as_ref().map(|opener| &opener.image().search_path);
        let (name, file) = (settings.name.clone(), settings.file);
        let mut root = settings.parse(name, bytes, &MACHINE, path, file, faults)?;
        root.alias = settings.alias.clone();
        Ok(self.parsed.try_push(root)?)
    }

    /// Collects for a report.
    fn collect_surveyed(&mut self) -> Result<(), Error> {
        let machine = self.machine();
        self.is_foreign = !machine.is_this();
        if machine.is_known() { self.collect() } else { Ok(()) }
    }

    /// The machine that the group is for: the root's.
    fn machine(&self) -> &'static Machine {
        self.parsed.first().map_or(&MACHINE, |root| root.image.decoded.machine)
    }

    /// Collects the libraries that the members need, breadth first.
    fn collect(&mut self) -> Result<(), Error> {
        let mut missing_libraries = Vec::new();
        for index in 0.. {
            let Some(member) = self.parsed.get(index) else { break };
            let (needed_by, decoded) = (member.name.clone(), member.image.decoded.clone());
            let needed = self.needed_names(&decoded, &needed_by)?;
            let mut providers = try_vec(needed.len())?;
            // Of libraries that are not found, for a report.
            let mut reasons = BTreeMap::new();
            let filtees = &decoded.filtees;
            let is_optional = |at: usize| filtees.iter().any(|it| it.index == at && it.is_optional);
            for (at, name) in needed.iter().enumerate() {
                require_memory_for_next(at)?;
                providers.push(match self.find_needed(name, index) {
                    Err(error) if is_optional(at) && is_no_library(&error) => None,
                    Err(error) => {
                        let reason = error.to_string();
                        self.survey.faults.note(error)?;
                        reasons.insert(at, Absence::Missing(reason));
                        None
                    }
                    found => found?,
                });
            }
            let mut supplies = self.add_members(&needed, index, &mut providers)?;
            let mut supply = |name: &CStr| supplies.as_mut()?.remove(name);
            // The system opens the rest, from the last to the first, which is how `ld.so` relocates them:
            // the last ones are those that the others use.
            for (at, (name, provider)) in needed.iter().zip(&mut providers).enumerate().rev() {
                if provider.is_some() {
                    continue;
                }
                require_memory()?;
                if self.is_survey() {
                    match self.survey_needed(name, supply(name), index)? {
                        Ok(found) => *provider = Some(found),
                        Err(absence) => drop(reasons.entry(at).or_insert(absence)),
                    }
                    continue;
                }
                match self.open_needed(name, supply(name), index) {
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
            if self.is_survey() {
                self.list_needed(&needed, &providers, reasons, index, &is_optional)?;
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
            Ok(())
        } else {
            Err(missing(&self.parsed, missing_libraries, vec![], vec![]))
        }
    }

    /// The `DT_NEEDED` entries of a member.
    fn needed_names<'n>(
        &self,
        decoded: &'n Decoded,
        name: &str,
    ) -> Result<Vec<Cow<'n, CStr>>, Error> {
        match self.is_foreign {
            // What `$LIB` means there is not known here.
            true => Ok(try_collect(decoded.needed.iter().map(|name| Cow::Borrowed(&**name)))?),
            false => search::needed_names(decoded, name),
        }
    }

    /// The library that satisfies a `DT_NEEDED` entry of a member, unless it must be opened first. Bytes
    /// become a member.
    fn find_needed(&mut self, needed: &CStr, index: usize) -> Result<Option<Provider>, Error> {
        let by = member(&self.parsed, index);
        match self.in_memory(needed.to_bytes(), &by.name, &by.search_path)? {
            Some(InMemory::Loaded(provider)) => Ok(Some(provider)),
            Some(InMemory::Bytes(unparsed)) => self.add_member(unparsed, index, None).map(Some),
            None if self.is_foreign => Ok(None),
            None => Ok(HostLibrary::loaded(needed)?.map(Provider::Host)),
        }
    }

    /// What satisfies a `DT_NEEDED` entry of this name in memory, of a library of that name and search path.
    fn in_memory(
        &self,
        name: &[u8],
        needed_by: &str,
        search_path: &SearchPath,
    ) -> Result<Option<InMemory>, Error> {
        let settings = self.settings;
        if let Some(member) = self.member_called(name) {
            return Ok(Some(InMemory::Loaded(member)));
        }
        if self.is_foreign {
            return self.supplied(name, needed_by, search_path);
        }
        let of_image = |image| Ok(Some(InMemory::Loaded(Provider::Image(image))));
        let in_group = |group: &Arc<LoadGroup>| {
            let index = (0..group.len()).find(|&index| group.member(index).is_called(name))?;
            Some(ImageRef::new(group.clone(), index))
        };
        if let Some(image) = settings.depends_on.iter().find_map(in_group) {
            return of_image(image);
        }
        let namespace = settings.namespace.as_deref();
        if let Some(image) = namespace.map_or(Ok(None), |it| named::named(it, name))? {
            return of_image(image);
        }
        let is_called = |image: &&ImageRef| image.image().is_called(name);
        if let Some(image) = self.opener_images.iter().find(is_called) {
            return of_image(image.clone());
        }
        let provided = settings.provided.iter().map(|it| (it, false));
        let mut provided = provided.chain(self.system_copies.iter().map(|it| (it, true)));
        if let Some(((name, bytes), of_system)) = provided.find(|it| it.0.0.as_bytes() == name) {
            let (name, bytes) = (name.clone(), bytes.clone());
            return Ok(Some(InMemory::Bytes(Unparsed { name, bytes, alias: None, of_system })));
        }
        match self.ask_provider(name, needed_by, search_path)? {
            Some(Source::Bytes(bytes, own_name)) => {
                return self.provided(name, bytes, own_name).map(Some);
            }
            Some(Source::Group(group)) => return of_image(ImageRef::new(group, 0)),
            Some(Source::Failed(reason)) => return Err(self.failed(name, needed_by, &reason)),
            None => {}
        }
        if let Some(image) = registry::global_named(name) {
            return of_image(image);
        }
        let library = namespace.map_or(Ok(None), |it| named::host_library(it, name))?;
        Ok(library.map(|library| InMemory::Loaded(Provider::Host(library))))
    }

    /// As [`Collector::in_memory`], of what the caller supplies as bytes: all that counts for another machine.
    fn supplied(
        &self,
        name: &[u8],
        needed_by: &str,
        search_path: &SearchPath,
    ) -> Result<Option<InMemory>, Error> {
        let mut provided = self.settings.provided.iter();
        if let Some((name, bytes)) = provided.find(|it| it.0.as_bytes() == name) {
            let (name, bytes) = (name.clone(), bytes.clone());
            let unparsed = Unparsed { name, bytes, alias: None, of_system: false };
            return Ok(Some(InMemory::Bytes(unparsed)));
        }
        match self.ask_provider(name, needed_by, search_path)? {
            Some(Source::Bytes(bytes, own_name)) => self.provided(name, bytes, own_name).map(Some),
            Some(Source::Failed(reason)) => Err(self.failed(name, needed_by, &reason)),
            Some(Source::Group(_)) | None => Ok(None),
        }
    }

    fn member_called(&self, name: &[u8]) -> Option<Provider> {
        self.parsed.iter().position(|member| member.is_called(name)).map(Provider::Member)
    }

    /// Bytes that the caller's provider has for a name. Under their own name, they may be an image already.
    fn provided(
        &self,
        name: &[u8],
        bytes: Bytes<'static>,
        own_name: Option<Arc<str>>,
    ) -> Result<InMemory, Error> {
        let Some(own_name) = own_name else {
            let name = lossy(name).into();
            return Ok(InMemory::Bytes(Unparsed { name, bytes, alias: None, of_system: false }));
        };
        if let Some(member) = self.member_called(own_name.as_bytes()) {
            return Ok(InMemory::Loaded(member));
        }
        let namespace = self.settings.namespace.as_deref();
        if let Some(image) =
            namespace.map_or(Ok(None), |it| named::named(it, own_name.as_bytes()))?
        {
            return Ok(InMemory::Loaded(Provider::Image(image)));
        }
        let alias = Some(name.into());
        Ok(InMemory::Bytes(Unparsed { name: own_name, bytes, alias, of_system: false }))
    }

    /// The error for a library that the caller's provider has, and cannot supply.
    fn failed(&self, name: &[u8], needed_by: &str, reason: &str) -> Error {
        let library = MissingLibrary {
            name: lossy(name).into_owned(),
            needed_by: needed_by.to_owned(),
            reason: Some(reason.to_owned()),
        };
        missing(&self.parsed, vec![library], vec![], vec![])
    }

    /// What the caller's provider has for a name. It is asked once for each.
    fn ask_provider(
        &self,
        name: &[u8],
        needed_by: &str,
        search_path: &SearchPath,
    ) -> Result<Option<Source>, Error> {
        let Some(provider) = &self.settings.provider else { return Ok(None) };
        let known = self.answers.borrow().get(name).cloned();
        let answer = match known {
            Some(answer) => answer,
            None => {
                require_memory()?;
                let name_text = lossy(name);
                let answer = provider(&LibraryRequest { name: &name_text, needed_by, search_path });
                self.answers.borrow_mut().insert(name.into(), answer.clone());
                answer
            }
        };
        Ok(answer.map(|Provided(source)| source))
    }

    /// The member, or the image of the namespace, that was read from this file.
    fn of_file(&self, file: FileId) -> Result<Option<Provider>, Error> {
        if let Some(index) = self.parsed.iter().position(|member| member.file == Some(file)) {
            return Ok(Some(Provider::Member(index)));
        }
        let namespace = self.settings.namespace.as_deref();
        Ok(namespace.map_or(Ok(None), |it| named::of_file(it, file))?.map(Provider::Image))
    }

    /// How a library gets into the process that is needed by something with this search path, and is not there
    /// yet.
    fn supplies(
        &self,
        names: Vec<CString>,
        path: &SearchPath,
        providers: &[Option<Provider>],
    ) -> Result<HashMap<CString, Supply>, Error> {
        let mut loaded = try_collect(self.opener_images.iter().cloned())?;
        loaded.try_extend(registry::global_images()?)?;
        let provided = self.parsed.iter().flat_map(|member| &member.needed);
        for provider in provided.chain(providers.iter().flatten()) {
            if matches!(provider, Provider::Image(_)) {
                loaded.try_extend(dlsym::images_needed(provider.clone())?)?;
            }
        }
        let members = || self.parsed.iter().filter(|member| member.unopened.is_none());
        let images = || {
            let loaded = loaded.iter().map(|it| it.image().symbols());
            let members = members().flat_map(|member| member.image.symbols());
            try_collect(members.chain(loaded)).map_err(Error::from)
        };
        let is_unopened = |provider: &Provider| match provider {
            Provider::Member(index) => member(&self.parsed, *index).unopened.is_some(),
            Provider::Image(_) | Provider::Host(_) => false,
        };
        let surroundings = Surroundings {
            images: &images,
            is_in_memory: &|name, needed_by, path| {
                Ok(match self.in_memory(name, needed_by, path)? {
                    Some(InMemory::Loaded(provider)) => !is_unopened(&provider),
                    Some(InMemory::Bytes(..)) => true,
                    None => false,
                })
            },
            is_loaded_file: &|file| match FileId::of(file) {
                Some(file) => Ok(self.of_file(file)?.is_some_and(|found| !is_unopened(&found))),
                None => Ok(false),
            },
            defined: &self.settings.defined,
            host: &GlobalScope::new(Resolvers::promised(self.may_run))?,
            searcher: self.searcher.get_or_init(Searcher::new),
            limits: &self.settings.limits,
        };
        surroundings.supplies(names, path)
    }

    /// The files of libraries that the system would open for another one that it opens.
    fn files(
        &self,
        names: Vec<CString>,
        path: &SearchPath,
    ) -> Result<HashMap<CString, Supply>, Error> {
        let mut files = HashMap::new();
        for name in names {
            require_memory()?;
            let found = self.searcher.get_or_init(Searcher::new).find(&name, path)?;
            files.extend(found.map(|found| (name, Supply::System(vec![found.path]))));
        }
        Ok(files)
    }

    /// Makes members of the libraries needed by a member that the system could open, but that must see the
    /// group's images. Returns how it opens the others.
    fn add_members(
        &mut self,
        needed: &[Cow<'_, CStr>],
        index: usize,
        providers: &mut [Option<Provider>],
    ) -> Result<Option<HashMap<CString, Supply>>, Error> {
        let to_open = needed.iter().zip(&*providers).filter(|(_, provider)| provider.is_none());
        let count = to_open.clone().count();
        if !self.settings.system_libraries || self.is_foreign || count == 0 {
            // The first map asks the system for a random number.
            return Ok(None);
        }
        let mut names = try_vec(count)?;
        for (name, _) in to_open {
            require_memory()?;
            names.push(name.clone().into_owned());
        }
        let path = member(&self.parsed, index).search_path.clone();
        if member(&self.parsed, index).unopened.is_some() {
            return self.files(names, &path).map(Some);
        }
        let supplies = self.supplies(names, &path, providers)?;
        for (name, provider) in needed.iter().zip(providers) {
            let Some(Supply::Member(file)) = supplies.get(&**name) else { continue };
            // It may have become a member by now, under another name.
            *provider = self.find_needed(name, index)?;
            if provider.is_none() {
                *provider = match self.add_file(name, file, index) {
                    // Left to the system, which has its own reasons to refuse it.
                    Err(error) if is_no_library(&error) => None,
                    Err(Error::Processor { .. }) => None,
                    member => member?,
                };
            }
        }
        Ok(Some(supplies))
    }

    /// Makes a member of a library's file, unless there is an image of it. `None` if the file cannot be read.
    fn add_file(
        &mut self,
        name: &CStr,
        file: &Path,
        index: usize,
    ) -> Result<Option<Provider>, Error> {
        let id = FileId::of(file);
        if let Some(id) = id
            && let Some(loaded) = self.of_file(id)?
        {
            return Ok(Some(loaded));
        }
        let Some(bytes) = read_file(file)? else { return Ok(None) };
        let (name, alias) = (file.to_string_lossy().into(), Some(name.to_bytes().into()));
        self.add_member(Unparsed { name, bytes, alias, of_system: true }, index, id).map(Some)
    }

    /// Lets the system open a needed library, if the caller allows that.
    fn open_needed(
        &mut self,
        needed: &CStr,
        supply: Option<Supply>,
        index: usize,
    ) -> Result<Provider, NotFound> {
        if !self.settings.system_libraries {
            return Err(NotFound::Missing(Some(FORBIDDEN.into())));
        }
        let Some(may_run) = self.may_run else { return Err(NotFound::Missing(None)) };
        // It may have been opened by now, for another library.
        if let Some(loaded) = HostLibrary::loaded(needed).map_err(NotFound::Bad)? {
            return Ok(Provider::Host(loaded));
        }
        let Some(Supply::System(files)) = supply else {
            return Err(NotFound::Missing(Some(no_such_file(needed))));
        };
        let binds_itself_first = self.settings.scope == Scope::SelfFirst;
        let refusal = match HostLibrary::open(&files, binds_itself_first, may_run) {
            Ok(library) => return Ok(Provider::Host(library)),
            Err(refusal) => refusal,
        };
        // A library that needs symbols of the images that it is needed with cannot be opened alone: it
        // becomes a member, and shares their scope.
        let Some(file) = refusal.file else { return Err(NotFound::Missing(Some(refusal.text))) };
        let added = self.add_file(needed, &file, index).map_err(NotFound::Bad)?;
        added.ok_or(NotFound::Missing(Some(refusal.text)))
    }

    fn is_survey(&self) -> bool {
        self.survey.faults.is_listing()
    }

    /// What a load would let the system open, for a report: its file becomes a member. Or why the system would not open
    /// it.
    fn survey_needed(
        &mut self,
        needed: &CStr,
        supply: Option<Supply>,
        index: usize,
    ) -> Result<Result<Provider, Absence>, Error> {
        let missing = |reason: String| Ok(Err(Absence::Missing(reason)));
        match (self.settings.system_libraries, self.is_foreign) {
            (true, false) => {}
            (true, true) => return Ok(Err(Absence::NotSearched)),
            (false, false) => return missing(FORBIDDEN.into()),
            (false, true) => return missing(NOT_SUPPLIED.into()),
        }
        // Its needs may have brought it meanwhile.
        if let Some(found) = self.find_needed(needed, index)? {
            return Ok(Ok(found));
        }
        let file = match supply {
            Some(Supply::System(files)) => files.into_iter().next_back(),
            Some(Supply::Member(file)) => Some(file),
            None => None,
        };
        let Some(file) = file else { return missing(no_such_file(needed)) };
        let id = FileId::of(&file);
        if let Some(id) = id
            && let Some(known) = self.of_file(id)?
        {
            return Ok(Ok(known));
        }
        // Under another name.
        if let Some(path) = open::c_path(&file)
            && let Some(loaded) = HostLibrary::loaded(&path)?
        {
            return Ok(Ok(Provider::Host(loaded)));
        }
        match self.unopened(needed, &file, id, index) {
            Ok(parsed) => {
                self.parsed.try_push(parsed)?;
                Ok(Ok(Provider::Member(self.parsed.len().saturating_sub(1))))
            }
            Err(error @ Error::OutOfMemory { .. }) => Err(error),
            Err(error) => missing(error.to_string()),
        }
    }

    /// The file of a library that the system would open. The error is one for which it would not.
    fn unopened(
        &self,
        needed: &CStr,
        file: &Path,
        id: Option<FileId>,
        index: usize,
    ) -> Result<Parsed<'d>, Error> {
        limits::check("the number of needed libraries", self.parsed.len() as u64, MAX_UNOPENED)?;
        let loader = member(&self.parsed, index);
        let name: Arc<str> = file.to_string_lossy().into();
        let opened = MappedFile::open(file);
        let bytes = opened.map_err(|error| Error::system("cannot read the file", error));
        let bytes = Bytes::File(Arc::new(bytes.map_err(|error| error.in_image(&name))?));
        let mut faults = Faults::OfSystem(Vec::new());
        let path = &loader.search_path;
        let parsed =
            self.settings.parse(Some(name), bytes, &MACHINE, Some(path), id, &mut faults)?;
        if let Some(fault) = faults.take().into_iter().next() {
            return Err(fault);
        }
        let new = || Unopened {
            name: needed.to_string_lossy().into_owned(),
            needed_by: loader.name.clone(),
        };
        let unopened = loader.unopened.clone().unwrap_or_else(|| Box::new(new()));
        let alias = Some(needed.to_bytes().into());
        Ok(Parsed { alias, of_system: true, unopened: Some(unopened), ..parsed })
    }

    /// Lists what a member needs, for a report, and notes what is missing.
    fn list_needed(
        &mut self,
        needed: &[Cow<'_, CStr>],
        providers: &[Option<Provider>],
        mut reasons: BTreeMap<usize, Absence>,
        index: usize,
        is_optional: &dyn Fn(usize) -> bool,
    ) -> Result<(), Error> {
        let this = member(&self.parsed, index);
        let mut libraries = Vec::new();
        for (at, (name, provider)) in needed.iter().zip(providers).enumerate() {
            require_memory_for_next(at)?;
            let absence = match reasons.remove(&at) {
                Some(_) if is_optional(at) => Absence::Optional,
                absence => absence.unwrap_or(Absence::Optional),
            };
            if provider.is_none()
                && let Absence::Missing(reason) = &absence
            {
                // What the system opens fails as a whole.
                let (name, needed_by) = match &this.unopened {
                    Some(opened) => (opened.name.clone(), opened.needed_by.to_string()),
                    None => (name.to_string_lossy().into_owned(), this.name.to_string()),
                };
                let reason = Some(reason.clone());
                libraries.try_push(MissingLibrary { name, needed_by, reason })?;
            }
            let found = provider.clone().ok_or(absence);
            let name = name.clone().into_owned();
            self.survey.needed.try_push(Needed { name, needed_by: index, found })?;
        }
        if libraries.is_empty() {
            return Ok(());
        }
        let error = missing(&self.parsed, libraries, vec![], vec![]);
        self.survey.faults.note(error)
    }

    /// Adds a member that the member of index `needed_by` needs.
    fn add_member(
        &mut self,
        unparsed: Unparsed,
        needed_by: usize,
        file: Option<FileId>,
    ) -> Result<Provider, Error> {
        let Unparsed { name, bytes, alias, of_system } = unparsed;
        let index = self.parsed.len();
        let members = self.parsed.iter().filter(|member| member.unopened.is_none()).count();
        let count = (members as u64).saturating_add(1);
        limits::check("the number of images in one load", count, self.settings.limits.images)?;
        require_memory()?;
        self.settings.policy.verify(&name, &bytes)?;
        let machine = self.machine();
        let path = &member(&self.parsed, needed_by).search_path;
        // What is wrong with a file of the system leaves it to the system.
        let faults = if of_system { &mut Faults::End } else { &mut self.survey.faults };
        let added = self.settings.parse(Some(name), bytes, machine, Some(path), file, faults)?;
        self.parsed.try_push(Parsed { alias, of_system, ..added })?;
        Ok(Provider::Member(index))
    }
}

/// The number of libraries that a report examines.
const MAX_UNOPENED: u64 = 4096;

/// Why a library is missing where the caller forbids that one is opened.
const FORBIDDEN: &str = "not loaded in this process, and system_libraries(false) was chosen";

/// The same for a library that an image for another machine needs.
const NOT_SUPPLIED: &str = "not supplied, and system_libraries(false) was chosen";

/// The text of `ld.so` for a library that it does not find.
pub(crate) fn no_such_file(name: &CStr) -> String {
    let name = lossy(name.to_bytes());
    format!("{name}: cannot open shared object file: No such file or directory")
}

impl Settings {
    /// How the file at this path gets into the process, for the image that opens it. `None` if there is no
    /// such file.
    pub(crate) fn supply(&self, path: &CStr) -> Result<Option<Supply>, Error> {
        let search_path = self.opener.as_ref().map(|opener| opener.image().search_path.clone());
        let collector = Collector::new(self, &[], None)?;
        let names = vec![path.to_owned()];
        let mut supplies = collector.supplies(names, &search_path.unwrap_or_default(), &[])?;
        Ok(supplies.remove(path))
    }

    /// Parses an image, which must be for the machine `wanted`.
    fn parse<'d>(
        &self,
        name: Option<Arc<str>>,
        bytes: Bytes<'d>,
        wanted: &Machine,
        loader: Option<&SearchPath>,
        file: Option<FileId>,
        faults: &mut Faults,
    ) -> Result<Parsed<'d>, Error> {
        let shown = name.as_deref().unwrap_or("image");
        let image = faults.in_image(shown, |faults| {
            let page = admission::check_machine(&bytes, wanted, faults)?;
            let image = Image::examine(bytes, page, &self.limits, faults)?;
            admission::check(&image.decoded, faults)?;
            Ok(image)
        })?;
        let name = name.unwrap_or_else(|| match &image.decoded.soname {
            Some(soname) => soname.to_string_lossy().into(),
            None => "image".into(),
        });
        let search_path = SearchPath::new(&image.decoded, &name, loader)?;
        let (needed, filtees) = (Vec::new(), Vec::new());
        Ok(Parsed {
            name,
            image,
            needed,
            filtees,
            search_path,
            file,
            alias: None,
            of_system: false,
            unopened: None,
        })
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
