//! Bytes made into an .xz file without compressing them.
//!
//! gdb expects an .xz file in the section `.gnu_debugdata` of a symfile, and unpacks it. Compression would
//! gain nothing, since the bytes never leave the process. LZMA2 has a kind of chunk that holds its bytes as
//! they are. This module writes nothing but those: one block for each piece, since a reader unpacks and keeps
//! one block at a time. The whole costs three bytes in each 64 KiB.
//!
//! It never compresses, never reads .xz, and copies each piece once, to where it stays.
//!
//! Source: "The .xz File Format", version 1.2.1: 2.1.1 stream header, 3.1 block header, 4 index,
//! 2.1.2 stream footer, 1.2 variable-length integers, 6 CRC32. LZMA2 chunks are described in no
//! document; liblzma's `lzma2_encoder.c` is the reference: control byte 1 (first chunk of a
//! block; forgets the dictionary) or 2, big-endian length minus one, bytes; 0 ends the block.

#![forbid(unsafe_code)]

use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_vec};
use crate::base::features::MIN_FOR_FEATURES;
use crate::base::filler::Filler;

/// The most bytes an LZMA2 chunk can hold as they are.
const CHUNK: usize = 1 << 16;

/// Stream flags: no check of the contents, which are read from the same memory.
const STREAM_FLAGS: [u8; 2] = [0, 0];

/// A block header but for its CRC32: 12 bytes long in all, one filter and no sizes; LZMA2 (0x21),
/// one byte of properties: the smallest dictionary that holds a chunk, 64 KiB (8); padding.
const BLOCK_HEADER: [u8; 8] = [2, 0, 0x21, 1, 8, 0, 0, 0];
/// The length of a block header.
const BLOCK_HEADER_LEN: usize = 12;

/// An .xz file to be written: its pieces, and its length.
pub struct StoredXz<'a> {
    pieces: Vec<&'a [u8]>,
    index: Vec<u8>,
    len: usize,
}

impl<'a> StoredXz<'a> {
    /// The .xz file that unpacks to the `pieces`, one after the other. `None` if its length does not fit
    /// into a `usize`.
    pub fn new(pieces: Vec<&'a [u8]>) -> Option<StoredXz<'a>> {
        // No more than two numbers of ten bytes for each piece.
        let mut index = try_vec(pieces.len().checked_mul(20)?.checked_add(20)?).ok()?;
        index.push(0);
        push_vli(&mut index, pieces.len());
        // Header and footer are of equal length.
        let mut len = 2usize * 12;
        for piece in &pieces {
            let unpadded = unpadded_block_len(piece.len())?;
            push_vli(&mut index, unpadded);
            push_vli(&mut index, piece.len());
            len = len.checked_add(unpadded.checked_next_multiple_of(4)?)?;
        }
        pad(&mut index);
        let crc = crc32(&index);
        index.extend(crc.to_le_bytes());
        len = len.checked_add(index.len())?;
        Some(StoredXz { pieces, index, len })
    }

    /// How many bytes [`StoredXz::write`] appends.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The pieces as they will be in the file.
    pub fn places(&self) -> impl Iterator<Item = Piece> {
        let mut block = 12;
        let place = move |piece: &&[u8]| {
            let place = Piece { block, len: piece.len() };
            // `new` has added all of this up.
            let padded =
                unpadded_block_len(piece.len()).and_then(|it| it.checked_next_multiple_of(4));
            block = block.saturating_add(padded.unwrap_or_default());
            place
        };
        self.pieces.iter().map(place)
    }

    /// Writes the file, [`StoredXz::len`] bytes.
    pub fn write(&self, out: &mut Filler<'_>) {
        out.put(b"\xfd7zXZ\0");
        out.put(&STREAM_FLAGS);
        out.put(&crc32(&STREAM_FLAGS).to_le_bytes());
        for piece in &self.pieces {
            write_block(piece, out);
        }
        out.put(&self.index);
        // The footer repeats the flags and has the length of the index, so that a file can be read
        // from its end, as gdb does.
        let words = (self.index.len() / 4).saturating_sub(1);
        let [a, b, c, d] = (words as u32).to_le_bytes();
        let [e, f] = STREAM_FLAGS;
        let footer = [a, b, c, d, e, f];
        out.put(&crc32(&footer).to_le_bytes());
        out.put(&footer);
        out.put(b"YZ");
    }
}

/// A piece in an .xz file that this module has written.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where its block starts in the file.
    block: usize,
    len: usize,
}

impl Piece {
    /// Where in the file the byte at `offset` of the piece is.
    pub fn position(&self, offset: usize) -> usize {
        let chunk_heads = (offset / CHUNK).saturating_add(1).saturating_mul(3);
        let before = BLOCK_HEADER_LEN.saturating_add(chunk_heads);
        self.block.saturating_add(before).saturating_add(offset)
    }

    /// A copy of the piece, from the file that it is in; `None` if it is not in it.
    pub fn read(&self, file: &[u8]) -> Result<Option<Vec<u8>>, OutOfMemory> {
        if self.len > file.len() {
            return Ok(None);
        }
        let mut piece = try_vec(self.len)?;
        for offset in (0..self.len).step_by(CHUNK) {
            let start = self.position(offset);
            let len = CHUNK.min(self.len.saturating_sub(offset));
            let Some(chunk) = file.get(start..start.saturating_add(len)) else { return Ok(None) };
            piece.try_append(chunk)?;
        }
        Ok(Some(piece))
    }
}

/// The length of the block that holds `piece` bytes, without the padding behind it.
fn unpadded_block_len(piece: usize) -> Option<usize> {
    let chunk_heads = piece.div_ceil(CHUNK).checked_mul(3)?;
    piece.checked_add(chunk_heads)?.checked_add(BLOCK_HEADER_LEN + 1)
}

fn write_block(piece: &[u8], out: &mut Filler<'_>) {
    out.put(&BLOCK_HEADER);
    out.put(&crc32(&BLOCK_HEADER).to_le_bytes());
    for (i, chunk) in piece.chunks(CHUNK).enumerate() {
        out.put(&[if i == 0 { 1 } else { 2 }]);
        // No chunk is empty.
        out.put(&(chunk.len().wrapping_sub(1) as u16).to_be_bytes());
        out.put(chunk);
    }
    out.put(&[0]);
    let unpadded = unpadded_block_len(piece.len()).unwrap_or_default();
    out.skip(unpadded.wrapping_neg() % 4);
}

/// Appends `value`, seven bits to a byte, the least significant first.
fn push_vli(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().saturating_add(3) & !3, 0);
}

/// The CRC32 of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    if bytes.len() >= MIN_FOR_FEATURES {
        return crc32fast::hash(bytes);
    }
    let step = |crc: u32| NIBBLES.get((crc & 15) as usize).map_or(0, |it| it ^ crc >> 4);
    !bytes.iter().fold(!0, |crc, &byte| step(step(crc ^ u32::from(byte))))
}

/// What four bits add to a CRC32 (IEEE 802.3, reflected).
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const NIBBLES: [u32; 16] = {
    let mut table = [0; 16];
    let mut nibble = 0;
    while nibble < 16 {
        let (mut crc, mut bit) = (nibble as u32, 0);
        while bit < 4 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
            bit += 1;
        }
        table[nibble] = crc;
        nibble += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What the reference implementation makes of `packed`.
    fn unpack(packed: Vec<u8>) -> Vec<u8> {
        let mut xz = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test runs the tool `xz`: install the package xz-utils");
        let mut stdin = xz.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&packed));
        let output = xz.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn written(xz: &StoredXz<'_>) -> Vec<u8> {
        Filler::filled(xz.len(), |out| xz.write(out)).unwrap()
    }

    #[test]
    fn every_piece_is_where_its_place_says() {
        let pieces = [vec![1u8; 70_000], vec![2], vec![], (0..140_000).map(|i| i as u8).collect()];
        let xz = StoredXz::new(pieces.iter().map(|piece| &piece[..]).collect()).unwrap();
        let file = written(&xz);
        let places: Vec<Piece> = xz.places().collect();
        assert_eq!(places.len(), pieces.len());
        for (place, piece) in places.iter().zip(&pieces) {
            assert!((0..piece.len()).all(|offset| file[place.position(offset)] == piece[offset]));
            assert_eq!(place.read(&file).unwrap().as_ref(), Some(piece));
        }
        assert_eq!(places[3].read(&file[..file.len() / 2]).unwrap(), None);
    }

    #[test]
    fn what_is_framed_unpacks_to_itself() {
        let lengths: &[&[usize]] = &[
            &[],
            &[0],
            &[1],
            &[65536],
            &[65537],
            &[0, 1, 65535, 65536, 65537, 3 * 65536 + 5],
            &[7; 300],
        ];
        for lengths in lengths {
            let pieces: Vec<_> = lengths.iter().map(|&len| bytes(len)).collect();
            let xz = StoredXz::new(pieces.iter().map(|piece| &piece[..]).collect()).unwrap();
            assert_eq!(unpack(written(&xz)), pieces.concat(), "{lengths:?}");
        }
    }

    #[test]
    fn the_check_value_of_crc32_is_right() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let long = bytes(200_000);
        for len in [0, 1, MIN_FOR_FEATURES - 1, MIN_FOR_FEATURES, 200_000] {
            assert_eq!(crc32(&long[..len]), crc32fast::hash(&long[..len]), "{len}");
        }
    }
}
