"""completion and acompletion: from the caller's arguments to the answer, with retries and fallbacks on the way.

A call is planned without any I/O and performed by one coroutine over the HTTP port. The blocking call runs the same
coroutine over the port that never suspends.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from random import random
from time import monotonic, time
from typing import Any, Literal, Unpack, overload
from urllib.parse import urlencode

from . import retry, transport
from ._native import ChatCompletion, Decoder, __version__, decode_error, decode_response
from .clocks import Timeouts, Watch
from .errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    BadRequestError,
    Headers,
    Response,
    UnsupportedParamsError,
)
from .providers.auth import credential_of
from .providers.registry import ROWS, Provider
from .providers.resolve import base_of, fill, first_set, resolve, setting_headers, settings, vary
from .providers.sign import Sign, signer
from .stream import AsyncStream, Attempt, Exchange, Flow, Stream, as_events
from .transport import Answer, Port, Request, Route, Scripted, failure, request_id, run
from .wire import Parameters, builder, encode, plain, select

ERROR_BODY = 1 << 20
"""Bytes of an error response that are read."""

REFUSED_STATUS = (400, 422)

SECRET = 8
"""Characters that a key has at least. What is shorter ("x", "none", "EMPTY") is for local servers that want no key, and
would be found within words."""


class Options(Parameters, total=False):
    """Everything a call takes besides model, messages and stream.

    What is not here is a keyword of the provider's own row, or an error.
    """

    api_key: str | None
    api_base: str | None
    base_url: str | None
    api_version: str | None
    organization: str | None
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    timeout: "float | Timeouts | Any"
    max_retries: int | None
    num_retries: int | None
    fallbacks: "Sequence[str | Mapping[str, Any]] | None"
    content_policy_fallbacks: "Sequence[str | Mapping[str, Any]] | None"
    client: Any
    transport: Literal["native", "httpx"] | None
    proxy: Any
    verify: Any
    cert: Any
    drop_params: bool | None
    additional_drop_params: Iterable[str] | None
    allowed_openai_params: Iterable[str] | None
    mock_response: "str | Mapping[str, Any] | ChatCompletion | Exception | None"
    keep_partial: bool | None
    custom_llm_provider: str | None


NOT_BUILT = frozenset({"estimate_usage", "on_stream_cut", "hooks"})
"""Keywords with a meaning that this version does not have. They are refused, not ignored."""


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
        options: every parameter of OpenAI's chat completions, and of this package:
            api_key, api_base (= base_url), api_version, organization: for the provider; without them its variables.
            extra_headers, extra_query, extra_body: added last, as they are.
            timeout: seconds for the first token and for each silence (without streaming: for all), or Timeouts.
            max_retries (= num_retries): further attempts after a failed one, 2 by default.
            fallbacks: models, or dicts of options with a model, to ask in turn when this one fails.
            content_policy_fallbacks: the same for refusals by a content filter.
            client: an httpx.Client or httpx2.Client of your own; else proxy, verify and cert, as httpx takes them.
            transport: "native" insists on the engine of this package, "httpx" chooses httpx. Without it the engine
                serves wherever it can.
            drop_params: leave out parameters that the provider lacks. additional_drop_params: leave these out.
            allowed_openai_params: send these though the provider's documentation lacks them.
            mock_response: a text, a response as a dict, or an exception, instead of a request.
            keep_partial: False to keep nothing of a stream for errors and `collect()`.
            custom_llm_provider: the provider, where `model` does not say it.

    Raises:
        BadRequestError: something here or there is wrong with the request.
        AuthenticationError: no key, or a wrong one.
        APIError: see penstock.errors for all of them.
    """

    async def open_port(client: Any, chosen: str | None, route: Route) -> Port:
        return transport.blocking_port(client, chosen, route)

    answer = run(_perform(open_port, model, messages, stream, options))
    return Stream(answer) if isinstance(answer, Flow) else answer


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
    answer = await _perform(transport.async_port, model, messages, stream, options)
    return AsyncStream(answer) if isinstance(answer, Flow) else answer


def stream_chunk_builder(chunks: Iterable[Any]) -> ChatCompletion | None:
    """The complete response that these chunks make up; None for no chunks. As `Stream.collect()`, for a list of them.

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


# Planning: no I/O


@dataclass(slots=True)
class Call:
    """One model to ask, with all that was decided before asking. Its repr shows no key."""

    provider: Provider
    model: str
    url: str
    base_url: str
    stream: bool
    include_usage: bool
    timeouts: Timeouts
    max_retries: int
    route: Route
    keep_partial: bool
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    key: str | None = field(repr=False)
    sign: Sign | None = field(repr=False)
    transport: str | None
    client: Any = field(repr=False)
    mock: Any = field(repr=False)

    def request(self) -> Request:
        """The request for one attempt."""
        if self.base_url in _without_stream_options:
            self.body.pop("stream_options", None)
        content = encode(self.body)
        signature = self.sign(self.url, self.headers, content) if self.sign else {}
        return Request(self.url, {**self.headers, **signature}, content)

    def decoder(self) -> Decoder:
        """A decoder for one attempt."""
        return Decoder(
            self.provider.family,
            dialect=self.provider.dialect,
            include_usage=self.include_usage,
            model=self.model,
            keep_partial=self.keep_partial,
        )

    def complete(self, error: APIError) -> APIError:
        """The error with provider and model, and without the key, which some servers repeat."""
        error.fill(provider=self.provider.slug, model=self.model)
        if self.key and len(self.key) >= SECRET:
            for name in ("message", "code", "type", "param", "body"):
                setattr(error, name, _without(self.key, getattr(error, name)))
            error.args = (error.message,)
        return error

    def refuses_stream_options(self, error: APIError) -> bool:
        """Whether the server does not know `stream_options`. It is remembered, and the next request goes without."""
        if "stream_options" not in self.body or error.status_code not in REFUSED_STATUS:
            return False
        if "stream_options" not in f"{error.message} {error.param} {error.body}":
            return False
        _without_stream_options.add(self.base_url)
        return True


_without_stream_options: set[str] = set()
"""Base URLs of servers that refused `stream_options`, for as long as this process lives."""


def _without(key: str, body: Any) -> Any:
    if isinstance(body, str):
        return body.replace(key, "[key]")
    if isinstance(body, bytes):
        return body.replace(key.encode(), b"[key]")
    if isinstance(body, Mapping):
        return {name: _without(key, value) for name, value in body.items()}
    if isinstance(body, list):
        return [_without(key, value) for value in body]
    return body


def _plan(model: str, messages: Sequence[Any], stream: bool | None, options: Mapping[str, Any]) -> Call:
    """Decides everything about a call.

    Raises:
        BadRequestError: an argument that cannot be.
        UnsupportedParamsError: a parameter that the provider lacks.
        AuthenticationError: no key.
    """
    stream = bool(stream)
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise BadRequestError("messages must be a list of dicts with role and content", param="messages")
    provider, model = resolve(model, options.get("custom_llm_provider"))
    drop_params = bool(options.get("drop_params"))
    _known(provider, options)

    api_base = _one_of(options, "api_base", "base_url")
    values: Mapping[str, str] = settings(provider, options, os.environ)
    given_base = api_base or first_set(os.environ, provider.base_env)
    provider, model, values = vary(provider, model, given_base, values)
    provider, base_url = base_of(provider, api_base, {**values, "model": model}, os.environ)
    for name in ("api_version", "organization"):
        if options.get(name) is not None and name not in values and not drop_params:
            raise UnsupportedParamsError(f"{provider.slug} has no {name}", param=name, provider=provider.slug)
    path = provider.stream_path if stream and provider.stream_path else provider.chat_path
    url = base_url + fill(provider, path, {**values, "model": model}, safe=provider.path_safe)
    if options.get("extra_query"):
        url += ("&" if "?" in url else "?") + urlencode(options["extra_query"], doseq=True)

    credential, sign = None, None
    if options.get("mock_response") is None:
        credential = credential_of(provider, options, base_url, os.environ)
        if credential is None and provider.signed_as is not None:
            sign = signer(provider, values)
    headers = {
        "accept": "text/event-stream" if stream else "application/json",
        "content-type": "application/json",
        "user-agent": f"penstock/{__version__}",
        **provider.headers,
        **setting_headers(provider, values),
        **(credential.headers if credential is not None else {}),
    }
    if stream:
        # Compressed events wait for each other in the compressor.
        headers["accept-encoding"] = "identity"
    headers.update({name.lower(): str(value) for name, value in (options.get("extra_headers") or {}).items()})

    given = {name: options[name] for name in Parameters.__optional_keys__ if options.get(name) is not None}
    if "stream_options" in given and not stream:
        raise BadRequestError("stream_options needs stream=True", param="stream_options", provider=provider.slug)
    parameters = select(
        provider,
        given,
        drop_params=drop_params,
        additional_drop_params=options.get("additional_drop_params") or (),
        allowed_openai_params=options.get("allowed_openai_params") or (),
    )
    body = builder(provider.family)(provider, model, messages, parameters, stream=stream)
    body.update(options.get("extra_body") or {})

    verify = options.get("verify")
    retries = _one_of(options, "max_retries", "num_retries")
    if retries is not None and (not isinstance(retries, int) or retries < 0):
        raise BadRequestError(f"max_retries must be 0 or more, not {retries!r}", param="max_retries")
    return Call(
        provider=provider,
        model=model,
        url=url,
        base_url=base_url,
        stream=stream,
        include_usage=bool((given.get("stream_options") or {}).get("include_usage")),
        timeouts=Timeouts.of(options.get("timeout"), stream=stream),
        max_retries=2 if retries is None else retries,
        route=Route(options.get("proxy"), True if verify is None else verify, options.get("cert")),
        keep_partial=options.get("keep_partial") is not False,
        headers=headers,
        body=body,
        key=credential.secret if credential is not None else None,
        sign=sign,
        transport=options.get("transport"),
        client=options.get("client"),
        mock=options.get("mock_response"),
    )


def _one_of(options: Mapping[str, Any], name: str, alias: str) -> Any:
    """The value of an argument with two names."""
    value, other = options.get(name), options.get(alias)
    if value is not None and other is not None and value != other:
        raise BadRequestError(f"{name} and {alias} are the same, but were given as {value!r} and {other!r}", param=name)
    return other if value is None else value


def _known(provider: Provider, options: Mapping[str, Any]) -> None:
    """Refuses keywords that mean nothing here, so that nothing misspelled is sent, or left out, in silence."""
    own = provider.keywords()
    for name in options:
        if name in Options.__optional_keys__ or name in own:
            continue
        if name in NOT_BUILT:
            raise BadRequestError(f"{name} is not available in this version", param=name)
        owners = [row.slug for row in ROWS if name in row.keywords()]
        if owners:
            raise BadRequestError(f"{name} is a keyword of {', '.join(owners)}, not of {provider.slug}", param=name)
        nearest = get_close_matches(name, [*Options.__optional_keys__, "messages", "model", "stream", *own], n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise BadRequestError(
            f"unknown keyword {name}: {hint}extra_body={{{name!r}: ...}} sends it as it is",
            param=name,
            provider=provider.slug,
        )
    if options.get("transport") not in (None, "native", "httpx"):
        raise BadRequestError(f"transport must be 'native' or 'httpx', not {options['transport']!r}", param="transport")


def _routes(model: str, options: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    """The models to ask in turn, with their options: those of the call, changed by the fallback's own."""
    common = {key: value for key, value in options.items() if key not in ("fallbacks", "content_policy_fallbacks")}
    routes = []
    for fallback in options.get(name) or ():
        changed = {"model": fallback} if isinstance(fallback, str) else dict(fallback)
        routes.append((changed.pop("model", model), {**common, **changed}))
    return routes


# Performing


OpenPort = Callable[[Any, str | None, Route], Awaitable[Port]]


async def _perform(
    open_port: OpenPort,
    model: str,
    messages: Sequence[Any],
    stream: bool | None,
    options: Mapping[str, Any],
) -> Flow | ChatCompletion:
    """The call and its fallbacks."""
    started = monotonic()
    attempts: list[Attempt] = []
    fallbacks, refused = _routes(model, options, "fallbacks"), _routes(model, options, "content_policy_fallbacks")
    while True:
        try:
            call = _plan(model, messages, stream, options)
            return await _pursue(open_port, call, attempts, started)
        except APIError as error:
            following = fallbacks if retry.falls_back(error) else refused if retry.refused_content(error) else []
            if not following:
                for attempt in attempts:
                    if attempt.error is not error:
                        error.add_note(f"before it: {attempt.error}")
                raise
            model, options = following.pop(0)


async def _pursue(open_port: OpenPort, call: Call, attempts: list[Attempt], started: float) -> Flow | ChatCompletion:
    """One model, asked until it answers or it is of no use to ask again."""
    if call.mock is not None:
        return await _mocked(call)
    port = await open_port(call.client, call.transport, call.route)
    retries = 0
    while True:
        watch = Watch(call.timeouts, started)
        try:
            answer = await _attempt(port, call, watch)
        except APIError as error:
            attempts.append(_record(call, watch, error))
            if call.refuses_stream_options(error):
                continue
            pause = retry.pause(error, retries, call.max_retries, random())  # noqa: S311  to spread clients, not to hide anything
            if pause is None or monotonic() + pause >= watch.total_due:
                raise
            retries += 1
        else:
            if isinstance(answer, Flow):
                attempts.append(_record(call, watch, None, answer.answer.status_code))
                answer.attempts = attempts
            return answer
        await port.sleep(pause)


def _record(call: Call, watch: Watch, error: APIError | None, status_code: int | None = None) -> Attempt:
    return Attempt(
        provider=call.provider.slug,
        model=call.model,
        seconds=monotonic() - watch.began,
        status_code=error.status_code if error is not None else status_code,
        error=error,
        usage=error.usage if error is not None else None,
    )


async def _attempt(port: Port, call: Call, watch: Watch) -> Flow | ChatCompletion:
    """One request: a stream up to its first event, or a whole response.

    Raises:
        APIError: whatever went wrong, with all that is known about it.
    """
    request = call.request()
    try:
        answer = await port.send(request, watch.limits)
    except Exception as error:
        raise _explained(call, watch, error, None) from error
    try:
        return await _read(call, watch, answer)
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


async def _read(call: Call, watch: Watch, answer: Answer) -> Flow | ChatCompletion:
    """What an answer says."""
    if not 200 <= answer.status_code < 300:
        exchange = Exchange(answer, watch)
        try:
            body = await exchange.most(ERROR_BODY)  # the status says enough, however its body ends
        finally:
            await exchange.close()
        raise _refusal(answer, body)
    if call.stream:
        flow = Flow(answer, watch, call.decoder(), call.complete)
        try:
            document = await flow.begin()
        except APIError as error:
            await flow.close()
            raise flow.complete(error) from None
        except BaseException:
            await flow.close()
            raise
        if document is None:
            return flow
        # The server did not stream. Its answer goes the way of all streams, as one of a single event.
        await flow.close()
        events = as_events(_decoded(call, document))
        return await _scripted(call, answer.status_code, answer.headers, events, watch)
    exchange = Exchange(answer, watch)
    try:
        body = await exchange.whole()
    finally:
        await exchange.close()
    return _decoded(call, body)


def _decoded(call: Call, body: bytes) -> ChatCompletion:
    """A whole response."""
    return decode_response(body, family=call.provider.family, dialect=call.provider.dialect, model=call.model)


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


async def _scripted(call: Call, status_code: int, headers: Headers, body: bytes, watch: Watch) -> Flow:
    """A stream of bytes that are there already, in the family that all others are translated to."""
    decoder = Decoder(include_usage=call.include_usage, model=call.model, keep_partial=call.keep_partial)
    flow = Flow(Scripted(status_code, headers, body), watch, decoder, call.complete)
    await flow.begin()
    return flow


async def _mocked(call: Call) -> Flow | ChatCompletion:
    """The answer that the caller wrote himself."""
    import orjson

    mock = call.mock
    if isinstance(mock, Exception):
        raise call.complete(mock) if isinstance(mock, APIError) else mock
    if isinstance(mock, str):
        message = {"role": "assistant", "content": mock}
        mock = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    elif not isinstance(mock, Mapping):
        raise BadRequestError("mock_response must be a text, a response or an exception", param="mock_response")
    completion = decode_response(orjson.dumps(mock, default=plain), model=call.model)
    if not call.stream:
        return completion
    watch = Watch(call.timeouts, monotonic())
    return await _scripted(call, 200, Headers(), as_events(completion), watch)
