//! The last event of a stream as a template for the next.

use std::ops::Range;

use crate::framing::Frame;
use crate::json::{Cursor, Str};
use crate::stream::Part;

/// An event that brought a piece of text, with holes where that piece was and where values were that do not matter.
///
/// The events of one stream hardly differ: an event that has the same bytes around its holes means the same but for
/// its text, exactly, and need not be read again.
#[derive(Debug, Default)]
pub(super) struct Template {
    name: Vec<u8>,
    /// The bytes around the holes, one after the other; empty if there is no template.
    around: Vec<u8>,
    /// Where in `around` each hole is, and what belongs there.
    holes: Vec<(usize, Hole)>,
    part: Part,
    call: u32,
}

/// What stands in a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hole {
    /// The piece of text.
    Text,
    String,
    Number,
}

impl Template {
    pub(super) fn forget(&mut self) {
        self.around.clear();
    }

    /// The text of an event that is otherwise the same as the last, and what it is a piece of: a part, and of which
    /// call where it is arguments.
    pub(super) fn read<'a>(&self, frame: Frame<'a>) -> Option<(Part, u32, Str<'a>)> {
        if self.around.is_empty() || frame.name != self.name {
            return None;
        }
        let mut rest = unpadded(frame.data)?;
        let mut text = None;
        let mut from = 0;
        for (at, hole) in &self.holes {
            let mut cursor = Cursor::new(rest.strip_prefix(self.around.get(from..*at)?)?);
            match hole {
                Hole::Text => text = Some(cursor.string().ok()?),
                Hole::String => _ = cursor.string().ok()?,
                Hole::Number => _ = cursor.number().ok()?,
            }
            rest = cursor.rest();
            from = *at;
        }
        (rest == self.around.get(from..)?).then_some((self.part, self.call, text?))
    }

    /// Makes an event the template. `holes` are the places of values in its data.
    pub(super) fn learn(&mut self, frame: Frame<'_>, part: Part, call: u32, mut holes: Vec<(Range<usize>, Hole)>) {
        self.forget();
        let Some(data) = unpadded(frame.data) else {
            return;
        };
        self.name.clear();
        self.name.extend_from_slice(frame.name);
        self.holes.clear();
        holes.sort_by_key(|(place, _)| place.start);
        let mut from = 0;
        for (place, hole) in holes {
            self.around.extend_from_slice(data.get(from..place.start).unwrap_or_default());
            self.holes.push((self.around.len(), hole));
            from = place.end;
        }
        self.around.extend_from_slice(data.get(from..).unwrap_or_default());
        (self.part, self.call) = (part, call);
    }
}

/// An object without its last brace and the blanks before it: a run of them hides the length of the event.
fn unpadded(data: &[u8]) -> Option<&[u8]> {
    data.strip_suffix(b"}").map(<[u8]>::trim_ascii_end)
}

/// Where a part of the data stands in it.
pub(super) fn place(data: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let range = start..start.checked_add(part.len())?;
    (range.end <= data.len()).then_some(range)
}

/// Where a string stands in the data it was read from, with its quotes.
pub(super) fn quoted_place(data: &[u8], text: Str<'_>) -> Option<Range<usize>> {
    let inner = place(data, text.raw())?;
    let range = inner.start.checked_sub(1)?..inner.end + 1;
    (range.end <= data.len()).then_some(range)
}
