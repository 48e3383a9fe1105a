//! The promise that code which the bytes choose may run, as a value.
//!
//! No safe function of the API runs such code: constructors and destructors of images, IFUNC
//! resolvers, and the constructors of what the system's loader opens because a `DT_NEEDED` entry of
//! the bytes names it. What runs it inside the crate takes a [`MayRun`], which only the `unsafe`
//! functions of the API make out of their caller's promise. So a safe function cannot get there by
//! way of safe helpers: it would not compile. Where there is none, nothing is opened, and what refers to
//! an IFUNC gets its resolver's address.
//!
//! What the promise of one call covers:
//!
//! * [`Loader::load`](crate::Loader::load), [`Template::instantiate`](crate::Template::instantiate),
//!   [`Pool::acquire`](crate::Pool::acquire): constructors and resolvers now, destructors whenever
//!   the library goes. So `close`, `release`, and every `Drop` that may be the last to hold a library
//!   (of a `Library`, a `Loader` that depends on it, a `Template`, a `Pool`) are safe.
//! * [`Loader::prepare`](crate::Loader::prepare): constructors of what the system opens; resolvers
//!   of libraries that are in the process already and that references are bound to.
//! * [`Library::get`](crate::Library::get): the resolver of the symbol, if it is an IFUNC.
//!
//! All others read memory: `symbols`, `symbol_at` (an IFUNC's address is its resolver's there),
//! `set_debug`, `set_debug_info`, `symbolize`. Closures that a caller gives
//! ([`Loader::resolver`](crate::Loader::resolver)) and the logger are the caller's own code.

#![allow(unsafe_code)]

/// Proof that a caller has promised that code which the bytes choose is sound to run here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MayRun(());

impl MayRun {
    /// # Safety
    /// Code that the bytes at hand choose is sound to run in this process, now and later on: this is
    /// what [`Library::from_bytes`](crate::Library::from_bytes) asks of its caller.
    pub(crate) const unsafe fn promised() -> MayRun {
        MayRun(())
    }

    /// For unit tests, which choose the bytes themselves.
    #[cfg(test)]
    pub(crate) fn in_tests() -> MayRun {
        MayRun(())
    }
}
