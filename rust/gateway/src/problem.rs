//! What a client is told in place of an answer.

use penstock_core::error::{Class, Error};
use penstock_engine::error::{Error as NetworkError, Kind};

/// An error, and what stands beside it in the response's head.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) error: Error,
    pub(crate) status: u16,
    /// What clients that know `x-should-retry` are told; the others go by the status.
    pub(crate) retry: Option<bool>,
}

impl Problem {
    #[cold]
    pub(crate) fn new(class: Class, code: &str, message: impl Into<String>) -> Self {
        let mut error = Error::new(class, message);
        error.details.code = (!code.is_empty()).then(|| code.to_owned());
        error.into()
    }

    /// A request that cannot be, by one of its fields.
    #[cold]
    pub(crate) fn of_field(field: &str, message: impl Into<String>) -> Self {
        let mut problem = Self::new(Class::BadRequest, "", message);
        problem.error.details.param = Some(field.to_owned());
        problem
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Seconds after which it may be otherwise.
    pub(crate) fn after(mut self, seconds: Option<f64>) -> Self {
        self.error.details.retry_after = seconds;
        self
    }

    pub(crate) fn for_good(mut self) -> Self {
        self.retry = Some(false);
        self
    }

    /// The exception that a client of ours would raise.
    pub(crate) fn name(&self) -> &'static str {
        self.error.class.name()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = error.details.status.filter(|status| (400..600).contains(status));
        let status = status.unwrap_or(match error.class {
            Class::Connection | Class::ResponseValidation | Class::BadGateway => 502,
            Class::BadRequest | Class::ContextWindowExceeded | Class::ContentPolicyViolation => 400,
            Class::PaymentRequired => 402,
            Class::UnprocessableEntity => 422,
            Class::Authentication => 401,
            Class::PermissionDenied => 403,
            Class::NotFound => 404,
            Class::Conflict => 409,
            Class::RateLimit => 429,
            Class::Timeout => 504,
            Class::InternalServer => 500,
            Class::ServiceUnavailable => 503,
        });
        Self { error, status, retry: None }
    }
}

/// The engine's errors, as core's policy knows them.
pub(crate) fn of_network(error: NetworkError) -> Error {
    let class = match error.kind {
        Kind::ConnectTime | Kind::DueTime | Kind::IdleTime => Class::Timeout,
        Kind::Coding => Class::ResponseValidation,
        Kind::Url | Kind::Request => Class::InternalServer,
        Kind::Connect | Kind::Tls | Kind::Proxy | Kind::Cut | Kind::Malformed => Class::Connection,
    };
    let mut told = Error::new(class, error.message);
    // No waiting cures a certificate that nobody trusts.
    told.details.code = (error.kind == Kind::Tls).then(|| "tls".to_owned());
    told
}
