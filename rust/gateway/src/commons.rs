//! What several nodes have in common: the limits and budgets of keys, kept by a Redis or Valkey server.
//!
//! A request asks the server once before it is let in, by a script that checks and takes all at once, and is settled
//! there when it has ended, which nobody waits for. One thread holds the connection: it makes it, and again when it is
//! lost, and carries the settlements. The workers ask over it. What is not answered in time is not waited for,
//! by that request or by any other until the server answers again.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use penstock_core::policy::limits::Limits;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, Script};
use tokio::sync::Notify;

use crate::state::Shared;
use crate::tables::{self, WhenDown};
use crate::upstream::duration;

/// How long the thread does, which keeps nobody waiting.
const CALM: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A connection that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(5);
/// How often an idle connection is looked after at least.
const LOOK: Duration = Duration::from_secs(1);
/// Settlements that are kept until the server is back; then the oldest are given up.
const KEPT: usize = 100_000;
/// Settlements that are sent together.
const BATCH: usize = 256;
/// Tokens, and billionths, of one request: what an upstream says beyond that is nonsense, and more than the scripts' and
/// the server's numbers hold. One settlement that cannot be written would keep all behind it from being so.
const ONCE: u64 = 1 << 50;
/// Billionths of a sum, which has room for many requests more.
const EVER: u64 = 1 << 60;
/// How long settlements of a table that was replaced are carried after the last of its requests.
const REMAINS: Duration = Duration::from_secs(60);

/// What a key may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    /// Billionths of a US dollar, as all sums here.
    pub(crate) budget: Option<u64>,
    /// What this node knows of it; where it is `anew`, whatever the server has.
    pub(crate) purse: Option<Purse>,
    pub(crate) anew: bool,
}

/// What was spent in a period. A later one has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purse {
    pub(crate) spent: u64,
    pub(crate) period: u64,
}

/// The server's word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    In,
    /// Not before so many seconds.
    After(f64),
    /// Not before another request ends.
    Slots,
    /// The budget is spent.
    Spent,
}

/// Billionths, from US dollars. A half goes to the even one, as Python's `round` has it, which reckons some of them too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "out of range it saturates")]
pub(crate) fn billionths(dollars: f64) -> u64 {
    (dollars * 1e9).round_ties_even() as u64
}

/// US dollars, from billionths.
#[expect(clippy::cast_precision_loss, reason = "beyond nine million dollars the last billionth is not told")]
pub(crate) fn dollars(billionths: u64) -> f64 {
    billionths as f64 / 1e9
}

/// One table's server.
#[derive(Debug)]
pub(crate) struct Commons {
    pub(crate) table: tables::Redis,
    bond: Arc<Bond>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The node's end of it.
struct Bond {
    client: Client,
    /// Where the server is: nothing secret.
    place: String,
    prefix: String,
    /// How long a request waits for the server.
    patience: Duration,
    /// A request that is not heard of for so long is no longer under way: its node has died.
    lease: Duration,
    /// This process among all.
    node: String,
    scripts: Scripts,
    line: ArcSwapOption<Line>,
    /// Requests under way, by their numbers.
    open: Mutex<HashMap<u64, Arc<Open>>>,
    notes: Mutex<Notes>,
    /// There are notes, or it is over.
    wake: Notify,
    broken: Notify,
    /// No more requests are asked for.
    over: AtomicBool,
    /// Nor is anybody left to wait for.
    closing: AtomicBool,
    /// Whether the first attempt to connect has ended.
    tried: (Mutex<bool>, Condvar),
}

impl fmt::Debug for Bond {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bond").field("place", &self.place).field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Scripts {
    enter: Script,
    settle: Script,
    renew: Script,
}

impl Scripts {
    fn new() -> Self {
        Self {
            enter: Script::new(concat!(include_str!("commons/window.lua"), include_str!("commons/enter.lua"))),
            settle: Script::new(concat!(include_str!("commons/window.lua"), include_str!("commons/settle.lua"))),
            renew: Script::new(include_str!("commons/renew.lua")),
        }
    }
}

/// A connection that works, as far as is known.
struct Line {
    connection: MultiplexedConnection,
    /// Why it does not any more.
    fault: Mutex<Option<String>>,
}

/// A request under way.
#[derive(Debug)]
struct Open {
    number: u64,
    id: String,
    /// How the key's names on the server begin.
    key: String,
    estimated: u64,
    since: Instant,
    /// It may be counted on the server.
    asked: AtomicBool,
    /// The server's second it was counted in.
    taken: AtomicI64,
}

const UNKNOWN: i64 = -1;

impl Open {
    fn taken(&self) -> i64 {
        self.taken.load(Ordering::Acquire)
    }
}

/// Settlements that the server has not confirmed, in their order.
#[derive(Debug, Default)]
struct Notes {
    waiting: VecDeque<Note>,
    last: u64,
    requests: u64,
    given_up: u64,
}

#[derive(Clone, Debug)]
struct Note {
    number: u64,
    open: Arc<Open>,
    ended: Instant,
    tokens: u64,
    cost: u64,
    entered: bool,
}

impl Notes {
    /// `keep`: how many may wait.
    fn put(&mut self, note: Note, keep: usize) {
        self.last += 1;
        if self.waiting.len() >= keep {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        self.waiting.push_back(Note { number: self.last, ..note });
    }

    fn batch(&self) -> Vec<Note> {
        self.waiting.iter().take(BATCH).cloned().collect()
    }

    /// All up to this number are confirmed.
    fn confirm(&mut self, number: u64) {
        while self.waiting.front().is_some_and(|note| note.number <= number) {
            self.waiting.pop_front();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A limit as the scripts have it.
fn or_none(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// A script's call with so many of a key's names.
fn evaluate(script: &Script, count: usize, key: &str, names: &[&str]) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(script.get_hash()).arg(count);
    for name in names {
        cmd.arg(format!("{key}:{name}"));
    }
    cmd
}

impl Commons {
    pub(crate) fn new(table: tables::Redis) -> Result<Self, String> {
        if table.budgets_when_down == WhenDown::Share {
            return Err("redis: budgets_when_down is closed or open: a budget has no parts".to_owned());
        }
        // What is wrong with a URL is told without the URL, which may have a password in it.
        let wrong = |error: redis::RedisError| format!("redis: url: {error}");
        let info = table.url.as_str().into_connection_info().map_err(wrong)?;
        let place = info.addr().to_string();
        // A question is sent when it is there.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let bond = Bond {
            client: Client::open(info).map_err(wrong)?,
            place,
            prefix: table.prefix.clone(),
            patience: duration(table.patience).ok_or("redis: patience is seconds")?,
            lease: duration(table.lease).filter(|lease| !lease.is_zero()).ok_or("redis: lease is seconds")?,
            node: format!("{:016x}", fastrand::u64(..)),
            scripts: Scripts::new(),
            line: ArcSwapOption::empty(),
            open: Mutex::default(),
            notes: Mutex::default(),
            wake: Notify::new(),
            broken: Notify::new(),
            over: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            tried: (Mutex::new(false), Condvar::new()),
        };
        Ok(Self { table, bond: Arc::new(bond), thread: Mutex::default() })
    }

    /// Connects from here on.
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (bond, log) =
                (Arc::clone(&self.bond), Log { shared: Arc::downgrade(shared), table: self.table.clone() });
            let work = move || runtime.block_on(bond.carry(&log));
            *thread = Some(thread::Builder::new().name("penstock-redis".to_owned()).spawn(work)?);
        }
        Ok(())
    }

    /// Waits for the first attempt to connect, so that nobody is let in by guess because a node has just begun.
    pub(crate) fn wait(&self) {
        let (tried, ended) = &self.bond.tried;
        let _ = ended.wait_timeout_while(lock(tried), 2 * CALM, |tried| !*tried);
    }

    /// Ends the thread; what is not settled by then is, if that does not take long.
    pub(crate) fn close(&self) {
        self.bond.closing.store(true, Ordering::Release);
        self.end();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }

    fn end(&self) {
        self.bond.over.store(true, Ordering::Release);
        self.bond.wake.notify_one();
    }

    /// A request of a key that wants to be let in.
    pub(crate) fn pass(&self, id: &str, key: &str, estimated: u64) -> Pass {
        let mut notes = lock(&self.bond.notes);
        notes.requests += 1;
        let open = Arc::new(Open {
            number: notes.requests,
            id: id.to_owned(),
            // In braces, so that all of a key's names are in one place of a cluster.
            key: format!("{}:{{{key}}}", self.bond.prefix),
            estimated: estimated.min(ONCE),
            since: Instant::now(),
            asked: AtomicBool::new(false),
            taken: AtomicI64::new(UNKNOWN),
        });
        drop(notes);
        lock(&self.bond.open).insert(open.number, Arc::clone(&open));
        Pass { bond: Arc::clone(&self.bond), open, settled: false }
    }
}

impl Drop for Commons {
    fn drop(&mut self) {
        self.end();
    }
}

/// A request's claim on what is shared. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Pass {
    bond: Arc<Bond>,
    open: Arc<Open>,
    settled: bool,
}

impl Pass {
    /// Asks the server, once; None if it does not answer.
    pub(crate) async fn ask(&self, terms: &Terms) -> Option<(Verdict, Purse)> {
        let line = self.bond.line.load_full()?;
        self.open.asked.store(true, Ordering::Release);
        let question = self.bond.enter(&self.open, terms);
        let mut connection = line.connection.clone();
        let answer = tokio::time::timeout(self.bond.patience, question.query_async::<Entered>(&mut connection)).await;
        let (code, wait, second, spent, period) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.bond.lose(&line, error.to_string());
                return None;
            }
            Err(_) => {
                self.bond.lose(&line, format!("no answer within {} ms", self.bond.patience.as_millis()));
                return None;
            }
        };
        let verdict = match code {
            0 => Verdict::In,
            1 => Verdict::After(Duration::from_millis(wait).as_secs_f64()),
            2 => Verdict::Slots,
            _ => Verdict::Spent,
        };
        if verdict == Verdict::In {
            self.open.taken.store(second, Ordering::Release);
        } else {
            self.open.asked.store(false, Ordering::Release);
        }
        Some((verdict, Purse { spent, period }))
    }

    /// The request that was let in has ended.
    pub(crate) fn settle(mut self, tokens: u64, cost: u64) {
        self.settled = true;
        self.note(tokens, cost, true);
    }

    fn note(&self, tokens: u64, cost: u64, entered: bool) {
        let (open, ended) = (Arc::clone(&self.open), Instant::now());
        let note = Note { number: 0, open, ended, tokens: tokens.min(ONCE), cost: cost.min(ONCE), entered };
        lock(&self.bond.notes).put(note, KEPT);
        self.bond.wake.notify_one();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.bond.open).remove(&self.open.number);
        // Its client went while the server was asked, or it was refused here while the server did not answer.
        if !self.settled && self.open.asked.load(Ordering::Acquire) {
            self.note(0, 0, false);
        }
    }
}

/// Code, milliseconds, second, spent, period.
type Entered = (u8, u64, i64, u64, u64);

/// Who is told.
#[derive(Debug)]
struct Log {
    shared: Weak<Shared>,
    table: tables::Redis,
}

impl Log {
    fn say(&self, line: &str) {
        if let Some(shared) = self.shared.upgrade() {
            shared.log(line);
        }
    }

    fn down(&self, place: &str, why: &str) {
        let limits = match self.table.when_down {
            WhenDown::Share => format!("limits of keys are counted here, each a part of {}", self.table.nodes.max(1)),
            WhenDown::Open => "limits of keys are counted here, each the whole".to_owned(),
            WhenDown::Closed => "keys with limits are refused".to_owned(),
        };
        let budgets = match self.table.budgets_when_down {
            WhenDown::Closed => "keys with a budget are refused",
            _ => "budgets are what this node knows",
        };
        self.say(&format!("redis at {place} does not answer ({why}): {limits}; {budgets}"));
    }
}

impl Bond {
    /// No question goes over this line any more.
    fn lose(&self, line: &Arc<Line>, why: String) {
        lock(&line.fault).get_or_insert(why);
        // Of those who notice at once the first is enough.
        self.line.compare_and_swap(line, None);
        self.broken.notify_one();
    }

    fn enter(&self, open: &Open, terms: &Terms) -> Cmd {
        let Terms { limits, budget, purse, anew } = terms;
        let mut cmd = evaluate(&self.scripts.enter, 3, &open.key, &["minute", "leases", "purse"]);
        cmd.arg(&open.id).arg(open.estimated);
        cmd.arg(or_none(limits.rpm)).arg(or_none(limits.tpm)).arg(or_none(limits.max_parallel.map(u64::from)));
        cmd.arg(or_none(*budget)).arg(or_none(purse.map(|purse| purse.spent.min(EVER))));
        cmd.arg(purse.map_or(0, |purse| purse.period)).arg(u8::from(*anew)).arg(millis(self.lease));
        cmd
    }

    fn settle(&self, note: &Note) -> Cmd {
        let open = &note.open;
        let mut cmd = evaluate(&self.scripts.settle, 4, &open.key, &["minute", "leases", "purse"]);
        cmd.arg(format!("{}:settled:{}", open.key, self.node));
        cmd.arg(&open.id).arg(note.number).arg(open.taken());
        cmd.arg(millis(open.since.elapsed())).arg(millis(note.ended.elapsed()));
        cmd.arg(open.estimated).arg(note.tokens).arg(note.cost).arg(u8::from(note.entered));
        cmd
    }

    /// The thread's work.
    async fn carry(&self, log: &Log) {
        let mut down: Option<Instant> = None;
        let mut pause = PAUSES.0;
        let mut last: Option<Instant> = None;
        while !self.done(&mut last) {
            let why = match self.connect().await {
                Ok(line) => {
                    let began = Instant::now();
                    self.line.store(Some(Arc::clone(&line)));
                    if let Some(since) = down.take() {
                        let seconds = since.elapsed().as_secs_f64();
                        let given_up = std::mem::take(&mut lock(&self.notes).given_up);
                        let short = if given_up > 0 {
                            format!("; {given_up} requests are not settled there")
                        } else {
                            String::new()
                        };
                        log.say(&format!("redis at {} answers again after {seconds:.1} s{short}", self.place));
                    }
                    self.have_tried();
                    let Err(why) = self.attend(&line, &mut last).await else { return };
                    self.line.store(None);
                    if began.elapsed() > LASTED {
                        pause = PAUSES.0;
                    }
                    lock(&line.fault).take().unwrap_or(why)
                }
                Err(why) => why,
            };
            if down.is_none() {
                down = Some(Instant::now());
                log.down(&self.place, &why);
            }
            self.have_tried();
            let until = Instant::now() + pause.mul_f64(fastrand::f64().mul_add(0.5, 0.75));
            // Settlements that come meanwhile wake nothing up but the question whether this is over.
            while !self.done(&mut last) && tokio::time::timeout_at(until.into(), self.wake.notified()).await.is_ok() {}
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn have_tried(&self) {
        *lock(&self.tried.0) = true;
        self.tried.1.notify_all();
    }

    /// Whether the thread ends here. `last`: since when there is nothing but what could not be delivered.
    fn done(&self, last: &mut Option<Instant>) -> bool {
        if !self.over.load(Ordering::Acquire) {
            return false;
        }
        let closing = self.closing.load(Ordering::Acquire);
        if !closing && !lock(&self.open).is_empty() {
            return false;
        }
        let since = *last.get_or_insert_with(Instant::now);
        lock(&self.notes).waiting.is_empty() || since.elapsed() > if closing { CALM } else { REMAINS }
    }

    /// A line that works, over which all that is known has been told.
    async fn connect(&self) -> Result<Arc<Line>, String> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CALM)).set_response_timeout(Some(CALM));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| error.to_string())?;
        for script in [&self.scripts.enter, &self.scripts.settle, &self.scripts.renew] {
            script.load_async(&mut connection).await.map_err(|error| error.to_string())?;
        }
        let line = Line { connection, fault: Mutex::default() };
        // Who would keep every request waiting in vain is not asked.
        let ping = line.ping();
        tokio::time::timeout(self.patience, ping)
            .await
            .map_err(|_| format!("no answer within {} ms", self.patience.as_millis()))??;
        self.deliver(&line).await?;
        self.catch_up(&line).await?;
        Ok(Arc::new(line))
    }

    /// Requests that the server does not know of, as far as anybody knows: they are under way, whatever the limits.
    async fn catch_up(&self, line: &Line) -> Result<(), String> {
        let open: Vec<_> = lock(&self.open).values().filter(|open| open.taken() == UNKNOWN).cloned().collect();
        let terms = Terms { limits: Limits::default(), budget: None, purse: None, anew: false };
        for some in open.chunks(BATCH) {
            let mut pipe = redis::pipe();
            for open in some {
                open.asked.store(true, Ordering::Release);
                pipe.add_command(self.enter(open, &terms));
            }
            let answers: Vec<Entered> = line.send(&pipe).await?;
            for (open, (_, _, second, _, _)) in some.iter().zip(answers) {
                open.taken.store(second, Ordering::Release);
            }
        }
        self.renew(line).await
    }

    /// Tells the server which requests are still under way.
    async fn renew(&self, line: &Line) -> Result<(), String> {
        let mut keys: HashMap<String, Vec<Arc<Open>>> = HashMap::new();
        for open in lock(&self.open).values().filter(|open| open.taken() != UNKNOWN) {
            keys.entry(open.key.clone()).or_default().push(Arc::clone(open));
        }
        let mut pipe = redis::pipe();
        for (key, open) in &keys {
            for some in open.chunks(BATCH) {
                let mut renewal = evaluate(&self.scripts.renew, 1, key, &["leases"]);
                renewal.arg(millis(self.lease));
                for open in some {
                    renewal.arg(&open.id);
                }
                pipe.add_command(renewal);
            }
        }
        if pipe.is_empty() { Ok(()) } else { line.send::<Vec<u64>>(&pipe).await.map(|_| ()) }
    }

    /// Settlements, until none is left.
    async fn deliver(&self, line: &Line) -> Result<(), String> {
        loop {
            let batch = lock(&self.notes).batch();
            let Some(last) = batch.last() else { return Ok(()) };
            let mut pipe = redis::pipe();
            for note in &batch {
                pipe.add_command(self.settle(note));
            }
            line.send::<Vec<u8>>(&pipe).await?;
            lock(&self.notes).confirm(last.number);
        }
    }

    /// Carries until the line is lost, and says why, or until it is over.
    async fn attend(&self, line: &Line, last: &mut Option<Instant>) -> Result<(), String> {
        let mut look = tokio::time::interval(LOOK.min(self.lease / 6));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        while !self.done(last) {
            tokio::select! {
                () = self.wake.notified() => self.deliver(line).await?,
                () = self.broken.notified() => if lock(&line.fault).is_some() {
                    return Err(String::new());
                },
                _ = look.tick() => {
                    if renewed.elapsed() >= self.lease / 3 {
                        renewed = Instant::now();
                        self.renew(line).await?;
                    } else {
                        line.ping().await?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Line {
    async fn send<T: redis::FromRedisValue>(&self, pipe: &Pipeline) -> Result<T, String> {
        pipe.query_async(&mut self.connection.clone()).await.map_err(|error| error.to_string())
    }

    async fn ping(&self) -> Result<(), String> {
        redis::cmd("PING").query_async(&mut self.connection.clone()).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(number: u64) -> Arc<Open> {
        Arc::new(Open {
            number,
            id: format!("req_{number}"),
            key: "p:{k}".to_owned(),
            estimated: 10,
            since: Instant::now(),
            asked: AtomicBool::new(false),
            taken: AtomicI64::new(UNKNOWN),
        })
    }

    fn note(number: u64) -> Note {
        Note { number: 0, open: open(number), ended: Instant::now(), tokens: 1, cost: 1, entered: true }
    }

    fn table(url: &str) -> tables::Redis {
        serde_json::from_value(serde_json::json!({ "url": url })).unwrap()
    }

    fn requests(notes: &Notes) -> Vec<u64> {
        notes.waiting.iter().map(|note| note.open.number).collect()
    }

    #[test]
    fn notes_are_numbered_as_they_come_and_go_when_they_are_confirmed() {
        let mut notes = Notes::default();
        for number in [7, 3, 5] {
            notes.put(note(number), 10);
        }
        assert_eq!(notes.batch().iter().map(|note| note.number).collect::<Vec<_>>(), [1, 2, 3]);
        notes.confirm(2);
        assert_eq!(requests(&notes), [5]);
        // Again: what came meanwhile stays.
        notes.put(note(9), 10);
        notes.confirm(2);
        assert_eq!(requests(&notes), [5, 9]);
    }

    #[test]
    fn of_too_many_notes_the_oldest_are_given_up() {
        let mut notes = Notes::default();
        for number in 1..=5 {
            notes.put(note(number), 3);
        }
        assert_eq!(requests(&notes), [3, 4, 5]);
        assert_eq!(notes.given_up, 2);
        // One that was on its way when it was given up is confirmed all the same.
        notes.confirm(3);
        assert_eq!(requests(&notes), [4, 5]);
    }

    #[test]
    fn money_is_whole_billionths() {
        assert_eq!(billionths(0.1 + 0.2), 300_000_000);
        assert_eq!([0.5e-9, 1.5e-9, 2.5e-9].map(billionths), [0, 2, 2]);
        assert_eq!(billionths(-1.0), 0);
        assert_eq!(billionths(f64::NAN), 0);
        assert!((dollars(billionths(12.345_678_901)) - 12.345_678_901).abs() < 1e-9);
    }

    #[test]
    fn a_pass_that_never_asked_leaves_nothing_behind() {
        let commons = Commons::new(table("redis://127.0.0.1:1")).unwrap();
        let pass = commons.pass("req_1", "k", 10);
        assert_eq!(lock(&commons.bond.open).len(), 1);
        drop(pass);
        assert!(lock(&commons.bond.open).is_empty());
        assert!(lock(&commons.bond.notes).waiting.is_empty());
    }

    #[test]
    fn a_pass_that_may_be_counted_is_given_back_and_one_that_ended_is_settled() {
        let commons = Commons::new(table("redis://127.0.0.1:1")).unwrap();
        let pass = commons.pass("req_1", "k", 10);
        pass.open.asked.store(true, Ordering::Release);
        drop(pass);
        commons.pass("req_2", "k", 10).settle(12, 34);
        let notes = lock(&commons.bond.notes).batch();
        let told: Vec<_> = notes.iter().map(|note| (note.number, note.tokens, note.cost, note.entered)).collect();
        assert_eq!(told, [(1, 0, 0, false), (2, 12, 34, true)]);
    }

    #[test]
    fn no_number_is_larger_than_the_server_takes() {
        let commons = Commons::new(table("redis://127.0.0.1:1")).unwrap();
        commons.pass("req_1", "k", u64::MAX).settle(u64::MAX, billionths(1e30));
        let notes = lock(&commons.bond.notes).batch();
        assert_eq!((notes[0].open.estimated, notes[0].tokens, notes[0].cost), (ONCE, ONCE, ONCE));
        assert!(i64::try_from(EVER + 1024 * ONCE).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in ["redis://:secret@", "http://:secret@host", "redis://:secret@host:port"] {
            let wrong = Commons::new(table(url)).unwrap_err();
            assert!(wrong.starts_with("redis: url: ") && !wrong.contains("secret"), "{wrong}");
        }
        let commons = Commons::new(table("rediss://user:secret@host:6380/2")).unwrap();
        assert!(!format!("{:?}", commons.bond).contains("secret"));
    }
}
