//! A preload library that loads with memdl what a program opens by `dlopen`: docs/shim.md.
//!
//! It defines `dlopen` and its companions. For a call of `dlopen` by the program, or by a library that `ld.so`
//! loaded, it finds the file that `ld.so` would have found, and memdl loads the file's bytes. All loads share
//! one namespace. What memdl refuses, and all that is not for memdl, goes on to the C library, with the return
//! address that the call had: there it tells who calls. Images call memdl's own functions.
//!
//! Sources: `dlopen(3)`, `dlsym(3)`, `ld.so(8)`.

mod real;
mod routes;

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memdl::internals::interposed;
use memdl::{Error, Loader, Namespace};

/// The answer to a call, in two registers.
#[repr(C)]
struct Answer {
    value: *mut c_void,
    /// 0: the C library answers.
    is_answered: usize,
}

impl Answer {
    const PASS_ON: Answer = Answer { value: ptr::null_mut(), is_answered: 0 };

    fn of(value: *mut c_void) -> Answer {
        Answer { value, is_answered: 1 }
    }
}

/// Defines the C library's function `$name`, of at most three arguments. It asks `$answer`, which gets them
/// and the return address, and jumps to the C library's if there is no answer.
macro_rules! unless_answered {
    ($($name:ident => $answer:ident, else $real:ident;)*) => {
        $(
            /// As the C library's function.
            ///
            /// # Safety
            /// As the C library's function.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C-unwind" fn $name() {
                std::arch::naked_asm!(
                    ".cfi_startproc",
                    "mov rcx, qword ptr [rsp]",
                    "push rdi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rdx",
                    ".cfi_adjust_cfa_offset 8",
                    "call {answer}",
                    "mov r11, rdx",
                    "pop rdx",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rsi",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rdi",
                    ".cfi_adjust_cfa_offset -8",
                    "test r11, r11",
                    "jz 2f",
                    "ret",
                    "2:",
                    "jmp qword ptr [rip + {real}]",
                    ".cfi_endproc",
                    answer = sym $answer,
                    real = sym real::$real,
                )
            }
        )*
    };
}

unless_answered! {
    dlopen => answer_dlopen, else DLOPEN;
    dlsym => answer_dlsym, else DLSYM;
    dlvsym => answer_dlvsym, else DLVSYM;
}

/// An image was loaded.
static HAS_IMAGES: AtomicBool = AtomicBool::new(false);

/// How all files are loaded.
fn loader() -> &'static Loader {
    static LOADER: OnceLock<Loader> = OnceLock::new();
    LOADER.get_or_init(|| Loader::new().system_libraries(true).namespace(&Namespace::new()))
}

/// memdl's function of this name.
///
/// # Safety
/// `F` is the type of the C library's function of this name.
unsafe fn service<F: Copy>(name: &str) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>(), "a function pointer") };
    let Some(address) = interposed::service(name) else { std::process::abort() };
    // SAFETY: memdl's functions have the types of those that they stand for.
    unsafe { std::mem::transmute_copy(&address) }
}

/// The C library's function.
///
/// # Safety
/// `F` is its type. It was looked up.
unsafe fn real<F: Copy>(function: &AtomicUsize) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>(), "a function pointer") };
    // SAFETY: the caller's promise.
    unsafe { std::mem::transmute_copy(&function.load(Ordering::Acquire)) }
}

type Dlopen = unsafe extern "C-unwind" fn(*const c_char, c_int) -> *mut c_void;
type Dlsym = unsafe extern "C-unwind" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlclose = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;
type Dlerror = unsafe extern "C" fn() -> *mut c_char;
type Dlvsym = unsafe extern "C-unwind" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

/// # Safety
/// `path` is null or a C string. Runs the library's constructors.
unsafe extern "C-unwind" fn answer_dlopen(
    path: *const c_char,
    flags: c_int,
    _: usize,
    caller: usize,
) -> Answer {
    real::find();
    forget_error();
    if path.is_null() {
        return Answer::PASS_ON;
    }
    if interposed::is_of_image(caller) {
        // SAFETY: the caller's promise. An image that got the address of this function: as memdl's own, which
        // finds the image on the stack.
        return Answer::of(unsafe { service::<Dlopen>("dlopen")(path, flags) });
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(path) };
    match open(name, flags, caller) {
        Some(handle) => Answer::of(handle),
        None => Answer::PASS_ON,
    }
}

/// A handle of an image; `None` if the C library is to open what `name` means.
fn open(name: &CStr, flags: c_int, caller: usize) -> Option<*mut c_void> {
    // `ld.so` replaces its dynamic string tokens.
    if name.is_empty() || name.to_bytes().contains(&b'$') {
        return None;
    }
    if let Ok(Some(handle)) = interposed::open_named(loader(), name, flags) {
        return Some(handle);
    }
    let is_path = name.to_bytes().contains(&b'/');
    if !is_path && is_loaded(name) {
        return None;
    }
    let file = match is_path {
        true => PathBuf::from(OsStr::from_bytes(name.to_bytes())),
        false => interposed::find(name, caller).ok()??,
    };
    if let Ok(Some(handle)) = interposed::open_loaded(loader(), &file, flags) {
        return Some(handle);
    }
    let is_wanted = flags & libc::RTLD_NOLOAD == 0 && routes::is_for_memdl(&file);
    // A name that does not change with the current folder.
    let file = std::path::absolute(&file).ok()?;
    let path = CString::new(file.as_os_str().as_bytes()).ok()?;
    if !is_wanted || !file.is_file() || is_loaded(&path) {
        return None;
    }
    // SAFETY: the caller of `dlopen` asks for the library's constructors to run.
    match unsafe { interposed::open(loader(), &file, flags) } {
        Ok(handle) => {
            HAS_IMAGES.store(true, Ordering::Relaxed);
            routes::log("loaded", &file, None);
            Some(handle)
        }
        Err(error) => refused(&file, &path, flags, &error),
    }
}

/// `ld.so`'s handle of a file that memdl refuses; `None` if `ld.so` refuses it as well.
fn refused(file: &Path, path: &CStr, flags: c_int, error: &Error) -> Option<*mut c_void> {
    // SAFETY: the C library's functions. The caller of `dlopen` asks for the library's constructors to run.
    // There is an error where there is no handle; its text is valid until the next call in this thread.
    unsafe {
        let handle = real::<Dlopen>(&real::DLOPEN)(path.as_ptr(), flags);
        if !handle.is_null() {
            routes::log("refused", file, Some(error));
            return Some(handle);
        }
        let of_ld_so = CStr::from_ptr(real::<Dlerror>(&real::DLERROR)()).to_string_lossy();
        routes::log("neither", file, Some(&format_args!("{error}; ld.so: {of_ld_so}")));
    }
    None
}

/// Whether `ld.so` has a library of this name.
fn is_loaded(name: &CStr) -> bool {
    // SAFETY: the C library's functions. With RTLD_NOLOAD no code runs. The error is not the caller's.
    unsafe {
        let handle =
            real::<Dlopen>(&real::DLOPEN)(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if handle.is_null() {
            real::<Dlerror>(&real::DLERROR)();
            return false;
        }
        real::<Dlclose>(&real::DLCLOSE)(handle);
    }
    true
}

/// # Safety
/// As the C library's `dlsym`.
unsafe extern "C-unwind" fn answer_dlsym(
    handle: *mut c_void,
    name: *const c_char,
    _: usize,
    caller: usize,
) -> Answer {
    // SAFETY: the caller's promise.
    answer_symbol(handle, caller, |handle| unsafe { service::<Dlsym>("dlsym")(handle, name) })
}

/// # Safety
/// As the C library's `dlvsym`.
unsafe extern "C-unwind" fn answer_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> Answer {
    // SAFETY: the caller's promise.
    answer_symbol(handle, caller, |handle| unsafe {
        service::<Dlvsym>("dlvsym")(handle, name, version)
    })
}

fn answer_symbol(
    handle: *mut c_void,
    caller: usize,
    find: impl Fn(*mut c_void) -> *mut c_void,
) -> Answer {
    real::find();
    forget_error();
    if !HAS_IMAGES.load(Ordering::Relaxed) {
        return Answer::PASS_ON;
    }
    if interposed::is_handle(handle) {
        return Answer::of(find(handle));
    }
    let executable = executable();
    let is_scope = handle == libc::RTLD_DEFAULT || handle == executable;
    if !is_scope || interposed::is_of_image(caller) {
        return Answer::PASS_ON;
    }
    // Global images come behind the libraries of `ld.so`'s global scope.
    let found = find(executable);
    if found.is_null() {
        // The C library says what is missing.
        forget_error();
        return Answer::PASS_ON;
    }
    if interposed::is_of_image(found.addr()) { Answer::of(found) } else { Answer::PASS_ON }
}

/// Discards the error that `dlerror` would report next: what the C library answers leaves memdl's as it is.
fn forget_error() {
    // SAFETY: no preconditions. The text is not read.
    unsafe { service::<Dlerror>("dlerror")() };
}

/// The handle that `dlopen(NULL)` gives.
fn executable() -> *mut c_void {
    static HANDLE: OnceLock<usize> = OnceLock::new();
    // SAFETY: the C library's function. Null asks for the executable.
    let open = || unsafe { real::<Dlopen>(&real::DLOPEN)(ptr::null(), libc::RTLD_LAZY) }.addr();
    let handle = HANDLE.get_or_init(open);
    *handle as *mut c_void
}

/// As the C library's function.
///
/// # Safety
/// As the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { service::<Dlclose>("dlclose")(handle) }
}

/// As the C library's function.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlerror() -> *mut c_char {
    // SAFETY: no preconditions.
    unsafe { service::<Dlerror>("dlerror")() }
}

/// As the C library's function.
///
/// # Safety
/// As the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlinfo(handle: *mut c_void, request: c_int, info: *mut c_void) -> c_int {
    type Dlinfo = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;
    // SAFETY: the caller's promise.
    unsafe { service::<Dlinfo>("dlinfo")(handle, request, info) }
}

/// As the C library's function.
///
/// # Safety
/// As the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dladdr(address: *const c_void, info: *mut libc::Dl_info) -> c_int {
    type Dladdr = unsafe extern "C" fn(*const c_void, *mut libc::Dl_info) -> c_int;
    // SAFETY: the caller's promise.
    unsafe { service::<Dladdr>("dladdr")(address, info) }
}

/// As the C library's function.
///
/// # Safety
/// As the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dladdr1(
    address: *const c_void,
    info: *mut libc::Dl_info,
    extra: *mut *mut c_void,
    flags: c_int,
) -> c_int {
    type Dladdr1 =
        unsafe extern "C" fn(*const c_void, *mut libc::Dl_info, *mut *mut c_void, c_int) -> c_int;
    // SAFETY: the caller's promise.
    unsafe { service::<Dladdr1>("dladdr1")(address, info, extra, flags) }
}
