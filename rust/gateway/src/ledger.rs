//! What each request came to: a row for every one that has ended, until somebody takes it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::keys::Key;

/// One request, from its acceptance to its end. Times are in seconds, `started` since 1970.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) started: f64,
    pub(crate) seconds: f64,
    pub(crate) first_token: Option<f64>,
    pub(crate) key: Option<String>,
    pub(crate) route: &'static str,
    pub(crate) group: String,
    pub(crate) deployment: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
    pub(crate) outcome: &'static str,
    pub(crate) status: u16,
    pub(crate) error: Option<&'static str>,
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) completion_tokens: Option<u64>,
    pub(crate) total_tokens: Option<u64>,
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) cache_write_tokens: Option<u64>,
    pub(crate) reasoning_tokens: Option<u64>,
    pub(crate) usage_complete: bool,
    /// US dollars.
    pub(crate) cost: Option<f64>,
    pub(crate) chunks: u64,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) user: Option<String>,
    pub(crate) trace: Option<String>,
}

/// One request to an upstream.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attempt {
    pub(crate) deployment: String,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<&'static str>,
    pub(crate) seconds: f64,
}

/// The rows that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: Mutex<VecDeque<Entry>>,
    some: Condvar,
}

#[derive(Debug)]
struct Entry {
    text: Vec<u8>,
    /// Whose books the cost is in.
    key: Option<Arc<Key>>,
    cost: f64,
}

impl Ledger {
    fn rows(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, row: &Row, key: Option<Arc<Key>>) {
        // Nothing in a row can fail to be written.
        let Ok(text) = serde_json::to_vec(row) else { return };
        let mut rows = self.rows();
        rows.push_back(Entry { text, key, cost: row.cost.unwrap_or(0.0) });
        if rows.len() == 1 {
            self.some.notify_one();
        }
    }

    /// A line for the log, in place of a row: JSON with nothing but a `note`.
    pub(crate) fn note(&self, line: &str) {
        let text = serde_json::json!({ "note": line }).to_string().into_bytes();
        let mut rows = self.rows();
        rows.push_back(Entry { text, key: None, cost: 0.0 });
        self.some.notify_one();
    }

    /// How many nobody has taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.rows().len()
    }

    /// Up to so many rows, each as one JSON object; waits so long for the first.
    pub fn take(&self, most: usize, wait: Duration) -> Vec<Vec<u8>> {
        let until = Instant::now() + wait;
        let mut rows = self.rows();
        while rows.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            rows = self.some.wait_timeout(rows, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = rows.len().min(most);
        let taken: Vec<_> = rows.drain(..count).collect();
        drop(rows);
        let told = |Entry { text, key, cost }| {
            if let Some(key) = key {
                key.told(cost);
            }
            text
        };
        taken.into_iter().map(told).collect()
    }
}
