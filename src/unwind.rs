//! Exceptions and backtraces through images.
//!
//! An unwinder must find the frame description of a program counter. For `ld.so`'s libraries, libgcc asks the C
//! library (`_dl_find_object`), gets the library's `PT_GNU_EH_FRAME`, and searches the sorted table in it. That
//! costs nothing when a library is loaded, and a binary search for each frame of a throw. `__register_frame` is
//! much slower: the next throw anywhere in the process sorts all descriptions that were registered, and every
//! later throw walks a list.
//!
//! So images are found the first way. Each unwinder in the process calls `_dl_find_object` through a word of its
//! own global offset table. That word is changed to [`find_object`], which answers for images and passes all
//! other addresses to the C library. No other caller of `_dl_find_object` is affected.
//!
//! An older unwinder (libgcc before 12, or built for glibc before 2.35) calls `dl_iterate_phdr`, and searches the
//! same table of the library that has the program counter. There the word for that function is changed, to
//! [`visit_objects`], which shows images too.
//!
//! Where there is neither (an unwinder that is linked into a stripped executable, or that another copy of memdl has
//! changed), `__register_frame` is called. It walks an `.eh_frame` up to an entry of length zero, so a section
//! without that entry is not registered.
//!
//! [`find_object`] runs inside of throws, in signal handlers, and when a debugger calls it, so it takes no lock:
//! the table is a [`LeftRight`]. `visit_objects` takes the lock that `dl_iterate_phdr` takes.
//!
//! Other copies of memdl in the process do the same. The first copy that finds a word unchanged changes it. All
//! copies are linked in a ring ([`Link`]), and ask each other; not those for old unwinders.
//!
//! Never reads frame descriptions: unwinders do.
//!
//! Sources: glibc manual "Dynamic Linker Introspection"; libgcc `unwind-dw2-fde-dip.c`,
//! `unwind-dw2-fde.c`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::left_right::LeftRight;
use crate::base::sync::{Lock, Rank};
use crate::elf::decoded::Decoded;
use crate::elf::eh_frame::EhFrame;
use crate::host::got;
use crate::host::link_map::LinkMap;
use crate::host::phdr;
use crate::memory::mapping::Mapping;
use crate::memory::stage::Sealed;

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

/// An image that is registered with unwinders. Dropped before the mapping.
pub(crate) struct Registration {
    start: usize,
    /// The `.eh_frame` that was registered by `__register_frame`.
    registered_frame: Option<usize>,
    /// Its program headers are in the table until this is dropped.
    _decoded: Arc<Decoded>,
}

/// What unwinders are shown.
struct Table {
    /// The images, ascending.
    entries: Vec<Entry>,
    /// How often it was changed.
    changes: u64,
}

impl Table {
    const EMPTY: Table = Table { entries: Vec::new(), changes: 0 };
}

/// The data that unwinders get for an image.
#[derive(Clone)]
struct Entry {
    addresses: Range<usize>,
    /// `PT_GNU_EH_FRAME`, or 0.
    eh_frame_hdr: usize,
    link_map: *const LinkMap,
    load_bias: usize,
    headers: *const libc::Elf64_Phdr,
    header_count: u16,
}

// SAFETY: the pointers are passed on, not dereferenced.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

static IMAGES: LeftRight<Table> =
    LeftRight::new(Table::EMPTY, Table::EMPTY, Lock::new(Rank::Unwind, ()));

/// In a child just after the fork: forgets readers, since threads that were reading do not exist here.
pub(crate) fn after_fork_in_child() {
    IMAGES.forget_readers();
}

impl Registration {
    /// Registers an image, with or without unwind information.
    pub(crate) fn new(
        decoded: &Arc<Decoded>,
        mapping: &Mapping<Sealed>,
        link_map: *const LinkMap,
    ) -> Result<Registration, Error> {
        let addresses = mapping.address_range();
        let hdr = decoded.eh_frame_hdr.clone();
        let eh_frame_hdr = hdr.as_ref().map_or(0, |hdr| mapping.load_bias().apply(hdr.start));
        let entry = Entry {
            addresses: addresses.clone(),
            eh_frame_hdr,
            link_map,
            load_bias: mapping.load_bias().get(),
            headers: decoded.program_headers.as_ptr().cast(),
            header_count: decoded.program_headers.len() as u16,
        };
        let refused = Cell::new(None);
        change(|entries| match entries.try_room(1) {
            Ok(()) => {
                let at = entries.partition_point(|it| it.addresses.start < addresses.start);
                entries.insert(at, entry.clone());
            }
            Err(error) => refused.set(Some(error)),
        });
        if let Some(error) = refused.into_inner() {
            // One of the two copies of the table may have the entry.
            remove(addresses.start);
            return Err(error);
        }
        let mut registered_frame = None;
        if !redirect_unwinders() {
            let eh_frame = hdr.and_then(|hdr| EhFrame::locate(hdr, mapping));
            registered_frame = eh_frame.filter(|eh_frame| eh_frame.terminated).map(|eh_frame| {
                let begin = mapping.load_bias().apply(eh_frame.range.start);
                // SAFETY: `locate` walked the section up to its terminator, inside mapped memory
                // that outlives this registration (drop order in `Loaded`) and is not written.
                unsafe { __register_frame(begin as *const c_void) };
                begin
            });
        }
        Ok(Registration { start: addresses.start, registered_frame, _decoded: decoded.clone() })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(begin) = self.registered_frame {
            // SAFETY: registered by `new`, deregistered once.
            unsafe { __deregister_frame(begin as *const c_void) };
        }
        remove(self.start);
    }
}

fn change(change: impl Fn(&mut Vec<Entry>)) {
    IMAGES.write(|table| {
        table.changes = table.changes.wrapping_add(1);
        change(&mut table.entries);
    });
}

fn remove(start: usize) {
    change(|entries| entries.retain(|entry| entry.addresses.start != start));
}

/// Makes every unwinder in the process call [`find_object`], or, if there is none that can, [`visit_objects`]; once
/// for each set of libraries. Returns whether there is one.
fn redirect_unwinders() -> bool {
    /// The number of loads of libraries, plus 1, at the last search; the number of unwinders found so far.
    static LOADS: AtomicU64 = AtomicU64::new(0);
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let loads = phdr::loads().saturating_add(1);
    if LOADS.swap(loads, Ordering::SeqCst) != loads {
        let definer = b"_Unwind_Find_FDE";
        let mut found = got::patch_got(definer, b"_dl_find_object", &|now| join(now));
        if found == 0 {
            let visitor = visit_objects as *const () as usize;
            found = got::redirect_where_defined(definer, c"dl_iterate_phdr", visitor);
        }
        FOUND.fetch_max(found, Ordering::SeqCst);
    }
    FOUND.load(Ordering::SeqCst) > 0
}

/// A copy of memdl, in the ring of all copies in the process. **Its layout never changes**: copies of other
/// versions, and in other objects, read it.
#[repr(C)]
pub(crate) struct Link {
    next: AtomicPtr<Link>,
    /// [`find_own_object`]: returns 0 if it has found an image.
    find: unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int,
}

/// This copy.
pub(crate) static RING: Link =
    Link { next: AtomicPtr::new((&raw const RING).cast_mut()), find: find_own_object };

/// More copies than any process has. It bounds a walk through a ring that is being joined.
const MAX_COPIES: usize = 64;

impl Link {
    /// The copy whose finder starts at this address, if there is a finder.
    fn of_finder(address: usize) -> Option<&'static Link> {
        // A finder, aligned to 64 bytes, is in one page, so its bytes can be read if its first byte can.
        if address == 0 || !address.is_multiple_of(64) {
            return None;
        }
        // SAFETY: a function that an unwinder calls starts here, and code can be read, up to the end of the
        // page. In a finder, the mark is followed by the distance of its copy's link from that word; that copy
        // is never unloaded.
        unsafe {
            let mark = (address as *const u8).add(FINDER_MARK).cast::<[u8; 16]>();
            let distance = mark.add(1).cast::<isize>();
            let is_finder = mark.read() == *b"memdl finder v1\0";
            is_finder.then(|| &*distance.cast::<Link>().byte_offset(distance.read()))
        }
    }

    /// The other copies in the ring.
    fn others(&'static self) -> impl Iterator<Item = &'static Link> {
        let mut at = self;
        let next = move || {
            // SAFETY: never null, and copies are never unloaded.
            at = unsafe { &*at.next.load(Ordering::SeqCst) };
            (!ptr::eq(at, self)).then_some(at)
        };
        std::iter::from_fn(next).take(MAX_COPIES)
    }

    /// Joins the rings of the two. Only one thread may do that at a time.
    fn join(&'static self, other: &'static Link) {
        if !ptr::eq(self, other) && !self.others().any(|it| ptr::eq(it, other)) {
            let next = self.next.load(Ordering::SeqCst);
            self.next.store(other.next.swap(next, Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}

/// The function that an unwinder should call, if it must be changed. If it calls the finder of another copy of
/// memdl now, it keeps that, and the rings are joined.
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
    let found = IMAGES.read(|Table { entries, .. }| {
        let after = entries.partition_point(|entry| entry.addresses.start <= address.addr());
        let entry = entries.get(after.checked_sub(1)?)?;
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

/// `_dl_find_object`, for unwinders and for images that call it.
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
    /// Its address, or 1 if there is none. Signal handlers cannot look it up.
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

type Visitor = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;

/// An unwinder's walk through all objects.
struct Walk {
    visit: Visitor,
    data: *mut c_void,
    /// [`Table::changes`], once images were shown.
    changes: Option<u64>,
}

/// `dl_iterate_phdr`, for unwinders that do not know `_dl_find_object`: images come first.
///
/// # Safety
/// As the C library's function: `visit` can be called with `data`.
unsafe extern "C" fn visit_objects(visit: Visitor, data: *mut c_void) -> c_int {
    let mut walk = Walk { visit, data, changes: None };
    // SAFETY: the callback gets the local, which nothing else uses meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(visit_object), (&raw mut walk).cast()) }
}

/// Shows an object of `ld.so`, and before the first one all images: under the lock of `ld.so`'s list, which guards
/// what unwinders keep from walk to walk. They forget it when the number of loads (`dlpi_adds`) has changed; so that
/// counts the changes of images, too.
///
/// # Safety
/// `info` is a record of `size` bytes, `walk` a [`Walk`].
unsafe extern "C" fn visit_object(
    info: *mut libc::dl_phdr_info,
    size: usize,
    walk: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise. glibc before 2.4 has shorter records.
    let (walk, mut shown) = unsafe {
        let walk = &mut *walk.cast::<Walk>();
        if size < size_of::<libc::dl_phdr_info>() {
            return (walk.visit)(info, size, walk.data);
        }
        (walk, *info)
    };
    let adds = shown.dlpi_adds;
    let (visit, data) = (walk.visit, walk.data);
    // SAFETY: the promise of `visit_objects`; the record lives during the call.
    let mut show = |mut record: libc::dl_phdr_info| unsafe { visit(&mut record, size, data) };
    let changes = match walk.changes {
        Some(changes) => changes,
        None => {
            let (changes, result) = IMAGES.read(|table| {
                let records = table.entries.iter().map(|entry| libc::dl_phdr_info {
                    dlpi_addr: entry.load_bias as u64,
                    dlpi_name: c"".as_ptr(),
                    dlpi_phdr: entry.headers,
                    dlpi_phnum: entry.header_count,
                    dlpi_adds: adds.wrapping_add(table.changes),
                    dlpi_tls_modid: 0,
                    dlpi_tls_data: ptr::null_mut(),
                    ..shown
                });
                (table.changes, records.map(&mut show).find(|&result| result != 0))
            });
            if let Some(result) = result {
                return result;
            }
            *walk.changes.insert(changes)
        }
    };
    shown.dlpi_adds = adds.wrapping_add(changes);
    show(shown)
}
