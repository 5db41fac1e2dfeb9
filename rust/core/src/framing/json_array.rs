use super::{Frame, TooLarge};

/// The elements of one JSON array that is sent piece by piece, cut anywhere; documents that stand one after another
/// without an array around them too.
///
/// Only brackets are counted: what is between them is the reader's to judge.
#[derive(Debug)]
pub struct JsonArray {
    /// Whether an array around the elements is still possible: nothing has come yet.
    fresh: bool,
    brackets: Brackets,
    /// An unfinished element.
    held: Vec<u8>,
    /// What is held was handed out.
    spent: bool,
    max_event_size: usize,
}

/// Finds the end of a document that begins with a bracket.
#[derive(Debug, Default)]
pub(super) struct Brackets {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Brackets {
    /// How many of the next bytes belong to the document, if it ends in them.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.in_string {
                if std::mem::take(&mut self.escaped) {
                    at += 1;
                    continue;
                }
                let stop = memchr::memchr2(b'"', b'\\', rest)?;
                self.escaped = rest.get(stop) == Some(&b'\\');
                self.in_string = self.escaped;
                at += stop + 1;
                continue;
            }
            let (stop, byte) = rest.iter().enumerate().find(|(_, byte)| b"\"{}[]".contains(byte))?;
            at += stop + 1;
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                _ => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at);
                    }
                }
            }
        }
        None
    }
}

impl JsonArray {
    /// `max_event_size` counts the bytes of one element, finished or not.
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self { fresh: true, brackets: Brackets::default(), held: Vec::new(), spent: false, max_event_size }
    }

    /// The next element of `input`, which is moved past what was read; None when more bytes are needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, TooLarge> {
        if std::mem::take(&mut self.spent) {
            self.held.clear();
        }
        if self.held.is_empty() {
            self.skip_between(input);
        }
        let bytes = *input;
        let end = match self.held.first().or(bytes.first()) {
            None => return Ok(None),
            Some(b'{' | b'[') => self.brackets.end(bytes),
            // No element at all: the line as it stands, for the error message.
            Some(_) => memchr::memchr(b'\n', bytes),
        };
        let (piece, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
        if self.held.len() + piece.len() > self.max_event_size {
            return Err(TooLarge { limit: self.max_event_size });
        }
        *input = rest;
        if end.is_some() && self.held.is_empty() {
            return Ok(Some(Frame { name: b"", data: piece, exception: false }));
        }
        self.held.extend_from_slice(piece);
        self.spent = end.is_some();
        Ok(self.spent.then_some(Frame { name: b"", data: &self.held, exception: false }))
    }

    /// The end of the input: what there is of an unfinished element.
    pub fn finish(&mut self) -> Option<Frame<'_>> {
        (!self.spent && !self.held.is_empty()).then_some(Frame { name: b"", data: &self.held, exception: false })
    }

    fn skip_between(&mut self, input: &mut &[u8]) {
        while let [first, rest @ ..] = *input {
            match first {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'[' if self.fresh => self.fresh = false,
                b',' | b']' if !self.fresh => {}
                _ => {
                    self.fresh = false;
                    return;
                }
            }
            *input = rest;
        }
    }
}
