//! `memdl_symbolize`: frames of images.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

use super::errors::{Failure, c_string, caught, pointer, transparent};
use crate::Frame;
use crate::base::fallible::require_memory;
use crate::base::fallible::try_collect_ok;

/// `memdl_frame`.
#[repr(C)]
pub struct CFrame {
    image: *const c_char,
    function: *const c_char,
    linkage_name: *const c_char,
    file: *const c_char,
    line: u32,
    column: u32,
    is_inlined: c_int,
    address: u64,
}

/// `memdl_frame_callback`.
pub type FrameCallback =
    unsafe extern "C-unwind" fn(frame: *const CFrame, user: *mut c_void) -> c_int;

/// A frame with strings for C.
pub(super) struct OwnedFrame {
    /// The strings that `c` points to.
    _strings: [Option<CString>; 4],
    c: CFrame,
}

impl OwnedFrame {
    pub(super) fn new(frame: &Frame) -> Result<OwnedFrame, Failure> {
        require_memory()?;
        let strings = [
            Some(c_string(frame.image())?),
            frame.function().map(|name| c_string(&name)).transpose()?,
            frame.linkage_name().map(c_string).transpose()?,
            frame.file().map(|file| c_string(&file.to_string_lossy())).transpose()?,
        ];
        let [image, function, linkage_name, file] = strings.each_ref().map(pointer);
        let c = CFrame {
            image,
            function,
            linkage_name,
            file,
            line: frame.line().unwrap_or(0),
            column: frame.column().unwrap_or(0),
            is_inlined: frame.is_inlined().into(),
            address: frame.address().0,
        };
        Ok(OwnedFrame { _strings: strings, c })
    }
}

/// [`symbolize`](crate::symbolize()), with a callback.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_symbolize(
    address: *const c_void,
    callback: Option<FrameCallback>,
    user: *mut c_void,
) -> c_int {
    // It may drop the last reference to a library, whose destructors then run.
    let frames = transparent(|| crate::symbolize(address.addr()));
    let input = caught(|| {
        let frames = try_collect_ok(frames.iter().map(OwnedFrame::new))?;
        Ok((frames, callback.ok_or("the callback is null")?))
    });
    let Some((frames, callback)) = input else { return -1 };
    for frame in &frames {
        // SAFETY: the header's contract; the frame and its strings live during the call.
        let answer = transparent(|| unsafe { callback(&frame.c, user) });
        if answer != 0 {
            return answer;
        }
    }
    0
}
