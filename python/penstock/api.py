"""completion and acompletion: from the caller's arguments to the answer, with retries and fallbacks on the way.

A call is planned without any I/O and performed by one coroutine over the HTTP port. The blocking call runs the same
coroutine over the port that never suspends.
"""

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload
from urllib.parse import urlencode, urlsplit

from . import log, retry, transport
from ._native import ChatCompletion, Decoder, RetryBudget, __version__, decode_error, decode_response
from .clocks import Timeouts, Watch
from .configuration import current
from .errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    BadRequestError,
    Headers,
    Response,
    UnsupportedParamsError,
)
from .providers.auth import Source, credential_of
from .providers.registry import ROWS, Prefill, Provider, RowOptions
from .providers.resolve import base_of, fill, first_set, owns, resolve, setting_headers, settings, vary
from .providers.sign import Sign, signer
from .stream import AsyncStream, Attempt, Exchange, Flow, Stream, as_events, as_type
from .tokens import tokens
from .transport import Answer, Port, Request, Route, Scripted, failure, request_id, run
from .wire import ANSWER_TOOL, Parameters, Unformatted, builder, encode, plain, select, set_fields

if TYPE_CHECKING:
    from .counting import Estimate
    from .parsed import ParsedChatCompletion

T = TypeVar("T")

ERROR_BODY = 1 << 20
"""Bytes of an error response that are read."""

REFUSED_STATUS = (400, 422, 424)
"""Of a server that does not know a parameter; the last is told by what stands between it and the caller."""
UNAUTHORIZED = 401

DIVERGED = "diverged"
"""The code of the error for an answer that was begun again and is another one."""

SECRET = 8
"""Characters that a key has at least. What is shorter ("x", "none", "EMPTY") is for local servers that want no key, and
would be found within words."""


class UnformattedOptions(Unformatted, RowOptions, total=False):
    """Options without the response format, whose type is that of the result."""

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
    on_stream_cut: Literal["raise", "restart", "continue"] | None
    mock_response: "str | Mapping[str, Any] | ChatCompletion | Exception | Sequence[Any] | None"
    keep_partial: bool | None
    estimate_usage: bool | None
    hooks: Sequence[Any] | None
    custom_llm_provider: str | None


class Options(Parameters, UnformattedOptions, total=False):
    """Everything a call takes besides model, messages and stream.

    The keywords of providers' own rows are here for all calls; each call knows those of its provider.
    """


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

    answer: ChatCompletion = await perform(
        CHAT, open_port, model, messages, None, options, blocking=False, attempts=attempts
    )
    return answer


def check(model: str | None, options: Mapping[str, Any]) -> None:
    """Refuses at once what every call with these options would be refused for. Without a model: unknown keywords.

    Raises:
        APIError: as `completion` before it sends anything.
    """
    if model is not None or options.get("custom_llm_provider") is not None:
        _plan(CHAT, model or "any", [{"role": "user", "content": ""}], None, options)
    else:
        for name in options:
            if not any(name in row.keywords() for row in ROWS):
                _known(CHAT, ROWS[0], {name: options[name]})


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


# Planning: no I/O


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of call: what differs between chat, text completions and embeddings. All else is the same for them.

    name: as telemetry calls it. subject: the argument that holds the input. parameters: those for the model.
    options: the keywords for this package.
    check: refuses input that cannot be. row: the provider's row as it counts here.
    path: what follows the base URL, None where the provider has no such calls.
    build: the request body, as the `build` of a wire family. decode: what a whole response says.
    decoder: for a stream. as_stream: a whole response as the stream that it might have been, and a decoder for that.
    """

    name: str
    subject: str
    parameters: frozenset[str]
    options: frozenset[str]
    check: Callable[[Any], None]
    row: Callable[[Provider], Provider]
    path: Callable[[Provider, bool], str | None]
    build: Callable[..., dict[str, Any]]
    decode: "Callable[[Call, bytes], Any]"
    decoder: "Callable[[Call], Any]"
    as_stream: "Callable[[Call, bytes], tuple[bytes, Any]]"


def _check_messages(messages: Any) -> None:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise BadRequestError("messages must be a list of dicts with role and content", param="messages")


def _chat_path(provider: Provider, stream: bool) -> str:
    return provider.stream_path if stream and provider.stream_path else provider.chat_path


def _chat_body(provider: Provider, *what: Any, stream: bool) -> dict[str, Any]:
    return builder(provider.family)(provider, *what, stream=stream)


def _chat_response(call: "Call", body: bytes) -> ChatCompletion:
    row = call.provider
    response = decode_response(
        body, family=row.family, dialect=row.dialect, model=call.model, answer_tool=call.answer_tool
    )
    return response if call.estimate is None else call.estimate.respond(response)


def _chat_decoder(call: "Call") -> Any:
    row = call.provider
    return _estimating(call, row.family, dialect=row.dialect, answer_tool=call.answer_tool)


def _chat_as_stream(call: "Call", body: bytes) -> tuple[bytes, Any]:
    """In the family that all others are translated to."""
    return as_events(_chat_response(call, body)), _estimating(call, "chat")


def _estimating(call: "Call", family: str, **options: Any) -> Any:
    options |= {
        "include_usage": call.include_usage,
        "model": call.model,
        "keep_partial": call.keep_partial or not call.stream,
    }
    decoder = Decoder(family, **options)
    return decoder if call.estimate is None else call.estimate.decoder(decoder)


CHAT = Operation(
    name="chat",
    subject="messages",
    parameters=Parameters.__optional_keys__,
    options=Options.__optional_keys__ - Parameters.__optional_keys__ - RowOptions.__optional_keys__,
    check=_check_messages,
    row=lambda provider: provider,
    path=_chat_path,
    build=_chat_body,
    decode=_chat_response,
    decoder=_chat_decoder,
    as_stream=_chat_as_stream,
)


@dataclass(slots=True)
class Call:
    """One model to ask, with all that was decided before asking. Its repr shows no key."""

    operation: Operation
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
    on_stream_cut: str
    rest_of: Callable[[str], dict[str, Any]] | None = field(repr=False)
    """The body that asks for the rest of an answer, by the text so far."""
    answer_tool: str | None
    response_type: type | None
    estimate: "Estimate | None"
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    secrets: set[str] = field(repr=False)
    source: Source | None = field(repr=False)
    sign: Sign | None = field(repr=False)
    transport: str | None
    client: Any = field(repr=False)
    mock: Any = field(repr=False)
    token: str | None = field(default=None, repr=False)
    """What `source` gave for this attempt."""
    used_before: bool = False
    """Whether that token is an older one, so that the server may know better how good it is."""
    deployment: str | None = None
    """The id of the router's deployment that this is."""

    async def authorize(self, port: Port, watch: Watch, *, blocking: bool) -> Watch:
        """Gets the token that the call needs, if it is one of those. The clocks of the attempt begin after that.

        Raises:
            APIError: there is none to be had.
        """
        if self.source is None:
            return watch
        try:
            self.token, new = await tokens.get(self.source, port, self.route, watch, blocking=blocking)
        except APIError as error:
            raise self.complete(error) from error.__cause__
        self.used_before = not new
        self.secrets.add(self.token)
        return Watch(self.timeouts, watch.started)

    def renews(self, error: APIError) -> bool:
        """Whether the server does not take an older token: it is forgotten, and the next request has a new one."""
        if self.source is None or self.token is None or not self.used_before or error.status_code != UNAUTHORIZED:
            return False
        tokens.drop(self.source, self.token)
        return True

    def request(self) -> Request:
        """The request for one attempt."""
        if self.base_url in _without_stream_options:
            self.body.pop("stream_options", None)
        content = encode(self.body)
        signature = self.sign(self.url, self.headers, content) if self.sign else {}
        bearer = {"authorization": f"Bearer {self.token}"} if self.token is not None else {}
        return Request(self.url, {**bearer, **self.headers, **signature}, content)

    def following(self, request: Request, body: bytes) -> Request | None:
        """The request for what an answer only tells the place of; None if it tells none, and is all there is.

        It carries the key where the first one went, and from one host of the provider to another.
        """
        import orjson

        try:
            place = orjson.loads(body)
        except ValueError as error:
            raise APIResponseValidationError(f"the answer is not JSON: {error}", body=body) from None
        for name in self.provider.follow:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, str):
            return None
        here, there = (urlsplit(url) for url in (request.url, place))
        hosts = here.hostname or "", there.hostname or ""
        if there.scheme not in ("http", "https") or (there.scheme == "http" and here.scheme == "https"):
            raise APIResponseValidationError(f"the answer is said to be at {place!r}, which is no place to ask")
        trusted = here.netloc == there.netloc or all(owns(self.provider, host) for host in hosts)
        wanted = {"accept": "text/event-stream", "accept-encoding": "identity"}
        kept = request.headers if trusted else {"user-agent": request.headers["user-agent"]}
        headers = {name: value for name, value in kept.items() if name != "content-type"}
        return Request(place, {**headers, **wanted}, b"", "GET")

    def decoder(self) -> Any:
        """A decoder for one attempt."""
        return self.operation.decoder(self)

    def again(self, decoder: Decoder) -> Callable[[], Decoder]:
        """What makes the decoder ready for the answer to each request that follows a cut.

        Raises:
            APIError: what has come cannot be gone on from.
        """
        if self.rest_of is None:
            decoder.restart()  # here for its error, before anything is sent

            def restarted() -> Decoder:
                decoder.restart()
                return decoder

            return restarted

        said = _said(decoder.response())
        # Trailing white space is refused by some models, and put off by the others: they may say it again, or not.
        begun = said.rstrip()
        self.body = self.rest_of(begun)

        def resumed() -> Decoder:
            decoder.resume(said[len(begun) :])
            return decoder

        return resumed

    def complete(self, error: APIError) -> APIError:
        """The error with provider and model, and without key and token, which some servers repeat."""
        error.fill(provider=self.provider.slug, model=self.model)
        for secret in self.secrets:
            if len(secret) >= SECRET:
                for name in ("message", "code", "type", "param", "body"):
                    setattr(error, name, _without(secret, getattr(error, name)))
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


def _said(partial: ChatCompletion | None) -> str:
    """The text of an answer that was cut, if text is all that there is of it.

    Raises:
        BadRequestError: it is not.
    """
    choices = partial.choices if partial is not None else []
    message = choices[0].message if choices else {}
    others = [name for name in message if name not in ("role", "content") and message[name] is not None]
    if others or not (message.get("content") or "").strip():
        what = f"{', '.join(others)} cannot be gone on with" if others else "there is no text to go on from"
        raise BadRequestError(f"on_stream_cut='continue': {what}", param="on_stream_cut")
    said: str = message["content"]
    return said


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


def _plan(operation: Operation, model: str, given_input: Any, stream: bool | None, options: Mapping[str, Any]) -> Call:
    """Decides everything about a call.

    Raises:
        BadRequestError: an argument that cannot be.
        UnsupportedParamsError: a parameter that the provider lacks.
        AuthenticationError: no key.
    """
    stream = bool(stream)
    operation.check(given_input)
    provider, model = resolve(model, options.get("custom_llm_provider"))
    drop_params = bool(options.get("drop_params"))
    _known(operation, provider, options)

    api_base = _one_of(options, "api_base", "base_url")
    values: Mapping[str, str] = settings(provider, options, os.environ)
    given_base = api_base or first_set(os.environ, provider.base_env)
    provider, model, values = vary(provider, model, given_base, values, options.get("api_key"))
    provider, base_url = base_of(provider, api_base, {**values, "model": model}, os.environ)
    for name in ("api_version", "organization"):
        if options.get(name) is not None and name not in values and not drop_params:
            raise UnsupportedParamsError(f"{provider.slug} has no {name}", param=name, provider=provider.slug)
    path = operation.path(provider, stream)
    if path is None:
        raise BadRequestError(f"{provider.slug} has no {operation.name}", param="model", provider=provider.slug)
    url = base_url + fill(provider, path, {**values, "model": model}, safe=provider.path_safe)
    if options.get("extra_query"):
        url += ("&" if "?" in url else "?") + urlencode(options["extra_query"], doseq=True)

    credential, sign = None, None
    if options.get("mock_response") is None:
        credential = credential_of(provider, options, base_url, os.environ)
        if credential is None:
            sign = signer(provider, values)
    source = credential.source if credential is not None else None
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

    given = {name: options[name] for name in operation.parameters if options.get(name) is not None}
    if "stream_options" in given and not stream:
        raise BadRequestError("stream_options needs stream=True", param="stream_options", provider=provider.slug)
    parameters = select(
        operation.row(provider),
        given,
        drop_params=drop_params,
        additional_drop_params=options.get("additional_drop_params") or (),
        allowed_openai_params=options.get("allowed_openai_params") or (),
    )

    def asking(asked: Any, more: Mapping[str, Any]) -> dict[str, Any]:
        body = operation.build(provider, model, asked, parameters, stream=stream)
        set_fields(body, provider, {**values, "model": model})
        return {**body, **more, **(options.get("extra_body") or {})}

    body = asking(given_input, {})
    on_stream_cut, rest_of = options.get("on_stream_cut") or "raise", None
    if on_stream_cut != "raise":
        prefill = _resumable(provider, model, on_stream_cut, stream, given, options)
        if prefill is not None:

            def rest_of(said: str) -> dict[str, Any]:
                return asking([*given_input, {"role": "assistant", "content": said, **prefill.message}], prefill.body)

    verify, form = options.get("verify"), given.get("response_format")
    retries = _one_of(options, "max_retries", "num_retries")
    if retries is not None and (not isinstance(retries, int) or retries < 0):
        raise BadRequestError(f"max_retries must be 0 or more, not {retries!r}", param="max_retries")
    keep_partial = options.get("keep_partial") is not False
    return Call(
        operation=operation,
        provider=provider,
        model=model,
        url=url,
        base_url=base_url,
        stream=stream,
        include_usage=bool((given.get("stream_options") or {}).get("include_usage")),
        timeouts=Timeouts.of(options.get("timeout"), stream=stream),
        max_retries=2 if retries is None else retries,
        route=Route(options.get("proxy"), True if verify is None else verify, options.get("cert")),
        keep_partial=keep_partial,
        on_stream_cut=on_stream_cut,
        rest_of=rest_of,
        answer_tool=ANSWER_TOOL if "response_format" in parameters else None,
        response_type=form if isinstance(form, type) else None,
        estimate=_estimate(model, given_input, given, keep_partial) if options.get("estimate_usage") else None,
        headers=headers,
        body=body,
        secrets=credential.secrets() if credential is not None else set(),
        source=source,
        sign=sign,
        transport=options.get("transport"),
        client=options.get("client"),
        mock=options.get("mock_response"),
    )


def _estimate(model: str, messages: Any, given: Mapping[str, Any], keep_partial: bool) -> "Estimate":
    from .counting import Estimate

    if not keep_partial:
        raise BadRequestError("estimate_usage needs what keep_partial=False throws away", param="estimate_usage")
    return Estimate(model, messages, given.get("tools"))


def _resumable(
    provider: Provider,
    model: str,
    on_stream_cut: Any,
    stream: bool,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Prefill | None:
    """How the provider is asked for the rest of an answer, for on_stream_cut="continue"; None for "restart".

    Raises:
        BadRequestError: this call cannot be gone on with after a cut.
    """
    prefill = provider.prefill if on_stream_cut == "continue" else None
    if on_stream_cut not in ("restart", "continue"):
        why: str | None = f"must be 'raise', 'restart' or 'continue', not {on_stream_cut!r}"
    elif not stream:
        why = "needs stream=True"
    elif options.get("keep_partial") is False:
        why = "needs what keep_partial=False does not keep"
    elif on_stream_cut == "restart":
        lost = [name for name in ("logprobs", "audio") if given.get(name)]
        why = f"'restart': {lost[0]} of one answer cannot be told from those of another" if lost else None
    elif prefill is None or not re.fullmatch(prefill.models, model):
        why = f"'continue': {provider.slug} does not document that {model} goes on from a part of an answer"
    elif (given.get("n") or 1) > 1:
        why = "'continue' is for one choice, not for n of them"
    elif given.get("response_format") is not None:
        why = "'continue': response_format would hold for the rest of the answer, not for the whole"
    else:
        why = None
    if why is not None:
        colon = "" if why.startswith(("must", "needs")) else "="
        raise BadRequestError(f"on_stream_cut{colon or ' '}{why}", param="on_stream_cut", provider=provider.slug)
    return prefill


def _one_of(options: Mapping[str, Any], name: str, alias: str) -> Any:
    """The value of an argument with two names."""
    value, other = options.get(name), options.get(alias)
    if value is not None and other is not None and value != other:
        raise BadRequestError(f"{name} and {alias} are the same, but were given as {value!r} and {other!r}", param=name)
    return other if value is None else value


def _known(operation: Operation, provider: Provider, options: Mapping[str, Any]) -> None:
    """Refuses keywords that mean nothing here, so that nothing misspelled is sent, or left out, in silence."""
    own = provider.keywords()
    known = operation.parameters | operation.options
    for name in options:
        if name in known or name in own:
            continue
        owners = [row.slug for row in ROWS if name in row.keywords()]
        if owners:
            raise BadRequestError(f"{name} is a keyword of {', '.join(owners)}, not of {provider.slug}", param=name)
        nearest = get_close_matches(name, [*known, operation.subject, "model", "stream", *own], n=1)
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
    attempts: list[Attempt] | None = None,
) -> Any:
    """The call with its fallbacks, its defaults and those who are told of it: a Flow, or a whole response."""
    options = current().under(options, operation.options)
    ask = partial(_ask, operation, open_port)
    return await observed(ask, operation, model, given_input, stream, options, blocking=blocking, attempts=attempts)


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
) -> Any:
    """The call and its fallbacks."""
    started = monotonic()
    fallbacks, refused = _routes(model, options, "fallbacks"), _routes(model, options, "content_policy_fallbacks")
    while True:
        try:
            call = _plan(operation, model, given_input, stream, options)
            return await _pursue(open_port, call, attempts, started, blocking=blocking)
        except APIError as error:
            following = fallbacks if retry.falls_back(error) else refused if retry.refused_content(error) else []
            if not following:
                for attempt in attempts:
                    if attempt.error is not error:
                        error.add_note(f"before it: {attempt.error}")
                raise
            model, options = following.pop(0)


async def _pursue(open_port: OpenPort, call: Call, attempts: list[Attempt], started: float, *, blocking: bool) -> Any:
    """One model, asked until it answers or it is of no use to ask again."""
    if call.mock is not None:
        answer = await _mocked(call)
    else:
        port = await open_port(call.client, call.route, call.transport)
        pursuit = Pursuit(port, call, attempts, started, blocking=blocking)
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

    def __init__(self, port: Port, call: Call, attempts: list[Attempt], started: float, *, blocking: bool) -> None:
        self.port = port
        self.call = call
        self.attempts = attempts
        self.started = started
        self.blocking = blocking
        self.retries = 0
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
        if not _budget.retry(monotonic()):
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
    events, decoder = as_events(completion), _estimating(call, "chat")
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
    flow = Flow(Mocked(items), watch, _estimating(call, "chat"), call.complete)
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
