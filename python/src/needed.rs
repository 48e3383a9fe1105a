//! Needed libraries that Python supplies: by a mapping, or by a function.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memdl::{ImageBuffer, Provided};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyTuple};

use crate::library::Image;
use crate::loader::bytes_of;

/// A library that something needs: what the function `needed` is called with.
#[pyclass(frozen, get_all, module = "memdl", skip_from_py_object)]
#[derive(Clone)]
pub struct LibraryRequest {
    /// The name, as the `DT_NEEDED` entry or the call of `dlopen` has it.
    name: String,
    /// The name of the library that needs it.
    needed_by: String,
    /// The folders in which that has it searched (`DT_RUNPATH`, `DT_RPATH`), with `$ORIGIN` replaced.
    folders: Vec<String>,
}

#[pymethods]
impl LibraryRequest {
    fn __repr__(&self) -> String {
        let LibraryRequest { name, needed_by, folders } = self;
        format!("<memdl.LibraryRequest {name:?} needed by {needed_by:?} in {folders:?}>")
    }
}

/// What the function `needed` has raised.
#[derive(Clone, Default)]
pub struct Failure(Arc<Raised>);

#[derive(Default)]
struct Raised {
    /// The first exception of the load.
    first: Mutex<Option<PyErr>>,
    /// A load is on the stack, and can raise it.
    is_loading: AtomicBool,
}

impl Failure {
    /// Runs a load. What `needed` raises meanwhile is the error.
    pub fn collect<T>(
        &self,
        py: Python<'_>,
        load: impl FnOnce() -> Result<T, memdl::Error>,
    ) -> PyResult<T> {
        self.0.is_loading.store(true, Ordering::Relaxed);
        let result = load();
        self.0.is_loading.store(false, Ordering::Relaxed);
        let raised = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match raised {
            Some(error) => Err(error),
            None => result.map_err(|error| crate::errors::raised(py, &error)),
        }
    }

    /// Keeps an exception for the load, and returns the reason for which the library is not supplied.
    fn reason(&self, py: Python<'_>, error: PyErr) -> String {
        let reason = error.to_string();
        if self.0.is_loading.load(Ordering::Relaxed) {
            let mut first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        } else {
            // An image has called `dlopen`. What it gets is the reason alone.
            error.write_unraisable(py, None);
        }
        reason
    }
}

type Answer = PyResult<Option<Provided>>;

/// What supplies needed libraries, from `needed`: a mapping from names to libraries, or a function of the request.
pub fn provider(
    needed: &Bound<'_, PyAny>,
    failure: &Failure,
) -> PyResult<impl Fn(&memdl::LibraryRequest<'_>) -> Option<Provided> + Send + Sync + 'static> {
    let is_mapping = needed.cast::<PyMapping>().is_ok();
    if !is_mapping && !needed.is_callable() {
        let text = "`needed` is neither a mapping from names to bytes, nor a function";
        return Err(PyTypeError::new_err(text));
    }
    let (needed, failure) = (needed.clone().unbind(), failure.clone());
    Ok(move |request: &memdl::LibraryRequest<'_>| {
        // An image may call `dlopen` when Python has ended.
        Python::try_attach(|py| {
            let needed = needed.bind(py);
            let answer = match needed.cast::<PyMapping>() {
                Ok(mapping) if is_mapping => from_mapping(mapping, request.name()),
                _ => from_function(needed, request),
            };
            answer.unwrap_or_else(|error| Some(Provided::failed(failure.reason(py, error))))
        })
        .flatten()
    })
}

fn from_mapping(mapping: &Bound<'_, PyMapping>, name: &str) -> Answer {
    match mapping.contains(name)? {
        true => provided(&mapping.get_item(name)?),
        false => Ok(None),
    }
}

fn from_function(function: &Bound<'_, PyAny>, request: &memdl::LibraryRequest<'_>) -> Answer {
    let request = LibraryRequest {
        name: request.name().to_owned(),
        needed_by: request.needed_by().to_owned(),
        folders: request.folders().map(|it| it.to_string_lossy().into_owned()).collect(),
    };
    provided(&function.call1((request,))?)
}

/// What Python supplies: nothing, a library, bytes, or a name and bytes.
fn provided(answer: &Bound<'_, PyAny>) -> Answer {
    if answer.is_none() {
        return Ok(None);
    }
    if let Ok(pair) = answer.cast::<PyTuple>() {
        let (name, data): (String, Bound<'_, PyAny>) = pair.extract()?;
        return Ok(Some(provided_bytes(&data)?.named(name)));
    }
    // `memdl.Library` has one.
    if let Ok(image) = answer.getattr("_image") {
        return image.cast::<Image>()?.get().provided().map(Some);
    }
    provided_bytes(answer).map(Some)
}

/// Bytes, copied to where the image runs.
fn provided_bytes(data: &Bound<'_, PyAny>) -> PyResult<Provided> {
    let bytes = bytes_of(data)?;
    let raised = |error: memdl::Error| crate::errors::raised(data.py(), &error);
    let mut buffer = ImageBuffer::new(bytes.as_bytes().len()).map_err(raised)?;
    buffer.copy_from_slice(bytes.as_bytes());
    Ok(Provided::from(buffer))
}
