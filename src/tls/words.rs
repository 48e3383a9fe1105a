//! The words that memdl has in every thread, at a constant distance from the thread pointer: the thread's record,
//! which compiled code reads, and a pointer to the thread's block of each module, which debuggers read as well.
//!
//! In an executable, and in a library that the process started with, they are memdl's own thread-local
//! variables ([`tls_slots`]). glibc reserves little static storage for libraries that are opened with `dlopen`, so
//! memdl takes none there: the words are values of `pthread` keys ([`thread_keys`]). Without such a key compiled
//! code takes slower calls, and debuggers cannot show the variables.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicUsize, Ordering};

use crate::arch;
use crate::base::error::Error;
use crate::base::sync::{Lock, Rank};
use crate::host::startup_set::{self, startup_set};
use crate::host::thread_keys;
use crate::tls::layout::{NO_BLOCK, POOL, POOL_ALIGN, SLOTS, THREAD_SLOT};

arch::define_tls_variables!();

/// What the assembly reads. Set before a module has an id, and not changed then.
pub(super) static SLOT_COUNT: AtomicUsize = AtomicUsize::new(0);
/// The distance of the slots from the thread pointer. Only if there are slots.
pub(super) static SLOTS_AT: AtomicIsize = AtomicIsize::new(0);
/// The distance of the word that points to the thread's record; 0 if it has none.
pub(super) static RECORD_AT: AtomicIsize = AtomicIsize::new(0);

/// Where the words are.
pub(super) struct Words {
    /// The key whose destructor frees a thread's record. Its value is the record.
    key: libc::pthread_key_t,
    pub(super) storage: Storage,
}

pub(super) enum Storage {
    /// memdl's thread-local variables, at these distances.
    Static { slots: isize, pool: isize },
    /// Values of keys.
    Keys,
}

static WORDS: OnceLock<Option<Words>> = OnceLock::new();

/// Held while the words are looked for: one key is made, and a fork waits.
static FINDING: Lock<()> = Lock::new(Rank::Words, ());

/// Frees the record of a thread that ends.
type FreeRecord = unsafe extern "C" fn(*mut c_void);

/// Finds the words, at the first call. Called before a module is registered.
pub(super) fn find_words(free_record: FreeRecord) -> Result<&'static Words, Error> {
    let words = WORDS.get().unwrap_or_else(|| {
        let _finding = FINDING.lock();
        WORDS.get().unwrap_or_else(|| {
            let found = Words::find(free_record);
            WORDS.get_or_init(|| found)
        })
    });
    words.as_ref().ok_or_else(|| {
        Error::system("pthread_key_create", std::io::Error::from_raw_os_error(libc::EAGAIN))
    })
}

/// The words, which are found when the first module is registered.
pub(super) fn known_words() -> Option<&'static Words> {
    WORDS.get()?.as_ref()
}

impl Words {
    fn find(free_record: FreeRecord) -> Option<Words> {
        let thread_pointer = arch::thread_pointer();
        let distance_of = |address: usize| address.wrapping_sub(thread_pointer) as isize;
        let slots = tls_slots().addr();
        let is_static = startup_set::is_in_executable() || is_in_static_area(slots);
        if !is_static {
            // SAFETY: the function takes the values of this key, which are records.
            let (key, distance) = unsafe { thread_keys::create(Some(free_record)) }?;
            RECORD_AT.store(distance.unwrap_or(0), Ordering::Relaxed);
            return Some(Words { key, storage: Storage::Keys });
        }
        // SAFETY: as above.
        let key = unsafe { thread_keys::create_anywhere(Some(free_record)) }?;
        let slots = distance_of(slots);
        let record = slots.wrapping_add_unsigned(THREAD_SLOT.wrapping_mul(size_of::<usize>()));
        RECORD_AT.store(record, Ordering::Relaxed);
        SLOTS_AT.store(slots, Ordering::Relaxed);
        SLOT_COUNT.store(SLOTS, Ordering::Relaxed);
        let pool = distance_of(static_pool().addr());
        Some(Words { key, storage: Storage::Static { slots, pool } })
    }

    /// The distance of the static pool from the thread pointer. `None` if memdl's storage is not static.
    pub(super) fn pool(&self) -> Option<isize> {
        match self.storage {
            Storage::Static { pool, .. } => Some(pool),
            Storage::Keys => None,
        }
    }

    /// The calling thread's record; null if it has none.
    pub(super) fn record(&self) -> *mut c_void {
        match self.storage {
            Storage::Static { slots, .. } => {
                slot(arch::thread_pointer(), slots, THREAD_SLOT).load(Ordering::Relaxed).cast()
            }
            // SAFETY: the key exists.
            Storage::Keys => unsafe { libc::pthread_getspecific(self.key) },
        }
    }

    /// Sets the calling thread's record, which its end frees.
    pub(super) fn set_record(&self, record: *mut c_void) -> Result<(), Error> {
        // SAFETY: the key exists, and its values are records.
        let failed = unsafe { libc::pthread_setspecific(self.key, record) };
        match self.storage {
            Storage::Static { slots, .. } => {
                // Without a value of the key, the record is leaked.
                let slot = slot(arch::thread_pointer(), slots, THREAD_SLOT);
                slot.store(record.cast(), Ordering::Relaxed);
                Ok(())
            }
            Storage::Keys if failed == 0 => Ok(()),
            Storage::Keys => Err(Error::out_of_memory(size_of::<usize>() as u64)),
        }
    }
}

/// Whether this address is in the calling thread's static area.
pub(super) fn is_in_static_area(address: usize) -> bool {
    arch::static_area(arch::thread_pointer(), static_area_size()).contains(&address)
}

/// The size of a thread's static area.
pub(super) fn static_area_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    SIZE.get().copied().unwrap_or_else(|| {
        let (mut size, mut align) = (0usize, 0usize);
        let mut libraries = startup_set().iter();
        // `ld.so`'s. To ask `ld.so` for it takes ten times as long.
        if let Some(function) = libraries.find_map(|it| it.exported(b"_dl_get_tls_static_info")) {
            // SAFETY: glibc's function has this type. It sets both values.
            unsafe {
                let function: unsafe extern "C" fn(*mut usize, *mut usize) =
                    std::mem::transmute(function);
                function(&mut size, &mut align);
            }
        }
        *SIZE.get_or_init(|| size)
    })
}

/// A slot of a thread.
fn slot<'a>(thread_pointer: usize, slots: isize, index: usize) -> &'a AtomicPtr<u8> {
    let offset = index.wrapping_mul(size_of::<usize>());
    word(thread_pointer, slots.wrapping_add_unsigned(offset))
}

pub(super) fn word<'a>(thread_pointer: usize, distance: isize) -> &'a AtomicPtr<u8> {
    let address = thread_pointer.wrapping_add_signed(distance);
    // SAFETY: one of memdl's words of a thread that exists: the calling one, or one with a record in the
    // registry, whose lock is held, and which the ending thread takes from there first.
    unsafe { &*ptr::with_exposed_provenance::<AtomicPtr<u8>>(address) }
}
