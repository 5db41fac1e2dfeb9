"""Invocations: what other servers send, cut anywhere into the messages of an event stream."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from ..family import Asked, Case, Json, Problem, RefusedError, dump
from . import chat, converse, text


def _part(payload: bytes) -> bytes:
    headers = {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
    return converse.message(headers, payload)


class Hosted(NamedTuple):
    """The case of another family, each of its events in two parts."""

    case: Case

    @property
    def about(self) -> str:
        """One line; see `Case`."""
        return f"in parts: {self.case.about}"

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:
        """The stream; see `Case`."""
        frames = self.case.frames(asked=asked, usage=usage, done=done)
        # Cut where no mark is that others look for: within `data: `.
        return [_part(frame[:4]) + _part(frame[4:]) for frame in frames]

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        return self.case.single(usage=usage)


CASES: dict[str, Case] = {
    **{name: Hosted(chat.CASES[name]) for name in ("hello", "reasoning", "parallel-tools")},
    **{name: Hosted(text.CASES[name]) for name in ("tokens", "lines")},
}


# ---- the family's row

PATH = re.compile(r".*/endpoints/(.+)/invocations(-response-stream)?")


def _read(path: str, body: Json) -> Asked:
    found = PATH.fullmatch(path)
    if found is None:
        raise RefusedError(Problem(404, "ValidationError", None, "No such operation."))
    if not (body.get("messages") or body.get("inputs")):
        message = 'Received client error (422) from primary with message "missing field `inputs`".'
        raise RefusedError(Problem(424, "ModelError", None, message))
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return Asked(unquote(found[1]), found[2] is not None, usage)


def _frame(data: bytes, name: str) -> bytes:
    """An error that the stream ends with; there are no other frames to make from bare data."""
    del name
    headers = {":exception-type": "InternalStreamFailure", ":content-type": "application/json"}
    return converse.message({**headers, ":message-type": "exception"}, data)


FAMILY = converse.FAMILY._replace(
    name="invocations",
    paths=("/invocations", "/invocations-response-stream"),
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=_frame,
    text=lambda text: _part(chat.FAMILY.text(text)),
    problem=lambda problem: dump({"Message": problem.message}),
    finish=chat.FAMILY.finish,
)
