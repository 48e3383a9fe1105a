//! From bytes and the caller's wishes to a prepared load group: everything that can be decided
//! before any memory is mapped.
//!
//! Preparing parses the image, finds what it needs (`DT_NEEDED`, breadth first), and binds every
//! reference; what is missing is collected and listed. The result, [`Prepared`], serves one
//! instance or any number alike. It runs no code of the images; but the system's loader runs the
//! constructors of needed libraries that it opens.
//!
//! Sources: gABI "Shared Object Dependencies"; the order of initialisation where the
//! specification leaves a choice: glibc `elf/dl-sort-maps.c`; versions: glibc `elf/dl-version.c`.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::arch::{MACHINE, RelocKind};
use crate::base::addr::PageSize;
use crate::base::error::{Error, MissingLibrary, MissingSymbol, MissingVersion, Place};
use crate::base::fallible::{
    TryGrow, require_memory, require_memory_for_next, try_collect, try_collect_ok, try_filled,
    try_lossy, try_string, try_vec,
};
use crate::base::limits::{self, Limits};
use crate::base::promise::MayRun;
use crate::debug::{self, Debug, DebugTemplate, DynamicSymbol, Instances, Source, SourceSegment};
use crate::elf::decoded::Decoded;
use crate::elf::eh_frame::EhFrame;
use crate::elf::plan::Plan;
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::symbol_table::SymbolTable;
use crate::host::ld_so::{GlobalScope, HostLibrary};
use crate::images::dlsym;
use crate::images::group::{
    self, CallBinder, Dependency, ImageRef, LoadGroup, LoadedImage, Provider,
};
use crate::images::members::{member, member_mut};
use crate::images::policy::Policy;
use crate::images::unique::FirstUse;
use crate::link::needed::{self, Surroundings};
use crate::link::prelink::Prelinked;
use crate::link::relocate::{self, Bound, Outcome};
use crate::link::scope::{LookupScope, Resolver, Scope, Target};
use crate::memory::buffer;
use crate::memory::bytes::{Bytes, Image};
use crate::memory::map::{self, InPlaceFile, SharedText};
use crate::profile::Profile;

/// What the caller wishes.
#[derive(Clone)]
pub(crate) struct Settings {
    pub name: Option<Arc<str>>,
    /// Addresses by name, as if the host defined them.
    pub defined: BTreeMap<String, usize>,
    pub resolver: Option<Arc<Resolver>>,
    /// Groups whose images satisfy `DT_NEEDED` entries.
    pub depends_on: Vec<Arc<LoadGroup>>,
    /// Bytes that satisfy `DT_NEEDED` entries, by name.
    pub provided: Vec<(Arc<str>, Bytes<'static>)>,
    /// As `provided`, but copies of libraries of the system.
    pub of_system: Vec<(Arc<str>, Bytes<'static>)>,
    /// What the caller allows.
    pub policy: Policy,
    pub global: bool,
    pub system_libraries: bool,
    pub scope: Scope,
    /// Calls are bound when they are first made, where the image allows it.
    pub lazy: bool,
    pub debug: Debug,
    /// What was split off the image that is asked for.
    pub debug_info: Option<Bytes<'static>>,
    pub profile: Profile,
    pub limits: Limits,
    /// What images get instead of the host's function of a name.
    pub services: fn(&[u8]) -> Option<usize>,
    /// An image whose exports, and those of the images that it needs, come before the host's.
    pub opener: Option<ImageRef>,
}

/// A load group that is parsed, planned and bound, and not yet in memory.
pub(crate) struct Prepared<'d> {
    /// The image that was asked for, then what it needs, breadth first.
    pub members: Vec<Member<'d>>,
    /// Indices of members, dependencies first.
    pub init_order: Vec<usize>,
    /// What the members are bound to.
    pub keep: Vec<Dependency>,
    /// Members whose thread-local storage must lie at a fixed distance from the thread pointer.
    pub static_tls: BTreeSet<usize>,
    /// Definitions of members that are to be the only ones in the process.
    pub first_uses: Vec<FirstUse>,
    /// Its exports are visible to images loaded later.
    pub global: bool,
    /// By index of member: what debuggers are told of an instance.
    pub symfiles: Vec<Option<DebugTemplate>>,
    /// Binds calls of members that are bound lazily.
    pub call_binder: Option<Arc<CallBinder>>,
    /// What its images may do.
    pub policy: Policy,
    /// The image that opens the group.
    pub opener: Option<ImageRef>,
}

/// One image of a prepared group.
pub(crate) struct Member<'d> {
    pub name: Arc<str>,
    pub image: Image<'d>,
    pub plan: Plan,
    pub needed: Vec<Provider>,
    pub bound: Bound,
    /// Its calls are bound when they are first made.
    pub lazy: bool,
    /// Its relocation tables lie in segments that are not written, and that stay where a file of its
    /// is received: they can be read from the image in place.
    pub tables_stay: bool,
    /// What instances do not write, and share.
    pub shared_text: Option<SharedText>,
    /// Its relocations, worked out for any number of instances.
    pub prelinked: Option<Prelinked>,
    /// What profilers are told of an instance.
    pub profile: Profile,
    /// What was split off the image, which may have its symbol table; where profilers want that.
    pub debug_info: Option<Bytes<'static>>,
    /// It is a copy of a library of the system.
    pub of_system: bool,
}

/// A member whose references are not bound yet.
struct Parsed<'d> {
    name: Arc<str>,
    image: Image<'d>,
    needed: Vec<Provider>,
    /// It is a copy of a library of the system.
    of_system: bool,
}

impl Settings {
    /// What [`Loader::new`](crate::Loader::new) starts with.
    pub(crate) fn new(services: fn(&[u8]) -> Option<usize>) -> Settings {
        Settings {
            name: None,
            defined: BTreeMap::new(),
            resolver: None,
            depends_on: Vec::new(),
            provided: Vec::new(),
            of_system: Vec::new(),
            policy: Policy::default(),
            global: false,
            system_libraries: false,
            scope: Scope::default(),
            lazy: false,
            debug: Debug::default(),
            debug_info: None,
            profile: Profile::default(),
            limits: Limits::default(),
            services,
            opener: None,
        }
    }

    /// From bytes to a bound group: parse, find what is needed (and have the system open it), bind. The
    /// process is set up.
    pub(crate) fn prepare<'d>(
        &self,
        bytes: Bytes<'d>,
        instances: Instances,
        may_run: Option<MayRun>,
    ) -> Result<Prepared<'d>, Error> {
        require_memory()?;
        if self.policy.seal && !map::can_seal() {
            let what = "sealing an image: mseal needs Linux 6.10, which this system is not";
            let name = self.name.as_deref().unwrap_or("image");
            return Err(Error::unsupported(what).in_image(name));
        }
        let parsed = self.collect(bytes.clone(), may_run)?;
        let searchlist = searchlist(&parsed, self.scope)?;
        let members = try_collect_ok(parsed.iter().map(|member| member.image.symbols()))?;
        // Mostly none is.
        let of_system = match parsed.iter().any(|member| member.of_system) {
            true => try_collect(parsed.iter().map(|member| member.of_system))?,
            false => Vec::new(),
        };
        let order = self.search_order(searchlist, members, of_system)?;
        check_versions(&parsed, &order)?;

        let page = PageSize::current();
        let mut outcome = Outcome::default();
        let mut bound = try_vec(parsed.len())?;
        for (index, Parsed { name, image, .. }) in parsed.iter().enumerate() {
            require_memory_for_next(index)?;
            let in_image = |error: Error| error.in_image(name);
            let plan = Plan::new(&image.decoded, image.bytes().len(), page).map_err(in_image)?;
            let lazy = self.lazy && may_bind_lazily(image, &plan);
            let result = relocate::bind(image, index, name, &MACHINE, &order, lazy, &mut outcome);
            bound.push((plan, lazy, result.map_err(in_image)?));
        }
        if !outcome.refused.is_empty() {
            let image = parsed.first().map_or(String::new(), |root| root.name.to_string());
            return Err(Error::RefusedImports { image, symbols: outcome.refused });
        }
        if !outcome.missing.is_empty() {
            return Err(missing(&parsed, vec![], vec![], outcome.missing));
        }
        let searchlist = order.into_searchlist();
        if !outcome.without_static_tls.is_empty() {
            let as_members = self.with_members(&outcome.without_static_tls)?;
            if as_members.of_system.len() > self.of_system.len() {
                return as_members.prepare(bytes, instances, may_run);
            }
        }

        let init_order = init_order(&parsed)?;
        let (debug, profile) = (self.debug.effective(), self.profile.effective());
        let count = parsed.len();
        let mut symfiles = try_vec(count)?;
        let mut members = try_vec(count)?;
        for (Parsed { name, image, needed, of_system }, (plan, lazy, bound)) in
            parsed.into_iter().zip(bound)
        {
            require_memory_for_next(members.len())?;
            let separate = self.debug_info.as_ref().filter(|_| members.is_empty());
            let debug_info = separate.filter(|_| profile != Profile::Off).cloned();
            symfiles.push(self.symfile(
                &name,
                &image,
                separate.map(|bytes| &**bytes),
                debug,
                instances,
            )?);
            let tables_stay =
                image.decoded.relocations.ranges().all(|range| plan.is_read_only(range));
            let in_image = |error: Error| error.in_image(&name);
            let (mut shared_text, mut prelinked) = (None, None);
            if instances == Instances::Many {
                // Breakpoints cannot be set in shared pages.
                // Nor could sealed ones be made an instance's own later.
                if debug == Debug::Off && !image.decoded.text_relocations && !self.policy.seal {
                    shared_text = SharedText::new(&plan, image.bytes()).map_err(in_image)?;
                }
                let made = Prelinked::new(&image, &plan, &bound, members.len(), count);
                prelinked = made.map_err(in_image)?;
            }
            members.push(Member {
                name,
                image,
                plan,
                needed,
                bound,
                lazy,
                tables_stay,
                shared_text,
                prelinked,
                profile,
                debug_info,
                of_system,
            });
        }
        let any_lazy = members.iter().any(|member| member.lazy);
        let call_binder = any_lazy.then(|| self.call_binder(searchlist));
        Ok(Prepared {
            members,
            init_order,
            keep: dedup(outcome.keep)?,
            static_tls: outcome.static_tls,
            first_uses: outcome.first_uses,
            global: self.global,
            symfiles,
            call_binder,
            opener: self.opener.clone(),
            policy: self.policy.clone(),
        })
    }

    /// The same with these libraries, which the system opened for the group, provided from their
    /// files: as members they get the room in every thread that `ld.so` would have given them, had
    /// it seen who needs it.
    fn with_members(&self, libraries: &[Arc<HostLibrary>]) -> Result<Settings, Error> {
        let mut settings = self.clone();
        for library in libraries {
            require_memory()?;
            if let Some((name, path)) = library.opened_file()
                && !settings.of_system.iter().any(|(provided, _)| **provided == *name)
                && !settings.provided.iter().any(|(provided, _)| **provided == *name)
                && let Some(bytes) = read_file(&path)?
            {
                settings.of_system.try_push((name.into(), bytes))?;
            }
        }
        Ok(settings)
    }

    /// The image that encloses what is loaded, and the images that it needs.
    fn enclosing_images(&self) -> Result<Vec<ImageRef>, Error> {
        let opener = self.opener.as_ref();
        opener.map_or(Ok(Vec::new()), |opener| dlsym::images_in_scope(opener.group()))
    }

    /// Whether these bytes are a library that needs, by name, an image that would enclose it.
    pub(crate) fn needs_enclosing(&self, bytes: &[u8]) -> Result<bool, Error> {
        let opener = self.enclosing_images()?;
        let parsed = match self.parse(None, Bytes::Borrowed(bytes)) {
            Ok(parsed) => parsed,
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(_) => return Ok(false),
        };
        Ok(parsed.image.decoded.needed.iter().any(|name| {
            let name = name.to_bytes();
            opener.iter().any(|it| it.image().is_called(name))
        }))
    }

    /// Where references of a load group's members are searched.
    fn search_order<'a>(
        &'a self,
        searchlist: Vec<Provider>,
        members: Vec<SymbolTable<'a>>,
        of_system: Vec<bool>,
    ) -> Result<LookupScope<'a>, Error> {
        Ok(LookupScope {
            scope: self.scope,
            defined: &self.defined,
            resolver: self.resolver.as_deref(),
            host: GlobalScope::new()?,
            services: self.services,
            opener: self.enclosing_images()?,
            global: group::global_images()?,
            searchlist,
            members,
            of_system,
            imports: &self.policy.imports,
        })
    }

    /// What binds a call of a group that was prepared with these settings when it is first made.
    fn call_binder(&self, searchlist: Vec<Provider>) -> Arc<CallBinder> {
        let settings = self.clone();
        Arc::new(move |group: &LoadGroup, member: usize, symbol: u32| {
            require_memory()?;
            let images = || (0..group.len()).map(|index| group.member(index));
            let tables = try_collect(images().map(|loaded| loaded.symbols()))?;
            let of_system = try_collect(images().map(|loaded| loaded.of_system))?;
            let searchlist = try_collect(searchlist.iter().cloned())?;
            let order = settings.search_order(searchlist, tables, of_system)?;
            let LoadedImage { name, decoded, .. } = group.member(member);
            let mut outcome = Outcome::default();
            let target =
                relocate::bind_call(member, name, decoded.symbolic, symbol, &order, &mut outcome)?;
            if !outcome.refused.is_empty() {
                let (image, symbols) = (name.to_string(), outcome.refused);
                return Err(Error::RefusedImports { image, symbols });
            }
            if !outcome.missing.is_empty() {
                let (libraries, versions) = (vec![], vec![]);
                let symbols = outcome.missing;
                return Err(Error::Missing {
                    image: name.to_string(),
                    libraries,
                    versions,
                    symbols,
                });
            }
            let function = match target {
                Target::Address(address) => address,
                Target::Member { member, st_value } | Target::MemberIfunc { member, st_value } => {
                    let address = group.member(member).mapping.load_bias().apply(st_value);
                    let is_ifunc = matches!(target, Target::MemberIfunc { .. });
                    if is_ifunc { group.member(member).call_ifunc(address) } else { address }
                }
                Target::MemberTls { .. } | Target::Tls { .. } => {
                    let what = "a call of a thread-local variable";
                    return Err(Error::malformed(what, Place::Symbol(symbol)));
                }
            };
            Ok((function, outcome.keep))
        })
    }

    /// Parses the image and, breadth first, what it needs from the provided bytes.
    fn collect<'d>(
        &self,
        bytes: Bytes<'d>,
        may_run: Option<MayRun>,
    ) -> Result<Vec<Parsed<'d>>, Error> {
        let root = self.name.as_deref().unwrap_or("image");
        self.policy.verify(root, &bytes)?;
        let mut parsed: Vec<Parsed<'d>> = vec![self.parse(self.name.clone(), bytes)?];
        let (opener, global) = (self.enclosing_images()?, group::global_images()?);
        let outside = Outside { opener, global };
        let mut missing_libraries = Vec::new();
        for index in 0.. {
            let Some(member) = parsed.get(index) else { break };
            let (needed_by, decoded) = (member.name.clone(), member.image.decoded.clone());
            let folders = needed::folders(&decoded, &needed_by)?;
            let needed = needed::names(&decoded, &needed_by)?;
            let mut providers = try_vec(needed.len())?;
            for name in &needed {
                require_memory_for_next(providers.len())?;
                providers.push(self.find_needed(name, &mut parsed, &outside)?);
            }
            self.add_members(&needed, &folders, &mut providers, &mut parsed, &outside)?;
            // What the system has to open, from the last to the first, which is how `ld.so` relocates
            // them: the last ones are those that the others use.
            for (name, provider) in needed.iter().zip(&mut providers).rev() {
                if provider.is_some() {
                    continue;
                }
                require_memory()?;
                match self.open_needed(name, &folders, &mut parsed, may_run) {
                    Ok(opened) => *provider = Some(opened),
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
            member_mut(&mut parsed, index).needed = try_collect(providers.into_iter().flatten())?;
        }
        missing_libraries.reverse();
        if missing_libraries.is_empty() {
            Ok(parsed)
        } else {
            Err(missing(&parsed, missing_libraries, vec![], vec![]))
        }
    }

    /// Who satisfies a `DT_NEEDED` entry, if it need not be opened; parses one more member where
    /// that is provided bytes.
    fn find_needed(
        &self,
        needed: &CStr,
        parsed: &mut Vec<Parsed<'_>>,
        outside: &Outside,
    ) -> Result<Option<Provider>, Error> {
        match self.in_memory(needed.to_bytes(), parsed, outside) {
            Some(InMemory::InPlace(provider)) => Ok(Some(provider)),
            Some(InMemory::Bytes(name, bytes, of_system)) => {
                self.add_member(name.clone(), bytes.clone(), of_system, parsed).map(Some)
            }
            None => Ok(HostLibrary::loaded(needed)?.map(Provider::Host)),
        }
    }

    /// What satisfies a `DT_NEEDED` entry of this name from memory.
    fn in_memory(
        &self,
        name: &[u8],
        parsed: &[Parsed<'_>],
        outside: &Outside,
    ) -> Option<InMemory<'_>> {
        let is_it = |member: &Parsed<'_>| member.image.decoded.is_called(&member.name, name);
        if let Some(index) = parsed.iter().position(is_it) {
            return Some(InMemory::InPlace(Provider::Member(index)));
        }
        let in_group = |group: &Arc<LoadGroup>| {
            let index = (0..group.len()).find(|&index| group.member(index).is_called(name))?;
            Some(Provider::Image(ImageRef::new(group.clone(), index)))
        };
        if let Some(loaded) = self.depends_on.iter().find_map(in_group) {
            return Some(InMemory::InPlace(loaded));
        }
        let in_images = |images: &[ImageRef]| {
            let found = images.iter().find(|it| it.image().is_called(name));
            found.map(|it| InMemory::InPlace(Provider::Image(it.clone())))
        };
        let provided = self.provided.iter().map(|it| (it, false));
        let mut provided = provided.chain(self.of_system.iter().map(|it| (it, true)));
        in_images(&outside.opener)
            .or_else(|| {
                let is_it = |it: &(&(Arc<str>, Bytes<'_>), bool)| it.0.0.as_bytes() == name;
                let ((name, bytes), of_system) = provided.find(is_it)?;
                Some(InMemory::Bytes(name, bytes, of_system))
            })
            .or_else(|| in_images(&outside.global))
    }

    /// Makes members of the needed libraries that the system could open, but that must see the
    /// group's images.
    fn add_members(
        &self,
        needed: &[CString],
        folders: &[PathBuf],
        providers: &mut [Option<Provider>],
        parsed: &mut Vec<Parsed<'_>>,
        outside: &Outside,
    ) -> Result<(), Error> {
        let to_open = needed.iter().zip(&*providers).filter(|(_, provider)| provider.is_none());
        let count = to_open.clone().count();
        if !self.system_libraries || count == 0 {
            return Ok(());
        }
        let mut names = try_vec(count)?;
        for (name, _) in to_open {
            require_memory()?;
            names.push(name.clone());
        }
        let mut loaded = try_collect(outside.opener.iter().chain(&outside.global).cloned())?;
        let provided = parsed.iter().flat_map(|member| &member.needed);
        for provider in provided.chain(providers.iter().flatten()) {
            if matches!(provider, Provider::Image(_)) {
                loaded.try_extend(dlsym::images_needed(provider.clone())?)?;
            }
        }
        let images = || {
            let loaded = loaded.iter().map(|it| it.image().symbols());
            try_collect(parsed.iter().flat_map(|member| member.image.symbols()).chain(loaded))
        };
        let surroundings = Surroundings {
            images: &images,
            is_in_memory: &|name| self.in_memory(name, parsed, outside).is_some(),
            defined: &self.defined,
            host: &GlobalScope::new()?,
            limits: &self.limits,
        };
        let files = surroundings.members(names, folders)?;
        for (name, provider) in needed.iter().zip(providers) {
            let Some(file) = files.get(name) else { continue };
            // It may be there by now, under another name.
            *provider = self.find_needed(name, parsed, outside)?;
            if provider.is_none()
                && let Some(bytes) = read_file(file)?
            {
                *provider =
                    Some(self.add_member(file.to_string_lossy().into(), bytes, true, parsed)?);
            }
        }
        Ok(())
    }

    /// Has the system open a needed library, if the caller allows that.
    fn open_needed(
        &self,
        needed: &CStr,
        folders: &[PathBuf],
        parsed: &mut Vec<Parsed<'_>>,
        may_run: Option<MayRun>,
    ) -> Result<Provider, NotFound> {
        let Some(may_run) = may_run.filter(|_| self.system_libraries) else {
            return Err(NotFound::Missing(None));
        };
        let refusal = match HostLibrary::open(needed, folders, may_run) {
            Ok(library) => return Ok(Provider::Host(library)),
            Err(refusal) => refusal,
        };
        // A library that is there, but needs symbols of those that it is needed with, cannot be
        // opened alone: it becomes a member, and sees what the others see.
        let Some(file) = refusal.file else { return Err(NotFound::Missing(Some(refusal.text))) };
        let bytes = read_file(&file).map_err(NotFound::Bad)?;
        let bytes = bytes.ok_or(NotFound::Missing(Some(refusal.text)))?;
        self.add_member(file.to_string_lossy().into(), bytes, true, parsed).map_err(NotFound::Bad)
    }

    fn add_member(
        &self,
        name: Arc<str>,
        bytes: Bytes<'static>,
        of_system: bool,
        parsed: &mut Vec<Parsed<'_>>,
    ) -> Result<Provider, Error> {
        let index = parsed.len();
        let count = (index as u64).saturating_add(1);
        limits::check("the number of images in one load", count, self.limits.images)?;
        require_memory()?;
        self.policy.verify(&name, &bytes)?;
        let member = self.parse(Some(name), bytes)?;
        parsed.try_push(Parsed { of_system, ..member })?;
        Ok(Provider::Member(index))
    }

    /// What debuggers will be told of each instance of `image`, from its own bytes or from what was split
    /// off it. Of an image with thread-local variables that is looked for here if it was not given:
    /// gdb, if it finds it by itself, shows other memory for these.
    fn symfile(
        &self,
        name: &str,
        image: &Image<'_>,
        separate: Option<&[u8]>,
        wanted: Debug,
        instances: Instances,
    ) -> Result<Option<DebugTemplate>, Error> {
        let refused = |what: &dyn Display| Error::DebugInfo {
            image: name.to_owned(),
            what: what.to_string(),
        };
        let (package, separate) = match separate {
            Some(file) if debug::is_package(file) => (Some(file), None),
            other => (None, other),
        };
        if let Some(separate) = separate {
            debug::check_separate(image.bytes(), image.notes(), separate)
                .map_err(|fault| refused(&fault))?;
        }
        if wanted == Debug::Off {
            return Ok(None);
        }
        let wants_installed = separate.or(package).is_none()
            && image.decoded.tls.is_some()
            && !debug::has_dwarf(image.bytes());
        let found = wants_installed
            .then(|| debug::installed_separate(image.notes(), self.limits.image_bytes))
            .flatten();
        let installed = found.filter(|file| {
            let checked = debug::check_separate(image.bytes(), image.notes(), file);
            checked
                .inspect_err(|fault| logged!(warn, "{name}: its installed debug file: {fault}"))
                .is_ok()
        });
        if wants_installed && installed.is_none() {
            logged!(
                info,
                "{name}: is stripped, and no debug file of it was found here. If gdb finds one, what \
                 it shows of thread-local variables is not theirs"
            );
        }
        let separate = separate.or(installed.as_deref());
        let joined = match package
            .map(|package| debug::join(image.bytes(), package, debug::Maximum::from(&self.limits)))
        {
            Some(Err(fault)) if fault.is_refusal() => return Err(refused(&fault)),
            Some(Err(fault)) => {
                logged!(warn, "{name}: debuggers will not see what is in its package: {fault}");
                None
            }
            Some(Ok(whole)) => Some(whole),
            None => None,
        };
        let file = joined.as_deref().or(separate).or(Some(image.bytes()));
        let make =
            |source: &Source<'_>| DebugTemplate::new(name, source, wanted, &self.limits, instances);
        with_debug_source(&image.decoded, file, image, &image.symbols()?, make)
    }

    fn parse<'d>(&self, name: Option<Arc<str>>, bytes: Bytes<'d>) -> Result<Parsed<'d>, Error> {
        let shown = name.as_deref().unwrap_or("image");
        let image = Image::parse(bytes, &MACHINE, PageSize::current(), &self.limits);
        let image = image.map_err(|error| error.in_image(shown))?;
        let name = name.unwrap_or_else(|| match &image.decoded.soname {
            Some(soname) => soname.to_string_lossy().into(),
            None => "image".into(),
        });
        Ok(Parsed { name, image, needed: Vec::new(), of_system: false })
    }
}

/// The images that are in place and that whatever is loaded sees.
struct Outside {
    opener: Vec<ImageRef>,
    global: Vec<ImageRef>,
}

/// What satisfies a `DT_NEEDED` entry from memory.
enum InMemory<'a> {
    InPlace(Provider),
    /// Provided, and not parsed yet. Whether it is a copy of a library of the system.
    Bytes(&'a Arc<str>, &'a Bytes<'static>, bool),
}

/// Why a needed library could not be had.
enum NotFound {
    /// Nothing supplies it.
    Missing(Option<String>),
    /// It is there, but no good.
    Bad(Error),
}

fn missing(
    parsed: &[Parsed<'_>],
    libraries: Vec<MissingLibrary>,
    versions: Vec<MissingVersion>,
    symbols: Vec<MissingSymbol>,
) -> Error {
    let image = parsed.first().map_or(String::new(), |root| root.name.to_string());
    Error::Missing { image, libraries, versions, symbols }
}

/// Whether an image's calls can be bound when they are first made: it allows it, the words at
/// `DT_PLTGOT` that lead there can be written while it is relocated, and all calls are in the PLT's
/// table (a word that another table calls a call's need not lead to a PLT entry).
fn may_bind_lazily(image: &Image<'_>, plan: &Plan) -> bool {
    let decoded = &image.decoded;
    let words = decoded.plt_got.and_then(|start| Some(start..start.checked_add(24)?));
    let is_writable = words.is_some_and(|words| {
        plan.segments.iter().any(|segment| {
            let Range { start, end } = segment.stated;
            segment.access.write && start <= words.start && words.end <= end
        })
    });
    let is_call = |rela: Rela| MACHINE.reloc_kind(rela.r_type) == Some(RelocKind::JumpSlot);
    is_writable && !decoded.relocations.relas_outside_plt(image).any(is_call)
}

/// The image and all that it needs, directly or not, breadth first, each once.
fn searchlist(parsed: &[Parsed<'_>], scope: Scope) -> Result<Vec<Provider>, Error> {
    // The start-up libraries are all in the global scope, which comes before.
    let is_searched = |needed: &Provider| {
        matches!(needed, Provider::Host(library) if library.is_startup())
            && scope == Scope::HostFirst
    };
    let own = |index: usize| try_collect(member(parsed, index).needed.iter().cloned());
    dlsym::breadth_first(Provider::Member(0), own, |needed| !is_searched(needed))
}

/// Every version that a member needs from a library must be defined there (glibc's
/// `_dl_check_map_versions`): a library that is too old is found out before anything runs.
fn check_versions(parsed: &[Parsed<'_>], order: &LookupScope<'_>) -> Result<(), Error> {
    let mut versions = Vec::new();
    for (needing, table) in parsed.iter().zip(&order.members) {
        let in_member = |error: Error| error.in_image(&needing.name);
        for (file, version, weak) in table.needed_versions() {
            let defined = needing.needed.iter().find_map(|provider| match provider {
                Provider::Member(index) => {
                    let needed = member(parsed, *index);
                    let is_it = needed.image.decoded.is_called(&needed.name, file);
                    is_it.then(|| member(&order.members, *index).defines_version(&version))
                }
                Provider::Image(image) => {
                    let needed = image.image();
                    needed.is_called(file).then(|| needed.symbols().defines_version(&version))
                }
                Provider::Host(library) => {
                    library.has_soname(file).then(|| library.defines_version(&version))
                }
            });
            order.members.iter().try_for_each(SymbolTable::check_work).map_err(in_member)?;
            if defined == Some(false) && !weak {
                versions.try_push(MissingVersion {
                    library: try_lossy(file)?,
                    version: try_lossy(version.name())?,
                    needed_by: try_string(&needing.name)?,
                })?;
            }
        }
    }
    if versions.is_empty() { Ok(()) } else { Err(missing(parsed, vec![], versions, vec![])) }
}

/// The order in which members are initialised: what an image needs before it; the image that was
/// asked for last. Where that leaves a choice, or there are circles, it is glibc's (2.35 and
/// later): depth first from the last member of the searchlist to the first, and without what the
/// first needs itself, which glibc does not know yet when it sorts.
fn init_order(parsed: &[Parsed<'_>]) -> Result<Vec<usize>, Error> {
    let needs =
        |index: usize| if index == 0 { [].iter() } else { member(parsed, index).needed.iter() };
    if parsed.len() == 1 {
        return try_filled(0, 1);
    }
    let mut order = try_vec(parsed.len())?;
    let mut visited = try_filled(false, parsed.len())?;
    for start in (0..parsed.len()).rev() {
        if std::mem::replace(member_mut(&mut visited, start), true) {
            continue;
        }
        // A stack of (member, its needs that are still to be looked at): the depth is the input's.
        let mut stack = vec![(start, needs(start))];
        while let Some((index, left)) = stack.last_mut() {
            match left.next() {
                None => {
                    order.push(*index);
                    stack.pop();
                }
                Some(&Provider::Member(needed)) => {
                    if !std::mem::replace(member_mut(&mut visited, needed), true) {
                        stack.try_push((needed, needs(needed)))?;
                    }
                }
                Some(_) => {}
            }
        }
    }
    order.retain(|&member| member != 0);
    order.push(0);
    Ok(order)
}

/// Has `make` make something of what debuggers could be told of an image. `file` has its debug
/// sections, if there is such a file; `memory` is the image as it is, or will be, in place.
pub(crate) fn with_debug_source<M: ReadAt, T>(
    decoded: &Decoded,
    file: Option<&[u8]>,
    memory: &M,
    symbols: &SymbolTable<'_>,
    make: impl FnOnce(&Source<'_>) -> T,
) -> Result<T, Error> {
    let segments = try_collect(decoded.segments.iter().map(|segment| SourceSegment {
        addresses: segment.addresses.clone(),
        executable: segment.access.execute,
        writable: segment.access.write,
    }))?;
    let dynamic_symbols = |visit: &mut dyn FnMut(DynamicSymbol<'_>)| {
        for (_, symbol) in symbols.iter() {
            visit(DynamicSymbol {
                name: symbols.string(symbol.st_name).unwrap_or(b""),
                st_value: symbol.st_value,
                st_size: symbol.st_size,
                st_info: symbol.st_info,
                st_other: symbol.st_other,
                st_shndx: symbol.st_shndx,
            });
        }
    };
    let eh_frame = || Some(EhFrame::locate(decoded.eh_frame_hdr.clone()?, memory)?.range);
    Ok(make(&Source {
        file,
        memory,
        segments: &segments,
        eh_frame: &eh_frame,
        tls_size: decoded.tls.as_ref().map_or(0, |tls| tls.size),
        dynamic_symbols: &dynamic_symbols,
        policy: debug::policy(decoded.tls.is_some()),
    }))
}

/// Each thing that is kept, once.
fn dedup(keep: Vec<Dependency>) -> Result<Vec<Dependency>, Error> {
    let mut unique: Vec<Dependency> = Vec::new();
    for candidate in keep {
        if !unique.iter().any(|known| known.is(&candidate)) {
            unique.try_push(candidate)?;
        }
    }
    Ok(unique)
}

/// A file's contents; `None` if it cannot be read for another reason than that there is no memory for
/// it.
fn read_file(path: &Path) -> Result<Option<Bytes<'static>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Bytes::Read(Arc::new(bytes)))),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
            Err(Error::system("reading a library's file", error))
        }
        Err(_) => Ok(None),
    }
}

impl Prepared<'_> {
    /// The memory that the root was received into, if it can run there. For the only instance.
    pub(crate) fn take_received(&mut self) -> Option<InPlaceFile> {
        let root = self.members.first_mut()?;
        let buffer = root.image.buffer()?;
        let place = root.plan.in_place(buffer.address(), buffer::HEADROOM)?;
        // What moves to have room is at a page, and no more.
        let may_stay = place.room <= buffer.room() || root.plan.align == PageSize::current().get();
        // Profilers read the symbol table of the file, whose place other segments take.
        if !may_stay || !root.tables_stay || root.profile != Profile::Off {
            return None;
        }
        let mut buffer = root.image.take_buffer()?;
        match buffer.make_room(place.room) {
            Ok(()) => Some(InPlaceFile { buffer, place }),
            Err(_) => {
                root.image.put_back(buffer);
                None
            }
        }
    }

    /// The image that was asked for.
    pub(crate) fn root(&self) -> &Member<'_> {
        member(&self.members, 0)
    }
}
