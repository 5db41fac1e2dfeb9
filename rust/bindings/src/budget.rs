//! How many retries there may be.

use std::sync::{Mutex, PoisonError};

use penstock_core::policy::retry::Budget;
use pyo3::prelude::*;

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct RetryBudget {
    state: Mutex<Budget>,
}

#[pymethods]
impl RetryBudget {
    #[new]
    #[pyo3(signature = (ratio, reserve, /))]
    fn new(ratio: f64, reserve: f64) -> Self {
        Self { state: Mutex::new(Budget::new(ratio, reserve)) }
    }

    #[pyo3(signature = (now, /))]
    fn request(&self, now: f64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).request(now);
    }

    #[pyo3(signature = (now, /))]
    fn retry(&self, now: f64) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).retry(now)
    }
}
