//! Shows code in memory to debuggers: the ELF files that gdb and lldb read through the GDB JIT interface, with functions,
//! lines, arguments, variables and unwind information.
//!
//! A debugger learns of a library on disk from the dynamic linker. Code that a just-in-time compiler or a loader has put
//! into memory has no file. For it there is an interface: a list of ELF files in memory (*symfiles*), and a function
//! that is called when the list changes, on which a debugger has a breakpoint. This crate makes the files, and keeps the
//! list.
//!
//! | from | by | the result |
//! |---|---|---|
//! | a shared library that is mapped at a load bias | [`Symfile::of_image`] | either [`Form`] |
//! | a relocatable object whose sections are placed one by one | [`Symfile::of_object`] | [`Form::Portable`] |
//!
//! ```no_run
//! use memdl_symfile::{LoadBias, Options, Registration, Symfile, Vaddr};
//! # fn example(image: &[u8], mapped_at: usize) -> Result<(), memdl_symfile::Error> {
//!
//! // The library's first page is at `mapped_at`; its file says that it is at 0.
//! let load_bias = LoadBias::between(Vaddr(0), mapped_at);
//! let symfile = Symfile::of_image(image, load_bias, &Options::new())?;
//! // SAFETY: the library is mapped there until the registration is dropped.
//! let registration = unsafe { Registration::new(symfile) };
//! // From here on gdb has its functions, lines and variables.
//! # drop(registration);
//! # Ok(()) }
//! ```
//!
//! The bytes may be hostile: no bytes make this crate panic, or take memory or work beyond [`Limits`]. Building a
//! symfile has no effect on the process. It allocates fallibly.
//!
//! Source: "JIT Compilation Interface" in the gdb manual.

#![deny(unsafe_code)]
// Of modules that are hidden.
#![allow(rustdoc::private_intra_doc_links)]
#![allow(clippy::len_without_is_empty, reason = "of types that memdl alone sees")]
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

/// The Rust in the README is compiled.
#[cfg(all(doctest, feature = "registration"))]
#[doc = include_str!("../README.md")]
mod readme {}

// What memdl uses besides. There is no promise that it stays.
#[doc(hidden)]
pub mod base;
#[cfg(feature = "builder")]
#[doc(hidden)]
pub mod builder;
#[cfg(feature = "builder")]
#[doc(hidden)]
pub mod dwarf;
#[cfg(feature = "builder")]
mod error;
#[cfg(feature = "builder")]
mod heap;
#[cfg(feature = "builder")]
#[doc(hidden)]
pub mod image;
#[doc(hidden)]
pub mod list;
#[doc(hidden)]
pub mod list_lock;
#[cfg(feature = "builder")]
mod object;
#[cfg(feature = "registration")]
mod pair;
#[cfg(feature = "builder")]
mod symfile;

/// Installs what makes forks wait for the list, if that is needed at all. A library whose own handlers wait for threads
/// that take the list's lock calls this before it installs them.
#[doc(hidden)]
pub fn prepare_forks() {
    #[cfg(feature = "registration")]
    pair::prepare_forks();
}

pub use base::addr::{FileOffset, LoadBias, Vaddr};
pub use base::limits::Limits;
#[cfg(feature = "builder")]
pub use dwarf::tls_locations::ThreadLocals;
#[cfg(feature = "builder")]
pub use error::Error;
#[cfg(feature = "registration")]
pub use pair::{Registration, debugger_listens};
#[cfg(feature = "builder")]
pub use symfile::{Form, Options, Symfile};
