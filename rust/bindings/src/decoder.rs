//! The decoder and the iterator that drives it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use penstock_core::chunk::Head;
use penstock_core::decoder::{self as core, Dialect, End, Family, Options};
use penstock_core::error::Error;
use penstock_core::stream::Sink;
use penstock_core::usage::{Reasoning, Usage};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PyMapping};

use crate::chunks::{Chunks, Items, Memo, Nothing, Texts};
use crate::classes::{COMPLETION, CompletionUsage};
use crate::errors;
use crate::json;
use crate::record::Record;

/// Bytes from Python: those of a `bytes` object as they stand, of any other buffer a copy.
pub(crate) enum Input<'py> {
    Bytes(Bound<'py, PyBytes>),
    Copy(Vec<u8>),
}

impl Input<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Input::Bytes(bytes) => bytes.as_bytes(),
            Input::Copy(bytes) => bytes,
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Input<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.to_owned()));
        }
        let Ok(buffer) = PyBuffer::<u8>::get(&object) else {
            let given = object.get_type().name()?;
            return Err(PyTypeError::new_err(format!("expected bytes (or bytearray, memoryview), got {given}")));
        };
        Ok(Self::Copy(buffer.to_vec(object.py())?))
    }
}

#[cold]
pub(crate) fn busy() -> PyErr {
    PyRuntimeError::new_err("this decoder is being fed by another thread: a stream has one reader at a time")
}

#[derive(Clone, Copy)]
enum Depth {
    Chunks,
    Text,
    Raw,
}

struct State {
    depth: Depth,
    decoder: core::Decoder,
    memo: Memo,
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Decoder {
    state: Mutex<State>,
}

impl Decoder {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(busy()),
        }
    }

    /// Feeds, or without data finishes, with the sink of this depth.
    pub(crate) fn run<'py>(&self, py: Python<'py>, data: Option<&[u8]>) -> PyResult<Option<Bound<'py, PyList>>> {
        fn call(decoder: &mut core::Decoder, data: Option<&[u8]>, sink: &mut impl Sink) -> Result<(), Error> {
            match data {
                Some(data) => decoder.feed(data, sink),
                None => decoder.finish(sink),
            }
        }
        let mut state = self.lock()?;
        let State { depth, decoder, memo } = &mut *state;
        let (outcome, items) = match depth {
            Depth::Chunks => {
                let mut sink = Chunks { memo, items: Items::new(py) };
                (call(decoder, data, &mut sink), Some(sink.items))
            }
            Depth::Text => {
                let mut sink = Texts { memo, items: Items::new(py) };
                (call(decoder, data, &mut sink), Some(sink.items))
            }
            Depth::Raw => (call(decoder, data, &mut Nothing), None),
        };
        drop(state);
        outcome.map_err(|error| errors::raise(py, &error))?;
        items.map(Items::finish).transpose()
    }

    /// Whether the stream has said that it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_ok_and(|state| state.decoder.ended())
    }
}

#[pymethods]
impl Decoder {
    #[expect(clippy::too_many_arguments, reason = "keywords, in Python")]
    #[new]
    #[pyo3(signature = (
        family = "chat",
        *,
        dialect = None,
        depth = "chunks",
        include_usage = false,
        max_event_size = Some(16 << 20),
        model = "",
        keep_partial = false,
        answer_tool = None,
    ), text_signature = "(family='chat', *, dialect=None, depth='chunks', include_usage=False, max_event_size=16777216, \
        model='', keep_partial=False, answer_tool=None)")]
    fn new(
        family: &str,
        dialect: Option<&Bound<'_, PyMapping>>,
        depth: &str,
        include_usage: bool,
        max_event_size: Option<usize>,
        model: &str,
        keep_partial: bool,
        answer_tool: Option<String>,
    ) -> PyResult<Self> {
        let depth = match depth {
            "chunks" => Depth::Chunks,
            "text" => Depth::Text,
            "raw" => Depth::Raw,
            _ => return Err(unknown("depth", depth, &["chunks", "text", "raw"])),
        };
        let options = Options {
            dialect: read_dialect(dialect)?,
            include_usage,
            max_event_size: max_event_size.unwrap_or(usize::MAX),
            keep: keep_partial,
            fallback: fallback(model),
            answer_tool,
        };
        let decoder = core::Decoder::new(read_family(family)?, options);
        Ok(Self { state: Mutex::new(State { depth, decoder, memo: Memo::default() }) })
    }

    #[pyo3(signature = (data, /))]
    fn feed<'py>(&self, py: Python<'py>, data: Input<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.run(py, Some(data.bytes()))
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.run(py, None)
    }

    fn read_text(&self) -> PyResult<()> {
        let mut state = self.lock()?;
        state.depth = Depth::Text;
        state.decoder.keep_nothing();
        Ok(())
    }

    fn restart(&self, py: Python<'_>) -> PyResult<()> {
        self.lock()?.decoder.restart().map_err(|error| errors::raise(py, &error))
    }

    #[pyo3(signature = (overlap = "", /))]
    fn resume(&self, overlap: &str) -> PyResult<()> {
        self.lock()?.decoder.resume(overlap);
        Ok(())
    }

    fn response(&self, py: Python<'_>) -> PyResult<Option<Py<Record>>> {
        let mut state = self.lock()?;
        let mut text = Vec::new();
        if !state.decoder.write_response(&mut text) {
            return Ok(None);
        }
        let usage = state.decoder.usage().cloned();
        drop(state);
        build_response(py, &text, usage.as_ref()).map(Some)
    }

    #[getter]
    fn usage(&self, py: Python<'_>) -> PyResult<Option<Py<Record>>> {
        let usage = self.lock()?.decoder.usage().cloned();
        usage.map(|usage| CompletionUsage::build(py, &usage)).transpose()
    }

    #[getter]
    fn ended(&self) -> PyResult<bool> {
        Ok(self.lock()?.decoder.ended())
    }
}

/// `text` is core's own writing: an object of the schema.
fn build_response(py: Python<'_>, text: &[u8], usage: Option<&Usage>) -> PyResult<Py<Record>> {
    let mut record = json::build_record(py, text, &COMPLETION)?;
    if let (Some(usage), Some(slot)) = (usage, COMPLETION.slot_of("usage")) {
        // With its provenance, which JSON does not carry.
        record.set(slot, CompletionUsage::build(py, usage)?.into_any());
    }
    record.into_object(py)
}

fn unknown(what: &str, given: &str, known: &[&str]) -> PyErr {
    PyValueError::new_err(format!("unknown {what} {given:?}: expected one of {}", known.join(", ")))
}

fn read_family(name: &str) -> PyResult<Family> {
    name.parse().map_err(|()| {
        let known: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
        unknown("family", name, &known)
    })
}

fn read_dialect(given: Option<&Bound<'_, PyMapping>>) -> PyResult<Dialect> {
    let mut dialect = Dialect::default();
    let Some(given) = given else {
        return Ok(dialect);
    };
    for item in given.items()? {
        let (name, value): (String, String) = item.extract()?;
        match name.as_str() {
            "reasoning" => {
                dialect.reasoning = match value.as_str() {
                    "inside" => Reasoning::Inside,
                    "beside" => Reasoning::Beside,
                    _ => return Err(unknown("dialect value for reasoning", &value, &["inside", "beside"])),
                }
            }
            "end" => {
                dialect.end = match value.as_str() {
                    "finish" => End::Finish,
                    "done" => End::Done,
                    "eof" => End::Eof,
                    _ => return Err(unknown("dialect value for end", &value, &["finish", "done", "eof"])),
                }
            }
            _ => return Err(unknown("dialect key", &name, &["reasoning", "end"])),
        }
    }
    Ok(dialect)
}

/// Who answers, where the provider does not say: core has neither clock nor chance.
fn fallback(model: &str) -> Head {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance = [0u8, 1].map(|half| RandomState::new().hash_one((half, now.as_nanos())));
    Head {
        id: format!("chatcmpl-{:016x}{:016x}", chance[0], chance[1]),
        created: i64::try_from(now.as_secs()).unwrap_or_default(),
        model: model.to_owned(),
    }
}

#[pyfunction]
#[pyo3(signature = (body, /, *, family = "chat", dialect = None, model = "", answer_tool = None))]
pub(crate) fn decode_response(
    py: Python<'_>,
    body: Input<'_>,
    family: &str,
    dialect: Option<&Bound<'_, PyMapping>>,
    model: &str,
    answer_tool: Option<String>,
) -> PyResult<Py<Record>> {
    let mut text = Vec::new();
    let (family, dialect) = (read_family(family)?, read_dialect(dialect)?);
    let usage = core::decode_response(family, dialect, fallback(model), answer_tool, None, body.bytes(), &mut text)
        .map_err(|error| errors::raise(py, &error))?;
    build_response(py, &text, usage.as_ref())
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct ChunkIterator {
    source: Py<PyIterator>,
    decoder: Py<Decoder>,
    state: Mutex<Ready>,
}

#[derive(Default)]
struct Ready {
    items: VecDeque<Py<PyAny>>,
    /// The source has ended and `finish` was called.
    over: bool,
}

#[pymethods]
impl ChunkIterator {
    #[new]
    #[pyo3(signature = (iterable, decoder, /))]
    fn new(iterable: &Bound<'_, PyAny>, decoder: Py<Decoder>) -> PyResult<Self> {
        Ok(Self { source: iterable.try_iter()?.unbind(), decoder, state: Mutex::default() })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut ready = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(busy()),
        };
        let decoder = self.decoder.get();
        loop {
            if let Some(item) = ready.items.pop_front() {
                return Ok(Some(item));
            }
            if ready.over {
                return Ok(None);
            }
            let next = if decoder.ended()? { None } else { self.source.bind(py).clone().next() };
            let items = if let Some(data) = next {
                decoder.feed(py, data?.extract()?)?
            } else {
                // An error that waits behind the last items is raised by the next call.
                let last = decoder.finish(py)?;
                ready.over = last.as_ref().is_none_or(PyListMethods::is_empty);
                last
            };
            ready.items.extend(items.into_iter().flatten().map(Bound::unbind));
        }
    }

    #[getter]
    fn usage(&self, py: Python<'_>) -> PyResult<Option<Py<Record>>> {
        self.decoder.get().usage(py)
    }
}
