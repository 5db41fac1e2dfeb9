//! The head of a response.

use std::mem::MaybeUninit;

use crate::error::{Error, Kind};

/// Bytes that a head may have.
pub(crate) const MAX_HEAD: usize = 128 << 10;
const MAX_HEADERS: usize = 256;

/// Status and headers of a response.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub reason: String,
    /// "HTTP/1.0", "HTTP/1.1" or "HTTP/2".
    pub version: &'static str,
    /// As they came; values are Latin-1.
    pub headers: Vec<(String, String)>,
    pub(crate) persistent: bool,
}

impl Head {
    /// The head at the beginning of `bytes` and its length; None if it is not complete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        // Empty ones would take longer to write than a head to read.
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
            Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => {
                Err(malformed(format!("the response's head is over {MAX_HEAD} bytes")))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Ok(httparse::Status::Complete(length)) => {
                let mut head = Self {
                    status: response.code.unwrap_or_default(),
                    reason: response.reason.unwrap_or_default().to_owned(),
                    version: if response.version == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" },
                    headers: response
                        .headers
                        .iter()
                        .map(|header| (header.name.to_owned(), latin1(header.value)))
                        .collect(),
                    persistent: false,
                };
                let (close, keep) = (head.lists("connection", "close"), head.lists("connection", "keep-alive"));
                head.persistent = !close && (response.version == Some(1) || keep);
                Ok(Some((head, length)))
            }
            Err(httparse::Error::TooManyHeaders) => {
                Err(malformed(format!("the response has more than {MAX_HEADERS} headers")))
            }
            // A record of TLS: an alert, or more of a handshake.
            Err(_) if matches!(bytes, [0x15 | 0x16, 3, ..]) => {
                Err(malformed("the server speaks TLS: is it https:// ?".to_owned()))
            }
            Err(error) => {
                let shown = String::from_utf8_lossy(bytes.get(..bytes.len().min(60)).unwrap_or_default());
                Err(malformed(format!("this is no HTTP response ({error}): {shown:?}")))
            }
        }
    }

    /// The head of a response of HTTP/2, which has neither reason nor framing.
    pub(crate) fn of(status: u16, headers: &http::HeaderMap) -> Self {
        Self {
            status,
            reason: String::new(),
            version: "HTTP/2",
            headers: headers.iter().map(|(name, value)| (name.as_str().to_owned(), latin1(value.as_bytes()))).collect(),
            persistent: false,
        }
    }

    /// The value of a header; repeated ones joined by commas.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let found: Vec<_> = self.values(name).collect();
        (!found.is_empty()).then(|| found.join(","))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Whether the list in a header has this word.
    fn lists(&self, name: &str, word: &str) -> bool {
        self.values(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    }
}

fn latin1(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.to_owned(),
        _ => bytes.iter().map(|byte| *byte as char).collect(),
    }
}

fn malformed(message: String) -> Error {
    Error::new(Kind::Malformed, message)
}
