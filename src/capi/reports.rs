//! `memdl_inspect` and what a report says.
//!
//! A handle has the report with its strings for C, made once. What it returns lives as long as it.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use super::errors::{Failure, c_string, caught, pointer};
use super::options::{Options, loader_of};
use super::pointers::{bytes_of, give, handle, take};
use super::symbols::{CFunction, number_of_kind};
use crate::ImportBinding;
use crate::LibraryOrigin;
use crate::Report;
use crate::base::fallible::TryGrow;
use crate::base::fallible::require_memory;
use crate::base::fallible::require_memory_for_next;
use crate::base::fallible::try_format;

/// `memdl_report`.
pub struct ReportHandle {
    report: Report,
    name: CString,
    machine: Option<CString>,
    soname: Option<CString>,
    text: CString,
    refusals: Vec<CString>,
    refusals_on_its_machine: Vec<CString>,
    isa_levels: Vec<CString>,
    debug_information: Vec<CString>,
    defined_versions: Vec<CString>,
    needed: Vec<CNeeded>,
    needed_versions: Vec<CNeededVersion>,
    relocation_types: Vec<CRelocationType>,
    imports: Vec<CImport>,
    exports: Vec<CExport>,
    functions: Vec<CFunction>,
    notes: Vec<CNote>,
    /// What these point to.
    strings: Strings,
}

/// `memdl_needed`.
#[repr(C)]
pub struct CNeeded {
    name: *const c_char,
    needed_by: *const c_char,
    is_direct: c_int,
    origin: c_int,
    detail: *const c_char,
}

/// `memdl_needed_version`.
#[repr(C)]
pub struct CNeededVersion {
    library: *const c_char,
    version: *const c_char,
    is_weak: c_int,
}

/// `memdl_relocation_type`.
#[repr(C)]
pub struct CRelocationType {
    number: u32,
    name: *const c_char,
    count: u64,
    is_supported: c_int,
}

/// `memdl_import`.
#[repr(C)]
pub struct CImport {
    index: u32,
    name: *const c_char,
    version: *const c_char,
    kind: c_int,
    is_weak: c_int,
    is_referenced: c_int,
    binding: c_int,
    detail: *const c_char,
}

/// `memdl_export`.
#[repr(C)]
pub struct CExport {
    index: u32,
    name: *const c_char,
    version: *const c_char,
    is_default_version: c_int,
    kind: c_int,
    is_weak: c_int,
    is_unique: c_int,
    value: u64,
    size: u64,
}

/// `memdl_note`.
#[repr(C)]
pub struct CNote {
    owner: *const c_char,
    kind: u32,
    description: *const u8,
    description_len: usize,
}

/// Strings for C. Each is on the heap, and stays where it is.
#[derive(Default)]
struct Strings(Vec<CString>);

impl Strings {
    fn add(&mut self, text: &str) -> Result<*const c_char, Failure> {
        require_memory_for_next(self.0.len())?;
        let text = c_string(text)?;
        let at = text.as_ptr();
        self.0.try_push(text)?;
        Ok(at)
    }

    fn add_if(&mut self, text: Option<&str>) -> Result<*const c_char, Failure> {
        text.map_or(Ok(ptr::null()), |text| self.add(text))
    }
}

/// The number of a `memdl_origin`, and the path, name or reason.
fn origin(origin: &LibraryOrigin) -> (c_int, Option<&str>) {
    match origin {
        LibraryOrigin::InProcess { path } => (0, Some(path)),
        LibraryOrigin::File { path } => (1, Some(path)),
        LibraryOrigin::Copy { path } => (2, Some(path)),
        LibraryOrigin::Bytes { name } => (3, Some(name)),
        LibraryOrigin::Image { name } => (4, Some(name)),
        LibraryOrigin::Unknown => (5, None),
        LibraryOrigin::Absent => (6, None),
        LibraryOrigin::Missing { reason } => (7, Some(reason)),
    }
}

/// The number of a `memdl_import_binding`, and the path or name.
fn binding(binding: &ImportBinding) -> (c_int, Option<&str>) {
    match binding {
        ImportBinding::Executable => (0, None),
        ImportBinding::Library { path } => (1, Some(path)),
        ImportBinding::Replaced { path } => (2, Some(path)),
        ImportBinding::Image { name } => (3, Some(name)),
        ImportBinding::Process => (4, None),
        ImportBinding::Defined => (5, None),
        ImportBinding::Resolver => (6, None),
        ImportBinding::Null => (7, None),
        ImportBinding::Missing => (8, None),
        ImportBinding::Unknown => (9, None),
        ImportBinding::Refused => (10, None),
    }
}

/// C strings of these texts.
fn c_strings<T: std::fmt::Display>(
    texts: impl IntoIterator<Item = T>,
) -> Result<Vec<CString>, Failure> {
    let mut strings = Vec::new();
    for text in texts {
        require_memory_for_next(strings.len())?;
        strings.try_push(c_string(&try_format(format_args!("{text}"))?)?)?;
    }
    Ok(strings)
}

impl ReportHandle {
    fn new(report: Report) -> Result<ReportHandle, Failure> {
        let mut made = ReportHandle {
            name: c_string(report.name())?,
            machine: report.machine().map(c_string).transpose()?,
            soname: report.soname().map(c_string).transpose()?,
            text: c_string(&try_format(format_args!("{report}"))?)?,
            refusals: c_strings(report.refusals())?,
            refusals_on_its_machine: c_strings(report.refusals_on_its_machine())?,
            isa_levels: c_strings(report.isa_levels())?,
            debug_information: c_strings(report.debug_information())?,
            defined_versions: c_strings(report.defined_versions())?,
            needed: Vec::new(),
            needed_versions: Vec::new(),
            relocation_types: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            functions: Vec::new(),
            notes: Vec::new(),
            strings: Strings::default(),
            report,
        };
        made.add_libraries()?;
        made.add_symbols()?;
        for it in made.report.relocation_types() {
            made.relocation_types.try_push(CRelocationType {
                number: it.number,
                name: made.strings.add(it.name)?,
                count: it.count,
                is_supported: it.is_supported.into(),
            })?;
        }
        for note in made.report.notes() {
            let (description, description_len) =
                (note.description().as_ptr(), note.description().len());
            let owner = made.strings.add(note.owner())?;
            made.notes.try_push(CNote {
                owner,
                kind: note.kind(),
                description,
                description_len,
            })?;
        }
        Ok(made)
    }

    fn add_libraries(&mut self) -> Result<(), Failure> {
        for library in self.report.needed() {
            let (origin, detail) = origin(library.origin());
            self.needed.try_push(CNeeded {
                name: self.strings.add(library.name())?,
                needed_by: self.strings.add(library.needed_by())?,
                is_direct: library.is_direct().into(),
                origin,
                detail: self.strings.add_if(detail)?,
            })?;
        }
        for needed in self.report.needed_versions() {
            self.needed_versions.try_push(CNeededVersion {
                library: self.strings.add(needed.library())?,
                version: self.strings.add(needed.version())?,
                is_weak: needed.is_weak().into(),
            })?;
        }
        Ok(())
    }

    fn add_symbols(&mut self) -> Result<(), Failure> {
        for import in self.report.imports() {
            let (binding, detail) = binding(import.binding());
            self.imports.try_push(CImport {
                index: import.index(),
                name: self.strings.add(import.name())?,
                version: self.strings.add_if(import.version())?,
                kind: number_of_kind(import.kind()),
                is_weak: import.is_weak().into(),
                is_referenced: import.is_referenced().into(),
                binding,
                detail: self.strings.add_if(detail)?,
            })?;
        }
        for export in self.report.exports() {
            self.exports.try_push(CExport {
                index: export.index(),
                name: self.strings.add(export.name())?,
                version: self.strings.add_if(export.version())?,
                is_default_version: export.is_default_version().into(),
                kind: number_of_kind(export.kind()),
                is_weak: export.is_weak().into(),
                is_unique: export.is_unique().into(),
                value: export.value(),
                size: export.size(),
            })?;
        }
        for function in self.report.functions() {
            let name = self.strings.add(function.name())?;
            self.functions.try_push(CFunction::new(function, name))?;
        }
        Ok(())
    }
}

/// [`Loader::inspect`](crate::Loader::inspect).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_inspect(
    bytes: *const c_void,
    len: usize,
    options: *const Options,
) -> *mut ReportHandle {
    give(caught(|| {
        require_memory()?;
        // SAFETY: the header's contract.
        let (bytes, loader) = unsafe { (bytes_of(bytes, len)?, loader_of(options)) };
        ReportHandle::new(loader.inspect(bytes))
    }))
}

/// Frees a report.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_report_free(report: *mut ReportHandle) {
    if !report.is_null() {
        // SAFETY: the header's contract. A report owns no library.
        drop(caught(|| unsafe { take(report, "report") }));
    }
}

/// What `read` finds in a report; `otherwise` for a null one.
///
/// # Safety
/// Null, or a live report.
unsafe fn read<T>(
    report: *const ReportHandle,
    otherwise: T,
    read: impl FnOnce(&ReportHandle) -> T,
) -> T {
    // SAFETY: the caller's promise.
    caught(|| Ok(read(unsafe { handle(report, "report")? }))).unwrap_or(otherwise)
}

/// The item of this index; null behind the last.
fn item<T>(items: &[T], index: usize) -> *const T {
    items.get(index).map_or(ptr::null(), ptr::from_ref)
}

/// As [`item`], of strings.
fn text(items: &[CString], index: usize) -> *const c_char {
    items.get(index).map_or(ptr::null(), |text| text.as_ptr())
}

/// Functions that return a text of the report.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident($report:ident $(, $index:ident)?) => $text:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// The header's contract.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                report: *const ReportHandle
                $(, $index: usize)?
            ) -> *const c_char {
                // SAFETY: the header's contract.
                unsafe { read(report, ptr::null(), |$report| $text) }
            }
        )*
    };
}

texts! {
    /// [`Report::name`].
    memdl_report_name(it) => it.name.as_ptr();
    /// [`Report::machine`].
    memdl_report_machine(it) => pointer(&it.machine);
    /// [`Report::soname`].
    memdl_report_soname(it) => pointer(&it.soname);
    /// The report's text.
    memdl_report_text(it) => it.text.as_ptr();
    /// An element of [`Report::refusals`].
    memdl_report_refusal(it, index) => text(&it.refusals, index);
    /// An element of [`Report::refusals_on_its_machine`].
    memdl_report_refusal_on_its_machine(it, index) => text(&it.refusals_on_its_machine, index);
    /// An element of [`Report::isa_levels`].
    memdl_report_isa_level(it, index) => text(&it.isa_levels, index);
    /// An element of [`Report::debug_information`].
    memdl_report_debug_information(it, index) => text(&it.debug_information, index);
    /// An element of [`Report::defined_versions`].
    memdl_report_defined_version(it, index) => text(&it.defined_versions, index);
}

/// Functions that return an element of a list of the report.
macro_rules! items {
    ($($(#[$doc:meta])* $name:ident => $list:ident: $item:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// The header's contract.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                report: *const ReportHandle,
                index: usize,
            ) -> *const $item {
                // SAFETY: the header's contract.
                unsafe { read(report, ptr::null(), |report| item(&report.$list, index)) }
            }
        )*
    };
}

items! {
    /// An element of [`Report::needed`].
    memdl_report_needed => needed: CNeeded;
    /// An element of [`Report::needed_versions`].
    memdl_report_needed_version => needed_versions: CNeededVersion;
    /// An element of [`Report::relocation_types`].
    memdl_report_relocation_type => relocation_types: CRelocationType;
    /// An element of [`Report::imports`].
    memdl_report_import => imports: CImport;
    /// An element of [`Report::exports`].
    memdl_report_export => exports: CExport;
    /// An element of [`Report::functions`].
    memdl_report_function => functions: CFunction;
    /// An element of [`Report::notes`].
    memdl_report_note => notes: CNote;
}

/// Functions that say whether something holds for the report: 1, 0, or -1 for an error.
macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident => $question:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// The header's contract.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(report: *const ReportHandle) -> c_int {
                // SAFETY: the header's contract.
                unsafe { read(report, -1, |it| it.report.$question().into()) }
            }
        )*
    };
}

answers! {
    /// [`Report::is_refused`].
    memdl_report_is_refused => is_refused;
    /// [`Report::is_complete`].
    memdl_report_is_complete => is_complete;
    /// [`Report::is_for_this_machine`].
    memdl_report_is_for_this_machine => is_for_this_machine;
    /// [`Report::unloads`].
    memdl_report_unloads => unloads;
    /// [`Report::has_unique_symbols`].
    memdl_report_has_unique_symbols => has_unique_symbols;
}

/// [`Report::build_id`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_report_build_id(
    report: *const ReportHandle,
    len: *mut usize,
) -> *const u8 {
    // SAFETY: the header's contract.
    unsafe {
        let (id, id_len) = read(report, (ptr::null(), 0), |it| {
            it.report.build_id().map_or((ptr::null(), 0), |id| (id.as_ptr(), id.len()))
        });
        if let Some(len) = len.as_mut() {
            *len = id_len;
        }
        id
    }
}

/// [`Report::thread_local_storage`].
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_report_thread_local_storage(
    report: *const ReportHandle,
    size: *mut u64,
    align: *mut u64,
    is_static: *mut c_int,
) -> c_int {
    // SAFETY: the header's contract.
    unsafe {
        let found = read(report, Err(()), |it| Ok(it.report.thread_local_storage().copied()));
        let Ok(found) = found else { return -1 };
        let Some(tls) = found else { return 0 };
        if let Some(size) = size.as_mut() {
            *size = tls.size;
        }
        if let Some(align) = align.as_mut() {
            *align = tls.align;
        }
        if let Some(is_static) = is_static.as_mut() {
            *is_static = tls.is_static.into();
        }
        1
    }
}
