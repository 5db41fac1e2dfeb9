//! What the decoder hands out, as Python objects: one sink for each depth.

use penstock_core::chunk::{Choice, Chunk, Delta, Extra, Field, Function, Text, ToolCall};
use penstock_core::json::Str;
use penstock_core::stream::{Part, Sink};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyString};

use crate::classes::{CHOICE_DELTA, CHUNK, CHUNK_CHOICE, CompletionUsage, FUNCTION, TOOL_CALL};
use crate::json;
use crate::record::{Record, SLOTS, Shape, Slots};

/// What the chunks of a stream share.
#[derive(Default)]
pub(crate) struct Memo {
    head: Option<[Py<PyAny>; 3]>,
    /// Of the last choice.
    index: u32,
    service_tier: Option<(Vec<u8>, Py<PyAny>)>,
    system_fingerprint: Option<(Vec<u8>, Py<PyAny>)>,
    /// The last chunk, with its last choice and that one's delta, to make the next one of.
    last: Option<Last>,
}

struct Last {
    chunk: Py<Record>,
    choice: Py<Record>,
    delta: Py<Record>,
    call: Option<Call>,
}

struct Call {
    call: Py<Record>,
    function: Py<Record>,
}

impl Last {
    /// The same chunk with another text.
    fn again(&self, py: Python<'_>, part: Part, text: Py<PyAny>) -> PyResult<Py<Record>> {
        let (slot, value) = match (part, &self.call) {
            (Part::Content, _) => (slots::CONTENT, text),
            (Part::Reasoning, _) => (slots::REASONING_CONTENT, text),
            (Part::Arguments, Some(Call { call, function })) => {
                let function = Record::with(function, py, slots::ARGUMENTS, text)?;
                let call = Record::with(call, py, slots::FUNCTION, function.into_any())?;
                (slots::TOOL_CALLS, PyList::new(py, [call])?.into_any().unbind())
            }
            (Part::Arguments, None) => return Ok(self.chunk.clone_ref(py)),
        };
        let delta = Record::with(&self.delta, py, slot, value)?;
        let choice = Record::with(&self.choice, py, slots::DELTA, delta.into_any())?;
        let choices = PyList::new(py, [choice])?;
        Record::with(&self.chunk, py, slots::CHOICES, choices.into_any().unbind())
    }
}

/// Depth "chunks".
pub(crate) struct Chunks<'py, 'm> {
    pub(crate) memo: &'m mut Memo,
    pub(crate) items: Items<'py>,
}

/// Depth "text": choice 0's content.
pub(crate) struct Texts<'py, 'm> {
    pub(crate) memo: &'m mut Memo,
    pub(crate) items: Items<'py>,
}

/// Depth "raw": the bytes go elsewhere.
pub(crate) struct Nothing;

/// The list that a call returns, and the first thing that went wrong with it.
pub(crate) struct Items<'py> {
    pub(crate) list: Bound<'py, PyList>,
    failed: Option<PyErr>,
}

impl<'py> Items<'py> {
    pub(crate) fn new(py: Python<'py>) -> Self {
        Self { list: PyList::empty(py), failed: None }
    }

    fn add<T: IntoPyObject<'py>>(&mut self, item: PyResult<T>) {
        if self.failed.is_none() {
            self.failed = item.and_then(|item| self.list.append(item)).err();
        }
    }

    pub(crate) fn finish(self) -> PyResult<Bound<'py, PyList>> {
        match self.failed {
            None => Ok(self.list),
            Some(error) => Err(error),
        }
    }
}

impl Sink for Nothing {
    fn chunk(&mut self, _: &Chunk<'_>) {}
    fn again(&mut self, _: Part, _: &Text<'_>) {}
}

impl Sink for Texts<'_, '_> {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        for choice in &chunk.choices {
            self.memo.index = choice.index;
            if let Field::Value(text) = &choice.delta.content {
                self.again(Part::Content, text);
            }
        }
    }

    fn again(&mut self, part: Part, text: &Text<'_>) {
        if self.memo.index == 0 && part == Part::Content && !text.is_empty() {
            let text = text_object(self.items.list.py(), text);
            self.items.add(Ok(text));
        }
    }
}

impl Sink for Chunks<'_, '_> {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        let item = build_chunk(self.items.list.py(), chunk, self.memo);
        self.items.add(item);
    }

    fn again(&mut self, part: Part, text: &Text<'_>) {
        let py = self.items.list.py();
        if let Some(last) = &self.memo.last {
            let text = text_object(py, text).into_any().unbind();
            let item = last.again(py, part, text);
            self.items.add(item);
        }
    }
}

/// The places of the fields that change from chunk to chunk.
mod slots {
    use crate::classes::{ChatCompletionChunk, ChoiceDelta, ChunkChoice, Function, ToolCall, place};

    pub(super) const CHOICES: usize = place(ChatCompletionChunk::NAMES, "choices");
    pub(super) const DELTA: usize = place(ChunkChoice::NAMES, "delta");
    pub(super) const CONTENT: usize = place(ChoiceDelta::NAMES, "content");
    pub(super) const REASONING_CONTENT: usize = place(ChoiceDelta::NAMES, "reasoning_content");
    pub(super) const TOOL_CALLS: usize = place(ChoiceDelta::NAMES, "tool_calls");
    pub(super) const FUNCTION: usize = place(ToolCall::NAMES, "function");
    pub(super) const ARGUMENTS: usize = place(Function::NAMES, "arguments");
}

fn build_chunk(py: Python<'_>, chunk: &Chunk<'_>, memo: &mut Memo) -> PyResult<Py<Record>> {
    let mut last = None;
    let choices = PyList::empty(py);
    for choice in &chunk.choices {
        let (delta, call) = build_delta(py, &choice.delta)?;
        let choice = build_choice(py, choice, delta.clone_ref(py))?;
        choices.append(&choice)?;
        last = Some((choice, delta, call));
    }
    memo.index = chunk.choices.last().map_or(0, |choice| choice.index);
    let usage = match chunk.usage {
        Field::Absent => None,
        Field::Null => Some(py.None()),
        Field::Value(usage) => Some(CompletionUsage::build(py, usage)?.into_any()),
    };
    let [id, created, model] = memo.head.get_or_insert_with(|| {
        [
            PyString::new(py, &chunk.head.id).into_any().unbind(),
            PyInt::new(py, chunk.head.created).into_any().unbind(),
            PyString::new(py, &chunk.head.model).into_any().unbind(),
        ]
    });
    let slots = [
        Some(id.clone_ref(py)),
        Some(intern!(py, "chat.completion.chunk").clone().into_any().unbind()),
        Some(created.clone_ref(py)),
        Some(model.clone_ref(py)),
        Some(choices.into_any().unbind()),
        usage,
        remembered(py, chunk.service_tier, &mut memo.service_tier),
        remembered(py, chunk.system_fingerprint, &mut memo.system_fingerprint),
    ];
    let object = build(py, &CHUNK, slots, &chunk.extra)?;
    memo.last = last.map(|(choice, delta, call)| Last { chunk: object.clone_ref(py), choice, delta, call });
    Ok(object)
}

fn build_choice(py: Python<'_>, choice: &Choice<'_>, delta: Py<Record>) -> PyResult<Py<Record>> {
    let logprobs = match choice.logprobs {
        Field::Absent => None,
        Field::Null => Some(py.None()),
        Field::Value(json) => Some(json::build_open(py, json)?),
    };
    let reason = match choice.finish_reason {
        None => py.None(),
        Some(reason) => PyString::intern(py, reason.as_str()).into_any().unbind(),
    };
    let index = PyInt::new(py, choice.index).into_any().unbind();
    build(py, &CHUNK_CHOICE, filled([Some(index), Some(delta.into_any()), Some(reason), logprobs]), &choice.extra)
}

/// The delta, and the last tool call in it.
fn build_delta(py: Python<'_>, delta: &Delta<'_>) -> PyResult<(Py<Record>, Option<Call>)> {
    let text = |field: &Field<Text<'_>>| match field {
        Field::Absent => None,
        Field::Null => Some(py.None()),
        Field::Value(text) => Some(text_object(py, text).into_any().unbind()),
    };
    let (mut tool_calls, mut last) = (None, None);
    if !delta.tool_calls.is_empty() {
        let calls = PyList::empty(py);
        for call in &delta.tool_calls {
            let function = build_function(py, &call.function)?;
            let call = build_call(py, call, function.clone_ref(py))?;
            calls.append(&call)?;
            last = Some(Call { call, function });
        }
        tool_calls = Some(calls.into_any().unbind());
    }
    let role = delta.role.map(|role| match role.raw() {
        b"assistant" => intern!(py, "assistant").clone().into_any().unbind(),
        _ => json::text(py, role).into_any().unbind(),
    });
    let function_call = match &delta.function_call {
        None => None,
        Some(function) => Some(build_function(py, function)?.into_any()),
    };
    let slots = [
        role,
        text(&delta.content),
        text(&delta.reasoning_content),
        text(&delta.refusal),
        tool_calls,
        function_call,
        delta.audio.map(|json| json::build_open(py, json)).transpose()?,
        delta.annotations.map(|json| json::build_open(py, json)).transpose()?,
    ];
    Ok((build(py, &CHOICE_DELTA, slots, &delta.extra)?, last))
}

fn build_call(py: Python<'_>, call: &ToolCall<'_>, function: Py<Record>) -> PyResult<Py<Record>> {
    let has_function = call.function.name.is_some() || call.function.arguments.is_some();
    let slots = filled([
        call.index.map(|index| PyInt::new(py, index).into_any().unbind()),
        call.id.as_ref().map(|id| text_object(py, id).into_any().unbind()),
        call.kind.map(|kind| json::text(py, kind).into_any().unbind()),
        has_function.then(|| function.into_any()),
    ]);
    build(py, &TOOL_CALL, slots, &call.extra)
}

fn build_function(py: Python<'_>, function: &Function<'_>) -> PyResult<Py<Record>> {
    let name = function.name.map(|name| json::text(py, name).into_any().unbind());
    let arguments = function.arguments.as_ref().map(|text| text_object(py, text).into_any().unbind());
    build(py, &FUNCTION, filled([name, arguments]), &[])
}

/// The first slots; the rest is absent.
fn filled<const N: usize>(values: [Option<Py<PyAny>>; N]) -> Slots {
    let mut slots = [const { None }; SLOTS];
    for (slot, value) in slots.iter_mut().zip(values) {
        *slot = value;
    }
    slots
}

fn build(py: Python<'_>, shape: &'static Shape, slots: Slots, extras: &[Extra<'_>]) -> PyResult<Py<Record>> {
    let mut others = Vec::new();
    for Extra { key, json } in extras {
        json::add_other(&mut others, *key, json);
    }
    Record::new(shape, slots, json::end_others(others)).into_object(py)
}

fn text_object<'py>(py: Python<'py>, text: &Text<'_>) -> Bound<'py, PyString> {
    match text {
        Text::Json(text) => json::text(py, *text),
        Text::Owned(text) => PyString::new(py, text),
    }
}

/// A value that hardly ever changes from chunk to chunk.
fn remembered(py: Python<'_>, field: Field<Str<'_>>, memo: &mut Option<(Vec<u8>, Py<PyAny>)>) -> Option<Py<PyAny>> {
    let text = match field {
        Field::Absent => return None,
        Field::Null => return Some(py.None()),
        Field::Value(text) => text,
    };
    match memo {
        Some((bytes, object)) if bytes == text.raw() => Some(object.clone_ref(py)),
        _ => {
            let object = json::text(py, text).into_any().unbind();
            *memo = Some((text.raw().to_vec(), object.clone_ref(py)));
            Some(object)
        }
    }
}
