"""The requests that the native module cannot build itself: what a client wants, in the words of its upstream.

A client says what to ask. With which key, where, over which way, and what is added on it are the config's to say.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from threading import Semaphore
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import orjson

from ..call import CHAT, UNAUTHORIZED, Call, plan
from ..clocks import Watch
from ..errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ServiceUnavailableError,
    Timeout,
)
from ..providers.registry import RowOptions
from ..providers.resolve import resolve
from ..tokens import tokens
from ..transport import blocking_port, run
from .compile import LONGEST, OWN, Deployment

if TYPE_CHECKING:
    from ..providers.auth import Source

log = logging.getLogger("penstock.gateway")

ASIDE = 4
"""Threads that get tokens of one kind, or sign for one provider, which may take a round trip to somebody else."""

WAITING = 1024
"""Requests that may wait for these: with more of them somebody is not keeping up, and clients do better to know."""

OFTEN_ELSEWHERE = {
    "timeout": "timeout of the deployment",
    "stream_timeout": "timeout of the deployment",
    **dict.fromkeys(("max_retries", "num_retries"), "router_settings.num_retries"),
    **dict.fromkeys(("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"), "router_settings.fallbacks"),
}
"""What clients of other gateways say in the body, and where it is said here."""


class Job(Protocol):
    """The part of the native Job that is about plans."""

    @property
    def id(self) -> str:
        """The request's."""

    @property
    def deployment(self) -> str:
        """The id of the deployment to plan for."""

    @property
    def operation(self) -> Literal["chat", "messages", ""]:
        """The language of the body."""

    @property
    def model(self) -> str:
        """The upstream's name of the model."""

    @property
    def stream_options(self) -> bool:
        """Whether they may be sent."""

    @property
    def body(self) -> bytes:
        """As it came: a JSON object."""

    def plan(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        /,
        *,
        family: str,
        reasoning: str = "inside",
        end: str = "finish",
        answer_tool: str | None = None,
    ) -> None:
        """Ends it with the request to send."""

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
        """Ends it with an error."""


class Listener(Protocol):
    """Who is told of requests before they are planned."""

    def planned(self, id: str, call: Call, asked: Any, given: Mapping[str, Any]) -> None:
        """The request with this id asks for this."""


class Aside:
    """Who waits for one kind of token, or for signatures of one provider: what does not come holds up no others."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(ASIDE, "penstock-tokens")
        self.room = Semaphore(WAITING)


class Planner:
    """Answers the jobs of one gateway.

    Nothing here waits: what needs a token that is not there yet, or a signature, is finished by threads of its own.
    """

    def __init__(self, deployments: Mapping[str, Deployment], listener: Listener | None = None) -> None:
        self._deployments = deployments
        self._listener = listener
        self._aside: dict[Source | str, Aside] = {}
        self._used: dict[str, tuple[Source, str]] = {}

    def reload(self, deployments: Mapping[str, Deployment], listener: Listener | None = None) -> None:
        """Plans for these deployments from now on; requests that have begun may still ask for any that was before."""
        self._deployments = {**self._deployments, **deployments}
        self._listener = listener

    def close(self) -> None:
        """Ends the threads. What waits for a token is not answered."""
        for aside in self._aside.values():
            aside.threads.shutdown(wait=False, cancel_futures=True)

    def plan(self, job: Job) -> None:
        """Sees to it that a job is answered. Raises nothing."""
        try:
            call = self._call(job, self._deployments[job.deployment])
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            refuse(job, error)
            return
        if call.sign is None and (call.source is None or tokens.has(call.source)):
            self._finish(job, call)
            return
        aside = self._aside_of(call)
        if aside.room.acquire(blocking=False):
            aside.threads.submit(self._finish, job, call).add_done_callback(lambda _: aside.room.release())
        else:
            refuse(job, ServiceUnavailableError("too many requests wait for a token or a signature", status_code=503))

    def _aside_of(self, call: Call) -> "Aside":
        kind = call.source or call.provider.slug
        if kind not in self._aside:
            self._aside[kind] = Aside()
        return self._aside[kind]

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Requests have ended. A token that was not accepted is forgotten: the next request has a new one."""
        if not self._used:
            return
        for row in rows:
            for attempt in row.get("attempts") or ():
                if attempt.get("status") == UNAUTHORIZED:
                    used = self._used.pop(attempt.get("deployment"), None)
                    if used is not None:
                        tokens.drop(*used)

    def _call(self, job: Job, deployment: Deployment) -> Call:
        try:
            body = orjson.loads(job.body)
        except orjson.JSONDecodeError as error:
            # The native module has seen that it is an object; a number may yet be too large, a character half a pair.
            raise BadRequestError(f"the body is no JSON object: {error}") from None
        stream = bool(body.get("stream"))
        if job.operation == "messages":
            from .messages import chat_of

            with shaped():
                messages, given = chat_of(body, deployment.family, deployment.passes)
        else:
            messages = body.pop("messages", None)
            given = body
        given = {name: value for name, value in given.items() if name not in ("model", "stream") and value is not None}
        if not stream:
            given.pop("stream_options", None)
        call = request_of(deployment, job.model, messages, stream, given)
        if not job.stream_options:
            call.body.pop("stream_options", None)
        if self._listener is not None:
            self._listener.planned(job.id, call, messages, given)
        return call

    def _finish(self, job: Job, call: Call) -> None:
        """Gets the token that the call needs, signs it, and hands it over."""
        try:
            if call.source is not None:
                watch = Watch(call.timeouts, monotonic())
                run(call.authorize(blocking_port(None, call.route), watch, blocking=True))
                if call.token is not None:
                    self._used[job.deployment] = call.source, call.token
            request = call.request()
            row = call.provider
            job.plan(
                request.url,
                list(request.headers.items()),
                request.content,
                family=row.family,
                reasoning=row.dialect.get("reasoning", "inside"),
                end=row.dialect.get("end", "finish"),
                answer_tool=call.answer_tool,
            )
        except Exception as error:  # noqa: BLE001  as above
            refuse(job, error)


def refuse(job: Job, error: Exception) -> None:
    """Ends a job with an error as the client gets it, in the words of the API."""
    if not isinstance(error, APIError):
        log.error("a request could not be planned", exc_info=error)
        job.refuse(500, "the request could not be put into the words of its upstream", name="InternalServerError")
        return
    status = error.status_code
    if status is None:
        kinds = ((BadRequestError, 400), (AuthenticationError, 401), (Timeout, 504), (APIConnectionError, 502))
        status = next((status for kind, status in kinds if isinstance(error, kind)), 500)
    code = None if error.code is None else str(error.code)
    job.refuse(status, error.message, name=type(error).__name__, type=error.type, param=error.param, code=code)


# What a client may say


def request_of(deployment: Deployment, model: str, messages: Any, stream: bool, given: Mapping[str, Any]) -> Call:
    """The call that a client's request amounts to at a deployment. `given` are the fields beside messages and stream.

    Raises:
        BadRequestError: a field that is not known, or not the client's to set; or what no upstream could understand.
        UnsupportedParamsError: a parameter that this upstream lacks.
        AuthenticationError: there is no key.
    """
    wanted, more = judged(deployment, given)
    if deployment.open is not None and {".", ".."} & set(model.split("/")):
        raise BadRequestError(f"there is no model {model!r}", param="model")  # it may stand in the path
    named = deployment.model_for(model)
    own = _left(deployment, named, wanted)
    if more:
        own["extra_body"] = {**more, **(own.get("extra_body") or {})}
    if "additional_drop_params" in wanted:
        wanted["additional_drop_params"] += tuple(own.get("additional_drop_params") or ())
    if "allowed_openai_params" in wanted:
        wanted["allowed_openai_params"] += tuple(own.get("allowed_openai_params") or ())
    with shaped():
        call = plan(CHAT, named, messages, stream, {**own, **wanted})
    call.route = deployment.route
    return call


@contextmanager
def shaped() -> Iterator[None]:
    """What trips over a request is the request's fault, and no reason to ask this or another upstream again.

    The builders take it for granted that a message is an object with a role, a tool one with a function.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise BadRequestError(
            f"messages or parameters are not as the API has them ({type(error).__name__}: {error})",
            param="messages",
        ) from error


def judged(deployment: Deployment, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a call, and what is sent beside them, among a client's fields.

    Raises:
        BadRequestError: a field that is not known, or not the client's to set.
    """
    options: dict[str, Any] = {}
    more: dict[str, Any] = {}
    fields = dict(given)
    extra = fields.pop("extra_body", None)
    if extra is not None:
        # Clients of ours in other languages have no other way to say what is not known here.
        if not isinstance(extra, dict):
            raise BadRequestError("extra_body must be an object", param="extra_body")
        fields = {**extra, **fields}
    for name, value in fields.items():
        if name in deployment.passes:
            more[name] = value
        elif name in CHAT.parameters:
            options[name] = value
        elif name == "drop_params":
            options[name] = _flag(name, value)
        elif name in ("additional_drop_params", "allowed_openai_params"):
            options[name] = _names(name, value)
        else:
            _refused(name)
    metadata = options.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("tags"), list):
        # They have chosen the deployment.
        options["metadata"] = {name: value for name, value in metadata.items() if name != "tags"} or None
    return options, more


def _refused(name: str) -> NoReturn:
    if name in OFTEN_ELSEWHERE:
        raise BadRequestError(f"{name} is not a client's to say here: {OFTEN_ELSEWHERE[name]} is", param=name)
    if name in CHAT.options or name in RowOptions.__optional_keys__:
        raise BadRequestError(f"{name} is for this proxy's configuration to say", param=name)
    if name in OWN:
        raise BadRequestError(f"{name} does not belong into extra_body", param=f"extra_body.{name}")
    nearest = get_close_matches(name, [*sorted(CHAT.parameters), "messages", "model", "stream"], n=1)
    hint = f": did you mean {nearest[0]}?" if nearest else ""
    raise BadRequestError(
        f"unknown field {name}{hint} (allowed_openai_params of the deployment lets others pass)", param=name
    )


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequestError(f"{name} must be true or false", param=name)
    return value


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRequestError(f"{name} must be a list of names", param=name)
    return tuple(value)


def _left(deployment: Deployment, model: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The deployment's options without parameters that the client gives too, by whichever of their names."""
    row, _ = resolve(model, deployment.options.get("custom_llm_provider"))
    spellings = [row.renames, *(variant.renames for variant in row.variants if variant.renames is not None)]
    if row.elsewhere is not None:
        spellings.append(row.elsewhere.renames)

    def replaced(name: str) -> bool:
        if name in LONGEST and LONGEST & wanted.keys():
            return True
        return any(
            names.get(name, name) == names.get(other, other) for names in spellings for other in wanted if other != name
        )

    return {
        name: value for name, value in deployment.options.items() if name not in CHAT.parameters or not replaced(name)
    }
