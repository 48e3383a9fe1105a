//! A caller's promise, as a value, that code chosen by the bytes may run.
//!
//! Such code is: the constructors and destructors of images, IFUNC resolvers, and the constructors of
//! the libraries that `ld.so` opens because a `DT_NEEDED` entry of the bytes names them. No safe
//! function of the API runs it. A function of the crate that runs it takes a [`MayRun`], and only the
//! `unsafe` functions of the API make one, from their caller's promise. So a safe function that runs it
//! through safe helpers does not compile. Without a [`MayRun`] no library is opened, and a reference to
//! an IFUNC gets the address of its resolver.
//!
//! The promise of one call covers:
//!
//! * [`Loader::load`](crate::Loader::load), [`Template::instantiate`](crate::Template::instantiate),
//!   [`Pool::acquire`](crate::Pool::acquire): constructors and resolvers during the call, destructors
//!   when the library is unloaded. So `close`, `release`, and each `Drop` that may unload a library (of a
//!   `Library`, a `Loader` that depends on it, a `Template`, a `Pool`) are safe.
//! * [`Loader::prepare`](crate::Loader::prepare): constructors of the libraries that `ld.so` opens;
//!   resolvers of libraries that are in the process already and that references are bound to.
//! * [`Library::get`](crate::Library::get): the resolver of the symbol, if it is an IFUNC.
//!
//! All other functions read memory: `symbols`, `symbol_at` (it gives the resolver's address for an
//! IFUNC), `set_debug`, `set_debug_info`, `symbolize`. The closures that a caller passes
//! ([`Loader::resolver`](crate::Loader::resolver)) and the logger are the caller's own code.
//!
//! This file runs no code of an image.

#![allow(unsafe_code)]

/// Proof of a caller's promise that it is sound to run the code that the bytes choose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MayRun(());

impl MayRun {
    /// # Safety
    /// It must be sound to run the code that the bytes choose in this process, now and later: the
    /// contract of [`Library::from_bytes`](crate::Library::from_bytes).
    pub(crate) const unsafe fn promised() -> MayRun {
        MayRun(())
    }

    /// For unit tests, which choose the bytes themselves.
    #[cfg(test)]
    pub(crate) fn in_tests() -> MayRun {
        MayRun(())
    }
}
