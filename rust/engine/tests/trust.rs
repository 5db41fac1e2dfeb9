//! TLS: whom to trust, and what a failed handshake means.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Authority, LONG, Said, Server, answered, ask, authority, body, settle, transfer, trusting};
use penstock_engine::error::Kind;
use penstock_engine::tls::{Authorities, Trust};
use penstock_engine::transfer::Step;
use penstock_engine::wait;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConnection};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello";

/// What is wrong with a server, where it is.
fn failure(server: &Server, host: &str, trust: Trust) -> String {
    let error = ask(&trusting(trust), &format!("https://{host}:{}/", server.port)).unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "{error}");
    error.message.strip_prefix(&format!("no connection to {host}:{}: ", server.port)).unwrap().to_owned()
}

#[test]
fn certificates_that_are_not_accepted() {
    let stranger = Arc::new(Authority::new("stranger"));
    let named = |name| Said { name: Some(name), ..Said::default() };
    for (config, host, words) in [
        (
            authority().server(named("elsewhere.example")),
            "localhost",
            "the server's certificate is not valid for localhost but for DnsName(\"elsewhere.example\")",
        ),
        (
            authority().server(Said { expired: true, ..Said::default() }),
            "127.0.0.1",
            "the server's certificate has expired",
        ),
        (
            authority().server(Said { early: true, ..Said::default() }),
            "127.0.0.1",
            "the server's certificate is not valid yet: is this machine's clock right?",
        ),
        (
            stranger.server(Said::default()),
            "127.0.0.1",
            "the server's certificate is signed by nobody who is trusted here: verify= takes the issuer's certificate",
        ),
    ] {
        let server = Server::start(1, move |_, peer| peer.secure(&config).hear_end());
        assert_eq!(failure(&server, host, authority().trust()), words);
        server.done();
    }
}

#[test]
fn anybody_may_answer_where_nobody_needs_to_vouch() {
    let server = Server::start(1, |_, peer| {
        let mut peer = peer.secure(&authority().server(Said { expired: true, ..Said::default() }));
        peer.hear();
        peer.say(HELLO);
    });
    let pool = trusting(Trust::new(&Authorities::Anyone, None).unwrap());
    assert_eq!(ask(&pool, &format!("https://127.0.0.1:{}/", server.port)).unwrap(), b"Hello");
    server.done();
}

#[test]
fn both_versions_are_spoken() {
    for version in [&TLS12, &TLS13] {
        let server = Server::start(1, move |_, peer| {
            let mut peer = peer.secure(&authority().server_of(Said::default(), &[version], false));
            for _ in 0..2 {
                peer.hear();
                peer.say(HELLO);
            }
        });
        let pool = trusting(authority().trust());
        for _ in 0..2 {
            assert_eq!(ask(&pool, &format!("https://127.0.0.1:{}/", server.port)).unwrap(), b"Hello");
        }
        server.done();
    }
}

#[test]
fn a_server_that_wants_to_know_who_asks() {
    for version in [&TLS12, &TLS13] {
        for known in [false, true] {
            let server = Server::start(1, move |_, peer| {
                let mut peer = peer.secure(&authority().server_of(Said::default(), &[version], true));
                if known {
                    peer.hear();
                    peer.say(HELLO);
                } else {
                    peer.hear_end();
                }
            });
            let identity = known.then(|| authority().identity("client"));
            let trust = Trust::new(&Authorities::Files(vec![authority().file.clone()]), identity.as_ref()).unwrap();
            if known {
                let pool = trusting(trust);
                assert_eq!(ask(&pool, &format!("https://127.0.0.1:{}/", server.port)).unwrap(), b"Hello");
            } else {
                let words = failure(&server, "127.0.0.1", trust);
                assert_eq!(words, "the server wants a client certificate: cert= takes it", "{version:?}");
            }
            server.done();
        }
    }
}

#[test]
fn no_tls_where_it_was_expected() {
    let server = Server::start(1, |_, mut peer| {
        peer.hear_bytes(20);
        peer.say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        peer.close();
    });
    let words = failure(&server, "127.0.0.1", authority().trust());
    assert_eq!(words, "the server speaks no TLS there: is it http:// ?");
    server.done();
}

#[test]
fn tls_where_it_was_not_expected() {
    let server = Server::start(1, |_, peer| peer.secure(&authority().server(Said::default())).hear_end());
    let error = ask(&common::direct(), &server.url()).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Malformed, "the server speaks TLS: is it https:// ?"));
    server.done();
}

#[test]
fn a_handshake_cut_short() {
    for said in [0, 1, 5, 100] {
        let server = Server::start(1, move |_, mut peer| {
            // The first bytes of a ServerHello's record.
            let hello = [&[0x16, 3, 3, 0x10, 0, 2, 0, 0x0f, 0xfc, 3, 3][..], &[7; 200]].concat();
            peer.hear_bytes(100);
            peer.say(&hello[..said]);
            peer.close();
        });
        let error = ask(&trusting(authority().trust()), &format!("https://127.0.0.1:{}/", server.port)).unwrap_err();
        assert_eq!(error.kind, Kind::Connect, "{said}");
        let words = "it was closed during the TLS handshake";
        assert_eq!(error.message, format!("no connection to 127.0.0.1:{}: {words}", server.port));
        server.done();
    }
}

#[test]
fn a_handshake_that_never_ends_has_the_time_to_connect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let mut transfer = transfer(&trusting(authority().trust()), &format!("https://{place}/"), b"");
    let late = Instant::now() + Duration::from_secs(3);
    transfer.clocks.connect = Some(late);
    assert_eq!(settle(&mut transfer).unwrap(), Step::Wait);
    assert_eq!(transfer.deadline(), Some(late));
    let error = transfer.advance(late).unwrap_err();
    assert_eq!((error.kind, error.message), (Kind::ConnectTime, format!("no connection to {place} in time")));
}

#[test]
fn an_end_that_nobody_vouches_for_is_none() {
    // Whoever sits in between can close the connection, but cannot say that it was the server.
    for vouched in [true, false] {
        let server = Server::start(1, move |_, peer| {
            let mut connection = ServerConnection::new(authority().server(Said::default())).unwrap();
            let mut socket = peer.socket.try_clone().unwrap();
            {
                let mut stream = rustls::Stream::new(&mut connection, &mut socket);
                std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
                std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nHello").unwrap();
            }
            if vouched {
                connection.send_close_notify();
                connection.write_tls(&mut socket).unwrap();
            }
            peer.close();
        });
        let mut transfer =
            transfer(&trusting(authority().trust()), &format!("https://127.0.0.1:{}/", server.port), b"");
        answered(&mut transfer).unwrap();
        let (data, end) = body(&mut transfer);
        assert_eq!(data, b"Hello");
        assert_eq!(end.map_err(|error| error.kind), if vouched { Ok(()) } else { Err(Kind::Cut) });
        server.done();
    }
}

#[test]
fn a_long_answer_in_few_records_needs_no_more_of_the_socket() {
    // What TLS holds decrypted is told by no socket.
    let server = Server::start(1, |_, peer| {
        let mut peer = peer.secure(&authority().server(Said::default()));
        peer.hear();
        let text = vec![b'x'; 16_000];
        peer.say(&[&b"HTTP/1.1 200 OK\r\ncontent-length: 16001\r\n\r\n"[..], &text].concat());
        peer.hear_end(); // and the last byte never comes
    });
    let mut transfer = transfer(&trusting(authority().trust()), &format!("https://127.0.0.1:{}/", server.port), b"");
    answered(&mut transfer).unwrap();
    let (mut count, mut scratch, until) = (0, [0; 500], Instant::now() + LONG);
    while count < 16_000 {
        assert!(transfer.is_pending() || wait::wait(&transfer.wants(), Some(until)).unwrap(), "at {count}");
        if let penstock_engine::transfer::Body::Data(data) = transfer.read(&mut scratch).unwrap() {
            count += data.len();
        }
    }
    drop(transfer);
    server.done();
}

#[test]
fn sessions_are_resumed_by_new_connections() {
    let config = authority().server(Said::default());
    let server = Server::start(3, move |number, peer| {
        let mut connection = ServerConnection::new(config.clone()).unwrap();
        let mut socket = peer.socket.try_clone().unwrap();
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nHello";
        std::io::Write::write_all(&mut stream, answer).unwrap();
        let kind = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
        assert_eq!(connection.handshake_kind(), Some(kind));
        peer.close();
    });
    let pool = trusting(authority().trust());
    for _ in 0..3 {
        assert_eq!(ask(&pool, &format!("https://127.0.0.1:{}/", server.port)).unwrap(), b"Hello");
    }
    server.done();
}

#[test]
fn files_that_hold_something_else() {
    let dir = authority().file.parent().unwrap();
    let (empty, wrong) = (dir.join("empty.pem"), dir.join("wrong.pem"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&wrong, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let mut identity = authority().identity("half");
    for file in [&empty, &wrong] {
        let error = Trust::new(&Authorities::Files(vec![file.clone()]), None).unwrap_err();
        assert_eq!(error.to_string(), "no certificate in PEM format in it");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
    assert!(Trust::new(&Authorities::Files(vec![dir.to_owned()]), None).is_ok(), "what else lies there is no fault");
    // A key that is not this certificate's.
    identity.key = authority().identity("other").key;
    let error = Trust::new(&Authorities::Platform, Some(&identity)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    identity.key = dir.join("nowhere.key");
    assert_eq!(Trust::new(&Authorities::Platform, Some(&identity)).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn what_is_no_host_name_has_no_certificate() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut transfer = transfer(&trusting(authority().trust()), "https://a..b/", b"");
    assert!(matches!(transfer.advance(Instant::now()), Ok(Step::Resolve(..))));
    transfer.resolved(vec![listener.local_addr().unwrap()], Instant::now());
    let error = settle(&mut transfer).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Request, "\"a..b\" is no host name"));
}
