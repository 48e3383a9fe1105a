//! Other loaders, from `benches/peers`: a workspace of their own, built when it is needed, each a
//! shared library with four C functions.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ways::{dlopen, dlsym};
use crate::common::{repository, run};

type Import = unsafe extern "C" fn(*const *const c_char, usize) -> *mut c_void;
type Forget = unsafe extern "C" fn(*mut c_void);
type Load = unsafe extern "C" fn(*const c_void, *const u8, usize) -> *mut c_void;
type Find = unsafe extern "C" fn(*const c_void, *const c_char) -> *mut c_void;
type Close = unsafe extern "C" fn(*mut c_void);

/// A loader that is not memdl.
#[derive(Clone, Copy)]
pub struct Peer {
    import: Import,
    forget: Forget,
    load: Load,
    find: Find,
    close: Close,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers")
}

/// Builds all of them.
pub fn build() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--quiet", "--locked", "--manifest-path"]);
    command.arg(repository("benches/peers/Cargo.toml")).arg("--target-dir").arg(folder());
    run(&mut command, "the other loaders; --no-peers leaves them out");
}

impl Peer {
    /// The one whose crate has this name, for good.
    pub fn open(name: &str) -> Peer {
        let path = folder().join(format!("release/libpeer_{name}.so"));
        let handle = dlopen(&CString::new(path.to_str().unwrap()).unwrap(), libc::RTLD_NOW);
        // SAFETY: the functions have these types: benches/peers.
        unsafe {
            use std::mem::transmute;
            Peer {
                import: transmute::<*mut c_void, Import>(dlsym(handle, c"peer_import")),
                forget: transmute::<*mut c_void, Forget>(dlsym(handle, c"peer_forget")),
                load: transmute::<*mut c_void, Load>(dlsym(handle, c"peer_load")),
                find: transmute::<*mut c_void, Find>(dlsym(handle, c"peer_symbol")),
                close: transmute::<*mut c_void, Close>(dlsym(handle, c"peer_close")),
            }
        }
    }

    /// Reads what these libraries of the process export.
    pub fn import(&self, paths: &[CString]) -> Imported {
        let paths: Vec<*const c_char> = paths.iter().map(|path| path.as_ptr()).collect();
        // SAFETY: so many C strings.
        let imported = unsafe { (self.import)(paths.as_ptr(), paths.len()) };
        assert!(!imported.is_null(), "it cannot import the process's libraries");
        Imported { peer: *self, imported }
    }
}

/// The process's libraries as a peer knows them.
pub struct Imported {
    peer: Peer,
    imported: *mut c_void,
}

impl Imported {
    pub fn load(&self, bytes: &[u8]) -> PeerLibrary {
        // SAFETY: whoever names the library vouches for its constructors.
        let handle = unsafe { (self.peer.load)(self.imported, bytes.as_ptr(), bytes.len()) };
        assert!(!handle.is_null(), "it cannot load this");
        PeerLibrary { peer: self.peer, handle }
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        // SAFETY: from `peer_import`, once.
        unsafe { (self.peer.forget)(self.imported) };
    }
}

/// A library that a peer has loaded.
pub struct PeerLibrary {
    peer: Peer,
    handle: *mut c_void,
}

impl PeerLibrary {
    pub fn symbol(&self, name: &std::ffi::CStr) -> *mut c_void {
        // SAFETY: it is loaded; a C string.
        unsafe { (self.peer.find)(self.handle, name.as_ptr()) }
    }
}

impl Drop for PeerLibrary {
    fn drop(&mut self) {
        // SAFETY: from `peer_load`, once.
        unsafe { (self.peer.close)(self.handle) };
    }
}
