"""Bare texts: the answers of servers that continue a text, each in documents of its own."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..family import Asked, Json, Problem, RefusedError, dump, sse
from . import chat
from .chat import ANSWER, HELLO

COUNTS = frozenset(
    {"usage", "input_length", "generated_tokens", "input_token_count", "generated_token_count", "predict_time"}
)


def _without_usage(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_usage(inner) for name, inner in value.items() if name not in COUNTS}
    return [_without_usage(inner) for inner in value] if isinstance(value, list) else value


class Text(NamedTuple):
    """Events, and the same as one response."""

    about: str
    events: list[Json]
    response: Json
    asked: tuple[Json, ...] = ()
    """Sent after the events if the request asks for usage."""
    mark: bytes = b""
    """What ends the stream, where something does."""
    start: bytes = b"data: "
    end: bytes = b"\n\n"

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:
        """The stream; see `Case`."""
        events = [*self.events, *(self.asked if asked and usage else ())]
        frames = [self.start + dump(event if usage else _without_usage(event)) + self.end for event in events]
        return [*frames, self.mark] if done and self.mark else frames

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        return dump(self.response if usage else _without_usage(self.response))


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s?\S{1,6}|\s", text)


def _completion(text: str, finish: str | None = None) -> Json:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    head = {"id": "cmpl-replay", "object": "text_completion", "created": 1763800000, "model": "replay-text-2025-11-22"}
    return {**head, "choices": [choice]}


def _choices() -> Text:
    usage = {"prompt_tokens": 19, "completion_tokens": 87, "total_tokens": 106}
    events = [*map(_completion, _pieces(HELLO)), _completion("", "stop")]
    last = {**_completion(""), "choices": [], "usage": usage}
    about = "`choices` with a text, as before chat; usage on request in a chunk of its own"
    return Text(about, events, {**_completion(HELLO, "stop"), "usage": usage}, (last,), chat.DONE)


def _deltas() -> Text:
    head = {"id": "fim-replay", "object": "chat.completion.chunk", "created": 1763800000, "model": "replay-fim"}
    usage = {"prompt_tokens": 19, "completion_tokens": 87, "total_tokens": 106}

    def event(text: str, finish: str | None = None) -> Json:
        return {**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}

    message = {"role": "assistant", "content": HELLO}
    whole = {**head, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    events = [*map(event, _pieces(HELLO)), {**event("", "stop"), "usage": usage}]
    return Text("deltas as in chat; usage beside the finish reason, unasked", events, whole, mark=chat.DONE)


def _token(index: int, text: str, *, special: bool = False) -> Json:
    token = {"id": 17 * index, "text": text, "logprob": -0.0625 * index, "special": special}
    return {"index": index, "token": token, "generated_text": None, "details": None}


def _tokens(about: str, start: bytes, end: bytes) -> Text:
    pieces = _pieces(HELLO)
    details = {"finish_reason": "eos_token", "generated_tokens": len(pieces) + 1, "input_length": 19, "seed": None}
    whole = {"generated_text": HELLO, "details": details}
    events = [_token(index, piece) for index, piece in enumerate(pieces, 1)]
    return Text(
        about, [*events, {**_token(len(pieces) + 1, "</s>", special=True), **whole}], whole, start=start, end=end
    )


def _results() -> Text:
    def event(text: str, given: int, written: int, stop: str) -> Json:
        counts = {"generated_token_count": written, "input_token_count": given}
        head = {"model_id": "replay/results", "created_at": "2025-11-22T08:26:40.000Z"}
        return {**head, "results": [{"generated_text": text, **counts, "stop_reason": stop}]}

    pieces = _pieces(HELLO)
    events = [event(piece, 0, at + 2, "not_finished") for at, piece in enumerate(pieces)]
    events = [event("", 19, 1, "not_finished"), *events, event("", 0, len(pieces) + 1, "eos_token")]
    about = "`results`; the prompt's count in the first event only, the other one grows"
    return Text(about, events, event(HELLO, 19, len(pieces) + 1, "eos_token"))


def _text_output() -> Text:
    head = {"model_name": "replay", "model_version": "1"}
    events = [{**head, "text_output": piece} for piece in _pieces(ANSWER)]
    return Text("`text_output`: nothing but the text, and no end", events, {**head, "text_output": ANSWER})


def _response() -> Text:
    usage = {"prompt_tokens": 24, "completion_tokens": 26, "total_tokens": 50}
    events = [{"response": piece, "p": "abcdefghijklmnop"[: len(piece)]} for piece in _pieces(ANSWER)]
    whole = {"result": {"response": ANSWER, "usage": usage}, "success": True, "errors": [], "messages": []}
    about = "`response` and filler; usage in the last event, no finish reason"
    return Text(about, [*events, {"response": "", "usage": usage}], whole, mark=chat.DONE)


CASES: dict[str, Text] = {
    "hello": _choices(),
    "deltas": _deltas(),
    "tokens": _tokens("token by token; usage with the finish reason", b"data:", b"\n\n"),
    "lines": _tokens("the same as bare lines", b"", b"\n"),
    "results": _results(),
    "text-output": _text_output(),
    "response": _response(),
}


# ---- the family's row

PATH = re.compile(r".*/([^/]+)/generate(?:_stream)?")


def _read(path: str, body: Json) -> Asked:
    prompt = next((body[name] for name in ("prompt", "inputs", "input", "text_input") if name in body), None)
    if not isinstance(prompt, str):
        raise RefusedError(Problem(400, "invalid_request_error", None, "a text to go on with must be given", "prompt"))
    found = PATH.fullmatch(path)
    model = body.get("model") or body.get("model_id") or (unquote(found[1]) if found else "hello")
    if "text_input" in body:
        # Its path has the version, and the name of the model before it.
        model = "text-output"
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return Asked(model, bool(body.get("stream")) or path.endswith("_stream"), usage)


FAMILY = chat.FAMILY._replace(
    name="text",
    paths=("/completions", "/generate", "/generate_stream", "/text/generation", "/text/generation_stream"),
    read=_read,
    find=CASES.get,
    cases=CASES,
    text=lambda text: sse(dump(_completion(text))),
    endless=(b'data: {"choices":[{"index":0,"text":"', b"water \xe6\xb0\xb4 "),
    finish=re.compile(rb'"(?:finish_reason|stop_reason)": ?"(?!not_finished)'),
)
