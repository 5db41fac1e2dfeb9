//! Error bodies: every shape, its class, and how long to wait.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test stops where it fails; the seconds are exact")]

mod common;

use penstock_core::error::{Class, Error};
use penstock_core::json::Value as Json;
use penstock_core::wire::{from_response, from_value};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: f64 = 1_700_000_000.0;

fn error(status: u16, body: &Value) -> Error {
    from_response(status, &[], body.to_string().as_bytes(), NOW)
}

fn inside(body: &Value) -> Error {
    let text = body.to_string();
    from_value(None, &Json::parse(text.as_bytes()).unwrap(), text.as_bytes())
}

fn class(status: u16, body: &Value) -> Class {
    error(status, body).class
}

/// An OpenAI-shaped body.
fn openai(message: &str, kind: &str, code: &Value) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

mod shape {
    use super::*;

    fn message(body: &Value) -> String {
        error(400, body).message
    }

    #[test]
    fn openai_and_most_others() {
        let error = error(
            400,
            &json!({"error": {"message": "Bad value", "type": "invalid_request_error", "param": "top_p", "code": "invalid_value"}}),
        );
        assert_eq!(error.message, "Bad value");
        assert_eq!(error.details.kind.as_deref(), Some("invalid_request_error"));
        assert_eq!(error.details.param.as_deref(), Some("top_p"));
        assert_eq!(error.details.code.as_deref(), Some("invalid_value"));
        assert_eq!(error.details.status, Some(400));
    }

    #[test]
    fn a_code_that_is_a_number() {
        let error = error(
            429,
            &json!({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "slow down", "provider_name": "X"}}, "user_id": "u"}),
        );
        assert_eq!(error.message, "Provider returned error");
        assert_eq!(error.details.code.as_deref(), Some("429"));
        assert!(String::from_utf8_lossy(&error.details.body).contains("slow down"));
    }

    #[test]
    fn a_code_that_is_digits() {
        assert_eq!(
            error(401, &json!({"error": {"code": "401", "message": "Access denied"}})).class,
            Class::Authentication
        );
    }

    #[test]
    fn a_status_name_with_details() {
        let body = json!({"error": {"code": 400, "message": "Bad", "status": "INVALID_ARGUMENT", "details": []}});
        let error = error(400, &body);
        assert_eq!(error.message, "Bad");
        assert_eq!(error.details.kind.as_deref(), Some("INVALID_ARGUMENT"));
    }

    #[test]
    fn an_array_around_it() {
        assert_eq!(message(&json!([{"error": {"code": 400, "message": "Bad", "status": "INVALID_ARGUMENT"}}])), "Bad");
    }

    #[test]
    fn a_type_beside_it_and_a_request_id() {
        let error = error(
            400,
            &json!({"type": "error", "error": {"type": "invalid_request_error", "message": "Bad"}, "request_id": "req_1"}),
        );
        assert_eq!(error.message, "Bad");
        assert_eq!(error.details.kind.as_deref(), Some("invalid_request_error"));
        assert_eq!(error.details.request_id.as_deref(), Some("req_1"));
    }

    #[test]
    fn an_error_that_is_a_string() {
        let error = error(400, &json!({"code": "invalid-argument", "error": "Bad argument"}));
        assert_eq!(error.message, "Bad argument");
        assert_eq!(error.details.code.as_deref(), Some("invalid-argument"));
        assert_eq!(message(&json!({"error": "model 'x' not found"})), "model 'x' not found");
    }

    #[test]
    fn a_message_alone() {
        assert_eq!(message(&json!({"message": "text", "id": "1"})), "text");
        assert_eq!(message(&json!({"Message": "text"})), "text");
    }

    #[test]
    fn a_detail() {
        assert_eq!(message(&json!({"detail": "Unauthorized"})), "Unauthorized");
        let list = json!({"detail": [{"loc": ["body", "x"], "msg": "field required", "type": "missing"}, {"msg": "too short"}]});
        assert_eq!(message(&list), "field required; too short");
    }

    #[test]
    fn an_object_that_says_it_is_an_error() {
        let error = error(
            400,
            &json!({"object": "error", "message": "text", "type": "BadRequestError", "param": null, "code": 400}),
        );
        assert_eq!(error.message, "text");
        assert_eq!(error.details.kind.as_deref(), Some("BadRequestError"));
    }

    #[test]
    fn a_list_of_errors() {
        assert_eq!(message(&json!({"success": false, "errors": [{"code": 7003, "message": "No route"}]})), "No route");
        assert_eq!(message(&json!({"errors": [{"code": "x", "message": "text"}], "trace": "t"})), "text");
    }

    #[test]
    fn an_error_code() {
        let error = error(400, &json!({"error_code": "BAD_REQUEST", "message": "text"}));
        assert_eq!((error.message.as_str(), error.details.code.as_deref()), ("text", Some("BAD_REQUEST")));
    }

    #[test]
    fn a_code_a_message_and_a_request_id() {
        let error = error(400, &json!({"code": "InvalidParameter", "message": "text", "request_id": "r"}));
        assert_eq!(error.details.code.as_deref(), Some("InvalidParameter"));
        assert_eq!(error.details.request_id.as_deref(), Some("r"));
    }

    #[test]
    fn a_base_resp() {
        for (code, class) in [
            (1004, Class::Authentication),
            (1008, Class::PaymentRequired),
            (1002, Class::RateLimit),
            (1039, Class::RateLimit),
            (1026, Class::ContentPolicyViolation),
            (1027, Class::ContentPolicyViolation),
            (2013, Class::BadRequest),
            (1000, Class::InternalServer),
        ] {
            let error = inside(&json!({"base_resp": {"status_code": code, "status_msg": "text"}}));
            assert_eq!((error.message.as_str(), error.class), ("text", class), "{code}");
        }
    }

    #[test]
    fn a_base_resp_of_success_decides_nothing() {
        assert_eq!(
            class(401, &json!({"base_resp": {"status_code": 0}, "error": {"message": "no"}})),
            Class::Authentication
        );
    }

    #[test]
    fn text_that_is_no_json() {
        let error = from_response(502, &[], b"<html>Bad gateway</html>\n", NOW);
        assert_eq!((error.message.as_str(), error.class), ("<html>Bad gateway</html>", Class::BadGateway));
        let long = "é".repeat(1000);
        assert!(from_response(500, &[], long.as_bytes(), NOW).message.len() <= 503);
    }

    #[test]
    fn nothing_at_all() {
        let error = from_response(503, &[], b"", NOW);
        assert_eq!(error.class, Class::ServiceUnavailable);
        assert!(error.message.contains("503"), "{}", error.message);
    }

    #[test]
    fn the_body_is_kept_and_bounded() {
        let body = json!({"error": {"message": "x".repeat(100_000)}});
        assert_eq!(error(400, &body).details.body.len(), 64 * 1024);
    }

    #[test]
    fn the_request_id_of_the_headers_counts_first() {
        for name in ["x-request-id", "Request-Id", "x-amzn-RequestId", "apim-request-id", "X-Generation-Id"] {
            let error = from_response(400, &[(name, "h")], br#"{"request_id":"b"}"#, NOW);
            assert_eq!(error.details.request_id.as_deref(), Some("h"), "{name}");
        }
        assert_eq!(
            from_response(400, &[("x-request-id", "")], br#"{"request_id":"b"}"#, NOW).details.request_id.as_deref(),
            Some("b")
        );
    }
}

mod by_status {
    use super::*;

    #[test]
    fn the_table() {
        for (status, expected) in [
            (400, Class::BadRequest),
            (401, Class::Authentication),
            (402, Class::PaymentRequired),
            (403, Class::PermissionDenied),
            (404, Class::NotFound),
            (408, Class::Timeout),
            (409, Class::Conflict),
            (413, Class::BadRequest),
            (415, Class::BadRequest),
            (422, Class::UnprocessableEntity),
            (424, Class::ServiceUnavailable),
            (429, Class::RateLimit),
            (500, Class::InternalServer),
            (501, Class::InternalServer),
            (502, Class::BadGateway),
            (503, Class::ServiceUnavailable),
            (504, Class::Timeout),
            (529, Class::ServiceUnavailable),
        ] {
            assert_eq!(class(status, &json!({"error": {"message": "text"}})), expected, "{status}");
        }
    }

    #[test]
    fn the_status_of_the_response_counts_before_one_in_the_body() {
        assert_eq!(class(503, &json!({"error": {"message": "text", "code": 429}})), Class::ServiceUnavailable);
    }
}

mod by_mark {
    use super::*;

    #[test]
    fn context_window() {
        let long = |message: &str| openai(message, "invalid_request_error", &Value::Null);
        let cases = [
            (400, openai("too long", "invalid_request_error", &"context_length_exceeded".into())),
            (400, long("This model's maximum context length is 131072 tokens. However, you requested ...")),
            (400, json!({"error": {"message": "x", "type": "too_many_prompt_tokens", "code": 400}})),
            (
                400,
                json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "x", "n_prompt_tokens": 9, "n_ctx": 4}}),
            ),
            (500, json!({"error": {"code": 500, "message": "the request exceeds the available context size"}})),
            (400, json!({"error": "prompt too long; exceeded max context length by 4 tokens"})),
            (400, json!({"message": "Current length is 9000 while limit is 8192", "type": "invalid_request_error"})),
            (400, json!({"error": {"message": "Your input exceeds the context window of this model."}})),
            (400, json!({"message": "too many tokens: total number of tokens"})),
            (413, long("Request too large")),
            (
                422,
                json!({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048", "error_type": "validation"}),
            ),
            (400, long("input length and `max_tokens` exceed context limit: 1 + 2 > 3")),
            (400, long("The total length of all messages is too long")),
            (400, long("Range of input length: the maximum input length is 30720 tokens")),
            (
                400,
                json!({"error": {"message": "x", "code": 400, "metadata": {"error_type": "context_length_exceeded"}}}),
            ),
        ];
        for (status, body) in cases {
            assert_eq!(class(status, &body), Class::ContextWindowExceeded, "{body}");
        }
    }

    #[test]
    fn not_context_window() {
        let field = openai(
            "Invalid 'user': string too long. Expected a string with maximum length 64, but got 80 instead.",
            "invalid_request_error",
            &"string_above_max_length".into(),
        );
        assert_eq!(class(400, &field), Class::BadRequest);
        let prompt = openai(
            "Invalid 'messages[0].content': string too long, the prompt is too long",
            "invalid_request_error",
            &"string_above_max_length".into(),
        );
        assert_eq!(class(400, &prompt), Class::BadRequest);
        let minute = openai(
            "Request too large for model `x` in organization `o` on tokens per minute (TPM): Limit 6000",
            "tokens",
            &"rate_limit_exceeded".into(),
        );
        assert_eq!(class(413, &minute), Class::RateLimit);
        assert_eq!(class(429, &minute), Class::RateLimit);
        assert_eq!(class(404, &openai("maximum context length", "x", &Value::Null)), Class::NotFound);
    }

    #[test]
    fn content_policy() {
        let cases = [
            (400, openai("Your request was rejected as a result of our safety system.", "x", &Value::Null)),
            (400, openai("x", "invalid_request_error", &"content_policy_violation".into())),
            (400, openai("Invalid prompt", "invalid_request_error", &"invalid_prompt".into())),
            (
                400,
                json!({"error": {"code": "content_filter", "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}}}),
            ),
            (
                400,
                json!({"error": {"code": null, "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
            ),
            (
                400,
                openai(
                    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                    "x",
                    &Value::Null,
                ),
            ),
            (
                403,
                json!({"error": {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["violence"], "flagged_input": "x"}}}),
            ),
            (
                403,
                json!({"error": {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["violence"]}}}),
            ),
        ];
        for (status, body) in cases {
            assert_eq!(class(status, &body), Class::ContentPolicyViolation, "{body}");
        }
    }

    #[test]
    fn authentication() {
        for body in [
            json!({"code": "invalid-argument", "error": "Incorrect API key provided: ab***cd."}),
            json!({"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}),
        ] {
            assert_eq!(class(400, &body), Class::Authentication, "{body}");
        }
        let deepseek = openai("Authentication Fails", "authentication_error", &"invalid_request_error".into());
        assert_eq!(class(401, &deepseek), Class::Authentication);
        assert_eq!(inside(&deepseek).class, Class::Authentication, "the type is to be trusted, not the code");
    }

    #[test]
    fn not_found() {
        assert_eq!(
            class(
                400,
                &openai("The requested model 'x' does not exist.", "invalid_request_error", &"model_not_found".into())
            ),
            Class::NotFound
        );
        assert_eq!(class(404, &json!({"error": {"code": "DeploymentNotFound", "message": "x"}})), Class::NotFound);
    }

    #[test]
    fn quota_and_credit() {
        assert_eq!(
            class(429, &openai("You exceeded your current quota", "insufficient_quota", &"insufficient_quota".into())),
            Class::RateLimit
        );
        assert_eq!(
            class(402, &openai("Insufficient Balance", "unknown_error", &"invalid_request_error".into())),
            Class::PaymentRequired
        );
        assert_eq!(
            class(429, &json!({"error": {"code": "RateLimitReached", "message": "x", "details": "y"}})),
            Class::RateLimit
        );
    }

    #[test]
    fn plain_bad_requests() {
        for code in ["unsupported_parameter", "unsupported_value", "invalid_value", "tool_use_failed"] {
            assert_eq!(class(400, &openai("x", "invalid_request_error", &code.into())), Class::BadRequest, "{code}");
        }
        assert_eq!(class(422, &json!({"detail": [{"msg": "field required"}]})), Class::UnprocessableEntity);
    }

    #[test]
    fn an_overloaded_model_is_no_limit_of_the_caller() {
        assert_eq!(
            class(429, &json!({"error": "Model is overloaded", "error_type": "overloaded"})),
            Class::ServiceUnavailable
        );
        assert_eq!(
            class(503, &openai("The engine is currently overloaded. Slow down", "server_error", &Value::Null)),
            Class::ServiceUnavailable
        );
    }

    #[test]
    fn stable_names() {
        for (name, expected) in [
            ("max_tokens_exceeded", Class::BadRequest),
            ("token_limit_exceeded", Class::ContextWindowExceeded),
            ("string_too_long", Class::BadRequest),
            ("authentication", Class::Authentication),
            ("permission_denied", Class::PermissionDenied),
            ("payment_required", Class::PaymentRequired),
            ("rate_limit_exceeded", Class::RateLimit),
            ("provider_overloaded", Class::ServiceUnavailable),
            ("provider_unavailable", Class::ServiceUnavailable),
            ("invalid_request", Class::BadRequest),
            ("invalid_prompt", Class::BadRequest),
            ("not_found", Class::NotFound),
            ("precondition_failed", Class::BadRequest),
            ("payload_too_large", Class::BadRequest),
            ("unprocessable", Class::UnprocessableEntity),
            ("content_policy_violation", Class::ContentPolicyViolation),
            ("refusal", Class::ContentPolicyViolation),
            ("invalid_image", Class::BadRequest),
            ("server", Class::InternalServer),
            ("timeout", Class::Timeout),
        ] {
            let body = json!({"error": {"message": "x", "code": 418, "metadata": {"error_type": name}}});
            assert_eq!(class(418, &body), expected, "{name}");
        }
        let unmapped = json!({"error": {"message": "x", "code": 503, "metadata": {"error_type": "unmapped"}}});
        assert_eq!(class(503, &unmapped), Class::ServiceUnavailable);
    }
}

mod without_a_status {
    use super::*;

    #[test]
    fn a_code_from_400_to_599_is_one() {
        for (code, class) in
            [(400, Class::BadRequest), (402, Class::PaymentRequired), (429, Class::RateLimit), (502, Class::BadGateway)]
        {
            let error = inside(&json!({"error": {"code": code, "message": "x"}}));
            assert_eq!((error.class, error.details.status), (class, Some(code)));
        }
        for code in [json!(0), json!(200), json!(600), json!(-1), json!(99_999_999_999u64)] {
            assert_eq!(
                inside(&json!({"error": {"code": code, "message": "x"}})).class,
                Class::InternalServer,
                "{code}"
            );
        }
    }

    #[test]
    fn a_status_code_is_one() {
        let error = inside(&json!({"error": {"message": "x", "code": "tool_use_failed", "status_code": 400}}));
        assert_eq!((error.class, error.details.status), (Class::BadRequest, Some(400)));
        assert_eq!(inside(&json!({"message": "x", "status_code": 503})).class, Class::ServiceUnavailable);
    }

    #[test]
    fn types_and_codes_by_name() {
        for (name, class) in [
            ("rate_limit_exceeded", Class::RateLimit),
            ("insufficient_quota", Class::RateLimit),
            ("overloaded_error", Class::ServiceUnavailable),
            ("invalid_request_error", Class::BadRequest),
            ("authentication_error", Class::Authentication),
            ("server_error", Class::InternalServer),
            ("context_length_exceeded", Class::ContextWindowExceeded),
        ] {
            assert_eq!(inside(&json!({"error": {"message": "x", "type": name}})).class, class, "type {name}");
            assert_eq!(inside(&json!({"error": {"message": "x", "code": name}})).class, class, "code {name}");
        }
    }
}

mod retry_after {
    use super::*;

    fn wait(headers: &[(&str, &str)], body: &Value) -> Option<f64> {
        from_response(429, headers, body.to_string().as_bytes(), NOW).details.retry_after
    }

    fn header(headers: &[(&str, &str)]) -> Option<f64> {
        wait(headers, &json!({}))
    }

    fn said(message: &str) -> Option<f64> {
        wait(&[], &openai(message, "x", &Value::Null))
    }

    #[test]
    fn nowhere() {
        assert_eq!(header(&[]), None);
    }

    #[test]
    fn milliseconds_count_first() {
        assert_eq!(header(&[("retry-after", "9"), ("Retry-After-Ms", "1500")]), Some(1.5));
    }

    #[test]
    fn seconds() {
        assert_eq!(header(&[("Retry-After", "9")]), Some(9.0));
        assert_eq!(header(&[("retry-after", " 0.25 ")]), Some(0.25));
    }

    #[test]
    fn a_date() {
        assert_eq!(header(&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]), Some(30.0));
        assert_eq!(header(&[("retry-after", "Tue, 14 Nov 2023 22:13:10 GMT")]), None, "the past");
        assert_eq!(header(&[("retry-after", "soon")]), None);
    }

    #[test]
    fn zero_and_less_are_passed_over() {
        // Recorded at Azure.
        assert_eq!(header(&[("retry-after-ms", "0"), ("retry-after", "1")]), Some(1.0));
        assert_eq!(header(&[("retry-after-ms", "-5"), ("retry-after", "0")]), None);
    }

    #[test]
    fn what_is_no_time_is_passed_over() {
        for text in ["inf", "-inf", "NaN", "1e999", "", "1s"] {
            assert_eq!(header(&[("retry-after", text), ("x-ratelimit-reset-requests", "2s")]), Some(2.0), "{text}");
        }
    }

    #[test]
    fn a_delay_in_the_details() {
        let body = json!({"error": {"code": 429, "message": "Quota", "details": [{"@type": "help"}, {"@type": "RetryInfo", "retryDelay": "48s"}]}});
        assert_eq!(wait(&[], &body), Some(48.0));
        assert_eq!(wait(&[], &json!([body])), Some(48.0), "in an array");
        assert_eq!(wait(&[("retry-after", "3")], &body), Some(3.0));
        for wrong in ["infs", "NaNs", "-1s", "0s", "48", "s", ""] {
            assert_eq!(wait(&[], &json!({"error": {"details": [{"retryDelay": wrong}]}})), None, "{wrong}");
        }
    }

    #[test]
    fn a_delay_in_prose() {
        for (message, seconds) in [
            ("Rate limit reached. Please try again in 1.5s. Visit ...", 1.5),
            ("Please retry in 48.9s.", 48.9),
            ("Please try again in 350ms.", 0.35),
            ("Please try again in 20 seconds", 20.0),
            ("Please try again in 2 minutes.", 120.0),
            ("Please try again in 350 milliseconds", 0.35),
            ("Please try again in 6m0s.", 360.0),
            ("Please try again in 1m26.5s.", 86.5),
            ("Please try again in 1h2m3s", 3723.0),
            ("Please Try Again In 7s", 7.0),
        ] {
            assert_eq!(said(message), Some(seconds), "{message}");
        }
        for message in [
            "try again in a moment",
            "retry in",
            "try again in 0s",
            "try again in 5 parsecs",
            &format!("try again in {}s", "9".repeat(400)),
        ] {
            assert_eq!(said(message), None, "{message}");
        }
    }

    #[test]
    fn limits_that_reset() {
        for (text, seconds) in
            [("12ms", 0.012), ("6m0s", 360.0), ("7.66s", 7.66), ("2m59.5s", 179.5), ("1h30m", 5400.0)]
        {
            for name in ["x-ratelimit-reset-requests", "X-RateLimit-Reset-Tokens"] {
                assert_eq!(header(&[(name, text)]), Some(seconds), "{name}: {text}");
            }
        }
        assert_eq!(header(&[("x-ratelimit-reset-requests", "0s"), ("x-ratelimit-reset-tokens", "3s")]), Some(3.0));
        assert_eq!(header(&[("anthropic-ratelimit-tokens-reset", "2023-11-14T22:13:50Z")]), Some(30.0));
        assert_eq!(header(&[("anthropic-ratelimit-requests-reset", "2023-11-14T22:13:10Z")]), None);
    }

    #[test]
    fn limits_are_the_last_resort() {
        assert_eq!(
            wait(&[("x-ratelimit-reset-requests", "60s")], &openai("try again in 2s", "x", &Value::Null)),
            Some(2.0)
        );
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("error"),
        Just("message"),
        Just("code"),
        Just("type"),
        Just("status"),
        Just("status_code"),
        Just("detail"),
        Just("errors"),
        Just("msg"),
        Just("base_resp"),
        Just("metadata"),
        Just("error_type"),
        Just("details"),
        Just("retryDelay"),
        Just("innererror"),
        Just("x_groq"),
        Just("request_id"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (390..610).prop_map(Value::from),
        "(try again in )?[0-9]{0,30}[.]?[0-9]{0,3}(s|ms|m|h|é)?".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

fn check(status: u16, headers: &[(&str, &str)], body: &[u8]) {
    let error = from_response(status, headers, body, NOW);
    assert!(!error.message.is_empty());
    assert!(error.details.body.len() <= 64 * 1024);
    assert!(
        error.details.retry_after.is_none_or(|seconds| seconds > 0.0 && seconds.is_finite()),
        "{:?}",
        error.details.retry_after
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_bytes_are_an_error(status in 400..600u16, body in prop::collection::vec(any::<u8>(), 0..300)) {
        check(status, &[], &body);
    }

    #[test]
    fn any_document_is_an_error(status in 400..600u16, body in anything()) {
        check(status, &[], body.to_string().as_bytes());
        inside(&body);
    }

    #[test]
    fn any_header_is_read_without_a_panic(
        name in prop_oneof![
            Just("retry-after"), Just("retry-after-ms"), Just("x-ratelimit-reset-requests"), Just("x-ratelimit-reset-tokens"),
            Just("anthropic-ratelimit-requests-reset"), Just("x-request-id"),
        ],
        value in prop_oneof![
            any::<String>(), "[0-9]{0,25}(\\.[0-9]{0,12})?(ms|s|m|h|µs|ns|d|y)?([0-9]{1,20}s)?", "[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
            "(Mon|Tue), [0-9]{2} (Nov|Feb) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        ],
    ) {
        check(429, &[(name, value.as_str())], b"{}");
    }
}
