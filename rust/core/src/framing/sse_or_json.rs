use super::{Frame, JsonArray, Sse, TooLarge};

/// Server-sent events, or JSON documents where the body begins with one: for servers that send either, as the request
/// or a proxy between has it. A document that stands bare among the events is a frame too.
#[derive(Debug)]
pub struct SseOrJson {
    form: Form,
    events: Sse,
    documents: JsonArray,
}

#[derive(Debug)]
enum Form {
    /// Nothing but line ends has come yet.
    Open,
    Events,
    Documents,
}

impl SseOrJson {
    /// `max_event_size` counts the bytes of one event or document, finished or not.
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self {
            form: Form::Open,
            events: Sse::with_bare_json(max_event_size),
            documents: JsonArray::new(max_event_size),
        }
    }

    /// The next frame of `input`, which is moved past what was read; None when more bytes are needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, TooLarge> {
        if let Form::Open = self.form {
            while let [b'\r' | b'\n', rest @ ..] = *input {
                *input = rest;
            }
            self.form = match input.first() {
                None => return Ok(None),
                Some(b'{' | b'[') => Form::Documents,
                Some(_) => Form::Events,
            };
        }
        match self.form {
            Form::Documents => self.documents.next(input),
            _ => Ok(self.events.next(input)?.map(|event| event.frame)),
        }
    }

    /// The end of the input: what is there of an unfinished frame.
    pub fn finish(&mut self) -> Option<Frame<'_>> {
        match self.form {
            Form::Documents => self.documents.finish(),
            _ => self.events.finish().map(|event| event.frame),
        }
    }

    /// The last line that was no part of the format, if there was one.
    #[must_use]
    pub fn stray(&self) -> &[u8] {
        self.events.stray()
    }
}
