//! What can go wrong in a response: one error type, with the class a caller catches.

use std::fmt;

use crate::framing::{Broken, TooLarge};
use crate::json::JsonError;

/// The exception classes, by the names they have in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Connection,
    ResponseValidation,
    BadRequest,
    ContextWindowExceeded,
    ContentPolicyViolation,
    PaymentRequired,
    UnprocessableEntity,
    Authentication,
    PermissionDenied,
    NotFound,
    Conflict,
    RateLimit,
    Timeout,
    InternalServer,
    BadGateway,
    ServiceUnavailable,
}

impl Class {
    pub const ALL: [Self; 16] = [
        Class::Connection,
        Class::ResponseValidation,
        Class::BadRequest,
        Class::ContextWindowExceeded,
        Class::ContentPolicyViolation,
        Class::PaymentRequired,
        Class::UnprocessableEntity,
        Class::Authentication,
        Class::PermissionDenied,
        Class::NotFound,
        Class::Conflict,
        Class::RateLimit,
        Class::Timeout,
        Class::InternalServer,
        Class::BadGateway,
        Class::ServiceUnavailable,
    ];

    /// The class of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Whether another attempt at the same request can succeed.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Class::Connection
                | Class::Timeout
                | Class::Conflict
                | Class::RateLimit
                | Class::InternalServer
                | Class::BadGateway
                | Class::ServiceUnavailable
        )
    }

    /// Whether it stays so until somebody mends something, but need not be so with another key or model.
    #[must_use]
    pub fn barring(self) -> bool {
        matches!(self, Class::Authentication | Class::PermissionDenied | Class::NotFound)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Connection => "APIConnectionError",
            Class::ResponseValidation => "APIResponseValidationError",
            Class::BadRequest => "BadRequestError",
            Class::ContextWindowExceeded => "ContextWindowExceededError",
            Class::ContentPolicyViolation => "ContentPolicyViolationError",
            Class::PaymentRequired => "PaymentRequiredError",
            Class::UnprocessableEntity => "UnprocessableEntityError",
            Class::Authentication => "AuthenticationError",
            Class::PermissionDenied => "PermissionDeniedError",
            Class::NotFound => "NotFoundError",
            Class::Conflict => "ConflictError",
            Class::RateLimit => "RateLimitError",
            Class::Timeout => "Timeout",
            Class::InternalServer => "InternalServerError",
            Class::BadGateway => "BadGatewayError",
            Class::ServiceUnavailable => "ServiceUnavailableError",
        }
    }

    /// The class of an HTTP status of 400 and above.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Class::Authentication,
            402 => Class::PaymentRequired,
            403 => Class::PermissionDenied,
            404 => Class::NotFound,
            408 | 504 => Class::Timeout,
            409 => Class::Conflict,
            422 => Class::UnprocessableEntity,
            429 => Class::RateLimit,
            424 | 503 | 529 => Class::ServiceUnavailable,
            502 => Class::BadGateway,
            500.. => Class::InternalServer,
            _ => Class::BadRequest,
        }
    }
}

/// An error, with what the provider said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub class: Class,
    pub message: String,
    pub details: Box<Details>,
}

/// The provider's own words; empty for errors found on this side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The HTTP status, of the response or told in the body.
    pub status: Option<u16>,
    pub code: Option<String>,
    pub kind: Option<String>,
    pub param: Option<String>,
    /// The error body, as JSON where it is JSON; cut at 64 KiB.
    pub body: Vec<u8>,
    /// Seconds.
    pub retry_after: Option<f64>,
    pub request_id: Option<String>,
}

impl Error {
    #[cold]
    #[must_use]
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), details: Box::default() }
    }

    /// A frame or body that is not the JSON it should be; `text` is quoted from the offending place on.
    #[cold]
    #[must_use]
    pub fn invalid_json(error: JsonError, text: &[u8]) -> Self {
        let from = error.at.saturating_sub(20).min(text.len());
        let near = text.get(from..text.len().min(error.at + 60)).unwrap_or_default();
        let near = String::from_utf8_lossy(near);
        Self::new(Class::ResponseValidation, format!("{error}, near {near:?}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.name(), self.message)
    }
}

impl std::error::Error for Error {}

impl From<Broken> for Error {
    #[cold]
    fn from(error: Broken) -> Self {
        Self::new(Class::ResponseValidation, error.to_string())
    }
}

impl From<TooLarge> for Error {
    #[cold]
    fn from(error: TooLarge) -> Self {
        Broken::from(error).into()
    }
}
