//! Load groups and loaded images: what holds them together, and what they keep.
//!
//! A group is what one load brings in: the image that was asked for (member 0) and the libraries that it
//! needs, from bytes that the caller provided. Members can refer to each other in circles, so they are
//! loaded and unloaded together. The order of the fields is the order in which an unload drops them
//! (`lifecycle.rs` runs the destructors before). What a group is made of ([`Parts`]) is dropped first, or goes to the
//! instance that comes in its place ([`crate::images::idle`]).
//!
//! Nothing here finds an image by address (`registry.rs`) or runs its code.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crate::arch;
use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::fallible::{TryGrow, try_collect};
use crate::base::members::member;
use crate::base::sync::{Lock, Rank};
use crate::debug::DebugRegistration;
use crate::debug::read_lines::ReadLines;
use crate::elf::decoded::Decoded;
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::symbol::Sym;
use crate::elf::symbol_table::{SymbolTable, Tables};
use crate::host::collectors::Roots;
use crate::host::library::{HostLibrary, SymbolValue};
use crate::host::link_map::LinkMap;
use crate::host::search::{FileId, SearchPath};
use crate::images::events::Events;
use crate::images::idle::{OwnStand, Stand};
use crate::images::namespace::Namespace;
use crate::images::plt::{BindCall, Plt};
use crate::images::policy::{Policy, Restriction};
use crate::images::provider::LibraryRequest;
use crate::images::scope::Scope;
use crate::images::tenant::Tenant;
use crate::memory::buffer::ImageBuffer;
use crate::memory::bytes::Bytes;
use crate::memory::contents::Contents;
use crate::memory::mapping::Mapping;
use crate::memory::stage::Sealed;
use crate::profile;
use crate::tls::TlsModule;
use crate::unwind;

/// The images of one load.
pub(crate) struct LoadGroup {
    /// The number of them, from the front of the order, that are initialised and not yet finalised.
    pub(super) initialised: AtomicUsize,
    /// The group's number in the registry, once it is entered.
    pub(super) number: OnceLock<u64>,
    /// An image of it was opened with `RTLD_NODELETE`.
    pub(super) is_kept: AtomicBool,
    /// An image of it was made visible to all later images.
    is_global: AtomicBool,
    libc_registrations: LibcRegistrations,
    /// The number of threads that have destructors of thread-local objects to run. Each holds the group.
    stays: AtomicUsize,
    /// Taken by the drop of the group.
    pub(super) parts: ManuallyDrop<Box<Parts>>,
    /// Where its images find others by name, and are found. One of its own is made when it is asked for.
    namespace: OnceLock<Arc<Namespace<LoadGroup>>>,
    /// Its drop logs the unload.
    pub(super) events: Events,
}

/// What a group is made of, and hands on to the instance that comes in its place.
pub(crate) struct Parts {
    /// Indices of members, dependencies first.
    pub(super) init_order: Vec<usize>,
    pub(crate) members: Vec<LoadedImage>,
    /// The groups and libraries that members are bound to. Behind `members`, so that they are dropped last.
    pub(super) dependencies: Lock<Vec<Dependency>>,
    /// The number of these when the group was made.
    own_dependencies: usize,
    call_binder: Option<Arc<CallBinder>>,
    context: Context,
    /// What the host allows its images.
    pub(super) policy: Policy,
    /// Set while a group is made of these parts.
    restriction: Option<Restriction>,
    /// Where it waits for the next instance of its template, if it can be used again.
    pub(super) stand: Option<Arc<OwnStand<Parts>>>,
    /// What its members write, as it was before their constructors: by member, once it is known.
    pub(crate) contents: Vec<Contents>,
    /// Which group is at its addresses.
    pub(super) tenant: Arc<GroupTenant>,
}

/// What counts for all images of a group.
pub(crate) struct Common {
    pub call_binder: Option<Arc<CallBinder>>,
    pub context: Context,
    pub namespace: Option<Arc<Namespace<LoadGroup>>>,
    pub policy: Policy,
    /// Where it waits for the next instance of its template, if it can be used again.
    pub stand: Option<Arc<Stand<Parts>>>,
}

/// Which group is at the addresses of one.
pub(crate) type GroupTenant = Tenant<LoadGroup, LoadedImage>;

impl Deref for LoadGroup {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Where the images of a group were loaded, which counts for what they open.
#[derive(Clone)]
pub(crate) struct Context {
    /// The image that opened the group, whose scope it is in.
    pub opener: Option<ImageRef>,
    /// Supplies libraries, by name.
    pub provider: Option<Arc<LibraryProvider>>,
    pub scope: Scope,
    /// Replaces functions of the host, by name.
    pub services: fn(&[u8]) -> Option<usize>,
    /// Leads calls of `dlopen` in libraries of the system to memdl.
    pub cover: fn(&[Provider]) -> Result<(), Error>,
}

/// Whether images of a group have registered anything with the C library, which a pool's reset must undo.
#[derive(Default)]
pub(crate) struct LibcRegistrations {
    handlers: AtomicBool,
    keys: AtomicBool,
    /// A key was ever registered.
    has_keys: AtomicBool,
}

/// Registrations with the C library since the last look.
pub(crate) struct Pending {
    /// Functions for the exit or for forks. Destructors remove them.
    pub handlers: bool,
    /// Keys with destructors.
    pub keys: bool,
}

impl LibcRegistrations {
    pub(super) fn note_handler(&self) {
        self.handlers.store(true, Ordering::Relaxed);
    }

    pub(super) fn note_key(&self) {
        self.keys.store(true, Ordering::Relaxed);
        self.has_keys.store(true, Ordering::Relaxed);
    }

    /// Whether a key was registered, however long ago.
    pub(super) fn has_keys(&self) -> bool {
        self.has_keys.load(Ordering::Relaxed)
    }

    /// The registrations since the last call.
    pub(crate) fn take(&self) -> Pending {
        // Usually there is none, and reading is cheaper than changing.
        let take =
            |flag: &AtomicBool| flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed);
        Pending { handlers: take(&self.handlers), keys: take(&self.keys) }
    }
}

/// Binds a call of a group's member: from the symbol's index to the function, and the dependencies that
/// the group must keep for it.
pub(crate) type CallBinder =
    dyn Fn(&LoadGroup, usize, u32) -> Result<(usize, Vec<Dependency>), Error> + Send + Sync;

/// The symbol table of a loaded image, located once.
pub(crate) struct KeptTable(Tables<'static>);

impl KeptTable {
    /// The table of the image that `mapping` holds.
    ///
    /// # Safety
    /// It is dropped before both, or with them.
    pub(crate) unsafe fn new(
        decoded: &Arc<Decoded>,
        mapping: &Mapping<Sealed>,
    ) -> Result<KeptTable, Error> {
        let tables: Tables<'_> = *decoded.symbols_in(mapping)?;
        // SAFETY: the slices are of the image's memory and the layout is in the `Arc`: neither moves
        // when their owners do, and the caller promises that both outlive the table.
        let tables = unsafe { std::mem::transmute::<Tables<'_>, Tables<'static>>(tables) };
        Ok(KeptTable(tables))
    }

    /// `DT_STRTAB`.
    pub(crate) fn strings(&self) -> &[u8] {
        self.0.view().strings_from(0)
    }
}

impl BindCall for LoadGroup {
    /// Also stores the function where the next call finds it.
    fn bind_call(&self, member: usize, relocation: usize) -> Result<usize, Error> {
        let loaded = self.member(member);
        let outside = || {
            let what = format!("a call through PLT entry {relocation}, which does not exist");
            Error::malformed(what, Place::Header)
        };
        let table = loaded.decoded.relocations.jmprel.clone().ok_or_else(outside)?;
        let entries = loaded.mapping.read(table).ok_or_else(outside)?;
        let rela = Rela::entries(entries).nth(relocation).ok_or_else(outside)?;
        let binder = self.call_binder.as_ref().ok_or_else(outside)?;
        let (function, dependencies) = binder(self, member, rela.symbol)?;
        // The definition must stay loaded before the next call goes there directly.
        self.dependencies.lock().try_extend(dependencies)?;
        loaded.mapping.store_shared(rela.r_offset, function);
        Ok(function)
    }
}

/// A loaded image. The fields are in drop order: all that refers to the mapping is dropped before it.
pub(crate) struct LoadedImage {
    pub(crate) name: Arc<str>,
    /// The number of the template that it is an instance of.
    pub(crate) template: Option<u64>,
    pub(crate) table: KeptTable,
    pub(crate) decoded: Arc<Decoded>,
    /// The libraries that it needs, directly, in order, filtees included.
    pub(crate) needed: Vec<Provider>,
    /// The libraries whose definitions come before its own (`DT_FILTER`, `DT_AUXILIARY`).
    pub(crate) filtees: Vec<Provider>,
    /// Where what it needs and what it opens is searched for.
    pub(crate) search_path: SearchPath,
    /// The file that it was read from by memdl.
    pub(crate) file: Option<FileId>,
    /// The name that it was searched by.
    pub(crate) alias: Option<Arc<[u8]>>,
    pub(crate) debug: DebugRegistration,
    pub(crate) _profile: Option<profile::Registration>,
    /// Its debug information, as far as backtraces have read it.
    pub(crate) read: ReadLines,
    pub(crate) _unwind: unwind::Registration,
    pub(crate) link_map: Box<LinkMap>,
    /// Set if its calls are bound lazily.
    pub(crate) plt: Option<Box<Plt<LoadGroup>>>,
    pub(crate) tls: Option<TlsModule>,
    /// It is a copy of a library of the system.
    pub(crate) of_system: bool,
    /// The memory that it writes, as collectors know it.
    pub(crate) roots: Roots,
    pub(crate) mapping: Mapping<Sealed>,
}

/// An image that is loaded. It stays loaded as long as this is held.
#[derive(Clone)]
pub(crate) struct ImageRef {
    group: Arc<LoadGroup>,
    index: usize,
}

impl ImageRef {
    /// The group's member of this index.
    pub(crate) fn new(group: Arc<LoadGroup>, index: usize) -> ImageRef {
        ImageRef { group, index }
    }

    pub(crate) fn image(&self) -> &LoadedImage {
        self.group.member(self.index)
    }

    pub(crate) fn group(&self) -> &Arc<LoadGroup> {
        &self.group
    }

    pub(crate) fn into_group(self) -> Arc<LoadGroup> {
        self.group
    }

    /// The image's index in its group.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether both refer to the same image.
    pub(crate) fn is(&self, other: &ImageRef) -> bool {
        Arc::ptr_eq(&self.group, &other.group) && self.index == other.index
    }
}

/// A group or library that must stay loaded because a group refers to it.
#[derive(Clone)]
pub(crate) enum Dependency {
    Group(Arc<LoadGroup>),
    Host(Arc<HostLibrary>),
}

impl Dependency {
    /// The address of what it holds. Two addresses may be of one library of the host.
    pub(crate) fn address(&self) -> usize {
        match self {
            Dependency::Group(group) => Arc::as_ptr(group).addr(),
            Dependency::Host(library) => Arc::as_ptr(library).addr(),
        }
    }

    /// Whether both are the same group or library.
    pub(crate) fn is(&self, other: &Dependency) -> bool {
        match (self, other) {
            (Dependency::Group(a), Dependency::Group(b)) => Arc::ptr_eq(a, b),
            (Dependency::Host(a), Dependency::Host(b)) => Arc::ptr_eq(a, b) || a.is(b),
            (Dependency::Group(_), Dependency::Host(_))
            | (Dependency::Host(_), Dependency::Group(_)) => false,
        }
    }
}

/// A library that satisfies a `DT_NEEDED` entry, or is an element of a searchlist.
#[derive(Clone)]
pub(crate) enum Provider {
    /// The member of the group of this index.
    Member(usize),
    /// An image that is loaded already.
    Image(ImageRef),
    /// A library of `ld.so`'s.
    Host(Arc<HostLibrary>),
}

/// What a provider supplies: bytes to load, or a library that is loaded; or why it cannot.
///
/// ```
/// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
/// // Bytes, or a library that is loaded.
/// for provided in [memdl::Provided::from(bytes), memdl::Provided::from(&library)] {
///     let loader = memdl::Loader::new()
///         .provider(move |it| (it.name() == "libexample.so").then(|| provided.clone()));
///     // SAFETY: we trust the constructors of both libraries. The plug-in needs libexample.so.
///     assert!(unsafe { loader.load(&plugin_bytes) }.is_ok());
/// }
/// ```
#[derive(Clone)]
pub struct Provided(pub(crate) Source);

#[derive(Clone)]
pub(crate) enum Source {
    /// Bytes, and the name of the image that they become, unless it is the name that it is needed by.
    Bytes(Bytes<'static>, Option<Arc<str>>),
    Group(Arc<LoadGroup>),
    /// Why the library, which exists, cannot be supplied.
    Failed(Arc<str>),
}

impl Provided {
    #[cfg(feature = "capi")]
    pub(crate) fn from_bytes(bytes: Bytes<'static>) -> Provided {
        Provided(Source::Bytes(bytes, None))
    }

    /// Names the image that the bytes become, as [`Loader::name`](crate::Loader::name) does. Default: the name that
    /// it is needed by.
    ///
    /// An image of the load, or of its namespace, that has the name already is used in place of the bytes. So with an
    /// absolute path, one library is loaded once, however it is asked for, and `$ORIGIN` in its search path is the
    /// folder of the path. A library that is loaded keeps its name.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new().provider(move |request| {
    ///     let provided = memdl::Provided::from(&bytes[..]).named("/archive.zip/libexample.so");
    ///     (request.name() == "libexample.so").then_some(provided)
    /// });
    /// // SAFETY: we trust the constructors of both libraries. The plug-in needs libexample.so.
    /// let plugin = unsafe { loader.load(&plugin_bytes)? };
    /// assert_eq!(memdl::images()[1].name(), "/archive.zip/libexample.so");
    /// # drop(plugin);
    /// # Ok::<(), memdl::Error>(())
    /// ```
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Provided {
        if let Source::Bytes(_, known) = &mut self.0 {
            *known = Some(name.into().into());
        }
        self
    }

    /// A library that exists and cannot be supplied, for this reason: the load fails with [`Error::Missing`], and
    /// nothing else is searched. In an image, `dlopen` fails.
    ///
    /// ```
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new().provider(|request| {
    ///     (request.name() == "libexample.so").then(|| memdl::Provided::failed("the store is offline"))
    /// });
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&plugin_bytes) }.unwrap_err(); // it needs libexample.so
    /// assert!(error.to_string().contains("libexample.so [the store is offline]"));
    /// ```
    #[must_use]
    pub fn failed(reason: impl Into<String>) -> Provided {
        Provided(Source::Failed(reason.into().into()))
    }
}

impl From<Arc<[u8]>> for Provided {
    fn from(bytes: Arc<[u8]>) -> Provided {
        Provided(Source::Bytes(Bytes::Shared(bytes), None))
    }
}

/// The library runs in the buffer, as with [`Loader::load_buffer`](crate::Loader::load_buffer): no byte of it is copied.
/// It is copied for a template, and where a clone of this value is kept.
///
/// ```
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
/// let loader = memdl::Loader::new().provider(move |request| {
///     let received = memdl::ImageBuffer::read_from(&bytes[..], bytes.len());
///     (request.name() == "libexample.so").then(|| match received {
///         Ok(buffer) => buffer.into(),
///         Err(error) => memdl::Provided::failed(error.to_string()),
///     })
/// });
/// // SAFETY: we trust the constructors of both libraries. The plug-in needs libexample.so.
/// assert!(unsafe { loader.load(&plugin_bytes) }.is_ok());
/// ```
impl From<ImageBuffer> for Provided {
    fn from(buffer: ImageBuffer) -> Provided {
        Provided(Source::Bytes(Bytes::Buffer(Arc::new(buffer)), None))
    }
}

impl From<Vec<u8>> for Provided {
    fn from(bytes: Vec<u8>) -> Provided {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl From<&[u8]> for Provided {
    fn from(bytes: &[u8]) -> Provided {
        Arc::<[u8]>::from(bytes).into()
    }
}

/// The caller's source of needed libraries, asked by name.
pub(crate) type LibraryProvider = dyn Fn(&LibraryRequest<'_>) -> Option<Provided> + Send + Sync;

impl LoadGroup {
    /// A group of images that are relocated and sealed. Only their IFUNC resolvers have run, and the
    /// registry does not have the group yet.
    pub(crate) fn new(
        members: Vec<LoadedImage>,
        init_order: Vec<usize>,
        dependencies: Vec<Dependency>,
        common: Common,
    ) -> Arc<LoadGroup> {
        let Common { call_binder, context, namespace, policy, stand } = common;
        let parts = Parts {
            restriction: None,
            policy,
            init_order,
            members,
            own_dependencies: dependencies.len(),
            dependencies: Lock::new(Rank::Dependencies, dependencies),
            call_binder,
            context,
            stand: stand.map(|stand| Arc::new(OwnStand(stand))),
            contents: Vec::new(),
            tenant: Arc::new(Tenant::none()),
        };
        LoadGroup::of(Box::new(parts), namespace)
    }

    /// A group of these parts.
    pub(super) fn of(
        mut parts: Box<Parts>,
        namespace: Option<Arc<Namespace<LoadGroup>>>,
    ) -> Arc<LoadGroup> {
        parts.restriction = Restriction::new(&parts.policy);
        let group = Arc::new(LoadGroup {
            initialised: AtomicUsize::new(0),
            number: OnceLock::new(),
            is_kept: AtomicBool::new(false),
            is_global: AtomicBool::new(false),
            libc_registrations: LibcRegistrations::default(),
            stays: AtomicUsize::new(0),
            parts: ManuallyDrop::new(parts),
            namespace: namespace.map_or_else(OnceLock::new, OnceLock::from),
            events: Events::default(),
        });
        for plt in group.members.iter().filter_map(|loaded| loaded.plt.as_ref()) {
            plt.set_group(&group);
        }
        group
    }

    /// Makes the images immutable. Called just before the group is entered, since a sealed image can never be
    /// unmapped.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        self.members.iter().try_for_each(|it| {
            it.mapping.make_immutable().map_err(|error| error.in_image(&it.name))
        })
    }

    /// What the host allows its images.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The image that opened the group, whose scope it is in.
    pub(crate) fn opener(&self) -> Option<&ImageRef> {
        self.context.opener.as_ref()
    }

    /// Where its images find others by name, and are found.
    pub(crate) fn namespace(self: &Arc<LoadGroup>) -> &Arc<Namespace<LoadGroup>> {
        self.namespace.get_or_init(|| Namespace::of(self))
    }

    /// As [`LoadGroup::namespace`]; `None` if nothing has asked for it, so that it has no other group.
    pub(crate) fn shared_namespace(&self) -> Option<&Arc<Namespace<LoadGroup>>> {
        self.namespace.get()
    }

    /// Where its images were loaded.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn libc_registrations(&self) -> &LibcRegistrations {
        &self.libc_registrations
    }

    /// The group's key in the registry, once it is entered.
    pub(crate) fn number(&self) -> Option<u64> {
        self.number.get().copied()
    }

    /// The number of threads that have destructors of its images' thread-local objects to run.
    pub(crate) fn stays(&self) -> usize {
        self.stays.load(Ordering::Acquire)
    }

    /// One thread more has such destructors, and holds the group.
    pub(super) fn begin_stay(&self) {
        self.stays.fetch_add(1, Ordering::Relaxed);
    }

    /// One less has; it is about to let go of the group.
    pub(super) fn end_stay(&self) {
        self.stays.fetch_sub(1, Ordering::Release);
    }

    /// How many shares of another group this one has: the group that opened it, and what its members are
    /// bound to or need.
    pub(crate) fn shares_of(&self, other: &Arc<LoadGroup>) -> usize {
        let opener = self.context.opener.iter().filter(|opener| Arc::ptr_eq(&opener.group, other));
        let needed = self.members.iter().flat_map(|loaded| &loaded.needed);
        let needed = needed.filter(
            |needed| matches!(needed, Provider::Image(image) if Arc::ptr_eq(&image.group, other)),
        );
        let dependencies = self.dependencies.lock();
        let bound = dependencies
            .iter()
            .filter(|bound| matches!(bound, Dependency::Group(group) if Arc::ptr_eq(group, other)));
        opener.count().saturating_add(needed.count()).saturating_add(bound.count())
    }

    /// Whether the group is never unloaded.
    pub(crate) fn is_pinned(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
            || self.policy.seal
            || self.members.iter().any(|loaded| loaded.decoded.nodelete)
    }

    /// Which group is at its addresses.
    pub(crate) fn tenant(&self) -> &Arc<GroupTenant> {
        &self.tenant
    }

    /// An image of it is about to be made visible to all later images.
    pub(super) fn note_global(&self) {
        self.is_global.store(true, Ordering::Relaxed);
    }

    /// Whether an image of it was made visible to all later images.
    pub(super) fn was_global(&self) -> bool {
        self.is_global.load(Ordering::Relaxed)
    }

    /// The number of shares of the group. All that former holders did with it happens before.
    pub(crate) fn holders(self: &Arc<LoadGroup>) -> usize {
        let count = Arc::strong_count(self);
        // Pairs with the release in the drop of an `Arc`.
        fence(Ordering::Acquire);
        count
    }

    /// The addresses of the memory that its images can write.
    pub(crate) fn written(&self) -> impl Iterator<Item = Range<usize>> {
        self.members.iter().flat_map(|loaded| loaded.mapping.written())
    }

    /// Gives all threads the initial values of its images' thread-local variables.
    pub(crate) fn reset_thread_locals(&self) -> Result<(), Error> {
        self.members.iter().filter_map(|loaded| loaded.tls.as_ref()).try_for_each(TlsModule::reset)
    }

    /// The number of dependencies.
    pub(crate) fn dependency_count(&self) -> usize {
        self.dependencies.lock().len()
    }

    /// Drops all dependencies but the first `count`.
    pub(crate) fn truncate_dependencies(&self, count: usize) {
        let take_last = || {
            let mut dependencies = self.dependencies.lock();
            if dependencies.len() > count { dependencies.pop() } else { None }
        };
        // The drop may run destructors: no lock is held.
        while let Some(last) = take_last() {
            drop(last);
        }
    }

    /// The number of images.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether an image has changed the protection of its pages, so that they may be changed themselves.
    pub(crate) fn has_changed_pages(&self) -> bool {
        self.members.iter().any(|loaded| loaded.mapping.has_changed())
    }

    /// The member of this index, which the group or its loader handed out.
    pub(crate) fn member(&self, index: usize) -> &LoadedImage {
        member(&self.members, index)
    }
}

impl Parts {
    /// The number of its memory's bytes that nothing else shares.
    pub(super) fn own_bytes(&self) -> usize {
        let own = self.members.iter().map(|loaded| loaded.mapping.own_bytes());
        own.fold(0, usize::saturating_add)
    }

    /// Drops what only a group has: its restrictions, and the dependencies that it got since it was made.
    pub(super) fn shed(&mut self) {
        self.restriction = None;
        let count = self.own_dependencies;
        self.dependencies.get_mut().truncate(count);
    }
}

impl LoadedImage {
    /// Whether a `DT_NEEDED` entry of this name means this image.
    pub(crate) fn is_called(&self, name: &[u8]) -> bool {
        self.names().any(|it| it == name)
    }

    /// The names that [`LoadedImage::is_called`] accepts.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.decoded.names(&self.name).chain(self.alias.as_deref())
    }

    pub(crate) fn symbols(&self) -> SymbolTable<'_> {
        self.table.0.view()
    }

    /// The value of a symbol of this image.
    pub(crate) fn value(&self, symbol: &Sym) -> SymbolValue {
        if symbol.is_thread_local() {
            match &self.tls {
                Some(tls) => SymbolValue::ThreadLocal { module: tls.id(), offset: symbol.st_value },
                None => SymbolValue::Address(0),
            }
        } else if symbol.is_absolute() {
            SymbolValue::Address(symbol.st_value as usize)
        } else {
            let address = self.mapping.load_bias().apply(Vaddr(symbol.st_value));
            let is_ifunc = symbol.is_ifunc();
            SymbolValue::Address(if is_ifunc { self.call_ifunc(address) } else { address })
        }
    }

    /// The function that the IFUNC resolver of this image at `address` chooses.
    pub(crate) fn call_ifunc(&self, address: usize) -> usize {
        if !self.mapping.is_code(address) {
            return address;
        }
        // SAFETY: in executable memory of an image that is relocated.
        let function = unsafe { arch::call_ifunc_resolver(address) };
        self.debug.note_ifunc(address, function);
        function
    }

    /// The exported symbol that contains `address`, as glibc's `dladdr` chooses it: the last one that starts
    /// at or before the address and ends behind it. A symbol without a size contains its start only.
    pub(crate) fn symbol_at(&self, address: usize) -> Option<(u32, Sym)> {
        if !self.mapping.address_range().contains(&address) {
            return None;
        }
        let at = self.mapping.load_bias().remove(address).0;
        let holds = |symbol: &Sym| {
            let inside = at.checked_sub(symbol.st_value).is_some_and(|skip| skip < symbol.st_size);
            let is_address = !symbol.is_absolute() && !symbol.is_thread_local();
            is_address && (inside || symbol.st_size == 0 && at == symbol.st_value)
        };
        let table = self.symbols();
        table.exports().filter(|(_, symbol)| holds(symbol)).max_by_key(|(_, it)| it.st_value)
    }
}

/// The libraries that a library needs, directly.
#[derive(Default)]
pub(crate) struct Needs {
    /// In order, filtees included.
    pub needed: Vec<Provider>,
    /// Those whose definitions come before its own.
    pub filtees: Vec<Provider>,
}

impl Provider {
    /// The libraries that a library needs, directly. `own` returns them for members of the group that is
    /// being loaded.
    pub(crate) fn needs(
        &self,
        own: impl Fn(usize) -> Result<Needs, Error>,
    ) -> Result<Needs, Error> {
        match self {
            Provider::Member(index) => own(*index),
            Provider::Image(image) => {
                let of_group = |needed: &Provider| match needed {
                    Provider::Member(member) => {
                        Provider::Image(ImageRef::new(image.group.clone(), *member))
                    }
                    other => other.clone(),
                };
                let LoadedImage { needed, filtees, .. } = image.image();
                Ok(Needs {
                    needed: try_collect(needed.iter().map(of_group))?,
                    filtees: match filtees.as_slice() {
                        [] => Vec::new(),
                        filtees => try_collect(filtees.iter().map(of_group))?,
                    },
                })
            }
            Provider::Host(library) => Ok(Needs {
                needed: try_collect(library.dependencies()?.into_iter().map(Provider::Host))?,
                filtees: try_collect(library.filtees()?.into_iter().map(Provider::Host))?,
            }),
        }
    }

    /// Whether it is the same library.
    pub(crate) fn is(&self, other: &Provider) -> bool {
        match (self, other) {
            (Provider::Member(a), Provider::Member(b)) => a == b,
            (Provider::Image(a), Provider::Image(b)) => a.is(b),
            (Provider::Host(a), Provider::Host(b)) => a.is(b),
            _ => false,
        }
    }
}
