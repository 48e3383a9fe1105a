//! Looks symbols up, and lists them.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;

use super::errors::{Failure, c_string, caught, pointer, transparent};
use super::library::LibraryHandle;
use super::pointers::{c_str, handle};
use crate::ExportedSymbol;
use crate::FunctionSymbol;
use crate::SymbolKind;
use crate::base::fallible::require_memory;

/// `memdl_symbol`.
#[repr(C)]
pub struct CSymbol {
    name: *const c_char,
    version: *const c_char,
    kind: c_int,
    is_default_version: c_int,
    size: u64,
    address: usize,
}

/// The number of a kind of symbols: gABI `STT_*`.
pub(super) fn number_of_kind(kind: SymbolKind) -> c_int {
    match kind {
        SymbolKind::Other => 0,
        SymbolKind::Object => 1,
        SymbolKind::Function => 2,
        SymbolKind::ThreadLocal => 6,
        SymbolKind::IndirectFunction => 10,
    }
}

/// `memdl_symbol_callback`.
pub type SymbolCallback =
    unsafe extern "C-unwind" fn(symbol: *const CSymbol, user: *mut c_void) -> c_int;

/// `memdl_function_symbol`.
#[repr(C)]
pub struct CFunction {
    index: u32,
    name: *const c_char,
    value: u64,
    is_defined: c_int,
}

impl CFunction {
    /// With its name as a string for C.
    pub(super) fn new(function: &FunctionSymbol, name: *const c_char) -> CFunction {
        CFunction {
            index: function.index(),
            name,
            value: function.value(),
            is_defined: function.is_defined().into(),
        }
    }
}

/// `memdl_function_callback`.
pub type FunctionCallback =
    unsafe extern "C-unwind" fn(function: *const CFunction, user: *mut c_void) -> c_int;

/// Looks a symbol up.
///
/// # Safety
/// The header's contract.
pub(super) unsafe fn symbol(
    library: *const LibraryHandle,
    name: *const c_char,
    version: Option<*const c_char>,
) -> *mut c_void {
    let address = caught(|| {
        // SAFETY: the header's contract. The symbol's type does not matter for its address.
        unsafe {
            let library = &handle(library, "library")?.library;
            let name = c_str(name)?.to_bytes();
            let found = match version {
                None => library.get::<*mut c_void>(name)?,
                Some(version) => library.get_versioned(name, c_str(version)?.to_bytes())?,
            };
            Ok(found.as_raw_ptr())
        }
    });
    address.unwrap_or(ptr::null_mut())
}

/// As `dlsym`.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_sym(
    library: *const LibraryHandle,
    name: *const c_char,
) -> *mut c_void {
    // SAFETY: the header's contract.
    unsafe { symbol(library, name, None) }
}

/// As `dlsym`, for a function. What C calls `memdl_function` is an address like any other here.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_sym_function(
    library: *const LibraryHandle,
    name: *const c_char,
) -> *mut c_void {
    // SAFETY: the header's contract.
    unsafe { symbol(library, name, None) }
}

/// As `dlvsym`.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_symv(
    library: *const LibraryHandle,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    // SAFETY: the header's contract.
    unsafe { symbol(library, name, Some(version)) }
}

thread_local! {
    /// The symbol that `memdl_symbol_at` or `memdl_symbol_named` found last. C may still hold a pointer to it. In a box, as `KEPT` in
    /// `library.rs`.
    static FOUND: RefCell<Option<Box<OwnedSymbol>>> = const { RefCell::new(None) };
}

/// An exported symbol with strings for C.
pub(super) struct OwnedSymbol {
    /// The strings that `c` points to.
    _name: CString,
    _version: Option<CString>,
    c: CSymbol,
}

impl OwnedSymbol {
    pub(super) fn new(symbol: &ExportedSymbol<'_>) -> Result<OwnedSymbol, Failure> {
        let name = c_string(symbol.name())?;
        let version = symbol.version().map(c_string).transpose()?;
        let c = CSymbol {
            name: name.as_ptr(),
            version: pointer(&version),
            kind: number_of_kind(symbol.kind()),
            is_default_version: symbol.is_default_version().into(),
            size: symbol.size(),
            address: symbol.address(),
        };
        Ok(OwnedSymbol { _name: name, _version: version, c })
    }
}

/// [`Library::symbols`](crate::Library::symbols), with a callback.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_symbols(
    library: *const LibraryHandle,
    callback: Option<SymbolCallback>,
    user: *mut c_void,
) -> c_int {
    let input = caught(|| {
        // SAFETY: the header's contract.
        let library = &unsafe { handle(library, "library")? }.library;
        Ok((library.symbols(), callback.ok_or("the callback is null")?))
    });
    let Some((symbols, callback)) = input else { return -1 };
    let owned = symbols.map(|symbol| OwnedSymbol::new(&symbol));
    // SAFETY: the header's contract; the symbol and its strings live during the call.
    visit(owned, |symbol| unsafe { callback(&symbol.c, user) })
}

/// [`Library::functions`](crate::Library::functions), with a callback.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn memdl_functions(
    library: *const LibraryHandle,
    callback: Option<FunctionCallback>,
    user: *mut c_void,
) -> c_int {
    let input = caught(|| {
        // SAFETY: the header's contract.
        let library = &unsafe { handle(library, "library")? }.library;
        Ok((library.functions()?, callback.ok_or("the callback is null")?))
    });
    let Some((functions, callback)) = input else { return -1 };
    let named = functions.iter().map(|function| Ok((c_string(function.name())?, function)));
    visit(named, |(name, function)| {
        let c = CFunction::new(function, name.as_ptr());
        // SAFETY: the header's contract; the function and its name live during the call.
        unsafe { callback(&c, user) }
    })
}

/// Calls `callback` with all items, until it answers something else than 0.
fn visit<T>(
    mut items: impl Iterator<Item = Result<T, Failure>>,
    mut callback: impl FnMut(&T) -> c_int,
) -> c_int {
    loop {
        match caught(|| items.next().transpose()) {
            None => return -1,
            Some(None) => return 0,
            Some(Some(item)) => {
                let answer = transparent(|| callback(&item));
                if answer != 0 {
                    return answer;
                }
            }
        }
    }
}

/// [`Library::symbol_at`](crate::Library::symbol_at).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_symbol_at(
    library: *const LibraryHandle,
    address: *const c_void,
) -> *const CSymbol {
    let found = caught(|| {
        // SAFETY: the header's contract.
        let library = &unsafe { handle(library, "library")? }.library;
        let symbol = library
            .symbol_at(address.addr())
            .ok_or_else(|| format!("{}: no exported symbol is at {address:p}", library.name()))?;
        kept(&symbol)
    });
    found.unwrap_or(ptr::null())
}

/// [`Library::symbol`](crate::Library::symbol).
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_symbol_named(
    library: *const LibraryHandle,
    name: *const c_char,
) -> *const CSymbol {
    let found = caught(|| {
        // SAFETY: the header's contract.
        let (library, name) = unsafe { (&handle(library, "library")?.library, c_str(name)?) };
        let symbol = library.symbol(name).ok_or_else(|| {
            format!("{}: no exported symbol is named `{}`", library.name(), name.to_string_lossy())
        })?;
        kept(&symbol)
    });
    found.unwrap_or(ptr::null())
}

/// A symbol that lives until the thread's next one.
fn kept(symbol: &ExportedSymbol<'_>) -> Result<*const CSymbol, Failure> {
    let symbol = OwnedSymbol::new(symbol)?;
    require_memory()?;
    let kept = FOUND.try_with(|found| {
        let mut found = found.try_borrow_mut().ok()?;
        Some(&raw const found.insert(Box::new(symbol)).c)
    });
    kept.ok().flatten().ok_or_else(|| "the thread is ending".into())
}
