//! The Gemini family: AI Studio and Vertex AI, as events, as an array and as single responses.
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
    usage_json, with_usage,
};
use penstock_core::chunk::{Chunk, Text};
use penstock_core::decoder::{Decoder, Dialect, Family};
use penstock_core::error::Class;
use penstock_core::stream::{Part, Sink};
use penstock_core::wire;
use serde_json::{Value, json};

struct Nowhere;

impl Sink for Nowhere {
    fn chunk(&mut self, _: &Chunk<'_>) {}
    fn again(&mut self, _: Part, _: &Text<'_>) {}
}

fn decode(body: &[u8]) -> Seen {
    decode_pieces_of(Family::Gemini, with_usage(), [body])
}

fn sse(events: &[Value]) -> Vec<u8> {
    events.iter().flat_map(|event| format!("data: {event}\r\n\r\n").into_bytes()).collect()
}

fn good(events: &[Value]) -> Seen {
    let seen = decode(&sse(events));
    assert_eq!(seen.error, None);
    seen
}

fn parts(parts: Value) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}],
           "modelVersion": "gemini-x", "responseId": "abc"})
}

fn text(text: &str) -> Value {
    parts(json!([{"text": text}]))
}

fn finish(mut event: Value, reason: &str) -> Value {
    event["candidates"][0]["finishReason"] = json!(reason);
    event
}

fn usage(mut event: Value, usage: Value) -> Value {
    event["usageMetadata"] = usage;
    event
}

fn stop() -> Value {
    finish(text(""), "STOP")
}

#[test]
fn text_is_content_and_thoughts_are_reasoning() {
    let seen = good(&[
        parts(json!([{"text": "Hm", "thought": true}])),
        parts(json!([{"text": "m", "thought": true}, {"text": "Hel"}])),
        text("lo"),
        stop(),
    ]);
    assert_eq!(seen.delta(0), &json!({"role": "assistant", "reasoning_content": "Hm"}));
    assert_eq!(seen.delta(1), &json!({"content": "Hel", "reasoning_content": "m"}));
    assert_eq!(seen.delta(2), &json!({"content": "lo"}));
    assert_eq!((&seen.message()["content"], &seen.message()["reasoning_content"]), (&json!("Hello"), &json!("Hmm")));
    assert_eq!(seen.finish_reasons(), ["stop"]);
    assert_eq!((&seen.chunks[0]["id"], &seen.chunks[0]["model"]), (&json!("abc"), &json!("gemini-x")));
}

#[test]
fn several_texts_in_one_event_are_one() {
    let seen = good(&[parts(json!([{"text": "a"}, {"text": ""}, {"text": "b\n"}, {"text": "c"}])), stop()]);
    assert_eq!(seen.delta(0)["content"], "ab\nc");
}

#[test]
fn the_time_is_vertex_s_or_ours() {
    let mut event = text("x");
    event["createTime"] = json!("2026-01-01T00:00:00.123456Z");
    assert_eq!(good(&[event, stop()]).chunks[0]["created"], 1_767_225_600);
    assert_eq!(good(&[stop()]).chunks[0]["created"], 7);
}

#[test]
fn a_call_is_whole_and_gets_an_id() {
    let call = json!({"functionCall": {"name": "f", "args": {"a": {"b": [1, "x"]}}}, "thoughtSignature": "c2ln"});
    let seen = good(&[parts(json!([call, {"functionCall": {"name": "g", "id": "given"}}])), stop()]);
    assert_eq!(seen.finish_reasons(), ["tool_calls"], "STOP came later");
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"a\":{\"b\":[1,\"x\"]}}"}));
    assert_eq!(calls[0]["thought_signature"], "c2ln");
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(calls[1]["function"], json!({"name": "g", "arguments": "{}"}));
    assert_eq!(calls[1]["id"], "given");
    assert_eq!(calls[1].get("thought_signature"), None);
}

#[test]
fn two_calls_of_one_tool_in_two_events_are_two() {
    let call = parts(json!([{"functionCall": {"name": "f", "args": {}}}]));
    let seen = good(&[call.clone(), call, stop()]);
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
}

#[test]
fn arguments_in_pieces_come_at_the_end_of_the_call() {
    let piece = |partial: Value| parts(json!([{"functionCall": {"partialArgs": [partial], "willContinue": true}}]));
    let seen = good(&[
        parts(json!([{"functionCall": {"name": "f", "willContinue": true}, "thoughtSignature": "c2ln"}])),
        piece(json!({"jsonPath": "$.a.b[0]", "stringValue": "Bos", "willContinue": true})),
        piece(json!({"jsonPath": "$.a.b[0]", "stringValue": "ton", "willContinue": true})),
        piece(json!({"jsonPath": "$.a.b[0]", "stringValue": ""})),
        piece(json!({"jsonPath": "$.a['c d'][0].e", "numberValue": 0.5})),
        piece(json!({"jsonPath": "$.n", "nullValue": "NULL_VALUE"})),
        piece(json!({"jsonPath": "$[\"t\"]", "boolValue": true})),
        piece(json!({"jsonPath": "no path", "boolValue": true})),
        piece(json!({"jsonPath": "$.far[99999999]", "stringValue": "z"})),
        parts(json!([{"functionCall": {}}])),
        parts(json!([{"functionCall": {"name": "g", "willContinue": true}}])),
        piece(json!({"jsonPath": "$.x", "stringValue": "1"})),
        // Nothing ends it but the finish reason.
        stop(),
    ]);
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    let arguments = "{\"a\":{\"b\":[\"Boston\"],\"c d\":[{\"e\":0.5}]},\"n\":null,\"t\":true,\"far\":[\"z\"]}";
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": arguments}));
    assert_eq!(calls[0]["thought_signature"], "c2ln");
    assert_eq!(calls[1]["function"], json!({"name": "g", "arguments": "{\"x\":\"1\"}"}));
    let names: Vec<_> = seen.calls().iter().map(|call| call["function"].get("name").cloned()).collect();
    assert_eq!(names, [Some(json!("f")), None, Some(json!("g")), None]);
}

#[test]
fn a_call_in_pieces_ends_where_the_next_begins() {
    let seen = good(&[
        parts(json!([{"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a", "numberValue": 1}],
                                       "willContinue": true}}])),
        parts(json!([{"functionCall": {"name": "g", "args": {"b": 2}}}])),
        stop(),
    ]);
    let calls = seen.message()["tool_calls"].as_array().unwrap();
    assert_eq!(calls[0]["function"]["arguments"], "{\"a\":1}");
    assert_eq!(calls[1]["function"]["arguments"], "{\"b\":2}");
}

#[test]
fn a_signature_beside_text_belongs_to_the_message() {
    let last = parts(json!([{"text": "", "thoughtSignature": "c2ln"}]));
    let seen = good(&[text("x"), finish(last, "STOP")]);
    assert_eq!(seen.message()["thought_signature"], "c2ln");
    let seen = good(&[finish(parts(json!([{"thoughtSignature": "b25seQ"}])), "STOP")]);
    assert_eq!(seen.message()["thought_signature"], "b25seQ");
}

#[test]
fn parts_of_server_tools_are_kept_as_they_are() {
    let code = json!({"executableCode": {"language": "PYTHON", "code": "1", "id": "i"}, "thoughtSignature": "c2ln"});
    let result = json!({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1", "id": "i"}});
    let seen = good(&[parts(json!([code])), parts(json!([result, {"text": "x"}])), stop()]);
    assert_eq!(seen.message()["content_parts"], json!([code, result]));
    assert_eq!(seen.message()["content"], "x");
    assert_eq!(seen.message().get("tool_calls"), None);
    assert_eq!(seen.finish_reasons(), ["stop"]);
}

#[test]
fn images_and_sound() {
    let seen = good(&[
        parts(json!([{"inlineData": {"mimeType": "image/png", "data": "QUJD"}, "thoughtSignature": "c2ln"},
                     {"inlineData": {"data": "REVG", "mimeType": "image/png"}}])),
        parts(json!([{"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}}])),
        parts(json!([{"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "BBBB"}}])),
        parts(json!([{"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}])),
        stop(),
    ]);
    let url = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let mut first = url("data:image/png;base64,QUJD");
    first["thought_signature"] = json!("c2ln");
    assert_eq!(seen.message()["images"], json!([first, url("data:image/png;base64,REVG")]));
    assert_eq!(seen.message()["audio"], json!({"data": "AAAABBBB", "mime_type": "audio/L16;rate=24000"}));
    assert_eq!(seen.message()["content_parts"][0]["inlineData"]["mimeType"], "application/pdf");
}

#[test]
fn grounding_becomes_annotations_counted_in_characters() {
    let mut last = finish(text(""), "STOP");
    last["candidates"][0]["groundingMetadata"] = json!({
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}, {"retrievedContext": {"text": "t"}}],
        "groundingSupports": [
            {"segment": {"endIndex": 3, "text": "\u{2014}"}, "groundingChunkIndices": [0, 1, 7]},
            {"segment": {"startIndex": 4, "endIndex": 6, "text": "ab"}, "groundingChunkIndices": [0]}],
        "webSearchQueries": ["q"]});
    let mut again = last.clone();
    again["candidates"][0].as_object_mut().unwrap().remove("finishReason");
    let seen = good(&[text("\u{2014}"), text("\"ab"), again, last]);
    let citation = |start: i32, end: i32| {
        json!({"type": "url_citation",
               "url_citation": {"start_index": start, "end_index": end, "url": "https://a", "title": "A"}})
    };
    assert_eq!(seen.message()["annotations"], json!([citation(0, 1), citation(2, 4)]));
    let response = seen.response.unwrap();
    assert_eq!(response["choices"][0]["groundingMetadata"]["webSearchQueries"], json!(["q"]));
}

#[test]
fn citations_become_annotations_too() {
    let mut last = finish(text("abc"), "STOP");
    last["candidates"][0]["citationMetadata"] =
        json!({"citations": [{"startIndex": 1, "endIndex": 2, "uri": "https://c"}, {"endIndex": 1}]});
    let seen = good(&[last]);
    let citation = json!({"start_index": 1, "end_index": 2, "url": "https://c", "title": ""});
    assert_eq!(seen.message()["annotations"], json!([{"type": "url_citation", "url_citation": citation}]));
}

#[test]
fn finish_reasons() {
    let table = [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("IMAGE_RECITATION", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
        ("LANGUAGE", "stop"),
        ("SOMETHING_NEW", "stop"),
    ];
    for (reason, expected) in table {
        let seen = good(&[finish(text("x"), reason)]);
        assert_eq!(seen.finish_reasons(), [expected], "{reason}");
        assert_eq!(seen.response.unwrap()["choices"][0]["provider_finish_reason"], reason);
    }
    let mut number = text("x");
    number["candidates"][0]["finishReason"] = json!(2);
    assert_eq!(good(&[number]).finish_reasons(), ["length"]);
    let call = parts(json!([{"functionCall": {"name": "f"}}]));
    assert_eq!(good(&[finish(call, "UNEXPECTED_TOOL_CALL")]).finish_reasons(), ["stop"]);
}

#[test]
fn a_blocked_prompt_ends_with_content_filter() {
    let blocked = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "no"},
                         "usageMetadata": {"trafficType": "ON_DEMAND"}, "modelVersion": "gemini-x"});
    let seen = good(std::slice::from_ref(&blocked));
    assert_eq!(seen.finish_reasons(), ["content_filter"]);
    assert_eq!(seen.usage, None);
    assert_eq!(seen.chunks.last().unwrap()["usage"], Value::Null);
    let (response, _) = single_of(Family::Gemini, Dialect::default(), blocked.to_string().as_bytes()).unwrap();
    assert_eq!(response["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(response["choices"][0]["provider_finish_reason"], "PROHIBITED_CONTENT");
    assert_eq!(response["promptFeedback"]["blockReasonMessage"], "no");
}

#[test]
fn usage_adds_thoughts_and_tool_prompts() {
    let report = json!({"promptTokenCount": 132, "candidatesTokenCount": 45, "totalTokenCount": 1702,
                        "toolUsePromptTokenCount": 1355, "thoughtsTokenCount": 170, "cachedContentTokenCount": 7,
                        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}], "serviceTier": "standard"});
    let seen = good(&[usage(stop(), report.clone())]);
    let expected = json!({
        "prompt_tokens": 1487, "completion_tokens": 215, "total_tokens": 1702,
        "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 170},
        "toolUsePromptTokenCount": 1355, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
        "serviceTier": "standard"});
    assert_eq!(seen.usage(), expected);
    let usage = seen.usage.unwrap();
    assert!(usage.complete);
    assert_eq!(serde_json::from_slice::<Value>(&usage.raw).unwrap(), report);
}

#[test]
fn thoughts_counted_among_the_candidates_are_not_added() {
    let report =
        json!({"promptTokenCount": 10, "candidatesTokenCount": 50, "thoughtsTokenCount": 20, "totalTokenCount": 60});
    let counts = good(&[usage(stop(), report)]).usage.unwrap().counts;
    assert_eq!((counts.completion, counts.reasoning, counts.total()), (Some(50), Some(20), Some(60)));
}

#[test]
fn the_last_report_replaces_the_others_as_a_whole() {
    let seen = good(&[
        usage(
            text("x"),
            json!({"promptTokenCount": 9, "candidatesTokenCount": 21, "thoughtsTokenCount": 35, "totalTokenCount": 65}),
        ),
        usage(stop(), json!({"promptTokenCount": 87, "thoughtsTokenCount": 78, "totalTokenCount": 165})),
    ]);
    let usage = seen.usage();
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(87), &json!(78)));
}

#[test]
fn an_answer_cut_short_leaves_a_lower_bound() {
    let first = usage(text("x"), json!({"promptTokenCount": 169, "candidatesTokenCount": 2, "totalTokenCount": 171}));
    let seen = decode(&sse(&[first, usage(text("y"), json!({"trafficType": "ON_DEMAND"}))]));
    assert_eq!(seen.error.unwrap().class, Class::Connection);
    let usage = seen.usage.unwrap();
    assert_eq!((usage.counts.prompt, usage.complete), (Some(169), false));
}

/// The recorded totals of a stream with code execution: each round counts from 0, the last report is the sum.
#[test]
fn rounds_of_server_tools_are_summed_only_while_the_last_report_is_missing() {
    let code = parts(json!([{"executableCode": {"language": "PYTHON", "code": "1"}}]));
    let rounds = [
        usage(
            code,
            json!({"promptTokenCount": 46, "candidatesTokenCount": 51, "thoughtsTokenCount": 101, "totalTokenCount": 198}),
        ),
        usage(text(""), json!({"promptTokenCount": 46, "totalTokenCount": 46})),
        usage(
            text("a"),
            json!({"promptTokenCount": 46, "candidatesTokenCount": 57, "thoughtsTokenCount": 67, "totalTokenCount": 170}),
        ),
    ];
    let seen = decode(&sse(&rounds));
    let cut = seen.usage.unwrap();
    assert_eq!((cut.counts.prompt, cut.counts.completion, cut.counts.reasoning), (Some(92), Some(276), Some(168)));
    assert!(!cut.complete);
    let last = json!({"promptTokenCount": 147, "candidatesTokenCount": 108, "thoughtsTokenCount": 168,
                      "toolUsePromptTokenCount": 360, "totalTokenCount": 783});
    let seen = good(&[rounds.to_vec(), vec![usage(stop(), last)]].concat());
    assert_eq!(seen.usage()["total_tokens"], 783);
    // Without such tools a falling total is a correction.
    let seen = decode(&sse(&[
        usage(text("a"), json!({"promptTokenCount": 145, "candidatesTokenCount": 1, "totalTokenCount": 146})),
        usage(text("b"), json!({"promptTokenCount": 85, "candidatesTokenCount": 2, "totalTokenCount": 87})),
    ]));
    assert_eq!(seen.usage.unwrap().counts.prompt, Some(85));
}

#[test]
fn candidates_are_choices() {
    let event = |index: u32, text: &str, reason: Option<&str>| {
        // Sorted keys: the index comes last.
        json!({"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": reason, "index": index}]})
    };
    let both = json!({"candidates": [{"content": {"parts": [{"text": "a"}]}}, {"content": {"parts": [{"text": "b"}]}, "index": 1}]});
    let seen = good(&[both, event(1, "d", Some("MAX_TOKENS")), event(0, "c", Some("STOP"))]);
    let response = seen.response.unwrap();
    assert_eq!(response["choices"][0]["message"]["content"], "ac");
    assert_eq!(response["choices"][1]["message"]["content"], "bd");
    assert_eq!(response["choices"][1]["finish_reason"], "length");
}

#[test]
fn log_probabilities_take_openai_s_shape() {
    let mut event = finish(text("x"), "STOP");
    event["candidates"][0]["logprobsResult"] = json!({
        "chosenCandidates": [{"token": "x", "tokenId": 5, "logProbability": -0.25}],
        "topCandidates": [{"candidates": [{"token": "y", "logProbability": -1.5}]}]});
    let seen = good(&[event]);
    let content = &seen.response.unwrap()["choices"][0]["logprobs"]["content"][0];
    assert_eq!((&content["token"], content["logprob"].to_string()), (&json!("x"), "-0.25".to_owned()));
    assert_eq!(content["top_logprobs"][0]["token"], "y");
}

#[test]
fn an_error_in_the_stream_is_raised_in_each_of_its_forms() {
    let error = json!({"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}});
    let pretty = format!("{error:#}");
    let bodies = [
        [sse(&[text("x")]), sse(std::slice::from_ref(&error))].concat(),
        // Bare, without `data:`, on one line and on several, with and without an end.
        [sse(&[text("x")]), error.to_string().into_bytes()].concat(),
        [sse(&[text("x")]), format!("{error}\r\n").into_bytes()].concat(),
        [sse(&[text("x")]), pretty.replace('\n', "\r\n").into_bytes()].concat(),
        [sse(&[text("x")]), pretty.clone().into_bytes(), b"\n\n".to_vec()].concat(),
        // Wrapped in an array.
        [sse(&[text("x")]), format!("data: [{error}]\r\n\r\n").into_bytes()].concat(),
        format!("[{},\r\n{pretty}\n]", text("x")).into_bytes(),
    ];
    for body in bodies {
        let seen = decode(&body);
        assert_eq!(seen.text("content"), "x", "{}", String::from_utf8_lossy(&body));
        let error = seen.error.unwrap();
        assert_eq!((error.class, error.message.as_str()), (Class::RateLimit, "slow"));
        assert_eq!(error.details.kind.as_deref(), Some("RESOURCE_EXHAUSTED"));
        assert_any_cut_is_the_same(Family::Gemini, &body);
    }
    assert_eq!(decode(pretty.as_bytes()).error.unwrap().class, Class::RateLimit, "nothing but the error");
    let single = single_of(Family::Gemini, Dialect::default(), format!("[{pretty}]").as_bytes());
    assert_eq!(single.unwrap_err().class, Class::RateLimit);
}

#[test]
fn the_array_form() {
    let events = [usage(text("a]}\\\""), json!({"promptTokenCount": 1, "totalTokenCount": 1})), text("[{b"), stop()];
    let array = format!("[{:#}\n,\r\n{:#},{}\n]\n", events[0], events[1], events[2]).into_bytes();
    let seen = decode(&array);
    let events = good(&events);
    assert_eq!((&seen.chunks, &seen.response), (&events.chunks, &events.response));
    assert_eq!(seen.text("content"), "a]}\\\"[{b");
    assert_any_cut_is_the_same(Family::Gemini, &array);
    // Every element is handed out as soon as its last brace has come.
    let at = array.windows(3).position(|bytes| bytes == b"}\n,").unwrap() + 1;
    let seen = decode_pieces_of(Family::Gemini, options(), [&array[..at]]);
    assert_eq!(seen.text("content"), "a]}\\\"");
    let (response, _) = single_of(Family::Gemini, Dialect::default(), &array).unwrap();
    assert_eq!(response["choices"][0]["message"]["content"], "a]}\\\"[{b");
}

#[test]
fn without_a_finish_reason_the_stream_was_cut() {
    for body in
        [sse(&[text("x")]), format!("[{}", text("x")).into_bytes(), format!("[{}", stop()).into_bytes()[..40].to_vec()]
    {
        assert_eq!(decode(&body).error.unwrap().class, Class::Connection);
    }
    let body = sse(&[text("x"), stop()]);
    assert_eq!(decode(&body[..body.len() - 4]).error, None, "an unfinished event that is one whole document counts");
}

#[test]
fn empty_contents_unknown_fields_and_keep_alives_do_no_harm() {
    let mut event = json!({"candidates": [{"content": {}, "safetyRatings": [{"category": "C"}]}], "new": {"a": 1}});
    event["candidates"][0]["content"] = json!({"role": "model"});
    let body = [b": comment\r\n\r\ndata:\r\n\r\n".to_vec(), sse(&[event, json!({"candidates": []}), stop()])].concat();
    let seen = decode(&body);
    assert_eq!(seen.error, None);
    let response = seen.response.unwrap();
    assert_eq!(response["new"], json!({"a": 1}));
    assert_eq!(response["choices"][0]["safetyRatings"], json!([{"category": "C"}]));
}

#[test]
fn what_is_no_json_is_an_error() {
    let seen = decode(b"data: {\"candidates\": oops}\r\n\r\n");
    assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
    let error = single_of(Family::Gemini, Dialect::default(), b"{\"a\": 1}").unwrap_err();
    assert_eq!(error.class, Class::ResponseValidation);
}

#[test]
fn an_event_above_the_limit_is_an_error() {
    for body in [sse(&[text(&"x".repeat(300))]), format!("[{}]", text(&"x".repeat(300))).into_bytes()] {
        let options = penstock_core::decoder::Options { max_event_size: 200, ..options() };
        let seen = decode_pieces_of(Family::Gemini, options, body.chunks(7));
        assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
    }
}

#[test]
fn any_cut_is_the_same() {
    let call = json!({"functionCall": {"name": "f", "args": {"a": "\u{1F600}"}}, "thoughtSignature": "c2ln"});
    let body = sse(&[
        usage(
            parts(json!([{"text": "\u{e9}", "thought": true}])),
            json!({"promptTokenCount": 5, "totalTokenCount": 5}),
        ),
        text("a\nb"),
        text("c"),
        parts(json!([call])),
        usage(
            finish(parts(json!([{"text": "", "thoughtSignature": "c2ln"}])), "STOP"),
            json!({"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 11}),
        ),
    ]);
    assert_any_cut_is_the_same(Family::Gemini, &body);
}

/// The bytes that a server would have sent.
fn framed(recording: &Recording) -> Vec<u8> {
    if recording.form() != "chunks" {
        return recording.bytes.clone();
    }
    let lines = recording.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.flat_map(|line| [b"data: ", line, b"\r\n\r\n"].concat()).collect()
}

/// gemini.md, section 5, once more and by itself.
fn expected_usage(raw: &Value) -> [u64; 5] {
    let of = |name: &str| raw[name].as_u64().unwrap_or(0);
    let thoughts = of("thoughtsTokenCount");
    let prompt = of("promptTokenCount") + of("toolUsePromptTokenCount");
    let inclusive = thoughts > 0 && prompt + of("candidatesTokenCount") == of("totalTokenCount");
    let completion = of("candidatesTokenCount") + if inclusive { 0 } else { thoughts };
    [prompt, completion, prompt + completion, of("cachedContentTokenCount"), thoughts]
}

#[test]
fn recordings() {
    for recording in recordings_of(&["gemini"]) {
        let (file, row) = (&recording.file, &recording.row);
        let has = |feature: &str| row["features"].as_array().unwrap().contains(&json!(feature));
        let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
        if status >= 400 {
            let error = wire::from_response(status, &[], &recording.bytes, 0.0);
            let expected = match status {
                404 => Class::NotFound,
                429 => Class::RateLimit,
                _ if file.contains("authentication-error") => Class::Authentication,
                _ if file.contains("context-length") => Class::ContextWindowExceeded,
                _ => Class::BadRequest,
            };
            assert_eq!(error.class, expected, "{file}");
            assert_eq!(error.details.retry_after.is_some(), status == 429, "{file}");
            continue;
        }
        let body = framed(&recording);
        let (response, usage) = if recording.is_stream() {
            let seen = decode_pieces_of(Family::Gemini, options(), [body.as_slice()]);
            assert_eq!(seen.error, None, "{file}");
            assert_eq!(sha256(&seen.text("content")), row["text_sha256"].as_str().unwrap(), "{file}");
            assert_eq!(seen.finish_reasons().len(), 1, "{file}");
            assert_any_cut_is_the_same(Family::Gemini, &body);
            (seen.response.unwrap(), seen.usage)
        } else {
            single_of(Family::Gemini, Dialect::default(), &body).unwrap()
        };
        let choice = &response["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap_or_default();
        assert_eq!(sha256(text), row["text_sha256"].as_str().unwrap(), "{file}");
        let usage = usage.unwrap();
        let written = usage_json(&usage);
        let raw = &row["usage_raw"];
        let found = [
            &written["prompt_tokens"],
            &written["completion_tokens"],
            &written["total_tokens"],
            &written["prompt_tokens_details"]["cached_tokens"],
            &written["completion_tokens_details"]["reasoning_tokens"],
        ];
        assert_eq!(found.map(|count| count.as_u64().unwrap_or(0)), expected_usage(raw), "{file}");
        assert_eq!(serde_json::from_slice::<Value>(&usage.raw).unwrap(), *raw, "{file}");
        assert!(usage.complete, "{file}");
        assert_eq!(choice["message"].get("tool_calls").is_some(), has("tool-calls"), "{file}");
        assert_eq!(choice["message"].get("images").is_some(), has("image-output"), "{file}");
        let reason = choice["finish_reason"].as_str().unwrap();
        let expected = match choice["provider_finish_reason"].to_string().trim_matches('"') {
            "STOP" | "1" if has("tool-calls") => "tool_calls",
            "STOP" | "1" | "UNEXPECTED_TOOL_CALL" => "stop",
            "MAX_TOKENS" | "2" => "length",
            "SAFETY" | "MODEL_ARMOR" => "content_filter",
            other => panic!("{file}: {other}"),
        };
        assert_eq!(reason, expected, "{file}");
    }
}

/// The recording whose arguments come by JSON path, in the end with nothing that ends the last call.
#[test]
fn recorded_arguments_in_pieces() {
    for recording in recordings_of(&["gemini"]) {
        let body = framed(&recording);
        let calls = || {
            let seen = decode_pieces_of(Family::Gemini, options(), [body.as_slice()]);
            let calls = seen.message()["tool_calls"].as_array().unwrap().clone();
            calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        if recording.file.contains("google-stream-tool-call-arguments") {
            assert_eq!(calls(), ["{\"location\":\"Boston\"}", "{\"location\":\"San Francisco\"}"]);
        }
        if recording.file.contains("missing-terminal-function-call") {
            let arguments: Value = serde_json::from_str(&calls()[0]).unwrap();
            assert_eq!(arguments["operations"][1]["description"], "Ripe yellow banana");
            assert_eq!(arguments["operations"][0]["price"].to_string(), "0.5");
        }
    }
}

#[test]
fn the_usage_of_events_that_are_otherwise_alike_is_known_at_any_time() {
    let report = |candidates: u64| {
        json!({"promptTokenCount": 9, "candidatesTokenCount": candidates,
                                          "totalTokenCount": 9 + candidates})
    };
    let events: Vec<_> = (1..=12).map(|count| usage(text(&format!("piece {count} ")), report(count))).collect();
    let mut decoder = Decoder::new(Family::Gemini, options());
    for (event, count) in events.iter().zip(1..) {
        decoder.feed(&sse(std::slice::from_ref(event)), &mut Nowhere).unwrap();
        // Asked for now and then: a report that nobody asks for is not read.
        if count % 3 == 0 {
            let known = decoder.usage().unwrap();
            assert_eq!((known.counts.completion, known.complete), (Some(count), false));
            assert_eq!(serde_json::from_slice::<Value>(&known.raw).unwrap(), report(count));
        }
    }
    // Zeros replace nothing, and a report of other fields stands for itself.
    let zeros = json!({"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0});
    decoder.feed(&sse(&[usage(text("x"), zeros)]), &mut Nowhere).unwrap();
    assert_eq!(decoder.usage().unwrap().counts.completion, Some(12));
    decoder.feed(&sse(&[usage(text("y"), report(13)), usage(text("z"), report(14)), stop()]), &mut Nowhere).unwrap();
    decoder.finish(&mut Nowhere).unwrap();
    let known = decoder.usage().unwrap();
    assert_eq!((known.counts.completion, known.counts.prompt, known.complete), (Some(14), Some(9), true));
}

#[test]
fn a_number_that_is_none_is_an_error_as_ever() {
    let event = usage(text("a"), json!({"promptTokenCount": 12, "totalTokenCount": 12}));
    let bad = sse(std::slice::from_ref(&event));
    let bad = String::from_utf8(bad).unwrap().replace("12", "01");
    let seen = decode(&[sse(&[event.clone(), event]), bad.into_bytes()].concat());
    assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
}
