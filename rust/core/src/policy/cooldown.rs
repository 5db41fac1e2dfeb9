//! When a deployment that fails is left alone, and how it comes back: by one request, alone, that succeeds.

use super::window::Window;

/// Outcomes in the last minute from which on a rate says something.
const ENOUGH: u64 = 10;

/// When to leave a deployment alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cooldown {
    /// Failures in a row that are put up with; with one more, or when most of the last minute's requests failed, the
    /// deployment is left alone. None: it never is.
    pub allowed_fails: Option<u32>,
    /// For so long.
    pub seconds: f64,
}

impl Default for Cooldown {
    fn default() -> Self {
        Self { allowed_fails: Some(3), seconds: 5.0 }
    }
}

/// Why a deployment is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It fails.
    Failing,
    /// It said that it has had too many requests.
    Limited,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Up,
    Cooling {
        until: f64,
        reason: Reason,
    },
    /// One request is on its way to see.
    Probing {
        reason: Reason,
    },
}

/// What a request that has ended says about the deployment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Well,
    Failing,
    /// It will not do better before somebody has mended something: a wrong key, no such model.
    Barred,
    /// Not before so many seconds; None where it did not say.
    Limited(Option<f64>),
    /// Nothing.
    Unknown,
}

/// Leave to ask: of the requests that were let in before the last change, none says anything about the time after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    era: u64,
    probe: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    rules: Cooldown,
    state: State,
    era: u64,
    in_a_row: u32,
    /// Outcomes, and the failures among them.
    window: Window,
}

impl Breaker {
    pub(crate) fn new(rules: Cooldown) -> Self {
        Self { rules, state: State::Up, era: 0, in_a_row: 0, window: Window::new() }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether a request may be let in.
    pub(crate) fn admits(&self, now: f64) -> bool {
        match self.state {
            State::Up => true,
            State::Cooling { until, .. } => until <= now,
            State::Probing { .. } => false,
        }
    }

    /// Lets a request in, which `admits` has said is possible.
    pub(crate) fn admit(&mut self) -> Pass {
        let probe = if let State::Cooling { reason, .. } = self.state {
            self.state = State::Probing { reason };
            true
        } else {
            false
        };
        Pass { era: self.era, probe }
    }

    /// A request that was let in goes well so far: its answer has begun.
    pub(crate) fn began(&mut self, pass: Pass) {
        if pass.probe && pass.era == self.era && matches!(self.state, State::Probing { .. }) {
            self.recover();
        }
    }

    /// A request that was let in has ended. `alone`: there is no other deployment to turn to meanwhile.
    pub(crate) fn judge(&mut self, pass: Pass, verdict: Verdict, alone: bool, now: f64) {
        if pass.era != self.era {
            // Too many is too many, whenever it was asked.
            if let (Verdict::Limited(Some(wait)), State::Cooling { until, reason }) = (verdict, self.state) {
                self.state = State::Cooling { until: until.max(now + wait), reason };
            }
            return;
        }
        let probing = matches!(self.state, State::Probing { .. });
        match verdict {
            Verdict::Unknown => {
                if let (true, State::Probing { reason }) = (pass.probe, self.state) {
                    self.state = State::Cooling { until: now, reason };
                }
            }
            Verdict::Well => {
                if probing {
                    self.recover();
                }
                self.in_a_row = 0;
                self.window.add(now, [1, 0], now);
            }
            Verdict::Failing => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.add(now, [1, 1], now);
                let [all, failed] = self.window.sums(now);
                let most = all >= ENOUGH && failed.saturating_mul(2) > all;
                if probing || most || self.rules.allowed_fails.is_some_and(|allowed| self.in_a_row > allowed) {
                    self.cool(now + self.rules.seconds, Reason::Failing);
                }
            }
            // With nobody else to turn to: the caller is better served by what is wrong than by word that something
            // was wrong a moment ago, and the pause before the next attempt is wait enough.
            Verdict::Barred | Verdict::Limited(None) if alone && !probing => {}
            Verdict::Barred => self.cool(now + self.rules.seconds, Reason::Failing),
            Verdict::Limited(wait) => self.cool(now + wait.unwrap_or(self.rules.seconds), Reason::Limited),
        }
    }

    fn cool(&mut self, until: f64, reason: Reason) {
        if self.rules.allowed_fails.is_some() {
            self.state = State::Cooling { until, reason };
            self.era += 1;
        }
    }

    fn recover(&mut self) {
        self.state = State::Up;
        self.era += 1;
        self.in_a_row = 0;
        self.window = Window::new();
    }
}
