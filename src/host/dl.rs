//! Handles and errors of `dlopen`, and the folders that `ld.so` searches.
//!
//! Asks `ld.so` only: what a library defines is in [`crate::host::library`].
//!
//! Sources: `dlopen(3)`, `dlsym(3)`, `dlinfo(3)`, `dlerror(3)`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

/// The C library's `DT_SONAME`.
const LIBC: &CStr = c"libc.so.6";

/// The address of a function or a variable, by the global scope.
pub(crate) fn global_symbol(name: &CStr) -> Option<usize> {
    Handle::global_scope().symbol(name, None)
}

/// A handle of `dlopen`.
pub(crate) struct Handle(*mut c_void);

// SAFETY: `ld.so`'s handles may be used and closed by any thread.
unsafe impl Send for Handle {}
// SAFETY: as above; its functions lock what they need.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: a handle from `dlopen`, closed once.
        unsafe { libc::dlclose(self.0) };
    }
}

impl Handle {
    /// A library that the process has loaded already.
    pub(super) fn loaded(name: &CStr) -> Option<Handle> {
        // `ld.so` opens the file of this name to compare it with those that it has loaded. If it is a pipe,
        // `ld.so` would wait for a writer; and opening a device can change its state.
        let path = Path::new(OsStr::from_bytes(name.to_bytes()));
        if name.to_bytes().contains(&b'/') && path.metadata().is_ok_and(|file| !file.is_file()) {
            return None;
        }
        Handle::try_open(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD)
    }

    pub(super) fn open(name: &CStr, flags: c_int) -> Option<Handle> {
        // No file has such a name, and `ld.so` copies it to the stack.
        if name.count_bytes() >= libc::PATH_MAX as usize {
            return None;
        }
        // SAFETY: a C string. Opening may run constructors of system libraries, which the caller
        // allowed; with RTLD_NOLOAD it does not.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        (!handle.is_null()).then(|| Handle(handle))
    }

    /// As [`Handle::open`]. A failure leaves no error for `dlerror` to report to another caller.
    pub(super) fn try_open(name: &CStr, flags: c_int) -> Option<Handle> {
        let handle = Handle::open(name, flags);
        if handle.is_none() {
            forget_dl_error();
        }
        handle
    }

    /// The executable, whose scope is the global one.
    pub(super) fn global_scope() -> &'static Handle {
        static MAIN: OnceLock<Handle> = OnceLock::new();
        MAIN.get().unwrap_or_else(|| {
            // Before the static is locked: a child of a fork in between would wait for a thread that it lacks.
            // SAFETY: a null name asks for the executable.
            let handle = Handle(unsafe { libc::dlopen(ptr::null(), libc::RTLD_LAZY) });
            MAIN.get_or_init(|| handle)
        })
    }

    /// `dlsym` or `dlvsym`. A missing symbol and one at address 0 are both `None`.
    pub(super) fn symbol(&self, name: &CStr, version: Option<&CStr>) -> Option<usize> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: an open handle and C strings.
        let address = unsafe {
            match version {
                Some(version) => libc::dlvsym(self.0, name.as_ptr(), version.as_ptr()),
                None => libc::dlsym(self.0, name.as_ptr()),
            }
        };
        if address.is_null() {
            forget_dl_error();
        }
        (!address.is_null()).then_some(address.addr())
    }

    /// The head of glibc's `struct link_map` of this library: load bias and name.
    pub(super) fn link_map(&self) -> Option<(usize, CString)> {
        #[repr(C)]
        struct LinkMap {
            l_addr: usize,
            l_name: *const c_char,
        }
        const RTLD_DI_LINKMAP: c_int = 2;
        let mut map: *const LinkMap = ptr::null();
        // SAFETY: an open handle; the request writes one pointer. The map and its name live as
        // long as the library, which the handle keeps.
        unsafe {
            if libc::dlinfo(self.0, RTLD_DI_LINKMAP, (&raw mut map).cast()) != 0 || map.is_null() {
                return None;
            }
            Some(((*map).l_addr, CStr::from_ptr((*map).l_name).to_owned()))
        }
    }
}

/// Discards the error that `dlerror` would report next in this thread.
fn forget_dl_error() {
    // SAFETY: no preconditions; the text is not read.
    unsafe { libc::dlerror() };
}

/// The last error of `dlopen` in this thread.
pub(super) fn last_dl_error() -> Option<String> {
    // SAFETY: returns null or a C string that is valid until the next call in this thread.
    unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// Whether a library that `ld.so` loaded, or the executable, is mapped at this address.
pub(crate) fn has_address(address: usize) -> bool {
    // SAFETY: `Dl_info` is plain data that `dladdr` fills in; it accepts any address.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        libc::dladdr(address as *const c_void, &mut info) != 0
    }
}

/// Whether this is the handle that `dlopen(NULL)` gives.
pub(crate) fn is_executable(handle: *mut c_void) -> bool {
    handle == Handle::global_scope().0
}

/// The folders that are built into `ld.so`, as it lists them for the C library: behind `skip` others, the
/// executable's `DT_RPATH` and `LD_LIBRARY_PATH`.
pub(super) fn built_in_folders(skip: usize) -> Vec<PathBuf> {
    let Some(library) = Handle::loaded(LIBC) else { return Vec::new() };
    let mut folders = search_list(library.0);
    folders.drain(..skip.min(folders.len()));
    folders
}

/// The folders in which `ld.so` searches for what the library at this address opens; the cache is not among
/// them. `None` if `ld.so` has no library there.
#[cfg(feature = "internals")]
pub(crate) fn folders_of(address: usize) -> Option<Vec<PathBuf>> {
    use crate::host::process::{RTLD_DL_LINKMAP, dladdr1};
    let mut map: *mut c_void = ptr::null_mut();
    // SAFETY: `Dl_info` is plain data. Both can be written to; the request writes one pointer.
    let is_found = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        dladdr1(address as *const c_void, &mut info, &raw mut map, RTLD_DL_LINKMAP) != 0
    };
    // A handle of `ld.so` is the address of the library's link map.
    (is_found && !map.is_null()).then(|| search_list(map))
}

/// Requests of `dlinfo` (`<dlfcn.h>`).
pub(crate) const RTLD_DI_SERINFO: c_int = 4;
pub(crate) const RTLD_DI_SERINFOSIZE: c_int = 5;

/// `Dl_serinfo` (`<dlfcn.h>`), up to its array of [`SearchFolder`]s.
#[repr(C)]
pub(crate) struct SearchInfo {
    pub dls_size: usize,
    pub dls_cnt: c_uint,
}

/// `Dl_serpath`.
#[repr(C)]
pub(crate) struct SearchFolder {
    pub dls_name: *mut c_char,
    pub dls_flags: c_uint,
}

/// The folders in which `ld.so` searches for what the library of this open handle needs, in order.
fn search_list(handle: *mut c_void) -> Vec<PathBuf> {
    let mut size = SearchInfo { dls_size: 0, dls_cnt: 0 };
    // SAFETY: an open handle. The first request fills the size in, the second a buffer of that size, which
    // begins with the size. Names point into the same buffer, or to strings of `ld.so`.
    unsafe {
        if libc::dlinfo(handle, RTLD_DI_SERINFOSIZE, (&raw mut size).cast()) != 0 {
            return Vec::new();
        }
        let mut buffer = vec![0u64; size.dls_size.div_ceil(8)];
        let info = buffer.as_mut_ptr().cast::<SearchInfo>();
        info.write(SearchInfo { dls_size: size.dls_size, dls_cnt: size.dls_cnt });
        if libc::dlinfo(handle, RTLD_DI_SERINFO, info.cast()) != 0 {
            return Vec::new();
        }
        let paths = info.add(1).cast::<SearchFolder>();
        let names = (0..(*info).dls_cnt as usize).map(|index| (*paths.add(index)).dls_name);
        names
            .map(|name| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())))
            .collect()
    }
}
