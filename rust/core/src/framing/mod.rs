//! Bytes into frames. Nothing here knows a provider.

mod json_array;
mod ndjson;
mod sse;
mod sse_or_json;

pub use json_array::JsonArray;
pub use ndjson::Ndjson;
pub use sse::{Event, Sse};
pub use sse_or_json::SseOrJson;

/// One unit of a stream, borrowed from the bytes just read where it is whole in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's type where the framing has one, else empty.
    pub name: &'a [u8],
    pub data: &'a [u8],
}

/// The framing of a stream, chosen once.
#[derive(Debug)]
pub(crate) enum Framing {
    Sse(Sse),
    SseOrJson(SseOrJson),
    Ndjson(Ndjson),
}

impl Framing {
    /// The next frame of `input`, which is moved past what was read; None when more bytes are needed.
    pub(crate) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, TooLarge> {
        match self {
            Framing::Sse(sse) => Ok(sse.next(input)?.map(|event| event.frame)),
            Framing::SseOrJson(either) => either.next(input),
            Framing::Ndjson(lines) => lines.next(input),
        }
    }

    /// The end of the input: what is there of an unfinished frame, if it may be good enough.
    pub(crate) fn finish(&mut self) -> Option<Frame<'_>> {
        match self {
            Framing::Sse(sse) => sse.finish().map(|event| event.frame),
            Framing::SseOrJson(either) => either.finish(),
            Framing::Ndjson(lines) => lines.finish(),
        }
    }

    /// The last line that was no part of the format, if there was one.
    pub(crate) fn stray(&self) -> &[u8] {
        match self {
            Framing::Sse(sse) => sse.stray(),
            Framing::SseOrJson(either) => either.stray(),
            Framing::Ndjson(_) => b"",
        }
    }
}

/// A frame, finished or not, that is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    pub limit: usize,
}
