"""Hooks: objects that are told of every call, once when it starts, at its first token, and once when it has ended.

    class Meter:
        def started(self, call): ...
        def first_token(self, call, seconds): ...
        async def ended(self, call, end): ...

Each method may be left out, and each may be a coroutine. What a hook raises is logged and goes no further.
"""

import asyncio
import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from .clocks import later
from .errors import BadRequestError

if TYPE_CHECKING:
    from ._native import CompletionUsage
    from .stream import Attempt, How, Outcome, Timings

MOMENTS = ("started", "first_token", "ended")


@dataclass(frozen=True, slots=True, eq=False)
class CallStarted:
    """A call as it was made: the same object at each of its moments.

    id: of this call, and of no other. operation: "chat", "text_completion" or "embeddings".
    model: as the caller wrote it. provider: by that, None if it names none.
    input: the messages, the prompt, or what is to be embedded. parameters: for the model, as given.
    time: Unix seconds.
    """

    operation: str
    model: str
    provider: str | None
    stream: bool
    input: Any = field(repr=False)
    parameters: Mapping[str, Any] = field(repr=False)
    id: str = field(default_factory=lambda: uuid4().hex)
    time: float = field(default_factory=time)


@dataclass(frozen=True, slots=True, eq=False)
class CallEnded:
    """How a call ended.

    how: "complete"; "failed", then with the error; "cancelled", with the task or by KeyboardInterrupt; "left", the
        caller closed the stream, left its loop, or let go of it.
    provider, model: who answered, or was asked last, which after a fallback is another than was called.
    usage: the tokens, as far as they are known. attempts: the requests, failed ones first.
    seconds: from the start of the call, its retries and fallbacks included. timings: of a stream, else None.
    """

    how: "How"
    provider: str | None
    model: str
    seconds: float
    usage: "CompletionUsage | None"
    error: BaseException | None
    timings: "Timings | None"
    attempts: "Sequence[Attempt]"
    build: Callable[[], Any] = field(repr=False)

    @property
    def response(self) -> Any:
        """What was received, built when asked for: the response, of a stream as far as it came, or None."""
        return self.build()


class Hook(Protocol):
    """What a hook may have. `seconds` are from the start of the call."""

    def started(self, call: CallStarted) -> Any:
        """Before anything is sent, or refused."""

    def first_token(self, call: CallStarted, seconds: float) -> Any:
        """A stream has brought its first content, reasoning or piece of a tool call."""

    def ended(self, call: CallStarted, end: CallEnded) -> Any:
        """The call is over, once however it ended: for a stream when its last chunk has been handed out or will not be.

        A stream that was dropped and not closed is told of from another thread.
        """


def check(hooks: Any) -> Sequence[Any]:
    """The hooks of a call.

    Raises:
        BadRequestError: something that is none.
    """
    if isinstance(hooks, str) or not isinstance(hooks, Sequence):
        raise BadRequestError(f"hooks must be a list of hooks, not {type(hooks).__name__}", param="hooks")
    for hook in hooks:
        if not any(callable(getattr(hook, moment, None)) for moment in MOMENTS):
            raise BadRequestError(f"{hook!r} is no hook: it has none of {', '.join(MOMENTS)}", param="hooks")
    return hooks


class Observation:
    """One call, and those who are told of it."""

    def __init__(self, hooks: Sequence[Any], call: CallStarted, *, blocking: bool) -> None:
        self.hooks = hooks
        self.call = call
        self.began = monotonic()
        self._home = None if blocking else _home()
        self._blocking = blocking
        self._spoken = False
        self._pending: deque[Coroutine[Any, Any, None]] = deque()

    async def start(self) -> None:
        """The call starts."""
        self._tell("started", self.call)
        await self.told()

    def first_token(self) -> None:
        """A stream has begun to speak, or goes on after a cut."""
        if self._spoken:
            return
        self._spoken = True
        self._tell("first_token", self.call, monotonic() - self.began)

    async def end(
        self, how: "How", attempts: "Sequence[Attempt]", error: BaseException | None, response: Any = None
    ) -> None:
        """The call is over, without a stream."""
        usage = getattr(response, "usage", None) if error is None else getattr(error, "usage", None)

        def build() -> Any:
            return getattr(error, "partial", None) if response is None else response

        self._tell("ended", self.call, self._end(how, usage, error, None, attempts, build))
        await self.told()

    def settled(self, outcome: "Outcome") -> None:
        """The call is over, with its stream."""
        end = self._end(outcome.how, outcome.usage, outcome.error, outcome.timings, outcome.attempts, outcome.response)
        if outcome.dropped:
            _untold.append((self, end))
            later(_elsewhere)
        else:
            self._tell("ended", self.call, end)

    async def told(self) -> None:
        """Waits for the hooks that are coroutines."""
        while self._pending:
            await self._pending.popleft()

    def _end(
        self,
        how: "How",
        usage: "CompletionUsage | None",
        error: BaseException | None,
        timings: "Timings | None",
        attempts: "Sequence[Attempt]",
        build: Callable[[], Any],
    ) -> CallEnded:
        last = attempts[-1] if attempts else None
        return CallEnded(
            how=how,
            provider=self.call.provider if last is None else last.provider,
            model=self.call.model if last is None else last.model,
            seconds=monotonic() - self.began,
            usage=usage,
            error=error,
            timings=timings,
            attempts=attempts,
            build=build,
        )

    def _tell(self, moment: str, *what: Any) -> None:
        for hook in self.hooks:
            method = getattr(hook, moment, None)
            if method is None:
                continue
            try:
                result = method(*what)
            except Exception:  # noqa: BLE001  a hook's failure is not the call's
                _report(hook, moment)
                continue
            if isawaitable(result):
                self._pending.append(_contained(result, hook, moment))
        if self._blocking:
            while self._pending:
                _wait(self._pending.popleft())

    def tell_elsewhere(self, end: CallEnded | None = None) -> None:
        """Tells the end where nothing can be awaited: coroutines run in the event loop of the call."""
        if end is not None:
            self._tell("ended", self.call, end)
        while self._pending:
            _send_home(self._home, self._pending.popleft())


_untold: deque[tuple[Observation, CallEnded]] = deque()
"""Ends that came where no hook could be called: the garbage collector comes under any lock, also under a hook's own."""


def _tell_all() -> None:
    while _untold:
        observation, end = _untold.popleft()
        observation.tell_elsewhere(end)


def _elsewhere() -> None:
    # Its own thread, for the one that keeps the clocks must not wait for a hook.
    threading.Thread(target=_tell_all, name="penstock-hooks").start()


atexit.register(_tell_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_untold.clear)


async def _contained(result: Any, hook: Any, moment: str) -> None:
    try:
        await result
    except Exception:  # noqa: BLE001  a hook's failure is not the call's
        _report(hook, moment)


def _report(hook: Any, moment: str) -> None:
    import logging

    logging.getLogger("penstock").error("%s of the hook %r failed", moment, hook, exc_info=True)  # noqa: LOG014


def _wait(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a hook that is a coroutine for a blocking call, which has no event loop for it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
    else:
        thread = threading.Thread(target=asyncio.run, args=(coroutine,), name="penstock-hooks")
        thread.start()
        thread.join()


def _home() -> Any:
    """The event loop that runs this: of asyncio, or trio's token."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules["trio"]
        return trio.lowlevel.current_trio_token()


def _send_home(home: Any, coroutine: Coroutine[Any, Any, None]) -> None:
    """Has the call's own event loop run this; one of its own where that has ended."""
    if hasattr(home, "create_task") and home.is_running():
        asyncio.run_coroutine_threadsafe(coroutine, home)
        return
    if hasattr(home, "run_sync_soon"):
        trio = sys.modules["trio"]

        async def run() -> None:
            await coroutine

        try:
            home.run_sync_soon(trio.lowlevel.spawn_system_task, run)
        except trio.RunFinishedError:
            pass
        else:
            return
    _wait(coroutine)
