//! How a debugger comes to see an image that has no file.
//!
//! A debugger learns of a library from the dynamic linker's list, then opens the file of that name.
//! An image has neither. What gdb and lldb offer instead is the GDB JIT interface ([`gdb_jit`]): the
//! process keeps a list of ELF files in its own memory, *symfiles*, and calls an empty function,
//! on which the debugger has a breakpoint, when the list changes. It costs a function call when
//! nobody listens, and a debugger that comes later, or reads a core file, finds the list.
//!
//! **The form.** A symfile must tell run-time addresses, but DWARF has link-time addresses in tens
//! of thousands of places. gdb cannot be told a distance, except in one case: it slides an ELF file
//! that it finds in the section `.gnu_debugdata` of another by the distance between their sections.
//! So [`symfile`] puts the debug sections there, untouched, in a stored .xz ([`symfile::xz`]), and only the
//! few addresses outside depend on where the image lies. All gdbs from 8.1 on can read this; any
//! DWARF that they know works; it costs one copy of the debug sections for each symfile.
//!
//! **lldb** does not read `.gnu_debugdata` as built by the distributions: it sees names and backtraces.
//! For it there is a second form ([`symfile::portable`]), made from the first one: all of the DWARF read, and
//! the distance added to each address in it ([`dwarf::addresses`]). It costs that reading, and a copy for each
//! instance.
//!
//! **Late wishes.** Both forms, and the one without DWARF, come from the same bytes, which are kept for
//! as long as the image is there, so how much is told can change at any time ([`DebugRegistration`]). The form
//! without DWARF is the beginning of the one with it: to change between the two nothing is built.
//!
//! **Unloading** is where this interface is weak: gdb keeps its breakpoints in an image whose entry
//! is gone, and would write into whatever is mapped there next. See the drop of [`gdb_jit::Registration`]. So a
//! registration is dropped while the image is still mapped. And it is made when the image is
//! relocated and before its first constructor runs, so that breakpoints in those are hit.
//!
//! A load never fails because of all this: what cannot be told is logged and left out. So is what
//! would cost more than the file is worth ([`dwarf::budget`]): then debuggers are told names only. Nothing is
//! unpacked and nothing read before somebody wishes for a form that needs it.

pub(crate) mod demangle;
mod dwarf;
mod gdb_jit;
mod in_full;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod internals;
pub(crate) mod lines;
mod package;
mod policy;
mod published;
pub(crate) mod read_lines;
mod registration;
mod separate;
mod storage;
mod symfile;

pub use policy::Debug;

pub(crate) use dwarf::budget::{Allowance, Maximum};
pub(crate) use dwarf::tls_locations::ThreadLocals;
pub(crate) use gdb_jit::{debugger_listens, is_busy};
pub(crate) use package::join;
pub(crate) use policy::policy;
pub(crate) use registration::{
    DebugFault, DebugRegistration, DebugTemplate, symfile_template, warn_of_names_only,
};
pub(crate) use separate::{
    check as check_separate, installed as installed_separate, read as read_separate,
};
pub(crate) use storage::SymfileTemplate;
pub(crate) use symfile::dwp::is_package;
pub(crate) use symfile::error::SymfileError;
pub(crate) use symfile::headers::full_symbol_table as symbol_table;
pub(crate) use symfile::instance::Instance;
pub(crate) use symfile::sections::has_dwarf;
pub(crate) use symfile::source::{DynamicSymbol, Source, SourceSegment};
pub(crate) use symfile::template::Instances;
