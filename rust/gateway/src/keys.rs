//! Who may ask, for what, and how much.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use penstock_core::error::Class;
use penstock_core::policy::limits::{Full, Limits, Meter};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::commons::{Pass, Purse, Terms, billionths, dollars};
use crate::problem::Problem;
use crate::tables::{self, WhenDown};

pub(crate) type Hash = [u8; 32];

/// A key as it is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// SHA-256 of the key, as hexadecimal digits.
    id: Arc<str>,
    #[serde(default)]
    name: Option<String>,
    /// Names of models, `*` at the end of one standing for anything; none is all.
    #[serde(default)]
    models: Vec<String>,
    #[serde(default)]
    rpm: Option<u64>,
    #[serde(default)]
    tpm: Option<u64>,
    #[serde(default)]
    max_parallel: Option<u32>,
    /// US dollars.
    #[serde(default)]
    budget: Option<f64>,
    #[serde(default)]
    spent: f64,
    /// Of which period that is: a later one has a higher number.
    #[serde(default)]
    period: Option<f64>,
    /// Unix seconds.
    #[serde(default)]
    expires: Option<f64>,
    #[serde(default)]
    blocked: bool,
}

impl Row {
    fn limits(&self) -> Limits {
        Limits { rpm: self.rpm, tpm: self.tpm, max_parallel: self.max_parallel }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds; out of range they saturate")]
    fn period(&self) -> u64 {
        self.period.unwrap_or(0.0) as u64
    }
}

#[derive(Debug)]
pub(crate) struct Key {
    row: RwLock<Arc<Row>>,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    meter: Meter,
    spent: f64,
    /// The part of it that is in rows which nobody has taken yet.
    untold: f64,
    /// What was spent has been set to less in the same period: that is news for whoever else counts it.
    anew: bool,
}

/// Whoever asks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Key(Arc<Key>),
    Master,
    /// Nobody is asked for a key.
    Anyone,
}

impl Caller {
    pub(crate) fn may_ask(&self, model: &str) -> bool {
        let Self::Key(key) = self else { return true };
        let row = key.row();
        row.models.is_empty()
            || row.models.iter().any(|known| match known.strip_suffix('*') {
                Some(beginning) => model.starts_with(beginning),
                None => known == model,
            })
    }

    pub(crate) fn id(&self) -> Option<Arc<str>> {
        match self {
            Self::Key(key) => Some(key.row().id.clone()),
            _ => None,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let (id, name) = match self {
            Self::Key(key) => (Some(key.row().id.clone()), key.row().name.clone()),
            _ => (None, None),
        };
        serde_json::json!({ "key": id, "name": name, "master": matches!(self, Self::Master) }).to_string()
    }
}

impl Key {
    fn row(&self) -> Arc<Row> {
        Arc::clone(&self.row.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key that cannot be used any more, whatever is asked.
    fn check(&self, time: f64) -> Result<(), Problem> {
        let row = self.row();
        let refused = |code, message: &str| Err(Problem::new(Class::Authentication, code, message));
        if row.blocked {
            return refused("key_blocked", "this key is blocked");
        }
        if row.expires.is_some_and(|expires| expires <= time) {
            return refused("key_expired", "this key has expired");
        }
        Ok(())
    }

    /// Lets a request of about so many tokens in, if the key's limits and its budget do.
    pub(crate) fn take(self: &Arc<Self>, tokens: u64, now: f64) -> Result<Hold, Problem> {
        let row = self.row();
        let mut counts = self.counts();
        row.afford(counts.spent)?;
        counts.meter.check(tokens, now).map_err(|full| row.full(full, now))?;
        Ok(self.admit(&mut counts, tokens, now, None))
    }

    fn admit(self: &Arc<Self>, counts: &mut Counts, tokens: u64, now: f64, pass: Option<Pass>) -> Hold {
        counts.meter.take(tokens, now);
        Hold { key: Arc::clone(self), taken: now, estimated: tokens, pass }
    }

    /// Lets a request in that all nodes together have let in.
    pub(crate) fn take_with(self: &Arc<Self>, pass: Pass, tokens: u64, now: f64) -> Hold {
        self.admit(&mut self.counts(), tokens, now, Some(pass))
    }

    /// Lets a request in, or not, while nobody knows what the other nodes do.
    pub(crate) fn take_alone(
        self: &Arc<Self>,
        pass: Pass,
        tokens: u64,
        now: f64,
        table: &tables::Redis,
    ) -> Result<Hold, Problem> {
        let row = self.row();
        let limits = row.limits();
        let closed = |closed: WhenDown| closed == WhenDown::Closed;
        if (limits != Limits::default() && closed(table.when_down))
            || (row.budget.is_some() && closed(table.budgets_when_down))
        {
            let message = "what is left of this key's limits is not known at the moment";
            return Err(Problem::new(Class::ServiceUnavailable, "limits_unknown", message).after(Some(1.0)));
        }
        let mut counts = self.counts();
        row.afford(counts.spent)?;
        let ours = if table.when_down == WhenDown::Share { part(limits, table.nodes) } else { limits };
        counts.meter.limit(ours);
        let checked = counts.meter.check(tokens, now);
        counts.meter.limit(limits);
        checked.map_err(|full| row.full(full, now))?;
        Ok(self.admit(&mut counts, tokens, now, Some(pass)))
    }

    pub(crate) fn id(&self) -> String {
        self.row().id.to_ascii_lowercase()
    }

    /// What to ask all nodes together; None where there is nothing to ask.
    pub(crate) fn terms(&self) -> Option<Terms> {
        let row = self.row();
        let limits = row.limits();
        if limits == Limits::default() && row.budget.is_none() {
            return None;
        }
        let counts = self.counts();
        let purse = Purse { spent: billionths(counts.spent), period: row.period() };
        Some(Terms { limits, budget: row.budget.map(billionths), purse: Some(purse), anew: counts.anew })
    }

    /// What all nodes together have spent.
    pub(crate) fn hear(&self, terms: &Terms, purse: Purse) {
        let mut counts = self.counts();
        counts.anew &= !terms.anew;
        // What this node has not told yet is not in it.
        if purse.period == self.row().period() {
            counts.spent = counts.spent.max(dollars(purse.spent));
        }
    }

    /// What a request is told that all nodes together do not let in.
    pub(crate) fn full(&self, full: Full, now: f64) -> Problem {
        self.row().full(full, now)
    }

    pub(crate) fn overspent(&self, purse: Purse) -> Problem {
        self.row().overspent(dollars(purse.spent))
    }
}

impl Row {
    fn afford(&self, spent: f64) -> Result<(), Problem> {
        if self.budget.is_some_and(|budget| spent >= budget) { Err(self.overspent(spent)) } else { Ok(()) }
    }

    #[cold]
    fn overspent(&self, spent: f64) -> Problem {
        let budget = self.budget.unwrap_or_default();
        let message = format!("this key has spent {spent:.6} of its budget of {budget} US dollars");
        Problem::new(Class::RateLimit, "budget_exceeded", message).for_good()
    }

    #[cold]
    fn full(&self, full: Full, now: f64) -> Problem {
        let message = format!("this key is at its limits ({})", said(&self.limits()));
        match full {
            Full::Until(free) => {
                Problem::new(Class::RateLimit, "key_limited", message).after(Some((free - now).max(0.1)))
            }
            Full::Slots => Problem::new(Class::RateLimit, "key_limited", message).after(Some(1.0)),
            Full::Ever => Problem::new(Class::RateLimit, "key_limited", "a limit of this key is 0").for_good(),
        }
    }
}

/// One of so many nodes' part, of which none is nothing.
fn part(limits: Limits, nodes: u32) -> Limits {
    let nodes = nodes.max(1);
    let of = |limit: u64| if limit == 0 { 0 } else { (limit / u64::from(nodes)).max(1) };
    Limits {
        rpm: limits.rpm.map(of),
        tpm: limits.tpm.map(of),
        max_parallel: limits.max_parallel.map(|most| if most == 0 { 0 } else { (most / nodes).max(1) }),
    }
}

fn said(limits: &Limits) -> String {
    let each = [
        (limits.rpm, "requests a minute"),
        (limits.tpm, "tokens a minute"),
        (limits.max_parallel.map(u64::from), "requests at once"),
    ];
    let each: Vec<_> = each.iter().filter_map(|(limit, what)| Some(format!("{} {what}", (*limit)?))).collect();
    each.join(", ")
}

/// A request of a key on its way.
#[derive(Debug)]
pub(crate) struct Hold {
    key: Arc<Key>,
    taken: f64,
    estimated: u64,
    /// Where the same is counted for all nodes.
    pass: Option<Pass>,
}

impl Key {
    /// A cost has been told to whoever keeps the books.
    pub(crate) fn told(&self, cost: f64) {
        let mut counts = self.counts();
        counts.untold = (counts.untold - cost).max(0.0);
    }
}

impl Hold {
    pub(crate) fn key(&self) -> Arc<Key> {
        Arc::clone(&self.key)
    }

    /// It has ended; None of the tokens where nobody knows them, so that the estimate stands.
    pub(crate) fn settle(self, tokens: Option<u64>, cost: Option<f64>, now: f64) {
        if let Some(pass) = self.pass {
            pass.settle(tokens.unwrap_or(self.estimated), billionths(cost.unwrap_or(0.0)));
        }
        let mut counts = self.key.counts();
        counts.meter.settle(self.taken, self.estimated, tokens.unwrap_or(self.estimated), now);
        counts.spent += cost.unwrap_or(0.0);
        counts.untold += cost.unwrap_or(0.0);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: RwLock<HashMap<Hash, Arc<Key>>>,
}

impl Keys {
    /// Takes keys in: new ones, and what has changed of others. What these have under way stays counted.
    pub(crate) fn put(&self, text: &[u8]) -> Result<(), String> {
        let rows: Vec<Row> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let rows: Vec<_> =
            rows.into_iter().map(|row| hash_of(&row.id).map(|hash| (hash, row))).collect::<Result<_, _>>()?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (hash, row) in rows {
            if let Some(key) = known.get(&hash) {
                let mut counts = key.counts();
                counts.meter.limit(row.limits());
                let before = key.row();
                // Books that are a batch behind are none the less the same books.
                let less = row.period() == before.period() && row.spent < before.spent / 2.0;
                counts.anew |= less || row.period() < before.period();
                counts.spent = row.spent + counts.untold;
                *key.row.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(row);
                continue;
            }
            let counts = Counts { meter: Meter::new(row.limits()), spent: row.spent, untold: 0.0, anew: false };
            known.insert(hash, Arc::new(Key { row: RwLock::new(Arc::new(row)), counts: Mutex::new(counts) }));
        }
        Ok(())
    }

    pub(crate) fn drop(&self, ids: &[String]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for hash in ids.iter().filter_map(|id| hash_of(id).ok()) {
            known.remove(&hash);
        }
    }

    /// Who shows this key. `time` is Unix seconds.
    pub(crate) fn caller(&self, shown: &str, master: Option<&Hash>, time: f64) -> Result<Caller, Problem> {
        let hash = hash(shown);
        if master.is_some_and(|master| same(master, &hash)) {
            return Ok(Caller::Master);
        }
        // The table is searched by the hash: how long that takes tells nothing about any key.
        let found = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        let Some(key) = found else {
            return Err(Problem::new(Class::Authentication, "invalid_api_key", "this key is not known here"));
        };
        key.check(time)?;
        Ok(Caller::Key(key))
    }

    /// What the key with this id is called, if it is called anything.
    pub(crate) fn name(&self, id: &str) -> Option<String> {
        let hash = hash_of(id).ok()?;
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&hash)?.row().name.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

pub(crate) fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &Hash, other: &Hash) -> bool {
    one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// The bytes of 64 hexadecimal digits.
pub(crate) fn hash_of(text: &str) -> Result<Hash, String> {
    let wrong = || format!("a key's id is 64 hexadecimal digits, not {} characters", text.len());
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().enumerate() {
        let digits = text.get(2 * place..2 * place + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-one";

    fn keys(fields: &str) -> Keys {
        let keys = Keys::default();
        put(&keys, fields);
        keys
    }

    fn put(keys: &Keys, fields: &str) {
        let id = key_id();
        keys.put(format!(r#"[{{"id":"{id}"{fields}}}]"#).as_bytes()).unwrap();
    }

    fn key(keys: &Keys) -> Arc<Key> {
        match keys.caller(SECRET, None, 0.0).unwrap() {
            Caller::Key(key) => key,
            other => unreachable!("{other:?}"),
        }
    }

    fn code(problem: &Problem) -> &str {
        problem.error.details.code.as_deref().unwrap_or_default()
    }

    #[test]
    fn who_shows_what() {
        let keys = keys("");
        let master = hash("master");
        assert!(matches!(keys.caller("master", Some(&master), 0.0), Ok(Caller::Master)));
        assert!(matches!(keys.caller(SECRET, Some(&master), 0.0), Ok(Caller::Key(_))));
        assert_eq!(code(&keys.caller("sk-two", Some(&master), 0.0).unwrap_err()), "invalid_api_key");
    }

    #[test]
    fn a_key_ends() {
        let keys = keys(r#","expires":100"#);
        assert!(keys.caller(SECRET, None, 99.0).is_ok());
        assert_eq!(code(&keys.caller(SECRET, None, 100.0).unwrap_err()), "key_expired");
        put(&keys, r#","blocked":true"#);
        assert_eq!(code(&keys.caller(SECRET, None, 0.0).unwrap_err()), "key_blocked");
        keys.drop(&[key_id()]);
        assert_eq!(code(&keys.caller(SECRET, None, 0.0).unwrap_err()), "invalid_api_key");
    }

    fn key_id() -> String {
        hash(SECRET).map(|byte| format!("{byte:02x}")).concat()
    }

    #[test]
    fn a_key_has_its_models() {
        let all = keys("");
        assert!(Caller::Key(key(&all)).may_ask("anything"));
        let some = keys(r#","models":["fast","gpt-*"]"#);
        let caller = Caller::Key(key(&some));
        assert!(caller.may_ask("fast") && caller.may_ask("gpt-4o"));
        assert!(!caller.may_ask("faster") && !caller.may_ask("claude"));
    }

    #[test]
    fn limits_hold_and_are_put_right() {
        let keys = keys(r#","rpm":2,"tpm":100,"max_parallel":1"#);
        let key = key(&keys);
        let hold = key.take(60, 0.0).unwrap();
        assert_eq!(key.take(10, 0.0).unwrap_err().error.details.retry_after, Some(1.0));
        hold.settle(Some(95), None, 1.0);
        // 95 of 100 tokens are used.
        let refused = key.take(10, 2.0).unwrap_err();
        assert_eq!(code(&refused), "key_limited");
        assert!(refused.error.details.retry_after.unwrap() > 50.0);
        key.take(5, 2.0).unwrap().settle(Some(0), None, 2.0);
        // Two requests in a minute.
        assert!(key.take(0, 3.0).is_err());
        assert!(key.take(0, 62.0).is_ok());
    }

    #[test]
    fn a_budget_is_spent_and_told_once() {
        let keys = keys(r#","budget":1.0,"spent":0.5"#);
        let key = key(&keys);
        key.take(0, 0.0).unwrap().settle(None, Some(0.6), 0.0);
        let refused = key.take(0, 0.0).unwrap_err();
        assert_eq!((code(&refused), refused.status, refused.retry), ("budget_exceeded", 429, Some(false)));
        // The books do not have it yet: what they say is not all.
        put(&keys, r#","budget":1.0,"spent":0.5"#);
        assert!(key.take(0, 0.0).is_err());
        key.told(0.6);
        put(&keys, r#","budget":2.0,"spent":1.1"#);
        assert!(key.take(0, 0.0).is_ok());
    }

    #[test]
    fn ids_are_hashes() {
        assert!(hash_of("abc").is_err());
        assert!(hash_of(&"g".repeat(64)).is_err());
        assert_eq!(hash_of(&key_id()), Ok(hash(SECRET)));
        assert!(Keys::default().put(b"[{}]").unwrap_err().contains("id"));
    }
}
