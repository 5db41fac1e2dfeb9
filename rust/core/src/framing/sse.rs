use memchr::memchr2;

use super::json_array::Brackets;
use super::{Frame, TooLarge};

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Server-sent events from bytes cut anywhere, by the rules of the WHATWG HTML standard, section 9.2.6.
///
/// Stays in bytes: what is not UTF-8 is the reader's to replace, once a field is whole.
#[derive(Debug)]
pub struct Sse {
    /// How much of a byte order mark has been seen; None once the stream has begun.
    bom: Option<usize>,
    /// The last line ended with CR at the end of a read: an LF that follows belongs to it.
    skip_lf: bool,
    /// An unfinished line.
    line: Vec<u8>,
    /// The data lines of an unfinished event, joined by LF; None before its first.
    data: Option<Vec<u8>>,
    name: Vec<u8>,
    /// The last `id` field; it counts once an event ends.
    next_id: Vec<u8>,
    id: Vec<u8>,
    retry: Option<u64>,
    retry_is_new: bool,
    stray: Vec<u8>,
    /// A JSON document among the lines that are no fields, as far as it has come; None where these say nothing.
    bare: Option<(Brackets, Vec<u8>)>,
    max_event_size: usize,
    /// `data`, `name` and `retry_is_new` belong to an event already handed out.
    spent: bool,
}

/// A dispatched event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub frame: Frame<'a>,
    /// The last event ID.
    pub id: &'a [u8],
    /// Milliseconds, where a valid `retry` came since the event before.
    pub retry: Option<u64>,
}

/// What a line does to the event it belongs to.
enum Line {
    Dispatch,
    /// Adds the rest of the line from here on to the data.
    Data(usize),
    /// No field of an event stream.
    Stray,
    Other,
}

impl Sse {
    /// `max_event_size` counts the bytes of one event's data and of one line, finished or not.
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self {
            bom: Some(0),
            skip_lf: false,
            line: Vec::new(),
            data: None,
            name: Vec::new(),
            next_id: Vec::new(),
            id: Vec::new(),
            retry: None,
            retry_is_new: false,
            stray: Vec::new(),
            bare: None,
            max_event_size,
            spent: false,
        }
    }

    /// Beyond the standard: a JSON object that stands in the stream without `data:` is an event of its own.
    pub(super) fn with_bare_json(max_event_size: usize) -> Self {
        Self { bare: Some((Brackets::default(), Vec::new())), ..Self::new(max_event_size) }
    }

    /// The last event ID, as of the last event that ended.
    #[must_use]
    pub fn last_id(&self) -> &[u8] {
        &self.id
    }

    /// The reconnection time that the server asked for, in milliseconds.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// The beginning of the last line that was no field of an event stream. The standard ignores such lines; when a
    /// stream ends early they are the best hint at why.
    #[must_use]
    pub fn stray(&self) -> &[u8] {
        &self.stray
    }

    /// The next event of `input`, which is moved past what was read; None when more bytes are needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, TooLarge> {
        if self.spent {
            self.spent = false;
            self.data = None;
            self.name.clear();
            self.retry_is_new = false;
        }
        if self.bom.is_some() && !self.skip_bom(input) {
            return Ok(None);
        }
        // A data line that stands in `input` whole, with no other data line before it.
        let mut borrowed: Option<&'i [u8]> = None;
        loop {
            if self.skip_lf && !input.is_empty() {
                self.skip_lf = false;
                *input = input.strip_prefix(b"\n").unwrap_or(input);
            }
            let end = memchr2(b'\n', b'\r', input);
            let (line, rest) = input.split_at_checked(end.unwrap_or(input.len())).unwrap_or((input, &[]));
            let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len) + borrowed.map_or(0, <[u8]>::len);
            if held + line.len() > self.max_event_size {
                return Err(TooLarge { limit: self.max_event_size });
            }
            if end.is_none() {
                self.line.extend_from_slice(line);
                *input = rest;
                if let Some(data) = borrowed {
                    self.add_data(data);
                }
                return Ok(None);
            }
            *input = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [first, rest @ ..] => {
                    self.skip_lf = *first == b'\r' && rest.is_empty();
                    rest
                }
                [] => rest,
            };
            let carried = !self.line.is_empty();
            let mut whole = std::mem::take(&mut self.line);
            if carried {
                whole.extend_from_slice(line);
            }
            let effect = self.field(if carried { &whole } else { line });
            if let Line::Data(start) = effect {
                if !carried && borrowed.is_none() && self.data.is_none() {
                    borrowed = line.get(start..);
                } else {
                    if let Some(first) = borrowed.take() {
                        self.add_data(first);
                    }
                    self.add_data(if carried { &whole } else { line }.get(start..).unwrap_or_default());
                }
            }
            let bare = matches!(effect, Line::Stray) && self.add_bare(if carried { &whole } else { line })?;
            whole.clear();
            self.line = whole;
            if bare {
                return Ok(Some(self.dispatch(None)));
            }
            if let Line::Dispatch = effect {
                self.id.clone_from(&self.next_id);
                if borrowed.is_some() || self.data.is_some() {
                    return Ok(Some(self.dispatch(borrowed)));
                }
                self.name.clear();
            }
        }
    }

    /// The end of the input: the event that was not ended by a blank line, if it has data. The standard drops it;
    /// whether it is good enough is the caller's to decide.
    pub fn finish(&mut self) -> Option<Event<'_>> {
        if self.spent {
            return None;
        }
        let line = std::mem::take(&mut self.line);
        match self.field(&line) {
            Line::Data(start) => self.add_data(line.get(start..).unwrap_or_default()),
            // Too large for an event: no event.
            Line::Stray => _ = self.add_bare(&line),
            Line::Dispatch | Line::Other => {}
        }
        self.data.is_some().then(|| self.dispatch(None))
    }

    /// The event as it stands: its data in `borrowed`, else in `data`.
    fn dispatch<'s>(&'s mut self, borrowed: Option<&'s [u8]>) -> Event<'s> {
        self.spent = true;
        let data = borrowed.or(self.data.as_deref()).unwrap_or_default();
        let retry = if self.retry_is_new { self.retry } else { None };
        Event { frame: Frame { name: &self.name, data, exception: false }, id: &self.id, retry }
    }

    /// Passes over a byte order mark at the start, which may come in pieces; false while it is not decided.
    fn skip_bom(&mut self, input: &mut &[u8]) -> bool {
        while let Some(seen) = self.bom {
            match (input.split_first(), BOM.get(seen)) {
                (_, None) => {
                    self.bom = None;
                    self.line.clear();
                }
                (None, _) => return false,
                (Some((byte, rest)), Some(expected)) if byte == expected => {
                    self.bom = Some(seen + 1);
                    self.line.push(*byte);
                    *input = rest;
                }
                _ => self.bom = None,
            }
        }
        true
    }

    fn add_data(&mut self, line: &[u8]) {
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(line);
            }
            None => self.data = Some(line.to_vec()),
        }
    }

    /// Takes a line that is no field, where such lines may be a document; true if the document is whole, and the data
    /// of an event.
    fn add_bare(&mut self, line: &[u8]) -> Result<bool, TooLarge> {
        let Some((brackets, document)) = &mut self.bare else {
            return Ok(false);
        };
        if document.is_empty() && line.trim_ascii_start().first() != Some(&b'{') {
            return Ok(false);
        }
        if document.len() + line.len() > self.max_event_size {
            return Err(TooLarge { limit: self.max_event_size });
        }
        let end = brackets.end(line);
        document.extend_from_slice(line.get(..end.unwrap_or(line.len())).unwrap_or_default());
        if end.is_some() {
            self.data = Some(std::mem::take(document));
        }
        Ok(end.is_some())
    }

    fn field(&mut self, line: &[u8]) -> Line {
        if let Some(value) = line.strip_prefix(b"data:") {
            return Line::Data(if value.starts_with(b" ") { 6 } else { 5 });
        }
        if line.is_empty() {
            return Line::Dispatch;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            // With a colon it was seen above: this one has no value.
            b"data" => return Line::Data(line.len()),
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => {
                self.next_id.clear();
                self.next_id.extend_from_slice(value);
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                // Digits that no number holds: as long as can be.
                self.retry =
                    Some(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX));
                self.retry_is_new = true;
            }
            b"" | b"id" | b"retry" => {}
            _ => {
                self.stray.clear();
                self.stray.extend_from_slice(line.get(..line.len().min(500)).unwrap_or_default());
                return Line::Stray;
            }
        }
        Line::Other
    }
}
