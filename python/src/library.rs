//! Libraries, templates and namespaces.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};

use memdl::{Closed, DebugLevel, Provided};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::raised;

/// Images that find each other by name and by file.
#[pyclass(frozen, module = "memdl")]
pub struct Namespace(pub memdl::Namespace);

#[pymethods]
impl Namespace {
    #[new]
    fn new() -> Namespace {
        Namespace(memdl::Namespace::new())
    }
}

/// A library that is loaded.
///
/// It stays loaded unless it is closed, as with ctypes: Python does not know who has an address of it.
#[pyclass(frozen, module = "memdl._memdl")]
pub struct Image {
    /// The name, also once it is closed.
    name: String,
    library: Mutex<Option<ManuallyDrop<Arc<memdl::Library>>>>,
}

impl Image {
    pub fn new(library: memdl::Library) -> Image {
        let name = library.name().to_owned();
        Image { name, library: Mutex::new(Some(ManuallyDrop::new(Arc::new(library)))) }
    }

    /// The library. No lock is held while it is used, since its code may run.
    fn library(&self) -> PyResult<Arc<memdl::Library>> {
        let library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        match &*library {
            Some(library) => Ok(Arc::clone(library)),
            None => Err(PyValueError::new_err(format!("{}: the library is closed", self.name))),
        }
    }

    /// The library, for another one that needs it.
    pub fn provided(&self) -> PyResult<Provided> {
        Ok(Provided::from(&*self.library()?))
    }
}

#[pymethods]
impl Image {
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    #[getter]
    fn soname(&self) -> PyResult<Option<String>> {
        Ok(self.library()?.soname().map(str::to_owned))
    }

    #[getter]
    fn load_bias(&self) -> PyResult<usize> {
        Ok(self.library()?.load_bias())
    }

    /// The first address, and the one behind the last.
    #[getter]
    fn address_range(&self) -> PyResult<(usize, usize)> {
        let range = self.library()?.address_range();
        Ok((range.start, range.end))
    }

    #[getter]
    fn debug(&self) -> PyResult<String> {
        Ok(self.library()?.debug().to_string())
    }

    fn set_debug(&self, py: Python<'_>, level: &str) -> PyResult<()> {
        let level: DebugLevel = level
            .parse()
            .map_err(|error: memdl::UnknownWord| PyValueError::new_err(error.to_string()))?;
        self.library()?.set_debug(level).map_err(|error| raised(py, &error))
    }

    fn make_global(&self, py: Python<'_>) -> PyResult<()> {
        self.library()?.make_global().map_err(|error| raised(py, &error))
    }

    /// The names of the exported symbols.
    fn symbols(&self) -> PyResult<Vec<String>> {
        Ok(self.library()?.symbols().map(|symbol| symbol.name().to_owned()).collect())
    }

    /// The address of a symbol, as `dlsym` gives it.
    #[pyo3(signature = (name, version=None))]
    pub fn address(&self, py: Python<'_>, name: &str, version: Option<&str>) -> PyResult<usize> {
        let library = self.library()?;
        // SAFETY: the address is only passed on. A resolver of an IFUNC may run: whoever has loaded the library
        // trusts its code.
        let symbol = unsafe {
            match version {
                None => library.get::<*const ()>(name),
                Some(version) => library.get_versioned::<*const ()>(name, version),
            }
        };
        symbol.map(|symbol| symbol.as_raw_ptr().addr()).map_err(|error| raised(py, &error))
    }

    /// Unloads the library. Returns what still keeps it, or `None`.
    fn close(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let library = self.library.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(library) = library.map(ManuallyDrop::into_inner) else { return Ok(None) };
        // A lookup in another thread that is not over drops it, and so closes it.
        let Ok(library) = Arc::try_unwrap(library) else { return Ok(None) };
        match library.close().map_err(|error| raised(py, &error))? {
            Closed::Unloaded => Ok(None),
            kept => Ok(Some(kept.to_string())),
        }
    }
}

/// A library that is parsed and bound.
#[pyclass(frozen, module = "memdl._memdl")]
pub struct Template(pub memdl::Template);

#[pymethods]
impl Template {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }

    /// Makes one more instance, and runs its constructors.
    fn instantiate(&self, py: Python<'_>) -> PyResult<Image> {
        // SAFETY: whoever has prepared it trusts the library.
        let library = unsafe { self.0.instantiate() };
        library.map(Image::new).map_err(|error| raised(py, &error))
    }
}
