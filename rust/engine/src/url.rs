//! The little of a URL that a request needs.

use std::fmt;
use std::net::IpAddr;

use crate::error::{Error, Kind};

/// The server: what tells one connection from another on the same route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// The host as it stands in a URL.
    pub(crate) fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The value of the header `host`.
    pub(crate) fn header(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } { self.bracketed() } else { self.to_string() }
    }

    /// The address, where the host is one: no name to resolve.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bracketed(), self.port)
    }
}

/// Name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub name: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// An absolute URL of http or https.
#[derive(Clone, Debug)]
pub struct Url {
    pub origin: Origin,
    /// Path and query.
    pub target: String,
    pub credentials: Option<Credentials>,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = split_scheme(text)?;
        let tls = match scheme.as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong(format!("a URL must begin with http:// or https://, not with {scheme}://"))),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = target.split('#').next().unwrap_or_default();
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(format!("a URL must be percent-encoded: {target:?} is not")));
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let (credentials, host, port) = split_authority(authority)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { origin: Origin { tls, host, port }, target, credentials })
    }
}

fn wrong(message: String) -> Error {
    Error::new(Kind::Url, message)
}

pub(crate) fn split_scheme(text: &str) -> Result<(String, &str), Error> {
    match text.split_once("://") {
        Some((scheme, rest)) => Ok((scheme.to_ascii_lowercase(), rest)),
        None => Err(wrong(format!("{text:?} is no URL: it must begin with http:// or https://"))),
    }
}

/// `[name[:password]@]host[:port]`, the host in lower case.
pub(crate) fn split_authority(text: &str) -> Result<(Option<Credentials>, String, Option<u16>), Error> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, text),
    };
    let (host, port) = if let Some(inside) = place.strip_prefix('[') {
        let (host, after) = inside.split_once(']').ok_or_else(|| wrong(format!("no ] after [ in {place:?}")))?;
        (host, after.strip_prefix(':').unwrap_or(after))
    } else {
        place.split_once(':').unwrap_or((place, ""))
    };
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:%~".contains(&byte)) {
        return Err(wrong(format!("{host:?} is no host name")));
    }
    let port = match port {
        "" => None,
        digits => match digits.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(wrong(format!("{digits:?} is no port: it must be a number from 1 to 65535"))),
        },
    };
    let credentials = user.map(|user| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        Credentials { name: unquote(name), password: unquote(password) }
    });
    Ok((credentials, host.to_ascii_lowercase(), port))
}

/// Undoes percent-encoding; what is none is left as it is.
fn unquote(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (*first, after) {
            (b'%', [high, low, more @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex(*high) << 4 | hex(*low));
                rest = more;
            }
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = Url::parse("HTTPS://me:p%40ss@API.Example:8443/v1/x?y=1#z").unwrap();
        assert_eq!(url.origin, Origin { tls: true, host: "api.example".into(), port: 8443 });
        assert_eq!(url.target, "/v1/x?y=1");
        assert_eq!(url.credentials.unwrap().password, "p@ss");
        let url = Url::parse("http://[::1]?q").unwrap();
        assert_eq!((url.origin.host.as_str(), url.origin.port, url.target.as_str()), ("::1", 80, "/?q"));
        assert_eq!(url.origin.header(), "[::1]");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in
            ["api.example/v1", "ftp://x/", "http:///v1", "http://a b/", "http://a:0/", "http://a:x/", "http://a/ b"]
        {
            assert_eq!(Url::parse(text).unwrap_err().kind, Kind::Url, "{text}");
        }
    }
}
