//! HTTP/1.1, and HTTP/2 where it is asked for, from the socket up, for streams: TLS, proxies, pools, framings and codings.
//!
//! A [`transfer::Transfer`] is one request on its way over one connection, and a state machine: it does what it can
//! without blocking, and says which sockets it waits for and until when. Whoever drives it waits as the place demands:
//! [`wait::wait`] blocks a thread, an event loop watches the descriptors. Names are resolved by the driver, for that
//! blocks.
//!
//! ```
//! use std::net::{TcpListener, ToSocketAddrs};
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! use std::time::Instant;
//! use penstock_engine::{pool::{Pool, Route}, tls::Trust, request::Request, transfer::{Body, Step, Transfer}, url::Url, wait};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let port = server.local_addr()?.port();
//! std::thread::spawn(move || -> std::io::Result<()> {
//!     let (mut socket, _) = server.accept()?;
//!     socket.read(&mut [0; 1024])?;
//!     socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello")
//! });
//!
//! let pool = Arc::new(Pool::new(Route { proxy: None, trust: Arc::new(Trust::platform()) }));
//! let url = Url::parse(&format!("http://localhost:{port}/"))?;
//! let mut transfer = Transfer::new(pool, Request::new("GET", url, Vec::new(), Vec::new())?, true);
//! let (mut body, mut scratch) = (Vec::new(), vec![0; 4096]);
//! loop {
//!     match transfer.advance(Instant::now())? {
//!         Step::Resolve(host, port) => {
//!             let addresses = (host.as_str(), port).to_socket_addrs()?.collect();
//!             transfer.resolved(addresses, Instant::now());
//!         }
//!         Step::Wait => { wait::wait(&transfer.wants(), transfer.deadline())?; }
//!         Step::Answered => break,
//!     }
//! }
//! loop {
//!     match transfer.read(&mut scratch)? {
//!         Body::Data(data) => body.extend_from_slice(data),
//!         Body::Wait => { wait::wait(&transfer.wants(), transfer.deadline())?; }
//!         Body::End => break,
//!     }
//! }
//! assert_eq!(body, b"Hello");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking"))]

mod bell;
mod coding;
mod connect;
pub mod error;
mod framing;
pub mod head;
mod http2;
pub mod link;
pub mod pool;
pub mod proxy;
pub mod request;
pub mod tls;
pub mod transfer;
pub mod url;
pub mod wait;
