//! The symfile builder: from the bytes of an image to the ELF file that a debugger reads in its stead.
//!
//! That symfile is an ELF file inside another one. The *outer* file has the image's sections at
//! their run-time addresses, without contents, since a debugger reads those from the process. Only
//! `.eh_frame` and the symbol table have contents, and `.gnu_debugdata`, which is the *inner* file
//! in .xz framing: the same sections at the addresses that the image states, and its DWARF as it
//! came. gdb made that section for small symbol tables of stripped files, but reads a whole ELF
//! file from it, and slides it: the distance is that between sections of the same name outside
//! and inside. So the DWARF is not parsed for this form, all DWARF that gdb can read works, compressed
//! sections included, and no byte of it depends on where the image lies, but for the locations of
//! thread-local variables ([`crate::dwarf::tls_locations`]).
//!
//! The second form ([`portable`]) has DWARF with run-time addresses.
//!
//! An image whose section headers are missing or cannot be trusted is described by its segments and
//! its dynamic symbols: names and backtraces, no lines.
//!
//! The builder takes bytes and plain values ([`Source`](source::Source)), and memory from its caller
//! ([`Storage`](storage::Storage)). It knows no static, no environment, no mapping, no lock, and not whether
//! a debugger is attached. The bytes are hostile. No bytes make it panic, or take more than a few times
//! their length of memory.
//!
//! | file | what it owns |
//! |---|---|
//! | [`source`] | the input |
//! | [`headers`], [`sections`], [`compression`], [`symbols`] | reading: section headers, which sections a symfile has, their contents |
//! | [`thread_locals`] | which locations of thread-local variables must be rewritten |
//! | [`template`] | what is the same for all instances: [`outer`], [`inner`], their [`layout`] |
//! | [`ifuncs`] | the functions that IFUNC resolvers chose |
//! | [`instance`], [`parts`] | the symfile of one instance, and copies of its parts |
//! | [`portable`], [`shared_portable`] | the second form, and what instances have in common of it |
//! | [`dwp`] | packages of split DWARF, joined with the image's file |
//! | [`elf_writer`], [`xz`] | writing |
//!
//! Sources: gABI chapters 4 ("Sections", "Symbol Table") and 5; gdb's `symfile.c` (`read_symbols`,
//! `addr_info_make_relative`) and `minidebug.c`; LSB Core 10.6 for `.eh_frame` and its header. The
//! rules that no document states were found by experiment with gdb 8.1 to 18.1, and are named
//! where they are obeyed.

#![forbid(unsafe_code)]

pub mod compression;
pub mod dwp;
pub mod elf_writer;
pub mod error;
pub mod headers;
pub mod ifuncs;
mod inner;
pub mod instance;
mod layout;
mod outer;
pub mod parts;
pub mod portable;
pub mod sections;
mod shared_portable;
pub mod source;
pub mod storage;
mod symbols;
pub mod template;
#[cfg(test)]
pub mod tests;
mod thread_locals;
pub mod xz;
