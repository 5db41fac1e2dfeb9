//! The last event of a stream as a template for the next.

use std::ops::Range;

use crate::chunk::Text;
use crate::framing::Frame;
use crate::json::{Cursor, Str};
use crate::stream::{Part, Sink, Stream};
use crate::usage::Read;

/// An event that brought a piece of text, with a hole where that piece was, and others where fillers were: values that
/// are nobody's data.
///
/// The events of one stream hardly differ: an event that has the same bytes around its holes means the same but for
/// its text, exactly, and need not be read again.
#[derive(Debug, Default)]
pub(super) struct Template {
    name: Vec<u8>,
    /// The event; empty if there is no template.
    data: Vec<u8>,
    /// In order.
    holes: Vec<Hole>,
    choice: u32,
    part: Part,
}

/// Where a value stands in the data.
#[derive(Debug)]
struct Hole {
    place: Range<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The piece of text.
    Text,
    /// The usage: the same fields with other numbers.
    Usage(Read),
    String,
    Other,
}

/// What an event brings.
pub(super) struct Filled<'a> {
    pub(super) choice: u32,
    pub(super) part: Part,
    pub(super) text: Str<'a>,
    /// JSON text, and how to read it.
    pub(super) usage: Option<(&'a [u8], Read)>,
}

impl Template {
    pub(super) fn forget(&mut self) {
        self.data.clear();
    }

    /// Hands an event out that is otherwise the same as the last. False if it is not, and has to be read.
    #[inline]
    pub(super) fn replay(&self, frame: Frame<'_>, stream: &mut Stream, sink: &mut impl Sink) -> bool {
        self.replay_and(frame, stream, sink, |_| {})
    }

    /// The same; `look` gets the text.
    #[inline]
    pub(super) fn replay_and(
        &self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
        look: impl FnOnce(&Filled<'_>),
    ) -> bool {
        match self.read(frame) {
            // After the finish reason a report is the last word.
            Some(piece) if stream.repeatable() && !(piece.usage.is_some() && stream.finished()) => {
                look(&piece);
                stream.again(piece.choice, piece.part, Text::Json(piece.text), sink);
                if let Some((raw, read)) = piece.usage {
                    stream.account().report_later(raw, read);
                }
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn read<'a>(&self, frame: Frame<'a>) -> Option<Filled<'a>> {
        // Most have no name: comparing nothing with nothing takes its time.
        let same_name = (frame.name.is_empty() && self.name.is_empty()) || frame.name == self.name;
        if self.data.is_empty() || !same_name {
            return None;
        }
        let mut rest = frame.data;
        let mut text = None;
        let mut usage = None;
        let mut from = 0;
        for Hole { place, kind } in &self.holes {
            let value = rest.strip_prefix(self.data.get(from..place.start)?)?;
            let mut cursor = Cursor::new(value);
            match kind {
                Kind::Text => text = Some(cursor.string().ok()?),
                Kind::Usage(read) => {
                    let raw = same_but_numbers(value, self.data.get(place.clone())?)?;
                    usage = Some((raw, *read));
                    cursor = Cursor::new(value.get(raw.len()..)?);
                }
                Kind::String => _ = cursor.string().ok()?,
                Kind::Other => _ = cursor.skip().ok()?,
            }
            rest = cursor.rest();
            from = place.end;
        }
        let end = self.data.get(from..)?;
        // Where this text is empty another field may speak.
        let text = text.filter(|text| !text.is_empty() && (rest == end || is_padded(rest, end)))?;
        Some(Filled { choice: self.choice, part: self.part, text, usage })
    }

    /// Makes the last event the template for those that follow it: one with a piece of text and nothing else that would
    /// be news twice but its usage.
    pub(super) fn learn<'f>(
        &mut self,
        frame: Frame<'_>,
        Filled { choice, part, text, usage }: Filled<'_>,
        fillers: impl IntoIterator<Item = &'f [u8]>,
    ) {
        self.forget();
        let Some(text) = quoted_place(frame.data, text) else {
            return;
        };
        self.holes.clear();
        self.holes.extend(fillers.into_iter().filter_map(|filler| {
            let kind = if filler.starts_with(b"\"") { Kind::String } else { Kind::Other };
            Some(Hole { place: place(frame.data, filler)?, kind })
        }));
        if let Some((raw, read)) = usage {
            let Some(place) = place(frame.data, raw) else {
                return;
            };
            self.holes.push(Hole { place, kind: Kind::Usage(read) });
        }
        self.holes.push(Hole { place: text, kind: Kind::Text });
        self.holes.sort_unstable_by_key(|hole| hole.place.start);
        self.name.clear();
        self.name.extend_from_slice(frame.name);
        self.data.extend_from_slice(frame.data.trim_ascii_end());
        (self.choice, self.part) = (choice, part);
    }
}

/// Whether an end is the known one with another run of blanks around its last brace: they hide the length of the event.
fn is_padded(end: &[u8], known: &[u8]) -> bool {
    let inner = known.strip_suffix(b"}").map_or(known, <[u8]>::trim_ascii_end);
    end.strip_prefix(inner)
        .is_some_and(|rest| rest.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).eq(b"}"))
}

/// As many bytes of `data` as are `known` but for the numbers in it; None if it is something else, or all zeros.
fn same_but_numbers<'a>(data: &'a [u8], known: &[u8]) -> Option<&'a [u8]> {
    let (mut at, mut known) = (0, known.iter());
    let mut counts = false;
    loop {
        let expected = known.next();
        match (data.get(at), expected) {
            (_, None) => return data.get(..at).filter(|_| counts),
            (Some(byte), Some(expected)) if expected.is_ascii_digit() => {
                if !byte.is_ascii_digit() {
                    return None;
                }
                let digits = data.get(at..)?;
                let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
                // A number with a leading zero is none.
                if *byte == b'0' && len > 1 {
                    return None;
                }
                counts |= *byte != b'0';
                at += len;
                while known.as_slice().first().is_some_and(u8::is_ascii_digit) {
                    known.next();
                }
            }
            (Some(byte), Some(expected)) if byte == expected => at += 1,
            _ => return None,
        }
    }
}

/// Where a part of the data stands in it.
fn place(data: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let range = start..start.checked_add(part.len())?;
    (range.end <= data.len()).then_some(range)
}

/// Where a string stands in the data it was read from, with its quotes.
fn quoted_place(data: &[u8], text: Str<'_>) -> Option<Range<usize>> {
    let inner = place(data, text.raw()).filter(|inner| !inner.is_empty())?;
    let range = inner.start.checked_sub(1)?..inner.end + 1;
    (range.end <= data.len()).then_some(range)
}
