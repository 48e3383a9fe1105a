//! Run a shared library straight from bytes in memory, and debug it as if it had come from disk.
//!
//! Platforms that receive a function's code over the network have it as bytes. The usual way to
//! run it is a `memfd` and `dlopen("/proc/self/fd/N")`, on which gdb then hangs for good: it opens
//! that path in its own process, gets one of its own descriptors, and blocks in `read`. memdl needs
//! no descriptor, no path and no `dlopen` for those bytes: it maps, relocates and binds the image
//! itself, runs its constructors, and hands debuggers an ELF file in memory, so that gdb has
//! functions, lines, arguments, locals, backtraces and breakpoints without reading any file.
//!
//! ```
//! use std::ffi::c_int;
//! # let path = std::env::temp_dir().join(format!("memdl-doc-{}.so", std::process::id()));
//! # let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testlibs/foo.c");
//! # let mut cc = std::process::Command::new("cc");
//! # assert!(cc.args(["-shared", "-fPIC", "-o"]).arg(&path).arg(source).status()?.success());
//! # let bytes = std::fs::read(&path)?;
//! # std::fs::remove_file(&path)?;
//!
//! // `bytes` is a shared library that exports `int foo(int)`, from wherever.
//! // SAFETY: we trust its constructors to run in this process.
//! let library = unsafe { memdl::Library::from_bytes(&bytes)? };
//! // SAFETY: this is the type of `foo`.
//! let foo = unsafe { library.get::<unsafe extern "C" fn(c_int) -> c_int>("foo")? };
//! // SAFETY: `foo` has no preconditions.
//! assert_eq!(unsafe { foo(42) }, 84);
//! library.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Symbol`] borrows its library, so it cannot be used once that is closed:
//!
//! ```compile_fail,E0505
//! # fn f(library: memdl::Library) -> Result<(), memdl::Error> {
//! let foo = unsafe { library.get::<unsafe extern "C" fn()>("foo")? };
//! library.close()?;
//! unsafe { foo() };
//! # Ok(()) }
//! ```
//!
//! No safe function runs code that the bytes choose. That includes the libraries that they need:
//!
//! ```compile_fail,E0133
//! # #![forbid(unsafe_code)]
//! # fn f(bytes: &[u8]) -> Result<memdl::Template, memdl::Error> {
//! memdl::Loader::new().system_libraries(true).prepare(bytes)
//! # }
//! ```
//!
//! # Who sees images
//! Debuggers do ([`DebugLevel`]), unwinders do, and profilers if [`Profile`] says so.
//! Backtraces need a panic hook that names the frames of images:
//!
//! ```
//! use std::backtrace::Backtrace;
//!
//! std::panic::set_hook(Box::new(|panic| {
//!     eprintln!("{panic}\n{}", memdl::symbolize_backtrace(&Backtrace::force_capture()))
//! }));
//! # let _ = std::panic::take_hook();
//! ```
//!
//! In a signal handler, with the risk that [`symbolize`] describes:
//!
//! ```no_run
//! # let pc = 0;
//! memdl::symbolize(pc).iter().for_each(|frame| eprintln!("{frame}"));
//! ```
//!
//! # What it promises
//! * It does what `dlopen` does, or refuses with an [`Error`] that names the reason. Never a silent
//!   difference.
//! * The bytes are hostile until they are validated: a malformed image is an error; it never
//!   crashes or hangs the process. But **a loader is not a sandbox**: the code of a valid image
//!   runs with all rights of the process.
//! * No page is ever writable and executable at once.
//! * A failed load leaves the process as it was; an unload leaves nothing.
//! * No safe function runs code that the bytes choose. Functions that may run it are `unsafe`: loading,
//!   [`Loader::prepare`] (the system opens the libraries that `DT_NEEDED` names), [`Library::get`] (an
//!   IFUNC's resolver). Destructors run when the last owner of a library is dropped: a [`Library`], a
//!   library that depends on it, a [`Loader`], a [`Template`] or a [`Pool`]. The caller promised that
//!   they may when the library was loaded.
//! * Without memory a load is an [`Error`], not the end of the process: see below.
//!
//! # Without memory
//! Memory whose size grows with the bytes is allocated fallibly: a failure is [`Error::OutOfMemory`], or
//! [`Error::System`] where the kernel refuses a mapping. Small allocations (records, names, the texts of
//! errors; at most 16 KiB each) are infallible, as usual in Rust: a failure ends the process. So each
//! operation first checks that 64 KiB can be allocated, and fails if not. Where a library allocates
//! infallibly (Zstandard, the tables and packages of split DWARF), the check is for the most that it can
//! need. The check holds if no other thread takes the memory in between. It does not cover what callers
//! build themselves ([`Loader`]'s options, clones of it), nor the logger.
//!
//! Without memory for debug entries, debuggers see names only, or nothing, and a warning is logged;
//! [`Library::debug`] says which. [`symbolize`] answers with less.
//!
//! Four places have no caller to return an error to. There a failure ends the process, as it does under
//! `dlopen`:
//! * the first use of a thread-local variable in a thread (`__tls_get_addr`);
//! * a call that is bound lazily ([`Binding::Lazy`]);
//! * libgcc's `__register_frame`, which registers images with an unwinder that cannot be led to them, as one
//!   that is linked into a stripped executable: it allocates 48 bytes for each image, and sorts an image's frames at the
//!   first exception;
//! * glibc's own blocks of thread-local variables, for system libraries that an image needs and for
//!   memdl's own: glibc allocates them at their first use in a thread.
//!
//! # Reloading
//! An unload leaves nothing, so a library can be replaced by its next version any number of times. But a
//! thread-local object with a destructor keeps its library loaded until its thread ends, as under `dlopen`; a
//! plug-in in Rust has one in each thread that calls `std::thread::spawn` there. Threads that live on leave the
//! old version first ([`Library::leave_thread`]; for the closing thread,
//! [`Library::close_with_thread_locals`]), and [`Library::close`] returns what still keeps it ([`Closed`]).
//!
//! # What it refuses
//! Executables, position-independent ones included; other machines, 32-bit and big-endian images;
//! segments that are writable and executable; executable stacks (`PT_GNU_STACK` with `PF_X`; where
//! the header is missing, the stack stays as it is); copy relocations; tables of relocations
//! without addends.
//!
//! # Features
//! All of these are on by default. A host that only loads can leave them out (`default-features = false`), with half
//! of the packages and of the code. The API stays the same, but for [`symbolize`], [`symbolize_backtrace`] and [`Frame`].
//!
//! * `debug`: entries for debuggers. Without it the level of all images is [`DebugLevel::Off`], and
//!   [`Library::set_debug`] to more is [`Error::Unsupported`].
//! * `symbolize`: backtraces, and demangled names in errors. Brings `debug`, which keeps the debug sections.
//! * `profile`: [`Profile`]. Brings `symbolize`. Without it, a warning is logged for each load that profilers
//!   should see.
//! * `zstd`: debug sections that are compressed with Zstandard. Brings `debug`. Without it these are treated as
//!   damaged ones: debuggers see names only, and a warning is logged.
//!
//! What each costs: `docs/reference/features.md`.
//!
//! # How a load goes
//! | phase | result | folder |
//! |---|---|---|
//! | validate the bytes | `Image` | `elf` |
//! | find the libraries that it needs | the load group | `load`, `link`, `host` |
//! | bind every reference | `Bound` | `link` |
//! | plan its pages | `Plan` | `elf` |
//! | reserve, fill and protect them | `Mapping<Open>` | `memory` |
//! | store the relocations, then call IFUNC resolvers | | `link` |
//! | make RELRO read-only | `Mapping<Sealed>` | `memory` |
//! | register with the unwinder, debuggers and profilers | registrations | `unwind`, `debug`, `profile` |
//! | run the constructors | `LoadGroup`, in a [`Library`] | `load`, `images` |
//!
//! [`Loader::prepare`] stops before the pages and gives a [`Template`]; [`Loader::load`] goes the
//! same way to the end. A [`Pool`] uses instances of a template again.

#![deny(unsafe_code)]
// Bytes are hostile: an operation that can panic or wrap has a form that says what happens then. An
// exception is a single place that gives its reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]
// A build with all features finds code that nothing uses. In the others that is what only a feature uses.
#![cfg_attr(not(feature = "profile"), allow(dead_code, unused_imports, unused_macros))]

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!(
    "memdl works with glibc and its `ld.so`, on Linux: build the program for a target whose name ends in \
     `-linux-gnu`. Other C libraries (musl) load libraries in other ways."
);

#[cfg(target_feature = "crt-static")]
compile_error!(
    "memdl needs a dynamically linked program, since images use the process's C library and other \
     shared libraries: build without `-C target-feature=+crt-static`."
);

#[macro_use]
mod base;

/// The Rust in these documents is compiled.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/tutorial/1-first-function.md")]
    mod first_function {}
    #[doc = include_str!("../docs/tutorial/3-a-pool-in-a-server.md")]
    mod a_pool_in_a_server {}
    #[doc = include_str!("../docs/how-to/backtraces.md")]
    mod backtraces {}
    #[doc = include_str!("../docs/how-to/inspect.md")]
    #[doc = include_str!("../docs/how-to/migrate.md")]
    mod migrate {}
    #[doc = include_str!("../docs/how-to/restrict-images.md")]
    mod restrict_images {}
    #[doc = include_str!("../docs/how-to/see-what-is-loaded.md")]
    mod see_what_is_loaded {}
}

mod api;
mod arch;
#[cfg(feature = "capi")]
mod capi;
#[cfg_attr(not(feature = "debug"), path = "debug/without.rs")]
mod debug;
mod elf;
mod host;
mod images;
#[cfg(any(test, feature = "internals"))]
#[cfg_attr(not(feature = "internals"), allow(dead_code))]
#[doc(hidden)]
pub mod internals;
mod link;
mod load;
mod memory;
#[cfg_attr(not(feature = "profile"), path = "profile/without.rs")]
mod profile;
mod services;
mod tls;
mod unwind;

#[cfg(feature = "symbolize")]
pub use api::backtrace::{Frame, symbolize, symbolize_backtrace};
pub use api::closed::{Closed, Kept};
pub use api::function_symbol::FunctionSymbol;
pub use api::images::{ImageInfo, Statistics, images, statistics};
pub use api::kept_memory::{release_memory, wipe_kept_memory};
pub use api::library::{ExportedSymbol, Library, Symbol, SymbolKind, Template};
pub use api::loader::{Binding, Loader, inspect};
pub use api::namespace::Namespace;
pub use api::pool::{Pool, Pooled, Reset};
pub use api::report::{
    Export, Import, Needed, NeededVersion, Note, RelocationType, Report, ThreadLocalStorage,
};
pub use api::symbol_name::AsSymbolName;
pub use base::addr::{FileOffset, LoadBias, Vaddr};
pub use base::error::{
    Error, ErrorKind, MissingLibrary, MissingSymbol, MissingVersion, Place, RefusedImport,
};
pub use base::limits::Limits;
pub use base::words::UnknownWord;
pub use debug::{DebugInformation, DebugLevel};
pub use images::group::Provided;
pub use images::policy::{Imports, SymbolRequest, VerifyRequest};
pub use images::provider::LibraryRequest;
pub use images::scope::Scope;
pub use load::survey::{ImportBinding, LibraryOrigin};
pub use memory::buffer::ImageBuffer;
pub use profile::Profile;
