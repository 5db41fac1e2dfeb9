//! Bare text completions, as models have them in their own formats: documents with a piece of text, a reason to stop
//! and two counts, each under a name of its own.

use std::borrow::Cow;

use super::chat::Chat;
use super::error_body;
use super::time::unix_seconds;
use crate::chunk::{self, Choice, Delta, Extra, Extras, Field, FinishReason};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// The reader of one stream: bare texts, or chat completions where the documents have `choices`.
#[derive(Debug, Default)]
pub(crate) struct Text {
    chat: Option<Chat>,
    texts: Texts,
}

impl Text {
    /// One event of a stream.
    pub(crate) fn frame(
        &mut self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let data = frame.data;
        if frame.exception {
            return Err(error_body::from_exception(None, &String::from_utf8_lossy(frame.name), data));
        }
        if let Some(chat) = &mut self.chat {
            return chat.frame(frame, stream, sink);
        }
        if data.starts_with(b"[DONE]") {
            stream.end(sink);
            return Ok(());
        }
        if data.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let reply = Reply::read(data).map_err(|error| match frame.name {
            // An error event may be prose.
            b"error" => Error::new(Class::InternalServer, String::from_utf8_lossy(data)),
            _ => Error::invalid_json(error, data),
        })?;
        if reply.is_chat {
            return self.chat.insert(Chat::default()).frame(frame, stream, sink);
        }
        self.accept(reply, data, frame.name == b"error", stream, sink)
    }

    /// A single response: the one document that says it all, which some servers make a list of one.
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, body);
        let document = first(body).map_err(invalid)?;
        let reply = Reply::read(document).map_err(invalid)?;
        if reply.is_chat {
            return Chat::default().body(document, stream, sink);
        }
        if !reply.is_completion() && !reply.failed {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected a text in a field of a known name, got {start:?}"),
            ));
        }
        self.accept(reply, document, false, stream, sink)?;
        stream.end(sink);
        Ok(())
    }

    fn accept(
        &mut self,
        reply: Reply<'_>,
        data: &[u8],
        is_error: bool,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let invalid = |error| Error::invalid_json(error, data);
        if is_error || reply.failed {
            let value = Value::parse(data).map_err(invalid)?;
            return Err(error_body::from_value(None, &value, data));
        }
        let Reply { mut document, token, whole, usage, .. } = reply;
        if token.is_some() {
            // An index beside it is the token's, not the choice's.
            let one = document.one.get_or_insert_default();
            (one.index, one.text) = (0, token);
        } else if whole.is_some() && !stream.has_spoken(0) {
            document.one.get_or_insert_default().text = whole;
        }
        let failed = document.pieces().any(|piece| piece.stop.is_some_and(|stop| stop.raw() == b"error"));
        if document.is_completion() || document.has_counts() || usage.is_some() {
            self.texts.take(document, stream, sink);
        }
        if let Some(raw) = usage {
            let counts = usage::openai_counts(raw).map_err(invalid)?;
            stream.account().report(counts, raw, true);
        }
        if failed {
            return Err(Error::new(Class::InternalServer, "the provider ended its answer with the reason \"error\""));
        }
        Ok(())
    }
}

/// The first element of a list, and anything else as it is.
fn first(body: &[u8]) -> Result<&[u8]> {
    let mut cursor = Cursor::new(body);
    let mut found = None;
    if cursor.kind()? == Kind::Array {
        cursor.array(|cursor| {
            let element = cursor.skip()?;
            found.get_or_insert(element);
            Ok(())
        })?;
        cursor.end()?;
    }
    Ok(found.unwrap_or(body))
}

/// A document, with what servers put around and beside a text.
#[derive(Default)]
struct Reply<'a> {
    document: Document<'a>,
    /// The text of one token; empty for those that are not to be read.
    token: Option<Str<'a>>,
    /// All of the text, in the last event once more.
    whole: Option<Str<'a>>,
    usage: Option<&'a [u8]>,
    is_chat: bool,
    failed: bool,
}

impl<'a> Reply<'a> {
    fn read(data: &'a [u8]) -> Result<Self> {
        let mut reply = Self::default();
        let mut cursor = Cursor::new(data);
        cursor.object(|cursor, key| reply.field(cursor, key))?;
        cursor.end()?;
        Ok(reply)
    }

    fn field(&mut self, cursor: &mut Cursor<'a>, key: Str<'a>) -> Result<()> {
        match (&*key.bytes(), cursor.kind()?) {
            (b"token", Kind::Object) => self.token = Some(read_token(cursor)?),
            (b"generated_text", _) => self.whole = cursor.string_or_skip()?,
            (b"details", Kind::Object) => cursor.object(|cursor, key| self.document.detail(cursor, key))?,
            (b"choices", Kind::Array) => {
                self.is_chat = true;
                cursor.skip()?;
            }
            (b"result", Kind::Object) => cursor.object(|cursor, key| self.field(cursor, key))?,
            (b"usage", _) => self.usage = cursor.object_or_skip()?,
            (b"model_id" | b"model_name", Kind::String) => self.document.model = Some(cursor.string()?),
            (b"created_at", Kind::String) => self.document.created = unix_seconds(&cursor.string()?.decode()),
            (b"error" | b"errors", _) => self.failed |= Value::read(cursor)?.is_truthy(),
            (b"success", _) => self.failed |= cursor.skip()? == b"false",
            // Filler that hides the length of an event, and what is empty where nothing is wrong.
            (b"p" | b"messages" | b"details", _) => _ = cursor.skip()?,
            _ => self.document.field(cursor, key)?,
        }
        Ok(())
    }

    fn is_completion(&self) -> bool {
        self.token.is_some() || self.whole.is_some() || self.document.is_completion()
    }
}

/// The text of a token, but of one that only means something to the model.
fn read_token<'a>(cursor: &mut Cursor<'a>) -> Result<Str<'a>> {
    let (mut text, mut special) = (None, false);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"text" => text = cursor.string_or_skip()?,
            b"special" => special = cursor.skip()? == b"true",
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(text.filter(|_| !special).unwrap_or_default())
}

/// The reader of one stream of texts.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Some streams tell the prompt's count first and the completion's last, others the sum so far with every piece,
    /// or the prompt's once and zeros after it: counts only grow.
    prompt: Option<Count>,
    completion: Option<Count>,
}

/// A count with the name it came under.
#[derive(Clone, Copy, Debug)]
struct Count {
    name: &'static str,
    tokens: u64,
}

/// A document, read but not yet handed out.
#[derive(Default)]
pub(super) struct Document<'a> {
    pub(super) id: Option<Str<'a>>,
    pub(super) model: Option<Str<'a>>,
    created: Option<i64>,
    /// One piece, as in most streams, or a list of them, as in most bodies.
    one: Option<Piece<'a>>,
    list: Vec<Piece<'a>>,
    prompt: Option<Count>,
    completion: Option<Count>,
    pub(super) extra: Extras<'a>,
}

#[derive(Default)]
struct Piece<'a> {
    index: u32,
    text: Option<Str<'a>>,
    stop: Option<Str<'a>>,
}

impl<'a> Document<'a> {
    /// Reads one field; what is not known here is kept.
    pub(super) fn field(&mut self, cursor: &mut Cursor<'a>, key: Str<'a>) -> Result<()> {
        match &*key.bytes() {
            b"id" | b"generation_id" => self.id = cursor.string_or_skip()?.or(self.id),
            b"model" => self.model = cursor.string_or_skip()?,
            b"generation" | b"outputText" | b"completion" | b"text" | b"text_output" => {
                self.one.get_or_insert_default().text = cursor.string_or_skip()?;
            }
            b"stop_reason" | b"completionReason" | b"finish_reason" => {
                self.one.get_or_insert_default().stop = cursor.string_or_skip()?;
            }
            b"response" if cursor.kind()? == Kind::String => {
                self.one.get_or_insert_default().text = Some(cursor.string()?);
            }
            b"index" => self.one.get_or_insert_default().index = read_index(cursor)?,
            b"outputs" | b"results" | b"generations" | b"completions" if cursor.kind()? == Kind::Array => {
                self.list.clear();
                let mut index = 0;
                cursor.array(|cursor| {
                    let piece = self.read_piece(cursor, index)?;
                    self.list.push(piece);
                    index += 1;
                    Ok(())
                })?;
            }
            b"prompt_token_count" => read_count(cursor, "prompt_token_count", &mut self.prompt)?,
            b"inputTextTokenCount" => read_count(cursor, "inputTextTokenCount", &mut self.prompt)?,
            b"generation_token_count" => read_count(cursor, "generation_token_count", &mut self.completion)?,
            b"totalOutputTextTokenCount" => read_count(cursor, "totalOutputTextTokenCount", &mut self.completion)?,
            // The question again, and what the pieces say by themselves.
            b"prompt" | b"chat_history" | b"is_finished" | b"event_type" | b"type" | b"response" => {
                _ = cursor.skip()?;
            }
            _ => self.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    }

    fn read_piece(&mut self, cursor: &mut Cursor<'a>, index: u32) -> Result<Piece<'a>> {
        let mut piece = Piece { index, ..Piece::default() };
        if cursor.kind()? != Kind::Object {
            piece.text = cursor.string_or_skip()?;
            return Ok(piece);
        }
        cursor.object(|cursor, key| {
            match (&*key.bytes(), cursor.kind()?) {
                (b"text" | b"outputText" | b"generated_text", _) => piece.text = cursor.string_or_skip()?,
                (b"stop_reason" | b"completionReason" | b"finish_reason", _) => piece.stop = cursor.string_or_skip()?,
                (b"tokenCount", _) => {
                    let before = self.completion.map_or(0, |count| count.tokens);
                    read_count(cursor, "tokenCount", &mut self.completion)?;
                    if let Some(count) = &mut self.completion {
                        count.tokens = count.tokens.saturating_add(before);
                    }
                }
                (b"input_token_count", _) => read_count(cursor, "input_token_count", &mut self.prompt)?,
                (b"generated_token_count", _) => read_count(cursor, "generated_token_count", &mut self.completion)?,
                (b"data", Kind::Object) => cursor.object(|cursor, key| {
                    match &*key.bytes() {
                        b"text" => piece.text = cursor.string_or_skip()?,
                        _ => _ = cursor.skip()?,
                    }
                    Ok(())
                })?,
                (b"finishReason", Kind::Object) => cursor.object(|cursor, key| {
                    match &*key.bytes() {
                        b"reason" => piece.stop = cursor.string_or_skip()?,
                        _ => _ = cursor.skip()?,
                    }
                    Ok(())
                })?,
                _ => _ = cursor.skip()?,
            }
            Ok(())
        })?;
        Ok(piece)
    }

    /// One field of what the last event says of the whole.
    fn detail(&mut self, cursor: &mut Cursor<'a>, key: Str<'a>) -> Result<()> {
        match &*key.bytes() {
            b"finish_reason" => self.one.get_or_insert_default().stop = cursor.string_or_skip()?,
            b"input_length" => read_count(cursor, "input_length", &mut self.prompt)?,
            b"generated_tokens" => read_count(cursor, "generated_tokens", &mut self.completion)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece<'a>> {
        self.one.iter().chain(&self.list)
    }

    fn has_counts(&self) -> bool {
        self.prompt.is_some() || self.completion.is_some()
    }

    /// A text, or the reason why there is no more.
    pub(super) fn is_completion(&self) -> bool {
        self.one.as_ref().is_some_and(|piece| piece.text.is_some() || piece.stop.is_some()) || !self.list.is_empty()
    }
}

impl Texts {
    pub(super) fn take(&mut self, document: Document<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        let Document { id, model, created, one, mut list, prompt, completion, extra } = document;
        match one {
            Some(Piece { index: 0, text: Some(text), stop: None })
                if list.is_empty() && extra.is_empty() && stream.begun() =>
            {
                stream.piece(Part::Content, 0, chunk::Text::Json(text), sink);
            }
            one => {
                if list.is_empty() {
                    list.extend(one);
                }
                let choices = list.iter().map(choice).collect();
                stream.push(Incoming { id, created, model, choices, extra, ..Incoming::default() }, sink);
            }
        }
        if prompt.is_some() || completion.is_some() {
            self.prompt = grown(self.prompt, prompt);
            self.completion = grown(self.completion, completion);
            self.report(stream);
        }
    }

    fn report(&self, stream: &mut Stream) {
        let tokens = |count: Option<Count>| count.map(|count| count.tokens);
        let counts = Counts { prompt: tokens(self.prompt), completion: tokens(self.completion), ..Counts::default() };
        let mut raw = b"{".to_vec();
        for Count { name, tokens } in [self.prompt, self.completion].into_iter().flatten() {
            if raw.len() > 1 {
                raw.push(b',');
            }
            write_str(&mut raw, name);
            raw.push(b':');
            raw.extend_from_slice(tokens.to_string().as_bytes());
        }
        raw.push(b'}');
        let last_word = stream.finished();
        stream.account().report(counts, &raw, last_word);
    }
}

/// What is known of a count after it was told once more, or was not.
fn grown(known: Option<Count>, told: Option<Count>) -> Option<Count> {
    match (known, told) {
        (Some(known), Some(told)) if told.tokens < known.tokens => Some(known),
        _ => told.or(known),
    }
}

fn choice<'a>(piece: &Piece<'a>) -> Choice<'a> {
    let mut choice = Choice { index: piece.index, ..Choice::default() };
    if let Some(text) = piece.text {
        choice.delta = Delta { content: Field::Value(chunk::Text::Json(text)), ..Delta::default() };
    }
    if let Some(stop) = piece.stop.filter(|stop| !stop.is_empty() && !stop.raw().eq_ignore_ascii_case(b"not_finished"))
    {
        finish(&mut choice, stop);
    }
    choice
}

/// Sets the finish reason, with the provider's own where OpenAI has another name for it.
pub(super) fn finish(choice: &mut Choice<'_>, stop: Str<'_>) {
    let reason = match &*stop.bytes().to_ascii_lowercase() {
        b"length" | b"max_tokens" | b"model_length" | b"error_limit" | b"token_limit" | b"time_limit" => {
            FinishReason::Length
        }
        b"tool_calls" | b"tool_use" => FinishReason::ToolCalls,
        b"content_filtered" | b"content_filter" | b"error_toxic" => FinishReason::ContentFilter,
        b"cancelled" | b"error" => FinishReason::Other,
        // finish, complete, endoftext, eos_token, stop_sequence, stop_criteria_met, ...
        _ => FinishReason::Stop,
    };
    choice.finish_reason = Some(reason);
    if stop.raw() != reason.as_str().as_bytes() {
        let mut json = Vec::new();
        write_str(&mut json, &stop.decode());
        choice.extra.push(Extra { key: Str::plain("provider_finish_reason"), json: Cow::Owned(json) });
    }
}

pub(super) fn read_index(cursor: &mut Cursor<'_>) -> Result<u32> {
    Ok(cursor.number_or_skip()?.and_then(|number| u32::try_from(number.as_i64()).ok()).unwrap_or(0))
}

fn read_count(cursor: &mut Cursor<'_>, name: &'static str, to: &mut Option<Count>) -> Result<()> {
    *to = usage::count(cursor)?.map(|tokens| Count { name, tokens });
    Ok(())
}
