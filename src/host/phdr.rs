//! The list of loaded libraries that `dl_iterate_phdr` gives, and its change counter.
//!
//! Reads program headers only. Symbols are in [`crate::host::library`]. Holds no library: while the list is
//! walked `ld.so` keeps all of them; afterwards an entry may be outdated.
//!
//! Source: `dl_iterate_phdr(3)`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_vec};
use crate::elf::constants::{PF_R, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_LOAD};
use crate::host::process;

/// One entry of `dl_iterate_phdr`'s list.
#[derive(Clone)]
pub(super) struct PhdrEntry {
    pub name: CString,
    pub load_bias: usize,
    pub readable: Vec<Range<Vaddr>>,
    pub dynamic: Option<Range<Vaddr>>,
    pub relro: Range<usize>,
    pub eh_frame_hdr: Option<Range<Vaddr>>,
    pub tls_module: usize,
}

impl PhdrEntry {
    /// # Safety
    /// The record's name and program headers can be read.
    unsafe fn new(info: &libc::dl_phdr_info) -> PhdrEntry {
        let mut entry = PhdrEntry {
            // SAFETY: the caller's promise.
            name: unsafe { CStr::from_ptr(info.dlpi_name) }.to_owned(),
            load_bias: info.dlpi_addr as usize,
            // Linkers make four segments, which are all readable.
            readable: Vec::with_capacity(4),
            dynamic: None,
            relro: 0..0,
            eh_frame_hdr: None,
            tls_module: info.dlpi_tls_modid,
        };
        if !info.dlpi_phdr.is_null() {
            // SAFETY: as above.
            let headers =
                unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            for header in headers {
                let range = Vaddr(header.p_vaddr).range(header.p_memsz);
                match header.p_type {
                    PT_LOAD if header.p_flags & PF_R != 0 => entry.readable.extend(range),
                    PT_DYNAMIC => entry.dynamic = range,
                    PT_GNU_EH_FRAME => entry.eh_frame_hdr = range,
                    PT_GNU_RELRO => {
                        let start = entry.load_bias.wrapping_add(header.p_vaddr as usize);
                        entry.relro = start..start.wrapping_add(header.p_memsz as usize);
                    }
                    _ => {}
                }
            }
        }
        entry
    }

    /// Whether it came from a file. The executable has no name, and the kernel's vdso, which is not
    /// searched, has no path.
    pub(super) fn has_path(&self) -> bool {
        self.name.to_bytes().contains(&b'/')
    }
}

/// All libraries of the process, in `ld.so`'s order.
pub(super) fn listed() -> Result<Vec<PhdrEntry>, Error> {
    listed_if(&mut |_| Ok(true))
}

/// Selects entries of the list.
pub(super) type Filter<'a> = dyn FnMut(&PhdrEntry) -> Result<bool, Error> + 'a;

/// The entries that `keep` selects. It must not call `ld.so`, which holds the lock of its list.
pub(super) fn listed_if(keep: &mut Filter<'_>) -> Result<Vec<PhdrEntry>, Error> {
    struct Visit<'a, 'b> {
        keep: &'a mut Filter<'b>,
        list: Vec<PhdrEntry>,
        seen: usize,
        done: Result<(), Error>,
    }
    impl Visit<'_, '_> {
        /// # Safety
        /// The record is valid during the call.
        unsafe fn add(&mut self, info: &libc::dl_phdr_info) -> Result<(), Error> {
            // The list can be long.
            require_memory_for_next(self.seen)?;
            self.seen = self.seen.saturating_add(1);
            // SAFETY: the caller's promise.
            let listed = unsafe { PhdrEntry::new(info) };
            if (self.keep)(&listed)? { Ok(self.list.try_push(listed)?) } else { Ok(()) }
        }
    }
    unsafe extern "C" fn add(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        visit: *mut c_void,
    ) -> c_int {
        // SAFETY: `dl_iterate_phdr` gives a valid record, whose name and program headers live
        // during the call; `visit` is the local below, which nothing else uses meanwhile.
        unsafe {
            let visit = &mut *visit.cast::<Visit<'_, '_>>();
            visit.done = visit.add(&*info);
            c_int::from(visit.done.is_err())
        }
    }
    // Few programs start with more libraries.
    let mut visit = Visit { keep, list: try_vec(8)?, seen: 0, done: Ok(()) };
    // SAFETY: the callback has the required signature and does not unwind.
    unsafe { process::visit_libraries(add, (&raw mut visit).cast()) };
    visit.done.map(|()| visit.list)
}

/// The number of libraries that `ld.so` has loaded so far.
pub(crate) fn loads() -> u64 {
    let loads = Changes::now().loads;
    COUNTED.fetch_max(loads, Ordering::Relaxed);
    loads
}

/// The highest result of [`loads`] so far, which costs nothing to ask for.
pub(super) fn loads_at_last_count() -> u64 {
    COUNTED.load(Ordering::Relaxed)
}

static COUNTED: AtomicU64 = AtomicU64::new(0);

/// The number of libraries that `ld.so` has unloaded so far.
pub(crate) fn unloads() -> u64 {
    Changes::now().unloads
}

/// The number of changes of `ld.so`'s list of libraries.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Changes {
    loads: u64,
    unloads: u64,
}

impl Changes {
    pub(super) fn now() -> Changes {
        unsafe extern "C" fn first(
            info: *mut libc::dl_phdr_info,
            _: usize,
            changes: *mut c_void,
        ) -> c_int {
            // SAFETY: a valid record during the call, and the local below.
            unsafe {
                let (loads, unloads) = ((*info).dlpi_adds, (*info).dlpi_subs);
                *changes.cast::<Changes>() = Changes { loads, unloads };
            }
            1
        }
        let mut changes = Changes::default();
        // SAFETY: the callback has the required signature and does not unwind.
        unsafe { process::visit_libraries(first, (&raw mut changes).cast()) };
        changes
    }
}
