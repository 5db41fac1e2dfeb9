//! Invoke: the formats that are carried, and the recorded responses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod aws;

use penstock_core::decoder::Family;
use penstock_core::error::Class;
use serde_json::{Value, json};

use aws::{Outcome, assert_splits, corpus, decode_body, event, exception, sha256, wrapped};

fn decode(documents: &[Value]) -> Outcome {
    let body: Vec<u8> = documents.iter().flat_map(wrapped).collect();
    assert_splits(Family::Invoke, &body, "authored");
    aws::decode(Family::Invoke, &body)
}

fn single(body: &Value) -> Value {
    decode_body(Family::Invoke, body.to_string().as_bytes()).unwrap().0
}

fn metrics(input: u32, output: u32) -> Value {
    json!({"inputTokenCount": input, "outputTokenCount": output, "invocationLatency": 3, "firstByteLatency": 1})
}

const METRICS: &str = "amazon-bedrock-invocationMetrics";

#[test]
fn messages_are_read_by_their_own_reader_and_the_metrics_are_not_added() {
    let outcome = decode(&[
        json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1},
        }}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 133}}),
        json!({"type": "message_stop", METRICS: metrics(10, 97)}),
    ]);
    assert_eq!(outcome.error, None);
    assert_eq!((outcome.text("content").as_str(), outcome.finish_reasons()), ("Hi", vec!["stop"]));
    let usage = outcome.usage_json();
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(15), &json!(133)));
    assert_eq!(outcome.chunks.iter().filter(|chunk| chunk["usage"].is_object()).count(), 1);
    assert_eq!((&outcome.response["id"], &outcome.response["model"]), (&json!("msg_1"), &json!("claude-x")));
}

#[test]
fn messages_without_usage_fall_back_to_the_metrics() {
    let outcome = decode(&[
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}),
        json!({"type": "message_stop", METRICS: metrics(10, 97)}),
    ]);
    let last = outcome.chunks.last().unwrap();
    assert_eq!((&last["usage"]["prompt_tokens"], &last["usage"]["completion_tokens"]), (&json!(10), &json!(97)));
    assert_eq!(outcome.finish_reasons(), ["length"]);
}

#[test]
fn messages_that_are_cut_are_an_error() {
    let outcome = decode(&[
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
    ]);
    assert_eq!(outcome.error.unwrap().class, Class::Connection);
}

#[test]
fn converse_shaped_wrappers_are_one_text_whatever_their_index() {
    let mut documents = vec![json!({"messageStart": {"role": "assistant"}})];
    for (index, piece) in ["It", " sounds", " good"].into_iter().enumerate() {
        documents.push(json!({"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": index}}));
        documents.push(json!({"contentBlockStop": {"contentBlockIndex": index}}));
    }
    documents.push(json!({"messageStop": {"stopReason": "max_tokens"}}));
    documents.push(json!({
        "metadata": {
            "usage": {"inputTokens": 5, "outputTokens": 10, "cacheReadInputTokenCount": 2, "cacheWriteInputTokenCount": 1},
            "metrics": {}, "trace": {},
        },
        METRICS: metrics(5, 10),
    }));
    let outcome = decode(&documents);
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.text("content"), "It sounds good");
    assert!(outcome.chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).all(|one| one["index"] == 0));
    assert_eq!(
        outcome.usage_json(),
        json!({
            "prompt_tokens": 8, "completion_tokens": 10, "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        })
    );
    assert_eq!(outcome.finish_reasons(), ["length"]);
}

#[test]
fn counts_of_bare_text_stay_until_they_are_told_anew() {
    let outcome = decode(&[
        json!({"generation": "Hel", "prompt_token_count": 10, "generation_token_count": 1, "stop_reason": null}),
        json!({"generation": "lo", "prompt_token_count": null, "generation_token_count": 2, "stop_reason": null}),
        json!({
            "generation": ".", "prompt_token_count": null, "generation_token_count": 3, "stop_reason": "length",
            METRICS: metrics(10, 4),
        }),
    ]);
    assert_eq!((outcome.error.clone(), outcome.text("content")), (None, "Hello.".into()));
    assert_eq!(outcome.finish_reasons(), ["length"]);
    assert_eq!(outcome.usage_json(), json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}));
    assert_eq!(outcome.usage.unwrap().raw, br#"{"prompt_token_count":10,"generation_token_count":3}"#);
}

#[test]
fn the_prompt_may_be_counted_first_and_the_completion_last() {
    let outcome = decode(&[
        json!({
            "outputText": "\nOnce", "index": 0, "totalOutputTextTokenCount": null, "completionReason": null,
            "inputTextTokenCount": 13,
        }),
        json!({
            "outputText": " upon", "index": 0, "totalOutputTextTokenCount": 100.0, "completionReason": "FINISH",
            "inputTextTokenCount": null, METRICS: metrics(13, 100),
        }),
    ]);
    assert_eq!(outcome.text("content"), "\nOnce upon");
    assert_eq!(outcome.usage_json(), json!({"prompt_tokens": 13, "completion_tokens": 100, "total_tokens": 113}));
    assert_eq!(outcome.finish_reasons(), ["stop"]);
    assert_eq!(outcome.response["choices"][0]["provider_finish_reason"], "FINISH");
}

#[test]
fn an_answer_that_a_guardrail_blocked_ends_with_content_filter() {
    let trace = json!({"guardrail": {"actionReason": "Guardrail blocked."}});
    let outcome = decode(&[json!({
        "outputText": "Input blocked", "index": 0.0, "totalOutputTextTokenCount": 3.0, "inputTextTokenCount": 6.0,
        "amazon-bedrock-guardrailAction": "INTERVENED", "amazon-bedrock-trace": trace,
    })]);
    assert_eq!((outcome.error.clone(), outcome.finish_reasons()), (None, vec!["content_filter"]));
    assert_eq!(outcome.text("content"), "Input blocked");
    assert_eq!(outcome.response["amazon-bedrock-trace"], trace);
    assert_eq!(outcome.response["amazon-bedrock-guardrailAction"], "INTERVENED");
    assert_eq!(outcome.usage_json()["total_tokens"], 9);
}

#[test]
fn guardrail_fields_are_kept_beside_every_format() {
    let outcome = decode(&[
        json!({"messageStart": {"role": "assistant"}}),
        json!({"contentBlockDelta": {"delta": {"text": "a"}}, "amazon-bedrock-guardrailAction": "NONE"}),
        json!({"contentBlockDelta": {"delta": {"text": "b"}}, "amazon-bedrock-guardrailAction": "NONE"}),
        json!({"messageStop": {"stopReason": "end_turn"}, "amazon-bedrock-trace": {"x": 1}}),
    ]);
    assert_eq!(outcome.text("content"), "ab");
    assert_eq!(outcome.response["amazon-bedrock-guardrailAction"], "NONE");
    assert_eq!(outcome.response["amazon-bedrock-trace"], json!({"x": 1}));
}

#[test]
fn other_bare_texts() {
    let finished = |documents: &[Value]| {
        let outcome = decode(documents);
        assert_eq!(outcome.error, None);
        (outcome.text("content"), outcome.finish_reasons().join(","))
    };
    let outputs = [
        json!({"outputs": [{"text": " Hi", "stop_reason": null}]}),
        json!({"outputs": [{"text": "!", "stop_reason": "stop"}], METRICS: metrics(1, 2)}),
    ];
    assert_eq!(finished(&outputs), (" Hi!".into(), "stop".into()));
    assert_eq!(decode(&outputs).usage_json()["total_tokens"], 3);
    let completions = [
        json!({"type": "completion", "completion": " a", "stop_reason": null, "stop": null}),
        json!({"type": "completion", "completion": "b", "stop_reason": "stop_sequence", "stop": "\n\nHuman:"}),
    ];
    assert_eq!(finished(&completions), (" ab".into(), "stop".into()));
    let events = [
        json!({"text": "Yes", "is_finished": false, "event_type": "text-generation"}),
        json!({"finish_reason": "MAX_TOKENS", "is_finished": true, "event_type": "stream-end", "response": {"text": "Yes"}}),
    ];
    assert_eq!(finished(&events), ("Yes".into(), "length".into()));
    let last_says_no_text = [
        json!({"generation": "a", "prompt_token_count": 1}),
        json!({"generation": "", "stop_reason": "content_filtered"}),
    ];
    assert_eq!(finished(&last_says_no_text), ("a".into(), "content_filter".into()));
}

#[test]
fn choices_are_chat_completions_that_may_call_the_reason_stop_reason() {
    let outcome = decode(&[
        json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Bon"}, "stop_reason": null}]}),
        json!({
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "jour"}, "stop_reason": "length"}],
            METRICS: metrics(4, 2),
        }),
    ]);
    assert_eq!((outcome.error.clone(), outcome.text("content")), (None, "Bonjour".into()));
    assert_eq!(outcome.finish_reasons(), ["length"]);
    assert_eq!(outcome.usage_json()["total_tokens"], 6);

    let outcome = decode(&[
        json!({"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}),
        json!({"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 7}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, METRICS: metrics(8, 9)}),
    ]);
    assert_eq!((outcome.error.clone(), outcome.text("content")), (None, "Hi".into()));
    assert_eq!(outcome.usage_json()["total_tokens"], 3);

    let body =
        json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "stop_reason": "stop"}]});
    assert_eq!(single(&body)["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_text_without_a_reason_to_stop_was_cut() {
    let outcome = decode(&[json!({"generation": "Hel", "stop_reason": null})]);
    assert_eq!(outcome.text("content"), "Hel");
    assert_eq!(outcome.error.unwrap().class, Class::Connection);
}

#[test]
fn exceptions_and_broken_documents_are_errors() {
    let fails = |last: Vec<u8>| {
        let body = [wrapped(&json!({"generation": "Hel"})), last].concat();
        let outcome = aws::decode(Family::Invoke, &body);
        assert_eq!(outcome.text("content"), "Hel");
        outcome.error.unwrap().class
    };
    assert_eq!(fails(exception("modelTimeoutException", &json!({"message": "slow"}))), Class::Timeout);
    assert_eq!(fails(exception("modelStreamErrorException", &json!({"message": "x"}))), Class::ServiceUnavailable);
    assert_eq!(fails(event("chunk", &json!({"bytes": "!"}))), Class::ResponseValidation);
    assert_eq!(fails(event("chunk", &json!({"bytes": "eyJh"}))), Class::ResponseValidation);
    assert_eq!(fails(aws::event_text("chunk", "{")), Class::ResponseValidation);
}

#[test]
fn unknown_events_and_documents_do_no_harm() {
    let body = [
        event("heartbeat", &json!({"bytes": "!"})),
        event("chunk", &json!({"p": "abc"})),
        wrapped(&json!({"ping": true})),
        wrapped(&json!({"generation": "a", "stop_reason": "stop", "novelty": [1]})),
    ]
    .concat();
    let outcome = aws::decode(Family::Invoke, &body);
    assert_eq!((outcome.error.clone(), outcome.text("content")), (None, "a".into()));
    assert_eq!(outcome.response["novelty"], json!([1]));
}

#[test]
fn single_bodies_of_each_format() {
    let content = |body: &Value| {
        let choice = &single(body)["choices"][0];
        (choice["message"]["content"].as_str().unwrap().to_owned(), choice["finish_reason"].as_str().map(str::to_owned))
    };
    let is = |text: &str, reason: &str| (text.to_owned(), Some(reason.to_owned()));
    assert_eq!(content(&json!({"generation": "a", "stop_reason": "length"})), is("a", "length"));
    assert_eq!(content(&json!({"outputs": [{"text": "b", "stop_reason": "stop"}]})), is("b", "stop"));
    assert_eq!(content(&json!({"completion": "c", "stop_reason": "max_tokens"})), is("c", "length"));
    assert_eq!(content(&json!({"text": "d", "generation_id": "g", "finish_reason": "COMPLETE"})), is("d", "stop"));
    let completions = json!({"completions": [{"data": {"text": "e"}, "finishReason": {"reason": "endoftext"}}]});
    assert_eq!(content(&completions), is("e", "stop"));
    let titan = json!({"inputTextTokenCount": 5, "results": [
        {"tokenCount": 2, "outputText": "f", "completionReason": "LENGTH"},
        {"tokenCount": 3, "outputText": "g", "completionReason": "FINISH"},
    ]});
    let response = single(&titan);
    assert_eq!(response["choices"][1]["message"]["content"], "g");
    assert_eq!(response["usage"], json!({"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}));
    let nova = json!({
        "output": {"message": {"role": "assistant", "content": [{"text": "h"}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 30},
    });
    assert_eq!(content(&nova), is("h", "stop"));
    assert_eq!(single(&nova)["usage"], json!({"prompt_tokens": 30}));
    let message = json!({"type": "message", "id": "m", "role": "assistant", "model": "c", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "i"}], "usage": {"input_tokens": 1, "output_tokens": 2}});
    assert_eq!(content(&message), is("i", "stop"));
    let error = |body: &str| decode_body(Family::Invoke, body.as_bytes()).unwrap_err().class;
    assert_eq!(error(r#"{"message":"The provided model identifier is invalid."}"#), Class::NotFound);
    assert_eq!(error("{}"), Class::ResponseValidation);
    assert_eq!(error(""), Class::ResponseValidation);
}

/// Prompt and completion by the table, from the last document that has the model's own counts, else the metrics.
fn expected_usage(documents: &[Value]) -> Value {
    let (mut prompt, mut completion, mut own) = (None, None, false);
    let mut cache = (None, None);
    for document in documents {
        let usage = [&document["usage"], &document["message"]["usage"], &document["metadata"]["usage"]];
        let usage = usage.into_iter().find(|usage| usage.is_object()).unwrap_or(document);
        let count = |names: &[&str]| {
            let found = names.iter().filter_map(|name| usage[*name].as_f64());
            found.map(|count| serde_json::from_str::<u64>(&format!("{count:.0}")).unwrap()).next()
        };
        cache.0 = count(&["cache_read_input_tokens", "cacheReadInputTokenCount"]).or(cache.0);
        cache.1 = count(&["cache_creation_input_tokens", "cacheWriteInputTokenCount"]).or(cache.1);
        let inputs = ["input_tokens", "inputTokens", "prompt_token_count", "inputTextTokenCount", "prompt_tokens"];
        prompt = count(&inputs).or(prompt);
        let outputs = [
            "output_tokens",
            "outputTokens",
            "generation_token_count",
            "totalOutputTextTokenCount",
            "completion_tokens",
        ];
        let said = count(&outputs)
            .or(document["results"][0]["tokenCount"].as_f64().map(|count| format!("{count:.0}").parse().unwrap()));
        own |= said.is_some();
        completion = said.or(completion);
        let metrics = &document[METRICS];
        if metrics.is_object() && !own {
            (prompt, completion) = (metrics["inputTokenCount"].as_u64(), metrics["outputTokenCount"].as_u64());
        }
    }
    json!([prompt.map(|prompt| prompt + cache.0.unwrap_or(0) + cache.1.unwrap_or(0)), completion])
}

fn seen_usage(usage: &Value) -> Value {
    json!([usage["prompt_tokens"], usage["completion_tokens"]])
}

/// The documents of a recorded stream, taken out by other means than those under test.
fn unwrapped(mut body: &[u8]) -> Vec<Value> {
    use base64::Engine as _;
    let mut documents = Vec::new();
    while !body.is_empty() {
        let length = |at: usize| usize::try_from(u32::from_be_bytes(body[at..at + 4].try_into().unwrap())).unwrap();
        let (total, headers) = (length(0), length(4));
        let event: Value = serde_json::from_slice(&body[12 + headers..total - 4]).unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(event["bytes"].as_str().unwrap()).unwrap();
        documents.push(serde_json::from_slice(&bytes).unwrap());
        body = &body[total..];
    }
    documents
}

#[test]
fn the_recorded_responses_are_read() {
    for (line, body) in corpus("bedrock-invoke") {
        let name = line["file"].as_str().unwrap();
        if line["streaming"] == true {
            let outcome = aws::decode(Family::Invoke, &body);
            assert_eq!(outcome.error, None, "{name}");
            assert_eq!(sha256(&outcome.text("content")), line["text_sha256"], "{name}");
            assert_eq!(outcome.finish_reasons().len(), 1, "{name}");
            assert_eq!(seen_usage(&outcome.usage_json()), expected_usage(&unwrapped(&body)), "{name}");
            assert!(outcome.usage.as_ref().unwrap().complete, "{name}");
            let carrying = outcome.chunks.iter().filter(|chunk| !chunk["usage"].is_null()).count();
            assert_eq!((carrying, &outcome.chunks.last().unwrap()["choices"]), (1, &json!([])), "{name}");
            assert_splits(Family::Invoke, &body, name);
        } else if line["status"] == 200 {
            let (response, usage) = decode_body(Family::Invoke, &body).unwrap();
            let text = response["choices"][0]["message"]["content"].as_str().unwrap();
            if !line["text_sha256"].is_null() {
                assert_eq!(sha256(text), line["text_sha256"], "{name}");
            }
            let seen = usage.map_or(json!([null, null]), |usage| seen_usage(&aws::usage_of(&usage)));
            assert_eq!(seen, expected_usage(&[serde_json::from_slice(&body).unwrap()]), "{name}");
        } else {
            assert_eq!(decode_body(Family::Invoke, &body).unwrap_err().class, Class::InternalServer, "{name}");
        }
    }
}
