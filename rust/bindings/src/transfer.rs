//! One request and its response, for a thread that waits.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use penstock_engine::error::{Error, Kind};
use penstock_engine::transfer::{self, Body, Line, Step};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::connections::Connections;
use crate::decoder::{Decoder, Input, busy};
use crate::network::{self, Headers};

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Transfer {
    state: Mutex<State>,
    line: Line,
    closed: AtomicBool,
}

struct State {
    transfer: transfer::Transfer,
    decoder: Option<Py<Decoder>>,
}

/// What kept a wait from its end.
enum Stop {
    Signal,
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Signal,
            _ => Self::Error(Error { kind: Kind::Cut, message: error.to_string() }),
        }
    }
}

/// Waits for the response's head.
fn answered(transfer: &mut transfer::Transfer) -> Result<(), Stop> {
    loop {
        match transfer.advance(Instant::now())? {
            Step::Answered => return Ok(()),
            Step::Wait => _ = transfer.wait()?,
            Step::Resolve(host, port) => match (host.as_str(), port).to_socket_addrs() {
                Ok(addresses) => transfer.resolved(addresses.collect(), Instant::now()),
                Err(error) => {
                    transfer.abort();
                    let text = error.to_string();
                    // The resolver's own words stand behind the library's.
                    let why = text.rsplit(": ").next().unwrap_or_default();
                    let message = format!("no connection to {host}:{port}: {why}");
                    return Err(Error { kind: Kind::Connect, message }.into());
                }
            },
        }
    }
}

/// Waits for the next bytes: None at the end.
fn received<'a>(transfer: &'a mut transfer::Transfer, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Stop> {
    // The wait comes first: mostly there is nothing yet, and a read that finds nothing costs as much as one that does.
    transfer.wait_to_read()?;
    match transfer.read(buffer)? {
        Body::Data(data) => Ok(Some(data)),
        Body::End => Ok(None),
        Body::Wait => Ok(Some(&[])),
    }
}

impl Transfer {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(busy()),
        }
    }

    /// Bytes until `take` makes something of them, or the end.
    fn each<T>(
        &self,
        py: Python<'_>,
        state: &mut State,
        mut take: impl FnMut(&mut Option<Py<Decoder>>, &[u8]) -> PyResult<Option<T>>,
    ) -> PyResult<Option<T>> {
        network::with_buffer(|buffer| {
            loop {
                let transfer = &mut state.transfer;
                match py.detach(|| received(transfer, buffer)) {
                    Ok(None) => return Ok(None),
                    Ok(Some([])) | Err(Stop::Signal) => {}
                    Ok(Some(data)) => {
                        if let Some(taken) = take(&mut state.decoder, data)? {
                            return Ok(Some(taken));
                        }
                    }
                    Err(Stop::Error(_)) if self.closed.load(Ordering::Acquire) => return Ok(None),
                    Err(Stop::Error(error)) => return Err(network::raise(&error)),
                }
                // Python's signals wait for a loop of its own, which this is in place of.
                py.check_signals()?;
            }
        })
    }
}

#[pymethods]
impl Transfer {
    #[new]
    #[pyo3(signature = (
        pool, url, headers, content = None, *, method = "POST", connect = None, wait = None, decode = true
    ))]
    #[expect(clippy::too_many_arguments, reason = "a request has as many parts")]
    fn new(
        pool: &Bound<'_, Connections>,
        url: &str,
        headers: Headers,
        content: Option<Input<'_>>,
        method: &str,
        connect: Option<f64>,
        wait: Option<f64>,
        decode: bool,
    ) -> PyResult<Self> {
        let transfer = network::begin(pool.get(), method, url, headers, content, (connect, wait), decode)?;
        let line = transfer.line();
        Ok(Self { state: Mutex::new(State { transfer, decoder: None }), line, closed: AtomicBool::new(false) })
    }

    fn send(&self, py: Python<'_>) -> PyResult<(u16, Headers)> {
        let mut state = self.lock()?;
        let transfer = &mut state.transfer;
        loop {
            match py.detach(|| answered(transfer)) {
                Ok(()) => break,
                Err(Stop::Signal) => py.check_signals()?,
                Err(Stop::Error(error)) => return Err(network::raise(&error)),
            }
        }
        let head = transfer.head().map(|head| (head.status, head.headers.clone()));
        Ok(head.unwrap_or_default())
    }

    #[getter]
    fn version(&self) -> PyResult<Option<&'static str>> {
        Ok(self.lock()?.transfer.head().map(|head| head.version))
    }

    fn attach(&self, decoder: Py<Decoder>) -> PyResult<()> {
        self.lock()?.decoder = Some(decoder);
        Ok(())
    }

    fn keep_time(&self, idle: Option<f64>, due: Option<f64>) -> PyResult<()> {
        let clocks = &mut self.lock()?.transfer.clocks;
        clocks.idle = idle.and_then(network::duration);
        clocks.due = network::after(Instant::now(), due);
        Ok(())
    }

    fn read(&self, py: Python<'_>) -> PyResult<Option<Py<PyBytes>>> {
        let mut state = self.lock()?;
        self.each(py, &mut state, |_, data| Ok(Some(PyBytes::new(py, data).unbind())))
    }

    fn pull<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let mut state = self.lock()?;
        self.each(py, &mut state, |decoder, data| {
            let Some(decoder) = decoder else { return Ok(None) };
            let decoder = decoder.get();
            let chunks = decoder.run(py, Some(data))?;
            Ok(chunks.filter(|chunks| !chunks.is_empty() || decoder.is_over()))
        })
    }

    fn shut(&self) {
        self.closed.store(true, Ordering::Release);
        self.line.shut();
    }

    fn close(&self) {
        self.shut();
        // Whoever holds the lock finds the connection at its end.
        if let Ok(mut state) = self.state.try_lock() {
            state.transfer.abort();
        }
    }
}
