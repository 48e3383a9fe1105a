//! What `dlopen` refuses though the file is well-formed: an image for another machine, one that must not be opened at
//! run time, and one that is built for another processor. The same holds for the libraries that an image needs.
//!
//! Sources: glibc `elf/dl-load.c` (`DF_1_NOOPEN`), `sysdeps/x86/dl-prop.h` (levels of the instruction set).

#![forbid(unsafe_code)]

use crate::arch::{self, Machine};
use crate::base::addr::PageSize;
use crate::base::error::Error;
use crate::base::faults::Faults;
use crate::elf::decoded::Decoded;
use crate::elf::header;

/// Checks that bytes are for this machine, before they are parsed. A report examines those for another one all the same:
/// returns the size of the pages for which they are laid out. `wanted` is the machine of this process; where a report is
/// about an image for another machine, for what that image needs, it is that machine.
pub(super) fn check_machine(
    bytes: &[u8],
    wanted: &Machine,
    faults: &mut Faults,
) -> Result<PageSize, Error> {
    // Nearly all are for this machine. What else is wrong with them is found later.
    if wanted.is_this() && header::e_machine(bytes) == Some(wanted.e_machine) {
        return Ok(PageSize::current());
    }
    let machine = header::machine(bytes);
    if let Some(machine) = machine.filter(|it| it.e_machine != wanted.e_machine) {
        faults.note(match wanted.is_this() {
            true => header::other_machine(machine.e_machine),
            false => {
                let (is, wanted) = (machine.name, wanted.name);
                Error::unsupported(format!(
                    "an image for {is}; the one that needs it is for {wanted}"
                ))
            }
        })?;
    }
    Ok(machine.map_or_else(PageSize::current, page_size))
}

/// The size of the pages for which images of this machine are laid out: its systems have pages of that size at least.
pub(super) fn page_size(machine: &Machine) -> PageSize {
    let smallest = || PageSize::new(machine.smallest_page);
    if machine.is_this() {
        PageSize::current()
    } else {
        smallest().unwrap_or_else(PageSize::current)
    }
}

/// Checks that the image may be loaded into this process, before anything of it runs.
#[inline]
pub(super) fn check(decoded: &Decoded, faults: &mut Faults) -> Result<(), Error> {
    if decoded.no_open {
        faults.note(Error::unsupported(
            "shared object cannot be dlopen()ed (DF_1_NOOPEN): link it without -z nodlopen",
        ))?;
    }
    if decoded.signed_plt && decoded.machine.is_this() && arch::checks_signatures() {
        faults.note(Error::unsupported(
            "its PLT expects signed addresses (-z pac-plt), which no loader stores, and this processor checks \
             them: link it without",
        ))?;
    }
    // Nearly every image runs on all processors of its machine. This is no processor of another machine.
    if decoded.isa_needed == 0 || !decoded.machine.is_this() {
        return Ok(());
    }
    match arch::lacking_isa(decoded.isa_needed) {
        Some((level, lacking)) => faults.note(Error::processor(level, lacking)),
        None => Ok(()),
    }
}
