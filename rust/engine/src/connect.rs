//! Connecting, to whichever of a host's addresses answers first (RFC 8305, "happy eyeballs").

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::wait::{self, Want};

/// How long one address is alone before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);

/// Attempts at the addresses of one host.
#[derive(Debug)]
pub(crate) struct Race {
    waiting: VecDeque<SocketAddr>,
    running: Vec<Arc<TcpStream>>,
    next: Instant,
    failure: Option<io::Error>,
}

impl Race {
    pub(crate) fn new(addresses: Vec<SocketAddr>, now: Instant) -> Self {
        Self { waiting: interleaved(addresses), running: Vec::new(), next: now, failure: None }
    }

    /// The connection, if one stands; an error, when none can.
    pub(crate) fn step(&mut self, now: Instant) -> io::Result<Option<Arc<TcpStream>>> {
        for socket in std::mem::take(&mut self.running) {
            if !wait::is_settled(&socket) {
                self.running.push(socket);
                continue;
            }
            match socket.take_error()? {
                None => return ready(socket).map(Some),
                Some(error) => self.failure = Some(error),
            }
        }
        while self.running.is_empty() || now >= self.next {
            let Some(address) = self.waiting.pop_front() else { break };
            self.next = now + STAGGER;
            match begin(address) {
                Ok((socket, true)) => return ready(socket).map(Some),
                Ok((socket, false)) => self.running.push(socket),
                Err(error) => self.failure = Some(error),
            }
        }
        if self.running.is_empty() {
            let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(self.failure.take().unwrap_or_else(nowhere));
        }
        Ok(None)
    }

    pub(crate) fn wants(&self) -> Vec<Want> {
        let want = |socket: &Arc<TcpStream>| Want { socket: socket.clone(), readable: false, writable: true };
        self.running.iter().map(want).collect()
    }

    /// When the next address has its turn.
    pub(crate) fn next(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }
}

/// Begins to connect, and tells whether it is done.
fn begin(address: SocketAddr) -> io::Result<(Arc<TcpStream>, bool)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let done = match socket.connect(&address.into()) {
        Ok(()) => true,
        Err(error) if in_progress(&error) => false,
        Err(error) => return Err(error),
    };
    Ok((Arc::new(socket.into()), done))
}

fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

fn ready(socket: Arc<TcpStream>) -> io::Result<Arc<TcpStream>> {
    // Without it the second small write of a request waits for the acknowledgement of the first.
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The addresses with the two families in turn, the resolver's first choice first.
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let mut order = VecDeque::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let order = interleaved(of(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "2.2.2.2:1"]));
        assert_eq!(Vec::from(order), of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1"]));
    }

    fn run(race: &mut Race) -> io::Result<Arc<TcpStream>> {
        loop {
            if let Some(socket) = race.step(Instant::now())? {
                return Ok(socket);
            }
            wait::wait(&race.wants(), race.next())?;
        }
    }

    #[test]
    fn a_dead_address_is_passed_over() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addresses = vec![dead, server.local_addr().unwrap()];
        let socket = run(&mut Race::new(addresses, Instant::now())).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), server.local_addr().unwrap());
        assert!(socket.nodelay().unwrap());
        let error = run(&mut Race::new(vec![dead], Instant::now())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(run(&mut Race::new(vec![], Instant::now())).is_err());
    }
}
