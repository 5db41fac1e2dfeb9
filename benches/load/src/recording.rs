//! The streams that are served: files of server-sent events, cut and framed once.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every answer starts with.
pub(crate) const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    transfer-encoding: chunked\r\nx-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 12\r\n\r\n";
const END: &[u8] = b"0\r\n\r\n";
/// Where a time stamp goes: at the beginning of the text.
const TEXT: &[u8] = b"\"content\":\"";
/// Nanoseconds since 1970, in as many digits until 2286.
const DIGITS: usize = 19;
/// The finish reason, the usage and the mark of the end.
const LAST: usize = 3;

/// One event as a chunk of HTTP.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// Where its time stamp is, in a stream that has them.
    stamp: Option<usize>,
}

impl Piece {
    fn build(event: &[u8], stamped: bool) -> Self {
        let place = event.windows(TEXT.len()).position(|window| window == TEXT).filter(|_| stamped);
        let (before, after) = event.split_at(place.map_or(0, |place| place + TEXT.len()));
        let stamp: &[u8] = if place.is_some() { &[b'0'; DIGITS] } else { &[] };
        let mut bytes = format!("{:x}\r\n", event.len() + stamp.len()).into_bytes();
        bytes.extend_from_slice(before);
        let stamp = place.map(|_| bytes.len()).inspect(|_| bytes.extend_from_slice(stamp));
        bytes.extend_from_slice(after);
        bytes.extend_from_slice(b"\r\n");
        Self { bytes, stamp }
    }
}

/// A stream's events: the first, those with text, which repeat as often as it takes, and the last three.
#[derive(Debug)]
struct Events {
    first: Piece,
    middle: Vec<Piece>,
    last: Vec<Piece>,
}

impl Events {
    fn build(text: &[u8], stamped: bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(end) = rest.windows(2).position(|window| window == b"\n\n") {
            let (event, others) = rest.split_at(end + 2);
            pieces.push(Piece::build(event, stamped));
            rest = others;
        }
        let last = pieces.split_off(pieces.len().checked_sub(LAST)?);
        let middle = pieces.split_off(1.min(pieces.len()));
        let first = pieces.pop()?;
        (!middle.is_empty()).then_some(Self { first, middle, last })
    }

    /// The piece at this place in a stream with `count` texts; none after the end.
    fn get(&self, place: usize, count: usize) -> Option<&Piece> {
        match place.checked_sub(1) {
            None => Some(&self.first),
            Some(text) if text < count => self.middle.get(text % self.middle.len()),
            Some(beyond) => self.last.get(beyond - count),
        }
    }
}

/// What a request's path asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    events: Rc<Events>,
    count: usize,
    /// Milliseconds between the pieces; `None` sends them all at once.
    pub(crate) every: Option<f64>,
    next: usize,
}

impl Asked {
    /// Appends what comes next; false if it was the end of the body.
    pub(crate) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(piece) = self.events.get(self.next, self.count) else {
            out.extend_from_slice(END);
            return false;
        };
        let begin = out.len();
        out.extend_from_slice(&piece.bytes);
        if let Some(place) = piece.stamp.and_then(|stamp| out.get_mut(begin + stamp..begin + stamp + DIGITS)) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            place.copy_from_slice(format!("{now:0DIGITS$}").as_bytes());
        }
        self.next += 1;
        true
    }

    pub(crate) fn write_all(&mut self, out: &mut Vec<u8>) {
        while self.write_next(out) {}
    }
}

/// All recordings by name, plain and with time stamps.
#[derive(Debug, Default)]
pub(crate) struct Library {
    recordings: HashMap<String, [Rc<Events>; 2]>,
}

impl Library {
    pub(crate) fn insert(&mut self, name: &str, text: &[u8]) -> Result<(), String> {
        let (Some(plain), Some(stamped)) = (Events::build(text, false), Events::build(text, true)) else {
            return Err(format!("{name}: expected five server-sent events or more"));
        };
        self.recordings.insert(name.to_owned(), [Rc::new(plain), Rc::new(stamped)]);
        Ok(())
    }

    /// Finds what a path like `/plain/pace/100/5/stamped/v1/chat/completions` asks for.
    pub(crate) fn find(&self, path: &str) -> Result<Asked, String> {
        let mut words = path.trim_matches('/').split('/').peekable();
        let name = words.next().unwrap_or_default();
        let recording = self.recordings.get(name).ok_or_else(|| format!("there is no recording {name:?}"))?;
        let shape = words.next().unwrap_or_default();
        let count = words.next().unwrap_or_default();
        let count = count.parse().map_err(|_| format!("expected a number of texts, got {count:?}"))?;
        let every = match shape {
            "burst" => None,
            "each" => Some(0.0),
            "pace" => {
                let every = words.next().unwrap_or_default();
                let known = every.parse().ok().filter(|every| (0.0..=1e9).contains(every));
                Some(known.ok_or_else(|| format!("expected milliseconds, got {every:?}"))?)
            }
            _ => return Err(format!("expected burst, each or pace, got {shape:?}")),
        };
        let [plain, stamped] = recording;
        let events = if words.next_if_eq(&"stamped").is_some() { stamped } else { plain };
        Ok(Asked { events: Rc::clone(events), count, every, next: 0 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::{Library, SystemTime, UNIX_EPOCH};

    const EVENTS: &[u8] = b"data: role\n\ndata: {\"content\":\"a\"}\n\ndata: {\"content\":\"b\"}\n\ndata: stop\n\n\
        data: usage\n\ndata: [DONE]\n\n";

    fn body(path: &str) -> String {
        let mut library = Library::default();
        library.insert("plain", EVENTS).unwrap();
        let mut out = Vec::new();
        library.find(path).unwrap().write_all(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_stream_has_as_many_texts_as_asked_for() {
        let texts = |count| body(&format!("/plain/burst/{count}/v1")).matches("content").count();
        assert_eq!([texts(0), texts(1), texts(2), texts(7)], [0, 1, 2, 7]);
    }

    #[test]
    fn a_stream_is_framed_to_the_letter() {
        let expected = "c\r\ndata: role\n\n\r\n17\r\ndata: {\"content\":\"a\"}\n\n\r\nc\r\ndata: stop\n\n\r\n\
            d\r\ndata: usage\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
        assert_eq!(body("/plain/burst/1/v1"), expected);
    }

    #[test]
    fn a_time_stamp_leads_the_text() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let body = body("/plain/each/1/stamped/v1/chat/completions");
        let (_, rest) = body.split_once("2a\r\ndata: {\"content\":\"").unwrap();
        let (stamp, rest) = rest.split_at(19);
        assert!(stamp.parse::<u128>().unwrap() >= before);
        assert!(rest.starts_with("a\"}\n\n\r\n"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut library = Library::default();
        library.insert("plain", EVENTS).unwrap();
        for (path, message) in [
            ("/", "there is no recording \"\""),
            ("/plain/flood/1", "expected burst, each or pace, got \"flood\""),
            ("/plain/burst/many", "expected a number of texts, got \"many\""),
            ("/plain/pace/1/soon", "expected milliseconds, got \"soon\""),
            ("/plain/pace/1/-1", "expected milliseconds, got \"-1\""),
        ] {
            assert_eq!(library.find(path).unwrap_err(), message);
        }
        assert_eq!(
            library.insert("short", b"data: 1\n\n").unwrap_err(),
            "short: expected five server-sent events or more"
        );
    }
}
