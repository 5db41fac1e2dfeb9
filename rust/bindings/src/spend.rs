//! What one request came to, as a mapping, and as the columns that it is in a database.

use penstock_gateway::ledger::{Attempt, Row};
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

type Tell = for<'py> fn(Python<'py>, &Row) -> PyResult<Bound<'py, PyAny>>;

/// What a row has, in this order, and how it is told.
const FIELDS: [(&str, Tell); 26] = [
    ("id", |py, row| row.id.as_str().into_bound_py_any(py)),
    ("started", |py, row| row.started.into_bound_py_any(py)),
    ("seconds", |py, row| row.seconds.into_bound_py_any(py)),
    ("first_token", |py, row| row.first_token.into_bound_py_any(py)),
    ("key", |py, row| row.key.as_deref().into_bound_py_any(py)),
    ("route", |py, row| row.route.into_bound_py_any(py)),
    ("group", |py, row| row.group.as_str().into_bound_py_any(py)),
    ("deployment", |py, row| row.deployment.as_deref().into_bound_py_any(py)),
    ("provider", |py, row| row.provider.as_deref().into_bound_py_any(py)),
    ("model", |py, row| row.model.as_deref().into_bound_py_any(py)),
    ("stream", |py, row| row.stream.into_bound_py_any(py)),
    ("outcome", |py, row| row.outcome.into_bound_py_any(py)),
    ("status", |py, row| row.status.into_bound_py_any(py)),
    ("error", |py, row| row.error.into_bound_py_any(py)),
    ("prompt_tokens", |py, row| row.prompt_tokens.into_bound_py_any(py)),
    ("completion_tokens", |py, row| row.completion_tokens.into_bound_py_any(py)),
    ("total_tokens", |py, row| row.total_tokens.into_bound_py_any(py)),
    ("cached_tokens", |py, row| row.cached_tokens.into_bound_py_any(py)),
    ("cache_write_tokens", |py, row| row.cache_write_tokens.into_bound_py_any(py)),
    ("reasoning_tokens", |py, row| row.reasoning_tokens.into_bound_py_any(py)),
    ("usage_complete", |py, row| row.usage_complete.into_bound_py_any(py)),
    ("cost", |py, row| row.cost.into_bound_py_any(py)),
    ("chunks", |py, row| row.chunks.into_bound_py_any(py)),
    ("attempts", |py, row| {
        let attempts: PyResult<Vec<_>> = row.attempts.iter().map(|attempt| told(py, attempt)).collect();
        attempts?.into_bound_py_any(py)
    }),
    ("user", |py, row| row.user.as_deref().into_bound_py_any(py)),
    ("trace", |py, row| row.trace.as_deref().into_bound_py_any(py)),
];

#[pyclass(frozen, mapping, module = "penstock._native")]
pub(crate) struct SpendRow {
    row: Box<Row>,
    /// The fields of `penstock.gateway.store.Record`, in their order: whoever logs it wants them, and whoever writes it.
    #[pyo3(get)]
    record: Py<PyTuple>,
}

impl SpendRow {
    pub(crate) fn new<'py>(py: Python<'py>, row: Box<Row>, texts: &mut Texts<'py>) -> PyResult<Self> {
        let record = record(py, &row, texts)?.unbind();
        Ok(Self { row, record })
    }

    /// None: there is no such name.
    fn find<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, tell)| tell(py, &self.row)).transpose()
    }
}

/// Texts of the row before: where the next one has the same, it is the same object.
#[derive(Default)]
pub(crate) struct Texts<'py> {
    key: Text<'py>,
    route: Text<'py>,
    group: Text<'py>,
    deployment: Text<'py>,
    provider: Text<'py>,
    model: Text<'py>,
    outcome: Text<'py>,
}

#[derive(Default)]
struct Text<'py>(Option<Bound<'py, PyString>>);

impl<'py> Text<'py> {
    fn of(&mut self, py: Python<'py>, text: &str) -> Bound<'py, PyAny> {
        match &self.0 {
            Some(last) if last.to_str().is_ok_and(|last| last == text) => last.clone(),
            _ => self.0.insert(PyString::new(py, text)).clone(),
        }
        .into_any()
    }

    fn maybe(&mut self, py: Python<'py>, text: Option<&str>) -> Bound<'py, PyAny> {
        text.map_or_else(|| py.None().into_bound(py), |text| self.of(py, text))
    }
}

fn told<'py>(py: Python<'py>, attempt: &Attempt) -> PyResult<Bound<'py, PyDict>> {
    let Attempt { deployment, status, error, reason, seconds } = attempt;
    let told = PyDict::new(py);
    told.set_item("deployment", &**deployment)?;
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
        FIELDS.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.keys(py)?.try_iter()?.into_any())
    }

    fn __contains__(&self, name: &str) -> bool {
        FIELDS.iter().any(|(known, _)| *known == name)
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, FIELDS.map(|(name, _)| name))
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
}

fn record<'py>(py: Python<'py>, row: &Row, texts: &mut Texts<'py>) -> PyResult<Bound<'py, PyTuple>> {
    let items = [
        row.id.as_str().into_bound_py_any(py)?,
        row.started.into_bound_py_any(py)?,
        row.seconds.into_bound_py_any(py)?,
        texts.route.of(py, row.route),
        texts.group.of(py, &row.group),
        texts.outcome.of(py, row.outcome),
        row.status.into_bound_py_any(py)?,
        Attempt::json(&row.attempts).into_bound_py_any(py)?,
        u8::from(row.stream).into_bound_py_any(py)?,
        u8::from(row.usage_complete).into_bound_py_any(py)?,
        row.chunks.into_bound_py_any(py)?,
        texts.deployment.maybe(py, row.deployment.as_deref()),
        texts.provider.maybe(py, row.provider.as_deref()),
        texts.model.maybe(py, row.model.as_deref()),
        row.total_tokens.into_bound_py_any(py)?,
        row.prompt_tokens.into_bound_py_any(py)?,
        row.completion_tokens.into_bound_py_any(py)?,
        texts.key.maybe(py, row.key.as_deref()),
        row.billionths().into_bound_py_any(py)?,
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
