"""The contract with the native module: every name Python takes from Rust, checked against the build by stubtest.

Only Pool, Transfer and AsyncTransfer do I/O. Errors of the decoders are the classes of `penstock.errors`, imported when the first one is raised.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, ClassVar, Final, Literal, Self, final

from typing_extensions import Buffer, disjoint_base

__all__ = [
    "FAMILIES",
    "AsyncTransfer",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "Choice",
    "ChoiceDelta",
    "ChunkChoice",
    "ChunkIterator",
    "CompletionTokensDetails",
    "CompletionUsage",
    "Decoder",
    "EventDecoder",
    "Function",
    "NetworkError",
    "Pool",
    "PromptTokensDetails",
    "Record",
    "ServerSentEvent",
    "ToolCall",
    "Transfer",
    "Trust",
    "__version__",
    "decode_error",
    "decode_response",
]

__version__: Final[str]
FAMILIES: Final[tuple[str, ...]]
"""The wire families a Decoder reads, as its `family` argument spells them."""

@disjoint_base
class Record(Mapping[str, Any]):
    """A frozen JSON object with item and attribute access to the same fields.

    A known field that is absent reads as None both ways; `in`, iteration, `len`, `==` and the dumps show only what is
    present. A field the provider sent that OpenAI's schema lacks is kept, and built when first asked for. An unknown
    name is a KeyError or an AttributeError. `Record(mapping)` builds one back from plain data.
    """

    def __new__(cls, fields: Mapping[str, Any], /) -> Self: ...
    def __getitem__(self, name: str, /) -> Any: ...
    def __getattr__(self, name: str, /) -> Any: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any, /) -> Self: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def get(self, name: str, default: Any = None, /) -> Any: ...
    def keys(self) -> KeysView[str]: ...
    def values(self) -> ValuesView[Any]: ...
    def items(self) -> ItemsView[str, Any]: ...
    def model_dump(self) -> dict[str, Any]:
        """The object as plain dicts and lists, present fields only."""
    def to_dict(self) -> dict[str, Any]:
        """The same as `model_dump()`."""
    def model_dump_json(self) -> str:
        """The object as compact JSON text."""

@final
class PromptTokensDetails(Record):
    """Parts of `prompt_tokens`, in tokens."""

    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def cache_write_tokens(self) -> int | None: ...
    @property
    def audio_tokens(self) -> int | None: ...

@final
class CompletionTokensDetails(Record):
    """Parts of `completion_tokens`, in tokens."""

    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def audio_tokens(self) -> int | None: ...
    @property
    def accepted_prediction_tokens(self) -> int | None: ...
    @property
    def rejected_prediction_tokens(self) -> int | None: ...

@final
class CompletionUsage(Record):
    """The tokens of one completion. A count that the provider does not give is absent and reads as None, never 0.

    `source`, `complete` and `raw` are attributes only: never keys, never dumped.
    """

    def __new__(
        cls,
        fields: Mapping[str, Any],
        /,
        *,
        source: Literal["reported", "partial", "estimated"] = "reported",
        complete: bool = True,
        raw: Mapping[str, Any] | None = None,
    ) -> Self: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def total_tokens(self) -> int | None: ...
    @property
    def prompt_tokens_details(self) -> PromptTokensDetails | None: ...
    @property
    def completion_tokens_details(self) -> CompletionTokensDetails | None: ...
    @property
    def source(self) -> Literal["reported", "partial", "estimated"]:
        """"reported": the provider's final word. "partial": its last word before the stream was cut. "estimated": ours."""
    @property
    def complete(self) -> bool:
        """Whether the provider's final word was seen."""
    @property
    def raw(self) -> dict[str, Any] | None:
        """The provider's own usage object, unchanged."""

@final
class Function(Record):
    """A function's name and its arguments as JSON text; in a delta, the next piece of that text."""

    @property
    def name(self) -> str | None: ...
    @property
    def arguments(self) -> str | None: ...

@final
class ToolCall(Record):
    """A tool call of a message, or a piece of one in a delta (then with the `index` it belongs to)."""

    @property
    def index(self) -> int | None: ...
    @property
    def id(self) -> str | None: ...
    @property
    def type(self) -> str | None: ...
    @property
    def function(self) -> Function | None: ...

@final
class ChoiceDelta(Record):
    """What one chunk adds to one choice's message."""

    @property
    def role(self) -> str | None: ...
    @property
    def content(self) -> str | None: ...
    @property
    def reasoning_content(self) -> str | None: ...
    @property
    def refusal(self) -> str | None: ...
    @property
    def tool_calls(self) -> list[ToolCall] | None: ...
    @property
    def function_call(self) -> Function | None: ...
    @property
    def audio(self) -> Record | None: ...
    @property
    def annotations(self) -> list[Record] | None: ...

@final
class ChunkChoice(Record):
    """One choice of a chunk."""

    @property
    def index(self) -> int: ...
    @property
    def delta(self) -> ChoiceDelta: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def logprobs(self) -> Record | None: ...

@final
class ChatCompletionChunk(Record):
    """One chunk of a streamed completion, as OpenAI's `chat.completion.chunk`."""

    @property
    def id(self) -> str: ...
    @property
    def object(self) -> str: ...
    @property
    def created(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def choices(self) -> list[ChunkChoice]: ...
    @property
    def usage(self) -> CompletionUsage | None: ...
    @property
    def service_tier(self) -> str | None: ...
    @property
    def system_fingerprint(self) -> str | None: ...

@final
class ChatCompletionMessage(Record):
    """The message of a complete response."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str | None: ...
    @property
    def reasoning_content(self) -> str | None: ...
    @property
    def refusal(self) -> str | None: ...
    @property
    def tool_calls(self) -> list[ToolCall] | None: ...
    @property
    def function_call(self) -> Function | None: ...
    @property
    def audio(self) -> Record | None: ...
    @property
    def annotations(self) -> list[Record] | None: ...

@final
class Choice(Record):
    """One choice of a complete response."""

    @property
    def index(self) -> int: ...
    @property
    def message(self) -> ChatCompletionMessage: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def logprobs(self) -> Record | None: ...

@final
class ChatCompletion(Record):
    """A complete response, as OpenAI's `chat.completion`."""

    @property
    def id(self) -> str: ...
    @property
    def object(self) -> str: ...
    @property
    def created(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def choices(self) -> list[Choice]: ...
    @property
    def usage(self) -> CompletionUsage | None: ...
    @property
    def service_tier(self) -> str | None: ...
    @property
    def system_fingerprint(self) -> str | None: ...

@final
class Decoder:
    """Bytes of one response body in, chunks out. No I/O: the caller reads the socket.

    Args:
        family: one of FAMILIES: the wire format.
        dialect: how a server differs within the family, as {"reasoning": "inside" | "beside",
            "end": "finish" | "done" | "eof"}; what is left out is the family's usual way.
        depth: "chunks" gives ChatCompletionChunk objects, "text" the non-empty text deltas (str) of choice 0,
            "raw" nothing at all: the bytes go elsewhere untouched and only usage and errors are read.
        include_usage: put `"usage": null` on each chunk and end with one chunk of `choices: []` and the usage.
        max_event_size: bytes that one event may have, unfinished input included; None for no limit.
        model: the model's name for servers that do not send one.
        keep_partial: keep what is needed for `response()`: about twice the delivered text.

    Raises:
        ValueError: an unknown family, dialect or depth.
    """

    def __new__(
        cls,
        family: str = "chat",
        *,
        dialect: Mapping[str, str] | None = None,
        depth: Literal["chunks", "text", "raw"] = "chunks",
        include_usage: bool = False,
        max_event_size: int | None = 16777216,
        model: str = "",
        keep_partial: bool = False,
    ) -> Self: ...
    def feed(self, data: Buffer, /) -> Any:
        """The list of what these bytes complete: chunks or str by depth; None at depth "raw".

        An error in the stream is raised once everything decoded before it has been handed out: by this call if it
        gives nothing, else by the next `feed` or `finish`, and by all that follow.

        Raises:
            APIStatusError: the provider reported an error; the class is the one its status would have.
            APIResponseValidationError: bytes that are not this family's format, or an event over max_event_size.
            RuntimeError: another thread is feeding this decoder.
        """
    def finish(self) -> Any:
        """The end of the body: like `feed`, with what was still held back.

        Raises:
            APIConnectionError: the body ended before the completion did.
            (and what `feed` raises)
        """
    def read_text(self) -> None:
        """From here on as at depth "text": `feed` and `finish` give str, and nothing is kept for `response()`."""
    def response(self) -> ChatCompletion | None:
        """What has been received so far as one response; None before the first chunk, or without keep_partial."""
    @property
    def usage(self) -> CompletionUsage | None:
        """The best known so far."""
    @property
    def ended(self) -> bool:
        """Whether the body said that it is over ([DONE]): what follows is ignored."""

@final
class ChunkIterator:
    """Drives a Decoder over an iterable of bytes: what `feed` and `finish` return, one item at a time.

    Errors of the decoder come at the point where the caller is; errors of the iterable pass through.
    """

    def __new__(cls, iterable: Iterable[Buffer], decoder: Decoder, /) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    @property
    def usage(self) -> CompletionUsage | None: ...

@final
class ServerSentEvent:
    """One dispatched event: `event` (its type, "message" by default), `data`, the last event `id`, and `retry` in
    milliseconds if it was set since the previous event."""

    @property
    def event(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def retry(self) -> int | None: ...

@final
class EventDecoder:
    """Server-sent events by the WHATWG rules, from bytes cut anywhere."""

    def __new__(cls, *, max_event_size: int | None = 16777216) -> Self: ...
    def feed(self, data: Buffer, /) -> list[ServerSentEvent]:
        """The events that these bytes complete.

        Raises:
            APIResponseValidationError: an event over max_event_size.
        """

def decode_response(
    body: Buffer, /, *, family: str = "chat", dialect: Mapping[str, str] | None = None, model: str = ""
) -> ChatCompletion:
    """A single (not streamed) response body.

    Raises:
        APIStatusError: the body is an error in spite of its 2xx status.
        APIResponseValidationError: the body is not this family's JSON.
    """

def decode_error(status: int, body: Buffer, /, *, headers: Sequence[tuple[str, str]] = (), now: float = 0.0) -> Any:
    """The APIStatusError for a response of this status: class, message, code, type, param, retry_after and request_id
    read from body and headers by the rules common to all providers. `now` is Unix seconds, for retry-after dates.
    """

class NetworkError(Exception):
    """What the engine could not do.

    `args` are a message that names host and port, and one word for its kind: "url", "request" (they cannot be),
    "connect", "tls", "proxy" (no connection), "cut", "malformed", "coding" (no whole response), "connect_time",
    "due_time", "idle_time" (time ran out).
    """

@final
class Trust:
    """Whom to trust in TLS, and as whom to appear.

    Args:
        authorities: files of PEM, or directories of such; None for those of this machine.
        verify: False to trust anybody.
        cert: the files of the client's own certificate chain and key.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds something else.
    """

    def __new__(
        cls, authorities: Sequence[str] | None = None, *, verify: bool = True, cert: tuple[str, str] | None = None
    ) -> Self: ...

@final
class Pool:
    """The idle connections to the servers on one route. `len()` is how many there are.

    Args:
        trust: for https.
        proxy: scheme://[name:password@]host[:port] of http, https, socks5, socks5h.

    Raises:
        NetworkError: "request": this is no proxy.
    """

    def __new__(cls, trust: Trust, *, proxy: str | None = None) -> Self: ...
    def __len__(self) -> int: ...
    def close(self) -> None:
        """Closes them, and those in use when they come back."""

@final
class Transfer:
    """One request and its response, for a thread that waits. All waiting is done without the GIL.

    Args:
        pool: where the connection comes from and goes back to.
        url: http:// or https://.
        headers: as they are sent; host, content-length and accept-encoding are added if they are not there.
        content: the body.
        connect: seconds until the connection stands, proxy and TLS included.
        wait: seconds until the response's headers are there.
        decode: whether the content-encoding is undone.

    Raises:
        NetworkError: "url", "request".
    """

    def __new__(
        cls,
        pool: Pool,
        url: str,
        headers: Sequence[tuple[str, str]],
        content: Buffer | None = None,
        *,
        method: str = "POST",
        connect: float | None = None,
        wait: float | None = None,
        decode: bool = True,
    ) -> Self: ...
    def send(self) -> tuple[int, list[tuple[str, str]]]:
        """Sends the request. Status and headers of the response.

        A connection from the pool that turns out closed before the first byte of the response is replaced once.

        Raises:
            NetworkError: of every kind.
        """
    def attach(self, decoder: Decoder) -> None:
        """The decoder that `pull` feeds."""
    def keep_time(self, idle: float | None, due: float | None) -> None:
        """From now on: seconds that a silence may last, and until everything must be over."""
    def read(self) -> bytes | None:
        """The next bytes of the body, None at its end. Then the connection is back in the pool, if it can be.

        Raises:
            NetworkError: "cut", "malformed", "coding", "due_time", "idle_time".
        """
    def pull(self) -> list[Any] | None:
        """The next chunks of the body: never an empty list, unless the decoder says that the stream is over.

        Raises:
            NetworkError: as `read`.
            APIError: as `Decoder.feed`.
        """
    def shut(self) -> None:
        """Ends the connection, from any thread: whoever waits finds the end of the body."""
    def close(self) -> None:
        """The same, and lets go of everything."""

@final
class AsyncTransfer:
    """The same for an event loop that has readers; the loop's own thread does the work when the loop says so.

    What has to be waited for is a future of that loop. All but `shut` is for its thread only.
    """

    def __new__(
        cls,
        pool: Pool,
        event_loop: Any,
        url: str,
        headers: Sequence[tuple[str, str]],
        content: Buffer | None = None,
        *,
        method: str = "POST",
        connect: float | None = None,
        wait: float | None = None,
        decode: bool = True,
    ) -> Self: ...
    @property
    def head(self) -> tuple[int, list[tuple[str, str]]] | None:
        """Status and headers of the response, once they are there."""
    def send(self) -> Any:
        """Goes on to the response's headers: None when they are there.

        (host, port) has to be resolved and given to `resolved`; a future has to be awaited, and gives the same.
        """
    def resolved(self, addresses: Sequence[tuple[str, int]]) -> None:
        """The addresses, as pairs of an IP address and a port. `send` goes on."""
    def attach(self, decoder: Decoder) -> None:
        """The decoder that `pull` feeds."""
    def keep_time(self, idle: float | None, due: float | None) -> None:
        """From now on: seconds that a silence may last, and until everything must be over."""
    def read(self) -> Any:
        """The next bytes of the body, None at its end, or a future for them."""
    def pull(self) -> Any:
        """The next chunks of the body, None at its end, or a future for them."""
    def shut(self) -> None:
        """Ends the connection, from any thread: whoever waits finds the end of the body."""
    def close(self) -> None:
        """The same, and lets go of everything."""
    def _wake(self) -> None: ...
    def _ring(self) -> None: ...
