//! The chat family: OpenAI's stream, and what servers that are compatible with it make of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use common::{DONE, Seen, decode, done, event, good, options, single, sse, with, with_usage, without};
use penstock_core::decoder::{Dialect, End, Options};
use penstock_core::error::Class;
use serde_json::{Value, json};

fn text(content: &str) -> Value {
    event(&json!({"content": content}), None)
}

fn finish(reason: &str) -> Value {
    event(&json!({}), Some(reason))
}

fn first() -> Value {
    event(&json!({"role": "assistant", "content": ""}), None)
}

#[expect(clippy::needless_pass_by_value, reason = "so that it takes json!() as it is")]
fn calls(pieces: Value) -> Value {
    event(&json!({"tool_calls": pieces}), None)
}

fn usage(prompt: u32, completion: u32) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

/// An event of its own for the usage, as OpenAI sends it.
fn usage_event(usage: Value) -> Value {
    with(with(text(""), "choices", json!([])), "usage", usage)
}

fn error_of(body: &[u8]) -> (Seen, penstock_core::error::Error) {
    let seen = decode(options(), body);
    let error = seen.error.clone().expect("an error");
    (seen, error)
}

/// The tool calls of the assembled message as (id, type, name, arguments).
fn whole_calls(seen: &Seen) -> Vec<(String, String, String, String)> {
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    seen.message()["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            let function = &call["function"];
            (part(&call["id"]), part(&call["type"]), part(&function["name"]), part(&function["arguments"]))
        })
        .collect()
}

fn call(id: &str, name: &str, arguments: &str) -> (String, String, String, String) {
    (id.to_owned(), "function".to_owned(), name.to_owned(), arguments.to_owned())
}

mod shape {
    use super::*;

    #[test]
    fn a_plain_stream() {
        let seen = good(&done(&[first(), text("Hel"), text("lo"), finish("stop")]));
        let head = json!({"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m"});
        for chunk in &seen.chunks {
            for (name, value) in head.as_object().unwrap() {
                assert_eq!(&chunk[name], value);
            }
        }
        assert_eq!(seen.texts("content"), ["", "Hel", "lo"]);
        assert_eq!(seen.finish_reasons(), ["stop"]);
        assert_eq!(seen.chunks.len(), 4);
        assert!(seen.ended);
    }

    #[test]
    fn what_openai_sends_comes_through_as_it_is() {
        let sent = json!({"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m", "service_tier": "default",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi", "refusal": null},
                         "logprobs": null, "finish_reason": null}]});
        let seen = good(&done(&[with(sent.clone(), "object", "chat.completion.chunk".into()), finish("stop")]));
        assert_eq!(seen.chunks[0], sent);
    }

    #[test]
    fn data_without_a_space_and_crlf() {
        let body = format!("data:{}\r\n\r\ndata:{}\r\n\r\n", text("a"), finish("stop"));
        assert_eq!(good(body.as_bytes()).text("content"), "a");
    }

    #[test]
    fn data_over_several_lines() {
        let body = format!(
            "data: {{\"choices\":\ndata: [{{\"delta\":{{\"content\":\"a\"}}}}]}}\n\ndata: {}\n\n",
            finish("stop")
        );
        assert_eq!(good(body.as_bytes()).text("content"), "a");
    }

    #[test]
    fn comments_and_empty_data_are_nothing() {
        let body =
            [b": OPENROUTER PROCESSING\n\ndata:\n\ndata:  \n\n".to_vec(), done(&[text("a"), finish("stop")])].concat();
        assert_eq!(good(&body).chunks.len(), 2);
    }

    #[test]
    fn line_separators_in_text_are_text() {
        let odd = "a\u{2028}b\u{2029}c\u{85}d";
        let body =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{odd}\"}},\"finish_reason\":\"stop\"}}]}}\n\n");
        assert_eq!(good(body.as_bytes()).text("content"), odd);
    }

    #[test]
    fn a_missing_index_is_zero() {
        let body = sse(&[json!({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})]);
        assert_eq!(good(&body).chunks[0]["choices"][0]["index"], 0);
    }

    #[test]
    fn indices_of_any_size_survive() {
        let choice = |index: u32| json!({"choices": [{"index": index, "seed": 1, "delta": {"content": "a", "x": 2}, "finish_reason": "stop"}]});
        let seen = good(&sse(&[choice(u32::MAX), choice(u32::MAX - 1)]));
        assert_eq!(seen.response.unwrap()["choices"][1]["index"], u32::MAX);
    }

    #[test]
    fn choices_may_be_interleaved() {
        let at = |index: u32, content: &str, reason: Option<&str>| json!({"choices": [{"index": index, "delta": {"content": content}, "finish_reason": reason}]});
        let seen = good(&sse(&[
            at(1, "x", None),
            at(0, "a", None),
            at(1, "y", None),
            at(0, "b", Some("stop")),
            at(1, "", Some("length")),
        ]));
        let response = seen.response.unwrap();
        assert_eq!(response["choices"][0]["message"]["content"], "ab");
        assert_eq!(response["choices"][1]["message"]["content"], "xy");
        assert_eq!(response["choices"][1]["finish_reason"], "length");
    }

    #[test]
    fn several_choices_in_one_event() {
        let seen = good(&sse(&[json!({"choices": [
            {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
            {"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]})]));
        assert_eq!(seen.chunks[0]["choices"].as_array().unwrap().len(), 2);
        assert_eq!(seen.chunks[0]["choices"][1]["delta"]["role"], "assistant");
    }

    #[test]
    fn created_may_be_a_float() {
        let seen = good(&sse(&[with(finish("stop"), "created", json!(1_700_000_000.75))]));
        assert_eq!(seen.chunks[0]["created"], 1_700_000_000);
    }

    #[test]
    fn legacy_completions_have_text() {
        let seen = good(&done(&[
            json!({"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "Hel", "logprobs": null}]}),
            json!({"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "lo", "finish_reason": "length"}]}),
        ]));
        assert_eq!(seen.message()["content"], "Hello");
        assert_eq!(seen.finish_reasons(), ["length"]);
    }

    #[test]
    fn text_beside_a_delta_is_a_copy() {
        let both = |content: &str| json!({"choices": [{"index": 0, "text": content, "delta": {"content": content}, "seed": 3}]});
        let seen = good(&done(&[both("Hel"), both("lo"), both("")]));
        assert_eq!(seen.message()["content"], "Hello");
        assert_eq!(seen.texts("content"), ["Hel", "lo"]);
    }

    #[test]
    fn a_message_beside_a_delta_is_a_copy() {
        let both = |delta: &str, whole: &str| {
            json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": delta},
                                "message": {"role": "assistant", "content": whole}}]})
        };
        let seen = good(&done(&[both("Hel", "Hel"), both("lo", "Hello"), finish("stop")]));
        assert_eq!(seen.message()["content"], "Hello");
        assert!(seen.message().get("message").is_none());
    }

    #[test]
    fn a_whole_message_is_read_where_no_delta_came() {
        let body = sse(&[json!({"object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]})]);
        assert_eq!(good(&body).message()["content"], "Hello");
    }

    #[test]
    fn a_whole_message_after_the_deltas_says_nothing_new() {
        let whole = json!({"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello", "reasoning_content": "hm",
                        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}],
            "usage": usage(1, 2)});
        let seen = good(&sse(&[
            event(&json!({"role": "assistant", "reasoning_content": "hm"}), None),
            text("Hel"),
            text("lo"),
            calls(json!([{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}])),
            whole,
        ]));
        assert_eq!(seen.message()["content"], "Hello");
        assert_eq!(seen.message()["reasoning_content"], "hm");
        assert_eq!(whole_calls(&seen), [call("c1", "f", "{}")]);
        assert_eq!(seen.finish_reasons(), ["tool_calls"]);
        assert_eq!(seen.usage(), usage(1, 2));
    }

    #[test]
    fn a_whole_message_after_a_role_alone_is_the_answer() {
        let seen = good(&sse(&[
            first(),
            json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}),
        ]));
        assert_eq!(seen.message()["content"], "Hello");
    }

    #[test]
    fn fields_that_openai_lacks_are_kept() {
        let sent = json!({"id": "chatcmpl-1", "provider": "Acme", "system_fingerprint": null, "citations": ["a"],
            "choices": [{"index": 0, "native_finish_reason": "eos", "content_filter_results": {"hate": {"filtered": false}},
                         "delta": {"content": "a", "channel": "analysis", "images": [{"url": "u"}]}, "finish_reason": null}]});
        let seen = good(&done(&[sent]));
        let chunk = &seen.chunks[0];
        assert_eq!(chunk["provider"], "Acme");
        assert_eq!(chunk["citations"], json!(["a"]));
        assert_eq!(chunk["choices"][0]["native_finish_reason"], "eos");
        assert_eq!(chunk["choices"][0]["content_filter_results"]["hate"]["filtered"], false);
        assert_eq!(seen.delta(0)["channel"], "analysis");
        assert_eq!(seen.delta(0)["images"], json!([{"url": "u"}]));
    }

    #[test]
    fn filler_is_dropped() {
        let seen = good(&done(&[with(text("a"), "obfuscation", "x8Kq".into()), with(text("b"), "p", "abcdef".into())]));
        for chunk in &seen.chunks {
            assert!(chunk.get("obfuscation").is_none() && chunk.get("p").is_none(), "{chunk}");
        }
        assert_eq!(seen.text("content"), "ab");
    }

    #[test]
    fn an_event_of_nothing_but_filler_emits_nothing() {
        let seen = good(&done(&[text("a"), with(text(""), "obfuscation", "x8Kq".into()), finish("stop")]));
        assert_eq!(seen.chunks.len(), 2);
    }
}

mod identity {
    use super::*;

    fn ids(seen: &Seen) -> Vec<&str> {
        seen.chunks.iter().map(|chunk| chunk["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn an_id_that_changes_stays_the_first_one() {
        let seen =
            good(&done(&[text("a"), with(text("b"), "id", "other".into()), with(finish("stop"), "id", "stub".into())]));
        assert_eq!(ids(&seen), ["chatcmpl-1"; 3]);
        assert!(seen.chunks[0].get("provider_id").is_none());
        assert_eq!(seen.chunks[1]["provider_id"], "other");
        assert_eq!(seen.chunks[2]["provider_id"], "stub");
    }

    #[test]
    fn a_model_that_changes_stays_the_first_one() {
        let seen = good(&done(&[text("a"), with(text("b"), "model", "m-2024".into())]));
        assert_eq!(seen.chunks[1]["model"], "m");
        assert_eq!(seen.chunks[1]["provider_model"], "m-2024");
    }

    #[test]
    fn created_is_the_same_on_every_chunk() {
        let seen = good(&done(&[text("a"), with(text("b"), "created", 5.into())]));
        assert_eq!(seen.chunks[1]["created"], 1_700_000_000);
    }

    #[test]
    fn a_first_chunk_without_identity_has_a_made_one_for_all() {
        // Azure: the prompt's filter results come before anything else.
        let filter = json!({"choices": [], "created": 0, "id": "", "model": "", "object": "",
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": false}}}]});
        let seen = good(&done(&[filter, text("a"), finish("stop")]));
        assert_eq!(ids(&seen), ["chatcmpl-fallback"; 3]);
        assert_eq!(seen.chunks[0]["model"], "asked-for");
        assert_eq!(seen.chunks[0]["created"], 7);
        assert_eq!(seen.chunks[0]["choices"], json!([]));
        assert!(seen.chunks[0].get("prompt_filter_results").is_some());
        assert_eq!(seen.chunks[1]["provider_id"], "chatcmpl-1");
        assert_eq!(seen.chunks[1]["provider_model"], "m");
    }

    #[test]
    fn an_event_that_emits_nothing_does_not_decide_the_identity() {
        let empty = json!({"id": "", "choices": [], "created": 0, "model": ""});
        let seen = good(&done(&[empty, text("a"), finish("stop")]));
        assert_eq!(ids(&seen), ["chatcmpl-1"; 2]);
        assert!(seen.chunks[0].get("provider_id").is_none());
        assert_eq!(seen.response.unwrap()["id"], "chatcmpl-1");
    }

    #[test]
    fn an_id_is_taken_from_an_event_that_emits_nothing() {
        let early = json!({"id": "early", "choices": []});
        let late = without(without(text("a"), "id"), "model");
        let seen = good(&done(&[early, with(late, "model", "late".into())]));
        assert_eq!(seen.chunks[0]["id"], "early");
        assert_eq!(seen.chunks[0]["model"], "late");
    }

    #[test]
    fn no_identity_at_all() {
        // Snowflake: all keys are there, empty.
        let bare = |delta: Value| json!({"id": "", "created": 0, "model": "", "choices": [{"delta": delta}]});
        let seen = good(&done(&[bare(json!({"content": "a"})), bare(json!({"content": "b"}))]));
        assert_eq!(ids(&seen), ["chatcmpl-fallback"; 2]);
        assert!(seen.chunks.iter().all(|chunk| chunk.get("provider_id").is_none()));
    }

    #[test]
    fn an_escaped_id_is_the_same_id() {
        let body = [
            &b"data: {\"id\":\"a\\u002fb\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"[..],
            b"data: {\"id\":\"a/b\",\"choices\":[{\"delta\":{\"content\":\"y\"}}]}\n\n",
            DONE,
        ]
        .concat();
        let seen = good(&body);
        assert_eq!(ids(&seen), ["a/b"; 2]);
        assert!(seen.chunks[1].get("provider_id").is_none());
    }
}

mod role {
    use super::*;

    #[test]
    fn it_is_on_the_first_chunk_only() {
        let seen = good(&done(&[
            event(&json!({"role": "assistant", "content": "a"}), None),
            event(&json!({"role": "assistant", "content": "b"}), None),
            event(&json!({"role": null, "content": "c"}), None),
        ]));
        let roles: Vec<_> = (0..3).map(|place| seen.delta(place).get("role").cloned()).collect();
        assert_eq!(roles, [Some("assistant".into()), None, None]);
    }

    #[test]
    fn it_is_made_where_nobody_says_it() {
        for role in
            [json!({"content": "a"}), json!({"content": "a", "role": ""}), json!({"content": "a", "role": null})]
        {
            assert_eq!(good(&done(&[event(&role, None)])).delta(0)["role"], "assistant");
        }
    }

    #[test]
    fn each_choice_has_one() {
        let at = |index: u32| json!({"choices": [{"index": index, "delta": {"content": "a", "role": "assistant"}}]});
        let seen = good(&done(&[at(0), at(1), at(0), at(1)]));
        let roles: Vec<bool> = (0..4).map(|place| seen.delta(place).get("role").is_some()).collect();
        assert_eq!(roles, [true, true, false, false]);
    }
}

mod news {
    use super::*;

    #[test]
    fn an_event_that_says_nothing_new_emits_nothing() {
        let cases = [
            text(""),
            event(&json!({}), None),
            event(&json!({"content": null, "refusal": null, "tool_calls": null, "function_call": null}), None),
            event(&json!({"role": "assistant", "content": ""}), None),
            event(&json!({"content": "", "refusal": "", "reasoning_content": null, "tool_calls": []}), None),
            with(text(""), "choices", json!([])),
            usage_event(usage(1, 1)),
            with(text(""), "prompt_filter_results", json!([])),
            json!({"choices": [{"index": 0, "delta": {"content": "", "annotations": []}, "content_filter_results": {}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": ""}, "text": "a", "message": {"content": "a"}}]}),
        ];
        for case in cases {
            let seen = good(&done(&[text("a"), case.clone(), text("b")]));
            assert_eq!(seen.chunks.len(), 2, "{case}");
        }
    }

    #[test]
    fn a_repeated_extra_is_not_new() {
        let extra = |content: &str| with(text(content), "provider", "Acme".into());
        assert_eq!(good(&done(&[extra("a"), extra(""), extra("b")])).chunks.len(), 2);
    }

    #[test]
    fn a_changed_extra_is_new() {
        let extra = |value: u32| with(text(""), "progress", value.into());
        assert_eq!(good(&done(&[extra(1), extra(2), extra(2)])).chunks.len(), 2);
    }

    #[test]
    fn extras_of_a_provider_are_new_whatever_their_names() {
        let extra = event(&json!({"provider_specific_fields": {"citation": 1}}), None);
        let seen = good(&done(&[text("a"), extra]));
        assert_eq!(seen.chunks.len(), 2);
        assert_eq!(seen.delta(1)["provider_specific_fields"], json!({"citation": 1}));
    }

    #[test]
    fn filter_results_are_new() {
        let filter = json!({"choices": [{"index": 0, "delta": {}, "content_filter_offsets": {"check_offset": 44},
                                         "content_filter_results": {"hate": {"filtered": false, "severity": "safe"}}}]});
        let seen = good(&done(&[text("a"), finish("stop"), filter]));
        assert_eq!(seen.chunks.len(), 3);
    }

    #[test]
    fn moderation_after_the_usage_is_new() {
        let moderation = with(with(text(""), "choices", json!([])), "moderation", json!({"flagged": false}));
        let seen = decode(with_usage(), &done(&[text("a"), finish("stop"), usage_event(usage(1, 1)), moderation]));
        assert_eq!(seen.error, None);
        assert_eq!(seen.chunks[2]["moderation"], json!({"flagged": false}));
        assert_eq!(seen.chunks[2]["usage"], Value::Null);
        assert_eq!(seen.chunks[3]["usage"], usage(1, 1));
        assert_eq!(seen.chunks.len(), 4);
    }

    #[test]
    fn logprobs_annotations_audio_and_refusals_are_new() {
        let logprobs =
            json!({"choices": [{"index": 0, "delta": {"content": ""}, "logprobs": {"content": [{"token": "a"}]}}]});
        for case in [
            logprobs,
            event(&json!({"annotations": [{"type": "url_citation"}]}), None),
            event(&json!({"audio": {"data": "AAAA"}}), None),
            event(&json!({"refusal": "no"}), None),
            event(&json!({"function_call": {"arguments": "{"}}), None),
        ] {
            assert_eq!(good(&done(&[text("a"), case.clone()])).chunks.len(), 2, "{case}");
        }
    }
}

mod content {
    use super::*;

    #[test]
    fn a_list_of_texts_is_text() {
        let seen = good(&done(&[event(
            &json!({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}),
            None,
        )]));
        assert_eq!(seen.text("content"), "Hello");
    }

    #[test]
    fn a_list_with_thinking_is_reasoning() {
        // Mistral's reasoning models: lists first, plain strings later.
        let thinking =
            json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": true}]});
        let seen = good(&done(&[
            event(&thinking, None),
            event(&json!({"content": [{"type": "text", "text": "He"}]}), None),
            text("llo"),
        ]));
        assert_eq!(seen.text("reasoning_content"), "hm");
        assert_eq!(seen.text("content"), "Hello");
    }

    #[test]
    fn a_list_with_a_summary_is_reasoning() {
        // Databricks with Claude.
        let parts = json!({"content": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "text", "text": "a"}]});
        let seen = good(&done(&[event(&parts, None)]));
        assert_eq!(seen.text("reasoning_content"), "hm");
        assert_eq!(seen.text("content"), "a");
    }

    #[test]
    fn a_list_says_its_reasoning_whatever_stands_beside_it() {
        let body = b"data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"text\":\"hm\"}]}],\"reasoning_content\":null}}]}\n\n";
        let seen = good(&[&body[..], DONE].concat());
        assert_eq!(seen.text("reasoning_content"), "hm");
    }

    #[test]
    fn signatures_in_a_list_are_kept() {
        let parts =
            json!([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm", "signature": "s"}]}]);
        let seen = good(&done(&[event(&json!({"content": parts}), None)]));
        assert_eq!(seen.message()["content_parts"], parts);
        assert_eq!(seen.message()["reasoning_content"], "hm");
    }

    #[test]
    fn other_parts_of_a_list_are_kept() {
        let parts = json!([{"type": "text", "text": "see"}, {"type": "reference", "reference_ids": [1]}]);
        let seen = good(&done(&[event(&json!({"content": parts}), None)]));
        assert_eq!(seen.text("content"), "see");
        assert_eq!(seen.delta(0)["content_parts"], parts);
    }

    #[test]
    fn a_json_value_is_its_text() {
        let seen = good(&done(&[event(&json!({"content": {"name": "Ada"}}), None)]));
        assert_eq!(seen.text("content"), r#"{"name":"Ada"}"#);
    }

    #[test]
    fn think_tags_stay_content() {
        assert_eq!(good(&done(&[text("<think>hm</think>"), text("a")])).text("content"), "<think>hm</think>a");
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let body = [&b"data: {\"choices\":[{\"delta\":{\"content\":\"a\xFFb\"}}]}\n\n"[..], DONE].concat();
        assert_eq!(good(&body).text("content"), "a\u{fffd}b");
    }

    /// Deltas given as JSON text, for what `serde_json` would not write.
    fn raw(deltas: &[&str]) -> Seen {
        let events: Vec<u8> = deltas
            .iter()
            .flat_map(|delta| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n").into_bytes())
            .collect();
        good(&[&events, &sse(&[finish("stop")])[..], DONE].concat())
    }

    #[test]
    fn a_surrogate_pair_cut_between_deltas_is_joined() {
        for name in ["content", "reasoning_content", "refusal"] {
            let seen = raw(&[&format!(r#"{{"{name}":"a\ud83d"}}"#), &format!(r#"{{"{name}":"\ude00b"}}"#)]);
            assert_eq!(seen.text(name), "a😀b");
            assert_eq!(seen.message()[name], "a😀b");
        }
    }

    #[test]
    fn a_half_waits_through_empty_deltas() {
        let seen =
            raw(&[r#"{"content":"\ud83d"}"#, r#"{"content":""}"#, r#"{"content":null}"#, r#"{"content":"\ude00"}"#]);
        assert_eq!(seen.text("content"), "😀");
    }

    #[test]
    fn halves_of_different_fields_do_not_meet() {
        let seen = raw(&[r#"{"content":"\ud83d"}"#, r#"{"reasoning_content":"\ude00"}"#, r#"{"content":"\ude00"}"#]);
        assert_eq!(seen.text("content"), "😀");
        assert_eq!(seen.text("reasoning_content"), "\u{fffd}");
    }

    #[test]
    fn a_half_that_nothing_follows_is_replaced_with_the_finish() {
        let seen = raw(&[r#"{"content":"a\ud83d"}"#]);
        assert_eq!(seen.text("content"), "a\u{fffd}");
        assert_eq!(seen.finish_reasons(), ["stop"]);
    }

    #[test]
    fn a_half_before_another_text_is_replaced_in_its_place() {
        assert_eq!(raw(&[r#"{"content":"\ud83d"}"#, r#"{"content":"x"}"#]).text("content"), "\u{fffd}x");
        let seen =
            raw(&[r#"{"content":"\ud83d"}"#, r#"{"content":[{"type":"text","text":"x"}]}"#, r#"{"content":"y"}"#]);
        assert_eq!(seen.text("content"), "\u{fffd}xy");
    }

    #[test]
    fn a_pair_cut_between_pieces_of_arguments_is_joined() {
        let seen = raw(&[
            r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"\"\ud83d"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"\ude00\""}}]}"#,
        ]);
        assert_eq!(whole_calls(&seen), [call("c", "f", "\"😀\"")]);
    }

    #[test]
    fn a_half_that_arguments_end_with_is_replaced_with_the_finish() {
        let seen = raw(&[
            r#"{"tool_calls":[{"index":3,"id":"c","function":{"name":"f","arguments":"\"\ud83d"}}]}"#,
            r#"{"tool_calls":[{"index":4,"id":"d","function":{"name":"g","arguments":"{}"}}]}"#,
        ]);
        assert_eq!(whole_calls(&seen), [call("c", "f", "\"\u{fffd}"), call("d", "g", "{}")]);
    }

    #[test]
    fn a_half_that_no_finish_follows_is_replaced_at_the_end() {
        let delta =
            r#"{"content":"a\ud83d","tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"\ud83d"}}]}"#;
        let seen = good(&[format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n").as_bytes(), DONE].concat());
        assert_eq!(seen.text("content"), "a\u{fffd}");
        assert_eq!(whole_calls(&seen), [call("c", "f", "\u{fffd}")]);
    }
}

mod reasoning {
    use super::*;

    #[test]
    fn it_has_one_name() {
        for name in ["reasoning_content", "reasoning"] {
            let seen = good(&done(&[event(&json!({name: "hm"}), None), text("a")]));
            assert_eq!(seen.texts("reasoning_content"), ["hm"]);
            assert!(seen.delta(0).get("reasoning").is_none());
        }
    }

    #[test]
    fn the_same_text_under_two_names_is_said_once() {
        let seen = good(&done(&[event(&json!({"reasoning": "hm", "reasoning_content": "hm"}), None)]));
        assert_eq!(seen.message()["reasoning_content"], "hm");
    }

    #[test]
    fn details_beside_it_do_not_say_it_again() {
        let delta =
            json!({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]});
        let seen = good(&done(&[event(&delta, None)]));
        assert_eq!(seen.message()["reasoning_content"], "hm");
        assert_eq!(seen.message()["reasoning_details"][0]["text"], "hm");
    }

    #[test]
    fn details_alone_say_it() {
        for silent in
            [json!({}), json!({"reasoning": null}), json!({"reasoning": ""}), json!({"reasoning_content": null})]
        {
            for (kind, name) in [("reasoning.text", "text"), ("reasoning.summary", "summary")] {
                let mut delta = silent.clone();
                delta["reasoning_details"] = json!([{"type": kind, name: "hm", "index": 0}]);
                let seen = good(&done(&[event(&delta, None)]));
                assert_eq!(seen.text("reasoning_content"), "hm", "{delta}");
            }
        }
    }

    #[test]
    fn encrypted_details_are_kept_and_say_nothing() {
        let details = json!([{"type": "reasoning.encrypted", "data": "b64", "id": "r1", "index": 0}]);
        let seen = good(&done(&[event(&json!({"reasoning": null, "reasoning_details": details}), None)]));
        assert_eq!(seen.text("reasoning_content"), "");
        assert_eq!(seen.message()["reasoning_details"], details);
    }

    #[test]
    fn it_may_come_with_content_null_and_the_reverse() {
        let seen = good(&done(&[
            event(&json!({"role": "assistant", "content": null, "reasoning_content": ""}), None),
            event(&json!({"content": null, "reasoning_content": "hm"}), None),
            event(&json!({"content": "a", "reasoning_content": null}), None),
        ]));
        assert_eq!(seen.text("reasoning_content"), "hm");
        assert_eq!(seen.text("content"), "a");
    }
}

mod tools {
    use super::*;

    fn stream(pieces: &[Value]) -> Seen {
        let mut events = vec![first()];
        events.extend(pieces.iter().map(|piece| calls(piece.clone())));
        events.push(finish("tool_calls"));
        good(&done(&events))
    }

    #[test]
    fn pieces_of_a_call() {
        let seen = stream(&[
            json!([{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 0, "function": {"arguments": "{\"a\""}}]),
            json!([{"index": 0, "function": {"arguments": ":1}"}}]),
        ]);
        assert_eq!(
            seen.calls(),
            [
                &json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}),
                &json!({"index": 0, "function": {"arguments": "{\"a\""}}),
                &json!({"index": 0, "function": {"arguments": ":1}"}}),
            ]
        );
        assert_eq!(whole_calls(&seen), [call("call_1", "f", "{\"a\":1}")]);
    }

    #[test]
    fn calls_side_by_side() {
        let seen = stream(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]),
            json!([{"index": 1, "function": {"arguments": "2"}}]),
            json!([{"index": 0, "function": {"arguments": "1"}}, {"index": 1, "function": {"arguments": "3"}}]),
        ]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "1"), call("b", "g", "23")]);
    }

    #[test]
    fn whole_calls_in_one_delta() {
        let seen = stream(&[json!([
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}])]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "{}"), call("b", "g", "{}")]);
    }

    #[test]
    fn indices_that_start_at_one_are_counted_from_zero() {
        let seen = stream(&[
            json!([{"index": 1, "id": "a", "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 1, "function": {"arguments": "{}"}}]),
            json!([{"index": 5, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
        ]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "{}"), call("b", "g", "{}")]);
        assert_eq!(seen.calls().iter().map(|call| call["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn without_an_index_an_id_begins_a_call_and_none_goes_on() {
        let seen = stream(&[
            json!([{"id": "a", "function": {"name": "f", "arguments": "1"}}, {"id": "b", "function": {"name": "g", "arguments": "2"}}]),
            json!([{"function": {"arguments": "3"}}]),
            json!([{"id": "c", "function": {"name": "h", "arguments": "4"}}]),
        ]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "1"), call("b", "g", "23"), call("c", "h", "4")]);
    }

    #[test]
    fn the_same_index_with_another_id_is_another_call() {
        let seen = stream(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}}]),
            json!([{"index": 0, "id": "b", "function": {"name": "g", "arguments": "2"}}]),
            json!([{"index": 0, "function": {"arguments": "3"}}]),
        ]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "1"), call("b", "g", "23")]);
    }

    #[test]
    fn empty_values_on_later_pieces_overwrite_nothing() {
        for later in [
            json!({"index": 0, "id": "", "type": "function", "function": {"name": "", "arguments": "1"}}),
            json!({"index": 0, "id": null, "type": "", "function": {"name": null, "arguments": "1"}}),
            json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}),
        ] {
            let seen = stream(&[
                json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]),
                json!([later]),
            ]);
            assert_eq!(whole_calls(&seen), [call("a", "f", "1")]);
            assert_eq!(seen.calls()[1], &json!({"index": 0, "function": {"arguments": "1"}}), "{later}");
        }
    }

    #[test]
    fn null_arguments_are_none() {
        let seen = stream(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": null}}]),
            json!([{"index": 0, "function": {"arguments": null}}]),
            json!([{"index": 0, "function": {"arguments": "{}"}}]),
        ]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "{}")]);
        assert_eq!(seen.calls().len(), 2);
    }

    #[test]
    fn arguments_that_are_an_object_become_its_text() {
        let seen = stream(&[json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": [1, "é"]}}}])]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "{\"x\":[1,\"é\"]}")]);
    }

    #[test]
    fn ids_of_any_form_are_kept() {
        for id in ["D681PevKs", "fc_1", "toolu_bdrk_01", "chatcmpl-tool-1", "functions.f:0"] {
            assert_eq!(
                whole_calls(&stream(&[json!([{"index": 0, "id": id, "function": {"name": "f", "arguments": "{}"}}])])),
                [call(id, "f", "{}")]
            );
        }
    }

    #[test]
    fn a_call_without_an_id_gets_one() {
        let seen = stream(&[
            json!([{"index": 0, "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 0, "function": {"arguments": "1"}}]),
            json!([{"index": 1, "function": {"name": "g", "arguments": "2"}}]),
        ]);
        let found = whole_calls(&seen);
        assert_eq!(found.len(), 2);
        assert!(!found[0].0.is_empty() && !found[1].0.is_empty() && found[0].0 != found[1].0, "{found:?}");
        assert_eq!(found[0].3, "1");
        assert!(seen.calls()[1].get("id").is_none());
    }

    #[test]
    fn an_id_that_comes_late_is_the_same_calls() {
        let seen = stream(&[
            json!([{"index": 0, "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 0, "id": "late", "function": {"arguments": "{}"}}]),
        ]);
        let found = whole_calls(&seen);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].2.as_str(), found[0].3.as_str()), ("f", "{}"));
    }

    #[test]
    fn a_name_that_comes_after_the_id_is_taken() {
        let seen = stream(&[
            json!([{"index": 0, "id": "a", "type": "function"}]),
            json!([{"index": 0, "function": {"name": "f"}}]),
            json!([{"index": 0, "function": {"arguments": "{}"}}]),
        ]);
        assert_eq!(whole_calls(&seen), [call("a", "f", "{}")]);
    }

    #[test]
    fn choices_have_calls_of_their_own() {
        let at = |choice: u32, id: &str| json!({"choices": [{"index": choice, "delta": {"tool_calls": [{"index": 0, "id": id, "function": {"name": "f", "arguments": ""}}]}, "finish_reason": "tool_calls"}]});
        let response = good(&sse(&[at(0, "a"), at(1, "b")])).response.unwrap();
        assert_eq!(response["choices"][0]["message"]["tool_calls"][0]["id"], "a");
        assert_eq!(response["choices"][1]["message"]["tool_calls"][0]["id"], "b");
    }

    #[test]
    fn custom_tools_keep_their_input() {
        let seen = stream(&[
            json!([{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": ""}}]),
            json!([{"index": 0, "custom": {"input": "ls "}}]),
            json!([{"index": 0, "custom": {"input": "-l"}}]),
        ]);
        assert_eq!(
            seen.calls()[0],
            &json!({"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": ""}})
        );
        assert_eq!(seen.calls()[1], &json!({"index": 0, "custom": {"input": "ls "}}));
        assert_eq!(
            seen.message()["tool_calls"],
            json!([{"id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}])
        );
    }

    #[test]
    fn the_legacy_function_call() {
        let seen = good(&done(&[
            event(
                &json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": ""}}),
                None,
            ),
            event(&json!({"function_call": {"arguments": "{"}}), None),
            event(&json!({"function_call": {"arguments": "}"}}), None),
            finish("function_call"),
        ]));
        assert_eq!(seen.message()["function_call"], json!({"name": "f", "arguments": "{}"}));
        assert_eq!(seen.finish_reasons(), ["function_call"]);
    }
}

mod finish_reason {
    use super::*;

    fn mapped(reason: &str) -> Seen {
        good(&done(&[text("a"), finish(reason)]))
    }

    #[test]
    fn openais_own_stay() {
        for reason in ["stop", "length", "tool_calls", "content_filter", "function_call"] {
            let seen = mapped(reason);
            assert_eq!(seen.finish_reasons(), [reason]);
            assert!(seen.chunks[1]["choices"][0].get("provider_finish_reason").is_none());
        }
    }

    #[test]
    fn others_are_mapped_and_kept() {
        for (given, expected) in [
            ("eos", "stop"),
            ("end_turn", "stop"),
            ("model_length", "length"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("sensitive", "content_filter"),
            ("something_new", "stop"),
        ] {
            let seen = mapped(given);
            assert_eq!(seen.finish_reasons(), [expected], "{given}");
            assert_eq!(seen.chunks[1]["choices"][0]["provider_finish_reason"], given);
        }
    }

    #[test]
    fn failures_are_errors_after_what_came() {
        for reason in ["insufficient_system_resource", "error", "network_error", "abort"] {
            let (seen, error) = error_of(&done(&[text("a"), event(&json!({"content": "b"}), Some(reason))]));
            assert_eq!(seen.text("content"), "ab", "{reason}");
            assert_eq!(error.class, Class::InternalServer);
            assert!(error.message.contains(reason), "{}", error.message);
            assert!(seen.finish_reasons().is_empty());
        }
    }

    #[test]
    fn a_repeated_one_is_said_once() {
        let seen =
            good(&done(&[text("a"), finish("stop"), finish("stop"), event(&json!({"content": ""}), Some("stop"))]));
        assert_eq!(seen.finish_reasons(), ["stop"]);
        assert_eq!(seen.chunks.len(), 2);
    }

    #[test]
    fn it_may_stand_beside_text_and_calls() {
        let seen = good(&done(&[event(
            &json!({"content": "a", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]}),
            Some("tool_calls"),
        )]));
        assert_eq!(seen.text("content"), "a");
        assert_eq!(whole_calls(&seen), [call("x", "f", "{}")]);
        assert_eq!(seen.finish_reasons(), ["tool_calls"]);
    }

    #[test]
    fn text_after_it_is_not_lost() {
        let seen = good(&done(&[text("a"), finish("stop"), text("b")]));
        assert_eq!(seen.text("content"), "ab");
    }

    #[test]
    fn stop_after_tool_calls_is_tool_calls() {
        for reason in ["stop", "eos"] {
            let seen = good(&done(&[
                calls(json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}])),
                finish(reason),
            ]));
            assert_eq!(seen.finish_reasons(), ["tool_calls"]);
        }
        let at_once = event(
            &json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}),
            Some("stop"),
        );
        assert_eq!(good(&done(&[at_once])).finish_reasons(), ["tool_calls"]);
    }

    #[test]
    fn length_after_tool_calls_stays() {
        let seen = good(&done(&[
            calls(json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}])),
            finish("length"),
        ]));
        assert_eq!(seen.finish_reasons(), ["length"]);
    }

    #[test]
    fn an_empty_one_is_none() {
        let seen = good(&done(&[event(&json!({"content": "a"}), Some("")), finish("stop")]));
        assert_eq!(seen.finish_reasons(), ["stop"]);
        assert_eq!(seen.chunks[0]["choices"][0]["finish_reason"], Value::Null);
    }
}

mod ending {
    use super::*;

    fn decode_as(end: End, body: &[u8]) -> Seen {
        decode(Options { dialect: Dialect { end, ..Dialect::default() }, include_usage: true, ..options() }, body)
    }

    #[test]
    fn a_finish_reason_is_enough() {
        assert_eq!(good(&sse(&[text("a"), finish("stop")])).finish_reasons(), ["stop"]);
    }

    #[test]
    fn the_mark_is_enough() {
        let seen = good(&done(&[text("a")]));
        assert!(seen.finish_reasons().is_empty(), "nothing is invented");
    }

    #[test]
    fn the_mark_is_a_prefix() {
        assert_eq!(good(&[sse(&[text("a")]), b"data: [DONE] \n\n".to_vec()].concat()).error, None);
    }

    #[test]
    fn what_follows_the_mark_is_not_read() {
        let body = [done(&[text("a")]), sse(&[text("b")]), b"data: {broken\n\n".to_vec()].concat();
        assert_eq!(good(&body).text("content"), "a");
    }

    #[test]
    fn neither_is_a_cut() {
        let (seen, error) = error_of(&sse(&[text("a")]));
        assert_eq!(error.class, Class::Connection);
        assert_eq!(seen.text("content"), "a");
        assert_eq!(seen.message()["content"], "a");
        assert!(!seen.ended);
    }

    #[test]
    fn one_choice_of_two_is_a_cut() {
        let at = |index: u32, reason: Option<&str>| json!({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": reason}]});
        let (_, error) = error_of(&sse(&[at(0, None), at(1, None), at(0, Some("stop"))]));
        assert_eq!(error.class, Class::Connection);
    }

    #[test]
    fn nothing_at_all_is_a_cut() {
        for body in [&b""[..], b"\n\n", b": ping\n\n"] {
            assert_eq!(error_of(body).1.class, Class::Connection);
        }
    }

    #[test]
    fn a_cut_names_the_line_that_was_no_event() {
        let body = [sse(&[text("a")]), b"error: {\"message\":\"overloaded\"}\n\n".to_vec()].concat();
        let (_, error) = error_of(&body);
        assert_eq!(error.class, Class::Connection);
        assert!(error.message.contains("overloaded"), "{}", error.message);
    }

    #[test]
    fn a_cut_gives_no_usage_chunk() {
        let seen = decode(with_usage(), &sse(&[text("a")]));
        assert_eq!(seen.chunks.len(), 1);
    }

    #[test]
    fn where_the_mark_alone_counts_a_finish_reason_does_not() {
        assert_eq!(decode_as(End::Done, &sse(&[text("a"), finish("stop")])).error.unwrap().class, Class::Connection);
        assert_eq!(decode_as(End::Done, &done(&[text("a")])).error, None);
    }

    #[test]
    fn where_the_end_of_the_body_counts_anything_will_do() {
        let seen = decode_as(End::Eof, &sse(&[text("a")]));
        assert_eq!(seen.error, None);
        assert_eq!(seen.chunks.len(), 2);
        assert_eq!(decode_as(End::Eof, b"").error.unwrap().class, Class::Connection);
    }

    #[test]
    fn an_unfinished_event_counts_if_it_is_whole() {
        let last = format!("data: {}", finish("stop"));
        let seen = good(&[sse(&[text("a")]), last.into_bytes()].concat());
        assert_eq!(seen.finish_reasons(), ["stop"]);
        assert_eq!(good(&[sse(&[text("a")]), b"data: [DONE]".to_vec()].concat()).text("content"), "a");
    }

    #[test]
    fn an_unfinished_event_that_is_not_whole_is_a_cut() {
        let last = format!("data: {}", finish("stop"));
        let (seen, error) = error_of(&[sse(&[text("a")]), last.as_bytes()[..last.len() - 1].to_vec()].concat());
        assert_eq!(error.class, Class::Connection);
        assert_eq!(seen.text("content"), "a");
    }

    #[test]
    fn an_unfinished_event_that_is_not_whole_is_a_cut_even_after_the_finish() {
        let last = format!("data: {}", usage_event(usage(3, 4)));
        let body = [sse(&[text("a"), finish("stop")]), last.as_bytes()[..last.len() - 1].to_vec()].concat();
        for end in [End::Finish, End::Eof] {
            let seen = decode_as(end, &body);
            assert_eq!(seen.error.expect("a cut").class, Class::Connection);
            assert_eq!(seen.usage, None, "no usage is settled");
        }
    }

    #[test]
    fn an_unfinished_line_without_data_is_no_cut() {
        for rest in [&b": ping"[..], b"data:", b"data: ", b"\n", b"event: x"] {
            let seen = good(&[sse(&[text("a"), finish("stop")]), rest.to_vec()].concat());
            assert_eq!(seen.text("content"), "a");
        }
    }
}

mod usage_chunk {
    use super::*;

    /// Where the usage stands in a stream of two texts.
    fn places() -> Vec<(&'static str, Vec<Value>)> {
        let zeros = usage(0, 0);
        let full = usage(13, 2);
        let x_groq = |usage: Value| json!({"id": "req_1", "usage": usage});
        let in_choice =
            json!({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": full}]});
        vec![
            ("an event of its own", vec![finish("stop"), usage_event(full.clone())]),
            ("an event of its own, twice", vec![finish("stop"), usage_event(full.clone()), usage_event(full.clone())]),
            ("with the finish reason", vec![with(finish("stop"), "usage", full.clone())]),
            (
                "twice with the finish reason",
                vec![with(finish("stop"), "usage", full.clone()), with(finish("stop"), "usage", full.clone())],
            ),
            ("zeros last", vec![with(finish("stop"), "usage", full.clone()), with(finish("stop"), "usage", zeros)]),
            (
                "after the finish reason, with a repeat of it",
                vec![finish("stop"), with(finish("stop"), "usage", full.clone())],
            ),
            (
                "after the finish reason, with an empty delta",
                vec![finish("stop"), with(text(""), "usage", full.clone())],
            ),
            (
                "finish reason beside text, usage in an empty event",
                vec![event(&json!({"content": ""}), Some("stop")), with(text(""), "usage", full.clone())],
            ),
            ("in x_groq", vec![with(finish("stop"), "x_groq", x_groq(full.clone()))]),
            (
                "in x_groq beside a null",
                vec![with(with(finish("stop"), "usage", Value::Null), "x_groq", x_groq(full.clone()))],
            ),
            (
                "in x_groq beside an empty object",
                vec![with(with(finish("stop"), "usage", json!({})), "x_groq", x_groq(full.clone()))],
            ),
            (
                "three times",
                vec![
                    with(with(finish("stop"), "usage", full.clone()), "x_groq", x_groq(full.clone())),
                    usage_event(full.clone()),
                ],
            ),
            ("in the choice", vec![in_choice]),
            (
                "growing on every chunk",
                vec![
                    with(text(""), "usage", usage(13, 0)),
                    with(text(""), "usage", usage(13, 1)),
                    with(finish("stop"), "usage", full.clone()),
                ],
            ),
            (
                "nulls first",
                vec![
                    with(
                        text(""),
                        "usage",
                        json!({"prompt_tokens": 13, "completion_tokens": null, "total_tokens": null}),
                    ),
                    with(finish("stop"), "usage", full),
                ],
            ),
        ]
    }

    fn stream(end: &[Value]) -> Vec<u8> {
        done(&[&[first(), text("a"), text("b")][..], end].concat())
    }

    #[test]
    fn asked_for_it_is_one_chunk_at_the_end_wherever_the_wire_has_it() {
        for (place, end) in places() {
            let seen = decode(with_usage(), &stream(&end));
            assert_eq!(seen.error, None, "{place}");
            let (last, others) = seen.chunks.split_last().unwrap();
            assert_eq!(last["choices"], json!([]), "{place}");
            assert_eq!(last["usage"], usage(13, 2), "{place}");
            for chunk in others {
                assert_eq!(chunk.get("usage"), Some(&Value::Null), "{place}");
            }
            assert_eq!(last["id"], "chatcmpl-1");
            assert_eq!(seen.response.unwrap()["usage"], usage(13, 2), "{place}");
            assert!(seen.usage.unwrap().complete, "{place}");
        }
    }

    #[test]
    fn not_asked_for_there_is_no_chunk_and_no_key_but_the_usage_is_known() {
        for (place, end) in places() {
            let seen = good(&stream(&end));
            for chunk in &seen.chunks {
                assert!(chunk.get("usage").is_none(), "{place}");
            }
            assert_eq!(
                seen.chunks
                    .iter()
                    .filter(|chunk| chunk["choices"] == json!([]) && chunk.get("x_groq").is_none())
                    .count(),
                0,
                "{place}"
            );
            assert_eq!(seen.usage(), usage(13, 2), "{place}");
        }
    }

    #[test]
    fn with_and_without_the_mark() {
        let body = sse(&[text("a"), with(finish("stop"), "usage", usage(1, 2))]);
        assert_eq!(decode(with_usage(), &body).chunks.last().unwrap()["usage"], usage(1, 2));
    }

    #[test]
    fn where_nobody_reported_any_it_is_null() {
        for body in [done(&[text("a"), finish("stop")]), done(&[text("a"), with(finish("stop"), "usage", json!({}))])] {
            let seen = decode(with_usage(), &body);
            let last = seen.chunks.last().unwrap();
            assert_eq!((&last["choices"], last.get("usage")), (&json!([]), Some(&Value::Null)));
            assert_eq!(seen.usage, None);
        }
    }

    #[test]
    fn per_choice_counts_are_corrected_by_the_last_report() {
        // vLLM with continuous_usage_stats and n = 2: each event counts its own choice.
        let at = |index: u32, completion: u32, reason: Option<&str>| json!({"id": "x", "choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": reason}], "usage": usage(5, completion)});
        let body = done(&[
            at(0, 1, None),
            at(1, 1, None),
            at(0, 2, Some("stop")),
            at(1, 2, Some("stop")),
            usage_event(usage(5, 4)),
        ]);
        assert_eq!(good(&body).usage(), usage(5, 4));
    }

    #[test]
    fn a_choices_usage_is_not_taken_away_by_anothers_null() {
        let body = done(&[json!({"choices": [
            {"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage(5, 4)},
            {"index": 1, "delta": {}, "finish_reason": "stop", "usage": null}]})]);
        assert_eq!(good(&body).usage(), usage(5, 4));
    }

    #[test]
    fn timings_of_a_llama_server() {
        let timings = |predicted: u32| json!({"cache_n": 10, "prompt_n": 3, "prompt_ms": 1.5, "predicted_n": predicted, "predicted_ms": 9.25});
        let seen = good(&sse(&[text("a"), with(finish("stop"), "timings", timings(7))]));
        let usage = seen.usage();
        assert_eq!(usage["prompt_tokens"], 13);
        assert_eq!(usage["completion_tokens"], 7);
        assert_eq!(usage["total_tokens"], 20);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 10);
    }

    #[test]
    fn the_last_timings_count() {
        let timings = |predicted: u32| json!({"cache_n": 0, "prompt_n": 3, "predicted_n": predicted});
        let seen = good(&sse(&[
            with(text("a"), "timings", timings(1)),
            with(text("b"), "timings", timings(2)),
            with(finish("stop"), "timings", timings(3)),
        ]));
        assert_eq!(seen.usage()["completion_tokens"], 3);
    }

    #[test]
    fn a_usage_counts_before_timings() {
        let timings = json!({"cache_n": 0, "prompt_n": 3, "predicted_n": 99});
        for body in [
            sse(&[text("a"), with(with(finish("stop"), "timings", timings.clone()), "usage", usage(3, 4))]),
            sse(&[
                with(text("a"), "timings", timings.clone()),
                finish("stop"),
                with(usage_event(usage(3, 4)), "timings", timings.clone()),
            ]),
            sse(&[
                text("a"),
                with(finish("stop"), "usage", usage(3, 4)),
                with(with(text(""), "choices", json!([])), "timings", timings),
            ]),
        ] {
            assert_eq!(good(&body).usage(), usage(3, 4));
        }
    }

    #[test]
    fn it_is_known_as_far_as_it_was_said_while_the_stream_runs() {
        let seen = decode(options(), &sse(&[with(text("a"), "usage", usage(13, 1))]));
        assert_eq!(seen.usage(), usage(13, 1));
        assert!(!seen.usage.unwrap().complete);
    }
}

mod errors_inside {
    use super::*;

    #[test]
    fn an_error_object() {
        let (seen, error) = error_of(&done(&[
            text("a"),
            json!({"error": {"message": "The server had an error", "type": "server_error", "param": null, "code": null}}),
        ]));
        assert_eq!(seen.text("content"), "a");
        assert_eq!(error.class, Class::InternalServer);
        assert_eq!(error.message, "The server had an error");
        assert_eq!(error.details.kind.as_deref(), Some("server_error"));
        assert_eq!(error.details.status, None);
    }

    #[test]
    fn an_error_event_with_its_status() {
        let body = [sse(&[text("a")]), b"event: error\ndata: {\"error\":{\"message\":\"Failed to call a function\",\"type\":\"invalid_request_error\",\"code\":\"tool_use_failed\",\"failed_generation\":\"<f>\",\"status_code\":400}}\n\n".to_vec()].concat();
        let (seen, error) = error_of(&body);
        assert_eq!(seen.text("content"), "a");
        assert_eq!(error.class, Class::BadRequest);
        assert_eq!(error.details.status, Some(400));
        assert_eq!(error.details.code.as_deref(), Some("tool_use_failed"));
        assert!(String::from_utf8_lossy(&error.details.body).contains("failed_generation"));
    }

    #[test]
    fn an_error_beside_choices_and_usage() {
        let event = json!({"id": "gen-1", "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": null}],
            "error": {"code": 400, "message": "Token limit reached"}, "usage": usage(10, 11)});
        let (seen, error) = error_of(&done(&[text("a"), finish("length"), event]));
        assert_eq!(seen.text("content"), "ab");
        assert_eq!(error.class, Class::BadRequest);
        assert_eq!(error.message, "Token limit reached");
        assert_eq!(seen.usage(), usage(10, 11));
        assert!(seen.usage.unwrap().complete);
    }

    #[test]
    fn an_error_with_a_stable_name() {
        let event = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}],
            "error": {"code": 502, "message": "Upstream", "metadata": {"error_type": "provider_overloaded"}}});
        assert_eq!(error_of(&sse(&[text("a"), event])).1.class, Class::ServiceUnavailable);
    }

    #[test]
    fn an_error_that_is_a_string() {
        let (_, error) = error_of(&sse(&[text("a"), json!({"code": "internal", "error": "Something broke"})]));
        assert_eq!(error.message, "Something broke");
        assert_eq!(error.class, Class::InternalServer);
    }

    #[test]
    fn a_detail() {
        assert_eq!(error_of(&sse(&[json!({"detail": "Not enough memory"})])).1.message, "Not enough memory");
    }

    #[test]
    fn an_object_that_says_it_is_an_error() {
        let (_, error) = error_of(&sse(&[
            json!({"object": "error", "message": "This model's maximum context length is 10 tokens", "code": 400}),
        ]));
        assert_eq!(error.class, Class::ContextWindowExceeded);
    }

    #[test]
    fn a_base_resp_that_is_not_zero() {
        let (_, error) = error_of(&sse(&[
            text("a"),
            json!({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
        ]));
        assert_eq!(error.class, Class::PaymentRequired);
        assert_eq!(error.message, "insufficient balance");
        let fine = with(finish("stop"), "base_resp", json!({"status_code": 0, "status_msg": ""}));
        assert_eq!(good(&sse(&[text("a"), fine])).finish_reasons(), ["stop"]);
    }

    #[test]
    fn an_error_in_x_groq() {
        let (_, error) =
            error_of(&sse(&[text("a"), with(text(""), "x_groq", json!({"id": "r", "error": "over capacity"}))]));
        assert!(error.message.contains("over capacity"), "{}", error.message);
    }

    #[test]
    fn prose_in_an_error_event() {
        let body = [sse(&[text("a")]), b"event: error\ndata: upstream connect error\n\n".to_vec()].concat();
        let (_, error) = error_of(&body);
        assert_eq!(error.class, Class::InternalServer);
        assert_eq!(error.message, "upstream connect error");
    }

    #[test]
    fn errors_that_say_nothing_are_none() {
        for nothing in [json!(null), json!(""), json!({}), json!(false), json!([])] {
            let seen = good(&done(&[with(text("a"), "error", nothing), finish("stop")]));
            assert_eq!(seen.text("content"), "a");
        }
    }

    #[test]
    fn broken_json_is_a_validation_error_after_what_came() {
        for broken in ["{broken", "\"text\"", "[1]", "keep-alive", "{}}", "{\"choices\":[}"] {
            let (seen, error) =
                error_of(&[sse(&[text("a")]), format!("data: {broken}\n\n").into_bytes(), sse(&[text("b")])].concat());
            assert_eq!(seen.text("content"), "a", "{broken}");
            assert_eq!(error.class, Class::ResponseValidation, "{broken}");
        }
    }

    #[test]
    fn an_event_beyond_the_limit_is_a_validation_error() {
        let body = [sse(&[text("a")]), format!("data: {}\n\n", "x".repeat(1000)).into_bytes()].concat();
        let seen = decode(Options { max_event_size: 500, ..options() }, &body);
        assert_eq!(seen.text("content"), "a");
        assert_eq!(seen.error.unwrap().class, Class::ResponseValidation);
    }

    #[test]
    fn compressed_input_is_named() {
        for (bytes, name) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04\0", "zstd"),
            (b"\x78\x9c\x01\x02", "deflate"),
        ] {
            for pieces in [vec![bytes], bytes.chunks(1).collect()] {
                let error = common::decode_pieces(options(), pieces).error.expect("an error");
                assert_eq!(error.class, Class::ResponseValidation, "{name}");
                assert!(error.message.contains(name), "{}", error.message);
            }
        }
    }

    #[test]
    fn an_error_stays_an_error() {
        use penstock_core::chunk::{Chunk, Text};
        use penstock_core::decoder::{Decoder, Family};
        use penstock_core::stream::{Part, Sink};

        struct Count(usize);
        impl Sink for Count {
            fn chunk(&mut self, _: &Chunk<'_>) {
                self.0 += 1;
            }
            fn again(&mut self, _: Part, _: &Text<'_>) {
                self.0 += 1;
            }
        }
        let mut decoder = Decoder::new(Family::Chat, options());
        let mut count = Count(0);
        let body = sse(&[text("a"), json!({"error": "boom"}), text("b")]);
        assert_eq!(decoder.feed(&body, &mut count), Ok(()), "first what came before it");
        assert_eq!(count.0, 1);
        let error = decoder.feed(&sse(&[text("c")]), &mut count).unwrap_err();
        assert_eq!(error.message, "boom");
        assert_eq!(decoder.finish(&mut count), Err(error.clone()));
        assert_eq!(decoder.finish(&mut count), Err(error));
        assert_eq!(count.0, 1);
    }
}

mod single_body {
    use super::*;

    fn response(body: &Value) -> Value {
        single(Dialect::default(), body.to_string().as_bytes()).unwrap().0
    }

    #[test]
    fn it_comes_through_as_it_is() {
        let sent = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m", "choices": [{
            "index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": null, "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}]},
            "logprobs": {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}], "refusal": null}, "finish_reason": "stop"}],
            "usage": usage(1, 2), "service_tier": "default", "system_fingerprint": "fp"});
        assert_eq!(response(&sent), sent);
    }

    #[test]
    fn calls_are_counted_by_their_place() {
        let sent = json!({"choices": [{"message": {"content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "a", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            {"type": "function", "function": {"name": "h", "arguments": {"x": 1}}}]}, "finish_reason": "stop"}]});
        let message = &response(&sent)["choices"][0]["message"];
        assert_eq!(message["tool_calls"].as_array().unwrap().len(), 3);
        assert_eq!(message["tool_calls"][1]["function"]["name"], "g");
        assert_eq!(message["tool_calls"][2]["function"]["arguments"], "{\"x\":1}");
        assert_eq!(response(&sent)["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn reasoning_blocks_are_not_merged() {
        let details = json!([{"type": "reasoning.text", "text": "a", "signature": "s1"}, {"type": "reasoning.text", "text": "b", "signature": "s2"}]);
        let sent =
            json!({"choices": [{"message": {"content": "x", "reasoning_details": details}, "finish_reason": "stop"}]});
        let message = &response(&sent)["choices"][0]["message"];
        assert_eq!(message["reasoning_details"], details);
        assert_eq!(message["reasoning_content"], "ab");
    }

    #[test]
    fn content_that_is_an_object_is_its_text() {
        let sent = json!({"choices": [{"message": {"role": "assistant", "content": {"name": "Ada"}}}]});
        assert_eq!(response(&sent)["choices"][0]["message"]["content"], r#"{"name":"Ada"}"#);
    }

    #[test]
    fn an_error_with_status_200_is_one() {
        for body in [
            json!({"error": {"message": "no", "code": 429}}),
            json!({"choices": null, "error": {"message": "no", "code": 429}}),
        ] {
            let error = single(Dialect::default(), body.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.class, Class::RateLimit);
        }
    }

    #[test]
    fn what_is_no_completion_is_a_validation_error() {
        for body in ["{}", "[]", "", "<html>", "{\"object\":\"list\",\"data\":[]}", "{\"choices\":[]"] {
            assert_eq!(
                single(Dialect::default(), body.as_bytes()).unwrap_err().class,
                Class::ResponseValidation,
                "{body}"
            );
        }
    }
}
