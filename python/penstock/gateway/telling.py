"""Hooks on the gateway: they are told of each request when it is planned, and when its row of spend is there.

What was answered is not known here: the bytes of an answer never come to Python. Requests wait for `started`, as they
do in a program of one's own; `ended` has a thread of its own, so that no hook holds up the books.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from queue import Full, Queue
from time import monotonic, time
from typing import Any

from ..call import Call
from ..errors import APIError
from ..hooks import CallEnded, CallStarted, Observation
from ..log import Seldom
from ..stream import Attempt
from ..transport import run

MOST = 20_000
"""Requests that are remembered from their start to their end, and ends that wait to be told."""

HOW: Mapping[str, Any] = {"complete": "complete", "left": "left"}
"""Outcomes of rows as hooks know them; all others are failures."""


log = logging.getLogger("penstock.gateway")


class Telling:
    """Who is told. With no hooks it does nothing."""

    def __init__(self, hooks: Sequence[Any]) -> None:
        self._hooks = hooks
        self._begun: OrderedDict[str, Observation] = OrderedDict()
        self._ended: Queue[Mapping[str, Any] | None] = Queue(MOST)
        self._thread: threading.Thread | None = None
        self._complains = Seldom()

    def close(self, seconds: float) -> None:
        """Tells what is left to be told, in so many seconds."""
        if self._thread is None:
            return
        until = monotonic() + seconds
        try:
            self._ended.put(None, timeout=seconds)
        except Full:
            pass
        else:
            self._thread.join(max(until - monotonic(), 0.0))
        if self._thread.is_alive():
            log.warning("hooks were not told of the last %d requests: one does not return", self._ended.qsize())

    def reload(self, hooks: Sequence[Any]) -> None:
        """Tells these from now on."""
        self._hooks = hooks

    def planned(self, id: str, call: Call, asked: Any, given: Mapping[str, Any]) -> None:
        """A request asks for this; the first of its attempts is its start."""
        if not self._hooks or id in self._begun:
            return
        started = CallStarted("chat", call.model, call.provider.slug, call.stream, asked, given, id)
        self._begun[id] = observation = Observation(self._hooks, started, blocking=True)
        while len(self._begun) > MOST:
            self._begun.popitem(last=False)
        _contained(run, observation.start())

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """These requests have ended."""
        if not self._hooks:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell, name="penstock-hooks", daemon=True)
            self._thread.start()
        for row in rows:
            try:
                self._ended.put_nowait(row)
            except Full:
                if self._complains.due():
                    log.warning("hooks are slower than requests: they are not told of every end")
                return

    def _tell(self) -> None:
        while (row := self._ended.get()) is not None:
            _contained(self._over, row)

    def _over(self, row: Mapping[str, Any]) -> None:
        observation = self._begun.pop(str(row.get("id")), None)
        if observation is None:
            observation = Observation(self._hooks, _unplanned(row), blocking=True)
        observation.tell_elsewhere(_ended(row))


def _contained(tell: Callable[[Any], Any], what: Any) -> None:
    """A hook may say sys.exit(), or be a coroutine that is cancelled: that is not the end of the gateway."""
    try:
        tell(what)
    except BaseException:
        log.exception("a hook did not return")


def _unplanned(row: Mapping[str, Any]) -> CallStarted:
    """A request that was refused before it was planned: nothing is known of what it asked."""
    return CallStarted(
        "chat",
        str(row.get("group") or ""),
        row.get("provider"),
        bool(row.get("stream")),
        None,
        {},
        str(row.get("id")),
        float(row.get("started") or time()),
    )


def _ended(row: Mapping[str, Any]) -> CallEnded:
    from .. import errors
    from .._native import CompletionUsage
    from .observe import usage_of

    how = HOW.get(str(row.get("outcome")), "failed")
    error = None
    if how == "failed":
        kind = getattr(errors, str(row.get("error")), APIError)
        kind = kind if isinstance(kind, type) and issubclass(kind, APIError) else APIError
        error = kind(f"the request ended as {row.get('outcome')}", status_code=row.get("status"))
    usage = None
    if row.get("prompt_tokens") is not None or row.get("completion_tokens") is not None:
        told = usage_of(row) | {"total_tokens": row.get("total_tokens")}
        usage = CompletionUsage(told, complete=bool(row.get("usage_complete")))
    attempts = [
        Attempt(
            provider=str(row.get("provider")),
            model=str(row.get("model")),
            seconds=float(each.get("seconds") or 0.0),
            status_code=each.get("status"),
            deployment=each.get("deployment"),
        )
        for each in row.get("attempts") or ()
    ]
    return CallEnded(
        how=how,
        provider=row.get("provider"),
        model=str(row.get("model") or row.get("group") or ""),
        seconds=float(row.get("seconds") or 0.0),
        usage=usage,
        error=error,
        timings=None,
        attempts=attempts,
        build=lambda: None,
    )
