//! Converse: every rule of the format, and the recorded responses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod aws;

use penstock_core::decoder::Family;
use penstock_core::error::Class;
use penstock_core::wire::from_response;
use serde_json::{Value, json};

use aws::{Outcome, assert_splits, corpus, decode_body, event, event_text, exception, sha256};

fn decode(body: &[u8]) -> Outcome {
    aws::decode(Family::Converse, body)
}

fn start(index: u32, start: &Value) -> Vec<u8> {
    event("contentBlockStart", &json!({"contentBlockIndex": index, "start": start, "p": "abc"}))
}

fn delta(index: u32, delta: &Value) -> Vec<u8> {
    event("contentBlockDelta", &json!({"contentBlockIndex": index, "delta": delta, "p": "abcdefghij"}))
}

fn text(index: u32, text: &str) -> Vec<u8> {
    delta(index, &json!({"text": text}))
}

fn stop(index: u32) -> Vec<u8> {
    event("contentBlockStop", &json!({"contentBlockIndex": index, "p": "a"}))
}

fn end(reason: &str) -> Vec<u8> {
    event("messageStop", &json!({"stopReason": reason, "p": "ab"}))
}

fn usage(usage: &Value) -> Vec<u8> {
    event("metadata", &json!({"usage": usage, "metrics": {"latencyMs": 753}, "p": "abc"}))
}

fn message(events: &[Vec<u8>]) -> Vec<u8> {
    [&[event("messageStart", &json!({"role": "assistant", "p": "abc"}))], events].concat().concat()
}

/// The one choice of each chunk that has one.
fn choices(outcome: &Outcome) -> Vec<Value> {
    outcome.chunks.iter().filter_map(|chunk| chunk["choices"].get(0).cloned()).collect()
}

#[test]
fn text_comes_with_role_finish_reason_and_usage_each_once() {
    let body = message(&[
        text(0, "Hel"),
        text(0, "lo"),
        stop(0),
        end("end_turn"),
        usage(&json!({"inputTokens": 3, "outputTokens": 2, "totalTokens": 5})),
    ]);
    let outcome = decode(&body);
    assert_eq!(outcome.error, None);
    assert_eq!(
        choices(&outcome),
        [
            json!({"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}),
            json!({"index": 0, "delta": {"content": "Hel"}, "finish_reason": null}),
            json!({"index": 0, "delta": {"content": "lo"}, "finish_reason": null}),
            json!({"index": 0, "delta": {}, "finish_reason": "stop", "provider_finish_reason": "end_turn"}),
        ]
    );
    let last = outcome.chunks.last().unwrap();
    assert_eq!(last["usage"], json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}));
    assert_eq!(last["choices"], json!([]));
    assert!(outcome.chunks.iter().all(|chunk| chunk["id"] == "chatcmpl-1" && chunk["model"] == "asked"));
    let usage = outcome.usage.unwrap();
    assert!(usage.complete);
    assert_eq!(usage.raw, br#"{"inputTokens":3,"outputTokens":2,"totalTokens":5}"#);
    assert_splits(Family::Converse, &body, "text");
}

#[test]
fn a_surrogate_pair_cut_between_deltas_is_joined() {
    let piece = |piece: &str| {
        event_text("contentBlockDelta", &format!(r#"{{"contentBlockIndex":0,"delta":{{"text":"{piece}"}}}}"#))
    };
    let outcome = decode(&message(&[piece("a"), piece(r"\ud83d"), piece(r"\ude31!"), end("end_turn")]));
    assert_eq!(outcome.text("content"), "a\u{1f631}!");
}

#[test]
fn reasoning_streams_and_its_signature_makes_a_block_that_can_be_sent_back() {
    let body = message(&[
        delta(0, &json!({"reasoningContent": {"text": "Let me "}})),
        delta(0, &json!({"reasoningContent": {"text": "think.\n\"So\""}})),
        delta(0, &json!({"reasoningContent": {"signature": "EqQ"}})),
        delta(0, &json!({"reasoningContent": {"signature": "B/=="}})),
        stop(0),
        delta(1, &json!({"reasoningContent": {"redactedContent": "b3BhcXVl"}})),
        stop(1),
        text(2, "Yes"),
        stop(2),
        end("end_turn"),
    ]);
    let outcome = decode(&body);
    assert_eq!(outcome.text("reasoning_content"), "Let me think.\n\"So\"");
    assert_eq!(outcome.text("content"), "Yes");
    assert_eq!(
        outcome.response["choices"][0]["message"],
        json!({
            "role": "assistant",
            "content": "Yes",
            "reasoning_content": "Let me think.\n\"So\"",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Let me think.\n\"So\"", "signature": "EqQB/=="},
                {"type": "redacted_thinking", "data": "b3BhcXVl"},
            ],
        })
    );
    assert_splits(Family::Converse, &body, "reasoning");
}

/// Each signature holds for its own text.
#[test]
fn two_thinking_blocks_stay_two_even_without_stops() {
    let block = |index: u32, text: &str, signature: &str| {
        let piece = |piece: Value| delta(index, &json!({"reasoningContent": piece}));
        [piece(json!({"text": text})), piece(json!({"signature": signature}))]
    };
    let events = [block(0, "one", "S1"), block(1, "two", "S2")].concat();
    let outcome = decode(&message(&[events, vec![end("end_turn")]].concat()));
    assert_eq!(
        outcome.response["choices"][0]["message"]["thinking_blocks"],
        json!([
            {"type": "thinking", "thinking": "one", "signature": "S1"},
            {"type": "thinking", "thinking": "two", "signature": "S2"},
        ])
    );
}

#[test]
fn reasoning_without_a_signature_makes_no_block() {
    let outcome = decode(&message(&[
        delta(0, &json!({"reasoningContent": {"text": "hm"}})),
        stop(0),
        text(1, "x"),
        end("end_turn"),
    ]));
    assert_eq!(outcome.response["choices"][0]["message"].get("thinking_blocks"), None);
    assert_eq!(outcome.response["choices"][0]["message"]["reasoning_content"], "hm");
}

#[test]
fn tool_calls_count_from_0_whatever_block_they_are_in() {
    let body = message(&[
        text(0, "Looking."),
        stop(0),
        start(1, &json!({"toolUse": {"toolUseId": "t1", "name": "weather"}})),
        delta(1, &json!({"toolUse": {"input": ""}})),
        delta(1, &json!({"toolUse": {"input": "{\"city\":"}})),
        delta(1, &json!({"toolUse": {"input": "\"Rome\"}"}})),
        stop(1),
        start(2, &json!({"toolUse": {"toolUseId": "t2", "name": "time", "type": "tool_use"}})),
        delta(2, &json!({"toolUse": {"input": "{\"zone\":\"CET\"}"}})),
        stop(2),
        end("tool_use"),
    ]);
    let outcome = decode(&body);
    assert_eq!(
        outcome.response["choices"][0]["message"]["tool_calls"],
        json!([
            {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
            {"id": "t2", "type": "function", "function": {"name": "time", "arguments": "{\"zone\":\"CET\"}"}},
        ])
    );
    let pieces: Vec<Value> =
        choices(&outcome).into_iter().filter_map(|choice| choice["delta"].get("tool_calls").cloned()).collect();
    assert_eq!(pieces[0], json!([{"index": 0, "id": "t1", "name": "weather", "arguments": ""}]));
    assert_eq!(pieces[1], json!([{"index": 0, "arguments": "{\"city\":"}]));
    assert_eq!(pieces[3], json!([{"index": 1, "id": "t2", "name": "time", "arguments": ""}]));
    assert_eq!(outcome.finish_reasons(), ["tool_calls"]);
    assert_splits(Family::Converse, &body, "tools");
}

#[test]
fn a_tool_without_arguments_gets_an_empty_object() {
    for input in [vec![], vec![delta(0, &json!({"toolUse": {"input": ""}}))]] {
        for stops in [vec![stop(0)], vec![]] {
            let opened = vec![start(0, &json!({"toolUse": {"toolUseId": "t", "name": "now"}}))];
            let outcome = decode(&message(&[opened, input.clone(), stops, vec![end("tool_use")]].concat()));
            let call = &outcome.response["choices"][0]["message"]["tool_calls"][0]["function"];
            assert_eq!(*call, json!({"name": "now", "arguments": "{}"}));
        }
    }
}

#[test]
fn tools_that_the_server_ran_are_kept_but_are_no_calls() {
    let body = message(&[
        start(0, &json!({"toolUse": {"toolUseId": "s", "name": "code_interpreter", "type": "server_tool_use"}})),
        delta(0, &json!({"toolUse": {"input": "{\"snippet\":"}})),
        delta(0, &json!({"toolUse": {"input": "\"1+1\"}"}})),
        stop(0),
        start(1, &json!({"toolResult": {"toolUseId": "s", "type": "code_interpreter_result", "status": "success"}})),
        delta(1, &json!({"toolResult": [{"json": {"stdOut": "2"}}]})),
        delta(1, &json!({"toolResult": [{"text": "done"}]})),
        stop(1),
        text(2, "2"),
        stop(2),
        end("end_turn"),
    ]);
    let outcome = decode(&body);
    assert_eq!(outcome.finish_reasons(), ["stop"]);
    let message = &outcome.response["choices"][0]["message"];
    assert_eq!(message.get("tool_calls"), None);
    assert_eq!(
        message["content_blocks"],
        json!([
            {"toolUse": {
                "toolUseId": "s", "name": "code_interpreter", "type": "server_tool_use", "input": {"snippet": "1+1"},
            }},
            {"toolResult": {
                "toolUseId": "s",
                "type": "code_interpreter_result",
                "status": "success",
                "content": [{"json": {"stdOut": "2"}}, {"text": "done"}],
            }},
        ])
    );
    assert_splits(Family::Converse, &body, "server tools");
}

#[test]
fn images_and_unknown_blocks_are_kept() {
    let outcome = decode(&message(&[
        start(0, &json!({"image": {"format": "png"}})),
        delta(0, &json!({"image": {"source": {"bytes": "iVBO"}}})),
        stop(0),
        delta(1, &json!({"hologram": {"depth": 3}})),
        stop(1),
        start(2, &json!({})),
        text(2, "there"),
        stop(2),
        end("end_turn"),
    ]));
    assert_eq!(
        outcome.response["choices"][0]["message"]["content_blocks"],
        json!([{"image": {"format": "png", "source": {"bytes": "iVBO"}}}, {"hologram": {"depth": 3}}])
    );
    assert_eq!(outcome.text("content"), "there");
}

#[test]
fn citations_are_kept_and_those_of_the_web_are_annotations() {
    let web = json!({"title": "T", "sourceContent": [{"text": "s"}], "location": {"web": {"url": "https://e.org/"}}});
    let page = json!({"title": "D", "location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}});
    let body = message(&[
        text(0, "As said"),
        delta(0, &json!({"citation": web})),
        delta(0, &json!({"citation": page})),
        stop(0),
        end("end_turn"),
    ]);
    let message = &decode(&body).response["choices"][0]["message"];
    let annotation = json!([{"type": "url_citation", "url_citation": {"url": "https://e.org/", "title": "T"}}]);
    assert_eq!(message["annotations"], annotation);
    assert_eq!(message["citations"], json!([web, page]));
    assert_splits(Family::Converse, &body, "citations");

    let single = json!({
        "output": {"message": {"role": "assistant", "content": [
            {"text": "As "},
            {"citationsContent": {"content": [{"text": "said"}], "citations": [web, page]}},
            {"text": "."},
        ]}},
        "stopReason": "end_turn",
    });
    let (response, _) = decode_body(Family::Converse, single.to_string().as_bytes()).unwrap();
    let message = &response["choices"][0]["message"];
    assert_eq!(message["content"], "As said.");
    assert_eq!((&message["annotations"], &message["citations"]), (&annotation, &json!([web, page])));
}

#[test]
fn every_stop_reason_has_a_finish_reason_and_is_kept() {
    for (reason, expected) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
        ("malformed_tool_use", "stop"),
        ("something_new", "stop"),
    ] {
        let outcome = decode(&message(&[text(0, "x"), end(reason)]));
        assert_eq!(outcome.finish_reasons(), [expected]);
        assert_eq!(outcome.response["choices"][0]["provider_finish_reason"], reason);
    }
}

#[test]
fn the_prompt_is_the_input_and_what_was_read_from_and_written_to_the_cache() {
    let reported = json!({
        "inputTokens": 10, "outputTokens": 4, "totalTokens": 7374,
        "cacheReadInputTokens": 9, "cacheReadInputTokenCount": 9,
        "cacheWriteInputTokens": 7351, "cacheWriteInputTokenCount": 7351,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 7351}],
    });
    let outcome = decode(&message(&[text(0, "x"), end("end_turn"), usage(&reported)]));
    assert_eq!(
        outcome.usage_json(),
        json!({
            "prompt_tokens": 7370, "completion_tokens": 4, "total_tokens": 7374,
            "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 7351},
            "cacheDetails": [{"ttl": "5m", "inputTokens": 7351}],
        })
    );
}

#[test]
fn usage_counts_even_before_the_end_of_the_message() {
    let counts = json!({"inputTokens": 1, "outputTokens": 2, "totalTokens": 3});
    let outcome = decode(&message(&[text(0, "x"), usage(&counts), stop(0), end("end_turn")]));
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.chunks.last().unwrap()["usage"]["total_tokens"], 3);
}

#[test]
fn without_metadata_no_usage_is_invented() {
    let outcome = decode(&message(&[text(0, "x"), stop(0), end("end_turn")]));
    assert_eq!((outcome.error, outcome.usage), (None, None));
    assert_eq!(outcome.chunks.last().unwrap()["usage"], Value::Null);
}

#[test]
fn guardrail_traces_and_the_tier_are_kept_and_metrics_make_no_chunk() {
    let metadata = |more: Value| {
        let mut metadata = json!({"usage": {"inputTokens": 1, "outputTokens": 2}, "metrics": {"latencyMs": 1}});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message(&[text(0, "x"), end("guardrail_intervened"), event("metadata", &metadata)])
    };
    let trace = json!({"guardrail": {"actionReason": "masked"}});
    let outcome = decode(&metadata(json!({"trace": trace, "serviceTier": {"type": "priority"}})));
    let chunk = &outcome.chunks[3];
    assert_eq!((&chunk["trace"], &chunk["service_tier"]), (&trace, &json!("priority")));
    assert_eq!(chunk["choices"][0]["delta"], json!({}));
    assert_eq!((&outcome.response["trace"], &outcome.response["service_tier"]), (&trace, &json!("priority")));
    assert_eq!(decode(&metadata(json!({"trace": {}}))).chunks.len(), 4);
}

#[test]
fn additional_fields_of_the_model_are_kept() {
    let stop = event(
        "messageStop",
        &json!({"stopReason": "stop_sequence", "additionalModelResponseFields": {"stop_sequence": "END"}}),
    );
    let outcome = decode(&message(&[text(0, "x"), stop]));
    assert_eq!(outcome.response["choices"][0]["additionalModelResponseFields"], json!({"stop_sequence": "END"}));
}

#[test]
fn unknown_events_and_fields_do_no_harm() {
    let mut body = message(&[
        event("contentBlockPause", &json!({"until": "later"})),
        event_text("somethingElse", "not even JSON"),
        event("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"text": null}, "new": [1]})),
        event("contentBlockDelta", &json!({"contentBlockIndex": "x", "delta": {"reasoningContent": {"depth": 1}}})),
        event("contentBlockStart", &json!({"contentBlockIndex": 0, "start": {"toolUse": null}})),
        text(0, "fine"),
        end("end_turn"),
    ]);
    body.extend(aws::message(&[], b""));
    let outcome = decode(&body);
    assert_eq!((outcome.error.clone(), outcome.text("content")), (None, "fine".into()));
}

#[test]
fn a_payload_that_is_not_json_is_a_validation_error_after_what_came_before() {
    let outcome = decode(&message(&[text(0, "x"), event_text("contentBlockDelta", "{\"delta\":{\"text\":")]));
    assert_eq!(outcome.text("content"), "x");
    assert_eq!(outcome.error.unwrap().class, Class::ResponseValidation);
}

#[test]
fn exceptions_in_the_stream_raise_what_their_status_would() {
    for (name, message, class, status) in [
        ("throttlingException", "Too many requests", Class::RateLimit, 429),
        ("internalServerException", "oops", Class::InternalServer, 500),
        ("serviceUnavailableException", "later", Class::ServiceUnavailable, 503),
        ("modelStreamErrorException", "the model broke", Class::ServiceUnavailable, 424),
        ("modelTimeoutException", "too slow", Class::Timeout, 408),
        ("validationException", "bad field", Class::BadRequest, 400),
        ("validationException", "Input is too long for requested model", Class::ContextWindowExceeded, 400),
        ("validationException", "prompt: exceeds maximum length", Class::ContextWindowExceeded, 400),
        ("ThrottlingException", "capital", Class::RateLimit, 429),
    ] {
        let body = self::message(&[text(0, "so far"), exception(name, &json!({"message": message}))]);
        let outcome = decode(&body);
        assert_eq!(outcome.text("content"), "so far");
        let error = outcome.error.unwrap();
        assert_eq!(
            (error.class, error.message.as_str(), error.details.status),
            (class, message, Some(status)),
            "{name}"
        );
        assert_eq!(error.details.kind.as_deref(), Some(name));
        assert_splits(Family::Converse, &body, name);
    }
    let unmodelled = [(":message-type", "error"), (":error-code", "InternalFailure"), (":error-message", "it broke")];
    let error = decode(&message(&[aws::message(&unmodelled, b"")])).error.unwrap();
    assert_eq!((error.class, error.message.as_str()), (Class::InternalServer, "it broke"));
}

#[test]
fn an_exception_may_come_first() {
    let outcome = decode(&exception("throttlingException", &json!({"message": "Too many requests"})));
    assert!(outcome.chunks.is_empty());
    assert_eq!(outcome.error.unwrap().class, Class::RateLimit);
}

#[test]
fn a_stream_without_its_stop_was_cut() {
    let body = message(&[text(0, "one"), text(0, "two"), stop(0), end("end_turn")]);
    let whole = body.len() - end("end_turn").len();
    for at in 0..body.len() {
        let outcome = decode(&body[..at]);
        assert_eq!(outcome.error.unwrap().class, Class::Connection, "cut at {at}");
        if at >= whole {
            assert_eq!(outcome.response["choices"][0]["message"]["content"], "onetwo");
        }
    }
}

#[test]
fn a_damaged_byte_ends_the_stream_where_it_stands() {
    let mut body = message(&[text(0, "good"), text(0, "bad"), stop(0), end("end_turn")]);
    let at = body.windows(3).position(|bytes| bytes == b"bad").unwrap();
    body[at] = b'B';
    let outcome = decode(&body);
    assert_eq!(outcome.text("content"), "good");
    let error = outcome.error.unwrap();
    assert_eq!(error.class, Class::ResponseValidation);
    assert!(error.message.starts_with("the message CRC of the event-stream message"), "{}", error.message);
}

#[test]
fn http_errors_go_by_the_name_in_the_header() {
    for (status, name, message, class) in [
        (
            400,
            "ValidationException:http://internal.amazon.com/",
            "The provided model identifier is invalid.",
            Class::NotFound,
        ),
        (400, "ValidationException", "Input Tokens Exceeded: the limit is 1", Class::ContextWindowExceeded),
        (400, "ValidationException", "Malformed input request: expected maxLength: 5", Class::ContextWindowExceeded),
        (400, "ValidationException", "temperature is wrong", Class::BadRequest),
        (403, "AccessDeniedException", "no access", Class::PermissionDenied),
        (
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            Class::Authentication,
        ),
        (403, "ExpiredTokenException", "expired", Class::Authentication),
        (404, "ResourceNotFoundException", "gone", Class::NotFound),
        (408, "ModelTimeoutException", "slow", Class::Timeout),
        (400, "ServiceQuotaExceededException", "quota", Class::RateLimit),
        (429, "ThrottlingException", "slow down", Class::RateLimit),
        (429, "ModelNotReadyException", "not yet", Class::ServiceUnavailable),
        (424, "ModelErrorException", "failed", Class::ServiceUnavailable),
        (500, "InternalServerException", "oops", Class::InternalServer),
        (503, "ServiceUnavailableException", "later", Class::ServiceUnavailable),
        (418, "BrandNewException", "tea", Class::BadRequest),
    ] {
        let headers = [("x-amzn-ErrorType", name), ("x-amzn-requestid", "r1")];
        let body = json!({"message": message}).to_string();
        let error = from_response(status, &headers, body.as_bytes(), 0.0);
        assert_eq!(
            (error.class, error.message.as_str(), error.details.status),
            (class, message, Some(status)),
            "{name}"
        );
        assert_eq!(error.details.request_id.as_deref(), Some("r1"));
    }
}

#[test]
fn a_single_body_says_what_a_stream_would() {
    let body = json!({
        "output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "S"}}},
            {"reasoningContent": {"redactedContent": "b3A="}},
            {"text": "Hel"}, {"text": "lo"},
            {"toolUse": {"toolUseId": "s", "name": "code", "type": "server_tool_use", "input": {"a": 1}}},
            {"toolResult": {"toolUseId": "s", "content": [{"text": "r"}]}},
            {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"x": 1.50}}},
            {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
            {"cachePoint": {"type": "default"}},
            "stray",
        ]}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "serverToolUsage": {}},
        "metrics": {"latencyMs": 5},
        "trace": {"guardrail": {}},
        "serviceTier": {"type": "flex"},
    });
    let (response, usage) = decode_body(Family::Converse, body.to_string().as_bytes()).unwrap();
    assert_eq!(
        response,
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "asked",
            "choices": [{
                "index": 0,
                "message": {
                    "role": "assistant", "content": "Hello", "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1.5}"}},
                        {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                    "thinking_blocks": [
                        {"type": "thinking", "thinking": "hm", "signature": "S"},
                        {"type": "redacted_thinking", "data": "b3A="},
                    ],
                    "content_blocks": [
                        {"toolUse": {"toolUseId": "s", "name": "code", "type": "server_tool_use", "input": {"a": 1}}},
                        {"toolResult": {"toolUseId": "s", "content": [{"text": "r"}]}},
                        {"cachePoint": {"type": "default"}},
                    ],
                },
                "finish_reason": "tool_calls",
                "provider_finish_reason": "tool_use",
            }],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "serverToolUsage": {}},
            "service_tier": "flex",
            "metrics": {"latencyMs": 5},
            "trace": {"guardrail": {}},
        })
    );
    assert!(usage.unwrap().complete);
}

#[test]
fn a_single_body_that_is_no_response_is_an_error() {
    let error = |body: &str| decode_body(Family::Converse, body.as_bytes()).unwrap_err();
    let invalid = error(r#"{"message":"The provided model identifier is invalid."}"#);
    assert_eq!(
        (invalid.class, invalid.message.as_str()),
        (Class::NotFound, "The provided model identifier is invalid.")
    );
    assert_eq!(error("{}").class, Class::ResponseValidation);
    assert_eq!(error("<html>").class, Class::ResponseValidation);
}

/// The usage that `usage_raw` stands for, by the table: small and on its own.
fn expected_usage(raw: &Value) -> Value {
    let count = |name: &str| raw[name].as_u64();
    let cached = count("cacheReadInputTokens").or(count("cacheReadInputTokenCount"));
    let written = count("cacheWriteInputTokens").or(count("cacheWriteInputTokenCount"));
    let prompt = count("inputTokens").unwrap() + cached.unwrap_or(0) + written.unwrap_or(0);
    let completion = count("outputTokens").unwrap();
    assert_eq!(count("totalTokens"), Some(prompt + completion));
    json!([prompt, completion, cached, written])
}

/// The index gives the last usage object, which may be a guardrail's: the one to bill counts tokens.
fn reported_usage(line: &Value, body: &[u8]) -> Value {
    let given = [&line["usage_raw"], &line["usage_first"]].into_iter().find(|usage| usage["inputTokens"].is_u64());
    let key = br#""usage":"#;
    let places = body.windows(key.len()).enumerate().filter(|(_, bytes)| bytes == key).map(|(at, _)| at + key.len());
    let mut found = places.filter_map(|at| {
        let usage = serde_json::Deserializer::from_slice(&body[at..]).into_iter::<Value>().next()?.ok()?;
        usage["inputTokens"].is_u64().then_some(usage)
    });
    expected_usage(&given.cloned().or_else(|| found.next()).unwrap())
}

fn seen_usage(usage: &Value) -> Value {
    let details = &usage["prompt_tokens_details"];
    assert_eq!(
        usage["total_tokens"],
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    json!([usage["prompt_tokens"], usage["completion_tokens"], details["cached_tokens"], details["cache_write_tokens"]])
}

#[test]
fn the_recorded_responses_are_read() {
    for (line, mut body) in corpus("bedrock-converse") {
        let name = line["file"].as_str().unwrap();
        if line["form"] == "chunks" {
            // Decoded events: the frame's name is the one key of each.
            let lines = String::from_utf8(body).unwrap();
            let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            body = events
                .flat_map(|wrapped| {
                    let (name, payload) = wrapped.as_object().unwrap().iter().next().unwrap();
                    event(name, payload)
                })
                .collect();
        }
        if line["streaming"] == true {
            let outcome = decode(&body);
            assert_eq!(outcome.error, None, "{name}");
            assert_eq!(sha256(&outcome.text("content")), line["text_sha256"], "{name}");
            assert_eq!(
                outcome.response["choices"][0]["message"]["content"].as_str().unwrap_or_default(),
                outcome.text("content")
            );
            assert_eq!(outcome.finish_reasons().len(), 1, "{name}");
            assert_eq!(seen_usage(&outcome.usage_json()), reported_usage(&line, &body), "{name}");
            assert!(outcome.usage.as_ref().unwrap().complete);
            let carrying = outcome.chunks.iter().filter(|chunk| chunk["usage"] != Value::Null).count();
            assert_eq!((carrying, &outcome.chunks.last().unwrap()["choices"]), (1, &json!([])), "{name}");
            assert_splits(Family::Converse, &body, name);
            oddities(name, &outcome);
        } else if line["status"] == 200 {
            let (response, usage) = decode_body(Family::Converse, &body).unwrap();
            let text = response["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            assert_eq!(text, written_text(&body), "{name}");
            if !body.windows(16).any(|bytes| bytes == b"citationsContent") {
                assert_eq!(sha256(text), line["text_sha256"], "{name}");
            }
            assert_eq!(seen_usage(&aws::usage_of(&usage.unwrap())), reported_usage(&line, &body), "{name}");
        } else {
            let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
            let error = from_response(status, &[], &body, 0.0);
            assert!(!error.message.is_empty(), "{name}");
            assert_eq!(error.class, if status == 403 { Class::Authentication } else { Class::NotFound }, "{name}");
        }
    }
}

/// The text of a single body. The index leaves out text that citations are for, though a reader of the answer does not.
fn written_text(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let blocks = body["output"]["message"]["content"].as_array().unwrap();
    let cited = |block: &Value| block["citationsContent"]["content"].as_array().cloned().unwrap_or_default();
    let pieces = blocks.iter().flat_map(|block| [vec![block.clone()], cited(block)].concat());
    pieces.filter_map(|piece| piece["text"].as_str().map(str::to_owned)).collect()
}

/// What the corpus is known for.
fn oddities(name: &str, outcome: &Outcome) {
    if name.ends_with("guardrail-converse-stream.eventstream") {
        // The guardrail's own usage stands beside the tokens: kept, not counted.
        assert_eq!(outcome.finish_reasons(), ["content_filter"]);
        assert!(outcome.response["trace"]["guardrail"].is_object());
    }
    if name.ends_with("prompt-caching.0.eventstream") {
        // 11 + 1028 + 236: input and output leave the cache out.
        assert_eq!(outcome.usage_json()["total_tokens"], 1275);
    }
}
