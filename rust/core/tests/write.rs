//! Chunks that were written and read again are the same chunks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod aws;
mod common;

use common::streams::fixtures;
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
            kind => panic!("{name}: {kind}"),
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
    assert_eq!(said(&again["choices"][0]), said(&response["choices"][0]), "{name}");
    assert_eq!(counts(usage.as_ref()), counts(seen.usage.as_ref()), "{name}");
}
