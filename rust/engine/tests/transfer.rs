//! One request and its response over plain sockets: its stages, its ends, its clocks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{Ends, LONG, Server, answered, ask, body, direct, settle, transfer};
use penstock_engine::error::{Error, Kind};
use penstock_engine::request::Request;
use penstock_engine::transfer::{Body, Step, Transfer};
use penstock_engine::url::Url;
use penstock_engine::wait;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello";
const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nHe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: \
    x\r\n\r\n";
const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nHello";

#[allow(clippy::unnecessary_wraps, reason = "as clocks have it")]
fn at(seconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(seconds))
}

fn read(transfer: &mut Transfer) -> Result<Option<Vec<u8>>, Error> {
    match transfer.read(&mut [0; 64])? {
        Body::Data(data) => Ok(Some(data.to_vec())),
        Body::Wait => Ok(None),
        Body::End => Ok(Some(Vec::new())),
    }
}

// Stages

#[test]
fn a_transfer_says_what_it_waits_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, pool) = (listener.local_addr().unwrap(), direct());
    let mut transfer = transfer(&pool, &format!("http://LOCALHOST:{}/v1", address.port()), b"{}");
    for _ in 0..2 {
        let step = transfer.advance(Instant::now()).unwrap();
        assert_eq!(step, Step::Resolve("localhost".to_owned(), address.port()));
        assert!(transfer.wants().is_empty());
    }
    transfer.resolved(vec![address], Instant::now());
    assert_eq!(transfer.advance(Instant::now()).unwrap(), Step::Wait);
    let mut server = Ends { listener, transfer };
    let mut peer = server.accept();
    assert_eq!(server.settle().unwrap(), Step::Wait);
    let head = peer.hear();
    assert!(head.starts_with("POST /v1 HTTP/1.1\r\nhost: localhost:"), "{head}");
    let transfer = &mut server.transfer;
    assert!(matches!(&transfer.wants()[..], [want] if want.readable && !want.writable));
    // Not before it is asked for: addresses that come late change nothing.
    transfer.resolved(vec![], Instant::now());
    peer.say(&HELLO[..20]);
    assert_eq!(settle(transfer).unwrap(), Step::Wait);
    assert!(transfer.head().is_none());
    peer.say(&HELLO[20..HELLO.len() - 3]);
    assert_eq!(settle(transfer).unwrap(), Step::Answered);
    assert_eq!(transfer.advance(Instant::now()).unwrap(), Step::Answered);
    assert_eq!(transfer.head().unwrap().status, 200);
    assert!(transfer.is_pending(), "what came with the head is there");
    assert_eq!(read(transfer).unwrap().unwrap(), b"He");
    assert!(!transfer.is_pending());
    assert_eq!(read(transfer).unwrap(), None);
    assert!(matches!(&transfer.wants()[..], [want] if want.readable && !want.writable));
    assert_eq!(pool.len(), 0);
    peer.say(b"llo");
    wait::wait(&transfer.wants(), at(5)).unwrap();
    assert_eq!(read(transfer).unwrap().unwrap(), b"llo");
    assert!(transfer.is_over() && transfer.wants().is_empty());
    assert_eq!(read(transfer).unwrap().unwrap(), b"");
    assert_eq!(pool.len(), 1);
}

#[test]
fn a_host_without_addresses_is_nowhere() {
    let mut transfer = transfer(&direct(), "http://localhost:9/", b"");
    transfer.advance(Instant::now()).unwrap();
    transfer.resolved(vec![], Instant::now());
    let error = transfer.advance(Instant::now()).unwrap_err();
    assert_eq!(error.kind, Kind::Connect);
    assert_eq!(error.message, "no connection to localhost:9: the name has no address");
}

#[test]
fn what_does_not_fit_is_sent_as_there_is_room() {
    let mut server = Ends::local(&vec![b'x'; 20 << 20]);
    assert_eq!(server.transfer.advance(Instant::now()).unwrap(), Step::Wait);
    let mut peer = server.accept();
    assert_eq!(server.settle().unwrap(), Step::Wait);
    // It listens meanwhile.
    assert!(matches!(&server.transfer.wants()[..], [want] if want.readable && want.writable));
    let hearing = std::thread::spawn(move || {
        assert!(peer.hear().contains("\r\ncontent-length: 20971520\r\n"));
        peer.say(HELLO);
        peer
    });
    assert_eq!(answered(&mut server.transfer).unwrap(), 200);
    assert_eq!(body(&mut server.transfer), (b"Hello".to_vec(), Ok(())));
    hearing.join().unwrap();
}

#[test]
fn a_connection_with_half_a_request_on_it_is_not_used_again() {
    let pool = direct();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut server = Ends::new(&pool, listener, &vec![b'x'; 20 << 20]);
    server.transfer.advance(Instant::now()).unwrap();
    let mut peer = server.accept();
    server.settle().unwrap();
    peer.hear_head();
    peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
    assert_eq!(answered(&mut server.transfer).unwrap(), 413);
    assert_eq!(body(&mut server.transfer), (b"no".to_vec(), Ok(())));
    assert!(pool.is_empty());
    peer.close(); // returns, for the other side has closed
}

#[test]
fn a_word_in_between_is_no_answer() {
    let mut server = Ends::local(b"{}");
    server.transfer.advance(Instant::now()).unwrap();
    let mut peer = server.accept();
    for between in [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 1"] {
        peer.say(between);
        assert_eq!(server.settle().unwrap(), Step::Wait);
        assert!(server.transfer.head().is_none());
    }
    peer.say(b"02 Processing\r\n\r\n");
    peer.say(HELLO);
    assert_eq!(server.settle().unwrap(), Step::Answered);
    assert_eq!(body(&mut server.transfer).0, b"Hello");
}

#[test]
fn answers_without_a_body_are_over_at_once() {
    for (method, answer) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"[..]),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-encoding: gzip\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let server = Server::start(1, move |_, mut peer| {
            for _ in 0..2 {
                assert!(peer.hear().starts_with(method));
                peer.say(answer);
            }
        });
        let (pool, url) = (direct(), Url::parse(&server.url()).unwrap());
        for _ in 0..2 {
            let request = Request::new(method, url.clone(), Vec::new(), Vec::new()).unwrap();
            let mut transfer = Transfer::new(pool.clone(), request, true);
            answered(&mut transfer).unwrap();
            assert!(transfer.is_over(), "{method}");
            assert_eq!(body(&mut transfer), (Vec::new(), Ok(())));
            assert_eq!(pool.len(), 1);
        }
        server.done();
    }
}

// Closed connections

#[test]
fn closed_at_every_byte() {
    for (answer, head) in [
        (HELLO, HELLO.len() - 5),
        (CHUNKED, CHUNKED.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4),
        (UNTIL_CLOSE, UNTIL_CLOSE.len() - 5),
    ] {
        let server = Server::start(answer.len() + 1, move |cut, mut peer| {
            peer.hear();
            peer.say(&answer[..cut]);
            peer.close();
        });
        let place = format!("127.0.0.1:{}", server.port);
        for cut in 0..=answer.len() {
            let mut transfer = transfer(&direct(), &server.url(), b"{}");
            let outcome = answered(&mut transfer);
            if cut < head {
                let message = format!("{place} closed the connection without an answer: it ended");
                assert_eq!(outcome, Err(Error { kind: Kind::Cut, message }), "{cut}");
                assert!(transfer.is_over());
                continue;
            }
            let (data, end) = body(&mut transfer);
            assert!(b"Hello".starts_with(&data), "{cut}");
            assert!(transfer.is_over());
            if answer == UNTIL_CLOSE || cut == answer.len() {
                assert_eq!(end, Ok(()), "{cut}");
                assert_eq!(data.len(), if answer == CHUNKED { 5 } else { cut - head });
            } else {
                let message = format!("{place} closed the connection in the middle of the response: it ended");
                assert_eq!(end, Err(Error { kind: Kind::Cut, message }), "{cut}");
            }
        }
        server.done();
    }
}

#[test]
fn reset_connections_say_so() {
    for cut in [0, 20, HELLO.len() - 2] {
        let server = Server::start(1, move |_, mut peer| {
            peer.hear();
            peer.say(&HELLO[..cut]);
            std::thread::sleep(Duration::from_millis(20)); // a reset takes what was not read with it
            peer.reset();
        });
        let mut transfer = transfer(&direct(), &server.url(), b"{}");
        let error = match answered(&mut transfer) {
            Ok(_) => body(&mut transfer).1.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind, Kind::Cut);
        assert!(error.message.to_lowercase().contains("connection reset by peer"), "{}", error.message);
        server.done();
    }
}

// Connections used again

#[test]
fn trailers_do_not_keep_a_connection_from_being_used_again() {
    let server = Server::start(1, |_, mut peer| {
        for _ in 0..3 {
            peer.hear();
            peer.say(CHUNKED);
        }
    });
    let pool = direct();
    for _ in 0..3 {
        assert_eq!(ask(&pool, &server.url()).unwrap(), b"Hello");
        assert_eq!(pool.len(), 1);
    }
    server.done();
}

#[test]
fn what_was_not_asked_for_is_not_taken_for_the_next_answer() {
    // With the end of the body, and after it.
    for late in [false, true] {
        let (read, has_read) = channel::<()>();
        let server = Server::start(2, move |number, mut peer| {
            peer.hear();
            if number == 1 {
                return peer.say(HELLO);
            }
            peer.say(if late { HELLO } else { b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHelloHTTP/1.1 200" });
            if late {
                has_read.recv().unwrap();
                peer.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 5\r\n\r\nadieu");
            }
            peer.hear_end();
        });
        let pool = direct();
        assert_eq!(ask(&pool, &server.url()).unwrap(), b"Hello");
        assert_eq!(pool.len(), usize::from(late));
        read.send(()).unwrap_or_default();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(ask(&pool, &server.url()).unwrap(), b"Hello");
        server.done();
    }
}

/// The second request on the first connection meets this end.
fn second_use(end: impl Fn(common::Peer) + Send + Copy + 'static, others: usize) -> (Result<Vec<u8>, Error>, Server) {
    let server = Server::start(1 + others, move |number, mut peer| {
        peer.hear();
        if number == 0 {
            peer.say(HELLO);
            peer.hear();
            end(peer);
        } else if number < 2 && others > 1 {
            end(peer);
        } else {
            peer.say(HELLO);
        }
    });
    let pool = direct();
    ask(&pool, &server.url()).unwrap();
    (ask(&pool, &server.url()), server)
}

#[test]
fn a_connection_that_ends_at_its_second_use_is_replaced() {
    for end in [common::Peer::close, common::Peer::reset] {
        let (outcome, server) = second_use(end, 1);
        assert_eq!(outcome.unwrap(), b"Hello");
        server.done();
    }
}

#[test]
fn but_only_once_and_never_after_a_byte_of_the_answer() {
    let (outcome, _) = second_use(common::Peer::close, 2);
    assert_eq!(outcome.unwrap_err().kind, Kind::Cut);
    let (outcome, _) = second_use(
        |mut peer| {
            peer.say(b"H");
            peer.close();
        },
        1,
    );
    assert_eq!(outcome.unwrap_err().kind, Kind::Cut);
}

#[test]
fn a_replaced_connection_is_resolved_anew() {
    let (end, ends) = channel::<()>();
    let server = Server::start(1, move |_, mut peer| {
        peer.hear();
        peer.say(HELLO);
        assert!(ends.recv().is_err());
    });
    let (pool, url) = (direct(), format!("http://localhost:{}/", server.port));
    ask(&pool, &url).unwrap();
    let mut transfer = transfer(&pool, &url, b"{}");
    // The one from the pool: no name, no connection to wait for.
    assert_eq!(transfer.advance(Instant::now()).unwrap(), Step::Wait);
    assert!(pool.is_empty());
    drop(end);
    server.done();
    wait::wait(&transfer.wants(), at(5)).unwrap();
    assert!(matches!(transfer.advance(Instant::now()).unwrap(), Step::Resolve(..)));
}

#[test]
fn a_closed_pool_keeps_nothing() {
    let server = Server::start(2, |number, mut peer| {
        peer.hear();
        peer.say(HELLO);
        if number == 0 {
            peer.hear_end();
        }
    });
    let pool = direct();
    ask(&pool, &server.url()).unwrap();
    pool.close();
    ask(&pool, &server.url()).unwrap();
    assert!(pool.is_empty());
    server.done();
}

// Given up

#[test]
fn given_up_at_each_stage() {
    for stage in 0..4 {
        let mut server = Ends::local(b"{}");
        let mut peer = None;
        if stage > 0 {
            server.transfer.advance(Instant::now()).unwrap();
        }
        if stage > 1 {
            peer = Some(server.accept());
            server.settle().unwrap();
        }
        if stage > 2 {
            peer.as_mut().unwrap().say(&HELLO[..HELLO.len() - 1]);
            assert_eq!(server.settle().unwrap(), Step::Answered);
        }
        let transfer = &mut server.transfer;
        transfer.abort();
        assert!(transfer.is_over() && transfer.is_pending() && transfer.wants().is_empty());
        if stage > 2 {
            assert_eq!(transfer.advance(Instant::now()), Ok(Step::Answered));
        } else {
            let error = transfer.advance(Instant::now()).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (Kind::Cut, "the request was given up"));
        }
        assert_eq!(body(transfer), (vec![], Ok(())));
        if let Some(mut peer) = peer {
            peer.hear();
            peer.hear_end();
        }
    }
}

#[test]
fn a_transfer_that_is_dropped_closes_its_connection() {
    let mut server = Ends::local(b"{}");
    server.transfer.advance(Instant::now()).unwrap();
    let mut peer = server.accept();
    server.settle().unwrap();
    peer.hear();
    drop(server);
    peer.hear_end();
}

#[test]
fn shut_from_elsewhere() {
    // While the head is awaited, and while the body is.
    for said in [0, HELLO.len() - 1] {
        let mut server = Ends::local(b"{}");
        server.transfer.advance(Instant::now()).unwrap();
        let mut peer = server.accept();
        let line = server.transfer.line();
        peer.say(&HELLO[..said]);
        let shutting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            line.shut();
        });
        let began = Instant::now();
        let transfer = &mut server.transfer;
        let outcome = answered(transfer).and_then(|_| body(transfer).1);
        assert_eq!(outcome.unwrap_err().kind, Kind::Cut);
        assert!(began.elapsed() < LONG / 2);
        shutting.join().unwrap();
    }
}

#[test]
fn shut_after_the_end_leaves_the_connection_to_the_next() {
    let server = Server::start(1, |_, mut peer| {
        for _ in 0..2 {
            peer.hear();
            peer.say(HELLO);
        }
    });
    let pool = direct();
    let mut transfer = transfer(&pool, &server.url(), b"{}");
    let line = transfer.line();
    line.shut(); // nothing is there yet
    answered(&mut transfer).unwrap();
    assert_eq!(body(&mut transfer).0, b"Hello");
    line.shut();
    assert_eq!(ask(&pool, &server.url()).unwrap(), b"Hello");
    server.done();
}

// Clocks

#[test]
fn time_to_connect_runs_out_before_there_is_an_address() {
    let mut transfer = transfer(&direct(), "http://localhost:9/", b"");
    transfer.clocks.connect = at(3);
    assert_eq!(transfer.deadline(), transfer.clocks.connect);
    assert!(transfer.advance(Instant::now()).is_ok());
    let error = transfer.advance(at(3).unwrap()).unwrap_err();
    assert_eq!(error.kind, Kind::ConnectTime);
    assert_eq!(error.message, "no connection to localhost:9 in time");
    assert!(transfer.is_over());
}

#[test]
fn time_to_connect_runs_out_while_connecting() {
    // A listener whose queue is full lets nobody in.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let waits = Duration::from_millis(100);
    let _queue: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, waits)).collect();
    let mut transfer = transfer(&direct(), "http://localhost:9/", b"");
    transfer.clocks.connect = at(3);
    transfer.advance(Instant::now()).unwrap();
    transfer.resolved(vec![address, address], Instant::now());
    assert_eq!(transfer.advance(Instant::now()).unwrap(), Step::Wait);
    assert!(matches!(&transfer.wants()[..], [want] if want.writable && !want.readable));
    // The next address has its turn before the time is out.
    assert!(transfer.deadline().unwrap() < Instant::now() + Duration::from_secs(1));
    assert_eq!(transfer.advance(at(1).unwrap()).unwrap(), Step::Wait);
    assert_eq!(transfer.wants().len(), 2);
    assert_eq!(transfer.deadline(), transfer.clocks.connect);
    assert_eq!(transfer.advance(at(4).unwrap()).unwrap_err().kind, Kind::ConnectTime);
}

#[test]
fn time_to_answer_runs_out() {
    let mut server = Ends::local(b"{}");
    server.transfer.clocks.connect = at(1);
    server.transfer.clocks.due = at(3);
    server.transfer.clocks.idle = Some(Duration::from_millis(1));
    server.transfer.advance(Instant::now()).unwrap();
    let peer = server.accept();
    server.settle().unwrap();
    let transfer = &mut server.transfer;
    // It is connected, and nothing has begun that could be silent.
    assert_eq!(transfer.deadline(), transfer.clocks.due);
    assert_eq!(transfer.advance(at(2).unwrap()).unwrap(), Step::Wait);
    let error = transfer.advance(at(3).unwrap()).unwrap_err();
    assert_eq!(error.kind, Kind::DueTime);
    assert_eq!(error.message, format!("no answer from {} in time", peer.socket.local_addr().unwrap()));
}

#[test]
fn silence_is_too_long() {
    let mut server = Ends::local(b"{}");
    server.transfer.clocks.idle = Some(Duration::from_secs(3));
    server.transfer.advance(Instant::now()).unwrap();
    let mut peer = server.accept();
    peer.say(&HELLO[..HELLO.len() - 2]);
    server.settle().unwrap();
    let transfer = &mut server.transfer;
    assert_eq!(transfer.deadline(), transfer.clocks.seen.checked_add(Duration::from_secs(3)));
    assert_eq!(read(transfer).unwrap().unwrap(), b"Hel");
    // Bytes begin it anew, and are handed out however late they are looked at.
    transfer.clocks.seen = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
    assert_eq!(read(transfer).unwrap(), None);
    transfer.clocks.seen = Instant::now().checked_sub(Duration::from_secs(4)).unwrap();
    peer.say(b"l");
    wait::wait(&transfer.wants(), at(5)).unwrap();
    assert_eq!(read(transfer).unwrap().unwrap(), b"l");
    assert!(transfer.clocks.seen.elapsed() < Duration::from_secs(1));
    transfer.clocks.seen = Instant::now().checked_sub(Duration::from_secs(4)).unwrap();
    let error = read(transfer).unwrap_err();
    assert_eq!(error.kind, Kind::IdleTime);
    assert_eq!(error.message, format!("no bytes from {} in time", peer.socket.local_addr().unwrap()));
    assert!(transfer.is_over());
}

#[test]
fn time_is_up_in_the_middle_of_a_response_that_never_rests() {
    let mut server = Ends::local(b"{}");
    server.transfer.advance(Instant::now()).unwrap();
    let mut peer = server.accept();
    peer.say(UNTIL_CLOSE);
    server.settle().unwrap();
    let transfer = &mut server.transfer;
    assert!(read(transfer).unwrap().is_some());
    transfer.clocks.due = Some(Instant::now());
    peer.say(b" again");
    wait::wait(&transfer.wants(), at(5)).unwrap();
    assert_eq!(read(transfer).unwrap_err().kind, Kind::DueTime);
    let mut rest = Vec::new();
    peer.hear();
    peer.socket.set_read_timeout(Some(LONG)).unwrap();
    match peer.stream.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset), // it had not read " again" all
    }
}
