//! Cohere's chat: the events and responses of version 2, and those of version 1.

use super::error_body;
use super::template::{Filled, Template};
use crate::chunk::{Choice, Delta, Extra, Field, FinishReason, Function, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Cohere {
    /// Whether pieces of calls have come. Version 1 sends all of it once more when they are whole.
    called: bool,
    /// Calls without arguments so far: a tool without parameters gets no piece of them at all.
    bare: Vec<u32>,
    template: Template,
}

impl Cohere {
    /// One event of a stream.
    pub(crate) fn frame(
        &mut self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        if self.template.replay(frame, stream, sink) {
            return Ok(());
        }
        self.template.forget();
        let data = frame.data;
        if data.starts_with(b"[DONE]") {
            stream.end(sink);
            return Ok(());
        }
        if data.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let document = read(data).map_err(|error| Error::invalid_json(error, data))?;
        let piece = document.piece();
        self.accept(document, data, stream, sink)?;
        if let Some(piece) = piece {
            self.template.learn(frame, piece, None);
        }
        Ok(())
    }

    /// A single response.
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let document = read(body).map_err(|error| Error::invalid_json(error, body))?;
        if !document.is_answer && !document.is_error {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(Class::ResponseValidation, format!("expected a chat response, got {start:?}")));
        }
        self.accept(document, body, stream, sink)?;
        stream.end(sink);
        Ok(())
    }

    fn accept(
        &mut self,
        mut document: Document<'_>,
        data: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, data);
        self.settle_calls(&mut document);
        let Document { event, mut choice, others, citations, logprobs, finish_reason, usage, is_error, .. } = document;
        let failed = finish_reason.is_some_and(|reason| !finish(&mut choice, reason));
        let annotations = citations.map(annotations).transpose().map_err(invalid)?.flatten();
        let content = logprobs.map(logprobs_content).transpose().map_err(invalid)?.flatten();
        // From here on the event borrows what was made of it too.
        let mut event: Incoming<'_> = event;
        let mut choice: Choice<'_> = choice;
        choice.delta.annotations = annotations.as_deref();
        match (&content, logprobs) {
            (Some(content), _) => choice.logprobs = Field::Value(content),
            (None, Some(raw)) => choice.extra.push(Extra::new(Str::plain("token_logprobs"), raw)),
            (None, None) => {}
        }
        if choice != Choice::default() {
            event.choices.push(choice);
        }
        for other in others {
            event.choices.push(other);
        }
        stream.push(event, sink);
        if let Some(raw) = usage {
            let counts = counts(raw).map_err(invalid)?;
            stream.account().report(counts, raw, true);
        }
        if is_error || failed {
            let value = Value::parse(data).map_err(invalid)?;
            return Err(failure(&value, finish_reason, data));
        }
        Ok(())
    }

    /// Gives the calls of an event their places, and those that end without arguments the empty object.
    fn settle_calls(&mut self, document: &mut Document<'_>) {
        let index = document.index;
        let kind = document.kind.map_or(&b""[..], Str::raw);
        let Delta { tool_calls: calls, reasoning_content: plan, .. } = &mut document.choice.delta;
        if document.is_copy && self.called {
            calls.clear();
            *plan = Field::Absent;
        }
        self.called |= kind == b"tool-calls-chunk";
        let ends = kind == b"tool-call-end";
        if calls.is_empty() && !ends && document.finish_reason.is_none() {
            return;
        }
        for (place, call) in calls.iter_mut().enumerate() {
            self.called = true;
            let place = call.index.or(index).unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX));
            call.index = Some(place);
            match &call.function.arguments {
                Some(arguments) if !arguments.is_empty() => self.bare.retain(|bare| *bare != place),
                _ if call.function.name.is_some() => self.bare.push(place),
                _ => {}
            }
        }
        let over = |bare: u32| document.finish_reason.is_some() || (ends && index.is_none_or(|index| index == bare));
        for place in self.bare.iter().copied().filter(|bare| over(*bare)) {
            calls.push(ToolCall {
                index: Some(place),
                function: Function { name: None, arguments: Some(Text::Owned("{}".to_owned())) },
                ..ToolCall::default()
            });
        }
        self.bare.retain(|bare| !over(*bare));
    }
}

/// An event or a response, read but not yet judged.
#[derive(Default)]
struct Document<'a> {
    kind: Option<Str<'a>>,
    /// Of the content block or of the tool call: each kind counts from 0.
    index: Option<u32>,
    event: Incoming<'a>,
    choice: Choice<'a>,
    /// The further generations of the oldest endpoint.
    others: Vec<Choice<'a>>,
    /// The calls are all that there are, maybe once more.
    is_copy: bool,
    /// An object or an array.
    citations: Option<&'a [u8]>,
    logprobs: Option<&'a [u8]>,
    finish_reason: Option<Str<'a>>,
    usage: Option<&'a [u8]>,
    is_error: bool,
    is_answer: bool,
}

impl<'a> Document<'a> {
    /// The text, where there is nothing else that would be news twice.
    fn piece(&self) -> Option<Filled<'a>> {
        let Delta { content, reasoning_content, tool_calls, extra, .. } = &self.choice.delta;
        let (part, text) = match (content, reasoning_content) {
            (Field::Value(Text::Json(text)), Field::Absent) => (Part::Content, *text),
            (Field::Absent, Field::Value(Text::Json(text))) => (Part::Reasoning, *text),
            _ => return None,
        };
        let plain = !self.is_answer
            && !self.is_error
            && self.others.is_empty()
            && self.citations.is_none()
            && self.logprobs.is_none()
            && self.finish_reason.is_none()
            && self.usage.is_none()
            && tool_calls.is_empty()
            && extra.is_empty();
        plain.then_some(Filled { choice: 0, part, text, usage: None })
    }
}

fn read(data: &[u8]) -> Result<Document<'_>> {
    let mut document = Document::default();
    // Of version 1: the answer, or beside tool calls the plan.
    let mut text = None;
    let mut message = false;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"type" | b"event_type" => document.kind = cursor.string_or_skip()?,
            b"index" => document.index = cursor.number_or_skip()?.and_then(|n| u32::try_from(n.as_i64()).ok()),
            b"id" | b"generation_id" => document.event.id = cursor.string_or_skip()?,
            b"delta" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| match &*key.bytes() {
                b"message" if cursor.kind()? == Kind::Object => read_message(cursor, &mut document),
                _ => read_end(cursor, key, &mut document),
            })?,
            b"message" if cursor.kind()? == Kind::Object => {
                document.is_answer = true;
                read_message(cursor, &mut document)?;
            }
            b"message" => message = cursor.string_or_skip()?.is_some(),
            b"text" => {
                document.is_answer = true;
                text = cursor.string_or_skip()?;
            }
            b"tool_call_delta" if cursor.kind()? == Kind::Object => {
                let call = read_call(cursor)?;
                document.choice.delta.tool_calls.push(call);
            }
            b"tool_calls" => {
                document.is_copy = true;
                read_calls(cursor, &mut document.choice.delta)?;
            }
            b"citations" => read_citations(cursor, &mut document)?,
            b"response" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"tool_calls" => {
                        document.is_copy = true;
                        read_calls(cursor, &mut document.choice.delta)
                    }
                    // The whole answer once more.
                    b"text" | b"citations" | b"documents" | b"search_queries" | b"search_results" => {
                        cursor.skip().map(drop)
                    }
                    _ => read_end(cursor, key, &mut document),
                }
            })?,
            b"generations" if cursor.kind()? == Kind::Array => {
                document.is_answer = true;
                let others = &mut document.others;
                cursor.array(|cursor| {
                    let generation = read_generation(cursor, others.len())?;
                    others.push(generation);
                    Ok(())
                })?;
            }
            _ => read_end(cursor, key, &mut document)?,
        }
        Ok(())
    })?;
    cursor.end()?;
    document.is_error |= message && document.kind.is_none();
    if let Some(text) = text {
        let delta = &mut document.choice.delta;
        let is_plan = document.kind.is_some_and(|kind| kind.raw().starts_with(b"tool-calls-"));
        add(if is_plan { &mut delta.reasoning_content } else { &mut delta.content }, text);
    }
    Ok(document)
}

/// What stands at the end of an answer: in the last event, in the response that it quotes, or in a single response.
fn read_end<'a>(cursor: &mut Cursor<'a>, key: Str<'a>, document: &mut Document<'a>) -> Result<()> {
    match &*key.bytes() {
        b"finish_reason" => {
            document.finish_reason = cursor.string_or_skip()?.filter(|reason| !reason.is_empty());
        }
        b"usage" | b"meta" => {
            let raw = cursor.skip()?;
            document.usage = raw.starts_with(b"{").then_some(raw);
        }
        b"error" => document.is_error |= Value::read(cursor)?.is_truthy(),
        b"logprobs" => {
            let raw = cursor.skip()?;
            document.logprobs = (raw.starts_with(b"{") || raw.starts_with(b"[")).then_some(raw);
        }
        // What version 1 repeats of the request, and what the caller knows by then.
        b"chat_history" | b"prompt" | b"is_finished" | b"response_id" | b"generation_id" | b"error_type" => {
            cursor.skip()?;
        }
        _ => document.event.extra.push(Extra::new(key, cursor.skip()?)),
    }
    Ok(())
}

fn read_message<'a>(cursor: &mut Cursor<'a>, document: &mut Document<'a>) -> Result<()> {
    cursor.object(|cursor, key| {
        let delta = &mut document.choice.delta;
        match &*key.bytes() {
            b"role" => delta.role = cursor.string_or_skip()?,
            b"content" => match cursor.kind()? {
                Kind::Object => read_block(cursor, delta)?,
                Kind::Array => cursor.array(|cursor| match cursor.kind()? {
                    Kind::Object => read_block(cursor, delta),
                    _ => cursor.skip().map(drop),
                })?,
                Kind::String => add(&mut delta.content, cursor.string()?),
                _ => _ = cursor.skip()?,
            },
            b"tool_plan" => {
                if let Some(text) = cursor.string_or_skip()? {
                    add(&mut delta.reasoning_content, text);
                }
            }
            b"tool_calls" => read_calls(cursor, delta)?,
            b"citations" => read_citations(cursor, document)?,
            _ => delta.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    })
}

/// A content block, or a piece of one.
fn read_block<'a>(cursor: &mut Cursor<'a>, delta: &mut Delta<'a>) -> Result<()> {
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"text" => {
                if let Some(text) = cursor.string_or_skip()? {
                    add(&mut delta.content, text);
                }
            }
            b"thinking" => {
                if let Some(text) = cursor.string_or_skip()? {
                    add(&mut delta.reasoning_content, text);
                }
            }
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })
}

/// Most events bring one piece: it stays where it is.
fn add<'a>(whole: &mut Field<Text<'a>>, piece: Str<'a>) {
    if piece.is_empty() {
        return;
    }
    *whole = match std::mem::take(whole) {
        Field::Value(text) => Field::Value(Text::Owned(text.decode().into_owned() + &piece.decode())),
        _ => Field::Value(Text::Json(piece)),
    };
}

/// One call in an event, a list of them in a response.
fn read_calls<'a>(cursor: &mut Cursor<'a>, delta: &mut Delta<'a>) -> Result<()> {
    match cursor.kind()? {
        Kind::Object => delta.tool_calls.push(read_call(cursor)?),
        Kind::Array => {
            delta.tool_calls.clear();
            cursor.array(|cursor| {
                delta.tool_calls.push(read_call(cursor)?);
                Ok(())
            })?;
        }
        _ => _ = cursor.skip()?,
    }
    Ok(())
}

/// Version 2 has OpenAI's calls, version 1 a name and parameters.
fn read_call<'a>(cursor: &mut Cursor<'a>) -> Result<ToolCall<'a>> {
    let mut call = ToolCall::default();
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"index" => call.index = cursor.number_or_skip()?.and_then(|n| u32::try_from(n.as_i64()).ok()),
            b"id" => call.id = cursor.string_or_skip()?.map(Text::Json),
            b"type" => call.kind = cursor.string_or_skip()?,
            b"function" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"name" => call.function.name = cursor.string_or_skip()?,
                    b"arguments" => call.function.arguments = arguments(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            b"name" => call.function.name = cursor.string_or_skip()?,
            b"parameters" => call.function.arguments = arguments(cursor)?,
            _ => call.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    })?;
    Ok(call)
}

fn arguments<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Text<'a>>> {
    Ok(match cursor.kind()? {
        Kind::String => Some(Text::Json(cursor.string()?)),
        Kind::Object => {
            let mut json = Vec::new();
            Value::read(cursor)?.write(&mut json);
            Some(Text::Owned(String::from_utf8_lossy(&json).into_owned()))
        }
        _ => cursor.skip().map(|_| None)?,
    })
}

/// Citations are kept as they are, in a list that grows; those with an address are annotations too.
fn read_citations<'a>(cursor: &mut Cursor<'a>, document: &mut Document<'a>) -> Result<()> {
    let kind = cursor.kind()?;
    let raw = cursor.skip()?;
    let name = Str::plain("citations");
    let extra = match kind {
        Kind::Object => Extra { key: name, json: [b"[", raw, b"]"].concat().into() },
        Kind::Array if Value::parse(raw)?.is_truthy() => Extra::new(name, raw),
        _ => return Ok(()),
    };
    document.citations = Some(raw);
    document.choice.delta.extra.push(extra);
    Ok(())
}

fn read_generation<'a>(cursor: &mut Cursor<'a>, place: usize) -> Result<Choice<'a>> {
    let mut choice = Choice { index: u32::try_from(place).unwrap_or(u32::MAX), ..Choice::default() };
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"text" => {
                if let Some(text) = cursor.string_or_skip()? {
                    add(&mut choice.delta.content, text);
                }
            }
            b"finish_reason" => {
                if let Some(reason) = cursor.string_or_skip()? {
                    finish(&mut choice, reason);
                }
            }
            _ => choice.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    })?;
    Ok(choice)
}

/// Ends a choice; false if the reason is a failure.
fn finish(choice: &mut Choice<'_>, reason: Str<'_>) -> bool {
    let known = match &*reason.bytes() {
        b"COMPLETE" | b"STOP_SEQUENCE" => FinishReason::Stop,
        b"MAX_TOKENS" => FinishReason::Length,
        b"TOOL_CALL" => FinishReason::ToolCalls,
        b"ERROR_TOXIC" => FinishReason::ContentFilter,
        b"ERROR" | b"TIMEOUT" | b"ERROR_LIMIT" => return false,
        _ => FinishReason::Other,
    };
    choice.finish_reason = Some(known);
    let mut json = Vec::new();
    write_str(&mut json, &reason.decode());
    choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: json.into() });
    true
}

/// The error of a body, or of an answer that ended with one.
fn failure(value: &Value<'_>, finish_reason: Option<Str<'_>>, data: &[u8]) -> Error {
    let inner = ["delta", "response"].into_iter().find_map(|name| value.get(name)).unwrap_or(value);
    let mut error = error_body::from_value(None, inner, data);
    let Some(reason) = finish_reason else {
        return error;
    };
    let reason = reason.decode();
    if ["error", "message"].iter().all(|name| inner.get(name).and_then(Value::as_str).is_none()) {
        error.message = format!("the provider ended its answer with finish_reason {reason:?}");
    }
    match &*reason {
        "TIMEOUT" => error.class = Class::Timeout,
        "ERROR_LIMIT" => error.class = Class::ContextWindowExceeded,
        _ => {}
    }
    error
}

/// The citations whose sources have an address. They count characters, as OpenAI does.
fn annotations(raw: &[u8]) -> Result<Option<Vec<u8>>> {
    let citations = match Value::parse(raw)? {
        Value::Array(citations) => citations,
        citation => vec![citation],
    };
    let mut found = Vec::new();
    for citation in &citations {
        let Some(Value::Array(sources)) = citation.get("sources") else {
            continue;
        };
        for source in sources {
            let document = source.get("document").or_else(|| source.get("tool_output"));
            let text = |name: &str| document.and_then(|document| document.get(name)).and_then(Value::as_str);
            let (Some(url), Some(start), Some(end)) = (text("url"), citation.get("start"), citation.get("end")) else {
                continue;
            };
            let place = Value::Object(vec![
                ("start_index".into(), start.clone()),
                ("end_index".into(), end.clone()),
                ("url".into(), Value::String(url.into())),
                ("title".into(), Value::String(text("title").unwrap_or_default().into())),
            ]);
            found.push(Value::Object(vec![
                ("type".into(), Value::String("url_citation".into())),
                ("url_citation".into(), place),
            ]));
        }
    }
    let mut json = Vec::new();
    Value::Array(found).write(&mut json);
    Ok((json != b"[]").then_some(json))
}

/// The log probabilities as OpenAI has them, if every entry is one token; of a longer one nobody knows where in its
/// text the tokens begin.
fn logprobs_content(raw: &[u8]) -> Result<Option<Vec<u8>>> {
    let entries = match Value::parse(raw)? {
        Value::Array(entries) => entries,
        entry => vec![entry],
    };
    let content = entries.iter().map(|entry| {
        let (Some(text), Some(Value::Array(logprobs))) = (entry.get("text"), entry.get("logprobs")) else {
            return None;
        };
        let [logprob] = logprobs.as_slice() else {
            return None;
        };
        Some(Value::Object(vec![
            ("token".into(), text.clone()),
            ("logprob".into(), logprob.clone()),
            ("bytes".into(), Value::Null),
            ("top_logprobs".into(), Value::Array(Vec::new())),
        ]))
    });
    Ok(content.collect::<Option<Vec<_>>>().map(|content| {
        let mut json = Vec::new();
        Value::Object(vec![("content".into(), Value::Array(content))]).write(&mut json);
        json
    }))
}

/// Reads a `usage`, or the `meta` of version 1: what the model read and wrote, not what is charged for; that only where
/// there is nothing else, and then the cached tokens are no part of it.
fn counts(raw: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut billed = Counts::default();
    let mut cached = None;
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"tokens" if cursor.kind()? == Kind::Object => read_counts(cursor, &mut counts)?,
            b"billed_units" if cursor.kind()? == Kind::Object => read_counts(cursor, &mut billed)?,
            b"cached_tokens" => cached = usage::count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    if counts.prompt.is_none() && counts.completion.is_none() {
        return Ok(billed);
    }
    counts.cached = cached;
    Ok(counts)
}

fn read_counts(cursor: &mut Cursor<'_>, counts: &mut Counts) -> Result<()> {
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"input_tokens" => counts.prompt = usage::count(cursor)?,
            b"output_tokens" => counts.completion = usage::count(cursor)?,
            b"reasoning_tokens" => counts.reasoning = usage::count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })
}
