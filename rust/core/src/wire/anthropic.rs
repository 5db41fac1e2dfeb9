//! Anthropic's Messages API, also as others serve it.
//!
//! A message is a list of typed blocks. Text, thinking and tool use become what OpenAI calls them. What OpenAI has no
//! place for goes into two fields of the delta, which have to be sent back when the conversation goes on:
//! `thinking_blocks` (thinking with its signature, redacted thinking; the text of a streamed one is the
//! `reasoning_content` since the block before it) and `content_blocks` (the calls and results of tools that run on the
//! server, compactions, blocks of unknown type; each whole, as the provider sends it).

use std::borrow::Cow;

use super::error_body;
use super::template::{Filled, Template};
use crate::assemble::THINKING_BLOCKS;
use crate::chunk::{Choice, Delta, Extra, Extras, Field, FinishReason, Function, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{Combine, Counts, count_of};

type Result<T> = std::result::Result<T, JsonError>;

pub(crate) const CONTENT_BLOCKS: &str = "content_blocks";

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Anthropic {
    /// The id of the message that has begun.
    message: Option<Vec<u8>>,
    /// The blocks that have begun and not ended; text needs nothing kept.
    open: Vec<Open>,
    template: Template,
}

#[derive(Debug)]
struct Open {
    index: u32,
    block: Unfinished,
}

/// What is needed at the end of a block.
#[derive(Debug)]
enum Unfinished {
    Thinking {
        /// A JSON string.
        signature: Vec<u8>,
    },
    Call {
        /// The JSON text that the block began with.
        input: String,
        streamed: bool,
    },
    Other {
        block: Value<'static>,
        input: String,
    },
}

impl Anthropic {
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
        // Gateways end the stream as they end all of theirs.
        if data.starts_with(b"[DONE]") {
            stream.end(sink);
            return Ok(());
        }
        let event = Event::read(data).map_err(|error| match frame.name {
            // An error event may be prose.
            b"error" => Error::new(Class::InternalServer, String::from_utf8_lossy(data)),
            _ => Error::invalid_json(error, data),
        })?;
        if event.is_error || frame.name == b"error" {
            return Err(failure(data));
        }
        let invalid = |error| Error::invalid_json(error, data);
        match &*event.kind.bytes() {
            b"content_block_delta" => {
                self.extend(event, frame, stream, sink);
                Ok(())
            }
            b"content_block_start" => self.start(&event, stream, sink).map_err(invalid),
            b"content_block_stop" => {
                self.close(Some(event.index), stream, sink);
                Ok(())
            }
            b"message_start" => self.begin(&event, stream, sink, data),
            b"message_delta" => self.conclude(event, stream, sink).map_err(invalid),
            b"message_stop" => {
                self.close(None, stream, sink);
                stream.end(sink);
                Ok(())
            }
            // Pings, and events that are yet to be announced.
            _ => Ok(()),
        }
    }

    /// A single response: the one chunk that says it all.
    #[expect(clippy::unused_self, reason = "the same items in each family")]
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let message = Message::read(body).map_err(|error| Error::invalid_json(error, body))?;
        if message.is_error {
            return Err(failure(body));
        }
        if !message.has_content {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected a message with `content`, got {start:?}"),
            ));
        }
        message.push(stream, sink, true).map_err(|error| Error::invalid_json(error, body))?;
        stream.end(sink);
        Ok(())
    }

    /// `message_start`. After programmatic tool calls it may hold the whole message.
    fn begin(
        &mut self,
        event: &Event<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
        data: &[u8],
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, data);
        let message = Message::read(event.message.unwrap_or(b"{}")).map_err(invalid)?;
        let id = message.id.unwrap_or_default();
        match &self.message {
            None => {
                self.message = Some(id.raw().to_vec());
                message.push(stream, sink, false).map_err(invalid)
            }
            // A proxy's fault: the event twice, or two streams in one.
            Some(known) if known == id.raw() => Ok(()),
            Some(_) => Err(Error::new(
                Class::ResponseValidation,
                format!("a second message ({:?}) began inside the stream of the first", id.decode()),
            )),
        }
    }

    /// `content_block_start`
    fn start(&mut self, event: &Event<'_>, stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
        let index = event.index;
        self.close(Some(index), stream, sink);
        let Some(raw) = event.block else {
            return Ok(());
        };
        let block = Block::read(&mut Cursor::new(raw))?;
        let mut delta = Delta::default();
        let mut annotations = Vec::new();
        let unfinished = match &*block.kind.bytes() {
            b"text" => {
                delta.content = Field::Value(Text::Json(block.text));
                annotations = block.annotations()?;
                None
            }
            b"thinking" => {
                delta.reasoning_content = Field::Value(Text::Json(block.thinking));
                Some(Unfinished::Thinking { signature: quoted(block.signature) })
            }
            b"redacted_thinking" => {
                delta.extra.push(list(THINKING_BLOCKS, [raw]));
                None
            }
            b"tool_use" => {
                let input = block.arguments();
                delta.tool_calls.push(ToolCall {
                    index: Some(index),
                    id: block.id.map(Text::Json),
                    function: Function { name: block.name, arguments: None },
                    extra: block.extra,
                    ..ToolCall::default()
                });
                Some(Unfinished::Call { input, streamed: false })
            }
            _ => Some(Unfinished::Other { block: Value::parse(raw)?.into_owned(), input: String::new() }),
        };
        self.open.extend(unfinished.map(|block| Open { index, block }));
        let annotations = array(&annotations);
        delta.annotations = annotations.as_deref();
        push(delta, stream, sink);
        Ok(())
    }

    /// `content_block_delta`
    fn extend(&mut self, event: Event<'_>, frame: Frame<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        let Event { index, delta, .. } = event;
        let block = self.open.iter_mut().rev().find(|open| open.index == index).map(|open| &mut open.block);
        match (&*delta.kind.bytes(), block) {
            (b"text_delta" | b"thinking_delta" | b"citations_delta", Some(Unfinished::Other { .. })) => {}
            (b"text_delta", _) => self.piece(Part::Content, 0, delta.text, frame, stream, sink),
            (b"thinking_delta", _) => self.piece(Part::Reasoning, 0, delta.thinking, frame, stream, sink),
            // It replaces what was there: it does not go on with it.
            (b"signature_delta", Some(Unfinished::Thinking { signature })) => *signature = quoted(delta.signature),
            (b"input_json_delta", Some(Unfinished::Call { streamed, .. })) => {
                *streamed |= !delta.partial_json.is_empty();
                self.piece(Part::Arguments, index, delta.partial_json, frame, stream, sink);
            }
            (b"input_json_delta", Some(Unfinished::Other { input, .. })) => {
                input.push_str(&delta.partial_json.decode());
            }
            (b"compaction_delta", Some(Unfinished::Other { block, .. })) => {
                if let Some(content) = delta.content {
                    let mut whole = block.get("content").and_then(Value::as_str).unwrap_or_default().to_owned();
                    whole.push_str(&content.decode());
                    block.set("content", Value::String(Cow::Owned(whole)));
                }
            }
            (b"citations_delta", _) => {
                let citation = delta.citation.and_then(|raw| Value::parse(raw).ok()).map(annotation);
                let annotations = array(citation.as_slice());
                push(Delta { annotations: annotations.as_deref(), ..Delta::default() }, stream, sink);
            }
            _ => {}
        }
    }

    /// The next piece of a text, and the events like this one that will follow.
    fn piece(
        &mut self,
        part: Part,
        call: u32,
        text: Str<'_>,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) {
        stream.piece(part, call, Text::Json(text), sink);
        self.template.learn(frame, Filled { choice: 0, part, text, usage: None }, None);
    }

    /// `content_block_stop`, or the end of all blocks.
    fn close(&mut self, index: Option<u32>, stream: &mut Stream, sink: &mut impl Sink) {
        let (closed, open) =
            std::mem::take(&mut self.open).into_iter().partition(|open| index.is_none_or(|index| index == open.index));
        self.open = open;
        for Open { index, block } in closed {
            let (name, json) = match block {
                Unfinished::Call { streamed: true, .. } => continue,
                Unfinished::Call { input, .. } => {
                    stream.piece(Part::Arguments, index, Text::Owned(input), sink);
                    continue;
                }
                Unfinished::Thinking { signature } => {
                    let block = [b"{\"type\":\"thinking\",\"signature\":", signature.as_slice(), b"}"].concat();
                    (THINKING_BLOCKS, block)
                }
                Unfinished::Other { mut block, input } => {
                    if !input.is_empty() {
                        // Not JSON if it was cut short: then its text is all there is.
                        let given = Value::parse(input.as_bytes()).map(Value::into_owned);
                        block.set("input", given.unwrap_or(Value::String(Cow::Owned(input))));
                    }
                    let mut json = Vec::new();
                    block.write(&mut json);
                    (CONTENT_BLOCKS, json)
                }
            };
            push(Delta { extra: vec![list(name, [json.as_slice()])], ..Delta::default() }, stream, sink);
        }
    }

    /// `message_delta`
    fn conclude(&mut self, event: Event<'_>, stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
        self.close(None, stream, sink);
        let Event { delta, usage, extra: mut beside, .. } = event;
        let mut choice = Choice::default();
        delta.ending.apply(&mut choice);
        beside.extend(delta.extra);
        stream.push(Incoming { choices: vec![choice], extra: beside, ..Incoming::default() }, sink);
        match usage {
            Some(raw) => stream.account().combine(Combine::Overwrite, raw, true, counts).map(drop),
            None => Ok(()),
        }
    }
}

/// One event, read but not yet judged.
#[derive(Default)]
struct Event<'a> {
    kind: Str<'a>,
    index: u32,
    delta: Piece<'a>,
    block: Option<&'a [u8]>,
    message: Option<&'a [u8]>,
    usage: Option<&'a [u8]>,
    is_error: bool,
    extra: Extras<'a>,
}

/// The `delta` of an event: of a block or of the message.
#[derive(Default)]
struct Piece<'a> {
    kind: Str<'a>,
    text: Str<'a>,
    thinking: Str<'a>,
    signature: Str<'a>,
    partial_json: Str<'a>,
    content: Option<Str<'a>>,
    citation: Option<&'a [u8]>,
    ending: Ending<'a>,
    extra: Extras<'a>,
}

/// How the message ended.
#[derive(Default)]
struct Ending<'a> {
    reason: Option<Str<'a>>,
    /// `stop_sequence` and `stop_details`.
    extra: Extras<'a>,
}

impl<'a> Event<'a> {
    fn read(data: &'a [u8]) -> Result<Self> {
        let mut event = Event::default();
        let mut cursor = Cursor::new(data);
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                b"type" => {
                    event.kind = text(cursor)?;
                    event.is_error |= event.kind.raw() == b"error";
                }
                b"index" => event.index = index(cursor)?,
                b"delta" if cursor.kind()? == Kind::Object => event.delta = Piece::read(cursor)?,
                b"content_block" => event.block = cursor.object_or_skip()?,
                b"message" => event.message = cursor.object_or_skip()?,
                b"usage" => event.usage = cursor.object_or_skip()?,
                b"error" => event.is_error |= Value::read(cursor)?.is_truthy(),
                _ => keep(cursor, key, &mut event.extra)?,
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(event)
    }
}

impl<'a> Piece<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        let mut piece = Piece::default();
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                b"type" => piece.kind = text(cursor)?,
                b"text" => piece.text = text(cursor)?,
                b"thinking" => piece.thinking = text(cursor)?,
                b"signature" => piece.signature = text(cursor)?,
                b"partial_json" => piece.partial_json = text(cursor)?,
                b"content" => piece.content = cursor.string_or_skip()?,
                b"citation" => piece.citation = cursor.object_or_skip()?,
                b"stop_reason" => piece.ending.reason = cursor.string_or_skip()?,
                b"stop_sequence" | b"stop_details" => keep(cursor, key, &mut piece.ending.extra)?,
                _ => keep(cursor, key, &mut piece.extra)?,
            }
            Ok(())
        })?;
        Ok(piece)
    }
}

/// A message: at its start or whole.
#[derive(Default)]
struct Message<'a> {
    id: Option<Str<'a>>,
    model: Option<Str<'a>>,
    role: Option<Str<'a>>,
    blocks: Vec<Block<'a>>,
    ending: Ending<'a>,
    usage: Option<&'a [u8]>,
    has_content: bool,
    is_error: bool,
    extra: Extras<'a>,
}

impl<'a> Message<'a> {
    fn read(data: &'a [u8]) -> Result<Self> {
        let mut message = Message::default();
        let mut cursor = Cursor::new(data);
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                b"id" => message.id = cursor.string_or_skip()?,
                b"type" => message.is_error |= text(cursor)?.raw() == b"error",
                b"error" => message.is_error |= Value::read(cursor)?.is_truthy(),
                b"model" => message.model = cursor.string_or_skip()?,
                b"role" => message.role = cursor.string_or_skip()?,
                b"content" if cursor.kind()? == Kind::Array => {
                    message.has_content = true;
                    cursor.array(|cursor| {
                        match cursor.kind()? {
                            Kind::Object => message.blocks.push(Block::read(cursor)?),
                            _ => _ = cursor.skip()?,
                        }
                        Ok(())
                    })?;
                }
                b"stop_reason" => message.ending.reason = cursor.string_or_skip()?,
                b"stop_sequence" | b"stop_details" => keep(cursor, key, &mut message.ending.extra)?,
                b"usage" => message.usage = cursor.object_or_skip()?,
                _ => keep(cursor, key, &mut message.extra)?,
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(message)
    }

    /// `whole` says that this is all there is; a message that has ended is whole as well.
    fn push(self, stream: &mut Stream, sink: &mut impl Sink, whole: bool) -> Result<()> {
        let Message { id, model, role, blocks, ending, usage, extra, .. } = self;
        let whole = whole || ending.reason.is_some();
        let mut annotations = Vec::new();
        for block in &blocks {
            annotations.extend(block.annotations()?);
        }
        let annotations = array(&annotations);
        let delta = Delta { role, annotations: annotations.as_deref(), ..compose(blocks) };
        let mut choice = Choice { delta, ..Choice::default() };
        ending.apply(&mut choice);
        stream.push(Incoming { id, model, extra, choices: vec![choice], ..Incoming::default() }, sink);
        let Some(raw) = usage else {
            return Ok(());
        };
        // Until it is whole, its output is a guess: recorded numbers go from 1 to 88.
        let read = if whole { counts } else { prompt_counts };
        stream.account().combine(Combine::Overwrite, raw, whole, read).map(drop)
    }
}

/// One block of a message's content.
#[derive(Default)]
struct Block<'a> {
    raw: &'a [u8],
    kind: Str<'a>,
    id: Option<Str<'a>>,
    name: Option<Str<'a>>,
    text: Str<'a>,
    thinking: Str<'a>,
    signature: Str<'a>,
    input: Option<&'a [u8]>,
    citations: Option<&'a [u8]>,
    extra: Extras<'a>,
}

impl<'a> Block<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        let mut block = Block { raw: cursor.skip()?, ..Block::default() };
        Cursor::new(block.raw).object(|cursor, key| {
            match &*key.bytes() {
                b"type" => block.kind = text(cursor)?,
                b"id" => block.id = cursor.string_or_skip()?,
                b"name" => block.name = cursor.string_or_skip()?,
                b"text" => block.text = text(cursor)?,
                b"thinking" => block.thinking = text(cursor)?,
                b"signature" => block.signature = text(cursor)?,
                b"input" => block.input = Some(cursor.skip()?),
                b"citations" => block.citations = Some(cursor.skip()?),
                _ => keep(cursor, key, &mut block.extra)?,
            }
            Ok(())
        })?;
        Ok(block)
    }

    /// A tool's input as JSON text.
    fn arguments(&self) -> String {
        match self.input {
            None | Some(b"null") => "{}".to_owned(),
            Some(input) => String::from_utf8_lossy(input).into_owned(),
        }
    }

    fn annotations(&self) -> Result<Vec<Value<'a>>> {
        Ok(match self.citations.map(Value::parse).transpose()? {
            Some(Value::Array(citations)) if self.kind.raw() == b"text" => {
                citations.into_iter().map(annotation).collect()
            }
            _ => Vec::new(),
        })
    }
}

/// All blocks of a message as one delta.
fn compose(blocks: Vec<Block<'_>>) -> Delta<'_> {
    let mut delta = Delta::default();
    let mut thinking = Vec::new();
    let mut others = Vec::new();
    for (block, index) in blocks.into_iter().zip(0..) {
        match &*block.kind.bytes() {
            b"text" => append(&mut delta.content, block.text),
            b"thinking" => {
                append(&mut delta.reasoning_content, block.thinking);
                thinking.push(block.raw);
            }
            b"redacted_thinking" => thinking.push(block.raw),
            b"tool_use" => {
                let arguments = Some(Text::Owned(block.arguments()));
                delta.tool_calls.push(ToolCall {
                    index: Some(index),
                    id: block.id.map(Text::Json),
                    function: Function { name: block.name, arguments },
                    extra: block.extra,
                    ..ToolCall::default()
                });
            }
            _ => others.push(block.raw),
        }
    }
    for (name, blocks) in [(THINKING_BLOCKS, thinking), (CONTENT_BLOCKS, others)] {
        if !blocks.is_empty() {
            delta.extra.push(list(name, blocks));
        }
    }
    delta
}

impl<'a> Ending<'a> {
    fn apply(self, choice: &mut Choice<'a>) {
        if let Some(reason) = self.reason.filter(|reason| !reason.is_empty()) {
            choice.finish_reason = Some(finish_reason(&reason.bytes()));
            choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: quoted(reason).into() });
        }
        choice.extra.extend(self.extra);
    }
}

pub(crate) fn finish_reason(reason: &[u8]) -> FinishReason {
    match reason {
        b"max_tokens" | b"model_context_window_exceeded" => FinishReason::Length,
        b"tool_use" => FinishReason::ToolCalls,
        b"refusal" => FinishReason::ContentFilter,
        // `end_turn`, `stop_sequence`; `pause_turn` can be told from them by the provider's own reason.
        _ => FinishReason::Stop,
    }
}

/// A citation of the web as OpenAI gives it, with the fields that it has beyond that; any other as it is.
fn annotation(citation: Value<'_>) -> Value<'_> {
    let kind = citation.get("type").and_then(Value::as_str);
    match citation {
        Value::Object(mut fields) if kind == Some("web_search_result_location") => {
            fields.retain(|(name, _)| name != "type");
            let kind = Cow::Borrowed("url_citation");
            Value::Object(vec![("type".into(), Value::String(kind.clone())), (kind, Value::Object(fields))])
        }
        other => other,
    }
}

/// Counts what was said so far. Cached tokens come beside `input_tokens`, and what a compaction took beside them all.
fn counts(report: &mut Value<'_>) -> Counts {
    const READ: &str = "cache_read_input_tokens";
    const WRITTEN: &str = "cache_creation_input_tokens";
    // The split by lifetime comes with the first report only: it no longer holds when the sum has changed.
    let split = report.get("cache_creation").map(|split| {
        let parts = ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"];
        parts.into_iter().filter_map(|part| count_of(split, part)).fold(0, u64::saturating_add)
    });
    let mut input = count_of(report, "input_tokens");
    let mut output = count_of(report, "output_tokens");
    let mut read = count_of(report, READ);
    let mut written = count_of(report, WRITTEN);
    if let Value::Object(fields) = report
        && split != written
    {
        fields.retain(|(name, _)| name != "cache_creation");
    }
    let add = |to: &mut Option<u64>, more: Option<u64>| {
        if let Some(more) = more {
            *to = Some(to.unwrap_or(0).saturating_add(more));
        }
    };
    if let Some(Value::Array(iterations)) = report.get("iterations") {
        // Those of type `message` are in the sums above; an advisor is another model, at another price.
        for step in iterations.iter().filter(|step| step.get("type").and_then(Value::as_str) == Some("compaction")) {
            add(&mut input, count_of(step, "input_tokens"));
            add(&mut output, count_of(step, "output_tokens"));
            add(&mut read, count_of(step, READ));
            add(&mut written, count_of(step, WRITTEN));
        }
    }
    let details = report.get("output_tokens_details");
    Counts {
        prompt: input.map(|input| input.saturating_add(read.unwrap_or(0)).saturating_add(written.unwrap_or(0))),
        completion: output,
        cached: read,
        cache_write: written,
        reasoning: details.and_then(|details| count_of(details, "thinking_tokens")),
        ..Counts::default()
    }
}

fn prompt_counts(report: &mut Value<'_>) -> Counts {
    Counts { completion: None, reasoning: None, ..counts(report) }
}

#[cold]
fn failure(data: &[u8]) -> Error {
    match Value::parse(data) {
        Ok(value) => error_body::from_value(None, &value, data),
        Err(error) => Error::invalid_json(error, data),
    }
}

fn push(delta: Delta<'_>, stream: &mut Stream, sink: &mut impl Sink) {
    let choices = vec![Choice { delta, ..Choice::default() }];
    stream.push(Incoming { choices, ..Incoming::default() }, sink);
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

/// A field whose value is a list of these.
fn list<'a, 'i>(name: &'static str, items: impl IntoIterator<Item = &'i [u8]>) -> Extra<'a> {
    let mut json = vec![b'['];
    for item in items {
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(item);
    }
    json.push(b']');
    Extra { key: Str::plain(name), json: json.into() }
}

/// JSON text; None if there is nothing in it.
fn array(values: &[Value<'_>]) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    Value::Array(values.to_vec()).write(&mut json);
    (!values.is_empty()).then_some(json)
}

fn quoted(text: Str<'_>) -> Vec<u8> {
    let mut json = Vec::new();
    write_str(&mut json, &text.decode());
    json
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Result<Str<'a>> {
    Ok(cursor.string_or_skip()?.unwrap_or_default())
}

fn index(cursor: &mut Cursor<'_>) -> Result<u32> {
    Ok(cursor.number_or_skip()?.and_then(|number| u32::try_from(number.as_i64()).ok()).unwrap_or(0))
}

/// Keeps a field that says something.
fn keep<'a>(cursor: &mut Cursor<'a>, key: Str<'a>, extra: &mut Extras<'a>) -> Result<()> {
    let json = cursor.skip()?;
    if json != b"null" {
        extra.push(Extra::new(key, json));
    }
    Ok(())
}
