//! What is sent.

use std::sync::Arc;

use crate::coding::ACCEPTED;
use crate::error::{Error, Kind};
use crate::proxy::basic;
use crate::url::Url;

/// All of a request but its body. It is checked once, however many requests are made of it.
#[derive(Debug)]
pub struct Outline {
    method: String,
    url: Url,
    headers: Vec<(String, String)>,
    /// Whether the length of a body is ours to say.
    tells_length: bool,
}

/// A request: an outline, filled.
#[derive(Clone, Debug)]
pub struct Request {
    outline: Arc<Outline>,
    body: Vec<u8>,
}

impl Outline {
    /// Header values are sent as UTF-8. `host`, `content-length` and `accept-encoding` are added where they are not
    /// given.
    pub fn new(method: &str, url: Url, mut headers: Vec<(String, String)>) -> Result<Self, Error> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if method.is_empty() || !method.bytes().all(token) {
            return Err(wrong(format!("{method:?} is no method")));
        }
        for (name, value) in &headers {
            if name.is_empty() || !name.bytes().all(token) {
                return Err(wrong(format!("{name:?} is no header name")));
            }
            // The value may be a key, and stays out of the message.
            if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                return Err(wrong(format!("the header {name} has a line end or a zero byte in it")));
            }
        }
        let has =
            |name: &str, headers: &[(String, String)]| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !has("host", &headers) {
            headers.insert(0, ("host".to_owned(), url.origin.header()));
        }
        if !has("accept-encoding", &headers) {
            headers.push(("accept-encoding".to_owned(), ACCEPTED.to_owned()));
        }
        if let Some(credentials) = url.credentials.as_ref().filter(|_| !has("authorization", &headers)) {
            headers.push(("authorization".to_owned(), basic(credentials)));
        }
        let tells_length = !has("content-length", &headers) && !has("transfer-encoding", &headers);
        Ok(Self { method: method.to_owned(), url, headers, tells_length })
    }

    /// All but the length of the body.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The same with further headers. One that it has already gets a further value.
    pub fn and(&self, more: &[(&str, String)]) -> Result<Self, Error> {
        let mut headers = self.headers.clone();
        for (name, value) in more {
            match headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                Some((_, known)) => known.extend([",", value]),
                None => headers.push(((*name).to_owned(), value.clone())),
            }
        }
        Self::new(&self.method, self.url.clone(), headers)
    }

    /// The request with this body.
    #[must_use]
    pub fn with(self: Arc<Self>, body: Vec<u8>) -> Request {
        Request { outline: self, body }
    }
}

impl Request {
    /// As [`Outline::new`].
    pub fn new(method: &str, url: Url, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<Self, Error> {
        Ok(Arc::new(Outline::new(method, url, headers)?).with(body))
    }

    pub(crate) fn method(&self) -> &str {
        &self.outline.method
    }

    pub(crate) fn url(&self) -> &Url {
        &self.outline.url
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The length to be told, if it is.
    fn length(&self) -> Option<String> {
        let tells = self.outline.tells_length && (!self.body.is_empty() || self.method() == "POST");
        tells.then(|| self.body.len().to_string())
    }

    /// The bytes, with the whole URL in the first line where a proxy relays.
    pub(crate) fn encode(&self, target: &str, relayed_by: Option<&str>) -> Vec<u8> {
        let length = self.length();
        let own = self.outline.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let length = length.as_deref().map(|length| ("content-length", length));
        let login = relayed_by.map(|value| ("proxy-authorization", value));
        let mut bytes = Vec::with_capacity(512 + self.body.len());
        for part in [self.method(), " ", target, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        for (name, value) in own.chain(length).chain(login) {
            for part in [name, ": ", value, "\r\n"] {
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The head for HTTP/2, whose connections are not the headers' business (RFC 9113, section 8.2.2).
    pub(crate) fn shared(&self) -> Result<http::Request<()>, Error> {
        const HOPS: [&str; 6] =
            ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        let Outline { method, url, headers, .. } = &*self.outline;
        let host = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = host.map_or_else(|| url.origin.header(), |(_, value)| value.clone());
        let scheme = if url.origin.tls { "https" } else { "http" };
        let mut request =
            http::Request::builder().method(method.as_str()).uri(format!("{scheme}://{authority}{}", url.target));
        for (name, value) in headers {
            if !HOPS.iter().any(|hop| name.eq_ignore_ascii_case(hop)) {
                request = request.header(name.as_str(), value.as_bytes());
            }
        }
        if let Some(length) = self.length() {
            request = request.header("content-length", length);
        }
        request.version(http::Version::HTTP_2).body(()).map_err(|error| wrong(error.to_string()))
    }
}

fn wrong(message: String) -> Error {
    Error::new(Kind::Request, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_there_gets_a_further_value() {
        let url = Url::parse("http://localhost/v1").unwrap();
        let outline = Outline::new("POST", url, vec![("X-Beta".to_owned(), "a".to_owned())]).unwrap();
        let more = outline.and(&[("x-beta", "b".to_owned()), ("x-other", "c".to_owned())]).unwrap();
        let request = Arc::new(more).with(b"{}".to_vec()).encode("/v1", None);
        let text = String::from_utf8(request).unwrap();
        let expected = "POST /v1 HTTP/1.1\r\nhost: localhost\r\nX-Beta: a,b\r\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\r\nx-other: c\r\ncontent-length: 2\r\n"), "{text}");
        assert!(outline.and(&[("x", "a\r\nb: c".to_owned())]).is_err());
    }
}
