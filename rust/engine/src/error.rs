//! What goes wrong between here and the last byte of a response.

use std::{fmt, io};

/// What kind of failure it is: by it a caller decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This is no URL.
    Url,
    /// The request or the route cannot be: a header with a line end, a proxy of an unknown kind.
    Request,
    /// No connection: refused, unreachable, closed before it stood.
    Connect,
    /// A connection that cannot be trusted, or no TLS where TLS was expected. Another attempt ends the same way.
    Tls,
    /// The proxy refused.
    Proxy,
    /// The connection ended before the response did.
    Cut,
    /// The bytes are no HTTP response.
    Malformed,
    /// The body is not coded as its head says.
    Coding,
    /// Time ran out before the connection stood.
    ConnectTime,
    /// Time ran out for the response.
    DueTime,
    /// The silence was too long.
    IdleTime,
}

impl Kind {
    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Request => "request",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::Coding => "coding",
            Self::ConnectTime => "connect_time",
            Self::DueTime => "due_time",
            Self::IdleTime => "idle_time",
        }
    }
}

/// A failure, in words for whoever called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A connection that ended too early, by a system error.
    pub(crate) fn cut(error: &io::Error, during: &str) -> Self {
        Self::new(Kind::Cut, format!("{} ({during})", reason(error)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The system's words, without the number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
