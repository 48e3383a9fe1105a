//! What `dlopen` refuses though the file is well-formed: an image that must not be opened at run time, and one
//! that is built for another processor. The same holds for the libraries that an image needs.
//!
//! Sources: glibc `elf/dl-load.c` (`DF_1_NOOPEN`), `sysdeps/x86/dl-prop.h` (levels of the instruction set).

#![forbid(unsafe_code)]

use crate::arch;
use crate::base::error::Error;
use crate::base::faults::Faults;
use crate::elf::decoded::Decoded;

/// Checks that the image may be loaded into this process, before anything of it runs.
#[inline]
pub(super) fn check(decoded: &Decoded, faults: &mut Faults) -> Result<(), Error> {
    if decoded.no_open {
        faults.note(Error::unsupported(
            "shared object cannot be dlopen()ed (DF_1_NOOPEN): link it without -z nodlopen",
        ))?;
    }
    // Nearly every image runs on all processors of its machine.
    if decoded.isa_needed == 0 {
        return Ok(());
    }
    match arch::lacking_isa(decoded.isa_needed) {
        Some((level, lacking)) => faults.note(Error::processor(level, lacking)),
        None => Ok(()),
    }
}
