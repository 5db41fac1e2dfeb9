use std::borrow::Cow;

use super::{Value, cursor::plain_len};

/// A JSON string as it stands between its quotes. Its syntax has been checked, its UTF-8 has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Str<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Str<'a> {
    pub(super) fn new(raw: &'a [u8], escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// A string that needs no escapes, such as a name that this crate gives.
    #[must_use]
    pub fn plain(text: &'a str) -> Self {
        debug_assert!(!text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\'));
        Self { raw: text.as_bytes(), escaped: false }
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The bytes between the quotes, escapes and all.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// The bytes to decode as UTF-8, if no escape stands in the way.
    #[must_use]
    pub fn unescaped(self) -> Option<&'a [u8]> {
        (!self.escaped).then_some(self.raw)
    }

    /// Whether an escape in it may be half of a character, whose other half is not with it.
    #[must_use]
    pub fn has_surrogates(self) -> bool {
        self.escaped && has_surrogates(self.raw)
    }

    /// The bytes meant, for comparing with names.
    #[must_use]
    pub fn bytes(self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        match self.decode() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }

    /// The text; invalid UTF-8 and lone surrogates become U+FFFD.
    #[must_use]
    pub fn decode(self) -> Cow<'a, str> {
        if !self.escaped {
            return lossy(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        if self.unescape(None, &mut text).is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        Cow::Owned(text)
    }

    /// Appends the text to `out`. `high` is a high surrogate that the text before ended with; one that this text ends
    /// with is returned, for its other half may follow in the next piece.
    pub fn unescape(self, high: Option<u16>, out: &mut String) -> Option<u16> {
        let mut high = high;
        let mut rest = self.raw;
        loop {
            let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            let (before, after) = rest.split_at_checked(plain).unwrap_or((rest, &[]));
            if !before.is_empty() {
                flush(&mut high, out);
                out.push_str(&lossy(before));
            }
            let [b'\\', escape, after @ ..] = after else {
                return high;
            };
            rest = after;
            let literal = match escape {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let (digits, after) = rest.split_at_checked(4).unwrap_or((rest, &[]));
                    rest = after;
                    let unit = digits.iter().fold(0, |unit, digit| unit << 4 | hex(*digit));
                    match (high, unit) {
                        (_, 0xD800..=0xDBFF) => {
                            flush(&mut high, out);
                            high = Some(unit);
                            continue;
                        }
                        (Some(lead), 0xDC00..=0xDFFF) => {
                            high = None;
                            let scalar = 0x10000 + (u32::from(lead - 0xD800) << 10) + u32::from(unit - 0xDC00);
                            char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER)
                        }
                        _ => char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER),
                    }
                }
                other => char::from(*other),
            };
            flush(&mut high, out);
            out.push(literal);
        }
    }
}

/// As [`String::from_utf8_lossy`], which takes its time with what is valid too.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn flush(high: &mut Option<u16>, out: &mut String) {
    if high.take().is_some() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
}

fn hex(digit: u8) -> u16 {
    char::from(digit).to_digit(16).and_then(|value| u16::try_from(value).ok()).unwrap_or(0)
}

/// Appends JSON text that was read once: as it came, if it is one line of valid UTF-8 without halves of characters, which
/// readers refuse, and else as that.
pub(crate) fn write_json(out: &mut Vec<u8>, json: &[u8]) {
    if memchr::memchr2(b'\n', b'\r', json).is_none() && std::str::from_utf8(json).is_ok() && !has_surrogates(json) {
        out.extend_from_slice(json);
    } else {
        Value::parse(json).unwrap_or(Value::Null).write(out);
    }
}

/// Whether an escape in JSON text may be a surrogate. It may as well be an escaped backslash before the same letters: who
/// asks does then what is always right.
fn has_surrogates(json: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', json).any(|at| {
        matches!(json.get(at + 1..at + 4), Some([b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F']))
    })
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
pub(crate) fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, after) = rest.split_at_checked(plain_len(rest)).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let [byte, after @ ..] = after else {
            return;
        };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend(HEX.get(usize::from(byte >> 4)));
                out.extend(HEX.get(usize::from(byte & 15)));
            }
        }
        rest = after;
    }
}
