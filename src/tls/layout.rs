//! Sizes and markers that the assembly and the registry agree on. Constants only; those of module ids are in
//! `base/tls_index.rs`.

#![forbid(unsafe_code)]

use crate::arch;

/// The number of words of memdl's thread-local storage that hold block pointers. Used where that is static.
pub(crate) const SLOTS: usize = 32;
/// The number of bytes of static thread-local storage for images that need initial exec. Small, since each thread
/// has them; the feature `large-static-tls` is for executables that need more.
pub(crate) const POOL: usize = if cfg!(feature = "large-static-tls") { 64 << 10 } else { 1024 };
/// The alignment of the pool, and so the largest of a block in it. glibc aligns the blocks of the executable, and of
/// libraries that it loads at the start, to what they ask for; to a library that is opened later it gives no static
/// storage of a larger alignment than it has.
pub(crate) const POOL_ALIGN: usize =
    if cfg!(feature = "shared-static-tls") { arch::STATIC_AREA_ALIGN } else { 64 };
/// The value of a slot while the thread has no block of that module. It is no valid address, and stays none
/// with any offset added, so a debugger that follows it reports that the variable cannot be read.
pub(crate) const NO_BLOCK: usize = 1 << 63;

/// The slot that holds the thread's own record. No module has this index.
pub(super) const THREAD_SLOT: usize = 0;
