//! `memdl_images` and `memdl_get_statistics`: what is loaded.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use super::errors::{Failure, c_string, caught, status, transparent};
use super::options::number_of;
use crate::ImageInfo;
use crate::api::images::try_images;
use crate::base::fallible::require_memory;
use crate::base::fallible::try_collect_ok;

/// `memdl_image_info`.
#[repr(C)]
pub struct CImageInfo {
    name: *const c_char,
    start: usize,
    end: usize,
    load_bias: usize,
    build_id: *const u8,
    build_id_len: usize,
    debug: c_int,
    template_id: u64,
    load: u64,
    holders: usize,
}

/// `memdl_image_callback`.
pub type ImageCallback =
    unsafe extern "C-unwind" fn(image: *const CImageInfo, user: *mut c_void) -> c_int;

/// An element of the list, with what it points to.
struct OwnedInfo {
    c: CImageInfo,
    _name: CString,
    _info: ImageInfo,
}

impl OwnedInfo {
    fn new(info: ImageInfo) -> Result<OwnedInfo, Failure> {
        require_memory()?;
        let name = c_string(info.name())?;
        let addresses = info.address_range();
        let build_id = info.build_id();
        let c = CImageInfo {
            name: name.as_ptr(),
            start: addresses.start,
            end: addresses.end,
            load_bias: info.load_bias(),
            // On the heap, which does not move with its owner.
            build_id: build_id.map_or(ptr::null(), <[u8]>::as_ptr),
            build_id_len: build_id.map_or(0, <[u8]>::len),
            debug: number_of(info.debug()),
            template_id: info.template().unwrap_or(0),
            load: info.load(),
            holders: info.holders(),
        };
        Ok(OwnedInfo { c, _name: name, _info: info })
    }
}

/// [`images`](crate::images), with a callback.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_images(
    callback: Option<ImageCallback>,
    user: *mut c_void,
) -> c_int {
    let input = caught(|| {
        let callback = callback.ok_or("the callback is null")?;
        Ok((try_collect_ok(try_images()?.into_iter().map(OwnedInfo::new))?, callback))
    });
    let Some((images, callback)) = input else { return -1 };
    for image in &images {
        // SAFETY: the header's contract; the image and what it points to live during the call.
        let answer = transparent(|| unsafe { callback(&image.c, user) });
        if answer != 0 {
            return answer;
        }
    }
    0
}

/// `memdl_statistics`.
#[repr(C)]
pub struct CStatistics {
    images: u64,
    mapped_bytes: u64,
    shared_bytes: u64,
    kept_bytes: u64,
    loads: u64,
    unloads: u64,
    failures: u64,
}

/// [`statistics`](crate::statistics).
///
/// # Safety
/// The header's contract: `target` has `size` bytes, which may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_get_statistics(target: *mut CStatistics, size: usize) -> c_int {
    status(caught(|| {
        if target.is_null() {
            return Err("the statistics are null".into());
        }
        let all = crate::statistics();
        let all = CStatistics {
            images: all.images as u64,
            mapped_bytes: all.mapped_bytes as u64,
            shared_bytes: all.shared_bytes as u64,
            kept_bytes: all.kept_bytes as u64,
            loads: all.loads,
            unloads: all.unloads,
            failures: all.failures,
        };
        let known = size.min(size_of::<CStatistics>());
        // SAFETY: the header's contract; `known` is at most the size of either side. What a host of a later
        // version has more is zero.
        unsafe {
            ptr::write_bytes(target.cast::<u8>(), 0, size);
            ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), target.cast(), known);
        }
        Ok(())
    }))
}
