//! Memory that is filled from its start. It never writes beyond the end.

#![forbid(unsafe_code)]

use crate::base::fallible::OutOfMemory;
use crate::base::fallible::try_vec;

/// Memory being filled from its start. Its length was computed before; bytes that do not fit are not written.
pub struct Filler<'m> {
    rest: Rest<'m>,
}

/// What is not filled yet.
enum Rest<'m> {
    Memory(&'m mut [u8]),
    /// The vector's capacity, which has no contents: nobody needs to zero it.
    Room(&'m mut Vec<u8>),
}

impl<'m> Filler<'m> {
    /// Fills memory that has contents.
    pub fn new(memory: &'m mut [u8]) -> Filler<'m> {
        Filler { rest: Rest::Memory(memory) }
    }

    /// A vector of `len` bytes, filled by `fill`, with zeroes behind that.
    pub fn filled(len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> Result<Vec<u8>, OutOfMemory> {
        let mut bytes = try_vec(len)?;
        fill(&mut Filler { rest: Rest::Room(&mut bytes) });
        bytes.resize(len, 0);
        Ok(bytes)
    }

    pub fn put(&mut self, bytes: &[u8]) {
        match &mut self.rest {
            Rest::Memory(memory) => {
                let len = bytes.len().min(memory.len());
                let (now, rest) = std::mem::take(memory).split_at_mut(len);
                now.copy_from_slice(bytes.split_at(len).0);
                *memory = rest;
            }
            Rest::Room(room) => {
                let len = bytes.len().min(left(room));
                room.extend_from_slice(bytes.split_at(len).0);
            }
        }
    }

    /// Puts `len` zeroes.
    pub fn skip(&mut self, len: usize) {
        match &mut self.rest {
            Rest::Memory(memory) => {
                let len = len.min(memory.len());
                let (now, rest) = std::mem::take(memory).split_at_mut(len);
                now.fill(0);
                *memory = rest;
            }
            Rest::Room(room) => {
                let len = len.min(left(room));
                room.resize(room.len().saturating_add(len), 0);
            }
        }
    }
}

/// The room that is left in a vector.
fn left(room: &Vec<u8>) -> usize {
    room.capacity().saturating_sub(room.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_room_are_filled_alike_and_never_beyond_the_end() {
        let fill = |out: &mut Filler<'_>| {
            out.put(&[1, 2]);
            out.skip(2);
            out.put(&[3, 4, 5]);
            out.skip(9);
            out.put(&[6]);
        };
        for (len, expected) in [(6, &[1, 2, 0, 0, 3, 4][..]), (3, &[1, 2, 0]), (0, &[])] {
            let mut memory = vec![0xaa; len];
            fill(&mut Filler::new(&mut memory));
            assert_eq!(memory, expected);
            assert_eq!(Filler::filled(len, fill).unwrap(), expected);
        }
        assert_eq!(Filler::filled(3, |out| out.put(&[7])).unwrap(), [7, 0, 0]);
    }
}
