//! What images have opened with `dlopen`: handles that stand for images.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::group::Group;

/// An image that is open.
struct Opened {
    group: Arc<Group>,
    index: usize,
    /// By whom ([`opener`]), and under which path: opening it again gives the same.
    caller: usize,
    path: CString,
    count: usize,
}

/// By handle, which is the address of the image's record.
static OPENED: Mutex<BTreeMap<usize, Opened>> = Mutex::new(BTreeMap::new());

fn opened() -> MutexGuard<'static, BTreeMap<usize, Opened>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the handles as they are while the process forks.
pub(crate) fn lock_for_fork() -> MutexGuard<'static, impl Sized> {
    opened()
}

/// Whom a group opens libraries for: the outermost image that encloses it (an interpreter, of whose
/// modules many may open the same). An address that is only compared.
fn opener(group: &Arc<Group>) -> usize {
    let mut outermost = group;
    while let Some((group, _)) = outermost.enclosing() {
        outermost = group;
    }
    Arc::as_ptr(outermost).addr()
}

/// Notes what an image of the group `caller` has opened, and gives its handle.
pub(crate) fn open(
    (caller, _): &(Arc<Group>, usize),
    path: &CStr,
    group: Arc<Group>,
    index: usize,
) -> *mut c_void {
    let handle = ptr::from_ref(group.member(index)).addr();
    let caller = opener(caller);
    let new = Opened { group, index, caller, path: path.to_owned(), count: 0 };
    opened().entry(handle).or_insert(new).count += 1;
    handle as *mut c_void
}

/// The handle of what this caller has opened under this path before.
pub(crate) fn open_again((caller, _): &(Arc<Group>, usize), path: &CStr) -> Option<*mut c_void> {
    let mut opened = opened();
    let caller = opener(caller);
    let (handle, opened) =
        opened.iter_mut().find(|(_, it)| it.caller == caller && *it.path == *path)?;
    opened.count += 1;
    Some(*handle as *mut c_void)
}

/// Closes a handle once; `None` if it is none of these. What comes back is the image, if nobody
/// has it open any more.
pub(crate) fn close(handle: *mut c_void) -> Option<Option<Arc<Group>>> {
    let mut opened = opened();
    let entry = opened.get_mut(&handle.addr())?;
    entry.count -= 1;
    let is_last = entry.count == 0;
    Some(if is_last { opened.remove(&handle.addr()).map(|it| it.group) } else { None })
}

/// The image that a handle stands for.
pub(crate) fn image(handle: *mut c_void) -> Option<(Arc<Group>, usize)> {
    let opened = opened();
    let opened = opened.get(&handle.addr())?;
    Some((opened.group.clone(), opened.index))
}
