//! The engine's errors, and what both kinds of transfer have in common.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_engine::error::Error;
use penstock_engine::request::Request;
use penstock_engine::transfer::Transfer;
use penstock_engine::url::Url;
use pyo3::prelude::*;

use crate::connections::Connections;
use crate::decoder::Input;

pyo3::create_exception!(
    penstock._native,
    NetworkError,
    pyo3::exceptions::PyException,
    "What the engine could not do: `args` are the message and one word for its kind."
);

#[cold]
pub(crate) fn raise(error: &Error) -> PyErr {
    NetworkError::new_err((error.message.clone(), error.kind.name()))
}

/// Status and headers, as Python has them.
pub(crate) type Headers = Vec<(String, String)>;

/// A request about to begin; `connect` and `wait` are the seconds that it has to connect and to be answered.
pub(crate) fn begin(
    pool: &Connections,
    method: &str,
    url: &str,
    headers: Headers,
    content: Option<Input<'_>>,
    (connect, wait): (Option<f64>, Option<f64>),
    decode: bool,
) -> PyResult<Transfer> {
    let url = Url::parse(url).map_err(|error| raise(&error))?;
    let content = content.map_or_else(Vec::new, |content| content.bytes().to_vec());
    let request = Request::new(method, url, headers, content).map_err(|error| raise(&error))?;
    let mut transfer = Transfer::new(Arc::clone(&pool.pool), request, decode);
    let now = Instant::now();
    transfer.clocks.connect = after(now, connect);
    transfer.clocks.due = after(now, wait);
    Ok(transfer)
}

/// So many seconds from now.
pub(crate) fn after(now: Instant, seconds: Option<f64>) -> Option<Instant> {
    now.checked_add(duration(seconds?)?)
}

/// None for what is no time, or beyond all clocks.
pub(crate) fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

/// Addresses as getaddrinfo gives them: (host, port, ...).
pub(crate) fn addresses(given: Vec<(String, u16)>) -> Vec<SocketAddr> {
    let address = |(host, port): (String, u16)| {
        // A scope ("%eth0") has no place in an address here.
        let host = host.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(host, port))
    };
    given.into_iter().filter_map(address).collect()
}

/// Bytes that one read takes at most.
const SCRATCH: usize = 64 << 10;

thread_local! {
    /// Where reads go, so that no waiting stream holds a buffer of its own.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs with this thread's buffer.
pub(crate) fn with_buffer<T>(run: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    // Empty at first, and where a garbage collection within `run` reads another stream.
    buffer.resize(SCRATCH, 0);
    let outcome = run(&mut buffer);
    BUFFER.set(buffer);
    outcome
}
