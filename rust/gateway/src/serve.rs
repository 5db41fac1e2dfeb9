//! Sockets in: threads, each with a runtime of its own, that share one listening socket.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::body::Reply;
use crate::patient::Patient;
use crate::route;
use crate::state::Shared;
use crate::upstream::duration;

/// Bytes that may wait for one slow client before its upstream is no longer read.
const BUFFER: usize = 64 << 10;

/// Bytes of it that the system may hold besides, beyond what is on its way to the client.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT: u32 = 128 << 10;

/// After an error of accept that lasts, such as no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// At the end, for whoever looks up a name: the system's resolver takes its time, and cannot be told to stop.
const RESOLVERS: Duration = Duration::from_millis(100);

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// What the threads are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    #[default]
    Serving,
    /// Requests are refused, on whatever connection.
    Draining,
    /// Connections close when their client has what it asked for.
    Closing,
    /// Everything ends.
    Over,
}

/// Threads that serve.
#[derive(Debug)]
pub(crate) struct Workers {
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
    pub(crate) address: SocketAddr,
}

impl Workers {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        listener: &TcpListener,
        count: usize,
        tls: Option<&TlsAcceptor>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut workers = Self { phase, threads: Vec::new(), address };
        for number in 0..count.max(1) {
            let (shared, listener, tls) = (Arc::clone(shared), listener.try_clone()?, tls.cloned());
            let phases = phases.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let work = move || {
                runtime.block_on(serve(shared, listener, tls, phases));
                runtime.shutdown_timeout(RESOLVERS);
            };
            workers.threads.push(thread::Builder::new().name(format!("penstock-{number}")).spawn(work)?);
        }
        Ok(workers)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// How many connections there are. Each hears of phases, as each thread does.
    pub(crate) fn connections(&self) -> usize {
        self.phase.receiver_count().saturating_sub(self.threads.len())
    }

    pub(crate) fn join(self) {
        self.enter(Phase::Over);
        for thread in self.threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut phases: watch::Receiver<Phase>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = phases.changed() => {
                if changed.is_err() || *phases.borrow() == Phase::Over {
                    return;
                }
                continue;
            }
        };
        match accepted {
            Ok((socket, _)) => {
                tune(&socket);
                // Boxed: tokio has room on the stack for twice the future in every poll of it.
                tokio::spawn(Box::pin(connection(Arc::clone(&shared), socket, tls.clone(), phases.clone())));
            }
            Err(error) if is_of_connection(&error) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Both are wishes: a system that does not grant them still serves.
fn tune(socket: &TcpStream) {
    // An event is sent when it is there, and does not wait for the acknowledgement of the one before.
    let _ = socket.set_nodelay(true);
    // By itself Linux would hold megabytes for a client that does not read.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT);
}

/// Whether an error of accept is about the one connection.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn connection(
    shared: Arc<Shared>,
    mut socket: TcpStream,
    tls: Option<TlsAcceptor>,
    mut phases: watch::Receiver<Phase>,
) {
    let patience = duration(shared.state.load().settings.head_seconds);
    let mut first = [0];
    match in_time(patience, &mut phases, socket.peek(&mut first)).await {
        Some(Ok(1)) => {}
        _ => return,
    }
    let shakes_hands = first == [HANDSHAKE];
    match tls {
        Some(tls) if shakes_hands => match in_time(patience, &mut phases, handshake(tls, socket)).await {
            Some(Ok(socket)) => requests(shared, socket, phases, patience).await,
            Some(Err(error)) => shared.log(&format!("a TLS handshake failed: {error}")),
            None => {}
        },
        None if !shakes_hands => requests(shared, socket, phases, patience).await,
        Some(_) => {
            shared.log("a client spoke plain HTTP to the TLS port: its URL must begin with https://");
            let told = "this port speaks TLS: the URL begins with https://\n";
            let response = format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{told}",
                told.len()
            );
            let _ = socket.write_all(response.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
        None => {
            shared.log("a client spoke TLS to the plain port: its URL must begin with http://, or give a certificate");
            // A fatal alert: unexpected message.
            let _ = socket.write_all(&[0x15, 3, 1, 0, 2, 2, 10]).await;
            let _ = socket.shutdown().await;
        }
    }
}

type Handshake = Pin<Box<dyn Future<Output = io::Result<Box<TlsStream<TcpStream>>>> + Send>>;

/// Boxed, as is what comes of it: both are large, and would be on the stack of whoever polls the connection.
fn handshake(tls: TlsAcceptor, socket: TcpStream) -> Handshake {
    Box::pin(async move { tls.accept(socket).await.map(Box::new) })
}

/// What comes of it. Whoever has asked for nothing is waited for no longer than so, and not when connections close.
async fn in_time<T>(
    patience: Option<Duration>,
    phases: &mut watch::Receiver<Phase>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let limited = tokio::time::timeout(patience.unwrap_or(Duration::MAX), work);
    tokio::select! {
        done = limited => done.ok(),
        _ = phases.wait_for(|phase| *phase >= Phase::Closing) => None,
    }
}

async fn requests(
    shared: Arc<Shared>,
    socket: impl AsyncRead + AsyncWrite + Unpin,
    mut phases: watch::Receiver<Phase>,
    patience: Option<Duration>,
) {
    let mut connection = speak(shared, socket, patience);
    loop {
        tokio::select! {
            // A client that breaks off is no news.
            _ = connection.as_mut() => return,
            changed = phases.changed() => match *phases.borrow_and_update() {
                _ if changed.is_err() => return,
                Phase::Over => return,
                // While requests are refused the connections stay: who asks is told, and health checks too.
                Phase::Serving | Phase::Draining => {}
                // What is under way is polled again, and may find that it has to end.
                Phase::Closing => connection.as_mut().graceful_shutdown(),
            },
        }
    }
}

/// Answers the requests of a connection.
struct Requests {
    shared: Arc<Shared>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Reply>, Infallible>> + Send>>;

    /// Boxed, and not inlined: the future is large, and would be on the stack of whoever polls the connection.
    #[inline(never)]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(route::answer(shared, request).await) })
    }
}

/// HTTP on this socket. What this takes of the stack is not taken again whenever something comes.
#[inline(never)]
fn speak<T: AsyncRead + AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    socket: T,
    patience: Option<Duration>,
) -> Pin<Box<http1::Connection<TokioIo<Patient<T>>, Requests>>> {
    let state = shared.state.load();
    let (max_head, send) = (state.settings.max_head, duration(state.settings.send_seconds));
    drop(state);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // What no clock can tell is no limit.
        .header_read_timeout(patience.filter(|patience| Instant::now().checked_add(*patience).is_some()))
        .max_buf_size(BUFFER.max(max_head))
        // An event with its framing is three small pieces: to copy them together is less than to send them apart.
        .writev(false)
        .serve_connection(TokioIo::new(Patient::new(socket, send)), Requests { shared });
    Box::pin(connection)
}
