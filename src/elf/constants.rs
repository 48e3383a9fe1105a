//! The gABI's numbers under the gABI's names, for the folders above.
//!
//! They are goblin's. Other folders take them from here: only `elf/` and `debug/` parse files, so only
//! they use goblin. This file holds no code.

#![forbid(unsafe_code)]

pub(crate) use goblin::elf::sym::{
    STB_GLOBAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT, STT_TLS,
};
pub(crate) use goblin::elf64::dynamic::{
    DT_FINI_ARRAY, DT_INIT_ARRAY, DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_RPATH,
    DT_RUNPATH, DT_SONAME,
};
pub(crate) use goblin::elf64::program_header::{
    PF_R, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_LOAD, PT_NOTE,
};

pub(crate) use crate::elf::dynamic::{DT_AUXILIARY, DT_FILTER};
