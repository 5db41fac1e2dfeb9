//! Gemini's generateContent, of AI Studio and of Vertex AI.

mod arguments;
mod grounding;

use arguments::Arguments;
use grounding::Cited;

use super::error_body;
use super::template::{Filled, Template};
use super::time::unix_seconds;
use crate::chunk::{Choice, Delta, Extra, Field, FinishReason, Function, Text, ToolCall};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value, write_str};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Account, Counts, Read};

type Result<T> = std::result::Result<T, JsonError>;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Gemini {
    candidates: Vec<CandidateState>,
    rounds: Box<Rounds>,
    template: Template,
}

#[derive(Debug, Default)]
struct CandidateState {
    index: u32,
    /// Calls so far. Most have no id, and none an index.
    calls: u32,
    /// A call whose arguments are still coming.
    open: Option<(u32, Arguments)>,
    cited: Cited,
}

impl Gemini {
    /// One event of a stream: an object, or several in an array.
    pub(crate) fn frame(
        &mut self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let Self { candidates, rounds, template } = self;
        let look = |piece: &Filled<'_>| {
            if piece.part == Part::Content
                && let Some(state) = candidates.iter_mut().find(|state| state.index == piece.choice)
            {
                state.cited.add_text(&piece.text.decode());
            }
        };
        if !rounds.server_tools && template.replay_and(frame, stream, sink, look) {
            return Ok(());
        }
        self.template.forget();
        let data = frame.data.trim_ascii();
        // Nobody recorded one from the provider itself, but gateways like to end a stream with it.
        if data.starts_with(b"[DONE]") {
            stream.end(sink);
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        if data.starts_with(b"[") {
            return elements(data)?.into_iter().try_for_each(|element| self.event(element, stream, sink).map(drop));
        }
        let document = read(data, stream.begun()).map_err(|error| Error::invalid_json(error, data))?;
        let (piece, time) = (document.piece(), document.time);
        self.accept(document, data, stream, sink)?;
        if let Some(piece) = piece {
            self.template.learn(frame, piece, time);
        }
        Ok(())
    }

    /// A single response, or a whole stream in array form.
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let body = body.trim_ascii();
        let mut is_answer = false;
        if body.starts_with(b"[") {
            for element in elements(body)? {
                is_answer |= self.event(element, stream, sink)?;
            }
        } else {
            is_answer = self.event(body, stream, sink)?;
        }
        if !is_answer {
            let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
            return Err(Error::new(
                Class::ResponseValidation,
                format!("expected a response with `candidates`, got {start:?}"),
            ));
        }
        stream.end(sink);
        Ok(())
    }

    /// One object; false if it is none of the wire's.
    fn event(&mut self, data: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> std::result::Result<bool, Error> {
        let document = read(data, stream.begun()).map_err(|error| Error::invalid_json(error, data))?;
        self.accept(document, data, stream, sink)
    }

    fn accept(
        &mut self,
        document: Document<'_>,
        data: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<bool, Error> {
        let invalid = |error| Error::invalid_json(error, data);
        let Document { event, candidates, blocked, usage, is_error, is_answer, .. } = document;
        if is_error {
            let value = Value::parse(data).map_err(invalid)?;
            return Err(error_body::from_value(None, &value, data));
        }
        let mut settled = Vec::with_capacity(candidates.len());
        let no_candidates = candidates.is_empty();
        for candidate in candidates {
            self.rounds.server_tools |= candidate.server_tools;
            settled.push(self.settle(candidate).map_err(invalid)?);
        }
        // From here on the event borrows what was made of it too.
        let mut event: Incoming<'_> = event;
        for (choice, made) in &mut settled {
            let mut choice: Choice<'_> = std::mem::take(choice);
            choice.delta.audio = made.audio.as_deref();
            choice.delta.annotations = made.annotations.as_deref();
            if let Some(logprobs) = &made.logprobs {
                choice.logprobs = Field::Value(logprobs);
            }
            event.choices.push(choice);
        }
        if let Some(reason) = blocked.filter(|_| no_candidates) {
            let mut choice = Choice { finish_reason: Some(FinishReason::ContentFilter), ..Choice::default() };
            choice.extra.push(Extra::new(Str::plain("provider_finish_reason"), reason));
            event.choices.push(choice);
        }
        stream.push(event, sink);
        if let Some(raw) = usage {
            let last_word = stream.finished();
            self.rounds.report(raw, last_word, stream.account()).map_err(invalid)?;
        }
        Ok(is_answer)
    }

    /// Puts a candidate in relation to what came before it.
    fn settle<'a>(&mut self, candidate: Candidate<'a>) -> Result<(Choice<'a>, Made)> {
        let Candidate { mut choice, calls, grounding, citations, logprobs, audio, server_tools: _ } = candidate;
        if !self.candidates.iter().any(|state| state.index == choice.index) {
            self.candidates.push(CandidateState { index: choice.index, ..CandidateState::default() });
        }
        let mut made = Made { annotations: None, audio: audio.map(Inline::write_audio), logprobs };
        let Some(state) = self.candidates.iter_mut().find(|state| state.index == choice.index) else {
            return Ok((choice, made));
        };
        for call in calls {
            state.add_call(call, &mut choice.delta)?;
        }
        if choice.finish_reason.is_some() {
            state.close_call(&mut choice.delta);
        }
        if let Field::Value(text) = &choice.delta.content {
            state.cited.add_text(&text.decode());
        }
        made.annotations = state.cited.annotations(grounding, citations)?;
        Ok((choice, made))
    }
}

impl CandidateState {
    fn add_call<'a>(&mut self, call: Call<'a>, delta: &mut Delta<'a>) -> Result<()> {
        let Call { name, id, mut arguments, partial, will_continue, signature } = call;
        if name.is_some() {
            self.close_call(delta);
            if let Some(partial) = partial {
                arguments.get_or_insert_default().add(partial)?;
            }
            let index = self.calls;
            self.calls += 1;
            let whole = if will_continue {
                self.open = Some((index, arguments.unwrap_or_default()));
                None
            } else {
                Some(Text::Owned(arguments.unwrap_or_default().write()))
            };
            let mut piece = ToolCall {
                index: Some(index),
                id: id.map(Text::Json),
                function: Function { name, arguments: whole },
                ..ToolCall::default()
            };
            // The next turn is refused without it.
            piece.extra.extend(signature.map(|json| Extra::new(Str::plain("thought_signature"), json)));
            delta.tool_calls.push(piece);
        } else if let Some((_, open)) = &mut self.open {
            if let Some(partial) = partial {
                open.add(partial)?;
            }
            if let Some(more) = arguments {
                open.merge(more);
            }
            if !will_continue {
                self.close_call(delta);
            }
        }
        Ok(())
    }

    /// Gives the arguments of a call that came in pieces.
    fn close_call(&mut self, delta: &mut Delta<'_>) {
        if let Some((index, arguments)) = self.open.take() {
            delta.tool_calls.push(ToolCall {
                index: Some(index),
                function: Function { name: None, arguments: Some(Text::Owned(arguments.write())) },
                ..ToolCall::default()
            });
        }
    }
}

/// How the reports of the rounds of one answer combine: with tools on the server's side each round counts from 0
/// again, and only the last report of all sums them up.
#[derive(Debug, Default)]
struct Rounds {
    /// Whether there are such tools; without them a total that falls is a correction.
    server_tools: bool,
    earlier: Counts,
}

impl Rounds {
    fn report(&mut self, raw: &[u8], last_word: bool, account: &mut Account) -> Result<()> {
        let counts = counts(raw)?;
        // What has no total is no report, but Vertex telling how the request is billed.
        if counts.reported_total.is_none() {
            return Ok(());
        }
        if last_word {
            account.report(counts, raw, true);
            return Ok(());
        }
        if self.server_tools
            && let Some(last) = account.usage().and_then(|usage| read_counts(&usage.raw))
            && counts.reported_total < last.reported_total
        {
            self.earlier = sum(&self.earlier, &last);
        }
        account.report(sum(&self.earlier, &counts), raw, false);
        Ok(())
    }
}

fn read_counts(raw: &[u8]) -> Option<Counts> {
    counts(raw).ok().filter(|counts| counts.reported_total.is_some())
}

/// None is unknown only where both are.
fn sum(one: &Counts, other: &Counts) -> Counts {
    let add = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    };
    Counts {
        prompt: add(one.prompt, other.prompt),
        completion: add(one.completion, other.completion),
        reported_total: add(one.reported_total, other.reported_total),
        cached: add(one.cached, other.cached),
        prompt_audio: add(one.prompt_audio, other.prompt_audio),
        reasoning: add(one.reasoning, other.reasoning),
        completion_audio: add(one.completion_audio, other.completion_audio),
        ..Counts::default()
    }
}

/// An event, read but not yet judged.
#[derive(Default)]
struct Document<'a> {
    event: Incoming<'a>,
    /// When the answer began, as JSON text: of the first event only it matters.
    time: Option<&'a [u8]>,
    candidates: Vec<Candidate<'a>>,
    /// Why the prompt was not answered, as JSON text.
    blocked: Option<&'a [u8]>,
    usage: Option<&'a [u8]>,
    is_error: bool,
    is_answer: bool,
}

impl<'a> Document<'a> {
    /// The text of one candidate, where there is nothing else that would be news twice but the usage.
    fn piece(&self) -> Option<Filled<'a>> {
        let [Candidate { choice, calls, grounding: None, citations: None, logprobs: None, audio: None, .. }] =
            self.candidates.as_slice()
        else {
            return None;
        };
        let Delta { content, reasoning_content, extra, .. } = &choice.delta;
        let (part, text) = match (content, reasoning_content) {
            (Field::Value(Text::Json(text)), Field::Absent) => (Part::Content, *text),
            (Field::Absent, Field::Value(Text::Json(text))) => (Part::Reasoning, *text),
            _ => return None,
        };
        let plain = !self.is_error
            && self.blocked.is_none()
            && self.event.extra.is_empty()
            && choice.finish_reason.is_none()
            && choice.extra.is_empty()
            && calls.is_empty()
            && extra.is_empty();
        // What is no report stands in the template as it is.
        let usage = self.usage.filter(|raw| read_counts(raw).is_some()).map(|raw| (raw, read_counts as Read));
        plain.then_some(Filled { choice: choice.index, part, text, usage })
    }
}

/// A candidate's part of one event, by itself.
#[derive(Default)]
struct Candidate<'a> {
    choice: Choice<'a>,
    calls: Vec<Call<'a>>,
    grounding: Option<&'a [u8]>,
    citations: Option<&'a [u8]>,
    /// As OpenAI has them.
    logprobs: Option<Vec<u8>>,
    audio: Option<Inline<'a>>,
    server_tools: bool,
}

/// What a choice borrows that does not stand in the event.
struct Made {
    annotations: Option<Vec<u8>>,
    audio: Option<Vec<u8>>,
    logprobs: Option<Vec<u8>>,
}

/// A function call, or a piece of one.
#[derive(Default)]
struct Call<'a> {
    name: Option<Str<'a>>,
    id: Option<Str<'a>>,
    arguments: Option<Arguments>,
    /// The `partialArgs`.
    partial: Option<&'a [u8]>,
    will_continue: bool,
    signature: Option<&'a [u8]>,
}

/// Data in base64.
struct Inline<'a> {
    mime_type: Str<'a>,
    data: Str<'a>,
}

impl Inline<'_> {
    /// As the `audio` of a message.
    fn write_audio(self) -> Vec<u8> {
        let mut json = b"{\"data\":".to_vec();
        write_str(&mut json, &self.data.decode());
        json.extend_from_slice(b",\"mime_type\":");
        write_str(&mut json, &self.mime_type.decode());
        json.push(b'}');
        json
    }
}

/// The elements of an array.
fn elements(data: &[u8]) -> std::result::Result<Vec<&[u8]>, Error> {
    let mut found = Vec::new();
    let mut cursor = Cursor::new(data);
    cursor
        .array(|cursor| {
            found.push(cursor.skip()?);
            Ok(())
        })
        .and_then(|()| cursor.end())
        .map_err(|error| Error::invalid_json(error, data))?;
    Ok(found)
}

/// `begun` says that the time of the answer is known already.
fn read(data: &[u8], begun: bool) -> Result<Document<'_>> {
    let mut document = Document::default();
    let Document { event, time, candidates, blocked, usage, is_error, is_answer } = &mut document;
    let mut cursor = Cursor::new(data);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"candidates" if cursor.kind()? == Kind::Array => {
                *is_answer = true;
                cursor.array(|cursor| {
                    candidates.push(read_candidate(cursor)?);
                    Ok(())
                })?;
            }
            b"usageMetadata" => {
                *is_answer = true;
                let raw = cursor.skip()?;
                *usage = raw.starts_with(b"{").then_some(raw);
            }
            b"modelVersion" => event.model = cursor.string_or_skip()?,
            b"responseId" => event.id = cursor.string_or_skip()?,
            b"createTime" => {
                let raw = cursor.skip()?;
                *time = Some(raw);
                let said = Cursor::new(raw).string_or_skip()?;
                event.created = said.filter(|_| !begun).and_then(|said| unix_seconds(&said.decode()));
            }
            b"promptFeedback" if cursor.kind()? == Kind::Object => {
                *is_answer = true;
                let raw = cursor.skip()?;
                Cursor::new(raw).object(|cursor, key| {
                    let value = cursor.skip()?;
                    if *key.bytes() == *b"blockReason" && !matches!(value, b"null" | b"0" | b"\"\"") {
                        *blocked = Some(value);
                    }
                    Ok(())
                })?;
                event.extra.push(Extra::new(key, raw));
            }
            b"error" => *is_error |= Value::read(cursor)?.is_truthy(),
            _ => event.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(document)
}

fn read_candidate<'a>(cursor: &mut Cursor<'a>) -> Result<Candidate<'a>> {
    let mut candidate = Candidate::default();
    cursor.object(|cursor, key| {
        let choice = &mut candidate.choice;
        match &*key.bytes() {
            b"index" => choice.index = cursor.number_or_skip()?.map_or(0, |n| u32::try_from(n.as_i64()).unwrap_or(0)),
            b"content" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"parts" if cursor.kind()? == Kind::Array => {
                        cursor.array(|cursor| read_part(cursor, &mut candidate))?;
                    }
                    // The role is the assistant's, whatever it is called here.
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            b"finishReason" => {
                let raw = cursor.skip()?;
                if !matches!(raw, b"null" | b"\"\"") {
                    choice.finish_reason = Some(finish_reason(raw));
                    choice.extra.push(Extra::new(Str::plain("provider_finish_reason"), raw));
                }
            }
            b"logprobsResult" => {
                let raw = cursor.skip()?;
                candidate.logprobs = logprobs(&Value::parse(raw)?);
                choice.extra.push(Extra::new(key, raw));
            }
            b"groundingMetadata" => {
                let raw = cursor.skip()?;
                candidate.grounding = Some(raw);
                choice.extra.push(Extra::new(key, raw));
            }
            b"citationMetadata" => {
                let raw = cursor.skip()?;
                candidate.citations = Some(raw);
                choice.extra.push(Extra::new(key, raw));
            }
            _ => choice.extra.push(Extra::new(key, cursor.skip()?)),
        }
        Ok(())
    })?;
    Ok(candidate)
}

fn read_part<'a>(cursor: &mut Cursor<'a>, candidate: &mut Candidate<'a>) -> Result<()> {
    let mut text = None;
    let mut thought = false;
    let mut signature = None;
    let mut call = None;
    let mut inline: Option<Inline<'a>> = None;
    let mut other = false;
    let start = cursor.rest();
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"text" => text = cursor.string_or_skip()?,
            b"thought" => thought = cursor.skip()? == b"true",
            b"thoughtSignature" => {
                let raw = cursor.skip()?;
                signature = (raw.starts_with(b"\"") && raw != b"\"\"").then_some(raw);
            }
            b"functionCall" if cursor.kind()? == Kind::Object => call = Some(read_call(cursor)?),
            b"inlineData" if cursor.kind()? == Kind::Object => inline = Some(read_inline(cursor)?),
            name => {
                candidate.server_tools |=
                    matches!(name, b"executableCode" | b"codeExecutionResult" | b"toolCall" | b"toolResponse");
                other = true;
                cursor.skip()?;
            }
        }
        Ok(())
    })?;
    let raw = start.get(..start.len() - cursor.rest().len()).unwrap_or_default().trim_ascii();
    let delta = &mut candidate.choice.delta;
    if let Some(call) = call {
        candidate.calls.push(Call { signature, ..call });
        return Ok(());
    }
    match inline {
        Some(sound) if !thought && sound.mime_type.raw().starts_with(b"audio/") => {
            candidate.audio = Some(sound);
            return Ok(());
        }
        Some(image) if !thought && image.mime_type.raw().starts_with(b"image/") => {
            append(&mut delta.extra, "images", &image_url(&image, signature));
            return Ok(());
        }
        // As it stands: it goes back in the next turn so.
        Some(_) => {
            append(&mut delta.extra, "content_parts", raw);
            return Ok(());
        }
        None if other && text.is_none() => {
            append(&mut delta.extra, "content_parts", raw);
            return Ok(());
        }
        None => {}
    }
    if let Some(text) = text {
        add_text(if thought { &mut delta.reasoning_content } else { &mut delta.content }, text);
    }
    if let Some(signature) = signature {
        delta.extra.retain(|extra| extra.key.raw() != b"thought_signature");
        delta.extra.push(Extra::new(Str::plain("thought_signature"), signature));
    }
    Ok(())
}

/// Most events have one part: its text stays where it is.
fn add_text<'a>(whole: &mut Field<Text<'a>>, piece: Str<'a>) {
    if piece.is_empty() {
        return;
    }
    *whole = match std::mem::take(whole) {
        Field::Value(text) => Field::Value(Text::Owned(text.decode().into_owned() + &piece.decode())),
        _ => Field::Value(Text::Json(piece)),
    };
}

/// Adds an item to a list among the extras.
fn append(extras: &mut Vec<Extra<'_>>, name: &'static str, item: &[u8]) {
    match extras.iter_mut().find(|extra| extra.key.raw() == name.as_bytes()) {
        Some(extra) => {
            let list = extra.json.to_mut();
            list.pop();
            list.push(b',');
            list.extend_from_slice(item);
            list.push(b']');
        }
        None => extras.push(Extra { key: Str::plain(name), json: [b"[", item, b"]"].concat().into() }),
    }
}

fn read_inline<'a>(cursor: &mut Cursor<'a>) -> Result<Inline<'a>> {
    let mut inline = Inline { mime_type: Str::default(), data: Str::default() };
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"mimeType" => inline.mime_type = cursor.string_or_skip()?.unwrap_or_default(),
            b"data" => inline.data = cursor.string_or_skip()?.unwrap_or_default(),
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(inline)
}

/// As the gateways that speak chat completions give images.
fn image_url(image: &Inline<'_>, signature: Option<&[u8]>) -> Vec<u8> {
    let mut json = b"{\"type\":\"image_url\",\"image_url\":{\"url\":".to_vec();
    write_str(&mut json, &format!("data:{};base64,{}", image.mime_type.decode(), image.data.decode()));
    json.push(b'}');
    if let Some(signature) = signature {
        json.extend_from_slice(b",\"thought_signature\":");
        json.extend_from_slice(signature);
    }
    json.push(b'}');
    json
}

fn read_call<'a>(cursor: &mut Cursor<'a>) -> Result<Call<'a>> {
    let mut call = Call::default();
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"name" => call.name = cursor.string_or_skip()?.filter(|name| !name.is_empty()),
            b"id" => call.id = cursor.string_or_skip()?,
            b"args" if cursor.kind()? == Kind::Object => call.arguments = Some(Arguments::read(cursor)?),
            b"partialArgs" if cursor.kind()? == Kind::Array => call.partial = Some(cursor.skip()?),
            b"willContinue" => call.will_continue = cursor.skip()? == b"true",
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(call)
}

/// The reason in OpenAI's words. Old clients of Vertex have the enum as numbers.
fn finish_reason(raw: &[u8]) -> FinishReason {
    match raw {
        b"\"STOP\"" | b"1" => FinishReason::Stop,
        b"\"MAX_TOKENS\"" | b"2" => FinishReason::Length,
        b"\"SAFETY\""
        | b"\"RECITATION\""
        | b"\"BLOCKLIST\""
        | b"\"PROHIBITED_CONTENT\""
        | b"\"SPII\""
        | b"\"MODEL_ARMOR\""
        | b"\"IMAGE_SAFETY\""
        | b"\"IMAGE_PROHIBITED_CONTENT\""
        | b"\"IMAGE_RECITATION\""
        | b"3"
        | b"4"
        | b"6"
        | b"7"
        | b"8"
        | b"10" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// `logprobsResult` as OpenAI has it.
fn logprobs(result: &Value<'_>) -> Option<Vec<u8>> {
    let Some(Value::Array(chosen)) = result.get("chosenCandidates") else {
        return None;
    };
    let tops = match result.get("topCandidates") {
        Some(Value::Array(tops)) => tops.as_slice(),
        _ => &[],
    };
    let entry = |candidate: &Value<'_>| {
        Value::Object(vec![
            ("token".into(), candidate.get("token").cloned().unwrap_or(Value::String("".into())).into_owned()),
            ("logprob".into(), candidate.get("logProbability").cloned().unwrap_or(Value::Null).into_owned()),
            ("bytes".into(), Value::Null),
        ])
    };
    let content = chosen
        .iter()
        .enumerate()
        .map(|(place, token)| {
            let top = match tops.get(place).and_then(|top| top.get("candidates")) {
                Some(Value::Array(candidates)) => candidates.iter().map(entry).collect(),
                _ => Vec::new(),
            };
            let mut entry = entry(token);
            entry.set("top_logprobs", Value::Array(top));
            entry
        })
        .collect();
    let mut json = Vec::new();
    Value::Object(vec![("content".into(), Value::Array(content))]).write(&mut json);
    Some(json)
}

/// Reads a `usageMetadata`. Zeros are left out of it, but the total tells them.
fn counts(raw: &[u8]) -> Result<Counts> {
    let mut prompt = None;
    let mut tool_prompt = None;
    let mut candidates = None;
    let mut counts = Counts::default();
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"promptTokenCount" => prompt = usage::count(cursor)?,
            b"toolUsePromptTokenCount" => tool_prompt = usage::count(cursor)?,
            b"candidatesTokenCount" => candidates = usage::count(cursor)?,
            b"thoughtsTokenCount" => counts.reasoning = usage::count(cursor)?,
            b"cachedContentTokenCount" => counts.cached = usage::count(cursor)?,
            b"totalTokenCount" => counts.reported_total = usage::count(cursor)?,
            b"promptTokensDetails" => counts.prompt_audio = audio_tokens(cursor)?,
            b"candidatesTokensDetails" => counts.completion_audio = audio_tokens(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    let total = counts.reported_total;
    let plus = |one: Option<u64>, other: Option<u64>| {
        (one.is_some() || other.is_some()).then(|| one.unwrap_or(0).saturating_add(other.unwrap_or(0)))
    };
    counts.prompt = plus(prompt, tool_prompt);
    // Some older answers count the thoughts among the candidates' tokens: the total shows it.
    let inside = counts.reasoning.is_some_and(|thoughts| thoughts > 0) && total == plus(counts.prompt, candidates);
    let untold = || total.zip(counts.prompt).map(|(total, prompt)| total.saturating_sub(prompt));
    counts.completion = if inside { candidates } else { plus(candidates, counts.reasoning) }.or_else(untold);
    Ok(counts)
}

/// The count of the modality AUDIO, 4 as a number.
fn audio_tokens(cursor: &mut Cursor<'_>) -> Result<Option<u64>> {
    let details = Value::read(cursor)?;
    let Value::Array(details) = details else {
        return Ok(None);
    };
    let audio = details.iter().find(|detail| match detail.get("modality") {
        Some(Value::String(name)) => name == "AUDIO",
        Some(Value::Number(number)) => number == "4",
        _ => false,
    });
    let count = audio.and_then(|audio| audio.get("tokenCount")).and_then(Value::as_i64);
    Ok(count.and_then(|count| u64::try_from(count).ok()))
}
