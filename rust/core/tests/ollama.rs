//! The Ollama family: native chat and generate, streamed and not.
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
    Seen, assert_any_cut_is_the_same, decode_pieces_of, options, recordings_of, sha256, single_of, with_usage,
};
use penstock_core::decoder::{Dialect, Family};
use penstock_core::error::Class;
use penstock_core::wire;
use serde_json::{Value, json};

fn decode(body: &[u8]) -> Seen {
    decode_pieces_of(Family::Ollama, with_usage(), [body])
}

fn lines(documents: &[Value]) -> Vec<u8> {
    documents.iter().flat_map(|document| format!("{document}\n").into_bytes()).collect()
}

fn line(message: Value) -> Value {
    json!({"model": "m", "created_at": "2026-01-01T00:00:00.123456Z", "message": message, "done": false})
}

fn last(reason: &str) -> Value {
    json!({"model": "m", "created_at": "2026-01-01T00:00:01.12345Z", "message": {"role": "assistant", "content": ""},
           "done": true, "done_reason": reason, "total_duration": 1_897_385_625, "load_duration": 1_631_208,
           "prompt_eval_count": 17, "prompt_eval_duration": 313_560_000, "eval_count": 50, "eval_duration": 1_577_990_000})
}

fn call(name: &str, arguments: Value) -> Value {
    line(json!({"role": "assistant", "content": "",
                "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}))
}

#[test]
fn content_and_thinking_are_deltas() {
    let seen = decode(&lines(&[
        line(json!({"role": "assistant", "content": "", "thinking": "Hm"})),
        line(json!({"role": "assistant", "content": "", "thinking": "m"})),
        line(json!({"role": "assistant", "content": "Hel"})),
        line(json!({"role": "assistant", "content": "lo"})),
        last("stop"),
    ]));
    assert_eq!(seen.error, None);
    assert_eq!(seen.chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "reasoning_content": "Hm"}));
    assert_eq!(seen.chunks[1]["choices"][0]["delta"], json!({"reasoning_content": "m"}));
    assert_eq!(seen.chunks[3]["choices"][0]["delta"], json!({"content": "lo"}));
    assert_eq!(seen.chunks[0]["created"], 1_767_225_600);
    assert_eq!(seen.chunks[0]["model"], "m");
    assert_eq!(seen.finish_reasons(), ["stop"]);
    assert_eq!(seen.message()["content"], "Hello");
    assert_eq!(seen.message()["reasoning_content"], "Hmm");
    assert!(seen.ended);
}

#[test]
fn the_usage_is_the_last_line_s_counts() {
    let seen = decode(&lines(&[line(json!({"content": "x"})), last("stop")]));
    let usage = seen.usage();
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(17), &json!(50)));
    assert_eq!(usage["total_tokens"], 67);
    assert_eq!(usage["total_duration"], 1_897_385_625);
    assert_eq!(usage.get("eval_count"), None, "said by completion_tokens");
    assert!(seen.usage.as_ref().unwrap().complete);
    let raw: Value = serde_json::from_slice(&seen.usage.as_ref().unwrap().raw).unwrap();
    assert_eq!(raw["eval_count"], 50);
    let chunk = seen.chunks.last().unwrap();
    assert_eq!((&chunk["choices"], &chunk["usage"]), (&json!([]), &usage));
}

#[test]
fn a_missing_prompt_count_is_unknown_and_adds_nothing() {
    let mut end = last("stop");
    end.as_object_mut().unwrap().remove("prompt_eval_count");
    let usage = decode(&lines(&[end])).usage();
    assert_eq!(usage.get("prompt_tokens"), None);
    assert_eq!(usage["completion_tokens"], 50);
    assert_eq!(usage["total_tokens"], 50);
}

#[test]
fn calls_without_ids_get_one_and_are_counted_over_all_lines() {
    let seen = decode(&lines(&[call("f", json!({"a": [1, 2]})), call("f", json!({})), last("stop")]));
    assert_eq!(seen.finish_reasons(), ["tool_calls"]);
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"a\":[1,2]}"}));
    assert_eq!(calls[1]["function"], json!({"name": "f", "arguments": "{}"}));
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert!(calls.iter().all(|call| call["id"].as_str().unwrap().starts_with("call_") && call["type"] == "function"));
    assert_eq!(seen.calls().iter().map(|call| call["index"].clone()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn given_ids_stay() {
    let message = json!({"content": "", "tool_calls": [
        {"id": "call_x", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
        {"id": "call_y", "function": {"index": 1, "name": "g", "arguments": "{\"b\":2}"}}]});
    let seen = decode(&lines(&[line(message), last("stop")]));
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!("call_x"), &json!("call_y")));
    assert_eq!(calls[1]["function"]["arguments"], "{\"b\":2}");
}

#[test]
fn an_answer_with_calls_ended_for_them_whatever_is_said() {
    let seen = decode(&lines(&[call("f", json!({})), last("length")]));
    assert_eq!(seen.finish_reasons(), ["tool_calls"]);
    assert_eq!(seen.response.unwrap()["choices"][0]["provider_finish_reason"], "length");
}

#[test]
fn done_reasons() {
    for (reason, expected) in [("stop", "stop"), ("length", "length"), ("load", "stop"), ("unload", "stop")] {
        assert_eq!(decode(&lines(&[last(reason)])).finish_reasons(), [expected], "{reason}");
    }
    let mut end = last("stop");
    end.as_object_mut().unwrap().remove("done_reason");
    assert_eq!(decode(&lines(&[end])).finish_reasons(), ["stop"]);
}

#[test]
fn generate_has_response_and_context() {
    let seen = decode(&lines(&[
        json!({"model": "m", "created_at": "2024-05-24T21:02:00.855283+02:00", "response": "A", "done": false}),
        json!({"model": "m", "created_at": "2024-05-24T21:02:01Z", "response": "", "done": true, "done_reason": "stop",
               "context": [1, 2], "eval_count": 2}),
    ]));
    assert_eq!(seen.error, None);
    assert_eq!(seen.message()["content"], "A");
    assert_eq!(seen.chunks[0]["created"], 1_716_577_320);
    assert_eq!(seen.response.unwrap()["context"], json!([1, 2]));
}

#[test]
fn an_error_line_raises_after_what_came_before() {
    let seen = decode(&lines(&[line(json!({"content": "x"})), json!({"error": "the runner has gone"})]));
    assert_eq!(seen.text("content"), "x");
    let error = seen.error.unwrap();
    assert_eq!((error.class, error.message.as_str()), (Class::InternalServer, "the runner has gone"));
    let seen = decode(&lines(&[json!({"error": "prompt too long; exceeded max context length by 5 tokens"})]));
    assert_eq!(seen.error.unwrap().class, Class::ContextWindowExceeded);
}

#[test]
fn without_a_done_line_the_stream_was_cut() {
    let seen = decode(&lines(&[line(json!({"content": "x"}))]));
    assert_eq!(seen.error.unwrap().class, Class::Connection);
    assert_eq!(decode(b"").error.unwrap().class, Class::Connection);
}

#[test]
fn the_last_line_needs_no_line_end_but_must_be_whole() {
    let body = lines(&[line(json!({"content": "x"})), last("stop")]);
    assert_eq!(decode(body.strip_suffix(b"\n").unwrap()).error, None);
    assert_eq!(decode(&body[..body.len() - 3]).error.unwrap().class, Class::Connection);
}

#[test]
fn a_line_that_is_no_json_is_an_error() {
    let seen = decode(b"{\"message\":{\"content\":\"x\"}}\nnot json\n");
    assert_eq!(seen.text("content"), "x");
    assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
}

#[test]
fn log_probabilities_are_openai_s() {
    let mut event = line(json!({"content": "x"}));
    event["logprobs"] = json!([{"token": "x", "logprob": -0.5, "top_logprobs": []}]);
    let seen = decode(&lines(&[event, last("stop")]));
    assert_eq!(seen.chunks[0]["choices"][0]["logprobs"]["content"][0]["token"], "x");
}

#[test]
fn unknown_fields_stay_and_white_space_is_nothing() {
    let mut event = line(json!({"role": "assistant", "content": "x", "mood": "good"}));
    event["remote_host"] = json!("h");
    let mut body = b"\r\n\n".to_vec();
    body.extend(lines(&[event, last("stop")]));
    let seen = decode(&body);
    assert_eq!(seen.error, None);
    assert_eq!(seen.message()["mood"], "good");
    assert_eq!(seen.response.unwrap()["remote_host"], "h");
}

#[test]
fn any_cut_is_the_same() {
    let mut body = lines(&[
        line(json!({"role": "assistant", "content": "", "thinking": "\u{e9}\u{1F600}"})),
        line(json!({"role": "assistant", "content": "He\nl\"lo"})),
        line(json!({"role": "assistant", "content": "lo"})),
        call("f", json!({"a": "b"})),
        last("stop"),
    ]);
    assert_any_cut_is_the_same(Family::Ollama, &body);
    body.truncate(body.len() - 20);
    assert_any_cut_is_the_same(Family::Ollama, &body);
}

#[test]
fn what_is_no_answer_is_refused() {
    let error = single_of(Family::Ollama, Dialect::default(), b"{\"a\":1}").unwrap_err();
    assert_eq!(error.class, Class::ResponseValidation);
    let error = single_of(Family::Ollama, Dialect::default(), b"{\"error\":\"no\"}").unwrap_err();
    assert_eq!(error.message, "no");
}

#[test]
fn recordings() {
    for recording in recordings_of(&["ollama"]) {
        let (file, row) = (&recording.file, &recording.row);
        let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
        if status >= 400 {
            let error = wire::from_response(status, &[], &recording.bytes, 0.0);
            assert_eq!(error.class, Class::NotFound, "{file}");
            continue;
        }
        let (response, usage) = if recording.is_stream() {
            let seen = decode_pieces_of(Family::Ollama, options(), [recording.bytes.as_slice()]);
            assert_eq!(seen.error, None, "{file}");
            assert_eq!(sha256(&seen.text("content")), row["text_sha256"].as_str().unwrap(), "{file}");
            assert_any_cut_is_the_same(Family::Ollama, &recording.bytes);
            (seen.response.unwrap(), seen.usage)
        } else {
            single_of(Family::Ollama, Dialect::default(), &recording.bytes).unwrap()
        };
        let message = &response["choices"][0]["message"];
        let text = message["content"].as_str().unwrap_or_default();
        assert_eq!(sha256(text), row["text_sha256"].as_str().unwrap(), "{file}");
        let raw = &row["usage_raw"];
        let counts = usage.unwrap().counts;
        assert_eq!(counts.prompt, raw["prompt_eval_count"].as_u64(), "{file}");
        assert_eq!(counts.completion, raw["eval_count"].as_u64(), "{file}");
        let sum = raw["prompt_eval_count"].as_u64().unwrap_or(0) + raw["eval_count"].as_u64().unwrap_or(0);
        assert_eq!(counts.total(), Some(sum), "{file}");
        let calls = row["features"].as_array().unwrap().contains(&json!("tool-calls"));
        let length = row["features"].as_array().unwrap().contains(&json!("finish:length"));
        let reason = if calls {
            "tool_calls"
        } else if length {
            "length"
        } else {
            "stop"
        };
        assert_eq!(response["choices"][0]["finish_reason"], reason, "{file}");
    }
}
