//! What the tests share: a sink that writes chunks down as JSON, ways to cut bytes, and where the recordings are.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

pub(crate) mod streams;

use std::path::PathBuf;

use penstock_core::chunk::{Choice, Chunk, Delta, Extra, Field, FinishReason, Function, Head, Text, ToolCall};
pub(crate) use penstock_core::decoder::Options;
use penstock_core::decoder::{Decoder, Dialect, End, Family, decode_response};
use penstock_core::error::Error;
use penstock_core::stream::{Part, Sink};
use penstock_core::usage::{Reasoning, Usage};
use penstock_core::write::ChatWriter;
use serde_json::{Map, Value, json};

/// The recordings, which are kept outside of the repository. Says so, loudly, where they are not there.
pub(crate) fn corpus() -> Option<PathBuf> {
    let path = std::env::var_os("PENSTOCK_CORPUS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"), PathBuf::from);
    if path.join("index.jsonl").is_file() {
        return Some(path);
    }
    println!("SKIPPED: recorded corpus not found ({})", path.display());
    None
}

/// One body of the corpus.
pub(crate) struct Recording {
    pub(crate) file: String,
    pub(crate) row: Value,
    pub(crate) bytes: Vec<u8>,
}

impl Recording {
    pub(crate) fn is_stream(&self) -> bool {
        self.row["streaming"] == true
    }

    pub(crate) fn is_error(&self) -> bool {
        self.row["status"].as_u64().is_some_and(|status| status >= 400)
    }

    /// The visible text is that of the index, where it has one.
    pub(crate) fn check_text(&self, text: &str) {
        if let Some(expected) = self.row["text_sha256"].as_str() {
            assert_eq!(sha256(text), expected, "{}: {text:?}", self.file);
        }
    }

    pub(crate) fn form(&self) -> &str {
        self.row["form"].as_str().unwrap_or_default()
    }

    /// The body as a server would have sent it: the decoded events of a stream get their framing back.
    pub(crate) fn wire(&self) -> Vec<u8> {
        if self.form() != "chunks" {
            return self.bytes.clone();
        }
        let mut wire = Vec::new();
        for line in self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            wire.extend_from_slice(b"data: ");
            wire.extend_from_slice(line);
            wire.extend_from_slice(b"\n\n");
        }
        wire.extend_from_slice(b"data: [DONE]\n\n");
        wire
    }

    /// The usage object that counts. The index has the last one, which may be of one of several models: then it is the
    /// first, the sum over all.
    pub(crate) fn usage(&self) -> &Value {
        let is_breakdown = self.row["usage_path"].as_str().is_some_and(|path| path.contains("models[]"));
        match &self.row["usage_first"] {
            first @ Value::Object(_) if is_breakdown => first,
            _ => &self.row["usage_raw"],
        }
    }

    /// What the row of the provider says where bytes do not.
    pub(crate) fn dialect(&self) -> Dialect {
        let provider = self.row["provider"].as_str().unwrap_or_default();
        Dialect {
            // usage.md: reasoning beside the completion tokens.
            reasoning: if provider.contains("x.ai") { Reasoning::Beside } else { Reasoning::Inside },
            // chat-completions.md, section 5: no finish reason at all.
            end: if provider.contains("snowflake") { End::Done } else { End::Finish },
        }
    }
}

/// The bodies that the chat wire reads.
pub(crate) fn recordings() -> Vec<Recording> {
    recordings_of(&["chat-completions", "huggingface"])
}

/// The bodies of some families.
pub(crate) fn recordings_of(families: &[&str]) -> Vec<Recording> {
    let Some(root) = corpus() else {
        return Vec::new();
    };
    let index = std::fs::read_to_string(root.join("index.jsonl")).unwrap();
    let rows = index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| families.iter().any(|family| row["family"] == *family))
        .map(|row| {
            let file = row["file"].as_str().unwrap().to_owned();
            let bytes = std::fs::read(root.join(&file)).unwrap();
            Recording { file, row, bytes }
        })
        .collect()
}

pub(crate) fn options() -> Options {
    Options {
        dialect: Dialect::default(),
        include_usage: false,
        max_event_size: 16 << 20,
        keep: true,
        fallback: Head { id: "chatcmpl-fallback".into(), created: 7, model: "asked-for".into() },
        answer_tool: None,
    }
}

pub(crate) fn with_usage() -> Options {
    Options { include_usage: true, ..options() }
}

/// Frames JSON documents as a stream sends them.
pub(crate) fn sse(events: &[Value]) -> Vec<u8> {
    events.iter().flat_map(|event| format!("data: {event}\n\n").into_bytes()).collect()
}

pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";

/// The same, ended by the mark.
pub(crate) fn done(events: &[Value]) -> Vec<u8> {
    [sse(events), DONE.to_vec()].concat()
}

/// An event of one choice.
pub(crate) fn event(delta: &Value, finish_reason: Option<&str>) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m",
           "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
}

/// The event with a field more.
pub(crate) fn with(mut event: Value, name: &str, value: Value) -> Value {
    event.as_object_mut().unwrap().insert(name.to_owned(), value);
    event
}

/// The event with a field less.
pub(crate) fn without(mut event: Value, name: &str) -> Value {
    event.as_object_mut().unwrap().remove(name);
    event
}

/// All that can be seen of a decoded stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) chunks: Vec<Value>,
    pub(crate) usage: Option<Usage>,
    pub(crate) response: Option<Value>,
    pub(crate) error: Option<Error>,
    pub(crate) ended: bool,
    /// As the events of a chat completions stream.
    pub(crate) written: Vec<u8>,
}

#[derive(Default)]
struct Chunks(Vec<Value>, ChatWriter);

impl Sink for Chunks {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        self.1.chunk(chunk);
        self.0.push(chunk_json(chunk));
    }

    fn again(&mut self, part: Part, text: &Text<'_>) {
        self.1.again(part, text);
        let mut chunk = self.0.last().expect("a chunk to repeat").clone();
        assert_eq!(chunk["choices"].as_array().map(Vec::len), Some(1), "again is for one choice");
        let delta = &mut chunk["choices"][0]["delta"];
        let place = match part {
            Part::Content => &mut delta["content"],
            Part::Reasoning => &mut delta["reasoning_content"],
            Part::Arguments => &mut delta["tool_calls"][0]["function"]["arguments"],
        };
        *place = text.decode().into();
        self.0.push(chunk);
    }
}

/// Feeds the pieces and finishes, as a caller does who stops at the first error.
pub(crate) fn decode_pieces<'p>(options: Options, pieces: impl IntoIterator<Item = &'p [u8]>) -> Seen {
    decode_pieces_of(Family::Chat, options, pieces)
}

/// The same for any family.
pub(crate) fn decode_pieces_of<'p>(
    family: Family,
    options: Options,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Seen {
    let mut decoder = Decoder::new(family, options);
    let mut chunks = Chunks::default();
    let mut outcome = Ok(());
    let mut reads = 0;
    for piece in pieces {
        reads += 1;
        outcome = decoder.feed(piece, &mut chunks);
        if outcome.is_err() {
            break;
        }
    }
    // An error that finish() holds back behind its last chunks comes with the next call.
    let outcome = outcome.and_then(|()| decoder.finish(&mut chunks)).and_then(|()| decoder.finish(&mut chunks));
    let mut text = Vec::new();
    let response = decoder.write_response(&mut text).then(|| serde_json::from_slice(&text).unwrap());
    let Chunks(chunks, mut writer) = chunks;
    let written = writer.take();
    // However it is cut, it has to be the same as this.
    if reads == 1 {
        assert_eq!(events(&written), chunks, "written as they are");
    }
    Seen { chunks, usage: decoder.usage().cloned(), response, error: outcome.err(), ended: decoder.ended(), written }
}

/// The chunks of a stream that was written, as `chunk_json` has them.
pub(crate) fn events(written: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(written).expect("valid UTF-8");
    let events = text.split_terminator("\n\n").filter(|event| *event != "data: [DONE]").map(|event| {
        assert!(!event.contains(['\r', '\n']), "one line an event: {event}");
        let mut chunk: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(chunk.as_object_mut().unwrap().remove("object"), Some("chat.completion.chunk".into()));
        chunk
    });
    events.collect()
}

pub(crate) fn decode(options: Options, body: &[u8]) -> Seen {
    decode_pieces(options, [body])
}

/// Decodes a stream that must be a good one.
pub(crate) fn good(body: &[u8]) -> Seen {
    let seen = decode(options(), body);
    assert_eq!(seen.error, None);
    seen
}

/// A single response and its usage.
pub(crate) fn single(dialect: Dialect, body: &[u8]) -> Result<(Value, Option<Usage>), Error> {
    single_of(Family::Chat, dialect, body)
}

/// The same for any family.
pub(crate) fn single_of(family: Family, dialect: Dialect, body: &[u8]) -> Result<(Value, Option<Usage>), Error> {
    let mut out = Vec::new();
    let usage = decode_response(family, dialect, options().fallback, None, None, body, &mut out)?;
    Ok((serde_json::from_slice(&out).unwrap(), usage))
}

/// The normalised usage object.
pub(crate) fn usage_json(usage: &Usage) -> Value {
    let mut out = Vec::new();
    usage.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

impl Seen {
    pub(crate) fn delta(&self, place: usize) -> &Value {
        &self.chunks[place]["choices"][0]["delta"]
    }

    /// The text of a field of choice 0's deltas.
    pub(crate) fn text(&self, name: &str) -> String {
        self.texts(name).concat()
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        let choices = self.chunks.iter().filter_map(|chunk| chunk["choices"].as_array()).flatten();
        choices.filter(|choice| choice["index"] == 0).filter_map(|choice| choice["delta"][name].as_str()).collect()
    }

    pub(crate) fn finish_reasons(&self) -> Vec<&str> {
        let choices = self.chunks.iter().filter_map(|chunk| chunk["choices"].as_array()).flatten();
        choices.filter_map(|choice| choice["finish_reason"].as_str()).collect()
    }

    pub(crate) fn calls(&self) -> Vec<&Value> {
        let choices = self.chunks.iter().filter_map(|chunk| chunk["choices"].as_array()).flatten();
        choices.filter_map(|choice| choice["delta"]["tool_calls"].as_array()).flatten().collect()
    }

    pub(crate) fn message(&self) -> &Value {
        &self.response.as_ref().expect("a response")["choices"][0]["message"]
    }

    pub(crate) fn usage(&self) -> Value {
        usage_json(self.usage.as_ref().expect("a usage"))
    }
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|_| {
        // Invalid UTF-8, and halves of characters: what they become is not serde's to say.
        let mut text = Vec::new();
        penstock_core::json::Value::parse(json).unwrap().write(&mut text);
        serde_json::from_slice(&text).unwrap()
    })
}

fn put<T>(object: &mut Map<String, Value>, name: &str, field: &Field<T>, value: impl Fn(&T) -> Value) {
    match field {
        Field::Absent => {}
        Field::Null => _ = object.insert(name.into(), Value::Null),
        Field::Value(found) => _ = object.insert(name.into(), value(found)),
    }
}

fn put_extras(object: &mut Map<String, Value>, extras: &[Extra<'_>]) {
    for Extra { key, json } in extras {
        object.insert(key.decode().into_owned(), parsed(json));
    }
}

fn text(text: &Text<'_>) -> Value {
    text.decode().into()
}

pub(crate) fn chunk_json(chunk: &Chunk<'_>) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), chunk.head.id.clone().into());
    object.insert("created".into(), chunk.head.created.into());
    object.insert("model".into(), chunk.head.model.clone().into());
    put(&mut object, "service_tier", &chunk.service_tier, |text| text.decode().into());
    put(&mut object, "system_fingerprint", &chunk.system_fingerprint, |text| text.decode().into());
    object.insert("choices".into(), chunk.choices.iter().map(choice_json).collect());
    put(&mut object, "usage", &chunk.usage, |usage| usage_json(usage));
    put_extras(&mut object, &chunk.extra);
    object.into()
}

fn choice_json(choice: &Choice<'_>) -> Value {
    let mut object = Map::new();
    object.insert("index".into(), choice.index.into());
    object.insert("delta".into(), delta_json(&choice.delta));
    object.insert("finish_reason".into(), choice.finish_reason.map(FinishReason::as_str).into());
    put(&mut object, "logprobs", &choice.logprobs, |json| parsed(json));
    put_extras(&mut object, &choice.extra);
    object.into()
}

fn delta_json(delta: &Delta<'_>) -> Value {
    let mut object = Map::new();
    if let Some(role) = delta.role {
        object.insert("role".into(), role.decode().into());
    }
    put(&mut object, "content", &delta.content, text);
    put(&mut object, "reasoning_content", &delta.reasoning_content, text);
    put(&mut object, "refusal", &delta.refusal, text);
    if !delta.tool_calls.is_empty() {
        object.insert("tool_calls".into(), delta.tool_calls.iter().map(call_json).collect());
    }
    if let Some(function) = &delta.function_call {
        object.insert("function_call".into(), function_json(function));
    }
    if let Some(audio) = delta.audio {
        object.insert("audio".into(), parsed(audio));
    }
    if let Some(annotations) = delta.annotations {
        object.insert("annotations".into(), parsed(annotations));
    }
    put_extras(&mut object, &delta.extra);
    object.into()
}

fn call_json(call: &ToolCall<'_>) -> Value {
    let mut object = Map::new();
    object.insert("index".into(), call.index.into());
    if let Some(id) = &call.id {
        object.insert("id".into(), text(id));
    }
    if let Some(kind) = call.kind {
        object.insert("type".into(), kind.decode().into());
    }
    if call.function.name.is_some() || call.function.arguments.is_some() {
        object.insert("function".into(), function_json(&call.function));
    }
    put_extras(&mut object, &call.extra);
    object.into()
}

fn function_json(function: &Function<'_>) -> Value {
    let mut object = Map::new();
    if let Some(name) = function.name {
        object.insert("name".into(), name.decode().into());
    }
    if let Some(arguments) = &function.arguments {
        object.insert("arguments".into(), text(arguments));
    }
    object.into()
}

/// Any cut of the bytes gives what the uncut bytes give: each single cut and single bytes where the body is small,
/// some hundred random ones where it is not.
pub(crate) fn assert_any_cut_is_the_same(family: Family, body: &[u8]) {
    let decode = |pieces: &[&[u8]]| decode_pieces_of(family, with_usage(), pieces.iter().copied());
    let whole = decode(&[body]);
    let assert_same = |pieces: &[&[u8]]| {
        let cut = decode(pieces);
        assert_eq!(cut, whole, "cut after {:?}", pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>());
    };
    if body.len() <= 4096 {
        for at in 0..=body.len() {
            let (one, other) = body.split_at(at);
            assert_same(&[one, other]);
        }
        assert_same(&body.chunks(1).collect::<Vec<_>>());
        return;
    }
    let mut state = 0x9E37_79B9_u64;
    for _ in 0..200 {
        let mut pieces = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            // A multiplier of Knuth's: the sequence need not be good, only the same every time.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let most = if state & 1 == 0 { 40 } else { 4000 };
            let (piece, after) = rest.split_at(((state >> 33) as usize % most + 1).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        assert_same(&pieces);
    }
}

/// The hash of a text, as the index of the corpus has it.
pub(crate) fn sha256(text: &str) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(text);
    digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The same JSON, however its numbers are spelled.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let in_other = |(name, one): (&String, &Value)| other.get(name).is_some_and(|other| same(one, other));
            one.len() == other.len() && one.iter().all(in_other)
        }
        _ => one == other,
    }
}
