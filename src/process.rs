//! What memdl knows of the process as a whole.
//!
//! `ld.so` hands a library's constructors the process's `argc`, `argv` and `envp`. They come to
//! memdl the same way, as a constructor of whatever it is linked into.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// What a constructor is called with.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    pub argc: c_int,
    pub argv: *const *const c_char,
    pub envp: *const *const c_char,
}

static ARGC: AtomicI32 = AtomicI32::new(0);
static ARGV: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

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

/// Keeps whatever memdl is linked into from being unloaded: images, other threads' ends and
/// debuggers refer to its code. Nothing to do where that is the executable.
pub(crate) fn stay_loaded() {
    static STAY: Once = Once::new();
    STAY.call_once(|| {
        // SAFETY: `Dl_info` is plain data that `dladdr` fills in; its name is a C string of
        // `ld.so`'s that outlives this call. The flags load nothing: they mark what is loaded.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if libc::dladdr(stay_loaded as *const c_void, &mut info) != 0 {
                let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
                libc::dlopen(info.dli_fname, flags);
            }
        }
    });
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
