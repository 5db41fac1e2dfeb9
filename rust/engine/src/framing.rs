//! Where a body ends, and which of its bytes are content (RFC 9112, section 6).

use crate::error::{Error, Kind};
use crate::head::Head;
use crate::url::hex;

/// Bytes of chunk extensions between two chunks, and of trailers: nobody reads them.
const MAX_IGNORED: usize = 64 << 10;

#[derive(Debug)]
pub(crate) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Place, usize),
    UntilClose,
}

/// Where in a chunked body the last read ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In a chunk's size: its value so far, and how many digits that were.
    Size(u64, u8),
    /// Behind the size: extensions up to the line end.
    Extension(u64),
    Data(u64),
    /// The line end behind the data, with or without a carriage return.
    DataEnd,
    /// At the beginning of a line behind the last chunk, after a carriage return or not.
    TrailerStart,
    Trailer,
    End,
}

/// What came of a read.
pub(crate) struct Taken {
    /// So many bytes at its beginning are content now.
    pub(crate) content: usize,
    /// So many bytes of it belonged to this body.
    pub(crate) used: usize,
    pub(crate) over: bool,
}

impl Framing {
    pub(crate) fn of(head: &Head, method: &str) -> Result<Self, Error> {
        if method == "HEAD" || head.status == 204 || head.status == 304 {
            return Ok(Self::Length(0));
        }
        if let Some(coding) = head.get("transfer-encoding") {
            return match coding.rsplit(',').next().map(|last| last.trim().to_ascii_lowercase()).as_deref() {
                Some("chunked") if coding.split(',').count() == 1 => Ok(Self::Chunked(Place::Size(0, 0), 0)),
                _ => Err(malformed(format!("transfer-encoding must be chunked, not {coding:?}"))),
            };
        }
        let Some(lengths) = head.get("content-length") else { return Ok(Self::UntilClose) };
        // Repeated, they must agree: whoever disagrees about the length smuggles.
        let mut values = lengths.split(',').map(str::trim);
        let first = values.next().unwrap_or_default();
        if values.any(|value| value != first) || first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed(format!("content-length must be a number, not {lengths:?}")));
        }
        first.parse().map(Self::Length).map_err(|_| malformed(format!("content-length {first} is beyond all sizes")))
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Place::End, _))
    }

    /// Takes a read apart, in place: the content moves to its beginning.
    pub(crate) fn take(&mut self, read: &mut [u8]) -> Result<Taken, Error> {
        match self {
            Self::UntilClose => Ok(Taken { content: read.len(), used: read.len(), over: false }),
            Self::Length(left) => {
                let content = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= content as u64;
                Ok(Taken { content, used: content, over: *left == 0 })
            }
            Self::Chunked(place, ignored) => {
                let (mut content, mut at) = (0, 0);
                while let Some(&byte) = read.get(at) {
                    match *place {
                        Place::Data(left) => {
                            let size = usize::try_from(left).unwrap_or(usize::MAX).min(read.len() - at);
                            read.copy_within(at..at + size, content);
                            content += size;
                            at += size;
                            let left = left - size as u64;
                            *place = if left == 0 { Place::DataEnd } else { Place::Data(left) };
                        }
                        Place::End => break,
                        _ => {
                            *place = place.after(byte, ignored)?;
                            at += 1;
                        }
                    }
                }
                Ok(Taken { content, used: at, over: matches!(place, Place::End) })
            }
        }
    }
}

impl Place {
    /// The place after one more byte that is not data.
    fn after(self, byte: u8, ignored: &mut usize) -> Result<Self, Error> {
        Ok(match (self, byte) {
            (Self::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                Self::Size(size << 4 | u64::from(hex(byte)), digits + 1)
            }
            (Self::Size(size, 1..) | Self::Extension(size), b'\n') => {
                *ignored = 0;
                if size == 0 { Self::TrailerStart } else { Self::Data(size) }
            }
            (Self::Size(size, 1..), b';' | b' ' | b'\t' | b'\r') => Self::Extension(size),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(0, 0),
            (Self::TrailerStart, b'\n') => Self::End,
            (Self::TrailerStart, b'\r') | (Self::Trailer, b'\n') => Self::TrailerStart,
            (Self::Extension(_) | Self::TrailerStart | Self::Trailer, _) if *ignored < MAX_IGNORED => {
                *ignored += 1;
                if let Self::Extension(size) = self { Self::Extension(size) } else { Self::Trailer }
            }
            (Self::Extension(_) | Self::TrailerStart | Self::Trailer, _) => {
                return Err(malformed(format!("over {MAX_IGNORED} bytes of chunk extensions or trailers")));
            }
            _ => return Err(malformed(format!("a chunk must begin with its size, not with {:?}", byte as char))),
        })
    }
}

fn malformed(message: String) -> Error {
    Error::new(Kind::Malformed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<Framing, Error> {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        Framing::of(&Head::parse(bytes.as_bytes()).unwrap().unwrap().0, "POST")
    }

    fn take(pieces: impl Iterator<Item = Vec<u8>>) -> Result<(Vec<u8>, usize, bool), Error> {
        let mut framing = framing("transfer-encoding: chunked\r\n").unwrap();
        let (mut content, mut used, mut over) = (Vec::new(), 0, false);
        for mut piece in pieces {
            let taken = framing.take(&mut piece)?;
            content.extend_from_slice(&piece[..taken.content]);
            used += taken.used;
            over = taken.over;
        }
        assert_eq!(over, framing.is_over());
        Ok((content, used, over))
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        for whole in [
            &b"5\r\nHello\r\n1;name=value\r\n \r\n05 \r\nworld\r\n0\r\n\r\n"[..],
            b"b\r\nHello world\r\n0;last\r\nTrailer: x\r\nOther: y\r\n\r\n",
            b"B\nHello world\n0\n\n",
        ] {
            for size in 1..=whole.len() {
                let (content, used, over) = take(whole.chunks(size).map(<[u8]>::to_vec)).unwrap();
                assert_eq!((content.as_slice(), used, over), (&b"Hello world"[..], whole.len(), true), "{size}");
            }
        }
    }

    #[test]
    fn what_follows_the_last_chunk_is_not_of_this_body() {
        let (content, used, over) = take([b"1\r\nx\r\n0\r\n\r\nHTTP/1.1".to_vec()].into_iter()).unwrap();
        assert_eq!((content.as_slice(), used, over), (&b"x"[..], 11, true));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for wrong in ["x", "\r\n", "-1\r\n", "11111111111111111\r\n", "1\r\nxy", ";x\r\n"] {
            assert_eq!(take([wrong.into()].into_iter()).unwrap_err().kind, Kind::Malformed, "{wrong:?}");
        }
        let long = format!("0\r\n{}", "x".repeat(MAX_IGNORED + 1));
        assert!(take([long.into()].into_iter()).is_err());
    }

    #[test]
    fn lengths_must_agree_and_codings_be_known() {
        assert!(matches!(framing("content-length: 3\r\n"), Ok(Framing::Length(3))));
        assert!(matches!(framing("content-length: 3\r\ncontent-length: 3\r\n"), Ok(Framing::Length(3))));
        assert!(matches!(framing(""), Ok(Framing::UntilClose)));
        // A chunked body has no length, whatever is said (RFC 9112, section 6.3).
        assert!(matches!(framing("content-length: 3\r\ntransfer-encoding: Chunked\r\n"), Ok(Framing::Chunked(..))));
        for wrong in [
            "content-length: 3, 4\r\n",
            "content-length: +3\r\n",
            "content-length:\r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: gzip, chunked\r\n",
        ] {
            assert_eq!(framing(wrong).unwrap_err().kind, Kind::Malformed, "{wrong:?}");
        }
    }
}
