//! A library that one of the two loaders has loaded, with the same questions to both.

use std::ffi::{CString, c_char, c_int, c_void};

use memdl::Library;

/// A library that is loaded, by either loader.
pub trait Loaded {
    fn load_bias(&self) -> u64;
    fn symbol(&self, name: &str, version: Option<&str>) -> Option<u64>;
    /// What memdl calls it, if memdl has loaded it.
    fn memdl_name(&self) -> Option<&str>;
    /// The number of its thread-local module, if `ld.so` knows it.
    fn system_module(&self) -> Option<u64>;
}

pub struct System {
    pub handle: *mut c_void,
}

/// The public beginning of `<link.h>`'s `struct link_map`.
#[repr(C)]
struct LinkMap {
    l_addr: usize,
    l_name: *const c_char,
}

impl System {
    fn ask<T: Copy>(&self, request: c_int, initial: T) -> T {
        let mut answer = initial;
        // SAFETY: an open handle, and `T` is what this request writes (the callers below).
        unsafe { libc::dlinfo(self.handle, request, (&raw mut answer).cast()) };
        answer
    }
}

impl Loaded for System {
    fn load_bias(&self) -> u64 {
        let map: *const LinkMap = self.ask(libc::RTLD_DI_LINKMAP, std::ptr::null());
        // SAFETY: `ld.so`'s record of an open library.
        unsafe { (*map).l_addr as u64 }
    }

    fn symbol(&self, name: &str, version: Option<&str>) -> Option<u64> {
        let name = CString::new(name).ok()?;
        let version = version.map(CString::new).transpose().ok()?;
        // SAFETY: an open handle and C strings.
        let address = unsafe {
            match &version {
                None => libc::dlsym(self.handle, name.as_ptr()),
                Some(version) => libc::dlvsym(self.handle, name.as_ptr(), version.as_ptr()),
            }
        };
        (!address.is_null()).then_some(address as u64)
    }

    fn memdl_name(&self) -> Option<&str> {
        None
    }

    fn system_module(&self) -> Option<u64> {
        let module = self.ask(libc::RTLD_DI_TLS_MODID, 0_usize);
        (module != 0).then_some(module as u64)
    }
}

impl Loaded for Library {
    fn load_bias(&self) -> u64 {
        Library::load_bias(self) as u64
    }

    fn symbol(&self, name: &str, version: Option<&str>) -> Option<u64> {
        // SAFETY: only the address is looked at.
        let symbol = unsafe {
            match version {
                None => self.get::<*mut c_void>(name),
                Some(version) => self.get_versioned::<*mut c_void>(name, version),
            }
        };
        symbol.ok().map(|symbol| symbol.as_raw_ptr() as u64)
    }

    fn memdl_name(&self) -> Option<&str> {
        Some(self.name())
    }

    fn system_module(&self) -> Option<u64> {
        None
    }
}
