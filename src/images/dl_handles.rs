//! Handles that images got from memdl's `dlopen`, each for one image.
//!
//! Handles of `ld.so` are not recorded. Opening and loading is `services/dlfcn.rs`'.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::base::sync::{Guard, Lock, Rank};
use crate::images::group::{ImageRef, LoadGroup};

/// A file, whatever its path: device and inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// The file at this path; `None` for a name without a slash.
    pub(crate) fn of(path: &CStr) -> Option<FileId> {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let file = path.to_str().is_none_or(|path| path.contains('/')).then_some(path)?;
        let metadata = std::fs::metadata(file).ok()?;
        Some(FileId(metadata.dev(), metadata.ino()))
    }
}

/// An open image.
struct OpenImage {
    image: ImageRef,
    /// The caller ([`outermost_opener`]) and the file: opening it again returns the same handle.
    caller: usize,
    file: Option<FileId>,
    count: usize,
}

/// By handle, which is the address of the image's record.
static OPEN: Lock<BTreeMap<usize, OpenImage>> = Lock::new(Rank::Handles, BTreeMap::new());

fn opened() -> Guard<'static, BTreeMap<usize, OpenImage>> {
    OPEN.lock()
}

/// The outermost group that opened this one, as an address that is only compared. An interpreter's modules,
/// say, share what they open.
fn outermost_opener(group: &Arc<LoadGroup>) -> usize {
    let mut outermost = group;
    while let Some(opener) = outermost.opener() {
        outermost = opener.group();
    }
    Arc::as_ptr(outermost).addr()
}

/// Records that `caller` has opened `image`, and returns the handle.
pub(crate) fn open(
    caller: &ImageRef,
    file: Option<FileId>,
    image: ImageRef,
) -> Result<*mut c_void, Error> {
    require_memory()?;
    let handle = ptr::from_ref(image.image()).addr();
    let caller = outermost_opener(caller.group());
    let new = OpenImage { image, caller, file, count: 0 };
    let mut opened = opened();
    let entry = opened.entry(handle).or_insert(new);
    entry.count = entry.count.saturating_add(1);
    Ok(handle as *mut c_void)
}

/// The handle of the image that this caller opened from this file before, opened once more.
pub(crate) fn open_again(caller: &ImageRef, file: Option<FileId>) -> Option<*mut c_void> {
    let mut opened = opened();
    let caller = outermost_opener(caller.group());
    let mut known = opened.iter_mut();
    let (handle, opened) =
        known.find(|(_, it)| file.is_some() && it.caller == caller && it.file == file)?;
    opened.count = opened.count.saturating_add(1);
    Some(*handle as *mut c_void)
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
