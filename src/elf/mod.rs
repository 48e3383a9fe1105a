//! The contents of a file: bytes in, validated values out.
//!
//! This folder is pure. It maps nothing, asks the process and the environment nothing, has no statics,
//! no `unsafe` and no `libc`. From the bytes of an image to a value that later stages trust:
//!
//! * `image`: the gate. `header`, `program_headers` and `decoded` (the dynamic section) are its checks;
//!   `segment`, `relocation_tables` and `rela` are the parts of its result.
//! * `symbol_table`: the dynamic symbols, with `symbol`, `gnu_hash`, `sysv_hash` and `versions`; `lookup`
//!   finds a definition by name and version. `name_filter` says which names a set of libraries lacks.
//! * `plan`: the pages of an image. `eh_frame`: its call frame information.
//! * `static_symbols`: `.symtab`, of files that the process has loaded. `sections`: what section headers state.
//! * `foreign`: what bytes are that are no ELF file. `outline`: what can be read of a file that is refused.
//! * `read` and `dynamic`: bytes by address, and tags by number, for all of these. `constants`: the
//!   gABI's numbers, for other folders.

#![forbid(unsafe_code)]

pub(crate) mod constants;
pub(crate) mod decoded;
pub(crate) mod dynamic;
pub(crate) mod eh_frame;
mod foreign;
mod gnu_hash;
pub(crate) mod header;
pub(crate) mod image;
pub(crate) mod lookup;
pub(crate) mod name_filter;
pub(crate) mod name_index;
pub(crate) mod outline;
pub(crate) mod plan;
mod program_headers;
mod properties;
pub(crate) mod read;
pub(crate) mod rela;
pub(crate) mod relocation_tables;
pub(crate) mod sections;
pub(crate) mod segment;
pub(crate) mod static_symbols;
pub(crate) mod symbol;
pub(crate) mod symbol_table;
mod sysv_hash;
#[cfg(test)]
mod test_image;
pub(crate) mod versions;
