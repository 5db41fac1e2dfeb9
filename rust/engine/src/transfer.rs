//! One request on its way over one connection, and its response.

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::bell::{Bell, lock};
use crate::coding::Coding;
use crate::connect::Race;
use crate::error::{Error, Kind, reason};
use crate::framing::Framing;
use crate::head::{Head, MAX_HEAD};
use crate::http2::{self, Exchange, Half, Session};
use crate::link::{Fault, Keepsake, Link};
use crate::pool::{Joined, Pool, Turn};
use crate::proxy::{Greeting, Refusal};
use crate::request::Request;
use crate::tls;
use crate::url::Origin;
use crate::wait::{self, Want};

/// Bytes that one read takes at most while the head is awaited.
const HEAD_READ: usize = 4 << 10;

/// A wait ends after so long. A signal that comes in the moment before it begins does not end it, and who waits for hours
/// would be deaf to a Ctrl-C.
const REST: Duration = Duration::from_secs(1);

thread_local! {
    /// Where they go first: most heads are far shorter.
    static HEAD: RefCell<[u8; HEAD_READ]> = const { RefCell::new([0; HEAD_READ]) };
}

/// What a transfer waits for, until its response begins.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// For the addresses of this host and port: see [`Transfer::resolved`].
    Resolve(String, u16),
    /// For its sockets: see [`Transfer::wants`], or for its time: see [`Transfer::deadline`].
    Wait,
    /// For nothing: the head is there.
    Answered,
}

/// What a read gives.
#[derive(Debug)]
pub enum Body<'a> {
    Data(&'a [u8]),
    /// Nothing yet.
    Wait,
    End,
}

/// The connection of a transfer, for whoever wants to end it from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Option<Held>>>);

/// What a transfer has of a connection.
#[derive(Clone, Debug)]
enum Held {
    All(Arc<TcpStream>),
    /// A stream on one that others share.
    Stream(Arc<Half>),
}

impl Line {
    /// Ends the connection while it is this transfer's, or its stream on a shared one: whoever reads from it finds its
    /// end.
    pub fn shut(&self) {
        let held = lock(&self.0).clone();
        match held {
            None => {}
            // It may have ended by itself.
            Some(Held::All(socket)) => _ = socket.shutdown(Shutdown::Both),
            Some(Held::Stream(half)) => half.reset(),
        }
    }

    fn set(&self, held: Option<Held>) {
        *lock(&self.0) = held;
    }
}

/// The clocks of one transfer.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// When the connection must stand.
    pub connect: Option<Instant>,
    /// When everything, or the next thing that counts, must have happened.
    pub due: Option<Instant>,
    /// The longest silence once the response has begun.
    pub idle: Option<Duration>,
    /// When the last bytes came.
    pub seen: Instant,
}

enum Stage {
    /// Another request connects to where this one goes.
    Queue,
    Resolve,
    Connect(Race),
    Greet(Link, Greeting),
    Secure(Link),
    /// The request is being sent, or the response's head awaited.
    Ask(Link),
    Read(Link),
    /// The same two on a connection that others share.
    AskShared(Exchange),
    ReadShared(Exchange),
    Over,
}

/// What the connection is that a request is sent on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    First,
    /// It has served before. It may have been closed meanwhile, which shows only now.
    Reused,
    /// The second, and the last.
    Again,
}

impl Trial {
    /// Whether another may follow one that failed like this on a shared connection.
    fn may_end_so(self, error: &h2::Error) -> bool {
        self != Self::Again && (http2::is_unseen(error) || (self == Self::Reused && error.is_io()))
    }
}

/// One request and its response.
pub struct Transfer {
    pool: Arc<Pool>,
    request: Request,
    stage: Stage,
    pub clocks: Clocks,
    line: Line,
    bytes: Vec<u8>,
    sent: usize,
    /// What was received and not yet looked at.
    carry: Vec<u8>,
    /// Whether the last read filled its buffer: there may be more, within TLS too, where no socket tells.
    full: bool,
    trial: Trial,
    /// Where HTTP/2 may be spoken.
    bell: Option<Arc<Bell>>,
    /// Where others wait for the connection that is being made.
    turn: Option<Turn>,
    /// Whether reads wait, and for the longest silence of which the system then keeps a part for us.
    blocking: Option<Duration>,
    head: Option<Head>,
    framing: Framing,
    decodes: bool,
    coding: Option<Coding>,
    coded: Vec<u8>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("origin", &self.request.url().origin).finish_non_exhaustive()
    }
}

impl Transfer {
    /// A request that has not begun; `decodes` undoes the content-encoding of its response.
    #[must_use]
    pub fn new(pool: Arc<Pool>, request: Request, decodes: bool) -> Self {
        let bell = pool.speaks_http2(&request.url().origin).then(Arc::default);
        Self {
            pool,
            request,
            stage: Stage::Over,
            clocks: Clocks { connect: None, due: None, idle: None, seen: Instant::now() },
            line: Line::default(),
            bytes: Vec::new(),
            sent: 0,
            carry: Vec::new(),
            full: false,
            trial: Trial::First,
            bell,
            turn: None,
            blocking: None,
            head: None,
            framing: Framing::UntilClose,
            decodes,
            coding: None,
            coded: Vec::new(),
            plain: Vec::new(),
        }
        .begun()
    }

    fn begun(mut self) -> Self {
        self.stage = match self.pool.take(&self.request.url().origin, self.clocks.seen) {
            Some(link) => {
                self.trial = Trial::Reused;
                self.ask_on(link)
            }
            None if self.bell.is_some() => Stage::Queue,
            None => Stage::Resolve,
        };
        self
    }

    /// About to send the request on a connection of its own.
    fn ask_on(&mut self, link: Link) -> Stage {
        self.line.set(Some(Held::All(link.socket.clone())));
        let proxy = self.pool.route.proxy.as_ref().filter(|proxy| proxy.relays(&self.request.url().origin));
        self.bytes = match proxy {
            None => self.request.encode(&self.request.url().target, None),
            Some(proxy) => {
                let target = format!("http://{}{}", self.request.url().origin.header(), self.request.url().target);
                let login = proxy.authorization();
                let mut bytes = self.request.encode(&target, login.as_deref());
                bytes.shrink_to_fit();
                bytes
            }
        };
        self.sent = 0;
        Stage::Ask(link)
    }

    /// About to send the request on a connection that others share.
    fn ask_shared(&mut self, session: Arc<Session>) -> Result<Stage, Error> {
        let bell = self.bell.get_or_insert_default().clone();
        let request = self.request.shared()?;
        let exchange = Exchange::begin(session, bell, request, self.request.body())
            .map_err(|error| http2::failure(&error, &self.request.url().origin, false))?;
        self.line.set(Some(Held::Stream(exchange.half())));
        Ok(Stage::AskShared(exchange))
    }

    /// About to send the request, on a connection that has just come to stand.
    fn stood(&mut self, link: Link, now: Instant) -> Result<Stage, Error> {
        let turn = self.turn.take();
        if self.bell.is_none() || (self.request.url().origin.tls && !link.speaks_http2()) {
            if let Some(turn) = turn {
                turn.done(None);
            }
            return Ok(self.ask_on(link));
        }
        let queue = turn.as_ref().map_or_else(Arc::default, Turn::queue);
        let session = Session::begin(link, queue, now)
            .map(Arc::new)
            .map_err(|error| http2::failure(&error, &self.request.url().origin, false))?;
        let stage = self.ask_shared(session.clone())?;
        if let Some(turn) = turn {
            turn.done(Some(&session));
        }
        Ok(stage)
    }

    /// The server to connect to first.
    fn first(&self) -> &Origin {
        self.pool.route.proxy.as_ref().map_or(&self.request.url().origin, |proxy| &proxy.server)
    }

    /// The addresses asked for by [`Step::Resolve`].
    pub fn resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        if matches!(self.stage, Stage::Resolve) {
            self.stage = Stage::Connect(Race::new(addresses, now));
        }
    }

    /// What is called, from whatever thread, when there may be something for this transfer that none of the sockets in
    /// [`Transfer::wants`] tells: where a connection is shared, one transfer watches it for all.
    pub fn on_ring(&self, call: impl Fn() + Send + Sync + 'static) {
        if let Some(bell) = &self.bell {
            bell.on_ring(Box::new(call));
        }
    }

    /// Whether it may come to share a connection.
    #[must_use]
    pub fn may_share(&self) -> bool {
        self.bell.is_some()
    }

    /// Whether it shares a connection, or waits for one to share: then what it wants may change by the others' doing.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.stage, Stage::Queue | Stage::AskShared(_) | Stage::ReadShared(_))
    }

    /// Nobody watches the sockets of this transfer for now: others that share its connection have to.
    pub fn rest(&self) {
        if let Stage::AskShared(exchange) | Stage::ReadShared(exchange) = &self.stage {
            exchange.rest();
        }
    }

    /// What was left with its connection, if that is its own: by a transfer before it, or by [`Transfer::keep`].
    #[must_use]
    pub fn kept(&self) -> Option<&Arc<dyn Keepsake>> {
        match &self.stage {
            Stage::Ask(link) | Stage::Read(link) => link.kept.as_ref(),
            _ => None,
        }
    }

    /// Leaves this with its connection, once the request goes out on one of its own.
    pub fn keep(&mut self, kept: Arc<dyn Keepsake>) {
        if let Stage::Ask(link) | Stage::Read(link) = &mut self.stage {
            link.kept = Some(kept);
        }
    }

    /// Blocks until there may be something for it, or its time has come: then the answer is false.
    ///
    /// A signal ends it with [`io::ErrorKind::Interrupted`], and so does a while without anything, in which there may
    /// have been one.
    pub fn wait(&self) -> io::Result<bool> {
        let (deadline, awake) = (self.deadline(), Instant::now() + REST);
        let until = deadline.map_or(awake, |deadline| deadline.min(awake));
        let came = match (&self.stage, &self.bell) {
            (Stage::AskShared(exchange) | Stage::ReadShared(exchange), _) => exchange.wait(until),
            (Stage::Queue, Some(bell)) => Ok(bell.sleep(until)),
            _ => wait::wait(&self.wants(), Some(until)),
        }?;
        if came || deadline == Some(until) { Ok(came) } else { Err(io::ErrorKind::Interrupted.into()) }
    }

    /// A handle on the connection.
    #[must_use]
    pub fn line(&self) -> Line {
        self.line.clone()
    }

    /// The response's head, once it is there.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether the body was read to its end, or given up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Whether a read finds something without waiting for the socket.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let shared = matches!(&self.stage, Stage::ReadShared(exchange) if exchange.is_pending());
        self.full || !self.carry.is_empty() || !self.coded.is_empty() || shared || self.is_over()
    }

    /// Whether the socket had no more to give than the last read took: its readiness is used up.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        // Within TLS a part of a record may be all that was read, with the rest still in the socket.
        !self.full && matches!(&self.stage, Stage::Read(link) if link.is_bare())
    }

    /// Aborts what is still going on.
    pub fn abort(&mut self) {
        self.line.set(None);
        self.stage = Stage::Over;
        self.turn = None;
    }

    /// The sockets it waits for.
    #[must_use]
    pub fn wants(&self) -> Vec<Want> {
        match &self.stage {
            Stage::Queue | Stage::Resolve | Stage::Over => Vec::new(),
            Stage::AskShared(exchange) | Stage::ReadShared(exchange) => exchange.want().into_iter().collect(),
            Stage::Connect(race) => race.wants(),
            Stage::Greet(link, greeting) => vec![link.want(greeting.unsent() && !link.is_handshaking())],
            Stage::Ask(link) => vec![link.want(self.sent < self.bytes.len())],
            Stage::Secure(link) | Stage::Read(link) => vec![link.want(false)],
        }
    }

    /// Waits for more of the body, in a thread that has nothing else to do, or leaves the waiting to the next read: one
    /// system call instead of two, where one limit holds for every silence.
    ///
    /// A signal ends it with [`io::ErrorKind::Interrupted`], and the read with [`Body::Wait`]; so does a while without
    /// anything, as in [`Transfer::wait`].
    pub fn wait_to_read(&mut self) -> io::Result<()> {
        if self.is_pending() {
            return Ok(());
        }
        if let (Stage::Read(link), None) = (&self.stage, self.clocks.due) {
            let limit = self.clocks.idle.unwrap_or(Duration::MAX);
            if self.blocking != Some(limit) {
                // In equal parts, so that the last one ends when it is time. None at all is no limit that sockets know.
                let parts = (limit.as_secs_f64() / REST.as_secs_f64()).ceil().max(1.0);
                link.socket.set_read_timeout(Some(limit.div_f64(parts).max(Duration::from_millis(1))))?;
                link.socket.set_nonblocking(false)?;
                self.blocking = Some(limit);
            }
            return Ok(());
        }
        self.unblock()?;
        self.wait().map(drop)
    }

    fn unblock(&mut self) -> io::Result<()> {
        match (&self.stage, self.blocking.take()) {
            (Stage::Read(link), Some(_)) => link.socket.set_nonblocking(true),
            _ => Ok(()),
        }
    }

    /// Until when it waits: then it is to be driven again, and fails or goes another way.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let own = match &self.stage {
            Stage::Queue | Stage::Resolve | Stage::Greet(..) | Stage::Secure(_) => self.clocks.connect,
            Stage::Connect(race) => earlier(self.clocks.connect, race.next()),
            Stage::Read(_) | Stage::ReadShared(_) => {
                self.clocks.idle.and_then(|idle| self.clocks.seen.checked_add(idle))
            }
            Stage::Ask(_) | Stage::AskShared(_) | Stage::Over => None,
        };
        earlier(own, self.clocks.due)
    }

    /// Fails if a clock has run out.
    fn check(&self, now: Instant) -> Result<(), Error> {
        let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let reading = matches!(self.stage, Stage::Read(_) | Stage::ReadShared(_));
        let connecting = !reading && !matches!(self.stage, Stage::Ask(_) | Stage::AskShared(_) | Stage::Over);
        if connecting && past(self.clocks.connect) {
            return Err(Error::new(Kind::ConnectTime, format!("no connection to {} in time", self.first())));
        }
        if past(self.clocks.due) {
            return Err(Error::new(Kind::DueTime, format!("no answer from {} in time", self.request.url().origin)));
        }
        let idle = self.clocks.idle.and_then(|idle| self.clocks.seen.checked_add(idle));
        if reading && past(idle) {
            return Err(Error::new(Kind::IdleTime, format!("no bytes from {} in time", self.request.url().origin)));
        }
        Ok(())
    }

    /// Goes on as far as it can up to the response's head.
    pub fn advance(&mut self, now: Instant) -> Result<Step, Error> {
        let outcome = self.try_advance(now);
        if outcome.is_err() {
            self.abort();
        }
        outcome
    }

    fn try_advance(&mut self, now: Instant) -> Result<Step, Error> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Over => {
                    let gone = || Error::new(Kind::Cut, "the request was given up");
                    return if self.head.is_some() { Ok(Step::Answered) } else { Err(gone()) };
                }
                stage @ (Stage::Read(_) | Stage::ReadShared(_)) => {
                    self.stage = stage;
                    return Ok(Step::Answered);
                }
                Stage::Queue => {
                    self.stage = Stage::Queue;
                    self.check(now)?;
                    let bell = self.bell.get_or_insert_default();
                    match self.pool.join(&self.request.url().origin, bell, now) {
                        Joined::Later => return Ok(Step::Wait),
                        Joined::Session(session) => {
                            if self.trial == Trial::First {
                                self.trial = Trial::Reused;
                            }
                            self.stage = self.ask_shared(session)?;
                        }
                        Joined::Connect(turn) => {
                            self.turn = turn;
                            self.stage = Stage::Resolve;
                        }
                    }
                }
                Stage::Resolve => {
                    self.stage = Stage::Resolve;
                    self.check(now)?;
                    let server = self.first();
                    let Some(address) = server.address() else {
                        return Ok(Step::Resolve(server.host.clone(), server.port));
                    };
                    let addresses = vec![SocketAddr::new(address, server.port)];
                    self.resolved(addresses, now);
                }
                Stage::Connect(mut race) => {
                    let socket = race.step(now).map_err(|error| self.unconnected(&reason(&error)))?;
                    let Some(socket) = socket else {
                        self.stage = Stage::Connect(race);
                        self.check(now)?;
                        return Ok(Step::Wait);
                    };
                    self.line.set(Some(Held::All(socket.clone())));
                    self.stage = self.connected(Link::new(socket), now)?;
                }
                Stage::Greet(mut link, mut greeting) => {
                    let Some(proxy) = &self.pool.route.proxy else { continue };
                    // First TLS to the proxy itself, if it wants that.
                    let outcome = match link.handshake() {
                        Ok(()) => greeting.go_on(&mut link, proxy, &self.request.url().origin),
                        Err(fault) => Err(fault.into()),
                    };
                    match outcome {
                        Ok(()) if self.request.url().origin.tls => {
                            let host = &self.request.url().origin.host;
                            link.secure(self.pool.route.trust.connect(host, self.bell.is_some())?);
                            self.stage = Stage::Secure(link);
                        }
                        Ok(()) => self.stage = self.stood(link, now)?,
                        Err(Refusal::Fault(fault)) if fault.would_block() => {
                            self.stage = Stage::Greet(link, greeting);
                            self.check(now)?;
                            return Ok(Step::Wait);
                        }
                        Err(Refusal::Fault(fault)) => return Err(Self::unsecured(fault, self.first())),
                        Err(Refusal::Error(error)) => return Err(error),
                    }
                }
                Stage::Secure(mut link) => match link.handshake() {
                    Ok(()) => self.stage = self.stood(link, now)?,
                    Err(fault) if fault.would_block() => {
                        self.stage = Stage::Secure(link);
                        self.check(now)?;
                        return Ok(Step::Wait);
                    }
                    Err(fault) => return Err(Self::unsecured(fault, &self.request.url().origin)),
                },
                Stage::AskShared(mut exchange) => match exchange.head() {
                    Ok(Some(head)) => {
                        self.clocks.seen = now;
                        self.coding_of(&head)?;
                        self.head = Some(head);
                        self.stage = Stage::ReadShared(exchange);
                        return Ok(Step::Answered);
                    }
                    Ok(None) => {
                        self.stage = Stage::AskShared(exchange);
                        self.check(now)?;
                        return Ok(Step::Wait);
                    }
                    // Never seen by the server, by its own word or as far as anybody can tell: once more.
                    Err(error) if self.trial.may_end_so(&error) => {
                        drop(exchange);
                        self.line.set(None);
                        self.trial = Trial::Again;
                        self.stage = Stage::Queue;
                    }
                    Err(error) => return Err(exchange.unanswered(&error, &self.request.url().origin)),
                },
                Stage::Ask(mut link) => match self.ask(&mut link) {
                    Ok(true) => {
                        self.clocks.seen = now;
                        self.stage = Stage::Read(link);
                        self.settle();
                        return Ok(Step::Answered);
                    }
                    Ok(false) => {
                        self.stage = Stage::Ask(link);
                        self.check(now)?;
                        return Ok(Step::Wait);
                    }
                    // A connection from the pool that the server closed before it saw this request, as far as anybody
                    // can tell: not a byte of a response came. Once more, on a connection of its own.
                    Err(Unanswered::Closed(_)) if self.trial == Trial::Reused && self.carry.is_empty() => {
                        drop(link);
                        self.line.set(None);
                        self.trial = Trial::Again;
                        self.sent = 0;
                        self.stage = Stage::Resolve;
                    }
                    Err(Unanswered::Closed(reason)) => {
                        let message =
                            format!("{} closed the connection without an answer: {reason}", self.request.url().origin);
                        return Err(Error::new(Kind::Cut, message));
                    }
                    Err(Unanswered::Error(error)) => return Err(error),
                },
            }
        }
    }

    /// The stage after a connection stands.
    fn connected(&mut self, mut link: Link, now: Instant) -> Result<Stage, Error> {
        let (origin, trust) = (&self.request.url().origin, &self.pool.route.trust);
        match &self.pool.route.proxy {
            Some(proxy) => {
                if proxy.server.tls {
                    link.secure(trust.connect(&proxy.server.host, false)?);
                }
                Ok(if proxy.relays(origin) {
                    Stage::Secure(link)
                } else {
                    Stage::Greet(link, Greeting::new(proxy, origin))
                })
            }
            None if origin.tls => {
                link.secure(trust.connect(&origin.host, self.bell.is_some())?);
                Ok(Stage::Secure(link))
            }
            None => self.stood(link, now),
        }
    }

    fn unconnected(&self, why: &str) -> Error {
        let server = self.first();
        let what = if self.pool.route.proxy.is_some() { "no connection to the proxy" } else { "no connection to" };
        Error::new(Kind::Connect, format!("{what} {server}: {why}"))
    }

    fn unsecured(fault: Fault, server: &Origin) -> Error {
        match fault {
            Fault::Tls(error) => tls::failure(&error, server),
            Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::new(Kind::Connect, format!("no connection to {server}: it was closed during the TLS handshake"))
            }
            Fault::Io(error) => Error::new(Kind::Connect, format!("no connection to {server}: {}", reason(&error))),
        }
    }

    /// Sends, and listens meanwhile: a server may answer before it has heard everything. True when the head is there.
    fn ask(&mut self, link: &mut Link) -> Result<bool, Unanswered> {
        let mut broken = None;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match link.write(rest) {
                Ok(count) => self.sent += count,
                Err(fault) if fault.would_block() => break,
                Err(fault) => {
                    // It stopped listening; it may have said why.
                    broken = Some(fault.into_io());
                    break;
                }
            }
        }
        if broken.is_none()
            && let Err(fault) = link.flush()
        {
            broken = Some(fault.into_io());
        }
        loop {
            let outcome = HEAD.with_borrow_mut(|buffer| {
                let outcome = link.read(buffer);
                let count = *outcome.as_ref().unwrap_or(&0);
                self.carry.extend_from_slice(buffer.get(..count).unwrap_or_default());
                outcome
            });
            match outcome {
                Ok(0) => return Err(Unanswered::Closed(broken.map_or_else(|| "it ended".to_owned(), |e| reason(&e)))),
                Ok(count) => self.full = count == HEAD_READ,
                Err(fault) if fault.would_block() => {
                    return match broken {
                        Some(error) => Err(Unanswered::Closed(reason(&error))),
                        None => Ok(false),
                    };
                }
                // Who wants a client's certificate says so after the handshake (RFC 8446, section 6.2).
                Err(Fault::Tls(error)) if self.trial != Trial::Reused && self.carry.is_empty() => {
                    return Err(Unanswered::Error(tls::failure(&error, &self.request.url().origin)));
                }
                Err(fault) => return Err(Unanswered::Closed(reason(&fault.into_io()))),
            }
            while let Some((head, length)) = Head::parse(&self.carry).map_err(Unanswered::Error)? {
                self.carry.drain(..length);
                if head.status == 101 {
                    let message = "the server switches protocols (status 101), unasked";
                    return Err(Unanswered::Error(Error::new(Kind::Malformed, message)));
                }
                if head.status < 200 {
                    continue; // a word in between (RFC 9110, section 15.2)
                }
                self.framing = Framing::of(&head, self.request.method()).map_err(Unanswered::Error)?;
                if !self.framing.is_over() {
                    self.coding_of(&head).map_err(Unanswered::Error)?;
                }
                self.head = Some(head);
                return Ok(true);
            }
            if self.carry.len() > MAX_HEAD {
                let message = format!("the response's head is over {MAX_HEAD} bytes");
                return Err(Unanswered::Error(Error::new(Kind::Malformed, message)));
            }
        }
    }

    fn coding_of(&mut self, head: &Head) -> Result<(), Error> {
        if self.decodes {
            self.coding = Coding::of(&head.get("content-encoding").unwrap_or_default())?;
        }
        Ok(())
    }

    /// Gives the connection back if this response has come to its end, and forgets the request.
    fn settle(&mut self) {
        if !self.framing.is_over() {
            return;
        }
        self.line.set(None);
        let unblocked = self.unblock().is_ok();
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Read(link) = stage else { return };
        let persistent = unblocked && self.head.as_ref().is_some_and(|head| head.persistent);
        // What came behind the end of the body was not asked for.
        if persistent && self.sent == self.bytes.len() && self.carry.is_empty() {
            self.pool.give(&self.request.url().origin, link, self.clocks.seen);
        }
        self.carry = Vec::new();
    }

    /// The next bytes of the body, read into `scratch`.
    pub fn read<'a>(&'a mut self, scratch: &'a mut [u8]) -> Result<Body<'a>, Error> {
        // Coded or not is settled by the head: the loop of the common case knows nothing of it.
        if self.coding.is_some() {
            return self.read_coded(scratch);
        }
        match self.receive(scratch) {
            Ok(Received::Data(length)) => Ok(Body::Data(scratch.get(..length).unwrap_or_default())),
            Ok(Received::Wait) => Ok(Body::Wait),
            Ok(Received::End) => Ok(Body::End),
            Err(error) => {
                self.abort();
                Err(error)
            }
        }
    }

    /// Not inlined: what the decoders need of the stack, 53 KB, every read of the common case would touch too.
    #[inline(never)]
    fn read_coded(&mut self, scratch: &mut [u8]) -> Result<Body<'_>, Error> {
        self.plain.clear();
        loop {
            let Some(coding) = &mut self.coding else { return Ok(Body::End) };
            if !self.coded.is_empty() {
                let used = match coding.decode(&self.coded, &mut self.plain) {
                    Ok(used) => used,
                    Err(error) => {
                        self.abort();
                        return Err(error);
                    }
                };
                self.coded.drain(..used);
                if !self.plain.is_empty() {
                    return Ok(Body::Data(&self.plain));
                }
                continue;
            }
            match self.receive(scratch) {
                Ok(Received::Data(length)) => self.coded.extend_from_slice(scratch.get(..length).unwrap_or_default()),
                Ok(Received::Wait) => return Ok(Body::Wait),
                Ok(Received::End) => {
                    self.coding.as_mut().map_or(Ok(()), Coding::finish)?;
                    return Ok(Body::End);
                }
                Err(error) => {
                    self.abort();
                    return Err(error);
                }
            }
        }
    }

    /// One read, unframed.
    fn receive(&mut self, scratch: &mut [u8]) -> Result<Received, Error> {
        loop {
            let Stage::Read(link) = &mut self.stage else { return self.receive_shared(scratch) };
            let count = if self.carry.is_empty() {
                match link.read(scratch) {
                    Ok(0) => return self.ended("it ended").map(|()| Received::End),
                    Ok(count) => {
                        self.full = count == scratch.len();
                        count
                    }
                    Err(fault) if fault.is_nothing_yet() => {
                        self.full = false;
                        self.check(Instant::now())?;
                        return Ok(Received::Wait);
                    }
                    Err(fault) => return Err(Error::cut(&fault.into_io(), "in the middle of the response")),
                }
            } else {
                let count = self.carry.len().min(scratch.len());
                let (Some(from), Some(into)) = (self.carry.get(..count), scratch.get_mut(..count)) else {
                    return Ok(Received::Wait);
                };
                into.copy_from_slice(from);
                self.carry.drain(..count);
                count
            };
            let taken = self.framing.take(scratch.get_mut(..count).unwrap_or_default())?;
            let now = Instant::now();
            self.clocks.seen = now;
            if taken.over {
                self.carry.extend_from_slice(scratch.get(taken.used..count).unwrap_or_default());
                self.settle();
            } else {
                self.check(now)?;
            }
            if taken.content > 0 {
                return Ok(Received::Data(taken.content));
            }
        }
    }

    /// The same on a connection that others share.
    fn receive_shared(&mut self, scratch: &mut [u8]) -> Result<Received, Error> {
        let Stage::ReadShared(exchange) = &mut self.stage else { return Ok(Received::End) };
        let received =
            exchange.read(scratch).map_err(|error| http2::failure(&error, &self.request.url().origin, true))?;
        let over = exchange.is_over();
        let now = Instant::now();
        if received.is_some() {
            self.clocks.seen = now;
        }
        if over {
            self.abort(); // nothing is left of it
        } else {
            self.check(now)?;
        }
        Ok(match received {
            None => Received::Wait,
            Some(0) => Received::End,
            Some(count) => Received::Data(count),
        })
    }

    /// The server closed the connection.
    fn ended(&mut self, how: &str) -> Result<(), Error> {
        if matches!(self.framing, Framing::UntilClose) {
            self.abort();
            return Ok(());
        }
        let message =
            format!("{} closed the connection in the middle of the response: {how}", self.request.url().origin);
        Err(Error::new(Kind::Cut, message))
    }
}

enum Received {
    Data(usize),
    Wait,
    End,
}

/// Why there is no answer.
enum Unanswered {
    /// The connection was closed.
    Closed(String),
    Error(Error),
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
