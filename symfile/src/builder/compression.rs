//! Unpacking compressed debug sections.
//!
//! There are two kinds. A section with `SHF_COMPRESSED` begins with an `Elf64_Chdr`, which has the algorithm
//! and the size. A section whose name begins with `.zdebug_` begins with `ZLIB` and the size. Behind that
//! header is one zlib stream, or Zstandard frames (mold writes several).
//!
//! Both the size and the data may be false. A size is accepted within the [`Budget`]. No more than that is
//! unpacked, and less is an error. The decoders' state is on the heap: threads
//! with small stacks load images too. It knows nothing of DWARF.
//!
//! Sources: gABI chapter 4, "Section Compression"; RFC 1950; RFC 8878; binutils `bfd/compress.c`
//! for `.zdebug_`.

#![forbid(unsafe_code)]

use goblin::elf::compression_header::compression_header64::CompressionHeader;
use goblin::elf::compression_header::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};
use goblin::elf::section_header::SHF_COMPRESSED;
use goblin::elf64::section_header::SectionHeader;
use scroll::{BE, LE, Pread};

use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{require_memory, try_zeroed};
use crate::dwarf::budget::{Budget, OverBudget};

/// How a section states that it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// By its flag `SHF_COMPRESSED`.
    Flag,
    /// By its name, which begins with `.zdebug_`.
    Name,
}

/// Why a section cannot be unpacked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInflated {
    /// The header is cut off or missing.
    #[error("no header that tells how it is compressed")]
    Header,
    /// `ch_type`.
    #[error("compressed in a way that is not known: {0:#x}")]
    Algorithm(u32),
    /// Zstandard, in a build without the feature.
    #[cfg(not(feature = "zstd"))]
    #[error("compressed with Zstandard, and memdl was built without its feature `zstd`")]
    Zstandard,
    /// Its stated size is too large, or unpacking takes too long.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The system has no memory left.
    #[error("no memory for {0} bytes")]
    Memory(u64),
    /// Cut off, or damaged.
    #[error("the compressed data are damaged: {0}")]
    Damaged(String),
    /// Its size is not the stated one.
    #[error("the header tells a wrong size")]
    Size,
}

impl From<OutOfMemory> for NotInflated {
    fn from(OutOfMemory { bytes }: OutOfMemory) -> NotInflated {
        NotInflated::Memory(bytes)
    }
}

/// The debug section unpacked; `None` if it is not compressed.
pub fn section(
    name: &str,
    header: &SectionHeader,
    contents: &[u8],
    budget: &Budget,
) -> Option<Result<Vec<u8>, NotInflated>> {
    let packing = if header.sh_flags & u64::from(SHF_COMPRESSED) != 0 {
        Packing::Flag
    } else if name.starts_with(".zdebug_") {
        Packing::Name
    } else {
        return None;
    };
    Some(inflate(contents, packing, budget))
}

/// Unpacks `section`.
fn inflate(section: &[u8], packing: Packing, budget: &Budget) -> Result<Vec<u8>, NotInflated> {
    let mut at = 0;
    let (algorithm, stated) = match packing {
        Packing::Flag => {
            let header: CompressionHeader =
                section.gread_with(&mut at, LE).map_err(|_| NotInflated::Header)?;
            (header.ch_type, header.ch_size)
        }
        Packing::Name => {
            if !section.starts_with(b"ZLIB") {
                return Err(NotInflated::Header);
            }
            at = 4;
            let size = section.gread_with(&mut at, BE).map_err(|_| NotInflated::Header)?;
            (ELFCOMPRESS_ZLIB, size)
        }
    };
    let unpack = match algorithm {
        ELFCOMPRESS_ZLIB => zlib,
        #[cfg(feature = "zstd")]
        ELFCOMPRESS_ZSTD => zstd,
        #[cfg(not(feature = "zstd"))]
        ELFCOMPRESS_ZSTD => return Err(NotInflated::Zstandard),
        _ => return Err(NotInflated::Algorithm(algorithm)),
    };
    budget.unpack(section.len(), stated)?;
    let size = usize::try_from(stated).map_err(|_| NotInflated::Size)?;
    let mut unpacked = try_zeroed(size)?;
    unpack(section.get(at..).unwrap_or_default(), &mut unpacked, budget)?;
    Ok(unpacked)
}

/// Fills `unpacked` to its end.
fn zlib(data: &[u8], unpacked: &mut [u8], _: &Budget) -> Result<(), NotInflated> {
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

    const FLAGS: u32 = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    require_memory()?;
    let mut state = Box::<DecompressorOxide>::default();
    let (status, _, len) = decompress(&mut state, data, unpacked, 0, FLAGS);
    match status {
        TINFLStatus::Done if len == unpacked.len() => Ok(()),
        TINFLStatus::Done | TINFLStatus::HasMoreOutput => Err(NotInflated::Size),
        status => Err(NotInflated::Damaged(format!("{status:?}"))),
    }
}

/// As [`zlib`].
#[cfg(feature = "zstd")]
fn zstd(mut data: &[u8], mut unpacked: &mut [u8], budget: &Budget) -> Result<(), NotInflated> {
    use crate::base::fallible::check_room;
    use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
    use std::io::Read;

    /// The window of the strongest level that is not "ultra". A frame with a known size, as linkers write
    /// it, may have a window of that size.
    const WINDOW: usize = 8 << 20;
    /// How many steps it takes to begin a frame: one without contents has a few bytes.
    const FRAME: usize = 100;
    let damaged = |error: &dyn std::fmt::Display| NotInflated::Damaged(error.to_string());

    /// How many bytes are taken from the decoder at once. It keeps these, a block, and tables besides its
    /// window.
    const PART: usize = 128 << 10;
    const BESIDES: usize = 3 << 20;
    // The decoder's own buffer is not reserved fallibly. Its size is a power of two, and while it grows
    // there is one of half the size too.
    let window = unpacked.len().max(WINDOW);
    check_room(window.saturating_mul(3).saturating_add(BESIDES))?;
    let mut frames = FrameDecoder::new();
    frames.set_max_window_size(window as u64);
    while !data.is_empty() {
        budget.step(FRAME)?;
        // A skippable frame: its length, and nothing of use.
        if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, ref rest @ ..] = *data {
            let len = u32::from_le_bytes([a, b, c, d]) as usize;
            data = rest.get(len..).ok_or_else(|| damaged(&"a frame is cut off"))?;
            continue;
        }
        let mut frame = StreamingDecoder::new_with_decoder(&mut data, &mut frames)
            .map_err(|error| damaged(&error))?;
        while !unpacked.is_empty() {
            let left = unpacked.len();
            let part = unpacked.get_mut(..PART.min(left)).unwrap_or_default();
            let len = frame.read(part).map_err(|error| damaged(&error))?;
            if len == 0 {
                break;
            }
            unpacked = unpacked.split_at_mut_checked(len).ok_or(NotInflated::Size)?.1;
        }
        if frame.read(&mut [0]).map_err(|error| damaged(&error))? != 0 {
            return Err(NotInflated::Size);
        }
        let stated = frames.get_checksum_from_data();
        if stated.is_some() && stated != frames.get_calculated_checksum() {
            return Err(damaged(&"wrong checksum"));
        }
    }
    if unpacked.is_empty() { Ok(()) } else { Err(NotInflated::Size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::dwarf::budget::Allowance;
    use std::process::Command;

    /// As if the file had `file` bytes.
    fn inflate(section: &[u8], packing: Packing, file: usize) -> Result<Vec<u8>, NotInflated> {
        super::inflate(section, packing, &Allowance::new(Limits::default(), file).budget())
    }

    const TEXT: &[u8] = b"a section, a section, a section, and another section";

    fn flagged(algorithm: u32, size: u64, data: &[u8]) -> Vec<u8> {
        let header = [&algorithm.to_le_bytes()[..], &[0; 4], &size.to_le_bytes(), &[1], &[0; 7]];
        [&header.concat(), data].concat()
    }

    fn named(size: u64, data: &[u8]) -> Vec<u8> {
        [b"ZLIB", &size.to_be_bytes()[..], data].concat()
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        miniz_oxide::deflate::compress_to_vec_zlib(text, 6)
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    const SIZE: u64 = TEXT.len() as u64;

    #[test]
    fn sections_that_tools_have_compressed_are_as_before() {
        let folder = std::env::temp_dir().join(format!("memdl-inflate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let source = format!("{}/../testlibs/debug/places.cc", env!("CARGO_MANIFEST_DIR"));
        let object = |name: &str| folder.join(name);
        let run = |tool: &str, arguments: &[&std::ffi::OsStr]| {
            let output = Command::new(tool).args(arguments).output().unwrap_or_else(|error| {
                panic!("cannot run {tool}: {error}; `sh tests/setup.sh` installs what tests need")
            });
            assert!(output.status.success(), "{output:?}");
        };
        let plain = object("plain.so");
        run(
            "g++",
            &[
                "-g".as_ref(),
                "-shared".as_ref(),
                "-fPIC".as_ref(),
                source.as_ref(),
                "-o".as_ref(),
                plain.as_ref(),
            ],
        );
        for kind in ["zlib", "zlib-gnu", "zstd"] {
            let output = object(kind);
            let flag = format!("--compress-debug-sections={kind}");
            run("objcopy", &[flag.as_ref(), plain.as_ref(), output.as_ref()]);
            let (before, after) = (std::fs::read(&plain).unwrap(), std::fs::read(&output).unwrap());
            let elf = |bytes| goblin::elf::Elf::parse(bytes).unwrap();
            let (before_elf, after_elf) = (elf(&before), elf(&after));
            let mut count = 0;
            for section in &after_elf.section_headers {
                let name = after_elf.shdr_strtab.get_at(section.sh_name).unwrap();
                let contents = section.file_range().map_or(&[][..], |range| &after[range]);
                let compressed = u64::from(SHF_COMPRESSED);
                let packing = match name.strip_prefix(".z") {
                    Some(_) => Packing::Name,
                    None if section.sh_flags & compressed != 0 => Packing::Flag,
                    None => continue,
                };
                let plain_name = name.replace(".zdebug", ".debug");
                let original = before_elf
                    .section_headers
                    .iter()
                    .find(|header| {
                        before_elf.shdr_strtab.get_at(header.sh_name) == Some(&plain_name)
                    })
                    .unwrap();
                let original = &before[original.file_range().unwrap()];
                assert_eq!(inflate(contents, packing, original.len()).unwrap(), original, "{name}");
                count += 1;
            }
            assert!(count >= 3, "{kind}: {count}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn frames_follow_one_another() {
        let (a, b) = TEXT.split_at(20);
        let skipped = [0x5f, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7].to_vec();
        let frames = [frame(a), frame(&[]), skipped, frame(b)].concat();
        let section = flagged(ELFCOMPRESS_ZSTD, SIZE, &frames);
        assert_eq!(inflate(&section, Packing::Flag, 0).unwrap(), TEXT);
    }

    #[test]
    fn a_size_that_is_not_allowed_or_not_true_is_an_error() {
        let all = |size: u64| {
            [
                (Packing::Flag, flagged(ELFCOMPRESS_ZLIB, size, &packed(TEXT))),
                (Packing::Flag, flagged(ELFCOMPRESS_ZSTD, size, &frame(TEXT))),
                (Packing::Name, named(size, &packed(TEXT))),
            ]
        };
        for (packing, section) in all(SIZE) {
            assert_eq!(inflate(&section, packing, 0).unwrap(), TEXT);
        }
        for size in [0, SIZE - 1, SIZE + 1, 200_000] {
            for (packing, section) in all(size) {
                assert_eq!(inflate(&section, packing, 0), Err(NotInflated::Size), "{size}");
            }
        }
        for size in [300_000, 1 << 40, u64::MAX] {
            for (packing, section) in all(size) {
                let limit = 256 << 10;
                let refused = Err(OverBudget::Section { size, limit }.into());
                assert_eq!(inflate(&section, packing, usize::MAX), refused);
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error() {
        for (packing, section) in [
            (Packing::Flag, flagged(ELFCOMPRESS_ZLIB, SIZE, &packed(TEXT))),
            (Packing::Flag, flagged(ELFCOMPRESS_ZSTD, SIZE, &frame(TEXT))),
            (Packing::Name, named(SIZE, &packed(TEXT))),
        ] {
            let header = if packing == Packing::Flag { 24 } else { 12 };
            for len in 0..section.len() {
                let error = inflate(&section[..len], packing, 1 << 20).unwrap_err();
                assert_eq!(error == NotInflated::Header, len < header, "{len}: {error}");
            }
            for at in header..section.len() {
                for bit in 0..8 {
                    let mut damaged = section.clone();
                    damaged[at] ^= 1 << bit;
                    // Some bits say nothing; the checksum finds all that do.
                    if let Ok(unpacked) = inflate(&damaged, packing, 1 << 20) {
                        assert_eq!(unpacked, TEXT, "{at} {bit}");
                    }
                }
            }
        }
        let unknown = flagged(7, SIZE, &packed(TEXT));
        assert_eq!(inflate(&unknown, Packing::Flag, 1 << 20), Err(NotInflated::Algorithm(7)));
        assert_eq!(inflate(&packed(TEXT), Packing::Name, 1 << 20), Err(NotInflated::Header));
    }

    #[test]
    fn a_bomb_stops_at_its_stated_size_and_tiny_frames_do_not_take_forever() {
        let bomb = packed(&vec![0; 64 << 20]);
        let error = inflate(&named(200_000, &bomb), Packing::Name, 1 << 20);
        assert_eq!(error, Err(NotInflated::Size));
        let bomb = frame(&vec![0; 64 << 20]);
        let section = flagged(ELFCOMPRESS_ZSTD, 200_000, &bomb);
        assert_eq!(inflate(&section, Packing::Flag, 1 << 20), Err(NotInflated::Size));

        let start = std::time::Instant::now();
        let frames = frame(&[]).repeat(20_000);
        let section = flagged(ELFCOMPRESS_ZSTD, 0, &frames);
        assert_eq!(inflate(&section, Packing::Flag, 1 << 20), Ok(vec![]));
        let elapsed = start.elapsed();
        println!("{} bytes of frames: {elapsed:?}", frames.len());
        assert!(elapsed.as_secs() < 20, "{elapsed:?}");
    }

    #[test]
    fn sections_that_are_small_each_may_not_be_large_together() {
        let budget = Allowance::new(Limits::default(), 1 << 16).budget();
        let one = flagged(ELFCOMPRESS_ZLIB, 200_000, &packed(&vec![0; 200_000]));
        let results: Vec<_> = (0..100)
            .map(|_| super::inflate(&one, Packing::Flag, &budget).map(|it| it.len()))
            .collect();
        let limit = 17 << 20;
        let refused = Err(OverBudget::Unpacked { limit }.into());
        assert_eq!(results.iter().filter(|it| **it == Ok(200_000)).count() as u64, limit / 200_000);
        assert!(results.ends_with(&[refused]));
    }

    #[test]
    fn a_small_stack_is_enough() {
        let text = vec![7; 1 << 18];
        let sections = [
            flagged(ELFCOMPRESS_ZLIB, 1 << 18, &packed(&text)),
            flagged(ELFCOMPRESS_ZSTD, 1 << 18, &frame(&text)),
        ];
        let all = move || sections.map(|it| inflate(&it, Packing::Flag, 0).map(|it| it.len()));
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(all).unwrap();
        assert_eq!(thread.join().unwrap(), [Ok(1 << 18), Ok(1 << 18)]);
    }
}
