//! What a request came to: put down once, however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use penstock_core::error::Error;
use penstock_core::policy::pool::{Lease, Outcome};
use penstock_core::usage::Usage;

use crate::ask::Ask;
use crate::body::ending;
use crate::keys::Hold;
use crate::ledger::{Attempt, Row};
use crate::problem::Problem;
use crate::state::{Deployment, Group, Shared, unix_time};

/// The status in the books of a request whose client did not wait for one.
const LEFT: u16 = 499;

/// Characters that are kept of why an upstream did not answer.
const REASON: usize = 200;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Complete,
    /// The upstream broke it off.
    Cut,
    /// The client has gone.
    Left,
    /// No answer.
    Failed,
    /// By limits or a budget of ours.
    Refused,
}

impl Ending {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::Left => "left",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// One request under way. Dropped, it is settled: whoever knows better than that its client has gone says so before.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) shared: Arc<Shared>,
    row: Row,
    hold: Option<Hold>,
    begun: Instant,
}

impl Account {
    /// A request that has been let in; `None` if there are too many at once.
    pub(crate) fn open(shared: &Arc<Shared>, most: usize, row: Row) -> Option<Self> {
        if shared.busy.fetch_add(1, Ordering::AcqRel) >= most {
            shared.busy.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let row = Row { started: unix_time(), outcome: Ending::Left.name(), status: LEFT, ..row };
        Some(Self { shared: Arc::clone(shared), row, hold: None, begun: Instant::now() })
    }

    /// What is asked for is known.
    pub(crate) fn asked(&mut self, ask: &Ask) {
        self.row.group.clone_from(&ask.model);
        self.row.stream = ask.stream;
        self.row.user.clone_from(&ask.user);
    }

    /// It got no further than to us.
    pub(crate) fn refuse(&mut self, problem: &Problem) {
        let ours = matches!(problem.status, 429 | 503);
        self.fail(if ours { Ending::Refused } else { Ending::Failed }, problem);
    }

    pub(crate) fn hold(&mut self, hold: Hold) {
        self.hold = Some(hold);
    }

    pub(crate) fn id(&self) -> &str {
        &self.row.id
    }

    pub(crate) fn attempts(&self) -> usize {
        self.row.attempts.len()
    }

    pub(crate) fn attempted(
        &mut self,
        deployment: &Deployment,
        status: Option<u16>,
        error: Option<&Error>,
        from: Instant,
    ) {
        self.row.attempts.push(Attempt {
            deployment: deployment.table.id.clone(),
            status,
            error: error.map(|error| error.class.name()),
            // What an upstream answered is for its client to read: here it is why there was no answer.
            reason: error.filter(|_| status.is_none()).map(|error| error.message.chars().take(REASON).collect()),
            seconds: from.elapsed().as_secs_f64(),
        });
    }

    /// Who answers.
    pub(crate) fn answered_by(&mut self, deployment: &Deployment, model: Arc<str>) {
        self.row.deployment = Some(deployment.table.id.clone());
        self.row.provider = Some(deployment.table.provider.clone());
        self.row.model = Some(model);
    }

    /// The first token is there.
    pub(crate) fn spoke(&mut self) {
        self.row.first_token.get_or_insert_with(|| self.begun.elapsed().as_secs_f64());
    }

    pub(crate) fn chunks(&mut self) -> &mut u64 {
        &mut self.row.chunks
    }

    /// What the upstream has said of its use of tokens so far.
    pub(crate) fn charge(&mut self, usage: Option<&Usage>, deployment: &Deployment) {
        let Some(usage) = usage else { return };
        let (row, counts) = (&mut self.row, &usage.counts);
        row.prompt_tokens = counts.prompt;
        row.completion_tokens = counts.completion;
        row.total_tokens = counts.total();
        row.cached_tokens = counts.cached;
        row.cache_write_tokens = counts.cache_write;
        row.reasoning_tokens = counts.reasoning;
        row.usage_complete = usage.complete;
        row.cost = deployment.cost(usage);
    }

    pub(crate) fn cost(&self) -> Option<f64> {
        self.row.cost
    }

    /// Tokens in all, if the upstream has had its last word on them.
    pub(crate) fn tokens(&self) -> Option<u64> {
        self.row.total_tokens.filter(|_| self.row.usage_complete)
    }

    pub(crate) fn end(&mut self, how: Ending, status: u16, error: Option<&'static str>) {
        self.row.outcome = how.name();
        self.row.status = status;
        self.row.error = error;
    }

    /// The client is told this.
    pub(crate) fn fail(&mut self, how: Ending, problem: &Problem) {
        self.end(how, problem.status, Some(problem.name()));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let shared = &self.shared;
        let now = shared.now();
        self.row.seconds = self.begun.elapsed().as_secs_f64();
        if self.row.outcome == Ending::Left.name() && shared.cutting.load(Ordering::Acquire) {
            // It did not go: it was sent away.
            let problem = Problem::from(ending());
            (self.row.outcome, self.row.status, self.row.error) =
                (Ending::Cut.name(), problem.status, Some(problem.name()));
        }
        let key = self.hold.as_ref().map(Hold::key);
        if let Some(hold) = self.hold.take() {
            let tokens = self.row.total_tokens.filter(|_| self.row.usage_complete);
            hold.settle(tokens, self.row.cost, now);
        }
        let group = shared.state.load().group(&self.row.group);
        shared.metrics.ended(&self.row, group.as_ref().map(|group| group.table.name.as_str()), now);
        shared.ledger.put(std::mem::take(&mut self.row), key);
        shared.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Leave to ask a deployment. Dropped, its place is free again and nothing is learnt.
#[derive(Debug)]
pub(crate) struct Leased {
    shared: Arc<Shared>,
    group: Arc<Group>,
    lease: Option<Lease>,
    index: usize,
}

impl Leased {
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>, lease: Lease) -> Self {
        let index = lease.index();
        Self { shared, group, lease: Some(lease), index }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// A stream's first event is there, so long after it was asked for.
    pub(crate) fn began(&self, from: Instant) {
        if let Some(lease) = &self.lease {
            self.group.rules().began(lease, from.elapsed().as_secs_f64(), self.shared.now());
        }
    }

    pub(crate) fn settle(&mut self, outcome: Outcome, tokens: Option<u64>) {
        if let Some(lease) = self.lease.take() {
            self.group.rules().settle(lease, outcome, tokens, self.shared.now());
        }
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.group.rules().release(lease);
        }
    }
}
