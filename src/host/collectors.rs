//! LeakSanitizer and libgc: what must know the memory in which images keep pointers.
//!
//! Both take the data of `ld.so`'s libraries for roots: whatever a root points to is in use. They do not know
//! images. LeakSanitizer would report what an image owns, and libgc would free it. So the writable data and the
//! thread-local blocks of images are registered with them, for as long as they exist ([`Roots`]). A thread's
//! part of the static pool is registered too, once the thread has a record (`tls/thread.rs`): libgc scans no
//! static thread-local storage.
//!
//! Their functions are found by name, in the libraries that the process has: nothing is linked. They are
//! searched at the first load, and again when `ld.so` has loaded a library since. Each load counts `ld.so`'s
//! loads anyway, for the unwinders, so that usually costs one comparison. A libgc that the host opens later is
//! therefore seen at the next load or instance, or when an image opens a library; then the data of all images
//! is registered, and the thread-local blocks that are made from then on. What defines the functions stays
//! loaded.
//!
//! `GC_add_roots` initialises a libgc that is not, which must be left to the program: it chooses settings and
//! the thread. And libgc ends the process if it has too many roots. In both cases libgc asks for the ranges when
//! it collects (`GC_set_push_other_roots`). All other threads stand still then, so the table is read without a
//! lock.
//!
//! No lock is held while their functions are called: they have locks of their own, also across a `fork`.
//!
//! Sources: `<sanitizer/lsan_interface.h>`, compiler-rt `lsan_common.cpp`; libgc 8.2 `gc.h`, `gc_mark.h`,
//! `mark_rts.c`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory};
use crate::base::left_right::LeftRight;
use crate::base::sync::{Lock, Rank};
use crate::elf::lookup::VersionMatch;
use crate::elf::symbol::SymbolName;
use crate::host::library::HostLibrary;
use crate::host::opened::opened_defining;
use crate::host::phdr;
use crate::host::startup_set::{is_alone, startup_set};

/// A set of collectors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Collectors(u8);

impl Collectors {
    const LSAN: Collectors = Collectors(1);
    const LIBGC: Collectors = Collectors(2);

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    fn has(self, other: Collectors) -> bool {
        self.0 & other.0 != 0
    }
}

/// The set of collectors as one word.
#[derive(Default)]
pub(crate) struct AtomicCollectors(AtomicU8);

impl AtomicCollectors {
    pub(crate) const fn none() -> AtomicCollectors {
        AtomicCollectors(AtomicU8::new(0))
    }

    pub(crate) fn get(&self) -> Collectors {
        Collectors(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn add(&self, more: Collectors) {
        self.0.fetch_or(more.0, Ordering::AcqRel);
    }
}

type OfStartAndLen = unsafe extern "C" fn(*const c_void, usize);
type OfStartAndEnd = unsafe extern "C" fn(*mut c_void, *mut c_void);
type Callback = unsafe extern "C" fn();
type GetNumber = unsafe extern "C" fn() -> c_int;
type GetCallback = unsafe extern "C" fn() -> Option<Callback>;
type SetCallback = unsafe extern "C" fn(Option<Callback>);

struct LeakSanitizer {
    register: OfStartAndLen,
    unregister: OfStartAndLen,
}

struct Libgc {
    add: OfStartAndEnd,
    remove: OfStartAndEnd,
    /// Since libgc 8.
    asks: Option<Asks>,
}

/// The functions for a libgc that asks for the ranges.
struct Asks {
    is_initialised: GetNumber,
    get_callback: GetCallback,
    set_callback: SetCallback,
    push: OfStartAndEnd,
}

static LSAN: OnceLock<LeakSanitizer> = OnceLock::new();
static LIBGC: OnceLock<Libgc> = OnceLock::new();
static KNOWN: AtomicCollectors = AtomicCollectors::none();

/// The number of loads of libraries, plus 1, at the last search.
static SEARCHED: AtomicU64 = AtomicU64::new(0);

/// The collectors that were found so far.
pub(crate) fn known() -> Collectors {
    KNOWN.get()
}

/// The collectors that the process has, as of the last count of `ld.so`'s loads. No lock is held. Without
/// memory for the search, it is done again the next time.
#[inline]
pub(crate) fn present() -> Collectors {
    let loads = phdr::loads_at_last_count().saturating_add(1);
    let before = SEARCHED.load(Ordering::Acquire);
    if before != loads && search(before == 0).is_ok() {
        SEARCHED.store(loads, Ordering::Release);
    }
    known()
}

/// As [`present`], as of now.
pub(crate) fn present_now() -> Collectors {
    phdr::loads();
    present()
}

#[cold]
fn search(for_the_first_time: bool) -> Result<(), Error> {
    let names = [b"__lsan_register_root_region".as_slice(), b"GC_add_roots"].map(SymbolName::new);
    // The start-up set has all that it will ever have the first time.
    if for_the_first_time {
        for library in startup_set() {
            note(library, &names);
        }
    }
    if !is_alone() && (LSAN.get().is_none() || LIBGC.get().is_none()) {
        require_memory()?;
        for library in opened_defining(&names, VersionMatch::Default)? {
            if note(&library, &names) {
                // It is never unloaded.
                std::mem::forget(library);
            }
        }
    }
    Ok(())
}

/// Notes the functions of a library that defines one of these names, unless another did before. Returns whether they
/// are used.
fn note(library: &HostLibrary, [lsan, libgc]: &[SymbolName<'_>; 2]) -> bool {
    let defines = |name| library.defines(name, VersionMatch::Default);
    let mut is_used = false;
    if LSAN.get().is_none()
        && defines(lsan)
        && let Some(functions) = LeakSanitizer::of(library)
    {
        is_used |= LSAN.set(functions).is_ok();
        KNOWN.add(Collectors::LSAN);
    }
    if LIBGC.get().is_none()
        && defines(libgc)
        && let Some(functions) = Libgc::of(library)
    {
        is_used |= LIBGC.set(functions).is_ok();
        KNOWN.add(Collectors::LIBGC);
    }
    is_used
}

impl LeakSanitizer {
    fn of(library: &HostLibrary) -> Option<LeakSanitizer> {
        let function = |name| -> Option<OfStartAndLen> {
            // SAFETY: LeakSanitizer's functions of these names have this type.
            Some(unsafe { std::mem::transmute::<usize, OfStartAndLen>(library.exported(name)?) })
        };
        Some(LeakSanitizer {
            register: function(b"__lsan_register_root_region")?,
            unregister: function(b"__lsan_unregister_root_region")?,
        })
    }
}

impl Libgc {
    fn of(library: &HostLibrary) -> Option<Libgc> {
        let function = |name| -> Option<OfStartAndEnd> {
            // SAFETY: libgc's functions of the names below have this type.
            Some(unsafe { std::mem::transmute::<usize, OfStartAndEnd>(library.exported(name)?) })
        };
        Some(Libgc {
            add: function(b"GC_add_roots")?,
            remove: function(b"GC_remove_roots")?,
            asks: Asks::of(library, function(b"GC_push_all_eager")),
        })
    }
}

impl Asks {
    fn of(library: &HostLibrary, push: Option<OfStartAndEnd>) -> Option<Asks> {
        let [is_initialised, get_callback, set_callback] =
            [&b"GC_is_init_called"[..], b"GC_get_push_other_roots", b"GC_set_push_other_roots"]
                .map(|name| library.exported(name));
        // SAFETY: libgc's functions of these names have these types.
        unsafe {
            Some(Asks {
                is_initialised: std::mem::transmute::<usize, GetNumber>(is_initialised?),
                get_callback: std::mem::transmute::<usize, GetCallback>(get_callback?),
                set_callback: std::mem::transmute::<usize, SetCallback>(set_callback?),
                push: push?,
            })
        }
    }

    /// From now on libgc asks for the ranges of the table.
    fn install(&self) {
        static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
        if !IS_INSTALLED.swap(true, Ordering::SeqCst) {
            // SAFETY: the getter and the setter, which may be called before libgc is initialised.
            unsafe {
                let before = (self.get_callback)().map_or(ptr::null_mut(), |it| it as *mut ());
                BEFORE.store(before, Ordering::SeqCst);
                (self.set_callback)(Some(push_ranges));
            }
        }
    }
}

/// The callback that libgc had before, which finds the stacks of threads.
static BEFORE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// The ranges that libgc asks for, by their starts.
static RANGES: LeftRight<Vec<Range<usize>>> =
    LeftRight::new(Vec::new(), Vec::new(), Lock::new(Rank::Roots, ()));

/// Called by libgc while all other threads that it knows stand still, and may hold any lock.
unsafe extern "C" fn push_ranges() {
    let before = BEFORE.load(Ordering::SeqCst);
    if !before.is_null() {
        // SAFETY: what `get_callback` gave, called as libgc would call it.
        unsafe { std::mem::transmute::<*mut (), Callback>(before)() };
    }
    if let Some(asks) = LIBGC.get().and_then(|libgc| libgc.asks.as_ref()) {
        RANGES.read(|ranges| {
            for range in ranges {
                // SAFETY: readable memory, until its `Roots` are dropped, which waits for this read.
                unsafe { (asks.push)(range.start as *mut c_void, range.end as *mut c_void) };
            }
        });
    }
}

/// In a child just after the fork: forgets readers, since threads that were reading do not exist here.
pub(crate) fn after_fork_in_child() {
    RANGES.forget_readers();
}

/// Memory that collectors take for roots until this is dropped. No lock is held then.
#[derive(Default)]
pub(crate) struct Roots {
    /// A list: two threads may register the same memory when a collector is new. That changes nothing.
    first: AtomicPtr<Node>,
    with: AtomicCollectors,
}

struct Node {
    next: *mut Node,
    roots: Vec<Root>,
}

impl Roots {
    /// None yet.
    pub(crate) const fn none() -> Roots {
        Roots { first: AtomicPtr::new(ptr::null_mut()), with: AtomicCollectors::none() }
    }

    /// Registers these ranges with those collectors that do not have them. They are mapped, readable, and stay
    /// so until this is dropped. No lock is held.
    #[cold]
    pub(crate) fn register(
        &self,
        collectors: Collectors,
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(), Error> {
        self.register_by(collectors, ranges, Root::with_libgc)
    }

    /// As [`Roots::register`], of memory on a thread's stack. In a child of a fork it is gone, and libgc must
    /// not be called before it has handled the fork: so it asks for the memory.
    #[cold]
    pub(crate) fn register_on_stack(
        &self,
        collectors: Collectors,
        range: Range<usize>,
    ) -> Result<(), Error> {
        self.register_by(collectors, std::iter::once(range), |range| match LIBGC.get() {
            Some(Libgc { asks: Some(asks), .. }) => Root::asked(asks, range).map(Some),
            _ => Ok(None),
        })
    }

    /// In a child just after the fork, of a thread that does not exist there: libgc does not get it any more.
    /// LeakSanitizer reads nothing that is not mapped.
    pub(crate) fn forget_in_child(&mut self) {
        let mut next = std::mem::replace(self.first.get_mut(), ptr::null_mut());
        // SAFETY: nodes of `register_by`, which are leaked.
        while let Some(node) = unsafe { next.as_ref() } {
            node.roots.iter().for_each(Root::do_not_ask);
            next = node.next;
        }
    }

    fn register_by(
        &self,
        collectors: Collectors,
        ranges: impl Iterator<Item = Range<usize>>,
        with_libgc: impl Fn(Range<usize>) -> Result<Option<Root>, Error>,
    ) -> Result<(), Error> {
        let missing = Collectors(collectors.0 & !self.with.get().0);
        if missing.is_none() {
            return Ok(());
        }
        require_memory()?;
        let mut roots = Vec::new();
        for range in ranges.filter(|range| !range.is_empty()) {
            roots.try_room(2)?;
            if missing.has(Collectors::LSAN) {
                roots.extend(Root::with_lsan(range.clone()));
            }
            if missing.has(Collectors::LIBGC) {
                roots.extend(with_libgc(range)?);
            }
        }
        let node = Box::into_raw(Box::new(Node { next: ptr::null_mut(), roots }));
        let mut first = self.first.load(Ordering::Acquire);
        loop {
            // SAFETY: the new node, which no other thread reaches yet.
            unsafe { (*node).next = first };
            let (ok, err) = (Ordering::AcqRel, Ordering::Acquire);
            match self.first.compare_exchange(first, node, ok, err) {
                Ok(_) => break,
                Err(other) => first = other,
            }
        }
        self.with.add(missing);
        Ok(())
    }

    /// Removes them from all collectors.
    pub(crate) fn remove(&mut self) {
        let mut next = std::mem::replace(self.first.get_mut(), ptr::null_mut());
        while !next.is_null() {
            // SAFETY: from `Box::into_raw` in `register`, and owned by this list alone.
            let node = unsafe { Box::from_raw(next) };
            next = node.next;
        }
        self.with = AtomicCollectors::none();
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        self.remove();
    }
}

/// One range, registered with one collector until it is dropped.
enum Root {
    Lsan(Range<usize>),
    Added(Range<usize>),
    Asked(Range<usize>),
}

/// The number of ranges that were added to libgc's table, which has room for 2,048 or more.
static ADDED: AtomicUsize = AtomicUsize::new(0);
const MAX_ADDED: usize = 1024;

impl Root {
    fn with_lsan(range: Range<usize>) -> Option<Root> {
        let lsan = LSAN.get()?;
        // SAFETY: LeakSanitizer notes the range, and reads what of it is readable.
        unsafe { (lsan.register)(range.start as *const c_void, range.len()) };
        Some(Root::Lsan(range))
    }

    fn with_libgc(range: Range<usize>) -> Result<Option<Root>, Error> {
        let Some(libgc) = LIBGC.get() else { return Ok(None) };
        // SAFETY: a getter.
        let can_add = libgc.asks.as_ref().is_none_or(|it| unsafe { (it.is_initialised)() } != 0);
        if can_add {
            if ADDED.fetch_add(1, Ordering::Relaxed) < MAX_ADDED {
                // SAFETY: the range is readable until it is removed.
                unsafe { (libgc.add)(range.start as *mut c_void, range.end as *mut c_void) };
                return Ok(Some(Root::Added(range)));
            }
            ADDED.fetch_sub(1, Ordering::Relaxed);
        }
        match &libgc.asks {
            Some(asks) => Root::asked(asks, range).map(Some),
            None => {
                warn_of_too_many();
                Ok(None)
            }
        }
    }

    fn asked(asks: &Asks, range: Range<usize>) -> Result<Root, Error> {
        let refused = Cell::new(None);
        RANGES.write(|ranges| match ranges.try_room(1) {
            Ok(()) => {
                let at = ranges.partition_point(|it| it.start < range.start);
                ranges.insert(at, range.clone());
            }
            Err(error) => refused.set(Some(error)),
        });
        // One of the two copies of the table may have it even then.
        let root = Root::Asked(range);
        if let Some(error) = refused.into_inner() {
            return Err(error.into());
        }
        asks.install();
        Ok(root)
    }

    /// Takes it out of the table that libgc asks for.
    fn do_not_ask(&self) {
        if let Root::Asked(range) = self {
            RANGES.write(|ranges| {
                let from = ranges.partition_point(|it| it.start < range.start);
                if ranges.get(from).is_some_and(|it| it == range) {
                    ranges.remove(from);
                }
            });
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        match self {
            Root::Lsan(range) => {
                if let Some(lsan) = LSAN.get() {
                    // SAFETY: registered once, with this length.
                    unsafe { (lsan.unregister)(range.start as *const c_void, range.len()) };
                }
            }
            Root::Added(range) => {
                if let Some(libgc) = LIBGC.get() {
                    // SAFETY: libgc removes the roots that lie in the range: this one, if it has it.
                    unsafe { (libgc.remove)(range.start as *mut c_void, range.end as *mut c_void) };
                }
                ADDED.fetch_sub(1, Ordering::Relaxed);
            }
            Root::Asked(_) => self.do_not_ask(),
        }
    }
}

#[cold]
fn warn_of_too_many() {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if !IS_SAID.swap(true, Ordering::Relaxed) {
        logged!(
            warn,
            "this libgc has room for {MAX_ADDED} ranges of images' memory, and there are more: it may free \
             what only these point to. Use libgc 8 or newer"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_in_the_table_until_they_are_dropped() {
        let ranges = || RANGES.read(Vec::clone);
        let asked = |range: Range<usize>| {
            RANGES.write(|ranges| {
                let at = ranges.partition_point(|it| it.start < range.start);
                ranges.insert(at, range.clone());
            });
            Root::Asked(range)
        };
        let [a, b, again] = [8..16, 32..64, 8..16].map(asked);
        assert_eq!(ranges(), [8..16, 8..16, 32..64]);
        drop(a);
        assert_eq!(ranges(), [8..16, 32..64]);
        drop((b, again));
        assert_eq!(ranges(), []);
    }
}
