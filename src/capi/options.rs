//! `memdl_options`: load options and the callbacks of a C host.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use super::callbacks::{FreeUser, OwnedUser, User};
use super::errors::{Failure, c_string, caught, pointer, status, transparent};
use super::pointers::{copied, give, take, utf8};
use crate::Binding;
use crate::DebugLevel;
use crate::Imports;
use crate::Limits;
use crate::Loader;
use crate::Profile;
use crate::Scope;
use crate::SymbolRequest;
use crate::VerifyRequest;
use crate::base::fallible::TryGrow;
use crate::base::fallible::require_memory;
use crate::services;

/// `memdl_options`.
#[derive(Clone, Default)]
pub struct Options {
    loader: Loader,
    limits: Limits,
}

/// `memdl_request`.
#[repr(C)]
pub struct CRequest {
    name: *const c_char,
    version: *const c_char,
    requested_by: *const c_char,
    is_weak: c_int,
}

/// `memdl_resolver`.
pub type Resolver =
    unsafe extern "C-unwind" fn(request: *const CRequest, user: *mut c_void) -> *const c_void;

/// `memdl_image`.
#[repr(C)]
pub struct CImage {
    name: *const c_char,
    bytes: *const c_void,
    len: usize,
}

/// `memdl_verifier`.
pub type Verifier = unsafe extern "C" fn(
    image: *const CImage,
    reason: *mut *const c_char,
    user: *mut c_void,
) -> c_int;

/// `memdl_import_filter`.
pub type ImportFilter = unsafe extern "C" fn(request: *const CRequest, user: *mut c_void) -> c_int;

/// The loader with these options; with the defaults for null.
///
/// # Safety
/// Null, or options that live, and that nobody changes, for `'a`.
pub(super) unsafe fn loader_of<'a>(options: *const Options) -> Cow<'a, Loader> {
    // SAFETY: the caller's promise.
    let options = unsafe { options.as_ref() };
    options.map_or_else(|| Cow::Owned(Loader::new()), |options| Cow::Borrowed(&options.loader))
}

/// Default options.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_options_new() -> *mut Options {
    give(caught(|| {
        require_memory()?;
        Ok(Options::default())
    }))
}

/// Frees options. Libraries that were loaded with them stay.
///
/// # Safety
/// The header's contract. This may drop the last reference to a library (`memdl_options_depends_on`), whose
/// destructors then run.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_options_free(options: *mut Options) {
    if !options.is_null() {
        // SAFETY: the header's contract.
        let options = caught(|| unsafe { take(options, "options") });
        transparent(|| drop(options));
    }
}

/// Changes options.
///
/// # Safety
/// `options` is null, or live options that nothing else uses meanwhile.
pub(super) unsafe fn set(
    options: *mut Options,
    change: impl FnOnce(&mut Options) -> Result<(), Failure>,
) -> c_int {
    status(caught(|| {
        require_memory()?;
        // SAFETY: the caller's promise.
        change(unsafe { options.as_mut() }.ok_or("the options are null")?)
    }))
}

impl Options {
    pub(super) fn change(&mut self, change: impl FnOnce(Loader) -> Loader) -> Result<(), Failure> {
        self.loader = change(std::mem::take(&mut self.loader));
        Ok(())
    }
}

/// [`Loader::name`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_name(
    options: *mut Options,
    name: *const c_char,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let name = utf8(name)?;
            options.change(|loader| loader.name(name))
        })
    }
}

/// [`Loader::define`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_define(
    options: *mut Options,
    name: *const c_char,
    address: *const c_void,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let name = utf8(name)?;
            options.change(|loader| loader.define(name, address))
        })
    }
}

/// Calls `ask` with the request as a C structure; `None` without memory for it.
pub(super) fn with_c_request<T>(
    request: &SymbolRequest<'_>,
    ask: impl FnOnce(&CRequest) -> T,
) -> Option<T> {
    let name = c_string(request.name()).ok()?;
    let version = request.version().map(c_string).transpose().ok()?;
    let requested_by = c_string(request.requested_by()).ok()?;
    Some(ask(&CRequest {
        name: name.as_ptr(),
        version: pointer(&version),
        requested_by: requested_by.as_ptr(),
        is_weak: request.is_weak().into(),
    }))
}

/// [`Loader::verify`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_verifier(
    options: *mut Options,
    verifier: Option<Verifier>,
    user: *mut c_void,
    free_user: Option<FreeUser>,
) -> c_int {
    let user = OwnedUser::new(user, free_user);
    let verify = move |verifier: Verifier, request: &VerifyRequest<'_>| {
        let name = c_string(request.name()).map_err(|_| "out of memory")?;
        let (bytes, len) = (request.bytes().as_ptr().cast(), request.bytes().len());
        let image = CImage { name: name.as_ptr(), bytes, len };
        let mut reason = ptr::null();
        // SAFETY: the header's contract; the image lives during the call.
        if unsafe { verifier(&image, &mut reason, user.get()) } == 0 {
            return Ok(());
        }
        if reason.is_null() {
            return Err("it gives no reason".into());
        }
        // SAFETY: the header's contract: a C string, valid until the verifier is called again.
        Err(unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned().into())
    };
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            options.change(|mut loader| match verifier {
                Some(verifier) => loader.verify(move |request| verify(verifier, request)),
                None => {
                    loader.settings.policy.verifier = None;
                    loader.settings.services = services::replacements_for(&loader.settings.policy);
                    loader
                }
            })
        })
    }
}

/// Copies the names of a list.
///
/// # Safety
/// `names` is null and `count` is 0, or it points to `count` pointers, each of them null or a C string.
pub(super) unsafe fn names_of(
    names: *const *const c_char,
    count: usize,
) -> Result<Vec<String>, Failure> {
    if names.is_null() && count > 0 {
        return Err("the names are null".into());
    }
    // SAFETY: the caller's promise.
    (0..count).map(|index| unsafe { Ok(utf8(*names.add(index))?.to_owned()) }).collect()
}

/// Restricts imports by a list of names.
///
/// # Safety
/// The header's contract.
pub(super) unsafe fn set_imports(
    options: *mut Options,
    names: *const *const c_char,
    count: usize,
    imports: fn(Vec<String>) -> Imports,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            let imports = imports(names_of(names, count)?);
            options.change(|loader| loader.imports(imports))
        })
    }
}

/// [`Imports::allow`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_allow_imports(
    options: *mut Options,
    names: *const *const c_char,
    count: usize,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set_imports(options, names, count, Imports::allow) }
}

/// [`Imports::deny`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_deny_imports(
    options: *mut Options,
    names: *const *const c_char,
    count: usize,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set_imports(options, names, count, Imports::deny) }
}

/// [`Imports::filter`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_filter_imports(
    options: *mut Options,
    filter: Option<ImportFilter>,
    user: *mut c_void,
    free_user: Option<FreeUser>,
) -> c_int {
    let user = OwnedUser::new(user, free_user);
    let imports = match filter {
        None => Imports::all(),
        Some(filter) => Imports::filter(move |request| {
            let user = &user;
            // SAFETY: the header's contract; the request lives during the call.
            let allows = |request: &CRequest| unsafe { filter(request, user.get()) } != 0;
            with_c_request(request, allows).unwrap_or(false)
        }),
    };
    // SAFETY: the header's contract.
    unsafe { set(options, |options| options.change(|loader| loader.imports(imports))) }
}

/// [`Loader::seal`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_seal(options: *mut Options, seal: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set(options, |options| options.change(|loader| loader.seal(seal != 0))) }
}

/// [`Loader::resolver`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_resolver(
    options: *mut Options,
    resolver: Option<Resolver>,
    user: *mut c_void,
) -> c_int {
    let user = User::new(user);
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let Some(resolver) = resolver else {
                return options.change(|loader| loader.resolver(|_| None));
            };
            options.change(|loader| {
                loader.resolver(move |request| {
                    // SAFETY: the header's contract; the request lives during the call.
                    let address = with_c_request(request, |request| resolver(request, user.get()))?;
                    (!address.is_null()).then_some(address)
                })
            })
        })
    }
}

/// [`Loader::provide`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_provide(
    options: *mut Options,
    name: *const c_char,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let (name, bytes) = (utf8(name)?, copied(bytes, len)?);
            let provided = &mut options.loader.settings.provided;
            provided.try_push((name.into(), bytes))?;
            Ok(())
        })
    }
}

/// [`Loader::global`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_global(options: *mut Options, global: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set(options, |options| options.change(|loader| loader.global(global != 0))) }
}

/// [`Loader::system_libraries`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_system_libraries(
    options: *mut Options,
    allowed: c_int,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| options.change(|loader| loader.system_libraries(allowed != 0)))
    }
}

/// [`Loader::scope`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_scope(options: *mut Options, scope: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let scope = match scope {
                0 => Scope::HostFirst,
                1 => Scope::SelfFirst,
                other => return Err(format!("there is no memdl_scope {other}").into()),
            };
            options.change(|loader| loader.scope(scope))
        })
    }
}

/// [`Loader::binding`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_binding(options: *mut Options, binding: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let binding = match binding {
                0 => Binding::Now,
                1 => Binding::Lazy,
                other => return Err(format!("there is no memdl_binding {other}").into()),
            };
            options.change(|loader| loader.binding(binding))
        })
    }
}

/// [`Loader::debug`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_debug(options: *mut Options, debug: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set(options, |options| options.set_debug(debug)) }
}

/// [`Loader::profile`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_profile(options: *mut Options, profile: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set(options, |options| options.set_profile(profile)) }
}

impl Options {
    pub(super) fn set_debug(&mut self, debug: c_int) -> Result<(), Failure> {
        let debug = debug_of(debug)?;
        self.change(|loader| loader.debug(debug))
    }

    pub(super) fn set_profile(&mut self, profile: c_int) -> Result<(), Failure> {
        let profile = match profile {
            0 => Profile::Off,
            1 => Profile::PerfMap,
            2 => Profile::LivePerfMap,
            3 => Profile::JitDump,
            4 => Profile::File,
            other => return Err(format!("there is no memdl_profile {other}").into()),
        };
        self.change(|loader| loader.profile(profile))
    }
}

/// The value of a `memdl_debug`.
pub(super) fn debug_of(debug: c_int) -> Result<DebugLevel, Failure> {
    Ok(match debug {
        0 => DebugLevel::Off,
        1 => DebugLevel::Symbols,
        2 => DebugLevel::Full,
        3 => DebugLevel::Portable,
        other => return Err(format!("there is no memdl_debug {other}").into()),
    })
}

/// The `memdl_debug` of a value.
pub(super) fn number_of(debug: DebugLevel) -> c_int {
    match debug {
        DebugLevel::Off => 0,
        DebugLevel::Symbols => 1,
        DebugLevel::Full => 2,
        DebugLevel::Portable => 3,
    }
}

/// [`Loader::debug_info`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_debug_info(
    options: *mut Options,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            options.loader.settings.debug_info = Some(copied(bytes, len)?);
            Ok(())
        })
    }
}

/// A field of [`Limits`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_limit(
    options: *mut Options,
    limit: c_int,
    value: u64,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let limits = &mut options.limits;
            *match limit {
                0 => &mut limits.image_bytes,
                1 => &mut limits.image_span,
                2 => &mut limits.alignment,
                3 => &mut limits.tls_block,
                4 => &mut limits.relocations,
                5 => &mut limits.images,
                6 => &mut limits.instances_in_full,
                7 => &mut limits.unpacked_debug_info,
                8 => &mut limits.debug_info_steps,
                other => return Err(format!("there is no memdl_limit {other}").into()),
            } = value;
            let limits = limits.clone();
            options.change(|loader| loader.limits(limits))
        })
    }
}
