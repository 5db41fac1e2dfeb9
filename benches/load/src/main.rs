//! What the benches drive and read from, in processes fast enough never to be what is measured.
//!
//! ```text
//! penstock-load serve [--tls authority.pem [--http2]] plain.sse [anthropic.sse:2 answer.json ...]
//! penstock-load drive 127.0.0.1:4000 request.http CONNECTIONS REQUESTS [--end TEXT] [--spread MS] [--stamped]
//! penstock-load relay 127.0.0.1:8000
//! ```
//!
//! `serve` prints its port and serves each file under its name over HTTP/1.1. The rest of the path says in which shape:
//!
//! ```text
//! /plain/burst/N/...     the first event, N with text, the last three, in as few writes as the socket allows
//! /plain/each/N/...      the same, a write and a packet each
//! /plain/pace/N/MS/...   the same, a write each MS milliseconds, on a schedule that a slow reader does not shift
//! /answer/...            a file of JSON, whole
//! ```
//!
//! `after/MS` behind the numbers waits so long before the head; `stamped` puts the time of the write, nanoseconds since
//! 1970, before the text of each event. With `--tls` it is all within TLS, by certificates made for the day: whoever
//! trusts the authority that is written to the file trusts them. With `--http2` it is HTTP/2, and no answers of JSON.
//!
//! `drive` sends a request, the bytes of a file, over and over, and prints what came of it as JSON. `relay` prints its
//! port and hands on bytes both ways without looking at them: what no gateway can be cheaper than.

mod connection;
mod drive;
mod http2;
mod link;
mod recording;
mod relay;
mod response;
mod source;

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

const USAGE: &str = "usage: penstock-load serve [--tls FILE [--http2]] FILE... | drive ADDRESS FILE CONNECTIONS REQUESTS | relay ADDRESS";

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("serve") => source::run(words),
        Some("drive") => drive::run(words),
        Some("relay") => relay::run(words),
        _ => Err(USAGE.into()),
    }
}

/// Listens on a port of its own, and prints it. The standard library's backlog of 128 drops connections when a thousand
/// come at once.
fn listen() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    Ok(listener)
}
