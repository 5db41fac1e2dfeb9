//! Ollama's native chat and generate: one JSON document a line, or one alone.

use super::error_body;
use super::template::{Filled, Template};
use super::time::unix_seconds;
use crate::chunk::{Choice, Delta, Extra, Field, FinishReason, Function, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// What the last line says of the work done. There is no usage object: these are made one.
const MEASURES: [&[u8]; 6] = [
    b"total_duration",
    b"load_duration",
    b"prompt_eval_count",
    b"prompt_eval_duration",
    b"eval_count",
    b"eval_duration",
];

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Ollama {
    /// Tool calls so far, over all lines.
    calls: u32,
    template: Template,
}

impl Ollama {
    /// One line of a stream.
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
        let document = self.read(data, stream.begun()).map_err(|error| Error::invalid_json(error, data))?;
        let piece = document.piece();
        let time = document.time;
        self.accept(document, data, stream, sink)?;
        if let Some(piece) = piece {
            self.template.learn(frame, piece, time);
        }
        Ok(())
    }

    /// A single response: the one line that says it all.
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let document = self.read(body, false).map_err(|error| Error::invalid_json(error, body))?;
        if !document.is_answer && document.error.is_none() {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected an answer with `message` or `response`, got {start:?}"),
            ));
        }
        self.accept(document, body, stream, sink)?;
        stream.end(sink);
        Ok(())
    }

    fn accept(
        &mut self,
        document: Document<'_>,
        data: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let Document { mut event, mut choice, logprobs, is_answer, done, done_reason, measures, error, .. } = document;
        if let Some(error) = error {
            let value = Value::parse(error).map_err(|error| Error::invalid_json(error, data))?;
            return Err(error_body::from_value(None, &value, data));
        }
        if !is_answer && !done {
            return Ok(());
        }
        if let Some(logprobs) = &logprobs {
            choice.logprobs = Field::Value(logprobs);
        }
        if done {
            let reason = done_reason.map_or_else(|| "stop".into(), Str::decode);
            let known = self.finish_reason(&reason);
            if known.as_str() != reason {
                let mut json = Vec::new();
                write_str(&mut json, &reason);
                choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: json.into() });
            }
            choice.finish_reason = Some(known);
        }
        event.choices.push(choice);
        stream.push(event, sink);
        let counts = counts(&measures).map_err(|error| Error::invalid_json(error, data))?;
        stream.account().report(counts, &measures, done);
        if done {
            stream.end(sink);
        }
        Ok(())
    }

    /// As the server's own compatible layer has it: whatever ended it, an answer with tool calls ended for them.
    fn finish_reason(&self, reason: &str) -> FinishReason {
        match reason {
            _ if self.calls > 0 => FinishReason::ToolCalls,
            "stop" => FinishReason::Stop,
            "length" => FinishReason::Length,
            _ => FinishReason::Other,
        }
    }

    /// `begun` says that the time of the answer is known already.
    fn read<'a>(&mut self, data: &'a [u8], begun: bool) -> Result<Document<'a>> {
        let mut document = Document::default();
        let Document { event, choice, time, logprobs, is_answer, done, done_reason, measures, error } = &mut document;
        let mut cursor = Cursor::new(data);
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                b"model" => event.model = cursor.string_or_skip()?,
                b"created_at" => {
                    let raw = cursor.skip()?;
                    *time = Some(raw);
                    let said = Cursor::new(raw).string_or_skip()?;
                    event.created = said.filter(|_| !begun).and_then(|said| unix_seconds(&said.decode()));
                }
                b"message" if cursor.kind()? == Kind::Object => {
                    *is_answer = true;
                    self.read_message(cursor, &mut choice.delta)?;
                }
                // Generate has the text beside the rest, not in a message.
                b"response" => {
                    *is_answer = true;
                    choice.delta.content = text(cursor)?;
                }
                b"thinking" => choice.delta.reasoning_content = text(cursor)?,
                b"done" => *done = cursor.skip()? == b"true",
                b"done_reason" => *done_reason = cursor.string_or_skip()?.filter(|reason| !reason.is_empty()),
                b"error" => {
                    let raw = cursor.skip()?;
                    *error = Value::parse(raw)?.is_truthy().then_some(data);
                }
                b"logprobs" if cursor.kind()? == Kind::Array => {
                    // Its entries are OpenAI's.
                    *logprobs = Some([b"{\"content\":", cursor.skip()?, b"}"].concat());
                }
                name if MEASURES.contains(&name) => {
                    measures.push(if measures.is_empty() { b'{' } else { b',' });
                    write_str(measures, &key.decode());
                    measures.push(b':');
                    measures.extend_from_slice(cursor.skip()?);
                }
                _ => event.extra.push(Extra::new(key, cursor.skip()?)),
            }
            Ok(())
        })?;
        cursor.end()?;
        if !measures.is_empty() {
            measures.push(b'}');
        }
        Ok(document)
    }

    fn read_message<'a>(&mut self, cursor: &mut Cursor<'a>, delta: &mut Delta<'a>) -> Result<()> {
        cursor.object(|cursor, key| {
            match &*key.bytes() {
                // In every line, and always the assistant's.
                b"role" => _ = cursor.skip()?,
                b"content" => delta.content = text(cursor)?,
                b"thinking" => delta.reasoning_content = text(cursor)?,
                b"tool_calls" if cursor.kind()? == Kind::Array => cursor.array(|cursor| {
                    delta.tool_calls.push(read_call(cursor, self.calls)?);
                    self.calls += 1;
                    Ok(())
                })?,
                _ => delta.extra.push(Extra::new(key, cursor.skip()?)),
            }
            Ok(())
        })
    }
}

/// A line, read but not yet judged.
#[derive(Default)]
struct Document<'a> {
    event: Incoming<'a>,
    choice: Choice<'a>,
    /// When the line was written, as JSON text: of the first one only it matters.
    time: Option<&'a [u8]>,
    /// As OpenAI has them.
    logprobs: Option<Vec<u8>>,
    is_answer: bool,
    done: bool,
    done_reason: Option<Str<'a>>,
    /// The object of all `MEASURES` in the line; empty if there are none.
    measures: Vec<u8>,
    /// The whole line, if it tells of an error.
    error: Option<&'a [u8]>,
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
        let plain = self.is_answer
            && !self.done
            && self.logprobs.is_none()
            && self.error.is_none()
            && self.measures.is_empty()
            && tool_calls.is_empty()
            && extra.is_empty();
        plain.then_some(Filled { choice: 0, part, text, usage: None })
    }
}

/// A whole call. Older servers give neither id nor index: the calls are counted here.
fn read_call<'a>(cursor: &mut Cursor<'a>, index: u32) -> Result<ToolCall<'a>> {
    let mut call = ToolCall { index: Some(index), ..ToolCall::default() };
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"id" => call.id = cursor.string_or_skip()?.map(Text::Json),
            b"type" => call.kind = cursor.string_or_skip()?,
            b"function" if cursor.kind()? == Kind::Object => call.function = read_function(cursor)?,
            _ => call.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    })?;
    Ok(call)
}

fn read_function<'a>(cursor: &mut Cursor<'a>) -> Result<Function<'a>> {
    let mut function = Function { name: None, arguments: Some(Text::Owned("{}".to_owned())) };
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"name" => function.name = cursor.string_or_skip()?,
            b"arguments" => match cursor.kind()? {
                Kind::String => function.arguments = Some(Text::Json(cursor.string()?)),
                Kind::Null => cursor.null()?,
                _ => function.arguments = Some(Text::Owned(compact(cursor)?)),
            },
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(function)
}

/// A value as JSON text without white space.
fn compact(cursor: &mut Cursor<'_>) -> Result<String> {
    let mut json = Vec::new();
    Value::read(cursor)?.write(&mut json);
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// A piece of text; every line has an empty one of the kind that it is not.
fn text<'a>(cursor: &mut Cursor<'a>) -> Result<Field<Text<'a>>> {
    let text = cursor.string_or_skip()?.filter(|text| !text.is_empty());
    Ok(text.map_or(Field::Absent, |text| Field::Value(Text::Json(text))))
}

/// Thinking is inside `eval_count`. Older servers leave out the prompt's count when it is all in their cache: it stays
/// unknown, and adds nothing to the total.
fn counts(measures: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    if measures.is_empty() {
        return Ok(counts);
    }
    Cursor::new(measures).object(|cursor, key| {
        match &*key.bytes() {
            b"prompt_eval_count" => counts.prompt = usage::count(cursor)?,
            b"eval_count" => counts.completion = usage::count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    if counts.prompt.is_none() {
        counts.total_of_known = counts.completion;
    }
    Ok(counts)
}
