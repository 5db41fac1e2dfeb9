//! The Cohere family: the events of version 2, those of version 1, and single responses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "these are tests"
)]

mod common;

use common::{
    Recording, Seen, assert_any_cut_is_the_same, decode_pieces_of, options, recordings_of, sha256, single_of,
    with_usage,
};
use penstock_core::decoder::{Dialect, Family};
use penstock_core::error::Class;
use penstock_core::wire;
use serde_json::{Value, json};

fn decode(body: &[u8]) -> Seen {
    decode_pieces_of(Family::Cohere, with_usage(), [body])
}

fn sse(events: &[Value]) -> Vec<u8> {
    let event = |event: &Value| {
        let name = event["type"].as_str().or(event["event_type"].as_str()).unwrap_or("message");
        format!("event: {name}\ndata: {event}\n\n").into_bytes()
    };
    events.iter().flat_map(event).collect()
}

fn done(events: &[Value]) -> Vec<u8> {
    [sse(events), b"data: [DONE]\n\n".to_vec()].concat()
}

fn good(events: &[Value]) -> Seen {
    let seen = decode(&done(events));
    assert_eq!(seen.error, None);
    seen
}

fn single(body: &Value) -> Value {
    single_of(Family::Cohere, Dialect::default(), body.to_string().as_bytes()).unwrap().0
}

fn start() -> Value {
    json!({"id": "abc", "type": "message-start", "delta": {"message": {
        "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}})
}

fn message(kind: &str, index: u32, message: Value) -> Value {
    json!({"type": kind, "index": index, "delta": {"message": message}})
}

fn text(text: &str) -> Value {
    message("content-delta", 0, json!({"content": {"text": text}}))
}

fn usage() -> Value {
    json!({"billed_units": {"input_tokens": 44, "output_tokens": 28},
           "tokens": {"input_tokens": 1476.0, "output_tokens": 58, "reasoning_tokens": 10}, "cached_tokens": 1376})
}

fn end(reason: &str) -> Value {
    json!({"type": "message-end", "delta": {"finish_reason": reason, "usage": usage()}})
}

#[test]
fn content_and_thinking_are_deltas() {
    let seen = good(&[
        start(),
        message("content-start", 0, json!({"content": {"type": "thinking", "thinking": ""}})),
        message("content-delta", 0, json!({"content": {"thinking": "Hm"}})),
        json!({"type": "content-end", "index": 0}),
        message("content-start", 1, json!({"content": {"type": "text", "text": ""}})),
        text("Hel"),
        text("lo"),
        json!({"type": "content-end", "index": 1}),
        end("COMPLETE"),
    ]);
    assert_eq!(seen.delta(0), &json!({"role": "assistant"}));
    assert_eq!(seen.delta(1), &json!({"reasoning_content": "Hm"}));
    assert_eq!(seen.delta(3), &json!({"content": "lo"}));
    assert_eq!(seen.chunks.len(), 6, "blocks that begin and end say nothing");
    assert_eq!((&seen.message()["content"], &seen.message()["reasoning_content"]), (&json!("Hello"), &json!("Hm")));
    assert_eq!(seen.chunks[0]["id"], "abc");
    assert_eq!(seen.finish_reasons(), ["stop"]);
}

#[test]
fn usage_is_what_the_model_read_and_wrote() {
    let seen = good(&[start(), end("COMPLETE")]);
    let expected = json!({"prompt_tokens": 1476, "completion_tokens": 58, "total_tokens": 1534,
        "prompt_tokens_details": {"cached_tokens": 1376}, "completion_tokens_details": {"reasoning_tokens": 10},
        "billed_units": usage()["billed_units"], "tokens": usage()["tokens"], "cached_tokens": 1376});
    assert_eq!(seen.usage(), expected);
    assert_eq!(seen.chunks.last().unwrap()["usage"], expected);
}

#[test]
fn usage_falls_back_to_what_is_billed() {
    let mut last = end("COMPLETE");
    last["delta"]["usage"] = json!({"billed_units": {"input_tokens": 7, "output_tokens": 129}, "cached_tokens": 448});
    let counts = good(&[start(), last]).usage.unwrap().counts;
    assert_eq!((counts.prompt, counts.completion, counts.cached), (Some(7), Some(129), None));
}

#[test]
fn a_tool_plan_is_reasoning() {
    let seen = good(&[start(), message("tool-plan-delta", 0, json!({"tool_plan": "I will"})), end("TOOL_CALL")]);
    assert_eq!(seen.message()["reasoning_content"], "I will");
}

#[test]
fn calls_come_in_pieces_or_without_any() {
    let call = |index: u32, id: &str| {
        let call = json!({"id": id, "type": "function", "function": {"name": "f", "arguments": ""}});
        message("tool-call-start", index, json!({"tool_calls": call}))
    };
    let piece = |index: u32, text: &str| {
        message("tool-call-delta", index, json!({"tool_calls": {"function": {"arguments": text}}}))
    };
    let over = |index: u32| json!({"type": "tool-call-end", "index": index});
    let seen = good(&[
        start(),
        call(0, "a"),
        piece(0, "{\"x\""),
        piece(0, ":1}"),
        over(0),
        call(1, "b"),
        over(1),
        call(2, "c"),
        end("TOOL_CALL"),
    ]);
    assert_eq!(seen.finish_reasons(), ["tool_calls"]);
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    assert_eq!(calls.iter().map(|call| call["id"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let arguments: Vec<_> = calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, ["{\"x\":1}", "{}", "{}"]);
    assert_eq!(
        seen.calls()[0],
        &json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}})
    );
}

#[test]
fn citations_are_kept_and_those_with_an_address_are_annotations() {
    let citation = |start: u32, source: Value| json!({"start": start, "end": start + 4, "text": "Ruby", "type": "TEXT_CONTENT", "sources": [source]});
    let plain = citation(0, json!({"type": "tool", "id": "t:0", "tool_output": {"content": "Ruby"}}));
    let page = citation(9, json!({"type": "document", "id": "d", "document": {"url": "https://a", "title": "A"}}));
    let seen = good(&[
        start(),
        text("Ruby"),
        message("citation-start", 0, json!({"citations": plain})),
        json!({"type": "citation-end", "index": 0}),
        json!({"type": "content-end", "index": 0}),
        message("citation-start", 1, json!({"citations": page})),
        end("COMPLETE"),
    ]);
    assert_eq!(seen.message()["citations"], json!([plain, page]));
    let annotation = json!({"start_index": 9, "end_index": 13, "url": "https://a", "title": "A"});
    assert_eq!(seen.message()["annotations"], json!([{"type": "url_citation", "url_citation": annotation}]));
}

#[test]
fn finish_reasons() {
    let table = [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR_TOXIC", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ];
    for (reason, expected) in table {
        let seen = good(&[start(), end(reason)]);
        assert_eq!(seen.finish_reasons(), [expected], "{reason}");
        assert_eq!(seen.response.unwrap()["choices"][0]["provider_finish_reason"], reason);
    }
}

#[test]
fn an_answer_that_ends_in_error_raises() {
    let mut last = end("ERROR");
    last["delta"] = json!({"finish_reason": "ERROR", "usage": {}, "error": "invalid tool generation",
                           "error_type": "INVALID_TOOL_GENERATION"});
    let seen = decode(&done(&[start(), text("x"), last]));
    assert_eq!(seen.text("content"), "x");
    assert_eq!(seen.usage, None);
    let error = seen.error.unwrap();
    assert_eq!((error.class, error.message.as_str()), (Class::InternalServer, "invalid tool generation"));
    assert_eq!(error.details.kind.as_deref(), Some("INVALID_TOOL_GENERATION"));
    let error = decode(&done(&[start(), end("TIMEOUT")])).error.unwrap();
    assert_eq!(error.class, Class::Timeout);
    assert!(error.message.contains("TIMEOUT"));
}

#[test]
fn the_mark_at_the_end_is_not_required_but_the_last_event_is() {
    assert_eq!(decode(&sse(&[start(), text("x"), end("COMPLETE")])).error, None);
    assert_eq!(decode(&sse(&[start(), text("x")])).error.unwrap().class, Class::Connection);
}

#[test]
fn the_events_of_version_1() {
    let events = [
        json!({"is_finished": false, "event_type": "stream-start", "generation_id": "g"}),
        json!({"is_finished": false, "event_type": "search-queries-generation", "search_queries": [{"text": "q"}]}),
        json!({"is_finished": false, "event_type": "text-generation", "text": "Hel"}),
        json!({"is_finished": false, "event_type": "text-generation", "text": "lo"}),
        json!({"is_finished": false, "event_type": "citation-generation",
               "citations": [{"start": 0, "end": 5, "text": "Hello", "document_ids": ["d"]}]}),
        json!({"is_finished": true, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": {
            "response_id": "r", "text": "Hello", "generation_id": "g", "chat_history": [{"role": "USER"}],
            "finish_reason": "COMPLETE", "meta": {"api_version": {"version": "1"},
                "billed_units": {"input_tokens": 7, "output_tokens": 115},
                "tokens": {"input_tokens": 69, "output_tokens": 116}}}}),
    ];
    let lines: Vec<u8> = events.iter().flat_map(|event| format!("{event}\n").into_bytes()).collect();
    for body in [lines, sse(&events)] {
        let seen = decode(&body);
        assert_eq!(seen.error, None);
        assert_eq!(seen.message()["content"], "Hello");
        assert_eq!(seen.message()["citations"][0]["document_ids"], json!(["d"]));
        assert_eq!(seen.finish_reasons(), ["stop"]);
        let counts = seen.usage.as_ref().unwrap().counts.clone();
        assert_eq!((counts.prompt, counts.completion), (Some(69), Some(116)));
        let response = seen.response.unwrap();
        assert_eq!((&response["id"], &response["search_queries"][0]["text"]), (&json!("g"), &json!("q")));
        assert_eq!(response.get("chat_history"), None, "the request once more");
        assert_any_cut_is_the_same(Family::Cohere, &body);
    }
}

#[test]
fn the_calls_of_version_1_come_in_pieces_and_once_more() {
    let last = json!({"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {
        "text": "I will", "tool_calls": [{"name": "f", "parameters": {"x": 1}}]}});
    let all = json!({"event_type": "tool-calls-generation", "text": "I will",
                      "tool_calls": [{"name": "f", "parameters": {"x": 1}}]});
    let pieces = [
        json!({"event_type": "stream-start", "generation_id": "g"}),
        json!({"event_type": "tool-calls-chunk", "text": "I"}),
        json!({"event_type": "tool-calls-chunk", "text": " will"}),
        json!({"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "name": "f"}}),
        json!({"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": "{\"x\":"}}),
        json!({"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": "1}"}}),
        all.clone(),
        last.clone(),
    ];
    let whole = [json!({"event_type": "stream-start", "generation_id": "g"}), all, last.clone()];
    let only_last = [json!({"event_type": "stream-start", "generation_id": "g"}), last];
    for events in [pieces.as_slice(), &whole, &only_last] {
        let seen = good(events);
        let calls = seen.message()["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"x\":1}"}));
        assert_eq!(seen.finish_reasons(), ["tool_calls"]);
        if events.len() > 2 {
            assert_eq!(seen.message()["reasoning_content"], "I will");
        }
    }
}

#[test]
fn a_single_response() {
    let response = single(&json!({"id": "abc", "message": {"role": "assistant", "tool_plan": "I will",
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                       {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}],
        "citations": [{"start": 0, "end": 1, "text": "H", "sources": []}]},
        "finish_reason": "TOOL_CALL", "usage": usage(),
        "logprobs": [{"text": "Hel", "token_ids": [1], "logprobs": [-0.5]}]}));
    let choice = &response["choices"][0];
    assert_eq!(choice["message"]["content"], "Hello");
    assert_eq!(choice["message"]["reasoning_content"], "HmI will", "in the order of the document");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"x\":1}");
    assert_eq!(choice["message"]["tool_calls"][1]["function"]["arguments"], "{}");
    assert_eq!(choice["message"]["citations"][0]["text"], "H");
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["logprobs"]["content"][0]["token"], "Hel");
    assert_eq!(response["usage"]["total_tokens"], 1534);
}

#[test]
fn single_responses_of_version_1() {
    let response =
        single(&json!({"response_id": "r", "generation_id": "g", "text": "Hi", "finish_reason": "MAX_TOKENS",
                                  "meta": {"tokens": {"input_tokens": 1, "output_tokens": 2}}}));
    assert_eq!((&response["id"], &response["choices"][0]["message"]["content"]), (&json!("g"), &json!("Hi")));
    assert_eq!(response["choices"][0]["finish_reason"], "length");
    let response = single(&json!({"id": "g", "prompt": "p", "generations": [
        {"id": "1", "text": "a", "finish_reason": "COMPLETE"}, {"id": "2", "text": "b", "finish_reason": "MAX_TOKENS"}]}));
    assert_eq!(response["choices"][0]["message"]["content"], "a");
    assert_eq!(response["choices"][1]["message"]["content"], "b");
    assert_eq!(response["choices"][1]["finish_reason"], "length");
}

#[test]
fn errors_have_no_error_object() {
    let body = json!({"id": "i", "message": "too many tokens: size limit exceeded", "error_type": "TOO_MANY_TOKENS"});
    let error = single_of(Family::Cohere, Dialect::default(), body.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.class, Class::ContextWindowExceeded);
    assert_eq!(decode(body.to_string().as_bytes()).error.unwrap().class, Class::ContextWindowExceeded);
    let error = single_of(Family::Cohere, Dialect::default(), b"{\"a\":1}").unwrap_err();
    assert_eq!(error.class, Class::ResponseValidation);
}

#[test]
fn unknown_events_and_bad_ones() {
    let seen = good(&[
        start(),
        json!({"type": "debug", "prompt": "p"}),
        json!({"type": "new", "index": 3}),
        text("x"),
        end("COMPLETE"),
    ]);
    assert_eq!(seen.message()["content"], "x");
    let seen = decode(b"event: content-delta\ndata: {\"type\"\n\n");
    assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
}

#[test]
fn any_cut_is_the_same() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}});
    let body = done(&[
        start(),
        text("\u{1F600}"),
        text("b"),
        message("tool-call-start", 0, json!({"tool_calls": call})),
        message("tool-call-delta", 0, json!({"tool_calls": {"function": {"arguments": "{"}}})),
        message("tool-call-delta", 0, json!({"tool_calls": {"function": {"arguments": "}"}}})),
        end("TOOL_CALL"),
    ]);
    assert_any_cut_is_the_same(Family::Cohere, &body);
}

fn framed(recording: &Recording) -> Vec<u8> {
    if recording.form() != "chunks" {
        return recording.bytes.clone();
    }
    let lines = recording.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    done(&lines.map(|line| serde_json::from_slice(line).unwrap()).collect::<Vec<_>>())
}

#[test]
fn recordings() {
    for recording in recordings_of(&["cohere"]) {
        let (file, row) = (&recording.file, &recording.row);
        let has = |feature: &str| row["features"].as_array().unwrap().contains(&json!(feature));
        let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
        if status >= 400 {
            let error = wire::from_response(status, &[], &recording.bytes, 0.0);
            let expected = match status {
                401 => Class::Authentication,
                404 => Class::NotFound,
                _ => Class::ContextWindowExceeded,
            };
            assert_eq!(error.class, expected, "{file}");
            continue;
        }
        let body = framed(&recording);
        let (response, usage) = if recording.is_stream() {
            let seen = decode_pieces_of(Family::Cohere, options(), [body.as_slice()]);
            assert_eq!(sha256(&seen.text("content")), row["text_sha256"].as_str().unwrap(), "{file}");
            assert_any_cut_is_the_same(Family::Cohere, &body);
            if has("finish:ERROR") {
                let error = seen.error.unwrap();
                assert_eq!(error.class, Class::InternalServer, "{file}");
                assert!(error.message.contains("invalid tool generation"), "{file}");
                assert_eq!(seen.usage, None, "{file}");
                continue;
            }
            assert_eq!(seen.error, None, "{file}");
            (seen.response.unwrap(), seen.usage)
        } else {
            single_of(Family::Cohere, Dialect::default(), &body).unwrap()
        };
        let choice = &response["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap_or_default();
        assert_eq!(sha256(text), row["text_sha256"].as_str().unwrap(), "{file}");
        let raw = &row["usage_raw"];
        let source = if raw["tokens"].is_object() { &raw["tokens"] } else { &raw["billed_units"] };
        let usage = usage.unwrap();
        assert_eq!(usage.counts.prompt, source["input_tokens"].as_u64(), "{file}");
        assert_eq!(usage.counts.completion, source["output_tokens"].as_u64(), "{file}");
        assert_eq!(usage.counts.cached, raw["cached_tokens"].as_u64(), "{file}");
        assert_eq!(usage.counts.reasoning, source["reasoning_tokens"].as_u64(), "{file}");
        assert_eq!(serde_json::from_slice::<Value>(&usage.raw).unwrap(), *raw, "{file}");
        assert!(usage.complete, "{file}");
        assert_eq!(choice["message"].get("citations").is_some(), has("citations"), "{file}");
        if let Some(calls) = choice["message"]["tool_calls"].as_array() {
            for call in calls {
                let arguments = call["function"]["arguments"].as_str().unwrap();
                assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object(), "{file}: {arguments}");
            }
        }
        assert_eq!(choice["message"].get("tool_calls").is_some(), has("tool-calls"), "{file}");
        let expected = if has("tool-calls") {
            "tool_calls"
        } else if has("finish:MAX_TOKENS") {
            "length"
        } else {
            "stop"
        };
        assert_eq!(choice["finish_reason"], expected, "{file}");
    }
}
