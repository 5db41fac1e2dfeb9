"""Predictions: an answer that tells where its stream is, and there the text itself as the data of events."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from ..family import Asked, Family, Json, Problem, RefusedError, dump, sse
from .chat import ANSWER, HELLO

DONE = b"event: done\ndata: {}\n\n"


def _output(text: str, place: int = 0) -> bytes:
    """A piece of text: each line of it a line of data."""
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: output\nid: 1763800000:{place}\n{lines}\n".encode()


class Prediction(NamedTuple):
    """A text, and nothing else."""

    about: str
    text: str

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:  # noqa: ARG002  none is ever told
        """The stream; see `Case`."""
        pieces = re.findall(r"\s?\S{1,6}|\s", self.text)
        frames = [b": hi\n\n", *(_output(piece, place) for place, piece in enumerate(pieces))]
        return [*frames, DONE] if done else frames

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        document = {"id": "replay0prediction", "model": "replay/predictions", "status": "succeeded", "error": None}
        measures = {"input_token_count": 19, "output_token_count": 87} if usage else {}
        return dump({**document, "output": [self.text], "metrics": {"predict_time": 0.9, **measures}})


CASES = {
    "hello": Prediction("raw text in many scripts, with line ends; no usage", HELLO),
    "answer": Prediction("raw text; no usage", ANSWER),
}


# ---- the family's row

PATH = re.compile(r".*/(?:models|deployments|streams)/(.+)/(?:predictions|events)")


def _read(path: str, body: Json) -> Asked:
    if path.endswith("/predictions") and not isinstance((body.get("input") or {}).get("prompt"), str):
        raise RefusedError(Problem(422, "invalid_request_error", None, "input: prompt is required", "input"))
    found = PATH.fullmatch(path)
    return Asked(unquote(found[1]) if found else "hello", stream=True, usage=False)


def _announce(base_url: str, model: str) -> bytes:
    stream = f"{base_url}/streams/{quote(model, safe='/')}/events"
    return dump({"id": "replay0prediction", "status": "starting", "output": None, "urls": {"stream": stream}})


def _problem(problem: Problem) -> bytes:
    return dump({"title": problem.type, "detail": problem.message, "status": problem.status})


FAMILY = Family(
    name="predictions",
    paths=("/predictions", "/events"),
    content_type="text/event-stream; charset=utf-8",
    read=_read,
    find=CASES.get,
    cases=CASES,
    frame=lambda data, name: sse(data, name or "error"),
    text=_output,
    problem=_problem,
    done=b"",
    keepalive=b": hi\n\n",
    endless=(b"event: output\ndata: ", b"water \xe6\xb0\xb4 "),
    finish=re.compile(rb"^event: done"),
    announce=_announce,
)
