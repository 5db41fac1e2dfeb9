# ruff: noqa: D102  the methods of answers and ports are documented on Answer and Port
"""The HTTP port: one request out, one answer in.

Both worlds, blocking and asynchronous, have the same methods, all of them coroutines; those of the blocking world never
suspend, so `run` gets their result without an event loop. What is written on top of the port is written once.

    port.send(request, limits) -> Answer       answer.read() -> bytes | None
    port.sleep(seconds), port.aside(work)      answer.close(), answer.abandon()

The loop over the chunks of a stream is the exception: it takes what `answer.chunks(decoder)` gives, which is a plain
function in one world and one that may have to be awaited in the other.
"""

from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .._native import Decoder, NetworkError
from ..clocks import Watch
from ..errors import APIConnectionError, APIError, APIResponseValidationError, BadRequestError, Headers

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking call tried to wait for an event loop")


@dataclass(frozen=True, slots=True)
class Request:
    """A request. Its repr leaves the headers out: one of them is the key."""

    url: str
    headers: Mapping[str, str]
    content: bytes
    method: str = "POST"

    def __repr__(self) -> str:
        return f"<Request {self.url.partition('?')[0]}>"


class Answer(Protocol):
    """A response whose body has not been read."""

    status_code: int
    headers: Headers
    line: Any
    """The connection, if it carries this response alone: shutting it down ends this response and no other."""

    async def read(self) -> bytes | None:
        """The next bytes, with any content-encoding undone; None at the end."""

    def chunks(self, decoder: Decoder) -> Callable[[], Any]:
        """A function that gives the chunks of the next bytes, a list, and None at the end.

        Of asynchronous answers it may give something to await instead, which gives these.
        """

    async def close(self) -> None:
        """Gives the connection back if the body was read to its end, and aborts it if not."""

    def abandon(self) -> None:
        """The same from a place where nothing can be awaited, and without an error."""


class Port(Protocol):
    """Where requests go."""

    async def send(self, request: Request, limits: dict[str, float | None]) -> Answer:
        """The answer, once its headers are there. `limits` are httpx's: seconds to connect, read, write, and pool."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""

    async def aside(self, work: Callable[[], T]) -> T:
        """The result of something that blocks, and holds up no event loop meanwhile."""


class Scripted:
    """An answer that was there all the time: for `mock_response`, and for bodies that have to be read twice."""

    line = None

    def __init__(self, status_code: int, headers: Headers, body: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self._parts = iter([body])

    async def read(self) -> bytes | None:
        return next(self._parts, None)

    def chunks(self, decoder: Decoder) -> Callable[[], Any]:
        return lambda: next(map(decoder.feed, self._parts), None)

    async def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


PRIOR_KNOWLEDGE = "prior-knowledge"


def http2_of(value: Any) -> bool | str:
    """What `http2=` says, where it says something.

    Raises:
        BadRequestError: it says something else.
    """
    if value is None or value is False or value is True or value == PRIOR_KNOWLEDGE:
        return value or False
    raise BadRequestError(f"http2 must be True, False or {PRIOR_KNOWLEDGE!r}, not {value!r}", param="http2")


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a server: what tells one pool of connections from another. As httpx takes them.

    `lane` is for callers with many requests at once: whenever one begins or ends, httpx looks at each connection of the
    pool for each request in it. At 64 of them that is 7 ms of CPU a request, and in lanes of 8 nothing to speak of.
    The engine needs no lanes. `http2` is True for HTTP/2 within TLS where the server chooses it, "prior-knowledge" for
    HTTP/2 without TLS too.
    """

    proxy: Hashable = None
    verify: Any = True
    cert: Any = None
    http2: bool | str = False
    lane: int = 0


# What comes back


def failure(error: Exception, watch: Watch) -> APIError | None:
    """The error of ours for an exception of the HTTP library; None for one that is not the network's fault.

    By names, for httpx and httpx2 have the same ones and neither has to be imported for the other.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, APIError):
        return error
    if watch.fired is not None:
        return watch.timeout()
    if isinstance(error, NetworkError):
        message, kind = error.args
        return _named(message, kind, watch)
    if "TimeoutException" in names:
        # The library keeps the time until the headers; later only where the watchdog cannot.
        slow_connect = "ConnectTimeout" in names and watch.limits["connect"] == watch.timeouts.connect
        return watch.timeout("connect" if slow_connect else None)
    if names & {"InvalidURL", "UnsupportedProtocol"}:
        return BadRequestError(f"{error} ({type(error).__name__})", param="api_base")
    if "DecodingError" in names:
        return APIResponseValidationError(f"the body cannot be decompressed: {error}")
    if "ConnectError" in names:
        cause = _cause(error)
        where = getattr(getattr(error, "_request", None), "url", None)
        why = str(cause) or "the connection failed"
        # Another attempt at the same certificate ends the same way; a server that hung up may have been starting.
        untrusted = type(cause).__name__ in ("SSLError", "SSLCertVerificationError")
        return _unconnected(
            f"no connection to {where.netloc.decode()}: {why}" if where is not None else why,
            code="tls" if untrusted else None,
        )
    if names & {"HTTPError", "StreamError"} or isinstance(error, OSError):
        return APIConnectionError(f"{str(_cause(error)) or 'the connection failed'} ({type(error).__name__})")
    return None


def _named(message: str, kind: str, watch: Watch) -> APIError:
    """The same for the engine, which says what kind of failure it was."""
    if kind == "connect_time":
        return watch.timeout("connect" if watch.limits["connect"] == watch.timeouts.connect else None)
    if kind == "due_time":
        return watch.timeout("first_token" if watch.first_due <= watch.total_due else "total")
    if kind == "idle_time":
        return watch.timeout("idle")
    if kind in ("url", "request"):
        return BadRequestError(message, param="api_base" if kind == "url" else None)
    if kind == "coding":
        return APIResponseValidationError(f"the body cannot be decompressed: {message}")
    return _unconnected(message, code="tls" if kind == "tls" else None)


def _unconnected(message: str, code: str | None) -> APIConnectionError:
    """The error for a connection that does not stand, with what to do where that is on this side."""
    if "Too many open files" in message:
        message += ": each stream holds one, and this process may have no more; `ulimit -n` raises the limit"
    return APIConnectionError(message, code=code)


def _cause(error: BaseException) -> BaseException:
    """The word of the system in a chain of wrapped errors, or else the first that says anything."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        inner = link.exceptions[0] if isinstance(link, BaseExceptionGroup) else None
        link = inner or link.__cause__ or link.__context__
    system = (each for each in chain if isinstance(each, OSError) and each.errno is not None)
    return next(system, None) or next((each for each in chain if str(each)), error)


REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "x-generation-id")


def request_id(headers: Headers) -> str | None:
    """The provider's id of the request."""
    return next((headers[name] for name in REQUEST_IDS if name in headers), None)


def media_type(headers: Headers) -> str:
    """The content-type without its parameters, in lower case; "" if there is none."""
    kind: str = headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()
