//! The range of an image's call frame information, found without section headers.
//!
//! `PT_GNU_EH_FRAME` is a table whose header points to `.eh_frame`, but no header gives the length of
//! that section. It is a sequence of entries that begin with their length. An entry of length zero
//! ends it; some linkers leave that entry out.
//!
//! This file walks the entries and does not decode them: unwinders do.
//!
//! Sources: LSB Core 10.5.1 "DWARF Exception Header Encoding", 10.6 "Exception Frames" and ".eh_frame_hdr";
//! DWARF 6.4.1.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::base::addr::Vaddr;
use crate::elf::read::{ReadAt, u16_at, u32_at, u64_at};

/// An `.eh_frame` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EhFrame {
    /// Its entries, at least one, with the entry that ends it if there is one.
    pub range: Range<Vaddr>,
    /// Whether an entry of length zero ends it: then an unwinder needs no length to walk it.
    pub terminated: bool,
}

impl EhFrame {
    /// The section that the table at `hdr` points to.
    pub(crate) fn locate(hdr: Range<Vaddr>, memory: &impl ReadAt) -> Option<EhFrame> {
        let start = start(hdr, memory)?;
        let (len, terminated) = entries_len(memory.read_to_end(start)?)?;
        Some(EhFrame { range: start.range(len as u64)?, terminated })
    }

    /// Whether an entry of the section that the table at `hdr` points to names a personality routine.
    pub(crate) fn has_personality(hdr: Range<Vaddr>, memory: &impl ReadAt) -> bool {
        let section = start(hdr, memory).and_then(|start| memory.read_to_end(start));
        section.is_some_and(names_personality)
    }
}

/// The start of the section that the table at `hdr` points to.
fn start(hdr: Range<Vaddr>, memory: &impl ReadAt) -> Option<Vaddr> {
    /// Where the pointer is: behind the version and three encodings, the first of which is its own.
    const AT: usize = 4;
    let table = memory.read(hdr.clone())?;
    let &[1, encoding, ..] = table else { return None };
    // `DW_EH_PE_pcrel`, `DW_EH_PE_datarel`. Others do not occur here; 0x80 is an indirect pointer.
    let base = match encoding & 0xf0 {
        0x00 => 0,
        0x10 => hdr.start.0.checked_add(AT as u64)?,
        0x30 => hdr.start.0,
        _ => return None,
    };
    // The formats with a fixed size, `DW_EH_PE_absptr` to `DW_EH_PE_sdata8`. Signed ones are extended.
    let stated = match encoding & 0x0f {
        0x00 | 0x04 | 0x0c => u64_at(table, AT)?,
        0x02 => u16_at(table, AT)?.into(),
        0x03 => u32_at(table, AT)?.into(),
        0x0a => i64::from(u16_at(table, AT)?.cast_signed()).cast_unsigned(),
        0x0b => i64::from(u32_at(table, AT)?.cast_signed()).cast_unsigned(),
        _ => return None,
    };
    Some(Vaddr(base.wrapping_add(stated)))
}

/// Whether a CIE of the entries that `bytes` start with has a `P` in its augmentation.
fn names_personality(bytes: &[u8]) -> bool {
    let mut at = 0usize;
    // As in `entries_len`.
    while let Some(len @ 1..) = entry_len(bytes, at) {
        let Some(next) = at.checked_add(len) else { return false };
        let entry = bytes.get(at..next).unwrap_or(&[]);
        // The length (12 bytes if it is long), 0 for a CIE, the version.
        let field = if u32_at(entry, 0) == Some(u32::MAX) { 12usize } else { 4 };
        let augmentation = entry.get(field.saturating_add(5)..).unwrap_or(&[]);
        let mut augmentation = augmentation.iter().take_while(|&&byte| byte != 0);
        if u32_at(entry, field) == Some(0) && augmentation.any(|&byte| byte == b'P') {
            return true;
        }
        at = next;
    }
    false
}

/// The length of the entries that `bytes` start with, and whether an entry of length zero ends
/// them; `None` if there is no entry.
fn entries_len(bytes: &[u8]) -> Option<(usize, bool)> {
    const END: usize = 4;
    let mut at = 0usize;
    // Every turn but the last consumes at least 8 bytes.
    loop {
        match entry_len(bytes, at) {
            Some(0) => return (at > 0).then_some((at.checked_add(END)?, true)),
            Some(len) => at = at.checked_add(len)?,
            None => return (at > 0).then_some((at, false)),
        }
    }
}

/// The length of the entry at `at`, its length field included; 0 for the entry that ends the section.
/// `None` if there is no valid entry.
fn entry_len(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let (field, len) = match u32_at(rest, 0)? {
        0 => return Some(0),
        u32::MAX => (12usize, u64_at(rest, 4)?),
        short => (4, u64::from(short)),
    };
    let whole = usize::try_from(len).ok()?.checked_add(field)?;
    // 0 in a CIE. In an FDE the distance back from this field to its CIE, which precedes it.
    let cie_distance = u32_at(rest, field)? as usize;
    (whole <= rest.len() && len >= 4 && cie_distance <= at.checked_add(field)?).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::Flat;

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
    fn a_personality_is_named_by_a_cie() {
        let cie = |augmentation: &[u8; 4]| {
            [&[12, 0, 0, 0, 0, 0, 0, 0, 1][..], augmentation, &[0; 3]].concat()
        };
        let fde = [8, 0, 0, 0, 20, 0, 0, 0, 1, b'P', 0, 0];
        let plain = [&cie(b"zR\0P")[..], &fde].concat();
        assert!(!names_personality(&plain));
        assert!(names_personality(&[&plain[..], &cie(b"zPLR"), &[0; 4]].concat()));
        assert!(
            !names_personality(&[&plain[..], &[0; 4], &cie(b"zPLR")].concat()),
            "behind the end"
        );
        assert!(!names_personality(&[&plain[..], &cie(b"zPLR")[..14]].concat()), "cut off");
    }

    #[test]
    fn the_header_of_the_table_leads_to_the_section() {
        // Version 1; the pointer is absolute and 8 bytes long; there is no table.
        let mut memory = Flat(vec![1, 0x04, 0xff, 0xff, 0x20, 0, 0, 0, 0, 0, 0, 0]);
        memory.0.resize(0x20, 0);
        let hdr = Vaddr(0)..Vaddr(12);
        assert_eq!(EhFrame::locate(hdr.clone(), &memory), None, "nothing at 0x20");
        memory.0.extend([&CIE[..], &FDE, &[0; 4]].concat());
        let found = EhFrame { range: Vaddr(0x20)..Vaddr(0x3c), terminated: true };
        assert_eq!(EhFrame::locate(hdr.clone(), &memory), Some(found));
        assert_eq!(EhFrame::locate(Vaddr(0)..Vaddr(8), &memory), None, "cut off");
        memory.0[0] = 2;
        assert_eq!(EhFrame::locate(hdr.clone(), &memory), None, "another version");
        memory.0[..2].copy_from_slice(&[1, 0x84]);
        assert_eq!(EhFrame::locate(hdr, &memory), None, "an indirect pointer");
    }

    #[test]
    fn pointers_are_read_as_others_read_them() {
        use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};
        let hdr = Vaddr(0x100)..Vaddr(0x110);
        let mut memory = Flat(vec![0; 0x110]);
        memory.0[0x104..].copy_from_slice(&[0x91, 0xa2, 0xb3, 0xc4, 5, 6, 7, 0xf8, 9, 9, 9, 9]);
        let bases = BaseAddresses::default().set_eh_frame_hdr(hdr.start.0);
        for encoding in 0..=u8::MAX {
            // Linkers write no LEB128 here.
            if [1, 9].contains(&(encoding & 0x0f)) {
                continue;
            }
            memory.0[0x100..0x104].copy_from_slice(&[1, encoding, 0xff, 0xff]);
            let parsed = EhFrameHdr::new(&memory.0[0x100..], LittleEndian).parse(&bases, 8);
            let expected = match parsed.map(|parsed| parsed.eh_frame_ptr()) {
                Ok(Pointer::Direct(start)) => Some(Vaddr(start)),
                Ok(Pointer::Indirect(_)) | Err(_) => None,
            };
            assert_eq!(start(hdr.clone(), &memory), expected, "{encoding:#x}");
        }
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
