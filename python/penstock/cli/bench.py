"""`penstock bench`: what this machine makes of it, from the wheel alone. `make bench` of a checkout has the peers."""

import asyncio
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from ..parser import Decoder
from ..replay.cases import FAMILIES

CHUNKS = 2000
MESSAGES = [{"role": "user", "content": "Hello"}]
ASKED = {"include_usage": True}

Subjects = dict[str, Callable[[], int]]


def measure(subjects: Subjects, rounds: int) -> dict[str, list[float]]:
    """Microseconds of this process's CPU per chunk, a figure a round; the subjects take turns."""
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject()  # the first time is for imports and connections
    for _ in range(rounds):
        for name, subject in subjects.items():
            began = time.process_time()
            chunks = subject()
            figures[name].append((time.process_time() - began) / chunks * 1e6)
    return figures


def parsers() -> Subjects:
    """The bytes of one stream, an event a read, to the text of choice 0; raw: to the usage alone."""
    case = FAMILIES["chat"].find(f"long-{CHUNKS}")
    if case is None:
        raise LookupError(f"replay has no case of {CHUNKS} chunks")
    events = case.frames(asked=True, usage=True, done=True)
    readers = {
        "split + orjson.loads": _split,
        "penstock, chunks": _chunks,
        "penstock, text": _text,
        "penstock, raw": _raw,
    }
    return {name: partial(reader, events) for name, reader in readers.items()}


def _length(chunk: Any) -> int:
    return len(chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else 0


def _split(events: list[bytes]) -> int:
    import orjson

    buffer, length = b"", 0
    for data in events:
        buffer += data
        *whole, buffer = buffer.split(b"\n\n")
        for event in whole:
            if event != b"data: [DONE]":
                length += _length(orjson.loads(event[6:]))
    return len(events)


def _chunks(events: list[bytes]) -> int:
    decoder, length = Decoder(include_usage=True), 0
    for data in events:
        for chunk in decoder.feed(data):
            length += _length(chunk)
    return len(events)


def _text(events: list[bytes]) -> int:
    decoder, length = Decoder(depth="text"), 0
    for data in events:
        for piece in decoder.feed(data):
            length += len(piece)
    return len(events)


def _raw(events: list[bytes]) -> int:
    decoder = Decoder(depth="raw")
    for data in events:
        decoder.feed(data)
    return len(events)


@contextmanager
def upstream() -> Iterator[str]:
    """The base URL of a replay server in a process of its own, whose CPU time is not ours."""
    command = [sys.executable, "-m", "penstock", "replay", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:  # noqa: S603
        try:
            yield server.stdout.readline().strip() if server.stdout else ""
        finally:
            server.terminate()


def clients(base_url: str) -> Subjects:
    """One stream over HTTP: by httpx to bytes, and by the calls to chunks."""
    import httpx

    from .. import acompletion, completion

    model = f"long-{CHUNKS}"
    arguments: dict[str, Any] = {"stream": True, "stream_options": ASKED, "api_base": base_url, "api_key": "none"}
    body = {"model": model, "messages": MESSAGES, "stream": True, "stream_options": ASKED}
    client = httpx.Client()

    def bytes_only() -> int:
        with client.stream("POST", f"{base_url}/chat/completions", json=body) as response:
            for _ in response.iter_raw():
                pass
        return CHUNKS

    def blocking() -> int:
        return sum(1 for _ in completion(f"openai/{model}", MESSAGES, **arguments))

    def later() -> int:
        async def main() -> int:
            return sum([1 async for _ in await acompletion(f"openai/{model}", MESSAGES, **arguments)])

        return asyncio.run(main())

    return {"httpx, bytes only": bytes_only, "completion": blocking, "acompletion": later}


def run(rounds: int) -> dict[str, Any]:
    """Everything, with where and of what: {machine, python, versions, rounds, unit, parser, http}."""
    from importlib.metadata import version

    parser = measure(parsers(), rounds)
    with upstream() as base_url:
        http = measure(clients(base_url), rounds)
    return {
        "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("penstock", "httpx", "orjson")},
        "rounds": rounds,
        "unit": "microseconds of CPU per chunk",
        "parser": parser,
        "http": http,
    }


def rows(figures: dict[str, list[float]]) -> list[tuple[str, ...]]:
    """A row per subject: median, range, and how many times faster than the first subject."""
    anchor = median(next(iter(figures.values())))
    return [
        (name, f"{median(each):.2f}", f"{min(each):.2f}-{max(each):.2f}", f"{anchor / median(each):.1f}x")
        for name, each in figures.items()
    ]


def as_json(result: dict[str, Any]) -> str:
    """The result for programs."""
    return json.dumps(result, indent=2)
