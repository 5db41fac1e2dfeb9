//! What is asked of the proxy, by method and path.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use penstock_core::error::Class;

use crate::account::Account;
use crate::ask::{Ask, Operation};
use crate::body::{Pending, Reply, Streamed};
use crate::gate;
use crate::keys::Caller;
use crate::ledger::Row;
use crate::metrics;
use crate::page::{self, Part};
use crate::planner::{Outcome, Task};
use crate::problem::Problem;
use crate::pursuit::{Answer, Pursuit, Told, unknown};
use crate::state::{Shared, State, unix_time};
use crate::upstream::duration;

/// Bytes of a body that are sooner copied than kept where they came.
const SMALL: usize = 1024;

/// Bytes of a `traceparent` (W3C Trace Context, 3.2); a later version may be longer.
const MOST_TRACE: usize = 128;

/// The answer to a request; whatever goes wrong is an answer too.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Reply> {
    let state = shared.state.load_full();
    // In the order of time: databases keep them in an index, at whose end it is cheap to add.
    let milliseconds = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    let id = id_of(milliseconds << 80 | fastrand::u128(..1 << 80));
    let origin = allowed_origin(&state, request.headers());
    let dialect = if request.uri().path().contains("/messages") { Operation::Messages } else { Operation::Chat };
    let chunked = request.headers().contains_key("transfer-encoding");
    let answered = match head(&state, &request) {
        Ok(()) => dispatch(&shared, &state, request, &id).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| refusal(&problem, dialect));
    let headers = response.headers_mut();
    if chunked {
        // RFC 9112, 6.1: no request may follow one with both lengths. Of one whose coding comes first the other length
        // is not seen here; and whoever stands before us may have gone by it.
        headers.insert("connection", HeaderValue::from_static("close"));
    }
    set(headers, "x-request-id", &id);
    if let Some(origin) = origin {
        headers.insert("access-control-allow-origin", origin);
        headers.insert("access-control-expose-headers", HeaderValue::from_static("*"));
        headers.append("vary", HeaderValue::from_static("origin"));
    }
    response
}

/// A request's id: a number of 128 bits as hexadecimal digits, which `format!` would take far longer to write.
fn id_of(number: u128) -> String {
    let mut id = String::with_capacity(36);
    id.push_str("req_");
    let bytes = number.to_be_bytes();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    id.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    id
}

/// Refuses heads that are too long, or say two lengths of the body.
fn head(state: &State, request: &Request<Incoming>) -> Result<(), Problem> {
    let headers = request.headers();
    let target = request.uri();
    let target = target.path().len() + target.query().map_or(0, str::len);
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let limit = state.settings.max_head;
    if size + target > limit {
        let message = format!("the request's head has more than {limit} bytes");
        return Err(Problem::new(Class::BadRequest, "head_too_large", message).with_status(431));
    }
    if headers.contains_key("transfer-encoding") && headers.contains_key("content-length") {
        return Err(Problem::new(Class::BadRequest, "", "both content-length and transfer-encoding"));
    }
    Ok(())
}

async fn dispatch(
    shared: &Arc<Shared>,
    state: &Arc<State>,
    request: Request<Incoming>,
    id: &str,
) -> Result<Response<Reply>, Problem> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let method = request.method().clone();
    if method == Method::OPTIONS {
        return Ok(preflight());
    }
    let is_get = method == Method::GET || method == Method::HEAD;
    if is_get && let Some(part) = page::part(&path) {
        return Ok(of_page(part));
    }
    match path.as_str() {
        "" | "/health/liveliness" | "/health/liveness" | "/health/readiness" | "/health" | "/metrics" | "/live"
            if !is_get =>
        {
            Err(wrong_method(&path, "GET"))
        }
        "/health/liveliness" | "/health/liveness" => Ok(json(StatusCode::OK, br#"{"status":"alive"}"#.to_vec())),
        "/health/readiness" => Ok(readiness(shared)),
        "/health" => {
            if !state.settings.public_health {
                master(&caller(shared, state, request.headers())?)?;
            }
            Ok(json(StatusCode::OK, serde_json::Value::Object(shared.health(state)).to_string()))
        }
        "/live" => {
            master(&caller(shared, state, request.headers())?)?;
            let mut response = json(StatusCode::OK, shared.snapshot(state));
            response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
            Ok(response)
        }
        "/metrics" => {
            if !state.settings.public_health {
                master(&caller(shared, state, request.headers())?)?;
            }
            Ok(whole_reply(StatusCode::OK, shared.metrics.render(shared, state), metrics::CONTENT_TYPE))
        }
        "/v1/models" | "/models" if is_get => {
            let caller = caller(shared, state, request.headers())?;
            Ok(models(state, &caller))
        }
        "/v1/messages" | "/messages" | "/anthropic/v1/messages" => {
            ask(shared, state, request, id, Operation::Messages, "/v1/messages", None).await
        }
        "/v1/chat/completions" | "/chat/completions" => {
            ask(shared, state, request, id, Operation::Chat, "/v1/chat/completions", None).await
        }
        "/v1/embeddings" | "/embeddings" => {
            ask(shared, state, request, id, Operation::Embeddings, "/v1/embeddings", None).await
        }
        _ => {
            if let Some(name) = path.strip_prefix("/v1/models/").or_else(|| path.strip_prefix("/models/")) {
                let caller = caller(shared, state, request.headers())?;
                return model(state, &caller, &decoded(name));
            }
            let deployment = path.strip_prefix("/openai/deployments/").or_else(|| path.strip_prefix("/engines/"));
            if let Some((name, operation)) = deployment.and_then(|rest| rest.rsplit_once("/chat/completions")) {
                let name = decoded(name);
                if operation.is_empty() {
                    let route = "/openai/deployments/{model}/chat/completions";
                    return ask(shared, state, request, id, Operation::Chat, route, Some(&name)).await;
                }
            }
            if ["/key/", "/spend", "/config/"].iter().any(|part| path.starts_with(part)) {
                return elsewhere(shared, state, request, &path).await;
            }
            let message = format!("there is no {path} here; there is /v1/chat/completions, /v1/messages, /v1/models");
            Err(Problem::new(Class::NotFound, "", message))
        }
    }
}

/// Who asks, by the key in the request.
fn caller(shared: &Shared, state: &State, headers: &HeaderMap) -> Result<Caller, Problem> {
    if state.master.is_none() && (state.settings.allow_unauthenticated || shared.keys.is_empty()) {
        if is_of_a_stranger(state, headers) {
            let message = "pages of this origin may not ask here: general_settings.cors names those that may";
            return Err(Problem::new(Class::PermissionDenied, "origin_not_allowed", message));
        }
        return Ok(Caller::Anyone);
    }
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let bearer = bearer.map(|value| match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => value.trim(),
    });
    let other = || ["x-api-key", "api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let Some(shown) = bearer.or_else(other).filter(|key| !key.is_empty()) else {
        let message = "no key: send it as `Authorization: Bearer ...`";
        return Err(Problem::new(Class::Authentication, "missing_api_key", message));
    };
    shared.keys.caller(shown, state.master.as_ref(), unix_time())
}

fn master(caller: &Caller) -> Result<(), Problem> {
    match caller {
        Caller::Master | Caller::Anyone => Ok(()),
        Caller::Key(_) => Err(Problem::new(Class::PermissionDenied, "", "this needs the master key")),
    }
}

/// A request for a model's answer.
async fn ask(
    shared: &Arc<Shared>,
    state: &Arc<State>,
    request: Request<Incoming>,
    id: &str,
    operation: Operation,
    route: &'static str,
    model: Option<&str>,
) -> Result<Response<Reply>, Problem> {
    if request.method() != Method::POST {
        return Err(wrong_method(route, "POST"));
    }
    let headers = request.headers();
    let (caller, account) = let_in(shared, state, headers, id, route)
        .inspect_err(|problem| shared.metrics.turned_away(problem.name(), shared.now()))?;
    let mut account = Some(account);
    let tags = text_of(headers, "x-penstock-tags");
    let begun = begin(shared, state, request, operation, model, tags.as_deref(), &caller, &mut account).await;
    if let (Err(problem), Some(account)) = (&begun, &mut account) {
        account.refuse(problem);
    }
    let ask = begun?;
    let stream = ask.stream && operation != Operation::Embeddings;
    let pursuit = Pursuit {
        shared: Arc::clone(shared),
        state: Arc::clone(state),
        ask: Arc::new(ask),
        operation,
        caller,
        begun: Instant::now(),
        account,
    };
    let mut pursuit = Box::pin(pursuit.run());
    let silence = state.settings.silence;
    let patience = duration(silence).filter(|silence| stream && !silence.is_zero());
    let found = match patience {
        None => pursuit.await,
        Some(patience) => {
            let Ok(found) = tokio::time::timeout(patience, &mut pursuit).await else {
                // The client hears something before whoever stands between takes the silence for an end.
                let pending: Pending = Box::pin(async move {
                    match pursuit.await {
                        Ok((Answer::Stream(flow), _)) => Ok(flow),
                        Ok((Answer::Whole(_), _)) => Err((None, Problem::new(Class::InternalServer, "", "no stream"))),
                        Err(failed) => Err(failed),
                    }
                });
                let stream = Streamed::new(Arc::clone(shared), Err(pending), silence, operation);
                return Ok(streamed(stream.at_once()));
            };
            found
        }
    };
    let (answer, told) = found.map_err(|(account, problem)| {
        drop(account);
        problem
    })?;
    let mut response = match answer {
        Answer::Whole(body) => json(StatusCode::OK, body),
        Answer::Stream(flow) => streamed(Streamed::new(Arc::clone(shared), Ok(flow), silence, operation)),
    };
    if state.settings.proxy_headers {
        tell(response.headers_mut(), told);
    }
    Ok(response)
}

/// Whoever asks may, and there is room.
fn let_in(
    shared: &Arc<Shared>,
    state: &State,
    headers: &HeaderMap,
    id: &str,
    route: &'static str,
) -> Result<(Caller, Account), Problem> {
    if shared.draining.load(Ordering::Acquire) {
        let message = "the proxy is being shut down";
        return Err(Problem::new(Class::ServiceUnavailable, "draining", message).after(Some(1.0)));
    }
    let caller = caller(shared, state, headers)?;
    let trace = text_of(headers, "traceparent").filter(|trace| trace.len() <= MOST_TRACE);
    let row = Row { id: id.to_owned(), key: caller.id(), route, trace, ..Row::default() };
    let Some(account) = Account::open(shared, state.settings.max_requests, row) else {
        let message = "the proxy has too many requests under way";
        return Err(Problem::new(Class::RateLimit, "overloaded", message).with_status(429).after(Some(1.0)));
    };
    Ok((caller, account))
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Reads what is asked, and lets it in or not.
#[expect(clippy::too_many_arguments, reason = "all of a request decides")]
async fn begin(
    shared: &Arc<Shared>,
    state: &State,
    request: Request<Incoming>,
    operation: Operation,
    model: Option<&str>,
    tags: Option<&str>,
    caller: &Caller,
    account: &mut Option<Account>,
) -> Result<Ask, Problem> {
    let settings = &state.settings;
    let headers = said(request.headers(), operation.headers());
    let body = whole(request, settings.max_body, settings.body_seconds).await?;
    let mut ask = Ask::read(body, model)?;
    ask.headers = headers;
    if let Some(tags) = tags {
        ask.tags = tags.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect();
    }
    if let Some(account) = account {
        account.asked(&ask);
    }
    if state.group(&ask.model).is_none() || !caller.may_ask(&ask.model) {
        return Err(unknown(state, caller, &ask.model));
    }
    if let Caller::Key(key) = caller {
        let tokens = ask.estimate().1;
        let hold = match &state.commons {
            None => key.take(tokens, shared.now())?,
            Some(commons) => {
                let id = account.as_ref().map_or("", Account::id);
                // In a place of its own: where nothing is shared, no request is larger for it.
                Box::pin(gate::enter(shared, commons, key, id, tokens)).await?
            }
        };
        if let Some(account) = account {
            account.hold(hold);
        }
    }
    Ok(ask)
}

/// Those of these headers that there are, each in one.
fn said(headers: &HeaderMap, names: &[&'static str]) -> Vec<(&'static str, String)> {
    let all = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    names.iter().map(|name| (*name, all(*name))).filter(|(_, value)| !value.is_empty()).collect()
}

/// The body of a request.
async fn whole(request: Request<Incoming>, limit: usize, seconds: f64) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("the body has more than {limit} bytes");
        Problem::new(Class::BadRequest, "body_too_large", message).with_status(413)
    };
    let mut body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut all = Vec::new();
        let mut length = 0;
        while let Some(frame) = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
        {
            let frame =
                frame.map_err(|error| Problem::new(Class::BadRequest, "", format!("the body ended early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length > limit {
                return Err(too_large());
            }
            // Mostly there is one piece, and it need not be copied. A small one is, for that is less than another
            // buffer for the connection's next request.
            match (&mut first, all.is_empty()) {
                (None, true) if data.len() <= SMALL => first = Some(Bytes::copy_from_slice(&data)),
                (None, true) => first = Some(data),
                (Some(before), true) => {
                    all.extend_from_slice(before);
                    all.extend_from_slice(&data);
                }
                _ => all.extend_from_slice(&data),
            }
        }
        Ok(if all.is_empty() { first.unwrap_or_default() } else { all.into() })
    };
    let limit = duration(seconds).unwrap_or(Duration::MAX);
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {seconds} s");
        Err(Problem::new(Class::Timeout, "", message).with_status(408))
    })
}

/// A route that somebody else answers.
async fn elsewhere(
    shared: &Arc<Shared>,
    state: &State,
    request: Request<Incoming>,
    path: &str,
) -> Result<Response<Reply>, Problem> {
    let caller = caller(shared, state, request.headers())?;
    let described = caller.describe();
    match caller {
        Caller::Master => {}
        // A key may look at itself.
        Caller::Key(_) if path == "/key/info" => {}
        Caller::Key(_) => master(&caller)?,
        Caller::Anyone => {
            let message = "there is no master key: with general_settings.master_key this can be asked";
            return Err(Problem::new(Class::PermissionDenied, "", message));
        }
    }
    let task = Task::Admin {
        method: request.method().to_string(),
        path: path.to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
    };
    let settings = &state.settings;
    let body = whole(request, settings.max_body.min(1 << 20), settings.body_seconds).await?;
    match shared.planner.ask(task, body, described).await {
        Some(Outcome::Reply(reply)) => {
            let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = whole_reply(status, reply.body, "application/json");
            set(response.headers_mut(), "content-type", &reply.content_type);
            Ok(response)
        }
        Some(Outcome::Refusal(problem)) => Err(problem),
        _ => Err(Problem::new(Class::InternalServer, "", "nobody answers this here")),
    }
}

fn models(state: &State, caller: &Caller) -> Response<Reply> {
    let listed = |name: &&str| !name.ends_with('*') && caller.may_ask(name);
    let data: Vec<_> = state.names().into_iter().filter(listed).map(described).collect();
    json(StatusCode::OK, serde_json::json!({ "object": "list", "data": data }).to_string())
}

fn model(state: &State, caller: &Caller, name: &str) -> Result<Response<Reply>, Problem> {
    if state.group(name).is_none() || !caller.may_ask(name) {
        return Err(unknown(state, caller, name));
    }
    Ok(json(StatusCode::OK, described(name).to_string()))
}

fn described(name: &str) -> serde_json::Value {
    serde_json::json!({ "id": name, "object": "model", "created": 0, "owned_by": "penstock" })
}

fn readiness(shared: &Shared) -> Response<Reply> {
    if shared.draining.load(Ordering::Acquire) {
        return json(StatusCode::SERVICE_UNAVAILABLE, br#"{"status":"draining"}"#.to_vec());
    }
    json(StatusCode::OK, br#"{"status":"ready"}"#.to_vec())
}

/// A file of the live page, which loads nothing from elsewhere and may be shown in no other page.
fn of_page(part: Part) -> Response<Reply> {
    let mut response = whole_reply(StatusCode::OK, part.text, part.content_type);
    let headers = response.headers_mut();
    for (name, value) in page::HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Reply> {
    whole_reply(status, body, "application/json")
}

fn whole_reply(status: StatusCode, body: impl Into<Bytes>, kind: &'static str) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    response
}

fn streamed(stream: Streamed) -> Response<Reply> {
    let mut response = Response::new(Reply::Stream(Box::new(stream)));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert("cache-control", HeaderValue::from_static("no-cache"));
    // What is buffered on the way comes late.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// An error as a response.
fn refusal(problem: &Problem, dialect: Operation) -> Response<Reply> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, dialect.error(&problem.error));
    let headers = response.headers_mut();
    if let Some(seconds) = problem.error.details.retry_after {
        set(headers, "retry-after", &format!("{:.0}", seconds.max(0.0).ceil()));
        set(headers, "retry-after-ms", &format!("{:.0}", seconds.max(0.0) * 1000.0));
    }
    if let Some(retry) = problem.retry {
        headers.insert("x-should-retry", HeaderValue::from_static(if retry { "true" } else { "false" }));
    }
    response
}

fn tell(headers: &mut HeaderMap, told: Told) {
    for (name, value) in told.headers {
        set(headers, name, &value);
    }
}

/// Sets a header, unless its value cannot be one.
fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn wrong_method(path: &str, method: &str) -> Problem {
    Problem::new(Class::BadRequest, "", format!("{path} takes {method}")).with_status(405)
}

fn preflight() -> Response<Reply> {
    let mut response = whole_reply(StatusCode::NO_CONTENT, Bytes::new(), "text/plain");
    let headers = response.headers_mut();
    headers.insert("access-control-allow-methods", HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert("access-control-allow-headers", HeaderValue::from_static("*, authorization, content-type"));
    headers.insert("access-control-max-age", HeaderValue::from_static("86400"));
    response
}

/// The origin to be named in the response, if it is one that may ask.
fn allowed_origin(state: &State, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get("origin")?;
    let text = origin.to_str().ok()?;
    state.settings.cors.iter().any(|allowed| allowed == "*" || allowed == text).then(|| origin.clone())
}

/// Whether it is a page of somebody else's that asks. A browser sends what any page wants to wherever it likes, and only
/// keeps the answer from it: where nobody needs a key, that would be enough to spend money.
fn is_of_a_stranger(state: &State, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get("origin") else { return false };
    let here = || {
        let origin = origin.to_str().ok()?.parse::<Uri>().ok()?;
        let host = origin.host()?.trim_matches(['[', ']']);
        Some(host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()))
    };
    allowed_origin(state, headers).is_none() && !here().unwrap_or(false)
}

/// A part of a path without its `%` escapes.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [byte, after @ ..] = rest {
        let escape = after.get(..2).filter(|_| *byte == b'%');
        let escaped = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
