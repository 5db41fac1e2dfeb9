//! Connections that wait for their next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::bell::{Bell, Queue, lock};
use crate::http2::Session;
use crate::link::Link;
use crate::proxy::Proxy;
use crate::tls::Trust;
use crate::url::Origin;

/// Idle connections are dropped before the 60 s after which common load balancers drop them without a word.
const EXPIRY: Duration = Duration::from_secs(30);
/// What was in use at once may be again a moment later. More than this would be another's file descriptors.
const MAX_IDLE: usize = 1000;

/// How to reach servers.
#[derive(Clone, Debug)]
pub struct Route {
    pub proxy: Option<Proxy>,
    pub trust: Arc<Trust>,
}

/// Where HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    #[default]
    Never,
    /// Within TLS, where the server chooses it in the handshake.
    Negotiated,
    /// There, and without TLS always: the server is known to speak it.
    Known,
}

/// The idle connections of one route. There is no limit on those in use: a stream holds its own for as long as a model
/// talks, and a cap would be a queue in disguise.
#[derive(Debug)]
pub struct Pool {
    pub(crate) route: Route,
    http2: Http2,
    idle: Mutex<Option<HashMap<Origin, Vec<Idle>>>>,
    shared: Mutex<HashMap<Origin, Shared>>,
}

/// What of HTTP/2 there is with one server.
#[derive(Debug, Default)]
struct Shared {
    sessions: Vec<Arc<Session>>,
    /// A connection is being made, and others wait for it.
    connecting: bool,
    /// The server has chosen HTTP/1.1.
    declined: bool,
    queue: Arc<Queue>,
}

/// What a pool has for a request that may go by HTTP/2.
pub(crate) enum Joined {
    /// A connection, with a stream on it taken.
    Session(Arc<Session>),
    /// Nothing yet: the bell rings when it is worth another look.
    Later,
    /// Nothing: a connection is to be made, for others too where there is a turn.
    Connect(Option<Turn>),
}

/// One connects, and others wait for what comes of it. Dropped, it is another's turn.
pub(crate) struct Turn {
    pool: Arc<Pool>,
    origin: Origin,
    /// The connection has still to say how many it may carry: it rings when it does.
    early: bool,
    process: u32,
}

impl Turn {
    /// Where those wait who may have a stream of the connection.
    pub(crate) fn queue(&self) -> Arc<Queue> {
        lock(&self.pool.shared).entry(self.origin.clone()).or_default().queue.clone()
    }

    /// It came to a connection that others may use too, or to one of HTTP/1.1.
    pub(crate) fn done(mut self, session: Option<&Arc<Session>>) {
        if self.pool.is_closed() {
            return;
        }
        let mut all = lock(&self.pool.shared);
        let shared = all.entry(self.origin.clone()).or_default();
        shared.declined = session.is_none();
        shared.sessions.extend(session.cloned());
        drop(all);
        self.early = session.is_some_and(|session| !session.is_settled());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return; // a forked child has a copy, of locks too that may never be opened again
        }
        let mut all = lock(&self.pool.shared);
        let shared = all.entry(self.origin.clone()).or_default();
        shared.connecting = false;
        let queue = shared.queue.clone();
        drop(all);
        if !self.early {
            queue.ring_all();
        }
    }
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl Pool {
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self::speaking(route, Http2::Never)
    }

    /// One whose connections are shared by several requests at once where HTTP/2 is spoken.
    #[must_use]
    pub fn speaking(route: Route, http2: Http2) -> Self {
        Self { route, http2, idle: Mutex::new(Some(HashMap::new())), shared: Mutex::default() }
    }

    /// Whether HTTP/2 may be spoken with this server.
    pub(crate) fn speaks_http2(&self, origin: &Origin) -> bool {
        match self.http2 {
            Http2::Never => false,
            Http2::Negotiated => origin.tls,
            // Whoever relays requests speaks HTTP/1.1 on this side.
            Http2::Known => origin.tls || self.route.proxy.as_ref().is_none_or(|proxy| !proxy.relays(origin)),
        }
    }

    fn is_closed(&self) -> bool {
        self.idle().is_none()
    }

    /// A stream on a connection of HTTP/2, or what to do for one.
    pub(crate) fn join(self: &Arc<Self>, origin: &Origin, bell: &Arc<Bell>, now: Instant) -> Joined {
        if self.is_closed() {
            return Joined::Connect(None);
        }
        let sessions = match lock(&self.shared).get(origin) {
            Some(shared) if shared.declined => return Joined::Connect(None),
            shared => shared.map_or_else(Vec::new, |shared| shared.sessions.clone()),
        };
        // Those that have had the most streams go on having them: the others may expire. Nothing is locked meanwhile.
        if let Some(session) = sessions.into_iter().find(|session| is_good(session, now) && session.take()) {
            return Joined::Session(session);
        }
        let mut all = lock(&self.shared);
        let mut bad = Vec::new();
        for shared in all.values_mut() {
            let (good, worse) = shared.sessions.drain(..).partition(|session| is_good(session, now));
            shared.sessions = good;
            bad.extend::<Vec<_>>(worse);
        }
        let shared = all.entry(origin.clone()).or_default();
        if shared.connecting || shared.sessions.iter().any(|session| !session.is_settled()) {
            shared.queue.join(Arc::downgrade(bell));
            return Joined::Later;
        }
        shared.connecting = true;
        drop(all);
        drop(bad);
        Joined::Connect(Some(Turn {
            pool: self.clone(),
            origin: origin.clone(),
            early: false,
            process: std::process::id(),
        }))
    }

    fn idle(&self) -> MutexGuard<'_, Option<HashMap<Origin, Vec<Idle>>>> {
        lock(&self.idle)
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
            // Those that have waited longest come first.
            let expired = links.partition_point(|idle| now.saturating_duration_since(idle.since) >= EXPIRY);
            links.drain(..expired);
        }
        // The one that has waited longest makes room: nobody may want it any more.
        if idle.values().map(Vec::len).sum::<usize>() >= MAX_IDLE
            && let Some(links) = idle.values_mut().min_by_key(|links| links.first().map_or(now, |idle| idle.since))
            && !links.is_empty()
        {
            links.remove(0);
        }
        let given = Idle { link, since: now };
        if let Some(links) = idle.get_mut(origin) {
            links.push(given);
        } else {
            idle.retain(|_, links| !links.is_empty());
            idle.insert(origin.clone(), vec![given]);
        }
    }

    /// Closes what is idle; what is in use is closed when it comes back.
    pub fn close(&self) {
        let idle = self.idle().take();
        let shared = std::mem::take(&mut *lock(&self.shared));
        drop((idle, shared));
    }

    /// How many connections are idle.
    #[must_use]
    pub fn len(&self) -> usize {
        let now = Instant::now();
        let shared: usize = lock(&self.shared)
            .values()
            .map(|shared| shared.sessions.iter().filter(|session| session.idle(now).is_some()).count())
            .sum();
        shared + self.idle().as_ref().map_or(0, |idle| idle.values().map(Vec::len).sum())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether a connection may have another stream.
fn is_good(session: &Session, now: Instant) -> bool {
    session.is_open() && session.idle(now).is_none_or(|idle| idle < EXPIRY)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::tls::Authorities;

    #[test]
    fn the_connection_that_waited_longest_makes_room_for_the_last() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let pool = Pool::new(Route { proxy: None, trust: Arc::new(Trust::new(&Authorities::Anyone, None).unwrap()) });
        let origin = |number| Origin { tls: false, host: format!("h{number}"), port: 80 };
        let now = Instant::now();
        for (number, since) in (0..=MAX_IDLE).zip(0..) {
            pool.give(&origin(number), Link::new(socket.clone()), now + Duration::from_micros(since));
        }
        assert_eq!(pool.len(), MAX_IDLE);
        assert!(pool.take(&origin(0), now).is_none());
        assert!(pool.take(&origin(1), now).is_some());
    }
}
