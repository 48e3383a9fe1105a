//! The debug level of loaded images, changed by the program, or by a person at a debugger's prompt.
//!
//! At the prompt one calls a C function in the process: `print memdl_debug_full()`. A debugger finds it by
//! name, and does not call it unless it knows the return type. Hosts are usually built without debug
//! information; if they have any, gdb looks Rust functions up in Rust modules only. So the functions are
//! written in assembly, with a description of their own in DWARF, and jump to Rust at once. Linkers do
//! not drop them ([`keep`]). A stopped thread may hold any lock, so these functions wait for none of
//! memdl's.
//!
//! Source: DWARF 5, 3.1.1 (compilation units), 3.3 (subroutines), 7.5 (their encoding).

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fmt::Display;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::arch;
use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::base::limits::Limits;
use crate::base::shared;
use crate::debug::{self, DebugLevel, Instances, Source, SymfileError, SymfileTemplate};
use crate::images::group::{ImageRef, LoadedImage};
use crate::images::registry;
use crate::load::debug_source::with_debug_source;

// The functions, weak and hidden like the symbols in `debug/gdb_jit.rs`, for the same reasons; and their
// description. It has sections of its own, since the compiler's sections of the same name must begin with
// the compiler's contents. Linkers join them.
#[cfg(not(feature = "exported-debug-symbols"))]
std::arch::global_asm!(
    ".macro memdl_function name, goes_on_to",
    ".ifndef \\name",
    ".pushsection .text.\\name,\"ax\",@progbits",
    ".weak \\name",
    ".hidden \\name",
    ".type \\name,@function",
    "\\name:",
    ".cfi_startproc",
    arch::jump_instruction!("\\goes_on_to"),
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".popsection",
    ".endif",
    ".endm",
    "memdl_function memdl_debug_full, {full}",
    "memdl_function memdl_debug_portable, {portable}",
    "memdl_function memdl_debug_symbols, {symbols}",
    "memdl_function memdl_debug_full_at, {full_at}",
    "memdl_function memdl_debug_file, {file}",
    // Link-time optimisation puts the assembly of other copies of memdl behind this one.
    ".purgem memdl_function",
    full = sym on_full,
    portable = sym on_portable,
    symbols = sym on_symbols,
    full_at = sym on_full_at,
    file = sym on_file,
);

std::arch::global_asm!(
    ".pushsection .debug_abbrev,\"\",@progbits,unique,1",
    ".Lmemdl_abbrev{own}:",
    // 1: DW_TAG_compile_unit with children: DW_AT_language data1, DW_AT_name string
    ".byte 1, 0x11, 1, 0x13, 0x0b, 0x03, 0x08, 0, 0",
    // 2: DW_TAG_base_type: DW_AT_name string, DW_AT_byte_size data1, DW_AT_encoding data1
    ".byte 2, 0x24, 0, 0x03, 0x08, 0x0b, 0x0b, 0x3e, 0x0b, 0, 0",
    // 3: DW_TAG_pointer_type, to void: DW_AT_byte_size data1
    ".byte 3, 0x0f, 0, 0x0b, 0x0b, 0, 0",
    // 4: DW_TAG_subprogram with children: DW_AT_external, DW_AT_prototyped flag_present,
    // DW_AT_type ref4, DW_AT_high_pc data1, DW_AT_low_pc addr, DW_AT_name string
    ".byte 4, 0x2e, 1, 0x3f, 0x19, 0x27, 0x19, 0x49, 0x13, 0x12, 0x0b, 0x11, 0x01, 0x03, 0x08, 0, 0",
    // 5: DW_TAG_formal_parameter: DW_AT_type ref4
    ".byte 5, 0x05, 0, 0x49, 0x13, 0, 0",
    // 6: DW_TAG_pointer_type: DW_AT_byte_size data1, DW_AT_type ref4
    ".byte 6, 0x0f, 0, 0x0b, 0x0b, 0x49, 0x13, 0, 0",
    // 7: DW_TAG_const_type: DW_AT_type ref4
    ".byte 7, 0x26, 0, 0x49, 0x13, 0, 0",
    ".byte 0",
    ".popsection",
    ".pushsection .debug_info,\"\",@progbits,unique,1",
    ".Lmemdl_unit{own}:",
    ".4byte .Lmemdl_unit_end{own} - .Lmemdl_version{own}",
    ".Lmemdl_version{own}:",
    ".2byte 4",
    ".4byte .Lmemdl_abbrev{own}",
    ".byte 8",
    // DW_LANG_C99
    ".byte 1, 0x0c",
    ".asciz \"memdl\"",
    // DW_ATE_signed
    ".Lmemdl_int{own}:",
    ".byte 2",
    ".asciz \"int\"",
    ".byte 4, 5",
    ".Lmemdl_pointer{own}:",
    ".byte 3, 8",
    // DW_ATE_signed_char
    ".Lmemdl_char{own}:",
    ".byte 2",
    ".asciz \"char\"",
    ".byte 1, 6",
    ".Lmemdl_const_char{own}:",
    ".byte 7",
    ".4byte .Lmemdl_char{own} - .Lmemdl_unit{own}",
    ".Lmemdl_text{own}:",
    ".byte 6, 8",
    ".4byte .Lmemdl_const_char{own} - .Lmemdl_unit{own}",
    ".macro memdl_describe function",
    ".byte 4",
    ".4byte .Lmemdl_int{own} - .Lmemdl_unit{own}",
    ".byte 1",
    ".8byte \\function",
    ".asciz \"\\function\"",
    ".endm",
    "memdl_describe memdl_debug_full",
    ".byte 0",
    "memdl_describe memdl_debug_portable",
    ".byte 0",
    "memdl_describe memdl_debug_symbols",
    ".byte 0",
    "memdl_describe memdl_debug_full_at",
    ".byte 5",
    ".4byte .Lmemdl_pointer{own} - .Lmemdl_unit{own}",
    ".byte 0",
    "memdl_describe memdl_debug_file",
    ".purgem memdl_describe",
    ".byte 5",
    ".4byte .Lmemdl_text{own} - .Lmemdl_unit{own}",
    ".byte 0",
    // The end of the unit's children.
    ".byte 0",
    ".Lmemdl_unit_end{own}:",
    ".popsection",
    own = sym on_full,
);

/// Sets the debug level of an image.
pub(crate) fn set_debug(loaded: &LoadedImage, debug: DebugLevel) -> Result<(), Error> {
    require_memory()?;
    // Shared pages take no breakpoints.
    if debug != DebugLevel::Off && loaded.debug.debug() == DebugLevel::Off {
        loaded.mapping.make_private().map_err(|error| error.in_image(&loaded.name))?;
    }
    loaded.debug.set(debug, || symfile(loaded, None))
}

/// The symfile of a loaded image, from its memory and `file`.
fn symfile(loaded: &LoadedImage, file: Option<&[u8]>) -> Result<SymfileTemplate, SymfileError> {
    let allowance = loaded.debug.allowance(file.map_or(0, <[u8]>::len));
    let dwarf = loaded.debug.debug().dwarf();
    let make =
        |source: &Source<'_>| debug::symfile_template(source, Instances::One, allowance, dwarf);
    with_debug_source(&loaded.decoded, file, &loaded.mapping, &loaded.symbols(), make)
        .unwrap_or_else(|error| Err(debug::refused_memory(error)))
}

/// Registers an image again at its level, with the debug information in `file`, its debug file. Nothing
/// changes if the file is another image's.
pub(crate) fn set_debug_info(loaded: &LoadedImage, file: &[u8]) -> Result<(), Error> {
    require_memory()?;
    let refused = |what: &dyn Display| Error::DebugInfo {
        image: loaded.name.to_string(),
        what: what.to_string(),
    };
    if debug::is_package(file) {
        return Err(refused(&"a package of split DWARF must be there when the image is loaded"));
    }
    // The image's bytes, which a `.gnu_debuglink` would be in, are not kept.
    let (image, notes) = (&[], loaded.decoded.notes(&loaded.mapping));
    debug::check_separate(image, notes, file).map_err(|fault| refused(&fault))?;
    let failed = |fault: SymfileError| match fault {
        other if other.is_without_memory() => debug::memory_error(other).in_image(&loaded.name),
        other => refused(&other),
    };
    let made = symfile(loaded, Some(file)).map_err(failed)?;
    if let Some(fault) = made.fault() {
        debug::warn_of_names_only(&loaded.name, fault);
    }
    loaded.debug.replace(made).map_err(failed)?;
    loaded.read.forget();
    Ok(())
}

/// Keeps the functions in the object that memdl is linked into.
pub(crate) fn keep() {
    let functions = [memdl_debug_full, memdl_debug_portable, memdl_debug_symbols];
    black_box(functions as [unsafe extern "C" fn() -> c_int; 3]);
    black_box(memdl_debug_full_at as unsafe extern "C" fn(*const c_void) -> c_int);
    black_box(memdl_debug_file as unsafe extern "C" fn(*const c_char) -> c_int);
}

/// Makes this copy's images known to the functions of all copies. Called once.
pub(crate) fn set_up() {
    shared::register(&COPY);
}

/// What the functions return if a thread is in the middle of a load or an unload.
const BUSY: c_int = -1;
/// What `memdl_debug_file` returns if there is no such file.
const NO_FILE: c_int = -2;

#[cfg(not(feature = "exported-debug-symbols"))]
unsafe extern "C" {
    /// Registers every image in full ([`DebugLevel::Full`]). Returns the number of images, or -1 if a thread is in
    /// the middle of a load or an unload: let the process continue and try again.
    fn memdl_debug_full() -> c_int;
    /// As `memdl_debug_full`, in the form that lldb reads ([`DebugLevel::Portable`]).
    fn memdl_debug_portable() -> c_int;
    /// As `memdl_debug_full`, but names only ([`DebugLevel::Symbols`]): for a debugger that reads much at each
    /// event, and is slow.
    fn memdl_debug_symbols() -> c_int;
    /// As `memdl_debug_full`, for the image that `address` lies in:
    /// `print memdl_debug_full_at($pc)`.
    fn memdl_debug_full_at(address: *const c_void) -> c_int;
    /// Registers in full the images that this debug file belongs to by its build-id:
    /// `print memdl_debug_file("/tmp/libfoo.debug")`, a path on the machine of the process. Returns the number
    /// of images, -1 as `memdl_debug_full`, or -2 if the file cannot be read.
    fn memdl_debug_file(path: *const c_char) -> c_int;
}

// The same, where they are exported.
#[cfg(feature = "exported-debug-symbols")]
macro_rules! exported {
    ($($name:ident($($argument:ident: $type:ty)?) goes on to $function:ident;)*) => {$(
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name($($argument: $type)?) -> c_int {
            std::arch::naked_asm!(arch::jump_instruction!("{}"), sym $function)
        }
    )*};
}

#[cfg(feature = "exported-debug-symbols")]
exported! {
    memdl_debug_full() goes on to on_full;
    memdl_debug_portable() goes on to on_portable;
    memdl_debug_symbols() goes on to on_symbols;
    memdl_debug_full_at(_address: *const c_void) goes on to on_full_at;
    memdl_debug_file(_path: *const c_char) goes on to on_file;
}

// The numbers of the functions, which other versions of memdl rely on (`base/shared.rs`).
const FULL: c_int = 0;
const PORTABLE: c_int = 1;
const SYMBOLS: c_int = 2;
const FULL_AT: c_int = 3;
const FILE: c_int = 4;

extern "C" fn on_full() -> c_int {
    shared::run_in_each(FULL, ptr::null())
}

extern "C" fn on_portable() -> c_int {
    shared::run_in_each(PORTABLE, ptr::null())
}

extern "C" fn on_symbols() -> c_int {
    shared::run_in_each(SYMBOLS, ptr::null())
}

extern "C" fn on_full_at(address: *const c_void) -> c_int {
    shared::run_in_each(FULL_AT, address)
}

extern "C" fn on_file(path: *const c_char) -> c_int {
    if path.is_null() {
        return NO_FILE;
    }
    shared::run_in_each(FILE, path.cast())
}

/// This copy of memdl, for all that are linked into the same object.
static COPY: shared::Copy = shared::Copy::new(run_own);

/// Runs the function of this number on this copy's images. `argument` is the function's.
extern "C" fn run_own(function: c_int, argument: *const c_void) -> c_int {
    match function {
        FULL => for_each_image(|loaded| set_debug_or_names(loaded, DebugLevel::Full)),
        PORTABLE => for_each_image(|loaded| set_debug_or_names(loaded, DebugLevel::Portable)),
        SYMBOLS => for_each_image(|loaded| set_debug_or_names(loaded, DebugLevel::Symbols)),
        FULL_AT => {
            let address = argument.addr();
            for_each_image(|loaded| {
                let is_there = loaded.mapping.address_range().contains(&address);
                is_there && set_debug_or_names(loaded, DebugLevel::Full)
            })
        }
        // SAFETY: a C string, by the contract of the function; the debugger puts it into the process.
        FILE => set_debug_of_file(unsafe { CStr::from_ptr(argument.cast()) }),
        // A function of a later version.
        _ => 0,
    }
}

fn set_debug_of_file(path: &CStr) -> c_int {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let file = match debug::read_separate(path, Limits::default().image_bytes) {
        Ok(file) => file,
        Err(error) => {
            logged!(warn, "{}: {error}", path.display());
            return NO_FILE;
        }
    };
    for_each_image(|loaded| {
        let known = set_debug_info(loaded, &file);
        known.inspect_err(|error| logged!(debug, "{}: {error}", path.display())).is_ok()
            && (loaded.debug.debug() == DebugLevel::Portable
                || set_debug(loaded, DebugLevel::Full).is_ok())
    })
}

/// Sets the debug level of an image, or names only if that fails. Whether it did.
fn set_debug_or_names(loaded: &LoadedImage, debug: DebugLevel) -> bool {
    set_debug(loaded, debug).or_else(|_| set_debug(loaded, DebugLevel::Symbols)).is_ok()
}

/// Calls `change` for each image. Returns the number of images that it changed, or [`BUSY`].
fn for_each_image(change: impl Fn(&LoadedImage) -> bool) -> c_int {
    let is_free = !debug::is_busy();
    let Some(images) = registry::all_images_if_free().filter(|_| is_free) else {
        return BUSY;
    };
    let mut changed: c_int = 0;
    for loaded in images.iter().map(ImageRef::image) {
        if loaded.debug.is_busy() {
            return BUSY;
        }
        changed = changed.saturating_add(change(loaded).into());
    }
    changed
}
