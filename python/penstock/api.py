"""completion and acompletion: from the caller's arguments to the answer, with retries and fallbacks on the way.

A call is planned without any I/O, in `call`, and performed here by one coroutine over the HTTP port. The blocking call
runs the same coroutine over the port that never suspends.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from . import log, retry, transport
from ._native import ChatCompletion, Decoder, RetryBudget, decode_error, decode_response
from .call import CHAT, Call, Operation, Options, UnformattedOptions, check_keywords, estimating, plan
from .clocks import Watch
from .configuration import current
from .errors import APIConnectionError, APIError, APIStatusError, BadRequestError, Headers, Response
from .providers.registry import ROWS
from .providers.resolve import resolve
from .stream import AsyncStream, Attempt, Exchange, Flow, Stream, as_events, as_type
from .transport import Answer, Port, Route, Scripted, failure, request_id, run
from .wire import encode, plain

if TYPE_CHECKING:
    from .parsed import ParsedChatCompletion

T = TypeVar("T")

ERROR_BODY = 1 << 20
"""Bytes of an error response that are read."""

DIVERGED = "diverged"
"""The code of the error for an answer that was begun again and is another one."""


@overload
def completion(
    model: str,
    messages: Sequence[Any],
    *,
    response_format: type[T],
    stream: Literal[True],
    **options: Unpack[UnformattedOptions],
) -> "Stream[ParsedChatCompletion[T]]": ...
@overload
def completion(
    model: str,
    messages: Sequence[Any],
    *,
    response_format: type[T],
    stream: Literal[False] | None = None,
    **options: Unpack[UnformattedOptions],
) -> "ParsedChatCompletion[T]": ...
@overload
def completion(model: str, messages: Sequence[Any], *, stream: Literal[True], **options: Unpack[Options]) -> Stream: ...
@overload
def completion(
    model: str, messages: Sequence[Any], *, stream: Literal[False] | None = None, **options: Unpack[Options]
) -> ChatCompletion: ...
@overload
def completion(
    model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Unpack[Options]
) -> Stream | ChatCompletion: ...
def completion(
    model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Any
) -> Stream | ChatCompletion:
    """Asks a model, and returns its answer: a ChatCompletion, or with stream=True a Stream of ChatCompletionChunk.

    A streamed call returns when the first event is there, so that whatever fails before it can be tried again.

    Args:
        model: `provider/model`, or a bare name such as gpt-4o; `openai/model` with api_base for any compatible server.
        messages: as OpenAI's; Record and pydantic objects are fine too.
        stream: whether to stream.
        response_format: as OpenAI's; or a pydantic model, a dataclass or a msgspec struct, whose value then is
            `choices[0].message.parsed` of the response, and of what `collect()` gives.
        options: every parameter of OpenAI's chat completions, and of this package:
            api_key, api_base (= base_url), api_version, organization: for the provider; without them its variables.
            extra_headers, extra_query, extra_body: added last, as they are.
            timeout: seconds for the first token and for each silence (without streaming: for all), or Timeouts.
            max_retries (= num_retries): further attempts after a failed one, 2 by default.
            fallbacks: models, or dicts of options with a model, to ask in turn when this one fails.
            content_policy_fallbacks: the same for refusals by a content filter.
            client: an httpx.Client or httpx2.Client of your own; else proxy, verify and cert, as httpx takes them.
            http2: True to speak HTTP/2 where the server does, "prior-knowledge" to speak it without TLS too.
            transport: "native" insists on the engine of this package, "httpx" chooses httpx. Without it the engine
                serves wherever it can.
            drop_params: leave out parameters that the provider lacks. additional_drop_params: leave these out.
            allowed_openai_params: send these though the provider's documentation lacks them.
            on_stream_cut: what to do when a stream breaks in the middle: "raise", the default; "restart" to ask again
                and go on where the new answer, as far as it repeats the old one, leaves that behind; "continue" to ask
                for the rest. See docs/failures.md.
            mock_response: a text, a response as a dict, or an exception, instead of a request. Or a list of chunks, as
                objects or dicts, with an exception wherever it shall break; it needs a finish reason, as any stream.
            keep_partial: False to keep nothing of a stream for errors and `collect()`.
            estimate_usage: an estimate, with usage.source "estimated", where the provider reports no usage.
            hooks: objects that are told of the call, see penstock.hooks.
            custom_llm_provider: the provider, where `model` does not say it.

    Raises:
        BadRequestError: something here or there is wrong with the request.
        AuthenticationError: no key, or a wrong one.
        APIError: see penstock.errors for all of them.
    """
    answer = run(perform(CHAT, open_blocking, model, messages, stream, options, blocking=True))
    return Stream(answer) if isinstance(answer, Flow) else answer


@overload
async def acompletion(
    model: str,
    messages: Sequence[Any],
    *,
    response_format: type[T],
    stream: Literal[True],
    **options: Unpack[UnformattedOptions],
) -> "AsyncStream[ParsedChatCompletion[T]]": ...
@overload
async def acompletion(
    model: str,
    messages: Sequence[Any],
    *,
    response_format: type[T],
    stream: Literal[False] | None = None,
    **options: Unpack[UnformattedOptions],
) -> "ParsedChatCompletion[T]": ...
@overload
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: Literal[True], **options: Unpack[Options]
) -> AsyncStream: ...
@overload
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: Literal[False] | None = None, **options: Unpack[Options]
) -> ChatCompletion: ...
@overload
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Unpack[Options]
) -> AsyncStream | ChatCompletion: ...
async def acompletion(
    model: str, messages: Sequence[Any], *, stream: bool | None = None, **options: Any
) -> AsyncStream | ChatCompletion:
    """`completion` for asyncio and trio: a ChatCompletion, or with stream=True an AsyncStream.

    Arguments and errors are those of `completion`; `client` is an AsyncClient.
    """
    answer = await perform(CHAT, transport.async_port, model, messages, stream, options, blocking=False)
    return AsyncStream(answer) if isinstance(answer, Flow) else answer


async def answer_of(
    model: str, messages: Sequence[Any], options: Mapping[str, Any], attempts: list[Attempt], lane: int
) -> ChatCompletion:
    """`acompletion` without streaming, for those who watch it: each attempt is appended to `attempts` as it ends.

    `lane` is that of Route.
    """

    async def open_port(client: Any, route: Route, chosen: str | None) -> Port:
        return await transport.async_port(client, replace(route, lane=lane), chosen)

    # Whoever watches the attempts keeps the pace: the budget is for those who would go on as before.
    ask = partial(_ask, CHAT, open_port, budgeted=False)
    options = current().under(options, CHAT.options)
    answer: ChatCompletion = await observed(
        ask, CHAT, model, messages, None, options, blocking=False, attempts=attempts
    )
    return answer


def check(model: str | None, options: Mapping[str, Any]) -> None:
    """Refuses at once what every call with these options would be refused for. Without a model: unknown keywords.

    Raises:
        APIError: as `completion` before it sends anything.
    """
    if model is not None or options.get("custom_llm_provider") is not None:
        filled = current().under(options, CHAT.options)
        plan(CHAT, model or "any", [{"role": "user", "content": ""}], None, filled)
    else:
        for name in options:
            if not any(name in row.keywords() for row in ROWS):
                check_keywords(CHAT, ROWS[0], {name: options[name]})


def stream_chunk_builder(
    chunks: Iterable[Any],
    messages: Sequence[Any] | None = None,  # noqa: ARG001  other clients have it in second place
) -> ChatCompletion | None:
    """The complete response that these chunks make up; None for no chunks. As `Stream.collect()`, for a list of them.

    Args:
        chunks: of one stream, as objects or as dicts.
        messages: of the request. Other clients count their tokens where no chunk has the usage; here that stays None,
            as an estimate is made only when asked for.

    Raises:
        APIError: these are not chunks.
    """
    import orjson

    decoder = Decoder(keep_partial=True)
    for chunk in chunks:
        decoder.feed(b"data: " + orjson.dumps(chunk, default=plain) + b"\n\n")
    with suppress(APIConnectionError):  # a list that ends early is as complete as it is
        decoder.finish()
    return decoder.response()


def _routes(model: str, options: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    """The models to ask in turn, with their options: those of the call, changed by the fallback's own."""
    if not options.get(name):
        return []
    common = {key: value for key, value in options.items() if key not in ("fallbacks", "content_policy_fallbacks")}
    routes = []
    for fallback in options[name]:
        changed = {"model": fallback} if isinstance(fallback, str) else dict(fallback)
        routes.append((changed.pop("model", model), {**common, **changed}))
    return routes


# Performing


OpenPort = Callable[[Any, Route, str | None], Awaitable[Port]]


async def open_blocking(client: Any, route: Route, chosen: str | None) -> Port:
    """A port of the blocking world."""
    return transport.blocking_port(client, route, chosen)


async def perform(
    operation: Operation,
    open_port: OpenPort,
    model: str,
    given_input: Any,
    stream: bool | None,
    options: Mapping[str, Any],
    *,
    blocking: bool,
) -> Any:
    """The call with its fallbacks, its defaults and those who are told of it: a Flow, or a whole response."""
    options = current().under(options, operation.options)
    ask = partial(_ask, operation, open_port)
    return await observed(ask, operation, model, given_input, stream, options, blocking=blocking)


async def observed(
    ask: Callable[..., Awaitable[Any]],
    operation: Operation,
    model: str,
    given_input: Any,
    stream: bool | None,
    options: dict[str, Any],
    *,
    blocking: bool,
    attempts: list[Attempt] | None = None,
) -> Any:
    """The answer that `ask` gets, and those who are told of it."""
    attempts = [] if attempts is None else attempts
    hooks = options.pop("hooks", None) or ()
    if not hooks and not log.listens():
        return await ask(model, given_input, stream, options, attempts, blocking=blocking)
    from .hooks import CallStarted, Observation, check

    named = None
    with suppress(BadRequestError):
        named = resolve(model, options.get("custom_llm_provider"))[0].slug
    given = {name: options[name] for name in operation.parameters if options.get(name) is not None}
    started = CallStarted(operation.name, model, named, bool(stream), given_input, given)
    told = (log.CallLog(), *check(hooks)) if log.listens() else check(hooks)
    observation = Observation(told, started, blocking=blocking)
    await observation.start()
    try:
        answer = await ask(model, given_input, stream, options, attempts, blocking=blocking)
    except BaseException as error:
        await observation.end("failed" if isinstance(error, Exception) else "cancelled", attempts, error)
        raise
    if isinstance(answer, Flow):
        answer.observe(observation)
    else:
        await observation.end("complete", attempts, None, answer)
    return answer


async def _ask(
    operation: Operation,
    open_port: OpenPort,
    model: str,
    given_input: Any,
    stream: bool | None,
    options: Mapping[str, Any],
    attempts: list[Attempt],
    *,
    blocking: bool,
    budgeted: bool = True,
) -> Any:
    """The call and its fallbacks."""
    started = monotonic()
    fallbacks, refused = _routes(model, options, "fallbacks"), _routes(model, options, "content_policy_fallbacks")
    while True:
        try:
            call = plan(operation, model, given_input, stream, options)
            return await pursue(open_port, call, attempts, started, blocking=blocking, budgeted=budgeted)
        except APIError as error:
            following = fallbacks if retry.falls_back(error) else refused if retry.refused_content(error) else []
            if not following:
                for attempt in attempts:
                    if attempt.error is not error:
                        error.add_note(f"before it: {attempt.error}")
                raise
            model, options = following.pop(0)


async def pursue(
    open_port: OpenPort,
    call: Call,
    attempts: list[Attempt],
    started: float,
    *,
    blocking: bool,
    budgeted: bool = True,
) -> Any:
    """One model, asked until it answers or it is of no use to ask again."""
    if call.mock is not None:
        answer = await _mocked(call)
    else:
        port = await open_port(call.client, call.route, call.transport)
        pursuit = Pursuit(port, call, attempts, started, blocking=blocking, budgeted=budgeted)
        answer = await pursuit.ask(call.decoder)
        if isinstance(answer, Flow):
            answer.attempts = attempts
            if call.on_stream_cut != "raise":
                answer.resume = pursuit.resume
    if isinstance(answer, Flow):
        answer.response_type = call.response_type
        return answer
    return as_type(answer, call.response_type)


_budget = RetryBudget(0.2, 100)
"""When everything fails, retries multiply the load on what is overloaded already: in any minute there are no more than
a fifth of the calls, and so many that those who ask seldom never notice."""


class Pursuit:
    """The requests to one model: until it answers, and after a cut once more."""

    def __init__(
        self, port: Port, call: Call, attempts: list[Attempt], started: float, *, blocking: bool, budgeted: bool
    ) -> None:
        self.port = port
        self.call = call
        self.attempts = attempts
        self.started = started
        self.blocking = blocking
        self.budgeted = budgeted
        self.retries = 0
        if budgeted:
            _budget.request(monotonic())

    async def ask(self, decoder: Callable[[], Decoder]) -> Any:
        """The answer; `decoder` makes the decoder of each attempt.

        Raises:
            APIError: the last attempt's.
        """
        call = self.call
        while True:
            watch = Watch(call.timeouts, self.started)
            try:
                watch = await call.authorize(self.port, watch, blocking=self.blocking)
                answer = await _attempt(self.port, call, decoder, watch)
            except APIError as error:
                self.attempts.append(_record(call, watch, error))
                if call.refuses_stream_options(error) or call.renews(error):
                    continue
                pause = self.pause(error, watch)
                if pause is None:
                    raise
            else:
                status = answer.answer.status_code if isinstance(answer, Flow) else 200
                self.attempts.append(_record(call, watch, None, status))
                return answer
            await self.port.sleep(pause)

    def pause(self, error: APIError, watch: Watch) -> float | None:
        """Seconds to wait before the next attempt, which is counted here; None if there shall be none."""
        pause = retry.pause(error, self.retries, self.call.max_retries, random())  # noqa: S311  to spread clients, not to hide anything
        if pause is None or error.code == DIVERGED or monotonic() + pause >= watch.total_due:
            return None
        if self.budgeted and not _budget.retry(monotonic()):
            error.add_note("not tried again: the retries of this process have had their part of its calls")
            return None
        self.retries += 1
        return pause

    async def resume(self, flow: Flow, cut: APIError) -> Flow:
        """A stream in place of the one that was cut.

        Raises:
            APIError: the cut, with a note if something stands against going on; or, with the code "diverged", that the
                answer begun again is another one.
        """
        self.attempts[-1] = _record(self.call, flow.watch, cut)
        pause = self.pause(cut, flow.watch)
        if pause is None:
            raise cut
        try:
            decoder = self.call.again(flow.decoder)
            await self.port.sleep(pause)
            answer = await self.ask(decoder)
        except APIError as error:
            if error.code == DIVERGED:
                raise flow.complete(error) from cut
            cut.add_note(f"it could not be gone on with: {error}")
        else:
            if isinstance(answer, Flow) and answer.decoder is flow.decoder:
                return answer
            cut.add_note("it could not be gone on with: the server did not stream")
        raise cut


def _record(call: Call, watch: Watch, error: APIError | None, status_code: int | None = None) -> Attempt:
    attempt = Attempt(
        provider=call.provider.slug,
        model=call.model,
        seconds=monotonic() - watch.began,
        status_code=error.status_code if error is not None else status_code,
        error=error,
        usage=error.usage if error is not None else None,
        deployment=call.deployment,
        base_url=call.base_url,
    )
    log.attempted(attempt, call.url)
    return attempt


async def _attempt(port: Port, call: Call, decoder: Callable[[], Decoder], watch: Watch) -> Any:
    """One request: a stream up to its first event, or a whole response.

    Raises:
        APIError: whatever went wrong, with all that is known about it.
    """
    request = call.request()
    answer: Answer | None = None
    try:
        answer = await port.send(request, watch.limits)
        if call.provider.follow and 200 <= answer.status_code < 300:
            body = await _whole(Exchange(answer, watch, stream=True))
            following = call.following(request, body)
            if following is None:
                return await _document(call, watch, answer, body)
            answer = None
            watch.again()
            answer = await port.send(following, watch.limits)
        return await _read(call, decoder, watch, answer)
    except Exception as error:
        explained = _explained(call, watch, error, answer)
        if explained is error:
            raise
        raise explained from error


def _explained(call: Call, watch: Watch, error: Exception, answer: Answer | None) -> Exception:
    """The error to raise for this one: an APIError with what is known, or itself if it is none of the network's."""
    known = failure(error, watch)
    if known is None:
        return error
    if answer is not None:
        known.fill(
            headers=answer.headers,
            response=Response(answer.status_code, answer.headers),
            request_id=request_id(answer.headers),
        )
    return call.complete(known)


async def _read(call: Call, decoder: Callable[[], Decoder], watch: Watch, answer: Answer) -> Any:
    """What an answer says."""
    if not 200 <= answer.status_code < 300:
        exchange = Exchange(answer, watch)
        try:
            body = await exchange.most(ERROR_BODY)  # the status says enough, however its body ends
        finally:
            await exchange.close()
        raise _refusal(answer, body)
    if call.stream or call.provider.follow:
        flow = Flow(answer, watch, decoder(), call.complete)
        try:
            document = await flow.begin()
            if document is None and not call.stream:
                return await flow.collect()
        except APIError as error:
            await flow.close()
            raise flow.complete(error) from None
        except BaseException:
            await flow.close()
            raise
        if document is None:
            return flow
        await flow.close()
        return await _document(call, watch, answer, document)
    return call.operation.decode(call, await _whole(Exchange(answer, watch)))


async def _whole(exchange: Exchange) -> bytes:
    """The whole body of an answer that is not a stream."""
    try:
        return await exchange.whole()
    finally:
        await exchange.close()


async def _document(call: Call, watch: Watch, answer: Answer, document: bytes) -> Any:
    """What a server says that did not stream: to who wants a stream, as one of a single event."""
    if not call.stream:
        return call.operation.decode(call, document)
    events, reader = call.operation.as_stream(call, document)
    return await _scripted(call, answer.status_code, answer.headers, events, reader, watch)


def _refusal(answer: Answer, body: bytes) -> APIError:
    """The error for a status that is none of success."""
    if 300 <= answer.status_code < 400:
        where = answer.headers.get("location", "").partition("?")[0]
        return APIStatusError(
            f"the server redirects to {where or 'nowhere'}, where no key is sent unasked: set api_base",
            status_code=answer.status_code,
        )
    error: APIError = decode_error(answer.status_code, body, headers=list(answer.headers.items()), now=time())
    return error


async def _scripted(call: Call, status_code: int, headers: Headers, body: bytes, decoder: Any, watch: Watch) -> Flow:
    """A stream of bytes that are there already."""
    flow = Flow(Scripted(status_code, headers, body), watch, decoder, call.complete)
    await flow.begin()
    return flow


async def _mocked(call: Call) -> Flow | ChatCompletion:
    """The answer that the caller wrote himself."""
    import orjson

    mock = call.mock
    if isinstance(mock, Sequence) and not isinstance(mock, str | bytes | Mapping):
        return await _mocked_stream(call, mock)
    if isinstance(mock, Exception):
        raise call.complete(mock) if isinstance(mock, APIError) else mock
    if isinstance(mock, str):
        message = {"role": "assistant", "content": mock}
        mock = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    elif not isinstance(mock, Mapping):
        raise BadRequestError(
            "mock_response must be a text, a response, an exception or a list of chunks", param="mock_response"
        )
    completion = decode_response(orjson.dumps(mock, default=plain), model=call.model)
    if not call.stream:
        return completion if call.estimate is None else call.estimate.respond(completion)
    watch = Watch(call.timeouts, monotonic())
    events, decoder = as_events(completion), estimating(call, "chat")
    return await _scripted(call, 200, Headers(), events, decoder, watch)


async def _mocked_stream(call: Call, items: Sequence[Any]) -> Flow | ChatCompletion:
    """The stream that the caller wrote himself; not streamed, what its chunks make up."""
    for item in items:
        if not isinstance(item, Mapping | Exception):
            raise BadRequestError(
                f"mock_response: a chunk is a dict or an exception, not {type(item).__name__}", param="mock_response"
            )
    if not call.stream:
        for item in items:
            if isinstance(item, Exception):
                raise call.complete(item) if isinstance(item, APIError) else item
        completion = stream_chunk_builder(items)
        if completion is None:
            raise BadRequestError("mock_response: no chunks", param="mock_response")
        return completion
    watch = Watch(call.timeouts, monotonic())
    flow = Flow(Mocked(items), watch, estimating(call, "chat"), call.complete)
    try:
        await flow.begin()
    except APIError as error:
        raise flow.complete(error) from None
    return flow


class Mocked:
    """An answer of chunks that the caller wrote, one a read. An exception among them is raised in its place."""

    status_code = 200
    line = None

    def __init__(self, items: Sequence[Any]) -> None:
        self.headers = Headers()
        self._parts = self._written(items)

    @staticmethod
    def _written(items: Sequence[Any]) -> Iterator[bytes]:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield b"data: " + encode(item) + b"\n\n"

    async def read(self) -> bytes | None:
        """As of any answer."""
        return next(self._parts, None)

    def chunks(self, decoder: Any) -> Callable[[], Any]:
        """As of any answer."""
        return lambda: next(map(decoder.feed, self._parts), None)

    async def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""
