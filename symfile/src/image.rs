//! An image as its file has it, for the builder: who has no loader has no more.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf::program_header::{PF_W, PF_X, PT_LOAD, PT_NOTE, PT_TLS};
use goblin::elf::section_header::SHT_NOTE;
use goblin::elf64::program_header::ProgramHeader;
use scroll::{LE, Pread};

use crate::base::addr::{FileOffset, Vaddr};
use crate::base::build_id::{BuildId, build_id};
use crate::base::fallible::TryGrow;
use crate::builder::error::SymfileError;
use crate::builder::headers::{Headers, file_range, image_header};
use crate::builder::source::{Policy, ReadAt, Source, SourceSegment};

const SEGMENT_SIZE: usize = goblin::elf64::program_header::SIZEOF_PHDR;

/// An image, by its program headers.
pub struct Image<'a> {
    bytes: &'a [u8],
    e_machine: u16,
    segments: Vec<SourceSegment>,
    /// Where the contents of each segment are in the file.
    contents: Vec<Range<usize>>,
    notes: Vec<&'a [u8]>,
    tls_size: u64,
}

impl<'a> Image<'a> {
    /// Of the bytes of a shared library.
    pub fn parse(bytes: &'a [u8]) -> Result<Image<'a>, SymfileError> {
        let header = image_header(bytes)?;
        let malformed =
            |at| SymfileError::Malformed { what: "program headers", at: FileOffset(at) };
        let len = usize::from(header.e_phnum).saturating_mul(SEGMENT_SIZE);
        if usize::from(header.e_phentsize) != SEGMENT_SIZE {
            return Err(malformed(header.e_phoff));
        }
        let table = file_range(bytes, header.e_phoff, len as u64);
        let table = table.ok_or_else(|| malformed(header.e_phoff))?;
        let mut image = Image {
            bytes,
            e_machine: header.e_machine,
            segments: Vec::new(),
            contents: Vec::new(),
            notes: Vec::new(),
            tls_size: 0,
        };
        for place in table.chunks_exact(SEGMENT_SIZE) {
            let Ok(segment) = place.pread_with::<ProgramHeader>(0, LE) else { continue };
            let start = Vaddr(segment.p_vaddr);
            let contents = file_range(bytes, segment.p_offset, segment.p_filesz);
            match segment.p_type {
                PT_LOAD => {
                    let addresses = start.range(segment.p_memsz.max(segment.p_filesz));
                    let addresses = addresses.ok_or_else(|| malformed(header.e_phoff))?;
                    contents.ok_or_else(|| malformed(header.e_phoff))?;
                    let first = segment.p_offset as usize;
                    let last = first.saturating_add(segment.p_filesz as usize);
                    image.contents.try_push(first..last)?;
                    image.segments.try_push(SourceSegment {
                        addresses,
                        executable: segment.p_flags & PF_X != 0,
                        writable: segment.p_flags & PF_W != 0,
                    })?;
                }
                PT_NOTE => image.notes.try_extend(contents)?,
                PT_TLS => image.tls_size = segment.p_memsz,
                _ => {}
            }
        }
        let is_ascending = |pair: &[SourceSegment]| match pair {
            [one, next] => one.addresses.end <= next.addresses.start,
            _ => true,
        };
        match image.segments.windows(2).all(is_ascending) {
            true => Ok(image),
            false => Err(malformed(header.e_phoff)),
        }
    }

    /// Calls `build` with the input of the builder. `file` has the section headers and the debug sections.
    pub fn source<R>(&self, file: &[u8], build: impl FnOnce(&Source<'_>) -> R) -> R {
        build(&Source {
            file: Some(file),
            memory: self,
            segments: &self.segments,
            eh_frame: &|| None,
            tls_size: self.tls_size,
            e_machine: self.e_machine,
            dynamic_symbols: &|_| {},
            policy: Policy { publishes_build_id: true, debugger_listens: false },
        })
    }

    /// The build-id, if there is one.
    pub fn build_id(&self) -> Option<BuildId> {
        build_id(self.notes.iter().copied())
    }
}

impl ReadAt for Image<'_> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        let len = range.end.checked_sub(range.start)?;
        self.read_to_end(range.start)?.get(..usize::try_from(len).ok()?)
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let holds = |segment: &SourceSegment| segment.addresses.contains(&start);
        let index = self.segments.iter().position(holds)?;
        let skipped = start.checked_sub(self.segments.get(index)?.addresses.start)?;
        let contents = self.bytes.get(self.contents.get(index)?.clone())?;
        contents.get(usize::try_from(skipped).ok()?..)
    }
}

/// The build-id of a file with section headers.
pub(crate) fn build_id_of_file(file: &[u8]) -> Option<BuildId> {
    let headers = Headers::parse(&image_header(file).ok()?, file).ok()?;
    let notes = headers.list.iter().filter(|it| it.sh_type == SHT_NOTE);
    build_id(notes.filter_map(|it| file_range(file, it.sh_offset, it.sh_size)))
}
