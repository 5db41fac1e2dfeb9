//! What providers really sent, recorded by others: text, usage and errors as the index of the recordings has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod common;

use std::fmt::Write as _;

use common::{Options, Recording, Seen, decode, options, recordings, single};
use penstock_core::error::Class;
use penstock_core::wire::from_response;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Equal but for the way of writing numbers: the index was written by another program.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| alike(one, other)))
        }
        _ => one == other,
    }
}

fn named(name: &str) -> impl Fn(&Recording) -> bool {
    move |recording| recording.file.contains(name)
}

fn streamed(recording: &Recording) -> Seen {
    decode(Options { dialect: recording.dialect(), ..options() }, &recording.wire())
}

/// Choice 0's text: of a stream from its deltas alone.
fn visible_text(recording: &Recording) -> String {
    if recording.is_stream() {
        return streamed(recording).text("content");
    }
    let (response, _) = single(recording.dialect(), &recording.bytes).unwrap();
    response["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The bodies that this wire reads: no error statuses, no empty ones, and no stream that is one JSON array.
fn readable() -> Vec<Recording> {
    let mut found = recordings();
    found.retain(|recording| recording.row["status"] == 200 && !matches!(recording.form(), "empty" | "json-array"));
    found
}

#[test]
fn visible_text_is_as_indexed() {
    let mut count = 0;
    for recording in readable() {
        // The index has no text for a `content` that is a JSON object; here it is the text of that JSON.
        if recording.file.ends_with("cloudflare-data-extraction.2.json") {
            let text = visible_text(&recording);
            assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
            continue;
        }
        let text = visible_text(&recording);
        assert_eq!(Value::from(text.chars().count()), recording.row["text_chars"], "{}: {text}", recording.file);
        assert_eq!(Value::from(sha256(&text)), recording.row["text_sha256"], "{}", recording.file);
        count += 1;
    }
    assert!(count == 0 || count > 130, "only {count} recordings");
}

#[test]
fn the_providers_own_usage_object_is_kept_as_it_is() {
    let mut count = 0;
    for recording in readable() {
        let usage = if recording.is_stream() {
            streamed(&recording).usage
        } else {
            single(recording.dialect(), &recording.bytes).unwrap().1
        };
        let raw = usage.map_or(Value::Null, |usage| serde_json::from_slice(&usage.raw).unwrap());
        assert!(alike(&raw, recording.usage()), "{}: {raw}", recording.file);
        count += 1;
    }
    assert!(count == 0 || count > 130, "only {count} recordings");
}

#[test]
fn streams_are_whole_but_for_those_that_broke() {
    for recording in readable().iter().filter(|recording| recording.is_stream()) {
        let seen = streamed(recording);
        let expected = match recording.file.as_str() {
            file if file.contains("groq-tool-use-failed-error-streaming.0")
                || file.contains("openrouter-stream-error") =>
            {
                Some(Class::BadRequest)
            }
            file if file.contains("gpustack-qwen3-streams") => Some(Class::Connection),
            _ => None,
        };
        assert_eq!(seen.error.as_ref().map(|error| error.class), expected, "{}: {:?}", recording.file, seen.error);
        if expected.is_none() {
            assert!(seen.usage.is_none_or(|usage| usage.complete), "{}", recording.file);
        }
    }
}

#[test]
fn every_stream_keeps_the_rules_of_a_stream() {
    for recording in readable().iter().filter(|recording| recording.is_stream()) {
        let seen =
            decode(Options { dialect: recording.dialect(), include_usage: true, ..options() }, &recording.wire());
        let file = &recording.file;
        let mut chunks = seen.chunks.as_slice();
        if seen.error.is_none() {
            let (last, others) = chunks.split_last().unwrap();
            assert_eq!(last["choices"], Value::Array(Vec::new()), "{file}");
            assert_eq!(last["usage"].is_null(), recording.row["usage_raw"].is_null(), "{file}");
            chunks = others;
        }
        let mut roles = Vec::new();
        let mut finished = Vec::new();
        for chunk in chunks {
            assert_eq!(chunk.get("usage"), Some(&Value::Null), "{file}");
            for name in ["id", "created", "model"] {
                assert_eq!(chunk[name], chunks[0][name], "{file}");
            }
            for choice in chunk["choices"].as_array().unwrap() {
                let index = choice["index"].as_u64().unwrap();
                let is_first = !roles.contains(&index);
                assert_eq!(choice["delta"]["role"].is_string(), is_first, "{file}: a role on the first chunk only");
                roles.extend(is_first.then_some(index));
                if choice["finish_reason"].is_string() {
                    assert!(!finished.contains(&index), "{file}: one finish reason");
                    finished.push(index);
                }
            }
        }
        // What was assembled says what the chunks said.
        let response = seen.response.as_ref().unwrap();
        for choice in response["choices"].as_array().unwrap() {
            let texts = chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().unwrap())
                .filter(|one| one["index"] == choice["index"]);
            let text: String = texts.filter_map(|one| one["delta"]["content"].as_str()).collect();
            assert_eq!(choice["message"]["content"].as_str().unwrap_or_default(), text, "{file}");
        }
    }
}

#[test]
fn an_empty_body_is_a_cut() {
    for recording in recordings().iter().filter(|recording| recording.form() == "empty") {
        assert_eq!(streamed(recording).error.unwrap().class, Class::Connection, "{}", recording.file);
    }
}

#[test]
fn errors_inside_streams() {
    let find = |name: &str| recordings().into_iter().find(named(name));
    let Some(groq) = find("groq-tool-use-failed-error-streaming.0") else {
        return;
    };
    let error = streamed(&groq).error.unwrap();
    assert_eq!((error.class, error.details.status), (Class::BadRequest, Some(400)));
    assert_eq!(error.details.code.as_deref(), Some("tool_use_failed"));

    let seen = streamed(&find("openrouter-openrouter-stream-error").unwrap());
    assert_eq!(seen.finish_reasons(), ["length"]);
    assert_eq!(seen.error.as_ref().unwrap().message, "Token limit reached");
    let usage = seen.usage();
    assert_eq!(
        (&usage["completion_tokens"], &usage["completion_tokens_details"]["reasoning_tokens"]),
        (&10.into(), &10.into())
    );

    let seen = streamed(&find("gpustack-qwen3-streams-thinking").unwrap());
    let error = seen.error.unwrap();
    assert_eq!(error.class, Class::Connection);
    assert!(error.message.contains("error: {"), "{}", error.message);
}

#[test]
fn statuses_of_errors() {
    for recording in
        recordings().iter().filter(|recording| recording.row["status"] != 200 && !recording.bytes.is_empty())
    {
        let status = u16::try_from(recording.row["status"].as_u64().unwrap()).unwrap();
        let error = from_response(status, &[], &recording.bytes, 0.0);
        let expected = match status {
            401 => Class::Authentication,
            404 => Class::NotFound,
            429 => Class::RateLimit,
            _ => Class::InternalServer,
        };
        assert_eq!(error.class, expected, "{}: {}", recording.file, error.message);
        assert!(!error.message.starts_with('{'), "{}: {}", recording.file, error.message);
    }
}
