//! The deployments of one model: which one a request goes to, and what its end tells about the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cooldown::{Breaker, Cooldown, Pass, Reason, State, Verdict};
use super::latency::PeakEwma;
use super::limits::{Full, Limits, Meter};
use crate::error::Class;

/// The tag of deployments for requests that no other one is meant for.
pub const DEFAULT_TAG: &str = "default";

/// One place that can answer.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub limits: Limits,
    pub cooldown: Cooldown,
    /// Its share, relative to the others'.
    pub weight: f64,
    /// The lowest go first; others only while those cannot be asked.
    pub order: i64,
    /// Of a token, in any currency. None: dearer than all whose price is known.
    pub price: Option<f64>,
    pub tags: Vec<String>,
    /// Tokens that a prompt may have.
    pub max_prompt: Option<u64>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            cooldown: Cooldown::default(),
            weight: 1.0,
            order: 0,
            price: None,
            tags: Vec::new(),
            max_prompt: None,
        }
    }
}

/// What decides between deployments that can all be asked. Where it does not, chance does, by weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Chance alone.
    Shuffle,
    /// The fewest requests in flight.
    LeastBusy,
    /// The shortest time to an answer that is to be expected, with the requests in flight.
    LowestLatency,
    LowestCost,
    /// The smallest part of its tokens a minute.
    LowestUsage,
}

impl Strategy {
    pub const ALL: [Self; 5] =
        [Self::Shuffle, Self::LeastBusy, Self::LowestLatency, Self::LowestCost, Self::LowestUsage];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shuffle => "shuffle",
            Self::LeastBusy => "least-busy",
            Self::LowestLatency => "lowest-latency",
            Self::LowestCost => "lowest-cost",
            Self::LowestUsage => "lowest-usage",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Only deployments with one of these tags, or if there are none, with [`DEFAULT_TAG`]. Without tags: those with
    /// the default tag, or if there are none, all.
    pub tags: &'a [String],
    /// All of the tags, not one.
    pub all_tags: bool,
    /// Tokens of the prompt, about.
    pub prompt: u64,
    /// Tokens of prompt and answer, about.
    pub tokens: u64,
    /// Streams and whole responses are timed apart: one by its beginning, one by its end.
    pub stream: bool,
    /// Deployments that are not wanted, by their index.
    pub except: &'a [usize],
}

/// Leave to send one request to a deployment, until it is settled.
#[derive(Debug)]
#[must_use = "a lease that is not settled keeps its place for ever"]
pub struct Lease {
    index: usize,
    stream: bool,
    taken: f64,
    tokens: u64,
    pass: Pass,
}

impl Lease {
    /// The deployment's place in the list that the pool was made of.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// When it was given.
    #[must_use]
    pub fn taken(&self) -> f64 {
        self.taken
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// There was an answer, if only to say that the request is wrong. `seconds`: how long a good one took; None where
    /// that says nothing, or was told when it began.
    Answered { seconds: Option<f64> },
    /// No answer, or one that broke off.
    Failed,
    /// A refusal that will not change before somebody has mended something.
    Barred,
    /// Too many requests; with the seconds to wait, if they were told.
    Limited { retry_after: Option<f64> },
    /// The caller left before there was anything to tell.
    Left,
}

impl Outcome {
    /// What an error says about the deployment. None is an error that no provider sends.
    #[must_use]
    pub fn of(class: Option<Class>, retry_after: Option<f64>) -> Self {
        match class {
            None => Self::Left,
            Some(Class::RateLimit) => Self::Limited { retry_after: retry_after.filter(|wait| *wait > 0.0) },
            Some(Class::PaymentRequired) => Self::Barred,
            Some(class) if class.barring() => Self::Barred,
            Some(Class::ResponseValidation) => Self::Failed,
            // Something else is going on there with the same object; the deployment is well.
            Some(Class::Conflict) => Self::Answered { seconds: None },
            Some(class) if class.retryable() => Self::Failed,
            Some(_) => Self::Answered { seconds: None },
        }
    }
}

/// Why no deployment can be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    pub cause: Cause,
    /// Seconds until one may be, as far as the clock decides; None where it does not.
    pub after: Option<f64>,
    /// Whether the end of another request may make room before that.
    pub busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// None has the tags.
    Unmatched,
    /// All that there are have been excepted.
    Excepted,
    /// All fail, and are left alone.
    Failing,
    /// All are at their limits, by our count or by their own.
    Limited,
}

impl Cause {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unmatched => "unmatched",
            Self::Excepted => "excepted",
            Self::Failing => "failing",
            Self::Limited => "limited",
        }
    }
}

/// A deployment as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    pub health: Health,
    /// Seconds that it will be left alone.
    pub cooling: f64,
    pub in_flight: u32,
    /// Ended requests that said something: answers and failures.
    pub answered: u64,
    pub failed: u64,
    /// Tokens in all.
    pub tokens: u64,
    /// Requests and tokens of the last minute.
    pub rpm: u64,
    pub tpm: u64,
    /// Seconds to the beginning of a stream, and to a whole response.
    pub first_token: Option<f64>,
    pub whole: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up,
    Cooling,
    Probing,
}

impl Health {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Cooling => "cooling",
            Self::Probing => "probing",
        }
    }
}

#[derive(Debug)]
struct Member {
    is: Deployment,
    /// Other pools may go on with it, see [`Pool::go_on`].
    seen: Arc<Mutex<Seen>>,
}

/// What is remembered of a deployment.
#[derive(Clone, Debug)]
struct Seen {
    meter: Meter,
    breaker: Breaker,
    first_token: PeakEwma,
    whole: PeakEwma,
    answered: u64,
    failed: u64,
    tokens: u64,
}

/// A pool by itself: what it does is nobody else's.
impl Clone for Member {
    fn clone(&self) -> Self {
        Self { is: self.is.clone(), seen: Arc::new(Mutex::new(self.seen().clone())) }
    }
}

impl Member {
    fn new(is: Deployment) -> Self {
        let seen = Seen {
            meter: Meter::new(is.limits),
            breaker: Breaker::new(is.cooldown),
            first_token: PeakEwma::default(),
            whole: PeakEwma::default(),
            answered: 0,
            failed: 0,
            tokens: 0,
        };
        Self { is, seen: Arc::new(Mutex::new(seen)) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn score(&self, seen: &mut Seen, strategy: Strategy, stream: bool, now: f64) -> f64 {
        match strategy {
            Strategy::Shuffle => 0.0,
            Strategy::LeastBusy => f64::from(seen.meter.in_flight),
            Strategy::LowestLatency => {
                let latency = if stream { seen.first_token } else { seen.whole };
                latency.cost(seen.meter.in_flight, now)
            }
            Strategy::LowestCost => self.is.price.unwrap_or(f64::MAX),
            Strategy::LowestUsage => seen.meter.load(now),
        }
    }

    fn tagged(&self, tag: &str) -> bool {
        self.is.tags.iter().any(|own| own == tag)
    }
}

/// All that is known of the deployments of one model.
#[derive(Clone, Debug)]
pub struct Pool {
    strategy: Strategy,
    members: Vec<Member>,
}

impl Pool {
    #[must_use]
    pub fn new(strategy: Strategy, deployments: Vec<Deployment>) -> Self {
        Self { strategy, members: deployments.into_iter().map(Member::new).collect() }
    }

    /// The deployment here goes on where the same one is `there` in the pool of before: with its counts, its limits, its
    /// cooldown, and with the requests that are under way, which are settled in the pool that they were let in by.
    pub fn go_on(&mut self, index: usize, before: &Self, there: usize) {
        if let (Some(member), Some(old)) = (self.members.get_mut(index), before.members.get(there)) {
            member.seen = Arc::clone(&old.seen);
        }
    }

    /// A deployment for a request, which counts from now on.
    pub fn lease(&mut self, request: &Request<'_>, now: f64, chance: f64) -> Result<Lease, Refusal> {
        let choice = self.choose(request, now, chance);
        let index = choice?;
        let Some(member) = self.members.get(index) else {
            return Err(Refusal { cause: Cause::Unmatched, after: None, busy: false });
        };
        let mut seen = member.seen();
        seen.meter.take(request.tokens, now);
        let pass = seen.breaker.admit();
        Ok(Lease { index, stream: request.stream, taken: now, tokens: request.tokens, pass })
    }

    fn choose(&self, request: &Request<'_>, now: f64, chance: f64) -> Result<usize, Refusal> {
        let mut refusal = Refusal { cause: Cause::Unmatched, after: None, busy: false };
        let strategy = self.strategy;
        let matching = self.matching(request);
        let fitting = self.members.iter().any(|member| matching.admits(member, request) && fits(member, request));
        let mut best = None;
        let mut open = Vec::with_capacity(self.members.len());
        for (index, member) in self.members.iter().enumerate() {
            if !matching.admits(member, request) || (fitting && !fits(member, request)) {
                continue;
            }
            if request.except.contains(&index) {
                if refusal.cause == Cause::Unmatched {
                    refusal.cause = Cause::Excepted;
                }
                continue;
            }
            let mut seen = member.seen();
            if !seen.breaker.admits(now) {
                refuse_cooling(&mut refusal, seen.breaker.state(), now);
                continue;
            }
            match seen.meter.check(request.tokens, now) {
                Ok(()) => {}
                Err(full) => {
                    refusal.cause = Cause::Limited;
                    match full {
                        Full::Ever => {}
                        Full::Slots => refusal.busy = true,
                        Full::Until(free) => sooner(&mut refusal.after, free - now),
                    }
                    continue;
                }
            }
            let rank = (member.is.order, member.score(&mut seen, strategy, request.stream, now));
            if best.is_none_or(|best| rank <= best) {
                if best != Some(rank) {
                    open.clear();
                }
                best = Some(rank);
                open.push((index, member.is.weight));
            }
        }
        by_weight(&open, chance).ok_or(refusal)
    }

    /// Which tags a deployment must have for this request.
    fn matching(&self, request: &Request<'_>) -> Matching {
        let any = |matching: Matching| self.members.iter().any(|member| matching.admits(member, request));
        if !request.tags.is_empty() {
            if any(Matching::Tags) { Matching::Tags } else { Matching::Default }
        } else if any(Matching::Default) {
            Matching::Default
        } else {
            Matching::All
        }
    }

    /// The answer to a request has begun: a stream's first event is there, so many seconds after it was asked for.
    pub fn began(&mut self, lease: &Lease, seconds: f64, now: f64) {
        if let Some(member) = self.members.get(lease.index) {
            let mut seen = member.seen();
            seen.breaker.began(lease.pass);
            seen.first_token.observe(seconds, now);
        }
    }

    /// A request has ended. `tokens`: of prompt and answer; None where nobody said, so that the estimate stands.
    #[expect(clippy::needless_pass_by_value, reason = "it is used up")]
    pub fn settle(&mut self, lease: Lease, outcome: Outcome, tokens: Option<u64>, now: f64) {
        let alone = self.members.len() == 1;
        let Some(member) = self.members.get(lease.index) else { return };
        let mut seen = member.seen();
        seen.meter.settle(lease.taken, lease.tokens, tokens.unwrap_or(lease.tokens), now);
        seen.tokens = seen.tokens.saturating_add(tokens.unwrap_or(0));
        let verdict = match outcome {
            Outcome::Answered { .. } => Verdict::Well,
            Outcome::Failed => Verdict::Failing,
            Outcome::Barred => Verdict::Barred,
            Outcome::Limited { retry_after } => Verdict::Limited(retry_after),
            Outcome::Left => Verdict::Unknown,
        };
        match outcome {
            Outcome::Answered { seconds } => {
                seen.answered += 1;
                if let Some(seconds) = seconds {
                    let latency = if lease.stream { &mut seen.first_token } else { &mut seen.whole };
                    latency.observe(seconds, now);
                }
            }
            Outcome::Left => {}
            _ => seen.failed += 1,
        }
        seen.breaker.judge(lease.pass, verdict, alone, now);
    }

    /// A request that was given up without a word: its place is free again, and nothing is learnt.
    pub fn release(&mut self, lease: Lease) {
        let taken = lease.taken;
        self.settle(lease, Outcome::Left, None, taken);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Each deployment as it is now, in their order.
    pub fn status(&mut self, now: f64) -> Vec<Status> {
        let status = |member: &Member| {
            let mut seen = member.seen();
            let (health, cooling) = match seen.breaker.state() {
                State::Up => (Health::Up, 0.0),
                State::Cooling { until, .. } => (Health::Cooling, (until - now).max(0.0)),
                State::Probing { .. } => (Health::Probing, 0.0),
            };
            let [rpm, tpm] = seen.meter.used(now);
            Status {
                health,
                cooling,
                in_flight: seen.meter.in_flight,
                answered: seen.answered,
                failed: seen.failed,
                tokens: seen.tokens,
                rpm,
                tpm,
                first_token: seen.first_token.seconds(),
                whole: seen.whole.seconds(),
            }
        };
        self.members.iter().map(status).collect()
    }
}

#[derive(Clone, Copy)]
enum Matching {
    All,
    Tags,
    Default,
}

impl Matching {
    fn admits(self, member: &Member, request: &Request<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Default => member.tagged(DEFAULT_TAG),
            Self::Tags if request.all_tags => request.tags.iter().all(|tag| member.tagged(tag)),
            Self::Tags => request.tags.iter().any(|tag| member.tagged(tag)),
        }
    }
}

/// Where a prompt is too long for every deployment, the provider says so better than an estimate.
fn fits(member: &Member, request: &Request<'_>) -> bool {
    member.is.max_prompt.is_none_or(|most| request.prompt <= most)
}

fn refuse_cooling(refusal: &mut Refusal, state: State, now: f64) {
    let (reason, until) = match state {
        State::Up => return,
        State::Cooling { until, reason } => (reason, Some(until)),
        State::Probing { reason } => (reason, None),
    };
    match until {
        Some(until) => sooner(&mut refusal.after, until - now),
        None => refusal.busy = true,
    }
    if reason == Reason::Limited {
        refusal.cause = Cause::Limited;
    } else if refusal.cause != Cause::Limited {
        refusal.cause = Cause::Failing;
    }
}

fn sooner(after: &mut Option<f64>, other: f64) {
    *after = Some(after.map_or(other, |after| after.min(other)));
}

/// One of these, each as often as its weight says; all alike if none has any.
#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn by_weight(open: &[(usize, f64)], chance: f64) -> Option<usize> {
    let total: f64 = open.iter().map(|(_, weight)| weight).sum();
    let weight = |weight: f64| if total > 0.0 { weight } else { 1.0 };
    let mut left = chance * if total > 0.0 { total } else { open.len() as f64 };
    for (index, own) in open {
        left -= weight(*own);
        if left < 0.0 {
            return Some(*index);
        }
    }
    // Chance was rounded up to all of it.
    open.iter().rev().find(|(_, own)| weight(*own) > 0.0).map(|(index, _)| *index)
}
