//! Invoke: models by their own formats, in streams as documents wrapped in `chunk` events. What a document is shows
//! in its fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

use super::anthropic::Anthropic;
use super::chat::Chat;
use super::converse::Converse;
use super::error_body;
use super::text::{self, Document, Texts};
use crate::chunk::{Choice, Extra, Extras, FinishReason};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value};
use crate::stream::{Incoming, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// Of the fields that the service puts into a model's documents.
const PREFIX: &[u8] = b"amazon-bedrock-";

/// The reader of one stream.
#[derive(Debug)]
pub(crate) struct Invoke {
    carried: Carried,
    /// The document of the last event: kept for its room.
    document: Vec<u8>,
    /// Looks for [`PREFIX`]: preparing that costs more than looking.
    prefix: memmem::Finder<'static>,
}

impl Default for Invoke {
    fn default() -> Self {
        Self { carried: Carried::default(), document: Vec::new(), prefix: memmem::Finder::new(PREFIX) }
    }
}

/// The format that is carried, with its own reader.
#[derive(Debug, Default)]
enum Carried {
    #[default]
    Unknown,
    Anthropic(Anthropic),
    Chat(Chat),
    Converse(Converse),
    Texts(Texts),
}

impl Invoke {
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
        if frame.name != b"chunk" {
            return Ok(());
        }
        let bytes = read_bytes(frame.data).map_err(|error| Error::invalid_json(error, frame.data))?;
        let Some(bytes) = bytes else {
            return Ok(());
        };
        let mut document = std::mem::take(&mut self.document);
        document.clear();
        if let Err(error) = STANDARD.decode_vec(&*bytes.bytes(), &mut document) {
            return Err(Error::new(
                Class::ResponseValidation,
                format!("the `bytes` of a chunk event are not base64: {error}"),
            ));
        }
        let done = self.document(&document, stream, sink);
        self.document = document;
        done
    }

    /// A single response: one document of the carried format.
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, body);
        self.carried = recognise(body).map_err(invalid)?;
        match &mut self.carried {
            Carried::Anthropic(anthropic) => anthropic.body(body, stream, sink),
            Carried::Chat(chat) => {
                chat.body(body, stream, sink)?;
                stop_reasons(body, stream, sink).map_err(invalid)
            }
            Carried::Converse(converse) => converse.body(body, stream, sink),
            Carried::Texts(texts) => {
                read_text(texts, body, stream, sink).map_err(invalid)?;
                stream.end(sink);
                Ok(())
            }
            Carried::Unknown => {
                let value = Value::parse(body).map_err(invalid)?;
                if value.get("message").or_else(|| value.get("Message")).is_some() {
                    return Err(error_body::from_value(None, &value, body));
                }
                let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
                Err(Error::new(
                    Class::ResponseValidation,
                    format!("expected the response of a model in a known format, got {start:?}"),
                ))
            }
        }
    }

    fn document(&mut self, data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, data);
        if let Carried::Unknown = self.carried {
            self.carried = recognise(data).map_err(invalid)?;
        }
        match &mut self.carried {
            Carried::Unknown => Ok(()),
            Carried::Anthropic(anthropic) => {
                let mut beside = Beside::of(data, &self.prefix).map_err(invalid)?;
                if !beside.extra.is_empty() {
                    push(Choice::default(), std::mem::take(&mut beside.extra), stream, sink);
                }
                // They come with the last event, which ends the stream.
                beside.report(stream).map_err(invalid)?;
                anthropic.frame(Frame { name: b"", data, exception: false }, stream, sink)
            }
            Carried::Chat(chat) => {
                let beside = Beside::of(data, &self.prefix).map_err(invalid)?;
                chat.frame(Frame { name: b"", data, exception: false }, stream, sink)?;
                stop_reasons(data, stream, sink).and_then(|()| beside.report(stream)).map_err(invalid)
            }
            Carried::Converse(converse) => {
                let (event, mut beside) = read_event(data).map_err(invalid)?;
                if !beside.extra.is_empty() {
                    push(Choice::default(), std::mem::take(&mut beside.extra), stream, sink);
                }
                if let Some((name, data)) = event {
                    converse.event(&name.bytes(), data, stream, sink)?;
                }
                beside.report(stream).map_err(invalid)
            }
            Carried::Texts(texts) => read_text(texts, data, stream, sink).map_err(invalid),
        }
    }
}

/// Which format a document is of.
fn recognise(data: &[u8]) -> Result<Carried> {
    let mut found = Carried::Unknown;
    let mut document = Document::default();
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match (&*key.bytes(), cursor.kind()?) {
            // Its first completions said `type` too.
            (b"type", Kind::String) => {
                let kind = cursor.string()?;
                if kind.raw() != b"completion" {
                    found = Carried::Anthropic(Anthropic::default());
                }
                return Ok(());
            }
            (b"choices", Kind::Array) => found = Carried::Chat(Chat::default()),
            (
                b"messageStart" | b"contentBlockStart" | b"contentBlockDelta" | b"contentBlockStop" | b"messageStop"
                | b"output",
                Kind::Object,
            ) => found = Carried::Converse(Converse::default()),
            _ => return document.field(cursor, key),
        }
        cursor.skip().map(drop)
    })?;
    cursor.end()?;
    if matches!(found, Carried::Unknown) && document.is_completion() {
        found = Carried::Texts(Texts::default());
    }
    Ok(found)
}

/// The document that a `chunk` event wraps.
fn read_bytes(data: &[u8]) -> Result<Option<Str<'_>>> {
    let mut bytes = None;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"bytes" => bytes = cursor.string_or_skip()?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(bytes)
}

/// An event's name and its payload.
type Event<'a> = (Str<'a>, &'a [u8]);

/// An event that has its name before it, and what stands beside it.
fn read_event(data: &[u8]) -> Result<(Option<Event<'_>>, Beside<'_>)> {
    let mut event = None;
    let mut beside = Beside::default();
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        let raw = cursor.skip()?;
        if !beside.field(key, raw) && raw.starts_with(b"{") {
            event = Some((key, raw));
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok((event, beside))
}

fn read_text(texts: &mut Texts, data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
    let mut document = Document::default();
    let mut beside = Beside::default();
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        if key.raw().starts_with(PREFIX) {
            let raw = cursor.skip()?;
            beside.field(key, raw);
            return Ok(());
        }
        document.field(cursor, key)
    })?;
    cursor.end()?;
    document.extra.append(&mut beside.extra);
    texts.take(document, stream, sink);
    // The trace comes with the last document. An answer that a guardrail blocked has no reason of the model's to stop.
    if beside.intervened && beside.traced && !stream.finished() {
        let choice = Choice { finish_reason: Some(FinishReason::ContentFilter), ..Choice::default() };
        push(choice, Vec::new(), stream, sink);
    }
    beside.report(stream)
}

fn push<'a>(choice: Choice<'a>, extra: Extras<'a>, stream: &mut Stream, sink: &mut impl Sink) {
    stream.push(Incoming { choices: vec![choice], extra, ..Incoming::default() }, sink);
}

/// What stands beside a document's own fields, whatever its format.
#[derive(Default)]
struct Beside<'a> {
    metrics: Option<&'a [u8]>,
    intervened: bool,
    traced: bool,
    extra: Extras<'a>,
}

impl<'a> Beside<'a> {
    fn of(data: &'a [u8], prefix: &memmem::Finder<'_>) -> Result<Self> {
        let mut beside = Self::default();
        if prefix.find(data).is_some() {
            Cursor::new(data).object(|cursor, key| {
                let raw = cursor.skip()?;
                beside.field(key, raw);
                Ok(())
            })?;
        }
        Ok(beside)
    }

    /// False if the field is the document's own.
    fn field(&mut self, key: Str<'a>, raw: &'a [u8]) -> bool {
        match key.raw().strip_prefix(PREFIX) {
            Some(b"invocationMetrics") => self.metrics = raw.starts_with(b"{").then_some(raw),
            Some(name) => {
                self.intervened |= name == b"guardrailAction" && raw == b"\"INTERVENED\"";
                self.traced |= name == b"trace";
                self.extra.push(Extra::new(key, raw));
            }
            None => return false,
        }
        true
    }

    /// The service's own measure, for models that report nothing: it may differ from what they report, and is never
    /// to be added to it.
    fn report(&self, stream: &mut Stream) -> Result<()> {
        let known = stream.usage().is_some_and(|usage| usage.counts.completion.is_some());
        let Some(raw) = self.metrics.filter(|_| !known) else {
            return Ok(());
        };
        let mut counts = Counts::default();
        Cursor::new(raw).object(|cursor, key| {
            match &*key.bytes() {
                b"inputTokenCount" => counts.prompt = usage::count(cursor)?,
                b"outputTokenCount" => counts.completion = usage::count(cursor)?,
                b"cacheReadInputTokenCount" => counts.cached = usage::count(cursor)?,
                b"cacheWriteInputTokenCount" => counts.cache_write = usage::count(cursor)?,
                _ => _ = cursor.skip()?,
            }
            Ok(())
        })?;
        let cache = counts.cached.unwrap_or(0).saturating_add(counts.cache_write.unwrap_or(0));
        counts.prompt = counts.prompt.map(|prompt| prompt.saturating_add(cache));
        stream.account().report(counts, raw, true);
        Ok(())
    }
}

/// Some models with `choices` say `stop_reason` where OpenAI says `finish_reason`.
fn stop_reasons(data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> Result<()> {
    if memmem::find(data, b"\"stop_reason\"").is_none() {
        return Ok(());
    }
    Cursor::new(data).object(|cursor, key| {
        if *key.bytes() != *b"choices" || cursor.kind()? != Kind::Array {
            return cursor.skip().map(drop);
        }
        cursor.array(|cursor| {
            if cursor.kind()? != Kind::Object {
                return cursor.skip().map(drop);
            }
            let (mut choice, mut stop) = (Choice::default(), None);
            cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"index" => choice.index = text::read_index(cursor)?,
                    b"stop_reason" => stop = cursor.string_or_skip()?.filter(|stop| !stop.is_empty()),
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?;
            if let Some(stop) = stop {
                text::finish(&mut choice, stop);
                // Whoever says both has said `finish_reason` before: a choice finishes once.
                push(choice, Vec::new(), stream, sink);
            }
            Ok(())
        })
    })
}
