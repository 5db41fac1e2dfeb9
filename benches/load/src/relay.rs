//! The floor: bytes in, the same bytes out, one connection there for each one here.

use std::collections::HashMap;
use std::error::Error;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use polling::{Event, Events, PollMode, Poller};

use crate::listen;

const LISTENER: usize = 0;

/// A side of a pair: its socket, and what waits to be written to it.
struct Side {
    socket: TcpStream,
    held: Vec<u8>,
    /// Whether the other side has said its last.
    last: bool,
}

impl Side {
    fn build(socket: TcpStream) -> Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, held: Vec::new(), last: false })
    }

    /// Writes at once what it can; whether that was all.
    fn write(&mut self, bytes: &[u8]) -> Result<bool> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.held.extend_from_slice(rest);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes what was held; whether that was all.
    fn flush(&mut self) -> Result<bool> {
        let held = std::mem::take(&mut self.held);
        self.write(&held)
    }
}

/// Hands on what comes to what listens at this address.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> std::result::Result<(), Box<dyn Error>> {
    let target = words.next().ok_or("ADDRESS is missing")?.parse()?;
    let listener = listen()?;
    let poller = Poller::new()?;
    // SAFETY: both live as long as the process.
    unsafe { poller.add_with_mode(&listener, Event::readable(LISTENER), PollMode::Level)? };
    Ok(Relay { target, listener, poller, sides: HashMap::new(), key: 2, buffer: vec![0; 1 << 16] }.run()?)
}

struct Relay {
    target: SocketAddr,
    listener: TcpListener,
    poller: Poller,
    /// The two sides of a pair have keys that differ in the last bit.
    sides: HashMap<usize, Side>,
    key: usize,
    buffer: Vec<u8>,
}

impl Relay {
    fn run(&mut self) -> Result<()> {
        let mut events = Events::new();
        loop {
            events.clear();
            match self.poller.wait(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in events.iter() {
                if event.key == LISTENER {
                    self.accept()?;
                } else if !self.turn(event).unwrap_or(false) {
                    self.close(event.key);
                    self.close(event.key ^ 1);
                }
            }
        }
    }

    /// The connection to the other side is made here and now: it is on this machine.
    fn accept(&mut self) -> Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let pair = [Side::build(socket)?, Side::build(TcpStream::connect(self.target)?)?];
            for (place, side) in pair.into_iter().enumerate() {
                let key = self.key + place;
                // SAFETY: `close` takes it out of the poller before it is dropped.
                unsafe { self.poller.add_with_mode(&side.socket, Event::readable(key), PollMode::Level)? };
                self.sides.insert(key, side);
            }
            self.key += 2;
        }
    }

    /// Whether the pair goes on.
    fn turn(&mut self, event: Event) -> Result<bool> {
        let [Some(side), Some(other)] = self.sides.get_disjoint_mut([&event.key, &(event.key ^ 1)]) else {
            return Ok(true);
        };
        if event.writable {
            if !side.flush()? {
                return Ok(true);
            }
            if side.last {
                return Ok(false);
            }
            self.poller.modify_with_mode(&side.socket, Event::readable(event.key), PollMode::Level)?;
            self.poller.modify_with_mode(&other.socket, Event::readable(event.key ^ 1), PollMode::Level)?;
        }
        if event.readable {
            let count = match side.socket.read(&mut self.buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(true);
                }
                found => found?,
            };
            if count == 0 {
                other.last = true;
                return Ok(!other.held.is_empty());
            }
            if !other.write(self.buffer.get(..count).unwrap_or_default())? {
                // Whoever does not read is not read for.
                self.poller.modify_with_mode(&side.socket, Event::none(event.key), PollMode::Level)?;
                self.poller.modify_with_mode(&other.socket, Event::writable(event.key ^ 1), PollMode::Level)?;
            }
        }
        Ok(true)
    }

    /// Whoever has gone has gone: that is no error here.
    fn close(&mut self, key: usize) {
        if let Some(side) = self.sides.remove(&key) {
            let _ = self.poller.delete(&side.socket);
        }
    }
}
