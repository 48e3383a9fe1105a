//! What images have opened with `dlopen`: handles that stand for images.

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
    /// Of the file at this path; a name without a slash is none.
    pub(crate) fn of(path: &CStr) -> Option<FileId> {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let file = path.to_str().is_none_or(|path| path.contains('/')).then_some(path)?;
        let metadata = std::fs::metadata(file).ok()?;
        Some(FileId(metadata.dev(), metadata.ino()))
    }
}

/// An image that is open.
struct Opened {
    image: ImageRef,
    /// By whom ([`opener`]), and from which file: opening it again gives the same.
    caller: usize,
    file: Option<FileId>,
    count: usize,
}

/// By handle, which is the address of the image's record.
static OPENED: Lock<BTreeMap<usize, Opened>> = Lock::new(Rank::Handles, BTreeMap::new());

fn opened() -> Guard<'static, BTreeMap<usize, Opened>> {
    OPENED.lock()
}

/// Whom a group opens libraries for: the outermost image that encloses it (an interpreter, of whose
/// modules many may open the same). An address that is only compared.
fn opener(group: &Arc<LoadGroup>) -> usize {
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
    let caller = opener(caller.group());
    let new = Opened { image, caller, file, count: 0 };
    let mut opened = opened();
    let entry = opened.entry(handle).or_insert(new);
    entry.count = entry.count.saturating_add(1);
    Ok(handle as *mut c_void)
}

/// The handle of what this caller has opened from this file before.
pub(crate) fn open_again(caller: &ImageRef, file: Option<FileId>) -> Option<*mut c_void> {
    let mut opened = opened();
    let caller = opener(caller.group());
    let mut known = opened.iter_mut();
    let (handle, opened) =
        known.find(|(_, it)| file.is_some() && it.caller == caller && it.file == file)?;
    opened.count = opened.count.saturating_add(1);
    Some(*handle as *mut c_void)
}

/// Closes a handle once; `None` if it is none of these. What comes back is the image, if nobody
/// has it open any more.
pub(crate) fn close(handle: *mut c_void) -> Option<Option<ImageRef>> {
    let mut opened = opened();
    let entry = opened.get_mut(&handle.addr())?;
    entry.count = entry.count.saturating_sub(1);
    let is_last = entry.count == 0;
    Some(if is_last { opened.remove(&handle.addr()).map(|it| it.image) } else { None })
}

/// The image that a handle stands for.
pub(crate) fn image(handle: *mut c_void) -> Option<ImageRef> {
    opened().get(&handle.addr()).map(|opened| opened.image.clone())
}
