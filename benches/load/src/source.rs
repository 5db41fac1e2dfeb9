//! Serves recordings: one thread, every connection's answer in turn or on its schedule.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::error::Error;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode, Poller};
use rustls::ServerConfig;

use crate::connection::{Connection, Next};
use crate::link::secure;
use crate::recording::Library;
use crate::{http2, listen};

const LISTENER: usize = 0;
/// So many turns pass before the sockets are looked at, while there is always something due.
const TURNS: u32 = 32;

/// Serves these files, each under its name: `FILE.json` whole, `FILE.sse` or `FILE.sse:LEAD` as a stream with so many
/// events before those with text.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut library = Library::default();
    let (mut authority, mut http2) = (None, false);
    while let Some(named) = words.next() {
        match named.as_str() {
            "--tls" => {
                authority = Some(words.next().ok_or("--tls needs a file")?);
                continue;
            }
            "--http2" => {
                http2 = true;
                continue;
            }
            _ => {}
        }
        let (file, lead) = named.rsplit_once(':').unwrap_or((&named, "1"));
        let lead = lead.parse().map_err(|_| format!("{named}: not a number of events before the text"))?;
        let path = Path::new(file);
        let name =
            path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| format!("{file}: not a file's name"))?;
        let text = std::fs::read(path).map_err(|error| format!("{file}: {error}"))?;
        if path.extension().is_some_and(|kind| kind == "json") {
            library.insert_whole(name, &text);
        } else {
            library.insert(name, &text, lead)?;
        }
    }
    let spoken: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
    let tls = authority.map(|file| secure(Path::new(&file), spoken)).transpose()?;
    let listener = listen()?;
    match tls {
        Some(tls) if http2 => http2::run(library, listener, tls),
        None if http2 => Err("--http2 needs --tls".into()),
        tls => Ok(Server::build(library, listener, tls)?.run()?),
    }
}

struct Server {
    library: Library,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    poller: Poller,
    connections: HashMap<usize, Connection>,
    /// Keys are never used twice: what is due for a connection that is gone finds nothing.
    key: usize,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Server {
    fn build(library: Library, listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> std::io::Result<Self> {
        let poller = Poller::new()?;
        // SAFETY: both live as long as the server, and the poller is dropped with it.
        unsafe { poller.add_with_mode(&listener, Event::readable(LISTENER), PollMode::Level)? };
        Ok(Self { library, listener, tls, poller, connections: HashMap::new(), key: LISTENER, due: BinaryHeap::new() })
    }

    fn run(&mut self) -> std::io::Result<()> {
        let mut events = Events::new();
        let mut batch = Vec::new();
        let mut turns = 0;
        loop {
            let now = Instant::now();
            while let Some(Reverse((due, key))) = self.due.peek().copied()
                && due <= now
            {
                self.due.pop();
                batch.push(key);
            }
            turns = if batch.is_empty() { TURNS } else { turns + 1 };
            for key in batch.drain(..) {
                self.turn(key, |connection, _| connection.send());
            }
            if turns < TURNS {
                continue;
            }
            turns = 0;
            events.clear();
            let timeout = self.due.peek().map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()));
            self.wait(&mut events, timeout)?;
            for event in events.iter() {
                if event.key == LISTENER {
                    self.accept()?;
                } else {
                    self.turn(event.key, Connection::ready);
                }
            }
        }
    }

    fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> std::io::Result<()> {
        match self.poller.wait(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn accept(&mut self) -> std::io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    self.key += 1;
                    let connection = Connection::build(socket, self.tls.as_ref())?;
                    // SAFETY: `close` takes it out of the poller before it is dropped.
                    unsafe {
                        self.poller.add_with_mode(connection.socket(), Event::readable(self.key), PollMode::Level)?;
                    }
                    self.connections.insert(self.key, connection);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn turn(&mut self, key: usize, step: impl FnOnce(&mut Connection, &Library) -> std::io::Result<Next>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        match step(connection, &self.library) {
            Ok(next) => self.follow(key, next),
            Err(_) => self.close(key),
        }
    }

    fn follow(&mut self, key: usize, next: Next) {
        let interest = match next {
            Next::Due(due) => return self.due.push(Reverse((due, key))),
            Next::Request => return,
            Next::Writable => Event::writable(key),
            Next::Flushed(due) => {
                self.due.extend(due.map(|due| Reverse((due, key))));
                Event::readable(key)
            }
        };
        let changed = self
            .connections
            .get(&key)
            .map(|connection| self.poller.modify_with_mode(connection.socket(), interest, PollMode::Level));
        if let Some(Err(_)) = changed {
            self.close(key);
        }
    }

    /// Whoever has gone has gone: that is no error here.
    fn close(&mut self, key: usize) {
        if let Some(connection) = self.connections.remove(&key) {
            let _ = self.poller.delete(connection.socket());
        }
    }
}
