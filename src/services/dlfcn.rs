//! `dlsym`, `dlvsym` and `dlerror`, for callers in images.
//!
//! Handles of `ld.so` pass through. For an image, `RTLD_DEFAULT` and `RTLD_NEXT` mean the scope of the caller,
//! which is found by the return address; to `ld.so` that address lies in no library.
//!
//! Sources: `dlsym(3)`; POSIX.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt::Display;
use std::ptr::{self, NonNull};

use crate::arch;
use crate::base::error::Error;
use crate::base::escape::Escaped;
use crate::base::fallible::{lossy, require_memory, try_c_string, try_format};
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::symbol::SymbolName;
use crate::elf::versions::Version;
use crate::host::dl;
use crate::host::global_scope::GlobalScope;
use crate::host::library::Resolvers;
use crate::images::dl_handles;
use crate::images::dlsym;
use crate::images::group::{ImageRef, Provider};
use crate::images::named;
use crate::images::policy;
use crate::images::policy::SymbolRequest;
use crate::images::registry;

thread_local! {
    static ERROR: RefCell<Texts> = const { RefCell::new(Texts { next: Text(None), last: Text(None) }) };
}

/// The text that `dlerror` returns next, unless the C library has one, and the last text. They are thin pointers:
/// each byte of a thread-local variable is one of static thread-local storage, of which `dlopen` has little.
struct Texts {
    next: Text,
    last: Text,
}

/// A text that is owned, or [`NO_MEMORY`].
struct Text(Option<NonNull<c_char>>);

impl Text {
    fn owned(text: CString) -> Text {
        Text(NonNull::new(text.into_raw()))
    }

    fn no_memory() -> Text {
        Text(NonNull::new(NO_MEMORY.as_ptr().cast_mut()))
    }

    fn take(&mut self) -> Text {
        Text(self.0.take())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Some(text) = self.0.filter(|text| text.as_ptr().cast_const() != NO_MEMORY.as_ptr()) {
            // SAFETY: from `CString::into_raw` in `owned`, and freed once.
            drop(unsafe { CString::from_raw(text.as_ptr()) });
        }
    }
}

/// The text of `dlerror` where there is no memory for another. One object, since its address is compared.
static NO_MEMORY: &CStr = c"out of memory";

/// Does nothing while the thread ends, once its thread-local variables are gone: destructors call `dlclose`.
fn set_error(text: Text) {
    // The former text is freed once nothing is borrowed.
    drop(ERROR.try_with(|error| std::mem::replace(&mut error.borrow_mut().next, text)));
}

pub(super) fn fail(text: impl Display) -> *mut c_void {
    let text = try_format(format_args!("{}", Escaped(text)));
    set_error(match text.and_then(|text| try_c_string(text.as_bytes())) {
        Ok(text) => Text::owned(text.unwrap_or_default()),
        Err(_) => Text::no_memory(),
    });
    ptr::null_mut()
}

pub(super) fn no_memory() -> *mut c_void {
    set_error(Text::no_memory());
    ptr::null_mut()
}

/// Discards the error that `dlerror` would report next, memdl's or the C library's: each call replaces what the
/// call before it left, whoever answers it.
pub(super) fn forget_error() {
    set_error(Text(None));
    // SAFETY: no preconditions.
    unsafe { libc::dlerror() };
}

/// `dlerror`.
pub(super) extern "C" fn dlerror() -> *mut c_char {
    let ours = ERROR.try_with(|error| {
        let texts = &mut *error.borrow_mut();
        let next = texts.next.0?;
        texts.last = texts.next.take();
        Some(next.as_ptr())
    });
    // SAFETY: no preconditions.
    ours.ok().flatten().unwrap_or_else(|| unsafe { libc::dlerror() })
}

arch::with_return_address! {
    /// `dlsym`, with its return address.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlsym(handle: *mut c_void, name: *const c_char) => dlsym_for;
}

arch::with_return_address! {
    /// `dlsym` for images that may not use every symbol of the host.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlsym_restricted(
        handle: *mut c_void,
        name: *const c_char
    ) => dlsym_restricted_for;
}

arch::with_return_address! {
    /// `dlvsym`, with its return address.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlvsym(
        handle: *mut c_void,
        name: *const c_char,
        version: *const c_char
    ) => dlvsym_for;
}

arch::with_return_address! {
    /// `dlvsym` for images that may not use every symbol of the host.
    ///
    /// # Safety
    /// As the C library's function.
    pub(super) fn dlvsym_restricted(
        handle: *mut c_void,
        name: *const c_char,
        version: *const c_char
    ) => dlvsym_restricted_for;
}

/// # Safety
/// `handle` is one that `dlopen` gave, or one of the two that mean a scope; `name` is a C string.
pub(super) unsafe extern "C-unwind" fn dlsym_for(
    handle: *mut c_void,
    name: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { Lookup::new(handle, name, ptr::null(), caller, false).answer() }
}

/// # Safety
/// As [`dlsym_for`].
unsafe extern "C-unwind" fn dlsym_restricted_for(
    handle: *mut c_void,
    name: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { Lookup::new(handle, name, ptr::null(), caller, true).answer() }
}

/// # Safety
/// As [`dlsym_for`]; `version` is a C string.
pub(super) unsafe extern "C-unwind" fn dlvsym_for(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { Lookup::new(handle, name, version, caller, false).answer() }
}

/// # Safety
/// As [`dlvsym_for`].
unsafe extern "C-unwind" fn dlvsym_restricted_for(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { Lookup::new(handle, name, version, caller, true).answer() }
}

/// A call of `dlsym` or `dlvsym`.
struct Lookup<'a> {
    handle: *mut c_void,
    name: &'a CStr,
    version: Option<&'a CStr>,
    symbol: SymbolName<'a>,
    wanted: VersionMatch<'a>,
    /// The image that the call returns to. For a tail call that is the caller's caller.
    caller: Option<ImageRef>,
    /// The caller may not use every symbol of the host.
    restricted: bool,
    /// Whether it may use the host's symbol of this name, once that is known.
    allowed: OnceCell<bool>,
}

impl<'a> Lookup<'a> {
    /// # Safety
    /// `name` is a C string, `version` null or one.
    unsafe fn new(
        handle: *mut c_void,
        name: *const c_char,
        version: *const c_char,
        caller: usize,
        restricted: bool,
    ) -> Lookup<'a> {
        // SAFETY: the caller's promise.
        let (name, version) = unsafe {
            (CStr::from_ptr(name), (!version.is_null()).then(|| CStr::from_ptr(version)))
        };
        let wanted = version.map_or(VersionMatch::Default, |it| {
            VersionMatch::Version(Version::exact(it.to_bytes()))
        });
        let symbol = SymbolName::new(name.to_bytes());
        let caller = registry::image_at(caller);
        Lookup {
            handle,
            name,
            version,
            symbol,
            wanted,
            caller,
            restricted,
            allowed: OnceCell::new(),
        }
    }

    /// Whether the symbol of the host may be used. Called only if the host has one.
    fn may_use_host(&self) -> bool {
        *self.allowed.get_or_init(|| {
            if !self.restricted {
                return true;
            }
            let (name, version) =
                (lossy(self.name.to_bytes()), self.version.map(|it| lossy(it.to_bytes())));
            let request = |requested_by| SymbolRequest {
                name: &name,
                version: version.as_deref(),
                weak: false,
                requested_by,
            };
            match &self.caller {
                Some(caller) if caller.group().policy().is_restricted() => {
                    let image = caller.image();
                    image.of_system
                        || policy::allows_without_panic(
                            &caller.group().policy().imports,
                            &request(&image.name),
                        )
                }
                // The caller is some restricted image, which one is unknown.
                _ => policy::all_allow(&request("an image")),
            }
        })
    }

    /// The address; or null, and a text for `dlerror`.
    ///
    /// # Safety
    /// `handle` is one that `dlopen` gave, or one of the two that mean a scope.
    unsafe fn answer(&self) -> *mut c_void {
        forget_error();
        match self.in_images_and_global() {
            Ok(Some(found)) => return found.unwrap_or_else(|| self.not_found()),
            Ok(None) => {}
            Err(_) => return no_memory(),
        }
        // SAFETY: the caller's promise, passed on.
        let found = unsafe {
            match self.version {
                Some(version) => libc::dlvsym(self.handle, self.name.as_ptr(), version.as_ptr()),
                None => libc::dlsym(self.handle, self.name.as_ptr()),
            }
        };
        if found.is_null() {
            return found;
        }
        if !self.restricted {
            // Also of the C library itself, by a handle.
            let changes_memory =
                self.caller.as_ref().and(super::protection::replacement(self.name.to_bytes()));
            return changes_memory.map_or(found, |it| it as *mut c_void);
        }
        if !self.may_use_host() {
            return self.not_found();
        }
        super::restricted_replacement(self.name.to_bytes()).map_or(found, |it| it as *mut c_void)
    }

    /// As `ld.so` says it: with the library that was searched, or that asked.
    fn not_found(&self) -> *mut c_void {
        let name = lossy(self.name.to_bytes());
        let version = self.version.map_or(Cow::Borrowed(""), |it| lossy(it.to_bytes()));
        if self.allowed.get() == Some(&false) {
            let at = if self.version.is_some() { "@" } else { "" };
            return fail(format_args!("the host does not allow this import: {name}{at}{version}"));
        }
        let comma = if self.version.is_some() { ", version " } else { "" };
        match dl_handles::image(self.handle).as_ref().or(self.caller.as_ref()) {
            Some(image) => {
                let image = &image.image().name;
                fail(format_args!("{image}: undefined symbol: {name}{comma}{version}"))
            }
            None => fail(format_args!("undefined symbol: {name}{comma}{version}")),
        }
    }

    /// The result of a look-up that involves images: `Some(None)` if nothing is found; `None` if the C library
    /// has to answer alone.
    fn in_images_and_global(&self) -> Result<Option<Option<*mut c_void>>, Error> {
        let may_use_host = || self.may_use_host();
        let in_list =
            |list: &[Provider]| dlsym::in_list(list, &self.symbol, self.wanted, &may_use_host);
        let in_global = || {
            let scope = GlobalScope::new(Resolvers::Run)?;
            let found = scope.lookup(&self.symbol, self.wanted, TypeClass::Address);
            scope.check_memory()?;
            let Some(found) = found.filter(|_| self.may_use_host()) else { return Ok(None) };
            let services =
                if self.restricted { super::restricted_replacement } else { super::replacement };
            if let Some(service) = services(self.name.to_bytes()) {
                return Ok(Some(service as *mut c_void));
            }
            // SAFETY: a value of a symbol of a library in the global scope, as `dlsym` would give it.
            unsafe { dlsym::address_of(found.symbol.definition) }.map(Some)
        };
        let in_global_images = || dlsym::in_global_images(&self.symbol, self.wanted, &may_use_host);
        if dl::is_executable(self.handle) {
            require_memory()?;
            return or_else(in_global()?, in_global_images).map(Some);
        }
        if self.handle == libc::RTLD_DEFAULT || self.handle == libc::RTLD_NEXT {
            let Some(caller) = self.caller.as_ref() else { return Ok(None) };
            require_memory()?;
            let list = dlsym::scope(caller.group())?;
            let found = if self.handle == libc::RTLD_NEXT {
                let is_caller =
                    |it: &Provider| matches!(it, Provider::Image(image) if image.is(caller));
                let position = list.iter().position(is_caller);
                let after = position.map_or(0, |position| position.saturating_add(1));
                or_else(in_list(list.get(after..).unwrap_or_default())?, in_global)
            } else {
                let known = or_else(or_else(in_global()?, in_global_images)?, || in_list(&list))?;
                or_else(known, || in_list(&named::later_scopes(caller.group())?))
            };
            return found.map(Some);
        }
        let Some(image) = dl_handles::image(self.handle) else { return Ok(None) };
        if !self.restricted {
            let (group, index) = (image.group(), image.index());
            return dlsym::in_library(group, index, &self.symbol, self.wanted).map(Some);
        }
        in_list(&dlsym::searchlist(Provider::Image(image))?).map(Some)
    }
}

/// As `Option::or_else`, for look-ups that can fail.
fn or_else<T>(
    found: Option<T>,
    otherwise: impl FnOnce() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if found.is_some() { Ok(found) } else { otherwise() }
}
