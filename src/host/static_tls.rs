//! Takes free static thread-local storage from `ld.so`.
//!
//! `ld.so` reserves some static storage for libraries that are opened with `dlopen` (glibc: about 1,600 bytes). It
//! gives parts of it to libraries only, and copies a library's initial values for each new thread. So [`reserve`]
//! opens a library that contains only thread-local variables: a few hundred bytes in an anonymous file, which is
//! closed at once. The file's name contains the process's number, not `self`: a debugger that opens that name gets
//! this file or an error, and never one of its own descriptors.
//!
//! Sources: glibc `elf/dl-reloc.c`, `_dl_try_allocate_static_tls`; `memfd_create(2)`.

#![allow(unsafe_code)]

use std::ffi::{CString, c_uint};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::{self, MACHINE, RelocKind};
use crate::base::addr::page_size;
use crate::base::fallible::try_zeroed;
use crate::host::dl::{Handle, last_dl_error};

/// Storage that every thread has, now and later.
pub(crate) struct Reserved {
    /// The distance of the block from the thread pointer.
    pub distance: isize,
    /// The values that new threads get, as many bytes as were asked for.
    pub template: *mut u8,
}

/// The number of blocks, which are in `ld.so`'s list for good.
const MAX_RESERVED: usize = 1000;

/// The alignment of a block: `ld.so` gives no more to a library that is opened later.
pub(crate) const ALIGN: usize = arch::STATIC_AREA_ALIGN;

static RESERVED: AtomicUsize = AtomicUsize::new(0);

/// Takes this number of zeroed bytes in every thread, for good. The error says why there are none.
pub(crate) fn reserve(size: usize) -> Result<Reserved, String> {
    if RESERVED.load(Ordering::Relaxed) >= MAX_RESERVED {
        return Err("too many blocks".to_owned());
    }
    let library = library(size).ok_or_else(|| "out of memory".to_owned())?;
    let file = anonymous_file(&library).map_err(|error| format!("an anonymous file: {error}"))?;
    // A descriptor's number comes again, and `ld.so` knows libraries by their names.
    let number = RESERVED.fetch_add(1, Ordering::Relaxed).min(MAX_RESERVED);
    let (process, own) = (std::process::id(), "/.".repeat(number));
    let name = format!("/proc/{process}{own}/fd/{}", file.as_raw_fd());
    let name = CString::new(name).map_err(|error| error.to_string())?;
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
    let Some(handle) = Handle::open(&name, flags) else {
        return Err(last_dl_error().unwrap_or_else(|| "dlopen failed".to_owned()));
    };
    let (load_bias, _) = handle.link_map().ok_or_else(|| "dlinfo failed".to_owned())?;
    // It is never closed: `ld.so` may be unable to use the storage again.
    std::mem::forget(handle);
    let at = |offset: usize| load_bias.wrapping_add(offset);
    // SAFETY: a word of the library's only segment, which `ld.so` has mapped and relocated.
    let distance = unsafe { ptr::with_exposed_provenance::<isize>(at(DISTANCE)).read() };
    Ok(Reserved { distance, template: ptr::with_exposed_provenance_mut(at(TEMPLATE)) })
}

fn anonymous_file(bytes: &[u8]) -> io::Result<File> {
    // Linux 6.3: without it, a process may be forbidden to make such files. None of it is executed.
    const MFD_NOEXEC_SEAL: c_uint = 8;
    let create = |flags| {
        // SAFETY: a C string.
        let fd = unsafe { libc::memfd_create(c"memdl-static-tls".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        Ok(unsafe { File::from_raw_fd(fd) })
    };
    let mut file = match create(libc::MFD_CLOEXEC | MFD_NOEXEC_SEAL) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(libc::MFD_CLOEXEC),
        created => created,
    }?;
    file.write_all(bytes)?;
    Ok(file)
}

// The library's layout: offsets in the file, which are addresses as well.
const HEADERS: usize = size_of::<libc::Elf64_Ehdr>();
const HEADER_COUNT: usize = 4;
const DYNAMIC: usize = HEADERS + HEADER_COUNT * size_of::<libc::Elf64_Phdr>();
const RELA: usize = DYNAMIC + 16 * 10;
const SYMBOLS: usize = RELA + 24;
const STRINGS: usize = SYMBOLS + 24;
const NAME: &[u8] = b"\0memdl-static-tls\0";
/// The word in which `ld.so` stores the distance of the block from the thread pointer.
const DISTANCE: usize = (STRINGS + NAME.len()).next_multiple_of(8);
const TEMPLATE: usize = (DISTANCE + 8).next_multiple_of(ALIGN);

/// A library whose only content is `size` bytes of thread-local storage.
fn library(size: usize) -> Option<Vec<u8>> {
    let len = TEMPLATE.checked_add(size)?;
    let mut library = Library(try_zeroed(len).ok()?);
    library.header()?;
    let mut at = HEADERS;
    let read_write = libc::PF_R | libc::PF_W;
    for (p_type, flags, start, len, align) in [
        (libc::PT_LOAD, read_write, 0, len, page_size()),
        (libc::PT_DYNAMIC, read_write, DYNAMIC, RELA - DYNAMIC, 8),
        (libc::PT_TLS, libc::PF_R, TEMPLATE, size, ALIGN),
        // Without it, `ld.so` makes the stacks executable.
        (libc::PT_GNU_STACK, read_write, 0, 0, 16),
    ] {
        library.put(at, &p_type.to_le_bytes())?;
        library.put(at.checked_add(4)?, &flags.to_le_bytes())?;
        // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
        library.words(at.checked_add(8)?, &[start, start, start, len, len, align])?;
        at = at.checked_add(size_of::<libc::Elf64_Phdr>())?;
    }
    const DF_STATIC_TLS: usize = 0x10;
    let dynamic = [
        (5, STRINGS),     // DT_STRTAB
        (6, SYMBOLS),     // DT_SYMTAB
        (7, RELA),        // DT_RELA
        (8, 24),          // DT_RELASZ
        (9, 24),          // DT_RELAENT
        (10, NAME.len()), // DT_STRSZ
        (11, 24),         // DT_SYMENT
        (14, 1),          // DT_SONAME
        (30, DF_STATIC_TLS),
        (0, 0),
    ];
    library.words(DYNAMIC, dynamic.map(<[usize; 2]>::from).as_flattened())?;
    // Of symbol 0: the module's own block.
    let kinds = MACHINE.reloc_kinds.iter();
    let tp_off = kinds.clone().position(|kind| *kind == Some(RelocKind::TpOff))?;
    library.words(RELA, &[DISTANCE, tp_off, 0])?;
    library.put(STRINGS, NAME)?;
    Some(library.0)
}

/// A file that is being written.
struct Library(Vec<u8>);

impl Library {
    fn header(&mut self) -> Option<()> {
        let ident = [0x7f, b'E', b'L', b'F', 2, 1, 1];
        self.put(0, &ident)?;
        // ET_DYN, the machine, EV_CURRENT
        let [low, high] = MACHINE.e_machine.to_le_bytes();
        self.put(16, &[3, 0, low, high, 1])?;
        // e_phoff
        self.words(32, &[HEADERS])?;
        // e_ehsize, e_phentsize, e_phnum, e_shentsize
        self.put(
            52,
            &[HEADERS as u8, 0, size_of::<libc::Elf64_Phdr>() as u8, 0, HEADER_COUNT as u8],
        )?;
        self.put(58, &[64])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let place = self.0.get_mut(at..at.checked_add(bytes.len())?)?;
        place.copy_from_slice(bytes);
        Some(())
    }

    fn words(&mut self, at: usize, words: &[usize]) -> Option<()> {
        let mut at = at;
        for word in words {
            self.put(at, &word.to_le_bytes())?;
            at = at.checked_add(size_of::<usize>())?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_threads_and_old_ones_have_the_storage() {
        let (to_thread, from_main) = std::sync::mpsc::channel();
        let read = |distance: isize| {
            let address = arch::thread_pointer().wrapping_add_signed(distance);
            // SAFETY: storage that is reserved in every thread.
            unsafe { ptr::with_exposed_provenance::<u64>(address).read() }
        };
        let old = std::thread::spawn(move || read(from_main.recv().unwrap()));
        let reserved = reserve(64).unwrap();
        assert_eq!(reserved.distance % ALIGN as isize, 0);
        // SAFETY: 64 bytes from there are the initial values.
        unsafe { reserved.template.cast::<u64>().write(77) };
        to_thread.send(reserved.distance).unwrap();
        assert_eq!(old.join().unwrap(), 0);
        assert_eq!(std::thread::spawn(move || read(reserved.distance)).join().unwrap(), 77);
        assert!(reserve(1 << 20).is_err_and(|why| why.contains("static TLS")));
    }
}
