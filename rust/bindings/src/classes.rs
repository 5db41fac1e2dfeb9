//! The value classes: a name, a list of fields, and nothing else.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyString, PyType};

use penstock_core::usage::Usage;

use crate::json;
use crate::record::{Field, Kind, OPEN, Record, Shape};

/// The place of a field, known when this is compiled.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler; iterators are not const")]
pub(crate) const fn place(names: &[&str], name: &str) -> usize {
    let mut slot = 0;
    while slot < names.len() && !same(names[slot].as_bytes(), name.as_bytes()) {
        slot += 1;
    }
    slot
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler; `==` of slices is not const")]
const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Takes a record from the garbage collector's list. To be on it has no use, for records let nobody see what they hold
/// (no `__traverse__`), but in a burst it costs a sixth of a chunk.
fn untracked(record: Bound<'_, Record>) -> Bound<'_, Record> {
    // SAFETY: a whole object that nobody else has seen yet; deallocation untracks what is not tracked too.
    unsafe { pyo3::ffi::PyObject_GC_UnTrack(record.as_ptr().cast()) };
    record
}

macro_rules! classes {
    ($($class:ident $shape:ident $($subclass:ident)? { $($getter:ident $name:literal $kind:expr,)* })*) => {$(
        pub(crate) static $shape: Shape = Shape {
            name: stringify!($class),
            fields: &[$(Field { name: $name, kind: $kind }),*],
            make: |py, record| {
                let made = Bound::new(py, PyClassInitializer::from(record).add_subclass($class))?;
                Ok(untracked(made.into_super()).unbind())
            },
            names: PyOnceLock::new(),
        };

        #[pyclass(extends = Record, frozen, $($subclass,)? module = "penstock._native")]
        pub(crate) struct $class;

        impl $class {
            pub(crate) const NAMES: &[&str] = &[$($name),*];
        }

        #[pymethods]
        impl $class {
            #[new]
            #[pyo3(signature = (fields, /))]
            fn new(fields: &Bound<'_, PyAny>) -> PyResult<PyClassInitializer<Self>> {
                Ok(PyClassInitializer::from(Record::from_mapping(&$shape, fields)?).add_subclass(Self))
            }

            $(
                #[getter]
                #[pyo3(name = $name)]
                fn $getter(slf: &Bound<'_, Self>) -> Py<PyAny> {
                    slf.as_super().get().field(slf.py(), const { place($class::NAMES, $name) })
                }
            )*
        }
    )*};
}

classes! {
    PromptTokensDetails PROMPT_TOKENS_DETAILS {
        cached_tokens "cached_tokens" Kind::Plain,
        cache_write_tokens "cache_write_tokens" Kind::Plain,
        audio_tokens "audio_tokens" Kind::Plain,
    }
    CompletionTokensDetails COMPLETION_TOKENS_DETAILS {
        reasoning_tokens "reasoning_tokens" Kind::Plain,
        audio_tokens "audio_tokens" Kind::Plain,
        accepted_prediction_tokens "accepted_prediction_tokens" Kind::Plain,
        rejected_prediction_tokens "rejected_prediction_tokens" Kind::Plain,
    }
    Function FUNCTION {
        function_name "name" Kind::Plain,
        arguments "arguments" Kind::Plain,
    }
    ToolCall TOOL_CALL {
        index "index" Kind::Plain,
        id "id" Kind::Plain,
        kind "type" Kind::Plain,
        function "function" Kind::Record(&FUNCTION),
    }
    ChoiceDelta CHOICE_DELTA {
        role "role" Kind::Plain,
        content "content" Kind::Plain,
        reasoning_content "reasoning_content" Kind::Plain,
        refusal "refusal" Kind::Plain,
        tool_calls "tool_calls" Kind::List(&TOOL_CALL),
        function_call "function_call" Kind::Record(&FUNCTION),
        audio "audio" Kind::Open,
        annotations "annotations" Kind::Open,
    }
    ChunkChoice CHUNK_CHOICE {
        index "index" Kind::Plain,
        delta "delta" Kind::Record(&CHOICE_DELTA),
        finish_reason "finish_reason" Kind::Plain,
        logprobs "logprobs" Kind::Open,
    }
    ChatCompletionChunk CHUNK {
        id "id" Kind::Plain,
        object "object" Kind::Plain,
        created "created" Kind::Plain,
        model "model" Kind::Plain,
        choices "choices" Kind::List(&CHUNK_CHOICE),
        usage "usage" Kind::Record(&USAGE),
        service_tier "service_tier" Kind::Plain,
        system_fingerprint "system_fingerprint" Kind::Plain,
    }
    ChatCompletionMessage MESSAGE subclass {
        role "role" Kind::Plain,
        content "content" Kind::Plain,
        reasoning_content "reasoning_content" Kind::Plain,
        refusal "refusal" Kind::Plain,
        tool_calls "tool_calls" Kind::List(&TOOL_CALL),
        function_call "function_call" Kind::Record(&FUNCTION),
        audio "audio" Kind::Open,
        annotations "annotations" Kind::Open,
    }
    Choice CHOICE subclass {
        index "index" Kind::Plain,
        message "message" Kind::Record(&MESSAGE),
        finish_reason "finish_reason" Kind::Plain,
        logprobs "logprobs" Kind::Open,
    }
    ChatCompletion COMPLETION subclass {
        id "id" Kind::Plain,
        object "object" Kind::Plain,
        created "created" Kind::Plain,
        model "model" Kind::Plain,
        choices "choices" Kind::List(&CHOICE),
        usage "usage" Kind::Record(&USAGE),
        service_tier "service_tier" Kind::Plain,
        system_fingerprint "system_fingerprint" Kind::Plain,
    }
}

/// Usage has provenance beside its fields, so it is written out: attributes that are no keys.
#[pyclass(extends = Record, frozen, module = "penstock._native")]
pub(crate) struct CompletionUsage {
    source: &'static str,
    complete: bool,
    /// The provider's object as JSON text; empty if there is none.
    raw: Box<[u8]>,
}

pub(crate) static USAGE: Shape = Shape {
    name: "CompletionUsage",
    fields: &[
        Field { name: "prompt_tokens", kind: Kind::Plain },
        Field { name: "completion_tokens", kind: Kind::Plain },
        Field { name: "total_tokens", kind: Kind::Plain },
        Field { name: "prompt_tokens_details", kind: Kind::Record(&PROMPT_TOKENS_DETAILS) },
        Field { name: "completion_tokens_details", kind: Kind::Record(&COMPLETION_TOKENS_DETAILS) },
    ],
    make: |py, record| {
        CompletionUsage { source: SOURCES[0], complete: true, raw: Box::default() }.into_object(py, record)
    },
    names: PyOnceLock::new(),
};

const SOURCES: [&str; 3] = ["reported", "partial", "estimated"];

impl CompletionUsage {
    fn into_object(self, py: Python<'_>, record: Record) -> PyResult<Py<Record>> {
        Ok(Bound::new(py, PyClassInitializer::from(record).add_subclass(self))?.into_super().unbind())
    }

    /// The usage of a stream or response, as core has it.
    pub(crate) fn build(py: Python<'_>, usage: &Usage) -> PyResult<Py<Record>> {
        let mut text = Vec::new();
        usage.write(&mut text);
        let record = json::build_record(py, &text, &USAGE)?;
        let source = if usage.complete { SOURCES[0] } else { SOURCES[1] };
        Self { source, complete: usage.complete, raw: usage.raw.clone().into_boxed_slice() }.into_object(py, record)
    }
}

#[pymethods]
impl CompletionUsage {
    #[new]
    #[pyo3(signature = (fields, /, *, source = "reported", complete = true, raw = None))]
    fn new(
        fields: &Bound<'_, PyAny>,
        source: &str,
        complete: bool,
        raw: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let source = SOURCES.into_iter().find(|known| *known == source).ok_or_else(|| {
            pyo3::exceptions::PyValueError::new_err(format!("source is one of {SOURCES:?}, not {source:?}"))
        })?;
        let raw: String = match raw {
            Some(raw) => {
                let py = raw.py();
                let raw = Record::from_mapping(&OPEN, raw)?.plain(py)?;
                py.import("json")?.call_method1("dumps", (raw,))?.extract()?
            }
            None => String::new(),
        };
        let usage = Self { source, complete, raw: raw.into_bytes().into_boxed_slice() };
        Ok(PyClassInitializer::from(Record::from_mapping(&USAGE, fields)?).add_subclass(usage))
    }

    #[getter]
    fn prompt_tokens(slf: &Bound<'_, Self>) -> Py<PyAny> {
        slf.as_super().get().field(slf.py(), 0)
    }

    #[getter]
    fn completion_tokens(slf: &Bound<'_, Self>) -> Py<PyAny> {
        slf.as_super().get().field(slf.py(), 1)
    }

    #[getter]
    fn total_tokens(slf: &Bound<'_, Self>) -> Py<PyAny> {
        slf.as_super().get().field(slf.py(), 2)
    }

    #[getter]
    fn prompt_tokens_details(slf: &Bound<'_, Self>) -> Py<PyAny> {
        slf.as_super().get().field(slf.py(), 3)
    }

    #[getter]
    fn completion_tokens_details(slf: &Bound<'_, Self>) -> Py<PyAny> {
        slf.as_super().get().field(slf.py(), 4)
    }

    #[getter]
    fn source<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::intern(py, self.source)
    }

    #[getter]
    fn complete<'py>(&self, py: Python<'py>) -> Bound<'py, PyBool> {
        PyBool::new(py, self.complete).to_owned()
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        if self.raw.is_empty() {
            return Ok(None);
        }
        json::build_dict(py, &self.raw, Kind::Plain).map(Some)
    }

    /// Says where the counts come from, unless they are the provider's final word.
    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let usage = slf.get();
        let known = usage.complete && usage.source == SOURCES[0];
        slf.as_super().get().shown(slf.py(), (!known).then(|| format!("source='{}'", usage.source)))
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        // Nothing in it can change.
        slf
    }

    /// Rebuilt by `functools.partial(CompletionUsage, ...)`, for `raw` and the rest are keywords.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyDict>,))> {
        let py = slf.py();
        let usage = slf.get();
        let keywords = PyDict::new(py);
        keywords.set_item("source", usage.source)?;
        keywords.set_item("complete", usage.complete)?;
        keywords.set_item("raw", usage.raw(py)?)?;
        let class: Bound<'py, PyType> = slf.get_type();
        let partial = py.import("functools")?.getattr("partial")?.call((class,), Some(&keywords))?;
        Ok((partial, (slf.as_super().get().plain(py)?,)))
    }
}
