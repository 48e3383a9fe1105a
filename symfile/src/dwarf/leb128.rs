//! Writing LEB128 (DWARF 5, 7.6). It never reads it: gimli does.

#![forbid(unsafe_code)]

/// Appends `value` as unsigned LEB128.
pub fn push_uleb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
