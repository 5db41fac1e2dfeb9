//! Proxies: HTTP and HTTPS ones by CONNECT (RFC 9110, section 9.3.6), SOCKS5 ones (RFC 1928, RFC 1929).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Kind};
use crate::head::{Head, MAX_HEAD};
use crate::link::{Fault, Link};
use crate::url::{Credentials, Origin, split_authority, split_scheme};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Socks5,
}

/// Who forwards.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub(crate) protocol: Protocol,
    pub(crate) server: Origin,
    pub(crate) credentials: Option<Credentials>,
}

impl Proxy {
    /// From `scheme://[name:password@]host[:port]`: http, https, socks5 or socks5h. Names are resolved by a SOCKS proxy
    /// either way: it knows those that are only known behind it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (scheme, rest) =
            split_scheme(text).map_err(|_| no_proxy("it must begin with http://, https:// or socks5://"))?;
        let (protocol, tls, usual) = match scheme.as_str() {
            "http" => (Protocol::Http, false, 80),
            "https" => (Protocol::Http, true, 443),
            "socks5" | "socks5h" => (Protocol::Socks5, false, 1080),
            other => return Err(no_proxy(&format!("{other}:// is none of http, https, socks5, socks5h"))),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (credentials, host, port) = split_authority(authority).map_err(|error| no_proxy(&error.message))?;
        Ok(Self { protocol, server: Origin { tls, host, port: port.unwrap_or(usual) }, credentials })
    }

    /// Whether requests to this server go to the proxy as they are, with the whole URL in them.
    pub(crate) fn relays(&self, origin: &Origin) -> bool {
        self.protocol == Protocol::Http && !origin.tls
    }

    /// The value of `proxy-authorization`.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.credentials.as_ref().map(basic)
    }
}

/// Credentials as HTTP's scheme "basic" has them.
pub(crate) fn basic(credentials: &Credentials) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credentials.name, credentials.password)))
}

fn no_proxy(reason: &str) -> Error {
    Error::new(Kind::Request, format!("proxy: {reason}"))
}

/// The talk with a proxy until it forwards.
#[derive(Debug)]
pub(crate) struct Greeting {
    step: Step,
    out: Vec<u8>,
    sent: usize,
    heard: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Connect,
    Method,
    Login,
    Reply,
}

impl Greeting {
    pub(crate) fn new(proxy: &Proxy, origin: &Origin) -> Self {
        let (step, out) = match proxy.protocol {
            Protocol::Http => {
                let place = origin.to_string();
                let login = proxy.authorization().map(|value| format!("proxy-authorization: {value}\r\n"));
                let login = login.unwrap_or_default();
                (Step::Connect, format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n{login}\r\n").into_bytes())
            }
            Protocol::Socks5 if proxy.credentials.is_some() => (Step::Method, vec![5, 2, 0, 2]),
            Protocol::Socks5 => (Step::Method, vec![5, 1, 0]),
        };
        Self { step, out, sent: 0, heard: Vec::new() }
    }

    pub(crate) fn unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Goes on; Ok when the proxy forwards. A fault that would block is handed up like any other.
    pub(crate) fn go_on(&mut self, link: &mut Link, proxy: &Proxy, origin: &Origin) -> Result<(), Refusal> {
        loop {
            while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
                self.sent += link.write(rest)?;
            }
            link.flush()?;
            // One byte at a time: what follows the proxy's answer is not the proxy's.
            let mut byte = [0];
            if link.read(&mut byte)? == 0 {
                return Err(refused(proxy, "closed the connection").into());
            }
            self.heard.extend_from_slice(&byte);
            if self.hear(proxy, origin)? {
                return Ok(());
            }
        }
    }

    /// Whether the proxy has said all that had to be said.
    fn hear(&mut self, proxy: &Proxy, origin: &Origin) -> Result<bool, Error> {
        match (self.step, self.heard.as_slice()) {
            (Step::Connect, bytes) => {
                if !bytes.ends_with(b"\n\r\n") && !bytes.ends_with(b"\n\n") && bytes.len() < MAX_HEAD {
                    return Ok(false);
                }
                match Head::parse(bytes) {
                    Ok(Some((reply, _))) if (200..300).contains(&reply.status) => Ok(true),
                    Ok(Some((reply, _))) if reply.status == 407 => {
                        let how = if proxy.credentials.is_some() { "other" } else { "some" };
                        Err(refused(
                            proxy,
                            &format!("wants {how} credentials (status 407): proxy=\"http://name:password@host:port\""),
                        ))
                    }
                    Ok(Some((reply, _))) => {
                        Err(refused(proxy, &format!("does not connect to {origin}: {} {}", reply.status, reply.reason)))
                    }
                    _ => Err(refused(proxy, "is no HTTP proxy: its answer is no HTTP response")),
                }
            }
            (Step::Method, [5, 0]) | (Step::Login, [_, 0]) => {
                self.ask(origin)?;
                Ok(false)
            }
            (Step::Method, [5, 2]) => {
                let Some(Credentials { name, password }) = &proxy.credentials else {
                    return Err(refused(proxy, "wants credentials that were not offered"));
                };
                let (Ok(long), Ok(longer)) = (u8::try_from(name.len()), u8::try_from(password.len())) else {
                    return Err(refused(proxy, "cannot be told a name or password of over 255 bytes"));
                };
                let parts: [&[u8]; 4] = [&[1, long], name.as_bytes(), &[longer], password.as_bytes()];
                self.say(Step::Login, parts.concat());
                Ok(false)
            }
            (Step::Method, [5, 255]) => {
                let login = "wants credentials: proxy=\"socks5://name:password@host:port\"";
                Err(refused(
                    proxy,
                    if proxy.credentials.is_some() { "accepts no login that is known here" } else { login },
                ))
            }
            (Step::Login, [_, _, ..]) => Err(refused(proxy, "does not accept these credentials")),
            (Step::Reply, [5, 0, _, kind, rest @ ..]) => Ok(match (kind, rest) {
                (1, _) => rest.len() == 4 + 2,
                (4, _) => rest.len() == 16 + 2,
                (_, [length, name @ ..]) => name.len() == usize::from(*length) + 2,
                _ => false,
            }),
            (Step::Reply, [5, code, ..]) if *code != 0 => {
                let reason = match code {
                    2 => "its rules do not allow it",
                    3 => "network unreachable",
                    4 => "host unreachable",
                    5 => "connection refused",
                    6 => "it took too long",
                    7 | 8 => "it does not know how",
                    _ => "it failed",
                };
                Err(refused(proxy, &format!("does not connect to {origin}: {reason}")))
            }
            (_, [] | [5, ..] | [1]) => Ok(false),
            _ => Err(refused(proxy, "is no SOCKS5 proxy: its answer has another version")),
        }
    }

    fn say(&mut self, step: Step, out: Vec<u8>) {
        *self = Self { step, out, sent: 0, heard: Vec::new() };
    }

    fn ask(&mut self, origin: &Origin) -> Result<(), Error> {
        use std::net::IpAddr;
        let long =
            u8::try_from(origin.host.len()).map_err(|_| Error::new(Kind::Url, "a host name of over 255 bytes"))?;
        let mut out = vec![5, 1, 0];
        match origin.address() {
            Some(IpAddr::V4(address)) => {
                out.push(1);
                out.extend(address.octets());
            }
            Some(IpAddr::V6(address)) => {
                out.push(4);
                out.extend(address.octets());
            }
            None => {
                out.extend([3, long]);
                out.extend(origin.host.as_bytes());
            }
        }
        out.extend(origin.port.to_be_bytes());
        self.say(Step::Reply, out);
        Ok(())
    }
}

/// Why the talk does not go on, or not yet.
pub(crate) enum Refusal {
    Fault(Fault),
    Error(Error),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn refused(proxy: &Proxy, what: &str) -> Error {
    Error::new(Kind::Proxy, format!("the proxy {} {what}", proxy.server))
}
