//! Opening and looking up from inside an image: `dlopen`, `dlsym`, `dlvsym`, `dlclose`, `dlerror`.
//!
//! Handles of `ld.so`'s pass through. What differs for an image:
//!
//! * `RTLD_DEFAULT` and `RTLD_NEXT` mean the scope of the caller, which is told by its return
//!   address; `ld.so` would take the address for one that is in no library.
//! * A library that the system's loader finds but cannot bind, since it needs symbols of the very
//!   image that opens it (an extension module of an interpreter that runs from memory), is read
//!   and loaded here, with that image before everything else in its scope.
//!
//! Sources: `dlopen(3)`, `dlsym(3)`; POSIX.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arch;
use crate::group::{self, Group, Provider};
use crate::host::GlobalScope;
use crate::image::Bytes;
use crate::library::Library;
use crate::lookup;
use crate::prepare::Settings;
use crate::symbol::{Class, SymbolName, Version, Wanted};

/// A library that was opened here.
struct Opened {
    library: Library,
    /// By whom, and under which path: opening it again gives the same.
    caller: *const Group,
    path: CString,
    count: usize,
}

// SAFETY: `caller` is only compared.
unsafe impl Send for Opened {}

/// By handle.
static OPENED: Mutex<BTreeMap<usize, Opened>> = Mutex::new(BTreeMap::new());

fn opened() -> MutexGuard<'static, BTreeMap<usize, Opened>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// What `dlerror` will say, where that is not the C library's to tell; and what it said last.
    static ERROR: RefCell<(Option<CString>, CString)> = RefCell::default();
}

fn fail(text: impl Into<Vec<u8>>) -> *mut c_void {
    let text = CString::new(text).unwrap_or_default();
    ERROR.with_borrow_mut(|error| error.0 = Some(text));
    ptr::null_mut()
}

/// `dlerror`.
pub(super) extern "C" fn dlerror() -> *mut c_char {
    let ours = ERROR.with_borrow_mut(|error| {
        error.1 = error.0.take()?;
        Some(error.1.as_ptr().cast_mut())
    });
    // SAFETY: no preconditions.
    ours.unwrap_or_else(|| unsafe { libc::dlerror() })
}

arch::with_return_address! {
    /// `dlopen`, and who called it.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlopen(path: *const c_char, flags: c_int) => dlopen_for;
}

/// # Safety
/// `path` is null or a C string. Runs the library's constructors.
unsafe extern "C-unwind" fn dlopen_for(
    path: *const c_char,
    flags: c_int,
    caller: usize,
) -> *mut c_void {
    if path.is_null() {
        // SAFETY: null asks for the executable.
        return unsafe { libc::dlopen(path, flags) };
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(path) };
    let caller = group::image_at(caller);
    if let Some((group, _)) = &caller
        && let Some(handle) = open_again(group, name)
    {
        return handle;
    }
    // Bound at once, so that what cannot be bound is found out here.
    let flags = if caller.is_some() { flags & !libc::RTLD_LAZY | libc::RTLD_NOW } else { flags };
    // SAFETY: the caller's promise, passed on.
    let handle = unsafe { libc::dlopen(path, flags) };
    let Some(caller) = caller.filter(|_| handle.is_null() && flags & libc::RTLD_NOLOAD == 0) else {
        return handle;
    };
    // SAFETY: there is an error, whose text is valid until the next call in this thread.
    let refusal = unsafe { CStr::from_ptr(libc::dlerror()).to_owned() };
    if !name.to_bytes().contains(&b'/') {
        return fail(refusal);
    }
    let Ok(bytes) = std::fs::read(Path::new(OsStr::from_bytes(name.to_bytes()))) else {
        return fail(refusal);
    };
    let group = Arc::as_ptr(&caller.0);
    let settings = Settings {
        name: Some(name.to_string_lossy().into()),
        global: flags & libc::RTLD_GLOBAL != 0,
        system_libraries: true,
        enclosing: Some(caller),
        ..Settings::new(super::replacement)
    };
    let library = match settings.prepare(Bytes::Borrowed(&bytes)) {
        // SAFETY: the caller's promise: it wants the library's constructors run.
        Ok(prepared) => unsafe { Library::only(prepared) },
        Err(error) => Err(error),
    };
    match library {
        Ok(library) => {
            let handle = Arc::as_ptr(library.group()).addr();
            let path = name.to_owned();
            opened().insert(handle, Opened { library, caller: group, path, count: 1 });
            handle as *mut c_void
        }
        Err(error) => fail(format!("{}; {error}", refusal.to_string_lossy())),
    }
}

/// The handle of what this caller has opened under this path before.
fn open_again(caller: &Arc<Group>, path: &CStr) -> Option<*mut c_void> {
    let mut opened = opened();
    let caller = Arc::as_ptr(caller);
    let same = |opened: &&mut Opened| opened.caller == caller && *opened.path == *path;
    let (handle, opened) = opened
        .iter_mut()
        .map(|(handle, opened)| (*handle, opened))
        .find(|(_, opened)| same(opened))?;
    opened.count += 1;
    Some(handle as *mut c_void)
}

/// `dlclose`.
///
/// # Safety
/// As the C library's function. Runs the library's destructors if nobody else has it open.
pub(super) unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    let closed = {
        let mut opened = opened();
        let Some(entry) = opened.get_mut(&handle.addr()) else {
            drop(opened);
            // SAFETY: the caller's promise, passed on.
            return unsafe { libc::dlclose(handle) };
        };
        entry.count -= 1;
        if entry.count == 0 { opened.remove(&handle.addr()) } else { None }
    };
    // Its destructors may open and close: the lock is free again.
    drop(closed.map(|opened| opened.library));
    0
}

arch::with_return_address! {
    /// `dlsym`, and who called it.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlsym(handle: *mut c_void, name: *const c_char) => dlsym_for;
}

/// # Safety
/// `handle` is one that `dlopen` gave, or one of the two that mean a scope; `name` is a C string.
unsafe extern "C-unwind" fn dlsym_for(
    handle: *mut c_void,
    name: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    let symbol = unsafe { CStr::from_ptr(name) };
    find(handle, symbol, None, caller).unwrap_or_else(|| {
        // SAFETY: the caller's promise, passed on.
        unsafe { libc::dlsym(handle, name) }
    })
}

arch::with_return_address! {
    /// `dlvsym`, and who called it.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlvsym(
        handle: *mut c_void,
        name: *const c_char,
        version: *const c_char
    ) => dlvsym_for;
}

/// # Safety
/// As [`dlsym_for`]; `version` is a C string.
unsafe extern "C-unwind" fn dlvsym_for(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    let (symbol, wanted) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(version)) };
    find(handle, symbol, Some(wanted), caller).unwrap_or_else(|| {
        // SAFETY: the caller's promise, passed on.
        unsafe { libc::dlvsym(handle, name, version) }
    })
}

/// What a look-up gives that is not the C library's alone: null (and a text for `dlerror`) if
/// nothing is found; `None` if it is the C library's.
fn find(
    handle: *mut c_void,
    name: &CStr,
    version: Option<&CStr>,
    caller: usize,
) -> Option<*mut c_void> {
    let symbol = SymbolName::new(name.to_bytes());
    let wanted =
        version.map_or(Wanted::Default, |it| Wanted::Version(Version::exact(it.to_bytes())));
    let not_found = || {
        let version = version.map_or(String::new(), |it| format!("@{}", it.to_string_lossy()));
        fail(format!("undefined symbol: {}{version}", name.to_string_lossy()))
    };
    let in_global = || {
        let found = GlobalScope::new().lookup(&symbol, wanted, Class::Address)?;
        if let Some(service) = super::replacement(name.to_bytes()) {
            return Some(service as *mut c_void);
        }
        // SAFETY: a value of a symbol of a library in the global scope, as `dlsym` would give it.
        Some(unsafe { lookup::address_of(found.symbol.definition) })
    };
    if handle == libc::RTLD_DEFAULT || handle == libc::RTLD_NEXT {
        let (group, index) = group::image_at(caller)?;
        let list = lookup::searchlist(Provider::Loaded(group.clone(), 0));
        let found = if handle == libc::RTLD_NEXT {
            let is_caller = |it: &Provider| it.is(&Provider::Loaded(group.clone(), index));
            let after = list.iter().position(is_caller).map_or(0, |position| position + 1);
            lookup::in_list(&list[after..], &symbol, wanted).or_else(in_global)
        } else {
            let images = group::global_images().into_iter();
            let images: Vec<_> =
                images.map(|(group, index)| Provider::Loaded(group, index)).collect();
            in_global()
                .or_else(|| lookup::in_list(&images, &symbol, wanted))
                .or_else(|| lookup::in_list(&list, &symbol, wanted))
        };
        return Some(found.unwrap_or_else(not_found));
    }
    let group = opened().get(&handle.addr())?.library.group().clone();
    Some(lookup::in_library(&group, 0, &symbol, wanted).unwrap_or_else(not_found))
}
