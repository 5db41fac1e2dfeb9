//! The streams that are served: files of server-sent events, cut and framed once.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every answer starts with.
pub(crate) const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    transfer-encoding: chunked\r\nx-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 12\r\n\r\n";
const END: &[u8] = b"0\r\n\r\n";
/// Where a time stamp goes: at the beginning of the text, which one family or the other calls so.
const TEXTS: [&[u8]; 2] = [b"\"content\":\"", b"\"text\":\""];
/// Nanoseconds since 1970, in as many digits until 2286.
const DIGITS: usize = 19;
/// Multiples of it, without what is before the point, are spread as evenly as can be, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_8;
/// The finish reason, the usage and the mark of the end; or a block's end, the usage and the message's end.
const LAST: usize = 3;

/// One event as a chunk of HTTP.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// Where the event itself begins, behind its size.
    begin: usize,
    /// Where its time stamp is, in a stream that has them.
    stamp: Option<usize>,
}

impl Piece {
    fn build(event: &[u8], stamped: bool) -> Self {
        let place = TEXTS
            .iter()
            .find_map(|text| event.windows(text.len()).position(|window| window == *text).map(|at| at + text.len()))
            .filter(|_| stamped);
        let (before, after) = event.split_at(place.unwrap_or(0));
        let stamp: &[u8] = if place.is_some() { &[b'0'; DIGITS] } else { &[] };
        let mut bytes = format!("{:x}\r\n", event.len() + stamp.len()).into_bytes();
        let begin = bytes.len();
        bytes.extend_from_slice(before);
        let stamp = place.map(|_| bytes.len()).inspect(|_| bytes.extend_from_slice(stamp));
        bytes.extend_from_slice(after);
        bytes.extend_from_slice(b"\r\n");
        Self { bytes, begin, stamp }
    }
}

/// A stream's events: the first ones, those with text, which repeat as often as it takes, and the last three.
#[derive(Debug)]
struct Events {
    first: Vec<Piece>,
    middle: Vec<Piece>,
    last: Vec<Piece>,
}

impl Events {
    fn build(text: &[u8], lead: usize, stamped: bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(end) = rest.windows(2).position(|window| window == b"\n\n") {
            let (event, others) = rest.split_at(end + 2);
            pieces.push(Piece::build(event, stamped));
            rest = others;
        }
        let last = pieces.split_off(pieces.len().checked_sub(LAST)?);
        let middle = pieces.split_off(lead.min(pieces.len()));
        (!middle.is_empty()).then_some(Self { first: pieces, middle, last })
    }

    /// The piece at this place in a stream with `count` texts; none after the end.
    fn get(&self, place: usize, count: usize) -> Option<&Piece> {
        match place.checked_sub(self.first.len()) {
            None => self.first.get(place),
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
    /// Milliseconds before the head.
    pub(crate) after: Option<f64>,
    /// Milliseconds from now to the first piece.
    pub(crate) lag: f64,
    next: usize,
}

impl Asked {
    /// Appends what comes next; false if it was the end of the body.
    pub(crate) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let more = self.write_piece(out).is_some();
        if !more {
            out.extend_from_slice(END);
        }
        more
    }

    /// The same without the framing of HTTP/1.1; false if there was nothing more.
    pub(crate) fn write_event(&mut self, out: &mut Vec<u8>) -> bool {
        let at = out.len();
        let Some(begin) = self.write_piece(out) else { return false };
        out.drain(at..at + begin);
        out.truncate(out.len() - b"\r\n".len());
        true
    }

    /// Appends a piece with its framing, and tells where the event itself begins in it.
    fn write_piece(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        let piece = self.events.get(self.next, self.count)?;
        let begin = out.len();
        out.extend_from_slice(&piece.bytes);
        if let Some(place) = piece.stamp.and_then(|stamp| out.get_mut(begin + stamp..begin + stamp + DIGITS)) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            place.copy_from_slice(format!("{now:0DIGITS$}").as_bytes());
        }
        self.next += 1;
        Some(piece.begin)
    }

    pub(crate) fn write_all(&mut self, out: &mut Vec<u8>) {
        while self.write_next(out) {}
    }
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Found {
    Stream(Asked),
    /// A whole answer, its head included.
    Whole(Rc<[u8]>),
}

#[derive(Debug)]
enum Recording {
    /// Plain, and with time stamps.
    Stream([Rc<Events>; 2]),
    Whole(Rc<[u8]>),
}

/// All recordings by name.
#[derive(Debug, Default)]
pub(crate) struct Library {
    recordings: HashMap<String, Recording>,
    /// Streams that were to be apart.
    apart: Cell<u32>,
}

impl Library {
    /// A stream of which `lead` events come before those with text.
    pub(crate) fn insert(&mut self, name: &str, text: &[u8], lead: usize) -> Result<(), String> {
        let (Some(plain), Some(stamped)) = (Events::build(text, lead, false), Events::build(text, lead, true)) else {
            return Err(format!("{name}: expected {} server-sent events or more", lead + 1 + LAST));
        };
        self.recordings.insert(name.to_owned(), Recording::Stream([Rc::new(plain), Rc::new(stamped)]));
        Ok(())
    }

    /// A JSON document.
    pub(crate) fn insert_whole(&mut self, name: &str, document: &[u8]) {
        let length = document.len();
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
                .into_bytes();
        answer.extend_from_slice(document);
        self.recordings.insert(name.to_owned(), Recording::Whole(answer.into()));
    }

    /// Finds what a path like `/plain/pace/100/5/stamped/v1/chat/completions` asks for.
    pub(crate) fn find(&self, path: &str) -> Result<Found, String> {
        let mut words = path.trim_matches('/').split('/').peekable();
        let name = words.next().unwrap_or_default();
        let [plain, stamped] = match self.recordings.get(name) {
            Some(Recording::Stream(stream)) => stream,
            Some(Recording::Whole(answer)) => return Ok(Found::Whole(Rc::clone(answer))),
            None => return Err(format!("there is no recording {name:?}")),
        };
        let shape = words.next().unwrap_or_default();
        let count = words.next().unwrap_or_default();
        let count = count.parse().map_err(|_| format!("expected a number of texts, got {count:?}"))?;
        let every = match shape {
            "burst" => None,
            "each" => Some(0.0),
            "pace" => Some(milliseconds(words.next())?),
            _ => return Err(format!("expected burst, each or pace, got {shape:?}")),
        };
        let after = words.next_if_eq(&"after").map(|_| milliseconds(words.next())).transpose()?;
        let apart = words.next_if_eq(&"apart").is_some();
        let lag = every.filter(|every| apart && *every > 0.0).map_or(0.0, |every| self.lag(every));
        let events = if words.next_if_eq(&"stamped").is_some() { stamped } else { plain };
        Ok(Found::Stream(Asked { events: Rc::clone(events), count, every, after, lag, next: 0 }))
    }

    /// Each stream in its own place between two ticks of a clock that all have in common. When it is left to the
    /// requests, a client that sends many at once gets many pieces at once from then on, and wakes up once for all of
    /// them; one that sends them evenly wakes up for each.
    fn lag(&self, every: f64) -> f64 {
        let number = self.apart.get().wrapping_add(1);
        self.apart.set(number);
        let place = (f64::from(number) * GOLDEN).fract() * every;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0;
        (place - now).rem_euclid(every)
    }
}

fn milliseconds(word: Option<&str>) -> Result<f64, String> {
    let word = word.unwrap_or_default();
    let known = word.parse().ok().filter(|found| (0.0..=1e9).contains(found));
    known.ok_or_else(|| format!("expected milliseconds, got {word:?}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::{Asked, Found, Library, SystemTime, UNIX_EPOCH};

    const EVENTS: &[u8] = b"data: role\n\ndata: {\"content\":\"a\"}\n\ndata: {\"content\":\"b\"}\n\ndata: stop\n\n\
        data: usage\n\ndata: [DONE]\n\n";

    fn asked(path: &str) -> Asked {
        let mut library = Library::default();
        library.insert("plain", EVENTS, 1).unwrap();
        library.insert("late", EVENTS, 2).unwrap();
        let Found::Stream(asked) = library.find(path).unwrap() else { unreachable!() };
        asked
    }

    fn body(path: &str) -> String {
        let mut out = Vec::new();
        asked(path).write_all(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_stream_has_as_many_texts_as_asked_for() {
        let texts = |count| body(&format!("/plain/burst/{count}/v1")).matches("content").count();
        assert_eq!([texts(0), texts(1), texts(2), texts(7)], [0, 1, 2, 7]);
    }

    #[test]
    fn what_comes_before_the_texts_comes_once() {
        let body = body("/late/burst/3/v1");
        assert_eq!((body.matches("\"a\"").count(), body.matches("\"b\"").count()), (1, 3));
    }

    #[test]
    fn a_stream_may_begin_late() {
        let asked = asked("/plain/pace/1/2.5/after/10/stamped/v1");
        assert_eq!((asked.every, asked.after), (Some(2.5), Some(10.0)));
    }

    #[test]
    fn streams_apart_begin_in_places_of_their_own() {
        let mut library = Library::default();
        library.insert("plain", EVENTS, 1).unwrap();
        let mut places: Vec<_> = (0..8)
            .map(|_| {
                let Found::Stream(asked) = library.find("/plain/pace/1/100000/apart/v1").unwrap() else {
                    unreachable!()
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0;
                (now + asked.lag).rem_euclid(100_000.0)
            })
            .collect();
        places.sort_by(f64::total_cmp);
        assert!(places.iter().zip(places.iter().skip(1)).all(|(one, next)| next - one > 5000.0), "{places:?}");
        assert!(asked("/plain/pace/1/100000/v1").lag.abs() < f64::EPSILON);
    }

    #[test]
    fn a_document_is_answered_whole() {
        let mut library = Library::default();
        library.insert_whole("answer", b"{}");
        let Found::Whole(answer) = library.find("/answer/v1/chat/completions").unwrap() else { unreachable!() };
        assert!(answer.ends_with(b"content-length: 2\r\n\r\n{}"));
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
        library.insert("plain", EVENTS, 1).unwrap();
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
            library.insert("short", b"data: 1\n\n", 1).unwrap_err(),
            "short: expected 5 server-sent events or more"
        );
    }
}
