//! The program header table: the segments, and where the other parts of an image are.
//!
//! [`ProgramHeaders::parse`] refuses what `ld.so` refuses. Every range that it gives lies in the
//! bytes, or in the segments. It does not read the contents of a segment.
//!
//! Sources: gABI "Program Header"; glibc `elf/dl-load.c`, `_dl_map_object_from_fd`.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf64::program_header::{
    PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK, PT_LOAD, PT_NOTE,
    PT_TLS, ProgramHeader, SIZEOF_PHDR,
};

use crate::base::addr::{PageSize, Vaddr};
use crate::base::error::{Error, Place};
use crate::base::fallible::{TryGrow, try_vec};
use crate::base::faults::Faults;
use crate::base::limits::Limits;
use crate::elf::properties;
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
    /// The last `PT_NOTE` that can have GNU properties; not checked.
    pub properties: Option<Range<Vaddr>>,
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
        faults: &mut Faults,
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
            headers.add(index, &header, &input, faults)?;
            headers.table.try_push(header)?;
        }
        if headers.segments.is_empty() {
            return Err(Error::malformed("object file has no loadable segments", Place::Header));
        }
        headers.check_against_segments(page, faults)?;
        Ok(headers)
    }

    /// Adds one program header.
    fn add(
        &mut self,
        index: usize,
        header: &ProgramHeader,
        input: &Input<'_>,
        faults: &mut Faults,
    ) -> Result<(), Error> {
        let ProgramHeader { p_type, p_flags, p_filesz, p_memsz, p_align, .. } = *header;
        let p_vaddr = Vaddr(header.p_vaddr);
        match p_type {
            PT_LOAD if p_memsz == 0 && p_filesz == 0 => {}
            PT_LOAD => self.add_load(index, header, input, faults)?,
            PT_DYNAMIC if p_filesz == 0 => return Err(no_dynamic_section()),
            PT_DYNAMIC => {
                let end = p_vaddr.checked_add(p_filesz).unwrap_or(p_vaddr);
                self.dynamic = Some(p_vaddr..end);
            }
            PT_TLS if p_memsz == 0 && p_filesz == 0 => {}
            PT_TLS => self.tls = Some(tls_segment(index, header, input.limits, faults)?),
            PT_GNU_RELRO => self.relro = relro(index, header, input.page)?,
            // Checked, and cut to fit, by `check_against_segments`.
            PT_GNU_EH_FRAME => {
                let end = p_vaddr.checked_add(p_filesz).unwrap_or(p_vaddr);
                self.eh_frame_hdr = Some(p_vaddr..end);
            }
            PT_NOTE if p_align == properties::ALIGN => self.properties = p_vaddr.range(p_memsz),
            PT_GNU_STACK if p_flags & PF_X != 0 => {
                faults.note_own(Error::unsupported(
                    "an executable stack (PT_GNU_STACK with PF_X): link with -z noexecstack",
                ))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a `PT_LOAD`.
    fn add_load(
        &mut self,
        index: usize,
        header: &ProgramHeader,
        input: &Input<'_>,
        faults: &mut Faults,
    ) -> Result<(), Error> {
        let malformed = |what: String| Error::malformed(what, Place::Segment(index));
        let &Input { bytes, page, limits } = input;
        let ProgramHeader { p_offset, p_filesz, p_memsz, p_align, .. } = *header;
        let p_vaddr = Vaddr(header.p_vaddr);
        // `ld.so` maps all bytes of the file, whatever `p_memsz` is.
        let len = p_memsz.max(p_filesz);
        let addresses = p_vaddr.range(len).ok_or_else(|| {
            malformed(format!("p_vaddr {p_vaddr} + p_memsz {len:#x} wraps around"))
        })?;
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
        // As in `ld.so`, an alignment below a page means nothing more than a page, and one that is no power
        // of two means none.
        let align = if p_align.is_power_of_two() { p_align } else { 1 };
        faults.check_limit("a segment's alignment, in bytes", align, limits.alignment)?;
        // Not modulo `p_align`: some versions of mold and patchelf write segments that are
        // aligned in memory and not in the file, and `ld.so` accepts them.
        let misalignment = header.p_vaddr.wrapping_sub(p_offset) & page.mask();
        if misalignment != 0 && p_filesz != 0 {
            return Err(malformed(format!(
                "ELF load command address/offset not properly aligned: p_vaddr {p_vaddr} and p_offset \
                 {p_offset:#x} differ modulo the page size {:#x}",
                page.get()
            )));
        }
        if addresses.end.page_ceil(page).is_none() {
            return Err(malformed("the segment ends in the last page of the address space".into()));
        }
        let access = access(index, header, faults)?;
        let mut segment = Segment { addresses, file, access, align: align.max(page.get()) };
        let behind = self.make_room(&mut segment, page).ok_or_else(|| {
            let what = "PT_LOAD segments overlap, share a page or are not in ascending order";
            malformed(what.into())
        })?;
        let start = segment.addresses.start;
        let first = self.segments.first().map_or(start, |it| it.addresses.start);
        let last_end = behind.as_ref().unwrap_or(&segment).addresses.end;
        // The segments ascend.
        let span = last_end.checked_sub(first).unwrap_or(u64::MAX);
        self.segments.try_push(segment)?;
        if let Some(behind) = behind {
            self.segments.try_push(behind)?;
        }
        faults.check_limit("the address space of the image, in bytes", span, limits.image_span)
    }

    /// Gives `new` the pages that it shares with segments before it: a page has one protection, and `ld.so`
    /// maps the later segment over the earlier. The whole page comes from the file, so the bytes of the
    /// earlier segment are in it where both lie in the file as in memory. Returns what is left of an earlier
    /// segment behind the new one; `None` where the pages cannot be shared.
    fn make_room(&mut self, new: &mut Segment, page: PageSize) -> Option<Option<Segment>> {
        let mut behind = None;
        while let Some(last) = self.segments.last_mut() {
            let (start, end) = (new.addresses.start, new.addresses.end.page_ceil(page)?);
            let page_start = start.page_floor(page);
            if last.addresses.end.page_ceil(page)? <= page_start {
                break;
            }
            if page_start < last.addresses.start.page_floor(page) || new.file.is_empty() {
                return None;
            }
            if end < last.addresses.end {
                behind = Some(last.from(end)?);
            }
            new.file.start = new
                .file
                .start
                .checked_sub(usize::try_from(start.checked_sub(page_start)?).ok()?)?;
            new.addresses.start = page_start;
            match page_start.checked_sub(last.addresses.start) {
                Some(kept) if kept > 0 => {
                    last.addresses.end = page_start;
                    let file_end = last.file.start.checked_add(usize::try_from(kept).ok()?)?;
                    last.file.end = last.file.end.min(file_end);
                }
                _ => drop(self.segments.pop()),
            }
        }
        Some(behind)
    }

    /// Checks the ranges of the other headers against the segments.
    fn check_against_segments(&mut self, page: PageSize, faults: &mut Faults) -> Result<(), Error> {
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
            let what = "PT_TLS: the initial values lie outside the segments";
            faults.note(Error::malformed(what, at))?;
            self.tls = None;
        }
        // RELRO may span several segments. Linkers pad it to a boundary of their own page size, which
        // may lie behind the last segment. Where it spans what is not writable, it changes nothing.
        let end = |segment: &Segment| {
            segment.addresses.end.0.div_ceil(segment.align).saturating_mul(segment.align)
        };
        let last_end = self.segments.iter().map(end).max().unwrap_or(0);
        let first = self.segments.first().map(|segment| segment.addresses.start.page_floor(page));
        if let Some(relro) = &self.relro
            && (relro.end > Vaddr(last_end) || Some(relro.start) < first)
        {
            let at = Place::Address(relro.start);
            faults.note(Error::malformed("PT_GNU_RELRO lies outside the segments", at))?;
            self.relro = None;
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
fn access(index: usize, header: &ProgramHeader, faults: &mut Faults) -> Result<Access, Error> {
    let p_flags = header.p_flags;
    let access = Access {
        // x86 and most other machines cannot map memory that is executable but not readable.
        read: p_flags & (PF_R | PF_X) != 0 || p_flags & PF_W != 0,
        write: p_flags & PF_W != 0,
        execute: p_flags & PF_X != 0,
    };
    if access.write && access.execute {
        let text = format!("program header {index}: a segment that is writable and executable");
        faults.note_own(Error::unsupported(text))?;
    }
    Ok(access)
}

/// The error of a file without `PT_DYNAMIC`, or with an empty one: debug information that was split off.
pub(super) fn no_dynamic_section() -> Error {
    Error::malformed("object file has no dynamic section", Place::Header)
}

/// The `PT_TLS` of `header`. Where there are several, the last counts, as in `ld.so`.
fn tls_segment(
    index: usize,
    header: &ProgramHeader,
    limits: &Limits,
    faults: &mut Faults,
) -> Result<TlsSegment, Error> {
    let ProgramHeader { p_filesz, p_memsz: size, p_align, .. } = *header;
    let malformed = |what: String| Error::malformed(what, Place::Segment(index));
    if p_filesz > size {
        let what = format!("p_filesz {p_filesz:#x} is larger than p_memsz {size:#x}");
        return Err(malformed(what));
    }
    let template = Vaddr(header.p_vaddr).range(p_filesz);
    let template = template.ok_or_else(|| malformed("the initial values wrap around".into()))?;
    // A power of two that is a multiple of all powers of two that the stated one is a multiple of.
    let align = p_align.max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
    faults.check_limit("a block of thread-local variables, in bytes", size, limits.tls_block)?;
    faults.check_limit("a thread-local block's alignment, in bytes", align, limits.alignment)?;
    Ok(TlsSegment { template, size, align })
}

/// The `PT_GNU_RELRO` of `header`; `None` if it holds no whole page: then `ld.so` protects nothing.
fn relro(
    index: usize,
    header: &ProgramHeader,
    page: PageSize,
) -> Result<Option<Range<Vaddr>>, Error> {
    let start = Vaddr(header.p_vaddr);
    let end = Vaddr(header.p_vaddr.wrapping_add(header.p_memsz));
    if start.page_floor(page) == end.page_floor(page) {
        return Ok(None);
    }
    let wraps = || Error::malformed("PT_GNU_RELRO wraps around", Place::Segment(index));
    if start < end { Ok(Some(start..end)) } else { Err(wraps()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::test_image::{
        DATA_HEADER, DYNAMIC, DYNAMIC_HEADER, EH_FRAME_HDR, EH_FRAME_HEADER, END, Library, P_ALIGN,
        P_FILESZ, P_FLAGS, P_MEMSZ, P_OFFSET, P_TYPE, P_VADDR, RELRO_HEADER, STACK_HEADER, TEXT,
        TEXT_HEADER, TLS_HEADER,
    };

    fn page() -> PageSize {
        PageSize::new(0x1000).unwrap()
    }

    fn parse(library: &Library) -> Result<ProgramHeaders, Error> {
        ProgramHeaders::parse(&library.bytes, page(), &Limits::default(), &mut Faults::End)
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
            (TEXT_HEADER, P_MEMSZ, u64::MAX, "wraps around"),
            (TEXT_HEADER, P_ALIGN, 1 << 40, "limit exceeded"),
            (TEXT_HEADER, P_VADDR, 0x1008, "not properly aligned"),
            (TEXT_HEADER, P_VADDR, 0x3000, "overlap, share a page"),
            (TEXT_HEADER, P_OFFSET, 0x7000_0000, "truncated"),
            (TEXT_HEADER, P_OFFSET, u64::MAX - 0xfff, "truncated"),
            (TEXT_HEADER, P_FLAGS, 7, "writable and executable"),
            (DATA_HEADER, P_MEMSZ, 1 << 40, "limit exceeded"),
            (TLS_HEADER, P_VADDR, 0x800, "PT_TLS: the initial values lie outside"),
            (TLS_HEADER, P_MEMSZ, 1 << 40, "limit exceeded"),
            (TLS_HEADER, P_FILESZ, 0x21, "is larger than p_memsz"),
            (TLS_HEADER, P_ALIGN, u64::MAX, "limit exceeded"),
            (RELRO_HEADER, P_VADDR, 0x9000, "PT_GNU_RELRO lies outside"),
            (RELRO_HEADER, P_MEMSZ, u64::MAX, "PT_GNU_RELRO wraps around"),
            (RELRO_HEADER, P_MEMSZ, 0x3000, "PT_GNU_RELRO lies outside"),
            (STACK_HEADER, P_FLAGS, 7, "executable stack"),
        ] {
            let error = refusal(header, field, value);
            assert!(error.contains(expected), "{header} {field} {value:#x}: {error}");
        }
    }

    /// As in `ld.so`, where the value decides nothing.
    #[test]
    fn odd_values_are_accepted() {
        let changed = |header: usize, field: usize, value: u64| {
            let mut library = Library::new();
            library.set_header(header, field, value);
            parse(&library).unwrap()
        };
        for align in [0, 1, 3, 0x800, 0x1001, u64::MAX] {
            assert_eq!(changed(TEXT_HEADER, P_ALIGN, align).segments[TEXT_HEADER].align, 0x1000);
        }
        assert_eq!(changed(TEXT_HEADER, P_ALIGN, 0x4000).segments[TEXT_HEADER].align, 0x4000);
        let longer = changed(TEXT_HEADER, P_FILESZ, 0x20);
        assert_eq!(longer.segments[TEXT_HEADER].addresses, Vaddr(TEXT)..Vaddr(TEXT + 0x20));
        assert_eq!(changed(TLS_HEADER, P_ALIGN, 12).tls.unwrap().align, 16);
        assert_eq!(changed(RELRO_HEADER, P_MEMSZ, 0xfff).relro, None);
        let dynamic = changed(DYNAMIC_HEADER, P_FILESZ, u64::MAX).dynamic;
        assert_eq!(dynamic, Some(Vaddr(DYNAMIC)..Vaddr(DYNAMIC)));
        let mut twice = Library::new();
        twice.set_header(STACK_HEADER, P_TYPE, PT_TLS.into());
        twice.set_header(STACK_HEADER, P_MEMSZ, 8);
        assert_eq!(parse(&twice).unwrap().tls.unwrap().size, 8, "the last counts");
    }

    #[test]
    fn the_later_segment_has_the_page_that_two_share() {
        // The first ends in the second's page, and in the second's place.
        for memsz in [0x1001, 0x2000] {
            let mut library = Library::new();
            library.set_header(0, P_MEMSZ, memsz);
            let headers = parse(&library).unwrap();
            assert_eq!(headers.segments[0].addresses, Vaddr(0)..Vaddr(0x1000));
            assert_eq!(headers.segments[0].file, 0..0x800);
            assert_eq!(headers.segments[1].addresses, Vaddr(TEXT)..Vaddr(TEXT + 0x10));
        }
        // It goes on behind the second.
        let mut library = Library::new();
        library.set_header(0, P_FILESZ, END);
        library.set_header(TEXT_HEADER, P_FILESZ, 0x20);
        library.set_header(DATA_HEADER, P_TYPE, 0);
        let headers =
            ProgramHeaders::parse(&library.bytes, page(), &Limits::default(), &mut Faults::End)
                .unwrap();
        let [first, text, behind] = &headers.segments[..] else { panic!("{headers:?}") };
        assert_eq!((&first.addresses, &first.file), (&(Vaddr(0)..Vaddr(0x1000)), &(0..0x1000)));
        assert_eq!(text.file, 0x1000..0x1020);
        assert_eq!(behind.addresses, Vaddr(0x2000)..Vaddr(END));
        assert_eq!((&behind.file, behind.access), (&(0x2000..END as usize), first.access));
        let mut library = Library::new();
        for (field, value) in [(P_OFFSET, 0x808), (P_VADDR, 0x808), (P_FILESZ, 0x1000)] {
            library.set_header(TEXT_HEADER, field, value);
        }
        let headers = parse(&library).unwrap();
        assert_eq!(headers.segments.len(), 2, "nothing is left of the first");
        assert_eq!(headers.segments[0].addresses, Vaddr(0)..Vaddr(0x1808));
        assert_eq!(headers.segments[0].file, 0..0x1808);
        assert!(headers.segments[0].access.execute);
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
