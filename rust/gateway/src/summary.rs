//! What has been going on, in as much memory as one likes to give it: sums since the start, the last minute by the
//! second, times of the last minutes. The rules' clock is an argument.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::Row;

/// Names that are told apart: groups, deployments, keys. Beyond them the half that has been quiet for longest is
/// forgotten, so that keys that come and go do not fill the memory; the sums of all keep what they did.
const MOST_NAMES: usize = 1024;

/// For what was asked for under a name that nobody answers to: clients make those up.
pub(crate) const UNKNOWN: &str = "(unknown)";

/// Seconds of the past that are told one by one.
pub(crate) const MINUTE: usize = 60;
/// And the one that is not over yet.
const SLOTS: usize = MINUTE + 1;

/// Times of so many minutes are in the percentiles.
pub(crate) const RECENT_MINUTES: usize = 5;

/// Renard's preferred numbers, 20 to the decade, in hundredths: each is about 12 % more than the one before, and 1, 2.5 and 5
/// are among them.
const RENARD: [u32; 20] =
    [100, 112, 125, 140, 160, 180, 200, 224, 250, 280, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900];
/// From a millisecond to 1,000 s.
const DECADES: usize = 6;
const BOUNDED: usize = RENARD.len() * DECADES + 1;
/// What is beyond the last bound has a place too.
const PLACES: usize = BOUNDED + 1;

/// Every time up to a bound, and above the one before, is in its place.
static BOUNDS: [f64; BOUNDED] = bounds();

#[expect(clippy::indexing_slicing, reason = "done by the compiler, which sees that it fits")]
const fn bounds() -> [f64; BOUNDED] {
    let mut bounds = [1000.0; BOUNDED];
    let (mut place, mut scale) = (0, 1);
    while place < BOUNDED - 1 {
        // One division of two whole numbers, so that 2.5 ms is the number that 0.0025 is.
        bounds[place] = (RENARD[place % RENARD.len()] * scale) as f64 / 100_000.0;
        place += 1;
        if place.is_multiple_of(RENARD.len()) {
            scale *= 10;
        }
    }
    bounds
}

/// Where in a decade the bounds stand that are told to others: at 1, 2.5 and 5.
const TOLD: [usize; 3] = [0, 8, 14];

fn place_of(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// The second of a time on the rules' clock.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since the start, never negative")]
fn second(now: f64) -> u64 {
    now as u64
}

/// Times since the start.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    counts: [u64; PLACES],
    pub(crate) sum: f64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: [0; PLACES], sum: 0.0 }
    }
}

impl Times {
    fn add(&mut self, seconds: f64) {
        if let Some(count) = self.counts.get_mut(place_of(seconds)) {
            *count += 1;
            self.sum += seconds;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many there are up to each of a few bounds, and above the one before; the last is without bound.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        let mut buckets = Vec::with_capacity(TOLD.len() * DECADES + 2);
        let mut below = 0;
        for (place, (count, bound)) in self.counts.iter().zip(&BOUNDS).enumerate() {
            below += count;
            if TOLD.contains(&(place % RENARD.len())) {
                buckets.push((*bound, std::mem::take(&mut below)));
            }
        }
        buckets.push((f64::INFINITY, self.counts.last().copied().unwrap_or(0)));
        buckets
    }
}

/// Times of the last minutes.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    sum: [u32; PLACES],
    minutes: [[u32; PLACES]; RECENT_MINUTES],
    /// The minute that is not over yet.
    at: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self { sum: [0; PLACES], minutes: [[0; PLACES]; RECENT_MINUTES], at: 0 }
    }
}

impl Recent {
    /// Where the counts of a minute are; another one's may be in its place in time.
    fn slot(minute: u64) -> usize {
        usize::try_from(minute % RECENT_MINUTES as u64).unwrap_or(0)
    }

    fn advance(&mut self, minute: u64) {
        let first = (self.at + 1).max(minute.saturating_sub(RECENT_MINUTES as u64 - 1));
        for passed in first..=minute {
            let Some(old) = self.minutes.get_mut(Self::slot(passed)) else { continue };
            for (sum, old) in self.sum.iter_mut().zip(std::mem::replace(old, [0; PLACES])) {
                *sum -= old;
            }
        }
        self.at = self.at.max(minute);
    }

    fn add(&mut self, seconds: f64, minute: u64) {
        self.advance(minute);
        let place = place_of(seconds);
        let counts = self.minutes.get_mut(Self::slot(self.at)).and_then(|counts| counts.get_mut(place));
        if let (Some(count), Some(sum)) = (counts, self.sum.get_mut(place)) {
            *count += 1;
            *sum += 1;
        }
    }

    /// Seconds that this part of the times is not above, to a few per cent; None without any.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    fn quantile(&self, part: f64) -> Option<f64> {
        let count: u64 = self.sum.iter().copied().map(u64::from).sum();
        let rank = ((part * count as f64).ceil() as u64).clamp(1, count.max(1));
        let (mut before, mut below) = (0, 0.0);
        for (count, bound) in self.sum.iter().zip(&BOUNDS) {
            let count = u64::from(*count);
            if before + count >= rank {
                // As if they lay evenly between the bounds.
                return Some(below + (bound - below) * (rank - before) as f64 / count as f64);
            }
            (before, below) = (before + count, *bound);
        }
        (count > 0).then_some(below)
    }

    /// The times that half of them, 90 and 99 of 100 are not above.
    pub(crate) fn percentiles(&mut self, now: f64) -> Option<[f64; 3]> {
        self.advance(second(now) / MINUTE as u64);
        Some([self.quantile(0.5)?, self.quantile(0.9)?, self.quantile(0.99)?])
    }
}

/// A count for each second of the last minute.
#[derive(Clone, Debug)]
pub(crate) struct Seconds {
    slots: [u32; SLOTS],
    /// The second that is not over yet.
    at: u64,
}

impl Default for Seconds {
    fn default() -> Self {
        Self { slots: [0; SLOTS], at: 0 }
    }
}

impl Seconds {
    fn slot(&mut self, second: u64) -> Option<&mut u32> {
        self.slots.get_mut(usize::try_from(second % SLOTS as u64).unwrap_or(0))
    }

    fn advance(&mut self, second: u64) {
        for passed in (self.at + 1).max(second.saturating_sub(MINUTE as u64))..=second {
            if let Some(slot) = self.slot(passed) {
                *slot = 0;
            }
        }
        self.at = self.at.max(second);
    }

    fn add(&mut self, count: u64, second: u64) {
        self.advance(second);
        if let Some(slot) = self.slot(self.at) {
            *slot = slot.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    /// Those of the seconds that are over, the oldest first.
    pub(crate) fn each(&mut self, now: f64) -> Vec<u32> {
        self.advance(second(now));
        let next = self.at + 1;
        (next..next + MINUTE as u64).map(|second| self.slot(second).copied().unwrap_or(0)).collect()
    }

    pub(crate) fn sum(&mut self, now: f64) -> u64 {
        self.advance(second(now));
        self.slots.iter().copied().map(u64::from).sum()
    }
}

/// What requests came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
    pub(crate) cached: u64,
    pub(crate) reasoning: u64,
    /// US dollars.
    pub(crate) cost: f64,
    pub(crate) chunks: u64,
    pub(crate) minute: Seconds,
}

impl Totals {
    fn add(&mut self, row: &Row, second: u64) {
        self.requests += 1;
        self.errors += u64::from(is_error(row));
        self.prompt += row.prompt_tokens.unwrap_or(0);
        self.completion += row.completion_tokens.unwrap_or(0);
        self.cached += row.cached_tokens.unwrap_or(0);
        self.reasoning += row.reasoning_tokens.unwrap_or(0);
        self.cost += row.cost.unwrap_or(0.0);
        self.chunks += row.chunks;
        self.minute.add(1, second);
    }
}

/// A client that goes is no error, neither its own nor anybody else's.
fn is_error(row: &Row) -> bool {
    matches!(row.outcome, "cut" | "failed" | "refused")
}

/// Requests by how they ended, and the hundreds of their status.
pub(crate) type Ends = BTreeMap<(&'static str, u16), u64>;

/// What is known of the requests for one name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) totals: Totals,
    /// By the deployment that answered; "" is none.
    pub(crate) ends: Named<Ends>,
    pub(crate) first_token: Times,
    pub(crate) duration: Times,
    pub(crate) recent_first_token: Recent,
    pub(crate) recent_duration: Recent,
}

/// Requests to one deployment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts {
    /// By the class of the error; "" is none.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    pub(crate) times: Times,
}

/// Errors of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    pub(crate) total: u64,
    pub(crate) minute: Seconds,
}

/// Something by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named<V> {
    /// With the second in which it was last heard of.
    known: HashMap<String, (u64, V)>,
}

impl<V: Default> Named<V> {
    fn with(&mut self, name: &str, second: u64, change: impl FnOnce(&mut V)) {
        if let Some((at, value)) = self.known.get_mut(name) {
            *at = second;
            return change(value);
        }
        if self.known.len() >= MOST_NAMES {
            let mut heard: Vec<_> = self.known.iter().map(|(name, (at, _))| (*at, name.clone())).collect();
            heard.sort_unstable();
            for (_, name) in heard.iter().take(MOST_NAMES / 2) {
                self.known.remove(name);
            }
        }
        let mut value = V::default();
        change(&mut value);
        self.known.insert(name.to_owned(), (second, value));
    }

    /// Sorted by name.
    pub(crate) fn each(&self) -> Vec<(&str, &V)> {
        let mut each: Vec<_> = self.known.iter().map(|(name, (_, value))| (name.as_str(), value)).collect();
        each.sort_unstable_by_key(|(name, _)| *name);
        each
    }

    /// So many of them, those with the most of something first.
    pub(crate) fn largest<K: Ord>(&mut self, count: usize, of: impl Fn(&V) -> K) -> Vec<(&str, &mut V)> {
        let mut each: Vec<_> = self.known.iter_mut().map(|(name, (_, value))| (name.as_str(), value)).collect();
        each.sort_unstable_by(|(a, one), (b, other)| of(other).cmp(&of(one)).then_with(|| a.cmp(b)));
        each.truncate(count);
        each
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) all: Totals,
    /// Requests, tokens and errors as they ended, second by second.
    pub(crate) requests: Seconds,
    pub(crate) tokens: Seconds,
    pub(crate) errors: Seconds,
    pub(crate) groups: Named<Group>,
    /// By the id of the key; "" is none, or the master key.
    pub(crate) keys: Named<Totals>,
    pub(crate) deployments: Named<Attempts>,
    pub(crate) classes: BTreeMap<&'static str, Errors>,
    /// Requests that got no further than the door, by the class of the error.
    pub(crate) turned_away: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// A request has ended, and was for this group.
    pub(crate) fn ended(&mut self, row: &Row, group: Option<&str>, now: f64) {
        let second = second(now);
        self.all.add(row, second);
        self.requests.add(1, second);
        self.tokens.add(row.total_tokens.unwrap_or(0), second);
        if is_error(row) {
            self.failed(row.error.unwrap_or(row.outcome), second);
        }
        self.keys.with(row.key.as_deref().unwrap_or_default(), second, |totals| totals.add(row, second));
        self.groups.with(group.unwrap_or(UNKNOWN), second, |group| {
            group.totals.add(row, second);
            group.ends.with(row.deployment.as_deref().unwrap_or_default(), second, |ends| {
                *ends.entry((row.outcome, row.status / 100)).or_default() += 1;
            });
            group.duration.add(row.seconds);
            let minute = second / MINUTE as u64;
            if let Some(seconds) = row.first_token {
                group.first_token.add(seconds);
                group.recent_first_token.add(seconds, minute);
            }
            // How soon others were turned away says nothing about how long an answer takes.
            if row.outcome == "complete" {
                group.recent_duration.add(row.seconds, minute);
            }
        });
        for attempt in &row.attempts {
            self.deployments.with(&attempt.deployment, second, |attempts| {
                *attempts.errors.entry(attempt.error.unwrap_or_default()).or_default() += 1;
                attempts.times.add(attempt.seconds);
            });
        }
    }

    /// Somebody was not let in.
    pub(crate) fn turned_away(&mut self, class: &'static str, now: f64) {
        *self.turned_away.entry(class).or_default() += 1;
        self.failed(class, second(now));
    }

    fn failed(&mut self, class: &'static str, second: u64) {
        self.errors.add(1, second);
        let errors = self.classes.entry(class).or_default();
        errors.total += 1;
        errors.minute.add(1, second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Attempt;

    fn row(outcome: &'static str, status: u16) -> Row {
        Row { outcome, status, ..Row::default() }
    }

    #[test]
    fn bounds_are_the_decimal_numbers_they_look_like() {
        assert_eq!(BOUNDS[..9], [0.001, 0.00112, 0.00125, 0.0014, 0.0016, 0.0018, 0.002, 0.00224, 0.0025]);
        assert_eq!(BOUNDS[BOUNDED - 3..], [800.0, 900.0, 1000.0]);
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1] && pair[1] / pair[0] < 1.15));
    }

    #[test]
    fn a_time_is_in_the_bucket_that_it_does_not_exceed() {
        let mut times = Times::default();
        for seconds in [0.0, 0.001, 0.001_000_1, 0.3, 0.5, 1000.0, 1000.1, 1e9] {
            times.add(seconds);
        }
        let buckets = times.buckets();
        let bounds: Vec<_> = buckets.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds[..5], [0.001, 0.0025, 0.005, 0.01, 0.025]);
        assert_eq!(bounds[bounds.len() - 3..], [500.0, 1000.0, f64::INFINITY]);
        let of = |bound: f64| buckets.iter().find(|(known, _)| known.total_cmp(&bound).is_eq()).unwrap().1;
        assert_eq!([of(0.001), of(0.0025), of(0.25), of(0.5), of(1000.0), of(f64::INFINITY)], [2, 1, 0, 2, 1, 2]);
        assert_eq!(times.count(), buckets.iter().map(|(_, count)| count).sum::<u64>());
    }

    #[test]
    fn percentiles_are_right_to_a_few_per_cent() {
        let mut recent = Recent::default();
        assert_eq!(recent.percentiles(0.0), None);
        for millisecond in 1..=1000 {
            recent.add(f64::from(millisecond) / 1000.0, 0);
        }
        for (found, right) in recent.percentiles(0.0).unwrap().into_iter().zip([0.5, 0.9, 0.99]) {
            assert!((found / right - 1.0).abs() < 0.02, "{found} for {right}");
        }
    }

    #[test]
    fn one_time_is_every_percentile() {
        let mut recent = Recent::default();
        recent.add(0.5, 0);
        assert_eq!(recent.percentiles(0.0), Some([0.5; 3]));
    }

    #[test]
    fn a_time_beyond_all_bounds_counts_as_the_last() {
        let mut recent = Recent::default();
        recent.add(1e6, 0);
        assert_eq!(recent.percentiles(0.0), Some([1000.0; 3]));
    }

    #[test]
    fn percentiles_forget_what_is_older_than_five_minutes() {
        let mut recent = Recent::default();
        recent.add(5.0, 0);
        recent.add(0.5, 4);
        assert!(recent.percentiles(299.0).unwrap()[2] > 4.0);
        assert_eq!(recent.percentiles(300.0), Some([0.5; 3]));
        assert_eq!(recent.percentiles(540.0), None);
        assert!(recent.sum.iter().all(|count| *count == 0));
        recent.add(0.5, 1_000_000);
        assert_eq!(recent.percentiles(60_000_000.0), Some([0.5; 3]));
    }

    #[test]
    fn seconds_are_told_when_they_are_over() {
        let mut seconds = Seconds::default();
        seconds.add(2, 10);
        assert_eq!(seconds.each(10.9).last(), Some(&0));
        assert_eq!(seconds.each(11.0).last(), Some(&2));
        seconds.add(3, 12);
        assert_eq!(seconds.sum(12.5), 5);
        let each = seconds.each(13.0);
        assert_eq!((each.len(), &each[57..]), (60, &[2, 0, 3][..]));
        assert_eq!(seconds.each(70.0).first(), Some(&2));
        assert_eq!(seconds.each(71.0)[..2], [0, 3]);
        assert_eq!(seconds.sum(1e9), 0);
    }

    #[test]
    fn a_clock_that_two_threads_read_in_turn_may_seem_to_go_back() {
        let mut seconds = Seconds::default();
        seconds.add(1, 100);
        seconds.add(1, 99);
        assert_eq!(seconds.each(101.0).last(), Some(&2));
        let mut recent = Recent::default();
        recent.add(0.5, 7);
        recent.add(0.5, 6);
        assert_eq!(recent.sum.iter().sum::<u32>(), 2);
    }

    #[test]
    fn a_request_is_counted_by_its_group_its_key_and_its_attempts() {
        let mut summary = Summary::default();
        let attempt = |deployment: &str, error| Attempt {
            deployment: deployment.into(),
            status: None,
            error,
            reason: None,
            seconds: 0.25,
        };
        let complete = Row {
            key: Some("k".into()),
            deployment: Some("b".into()),
            seconds: 2.0,
            first_token: Some(0.5),
            prompt_tokens: Some(10),
            completion_tokens: Some(5),
            total_tokens: Some(15),
            cached_tokens: Some(4),
            cost: Some(0.25),
            chunks: 7,
            attempts: vec![attempt("a", Some("RateLimitError")), attempt("b", None)],
            ..row("complete", 200)
        };
        summary.ended(&complete, Some("fast"), 1.0);
        summary.ended(&Row { error: Some("NotFoundError"), ..row("failed", 404) }, None, 1.5);
        summary.ended(&row("left", 499), Some("fast"), 1.5);
        summary.turned_away("AuthenticationError", 2.0);

        let Totals { requests, errors, prompt, completion, cached, cost, chunks, .. } = summary.all;
        assert_eq!((requests, errors, prompt, completion, cached, chunks), (3, 1, 10, 5, 4, 7));
        assert!((cost - 0.25).abs() < 1e-12);
        assert_eq!(summary.requests.sum(2.0), 3);
        assert_eq!(summary.tokens.sum(2.0), 15);
        assert_eq!(summary.errors.sum(2.0), 2);
        let groups = summary.groups.each();
        assert_eq!(groups.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [UNKNOWN, "fast"]);
        let fast = groups[1].1;
        assert_eq!((fast.totals.requests, fast.first_token.count(), fast.duration.count()), (2, 1, 2));
        let ends: Vec<_> = fast.ends.each();
        assert_eq!(ends, [("", &Ends::from([(("left", 4), 1)])), ("b", &Ends::from([(("complete", 2), 1)]))]);
        assert_eq!(summary.keys.largest(1, |totals| totals.requests)[0].0, "");
        let attempts: Vec<_> =
            summary.deployments.each().into_iter().map(|(name, attempts)| (name, attempts.errors.clone())).collect();
        assert_eq!(attempts, [("a", BTreeMap::from([("RateLimitError", 1)])), ("b", BTreeMap::from([("", 1)]))]);
        assert_eq!(summary.classes.keys().copied().collect::<Vec<_>>(), ["AuthenticationError", "NotFoundError"]);
    }

    #[test]
    fn names_are_bounded_and_the_quietest_are_forgotten() {
        let mut named = Named::<u64>::default();
        for number in 0..MOST_NAMES {
            named.with(&format!("n{number}"), number as u64, |value| *value = 1);
        }
        named.with("n0", 1_000_000, |value| *value += 1);
        named.with("one more", 1_000_001, |value| *value = 3);
        assert_eq!(named.each().len(), MOST_NAMES / 2 + 1);
        let largest = named.largest(2, |value| *value);
        assert_eq!(
            largest.iter().map(|(name, value)| (*name, **value)).collect::<Vec<_>>(),
            [("one more", 3), ("n0", 2)]
        );
        assert!(named.each().iter().all(|(name, _)| *name != "n1"));
    }
}
