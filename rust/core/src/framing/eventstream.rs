use std::collections::HashSet;

use super::{Broken, Frame};

const PRELUDE: usize = 12;
const CRC: usize = 4;

/// `application/vnd.amazon.eventstream` from bytes cut anywhere: messages of typed headers and a payload, each with
/// its own length and two checksums.
///
/// ```text
/// total length (4) | headers length (4) | CRC-32 of these 8 (4) | headers | payload | CRC-32 of all before (4)
/// ```
#[derive(Debug)]
pub struct EventStream {
    /// An unfinished message, or one that came in pieces and has just been handed out.
    message: Vec<u8>,
    /// How many bytes the unfinished message needs: those of its prelude, then all.
    need: usize,
    headers: Headers,
    /// Where in the body the current message begins, for errors.
    at: u64,
    max_event_size: usize,
    /// `message` has been handed out.
    spent: bool,
}

/// What a block of headers says. Nearly all messages of a stream have the same one, which is then not read again.
#[derive(Debug, Default)]
struct Headers {
    block: Vec<u8>,
    name: Vec<u8>,
    exception: bool,
    /// The whole message of an error that has no payload.
    message: Vec<u8>,
}

impl EventStream {
    /// `max_event_size` counts the bytes of one message, headers and checksums included.
    #[must_use]
    pub fn new(max_event_size: usize) -> Self {
        Self { message: Vec::new(), need: PRELUDE, headers: Headers::default(), at: 0, max_event_size, spent: false }
    }

    /// The next message of `input`, which is moved past what was read; None when more bytes are needed.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, Broken> {
        if self.spent {
            self.spent = false;
            self.message.clear();
        }
        if self.message.is_empty()
            && let Some(prelude) = input.first_chunk()
            && let Some((message, rest)) = input.split_at_checked(self.length(prelude)?)
        {
            *input = rest;
            return self.open(message).map(Some);
        }
        loop {
            let missing = self.need.saturating_sub(self.message.len());
            let (more, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
            self.message.extend_from_slice(more);
            *input = rest;
            if self.message.len() < self.need {
                return Ok(None);
            }
            if self.need > PRELUDE {
                break;
            }
            if let Some(prelude) = self.message.first_chunk() {
                self.need = self.length(prelude)?;
            }
        }
        self.need = PRELUDE;
        self.spent = true;
        let message = std::mem::take(&mut self.message);
        self.headers.read_of(&message, self.at)?;
        self.at += message.len() as u64;
        self.message = message;
        Ok(Some(self.headers.frame(payload(&self.message))))
    }

    /// A message that is whole in the bytes just read.
    fn open<'s>(&'s mut self, message: &'s [u8]) -> Result<Frame<'s>, Broken> {
        self.headers.read_of(message, self.at)?;
        self.at += message.len() as u64;
        Ok(self.headers.frame(payload(message)))
    }

    /// The length of the message that begins so. Its checksum is looked at first: no other byte can be trusted before.
    fn length(&self, prelude: &[u8; PRELUDE]) -> Result<usize, Broken> {
        let (lengths, crc) = prelude.split_last_chunk().unwrap_or((&[], &[0; CRC]));
        check("prelude", lengths, *crc, self.at)?;
        let [total, headers] = [0, 4].map(|at| number(prelude, at));
        if total > self.max_event_size {
            return Err(Broken::TooLarge { limit: self.max_event_size });
        }
        if total < PRELUDE + CRC || total - PRELUDE - CRC < headers {
            return Err(Broken::Message { at: self.at, what: "its length is less than that of its parts" });
        }
        Ok(total)
    }
}

fn check(part: &'static str, bytes: &[u8], stated: [u8; CRC], at: u64) -> Result<(), Broken> {
    let stated = u32::from_be_bytes(stated);
    let found = crc32fast::hash(bytes);
    if stated == found { Ok(()) } else { Err(Broken::Checksum { at, part, stated, found }) }
}

/// The 32-bit number at this place of a message.
fn number(message: &[u8], at: usize) -> usize {
    message.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize)
}

/// Of a message whose lengths have been checked.
fn payload(message: &[u8]) -> &[u8] {
    message.get(PRELUDE + number(message, 4)..message.len().saturating_sub(CRC)).unwrap_or_default()
}

impl Headers {
    /// Checks the message, and takes what its headers say.
    fn read_of(&mut self, message: &[u8], at: u64) -> Result<(), Broken> {
        if let Some((checked, crc)) = message.split_last_chunk() {
            check("message", checked, *crc, at)?;
        }
        let block = message.get(PRELUDE..PRELUDE + number(message, 4)).unwrap_or_default();
        if self.block == block {
            return Ok(());
        }
        self.block.clear();
        self.read(block).map_err(|what| Broken::Message { at, what })?;
        self.block.extend_from_slice(block);
        Ok(())
    }

    fn read(&mut self, block: &[u8]) -> Result<(), &'static str> {
        let mut names = HashSet::new();
        let (mut kind, mut event, mut exception, mut code): (&[u8], &[u8], &[u8], &[u8]) = (b"", b"", b"", b"");
        self.message.clear();
        let mut rest = block;
        while !rest.is_empty() {
            let (name, value) = header(&mut rest).ok_or("a header is cut off or of an unknown type")?;
            if !names.insert(name) {
                return Err("it has a header twice");
            }
            match name {
                b":message-type" => kind = value,
                b":event-type" => event = value,
                b":exception-type" => exception = value,
                b":error-code" => code = value,
                b":error-message" => self.message.extend_from_slice(value),
                _ => {}
            }
        }
        let (name, failed) = match kind {
            b"exception" => (exception, true),
            b"error" => (code, true),
            _ => (event, false),
        };
        self.name.clear();
        self.name.extend_from_slice(name);
        self.exception = failed;
        Ok(())
    }

    fn frame<'s>(&'s self, payload: &'s [u8]) -> Frame<'s> {
        // An error that the service's model does not know has its words in a header.
        let data = if self.exception && payload.is_empty() { &self.message } else { payload };
        Frame { name: &self.name, data, exception: self.exception }
    }
}

/// Takes one header off the block: its name, and its value if that is a string. None if it is not well formed.
fn header<'b>(block: &mut &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
    let (length, rest) = block.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest) = rest.split_first()?;
    let (size, rest) = match kind {
        // true and false
        0 | 1 => (0, rest),
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        // 64 bits, and a time in milliseconds
        5 | 8 => (8, rest),
        // bytes and text
        6 | 7 => {
            let (size, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*size)), rest)
        }
        // a UUID
        9 => (16, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    *block = rest;
    Some((name, if *kind == 7 { value } else { b"" }))
}
