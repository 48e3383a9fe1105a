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
//! Nor does anything run that the bytes choose, unless the caller has said `unsafe`; what the bytes
//! need counts:
//!
//! ```compile_fail,E0133
//! # #![forbid(unsafe_code)]
//! # fn f(bytes: &[u8]) -> Result<memdl::Template, memdl::Error> {
//! memdl::Loader::new().system_libraries(true).prepare(bytes)
//! # }
//! ```
//!
//! # Who sees images
//! Debuggers do ([`enum@Debug`]), unwinders do, and profilers if they are to ([`Profile`]).
//! Backtraces do not by themselves; a panic hook that names the frames of images:
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
//! And in a signal handler, with the risk that is told at [`symbolize`]:
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
//! * No safe function runs code that the bytes choose. What may run it is `unsafe`: loading,
//!   [`Loader::prepare`] (the system opens what `DT_NEEDED` names), [`Library::get`] (an IFUNC's
//!   resolver). Destructors run when a library goes, by whatever goes last of a [`Library`], what
//!   depends on it, a [`Loader`], a [`Template`] or a [`Pool`]: that was promised when it was loaded.
//! * Without memory a load is an [`Error`], not the end of the process: see below.
//!
//! # Without memory
//! What grows with the bytes is reserved so that a failure is [`Error::OutOfMemory`], or
//! [`Error::System`] where the kernel refuses a mapping. What is small (records, names, the texts of
//! errors; 16 KiB at most each) is allocated as everywhere in Rust, which ends the process where that
//! fails. So each operation first looks whether there are 64 KiB to be had, and fails if not; where a
//! library does the work that does not report it (Zstandard, the tables and packages of split DWARF),
//! whether there is as much as that can need at most. That is a proof where no other thread takes the
//! memory in between. It does not hold for what a caller builds himself ([`Loader`]'s options, clones
//! of it), nor for the logger.
//!
//! Debuggers are told less where there is no memory to tell more: names only, or nothing, with a
//! warning; [`Library::debug`] says which. [`symbolize`] says less.
//!
//! Four places have nobody to return an error to. There it ends the process, as it does under
//! `dlopen`:
//! * the first use of a thread-local variable in a thread (`__tls_get_addr`);
//! * a call that is bound lazily ([`Binding::Lazy`]);
//! * libgcc's `__register_frame`, which tells the unwinder of an image where the C library has no
//!   `_dl_find_object` to be extended: it allocates 48 bytes for each image, and sorts an image's
//!   frames at the first exception;
//! * glibc's own blocks of thread-local variables, for system libraries that an image needs and for
//!   memdl's own: it allocates them at their first use in a thread.
//!
//! # What it refuses
//! Executables, position-independent ones included; other machines, 32-bit and big-endian images;
//! segments that are writable and executable; executable stacks (`PT_GNU_STACK` with `PF_X`; where
//! the header is missing, the stack stays as it is); copy relocations; tables of relocations
//! without addends.
//!
//! # How a load goes
//! | phase | what comes out | module |
//! |---|---|---|
//! | validate the bytes | `Image` | `image`, `symbol`, `dynamic` |
//! | find what it needs | the load group | `prepare`, `needed`, `host` |
//! | decide what every reference is bound to | `Bound` | `relocate::bind`, `scope` |
//! | plan its pages | `Plan` | `plan` |
//! | reserve, fill and protect them | `Mapping<Open>` | `map`, `reserve` |
//! | store the relocations, then call IFUNC resolvers | | `relocate::Applier` |
//! | make RELRO read-only | `Mapping<Sealed>` | `map` |
//! | tell the unwinder, debuggers and profilers | registrations | `unwind`, `debug`, `profile` |
//! | run the constructors | `Group`, in a [`Library`] | `instantiate`, `group` |
//!
//! [`Loader::prepare`] stops before the pages and gives a [`Template`]; [`Loader::load`] goes the
//! same way to the end. A [`Pool`] uses instances of a template again: `pool`, `snapshot`.

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

#[macro_use]
mod base;

mod api;
mod arch;
#[cfg(feature = "capi")]
mod capi;
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
mod profile;
mod services;
mod tls;
mod unwind;

pub use api::backtrace::{Frame, symbolize, symbolize_backtrace};
pub use api::library::{ExportedSymbol, Library, Symbol, SymbolKind, Template};
pub use api::loader::{Binding, Loader};
pub use api::pool::{Pool, Pooled, Reset};
pub use base::addr::{FileOffset, LoadBias, Vaddr};
pub use base::error::{Error, MissingLibrary, MissingSymbol, MissingVersion, Place, RefusedImport};
pub use base::limits::Limits;
pub use debug::Debug;
pub use images::policy::{Imports, SymbolRequest, VerifyRequest};
pub use link::scope::Scope;
pub use memory::buffer::ImageBuffer;
pub use memory::reserve::{release_memory, wipe_kept_memory};
pub use profile::Profile;
