//! Anthropic's Messages: a message is a list of blocks, one after another, each with its pieces.
//!
//! What a wire read as `thinking_blocks` and `content_blocks` becomes blocks again. Other choices than the first, audio
//! and logprobs have no place here. A count that nobody knows is 0: clients add these up.

use super::{Events, Places, quoted};
use crate::assemble::THINKING_BLOCKS;
use crate::chunk::{Choice, Chunk, Delta, Extra, Extras, Field, FinishReason, Head, Text, ToolCall};
use crate::error::{Class, Error};
use crate::json::{Cursor, Object, Result, Value, write_json, write_str};
use crate::stream::{Part, Sink};
use crate::usage::{Usage, count_of};
use crate::wire::anthropic::{CONTENT_BLOCKS, finish_reason};

/// Writes chunks as the events of a message.
#[derive(Debug, Default)]
pub struct MessagesWriter {
    model: Option<String>,
    events: Events,
    begun: bool,
    /// The block that has begun and not ended.
    open: Option<Open>,
    /// The index of the next block.
    next: u32,
    calls: Vec<Call>,
    /// The place of the call that the last piece belonged to.
    last_call: usize,
    /// The last chunk said nothing that has a place here.
    elsewhere: bool,
    ending: Ending,
    /// The usage as chat completions tell it.
    usage: Option<Value<'static>>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    Call,
}

#[derive(Debug, Default)]
struct Call {
    /// Among the calls of the choice.
    index: u32,
    /// Its block; None as long as it has no name to begin with.
    block: Option<u32>,
    id: String,
    /// What comes before the name.
    held: String,
    /// Some of its arguments have come.
    spoken: bool,
}

/// How the message ends.
#[derive(Debug, Default)]
struct Ending {
    reason: Option<&'static str>,
    /// JSON text, by name: what stands beside the reason, and beside both.
    delta: Vec<(&'static str, Vec<u8>)>,
    event: Vec<(&'static str, Vec<u8>)>,
}

impl MessagesWriter {
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

    /// The end of a stream that is whole: why it ended, its usage, and that it is over.
    pub fn done(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.begin(&Head::default());
        self.name_calls();
        self.close();
        let Self { ending, usage, calls, .. } = self;
        // Some servers never say why.
        let unsaid = if calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        let reason = ending.reason.unwrap_or_else(|| stop_reason(unsaid, None));
        self.events.event("message_delta", |event| {
            let mut delta = Object::begin(event.key("delta"));
            delta.text("stop_reason", reason);
            if ending.delta.iter().all(|(name, _)| *name != "stop_sequence") {
                delta.null("stop_sequence");
            }
            for (name, json) in &ending.delta {
                delta.key(name).extend_from_slice(json);
            }
            delta.end();
            write_usage(usage.as_ref(), event.key("usage"));
            for (name, json) in &ending.event {
                event.key(name).extend_from_slice(json);
            }
        });
        self.events.event("message_stop", |_| {});
    }

    /// The end of a stream that failed: nothing follows, so that nobody takes it for a whole one.
    pub fn error(&mut self, error: &Error) {
        self.ended = true;
        let out = self.events.out();
        out.extend_from_slice(b"event: error\ndata: ");
        messages_error(error, out);
        out.extend_from_slice(b"\n\n");
    }

    fn begin(&mut self, head: &Head) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let model = self.model.as_deref().unwrap_or(&head.model);
        self.events.event("message_start", |event| {
            let mut message = Object::begin(event.key("message"));
            message.text("id", &head.id);
            message.text("type", "message");
            message.text("role", "assistant");
            message.text("model", model);
            message.key("content").extend_from_slice(b"[]");
            message.null("stop_reason");
            message.null("stop_sequence");
            // Nobody has told it yet: the end does.
            write_usage(None, message.key("usage"));
            message.end();
        });
    }

    /// Begins a block, after the end of the one before it.
    fn start(&mut self, open: Option<Open>, block: impl FnOnce(&mut Vec<u8>)) -> u32 {
        self.close();
        let index = self.next;
        self.next += 1;
        self.events.event("content_block_start", |event| {
            event.number("index", index);
            block(event.key("content_block"));
        });
        self.open = open;
        index
    }

    /// Begins a block of a text, unless it has begun.
    fn start_text(&mut self, open: Open) {
        if self.open == Some(open) {
            return;
        }
        let empty: &[u8] = match open {
            Open::Text => br#"{"type":"text","text":""}"#,
            _ => br#"{"type":"thinking","thinking":"","signature":""}"#,
        };
        self.start(Some(open), |out| out.extend_from_slice(empty));
    }

    /// A block that has no pieces.
    fn whole(&mut self, block: &Value<'_>) {
        self.start(None, |out| block.write(out));
        self.stop();
    }

    /// Ends the open block.
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.stop();
        }
    }

    fn stop(&mut self) {
        let index = self.next.saturating_sub(1);
        self.events.event("content_block_stop", |event| event.number("index", index));
    }

    /// A piece of a text. One of nothing is left out.
    fn piece(&mut self, part: Part, text: &Text<'_>) {
        if text.is_empty() {
            return;
        }
        let (kind, name) = match part {
            Part::Content => ("text_delta", "text"),
            Part::Reasoning => ("thinking_delta", "thinking"),
            Part::Arguments => ("input_json_delta", "partial_json"),
        };
        let index = match part {
            Part::Content => {
                self.start_text(Open::Text);
                self.next.saturating_sub(1)
            }
            Part::Reasoning => {
                self.start_text(Open::Thinking);
                self.next.saturating_sub(1)
            }
            // Also one that another call was begun after: nobody loses it who goes by the index.
            Part::Arguments => match self.calls.get_mut(self.last_call) {
                // No arguments, as some servers write them: an input is an object.
                Some(Call { spoken: false, .. }) if *text.decode() == *"null" => return,
                Some(Call { block: Some(index), spoken, .. }) => {
                    *spoken = true;
                    *index
                }
                Some(call) => return call.held.push_str(&text.decode()),
                None => return,
            },
        };
        let out = self.events.out();
        let start = out.len();
        out.extend_from_slice(b"event: content_block_delta\ndata: ");
        let mut event = Object::begin(out);
        event.text("type", "content_block_delta");
        event.number("index", index);
        let mut delta = Object::begin(event.key("delta"));
        delta.text("type", kind);
        let out = delta.key(name);
        let mut places = Places::default();
        *places.of(part) = Some(quoted(text, out));
        delta.end();
        event.end();
        self.events.end(start, places);
    }

    /// A piece of the open block that is not its text.
    fn delta(&mut self, kind: &'static str, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let index = self.next.saturating_sub(1);
        self.events.event("content_block_delta", |event| {
            event.number("index", index);
            let mut delta = Object::begin(event.key("delta"));
            delta.text("type", kind);
            write(delta.key(name));
            delta.end();
        });
    }

    fn thinking(&mut self, blocks: &[Value<'_>]) {
        for block in blocks {
            if block.get("type").and_then(Value::as_str) != Some("thinking") {
                self.whole(block);
                continue;
            }
            // Without a text it ends what was streamed; some send it with a piece of it each time.
            let text = block.get("thinking").and_then(Value::as_str).unwrap_or_default();
            self.piece(Part::Reasoning, &Text::Owned(text.to_owned()));
            let signature = block.get("signature").and_then(Value::as_str).unwrap_or_default();
            if !signature.is_empty() {
                // Its text may be nobody's to read.
                self.start_text(Open::Thinking);
                self.delta("signature_delta", "signature", |out| write_str(out, signature));
            }
            if text.is_empty() || !signature.is_empty() {
                self.close();
            }
        }
    }

    fn call(&mut self, call: &ToolCall<'_>) {
        let index = call.index.unwrap_or(0);
        let place = self.calls.iter().position(|known| known.index == index).unwrap_or_else(|| {
            self.calls.push(Call { index, ..Call::default() });
            self.calls.len() - 1
        });
        self.last_call = place;
        let Some(known) = self.calls.get_mut(place) else {
            return;
        };
        if let Some(id) = &call.id {
            known.id = id.decode().into_owned();
        }
        if known.block.is_none()
            && let Some(name) = call.function.name
        {
            self.start_call(place, &name.decode(), &call.extra);
        }
        if let Some(arguments) = &call.function.arguments {
            self.piece(Part::Arguments, arguments);
        }
    }

    fn start_call(&mut self, place: usize, name: &str, extra: &Extras<'_>) {
        let Some(call) = self.calls.get_mut(place) else {
            return;
        };
        let (id, held) = (std::mem::take(&mut call.id), std::mem::take(&mut call.held));
        let block = self.start(Some(Open::Call), |out| {
            let mut block = Object::begin(out);
            block.text("type", "tool_use");
            block.text("id", &id);
            block.text("name", name);
            block.key("input").extend_from_slice(b"{}");
            for Extra { key, json } in extra {
                write_json(block.given(&key.decode()), json);
            }
            block.end();
        });
        if let Some(call) = self.calls.get_mut(place) {
            call.block = Some(block);
        }
        self.last_call = place;
        self.piece(Part::Arguments, &Text::Owned(held));
    }

    /// Calls that never got a name are not kept back.
    fn name_calls(&mut self) {
        for place in 0..self.calls.len() {
            if self.calls.get(place).is_some_and(|call| call.block.is_none()) {
                self.start_call(place, "", &Extras::new());
            }
        }
    }

    fn say(&mut self, delta: &Delta<'_>) {
        let Delta { content, reasoning_content, refusal, tool_calls, annotations, extra, .. } = delta;
        let blocks = |name: &str| {
            let found = extra.iter().find(|extra| extra.key.raw() == name.as_bytes());
            found.map_or_else(Vec::new, |extra| items(&extra.json))
        };
        let thinking = blocks(THINKING_BLOCKS);
        // Where blocks have their text, the reasoning says it once more.
        let told = thinking.iter().any(|block| block.get("thinking").is_some());
        if let Field::Value(text) = reasoning_content
            && !told
        {
            self.piece(Part::Reasoning, text);
        }
        self.thinking(&thinking);
        for block in blocks(CONTENT_BLOCKS).iter().filter(|block| block.get("type").is_some()) {
            self.whole(block);
        }
        for text in [content, refusal] {
            if let Field::Value(text) = text {
                self.piece(Part::Content, text);
            }
        }
        for citation in annotations.map_or_else(Vec::new, items).into_iter().filter_map(citation) {
            self.start_text(Open::Text);
            self.delta("citations_delta", "citation", |out| citation.write(out));
        }
        for call in tool_calls {
            self.call(call);
        }
    }

    fn finish(&mut self, choice: &Choice<'_>, reason: FinishReason) {
        let provider = choice.extra.iter().find(|extra| extra.key.raw() == b"provider_finish_reason");
        let provider = provider.and_then(|extra| Value::parse(&extra.json).ok());
        self.ending.reason = Some(stop_reason(reason, provider.as_ref().and_then(Value::as_str)));
        for name in BESIDE_REASON {
            if let Some(extra) = choice.extra.iter().find(|extra| extra.key.raw() == name.as_bytes()) {
                keep(&mut self.ending.delta, name, &extra.json);
            }
        }
        self.name_calls();
        self.close();
    }
}

impl Sink for MessagesWriter {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        let Chunk { head, choices, usage, extra, .. } = chunk;
        self.begin(head);
        if let Field::Value(usage) = usage {
            self.usage = Some(told(usage));
        }
        for Extra { key, json } in extra {
            match key.raw() {
                b"container" => keep(&mut self.ending.delta, "container", json),
                b"context_management" => keep(&mut self.ending.event, "context_management", json),
                _ => {}
            }
        }
        // What this chunk wrote is what may be written again.
        self.events.forget();
        let choice = choices.iter().find(|choice| choice.index == 0);
        self.elsewhere = choice.is_none();
        if let Some(choice) = choice {
            self.say(&choice.delta);
            if let Some(reason) = choice.finish_reason {
                self.finish(choice, reason);
            }
        }
    }

    #[inline]
    fn again(&mut self, part: Part, text: &Text<'_>) {
        if self.events.has(part) {
            self.events.again(part, text);
        } else if !self.elsewhere {
            self.piece(part, text);
        }
    }
}

/// A chat completion, as JSON text, as a message. `model` is the name that the client knows the model by, in place of the
/// completion's own.
pub fn messages_response(completion: &[u8], model: Option<&str>, out: &mut Vec<u8>) -> Result<()> {
    let completion = Value::parse(completion)?;
    let text_of = |value: Option<&Value<'_>>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let choice = match completion.get("choices") {
        Some(Value::Array(choices)) => choices.first(),
        _ => None,
    };
    let choice = choice.unwrap_or(&Value::Null);
    let reason = match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => FinishReason::Length,
        Some("tool_calls" | "function_call") => FinishReason::ToolCalls,
        Some("content_filter") => FinishReason::ContentFilter,
        None if choice.get("message").is_some_and(|message| message.get("tool_calls").is_some()) => {
            FinishReason::ToolCalls
        }
        _ => FinishReason::Stop,
    };
    let provider = choice.get("provider_finish_reason").and_then(Value::as_str);
    let mut message = Object::begin(out);
    message.text("id", &text_of(completion.get("id")));
    message.text("type", "message");
    message.text("role", "assistant");
    message.text("model", model.unwrap_or(&text_of(completion.get("model"))));
    message.list("content", blocks(choice.get("message").unwrap_or(&Value::Null)), |block, out| block.write(out));
    message.text("stop_reason", stop_reason(reason, provider));
    if choice.get("stop_sequence").is_none() {
        message.null("stop_sequence");
    }
    for name in BESIDE_REASON {
        if let Some(value) = choice.get(name) {
            value.write(message.key(name));
        }
    }
    for name in ["container", "context_management"] {
        if let Some(value) = completion.get(name) {
            value.write(message.key(name));
        }
    }
    write_usage(completion.get("usage"), message.key("usage"));
    message.end();
    Ok(())
}

/// Appends Anthropic's JSON document for an error. What the provider calls it stays, if it is one of Anthropic's names.
pub fn messages_error(error: &Error, out: &mut Vec<u8>) {
    const KNOWN: [&str; 11] = [
        "invalid_request_error",
        "authentication_error",
        "billing_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "timeout_error",
        "api_error",
        "overloaded_error",
        "conflict_error",
    ];
    let given = error.details.kind.as_deref().filter(|kind| KNOWN.contains(kind));
    let kind = given.unwrap_or_else(|| match error.class {
        Class::Connection | Class::ResponseValidation | Class::InternalServer | Class::BadGateway => "api_error",
        _ if error.details.status == Some(413) => "request_too_large",
        class => super::kind(class),
    });
    let mut document = Object::begin(out);
    document.text("type", "error");
    let mut body = Object::begin(document.key("error"));
    body.text("type", kind);
    body.text("message", &error.message);
    body.end();
    document.end();
}

/// What is told beside the reason, under the same names.
const BESIDE_REASON: [&str; 2] = ["stop_sequence", "stop_details"];

/// The blocks of a chat completion's message.
fn blocks(message: &Value<'_>) -> Vec<Value<'static>> {
    let list = |name: &str| match message.get(name) {
        Some(Value::Array(items)) => items.iter().map(|item| item.clone().into_owned()).collect(),
        _ => Vec::new(),
    };
    let block = |kind: &'static str, fields: Vec<(&'static str, Value<'static>)>| {
        let kind = ("type", Value::String(kind.into()));
        Value::Object([kind].into_iter().chain(fields).map(|(name, value)| (name.into(), value)).collect())
    };
    let string = |text: &str| Value::String(text.to_owned().into());
    let said = |name: &str| message.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut found = list(THINKING_BLOCKS);
    if let Some(text) = said("reasoning_content")
        && found.is_empty()
    {
        found.push(block("thinking", vec![("thinking", string(text)), ("signature", string(""))]));
    }
    let others: Vec<_> = list(CONTENT_BLOCKS).into_iter().filter(|block| block.get("type").is_some()).collect();
    let answered: Vec<_> = others.iter().filter_map(|block| block.get("tool_use_id").cloned()).collect();
    // A turn that paused ends with the call of a tool of the server that is yet to run.
    let (pending, done) = others.into_iter().partition::<Vec<_>, _>(|block| {
        block.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("_tool_use"))
            && block.get("id").is_none_or(|id| !answered.contains(id))
    });
    found.extend(done);
    for name in ["content", "refusal"] {
        if let Some(text) = said(name) {
            found.push(block("text", vec![("text", string(text))]));
        }
    }
    let citations: Vec<_> = list("annotations").into_iter().filter_map(citation).collect();
    if !citations.is_empty()
        && let Some(text) = found.iter_mut().rfind(|block| block.get("text").is_some())
    {
        text.set("citations", Value::Array(citations));
    }
    found.extend(pending);
    for call in list("tool_calls") {
        let function = call.get("function").unwrap_or(&Value::Null);
        let given = |value: Option<&Value<'_>>| string(value.and_then(Value::as_str).unwrap_or_default());
        // Not JSON if it was cut short, and null where some servers mean none: an input is an object all the same.
        let arguments = function.get("arguments").and_then(Value::as_str).unwrap_or_default();
        let input = match Value::parse(arguments.as_bytes()) {
            Ok(Value::Null) | Err(_) => Value::Object(Vec::new()),
            Ok(input) => input.into_owned(),
        };
        let fields = vec![("id", given(call.get("id"))), ("name", given(function.get("name"))), ("input", input)];
        let mut made = block("tool_use", fields);
        if let Value::Object(fields) = call {
            for (name, value) in fields {
                if !matches!(&*name, "id" | "type" | "function") {
                    made.set(name, value);
                }
            }
        }
        found.push(made);
    }
    found
}

/// The provider's own reason, where it is one of this API's and means the same.
fn stop_reason(reason: FinishReason, provider: Option<&str>) -> &'static str {
    const KNOWN: [&str; 7] = [
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
    ];
    let same = |known: &&str| Some(*known) == provider && finish_reason(known.as_bytes()) == reason;
    KNOWN.into_iter().find(same).unwrap_or(match reason {
        FinishReason::Stop | FinishReason::Other => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ToolCalls | FinishReason::FunctionCall => "tool_use",
        FinishReason::ContentFilter => "refusal",
    })
}

/// An annotation as a citation: one of the web as this API has it, one of its own as it is, and None of anything else.
fn citation(annotation: Value<'static>) -> Option<Value<'static>> {
    let kind = annotation.get("type").and_then(Value::as_str)?.to_owned();
    if kind.ends_with("_location") {
        return Some(annotation);
    }
    let place = annotation.get("url_citation").filter(|_| kind == "url_citation")?;
    let given = |name: &str| place.get(name).filter(|value| value.as_str().is_some()).cloned();
    let mut made = Value::Object(vec![("type".into(), Value::String("web_search_result_location".into()))]);
    if let Value::Object(fields) = place {
        for (name, value) in fields.clone() {
            made.set(name, value);
        }
    }
    let empty = || Value::String("".into());
    let text = given("cited_text").or_else(|| given("content")).unwrap_or_else(empty);
    made.set("cited_text", text);
    // What it is sent back with; only the provider that made it can make one.
    made.set("encrypted_index", given("encrypted_index").unwrap_or_else(empty));
    Some(made)
}

/// The usage of chat completions as this API tells it: cached tokens beside the input, not in it.
fn write_usage(usage: Option<&Value<'_>>, out: &mut Vec<u8>) {
    /// Said by the counts; `input_tokens` and its like stand in no usage that this crate wrote.
    const SAID: [&str; 11] = [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens_details",
        "input_tokens_details",
    ];
    let usage = usage.unwrap_or(&Value::Null);
    let detail = |of: &str, name: &str| usage.get(of).and_then(|details| count_of(details, name));
    let read = detail("prompt_tokens_details", "cached_tokens");
    let written = detail("prompt_tokens_details", "cache_write_tokens");
    let prompt = count_of(usage, "prompt_tokens").unwrap_or(0);
    let mut object = Object::begin(out);
    object.number("input_tokens", prompt.saturating_sub(read.unwrap_or(0)).saturating_sub(written.unwrap_or(0)));
    for (name, count) in [("cache_creation_input_tokens", written), ("cache_read_input_tokens", read)] {
        if let Some(count) = count {
            object.number(name, count);
        }
    }
    object.number("output_tokens", count_of(usage, "completion_tokens").unwrap_or(0));
    if let Some(count) = detail("completion_tokens_details", "reasoning_tokens") {
        let mut details = Object::begin(object.key("output_tokens_details"));
        details.number("thinking_tokens", count);
        details.end();
    }
    if let Value::Object(fields) = usage {
        for (name, value) in fields {
            // A compaction is in the counts already: told once more it would be added once more.
            let is_counted = name == "iterations" && is_compacted(value);
            if !SAID.contains(&&**name) && !is_counted {
                value.write(object.given(name));
            }
        }
    }
    object.end();
}

fn is_compacted(iterations: &Value<'_>) -> bool {
    match iterations {
        Value::Array(steps) => steps.iter().any(|step| step.get("type").and_then(Value::as_str) == Some("compaction")),
        _ => false,
    }
}

fn told(usage: &Usage) -> Value<'static> {
    let mut json = Vec::new();
    usage.write(&mut json);
    Value::parse(&json).map_or(Value::Null, Value::into_owned)
}

/// The items of a list, as JSON text.
fn items(json: &[u8]) -> Vec<Value<'static>> {
    match Value::read(&mut Cursor::new(json)) {
        Ok(Value::Array(items)) => items.into_iter().map(Value::into_owned).collect(),
        _ => Vec::new(),
    }
}

fn keep(kept: &mut Vec<(&'static str, Vec<u8>)>, name: &'static str, json: &[u8]) {
    let mut line = Vec::new();
    write_json(&mut line, json);
    match kept.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = line,
        None => kept.push((name, line)),
    }
}
