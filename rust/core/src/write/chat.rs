//! OpenAI's Chat Completions stream: `data: ` and a chunk for each event, `data: [DONE]` at the end.

use super::{Events, Places, error_body, push_str, quoted};
use crate::chunk::{Choice, Chunk, Delta, Extra, Field, FinishReason, Function, Head, Text, ToolCall};
use crate::error::Error;
use crate::json::{Object, Str, write_json};
use crate::stream::{OURS, Part, Sink};

/// Writes chunks as server-sent events.
#[derive(Debug, Default)]
pub struct ChatWriter {
    model: Option<String>,
    events: Events,
    /// What every event begins with, and whom it names.
    opening: Vec<u8>,
    head: Head,
}

impl ChatWriter {
    /// `model` is the name that the client knows the model by, in place of the stream's own.
    #[must_use]
    pub fn new(model: Option<String>) -> Self {
        Self { model, ..Self::default() }
    }

    /// What was written and not yet taken.
    pub fn take(&mut self) -> Vec<u8> {
        self.events.take()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn open(&mut self, head: &Head) {
        self.opening.clear();
        self.opening.extend_from_slice(b"data: ");
        let mut object = Object::begin(&mut self.opening);
        object.text("id", &head.id);
        object.text("object", "chat.completion.chunk");
        object.number("created", head.created);
        object.text("model", self.model.as_deref().unwrap_or(&head.model));
        self.head.clone_from(head);
    }

    /// The end of a stream that is whole.
    pub fn done(&mut self) {
        self.events.out().extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The end of a stream that failed: nothing follows, so that nobody takes it for a whole one.
    pub fn error(&mut self, error: &Error) {
        let out = self.events.out();
        out.extend_from_slice(b"data: ");
        error_body(error, out);
        out.extend_from_slice(b"\n\n");
    }
}

impl Sink for ChatWriter {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        let Chunk { head, service_tier, system_fingerprint, choices, usage, extra } = chunk;
        if self.opening.is_empty() || **head != self.head {
            self.open(head);
        }
        let out = self.events.out();
        let start = out.len();
        let mut places = Places::default();
        out.extend_from_slice(&self.opening);
        let mut object = Object::resume(out);
        field(&mut object, "service_tier", service_tier, |text, out| plain(*text, out));
        field(&mut object, "system_fingerprint", system_fingerprint, |text, out| plain(*text, out));
        object.list("choices", choices, |choice, out| write_choice(choice, &mut places, out));
        field(&mut object, "usage", usage, |usage, out| usage.write(out));
        // Who answered in truth is not for those who know the model by another name.
        extras(&mut object, extra.iter().filter(|extra| self.model.is_none() || !OURS.contains(&extra.key.raw())));
        object.end();
        self.events.end(start, places);
    }

    #[inline]
    fn again(&mut self, part: Part, text: &Text<'_>) {
        self.events.again(part, text);
    }
}

fn write_choice(choice: &Choice<'_>, places: &mut Places, out: &mut Vec<u8>) {
    let Choice { index, delta, finish_reason, logprobs, extra } = choice;
    let mut object = Object::begin(out);
    object.number("index", *index);
    write_delta(delta, places, object.key("delta"));
    field(&mut object, "logprobs", logprobs, |json, out| write_json(out, json));
    object.nullable("finish_reason", finish_reason.map(FinishReason::as_str));
    extras(&mut object, extra);
    object.end();
}

fn write_delta(delta: &Delta<'_>, places: &mut Places, out: &mut Vec<u8>) {
    let Delta { role, content, reasoning_content, refusal, tool_calls, function_call, audio, annotations, extra } =
        delta;
    let mut object = Object::begin(out);
    if let Some(role) = role {
        plain(*role, object.key("role"));
    }
    field(&mut object, "content", content, |text, out| places.content = Some(quoted(text, out)));
    field(&mut object, "reasoning_content", reasoning_content, |text, out| {
        places.reasoning = Some(quoted(text, out));
    });
    field(&mut object, "refusal", refusal, |text, out| _ = quoted(text, out));
    if !tool_calls.is_empty() {
        object.list("tool_calls", tool_calls, |call, out| write_call(call, places, out));
    }
    if let Some(function) = function_call {
        write_function(function, &mut Places::default(), object.key("function_call"));
    }
    if let Some(json) = audio {
        write_json(object.key("audio"), json);
    }
    if let Some(json) = annotations {
        write_json(object.key("annotations"), json);
    }
    extras(&mut object, extra);
    object.end();
}

fn write_call(call: &ToolCall<'_>, places: &mut Places, out: &mut Vec<u8>) {
    let ToolCall { index, id, kind, function, extra } = call;
    let mut object = Object::begin(out);
    object.number("index", index.unwrap_or(0));
    if let Some(id) = id {
        quoted(id, object.key("id"));
    }
    if let Some(kind) = kind {
        plain(*kind, object.key("type"));
    }
    // A custom tool has its own object, among the extras.
    if *function != Function::default() {
        write_function(function, places, object.key("function"));
    }
    extras(&mut object, extra);
    object.end();
}

fn write_function(function: &Function<'_>, places: &mut Places, out: &mut Vec<u8>) {
    let Function { name, arguments } = function;
    let mut object = Object::begin(out);
    if let Some(name) = name {
        plain(*name, object.key("name"));
    }
    if let Some(arguments) = arguments {
        places.arguments = Some(quoted(arguments, object.key("arguments")));
    }
    object.end();
}

fn field<T>(object: &mut Object<'_>, name: &'static str, field: &Field<T>, write: impl FnOnce(&T, &mut Vec<u8>)) {
    match field {
        Field::Absent => {}
        Field::Null => object.null(name),
        Field::Value(value) => write(value, object.key(name)),
    }
}

fn extras<'e>(object: &mut Object<'_>, extras: impl IntoIterator<Item = &'e Extra<'e>>) {
    for Extra { key, json } in extras {
        write_json(object.given(&key.decode()), json);
    }
}

fn plain(text: Str<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    push_str(out, text);
    out.push(b'"');
}
