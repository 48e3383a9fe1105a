//! From bytes and load options to a prepared load group: all that can be decided before any memory is
//! mapped.
//!
//! [`collect`] parses the group; here its references are bound and its pages planned. All missing
//! symbols are listed in one error. The result, [`Prepared`], serves one instance or any number. No code
//! of the images runs; but the system's loader runs the constructors of needed libraries that it
//! opens.
//!
//! Sources: the order of initialisation where the gABI leaves a choice: glibc `elf/dl-sort-maps.c`;
//! versions: glibc `elf/dl-version.c`.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::base::addr::PageSize;
use crate::base::error::{Error, MissingVersion};
use crate::base::events::{self, Took};
use crate::base::fallible::{
    TryGrow, require_memory, require_memory_for_next, try_collect, try_collect_ok, try_filled,
    try_lossy, try_string, try_vec,
};
use crate::base::faults::Faults;
use crate::base::members::{member, member_mut};
use crate::base::promise::MayRun;
use crate::debug::{DebugLevel, DebugTemplate, Instances};
use crate::elf::plan::Plan;
use crate::elf::symbol_table::SymbolTable;
use crate::host::library::{HostLibrary, Resolvers};
use crate::host::search::{FileId, SearchPath};
use crate::images::dlsym;
use crate::images::group::{CallBinder, Context, Dependency, LoadGroup, Needs, Provider};
use crate::images::namespace::Namespace;
use crate::images::policy::Policy;
use crate::images::scope::Scope;
use crate::images::unique::FirstUses;
use crate::link::bind::{self, Outcome};
use crate::link::bound::Bound;
use crate::link::dry_run;
use crate::link::prelink::Prelinked;
use crate::link::scope::LookupScope;
use crate::load::admission;
use crate::load::collect::{Parsed, SystemCopy, collect, missing, read_file};
use crate::load::debug_source::debug_template;
use crate::load::lazy_calls::may_bind_lazily;
use crate::load::settings::Settings;
use crate::memory::buffer;
use crate::memory::bytes::{Bytes, Image};
use crate::memory::in_place::InPlaceFile;
use crate::memory::mapped_file::ImageFile;
use crate::memory::protect;
use crate::memory::shared_text::SharedText;
use crate::profile::{self, Profile};

/// The number of the next template.
static TEMPLATES: AtomicU64 = AtomicU64::new(1);

/// A load group that is parsed, planned and bound, and not yet in memory.
pub(crate) struct Prepared<'d> {
    /// The root image, then the images that it needs, breadth first.
    pub members: Vec<Member<'d>>,
    /// Indices of members, dependencies first.
    pub init_order: Vec<usize>,
    /// The groups and libraries that the members are bound to.
    pub dependencies: Vec<Dependency>,
    /// Members whose thread-local storage must lie at a fixed distance from the thread pointer.
    pub static_tls: BTreeSet<usize>,
    /// Unique definitions of members that become the process's.
    pub first_uses: FirstUses,
    /// Its exports are visible to images loaded later.
    pub global: bool,
    /// By index of member: the symfile of each instance.
    pub symfiles: Vec<Option<DebugTemplate>>,
    /// Binds calls of members that are bound lazily.
    pub call_binder: Option<Arc<CallBinder>>,
    /// What the host allows the images.
    pub policy: Policy,
    /// Where the images are loaded. Each instance has a namespace of its own if `namespace` is `None`.
    pub context: Context,
    pub namespace: Option<Arc<Namespace<LoadGroup>>>,
    pub origin: Origin,
    /// An instance was begun.
    has_instance: AtomicBool,
}

/// What instances say of where they come from.
#[derive(Default)]
pub(crate) struct Origin {
    /// The number of the template, if it is one for any number of instances.
    pub template: Option<u64>,
    /// When the load of a single instance began, if it is to be logged.
    pub start: Option<Instant>,
}

/// One image of a prepared group.
pub(crate) struct Member<'d> {
    pub name: Arc<str>,
    pub image: Image<'d>,
    pub plan: Plan,
    /// Filtees included.
    pub needed: Vec<Provider>,
    pub filtees: Vec<Provider>,
    /// Where what it needs and what it opens is searched for.
    pub search_path: SearchPath,
    /// The file that it was read from.
    pub file: Option<FileId>,
    /// The name that it was searched by.
    pub alias: Option<Arc<[u8]>>,
    pub bound: Bound,
    /// Its calls are bound at the first call.
    pub lazy: bool,
    /// Its relocation tables lie in read-only segments, which do not move where the file is received: they
    /// can be read from the mapped image.
    pub tables_are_readable: bool,
    /// What instances share, once a second one is made.
    pub shared: OnceLock<Shared>,
    /// Instances may share text. No debugger sees them, and no profiler looks for their files.
    pub(super) shares_text: bool,
    /// How instances are reported to profilers.
    pub profile: Profile,
    /// Where its instances map from what they do not write, if profilers look there.
    pub image_file: Option<ImageFile>,
    /// The image's debug file, which may have its symbol table; for profilers only.
    pub debug_info: Option<Bytes<'static>>,
    /// It is a copy of a library of the system.
    pub of_system: bool,
}

/// What the instances of a template share, but for the first one, which is loaded as a single image is: it would take
/// longer to make this than to do without.
pub(crate) struct Shared {
    /// The pages that they map.
    pub text: Option<SharedText>,
    /// The relocations, computed for any number of instances.
    pub prelinked: Option<Prelinked>,
}

impl Member<'_> {
    /// Makes what instances share. `index` is its own, `count` the number of members.
    fn share(&self, index: usize, count: usize) -> Result<(), Error> {
        if self.shared.get().is_none() {
            let text = match self.shares_text {
                true => SharedText::new(&self.plan, self.image.bytes())?,
                false => None,
            };
            let prelinked = Prelinked::new(&self.image, &self.plan, &self.bound, index, count)?;
            // That of another thread is as good.
            let _ = self.shared.set(Shared { text, prelinked });
        }
        Ok(())
    }

    /// The name of its memory in `/proc/self/maps`, if it shall have one.
    pub(crate) fn memory_name(&self) -> Option<&str> {
        self.profile.allows_memory_names().then_some(&*self.name)
    }
}

/// The page plan and the bindings of a member.
pub(super) struct Binding {
    pub member: usize,
    pub plan: Plan,
    lazy: bool,
    pub bound: Bound,
}

/// The bindings of a group's members, by index. A report has none for members that have faults.
pub(super) struct GroupBinding {
    pub bindings: Vec<Binding>,
    pub outcome: Outcome,
    /// Empty while the scope has it.
    searchlist: Vec<Provider>,
    init_order: Vec<usize>,
}

impl Settings {
    /// From bytes to a bound group: collects, binds, plans. The process is set up.
    pub(crate) fn prepare<'d>(
        &self,
        bytes: Bytes<'d>,
        instances: Instances,
        may_run: Option<MayRun>,
    ) -> Result<Prepared<'d>, Error> {
        let start = events::start();
        let prepared = self.prepared(bytes, instances, may_run);
        let mut prepared = prepared.inspect_err(|error| events::failed(error, start))?;
        prepared.origin = match instances {
            Instances::One => Origin { template: None, start },
            Instances::Many => {
                let template = TEMPLATES.fetch_add(1, Ordering::Relaxed);
                if let Some(start) = start {
                    let (name, took) = (&prepared.root().name, Took::since(start));
                    logged!(debug, "{name}: prepared as template {template} in {took}");
                }
                Origin { template: Some(template), start: None }
            }
        };
        Ok(prepared)
    }

    fn prepared<'d>(
        &self,
        bytes: Bytes<'d>,
        instances: Instances,
        may_run: Option<MayRun>,
    ) -> Result<Prepared<'d>, Error> {
        let mut system_copies = Vec::new();
        // Libraries that the system opened for one attempt stay open until the next has them, too.
        let mut earlier = Vec::new();
        loop {
            require_memory()?;
            self.check_seal()?;
            let parsed = collect(self, bytes.clone(), &system_copies, may_run)?;
            let scope = self.group_scope(&parsed, Resolvers::promised(may_run))?;
            let mut group = self.bind_group(&parsed, &scope, Faults::End)?;
            group.searchlist = scope.into_searchlist();
            let copies = self.copies_of(&group.outcome.without_static_tls, &system_copies)?;
            if copies.is_empty() {
                return self.plan_instances(parsed, &mut group, instances);
            }
            system_copies.try_extend(copies)?;
            earlier.try_push((parsed, group))?;
        }
    }

    /// Checks that images can be sealed, if they shall be.
    pub(super) fn check_seal(&self) -> Result<(), Error> {
        if !self.policy.seal || protect::can_make_immutable() {
            return Ok(());
        }
        let what = "sealing an image: mseal needs Linux 6.10, which this system is not";
        let name = self.name.as_deref().unwrap_or("image");
        Err(Error::unsupported(what).in_image(name))
    }

    /// The scope of the references of all members.
    pub(super) fn group_scope<'a>(
        &'a self,
        parsed: &'a [Parsed<'_>],
        resolvers: Resolvers,
    ) -> Result<LookupScope<'a>, Error> {
        let searchlist = searchlist(parsed, self.scope)?;
        let members = try_collect_ok(parsed.iter().map(|member| member.image.symbols()))?;
        // Usually no member is a copy.
        let of_system = match parsed.iter().any(|member| member.of_system) {
            true => try_collect(parsed.iter().map(|member| member.of_system))?,
            false => Vec::new(),
        };
        let is_foreign = parsed.first().is_some_and(|root| !root.image.decoded.machine.is_this());
        if is_foreign {
            return self.foreign_scope(searchlist, members);
        }
        self.lookup_scope(searchlist, members, of_system, resolvers)
    }

    /// Binds the references of all members. One error lists all missing symbols, or all refused ones.
    pub(super) fn bind_group(
        &self,
        parsed: &[Parsed<'_>],
        scope: &LookupScope<'_>,
        mut faults: Faults,
    ) -> Result<GroupBinding, Error> {
        let init_order = init_order(parsed, &scope.searchlist)?;
        check_versions(parsed, scope).or_else(|error| faults.note(error))?;

        let mut outcome = Outcome::new(faults);
        let mut bindings = try_vec(parsed.len())?;
        for (count, &index) in init_order.iter().enumerate() {
            require_memory_for_next(count)?;
            let this = member(parsed, index);
            // A library that the system opens may have what memdl does not support.
            let of_system = || std::mem::replace(&mut outcome.faults, Faults::OfSystem(Vec::new()));
            let faults = this.unopened.is_some().then(of_system);
            let before = outcome.faults.list().len();
            match self.bind_member(this, index, scope, &mut outcome) {
                Ok(binding) => bindings.push(binding),
                Err(error) => outcome.faults.note(error.in_image(&this.name))?,
            }
            outcome.faults.name_from(before, &this.name);
            if let Some(faults) = faults {
                outcome.faults = faults;
            }
        }
        bindings.sort_unstable_by_key(|binding| binding.member);
        if !outcome.refused.is_empty() || !outcome.missing.is_empty() {
            note_unbound(parsed, &mut outcome)?;
        }
        Ok(GroupBinding { bindings, outcome, searchlist: Vec::new(), init_order })
    }

    /// Plans a member's pages, and binds its references.
    fn bind_member(
        &self,
        parsed: &Parsed<'_>,
        member: usize,
        scope: &LookupScope<'_>,
        outcome: &mut Outcome,
    ) -> Result<Binding, Error> {
        let Parsed { name, image, unopened, .. } = parsed;
        let page = admission::page_size(image.decoded.machine);
        let plan = Plan::new(&image.decoded, image.bytes().len(), page)?;
        // The system opens libraries with `RTLD_NOW`.
        let lazy = self.lazy && unopened.is_none() && may_bind_lazily(image, &plan);
        let bound = bind::bind(image, member, name, scope, lazy, outcome)?;
        Ok(Binding { member, plan, lazy, bound })
    }

    /// Copies of libraries that the system opened for the group, and that lack room in every thread for
    /// thread-locals that the group reaches by initial exec. As members they get the room that `ld.so`
    /// would have given them, had it seen the reference.
    fn copies_of(
        &self,
        libraries: &[Arc<HostLibrary>],
        known: &[SystemCopy],
    ) -> Result<Vec<SystemCopy>, Error> {
        let mut copies: Vec<SystemCopy> = Vec::new();
        for library in libraries {
            require_memory()?;
            if let Some((name, path)) = library.opened_file()
                && !self.provided.iter().chain(known).chain(&copies).any(|it| *it.0 == *name)
                && let Some(bytes) = read_file(&path)?
            {
                copies.try_push((name.into(), bytes))?;
            }
        }
        Ok(copies)
    }

    /// What counts for libraries that the images open later.
    fn context(&self) -> Context {
        Context {
            opener: self.opener.clone(),
            provider: self.provider.clone(),
            scope: self.scope,
            services: self.services,
            cover: self.cover,
        }
    }

    /// Makes all that the instances of a bound group share, of its parts.
    // Inlined, it would enlarge the frame under all that binds: pages of the stack that a first load touches.
    #[inline(never)]
    fn plan_instances<'d>(
        &self,
        parsed: Vec<Parsed<'d>>,
        group: &mut GroupBinding,
        instances: Instances,
    ) -> Result<Prepared<'d>, Error> {
        let GroupBinding { bindings, outcome, searchlist, init_order } = group;
        parsed.iter().try_for_each(|member| (self.cover)(&member.needed))?;
        let (debug, profile) = (self.debug.effective(), self.profile.effective());
        let count = parsed.len();
        if instances == Instances::Many {
            check_common(&parsed, bindings)?;
        }
        let mut symfiles = try_vec(count)?;
        let mut members = try_vec(count)?;
        let Outcome { dependencies, static_tls, first_uses, .. } = outcome;
        for (parsed, Binding { plan, lazy, bound, .. }) in parsed.into_iter().zip(take(bindings)) {
            let Parsed {
                name, image, needed, filtees, search_path, file, alias, of_system, ..
            } = parsed;
            require_memory_for_next(members.len())?;
            let separate = self.debug_info.as_ref().filter(|_| members.is_empty());
            let debug_info = separate.filter(|_| profile != Profile::Off).cloned();
            let separate = separate.map(|bytes| &**bytes);
            symfiles.push(debug_template(&name, &image, separate, debug, instances, &self.limits)?);
            let tables_are_readable =
                image.decoded.relocations.ranges().all(|range| plan.is_read_only(range));
            let image_file = profile::image_file(profile, &name, &image);
            // Debuggers cannot set breakpoints in shared pages; sealed ones could not be made private later.
            let shares_text = debug == DebugLevel::Off
                && image_file.is_none()
                && !image.decoded.text_relocations
                && !self.policy.seal;
            members.push(Member {
                name,
                image,
                plan,
                needed,
                filtees,
                search_path,
                file,
                alias,
                bound,
                lazy,
                tables_are_readable,
                shared: OnceLock::new(),
                shares_text,
                profile,
                image_file,
                debug_info,
                of_system,
            });
        }
        let is_lazy = members.iter().any(|it| it.lazy);
        Ok(Prepared {
            members,
            init_order: take(init_order),
            dependencies: without_duplicates(take(dependencies))?,
            static_tls: take(static_tls),
            first_uses: take(first_uses),
            global: self.global,
            symfiles,
            call_binder: is_lazy.then(|| self.call_binder(take(searchlist))),
            context: self.context(),
            namespace: self.namespace.clone(),
            policy: self.policy.clone(),
            origin: Origin::default(),
            has_instance: AtomicBool::new(false),
        })
    }
}

/// Notes as faults what could not be bound. Errors tell of the root first.
#[cold]
fn note_unbound(parsed: &[Parsed<'_>], outcome: &mut Outcome) -> Result<(), Error> {
    let at = |name: &str| parsed.iter().position(|member| *member.name == *name);
    if !outcome.refused.is_empty() {
        outcome.refused.sort_by_key(|refused| at(&refused.requested_by));
        let image = parsed.first().map_or(String::new(), |root| root.name.to_string());
        let symbols = take(&mut outcome.refused);
        outcome.faults.note(Error::RefusedImports { image, symbols })?;
    }
    if !outcome.missing.is_empty() {
        outcome.missing.sort_by_key(|missing| at(&missing.needed_by));
        let symbols = take(&mut outcome.missing);
        outcome.faults.note(missing(parsed, vec![], vec![], symbols))?;
    }
    Ok(())
}

/// Checks what the instances of a template will have in common.
fn check_common(parsed: &[Parsed<'_>], bindings: &[Binding]) -> Result<(), Error> {
    for (Parsed { name, image, .. }, binding) in parsed.iter().zip(bindings) {
        let Binding { plan, bound, member, .. } = binding;
        let checked = dry_run::check_common(image, plan, bound, *member, parsed.len());
        checked.map_err(|error| error.in_image(name))?;
    }
    Ok(())
}

/// The root and the libraries that it needs, directly or not, breadth first, each once. Filtees come before
/// their filters, and so before the root if it is one.
fn searchlist(parsed: &[Parsed<'_>], scope: Scope) -> Result<Vec<Provider>, Error> {
    // Libraries of the initial set are in the global scope, which comes first.
    let is_searched = |needed: &Provider| {
        matches!(needed, Provider::Host(library) if library.is_startup())
            && scope == Scope::HostFirst
    };
    let own = |index: usize| {
        let Parsed { needed, filtees, .. } = member(parsed, index);
        Ok(Needs {
            needed: try_collect(needed.iter().cloned())?,
            filtees: match filtees.as_slice() {
                [] => Vec::new(),
                filtees => try_collect(filtees.iter().cloned())?,
            },
        })
    };
    dlsym::breadth_first(Provider::Member(0), own, |needed| !is_searched(needed))
}

/// Every version that a member needs from a library must be defined there (glibc's
/// `_dl_check_map_versions`): a library that is too old is refused before anything runs.
fn check_versions(parsed: &[Parsed<'_>], scope: &LookupScope<'_>) -> Result<(), Error> {
    let mut versions = Vec::new();
    for (needing, table) in parsed.iter().zip(&scope.members) {
        let in_member = |error: Error| error.in_image(&needing.name);
        for (file, version, weak) in table.needed_versions() {
            let defined = needing.needed.iter().find_map(|provider| match provider {
                Provider::Member(index) => {
                    let needed = member(parsed, *index);
                    let is_it = needed.is_called(file);
                    is_it.then(|| member(&scope.members, *index).defines_version(&version))
                }
                Provider::Image(image) => {
                    let needed = image.image();
                    needed.is_called(file).then(|| needed.symbols().defines_version(&version))
                }
                Provider::Host(library) => {
                    library.has_soname(file).then(|| library.defines_version(&version))
                }
            });
            scope.members.iter().try_for_each(SymbolTable::check_work).map_err(in_member)?;
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

/// The order in which members are initialised: an image after the images that it needs; the root last.
/// Where that leaves a choice, or there are circles, the order is glibc's (2.35 and later): depth first
/// from the last member of the searchlist to the first, without the needs of the first itself, which
/// glibc does not know yet when it sorts.
fn init_order(parsed: &[Parsed<'_>], searchlist: &[Provider]) -> Result<Vec<usize>, Error> {
    let needs =
        |index: usize| if index == 0 { [].iter() } else { member(parsed, index).needed.iter() };
    if parsed.len() == 1 {
        return Ok(try_filled(0, 1)?);
    }
    // The members have the order of the searchlist, but for filtees.
    let starts = if parsed.iter().all(|member| member.filtees.is_empty()) {
        try_collect(0..parsed.len())?
    } else {
        let members = searchlist.iter().filter_map(|provider| match provider {
            Provider::Member(index) if *index != 0 => Some(*index),
            _ => None,
        });
        try_collect([0].into_iter().chain(members))?
    };
    let mut order = try_vec(parsed.len())?;
    let mut visited = try_filled(false, parsed.len())?;
    for start in starts.into_iter().rev() {
        if std::mem::replace(member_mut(&mut visited, start), true) {
            continue;
        }
        // A stack of (member, its needs that are still to be visited): the input controls the depth.
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

fn without_duplicates(dependencies: Vec<Dependency>) -> Result<Vec<Dependency>, Error> {
    let mut unique: Vec<Dependency> = Vec::new();
    for candidate in dependencies {
        if !unique.iter().any(|known| known.is(&candidate)) {
            unique.try_push(candidate)?;
        }
    }
    Ok(unique)
}

/// The buffers that members were received into and are to run in.
#[derive(Default)]
pub(crate) struct ReceivedFiles {
    /// Usually the only one, for which no list is made.
    root: Option<InPlaceFile>,
    /// With the members' indices.
    others: Vec<(usize, InPlaceFile)>,
}

impl ReceivedFiles {
    /// That of the member of this index.
    pub(super) fn take(&mut self, index: usize) -> Option<InPlaceFile> {
        if index == 0 {
            return self.root.take();
        }
        let at = self.others.iter().position(|(of, _)| *of == index)?;
        Some(self.others.swap_remove(at).1)
    }
}

impl Member<'_> {
    /// Takes the buffer that it was received into, if the image can run there.
    fn take_received(&mut self) -> Option<InPlaceFile> {
        let buffer = self.image.owner().buffer()?;
        let place = self.plan.in_place(buffer.address(), buffer::HEADROOM)?;
        // Memory that moves to grow is aligned to a page, and no more.
        let fits = place.room <= buffer.room() || self.plan.align == PageSize::current().get();
        // Profilers read the symbol table of the file, which other segments overwrite.
        if !fits || !self.tables_are_readable || self.profile != Profile::Off {
            return None;
        }
        let mut buffer = self.image.owner_mut().take_buffer()?;
        buffer.give_to_children();
        match buffer.make_room(place.room) {
            Ok(()) => Some(InPlaceFile { buffer, place }),
            Err(_) => {
                self.image.owner_mut().put_back(buffer);
                None
            }
        }
    }
}

impl Prepared<'_> {
    /// Takes the buffers that members were received into, where the images can run there. For a single instance.
    pub(super) fn take_received(&mut self) -> Result<ReceivedFiles, Error> {
        let [root, others @ ..] = &mut self.members[..] else {
            return Ok(ReceivedFiles::default());
        };
        let mut received = ReceivedFiles { root: root.take_received(), others: Vec::new() };
        for (index, member) in (1..).zip(others) {
            received.others.try_extend(member.take_received().map(|it| (index, it)))?;
        }
        Ok(received)
    }

    /// Makes what instances share, if there was an instance before.
    pub(super) fn begin_instance(&self) -> Result<(), Error> {
        if self.has_instance.load(Ordering::Relaxed)
            || self.has_instance.swap(true, Ordering::Relaxed)
        {
            for (index, member) in self.members.iter().enumerate() {
                let shared = member.share(index, self.members.len());
                shared.map_err(|error| error.in_image(&member.name))?;
            }
        }
        Ok(())
    }

    /// The root image.
    pub(crate) fn root(&self) -> &Member<'_> {
        member(&self.members, 0)
    }
}
