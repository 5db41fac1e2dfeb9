//! The deployments of one model, and leave to ask one of them.
//!
//! Nothing of Python's is made or let go of while the pool is locked: the garbage collector could come by with a lease
//! that wants to give its place back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::policy::cooldown::Cooldown;
use penstock_core::policy::limits::Limits;
use penstock_core::policy::pool::{self as core, Outcome, Request, Status, Strategy};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::failure::Failure;

type Shared = Arc<Mutex<core::Pool>>;

fn lock(pool: &Shared) -> MutexGuard<'_, core::Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Deployment {
    rpm: Option<u64>,
    tpm: Option<u64>,
    max_parallel: Option<u32>,
    allowed_fails: Option<u32>,
    cooldown: f64,
    weight: f64,
    order: i64,
    price: Option<f64>,
    tags: Vec<String>,
    max_prompt: Option<u64>,
}

impl From<Deployment> for core::Deployment {
    fn from(given: Deployment) -> Self {
        Self {
            limits: Limits { rpm: given.rpm, tpm: given.tpm, max_parallel: given.max_parallel },
            cooldown: Cooldown { allowed_fails: given.allowed_fails, seconds: given.cooldown },
            weight: given.weight,
            order: given.order,
            price: given.price,
            tags: given.tags,
            max_prompt: given.max_prompt,
        }
    }
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Pool {
    state: Shared,
}

#[pymethods]
impl Pool {
    #[new]
    #[pyo3(signature = (strategy, deployments, /))]
    fn new(strategy: &str, deployments: Vec<Deployment>) -> PyResult<Self> {
        let Some(strategy) = Strategy::ALL.into_iter().find(|known| known.name() == strategy) else {
            let known = Strategy::ALL.map(Strategy::name);
            return Err(PyValueError::new_err(format!("strategy is one of {known:?}, not {strategy:?}")));
        };
        let deployments = deployments.into_iter().map(Into::into).collect();
        Ok(Self { state: Arc::new(Mutex::new(core::Pool::new(strategy, deployments))) })
    }

    #[expect(clippy::too_many_arguments, reason = "a request has as many sides")]
    #[pyo3(signature = (
        now,
        chance,
        /,
        *,
        tags = Vec::new(),
        all_tags = false,
        prompt = 0,
        tokens = 0,
        stream = false,
        without = Vec::new(),
    ), text_signature = "($self, now, chance, /, *, tags=(), all_tags=False, prompt=0, tokens=0, stream=False, without=())")]
    fn lease(
        &self,
        py: Python<'_>,
        now: f64,
        chance: f64,
        tags: Vec<String>,
        all_tags: bool,
        prompt: u64,
        tokens: u64,
        stream: bool,
        without: Vec<usize>,
    ) -> PyResult<Py<PyAny>> {
        let request = Request { tags: &tags, all_tags, prompt, tokens, stream, except: &without };
        let leased = lock(&self.state).lease(&request, now, chance);
        match leased {
            Ok(lease) => {
                let (index, taken, pool) = (lease.index(), lease.taken(), Arc::clone(&self.state));
                Ok(Py::new(py, Lease { index, taken, held: Mutex::new(Some(lease)), pool })?.into_any())
            }
            Err(refusal) => {
                let core::Refusal { cause, after, busy } = refusal;
                Ok(Py::new(py, Refusal { cause: cause.name(), after, busy })?.into_any())
            }
        }
    }

    #[pyo3(signature = (now, /))]
    fn status(&self, now: f64) -> Vec<DeploymentStatus> {
        let all = lock(&self.state).status(now);
        all.into_iter().map(DeploymentStatus::from).collect()
    }
}

#[pyclass(frozen, get_all, module = "penstock._native")]
pub(crate) struct Refusal {
    cause: &'static str,
    after: Option<f64>,
    busy: bool,
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Lease {
    #[pyo3(get)]
    index: usize,
    #[pyo3(get)]
    taken: f64,
    /// Until it is settled.
    held: Mutex<Option<core::Lease>>,
    pool: Shared,
}

impl Lease {
    fn settle(&self, outcome: Outcome, tokens: Option<u64>, now: f64) {
        let lease = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lease) = lease {
            lock(&self.pool).settle(lease, outcome, tokens, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lease) = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            lock(&self.pool).release(lease);
        }
    }
}

#[pymethods]
impl Lease {
    #[pyo3(signature = (seconds, now, /))]
    fn began(&self, seconds: f64, now: f64) {
        let lease = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = &*lease {
            lock(&self.pool).began(lease, seconds, now);
        }
    }

    #[pyo3(signature = (now, /, *, seconds = None, tokens = None))]
    fn answered(&self, now: f64, seconds: Option<f64>, tokens: Option<u64>) {
        self.settle(Outcome::Answered { seconds }, tokens, now);
    }

    #[pyo3(signature = (failure, now, /, *, tokens = None))]
    fn failed(&self, failure: &Bound<'_, Failure>, now: f64, tokens: Option<u64>) {
        let failure = &failure.get().is;
        self.settle(Outcome::of(failure.class, failure.retry_after), tokens, now);
    }

    #[pyo3(signature = (now, /, *, tokens = None))]
    fn left(&self, now: f64, tokens: Option<u64>) {
        self.settle(Outcome::Left, tokens, now);
    }
}

#[pyclass(frozen, get_all, module = "penstock._native")]
pub(crate) struct DeploymentStatus {
    health: &'static str,
    cooling: f64,
    in_flight: u32,
    answered: u64,
    failed: u64,
    tokens: u64,
    rpm: u64,
    tpm: u64,
    first_token: Option<f64>,
    whole: Option<f64>,
}

impl From<Status> for DeploymentStatus {
    fn from(now: Status) -> Self {
        Self {
            health: now.health.name(),
            cooling: now.cooling,
            in_flight: now.in_flight,
            answered: now.answered,
            failed: now.failed,
            tokens: now.tokens,
            rpm: now.rpm,
            tpm: now.tpm,
            first_token: now.first_token,
            whole: now.whole,
        }
    }
}
