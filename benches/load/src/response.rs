//! Reads responses as they come: framing, events, the first one's time, and the times that stamped texts carry.

use std::time::Instant;

/// A line that is longer is no event of the benches.
const LINE_LIMIT: usize = 1 << 20;
/// Digits of a time stamp.
const DIGITS: usize = 19;

#[derive(Debug)]
enum State {
    Head,
    /// So many bytes are left of the body.
    Sized(usize),
    /// The line with a chunk's size, as far as it has come.
    Size(Vec<u8>),
    /// So many bytes are left of the chunk, its line end included.
    Chunk(usize),
    /// The lines after the last chunk; whether the current one has anything in it.
    Trailer(bool),
    Done,
}

/// One response.
#[derive(Debug)]
pub(crate) struct Response {
    state: State,
    head: Vec<u8>,
    pub(crate) status: u16,
    /// Whether the connection ends with it.
    pub(crate) closes: bool,
    /// When its first event came; of a whole document, its first byte.
    pub(crate) first: Option<Instant>,
    pub(crate) events: usize,
    /// The line that is being read, and the data line before it.
    line: Vec<u8>,
    last: Vec<u8>,
    /// The data line before the last: where the usage is.
    before: Vec<u8>,
    whole: bool,
}

impl Response {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
            status: 0,
            closes: false,
            first: None,
            events: 0,
            line: Vec::new(),
            last: Vec::new(),
            before: Vec::new(),
            whole: false,
        }
    }

    /// Takes what came; true when that was the end. `stamp` is told every time stamp.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], stamp: &mut impl FnMut(u64)) -> Result<bool, String> {
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Head => self.feed_head(bytes)?,
                State::Sized(left) => {
                    let (body, rest) = bytes.split_at((*left).min(bytes.len()));
                    *left -= body.len();
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    self.feed_body(body, stamp)?;
                    rest
                }
                State::Size(line) => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        line.extend_from_slice(bytes);
                        return Ok(false);
                    };
                    let (more, rest) = bytes.split_at(end + 1);
                    line.extend_from_slice(more);
                    let text = String::from_utf8_lossy(line);
                    let digits = text.split(';').next().unwrap_or_default().trim();
                    let size = usize::from_str_radix(digits, 16).map_err(|_| format!("a chunk's size: {text:?}"))?;
                    self.state = if size == 0 { State::Trailer(false) } else { State::Chunk(size + 2) };
                    rest
                }
                State::Chunk(left) => {
                    let (body, rest) = bytes.split_at((*left).min(bytes.len()));
                    let text = left.saturating_sub(2).min(body.len());
                    *left -= body.len();
                    if *left == 0 {
                        self.state = State::Size(Vec::new());
                    }
                    self.feed_body(body.get(..text).unwrap_or_default(), stamp)?;
                    rest
                }
                State::Trailer(filled) => {
                    let (byte, rest) = bytes.split_at(1);
                    match byte {
                        b"\n" if !*filled => self.state = State::Done,
                        b"\n" => *filled = false,
                        b"\r" => {}
                        _ => *filled = true,
                    }
                    rest
                }
                State::Done => return Err("bytes after the end".to_owned()),
            };
        }
        Ok(matches!(self.state, State::Done))
    }

    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let known = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = known.saturating_sub(3);
        let Some(end) = self.head.get(from..).and_then(|part| part.windows(4).position(|four| four == b"\r\n\r\n"))
        else {
            return Ok(&[]);
        };
        let used = from + end + 4 - known;
        self.head.truncate(known + used);
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim())
        };
        self.status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("not a response")?;
        self.closes = field("connection") == Some("close");
        self.whole = !field("content-type").unwrap_or_default().starts_with("text/event-stream");
        self.state = if field("transfer-encoding") == Some("chunked") {
            State::Size(Vec::new())
        } else {
            match field("content-length").and_then(|value| value.parse().ok()) {
                Some(0) => State::Done,
                Some(length) => State::Sized(length),
                None => return Err("a body without a length".to_owned()),
            }
        };
        Ok(bytes.get(used..).unwrap_or_default())
    }

    fn feed_body(&mut self, mut body: &[u8], stamp: &mut impl FnMut(u64)) -> Result<(), String> {
        if self.whole {
            self.first.get_or_insert_with(Instant::now);
            self.before.extend_from_slice(body);
            return Ok(());
        }
        while let Some(end) = body.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = body.split_at(end + 1);
            self.line.extend_from_slice(line);
            body = rest;
            self.end_line(stamp);
        }
        self.line.extend_from_slice(body);
        if self.line.len() > LINE_LIMIT { Err("a line without an end".to_owned()) } else { Ok(()) }
    }

    fn end_line(&mut self, stamp: &mut impl FnMut(u64)) {
        if self.line.starts_with(b"data:") {
            self.first.get_or_insert_with(Instant::now);
            self.events += usize::from(self.line.get(5..).is_some_and(|data| data.trim_ascii().starts_with(b"{")));
            if let Some(found) = time_stamp(&self.line) {
                stamp(found);
            }
            std::mem::swap(&mut self.before, &mut self.last);
            std::mem::swap(&mut self.last, &mut self.line);
        }
        self.line.clear();
    }

    /// Whether it ended as it should: with this text, or as a whole document.
    pub(crate) fn complete(&self, end: &str) -> bool {
        self.status == 200
            && (self.whole || self.last.get(5..).is_some_and(|data| data.trim_ascii().starts_with(end.as_bytes())))
    }

    /// Whether the usage was told in the last event but the mark of the end, or in the document.
    pub(crate) fn usage(&self) -> bool {
        let found = |text: &[u8], name: &[u8]| text.windows(name.len()).any(|window| window == name);
        found(&self.before, b"\"total_tokens\"") || found(&self.before, b"\"output_tokens\"")
    }

    /// What it said, for a message about what was wrong with it.
    pub(crate) fn said(&self) -> String {
        let text = if self.whole { &self.before } else { &self.last };
        format!("{} {}", self.status, String::from_utf8_lossy(text).chars().take(300).collect::<String>())
    }
}

/// The time that a text begins with.
fn time_stamp(line: &[u8]) -> Option<u64> {
    line.split(|byte| *byte == b'"')
        .filter_map(|text| text.get(..DIGITS))
        .find(|text| text.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]
mod tests {
    use super::Response;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
        6\r\n: wait\r\n2\r\n\n\n\r\n2a\r\ndata: {\"content\":\"1763800000000000001hi\"}\n\r\n1\r\n\n\r\n\
        20\r\ndata: {\"total_tokens\":3}\n\ndata: \r\n8\r\n[DONE]\n\n\r\n0\r\nx: y\r\n\r\n";

    #[test]
    fn a_stream_is_read_wherever_it_is_cut() {
        for cut in 0..STREAM.len() {
            let (mut response, mut stamps) = (Response::new(), Vec::new());
            let (one, two) = STREAM.split_at(cut);
            assert!(!response.feed(one, &mut |found| stamps.push(found)).unwrap());
            assert!(response.feed(two, &mut |found| stamps.push(found)).unwrap());
            assert_eq!((response.events, stamps), (2, vec![1_763_800_000_000_000_001]));
            assert!(response.complete("[DONE]") && response.usage() && !response.closes);
        }
    }

    #[test]
    fn a_document_is_read_by_its_length() {
        let mut response = Response::new();
        let text =
            b"HTTP/1.1 500 Oh\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        assert!(response.feed(text, &mut |_| ()).unwrap());
        assert!(response.closes && !response.complete("[DONE]"));
        assert_eq!(response.said(), "500 {}");
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        assert!(Response::new().feed(b"hello\r\n\r\n", &mut |_| ()).is_err());
        let bad = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n";
        assert!(Response::new().feed(bad, &mut |_| ()).is_err());
    }
}
