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
//! Not here yet: TLS descriptors and initial exec, which images are refused for.
//!
//! Sources: U. Drepper, "ELF Handling For Thread-Local Storage" (general and local dynamic);
//! gABI "Thread-Local Storage".

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::arch;
use crate::error::Error;
use crate::image::TlsSegment;
use crate::map::Mapping;

/// How many words of static thread-local storage hold block pointers. Small, since a host that
/// opens memdl with `dlopen` has only some 1,600 bytes of it to give.
pub(crate) const SLOTS: usize = 64;
/// The slot that holds the thread's own record: no module has this index.
const THREAD_SLOT: usize = 0;
/// Marks the module ids that are memdl's; `ld.so` counts from 1.
const OURS: usize = 1 << 63;

/// The argument of `__tls_get_addr`, as relocations fill it in.
#[repr(C)]
pub(crate) struct TlsIndex {
    pub ti_module: usize,
    pub ti_offset: usize,
}

/// The id of a module with thread-local storage, `ld.so`'s or ours: what `R_*_DTPMOD` stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ModuleId(pub(crate) usize);

impl ModuleId {
    /// The calling thread's address of the variable at `offset` in this module's block.
    ///
    /// # Safety
    /// The module is loaded, and `offset` lies in its block.
    pub(crate) unsafe fn address(self, offset: u64) -> *mut c_void {
        let index = TlsIndex { ti_module: self.0, ti_offset: offset as usize };
        // SAFETY: a pair as relocations would make it; the rest is the caller's promise.
        unsafe { arch::tls_get_addr(&index) }
    }
}

/// An image's registration: threads can have blocks of it for as long as this lives.
pub(crate) struct TlsModule {
    index: usize,
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
}

// SAFETY: the records are reached from other threads only under the registry's lock, and live
// until their thread removes them under that lock.
unsafe impl Send for Registry {}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { modules: Vec::new(), threads: Vec::new() });

fn registry() -> MutexGuard<'static, Registry> {
    // Nothing panics half-way through a change.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread owns. Changed by its thread, or by anyone under the registry's lock.
struct Thread {
    /// The thread's static slots.
    slots: *mut *mut u8,
    /// By module index.
    blocks: Vec<Option<Block>>,
    /// How often the end of the thread was put off.
    farewells: u32,
}

/// Memory for one thread's copy of one module's variables.
struct Block {
    allocation: *mut c_void,
    start: *mut u8,
}

impl TlsModule {
    /// Registers the thread-local segment of an image that is being loaded. Its template is read
    /// at each thread's first access, so not before the image is relocated.
    pub(crate) fn new<S>(segment: &TlsSegment, mapping: &Mapping<S>) -> Result<TlsModule, Error> {
        let template = mapping.load_bias().apply(segment.template.start);
        let initial = Initial {
            template: template as *const u8,
            template_len: (segment.template.end.0 - segment.template.start.0) as usize,
            size: segment.size as usize,
            align: segment.align as usize,
            residue: segment.template.start.0 as usize & (segment.align as usize - 1),
        };
        thread_exit_key()?;
        let mut registry = registry();
        let modules = &mut registry.modules;
        let free = (THREAD_SLOT + 1..modules.len()).find(|&index| modules[index].is_none());
        let index = free.unwrap_or(modules.len().max(THREAD_SLOT + 1));
        if modules.len() <= index {
            modules.resize(index + 1, None);
        }
        modules[index] = Some(initial);
        Ok(TlsModule { index })
    }

    pub(crate) fn id(&self) -> ModuleId {
        ModuleId(OURS | self.index)
    }
}

impl Drop for TlsModule {
    fn drop(&mut self) {
        let mut registry = registry();
        registry.modules[self.index] = None;
        for thread in &registry.threads {
            // SAFETY: records in the registry are alive, and the lock is held.
            let thread = unsafe { &mut *thread.as_ptr() };
            thread.set_slot(self.index, ptr::null_mut());
            if let Some(block) = thread.blocks.get_mut(self.index) {
                *block = None;
            }
        }
    }
}

impl Thread {
    /// The calling thread's record, made at its first use.
    fn current() -> NonNull<Thread> {
        let slots = arch::tls_slots();
        // SAFETY: slot 0 of the calling thread's own slots.
        let slot = unsafe { &*slots.add(THREAD_SLOT).cast::<AtomicPtr<Thread>>() };
        if let Some(thread) = NonNull::new(slot.load(Ordering::Relaxed)) {
            return thread;
        }
        let thread = Box::leak(Box::new(Thread { slots, blocks: Vec::new(), farewells: 0 }));
        let thread = NonNull::from(thread);
        registry().threads.push(thread);
        slot.store(thread.as_ptr(), Ordering::Relaxed);
        set_thread_exit(thread.as_ptr());
        thread
    }

    /// Publishes a block's address where [`arch::tls_get_addr`] looks first.
    fn set_slot(&mut self, index: usize, start: *mut u8) {
        if index < SLOTS {
            // SAFETY: `index` is in the array, and the array lives as long as its thread, which
            // removes this record before it ends. Other threads write here when an image goes.
            let slot = unsafe { &*self.slots.add(index).cast::<AtomicPtr<u8>>() };
            slot.store(start, Ordering::Release);
        }
    }
}

impl Block {
    /// A fresh copy of a module's initial values.
    fn new(initial: &Initial) -> Option<Block> {
        // `calloc` gives large blocks as untouched zero pages; it aligns to 16 only.
        let room = initial.size.checked_add(initial.align)?;
        // SAFETY: `calloc` has no preconditions.
        let allocation = unsafe { libc::calloc(1, room) };
        let start = allocation.cast::<u8>();
        let skip = initial.residue.wrapping_sub(start.addr()) & (initial.align - 1);
        if allocation.is_null() {
            return None;
        }
        // SAFETY: skip < align, so `size` bytes from there lie in the allocation; the template has
        // no more than `size` bytes (checked by `Image`) and is mapped while its module is
        // registered, which the caller holds to be so.
        let start = unsafe {
            let start = start.add(skip);
            ptr::copy_nonoverlapping(initial.template, start, initial.template_len);
            start
        };
        Some(Block { allocation, start })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: from `calloc` in `new`, freed once.
        unsafe { libc::free(self.allocation) };
    }
}

/// The thread's first access to a module's variable, and every access to modules beyond the
/// static slots. Called by [`arch::tls_get_addr`] for ids of ours.
pub(crate) extern "C" fn address_slow(index: &TlsIndex) -> *mut c_void {
    let module = index.ti_module & !OURS;
    let mut thread = Thread::current();
    let start = {
        // SAFETY: the calling thread's own record; no reference to it is kept across the calls
        // below, which may change it.
        let thread = unsafe { thread.as_ref() };
        thread.blocks.get(module).and_then(Option::as_ref).map(|block| block.start)
    };
    let start = start.unwrap_or_else(|| {
        let initial = registry().modules.get(module).copied().flatten();
        // There is no way to report: code is in the middle of an access to a variable.
        let Some(initial) = initial else {
            abort("access to a thread-local variable of an unloaded image")
        };
        let Some(block) = Block::new(&initial) else {
            abort("no memory for thread-local variables")
        };
        let start = block.start;
        let _lock = registry();
        // SAFETY: the calling thread's own record, under the lock, which keeps others out.
        let thread = unsafe { thread.as_mut() };
        if thread.blocks.len() <= module {
            thread.blocks.resize_with(module + 1, || None);
        }
        thread.blocks[module] = Some(block);
        thread.set_slot(module, start);
        start
    });
    start.wrapping_add(index.ti_offset).cast()
}

fn abort(what: &str) -> ! {
    let text = format!("memdl: {what}\n");
    // SAFETY: writes a string that is alive to standard error.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    std::process::abort()
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
    let farewells = unsafe {
        (*thread).farewells += 1;
        (*thread).farewells
    };
    if farewells < 4 {
        set_thread_exit(thread);
        return;
    }
    // SAFETY: the record was leaked by `Thread::current` of this thread. Once it has left the
    // registry nobody else can reach it, and with the slots cleared nor can this thread.
    unsafe {
        let slots = (*thread).slots;
        registry().threads.retain(|other| other.as_ptr() != thread);
        ptr::write_bytes(slots, 0, SLOTS);
        drop(Box::from_raw(thread));
    }
}
