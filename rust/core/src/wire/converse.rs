//! Converse: its events, and its bodies.
//!
//! What chat completions have no place for is kept in three extra fields of the message, in forms that a request can
//! send back: `thinking_blocks` (reasoning with its signature, or redacted), `citations` (as they came), and
//! `content_blocks` (tools that the server ran, their results, images: blocks as they came).

use super::error_body;
use crate::assemble::THINKING_BLOCKS;
use crate::chunk::{Choice, Delta, Extra, Extras, Field, FinishReason, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Converse {
    /// Blocks come one after the other, and those of text and reasoning without a start.
    block: Block,
    index: u32,
}

/// The open content block, as far as its end has something to say.
#[derive(Debug, Default)]
enum Block {
    #[default]
    Plain,
    /// A call of the client's tool.
    Call { has_input: bool },
    /// Reasoning with a signature, which holds for the very text that was streamed before it.
    Signed(String),
    /// A block that is kept as it comes: its name, and its pieces so far.
    Other { name: String, whole: Value<'static> },
}

impl Converse {
    /// One event of a stream.
    pub(crate) fn frame(
        &mut self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        if frame.exception {
            return Err(error_body::from_exception(None, &String::from_utf8_lossy(frame.name), frame.data));
        }
        self.event(frame.name, frame.data, stream, sink)
    }

    /// One event: its name, and its payload.
    pub(super) fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        match name {
            b"contentBlockDelta" => self.delta(data, stream, sink),
            b"contentBlockStart" => self.start(data, stream, sink),
            b"contentBlockStop" => {
                self.close(stream, sink);
                Ok(())
            }
            b"messageStart" => read_role(data).map(|role| push(Delta { role, ..Delta::default() }, stream, sink)),
            b"messageStop" => {
                self.close(stream, sink);
                read_stop(data).map(|choice| {
                    stream.push(event_of(choice), sink);
                })
            }
            b"metadata" => metadata(data, stream, sink),
            // Whatever is added to the protocol.
            _ => Ok(()),
        }
        .map_err(|error| Error::invalid_json(error, data))
    }

    /// A single response: the one chunk that says it all.
    #[expect(clippy::unused_self, reason = "the same items in each family")]
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, body);
        let Response { message, stop, usage, service_tier, extra } = read_response(body).map_err(invalid)?;
        let Some(message) = message else {
            let value = Value::parse(body).map_err(invalid)?;
            if value.get("message").or_else(|| value.get("Message")).is_some() {
                return Err(error_body::from_value(None, &value, body));
            }
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected a Converse response with `output.message`, got {start:?}"),
            ));
        };
        let message = read_message(message).map_err(invalid)?;
        let annotations = message.annotations.end();
        let mut delta = Delta { annotations: annotations.as_deref(), ..message.delta };
        delta.content = message.content.map(Text::Owned).into();
        if let Some(text) = message.reasoning {
            delta.reasoning_content = Field::Value(Text::Owned(text));
        }
        delta.extra = [
            message.thinking.extra(THINKING_BLOCKS),
            message.citations.extra("citations"),
            message.others.extra("content_blocks"),
        ]
        .into_iter()
        .flatten()
        .collect();
        stream.push(Incoming { service_tier, extra, ..event_of(Choice { delta, ..stop }) }, sink);
        if let Some(raw) = usage {
            stream.account().report(counts(raw).map_err(invalid)?, raw, true);
        }
        stream.end(sink);
        Ok(())
    }

    fn delta(&mut self, data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
        let (index, piece) = read_piece(data)?;
        if index != self.index {
            self.close(stream, sink);
            self.index = index;
        }
        match piece {
            Piece::Text(text) => stream.piece(Part::Content, 0, Text::Json(text), sink),
            Piece::Reasoning(text) => stream.piece(Part::Reasoning, 0, Text::Json(text), sink),
            Piece::Signature(piece) => match &mut self.block {
                Block::Signed(signature) => signature.push_str(&piece.decode()),
                block => *block = Block::Signed(piece.decode().into_owned()),
            },
            Piece::Redacted(data) => {
                let mut blocks = List::default();
                write_redacted(blocks.item(), &data.decode());
                push(extra(blocks.extra(THINKING_BLOCKS)), stream, sink);
            }
            Piece::Input(input) => match &mut self.block {
                Block::Other { whole, .. } => take_piece(whole, "input", Value::String(input.decode())),
                block => {
                    if !matches!(block, Block::Call { has_input: true }) {
                        *block = Block::Call { has_input: !input.is_empty() };
                    }
                    stream.piece(Part::Arguments, index, input, sink);
                }
            },
            Piece::Citation(raw) => {
                let (mut citations, mut annotations) = (List::default(), List::default());
                citations.item().extend_from_slice(raw);
                write_annotation(raw, &mut annotations)?;
                let annotations = annotations.end();
                let delta = extra(citations.extra("citations"));
                push(Delta { annotations: annotations.as_deref(), ..delta }, stream, sink);
            }
            Piece::Other(name, raw) => {
                let name = name.decode();
                if !matches!(&self.block, Block::Other { .. }) {
                    self.block = Block::Other { name: name.clone().into_owned(), whole: Value::Object(Vec::new()) };
                }
                if let Block::Other { whole, .. } = &mut self.block {
                    match Value::parse(raw)? {
                        Value::Object(fields) => {
                            for (field, piece) in fields {
                                take_piece(whole, &field, piece);
                            }
                        }
                        piece => take_piece(whole, "content", piece),
                    }
                }
            }
            Piece::None => {}
        }
        Ok(())
    }

    fn start(&mut self, data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
        self.close(stream, sink);
        let (index, start) = read_start(data)?;
        self.index = index;
        match start {
            Some((b"toolUse", raw)) if !is_server_tool(raw)? => {
                self.block = Block::Call { has_input: false };
                push(call(ToolCall { index: Some(index), ..read_call(raw, false)? }), stream, sink);
            }
            Some((name, raw)) => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.block = Block::Other { name, whole: Value::parse(raw)?.into_owned() };
            }
            None => {}
        }
        Ok(())
    }

    /// The end of the open block.
    fn close(&mut self, stream: &mut Stream, sink: &mut impl Sink) {
        let delta = match std::mem::take(&mut self.block) {
            Block::Call { has_input: false } => {
                stream.piece(Part::Arguments, self.index, Text::Owned("{}".to_owned()), sink);
                return;
            }
            Block::Signed(signature) => {
                let mut blocks = List::default();
                write_thinking(blocks.item(), None, &signature);
                extra(blocks.extra(THINKING_BLOCKS))
            }
            Block::Other { name, mut whole } => {
                // The input of a tool streams as text; in a block it is what the text says.
                if let Some(input) = whole.get_mut("input")
                    && let Some(parsed) = input.as_str().and_then(|text| Value::parse(text.as_bytes()).ok())
                {
                    *input = parsed.into_owned();
                }
                let mut blocks = List::default();
                Value::Object(vec![(name.into(), whole)]).write(blocks.item());
                extra(blocks.extra("content_blocks"))
            }
            Block::Plain | Block::Call { .. } => return,
        };
        push(delta, stream, sink);
    }
}

fn push(delta: Delta<'_>, stream: &mut Stream, sink: &mut impl Sink) {
    stream.push(event_of(Choice { delta, ..Choice::default() }), sink);
}

fn event_of(choice: Choice<'_>) -> Incoming<'_> {
    Incoming { choices: vec![choice], ..Incoming::default() }
}

fn call(call: ToolCall<'_>) -> Delta<'_> {
    Delta { tool_calls: vec![call], ..Delta::default() }
}

fn extra(extra: Option<Extra<'static>>) -> Delta<'static> {
    Delta { extra: extra.into_iter().collect(), ..Delta::default() }
}

/// Takes a piece into the whole: texts and lists grow.
fn take_piece(whole: &mut Value<'static>, name: &str, piece: Value<'_>) {
    match (whole.get_mut(name), piece) {
        (Some(Value::String(text)), Value::String(more)) => text.to_mut().push_str(&more),
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more.into_iter().map(Value::into_owned)),
        (_, piece) => whole.set(name.to_owned(), piece.into_owned()),
    }
}

/// What a delta brings: one of these.
enum Piece<'a> {
    None,
    Text(Str<'a>),
    Reasoning(Str<'a>),
    Signature(Str<'a>),
    Redacted(Str<'a>),
    /// Of a tool call: a piece of its JSON text.
    Input(Text<'a>),
    Citation(&'a [u8]),
    Other(Str<'a>, &'a [u8]),
}

fn read_piece(data: &[u8]) -> Result<(u32, Piece<'_>)> {
    let mut index = 0;
    let mut piece = Piece::None;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"contentBlockIndex" => index = super::text::read_index(cursor)?,
            b"delta" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"text" => set(&mut piece, cursor.string_or_skip()?.map(Piece::Text)),
                    b"reasoningContent" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                        let said = cursor.string_or_skip()?;
                        set(
                            &mut piece,
                            match &*key.bytes() {
                                b"text" => said.map(Piece::Reasoning),
                                b"signature" => said.map(Piece::Signature),
                                b"redactedContent" => said.map(Piece::Redacted),
                                _ => None,
                            },
                        );
                        Ok(())
                    })?,
                    b"toolUse" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                        match &*key.bytes() {
                            b"input" => set(&mut piece, read_input(cursor)?.map(Piece::Input)),
                            _ => _ = cursor.skip()?,
                        }
                        Ok(())
                    })?,
                    b"citation" if cursor.kind()? == Kind::Object => piece = Piece::Citation(cursor.skip()?),
                    _ => match cursor.skip()? {
                        b"null" => {}
                        raw => piece = Piece::Other(key, raw),
                    },
                }
                Ok(())
            })?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok((index, piece))
}

fn set<'a>(piece: &mut Piece<'a>, given: Option<Piece<'a>>) {
    if let Some(given) = given {
        *piece = given;
    }
}

/// The input of a tool: a string is a piece of JSON text, anything else is the JSON itself.
fn read_input<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Text<'a>>> {
    Ok(match cursor.kind()? {
        Kind::String => Some(Text::Json(cursor.string()?)),
        Kind::Null => cursor.null().map(|()| None)?,
        _ => Some(Text::Owned(String::from_utf8_lossy(cursor.skip()?).into_owned())),
    })
}

fn read_role(data: &[u8]) -> Result<Option<Str<'_>>> {
    let mut role = None;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"role" => role = cursor.string_or_skip()?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(role)
}

/// A field's name and its value.
type Named<'a> = (&'a [u8], &'a [u8]);

/// The index of the block, and the one field of its `start`.
fn read_start(data: &[u8]) -> Result<(u32, Option<Named<'_>>)> {
    let mut index = 0;
    let mut start = None;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"contentBlockIndex" => index = super::text::read_index(cursor)?,
            b"start" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                let raw = cursor.skip()?;
                if raw.starts_with(b"{") {
                    start = Some((key.raw(), raw));
                }
                Ok(())
            })?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok((index, start))
}

/// Whether the server itself runs this tool: its call is not the client's to answer.
fn is_server_tool(raw: &[u8]) -> Result<bool> {
    let mut found = false;
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"type" => found = cursor.string_or_skip()?.is_some_and(|kind| kind.raw() == b"server_tool_use"),
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(found)
}

/// A `toolUse`; `whole` says that its input is all there.
fn read_call(raw: &[u8], whole: bool) -> Result<ToolCall<'_>> {
    let mut call = ToolCall::default();
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"toolUseId" => call.id = cursor.string_or_skip()?.map(Text::Json),
            b"name" => call.function.name = cursor.string_or_skip()?,
            b"input" if whole => call.function.arguments = read_input(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    if whole && call.function.arguments.as_ref().is_none_or(Text::is_empty) {
        call.function.arguments = Some(Text::Owned("{}".to_owned()));
    }
    Ok(call)
}

/// The end of a message: a choice with its finish reason.
fn read_stop(data: &[u8]) -> Result<Choice<'_>> {
    let mut choice = Choice::default();
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"stopReason" => {
                if let Some(reason) = cursor.string_or_skip()? {
                    stop(&mut choice, reason);
                }
            }
            b"additionalModelResponseFields" => keep(cursor, key, &mut choice.extra)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(choice)
}

fn stop(choice: &mut Choice<'_>, reason: Str<'_>) {
    choice.finish_reason = Some(match &*reason.bytes() {
        b"max_tokens" | b"model_context_window_exceeded" => FinishReason::Length,
        b"tool_use" => FinishReason::ToolCalls,
        b"guardrail_intervened" | b"content_filtered" => FinishReason::ContentFilter,
        // end_turn, stop_sequence; malformed_model_output and malformed_tool_use, which OpenAI has no name for
        _ => FinishReason::Stop,
    });
    let mut json = Vec::new();
    write_str(&mut json, &reason.decode());
    choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: json.into() });
}

fn keep<'a>(cursor: &mut Cursor<'a>, key: Str<'a>, extra: &mut Extras<'a>) -> Result<()> {
    extra.push(Extra::new(key, cursor.skip()?));
    Ok(())
}

/// What follows the message: usage, and what else is known of the response.
fn metadata(data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
    let response = read_response(data)?;
    if let Some(raw) = response.usage {
        stream.account().report(counts(raw)?, raw, true);
    }
    // Every stream has metrics: by themselves they are not worth a chunk.
    let Response { service_tier, extra, .. } = response;
    if matches!(service_tier, Field::Value(_)) || extra.iter().any(|extra| extra.key.raw() != b"metrics") {
        stream.push(Incoming { service_tier, extra, ..event_of(Choice::default()) }, sink);
    }
    Ok(())
}

/// A response, or what follows one that streamed.
#[derive(Default)]
struct Response<'a> {
    message: Option<&'a [u8]>,
    stop: Choice<'a>,
    usage: Option<&'a [u8]>,
    service_tier: Field<Str<'a>>,
    extra: Extras<'a>,
}

fn read_response(data: &[u8]) -> Result<Response<'_>> {
    let mut response = Response::default();
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"output" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                let raw = cursor.skip()?;
                if *key.bytes() == *b"message" && raw.starts_with(b"{") {
                    response.message = Some(raw);
                }
                Ok(())
            })?,
            b"stopReason" => {
                if let Some(reason) = cursor.string_or_skip()? {
                    stop(&mut response.stop, reason);
                }
            }
            b"additionalModelResponseFields" => keep(cursor, key, &mut response.stop.extra)?,
            b"usage" => {
                let raw = cursor.skip()?;
                response.usage = raw.starts_with(b"{").then_some(raw);
            }
            b"serviceTier" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"type" => response.service_tier = cursor.string_or_skip()?.into(),
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            // Filler that hides the length of an event.
            b"p" => _ = cursor.skip()?,
            _ => match cursor.skip()? {
                b"null" | b"{}" => {}
                raw => response.extra.push(Extra::new(key, raw)),
            },
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(response)
}

/// A whole message.
#[derive(Default)]
struct Message<'a> {
    delta: Delta<'a>,
    content: Option<String>,
    reasoning: Option<String>,
    thinking: List,
    citations: List,
    annotations: List,
    others: List,
}

fn read_message(message: &[u8]) -> Result<Message<'_>> {
    let mut read = Message::default();
    Cursor::new(message).object(|cursor, key| {
        match &*key.bytes() {
            b"role" => read.delta.role = cursor.string_or_skip()?,
            b"content" if cursor.kind()? == Kind::Array => cursor.array(|cursor| match cursor.kind()? {
                Kind::Object => cursor.object(|cursor, key| read.block(cursor, key)),
                _ => cursor.skip().map(drop),
            })?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(read)
}

impl<'a> Message<'a> {
    /// The one field of a content block.
    fn block(&mut self, cursor: &mut Cursor<'a>, key: Str<'a>) -> Result<()> {
        let raw = cursor.skip()?;
        let mut cursor = Cursor::new(raw);
        match (&*key.bytes(), cursor.kind()?) {
            (b"text", Kind::String) => self.text(cursor.string()?),
            (b"reasoningContent", Kind::Object) => self.reasoning(&mut cursor)?,
            (b"toolUse", Kind::Object) if !is_server_tool(raw)? => {
                let index = u32::try_from(self.delta.tool_calls.len()).ok();
                self.delta.tool_calls.push(ToolCall { index, ..read_call(raw, true)? });
            }
            (b"citationsContent", Kind::Object) => {
                cursor.object(|cursor, key| match (&*key.bytes(), cursor.kind()?) {
                    (b"content", Kind::Array) => cursor.array(|cursor| self.cited(cursor)),
                    (b"citations", Kind::Array) => cursor.array(|cursor| {
                        let raw = cursor.skip()?;
                        self.citations.item().extend_from_slice(raw);
                        write_annotation(raw, &mut self.annotations)
                    }),
                    _ => cursor.skip().map(drop),
                })?;
            }
            _ => {
                let out = self.others.item();
                out.push(b'{');
                write_str(out, &key.decode());
                out.push(b':');
                out.extend_from_slice(raw);
                out.push(b'}');
            }
        }
        Ok(())
    }

    fn text(&mut self, text: Str<'_>) {
        self.content.get_or_insert_default().push_str(&text.decode());
    }

    /// A piece of the text that citations are for.
    fn cited(&mut self, cursor: &mut Cursor<'a>) -> Result<()> {
        if cursor.kind()? != Kind::Object {
            return cursor.skip().map(drop);
        }
        cursor.object(|cursor, key| {
            match (&*key.bytes(), cursor.kind()?) {
                (b"text", Kind::String) => self.text(cursor.string()?),
                _ => _ = cursor.skip()?,
            }
            Ok(())
        })
    }

    fn reasoning(&mut self, cursor: &mut Cursor<'a>) -> Result<()> {
        cursor.object(|cursor, key| {
            match (&*key.bytes(), cursor.kind()?) {
                (b"reasoningText", Kind::Object) => {
                    let (mut text, mut signature) = (None, None);
                    cursor.object(|cursor, key| {
                        match &*key.bytes() {
                            b"text" => text = cursor.string_or_skip()?,
                            b"signature" => {
                                signature = cursor.string_or_skip()?.filter(|signature| !signature.is_empty());
                            }
                            _ => _ = cursor.skip()?,
                        }
                        Ok(())
                    })?;
                    let text = text.unwrap_or_default().decode();
                    self.reasoning.get_or_insert_default().push_str(&text);
                    if let Some(signature) = signature {
                        write_thinking(self.thinking.item(), Some(&text), &signature.decode());
                    }
                }
                (b"redactedContent", Kind::String) => write_redacted(self.thinking.item(), &cursor.string()?.decode()),
                _ => _ = cursor.skip()?,
            }
            Ok(())
        })
    }
}

/// A JSON array in the making.
#[derive(Default)]
struct List(Vec<u8>);

impl List {
    /// Where the next item is to be appended.
    fn item(&mut self) -> &mut Vec<u8> {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        &mut self.0
    }

    /// None if it is empty.
    fn end(mut self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push(b']');
        Some(self.0)
    }

    fn extra(self, name: &'static str) -> Option<Extra<'static>> {
        Some(Extra { key: Str::plain(name), json: self.end()?.into() })
    }
}

/// Without a text the block is for the reasoning that was streamed since the one before it.
fn write_thinking(out: &mut Vec<u8>, text: Option<&str>, signature: &str) {
    out.extend_from_slice(br#"{"type":"thinking","#);
    if let Some(text) = text {
        out.extend_from_slice(br#""thinking":"#);
        write_str(out, text);
        out.push(b',');
    }
    out.extend_from_slice(br#""signature":"#);
    write_str(out, signature);
    out.push(b'}');
}

fn write_redacted(out: &mut Vec<u8>, data: &str) {
    out.extend_from_slice(br#"{"type":"redacted_thinking","data":"#);
    write_str(out, data);
    out.push(b'}');
}

/// A citation as an annotation, if it is of a page of the web: OpenAI knows no other. Where in the text it belongs is
/// not told.
fn write_annotation(citation: &[u8], annotations: &mut List) -> Result<()> {
    let citation = Value::parse(citation)?;
    let web = citation.get("location").and_then(|location| location.get("web"));
    if let Some(url) = web.and_then(|web| web.get("url")).and_then(Value::as_str) {
        let out = annotations.item();
        out.extend_from_slice(br#"{"type":"url_citation","url_citation":{"url":"#);
        write_str(out, url);
        if let Some(title) = citation.get("title").and_then(Value::as_str) {
            out.extend_from_slice(br#","title":"#);
            write_str(out, title);
        }
        out.extend_from_slice(b"}}");
    }
    Ok(())
}

/// The counts leave out what was read from the cache and written to it. They come under two spellings each.
pub(super) fn counts(raw: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    let (mut input, mut cached, mut written) = (None, None, None);
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"inputTokens" => input = usage::count(cursor)?,
            b"outputTokens" => counts.completion = usage::count(cursor)?,
            b"totalTokens" => counts.reported_total = usage::count(cursor)?,
            b"cacheReadInputTokens" => counts.cached = usage::count(cursor)?,
            b"cacheReadInputTokenCount" => cached = usage::count(cursor)?,
            b"cacheWriteInputTokens" => counts.cache_write = usage::count(cursor)?,
            b"cacheWriteInputTokenCount" => written = usage::count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    counts.cached = counts.cached.or(cached);
    counts.cache_write = counts.cache_write.or(written);
    let beside = counts.cached.unwrap_or(0).saturating_add(counts.cache_write.unwrap_or(0));
    counts.prompt = input.map(|input| input.saturating_add(beside));
    Ok(counts)
}
