"""Converse: authored answers as content blocks, streamed as the service streams them and framed as it frames them."""

from __future__ import annotations

import json
import re
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from ..family import Asked, Family, Json, Problem, RefusedError, dump
from .chat import ANSWER, FORECAST, HELLO, THOUGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

PADDING = "abcdefghijklmnopqrstuvwxyz"
SIGNATURE = "UmVwbGF5IHNpZ25hdHVyZSDinJM="


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of application/vnd.amazon.eventstream."""
    block = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    start = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return start + struct.pack(">I", zlib.crc32(start))


def event(name: str, payload: Json) -> bytes:
    """One event. Every payload has filler of a length of its own."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    filler = PADDING[: 1 + zlib.crc32(dump(payload)) % len(PADDING)]
    return message(headers, dump({**payload, "p": filler}))


class Converse(NamedTuple):
    """A message of content blocks, and how it ended."""

    about: str
    content: list[Json]
    usage: Json
    stop: str = "end_turn"
    trace: Json | None = None

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:  # noqa: ARG002  nobody has to ask
        """The stream; see `Case`."""
        frames = [event("messageStart", {"role": "assistant"})]
        for index, block in enumerate(self.content):
            for name, payload in _streamed(block):
                frames.append(event(name, {"contentBlockIndex": index, **payload}))
            frames.append(event("contentBlockStop", {"contentBlockIndex": index}))
        frames.append(event("messageStop", {"stopReason": self.stop}))
        frames.append(event("metadata", self._metadata(usage=usage)))
        return frames

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        answer = {"output": {"message": {"role": "assistant", "content": self.content}}, "stopReason": self.stop}
        return dump({**answer, **self._metadata(usage=usage)})

    def _metadata(self, *, usage: bool) -> Json:
        known: Json = {"metrics": {"latencyMs": 753}}
        if usage:
            known["usage"] = self.usage
        if self.trace is not None:
            known["trace"] = self.trace
        return known


def _streamed(block: Json) -> Iterator[tuple[str, Json]]:
    """The events between which a block of this content comes, less its index. Text has no start."""

    def delta(**fields: object) -> tuple[str, Json]:
        return "contentBlockDelta", {"delta": fields}

    match block:
        case {"text": text}:
            yield from (delta(text=piece) for piece in _pieces(text))
        case {"reasoningContent": {"reasoningText": reasoning}}:
            yield from (delta(reasoningContent={"text": piece}) for piece in _pieces(reasoning["text"]))
            yield delta(reasoningContent={"signature": reasoning["signature"]})
        case {"reasoningContent": redacted}:
            yield delta(reasoningContent=redacted)
        case {"toolUse": use}:
            yield "contentBlockStart", {"start": {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}}
            text = dump(use["input"]).decode() if use["input"] else ""
            yield from (delta(toolUse={"input": piece}) for piece in re.findall(r".{1,5}", text) or [""])
        case {"citationsContent": cited}:
            yield from (delta(text=piece) for part in cited["content"] for piece in _pieces(part["text"]))
            yield from (delta(citation=citation) for citation in cited["citations"])


def _pieces(text: str) -> list[str]:
    """Text in the sizes in which models send it: up to seven characters, a space in front."""
    return re.findall(r"\s?\S{1,6}|\s", text)


def _usage(read: int, written: int, new: int, output: int) -> Json:
    """With both spellings of the cache's counts, which the input leaves out."""
    counts = {"inputTokens": new, "outputTokens": output, "totalTokens": read + written + new + output}
    cache = {"cacheReadInputTokens": read, "cacheWriteInputTokens": written}
    return {**counts, **cache, "cacheReadInputTokenCount": read, "cacheWriteInputTokenCount": written}


def _call(id: str, name: str, arguments: str) -> Json:
    return {"toolUse": {"toolUseId": id, "name": name, "input": json.loads(arguments)}}


CITATION = {
    "title": "Bieudron → Kraftwerk",
    "sourceContent": [{"text": "The head is 1 869 m."}],
    "location": {"web": {"url": "https://example.org/bieudron?q=höhe", "domain": "example.org"}},
}
GUARDRAIL: Json = {"guardrail": {"actionReason": "Guardrail masked.", "inputAssessment": {}}}

CASES: dict[str, Converse] = {
    "hello": Converse(
        "text in many scripts; a part of the prompt from the cache", [{"text": HELLO}], _usage(8, 0, 11, 87)
    ),
    "reasoning": Converse(
        "reasoning with its signature, a redacted block, then text",
        [
            {"reasoningContent": {"reasoningText": {"text": THOUGHT, "signature": SIGNATURE}}},
            {"reasoningContent": {"redactedContent": SIGNATURE}},
            {"text": ANSWER},
        ],
        _usage(0, 0, 86, 67),
    ),
    "parallel-tools": Converse(
        "text, a tool call in fragments, and one without arguments",
        [{"text": "Both: "}, _call("tooluse_A1", "get_forecast", FORECAST), _call("tooluse_B2", "get_time", "{}")],
        _usage(0, 64, 31, 52),
        stop="tool_use",
    ),
    "annotations": Converse(
        "a cited text",
        [{"citationsContent": {"content": [{"text": ANSWER}], "citations": [CITATION]}}],
        _usage(0, 0, 412, 19),
    ),
    "guardrail": Converse(
        "an answer that a guardrail masked, with its trace",
        [{"text": "The number is {PHONE}."}],
        _usage(0, 0, 9, 8),
        stop="guardrail_intervened",
        trace=GUARDRAIL,
    ),
}


# ---- the family's row

# A message says how long it is before it begins: this one says 2 GiB.
ENDLESS = struct.pack(">II", 2**31, 0)
PATH = re.compile(r".*/model/([^/]+)/converse(-stream)?")


def _read(path: str, body: Json) -> Asked:
    found = PATH.fullmatch(path)
    if found is None:
        raise RefusedError(Problem(404, "UnknownOperationException", None, "No such operation."))
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        message = "A conversation must start with a user message. Try again with one."
        raise RefusedError(Problem(400, "ValidationException", None, message))
    return Asked(unquote(found[1]), found[2] is not None, usage=True)


def _frame(data: bytes, name: str) -> bytes:
    """An error that the stream ends with; there are no other frames to make from bare data."""
    del name
    headers = {":exception-type": "internalServerException", ":content-type": "application/json"}
    return message({**headers, ":message-type": "exception"}, data)


FAMILY = Family(
    name="converse",
    paths=("/converse", "/converse-stream"),
    content_type="application/vnd.amazon.eventstream",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=_frame,
    text=lambda text: event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}),
    problem=lambda problem: dump({"message": problem.message}),
    done=b"",
    keepalive=message({}, b""),
    endless=(ENDLESS + struct.pack(">I", zlib.crc32(ENDLESS)), b"water "),
    finish=re.compile(rb'"stopReason": ?"'),
)
