//! Talks with proxies, and what they may come to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use std::time::{Duration, Instant};

use common::{Peer, Said, Server, answered, ask, authority, settle, through, transfer};
use penstock_engine::error::{Error, Kind};
use penstock_engine::tls::Trust;
use penstock_engine::transfer::Step;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello";
const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\nproxy-agent: x\r\n\r\n";

fn outcome(proxy: &str, url: &str) -> Result<Vec<u8>, Error> {
    ask(&through(proxy, authority().trust()), url)
}

/// What the proxy at this port is said to do.
fn refusal(scheme: &str, server: &Server, credentials: &str, url: &str) -> String {
    let place = format!("127.0.0.1:{}", server.port);
    let error = outcome(&format!("{scheme}://{credentials}{place}"), url).unwrap_err();
    assert_eq!(error.kind, Kind::Proxy, "{error}");
    error.message.strip_prefix(&format!("the proxy {place} ")).unwrap().to_owned()
}

// HTTP

#[test]
fn a_relay_gets_the_whole_url_each_time_on_one_connection() {
    let proxy = Server::start(1, |_, mut peer| {
        for _ in 0..2 {
            let head = peer.hear();
            assert!(head.starts_with("POST http://far.example/v1?x=1 HTTP/1.1\r\nhost: far.example\r\n"), "{head}");
            assert!(head.contains("\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n"), "{head}");
            peer.say(HELLO);
        }
    });
    let pool = through(&format!("http://me:p%40ss@127.0.0.1:{}", proxy.port), Trust::platform());
    for _ in 0..2 {
        assert_eq!(ask(&pool, "http://far.example/v1?x=1").unwrap(), b"Hello");
    }
    proxy.done();
}

#[test]
fn a_tunnel_carries_one_server_s_requests_one_after_the_other() {
    let proxy = Server::start(1, |_, mut peer| {
        assert_eq!(peer.hear_head(), "CONNECT 127.0.0.1:443 HTTP/1.1\r\nhost: 127.0.0.1:443\r\n\r\n");
        peer.say(CONNECTED);
        let mut peer = peer.secure(&authority().server(Said::default()));
        for _ in 0..2 {
            assert!(peer.hear().starts_with("POST /v1 HTTP/1.1\r\nhost: 127.0.0.1\r\n"));
            peer.say(HELLO);
        }
    });
    let pool = through(&format!("http://127.0.0.1:{}", proxy.port), authority().trust());
    for _ in 0..2 {
        assert_eq!(ask(&pool, "https://127.0.0.1/v1").unwrap(), b"Hello");
    }
    proxy.done();
}

#[test]
fn a_tunnel_within_tls() {
    let proxy = Server::start(1, |_, peer| {
        let mut peer = peer.secure(&authority().server(Said { name: Some("localhost"), ..Said::default() }));
        assert!(peer.hear_head().starts_with("CONNECT 127.0.0.1:443 "));
        peer.say(CONNECTED);
        let mut peer = peer.secure(&authority().server(Said::default()));
        peer.hear();
        for byte in HELLO {
            peer.say(&[*byte]);
        }
        peer.hear();
        peer.say(HELLO);
    });
    let pool = through(&format!("https://localhost:{}", proxy.port), authority().trust());
    for _ in 0..2 {
        assert_eq!(ask(&pool, "https://127.0.0.1/").unwrap(), b"Hello");
    }
    proxy.done();
}

#[test]
fn a_relay_within_tls() {
    let proxy = Server::start(1, |_, peer| {
        let mut peer = peer.secure(&authority().server(Said::default()));
        assert!(peer.hear().starts_with("POST http://far.example/ HTTP/1.1\r\n"));
        peer.say(HELLO);
    });
    assert_eq!(outcome(&format!("https://127.0.0.1:{}", proxy.port), "http://far.example").unwrap(), b"Hello");
    proxy.done();
}

#[test]
fn it_says_which_of_the_two_cannot_be_trusted() {
    for proxys in [true, false] {
        let wrong = Said { name: Some("elsewhere.example"), ..Said::default() };
        let proxy = Server::start(1, move |_, peer| {
            let mut peer = peer.secure(&authority().server(if proxys { wrong } else { Said::default() }));
            if proxys {
                return peer.hear_end();
            }
            peer.hear_head();
            peer.say(CONNECTED);
            peer.secure(&authority().server(wrong)).hear_end();
        });
        let place = format!("127.0.0.1:{}", proxy.port);
        let error = outcome(&format!("https://{place}"), "https://127.0.0.1/").unwrap_err();
        assert_eq!(error.kind, Kind::Tls);
        let place = if proxys { place.as_str() } else { "127.0.0.1:443" };
        let reason = "the server's certificate is not valid for 127.0.0.1 but for DnsName(\"elsewhere.example\")";
        assert_eq!(error.message, format!("no connection to {place}: {reason}"));
        proxy.done();
    }
}

#[test]
fn refusals_of_http_proxies() {
    for (answer, credentials, words) in [
        ("403 Forbidden", "", "does not connect to far.example:443: 403 Forbidden"),
        ("502 Bad Gateway", "", "does not connect to far.example:443: 502 Bad Gateway"),
        ("407 Who", "", "wants some credentials (status 407): proxy=\"http://name:password@host:port\""),
        ("407 Who", "me:pass@", "wants other credentials (status 407): proxy=\"http://name:password@host:port\""),
    ] {
        let proxy = Server::start(1, move |_, mut peer| {
            let head = peer.hear_head();
            assert_eq!(head.contains("proxy-authorization: Basic bWU6cGFzcw=="), !credentials.is_empty());
            peer.say(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        });
        assert_eq!(refusal("http", &proxy, credentials, "https://far.example/"), words);
        proxy.done();
    }
}

#[test]
fn a_tunnel_closed_at_every_byte() {
    let proxy = Server::start(CONNECTED.len() + 1, |cut, mut peer| {
        peer.hear_head();
        peer.say(&CONNECTED[..cut]);
        peer.close();
    });
    for _ in 0..CONNECTED.len() {
        assert_eq!(refusal("http", &proxy, "", "https://far.example/"), "closed the connection");
    }
    // Then it is the server's end, as far as anybody can tell.
    let error = outcome(&format!("http://127.0.0.1:{}", proxy.port), "https://far.example/").unwrap_err();
    assert_eq!(error.kind, Kind::Connect);
    assert_eq!(error.message, "no connection to far.example:443: it was closed during the TLS handshake");
    proxy.done();
}

#[test]
fn no_proxy_at_all() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["http", "https", "socks5"] {
        let error = outcome(&format!("{scheme}://127.0.0.1:{port}"), "https://far.example/").unwrap_err();
        assert_eq!(error.kind, Kind::Connect);
        assert_eq!(error.message, format!("no connection to the proxy 127.0.0.1:{port}: Connection refused"));
    }
}

#[test]
fn a_proxy_that_says_nothing_has_the_time_to_connect() {
    for scheme in ["http", "https", "socks5"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let mut transfer =
            transfer(&through(&format!("{scheme}://{place}"), authority().trust()), "https://far.example/", b"");
        let (now, late) = (Instant::now(), Instant::now() + Duration::from_secs(3));
        transfer.clocks.connect = Some(late);
        assert_eq!(settle(&mut transfer).unwrap(), Step::Wait);
        assert!(matches!(&transfer.wants()[..], [want] if want.readable && !want.writable));
        assert_eq!(transfer.deadline(), Some(late));
        assert_eq!(transfer.advance(now).unwrap(), Step::Wait);
        let error = transfer.advance(late).unwrap_err();
        assert_eq!((error.kind, error.message), (Kind::ConnectTime, format!("no connection to {place} in time")));
    }
}

// SOCKS

/// The talk of a proxy that lets everybody in: what it heard of the place to connect to.
fn socks(peer: &mut Peer, methods: &[u8]) -> Vec<u8> {
    assert_eq!(peer.hear_bytes(methods.len()), methods);
    peer.say(&[5, 0]);
    let mut place = peer.hear_bytes(4);
    assert_eq!(place[..3], [5, 1, 0]);
    let length = match place[3] {
        1 => 4,
        4 => 16,
        _ => {
            place.extend(peer.hear_bytes(1));
            place[4].into()
        }
    };
    place.extend(peer.hear_bytes(length + 2));
    place
}

#[test]
fn names_and_addresses_are_told_as_they_are() {
    let places = [
        ("http://far.example:8080/", [&[3, 11][..], b"far.example", &[0x1f, 0x90]].concat()),
        ("http://1.2.3.4/", vec![1, 1, 2, 3, 4, 0, 80]),
        ("http://[::1]/", [&[4][..], &[0; 15], &[1, 0, 80]].concat()),
    ];
    // It may call where it connects from what it likes.
    let replies = [
        &[5, 0, 0, 1, 1, 2, 3, 4, 0, 80][..],
        &[5, 0, 0, 3, 2, b'a', b'b', 0, 80],
        &[5, 0, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 80],
    ];
    for ((url, place), reply) in places.into_iter().zip(replies) {
        let proxy = Server::start(1, move |_, mut peer| {
            assert_eq!(socks(&mut peer, &[5, 1, 0])[3..], place);
            for byte in reply {
                peer.say(&[*byte]);
            }
            peer.hear();
            peer.say(HELLO);
        });
        assert_eq!(outcome(&format!("socks5h://127.0.0.1:{}", proxy.port), url).unwrap(), b"Hello");
        proxy.done();
    }
}

#[test]
fn credentials_are_told_where_they_are_asked_for() {
    // Offered and not wanted; wanted, and right; wanted, and wrong.
    for (wanted, right) in [(false, true), (true, true), (true, false)] {
        let proxy = Server::start(1, move |_, mut peer| {
            if wanted {
                assert_eq!(peer.hear_bytes(4), [5, 2, 0, 2]);
                peer.say(&[5, 2]);
                assert_eq!(peer.hear_bytes(12), b"\x01\x02me\x07p@ssord");
                peer.say(&[1, u8::from(!right)]);
                if !right {
                    return peer.hear_end();
                }
                peer.hear_bytes(4 + 1 + 11 + 2);
            } else {
                socks(&mut peer, &[5, 2, 0, 2]);
            }
            peer.say(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            peer.hear();
            peer.say(HELLO);
        });
        if right {
            let place = format!("socks5://me:p%40ssord@127.0.0.1:{}", proxy.port);
            assert_eq!(outcome(&place, "http://far.example/").unwrap(), b"Hello");
        } else {
            let words = refusal("socks5", &proxy, "me:p%40ssord@", "http://far.example/");
            assert_eq!(words, "does not accept these credentials");
        }
        proxy.done();
    }
}

#[test]
fn refusals_of_socks_proxies() {
    let wants = "wants credentials: proxy=\"socks5://name:password@host:port\"";
    for (answer, credentials, words) in [
        (&[5, 255][..], "", wants),
        (&[5, 255], "me:pass@", "accepts no login that is known here"),
        (&[5, 2], "", "wants credentials that were not offered"),
        (&[4, 0], "", "is no SOCKS5 proxy: its answer has another version"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "", "is no SOCKS5 proxy: its answer has another version"),
    ] {
        let proxy = Server::start(1, move |_, mut peer| {
            peer.hear_bytes(3);
            peer.say(answer);
            peer.close();
        });
        assert_eq!(refusal("socks5", &proxy, credentials, "http://far.example/"), words);
        proxy.done();
    }
    let long = format!("me:{}@", "x".repeat(256));
    let proxy = Server::start(1, |_, mut peer| {
        peer.hear_bytes(4);
        peer.say(&[5, 2]);
        peer.hear_end();
    });
    let words = refusal("socks5", &proxy, &long, "http://far.example/");
    assert_eq!(words, "cannot be told a name or password of over 255 bytes");
    proxy.done();
}

#[test]
fn a_socks_proxy_that_does_not_connect_says_why() {
    for (code, why) in [
        (1, "it failed"),
        (2, "its rules do not allow it"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "it took too long"),
        (7, "it does not know how"),
        (8, "it does not know how"),
        (99, "it failed"),
    ] {
        let proxy = Server::start(1, move |_, mut peer| {
            socks(&mut peer, &[5, 1, 0]);
            peer.say(&[5, code]);
            peer.close();
        });
        let words = refusal("socks5", &proxy, "", "http://far.example/");
        assert_eq!(words, format!("does not connect to far.example:80: {why}"));
        proxy.done();
    }
}

#[test]
fn a_socks_proxy_that_closes_at_every_byte() {
    const REPLY: &[u8] = &[5, 0, 0, 3, 2, b'a', b'b', 0, 80];
    let proxy = Server::start(2 + REPLY.len(), |cut, mut peer| {
        if cut < 2 {
            peer.hear_bytes(3);
            peer.say(&[5, 0][..cut]);
        } else {
            socks(&mut peer, &[5, 1, 0]);
            peer.say(&REPLY[..cut - 2]);
        }
        peer.close();
    });
    for _ in 0..2 + REPLY.len() {
        assert_eq!(refusal("socks5", &proxy, "", "http://far.example/"), "closed the connection");
    }
    proxy.done();
}

#[test]
fn tls_through_socks() {
    let proxy = Server::start(1, |_, mut peer| {
        socks(&mut peer, &[5, 1, 0]);
        peer.say(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut peer = peer.secure(&authority().server(Said { name: Some("far.example"), ..Said::default() }));
        peer.hear();
        peer.say(HELLO);
    });
    let pool = through(&format!("socks5://127.0.0.1:{}", proxy.port), authority().trust());
    let mut transfer = transfer(&pool, "https://far.example/", b"{}");
    assert_eq!(answered(&mut transfer).unwrap(), 200);
    proxy.done();
}
