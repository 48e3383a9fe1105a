//! What memdl knows of the process as a whole.
//!
//! `ld.so` hands a library's constructors the process's `argc`, `argv` and `envp`. They come to
//! memdl the same way, as a constructor of whatever it is linked into.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use region::Protection;

use crate::base::error::Error;
use crate::base::sync;
use crate::base::tls_index::{ModuleId, TlsIndex};
use crate::memory::reserve;

/// What a constructor is called with.
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

type Visitor = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;

/// `dl_iterate_phdr`, for visitors of memdl's own.
///
/// # Safety
/// `visit` can be called with `data`, and does nothing that could fork or come here again.
pub(crate) unsafe fn visit_libraries(visit: Visitor, data: *mut c_void) {
    // glibc locks the list meanwhile, and does not free that lock in a forked child.
    let _no_fork = sync::hold_off_fork();
    // SAFETY: the caller's promise.
    unsafe { libc::dl_iterate_phdr(Some(visit), data) };
}

/// Calls `act` while no other thread of the process is in here, whichever copy of memdl it is in: what all
/// share is `ld.so`, whose lock this holds.
///
/// `act` neither forks nor comes here again, nor loads, unloads or looks up anything.
pub(crate) fn alone(act: &mut dyn FnMut()) {
    unsafe extern "C" fn visit(_: *mut libc::dl_phdr_info, _: usize, act: *mut c_void) -> c_int {
        // SAFETY: the reference below.
        unsafe { (*act.cast::<&mut dyn FnMut()>())() };
        1
    }
    let mut act = act;
    // SAFETY: the pointer is to the local, which is not touched meanwhile. A panic in the function ends
    // the process.
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

/// Keeps whatever memdl is linked into from being unloaded: images, other threads' ends and
/// debuggers refer to its code. Nothing to do where that is the executable.
pub(crate) fn stay_loaded() {
    // SAFETY: `Dl_info` is plain data that `dladdr1` fills in. The link map begins with two words
    // (`<link.h>`), the second its name; both that and the name are `ld.so`'s, as the library is.
    // The flags load nothing: they mark what is loaded.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let mut link_map = ptr::null_mut();
        let code = stay_loaded as *const c_void;
        if dladdr1(code, &mut info, &mut link_map, RTLD_DL_LINKMAP) != 0 && !link_map.is_null() {
            let [_, name] = *link_map.cast::<[*const c_char; 2]>();
            // The executable has no name, and never goes.
            if !name.is_null() && *name != 0 {
                let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
                libc::dlopen(name, flags);
            }
        }
    }
}

/// Writes `values` into the initial values that new threads get, `offset` bytes into the
/// thread-local variable of memdl's own that lies at `variable` in the calling thread.
///
/// They stand in the object that memdl is linked into, mostly in its RELRO, which is writable for
/// that moment.
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
    unsafe extern "C" {
        /// The C library's own: memdl's variables are in a module of `ld.so`'s.
        fn __tls_get_addr(index: *const TlsIndex) -> *mut c_void;
    }
    let start = TlsIndex { ti_module: object.tls_module.0, ti_offset: 0 };
    // SAFETY: the start of the block of memdl's own variables, of which `variable` is one.
    let tls_block = unsafe { __tls_get_addr(&start) }.addr();
    let into_block = variable.checked_sub(tls_block).and_then(|it| it.checked_add(offset));
    let is_inside = |&into_block: &usize| {
        let end = into_block.checked_add(values.len());
        end.is_some_and(|end| end <= object.tls_template_len)
    };
    let start = into_block.filter(is_inside).and_then(|it| object.tls_template.checked_add(it));
    let start = start.ok_or_else(unknown)?;
    // SAFETY: inside the initial values (checked above), which glibc reads when it creates a
    // thread and nobody writes; the part written stands for memdl's pool only.
    unsafe { write_relro(start, values, &object.relro) }
}

/// Writes into data of an object of `ld.so`'s that may have become read-only (its RELRO, at
/// `relro`), and leaves it as writable as it was.
///
/// # Safety
/// The bytes are data of an object that stays loaded, writable or RELRO. Whoever reads them
/// meanwhile may see either value of each aligned word.
pub(crate) unsafe fn write_relro(
    start: usize,
    bytes: &[u8],
    relro: &Range<usize>,
) -> Result<(), Error> {
    let page = region::page::size();
    let wraps = || Error::system("mprotect", io::ErrorKind::OutOfMemory.into());
    let end = start.checked_add(bytes.len()).and_then(|end| end.checked_next_multiple_of(page));
    // A page is a power of two.
    let pages = start & page.wrapping_neg()..end.ok_or_else(wraps)?;
    let is_relro = relro.start < pages.end && pages.start < relro.end;
    let protect = |protection| {
        // SAFETY: more access than before takes nothing away, and what was read-only is so again
        // below; the rest is the caller's promise.
        let result = unsafe { region::protect(pages.start as *const u8, pages.len(), protection) };
        result.map_err(|error| Error::system("mprotect", io::Error::other(error)))
    };
    if is_relro {
        protect(Protection::READ_WRITE)?;
    }
    match (<[u8; 8]>::try_from(bytes), start % 8) {
        // SAFETY: an aligned word, in one store; the rest is the caller's promise.
        (Ok(word), 0) => unsafe {
            (*(start as *const AtomicU64)).store(u64::from_ne_bytes(word), Ordering::SeqCst);
        },
        // SAFETY: the caller's promise.
        _ => unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len()) },
    }
    if is_relro {
        reserve::make_read_only(pages.start, pages.len());
    }
    Ok(())
}

/// What `ld.so` says of the object that memdl is linked into.
struct Object {
    /// Its initial values of thread-local variables.
    tls_template: usize,
    tls_template_len: usize,
    /// Their module. (`dl_iterate_phdr` tells of a thread's block only what was asked for before by
    /// `__tls_get_addr`.)
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
        // SAFETY: the callback has the signature that is asked for and does not unwind.
        unsafe { visit_libraries(visit, (&raw mut found).cast()) };
        found
    }
}

/// The process's arguments and its environment as it is now.
pub(crate) fn arguments() -> Arguments {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // The static above is reached by the linker only through this object file; a look at it
    // makes sure that it is part of the link.
    std::hint::black_box(&INIT);
    Arguments {
        argc: ARGC.load(Ordering::Relaxed),
        argv: ARGV.load(Ordering::Relaxed).cast_const().cast(),
        // SAFETY: the C library's variable; a plain read of a pointer, as `getenv` does.
        envp: unsafe { environ },
    }
}
