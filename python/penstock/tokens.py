"""Bearer tokens that are had before the call: exchanged for secrets, by google-auth, from a function of the caller's.

What was exchanged is kept until shortly before it expires. Whoever needs it meanwhile, in whatever thread or event
loop, shares it; whoever needs it while it is being had waits for that.
"""

import os
import threading
from collections.abc import Mapping
from copy import copy
from inspect import isawaitable
from time import monotonic, time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ._native import decode_error
from .clocks import Timeouts, Watch
from .errors import APIError, AuthenticationError, BadRequestError
from .providers.auth import Called, Exchange, GoogleAuth, Source
from .stream import Exchange as Exchanged
from .transport import Port, Request, Route, blocking_client, failure

PATIENCE = 30.0
"""Seconds within which a token must be there."""

LOOK = 0.01
"""Seconds between two looks at what another call is about to get."""

MARGIN = 60.0
"""Seconds before its end at which a token is no longer used, but no more than a tenth of its life."""

SINCE_1970, MILLISECONDS = 1e9, 1e11
"""From here on a number is no lifetime but a date, and from there on one in milliseconds."""


class Lease(NamedTuple):
    """A token, and until when it is used (seconds since 1970)."""

    token: str
    until: float


class Errand:
    """One call is getting a token, and others wait for it."""

    def __init__(self) -> None:
        self.due = monotonic() + PATIENCE  # an event loop that stopped would never say so
        self.done = False
        self.error: APIError | None = None


class Tokens:
    """The tokens of this process, by what they were had for."""

    def __init__(self) -> None:
        self.kept: dict[Source, Lease] = {}
        self.begin()

    def begin(self) -> None:
        """At first, and in a forked child: whoever was getting a token is not there."""
        self.lock = threading.Lock()
        self.errands: dict[Source, Errand] = {}

    def has(self, source: Source) -> bool:
        """Whether a token is there that is good for a while, so that `get` will not have to wait."""
        with self.lock:
            lease = self.kept.get(source)
            return lease is not None and lease.until > time()

    async def get(self, source: Source, port: Port, route: Route, watch: Watch, *, blocking: bool) -> tuple[str, bool]:
        """A token that is good for a while, and whether it is new.

        Raises:
            AuthenticationError: the secrets are not accepted.
            APIError: whatever else went wrong on the way to the token.
        """
        if isinstance(source, Called):
            return await _called(source, port, blocking=blocking), True
        while True:
            with self.lock:
                lease = self.kept.get(source)
                if lease is not None and lease.until > time():
                    return lease.token, False
                errand = self.errands.get(source)
                mine = errand is None or errand.due <= monotonic()
                if errand is None or mine:
                    errand = self.errands[source] = Errand()
            if mine:
                return await self.run(errand, source, port, route, watch), True
            # Other threads and event loops may be among those that wait: all of them can look again.
            while not errand.done and errand.due > monotonic():
                if watch.due()[0] <= monotonic():
                    raise watch.timeout()
                await port.sleep(LOOK)
            if errand.error is not None:
                raise copy(errand.error)

    async def run(self, errand: Errand, source: Source, port: Port, route: Route, watch: Watch) -> str:
        """A new token, for all who wait."""
        try:
            if isinstance(source, Exchange):
                lease = await _exchange(source, port, watch)
            else:
                assert isinstance(source, GoogleAuth)  # noqa: S101  the one that is left
                lease = await _google(source, port, route)
            with self.lock:
                now = time()
                self.kept = {each: kept for each, kept in self.kept.items() if kept.until > now}
                self.kept[source] = lease
        except APIError as error:
            errand.error = copy(error)
            raise
        finally:
            with self.lock:
                errand.done = True
                if self.errands.get(source) is errand:
                    del self.errands[source]
        return lease.token

    def drop(self, source: Source, token: str) -> None:
        """Forgets a token that was not accepted, unless another one is there by now."""
        with self.lock:
            lease = self.kept.get(source)
            if lease is not None and lease.token == token:
                del self.kept[source]


tokens = Tokens()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=tokens.begin)


def _lease(token: str, seconds: float) -> Lease:
    return Lease(token, time() + seconds - min(MARGIN, seconds / 10))


async def _called(source: Called, port: Port, *, blocking: bool) -> str:
    """What the caller's function gives: it may block, and for an asynchronous call it may be asynchronous."""
    token = await port.aside(source.function)
    if isawaitable(token):
        if blocking:
            getattr(token, "close", lambda: None)()
            raise BadRequestError(f"{source.keyword} is asynchronous: use acompletion", param=source.keyword)
        token = await token
    if not (isinstance(token, str) and token.isascii() and token.isprintable() and token):
        raise AuthenticationError(f"{source.keyword} gave no token, but {type(token).__name__}")
    return token


async def _google(source: GoogleAuth, port: Port, route: Route) -> Lease:
    from .providers.google import access_token

    token, expires = await port.aside(
        lambda: access_token(blocking_client(route), source.scope, source.document, source.ways)
    )
    return _lease(token, expires - time() if expires is not None else 0)


async def _exchange(source: Exchange, port: Port, watch: Watch) -> Lease:
    """Posts the secrets, and reads the token."""
    host = urlsplit(source.url).netloc
    left = max(min(PATIENCE, watch.due()[0] - monotonic()), 0.001)
    clock = Watch(Timeouts(connect=watch.timeouts.connect, first_token=None, idle=None, total=left), monotonic())
    try:
        answer = await port.send(Request(source.url, source.posted(), source.content), clock.limits)
        exchanged = Exchanged(answer, clock)
        try:
            body = await exchanged.whole()
        finally:
            await exchanged.close()
    except Exception as error:
        known = failure(error, clock)
        if known is None:
            raise
        known.message = f"no token from {host}: {known.message}"
        known.args = (known.message,)
        raise known from error
    said = _object(body)
    if not 200 <= answer.status_code < 300:
        raise _refusal(host, answer.status_code, answer.headers, body, said)
    token = said.get(source.token)
    if not (isinstance(token, str) and token.isascii() and token.isprintable() and token):
        raise AuthenticationError(
            f"no token from {host}: status {answer.status_code} without {source.token}", headers=answer.headers
        )
    return _lease(token, _seconds(said.get(source.expires), source.lifetime))


def _object(body: bytes) -> Mapping[str, Any]:
    import orjson

    try:
        said = orjson.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _seconds(expires: Any, lifetime: int) -> float:
    """How long a token lasts from now on. Some write the number as a string."""
    try:
        number = float(expires)
    except (TypeError, ValueError):
        return lifetime
    if number >= MILLISECONDS:
        number /= 1000
    return number - time() if number >= SINCE_1970 else number


WORDS = ("error_description", "errorMessage", "error_message", "message", "error")
"""Where servers of tokens say what is wrong, the best first."""


def _refusal(host: str, status: int, headers: Any, body: bytes, said: Mapping[str, Any]) -> APIError:
    """An AuthenticationError, unless another attempt can succeed."""
    error: APIError = decode_error(status, body, headers=list(headers.items()), now=time())
    words = next((said[name] for name in WORDS if isinstance(said.get(name), str) and said[name]), error.message)
    if not error.retryable:
        refused = AuthenticationError("", status_code=status)
        refused.__dict__.update(error.__dict__)
        error = refused
    error.message = f"no token from {host}: {words}"
    error.args = (error.message,)
    error.fill(headers=headers)
    return error
