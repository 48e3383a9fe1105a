//! Limits of the memory and work that an image may ask for. The stages that need them check them.

#![forbid(unsafe_code)]

use crate::base::error::Error;

/// Limits of an image. A load that exceeds one is refused with [`Error::Limit`].
///
/// The received bytes may state any size. The defaults are far above those of real libraries, and far
/// below sizes that would harm the process.
///
/// ```
/// let mut limits = memdl::Limits::default();
/// limits.image_bytes = 64 << 10;
/// let loader = memdl::Loader::new().limits(limits);
/// // SAFETY: nothing is loaded.
/// let error = unsafe { loader.load(&[0; 100_000]) }.unwrap_err();
/// assert!(matches!(error, memdl::Error::Limit { needed: 100_000, limit: 65_536, .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Received bytes of one image. Default 4 GiB.
    pub image_bytes: u64,
    /// Address space from the first to the last byte of one image, `.bss` included, in bytes.
    /// Default 16 GiB.
    pub image_span: u64,
    /// Largest alignment that a segment may ask for, in bytes. Default 1 GiB.
    pub alignment: u64,
    /// One thread's block of one image's thread-local variables, in bytes. Default 1 GiB.
    pub tls_block: u64,
    /// Entries in the relocation tables of one image. Default 64 million.
    pub relocations: u64,
    /// Libraries that one image may need (`DT_NEEDED`, `DT_FILTER`, `DT_AUXILIARY`). Default 4,096.
    pub needed: u64,
    /// Images in one load group: the image, and the libraries that it needs from
    /// [`Loader::provide`](crate::Loader::provide). Default 1,024.
    pub images: u64,
    /// Live instances of one image that are registered with debuggers in full. Further instances that
    /// are loaded while a debugger is attached are registered with their symbols only, as
    /// [`DebugLevel::Symbols`](crate::DebugLevel::Symbols); that is no error. gdb's work for each load grows with
    /// the square of this number. [`Library::set_debug`](crate::Library::set_debug) registers any one
    /// in full. Default 64.
    pub instances_in_full: u64,
    /// Total size of the compressed debug sections of one image when they are unpacked, in bytes. They
    /// are unpacked for [`DebugLevel::Portable`](crate::DebugLevel::Portable), and for
    /// [`DebugLevel::Full`](crate::DebugLevel::Full) where the image has thread-local variables. Small files have
    /// a smaller limit: in total 16 times the size of the file with the sections plus 16 MiB, and for one
    /// section 64 times its compressed size (at least 256 KiB).
    ///
    /// To exceed this is no error: the image is registered with its symbols only, as
    /// [`DebugLevel::Symbols`](crate::DebugLevel::Symbols), and a warning is logged. Default 1 GiB.
    pub unpacked_debug_info: u64,
    /// Steps to read the debug information of one image: a step reads an entry, an attribute, or a row
    /// of a table. A million steps take about 10 ms. Small files have a smaller limit: 8 steps for each
    /// byte of the file with the debug information, plus 16 million. It is read for the same forms for
    /// which it is unpacked.
    ///
    /// To exceed this is no error: the image is registered with its symbols only, as
    /// [`DebugLevel::Symbols`](crate::DebugLevel::Symbols), and a warning is logged. Default 1 billion.
    pub debug_info_steps: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            image_bytes: 4 << 30,
            image_span: 16 << 30,
            alignment: 1 << 30,
            tls_block: 1 << 30,
            relocations: 64_000_000,
            needed: 4096,
            images: 1024,
            instances_in_full: 64,
            unpacked_debug_info: memdl_symfile::Limits::DEFAULT.unpacked_debug_info,
            debug_info_steps: memdl_symfile::Limits::DEFAULT.debug_info_steps,
        }
    }
}

/// [`Error::Limit`], if `needed` is more than `limit`.
pub(crate) fn check(what: &'static str, needed: u64, limit: u64) -> Result<(), Error> {
    if needed > limit { Err(Error::limit(what, needed, limit)) } else { Ok(()) }
}
