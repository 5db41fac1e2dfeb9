//! What the gateway cannot do by itself, for somebody else to take and answer: requests to put into an upstream's words,
//! and routes that are not a model's.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use penstock_core::decoder::{Dialect, Family};
use penstock_engine::url::Url;
use tokio::sync::oneshot;

use crate::problem::Problem;

/// Jobs that may wait at once: with more of them whoever answers is not keeping up.
const MOST: usize = 1024;

/// How to ask an upstream.
#[derive(Clone, Debug)]
pub struct Plan {
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub family: Family,
    pub dialect: Dialect,
    /// The tool whose arguments are the answer.
    pub answer_tool: Option<String>,
}

/// A response that was made elsewhere.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    Plan(Plan),
    Reply(Reply),
    Refusal(Problem),
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Task {
    /// A plan for a request to this deployment; `id` is the request's. `stream_options`: whether they may be sent.
    Plan { id: String, deployment: String, operation: &'static str, model: String, stream_options: bool },
    /// A reply to a request for this path.
    Admin { method: String, path: String, query: String },
}

/// Something to do. Dropped without an answer, it is answered with an error.
#[derive(Debug)]
pub struct Job {
    pub task: Task,
    pub body: Bytes,
    /// Who asks: JSON with the key's id and name, and whether it is the master key.
    pub caller: String,
    answer: oneshot::Sender<Outcome>,
}

impl Job {
    pub fn plan(self, plan: Plan) {
        // The client may have gone.
        let _ = self.answer.send(Outcome::Plan(plan));
    }

    pub fn reply(self, reply: Reply) {
        let _ = self.answer.send(Outcome::Reply(reply));
    }

    pub fn refuse(self, status: u16, error: penstock_core::error::Error) {
        let _ = self.answer.send(Outcome::Refusal(Problem::from(error).with_status(status)));
    }
}

/// Jobs that wait to be taken.
#[derive(Debug, Default)]
pub struct Planner {
    jobs: Mutex<Jobs>,
    some: Condvar,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Planner {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes of a task; None where nobody does it.
    pub(crate) async fn ask(&self, task: Task, body: Bytes, caller: String) -> Option<Outcome> {
        let (answer, answered) = oneshot::channel();
        {
            let mut jobs = self.jobs();
            jobs.waiting.retain(|job| !job.answer.is_closed());
            if jobs.closed || jobs.waiting.len() >= MOST {
                return None;
            }
            jobs.waiting.push_back(Job { task, body, caller, answer });
        }
        self.some.notify_one();
        answered.await.ok()
    }

    /// How many nobody has taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.jobs().waiting.len()
    }

    /// The next job; waits so long for one.
    pub fn next(&self, wait: Duration) -> Option<Job> {
        let until = Instant::now() + wait;
        let mut jobs = self.jobs();
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                if job.answer.is_closed() {
                    continue; // its client has gone
                }
                return Some(job);
            }
            let left = until.saturating_duration_since(Instant::now());
            if jobs.closed || left.is_zero() {
                return None;
            }
            jobs = self.some.wait_timeout(jobs, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing more will be asked or answered.
    pub(crate) fn close(&self) {
        let mut jobs = self.jobs();
        jobs.closed = true;
        jobs.waiting.clear();
        drop(jobs);
        self.some.notify_all();
    }
}
