"""Cohere: authored streams of its chat, version 2."""

from __future__ import annotations

import re
from typing import Any

from ..family import Asked, Family, Json, Problem, RefusedError, dump, sse
from .authored import Authored
from .chat import ANSWER, FORECAST, HELLO, THOUGHT

DONE = b"data: [DONE]\n\n"


def _event(type: str, index: int | None = None, **message: Any) -> Json:
    event: Json = {"type": type}
    if index is not None:
        event["index"] = index
    return {**event, "delta": {"message": message}} if message else event


def _usage(prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0) -> Json:
    """What is billed is far less than what the model reads."""
    return {
        "billed_units": {"input_tokens": prompt // 20 + 1, "output_tokens": completion},
        "tokens": {"input_tokens": prompt, "output_tokens": completion, "reasoning_tokens": reasoning},
        "cached_tokens": cached,
    }


def _frame(event: Json) -> bytes:
    return sse(dump(event), event["type"])


def _without_usage(event: Json) -> Json:
    if event.get("type") == "message-end":
        return {**event, "delta": {key: value for key, value in event["delta"].items() if key != "usage"}}
    return {key: value for key, value in event.items() if key != "usage"}


def _block(index: int, kind: str, text: str) -> list[Json]:
    pieces = re.findall(r"\s?\S{1,6}|\s", text)
    return [
        _event("content-start", index, content={"type": kind, kind: ""}),
        *(_event("content-delta", index, content={kind: piece}) for piece in pieces),
        _event("content-end", index),
    ]


def _call(index: int, id: str, name: str, *arguments: str) -> list[Json]:
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    return [
        _event("tool-call-start", index, tool_calls=call),
        *(_event("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}) for piece in arguments),
        _event("tool-call-end", index),
    ]


def _case(name: str, about: str, events: list[Json], message: Json, finish: str, usage: Json, **end: str) -> Authored:
    start: Json = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    head = {"id": f"replay-{name}"}
    last: Json = {"type": "message-end", "delta": {"finish_reason": finish, "usage": usage, **end}}
    response = {**head, "message": {"role": "assistant", **message}, "finish_reason": finish, "usage": usage, **end}
    return Authored(
        about, [{**head, **_event("message-start", **start)}, *events, last], response, _frame, _without_usage, DONE
    )


def _hello() -> Authored:
    message = {"content": [{"type": "text", "text": HELLO}]}
    usage = _usage(507, 87, cached=448)
    return _case("hello", "text in many scripts", _block(0, "text", HELLO), message, "COMPLETE", usage)


def _reasoning() -> Authored:
    events = _block(0, "thinking", THOUGHT) + _block(1, "text", ANSWER)
    message = {"content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": ANSWER}]}
    usage = _usage(1413, 67, cached=1344, reasoning=41)
    return _case("reasoning", "thinking before the answer", events, message, "COMPLETE", usage)


def _tools() -> Authored:
    plan = "I will look at the forecast."
    events = [_event("tool-plan-delta", tool_plan=piece) for piece in re.findall(r"\s?\S+", plan)]
    events += _call(0, "get_forecast_r1", "get_forecast", *re.findall(r".{1,5}", FORECAST))
    events += _call(1, "get_time_r2", "get_time")
    calls = [
        {"id": "get_forecast_r1", "type": "function", "function": {"name": "get_forecast", "arguments": FORECAST}},
        {"id": "get_time_r2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
    ]
    about = "a plan, a call in pieces, and one without any arguments"
    return _case("tools", about, events, {"tool_plan": plan, "tool_calls": calls}, "TOOL_CALL", _usage(1549, 95))


def _citations() -> Authored:
    source = {"type": "document", "id": "doc:0", "document": {"url": "https://example.org/höhe", "title": "Höhe"}}
    citation = {"start": 0, "end": 10, "text": ANSWER[:10], "sources": [source], "type": "TEXT_CONTENT"}
    events = [*_block(0, "text", ANSWER), _event("citation-start", 0, citations=citation), _event("citation-end", 0)]
    message = {"content": [{"type": "text", "text": ANSWER}], "citations": [citation]}
    return _case("citations", "a citation after the text", events, message, "COMPLETE", _usage(508, 86))


def _failed() -> Authored:
    about = "text, then an error in the last event of a 200"
    end = {"error": "invalid tool generation", "error_type": "INVALID_TOOL_GENERATION"}
    return _case("failed", about, _block(0, "text", ANSWER), {"content": []}, "ERROR", {}, **end)


CASES = {
    "hello": _hello(),
    "reasoning": _reasoning(),
    "tools": _tools(),
    "citations": _citations(),
    "failed": _failed(),
}


def _read(_path: str, body: Json) -> Asked:
    if not body.get("messages"):
        raise RefusedError(Problem(400, "invalid_request", None, "messages must be a non-empty list"))
    return Asked(body.get("model") or "hello", bool(body.get("stream")), usage=True)


def _problem(problem: Problem) -> bytes:
    return dump({"id": "replay", "message": problem.message})


FAMILY = Family(
    name="cohere",
    paths=("/v2/chat",),
    content_type="text/event-stream",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=sse,
    text=lambda text: _frame(_event("content-delta", 0, content={"text": text})),
    problem=_problem,
    done=DONE,
    keepalive=b": keep-alive\n\n",
    endless=(b'data: {"type":"content-delta","delta":{"message":{"content":{"text":"', b"water \xe6\xb0\xb4 "),
    finish=re.compile(rb'"finish_reason": ?"'),
)
