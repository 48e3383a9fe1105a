//! The native half of the Python package `memdl`: the Rust API as Python sees it, and the initialisation of extension
//! modules.
//!
//! What is ctypes' or importlib's business is in Python (`memdl/`). No function here releases the GIL while code of a
//! library may run: constructors may use Python's API, and CPython holds the GIL when it calls `dlopen`, both in
//! ctypes and in the import of extension modules.

#![deny(unsafe_code)]

mod errors;
mod extension;
mod library;
mod loader;
mod needed;
mod report;

use pyo3::prelude::*;

/// The native half of the package `memdl`. Use that.
#[pymodule]
mod _memdl {
    #[pymodule_export]
    use crate::extension::{create_module, recreate_module};
    #[pymodule_export]
    use crate::library::{Image, Namespace, Template};
    #[pymodule_export]
    use crate::loader::Loader;
    #[pymodule_export]
    use crate::needed::LibraryRequest;
    #[pymodule_export]
    use crate::report::{ImageInfo, Report, images};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
