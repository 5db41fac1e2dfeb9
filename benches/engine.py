"""Sockets to chunks: CPU time per chunk, latency and threads, beside hand-written clients and bare readers as a floor.

Each client lives in a process of its own for the whole run and is measured in turns with the others. Latency is from
the write in the server, which the stream's text says, to the moment when the caller has that text.

Usage: python engine.py [--rounds N] [--only penstock,aiohttp] [--cells 200,threads] [--quick] [--publish]
       python engine.py --client NAME   (what the above starts: a question in JSON a line in, the answer a line out)
"""

import asyncio
import contextlib
import json
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import peers
import upstream
from clients import Process

HERE = Path(__file__).parent
BLOCKING, ASYNCIO, UVLOOP, EPOLL = "blocking", "asyncio", "uvloop", "epoll"
SLOW = 10
"""A client that is `slow` gets one stream in so many: it would take minutes for what others do in seconds."""


@dataclass(frozen=True)
class Subject:
    """A client, and what drives it."""

    world: str
    package: str
    make: Callable[..., Any]
    slow: bool = False
    speaks: tuple[str, ...] = ("http", "https")


def subjects() -> dict[str, Subject]:
    """Every client by its name."""

    def over_httpx(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda base, **options: make(base, transport="httpx", **options)

    def over_http2(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda base, **options: make(base, http2=True, **options)

    def over_aiohttp(base: str, **options: Any) -> peers.AsyncRun:
        return peers.openai_async(base, aiohttp=True, **options)

    return {
        "penstock": Subject(BLOCKING, "penstock", peers.penstock),
        "penstock, asyncio": Subject(ASYNCIO, "penstock", peers.penstock_async),
        "penstock, uvloop": Subject(UVLOOP, "penstock", peers.penstock_async),
        "penstock over httpx": Subject(BLOCKING, "penstock", over_httpx(peers.penstock)),
        "penstock over httpx, asyncio": Subject(ASYNCIO, "penstock", over_httpx(peers.penstock_async)),
        "aiohttp + orjson, by hand, asyncio": Subject(ASYNCIO, "aiohttp", peers.aiohttp_orjson_async),
        "aiohttp + orjson, by hand, uvloop": Subject(UVLOOP, "aiohttp", peers.aiohttp_orjson_async),
        "openai": Subject(BLOCKING, "openai", peers.openai),
        "openai + aiohttp transport, asyncio": Subject(ASYNCIO, "openai", over_aiohttp),
        "httpx, bytes only": Subject(BLOCKING, "httpx", peers.httpx_bytes),
        "httpx, bytes only, asyncio": Subject(ASYNCIO, "httpx", peers.httpx_bytes_async),
        "litellm, asyncio": Subject(ASYNCIO, "litellm", peers.litellm_async, slow=True),
        "raw socket + orjson, by hand": Subject(BLOCKING, "", peers.socket_orjson, speaks=("http",)),
        "raw socket, bytes only": Subject(BLOCKING, "", peers.socket_bytes, speaks=("http",)),
        "add_reader + orjson, by hand, asyncio": Subject(ASYNCIO, "", peers.reader_orjson_async, speaks=("http",)),
        "add_reader + orjson, by hand, uvloop": Subject(UVLOOP, "", peers.reader_orjson_async, speaks=("http",)),
        "add_reader, bytes only, asyncio": Subject(ASYNCIO, "", peers.reader_bytes_async, speaks=("http",)),
        "add_reader, bytes only, uvloop": Subject(UVLOOP, "", peers.reader_bytes_async, speaks=("http",)),
        "epoll, bytes only": Subject(EPOLL, "", peers.epoll_bytes, speaks=("http",)),
        "penstock, HTTP/2": Subject(BLOCKING, "penstock", over_http2(peers.penstock), speaks=("http2",)),
        "penstock, HTTP/2, asyncio": Subject(ASYNCIO, "penstock", over_http2(peers.penstock_async), speaks=("http2",)),
        "penstock, HTTP/2, uvloop": Subject(UVLOOP, "penstock", over_http2(peers.penstock_async), speaks=("http2",)),
        "httpx, HTTP/2, bytes only, asyncio": Subject(
            ASYNCIO, "h2", over_http2(peers.httpx_bytes_async), speaks=("http2",)
        ),
    }


@dataclass(frozen=True)
class Cell:
    """What is asked of the clients of some worlds."""

    path: str
    worlds: tuple[str, ...]
    at_once: int = 1
    times: int = 1
    blocking_anchor: str = "aiohttp + orjson, by hand, asyncio"
    speaks: str = "http"

    @property
    def stamped(self) -> bool:
        return "/stamped" in self.path

    def anchor(self, world: str) -> str:
        """The client that one of this world is compared with."""
        if self.speaks == "http2":
            return "httpx, HTTP/2, bytes only, asyncio"
        if world == BLOCKING:
            return self.blocking_anchor
        return f"aiohttp + orjson, by hand, {UVLOOP if world == UVLOOP else ASYNCIO}"


ANY = (BLOCKING, ASYNCIO, UVLOOP)
LOOPS = (ASYNCIO, UVLOOP, EPOLL)
RAW = "raw socket, bytes only"
FLOORS = (RAW, "epoll, bytes only")
"""Nothing that parses can keep up with the server better than one of these."""
CELLS = {
    "burst": Cell("/plain/burst/2000/v1", ANY, times=3),
    "burst, padded chunks": Cell("/padded/burst/2000/v1", ANY, times=3),
    "chunk by chunk": Cell("/plain/each/1000/v1", ANY, times=3),
    "one stream, a chunk each 2 ms": Cell("/plain/pace/300/2/v1", ANY, blocking_anchor=RAW),
    # Streams that have nothing to do with each other: as many moments as streams. At 5 ms a core is full for some: they
    # fall behind, read several events at once, and seem to get cheaper.
    "200 streams, a chunk each 10 ms": Cell("/plain/pace/100/10/apart/v1", LOOPS, at_once=200),
    # Without that the times of the requests decide how many chunks come together ever after: a client that sends all of
    # its requests at once is woken up once for 200 streams, one that sends each as soon as it can for each chunk.
    "200 streams, as they were begun": Cell("/plain/pace/100/10/v1", LOOPS, at_once=200),
    "1,000 streams, a chunk each 50 ms": Cell("/plain/pace/40/50/apart/v1", LOOPS, at_once=1000),
    "50 threads, a chunk each 10 ms": Cell("/plain/pace/100/10/v1", (BLOCKING,), at_once=50, blocking_anchor=RAW),
    "latency, one stream, a chunk each 2 ms": Cell("/plain/pace/300/2/stamped/v1", ANY, blocking_anchor=RAW),
    "latency, 100 streams, a chunk each 50 ms": Cell("/plain/pace/40/50/stamped/v1", LOOPS, at_once=100),
    "TLS, burst": Cell("/plain/burst/2000/v1", ANY, times=3, speaks="https"),
    "TLS, 200 streams, a chunk each 10 ms": Cell("/plain/pace/100/10/apart/v1", LOOPS, at_once=200, speaks="https"),
    "HTTP/2, burst": Cell("/plain/burst/2000/v1", ANY, times=3, speaks="http2"),
    "HTTP/2, 200 streams, a chunk each 10 ms": Cell("/plain/pace/100/10/apart/v1", LOOPS, at_once=200, speaks="http2"),
}
STAMP = re.compile(r'"content":"(\d{19})')


class Stopwatch:
    """Reads the times of writing in what arrives: counts as a client does, and keeps how long each was on its way."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, item: str | bytes) -> int:
        now = time.time_ns()
        if isinstance(item, str):
            if item[:19].isdecimal() and len(item) >= 19:
                self.seen.append((now - int(item[:19])) / 1000)
            return len(item)
        self.seen += [(now - int(stamp)) / 1000 for stamp in STAMP.findall(item.decode(errors="replace"))]
        return peers.chunks_in(item)

    def found(self) -> dict[str, float]:
        """Microseconds within which a half and all but a hundredth of the texts arrived; nothing without texts."""
        seen = sorted(self.seen)
        return {"p50": seen[len(seen) // 2], "p99": seen[len(seen) * 99 // 100]} if seen else {}


@contextlib.contextmanager
def measured(answer: dict[str, Any]) -> Iterator[None]:
    """Fills in what it took: `chunks` is to be there at the end."""
    measure.forget_peak_memory()
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    chunks = answer["chunks"]
    answer |= {"cpu": cpu / chunks * 1e6, "rate": chunks / wall, "memory": measure.peak_memory()}


class Client:
    """A subject at work: what is built for an address is kept for the next time."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.built: dict[str, tuple[list[Any], Stopwatch]] = {}

    def runs(self, question: dict[str, Any]) -> tuple[list[Any], Stopwatch]:
        """What reads a stream, once for each thread, and where the times go if the stream has any."""
        base, at_once = question["base"], question["at_once"]
        if base not in self.built:
            stopwatch = Stopwatch()
            options: dict[str, Any] = {"take": stopwatch} if question["stamped"] else {}
            threads = at_once if self.subject.world == BLOCKING else 1
            streams = (at_once,) if self.subject.world == EPOLL else ()
            self.built[base] = [self.subject.make(base, *streams, **options) for _ in range(threads)], stopwatch
        return self.built[base]

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """One stream after the other, or each in its own thread."""
        runs, stopwatch = self.runs(question)
        runs[0]()
        stopwatch.seen.clear()
        counts: list[int] = []

        def work(run: peers.Run) -> None:
            counts.extend(run()[0] for _ in range(question["times"]))

        answer: dict[str, Any] = {}
        with measured(answer):
            threads = [threading.Thread(target=work, args=(run,)) for run in runs[1:]]
            for thread in threads:
                thread.start()
            work(runs[0])
            for thread in threads:
                thread.join()
            answer["chunks"] = sum(counts)
        return answer | stopwatch.found()

    async def answer_async(self, question: dict[str, Any]) -> dict[str, Any]:
        """`at_once` streams side by side."""
        [run], stopwatch = self.runs(question)
        await run()
        stopwatch.seen.clear()
        answer: dict[str, Any] = {}
        with measured(answer):
            answer["chunks"] = 0
            for _ in range(question["times"]):
                found = await asyncio.gather(*(run() for _ in range(question["at_once"])))
                answer["chunks"] += sum(count for count, _ in found)
        return answer | stopwatch.found()


def serve(subject: Subject) -> None:
    """Answers questions in the subject's world. A client that fails fails one cell: that too is an answer."""
    client = Client(subject)

    async def answer_all() -> None:
        print("ready", flush=True)
        while line := sys.stdin.readline():  # nothing else is to run while it waits
            question = json.loads(line)
            try:
                if subject.world in (ASYNCIO, UVLOOP):
                    answer = await client.answer_async(question)
                else:
                    answer = client.answer(question)
            except Exception as error:  # noqa: BLE001  whatever their exceptions are
                answer = {"failed": type(error).__name__}
            print(json.dumps(answer), flush=True)

    if subject.world == UVLOOP:
        import uvloop

        uvloop.run(answer_all())
    else:
        asyncio.run(answer_all())


def question_for(cell: Cell, subject: Subject, base: str, *, quick: bool) -> str:
    """What a subject is asked for a cell."""
    at_once = max(1, cell.at_once // SLOW) if subject.slow else cell.at_once
    times = 1 if subject.slow or quick else cell.times
    return json.dumps({"base": base + cell.path, "at_once": at_once, "times": times, "stamped": cell.stamped})


def kept_up(found: list[dict[str, Any]], floor: list[dict[str, Any]]) -> float:
    """How many chunks per second, as a share of the floor's in the same round."""
    shares = [own["rate"] / other["rate"] for own, other in zip(found, floor, strict=True)]
    return float(statistics.median(shares))


def cells_of(
    answers: dict[str, dict[str, list[dict[str, Any]]]], known: dict[str, Subject]
) -> dict[str, dict[str, Any]]:
    """Medians and ranges, and the ratio to the client that each is compared with."""
    cells: dict[str, dict[str, Any]] = {}
    for shape, rounds in answers.items():
        cells[shape] = {}
        for name, found in rounds.items():
            if failed := [each["failed"] for each in found if "failed" in each]:
                cells[shape][name] = {"failed": f"{failed[0]}, in {len(failed)} of {len(found)} rounds"}
                continue
            anchor = rounds.get(CELLS[shape].anchor(known[name].world), [])
            if any("failed" in each for each in anchor):
                anchor = []
            floor = next((rounds[floor] for floor in FLOORS if floor in rounds), [])
            if any("failed" in each for each in floor):
                floor = []
            keys = [key for key in ("rate", "p50", "p99") if key in found[0]]
            cells[shape][name] = {
                "cpu": measure.summary([each["cpu"] for each in found], [each["cpu"] for each in anchor]),
                **{key: measure.summary([each[key] for each in found]) for key in keys},
                **({"kept": kept_up(found, floor)} if floor else {}),
                "memory": max(each["memory"] for each in found),
            }
    return cells


def rows(cells: dict[str, Any]) -> str:
    """A cell as a table."""
    stamped = any("p50" in cell for cell in cells.values())
    head = [
        "",
        "median",
        "min",
        "max",
        "ratio",
        "chunks/s",
        "of the floor's",
        "peak MiB",
        *(["p50 us", "p99 us"] if stamped else []),
    ]
    lines = []
    for name, cell in cells.items():
        if "failed" in cell:
            lines.append([name, cell["failed"], *[""] * (len(head) - 2)])
            continue
        figures = [cell["cpu"]["median"], cell["cpu"]["min"], cell["cpu"]["max"], cell["cpu"].get("share")]
        figures += [cell["rate"]["median"], cell.get("kept"), cell["memory"]]
        figures += [cell[key]["median"] for key in ("p50", "p99") if key in cell]
        lines.append([name, *("" if figure is None else measure.figure(figure) for figure in figures)])
    return measure.table(head, lines)


def main() -> None:
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument("--client", help="be this client")
    parser.add_argument("--cells", default="", help="measure only cells whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="one round, without the slowest")
    options = parser.parse_args()
    known = subjects()
    if options.client:
        return serve(known[options.client])
    measure.raise_file_limit()
    installed = measure.versions()
    chosen = {
        name: subject
        for name, subject in known.items()
        if measure.wanted(name, options.only)
        and (not subject.package or subject.package in installed)
        and (subject.world != UVLOOP or "uvloop" in installed)
        and (subject.world != EPOLL or sys.platform == "linux")
        and not (options.quick and subject.slow)
    }
    shapes = {shape: cell for shape, cell in CELLS.items() if measure.wanted(shape, options.cells)}
    rounds = 1 if options.quick else options.rounds
    answers: dict[str, dict[str, list[dict[str, Any]]]] = {shape: {} for shape in shapes}
    with upstream.serve_all() as bases, contextlib.ExitStack() as stack:
        children = {name: stack.enter_context(Process(str(HERE / "engine.py"), "--client", name)) for name in chosen}
        for child in children.values():
            child.ask()
        for _ in range(rounds):
            for shape, cell in shapes.items():
                for name, subject in chosen.items():
                    if subject.world in cell.worlds and cell.speaks in subject.speaks:
                        question = question_for(cell, subject, bases[cell.speaks], quick=options.quick)
                        answers[shape].setdefault(name, []).append(json.loads(children[name].ask(question)))
    cells = cells_of(answers, known)
    for shape, found in cells.items():
        print(f"\n{shape}: microseconds of CPU per chunk, {rounds} rounds\n\n{rows(found)}")
    result = {
        "bench": "engine",
        "unit": "microseconds of CPU per chunk",
        "rounds": rounds,
        "anchors": {shape: sorted({cell.anchor(world) for world in cell.worlds}) for shape, cell in shapes.items()},
        "slow": {"names": [name for name, subject in chosen.items() if subject.slow], "share": SLOW},
        "cells": cells,
    }
    path = measure.save("engine", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")
    return None


if __name__ == "__main__":
    main()
