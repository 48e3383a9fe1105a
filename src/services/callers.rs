//! Which image a call comes from.
//!
//! Source: Itanium C++ ABI, "Exception Handling" (`_Unwind_Backtrace`).

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use crate::images::group::ImageRef;
use crate::images::registry;

/// Frames that are looked at.
const MAX_FRAMES: usize = 256;

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        visit: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

/// The image that a call of a service with this return address comes from.
///
/// An image whose last act is the call is not on the stack any more: compilers make a jump of such a call.
/// Then it is the image that called that one; or the only one, if all images are of one namespace.
pub(super) fn image(return_address: usize) -> Option<ImageRef> {
    registry::image_at(return_address).or_else(on_stack).or_else(only)
}

/// The innermost image on the stack of this thread.
pub(super) fn on_stack() -> Option<ImageRef> {
    struct Walk {
        found: Option<ImageRef>,
        frames: usize,
    }
    /// `_URC_NO_REASON`, which goes on, and another code, which ends the walk.
    const GO_ON: c_int = 0;
    const END: c_int = 4;
    unsafe extern "C" fn visit(context: *mut c_void, walk: *mut c_void) -> c_int {
        // SAFETY: the local below, and the context of a frame.
        let (walk, address) = unsafe { (&mut *walk.cast::<Walk>(), _Unwind_GetIP(context)) };
        walk.frames = walk.frames.saturating_add(1);
        // A return address is behind the call.
        walk.found = registry::image_at(address.saturating_sub(1));
        if walk.found.is_some() || walk.frames == MAX_FRAMES { END } else { GO_ON }
    }
    let mut walk = Walk { found: None, frames: 0 };
    // SAFETY: the function has the required type, and does not unwind.
    unsafe { _Unwind_Backtrace(visit, (&raw mut walk).cast()) };
    walk.found
}

/// The first image, if all images are of one namespace.
fn only() -> Option<ImageRef> {
    let images = registry::all_images().ok()?;
    let (first, others) = images.split_first()?;
    let namespace = |image: &ImageRef| std::sync::Arc::as_ptr(image.group().namespace());
    let is_same = |other: &ImageRef| namespace(other) == namespace(first);
    others.iter().all(is_same).then(|| first.clone())
}
