"""A call, decided before anything is sent: from the caller's arguments to the request. No I/O.

`plan` is the one place where it is decided what a provider is sent: calls use it, and so does the gateway for its own.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode, urlsplit

from ._native import ChatCompletion, Decoder, __version__, decode_response
from .clocks import Timeouts, Watch
from .errors import APIError, APIResponseValidationError, BadRequestError, UnsupportedParamsError
from .providers.auth import Source, credential_of
from .providers.registry import ROWS, Prefill, Provider, RowOptions
from .providers.resolve import base_of, fill, first_set, owns, resolve, setting_headers, settings, vary
from .providers.sign import Sign, signer
from .stream import as_events
from .tokens import tokens
from .transport import Port, Request, Route, http2_of
from .wire import ANSWER_TOOL, Parameters, Unformatted, builder, encode, select, set_fields

if TYPE_CHECKING:
    from .counting import Estimate

USER_AGENT = f"penstock/{__version__}"

REFUSED_STATUS = (400, 422, 424)
"""Of a server that does not know a parameter; the last is told by what stands between it and the caller."""
UNAUTHORIZED = 401

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
    http2: "bool | Literal['prior-knowledge'] | None"
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


@dataclass(frozen=True, slots=True, eq=False)
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
    return estimating(call, row.family, dialect=row.dialect, answer_tool=call.answer_tool)


def _chat_as_stream(call: "Call", body: bytes) -> tuple[bytes, Any]:
    """In the family that all others are translated to."""
    return as_events(_chat_response(call, body)), estimating(call, "chat")


def estimating(call: "Call", family: str, **options: Any) -> Any:
    """A decoder of this family for a call, which estimates the usage if the call wants that."""
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


def plan(operation: Operation, model: str, given_input: Any, stream: bool | None, options: Mapping[str, Any]) -> Call:
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
    check_keywords(operation, provider, options)

    api_base = one_of(options, "api_base", "base_url")
    values: Mapping[str, str] = settings(provider, options, os.environ)
    given_base = api_base or first_set(os.environ, provider.base_env)
    provider, model, values = vary(provider, model, given_base, values, options.get("api_key"))
    named = {**values, "model": model}
    provider, base_url = base_of(provider, given_base, named, {})
    for name in ("api_version", "organization"):
        if options.get(name) is not None and name not in values and not drop_params:
            raise UnsupportedParamsError(f"{provider.slug} has no {name}", param=name, provider=provider.slug)
    path = operation.path(provider, stream)
    if path is None:
        raise BadRequestError(f"{provider.slug} has no {operation.name}", param="model", provider=provider.slug)
    url = base_url + fill(provider, path, named, safe=provider.path_safe)
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
        "user-agent": USER_AGENT,
        **provider.headers,
        **setting_headers(provider, values),
        **(credential.headers if credential is not None else {}),
    }
    if stream:
        # Compressed events wait for each other in the compressor.
        headers["accept-encoding"] = "identity"
    headers.update({name.lower(): str(value) for name, value in (options.get("extra_headers") or {}).items()})

    given = {name: value for name, value in options.items() if value is not None and name in operation.parameters}
    if "stream_options" in given and not stream:
        raise BadRequestError("stream_options needs stream=True", param="stream_options", provider=provider.slug)
    parameters = select(
        operation.row(provider),
        given,
        drop_params=drop_params,
        additional_drop_params=options.get("additional_drop_params") or (),
        allowed_openai_params=options.get("allowed_openai_params") or (),
    )

    asking = partial(_asking, operation, provider, model, parameters, named, options.get("extra_body") or {}, stream)
    body = asking(given_input, {})
    on_stream_cut, rest_of = options.get("on_stream_cut") or "raise", None
    if on_stream_cut != "raise":
        prefill = _resumable(provider, model, on_stream_cut, stream, given, options)
        rest_of = partial(_rest_of, asking, given_input, prefill) if prefill is not None else None

    form = given.get("response_format")
    retries = one_of(options, "max_retries", "num_retries")
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
        route=_route(base_url, options),
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


def _asking(
    operation: Operation,
    provider: Provider,
    model: str,
    parameters: Mapping[str, Any],
    values: Mapping[str, str],
    extra_body: Mapping[str, Any],
    stream: bool,
    asked: Any,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The request body."""
    body = operation.build(provider, model, asked, parameters, stream=stream)
    set_fields(body, provider, values)
    return {**body, **more, **extra_body}


def _rest_of(
    asking: Callable[[Any, Mapping[str, Any]], dict[str, Any]], messages: Sequence[Any], prefill: Prefill, said: str
) -> dict[str, Any]:
    """The request body that asks for the rest of an answer."""
    return asking([*messages, {"role": "assistant", "content": said, **prefill.message}], prefill.body)


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


def one_of(options: Mapping[str, Any], name: str, alias: str) -> Any:
    """The value of an argument with two names."""
    value, other = options.get(name), options.get(alias)
    if value is not None and other is not None and value != other:
        raise BadRequestError(f"{name} and {alias} are the same, but were given as {value!r} and {other!r}", param=name)
    return other if value is None else value


DIRECT = Route()
"""That of a call which says nothing of it."""


def _route(base_url: str, options: Mapping[str, Any]) -> Route:
    proxy, verify, cert, http2 = map(options.get, ("proxy", "verify", "cert", "http2"))
    if proxy is verify is cert is http2 is None:
        return DIRECT
    if verify is False:
        warnings.warn(f"verify=False: anybody may answer in place of {base_url}, and is sent the key", stacklevel=2)
    return Route(proxy, True if verify is None else verify, cert, http2=http2_of(http2))


def check_keywords(operation: Operation, provider: Provider, options: Mapping[str, Any]) -> None:
    """Refuses keywords that mean nothing here, so that nothing misspelled is sent, or left out, in silence."""
    known = _keywords(operation, provider)
    for name in options:
        if name in known:
            continue
        owners = [row.slug for row in ROWS if name in row.keywords()]
        if owners:
            raise BadRequestError(f"{name} is a keyword of {', '.join(owners)}, not of {provider.slug}", param=name)
        nearest = get_close_matches(name, [*known, operation.subject, "model", "stream"], n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise BadRequestError(
            f"unknown keyword {name}: {hint}extra_body={{{name!r}: ...}} sends it as it is",
            param=name,
            provider=provider.slug,
        )
    if options.get("transport") not in (None, "native", "httpx"):
        raise BadRequestError(f"transport must be 'native' or 'httpx', not {options['transport']!r}", param="transport")


@lru_cache(maxsize=256)
def _keywords(operation: Operation, provider: Provider) -> frozenset[str]:
    """Every keyword that a call knows."""
    return operation.parameters | operation.options | provider.keywords()
