//! The last event of a stream as a template for the next.

use std::ops::Range;

use crate::chunk::Text;
use crate::framing::Frame;
use crate::json::{Cursor, Str};
use crate::stream::{Part, Sink, Stream};

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
    String,
    Other,
}

impl Template {
    pub(super) fn forget(&mut self) {
        self.data.clear();
    }

    /// Hands an event out that is otherwise the same as the last. False if it is not, and has to be read.
    #[inline]
    pub(super) fn replay(&self, frame: Frame<'_>, stream: &mut Stream, sink: &mut impl Sink) -> bool {
        match self.read(frame) {
            Some(text) if stream.repeatable() => {
                stream.again(self.choice, self.part, Text::Json(text), sink);
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn read<'a>(&self, frame: Frame<'a>) -> Option<Str<'a>> {
        // Most have no name: comparing nothing with nothing takes its time.
        let same_name = (frame.name.is_empty() && self.name.is_empty()) || frame.name == self.name;
        if self.data.is_empty() || !same_name {
            return None;
        }
        let mut rest = frame.data;
        let mut text = None;
        let mut from = 0;
        for Hole { place, kind } in &self.holes {
            let mut cursor = Cursor::new(rest.strip_prefix(self.data.get(from..place.start)?)?);
            match kind {
                Kind::Text => text = Some(cursor.string().ok()?),
                Kind::String => _ = cursor.string().ok()?,
                Kind::Other => _ = cursor.skip().ok()?,
            }
            rest = cursor.rest();
            from = place.end;
        }
        let end = self.data.get(from..)?;
        // Where this text is empty another field may speak.
        text.filter(|text| !text.is_empty() && (rest == end || is_padded(rest, end)))
    }

    /// Makes the last event the template for those that follow it: one with a piece of text and nothing else that would
    /// be news twice.
    pub(super) fn learn<'f>(
        &mut self,
        frame: Frame<'_>,
        choice: u32,
        part: Part,
        text: Str<'_>,
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
