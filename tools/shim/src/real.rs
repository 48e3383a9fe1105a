//! The C library's own functions, for those names that this library defines, too.
//!
//! `dlsym` cannot be asked, since it is one of them: they are looked up in the C library's symbol table. The
//! linker leads all calls of them that are linked into this library to the functions `__wrap_*` (build.rs),
//! which jump to them, so that return addresses stay.
//!
//! Sources: gABI "Symbol Table"; glibc `elf/dl-lookup.c` (the GNU hash table); `ld(1)`, `--wrap`.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{Elf64_Phdr, Elf64_Sym};

macro_rules! real_functions {
    ($($name:ident, $wrap:ident, $real:ident;)*) => {
        $(
            /// The C library's function; 0 until it was looked up.
            pub(crate) static $real: AtomicUsize = AtomicUsize::new(0);

            /// Jumps to the C library's function.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C-unwind" fn $wrap() {
                std::arch::naked_asm!(
                    ".cfi_startproc",
                    "cmp qword ptr [rip + {real}], 0",
                    "jne 2f",
                    "push rdi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rdx",
                    ".cfi_adjust_cfa_offset 8",
                    "push rcx",
                    ".cfi_adjust_cfa_offset 8",
                    "sub rsp, 8",
                    ".cfi_adjust_cfa_offset 8",
                    "call {find}",
                    "add rsp, 8",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rcx",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rdx",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rsi",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rdi",
                    ".cfi_adjust_cfa_offset -8",
                    "2:",
                    "jmp qword ptr [rip + {real}]",
                    ".cfi_endproc",
                    real = sym $real,
                    find = sym find,
                )
            }
        )*

        const ALL: &[(&CStr, &AtomicUsize)] = &[$((
            // The name has no NUL.
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            },
            &$real,
        ),)*];
    };
}

real_functions! {
    dlopen, __wrap_dlopen, DLOPEN;
    dlsym, __wrap_dlsym, DLSYM;
    dlvsym, __wrap_dlvsym, DLVSYM;
    dlclose, __wrap_dlclose, DLCLOSE;
    dlerror, __wrap_dlerror, DLERROR;
    dlinfo, __wrap_dlinfo, DLINFO;
    dladdr, __wrap_dladdr, DLADDR;
    dladdr1, __wrap_dladdr1, DLADDR1;
}

/// Looks the functions up, once. Allocates nothing: an allocator may be what asks for them.
pub(crate) extern "C-unwind" fn find() {
    if ALL.iter().all(|(_, real)| real.load(Ordering::Acquire) != 0) {
        return;
    }
    // SAFETY: the function has the required type.
    unsafe { libc::dl_iterate_phdr(Some(look_up_in), std::ptr::null_mut()) };
    if let Some((name, _)) = ALL.iter().find(|(_, real)| real.load(Ordering::Acquire) == 0) {
        eprintln!("libmemdl_shim.so: the C library has no {name:?}");
        std::process::abort();
    }
}

/// Looks the functions up in the C library, if this is it. They were in libdl until glibc 2.34.
unsafe extern "C" fn look_up_in(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: a record of `ld.so`, with the library's name and program headers.
    let (info, name) = unsafe { (&*info, CStr::from_ptr((*info).dlpi_name)) };
    let name = name.to_bytes();
    if !name.ends_with(b"/libc.so.6") && !name.ends_with(b"/libdl.so.2") {
        return 0;
    }
    // SAFETY: the same.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let dynamic = headers.iter().find(|header: &&Elf64_Phdr| header.p_type == libc::PT_DYNAMIC);
    let Some(dynamic) = dynamic else { return 0 };
    // SAFETY: the C library, which stays loaded.
    let table = unsafe { Table::new((info.dlpi_addr + dynamic.p_vaddr) as *const [usize; 2]) };
    for (name, real) in ALL {
        // SAFETY: the same.
        if let Some(value) = unsafe { table.as_ref().and_then(|table| table.value(name)) } {
            real.store(info.dlpi_addr as usize + value, Ordering::Release);
        }
    }
    0
}

/// The symbol table of a loaded library whose dynamic section `ld.so` has relocated.
struct Table {
    strings: *const u8,
    symbols: *const Elf64_Sym,
    versions: *const u16,
    hash: *const u32,
}

impl Table {
    /// # Safety
    /// The dynamic section of a library that stays loaded.
    unsafe fn new(dynamic: *const [usize; 2]) -> Option<Table> {
        const DT_STRTAB: usize = 5;
        const DT_SYMTAB: usize = 6;
        const DT_GNU_HASH: usize = 0x6fff_fef5;
        const DT_VERSYM: usize = 0x6fff_fff0;
        // SAFETY: the caller's promise. The section ends with the tag 0.
        let value = |wanted: usize| unsafe {
            let tags = (0..).map(|index| *dynamic.add(index));
            let mut tags = tags.take_while(|[tag, _]| *tag != 0);
            tags.find(|[tag, _]| *tag == wanted).map(|[_, value]| value)
        };
        Some(Table {
            strings: value(DT_STRTAB)? as *const u8,
            symbols: value(DT_SYMTAB)? as *const Elf64_Sym,
            versions: value(DT_VERSYM)? as *const u16,
            hash: value(DT_GNU_HASH)? as *const u32,
        })
    }

    /// The value of the default version of a defined symbol.
    ///
    /// # Safety
    /// The library is loaded.
    unsafe fn value(&self, name: &CStr) -> Option<usize> {
        const HIDDEN: u16 = 0x8000;
        let step = |hash: u32, byte: &u8| hash.wrapping_mul(33).wrapping_add((*byte).into());
        let wanted = name.to_bytes().iter().fold(5381, step);
        // SAFETY: the tables are as `ld.so` uses them itself: the header, the Bloom filter of `blooms` words
        // of 64 bits, the buckets, and the chains of symbols from `first` on, each with the lowest bit set at
        // its end.
        unsafe {
            let [buckets, first, blooms] = [0, 1, 2].map(|index| *self.hash.add(index) as usize);
            let bucket = self.hash.add(4 + blooms * 2);
            let chain = bucket.add(buckets);
            let mut index = *bucket.add(wanted as usize % buckets) as usize;
            while index >= first {
                let hash = *chain.add(index - first);
                let symbol = &*self.symbols.add(index);
                let is_it = hash | 1 == wanted | 1
                    && symbol.st_shndx != 0
                    && *self.versions.add(index) & HIDDEN == 0
                    && CStr::from_ptr(self.strings.add(symbol.st_name as usize).cast()) == name;
                if is_it {
                    return Some(symbol.st_value as usize);
                }
                if hash & 1 == 1 {
                    break;
                }
                index += 1;
            }
        }
        None
    }
}
