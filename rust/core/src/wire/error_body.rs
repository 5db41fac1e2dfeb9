//! Error bodies. Every gateway passes others' errors on, so one reader knows all their shapes.

use std::time::{Duration, UNIX_EPOCH};

use crate::error::{Class, Details, Error};
use crate::json::Value;

/// How much of a body an error keeps, and how much of it becomes the message where it is no JSON.
const BODY_LIMIT: usize = 64 * 1024;
const TEXT_LIMIT: usize = 500;

/// The error of a response with a status of 400 and above. `now` is Unix seconds, for dates in headers.
#[must_use]
pub fn from_response(status: u16, headers: &[(&str, &str)], body: &[u8], now: f64) -> Error {
    let value = Value::parse(body).unwrap_or(Value::Null);
    let value = unwrapped(&value);
    let header = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, text)| *text);
    let mut error = match header("x-amzn-errortype") {
        Some(name) => from_exception(Some(status), name, body),
        None => from_value(Some(status), value, body),
    };
    let ids = ["x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "x-generation-id"];
    let id = ids.into_iter().find_map(header).filter(|id| !id.is_empty());
    error.details.request_id = id.map(str::to_owned).or(error.details.request_id);
    error.details.retry_after = retry_after(&header, value, &error.message, now);
    error
}

/// The error that a JSON body tells of, or plain text where `value` is null. Without a status the body decides alone.
#[must_use]
pub fn from_value(status: Option<u16>, value: &Value<'_>, body: &[u8]) -> Error {
    let value = unwrapped(value);
    let inner = match value.get("error") {
        Some(inner @ Value::Object(_)) => inner,
        _ => value.get("x_groq").and_then(|x| x.get("error")).filter(|e| e.get("message").is_some()).unwrap_or(value),
    };
    let text = |name: &str| inner.get(name).or_else(|| value.get(name)).and_then(said);
    let code = text("code").or_else(|| text("error_code"));
    let kind = text("type").or_else(|| text("status")).or_else(|| text("error_type"));
    let message = message(value, inner).unwrap_or_else(|| {
        let start = String::from_utf8_lossy(body.get(..body.len().min(TEXT_LIMIT)).unwrap_or_default());
        match (start.trim(), status) {
            ("", Some(status)) => format!("the server answered with status {status} and no message"),
            ("", None) => "the server reported an error without a message".to_owned(),
            (start, _) => start.to_owned(),
        }
    });
    let told = told_status(value, inner);
    let class = classify(status, told, inner, value, &message, code.as_deref(), kind.as_deref());
    let details = Details {
        status: status.or(told),
        code,
        kind,
        param: text("param"),
        body: body.get(..body.len().min(BODY_LIMIT)).unwrap_or_default().to_vec(),
        retry_after: None,
        request_id: value.get("request_id").or_else(|| inner.get("request_id")).and_then(said),
    };
    Error { class, message, details: Box::new(details) }
}

/// Gemini's array mode wraps errors too.
fn unwrapped<'v, 'a>(value: &'v Value<'a>) -> &'v Value<'a> {
    match value {
        Value::Array(items) => items.first().unwrap_or(value),
        _ => value,
    }
}

/// An error that is told by the name of an exception: in a header of the response, or in the stream.
#[must_use]
pub(super) fn from_exception(status: Option<u16>, name: &str, body: &[u8]) -> Error {
    // A header may say `ValidationException:http://internal...`, a namespace may stand before a `#`.
    let name = name.split(':').next().unwrap_or(name);
    let name = name.rsplit('#').next().unwrap_or(name);
    let value = Value::parse(body).unwrap_or(Value::Null);
    let known = of_exception(name);
    let mut error = from_value(status.or(known.map(|(status, _)| status)), &value, body);
    match known {
        Some((_, Class::BadRequest)) => {
            let message = error.message.to_lowercase();
            if EXCEPTION_CONTEXT_WINDOW.iter().any(|test| message.contains(test)) {
                error.class = Class::ContextWindowExceeded;
            }
        }
        Some((_, class)) => error.class = class,
        None if status.is_none() => error.class = of_type(name).unwrap_or(error.class),
        None => {}
    }
    if error.details.code.is_none() {
        error.details.code = value.get("ErrorCode").and_then(said);
        if error.details.code.as_deref() == Some("ModelInvocationTimeExceeded") {
            error.class = Class::Timeout;
        }
    }
    error.details.kind = Some(name.to_owned());
    error
}

/// A string or a number, as text.
fn said(value: &Value<'_>) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) | Value::Number(text) => Some(text.to_string()),
        _ => None,
    }
}

fn message(value: &Value<'_>, inner: &Value<'_>) -> Option<String> {
    let detail = || match value.get("detail") {
        Some(Value::Array(items)) => {
            let texts: Vec<_> = items.iter().filter_map(|item| item.get("msg").and_then(said)).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Some(detail) => said(detail).or_else(|| detail.get("message").and_then(said)),
        None => None,
    };
    let listed = || match value.get("errors") {
        Some(Value::Array(items)) => items.iter().find_map(|item| item.get("message").and_then(said)),
        _ => None,
    };
    inner
        .get("message")
        .and_then(said)
        .or_else(|| value.get("error").and_then(said))
        .or_else(|| value.get("message").and_then(said))
        .or_else(|| value.get("Message").and_then(said))
        .or_else(detail)
        .or_else(listed)
        .or_else(|| value.get("base_resp").and_then(|base| base.get("status_msg")).and_then(said))
}

/// A status told in the body of a response that itself has none, or 200.
fn told_status(value: &Value<'_>, inner: &Value<'_>) -> Option<u16> {
    let places = [inner.get("status_code"), value.get("status_code"), inner.get("code"), value.get("code")];
    places
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .find_map(|status| u16::try_from(status).ok().filter(|status| (400..600).contains(status)))
}

const CONTEXT_WINDOW: [&str; 20] = [
    "context_length_exceeded",
    "context window",
    "maximum context length",
    "model's context length",
    "maximum context limit",
    "exceed context limit",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "too many tokens",
    "too many input tokens",
    "input tokens exceeded",
    "input tokens exceed the configured limit",
    "exceeds the maximum number of tokens allowed",
    "exceeds the available context size",
    "exceed_context_size_error",
    "too_many_prompt_tokens",
    "too_many_tokens",
    "total length of all messages is too long",
    "request too large",
];
const CONTEXT_WINDOW_BOTH: [(&str, &str); 3] = [
    ("current length is", "while limit is"),
    ("maximum input length is", "tokens"),
    ("`inputs` tokens", "`max_new_tokens`"),
];
const CONTENT_POLICY: [&str; 8] = [
    "content_policy_violation",
    "content_filter",
    "responsibleaipolicyviolation",
    "content management policy",
    "safety system",
    "content filtering policy",
    "violating our usage policy",
    "the response was blocked",
];
const AUTHENTICATION: [&str; 5] = [
    "api_key_invalid",
    "api key not valid",
    "incorrect api key",
    "invalid api key",
    "security token included in the request is invalid",
];
/// Beside those above, for exceptions that say the request was invalid.
const EXCEPTION_CONTEXT_WINDOW: [&str; 2] = ["exceeds maximum length", "expected maxlength:"];
const MODEL_NOT_FOUND: [&str; 2] = ["model_not_found", "provided model identifier is invalid"];

fn classify(
    status: Option<u16>,
    told: Option<u16>,
    inner: &Value<'_>,
    value: &Value<'_>,
    message: &str,
    code: Option<&str>,
    kind: Option<&str>,
) -> Class {
    let metadata = inner.get("metadata");
    if let Some(class) = metadata.and_then(|m| m.get("error_type")).and_then(Value::as_str).and_then(of_error_type) {
        return class;
    }
    let base_resp = value.get("base_resp").and_then(|base| base.get("status_code")).and_then(Value::as_i64);
    if let Some(code) = base_resp.filter(|code| *code != 0) {
        return of_base_resp(code);
    }
    let inner_code = inner.get("innererror").and_then(|e| e.get("code")).and_then(Value::as_str);
    let tested = status.is_none_or(|status| matches!(status, 400 | 403 | 413 | 422 | 429 | 500));
    if tested {
        let all = [code, kind, inner_code, Some(message)].into_iter().flatten().collect::<Vec<_>>().join("\n");
        let all = all.to_lowercase();
        let has = |tests: &[&str]| tests.iter().any(|test| all.contains(test));
        if status == Some(413) && all.contains("tokens per minute") {
            return Class::RateLimit;
        }
        // A quota that a long prompt exhausts is still a quota.
        let too_long = has(&CONTEXT_WINDOW)
            || CONTEXT_WINDOW_BOTH.iter().any(|(one, other)| all.contains(one) && all.contains(other));
        if too_long && status != Some(429) && !all.contains("string_above_max_length") {
            return Class::ContextWindowExceeded;
        }
        if has(&CONTENT_POLICY)
            || code == Some("invalid_prompt")
            || metadata.is_some_and(|m| m.get("flagged_input").is_some() || m.get("reasons").is_some())
        {
            return Class::ContentPolicyViolation;
        }
        if status == Some(429) && all.contains("model is overloaded") {
            return Class::ServiceUnavailable;
        }
        if status != Some(429) {
            if has(&AUTHENTICATION) {
                return Class::Authentication;
            }
            if has(&MODEL_NOT_FOUND) {
                return Class::NotFound;
            }
        }
    }
    if let Some(status) = status.or(told) {
        return Class::of_status(status);
    }
    [kind, code].into_iter().flatten().find_map(of_type).unwrap_or(Class::InternalServer)
}

/// The stable names that OpenRouter documents.
fn of_error_type(name: &str) -> Option<Class> {
    Some(match name {
        "context_length_exceeded" | "token_limit_exceeded" => Class::ContextWindowExceeded,
        "authentication" => Class::Authentication,
        "permission_denied" => Class::PermissionDenied,
        "payment_required" => Class::PaymentRequired,
        "rate_limit_exceeded" => Class::RateLimit,
        "provider_overloaded" | "provider_unavailable" => Class::ServiceUnavailable,
        "not_found" => Class::NotFound,
        "unprocessable" => Class::UnprocessableEntity,
        "content_policy_violation" | "refusal" => Class::ContentPolicyViolation,
        "server" => Class::InternalServer,
        "timeout" => Class::Timeout,
        "unmapped" => return None,
        name if name.starts_with("invalid_") => Class::BadRequest,
        "max_tokens_exceeded" | "string_too_long" | "precondition_failed" | "payload_too_large" => Class::BadRequest,
        _ => return None,
    })
}

/// MiniMax's numbers.
fn of_base_resp(code: i64) -> Class {
    match code {
        1004 => Class::Authentication,
        1008 => Class::PaymentRequired,
        1002 | 1039 => Class::RateLimit,
        1026 | 1027 => Class::ContentPolicyViolation,
        2013 => Class::BadRequest,
        _ => Class::InternalServer,
    }
}

/// The exceptions of AWS services, with the status that each has outside a stream. Inside one, names begin in lower case.
fn of_exception(name: &str) -> Option<(u16, Class)> {
    const NAMES: [(&str, u16, Class); 21] = [
        ("ValidationException", 400, Class::BadRequest),
        ("AccessDeniedException", 403, Class::PermissionDenied),
        ("UnrecognizedClientException", 403, Class::Authentication),
        ("InvalidSignatureException", 403, Class::Authentication),
        ("ExpiredTokenException", 403, Class::Authentication),
        ("MissingAuthenticationTokenException", 403, Class::Authentication),
        ("ResourceNotFoundException", 404, Class::NotFound),
        ("ModelTimeoutException", 408, Class::Timeout),
        ("ConflictException", 409, Class::Conflict),
        ("ThrottlingException", 429, Class::RateLimit),
        ("ServiceQuotaExceededException", 400, Class::RateLimit),
        ("ModelNotReadyException", 429, Class::ServiceUnavailable),
        ("ModelErrorException", 424, Class::ServiceUnavailable),
        ("ModelStreamErrorException", 424, Class::ServiceUnavailable),
        ("InternalServerException", 500, Class::InternalServer),
        ("ServiceUnavailableException", 503, Class::ServiceUnavailable),
        // Of models that are hosted without knowing what they are.
        ("ValidationError", 400, Class::BadRequest),
        ("ModelError", 424, Class::ServiceUnavailable),
        ("ModelStreamError", 424, Class::ServiceUnavailable),
        ("InternalStreamFailure", 500, Class::InternalServer),
        ("ServiceUnavailable", 503, Class::ServiceUnavailable),
    ];
    let same = |known: &str| {
        let (first, rest) = (known.get(..1), known.get(1..));
        name.get(1..) == rest && name.get(..1).zip(first).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
    };
    NAMES.into_iter().find(|(known, ..)| same(known)).map(|(_, status, class)| (status, class))
}

/// Errors inside a stream without any status go by the name of their type or code.
fn of_type(name: &str) -> Option<Class> {
    Some(match name.to_ascii_lowercase().as_str() {
        "authentication_error" | "invalid_api_key" | "unauthorized" => Class::Authentication,
        "permission_error" | "permission_denied" | "forbidden" => Class::PermissionDenied,
        "not_found_error" | "not_found" => Class::NotFound,
        "rate_limit_error"
        | "rate_limit_exceeded"
        | "insufficient_quota"
        | "requests"
        | "tokens"
        | "resource_exhausted" => Class::RateLimit,
        "billing_error" | "insufficient_credits" => Class::PaymentRequired,
        "overloaded_error" | "service_unavailable" | "unavailable" | "overloaded" => Class::ServiceUnavailable,
        "timeout_error" | "timeout" | "deadline_exceeded" => Class::Timeout,
        "conflict_error" => Class::Conflict,
        "validation"
        | "invalid_request_error"
        | "tool_use_failed"
        | "invalid_argument"
        | "badrequesterror"
        | "request_too_large" => Class::BadRequest,
        _ => return None,
    })
}

/// Seconds to wait, from the first place that tells a time above 0.
fn retry_after<'h>(
    header: &impl Fn(&str) -> Option<&'h str>,
    value: &Value<'_>,
    message: &str,
    now: f64,
) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let until = |then: Duration| then.as_secs_f64() - now;
    let headers = [
        header("retry-after-ms").and_then(number).map(|ms| ms / 1000.0),
        header("retry-after").and_then(|text| {
            number(text).or_else(|| {
                let then = httpdate::parse_http_date(text).ok()?;
                Some(until(then.duration_since(UNIX_EPOCH).ok()?))
            })
        }),
        told_delay(value),
        delay_in_prose(message),
    ];
    let limits = || {
        let durations = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"]
            .into_iter()
            .filter_map(|name| Some(humantime::parse_duration(header(name)?).ok()?.as_secs_f64()));
        let dates = ["requests", "tokens", "input-tokens", "output-tokens"].into_iter().filter_map(|what| {
            let then = humantime::parse_rfc3339(header(&format!("anthropic-ratelimit-{what}-reset"))?).ok()?;
            Some(until(then.duration_since(UNIX_EPOCH).ok()?))
        });
        durations.chain(dates).find(|seconds| *seconds > 0.0)
    };
    headers.into_iter().flatten().find(|seconds| *seconds > 0.0 && seconds.is_finite()).or_else(limits)
}

/// Gemini's `details[].retryDelay`: "48s".
fn told_delay(value: &Value<'_>) -> Option<f64> {
    let Some(Value::Array(details)) = value.get("error")?.get("details") else {
        return None;
    };
    let delay = details.iter().find_map(|detail| detail.get("retryDelay"))?;
    delay.as_str()?.strip_suffix('s')?.parse().ok()
}

/// "Please try again in 1.5s", "retry in 350ms", "try again in 1m26.4s".
fn delay_in_prose(message: &str) -> Option<f64> {
    let lower = message.to_lowercase();
    let mut rest = lower.split("try again in ").nth(1).or_else(|| lower.split("retry in ").nth(1))?;
    let mut seconds = None;
    loop {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after) = split_where(after.trim_start(), |c| !c.is_alphabetic());
        let Ok(amount) = digits.parse::<f64>() else {
            return seconds;
        };
        let amount = match unit {
            "ms" | "millisecond" | "milliseconds" => amount / 1000.0,
            "s" | "sec" | "secs" | "second" | "seconds" => amount,
            "m" | "min" | "mins" | "minute" | "minutes" => amount * 60.0,
            "h" | "hour" | "hours" => amount * 3600.0,
            _ => return seconds,
        };
        seconds = Some(seconds.unwrap_or(0.0) + amount);
        rest = after;
    }
}

/// What stands before the first character that `ends`, and the rest from it on.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(ends).unwrap_or(text.len())).unwrap_or((text, ""))
}
