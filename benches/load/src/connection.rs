//! One connection: requests come one after the other, each with its length.

use std::io::{Error, ErrorKind, Result};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::link::Link;
use crate::recording::{Asked, Found, HEAD, Library};

/// A request is read up to here.
const LIMIT: usize = 1 << 20;

/// What a connection waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// This time, to send more.
    Due(Instant),
    /// The next request.
    Request,
    /// Room in the socket.
    Writable,
    /// It had waited for room: nothing any more, or this time.
    Flushed(Option<Instant>),
}

#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    request: Vec<u8>,
    answer: Option<Asked>,
    due: Instant,
    /// What is being sent, and how much of it has been.
    out: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(crate) fn build(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Self> {
        let link = Link::build(socket, tls)?;
        Ok(Self { link, request: Vec::new(), answer: None, due: Instant::now(), out: Vec::new(), sent: 0 })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.link.socket()
    }

    /// The socket is ready for what was waited for.
    pub(crate) fn ready(&mut self, library: &Library) -> Result<Next> {
        if self.out.is_empty() { self.read(library) } else { self.flush() }
    }

    /// Reads what there is, and begins to answer when it is a whole request.
    fn read(&mut self, library: &Library) -> Result<Next> {
        let mut buffer = [0; 8192];
        let count = match self.link.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if retry(&error) => return Ok(Next::Request),
            Err(error) => return Err(error),
        };
        self.request.extend(buffer.iter().take(count));
        if self.request.len() > LIMIT {
            return Err(Error::other("the request is too long"));
        }
        let Some((path, end)) = parse(&self.request)? else {
            return Ok(Next::Request);
        };
        let found = library.find(&path);
        self.request.drain(..end);
        match found {
            Ok(Found::Stream(asked)) => self.begin(asked),
            Ok(Found::Whole(answer)) => {
                self.out.extend_from_slice(&answer);
                self.write()
            }
            Err(message) => {
                let length = message.len();
                let head = "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\n";
                self.out.extend_from_slice(format!("{head}content-length: {length}\r\n\r\n{message}").as_bytes());
                self.write()
            }
        }
    }

    fn begin(&mut self, mut asked: Asked) -> Result<Next> {
        self.due = Instant::now() + milliseconds(asked.lag);
        if let Some(after) = asked.after {
            self.due += milliseconds(after);
        } else {
            self.out.extend_from_slice(HEAD);
        }
        if asked.every.is_some() || asked.after.is_some() {
            self.answer = Some(asked);
        } else {
            asked.write_all(&mut self.out);
        }
        self.write()
    }

    /// Sends the next piece.
    pub(crate) fn send(&mut self) -> Result<Next> {
        if let Some(answer) = &mut self.answer {
            if answer.after.take().is_some() {
                self.out.extend_from_slice(HEAD);
            }
            let more = if let Some(every) = answer.every {
                self.due += milliseconds(every);
                answer.write_next(&mut self.out)
            } else {
                answer.write_all(&mut self.out);
                false
            };
            if !more {
                self.answer = None;
            }
        }
        self.write()
    }

    /// Sends what did not fit before.
    fn flush(&mut self) -> Result<Next> {
        Ok(match self.write()? {
            Next::Due(due) => Next::Flushed(Some(due)),
            Next::Request => Next::Flushed(None),
            next => next,
        })
    }

    fn write(&mut self) -> Result<Next> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.link.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if retry(&error) => return Ok(Next::Writable),
                Err(error) => return Err(error),
            }
        }
        match self.link.flush() {
            Err(error) if retry(&error) => return Ok(Next::Writable),
            outcome => outcome?,
        }
        self.out.clear();
        self.sent = 0;
        Ok(if self.answer.is_some() { Next::Due(self.due) } else { Next::Request })
    }
}

fn milliseconds(count: f64) -> Duration {
    Duration::from_secs_f64(count / 1000.0)
}

fn retry(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The path of a request that is whole, and where it ends.
fn parse(request: &[u8]) -> Result<Option<(String, usize)>> {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = request.split_at(end + 4);
    let head = std::str::from_utf8(head).map_err(Error::other)?;
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(|| Error::other("not a request"))?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())
        .map_err(Error::other)?;
    Ok((body.len() >= length).then(|| (path.to_owned(), end + 4 + length)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]
mod tests {
    use super::parse;

    #[test]
    fn a_request_is_whole_with_its_body() {
        let request = b"POST /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..request.len() {
            assert_eq!(parse(&request[..end]).unwrap(), None);
        }
        assert_eq!(parse(request).unwrap(), Some(("/a/b".to_owned(), request.len())));
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        assert!(parse(b"hello\r\n\r\n").is_err());
        assert!(parse(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n").is_err());
    }
}
