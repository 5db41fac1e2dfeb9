//! The tables made ready for use, and what lives as long as the process.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use penstock_core::decoder::{Dialect, End, Family};
use penstock_core::policy::cooldown::Cooldown;
use penstock_core::policy::limits::Limits;
use penstock_core::policy::pool::{self as policy, Strategy};
use penstock_core::policy::retry::Budget;
use penstock_core::usage::{Reasoning, Usage};
use penstock_engine::pool::{Http2, Pool, Route};
use penstock_engine::proxy::Proxy;
use penstock_engine::request::Outline;
use penstock_engine::tls::{Authorities, Identity, Trust};
use penstock_engine::url::Url;

use crate::commons::Commons;
use crate::keys::{Hash, Keys, hash_of};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::planner::Planner;
use crate::tables::{self, Place, Plain, Tables, Verify};
use crate::upstream::outline;

/// Retries that there may be in any minute beside the part of its requests that the tables allow.
const RESERVE: f64 = 100.0;

/// All that the threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: ArcSwap<State>,
    pub(crate) keys: Keys,
    pub(crate) ledger: Ledger,
    pub(crate) planner: Planner,
    pub(crate) metrics: Metrics,
    retries: Mutex<Budget>,
    /// Requests under way.
    pub(crate) busy: AtomicUsize,
    /// No more requests are taken.
    pub(crate) draining: AtomicBool,
    /// Streams end where they are.
    pub(crate) cutting: AtomicBool,
    /// The zero of the rules' clock.
    origin: Instant,
}

impl Shared {
    pub(crate) fn new(tables: Tables) -> Result<Self, String> {
        let retries = Mutex::new(Budget::new(tables.settings.retry_budget, RESERVE));
        Ok(Self {
            state: ArcSwap::from_pointee(State::new(tables, None)?),
            keys: Keys::default(),
            ledger: Ledger::default(),
            planner: Planner::default(),
            metrics: Metrics::default(),
            retries,
            busy: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
            origin: Instant::now(),
        })
    }

    /// What all deployments together may have of retries.
    pub(crate) fn retries(&self) -> MutexGuard<'_, Budget> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds on the clock of the rules.
    pub(crate) fn now(&self) -> f64 {
        self.origin.elapsed().as_secs_f64()
    }
}

impl Shared {
    /// A line for whoever runs this.
    pub(crate) fn log(&self, line: &str) {
        self.ledger.note(line);
    }

    /// Everything that the live page shows, as JSON.
    pub(crate) fn snapshot(&self, state: &State) -> Vec<u8> {
        let mut told = self.health(state);
        told.append(&mut self.metrics.describe(self));
        told.insert("master".to_owned(), state.master.is_some().into());
        serde_json::Value::Object(told).to_string().into_bytes()
    }

    /// How the deployments are, and how much is under way.
    pub(crate) fn health(&self, state: &State) -> serde_json::Map<String, serde_json::Value> {
        let now = self.now();
        let deployments: Vec<_> = state
            .groups()
            .flat_map(|group| {
                let statuses = group.rules().status(now);
                let each = move |(member, status): (&Arc<Deployment>, policy::Status)| {
                    serde_json::json!({
                        "group": group.table.name,
                        "id": member.table.id,
                        "model": member.table.model,
                        "provider": member.table.provider,
                        "health": status.health.name(),
                        "cooling": status.cooling,
                        "in_flight": status.in_flight,
                        "answered": status.answered,
                        "failed": status.failed,
                        "tokens": status.tokens,
                        "rpm": status.rpm,
                        "tpm": status.tpm,
                        "first_token": status.first_token,
                        "whole": status.whole,
                    })
                };
                group.members.iter().zip(statuses).map(each).collect::<Vec<_>>()
            })
            .collect();
        let busy = self.busy.load(std::sync::atomic::Ordering::Acquire);
        let mut told = serde_json::Map::new();
        told.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        told.insert("under_way".to_owned(), busy.into());
        told.insert("deployments".to_owned(), deployments.into());
        told
    }
}

/// Unix seconds.
pub(crate) fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The same, without what is between them.
pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// One set of tables.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: tables::Settings,
    pub(crate) master: Option<Hash>,
    /// What is shared with other nodes.
    pub(crate) commons: Option<Arc<Commons>>,
    groups: HashMap<String, Arc<Group>>,
    /// Those that stand for every name with a beginning; the longest first.
    open: Vec<(String, Arc<Group>)>,
    aliases: HashMap<String, String>,
    deployments: HashMap<Arc<str>, Arc<Deployment>>,
    routes: Vec<(tables::Route, Arc<Pool>)>,
}

/// A name, and who answers to it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) table: tables::Group,
    pub(crate) members: Vec<Arc<Deployment>>,
    /// Tags choose among them: without any there, what a client says of tags is its own affair.
    pub(crate) tagged: bool,
    rules: Mutex<policy::Pool>,
}

#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) table: tables::Deployment,
    pub(crate) family: Family,
    pub(crate) dialect: Dialect,
    pub(crate) pool: Arc<Pool>,
    /// Of a plain request, for a whole answer and for a stream.
    pub(crate) plain: Option<[Arc<Outline>; 2]>,
    pub(crate) embeddings: Option<Arc<Outline>>,
    /// It has refused `stream_options`.
    pub(crate) refuses_options: AtomicBool,
}

impl State {
    /// Makes tables ready. What is the same as before goes on: connections, and what is known of deployments.
    pub(crate) fn new(tables: Tables, before: Option<&Self>) -> Result<Self, String> {
        let Tables { groups, aliases, deployments, settings } = tables;
        let master = settings.master_key.as_deref().map(hash_of).transpose()?;
        let mut routes: Vec<(tables::Route, Arc<Pool>)> = Vec::new();
        let mut known: HashMap<Arc<str>, Arc<Deployment>> = HashMap::new();
        for table in deployments {
            let id = table.id.clone();
            let old = before.into_iter().flat_map(|state| &state.routes);
            let pool = match routes.iter().chain(old).find(|(route, _)| *route == table.route) {
                Some((_, pool)) => Arc::clone(pool),
                None => Arc::new(pool_of(&table.route).map_err(|why| format!("deployment {id}: {why}"))?),
            };
            if !routes.iter().any(|(route, _)| *route == table.route) {
                routes.push((table.route.clone(), Arc::clone(&pool)));
            }
            let same = before.and_then(|state| state.deployments.get(&id)).filter(|old| old.table == table);
            let deployment = match same {
                Some(same) => Arc::clone(same),
                None => Deployment::new(table, pool).map(Arc::new).map_err(|why| format!("deployment {id}: {why}"))?,
            };
            if known.insert(id.clone(), deployment).is_some() {
                return Err(format!("two deployments have the id {id}"));
            }
        }
        let same = before.and_then(|state| state.commons.as_ref());
        let commons = settings.redis.as_ref().map(|table| match same.filter(|commons| commons.table == *table) {
            Some(commons) => Ok(Arc::clone(commons)),
            None => Commons::new(table.clone()).map(Arc::new),
        });
        let mut state = Self {
            settings,
            master,
            commons: commons.transpose()?,
            groups: HashMap::new(),
            open: Vec::new(),
            aliases: aliases.into_iter().collect(),
            deployments: HashMap::new(),
            routes,
        };
        for table in groups {
            let name = table.name.clone();
            let group = Arc::new(Group::new(table, &known, before).map_err(|why| format!("group {name}: {why}"))?);
            if let Some(beginning) = name.strip_suffix('*') {
                state.open.push((beginning.to_owned(), Arc::clone(&group)));
            }
            if state.groups.insert(name.clone(), group).is_some() {
                return Err(format!("two groups have the name {name}"));
            }
        }
        state.open.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        state.deployments = known;
        Ok(state)
    }

    /// The group that answers to a name.
    pub(crate) fn group(&self, name: &str) -> Option<Arc<Group>> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        let named = self.groups.get(name).filter(|_| !name.ends_with('*'));
        named
            .or_else(|| self.open.iter().find(|(beginning, _)| name.starts_with(beginning)).map(|(_, group)| group))
            .cloned()
    }

    /// The names that can be asked for.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.groups.keys().chain(self.aliases.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }
}

fn pool_of(route: &tables::Route) -> Result<Pool, String> {
    let authorities = match &route.verify {
        Verify::Is(true) => Authorities::Platform,
        Verify::Is(false) => Authorities::Anyone,
        Verify::By(files) => Authorities::Files(files.clone()),
    };
    let identity = route.cert.clone().map(|(certificates, key)| Identity { certificates, key });
    let trust = Trust::new(&authorities, identity.as_ref()).map_err(|error: io::Error| format!("TLS: {error}"))?;
    let proxy = route.proxy.as_deref().map(Proxy::parse).transpose().map_err(|error| error.message)?;
    let http2 = match route.http2 {
        tables::Http2::Never => Http2::Never,
        tables::Http2::Negotiated => Http2::Negotiated,
        tables::Http2::PriorKnowledge => Http2::Known,
    };
    Ok(Pool::speaking(Route { proxy, trust: Arc::new(trust) }, http2))
}

impl Group {
    fn new(
        table: tables::Group,
        known: &HashMap<Arc<str>, Arc<Deployment>>,
        before: Option<&State>,
    ) -> Result<Self, String> {
        let strategy = Strategy::ALL.into_iter().find(|known| known.name() == table.strategy);
        let strategy = strategy.ok_or_else(|| {
            let known = Strategy::ALL.map(Strategy::name);
            format!("strategy is one of {known:?}, not {:?}", table.strategy)
        })?;
        if table.deployments.is_empty() {
            return Err("it has no deployments".to_owned());
        }
        let member =
            |id: &String| known.get(id.as_str()).cloned().ok_or_else(|| format!("there is no deployment {id}"));
        let members: Vec<_> = table.deployments.iter().map(member).collect::<Result<_, _>>()?;
        let mut rules = policy::Pool::new(strategy, members.iter().map(|member| member.rules()).collect());
        if let Some(old) = before.and_then(|state| state.groups.get(&table.name)) {
            let known = old.rules();
            for (index, there) in places(&members, &old.members) {
                rules.go_on(index, &known, there);
            }
        }
        let tagged = members.iter().any(|member| !member.table.tags.is_empty());
        Ok(Self { table, members, tagged, rules: Mutex::new(rules) })
    }

    pub(crate) fn rules(&self) -> MutexGuard<'_, policy::Pool> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which deployments were there before, and where. An id that is a place in a list becomes another deployment's when the
/// list changes: what is the same but for its id goes on too, where the ids leave it.
fn places(members: &[Arc<Deployment>], old: &[Arc<Deployment>]) -> Vec<(usize, usize)> {
    let same: [fn(&tables::Deployment, &tables::Deployment) -> bool; 2] =
        [|new, old| new == old, |new, old| *new == tables::Deployment { id: Arc::clone(&new.id), ..old.clone() }];
    let mut places: Vec<(usize, usize)> = Vec::new();
    for same in same {
        for (index, member) in members.iter().enumerate() {
            let taken = |there: usize| places.iter().any(|(new, old)| *new == index || *old == there);
            let there = (0..old.len()).zip(old).find(|(there, old)| !taken(*there) && same(&member.table, &old.table));
            places.extend(there.map(|(there, _)| (index, there)));
        }
    }
    places
}

impl Deployment {
    fn new(table: tables::Deployment, pool: Arc<Pool>) -> Result<Self, String> {
        let dialect = dialect(&table.reasoning, &table.end)?;
        let family = family(&table.family)?;
        let outline = |url: &str, headers: &[(String, String)], stream| {
            let outlined = Url::parse(url).and_then(|url| outline(url, headers.to_vec(), stream));
            outlined.map_err(|error| error.message)
        };
        let plain = table.plain.as_ref().map(|Plain { url, headers, .. }| {
            Ok::<_, String>([outline(url, headers, false)?, outline(url, headers, true)?])
        });
        let embeddings = table.embeddings.as_ref().map(|Place { url, headers }| outline(url, headers, false));
        let (plain, embeddings) = (plain.transpose()?, embeddings.transpose()?);
        let refuses_options = AtomicBool::new(false);
        Ok(Self { table, family, dialect, pool, plain, embeddings, refuses_options })
    }

    fn rules(&self) -> policy::Deployment {
        let table = &self.table;
        let tables::Limits { rpm, tpm, max_parallel } = table.limits;
        policy::Deployment {
            limits: Limits { rpm, tpm, max_parallel },
            cooldown: Cooldown { allowed_fails: table.allowed_fails, seconds: table.cooldown },
            weight: table.weight,
            order: table.order,
            price: table.price.map(|price| price.input + price.output),
            tags: table.tags.clone(),
            max_prompt: table.max_prompt,
        }
    }

    /// The upstream's name of the model that was asked for under this name.
    pub(crate) fn model(&self, group: &tables::Group, asked: &str) -> Arc<str> {
        match (self.table.model.split_once('*'), group.name.strip_suffix('*')) {
            (Some((before, after)), Some(beginning)) => {
                let rest = asked.strip_prefix(beginning).unwrap_or(asked);
                format!("{before}{rest}{after}").into()
            }
            _ => Arc::clone(&self.table.model),
        }
    }

    /// What an answer costs, in US dollars; None where that is not known.
    #[expect(clippy::cast_precision_loss, reason = "counts of tokens")]
    pub(crate) fn cost(&self, usage: &Usage) -> Option<f64> {
        let price = self.table.price?;
        let counts = &usage.counts;
        let (cached, written) = (counts.cached.unwrap_or(0), counts.cache_write.unwrap_or(0));
        let fresh = counts.prompt?.saturating_sub(cached).saturating_sub(written);
        Some(
            fresh as f64 * price.input
                + cached as f64 * price.cached.unwrap_or(price.input)
                + written as f64 * price.cache_write.unwrap_or(price.input)
                + counts.completion.unwrap_or(0) as f64 * price.output,
        )
    }
}

/// A family by its name.
pub fn family(name: &str) -> Result<Family, String> {
    name.parse().map_err(|()| {
        let known: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
        format!("family is one of {known:?}, not {name:?}")
    })
}

/// A dialect by the names of its parts; an empty one is the usual.
pub fn dialect(reasoning: &str, end: &str) -> Result<Dialect, String> {
    let reasoning = match reasoning {
        "" | "inside" => Reasoning::Inside,
        "beside" => Reasoning::Beside,
        other => return Err(format!("reasoning is inside or beside, not {other:?}")),
    };
    let end = match end {
        "" | "finish" => End::Finish,
        "done" => End::Done,
        "eof" => End::Eof,
        other => return Err(format!("end is finish, done or eof, not {other:?}")),
    };
    Ok(Dialect { reasoning, end })
}
