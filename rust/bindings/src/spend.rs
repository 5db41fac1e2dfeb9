//! What one request came to, as a mapping, and as the columns that it is in a database.

use penstock_gateway::ledger::{Attempt, Row};
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

/// Nano-dollars in a dollar, and dollars that one request can cost at most.
const NANO: f64 = 1e9;
const MOST: f64 = 1e9;

const NAMES: [&str; 26] = [
    "id",
    "started",
    "seconds",
    "first_token",
    "key",
    "route",
    "group",
    "deployment",
    "provider",
    "model",
    "stream",
    "outcome",
    "status",
    "error",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "usage_complete",
    "cost",
    "chunks",
    "attempts",
    "user",
    "trace",
];

#[pyclass(frozen, mapping, module = "penstock._native")]
pub(crate) struct SpendRow {
    row: Box<Row>,
    /// Whoever logs it wants them, and whoever writes it.
    record: PyOnceLock<Py<PyTuple>>,
}

impl SpendRow {
    pub(crate) fn new(row: Box<Row>) -> Self {
        Self { row, record: PyOnceLock::new() }
    }

    /// None: there is no such name.
    fn find<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        fn of<'py, T: IntoPyObject<'py>>(py: Python<'py>, value: T) -> PyResult<Option<Bound<'py, PyAny>>> {
            value.into_bound_py_any(py).map(Some)
        }
        let row = &*self.row;
        match name {
            "id" => of(py, &row.id),
            "started" => of(py, row.started),
            "seconds" => of(py, row.seconds),
            "first_token" => of(py, row.first_token),
            "key" => of(py, &row.key),
            "route" => of(py, row.route),
            "group" => of(py, &row.group),
            "deployment" => of(py, &row.deployment),
            "provider" => of(py, &row.provider),
            "model" => of(py, &row.model),
            "stream" => of(py, row.stream),
            "outcome" => of(py, row.outcome),
            "status" => of(py, row.status),
            "error" => of(py, row.error),
            "prompt_tokens" => of(py, row.prompt_tokens),
            "completion_tokens" => of(py, row.completion_tokens),
            "total_tokens" => of(py, row.total_tokens),
            "cached_tokens" => of(py, row.cached_tokens),
            "cache_write_tokens" => of(py, row.cache_write_tokens),
            "reasoning_tokens" => of(py, row.reasoning_tokens),
            "usage_complete" => of(py, row.usage_complete),
            "cost" => of(py, row.cost),
            "chunks" => of(py, row.chunks),
            "attempts" => {
                let attempts: PyResult<Vec<_>> = row.attempts.iter().map(|attempt| told(py, attempt)).collect();
                of(py, attempts?)
            }
            "user" => of(py, &row.user),
            "trace" => of(py, &row.trace),
            _ => Ok(None),
        }
    }
}

fn told<'py>(py: Python<'py>, attempt: &Attempt) -> PyResult<Bound<'py, PyDict>> {
    let Attempt { deployment, status, error, reason, seconds } = attempt;
    let told = PyDict::new(py);
    told.set_item("deployment", deployment)?;
    told.set_item("status", status)?;
    told.set_item("error", error)?;
    if let Some(reason) = reason {
        told.set_item("reason", reason)?;
    }
    told.set_item("seconds", seconds)?;
    Ok(told)
}

#[pymethods]
#[expect(clippy::unused_self, reason = "Python's protocols have one")]
impl SpendRow {
    fn __len__(&self) -> usize {
        NAMES.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyTuple::new(py, NAMES)?.try_iter()?.into_any())
    }

    fn __contains__(&self, name: &str) -> bool {
        NAMES.contains(&name)
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, NAMES)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.find(py, name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    #[pyo3(signature = (name, default = None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.find(py, name)?.or(default))
    }

    /// The fields of `penstock.gateway.store.Record`, in their order.
    fn record<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyTuple>> {
        Ok(self.record.get_or_try_init(py, || record(py, &self.row).map(Bound::unbind))?.bind(py))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a whole number, and 64 bits hold nine times the most")]
fn record<'py>(py: Python<'py>, row: &Row) -> PyResult<Bound<'py, PyTuple>> {
    let nano = row.cost.filter(|cost| (0.0..=MOST).contains(cost)).map(|cost| (cost * NANO).round_ties_even() as i64);
    let items = [
        row.id.as_str().into_bound_py_any(py)?,
        row.started.into_bound_py_any(py)?,
        row.seconds.into_bound_py_any(py)?,
        row.route.into_bound_py_any(py)?,
        row.group.as_str().into_bound_py_any(py)?,
        row.outcome.into_bound_py_any(py)?,
        row.status.into_bound_py_any(py)?,
        Attempt::json(&row.attempts).into_bound_py_any(py)?,
        u8::from(row.stream).into_bound_py_any(py)?,
        u8::from(row.usage_complete).into_bound_py_any(py)?,
        row.chunks.into_bound_py_any(py)?,
        row.deployment.as_deref().into_bound_py_any(py)?,
        row.provider.as_deref().into_bound_py_any(py)?,
        row.model.as_deref().into_bound_py_any(py)?,
        row.total_tokens.into_bound_py_any(py)?,
        row.prompt_tokens.into_bound_py_any(py)?,
        row.completion_tokens.into_bound_py_any(py)?,
        row.key.as_deref().into_bound_py_any(py)?,
        nano.into_bound_py_any(py)?,
        row.cached_tokens.into_bound_py_any(py)?,
        row.reasoning_tokens.into_bound_py_any(py)?,
        row.first_token.into_bound_py_any(py)?,
        row.cache_write_tokens.into_bound_py_any(py)?,
        row.error.into_bound_py_any(py)?,
        row.user.as_deref().into_bound_py_any(py)?,
        row.trace.as_deref().into_bound_py_any(py)?,
    ];
    PyTuple::new(py, items)
}
