"""What goes to the standard logger "penstock". Nothing is said where nobody has imported `logging`.

Never in it: keys, headers, queries, messages and answers. Errors are repeated as the caller gets them, without the key.
"""

import sys
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import logging

    from .hooks import CallEnded, CallStarted
    from .stream import Attempt


def logger() -> "logging.Logger | None":
    """The logger, if anybody can listen to it."""
    logging: Any = sys.modules.get("logging")
    return _logger_of(logging) if logging is not None else None


@lru_cache(maxsize=1)
def _logger_of(module: Any) -> "logging.Logger":
    """Cached: `getLogger` takes a lock, and gives the same one every time."""
    found: logging.Logger = module.getLogger("penstock")
    return found


class Seldom:
    """What may be said again and again is said once in so many seconds."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is to be said now."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def listens() -> bool:
    """Whether somebody wants to read of every call."""
    log = logger()
    return log is not None and log.isEnabledFor(10)


def attempted(attempt: "Attempt", url: str) -> None:
    """One request has been answered, or has failed."""
    log = logger()
    if log is None:
        return
    if attempt.error is not None:
        log.info("%s after %.2f s: %s", type(attempt.error).__name__, attempt.seconds, attempt.error)
    elif log.isEnabledFor(10):
        log.debug("POST %s: %s after %.2f s", _shown(url), attempt.status_code, attempt.seconds)


def _shown(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class CallLog:
    """The hook that writes a line when a call starts and when it has ended."""

    def started(self, call: "CallStarted") -> None:
        """The call starts."""
        log = logger()
        if log is not None:
            log.debug("%s %s%s", call.operation, call.model, ", streamed" if call.stream else "")

    def ended(self, call: "CallStarted", end: "CallEnded") -> None:
        """The call is over."""
        log = logger()
        if log is not None:
            who = f"{end.provider}/{end.model}" if end.provider else end.model
            log.debug("%s %s: %s after %.2f s, %s", call.operation, who, end.how, end.seconds, end.usage)
