"""Ollama: authored streams of its native chat, one document a line."""

from __future__ import annotations

import re
from typing import Any

from ..family import Asked, Family, Json, Problem, RefusedError, dump
from .authored import Authored
from .chat import ANSWER, HELLO, THOUGHT


def _line(event: Json) -> bytes:
    return dump(event) + b"\n"


def _message(name: str, **message: Any) -> Json:
    head = {"model": f"replay-{name}", "created_at": "2025-11-22T10:00:00.123456789Z"}
    return {**head, "message": {"role": "assistant", "content": "", **message}, "done": False}


def _usage(prompt: int | None, completion: int) -> Json:
    """Older servers leave the prompt's count out when all of it is in their cache."""
    counts = {} if prompt is None else {"prompt_eval_count": prompt}
    return {"total_duration": 1897385625, "load_duration": 1631208, **counts, "eval_count": completion}


def _without_usage(event: Json) -> Json:
    return {key: value for key, value in event.items() if not key.endswith(("_count", "_duration"))}


def _case(name: str, about: str, messages: list[Json], whole: Json, usage: Json, reason: str = "stop") -> Authored:
    end = {"done": True, "done_reason": reason, **usage}
    events = [*(_message(name, **message) for message in messages), {**_message(name), **end}]
    return Authored(about, events, {**_message(name, **whole), **end}, _line, _without_usage)


def _pieces(field: str, text: str) -> list[Json]:
    return [{field: piece} for piece in re.findall(r"\s?\S{1,6}|\s", text)]


def _tools() -> Authored:
    calls = [
        {"function": {"name": "get_forecast", "arguments": {"city": "東京", "days": 3}}},
        {"function": {"name": "get_forecast", "arguments": {"city": "Tromsø", "days": 3}}},
    ]
    about = "two calls without ids, a line each; `stop` at the end"
    return _case("tools", about, [{"tool_calls": [call]} for call in calls], {"tool_calls": calls}, _usage(310, 45))


CASES = {
    "hello": _case(
        "hello", "text in many scripts", _pieces("content", HELLO), {"content": HELLO}, _usage(19, 87), "stop"
    ),
    "reasoning": _case(
        "reasoning",
        "thinking before the answer",
        _pieces("thinking", THOUGHT) + _pieces("content", ANSWER),
        {"thinking": THOUGHT, "content": ANSWER},
        _usage(21, 67),
    ),
    "tools": _tools(),
    "cached-prompt": _case(
        "cached-prompt",
        "no count of the prompt",
        _pieces("content", ANSWER),
        {"content": ANSWER},
        _usage(None, 26),
        "length",
    ),
}


def _read(_path: str, body: Json) -> Asked:
    if not isinstance(body.get("messages"), list):
        raise RefusedError(Problem(400, "invalid_request", None, "messages must be a list"))
    # Streaming is the default here.
    return Asked(body.get("model") or "hello", body.get("stream") is not False, usage=True)


def _problem(problem: Problem) -> bytes:
    return dump({"error": problem.message})


FAMILY = Family(
    name="ollama",
    paths=("/api/chat",),
    content_type="application/x-ndjson",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=lambda data, _: data + b"\n",
    text=lambda text: _line(_message("hello", content=text)),
    problem=_problem,
    done=b"",
    keepalive=b"\n",
    endless=(b'{"message":{"role":"assistant","content":"', b"water \xe6\xb0\xb4 "),
    finish=re.compile(rb'"done_reason": ?"'),
)
