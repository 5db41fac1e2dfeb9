//! Bare texts: each server's own documents, the same inside an event stream, and predictions, whose data is no JSON.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod aws;
mod common;

use common::{Seen, assert_any_cut_is_the_same, decode_pieces_of, done, options, single_of, sse, with_usage};
use penstock_core::decoder::{Dialect, End, Family, Options};
use penstock_core::error::{Class, Error};
use serde_json::{Value, json};

const EOF: Dialect = Dialect { reasoning: penstock_core::usage::Reasoning::Inside, end: End::Eof };

fn read(family: Family, body: &[u8]) -> Seen {
    assert_any_cut_is_the_same(family, body);
    decode_pieces_of(family, with_usage(), [body])
}

fn good(family: Family, body: &[u8]) -> Seen {
    let seen = read(family, body);
    assert_eq!(seen.error, None);
    let last = seen.chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    seen
}

fn fails(family: Family, body: &[u8]) -> Error {
    read(family, body).error.unwrap()
}

fn single(family: Family, body: &Value) -> Value {
    single_of(family, Dialect::default(), body.to_string().as_bytes()).unwrap().0
}

fn counts(seen: &Seen) -> (Value, Value) {
    let usage = seen.usage();
    (usage["prompt_tokens"].clone(), usage["completion_tokens"].clone())
}

fn token(index: u32, text: &str, special: bool) -> Value {
    json!({"index": index, "token": {"id": 7, "text": text, "logprob": -0.5, "special": special},
           "generated_text": null, "details": null})
}

/// The events of a stream token by token.
fn tokens() -> Vec<Value> {
    let mut events = vec![token(1, "Hel", false), token(2, "lo 水", false), token(3, "</s>", true)];
    events[2]["generated_text"] = json!("Hello 水");
    events[2]["details"] =
        json!({"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 9, "seed": null});
    events
}

#[test]
fn tokens_are_a_text_and_special_ones_are_not_read() {
    let seen = good(Family::Text, &sse(&tokens()));
    assert_eq!(seen.text("content"), "Hello 水");
    assert_eq!(seen.finish_reasons(), ["stop"]);
    assert_eq!(counts(&seen), (json!(9), json!(3)));
    assert!(seen.usage.as_ref().unwrap().complete);
    assert_eq!(seen.usage()["total_tokens"], 12);
}

#[test]
fn the_whole_text_at_the_end_is_not_said_twice_but_read_where_nothing_came_before() {
    let whole = json!({"generated_text": "Hello", "details": {"finish_reason": "length", "generated_tokens": 20}});
    for body in [json!([whole]), whole] {
        let response = single(Family::Text, &body);
        assert_eq!(response["choices"][0]["message"]["content"], "Hello");
        assert_eq!(response["choices"][0]["finish_reason"], "length");
        assert_eq!(response["usage"], json!({"completion_tokens": 20}));
    }
    let response = single(Family::Text, &json!([{"generated_text": "Hello"}]));
    assert_eq!(response["choices"][0]["finish_reason"], Value::Null);
}

#[test]
fn tokens_may_come_as_lines_without_events() {
    let mut body = Vec::new();
    for event in tokens() {
        body.extend_from_slice(event.to_string().as_bytes());
        body.push(b'\n');
    }
    assert_eq!(good(Family::Text, &body).text("content"), "Hello 水");
    assert_eq!(good(Family::Text, body.trim_ascii_end()).text("content"), "Hello 水");
}

#[test]
fn of_counts_that_are_told_once_and_then_as_zero_the_larger_stays() {
    let event = |text: &str, input: u32, output: u32, stop: &str| {
        json!({"model_id": "m-1", "created_at": "2025-11-22T10:00:00.123Z", "results": [{
            "generated_text": text, "generated_token_count": output, "input_token_count": input, "stop_reason": stop}]})
    };
    let events = [
        event("", 7, 0, "not_finished"),
        event("Hel", 0, 1, "not_finished"),
        event("lo", 0, 2, "NOT_FINISHED"),
        event("", 0, 2, "max_tokens"),
    ];
    let seen = good(Family::Text, &sse(&events));
    assert_eq!(seen.text("content"), "Hello");
    assert_eq!(seen.finish_reasons(), ["length"]);
    assert_eq!(counts(&seen), (json!(7), json!(2)));
    assert_eq!((&seen.chunks[0]["model"], &seen.chunks[0]["created"]), (&json!("m-1"), &json!(1_763_805_600)));
    let response = single(Family::Text, &event("Hello", 7, 2, "eos_token"));
    assert_eq!(
        (&response["choices"][0]["message"]["content"], &response["usage"]["total_tokens"]),
        (&json!("Hello"), &json!(9))
    );
    assert_eq!(fails(Family::Text, &sse(&[event("a", 7, 1, "error")])).class, Class::InternalServer);
}

#[test]
fn a_response_field_is_a_text_and_the_mark_its_end() {
    let body = done(&[
        json!({"response": "Hel", "p": "abc"}),
        json!({"response": "lo", "p": "abcdef"}),
        json!({"response": "", "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}}),
    ]);
    let seen = good(Family::Text, &body);
    assert_eq!((seen.text("content").as_str(), counts(&seen)), ("Hello", (json!(4), json!(2))));
    assert!(seen.finish_reasons().is_empty(), "none was told");
    let whole = json!({"result": {"response": "Hi", "usage": {"prompt_tokens": 4, "completion_tokens": 1}},
                       "success": true, "errors": [], "messages": []});
    let response = single(Family::Text, &whole);
    assert_eq!(response["choices"][0]["message"]["content"], "Hi");
    assert_eq!(response["usage"]["total_tokens"], 5);
    let refused = json!({"result": null, "success": false, "errors": [{"code": 7003, "message": "no route"}]});
    let error = single_of(Family::Text, Dialect::default(), refused.to_string().as_bytes()).unwrap_err();
    assert_eq!((error.class, error.message.as_str()), (Class::InternalServer, "no route"));
}

#[test]
fn a_text_that_nothing_ends_ends_with_the_body_where_the_dialect_says_so() {
    let body = sse(&[
        json!({"model_name": "m", "model_version": "1", "text_output": "Hel"}),
        json!({"model_name": "m", "model_version": "1", "text_output": "lo"}),
    ]);
    assert_eq!(fails(Family::Text, &body).class, Class::Connection);
    let seen = decode_pieces_of(Family::Text, Options { dialect: EOF, ..with_usage() }, [body.as_slice()]);
    assert_eq!((seen.error.clone(), seen.text("content").as_str()), (None, "Hello"));
    assert_eq!((&seen.chunks[0]["model"], seen.usage), (&json!("m"), None));
}

#[test]
fn completions_are_read_as_chat_is() {
    let event = |text: &str, stop: Option<&str>| {
        json!({"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m",
               "choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": stop}], "usage": null})
    };
    let usage = json!({"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6});
    let last = json!({"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [],
                      "usage": usage});
    let seen = good(Family::Text, &done(&[event("Hel", None), event("lo", None), event("", Some("stop")), last]));
    assert_eq!((seen.text("content").as_str(), seen.finish_reasons()), ("Hello", vec!["stop"]));
    assert_eq!((counts(&seen), &seen.chunks[0]["id"]), ((json!(4), json!(2)), &json!("cmpl-1")));
    assert_eq!(single(Family::Text, &event("Hi", Some("length")))["choices"][0]["message"]["content"], "Hi");
}

#[test]
fn errors_say_what_the_server_said() {
    let body = sse(&[token(1, "a", false), json!({"error": "Model is overloaded", "error_type": "overloaded"})]);
    let error = fails(Family::Text, &body);
    assert_eq!((error.class, error.message.as_str()), (Class::ServiceUnavailable, "Model is overloaded"));
    let body = b"event: error\ndata: {\"errors\":[{\"code\":\"x\",\"message\":\"too slow\"}],\"status_code\":504}\n\n";
    let error = fails(Family::Text, body);
    assert_eq!((error.class, error.message.as_str()), (Class::Timeout, "too slow"));
    assert_eq!(fails(Family::Text, b"event: error\ndata: out of luck\n\n").message, "out of luck");
    assert_eq!(fails(Family::Text, b"data: out of luck\n\n").class, Class::ResponseValidation);
    let error = single_of(Family::Text, Dialect::default(), br#"{"status":"fine"}"#).unwrap_err();
    assert_eq!(error.class, Class::ResponseValidation);
    assert_eq!(fails(Family::Text, &sse(&tokens()[..2])).class, Class::Connection);
}

// The same inside an event stream.

fn part(payload: &[u8]) -> Vec<u8> {
    aws::message(&[(":event-type", "PayloadPart"), (":message-type", "event")], payload)
}

fn parts(body: &[u8], size: usize) -> Vec<u8> {
    body.chunks(size).flat_map(part).collect()
}

#[test]
fn payloads_are_one_stream_wherever_they_are_cut() {
    for (body, text) in [
        (sse(&tokens()), "Hello 水"),
        (done(&[common::event(&json!({"content": "Hi"}), None), common::event(&json!({}), Some("stop"))]), "Hi"),
        (tokens().iter().flat_map(|event| format!("{event}\n").into_bytes()).collect(), "Hello 水"),
        // The last event lacks its blank line.
        (sse(&tokens()).trim_ascii_end().to_vec(), "Hello 水"),
    ] {
        let whole = decode_pieces_of(Family::Text, with_usage(), [body.as_slice()]);
        for size in [1, 2, 3, 7, 50, body.len()] {
            let seen = decode_pieces_of(Family::Invocations, with_usage(), [parts(&body, size).as_slice()]);
            assert_eq!((seen.error.clone(), seen.text("content").as_str()), (None, text));
            assert_eq!(seen, whole, "payloads of {size}");
        }
        good(Family::Invocations, &parts(&body, 40));
    }
}

#[test]
fn several_events_of_one_payload_come_one_after_the_other() {
    let body = sse(&tokens());
    let seen = good(Family::Invocations, &[part(b""), part(&body)].concat());
    assert_eq!(seen.texts("content"), ["Hel", "lo 水", ""]);
}

#[test]
fn exceptions_end_a_stream_with_their_class() {
    let start = parts(&sse(&tokens()[..1]), 30);
    let failing = |name: &str, payload: Value| {
        let headers = [(":exception-type", name), (":message-type", "exception")];
        let body = [start.clone(), aws::message(&headers, payload.to_string().as_bytes())].concat();
        let seen = read(Family::Invocations, &body);
        assert_eq!(seen.text("content"), "Hel");
        seen.error.unwrap()
    };
    let error = failing("ModelStreamError", json!({"Message": "broke", "ErrorCode": "StreamBroken"}));
    assert_eq!((error.class, error.message.as_str()), (Class::ServiceUnavailable, "broke"));
    assert_eq!(error.details.code.as_deref(), Some("StreamBroken"));
    let error = failing("ModelStreamError", json!({"Message": "slow", "ErrorCode": "ModelInvocationTimeExceeded"}));
    assert_eq!(error.class, Class::Timeout);
    let error = failing("InternalStreamFailure", json!({"Message": "sorry"}));
    assert_eq!(error.class, Class::InternalServer);
    assert_eq!(fails(Family::Invocations, &start).class, Class::Connection);
    let mut broken = parts(&sse(&tokens()), 50);
    broken[20] ^= 1;
    assert_eq!(fails(Family::Invocations, &broken).class, Class::ResponseValidation);
}

// Predictions.

#[test]
fn the_data_of_a_prediction_is_the_text() {
    let body = ": hi\n\nevent: output\nid: 1:0\ndata: Hel\n\nevent: output\ndata: lo\ndata:\ndata:   水 \"\\n\n\n\
                event: output\ndata: {\"a\":1}\n\nevent: done\ndata: {}\n\n:408: 408 Request Timeout\n\n";
    let seen = good(Family::Predictions, body.as_bytes());
    assert_eq!(seen.text("content"), "Hello\n\n  水 \"\\n{\"a\":1}");
    assert_eq!((seen.finish_reasons(), &seen.usage), (vec!["stop"], &None));
    assert_eq!(seen.chunks.last().unwrap()["usage"], Value::Null);
    assert!(seen.ended);
}

#[test]
fn a_prediction_that_fails_is_an_error() {
    let output = "event: output\ndata: a\n\n";
    for (rest, message) in [
        ("event: error\ndata: out of memory\n\n", "out of memory"),
        ("event: error\ndata: {\"detail\":\"out of memory\"}\n\n", "out of memory"),
        ("event: error\ndata: \"out of memory\"\n\n", "out of memory"),
        ("event: done\ndata: {\"reason\": \"canceled\"}\n\n", "canceled"),
    ] {
        let seen = read(Family::Predictions, format!("{output}{rest}").as_bytes());
        let error = seen.error.clone().unwrap();
        assert_eq!((error.class, seen.text("content").as_str()), (Class::InternalServer, "a"));
        assert!(error.message.contains(message), "{error}");
    }
    assert_eq!(fails(Family::Predictions, output.as_bytes()).class, Class::Connection);
}

#[test]
fn a_prediction_is_a_response_once_it_has_succeeded() {
    let with = |status: &str, output: Value, error: Value| {
        json!({"id": "p1", "model": "o/m", "status": status, "output": output, "error": error, "urls": {},
               "created_at": "2025-11-22T10:00:00Z", "metrics": {"input_token_count": 4, "output_token_count": 2,
               "predict_time": 0.5}})
    };
    let response = single(Family::Predictions, &with("succeeded", json!(["Hel", "lo"]), Value::Null));
    assert_eq!(response["choices"][0]["message"]["content"], "Hello");
    assert_eq!(
        (&response["id"], &response["model"], &response["created"]),
        (&json!("p1"), &json!("o/m"), &json!(1_763_805_600))
    );
    assert_eq!(response["usage"]["total_tokens"], 6);
    let response = single(Family::Predictions, &with("succeeded", json!("Hello"), Value::Null));
    assert_eq!(response["choices"][0]["message"]["content"], "Hello");
    let failed =
        |body: Value| single_of(Family::Predictions, options().dialect, body.to_string().as_bytes()).unwrap_err();
    assert_eq!(failed(with("failed", Value::Null, json!("no GPU"))).message, "no GPU");
    assert_eq!(failed(with("canceled", Value::Null, Value::Null)).class, Class::InternalServer);
    assert_eq!(failed(with("processing", Value::Null, Value::Null)).class, Class::ResponseValidation);
}
