use super::{Broken, EventStream, Frame, SseOrJson};

/// A stream of server-sent events, or of JSON documents, that travels inside the messages of an event stream: their
/// payloads are its bytes, cut anywhere. The exceptions of the outer stream come through as they are.
#[derive(Debug)]
pub struct Parts {
    messages: EventStream,
    events: Box<SseOrJson>,
    /// The payload that is being read, and how far.
    part: Vec<u8>,
    at: usize,
    /// The frame that was handed out last.
    name: Vec<u8>,
    data: Vec<u8>,
}

impl Parts {
    /// `max_event_size` counts the bytes of one message, and those of one event or document in them.
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self {
            messages: EventStream::new(max_event_size),
            events: Box::new(SseOrJson::new(max_event_size)),
            part: Vec::new(),
            at: 0,
            name: Vec::new(),
            data: Vec::new(),
        }
    }

    /// The next frame of the inner stream, or an exception; None when more bytes are needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, Broken> {
        let exception = loop {
            if self.next_inside()? {
                break false;
            }
            let Some(message) = self.messages.next(input)? else {
                return Ok(None);
            };
            if message.exception {
                keep(message, &mut self.name, &mut self.data);
                break true;
            }
            self.part.clear();
            self.part.extend_from_slice(message.data);
            self.at = 0;
        };
        Ok(Some(Frame { name: &self.name, data: &self.data, exception }))
    }

    /// Whether what has come of the inner stream holds another frame, which is then kept.
    fn next_inside(&mut self) -> Result<bool, Broken> {
        let mut rest = self.part.get(self.at..).unwrap_or_default();
        let found = match self.events.next(&mut rest)? {
            Some(frame) => {
                keep(frame, &mut self.name, &mut self.data);
                true
            }
            None => false,
        };
        self.at = self.part.len() - rest.len();
        Ok(found)
    }

    /// The end of the input: what is there of an unfinished frame of the inner stream.
    pub fn finish(&mut self) -> Option<Frame<'_>> {
        self.events.finish()
    }

    /// The last line of the inner stream that was no part of the format, if there was one.
    #[must_use]
    pub fn stray(&self) -> &[u8] {
        self.events.stray()
    }
}

fn keep(frame: Frame<'_>, name: &mut Vec<u8>, data: &mut Vec<u8>) {
    name.clear();
    name.extend_from_slice(frame.name);
    data.clear();
    data.extend_from_slice(frame.data);
}
