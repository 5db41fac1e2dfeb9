"""Messages: authored answers as content blocks, streamed as the service streams them, padding and all."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..family import Asked, Family, Json, Problem, RefusedError, dump, sse
from .chat import ANSWER, FORECAST, HELLO, THOUGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = "UmVwbGF5IHNpZ25hdHVyZSDinJM="
STREAMED = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


class Message(NamedTuple):
    """An answer, whole; the stream is made of it."""

    about: str
    blocks: list[Json]
    stop_reason: str = "end_turn"
    begun: Json = {"input_tokens": 19, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 0}  # noqa: RUF012
    """The usage that message_start knows."""
    ended: Json = {"output_tokens": 87}  # noqa: RUF012
    """The usage of message_delta, which overwrites the other field by field."""

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:  # noqa: ARG002  unasked too
        """The stream; see `Case`."""
        events = list(self._events(usage=usage))
        return [_event(event, padding) for padding, event in enumerate(events if done else events[:-1])]

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        head = self._head() | {"content": self.blocks, "stop_reason": self.stop_reason}
        return dump(head | ({"usage": self.begun | self.ended} if usage else {}))

    def _head(self) -> Json:
        return {"id": "msg_replay", "type": "message", "role": "assistant", "model": "replay-messages-2025-11-22"}

    def _events(self, *, usage: bool) -> Iterator[Json]:
        head = self._head() | {"content": [], "stop_reason": None, "stop_sequence": None}
        begun, ended = [{"usage": known} if usage else {} for known in (self.begun | {"output_tokens": 1}, self.ended)]
        yield {"type": "message_start", "message": head | begun}
        for index, block in enumerate(self.blocks):
            yield from _block(index, block)
            if index == 0:
                yield {"type": "ping"}
        yield {"type": "message_delta", "delta": {"stop_reason": self.stop_reason, "stop_sequence": None}, **ended}
        yield {"type": "message_stop"}


def _block(index: int, block: Json) -> Iterator[Json]:
    """The events of one block."""

    def delta(kind: str, **fields: Any) -> Json:
        return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}

    deltas: list[Json] = []
    begun = dict(block)
    if block["type"] in STREAMED:
        kind, name = STREAMED[block["type"]]
        deltas += [delta("citations_delta", citation=citation) for citation in block.get("citations", ())]
        deltas += [delta(kind, **{name: piece}) for piece in _pieces(block[name])]
        begun = {"type": block["type"], name: ""}
        if "signature" in block:
            begun["signature"] = ""
            deltas.append(delta("signature_delta", signature=block["signature"]))
    elif "input" in block:
        begun["input"] = {}
        # The first piece is always empty.
        text = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
        deltas += [delta("input_json_delta", partial_json=piece) for piece in ["", *_pieces(text)]]
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    yield from deltas
    yield {"type": "content_block_stop", "index": index}


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s?\S{1,6}|\s", text)


def _event(event: Json, padding: int) -> bytes:
    """An event with the run of spaces that hides its length."""
    return sse(dump(event)[:-1] + b" " * (padding * 7 % 16) + b"}", event["type"])


def _call(id: str, name: str, given: Any) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


SEARCH: list[Json] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "沸点 3000 m"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {
                "type": "web_search_result",
                "url": "https://example.org/höhe",
                "title": "Höhe",
                "encrypted_content": "UmVwbGF5",
                "page_age": None,
            }
        ],
    },
]
CITATION = {
    "type": "web_search_result_location",
    "url": "https://example.org/höhe",
    "title": "Höhe",
    "cited_text": "90",
}

CASES: dict[str, Message] = {
    "hello": Message("text in many scripts; usage unasked", [{"type": "text", "text": HELLO}]),
    "thinking": Message(
        "thinking with a signature, thinking withheld, then text",
        [
            {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
            {"type": "redacted_thinking", "data": SIGNATURE},
            {"type": "text", "text": ANSWER},
        ],
        ended={"output_tokens": 67, "output_tokens_details": {"thinking_tokens": 41}},
    ),
    "tools": Message(
        "text, a call in pieces, and one without arguments",
        [
            {"type": "text", "text": "Let me look."},
            _call("toolu_1", "forecast", json.loads(FORECAST)),
            _call("toolu_2", "now", {}),
        ],
        "tool_use",
    ),
    "server-tools": Message(
        "a search on the server: its call, its result, cited text, and a prompt that grew with it",
        [*SEARCH, {"type": "text", "text": ANSWER, "citations": [CITATION]}],
        ended={"input_tokens": 2404, "cache_read_input_tokens": 0, "output_tokens": 52},
    ),
    "cut-short": Message("ended by max_tokens", [{"type": "text", "text": ANSWER}], "max_tokens"),
}


def _read(_path: str, body: Json) -> Asked:
    for name in ("messages", "max_tokens"):
        if not body.get(name):
            raise RefusedError(Problem(400, "invalid_request_error", None, f"{name}: Field required"))
    return Asked(body.get("model") or "hello", bool(body.get("stream")), True)


TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def _problem(problem: Problem) -> bytes:
    error = {"type": TYPES.get(problem.status, problem.type), "message": problem.message}
    return dump({"type": "error", "error": error, "request_id": "req_replay"})


FAMILY = Family(
    name="anthropic",
    paths=("/messages",),
    content_type="text/event-stream; charset=utf-8",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=sse,
    text=lambda text: _event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}, 0
    ),
    problem=_problem,
    done=b"",
    keepalive=_event({"type": "ping"}, 0),
    endless=(
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            b'"delta":{"type":"text_delta","text":"'
        ),
        b"water \xe6\xb0\xb4 ",
    ),
    finish=re.compile(rb'"stop_reason": ?"'),
)
