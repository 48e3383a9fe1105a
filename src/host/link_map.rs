//! The public part of `struct link_map` (`<link.h>`), which `dlinfo`, `dladdr1` and `_dl_find_object` return
//! for a library. An image has one, too. It is in no list: `ld.so` never sees it.
//!
//! Source: glibc `<link.h>`.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char};

use crate::base::addr::{LoadBias, Vaddr};

/// An image's map.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct LinkMap {
    pub l_addr: usize,
    pub l_name: *const c_char,
    pub l_ld: usize,
    l_next: usize,
    l_prev: usize,
    /// Owns the string that `l_name` points to.
    _name: CString,
}

// SAFETY: immutable, and it owns the string that it points to.
unsafe impl Send for LinkMap {}
// SAFETY: as above.
unsafe impl Sync for LinkMap {}

impl LinkMap {
    /// The map of the image of this name, with its `PT_DYNAMIC` at `dynamic`.
    pub(crate) fn new(name: &str, load_bias: LoadBias, dynamic: Vaddr) -> Box<LinkMap> {
        let without_nul = |_| CString::new(name.replace('\0', "")).unwrap_or_default();
        let name = CString::new(name).unwrap_or_else(without_nul);
        Box::new(LinkMap {
            l_addr: load_bias.get(),
            l_name: name.as_ptr(),
            l_ld: load_bias.apply(dynamic),
            l_next: 0,
            l_prev: 0,
            _name: name,
        })
    }
}
