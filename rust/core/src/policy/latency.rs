//! How long a deployment takes: a peak-sensitive moving average (peak-EWMA, as in Finagle).
//!
//! A slow answer counts at once and in full, fast ones bring the average down over time. The average of one that is not
//! asked falls too, so that it is tried again.

/// Seconds in which the weight of the past falls to 1/e.
const DECAY: f64 = 30.0;

/// The average, and when it was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeakEwma {
    seconds: f64,
    at: f64,
    known: bool,
}

impl PeakEwma {
    pub(crate) fn observe(&mut self, seconds: f64, now: f64) {
        let weight = self.weight(now);
        self.seconds = if !self.known || seconds > self.seconds {
            seconds
        } else {
            self.seconds * weight + seconds * (1.0 - weight)
        };
        self.at = now.max(self.at);
        self.known = true;
    }

    /// The average as it stood at the last observation; None before the first.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.known.then_some(self.seconds)
    }

    /// What one more request is expected to cost beside those in flight. Nothing is known of a deployment that was
    /// never asked: it gets one request, and others only when all have one.
    pub(crate) fn cost(&self, in_flight: u32, now: f64) -> f64 {
        if !self.known {
            return if in_flight == 0 { 0.0 } else { f64::MAX / 1e9 * f64::from(in_flight) };
        }
        self.seconds * self.weight(now) * (f64::from(in_flight) + 1.0)
    }

    fn weight(&self, now: f64) -> f64 {
        (-(now - self.at).max(0.0) / DECAY).exp()
    }
}
