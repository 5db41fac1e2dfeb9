//! HTTP/2 (RFC 9113): one connection, shared by the streams on it, and read by whichever of them waits.
//!
//! There is no thread and no runtime. The state machine of the crate `h2` is driven by hand: whoever waits for its own
//! stream drives the connection for all, and rings the bells of those for whom something came. One of them at a time
//! watches the socket; when it has what it wanted, it rings another that waits, which watches from then on.

use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
#[cfg(unix)]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::bell::{Bell, Queue, lock};
use crate::error::{Error, Kind, reason};
use crate::head::Head;
use crate::link::{Fault, Link};
use crate::tls;
use crate::url::Origin;
#[cfg(unix)]
use crate::wait::Alarm;
use crate::wait::Want;

/// What a stream may hold that its reader has not taken.
const WINDOW: u32 = 64 << 10;
/// What all streams of a connection may: their own windows are the limit, so that none holds up the others.
const ALL_WINDOWS: u32 = 1 << 30;
/// Streams that may be open at once, until the server has said how many: a number that no server says.
const UNSAID: usize = (1 << 40) + 1;
/// Frames of streams that were reset may come for a while; of so many it is known which they are.
const MAX_RESET: usize = 1000;

/// A connection, and what is known of it.
#[derive(Debug)]
pub(crate) struct Session {
    socket: Arc<TcpStream>,
    state: Mutex<State>,
    signs: Arc<Signs>,
    roles: Mutex<Roles>,
    /// Those that wait for room on a connection to this server.
    queue: Arc<Queue>,
    open: AtomicBool,
    /// Wakes the thread that watches, where a thread does.
    #[cfg(unix)]
    alarm: OnceLock<Alarm>,
    /// A forked child must not touch it.
    process: u32,
}

#[derive(Debug)]
struct State {
    /// None when it has ended.
    connection: Option<Connection<Carrier, Bytes>>,
    sender: SendRequest<Bytes>,
    /// Streams that are open.
    active: usize,
    /// Whether the server has said how many may be.
    settled: bool,
    /// Since when there is none.
    idle: Instant,
}

/// What the connection and its streams say while they are driven.
#[derive(Debug, Default)]
struct Signs {
    /// There is something to send that waits for room in the socket.
    blocked: AtomicBool,
    /// The socket had no more than was read.
    drained: AtomicBool,
    /// There is something to do that no socket tells: a window to open, a stream to reset.
    due: AtomicBool,
    /// Whose streams have something.
    ready: Mutex<Vec<Arc<Bell>>>,
    /// What ended TLS.
    distrust: Mutex<Option<rustls::Error>>,
}

impl Wake for Signs {
    fn wake(self: Arc<Self>) {
        self.due.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Roles {
    watcher: Option<Arc<Bell>>,
    members: Vec<Arc<Bell>>,
}

impl Session {
    /// A connection that has just been made. Its first stream is taken.
    pub(crate) fn begin(link: Link, queue: Arc<Queue>, now: Instant) -> Result<Self, h2::Error> {
        let (socket, signs) = (link.socket.clone(), Arc::new(Signs::default()));
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(ALL_WINDOWS)
            .initial_max_send_streams(UNSAID)
            .max_concurrent_reset_streams(MAX_RESET)
            .max_local_error_reset_streams(None);
        // It is sent at once: a new socket has room for it.
        let mut handshake = Box::pin(builder.handshake(Carrier { link, signs: signs.clone() }));
        let Poll::Ready(begun) = handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(Reason::INTERNAL_ERROR.into());
        };
        let (sender, connection) = begun?;
        let state = State { connection: Some(connection), sender, active: 1, settled: false, idle: now };
        Ok(Self {
            socket,
            state: Mutex::new(state),
            signs,
            roles: Mutex::default(),
            queue,
            open: AtomicBool::new(true),
            #[cfg(unix)]
            alarm: OnceLock::new(),
            process: std::process::id(),
        })
    }

    /// Whether more streams may begin, now or later.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether the server has said how many streams there may be.
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.state).settled
    }

    /// Whether it is open without a stream, and for how long it has been.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        let state = lock(&self.state);
        (self.is_open() && state.active == 0).then(|| now.saturating_duration_since(state.idle))
    }

    /// Takes one of the streams that there may be, if there is one.
    pub(crate) fn take(&self) -> bool {
        if self.idle(Instant::now()).is_some() {
            self.drive(None); // it may have ended while nobody looked
        }
        let mut state = lock(&self.state);
        if !matches!(state.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))) {
            self.open.store(false, Ordering::SeqCst);
            return false;
        }
        let limit = if state.settled { state.sender.current_max_send_streams() } else { 1 };
        let room = self.is_open() && state.active < limit;
        state.active += usize::from(room);
        room
    }

    fn give_back(&self) {
        let mut state = lock(&self.state);
        state.active -= 1;
        state.idle = Instant::now();
        drop(state);
        self.queue.ring_all();
    }

    /// Reads and writes what can be without waiting, and tells everybody but `me` what came for them.
    fn drive(&self, me: Option<&Arc<Bell>>) {
        let mut state = lock(&self.state);
        let blocked = self.signs.blocked.load(Ordering::SeqCst);
        self.signs.drained.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.signs.clone());
        while let Some(connection) = &mut state.connection {
            self.signs.due.store(false, Ordering::SeqCst);
            if Pin::new(connection).poll(&mut Context::from_waker(&waker)).is_ready() {
                state.connection = None;
                self.open.store(false, Ordering::SeqCst);
            } else if !self.signs.due.load(Ordering::SeqCst) || self.signs.blocked.load(Ordering::SeqCst) {
                break;
            }
        }
        let settles = !state.settled && state.sender.current_max_send_streams() != UNSAID;
        state.settled |= settles;
        drop(state);
        // Nothing is locked from here on: who is rung may do as it likes.
        for bell in std::mem::take(&mut *lock(&self.signs.ready)) {
            if bell.waits() {
                self.ring(&bell, me);
            }
        }
        if settles || !self.is_open() {
            self.queue.ring_all();
        }
        if blocked != self.signs.blocked.load(Ordering::SeqCst) {
            // Whoever watches has another thing to watch for.
            let watcher = lock(&self.roles).watcher.clone();
            if let Some(watcher) = watcher {
                self.ring(&watcher, me);
            }
        }
    }

    /// Rings for anybody but `me`.
    fn ring(&self, bell: &Arc<Bell>, me: Option<&Arc<Bell>>) {
        if me.is_some_and(|me| Arc::ptr_eq(me, bell)) {
            return;
        }
        bell.ring();
        #[cfg(unix)]
        if let Some(alarm) = self.alarm.get()
            && lock(&self.roles).watcher.as_ref().is_some_and(|watcher| Arc::ptr_eq(watcher, bell))
        {
            alarm.ring();
        }
    }

    /// Blocks until the socket is ready for the one that watches it, or it is rung for, or the time has come.
    #[cfg(unix)]
    fn wait(&self, want: &Want, bell: &Bell, until: Instant) -> io::Result<bool> {
        let alarm = if let Some(alarm) = self.alarm.get() {
            alarm
        } else {
            let alarm = Alarm::new()?;
            self.alarm.get_or_init(|| alarm)
        };
        alarm.arm();
        if bell.take_ring() { Ok(true) } else { alarm.wait(want, until) }
    }

    /// The same where a socket can be waited for and nothing else: it sleeps little at a time.
    #[cfg(not(unix))]
    fn wait(&self, want: &Want, bell: &Bell, until: Instant) -> io::Result<bool> {
        const NAP: std::time::Duration = std::time::Duration::from_millis(200);
        loop {
            let awake = until.min(Instant::now() + NAP);
            let ready = crate::wait::wait(std::slice::from_ref(want), Some(awake))?;
            if ready || bell.take_ring() || awake == until {
                return Ok(ready);
            }
        }
    }

    /// The same, if there is something to do that no socket tells.
    fn drive_if_due(&self, me: &Arc<Bell>) {
        if self.signs.due.load(Ordering::SeqCst) {
            self.drive(Some(me));
        }
    }

    /// What this one waits for: the socket, if nobody else watches it.
    fn want(&self, me: &Arc<Bell>) -> Option<Want> {
        let mut roles = lock(&self.roles);
        if !Arc::ptr_eq(roles.watcher.get_or_insert_with(|| me.clone()), me) {
            return None;
        }
        Some(Want { socket: self.socket.clone(), readable: true, writable: self.signs.blocked.load(Ordering::SeqCst) })
    }

    /// No longer watches, if it did.
    fn unwatch(&self, me: &Arc<Bell>) {
        let mut roles = lock(&self.roles);
        if roles.watcher.as_ref().is_some_and(|watcher| Arc::ptr_eq(watcher, me)) {
            roles.watcher = None;
        }
    }

    /// Has another one watch that waits, if nobody does.
    fn hand_on(&self, me: &Arc<Bell>) {
        let roles = lock(&self.roles);
        if roles.watcher.is_some() {
            return;
        }
        let next = roles.members.iter().find(|bell| bell.waits() && !Arc::ptr_eq(me, bell)).cloned();
        drop(roles);
        if let Some(next) = next {
            next.ring();
        }
    }
}

/// The link, as the crate `h2` wants it.
#[derive(Debug)]
struct Carrier {
    link: Link,
    signs: Arc<Signs>,
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A read that did not fill its buffer took everything, within TLS too; another would find nothing.
        if self.signs.drained.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let room = into.initialize_unfilled();
        match self.link.read(room) {
            Ok(count) => {
                self.signs.drained.store(count > 0 && count < room.len(), Ordering::SeqCst);
                into.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(fault) if fault.would_block() => Poll::Pending,
            Err(fault) => {
                if let Fault::Tls(error) = &fault {
                    *lock(&self.signs.distrust) = Some(error.clone());
                }
                Poll::Ready(Err(fault.into_io()))
            }
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.link.write(bytes);
        let blocks = outcome.as_ref().is_err_and(Fault::would_block);
        self.signs.blocked.store(blocks, Ordering::SeqCst);
        if blocks { Poll::Pending } else { Poll::Ready(outcome.map_err(Fault::into_io)) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.link.flush();
        let blocks = matches!(outcome, Ok(false));
        self.signs.blocked.store(blocks, Ordering::SeqCst);
        if blocks { Poll::Pending } else { Poll::Ready(outcome.map(|_| ()).map_err(Fault::into_io)) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

/// Notes that a stream has something. Who is told is settled when nothing is locked any more.
#[derive(Debug)]
struct Notes {
    bell: Arc<Bell>,
    signs: Arc<Signs>,
}

impl Wake for Notes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.bell.note() {
            lock(&self.signs.ready).push(self.bell.clone());
        }
    }
}

/// The sending half of a stream, which whoever wants to end it from elsewhere holds too.
#[derive(Debug)]
pub(crate) struct Half {
    stream: Mutex<Option<SendStream<Bytes>>>,
    session: Arc<Session>,
}

impl Half {
    /// Ends the stream and leaves the others be: whoever reads from it finds its end.
    pub(crate) fn reset(&self) {
        if self.session.process != std::process::id() {
            return;
        }
        if let Some(stream) = &mut *lock(&self.stream) {
            stream.send_reset(Reason::CANCEL);
        }
        self.session.drive(None);
    }
}

/// One request and its response on a shared connection.
pub(crate) struct Exchange {
    session: Arc<Session>,
    bell: Arc<Bell>,
    waker: Waker,
    half: Arc<Half>,
    unsent: Bytes,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    /// What came and was not taken.
    rest: Bytes,
    /// Whether the last read was full: there may be more.
    full: bool,
    /// What came after what the last read gave.
    failure: Option<h2::Error>,
    over: bool,
}

impl Exchange {
    /// Begins on a connection whose stream was taken.
    pub(crate) fn begin(
        session: Arc<Session>,
        bell: Arc<Bell>,
        request: http::Request<()>,
        body: &[u8],
    ) -> Result<Self, h2::Error> {
        bell.forget_news();
        let waker = Waker::from(Arc::new(Notes { bell: bell.clone(), signs: session.signs.clone() }));
        // A sender of its own: the others' need not wait until this request is on its way.
        let mut sender = lock(&session.state).sender.clone();
        let sent = sender.send_request(request, body.is_empty());
        let (response, mut stream) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                session.give_back();
                return Err(error);
            }
        };
        stream.reserve_capacity(body.len());
        lock(&session.roles).members.push(bell.clone());
        let half = Arc::new(Half { stream: Mutex::new(Some(stream)), session: session.clone() });
        Ok(Self {
            session,
            bell,
            waker,
            half,
            unsent: Bytes::copy_from_slice(body),
            response: Some(response),
            body: None,
            rest: Bytes::new(),
            full: false,
            failure: None,
            over: false,
        })
    }

    /// What a failure before the head means.
    pub(crate) fn unanswered(&self, error: &h2::Error, origin: &Origin) -> Error {
        match &*lock(&self.session.signs.distrust) {
            // Who wants a client's certificate says so after the handshake (RFC 8446, section 6.2).
            Some(error) => tls::failure(error, origin),
            None if error.is_library() && !self.session.is_settled() => {
                Error::new(Kind::Malformed, format!("{origin} speaks no HTTP/2"))
            }
            None => failure(error, origin, false),
        }
    }

    pub(crate) fn half(&self) -> Arc<Half> {
        self.half.clone()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over && self.rest.is_empty()
    }

    /// Whether a read finds something without anybody waiting.
    pub(crate) fn is_pending(&self) -> bool {
        self.full || self.over || !self.rest.is_empty() || self.failure.is_some() || self.bell.has_news()
    }

    /// The socket, if this one is to watch it. From here on it is rung for.
    pub(crate) fn want(&self) -> Option<Want> {
        self.bell.set_waits(true);
        if self.bell.has_news() {
            self.bell.ring(); // it came since it was last read
        }
        self.session.want(&self.bell)
    }

    /// Blocks until there may be something; false if the time has come.
    pub(crate) fn wait(&self, until: Instant) -> io::Result<bool> {
        let want = self.want();
        if self.bell.take_ring() {
            self.session.unwatch(&self.bell);
            return Ok(true);
        }
        let Some(want) = want else { return Ok(self.bell.sleep(until)) };
        let outcome = self.session.wait(&want, &self.bell, until);
        self.session.unwatch(&self.bell);
        outcome
    }

    /// Leaves the watching to others.
    pub(crate) fn rest(&self) {
        self.session.unwatch(&self.bell);
        self.session.hand_on(&self.bell);
    }

    /// The head, once it is there.
    pub(crate) fn head(&mut self) -> Result<Option<Head>, h2::Error> {
        let outcome = self.ask();
        self.bell.set_waits(matches!(outcome, Ok(None)));
        if self.bell.waits() && self.bell.has_news() {
            return self.head(); // it came in between, from another thread
        }
        if !self.bell.waits() {
            self.session.hand_on(&self.bell);
        }
        outcome
    }

    fn ask(&mut self) -> Result<Option<Head>, h2::Error> {
        loop {
            self.bell.forget_news();
            self.send();
            self.session.drive(Some(&self.bell));
            let Some(response) = &mut self.response else { return Ok(None) };
            match Pin::new(response).poll(&mut Context::from_waker(&self.waker)) {
                Poll::Pending if self.bell.has_news() => {}
                Poll::Pending => return Ok(None),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    self.response = None;
                    if body.is_end_stream() {
                        self.end();
                    } else {
                        self.body = Some(body);
                        self.full = true;
                    }
                    return Ok(Some(Head::of(parts.status.as_u16(), &parts.headers)));
                }
            }
        }
    }

    /// Sends as much of the body as the server has room for.
    fn send(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let mut stream = lock(&self.half.stream);
        let Some(stream) = &mut *stream else { return };
        while let Poll::Ready(Some(Ok(room))) = stream.poll_capacity(&mut Context::from_waker(&self.waker)) {
            let piece = self.unsent.split_to(room.min(self.unsent.len()));
            // What fails here, the response tells.
            if stream.send_data(piece, self.unsent.is_empty()).is_err() || self.unsent.is_empty() {
                return;
            }
            stream.reserve_capacity(self.unsent.len());
        }
    }

    /// Some bytes of the body; 0 at its end. None if there is nothing yet.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, h2::Error> {
        let mut outcome = self.take(into);
        if matches!(outcome, Ok(None)) {
            self.send();
            self.session.drive(Some(&self.bell));
            outcome = self.take(into);
        }
        self.bell.set_waits(matches!(outcome, Ok(None)));
        if self.bell.waits() {
            if self.bell.has_news() {
                return self.read(into); // it came in between, from another thread
            }
        } else {
            self.session.drive_if_due(&self.bell);
            self.session.hand_on(&self.bell);
        }
        outcome
    }

    /// Takes what there is, of as many frames as fit.
    fn take(&mut self, into: &mut [u8]) -> Result<Option<usize>, h2::Error> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.bell.forget_news();
        let mut count = 0;
        loop {
            let room = into.get_mut(count..).unwrap_or_default();
            let size = room.len().min(self.rest.len());
            if size > 0 {
                self.rest.copy_to_slice(room.get_mut(..size).unwrap_or_default());
                count += size;
                if let Some(body) = &mut self.body {
                    // The reader has taken it: the server may send as much again.
                    let _ = body.flow_control().release_capacity(size);
                }
            }
            self.full = count == into.len();
            if self.full {
                return Ok(Some(count));
            }
            let some = (count > 0).then_some(count);
            let Some(body) = &mut self.body else { return Ok(Some(count)) };
            match body.poll_data(&mut Context::from_waker(&self.waker)) {
                Poll::Pending => return Ok(some),
                Poll::Ready(Some(Ok(bytes))) => self.rest = bytes,
                Poll::Ready(None) => self.end(),
                Poll::Ready(Some(Err(error))) if some.is_none() => return Err(error),
                Poll::Ready(Some(Err(error))) => {
                    self.failure = Some(error);
                    return Ok(some);
                }
            }
        }
    }

    /// Lets go of the stream. One that has not come to its end is reset.
    fn end(&mut self) {
        if self.over {
            return;
        }
        self.over = true;
        self.response = None;
        self.body = None;
        lock(&self.half.stream).take();
        self.session.drive_if_due(&self.bell);
        {
            let mut roles = lock(&self.session.roles);
            roles.members.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
        }
        self.bell.set_waits(false);
        self.rest();
        self.session.give_back();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.session.process == std::process::id() {
            self.end();
            return;
        }
        // A forked child has a copy of its parent's stream, and of locks that may never be opened again.
        std::mem::forget((self.response.take(), self.body.take(), self.half.clone(), self.session.clone()));
    }
}

/// What a failed stream means, before the head or after it.
pub(crate) fn failure(error: &h2::Error, origin: &Origin, answered: bool) -> Error {
    let when = if answered { "in the middle of the response" } else { "without an answer" };
    let described = error.reason().map(|reason| reason.description().to_owned());
    let (kind, message) = if let Some(error) = error.get_io() {
        (Kind::Cut, format!("{origin} closed the connection {when}: {}", reason(error)))
    } else if error.reason() == Some(Reason::HTTP_1_1_REQUIRED) {
        (Kind::Cut, format!("{origin} wants HTTP/1.1 for this: leave http2 out"))
    } else if error.is_remote() {
        let what = if error.is_go_away() { "connection" } else { "stream" };
        (Kind::Cut, format!("{origin} ended the {what} {when}: {}", described.unwrap_or_default()))
    } else if error.is_library() {
        let message = described.unwrap_or_else(|| error.to_string());
        (Kind::Malformed, format!("this is no HTTP/2 response of {origin}: {message}"))
    } else {
        (Kind::Cut, "the request was given up".to_owned())
    };
    Error::new(kind, message)
}

/// Whether the server says that it did not look at the request.
pub(crate) fn is_unseen(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}
