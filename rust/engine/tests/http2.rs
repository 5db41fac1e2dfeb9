//! HTTP/2: streams that share a connection, whoever reads it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{LONG, Said, answered, ask, authority, body, settle, transfer};
use h2::server::{Builder, SendResponse};
use h2::{Reason, SendStream};
use http::{Request, Response};
use penstock_engine::error::{Error, Kind};
use penstock_engine::pool::{Http2, Pool, Route};
use penstock_engine::proxy::Proxy;
use penstock_engine::tls::Trust;
use penstock_engine::transfer::{Body, Step, Transfer};
use penstock_engine::wait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A server whose paths say what it does. It ends with the test.
struct Server {
    port: u16,
    seen: Arc<Seen>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    /// Streams of one connection at once, at most.
    most: AtomicUsize,
    sent: AtomicUsize,
    refusals: AtomicUsize,
    log: Mutex<Vec<String>>,
}

impl Seen {
    fn log(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
    }

    fn has(&self, line: &str) -> bool {
        self.log.lock().unwrap().iter().any(|seen| seen == line)
    }
}

impl Server {
    fn start(limit: Option<u32>, tls: Option<&[&[u8]]>) -> Self {
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = tls.map(|protocols| {
            let mut config = (*authority().server(Said::default())).clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            tokio_rustls::TlsAcceptor::from(Arc::new(config))
        });
        let (told, ends) = (seen.clone(), stop.clone());
        let run = async move {
            loop {
                let (socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = ends.notified() => return,
                };
                socket.set_nodelay(true).unwrap();
                told.connections.fetch_add(1, Ordering::SeqCst);
                let (told, acceptor) = (told.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(socket, limit, told).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(socket).await {
                                let spoken = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
                                told.log(String::from_utf8(spoken.clone()).unwrap());
                                if spoken == b"h2" { serve(stream, limit, told).await } else { old(stream).await }
                            }
                        }
                    }
                });
            }
        };
        Self { port, seen, stop, thread: Some(std::thread::spawn(move || runtime.block_on(run))) }
    }

    fn known(limit: Option<u32>) -> Self {
        Self::start(limit, None)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until the server has seen this.
    fn sees(&self, line: &str) {
        let until = Instant::now() + LONG;
        while !self.seen.has(line) {
            assert!(Instant::now() < until, "{line:?} is not in {:?}", self.seen.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.notify_one();
        let joined = self.thread.take().unwrap().join();
        assert!(joined.is_ok() || std::thread::panicking());
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, limit: Option<u32>, seen: Arc<Seen>) {
    let mut builder = Builder::new();
    builder.initial_window_size(20_000).max_send_buffer_size(1 << 20);
    if let Some(limit) = limit {
        builder.max_concurrent_streams(limit);
    }
    let mut connection = builder.handshake::<_, Bytes>(socket).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let (active, farewell) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    loop {
        let (request, respond) = tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok(accepted)) => accepted,
                _ => return,
            },
            () = farewell.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        match request.uri().path() {
            "/cut" => {
                let mut respond = respond;
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data("Hel".into(), false).unwrap();
                let _ = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
                return; // and with it the connection
            }
            "/gone" => return connection.abrupt_shutdown(Reason::NO_ERROR),
            "/ping" => {
                let pong = pings.ping(h2::Ping::opaque());
                let mut pong = std::pin::pin!(pong);
                tokio::select! {
                    pong = &mut pong => { pong.unwrap(); }
                    _ = connection.accept() => {}
                }
                seen.log("pong");
                let mut respond = respond;
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data("Hello".into(), true).unwrap();
            }
            _ => {
                let now = active.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most.fetch_max(now, Ordering::SeqCst);
                let (seen, active, farewell) = (seen.clone(), active.clone(), farewell.clone());
                tokio::spawn(async move {
                    handle(request, respond, &seen, &farewell).await;
                    active.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
}

async fn handle(mut request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, seen: &Seen, bye: &Notify) {
    let path = request.uri().path().to_owned();
    if path == "/early" {
        let head = Response::builder().status(413).body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data("no".into(), true).unwrap();
        return;
    }
    if path == "/reset" {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    }
    if path == "/old" {
        return respond.send_reset(Reason::HTTP_1_1_REQUIRED);
    }
    if path == "/refuse" || (path == "/refuse-once" && seen.refusals.fetch_add(1, Ordering::SeqCst) == 0) {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let mut length = 0;
    while let Some(Ok(data)) = request.body_mut().data().await {
        length += data.len();
        request.body_mut().flow_control().release_capacity(data.len()).unwrap();
    }
    let described = format!("{} {} {length}", request.method(), request.uri());
    seen.log(described);
    if path == "/headers" {
        for (name, value) in request.headers() {
            seen.log(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    if path == "/late" {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let head = Response::builder().header("x-name", "v\u{e9}").header("set-cookie", "a").header("set-cookie", "b");
    // Whoever has gone has gone.
    let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), path == "/empty") else { return };
    match path.as_str() {
        "/empty" => {}
        "/hold" => {
            stream.send_data("He".into(), false).unwrap();
            let reset = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            if let Ok(reason) = reset {
                seen.log(format!("reset {reason:?}"));
            }
        }
        "/half" => {
            stream.send_data("Hel".into(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "/flood" => {
            let mut left = 1 << 20;
            while left > 0 {
                left -= send_some(&mut stream, left, seen).await;
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
        "/drip" => {
            for byte in b"Hello" {
                tokio::time::sleep(Duration::from_millis(2)).await;
                stream.send_data(Bytes::copy_from_slice(&[*byte]), false).unwrap();
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-last", "1".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
        "/goodbye" => {
            bye.notify_one();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_data("Hello".into(), true).unwrap();
        }
        _ => stream.send_data("Hello".into(), true).unwrap(),
    }
}

async fn send_some(stream: &mut SendStream<Bytes>, left: usize, seen: &Seen) -> usize {
    stream.reserve_capacity(left.min(10_000));
    match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
        Some(Ok(room)) => {
            let size = room.min(left);
            stream.send_data(Bytes::from(vec![b'x'; size]), false).unwrap();
            seen.sent.fetch_add(size, Ordering::SeqCst);
            size
        }
        _ => left,
    }
}

/// A server of HTTP/1.1, for those who chose it.
async fn old(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut heard = Vec::new();
    while let Ok(count) = stream.read_buf(&mut heard).await
        && count > 0
    {
        if heard.ends_with(b"{}") {
            heard.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello").await.unwrap();
        }
    }
}

fn pool() -> Arc<Pool> {
    Arc::new(Pool::speaking(Route { proxy: None, trust: Arc::new(Trust::platform()) }, Http2::Known))
}

fn within_tls() -> Arc<Pool> {
    Arc::new(Pool::speaking(Route { proxy: None, trust: Arc::new(authority().trust()) }, Http2::Negotiated))
}

fn hello(pool: &Arc<Pool>, server: &Server, path: &str) {
    assert_eq!(ask(pool, &server.url(path)).unwrap(), b"Hello");
}

/// Drives a transfer to its head without waiting for anything but a moment.
fn begun(pool: &Arc<Pool>, server: &Server, path: &str) -> Transfer {
    let mut transfer = transfer(pool, &server.url(path), b"{}");
    answered(&mut transfer).unwrap();
    transfer
}

/// What there is, after a moment.
fn some(transfer: &mut Transfer) -> Result<usize, Error> {
    let (mut count, mut scratch) = (0, [0; 5000]);
    loop {
        match transfer.read(&mut scratch)? {
            Body::Data(data) => count += data.len(),
            Body::End => return Ok(count),
            Body::Wait => {
                let soon = Instant::now() + Duration::from_millis(50);
                if transfer.wants().is_empty() || !wait::wait(&transfer.wants(), Some(soon)).unwrap() {
                    return Ok(count);
                }
            }
        }
    }
}

// Requests and responses

#[test]
fn a_request_and_its_response() {
    let server = Server::known(None);
    let pool = pool();
    let url = penstock_engine::url::Url::parse(&server.url("/headers?q=1")).unwrap();
    let headers = [("X-Mixed", "caf\u{e9}"), ("Connection", "close"), ("Host", "other.example"), ("TE", "trailers")];
    let headers: Vec<_> = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let request = penstock_engine::request::Request::new("PUT", url, headers, b"abc".to_vec()).unwrap();
    let mut transfer = Transfer::new(pool.clone(), request, true);
    assert_eq!(answered(&mut transfer).unwrap(), 200);
    let head = transfer.head().unwrap().clone();
    assert_eq!((head.version, head.reason.as_str()), ("HTTP/2", ""));
    let values = |name: &str| -> Vec<_> {
        head.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(values("x-name"), ["v\u{c3}\u{a9}"]); // Latin-1, as with HTTP/1.1
    assert_eq!(values("set-cookie"), ["a", "b"]);
    assert_eq!(body(&mut transfer), (b"Hello".to_vec(), Ok(())));
    assert!(transfer.is_over() && transfer.wants().is_empty());
    assert!(server.seen.has("PUT http://other.example/headers?q=1 3"), "{:?}", server.seen.log);
    for line in ["x-mixed: caf\u{e9}", "te: trailers", "content-length: 3", "accept-encoding: gzip, deflate, br, zstd"]
    {
        assert!(server.seen.has(line), "{line}");
    }
    assert!(!server.seen.has("connection: close"));
    assert_eq!(pool.len(), 1);
}

#[test]
fn a_connection_is_used_again_and_trailers_are_passed_over() {
    let server = Server::known(None);
    let pool = pool();
    for _ in 0..3 {
        hello(&pool, &server, "/drip");
        assert_eq!(ask(&pool, &server.url("/empty")).unwrap(), b"");
        assert_eq!(pool.len(), 1);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn within_tls_the_server_chooses() {
    for (protocols, chosen) in [(&[&b"h2"[..], b"http/1.1"][..], "h2"), (&[b"http/1.1"], "http/1.1"), (&[], "")] {
        let server = Server::start(None, Some(protocols));
        let (pool, url) = (within_tls(), server.url("/").replace("http", "https"));
        for _ in 0..2 {
            let mut transfer = transfer(&pool, &url, b"{}");
            answered(&mut transfer).unwrap();
            assert_eq!(transfer.head().unwrap().version, if chosen == "h2" { "HTTP/2" } else { "HTTP/1.1" });
            assert_eq!(body(&mut transfer).0, b"Hello");
        }
        assert_eq!(*server.seen.log.lock().unwrap().first().unwrap(), chosen);
        assert_eq!(server.connections(), 1);
        // Unasked it is not offered.
        let mut transfer = transfer(&common::trusting(authority().trust()), &url, b"{}");
        answered(&mut transfer).unwrap();
        assert_eq!(transfer.head().unwrap().version, "HTTP/1.1");
    }
}

#[test]
fn a_long_request_is_sent_as_the_server_has_room() {
    let server = Server::known(None);
    let mut transfer = transfer(&pool(), &server.url("/"), &vec![b'x'; 3 << 20]);
    assert_eq!(answered(&mut transfer).unwrap(), 200);
    assert_eq!(body(&mut transfer).0, b"Hello");
    assert!(server.seen.has(&format!("POST {} 3145728", server.url("/"))));
}

#[test]
fn an_answer_before_the_request_is_all_sent() {
    let server = Server::known(None);
    let pool = pool();
    let mut transfer = transfer(&pool, &server.url("/early"), &vec![b'x'; 3 << 20]);
    assert_eq!(answered(&mut transfer).unwrap(), 413);
    assert_eq!(body(&mut transfer), (b"no".to_vec(), Ok(())));
    hello(&pool, &server, "/"); // and the connection is none the worse
    assert_eq!(server.connections(), 1);
}

// Streams that share a connection

#[test]
fn threads_share_a_connection() {
    for limit in [None, Some(4), Some(1)] {
        let server = Arc::new(Server::known(limit));
        let pool = pool();
        let threads: Vec<_> = (0..12)
            .map(|_| {
                let (server, pool) = (server.clone(), pool.clone());
                std::thread::spawn(move || {
                    for _ in 0..20 {
                        hello(&pool, &server, "/drip");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let (most, limit) = (server.seen.most.load(Ordering::SeqCst), limit.unwrap_or(12) as usize);
        assert!(most <= limit, "{most} at once");
        assert!(server.connections() <= 12usize.div_ceil(limit) + 2, "{} connections", server.connections());
    }
}

#[test]
fn a_full_connection_gets_company() {
    let server = Server::known(Some(3));
    let pool = pool();
    let held: Vec<_> = (0..10).map(|_| begun(&pool, &server, "/hold")).collect();
    assert_eq!((server.connections(), server.seen.most.load(Ordering::SeqCst)), (4, 3));
    drop(held);
    hello(&pool, &server, "/");
    assert_eq!((server.connections(), pool.len()), (4, 4));
}

#[test]
fn those_who_come_while_one_connects_wait_for_it() {
    let server = Server::known(None);
    let pool = pool();
    let mut transfers: Vec<_> = (0..30).map(|_| transfer(&pool, &server.url("/drip"), b"{}")).collect();
    let rung = Arc::new(AtomicUsize::new(0));
    for transfer in &mut transfers {
        let rung = rung.clone();
        transfer.on_ring(move || _ = rung.fetch_add(1, Ordering::SeqCst));
        assert_eq!(transfer.advance(Instant::now()).unwrap(), Step::Wait);
    }
    let want = |transfer: &Transfer| transfer.wants().len();
    assert_eq!((want(&transfers[0]), want(&transfers[1]), want(&transfers[29])), (1, 0, 0));
    answered(&mut transfers[0]).unwrap();
    assert_eq!(rung.load(Ordering::SeqCst), 29); // the server has said how many there may be
    for transfer in &mut transfers {
        assert_eq!(answered(transfer).unwrap(), 200);
    }
    for transfer in &mut transfers {
        assert_eq!(body(transfer).0, b"Hello");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn whoever_cannot_connect_leaves_the_turn_to_the_next() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let pool = pool();
    let mut transfers: Vec<_> = (0..3).map(|_| transfer(&pool, &url, b"{}")).collect();
    let steps: Vec<_> = transfers.iter_mut().map(|transfer| transfer.advance(Instant::now()).unwrap()).collect();
    assert!(matches!(&steps[..], [Step::Resolve(..), Step::Wait, Step::Wait]));
    transfers[0].resolved(vec![], Instant::now());
    assert_eq!(transfers[0].advance(Instant::now()).unwrap_err().kind, Kind::Connect);
    assert!(matches!(transfers[1].advance(Instant::now()).unwrap(), Step::Resolve(..)));
    transfers[1].abort();
    assert!(matches!(transfers[2].advance(Instant::now()).unwrap(), Step::Resolve(..)));
    // Who waits for another has no more time than if it connected itself.
    let mut late = transfer(&pool, &url, b"");
    late.clocks.connect = Some(Instant::now() + Duration::from_secs(1));
    assert_eq!(late.advance(Instant::now()).unwrap(), Step::Wait);
    assert_eq!(late.deadline(), late.clocks.connect);
    let error = late.advance(late.clocks.connect.unwrap()).unwrap_err();
    assert_eq!(error.kind, Kind::ConnectTime);
}

#[test]
fn one_watches_for_all_and_another_after_it() {
    let server = Server::known(None);
    let pool = pool();
    let mut held: Vec<_> = (0..3).map(|_| begun(&pool, &server, "/hold")).collect();
    let rung = Arc::new(AtomicUsize::new(0));
    for transfer in &mut held {
        let rung = rung.clone();
        transfer.on_ring(move || _ = rung.fetch_add(1, Ordering::SeqCst));
        assert!(transfer.is_shared());
        while some(transfer).unwrap() == 0 {}
    }
    let wants = |held: &[Transfer]| held.iter().map(|transfer| transfer.wants().len()).collect::<Vec<_>>();
    let first = wants(&held);
    assert_eq!(first.iter().sum::<usize>(), 1, "{first:?}");
    // It goes on with what is not about this connection: another has to watch.
    let watcher = first.iter().position(|count| *count == 1).unwrap();
    let before = rung.load(Ordering::SeqCst);
    held[watcher].rest();
    assert_eq!(rung.load(Ordering::SeqCst), before + 1);
    held.swap(0, watcher);
    assert_eq!(held[1].wants().len() + held[2].wants().len(), 1);
    assert!(held[0].wants().is_empty());
    // It is dropped: the same.
    let watcher = if held[1].wants().is_empty() { 2 } else { 1 };
    drop(held.remove(watcher));
    assert_eq!(wants(&held).iter().sum::<usize>(), 1);
    server.sees("reset CANCEL");
}

#[test]
fn what_comes_for_another_rings_for_it() {
    let server = Server::known(None);
    let pool = pool();
    let (mut one, mut other) = (begun(&pool, &server, "/hold"), begun(&pool, &server, "/hold"));
    while some(&mut one).unwrap() == 0 {}
    let mut third = transfer(&pool, &server.url("/late"), b"{}");
    let rung = Arc::new(AtomicUsize::new(0));
    let counter = rung.clone();
    third.on_ring(move || _ = counter.fetch_add(1, Ordering::SeqCst));
    assert_eq!(settle(&mut third).unwrap(), Step::Wait);
    let until = Instant::now() + LONG;
    while rung.load(Ordering::SeqCst) == 0 && Instant::now() < until {
        // The first drives, whatever it is that comes.
        assert_eq!(some(&mut one).unwrap(), 0);
    }
    assert_eq!(settle(&mut third).unwrap(), Step::Answered);
    assert_eq!(body(&mut third).0, b"Hello");
    while some(&mut other).unwrap() == 0 {}
}

#[test]
fn whoever_waits_is_rung_for_though_it_did_not_look_again() {
    let server = Server::known(None);
    let pool = pool();
    let mut watcher = begun(&pool, &server, "/hold");
    while some(&mut watcher).unwrap() == 0 {}
    assert_eq!(watcher.wants().len(), 1);
    let mut other = begun(&pool, &server, "/drip");
    let rung = Arc::new(AtomicUsize::new(0));
    let counter = rung.clone();
    other.on_ring(move || _ = counter.fetch_add(1, Ordering::SeqCst));
    let mut whole = Vec::new();
    let until = Instant::now() + LONG;
    while !other.is_over() && Instant::now() < until {
        // As a driver does: nothing is pending, and it waits for what is to be watched, which is nothing.
        while other.is_pending() && !other.is_over() {
            if let Body::Data(data) = other.read(&mut [0; 100]).unwrap() {
                whole.extend_from_slice(data);
            }
        }
        assert!(other.wants().is_empty());
        let before = rung.load(Ordering::SeqCst);
        while !other.is_over() && rung.load(Ordering::SeqCst) == before && Instant::now() < until {
            some(&mut watcher).unwrap();
        }
    }
    assert_eq!(whole, b"Hello");
}

#[test]
fn a_slow_reader_holds_up_its_own_stream_alone() {
    let server = Server::known(None);
    let pool = pool();
    let mut slow = begun(&pool, &server, "/flood");
    for _ in 0..10 {
        hello(&pool, &server, "/drip");
    }
    let sent = server.seen.sent.load(Ordering::SeqCst);
    assert_eq!(sent, 64 << 10);
    let (data, end) = body(&mut slow);
    assert_eq!((data.len(), end), (1 << 20, Ok(())));
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_is_given_up_is_reset_and_nothing_else() {
    let server = Server::known(None);
    let pool = pool();
    let mut kept = begun(&pool, &server, "/flood");
    for way in 0..3 {
        let mut other = begun(&pool, &server, "/hold");
        match way {
            0 => drop(other),
            1 => other.abort(),
            _ => {
                let line = other.line();
                let shutting = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    line.shut();
                });
                let error = body(&mut other).1.unwrap_err();
                assert_eq!((error.kind, error.message.as_str()), (Kind::Cut, "the request was given up"));
                shutting.join().unwrap();
            }
        }
        server.sees("reset CANCEL");
        server.seen.log.lock().unwrap().clear();
    }
    assert_eq!(body(&mut kept).0.len(), 1 << 20);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_storm_of_given_up_streams() {
    let server = Server::known(None);
    let pool = pool();
    let mut kept = begun(&pool, &server, "/hold");
    for turn in 0..3000 {
        let mut other = transfer(&pool, &server.url(if turn % 3 == 0 { "/flood" } else { "/hold" }), b"{}");
        if turn % 2 == 0 {
            other.advance(Instant::now()).unwrap();
        } else {
            answered(&mut other).unwrap();
        }
    }
    while some(&mut kept).unwrap() == 0 {}
    hello(&pool, &server, "/");
    assert_eq!(server.connections(), 1);
}

#[test]
fn pings_are_answered_by_whoever_waits() {
    let server = Server::known(None);
    hello(&pool(), &server, "/ping");
    server.sees("pong");
}

// Ends

/// What comes of asking for this path.
fn failure(server: &Server, path: &str) -> (Kind, String) {
    let error = ask(&pool(), &server.url(path)).unwrap_err();
    let place = format!("127.0.0.1:{}", server.port);
    (error.kind, error.message.replace(&place, "PLACE"))
}

#[test]
fn streams_that_the_server_ends() {
    let server = Server::known(None);
    let cut = |words: &str| (Kind::Cut, words.to_owned());
    let unexpected = "unexpected internal error encountered";
    assert_eq!(failure(&server, "/reset"), cut(&format!("PLACE ended the stream without an answer: {unexpected}")));
    let middle = "in the middle of the response";
    assert_eq!(failure(&server, "/half"), cut(&format!("PLACE ended the stream {middle}: {unexpected}")));
    assert_eq!(failure(&server, "/old"), cut("PLACE wants HTTP/1.1 for this: leave http2 out"));
    let refused = "refused stream before processing any application logic";
    assert_eq!(failure(&server, "/refuse"), cut(&format!("PLACE ended the stream without an answer: {refused}")));
    let pool = pool();
    hello(&pool, &server, "/refuse-once");
    let mut half = begun(&pool, &server, "/half");
    let (data, end) = body(&mut half);
    assert_eq!((data.as_slice(), end.is_err()), (&b"Hel"[..], true));
    hello(&pool, &server, "/");
}

#[test]
fn connections_that_the_server_ends() {
    let server = Server::known(None);
    let (kind, message) = failure(&server, "/cut");
    assert_eq!(kind, Kind::Cut);
    assert!(message.starts_with("PLACE closed the connection in the middle of the response: "), "{message}");
    // All streams on it end.
    let pool = pool();
    let mut held = begun(&pool, &server, "/hold");
    assert!(ask(&pool, &server.url("/cut")).is_err());
    let (_, end) = body(&mut held);
    assert_eq!(end.unwrap_err().kind, Kind::Cut);
    hello(&pool, &server, "/");
}

#[test]
fn a_farewell_lets_streams_come_to_their_end() {
    let server = Server::known(None);
    let pool = pool();
    let mut leaving = begun(&pool, &server, "/goodbye");
    let met = server.connections();
    std::thread::sleep(Duration::from_millis(20));
    some(&mut leaving).unwrap_or_default(); // hears of it
    hello(&pool, &server, "/");
    assert_eq!(server.connections(), met + 1);
}

#[test]
fn a_connection_that_ended_meanwhile_is_replaced() {
    let server = Server::known(None);
    let pool = pool();
    hello(&pool, &server, "/");
    // The farewell tells that this request was not looked at, on the new connection too: once, and no more.
    let error = ask(&pool, &server.url("/gone")).unwrap_err();
    assert_eq!(error.kind, Kind::Cut);
    assert_eq!(server.connections(), 2);
    hello(&pool, &server, "/");
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_server_that_does_not_speak_it() {
    let server = common::Server::start(1, |_, mut peer| {
        peer.hear_bytes(24);
        peer.say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        peer.close();
    });
    let error = ask(&pool(), &server.url()).unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
    assert_eq!(error.message, format!("127.0.0.1:{} speaks no HTTP/2", server.port));
    server.done();
}

#[test]
fn proxies_that_tunnel_carry_it_and_those_that_relay_do_not() {
    let server = Server::known(None);
    let port = server.port;
    let socks = common::Server::start(1, move |_, mut peer| {
        peer.hear_bytes(3);
        peer.say(&[5, 0]);
        peer.hear_bytes(10);
        peer.say(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut there = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut back, mut here) = (there.try_clone().unwrap(), peer.socket.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut here));
        let _ = std::io::copy(&mut peer.stream, &mut there);
        there.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let through = |place: String| {
        let proxy = Some(Proxy::parse(&place).unwrap());
        Arc::new(Pool::speaking(Route { proxy, trust: Arc::new(Trust::platform()) }, Http2::Known))
    };
    hello(&through(format!("socks5://127.0.0.1:{}", socks.port)), &server, "/");
    socks.done();
    let relay = common::Server::start(1, |_, mut peer| {
        assert!(peer.hear().starts_with("POST http://far.example/ HTTP/1.1\r\n"));
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello");
    });
    let pool = through(format!("http://127.0.0.1:{}", relay.port));
    assert_eq!(ask(&pool, "http://far.example/").unwrap(), b"Hello");
    relay.done();
}

// Clocks

#[test]
fn time_runs_out() {
    let server = Server::known(None);
    let pool = pool();
    let mut held = begun(&pool, &server, "/hold");
    let mut late = transfer(&pool, &server.url("/late"), b"{}");
    late.clocks.due = Some(Instant::now() + Duration::from_millis(50));
    assert_eq!(answered(&mut late).unwrap_err().kind, Kind::DueTime);
    held.clocks.idle = Some(Duration::from_millis(100));
    let (data, end) = body(&mut held);
    assert_eq!((data.as_slice(), end.unwrap_err().kind), (&b"He"[..], Kind::IdleTime));
    server.sees("reset CANCEL");
    hello(&pool, &server, "/");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_closed_pool_shares_nothing() {
    let server = Server::known(None);
    let pool = pool();
    let mut held = begun(&pool, &server, "/drip");
    pool.close();
    assert_eq!(body(&mut held).0, b"Hello");
    hello(&pool, &server, "/");
    hello(&pool, &server, "/");
    assert_eq!((server.connections(), pool.len()), (3, 0));
}
