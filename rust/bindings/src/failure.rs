//! What the rules of retrying want to know of an exception.

use penstock_core::error::Class;
use penstock_core::policy::retry::{self, FIRST_PAUSE};
use pyo3::prelude::*;

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Failure {
    pub(crate) is: retry::Failure,
}

#[pymethods]
impl Failure {
    #[new]
    #[pyo3(signature = (classes, /, *, code = None, kind = None, retry_after = None, advice = None))]
    fn new(
        classes: Vec<String>,
        code: Option<String>,
        kind: Option<String>,
        retry_after: Option<f64>,
        advice: Option<bool>,
    ) -> Self {
        let class = classes.iter().find_map(|name| Class::named(name));
        Self { is: retry::Failure { class, code, kind, retry_after, advice } }
    }

    #[getter]
    fn retryable(&self) -> bool {
        self.is.retryable()
    }

    #[getter]
    fn elsewhere(&self) -> bool {
        self.is.elsewhere()
    }

    #[getter]
    fn falls_back(&self) -> bool {
        self.is.falls_back()
    }

    #[pyo3(signature = (retries, max_retries, chance, /, *, first = FIRST_PAUSE), text_signature = "($self, retries, max_retries, chance, /, *, first=0.5)")]
    fn pause(&self, retries: u32, max_retries: u32, chance: f64, first: f64) -> Option<f64> {
        self.is.pause(retries, max_retries, chance, first)
    }
    #[staticmethod]
    #[pyo3(signature = (retries, chance, /, *, first = FIRST_PAUSE), text_signature = "(retries, chance, /, *, first=0.5)")]
    fn backoff(retries: u32, chance: f64, first: f64) -> f64 {
        retry::backoff(retries, chance, first)
    }
}
