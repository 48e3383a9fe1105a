//! Surveying: what a load of some bytes would come to, without a load.
//!
//! It goes the way of a load ([`prepare`](crate::load::prepare)), with the same code, up to the point where memory
//! would be mapped. It differs in three ways. It goes on where a load would end, and so finds all reasons. It opens
//! no library: one that the system would open is read from its file, and its references are looked up as if it
//! were a member of the group, which is what a load makes of it where the system cannot bind it. And it calls no
//! IFUNC resolver.
//!
//! No code of images or of libraries runs. Functions of the caller do: verifiers, providers, filters, resolvers.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::addr::{LoadBias, Vaddr};
use crate::base::error::Error;
use crate::base::fallible::{
    TryGrow, require_memory, require_memory_for_next, try_collect, try_filled, try_lossy,
};
use crate::base::faults::Faults;
use crate::base::members::member;
use crate::base::tls_index::ModuleId;
use crate::debug::Instances;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::library::{HostLibrary, Resolvers};
use crate::images::group::{Dependency, LoadGroup, Provider};
use crate::link::apply::{Placement, TlsBlock};
use crate::link::bind::{self, Found, Outcome};
use crate::link::bound::Target;
use crate::link::dry_run;
use crate::link::scope::{Definition, LookupScope};
use crate::load::collect::{self, Absence, Needed, Parsed};
use crate::load::debug_source::debug_template;
use crate::load::prepare::GroupBinding;
use crate::load::settings::Settings;
use crate::memory::bytes::{Bytes, Image};
use crate::tls;
use crate::unwind::serve;

/// Where a needed library comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibraryOrigin {
    /// It is loaded in this process, by the system's loader.
    #[non_exhaustive]
    InProcess {
        /// Its path, as the system's loader has it. Empty for the executable.
        path: Arc<str>,
    },
    /// The system's loader would open it.
    #[non_exhaustive]
    File {
        /// The path of its file.
        path: Arc<str>,
    },
    /// memdl would read it from its file and load it with the image, since it must see images
    /// ([`Loader::system_libraries`](crate::Loader::system_libraries)).
    #[non_exhaustive]
    Copy {
        /// The path of its file.
        path: Arc<str>,
    },
    /// The caller supplies its bytes ([`Loader::provide`](crate::Loader::provide),
    /// [`Loader::provider`](crate::Loader::provider)).
    #[non_exhaustive]
    Bytes {
        /// The name that it is supplied by.
        name: Arc<str>,
    },
    /// memdl has loaded it.
    #[non_exhaustive]
    Image {
        /// The image's name.
        name: Arc<str>,
    },
    /// It was not searched: the image is for another machine, and the caller does not supply it.
    Unknown,
    /// Nothing supplies it, and the image does without it (`DT_AUXILIARY`).
    Absent,
    /// Nothing supplies it.
    #[non_exhaustive]
    Missing {
        /// The reason, as `ld.so` would give it.
        reason: String,
    },
}

/// What a reference is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportBinding {
    /// A symbol of the executable.
    Executable,
    /// A symbol of a library of the process, or of one that the system's loader would open.
    #[non_exhaustive]
    Library {
        /// The library's path.
        path: Arc<str>,
    },
    /// A function of memdl, in place of the library's: `dlopen`, `dl_iterate_phdr` and others.
    #[non_exhaustive]
    Replaced {
        /// The path of the library whose function it replaces.
        path: Arc<str>,
    },
    /// A symbol of an image: of one that memdl has loaded, or of one that it would load with this one.
    #[non_exhaustive]
    Image {
        /// The image's name.
        name: Arc<str>,
    },
    /// A symbol of the process whose library is not known.
    Process,
    /// An address that the caller gives ([`Loader::define`](crate::Loader::define)).
    Defined,
    /// An address that the caller's [`Loader::resolver`](crate::Loader::resolver) gives.
    Resolver,
    /// A weak reference that nothing defines, or that [`Loader::imports`](crate::Loader::imports) refuses. It is
    /// null.
    Null,
    /// Nothing defines it.
    Missing,
    /// Nothing that was found defines it, but a needed library was not found, which may; or was not searched, since the
    /// image is for another machine.
    Unknown,
    /// Only the host defines it, and [`Loader::imports`](crate::Loader::imports) refuses it.
    Refused,
}

/// A needed library of the image, or of one that would be loaded or opened for it.
pub(crate) struct NeededLibrary {
    pub name: String,
    pub needed_by: Arc<str>,
    pub origin: LibraryOrigin,
}

/// An undefined symbol of the image.
pub(crate) struct ImportedSymbol {
    /// In the dynamic symbol table.
    pub index: u32,
    pub is_referenced: bool,
    pub binding: ImportBinding,
}

/// What was found out.
pub(crate) struct Survey<'d> {
    /// `None` if it cannot be read.
    pub image: Option<Image<'d>>,
    pub name: Arc<str>,
    pub needed: Vec<NeededLibrary>,
    pub imports: Vec<ImportedSymbol>,
    /// Its thread-local storage must lie at a fixed distance from the thread pointer.
    pub needs_static_tls: bool,
    /// Whether all imports were looked up: a table that was made to be slow is not read to its end.
    pub is_complete: bool,
    /// Why a load is refused, in the order in which a load would find out.
    pub refusals: Vec<Error>,
}

impl Settings {
    /// Surveys a load. The process is set up. The error is lack of memory.
    pub(crate) fn survey<'d>(&self, bytes: Bytes<'d>) -> Result<Survey<'d>, Error> {
        require_memory()?;
        let (mut parsed, found) = collect::survey(self, bytes)?;
        let collect::Survey { needed, mut faults } = found;
        self.check_seal().or_else(|error| faults.note(error))?;
        let name = parsed.first().map(|root| root.name.clone());
        let mut survey = Survey {
            image: None,
            name: name.or(self.name.clone()).unwrap_or_else(|| "image".into()),
            needed: Vec::new(),
            imports: Vec::new(),
            needs_static_tls: false,
            is_complete: true,
            refusals: Vec::new(),
        };
        survey.refusals = match parsed.first() {
            Some(root) if root.image.decoded.machine.is_known() => {
                self.examine(&parsed, &needed, faults, &mut survey)?
            }
            Some(root) => {
                list_unknown(root, &mut survey)?;
                faults.take()
            }
            None => faults.take(),
        };
        survey.image = (!parsed.is_empty()).then(|| parsed.swap_remove(0).image);
        Ok(survey)
    }

    /// Binds the group, and examines what a load would do afterwards. Returns all faults.
    fn examine(
        &self,
        parsed: &[Parsed<'_>],
        needed: &[Needed],
        mut faults: Faults,
        survey: &mut Survey<'_>,
    ) -> Result<Vec<Error>, Error> {
        let mut names = Names::default();
        for (index, needed) in needed.iter().enumerate() {
            require_memory_for_next(index)?;
            survey.needed.try_push(NeededLibrary {
                name: try_lossy(needed.name.to_bytes())?,
                needed_by: member(parsed, needed.needed_by).name.clone(),
                origin: origin(parsed, &needed.found, &mut names)?,
            })?;
        }
        let is_absent =
            |it: &Needed| matches!(it.found, Err(Absence::Missing(_) | Absence::NotSearched));
        let is_incomplete = needed.iter().any(is_absent);
        let before = faults.list().len();
        let scope = self.group_scope(parsed, Resolvers::Rest)?;
        let mut group = self.bind_group(parsed, &scope, faults)?;
        faults = std::mem::take(&mut group.outcome.faults);
        if is_incomplete {
            // The library that is missing may define them.
            faults.retain_from(before, |error| match error {
                Error::Missing { symbols, .. } => symbols.is_empty(),
                _ => true,
            });
        }
        let outcome = &mut group.outcome;
        match imports(parsed, &scope, outcome, is_incomplete, &mut names, &mut survey.imports) {
            Err(Error::Limit { .. }) => survey.is_complete = false,
            listed => listed?,
        }
        survey.needs_static_tls = group.outcome.static_tls.contains(&0);
        let is_bound = faults.list().len() == before;
        check_members(parsed, &group, is_bound && !is_incomplete, &mut faults)?;
        self.check_debug_info(parsed, &mut faults)?;
        Ok(faults.take())
    }

    /// Checks that the caller's debug file belongs to the image.
    fn check_debug_info(&self, parsed: &[Parsed<'_>], faults: &mut Faults) -> Result<(), Error> {
        let (Some(file), Some(root)) = (self.debug_info.as_deref(), parsed.first()) else {
            return Ok(());
        };
        let debug = self.debug.effective();
        let (name, image, limits) = (&root.name, &root.image, &self.limits);
        let made = debug_template(name, image, Some(file), debug, Instances::One, limits);
        made.map(drop).or_else(|error| faults.note(error))
    }
}

/// Lists what an image for a machine without a table needs and imports.
fn list_unknown(root: &Parsed<'_>, survey: &mut Survey<'_>) -> Result<(), Error> {
    for (index, name) in root.image.decoded.needed.iter().enumerate() {
        require_memory_for_next(index)?;
        let (name, needed_by) = (try_lossy(name.to_bytes())?, root.name.clone());
        let origin = LibraryOrigin::Unknown;
        survey.needed.try_push(NeededLibrary { name, needed_by, origin })?;
    }
    for (index, _) in undefined(&root.image.symbols()?) {
        let (is_referenced, binding) = (true, ImportBinding::Unknown);
        survey.imports.try_push(ImportedSymbol { index, is_referenced, binding })?;
    }
    Ok(())
}

/// The symbols that the image takes from others, with index.
fn undefined(table: &SymbolTable<'_>) -> impl Iterator<Item = (u32, Sym)> {
    table.all().filter(|(_, symbol)| symbol.is_undefined() && !symbol.is_local())
}

/// Checks what the load of each member would meet once it is bound: its relocations, if `is_bound`; room in
/// static thread-local storage; unwinders.
fn check_members(
    parsed: &[Parsed<'_>],
    group: &GroupBinding,
    is_bound: bool,
    faults: &mut Faults,
) -> Result<(), Error> {
    let is_static = |index: usize| group.outcome.static_tls.contains(&index);
    /// Where images may be in a process of another machine: beyond what 32 bits reach.
    const ELSEWHERE: usize = 0x7f_0000_0000;
    let is_foreign = parsed.first().is_some_and(|root| !root.image.decoded.machine.is_this());
    // Near the process's libraries, where images usually are.
    let base = match is_foreign {
        true => ELSEWHERE,
        false => HostLibrary::loaded(c"libc.so.6")?.map_or(0, |libc| libc.load_bias()),
    };
    let placements = try_collect(parsed.iter().enumerate().map(|(index, member)| Placement {
        load_bias: LoadBias::between(Vaddr(0), base),
        tls: member.image.decoded.tls.as_ref().map(|segment| TlsBlock {
            module: ModuleId(1),
            static_offset:
                is_static(index).then(|| 0isize.wrapping_sub_unsigned(segment.size as usize)),
        }),
    }))?;
    for binding in &group.bindings {
        let Parsed { name, image, unopened, .. } = member(parsed, binding.member);
        if unopened.is_some() {
            continue;
        }
        faults.in_image(name, |faults| {
            let decoded = &image.decoded;
            let is_static = is_static(binding.member) && !is_foreign;
            if let Some(segment) = decoded.tls.as_ref().filter(|_| is_static) {
                tls::check_static_room(segment).or_else(|error| faults.note(error))?;
            }
            if is_bound {
                let foreign = binding.bound.foreign_tls().iter();
                let foreign = try_collect(foreign.map(|&module| TlsBlock {
                    module,
                    static_offset: tls::static_offset(module),
                }))?;
                let (plan, bound) = (&binding.plan, &binding.bound);
                dry_run::check(image, plan, bound, binding.member, &placements, &foreign)
                    .or_else(|error| faults.note(error))?;
            }
            match is_foreign {
                true => Ok(()),
                false => serve::check(decoded, image).or_else(|error| faults.note(error)),
            }
        })?;
    }
    Ok(())
}

/// What satisfies a needed library.
fn origin(
    parsed: &[Parsed<'_>],
    found: &Result<Provider, Absence>,
    names: &mut Names,
) -> Result<LibraryOrigin, Error> {
    Ok(match found {
        Err(Absence::Optional) => LibraryOrigin::Absent,
        Err(Absence::Missing(reason)) => LibraryOrigin::Missing { reason: reason.clone() },
        Err(Absence::NotSearched) => LibraryOrigin::Unknown,
        Ok(Provider::Host(library)) => LibraryOrigin::InProcess { path: names.of(library)? },
        Ok(Provider::Image(image)) => LibraryOrigin::Image { name: image.image().name.clone() },
        Ok(Provider::Member(index)) => {
            let Parsed { name, of_system, unopened, .. } = member(parsed, *index);
            let name = name.clone();
            match (unopened, of_system, index) {
                (Some(_), ..) => LibraryOrigin::File { path: name },
                (None, true, _) => LibraryOrigin::Copy { path: name },
                (None, false, 0) => LibraryOrigin::Image { name },
                (None, false, _) => LibraryOrigin::Bytes { name },
            }
        }
    })
}

/// The names of the process's libraries, each made once.
#[derive(Default)]
struct Names(BTreeMap<usize, Arc<str>>);

impl Names {
    fn of(&mut self, library: &HostLibrary) -> Result<Arc<str>, Error> {
        if let Some(name) = self.0.get(&library.load_bias()) {
            return Ok(name.clone());
        }
        require_memory()?;
        let name: Arc<str> = library.path().to_string_lossy().into();
        self.0.insert(library.load_bias(), name.clone());
        Ok(name)
    }

    fn library(&mut self, library: &HostLibrary) -> Result<ImportBinding, Error> {
        if library.is_executable() {
            return Ok(ImportBinding::Executable);
        }
        Ok(ImportBinding::Library { path: self.of(library)? })
    }
}

/// Lists the undefined symbols of the root, in table order, and what each is bound to.
fn imports(
    parsed: &[Parsed<'_>],
    scope: &LookupScope<'_>,
    outcome: &mut Outcome,
    is_incomplete: bool,
    names: &mut Names,
    imports: &mut Vec<ImportedSymbol>,
) -> Result<(), Error> {
    let (Some(root), Some(table)) = (parsed.first(), scope.members.first()) else {
        return Ok(());
    };
    let mut is_referenced = try_filled(false, table.capacity() as usize)?;
    for rela in root.image.relas() {
        if let Some(it) = is_referenced.get_mut(rela.symbol as usize) {
            *it = true;
        }
    }
    for (index, symbol) in undefined(table) {
        require_memory_for_next(imports.len())?;
        let symbolic = root.image.decoded.symbolic;
        let binding = match bind::find(0, &root.name, symbolic, index, scope, outcome)? {
            Found::Defined(found) => owner(parsed, scope, table, index, &symbol, &found, names)?,
            Found::Resolved => ImportBinding::Resolver,
            Found::Refused => ImportBinding::Refused,
            Found::Nothing if symbol.is_weak() => ImportBinding::Null,
            Found::Nothing if is_incomplete => ImportBinding::Unknown,
            Found::Nothing => ImportBinding::Missing,
        };
        let is_referenced = is_referenced.get(index as usize).copied().unwrap_or(false);
        imports.try_push(ImportedSymbol { index, is_referenced, binding })?;
    }
    scope.host.check_memory()
}

/// Whose a definition is.
fn owner(
    parsed: &[Parsed<'_>],
    scope: &LookupScope<'_>,
    table: &SymbolTable<'_>,
    index: u32,
    symbol: &Sym,
    found: &Definition,
    names: &mut Names,
) -> Result<ImportBinding, Error> {
    let of_member = |index: usize| {
        let Parsed { name, of_system, .. } = member(parsed, index);
        match of_system {
            true => ImportBinding::Library { path: name.clone() },
            false => ImportBinding::Image { name: name.clone() },
        }
    };
    if let Target::Member { member, .. }
    | Target::MemberIfunc { member, .. }
    | Target::MemberTls { member, .. } = found.target
    {
        return Ok(of_member(member));
    }
    if let Some(Dependency::Group(group)) = &found.dependency {
        return Ok(ImportBinding::Image { name: name_in(group, found.target) });
    }
    let Some(name) = table.name(symbol) else { return Ok(ImportBinding::Process) };
    let is_replaced = (scope.services)(name.bytes()).is_some();
    let of_library = |library: &HostLibrary, names: &mut Names| match is_replaced {
        true => Ok(ImportBinding::Replaced { path: names.of(library)? }),
        false => names.library(library),
    };
    if let Some(Dependency::Host(library)) = &found.dependency {
        return of_library(library, names);
    }
    if std::str::from_utf8(name.bytes()).is_ok_and(|name| scope.defined.contains_key(name)) {
        return Ok(ImportBinding::Defined);
    }
    let version = table.version(index);
    let wanted = version.map_or(VersionMatch::Unversioned, VersionMatch::Version);
    if let Some(library) = startup_library(scope, &name, wanted) {
        return of_library(library, names);
    }
    // An absolute symbol of a member looks like an address.
    let defines = |it: &SymbolTable<'_>| it.lookup(&name, wanted, TypeClass::Definition).is_some();
    let defining = scope.members.iter().position(defines);
    Ok(defining.map_or(ImportBinding::Process, of_member))
}

/// The library of the start-up set that has a definition of a name; where there is none, one with a PLT entry that
/// is its address.
fn startup_library(
    scope: &LookupScope<'_>,
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
) -> Option<&'static HostLibrary> {
    let of = |class| scope.host.startup_library(name, wanted, class);
    of(TypeClass::Definition).or_else(|| of(TypeClass::Address))
}

/// The name of the image in a loaded group that a definition is in.
fn name_in(group: &LoadGroup, target: Target) -> Arc<str> {
    let images = || (0..group.len()).map(|index| group.member(index));
    let found = images().find(|image| match target {
        Target::Address(address) => image.mapping.address_range().contains(&address),
        Target::Tls { module, .. } => image.tls.as_ref().is_some_and(|tls| tls.id() == module),
        Target::Member { .. } | Target::MemberIfunc { .. } | Target::MemberTls { .. } => false,
    });
    found.unwrap_or_else(|| group.member(0)).name.clone()
}
