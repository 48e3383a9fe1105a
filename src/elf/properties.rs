//! The GNU properties of an image: what it asks of the processor.
//!
//! They are in one note of an 8-byte aligned `PT_NOTE`. As in `ld.so`, a note that is malformed, and a second
//! note, count as none. Which property names an instruction set is a machine's
//! ([`Machine::isa_needed`](crate::arch::Machine::isa_needed)), and so is what its bits mean.
//!
//! Sources: "Linux Extensions to gABI", section 2.1.7 "Program Property"; glibc `sysdeps/x86/dl-prop.h`.

#![forbid(unsafe_code)]

use crate::elf::read::u32_at;

/// The alignment of the note with the properties: of its `PT_NOTE`, and of its parts.
pub(super) const ALIGN: u64 = 8;
/// `n_namesz`, `n_descsz`, `n_type`.
const HEADER: usize = 12;
const NT_GNU_PROPERTY_TYPE_0: u32 = 5;

/// The value of the property of this type in the notes of a `PT_NOTE`; 0 if it is absent.
pub(super) fn word(notes: &[u8], wanted: u32) -> u32 {
    let mut found = None;
    let mut rest = notes;
    while rest.len() > HEADER {
        let field = |at| u32_at(rest, at).unwrap_or(0);
        let (namesz, descsz) = (field(0) as usize, field(4) as usize);
        let Some(desc) = next(HEADER, namesz) else { break };
        if namesz == 4
            && field(8) == NT_GNU_PROPERTY_TYPE_0
            && rest.get(HEADER..desc) == Some(b"GNU\0")
        {
            let properties = rest.get(desc..).and_then(|it| it.get(..descsz));
            let Some(properties) = properties.filter(|_| found.is_none()) else { return 0 };
            let Some(value) = in_properties(properties, wanted) else { return 0 };
            found = Some(value);
        }
        let Some(behind) = next(desc, descsz).and_then(|end| rest.get(end..)) else { break };
        rest = behind;
    }
    found.unwrap_or(0)
}

/// Where the part behind one of `len` bytes at `start` begins.
fn next(start: usize, len: usize) -> Option<usize> {
    start.checked_add(len)?.checked_next_multiple_of(ALIGN as usize)
}

/// The value of a property; 0 if it is absent, `None` if the properties are malformed.
fn in_properties(properties: &[u8], wanted: u32) -> Option<u32> {
    if properties.is_empty() || !properties.len().is_multiple_of(ALIGN as usize) {
        return None;
    }
    let (mut at, mut last): (usize, u32) = (0, 0);
    while let (Some(kind), Some(size)) =
        (u32_at(properties, at), at.checked_add(4).and_then(|at| u32_at(properties, at)))
    {
        let data = at.checked_add(8)?;
        // They ascend.
        if kind < last || data.checked_add(size as usize).is_none_or(|end| end > properties.len()) {
            return None;
        }
        if kind >= wanted {
            let value = if size == 4 { u32_at(properties, data) } else { None };
            return if kind == wanted { value } else { Some(0) };
        }
        last = kind;
        at = next(data, size as usize)?;
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: u32 = 0xc000_8002;

    fn note(name: &[u8; 4], kind: u32, properties: &[u8]) -> Vec<u8> {
        let words = [4, properties.len() as u32, kind].map(u32::to_le_bytes).concat();
        let mut note = [&words[..], name, properties].concat();
        note.resize(note.len().next_multiple_of(8), 0);
        note
    }

    fn properties(entries: &[(u32, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (kind, data) in entries {
            all.extend([kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat());
            all.extend(*data);
            all.resize(all.len().next_multiple_of(8), 0);
        }
        all
    }

    fn gnu(entries: &[(u32, &[u8])]) -> Vec<u8> {
        note(b"GNU\0", NT_GNU_PROPERTY_TYPE_0, &properties(entries))
    }

    #[test]
    fn a_property_is_found_among_others() {
        let value = 0xfu32.to_le_bytes();
        let entries: [(u32, &[u8]); 3] =
            [(0xc000_0002, &[3, 0, 0, 0]), (WANTED, &value), (0xc001_0002, &[1, 0, 0, 0])];
        assert_eq!(word(&gnu(&entries), WANTED), 0xf);
        assert_eq!(word(&gnu(&entries[..1]), WANTED), 0);
        assert_eq!(word(&gnu(&entries[2..]), WANTED), 0);
        let other = note(b"xyz\0", NT_GNU_PROPERTY_TYPE_0, &properties(&entries));
        assert_eq!(word(&other, WANTED), 0);
        assert_eq!(word(&[other, gnu(&entries)].concat(), WANTED), 0xf);
        assert_eq!(word(&[], WANTED), 0);
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        let value = 0xfu32.to_le_bytes();
        let good = gnu(&[(WANTED, &value)]);
        assert_eq!(word(&[good.clone(), good.clone()].concat(), WANTED), 0, "a second note");
        for len in 0..good.len() - 4 {
            assert_eq!(word(&good[..len], WANTED), 0, "cut to {len} bytes");
        }
        assert_eq!(word(&gnu(&[(WANTED, &[15, 0, 0, 0, 0, 0, 0, 0])]), WANTED), 0, "8 bytes");
        assert_eq!(word(&gnu(&[(WANTED + 1, &value), (WANTED, &value)]), WANTED), 0, "descending");
        let mut long = good.clone();
        long[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(word(&long, WANTED), 0, "a property longer than the note");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(word(&long, WANTED), 0, "a note longer than its segment");
    }
}
