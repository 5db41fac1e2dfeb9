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

/// Characters that are kept of a text of somebody else's, such as the name of a user.
const LONGEST: usize = 512;

/// No request has as many tokens. A provider that reports more reports nonsense, which is not counted.
const HIGHEST: u64 = 1 << 40;

impl Row {
    /// Makes it fit a database, which takes it as it is: what clients and upstreams say has any length.
    fn fit(&mut self) {
        let texts = [&mut self.deployment, &mut self.provider, &mut self.model, &mut self.user, &mut self.trace];
        for text in texts.into_iter().flatten().chain([&mut self.group]) {
            // PostgreSQL has no text with a zero in it.
            if text.len() > LONGEST || text.contains('\0') {
                *text = text.chars().take(LONGEST).map(|each| if each == '\0' { '\u{fffd}' } else { each }).collect();
            }
        }
        for count in [
            &mut self.prompt_tokens,
            &mut self.completion_tokens,
            &mut self.total_tokens,
            &mut self.cached_tokens,
            &mut self.cache_write_tokens,
            &mut self.reasoning_tokens,
        ] {
            *count = count.filter(|count| *count < HIGHEST);
        }
    }
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

    pub(crate) fn put(&self, row: &mut Row, key: Option<Arc<Key>>) {
        row.fit();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fits_whatever_was_said() {
        let ledger = Ledger::default();
        let mut row = Row {
            group: "g\0".to_owned() + &"\u{e9}".repeat(1000),
            user: Some("u".repeat(LONGEST)),
            trace: Some("t".repeat(LONGEST + 1)),
            prompt_tokens: Some(u64::MAX),
            completion_tokens: Some(HIGHEST - 1),
            ..Row::default()
        };
        ledger.put(&mut row, None);
        assert_eq!(row.group, "g\u{fffd}".to_owned() + &"\u{e9}".repeat(LONGEST - 2));
        assert_eq!(row.user.map(|text| text.len()), Some(LONGEST));
        assert_eq!(row.trace.map(|text| text.len()), Some(LONGEST));
        assert_eq!((row.prompt_tokens, row.completion_tokens), (None, Some(HIGHEST - 1)));
        assert_eq!(ledger.take(10, Duration::ZERO).len(), 1);
    }
}
