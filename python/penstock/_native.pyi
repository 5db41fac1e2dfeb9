"""The contract with the native module: every name Python takes from Rust, checked against the build by stubtest.

Only Transfer, AsyncTransfer and Gateway do I/O. Errors of the decoders are the classes of `penstock.errors`, imported when the first one is raised.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from os import PathLike
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
    "Connections",
    "Decoder",
    "DeploymentStatus",
    "EventDecoder",
    "Failure",
    "Function",
    "Gateway",
    "Job",
    "Lease",
    "NetworkError",
    "Pool",
    "PromptTokensDetails",
    "Record",
    "Refusal",
    "RetryBudget",
    "ServerSentEvent",
    "SpendRow",
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
    name is a KeyError or an AttributeError. `Record(mapping)` builds one back from plain data. The repr shows the first
    200 characters of a text and the first 20 items of a list.
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
        answer_tool: the tool that the model was told to call with its answer: the arguments are given as content.

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
        answer_tool: str | None = None,
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
    def restart(self) -> None:
        """Another body follows, which begins the answer again: only what it adds to what was handed out is given.

        Where it is another answer, `feed` and `finish` raise an APIConnectionError with the code "diverged". Ids, of
        the response and of tool calls, stay those that were handed out. Needs keep_partial.

        Raises:
            APIConnectionError: what was handed out cannot be compared: audio, logprobs, or nothing was kept.
        """
    def resume(self, overlap: str = "", /) -> None:
        """Another body follows, in which the answer goes on; it may begin with `overlap`, which was handed out."""
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
    body: Buffer,
    /,
    *,
    family: str = "chat",
    dialect: Mapping[str, str] | None = None,
    model: str = "",
    answer_tool: str | None = None,
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
class Connections:
    """The idle connections to the servers on one route. `len()` is how many there are.

    Args:
        trust: for https.
        proxy: scheme://[name:password@]host[:port] of http, https, socks5, socks5h.
        http2: "negotiated" speaks HTTP/2 within TLS where the server chooses it, "prior-knowledge" without TLS too. Its
            connections are shared by several requests at once.

    Raises:
        NetworkError: "request": this is no proxy.
    """

    def __new__(
        cls, trust: Trust, *, proxy: str | None = None, http2: Literal["negotiated", "prior-knowledge"] | None = None
    ) -> Self: ...
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
        pool: Connections,
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
    @property
    def version(self) -> str | None:
        """Of HTTP, once the headers are there: "HTTP/1.0", "HTTP/1.1" or "HTTP/2"."""
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
        """Ends the connection, or its stream on a shared one, from any thread: whoever waits finds the end."""
    def close(self) -> None:
        """The same, and lets go of everything."""

@final
class AsyncTransfer:
    """The same for an event loop that has readers; the loop's own thread does the work when the loop says so.

    What has to be waited for is awaited in this object itself, by one task of that loop at a time. All but `shut` is
    for its thread only.
    """

    def __new__(
        cls,
        pool: Connections,
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

        (host, port) has to be resolved and given to `resolved`; this object has to be awaited, and gives the same.
        """
    def resolved(self, addresses: Sequence[tuple[str, int]]) -> None:
        """The addresses, as pairs of an IP address and a port. `send` goes on."""
    @property
    def version(self) -> str | None:
        """Of HTTP, once the headers are there: "HTTP/1.0", "HTTP/1.1" or "HTTP/2"."""
    def attach(self, decoder: Decoder) -> None:
        """The decoder that `pull` feeds."""
    def keep_time(self, idle: float | None, due: float | None) -> None:
        """From now on: seconds that a silence may last, and until everything must be over."""
    def read(self) -> Any:
        """The next bytes of the body, None at its end, or this object to await them."""
    def pull(self) -> Any:
        """The next chunks of the body, None at its end, or this object to await them."""
    def shut(self) -> None:
        """Ends the connection, or its stream on a shared one, from any thread: whoever waits finds the end."""
    def close(self) -> None:
        """The same, and lets go of everything."""
    def __await__(self) -> Self: ...
    def __next__(self) -> Self: ...
    def get_loop(self) -> Any:
        """Of the protocol of asyncio's futures, as what follows: for the task that awaits this."""
    def add_done_callback(self, wake: Any, /, *, context: Any = None) -> None: ...
    def cancel(self, msg: Any = None) -> bool: ...
    def result(self) -> None: ...
    _asyncio_future_blocking: bool
    def _wake(self) -> None: ...
    def _ring(self) -> None: ...

@final
class Failure:
    """What the rules of retrying want to know of an exception.

    Args:
        classes: the names of its classes, the most derived first; those that are none of penstock.errors are skipped.
        code, kind: `code` and `type` as the provider sent them.
        retry_after: seconds.
        advice: the provider's `x-should-retry`.
    """

    def __new__(
        cls,
        classes: Sequence[str],
        /,
        *,
        code: str | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
        advice: bool | None = None,
    ) -> Self: ...
    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
    @property
    def elsewhere(self) -> bool:
        """Whether another deployment of the same model may do better at once."""
    @property
    def falls_back(self) -> bool:
        """Whether another model may do better, once retries are spent."""
    def pause(self, retries: int, max_retries: int, chance: float, /, *, first: float = 0.5) -> float | None:
        """Seconds to wait before the next attempt, or None for no more of them. `chance` is in [0, 1)."""
    @staticmethod
    def backoff(retries: int, chance: float, /, *, first: float = 0.5) -> float:
        """Seconds to wait where nobody has said how long: they double, up to eight."""

@final
class RetryBudget:
    """In any minute with N requests there are at most `ratio * N + reserve` retries. Times are seconds of any clock."""

    def __new__(cls, ratio: float, reserve: float, /) -> Self: ...
    def request(self, now: float, /) -> None:
        """A request has come, which is no retry."""
    def retry(self, now: float, /) -> bool:
        """Takes one retry, if there is one left."""

@final
class Pool:
    """The deployments of one model: which one a request goes to. Any number of threads may use it at once.

    Times are seconds of a clock that does not go back.

    Args:
        strategy: "shuffle", "least-busy", "lowest-latency", "lowest-cost" or "lowest-usage".
        deployments: each a mapping with all of: rpm, tpm, max_parallel (limits, or None), allowed_fails (None: never
            left alone), cooldown (seconds), weight, order (lowest first), price (of a token, or None), tags (list of
            str), max_prompt (tokens, or None).

    Raises:
        ValueError: an unknown strategy.
    """

    def __new__(cls, strategy: str, deployments: Sequence[Mapping[str, Any]], /) -> Self: ...
    def lease(
        self,
        now: float,
        chance: float,
        /,
        *,
        tags: Sequence[str] = (),
        all_tags: bool = False,
        prompt: int = 0,
        tokens: int = 0,
        stream: bool = False,
        without: Sequence[int] = (),
    ) -> Lease | Refusal:
        """A deployment for a request, or why there is none.

        Args:
            now: the time.
            chance: a random number in [0, 1).
            tags: only deployments with one of them (all_tags: with all), else those with the tag "default".
            all_tags: see tags.
            prompt: tokens of the prompt, about.
            tokens: tokens of prompt and answer, about; what they were is said when the lease is settled.
            stream: whether the time to the beginning of the answer matters, not that to its end.
            without: deployments that are not wanted, by index.
        """
    def status(self, now: float, /) -> list[DeploymentStatus]:
        """Each deployment as it is now, in their order."""

@final
class Lease:
    """Leave to ask one deployment. Its place is taken until one of `answered`, `failed` and `left`, the first of which
    counts, or until the lease is dropped."""

    @property
    def index(self) -> int: ...
    @property
    def taken(self) -> float:
        """When it was given."""
    def began(self, seconds: float, now: float, /) -> None:
        """The first event of a stream is there, so many seconds after it was asked for."""
    def answered(self, now: float, /, *, seconds: float | None = None, tokens: int | None = None) -> None:
        """It went well, in so many seconds (None where that says nothing), with so many tokens (None: the estimate)."""
    def failed(self, failure: Failure, now: float, /, *, tokens: int | None = None) -> None:
        """It failed. Whether the deployment is to blame depends on the failure."""
    def left(self, now: float, /, *, tokens: int | None = None) -> None:
        """It was given up before there was anything to tell."""

@final
class Refusal:
    """Why no deployment can be asked."""

    @property
    def cause(self) -> str:
        """"unmatched" (no such tags), "excepted" (none but those not wanted), "failing" (all are left alone because
        they fail) or "limited" (all are at their limits)."""
    @property
    def after(self) -> float | None:
        """Seconds until one can be, as far as the clock decides."""
    @property
    def busy(self) -> bool:
        """Whether the end of another request may make room before that."""

@final
class DeploymentStatus:
    """A deployment as it was when asked for."""

    @property
    def health(self) -> str:
        """"up", "cooling" (left alone) or "probing" (one request is on its way to see)."""
    @property
    def cooling(self) -> float:
        """Seconds that it will be left alone."""
    @property
    def in_flight(self) -> int: ...
    @property
    def answered(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def tokens(self) -> int:
        """In all, as far as they were reported."""
    @property
    def rpm(self) -> int:
        """Requests of the last minute."""
    @property
    def tpm(self) -> int:
        """Tokens of the last minute: reported, or estimated where nothing was."""
    @property
    def first_token(self) -> float | None:
        """Seconds to the beginning of a stream: a peak-sensitive moving average."""
    @property
    def whole(self) -> float | None:
        """Seconds to a whole response, likewise."""

@final
class SpendRow(Mapping[str, Any]):
    """What one request came to, from its acceptance to its end. Made by `Gateway.take_rows`. Not on Windows.

    `id`; `started` (Unix seconds), `seconds`, `first_token` (seconds from its start); `key` (the id of one), `route`,
    `group`, `deployment`, `provider`, `model`, `user`, `trace`; `stream`; `outcome` ("complete", "cut", "left",
    "failed", "refused"), `status`, `error` (a class); the counts of tokens, `usage_complete`; `cost` (US dollars);
    `chunks`; `attempts`, each of which has `deployment`, `status`, `error`, `seconds`. None is unknown.
    """

    def __getitem__(self, name: str, /) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def keys(self) -> tuple[str, ...]: ...  # type: ignore[override]
    def get(self, name: str, default: Any = None, /) -> Any: ...
    @property
    def record(self) -> tuple[Any, ...]:
        """The fields of `penstock.gateway.store.Record`, in their order."""

@final
class Gateway:
    """The data plane of the proxy: an HTTP server on threads of its own, none of which ever waits for Python.

    Nothing is served before `listen`. What it cannot do alone waits in two queues for whoever asks: `next_job` and
    `take_rows`. Not on Windows.

    Args:
        tables: what there is to serve, as JSON; `penstock.gateway.compile` makes it.

    Raises:
        ValueError: tables that cannot be; the message says what and where.
    """

    def __new__(cls, tables: Buffer, /) -> Self: ...
    def listen(
        self, host: str, port: int, /, *, workers: int = 1, cert: tuple[str | PathLike[str], str | PathLike[str]] | None = None
    ) -> int:
        """Serves from here on, on so many threads; gives the port, which for 0 the system chooses.

        cert: certificate chain and key, as paths of PEM files.

        Raises:
            OSError: the address is taken, or not this machine's.
            ValueError: a file of the certificate is not there, or holds something else.
        """

    @staticmethod
    def check_cert(certificates: str | PathLike[str], key: str | PathLike[str], /) -> None:
        """Whether `listen` can serve with these files.

        Raises:
            ValueError: one is not there or holds something else, or they do not belong together.
        """

    def next_job(self, seconds: float, /) -> Job | None:
        """The next thing to do; waits so long for one, without the GIL. None: there was none, or all is over."""

    def take_rows(self, most: int, seconds: float, /) -> list[SpendRow | str]:
        """Up to so many rows, one for each request that has ended; waits so long for the first. After `close` there is no wait.

        A text in place of a row is a line for the log.
        """

    def reload(self, tables: Buffer, /) -> None:
        """Other tables from now on, whole or not at all; requests under way keep the old ones.

        Raises:
            ValueError: tables that cannot be.
        """

    def put_keys(self, keys: Buffer, /) -> None:
        """Takes keys in, new ones and changed ones: a JSON array of objects.

        `id` is the SHA-256 of the key as 64 hexadecimal digits; `name`, `models` ([] is all, `*` at the end of one
        stands for anything), `rpm`, `tpm`, `max_parallel`, `budget` and `spent` in US dollars, `expires` in Unix
        seconds, `blocked`.

        Raises:
            ValueError: no such array.
        """

    def drop_keys(self, ids: Sequence[str], /) -> None:
        """Forgets keys, by their ids."""

    def snapshot(self) -> bytes:
        """How deployments and requests are now, as a JSON object."""

    def drain(self, seconds: float, /) -> int:
        """Takes no more requests, waits so long for those under way, and cuts what is left; how many that were."""

    def close(self) -> None:
        """Ends the threads."""

@final
class Job:
    """Something that the proxy cannot do alone, to be answered once. Dropped without an answer, it is a 5xx.

    Raises:
        RuntimeError: by everything, once it is answered.
    """

    @property
    def kind(self) -> Literal["plan", "admin"]:
        """What is wanted: `plan`, or `respond`."""

    @property
    def id(self) -> str:
        """Of the request to plan; the same for each of its attempts, and in its row."""

    @property
    def deployment(self) -> str:
        """The id of the deployment to plan for."""

    @property
    def operation(self) -> Literal["chat", "messages", ""]:
        """The language that the body is in."""

    @property
    def model(self) -> str:
        """The upstream's name of the model to plan for."""

    @property
    def stream_options(self) -> bool:
        """Whether they may be sent: not where the upstream has refused them, nor of what does not stream."""

    @property
    def method(self) -> str:
        """Of the request, where it is for another route than a model's."""

    @property
    def path(self) -> str:
        """The same."""

    @property
    def query(self) -> str:
        """The same, without the question mark."""

    @property
    def body(self) -> bytes:
        """What the client sent. To be planned, it is a JSON object."""

    @property
    def caller(self) -> bytes:
        """Who asks, as JSON: `key` and `name` (or null), `master`."""

    def plan(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Buffer,
        /,
        *,
        family: str,
        reasoning: str = "inside",
        end: str = "finish",
        answer_tool: str | None = None,
    ) -> None:
        """The request to send.

        Raises:
            ValueError: no URL, no family, no such dialect.
        """

    def refuse(
        self,
        status: int,
        message: str,
        /,
        *,
        name: str = "BadRequestError",
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """The request is at fault: the client gets this error, of the class with this name."""

    def respond(self, status: int, body: Buffer, /, *, content_type: str = "application/json") -> None:
        """The response of a route."""
