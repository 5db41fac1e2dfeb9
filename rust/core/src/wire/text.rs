//! Bare text completions, as models have them in their own formats: documents with a piece of text, a reason to stop
//! and two counts, each under a name of its own.

use std::borrow::Cow;

use crate::chunk::{Choice, Delta, Extra, Extras, Field, FinishReason, Text};
use crate::json::{Cursor, JsonError, Kind, Str, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Some streams tell the prompt's count first and the completion's last, others the sum so far with every piece:
    /// what was told stays until it is told anew.
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
            b"generation" | b"outputText" | b"completion" | b"text" => {
                self.one.get_or_insert_default().text = cursor.string_or_skip()?;
            }
            b"stop_reason" | b"completionReason" | b"finish_reason" => {
                self.one.get_or_insert_default().stop = cursor.string_or_skip()?;
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
            cursor.skip()?;
            return Ok(piece);
        }
        cursor.object(|cursor, key| {
            match (&*key.bytes(), cursor.kind()?) {
                (b"text" | b"outputText", _) => piece.text = cursor.string_or_skip()?,
                (b"stop_reason" | b"completionReason" | b"finish_reason", _) => piece.stop = cursor.string_or_skip()?,
                (b"tokenCount", _) => {
                    let before = self.completion.map_or(0, |count| count.tokens);
                    read_count(cursor, "tokenCount", &mut self.completion)?;
                    if let Some(count) = &mut self.completion {
                        count.tokens = count.tokens.saturating_add(before);
                    }
                }
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

    /// A text, or the reason why there is no more.
    pub(super) fn is_completion(&self) -> bool {
        self.one.as_ref().is_some_and(|piece| piece.text.is_some() || piece.stop.is_some()) || !self.list.is_empty()
    }
}

impl Texts {
    pub(super) fn take(&mut self, document: Document<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        let Document { id, model, one, mut list, prompt, completion, extra } = document;
        match one {
            Some(Piece { index: 0, text: Some(text), stop: None })
                if list.is_empty() && extra.is_empty() && stream.begun() =>
            {
                stream.piece(Part::Content, 0, Text::Json(text), sink);
            }
            one => {
                if list.is_empty() {
                    list.extend(one);
                }
                let choices = list.iter().map(choice).collect();
                stream.push(Incoming { id, model, choices, extra, ..Incoming::default() }, sink);
            }
        }
        if prompt.is_some() || completion.is_some() {
            self.prompt = prompt.or(self.prompt);
            self.completion = completion.or(self.completion);
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

fn choice<'a>(piece: &Piece<'a>) -> Choice<'a> {
    let mut choice = Choice { index: piece.index, ..Choice::default() };
    if let Some(text) = piece.text {
        choice.delta = Delta { content: Field::Value(Text::Json(text)), ..Delta::default() };
    }
    if let Some(stop) = piece.stop.filter(|stop| !stop.is_empty()) {
        finish(&mut choice, stop);
    }
    choice
}

/// Sets the finish reason, with the provider's own where OpenAI has another name for it.
pub(super) fn finish(choice: &mut Choice<'_>, stop: Str<'_>) {
    let reason = match &*stop.bytes().to_ascii_lowercase() {
        b"length" | b"max_tokens" | b"model_length" | b"error_limit" => FinishReason::Length,
        b"tool_calls" | b"tool_use" => FinishReason::ToolCalls,
        b"content_filtered" | b"content_filter" | b"error_toxic" => FinishReason::ContentFilter,
        // finish, complete, endoftext, stop_sequence, stop_criteria_met, ...
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
