//! How a debugger comes to see an image that has no file.
//!
//! A debugger learns of a library from the dynamic linker's list, then opens the file of that name.
//! An image has neither. What gdb and lldb offer instead is the GDB JIT interface ([`gdb_jit`]): the
//! process keeps a list of ELF files in its own memory, *symfiles*, and calls an empty function,
//! on which the debugger has a breakpoint, when the list changes. Without a debugger it costs a function
//! call. A debugger that attaches later, or reads a core file, finds the list.
//!
//! **The form.** A symfile must have run-time addresses, but DWARF has link-time addresses in tens
//! of thousands of places. gdb accepts a distance in one case only: it slides an ELF file
//! that it finds in the section `.gnu_debugdata` of another by the distance between their sections.
//! So [`memdl_symfile`] puts the debug sections there, untouched, in a stored .xz ([`memdl_symfile::builder::xz`]), and only the
//! few addresses outside depend on where the image lies. All gdbs from 8.1 on can read this; any
//! DWARF that they know works; it costs one copy of the debug sections for each symfile.
//!
//! **lldb** does not read `.gnu_debugdata` as built by the distributions: it sees names and backtraces.
//! For it there is a second form ([`memdl_symfile::builder::portable`]), made from the first one: all of the DWARF read, and
//! the distance added to each address in it ([`memdl_symfile::dwarf::addresses`]). It costs that reading, once for all
//! instances of a template, and for each a copy of the sections that have addresses. A debugger that is there at the
//! load gets it, too: gdb then looks for the places of its breakpoints once instead of twice.
//!
//! **Changing the level later.** Both forms, and the one without DWARF, come from the same bytes, which are
//! kept as long as the image. So the level can change at any time ([`DebugRegistration`]). The form
//! without DWARF is the beginning of the one with it, so changing between the two builds nothing.
//!
//! **Unloading** is where this interface is weak: gdb keeps its breakpoints in an image whose entry
//! is gone, and would write into whatever is mapped there next. See the drop of [`memdl_symfile::list::Registration`]. So a
//! registration is dropped while the image is still mapped. And it is made when the image is
//! relocated and before its first constructor runs, so that breakpoints in those are hit. The last entry of an
//! image stays a while, so that breakpoints are hit in the next load, too ([`retired`]).
//!
//! A load never fails here: an image that cannot be described is logged and left out. So is debug information
//! that would cost too much for its size ([`memdl_symfile::dwarf::budget`]): then debuggers see names only. Nothing is
//! unpacked or read before a caller requests a form that needs it.

mod gdb_jit;
mod in_full;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod internals;
mod kinds;
mod level;
#[cfg(feature = "symbolize")]
pub(crate) mod lines;
mod package;
mod policy;
mod published;
#[cfg_attr(not(feature = "symbolize"), path = "without_lines.rs")]
pub(crate) mod read_lines;
mod registration;
pub(crate) mod retired;
mod separate;
mod storage;
mod stripped;

pub use kinds::DebugInformation;
pub use level::DebugLevel;

pub(crate) use gdb_jit::{debugger_listens, is_busy};
pub(crate) use kinds::kinds;
#[cfg(any(test, feature = "internals"))]
pub(crate) use memdl_symfile::Limits as Maximum;
pub(crate) use memdl_symfile::builder::dwp::is_package;
pub(crate) use memdl_symfile::builder::error::SymfileError;
pub(crate) use memdl_symfile::builder::headers::full_symbol_table as symbol_table;
pub(crate) use memdl_symfile::builder::ifuncs::Ifuncs;
pub(crate) use memdl_symfile::builder::instance::Instance;
pub(crate) use memdl_symfile::builder::sections::has_dwarf;
pub(crate) use memdl_symfile::builder::source::{DynamicSymbol, Source, SourceSegment};
pub(crate) use memdl_symfile::builder::template::Instances;
#[cfg(any(test, feature = "internals"))]
pub(crate) use memdl_symfile::dwarf::budget::Allowance;
pub(crate) use memdl_symfile::dwarf::tls_locations::ThreadLocals;
pub(crate) use package::join;
pub(crate) use policy::{maximum, policy};
pub(crate) use registration::{
    DebugFault, DebugRegistration, DebugTemplate, symfile_template, warn_of_names_only,
};
pub(crate) use separate::{
    check as check_separate, installed as installed_separate, read as read_separate,
};
pub(crate) use storage::{SymfileTemplate, memory_error, refused_memory};
