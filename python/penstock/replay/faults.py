"""What can go wrong on purpose: the grammar that asks for it, and what it does to an answer.

A script is `key=value&key=value`, percent-encoded where a value needs it; a key without value is a switch, `-` in a
key reads as `_`. It follows `?` in the model's name or stands in the request header `x-replay`, which wins.
"""

# ruff: noqa: RUF009  `_key` and `_switch` are `field`, and Script is the table of keys
from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from .family import Family, Json, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Place(NamedTuple):
    """A point between two events: after so many of them, or so many after the start of the one that finishes."""

    finish: bool
    offset: int

    def after(self, frames: list[bytes], family: Family) -> int:
        """How many of the frames come before this place."""
        if self.finish:
            found = (at for at, frame in enumerate(frames) if family.finish.search(frame))
            return max(0, min(len(frames), next(found, len(frames)) + self.offset))
        return min(len(frames), self.offset) if self.offset >= 0 else max(0, len(frames) + self.offset)


def _place(text: str) -> Place:
    match = re.fullmatch(r"(finish)?([+-]?\d+)?", text)
    if not match or not text:
        raise ValueError("a number of events (negative: from the end), finish, finish+N or finish-N")
    return Place(bool(match[1]), int(match[2] or 0))


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([km]?)", text.lower())
    if not match:
        raise ValueError("a number of bytes, as 512, 64k or 2m")
    return int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2]]


def _cut(text: str) -> int | str:
    if text.partition(":")[0] == "random":
        return text
    size = _size(text)
    if not size:
        raise ValueError("a number of bytes above 0, or random:SEED")
    return size


def _milliseconds(text: str) -> float:
    return float(text) / 1000


def _status(text: str) -> int:
    status = int(text)
    if not 200 <= status <= 599:
        raise ValueError("a status from 200 to 599")
    return status


def _key(read: Callable[[str], Any], form: str, about: str, bare: str | None = None) -> Any:
    """A key of the grammar: how its value is read, how it looks in help, and what the key alone stands for."""
    return field(default=None, metadata={"read": read, "form": form, "about": about, "bare": bare})


def _switch(about: str) -> Any:
    return field(
        default=False,
        metadata={"read": lambda text: text not in ("0", "false"), "form": "", "about": about, "bare": "1"},
    )


@dataclass(frozen=True, slots=True)
class Script:
    """What a request wants to go wrong. The fields are the keys of the grammar, in the order in which they act."""

    tag: str | None = _key(str, "TEXT", "changes nothing; tells requests apart in the statistics and for fail")
    fail: int | None = _key(int, "N", "only the first N requests of this model and script go wrong (alone: status=500)")
    first_byte: float | None = _key(float, "SECONDS", "wait before the headers")
    redirect: str | None = _key(str, "URL", "307 to this address (or the status given)")
    rejects: str | None = _key(str, "FIELD", "400 (or 422) if the request has this field")
    status: int | None = _key(_status, "CODE", "answer with this status and an error body")
    code: str | None = _key(
        str, "NAME", "which error: " + "context_length_exceeded, content_filter, insufficient_quota, ..."
    )
    retry_after: str | None = _key(str, "TEXT", "the header of that name")
    retry_after_ms: str | None = _key(str, "TEXT", "the header of that name")
    should_retry: str | None = _key(str, "TEXT", "the header x-should-retry")
    html: bool = _switch("a proxy's HTML page instead of an answer")
    json: bool = _switch("ignore stream=true, answer with one JSON body")
    content_type: str | None = _key(str, "TEXT", "the header of that name")
    gzip: bool = _switch("compress the body, asked for or not")
    nousage: bool = _switch("leave usage out")
    nodone: bool = _switch("leave the terminal mark out")
    event_bytes: int | None = _key(_size, "BYTES", "a text event of this size, in second place")
    malformed: Place | None = _key(_place, "PLACE", "the event after this place lacks its last brace")
    error: Place | None = _key(_place, "PLACE", "an error as data instead of the rest (code=NAME says which)")
    error_event: Place | None = _key(_place, "PLACE", "the same as a named event `error`, nothing after it")
    endless: int | None = _key(_size, "BYTES", "an event that never ends: cut after so many bytes", bare="64m")
    silent: bool = _switch("headers, then nothing (stall=0)")
    stall: Place | None = _key(_place, "PLACE", "send nothing more, keep the connection open")
    cut: Place | None = _key(_place, "PLACE", "close the connection without ending the body")
    reset: Place | None = _key(_place, "PLACE", "reset the connection (RST)")
    cut_bytes: int | None = _key(_size, "BYTES", "close the connection after so many bytes of body")
    trim: int | None = _key(_size, "BYTES", "leave off the last bytes of the body, end it properly", bare="1")
    chunk: int | str | None = _key(
        _cut, "BYTES|random:SEED", "send the body in pieces of this size, not one for each event"
    )
    delay: float | None = _key(_milliseconds, "MS", "wait before each piece")
    keepalive: float | None = _key(_milliseconds, "MS", "a comment whenever so long nothing was sent")

    @classmethod
    def read(cls, *texts: str) -> Script:
        """The script that these texts spell; later ones win.

        Raises:
            ValueError: an unknown key, or a value that its key cannot have. The message says which.
        """
        found: dict[str, Any] = {}
        for pair in "&".join(texts).split("&"):
            if not pair.strip():
                continue
            name, equals, value = pair.strip().partition("=")
            name = name.strip().replace("-", "_")
            if name not in KEYS:
                raise ValueError(f"unknown key {name!r}; known: {', '.join(KEYS)}")
            key = KEYS[name]
            text = unquote(value.strip()) if equals else key["bare"]
            if text is None:
                raise ValueError(f"{name} needs a value: {name}={key['form']}")
            try:
                found[name] = key["read"](text)
            except ValueError as error:
                raise ValueError(f"{name}={text}: {error}") from None
        return cls(**found)


KEYS: dict[str, Any] = {key.name: key.metadata for key in fields(Script)}

HEADERS = {"retry_after": "retry-after", "retry_after_ms": "retry-after-ms", "should_retry": "x-should-retry"}

_INVALID = "invalid_request_error"

# The first row of a status is the one that status=CODE means.
PROBLEMS = (
    Problem(
        400, _INVALID, "invalid_value", "Invalid value for 'temperature': expected a number from 0 to 2.", "temperature"
    ),
    Problem(
        400,
        _INVALID,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 131204 tokens. "
        "Please reduce the length of the messages.",
        "messages",
    ),
    Problem(
        400,
        _INVALID,
        "content_filter",
        "The response was filtered due to the prompt triggering the content management policy. "
        "Please modify your prompt and retry.",
        "prompt",
    ),
    Problem(
        400,
        _INVALID,
        "unsupported_parameter",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens",
    ),
    Problem(401, _INVALID, "invalid_api_key", "Incorrect API key provided: sk-re******lay."),
    Problem(402, "insufficient_balance", "payment_required", "Insufficient credits. Add more to continue."),
    Problem(403, "permission_error", "permission_denied", "You are not allowed to use this model in your region."),
    Problem(404, _INVALID, "model_not_found", "The model does not exist or you do not have access to it.", "model"),
    Problem(408, "timeout", "request_timeout", "The request took too long."),
    Problem(409, _INVALID, "conflict", "Another request is changing the same resource."),
    Problem(413, _INVALID, "payload_too_large", "Request entity too large."),
    Problem(422, _INVALID, "unprocessable_entity", "Extra inputs are not permitted."),
    Problem(429, "requests", "rate_limit_exceeded", "Rate limit reached for requests per minute: limit 3, used 3."),
    Problem(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Problem(500, "server_error", None, "The server had an error while processing your request. Sorry about that!"),
    Problem(500, "server_error", "server_error", "The server had an error while generating the response."),
    Problem(502, "server_error", "bad_gateway", "The upstream server could not be reached."),
    Problem(503, "server_error", "overloaded", "The engine is currently overloaded, please try again later."),
    Problem(504, "server_error", "gateway_timeout", "The upstream server did not answer in time."),
    Problem(529, "overloaded_error", "overloaded", "Overloaded."),
)


def problem(status: int | None, code: str | None) -> Problem:
    """The error that `status=` and `code=` ask for; a pair that is not in the table is made up from them."""
    for row in PROBLEMS:
        if (status is None or row.status == status) and (code is None or row.code == code):
            return row
    status = status or 400
    return Problem(status, _INVALID if status < 500 else "server_error", code, f"Status {status}, as asked for.")


PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign in to continue</title></head>
<body><h1>Sign in to continue</h1><p>This network requires authentication.</p></body></html>
"""


def refusal(script: Script, request: Json) -> Problem | None:
    """The error to answer with instead of a completion, if the script wants one."""
    if script.rejects is not None:
        message = f"Unrecognized request argument supplied: {script.rejects}"
        refused = Problem(script.status or 400, _INVALID, None, message, script.rejects)
        return refused if script.rejects in request else None
    in_stream = script.error is not None or script.error_event is not None
    if (script.status or 0) >= 400 or (script.code is not None and not in_stream):
        return problem(script.status, script.code)
    return None


class Body(NamedTuple):
    """What is to be sent, and how it ends: "end" properly, "stall", "cut" or "reset"."""

    frames: Iterable[bytes]
    ending: str = "end"


def spoil(frames: list[bytes], script: Script, family: Family) -> list[bytes]:
    """The events of a stream with those that the script adds or puts in place of others."""
    if script.event_bytes is not None:
        frames.insert(1, family.text("x" * script.event_bytes))
    if place := script.error or script.error_event:
        failure = family.problem(problem(None, script.code or "server_error"))
        at = place.after(frames, family)
        if script.error_event:
            frames[at:] = [family.frame(failure, "error")]
        else:
            frames[at:] = [family.frame(failure, "")] + [family.done] * (not script.nodone)
    if script.endless is not None:
        start, repeated = family.endless
        block = repeated * (65536 // len(repeated))
        frames = [start, *[block] * (script.endless // len(block) + 1)]
    return frames


def end(frames: list[bytes], script: Script, family: Family) -> Body:
    """The body, streamed or not, and the end that the script has for it."""
    if script.malformed and (at := script.malformed.after(frames, family)) < len(frames):
        head, brace, tail = frames[at].rpartition(b"}")
        frames[at] = head + tail if brace else b"\x00" + tail
    if script.trim is not None:
        return Body(list(_first(sum(map(len, frames)) - script.trim, frames)))
    if script.cut_bytes is not None:
        return Body(_first(script.cut_bytes, frames), "cut")
    if script.endless is not None:
        return Body(_first(script.endless, frames), "cut")
    if script.silent:
        return Body([], "stall")
    for ending in ("stall", "cut", "reset"):
        if place := getattr(script, ending):
            return Body(frames[: place.after(frames, family)], ending)
    return Body(frames)


def _first(count: int, frames: Iterable[bytes]) -> Iterator[bytes]:
    """The first `count` bytes of the frames."""
    for frame in frames:
        if count <= 0:
            return
        yield frame[:count]
        count -= len(frame)


def recut(frames: Iterable[bytes], size: int | str) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, or of 1 to 64 bytes as `random:SEED` has it, wherever events end."""
    dice = random.Random(size) if isinstance(size, str) else None  # noqa: S311  to be repeated, not to be secret
    held = bytearray()
    want = size if isinstance(size, int) else 0
    for frame in frames:
        held += frame
        while True:
            if dice and not want:
                want = dice.randint(1, 64)
            if len(held) < want:
                break
            yield bytes(held[:want])
            del held[:want]
            if dice:
                want = 0
    if held:
        yield bytes(held)
