"""Invoke: the answers of the families it carries, their events wrapped as the service wraps them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from ..family import Asked, Case, Json, Problem, RefusedError, dump
from . import anthropic, converse
from .chat import ANSWER, HELLO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _wrapped(document: bytes) -> bytes:
    """A document in an event, beside filler of a length of its own."""
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    filler = converse.PADDING[: 1 + zlib.crc32(document) % len(converse.PADDING)]
    return converse.message(headers, dump({"bytes": base64.b64encode(document).decode(), "p": filler}))


def _measured(document: bytes, prompt: int, completion: int) -> bytes:
    """The last document of a stream, with what the service itself counted."""
    metrics = {"inputTokenCount": prompt, "outputTokenCount": completion, "invocationLatency": 912}
    return dump({**json.loads(document), "amazon-bedrock-invocationMetrics": metrics})


class Carried(NamedTuple):
    """The case of another family."""

    about: str
    case: Case
    documents: Callable[[list[bytes]], list[bytes]]
    """The frames of its stream -> the documents in them."""

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:
        """The stream; see `Case`."""
        documents = self.documents(self.case.frames(asked=asked, usage=usage, done=done))
        if usage:
            documents[-1] = _measured(documents[-1], 19, 80)
        return [_wrapped(document) for document in documents]

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        return self.case.single(usage=usage)


class Generation(NamedTuple):
    """A bare text whose counts grow with every piece."""

    about: str
    text: str

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:  # noqa: ARG002  nobody has to ask
        """The stream; see `Case`."""
        pieces = [*re.findall(r"\s?\S{1,6}|\s", self.text), ""]
        documents = []
        for count, piece in enumerate(pieces, 1):
            stop = "stop" if count == len(pieces) else None
            counts = {"prompt_token_count": 19 if count == 1 else None, "generation_token_count": count}
            documents.append(dump({"generation": piece, **(counts if usage else {}), "stop_reason": stop}))
        return [_wrapped(document) for document in documents]

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        count = len(re.findall(r"\s?\S{1,6}|\s", self.text)) + 1
        counts = {"prompt_token_count": 19, "generation_token_count": count} if usage else {}
        return dump({"generation": self.text, **counts, "stop_reason": "stop"})


def _of_events(frames: list[bytes]) -> list[bytes]:
    return [frame.partition(b"data: ")[2].strip() for frame in frames]


def _of_messages(frames: list[bytes]) -> list[bytes]:
    """Events of an event stream, their names before them, each delta of a text in a block of its own."""
    documents = []
    for index, frame in enumerate(frames):
        headers = int.from_bytes(frame[4:8])
        found = re.search(rb":event-type\x07..(\w+)", frame[12 : 12 + headers], re.DOTALL)
        payload: Json = json.loads(frame[12 + headers : -4])
        payload.pop("p")
        if "contentBlockIndex" in payload:
            payload["contentBlockIndex"] = index
        documents.append(dump({(found[1] if found else b"").decode(): payload}))
    return documents


CASES: dict[str, Case] = {
    **{
        name: Carried(f"Messages events: {anthropic.CASES[name].about}", anthropic.CASES[name], _of_events)
        for name in ("hello", "thinking", "tools", "cut-short")
    },
    "converse-shaped": Carried(
        "Converse's events as documents, the index of the block another with every delta",
        converse.Converse("", [{"text": ANSWER}], {"inputTokens": 11, "outputTokens": 26}),
        _of_messages,
    ),
    "generation": Generation("a bare text, its counts with every piece", HELLO),
}


# ---- the family's row

PATH = re.compile(r".*/model/([^/]+)/invoke(-with-response-stream)?")


def _read(path: str, body: Json) -> Asked:
    found = PATH.fullmatch(path)
    if found is None:
        raise RefusedError(Problem(404, "UnknownOperationException", None, "No such operation."))
    if not (body.get("messages") or body.get("prompt") or body.get("inputText")):
        message = "Malformed input request: #: required key [messages] not found, please reformat your input."
        raise RefusedError(Problem(400, "ValidationException", None, message))
    return Asked(unquote(found[1]), found[2] is not None, usage=True)


def _text(text: str) -> bytes:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return _wrapped(dump(delta))


def _in_base64(*marks: bytes) -> Iterator[bytes]:
    """How these bytes look in base64, at each of the three places where they may begin."""
    for mark in marks:
        for before in range(3):
            text = base64.b64encode(b"_" * before + mark)
            yield text[-(-8 * before // 6) : 8 * (before + len(mark)) // 6]


FAMILY = converse.FAMILY._replace(
    name="invoke",
    paths=("/invoke", "/invoke-with-response-stream"),
    read=_read,
    find=CASES.get,
    cases=CASES,
    text=_text,
    finish=re.compile(b"|".join(map(re.escape, _in_base64(b'"stop_reason":"', b'"stopReason":"')))),
)
