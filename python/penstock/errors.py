"""The exceptions a call can raise.

    APIError
    ├── APIConnectionError                no answer, or an answer cut short             retried
    │   └── Timeout                       a clock ran out, here or there (408, 504)     retried
    ├── APIResponseValidationError        an answer that is not what the API promises
    ├── BudgetExceededError               a limit of the caller's own
    └── APIStatusError                    the provider said no
        ├── BadRequestError               400, 413, 415: the caller must change something
        │   ├── ContextWindowExceededError
        │   ├── ContentPolicyViolationError
        │   ├── UnsupportedParamsError    a parameter that the provider lacks
        │   ├── PaymentRequiredError      402
        │   └── UnprocessableEntityError  422
        ├── AuthenticationError           401: no key, or a wrong one
        ├── PermissionDeniedError         403
        ├── NotFoundError                 404: model, deployment, endpoint
        ├── ConflictError                 409                                           retried
        ├── RateLimitError                429                                           retried
        ├── InternalServerError           500 and other 5xx                             retried
        ├── BadGatewayError               502                                           retried
        └── ServiceUnavailableError       503, 529, 424: overloaded                     retried

`APITimeoutError` is another name of `Timeout`. An error inside a stream that began with status 200 has the class
that its status would have had.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from ._native import ChatCompletion, CompletionUsage


class Headers(dict[str, str]):
    """Response headers under lower-case names, found in any case. Repeated headers are joined by a comma."""

    __slots__ = ()

    @classmethod
    def of(cls, pairs: "Iterable[tuple[str, str]]") -> "Self":
        """Headers from (name, value) pairs, without `set-cookie`: errors get logged, and a session is a secret."""
        headers: dict[str, str] = {}
        for written, value in pairs:
            name = written.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        headers.pop("set-cookie", None)
        return cls(headers)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name.lower() if isinstance(name, str) else name)

    def get(self, name: str, default: "Any" = None) -> "Any":
        """The value, or `default`."""
        return super().get(name.lower(), default)


class Response:
    """The little of an HTTP response that an error keeps: `status_code` and `headers`."""

    __slots__ = ("headers", "status_code")

    def __init__(self, status_code: int, headers: Headers) -> None:
        self.status_code = status_code
        self.headers = headers

    def __repr__(self) -> str:
        return f"<Response {self.status_code}>"


class APIError(Exception):
    """What went wrong between the caller and the model. Every attribute but `message` may be None.

    Attributes:
        message: one sentence or more, from the provider where it gave one.
        status_code: the HTTP status; inside a stream the one that the provider names in the error.
        provider, model: what was called (`llm_provider` is another name of `provider`).
        code, type, param: as the provider sent them.
        body: the provider's own error, parsed where it is JSON; bounded.
        request_id: the provider's id of the request.
        retry_after: seconds to wait before the next try, as the provider asks.
        headers, response: of the HTTP response, if there was one.
        partial: a ChatCompletion of what had been received before a stream broke.
        usage: the tokens reported before that.
    """

    retryable = False
    """Whether another attempt at the same request can succeed: a fact of the class, see the tree above."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        provider: str | None = None,
        model: str | None = None,
        code: "str | int | None" = None,
        type: str | None = None,
        param: str | None = None,
        body: "Any" = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        headers: Headers | None = None,
        response: Response | None = None,
        partial: "ChatCompletion | None" = None,
        usage: "CompletionUsage | None" = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.provider = provider
        self.model = model
        self.code = code
        self.type = type
        self.param = param
        self.body = body
        self.request_id = request_id
        self.retry_after = retry_after
        self.headers = headers
        self.response = response
        self.partial = partial
        self.usage = usage

    @property
    def llm_provider(self) -> str | None:
        """Another name of `provider`."""
        return self.provider

    @llm_provider.setter
    def llm_provider(self, value: str | None) -> None:
        self.provider = value

    def fill(self, **known: "Any") -> None:
        """Sets the named attributes that are still None: each layer adds what it knows, none overrules another."""
        for name, value in known.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    def __str__(self) -> str:
        where = "/".join(part for part in (self.provider, self.model) if part)
        notes = [
            where,
            f"status {self.status_code}" if self.status_code is not None else "",
            f"request {self.request_id}" if self.request_id else "",
        ]
        noted = ", ".join(note for note in notes if note)
        return f"{self.message} ({noted})" if noted else self.message

    def __reduce__(self) -> "tuple[Any, ...]":
        return type(self), (self.message,), self.__dict__


class APIConnectionError(APIError):
    """No connection, no response, or a response that ended before the completion did (then with `partial`).

    `code` is "tls" where the server's certificate is not trusted, or it speaks no TLS: that is not tried again.
    """

    retryable = True


class Timeout(APIConnectionError):
    """One of the clocks of `Timeouts` ran out: `code` is its name. Or the provider answered 408 or 504."""


APITimeoutError = Timeout


class APIResponseValidationError(APIError):
    """The response is not what the API promises: not JSON, not this stream format, an event beyond the size limit."""


class BudgetExceededError(APIError):
    """The caller's own spending limit does not allow the call."""


class APIStatusError(APIError):
    """The provider refused, by status or by an error inside the stream."""


class BadRequestError(APIStatusError):
    """The request has to change. Without a `status_code` it was refused here, before any byte was sent."""


class ContextWindowExceededError(BadRequestError):
    """The prompt, or the prompt and the tokens asked for, do not fit the model."""


class ContentPolicyViolationError(BadRequestError):
    """A filter blocked the prompt or the answer."""


class UnsupportedParamsError(BadRequestError):
    """A parameter that the provider lacks; `param` names it. `drop_params=True` leaves such parameters out."""


class PaymentRequiredError(BadRequestError):
    """The account has no credit."""


class UnprocessableEntityError(BadRequestError):
    """Status 422."""


class AuthenticationError(APIStatusError):
    """The key is missing, wrong or expired."""


class PermissionDeniedError(APIStatusError):
    """The key is known but may not do this."""


class NotFoundError(APIStatusError):
    """No such model, deployment or endpoint."""


class ConflictError(APIStatusError):
    """Status 409."""

    retryable = True


class RateLimitError(APIStatusError):
    """Too many requests or tokens; `retry_after` is the wait the provider asks for, in seconds."""

    retryable = True


class InternalServerError(APIStatusError):
    """The provider failed."""

    retryable = True


class BadGatewayError(APIStatusError):
    """Something before the provider failed."""

    retryable = True


class ServiceUnavailableError(APIStatusError):
    """The provider, or the backend it uses, is overloaded."""

    retryable = True
