//! A transfer of the engine, driven by tokio: the task that wants the bytes reads the socket itself.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use penstock_engine::error::{Error, Kind};
use penstock_engine::head::Head;
use penstock_engine::link::Keepsake;
use penstock_engine::pool::Pool;
use penstock_engine::request::{Outline, Request};
use penstock_engine::transfer::{Body, Step, Transfer};
use penstock_engine::url::Url;
use penstock_engine::wait::Want;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};

use crate::tables::Timeouts;

/// Bytes that one read takes at most.
const SCRATCH: usize = 64 << 10;
/// As many small reads are the work of one that takes as much.
const SHARES: usize = 16;

thread_local! {
    /// Where reads go, so that no waiting stream holds a buffer of its own.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A request on its way, and its response.
#[derive(Debug)]
pub(crate) struct Upstream {
    watches: Vec<Watch>,
    transfer: Transfer,
    /// Where its connection may be shared.
    ring: Option<Arc<Ring>>,
    /// There may be more to read though nothing says so: what was ready is used up, and not all was read.
    untried: bool,
    timer: Option<Timer>,
    timeouts: Timeouts,
    begun: Instant,
}

/// A timer, and when it rings.
type Timer = (Pin<Box<Sleep>>, Instant);

/// A socket that this thread's runtime looks after.
#[derive(Debug)]
struct Watch {
    registration: Arc<Registration>,
    readable: bool,
    writable: bool,
}

/// It stays with its connection, from one request to the next.
#[derive(Debug)]
struct Registration {
    socket: AsyncFd<Arc<TcpStream>>,
    /// Whose runtime it is.
    thread: ThreadId,
}

impl Keepsake for Registration {
    fn is_quiet(&self) -> bool {
        self.socket.try_io(Interest::READABLE, |_| Ok(())).is_err()
    }
}

impl Watch {
    fn new(want: Want) -> Result<Self, Error> {
        let socket = registered(want.socket).map_err(|error| cut(&error))?;
        let registration = Arc::new(Registration { socket, thread: thread::current().id() });
        Ok(Self { registration, readable: want.readable, writable: want.writable })
    }

    /// One that the transfer's connection came with.
    fn kept(transfer: &Transfer) -> Option<Self> {
        let kept: Arc<dyn Any + Send + Sync> = transfer.kept()?.clone();
        let registration = kept.downcast::<Registration>().ok()?;
        let ours = registration.thread == thread::current().id();
        ours.then_some(Self { registration, readable: true, writable: false })
    }

    fn socket(&self) -> &AsyncFd<Arc<TcpStream>> {
        &self.registration.socket
    }
}

/// How it is told, by whoever drives the connection that they share, that there is something for it.
#[derive(Debug, Default)]
struct Ring {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Ring {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it rang since it was last asked; else the task is woken when it does.
    fn poll(&self, context: &Context<'_>) -> bool {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        self.rung.swap(false, Ordering::AcqRel)
    }
}

impl Upstream {
    /// Sends a request and waits for the head of its response.
    pub(crate) async fn ask(
        pool: Arc<Pool>,
        request: Request,
        timeouts: Timeouts,
        begun: Instant,
    ) -> Result<Self, Error> {
        let mut transfer = Transfer::new(pool, request, true);
        let now = Instant::now();
        transfer.clocks.connect = after(now, timeouts.connect);
        transfer.clocks.due = earlier(after(now, timeouts.first_token), after(begun, timeouts.total));
        let ring: Option<Arc<Ring>> = transfer.may_share().then(Arc::default);
        if let Some(ring) = ring.clone() {
            transfer.on_ring(move || ring.ring());
        }
        let watches = Watch::kept(&transfer).into_iter().collect();
        let mut upstream = Self { watches, transfer, ring, untried: false, timer: None, timeouts, begun };
        upstream.answered().await?;
        Ok(upstream)
    }

    async fn answered(&mut self) -> Result<(), Error> {
        let mut ready = true;
        loop {
            if ready {
                match self.transfer.advance(Instant::now())? {
                    Step::Answered => break,
                    Step::Wait => watch(&mut self.watches, &mut self.transfer)?,
                    Step::Resolve(host, port) => {
                        let addresses = self.resolve(host, port).await?;
                        self.transfer.resolved(addresses, Instant::now());
                        continue;
                    }
                }
            }
            ready = poll_fn(|context| self.poll_sockets(context)).await?;
        }
        self.transfer.clocks.connect = None;
        self.transfer.clocks.idle = self.timeouts.idle.and_then(duration);
        if self.transfer.is_over() || self.transfer.is_shared() {
            self.leave();
        } else if !self.watches.is_empty() {
            watch(&mut self.watches, &mut self.transfer)?;
        }
        self.untried = !self.transfer.is_drained();
        Ok(())
    }

    async fn resolve(&self, host: String, port: u16) -> Result<Vec<std::net::SocketAddr>, Error> {
        let no_connection = |kind, why: &str| Error { kind, message: format!("no connection to {host}:{port}: {why}") };
        let found = tokio::net::lookup_host((host.as_str(), port));
        let found = match self.transfer.deadline() {
            None => found.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), found).await {
                Ok(found) => found,
                Err(_) => return Err(no_connection(Kind::ConnectTime, "no address in time")),
            },
        };
        match found {
            Ok(addresses) => Ok(addresses.collect()),
            Err(error) => {
                let text = error.to_string();
                // The resolver's own words stand behind the library's.
                Err(no_connection(Kind::Connect, text.rsplit(": ").next().unwrap_or_default()))
            }
        }
    }

    /// Watches nothing: what it shares with others is theirs to watch.
    fn leave(&mut self) {
        // First, for the next one may be of this thread, which watches a socket once.
        self.watches.clear();
        self.transfer.rest();
    }

    /// True when a socket is ready or a time has come, false when it only seemed so. What is seen to be ready is taken
    /// for used up: whoever is told tries until nothing more goes.
    fn poll_sockets(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let mut ready = self.ring.as_ref().is_some_and(|ring| ring.poll(context));
        for watch in &self.watches {
            if watch.readable
                && let Poll::Ready(guard) = watch.socket().poll_read_ready(context)
            {
                guard.map_err(|error| cut(&error))?.clear_ready();
                ready = true;
            }
            if watch.writable
                && let Poll::Ready(guard) = watch.socket().poll_write_ready(context)
            {
                guard.map_err(|error| cut(&error))?.clear_ready();
                ready = true;
            }
        }
        let Self { transfer, timer, .. } = self;
        if ready || poll_timer(transfer, timer, context).is_ready() { Poll::Ready(Ok(true)) } else { Poll::Pending }
    }

    pub(crate) fn head(&self) -> Option<&Head> {
        self.transfer.head()
    }

    /// The first token is there: from now on the clock for the whole counts alone.
    pub(crate) fn spoke(&mut self) {
        self.transfer.clocks.due = after(self.begun, self.timeouts.total);
    }

    /// What `take` makes of the next bytes of the body; None at its end.
    pub(crate) fn poll_read<T>(
        &mut self,
        context: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> T,
    ) -> Poll<Result<Option<T>, Error>> {
        // A server may send faster than anybody reads: whoever reads to find something gives the others their turn.
        let turn = ready!(coop::poll_proceed(context));
        if self.transfer.is_shared() {
            let taken = ready!(self.poll_shared(context, take));
            turn.made_progress();
            return Poll::Ready(taken);
        }
        let Self { watches, transfer, untried, timer, .. } = self;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(SCRATCH, 0);
            loop {
                let mut guard = match watches.first() {
                    Some(watch) if !*untried && !transfer.is_pending() => match watch.socket().poll_read_ready(context)
                    {
                        Poll::Ready(guard) => Some(guard.map_err(|error| cut(&error))?),
                        // When it rings, the read says so.
                        Poll::Pending => {
                            ready!(poll_timer(transfer, timer, context));
                            None
                        }
                    },
                    _ => None,
                };
                let taken = match transfer.read(buffer)? {
                    Body::Data(data) => Some(take(data)),
                    Body::End => None,
                    Body::Wait => {
                        *untried = false;
                        if let Some(guard) = &mut guard {
                            guard.clear_ready();
                        } else if watches.is_empty() {
                            // An answer that came with its head was never waited for.
                            watch(watches, transfer)?;
                        }
                        continue;
                    }
                };
                // Nothing is left in a bare socket that gave less than was asked for.
                if transfer.is_drained() {
                    *untried = false;
                    if let Some(guard) = &mut guard {
                        guard.clear_ready();
                    }
                }
                if transfer.is_over() {
                    // The connection is somebody else's.
                    watches.clear();
                }
                turn.made_progress();
                if transfer.is_pending() {
                    for _ in 1..SHARES {
                        let _ = coop::poll_proceed(context).map(|share| share.made_progress());
                    }
                }
                return Poll::Ready(Ok(taken));
            }
        })
    }

    /// The same on a connection that others share.
    fn poll_shared<T>(
        &mut self,
        context: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> T,
    ) -> Poll<Result<Option<T>, Error>> {
        loop {
            let taken = BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(SCRATCH, 0);
                Ok(match self.transfer.read(buffer)? {
                    Body::Data(data) => Some(Some(take(data))),
                    Body::End => Some(None),
                    Body::Wait => None,
                })
            });
            match taken {
                Ok(None) => {
                    watch(&mut self.watches, &mut self.transfer)?;
                    ready!(self.poll_sockets(context))?;
                }
                Ok(Some(taken)) => {
                    // Whoever it is for may be long in coming back for more, and the others do not wait for that.
                    self.leave();
                    return Poll::Ready(Ok(taken));
                }
                Err(error) => {
                    self.leave();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// What `take` makes of the next bytes; None at the end.
    pub(crate) async fn read<T>(&mut self, mut take: impl FnMut(&[u8]) -> T) -> Result<Option<T>, Error> {
        poll_fn(|context| self.poll_read(context, &mut take)).await
    }

    /// Reads to the end of a body that may have so many bytes.
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while self.read(|data| body.extend_from_slice(data)).await?.is_some() {
            if body.len() > limit {
                let message = format!("the response has more than {limit} bytes");
                return Err(Error { kind: Kind::Malformed, message });
            }
        }
        Ok(body)
    }

    /// So many bytes of the body, or what there is of them.
    pub(crate) async fn most(&mut self, limit: usize, body: &mut Vec<u8>) {
        while body.len() < limit && matches!(self.read(|data| body.extend_from_slice(data)).await, Ok(Some(()))) {}
        body.truncate(limit);
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.transfer.is_over()
    }
}

/// A request but for its body, with the headers that every request has that does not say otherwise.
pub(crate) fn outline(url: Url, mut headers: Vec<(String, String)>, stream: bool) -> Result<Arc<Outline>, Error> {
    let accept = if stream { "text/event-stream" } else { "application/json" };
    // Compressed events wait for each other in the compressor.
    let encoding = if stream { "identity" } else { "gzip, br, zstd" };
    for (name, value) in [
        ("accept", accept),
        ("content-type", "application/json"),
        ("accept-encoding", encoding),
        ("user-agent", concat!("penstock/", env!("CARGO_PKG_VERSION"))),
    ] {
        if !headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    Outline::new("POST", url, headers).map(Arc::new)
}

/// Has the runtime look after the sockets that the transfer waits for, and no others.
fn watch(watches: &mut Vec<Watch>, transfer: &mut Transfer) -> Result<(), Error> {
    let wants = transfer.wants();
    watches.retain(|watch| wants.iter().any(|want| Arc::ptr_eq(&want.socket, watch.socket().get_ref())));
    for want in wants {
        let known = watches.iter_mut().find(|watch| Arc::ptr_eq(&want.socket, watch.socket().get_ref()));
        if let Some(watch) = known {
            (watch.readable, watch.writable) = (want.readable, want.writable);
        } else {
            watches.push(Watch::new(want)?);
        }
    }
    if let [watch] = watches.as_slice() {
        transfer.keep(watch.registration.clone());
    }
    Ok(())
}

#[expect(unsafe_code, reason = "tokio has no safe way to watch a socket that another library reads")]
fn registered(socket: Arc<TcpStream>) -> io::Result<AsyncFd<Arc<TcpStream>>> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: the descriptor is always the same one, and stays open for as long as the registration has its share of
    // the socket.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// Ready when the transfer's time has come: it is to be driven, and fails. A timer that is early stays as it is, for
/// with every read the time is another one.
fn poll_timer(transfer: &Transfer, timer: &mut Option<Timer>, context: &mut Context<'_>) -> Poll<()> {
    loop {
        let Some(deadline) = transfer.deadline() else { return Poll::Pending };
        let (timer, at) = timer.get_or_insert_with(|| (Box::pin(sleep_until(deadline.into())), deadline));
        if *at > deadline {
            timer.as_mut().reset(deadline.into());
            *at = deadline;
        }
        ready!(timer.as_mut().poll(context));
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline.into());
        *at = deadline;
    }
}

#[cold]
fn cut(error: &io::Error) -> Error {
    Error { kind: Kind::Cut, message: error.to_string() }
}

pub(crate) fn after(from: Instant, seconds: Option<f64>) -> Option<Instant> {
    from.checked_add(duration(seconds?)?)
}

/// None for what is no time, or beyond all clocks.
pub(crate) fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
