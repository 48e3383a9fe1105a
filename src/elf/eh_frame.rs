//! Where an image's call frame information is, without section headers.
//!
//! `PT_GNU_EH_FRAME` tells of a table whose header holds a pointer to `.eh_frame`; nothing tells how
//! long that is. It is a sequence of entries that each begin with their length, ended by one of
//! length zero, which old or odd linkers leave out.
//!
//! Sources: LSB Core 10.6 "Exception Frames" and ".eh_frame_hdr"; DWARF 6.4.1.

#![forbid(unsafe_code)]

use std::ops::Range;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};

use crate::base::addr::Vaddr;
use crate::elf::dynamic::{ReadAt, u32_at, u64_at};

/// An `.eh_frame` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EhFrame {
    /// Its whole entries, one at least, the one that ends it included if there is one.
    pub range: Range<Vaddr>,
    /// Whether an entry of length zero ends it, so that it can be walked without knowing its end.
    pub terminated: bool,
}

impl EhFrame {
    /// The section that the table at `hdr` points to.
    pub(crate) fn locate(hdr: Range<Vaddr>, memory: &impl ReadAt) -> Option<EhFrame> {
        let table = memory.read(hdr.clone())?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(hdr.start.0);
        let parsed = EhFrameHdr::new(table, LittleEndian).parse(&bases, 8).ok()?;
        let Pointer::Direct(start) = parsed.eh_frame_ptr() else {
            return None;
        };
        let (len, terminated) = entries_len(memory.read_to_end(Vaddr(start))?)?;
        Some(EhFrame { range: Vaddr(start).range(len as u64)?, terminated })
    }
}

/// The length of the entries that `bytes` start with, and whether an entry of length zero ends
/// them; `None` if there is no entry.
fn entries_len(bytes: &[u8]) -> Option<(usize, bool)> {
    const END: usize = 4;
    let mut at = 0usize;
    // Every turn but the last takes at least 8 bytes.
    loop {
        match entry_len(bytes, at) {
            Some(0) => return (at > 0).then_some((at.checked_add(END)?, true)),
            Some(len) => at = at.checked_add(len)?,
            None => return (at > 0).then_some((at, false)),
        }
    }
}

/// The length of the entry at `at`, its length field included; 0 for the last one. `None` if
/// what is there cannot be an entry.
fn entry_len(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let (field, len) = match u32_at(rest, 0)? {
        0 => return Some(0),
        u32::MAX => (12usize, u64_at(rest, 4)?),
        short => (4, u64::from(short)),
    };
    let whole = usize::try_from(len).ok()?.checked_add(field)?;
    // 0 in a CIE; in an FDE the way back from here to its CIE, which came before.
    let way_back = u32_at(rest, field)? as usize;
    (whole <= rest.len() && len >= 4 && way_back <= at.checked_add(field)?).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIE: [u8; 12] = [8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    const FDE: [u8; 12] = [8, 0, 0, 0, 16, 0, 0, 0, 1, 2, 3, 4];

    #[test]
    fn entries_are_walked_to_their_end_and_not_further() {
        let good = [&CIE[..], &FDE, &[0; 4], &CIE].concat();
        assert_eq!(entries_len(&good), Some((28, true)));
        assert_eq!(entries_len(&good[..24]), Some((24, false)));
        assert_eq!(entries_len(&good[..20]), Some((12, false)));
        assert_eq!(entries_len(&[0; 8]), None);
        assert_eq!(entries_len(&[0xff; 64]), None);
    }

    #[test]
    fn a_long_length_is_read_and_a_cie_that_comes_later_is_refused() {
        let long = [&[0xff; 4][..], &[4, 0, 0, 0, 0, 0, 0, 0], &[0; 4], &[0; 4]].concat();
        assert_eq!(entries_len(&long), Some((20, true)));
        let mut later = FDE;
        later[4] = 5;
        assert_eq!(entries_len(&later), None);
    }
}
