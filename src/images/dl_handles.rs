//! Handles that images got from memdl's `dlopen`, each for one image.
//!
//! Handles of `ld.so` are not recorded. Opening and loading is `services/dlopen.rs`'.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;

use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::base::sync::{Guard, Lock, Rank};
use crate::images::group::ImageRef;

/// An open image, and how often it was opened and not closed.
struct OpenImage {
    image: ImageRef,
    count: usize,
}

/// By handle, which is the address of the image's record.
static OPEN: Lock<BTreeMap<usize, OpenImage>> = Lock::new(Rank::Handles, BTreeMap::new());

fn opened() -> Guard<'static, BTreeMap<usize, OpenImage>> {
    OPEN.lock()
}

/// Records that an image was opened once more, and returns the handle.
pub(crate) fn open(image: ImageRef) -> Result<*mut c_void, Error> {
    require_memory()?;
    let handle = ptr::from_ref(image.image()).addr();
    let mut opened = opened();
    let entry =
        opened.entry(handle).or_insert_with(|| OpenImage { image: image.clone(), count: 0 });
    entry.count = entry.count.saturating_add(1);
    drop(opened);
    Ok(handle as *mut c_void)
}

/// Closes a handle once; `None` if it is not one of memdl's. Returns the image if it is not open any more,
/// for the caller to drop.
pub(crate) fn close(handle: *mut c_void) -> Option<Option<ImageRef>> {
    let mut opened = opened();
    let entry = opened.get_mut(&handle.addr())?;
    entry.count = entry.count.saturating_sub(1);
    let is_last = entry.count == 0;
    Some(if is_last { opened.remove(&handle.addr()).map(|it| it.image) } else { None })
}

/// The image of a handle.
pub(crate) fn image(handle: *mut c_void) -> Option<ImageRef> {
    opened().get(&handle.addr()).map(|opened| opened.image.clone())
}
