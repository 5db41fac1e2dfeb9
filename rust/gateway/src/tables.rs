//! What there is to serve, as it is given: names resolved, keys looked up, defaults filled in by whoever writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    pub groups: Vec<Group>,
    /// Other names of groups.
    pub aliases: BTreeMap<String, String>,
    pub deployments: Vec<Deployment>,
    pub settings: Settings,
}

/// A name that clients ask for, and who answers to it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// `vendor/*` stands for every name that begins so.
    pub name: String,
    /// Their ids.
    pub deployments: Vec<String>,
    #[serde(default = "shuffle")]
    pub strategy: String,
    #[serde(default = "two")]
    pub max_retries: u32,
    /// Seconds before any further attempt at least.
    #[serde(default)]
    pub retry_after: f64,
    #[serde(default)]
    pub fallbacks: Vec<String>,
    #[serde(default)]
    pub context_window_fallbacks: Vec<String>,
    #[serde(default)]
    pub content_policy_fallbacks: Vec<String>,
    /// A deployment needs all of a request's tags, not one.
    #[serde(default)]
    pub all_tags: bool,
}

/// One place that can answer.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    pub id: Arc<str>,
    /// As the upstream calls it. `*` is what stands in its place in the name that was asked for.
    pub model: Arc<str>,
    pub provider: Arc<str>,
    pub family: String,
    #[serde(default)]
    pub reasoning: String,
    #[serde(default)]
    pub end: String,
    /// How a request is put without asking anybody; None where each has to be planned.
    #[serde(default)]
    pub plain: Option<Plain>,
    #[serde(default)]
    pub embeddings: Option<Place>,
    #[serde(default)]
    pub route: Route,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default = "three")]
    pub allowed_fails: Option<u32>,
    /// Seconds.
    #[serde(default = "five")]
    pub cooldown: f64,
    #[serde(default = "one")]
    pub weight: f64,
    #[serde(default)]
    pub order: i64,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub max_prompt: Option<u64>,
    #[serde(default)]
    pub price: Option<Price>,
}

/// The client's body goes to the upstream, with another model in it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Plain {
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// Fields that the body gets where it does not have them.
    pub set: serde_json::Map<String, serde_json::Value>,
    /// Fields that the upstream calls otherwise.
    pub renames: BTreeMap<String, String>,
    /// Fields that go on, beside those that are the gateway's to write; a request with another one has to be planned
    /// after all. None: all of them.
    pub takes: Option<BTreeSet<String>>,
    /// Fields with which a request has to be planned.
    pub refuses: BTreeSet<String>,
    /// Whether the upstream can be asked for the usage of a stream.
    pub stream_options: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub url: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    pub proxy: Option<String>,
    pub verify: Verify,
    pub http2: Http2,
    /// Certificate chain and key.
    pub cert: Option<(PathBuf, PathBuf)>,
}

/// Where HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Http2 {
    #[default]
    Never,
    /// Within TLS, where the server chooses it.
    Negotiated,
    /// There, and without TLS always.
    PriorKnowledge,
}

/// Whom to trust: the machine's authorities, nobody in particular, or those in files.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Verify {
    Is(bool),
    By(Vec<PathBuf>),
}

impl Default for Verify {
    fn default() -> Self {
        Self::Is(true)
    }
}

/// Seconds; None is for ever.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    pub connect: Option<f64>,
    pub first_token: Option<f64>,
    pub idle: Option<f64>,
    pub total: Option<f64>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Some(5.0), first_token: Some(600.0), idle: Some(600.0), total: None }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub rpm: Option<u64>,
    pub tpm: Option<u64>,
    pub max_parallel: Option<u32>,
}

/// US dollars for one token. A part without a price of its own has that of the whole.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    #[serde(default)]
    pub cached: Option<f64>,
    #[serde(default)]
    pub cache_write: Option<f64>,
}

/// What becomes of an upstream's stream when the client has gone.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    #[default]
    Abort,
    /// It is read on to its usage, for so long.
    Drain,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// SHA-256 of it, as hexadecimal digits.
    pub master_key: Option<String>,
    /// Requests without a key are served, if there is no master key.
    pub allow_unauthenticated: bool,
    /// At once; beyond it 429.
    pub max_requests: usize,
    /// Bytes.
    pub max_body: usize,
    pub max_head: usize,
    /// Seconds that a client has for the head of a request, and for its body.
    pub head_seconds: f64,
    pub body_seconds: f64,
    /// And in which it takes some of the answer, when there is more of it than the system holds.
    pub send_seconds: f64,
    /// In any minute retries may be this part of the requests, and a hundred more: when everything fails, they multiply
    /// the load on what is overloaded already.
    pub retry_budget: f64,
    /// Seconds without a word from the upstream after which the client gets one; 0: never.
    pub silence: f64,
    pub on_disconnect: OnDisconnect,
    pub drain_seconds: f64,
    /// Origins that a browser may ask from; `*` is any.
    pub cors: Vec<String>,
    /// `/health` tells of the deployments without a key too.
    pub public_health: bool,
    /// Responses have headers that tell which deployment answered and what the upstream said of its limits.
    pub proxy_headers: bool,
    pub redis: Option<Redis>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            master_key: None,
            allow_unauthenticated: false,
            max_requests: 10_000,
            max_body: 32 << 20,
            max_head: 64 << 10,
            head_seconds: 10.0,
            body_seconds: 30.0,
            send_seconds: 300.0,
            retry_budget: 0.2,
            silence: 15.0,
            on_disconnect: OnDisconnect::Abort,
            drain_seconds: 60.0,
            cors: Vec::new(),
            public_health: true,
            proxy_headers: true,
            redis: None,
        }
    }
}

/// Limits and budgets that several nodes share.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
    #[serde(default = "penstock")]
    pub prefix: String,
    /// How many nodes share: each one's part of the limits while the server is not to be reached.
    #[serde(default = "node")]
    pub nodes: u32,
    /// What holds for limits then.
    #[serde(default)]
    pub when_down: WhenDown,
    /// What holds for budgets then.
    #[serde(default = "closed")]
    pub budgets_when_down: WhenDown,
    /// Seconds that a request waits for the server at most.
    #[serde(default = "instant")]
    pub patience: f64,
    /// Seconds after which the requests of a node that has died no longer count as under way.
    #[serde(default = "thirty")]
    pub lease: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Each node lets in its part.
    #[default]
    Share,
    /// Each node counts for itself.
    Open,
    /// Nobody is let in who has a limit.
    Closed,
}

fn shuffle() -> String {
    "shuffle".to_owned()
}

fn penstock() -> String {
    "penstock".to_owned()
}

fn node() -> u32 {
    1
}

fn closed() -> WhenDown {
    WhenDown::Closed
}

fn one() -> f64 {
    1.0
}

fn two() -> u32 {
    2
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn three() -> Option<u32> {
    Some(3)
}

fn instant() -> f64 {
    0.05
}

fn thirty() -> f64 {
    30.0
}

fn five() -> f64 {
    5.0
}
