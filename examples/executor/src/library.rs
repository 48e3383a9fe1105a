//! From the bytes of a library to its functions, in this process: with memdl, or for comparison with a `memfd` and
//! `dlopen`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use memdl::{ErrorKind, ImageBuffer, Loader, SymbolKind};
use rustix::fs::MemfdFlags;

use crate::policy::Policy;
use crate::protocol::{Digest, Failure, FailureKind, Signature};
use crate::run::Received;

/// What all functions are: they read `in_len` bytes at `in`, write at most `out_capacity` bytes at `out`, and return
/// how many they have written. More than `out_capacity` says that the function failed.
pub(crate) type Function = unsafe extern "C" fn(
    input: *const u8,
    in_len: usize,
    out: *mut u8,
    out_capacity: usize,
) -> usize;

/// A loader of memdl that runs what the policy allows.
pub(crate) fn loader(
    policy: &Arc<Policy>,
    digest: Digest,
    signature: Option<Signature>,
    image_span: u64,
) -> Loader {
    let policy = policy.clone();
    let mut limits = memdl::Limits::default();
    limits.image_span = image_span;
    // The name says in backtraces, in gdb and in /proc/PID/maps which library it is.
    let name = digest.short();
    // memdl asks before anything else reads the bytes.
    Loader::new().name(name.clone()).limits(limits).verify(move |image| {
        let checked = match image.name() == name {
            true => policy.check(&digest, signature.as_ref(), image.bytes()),
            false => policy.check_file(image.bytes()),
        };
        Ok(checked?)
    })
}

/// memdl's error, as a client sees it.
pub(crate) fn not_loaded(error: &memdl::Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::Refused => FailureKind::Refused,
        _ => FailureKind::NotLoaded,
    };
    Failure::new(kind, error.to_string())
}

/// The function of this name, if the library itself exports it. A name from the network must not reach what the library
/// merely uses, such as `system`.
pub(crate) fn function(library: &memdl::Library, name: &str) -> Result<Function, Failure> {
    let is_function = library
        .symbol(name)
        .is_some_and(|it| matches!(it.kind(), SymbolKind::Function | SymbolKind::IndirectFunction));
    if !is_function {
        return Err(no_function(name, library.name()));
    }
    // SAFETY: whoever may send this library says by the call that this is the function's type. The caller keeps the
    // library while it uses the function.
    let found = unsafe { library.get::<Function>(name) };
    found
        .map(|symbol| *symbol)
        .map_err(|error| Failure::new(FailureKind::NoFunction, error.to_string()))
}

fn no_function(name: &str, library: &str) -> Failure {
    Failure::new(FailureKind::NoFunction, format!("{library}: exports no function `{name}`"))
}

/// Calls a function.
///
/// # Safety
/// It is a [`Function`], its library stays, and its code may run here.
pub(crate) unsafe fn invoke(
    function: Function,
    name: &str,
    input: &[u8],
    capacity: usize,
) -> Result<Vec<u8>, Failure> {
    let mut output = Vec::new();
    let no_memory =
        |_| Failure::new(FailureKind::Memory, format!("no memory for {capacity} bytes of output"));
    output.try_reserve_exact(capacity).map_err(no_memory)?;
    // What the function does not write are no old bytes of this process.
    output.resize(capacity, 0);
    // SAFETY: the caller's promise; both are as long as said.
    let len = unsafe { function(input.as_ptr(), input.len(), output.as_mut_ptr(), capacity) };
    if len > capacity {
        let message = format!(
            "{name} failed: it returned {len}, more than the {capacity} bytes of its output"
        );
        return Err(Failure::new(FailureKind::Function, message));
    }
    output.truncate(len);
    Ok(output)
}

/// A library that `dlopen` has loaded from a `memfd`.
pub(crate) struct Memfd {
    handle: NonNull<c_void>,
    name: String,
    /// Open as long as the library: `dlopen` knows libraries by their paths, and would give this one for the next that
    /// has the same descriptor.
    _file: File,
}

// SAFETY: a handle of `dlopen` may be used in any thread.
unsafe impl Send for Memfd {}
// SAFETY: `dlsym` may be called by several threads at once.
unsafe impl Sync for Memfd {}

impl Memfd {
    /// Checks and loads a library.
    pub(crate) fn load(policy: &Policy, library: &Received) -> Result<Memfd, Failure> {
        let Received { digest, signature, bytes } = library;
        policy
            .check(digest, signature.as_ref(), bytes)
            .map_err(|reason| Failure::new(FailureKind::Refused, format!("refused: {reason}")))?;
        Memfd::open(&digest.short(), bytes)
            .map_err(|reason| Failure::new(FailureKind::NotLoaded, reason))
    }

    fn open(name: &str, bytes: &ImageBuffer) -> Result<Memfd, String> {
        let text = |error: std::io::Error| format!("{name}: {error}");
        let file =
            rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|it| text(it.into()))?;
        let mut file = File::from(file);
        file.write_all(bytes).map_err(text)?;
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|error| error.to_string())?;
        // SAFETY: the policy allows the library's constructors to run.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(last_error)?;
        Ok(Memfd { handle, name: name.into(), _file: file })
    }

    /// The function of this name. Unlike [`function`], it finds those of other libraries, too.
    pub(crate) fn function(&self, name: &str) -> Result<Function, Failure> {
        let symbol = CString::new(name).map_err(|_| no_function(name, &self.name))?;
        // SAFETY: the handle is open.
        let address = unsafe { libc::dlsym(self.handle.as_ptr(), symbol.as_ptr()) };
        let address = NonNull::new(address).ok_or_else(|| no_function(name, &self.name))?;
        // SAFETY: whoever may send this library says by the call that this is the function's type.
        Ok(unsafe { std::mem::transmute::<*mut c_void, Function>(address.as_ptr()) })
    }
}

fn last_error() -> String {
    // SAFETY: the text lives until this thread's next call.
    let text = unsafe { NonNull::new(libc::dlerror()) };
    // SAFETY: as above; it ends with a zero.
    text.map_or("dlopen failed".into(), |text| unsafe {
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    })
}

impl Drop for Memfd {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and no function of it is used any more: callers borrow this.
        unsafe { libc::dlclose(self.handle.as_ptr()) };
    }
}
