//! The proxy's data plane.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use penstock_core::error::{Class, Error};
use penstock_engine::url::Url;
use penstock_gateway::gateway::{self, Identity};
use penstock_gateway::ledger::Told;
use penstock_gateway::planner::{self, Plan, Reply, Task};
use penstock_gateway::state::{dialect, family};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::decoder::Input;
use crate::network::{self, Headers};
use crate::spend::{SpendRow, Texts};

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Gateway {
    gateway: gateway::Gateway,
}

/// Seconds to wait: for as long as there are, if there are too many.
fn wait(seconds: f64) -> Duration {
    network::duration(seconds).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}

fn unusable(error: io::Error) -> PyErr {
    if error.kind() == io::ErrorKind::InvalidData { PyValueError::new_err(error.to_string()) } else { error.into() }
}

#[pymethods]
impl Gateway {
    #[new]
    #[pyo3(signature = (tables, /))]
    fn new(tables: Input<'_>) -> PyResult<Self> {
        let gateway = gateway::Gateway::new(tables.bytes()).map_err(PyValueError::new_err)?;
        Ok(Self { gateway })
    }

    #[pyo3(signature = (host, port, /, *, workers = 1, cert = None))]
    fn listen(
        &self,
        py: Python<'_>,
        host: &str,
        port: u16,
        workers: usize,
        cert: Option<(PathBuf, PathBuf)>,
    ) -> PyResult<u16> {
        let identity = cert.as_ref().map(|(certificates, key)| Identity { certificates, key });
        py.detach(|| self.gateway.listen(host, port, workers, identity)).map_err(unusable)
    }

    #[staticmethod]
    #[pyo3(signature = (certificates, key, /))]
    fn check_cert(certificates: PathBuf, key: PathBuf) -> PyResult<()> {
        Identity { certificates: &certificates, key: &key }.check().map_err(unusable)
    }

    #[pyo3(signature = (seconds, /))]
    fn next_job(&self, py: Python<'_>, seconds: f64) -> Option<Job> {
        let job = py.detach(|| self.gateway.next_job(wait(seconds)))?;
        Some(Job { job: Mutex::new(Some(job)) })
    }

    #[pyo3(signature = (most, seconds, /))]
    fn take_rows<'py>(&self, py: Python<'py>, most: usize, seconds: f64) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let told = py.detach(|| self.gateway.take_rows(most, wait(seconds)));
        let mut texts = Texts::default();
        told.into_iter()
            .map(|told| match told {
                Told::Row(row) => Ok(Bound::new(py, SpendRow::new(py, row, &mut texts)?)?.into_any()),
                Told::Note(line) => Ok(PyString::new(py, &line).into_any()),
            })
            .collect()
    }

    #[pyo3(signature = (tables, /))]
    fn reload(&self, py: Python<'_>, tables: Input<'_>) -> PyResult<()> {
        // It may wait for Redis, and whoever plans requests is not to wait with it.
        let tables = tables.bytes().to_vec();
        py.detach(|| self.gateway.reload(&tables)).map_err(PyValueError::new_err)
    }

    #[pyo3(signature = (keys, /))]
    fn put_keys(&self, keys: Input<'_>) -> PyResult<()> {
        self.gateway.put_keys(keys.bytes()).map_err(PyValueError::new_err)
    }

    #[pyo3(signature = (ids, /))]
    fn drop_keys(&self, ids: Vec<String>) {
        self.gateway.drop_keys(&ids);
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.gateway.snapshot())
    }

    #[pyo3(signature = (seconds, /))]
    fn drain(&self, py: Python<'_>, seconds: f64) -> usize {
        py.detach(|| self.gateway.drain(wait(seconds)))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.gateway.close());
    }
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Job {
    job: Mutex<Option<planner::Job>>,
}

impl Job {
    /// What `of` has of the job, which is gone when it was answered.
    fn with<T>(&self, of: impl FnOnce(&planner::Job) -> T) -> PyResult<T> {
        let job = self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        job.as_ref().map(of).ok_or_else(answered)
    }

    fn take(&self) -> PyResult<planner::Job> {
        self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().ok_or_else(answered)
    }
}

#[cold]
fn answered() -> PyErr {
    PyRuntimeError::new_err("this job has been answered")
}

/// A part of an admin route's task; "" of another.
fn of_route(task: &Task, part: impl FnOnce(&str, &str, &str) -> String) -> String {
    match task {
        Task::Admin { method, path, query } => part(method, path, query),
        Task::Plan { .. } => String::new(),
    }
}

#[pymethods]
impl Job {
    #[getter]
    fn kind(&self) -> PyResult<&'static str> {
        self.with(|job| match job.task {
            Task::Plan { .. } => "plan",
            Task::Admin { .. } => "admin",
        })
    }

    #[getter]
    fn id(&self) -> PyResult<String> {
        self.with(|job| match &job.task {
            Task::Plan { id, .. } => id.clone(),
            Task::Admin { .. } => String::new(),
        })
    }

    #[getter]
    fn deployment(&self) -> PyResult<String> {
        self.with(|job| match &job.task {
            Task::Plan { deployment, .. } => deployment.clone(),
            Task::Admin { .. } => String::new(),
        })
    }

    #[getter]
    fn operation(&self) -> PyResult<&'static str> {
        self.with(|job| match job.task {
            Task::Plan { operation, .. } => operation,
            Task::Admin { .. } => "",
        })
    }

    #[getter]
    fn model(&self) -> PyResult<String> {
        self.with(|job| match &job.task {
            Task::Plan { model, .. } => model.clone(),
            Task::Admin { .. } => String::new(),
        })
    }

    #[getter]
    fn stream_options(&self) -> PyResult<bool> {
        self.with(|job| matches!(job.task, Task::Plan { stream_options: true, .. }))
    }

    #[getter]
    fn method(&self) -> PyResult<String> {
        self.with(|job| of_route(&job.task, |method, _, _| method.to_owned()))
    }

    #[getter]
    fn path(&self) -> PyResult<String> {
        self.with(|job| of_route(&job.task, |_, path, _| path.to_owned()))
    }

    #[getter]
    fn query(&self) -> PyResult<String> {
        self.with(|job| of_route(&job.task, |_, _, query| query.to_owned()))
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|job| PyBytes::new(py, &job.body))
    }

    #[getter]
    fn caller<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|job| PyBytes::new(py, job.caller.as_bytes()))
    }

    #[pyo3(name = "plan", signature = (
        url, headers, body, /, *, family, reasoning = "inside", end = "finish", answer_tool = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "a request has as many parts")]
    fn answer_with_plan(
        &self,
        url: &str,
        headers: Headers,
        body: Input<'_>,
        family: &str,
        reasoning: &str,
        end: &str,
        answer_tool: Option<String>,
    ) -> PyResult<()> {
        let family = self::family(family).map_err(PyValueError::new_err)?;
        let dialect = dialect(reasoning, end).map_err(PyValueError::new_err)?;
        let url = Url::parse(url).map_err(|error| PyValueError::new_err(error.message))?;
        let body = body.bytes().to_vec();
        self.take()?.plan(Plan { url, headers, body, family, dialect, answer_tool });
        Ok(())
    }

    #[pyo3(signature = (status, message, /, *, name = "BadRequestError", r#type = None, param = None, code = None))]
    fn refuse(
        &self,
        status: u16,
        message: String,
        name: &str,
        r#type: Option<String>,
        param: Option<String>,
        code: Option<String>,
    ) -> PyResult<()> {
        let mut error = Error::new(Class::named(name).unwrap_or(Class::BadRequest), message);
        (error.details.kind, error.details.param, error.details.code) = (r#type, param, code);
        self.take()?.refuse(status, error);
        Ok(())
    }

    #[pyo3(signature = (status, body, /, *, content_type = "application/json".to_owned()), text_signature = "($self, status, body, /, *, content_type='application/json')")]
    fn respond(&self, status: u16, body: Input<'_>, content_type: String) -> PyResult<()> {
        self.take()?.reply(Reply { status, content_type, body: body.bytes().to_vec() });
        Ok(())
    }
}
