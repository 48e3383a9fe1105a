//! From bytes to a validated image.
//!
//! [`Image::parse`] is the gate: the bytes are hostile before it, and its result is a type whose
//! every range lies in the bytes, so no later stage can receive raw input. It copies nothing and maps
//! nothing. The checks are in `elf/header.rs`, `elf/program_headers.rs` and `elf/decoded.rs`.

#![forbid(unsafe_code)]

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::base::addr::{PageSize, Vaddr};
use crate::base::error::Error;
use crate::base::faults::Faults;
use crate::base::limits::Limits;
use crate::elf::decoded::Decoded;
use crate::elf::foreign;
use crate::elf::header;
use crate::elf::program_headers::ProgramHeaders;
use crate::elf::read::ReadAt;
use crate::elf::rela::Rela;
use crate::elf::segment::FileView;
use crate::elf::symbol_table::SymbolTable;

/// A validated shared library, not yet mapped. `B` owns the received bytes.
pub(crate) struct Image<B> {
    bytes: B,
    pub(crate) decoded: Arc<Decoded>,
}

impl<B: Deref<Target = [u8]>> Image<B> {
    /// Validates `bytes` as a shared library of any machine that is known here. `page` is the size of its pages.
    pub(crate) fn parse(bytes: B, page: PageSize, limits: &Limits) -> Result<Image<B>, Error> {
        Image::examine(bytes, page, limits, &mut Faults::End)
    }

    /// As [`Image::parse`]. Notes the faults that do not keep the rest from being read.
    pub(crate) fn examine(
        bytes: B,
        page: PageSize,
        limits: &Limits,
        faults: &mut Faults,
    ) -> Result<Image<B>, Error> {
        let what = "the size of the image, in bytes";
        faults.check_limit(what, bytes.len() as u64, limits.image_bytes)?;
        let machine = header::check(&bytes, faults)?;
        let headers = ProgramHeaders::parse(&bytes, page, limits, faults);
        let decoded = headers.and_then(|it| Decoded::parse(&bytes, it, machine, limits, faults));
        match decoded {
            Ok(decoded) => Ok(Image { bytes, decoded: Arc::new(decoded) }),
            Err(Error::Malformed { .. }) if foreign::is_debug_file(&bytes) => {
                let what = "a file with the debug information of a library, without its code: pass the \
                            library, and this file to Loader::debug_info";
                Err(Error::unsupported(what))
            }
            Err(error) => Err(error),
        }
    }

    /// The received bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The owner of the received bytes.
    pub(crate) fn owner(&self) -> &B {
        &self.bytes
    }

    /// As [`Image::owner`]. The caller must leave the same bytes in the owner, or none.
    pub(crate) fn owner_mut(&mut self) -> &mut B {
        &mut self.bytes
    }

    /// The contents of each `PT_NOTE`.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &[u8]> {
        self.decoded.notes(self)
    }

    /// The image's dynamic symbols, as received. An error where the owner has given the bytes away.
    pub(crate) fn symbols(&self) -> Result<SymbolTable<'_>, Error> {
        self.decoded.symbols_in(self)
    }

    /// The relocations of all tables but `DT_RELR`, the PLT's last.
    pub(crate) fn relas(&self) -> impl Iterator<Item = Rela> + '_ {
        self.decoded.relocations.relas(self)
    }
}

impl<B: Deref<Target = [u8]>> ReadAt for Image<B> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        FileView { bytes: &self.bytes, segments: &self.decoded.segments }
            .find(range.start, Some(range.end))
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        FileView { bytes: &self.bytes, segments: &self.decoded.segments }.find(start, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::{END, Library, STACK_HEADER, TEXT};

    fn parse(bytes: &[u8]) -> Result<Image<&[u8]>, Error> {
        Image::parse(bytes, PageSize::new(0x1000).unwrap(), &Limits::default())
    }

    #[test]
    fn a_small_library_is_accepted_and_read_by_address() {
        let library = Library::new();
        let image = parse(&library.bytes).unwrap();
        assert_eq!(image.decoded.segments.len(), 3);
        assert_eq!(image.relas().count(), 3);
        assert_eq!(image.symbols().unwrap().exports().count(), 2);
        assert_eq!(image.notes().count(), 0);
        assert_eq!(image.read(Vaddr(1)..Vaddr(4)), Some(&b"ELF"[..]));
        assert_eq!(image.read_to_end(Vaddr(TEXT)).map(<[u8]>::len), Some(0x10));
    }

    #[test]
    fn every_prefix_is_refused() {
        let library = Library::new();
        for len in (0..END as usize).rev().step_by(7) {
            let refused = parse(&library.bytes[..len]);
            assert!(matches!(refused, Err(Error::Malformed { .. })), "{len} bytes");
        }
    }

    #[test]
    fn an_image_larger_than_the_limit_is_refused() {
        let library = Library::new();
        let limits = Limits { image_bytes: END - 1, ..Limits::default() };
        let page = PageSize::new(0x1000).unwrap();
        let refused = Image::parse(&library.bytes[..], page, &limits);
        assert!(matches!(refused, Err(Error::Limit { needed: END, .. })));
    }

    #[test]
    fn the_contents_of_notes_are_found() {
        use crate::elf::test_image::{P_FILESZ, P_TYPE, P_VADDR};
        use goblin::elf64::program_header::PT_NOTE;

        let mut library = Library::new();
        library.set_header(STACK_HEADER, P_TYPE, PT_NOTE.into());
        library.set_header(STACK_HEADER, P_VADDR, 0);
        library.set_header(STACK_HEADER, P_FILESZ, 4);
        let image = parse(&library.bytes).unwrap();
        assert_eq!(image.notes().collect::<Vec<_>>(), [b"\x7fELF"]);
    }
}
