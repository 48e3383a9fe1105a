//! Rewriting the locations of thread-local variables in DWARF, so that gdb finds the variables.
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
//! `DW_OP_form_tls_address`), ten bytes, and for a part of a Fortran common block
//! `DW_OP_plus_uconst` behind that; each replacement fits into the ten. The places are found by
//! their bytes, length included, and by the offset lying in the block; walking all DWARF finds the
//! very same (tried on C, C++ and Rust libraries), at many times the cost.
//!
//! With split DWARF ([`super::skeleton`]) the location is in a file that only the debugger has, and takes the
//! offset from an entry of `.debug_addr` ([`slots`]). There the distance can be added, but no pointer
//! followed: then the offset is made to lead outside all memory.
//!
//! Sources: DWARF 5, 2.5.1 (operations), 7.27 (`.debug_addr`); gdb `dwarf2/loc.c`, `target.c`
//! (`target_translate_tls_address`); the behaviour of gdb 12 to 18 was found by experiment.

#![forbid(unsafe_code)]

use crate::base::features::MIN_FOR_FEATURES;

use super::leb128::push_uleb;
use super::skeleton::SplitUnit;

const DW_OP_DEREF: u8 = 0x06;
const DW_OP_CONST2S: u8 = 0x0b;
const DW_OP_CONST4S: u8 = 0x0d;
const DW_OP_CONST8U: u8 = 0x0e;
const DW_OP_PLUS_UCONST: u8 = 0x23;
const DW_OP_NOP: u8 = 0x96;
const DW_OP_FORM_TLS_ADDRESS: u8 = 0x9b;
const DW_OP_GNU_PUSH_TLS_ADDRESS: u8 = 0xe0;

/// The length of each location, before and after.
const LOCATION: usize = 10;
/// The length of an entry of `.debug_addr`.
const SLOT: usize = 8;

/// Where every thread has its block of an instance's thread-local variables, seen from its block
/// of the first module's, which is where debuggers start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadLocals {
    /// The block is at this distance.
    AtDistance(i64),
    /// A pointer to the block is at this distance.
    BehindPointerAt(i64),
    /// There is no constant way to it, or no such block.
    Elsewhere,
}

/// A location of a thread-local variable, or a slot that one refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsLocation {
    /// Where its bytes begin in the section.
    pub at: usize,
    /// The variable's offset in its block.
    pub offset: u64,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A location, with the operation that asks for the block.
    Location { ask: u8 },
    /// An offset that a location elsewhere refers to.
    Slot,
    /// Such an offset, or an address.
    Doubtful,
}

/// Takes a [`TlsLocation`], or returns why it can take no more.
pub type Take<'t, E> = &'t mut dyn FnMut(TlsLocation) -> Result<(), E>;

/// The locations of thread-local variables in a section of DIEs, of an image whose block has `block_size`
/// bytes. A variable that the linker discarded has the offset 0, so there may be locations without a block.
pub fn locations<E>(section: &[u8], block_size: u64, take: Take<'_, E>) -> Result<(), E> {
    let block_size = block_size.max(1);
    let location_at = |at: usize| {
        let after = at.checked_add(LOCATION)?;
        let Some(&[DW_OP_CONST8U, ref offset @ .., ask]) = section.get(at..after) else {
            return None;
        };
        let len = usize::from(*section.get(at.checked_sub(1)?)?);
        let offset = u64::from_le_bytes(offset.try_into().ok()?);
        let is_part = || section.get(after) == Some(&DW_OP_PLUS_UCONST);
        // A part has an operand, too.
        let is_whole = len == LOCATION || (LOCATION + 2..0x80).contains(&len) && is_part();
        let location = TlsLocation { at, offset, form: Form::Location { ask } };
        (is_whole && offset < block_size).then_some(location)
    };
    let ends_at = |end: usize| location_at(end.checked_sub(LOCATION - 1)?);
    let (one, other) = (DW_OP_FORM_TLS_ADDRESS, DW_OP_GNU_PUSH_TLS_ADDRESS);
    if section.len() < MIN_FOR_FEATURES {
        let asks = memchr::arch::all::memchr::Two::new(one, other);
        asks.iter(section).filter_map(ends_at).try_for_each(take)
    } else {
        memchr::memchr2_iter(one, other, section).filter_map(ends_at).try_for_each(take)
    }
}

/// To what an address in `.debug_addr` belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Code,
    /// A thread-local variable: gcc (12) states the address of its initial value in place of its offset.
    ThreadLocal {
        offset: u64,
    },
    /// A thread-local or an ordinary variable: initial values of zero take no addresses of their own.
    Doubtful,
    Other,
}

/// The offsets of thread-local variables among the entries of `.debug_addr` of one unit, of an image whose
/// block has `block_size` bytes. `has_first` is whether the variable at offset 0 may be among them.
pub fn slots<E>(
    entries: &[u8],
    unit: &SplitUnit,
    block_size: u64,
    has_first: bool,
    owner: impl Fn(u64) -> Owner,
    take: Take<'_, E>,
) -> Result<(), E> {
    let values = || entries.as_chunks::<SLOT>().0.iter().map(|entry| u64::from_le_bytes(*entry));
    // Code that the linker discarded has the address 0, which is no offset. If there are no more zeroes
    // than parts of discarded code, all are such addresses. If there are more and the skeleton does not say
    // which is which, all are taken for offsets: a wrong offset would show other memory, while a wrong
    // address affects only breakpoints in code that does not exist.
    let zeros = || (0..).zip(values()).filter(|(at, value)| *value == 0 && !unit.code.contains(at));
    let has_first = has_first && zeros().count() > unit.discarded;
    let mut after_code = false;
    for (index, value) in values().enumerate() {
        let form = Form::Slot;
        let is_first =
            || has_first && !(unit.variables_first && after_code) && !unit.code.contains(&index);
        let (offset, form) = match owner(value) {
            _ if value < block_size && (value != 0 || is_first()) => (value, form),
            Owner::ThreadLocal { offset } => (offset, form),
            Owner::Doubtful => (0, Form::Doubtful),
            owner => {
                after_code |= owner == Owner::Code;
                continue;
            }
        };
        take(TlsLocation { at: index.saturating_mul(SLOT), offset, form })?;
    }
    Ok(())
}

/// Whether an entry states the address of the variable at offset 0, as gcc does.
pub fn states_first(entries: &[u8], owner: impl Fn(u64) -> Owner) -> bool {
    let mut values = entries.as_chunks::<SLOT>().0.iter().map(|entry| u64::from_le_bytes(*entry));
    values.any(|value| owner(value) == Owner::ThreadLocal { offset: 0 })
}

impl TlsLocation {
    /// The same location, in a section where its part begins at `start`.
    pub fn moved(self, start: usize) -> TlsLocation {
        TlsLocation { at: self.at.saturating_add(start), ..self }
    }

    /// Its length in bytes, before and after it is rewritten.
    pub fn len(&self) -> usize {
        match self.form {
            Form::Location { .. } => LOCATION,
            Form::Slot | Form::Doubtful => SLOT,
        }
    }

    /// Its bytes in an instance.
    pub fn bytes(&self, place: ThreadLocals) -> Vec<u8> {
        match self.form {
            Form::Location { ask } => self.location(ask, place).to_vec(),
            Form::Slot | Form::Doubtful => {
                let offset = match place {
                    ThreadLocals::AtDistance(distance) if self.form == Form::Slot => {
                        self.offset.wrapping_add_signed(distance)
                    }
                    // Added to any address that a process can have, this gives one that none has.
                    _ => 1 << 62,
                };
                offset.to_le_bytes().to_vec()
            }
        }
    }

    fn location(&self, ask: u8, place: ThreadLocals) -> [u8; LOCATION] {
        let mut location = Vec::with_capacity(LOCATION);
        match place {
            ThreadLocals::AtDistance(distance) => {
                location.push(DW_OP_CONST8U);
                location.extend(self.offset.wrapping_add_signed(distance).to_le_bytes());
                location.push(ask);
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
                location.extend([ask, DW_OP_DEREF]);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, as a vector.
    fn locations(section: &[u8], block_size: u64) -> Vec<TlsLocation> {
        let mut found = vec![];
        super::locations(section, block_size, &mut |location| {
            found.push(location);
            Ok::<_, ()>(())
        })
        .unwrap();
        found
    }

    fn slots(
        entries: &[u8],
        unit: &SplitUnit,
        block_size: u64,
        has_first: bool,
        owner: impl Fn(u64) -> Owner,
    ) -> Vec<TlsLocation> {
        let mut found = vec![];
        super::slots(entries, unit, block_size, has_first, owner, &mut |location| {
            found.push(location);
            Ok::<_, ()>(())
        })
        .unwrap();
        found
    }

    fn original(offset: u64, ask: u8) -> Vec<u8> {
        [&[10, DW_OP_CONST8U][..], &offset.to_le_bytes(), &[ask]].concat()
    }

    #[test]
    fn locations_are_found_by_length_operations_and_an_offset_in_the_block() {
        let found = original(4, 0xe0);
        let section = [&[10, 10][..], &found, &original(16, 0xe0), &original(8, 0x9b)].concat();
        let told: Vec<_> = locations(&section, 16)
            .iter()
            .map(|location| (location.at, location.offset, location.form))
            .collect();
        let location = |ask| Form::Location { ask };
        assert_eq!(told, [(3, 4, location(0xe0)), (25, 8, location(0x9b))]);
        assert_eq!(locations(&original(0, 0xe1), 16), []);
        assert_eq!(locations(&found[..10], 16), []);
        assert_eq!(locations(&found[1..], 16), []);
    }

    #[test]
    fn a_part_of_a_common_block_is_found() {
        let mut part = original(4, 0xe0);
        part[0] = 12;
        assert_eq!(locations(&part, 16), []);
        part.extend([DW_OP_PLUS_UCONST, 3]);
        assert_eq!(locations(&part, 16).len(), 1);
    }

    fn owner(address: u64) -> Owner {
        match address {
            0x1000..0x2000 => Owner::Code,
            0x3000..0x3010 => Owner::ThreadLocal { offset: address - 0x3000 },
            0x3010..0x3020 => Owner::Doubtful,
            _ => Owner::Other,
        }
    }

    /// The places of [`slots`] among these values.
    fn slots_at(values: &[u64], has_first: bool, unit: &SplitUnit) -> Vec<usize> {
        let section: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let found = slots(&section, unit, 16, has_first, owner);
        found.iter().map(|location| location.at / SLOT).collect()
    }

    fn unit(code: &[usize], discarded: usize, variables_first: bool) -> SplitUnit {
        let code = code.iter().copied().collect();
        SplitUnit { addresses: 0..0, code, discarded, variables_first }
    }

    #[test]
    fn slots_are_told_from_addresses_by_their_values() {
        let section = [4, 0x4010, 16, 15, 0x1139, 0x3008, 0x3018].map(u64::to_le_bytes);
        let found = slots(section.as_flattened(), &unit(&[], 0, true), 16, true, owner);
        let told: Vec<_> = found.iter().map(|location| (location.at, location.offset)).collect();
        assert_eq!(told, [(0, 4), (24, 15), (40, 8), (48, 0)]);
        assert_eq!(found[0].bytes(ThreadLocals::AtDistance(-8)), (-4_i64).to_le_bytes());
        let lost = (1_u64 << 62).to_le_bytes();
        for place in [ThreadLocals::BehindPointerAt(8), ThreadLocals::Elsewhere] {
            assert_eq!(found[0].bytes(place), lost);
        }
        assert_eq!(found[3].bytes(ThreadLocals::AtDistance(-8)), lost);
    }

    #[test]
    fn functions_that_were_thrown_away_are_told_from_the_first_thread_local() {
        let values = [0, 0x1000, 0, 0x1100, 0];
        // By LLVM: after code there are none.
        assert_eq!(slots_at(&values, true, &unit(&[], 2, true)), [0]);
        assert!(slots_at(&values, false, &unit(&[], 2, true)).is_empty());
        // The first function was thrown away.
        assert_eq!(slots_at(&[0, 0x1000], true, &unit(&[0], 0, true)), []);
        assert_eq!(slots_at(&[0, 0x1000], true, &unit(&[], 1, true)), []);
        // By gcc: in any order.
        assert_eq!(slots_at(&values, true, &unit(&[0, 2], 0, false)), [4]);
        assert_eq!(slots_at(&[0x1000, 0], true, &unit(&[], 0, false)), [1]);
        assert_eq!(slots_at(&[0x1000, 0], true, &unit(&[], 1, false)), []);
        // Which of them is the variable is not told.
        assert_eq!(slots_at(&[0, 0x1000, 0], true, &unit(&[], 1, false)), [0, 2]);

        let section = values.map(u64::to_le_bytes);
        assert!(!states_first(section.as_flattened(), owner));
        assert!(states_first(&0x3000_u64.to_le_bytes(), owner));
    }

    #[test]
    fn every_place_fits_into_ten_bytes_or_reads_as_unavailable() {
        let location = |offset| TlsLocation { at: 0, offset, form: Form::Location { ask: 0xe0 } };
        let near = location(300).bytes(ThreadLocals::BehindPointerAt(-8));
        assert_eq!(near, [0x0b, 0xf8, 0xff, 0xe0, 0x06, 0x23, 0xac, 0x02, 0x96, 0x96]);
        let first = location(0).bytes(ThreadLocals::BehindPointerAt(0x12345));
        assert_eq!(first, [0x0d, 0x45, 0x23, 0x01, 0, 0xe0, 0x06, 0x96, 0x96, 0x96]);
        let fixed = location(4).bytes(ThreadLocals::AtDistance(0x100));
        assert_eq!(fixed, [0x0e, 4, 1, 0, 0, 0, 0, 0, 0, 0xe0]);
        for (location, place) in [
            (location(1 << 28), ThreadLocals::BehindPointerAt(8)),
            (location(1 << 14), ThreadLocals::BehindPointerAt(1 << 20)),
            (location(0), ThreadLocals::BehindPointerAt(1 << 40)),
            (location(0), ThreadLocals::Elsewhere),
        ] {
            assert_eq!(location.bytes(place), unavailable());
        }
    }
}
