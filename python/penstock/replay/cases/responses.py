"""Responses: authored answers as output items, streamed as the service streams them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..family import Asked, Family, Json, Problem, RefusedError, dump, sse
from .chat import ANSWER, FORECAST, HELLO, THOUGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

USAGE: Json = {
    "input_tokens": 19,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 106,
}


class Response(NamedTuple):
    """A response, whole; the stream is made of it."""

    about: str
    items: list[Json]
    usage: Json = USAGE
    incomplete: str | None = None
    """Why it is, if it is."""

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:  # noqa: ARG002  unasked too
        """The stream; see `Case`. Its last event is the terminal one."""
        events = list(self._events(usage=usage))
        events = events if done else events[:-1]
        return [_event({**event, "sequence_number": number}) for number, event in enumerate(events)]

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        return dump(self._whole(usage=usage))

    def _begun(self) -> Json:
        return {
            "id": "resp_replay",
            "object": "response",
            "created_at": 1763800000,
            "status": "in_progress",
            "model": "replay-responses-2025-11-22",
            "output": [],
            "usage": None,
        }

    def _whole(self, *, usage: bool) -> Json:
        reason = {"incomplete_details": {"reason": self.incomplete}} if self.incomplete else {}
        status = "incomplete" if self.incomplete else "completed"
        return self._begun() | {
            "status": status,
            "output": self.items,
            "usage": self.usage if usage else None,
            **reason,
        }

    def _events(self, *, usage: bool) -> Iterator[Json]:
        for kind in ("created", "in_progress"):
            yield {"type": f"response.{kind}", "response": self._begun()}
        for index, item in enumerate(self.items):
            yield {"type": "response.output_item.added", "output_index": index, "item": _empty(item)}
            for event in _item(item):
                yield {"item_id": item["id"], "output_index": index, **event}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        whole = self._whole(usage=usage)
        yield {"type": f"response.{whole['status']}", "response": whole}


def _empty(item: Json) -> Json:
    """An item as it begins."""
    nothing: Json = {"content": [], "summary": [], "arguments": ""}
    return {name: nothing.get(name, value) for name, value in item.items() if name != "encrypted_content"}


def _item(item: Json) -> Iterator[Json]:
    """The events between an item's first and its last."""
    for place, part in enumerate(item.get("summary", ())):
        yield from _streamed("response.reasoning_summary_text", part["text"], "text", summary_index=place)
    for place, part in enumerate(item.get("content", ())):
        if part["type"] == "refusal":
            yield from _streamed("response.refusal", part["refusal"], "refusal", content_index=place)
            continue
        extra = {"content_index": place, "logprobs": []}
        yield from _streamed("response.output_text", part["text"], "text", **extra)
        for annotation in part["annotations"]:
            yield {"type": "response.output_text.annotation.added", "content_index": place, "annotation": annotation}
    if item["type"] == "function_call":
        yield from _streamed("response.function_call_arguments", item["arguments"], "arguments")


def _streamed(kind: str, text: str, name: str, **fields: Any) -> Iterator[Json]:
    """Pieces of a text, with filler that hides their length, and the text as a whole."""
    for piece in re.findall(r"\s?\S{1,6}|\s", text):
        yield {"type": f"{kind}.delta", **fields, "delta": piece, "obfuscation": "x" * (16 - len(piece))}
    yield {"type": f"{kind}.done", **fields, name: text}


def _event(event: Json) -> bytes:
    return sse(dump(event), event["type"])


def _message(text: str, *annotations: Json) -> Json:
    part = {"type": "output_text", "text": text, "annotations": list(annotations)}
    return {"type": "message", "id": "msg_replay", "role": "assistant", "status": "completed", "content": [part]}


def _call(place: int, name: str, arguments: str) -> Json:
    return {
        "type": "function_call",
        "id": f"fc_{place}",
        "call_id": f"call_{place}",
        "name": name,
        "arguments": arguments,
    }


REASONING: Json = {
    "type": "reasoning",
    "id": "rs_replay",
    "summary": [{"type": "summary_text", "text": part} for part in THOUGHT.split(". ")],
    "encrypted_content": "UmVwbGF5IHJlYXNvbmluZyDinJM=",
}
CITATION: Json = {
    "type": "url_citation",
    "url": "https://example.org/höhe",
    "title": "Höhe",
    "start_index": 0,
    "end_index": 4,
}
REFUSAL: Json = {"type": "refusal", "refusal": "I can't help with that."}

CASES: dict[str, Response] = {
    "hello": Response("text in many scripts; usage unasked", [_message(HELLO)]),
    "reasoning": Response(
        "summaries of reasoning in parts, and the reasoning encrypted",
        [REASONING, _message(ANSWER)],
        USAGE | {"output_tokens_details": {"reasoning_tokens": 41}},
    ),
    "tools": Response("two calls at once", [_call(1, "forecast", FORECAST), _call(2, "now", "{}")]),
    "server-tools": Response(
        "a search on the server, then cited text",
        [
            {
                "type": "web_search_call",
                "id": "ws_replay",
                "status": "completed",
                "action": {"type": "search", "query": "Bieudron head"},
            },
            _message(ANSWER, CITATION),
        ],
    ),
    "refusal": Response("a refusal instead of text", [{**_message(""), "content": [REFUSAL]}]),
    "cut-short": Response("ended by max_output_tokens", [_message(ANSWER)], incomplete="max_output_tokens"),
}


def _read(_path: str, body: Json) -> Asked:
    if not body.get("input"):
        raise RefusedError(Problem(400, "invalid_request_error", None, "Missing required parameter: 'input'.", "input"))
    return Asked(body.get("model") or "hello", bool(body.get("stream")), True)


def _problem(problem: Problem) -> bytes:
    error = {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}
    return dump({"type": "error", "error": error})


FAMILY = Family(
    name="responses",
    paths=("/responses",),
    content_type="text/event-stream; charset=utf-8",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=sse,
    text=lambda text: _event({"type": "response.output_text.delta", "output_index": 0, "delta": text}),
    problem=_problem,
    done=b"",
    keepalive=_event({"type": "keepalive"}),
    endless=(
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","output_index":0,"delta":"',
        b"water \xe6\xb0\xb4 ",
    ),
    finish=re.compile(rb"^event: response\.(?:completed|incomplete)"),
)
