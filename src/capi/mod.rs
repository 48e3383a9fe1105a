//! The C API of `include/memdl.h`: `dlopen`'s manners over the types of [`crate`].
//!
//! A shell without a will of its own: a function checks its pointers, calls the Rust API, and turns
//! an error into null and a text per thread. What its arguments must be, and who owns what, is the
//! header's business; a `# Safety` section here that says "the header's contract" means its
//! comment on that function. Handles are boxes; C holds their raw pointers.
//!
//! Two kinds of things can come up the stack, and they must be told apart. **Panics** of memdl are
//! faults of memdl, and no C caller can deal with them: [`caught`] makes error texts of them.
//! **Exceptions** of constructors, destructors and callbacks are the caller's own and pass through,
//! as they pass through `dlopen`: `catch_unwind` would abort on them. So a load is done in two
//! halves. Parsing and binding, where hostile bytes are at work, is [`caught`]. What can run
//! code of images or callbacks is done outside of that, in [`transparent`], by functions that are
//! `extern "C-unwind"`: drops run while an exception passes, and a panic, which cannot be caught
//! without catching exceptions too, aborts with its message.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::thread;

use crate::Binding;
use crate::Debug;
use crate::ExportedSymbol;
use crate::Frame;
use crate::ImageBuffer;
use crate::Imports;
use crate::Library;
use crate::Limits;
use crate::Loader;
use crate::Pool;
use crate::Pooled;
use crate::Profile;
use crate::Reset;
use crate::Scope;
use crate::SymbolKind;
use crate::SymbolRequest;
use crate::Template;
use crate::VerifyRequest;
use crate::api::startup;
use crate::base::escape::Escaped;
use crate::base::fallible::{
    TryGrow, require_memory, try_c_string, try_collect_ok, try_copy, try_format,
};
use crate::base::promise::MayRun;
use crate::debug::Instances;
use crate::load::prepare::Prepared;
use crate::memory::bytes::Bytes;
use crate::services;

/// `memdl_library`.
pub struct LibraryHandle {
    library: Held,
    name: CString,
    soname: Option<CString>,
}

/// A library, and what becomes of it when it is closed.
enum Held {
    Own(Library),
    OfPool(Pooled),
}

impl Deref for Held {
    type Target = Library;

    fn deref(&self) -> &Library {
        match self {
            Held::Own(library) => library,
            Held::OfPool(library) => library,
        }
    }
}

/// `memdl_template`.
pub struct TemplateHandle(Template);

/// `memdl_pool`.
pub struct PoolHandle(Pool);

/// `memdl_buffer`.
pub struct BufferHandle {
    buffer: ImageBuffer,
    /// Of `buffer`'s bytes, which C writes to without asking.
    data: *mut c_void,
}

/// `memdl_options`.
#[derive(Clone, Default)]
pub struct Options {
    loader: Loader,
    limits: Limits,
}

/// `memdl_symbol`.
#[repr(C)]
pub struct CSymbol {
    name: *const c_char,
    version: *const c_char,
    kind: c_int,
    is_default_version: c_int,
    size: u64,
    address: usize,
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

/// What frees a callback's context.
pub type FreeUser = unsafe extern "C" fn(user: *mut c_void);

/// `memdl_frame`.
#[repr(C)]
pub struct CFrame {
    image: *const c_char,
    function: *const c_char,
    linkage_name: *const c_char,
    file: *const c_char,
    line: u32,
    column: u32,
    is_inlined: c_int,
    address: u64,
}

/// `memdl_frame_callback`.
pub type FrameCallback =
    unsafe extern "C-unwind" fn(frame: *const CFrame, user: *mut c_void) -> c_int;

/// `memdl_symbol_callback`.
pub type SymbolCallback =
    unsafe extern "C-unwind" fn(symbol: *const CSymbol, user: *mut c_void) -> c_int;

/// A failure of this file's or of memdl's, on its way to being a text.
enum Failure {
    Text(Cow<'static, str>),
    Memdl(crate::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Text(text) => f.write_str(text),
            Failure::Memdl(error) => error.fmt(f),
        }
    }
}

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Failure {
        Failure::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Text(Cow::Owned(text))
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Failure {
        Failure::Memdl(error)
    }
}

// ------------------------------------------------------------------------------------------------
// Errors, panics, exceptions

/// What a thread has been told, and the strings that it was given pointers to.
#[derive(Default)]
struct ThreadTexts {
    /// What `memdl_error` says next.
    pending: Option<CString>,
    /// What it said last.
    told: Option<CString>,
    /// What `memdl_symbol_at` found last.
    symbol: Option<OwnedSymbol>,
}

thread_local! {
    static TEXTS: RefCell<ThreadTexts> = RefCell::default();
    /// `memdl_error` says this next: there was no memory to say anything else. It needs none itself.
    static NO_MEMORY: Cell<bool> = const { Cell::new(false) };
}

/// With this thread's texts; `None` in a thread so far gone that it has none any more.
fn with_texts<T>(change: impl FnOnce(&mut ThreadTexts) -> T) -> Option<T> {
    TEXTS.try_with(|texts| texts.try_borrow_mut().ok().map(|mut texts| change(&mut texts))).ok()?
}

/// The value; or `None`, with the failure's text kept for `memdl_error`.
fn noted<T>(result: Result<T, Failure>) -> Option<T> {
    result
        .map_err(|failure| {
            // Names that come from images are in it.
            let text =
                require_memory().and_then(|()| try_format(format_args!("{}", Escaped(failure))));
            match text.map_err(Failure::from).and_then(|text| c_string(&text)) {
                Ok(text) => {
                    NO_MEMORY.set(false);
                    with_texts(|texts| texts.pending = Some(text));
                }
                Err(_) => NO_MEMORY.set(true),
            }
        })
        .ok()
}

/// Runs memdl's code: a panic is a failure like any other. No code of images or callbacks may run
/// in it but what must not throw (resolvers).
fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    // What a panic may leave half done is dropped with it or, like the thread's texts, stays valid.
    noted(catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(format!("memdl panicked: {}", text.unwrap_or("no reason given")).into())
    }))
}

/// Runs what can run code of images: exceptions pass, a panic aborts.
fn transparent<T>(body: impl FnOnce() -> T) -> T {
    struct Unwinding {
        was_panicking: bool,
    }
    impl Drop for Unwinding {
        fn drop(&mut self) {
            // Only panics of the Rust runtime that this is linked with count; a foreign exception
            // unwinds through here without being one.
            if thread::panicking() && !self.was_panicking {
                // The panic's own message has been printed.
                eprintln!("memdl: a panic cannot cross into C: aborting");
                std::process::abort();
            }
        }
    }
    let unwinding = Unwinding { was_panicking: thread::panicking() };
    let value = body();
    std::mem::forget(unwinding);
    value
}

/// C's idea of success.
fn status(done: Option<()>) -> c_int {
    if done.is_some() { 0 } else { -1 }
}

/// The text of the thread's last failure, once.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_error() -> *const c_char {
    if NO_MEMORY.take() {
        return c"out of memory".as_ptr();
    }
    let text = with_texts(|texts| {
        texts.told = texts.pending.take();
        pointer(&texts.told)
    });
    text.unwrap_or(ptr::null())
}

// ------------------------------------------------------------------------------------------------
// Strings and pointers

/// Up to the first NUL, if there is one.
fn c_string(text: &str) -> Result<CString, Failure> {
    let text = text.split('\0').next().unwrap_or_default();
    Ok(try_c_string(text.as_bytes())?.unwrap_or_default())
}

/// Null for `None`.
fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// # Safety
/// Null, or a C string that lives for `'a`.
unsafe fn c_str<'a>(text: *const c_char) -> Result<&'a CStr, Failure> {
    if text.is_null() {
        return Err("a string is null".into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// # Safety
/// As [`c_str`].
unsafe fn utf8<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let text = unsafe { c_str(text)? };
    text.to_str().map_err(|_| format!("the name {text:?} is not UTF-8").into())
}

/// # Safety
/// Null, or `len` bytes that live, and that nobody writes to, for `'a`.
unsafe fn bytes_of<'a>(bytes: *const c_void, len: usize) -> Result<&'a [u8], Failure> {
    if bytes.is_null() {
        return Err("the bytes are null".into());
    }
    if isize::try_from(len).is_err() {
        return Err("more bytes than there is memory".into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(bytes.cast(), len) })
}

/// # Safety
/// As [`bytes_of`].
unsafe fn copied(bytes: *const c_void, len: usize) -> Result<Bytes<'static>, Failure> {
    require_memory()?;
    // SAFETY: the caller's promise.
    Ok(Bytes::Read(Arc::new(try_copy(unsafe { bytes_of(bytes, len)? })?)))
}

/// # Safety
/// Null, or a live handle of that type.
unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise. Of a handle that others may use at the same time there are only
    // shared references.
    unsafe { handle.as_ref() }.ok_or_else(|| format!("the {what} is null").into())
}

/// Takes a handle back from C.
///
/// # Safety
/// Null, or a handle that [`give`] gave and nobody uses any more.
unsafe fn take<T>(handle: *mut T, what: &str) -> Result<Box<T>, Failure> {
    if handle.is_null() {
        return Err(format!("the {what} is null").into());
    }
    // SAFETY: the caller's promise: it came from `Box::into_raw`, and this is the only taker.
    Ok(unsafe { Box::from_raw(handle) })
}

/// Gives a handle to C; null for `None`.
fn give<T>(value: Option<T>) -> *mut T {
    value.map_or(ptr::null_mut(), |value| Box::into_raw(Box::new(value)))
}

// ------------------------------------------------------------------------------------------------
// Loading

impl LibraryHandle {
    fn new(library: Held) -> Result<LibraryHandle, Failure> {
        require_memory()?;
        let name = c_string(library.name())?;
        let soname = library.soname().map(c_string).transpose()?;
        Ok(LibraryHandle { library, name, soname })
    }
}

/// The loader of these options; null are the defaults.
///
/// # Safety
/// Null, or options that live, and that nobody changes, for `'a`.
unsafe fn loader_of<'a>(options: *const Options) -> Cow<'a, Loader> {
    // SAFETY: the caller's promise.
    let options = unsafe { options.as_ref() };
    options.map_or_else(|| Cow::Owned(Loader::new()), |options| Cow::Borrowed(&options.loader))
}

/// What a load gave, as a handle.
fn loaded(result: Result<Library, crate::Error>) -> *mut LibraryHandle {
    give(caught(|| LibraryHandle::new(Held::Own(result?))))
}

/// The half of a load that runs code of the library.
///
/// # Safety
/// As [`Library::from_bytes`].
unsafe fn instantiated(prepared: Option<Prepared<'_>>) -> *mut LibraryHandle {
    let Some(prepared) = prepared else { return ptr::null_mut() };
    // SAFETY: the caller's promise.
    loaded(transparent(|| unsafe { Library::only(prepared) }))
}

/// Loads a library from its bytes.
///
/// # Safety
/// The header's contract: runs constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_open(
    bytes: *const c_void,
    len: usize,
    options: *const Options,
) -> *mut LibraryHandle {
    let prepared = caught(|| {
        // SAFETY: the header's contract.
        let (bytes, loader) = unsafe { (bytes_of(bytes, len)?, loader_of(options)) };
        // SAFETY: the header's contract: the library may be run.
        let may_run = unsafe { MayRun::promised() };
        Ok(startup::prepare(
            &loader.settings,
            Bytes::Borrowed(bytes),
            Instances::One,
            Some(may_run),
        )?)
    });
    // SAFETY: the header's contract: the library may be run.
    unsafe { instantiated(prepared) }
}

/// Loads a library from a buffer, which it takes, whatever comes of it.
///
/// # Safety
/// The header's contract: runs constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_open_buffer(
    buffer: *mut BufferHandle,
    options: *const Options,
) -> *mut LibraryHandle {
    let prepared = caught(|| {
        // SAFETY: the header's contract.
        let (buffer, loader) = unsafe { (take(buffer, "buffer")?.buffer, loader_of(options)) };
        // SAFETY: the header's contract: the library may be run.
        let may_run = unsafe { MayRun::promised() };
        let bytes = Bytes::Buffer(Arc::new(buffer));
        Ok(startup::prepare(&loader.settings, bytes, Instances::One, Some(may_run))?)
    });
    // SAFETY: the header's contract: the library may be run.
    unsafe { instantiated(prepared) }
}

/// Unloads a library.
///
/// # Safety
/// The header's contract: runs destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_close(library: *mut LibraryHandle) -> c_int {
    // SAFETY: the header's contract.
    let Some(handle) = caught(|| unsafe { take(library, "library") }) else { return -1 };
    let closed = transparent(|| match handle.library {
        Held::Own(library) => library.close(),
        Held::OfPool(library) => {
            library.release();
            Ok(())
        }
    });
    status(noted(closed.map_err(Failure::from)))
}

/// [`release_memory`](crate::release_memory).
#[unsafe(no_mangle)]
pub extern "C" fn memdl_release_memory() {
    transparent(crate::release_memory);
}

/// [`wipe_kept_memory`](crate::wipe_kept_memory).
#[unsafe(no_mangle)]
pub extern "C" fn memdl_wipe_kept_memory(wipe: c_int) {
    transparent(|| crate::wipe_kept_memory(wipe != 0));
}

/// [`Library::set_debug`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_set_debug(library: *const LibraryHandle, debug: c_int) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract.
        let library = unsafe { &handle(library, "library")?.library };
        Ok(library.set_debug(debug_of(debug)?)?)
    }))
}

/// [`Library::set_debug_info`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_set_debug_info(
    library: *const LibraryHandle,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract.
        let (library, bytes) =
            unsafe { (&handle(library, "library")?.library, bytes_of(bytes, len)?) };
        Ok(library.set_debug_info(bytes)?)
    }))
}

/// Parses and binds a library, for many instances.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_prepare(
    bytes: *const c_void,
    len: usize,
    options: *const Options,
) -> *mut TemplateHandle {
    give(caught(|| {
        // SAFETY: the header's contract.
        let (bytes, loader) = unsafe { (bytes_of(bytes, len)?, loader_of(options)) };
        // SAFETY: the header's contract: what the library needs may be run.
        Ok(TemplateHandle(unsafe { loader.prepare(bytes)? }))
    }))
}

/// One more instance.
///
/// # Safety
/// The header's contract: runs constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_instantiate(
    template: *const TemplateHandle,
) -> *mut LibraryHandle {
    // SAFETY: the header's contract.
    let template = caught(|| unsafe { handle(template, "template") });
    let Some(TemplateHandle(template)) = template else { return ptr::null_mut() };
    // SAFETY: the header's contract: the library may be run.
    loaded(transparent(|| unsafe { template.instantiate() }))
}

/// Frees a template; its instances stay.
///
/// # Safety
/// The header's contract. It may be the last to hold on to libraries, whose destructors then run.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_template_free(template: *mut TemplateHandle) {
    if !template.is_null() {
        // SAFETY: the header's contract.
        let template = caught(|| unsafe { take(template, "template") });
        transparent(|| drop(template));
    }
}

/// [`Template::pool`], which resets to this.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_pool_new(
    template: *const TemplateHandle,
    capacity: usize,
    reset: c_int,
) -> *mut PoolHandle {
    give(caught(|| {
        // SAFETY: the header's contract.
        let TemplateHandle(template) = unsafe { handle(template, "template")? };
        let reset = match reset {
            0 => Reset::AfterConstructors,
            1 => Reset::BeforeConstructors,
            other => return Err(format!("there is no memdl_reset {other}").into()),
        };
        Ok(PoolHandle(template.pool(capacity).reset_to(reset)))
    }))
}

/// [`Pool::acquire`].
///
/// # Safety
/// The header's contract: runs constructors, and when the library is closed destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_pool_acquire(pool: *const PoolHandle) -> *mut LibraryHandle {
    // SAFETY: the header's contract.
    let pool = caught(|| unsafe { handle(pool, "pool") });
    let Some(PoolHandle(pool)) = pool else { return ptr::null_mut() };
    // SAFETY: the header's contract: the library may be run, and is not running when it is closed.
    let acquired = transparent(|| unsafe { pool.acquire() });
    give(caught(|| LibraryHandle::new(Held::OfPool(acquired?))))
}

/// How many instances wait.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_pool_parked(pool: *const PoolHandle) -> usize {
    caught(|| {
        // SAFETY: the header's contract.
        let PoolHandle(pool) = unsafe { handle(pool, "pool")? };
        Ok(pool.parked())
    })
    .unwrap_or(0)
}

/// Frees a pool and unloads what waits in it.
///
/// # Safety
/// The header's contract: runs destructors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_pool_free(pool: *mut PoolHandle) {
    if !pool.is_null() {
        // SAFETY: the header's contract.
        let pool = caught(|| unsafe { take(pool, "pool") });
        transparent(|| drop(pool));
    }
}

// ------------------------------------------------------------------------------------------------
// Buffers

/// Zeroed memory to receive a library into.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_buffer_new(len: usize) -> *mut BufferHandle {
    give(caught(|| {
        let mut buffer = ImageBuffer::new(len)?;
        let data = buffer.as_mut_ptr().cast();
        Ok(BufferHandle { buffer, data })
    }))
}

/// The buffer's bytes.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_data(buffer: *const BufferHandle) -> *mut c_void {
    // SAFETY: the header's contract.
    let buffer = caught(|| unsafe { handle(buffer, "buffer") });
    buffer.map_or(ptr::null_mut(), |buffer| buffer.data)
}

/// How many there are.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_size(buffer: *const BufferHandle) -> usize {
    // SAFETY: the header's contract. Asks for the length alone: C may be writing to the bytes.
    let buffer = caught(|| unsafe { handle(buffer, "buffer") });
    buffer.map_or(0, |buffer| buffer.buffer.len())
}

/// Frees a buffer that was not given to `memdl_open_buffer`.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_buffer_free(buffer: *mut BufferHandle) {
    if !buffer.is_null() {
        // SAFETY: the header's contract.
        caught(|| unsafe { take(buffer, "buffer") }.map(drop));
    }
}

// ------------------------------------------------------------------------------------------------
// Symbols

/// # Safety
/// The header's contract.
unsafe fn symbol(
    library: *const LibraryHandle,
    name: *const c_char,
    version: Option<*const c_char>,
) -> *mut c_void {
    let address = caught(|| {
        // SAFETY: the header's contract. The symbol's type does not matter for its address.
        unsafe {
            let library = &handle(library, "library")?.library;
            let name = c_str(name)?.to_bytes();
            let found = match version {
                None => library.get::<*mut c_void>(name)?,
                Some(version) => library.get_versioned(name, c_str(version)?.to_bytes())?,
            };
            Ok(found.as_raw_ptr())
        }
    });
    address.unwrap_or(ptr::null_mut())
}

/// As `dlsym`.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_sym(
    library: *const LibraryHandle,
    name: *const c_char,
) -> *mut c_void {
    // SAFETY: the header's contract.
    unsafe { symbol(library, name, None) }
}

/// As `dlvsym`.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_symv(
    library: *const LibraryHandle,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    // SAFETY: the header's contract.
    unsafe { symbol(library, name, Some(version)) }
}

/// An exported symbol with strings for C.
struct OwnedSymbol {
    /// The strings that `c` points to.
    _name: CString,
    _version: Option<CString>,
    c: CSymbol,
}

impl OwnedSymbol {
    fn new(symbol: &ExportedSymbol<'_>) -> Result<OwnedSymbol, Failure> {
        let name = c_string(symbol.name())?;
        let version = symbol.version().map(c_string).transpose()?;
        let c = CSymbol {
            name: name.as_ptr(),
            version: pointer(&version),
            kind: match symbol.kind() {
                SymbolKind::Other => 0,
                SymbolKind::Object => 1,
                SymbolKind::Function => 2,
                SymbolKind::ThreadLocal => 6,
                SymbolKind::IndirectFunction => 10,
            },
            is_default_version: symbol.is_default_version().into(),
            size: symbol.size(),
            address: symbol.address(),
        };
        Ok(OwnedSymbol { _name: name, _version: version, c })
    }
}

/// Shows all exported symbols, until the callback has seen enough.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_symbols(
    library: *const LibraryHandle,
    callback: Option<SymbolCallback>,
    user: *mut c_void,
) -> c_int {
    let input = caught(|| {
        // SAFETY: the header's contract.
        let library = &unsafe { handle(library, "library")? }.library;
        Ok((library.symbols(), callback.ok_or("the callback is null")?))
    });
    let Some((mut symbols, callback)) = input else { return -1 };
    loop {
        match caught(|| symbols.next().map(|symbol| OwnedSymbol::new(&symbol)).transpose()) {
            None => return -1,
            Some(None) => return 0,
            Some(Some(symbol)) => {
                // SAFETY: the header's contract; the symbol and its strings live during the call.
                let answer = transparent(|| unsafe { callback(&symbol.c, user) });
                if answer != 0 {
                    return answer;
                }
            }
        }
    }
}

/// The exported symbol that an address lies in.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_symbol_at(
    library: *const LibraryHandle,
    address: *const c_void,
) -> *const CSymbol {
    let found = caught(|| {
        // SAFETY: the header's contract.
        let library = &unsafe { handle(library, "library")? }.library;
        let symbol = library
            .symbol_at(address.addr())
            .ok_or_else(|| format!("{}: no exported symbol is at {address:p}", library.name()))?;
        let symbol = OwnedSymbol::new(&symbol)?;
        require_memory()?;
        let kept = with_texts(|texts| &raw const texts.symbol.insert(symbol).c);
        kept.ok_or_else(|| "the thread is ending".into())
    });
    found.unwrap_or(ptr::null())
}

/// A frame with strings for C.
struct OwnedFrame {
    /// The strings that `c` points to.
    _strings: [Option<CString>; 4],
    c: CFrame,
}

impl OwnedFrame {
    fn new(frame: &Frame) -> Result<OwnedFrame, Failure> {
        require_memory()?;
        let strings = [
            Some(c_string(frame.image())?),
            frame.function().map(|name| c_string(&name)).transpose()?,
            frame.linkage_name().map(c_string).transpose()?,
            frame.file().map(|file| c_string(&file.to_string_lossy())).transpose()?,
        ];
        let [image, function, linkage_name, file] = strings.each_ref().map(pointer);
        let c = CFrame {
            image,
            function,
            linkage_name,
            file,
            line: frame.line().unwrap_or(0),
            column: frame.column().unwrap_or(0),
            is_inlined: frame.is_inlined().into(),
            address: frame.address().0,
        };
        Ok(OwnedFrame { _strings: strings, c })
    }
}

/// Shows the functions that an address in a library lies in.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_symbolize(
    address: *const c_void,
    callback: Option<FrameCallback>,
    user: *mut c_void,
) -> c_int {
    // It may be the last to hold on to a library, whose destructors then run.
    let frames = transparent(|| crate::symbolize(address.addr()));
    let input = caught(|| {
        let frames = try_collect_ok(frames.iter().map(OwnedFrame::new))?;
        Ok((frames, callback.ok_or("the callback is null")?))
    });
    let Some((frames, callback)) = input else { return -1 };
    for frame in &frames {
        // SAFETY: the header's contract; the frame and its strings live during the call.
        let answer = transparent(|| unsafe { callback(&frame.c, user) });
        if answer != 0 {
            return answer;
        }
    }
    0
}

/// What the library is called.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_name(library: *const LibraryHandle) -> *const c_char {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(ptr::null(), |library| library.name.as_ptr())
}

/// Its `DT_SONAME`, or null.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_soname(library: *const LibraryHandle) -> *const c_char {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(ptr::null(), |library| pointer(&library.soname))
}

/// Run-time address minus stated address.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_load_bias(library: *const LibraryHandle) -> usize {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(0, |library| library.library.load_bias())
}

/// Where it lies.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_address_range(
    library: *const LibraryHandle,
    start: *mut usize,
    end: *mut usize,
) -> c_int {
    status(caught(|| {
        // SAFETY: the header's contract: each is null, or may be written to.
        unsafe {
            let range = handle(library, "library")?.library.address_range();
            if let Some(start) = start.as_mut() {
                *start = range.start;
            }
            if let Some(end) = end.as_mut() {
                *end = range.end;
            }
        }
        Ok(())
    }))
}

// ------------------------------------------------------------------------------------------------
// Options

/// The defaults.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_options_new() -> *mut Options {
    give(caught(|| {
        require_memory()?;
        Ok(Options::default())
    }))
}

/// Frees options; what was loaded with them stays.
///
/// # Safety
/// The header's contract. They may be the last to hold on to libraries (`memdl_options_depends_on`),
/// whose destructors then run.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_options_free(options: *mut Options) {
    if !options.is_null() {
        // SAFETY: the header's contract.
        let options = caught(|| unsafe { take(options, "options") });
        transparent(|| drop(options));
    }
}

/// Applies a builder function to the loader.
///
/// # Safety
/// Null, or live options that nobody else uses meanwhile.
unsafe fn set(
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
    fn change(&mut self, change: impl FnOnce(Loader) -> Loader) -> Result<(), Failure> {
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

/// C's context for its resolver.
struct User(*mut c_void);

// SAFETY: memdl does nothing with the pointer but hand it to the resolver, which the header allows
// to be called in any thread that loads with these options.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// C's context for a callback that images in place may need, freed with the last of them.
struct OwnedUser {
    user: User,
    free: Option<FreeUser>,
}

impl Drop for OwnedUser {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the header's contract: once, when nobody uses it any more.
            unsafe { free(self.user.get()) };
        }
    }
}

/// Calls `ask` with the request as C sees it; `None` if there is no memory for that.
fn with_c_request<T>(request: &SymbolRequest<'_>, ask: impl FnOnce(&CRequest) -> T) -> Option<T> {
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
    let user = OwnedUser { user: User(user), free: free_user };
    let verify = move |verifier: Verifier, request: &VerifyRequest<'_>| {
        let name = c_string(request.name()).map_err(|_| "out of memory")?;
        let (bytes, len) = (request.bytes().as_ptr().cast(), request.bytes().len());
        let image = CImage { name: name.as_ptr(), bytes, len };
        let mut reason = ptr::null();
        // SAFETY: the header's contract; the image lives during the call.
        if unsafe { verifier(&image, &mut reason, user.user.get()) } == 0 {
            return Ok(());
        }
        if reason.is_null() {
            return Err("it gives no reason".into());
        }
        // SAFETY: the header's contract: a C string that is good for now.
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

/// # Safety
/// Null if there are none, or so many strings that are null or C strings.
unsafe fn names_of(names: *const *const c_char, count: usize) -> Result<Vec<String>, Failure> {
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
unsafe fn set_imports(
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
    let user = OwnedUser { user: User(user), free: free_user };
    let imports = match filter {
        None => Imports::all(),
        Some(filter) => Imports::filter(move |request| {
            let user = &user;
            // SAFETY: the header's contract; the request lives during the call.
            let allows = |request: &CRequest| unsafe { filter(request, user.user.get()) } != 0;
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

/// [`Library::is_sealed`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_is_sealed(library: *const LibraryHandle) -> c_int {
    // SAFETY: the header's contract.
    let library = caught(|| unsafe { handle(library, "library") });
    library.map_or(-1, |library| library.library.is_sealed().into())
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
    let user = User(user);
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

/// [`Loader::depends_on`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_depends_on(
    options: *mut Options,
    library: *const LibraryHandle,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        set(options, |options| {
            let library = &handle(library, "library")?.library;
            options.change(|loader| loader.depends_on(library))
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

/// What profilers are told.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_options_set_profile(options: *mut Options, profile: c_int) -> c_int {
    // SAFETY: the header's contract.
    unsafe { set(options, |options| options.set_profile(profile)) }
}

impl Options {
    fn set_debug(&mut self, debug: c_int) -> Result<(), Failure> {
        let debug = debug_of(debug)?;
        self.change(|loader| loader.debug(debug))
    }

    fn set_profile(&mut self, profile: c_int) -> Result<(), Failure> {
        let profile = match profile {
            0 => Profile::Off,
            1 => Profile::PerfMap,
            2 => Profile::LivePerfMap,
            3 => Profile::JitDump,
            other => return Err(format!("there is no memdl_profile {other}").into()),
        };
        self.change(|loader| loader.profile(profile))
    }
}

/// A `memdl_debug` of the header's.
fn debug_of(debug: c_int) -> Result<Debug, Failure> {
    Ok(match debug {
        0 => Debug::Off,
        1 => Debug::Symbols,
        2 => Debug::Full,
        3 => Debug::Portable,
        other => return Err(format!("there is no memdl_debug {other}").into()),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn last_error() -> Option<String> {
        let text = memdl_error();
        // SAFETY: null, or a C string that lives until this thread's next `memdl_error`.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    #[test]
    fn a_panic_is_an_error_like_others() {
        assert_eq!(last_error(), None);
        assert!(caught(|| -> Result<(), Failure> { panic!("as a test, {}", 1) }).is_none());
        assert_eq!(last_error().as_deref(), Some("memdl panicked: as a test, 1"));
        assert_eq!(last_error(), None);
    }

    #[test]
    fn a_nul_in_a_text_is_escaped() {
        assert!(noted::<()>(Err("told\0told".into())).is_none());
        assert_eq!(last_error().as_deref(), Some("told\\u{0}told"));
    }

    #[test]
    fn without_memory_the_text_takes_none() {
        assert!(noted::<()>(Err(crate::Error::out_of_memory(7).into())).is_none());
        assert_eq!(last_error().as_deref(), Some(": out of memory: 7 bytes are not to be had"));
        NO_MEMORY.set(true);
        assert_eq!(last_error().as_deref(), Some("out of memory"));
        assert_eq!(last_error(), None);
    }

    #[test]
    fn what_is_transparent_gives_its_value() {
        assert_eq!(transparent(|| 5), 5);
    }
}
