//! elf_loader behind four C functions, as `benches/harness/peers.rs` wants them.
//!
//! elf_loader binds to the modules that it is given. Those of the process are imported by
//! `elf_loader::host::open`, which is what `peer_import` does.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;

use elf_loader::arch::NativeArch;
use elf_loader::image::{LoadedCore, ModuleHandle};
use elf_loader::input::Path;
use elf_loader::memory::HostRegion;
use elf_loader::tls::DefaultTlsResolver;
use elf_loader::{AddressSpaceId, Domain, Loader, Relocator, host};

type Native = Domain<NativeArch, DefaultTlsResolver>;

/// The process's libraries, imported.
pub struct Imported {
    domain: Native,
    modules: Vec<ModuleHandle>,
}

/// Imports libraries of the process, by their paths. Null if it cannot.
///
/// # Safety
/// `count` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_import(paths: *const *const c_char, count: usize) -> *mut Imported {
    let Ok(domain) = Domain::native(AddressSpaceId::PROCESS).with_tls(DefaultTlsResolver::new())
    else {
        return ptr::null_mut();
    };
    let mut modules = Vec::new();
    for at in 0..count {
        // SAFETY: the caller's promise; the libraries are open already.
        let opened = unsafe {
            let path = CStr::from_ptr(*paths.add(at));
            let name = path.to_str().unwrap_or_default();
            host::open(&domain, Path::new(path.to_bytes()), name)
        };
        match opened {
            Ok(module) => modules.push(module),
            Err(error) => {
                eprintln!("elf_loader: {error}");
                return ptr::null_mut();
            }
        }
    }
    Box::into_raw(Box::new(Imported { domain, modules }))
}

/// Forgets what was imported.
///
/// # Safety
/// From `peer_import`, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_forget(imported: *mut Imported) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(imported) });
}

type Loaded = LoadedCore<(), NativeArch, HostRegion, DefaultTlsResolver>;

/// Loads a library from its bytes. Null if it cannot.
///
/// # Safety
/// `len` bytes of a library whose constructors may run; `imported` from `peer_import`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_load(
    imported: *const Imported,
    bytes: *const u8,
    len: usize,
) -> *mut Loaded {
    // SAFETY: the caller's promise.
    let (imported, bytes) = unsafe { (&*imported, slice::from_raw_parts(bytes, len)) };
    let loaded = Loader::new().run(imported.domain.clone()).load_dylib(bytes).and_then(|raw| {
        Relocator::new().run(raw).with_modules(imported.modules.iter().cloned())?.eager().relocate()
    });
    match loaded {
        Ok(loaded) => Box::into_raw(Box::new(loaded)),
        Err(error) => {
            eprintln!("elf_loader: {error}");
            ptr::null_mut()
        }
    }
}

/// A symbol's address, or null.
///
/// # Safety
/// From `peer_load`; a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_symbol(loaded: *const Loaded, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise; the type is a pointer's.
    let found =
        unsafe { (*loaded).get::<*mut c_void>(CStr::from_ptr(name).to_str().unwrap_or_default()) };
    found.ok().flatten().map_or(ptr::null_mut(), |symbol| symbol.into_raw().cast_mut().cast())
}

/// Unloads.
///
/// # Safety
/// From `peer_load`, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_close(loaded: *mut Loaded) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(loaded) });
}
