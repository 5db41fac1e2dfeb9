//! Bytes into frames. Nothing here knows a provider.

mod eventstream;
mod json_array;
mod ndjson;
mod parts;
mod sse;
mod sse_or_json;

use std::fmt;

pub use eventstream::EventStream;
pub use json_array::JsonArray;
pub use ndjson::Ndjson;
pub use parts::Parts;
pub use sse::{Event, Sse};
pub use sse_or_json::SseOrJson;

/// One unit of a stream, borrowed from the bytes just read where it is whole in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's type where the framing has one, else empty.
    pub name: &'a [u8],
    pub data: &'a [u8],
    /// The framing itself says that this is how the stream failed; `name` is then the failure's.
    pub exception: bool,
}

/// The framing of a stream, chosen once.
#[derive(Debug)]
pub(crate) enum Framing {
    EventStream(EventStream),
    Parts(Parts),
    Sse(Sse),
    SseOrJson(SseOrJson),
    Ndjson(Ndjson),
}

impl Framing {
    /// The next frame of `input`, which is moved past what was read; None when more bytes are needed.
    pub(crate) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, Broken> {
        match self {
            Framing::EventStream(events) => events.next(input),
            Framing::Parts(parts) => parts.next(input),
            Framing::Sse(sse) => Ok(sse.next(input)?.map(|event| event.frame)),
            Framing::SseOrJson(either) => Ok(either.next(input)?),
            Framing::Ndjson(lines) => Ok(lines.next(input)?),
        }
    }

    /// The end of the input: what is there of an unfinished frame, if it may be good enough.
    pub(crate) fn finish(&mut self) -> Option<Frame<'_>> {
        match self {
            // A message says how long it is: less is not good enough.
            Framing::EventStream(_) => None,
            Framing::Parts(parts) => parts.finish(),
            Framing::Sse(sse) => sse.finish().map(|event| event.frame),
            Framing::SseOrJson(either) => either.finish(),
            Framing::Ndjson(lines) => lines.finish(),
        }
    }

    /// The last line that was no part of the format, if there was one.
    pub(crate) fn stray(&self) -> &[u8] {
        match self {
            Framing::EventStream(_) => &[],
            Framing::Parts(parts) => parts.stray(),
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

/// Bytes that are not what their framing should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    TooLarge {
        limit: usize,
    },
    /// Of the message that begins at byte `at` of the body.
    Checksum {
        at: u64,
        part: &'static str,
        stated: u32,
        found: u32,
    },
    Message {
        at: u64,
        what: &'static str,
    },
}

impl From<TooLarge> for Broken {
    fn from(TooLarge { limit }: TooLarge) -> Self {
        Broken::TooLarge { limit }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::TooLarge { limit } => {
                write!(f, "an event of the stream is larger than max_event_size ({limit} bytes)")
            }
            Broken::Checksum { at, part, stated, found } => write!(
                f,
                "the {part} CRC of the event-stream message at byte {at} is {stated:08x}, but its bytes give {found:08x}"
            ),
            Broken::Message { at, what } => write!(f, "the event-stream message at byte {at} is broken: {what}"),
        }
    }
}
