//! Getting an answer: which deployment is asked, whether another one after it, and what the client is told if none
//! answers. The rules are core's; here they meet sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use penstock_core::chunk::Head;
use penstock_core::decoder::{Decoder, Dialect, Family, Options, decode_response};
use penstock_core::error::{Class, Error};
use penstock_core::json::Cursor;
use penstock_core::policy::pool::{Cause, Outcome, Refusal, Request};
use penstock_core::policy::retry::{FIRST_PAUSE, Failure};
use penstock_core::usage::{Account as UsageAccount, Counts, Reasoning, Usage, openai_counts};
use penstock_core::wire;
use penstock_engine::request::Outline;
use tokio::time::sleep;

use crate::account::{Account, Ending, Leased};
use crate::ask::{Ask, Operation};
use crate::body::{Flow, Out, Whole};
use crate::keys::Caller;
use crate::planner::{self, Plan, Task};
use crate::problem::{Problem, of_network};
use crate::state::{Deployment, Group, Shared, State, unix_seconds, unix_time};
use crate::tables::Plain;
use crate::upstream::{Upstream, after, duration, outline};

/// Bytes that one event may have, and a whole response.
const MAX_EVENT: usize = 16 << 20;
const MAX_RESPONSE: usize = 64 << 20;
/// How much of an error's body is read, and how long: the status says enough, however it ends.
const MAX_ERROR: usize = 64 << 10;
const ERROR_TIME: Duration = Duration::from_secs(5);
/// How much is shown of a body that is no answer at all.
const QUOTED: usize = 200;
/// A secret that is shorter could be any word.
const SECRET: usize = 8;

/// Headers of a request whose values are no secrets.
const OPEN: [&str; 6] = ["accept", "accept-encoding", "content-type", "user-agent", "host", "anthropic-version"];

/// Content types under which streams come. Others are believed only if the first bytes look like events.
const STREAMS: [&str; 6] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
    "application/octet-stream",
    "application/stream+json",
    "",
];

/// How the first line of a stream of events begins.
const EVENTS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
/// The bytes of the longest of them.
const LONGEST_WORD: usize = 6;

/// What the client gets.
#[derive(Debug)]
pub(crate) enum Answer {
    Stream(Box<Flow>),
    Whole(Bytes),
}

/// What the response's head says of where the answer comes from.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// A request looking for its answer.
pub(crate) struct Pursuit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Arc<State>,
    pub(crate) ask: Arc<Ask>,
    pub(crate) operation: Operation,
    pub(crate) caller: Caller,
    /// When it was let in: of all its attempts together there is one clock.
    pub(crate) begun: Instant,
    /// There until it is somebody else's to keep.
    pub(crate) account: Option<Account>,
}

/// An attempt that came to nothing.
struct Failed {
    problem: Problem,
    advice: Option<bool>,
    /// The request is at fault, whoever is asked.
    hopeless: bool,
}

impl From<Problem> for Failed {
    /// Nothing was sent: by our limits, or because there are no words for it.
    fn from(problem: Problem) -> Self {
        let class = problem.error.class;
        Self { problem, advice: None, hopeless: !class.retryable() && !class.barring() }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { problem: error.into(), advice: None, hopeless: false }
    }
}

impl Pursuit {
    /// The answer of the first that gives one.
    pub(crate) async fn run(mut self) -> Result<(Answer, Told), (Option<Account>, Problem)> {
        let problem = match self.pursue().await {
            Ok(answer) => return Ok(answer),
            Err(problem) => problem,
        };
        let mut account = self.account.take();
        if let Some(account) = &mut account {
            let refused = problem.error.details.code.as_deref() == Some(LIMITED);
            account.fail(if refused { Ending::Refused } else { Ending::Failed }, &problem);
        }
        Err((account, problem))
    }

    async fn pursue(&mut self) -> Result<(Answer, Told), Problem> {
        let mut names = VecDeque::from([self.ask.model.clone()]);
        let mut tried: Vec<String> = Vec::new();
        loop {
            let Some(name) = names.pop_front() else {
                return Err(Problem::new(Class::InternalServer, "", "there is nobody to ask"));
            };
            let Some(group) = self.state.group(&name) else {
                return Err(unknown(&self.state, &self.caller, &name));
            };
            tried.push(name);
            let failed = match self.ask_group(&group).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let failure = Failure::of(&failed.problem.error, failed.advice);
            let table = &group.table;
            let following = match failed.problem.error.class {
                _ if failed.hopeless => &[][..],
                Class::ContentPolicyViolation => &table.content_policy_fallbacks,
                Class::ContextWindowExceeded if !table.context_window_fallbacks.is_empty() => {
                    &table.context_window_fallbacks
                }
                _ if failure.falls_back() => &table.fallbacks,
                _ => &[],
            };
            for name in following.iter().rev().filter(|name| !tried.contains(name)) {
                names.push_front(name.clone());
            }
            // A key that may not ask for the fallback does not get it either.
            names.retain(|name| self.caller.may_ask(name));
            if following.is_empty() || names.is_empty() {
                return Err(failed.problem);
            }
        }
    }

    /// The deployments of one name, until one answers or it is of no use to ask again.
    async fn ask_group(&mut self, group: &Arc<Group>) -> Result<(Answer, Told), Failed> {
        self.shared.retries().request(self.shared.now());
        let mut failed: Vec<usize> = Vec::new();
        let mut leased = self.lease(group, &failed)?;
        loop {
            let index = leased.index();
            let problem = match self.attempt(group, leased).await {
                Ok(answer) => return Ok(answer),
                Err(problem) => problem,
            };
            failed.push(index);
            let Some(pause) = self.pause(&problem, &failed, group) else { return Err(problem) };
            let least = group.table.retry_after;
            // No place is held while time passes.
            rest(least).await;
            leased = match (self.lease(group, &failed), pause) {
                (Ok(leased), _) => leased,
                (Err(_), None) => return Err(problem),
                // Nobody else: the same once more.
                (Err(_), Some(pause)) => {
                    rest(pause - least).await;
                    match self.lease(group, &[]) {
                        Ok(leased) => leased,
                        Err(_) => return Err(problem), // it says more
                    }
                }
            };
        }
    }

    /// Seconds before the same deployment may be asked again, None within if only another one may, None if nobody.
    #[expect(clippy::option_option, reason = "both have their meaning")]
    fn pause(&self, failed: &Failed, asked: &[usize], group: &Group) -> Option<Option<f64>> {
        let failure = Failure::of(&failed.problem.error, failed.advice);
        let retries = u32::try_from(asked.len().saturating_sub(1)).unwrap_or(u32::MAX);
        if failed.hopeless || retries >= group.table.max_retries || !failure.elsewhere() {
            return None;
        }
        let pause = failure.pause(retries, group.table.max_retries, fastrand::f64(), FIRST_PAUSE);
        if pause.is_none() && group.members.len() == 1 {
            return None;
        }
        let last = asked.last().and_then(|index| group.members.get(*index));
        let due = last.and_then(|last| after(self.begun, last.table.timeouts.total));
        if due.is_some_and(|due| after(Instant::now(), pause.or(Some(0.0))).is_none_or(|next| next >= due)) {
            return None;
        }
        let granted = self.shared.retries().retry(self.shared.now());
        granted.then(|| pause.map(|pause| pause.max(group.table.retry_after)))
    }

    fn lease(&self, group: &Arc<Group>, except: &[usize]) -> Result<Leased, Problem> {
        let (prompt, tokens) = self.ask.estimate();
        let request = Request {
            tags: if group.tagged { &self.ask.tags } else { &[] },
            all_tags: group.table.all_tags,
            prompt,
            tokens,
            stream: self.ask.stream,
            except,
        };
        let lease = group.rules().lease(&request, self.shared.now(), fastrand::f64());
        match lease {
            Ok(lease) => Ok(Leased::new(Arc::clone(&self.shared), Arc::clone(group), lease)),
            Err(refusal) => Err(refused(&refusal, group, &self.ask)),
        }
    }

    /// One request to one deployment, and what it tells about it.
    async fn attempt(&mut self, group: &Group, mut leased: Leased) -> Result<(Answer, Told), Failed> {
        let Some(deployment) = group.members.get(leased.index()).cloned() else {
            return Err(Problem::new(Class::InternalServer, "", "there is no such deployment").into());
        };
        let model = deployment.model(&group.table, &self.ask.model);
        let mut options = self.ask.stream && !deployment.refuses_options.load(Ordering::Relaxed);
        let (given, from, status, outline) = loop {
            let words = self.plan(&deployment, &model, options).await?;
            let (from, outline, mut status) = (Instant::now(), Arc::clone(&words.outline), None);
            let given = self.exchange(&deployment, words, &mut status).await;
            if !(options && given.as_ref().is_err_and(refuses_options)) {
                break (given, from, status, outline);
            }
            // It is remembered, and the same is asked for without.
            deployment.refuses_options.store(true, Ordering::Relaxed);
            options = false;
        };
        let mut failed = match given {
            Ok((given, mut told)) => {
                told.headers.push(("x-penstock-deployment", deployment.table.id.to_string()));
                told.headers.push(("x-penstock-model", model.to_string()));
                let attempts = self.account.as_ref().map_or(0, Account::attempts);
                told.headers.push(("x-penstock-attempts", (attempts + 1).to_string()));
                return Ok(self.accept(given, told, leased, &deployment, model, from));
            }
            Err(failed) => failed,
        };
        redact(&mut failed.problem.error, &secrets(outline.headers()));
        let error = &failed.problem.error;
        leased.settle(Outcome::of(Some(error.class), error.details.retry_after), None);
        if let Some(account) = &mut self.account {
            account.attempted(&deployment, status, Some(error), from);
        }
        Err(failed)
    }

    /// The client gets this one.
    fn accept(
        &mut self,
        given: Given,
        mut told: Told,
        mut leased: Leased,
        deployment: &Deployment,
        model: Arc<str>,
        from: Instant,
    ) -> (Answer, Told) {
        let Some(mut account) = self.account.take() else { return (Answer::Whole(Bytes::new()), told) };
        account.attempted(deployment, Some(200), None, from);
        account.answered_by(deployment, model);
        let answer = match given {
            Given::Stream(flow, chunks) => {
                leased.began(from);
                *account.chunks() += chunks;
                Answer::Stream(Box::new((*flow).answers(account, leased, &self.state.settings)))
            }
            Given::Whole(body, usage) => {
                account.charge(usage.as_ref(), deployment);
                account.spoke();
                *account.chunks() = 1;
                let seconds = Some(from.elapsed().as_secs_f64());
                leased.settle(Outcome::Answered { seconds }, account.tokens());
                account.end(Ending::Complete, 200, None);
                if let Some(cost) = account.cost() {
                    told.headers.push(("x-penstock-response-cost", format!("{cost:.10}")));
                }
                Answer::Whole(body.into())
            }
        };
        (answer, told)
    }

    fn streams(&self) -> bool {
        self.ask.stream && self.operation != Operation::Embeddings
    }

    /// How to put the request to a deployment; with `stream_options`, or without.
    async fn plan(&self, deployment: &Deployment, model: &str, options: bool) -> Result<Words, Problem> {
        let (family, dialect) = (deployment.family, deployment.dialect);
        let words = |outline: &Arc<Outline>, body| {
            let same = self.operation == Operation::Messages;
            Words { outline: Arc::clone(outline), body, family, dialect, answer_tool: None, same }
        };
        let stream = self.streams();
        if self.operation == Operation::Embeddings {
            let Some(outline) = &deployment.embeddings else {
                let message = format!("the deployment {} has no embeddings to pass on", deployment.table.id);
                return Err(Problem::of_field("model", message));
            };
            let body = self.ask.plain(model, &Plain::default(), self.operation, false).unwrap_or_default();
            return Ok(words(outline, body));
        }
        let own = match self.operation {
            Operation::Messages => family == Family::Anthropic,
            _ => family == Family::Chat,
        };
        if own
            && let (Some([whole, streamed]), Some(plain)) = (&deployment.plain, &deployment.table.plain)
            && let Some(body) = self.ask.plain(model, plain, self.operation, options)
        {
            let outline = if stream { streamed } else { whole };
            if self.ask.headers.is_empty() {
                return Ok(words(outline, body));
            }
            let more = outline.and(&self.ask.headers).map_err(of_network)?;
            return Ok(words(&Arc::new(more), body));
        }
        let task = Task::Plan {
            id: self.account.as_ref().map_or("", Account::id).to_owned(),
            deployment: deployment.table.id.to_string(),
            operation: self.operation.name(),
            model: model.to_owned(),
            stream_options: options,
        };
        let patience = deployment.table.timeouts.first_token.and_then(duration).unwrap_or(Duration::MAX);
        let planned = self.shared.planner.ask(task, self.ask.body.clone(), self.caller.describe());
        match tokio::time::timeout(patience, planned).await {
            Ok(Some(planner::Outcome::Plan(plan))) => {
                let Plan { url, headers, body, family, dialect, answer_tool } = plan;
                let outline = outline(url, headers, stream).map_err(of_network)?;
                Ok(Words { outline, body, family, dialect, answer_tool, same: false })
            }
            Ok(Some(planner::Outcome::Refusal(problem))) => Err(problem),
            _ => {
                let message = "the proxy cannot put this request into the words of its upstream now";
                Err(Problem::new(Class::ServiceUnavailable, "", message).after(Some(1.0)))
            }
        }
    }

    /// Sends it, and reads up to the first event, or to the end of a whole response.
    async fn exchange(
        &self,
        deployment: &Arc<Deployment>,
        words: Words,
        status: &mut Option<u16>,
    ) -> Result<(Given, Told), Failed> {
        let Words { outline, body, family, dialect, answer_tool, same } = words;
        let stream = self.streams();
        let (pool, timeouts) = (Arc::clone(&deployment.pool), deployment.table.timeouts);
        let mut upstream = Upstream::ask(pool, outline.with(body), timeouts, self.begun).await.map_err(of_network)?;
        let Some(head) = upstream.head() else {
            return Err(Error::new(Class::Connection, "the response has no head").into());
        };
        let code = head.status;
        *status = Some(code);
        let told = Told { headers: passed_on(head) };
        let kind = media_type(head);
        if !(200..300).contains(&code) {
            let head = head.clone();
            return Err(refusal(&mut upstream, &head).await);
        }
        let fallback = Head {
            id: format!("chatcmpl-{}", self.account.as_ref().map_or("", Account::id).trim_start_matches("req_")),
            created: unix_seconds(),
            model: self.ask.model.clone(),
        };
        if !stream {
            let body = upstream.whole(MAX_RESPONSE).await.map_err(of_network)?;
            if self.operation == Operation::Embeddings {
                let usage = embeddings_usage(&body, dialect.reasoning);
                return Ok((Given::Whole(body, usage), told));
            }
            let mut out = Vec::with_capacity(body.len());
            let model = Some(self.ask.model.as_str());
            let usage = decode_response(family, dialect, fallback, answer_tool, model, &body, &mut out)?;
            return Ok((Given::Whole(if same { body } else { self.operation.response(out)? }, usage), told));
        }
        let options = Options {
            dialect,
            // A message always tells it.
            include_usage: self.ask.include_usage || self.operation == Operation::Messages,
            max_event_size: MAX_EVENT,
            keep: false,
            fallback,
            answer_tool,
        };
        let decoder = Decoder::new(family, options.clone());
        let written = || Out::Written(self.operation.writer(Some(self.ask.model.clone())));
        let writer = if same { Out::Same(Whole::default()) } else { written() };
        let mut flow = Box::new(Flow::new(upstream, decoder, writer, self.operation, Arc::clone(deployment)));
        let mut chunks = 0;
        if !STREAMS.contains(&kind.as_str()) {
            let mut data = Vec::new();
            // The first read may end in the middle of the first word.
            while data.trim_ascii_start().len() < LONGEST_WORD && data.len() < QUOTED {
                let Some(more) = flow.read().await? else { break };
                data.extend(more);
            }
            let start = data.trim_ascii_start();
            if EVENTS.iter().any(|event| start.starts_with(event)) {
                flow.begin_with(&data, &mut chunks)?;
            } else if kind == "application/json" {
                flow.document(data, options, MAX_RESPONSE, &mut chunks).await?;
                return Ok((Given::Stream(flow, chunks), told));
            } else {
                let shown = String::from_utf8_lossy(data.get(..data.len().min(QUOTED)).unwrap_or_default());
                let message = format!("the answer is no stream but {kind}, beginning {shown:?}");
                return Err(Error::new(Class::ResponseValidation, message).into());
            }
        }
        if chunks == 0 {
            flow.begin(&mut chunks).await?;
        }
        Ok((Given::Stream(flow, chunks), told))
    }
}

/// A request in the words of an upstream.
struct Words {
    outline: Arc<Outline>,
    body: Vec<u8>,
    family: Family,
    dialect: Dialect,
    /// The tool whose arguments are the answer.
    answer_tool: Option<String>,
    /// The answer comes in the client's own language and goes out as it is.
    same: bool,
}

/// An answer that has begun well.
#[expect(clippy::large_enum_variant, reason = "one of these lives for a moment")]
enum Given {
    /// And so many chunks of it.
    Stream(Box<Flow>, u64),
    Whole(Vec<u8>, Option<Usage>),
}

/// The code of the error for who is kept out by limits.
const LIMITED: &str = "limited";

fn refused(refusal: &Refusal, group: &Group, ask: &Ask) -> Problem {
    let (name, after) = (&group.table.name, refusal.after);
    let free = after.map_or_else(String::new, |after| format!("; the next can be asked in {after:.1} s"));
    match refusal.cause {
        Cause::Limited => {
            let message = format!("all deployments of {name} are at their limits{free}");
            Problem::new(Class::RateLimit, LIMITED, message).after(after.or(Some(1.0)))
        }
        Cause::Failing | Cause::Excepted => {
            let message = format!("all deployments of {name} have failed and are left alone{free}");
            Problem::new(Class::ServiceUnavailable, "failing", message).after(after)
        }
        Cause::Unmatched => Problem::of_field("tags", format!("no deployment of {name} has the tags {:?}", ask.tags)),
    }
}

/// For a name that nobody answers to.
pub(crate) fn unknown(state: &State, caller: &Caller, name: &str) -> Problem {
    let names: Vec<_> = state.names().into_iter().filter(|name| caller.may_ask(name)).take(20).collect();
    let mut problem = Problem::new(
        Class::NotFound,
        "model_not_found",
        format!("there is no model {name:?} here, or not for this key; there are {}", names.join(", ")),
    );
    problem.error.details.param = Some("model".to_owned());
    problem
}

async fn rest(seconds: f64) {
    if let Ok(time) = Duration::try_from_secs_f64(seconds)
        && !time.is_zero()
    {
        sleep(time).await;
    }
}

/// What an upstream says beside its answer that its clients use.
fn passed_on(head: &penstock_engine::head::Head) -> Vec<(&'static str, String)> {
    const NAMES: [(&str, &str); 10] = [
        ("x-request-id", "x-upstream-request-id"),
        ("request-id", "x-upstream-request-id"),
        ("x-ratelimit-limit-requests", "x-ratelimit-limit-requests"),
        ("x-ratelimit-limit-tokens", "x-ratelimit-limit-tokens"),
        ("x-ratelimit-remaining-requests", "x-ratelimit-remaining-requests"),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-remaining-tokens"),
        ("x-ratelimit-reset-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-reset-tokens", "x-ratelimit-reset-tokens"),
        ("openai-processing-ms", "openai-processing-ms"),
        ("openai-version", "openai-version"),
    ];
    let named = |name: &str| NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, ours)| *ours);
    head.headers.iter().filter_map(|(name, value)| Some((named(name)?, value.clone()))).collect()
}

fn media_type(head: &penstock_engine::head::Head) -> String {
    let value = head.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let value = value.map_or("", |(_, value)| value.split(';').next().unwrap_or_default());
    value.trim().to_ascii_lowercase()
}

/// The error for a status that is none of success.
async fn refusal(upstream: &mut Upstream, head: &penstock_engine::head::Head) -> Failed {
    let find = |wanted: &str| {
        head.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
    };
    if head.status < 400 {
        let place = find("location").unwrap_or("nowhere").split('?').next().unwrap_or_default();
        let message = format!("the server redirects to {place}, where no key is sent unasked");
        return Error::new(Class::BadGateway, message).into();
    }
    // What could be read of it says enough.
    let mut body = Vec::new();
    let _ = tokio::time::timeout(ERROR_TIME, upstream.most(MAX_ERROR, &mut body)).await;
    let headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let error = wire::from_response(head.status, &headers, &body, unix_time());
    let advice = match find("x-should-retry") {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    Failed { advice, ..error.into() }
}

/// Whether an upstream does not know `stream_options`.
fn refuses_options(failed: &Failed) -> bool {
    let Error { message, details, .. } = &failed.problem.error;
    let named = |text: &[u8]| memchr::memmem::find(text, b"stream_options").is_some();
    matches!(details.status, Some(400 | 422))
        && (named(message.as_bytes()) || named(&details.body) || details.param.as_deref() == Some("stream_options"))
}

/// Values of headers that nobody may read in an error: some servers repeat them.
fn secrets(headers: &[(String, String)]) -> Vec<String> {
    let own = headers.iter().filter(|(name, _)| !OPEN.iter().any(|open| open.eq_ignore_ascii_case(name)));
    let bare = |value: &String| value.rsplit(' ').next().unwrap_or_default().to_owned();
    own.map(|(_, value)| bare(value)).filter(|value| value.len() >= SECRET).collect()
}

fn redact(error: &mut Error, secrets: &[String]) {
    for secret in secrets {
        let clean = |text: &mut String| {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), "[key]");
            }
        };
        clean(&mut error.message);
        let details = &mut error.details;
        [&mut details.code, &mut details.kind, &mut details.param].into_iter().flatten().for_each(clean);
    }
}

fn embeddings_usage(body: &[u8], reasoning: Reasoning) -> Option<Usage> {
    let mut account = UsageAccount::new(reasoning);
    let _ = Cursor::new(body).object(|cursor, key| {
        let value = cursor.skip()?;
        if key.raw() == b"usage" && value.starts_with(b"{") {
            let counts = openai_counts(value)?;
            // Nothing is generated, and some do not say so.
            let counts = Counts { completion: counts.completion.or(Some(0)), ..counts };
            account.report(counts, value, true);
        }
        Ok(())
    });
    account.usage().cloned()
}
