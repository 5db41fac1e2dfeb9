//! Waiting for sockets, and the blocking way to do it.

use std::io;
#[cfg(unix)]
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A socket that somebody waits for.
#[derive(Clone, Debug)]
pub struct Want {
    pub socket: Arc<TcpStream>,
    pub readable: bool,
    pub writable: bool,
}

/// Blocks until one of the sockets is ready, or the time has come: then the answer is false.
///
/// A signal ends it with [`io::ErrorKind::Interrupted`].
pub fn wait(wants: &[Want], until: Option<Instant>) -> io::Result<bool> {
    let left = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
    // One socket is the rule; several are tried only while connecting.
    if let [want] = wants {
        return Ok(poll(&mut [watched(want)], left.as_ref())? > 0);
    }
    let mut sockets: Vec<_> = wants.iter().map(watched).collect();
    Ok(poll(&mut sockets, left.as_ref())? > 0)
}

/// What wakes a thread that waits for a socket.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Alarm {
    reader: io::PipeReader,
    writer: io::PipeWriter,
    armed: AtomicBool,
}

#[cfg(unix)]
impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer, armed: AtomicBool::new(false) })
    }

    /// From here on it rings, once.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn ring(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            // One byte for each time it is armed: there is room.
            let _ = (&self.writer).write(&[0]);
        }
    }

    /// As [`wait`], until it rings.
    pub(crate) fn wait(&self, want: &Want, until: Instant) -> io::Result<bool> {
        let left = timespec(until.saturating_duration_since(Instant::now()));
        let mut watched = [watched(want), PollFd::new(&self.reader, PollFlags::IN)];
        let ready = poll(&mut watched, Some(&left))? > 0;
        let rang = !watched[1].revents().is_empty();
        self.armed.store(false, Ordering::SeqCst);
        if rang {
            let _ = (&self.reader).read(&mut [0]);
        }
        Ok(ready)
    }
}

/// Whether a socket has something to read, or its end.
pub(crate) fn is_readable(socket: &TcpStream) -> bool {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut sockets, Some(&timespec(Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

/// Whether a socket that connects has come to an end with it, good or bad.
pub(crate) fn is_settled(socket: &TcpStream) -> bool {
    let mut sockets = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut sockets, Some(&timespec(Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

fn watched(want: &Want) -> PollFd<'_> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, want.readable);
    flags.set(PollFlags::OUT, want.writable);
    PollFd::new(&want.socket, flags)
}

fn timespec(left: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}
