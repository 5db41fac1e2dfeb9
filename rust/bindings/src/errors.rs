//! Core's errors as the exceptions of `penstock.errors`.

use penstock_core::error::Error;
use penstock_core::wire;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::decoder::Input;
use crate::json;

/// The exception object; the classes are looked up when the first error comes, not before.
#[cold]
pub(crate) fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let details = &error.details;
    let fields = PyDict::new(py);
    fields.set_item("status_code", details.status)?;
    fields.set_item("code", details.code.as_deref())?;
    fields.set_item("type", details.kind.as_deref())?;
    fields.set_item("param", details.param.as_deref())?;
    fields.set_item("request_id", details.request_id.as_deref())?;
    fields.set_item("retry_after", details.retry_after)?;
    if !details.body.is_empty() {
        let body = json::build_plain(py, &details.body)
            .unwrap_or_else(|_| PyString::new(py, &String::from_utf8_lossy(&details.body)).into_any().unbind());
        fields.set_item("body", body)?;
    }
    let class = py.import("penstock.errors")?.getattr(error.class.name())?;
    class.call((error.message.as_str(),), Some(&fields))
}

/// To raise it; whatever keeps it from being made is raised instead.
#[cold]
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).map_or_else(|failure| failure, PyErr::from_value)
}

#[pyfunction]
#[pyo3(signature = (status, body, /, *, headers = Vec::new(), now = 0.0), text_signature = "(status, body, /, *, headers=(), now=0.0)")]
pub(crate) fn decode_error<'py>(
    py: Python<'py>,
    status: u16,
    body: Input<'py>,
    headers: Vec<(String, String)>,
    now: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    exception(py, &wire::from_response(status, &headers, body.bytes(), now))
}
