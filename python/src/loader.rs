//! Load options, and what is done with them.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_void;

use memdl::{Binding, Scope};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::extension;
use crate::library::{Image, Namespace, Template};
use crate::needed::{Failure, provider};
use crate::report::Report;

// As glibc and the module `os` have them.
const RTLD_LAZY: i32 = 1;
const RTLD_DEEPBIND: i32 = 8;
const RTLD_GLOBAL: i32 = 0x100;

/// The bytes of a buffer. Those of another object than `bytes` are copied, since something could change them while
/// they are read.
pub fn bytes_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match data.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => Ok(PyMemoryView::from(data)?.call_method0("tobytes")?.cast_into()?),
    }
}

/// Load options: those of `memdl.load`.
#[pyclass(frozen, module = "memdl._memdl")]
pub struct Loader {
    loader: memdl::Loader,
    failure: Failure,
}

#[pymethods]
impl Loader {
    #[new]
    #[pyo3(signature = (
        *, name=None, needed=None, namespace=None, mode=0, define=None, system_libraries=true, debug=None,
        profile=None, extension=false,
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
    fn new(
        name: Option<String>,
        needed: Option<Bound<'_, PyAny>>,
        namespace: Option<&Namespace>,
        mode: i32,
        define: Option<BTreeMap<String, usize>>,
        system_libraries: bool,
        debug: Option<&str>,
        profile: Option<&str>,
        extension: bool,
    ) -> PyResult<Loader> {
        let mut loader =
            memdl::Loader::new().system_libraries(system_libraries).global(mode & RTLD_GLOBAL != 0);
        if mode & RTLD_LAZY != 0 {
            loader = loader.binding(Binding::Lazy);
        }
        if mode & RTLD_DEEPBIND != 0 {
            loader = loader.scope(Scope::SelfFirst);
        }
        if let Some(name) = name {
            loader = loader.name(name);
        }
        if let Some(namespace) = namespace {
            loader = loader.namespace(&namespace.0);
        }
        for (name, address) in define.into_iter().flatten() {
            loader = loader.define(name, address as *const c_void);
        }
        let unknown = |error: memdl::UnknownWord| PyValueError::new_err(error.to_string());
        if let Some(debug) = debug {
            loader = loader.debug(debug.parse().map_err(unknown)?);
        }
        if let Some(profile) = profile {
            loader = loader.profile(profile.parse().map_err(unknown)?);
        }
        if extension {
            loader = extension::define_services(loader);
        }
        let failure = Failure::default();
        if let Some(needed) = needed {
            loader = loader.provider(provider(&needed, &failure)?);
        }
        Ok(Loader { loader, failure })
    }

    /// Loads a shared library.
    fn load(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Image> {
        let bytes = bytes_of(data)?;
        // SAFETY: the caller of `memdl.load` trusts the library, as with ctypes.
        let load = || unsafe { self.loader.load(bytes.as_bytes()) };
        self.failure.collect(py, load).map(Image::new)
    }

    /// Parses and binds a shared library, from which instances are made.
    fn prepare(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Template> {
        let bytes = bytes_of(data)?;
        // SAFETY: as above, for the libraries that it needs.
        let prepare = || unsafe { self.loader.prepare(bytes.as_bytes()) };
        self.failure.collect(py, prepare).map(Template)
    }

    /// Says what a load would come to.
    fn inspect(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Report> {
        let bytes = bytes_of(data)?;
        let report = self.failure.collect(py, || Ok(self.loader.inspect(bytes.as_bytes())))?;
        Report::of(py, &report)
    }
}
