//! What each request came to: a row for every one that has ended, until somebody takes it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::commons::billionths;
use crate::keys::Key;

/// One request, from its acceptance to its end. Times are in seconds, `started` since 1970.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub id: String,
    pub started: f64,
    pub seconds: f64,
    pub first_token: Option<f64>,
    pub key: Option<Arc<str>>,
    pub route: &'static str,
    pub group: String,
    pub deployment: Option<Arc<str>>,
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    pub stream: bool,
    pub outcome: &'static str,
    pub status: u16,
    pub error: Option<&'static str>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub total_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub cache_write_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
    pub usage_complete: bool,
    /// US dollars.
    pub cost: Option<f64>,
    pub chunks: u64,
    pub attempts: Vec<Attempt>,
    pub user: Option<String>,
    pub trace: Option<String>,
}

/// Characters that are kept of a text of somebody else's, such as the name of a user.
const LONGEST: usize = 512;

/// No request has as many tokens. A provider that reports more reports nonsense, which is not counted.
const HIGHEST: u64 = 1 << 40;

/// Dollars that one request can cost at most.
const MOST: f64 = 1e9;

impl Row {
    /// What it cost, as the books have it. None: not known.
    #[must_use]
    pub fn billionths(&self) -> Option<u64> {
        self.cost.filter(|cost| (0.0..=MOST).contains(cost)).map(billionths)
    }

    /// Makes it fit a database, which takes it as it is: what clients and upstreams say has any length.
    fn fit(&mut self) {
        // PostgreSQL has no text with a zero in it.
        let fits = |text: &str| text.len() <= LONGEST && !text.contains('\0');
        let fitted = |text: &str| -> String {
            text.chars().take(LONGEST).map(|each| if each == '\0' { '\u{fffd}' } else { each }).collect()
        };
        for text in [&mut self.deployment, &mut self.provider, &mut self.model].into_iter().flatten() {
            if !fits(text) {
                *text = fitted(text).into();
            }
        }
        for text in [&mut self.user, &mut self.trace].into_iter().flatten().chain([&mut self.group]) {
            if !fits(text) {
                *text = fitted(text);
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
pub struct Attempt {
    pub deployment: Arc<str>,
    pub status: Option<u16>,
    pub error: Option<&'static str>,
    /// Why there was no answer at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub seconds: f64,
}

impl Attempt {
    /// A list of them as JSON text.
    #[must_use]
    pub fn json(attempts: &[Self]) -> String {
        // Nothing in them can fail to be written.
        serde_json::to_string(attempts).unwrap_or_default()
    }
}

/// What whoever takes rows is told.
#[derive(Debug)]
pub enum Told {
    Row(Box<Row>),
    /// A line for the log.
    Note(String),
}

/// The rows that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: Mutex<Rows>,
    some: Condvar,
}

#[derive(Debug, Default)]
struct Rows {
    waiting: VecDeque<Entry>,
    /// No more will come.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    told: Told,
    /// Whose books the cost is in.
    key: Option<Arc<Key>>,
}

impl Ledger {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, mut row: Row, key: Option<Arc<Key>>) {
        row.fit();
        self.push(Entry { told: Told::Row(Box::new(row)), key });
    }

    /// A line for the log, in place of a row.
    pub(crate) fn note(&self, line: &str) {
        self.push(Entry { told: Told::Note(line.to_owned()), key: None });
    }

    fn push(&self, entry: Entry) {
        let mut rows = self.rows();
        rows.waiting.push_back(entry);
        if rows.waiting.len() == 1 {
            self.some.notify_one();
        }
    }

    /// How many nobody has taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.rows().waiting.len()
    }

    /// Nobody has to wait for rows any more.
    pub(crate) fn close(&self) {
        self.rows().closed = true;
        self.some.notify_all();
    }

    /// Up to so many rows; waits so long for the first, while there can be one.
    pub fn take(&self, most: usize, wait: Duration) -> Vec<Told> {
        let until = Instant::now() + wait;
        let mut rows = self.rows();
        while rows.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || rows.closed {
                break;
            }
            rows = self.some.wait_timeout(rows, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = rows.waiting.len().min(most);
        let taken: Vec<_> = rows.waiting.drain(..count).collect();
        drop(rows);
        let told = |Entry { told, key }| {
            if let (Some(key), Told::Row(row)) = (key, &told) {
                key.told(row.cost.unwrap_or(0.0));
            }
            told
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
        let row = Row {
            group: "g\0".to_owned() + &"\u{e9}".repeat(1000),
            user: Some("u".repeat(LONGEST)),
            trace: Some("t".repeat(LONGEST + 1)),
            prompt_tokens: Some(u64::MAX),
            completion_tokens: Some(HIGHEST - 1),
            ..Row::default()
        };
        ledger.put(row, None);
        ledger.note("once");
        let taken = ledger.take(10, Duration::ZERO);
        let [Told::Row(row), Told::Note(line)] = taken.as_slice() else { unreachable!("{taken:?}") };
        assert_eq!(row.group, "g\u{fffd}".to_owned() + &"\u{e9}".repeat(LONGEST - 2));
        assert_eq!(row.user.as_ref().map(String::len), Some(LONGEST));
        assert_eq!(row.trace.as_ref().map(String::len), Some(LONGEST));
        assert_eq!((row.prompt_tokens, row.completion_tokens), (None, Some(HIGHEST - 1)));
        assert_eq!(line, "once");
    }
}
