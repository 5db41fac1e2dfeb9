"""Streams: what `completion(stream=True)` gives, and the exchange with the server behind it."""

import atexit
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, Self
from weakref import WeakSet

from ._native import ChatCompletion, ChatCompletionChunk, CompletionUsage, Decoder
from .clocks import NEVER, Watch
from .errors import APIConnectionError, APIError, APIResponseValidationError, Headers, Response
from .parser import TURN, ending, other_tasks
from .transport import Answer, failure, media_type, request_id, run

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .hooks import Observation
    from .tools import FunctionCall

    R_co = TypeVar("R_co", bound=ChatCompletion, default=ChatCompletion, covariant=True)
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)

TAIL = 0.25
"""Seconds for the end of the body after the stream has said that it is over: with it the connection can be used again,
without it a slow server would hold up a caller who has everything."""

TURN_SECONDS = 0.001

QUOTED = 200
"""Bytes of a body that is no answer at all which an error shows."""

STREAMS = frozenset(
    {
        "text/event-stream",
        "application/x-ndjson",
        "application/vnd.amazon.eventstream",
        "application/octet-stream",
        "application/stream+json",
        "",
    }
)
"""Content types under which streams come. Others are believed only if the first bytes look like events."""

DOCUMENT = "application/json"

SPOKEN = attrgetter("content", "reasoning_content", "tool_calls", "refusal", "function_call", "audio")
"""The fields of a delta that hold tokens."""

EVENTS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How the first line of a stream of events begins."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of a call.

    seconds: from sending it to its error or, for the last one, to its first event. usage: what it had cost until it
    failed, where the provider said so; it is in no other total. deployment: the id of the router's, if one chose it.
    base_url: where it was sent.
    """

    provider: str
    model: str
    seconds: float
    status_code: int | None = None
    error: APIError | None = None
    usage: CompletionUsage | None = None
    deployment: str | None = None
    base_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of the successful attempt; None where there is nothing to measure yet.

    to_headers, to_first_token: since its request. between_tokens, tokens_per_second: from the first to the last bytes,
    by the completion tokens that the provider reported.
    """

    to_headers: float
    to_first_token: float | None
    between_tokens: float | None
    tokens_per_second: float | None


How = Literal["complete", "failed", "cancelled", "left"]
"""How a stream can end: as it should; with an error; with the task, or by KeyboardInterrupt; by the caller, who closed
it, left its loop, or let go of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stream ended, and what was known then.

    error: what it was failed or cancelled by. dropped: it was let go of, perhaps to the garbage collector: whoever is
    told of it now is told in any thread, under any lock.
    """

    how: How
    error: BaseException | None
    usage: CompletionUsage | None
    timings: Timings
    attempts: Sequence[Attempt]
    decoder: Decoder
    dropped: bool = False

    def response(self) -> ChatCompletion | None:
        """What had been received, built now; None if nothing was or nothing was kept."""
        return self.decoder.response()


class Exchange:
    """One answered request: its body and its clocks."""

    def __init__(self, answer: Answer, watch: Watch, *, stream: bool = False) -> None:
        self.answer = answer
        self.watch = watch
        self.closed = False
        self.to_headers = monotonic() - watch.began
        watch.headers(answer.line, stream=stream)

    def abandon(self) -> None:
        """Aborts the request from a place that must not wait: where objects are dropped."""
        if not self.closed:
            self.closed = True
            self.watch.shut()
            self.watch.stop()
            if not self.watch.inherited:
                self.answer.abandon()

    __del__ = abandon  # a stream that nobody looked at: one that was begun is ended by its generator

    async def read(self) -> bytes | None:
        """The next bytes of the body; None at its end."""
        watch = self.watch
        data = await self.answer.read()
        if data is None:
            self.over()
        else:
            watch.seen = monotonic()
            watch.check()
        return data

    async def whole(self) -> bytes:
        """The whole body."""
        parts = []
        while (data := await self.read()) is not None:
            parts.append(data)
        return b"".join(parts)

    async def most(self, limit: int) -> bytes:
        """What can be had of the body: no more than the reads that bring so many bytes, and up to where it breaks."""
        body = bytearray()
        with suppress(Exception):
            while len(body) < limit and (data := await self.read()) is not None:
                body += data
        return bytes(body)

    def over(self) -> None:
        """The body is at its end: by itself, or because the watchdog shut the connection down, which raises Timeout."""
        fired = self.watch.fired
        self.watch.stop()
        if fired is not None:
            raise self.watch.timeout(fired)

    async def close(self) -> None:
        """Gives the connection back, or aborts what is still coming. Never raises: there is nothing left to save."""
        if not self.closed:
            self.closed = True
            await self.release()

    async def release(self) -> None:
        """The same, to go on with another answer."""
        self.watch.stop()
        if not self.watch.inherited:
            with suppress(Exception):
                await self.answer.close()


class Flow(Exchange):
    """The body of a stream on its way through a decoder.

    `complete` adds to an error what the call knows: provider, model. `resume`, where the caller wants it, has another
    answer take the place of one that was cut; it raises the error if there is none.
    """

    def __init__(
        self, answer: Answer, watch: Watch, decoder: Decoder, complete: Callable[[APIError], APIError]
    ) -> None:
        super().__init__(answer, watch, stream=True)
        self.decoder = decoder
        self.attempts: Sequence[Attempt] = ()
        self.first: list[Any] = []
        self.unread: Iterator[Any] = iter(())
        """What the last read brought and nobody has taken yet."""
        self.to_first_token: float | None = None
        self.left = False
        self.how: How | None = None
        self.response_type: type | None = None
        self.resume: Callable[[Flow, APIError], Awaitable[Flow]] | None = None
        self.observation: Observation | None = None
        self._dropped = False
        self._complete = complete
        self._listeners: list[Callable[[Outcome], object]] = []
        self._settled = threading.Lock()  # taken once, and never given back

    def on_settled(self, listener: Callable[[Outcome], object]) -> None:
        """Has the listener called once, when the stream has ended, however it does.

        Wherever that is: in another thread that closes it, in the garbage collector, at the interpreter's exit. It
        must neither raise nor wait.
        """
        self._listeners.append(listener)
        _heard.add(self)

    def observe(self, observation: "Observation") -> None:
        """Has the hooks of the call told of the first token and of the end."""
        self.observation = observation
        self.on_settled(observation.settled)

    def settle(self, how: How, error: BaseException | None = None) -> None:
        """The stream has ended: tells those who listen, the first time."""
        # A forked child has a copy of its parent's stream, which ends in the parent.
        if self.watch.inherited or not self._settled.acquire(blocking=False):
            return
        self.how = how = "left" if self.left else how
        if self._listeners:
            known = self.decoder.usage, self.timings(), self.attempts, self.decoder
            outcome = Outcome(how, error, *known, dropped=self._dropped)
            for listener in self._listeners:
                listener(outcome)

    def abandon(self) -> None:
        """As of an Exchange."""
        super().abandon()
        self._dropped = True
        self.settle("left")

    __del__ = abandon

    async def close(self) -> None:
        """As of an Exchange; the hooks have been told when it returns."""
        await super().close()
        await self.told()

    async def told(self) -> None:
        """Waits for hooks that have something to wait for."""
        if self.observation is not None:
            await self.observation.told()

    def timings(self) -> Timings:
        """How fast it went so far."""
        usage, first = self.decoder.usage, self.to_first_token
        tokens = usage.completion_tokens if usage is not None else None
        between = None
        if first is not None and tokens is not None and tokens > 1:
            between = (self.watch.seen - self.watch.began - first) / (tokens - 1)
        return Timings(self.to_headers, first, between, 1 / between if between else None)

    async def begin(self) -> bytes | None:
        """Reads up to the first event, so that an error there can still be answered by another attempt.

        Returns:
            The whole body if it is one document: the server did not stream. Else None.

        Raises:
            APIError: the first event is an error, or there is none.
        """
        data = await self.read()
        kind = media_type(self.answer.headers)
        if kind not in STREAMS and not is_event(data or b""):
            if kind == DOCUMENT:
                self.watch.token()
                return (data or b"") + await self.whole()
            shown = (data or b"")[:QUOTED].decode("utf-8", "replace")
            raise APIResponseValidationError(f"the answer is no stream but {kind}, beginning {shown!r}", body=shown)
        pull = self.answer.chunks(self.decoder)
        chunks = None if data is None else self.decoder.feed(data)
        while chunks is not None:
            if chunks or self.decoder.ended:
                self.first = chunks
                return None
            chunks = await self.more(pull)
        self.first = self.decoder.finish()
        return None

    async def more(self, pull: Callable[[], Any]) -> list[Any] | None:
        """The chunks of the next bytes; None at the end of the body."""
        chunks: Any = pull()
        if chunks is not None and type(chunks) is not list:
            chunks = await chunks
        if chunks is None:
            self.over()
            return None
        self.watch.seen = monotonic()
        self.watch.check()
        given: list[Any] = chunks
        return given

    def read_text(self) -> None:
        """Has the decoder give text alone from here on, unless it has to keep what another answer must repeat."""
        if self.resume is None:
            self.decoder.read_text()

    def attend(self, chunks: Sequence[Any]) -> bool:
        """Looks after the clocks by hand, and tells whether that is needed any longer.

        It is until the first token has come, and to the end where the watchdog cannot do it.
        """
        self.watch.check()
        if self.to_first_token is None and any(map(speaks, chunks)):
            self.to_first_token = self.watch.seen - self.watch.began
            self.watch.token()
            if self.observation is not None:
                self.observation.first_token()
        return self.to_first_token is None or not self.watch.armed

    async def tail(self) -> None:
        """Reads on to the end of the body for a moment, where the watchdog can end that moment."""
        if self.watch.armed:
            self.watch.shorten(TAIL, prompt=False)
            with suppress(Exception):
                while await self.answer.read() is not None:
                    pass
        await self.close()

    def ended(self) -> tuple[list[Any], Exception | None]:
        """What the end of the body brings: chunks, and the error to raise behind them if the completion is cut."""
        rest: list[Any] = []
        if self.left or self.closed:
            return rest, None  # by the caller, perhaps from another thread or task
        try:
            for chunk in ending(self.decoder):
                rest.append(chunk)  # noqa: PERF402  what came before an error counts
        except APIError as error:
            return rest, self.complete(error)
        return rest, None

    def broken(self, error: Exception) -> tuple[list[Any], Exception | None]:
        """What a failed read brings: as `ended`, for the last event may be whole but for its blank line."""
        known = failure(error, self.watch)
        if self.left or self.closed:
            return [], None
        rest: list[Any] = []
        if type(known) is APIConnectionError and known is not error:
            rest, cut = self.ended()
            if cut is None:
                return rest, None
            known = APIConnectionError(f"the stream was cut: {known.message}")
        if known is None:
            return rest, error
        raised = self.complete(known)
        if raised is not error:
            raised.__cause__ = error
        return rest, raised

    async def mend(self, cut: Exception) -> bool:
        """Goes on with another answer, where that is wanted and can be had. False if the caller has left meanwhile.

        Raises:
            APIError: `cut`, or that the other answer is another one indeed.
        """
        if self.resume is None or not isinstance(cut, APIError):
            raise cut
        await self.release()
        following = await self.resume(self, cut)
        following.closed = True  # its answer is this one's from here on
        self.answer, self.watch, self.first = following.answer, following.watch, following.first
        self.to_headers, self.to_first_token = following.to_headers, None
        if self.left:
            await self.release()
        return not self.left

    def complete(self, error: APIError) -> APIError:
        """The error with all that is known about it here."""
        error.fill(
            partial=self.decoder.response(),
            usage=self.decoder.usage,
            headers=self.answer.headers,
            response=Response(self.answer.status_code, self.answer.headers),
            request_id=request_id(self.answer.headers),
        )
        return self._complete(error)

    async def collect(self) -> ChatCompletion:
        """Reads to the end, for a caller who wants no stream, and closes. The complete response.

        Raises:
            APIError: the stream ends badly.
        """
        decoder, pull = self.decoder, self.answer.chunks(self.decoder)
        chunks: list[Any] | None = self.first
        try:
            while chunks is not None and not decoder.ended:
                self.attend(chunks)
                chunks = await self.more(pull)
            for _ in ending(decoder):
                pass
            await self.tail()
        finally:
            await self.close()
        response: ChatCompletion | None = decoder.response()
        if response is None:
            raise APIResponseValidationError("the stream was empty")
        return response

    async def drain(self, max_seconds: float | None, max_tokens: int | None) -> CompletionUsage | None:
        """Reads on, gives nothing out, and closes. The usage known at the end."""
        decoder, due = self.decoder, NEVER
        if not self.closed:
            if max_seconds is not None:
                due = monotonic() + max_seconds
                self.watch.shorten(max_seconds)
            pull = self.answer.chunks(decoder)
            try:
                # Whatever ends the reading, the usage known by then is what the caller wants.
                with suppress(Exception):
                    chunks: list[Any] | None = [*self.unread]
                    while True:
                        if max_tokens is not None:
                            max_tokens -= sum(map(speaks, chunks or ()))
                            if max_tokens <= 0:
                                break
                        if decoder.ended:
                            break
                        chunks = await self.more(pull)
                        if chunks is None:
                            chunks = decoder.finish()
                        if self.watch.seen >= due:
                            break
                self.settle("complete" if decoder.ended else "left")
                if decoder.ended:
                    await self.tail()
            except BaseException as error:
                self.settle("cancelled", error)
                raise
            finally:
                await self.close()
        return decoder.usage


_heard: WeakSet[Flow] = WeakSet()
"""Streams that somebody listens to."""


@atexit.register
def _exit() -> None:
    """Streams that are open at the end have ended too: by the caller."""
    for flow in list(_heard):
        flow.settle("left")
        if flow.observation is not None:
            flow.observation.tell_elsewhere()


def is_event(data: bytes) -> bool:
    """Whether a body that begins like this may be a stream of events: the first read can end within a word."""
    head = data.lstrip()
    return any(head.startswith(event) or (head and event.startswith(head)) for event in EVENTS)


def speaks(chunk: Any) -> bool:
    """Whether a chunk, or a piece of text, brings content, reasoning or a piece of a tool call."""
    return isinstance(chunk, str) or any(any(SPOKEN(choice.delta)) for choice in chunk.choices)


def text_of(item: Any) -> str:
    """The text of choice 0 in a chunk that came before the stream was read as text; what comes after is text."""
    if isinstance(item, str):
        return item
    return "".join(choice.delta.content or "" for choice in item.choices if choice.index == 0)


class _Handle(Generic[R_co]):
    """What both kinds of stream can say about themselves, at any time."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def __repr__(self) -> str:
        last = self.attempts[-1] if self.attempts else None
        named = f" {last.provider}/{last.model}" if last is not None else ""
        usage = self.usage
        known = f", {usage.total_tokens} tokens" if usage is not None and usage.total_tokens is not None else ""
        return f"<{type(self).__name__}{named}: {self._flow.how or 'open'}{known}>"

    @property
    def usage(self) -> CompletionUsage | None:
        """The tokens, as far as the provider has reported them: `usage.complete` tells whether it will say more."""
        return self._flow.decoder.usage

    @property
    def response_headers(self) -> Headers:
        """The response headers, by names in any case."""
        return self._flow.answer.headers

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request."""
        return request_id(self._flow.answer.headers)

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self._flow.answer.status_code

    @property
    def attempts(self) -> Sequence[Attempt]:
        """The requests of this call, failed ones first; the last one is this stream."""
        return self._flow.attempts

    @property
    def timings(self) -> Timings:
        """How fast it went so far."""
        return self._flow.timings()

    def _collected(self) -> R_co:
        response: Any = self._flow.decoder.response()
        if response is None:
            raise APIResponseValidationError("nothing was collected: the stream was empty, or keep_partial=False")
        answer: R_co = as_type(response, self._flow.response_type)
        return answer


class Stream(_Handle[R_co]):
    """The chunks of a streamed completion, as an iterator and a context manager.

    Generic in what `collect()` gives: a ChatCompletion, or with a type as response_format a ParsedChatCompletion of it.
    Leaving it before its end, by `close()`, by `with`, or by dropping it, aborts the request at once.

    Raises, while iterating:
        APIStatusError: the provider reported an error in the stream.
        APIConnectionError: the stream was cut. `partial` and `usage` hold what had come.
        Timeout: a clock ran out.
        APIResponseValidationError: the bytes are not such a stream.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow)
        self._chunks = _chunks(flow)

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        # The generator itself: a loop over it costs no call of ours per chunk. It does not know this object, so that
        # a loop that is left lets go of both.
        return self._chunks

    def __next__(self) -> ChatCompletionChunk:
        chunk: ChatCompletionChunk = next(self._chunks)
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Aborts the request. Also from another thread, whose loop then ends."""
        flow = self._flow
        if flow.closed:
            return
        flow.left = True
        flow.settle("left")
        flow.watch.shut()  # wakes a reader in another thread, which closing would not
        run(flow.close())
        # Another thread that is inside finds the connection closed. To close a generator that runs there is an error,
        # and on CPython 3.11 it has crashed.
        chunks: Any = self._chunks  # its type has no `gi_running`
        with suppress(ValueError):
            if not chunks.gi_running:
                chunks.close()

    def text(self) -> Iterator[str]:
        """The text of choice 0: a non-empty str per delta. Cheaper than chunks, for nothing else is built or kept."""
        self._flow.read_text()
        for item in self._chunks:
            if text := text_of(item):
                yield text

    def tool_calls(self) -> "Iterator[FunctionCall]":
        """The calls of functions, each as soon as it is complete, its arguments parsed. Other chunks are passed over.

        Raises:
            APIResponseValidationError: at the end: the arguments of a call are no JSON object, or nothing was kept
                (keep_partial=False).
            (and what iterating raises)
        """
        from .tools import CallReader

        reader = CallReader(self._flow)
        for chunk in self._chunks:
            yield from reader.feed(chunk)
        yield from reader.finish()

    def collect(self) -> R_co:
        """The complete response: what is left is read, what was read already is in it.

        Raises:
            APIResponseValidationError: nothing was kept (keep_partial=False).
            (and what iterating raises)
        """
        for _ in self._chunks:
            pass
        return self._collected()

    def drain(self, max_seconds: float | None = None, max_tokens: int | None = None) -> CompletionUsage | None:
        """Reads on to the usage without giving chunks out, for at most so long or so many tokens, and closes.

        Returns the usage known then; never raises.
        """
        return run(self._flow.drain(max_seconds, max_tokens))


class AsyncStream(_Handle[R_co]):
    """The chunks of a streamed completion, as an asynchronous iterator and context manager.

    As Stream, with `aclose()` for `close()`.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow)
        self._chunks = _async_chunks(flow)

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self._chunks

    if not TYPE_CHECKING:  # checkers say it before it runs

        def __iter__(self) -> Never:
            raise TypeError(f"{type(self).__name__} is asynchronous: `async for`, not `for`")

        def __enter__(self) -> Never:
            raise TypeError(f"{type(self).__name__} is asynchronous: `async with`, not `with`")

        def __exit__(self, *_: object) -> None: ...

    async def __anext__(self) -> ChatCompletionChunk:
        return await anext(self._chunks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Aborts the request. Also from another task, whose loop then ends."""
        flow = self._flow
        if flow.closed:
            return
        flow.left = True
        flow.settle("left")
        flow.watch.shut()
        await flow.close()
        with suppress(RuntimeError):  # another task is inside; it finds the connection closed
            await self._chunks.aclose()

    async def text(self) -> AsyncIterator[str]:
        """The text of choice 0: a non-empty str per delta. Cheaper than chunks, for nothing else is built or kept."""
        self._flow.read_text()
        async for item in self._chunks:
            if text := text_of(item):
                yield text

    async def tool_calls(self) -> "AsyncIterator[FunctionCall]":
        """The calls of functions, each as soon as it is complete, its arguments parsed. Other chunks are passed over.

        Raises:
            APIResponseValidationError: at the end: the arguments of a call are no JSON object, or nothing was kept
                (keep_partial=False).
            (and what iterating raises)
        """
        from .tools import CallReader

        reader = CallReader(self._flow)
        async for chunk in self._chunks:
            for call in reader.feed(chunk):
                yield call
        for call in reader.finish():
            yield call

    async def collect(self) -> R_co:
        """The complete response: what is left is read, what was read already is in it.

        Raises:
            APIResponseValidationError: nothing was kept (keep_partial=False).
            (and what iterating raises)
        """
        async for _ in self._chunks:
            pass
        return self._collected()

    async def drain(self, max_seconds: float | None = None, max_tokens: int | None = None) -> CompletionUsage | None:
        """Reads on to the usage without giving chunks out, for at most so long or so many tokens, and closes.

        Returns the usage known then; never raises.
        """
        return await self._flow.drain(max_seconds, max_tokens)


# The two hot loops: the same but for the awaiting. What happens once per stream is in Flow. One turn of the outermost
# loop is one answer; `on_stream_cut` can bring a further one.


def _chunks(flow: Flow) -> Generator[Any, None, None]:
    decoder = flow.decoder
    try:
        while True:
            watch, pull = flow.watch, flow.answer.chunks(decoder)
            try:
                chunks, attending = flow.first, True
                while True:
                    if attending:
                        attending = flow.attend(chunks)
                    flow.unread = iter(chunks)
                    yield from flow.unread
                    if decoder.ended:
                        break
                    chunks = pull()
                    if chunks is None:
                        flow.over()
                        break
                    watch.seen = monotonic()
                rest, cut = flow.ended()
            except Exception as error:  # noqa: BLE001  raised behind what is still to be handed out
                rest, cut = flow.broken(error)
            yield from rest
            if cut is None or not run(flow.mend(cut)):
                break
        flow.settle("complete")
        run(flow.tail())
    except GeneratorExit:
        flow.abandon()
        raise
    except BaseException as error:
        flow.settle("failed" if isinstance(error, Exception) else "cancelled", error)
        raise
    finally:
        run(flow.close())


async def _async_chunks(flow: Flow) -> AsyncGenerator[Any, None]:
    decoder = flow.decoder
    try:
        while True:
            watch, pull = flow.watch, flow.answer.chunks(decoder)
            try:
                chunks, attending = flow.first, True
                given, turn = 0, monotonic() + TURN_SECONDS
                while True:
                    if attending:
                        attending = flow.attend(chunks)
                        await flow.told()
                    flow.unread = iter(chunks)
                    for chunk in flow.unread:
                        yield chunk
                        given += 1
                        if given >= TURN or monotonic() > turn:
                            await other_tasks()
                            given, turn = 0, monotonic() + TURN_SECONDS
                    if decoder.ended:
                        break
                    chunks = pull()
                    if waited := chunks is not None and type(chunks) is not list:
                        chunks = await chunks
                    if chunks is None:
                        flow.over()
                        break
                    watch.seen = now = monotonic()
                    # To wait was a turn for all others.
                    given, turn = (0, now + TURN_SECONDS) if waited else (given, turn)
                rest, cut = flow.ended()
            except Exception as error:  # noqa: BLE001  raised behind what is still to be handed out
                rest, cut = flow.broken(error)
            for chunk in rest:
                yield chunk
            if cut is None or not await flow.mend(cut):
                break
        flow.settle("complete")
        await flow.tail()
    except GeneratorExit:
        flow.settle("left")
        raise
    except BaseException as error:
        flow.settle("failed" if isinstance(error, Exception) else "cancelled", error)
        raise
    finally:
        await flow.close()


def as_type(response: Any, wanted: type | None) -> Any:
    """The response, with the value that it holds as `parsed` where a type was asked for."""
    if wanted is None:
        return response
    from .parsed import ParsedChatCompletion

    return ParsedChatCompletion(response, wanted)


def as_events(completion: ChatCompletion) -> bytes:
    """A complete response as the stream that it might have been, of one event: for servers that ignore `stream`."""
    import orjson

    fields = completion.model_dump()
    for choice in fields["choices"]:
        choice["delta"] = delta = choice.pop("message")
        for index, call in enumerate(delta.get("tool_calls") or ()):
            call.setdefault("index", index)
    return b"data: " + orjson.dumps(fields) + b"\n\ndata: [DONE]\n\n"
