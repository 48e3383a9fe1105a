//! Opening and looking up from inside an image: `dlopen`, `dlsym`, `dlvsym`, `dlclose`, `dlerror`,
//! `dlinfo`.
//!
//! Handles of `ld.so`'s pass through. What differs for an image:
//!
//! * `RTLD_DEFAULT` and `RTLD_NEXT` mean the scope of the caller, which is told by its return
//!   address; `ld.so` would take the address for one that is in no library.
//! * An image is found under its own name, and under the names of those that it needs.
//! * A library that the system's loader finds but cannot bind, since it needs symbols of the very
//!   image that opens it (an extension module of an interpreter that runs from memory), is read
//!   and loaded here, with that image before everything else in its scope.
//!
//! Sources: `dlopen(3)`, `dlsym(3)`; POSIX.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use crate::arch;
use crate::debug::Instances;
use crate::error::Error;
use crate::escape::Escaped;
use crate::fallible::{has_headroom, headroom, lossy, try_c_string, try_collect, try_format};
use crate::group::{self, Group, Provider};
use crate::handles::{self, FileId};
use crate::host::{self, GlobalScope};
use crate::image::Bytes;
use crate::library::Library;
use crate::link_map::LinkMap;
use crate::lookup;
use crate::prepare::Settings;
use crate::promise::MayRun;
use crate::symbol::{Class, SymbolName, Version, Wanted};
use crate::tls::TlsModule;

thread_local! {
    /// What `dlerror` will say, where that is not the C library's to tell; and what it said last.
    static ERROR: RefCell<(Option<Text>, Text)> =
        const { RefCell::new((None, Cow::Borrowed(c""))) };
}

type Text = Cow<'static, CStr>;

/// What `dlerror` says where there is no memory to say what it was.
const NO_MEMORY: &CStr = c"out of memory";

fn fail(text: impl Display) -> *mut c_void {
    let text = try_format(format_args!("{}", Escaped(text)));
    let text = match text.and_then(|text| try_c_string(text.as_bytes())) {
        Ok(text) => Cow::Owned(text.unwrap_or_default()),
        Err(_) => Cow::Borrowed(NO_MEMORY),
    };
    ERROR.with_borrow_mut(|error| error.0 = Some(text));
    ptr::null_mut()
}

fn no_memory() -> *mut c_void {
    ERROR.with_borrow_mut(|error| error.0 = Some(Cow::Borrowed(NO_MEMORY)));
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
    if caller.is_some() && !has_headroom() {
        return no_memory();
    }
    let file = FileId::of(name);
    if let Some(caller) = &caller {
        if let Some(handle) = handles::open_again(caller, file) {
            return handle;
        }
        match open_image(caller, name) {
            Ok(None) => {}
            Ok(Some(handle)) => return handle,
            Err(_) => return no_memory(),
        }
    }
    let Some(caller) = caller else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::dlopen(path, flags) };
    };
    // SAFETY: the caller's promise. What is loaded already is not loaded again, by anyone.
    let handle = unsafe { libc::dlopen(path, flags | libc::RTLD_NOLOAD) };
    if !handle.is_null() || flags & libc::RTLD_NOLOAD != 0 {
        return handle;
    }
    let is_path = name.to_bytes().contains(&b'/');
    let path_of_file = Path::new(OsStr::from_bytes(name.to_bytes()));
    let bytes = if is_path { std::fs::read(path_of_file).ok() } else { None };
    let settings = Settings {
        name: Some(name.to_string_lossy().into()),
        global: flags & libc::RTLD_GLOBAL != 0,
        lazy: flags & libc::RTLD_LAZY != 0,
        system_libraries: true,
        enclosing: Some(caller.clone()),
        // Whoever made the caller visible, or not, would have this one the same way.
        debug: caller.0.member(caller.1).debug.debug(),
        ..Settings::new(super::replacement)
    };
    // If it names the very image that opens it, `ld.so` would look for another one.
    let is_ours = bytes.as_ref().map_or(Ok(false), |bytes| settings.needs_enclosing(bytes));
    let Ok(is_ours) = is_ours else { return no_memory() };
    let refusal = if is_ours {
        CString::default()
    } else {
        // Bound at once, so that what cannot be bound is found out here.
        let now = flags & !libc::RTLD_LAZY | libc::RTLD_NOW;
        // SAFETY: the caller's promise, passed on.
        let handle = unsafe { libc::dlopen(path, now) };
        if !handle.is_null() {
            return handle;
        }
        // SAFETY: there is an error, whose text is valid until the next call in this thread.
        unsafe { CStr::from_ptr(libc::dlerror()).to_owned() }
    };
    let Some(bytes) = bytes else { return fail(refusal.to_string_lossy()) };
    // SAFETY: the caller's promise: it wants the library's constructors run.
    let may_run = unsafe { MayRun::promised() };
    let library = match settings.prepare(Bytes::Borrowed(&bytes), Instances::One, Some(may_run)) {
        // SAFETY: as above.
        Ok(prepared) => unsafe { Library::only(prepared) },
        Err(error) => Err(error),
    };
    match library {
        Ok(library) => {
            let handle = handles::open(&caller, file, library.group().clone(), 0);
            handle.unwrap_or_else(|_| no_memory())
        }
        Err(error) => fail(format_args!("{}; {error}", refusal.to_string_lossy())),
    }
}

/// The handle of an image of this name that the caller sees.
fn open_image(caller: &(Arc<Group>, usize), name: &CStr) -> Result<Option<*mut c_void>, Error> {
    let images = lookup::images_in_scope(&caller.0)?.into_iter().chain(group::global_images()?);
    let is_it =
        |(group, index): &(Arc<Group>, usize)| group.member(*index).is_called(name.to_bytes());
    let Some((group, index)) = { images }.find(is_it) else { return Ok(None) };
    handles::open(caller, None, group, index).map(Some)
}

/// `dlclose`.
///
/// # Safety
/// As the C library's function. Runs the library's destructors if nobody else has it open.
pub(super) unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    match handles::close(handle) {
        // Its destructors may open and close: no lock is held.
        Some(closed) => drop(closed),
        // SAFETY: the caller's promise, passed on.
        None => return unsafe { libc::dlclose(handle) },
    }
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
    let found = find(handle, symbol, None, caller).unwrap_or_else(|_| Some(no_memory()));
    found.unwrap_or_else(|| {
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
    let found = find(handle, symbol, Some(wanted), caller).unwrap_or_else(|_| Some(no_memory()));
    found.unwrap_or_else(|| {
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
) -> Result<Option<*mut c_void>, Error> {
    let symbol = SymbolName::new(name.to_bytes());
    let wanted =
        version.map_or(Wanted::Default, |it| Wanted::Version(Version::exact(it.to_bytes())));
    let not_found = || {
        let at = if version.is_some() { "@" } else { "" };
        let version = version.map_or(Cow::Borrowed(""), |it| lossy(it.to_bytes()));
        fail(format_args!("undefined symbol: {}{at}{version}", lossy(name.to_bytes())))
    };
    let in_global = || {
        let scope = GlobalScope::new()?;
        let found = scope.lookup(&symbol, wanted, Class::Address);
        scope.check_memory()?;
        let Some(found) = found else { return Ok(None) };
        if let Some(service) = super::replacement(name.to_bytes()) {
            return Ok(Some(service as *mut c_void));
        }
        // SAFETY: a value of a symbol of a library in the global scope, as `dlsym` would give it.
        unsafe { lookup::address_of(found.symbol.definition) }.map(Some)
    };
    let in_global_images = || {
        let images = group::global_images()?.into_iter();
        let images = images.map(|(group, index)| Provider::Loaded(group, index));
        lookup::in_list(&try_collect(images)?, &symbol, wanted)
    };
    if host::is_executable(handle) {
        headroom()?;
        let found = or_else(in_global()?, in_global_images)?;
        return Ok(Some(found.unwrap_or_else(not_found)));
    }
    if handle == libc::RTLD_DEFAULT || handle == libc::RTLD_NEXT {
        let Some((group, index)) = group::image_at(caller) else { return Ok(None) };
        headroom()?;
        let list = lookup::scope(&group)?;
        let found = if handle == libc::RTLD_NEXT {
            let is_caller = |it: &Provider| it.is(&Provider::Loaded(group.clone(), index));
            let after = list.iter().position(is_caller).map_or(0, |position| position + 1);
            let after = list.get(after..).unwrap_or_default();
            or_else(lookup::in_list(after, &symbol, wanted)?, in_global)?
        } else {
            let in_scope = || lookup::in_list(&list, &symbol, wanted);
            or_else(or_else(in_global()?, in_global_images)?, in_scope)?
        };
        return Ok(Some(found.unwrap_or_else(not_found)));
    }
    let Some((group, index)) = handles::image(handle) else { return Ok(None) };
    let found = lookup::in_library(&group, index, &symbol, wanted)?;
    Ok(Some(found.unwrap_or_else(not_found)))
}

/// As `Option::or_else`, of what can fail.
fn or_else<T>(
    found: Option<T>,
    otherwise: impl FnOnce() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if found.is_some() { Ok(found) } else { otherwise() }
}

/// `dlinfo`.
///
/// # Safety
/// As the C library's function: `info` points to what `request` writes.
pub(super) unsafe extern "C" fn dlinfo(
    handle: *mut c_void,
    request: c_int,
    info: *mut c_void,
) -> c_int {
    const RTLD_DI_LMID: c_int = 1;
    const RTLD_DI_LINKMAP: c_int = 2;
    const RTLD_DI_TLS_MODID: c_int = 9;
    const RTLD_DI_TLS_DATA: c_int = 10;
    let Some((group, index)) = handles::image(handle) else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::dlinfo(handle, request, info) };
    };
    let loaded = group.member(index);
    let module = loaded.tls.as_ref().map(TlsModule::id);
    // SAFETY: the caller's promise. The map lives as long as the image; the image is in place, and
    // offset 0 is in every block.
    unsafe {
        match request {
            RTLD_DI_LMID => info.cast::<libc::c_long>().write(0),
            RTLD_DI_LINKMAP => info.cast::<*const LinkMap>().write(&*loaded.link_map),
            RTLD_DI_TLS_MODID => info.cast::<usize>().write(module.map_or(0, |module| module.0)),
            RTLD_DI_TLS_DATA => {
                // Null is what the C library says of a thread that has none.
                let block = module.and_then(|module| module.try_address(0).ok());
                let block = block.unwrap_or(ptr::null_mut());
                info.cast::<*mut c_void>().write(block);
            }
            _ => {
                fail(format_args!("dlinfo: request {request} is not known for an image in memory"));
                return -1;
            }
        }
    }
    0
}
