//! The memory that memdl keeps for further images: given back, or wiped.
//!
//! Keeps nothing: [`crate::memory::cache`] and [`crate::images::idle`] do.

#![forbid(unsafe_code)]

use crate::images::idle;
use crate::memory::cache;

/// Returns the memory that is kept for further images to the system.
///
/// memdl keeps up to 32 MiB of the memory of unloaded images, since memory whose pages exist already makes
/// the next load of the same image fast. Instances of a template are kept as a whole, in their place and with the
/// contents that they had before their constructors, for the next instance. So are images whose bytes were loaded
/// twice in a row. Their code stays mapped: a call through a pointer into one that was unloaded runs it, where it
/// would fault otherwise. To find such calls, call this after each unload. An image that stays where it
/// was received does not need all of its [`ImageBuffer`](crate::ImageBuffer) (for example not the debug
/// sections, unless they are registered with debuggers). That part, up to 32 MiB, is unmapped only when the
/// next buffer is made or an image is unloaded, so that the load does not wait for it.
///
/// ```
/// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
/// drop(library);
/// memdl::release_memory();
/// assert_eq!(memdl::statistics().kept_bytes, 0);
/// ```
pub fn release_memory() {
    idle::release();
    cache::release();
}

/// The number of bytes that are kept: what [`release_memory`] gives back.
pub(crate) fn kept_bytes() -> usize {
    cache::kept_bytes().saturating_add(idle::kept_bytes())
}

/// Chooses whether memory that is kept for further images is wiped first. Default: false.
///
/// No image ever finds the bytes of another: what an image can write is filled anew for the next. But
/// until then the data of an unloaded image are still in the process's
/// memory. So they are in a core file, and `/proc/PID/mem` shows them. Where that must not happen (an image
/// handles keys), true wipes the writable memory of an image, and its debug information, when it is
/// unloaded. Pieces of 256 KiB and more are unmapped instead, which takes less time than wiping them. Memory
/// that is kept at the time of the call is unmapped.
///
/// Wiping costs a small image some 1.4 microseconds for each unload, 5 % of load and unload. A large image
/// loses the gain of using memory again. Memory that the image has allocated, stacks and thread-local
/// variables belong to the C library and are not wiped.
///
/// The environment variable `MEMDL_WIPE=off|on` overrides it.
///
/// ```
/// memdl::wipe_kept_memory(true);
/// assert_eq!(memdl::statistics().kept_bytes, 0); // what was kept was not wiped, and is unmapped
/// ```
pub fn wipe_kept_memory(wipe: bool) {
    if cache::wipe(wipe) {
        release_memory();
    }
}
