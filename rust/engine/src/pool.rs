//! Connections that wait for their next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::link::Link;
use crate::proxy::Proxy;
use crate::tls::Trust;
use crate::url::Origin;

/// Idle connections are dropped before the 60 s after which common load balancers drop them without a word.
const EXPIRY: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 100;

/// How to reach servers.
#[derive(Clone, Debug)]
pub struct Route {
    pub proxy: Option<Proxy>,
    pub trust: Arc<Trust>,
}

/// The idle connections of one route. There is no limit on those in use: a stream holds its own for as long as a model
/// talks, and a cap would be a queue in disguise.
#[derive(Debug)]
pub struct Pool {
    pub(crate) route: Route,
    idle: Mutex<Option<HashMap<Origin, Vec<Idle>>>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl Pool {
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self { route, idle: Mutex::new(Some(HashMap::new())) }
    }

    fn idle(&self) -> MutexGuard<'_, Option<HashMap<Origin, Vec<Idle>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last: the others may then expire.
    pub(crate) fn take(&self, origin: &Origin, now: Instant) -> Option<Link> {
        loop {
            let Idle { mut link, since } = self.idle().as_mut()?.get_mut(origin)?.pop()?;
            if now.saturating_duration_since(since) < EXPIRY && link.is_fresh() {
                return Some(link);
            }
        }
    }

    pub(crate) fn give(&self, origin: &Origin, link: Link, now: Instant) {
        let mut idle = self.idle();
        let Some(idle) = idle.as_mut() else { return };
        for links in idle.values_mut() {
            links.retain(|idle| now.saturating_duration_since(idle.since) < EXPIRY);
        }
        // The one that has waited longest makes room: nobody may want it any more.
        if idle.values().map(Vec::len).sum::<usize>() >= MAX_IDLE
            && let Some(links) = idle.values_mut().min_by_key(|links| links.first().map_or(now, |idle| idle.since))
            && !links.is_empty()
        {
            links.remove(0);
        }
        idle.retain(|_, links| !links.is_empty());
        idle.entry(origin.clone()).or_default().push(Idle { link, since: now });
    }

    /// Closes what is idle; what is in use is closed when it comes back.
    pub fn close(&self) {
        let idle = self.idle().take();
        drop(idle);
    }

    /// How many connections are idle.
    #[must_use]
    pub fn len(&self) -> usize {
        self.idle().as_ref().map_or(0, |idle| idle.values().map(Vec::len).sum())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
