use super::{Frame, TooLarge};

/// One document a line, from bytes cut anywhere. Blank lines say nothing.
#[derive(Debug)]
pub struct Ndjson {
    /// An unfinished line.
    held: Vec<u8>,
    /// What is held was handed out.
    spent: bool,
    max_event_size: usize,
}

impl Ndjson {
    /// `max_event_size` counts the bytes of one line, finished or not.
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self { held: Vec::new(), spent: false, max_event_size }
    }

    /// The next line of `input`, which is moved past what was read; None when more bytes are needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, TooLarge> {
        if std::mem::take(&mut self.spent) {
            self.held.clear();
        }
        loop {
            let bytes = *input;
            let end = memchr::memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
            if self.held.len() + line.len() > self.max_event_size {
                return Err(TooLarge { limit: self.max_event_size });
            }
            *input = rest.get(1..).unwrap_or_default();
            if end.is_none() {
                self.held.extend_from_slice(line);
                return Ok(None);
            }
            if self.held.is_empty() {
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(Frame { name: b"", data: line, exception: false }));
                }
                continue;
            }
            self.held.extend_from_slice(line);
            if !self.held.trim_ascii().is_empty() {
                self.spent = true;
                return Ok(Some(Frame { name: b"", data: &self.held, exception: false }));
            }
            self.held.clear();
        }
    }

    /// The end of the input: the line that no line end has ended.
    pub fn finish(&mut self) -> Option<Frame<'_>> {
        (!self.spent && !self.held.trim_ascii().is_empty()).then_some(Frame {
            name: b"",
            data: &self.held,
            exception: false,
        })
    }
}
