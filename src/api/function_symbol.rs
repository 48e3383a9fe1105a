//! Function symbols of an image, by their number: [`FunctionSymbol`].

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_lossy};
use crate::elf::constants::STT_FUNC;
use crate::elf::symbol_table::SymbolTable;

/// A function symbol (`STT_FUNC`), defined or not: an element of [`Report::functions`](crate::Report::functions) and of
/// [`Library::functions`](crate::Library::functions).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionSymbol {
    index: u32,
    name: String,
    value: u64,
    is_defined: bool,
}

impl FunctionSymbol {
    /// Its index in the dynamic symbol table.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// let function = report.functions().iter().find(|it| it.name() == "foo").unwrap();
    /// let export = report.exports().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(function.index(), export.index());
    /// ```
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name, not demangled.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let function = &report.functions().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(function.name(), "foo");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `st_value`: the address that the file states, relative to the load bias. 0 if it is not defined.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let function = &report.functions().iter().find(|it| it.name() == "getpid").unwrap();
    /// assert_eq!(function.name(), "getpid");
    /// assert_eq!(function.value(), 0); // it is imported
    /// ```
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Whether the library defines it. Else it imports it.
    ///
    /// ```
    /// # let report = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/report.rs"));
    /// # let function = &report.functions().iter().find(|it| it.name() == "foo").unwrap();
    /// assert_eq!(function.name(), "foo");
    /// assert!(function.is_defined());
    /// ```
    pub fn is_defined(&self) -> bool {
        self.is_defined
    }
}

/// All function symbols of the table, in its order.
pub(super) fn function_symbols(table: &SymbolTable<'_>) -> Result<Vec<FunctionSymbol>, Error> {
    let mut functions = Vec::new();
    for (index, symbol) in table.all().filter(|(_, symbol)| symbol.kind() == STT_FUNC) {
        // Thousands of symbols may share one long name.
        table.check_work()?;
        require_memory_for_next(functions.len())?;
        let name = try_lossy(table.string(symbol.st_name).unwrap_or(b""))?;
        let (value, is_defined) = (symbol.st_value, !symbol.is_undefined());
        functions.try_push(FunctionSymbol { index, name, value, is_defined })?;
    }
    Ok(functions)
}
