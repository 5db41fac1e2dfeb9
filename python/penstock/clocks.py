"""The clocks of a call: how long each kind of silence may last, and the thread that ends it.

HTTP libraries time single reads. A caller wants more: that the first token comes in time though keep-alives trickle
in, that the whole call ends in time. Both worlds, blocking and asynchronous, get this from one daemon thread that
shuts the connection down when a clock has run out: the reader wakes up, and says which clock it was. A stream pays
one clock reading per read for it, no task and no timer.
"""

import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from .errors import BadRequestError, Timeout

if TYPE_CHECKING:
    from typing import Protocol

    class Line(Protocol):
        """Whatever has a descriptor: sockets of the standard library, asyncio, uvloop and trio."""

        def fileno(self) -> int:
            """The descriptor."""


NEVER = float("inf")
CONNECT = 5.0

TICK = 1.0
"""Seconds between two looks of the watchdog while there is something to watch. It looks earlier when a clock is due."""


MISSED = {
    "connect": "no connection",
    "first_token": "no first token",
    "idle": "no bytes",
    "total": "not complete",
}
"""What was not there when a clock ran out."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None switches a clock off.

    connect: until the connection stands, for each attempt.
    first_token: from the request to the first content, reasoning or tool delta, for each attempt.
    idle: between two reads of the response; any bytes count, keep-alives too.
    total: the whole call, with its retries and fallbacks.
    """

    connect: float | None = CONNECT
    first_token: float | None = 600.0
    idle: float | None = 600.0
    total: float | None = None

    def __post_init__(self) -> None:
        for clock in self.__slots__:
            seconds = getattr(self, clock)
            if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
                raise BadRequestError(
                    f"timeout: {clock} must be seconds above 0 or None, not {seconds!r}", param="timeout"
                )

    @classmethod
    def of(cls, timeout: Any, *, stream: bool) -> "Timeouts":
        """What the `timeout` argument of a call means: None, a number, Timeouts, or an httpx.Timeout.

        A number is the limit for the first token and for each silence; without streaming it is the limit for all.
        """
        if timeout is None:
            return UNTOLD
        if isinstance(timeout, cls):
            return timeout
        if isinstance(timeout, int | float) and not isinstance(timeout, bool):
            connect = min(CONNECT, timeout)
            if stream:
                return cls(connect=connect, first_token=timeout, idle=timeout)
            return cls(connect=connect, first_token=None, idle=None, total=timeout)
        if hasattr(timeout, "read") and hasattr(timeout, "connect"):
            return cls(connect=timeout.connect, first_token=timeout.read, idle=timeout.read)
        raise BadRequestError(f"timeout must be a number of seconds or Timeouts, not {timeout!r}", param="timeout")


UNTOLD = Timeouts()
"""Those of a call that says nothing of time."""


class Watch:
    """The due times of one attempt.

    `seen` is when the last bytes came: whoever reads sets it. `fired` names the clock that ended the attempt.
    """

    __slots__ = (
        "_line",
        "_process",
        "began",
        "fired",
        "first_due",
        "limits",
        "seen",
        "started",
        "timeouts",
        "total_due",
    )

    def __init__(self, timeouts: Timeouts, started: float) -> None:
        """`started` is when the call began (monotonic seconds), which for a retry is before now."""
        self.timeouts = timeouts
        self.started = started
        self.began = monotonic()
        self.seen = NEVER  # no silence before the first word
        self.first_due = self.began + timeouts.first_token if timeouts.first_token is not None else NEVER
        self.total_due = started + timeouts.total if timeouts.total is not None else NEVER
        self.fired: str | None = None
        self._line: Line | None = None
        self._process = os.getpid()
        self.limits = self._limits()

    def _limits(self) -> "dict[str, float | None]":
        """Seconds for the HTTP library until the response headers are there: the part where it keeps the time."""
        left = min(self.first_due, self.total_due) - monotonic()
        wait = None if left == NEVER else max(left, 0.001)
        connect = self.timeouts.connect
        if connect is not None and wait is not None:
            connect = min(connect, wait)
        return {"connect": connect, "read": wait, "write": wait, "pool": None}

    def again(self) -> None:
        """Another request of the same attempt: what was asked for is in its answer."""
        self.seen = NEVER
        self.limits = self._limits()

    def due(self) -> "tuple[float, str]":
        """When the next clock runs out if nothing happens (monotonic seconds), and its name."""
        idle = self.timeouts.idle
        return min(
            (self.seen + idle if idle is not None else NEVER, "idle"),
            (self.first_due, "first_token"),
            (self.total_due, "total"),
        )

    def headers(self, line: "Line | None", *, stream: bool) -> None:
        """The response has begun. From here on the watchdog keeps the time, if there is a connection to shut down."""
        self.seen = monotonic()
        if not stream:
            self.first_due = NEVER  # one body: there is no first token to wait for
        # httpx looks at this dict again when it starts to read the body. Without a limit its reads are cheaper: no
        # poll() before each recv(), no timer per read.
        self.limits["read"] = self.timeouts.idle if line is None else None
        self._line = line
        self._keep()

    def _keep(self, *, prompt: bool = True) -> None:
        """Has the due times kept: by the connection where it can do that itself, else by the watchdog."""
        line: Any = self._line
        if hasattr(line, "keep_time"):
            due = min(self.first_due, self.total_due)
            line.keep_time(self.timeouts.idle, None if due == NEVER else due - monotonic())
        elif line is not None and self.due()[0] != NEVER:
            _watchdog.add(self, prompt=prompt)

    @property
    def armed(self) -> bool:
        """Whether the connection can be shut down from here."""
        return self._line is not None

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child, and the connection its parent's."""
        return self._process != os.getpid()

    def token(self) -> None:
        """The first token has come."""
        if self.first_due != NEVER:
            self.first_due = NEVER
            if hasattr(self._line, "keep_time"):
                self._keep()

    def check(self) -> None:
        """Raises Timeout if a clock has run out: the watchdog's word, or one's own look where it cannot act."""
        if self.fired is None and not self.armed:
            at, clock = self.due()
            if at <= monotonic():
                self.fired = clock
        if self.fired is not None:
            raise self.timeout(self.fired)

    def shorten(self, seconds: float, *, prompt: bool = True) -> None:
        """All must be over in so many seconds; without `prompt` in a TICK more, which saves waking the watchdog."""
        self.total_due = min(self.total_due, monotonic() + seconds)
        self._keep(prompt=prompt)

    def shut(self) -> None:
        """Ends the connection: whoever reads from it finds its end. From any thread, any number of times."""
        line = self._line
        if line is None or self.inherited:
            return
        if hasattr(line, "shut"):
            line.shut()
            return
        try:
            # On a duplicate of the descriptor: SSLSocket.shutdown() would take the TLS away under the reader, and
            # uvloop's sockets have no shutdown(). Both descriptors are the same connection to the system.
            twin = socket.fromfd(line.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        except (OSError, ValueError):
            return  # closed meanwhile
        try:
            twin.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            twin.close()

    def stop(self) -> None:
        """The body is at its end or given up: from here on the connection is nobody's, or another request's."""
        if not hasattr(self._line, "keep_time"):
            _watchdog.discard(self)
        self._line = None

    def timeout(self, clock: str | None = None) -> Timeout:
        """The error for a clock that ran out: without a name, the one that is nearest."""
        clock = clock or self.fired or self.due()[1]
        seconds = getattr(self.timeouts, clock)
        after = f" after {seconds:g} s" if seconds is not None else ""
        return Timeout(f"{MISSED[clock]}{after} (timeout: {clock})", code=clock)


class Watchdog:
    """One daemon thread, started when the first clock is armed, asleep while there is none.

    When the interpreter ends, the thread stops wherever it is, with the lock or without: from then on nobody waits for
    it, for streams are dropped until the very last moment.
    """

    def __init__(self) -> None:
        self._forgotten: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        # Reentrant: the garbage collector may drop a stream, which calls discard(), in a thread that is in here.
        self._changed = threading.Condition(threading.RLock())
        self._chores: deque[Callable[[], object]] = deque()
        self._watches: set[Watch] = set()
        self._wakes = NEVER
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """In a forked child: the thread is not there, and the lock may be held for ever. Both are set aside."""
        self._forgotten.append((self._changed, self._chores, self._watches, self._thread))
        self._begin()

    def add(self, watch: Watch, *, prompt: bool = True) -> None:
        """Watches over an attempt from now on; not `prompt`: to the next TICK nobody needs to wake up for it."""
        if sys.is_finalizing():
            return
        with self._changed:
            self._watches.add(watch)
            if not self._awake() and watch.due()[0] < self._wakes and (prompt or self._wakes == NEVER):
                self._changed.notify()

    def later(self, chore: Callable[[], object]) -> None:
        """Has the thread do something soon."""
        if sys.is_finalizing():
            return
        self._chores.append(chore)
        with self._changed:
            if not self._awake():
                self._changed.notify()

    def _awake(self) -> bool:
        """Starts the thread if there is none: one that has just begun needs no waking."""
        if self._thread is not None:
            return False
        self._thread = threading.Thread(target=self._run, name="penstock-clocks", daemon=True)
        self._thread.start()
        return True

    def discard(self, watch: Watch) -> None:
        """Watches no longer over it; when this returns, its connection will not be shut down."""
        if sys.is_finalizing():
            return
        with self._changed:
            self._watches.discard(watch)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = monotonic()
                self._wakes = now + TICK if self._watches else NEVER
                for watch in list(self._watches):
                    at, clock = watch.due()
                    if at <= now:
                        watch.fired = clock
                        self._watches.discard(watch)
                        # Under the lock: after stop() the connection may be another request's.
                        watch.shut()
                    else:
                        self._wakes = min(self._wakes, at)
                if not self._chores:
                    self._changed.wait(None if self._wakes == NEVER else self._wakes - now)
            while self._chores:
                with suppress(Exception):  # nobody is left to hear of it
                    self._chores.popleft()()


_watchdog = Watchdog()


def later(chore: Callable[[], object]) -> None:
    """Has another thread do something soon, without an error: for places that must not wait for a lock."""
    _watchdog.later(chore)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watchdog.forget)
