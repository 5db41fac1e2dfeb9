use std::fmt;

use super::{Result, Str};

/// Containers within containers. Real frames stay below 20; the bound keeps hostile ones off the stack.
const MAX_DEPTH: u16 = 256;

/// What is wrong and where, as an offset into the slice. The prose is made when somebody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    pub at: usize,
    pub expected: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid JSON at byte {}: expected {}", self.at, self.expected)
    }
}

impl std::error::Error for JsonError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// A number as written; its grammar has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a>(&'a [u8]);

impl<'a> Number<'a> {
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Digits with an optional sign only, of any size.
    #[must_use]
    pub fn is_integer(self) -> bool {
        !self.0.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    }

    #[must_use]
    pub fn as_str(self) -> &'a str {
        // The grammar admits ASCII only.
        std::str::from_utf8(self.0).unwrap_or_default()
    }

    #[must_use]
    pub fn as_f64(self) -> f64 {
        // Every number of the JSON grammar is one of Rust's; overflow gives an infinity as in Python.
        self.as_str().parse().unwrap_or(f64::NAN)
    }

    /// The value as an integer, a fraction cut off (`created` is a float at some servers).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "as casts saturate, which is what a count wants")]
    pub fn as_i64(self) -> i64 {
        self.as_str().parse().unwrap_or_else(|_| self.as_f64() as i64)
    }
}

/// Reads one JSON document from the front of a slice, front to back, validating all it passes.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
    depth: u16,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks (with its high bit) each byte of the word that ends a plain run inside a string: a quote, a backslash or a
/// control character. Only the lowest mark is exact: a borrow may put false ones above it.
fn string_stops(word: u64) -> u64 {
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    ((quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash)
        | (word.wrapping_sub(ONES * 0x20) & !word))
        & HIGHS
}

/// How many bytes from the start may stand in a JSON string as they are.
pub(super) fn plain_len(text: &[u8]) -> usize {
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let stops = string_stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return text.len() - rest.len() + (stops.trailing_zeros() / 8) as usize;
        }
        rest = after;
    }
    let plain = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')).unwrap_or(rest.len());
    text.len() - rest.len() + plain
}

impl<'a> Cursor<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len(), depth: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    fn error<T>(&self, expected: &'static str) -> Result<T> {
        Err(JsonError { at: self.position(), expected })
    }

    /// What was read since `before` was all that is left.
    fn since(&self, before: &'a [u8]) -> &'a [u8] {
        before.get(..before.len() - self.rest.len()).unwrap_or_default()
    }

    /// What `read` makes of the next value, and the value as JSON text.
    pub fn with_raw<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, &'a [u8])> {
        self.skip_space();
        let before = self.rest;
        Ok((read(self)?, self.since(before)))
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// What the next value is, without reading it.
    pub fn kind(&mut self) -> Result<Kind> {
        self.skip_space();
        match self.rest.first() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => self.error("a value"),
        }
    }

    /// The document is over: only white space is left.
    pub fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.rest.is_empty() { Ok(()) } else { self.error("the end of the document") }
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { self.error("at most 256 nested containers") } else { Ok(()) }
    }

    /// Reads an object. `each` gets every key in turn and must read its value.
    pub fn object(&mut self, mut each: impl FnMut(&mut Self, Str<'a>) -> Result<()>) -> Result<()> {
        self.skip_space();
        let [b'{', rest @ ..] = self.rest else {
            return self.error("an object");
        };
        self.rest = rest;
        self.enter()?;
        self.skip_space();
        if let [b'}', rest @ ..] = self.rest {
            self.rest = rest;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.skip_space();
            let [b':', rest @ ..] = self.rest else {
                return self.error("':'");
            };
            self.rest = rest;
            each(self, key)?;
            self.skip_space();
            match self.rest {
                [b',', rest @ ..] => self.rest = rest,
                [b'}', rest @ ..] => {
                    self.rest = rest;
                    self.depth -= 1;
                    return Ok(());
                }
                _ => return self.error("',' or '}'"),
            }
        }
    }

    /// Reads an array. `each` is called at every element and must read it.
    pub fn array(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.skip_space();
        let [b'[', rest @ ..] = self.rest else {
            return self.error("an array");
        };
        self.rest = rest;
        self.enter()?;
        self.skip_space();
        if let [b']', rest @ ..] = self.rest {
            self.rest = rest;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            each(self)?;
            self.skip_space();
            match self.rest {
                [b',', rest @ ..] => self.rest = rest,
                [b']', rest @ ..] => {
                    self.rest = rest;
                    self.depth -= 1;
                    return Ok(());
                }
                _ => return self.error("',' or ']'"),
            }
        }
    }

    /// Reads a string; its escapes are checked but not yet replaced.
    pub fn string(&mut self) -> Result<Str<'a>> {
        self.skip_space();
        let [b'"', rest @ ..] = self.rest else {
            return self.error("a string");
        };
        self.rest = rest;
        let mut escaped = false;
        loop {
            while let Some((word, after)) = self.rest.split_first_chunk::<8>() {
                let stops = string_stops(u64::from_le_bytes(*word));
                if stops == 0 {
                    self.rest = after;
                } else {
                    let plain = (stops.trailing_zeros() / 8) as usize;
                    self.rest = self.rest.get(plain..).unwrap_or_default();
                    break;
                }
            }
            match self.rest {
                [b'"', after @ ..] => {
                    let raw = self.since(rest);
                    self.rest = after;
                    return Ok(Str::new(raw, escaped));
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => {
                    escaped = true;
                    self.rest = after;
                }
                [b'\\', b'u', a, b, c, d, after @ ..] if [a, b, c, d].iter().all(|hex| hex.is_ascii_hexdigit()) => {
                    escaped = true;
                    self.rest = after;
                }
                [b'\\', ..] => return self.error("an escape sequence"),
                [] => return self.error("'\"' (unfinished string)"),
                [0..0x20, ..] => return self.error("no control character inside a string"),
                // Fewer than eight bytes are left: one by one.
                [_, after @ ..] => self.rest = after,
            }
        }
    }

    fn digits(&mut self) -> Result<()> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.error("a digit");
        }
        self.rest = self.rest.get(count..).unwrap_or_default();
        Ok(())
    }

    pub fn number(&mut self) -> Result<Number<'a>> {
        self.skip_space();
        let start = self.rest;
        if let [b'-', rest @ ..] = self.rest {
            self.rest = rest;
        }
        match self.rest {
            [b'0', rest @ ..] => self.rest = rest,
            _ => self.digits()?,
        }
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            self.digits()?;
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = rest;
            if let [b'+' | b'-', rest @ ..] = self.rest {
                self.rest = rest;
            }
            self.digits()?;
        }
        Ok(Number(self.since(start)))
    }

    fn literal(&mut self, word: &'static [u8], expected: &'static str) -> Result<()> {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => self.error(expected),
        }
    }

    pub fn null(&mut self) -> Result<()> {
        self.skip_space();
        self.literal(b"null", "null")
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.kind()? {
            Kind::True => self.literal(b"true", "true").map(|()| true),
            _ => self.literal(b"false", "false").map(|()| false),
        }
    }

    /// Reads any value and gives the bytes it stands in.
    pub fn skip(&mut self) -> Result<&'a [u8]> {
        let kind = self.kind()?;
        let start = self.rest;
        match kind {
            Kind::Object => self.object(|cursor, _| cursor.skip().map(drop))?,
            Kind::Array => self.array(|cursor| cursor.skip().map(drop))?,
            Kind::String => self.string().map(drop)?,
            Kind::Number => self.number().map(drop)?,
            Kind::True | Kind::False => self.bool().map(drop)?,
            Kind::Null => self.null()?,
        }
        Ok(self.since(start))
    }

    /// Reads a string, or passes over a value of another kind.
    pub fn string_or_skip(&mut self) -> Result<Option<Str<'a>>> {
        if self.kind()? == Kind::String {
            return self.string().map(Some);
        }
        self.skip().map(|_| None)
    }

    /// Reads an object as the bytes it stands in, or passes over a value of another kind.
    pub fn object_or_skip(&mut self) -> Result<Option<&'a [u8]>> {
        let raw = self.skip()?;
        Ok(raw.starts_with(b"{").then_some(raw))
    }

    /// Reads a number, or passes over a value of another kind.
    pub fn number_or_skip(&mut self) -> Result<Option<Number<'a>>> {
        if self.kind()? == Kind::Number {
            return self.number().map(Some);
        }
        self.skip().map(|_| None)
    }
}
