//! Chunks that were written and read again are the same chunks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod aws;
mod common;

use common::streams::{fixtures, generated};
use common::{
    Options, Recording, Seen, decode_pieces_of, events, options, recordings_of, single, usage_json, with, with_usage,
};
use penstock_core::chunk::{Choice, Chunk, Delta, Extra, Field, Function, Head, Text, ToolCall};
use penstock_core::decoder::{Decoder, Dialect, Family, decode_response};
use penstock_core::error::{Class, Error};
use penstock_core::json::{Cursor, Str};
use penstock_core::stream::{Part, Sink};
use penstock_core::usage::Usage;
use penstock_core::write::{ChatWriter, MessagesWriter, Writer, error_body, messages_error, messages_response};
use proptest::prelude::*;
use serde_json::{Value, json};

const FAMILIES: [(&str, Family); 8] = [
    ("chat-completions", Family::Chat),
    ("huggingface", Family::Chat),
    ("anthropic", Family::Anthropic),
    ("gemini", Family::Gemini),
    ("cohere", Family::Cohere),
    ("ollama", Family::Ollama),
    ("openai-responses", Family::Responses),
    ("bedrock-invoke", Family::Invoke),
];

struct Stream {
    name: String,
    family: Family,
    dialect: Dialect,
    body: Vec<u8>,
}

/// Every authored stream of the chat family, and every recorded one of each.
fn streams() -> Vec<Stream> {
    let authored = fixtures().into_iter().map(|(name, body)| Stream {
        name: name.to_owned(),
        family: Family::Chat,
        dialect: Dialect::default(),
        body,
    });
    let recorded = FAMILIES.into_iter().flat_map(|(name, family)| {
        let recordings = recordings_of(&[name]).into_iter().filter(Recording::is_stream);
        recordings.map(move |recording| Stream {
            family,
            dialect: recording.dialect(),
            body: recording.wire(),
            name: recording.file,
        })
    });
    let converse = aws::corpus("bedrock-converse").into_iter().filter(|(row, _)| row["streaming"] == true);
    let converse = converse.map(|(row, body)| Stream {
        name: row["file"].as_str().unwrap().to_owned(),
        family: Family::Converse,
        dialect: Dialect::default(),
        body: if row["form"] == "chunks" { framed(&body) } else { body },
    });
    authored.chain(recorded).chain(converse).collect()
}

/// Decoded events in the frames they came in: the name of each is the one key of its object.
fn framed(lines: &[u8]) -> Vec<u8> {
    let events = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let events = events.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    events
        .flat_map(|event| {
            let (name, payload) = event.as_object().unwrap().iter().next().unwrap();
            aws::event(name, payload)
        })
        .collect()
}

/// Decodes, and writes each piece as it comes.
fn write<'p>(
    family: Family,
    options: Options,
    pieces: impl IntoIterator<Item = &'p [u8]>,
    model: Option<&str>,
) -> Vec<u8> {
    write_to(Writer::Chat(ChatWriter::new(model.map(str::to_owned))), family, options, pieces)
}

fn write_to<'p>(
    mut writer: Writer,
    family: Family,
    options: Options,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    let mut decoder = Decoder::new(family, options);
    let mut out = Vec::new();
    let mut outcome = Ok(());
    for piece in pieces {
        outcome = decoder.feed(piece, &mut writer);
        if outcome.is_err() {
            break;
        }
        assert_eq!(writer.is_empty(), writer.take().into_iter().map(|byte| out.push(byte)).count() == 0);
    }
    match outcome.and_then(|()| decoder.finish(&mut writer)).and_then(|()| decoder.finish(&mut writer)) {
        Ok(()) => writer.done(),
        Err(error) => writer.error(&error),
    }
    out.extend(writer.take());
    out
}

/// The numbers, not how they were told.
fn counted(usage: Option<Usage>) -> Option<(Value, bool)> {
    usage.map(|usage| (without_sum(usage_json(&usage)), usage.complete))
}

/// Some wires say what the sum is where one side of it is unknown; OpenAI's does not.
fn without_sum(mut usage: Value) -> Value {
    if let Some(fields) = usage.as_object_mut()
        && !(fields.contains_key("prompt_tokens") && fields.contains_key("completion_tokens"))
    {
        fields.remove("total_tokens");
    }
    usage
}

fn assert_same(again: &[Value], chunks: &[Value], name: &str) {
    for (place, (again, chunk)) in again.iter().zip(chunks).enumerate() {
        let known = |chunk: &Value| match chunk.get("usage") {
            Some(usage) => with(chunk.clone(), "usage", without_sum(usage.clone())),
            None => chunk.clone(),
        };
        assert_eq!(known(again), known(chunk), "{name}: chunk {place}");
    }
    assert_eq!(again.len(), chunks.len(), "{name}");
}

fn read_again(written: &[u8], include_usage: bool) -> Seen {
    let fallback = Head { id: "unused".into(), created: 1, model: "unused".into() };
    decode_pieces_of(Family::Chat, Options { fallback, include_usage, ..options() }, [written])
}

/// What a class is to those who read an error without a status.
fn as_read(class: Class) -> Class {
    match class {
        Class::Connection | Class::ResponseValidation | Class::BadGateway => Class::InternalServer,
        Class::UnprocessableEntity => Class::BadRequest,
        class => class,
    }
}

#[test]
fn what_is_written_is_read_as_what_it_was_written_from() {
    let mut count = 0;
    for Stream { name, family, dialect, body } in streams() {
        for options in [options(), with_usage()] {
            let options = Options { dialect, ..options };
            let include_usage = options.include_usage;
            let seen = decode_pieces_of(family, options.clone(), [body.as_slice()]);
            let written = write(family, options.clone(), [body.as_slice()], None);
            let again = read_again(&written, include_usage);
            assert_same(&again.chunks, &seen.chunks, &name);
            if include_usage && seen.error.is_none() {
                assert_eq!(counted(again.usage), counted(seen.usage), "{name}");
            }
            let class = |error: Option<Error>| error.map(|error| error.class);
            assert_eq!(class(again.error), class(seen.error.clone()).map(as_read), "{name}");
            assert_eq!(again.ended, seen.error.is_none(), "{name}");
            if body.len() < 40_000 {
                let split = write(family, options, body.chunks(1), None);
                assert!(split == written, "{name}: another stream when it comes byte by byte");
            }
        }
        count += 1;
    }
    println!("{count} streams");
}

/// A chunk of one choice, with a text of one kind.
fn chunk_of<'a>(head: &'a Head, part: Part, text: Text<'a>) -> Chunk<'a> {
    let mut delta = Delta::default();
    match part {
        Part::Content => delta.content = Field::Value(text),
        Part::Reasoning => delta.reasoning_content = Field::Value(text),
        Part::Arguments => {
            let function = Function { name: None, arguments: Some(text) };
            delta.tool_calls.push(ToolCall { index: Some(3), function, ..ToolCall::default() });
        }
    }
    let choices = vec![Choice { index: 2, delta, ..Choice::default() }];
    let system_fingerprint = Field::Value(Str::plain("fp"));
    let extra = vec![Extra::new(Str::plain("seed"), b"{\"a\": 1}")];
    Chunk { head, service_tier: Field::Null, system_fingerprint, choices, usage: Field::Null, extra }
}

fn head() -> Head {
    Head { id: "chatcmpl-1".into(), created: 1_700_000_000, model: "m".into() }
}

/// What stands between the quotes of the JSON string `json`.
fn string(json: &[u8]) -> Str<'_> {
    Cursor::new(json).string().unwrap()
}

fn escaped() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<String>().prop_map(|text| {
            let quoted = Value::from(text).to_string().into_bytes();
            quoted[1..quoted.len() - 1].to_vec()
        }),
        Just(b"\\ud83d".to_vec()),
        Just(b"\\ude00".to_vec()),
        Just(b"\\\\ud83d".to_vec()),
        Just(b"\xe2\x82".to_vec()),
        Just(b"\xff".to_vec()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| [b"\"", pieces.concat().as_slice(), b"\""].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_streams_are_read_as_what_they_were_written_from(body in generated(), keep in any::<bool>()) {
        // Two halves are two values to those who look for what is new in an extra field, and one when they were written.
        let body = String::from_utf8(body).unwrap().replace(r#""x":"\u"#, r#""x":"u"#).into_bytes();
        let options = Options { keep, ..with_usage() };
        let seen = decode_pieces_of(Family::Chat, with_usage(), [body.as_slice()]);
        let again = read_again(&write(Family::Chat, options.clone(), [body.as_slice()], None), true);
        assert_same(&again.chunks, &seen.chunks, "generated");
        let choices = |seen: &Seen| seen.response.as_ref().map(|response| response["choices"].clone());
        prop_assert_eq!(choices(&again), choices(&seen));
        let message = write_message(Family::Chat, options, [body.as_slice()]);
        message_events(&message, "generated");
        let again = read_message(&message);
        prop_assert_eq!(again.error.is_some(), seen.error.is_some());
        prop_assert_eq!(again.text("reasoning_content"), seen.text("reasoning_content"));
        prop_assert_eq!(again.text("content").len(), seen.text("content").len() + seen.text("refusal").len());
    }

    #[test]
    fn again_writes_what_the_whole_chunk_would(
        part in prop_oneof![Just(Part::Content), Just(Part::Reasoning), Just(Part::Arguments)],
        first in any::<String>(),
        second in escaped(),
        third in any::<String>(),
        taken in any::<bool>(),
    ) {
        let head = head();
        let mut texts = [Text::Owned(first), Text::Json(string(&second)), Text::Owned(third)].into_iter();
        let mut whole = ChatWriter::new(None);
        for text in texts.clone() {
            whole.chunk(&chunk_of(&head, part, text));
        }
        let mut writer = ChatWriter::new(None);
        let mut out = Vec::new();
        writer.chunk(&chunk_of(&head, part, texts.next().unwrap()));
        for text in texts {
            if taken {
                out.extend(writer.take());
            }
            writer.again(part, &text);
        }
        out.extend(writer.take());
        prop_assert!(writer.is_empty());
        let written = whole.take();
        prop_assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(written.clone()).unwrap());
        let read = events(&written);
        let text = |place: usize| {
            let delta = &read[place]["choices"][0]["delta"];
            let found = [&delta["content"], &delta["reasoning_content"], &delta["tool_calls"][0]["function"]["arguments"]];
            found.into_iter().find_map(Value::as_str).unwrap().to_owned()
        };
        prop_assert_eq!(text(1), string(&second).decode());
    }
}

#[test]
fn a_chunk_is_written_as_openai_writes_it() {
    let head = head();
    let mut writer = ChatWriter::default();
    writer.chunk(&chunk_of(&head, Part::Content, Text::Owned("Hi".into())));
    writer.done();
    let expected = concat!(
        r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","service_tier":null,"#,
        r#""system_fingerprint":"fp","choices":[{"index":2,"delta":{"content":"Hi"},"finish_reason":null}],"#,
        r#""usage":null,"seed":{"a": 1}}"#,
        "\n\ndata: [DONE]\n\n"
    );
    assert_eq!(String::from_utf8(writer.take()).unwrap(), expected);
}

#[test]
fn escapes_stay_as_the_provider_wrote_them() {
    let body = [
        r#"data: {"choices":[{"delta":{"content":"a"}}]}"#,
        r#"data: {"choices":[{"delta":{"content":"b"}}]}"#,
        r#"data: {"choices":[{"delta":{"content":"\/\u00e9\n"}}]}"#,
        r#"data: {"choices":[{"delta":{"content":"\ud83d\ude00"}}]}"#,
        "data: [DONE]\n\n",
    ]
    .join("\n\n");
    let without_assembly = Options { keep: false, ..options() };
    let written = String::from_utf8(write(Family::Chat, without_assembly, [body.as_bytes()], None)).unwrap();
    assert!(written.contains(r#"{"content":"\/\u00e9\n"}"#), "{written}");
    assert!(written.contains(r#"{"content":"😀"}"#), "halves of characters may belong to others: {written}");
    let kept = write(Family::Chat, options(), [body.as_bytes()], None);
    assert_eq!(events(&kept), events(written.as_bytes()));
}

#[test]
fn values_that_are_passed_on_are_one_line_of_valid_text() {
    let body = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\",\"x\":{\ndata: \"y\":\ndata: 1}}}],\ndata: \
        \"p\xff\":\"\xe2\x82\",\"half\":\"\\ud83d\",\ndata: \"usage\":{\"prompt_tokens\":1,\ndata: \"more\":[\"\xff\",\ndata: 2]}}\n\ndata: [DONE]\n\n";
    let written = write(Family::Chat, with_usage(), [&body[..]], None);
    assert_eq!(read_again(&written, true).chunks, decode_pieces_of(Family::Chat, with_usage(), [&body[..]]).chunks);
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains(r#""half":"\u{fffd}""#.replace("\\u{fffd}", "\u{fffd}").as_str()), "{text}");
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 3, "{text}");
}

#[test]
fn an_alias_hides_who_answered() {
    let event = |id: &str, model: &str, text: &str| json!({"id": id, "model": model, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    let events = [event("a", "gpt-4o-2024-11-20", "Hi"), event("b", "other", "Ho"), event("b", "other", "!")];
    let body = common::done(&events);
    let seen = decode_pieces_of(Family::Chat, options(), [body.as_slice()]);
    assert_eq!((&seen.chunks[1]["provider_id"], &seen.chunks[1]["provider_model"]), (&json!("b"), &json!("other")));
    let written = write(Family::Chat, with_usage(), [body.as_slice()], Some("fast \"1\""));
    let again = read_again(&written, true);
    assert_eq!(again.chunks.len(), seen.chunks.len() + 1);
    for chunk in again.chunks {
        let named = |name: &str| chunk.get(name).cloned();
        assert_eq!((named("model"), named("id")), (Some("fast \"1\"".into()), Some("a".into())));
        assert_eq!((named("provider_model"), named("provider_id")), (None, None));
    }
    let body = json!({"id": "a", "model": "gpt-4o-2024-11-20", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]});
    let mut out = Vec::new();
    let (dialect, fallback) = (Dialect::default(), options().fallback);
    decode_response(Family::Chat, dialect, fallback, None, Some("fast"), body.to_string().as_bytes(), &mut out)
        .unwrap();
    let response: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&response["model"], &response["id"]), (&json!("fast"), &json!("a")));
    assert_eq!(single(dialect, body.to_string().as_bytes()).unwrap().0["model"], "gpt-4o-2024-11-20");
}

fn body_of(error: &Error) -> Value {
    let mut out = Vec::new();
    error_body(error, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn errors_are_written_as_openai_writes_them() {
    let mut error = Error::new(Class::RateLimit, "slow \"down\"");
    assert_eq!(
        body_of(&error),
        json!({"error": {"message": "slow \"down\"", "type": "rate_limit_error", "param": null, "code": null}})
    );
    error.details.kind = Some("tokens".into());
    error.details.code = Some("rate_limit_exceeded".into());
    error.details.param = Some("messages".into());
    assert_eq!(
        body_of(&error)["error"],
        json!({"message": "slow \"down\"", "type": "tokens", "param": "messages", "code": "rate_limit_exceeded"})
    );
    let mut error = Error::new(Class::ContextWindowExceeded, "too long");
    error.details.code = Some("400".into());
    assert_eq!(
        body_of(&error)["error"],
        json!({"message": "too long", "type": "invalid_request_error", "param": null, "code": "context_length_exceeded"})
    );
    error.class = Class::BadRequest;
    assert_eq!(body_of(&error)["error"]["code"], "400");
}

#[test]
fn an_error_ends_the_stream_and_has_its_class() {
    for class in Class::ALL {
        let mut writer = ChatWriter::new(None);
        writer.error(&Error::new(class, "it broke"));
        let written = writer.take();
        assert!(!written.ends_with(common::DONE));
        let error = read_again(&written, true).error.unwrap();
        assert_eq!((error.class, error.message.as_str()), (as_read(class), "it broke"));
    }
}

fn write_message<'p>(family: Family, options: Options, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
    write_to(Writer::Messages(MessagesWriter::new(None)), family, options, pieces)
}

fn read_message(written: &[u8]) -> Seen {
    let fallback = Head { id: "unused".into(), created: 1, model: "unused".into() };
    decode_pieces_of(Family::Anthropic, Options { fallback, ..with_usage() }, [written])
}

/// The events of a message, each with the name of its type, in the order that the API has them in.
fn message_events(written: &[u8], name: &str) -> Vec<Value> {
    let text = std::str::from_utf8(written).unwrap();
    let events = text.split_terminator("\n\n").map(|event| {
        let (kind, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!(event["type"], kind, "{name}");
        event
    });
    let events: Vec<Value> = events.collect();
    let (mut open, mut next) = (None, 0);
    for (place, event) in events.iter().enumerate() {
        let index = &event["index"];
        match event["type"].as_str().unwrap() {
            "message_start" => assert_eq!(place, 0, "{name}"),
            "content_block_start" => {
                assert_eq!((open.replace(index), index), (None, &json!(next)), "{name}: {event}");
                next += 1;
            }
            "content_block_delta" => {
                // Only what comes late for a call stands elsewhere.
                let is_late = event["delta"]["type"] == "input_json_delta" && index.as_u64().unwrap() < next;
                assert!(open == Some(index) || is_late, "{name}: {event}");
            }
            "content_block_stop" => assert_eq!(open.take(), Some(index), "{name}: {event}"),
            "message_delta" => assert_eq!((open, place), (None, events.len() - 2), "{name}"),
            "message_stop" | "error" => assert_eq!(place, events.len() - 1, "{name}"),
            kind => unreachable!("{name}: {kind}"),
        }
    }
    assert!(matches!(events.last().unwrap()["type"].as_str(), Some("message_stop" | "error")), "{name}");
    events
}

/// Calls as their JSON says, however it is spelled; without arguments they have an empty object.
fn calls(message: &Value) -> Vec<(Value, Value, Value)> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let arguments = |call: &Value| match call["function"]["arguments"].as_str().unwrap_or_default() {
        "" | "null" => json!({}),
        text => serde_json::from_str(text).unwrap_or(text.into()),
    };
    // Custom tools have none: no request for a message can ask for them.
    let name = |call: &Value| call["function"]["name"].as_str().unwrap_or_default().into();
    calls.map(|call| (call["id"].clone(), name(call), arguments(call))).collect()
}

/// What a message can say of a choice.
fn said(choice: &Value) -> Value {
    let message = &choice["message"];
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    let reason = match choice["finish_reason"].as_str() {
        Some("function_call") => "tool_calls",
        // None is given; a message needs one.
        None if message["tool_calls"].is_array() => "tool_calls",
        reason => reason.unwrap_or("stop"),
    };
    json!([text("content") + &text("refusal"), text("reasoning_content"), reason, calls(message)])
}

/// All that is counted; what is unknown is 0 in a message.
fn counts(usage: Option<&Usage>) -> [u64; 5] {
    let counts = usage.map(|usage| usage.counts.clone()).unwrap_or_default();
    [counts.prompt, counts.completion, counts.cached, counts.cache_write, counts.reasoning]
        .map(Option::unwrap_or_default)
}

#[test]
fn messages_say_what_the_chunks_say() {
    for Stream { name, family, dialect, body } in streams() {
        let options = Options { dialect, ..with_usage() };
        let seen = decode_pieces_of(family, options.clone(), [body.as_slice()]);
        let written = write_message(family, options.clone(), [body.as_slice()]);
        let events = message_events(&written, &name);
        let again = read_message(&written);
        let class = |error: Option<Error>| error.map(|error| error.class);
        assert_eq!(class(again.error.clone()), class(seen.error.clone()).map(as_read), "{name}");
        if seen.error.is_none() {
            assert_eq!(events.last().unwrap()["type"], "message_stop", "{name}");
            assert_eq!(counts(again.usage.as_ref()), counts(seen.usage.as_ref()), "{name}");
            let (response, message) = (seen.response.as_ref().unwrap(), again.response.as_ref().unwrap());
            assert_eq!((&message["id"], &message["model"]), (&response["id"], &response["model"]), "{name}");
            let choices = response["choices"].as_array().unwrap();
            let first = choices.iter().find(|choice| choice["index"] == 0);
            assert_eq!(said(&message["choices"][0]), said(first.unwrap_or(&Value::Null)), "{name}");
            if family == Family::Anthropic {
                assert_eq!(message["choices"], response["choices"], "{name}");
            }
            check_response(response, &seen, &name);
        }
        for part in ["content", "reasoning_content"] {
            let pieces = |seen: &Seen| -> Vec<String> {
                seen.texts(part).into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect()
            };
            if seen.texts("refusal").concat().is_empty() {
                assert_eq!(pieces(&again), pieces(&seen), "{name}: piece by piece");
            }
        }
        if body.len() < 40_000 {
            let split = write_message(family, options, body.chunks(1));
            assert!(split == written, "{name}: another stream when it comes byte by byte");
        }
    }
}

/// The same for a whole completion.
fn check_response(response: &Value, seen: &Seen, name: &str) {
    let usage = seen.usage.as_ref().map(usage_json);
    let completion = match &usage {
        Some(usage) => with(response.clone(), "usage", usage.clone()),
        None => response.clone(),
    };
    let mut out = Vec::new();
    messages_response(completion.to_string().as_bytes(), Some("alias"), &mut out).unwrap();
    let mut chat = Vec::new();
    let fallback = options().fallback;
    let usage = decode_response(Family::Anthropic, Dialect::default(), fallback, None, None, &out, &mut chat).unwrap();
    let again: Value = serde_json::from_slice(&chat).unwrap();
    assert_eq!((&again["id"], again["model"].as_str()), (&response["id"], Some("alias")), "{name}");
    let mut expected = said(&response["choices"][0]);
    for call in expected[3].as_array_mut().unwrap() {
        // Cut short: an input is an object all the same.
        if call[2].is_string() {
            call[2] = json!({});
        }
    }
    assert_eq!(said(&again["choices"][0]), expected, "{name}");
    assert_eq!(counts(usage.as_ref()), counts(seen.usage.as_ref()), "{name}");
}

/// The events of a message written from these, without the first and the last, and its usage.
fn message_of(deltas: &[Value]) -> Vec<Value> {
    let events: Vec<Value> = deltas.iter().map(|delta| common::event(delta, None)).collect();
    let written = write_message(Family::Chat, with_usage(), [common::done(&events).as_slice()]);
    let events = message_events(&written, "authored");
    events[1..events.len() - 2].to_vec()
}

fn block_start(index: u32, block: &Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn block_delta(index: u32, delta: &Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn block_stop(index: u32) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn text_delta(index: u32, text: &str) -> Value {
    block_delta(index, &json!({"type": "text_delta", "text": text}))
}

fn input_delta(index: u32, text: &str) -> Value {
    block_delta(index, &json!({"type": "input_json_delta", "partial_json": text}))
}

#[test]
fn a_message_has_a_beginning_and_an_end() {
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "cost": 0.5,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 5}});
    let body = common::done(&[
        common::event(&json!({"role": "assistant", "content": ""}), None),
        common::event(&json!({"content": "Hi"}), Some("length")),
        with(with(json!({"choices": []}), "id", "chatcmpl-1".into()), "usage", usage),
    ]);
    let writer = Writer::Messages(MessagesWriter::new(Some("alias".into())));
    let written = write_to(writer, Family::Chat, with_usage(), [body.as_slice()]);
    let expected = [
        json!({"type": "message_start", "message": {
            "id": "chatcmpl-1", "type": "message", "role": "assistant", "model": "alias", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0},
        }}),
        block_start(0, &json!({"type": "text", "text": ""})),
        text_delta(0, "Hi"),
        block_stop(0),
        json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": null}, "usage": {
            "input_tokens": 10, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 60, "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 5}, "cost": 0.5,
        }}),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(message_events(&written, "authored"), expected);
    // Its end is told once, and an empty stream is a message too.
    let mut writer = MessagesWriter::new(None);
    writer.done();
    writer.done();
    let kinds: Vec<Value> = message_events(&writer.take(), "empty").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["message_start", "message_delta", "message_stop"]);
}

#[test]
fn a_text_of_another_kind_is_another_block() {
    let events = message_of(&[
        json!({"role": "assistant", "content": "", "reasoning_content": "Hm"}),
        json!({"reasoning_content": "."}),
        json!({"content": "A"}),
        json!({"content": "B"}),
        json!({"refusal": "No"}),
        json!({"reasoning_content": "?"}),
    ]);
    let thinking = json!({"type": "thinking", "thinking": "", "signature": ""});
    let thought = |index, text: &str| block_delta(index, &json!({"type": "thinking_delta", "thinking": text}));
    let expected = [
        block_start(0, &thinking),
        thought(0, "Hm"),
        thought(0, "."),
        block_stop(0),
        block_start(1, &json!({"type": "text", "text": ""})),
        text_delta(1, "A"),
        text_delta(1, "B"),
        text_delta(1, "No"),
        block_stop(1),
        block_start(2, &thinking),
        thought(2, "?"),
        block_stop(2),
    ];
    assert_eq!(events, expected);
}

#[test]
fn calls_are_blocks_and_nothing_late_is_lost() {
    let calls = |calls: Value| json!({"tool_calls": calls});
    let events = message_of(&[
        calls(json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}])),
        calls(json!([{"index": 0, "function": {"arguments": "{\"x\""}}])),
        calls(
            json!([{"index": 1, "id": "b", "function": {"name": "g", "arguments": "null"}, "caller": {"type": "direct"}}]),
        ),
        calls(json!([{"index": 0, "function": {"arguments": ":"}}])),
        calls(json!([{"index": 0, "function": {"arguments": "1}"}}])),
        calls(json!([{"index": 2, "id": "c", "function": {"arguments": "{"}}])),
        calls(json!([{"index": 2, "function": {"arguments": "}"}}])),
        calls(json!([{"index": 2, "function": {"name": "h", "arguments": " "}}])),
        calls(json!([{"index": 3, "id": "d", "function": {"arguments": "{}"}}])),
    ]);
    let tool = |id: &str, name: &str| json!({"type": "tool_use", "id": id, "name": name, "input": {}});
    let expected = [
        block_start(0, &tool("a", "f")),
        input_delta(0, "{\"x\""),
        block_stop(0),
        block_start(1, &with(tool("b", "g"), "caller", json!({"type": "direct"}))),
        input_delta(0, ":"),
        input_delta(0, "1}"),
        block_stop(1),
        block_start(2, &tool("c", "h")),
        input_delta(2, "{}"),
        input_delta(2, " "),
        block_stop(2),
        block_start(3, &tool("d", "")),
        input_delta(3, "{}"),
        block_stop(3),
    ];
    assert_eq!(events, expected);
}

#[test]
fn blocks_that_have_to_go_back_are_blocks_again() {
    let signed = json!({"type": "thinking", "signature": "sig"});
    let piece = |text: &str| json!({"type": "thinking", "thinking": text, "signature": null});
    let redacted = json!({"type": "redacted_thinking", "data": "x"});
    let search = json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}});
    let place = json!({"type": "char_location", "document_index": 0, "cited_text": "c"});
    let events = message_of(&[
        json!({"reasoning_content": "Hm"}),
        json!({"thinking_blocks": [signed]}),
        json!({"thinking_blocks": [redacted, signed]}),
        json!({"reasoning_content": "so", "thinking_blocks": [piece("so")]}),
        json!({"reasoning_content": " on", "thinking_blocks": [piece(" on")]}),
        json!({"content_blocks": [search, {"toolUse": {}}]}),
        json!({"annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t", "content": "c"}},
                               place, {"type": "file_citation"}]}),
        json!({"content": "A"}),
    ]);
    let thinking = json!({"type": "thinking", "thinking": "", "signature": ""});
    let thought = |index, text: &str| block_delta(index, &json!({"type": "thinking_delta", "thinking": text}));
    let signature = |index| block_delta(index, &json!({"type": "signature_delta", "signature": "sig"}));
    let citation = |citation: &Value| block_delta(5, &json!({"type": "citations_delta", "citation": citation}));
    let expected = [
        block_start(0, &thinking),
        thought(0, "Hm"),
        signature(0),
        block_stop(0),
        block_start(1, &redacted),
        block_stop(1),
        block_start(2, &thinking),
        signature(2),
        block_stop(2),
        block_start(3, &thinking),
        thought(3, "so"),
        thought(3, " on"),
        block_stop(3),
        block_start(4, &search),
        block_stop(4),
        block_start(5, &json!({"type": "text", "text": ""})),
        citation(&json!({"type": "web_search_result_location", "url": "u", "title": "t", "content": "c",
                         "cited_text": "c", "encrypted_index": ""})),
        citation(&place),
        text_delta(5, "A"),
        block_stop(5),
    ];
    assert_eq!(events, expected);
}

#[test]
fn only_the_first_choice_has_a_place_in_a_message() {
    let event = |index: u32, text: &str| json!({"choices": [{"index": index, "delta": {"content": text}}]});
    let events = [event(1, "no"), event(1, "no"), event(0, "A"), event(0, "B"), event(1, "no"), event(1, "no")];
    let written = write_message(Family::Chat, with_usage(), [common::done(&events).as_slice()]);
    assert_eq!(read_message(&written).text("content"), "AB");
}

#[test]
fn a_reason_of_this_api_stays_if_it_means_the_same() {
    let reason = |finish: &str, provider: &str| {
        let completion = json!({"choices": [{"message": {"content": "A"}, "finish_reason": finish,
            "provider_finish_reason": provider, "stop_sequence": "###"}]});
        let mut out = Vec::new();
        messages_response(completion.to_string().as_bytes(), None, &mut out).unwrap();
        let message: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(message["stop_sequence"], "###");
        message["stop_reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("stop", "pause_turn"), "pause_turn");
    assert_eq!(reason("stop", "stop_sequence"), "stop_sequence");
    assert_eq!(reason("length", "model_context_window_exceeded"), "model_context_window_exceeded");
    // The tool that the answer was given by was not the client's.
    assert_eq!(reason("stop", "tool_use"), "end_turn");
    assert_eq!(reason("tool_calls", "STOP"), "tool_use");
    assert_eq!(reason("content_filter", "SAFETY"), "refusal");
}

#[test]
fn what_a_compaction_took_is_counted_once() {
    let body = common::sse(&[
        json!({"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 181}}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7, "iterations": [
            {"type": "compaction", "input_tokens": 100, "output_tokens": 3},
            {"type": "message", "input_tokens": 181, "output_tokens": 7},
        ]}}),
        json!({"type": "message_stop"}),
    ]);
    let seen = decode_pieces_of(Family::Anthropic, with_usage(), [body.as_slice()]);
    let again = read_message(&write_message(Family::Anthropic, with_usage(), [body.as_slice()]));
    assert_eq!(counts(seen.usage.as_ref()), [281, 10, 0, 0, 0]);
    assert_eq!(counts(again.usage.as_ref()), counts(seen.usage.as_ref()));
}

#[test]
fn errors_are_written_as_anthropic_writes_them() {
    let body = |error: &Error| -> Value {
        let mut out = Vec::new();
        messages_error(error, &mut out);
        serde_json::from_slice(&out).unwrap()
    };
    let mut error = Error::new(Class::ServiceUnavailable, "busy");
    assert_eq!(body(&error), json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}));
    error.details.kind = Some("rate_limit_error".into());
    assert_eq!(body(&error)["error"]["type"], "rate_limit_error");
    // Another's name for it says nothing here.
    error.details.kind = Some("tokens".into());
    assert_eq!(body(&error)["error"]["type"], "overloaded_error");
    let mut error = Error::new(Class::BadRequest, "too large");
    error.details.status = Some(413);
    assert_eq!(body(&error)["error"]["type"], "request_too_large");
    for class in Class::ALL {
        let mut writer = MessagesWriter::new(None);
        writer.error(&Error::new(class, "it broke"));
        let written = writer.take();
        writer.done();
        assert!(writer.is_empty(), "nothing follows an error");
        let error = read_message(&written).error.unwrap();
        // There are no codes: of these only the message tells.
        let expected = match as_read(class) {
            Class::ContextWindowExceeded | Class::ContentPolicyViolation => Class::BadRequest,
            class => class,
        };
        assert_eq!((error.class, error.message.as_str()), (expected, "it broke"));
    }
}
