//! How one transfer is told by another that there is something for it, where they share a connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

type Call = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct Bell {
    /// Its stream has something since it was last looked at.
    news: AtomicBool,
    /// Its transfer found nothing, and waits.
    waits: AtomicBool,
    rung: Mutex<bool>,
    rings: Condvar,
    call: OnceLock<Call>,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

impl Bell {
    /// What is called when it rings, for those that do not sleep on it. Only the first counts.
    pub(crate) fn on_ring(&self, call: Call) {
        let _ = self.call.set(call);
    }

    pub(crate) fn ring(&self) {
        *lock(&self.rung) = true;
        self.rings.notify_one();
        if let Some(call) = self.call.get() {
            call();
        }
    }

    /// True for the first that notes it.
    pub(crate) fn note(&self) -> bool {
        !self.news.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::SeqCst)
    }

    pub(crate) fn forget_news(&self) {
        self.news.store(false, Ordering::SeqCst);
    }

    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::SeqCst);
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }

    /// Whether it rang since it was last asked.
    pub(crate) fn take_ring(&self) -> bool {
        std::mem::take(&mut *lock(&self.rung))
    }

    /// Sleeps until it rings or the time has come: then the answer is false.
    pub(crate) fn sleep(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let rung = lock(&self.rung);
        let asleep = |rung: &mut bool| !*rung;
        let (mut rung, _) = self.rings.wait_timeout_while(rung, left, asleep).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// Bells of those that wait for the same.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Vec<Weak<Bell>>>);

impl Queue {
    pub(crate) fn join(&self, bell: Weak<Bell>) {
        let mut bells = lock(&self.0);
        bells.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&bell));
        bells.push(bell);
    }

    pub(crate) fn ring_all(&self) {
        let bells = std::mem::take(&mut *lock(&self.0));
        for bell in bells {
            if let Some(bell) = bell.upgrade() {
                bell.ring();
            }
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
