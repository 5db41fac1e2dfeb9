"""Gemini: authored streams of generateContent."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from ..family import Asked, Family, Json, Problem, RefusedError, dump, sse
from .authored import Authored
from .chat import ANSWER, HELLO, THOUGHT

STREAM, SINGLE = ":streamGenerateContent", ":generateContent"


def _event(name: str, parts: list[Json], *, finish: str | None = None, usage: Json | None = None) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    event: Json = {"candidates": [candidate]}
    if usage is not None:
        event["usageMetadata"] = usage
    return {**event, "modelVersion": f"replay-{name}", "responseId": f"replay-{name}"}


def _usage(prompt: int, **counts: int) -> Json:
    """Zeros are left out, as the provider does."""
    told = {"promptTokenCount": prompt, **counts}
    total = prompt + sum(counts.get(f"{kind}TokenCount", 0) for kind in ("candidates", "thoughts", "toolUsePrompt"))
    return {**told, "totalTokenCount": total}


def _frame(event: Json) -> bytes:
    return sse(dump(event), newline=b"\r\n")


def _without_usage(event: Json) -> Json:
    return {key: value for key, value in event.items() if key != "usageMetadata"}


def _case(name: str, about: str, steps: list[tuple[list[Json], Json]], *, finish: str = "STOP") -> Authored:
    """The parts and the usage of each event; the last one finishes."""
    last = len(steps) - 1
    events = [
        _event(name, parts, finish=finish if place == last else None, usage=usage)
        for place, (parts, usage) in enumerate(steps)
    ]
    whole = [part for parts, _ in steps for part in parts]
    response = _event(name, whole, finish=finish, usage=steps[-1][1])
    return Authored(about, events, response, _frame, _without_usage)


def _texts(text: str, prompt: int, thoughts: int = 0) -> list[tuple[list[Json], Json]]:
    """Text in large pieces with a usage that grows, as this provider sends it."""
    counts = {"thoughtsTokenCount": thoughts} if thoughts else {}
    pieces = re.findall(r".{1,40}", text, re.DOTALL)
    return [
        ([{"text": piece}], _usage(prompt, candidatesTokenCount=9 * count, **counts))
        for count, piece in enumerate(pieces, 1)
    ]


def _thoughts() -> list[tuple[list[Json], Json]]:
    thought: list[Json] = [{"text": THOUGHT, "thought": True}]
    signed: list[Json] = [{"text": "", "thoughtSignature": "UmVwbGF5IHNpZ25hdHVyZQ=="}]
    usage = _usage(31, candidatesTokenCount=27, thoughtsTokenCount=41)
    return [(thought, _usage(31, thoughtsTokenCount=41)), *_texts(ANSWER, 31, 41), (signed, usage)]


def _rounds() -> list[tuple[list[Json], Json]]:
    code: Json = {"executableCode": {"language": "PYTHON", "code": "print(3000 / 300)", "id": "replay1"}}
    result: Json = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "10.0\n", "id": "replay1"}}
    return [
        ([code], _usage(46, candidatesTokenCount=51, thoughtsTokenCount=101)),
        ([result], _usage(46)),
        ([{"text": ANSWER}], _usage(46, candidatesTokenCount=57, thoughtsTokenCount=67)),
        (
            [{"text": "", "thoughtSignature": "UmVwbGF5"}],
            _usage(147, candidatesTokenCount=108, thoughtsTokenCount=168, toolUsePromptTokenCount=360),
        ),
    ]


def _tools() -> list[tuple[list[Json], Json]]:
    tokyo: Json = {"functionCall": {"name": "get_forecast", "args": {"city": "東京", "days": 3}}}
    oslo: Json = {"functionCall": {"name": "get_forecast", "args": {"city": "Tromsø", "days": 3}}}
    usage = _usage(72, candidatesTokenCount=24)
    return [([{**tokyo, "thoughtSignature": "UmVwbGF5"}, oslo], usage), ([{"text": ""}], usage)]


def _blocked() -> Authored:
    event: Json = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
        "modelVersion": "replay-blocked",
    }
    return Authored("a prompt that is not answered", [event], event, _frame, _without_usage)


CASES = {
    "hello": _case("hello", "text in many scripts, a growing usage in every event", _texts(HELLO, 19)),
    "reasoning": _case("reasoning", "thoughts before the answer, a signature after it", _thoughts()),
    "tools": _case("tools", "two calls in one event; STOP comes later", _tools()),
    "rounds": _case("rounds", "code run by the server; the usage starts anew with each round", _rounds()),
    "cut-short": _case("cut-short", "ends at the limit", _texts(ANSWER, 19), finish="MAX_TOKENS"),
    "blocked": _blocked(),
}


def _read(path: str, body: Json) -> Asked:
    if not body.get("contents"):
        raise RefusedError(Problem(400, "INVALID_ARGUMENT", None, "* GenerateContentRequest.contents: not specified"))
    model = unquote(path.rpartition("/models/")[2].rpartition(":")[0])
    return Asked(model, path.endswith(STREAM), usage=True)


def _problem(problem: Problem) -> bytes:
    error: dict[str, Any] = {"code": problem.status, "message": problem.message, "status": problem.type.upper()}
    return dump({"error": error})


FAMILY = Family(
    name="gemini",
    paths=(STREAM, SINGLE),
    content_type="text/event-stream",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=lambda data, name: sse(data, name, b"\r\n"),
    text=lambda text: _frame(_event("hello", [{"text": text}])),
    problem=_problem,
    done=b"",
    keepalive=b": keep-alive\r\n\r\n",
    endless=(b'data: {"candidates":[{"content":{"parts":[{"text":"', b"water \xe6\xb0\xb4 "),
    finish=re.compile(rb'"finishReason": ?"'),
)
