//! The PLT of an image whose calls are bound lazily.
//!
//! The first entry of such a PLT leads here at the first call of each function. Here the group is asked
//! for the function. Choosing the definition and storing the address is the group's part
//! ([`BindCall`]).
//!
//! Source: psABI "Procedure Linkage Table".

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::arch;
use crate::base::error::Error;
use crate::host::process;

/// A group of images with lazily bound calls.
pub(crate) trait BindCall {
    /// Binds the call through this entry of a member's PLT, and returns the function.
    fn bind_call(&self, member: usize, relocation: usize) -> Result<usize, Error>;
}

/// The record that the first entry of an image's PLT leads to. [`arch::bind_call`] calls the first field
/// with the address of the record and the number of the PLT entry.
#[repr(C)]
pub(crate) struct Plt<G> {
    bind: extern "C" fn(&Plt<G>, usize) -> usize,
    group: AtomicPtr<G>,
    member: usize,
}

/// Writes why a call cannot be bound, as `ld.so` does.
fn report(reason: &str) {
    eprintln!("{}: symbol lookup error: {reason}", process::program_name());
}

/// The error, in the words of `ld.so` where it has them.
fn as_of_ld_so(error: &Error) -> String {
    let Error::Missing { image, symbols, .. } = error else { return error.to_string() };
    let Some(symbol) = symbols.first() else { return error.to_string() };
    let (comma, version) = match &symbol.version {
        Some(version) => (", version ", version.as_str()),
        None => ("", ""),
    };
    format!("{image}: undefined symbol: {}{comma}{version}", symbol.name)
}

impl<G: BindCall> Plt<G> {
    /// For the group's member of this index. Its calls cannot be bound before [`Plt::set_group`].
    pub(crate) fn new(member: usize) -> Box<Plt<G>> {
        arch::detect_registers();
        Box::new(Plt { bind: Plt::<G>::bind, group: AtomicPtr::default(), member })
    }

    /// Makes the group known. It must stay where it is as long as code of its images runs.
    pub(super) fn set_group(&self, group: &Arc<G>) {
        self.group.store(Arc::as_ptr(group).cast_mut(), Ordering::Release);
    }

    extern "C" fn bind(&self, relocation: usize) -> usize {
        let group = self.group.load(Ordering::Acquire);
        // SAFETY: set when the group was made, before any code of its images ran. The caller is such
        // code, so the group is alive. (IFUNC resolvers run earlier: the pointer is null then.)
        let group = unsafe { group.as_ref() };
        let result = group.map(|group| group.bind_call(self.member, relocation));
        match result {
            Some(Ok(function)) => return function,
            // As `ld.so` does: there is no caller to return an error to.
            Some(Err(error)) => report(&as_of_ld_so(&error)),
            None => report("an IFUNC resolver calls through a lazy PLT"),
        }
        // SAFETY: ends the process.
        unsafe { libc::_exit(127) }
    }
}
