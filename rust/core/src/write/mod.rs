//! The way back: chunks as the bytes of an API that a client speaks.
//!
//! A writer is a [`Sink`]: give it to a decoder, take the bytes that it wrote. Nearly every event of a stream is the
//! last one with another text, so a writer keeps its last event and where the text stands in it: the next is what was
//! before the text, the text as the provider wrote it, still escaped, and what was after it.

mod chat;
mod messages;

use std::ops::Range;

pub use chat::ChatWriter;
pub use messages::{MessagesWriter, messages_error, messages_response};

use crate::chunk::{Chunk, Text};
use crate::error::{Class, Error};
use crate::json::{Object, Str, escape};
use crate::stream::{Part, Sink};

/// A stream in the dialect that its client speaks.
#[derive(Debug)]
pub enum Writer {
    Chat(ChatWriter),
    Messages(MessagesWriter),
}

macro_rules! each {
    ($writer:expr, $inner:ident => $call:expr) => {
        match $writer {
            Writer::Chat($inner) => $call,
            Writer::Messages($inner) => $call,
        }
    };
}

impl Writer {
    /// What was written and not yet taken.
    pub fn take(&mut self) -> Vec<u8> {
        each!(self, writer => writer.take())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        each!(self, writer => writer.is_empty())
    }

    /// The end of a stream that is whole: to be told once, after the last chunk.
    pub fn done(&mut self) {
        each!(self, writer => writer.done());
    }

    /// The end of a stream that failed.
    pub fn error(&mut self, error: &Error) {
        each!(self, writer => writer.error(error));
    }
}

impl Sink for Writer {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        each!(self, writer => writer.chunk(chunk));
    }

    #[inline]
    fn again(&mut self, part: Part, text: &Text<'_>) {
        each!(self, writer => writer.again(part, text));
    }
}

/// Appends OpenAI's JSON document for an error. What the provider calls it stays; what it does not say, OpenAI's names
/// for the class stand in for.
pub fn error_body(error: &Error, out: &mut Vec<u8>) {
    let details = &error.details;
    let mut document = Object::begin(out);
    let mut body = Object::begin(document.key("error"));
    body.text("message", &error.message);
    body.text("type", details.kind.as_deref().unwrap_or_else(|| kind(error.class)));
    body.nullable("param", details.param.as_deref());
    // Some say the status once more where others say what is wrong.
    let code = details.code.as_deref().filter(|code| !code.bytes().all(|byte| byte.is_ascii_digit()));
    body.nullable("code", code.or_else(|| self::code(error.class)).or(details.code.as_deref()));
    body.end();
    document.end();
}

/// Where OpenAI has no name, one that tells the class to whoever reads it as this crate does.
fn kind(class: Class) -> &'static str {
    match class {
        Class::BadRequest
        | Class::ContextWindowExceeded
        | Class::ContentPolicyViolation
        | Class::UnprocessableEntity => "invalid_request_error",
        Class::Authentication => "authentication_error",
        Class::PermissionDenied => "permission_error",
        Class::NotFound => "not_found_error",
        Class::Conflict => "conflict_error",
        Class::RateLimit => "rate_limit_error",
        Class::PaymentRequired => "billing_error",
        Class::Timeout => "timeout_error",
        Class::ServiceUnavailable => "overloaded_error",
        Class::Connection | Class::ResponseValidation | Class::InternalServer | Class::BadGateway => "server_error",
    }
}

/// What clients look for to tell a prompt that is too long, or not allowed, from other bad requests.
fn code(class: Class) -> Option<&'static str> {
    match class {
        Class::ContextWindowExceeded => Some("context_length_exceeded"),
        Class::ContentPolicyViolation => Some("content_filter"),
        _ => None,
    }
}

/// Server-sent events that were written and not yet taken, and the last of them, to be written again.
#[derive(Debug, Default)]
struct Events {
    out: Vec<u8>,
    /// What is reserved before the first byte: as much as was taken the last time.
    room: usize,
    last: Vec<u8>,
    places: Places,
}

/// Where the texts of an event stand in it, between their quotes.
#[derive(Debug, Default)]
struct Places {
    content: Option<Range<usize>>,
    reasoning: Option<Range<usize>>,
    arguments: Option<Range<usize>>,
}

impl Places {
    fn get(&self, part: Part) -> Option<&Range<usize>> {
        match part {
            Part::Content => self.content.as_ref(),
            Part::Reasoning => self.reasoning.as_ref(),
            Part::Arguments => self.arguments.as_ref(),
        }
    }

    fn of(&mut self, part: Part) -> &mut Option<Range<usize>> {
        match part {
            Part::Content => &mut self.content,
            Part::Reasoning => &mut self.reasoning,
            Part::Arguments => &mut self.arguments,
        }
    }
}

impl Events {
    /// Between takes a stream that is silent holds no memory for its bytes.
    const ROOM: Range<usize> = 512..16 << 10;

    fn take(&mut self) -> Vec<u8> {
        self.room = self.out.len().next_power_of_two().clamp(Self::ROOM.start, Self::ROOM.end);
        std::mem::take(&mut self.out)
    }

    fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Where the next event is to be written.
    fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out.reserve(self.room.max(Self::ROOM.start));
        }
        &mut self.out
    }

    /// Ends the event that begins at `start`. The places are those of its texts in all that was written.
    fn end(&mut self, start: usize, places: Places) {
        self.out.extend_from_slice(b"\n\n");
        self.places = places;
        for part in [Part::Content, Part::Reasoning, Part::Arguments] {
            if let Some(place) = self.places.of(part) {
                *place = place.start - start..place.end - start;
            }
        }
        self.last.clear();
        self.last.extend_from_slice(self.out.get(start..).unwrap_or_default());
    }

    /// An event of a name that is its `type` as well.
    fn event(&mut self, name: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        let out = self.out();
        for piece in ["event: ", name, "\ndata: "] {
            out.extend_from_slice(piece.as_bytes());
        }
        let mut event = Object::begin(out);
        event.text("type", name);
        write(&mut event);
        event.end();
        out.extend_from_slice(b"\n\n");
    }

    /// Nothing of what was written is to be written again.
    fn forget(&mut self) {
        self.places = Places::default();
    }

    /// Whether the last event that may be written again has a text of this kind.
    #[inline]
    fn has(&self, part: Part) -> bool {
        self.places.get(part).is_some()
    }

    /// Writes the last event with another text.
    #[inline]
    fn again(&mut self, part: Part, text: &Text<'_>) {
        self.out();
        let Self { out, last, places, .. } = self;
        let place = places.get(part);
        debug_assert!(place.is_some(), "the last event has a text of this kind");
        if let Some(place) = place
            && let (Some(before), Some(after)) = (last.get(..place.start), last.get(place.end..))
        {
            let length = match text {
                Text::Json(text) => text.raw().len(),
                Text::Owned(text) => text.len(),
            };
            // Mostly it is all that goes out at once.
            out.reserve(before.len() + length + after.len());
            out.extend_from_slice(before);
            push_text(out, text);
            out.extend_from_slice(after);
        }
    }
}

/// Appends a text as it stands between the quotes of a JSON string: as it came, if it came as one.
#[inline]
fn push_text(out: &mut Vec<u8>, text: &Text<'_>) {
    match text {
        Text::Json(text) => push_str(out, *text),
        Text::Owned(text) => escape(out, text),
    }
}

#[inline]
fn push_str(out: &mut Vec<u8>, text: Str<'_>) {
    if std::str::from_utf8(text.raw()).is_ok() && !text.has_surrogates() {
        out.extend_from_slice(text.raw());
    } else {
        escape(out, &text.decode());
    }
}

/// Appends a text as a JSON string, and says where it stands between the quotes.
fn quoted(text: &Text<'_>, out: &mut Vec<u8>) -> Range<usize> {
    out.push(b'"');
    let start = out.len();
    push_text(out, text);
    let end = out.len();
    out.push(b'"');
    start..end
}
