//! The Messages API: one test a rule, and the recorded bodies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{
    Seen, assert_any_cut_is_the_same, decode_pieces_of, options, recordings_of, same, single_of, sse, usage_json,
    with_usage,
};
use penstock_core::decoder::{Dialect, Family, Options, decode_response};
use penstock_core::error::{Class, Error};
use penstock_core::usage::{Account, Combine, Counts, Reasoning, Usage, count_of};
use serde_json::{Value, json};

const FAMILY: Family = Family::Anthropic;

fn decode_bytes(body: &[u8]) -> Seen {
    decode_pieces_of(FAMILY, options(), [body])
}

fn decode(events: &[Value]) -> Seen {
    decode_bytes(&sse(events))
}

/// Decodes a stream that must be a good one.
fn good(events: &[Value]) -> Seen {
    good_bytes(&sse(events))
}

fn good_bytes(body: &[u8]) -> Seen {
    let seen = decode_bytes(body);
    assert_eq!(seen.error, None);
    seen
}

fn single(body: &[u8]) -> Result<(Value, Option<Usage>), Error> {
    single_of(FAMILY, Dialect::default(), body)
}

fn start() -> Value {
    start_with(&json!({"input_tokens": 10, "output_tokens": 3}))
}

fn start_with(usage: &Value) -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
           "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage}})
}

fn block(index: u32, block: &Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: u32, delta: &Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn text(piece: &str) -> Value {
    delta(0, &json!({"type": "text_delta", "text": piece}))
}

fn stop(index: u32) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn end(reason: &str, usage: &Value) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ]
}

/// A stream of these events between its usual start and end.
fn around(events: &[Value]) -> Vec<Value> {
    let mut all = vec![start()];
    all.extend_from_slice(events);
    all.extend(end("end_turn", &json!({"output_tokens": 5})));
    all
}

/// The values of an extra field of the deltas.
fn extras(seen: &Seen, name: &str) -> Vec<Value> {
    let deltas = seen.chunks.iter().map(|chunk| chunk["choices"][0]["delta"][name].clone());
    deltas.filter(|value| !value.is_null()).collect()
}

#[test]
fn text_deltas_are_content() {
    let seen = good(&around(&[
        block(0, &json!({"type": "text", "text": ""})),
        json!({"type": "ping"}),
        text("Hello"),
        text(", "),
        text("world"),
        stop(0),
    ]));
    assert_eq!(seen.texts("content"), ["Hello", ", ", "world"]);
    assert_eq!(seen.chunks.len(), 5, "role, three pieces, finish: {:#?}", seen.chunks);
    assert_eq!(seen.chunks[0]["id"], "msg_1");
    assert_eq!(seen.chunks[0]["model"], "m");
    assert_eq!(seen.delta(0)["role"], "assistant");
    assert_eq!(seen.finish_reasons(), ["stop"]);
    assert_eq!(seen.message()["content"], "Hello, world");
    assert!(seen.ended);
}

#[test]
fn padding_before_the_last_brace_is_nothing() {
    let body = sse(&around(&[text("a"), text("b")]));
    let padded = String::from_utf8(body).unwrap().replace("}\n\n", "          }\n\n");
    assert_eq!(good_bytes(padded.as_bytes()).text("content"), "ab");
}

#[test]
fn a_block_may_begin_with_text() {
    let seen = good(&around(&[block(0, &json!({"type": "text", "text": "Hel"})), text("lo"), stop(0)]));
    assert_eq!(seen.text("content"), "Hello");
}

#[test]
fn thinking_is_reasoning_and_its_signature_survives() {
    let seen = good(&around(&[
        block(0, &json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, &json!({"type": "thinking_delta", "thinking": "Let me "})),
        delta(0, &json!({"type": "thinking_delta", "thinking": "see."})),
        delta(0, &json!({"type": "signature_delta", "signature": "first"})),
        delta(0, &json!({"type": "signature_delta", "signature": "sig"})),
        stop(0),
        block(1, &json!({"type": "text", "text": ""})),
        delta(1, &json!({"type": "text_delta", "text": "Hi"})),
        stop(1),
    ]));
    assert_eq!(seen.texts("reasoning_content"), ["Let me ", "see."]);
    assert_eq!(extras(&seen, "thinking_blocks"), [json!([{"type": "thinking", "signature": "sig"}])]);
    assert_eq!(
        seen.message()["thinking_blocks"],
        json!([{"type": "thinking", "signature": "sig", "thinking": "Let me see."}])
    );
    assert_eq!(seen.message()["reasoning_content"], "Let me see.");
    assert_eq!(seen.message()["content"], "Hi");
}

#[test]
fn each_thinking_block_keeps_its_own_text() {
    let thinking = |index, text: &str, signature: &str| {
        [
            block(index, &json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(index, &json!({"type": "thinking_delta", "thinking": text})),
            delta(index, &json!({"type": "signature_delta", "signature": signature})),
            stop(index),
        ]
    };
    let redacted = [block(1, &json!({"type": "redacted_thinking", "data": "ENC"})), stop(1)];
    let events = [thinking(0, "one", "s1").to_vec(), redacted.to_vec(), thinking(2, "two", "s2").to_vec()].concat();
    let seen = good(&around(&events));
    assert_eq!(
        seen.message()["thinking_blocks"],
        json!([
            {"type": "thinking", "signature": "s1", "thinking": "one"},
            {"type": "redacted_thinking", "data": "ENC"},
            {"type": "thinking", "signature": "s2", "thinking": "two"},
        ])
    );
}

#[test]
fn a_signature_without_thinking_is_kept() {
    let seen = good(&around(&[
        block(0, &json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, &json!({"type": "signature_delta", "signature": "sig"})),
        stop(0),
    ]));
    assert_eq!(seen.message()["thinking_blocks"], json!([{"type": "thinking", "signature": "sig", "thinking": ""}]));
}

#[test]
fn tool_calls_are_counted_by_themselves() {
    let seen = good(&around(&[
        block(0, &json!({"type": "text", "text": ""})),
        text("Let me look."),
        stop(0),
        block(1, &json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}, "caller": {"type": "direct"}})),
        delta(1, &json!({"type": "input_json_delta", "partial_json": ""})),
        delta(1, &json!({"type": "input_json_delta", "partial_json": "{\"a\""})),
        delta(1, &json!({"type": "input_json_delta", "partial_json": ":1}"})),
        stop(1),
        block(2, &json!({"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}})),
        delta(2, &json!({"type": "input_json_delta", "partial_json": "{\"b\":2}"})),
        stop(2),
    ]));
    assert_eq!(
        seen.calls(),
        [
            &json!({"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""},
                    "caller": {"type": "direct"}}),
            &json!({"index": 0, "function": {"arguments": "{\"a\""}}),
            &json!({"index": 0, "function": {"arguments": ":1}"}}),
            &json!({"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": ""}}),
            &json!({"index": 1, "function": {"arguments": "{\"b\":2}"}}),
        ]
    );
    assert_eq!(seen.finish_reasons(), ["tool_calls"], "calls were made, whatever the reason given");
    assert_eq!(seen.message()["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{\"a\":1}"}));
}

#[test]
fn a_call_without_arguments_has_empty_ones() {
    for deltas in [vec![], vec![delta(0, &json!({"type": "input_json_delta", "partial_json": ""}))]] {
        let begin = block(0, &json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}));
        let seen = good(&around(&[vec![begin], deltas, vec![stop(0)]].concat()));
        assert_eq!(seen.message()["tool_calls"][0]["function"]["arguments"], "{}");
    }
}

#[test]
fn a_call_may_begin_with_its_arguments() {
    let begin = block(0, &json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}));
    let seen = good(&around(&[begin.clone(), stop(0)]));
    assert_eq!(seen.message()["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
    // What is streamed counts more; a block that is never ended ends with the message.
    let seen = good(&around(&[begin, delta(0, &json!({"type": "input_json_delta", "partial_json": "{\"a\":2}"}))]));
    assert_eq!(seen.message()["tool_calls"][0]["function"]["arguments"], "{\"a\":2}");
}

#[test]
fn tools_of_the_server_are_no_calls() {
    let result = json!({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1",
                        "content": [{"type": "web_search_result", "url": "https://example.com"}]});
    let seen = good(&around(&[
        block(0, &json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}})),
        delta(0, &json!({"type": "input_json_delta", "partial_json": "{\"query\""})),
        delta(0, &json!({"type": "input_json_delta", "partial_json": ":\"q\"}"})),
        stop(0),
        block(1, &result),
        stop(1),
        block(2, &json!({"type": "text", "text": ""})),
        delta(2, &json!({"type": "text_delta", "text": "Found."})),
        stop(2),
    ]));
    assert_eq!(seen.calls(), Vec::<&Value>::new());
    assert_eq!(seen.finish_reasons(), ["stop"]);
    let call = json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}});
    assert_eq!(seen.message()["content_blocks"], json!([call, result]));
    assert_eq!(seen.message()["content"], "Found.");
}

#[test]
fn a_compaction_is_kept() {
    let seen = good(&around(&[
        block(0, &json!({"type": "compaction", "content": null})),
        delta(0, &json!({"type": "compaction_delta", "content": "So far"})),
        stop(0),
    ]));
    assert_eq!(seen.message()["content_blocks"], json!([{"type": "compaction", "content": "So far"}]));
    assert_eq!(seen.message()["content"], Value::Null);
}

#[test]
fn deltas_of_an_unknown_block_are_not_text() {
    let seen = good(&around(&[
        block(0, &json!({"type": "hologram", "shape": "cube"})),
        delta(0, &json!({"type": "text_delta", "text": "not for reading"})),
        delta(0, &json!({"type": "hologram_delta", "side": 6})),
        stop(0),
        delta(1, &json!({"type": "text_delta", "text": "Hi"})),
        json!({"type": "message_thought_about", "index": 0}),
    ]));
    assert_eq!(seen.text("content"), "Hi");
    assert_eq!(seen.message()["content_blocks"], json!([{"type": "hologram", "shape": "cube"}]));
}

#[test]
fn citations_are_annotations() {
    let web = json!({"type": "web_search_result_location", "url": "https://example.com", "title": "Example",
                     "encrypted_index": "E", "cited_text": "text"});
    let document = json!({"type": "char_location", "cited_text": "text", "document_index": 0, "document_title": null,
                          "start_char_index": 0, "end_char_index": 4});
    let seen = good(&around(&[
        block(0, &json!({"type": "text", "text": "", "citations": []})),
        delta(0, &json!({"type": "citations_delta", "citation": web})),
        delta(0, &json!({"type": "citations_delta", "citation": document})),
        text("text"),
        stop(0),
    ]));
    let mapped = json!({"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "Example",
                        "encrypted_index": "E", "cited_text": "text"}});
    assert_eq!(seen.message()["annotations"], json!([mapped, document]));
}

#[test]
fn finish_reasons() {
    for (given, expected) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("compaction", "stop"),
        ("enlightenment", "stop"),
    ] {
        let seen = good(&[&[start(), text("x")], end(given, &json!({})).as_slice()].concat());
        assert_eq!(seen.finish_reasons(), [expected], "{given}");
        let choice = &seen.chunks.last().unwrap()["choices"][0];
        assert_eq!(choice["provider_finish_reason"], given);
        assert_eq!(seen.response.unwrap()["choices"][0]["provider_finish_reason"], given);
    }
}

#[test]
fn what_stopped_it_is_kept() {
    let details = json!({"type": "refusal", "category": "cyber", "explanation": "no"});
    let seen = good(&[
        start(),
        json!({"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_sequence": "END",
               "stop_details": details, "container": {"id": "c"}}, "usage": {"output_tokens": 1},
               "context_management": {"applied_edits": [1]}}),
        json!({"type": "message_stop"}),
    ]);
    let last = seen.chunks.last().unwrap();
    assert_eq!(last["choices"][0]["stop_sequence"], "END");
    assert_eq!(last["choices"][0]["stop_details"], details);
    assert_eq!(last["container"], json!({"id": "c"}));
    assert_eq!(last["context_management"], json!({"applied_edits": [1]}));
}

#[test]
fn the_delta_overwrites_the_start_field_by_field() {
    let seen = good(
        &[
            &[start_with(&json!({"input_tokens": 2068, "cache_read_input_tokens": 100,
                                 "cache_creation_input_tokens": 7, "output_tokens": 88, "service_tier": "standard"}))],
            end(
                "end_turn",
                &json!({"input_tokens": 22397, "cache_read_input_tokens": 0,
                                    "cache_creation_input_tokens": null, "output_tokens": 40,
                                    "output_tokens_details": {"thinking_tokens": 30},
                                    "server_tool_use": {"web_search_requests": 1}}),
            )
            .as_slice(),
        ]
        .concat(),
    );
    assert_eq!(
        seen.usage(),
        json!({"prompt_tokens": 22404, "completion_tokens": 40, "total_tokens": 22444,
               "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 7},
               "completion_tokens_details": {"reasoning_tokens": 30, "thinking_tokens": 30},
               "cache_read_input_tokens": 0, "cache_creation_input_tokens": 7, "service_tier": "standard",
               "server_tool_use": {"web_search_requests": 1}})
    );
    let usage = seen.usage.unwrap();
    assert!(usage.complete);
    let raw: Value = serde_json::from_slice(&usage.raw).unwrap();
    assert_eq!(raw["output_tokens"], 40, "the last object, as it is");
    assert_eq!(raw.get("service_tier"), None);
}

#[test]
fn without_the_detail_the_share_of_thinking_is_unknown() {
    let seen = good(&around(&[delta(0, &json!({"type": "thinking_delta", "thinking": "..."}))]));
    assert_eq!(seen.usage(), json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}));
}

#[test]
fn a_stale_split_of_the_cache_is_dropped() {
    let split = json!({"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 474});
    let begin = start_with(&json!({"input_tokens": 1, "cache_creation_input_tokens": 2474, "cache_creation": split,
                                   "output_tokens": 1}));
    let with = |written: u32| {
        let usage = json!({"cache_creation_input_tokens": written, "output_tokens": 1});
        good(&[std::slice::from_ref(&begin), end("end_turn", &usage).as_slice()].concat()).usage()
    };
    assert_eq!(with(2474)["cache_creation"], split);
    assert_eq!(with(24164).get("cache_creation"), None);
    assert_eq!(with(24164)["prompt_tokens"], 24165);
}

#[test]
fn a_compaction_is_paid_for_and_an_advisor_is_not() {
    let step = |kind: &str, input: u32, output: u32, read: u32| {
        json!({"type": kind, "input_tokens": input, "output_tokens": output, "cache_read_input_tokens": read,
               "cache_creation_input_tokens": 0})
    };
    let iterations =
        json!([step("compaction", 100, 83, 55096), step("message", 181, 8, 0), step("advisor_message", 9, 9, 9)]);
    let seen = good(
        &[
            &[start_with(&json!({"input_tokens": 100, "cache_read_input_tokens": 55096, "output_tokens": 7}))],
            end(
                "end_turn",
                &json!({"input_tokens": 181, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
                                    "output_tokens": 8, "iterations": iterations}),
            )
            .as_slice(),
        ]
        .concat(),
    );
    let usage = seen.usage();
    assert_eq!(usage["prompt_tokens"], 100 + 181 + 55096);
    assert_eq!(usage["completion_tokens"], 91);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 55096);
    assert_eq!(usage["iterations"], iterations);
}

#[test]
fn zeros_do_not_replace_counts() {
    let zeros = json!({"input_tokens": 0, "output_tokens": 0});
    let seen = good(&[&[start()], end("end_turn", &zeros).as_slice()].concat());
    assert_eq!(seen.usage.as_ref().unwrap().counts.prompt, Some(10));
    assert!(seen.usage.unwrap().complete);
}

#[test]
fn the_larger_number_stays_where_that_is_the_rule() {
    let mut account = Account::new(Reasoning::Inside);
    let read = |report: &mut penstock_core::json::Value<'_>| Counts {
        prompt: count_of(report, "in"),
        completion: count_of(report, "out"),
        ..Counts::default()
    };
    for raw in ["{\"in\":9,\"out\":1}", "{\"in\":0,\"out\":4}", "{\"out\":3}", "null", "{}"] {
        account.combine(Combine::Max, raw.as_bytes(), false, read).unwrap();
    }
    let counts = &account.usage().unwrap().counts;
    assert_eq!((counts.prompt, counts.completion), (Some(9), Some(4)));
}

#[test]
fn the_usage_comes_last() {
    let body = sse(&around(&[text("a")]));
    let seen = decode_pieces_of(FAMILY, with_usage(), [body.as_slice()]);
    let last = seen.chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["total_tokens"], 15);
    assert!(seen.chunks[..seen.chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null()));
}

#[test]
fn cut_short_the_output_is_unknown() {
    let seen = decode(&[start(), text("Hello")]);
    let error = seen.error.clone().unwrap();
    assert_eq!(error.class, Class::Connection);
    let usage = seen.usage.as_ref().unwrap();
    assert_eq!((usage.counts.prompt, usage.counts.completion, usage.complete), (Some(10), None, false));
    assert_eq!(seen.finish_reasons(), Vec::<&str>::new());
    assert_eq!(seen.message()["content"], "Hello");
    // A finish reason is enough.
    let [finish, _] = end("end_turn", &json!({"output_tokens": 5}));
    assert_eq!(decode(&[start(), text("Hello"), finish]).error, None);
}

#[test]
fn a_message_may_be_whole_in_its_start() {
    let seen = good(&[
        json!({"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "model": "m", "stop_reason":
               "tool_use", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}],
               "usage": {"input_tokens": 4, "output_tokens": 2}}}),
        json!({"type": "message_stop"}),
    ]);
    assert_eq!(seen.message()["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{\"a\":1}"}));
    assert_eq!(seen.finish_reasons(), ["tool_calls"]);
    assert_eq!(seen.usage()["total_tokens"], 6);
}

#[test]
fn a_second_message_start() {
    assert_eq!(good(&around(&[start(), text("a")])).text("content"), "a");
    let mut other = start();
    other["message"]["id"] = json!("msg_2");
    let seen = decode(&around(&[text("a"), other, text("b")]));
    assert_eq!(seen.text("content"), "a");
    assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
}

#[test]
fn an_event_without_a_type_is_not_a_start() {
    let body = [sse(&[start(), text("a")]), b"data: {\"id\":\"x\",\"model\":\"other\"}\n\n".to_vec()].concat();
    let body = [body, sse(&end("end_turn", &json!({"output_tokens": 1})))].concat();
    let seen = good_bytes(&body);
    assert_eq!(seen.text("content"), "a");
    assert!(seen.chunks.iter().all(|chunk| chunk["model"] == "m"));
}

#[test]
fn errors_go_by_their_type() {
    for (kind, class) in [
        ("overloaded_error", Class::ServiceUnavailable),
        ("rate_limit_error", Class::RateLimit),
        ("api_error", Class::InternalServer),
        ("authentication_error", Class::Authentication),
        ("permission_error", Class::PermissionDenied),
        ("billing_error", Class::PaymentRequired),
        ("not_found_error", Class::NotFound),
        ("timeout_error", Class::Timeout),
        ("conflict_error", Class::Conflict),
        ("request_too_large", Class::BadRequest),
        ("invalid_request_error", Class::BadRequest),
    ] {
        let event = json!({"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"});
        // The first event of a 200, and after text.
        for before in [vec![], vec![start(), text("a")]] {
            let seen = decode(&[before.clone(), vec![event.clone()]].concat());
            let error = seen.error.clone().unwrap();
            assert_eq!((error.class, error.message.as_str()), (class, "m"), "{kind}");
            assert_eq!(error.details.kind.as_deref(), Some(kind));
            assert_eq!(error.details.request_id.as_deref(), Some("req_1"));
            assert_eq!(seen.text("content"), if before.is_empty() { "" } else { "a" });
        }
    }
}

#[test]
fn an_error_event_may_be_prose() {
    let seen = decode_bytes(b"event: error\ndata: upstream is gone\n\n");
    let error = seen.error.unwrap();
    assert_eq!((error.class, error.message.as_str()), (Class::InternalServer, "upstream is gone"));
}

#[test]
fn bad_json_is_an_error_after_what_came_before() {
    let body = [sse(&[start(), text("a")]), b"data: {\"type\":\n\n".to_vec()].concat();
    let seen = decode_bytes(&body);
    assert_eq!(seen.text("content"), "a");
    assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
}

#[test]
fn a_single_message() {
    let body = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "ENC"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "text", "text": "Hello "},
        {"type": "text", "text": "w\u{f6}rld", "citations": [{"type": "web_search_result_location", "url": "u", "title": "t"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1, 2]}},
    ], "stop_reason": "tool_use", "stop_sequence": null, "container": {"id": "c"},
       "usage": {"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3, "output_tokens": 4}});
    let (response, usage) = single(body.to_string().as_bytes()).unwrap();
    let message = &response["choices"][0]["message"];
    assert_eq!(message["content"], "Hello w\u{f6}rld");
    assert_eq!(message["reasoning_content"], "hm");
    assert_eq!(message["thinking_blocks"], json!([body["content"][0], body["content"][1]]));
    assert_eq!(message["content_blocks"], json!([body["content"][2]]));
    assert_eq!(message["annotations"], json!([{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}]));
    assert_eq!(
        message["tool_calls"],
        json!([{"id": "toolu_1", "type": "function",
        "function": {"name": "f", "arguments": "{\"a\":[1,2]}"}}])
    );
    assert_eq!(response["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(response["container"], json!({"id": "c"}));
    assert_eq!(usage_json(&usage.unwrap())["prompt_tokens"], 6);
}

#[test]
fn a_body_that_is_no_message() {
    for (body, class) in [
        (json!({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}), Class::ServiceUnavailable),
        (json!({"id": "x"}), Class::ResponseValidation),
    ] {
        assert_eq!(single(body.to_string().as_bytes()).unwrap_err().class, class);
    }
    assert_eq!(single(b"<html>").unwrap_err().class, Class::ResponseValidation);
}

#[test]
fn surrogate_halves_are_joined_across_deltas() {
    let piece = |text: &str| {
        format!(
            "data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    };
    let middle = piece("a\\ud83d") + &piece("\\ude00b");
    let body = [sse(&[start()]), middle.into_bytes(), sse(&end("end_turn", &json!({})))].concat();
    assert_eq!(good_bytes(&body).text("content"), "a\u{1f600}b");
}

#[test]
fn any_cut_gives_the_same() {
    let events = around(&[
        block(0, &json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, &json!({"type": "thinking_delta", "thinking": "h\u{f6}\u{1f600}"})),
        delta(0, &json!({"type": "signature_delta", "signature": "sig"})),
        stop(0),
        text("one"),
        text("tw\u{f6}"),
        block(1, &json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}})),
        delta(1, &json!({"type": "input_json_delta", "partial_json": "{}"})),
        stop(1),
    ]);
    assert_any_cut_is_the_same(FAMILY, &sse(&events));
    assert_any_cut_is_the_same(
        FAMILY,
        &sse(&[start(), text("a"), json!({"type": "error", "error": {"type": "api_error"}})]),
    );
}

/// usage.md for this API, a second time: the prompt is input and both caches, and compactions are added.
fn expected_usage(last: &Value, first: &Value) -> Option<[Option<u64>; 5]> {
    let count = |name: &str| last[name].as_u64().or_else(|| first[name].as_u64());
    let compactions: Vec<&Value> =
        last["iterations"].as_array().into_iter().flatten().filter(|step| step["type"] == "compaction").collect();
    let sum = |name: &str| {
        let more: u64 = compactions.iter().filter_map(|step| step[name].as_u64()).sum();
        count(name).map(|own| own + more)
    };
    let (read, written) = (sum("cache_read_input_tokens"), sum("cache_creation_input_tokens"));
    let prompt = sum("input_tokens").map(|input| input + read.unwrap_or(0) + written.unwrap_or(0));
    let reasoning = last["output_tokens_details"]["thinking_tokens"].as_u64();
    let all = [prompt, sum("output_tokens"), read, written, reasoning];
    all.iter().any(Option::is_some).then_some(all)
}

#[test]
fn recorded_streams() {
    for recording in recordings_of(&["anthropic"]).iter().filter(|recording| recording.is_stream()) {
        let file = &recording.file;
        let body = recording.wire();
        let seen = decode_bytes(&body);
        assert_eq!(seen.error, None, "{file}");
        assert!(seen.ended, "{file}");
        recording.check_text(&seen.text("content"));
        assert_eq!(seen.message()["content"].as_str().unwrap_or_default(), seen.text("content"), "{file}");
        assert_eq!(seen.finish_reasons().len(), 1, "{file}");
        let first =
            if recording.row["usage_first"].is_null() { Value::Null } else { recording.row["usage_first"].clone() };
        let usage = seen.usage.clone().unwrap();
        let counts = &usage.counts;
        let actual = [counts.prompt, counts.completion, counts.cached, counts.cache_write, counts.reasoning];
        assert_eq!(Some(actual), expected_usage(&recording.row["usage_raw"], &first), "{file}");
        assert!(usage.complete, "{file}");
        assert!(same(&serde_json::from_slice(&usage.raw).unwrap(), &recording.row["usage_raw"]), "{file}");
        for call in seen.message()["tool_calls"].as_array().into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object(), "{file}: {arguments}");
        }
        assert_any_cut_is_the_same(FAMILY, &body);
        // Without its end it was cut.
        let text = String::from_utf8(body).unwrap();
        if let Some((before, _)) = text.split_once("event: message_delta") {
            let seen = decode_bytes(before.as_bytes());
            assert_eq!(seen.error.map(|error| error.class), Some(Class::Connection), "{file}");
            assert_eq!(seen.usage.and_then(|usage| usage.counts.completion), None, "{file}");
        }
    }
}

#[test]
fn recorded_messages() {
    for recording in recordings_of(&["anthropic"]).iter().filter(|recording| !recording.is_stream()) {
        let outcome = single(&recording.bytes);
        if recording.is_error() {
            outcome.unwrap_err();
            continue;
        }
        let (response, usage) = outcome.unwrap();
        recording.check_text(response["choices"][0]["message"]["content"].as_str().unwrap_or_default());
        assert!(response["choices"][0]["finish_reason"].is_string(), "{}", recording.file);
        let counts = usage.unwrap().counts;
        let actual = [counts.prompt, counts.completion, counts.cached, counts.cache_write, counts.reasoning];
        assert_eq!(Some(actual), expected_usage(&recording.row["usage_raw"], &Value::Null), "{}", recording.file);
    }
}

#[test]
fn recorded_oddities() {
    let decoded = |name: &str| {
        let recording = recordings_of(&["anthropic"]).into_iter().find(|recording| recording.file.contains(name))?;
        Some(decode_bytes(&recording.wire()))
    };
    // An assistant turn of one empty text block: a good answer that says nothing.
    if let Some(seen) = decoded("anthropic-empty-response") {
        assert_eq!((seen.text("content").as_str(), seen.finish_reasons()), ("", vec!["stop"]));
    }
    // Zeros in message_start, the cost in message_delta, [DONE] after message_stop.
    if let Some(seen) = decoded("gateway-message-delta-metadata") {
        assert_eq!(seen.usage()["prompt_tokens"], 32);
        assert_eq!(seen.usage()["cost"].to_string(), "0.000112");
        assert_eq!(seen.chunks[0]["provider"], "Amazon Bedrock");
    }
    if let Some(seen) = decoded("message-delta-input-tokens") {
        assert_eq!(seen.usage()["prompt_tokens"], 61);
    }
    if let Some(seen) = decoded("programmatic-tool-calling-1.1") {
        assert_eq!(seen.message()["tool_calls"][0]["function"]["arguments"], "{\"player\":\"player2\"}");
        assert_eq!(seen.finish_reasons(), ["tool_calls"]);
        assert_eq!(seen.usage()["total_tokens"], 0);
    }
    if let Some(seen) = decoded("compaction-usage-with-cache-streaming") {
        assert_eq!(seen.usage()["prompt_tokens"], 100 + 55096 + 181);
        assert_eq!(seen.usage()["completion_tokens"], 91);
    }
}

fn answered(events: &[Value]) -> Seen {
    let body = sse(events);
    let options = || Options { answer_tool: Some("answer".into()), ..options() };
    let seen = decode_pieces_of(Family::Anthropic, options(), [&body[..]]);
    let bytes = decode_pieces_of(Family::Anthropic, options(), body.chunks(1));
    assert_eq!(seen, bytes);
    assert_eq!(seen.error, None);
    seen
}

#[test]
fn the_arguments_of_the_answer_tool_are_content() {
    let mut events = vec![start(), block(0, &json!({"type": "tool_use", "id": "t1", "name": "answer", "input": {}}))];
    for piece in ["", "{\"city\"", ":\"Pa", "ris\"", "}"] {
        events.push(delta(0, &json!({"type": "input_json_delta", "partial_json": piece})));
    }
    events.push(stop(0));
    events.extend(end("tool_use", &json!({"output_tokens": 9})));
    let seen = answered(&events);
    assert_eq!(seen.texts("content").concat(), "{\"city\":\"Paris\"}");
    assert!(seen.chunks.iter().all(|chunk| chunk["choices"][0]["delta"].get("tool_calls").is_none()));
    assert_eq!(seen.finish_reasons(), ["stop"]);
    let message = &seen.response.unwrap()["choices"][0]["message"];
    assert_eq!(message["content"], "{\"city\":\"Paris\"}");
    assert_eq!(message.get("tool_calls"), None);
}

#[test]
fn beside_the_answer_tool_others_are_called() {
    let input = |index, piece: &str| delta(index, &json!({"type": "input_json_delta", "partial_json": piece}));
    let mut events = vec![start(), text("Let me see. "), stop(0)];
    events.push(block(1, &json!({"type": "tool_use", "id": "t1", "name": "look", "input": {}})));
    events.extend([input(1, "{\"a\""), input(1, ":1"), input(1, "}"), stop(1)]);
    events.push(block(2, &json!({"type": "tool_use", "id": "t2", "name": "answer", "input": {}})));
    events.extend([input(2, "{\"b\""), input(2, ":2"), input(2, "}"), stop(2)]);
    events.extend(end("tool_use", &json!({"output_tokens": 9})));
    let seen = answered(&events);
    assert_eq!(seen.finish_reasons(), ["tool_calls"]);
    let message = &seen.response.unwrap()["choices"][0]["message"];
    assert_eq!(message["content"], "Let me see. {\"b\":2}");
    assert_eq!(message["tool_calls"].as_array().map(Vec::len), Some(1));
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "look", "arguments": "{\"a\":1}"}));
}

#[test]
fn a_single_answer_by_a_tool() {
    let body = json!({"type": "message", "id": "msg_1", "role": "assistant", "model": "m", "stop_reason": "tool_use",
        "content": [{"type": "tool_use", "id": "t1", "name": "answer", "input": {"city": "Paris"}}],
        "usage": {"input_tokens": 1, "output_tokens": 2}});
    let mut out = Vec::new();
    let (dialect, tool) = (Dialect::default(), Some("answer".to_owned()));
    decode_response(Family::Anthropic, dialect, options().fallback, tool, None, body.to_string().as_bytes(), &mut out)
        .unwrap();
    let choice = &serde_json::from_slice::<Value>(&out).unwrap()["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(
        choice["message"]["content"].as_str().map(|text| serde_json::from_str(text).unwrap()),
        Some(json!({"city": "Paris"}))
    );
    assert_eq!(choice["message"].get("tool_calls"), None);
}
