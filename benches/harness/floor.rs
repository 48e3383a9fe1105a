//! What the kernel takes of a load into new memory: the same mapping, the same pages made present, the same bytes
//! copied, the same protections, and nothing else. No load that copies its image can be faster.

#![allow(unsafe_code)]

use std::ops::Range;

use goblin::elf::Elf;
use goblin::elf::program_header::{PF_W, PF_X, PT_GNU_RELRO, PT_LOAD};

const PAGE: usize = 4096;

/// A part of the image, from the start of its memory on.
struct Part {
    pages: Range<usize>,
    access: i32,
    /// The bytes of the file in it, and where in the file they are: whole pages, but for the last.
    file: Range<usize>,
}

/// What is mapped of a library.
pub struct Layout {
    len: usize,
    parts: Vec<Part>,
    relro: Range<usize>,
}

impl Layout {
    pub fn new(bytes: &[u8]) -> Layout {
        let elf = Elf::parse(bytes).unwrap();
        let down = |at: usize| at / PAGE * PAGE;
        let mut layout = Layout { len: 0, parts: Vec::new(), relro: 0..0 };
        for header in &elf.program_headers {
            let (start, file) = (header.p_vaddr as usize, header.file_range());
            let end = (start + header.p_memsz as usize).next_multiple_of(PAGE);
            if header.p_type == PT_GNU_RELRO {
                layout.relro = down(start)..down(start + header.p_memsz as usize);
            }
            if header.p_type == PT_LOAD {
                let mut access = libc::PROT_READ;
                access |= if header.p_flags & PF_W != 0 { libc::PROT_WRITE } else { 0 };
                access |= if header.p_flags & PF_X != 0 { libc::PROT_EXEC } else { 0 };
                let file = file.start - (start - down(start))..file.end;
                layout.parts.push(Part { pages: down(start)..end, access, file });
                layout.len = layout.len.max(end);
            }
        }
        layout
    }

    /// Maps it. Nothing can be called there: it is not relocated.
    pub fn map(&self, bytes: &[u8]) -> Mapped {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: new memory, in which all ranges below lie; nothing refers to it.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), self.len, access, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let start = start.cast::<u8>();
            let present = |pages: Range<usize>| {
                let (at, len) = (start.add(pages.start), pages.len());
                assert_eq!(libc::madvise(at.cast(), len, libc::MADV_POPULATE_WRITE), 0);
            };
            // Neighbours in one call.
            let filled = self.parts.iter().map(|part| {
                part.pages.start..(part.pages.start + part.file.len()).next_multiple_of(PAGE)
            });
            let mut next = 0..0;
            for pages in filled {
                if pages.start != next.end && !next.is_empty() {
                    present(next.clone());
                }
                next = if pages.start == next.end { next.start..pages.end } else { pages };
            }
            present(next);
            for part in &self.parts {
                let source = &bytes[part.file.clone()];
                start.add(part.pages.start).copy_from_nonoverlapping(source.as_ptr(), source.len());
            }
            let protect = |pages: Range<usize>, access| {
                let at = start.add(pages.start);
                assert_eq!(libc::mprotect(at.cast(), pages.len(), access), 0);
            };
            // All that is not written at once, then code: as few calls as there can be.
            let written = self.parts.iter().find(|part| part.access & libc::PROT_WRITE != 0);
            let sealed = match (written, self.relro.is_empty()) {
                (Some(part), true) => part.pages.start,
                (Some(_), false) => self.relro.end,
                (None, _) => self.len,
            };
            protect(0..sealed, libc::PROT_READ);
            for part in self.parts.iter().filter(|part| part.access & libc::PROT_EXEC != 0) {
                protect(part.pages.clone(), part.access);
            }
            Mapped { start, len: self.len }
        }
    }
}

/// Memory that is unmapped when this is dropped.
pub struct Mapped {
    start: *mut u8,
    len: usize,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `Layout::map`, once.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
