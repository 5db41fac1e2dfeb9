//! Usage: which report wins, and what its numbers are brought to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where it fails"
)]

mod common;

use common::{recordings, usage_json};
use penstock_core::usage::{Account, Counts, Reasoning, Usage, openai_counts};
use proptest::prelude::*;
use serde_json::{Value, json};

fn settled(reasoning: Reasoning, reports: &[Value]) -> Option<Usage> {
    let mut account = Account::new(reasoning);
    for report in reports {
        let raw = report.to_string();
        account.report(openai_counts(raw.as_bytes()).unwrap(), raw.as_bytes(), false);
    }
    account.usage().cloned()
}

fn normalised(report: Value) -> Value {
    usage_json(&settled(Reasoning::Inside, &[report]).expect("a report"))
}

fn beside(report: Value) -> Value {
    usage_json(&settled(Reasoning::Beside, &[report]).expect("a report"))
}

fn report(prompt: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

mod what_is_a_report {
    use super::*;

    #[test]
    fn an_object_without_a_count_is_none() {
        for none in [
            json!({}),
            json!({"prompt_tokens": null, "completion_tokens": null, "total_tokens": null}),
            json!({"prompt_tokens_details": null}),
            json!({"prompt_tokens_details": {}}),
            json!({"cost": 0.5, "queue_time": 1.0}),
            json!({"prompt_tokens": "12"}),
            json!({"prompt_tokens": -1}),
        ] {
            assert_eq!(settled(Reasoning::Inside, std::slice::from_ref(&none)), None, "{none}");
        }
    }

    #[test]
    fn one_that_is_none_replaces_nothing() {
        let usage = settled(Reasoning::Inside, &[report(3, 4), json!({}), json!({"prompt_tokens": null})]).unwrap();
        assert_eq!(usage_json(&usage), report(3, 4));
    }

    #[test]
    fn one_count_is_enough() {
        assert_eq!(normalised(json!({"prompt_tokens": 3})), json!({"prompt_tokens": 3}));
        assert_eq!(normalised(json!({"completion_tokens": 0})), json!({"completion_tokens": 0}));
    }

    #[test]
    fn zeros_alone_are_a_report() {
        assert_eq!(normalised(report(0, 0)), report(0, 0));
    }
}

mod which_report_wins {
    use super::*;

    #[test]
    fn the_last_one() {
        let usage = settled(Reasoning::Inside, &[report(3, 1), report(3, 2), report(2, 2)]).unwrap();
        assert_eq!(usage_json(&usage), report(2, 2));
        assert_eq!(usage.raw, report(2, 2).to_string().into_bytes());
    }

    #[test]
    fn as_a_whole() {
        let first = json!({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}, "cost": 1});
        let usage = settled(Reasoning::Inside, &[first, report(3, 2)]).unwrap();
        assert_eq!(usage_json(&usage), report(3, 2), "a field gone in the last report is gone");
    }

    #[test]
    fn copies_are_not_added() {
        let usage = settled(Reasoning::Inside, &[report(3, 2), report(3, 2), report(3, 2)]).unwrap();
        assert_eq!(usage_json(&usage), report(3, 2));
    }

    #[test]
    fn zeros_never_replace_counts() {
        let usage = settled(Reasoning::Inside, &[report(45, 2), report(0, 0)]).unwrap();
        assert_eq!(usage_json(&usage), report(45, 2));
        let usage = settled(Reasoning::Inside, &[report(0, 0), report(45, 2)]).unwrap();
        assert_eq!(usage_json(&usage), report(45, 2));
    }

    #[test]
    fn an_unknown_completion_stays_unknown() {
        let open = json!({"prompt_tokens": 9, "completion_tokens": null, "total_tokens": null});
        let usage = settled(Reasoning::Inside, &[report(8, 1), open]).unwrap();
        assert_eq!(usage_json(&usage), json!({"prompt_tokens": 9}));
    }

    #[test]
    fn zeros_that_are_the_last_word_complete_what_was_known() {
        let mut account = Account::new(Reasoning::Inside);
        for (report, last_word) in [(report(45, 2), false), (report(0, 0), true)] {
            let raw = report.to_string();
            assert!(account.report(openai_counts(raw.as_bytes()).unwrap(), raw.as_bytes(), last_word));
        }
        let usage = account.usage().unwrap();
        assert_eq!((usage.counts.prompt, usage.complete), (Some(45), true));
    }

    #[test]
    fn the_end_of_the_stream_completes_it() {
        let mut account = Account::new(Reasoning::Inside);
        account.close();
        assert_eq!(account.usage(), None);
        account.report(Counts { prompt: Some(1), ..Counts::default() }, b"{}", false);
        assert!(!account.usage().unwrap().complete);
        account.close();
        assert!(account.usage().unwrap().complete);
    }
}

mod details {
    use super::*;

    /// The detail where each server says it.
    fn cached(report: &Value) -> Value {
        normalised(report.clone())["prompt_tokens_details"]["cached_tokens"].clone()
    }

    fn with(name: &str, value: Value) -> Value {
        common::with(report(100, 10), name, value)
    }

    #[test]
    fn cached_tokens_are_found_wherever_they_stand() {
        for place in [
            with("prompt_tokens_details", json!({"cached_tokens": 64})),
            with("prompt_token_details", json!({"cached_tokens": 64})),
            with("cached_tokens", 64.into()),
            with("num_cached_tokens", 64.into()),
            with("prompt_cache_hit_tokens", 64.into()),
            with("cache_read_input_tokens", 64.into()),
        ] {
            assert_eq!(cached(&place), 64, "{place}");
        }
    }

    #[test]
    fn the_usual_place_counts_first_in_any_order() {
        for text in [
            r#"{"prompt_tokens":100,"completion_tokens":1,"num_cached_tokens":7,"prompt_tokens_details":{"cached_tokens":64}}"#,
            r#"{"prompt_tokens_details":{"cached_tokens":64},"prompt_cache_hit_tokens":7,"prompt_tokens":100,"completion_tokens":1}"#,
            r#"{"prompt_tokens":100,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":64},"cached_tokens":null}"#,
        ] {
            assert_eq!(cached(&serde_json::from_str(text).unwrap()), 64, "{text}");
            assert_eq!(openai_counts(text.as_bytes()).unwrap().cached, Some(64), "{text}");
        }
    }

    #[test]
    fn a_cache_miss_is_no_cache_write() {
        let usage = normalised(json!({"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101,
            "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}));
        assert!(usage["prompt_tokens_details"].get("cache_write_tokens").is_none());
    }

    #[test]
    fn cache_writes_are_found_wherever_they_stand() {
        for place in [
            with("prompt_tokens_details", json!({"cache_write_tokens": 20})),
            with("prompt_tokens_details", json!({"cache_creation_input_tokens": 20, "cache_type": "ephemeral"})),
            with("cache_creation_input_tokens", 20.into()),
        ] {
            assert_eq!(normalised(place.clone())["prompt_tokens_details"]["cache_write_tokens"], 20, "{place}");
        }
    }

    #[test]
    fn reasoning_tokens_at_the_top_count_where_there_are_no_details() {
        assert_eq!(normalised(with("reasoning_tokens", 4.into()))["completion_tokens_details"]["reasoning_tokens"], 4);
        let both = common::with(
            with("reasoning_tokens", 4.into()),
            "completion_tokens_details",
            json!({"reasoning_tokens": 5}),
        );
        assert_eq!(normalised(both)["completion_tokens_details"]["reasoning_tokens"], 5);
    }

    #[test]
    fn audio_and_predictions() {
        let sent = json!({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2, "audio_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 5, "accepted_prediction_tokens": 6, "rejected_prediction_tokens": 7}});
        assert_eq!(normalised(sent.clone()), sent);
    }

    #[test]
    fn null_details_are_absent_and_zeros_are_not_invented() {
        let sent = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": null,
            "completion_tokens_details": {"reasoning_tokens": null}});
        let usage = normalised(sent);
        assert!(usage.get("prompt_tokens_details").is_none());
        assert!(usage["completion_tokens_details"].get("reasoning_tokens").is_none());
    }

    #[test]
    fn what_openai_lacks_is_kept() {
        let sent = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.001, "is_byok": false,
            "prompt_tokens_details": {"cached_tokens": 0, "video_tokens": 0, "text_tokens": 1},
            "completion_tokens_details": {"image_tokens": 0}, "queue_time": 0.01});
        assert_eq!(normalised(sent.clone()), sent);
    }

    #[test]
    fn a_count_may_be_written_as_a_float() {
        assert_eq!(
            normalised(json!({"prompt_tokens": 12.0, "completion_tokens": 1e1})),
            json!({"prompt_tokens": 12, "completion_tokens": 10, "total_tokens": 22})
        );
    }
}

mod invariants {
    use super::*;

    #[test]
    fn reasoning_that_the_total_adds_is_added_to_the_completion() {
        // xAI: 12 + 1 + 290 = 303.
        let sent = json!({"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 303, "completion_tokens_details": {"reasoning_tokens": 290}});
        for usage in [normalised(sent.clone()), beside(sent)] {
            assert_eq!(usage["completion_tokens"], 291);
            assert_eq!(usage["total_tokens"], 303);
            assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 290);
        }
    }

    #[test]
    fn more_reasoning_than_completion_is_capped_where_it_is_inside() {
        // OpenRouter: 11 of 10, the total without it.
        let sent = json!({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 11}});
        let usage = normalised(sent);
        assert_eq!(
            (&usage["completion_tokens"], &usage["completion_tokens_details"]["reasoning_tokens"]),
            (&10.into(), &10.into())
        );
        assert_eq!(usage["total_tokens"], 30);
    }

    #[test]
    fn more_reasoning_than_completion_is_added_where_it_is_beside() {
        let sent = json!({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 11}});
        let usage = beside(sent);
        assert_eq!(usage["completion_tokens"], 21);
        assert_eq!(usage["total_tokens"], 41);
    }

    #[test]
    fn reasoning_inside_stays_inside() {
        let sent = json!({"prompt_tokens": 5, "completion_tokens": 122, "total_tokens": 127, "completion_tokens_details": {"reasoning_tokens": 108}});
        assert_eq!(normalised(sent.clone()), sent);
        assert_eq!(beside(sent.clone()), sent);
    }

    #[test]
    fn more_cache_than_prompt_is_added_to_the_prompt() {
        // xAI on Azure: 7 with 161 cached.
        let sent = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 161}});
        let usage = normalised(sent);
        assert_eq!(usage["prompt_tokens"], 168);
        assert_eq!(usage["total_tokens"], 171);
    }

    #[test]
    fn cache_reads_and_writes_count_together() {
        let sent = json!({"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 5}});
        assert_eq!(normalised(sent)["prompt_tokens"], 21);
    }

    #[test]
    fn a_total_that_does_not_add_up_is_left_in_the_raw_object() {
        // Recorded: 35 + 12 = 109.
        let sent = json!({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109});
        let usage = settled(Reasoning::Inside, std::slice::from_ref(&sent)).unwrap();
        assert_eq!(usage_json(&usage)["total_tokens"], 47);
        assert_eq!(usage.counts.reported_total, Some(109));
        assert_eq!(serde_json::from_slice::<Value>(&usage.raw).unwrap(), sent);
    }

    fn count() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![Just(None), (0..50u64).prop_map(Some), any::<u64>().prop_map(Some)]
    }

    proptest! {
        #[test]
        fn details_are_parts_and_the_total_is_the_sum(
            prompt in count(), completion in count(), total in count(), cached in count(), written in count(), reasoning in count(), is_beside: bool,
        ) {
            let counts = Counts { prompt, completion, reported_total: total, cached, cache_write: written, reasoning, ..Counts::default() };
            let mut account = Account::new(if is_beside { Reasoning::Beside } else { Reasoning::Inside });
            let is_report = account.report(counts, b"{}", false);
            prop_assert_eq!(is_report, account.usage().is_some());
            let Some(usage) = account.usage() else {
                return Ok(());
            };
            let counts = &usage.counts;
            if let Some(prompt) = counts.prompt {
                prop_assert!(counts.cached.unwrap_or(0).saturating_add(counts.cache_write.unwrap_or(0)) <= prompt);
            }
            if let (Some(completion), Some(reasoning)) = (counts.completion, counts.reasoning) {
                prop_assert!(reasoning <= completion);
            }
            prop_assert_eq!(counts.total(), counts.prompt.zip(counts.completion).map(|(p, c)| p.saturating_add(c)));
            // Unknown stays unknown.
            prop_assert_eq!((counts.prompt.is_some(), counts.completion.is_some()), (prompt.is_some(), completion.is_some()));
            usage_json(usage);
        }

        #[test]
        fn any_json_object_is_read_without_a_panic(text in "\\{(\"(prompt_tokens|completion_tokens|total_tokens|prompt_tokens_details|cached_tokens)\":(null|-?(0|[1-9][0-9]{0,24})|\\{\"cached_tokens\":[1-9][0-9]{0,24}\\}|\\[\\]|\"x\"),){0,6}\"a\":1\\}") {
            let counts = openai_counts(text.as_bytes()).unwrap();
            let mut account = Account::new(Reasoning::Inside);
            if account.report(counts, text.as_bytes(), true) {
                usage_json(account.usage().unwrap());
            }
        }
    }
}

/// The rules of the chat family once more, straight from the table, on JSON values.
fn expected(raw: &Value, is_beside: bool) -> Value {
    let number = |value: &Value| value.as_u64();
    let prompt_details = &raw["prompt_tokens_details"];
    let first = |values: &[&Value]| values.iter().find_map(|value| number(value));
    let mut prompt = number(&raw["prompt_tokens"]);
    let mut completion = number(&raw["completion_tokens"]);
    let total = number(&raw["total_tokens"]);
    let cached = first(&[
        &prompt_details["cached_tokens"],
        &raw["num_cached_tokens"],
        &raw["cached_tokens"],
        &raw["prompt_token_details"]["cached_tokens"],
        &raw["prompt_cache_hit_tokens"],
        &raw["cache_read_input_tokens"],
    ]);
    let written = first(&[
        &prompt_details["cache_write_tokens"],
        &prompt_details["cache_creation_input_tokens"],
        &raw["cache_creation_input_tokens"],
    ]);
    let mut reasoning = first(&[&raw["completion_tokens_details"]["reasoning_tokens"], &raw["reasoning_tokens"]]);
    if let (Some(p), Some(c), Some(r), Some(t)) = (prompt, completion, reasoning, total)
        && t != p + c
        && t == p + c + r
    {
        completion = Some(c + r);
    }
    let cache = cached.unwrap_or(0) + written.unwrap_or(0);
    prompt = prompt.map(|p| if cache > p { p + cache } else { p });
    if let (Some(c), Some(r)) = (completion, reasoning)
        && r > c
    {
        if is_beside {
            completion = Some(c + r);
        } else {
            reasoning = Some(c);
        }
    }
    json!([prompt, completion, prompt.zip(completion).map(|(p, c)| p + c), cached, written, reasoning])
}

#[test]
fn recorded_usage_is_normalised_by_the_table() {
    let mut count = 0;
    for recording in recordings() {
        let raw = &recording.row["usage_raw"];
        // A stream in which a breakdown per model comes after the usage: its last object is not the one to bill.
        let path = recording.row["usage_path"].as_str().unwrap_or_default();
        if raw.is_null() || path.contains("models[]") {
            continue;
        }
        let wire = recording.wire();
        let usage = if recording.is_stream() {
            common::decode(common::Options { dialect: recording.dialect(), ..common::options() }, &wire).usage
        } else {
            common::single(recording.dialect(), &wire).unwrap().1
        };
        let usage = usage.unwrap_or_else(|| panic!("no usage in {}", recording.file));
        let found = usage_json(&usage);
        let prompt = &found["prompt_tokens_details"];
        let found = json!([
            found["prompt_tokens"],
            found["completion_tokens"],
            found["total_tokens"],
            prompt["cached_tokens"],
            prompt["cache_write_tokens"],
            found["completion_tokens_details"]["reasoning_tokens"]
        ]);
        let is_beside = recording.dialect().reasoning == Reasoning::Beside;
        // Zeros at the end replace nothing: then an earlier report is the one to compare with.
        let zeros = raw.as_object().unwrap().values().all(|value| value.is_null() || *value == 0);
        let raw = if zeros { &serde_json::from_slice::<Value>(&usage.raw).unwrap() } else { raw };
        assert_eq!(found, expected(raw, is_beside), "{}", recording.file);
        count += 1;
    }
    assert!(count == 0 || count > 100, "only {count} recordings");
}
