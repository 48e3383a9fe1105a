//! The program header table: the segments, and where the other parts of an image are.
//!
//! [`ProgramHeaders::parse`] refuses what `ld.so` refuses. Every range that it gives lies in the
//! bytes, or in the segments. It does not read the contents of a segment.
//!
//! Sources: gABI "Program Header"; glibc `elf/dl-load.c`, `_dl_map_object_from_fd`.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf64::program_header::{
    PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK, PT_LOAD, PT_TLS,
    ProgramHeader, SIZEOF_PHDR,
};

use crate::base::addr::{PageSize, Vaddr};
use crate::base::error::{Error, Place};
use crate::base::fallible::{TryGrow, try_vec};
use crate::base::limits::{self, Limits};
use crate::elf::read::{u16_at, u32_at, u64_at};
use crate::elf::segment::{Access, Segment, TlsSegment};

/// The program headers, decoded and checked.
#[derive(Default, Debug)]
pub(super) struct ProgramHeaders {
    /// All of them, unchanged.
    pub table: Vec<ProgramHeader>,
    /// The `PT_LOAD`s that are not empty: ascending, no two on one page.
    pub segments: Vec<Segment>,
    /// The file-backed part of `PT_DYNAMIC`.
    pub dynamic: Option<Range<Vaddr>>,
    pub tls: Option<TlsSegment>,
    pub relro: Option<Range<Vaddr>>,
    pub eh_frame_hdr: Option<Range<Vaddr>>,
}

/// The parameters of [`ProgramHeaders::parse`].
struct Input<'a> {
    bytes: &'a [u8],
    page: PageSize,
    limits: &'a Limits,
}

impl ProgramHeaders {
    /// Reads the table that the ELF header at the start of `bytes` names.
    pub(super) fn parse(
        bytes: &[u8],
        page: PageSize,
        limits: &Limits,
    ) -> Result<ProgramHeaders, Error> {
        let e_phoff = u64_at(bytes, 32).unwrap_or(0);
        let e_phnum = u16_at(bytes, 56).unwrap_or(0);
        let table = usize::try_from(e_phoff)
            .ok()
            .and_then(|start| {
                bytes.get(start..)?.get(..usize::from(e_phnum).checked_mul(SIZEOF_PHDR)?)
            })
            .ok_or_else(|| {
                let what = format!(
                    "truncated: {e_phnum} program headers at {e_phoff:#x} do not fit into the file"
                );
                Error::malformed(what, Place::Header)
            })?;
        let count = usize::from(e_phnum);
        let mut headers = ProgramHeaders { table: try_vec(count)?, ..ProgramHeaders::default() };
        let input = Input { bytes, page, limits };
        for (index, entry) in table.chunks_exact(SIZEOF_PHDR).enumerate() {
            let word = |offset| u64_at(entry, offset).unwrap_or(0);
            let header = ProgramHeader {
                p_type: u32_at(entry, 0).unwrap_or(0),
                p_flags: u32_at(entry, 4).unwrap_or(0),
                p_offset: word(8),
                p_vaddr: word(16),
                p_paddr: word(24),
                p_filesz: word(32),
                p_memsz: word(40),
                p_align: word(48),
            };
            headers.add(index, &header, &input)?;
            headers.table.try_push(header)?;
        }
        if headers.segments.is_empty() {
            return Err(Error::malformed("object file has no loadable segments", Place::Header));
        }
        headers.check_against_segments()?;
        Ok(headers)
    }

    /// Adds one program header.
    fn add(
        &mut self,
        index: usize,
        header: &ProgramHeader,
        input: &Input<'_>,
    ) -> Result<(), Error> {
        let malformed = |what: String| Error::malformed(what, Place::Segment(index));
        let ProgramHeader { p_type, p_flags, p_filesz, p_memsz, p_align, .. } = *header;
        let p_vaddr = Vaddr(header.p_vaddr);

        match p_type {
            PT_LOAD | PT_DYNAMIC | PT_TLS | PT_GNU_RELRO => {}
            // Checked, and cut to fit, by `check_against_segments`.
            PT_GNU_EH_FRAME => {
                let end = p_vaddr.checked_add(p_filesz).unwrap_or(p_vaddr);
                self.eh_frame_hdr = Some(p_vaddr..end);
                return Ok(());
            }
            PT_GNU_STACK if p_flags & PF_X != 0 => {
                return Err(Error::unsupported(
                    "an executable stack (PT_GNU_STACK with PF_X): link with -z noexecstack",
                ));
            }
            _ => return Ok(()),
        }
        let addresses = p_vaddr.range(p_memsz).ok_or_else(|| {
            malformed(format!("p_vaddr {p_vaddr} + p_memsz {p_memsz:#x} wraps around"))
        })?;
        if matches!(p_type, PT_LOAD | PT_DYNAMIC | PT_TLS) && p_filesz > p_memsz {
            return Err(malformed(format!(
                "p_filesz {p_filesz:#x} is larger than p_memsz {p_memsz:#x}"
            )));
        }
        let in_memory = p_vaddr..p_vaddr.checked_add(p_filesz.min(p_memsz)).unwrap_or(p_vaddr);
        if matches!(p_type, PT_LOAD | PT_TLS) && !p_align.max(1).is_power_of_two() {
            return Err(malformed(format!("p_align {p_align:#x} is not a power of two")));
        }
        match p_type {
            PT_LOAD if p_memsz == 0 => {}
            PT_LOAD => self.add_load(index, header, addresses, input)?,
            PT_DYNAMIC => self.dynamic = Some(in_memory),
            PT_TLS if p_memsz == 0 => {}
            PT_TLS if self.tls.is_some() => return Err(malformed("a second PT_TLS".into())),
            PT_TLS => self.tls = Some(tls_segment(header, in_memory, input.limits)?),
            PT_GNU_RELRO if p_memsz != 0 => self.relro = Some(addresses),
            _ => {}
        }
        Ok(())
    }

    /// Adds a `PT_LOAD`. Its size in the file is no larger than in memory, and its alignment is a
    /// power of two, or 0.
    fn add_load(
        &mut self,
        index: usize,
        header: &ProgramHeader,
        addresses: Range<Vaddr>,
        input: &Input<'_>,
    ) -> Result<(), Error> {
        let malformed = |what: String| Error::malformed(what, Place::Segment(index));
        let &Input { bytes, page, limits } = input;
        let ProgramHeader { p_offset, p_filesz, p_align, .. } = *header;
        let file = usize::try_from(p_offset)
            .ok()
            .zip(usize::try_from(p_filesz).ok())
            .and_then(|(start, len)| Some(start..start.checked_add(len)?))
            // Linkers leave any value in `p_offset` where `p_filesz` is 0.
            .or((p_filesz == 0).then_some(0..0))
            .filter(|file| file.is_empty() || file.end <= bytes.len())
            .ok_or_else(|| {
                let len = bytes.len();
                malformed(format!(
                    "truncated: the segment needs {p_filesz:#x} bytes at {p_offset:#x}, the file has {len:#x}"
                ))
            })?;
        // 0 and 1 mean no alignment.
        let align = p_align.max(1);
        limits::check("a segment's alignment, in bytes", align, limits.alignment)?;
        let align = if align == 1 { page.get() } else { align };
        if align < page.get() {
            return Err(malformed(format!(
                "ELF load command alignment {p_align:#x} not page-aligned"
            )));
        }
        // Not modulo `p_align`: some versions of mold and patchelf write segments that are
        // aligned in memory and not in the file, and `ld.so` accepts them.
        let misalignment = header.p_vaddr.wrapping_sub(p_offset) & page.mask();
        if misalignment != 0 && p_filesz != 0 {
            return Err(malformed(format!(
                "ELF load command address/offset not properly aligned: p_vaddr {} and p_offset \
                 {p_offset:#x} differ modulo the page size {:#x}",
                Vaddr(header.p_vaddr),
                page.get()
            )));
        }
        let access = access(index, header)?;
        if let Some(last) = self.segments.last() {
            // Nor may they share a page: a page has one protection.
            let last_end = last.addresses.end.page_ceil(page);
            if last_end.is_none_or(|end| end > addresses.start.page_floor(page)) {
                return Err(malformed(
                    "PT_LOAD segments overlap, share a page or are not in ascending order".into(),
                ));
            }
        }
        if addresses.end.page_ceil(page).is_none() {
            return Err(malformed("the segment ends in the last page of the address space".into()));
        }
        let first = self.segments.first().map_or(addresses.start, |it| it.addresses.start);
        // The segments ascend.
        let span = addresses.end.checked_sub(first).unwrap_or(u64::MAX);
        self.segments.try_push(Segment { addresses, file, access, align })?;
        limits::check("the address space of the image, in bytes", span, limits.image_span)
    }

    /// Checks the ranges of the other headers against the segments.
    fn check_against_segments(&mut self) -> Result<(), Error> {
        let in_file = |range: &Range<Vaddr>| {
            self.segments.iter().any(|segment| {
                segment.access.read
                    && segment.contains(range)
                    && range.end.checked_sub(segment.addresses.start)
                        <= Some(segment.file.len() as u64)
            })
        };
        if let Some(tls) = &self.tls
            && !tls.template.is_empty()
            && !in_file(&tls.template)
        {
            let at = Place::Address(tls.template.start);
            return Err(Error::malformed(
                "PT_TLS: the initial values lie outside the segments",
                at,
            ));
        }
        // RELRO may span several segments. Linkers pad it to a boundary of their own page size, which
        // may lie behind the last segment.
        let mut writable = self.segments.iter().filter(|segment| segment.access.write);
        let end = |segment: &Segment| {
            segment.addresses.end.0.div_ceil(segment.align).saturating_mul(segment.align)
        };
        let last_end = writable.clone().map(end).max().unwrap_or(0);
        if let Some(relro) = &self.relro
            && (relro.end > Vaddr(last_end)
                || !writable.any(|segment| segment.addresses.contains(&relro.start)))
        {
            let at = Place::Address(relro.start);
            return Err(Error::malformed("PT_GNU_RELRO lies outside the writable segments", at));
        }
        // Code runs without unwind information, so an address outside the segments counts as none.
        // Unwinders use only the start of the range, so a size that is too large is cut.
        self.eh_frame_hdr = self.eh_frame_hdr.take().and_then(|hdr| {
            let mut readable = self.segments.iter().filter(|segment| segment.access.read);
            let end = readable.find_map(|segment| segment.file_end_behind(hdr.start))?;
            let is_whole = hdr.start < hdr.end && hdr.end <= end;
            Some(hdr.start..if is_whole { hdr.end } else { end })
        });
        Ok(())
    }
}

/// The access that the flags of a `PT_LOAD` allow.
fn access(index: usize, header: &ProgramHeader) -> Result<Access, Error> {
    let p_flags = header.p_flags;
    let access = Access {
        // x86 and most other machines cannot map memory that is executable but not readable.
        read: p_flags & (PF_R | PF_X) != 0 || p_flags & PF_W != 0,
        write: p_flags & PF_W != 0,
        execute: p_flags & PF_X != 0,
    };
    if access.write && access.execute {
        let text = format!("program header {index}: a segment that is writable and executable");
        return Err(Error::unsupported(text));
    }
    Ok(access)
}

/// The `PT_TLS` of `header`, whose initial values are at `template`.
fn tls_segment(
    header: &ProgramHeader,
    template: Range<Vaddr>,
    limits: &Limits,
) -> Result<TlsSegment, Error> {
    let (size, align) = (header.p_memsz, header.p_align.max(1));
    limits::check("a block of thread-local variables, in bytes", size, limits.tls_block)?;
    limits::check("a thread-local block's alignment, in bytes", align, limits.alignment)?;
    Ok(TlsSegment { template, size, align })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::{
        DATA_HEADER, DYNAMIC, EH_FRAME_HDR, EH_FRAME_HEADER, Library, P_ALIGN, P_FILESZ, P_FLAGS,
        P_MEMSZ, P_OFFSET, P_TYPE, P_VADDR, RELRO_HEADER, STACK_HEADER, TEXT, TEXT_HEADER,
        TLS_HEADER,
    };

    fn parse(library: &Library) -> Result<ProgramHeaders, Error> {
        let page = PageSize::new(0x1000).unwrap();
        ProgramHeaders::parse(&library.bytes, page, &Limits::default())
    }

    /// The error of the library with one field of one header changed.
    fn refusal(header: usize, field: usize, value: u64) -> String {
        let mut library = Library::new();
        library.set_header(header, field, value);
        parse(&library).unwrap_err().to_string()
    }

    #[test]
    fn the_headers_of_a_library_are_decoded() {
        let headers = parse(&Library::new()).unwrap();
        let text = &headers.segments[TEXT_HEADER];
        assert_eq!(text.addresses, Vaddr(TEXT)..Vaddr(TEXT + 0x10));
        assert_eq!(text.file, TEXT as usize..TEXT as usize + 0x10);
        assert_eq!(text.access, Access { read: true, write: false, execute: true });
        assert_eq!(headers.table.len(), 8);
        assert_eq!(headers.dynamic, Some(Vaddr(DYNAMIC)..Vaddr(DYNAMIC + 0x300)));
        let tls = headers.tls.unwrap();
        assert_eq!((tls.size, tls.align), (0x20, 16));
        assert_eq!(headers.relro, Some(Vaddr(0x2000)..Vaddr(0x3000)));
        assert_eq!(headers.eh_frame_hdr, Some(Vaddr(EH_FRAME_HDR)..Vaddr(EH_FRAME_HDR + 12)));
    }

    #[test]
    fn segments_that_cannot_be_mapped_are_refused() {
        for (header, field, value, expected) in [
            (TEXT_HEADER, P_FILESZ, 0x11, "is larger than p_memsz"),
            (TEXT_HEADER, P_MEMSZ, u64::MAX, "wraps around"),
            (TEXT_HEADER, P_ALIGN, 0x1001, "not a power of two"),
            (TEXT_HEADER, P_ALIGN, 0x800, "not page-aligned"),
            (TEXT_HEADER, P_VADDR, 0x1008, "not properly aligned"),
            (TEXT_HEADER, P_VADDR, 0, "overlap, share a page"),
            (TEXT_HEADER, P_VADDR, 0x2000, "overlap, share a page"),
            (TEXT_HEADER, P_OFFSET, 0x7000_0000, "truncated"),
            (TEXT_HEADER, P_OFFSET, u64::MAX - 0xfff, "truncated"),
            (TEXT_HEADER, P_FLAGS, 7, "writable and executable"),
            (DATA_HEADER, P_MEMSZ, 1 << 40, "limit exceeded"),
            (TLS_HEADER, P_VADDR, 0x800, "PT_TLS: the initial values lie outside"),
            (TLS_HEADER, P_MEMSZ, 1 << 40, "limit exceeded"),
            (TLS_HEADER, P_ALIGN, 3, "not a power of two"),
            (RELRO_HEADER, P_VADDR, 0x1000, "PT_GNU_RELRO lies outside"),
            (RELRO_HEADER, P_MEMSZ, 0x3000, "PT_GNU_RELRO lies outside"),
            (STACK_HEADER, P_FLAGS, 7, "executable stack"),
        ] {
            let error = refusal(header, field, value);
            assert!(error.contains(expected), "{header} {field} {value:#x}: {error}");
        }
        let mut twice = Library::new();
        twice.set_header(STACK_HEADER, P_TYPE, PT_TLS.into());
        twice.set_header(STACK_HEADER, P_MEMSZ, 8);
        assert!(parse(&twice).unwrap_err().to_string().contains("a second PT_TLS"));
    }

    #[test]
    fn an_offset_without_bytes_and_an_alignment_of_zero_are_accepted() {
        let mut library = Library::new();
        library.set_header(TEXT_HEADER, P_FILESZ, 0);
        library.set_header(TEXT_HEADER, P_OFFSET, u64::MAX);
        library.set_header(DATA_HEADER, P_ALIGN, 0);
        let headers = parse(&library).unwrap();
        assert!(headers.segments[TEXT_HEADER].file.is_empty());
        assert_eq!(headers.segments[DATA_HEADER].align, 0x1000);
    }

    #[test]
    fn unwind_information_outside_the_segments_counts_as_none() {
        let mut library = Library::new();
        library.set_header(EH_FRAME_HEADER, P_VADDR, 0x9000);
        assert_eq!(parse(&library).unwrap().eh_frame_hdr, None);
        library.set_header(EH_FRAME_HEADER, P_VADDR, EH_FRAME_HDR);
        library.set_header(EH_FRAME_HEADER, P_FILESZ, 0x10_0000);
        assert_eq!(parse(&library).unwrap().eh_frame_hdr, Some(Vaddr(EH_FRAME_HDR)..Vaddr(0x800)));
    }

    #[test]
    fn a_file_without_segments_and_a_table_behind_its_end_are_refused() {
        let mut library = Library::new();
        library.put(56, &0u16.to_le_bytes());
        let error = parse(&library).unwrap_err().to_string();
        assert!(error.contains("object file has no loadable segments"), "{error}");
        for e_phoff in [library.bytes.len() as u64 - 8, u64::MAX] {
            let mut library = Library::new();
            library.put(32, &e_phoff.to_le_bytes());
            let error = parse(&library).unwrap_err().to_string();
            assert!(error.contains("do not fit into the file"), "{error}");
        }
    }
}
