//! Numbers of the gABI, under its names, for those who read what a file says.
//!
//! They are goblin's. Folders above this one take them from here, so that parsing stays in `elf/` and
//! `debug/`.

#![forbid(unsafe_code)]

pub(crate) use goblin::elf::sym::{
    STB_GLOBAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, STT_TLS,
};
pub(crate) use goblin::elf64::dynamic::{
    DT_FINI_ARRAY, DT_INIT_ARRAY, DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_SONAME,
};
pub(crate) use goblin::elf64::header::{EI_OSABI, ELFOSABI_GNU, SIZEOF_EHDR};
pub(crate) use goblin::elf64::program_header::{PF_R, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD};
