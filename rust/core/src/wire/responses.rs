//! OpenAI's Responses API, also as others serve it.
//!
//! A response is a list of output items. Messages, reasoning and calls of functions become what Chat Completions calls
//! them. The items that have no place there, and reasoning as it has to be sent back, go whole into one field of the
//! delta: `output_items`. Events belong together by `output_index`, never by `item_id`, which some servers change from
//! event to event.

use std::collections::BTreeMap;

use super::error_body;
use super::template::{Filled, Template};
use crate::chunk::{Choice, Delta, Extra, Extras, Field, FinishReason, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Number, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// Between two parts of the reasoning.
const BLANK_LINE: &str = "\n\n";

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    /// By output index.
    items: BTreeMap<u32, Said>,
    /// The item and the part of it that the last reasoning belonged to.
    thought: Option<(u32, u32)>,
    template: Template,
}

/// What was streamed of one output item: its last event repeats it all.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of parts, each looked at by itself")]
struct Said {
    text: bool,
    refusal: bool,
    reasoning: bool,
    annotations: bool,
    /// A call's id and name.
    call: bool,
    /// A call's arguments.
    input: bool,
}

impl Responses {
    /// One event of a stream.
    pub(crate) fn frame(
        &mut self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let data = frame.data;
        if self.template.replay(frame, stream, sink) {
            return Ok(());
        }
        self.template.forget();
        if data.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        // Not of this API, but gateways send it.
        if data.starts_with(b"[DONE]") {
            stream.end(sink);
            return Ok(());
        }
        let invalid = |error| Error::invalid_json(error, data);
        let event = Event::read(data).map_err(|error| match frame.name {
            // An error event may be prose.
            b"error" => Error::new(Class::InternalServer, String::from_utf8_lossy(data)),
            _ => invalid(error),
        })?;
        match &*event.kind.bytes() {
            b"response.output_text.delta" => {
                self.said(event.output_index).text = true;
                match event.logprobs {
                    None => self.piece(Part::Content, &event, frame, stream, sink),
                    Some(logprobs) => {
                        let logprobs = chat_logprobs(logprobs);
                        let content = Field::Value(Text::Json(event.delta));
                        let delta = Delta { content, ..Delta::default() };
                        push(Choice { delta, logprobs: Field::Value(&logprobs), ..Choice::default() }, stream, sink);
                    }
                }
            }
            b"response.reasoning_summary_text.delta" | b"response.reasoning_text.delta" if !event.delta.is_empty() => {
                self.said(event.output_index).reasoning = true;
                let here = Some((event.output_index, event.part_index));
                if self.thought.is_some() && self.thought != here {
                    stream.piece(Part::Reasoning, 0, Text::Owned(BLANK_LINE.to_owned()), sink);
                }
                self.thought = here;
                self.piece(Part::Reasoning, &event, frame, stream, sink);
            }
            b"response.refusal.delta" => {
                self.said(event.output_index).refusal = true;
                let refusal = Field::Value(Text::Json(event.delta));
                push_delta(Delta { refusal, ..Delta::default() }, stream, sink);
            }
            b"response.function_call_arguments.delta" if !event.delta.is_empty() => {
                self.said(event.output_index).input = true;
                self.piece(Part::Arguments, &event, frame, stream, sink);
            }
            b"response.custom_tool_call_input.delta" => self.input(&event, event.delta, stream, sink),
            b"response.function_call_arguments.done" | b"response.custom_tool_call_input.done"
                if !self.said(event.output_index).input =>
            {
                self.input(&event, event.input, stream, sink);
            }
            b"response.output_text.annotation.added" => {
                self.said(event.output_index).annotations = true;
                if let Some(raw) = event.annotation {
                    let json = array(vec![annotation(Value::parse(raw).map_err(invalid)?)]);
                    push_delta(Delta { annotations: Some(&json), ..Delta::default() }, stream, sink);
                }
            }
            b"response.output_item.added" => {
                // Some servers count every item as the first: a new one has said nothing yet.
                self.items.insert(event.output_index, Said::default());
                if let Some(raw) = event.item {
                    let item = Item::read(raw).map_err(invalid)?;
                    // Its input follows, in pieces or at the latest when the item is done.
                    if let Some(call) = item.call(event.output_index, Said { input: true, ..Said::default() }) {
                        self.said(event.output_index).call = true;
                        push_delta(Delta { tool_calls: vec![call], ..Delta::default() }, stream, sink);
                    }
                }
            }
            b"response.output_item.done" => {
                if let Some(raw) = event.item {
                    let item = Item::read(raw).map_err(invalid)?;
                    self.complete(event.output_index, &item, stream, sink).map_err(invalid)?;
                }
            }
            b"response.created" | b"response.in_progress" | b"response.queued" => {
                let response = Response::read(event.response.unwrap_or(b"{}")).map_err(invalid)?;
                stream.push(Incoming { choices: vec![Choice::default()], ..response.incoming() }, sink);
            }
            b"response.completed" | b"response.incomplete" | b"response.failed" => {
                let response = Response::read(event.response.unwrap_or(b"{}")).map_err(invalid)?;
                // What was streamed counts, unless nothing was.
                response.conclude(data, self.items.is_empty(), stream, sink)?;
            }
            kind if kind == b"error" || frame.name == b"error" || (kind.is_empty() && event.has_error) => {
                return Err(failure(&Value::parse(data).map_err(invalid)?, data));
            }
            // Progress of tools that run on the server, texts that repeat what their deltas said, keep-alives.
            _ => {}
        }
        Ok(())
    }

    /// A single response: the one chunk that says it all.
    #[expect(clippy::unused_self, reason = "the same items in each family")]
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let response = Response::read(body).map_err(|error| Error::invalid_json(error, body))?;
        if !response.has_output && response.error.is_none() {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected a response with `output`, got {start:?}"),
            ));
        }
        response.conclude(body, true, stream, sink)
    }

    /// What was streamed of an item.
    fn said(&mut self, index: u32) -> &mut Said {
        self.items.entry(index).or_default()
    }

    /// The next piece of a text, and the events like this one that will follow.
    fn piece(&mut self, part: Part, event: &Event<'_>, frame: Frame<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        stream.piece(part, event.output_index, Text::Json(event.delta), sink);
        let fillers = [event.sequence, event.filler].into_iter().flatten();
        self.template.learn(frame, Filled { choice: 0, part, text: event.delta, usage: None }, fillers);
    }

    /// A call's whole arguments, or a piece of a custom one's input.
    fn input(&mut self, event: &Event<'_>, piece: Str<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        self.said(event.output_index).input |= !piece.is_empty();
        let custom = event.kind.raw().starts_with(b"response.custom_tool_call");
        if custom {
            let tool_calls = vec![arguments(event.output_index, Some(Text::Json(piece)), None, true)];
            push_delta(Delta { tool_calls, ..Delta::default() }, stream, sink);
        } else {
            stream.piece(Part::Arguments, event.output_index, Text::Json(piece), sink);
        }
    }

    /// `response.output_item.done`: whatever of the item was not streamed.
    fn complete(&mut self, index: u32, item: &Item<'_>, stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
        let mut draft = Draft::default();
        draft.add(index, item, *self.said(index))?;
        if !draft.reasoning.is_empty() {
            if self.thought.is_some() {
                draft.reasoning.insert_str(0, BLANK_LINE);
            }
            self.thought = Some((index, u32::MAX));
        }
        draft.push(Incoming::default(), Choice::default(), stream, sink);
        Ok(())
    }
}

/// One event, read but not yet judged.
#[derive(Default)]
struct Event<'a> {
    kind: Str<'a>,
    output_index: u32,
    /// `content_index` or `summary_index`.
    part_index: u32,
    delta: Str<'a>,
    /// A call's whole `arguments` or `input`.
    input: Str<'a>,
    logprobs: Option<&'a [u8]>,
    annotation: Option<&'a [u8]>,
    item: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    has_error: bool,
    /// A number that has gaps, and filler: nobody's data.
    sequence: Option<&'a [u8]>,
    filler: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    fn read(data: &'a [u8]) -> Result<Self> {
        let mut event = Event::default();
        let mut cursor = Cursor::new(data);
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                b"type" => event.kind = text(cursor)?,
                b"output_index" => event.output_index = index(cursor)?,
                b"content_index" | b"summary_index" => event.part_index = index(cursor)?,
                b"delta" => event.delta = text(cursor)?,
                b"arguments" | b"input" => event.input = text(cursor)?,
                b"logprobs" => event.logprobs = list_or_skip(cursor)?,
                b"annotation" => event.annotation = cursor.object_or_skip()?,
                b"item" => event.item = cursor.object_or_skip()?,
                b"response" => event.response = cursor.object_or_skip()?,
                b"error" => event.has_error = Value::read(cursor)?.is_truthy(),
                b"sequence_number" => event.sequence = Some(cursor.skip()?),
                b"obfuscation" => event.filler = Some(cursor.skip()?),
                _ => _ = cursor.skip()?,
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(event)
    }
}

/// A response: as it began, or whole.
#[derive(Default)]
struct Response<'a> {
    id: Option<Str<'a>>,
    created: Option<i64>,
    model: Option<Str<'a>>,
    service_tier: Field<Str<'a>>,
    status: Str<'a>,
    /// Why it is incomplete.
    reason: Option<Str<'a>>,
    error: Option<Value<'a>>,
    output: Vec<Item<'a>>,
    has_output: bool,
    usage: Option<&'a [u8]>,
    extra: Extras<'a>,
}

impl<'a> Response<'a> {
    fn read(data: &'a [u8]) -> Result<Self> {
        let mut response = Response::default();
        let mut cursor = Cursor::new(data);
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                b"id" => response.id = cursor.string_or_skip()?,
                b"created_at" => response.created = cursor.number_or_skip()?.map(Number::as_i64),
                b"model" => response.model = cursor.string_or_skip()?,
                b"service_tier" => response.service_tier = cursor.string_or_skip()?.into(),
                b"status" => response.status = text(cursor)?,
                b"incomplete_details" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                    match &*key.bytes() {
                        b"reason" => response.reason = cursor.string_or_skip()?,
                        _ => _ = cursor.skip()?,
                    }
                    Ok(())
                })?,
                b"error" => response.error = Some(Value::read(cursor)?).filter(Value::is_truthy),
                b"output" if cursor.kind()? == Kind::Array => {
                    response.has_output = true;
                    cursor.array(|cursor| {
                        if let Some(raw) = cursor.object_or_skip()? {
                            response.output.push(Item::read(raw)?);
                        }
                        Ok(())
                    })?;
                }
                b"usage" => response.usage = cursor.object_or_skip()?,
                // Said by others, or names that mean something else in a completion.
                b"object" | b"output_text" | b"choices" | b"created" | b"system_fingerprint" => _ = cursor.skip()?,
                _ => keep(cursor, key, &mut response.extra)?,
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(response)
    }

    fn incoming(&self) -> Incoming<'a> {
        Incoming { id: self.id, created: self.created, model: self.model, ..Incoming::default() }
    }

    /// The end of a response. `whole` says that its output was not streamed.
    fn conclude(
        mut self,
        data: &[u8],
        whole: bool,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, data);
        if let Some(raw) = self.usage {
            let counts = counts(raw).map_err(invalid)?;
            stream.account().report(counts, raw, true);
        }
        if self.error.is_some() || self.status.raw() == b"failed" {
            let error = self.error.unwrap_or(Value::Null);
            return Err(failure(&Value::Object(vec![("error".into(), error)]), data));
        }
        let mut draft = Draft::default();
        if whole {
            for (item, index) in std::mem::take(&mut self.output).into_iter().zip(0..) {
                draft.add(index, &item, Said::default()).map_err(invalid)?;
            }
        }
        let mut choice = Choice { finish_reason: self.finish_reason(), ..Choice::default() };
        if let Some(reason) = self.reason {
            let mut json = Vec::new();
            write_str(&mut json, &reason.decode());
            choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: json.into() });
        }
        let event =
            Incoming { service_tier: self.service_tier, extra: std::mem::take(&mut self.extra), ..self.incoming() };
        draft.push(event, choice, stream, sink);
        stream.end(sink);
        Ok(())
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        match (self.status.raw(), self.reason.map(Str::raw)) {
            (b"incomplete", Some(b"content_filter")) => Some(FinishReason::ContentFilter),
            (b"incomplete", _) => Some(FinishReason::Length),
            (b"queued" | b"in_progress" | b"cancelled", _) => None,
            _ => Some(FinishReason::Stop),
        }
    }
}

/// An item of the output: as it began, or whole.
#[derive(Default)]
struct Item<'a> {
    raw: &'a [u8],
    kind: Str<'a>,
    id: Option<Str<'a>>,
    call_id: Option<Str<'a>>,
    name: Option<Str<'a>>,
    /// A call's `arguments` or `input`.
    input: Option<Text<'a>>,
    content: Option<&'a [u8]>,
    summary: Option<&'a [u8]>,
    extra: Extras<'a>,
}

impl<'a> Item<'a> {
    fn read(raw: &'a [u8]) -> Result<Self> {
        let mut item = Item { raw, ..Item::default() };
        Cursor::new(raw).object(|cursor, key| {
            match &*key.bytes() {
                b"type" => item.kind = text(cursor)?,
                b"id" => item.id = cursor.string_or_skip()?,
                b"call_id" => item.call_id = cursor.string_or_skip()?,
                b"name" => item.name = cursor.string_or_skip()?,
                b"arguments" | b"input" => {
                    item.input = match cursor.kind()? {
                        Kind::String => Some(Text::Json(cursor.string()?)),
                        Kind::Null => cursor.null().map(|()| None)?,
                        // An object where its JSON text is due.
                        _ => Some(Text::Owned(String::from_utf8_lossy(cursor.skip()?).into_owned())),
                    }
                }
                b"content" => item.content = list_or_skip(cursor)?,
                b"summary" => item.summary = list_or_skip(cursor)?,
                b"status" => _ = cursor.skip()?,
                _ => keep(cursor, key, &mut item.extra)?,
            }
            Ok(())
        })?;
        Ok(item)
    }

    /// A call that the caller has to answer, less what was said of it.
    fn call(&self, index: u32, said: Said) -> Option<ToolCall<'a>> {
        let custom = match self.kind.raw() {
            b"function_call" => false,
            b"custom_tool_call" => true,
            _ => return None,
        };
        let input = self.input.clone().filter(|input| !said.input && !input.is_empty());
        let mut call = arguments(index, input, custom.then_some(self.name).flatten().filter(|_| !said.call), custom);
        if !said.call {
            // `id` is the item's own: what answers refer to is the `call_id`.
            call.id = self.call_id.or(self.id).map(Text::Json);
            call.function.name = self.name.filter(|_| !custom);
            call.extra.extend(self.extra.iter().cloned());
        }
        Some(call)
    }
}

/// A piece of a call. A custom one has neither function nor arguments, but an object of its own.
fn arguments<'a>(index: u32, piece: Option<Text<'a>>, name: Option<Str<'a>>, custom: bool) -> ToolCall<'a> {
    let mut call = ToolCall { index: Some(index), ..ToolCall::default() };
    if custom {
        let mut json = Vec::from(b"{");
        if let Some(name) = name {
            json.extend_from_slice(b"\"name\":");
            write_str(&mut json, &name.decode());
            json.push(b',');
        }
        json.extend_from_slice(b"\"input\":");
        write_str(&mut json, &piece.as_ref().map(Text::decode).unwrap_or_default());
        json.push(b'}');
        call.kind = Some(Str::plain("custom"));
        call.extra.push(Extra { key: Str::plain("custom"), json: json.into() });
    } else {
        call.function.arguments = piece;
    }
    call
}

/// What is left to say of items.
#[derive(Default)]
struct Draft<'a> {
    content: Field<Text<'a>>,
    reasoning: String,
    refusal: Field<Text<'a>>,
    calls: Vec<ToolCall<'a>>,
    annotations: Vec<Value<'a>>,
    logprobs: Vec<Value<'a>>,
    items: Vec<&'a [u8]>,
}

impl<'a> Draft<'a> {
    fn add(&mut self, index: u32, item: &Item<'a>, said: Said) -> Result<()> {
        match item.kind.raw() {
            b"message" => {
                for part in Content::read(item.content)? {
                    self.add_content(&part, said)?;
                }
            }
            b"reasoning" => {
                if !said.reasoning {
                    for part in Content::read(item.summary)?.into_iter().chain(Content::read(item.content)?) {
                        if !self.reasoning.is_empty() {
                            self.reasoning.push_str(BLANK_LINE);
                        }
                        self.reasoning.push_str(&part.text.decode());
                    }
                }
                self.items.push(item.raw);
            }
            b"function_call" | b"custom_tool_call" if said.call && said.input => {}
            b"function_call" | b"custom_tool_call" => self.calls.extend(item.call(index, said)),
            _ => self.items.push(item.raw),
        }
        Ok(())
    }

    fn add_content(&mut self, part: &Content<'a>, said: Said) -> Result<()> {
        match part.kind.raw() {
            b"output_text" if !said.text => {
                append(&mut self.content, part.text);
                self.logprobs.extend(part.logprobs.map(values).transpose()?.unwrap_or_default());
            }
            b"refusal" if !said.refusal => append(&mut self.refusal, part.refusal),
            _ => {}
        }
        if !said.annotations {
            let annotations = part.annotations.map(values).transpose()?.unwrap_or_default();
            self.annotations.extend(annotations.into_iter().map(annotation));
        }
        Ok(())
    }

    fn push(self, event: Incoming<'_>, choice: Choice<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        let Draft { content, reasoning, refusal, calls, annotations, logprobs, items } = self;
        let annotations = (!annotations.is_empty()).then(|| array(annotations));
        let logprobs = (!logprobs.is_empty()).then(|| chat_logprobs(&array(logprobs)));
        let annotations = annotations.as_deref();
        let mut delta = Delta { content, refusal, tool_calls: calls, annotations, ..Delta::default() };
        if !reasoning.is_empty() {
            delta.reasoning_content = Field::Value(Text::Owned(reasoning));
        }
        if !items.is_empty() {
            let json = [b"[", items.join(b",".as_slice()).as_slice(), b"]"].concat();
            delta.extra.push(Extra { key: Str::plain("output_items"), json: json.into() });
        }
        let logprobs = logprobs.as_deref().map_or(Field::Absent, Field::Value);
        stream.push(Incoming { choices: vec![Choice { delta, logprobs, ..choice }], ..event }, sink);
    }
}

/// A part of a message's or a reasoning's content.
#[derive(Default)]
struct Content<'a> {
    kind: Str<'a>,
    text: Str<'a>,
    refusal: Str<'a>,
    annotations: Option<&'a [u8]>,
    logprobs: Option<&'a [u8]>,
}

impl<'a> Content<'a> {
    fn read(list: Option<&'a [u8]>) -> Result<Vec<Self>> {
        let mut parts = Vec::new();
        Cursor::new(list.unwrap_or(b"[]")).array(|cursor| {
            let Some(raw) = cursor.object_or_skip()? else {
                return Ok(());
            };
            let mut part = Content::default();
            Cursor::new(raw).object(|cursor, key| {
                match &*key.bytes() {
                    b"type" => part.kind = text(cursor)?,
                    b"text" => part.text = text(cursor)?,
                    b"refusal" => part.refusal = text(cursor)?,
                    b"annotations" => part.annotations = list_or_skip(cursor)?,
                    b"logprobs" => part.logprobs = list_or_skip(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?;
            parts.push(part);
            Ok(())
        })?;
        Ok(parts)
    }
}

/// A citation of the web as Chat Completions gives it; of files, which it does not know, as it is.
fn annotation(given: Value<'_>) -> Value<'_> {
    let kind = given.get("type").and_then(Value::as_str);
    match given {
        Value::Object(mut fields) if kind == Some("url_citation") => {
            let kind = fields.iter().position(|(name, _)| name == "type").map(|place| fields.remove(place).1);
            let kind = kind.unwrap_or(Value::Null);
            Value::Object(vec![("type".into(), kind), ("url_citation".into(), Value::Object(fields))])
        }
        other => other,
    }
}

/// `logprobs` of a text, as Chat Completions nests them.
fn chat_logprobs(list: &[u8]) -> Vec<u8> {
    [b"{\"content\":", list, b"}"].concat()
}

fn counts(json: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    Cursor::new(json).object(|cursor, key| {
        match &*key.bytes() {
            b"input_tokens" => counts.prompt = usage::count(cursor)?,
            b"output_tokens" => counts.completion = usage::count(cursor)?,
            b"total_tokens" => counts.reported_total = usage::count(cursor)?,
            b"input_tokens_details" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"cached_tokens" => counts.cached = usage::count(cursor)?,
                    b"cache_write_tokens" => counts.cache_write = usage::count(cursor)?,
                    b"audio_tokens" => counts.prompt_audio = usage::count(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            b"output_tokens_details" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"reasoning_tokens" => counts.reasoning = usage::count(cursor)?,
                    b"audio_tokens" => counts.completion_audio = usage::count(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(counts)
}

/// The error of an `error` event, nested or flat, or of a response.
#[cold]
fn failure(value: &Value<'_>, data: &[u8]) -> Error {
    let mut error = error_body::from_value(None, value, data);
    // Of the codes without a class of their own, nearly all tell of something in the request.
    if let (Class::InternalServer, None, Some(code)) = (error.class, error.details.status, &error.details.code) {
        if code.contains("policy") {
            error.class = Class::ContentPolicyViolation;
        } else if !code.contains("server") && !code.contains("internal") {
            error.class = Class::BadRequest;
        }
    }
    error
}

fn push_delta(delta: Delta<'_>, stream: &mut Stream, sink: &mut impl Sink) {
    push(Choice { delta, ..Choice::default() }, stream, sink);
}

fn push(choice: Choice<'_>, stream: &mut Stream, sink: &mut impl Sink) {
    stream.push(Incoming { choices: vec![choice], ..Incoming::default() }, sink);
}

fn append<'a>(whole: &mut Field<Text<'a>>, piece: Str<'a>) {
    match whole {
        Field::Value(Text::Owned(text)) => text.push_str(&piece.decode()),
        Field::Value(text) if !text.is_empty() => {
            let text = text.decode().into_owned() + &piece.decode();
            *whole = Field::Value(Text::Owned(text));
        }
        _ => *whole = Field::Value(Text::Json(piece)),
    }
}

fn values(list: &[u8]) -> Result<Vec<Value<'_>>> {
    Ok(match Value::parse(list)? {
        Value::Array(values) => values,
        _ => Vec::new(),
    })
}

fn array(values: Vec<Value<'_>>) -> Vec<u8> {
    let mut json = Vec::new();
    Value::Array(values).write(&mut json);
    json
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Result<Str<'a>> {
    Ok(cursor.string_or_skip()?.unwrap_or_default())
}

fn index(cursor: &mut Cursor<'_>) -> Result<u32> {
    Ok(cursor.number_or_skip()?.and_then(|number| u32::try_from(number.as_i64()).ok()).unwrap_or(0))
}

/// Reads an array that is not empty.
fn list_or_skip<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>> {
    let raw = cursor.skip()?;
    Ok((raw.starts_with(b"[") && raw.iter().filter(|byte| !byte.is_ascii_whitespace()).nth(2).is_some()).then_some(raw))
}

/// Keeps a field that says something.
fn keep<'a>(cursor: &mut Cursor<'a>, key: Str<'a>, extra: &mut Extras<'a>) -> Result<()> {
    let json = cursor.skip()?;
    if json != b"null" {
        extra.push(Extra::new(key, json));
    }
    Ok(())
}
