//! Bytes into frames. Nothing here knows a provider.

mod sse;

pub use sse::{Event, Sse};

/// One unit of a stream, borrowed from the bytes just read where it is whole in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's type where the framing has one, else empty.
    pub name: &'a [u8],
    pub data: &'a [u8],
}

/// A frame, finished or not, that is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    pub limit: usize,
}
