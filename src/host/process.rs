//! The process as a whole: its arguments, the walk through its libraries, and the object that memdl is
//! linked into.
//!
//! `ld.so` passes the process's `argc`, `argv` and `envp` to the constructors of each object. memdl gets them
//! the same way, by a constructor of the object that it is linked into. Knows no library's symbols.
//!
//! Sources: `dl_iterate_phdr(3)`, `dladdr(3)`, glibc `elf/dl-init.c`.

#![allow(unsafe_code)]

use std::env;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use crate::base::environment;
use crate::base::error::Error;
use crate::base::sync;
use crate::base::tls_index::{ModuleId, TlsIndex};
use crate::memory::relro::write_relro;

/// The arguments of a constructor.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    pub argc: c_int,
    pub argv: *const *const c_char,
    pub envp: *const *const c_char,
}

static ARGC: AtomicI32 = AtomicI32::new(0);
static ARGV: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// glibc calls initialisers with the arguments of `main`.
unsafe extern "C" fn remember_arguments(
    argc: c_int,
    argv: *mut *const c_char,
    _envp: *mut *const c_char,
) {
    ARGC.store(argc, Ordering::Relaxed);
    ARGV.store(argv, Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static INIT: unsafe extern "C" fn(c_int, *mut *const c_char, *mut *const c_char) =
    remember_arguments;

/// A variable of the environment that the process was started with, which is what `ld.so` read. Nothing in a
/// process that runs with more rights than its user has (`secure_getenv(3)`).
pub(super) fn initial_variable(name: &str) -> Option<OsString> {
    if environment::is_secure() {
        return None;
    }
    let Ok(variables) = fs::read("/proc/self/environ") else { return env::var_os(name) };
    let mut variables = variables.split(|&byte| byte == 0);
    let value =
        |it: &[u8]| it.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec);
    variables.find_map(value).map(OsString::from_vec)
}

/// The version of the C library, as `2.36`.
pub(super) fn glibc_version() -> &'static CStr {
    // SAFETY: a constant C string of the C library.
    unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }
}

/// Whether this is glibc 2.`minor` or later.
pub(super) fn is_glibc_since(minor: u32) -> bool {
    let version = glibc_version().to_bytes().strip_prefix(b"2.");
    let digits = version.and_then(|it| it.split(|byte| !byte.is_ascii_digit()).next());
    let number = digits.and_then(|it| str::from_utf8(it).ok()?.parse().ok());
    number.is_none_or(|it: u32| it >= minor)
}

/// What `$PLATFORM` stands for.
pub(super) fn platform() -> Option<&'static CStr> {
    // SAFETY: no preconditions.
    let platform = unsafe { libc::getauxval(libc::AT_PLATFORM) } as *const c_char;
    // SAFETY: a string that the kernel placed above the stack when the process was started.
    (!platform.is_null()).then(|| unsafe { CStr::from_ptr(platform) })
}

/// A callback of `dl_iterate_phdr`.
pub(crate) type Visitor =
    unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;

/// The address of `dl_iterate_phdr` of the C library, or of a library that puts its own in its place: without images,
/// also where an unwinder is linked into the same object as memdl, so that the object's references to it lead to images.
pub(crate) fn real_iterate_phdr() -> usize {
    /// The first call comes before any reference is changed, and not from a signal handler.
    static FUNCTION: AtomicUsize = AtomicUsize::new(0);
    let mut function = FUNCTION.load(Ordering::Relaxed);
    if function == 0 {
        // SAFETY: a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"dl_iterate_phdr".as_ptr()) };
        function = if found.is_null() {
            libc::dl_iterate_phdr as *const () as usize
        } else {
            found.addr()
        };
        FUNCTION.store(function, Ordering::Relaxed);
    }
    function
}

/// Calls the function of [`real_iterate_phdr`].
///
/// # Safety
/// `visit` can be called with `data`.
pub(crate) unsafe fn iterate_phdr(visit: Visitor, data: *mut c_void) -> c_int {
    type Function = unsafe extern "C" fn(Visitor, *mut c_void) -> c_int;
    let function = ptr::without_provenance::<c_void>(real_iterate_phdr());
    // SAFETY: the function has this type by its documentation; the rest is the caller's promise.
    unsafe { std::mem::transmute::<*const c_void, Function>(function)(visit, data) }
}

/// `dl_iterate_phdr`, for visitors of memdl only.
///
/// # Safety
/// `visit` can be called with `data`, and neither forks nor calls this function.
pub(crate) unsafe fn visit_libraries(visit: Visitor, data: *mut c_void) {
    // glibc locks the list meanwhile, and a forked child would find it locked.
    let _no_fork = sync::hold_off_fork();
    // SAFETY: the caller's promise.
    unsafe { iterate_phdr(visit, data) };
}

/// Calls `act` while no other thread of the process does so, whichever copy of memdl it is in: all copies share
/// `ld.so`, whose lock is held meanwhile.
///
/// `act` must not fork, call this function, load, unload, or look symbols up.
pub(crate) fn alone(act: &mut dyn FnMut()) {
    unsafe extern "C" fn visit(_: *mut libc::dl_phdr_info, _: usize, act: *mut c_void) -> c_int {
        // SAFETY: the reference below.
        unsafe { (*act.cast::<&mut dyn FnMut()>())() };
        1
    }
    let mut act = act;
    // SAFETY: the pointer is to the local, which is not used meanwhile. A panic in the function ends the
    // process.
    unsafe { visit_libraries(visit, (&raw mut act).cast()) };
}

/// A request of `dladdr1` (`<dlfcn.h>`).
pub(crate) const RTLD_DL_LINKMAP: c_int = 2;

unsafe extern "C" {
    pub(crate) fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
}

/// Keeps the object that memdl is linked into from being unloaded. Does nothing if that is the executable.
pub(super) fn stay_loaded() {
    // The executable has no name, and is never unloaded.
    if let Some(name) = own_name().filter(|name| !name.is_empty()) {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: a C string. The flags load nothing; they mark a loaded library.
        unsafe { libc::dlopen(name.as_ptr(), flags) };
    }
}

/// The name that `ld.so` has for the object that memdl is linked into; empty for the executable.
pub(super) fn own_name() -> Option<CString> {
    // SAFETY: `Dl_info` is plain data that `dladdr1` fills in. The link map begins with two words
    // (`<link.h>`), the second its name; `ld.so` owns both for as long as the library is loaded.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let mut link_map = ptr::null_mut();
        let code = stay_loaded as *const c_void;
        if dladdr1(code, &mut info, &mut link_map, RTLD_DL_LINKMAP) == 0 || link_map.is_null() {
            return None;
        }
        let [_, name] = *link_map.cast::<[*const c_char; 2]>();
        (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
    }
}

/// The calling thread's address of a thread-local variable of a library that `ld.so` loaded.
///
/// # Safety
/// The library is loaded, and `offset` lies in its block.
pub(crate) unsafe fn tls_address(module: ModuleId, offset: u64) -> *mut c_void {
    unsafe extern "C" {
        fn __tls_get_addr(index: *const TlsIndex) -> *mut c_void;
    }
    let index = TlsIndex { ti_module: module.0, ti_offset: offset as usize };
    // SAFETY: a pair as relocations store it; the rest is the caller's promise.
    unsafe { __tls_get_addr(&index) }
}

/// Writes `values` into the initial values for new threads, `offset` bytes into memdl's thread-local variable
/// that lies at `variable` in the calling thread.
///
/// They are in the object that memdl is linked into, usually in its RELRO, which is writable for that moment.
pub(crate) fn write_tls_template(
    variable: usize,
    offset: usize,
    values: &[u8],
) -> Result<(), Error> {
    let unknown = || {
        let source = io::ErrorKind::Unsupported.into();
        Error::system("finding the initial values of new threads' variables", source)
    };
    let object = Object::of_this_code().ok_or_else(unknown)?;
    // SAFETY: the start of the block of memdl's own variables, of which `variable` is one.
    let tls_block = unsafe { tls_address(object.tls_module, 0) }.addr();
    let into_block = variable.checked_sub(tls_block).and_then(|it| it.checked_add(offset));
    let is_inside = |&into_block: &usize| {
        let end = into_block.checked_add(values.len());
        end.is_some_and(|end| end <= object.tls_template_len)
    };
    let start = into_block.filter(is_inside).and_then(|it| object.tls_template.checked_add(it));
    let start = start.ok_or_else(unknown)?;
    // SAFETY: inside the initial values (checked above), which glibc reads when it creates a thread, and which
    // no code writes. The written part holds the values of memdl's pool only.
    unsafe { write_relro(start, values, &object.relro) }
}

/// The object that memdl is linked into, as `ld.so` loaded it.
struct Object {
    /// The initial values of its thread-local variables.
    tls_template: usize,
    tls_template_len: usize,
    /// Their module. (`dl_iterate_phdr` gives the address of a thread's block only after the thread's first
    /// call of `__tls_get_addr` for it.)
    tls_module: ModuleId,
    relro: Range<usize>,
}

impl Object {
    fn of_this_code() -> Option<Object> {
        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _size: usize,
            found: *mut c_void,
        ) -> c_int {
            // SAFETY: `dl_iterate_phdr` gives a valid record, whose program headers live during
            // the call; `found` is the local below.
            let (info, headers, found) = unsafe {
                let headers =
                    std::slice::from_raw_parts((*info).dlpi_phdr, (*info).dlpi_phnum.into());
                (&*info, headers, &mut *found.cast::<Option<Object>>())
            };
            let bias = info.dlpi_addr as usize;
            let range = |header: &libc::Elf64_Phdr| {
                let start = bias.wrapping_add(header.p_vaddr as usize);
                start..start.wrapping_add(header.p_memsz as usize)
            };
            let code = visit as *const () as usize;
            let holds = |header: &&libc::Elf64_Phdr| {
                header.p_type == libc::PT_LOAD && range(header).contains(&code)
            };
            if !headers.iter().any(|header| holds(&header)) {
                return 0;
            }
            let of_type = |p_type| headers.iter().find(|header| header.p_type == p_type);
            if let Some(tls) = of_type(libc::PT_TLS) {
                *found = Some(Object {
                    tls_template: range(tls).start,
                    tls_template_len: tls.p_filesz as usize,
                    tls_module: ModuleId(info.dlpi_tls_modid),
                    relro: of_type(libc::PT_GNU_RELRO).map_or(0..0, range),
                });
            }
            1
        }
        let mut found = None;
        // SAFETY: the callback has the required signature and does not unwind.
        unsafe { visit_libraries(visit, (&raw mut found).cast()) };
        found
    }
}

/// The process's first argument, by which `ld.so` calls the program in its messages.
pub(crate) fn program_name() -> String {
    let Arguments { argc, argv, .. } = arguments();
    if argc < 1 || argv.is_null() {
        return String::new();
    }
    // SAFETY: the arguments of the process, which has at least one.
    unsafe { CStr::from_ptr(*argv) }.to_string_lossy().into_owned()
}

/// The process's arguments and its environment as it is now.
pub(crate) fn arguments() -> Arguments {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // The linker reaches the static above only through this object file. This reference makes the file part of
    // the link.
    std::hint::black_box(&INIT);
    Arguments {
        argc: ARGC.load(Ordering::Relaxed),
        argv: ARGV.load(Ordering::Relaxed).cast_const().cast(),
        // SAFETY: the C library's variable; a plain read of a pointer, as `getenv` does.
        envp: unsafe { environ },
    }
}
