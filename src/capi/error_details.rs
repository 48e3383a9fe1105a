//! `memdl_error_missing`: what an image lacks, one by one.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

use super::errors::{Failure, c_string, caught, pointer, transparent, with_last_error};
use crate::Error;
use crate::base::fallible::require_memory_for_next;
use crate::base::fallible::try_collect_ok;

/// `memdl_missing`.
#[repr(C)]
pub struct CMissing {
    kind: c_int,
    name: *const c_char,
    version: *const c_char,
    needed_by: *const c_char,
    reason: *const c_char,
}

/// `memdl_missing_callback`.
pub type MissingCallback =
    unsafe extern "C-unwind" fn(missing: *const CMissing, user: *mut c_void) -> c_int;

/// `memdl_missing_kind`.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Kind {
    Library = 0,
    Version = 1,
    Symbol = 2,
    RefusedImport = 3,
}

/// Something that is missing, with the strings.
struct Item {
    kind: Kind,
    name: CString,
    version: Option<CString>,
    needed_by: CString,
    reason: Option<CString>,
}

impl Item {
    fn new(
        kind: Kind,
        name: &str,
        version: Option<&str>,
        needed_by: &str,
        reason: Option<&str>,
    ) -> Result<Item, Failure> {
        let (name, needed_by) = (c_string(name)?, c_string(needed_by)?);
        let [version, reason] = [version, reason].map(|text| text.map(c_string).transpose());
        Ok(Item { kind, name, version: version?, needed_by, reason: reason? })
    }

    fn c(&self) -> CMissing {
        CMissing {
            kind: self.kind as c_int,
            name: self.name.as_ptr(),
            version: pointer(&self.version),
            needed_by: self.needed_by.as_ptr(),
            reason: pointer(&self.reason),
        }
    }
}

/// All that is missing.
fn items(error: &Error) -> Result<Vec<Item>, Failure> {
    match error {
        Error::Missing { libraries, versions, symbols, .. } => {
            let libraries = libraries.iter().map(|it| {
                Item::new(Kind::Library, &it.name, None, &it.needed_by, it.reason.as_deref())
            });
            let versions = versions.iter().map(|it| {
                Item::new(Kind::Version, &it.library, Some(&it.version), &it.needed_by, None)
            });
            let symbols = symbols.iter().map(|it| {
                Item::new(Kind::Symbol, &it.name, it.version.as_deref(), &it.needed_by, None)
            });
            collected(libraries.chain(versions).chain(symbols))
        }
        Error::RefusedImports { symbols, .. } => collected(symbols.iter().map(|it| {
            let version = it.version.as_deref();
            Item::new(Kind::RefusedImport, &it.name, version, &it.requested_by, None)
        })),
        _ => Ok(Vec::new()),
    }
}

fn collected(items: impl Iterator<Item = Result<Item, Failure>>) -> Result<Vec<Item>, Failure> {
    try_collect_ok(items.enumerate().map(|(index, item)| {
        require_memory_for_next(index)?;
        item
    }))
}

/// What the thread's last failure says is missing, with a callback.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_error_missing(
    callback: Option<MissingCallback>,
    user: *mut c_void,
) -> c_int {
    let list = caught(|| {
        let callback = callback.ok_or("the callback is null")?;
        let items = with_last_error(|error| error.map_or(Ok(Vec::new()), items));
        Ok((callback, items.unwrap_or(Ok(Vec::new()))?))
    });
    let Some((callback, items)) = list else { return -1 };
    transparent(|| {
        for item in &items {
            // SAFETY: the header's contract; the item lives during the call.
            let result = unsafe { callback(&item.c(), user) };
            if result != 0 {
                return result;
            }
        }
        0
    })
}
