//! Limits of a deployment, or of whoever asks: requests and tokens a minute, requests at once.
//!
//! A request's tokens are known when it has ended. It is let in with an estimate, which is then put right.

use super::window::{Count, Window};

/// What is allowed; None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests in any 60 seconds.
    pub rpm: Option<u64>,
    /// Tokens in any 60 seconds, of prompts and answers.
    pub tpm: Option<u64>,
    /// Requests at once.
    pub max_parallel: Option<u32>,
}

/// What keeps a request out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Full {
    /// Until this time at least.
    Until(f64),
    /// Until another request ends.
    Slots,
    /// For good: a limit is 0.
    Ever,
}

/// What is used of the limits.
#[derive(Clone, Debug)]
pub struct Meter {
    limits: Limits,
    window: Window,
    pub(crate) in_flight: u32,
}

impl Meter {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, window: Window::new(), in_flight: 0 }
    }

    /// Other limits from now on; what was counted stays.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether one more request of about so many tokens is within the limits. One that is larger than the limit by
    /// itself is let in when nothing else counts, for it could never be otherwise.
    pub fn check(&mut self, tokens: u64, now: f64) -> Result<(), Full> {
        if [self.limits.rpm, self.limits.tpm, self.limits.max_parallel.map(u64::from)].contains(&Some(0)) {
            return Err(Full::Ever);
        }
        if self.limits.max_parallel.is_some_and(|most| self.in_flight >= most) {
            return Err(Full::Slots);
        }
        let mut free = now;
        if let Some(rpm) = self.limits.rpm {
            free = free.max(self.window.falls_to(Count::First, rpm.saturating_sub(1), now));
        }
        if let Some(tpm) = self.limits.tpm {
            free = free.max(self.window.falls_to(Count::Second, tpm.saturating_sub(tokens), now));
        }
        if free > now { Err(Full::Until(free)) } else { Ok(()) }
    }

    /// One more request.
    pub fn take(&mut self, tokens: u64, now: f64) {
        self.in_flight = self.in_flight.saturating_add(1);
        self.window.add(now, [1, tokens], now);
    }

    /// A request has ended that was taken then with this estimate, and had so many tokens.
    pub fn settle(&mut self, taken: f64, estimated: u64, tokens: u64, now: f64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if tokens > estimated {
            self.window.add(taken, [0, tokens - estimated], now);
        } else {
            self.window.take_back(taken, [0, estimated - tokens], now);
        }
    }

    /// Requests and tokens of the last minute.
    pub(crate) fn used(&mut self, now: f64) -> [u64; 2] {
        self.window.sums(now)
    }

    /// How near the deployment is to its tokens a minute; without a limit, how many there were.
    #[expect(clippy::cast_precision_loss, reason = "a score")]
    pub(crate) fn load(&mut self, now: f64) -> f64 {
        let [_, tokens] = self.window.sums(now);
        tokens as f64 / self.limits.tpm.unwrap_or(1).max(1) as f64
    }
}
