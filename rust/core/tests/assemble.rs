//! A response cut into chunks and put together again is the response.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use common::{DONE, decode, done, event, good, options, sse};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A choice as it should come out, and the deltas that it is sent in.
#[derive(Clone, Debug)]
struct Sent {
    message: Value,
    logprobs: Option<Value>,
    finish_reason: &'static str,
    /// Delta and log probabilities.
    pieces: Vec<(Value, Option<Value>)>,
}

/// Cuts a text between characters; no piece is empty.
fn pieces(text: &str, size: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(size).map(|piece| piece.iter().collect()).collect()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z \\n\"\\\\😀é]{1,30}"].prop_filter("not empty", |text| !text.is_empty())
}

fn call() -> impl Strategy<Value = (bool, String, String, String)> {
    (prop::bool::weighted(0.2), "call_[a-z0-9]{8}", "[a-z_]{1,10}", text())
}

fn detail() -> impl Strategy<Value = (Value, Vec<Value>)> {
    prop_oneof![
        (text(), prop::option::of("[a-z]{8}"), 1..5usize).prop_map(|(text, signature, size)| {
            let mut whole = json!({"type": "reasoning.text", "text": text, "format": "f"});
            let mut parts: Vec<Value> = pieces(&text, size)
                .into_iter()
                .map(|text| json!({"type": "reasoning.text", "text": text, "format": "f"}))
                .collect();
            if let Some(signature) = signature {
                whole["signature"] = signature.clone().into();
                parts.push(json!({"type": "reasoning.text", "signature": signature}));
            }
            (whole, parts)
        }),
        text().prop_map(|text| {
            let whole = json!({"type": "reasoning.summary", "summary": text, "id": null});
            (whole.clone(), vec![whole])
        }),
        "[A-Za-z0-9]{4,20}".prop_map(|data| {
            let whole = json!({"type": "reasoning.encrypted", "data": data, "id": "r"});
            (whole.clone(), vec![whole])
        }),
    ]
}

fn choice() -> impl Strategy<Value = Sent> {
    let parts = (
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::collection::vec(call(), 0..4),
    );
    let others = (
        prop::option::of(prop::collection::vec(text(), 1..6)),
        prop::collection::vec("[a-z]{1,8}", 0..4),
        prop::collection::vec(detail(), 0..3),
        prop::option::of((prop::collection::vec(any::<u8>(), 1..60), text(), 1..9usize, any::<bool>())),
        prop_oneof![Just("stop"), Just("length"), Just("content_filter")],
        1..7usize,
    );
    (parts, others).prop_map(|((content, reasoning, refusal, calls), (tokens, citations, details, audio, reason, size))| {
        let mut message = json!({"role": "assistant", "content": content, "refusal": refusal});
        let mut sent = vec![(json!({"role": "assistant", "content": null, "refusal": null}), None)];
        if let Some(text) = &reasoning {
            message["reasoning_content"] = text.clone().into();
            sent.extend(pieces(text, size).into_iter().map(|piece| (json!({"reasoning_content": piece}), None)));
        }
        if !details.is_empty() {
            // With an index, as they are numbered by servers.
            let number = |(place, detail): (usize, &Value)| common::with(detail.clone(), "index", place.into());
            message["reasoning_details"] = details.iter().map(|(whole, _)| whole).enumerate().map(number).collect();
            for (place, (_, parts)) in details.iter().enumerate() {
                for part in parts {
                    // Where reasoning stands beside them they are not read as such again.
                    sent.push((json!({"reasoning_details": [number((place, part))]}), None));
                }
            }
            if reasoning.is_none() {
                let said: String = details
                    .iter()
                    .filter_map(|(whole, _)| whole.get("text").or_else(|| whole.get("summary")).and_then(Value::as_str))
                    .collect();
                if !said.is_empty() {
                    message["reasoning_content"] = said.into();
                }
            } else {
                let said: String = details
                    .iter()
                    .filter_map(|(whole, _)| whole.get("text").or_else(|| whole.get("summary")).and_then(Value::as_str))
                    .collect();
                let before = message["reasoning_content"].as_str().unwrap().to_owned();
                message["reasoning_content"] = (before + &said).into();
            }
        }
        if let Some(text) = &content {
            sent.extend(pieces(text, size).into_iter().map(|piece| (json!({"content": piece}), None)));
        }
        if let Some(text) = &refusal {
            sent.extend(pieces(text, size).into_iter().map(|piece| (json!({"refusal": piece}), None)));
        }
        if !calls.is_empty() {
            let mut whole = Vec::new();
            for (index, (custom, id, name, arguments)) in calls.iter().enumerate() {
                let (kind, body) = if *custom { ("custom", "input") } else { ("function", "arguments") };
                whole.push(json!({"id": id, "type": kind, kind: {"name": name, body: arguments}}));
                sent.push((json!({"tool_calls": [{"index": index, "id": id, "type": kind, kind: {"name": name, body: ""}}]}), None));
            }
            // The pieces of the calls turn by turn.
            let mut cut: Vec<_> = calls.iter().map(|(.., arguments)| pieces(arguments, size).into_iter()).collect();
            loop {
                let before = sent.len();
                for (index, pieces) in cut.iter_mut().enumerate() {
                    let (kind, body) = if calls[index].0 { ("custom", "input") } else { ("function", "arguments") };
                    sent.extend(pieces.next().map(|piece| (json!({"tool_calls": [{"index": index, kind: {body: piece}}]}), None)));
                }
                if sent.len() == before {
                    break;
                }
            }
            message["tool_calls"] = whole.into();
        }
        if !citations.is_empty() {
            let list: Vec<Value> = citations.iter().map(|url| json!({"type": "url_citation", "url_citation": {"url": url}})).collect();
            sent.extend(list.iter().map(|one| (json!({"annotations": [one]}), None)));
            message["annotations"] = list.into();
        }
        if let Some((bytes, transcript, size, padded)) = audio {
            let whole = base64(&bytes);
            sent.push((json!({"audio": {"id": "audio_1"}}), None));
            if padded {
                sent.extend(bytes.chunks(size).map(|piece| (json!({"audio": {"data": base64(piece)}}), None)));
            } else {
                sent.extend(pieces(&whole, size).into_iter().map(|piece| (json!({"audio": {"data": piece}}), None)));
            }
            sent.extend(pieces(&transcript, size).into_iter().map(|piece| (json!({"audio": {"transcript": piece}}), None)));
            sent.push((json!({"audio": {"expires_at": 5}}), None));
            message["audio"] = json!({"id": "audio_1", "data": whole, "transcript": transcript, "expires_at": 5});
        }
        let logprobs = tokens.map(|tokens| {
            let list: Vec<Value> = tokens.iter().map(|token| json!({"token": token, "logprob": -0.5, "bytes": null, "top_logprobs": []})).collect();
            sent.extend(list.iter().map(|one| (json!({}), Some(json!({"content": [one], "refusal": null})))));
            json!({"content": list, "refusal": null})
        });
        let finish_reason = if reason == "stop" && !calls.is_empty() { "tool_calls" } else { reason };
        Sent { message, logprobs, finish_reason, pieces: sent }
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, place| bits << 8 | u32::from(group.get(place).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place > group.len() { '=' } else { char::from(DIGITS[digit]) });
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn a_response_in_pieces_is_the_response(
        choices in prop::collection::vec(choice(), 1..4),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
        usage in any::<bool>(),
    ) {
        let head = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m",
                          "service_tier": "default", "system_fingerprint": "fp"});
        let chunk = |index: usize, delta: &Value, logprobs: Option<&Value>, reason: Option<&str>| {
            let mut choice = json!({"index": index, "delta": delta, "finish_reason": reason});
            if let Some(logprobs) = logprobs {
                choice["logprobs"] = logprobs.clone();
            }
            common::with(head.clone(), "choices", json!([choice]))
        };
        let mut left: Vec<_> = choices.iter().map(|choice| choice.pieces.iter()).collect();
        let mut events = Vec::new();
        let mut turn = order.iter().cycle();
        while left.iter().any(|pieces| pieces.len() > 0) {
            let index = turn.next().unwrap().index(left.len());
            let index = if left[index].len() > 0 { index } else { left.iter().position(|pieces| pieces.len() > 0).unwrap() };
            let (delta, logprobs) = left[index].next().unwrap();
            events.push(chunk(index, delta, logprobs.as_ref(), None));
        }
        events.extend(choices.iter().enumerate().map(|(index, choice)| chunk(index, &json!({}), None, Some(choice.finish_reason))));
        let counts = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7});
        if usage {
            events.push(common::with(common::with(head.clone(), "choices", json!([])), "usage", counts.clone()));
        }
        let expected: Vec<Value> = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| {
                let mut out = json!({"index": index, "message": choice.message, "finish_reason": choice.finish_reason});
                if let Some(logprobs) = &choice.logprobs {
                    out["logprobs"] = logprobs.clone();
                }
                out
            })
            .collect();
        let mut response = common::with(common::with(head, "object", "chat.completion".into()), "choices", expected.into());
        if usage {
            response["usage"] = counts;
        }
        let seen = good(&done(&events));
        prop_assert_eq!(seen.response.as_ref().unwrap(), &response);
        // And it comes through as a single body.
        let (single, _) = common::single(penstock_core::decoder::Dialect::default(), response.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&single, &response);
    }
}

fn message(deltas: &[Value]) -> Value {
    let events: Vec<Value> = deltas.iter().map(|delta| event(delta, None)).collect();
    good(&done(&events)).message().clone()
}

fn details(pieces: &[Value]) -> Value {
    let deltas: Vec<Value> =
        pieces.iter().map(|piece| json!({"reasoning": "x", "reasoning_details": [piece]})).collect();
    message(&deltas)["reasoning_details"].clone()
}

#[test]
fn reasoning_details_grow_by_type_index_and_id() {
    let text = |index: u32, text: &str| json!({"type": "reasoning.text", "text": text, "index": index});
    assert_eq!(details(&[text(0, "a"), text(0, "b"), text(1, "c")]), json!([text(0, "ab"), text(1, "c")]));
    let summary = json!({"type": "reasoning.summary", "summary": "s", "index": 0});
    assert_eq!(details(&[text(0, "a"), summary.clone()]), json!([text(0, "a"), summary]));
    let with_id = |id: &str, data: &str| json!({"type": "reasoning.encrypted", "id": id, "data": data, "index": 0});
    assert_eq!(details(&[with_id("a", "x"), with_id("b", "y")]), json!([with_id("a", "x"), with_id("b", "y")]));
}

#[test]
fn a_signature_comes_after_its_text() {
    let whole = details(&[
        json!({"type": "reasoning.text", "text": "a", "index": 0, "signature": null}),
        json!({"type": "reasoning.text", "text": "b", "index": 0}),
        json!({"type": "reasoning.text", "signature": "s", "index": 0}),
    ]);
    assert_eq!(whole, json!([{"type": "reasoning.text", "text": "ab", "index": 0, "signature": "s"}]));
}

#[test]
fn a_signature_closes_its_block() {
    // Without an index nothing else tells two blocks apart.
    let block = |text: &str, signature: &str| json!({"type": "reasoning.text", "text": text, "signature": signature});
    assert_eq!(details(&[block("a", "s1"), block("b", "s2")]), json!([block("a", "s1"), block("b", "s2")]));
}

#[test]
fn audio_in_pieces_of_one_text() {
    let sent = base64(b"some audio, more or less").into_bytes();
    let deltas: Vec<Value> =
        sent.chunks(5).map(|piece| json!({"audio": {"data": String::from_utf8_lossy(piece)}})).collect();
    assert_eq!(message(&deltas)["audio"]["data"], base64(b"some audio, more or less"));
}

#[test]
fn audio_in_pieces_that_are_padded_each() {
    for size in 1..8 {
        let deltas: Vec<Value> =
            b"some audio, more or less".chunks(size).map(|piece| json!({"audio": {"data": base64(piece)}})).collect();
        assert_eq!(message(&deltas)["audio"]["data"], base64(b"some audio, more or less"), "{size} bytes each");
    }
}

#[test]
fn audio_that_is_no_base64_is_kept_as_it_is() {
    assert_eq!(message(&[json!({"audio": {"data": "a="}}), json!({"audio": {"data": "!"}})])["audio"]["data"], "a=!");
}

#[test]
fn what_stands_beside_the_deltas_states_the_whole() {
    let event = |citations: Value| json!({"choices": [{"index": 0, "delta": {"content": "a"}, "stop_reason": null}], "citations": citations});
    let seen = good(&done(&[event(json!(["a"])), event(json!(["a", "b"])), event(Value::Null)]));
    let response = seen.response.unwrap();
    assert_eq!(response["citations"], json!(["a", "b"]));
    assert_eq!(response["choices"][0]["stop_reason"], Value::Null);
}

#[test]
fn lists_inside_the_deltas_grow() {
    let whole = message(&[
        json!({"executed_tools": [1]}),
        json!({"executed_tools": [2], "channel": "analysis"}),
        json!({"channel": "final"}),
    ]);
    assert_eq!(whole["executed_tools"], json!([1, 2]));
    assert_eq!(whole["channel"], "final");
}

#[test]
fn a_provider_id_belongs_to_its_chunk() {
    let seen = good(&done(&[
        event(&json!({"content": "a"}), None),
        common::with(event(&json!({"content": "b"}), None), "id", "x".into()),
    ]));
    assert!(seen.response.unwrap().get("provider_id").is_none());
}

#[test]
fn nothing_came_nothing_is_there() {
    assert_eq!(decode(options(), DONE).response, None);
    assert_eq!(decode(options(), b"").response, None);
}

#[test]
fn nothing_is_kept_unless_asked() {
    let seen =
        decode(common::Options { keep: false, ..options() }, &done(&[event(&json!({"content": "a"}), Some("stop"))]));
    assert_eq!(seen.response, None);
}

#[test]
fn what_came_before_an_error_is_there() {
    let seen = decode(options(), &sse(&[event(&json!({"content": "a"}), None), json!({"error": "boom"})]));
    assert!(seen.error.is_some());
    assert_eq!(seen.message()["content"], "a");
    assert_eq!(seen.response.unwrap()["choices"][0]["finish_reason"], Value::Null);
}
