//! Chunks into the complete response, losing nothing.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::chunk::{Choice, Chunk, Delta, Extra, Field, FinishReason, Function, Head, Text, ToolCall};
use crate::json::{Object, Value};
use crate::splice::{Delivered, Due, DueCall, Splice};
use crate::stream::Part;
use crate::usage::Usage;

/// Some encoders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Default)]
pub struct Assembly {
    service_tier: Option<String>,
    system_fingerprint: Option<String>,
    choices: Vec<Message>,
    extra: Extras,
    pieces: Pieces,
}

#[derive(Debug, Default)]
struct Message {
    index: u32,
    role: String,
    content: Option<String>,
    reasoning_content: Option<String>,
    /// OpenAI sends a null for it with every message: then it is shown.
    refusal: Field<String>,
    tool_calls: Vec<Call>,
    function_call: Option<Call>,
    audio: Option<Value<'static>>,
    annotations: Option<Value<'static>>,
    extra: Extras,
    /// How much of the reasoning the thinking blocks so far hold.
    thought: usize,
    finish_reason: Option<FinishReason>,
    logprobs: Field<Value<'static>>,
    choice_extra: Extras,
    pieces: Pieces,
}

#[derive(Debug, Default)]
struct Call {
    index: u32,
    id: String,
    kind: String,
    name: String,
    arguments: String,
    extra: Extras,
    pieces: Pieces,
}

/// What has to be sent back unchanged when the conversation goes on: the reasoning with its signatures.
pub(crate) const THINKING_BLOCKS: &str = "thinking_blocks";

/// Fields that OpenAI's schema lacks, by name.
type Extras = Vec<(String, Value<'static>)>;

/// How often each field came that is not a text, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces(Vec<(String, u32)>);

impl Pieces {
    fn count(&mut self, name: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => self.0.push((name.to_owned(), 1)),
        }
    }

    /// Takes one away; false if there is none.
    pub(crate) fn take(&mut self, name: &str) -> bool {
        self.0.iter_mut().find(|(known, count)| known == name && *count > 0).map(|(_, count)| *count -= 1).is_some()
    }
}

impl Assembly {
    pub fn add(&mut self, chunk: &Chunk<'_>) {
        for (kept, given) in
            [(&mut self.service_tier, chunk.service_tier), (&mut self.system_fingerprint, chunk.system_fingerprint)]
        {
            if let Field::Value(text) = given {
                match kept {
                    Some(kept) if kept.as_bytes() == text.raw() => {}
                    _ => *kept = Some(text.decode().into_owned()),
                }
            }
        }
        keep_last(&mut self.extra, &chunk.extra);
        for extra in &chunk.extra {
            self.pieces.count(&extra.key.decode());
        }
        for choice in &chunk.choices {
            let place = self.choices.binary_search_by_key(&choice.index, |message| message.index);
            let place = place.unwrap_or_else(|place| {
                self.choices.insert(place, Message { index: choice.index, ..Message::default() });
                place
            });
            if let Some(message) = self.choices.get_mut(place) {
                message.add(choice);
            }
        }
    }

    /// One more piece of a text; `call` is the place of the tool call that arguments belong to.
    pub fn add_text(&mut self, index: u32, part: Part, call: usize, text: &Text<'_>) {
        if let Ok(place) = self.choices.binary_search_by_key(&index, |message| message.index)
            && let Some(message) = self.choices.get_mut(place)
        {
            let whole = match part {
                Part::Content => message.content.get_or_insert_default(),
                Part::Reasoning => message.reasoning_content.get_or_insert_default(),
                Part::Arguments => match message.tool_calls.get_mut(call) {
                    Some(call) => &mut call.arguments,
                    None => return,
                },
            };
            whole.push_str(&text.decode());
        }
    }

    /// What has been handed out so far, for an answer that is begun again to be held against. The error names what
    /// cannot be compared: no model says it twice with the same bytes.
    pub(crate) fn delivered(&self) -> Result<Splice, &'static str> {
        let choices = self.choices.iter().map(Message::delivered).collect::<Result<_, _>>()?;
        Ok(Splice::new(choices, self.pieces.clone()))
    }

    /// Appends the response as JSON text.
    pub fn write(&self, head: &Head, usage: Option<&Usage>, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.text("id", &head.id);
        object.text("object", "chat.completion");
        object.number("created", head.created);
        object.text("model", &head.model);
        object.list("choices", &self.choices, Message::write);
        if let Some(usage) = usage {
            usage.write(object.key("usage"));
        }
        for (name, text) in [("service_tier", &self.service_tier), ("system_fingerprint", &self.system_fingerprint)] {
            if let Some(text) = text {
                object.text(name, text);
            }
        }
        write_extras(&mut object, &self.extra);
        object.end();
    }
}

impl Message {
    fn delivered(&self) -> Result<Delivered, &'static str> {
        if self.audio.is_some() {
            return Err("audio");
        }
        if let Field::Value(_) = self.logprobs {
            return Err("logprobs");
        }
        let refusal = self.refusal.as_ref().value();
        let texts = [self.content.as_ref(), self.reasoning_content.as_ref(), refusal];
        Ok(Delivered {
            index: self.index,
            texts: texts.map(|text| text.map_or_else(Due::default, |text| text.as_str().into())),
            calls: self.tool_calls.iter().map(Call::delivered).collect(),
            function_call: self.function_call.as_ref().map(Call::delivered),
            pieces: self.pieces.clone(),
            finished: self.finish_reason.is_some(),
        })
    }

    fn add(&mut self, choice: &Choice<'_>) {
        let Choice { index: _, delta, finish_reason, logprobs, extra } = choice;
        let Delta {
            role,
            content,
            reasoning_content,
            refusal,
            tool_calls,
            function_call,
            audio,
            annotations,
            extra: delta_extra,
        } = delta;
        if let Some(role) = role {
            self.role = role.decode().into_owned();
        }
        append(&mut self.content, content);
        append(&mut self.reasoning_content, reasoning_content);
        match (&mut self.refusal, refusal) {
            (Field::Value(whole), Field::Value(piece)) => whole.push_str(&piece.decode()),
            (kept, Field::Value(piece)) => *kept = Field::Value(piece.decode().into_owned()),
            (kept @ Field::Absent, Field::Null) => *kept = Field::Null,
            _ => {}
        }
        for call in tool_calls {
            let index = call.index.unwrap_or(0);
            if !self.tool_calls.iter().any(|whole| whole.index == index) {
                self.tool_calls.push(Call { index, ..Call::default() });
            }
            if let Some(whole) = self.tool_calls.iter_mut().find(|whole| whole.index == index) {
                whole.add(call);
            }
        }
        if let Some(function) = function_call {
            self.function_call.get_or_insert_default().add_function(function);
        }
        if let Some(audio) = audio.and_then(parse) {
            let whole = self.audio.get_or_insert_with(|| Value::Object(Vec::new()));
            merge_audio(whole, audio);
        }
        if let Some(annotations) = annotations.and_then(parse) {
            merge(self.annotations.get_or_insert_with(|| Value::Array(Vec::new())), annotations, &[]);
        }
        if let Some(reason) = finish_reason {
            self.finish_reason = Some(*reason);
        }
        match (&mut self.logprobs, logprobs) {
            (kept @ Field::Absent, Field::Null) => *kept = Field::Null,
            (Field::Value(whole), Field::Value(piece)) => {
                if let Some(piece) = parse(piece) {
                    merge(whole, piece, &[]);
                }
            }
            (kept, Field::Value(piece)) => *kept = parse(piece).into(),
            _ => {}
        }
        // Copies of what the deltas say.
        let own = extra.iter().filter(|extra| !extra.is_copy());
        keep_last(&mut self.choice_extra, own);
        if annotations.is_some() {
            self.pieces.count("annotations");
        }
        for extra in delta_extra {
            keep_pieces(&mut self.extra, extra);
            self.pieces.count(&extra.key.decode());
        }
        if delta_extra.iter().any(|extra| extra.key.raw() == THINKING_BLOCKS.as_bytes()) {
            self.fill_thinking_blocks();
        }
    }

    /// A thinking block that comes without its text (it was streamed as reasoning) holds what was thought since the
    /// one before it.
    fn fill_thinking_blocks(&mut self) {
        let found = self.extra.iter_mut().find(|(name, _)| name == THINKING_BLOCKS);
        let Some((_, Value::Array(blocks))) = found else {
            return;
        };
        let whole = self.reasoning_content.as_deref().unwrap_or_default();
        for block in blocks {
            if block.get("type").and_then(Value::as_str) == Some("thinking") && block.get("thinking").is_none() {
                let text = whole.get(self.thought..).unwrap_or_default();
                self.thought = whole.len();
                block.set("thinking", Value::String(Cow::Owned(text.to_owned())));
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut choice = Object::begin(out);
        choice.number("index", self.index);
        let mut message = Object::begin(choice.key("message"));
        message.text("role", &self.role);
        message.nullable("content", self.content.as_deref());
        if let Some(text) = &self.reasoning_content {
            message.text("reasoning_content", text);
        }
        match &self.refusal {
            Field::Absent => {}
            Field::Null => message.nullable("refusal", None),
            Field::Value(text) => message.text("refusal", text),
        }
        if !self.tool_calls.is_empty() {
            message.list("tool_calls", &self.tool_calls, Call::write);
        }
        if let Some(function) = &self.function_call {
            function.write_function(message.key("function_call"));
        }
        for (name, value) in [("audio", &self.audio), ("annotations", &self.annotations)] {
            if let Some(value) = value {
                value.write(message.key(name));
            }
        }
        write_extras(&mut message, &self.extra);
        message.end();
        choice.nullable("finish_reason", self.finish_reason.map(FinishReason::as_str));
        match &self.logprobs {
            Field::Absent => {}
            Field::Null => choice.nullable("logprobs", None),
            Field::Value(value) => value.write(choice.key("logprobs")),
        }
        write_extras(&mut choice, &self.choice_extra);
        choice.end();
    }
}

impl Call {
    fn delivered(&self) -> DueCall {
        let (name, arguments) = (self.name.as_str().into(), self.arguments.as_str().into());
        DueCall { name, arguments, pieces: self.pieces.clone() }
    }

    fn add(&mut self, call: &ToolCall<'_>) {
        if let Some(id) = &call.id {
            self.id = id.decode().into_owned();
        }
        if let Some(kind) = call.kind {
            self.kind = kind.decode().into_owned();
        }
        self.add_function(&call.function);
        for extra in &call.extra {
            keep_pieces(&mut self.extra, extra);
            self.pieces.count(&extra.key.decode());
        }
    }

    fn add_function(&mut self, function: &Function<'_>) {
        if let Some(name) = function.name {
            self.name.push_str(&name.decode());
        }
        if let Some(arguments) = &function.arguments {
            self.arguments.push_str(&arguments.decode());
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut call = Object::begin(out);
        call.text("id", &self.id);
        call.text("type", &self.kind);
        // A custom tool has its own object, kept among the extras.
        if self.kind == "function" || !self.name.is_empty() {
            self.write_function(call.key("function"));
        }
        write_extras(&mut call, &self.extra);
        call.end();
    }

    fn write_function(&self, out: &mut Vec<u8>) {
        let mut function = Object::begin(out);
        function.text("name", &self.name);
        function.text("arguments", &self.arguments);
        function.end();
    }
}

fn write_extras(object: &mut Object<'_>, extras: &Extras) {
    for (name, value) in extras {
        value.write(object.given(name));
    }
}

fn append(whole: &mut Option<String>, piece: &Field<Text<'_>>) {
    if let Field::Value(piece) = piece {
        whole.get_or_insert_default().push_str(&piece.decode());
    }
}

/// The text was read as JSON once: None is for what cannot be.
fn parse(json: &[u8]) -> Option<Value<'static>> {
    Value::parse(json).ok().map(Value::into_owned)
}

fn set(extras: &mut Extras, name: Cow<'_, str>, value: Value<'static>) {
    match extras.iter_mut().find(|(known, _)| *known == name) {
        Some((_, kept)) => *kept = value,
        None => extras.push((name.into_owned(), value)),
    }
}

/// What stands beside the deltas states the whole: the last value that is not null counts.
fn keep_last<'e>(extras: &mut Extras, given: impl IntoIterator<Item = &'e Extra<'e>>) {
    for Extra { key, json } in given {
        let name = key.decode();
        if matches!(&*name, "provider_id" | "provider_model") {
            continue;
        }
        let known = extras.iter().any(|(known, _)| *known == name);
        if (!known || **json != *b"null")
            && let Some(value) = parse(json)
        {
            set(extras, name, value);
        }
    }
}

/// What stands inside a delta is a piece: lists grow and objects take up fields, of anything else the last counts.
fn keep_pieces(extras: &mut Extras, Extra { key, json }: &Extra<'_>) {
    let Some(piece) = parse(json) else {
        return;
    };
    let name = key.decode();
    match (extras.iter_mut().find(|(known, _)| *known == name), piece) {
        (Some(_), Value::Null) => {}
        (Some((_, whole)), piece) => merge(whole, piece, &["input"]),
        (None, piece) => extras.push((name.into_owned(), piece)),
    }
}

/// Takes a piece into the whole. Strings of the fields in `grow` are pieces of a text too.
fn merge(whole: &mut Value<'static>, piece: Value<'static>, grow: &[&str]) {
    match (whole, piece) {
        (_, Value::Null) => {}
        (Value::Array(items), Value::Array(pieces)) => {
            for piece in pieces {
                match items.last_mut() {
                    Some(last) if continues(last, &piece) => merge(last, piece, &["text", "summary", "data"]),
                    _ => items.push(piece),
                }
            }
        }
        (whole @ Value::Object(_), Value::Object(pieces)) => {
            for (name, piece) in pieces {
                match (whole.get_mut(&name), piece) {
                    (Some(Value::String(text)), Value::String(more)) if grow.contains(&&*name) => {
                        text.to_mut().push_str(&more);
                    }
                    (Some(known), piece) => merge(known, piece, &[]),
                    (None, piece) => whole.set(name, piece),
                }
            }
        }
        (whole, piece) => *whole = piece,
    }
}

/// `data` is base64, either one text in pieces or pieces that are complete each: padding before the end tells.
fn merge_audio(whole: &mut Value<'static>, mut piece: Value<'static>) {
    if let (Some(Value::String(data)), Some(Value::String(more))) = (whole.get_mut("data"), piece.get_mut("data"))
        && data.ends_with('=')
        && let Some((kept, padded)) = data.split_at_checked(data.len().saturating_sub(4))
        && let (Ok(mut bytes), Ok(next)) = (BASE64.decode(padded), BASE64.decode(&**more))
    {
        bytes.extend(next);
        let kept = kept.len();
        *more = BASE64.encode(&bytes).into();
        data.to_mut().truncate(kept);
    }
    merge(whole, piece, &["data", "transcript"]);
}

/// Whether an entry of `reasoning_details` goes on with the one before it: the same type, index and id.
fn continues(last: &Value<'_>, piece: &Value<'_>) -> bool {
    let reasoning = |value: &Value<'_>| {
        value.get("type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("reasoning."))
    };
    let same = |name: &str| match (last.get(name), piece.get(name)) {
        (Some(one), Some(other)) => one == other || *one == Value::Null || *other == Value::Null,
        _ => true,
    };
    // What a signature closes is complete.
    let closed = last.get("signature").is_some_and(Value::is_truthy);
    let spoken = |value: &Value<'_>| {
        ["text", "summary", "data"].iter().any(|name| value.get(name).is_some_and(Value::is_truthy))
    };
    !(closed && spoken(piece))
        && reasoning(last)
        && reasoning(piece)
        && last.get("type") == piece.get("type")
        && same("index")
        && same("id")
}
