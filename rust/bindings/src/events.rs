//! Server-sent events by themselves.

use std::sync::{Mutex, TryLockError};

use penstock_core::error::Error;
use penstock_core::framing::Sse;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::decoder::{Input, busy};
use crate::errors;

#[pyclass(frozen, get_all, module = "penstock._native")]
pub(crate) struct ServerSentEvent {
    event: Py<PyString>,
    data: Py<PyString>,
    id: Py<PyString>,
    retry: Option<u64>,
}

#[pymethods]
impl ServerSentEvent {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let [event, data, id] = [&self.event, &self.data, &self.id].map(|text| text.bind(py).repr());
        let retry = self.retry.map_or_else(|| "None".to_owned(), |retry| retry.to_string());
        Ok(format!("ServerSentEvent(event={}, data={}, id={}, retry={retry})", event?, data?, id?))
    }
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct EventDecoder {
    state: Mutex<(Sse, Option<Error>)>,
}

#[pymethods]
impl EventDecoder {
    #[new]
    #[pyo3(signature = (*, max_event_size = Some(16 << 20)), text_signature = "(*, max_event_size=16777216)")]
    fn new(max_event_size: Option<usize>) -> Self {
        Self { state: Mutex::new((Sse::new(max_event_size.unwrap_or(usize::MAX)), None)) }
    }

    #[pyo3(signature = (data, /))]
    fn feed<'py>(&self, py: Python<'py>, data: Input<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(busy()),
        };
        let (sse, failed) = &mut *state;
        if let Some(error) = failed {
            return Err(errors::raise(py, error));
        }
        let list = PyList::empty(py);
        let text = |bytes: &[u8]| PyString::new(py, &String::from_utf8_lossy(bytes)).unbind();
        let mut input = data.bytes();
        loop {
            match sse.next(&mut input) {
                Ok(Some(event)) => {
                    let name = event.frame.name;
                    list.append(Py::new(
                        py,
                        ServerSentEvent {
                            event: text(if name.is_empty() { b"message" } else { name }),
                            data: text(event.frame.data),
                            id: text(event.id),
                            retry: event.retry,
                        },
                    )?)?;
                }
                Ok(None) => return Ok(list),
                Err(error) => {
                    let error = Error::from(error);
                    let raised = list.is_empty().then(|| errors::raise(py, &error));
                    *failed = Some(error);
                    return raised.map_or(Ok(list), Err);
                }
            }
        }
    }
}
