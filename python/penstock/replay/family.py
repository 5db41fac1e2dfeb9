"""What a wire family is to the replay upstream: a row that says how to recognise a request and what to answer.

A family joins by a row in `penstock.replay.cases.FAMILIES`; nothing in the server names one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Json = dict[str, Any]


class Asked(NamedTuple):
    """What a request wants, in terms common to all families."""

    model: str
    """As sent, script and all: `case`, `family/case` or either followed by `?key=value&...`."""
    stream: bool
    usage: bool
    """Whether the caller asked for usage in the stream."""


class Problem(NamedTuple):
    """An error that a provider reports, before a family gives it its shape."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None


class RefusedError(Exception):
    """Raised by `Family.read` for a request that a real server would turn down; carries the Problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Case(Protocol):
    """One body the upstream can send."""

    @property
    def about(self) -> str:
        """One line: what is worth knowing about this body."""

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:
        """The events of the stream, each as the bytes that go on the wire.

        Args:
            asked: the caller asked for usage in the stream.
            usage: False leaves every usage out, asked for or not.
            done: False leaves the terminal mark out.
        """

    def single(self, *, usage: bool) -> bytes:
        """The same completion as the body of a request without streaming."""


class Family(NamedTuple):
    """A row: everything the server has to know about one wire format."""

    name: str
    paths: tuple[str, ...]
    """How the request's path ends, whatever the prefix."""
    content_type: str
    """Of its streams."""
    read: Callable[[str, Json], Asked]
    """(path, body) -> what is asked for; raises RefusedError."""
    find: Callable[[str], Case | None]
    """The case of this name, or None. A function, since some names carry a number."""
    cases: Mapping[str, Case]
    """The cases that have a fixed name, in the order in which they are listed."""
    frame: Callable[[bytes, str], bytes]
    """(data, event name or "") -> one event on the wire."""
    text: Callable[[str], bytes]
    """Text -> the event that carries it."""
    problem: Callable[[Problem], bytes]
    """An error -> its body, also as the data of an event."""
    done: bytes
    """The terminal mark on the wire, empty if the family has none."""
    keepalive: bytes
    """Bytes between two events that mean nothing."""
    endless: tuple[bytes, bytes]
    """How an event begins that never ends, and what repeats from there on."""
    finish: re.Pattern[bytes]
    """Matches the event that carries a finish reason."""
    announce: Callable[[str, str], bytes] | None = None
    """(base URL, model as asked) -> what a POST is answered with, where the stream is fetched from a URL in it."""


def dump(value: Any, *, ascii: bool = False) -> bytes:
    """Compact JSON; `ascii` escapes all other characters, as many servers do."""
    return json.dumps(value, ensure_ascii=ascii, separators=(",", ":")).encode()


def sse(data: bytes, event: str = "", newline: bytes = b"\n") -> bytes:
    """One server-sent event; `data` has no line ends."""
    name = b"event: " + event.encode() + newline if event else b""
    return name + b"data: " + data + newline + newline


# How a recorded body is cut into events, so that faults can count them. `.json` is one document.
_EVENTS = {
    ".sse": re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)|.+", re.DOTALL),
    ".ndjson": re.compile(rb"[^\n]*\n|[^\n]+"),
}


def _messages(body: bytes) -> Iterator[bytes]:
    """The messages of an event stream: each says how long it is. What says nothing sensible is one piece."""
    while body:
        length = int.from_bytes(body[:4])
        at = length if 16 <= length <= len(body) else len(body)
        yield body[:at]
        body = body[at:]


_CONTENT_TYPES = {
    ".sse": "text/event-stream; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".eventstream": "application/vnd.amazon.eventstream",
}


class Recorded:
    """A body from a file, sent byte for byte whatever the request says; the model's name is the file's, less suffix.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.about = f"recorded: {path.name}"
        self.content_type = _CONTENT_TYPES.get(path.suffix, "application/json")
        self.body = path.read_bytes()
        events = _EVENTS.get(path.suffix)
        self._frames = [match[0] for match in events.finditer(self.body)] if events else [self.body]
        if path.suffix == ".eventstream":
            self._frames = list(_messages(self.body))

    def frames(self, **_: bool) -> list[bytes]:
        """The body, cut where its events end."""
        return list(self._frames)

    def single(self, **_: bool) -> bytes:
        """The body."""
        return self.body
