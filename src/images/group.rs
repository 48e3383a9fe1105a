//! Images in place: what holds them together, and how they are found.
//!
//! A group is what one load brings in: the image that was asked for (member 0) and what it needs
//! from the bytes that the caller provided. Its members can refer to each other in circles, so
//! they live and die together. Unloading is `Drop`, in the order of the fields: destructors run,
//! then debuggers, profilers, the unwinder and threads forget the image, then the memory goes.
//!
//! The registry of all groups answers three questions: which image holds this address, what have
//! images with `global(true)` added to the scope of later ones, and what is left to finalise when
//! the process ends. It owns nothing but what must never be unloaded.
//!
//! No lock is held while code of images runs.
//!
//! Source: gABI "Initialization and Termination Functions".

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};

use crate::arch;
use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::fallible::{
    TryGrow, require_memory, require_memory_for_next, try_collect, try_vec,
};
use crate::base::sync::{Lock, Rank, ReadGuard, SharedLock, WriteGuard};
use crate::debug::read_lines::ReadLines;
use crate::debug::{DebugRegistration, debugger_listens};
use crate::elf::constants::{DT_FINI_ARRAY, DT_INIT_ARRAY};
use crate::elf::decoded::Decoded;
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::symbol::Sym;
use crate::elf::symbol_table::SymbolTable;
use crate::host::exit_handlers;
use crate::host::ld_so::{self, HostLibrary, SymbolValue};
use crate::host::link_map::LinkMap;
use crate::host::process;
use crate::images::members::member;
use crate::images::policy::{Policy, Restriction};
use crate::memory::map::{Mapping, Sealed};
use crate::profile;
use crate::tls::TlsModule;
use crate::unwind;

/// The images of one load.
pub(crate) struct LoadGroup {
    /// Indices of members, dependencies first.
    init_order: Vec<usize>,
    /// How many of them, from the front, are initialised and not yet finalised.
    initialised: AtomicUsize,
    /// Where the group is found; set when it is entered.
    number: OnceLock<u64>,
    traces: LibcRegistrations,
    members: Vec<LoadedImage>,
    /// What members are bound to; behind `members`, so that it goes last.
    keep: Lock<Vec<Dependency>>,
    call_binder: Option<Arc<CallBinder>>,
    /// The image that opened the group, whose scope it is in.
    opener: Option<ImageRef>,
    /// What its images may do.
    policy: Policy,
    _restriction: Option<Restriction>,
}

/// What images of a group have told the C library: a pool asks, to know what a reset must undo.
#[derive(Default)]
pub(crate) struct LibcRegistrations {
    handlers: AtomicBool,
    keys: AtomicBool,
}

/// What there is since it was last asked.
pub(crate) struct Pending {
    /// Functions to be called at the exit or on a fork. Destructors take them back.
    pub handlers: bool,
    /// Keys with destructors.
    pub keys: bool,
}

impl LibcRegistrations {
    pub(crate) fn take(&self) -> Pending {
        // Mostly there is none, and reading is cheaper than changing.
        let take = |trace: &AtomicBool| {
            trace.load(Ordering::Relaxed) && trace.swap(false, Ordering::Relaxed)
        };
        Pending { handlers: take(&self.handlers), keys: take(&self.keys) }
    }
}

/// Binds a call of a group's member when it is first made: from the symbol's index to the function,
/// and what must be kept for it.
pub(crate) type CallBinder =
    dyn Fn(&LoadGroup, usize, u32) -> Result<(usize, Vec<Dependency>), Error> + Send + Sync;

/// What the first words of an image's PLT lead to ([`arch::bind_call`]): the first field is called
/// with the address of this and the number of the entry.
#[repr(C)]
pub(crate) struct Plt {
    bind: extern "C" fn(&Plt, usize) -> usize,
    group: AtomicPtr<LoadGroup>,
    member: usize,
}

impl Plt {
    /// For the group's member of this index.
    pub(crate) fn new(member: usize) -> Box<Plt> {
        arch::detect_xsave();
        Box::new(Plt { bind: Plt::bind, group: AtomicPtr::default(), member })
    }

    extern "C" fn bind(&self, relocation: usize) -> usize {
        let group = self.group.load(Ordering::Acquire);
        // SAFETY: set when the group was made, before any code of its images ran; whoever calls
        // is such code, so the group is there. (IFUNC resolvers run before: null is caught.)
        let group = unsafe { group.as_ref() };
        let result = group.map(|group| group.bind_call(self.member, relocation));
        match result {
            Some(Ok(function)) => return function,
            // As `ld.so` does: there is nobody to report to but the user.
            Some(Err(error)) => eprintln!("symbol lookup error: {error}"),
            None => eprintln!("symbol lookup error: an IFUNC resolver calls through a lazy PLT"),
        }
        // SAFETY: ends the process.
        unsafe { libc::_exit(127) }
    }
}

/// The symbol table of an image in place, found once.
pub(crate) struct KeptTable(SymbolTable<'static>);

// SAFETY: a view is shared slices and a counter; the counter of this one is never touched, since
// nothing but `anew` is called on it.
unsafe impl Send for KeptTable {}
// SAFETY: as above.
unsafe impl Sync for KeptTable {}

impl KeptTable {
    /// That of an image with these facts.
    ///
    /// # Safety
    /// It is dropped before both, or with them.
    pub(crate) unsafe fn new(
        decoded: &Arc<Decoded>,
        mapping: &Mapping<Sealed>,
    ) -> Result<KeptTable, Error> {
        let table = decoded.symbols_in(mapping)?;
        // SAFETY: the slices are of the image's memory and the layout is in the `Arc`: neither moves
        // when their owners do, and the caller sees to it that they are there as long as this.
        let table = unsafe { std::mem::transmute::<SymbolTable<'_>, SymbolTable<'static>>(table) };
        Ok(KeptTable(table))
    }
}

/// An image in place. The fields are in drop order: what refers to the mapping goes before it.
pub(crate) struct LoadedImage {
    pub(crate) name: Arc<str>,
    pub(crate) table: KeptTable,
    pub(crate) decoded: Arc<Decoded>,
    /// The libraries that it needs, directly, in order.
    pub(crate) needed: Vec<Provider>,
    pub(crate) debug: DebugRegistration,
    pub(crate) _profile: Option<profile::Registration>,
    /// What was read of its debug information.
    pub(crate) read: ReadLines,
    pub(crate) _unwind: unwind::Registration,
    pub(crate) link_map: Box<LinkMap>,
    /// For an image whose calls are bound when they are first made.
    pub(crate) plt: Option<Box<Plt>>,
    pub(crate) tls: Option<TlsModule>,
    /// It is a copy of a library of the system.
    pub(crate) of_system: bool,
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

/// What a group holds on to because it refers to it.
#[derive(Clone)]
pub(crate) enum Dependency {
    Group(Arc<LoadGroup>),
    Host(Arc<HostLibrary>),
}

impl Dependency {
    /// Whether it is the same thing.
    pub(crate) fn is(&self, other: &Dependency) -> bool {
        match (self, other) {
            (Dependency::Group(a), Dependency::Group(b)) => Arc::ptr_eq(a, b),
            (Dependency::Host(a), Dependency::Host(b)) => Arc::ptr_eq(a, b) || a.is(b),
            (Dependency::Group(_), Dependency::Host(_))
            | (Dependency::Host(_), Dependency::Group(_)) => false,
        }
    }
}

/// A library that an image needs, or that stands in a searchlist.
#[derive(Clone)]
pub(crate) enum Provider {
    /// The member of the group of this index.
    Member(usize),
    /// An image that is loaded already.
    Image(ImageRef),
    /// A library of `ld.so`'s.
    Host(Arc<HostLibrary>),
}

impl LoadGroup {
    /// A group of images that are relocated and sealed. Nothing of theirs has run but IFUNC
    /// resolvers, and nobody can find it yet.
    pub(crate) fn new(
        members: Vec<LoadedImage>,
        init_order: Vec<usize>,
        keep: Vec<Dependency>,
        call_binder: Option<Arc<CallBinder>>,
        opener: Option<ImageRef>,
        policy: Policy,
    ) -> Arc<LoadGroup> {
        let group = Arc::new(LoadGroup {
            _restriction: Restriction::new(&policy),
            policy,
            init_order,
            initialised: AtomicUsize::new(0),
            number: OnceLock::new(),
            traces: LibcRegistrations::default(),
            members,
            keep: Lock::new(Rank::Keep, keep),
            call_binder,
            opener,
        });
        for plt in group.members.iter().filter_map(|loaded| loaded.plt.as_ref()) {
            plt.group.store(Arc::as_ptr(&group).cast_mut(), Ordering::Release);
        }
        group
    }

    /// Checks what only shows when all members are relocated, and before anything of theirs runs.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_code = |function: usize| {
            self.members.iter().any(|loaded| loaded.mapping.is_code(function))
                || image_at(function).is_some()
                || ld_so::has_address(function)
        };
        self.members.iter().try_for_each(|loaded| loaded.check_functions(is_code))
    }

    /// Makes the images immutable: the last thing before they can be found, since they can never be
    /// unmapped then.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        self.members
            .iter()
            .try_for_each(|it| it.mapping.seal_for_good().map_err(|error| error.in_image(&it.name)))
    }

    /// What its images may do.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The image that opened the group, whose scope it is in.
    pub(crate) fn opener(&self) -> Option<&ImageRef> {
        self.opener.as_ref()
    }

    /// Binds a call of a member, stores the function where the next call finds it, and gives it.
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
        let (function, keep) = binder(self, member, rela.symbol)?;
        // What it is bound to must stay before the next call goes there unasked.
        self.keep.lock().try_extend(keep)?;
        loaded.mapping.store_shared(rela.r_offset, function);
        Ok(function)
    }

    pub(crate) fn traces(&self) -> &LibcRegistrations {
        &self.traces
    }

    /// How often it is held; what those did with it who hold it no more has happened.
    pub(crate) fn holders(self: &Arc<LoadGroup>) -> usize {
        let count = Arc::strong_count(self);
        // As others give their share up.
        fence(Ordering::Acquire);
        count
    }

    /// The addresses of what its images can write.
    pub(crate) fn written(&self) -> impl Iterator<Item = Range<usize>> {
        self.members.iter().flat_map(|loaded| loaded.mapping.written())
    }

    /// Gives all threads the initial values of its images' thread-local variables.
    pub(crate) fn reset_thread_locals(&self) -> Result<(), Error> {
        self.members.iter().filter_map(|loaded| loaded.tls.as_ref()).try_for_each(TlsModule::reset)
    }

    /// Deletes the keys with destructors that its images have created and not deleted.
    pub(crate) fn delete_keys(&self) {
        let mut live = write();
        self.members.iter().for_each(|loaded| live.delete_keys(&loaded.mapping.address_range()));
    }

    /// How much its images are bound to.
    pub(crate) fn kept(&self) -> usize {
        self.keep.lock().len()
    }

    /// Gives up what they were bound to since it was so much.
    pub(crate) fn keep_only(&self, kept: usize) {
        let take_last = || {
            let mut keep = self.keep.lock();
            if keep.len() > kept { keep.pop() } else { None }
        };
        // What goes with it may run destructors: no lock is held.
        while let Some(last) = take_last() {
            drop(last);
        }
    }

    /// How many images there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member of this index, which is one that the group or its loader gave out.
    pub(crate) fn member(&self, index: usize) -> &LoadedImage {
        member(&self.members, index)
    }

    /// Runs all constructors, dependencies first.
    ///
    /// # Safety
    /// They must be right for this process, as with `dlopen`.
    pub(crate) unsafe fn initialise(&self) {
        let arguments = process::arguments();
        for (count, &index) in self.init_order.iter().enumerate() {
            // Counted before it runs: a constructor that unwinds is finalised like any other.
            self.initialised.store(count.saturating_add(1), Ordering::Release);
            for function in self.member(index).constructors() {
                type Constructor =
                    unsafe extern "C-unwind" fn(c_int, *const *const c_char, *const *const c_char);
                // SAFETY: a function that the image names as a constructor; what it does is the
                // promise of whoever loads it.
                unsafe {
                    let function: Constructor = std::mem::transmute(function);
                    function(arguments.argc, arguments.argv, arguments.envp);
                }
            }
        }
    }

    /// Runs the destructors of what is initialised, in reverse. Does nothing the second time.
    pub(crate) fn finalise(&self) {
        let count = self.initialised.swap(0, Ordering::AcqRel);
        for &index in self.init_order.iter().take(count).rev() {
            for function in self.member(index).destructors() {
                // SAFETY: a function that the image names as a destructor, run once, while the
                // image is in place. Whoever loaded it promised that it may run.
                unsafe {
                    let function: unsafe extern "C-unwind" fn() = std::mem::transmute(function);
                    function();
                }
            }
            // Mostly the image's own destructors have had these called. One that has none, or that
            // was bound to nothing where it asks for them, would leave the C library with the
            // addresses of functions that are gone.
            let mapping = &self.member(index).mapping;
            for dso_handle in take_handles_of(mapping.address_range().start) {
                // SAFETY: as above: it promised that what the image wants called in the end is.
                unsafe { exit_handlers::finalize(dso_handle) };
            }
        }
    }
}

impl Drop for LoadGroup {
    fn drop(&mut self) {
        self.finalise();
        // Nobody may find it any more; then the fields go.
        if let Some(&number) = self.number.get() {
            let mut live = write();
            live.groups.remove(&number);
            live.global.retain(|&other| other != number);
            for loaded in &self.members {
                let addresses = loaded.mapping.address_range();
                live.images.remove(&addresses.start);
                live.delete_keys(&addresses);
            }
        }
    }
}

impl Drop for LoadedImage {
    fn drop(&mut self) {
        if debugger_listens() {
            self.mapping.quarantine();
        }
    }
}

impl LoadedImage {
    /// Whether a `DT_NEEDED` entry of this name means this image.
    pub(crate) fn is_called(&self, name: &[u8]) -> bool {
        self.decoded.is_called(&self.name, name)
    }

    pub(crate) fn symbols(&self) -> SymbolTable<'_> {
        self.table.0.anew()
    }

    /// What a symbol of this image comes to.
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
        unsafe { arch::call_ifunc_resolver(address) }
    }

    /// The exported symbol that `address` lies in (glibc's `dladdr`): of those that start at or
    /// before it and do not end before it, the last; one without a size is at its start only.
    pub(crate) fn symbol_at(&self, address: usize) -> Option<(u32, Sym)> {
        if !self.mapping.address_range().contains(&address) {
            return None;
        }
        let at = self.mapping.load_bias().remove(address).0;
        let holds = |symbol: &Sym| {
            let inside = at.checked_sub(symbol.st_value).is_some_and(|skip| skip < symbol.st_size);
            let is_place = !symbol.is_absolute() && !symbol.is_thread_local();
            is_place && (inside || symbol.st_size == 0 && at == symbol.st_value)
        };
        let table = self.symbols();
        table.exports().filter(|(_, symbol)| holds(symbol)).max_by_key(|(_, it)| it.st_value)
    }

    /// Checks that what will be called as a constructor or destructor is code: the group's own, as
    /// it nearly always is, or another library's. Nothing of the image has run yet.
    fn check_functions(&self, is_code: impl Fn(usize) -> bool) -> Result<(), Error> {
        for (tag, array) in
            [(DT_INIT_ARRAY, &self.decoded.init_array), (DT_FINI_ARRAY, &self.decoded.fini_array)]
        {
            let words = array.as_ref().and_then(|range| self.mapping.read(range.clone()));
            let functions = words.unwrap_or_default().as_chunks().0.iter();
            let mut functions = functions.map(|word| usize::from_le_bytes(*word));
            if let Some(function) = functions.find(|&function| !is_code(function)) {
                let what = format!("{function:#x}, which is to be called, is in no library");
                return Err(Error::malformed(what, Place::Dynamic(tag)).in_image(&self.name));
            }
        }
        Ok(())
    }

    /// `DT_INIT`, then `DT_INIT_ARRAY`.
    fn constructors(&self) -> impl Iterator<Item = usize> + '_ {
        let init = self.decoded.init.map(|address| self.mapping.load_bias().apply(address));
        init.into_iter().chain(self.functions(&self.decoded.init_array))
    }

    /// `DT_FINI_ARRAY` in reverse, then `DT_FINI`.
    fn destructors(&self) -> impl Iterator<Item = usize> + '_ {
        let fini = self.decoded.fini.map(|address| self.mapping.load_bias().apply(address));
        self.functions(&self.decoded.fini_array).rev().chain(fini)
    }

    /// The non-null words of an array of functions, as they stand in memory now.
    fn functions(
        &self,
        array: &Option<Range<Vaddr>>,
    ) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let array = array.clone().unwrap_or_default();
        let words = array.end.0.saturating_sub(array.start.0) / 8;
        (0..words)
            .filter_map(move |index| array.start.checked_add(index.checked_mul(8)?))
            .filter_map(|at| self.mapping.word(at))
            .filter(|&function| function != 0)
    }
}
impl Provider {
    /// What a library needs, directly. `own` tells it for members of the group at hand.
    pub(crate) fn needed(
        &self,
        own: impl Fn(usize) -> Result<Vec<Provider>, Error>,
    ) -> Result<Vec<Provider>, Error> {
        match self {
            Provider::Member(index) => own(*index),
            Provider::Image(image) => {
                let of_group = |needed: &Provider| match needed {
                    Provider::Member(member) => {
                        Provider::Image(ImageRef::new(image.group.clone(), *member))
                    }
                    other => other.clone(),
                };
                try_collect(image.image().needed.iter().map(of_group))
            }
            Provider::Host(library) => {
                try_collect(library.dependencies()?.into_iter().map(Provider::Host))
            }
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

/// The groups that are in place.
struct Live {
    /// By the number that a group got when it was loaded.
    groups: BTreeMap<u64, Weak<LoadGroup>>,
    /// By the first address of each image.
    images: BTreeMap<usize, LiveImage>,
    /// Numbers of those whose exports later images see.
    global: Vec<u64>,
    /// `pthread` keys whose destructors are code of images, by key; with the destructor's address.
    keys: BTreeMap<libc::pthread_key_t, usize>,
    /// Those that must stay (`DF_1_NODELETE`, or sealed).
    pinned: Vec<Arc<LoadGroup>>,
    /// How many groups were ever entered; the number of the next.
    next: u64,
}

impl Live {
    fn image_at(&self, address: usize) -> Option<&LiveImage> {
        let (_, image) = self.images.range(..=address).next_back()?;
        (address < image.end).then_some(image)
    }

    fn image_at_mut(&mut self, address: usize) -> Option<&mut LiveImage> {
        let (_, image) = self.images.range_mut(..=address).next_back()?;
        (address < image.end).then_some(image)
    }

    /// Deletes the keys whose destructors are at these addresses.
    fn delete_keys(&mut self, addresses: &Range<usize>) {
        self.keys.retain(|&key, destructor| {
            let is_theirs = addresses.contains(destructor);
            if is_theirs {
                // SAFETY: a key of the image's that it has not deleted. Threads that still have a
                // value would call its destructor when they end.
                unsafe { libc::pthread_key_delete(key) };
            }
            !is_theirs
        });
    }
}

struct LiveImage {
    end: usize,
    group: Weak<LoadGroup>,
    index: usize,
    /// The handles under which it has had the C library note functions to be called later, and not
    /// called since. There is mostly one.
    handles: Vec<usize>,
}

static LIVE: SharedLock<Live> = SharedLock::new(
    Rank::Images,
    Live {
        groups: BTreeMap::new(),
        images: BTreeMap::new(),
        global: Vec::new(),
        keys: BTreeMap::new(),
        pinned: Vec::new(),
        next: 0,
    },
);

fn read() -> ReadGuard<'static, Live> {
    LIVE.read()
}

fn write() -> WriteGuard<'static, Live> {
    LIVE.write()
}

/// Lets a group be found, from just before its constructors run until after its destructors.
///
/// What was entered of one for which there is no memory goes with it.
pub(crate) fn enter(group: &Arc<LoadGroup>, global: bool) -> Result<(), Error> {
    // The finaliser below is reached by the linker only through this object file; a look at it
    // makes sure that it is part of the link.
    std::hint::black_box(&FINI);
    let mut live = write();
    live.global.try_room(1)?;
    live.pinned.try_room(1)?;
    let number = live.next;
    live.next = number.wrapping_add(1);
    // A group is entered once.
    let _ = group.number.set(number);
    live.groups.insert(number, Arc::downgrade(group));
    for (index, loaded) in group.members.iter().enumerate() {
        require_memory_for_next(index)?;
        let addresses = loaded.mapping.address_range();
        let handles = Vec::new();
        let group = Arc::downgrade(group);
        let image = LiveImage { end: addresses.end, group, index, handles };
        live.images.insert(addresses.start, image);
    }
    if global {
        live.global.push(number);
    }
    if group.policy.seal || group.members.iter().any(|loaded| loaded.decoded.nodelete) {
        live.pinned.push(group.clone());
    }
    Ok(())
}

/// The image that `address` lies in, kept for as long as the result is; `None` also for one whose
/// last owner is gone and whose destructors are running.
pub(crate) fn image_at(address: usize) -> Option<ImageRef> {
    let live = read();
    let image = live.image_at(address)?;
    Some(ImageRef::new(image.group.upgrade()?, image.index))
}

/// Notes a key whose destructor may be an image's.
pub(crate) fn note_key(destructor: usize, key: libc::pthread_key_t) -> Result<(), Error> {
    if let Some(image) = image_at(destructor) {
        require_memory()?;
        image.group.traces.keys.store(true, Ordering::Relaxed);
        write().keys.insert(key, destructor);
    }
    Ok(())
}

/// Notes that an image has a function called at the exit or on a fork. `dso_handle` is in the image.
pub(crate) fn note_handler(dso_handle: usize) {
    let mut live = write();
    let Some(image) = live.image_at_mut(dso_handle) else { return };
    if !image.handles.contains(&dso_handle) {
        image.handles.push(dso_handle);
        HANDLES_EVER.store(true, Ordering::Relaxed);
    }
    // Held until the lock is given back: the group may be the last one's to drop, which takes it.
    let group = image.group.upgrade();
    if let Some(group) = &group {
        group.traces.handlers.store(true, Ordering::Relaxed);
    }
    drop(live);
}

/// Whether functions may be noted under this handle: unless it is an image's that has none noted. They
/// are about to be called.
pub(crate) fn take_handle(dso_handle: usize) -> bool {
    if read().image_at(dso_handle).is_some_and(|image| image.handles.is_empty()) {
        return false;
    }
    let mut live = write();
    let Some(image) = live.image_at_mut(dso_handle) else { return true };
    let noted = image.handles.iter().position(|&noted| noted == dso_handle);
    noted.map(|index| image.handles.swap_remove(index)).is_some()
}

/// Whether an image has ever had a function noted; nearly all processes have none that has.
static HANDLES_EVER: AtomicBool = AtomicBool::new(false);

/// The handles under which functions are noted of the image that starts here, which are about to be
/// called.
fn take_handles_of(start: usize) -> Vec<usize> {
    if !HANDLES_EVER.load(Ordering::Relaxed)
        || read().images.get(&start).is_none_or(|image| image.handles.is_empty())
    {
        return Vec::new();
    }
    write()
        .images
        .get_mut(&start)
        .map(|image| std::mem::take(&mut image.handles))
        .unwrap_or_default()
}

/// Forgets a key that is deleted.
pub(crate) fn forget_key(key: libc::pthread_key_t) {
    write().keys.remove(&key);
}

/// All images, in load order.
pub(crate) fn all_images() -> Result<Vec<ImageRef>, Error> {
    of_groups(&all_groups()?)
}

fn all_groups() -> Result<Vec<Arc<LoadGroup>>, Error> {
    let live = read();
    // Nothing that was upgraded may go while the lock is held: so all of the room comes first.
    let mut groups = try_vec(live.groups.len())?;
    groups.extend(live.groups.values().filter_map(Weak::upgrade));
    Ok(groups)
}

/// All images of these groups.
fn of_groups(groups: &[Arc<LoadGroup>]) -> Result<Vec<ImageRef>, Error> {
    let images = |group: &Arc<LoadGroup>| {
        let group = group.clone();
        (0..group.len()).map(move |index| ImageRef::new(group.clone(), index))
    };
    try_collect(groups.iter().flat_map(images))
}

/// As [`all_images`]; `None` if there is no memory for the list, or the registry is being changed just
/// now, perhaps by the very thread that asks.
pub(crate) fn all_images_if_free() -> Option<Vec<ImageRef>> {
    drop(LIVE.try_read()?);
    all_images().ok()
}

/// How many groups were loaded so far.
pub(crate) fn loads() -> u64 {
    read().next
}

/// How many groups were unloaded so far.
pub(crate) fn unloads() -> u64 {
    let live = read();
    live.next.saturating_sub(live.groups.len() as u64)
}

/// The images whose exports all later ones see, in load order.
pub(crate) fn global_images() -> Result<Vec<ImageRef>, Error> {
    let live = read();
    // As in `all_groups`.
    let mut groups = try_vec(live.global.len())?;
    let numbers = live.global.iter();
    groups.extend(numbers.filter_map(|number| live.groups.get(number)?.upgrade()));
    drop(live);
    of_groups(&groups)
}

/// Runs the destructors of all images, the last loaded first. Called by `ld.so` when the process
/// exits, or what memdl is linked into is unloaded: after `atexit` handlers, as it does for its own
/// libraries.
extern "C" fn finalise_all() {
    // Destructors may load and unload: no lock is held while they run.
    if let Ok(groups) = all_groups() {
        for group in groups.into_iter().rev() {
            group.finalise();
            // Code of the image may still be on some stack, or be called by what ends after us.
            std::mem::forget(group);
        }
    }
    profile::finish();
}

#[used]
#[unsafe(link_section = ".fini_array")]
static FINI: extern "C" fn() = finalise_all;
