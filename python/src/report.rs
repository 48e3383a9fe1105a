//! What is known of a library before a load, and of what is loaded.

#![forbid(unsafe_code)]

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::exception;

/// A build-id as `readelf -n` shows it.
fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a library is, needs and offers, and every reason for which a load would be refused.
#[pyclass(frozen, get_all, module = "memdl")]
pub struct Report {
    name: String,
    /// The number of bytes.
    size: u64,
    machine: Option<String>,
    is_for_this_machine: bool,
    soname: Option<String>,
    rpath: Option<String>,
    runpath: Option<String>,
    build_id: Option<String>,
    /// The names of the libraries that it needs, directly.
    needed: Vec<String>,
    /// The names of symbols.
    imports: Vec<String>,
    exports: Vec<String>,
    debug_information: Vec<String>,
    /// `memdl.Error`s.
    refusals: Py<PyTuple>,
    text: String,
}

impl Report {
    pub fn of(py: Python<'_>, report: &memdl::Report) -> PyResult<Report> {
        let refusals: Vec<_> =
            report.refusals().iter().map(|error| exception(py, error)).collect::<PyResult<_>>()?;
        let text = |text: Option<&str>| text.map(str::to_owned);
        let direct = report.needed().iter().filter(|needed| needed.is_direct());
        Ok(Report {
            name: report.name().to_owned(),
            size: report.size(),
            machine: text(report.machine()),
            is_for_this_machine: report.is_for_this_machine(),
            soname: text(report.soname()),
            rpath: text(report.rpath()),
            runpath: text(report.runpath()),
            build_id: report.build_id().map(hex),
            needed: direct.map(|needed| needed.name().to_owned()).collect(),
            imports: report.imports().iter().map(|it| it.name().to_owned()).collect(),
            exports: report.exports().iter().map(|it| it.name().to_owned()).collect(),
            debug_information: report.debug_information().iter().map(ToString::to_string).collect(),
            refusals: PyTuple::new(py, refusals)?.unbind(),
            text: report.to_string(),
        })
    }
}

#[pymethods]
impl Report {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let refused = if self.refusals.bind(py).is_empty() { "" } else { ", refused" };
        format!("<memdl.Report {:?}, {} bytes{refused}>", self.name, self.size)
    }
}

/// An image that is loaded.
#[pyclass(frozen, get_all, module = "memdl")]
pub struct ImageInfo {
    name: String,
    /// The first address.
    start: usize,
    /// The address behind the last one.
    end: usize,
    load_bias: usize,
    build_id: Option<String>,
    debug: String,
    template: Option<u64>,
    load: u64,
    holders: usize,
    text: String,
}

#[pymethods]
impl ImageInfo {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("<memdl.ImageInfo {}>", self.text)
    }
}

/// All images that memdl has loaded, in the order of their loads.
#[pyfunction]
pub fn images() -> Vec<ImageInfo> {
    let info = |image: &memdl::ImageInfo| ImageInfo {
        name: image.name().to_owned(),
        start: image.address_range().start,
        end: image.address_range().end,
        load_bias: image.load_bias(),
        build_id: image.build_id().map(hex),
        debug: image.debug().to_string(),
        template: image.template(),
        load: image.load(),
        holders: image.holders(),
        text: image.to_string(),
    };
    memdl::images().iter().map(info).collect()
}
