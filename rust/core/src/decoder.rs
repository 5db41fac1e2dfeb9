//! Framing + wire + usage: bytes in, chunks out.

use std::str::FromStr;

use crate::chunk::{Chunk, Head, Text};
use crate::error::{Class, Error};
use crate::framing::{self, Frame, Framing};
use crate::json::Cursor;
use crate::stream::{Part, Sink, Stream};
use crate::usage::{Account, Reasoning, Usage};
use crate::wire;

/// One line a family: its name, its reader and how its streams are framed.
macro_rules! families {
    ($($family:ident($reader:ty) $name:literal $framing:ident,)*) => {
        /// The wire families.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Family {
            $($family,)*
        }

        impl Family {
            pub const ALL: &[Family] = &[$(Family::$family,)*];

            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Family::$family => $name,)*
                }
            }

            fn framing(self, max_event_size: usize) -> Framing {
                match self {
                    $(Family::$family => Framing::$framing(framing::$framing::new(max_event_size)),)*
                }
            }

            fn wire(self) -> Wire {
                match self {
                    $(Family::$family => Wire::$family(<$reader>::default()),)*
                }
            }
        }

        /// The reader of a family, with what it keeps from event to event.
        #[derive(Debug)]
        enum Wire {
            $($family($reader),)*
        }

        impl Wire {
            fn frame(&mut self, frame: Frame<'_>, stream: &mut Stream, sink: &mut impl Sink) -> Result<(), Error> {
                match self {
                    $(Wire::$family(reader) => apart(|| reader.frame(frame, stream, sink)),)*
                }
            }

            fn body(&mut self, body: &[u8], stream: &mut Stream, sink: &mut impl Sink) -> Result<(), Error> {
                match self {
                    $(Wire::$family(reader) => apart(|| reader.body(body, stream, sink)),)*
                }
            }
        }
    };
}

/// With a stack frame of its own: in one for all families each event would touch the pages that the largest needs.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

families! {
    Chat(wire::chat::Chat) "chat" Sse,
    Anthropic(wire::anthropic::Anthropic) "anthropic" Sse,
    Gemini(wire::gemini::Gemini) "gemini" SseOrJson,
    Converse(wire::converse::Converse) "converse" EventStream,
    Invoke(Box<wire::invoke::Invoke>) "invoke" EventStream,
    Cohere(wire::cohere::Cohere) "cohere" SseOrJson,
    Ollama(wire::ollama::Ollama) "ollama" Ndjson,
    Responses(wire::responses::Responses) "responses" Sse,
    Text(wire::text::Text) "text" SseOrJson,
    Invocations(wire::invocations::Invocations) "invocations" Parts,
    Predictions(wire::predictions::Predictions) "predictions" Sse,
}

impl FromStr for Family {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|family| family.name() == name).ok_or(())
    }
}

/// What one and the same bytes mean differently from server to server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    pub reasoning: Reasoning,
    pub end: End,
}

/// What tells that a stream is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// A finish reason for every choice, or the mark that ends the stream.
    #[default]
    Finish,
    /// That mark alone.
    Done,
    /// The end of the body, however it comes.
    Eof,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub dialect: Dialect,
    pub include_usage: bool,
    pub max_event_size: usize,
    /// Keep what [`Decoder::write_response`] needs.
    pub keep: bool,
    /// Stands in for what the provider does not tell.
    pub fallback: Head,
    /// The tool whose arguments are the answer: see [`Stream::answers_by`].
    pub answer_tool: Option<String>,
}

/// Decodes one response body.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    wire: Wire,
    stream: Stream,
    family: Family,
    dialect: Dialect,
    max_event_size: usize,
    /// The error that ended the stream: every later call repeats it.
    failed: Option<Error>,
    /// The first bytes, up to as many as tell what they are compressed with.
    start: Vec<u8>,
}

/// Counts the chunks that pass, to know whether a call has given anything.
struct Counted<'s, S> {
    sink: &'s mut S,
    count: usize,
}

impl<S: Sink> Sink for Counted<'_, S> {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        self.count += 1;
        self.sink.chunk(chunk);
    }

    fn again(&mut self, part: Part, text: &Text<'_>) {
        self.count += 1;
        self.sink.again(part, text);
    }
}

impl Decoder {
    #[must_use]
    pub fn new(family: Family, options: Options) -> Self {
        let Options { dialect, include_usage, max_event_size, keep, fallback, answer_tool } = options;
        let mut stream = Stream::new(fallback, include_usage, keep, Account::new(dialect.reasoning));
        if let Some(tool) = answer_tool {
            stream.answers_by(tool);
        }
        Self {
            framing: family.framing(max_event_size),
            wire: family.wire(),
            stream,
            family,
            dialect,
            max_event_size,
            failed: None,
            start: Vec::new(),
        }
    }

    /// Decodes the next bytes of the body. An error is returned once everything before it has been handed out: by this
    /// call if it gives no chunk, else by the next one, and by all that follow.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Error> {
        self.guarded(sink, |decoder, sink| decoder.read(bytes, sink))
    }

    /// The end of the body.
    pub fn finish(&mut self, sink: &mut impl Sink) -> Result<(), Error> {
        self.guarded(sink, |decoder, sink| decoder.close(sink))
    }

    /// The best usage known so far.
    #[must_use]
    pub fn usage(&mut self) -> Option<&Usage> {
        self.stream.usage()
    }

    /// Whether the body said that it is over. What follows is ignored.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.stream.done()
    }

    /// Whether any choice has said anything yet.
    #[must_use]
    pub fn has_spoken(&self) -> bool {
        self.stream.has_spoken_at_all()
    }

    /// The error that the next call returns, and every one after it.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Another body follows that begins the answer again. What is handed out of it is what it adds to what was handed
    /// out before, and an error if that is not repeated first. With options.keep alone.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stream.restart(Account::new(self.dialect.reasoning)).map_err(|what| {
            Error::new(Class::Connection, format!("an answer begun again cannot be compared with this one: {what}"))
        })?;
        self.another_body();
        Ok(())
    }

    /// Another body follows in which the answer goes on. Its content may begin with `overlap`, which was handed out.
    pub fn resume(&mut self, overlap: &str) {
        self.stream.resume(Account::new(self.dialect.reasoning), overlap);
        self.another_body();
    }

    fn another_body(&mut self) {
        self.framing = self.family.framing(self.max_event_size);
        self.wire = self.family.wire();
        self.failed = None;
        self.start.clear();
    }

    /// Keeps nothing for [`Decoder::write_response`] from here on, and drops what was kept.
    pub fn keep_nothing(&mut self) {
        self.stream.keep_nothing();
    }

    /// Appends what has come so far as one response, as JSON text; false if there is none to give.
    pub fn write_response(&mut self, out: &mut Vec<u8>) -> bool {
        self.stream.write_response(out)
    }

    fn guarded<S: Sink>(
        &mut self,
        sink: &mut S,
        step: impl FnOnce(&mut Self, &mut Counted<'_, S>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut sink = Counted { sink, count: 0 };
        if let Err(error) = step(self, &mut sink) {
            self.failed = Some(error.clone());
            if sink.count == 0 {
                return Err(error);
            }
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Error> {
        if self.start.len() < MAGIC {
            self.start.extend(bytes.iter().take(MAGIC - self.start.len()));
            if let Some(coding) = compression(&self.start) {
                return Err(Error::new(
                    Class::ResponseValidation,
                    format!("expected text, got bytes compressed with {coding}: decompress the body before feeding it"),
                ));
            }
        }
        let mut input = bytes;
        while !self.stream.done() {
            let Some(frame) = self.framing.next(&mut input)? else {
                break;
            };
            self.wire.frame(frame, &mut self.stream, sink)?;
            self.compare()?;
        }
        Ok(())
    }

    /// An error if an answer that was begun again is another one.
    fn compare(&self) -> Result<(), Error> {
        if self.stream.diverged() { Err(diverged()) } else { Ok(()) }
    }

    fn close(&mut self, sink: &mut impl Sink) -> Result<(), Error> {
        let mut cut = false;
        if !self.stream.done()
            && let Some(frame) = self.framing.finish()
        {
            if is_whole(&self.wire, frame) {
                self.wire.frame(frame, &mut self.stream, sink)?;
                self.compare()?;
            } else {
                cut = !frame.data.trim_ascii().is_empty();
            }
        }
        let whole = match self.dialect.end {
            _ if cut => false,
            End::Finish => self.stream.finished(),
            End::Done => false,
            End::Eof => self.stream.begun(),
        };
        if whole || self.stream.done() {
            self.stream.end(sink);
            return self.compare();
        }
        let mut message = if cut {
            "the stream ended inside an event".to_owned()
        } else if self.stream.begun() {
            "the stream ended before the completion did: no finish reason, no terminal event".to_owned()
        } else {
            "the stream ended before the first event".to_owned()
        };
        let stray = self.framing.stray();
        if !stray.is_empty() {
            message.push_str("; the body has a line that is not part of an event stream: ");
            message.push_str(&String::from_utf8_lossy(stray));
        }
        Err(Error::new(Class::Connection, message))
    }
}

/// Reads a single response body as a stream of one event, for who wanted a stream: hands out its chunks.
pub fn decode_document(
    family: Family,
    options: Options,
    body: &[u8],
    sink: &mut impl Sink,
) -> Result<Option<Usage>, Error> {
    let Options { dialect, include_usage, keep, fallback, answer_tool, .. } = options;
    let mut stream = Stream::new(fallback, include_usage, keep, Account::new(dialect.reasoning));
    if let Some(tool) = answer_tool {
        stream.answers_by(tool);
    }
    family.wire().body(body, &mut stream, sink)?;
    Ok(stream.usage().cloned())
}

/// Reads a single response body, and appends the response as JSON text. Gives the usage it has. `model` is the name that
/// the response gives the model, in place of its own.
pub fn decode_response(
    family: Family,
    dialect: Dialect,
    fallback: Head,
    answer_tool: Option<String>,
    model: Option<&str>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<Option<Usage>, Error> {
    struct Nowhere;
    impl Sink for Nowhere {
        fn chunk(&mut self, _: &Chunk<'_>) {}
        fn again(&mut self, _: Part, _: &Text<'_>) {}
    }
    let mut stream = Stream::new(fallback, false, true, Account::new(dialect.reasoning));
    if let Some(tool) = answer_tool {
        stream.answers_by(tool);
    }
    family.wire().body(body, &mut stream, &mut Nowhere)?;
    if let Some(model) = model {
        stream.rename(model);
    }
    stream.write_response(out);
    Ok(stream.usage().cloned())
}

#[cold]
fn diverged() -> Error {
    let mut error = Error::new(Class::Connection, "the answer that was begun again is another one");
    error.details.code = Some("diverged".to_owned());
    error
}

/// Whether an event that has no end says all the same all that it has to: one JSON document from end to end, or the mark
/// that ends a stream.
fn is_whole(wire: &Wire, frame: Frame<'_>) -> bool {
    let mut cursor = Cursor::new(frame.data);
    let is_json = frame.data.starts_with(b"[DONE]") || (cursor.skip().is_ok() && cursor.end().is_ok());
    // Of raw text nobody knows where it ends: half a number is a number too.
    is_json && (!matches!(wire, Wire::Predictions(_)) || frame.name == b"done")
}

/// The length of the longest mark of a compression.
const MAGIC: usize = 4;

fn compression(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x1F, 0x8B, ..] => Some("gzip"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some("zstd"),
        // A zlib header is a multiple of 31; 0x78 is `x`, which starts no field that servers send.
        [0x78, flags @ (0x01 | 0x5E | 0x9C | 0xDA), ..] if (0x7800 + u32::from(*flags)) % 31 == 0 => Some("deflate"),
        _ => None,
    }
}
