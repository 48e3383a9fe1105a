//! Exceptions and backtraces through images.
//!
//! An unwinder must find the frame description of a program counter. For `ld.so`'s libraries,
//! libgcc asks the C library (`_dl_find_object`), gets the library's `PT_GNU_EH_FRAME`, and searches
//! the sorted table in it: nothing to be done when a library is loaded, and a logarithm when
//! something is thrown. What `__register_frame` offers is much worse: the next throw anywhere in the
//! process sorts all descriptions that were registered, and every later one walks a list.
//!
//! So images take the first way. Each unwinder in the process reaches `_dl_find_object` through a
//! word of its own global offset table; that word is pointed at [`find_object`], which knows images
//! and asks the C library for all else. Nobody else's view of anything changes. Where there is no
//! such unwinder (libgcc before 12, glibc before 2.35, or one linked statically into a stripped
//! executable), `__register_frame` has to do; it walks an `.eh_frame` up to an entry of length zero,
//! so one that does not end is not registered.
//!
//! [`find_object`] runs inside of throws, in signal handlers and in a debugger's hands, so it takes
//! no lock: the table is a [`LeftRight`].
//!
//! Other copies of memdl in the process do the same. Of several that would point a word at their own
//! function, the first does; all of them know each other, in a ring ([`Link`]), and ask each other.
//!
//! Sources: glibc manual "Dynamic Linker Introspection"; libgcc `unwind-dw2-fde-dip.c`,
//! `unwind-dw2-fde.c`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::left_right::LeftRight;
use crate::base::sync::{Lock, Rank};
use crate::elf::decoded::Decoded;
use crate::elf::eh_frame::EhFrame;
use crate::host::ld_so;
use crate::host::link_map::LinkMap;
use crate::memory::map::{Mapping, Sealed};

unsafe extern "C" {
    fn __register_frame(begin: *const c_void);
    fn __deregister_frame(begin: *const c_void);
}

/// `struct dl_find_object` (`<dlfcn.h>`).
#[repr(C)]
pub(crate) struct FoundObject {
    dlfo_flags: u64,
    dlfo_map_start: *mut c_void,
    dlfo_map_end: *mut c_void,
    dlfo_link_map: *const LinkMap,
    dlfo_eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// An image that unwinders know of; taken back when dropped, before the mapping goes.
pub(crate) struct Registration {
    start: usize,
    /// The `.eh_frame` that was registered by hand.
    by_hand: Option<usize>,
}

/// What unwinders are told of an image.
#[derive(Clone)]
struct Entry {
    addresses: Range<usize>,
    /// `PT_GNU_EH_FRAME`, or 0.
    eh_frame_hdr: usize,
    link_map: *const LinkMap,
}

// SAFETY: the pointer is an address that is handed on.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// The images, ascending.
static IMAGES: LeftRight<Vec<Entry>> =
    LeftRight::new(Vec::new(), Vec::new(), Lock::new(Rank::Unwind, ()));

/// In a child just after the fork: threads that were reading do not exist here.
pub(crate) fn after_fork_in_child() {
    IMAGES.forget_readers();
}

impl Registration {
    /// Makes an image known, with or without unwind information.
    pub(crate) fn new(
        decoded: &Decoded,
        mapping: &Mapping<Sealed>,
        link_map: *const LinkMap,
    ) -> Result<Registration, Error> {
        let addresses = mapping.address_range();
        let hdr = decoded.eh_frame_hdr.clone();
        let eh_frame_hdr = hdr.as_ref().map_or(0, |hdr| mapping.load_bias().apply(hdr.start));
        let entry = Entry { addresses: addresses.clone(), eh_frame_hdr, link_map };
        let refused = Cell::new(None);
        IMAGES.write(|images| match images.try_room(1) {
            Ok(()) => {
                let at = images.partition_point(|it| it.addresses.start < addresses.start);
                images.insert(at, entry.clone());
            }
            Err(error) => refused.set(Some(error)),
        });
        if let Some(error) = refused.into_inner() {
            // One of the copies may have it.
            IMAGES.write(|images| images.retain(|it| it.addresses.start != addresses.start));
            return Err(error);
        }
        let mut by_hand = None;
        if !unwinders_ask_us() {
            let eh_frame = hdr.and_then(|hdr| EhFrame::locate(hdr, mapping));
            by_hand = eh_frame.filter(|eh_frame| eh_frame.terminated).map(|eh_frame| {
                let begin = mapping.load_bias().apply(eh_frame.range.start);
                // SAFETY: `locate` walked the section up to its terminator, inside mapped memory
                // that outlives this registration (drop order in `Loaded`) and is not written.
                unsafe { __register_frame(begin as *const c_void) };
                begin
            });
        }
        Ok(Registration { start: addresses.start, by_hand })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(begin) = self.by_hand {
            // SAFETY: registered by `new`, taken back once.
            unsafe { __deregister_frame(begin as *const c_void) };
        }
        IMAGES.write(|images| images.retain(|entry| entry.addresses.start != self.start));
    }
}

/// Points every unwinder in the process at [`find_object`], once for each set of libraries, and
/// tells whether there is one.
fn unwinders_ask_us() -> bool {
    /// How often libraries had been loaded, plus 1, when this was looked at last; how many were
    /// found so far.
    static LOADS: AtomicU64 = AtomicU64::new(0);
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let loads = ld_so::loads().saturating_add(1);
    if LOADS.swap(loads, Ordering::SeqCst) != loads {
        let found = ld_so::patch_got(b"_Unwind_Find_FDE", b"_dl_find_object", &|now| join(now));
        FOUND.fetch_max(found, Ordering::SeqCst);
    }
    FOUND.load(Ordering::SeqCst) > 0
}

/// A copy of memdl, in a ring of all copies in the process that unwinders are pointed at one of. **Its
/// layout never changes**: copies of other versions, and in other objects, read it.
#[repr(C)]
pub(crate) struct Link {
    next: AtomicPtr<Link>,
    /// [`find_own_object`]: 0 if it has been found.
    find: unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int,
}

/// This copy.
pub(crate) static RING: Link =
    Link { next: AtomicPtr::new((&raw const RING).cast_mut()), find: find_own_object };

/// More than there are copies in any process: a walk that meets a ring that is being joined ends.
const MAX_COPIES: usize = 64;

impl Link {
    /// The copy whose finder starts at this address, if there is a finder.
    fn of_finder(address: usize) -> Option<&'static Link> {
        // All of a finder is in one page, so this is safe to read wherever there is any code.
        if address == 0 || !address.is_multiple_of(64) {
            return None;
        }
        // SAFETY: what an unwinder calls starts here, and code can be read, up to the end of the page. Of
        // a finder, the distance of its copy's link from the word that has it comes behind the mark; that
        // copy is never unloaded.
        unsafe {
            let mark = (address as *const u8).add(FINDER_MARK).cast::<[u8; 16]>();
            let distance = mark.add(1).cast::<isize>();
            let is_finder = mark.read() == *b"memdl finder v1\0";
            is_finder.then(|| &*distance.cast::<Link>().byte_offset(distance.read()))
        }
    }

    /// The others in the ring.
    fn others(&'static self) -> impl Iterator<Item = &'static Link> {
        let mut at = self;
        let next = move || {
            // SAFETY: never null, and copies are never unloaded.
            at = unsafe { &*at.next.load(Ordering::SeqCst) };
            (!ptr::eq(at, self)).then_some(at)
        };
        std::iter::from_fn(next).take(MAX_COPIES)
    }

    /// Makes one ring of the two that these are in; to be called by one thread at a time.
    fn join(&'static self, other: &'static Link) {
        if !ptr::eq(self, other) && !self.others().any(|it| ptr::eq(it, other)) {
            let next = self.next.load(Ordering::SeqCst);
            self.next.store(other.next.swap(next, Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}

/// Where an unwinder should be pointed at that is pointed here now, if it must be changed: at another
/// copy of memdl it may stay, once the two know each other.
fn join(now: usize) -> Option<usize> {
    match Link::of_finder(now) {
        Some(other) => {
            RING.join(other);
            None
        }
        None => Some(finder()),
    }
}

arch::define_finder!(find_object, RING);

/// [`find_object`] of this copy's images: -1 if the address is in none.
///
/// # Safety
/// `result` can be written to.
unsafe extern "C" fn find_own_object(address: *mut c_void, result: *mut FoundObject) -> c_int {
    let found = IMAGES.read(|images| {
        let after = images.partition_point(|entry| entry.addresses.start <= address.addr());
        let entry = images.get(after.checked_sub(1)?)?;
        entry.addresses.contains(&address.addr()).then_some(FoundObject {
            dlfo_flags: 0,
            dlfo_map_start: entry.addresses.start as *mut c_void,
            dlfo_map_end: entry.addresses.end as *mut c_void,
            dlfo_link_map: entry.link_map,
            dlfo_eh_frame: entry.eh_frame_hdr as *mut c_void,
            reserved: [0; 7],
        })
    });
    let Some(found) = found else { return -1 };
    // SAFETY: the caller's promise.
    unsafe { result.write(found) };
    0
}

/// `_dl_find_object`, for unwinders and for images that ask themselves.
///
/// # Safety
/// As the C library's function: `result` can be written to.
pub(crate) unsafe extern "C" fn find_object(
    address: *mut c_void,
    result: *mut FoundObject,
) -> c_int {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if find_own_object(address, result) == 0
            || RING.others().any(|other| (other.find)(address, result) == 0)
        {
            return 0;
        }
        host_find_object(address, result)
    }
}

/// The C library's own function.
///
/// # Safety
/// As [`find_object`].
unsafe fn host_find_object(address: *mut c_void, result: *mut FoundObject) -> c_int {
    type Function = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;
    /// Its address, since looking it up is not for signal handlers; 1 where there is none.
    static FUNCTION: AtomicUsize = AtomicUsize::new(0);
    let mut function = FUNCTION.load(Ordering::Relaxed);
    if function == 0 {
        // SAFETY: a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        function = found.addr().max(1);
        FUNCTION.store(function, Ordering::Relaxed);
    }
    if function == 1 {
        return -1;
    }
    // SAFETY: the function has this type by its documentation; the rest is the caller's promise.
    unsafe {
        let function: Function = std::mem::transmute(ptr::without_provenance::<c_void>(function));
        function(address, result)
    }
}
