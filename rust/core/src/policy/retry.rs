//! When a failed attempt is worth another one, after how long, and how many there may be in all.

use super::window::Window;
use crate::error::{Class, Error};

/// Seconds before the first retry; each further one waits twice as long as the one before.
pub const FIRST_PAUSE: f64 = 0.5;
pub const LONGEST_PAUSE: f64 = 8.0;

/// Seconds. A provider that asks for a longer wait gets no second attempt: the caller can do something better.
pub const LONGEST_RETRY_AFTER: f64 = 60.0;

/// Codes that no waiting cures: of a 429, and of a server whose certificate is not trusted.
const SPENT: [&str; 3] = ["insufficient_quota", "billing_hard_limit_reached", "tls"];

/// What the rules want to know of an error.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// None for an error of no class that comes from a provider.
    pub class: Option<Class>,
    pub code: Option<String>,
    pub kind: Option<String>,
    /// Seconds.
    pub retry_after: Option<f64>,
    /// The provider's `x-should-retry`.
    pub advice: Option<bool>,
}

impl Failure {
    /// Of an error, and the provider's `x-should-retry` beside it.
    #[must_use]
    pub fn of(error: &Error, advice: Option<bool>) -> Self {
        Self {
            class: Some(error.class),
            code: error.details.code.clone(),
            kind: error.details.kind.clone(),
            retry_after: error.details.retry_after,
            advice,
        }
    }

    /// Whether the same request may succeed later. The provider's advice decides; else the class does.
    #[must_use]
    pub fn retryable(&self) -> bool {
        let spent = |word: &Option<String>| word.as_deref().is_some_and(|word| SPENT.contains(&word));
        self.advice
            .unwrap_or_else(|| self.class.is_some_and(Class::retryable) && !spent(&self.code) && !spent(&self.kind))
    }

    /// Whether another deployment of the same model may do better at once: this one, or its account, is at fault.
    #[must_use]
    pub fn elsewhere(&self) -> bool {
        self.retryable() || self.class.is_some_and(|class| class.retryable() || class.barring())
    }

    /// Whether the next of the fallbacks is tried: retries are spent, or this model or account alone is at fault.
    #[must_use]
    pub fn falls_back(&self) -> bool {
        self.elsewhere() || self.class == Some(Class::ContextWindowExceeded)
    }

    /// Seconds to wait before the next attempt; None if there shall be none.
    ///
    /// `retries` is how many there have been; `chance` spreads clients that failed together, so that they do not come
    /// back together. `first` is [`FIRST_PAUSE`].
    #[must_use]
    pub fn pause(&self, retries: u32, max_retries: u32, chance: f64, first: f64) -> Option<f64> {
        if retries >= max_retries || !self.retryable() {
            return None;
        }
        if let Some(asked) = self.retry_after.filter(|asked| *asked > 0.0) {
            return (asked <= LONGEST_RETRY_AFTER).then_some(asked);
        }
        Some(backoff(retries, chance, first))
    }
}

/// Seconds to wait where nobody has said how long: [`Failure::pause`] without its conditions.
#[must_use]
pub fn backoff(retries: u32, chance: f64, first: f64) -> f64 {
    let doubled = first * 2_f64.powi(i32::try_from(retries).unwrap_or(i32::MAX));
    doubled.min(LONGEST_PAUSE) * (0.5 + chance / 2.0)
}

/// How many retries there may be: a part of the requests of the last minute, and a few more for those who ask seldom.
///
/// When everything fails, retries multiply the load on what is overloaded already.
#[derive(Clone, Debug)]
pub struct Budget {
    ratio: f64,
    reserve: f64,
    /// Requests, and retries.
    window: Window,
}

impl Budget {
    /// In any minute with N requests there are at most `ratio * N + reserve` retries.
    #[must_use]
    pub fn new(ratio: f64, reserve: f64) -> Self {
        Self { ratio, reserve, window: Window::new() }
    }

    /// Another part from now on; what was counted stays.
    pub fn limit(&mut self, ratio: f64) {
        self.ratio = ratio;
    }

    /// A request has come, which is no retry.
    pub fn request(&mut self, now: f64) {
        self.window.add(now, [1, 0], now);
    }

    /// Takes one retry, if there is one left.
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    pub fn retry(&mut self, now: f64) -> bool {
        let [requests, retries] = self.window.sums(now);
        let granted = (retries + 1) as f64 <= self.ratio * requests as f64 + self.reserve;
        if granted {
            self.window.add(now, [0, 1], now);
        }
        granted
    }
}
