//! Where thread-local variables are, rewritten in DWARF so that gdb finds them.
//!
//! DWARF says of a thread-local variable: its offset in its library's block, and "ask the system
//! for the block". gdb asks `libthread_db` with the library's link map; for a library from the JIT
//! interface it has none, and then takes the block of the first module, the executable's, without
//! a word: it prints wrong memory, and **writes** it on `set var`. So the location itself must lead
//! to the right place from there:
//!
//! * block at a constant distance from the first module's: the distance is added to the offset;
//! * block behind a pointer at a constant distance (one of memdl's slots): distance, ask, load the
//!   pointer, add the offset;
//! * anything else: the location computes nothing, and gdb says so. A wrong value is never shown.
//!
//! Compilers emit `DW_OP_const8u <offset>` and `DW_OP_GNU_push_tls_address` (or
//! `DW_OP_form_tls_address`), ten bytes, and each replacement fits into ten. The places are found
//! by their bytes, length included, and by the offset lying in the block; walking all DWARF finds
//! the very same (tried on C, C++ and Rust libraries), at many times the cost.
//!
//! Sources: DWARF 5, 2.5.1 (operations); gdb `dwarf2/loc.c`, `target.c`
//! (`target_translate_tls_address`); the behaviour of gdb 12 to 18 was found by experiment.

#![forbid(unsafe_code)]

use super::ThreadLocals;

const DW_OP_DEREF: u8 = 0x06;
const DW_OP_CONST2S: u8 = 0x0b;
const DW_OP_CONST4S: u8 = 0x0d;
const DW_OP_CONST8U: u8 = 0x0e;
const DW_OP_PLUS_UCONST: u8 = 0x23;
const DW_OP_NOP: u8 = 0x96;
const DW_OP_FORM_TLS_ADDRESS: u8 = 0x9b;
const DW_OP_GNU_PUSH_TLS_ADDRESS: u8 = 0xe0;

/// The length of each location, before and after.
pub(super) const LOCATION: usize = 10;

/// A thread-local variable's location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Where its bytes begin in the section.
    pub at: usize,
    /// The variable's offset in its block.
    pub offset: u64,
    /// The operation that asks for the block.
    ask: u8,
}

/// The locations of thread-local variables in a section of DIEs, of an image whose block has this
/// many bytes.
pub(super) fn sites(section: &[u8], block_size: u64) -> Vec<Site> {
    let mut sites = Vec::new();
    let mut rest = 0;
    while let Some(skip) = section.get(rest..).and_then(|tail| find(tail, LOCATION as u8)) {
        let at = rest + skip + 1;
        if let Some(&[DW_OP_CONST8U, ref offset @ .., ask]) = section.get(at..at + LOCATION)
            && matches!(ask, DW_OP_FORM_TLS_ADDRESS | DW_OP_GNU_PUSH_TLS_ADDRESS)
            && let Ok(offset) = offset.try_into().map(u64::from_le_bytes)
            && offset < block_size
        {
            sites.push(Site { at, offset, ask });
        }
        rest = at;
    }
    sites
}

fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|&byte| byte == wanted)
}

impl Site {
    /// The location in an instance.
    pub(super) fn location(&self, place: ThreadLocals) -> [u8; LOCATION] {
        let mut location = Vec::with_capacity(LOCATION);
        match place {
            ThreadLocals::AtDistance(distance) => {
                location.push(DW_OP_CONST8U);
                location.extend(self.offset.wrapping_add_signed(distance).to_le_bytes());
                location.push(self.ask);
            }
            ThreadLocals::BehindPointerAt(distance) => {
                if let Ok(distance) = i16::try_from(distance) {
                    location.push(DW_OP_CONST2S);
                    location.extend(distance.to_le_bytes());
                } else if let Ok(distance) = i32::try_from(distance) {
                    location.push(DW_OP_CONST4S);
                    location.extend(distance.to_le_bytes());
                } else {
                    return unavailable();
                }
                location.extend([self.ask, DW_OP_DEREF]);
                if self.offset != 0 {
                    location.push(DW_OP_PLUS_UCONST);
                    push_uleb(&mut location, self.offset);
                }
            }
            ThreadLocals::Elsewhere => return unavailable(),
        }
        if location.len() > LOCATION {
            return unavailable();
        }
        location.resize(LOCATION, DW_OP_NOP);
        location.try_into().unwrap_or_else(|_| unavailable())
    }
}

/// A location that computes nothing: gdb says that it cannot be evaluated. (A piece without a place
/// would read as optimised out, but must not be larger than the variable, whose size is elsewhere.)
fn unavailable() -> [u8; LOCATION] {
    [DW_OP_NOP; LOCATION]
}

/// Appends `value` as unsigned LEB128.
fn push_uleb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(offset: u64, ask: u8) -> Vec<u8> {
        [&[10, DW_OP_CONST8U][..], &offset.to_le_bytes(), &[ask]].concat()
    }

    #[test]
    fn locations_are_found_by_length_operations_and_an_offset_in_the_block() {
        let found = original(4, 0xe0);
        let section = [&[10, 10][..], &found, &original(16, 0xe0), &original(8, 0x9b)].concat();
        let sites = sites(&section, 16);
        let told: Vec<_> = sites.iter().map(|site| (site.at, site.offset, site.ask)).collect();
        assert_eq!(told, [(3, 4, 0xe0), (25, 8, 0x9b)]);
        assert_eq!(super::sites(&original(0, 0xe1), 16), []);
        assert_eq!(super::sites(&found[..10], 16), []);
    }

    #[test]
    fn every_place_fits_into_ten_bytes_or_reads_as_unavailable() {
        let site = |offset| Site { at: 0, offset, ask: 0xe0 };
        let near = site(300).location(ThreadLocals::BehindPointerAt(-8));
        assert_eq!(near, [0x0b, 0xf8, 0xff, 0xe0, 0x06, 0x23, 0xac, 0x02, 0x96, 0x96]);
        let first = site(0).location(ThreadLocals::BehindPointerAt(0x12345));
        assert_eq!(first, [0x0d, 0x45, 0x23, 0x01, 0, 0xe0, 0x06, 0x96, 0x96, 0x96]);
        let fixed = site(4).location(ThreadLocals::AtDistance(0x100));
        assert_eq!(fixed, [0x0e, 4, 1, 0, 0, 0, 0, 0, 0, 0xe0]);
        for (site, place) in [
            (site(1 << 28), ThreadLocals::BehindPointerAt(8)),
            (site(1 << 14), ThreadLocals::BehindPointerAt(1 << 20)),
            (site(0), ThreadLocals::BehindPointerAt(1 << 40)),
            (site(0), ThreadLocals::Elsewhere),
        ] {
            assert_eq!(site.location(place), unavailable());
        }
    }
}
