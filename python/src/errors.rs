//! Errors of memdl as Python's exceptions.

#![forbid(unsafe_code)]

use memdl::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Names of the Rust API as texts have them, and what they are in Python. The first that fits counts.
const NAMES: &[(&str, &str)] = &[
    (
        "Loader::provide(name, bytes), Loader::provider(..) or Loader::depends_on(&library)",
        "needed={name: bytes}, or with a function as `needed`",
    ),
    ("Loader::define(name, address), Loader::resolver(..)", "define={name: address}"),
    ("Loader::define(name, address)", "define={name: address}"),
    ("Loader::system_libraries(true)", "system_libraries=True"),
    ("system_libraries(false)", "system_libraries=False"),
    ("Loader::debug_info", "debug information"),
];

/// A text of memdl with the names of the Python API.
fn in_python_names(text: &str) -> String {
    NAMES.iter().fold(text.to_owned(), |text, (rust, python)| text.replace(rust, python))
}

/// The code of a kind: the name of the error in `memdl.Error.code`.
fn code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Malformed => "malformed",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Processor => "processor",
        ErrorKind::Missing => "missing",
        ErrorKind::Refused => "refused",
        ErrorKind::RefusedImports => "refused_imports",
        ErrorKind::SymbolNotFound => "symbol_not_found",
        ErrorKind::System => "system",
        ErrorKind::OutOfMemory => "out_of_memory",
        ErrorKind::DebugInfo => "debug_info",
        ErrorKind::Limit => "limit",
        // A kind that a later memdl has.
        _ => "other",
    }
}

/// The arguments of `memdl.Missing`: kind, name, version, needed by, reason.
type Missing<'a> = (&'static str, &'a str, Option<&'a str>, &'a str, Option<&'a str>);

fn missing(error: &Error) -> Vec<Missing<'_>> {
    let Error::Missing { libraries, versions, symbols, .. } = error else { return Vec::new() };
    let libraries = libraries
        .iter()
        .map(|it| ("library", &*it.name, None, &*it.needed_by, it.reason.as_deref()));
    let versions = versions
        .iter()
        .map(|it| ("version", &*it.library, Some(&*it.version), &*it.needed_by, None));
    let symbols =
        symbols.iter().map(|it| ("symbol", &*it.name, it.version.as_deref(), &*it.needed_by, None));
    libraries.chain(versions).chain(symbols).collect()
}

/// The exception `memdl.Error` for an error.
pub fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    // Defined in Python: a class of the stable ABI cannot extend a built-in exception before Python 3.12.
    let module = py.import("memdl._errors")?;
    let class = match error.kind() {
        ErrorKind::SymbolNotFound => "SymbolNotFound",
        _ => "Error",
    };
    let item = module.getattr("Missing")?;
    let missing: Vec<_> =
        missing(error).into_iter().map(|it| item.call1(it)).collect::<PyResult<_>>()?;
    let details = PyDict::new(py);
    details.set_item("code", code(error.kind()))?;
    details.set_item("image", error.image())?;
    details.set_item("missing", PyTuple::new(py, missing)?)?;
    module.getattr(class)?.call((in_python_names(&error.to_string()),), Some(&details))
}

/// An error as what PyO3 raises.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(other) => other,
    }
}
