//! What the tests of the event-stream families share: messages built byte by byte, and chunks as JSON.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::path::PathBuf;

use penstock_core::chunk::{Choice, Chunk, Extras, Field, FinishReason, Head, Text};
use penstock_core::decoder::{self, Decoder, Dialect, Family, Options};
use penstock_core::error::Error;
use penstock_core::stream::{Part, Sink};
use penstock_core::usage::Usage;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// CRC-32 (IEEE), bit by bit: not the implementation under test.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A message whose block of headers is given as bytes.
pub fn raw_message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(16 + headers.len() + payload.len()).unwrap().to_be_bytes().to_vec();
    message.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    message.extend(crc32(&message).to_be_bytes());
    message.extend(headers);
    message.extend(payload);
    message.extend(crc32(&message).to_be_bytes());
    message
}

pub fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).unwrap());
        block.extend(name.as_bytes());
        block.push(7);
        block.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        block.extend(value.as_bytes());
    }
    raw_message(&block, payload)
}

pub fn event(name: &str, payload: &Value) -> Vec<u8> {
    event_text(name, &payload.to_string())
}

pub fn event_text(name: &str, payload: &str) -> Vec<u8> {
    let headers = [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")];
    message(&headers, payload.as_bytes())
}

pub fn exception(name: &str, payload: &Value) -> Vec<u8> {
    let headers = [(":exception-type", name), (":content-type", "application/json"), (":message-type", "exception")];
    message(&headers, payload.to_string().as_bytes())
}

/// A document as `chunk` events wrap it.
pub fn wrapped(document: &Value) -> Vec<u8> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.encode(document.to_string());
    event("chunk", &json!({"bytes": bytes, "p": "abcdef"}))
}

#[derive(Default)]
pub struct Seen(pub Vec<Value>);

impl Sink for Seen {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        let mut item = Map::new();
        item.insert("id".into(), chunk.head.id.clone().into());
        item.insert("model".into(), chunk.head.model.clone().into());
        if let Field::Value(tier) = chunk.service_tier {
            item.insert("service_tier".into(), tier.decode().into());
        }
        item.insert("choices".into(), chunk.choices.iter().map(choice).collect());
        match chunk.usage {
            Field::Absent => {}
            Field::Null => _ = item.insert("usage".into(), Value::Null),
            Field::Value(usage) => _ = item.insert("usage".into(), usage_of(usage)),
        }
        extras(&chunk.extra, &mut item);
        self.0.push(item.into());
    }

    fn again(&mut self, part: Part, text: &Text<'_>) {
        let mut item = self.0.last().expect("a chunk came before").clone();
        let place = match part {
            Part::Content => "content",
            Part::Reasoning => "reasoning_content",
            Part::Arguments => "tool_calls/0/arguments",
        };
        let old = item.pointer_mut(&format!("/choices/0/delta/{place}")).expect("the same text was there before");
        *old = text.decode().into();
        self.0.push(item);
    }
}

pub fn usage_of(usage: &Usage) -> Value {
    let mut out = Vec::new();
    usage.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

fn choice(choice: &Choice<'_>) -> Value {
    let mut delta = Map::new();
    let given = &choice.delta;
    if let Some(role) = given.role {
        delta.insert("role".into(), role.decode().into());
    }
    for (name, text) in [("content", &given.content), ("reasoning_content", &given.reasoning_content)] {
        if let Field::Value(text) = text {
            delta.insert(name.into(), text.decode().into());
        }
    }
    let calls: Vec<Value> = given
        .tool_calls
        .iter()
        .map(|call| {
            let mut item = Map::new();
            item.insert("index".into(), call.index.into());
            if let Some(id) = &call.id {
                item.insert("id".into(), id.decode().into());
            }
            if let Some(name) = call.function.name {
                item.insert("name".into(), name.decode().into());
            }
            if let Some(arguments) = &call.function.arguments {
                item.insert("arguments".into(), arguments.decode().into());
            }
            item.into()
        })
        .collect();
    if !calls.is_empty() {
        delta.insert("tool_calls".into(), calls.into());
    }
    if let Some(annotations) = given.annotations {
        delta.insert("annotations".into(), serde_json::from_slice(annotations).unwrap());
    }
    extras(&given.extra, &mut delta);
    let mut item = Map::new();
    item.insert("index".into(), choice.index.into());
    item.insert("delta".into(), delta.into());
    item.insert("finish_reason".into(), choice.finish_reason.map(FinishReason::as_str).into());
    extras(&choice.extra, &mut item);
    item.into()
}

fn extras(extras: &Extras<'_>, to: &mut Map<String, Value>) {
    for extra in extras {
        to.insert(extra.key.decode().into(), serde_json::from_slice(&extra.json).unwrap());
    }
}

pub fn options() -> Options {
    Options {
        dialect: Dialect::default(),
        include_usage: true,
        max_event_size: 16 << 20,
        keep: true,
        fallback: head(),
        answer_tool: None,
    }
}

fn head() -> Head {
    Head { id: "chatcmpl-1".into(), created: 1, model: "asked".into() }
}

/// All that one stream gave.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub chunks: Vec<Value>,
    pub response: Value,
    pub usage: Option<Usage>,
    pub error: Option<Error>,
}

impl Outcome {
    /// A text of choice 0, put together from its pieces.
    pub fn text(&self, name: &str) -> String {
        let pieces = self.chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        pieces.filter(|choice| choice["index"] == 0).filter_map(|choice| choice["delta"][name].as_str()).collect()
    }

    pub fn usage_json(&self) -> Value {
        self.usage.as_ref().map_or(Value::Null, usage_of)
    }

    pub fn finish_reasons(&self) -> Vec<&str> {
        let choices = self.chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        choices.filter_map(|choice| choice["finish_reason"].as_str()).collect()
    }
}

pub fn decode_pieces<'p>(family: Family, pieces: impl IntoIterator<Item = &'p [u8]>, options: Options) -> Outcome {
    let mut decoder = Decoder::new(family, options);
    let mut seen = Seen::default();
    let mut error = None;
    for piece in pieces {
        error = decoder.feed(piece, &mut seen).err();
        if error.is_some() {
            break;
        }
    }
    if error.is_none() {
        error = decoder.finish(&mut seen).err();
    }
    let mut response = Vec::new();
    let kept = decoder.write_response(&mut response);
    let response = if kept { serde_json::from_slice(&response).unwrap() } else { Value::Null };
    Outcome { chunks: seen.0, response, usage: decoder.usage().cloned(), error }
}

pub fn decode(family: Family, body: &[u8]) -> Outcome {
    decode_pieces(family, [body], options())
}

/// Every cut in two up to 4 KB, some cuts in many beyond, and byte by byte: all the same.
pub fn assert_splits(family: Family, body: &[u8], name: &str) {
    let whole = decode(family, body);
    let same = |pieces: Vec<&[u8]>| {
        let lengths: Vec<_> = pieces.iter().take(8).map(|piece| piece.len()).collect();
        let cut = decode_pieces(family, pieces, options());
        assert!(cut == whole, "{name} cut into {lengths:?}...: {cut:?}\ninstead of {whole:?}");
    };
    same(body.chunks(1).collect());
    if body.len() <= 4096 {
        for at in 1..body.len() {
            let (one, other) = body.split_at(at);
            same(vec![one, other]);
        }
        return;
    }
    let mut chance = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..40 {
        let mut rest = body;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let (piece, after) = rest.split_at(usize::try_from(chance % 700).unwrap().min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        same(pieces);
    }
}

/// A single response body.
pub fn decode_body(family: Family, body: &[u8]) -> Result<(Value, Option<Usage>), Error> {
    let mut out = Vec::new();
    let usage = decoder::decode_response(family, Dialect::default(), head(), None, None, body, &mut out)?;
    Ok((serde_json::from_slice(&out).unwrap(), usage))
}

pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The lines of the recorded corpus's index that are of this family, with their bodies.
pub fn corpus(family: &str) -> Vec<(Value, Vec<u8>)> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("PENSTOCK_CORPUS").map_or(default, PathBuf::from);
    let Ok(index) = std::fs::read_to_string(root.join("index.jsonl")) else {
        eprintln!("SKIPPED: no recorded corpus at {} (set PENSTOCK_CORPUS)", root.display());
        return Vec::new();
    };
    let lines = index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["family"] == family)
        .map(|line| {
            let body = std::fs::read(root.join(line["file"].as_str().unwrap())).unwrap();
            (line, body)
        })
        .collect()
}
