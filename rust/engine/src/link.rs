//! A connection as a pair of byte streams: a socket, with TLS around it, or with TLS within TLS.

use std::any::Any;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;

use crate::tls;
use crate::wait::{self, Want};

/// What whoever drives transfers leaves with a connection for the next one: that an event loop watches its socket, say.
pub trait Keepsake: Any + Debug + Send + Sync {
    /// Whether nothing came meanwhile, for all that is known.
    fn is_quiet(&self) -> bool;
}

/// A connection that stands. Reads and writes never block: they fail with [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Arc<TcpStream>,
    /// The outermost first: the proxy's, then the server's.
    layers: Vec<ClientConnection>,
    pub(crate) kept: Option<Arc<dyn Keepsake>>,
}

/// A read or write that failed.
pub(crate) enum Fault {
    Io(io::Error),
    Tls(rustls::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    pub(crate) fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether it is no failure but a wait that brought nothing: it did not begin, ran out, or was interrupted.
    pub(crate) fn is_nothing_yet(&self) -> bool {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        matches!(self, Self::Io(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted))
    }

    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}")),
        }
    }
}

impl Link {
    pub(crate) fn new(socket: Arc<TcpStream>) -> Self {
        Self { socket, layers: Vec::new(), kept: None }
    }

    /// Puts TLS around everything from here on. `handshake` does the rest.
    pub(crate) fn secure(&mut self, layer: ClientConnection) {
        self.layers.push(layer);
    }

    /// Whether no TLS is around it.
    pub(crate) fn is_bare(&self) -> bool {
        self.layers.is_empty()
    }

    /// Whether the last layer's handshake is not done.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.layers.last().is_some_and(|layer| layer.is_handshaking())
    }

    /// Whether the server chose HTTP/2 in the handshake.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.layers.last().is_some_and(|layer| layer.alpn_protocol() == Some(tls::HTTP2))
    }

    /// Goes on with the handshake of the last layer.
    pub(crate) fn handshake(&mut self) -> Result<(), Fault> {
        let Some((layer, below)) = self.layers.split_last_mut() else { return Ok(()) };
        let mut below = Below { socket: &self.socket, layers: below };
        let outcome = shake(layer, &mut below);
        if matches!(&outcome, Err(Fault::Io(error)) if error.kind() != io::ErrorKind::WouldBlock) {
            // It stopped listening; it may have said why.
            while layer.read_tls(&mut below).is_ok_and(|count| count > 0) {
                layer.process_new_packets().map_err(Fault::Tls)?;
            }
        }
        outcome
    }

    /// Some bytes; 0 at the end, if the other side ended properly.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Fault> {
        Below { socket: &self.socket, layers: &mut self.layers }.receive(into)
    }

    /// Takes some of the bytes and sends what it can.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        Ok(Below { socket: &self.socket, layers: &mut self.layers }.write(bytes)?)
    }

    /// Sends what is still held: false if not all could be sent.
    pub(crate) fn flush(&mut self) -> Result<bool, Fault> {
        match (Below { socket: &self.socket, layers: &mut self.layers }).flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What to wait for to go on reading, or, with `writing`, to go on with either.
    pub(crate) fn want(&self, writing: bool) -> Want {
        let writable = writing || self.layers.iter().any(|layer| layer.wants_write());
        Want { socket: self.socket.clone(), readable: true, writable }
    }

    /// Whether an idle connection is still good for a request: open, and silent.
    pub(crate) fn is_fresh(&mut self) -> bool {
        let quiet = self.kept.as_ref().is_some_and(|kept| kept.is_quiet());
        if quiet || !wait::is_readable(&self.socket) {
            return true;
        }
        // Under TLS it may have been a session ticket.
        !self.layers.is_empty() && matches!(self.read(&mut [0]), Err(fault) if fault.would_block())
    }
}

/// Everything up to some layer.
struct Below<'a> {
    socket: &'a TcpStream,
    layers: &'a mut [ClientConnection],
}

impl Below<'_> {
    fn receive(&mut self, into: &mut [u8]) -> Result<usize, Fault> {
        let Some((top, below)) = self.layers.split_last_mut() else {
            return Ok(self.socket.read(into)?);
        };
        let mut below = Below { socket: self.socket, layers: below };
        loop {
            match top.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Ok(other?),
            }
            top.read_tls(&mut below)?;
            process(top, &mut below)?;
        }
    }
}

impl Read for Below<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receive(into).map_err(Fault::into_io)
    }
}

impl Write for Below<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((top, below)) = self.layers.split_last_mut() else { return self.socket.write(bytes) };
        let mut below = Below { socket: self.socket, layers: below };
        let taken = top.writer().write(bytes)?;
        match send_out(top, &mut below) {
            Ok(()) => Ok(taken),
            // What is taken is sent later; nothing taken is nothing done.
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => Ok(taken),
            Err(fault) => Err(fault.into_io()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some((top, below)) = self.layers.split_last_mut() else { return Ok(()) };
        let mut below = Below { socket: self.socket, layers: below };
        send_out(top, &mut below).map_err(Fault::into_io)?;
        below.flush()
    }
}

fn shake(layer: &mut ClientConnection, below: &mut Below<'_>) -> Result<(), Fault> {
    while layer.is_handshaking() {
        send_out(layer, below)?;
        if layer.is_handshaking() {
            if layer.read_tls(below)? == 0 {
                return Err(Fault::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            process(layer, below)?;
        }
    }
    send_out(layer, below)
}

fn send_out(layer: &mut ClientConnection, below: &mut Below<'_>) -> Result<(), Fault> {
    while layer.wants_write() {
        layer.write_tls(below)?;
    }
    Ok(())
}

fn process(layer: &mut ClientConnection, below: &mut Below<'_>) -> Result<(), Fault> {
    let outcome = layer.process_new_packets();
    // An alert, a key update: what has to be said is said, if it can be at once.
    let said = send_out(layer, below);
    outcome.map_err(Fault::Tls)?;
    match said {
        Err(fault) if !fault.would_block() => Err(fault),
        _ => Ok(()),
    }
}
