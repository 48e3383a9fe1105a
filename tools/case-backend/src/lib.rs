//! memdl behind a table of three C functions: load bytes, look a symbol up, unload.
//!
//! `tests/cases.sh` builds this as a shared object and runs a collection of loader test cases
//! against it. It is also the shape of a plug-in host that knows its loader only through a
//! function table: handles are plain numbers, everything that is loaded can satisfy what is loaded
//! later, and constructors may call back into `load`.
//!
//! ```text
//! cargo build --release -p case-backend     # target/release/libcase_backend.so
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memdl::{Library, Loader};

/// An image that the host offers for `DT_NEEDED` entries of this name.
#[repr(C)]
pub struct Image {
    name: *const c_char,
    bytes: *const c_void,
    len: usize,
}

type Load = unsafe extern "C" fn(
    name: *const c_char,
    bytes: *const c_void,
    len: usize,
    global: c_int,
    provided: *const Image,
    provided_len: usize,
    error: *mut c_char,
    error_len: usize,
) -> *mut c_void;

/// What the host calls.
#[repr(C)]
pub struct Backend {
    name: *const c_char,
    load: Load,
    sym: unsafe extern "C" fn(handle: *mut c_void, name: *const c_char) -> *mut c_void,
    unload: unsafe extern "C" fn(handle: *mut c_void) -> c_int,
}

// SAFETY: the name points to a constant, and the functions may be called from any thread.
unsafe impl Sync for Backend {}

static BACKEND: Backend = Backend { name: c"memdl".as_ptr(), load, sym, unload };

/// The table. It lives as long as this library.
#[unsafe(no_mangle)]
pub extern "C" fn loader_backend_v1() -> *const Backend {
    &BACKEND
}

/// What is loaded now, in load order. A handle is a key of this map.
struct Live {
    libraries: BTreeMap<usize, Arc<Library>>,
    next: usize,
}

static LIVE: Mutex<Live> = Mutex::new(Live { libraries: BTreeMap::new(), next: 1 });

/// The registry. Constructors and destructors call back into this file, so that nobody may hold
/// this while a library is loaded or dropped.
fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// # Safety
/// `name` is a C string, `bytes` are `len` bytes, `provided` are `provided_len` such pairs, and
/// `error` is a buffer of `error_len` bytes. The bytes are a library that may be run here.
unsafe extern "C" fn load(
    name: *const c_char,
    bytes: *const c_void,
    len: usize,
    global: c_int,
    provided: *const Image,
    provided_len: usize,
    error: *mut c_char,
    error_len: usize,
) -> *mut c_void {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let provided = slice_of(provided, provided_len);
            let bytes = slice_of(bytes.cast::<u8>(), len);
            load_library(&text(name), bytes, global != 0, provided)
        }
    }));
    let message = match result {
        Ok(Ok(library)) => {
            let mut live = live();
            let handle = live.next;
            live.next += 1;
            live.libraries.insert(handle, Arc::new(library));
            return ptr::without_provenance_mut(handle);
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_text(&*panic),
    };
    // SAFETY: the caller's promise.
    unsafe { write_text(&message, error, error_len) };
    ptr::null_mut()
}

/// # Safety
/// The image, and those provided, are what [`Library::from_bytes`] asks for.
unsafe fn load_library(
    name: &str,
    bytes: &[u8],
    global: bool,
    provided: &[Image],
) -> Result<Library, memdl::Error> {
    let mut loader = Loader::new().name(name).system_libraries(true).global(global);
    for image in provided {
        // SAFETY: the caller's promise.
        let (provided_name, bytes) =
            unsafe { (text(image.name), slice_of(image.bytes.cast::<u8>(), image.len)) };
        if provided_name != name {
            loader = loader.provide(provided_name, bytes);
        }
    }
    let libraries: Vec<Arc<Library>> = live().libraries.values().cloned().collect();
    for library in &libraries {
        loader = loader.depends_on(library);
    }
    drop(libraries);
    // SAFETY: the caller's promise.
    unsafe {
        match std::env::var("MEMDL_TEST_WAY").as_deref() {
            Ok("buffer") => {
                let mut buffer = memdl::ImageBuffer::new(bytes.len())?;
                buffer.copy_from_slice(bytes);
                loader.load_buffer(buffer)
            }
            Ok("instance") => loader.prepare(bytes)?.instantiate(),
            Ok("shared") => loader.debug(memdl::DebugLevel::Off).prepare(bytes)?.instantiate(),
            _ => loader.load(bytes),
        }
    }
}

/// # Safety
/// `name` is a C string.
unsafe extern "C" fn sym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    let found = catch_unwind(|| {
        let library = live().libraries.get(&handle.addr()).cloned()?;
        // SAFETY: the caller's promise, and every symbol has an address.
        unsafe {
            let name = CStr::from_ptr(name).to_bytes();
            let symbol = library.get::<*mut c_void>(name).ok()?;
            Some(symbol.as_raw_ptr())
        }
    });
    found.ok().flatten().unwrap_or(ptr::null_mut())
}

/// # Safety
/// Nobody uses the library any more.
unsafe extern "C" fn unload(handle: *mut c_void) -> c_int {
    let closed = catch_unwind(|| {
        let library = live().libraries.remove(&handle.addr());
        match library.map(Arc::into_inner) {
            // Another thread is in the middle of `load` or `sym` and lets go of it soon.
            Some(None) => true,
            Some(Some(library)) => library.close().is_ok(),
            None => false,
        }
    });
    if closed.unwrap_or(false) { 0 } else { 1 }
}

/// # Safety
/// `start` is that of `len` values that live for `'a`, or null if there are none.
unsafe fn slice_of<'a, T>(start: *const T, len: usize) -> &'a [T] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(start, len) }
}

/// # Safety
/// `text` is a C string.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// As much of `message` as fits, with a terminator.
///
/// # Safety
/// `buffer` is one of `len` bytes.
unsafe fn write_text(message: &str, buffer: *mut c_char, len: usize) {
    let Some(room) = len.checked_sub(1) else { return };
    let message = message.as_bytes();
    let count = message.len().min(room);
    // SAFETY: `count` bytes and a terminator are no more than `len`.
    unsafe {
        ptr::copy_nonoverlapping(message.as_ptr().cast(), buffer, count);
        *buffer.add(count) = 0;
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("memdl panicked: {}", text.unwrap_or("for a reason that is no text"))
}
