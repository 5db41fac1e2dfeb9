//! Counts of the last minute.

/// Seconds that a count is remembered for. In whole seconds it takes one slot more, so that what is counted here is
/// never less than what a provider counts, wherever its minute begins.
const MINUTE: i64 = 60;
const SLOTS: usize = 61;

/// Two counts over the last minute, in slots of a second.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    slots: [[u64; 2]; SLOTS],
    /// The second that the last slot stands for.
    newest: i64,
    sums: [u64; 2],
}

/// Which of the two counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    First,
    Second,
}

#[expect(clippy::cast_possible_truncation, reason = "seconds since a start; out of range they saturate")]
fn second(at: f64) -> i64 {
    at.floor() as i64
}

fn place(second: i64) -> usize {
    usize::try_from(second.rem_euclid(MINUTE + 1)).unwrap_or_default()
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { slots: [[0; 2]; SLOTS], newest: i64::MIN, sums: [0; 2] }
    }

    /// Forgets what is older than a minute. A clock that goes back stands still here.
    fn advance(&mut self, now: f64) {
        let now = second(now);
        if now <= self.newest {
            return;
        }
        if now.saturating_sub(self.newest) > MINUTE {
            self.slots = [[0; 2]; SLOTS];
            self.sums = [0; 2];
        } else {
            for second in self.newest + 1..=now {
                if let Some(slot) = self.slots.get_mut(place(second)) {
                    for (sum, count) in self.sums.iter_mut().zip(slot.iter_mut()) {
                        *sum = sum.saturating_sub(*count);
                        *count = 0;
                    }
                }
            }
        }
        self.newest = now;
    }

    /// Adds to both counts, at a time that may lie in the past. What was longer ago than a minute counts as now.
    pub(crate) fn add(&mut self, at: f64, amounts: [u64; 2], now: f64) {
        self.advance(now);
        let at = second(at);
        let at = if self.remembers(at) { at } else { self.newest };
        if let Some(slot) = self.slots.get_mut(place(at)) {
            for ((sum, count), amount) in self.sums.iter_mut().zip(slot.iter_mut()).zip(amounts) {
                *sum = sum.saturating_add(amount);
                *count = count.saturating_add(amount);
            }
        }
    }

    /// Takes back a part of what was added at that time. What has been forgotten needs no taking back.
    pub(crate) fn take_back(&mut self, at: f64, amounts: [u64; 2], now: f64) {
        self.advance(now);
        let at = second(at);
        if !self.remembers(at) {
            return;
        }
        if let Some(slot) = self.slots.get_mut(place(at)) {
            for ((sum, count), amount) in self.sums.iter_mut().zip(slot.iter_mut()).zip(amounts) {
                let amount = amount.min(*count);
                *sum = sum.saturating_sub(amount);
                *count -= amount;
            }
        }
    }

    fn remembers(&self, second: i64) -> bool {
        second <= self.newest && self.newest.saturating_sub(second) <= MINUTE
    }

    /// The counts of the last minute.
    pub(crate) fn sums(&mut self, now: f64) -> [u64; 2] {
        self.advance(now);
        self.sums
    }

    /// When a count will have fallen to this or below if nothing is added.
    #[expect(clippy::cast_precision_loss, reason = "seconds since a start")]
    pub(crate) fn falls_to(&mut self, which: Count, limit: u64, now: f64) -> f64 {
        self.advance(now);
        let [first, second] = self.sums;
        let mut left = match which {
            Count::First => first,
            Count::Second => second,
        };
        if left <= limit {
            return now;
        }
        for at in self.newest - MINUTE..=self.newest {
            let [first, second] = self.slots.get(place(at)).copied().unwrap_or_default();
            left = left.saturating_sub(match which {
                Count::First => first,
                Count::Second => second,
            });
            if left <= limit {
                return (at + MINUTE + 1) as f64;
            }
        }
        (self.newest + MINUTE + 1) as f64
    }
}
