//! OpenAI's Chat Completions and the dialects of the servers that are compatible with it.
//!
//! Any of their quirks may show up behind any gateway, so all are understood at once; only what one and the same
//! bytes mean differently from server to server is a [`Dialect`](crate::decoder::Dialect).

use super::error_body;
use super::template::{Filled, Template};
use crate::chunk::{Choice, Delta, Extra, Extras, Field, FinishReason, Function, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Number, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts, Read};

type Result<T> = std::result::Result<T, JsonError>;

/// Filler that hides the length of a chunk: nobody's data.
const FILLER: [&[u8]; 2] = [b"obfuscation", b"p"];

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    template: Template,
}

impl Chat {
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
        self.event(frame, stream, sink)
    }

    /// One that is not like the last. Apart, for its large frame on the stack costs those that are.
    #[inline(never)]
    fn event(&mut self, frame: Frame<'_>, stream: &mut Stream, sink: &mut impl Sink) -> std::result::Result<(), Error> {
        let data = frame.data;
        self.template.forget();
        if data.starts_with(b"[DONE]") {
            stream.end(sink);
            return Ok(());
        }
        if data.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let document = read(data).map_err(|error| match frame.name {
            // An error event may be prose.
            b"error" => Error::new(Class::InternalServer, String::from_utf8_lossy(data)),
            _ => Error::invalid_json(error, data),
        })?;
        let piece = document.piece();
        let filler = document.filler;
        accept(document, data, frame.name == b"error", stream, sink)?;
        if let Some(piece) = piece {
            self.template.learn(frame, piece, filler);
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
        let document = read(body).map_err(|error| Error::invalid_json(error, body))?;
        if !document.is_completion && document.error.is_none() {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected a chat completion with `choices`, got {start:?}"),
            ));
        }
        accept(document, body, false, stream, sink)?;
        stream.end(sink);
        Ok(())
    }
}

/// A document, read but not yet judged.
#[derive(Default)]
struct Document<'a> {
    event: Incoming<'a>,
    is_completion: bool,
    usage: Option<&'a [u8]>,
    /// Where other servers put it: in `x_groq`, in a choice, as `timings`.
    usage_elsewhere: Option<&'a [u8]>,
    timings: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
    /// The choices that have a whole message and no delta.
    whole: Vec<u32>,
    /// A finish reason that means failure.
    failure: Option<Str<'a>>,
    /// JSON text.
    filler: Option<&'a [u8]>,
}

impl<'a> Document<'a> {
    /// The text of one choice, where there is nothing else that would be news twice but the usage.
    fn piece(&self) -> Option<Filled<'a>> {
        let [choice] = self.event.choices.as_slice() else {
            return None;
        };
        let delta = &choice.delta;
        let (part, text) = match (&delta.content, &delta.reasoning_content, delta.tool_calls.as_slice()) {
            (Field::Value(Text::Json(text)), other, []) if is_blank(other) => (Part::Content, *text),
            (other, Field::Value(Text::Json(text)), []) if is_blank(other) => (Part::Reasoning, *text),
            (one, other, [call]) if is_blank(one) && is_blank(other) => match &call.function.arguments {
                Some(Text::Json(text)) if call.extra.is_empty() => (Part::Arguments, *text),
                _ => return None,
            },
            _ => return None,
        };
        let plain = self.usage_elsewhere.or(self.timings).is_none()
            && self.error.is_none()
            && self.failure.is_none()
            && choice.finish_reason.is_none()
            && !matches!(choice.logprobs, Field::Value(_))
            && !matches!(delta.refusal, Field::Value(_))
            && delta.function_call.is_none()
            && delta.audio.is_none()
            && delta.annotations.is_none()
            && delta.extra.iter().all(|extra| *extra.json == *b"null");
        // What is no report stands in the template as it is.
        let usage = self.usage.filter(|raw| read_counts(raw).is_some()).map(|raw| (raw, read_counts as Read));
        plain.then_some(Filled { choice: choice.index, part, text, usage })
    }
}

fn read_counts(raw: &[u8]) -> Option<Counts> {
    usage::openai_counts(raw).ok().filter(Counts::is_report)
}

fn accept(
    mut document: Document<'_>,
    data: &[u8],
    is_error: bool,
    stream: &mut Stream,
    sink: &mut impl Sink,
) -> std::result::Result<(), Error> {
    let no_choices = document.event.choices.is_empty();
    let failed = is_error || document.error.is_some();
    for choice in &mut document.event.choices {
        if document.whole.contains(&choice.index) && stream.has_spoken(choice.index) {
            // The whole message once more, at the end of its deltas.
            (choice.delta, choice.logprobs) = (Delta::default(), Field::Absent);
        }
    }
    if document.is_completion {
        stream.push(document.event, sink);
    }
    let last_word = no_choices || failed || stream.finished();
    let invalid = |error| Error::invalid_json(error, data);
    let mut reported = false;
    for raw in [document.usage, document.usage_elsewhere].into_iter().flatten() {
        let counts = usage::openai_counts(raw).map_err(invalid)?;
        reported = reported || stream.account().report(counts, raw, last_word);
    }
    if !reported
        && let Some(raw) = document.timings
        && stream.usage().is_none_or(|usage| timings_counts(&usage.raw).is_ok_and(|counts| counts.is_report()))
    {
        let counts = timings_counts(raw).map_err(invalid)?;
        stream.account().report(counts, raw, last_word);
    }
    if failed {
        let value = Value::parse(data).map_err(invalid)?;
        return Err(error_body::from_value(None, &value, data));
    }
    if let Some(reason) = document.failure {
        return Err(Error::new(
            Class::InternalServer,
            format!("the provider ended its answer with finish_reason {:?}", reason.decode()),
        ));
    }
    Ok(())
}

fn read(data: &[u8]) -> Result<Document<'_>> {
    let mut document = Document::default();
    let event = &mut document.event;
    // Of these two the document must have neither for a `message` or `detail` at its top to be an error.
    let mut plain_error = None;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"id" => event.id = cursor.string_or_skip()?,
            b"object" => {
                let object = cursor.string_or_skip()?;
                if object.is_some_and(|object| object.raw() == b"error") {
                    plain_error = Some(data);
                }
            }
            b"created" => event.created = cursor.number_or_skip()?.map(Number::as_i64),
            b"model" => event.model = cursor.string_or_skip()?,
            b"service_tier" => event.service_tier = string_field(cursor)?,
            b"system_fingerprint" => event.system_fingerprint = string_field(cursor)?,
            b"choices" if cursor.kind()? == Kind::Array => {
                document.is_completion = true;
                event.choices.clear();
                cursor.array(|cursor| {
                    let (choice, whole) = read_choice(cursor, &mut document.usage_elsewhere, &mut document.failure)?;
                    document.whole.extend(whole.then_some(choice.index));
                    event.choices.push(choice);
                    Ok(())
                })?;
            }
            b"choices" => _ = cursor.skip()?,
            b"usage" => document.usage = object_or_skip(cursor)?,
            b"error" => {
                let raw = cursor.skip()?;
                document.error = Value::parse(raw)?.is_truthy().then_some(raw);
            }
            b"detail" => {
                plain_error = Some(data);
                cursor.skip()?;
            }
            b"base_resp" if cursor.kind()? == Kind::Object => {
                let raw = cursor.skip()?;
                let failed = Value::parse(raw)?.get("status_code").is_some_and(Value::is_truthy);
                document.error = failed.then_some(raw).or(document.error);
            }
            b"x_groq" if cursor.kind()? == Kind::Object => {
                let raw = cursor.skip()?;
                Cursor::new(raw).object(|cursor, key| {
                    match &*key.bytes() {
                        b"usage" => document.usage_elsewhere = object_or_skip(cursor)?.or(document.usage_elsewhere),
                        b"error" => {
                            let raw = cursor.skip()?;
                            document.error = Value::parse(raw)?.is_truthy().then_some(raw).or(document.error);
                        }
                        _ => _ = cursor.skip()?,
                    }
                    Ok(())
                })?;
                event.extra.push(Extra::new(key, raw));
            }
            b"timings" => {
                let raw = cursor.skip()?;
                document.timings = raw.starts_with(b"{").then_some(raw);
                event.extra.push(Extra::new(key, raw));
            }
            key if FILLER.contains(&key) => document.filler = Some(cursor.skip()?),
            _ => keep(cursor, key, &mut event.extra)?,
        }
        Ok(())
    })?;
    cursor.end()?;
    if !document.is_completion {
        document.error = document.error.or(plain_error);
    }
    Ok(document)
}

/// Also says whether the choice is a whole message and no piece of one.
fn read_choice<'a>(
    cursor: &mut Cursor<'a>,
    usage: &mut Option<&'a [u8]>,
    failure: &mut Option<Str<'a>>,
) -> Result<(Choice<'a>, bool)> {
    let mut choice = Choice::default();
    let mut delta = None;
    let mut message = None;
    let mut text = None;
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"index" => choice.index = cursor.number_or_skip()?.map_or(0, |n| u32::try_from(n.as_i64()).unwrap_or(0)),
            b"delta" if cursor.kind()? == Kind::Object => delta = Some(read_delta(cursor, false)?),
            b"delta" => _ = cursor.skip()?,
            // A whole message: of a single response, or repeated beside the deltas.
            b"message" if cursor.kind()? == Kind::Object => {
                message = Some(cursor.with_raw(|cursor| read_delta(cursor, true))?);
            }
            // Legacy completions; also a copy of the delta's content.
            b"text" => text = Some(cursor.skip()?),
            b"finish_reason" => {
                if let Some(reason) = cursor.string_or_skip()?
                    && !reason.is_empty()
                {
                    match finish_reason(&reason.bytes()) {
                        Some((known, true)) => choice.finish_reason = Some(known),
                        Some((known, false)) => {
                            choice.finish_reason = Some(known);
                            let mut json = Vec::new();
                            write_str(&mut json, &reason.decode());
                            choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: json.into() });
                        }
                        None => *failure = Some(reason),
                    }
                }
            }
            b"logprobs" => {
                let raw = cursor.skip()?;
                choice.logprobs = if raw == b"null" { Field::Null } else { Field::Value(raw) };
            }
            b"usage" => *usage = object_or_skip(cursor)?.or(*usage),
            _ => keep(cursor, key, &mut choice.extra)?,
        }
        Ok(())
    })?;
    let whole = delta.is_none() && message.is_some();
    let copies = [("message", message.as_ref().map(|(_, raw)| *raw)), ("text", text)];
    choice.delta = match (delta, message, text) {
        (Some(delta), ..) => {
            choice.extra.extend(copies.into_iter().filter_map(|(name, raw)| Some(Extra::new(Str::plain(name), raw?))));
            delta
        }
        (None, Some((message, _)), _) => message,
        (None, None, Some(text)) => Delta { content: text_field(&mut Cursor::new(text))?, ..Delta::default() },
        (None, None, None) => Delta::default(),
    };
    Ok((choice, whole))
}

/// `whole` says that this is a message and no piece of one: its tool calls are counted by their place.
fn read_delta<'a>(cursor: &mut Cursor<'a>, whole: bool) -> Result<Delta<'a>> {
    let mut delta = Delta::default();
    let mut thinking = Field::Absent;
    let mut reasoning = Field::Absent;
    let mut details = None;
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"role" => delta.role = cursor.string_or_skip()?,
            b"content" => match cursor.kind()? {
                Kind::String => delta.content = Field::Value(Text::Json(cursor.string()?)),
                Kind::Null => {
                    cursor.null()?;
                    delta.content = Field::Null;
                }
                Kind::Array => thinking = read_parts(cursor, &mut delta)?,
                // Structured output that was not made a string again.
                _ => delta.content = Field::Value(Text::Owned(lossy(cursor.skip()?))),
            },
            b"reasoning_content" => delta.reasoning_content = text_field(cursor)?,
            b"reasoning" => reasoning = text_field(cursor)?,
            b"reasoning_details" => {
                let raw = cursor.skip()?;
                details = Some(raw);
                delta.extra.push(Extra::new(key, raw));
            }
            b"refusal" => delta.refusal = text_field(cursor)?,
            b"tool_calls" if cursor.kind()? == Kind::Array => {
                delta.tool_calls.clear();
                let calls = &mut delta.tool_calls;
                cursor.array(|cursor| {
                    let mut call = read_call(cursor)?;
                    if whole {
                        call.index = u32::try_from(calls.len()).ok();
                    }
                    calls.push(call);
                    Ok(())
                })?;
            }
            b"tool_calls" => _ = cursor.skip()?,
            b"function_call" => {
                delta.function_call = match cursor.kind()? {
                    Kind::Object => Some(read_function(cursor)?),
                    _ => cursor.skip().map(|_| None)?,
                }
            }
            b"audio" => delta.audio = object_or_skip(cursor)?,
            b"annotations" => {
                let raw = cursor.skip()?;
                delta.annotations = (raw.starts_with(b"[") && !is_empty_array(raw)).then_some(raw);
            }
            _ => keep(cursor, key, &mut delta.extra)?,
        }
        Ok(())
    })?;
    // Four places for one thing; the same text may stand in two of them.
    for other in [thinking, reasoning] {
        if matches!(delta.reasoning_content, Field::Absent) || (is_blank(&delta.reasoning_content) && !is_blank(&other))
        {
            delta.reasoning_content = other;
        }
    }
    if is_blank(&delta.reasoning_content)
        && let Some(text) = details.map(details_text).transpose()?.flatten()
    {
        delta.reasoning_content = Field::Value(Text::Owned(text));
    }
    Ok(delta)
}

/// Content as a list of typed parts: text is content, thinking is reasoning and given back, the rest stays as it is.
fn read_parts<'a>(cursor: &mut Cursor<'a>, delta: &mut Delta<'a>) -> Result<Field<Text<'a>>> {
    let raw = cursor.skip()?;
    let mut content = String::new();
    let mut reasoning = String::new();
    let mut others = false;
    if let Value::Array(parts) = Value::parse(raw)? {
        for part in &parts {
            let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
            match (kind, part.get("text").and_then(Value::as_str)) {
                ("text", Some(text)) => content.push_str(text),
                ("thinking" | "reasoning", _) => {
                    for list in [part.get("thinking"), part.get("summary")].into_iter().flatten() {
                        others |= append_texts(list, &mut reasoning);
                    }
                    others |= part.get("signature").is_some();
                }
                _ => others = true,
            }
        }
    }
    delta.content = if content.is_empty() { Field::Null } else { Field::Value(Text::Owned(content)) };
    if others {
        // OpenAI's `content` is text: the list is kept under a name of its own.
        delta.extra.push(Extra::new(Str::plain("content_parts"), raw));
    }
    Ok(if reasoning.is_empty() { Field::Absent } else { Field::Value(Text::Owned(reasoning)) })
}

/// True if there is a signature, which text does not hold.
fn append_texts(list: &Value<'_>, out: &mut String) -> bool {
    match list {
        Value::String(text) => {
            out.push_str(text);
            false
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(item.get("text").and_then(Value::as_str).unwrap_or_default());
            }
            items.iter().any(|item| item.get("signature").is_some())
        }
        _ => false,
    }
}

/// The readable text of `reasoning_details`, for servers that send nothing beside it.
fn details_text(raw: &[u8]) -> Result<Option<String>> {
    let mut text = String::new();
    if let Value::Array(items) = Value::parse(raw)? {
        for item in &items {
            let piece = item.get("text").or_else(|| item.get("summary")).and_then(Value::as_str);
            text.push_str(piece.unwrap_or_default());
        }
    }
    Ok((!text.is_empty()).then_some(text))
}

fn read_call<'a>(cursor: &mut Cursor<'a>) -> Result<ToolCall<'a>> {
    let mut call = ToolCall::default();
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"index" => call.index = cursor.number_or_skip()?.and_then(|n| u32::try_from(n.as_i64()).ok()),
            b"id" => call.id = cursor.string_or_skip()?.map(Text::Json),
            b"type" => call.kind = cursor.string_or_skip()?,
            b"function" if cursor.kind()? == Kind::Object => call.function = read_function(cursor)?,
            b"function" => _ = cursor.skip()?,
            _ => keep(cursor, key, &mut call.extra)?,
        }
        Ok(())
    })?;
    Ok(call)
}

fn read_function<'a>(cursor: &mut Cursor<'a>) -> Result<Function<'a>> {
    let mut function = Function::default();
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"name" => function.name = cursor.string_or_skip()?,
            b"arguments" => {
                function.arguments = match cursor.kind()? {
                    Kind::String => Some(Text::Json(cursor.string()?)),
                    Kind::Null => cursor.null().map(|()| None)?,
                    // An object where its JSON text is due.
                    _ => Some(Text::Owned(lossy(cursor.skip()?))),
                }
            }
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(function)
}

/// The reason as OpenAI names it, and whether the server does so too; None for a failure.
fn finish_reason(reason: &[u8]) -> Option<(FinishReason, bool)> {
    Some(match reason {
        b"stop" => (FinishReason::Stop, true),
        b"length" => (FinishReason::Length, true),
        b"tool_calls" => (FinishReason::ToolCalls, true),
        b"content_filter" => (FinishReason::ContentFilter, true),
        b"function_call" => (FinishReason::FunctionCall, true),
        b"model_length" | b"max_tokens" | b"model_context_window_exceeded" => (FinishReason::Length, false),
        b"sensitive" => (FinishReason::ContentFilter, false),
        b"insufficient_system_resource" | b"error" | b"network_error" | b"abort" => return None,
        _ => (FinishReason::Stop, false),
    })
}

/// llama.cpp's own measure, where it reports no usage: the cached part of the prompt comes beside the rest.
fn timings_counts(raw: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"prompt_n" => counts.prompt = usage::count(cursor)?,
            b"cache_n" => counts.cached = usage::count(cursor)?,
            b"predicted_n" => counts.completion = usage::count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    counts.prompt = counts.prompt.map(|prompt| prompt.saturating_add(counts.cached.unwrap_or(0)));
    Ok(counts)
}

fn keep<'a>(cursor: &mut Cursor<'a>, key: Str<'a>, extra: &mut Extras<'a>) -> Result<()> {
    extra.push(Extra::new(key, cursor.skip()?));
    Ok(())
}

fn string_field<'a>(cursor: &mut Cursor<'a>) -> Result<Field<Str<'a>>> {
    Ok(cursor.string_or_skip()?.into())
}

fn text_field<'a>(cursor: &mut Cursor<'a>) -> Result<Field<Text<'a>>> {
    Ok(cursor.string_or_skip()?.map(Text::Json).into())
}

fn object_or_skip<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>> {
    let raw = cursor.skip()?;
    Ok(raw.starts_with(b"{").then_some(raw))
}

fn is_blank(text: &Field<Text<'_>>) -> bool {
    !matches!(text, Field::Value(text) if !text.is_empty())
}

fn is_empty_array(raw: &[u8]) -> bool {
    raw.iter().filter(|byte| !byte.is_ascii_whitespace()).count() == 2
}

fn lossy(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}
