//! Thread-local storage of images.
//!
//! # The idea
//! A shared library's thread-local variables lie in a block, of which every thread has its own
//! copy. Compiled code reaches a variable by a pair of words in its GOT, `{module, offset}`
//! ([`TlsIndex`]), that it hands to `__tls_get_addr`. For `ld.so`'s libraries the module is a small
//! number, the index into the thread's vector of blocks. Ours need ids of their own, since
//! `ld.so`'s vector cannot be extended from outside: the id of a module here has its top bit set
//! and an index below, and images' references to `__tls_get_addr` are bound to a version of our
//! own that knows such ids and passes all others on.
//!
//! A thread's pointers to its blocks lie in [`SLOTS`] words of static thread-local storage, so
//! that the usual access is two loads. Slot 0 points to the thread's [`Thread`] record, which owns
//! the blocks; modules whose index is [`SLOTS`] or more are found through it. A block is
//! allocated at the thread's first access, filled from the image's relocated `.tdata`, and freed
//! when the thread ends or the image goes.
//!
//! The registry's lock is held for bookkeeping only, never while memory is allocated or code of
//! others runs.
//!
//! # The other models
//! *TLS descriptors* ask a resolver for the variable's distance from the thread pointer. The
//! argument packs module and offset into one word ([`TlsDescArgument`]), so that nothing has to be
//! allocated for it; the resolvers are in [`arch`].
//!
//! *Initial exec* reads the distance from the GOT and calls nobody: the block must lie at the same
//! distance in every thread. `ld.so` keeps some such room for libraries that are opened late; ours
//! is a pool in memdl's own static thread-local storage. An image that needs it gets a range of the
//! pool instead of blocks of its own. New threads find its initial values there because they stand
//! in the initial values of the object that memdl is linked into, which glibc copies for each
//! thread; threads that exist are written to ([`crate::host::threads`]).
//!
//! Sources: U. Drepper, "ELF Handling For Thread-Local Storage"; A. Oliva, G. Araujo,
//! "Thread-Local Storage Descriptors for IA32 and AMD64/EM64T"; gABI "Thread-Local Storage".

#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::arch;
use crate::base::addr::{distance_to, len_of};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory, try_zeroed};
use crate::base::sync::{Guard, Lock, Rank};
use crate::base::tls_index::{DESCRIPTOR_OFFSET_BITS, ModuleId, OURS, TlsDescArgument, TlsIndex};
use crate::elf::segment::TlsSegment;
use crate::host::process;
use crate::host::threads;
use crate::memory::map::{Mapping, Stage};

/// How many words of static thread-local storage hold block pointers. Small, since a host that
/// opens memdl with `dlopen` has only some 1,600 bytes of it to give.
pub(crate) const SLOTS: usize = 32;
/// How many bytes of static thread-local storage are kept for images that need initial exec. As
/// above; the feature `large-static-tls` is for executables, which have no such limit.
pub(crate) const POOL: usize = if cfg!(feature = "large-static-tls") { 64 << 10 } else { 1024 };
/// The largest alignment of a block in the pool: what glibc gives the executable's own.
pub(crate) const POOL_ALIGN: usize = 64;
/// What is in a slot while the thread has no block of that module: no address, so that a debugger that
/// follows it for a variable says that there is nothing, wherever in the block that would be.
pub(crate) const NO_BLOCK: usize = 1 << 63;

/// The slot that holds the thread's own record: no module has this index.
const THREAD_SLOT: usize = 0;

impl ModuleId {
    /// The calling thread's address of the variable at `offset` in this module's block.
    ///
    /// # Safety
    /// The module is loaded, and `offset` lies in its block.
    pub(crate) unsafe fn address(self, offset: u64) -> *mut c_void {
        let index = TlsIndex { ti_module: self.0, ti_offset: offset as usize };
        // SAFETY: a pair as relocations would make it; the rest is the caller's promise.
        unsafe { tls_get_addr(&index) }
    }
}

arch::define_tls!(address_slow, descriptor_slow);

/// The slow path of a TLS descriptor: the variable's address.
pub(crate) extern "C" fn descriptor_slow(descriptor: u64) -> *mut c_void {
    // SAFETY: a pair as relocations would make it, of a module that the descriptor's image is
    // bound to and so keeps.
    unsafe { tls_get_addr(&TlsDescArgument(descriptor).index()) }
}

impl ModuleId {
    /// As [`ModuleId::address`], where that may take memory: of a library of `ld.so`'s, the C library
    /// ends the process if there is none.
    ///
    /// # Safety
    /// As that.
    pub(crate) unsafe fn try_address(self, offset: u64) -> Result<*mut c_void, Error> {
        if self.0 & OURS == 0 {
            // SAFETY: the caller's promise.
            return Ok(unsafe { self.address(offset) });
        }
        let index = TlsIndex { ti_module: self.0, ti_offset: offset as usize };
        try_address(&index)
    }

    /// The calling thread's block of a module of ours, if it has one. Makes none.
    pub(crate) fn block_if_made(self) -> Option<*mut c_void> {
        if let Some(offset) = self.static_offset() {
            let start = arch::thread_pointer().wrapping_add_signed(offset);
            return Some(ptr::with_exposed_provenance_mut(start));
        }
        let thread = Thread::current().ok()?;
        // SAFETY: the calling thread's own record.
        let start = unsafe { Thread::start(thread, self.0 & !OURS) };
        (!start.is_null()).then_some(start.cast())
    }

    /// The distance of the module's block from the thread pointer, if it is the same in every
    /// thread.
    pub(crate) fn static_offset(self) -> Option<isize> {
        if self.0 & OURS != 0 {
            let index = self.0 & !OURS;
            return registry().modules.get(index).copied().flatten()?.static_offset;
        }
        // A library of `ld.so`'s: its block is in the static area if it lies there in this thread.
        // SAFETY: a module id that a loaded library has; offset 0 is in every block.
        let address = unsafe { self.address(0) }.addr();
        let thread_pointer = arch::thread_pointer();
        let is_static = thread_pointer.checked_sub(address)? <= host_static_size();
        is_static.then(|| address.wrapping_sub(thread_pointer) as isize)
    }
}

/// The size of a thread's static area, which ends at its thread pointer.
fn host_static_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: a C string.
        let function =
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_get_tls_static_info".as_ptr()) };
        let (mut size, mut align) = (0usize, 0usize);
        if !function.is_null() {
            // SAFETY: glibc's function of this type, which sets the two.
            unsafe {
                let function: unsafe extern "C" fn(*mut usize, *mut usize) =
                    std::mem::transmute(function);
                function(&mut size, &mut align);
            }
        }
        size
    })
}

/// An image's registration: threads can have blocks of it for as long as this lives.
pub(crate) struct TlsModule {
    index: usize,
    /// The range of the pool that is its block in every thread.
    pool: Option<Range<usize>>,
}

/// What a block of a module is made from.
#[derive(Clone, Copy)]
struct Initial {
    /// The image's `.tdata`, in the mapping.
    template: *const u8,
    template_len: usize,
    size: usize,
    align: usize,
    /// The block's address modulo `align`.
    residue: usize,
    /// The distance of the block from the thread pointer, if it lies in the pool.
    static_offset: Option<isize>,
    /// Some thread has, or had, a block of its own.
    is_used: bool,
}

// SAFETY: `template` points into an image's mapping, which outlives its `TlsModule` and is the
// same for all threads; it is only read.
unsafe impl Send for Initial {}

#[derive(Default)]
struct Registry {
    /// By module index; slot 0 is never used.
    modules: Vec<Option<Initial>>,
    /// All threads that have a record.
    threads: Vec<NonNull<Thread>>,
    /// The ranges of the pool that are taken, ascending.
    pool: Vec<Range<usize>>,
}

// SAFETY: the records are reached from other threads only under the registry's lock, and live
// until their thread removes them under that lock.
unsafe impl Send for Registry {}

static REGISTRY: Lock<Registry> =
    Lock::new(Rank::Tls, Registry { modules: Vec::new(), threads: Vec::new(), pool: Vec::new() });

fn registry() -> Guard<'static, Registry> {
    REGISTRY.lock()
}

/// Keeps something until the calling thread has ended, after the destructors of its keys (as far as
/// POSIX promises rounds of those). In the main thread, which does not end, for good.
pub(crate) fn keep_until_thread_ends(what: Box<dyn Any>) {
    let Ok(thread) = Thread::current() else {
        std::mem::forget(what);
        return;
    };
    // SAFETY: the calling thread's own record, and a field that nobody else reaches.
    let kept = unsafe { &mut (*thread.as_ptr()).kept };
    match kept.try_room(1) {
        Ok(()) => kept.push(what),
        // Too long is better than not long enough.
        Err(_) => std::mem::forget(what),
    }
}

/// In a child just after the fork: the records of threads that do not exist here are forgotten,
/// since their slots lie on stacks that glibc gives to others. What they own is leaked.
pub(crate) fn after_fork_in_child() {
    let slots = tls_slots();
    // SAFETY: records in the registry are alive, and the lock is held.
    registry().threads.retain(|thread| unsafe { (*thread.as_ptr()).slots } == slots);
}

/// What a thread owns. Reached through raw pointers, field by field, since its own thread reads
/// `starts` while another, under the registry's lock, may clear an element.
///
/// The first two fields are where [`arch`] expects them ([`STARTS`], [`STARTS_LEN`]).
#[repr(C)]
struct Thread {
    /// Where the block of each module starts, by index; null if there is none. Grown only by its
    /// own thread and under the lock; elements are cleared by others.
    starts: *const AtomicPtr<u8>,
    starts_len: usize,
    /// What `starts` points to.
    room: Vec<AtomicPtr<u8>>,
    /// The thread's static slots.
    slots: *mut *mut u8,
    /// The memory of the blocks, by index. Only under the lock.
    blocks: Vec<Option<Block>>,
    /// What is to be kept until nothing of the thread runs any more. Only its own thread's.
    kept: Vec<Box<dyn Any>>,
    /// How often the end of the thread was put off. Only its own thread's.
    exit_rounds: u32,
}

/// Offsets in a thread's record.
pub(crate) const STARTS: usize = std::mem::offset_of!(Thread, starts);
pub(crate) const STARTS_LEN: usize = std::mem::offset_of!(Thread, starts_len);

/// Memory for one thread's copy of one module's variables.
struct Block {
    allocation: *mut c_void,
}

impl TlsModule {
    /// Registers the thread-local segment of an image that is being loaded. Its template is read
    /// at each thread's first access, so not before the image is relocated.
    ///
    /// With `in_pool`, the block lies at the same distance from the thread pointer in every thread;
    /// [`TlsModule::fill_pool`] must be called when the image is relocated.
    pub(crate) fn new<S: Stage>(
        segment: &TlsSegment,
        mapping: &Mapping<S>,
        in_pool: bool,
    ) -> Result<TlsModule, Error> {
        let template = mapping.load_bias().apply(segment.template.start);
        let mut initial = Initial {
            template: template as *const u8,
            template_len: len_of(&segment.template) as usize,
            size: segment.size as usize,
            align: segment.align as usize,
            residue: distance_to(segment.template.start.0 as usize, segment.align as usize, 0),
            static_offset: None,
            is_used: false,
        };
        thread_exit_key()?;
        let mut registry = registry();
        registry.pool.try_room(1)?;
        let modules = &mut registry.modules;
        let free = modules.iter().enumerate().skip(THREAD_SLOT + 1).find(|(_, it)| it.is_none());
        let index = free.map_or(modules.len().max(THREAD_SLOT + 1), |(index, _)| index);
        modules.try_lengthen(index.saturating_add(1), None)?;
        let pool = if in_pool { Some(registry.take_from_pool(&initial)?) } else { None };
        initial.static_offset = pool.as_ref().map(offset_in_pool);
        *registry.module(index) = Some(initial);
        Ok(TlsModule { index, pool })
    }

    /// Gives every thread, those that will be created included, the initial values of an image
    /// whose block lies in the pool. Nothing to do for others.
    pub(crate) fn fill_pool(&self) -> Result<(), Error> {
        let Some(range) = &self.pool else { return Ok(()) };
        let values = self.initial_values()?;
        // First for the threads to come, so that none is missed between the two.
        let own = arch::thread_pointer().wrapping_add_signed(static_pool_offset());
        process::write_tls_template(own, range.start, &values)?;
        TlsModule::write_pool(range, &values)
    }

    /// Zeroes the module's range of the pool in every thread, lest the next image there find what this
    /// one has left, as far as the system lets memdl.
    fn clear_pool(&self) {
        let Some(range) = &self.pool else { return };
        let zeroes = vec![0; range.len()];
        let has_values = registry().module(self.index).is_some_and(|it| it.template_len > 0);
        let own = arch::thread_pointer().wrapping_add_signed(static_pool_offset());
        // In the same order as above. All is filled anew for whoever gets it, whatever comes of this.
        let cleared = match has_values {
            true => process::write_tls_template(own, range.start, &zeroes),
            false => Ok(()),
        };
        if let Err(error) = cleared.and(TlsModule::write_pool(range, &zeroes)) {
            log::debug!("thread-local variables of an unloaded image are not cleared: {error}");
        }
    }

    /// Gives every thread the initial values again.
    ///
    /// No code of the image runs, and nobody uses its variables, or a pointer to one.
    pub(crate) fn reset(&self) -> Result<(), Error> {
        // New threads get them in any case.
        if let Some(range) = &self.pool {
            return TlsModule::write_pool(range, &self.initial_values()?);
        }
        let mut registry = registry();
        let module = registry.module(self.index).as_mut();
        if module.is_some_and(|module| std::mem::take(&mut module.is_used)) {
            registry.free_blocks(self.index);
        }
        Ok(())
    }

    fn initial_values(&self) -> Result<Vec<u8>, Error> {
        let initial = *registry().module(self.index);
        let Some(initial) = initial else { return Ok(Vec::new()) };
        let mut values = try_zeroed(initial.size)?;
        // SAFETY: the template lies in the image's mapping, which outlives this, and is no longer
        // than a block (checked by `Image`).
        unsafe {
            let template = initial.template;
            ptr::copy_nonoverlapping(template, values.as_mut_ptr(), initial.template_len);
        }
        Ok(values)
    }

    /// Writes to a module's range of the pool in every thread that exists.
    fn write_pool(range: &Range<usize>, values: &[u8]) -> Result<(), Error> {
        let offset = offset_in_pool(range);
        let start = arch::thread_pointer().wrapping_add_signed(offset) as *mut u8;
        // SAFETY: a range of the pool, in this thread's static thread-local storage, that was
        // taken for this module, and that nothing refers to while its image does not run.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), start, values.len()) };
        threads::write_to_others(offset, values)
    }

    pub(crate) fn id(&self) -> ModuleId {
        ModuleId(OURS | self.index)
    }

    /// Where the threads have their blocks.
    pub(crate) fn place(&self) -> BlockPlace {
        match &self.pool {
            Some(range) => BlockPlace::At(offset_in_pool(range)),
            None if self.index < SLOTS => {
                let slots = tls_slots().addr().wrapping_sub(arch::thread_pointer());
                let slot = slots.wrapping_add(self.index.wrapping_mul(size_of::<usize>()));
                BlockPlace::BehindPointerAt(slot as isize)
            }
            None => BlockPlace::Elsewhere,
        }
    }
}

/// The distance of a range of the pool from the thread pointer, in every thread.
fn offset_in_pool(range: &Range<usize>) -> isize {
    static_pool_offset().wrapping_add_unsigned(range.start)
}

/// Where every thread has its block of a module, as a distance from the thread pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockPlace {
    /// The block itself.
    At(isize),
    /// A pointer to it, null until the thread's first access.
    BehindPointerAt(isize),
    /// There is no constant distance.
    Elsewhere,
}

/// The distance from the thread pointer of the block of the first module: the executable's, or that
/// of the first library that has any. Memdl's own variables show that there is one.
pub(crate) fn first_module_offset() -> isize {
    // SAFETY: the first module is there from the start, and offset 0 is in every block.
    let first = unsafe { ModuleId(1).address(0) }.addr();
    first.wrapping_sub(arch::thread_pointer()) as isize
}

impl Registry {
    /// The entry of a module that has one, from [`TlsModule::new`] on.
    #[expect(clippy::indexing_slicing, reason = "modules are numbered by memdl, not by bytes")]
    fn module(&mut self, index: usize) -> &mut Option<Initial> {
        &mut self.modules[index]
    }

    /// Takes room for a block from the pool, at the lowest fitting place.
    fn take_from_pool(&mut self, initial: &Initial) -> Result<Range<usize>, Error> {
        if initial.align > POOL_ALIGN {
            let what = "the alignment of initial-exec thread-local storage, in bytes";
            return Err(Error::limit(what, initial.align as u64, POOL_ALIGN as u64));
        }
        // The pool is aligned as strictly as any block may be.
        let Initial { size, align, residue, .. } = *initial;
        let place = |from: usize| from.saturating_add(distance_to(residue, align, from));
        let (mut start, mut position) = (place(0), 0);
        for (index, taken) in self.pool.iter().enumerate() {
            if start.saturating_add(size) <= taken.start {
                break;
            }
            (start, position) = (place(taken.end), index.saturating_add(1));
        }
        let end = start.saturating_add(size);
        if end > POOL {
            let what = "the initial-exec thread-local storage of all images in place, in bytes \
                        (memdl's feature `large-static-tls` makes room in executables)";
            return Err(Error::limit(what, end as u64, POOL as u64));
        }
        self.pool.insert(position, start..end);
        Ok(start..end)
    }

    /// Frees all threads' blocks of a module.
    fn free_blocks(&self, index: usize) {
        for &thread in &self.threads {
            // SAFETY: records in the registry are alive, and the lock is held.
            unsafe { Thread::set(thread, index, ptr::null_mut(), None) };
        }
    }
}

impl Drop for TlsModule {
    fn drop(&mut self) {
        self.clear_pool();
        let mut registry = registry();
        *registry.module(self.index) = None;
        if let Some(range) = &self.pool {
            registry.pool.retain(|taken| taken != range);
        }
        registry.free_blocks(self.index);
    }
}

impl Thread {
    /// The calling thread's record, made at its first use.
    fn current() -> Result<NonNull<Thread>, Error> {
        let slots = tls_slots();
        // SAFETY: slot 0 of the calling thread's own slots.
        let slot = unsafe { &*slots.add(THREAD_SLOT).cast::<AtomicPtr<Thread>>() };
        if let Some(thread) = NonNull::new(slot.load(Ordering::Relaxed)) {
            return Ok(thread);
        }
        require_memory()?;
        registry().threads.try_room(1)?;
        let thread = Box::leak(Box::new(Thread {
            starts: ptr::null(),
            starts_len: 0,
            room: Vec::new(),
            slots,
            blocks: Vec::new(),
            kept: Vec::new(),
            exit_rounds: 0,
        }));
        let thread = NonNull::from(thread);
        registry().threads.push(thread);
        slot.store(thread.as_ptr(), Ordering::Relaxed);
        set_thread_exit(thread.as_ptr());
        Ok(thread)
    }

    /// Where the calling thread's block of a module starts; null if it has none.
    ///
    /// # Safety
    /// `thread` is the calling thread's own record.
    unsafe fn start(thread: NonNull<Thread>, index: usize) -> *mut u8 {
        // SAFETY: alive, and this field is changed by the calling thread only, but for elements,
        // which are atomic.
        let room = unsafe { &(*thread.as_ptr()).room };
        room.get(index).map_or(ptr::null_mut(), |start| start.load(Ordering::Acquire))
    }

    /// Makes room for a module's entry.
    ///
    /// # Safety
    /// `thread` is the calling thread's own record, and the registry's lock is held.
    unsafe fn grow(thread: NonNull<Thread>, index: usize) -> Result<(), Error> {
        // SAFETY: others reach the fields under the lock only.
        unsafe {
            let thread = thread.as_ptr();
            let (room, blocks) = (&mut (*thread).room, &mut (*thread).blocks);
            if room.len() <= index {
                let len = index.saturating_add(1);
                let additional = len.saturating_sub(room.len());
                let grown = blocks.try_room(additional).and_then(|()| room.try_room(additional));
                if grown.is_ok() {
                    room.resize_with(len, AtomicPtr::default);
                    blocks.resize_with(len, || None);
                }
                // It may have moved all the same.
                (*thread).starts = room.as_ptr();
                (*thread).starts_len = room.len();
                grown?;
            }
        }
        Ok(())
    }

    /// Sets a module's entry, here and where [`tls_get_addr`] looks first.
    ///
    /// # Safety
    /// `thread` is alive, and the registry's lock is held.
    unsafe fn set(thread: NonNull<Thread>, index: usize, start: *mut u8, block: Option<Block>) {
        // SAFETY: the caller's promise; fields are taken one by one, see `Thread`. A slot is in its
        // array, and the array lives as long as its thread, which removes this record first.
        unsafe {
            let thread = thread.as_ptr();
            let (room, blocks) = (&(*thread).room, &mut (*thread).blocks);
            if let Some(entry) = room.get(index) {
                entry.store(start, Ordering::Release);
            }
            if index < SLOTS {
                let slot = &*(*thread).slots.add(index).cast::<AtomicPtr<u8>>();
                let start =
                    if start.is_null() { ptr::without_provenance_mut(NO_BLOCK) } else { start };
                slot.store(start, Ordering::Release);
            }
            if let Some(entry) = blocks.get_mut(index) {
                *entry = block;
            }
        }
    }
}

impl Block {
    /// A fresh copy of a module's initial values, and where in it the block starts.
    fn new(initial: &Initial) -> Result<(Block, *mut u8), Error> {
        // `calloc` gives large blocks as untouched zero pages; it aligns to 16 only.
        let room = initial.size.saturating_add(initial.align);
        // SAFETY: `calloc` has no preconditions.
        let allocation = unsafe { libc::calloc(1, room) };
        let start = allocation.cast::<u8>();
        let skip = distance_to(initial.residue, initial.align, start.addr());
        if allocation.is_null() {
            return Err(Error::out_of_memory(room as u64));
        }
        // SAFETY: skip < align, so `size` bytes from there lie in the allocation; the template has
        // no more than `size` bytes (checked by `Image`) and is mapped while its module is
        // registered, which the caller holds to be so.
        let start = unsafe {
            let start = start.add(skip);
            ptr::copy_nonoverlapping(initial.template, start, initial.template_len);
            start
        };
        Ok((Block { allocation }, start))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: from `calloc` in `new`, freed once.
        unsafe { libc::free(self.allocation) };
    }
}

/// The thread's first access to a module's variable, and every access to modules beyond the
/// static slots. Called by [`tls_get_addr`] for ids of ours.
pub(crate) extern "C" fn address_slow(index: &TlsIndex) -> *mut c_void {
    // There is no way to report: code is in the middle of an access to a variable.
    try_address(index).unwrap_or_else(|_| abort("memdl: no memory for thread-local variables\n"))
}

fn try_address(index: &TlsIndex) -> Result<*mut c_void, Error> {
    let module = index.ti_module & !OURS;
    let thread = Thread::current()?;
    // SAFETY: the calling thread's own record.
    let mut start = unsafe { Thread::start(thread, module) };
    if start.is_null() {
        start = first_access(thread, module)?;
    }
    Ok(start.wrapping_add(index.ti_offset).cast())
}

/// Makes the calling thread's block of a module, and tells where it starts.
fn first_access(thread: NonNull<Thread>, module: usize) -> Result<*mut u8, Error> {
    let initial = registry().modules.get(module).copied().flatten();
    let Some(initial) = initial else {
        abort("memdl: access to a thread-local variable of an unloaded image\n")
    };
    let (block, start) = match initial.static_offset {
        Some(offset) => (None, arch::thread_pointer().wrapping_add_signed(offset) as *mut u8),
        None => {
            let (block, start) = Block::new(&initial)?;
            (Some(block), start)
        }
    };
    let mut registry = registry();
    if let Some(Some(initial)) = registry.modules.get_mut(module) {
        initial.is_used = true;
    }
    // SAFETY: the calling thread's own record, and the lock is held.
    unsafe {
        Thread::grow(thread, module)?;
        Thread::set(thread, module, start, block);
    }
    Ok(start)
}

fn abort(text: &str) -> ! {
    // SAFETY: writes a string that is alive to standard error.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    std::process::abort()
}

/// Makes what is made once in a process.
pub(crate) fn set_up() {
    let _ = thread_exit_key();
    host_static_size();
}

/// The key whose destructor frees a thread's blocks when it ends.
fn thread_exit_key() -> Result<libc::pthread_key_t, Error> {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: writes one key; the destructor has the signature that is asked for.
        (unsafe { libc::pthread_key_create(&mut key, Some(thread_exit)) } == 0).then_some(key)
    })
    .ok_or_else(|| {
        Error::system("pthread_key_create", std::io::Error::from_raw_os_error(libc::EAGAIN))
    })
}

fn set_thread_exit(thread: *mut Thread) {
    if let Ok(key) = thread_exit_key() {
        // SAFETY: the key exists. Should the value not be stored, the blocks are leaked.
        unsafe { libc::pthread_setspecific(key, thread.cast()) };
    }
}

/// Frees the record of the thread that is ending.
unsafe extern "C" fn thread_exit(thread: *mut c_void) {
    let thread = thread.cast::<Thread>();
    // Other keys' destructors may still use thread-local variables: be called again in the next
    // round, and free in the last that POSIX guarantees (PTHREAD_DESTRUCTOR_ITERATIONS, 4).
    // SAFETY: the ending thread's own record, freed nowhere but below.
    let exit_rounds = unsafe {
        (*thread).exit_rounds = (*thread).exit_rounds.saturating_add(1);
        (*thread).exit_rounds
    };
    if exit_rounds < 4 {
        set_thread_exit(thread);
        return;
    }
    // SAFETY: the record was leaked by `Thread::current` of this thread. Once it has left the
    // registry nobody else can reach it, and with the slots cleared nor can this thread.
    unsafe {
        let slots = (*thread).slots;
        registry().threads.retain(|other| other.as_ptr() != thread);
        slots.add(THREAD_SLOT).write(ptr::null_mut());
        for index in THREAD_SLOT + 1..SLOTS {
            slots.add(index).write(ptr::without_provenance_mut(NO_BLOCK));
        }
        // What was kept may be an image, whose end runs code: with no record, that gets a new one.
        drop(Box::from_raw(thread));
    }
}
