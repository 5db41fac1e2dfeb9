//! Counts for whoever watches: the summary, put down once a request, told to Prometheus and to the live page.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::policy::pool::Health;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::ledger::Row;
use crate::state::{Shared, State, unix_time};
use crate::summary::{RECENT_MINUTES, Summary, Times, Totals};

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many models and keys the page shows; the sums count the others too.
const SHOWN: usize = 100;
/// Digits of a key's id that tell one from another on a page.
const DIGITS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    // One lock, taken once a request and for less than a microsecond; the ledger's is no shorter.
    summary: Mutex<Summary>,
    /// Streams that are being written to their clients.
    streams: AtomicUsize,
}

/// A stream that is open for as long as this is there.
#[derive(Debug)]
pub(crate) struct Open(Arc<Shared>);

impl Open {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.metrics.streams.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has ended, and was for this group; None is one that is not in the tables.
    pub(crate) fn ended(&self, row: &Row, group: Option<&str>, now: f64) {
        self.summary().ended(row, group, now);
    }

    /// Somebody was not let in, with an error of this class.
    pub(crate) fn turned_away(&self, class: &'static str, now: f64) {
        self.summary().turned_away(class, now);
    }

    /// In the text format of `OpenMetrics`.
    pub(crate) fn render(&self, shared: &Shared, state: &State) -> String {
        let mut health = Vec::new();
        for group in state.groups() {
            let statuses = group.rules().status(shared.now());
            let each = group.members.iter().zip(statuses);
            health.extend(each.map(|(member, status)| {
                let up = match status.health {
                    Health::Up => 1.0,
                    Health::Probing => 0.5,
                    Health::Cooling => 0.0,
                };
                (group.table.name.clone(), member.table.id.to_string(), up)
            }));
        }
        let scrape = Scrape {
            summary: self.summary().clone(),
            health,
            under_way: shared.busy.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            jobs: shared.planner.waiting(),
            rows: shared.ledger.waiting(),
            started: unix_time() - shared.now(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        let mut text = String::new();
        // A string takes all that is written to it.
        let _ = encode(&mut text, &registry);
        text
    }

    /// What the live page shows beside the deployments.
    pub(crate) fn describe(&self, shared: &Shared) -> serde_json::Map<String, Value> {
        let now = shared.now();
        let (jobs, rows) = (shared.planner.waiting(), shared.ledger.waiting());
        let mut summary = self.summary();
        let mut told = serde_json::Map::new();
        let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
        tell("now", json!(unix_time()));
        tell("uptime", json!(now));
        tell("draining", json!(shared.draining.load(Ordering::Relaxed)));
        tell("streams", json!(self.streams.load(Ordering::Relaxed)));
        tell("jobs", json!(jobs));
        tell("rows", json!(rows));
        let seconds = json!({
            "requests": summary.requests.each(now),
            "tokens": summary.tokens.each(now),
            "errors": summary.errors.each(now),
        });
        tell("seconds", seconds);
        tell("totals", totals(&mut summary.all, now, []));
        let tokens = |totals: &Totals| (totals.prompt + totals.completion, totals.requests);
        let groups = summary.groups.largest(SHOWN, |group| tokens(&group.totals)).into_iter().map(|(name, group)| {
            let more = [
                ("name", json!(name)),
                ("first_token", json!(group.recent_first_token.percentiles(now))),
                ("duration", json!(group.recent_duration.percentiles(now))),
            ];
            totals(&mut group.totals, now, more)
        });
        tell("groups", groups.collect());
        tell("recent", json!(RECENT_MINUTES * 60));
        let keys = summary.keys.largest(SHOWN, tokens).into_iter().map(|(id, key)| {
            totals(key, now, [("id", json!(id.get(..DIGITS))), ("name", json!(shared.keys.name(id)))])
        });
        tell("keys", keys.collect());
        let errors = summary
            .classes
            .iter_mut()
            .map(|(class, errors)| json!({ "class": class, "minute": errors.minute.sum(now), "total": errors.total }));
        tell("errors", errors.collect());
        told
    }
}

fn totals<const N: usize>(totals: &mut Totals, now: f64, more: [(&str, Value); N]) -> Value {
    let sums = [
        ("requests", json!(totals.requests)),
        ("minute", json!(totals.minute.sum(now))),
        ("errors", json!(totals.errors)),
        ("prompt", json!(totals.prompt)),
        ("completion", json!(totals.completion)),
        ("cached", json!(totals.cached)),
        ("reasoning", json!(totals.reasoning)),
        ("cost", json!(totals.cost)),
    ];
    sums.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Everything at one moment.
#[derive(Debug)]
struct Scrape {
    summary: Summary,
    /// Group, deployment, how it is.
    health: Vec<(String, String, f64)>,
    under_way: usize,
    streams: usize,
    jobs: usize,
    rows: usize,
    /// Unix seconds.
    started: f64,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_upstreams(&mut encoder)?;
        self.encode_now(&mut encoder)
    }
}

impl Scrape {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let groups = self.summary.groups.each();

        let name = "penstock_requests";
        let mut family = family(encoder, name, "Requests that have ended", MetricType::Counter)?;
        for (group, known) in &groups {
            for (deployment, ends) in known.ends.each() {
                for ((outcome, status), count) in ends {
                    let class = format!("{status}xx");
                    let labels =
                        [("group", *group), ("deployment", deployment), ("outcome", *outcome), ("status", &*class)];
                    counter(&mut family, &labels, count)?;
                }
            }
        }

        let name = "penstock_turned_away";
        let help = "Requests that were not let in, by the class of the error";
        let mut family = self::family(encoder, name, help, MetricType::Counter)?;
        for (error, count) in &self.summary.turned_away {
            counter(&mut family, &[("error", *error)], count)?;
        }

        let help =
            "Tokens as the upstreams counted them; cached ones are of the prompt, reasoning is of the completion";
        let mut family = self::family(encoder, "penstock_tokens", help, MetricType::Counter)?;
        for (group, known) in &groups {
            let Totals { prompt, completion, cached, reasoning, .. } = &known.totals;
            for (kind, count) in
                [("prompt", prompt), ("completion", completion), ("cached", cached), ("reasoning", reasoning)]
            {
                counter(&mut family, &[("group", *group), ("kind", kind)], count)?;
            }
        }

        let help = "What the answers cost, in US dollars, where a price is known";
        let mut family = self::family(encoder, "penstock_cost_dollars", help, MetricType::Counter)?;
        for (group, known) in &groups {
            counter(&mut family, &[("group", *group)], &known.totals.cost)?;
        }

        let mut family = self::family(encoder, "penstock_chunks", "Chunks of streams", MetricType::Counter)?;
        for (group, known) in &groups {
            counter(&mut family, &[("group", *group)], &known.totals.chunks)?;
        }

        let help = "From a request's acceptance to its first token";
        let mut family = self::family(encoder, "penstock_first_token_seconds", help, MetricType::Histogram)?;
        for (group, known) in &groups {
            histogram(&mut family, &[("group", *group)], &known.first_token)?;
        }

        let help = "From a request's acceptance to its end, however it ended";
        let mut family = self::family(encoder, "penstock_duration_seconds", help, MetricType::Histogram)?;
        for (group, known) in &groups {
            histogram(&mut family, &[("group", *group)], &known.duration)?;
        }
        Ok(())
    }

    fn encode_upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let deployments = self.summary.deployments.each();

        let help = "Requests to deployments, by the class of the error; none is an answer";
        let mut family = family(encoder, "penstock_attempts", help, MetricType::Counter)?;
        for (deployment, attempts) in &deployments {
            for (error, count) in &attempts.errors {
                counter(&mut family, &[("deployment", *deployment), ("error", *error)], count)?;
            }
        }

        let help = "From a request to a deployment to its error, the first event of its stream, or its whole answer";
        let mut family = self::family(encoder, "penstock_attempt_seconds", help, MetricType::Histogram)?;
        for (deployment, attempts) in &deployments {
            histogram(&mut family, &[("deployment", *deployment)], &attempts.times)?;
        }

        let help = "1 up, 0.5 being tried again, 0 left alone after failures";
        let mut family = self::family(encoder, "penstock_deployment_health", help, MetricType::Gauge)?;
        for (group, deployment, up) in &self.health {
            gauge(&mut family, &[("group", &**group), ("deployment", &**deployment)], up)?;
        }
        Ok(())
    }

    fn encode_now(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, count) in [
            ("penstock_requests_under_way", "Requests that have been let in and have not ended", self.under_way),
            ("penstock_streams_open", "Streams that are being written to their clients", self.streams),
            ("penstock_planner_jobs_waiting", "Requests that wait to be put into an upstream's words", self.jobs),
            ("penstock_ledger_rows_waiting", "Ended requests that are not in the books yet", self.rows),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family(encoder, name, help, MetricType::Gauge)?.encode_gauge(&count)?;
        }
        family(encoder, "process_start_time_seconds", "Unix time of the start", MetricType::Gauge)?
            .encode_gauge(&self.started)?;
        family(encoder, "penstock_build", "What runs here", MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

fn family<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, kind)
}

fn counter(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: &impl EncodeCounterValue,
) -> fmt::Result {
    let no_exemplar = None::<&Exemplar<NoLabelSet, u64>>;
    family.encode_family(labels)?.encode_counter(value, no_exemplar)
}

fn gauge(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: &impl EncodeGaugeValue) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(value)
}

fn histogram(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, times: &Times) -> fmt::Result {
    let no_exemplars = None;
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(
        times.sum,
        times.count(),
        &times.buckets(),
        no_exemplars,
    )
}
