//! What bytes are that are no ELF file: networks and build systems deliver much else.
//!
//! Looks at the first bytes only, and decides nothing: its names are for errors.
//!
//! Source: the formats' magic numbers, as file(1) knows them.

#![forbid(unsafe_code)]

use goblin::elf64::section_header::{SHF_EXECINSTR, SHT_NOBITS, SIZEOF_SHDR};

use crate::elf::read::{u16_at, u32_at, u64_at};

/// Magic numbers at the start, and what begins so.
const FORMATS: [(&[u8], &str); 31] = [
    (b"\x1f\x8b", "gzip-compressed data: unpack it first"),
    (b"\xfd7zXZ\0", "xz-compressed data: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data: unpack it first"),
    (b"BZh", "bzip2-compressed data: unpack it first"),
    (b"\x04\x22\x4d\x18", "lz4-compressed data: unpack it first"),
    (b"PK\x03\x04", "a zip archive (a wheel, a jar): pass a library that is in it"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: pass a library that is in it"),
    (b"!<arch>\n", "an ar archive (a static library, a Debian package): link it with -shared"),
    (b"!<thin>\n", "a thin ar archive (a static library): link it with -shared"),
    (b"\xed\xab\xee\xdb", "an RPM package: pass a library that is in it"),
    (b"BC\xc0\xde", "LLVM bitcode: compile and link it first"),
    (b"\xde\xc0\x17\x0b", "LLVM bitcode: compile and link it first"),
    (b"MZ", "a PE file, for Windows"),
    (b"\xfe\xed\xfa\xce", "a Mach-O file, for macOS"),
    (b"\xfe\xed\xfa\xcf", "a Mach-O file, for macOS"),
    (b"\xce\xfa\xed\xfe", "a Mach-O file, for macOS"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O file, for macOS"),
    (b"\0asm", "a WebAssembly module"),
    (b"#!", "a script"),
    (b"/* GNU ld script", "a linker script: pass the library that it names"),
    (b"INPUT(", "a linker script: pass the library that it names"),
    (b"INPUT (", "a linker script: pass the library that it names"),
    (b"GROUP (", "a linker script: pass the library that it names"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself"),
    (b"-----BEGIN", "PEM text (a key, a certificate)"),
    (b"<?xml", "XML"),
    (b"<Error>", "XML, perhaps the error of a store of objects"),
    (b"{", "text that begins like JSON, perhaps the error of a server"),
    (b"HTTP/", "an HTTP response: pass its body"),
    (b"\0\0\0\0", "zeros at its start, as of a buffer or a file that was not filled"),
];

/// The number of architectures in a universal Mach-O file is small, and the version of a Java class is not.
const MAX_ARCHITECTURES: u32 = 40;

/// What a file that does not begin as ELF files do is.
pub(super) fn format_of(bytes: &[u8]) -> Option<&'static str> {
    if let Some((_, what)) = FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(what);
    }
    if bytes.starts_with(b"\xca\xfe\xba\xbe") {
        let count = bytes.get(4..8).and_then(|it| it.try_into().ok()).map(u32::from_be_bytes);
        return Some(match count {
            Some(1..=MAX_ARCHITECTURES) => "a universal Mach-O file, for macOS",
            _ => "a Java class",
        });
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("a tar archive: pass a library that is in it");
    }
    let text = bytes.trim_ascii_start();
    let is_html = ["<!doctype html", "<html", "<head", "<body"].iter().any(|start| {
        text.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start.as_bytes()))
    });
    is_html.then_some("an HTML page, perhaps the error of a server")
}

/// Whether an ELF file has the debug information of a library, and not its code: `objcopy --only-keep-debug`
/// leaves the headers of its sections, and no contents.
pub(super) fn is_debug_file(file: &[u8]) -> bool {
    let table = || {
        let start = usize::try_from(u64_at(file, 0x28)?).ok()?;
        let count = usize::from(u16_at(file, 0x3c)?);
        (usize::from(u16_at(file, 0x3a)?) == SIZEOF_SHDR).then_some(())?;
        Some(file.get(start..)?.chunks_exact(SIZEOF_SHDR).take(count))
    };
    let has_no_code = |header: &[u8]| {
        u32_at(header, 4) == Some(SHT_NOBITS)
            && u64_at(header, 8).is_some_and(|flags| flags & u64::from(SHF_EXECINSTR) != 0)
    };
    table().is_some_and(|mut table| table.any(has_no_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        for (start, expected) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"PK\x03\x04\x14", "zip"),
            (b"!<arch>\n//", "static library"),
            (b"\n\n<!DOCTYPE HTML PUBLIC", "HTML"),
            (b"<html lang", "HTML"),
            (b"#!/bin/sh", "script"),
            (b"BC\xc0\xde5", "bitcode"),
            (b"MZ\x90\0", "PE"),
            (b"\xcf\xfa\xed\xfe\x07", "Mach-O"),
            (b"\xca\xfe\xba\xbe\0\0\0\x02", "universal Mach-O"),
            (b"\xca\xfe\xba\xbe\0\0\0\x41", "Java class"),
            (b"\0asm\x01", "WebAssembly"),
            (b"\0\0\0\0\0", "zeros"),
        ] {
            let found = format_of(start).unwrap_or_default();
            assert!(found.contains(expected), "{start:?}: {found}");
        }
        assert_eq!(format_of(b"no library"), None);
        assert_eq!(format_of(b""), None);
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(format_of(&tar).unwrap().contains("tar"));
    }

    #[test]
    fn a_damaged_table_of_sections_is_no_debug_file() {
        let mut file = vec![0xff; 200];
        assert!(!is_debug_file(&file) && !is_debug_file(&[]));
        file[0x28..0x30].copy_from_slice(&0x40u64.to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&(SIZEOF_SHDR as u16).to_le_bytes());
        file[0x40 + 4..0x40 + 8].copy_from_slice(&SHT_NOBITS.to_le_bytes());
        assert!(is_debug_file(&file));
    }
}
